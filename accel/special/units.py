"""The nonlinear units that fixed-point operators are made of, as functions of reals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import e, erf, inf, log, log2, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from accel.config import FunctionConfig
from accel.errors import RangeError
from accel.golden.function import function
from accel.special import integers

Reals = NDArray[np.float64]
Real = Callable[[Reals], Reals]

COARSE = 8  # bits of an operator's operand up to which the coarse units serve it
LOG_FRAC = 30  # fraction bits of a logarithm's operand
_FARTHEST = 1000.0  # exponents beyond it have left every format
_FLOAT = 2.0**-40  # more than float64 adds around a unit
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0, "erf": 2 / sqrt(pi)}


def _config(name: str, in_bits: int, in_frac: int, out_bits: int, out_frac: int, error: float) -> FunctionConfig:
    grade = "" if in_bits <= integers.WIDEST else "-fine"
    return FunctionConfig(
        name=f"{name}{grade}",
        function=name,
        in_bits=in_bits,
        in_frac=in_frac,
        out_bits=out_bits,
        out_frac=out_frac,
        error=error,
        method="table",
    )


# Every number is our choice. Operands reach to where the function has left the last LSB of 16 bits; an operand's rounding and the error of
# the unit together stay below 1/16 LSB of an 8-bit result in [-1, 1], and of the fine units below 1/8 LSB of a 16-bit one.
# The method is the one that `auto` finds for all of them, in less time.
# exp2 is 2^-f of a fraction f: the shift by the integer part follows it, so that small powers keep their relative error.
CONFIGS: dict[str, tuple[FunctionConfig, FunctionConfig]] = {
    "exp2": (_config("exp2", 16, 16, 17, 16, 2.0**-15), _config("exp2", 22, 22, 24, 23, 3.4e-7)),
    "sigmoid": (_config("sigmoid", 16, 11, 16, 16, 2.0**-15), _config("sigmoid", 22, 17, 22, 22, 2.0**-20)),
    "tanh": (_config("tanh", 16, 12, 18, 16, 2.0**-15), _config("tanh", 22, 18, 24, 22, 2.0**-20)),
    "erf": (_config("erf", 16, 13, 18, 16, 2.0**-15), _config("erf", 22, 19, 24, 22, 2.0**-20)),
}

EXACT: dict[str, Real] = {
    "exp2": np.exp2,
    "exp": np.exp,
    "sigmoid": lambda x: np.asarray(0.5 + 0.5 * np.tanh(0.5 * x)),
    "tanh": np.tanh,
    "erf": lambda x: np.asarray(np.frompyfunc(erf, 1, 1)(x), np.float64),
    "log": np.log,
}
"""What the units approximate, in float64."""


def config(name: str, bits: int = COARSE) -> FunctionConfig:
    """Return the unit that serves operators of some operand width.

    Parameters
    ----------
    name : str
        Key of :data:`CONFIGS`.
    bits : int
        Of the operator's operand or result, the wider one.
    """
    return CONFIGS[name][bits > COARSE]


def unit(name: str, bits: int = COARSE) -> Real:
    """Return a real function whose inside is a fixed-point unit.

    ``sigmoid``, ``tanh`` and ``erf`` round the operand to the unit's format, half to even, saturate it, run the unit, and read its result
    as a real. ``exp2`` is 2**x of any real x: x is rounded to the fraction bits of the unit, which gives the power of its fraction, and
    the power of its integer part is a shift. ``exp`` is ``exp2`` of x * log2(e). ``log`` of x > 0 is ln(2) times
    :func:`accel.special.integers.log2` of x rounded to 30 fraction bits.

    Parameters
    ----------
    name : str
    bits : int
        Of the operator's operand or result, the wider one: above 8 the fine units are taken.

    Returns
    -------
    callable
        From float64 to float64 of the same shape.

    Raises
    ------
    RangeError
        If there is no such unit.
    """
    if name not in EXACT:
        raise RangeError(f"unit must be one of {', '.join(EXACT)}, not {name!r}")
    if name == "log":
        return partial(_of_numbers, _log)
    if name in ("exp", "exp2"):
        return partial(_of_numbers, partial(_exp2, config("exp2", bits), log2(e) if name == "exp" else 1.0))
    return partial(_of_numbers, partial(_rounded, config(name, bits)))


def error(name: str, bits: int = COARSE) -> float:
    """Return what a unit is off by at most, over all reals.

    ``sigmoid``, ``tanh``, ``erf``: half a unit of the operand's last place times the steepest slope, the error the unit was made for, and
    what the function still rises beyond the operand's range. ``exp2`` and ``exp`` relative to the result, so absolute too where x is
    0 or less: 2**-f is a half or more, so that the unit's error counts twice, and the exponent is off by half a unit of its last place.
    ``log``, of x of 1 or more: half a unit of the operand's last place, and the error of the logarithm.

    Parameters
    ----------
    name : str
    bits : int
    """
    if name == "log":
        return 2.0 ** -(LOG_FRAC + 1) + integers.LOG_ERROR * log(2) + _FLOAT
    if name in ("exp2", "exp"):
        made = config("exp2", bits)
        return float((1 + 2 * made.error) * 2.0 ** (2.0 ** -(made.in_frac + 1)) - 1 + _FLOAT)
    made = config(name, bits)
    last, limit = EXACT[name](np.array([made.operand.hi * 2.0**-made.in_frac, inf])).tolist()
    return float(STEEPEST[name] * 2.0 ** -(made.in_frac + 1) + made.error + limit - last + _FLOAT)


def _of_numbers(function: Real, x: Reals) -> Reals:
    """Apply a unit to numbers; what is none stays none."""
    missing = np.isnan(x)
    return np.where(missing, x, function(np.where(missing, 0.0, x)))


def _rounded(config: FunctionConfig, x: Reals) -> Reals:
    steps = np.rint(np.clip(x * 2.0**config.in_frac, config.operand.lo, config.operand.hi))
    return np.asarray(function(config, steps.astype(np.int64)) * 2.0**-config.out_frac)


def _exp2(config: FunctionConfig, factor: float, x: Reals) -> Reals:
    exponent = np.rint(np.clip(x * -factor, -_FARTHEST, _FARTHEST) * 2.0**config.in_frac).astype(np.int64)
    power = function(config, exponent & (1 << config.in_frac) - 1)
    return np.asarray(np.ldexp(power.astype(np.float64), -config.out_frac - (exponent >> config.in_frac)))


def _log(x: Reals) -> Reals:
    steps = np.maximum(np.rint(np.minimum(x, 2.0**32) * 2.0**LOG_FRAC), 1).astype(np.int64)
    return np.asarray((integers.log2(steps) * 2.0**-integers.LOG_BITS - LOG_FRAC) * log(2))
