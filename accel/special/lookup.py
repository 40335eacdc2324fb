"""Functions of one integer as tables, made of the fixed-point units where they are nonlinear.

A function here is one of real numbers. What is nonlinear in it is a unit (:mod:`accel.special.units`); sums, products and straight lines
around the units are those of float64, and the table rounds once. Functions that no unit serves are exact: the table holds them correctly
rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf, pi, sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.special.integers import WIDEST
from accel.special.units import COARSE, EXACT, Real, Reals, unit

Units = Callable[[str], Real]
Formula = Callable[[Units, Reals], Reals]


class Form(Protocol):
    """How integers stand for reals, as of a tensor."""

    @property
    def bits(self) -> int:
        """Width of the signed integers [bits]."""

    @property
    def scale(self) -> float:
        """Real value of one LSB."""

    @property
    def zero_point(self) -> int:
        """The integer that stands for 0."""


@dataclass(frozen=True, slots=True)
class Pointwise:
    """A function of a real number; calling it computes it with units.

    Parameters
    ----------
    formula : callable
        Of what names a unit, and of the operand.
    bits : int
        Of the operator's operand or result, the wider one: which units it takes.
    """

    formula: Formula
    bits: int = COARSE

    def __call__(self, x: Reals) -> Reals:
        """Compute it with the fixed-point units."""
        return self.formula(partial(unit, bits=self.bits), x)

    def exact(self, x: Reals) -> Reals:
        """Compute what it approximates, in float64."""
        return self.formula(EXACT.__getitem__, x)

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units in it, sorted; none if it is exact."""
        names: set[str] = set()

        def note(name: str) -> Real:
            names.add(name)
            return EXACT[name]

        with np.errstate(all="ignore"):
            self.formula(note, np.zeros(1))
        return tuple(sorted(names))

    def then(self, other: Pointwise) -> Pointwise:
        """Return the function of this one's result."""
        return Pointwise(_Chain(self.formula, other.formula), max(self.bits, other.bits))


@dataclass(frozen=True, slots=True)
class _Chain:
    """One formula after another, computed without recursion: chains may be thousands long."""

    first: Formula
    second: Formula

    def __call__(self, units: Units, x: Reals) -> Reals:
        formula: Formula = self
        behind = []
        while isinstance(formula, _Chain):
            behind.append(formula.second)
            formula = formula.first
        x = formula(units, x)
        for each in reversed(behind):
            x = each(units, x)
        return x


def table(function: Real, form_in: Form, form_out: Form, lo: int, hi: int) -> NDArray[np.int64]:
    """Tabulate a function: ``clip(round_half_even(function(x) / scale) + zero_point, lo, hi)`` of every operand, lowest first.

    Parameters
    ----------
    function : callable
        From reals to reals, elementwise. What is not a number becomes the zero point.
    form_in : Form
        Of the operand, 2 to 16 bits: x is ``scale * (integer - zero_point)``.
    form_out : Form
        Of the result.
    lo, hi : int
        Bounds of the result.

    Returns
    -------
    int64, shape (2**bits,)

    Raises
    ------
    RangeError
        If the operand is wider.
    """
    with np.errstate(all="ignore"):
        steps = np.rint(np.asarray(function(operands(form_in)), np.float64) / form_out.scale)
    steps = np.where(np.isnan(steps), 0.0, steps)
    return np.asarray(np.clip(steps, lo - form_out.zero_point, hi - form_out.zero_point).astype(np.int64) + form_out.zero_point)


def bound(function: Pointwise, form_in: Form, form_out: Form, lo: int, hi: int) -> float:
    """Return what no entry of the table is further from ``clip(exact / scale + zero_point, lo, hi)`` than [output LSB].

    There are few operands, so it is found by trying all: one rounding, and the largest difference between the function of units and the
    exact one.

    Parameters
    ----------
    function : Pointwise
    form_in, form_out : Form
    lo, hi : int
    """
    x, least, most = operands(form_in), lo - form_out.zero_point, hi - form_out.zero_point
    with np.errstate(all="ignore"):
        ours, exact = (np.clip(values / form_out.scale, least, most) for values in (function(x), function.exact(x)))
        difference = np.abs(ours - exact)
    return 0.5 + float(np.nanmax(difference, initial=0.0))


def operands(form: Form) -> Reals:
    """Return the reals that all integers of a form stand for, lowest first.

    Parameters
    ----------
    form : Form

    Raises
    ------
    RangeError
        If there are more than 65,536.
    """
    if not 2 <= form.bits <= WIDEST:
        raise RangeError(f"bits of a table's operand must be in [2, {WIDEST}], not {form.bits}")
    half = 1 << form.bits - 1
    return np.asarray((np.arange(-half, half) - form.zero_point) * form.scale, np.float64)


def _gelu(u: Units, x: Reals, a: Mapping[str, Any]) -> Reals:
    if a["approximate"] == "tanh":
        return np.asarray(0.5 * x * (1 + u("tanh")(sqrt(2 / pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + u("erf")(x / sqrt(2))))


def _softplus(u: Units, x: Reals) -> Reals:
    return np.asarray(np.maximum(x, 0) + u("log")(1 + u("exp")(-np.abs(x))))


def _elu(u: Units, x: Reals, alpha: float) -> Reals:
    return np.where(x < 0, alpha * (u("exp")(np.minimum(x, 0)) - 1), x)


def _shrink(x: Reals, bias: float, lambd: float) -> Reals:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0.0))


# Attributes with ONNX's defaults, and the formula of units, operand and attributes. Those without a unit are exact.
_SELU = {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}
_FORMULAS: dict[str, tuple[dict[str, Any], Callable[[Units, Reals, Mapping[str, Any]], Any]]] = {
    "Abs": ({}, lambda u, x, a: np.abs(x)),
    "Ceil": ({}, lambda u, x, a: np.ceil(x)),
    "Celu": ({"alpha": 1.0}, lambda u, x, a: _elu(u, x / a["alpha"], 1.0) * a["alpha"]),
    "Clip": ({"min": -inf, "max": inf}, lambda u, x, a: np.minimum(np.maximum(x, a["min"]), a["max"])),
    "Elu": ({"alpha": 1.0}, lambda u, x, a: _elu(u, x, a["alpha"])),
    "Erf": ({}, lambda u, x, a: u("erf")(x)),
    "Exp": ({}, lambda u, x, a: u("exp")(x)),
    "Floor": ({}, lambda u, x, a: np.floor(x)),
    "Gelu": ({"approximate": "none"}, _gelu),
    "HardSigmoid": ({"alpha": 0.2, "beta": 0.5}, lambda u, x, a: np.clip(a["alpha"] * x + a["beta"], 0, 1)),
    "HardSwish": ({}, lambda u, x, a: x * np.clip(x / 6 + 0.5, 0, 1)),
    "LeakyRelu": ({"alpha": 0.01}, lambda u, x, a: np.where(x < 0, a["alpha"] * x, x)),
    "Log": ({}, lambda u, x, a: np.log(x)),
    "Mish": ({}, lambda u, x, a: x * u("tanh")(_softplus(u, x))),
    "Neg": ({}, lambda u, x, a: -x),
    "PRelu": ({"slope": 0.0}, lambda u, x, a: np.where(x < 0, a["slope"] * x, x)),
    "Pow": ({"exponent": 1.0}, lambda u, x, a: np.power(x, a["exponent"])),
    "QuickGelu": ({"alpha": 1.702}, lambda u, x, a: x * u("sigmoid")(a["alpha"] * x)),
    "Reciprocal": ({}, lambda u, x, a: 1 / x),
    "Relu": ({}, lambda u, x, a: np.maximum(x, 0)),
    "Round": ({}, lambda u, x, a: np.rint(x)),
    "Selu": (_SELU, lambda u, x, a: a["gamma"] * _elu(u, x, a["alpha"])),
    "Shrink": ({"bias": 0.0, "lambd": 0.5}, lambda u, x, a: _shrink(x, a["bias"], a["lambd"])),
    "Sigmoid": ({}, lambda u, x, a: u("sigmoid")(x)),
    "Sign": ({}, lambda u, x, a: np.sign(x)),
    "Softplus": ({}, lambda u, x, a: _softplus(u, x)),
    "Softsign": ({}, lambda u, x, a: x / (1 + np.abs(x))),
    "Sqrt": ({}, lambda u, x, a: np.sqrt(x)),
    "Swish": ({"alpha": 1.0}, lambda u, x, a: x * u("sigmoid")(a["alpha"] * x)),
    "Tanh": ({}, lambda u, x, a: u("tanh")(x)),
    "ThresholdedRelu": ({"alpha": 1.0}, lambda u, x, a: np.where(x > a["alpha"], x, 0.0)),
}


def _made(name: str, bits: int = COARSE, **attributes: Any) -> Pointwise:
    """Make a function; see :data:`FUNCTIONS`."""
    defaults, formula = _FORMULAS[name]
    for attribute in attributes.keys() - defaults.keys():
        raise RangeError(f"attributes of {name} must be among {', '.join(defaults) or 'none'}, not {attribute!r}")
    if name == "Gelu" and attributes.get("approximate", "none") not in ("none", "tanh"):
        raise RangeError(f"approximate of Gelu must be none or tanh, not {attributes['approximate']!r}")
    values = defaults | attributes
    return Pointwise(lambda units, x: np.asarray(formula(units, x, values), np.float64), bits)


FUNCTIONS: dict[str, Callable[..., Pointwise]] = {name: partial(_made, name) for name in _FORMULAS}
"""By ONNX operator: a maker that takes the width of the operator's operand or result, the wider one, as `bits`, and ONNX's attributes.
``Clip`` takes `min` and `max`, ``Pow`` its constant `exponent` and ``PRelu`` its single `slope` as attributes."""
