"""What the models share: parameters, operands, a factor as two integers, and exact quotients, square roots and logarithms of integers."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Output:
    """How results become integers of a tensor of at most :data:`WIDEST` bits: what every operator needs.

    Parameters
    ----------
    zero_point, lo, hi : int
    rounding : Rounding
        Not stochastic.

    Raises
    ------
    RangeError
        If a field breaks its rule.
    """

    zero_point: int
    lo: int
    hi: int
    rounding: Rounding = Rounding.HALF_EVEN

    def __post_init__(self) -> None:
        """Refuse what no tensor has."""
        half = 1 << WIDEST - 1
        checks.integer("zero_point", self.zero_point, -half, half - 1)
        checks.integer("hi", self.hi, -half, half - 1)
        checks.integer("lo", self.lo, -half, self.hi)
        if self.rounding is Rounding.STOCHASTIC:
            raise RangeError(f"rounding must be floor, half_up or half_even, not {self.rounding.value}")

    @property
    def post(self) -> tuple[int, int, int, int]:
        """Rounding, zero point and bounds, as kernels take them."""
        return self.rounding.code, self.zero_point, self.lo, self.hi

    @property
    def span(self) -> int:
        """Greatest magnitude of a result before its zero point."""
        return max(abs(self.lo - self.zero_point), abs(self.hi - self.zero_point))


@dataclass(frozen=True, slots=True, kw_only=True)
class Elementwise(Output):
    """What an operator of two tensors needs, element by element.

    Parameters
    ----------
    zero_points : tuple of int
        Of the inputs, each of at most :data:`WIDEST` bits.
    mult, shift : int
        The factor, ``mult / 2**shift``.
    """

    zero_points: tuple[int, int]
    mult: int
    shift: int

    def __post_init__(self) -> None:
        """Refuse what no tensor has."""
        for zero_point in self.zero_points:
            checks.integer("zero_points", zero_point, -(1 << WIDEST - 1), (1 << WIDEST - 1) - 1)
        Output.__post_init__(self)  # a class with slots is made anew, which super() without arguments does not see

    @property
    def factor(self) -> Fraction:
        """Return ``mult / 2**shift``."""
        return Fraction(self.mult, 1 << self.shift)

    def differences(self, x0: Integers, x1: Integers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bring operands to one shape and subtract their zero points.

        Parameters
        ----------
        x0, x1 : signed integers, shapes that broadcast
            At most :data:`WIDEST` bits.

        Returns
        -------
        x0, x1 : int64, the shape they broadcast to
            New and contiguous: results may take their place.

        Raises
        ------
        RangeError
            If a type or an element breaks the rule.
        """
        both = np.broadcast_arrays(operand("x0", x0), operand("x1", x1))
        first, second = (np.asarray(np.subtract(x, zero, order="C")) for x, zero in zip(both, self.zero_points, strict=True))
        return first, second


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


def rows_of(x: Integers, length: int) -> NDArray[np.int64]:
    """Copy an operand to int64, row by row.

    Parameters
    ----------
    x : signed integers, shape (..., length)
        At most :data:`WIDEST` bits.
    length : int

    Returns
    -------
    int64, shape (rows, length)

    Raises
    ------
    RangeError
        If the shape, the type or an element breaks the rule.
    """
    if x.ndim == 0 or x.shape[-1] != length:
        raise RangeError(f"x must be of shape (..., {length}), not {x.shape}")
    return np.array(operand("x", x)).reshape(-1, length)


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
