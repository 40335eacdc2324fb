"""Number rules of the datapath as combinational logic, shared by the blocks: overflow, rounding shift, clip, delay."""

from amaranth import Cat, Module, Mux, Signal, Value

from accel.config import AcceleratorConfig
from accel.formats import Overflow


def delay(m: Module, value: Value, cycles: int, name: str) -> Value:
    """Return `value` as it was `cycles` clock edges ago; the registers hold data, so they are not reset."""
    for stage in range(cycles):
        held = Signal.like(value, name=f"{name}_{stage}", reset_less=True)
        m.d.sync += held.eq(value)
        value = held
    return value


def fits(value: Value, bits: int) -> Value:
    """Tell whether signed `value` is one of `bits` bits: all bits from bit `bits` - 1 up are equal."""
    head = value[bits - 1 :]
    return head.all() | ~head.any()


def saturate(m: Module, value: Value, bits: int) -> Value:
    """Return the signed integer of `bits` bits nearest to signed `value`."""
    if len(value) <= bits:
        return value
    exact = Signal.like(value, name="unsaturated")
    m.d.comb += exact.eq(value)
    bound = Cat((~exact[-1]).replicate(bits - 1), exact[-1])
    return Mux(fits(exact, bits), exact[:bits], bound).as_signed()


def overflow_rule(m: Module, value: Value, config: AcceleratorConfig) -> tuple[Value, Value]:
    """Bring an exact signed sum into the accumulator format.

    Returns the accumulator by the config's overflow rule, and whether it differs from `value`.
    """
    bits = config.acc_bits
    if len(value) <= bits:
        return value, Value.cast(0)
    exact = Signal.like(value, name="exact")
    m.d.comb += exact.eq(value)
    kept = saturate(m, exact, bits) if config.on_overflow is Overflow.SATURATE else exact[:bits].as_signed()
    return kept, ~fits(exact, bits)


def round_shift(m: Module, value: Value, shift: Value, rounding: Value) -> tuple[Value, Value]:
    """Shift signed `value` right and say which way it rounds; quotient + carry is the rounded quotient.

    A logarithmic shifter keeps the last bit lost (`guard`) and whether any bit below it was set (`sticky`), so that a tie is seen
    without a second shifter. `rounding` counts floor, half_up, half_even.
    """
    window = Cat(0, value).as_signed()  # bit 0 is the guard
    sticky = Value.cast(0)
    for stage, on in enumerate(shift):
        lost = window[: 1 << stage]
        shifted = Signal.like(window, name=f"shifted_{stage}")
        lost_any = Signal(name=f"lost_{stage}")
        m.d.comb += [shifted.eq(Mux(on, window >> (1 << stage), window)), lost_any.eq(sticky | on & lost.any())]
        window, sticky = shifted, lost_any
    guard, quotient = window[0], window[1:].as_signed()
    half_up, half_even = rounding
    return quotient, guard & (half_up | half_even & (sticky | quotient[0]))


def clip(value: Value, lo: Value, hi: Value) -> Value:
    """Return the integer of `lo` to `hi` nearest to `value`; `lo` <= `hi`."""
    return Mux(value < lo, lo, Mux(value > hi, hi, value))
