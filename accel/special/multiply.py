"""Product of two tensors, element by element: an exact product, requantised as the post-processor does."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from accel.formats import Rounding
from accel.golden import checks
from accel.golden.arithmetic import _requantise
from accel.jit import kernel
from accel.quant import nearest_multiplier
from accel.special import integers
from accel.special.integers import WIDEST, Integers, operand, output, positive, worst_rounding

MULT_BITS = 31  # of the factor, at most: 32 bits of a product and these fit in 63
LEAST, LARGEST = 2.0**-60, 2.0**18  # factors below and above have the same results: none but 0 is kept, or left in range


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiplyParameters:
    """What :func:`multiply` needs, all in integers.

    Parameters
    ----------
    zero_points : tuple of int
        Of the inputs, each of 16 bits.
    mult, shift : int
        The factor, ``mult / 2**shift``: below ``2**31``, 0 to 63.
    zero_point, lo, hi : int
        Of the output.
    rounding : Rounding
    """

    zero_points: tuple[int, int]
    mult: int
    shift: int
    zero_point: int
    lo: int
    hi: int
    rounding: Rounding = Rounding.HALF_EVEN

    @classmethod
    def of(
        cls,
        *,
        zero_points: tuple[int, int],
        multiplier: float,
        zero_point: int,
        lo: int,
        hi: int,
        rounding: Rounding = Rounding.HALF_EVEN,
        mult_bits: int = MULT_BITS,
    ) -> MultiplyParameters:
        """Derive them from the fields of the operator.

        Parameters
        ----------
        zero_points : tuple of int
        multiplier : float
            ``scale 0 * scale 1 / output scale``, positive.
        zero_point, lo, hi : int
        rounding : Rounding
        mult_bits : int
            Width of the factor, 1 to 31 [bits].

        Raises
        ------
        RangeError
            If an argument breaks its rule.
        """
        checks.integer("mult_bits", mult_bits, 1, MULT_BITS)
        integers.zero_points(zero_points)
        output(zero_point, lo, hi, rounding)
        positive("multiplier", multiplier)
        mult, shift = (int(one) for one in nearest_multiplier(min(max(multiplier, LEAST), LARGEST), mult_bits))
        return cls(zero_points=zero_points, mult=mult, shift=shift, zero_point=zero_point, lo=lo, hi=hi, rounding=rounding)


def multiply(parameters: MultiplyParameters, x0: Integers, x1: Integers) -> NDArray[np.int64]:
    """Multiply two tensors: ``clip(round((x0 - zero_points[0]) * (x1 - zero_points[1]) * mult / 2**shift) + zero_point, lo, hi)``.

    Differences have 17 bits, their exact product 33, and that times the factor 64: one rounding, on exact bits, as in
    :func:`accel.golden.arithmetic.requantise`.

    Parameters
    ----------
    parameters : MultiplyParameters
    x0, x1 : signed integers, shapes that broadcast
        At most 16 bits.

    Returns
    -------
    int64, the shape they broadcast to

    Raises
    ------
    RangeError
        If an operand is wider, or not of a signed integer type.
    """
    first, second = np.broadcast_arrays(operand("x0", x0), operand("x1", x1))
    out = np.empty(first.shape, np.int64)
    np.multiply(first - parameters.zero_points[0], second - parameters.zero_points[1], out=out)
    p = parameters
    _requantise_each(out.reshape(-1), p.mult, p.shift, p.rounding.code, p.zero_point, p.lo, p.hi)
    return out


def bound(parameters: MultiplyParameters, multiplier: float) -> float:
    """Return what no result is further from ``clip(product * multiplier + zero_point, lo, hi)`` than [output LSB].

    One rounding, and the relative error e of the factor on what is not clipped: of reals beyond the span of the output, the exact one
    and ours are clipped alike, so at least one of them is at most the span, and they differ by ``span * e / (1 - e)`` at most.

    Parameters
    ----------
    parameters : MultiplyParameters
    multiplier : float
        What they were derived from.
    """
    p = parameters
    factor = min(max(multiplier, LEAST), LARGEST)
    error = abs(float(Fraction(p.mult, 1 << p.shift) / Fraction(factor) - 1))
    span = max(abs(p.lo - p.zero_point), abs(p.hi - p.zero_point))
    reach = factor * 4.0**WIDEST
    return worst_rounding(p.rounding) + (min(span / (1 - error), reach) * error if error < 1 else span)


@kernel
def _requantise_each(product, mult, shift, rounding, zero_point, lo, hi):
    for i in range(product.size):
        product[i] = _requantise(product[i], 0, mult, shift, rounding, zero_point, lo, hi)
