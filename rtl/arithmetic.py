"""Number rules of the datapath as combinational logic, shared by the blocks: overflow, rounding shift, clip, delay, sums, products."""

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, signed

from accel.config import AcceleratorConfig
from accel.formats import Overflow


def delay(m: Module, value: Value, cycles: int, name: str) -> Value:
    """Return `value` as it was `cycles` clock edges ago; the registers hold data, so they are not reset."""
    for stage in range(cycles):
        held = Signal.like(value, name=f"{name}_{stage}", reset_less=True)
        m.d.sync += held.eq(value)
        value = held
    return value


def stage(m: Module, value: Value, registered: bool, name: str) -> Value:
    """Return `value` from a register, or in the same cycle as a signal of that name."""
    if registered:
        return delay(m, value, 1, name)
    held = Signal.like(value, name=name)
    m.d.comb += held.eq(value)
    return held


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


def add(a: Value, b: Value) -> Value:
    """Return the sum of two values that are both signed or both unsigned, as a carry chain of its own.

    Yosys merges sums of sums into compressor trees, several times the look-up tables of the carry chains. It does not see through the
    lowest bit of this one: it is made apart, and its carry enters the others through a bit below them.
    """

    def others(value, below):
        bits = Cat(below, value[1:])
        return bits.as_signed() if value.shape().signed else bits

    bits = Cat(a[0] ^ b[0], (others(a, Const(1)) + others(b, a[0] & b[0]))[1:])
    return bits.as_signed() if a.shape().signed else bits


def total(m: Module, values: list[Value], ranks: bool, name: str) -> Value:
    """Return the sum of values as a tree of additions, with `ranks` a register behind each of its :func:`levels`."""
    for level in range(levels(len(values))):
        pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
        values = [stage(m, add(*pair) if len(pair) == 2 else pair[0], ranks, f"{name}_{level}_{i}") for i, pair in enumerate(pairs)]
    return values[0]


def levels(count: int) -> int:
    """Return the levels of a tree that adds `count` values."""
    return (count - 1).bit_length()


def multiply(m: Module, a: Value, b: Value, how: str) -> Value:
    """Return the product of a value and an unsigned one; `how` is a configuration's `products`.

    In rows: each bit of `b` adds `a` or nothing to what is left of the sum above the bits that are final. It subtracts -a, because the
    left operand of a subtraction is what Yosys feeds to the carry chain: only then do choice and addition share a look-up table.
    """
    product = Signal((a * b).shape(), name="product")
    if how == "device":
        m.d.comb += product.eq(a * b)
        return product
    wide, minus = (Signal(signed(len(a) + 1), name=name) for name in ("wide", "minus"))
    left, final = Mux(b[0], a, 0), []
    for i in range(1, len(b)):
        final.append(left[0])
        rest = left[1:].as_signed() if a.shape().signed else left[1:]
        left = Signal(Shape(len(a) + 1, a.shape().signed), name=f"row_{i}")
        m.d.comb += left.eq(rest - Mux(b[i], minus, 0))
    bits = Cat(final, left)
    m.d.comb += [wide.eq(a), minus.eq(~wide + 1), product.eq(bits.as_signed() if a.shape().signed else bits)]
    return product


def square(m: Module, value: Value, how: str) -> Value:
    """Return the square of a value, unsigned; `how` is a configuration's `products`, and in rows the value is unsigned.

    In rows: bit i adds 4^i (4 h + 1), h the bits above it, which makes half as many as in a product. It subtracts -(4 h + 1), all bits of
    4 h inverted; see :func:`multiply`. Up to bit i that is the square of all bits less that of those above: less than 2^(bits + i + 2).
    """
    bits = len(value)
    product = Signal(2 * bits, name="product")
    if how == "device":
        m.d.comb += product.eq(value * value)
        return product
    left, final = Const(0, 0), []
    for i in range(bits):
        row = Signal(min(bits - i + 2, 2 * (bits - i)), name=f"row_{i}")
        m.d.comb += row.eq(left - Mux(value[i], ~Cat(Const(0, 2), value[i + 1 :], Const(0, 1)).as_signed(), 0))
        final.append(row[:2])
        left = row[2:]
    m.d.comb += product.eq(Cat(final))
    return product


def saturate(value: Value, bits: int) -> Value:
    """Return an unsigned value, or the largest of `bits` bits if it is larger."""
    return value[:bits] | value[bits:].any().replicate(bits) if len(value) > bits else value


def clamp(value: Value, bits: int) -> Value:
    """Return the signed value of `bits` bits nearest to a signed value."""
    return Mux(fits(value, bits), value[:bits].as_signed(), bound(value[-1], bits))
