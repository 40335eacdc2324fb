"""Product of two tensors, element by element: an exact product, requantised as the post-processor does."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.golden import checks
from accel.golden.arithmetic import _requantise
from accel.jit import kernel
from accel.quant import nearest_multiplier
from accel.special.integers import WIDEST, Elementwise, Integers, positive, worst_rounding

MULT_BITS = 31  # of the factor, at most: 32 bits of a product and these fit in 63
LEAST, LARGEST = 2.0**-60, 2.0**18  # factors below and above have the same results: none but 0 is kept, or left in range


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiplyParameters(Elementwise):
    """What :func:`multiply` needs, all in integers: the factor is below ``2**31`` and its shift 0 to 63."""

    @classmethod
    def of(cls, *, multiplier: float, mult_bits: int = MULT_BITS, **others: Any) -> MultiplyParameters:
        """Derive them from the fields of the operator.

        Parameters
        ----------
        multiplier : float
            ``scale 0 * scale 1 / output scale``, positive.
        mult_bits : int
            Width of the factor, 1 to 31 [bits].
        **others : dict
            Fields of :class:`Elementwise` but the factor.

        Raises
        ------
        RangeError
            If an argument breaks its rule.
        """
        checks.integer("mult_bits", mult_bits, 1, MULT_BITS)
        positive("multiplier", multiplier)
        mult, shift = (int(one) for one in nearest_multiplier(min(max(multiplier, LEAST), LARGEST), mult_bits))
        return cls(mult=mult, shift=shift, **others)


def multiply(parameters: MultiplyParameters, x0: Integers, x1: Integers) -> NDArray[np.int64]:
    """Multiply two tensors: ``clip(round((x0 - zero_points[0]) * (x1 - zero_points[1]) * mult / 2**shift) + zero_point, lo, hi)``.

    Differences have 17 bits, their exact product 33, and that times the factor 64: one rounding, on exact bits, as in
    :func:`accel.golden.arithmetic.requantise`.

    Parameters
    ----------
    parameters : MultiplyParameters
    x0, x1 : signed integers, shapes that broadcast
        At most 16 bits: see :meth:`accel.special.integers.Elementwise.differences`.

    Returns
    -------
    int64, the shape they broadcast to
    """
    out, other = parameters.differences(x0, x1)
    out *= other
    _requantise_each(out.reshape(-1), parameters.mult, parameters.shift, *parameters.post)
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
    error = abs(float(p.factor / Fraction(factor) - 1))
    reach = factor * 4.0**WIDEST
    return worst_rounding(p.rounding) + (min(p.span / (1 - error), reach) * error if error < 1 else p.span)


@kernel
def _requantise_each(product, mult, shift, rounding, zero_point, lo, hi):
    for i in range(product.size):
        product[i] = _requantise(product[i], 0, mult, shift, rounding, zero_point, lo, hi)
