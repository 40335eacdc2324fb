"""Quotient of two tensors, element by element: an exact rational number, rounded once."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.jit import kernel
from accel.special.integers import WIDEST, Elementwise, Integers, _quotient, nearest, positive, worst_rounding

MULT_BITS = 34  # of the factor: with 17 bits of a dividend they fit in 51
SHIFT = 44  # dropped bits, at most: with 17 bits of a divisor they fit in 61
LARGEST = 2.0**33  # factor: with it and 16-bit divisors every quotient but 0 leaves a range of 16 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class DivideParameters(Elementwise):
    """What :func:`divide` needs, all in integers: the factor is below ``2**34`` and its shift 0 to 44."""

    @classmethod
    def of(cls, *, multiplier: float, **others: Any) -> DivideParameters:
        """Derive them from the fields of the operator.

        Parameters
        ----------
        multiplier : float
            ``scale 0 / (scale 1 * output scale)``, positive. One above ``2**33``, for which every quotient but 0 leaves the range, is taken
            as that.
        **others : dict
            Fields of :class:`Elementwise` but the factor.

        Raises
        ------
        RangeError
            If an argument breaks its rule.
        """
        positive("multiplier", multiplier)
        mult, shift = nearest(min(multiplier, LARGEST), MULT_BITS, SHIFT)
        return cls(mult=mult, shift=shift, **others)


def divide(parameters: DivideParameters, x0: Integers, x1: Integers) -> NDArray[np.int64]:
    """Divide two tensors: ``clip(round((x0 - z0) * mult / ((x1 - z1) * 2**shift)) + zero_point, lo, hi)``.

    The dividend, 17 bits, times the factor has 51, the divisor, 17 bits, times 2**shift has 61; the sign is the dividend's. The quotient
    is exact and rounded once. A divisor of 0 gives the end of the range on the dividend's side, and 0 / 0 the zero point.

    Parameters
    ----------
    parameters : DivideParameters
    x0, x1 : signed integers, shapes that broadcast
        At most 16 bits: see :meth:`accel.special.integers.Elementwise.differences`.

    Returns
    -------
    int64, the shape they broadcast to
    """
    out, divisor = parameters.differences(x0, x1)
    _divide_each(out.reshape(-1), divisor.reshape(-1), parameters.mult, parameters.shift, *parameters.post)
    return out


def bound(parameters: DivideParameters, multiplier: float) -> float:
    """Return what no result is further from ``clip(x0 / x1 * multiplier + zero_point, lo, hi)`` than [output LSB].

    One rounding, and the error of the factor, by its relative size on what is not clipped (see :func:`accel.special.multiply.bound`), or
    by its absolute size times the largest quotient, 2**16.

    Parameters
    ----------
    parameters : DivideParameters
    multiplier : float
        What they were derived from.
    """
    p = parameters
    factor = min(multiplier, LARGEST)
    absolute = abs(float(p.factor - Fraction(factor)))
    error = absolute / factor
    return worst_rounding(p.rounding) + min(absolute * 2.0**WIDEST, p.span * error / (1 - error) if error < 1 else p.span)


@kernel
def _divide_each(dividend, divisor, mult, shift, rounding, zero_point, lo, hi):
    """Kernel: results take the place of the dividend."""
    for i in range(dividend.size):
        over, under = dividend[i] * mult, divisor[i] << shift
        if under < 0:
            over, under = -over, -under
        if under > 0:
            quotient = _quotient(over, under, rounding)
        elif dividend[i] == 0:
            quotient = 0
        else:
            quotient = hi - zero_point if dividend[i] > 0 else lo - zero_point
        dividend[i] = min(max(quotient, lo - zero_point), hi - zero_point) + zero_point
