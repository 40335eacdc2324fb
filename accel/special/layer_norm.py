"""Layer normalisation over rows: exact integer moments, a reciprocal square root of 30 bits, one rounding of the result."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.formats import Rounding
from accel.golden.arithmetic import _round_shift
from accel.jit import kernel
from accel.special.integers import Integers, Output, _length, _root, rows_of, worst_rounding

LONGEST = 1 << 16  # elements of a row, at most: n * sum x**2 then stays at 2**62
TOP = 60  # bits to which variance and epsilon are brought
ROOT_FRAC = 60  # fraction bits of the reciprocal root
FRAC = 22  # fraction bits of a normalised element, which is below 2**8 in magnitude
GAIN_BITS, GAIN_FRAC = 30, 18  # of gamma, at most
_HALF_UP, _HALF_EVEN = Rounding.HALF_UP.code, Rounding.HALF_EVEN.code


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerNormParameters(Output):
    """What :func:`layer_norm` needs, all in integers.

    Parameters
    ----------
    epsilon, places : int
        ``length**2 * epsilon`` of the operator is ``epsilon * 4**-places``; 60 bits, or 0.
    gamma : int64, shape (length,)
        Fixed-point gains with `frac` fraction bits; at most 2**30 in magnitude.
    beta : int64, shape (length,)
        Fixed-point addends with ``frac + 22`` fraction bits; at most 2**60 in magnitude.
    frac : int
        0 to 18.
    """

    epsilon: int
    places: int
    gamma: NDArray[np.int64]
    beta: NDArray[np.int64]
    frac: int

    @classmethod
    def of(cls, *, epsilon: float, gamma: NDArray[np.float64], beta: NDArray[np.float64], **output: Any) -> LayerNormParameters:
        """Derive them from the fields of the operator.

        Parameters
        ----------
        epsilon : float
            In input LSB squared, 0 to 2**64.
        gamma, beta : float64, shape (length,)
            In output LSB, at most 2**30 and 2**38 in magnitude; length at most 65,536.
        **output : dict
            Fields of :class:`Output`.

        Raises
        ------
        RangeError
            If an argument breaks its rule.
        """
        if not 0 <= epsilon <= 2.0**64:
            raise RangeError(f"epsilon must be in [0, 2**64] input LSB squared, not {epsilon}")
        if gamma.ndim != 1 or not 1 <= gamma.size <= LONGEST or beta.shape != gamma.shape:
            raise RangeError(f"gamma and beta must be of one shape (n,), n from 1 to {LONGEST}, not {gamma.shape} and {beta.shape}")
        for name, values, most in (("gamma", gamma, GAIN_BITS), ("beta", beta, TOP - FRAC)):
            if not np.abs(values).max() <= 2.0**most:
                raise RangeError(f"{name} must be at most 2**{most} output LSB in magnitude, not {np.abs(values).max():g}")
        whole = Fraction(epsilon) * gamma.size**2
        places = next(places for places in range(TOP // 2, -TOP, -1) if round(whole * Fraction(4) ** places) <= 1 << TOP)
        largest = max(np.abs(gamma).max() * 2.0**-GAIN_BITS, np.abs(beta).max() * 2.0 ** (FRAC - TOP))
        frac = next(frac for frac in range(GAIN_FRAC, -1, -1) if largest * 2.0**frac <= 1)
        return cls(
            epsilon=round(whole * Fraction(4) ** places),
            places=places,
            gamma=np.rint(gamma * 2.0**frac).astype(np.int64),
            beta=np.rint(beta * 2.0 ** (frac + FRAC)).astype(np.int64),
            frac=frac,
            **output,
        )


def layer_norm(parameters: LayerNormParameters, x: Integers) -> NDArray[np.int64]:
    """Normalise rows: ``(x - mean) / sqrt(variance + epsilon) * gamma + beta``.

    Of each row of n elements, all sums exact; the zero point of x has no influence.

    1. s = sum x, 32 bits; c = n * x - s, 33 bits: n times the deviation.
    2. V = n * sum x**2 - s**2, 62 bits: n**2 times the variance.
    3. g is the greatest number up to `places` with V * 4**g < 2**60. T = V * 4**g + round_half_up(epsilon / 4**(places - g)), 61 bits;
       V * 4**g is cut to an integer where g is negative.
    4. q = the integer nearest sqrt(T), 31 bits; r = floor(2**60 / q + 1/2), 31 bits. Where T is 0, so is r.
    5. u = round_half_even(c * r / 2**(60 - 22 - g)), 32 bits: the normalised element with 22 fraction bits.
    6. ``clip(round((u * gamma + beta) / 2**(frac + 22)) + zero_point, lo, hi)``, of 62 bits.

    Parameters
    ----------
    parameters : LayerNormParameters
    x : signed integers, shape (..., length)
        At most 16 bits: see :func:`accel.special.integers.rows_of`.

    Returns
    -------
    int64, shape of x
    """
    p = parameters
    rows = rows_of(x, p.gamma.size)
    _normalise(rows, p.epsilon, p.places, p.gamma, p.beta, p.frac, *p.post)
    return rows.reshape(x.shape)


def bound(parameters: LayerNormParameters, gamma: NDArray[np.float64], beta: NDArray[np.float64]) -> float:
    """Return what no result is further from ``clip(real + zero_point, lo, hi)`` of the operator than [output LSB].

    An element normalised exactly is at most sqrt(n - 1) in magnitude. T is off by 2 of its LSBs at most and is 2**58 or more, q by half
    of 2**29 or more, r by half of 2**29.5 or more: together by less than a factor 1 + 2**-29. To it come the rounding of u, the errors of
    gamma and beta as they are, and the rounding of the result.

    Parameters
    ----------
    parameters : LayerNormParameters
    gamma, beta : float64, shape (length,)
        What they were derived from.
    """
    p = parameters
    relative, cut = 2.0**-29, 2.0 ** -(FRAC + 1)
    most = sqrt(p.gamma.size - 1)
    gains = np.abs(p.gamma * 2.0**-p.frac - gamma) * (most * (1 + relative) + cut)
    addends = np.abs(p.beta * 2.0 ** -(p.frac + FRAC) - beta)
    return worst_rounding(p.rounding) + float((gains + np.abs(gamma) * (most * relative + cut) + addends).max()) * (1 + 2.0**-50)


@kernel
def _normalise(rows, epsilon, places, gamma, beta, frac, rounding, zero_point, lo, hi):
    """Kernel: results take the place of x."""
    n = rows.shape[1]
    for i in range(rows.shape[0]):
        total = squares = 0
        for j in range(n):
            total += rows[i, j]
            squares += rows[i, j] * rows[i, j]
        variance = n * squares - total * total
        g = min(places, (TOP - _length(variance)) // 2) if variance else places
        scaled = variance << 2 * g if g >= 0 else variance >> -2 * g
        root = _root(scaled + _round_shift(epsilon, min(2 * (places - g), 63), _HALF_UP, 0))
        inverse = ((2 << ROOT_FRAC) // root + 1) >> 1 if root else 0
        for j in range(n):
            element = _round_shift((n * rows[i, j] - total) * inverse, ROOT_FRAC - FRAC - g, _HALF_EVEN, 0)
            result = _round_shift(element * gamma[j] + beta[j], frac + FRAC, rounding, 0)
            rows[i, j] = min(max(result + zero_point, lo), hi)
