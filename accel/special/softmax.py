"""Softmax and its logarithm over rows: a power of two per element, exact sums, one exact quotient rounded once."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import e, expm1, log, log1p, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.formats import Rounding
from accel.golden import checks
from accel.golden.arithmetic import MAX_SHIFT, _round_shift, round_shift
from accel.golden.function import function
from accel.jit import kernel
from accel.special.integers import (
    LOG_BITS,
    LOG_ERROR,
    WIDEST,
    Integers,
    Output,
    _log2,
    _quotient,
    nearest,
    positive,
    rows_of,
    worst_rounding,
)
from accel.special.units import config

LONGEST = 1 << 16  # elements of a row, at most
EXP_FRAC = 32  # fraction bits of a power of two in the sum: 2**16 of them stay below 2**49
STEP_BITS = 31  # of the step: with a difference of 16 bits they fit in 47
FINE = 2.0**-9  # output scales below it take the fine unit: our choice
LEAST = 2.0**-24  # output scale, at least
STEEPEST = 2.0**6  # input scale: beyond it every power but that of the maximum is 0
STEEPEST_LOG = 2**18  # input scale over output scale: beyond it every logarithm but that of the maximum leaves the range
LOG2_E = log2(e)
_HALF_EVEN = Rounding.HALF_EVEN.code

UNITS = {"coarse": config("exp2"), "fine": config("exp2", WIDEST)}  # 2^-f of a fraction f


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftmaxParameters(Output):
    """What :func:`softmax` needs, all in integers.

    Parameters
    ----------
    unit : str
        Key of :data:`UNITS`; its operand has F fraction bits.
    length : int
        Elements of a row, 1 to 65,536.
    step, step_shift : int
        Exponent of a difference of 1: ``step / 2**step_shift`` [2**-F].
    scale, scale_shift : int
        Output integer of 1, ``scale / 2**scale_shift``. Of the logarithm: output integers of a difference of 1.
    base, base_shift : int
        Of the logarithm: output integers of ``2**-24`` of its sum's logarithm to base 2, times ``2**scale_shift``.
    logarithm : bool
    """

    unit: str
    length: int
    step: int
    step_shift: int
    scale: int
    scale_shift: int
    base: int
    base_shift: int
    logarithm: bool = False

    @classmethod
    def of(cls, *, length: int, step: float, scale: float, logarithm: bool = False, **output: Any) -> SoftmaxParameters:
        """Derive them from the fields of the operator and the length of a row.

        Parameters
        ----------
        length : int
            1 to 65,536.
        step : float
            Input scale, positive.
        scale : float
            Output scale, ``2**-24`` to ``2**24``.
        logarithm : bool
        **output : dict
            Fields of :class:`Output`.

        Raises
        ------
        RangeError
            If an argument breaks its rule.
        """
        checks.integer("length", length, 1, LONGEST)
        positive("step", step)
        if not LEAST <= scale <= 1 / LEAST:
            raise RangeError(f"scale must be in [2**-24, 2**24], not {scale}")
        unit = "fine" if scale < FINE else "coarse"
        exponent = min(step, STEEPEST) * Fraction(LOG2_E) * (1 << UNITS[unit].in_frac)
        steps = nearest(exponent, STEP_BITS, MAX_SHIFT)
        if logarithm:
            scales = nearest(min(Fraction(step) / Fraction(scale), Fraction(STEEPEST_LOG)), 31, 31)
            bases = nearest(Fraction(log(2)) / Fraction(scale) * Fraction(2) ** (scales[1] - LOG_BITS), 31, 62)
        else:
            scales = nearest(1 / Fraction(scale), 62 - EXP_FRAC, 62 - EXP_FRAC - (length - 1).bit_length())
            bases = 0, 0
        return cls(
            unit=unit,
            length=length,
            step=steps[0],
            step_shift=steps[1],
            scale=scales[0],
            scale_shift=scales[1],
            base=bases[0],
            base_shift=bases[1],
            logarithm=logarithm,
            **output,
        )


def softmax(parameters: SoftmaxParameters, x: Integers) -> NDArray[np.int64]:
    """Exponentials of rows over their sum, or the logarithm of that.

    Of each row of n elements:

    1. d = max x - x, 16 bits; the zero point of x has no influence.
    2. t = round_half_even(d * step / 2**step_shift), 48 bits: the exponent to base 2 with F fraction bits, t = I * 2**F + f.
    3. m = 2**-(f / 2**F) by the unit, 0 to 1.
    4. e = floor(m * 2**(32 - I) + 1/2), 33 bits, at most 2**32; 0 where I is above 33.
    5. S = sum e, exact, 49 bits.
    6. Softmax: ``clip(round(e * scale / (S * 2**scale_shift)) + zero_point, lo, hi)``, the exact quotient of 63 and 63 bits rounded once.
       LogSoftmax: with L = log2(S / 2**32) of 24 fraction bits (:func:`accel.special.integers.log2`) and
       c = round_half_even(L * base / 2**base_shift), 59 bits, ``clip(round(-(d * scale + c) / 2**scale_shift) + zero_point, lo, hi)``.

    Parameters
    ----------
    parameters : SoftmaxParameters
    x : signed integers, shape (..., length)
        At most 16 bits: see :func:`accel.special.integers.rows_of`.

    Returns
    -------
    int64, shape of x
    """
    p = parameters
    rows = rows_of(x, p.length)
    reach = int(rows.max() - rows.min()) if rows.size else 0
    power = _powers(p.unit, p.step, p.step_shift, reach.bit_length())
    if p.logarithm:
        _logarithms(rows, power, p.scale, p.scale_shift, p.base, p.base_shift, *p.post)
    else:
        _quotients(rows, power, p.scale, p.scale_shift, *p.post)
    return rows.reshape(x.shape)


def bound(parameters: SoftmaxParameters, step: float, scale: float) -> float:
    """Return what no result is further from ``clip(real + zero_point, lo, hi)`` of the operator than [output LSB].

    With a = exp(-d * step) and A = sum a, which is 1 or more: t is off by at most half a unit of its last place and by the relative error
    of its factor times 34, beyond which e is 0; so 2**-t is off by a factor 2**eta, the unit by another 1 + 2 error, as 2**-f is a half
    or more. Together e / 2**32 = a * (1 + r) + w, abs(r) <= rho = (1 + 2 error) * 2**eta - 1 and abs(w) <= 2**-33, and
    S / 2**32 = A * (1 + r') + W, abs(W) <= length * 2**-33. The quotient is hence off by at most (2 rho + W + w) / (1 - rho - W), and the
    logarithm of S by -ln(1 - rho - W). To it come the errors of `scale`, of `base`, of L and of c, and the rounding of the result.

    Parameters
    ----------
    parameters : SoftmaxParameters
    step, scale : float
        What they were derived from.
    """
    p, unit = parameters, UNITS[parameters.unit]
    wanted = min(step, STEEPEST) * LOG2_E * 2.0**unit.in_frac
    off = abs(float(Fraction(p.step, 1 << p.step_shift) / Fraction(wanted) - 1)) + 2.0**-50
    furthest = min(wanted * 2.0 ** (WIDEST - unit.in_frac), EXP_FRAC + 2.0)
    rho = expm1(log1p(2 * unit.error) + log(2) * (2.0 ** -(unit.in_frac + 1) + furthest * off))
    small = 2.0 ** -(EXP_FRAC + 1)
    rest = 1 - rho - p.length * small
    if not p.logarithm:
        quotient = (2 * rho + (p.length + 1) * small) / rest / scale
        return worst_rounding(p.rounding) + quotient + abs(float(Fraction(p.scale, 1 << p.scale_shift) - 1 / Fraction(scale)))
    ratio = min(step / scale, STEEPEST_LOG)
    differences = min(2.0**WIDEST, (p.hi - p.lo + 1) / ratio + 1)  # beyond, results are clipped
    slope = abs(float(Fraction(p.scale, 1 << p.scale_shift) - Fraction(ratio))) * differences
    base = log(2) / scale * 2.0 ** (p.scale_shift - LOG_BITS)
    most = ((p.length - 1).bit_length() + 1) * 2.0**LOG_BITS  # of L
    addend = (0.5 + most * abs(float(Fraction(p.base, 1 << p.base_shift) - Fraction(base)))) * 2.0**-p.scale_shift
    return worst_rounding(p.rounding) + slope + addend + (log(2) * LOG_ERROR - log(rest)) / scale


@lru_cache(maxsize=16)
def _powers(name: str, step: int, shift: int, bits: int) -> NDArray[np.int64]:
    """Run steps 2 to 4 for every difference of some bits: there are few, and each is met many times."""
    unit = UNITS[name]
    exponent = round_shift(np.arange(1 << bits) * step, shift, Rounding.HALF_EVEN)
    power = function(unit, exponent & (1 << unit.in_frac) - 1) << EXP_FRAC + 1 - unit.out_frac
    return np.asarray((power >> np.minimum(exponent >> unit.in_frac, 62)) + 1 >> 1)


@kernel
def _quotients(rows, power, scale, shift, rounding, zero_point, lo, hi):
    """Kernel: results take the place of x."""
    for i in range(rows.shape[0]):
        most = rows[i].max()
        total = 0
        for j in range(rows.shape[1]):
            total += power[most - rows[i, j]]
        total <<= shift
        for j in range(rows.shape[1]):
            quotient = _quotient(power[most - rows[i, j]] * scale, total, rounding)
            rows[i, j] = min(max(quotient + zero_point, lo), hi)


@kernel
def _logarithms(rows, power, scale, shift, base, base_shift, rounding, zero_point, lo, hi):
    """Kernel: results take the place of x."""
    for i in range(rows.shape[0]):
        most = rows[i].max()
        total = 0
        for j in range(rows.shape[1]):
            total += power[most - rows[i, j]]
        addend = _round_shift((_log2(total) - (EXP_FRAC << LOG_BITS)) * base, base_shift, _HALF_EVEN, 0)
        for j in range(rows.shape[1]):
            quotient = _round_shift(-((most - rows[i, j]) * scale + addend), shift, rounding, 0)
            rows[i, j] = min(max(quotient + zero_point, lo), hi)
