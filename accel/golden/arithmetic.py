"""Golden model of the number rules: rounding shift, overflow, scaling by a power of two or by (multiplier, shift).

Each rule is a checked function on arrays over a kernel of the same name on one integer, which the kernels of other blocks call too. All
of it is exact: no intermediate leaves int64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.errors import RangeError
from accel.formats import FixedFormat, Overflow, Rounding
from accel.golden import checks
from accel.isa import SHIFT_BITS
from accel.jit import kernel
from accel.lfsr import WORD_BITS, WORD_MASK

MAX_SHIFT = (1 << SHIFT_BITS) - 1
_INT64 = (-(1 << 63), (1 << 63) - 1)
_TENSOR = (-(1 << 31), (1 << 32) - 1)  # integers of some tensor format: 32 bits, signed or unsigned
_FLOOR, _HALF_UP, _HALF_EVEN = (rule.code for rule in (Rounding.FLOOR, Rounding.HALF_UP, Rounding.HALF_EVEN))


def round_shift(value: NDArray[np.int64], shift: ArrayLike, rounding: Rounding, word: ArrayLike | None = None) -> NDArray[np.int64]:
    """Divide by ``2**shift`` and round to an integer.

    STOCHASTIC is ``floor(value / 2**shift + word / 2**32)``. So of n dropped bits and the word, the min(n, 32) most significant ones of
    each are added, and the carry goes to the quotient.

    Parameters
    ----------
    value : int64, any shape
        Dividend; any int64.
    shift : int64 that broadcasts to the shape of `value`
        Dropped bits, 0 to 63.
    rounding : Rounding
        Rule for the dropped bits.
    word : int64 that broadcasts to the shape of `value`, optional
        LFSR words, 0 to 2**32 - 1; given if and only if `rounding` is STOCHASTIC.

    Returns
    -------
    int64, shape of `value`
        Rounded quotient.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    if (word is not None) is not (rounding is Rounding.STOCHASTIC):
        raise RangeError(f"word must be {'given' if word is None else 'None'} where rounding is {rounding.value}, not {word!r}")
    out = _operand("value", value, value.shape)
    shifts = _operand("shift", shift, value.shape, 0, MAX_SHIFT)
    _round_shift_each(out, shifts, rounding.code, _operand("word", 0 if word is None else word, value.shape, 0, WORD_MASK))
    return out.reshape(value.shape)


def overflow(value: NDArray[np.int64], format: FixedFormat, rule: Overflow, shift: int = 0) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Multiply by ``2**shift`` and bring the exact product into a format.

    Parameters
    ----------
    value : int64, any shape
        Integers; any int64.
    format : FixedFormat
        Where the product must fit.
    rule : Overflow
        What becomes of a product that does not.
    shift : int
        0 to 63 [bits].

    Returns
    -------
    value : int64, same shape
        Integers in ``format.lo..format.hi``.
    flag : bool, same shape
        Whether the product was outside.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    checks.integer("shift", shift, 0, MAX_SHIFT)
    out = _operand("value", value, value.shape)
    flag = np.empty(value.shape, np.bool_)
    _overflow_each(out, shift, format.lo, format.hi, rule is Overflow.WRAP, flag.reshape(-1))
    return out.reshape(value.shape), flag


def convert(
    value: NDArray[np.int64], source: FixedFormat, target: FixedFormat, rounding: Rounding, rule: Overflow, word: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Convert fixed-point numbers to another format: the fraction first, then the range.

    Parameters
    ----------
    value : int64, any shape
        Integers of `source`.
    source, target : FixedFormat
        Their fraction bits differ by at most 63.
    rounding : Rounding
        Rule for dropped fraction bits.
    rule : Overflow
        Rule for results outside `target`.
    word : int64 that broadcasts to the shape of `value`, optional
        LFSR words; given if and only if `rounding` is STOCHASTIC.

    Returns
    -------
    value : int64, same shape
        Integers of `target`.
    flag : bool, same shape
        Whether the rounded number was outside.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    _operand("value", value, value.shape, source.lo, source.hi)
    dropped = source.frac - target.frac
    if abs(dropped) > MAX_SHIFT:
        raise RangeError(
            f"target must have between {source.frac - MAX_SHIFT} and {source.frac + MAX_SHIFT} fraction bits, not {target.frac}"
        )
    return overflow(round_shift(value, max(dropped, 0), rounding, word), target, rule, max(-dropped, 0))


def requantise(
    acc: NDArray[np.int64], bias: ArrayLike, mult: ArrayLike, shift: ArrayLike, rounding: Rounding, zero_point: int, lo: int, hi: int
) -> NDArray[np.int64]:
    """Turn sums into the integers of an output tensor.

    ``clip(round_shift((acc + bias) * mult, shift) + zero_point, lo, hi)``: one rounding, on exact bits.

    Parameters
    ----------
    acc : int64, any shape
        Sums [product LSBs].
    bias : int64 that broadcasts to the shape of `acc`
        Added to the sums [product LSBs].
    mult : int64 that broadcasts to the shape of `acc`
        Multipliers, 0 or more. The greatest possible product of the given ranges fits in int64, as it does where the widths of sums and
        multipliers add up to at most 63 bits.
    shift : int64 that broadcasts to the shape of `acc`
        Dropped bits of the product, 0 to 63.
    rounding : Rounding
        FLOOR, HALF_UP or HALF_EVEN.
    zero_point : int
        Output integer that stands for zero.
    lo, hi : int
        Bounds of the output integers.

    Returns
    -------
    int64, shape of `acc`
        Output integers in ``lo..hi``.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    if rounding is Rounding.STOCHASTIC:
        raise RangeError(f"rounding must be floor, half_up or half_even, not {rounding.value}")
    checks.integer("zero_point", zero_point, *_TENSOR)
    checks.integer("hi", hi, *_TENSOR)
    checks.integer("lo", lo, _TENSOR[0], hi)
    out = _operand("acc", acc, acc.shape)
    biases = _operand("bias", bias, acc.shape)
    mults = _operand("mult", mult, acc.shape, lo=0)
    shifts = _operand("shift", shift, acc.shape, 0, MAX_SHIFT)
    if out.size:
        reach = max(-int(out.min()) - int(biases.min()), int(out.max()) + int(biases.max())) * max(1, int(mults.max()))
        if reach > _INT64[1]:
            raise RangeError(f"(acc + bias) * mult must be at most 2**63 - 1 in magnitude, not up to {reach}")
    _requantise_each(out, biases, mults, shifts, rounding.code, zero_point, lo, hi)
    return out.reshape(acc.shape)


def _operand(name: str, value: ArrayLike, shape: tuple[int, ...], lo: int = _INT64[0], hi: int = _INT64[1]) -> NDArray[np.int64]:
    """Check an operand and lay it out as a fresh line of one integer per result."""
    array = np.asarray(value)
    checks.integers(name, array, array.shape, lo, hi)
    try:
        return np.broadcast_to(array, shape).flatten()
    except ValueError:
        raise RangeError(f"{name} must be of a shape that broadcasts to {shape}, not {array.shape}") from None


@kernel
def _round_shift(value, shift, rounding, word):
    """Kernel: `word` counts for STOCHASTIC only."""
    floor = value >> shift
    if shift == 0 or rounding == _FLOOR:
        return floor
    dropped = value - (floor << shift)
    half = 1 << (shift - 1)
    if rounding == _HALF_UP:
        return floor + (dropped >= half)
    if rounding == _HALF_EVEN:
        return floor + (dropped > half - (floor & 1))
    spare = WORD_BITS - shift
    fraction = dropped << spare if spare > 0 else dropped >> -spare
    return floor + ((fraction + word) >> WORD_BITS)


@kernel
def _overflow(value, lo, hi, wrap):
    """Kernel: the integer kept of `value`, and whether it differs."""
    if lo <= value <= hi:
        return value, False
    if wrap:
        low = value & (hi - lo)
        return low - (hi - lo + 1) if low > hi else low, True
    return hi if value > hi else lo, True


@kernel
def _requantise(acc, bias, mult, shift, rounding, zero_point, lo, hi):
    """Kernel: clips before the zero point is added, which could leave int64."""
    scaled = _round_shift((acc + bias) * mult, shift, rounding, 0)
    return min(max(scaled, lo - zero_point), hi - zero_point) + zero_point


@kernel
def _round_shift_each(value, shift, rounding, word):
    for i in range(value.size):
        value[i] = _round_shift(value[i], shift[i], rounding, word[i])


@kernel
def _overflow_each(value, shift, lo, hi, wrap, flag):
    """Kernel: a product that leaves int64 is seen by dividing the bounds instead; its low bits are right all the same."""
    least, most = -(-lo >> shift), hi >> shift
    for i in range(value.size):
        inside = least <= value[i] <= most
        if inside or wrap:
            value[i], flag[i] = _overflow(value[i] << shift, lo, hi, True)[0], not inside
        else:
            value[i], flag[i] = hi if value[i] > most else lo, True


@kernel
def _requantise_each(acc, bias, mult, shift, rounding, zero_point, lo, hi):
    for i in range(acc.size):
        acc[i] = _requantise(acc[i], bias[i], mult[i], shift[i], rounding, zero_point, lo, hi)
