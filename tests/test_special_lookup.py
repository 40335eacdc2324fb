from __future__ import annotations

from dataclasses import dataclass
from math import erf, inf, nan, sqrt
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from accel.errors import RangeError
from accel.special import units
from accel.special.lookup import FUNCTIONS, Pointwise, bound, operands, table
from accel.special.units import error, unit


@dataclass(frozen=True)
class Form:
    bits: int
    scale: float
    zero_point: int = 0


def naive(function, form_in, form_out, lo, hi):
    """Make a table entry by entry."""
    entries = []
    for q in range(-(1 << form_in.bits - 1), 1 << form_in.bits - 1):
        real = float(function(np.array([form_in.scale * (q - form_in.zero_point)]))[0]) / form_out.scale
        step = 0 if real != real else round(min(max(real, -1e9), 1e9))
        entries.append(min(max(step + form_out.zero_point, lo), hi))
    return entries


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(FUNCTIONS)),
    st.integers(2, 9),
    st.floats(1e-4, 10),
    st.floats(1e-4, 10),
    st.lists(st.integers(-128, 127), min_size=4, max_size=4),
)
def test_table(name, bits, scale_in, scale_out, integers):
    """Any function in any form; infinities saturate and what is no number is 0."""
    zero_in, zero_out, *ends = integers
    function = FUNCTIONS[name](**{"exponent": -0.5} if name == "Pow" else {})
    forms = Form(bits, scale_in, zero_in % (1 << bits - 1)), Form(8, scale_out, zero_out)
    with np.errstate(all="ignore"):
        assert table(function, *forms, *sorted(ends)).tolist() == naive(function, *forms, *sorted(ends))


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Celu": {"alpha": 0.7},
    "Elu": {"alpha": 1.3},
    "Gelu": {"approximate": "tanh"},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "LeakyRelu": {"alpha": 0.2},
    "Selu": {"alpha": 1.5, "gamma": 1.1},
    "Shrink": {"bias": 0.3, "lambd": 0.8},
    "Swish": {"alpha": 1.5},
    "ThresholdedRelu": {"alpha": 0.8},
}
CONSTANTS: dict[str, dict[str, float]] = {"Clip": {"min": -0.4, "max": 0.9}, "Pow": {"exponent": 3.0}, "PRelu": {"slope": 0.3}}
OURS = {"QuickGelu"}


def reference(name, attributes, constants, x):
    """Run one ONNX operator in onnx.reference; constants are its further inputs."""
    names = ["x", *constants]
    node = helper.make_node(name, names, ["y"], **attributes)
    values = [helper.make_tensor_value_info(one, TensorProto.DOUBLE, None) for one in [*names, "y"]]
    model = helper.make_model(helper.make_graph([node], "one", values[:-1], values[-1:]))
    results: Any = ReferenceEvaluator(model).run(None, {"x": x} | {key: np.array(value) for key, value in constants.items()})
    return results[0]


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - OURS))
@pytest.mark.parametrize("given", ["defaults", "attributes"])
def test_exact_is_onnx(name, given):
    """Names, defaults and attributes mean what onnx.reference says."""
    attributes = ATTRIBUTES.get(name, {}) if given == "attributes" else {}
    constants = CONSTANTS.get(name, {})
    x = np.linspace(-4, 4, 257)
    with np.errstate(all="ignore"):
        wanted = reference(name, attributes, constants, x)
        found = FUNCTIONS[name](**attributes, **constants).exact(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_quick_gelu():
    x = np.linspace(-4, 4, 9)
    np.testing.assert_allclose(FUNCTIONS["QuickGelu"](alpha=1.5).exact(x), x / (1 + np.exp(-1.5 * x)))


REALS = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "exp": mpmath.exp,
    "exp2": lambda x: mpmath.power(2, x),
    "log": mpmath.log,
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", sorted(units.EXACT))
def test_unit(name, bits):
    """Within its derived error of the real function, saturated operands included; and that error is what the widths are chosen for."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 3, 1500), rng.uniform(-40, 40, 500), [0.0, 7.99995, 8.0, -8.0, 16.0, -16.0, 1e4, -1e4]])
    if name == "log":
        x = np.abs(x) + 1
    elif name.startswith("exp"):
        x = -np.abs(x)
    with mpmath.workdps(30):
        exact = [REALS[name](mpmath.mpf(one)) for one in x.tolist()]
    found = unit(name, bits)(x)
    assert found.shape == x.shape
    assert max(abs(y - real) for y, real in zip(found.tolist(), exact, strict=True)) <= error(name, bits)
    assert error(name, bits) < (1 / 16 / 128 if bits == 8 else 1 / 8 / 32768)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(units.EXACT[name](x), np.array(exact, np.float64), atol=1e-14)


@pytest.mark.parametrize("bits", [8, 16])
def test_powers_keep_their_relative_error(bits):
    """Large and small ones alike."""
    x = np.random.default_rng(0).uniform(-80, 80, 4000)
    assert np.abs(unit("exp2", bits)(x) / np.exp2(x) - 1).max() <= error("exp2", bits)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize(("bits", "most"), [(8, 0.53), (16, 0.75)])
def test_functions_of_usual_forms(name, bits, most):
    """Operands and results in [-4, 4): the bound holds over all operands, and says at what cost units stand for functions."""
    function = FUNCTIONS[name](bits=bits)
    form = Form(bits, 8 * 2.0**-bits)
    lo, hi = -(1 << bits - 1), (1 << bits - 1) - 1
    limit = bound(function, form, form, lo, hi)
    with np.errstate(all="ignore"):
        wanted = np.clip(np.nan_to_num(function.exact(operands(form)) / form.scale, nan=0.0, posinf=hi, neginf=lo), lo, hi)
    assert np.abs(table(function, form, form, lo, hi) - wanted).max() <= limit
    assert limit <= most
    assert (limit == 0.5) == (not function.units)


def test_units_are_named():
    assert FUNCTIONS["Gelu"]().units == ("erf",)
    assert FUNCTIONS["Gelu"](approximate="tanh").units == ("tanh",)
    assert FUNCTIONS["Mish"]().units == ("exp", "log", "tanh")
    assert FUNCTIONS["HardSwish"]().units == ()


def test_one_after_another():
    """The wider operand decides the units of both."""
    both = FUNCTIONS["LeakyRelu"](alpha=0.5).then(FUNCTIONS["Sigmoid"](bits=16))
    x = np.linspace(-3, 3, 50)
    np.testing.assert_array_equal(both(x), unit("sigmoid", 16)(np.where(x < 0, 0.5 * x, x)))
    assert both.units == ("sigmoid",)
    assert both.bits == 16


def test_gelu_by_hand():
    x = np.array([-1.5, 0.0, 0.3])
    np.testing.assert_allclose(FUNCTIONS["Gelu"]().exact(x), [0.5 * one * (1 + erf(one / sqrt(2))) for one in x.tolist()])


def test_no_number_is_zero():
    """And infinities saturate."""
    function = Pointwise(lambda units, x: np.array([nan, inf, -inf, 0.0]))
    assert table(function, Form(2, 1.0), Form(8, 1.0, 7), -100, 90).tolist() == [7, 90, -100, 7]


def test_arguments_are_checked():
    with pytest.raises(RangeError, match=r"^bits of a table's operand must be in \[2, 16\], not 32$"):
        table(FUNCTIONS["Relu"](), Form(32, 1.0), Form(8, 1.0), -128, 127)
    with pytest.raises(RangeError, match=r"^attributes of Elu must be among alpha, not 'beta'$"):
        FUNCTIONS["Elu"](beta=1.0)
    with pytest.raises(RangeError, match=r"^attributes of Relu must be among none, not 'alpha'$"):
        FUNCTIONS["Relu"](alpha=1.0)
    with pytest.raises(RangeError, match=r"^approximate of Gelu must be none or tanh, not 'sigmoid'$"):
        FUNCTIONS["Gelu"](approximate="sigmoid")
    with pytest.raises(RangeError, match=r"^unit must be one of exp2, exp, sigmoid, tanh, erf, log, not 'sin'$"):
        unit("sin")
