"""What several of the models share: a real factor as two integers, and exact quotients, square roots and logarithms of integers."""

from __future__ import annotations

from fractions import Fraction
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.formats import Rounding
from accel.golden import checks
from accel.jit import kernel

Integers = NDArray[np.signedinteger[Any]]

WIDEST = 16  # bits of an operand, at most: what the widths of all steps are derived from
LOG_BITS = 24  # fraction bits of a logarithm
_ONE = 30  # fraction bits of a significand in [1, 2) while its logarithm is taken
_FLOOR, _HALF_UP = Rounding.FLOOR.code, Rounding.HALF_UP.code


def nearest(factor: float | Fraction, bits: int, most: int) -> tuple[int, int]:
    """Find the nearest mult / 2**shift of a factor, exactly.

    Unlike :func:`accel.quant.nearest_multiplier` it bounds the shift, and a factor that is too small for it becomes 0.

    Parameters
    ----------
    factor : float or Fraction
        0 or more, and below ``2**bits - 1/2``.
    bits : int
        Width of the multiplier [bits].
    most : int
        Greatest shift, 0 or more.

    Returns
    -------
    mult, shift : int
        The shift is the greatest up to `most` at which ``mult = round_half_even(factor * 2**shift)`` has at most `bits` bits.
    """
    exact = Fraction(factor)
    shift = most
    while shift and round(exact * (1 << shift)) >= 1 << bits:
        shift -= 1
    return round(exact * (1 << shift)), shift


def positive(name: str, value: float) -> None:
    """Refuse what is no positive finite number.

    Parameters
    ----------
    name : str
        What the message calls it.
    value : float

    Raises
    ------
    RangeError
        If the rule is broken.
    """
    if not 0 < value < inf:
        raise RangeError(f"{name} must be positive and finite, not {value}")


def zero_points(values: tuple[int, ...]) -> None:
    """Refuse zero points that no tensor of at most :data:`WIDEST` bits has.

    Parameters
    ----------
    values : tuple of int

    Raises
    ------
    RangeError
        If the rule is broken.
    """
    for value in values:
        checks.integer("zero_points", value, -(1 << WIDEST - 1), (1 << WIDEST - 1) - 1)


def output(zero_point: int, lo: int, hi: int, rounding: Rounding) -> None:
    """Refuse output parameters that no tensor of at most :data:`WIDEST` bits has.

    Parameters
    ----------
    zero_point, lo, hi : int
    rounding : Rounding

    Raises
    ------
    RangeError
        If the rule is broken.
    """
    half = 1 << WIDEST - 1
    checks.integer("zero_point", zero_point, -half, half - 1)
    checks.integer("hi", hi, -half, half - 1)
    checks.integer("lo", lo, -half, hi)
    if rounding is Rounding.STOCHASTIC:
        raise RangeError(f"rounding must be floor, half_up or half_even, not {rounding.value}")


def operand(name: str, x: Integers) -> NDArray[np.int64]:
    """Bring an operand to int64.

    Parameters
    ----------
    name : str
        What the message calls it.
    x : signed integers, any shape
        At most :data:`WIDEST` bits.

    Returns
    -------
    int64, shape of x

    Raises
    ------
    RangeError
        If a type or an element breaks the rule.
    """
    if x.dtype.kind != "i":
        raise RangeError(f"{name} must be signed integers, not {x.dtype}")
    half = 1 << WIDEST - 1
    if x.dtype.itemsize * 8 > WIDEST and x.size and not -half <= x.min() <= x.max() < half:
        raise RangeError(f"{name} must be in [{-half}, {half - 1}], not {x.min()}..{x.max()}")
    return x.astype(np.int64, copy=False)


def worst_rounding(rounding: Rounding) -> float:
    """Return the most that rounding once moves a number [LSBs]."""
    return 1.0 if rounding is Rounding.FLOOR else 0.5


def log2(value: NDArray[np.int64]) -> NDArray[np.int64]:
    """Take logarithms to base 2 by repeated squaring.

    The significand z in [1, 2) is cut to 30 fraction bits; each of 24 steps squares it, cuts it again, and has found a one if that
    reached 2, by which it is then halved. A cut moves the logarithm of z by less than log2(1 + 2**-30) and each squaring doubles z's
    share of it, so all cuts move the result by less than ``2 * 2**-30 / ln 2``, downwards, and ending after 24 bits by less than
    ``2**-24``: the result is low by less than ``1.05 * 2**-24``.

    Parameters
    ----------
    value : int64, any shape
        1 or more.

    Returns
    -------
    int64, shape of value
        ``log2(value)`` [2**-24].
    """
    checks.integers("value", value, value.shape, 1, (1 << 63) - 1)
    out = np.ascontiguousarray(value).reshape(-1).copy()
    _log2_each(out)
    return out.reshape(value.shape)


LOG_ERROR = 1.05 * 2.0**-LOG_BITS
"""What :func:`log2` is low by, at most."""


@kernel
def _quotient(dividend, divisor, rounding):
    """Kernel: dividend / divisor rounded; the divisor is positive and below 2**62."""
    floor = dividend // divisor
    rest = dividend - floor * divisor
    if rounding == _FLOOR:
        return floor
    if rounding == _HALF_UP:
        return floor + (2 * rest >= divisor)
    return floor + (2 * rest > divisor - (floor & 1))


@kernel
def _root(value):
    """Kernel: the nearest integer to the square root of 0 <= value < 2**62, from a float that is put right in integers."""
    root = np.int64(np.sqrt(np.float64(value)))
    while root * root > value:
        root -= 1
    while (root + 1) * (root + 1) <= value:
        root += 1
    return root + (value - root * root > root)


@kernel
def _length(value):
    """Kernel: bits of a positive integer."""
    bits = 0
    for step in (32, 16, 8, 4, 2, 1):
        if value >> step:
            bits += step
            value >>= step
    return bits + 1


@kernel
def _log2(value):
    """Kernel: see :func:`log2`."""
    exponent = _length(value) - 1
    z = value << _ONE - exponent if exponent <= _ONE else value >> exponent - _ONE
    result = exponent
    for _ in range(LOG_BITS):
        z = z * z >> _ONE
        bit = z >> _ONE + 1
        z >>= bit
        result = 2 * result + bit
    return result


@kernel
def _log2_each(value):
    for i in range(value.size):
        value[i] = _log2(value[i])
