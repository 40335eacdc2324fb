"""Number rules of the datapath as combinational logic, shared by the blocks: overflow, rounding shift, clip, delay."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed

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
    return head.all() | ~head.any() if len(head) else Const(1)


def bound(sign: Value, bits: int) -> Value:
    """Return the signed integer of `bits` bits that lies farthest on the side of `sign`."""
    return Cat((~sign).replicate(bits - 1), sign).as_signed()


def overflow_rule(m: Module, value: Value, config: AcceleratorConfig) -> tuple[Value, Value]:
    """Bring an exact signed sum into the accumulator format.

    Returns the accumulator by the config's overflow rule, and whether it differs from `value`.
    """
    bits = config.acc_bits
    if len(value) <= bits:
        return value, Const(0)
    exact = Signal.like(value, name="exact")
    outside = Signal()
    m.d.comb += [exact.eq(value), outside.eq(~fits(exact, bits))]
    kept = exact[:bits].as_signed()
    if config.on_overflow is Overflow.SATURATE:
        kept = Mux(outside, bound(exact[-1], bits), kept)
    return kept, outside


def round_shift(m: Module, value: Value, shift: Value, rounding: Value, bits: int) -> tuple[Value, Value]:
    """Shift signed `value` right into `bits` bits and say which way it rounds.

    Returns the quotient, rounded down and saturated, and the carry that rounds it: their sum is the rounded quotient where that fits.
    A logarithmic shifter, widest shift first, so that each stage keeps only the bits which the later ones can still bring into the
    quotient. The last bit lost is the `guard`; `sticky` tells whether any bit below it was set. `rounding` counts floor, half_up and
    half_even.
    """
    window = Cat(0, value).as_signed()  # bit 0 is the guard
    outside, sticky = Const(0), Const(0)
    for stage, on in reversed(list(enumerate(shift))):
        step = 1 << stage
        width = bits + step
        moved = Mux(on, window >> step, window)[:width]
        kept = Signal(signed(len(moved)), name=f"window_{stage}")
        lost = Signal(name=f"sticky_{stage}")
        left = Signal(name=f"outside_{stage}")
        m.d.comb += [
            kept.eq(moved),
            lost.eq(sticky | on & window[:step].any()),
            left.eq(outside | ~fits(window, width + step) | ~on & ~fits(window, width)),
        ]
        window, sticky, outside = kept, lost, left
    guard, quotient = window[0], window[1:].as_signed()
    half_up, half_even = rounding
    carry = guard & (half_up | half_even & (sticky | quotient[0]))
    return Mux(outside, bound(value[-1], bits), quotient), carry


def clip(value: Value, lo: Value, hi: Value) -> Value:
    """Return the integer of `lo` to `hi` nearest to `value`; `lo` <= `hi`."""
    return Mux(value < lo, lo, Mux(value > hi, hi, value))
