"""ONNX's own backend tests of every supported operator: passed, listed with a bound that says little, or skipped for a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

import accel
from reports.backend.bounds import SLOPES, evaluate
from reports.backend.cases import SUPPORTED, Case, cases, expanded
from reports.backend.run import Outcome, run

REPORT = Path(__file__).parents[1] / "reports" / "backend" / "result.json"
REASONS = yaml.safe_load((Path(__file__).parent / "backend_skips.yaml").read_text())


@cache
def outcomes(kind: str) -> dict[str, Outcome]:
    """All tests of an operator."""
    return {name: run(case) for name, case in cases().items() if case.kind == kind}


def known(name: str, section: str) -> bool:
    """Whether a test is on a list."""
    return any(fnmatchcase(name, pattern) for pattern in REASONS[section])


@pytest.mark.parametrize("kind", SUPPORTED)
def test_operator(kind):
    """Every test of the operator passes unless a list says why not, and none that passes is on a list."""
    wrong = []
    for name, outcome in outcomes(kind).items():
        expected = "listed" if known(name, "listed") else "skipped" if known(name, "skipped") else "passed"
        found = outcome.status if outcome.status in ("passed", "listed") else "skipped"
        if found != expected:
            wrong.append((name, expected, outcome))
    assert not wrong


def test_no_test_is_missing():
    """Each test of one node of a supported operator is run; each that spells one out in others is known."""
    kinds = {case.kind for case in cases().values()}
    assert kinds <= set(SUPPORTED)
    assert {"Conv", "MatMul", "QLinearConv", "QLinearMatMul", "MatMulInteger", "Softmax", "Resize"} <= kinds
    assert len(cases()) > 550
    assert set(expanded().values()) <= kinds


def test_every_reason_is_needed():
    """Of the release that the report was made with; others have other tests."""
    if onnx.__version__ != json.loads(REPORT.read_text())["onnx"]:
        pytest.skip(f"the list is not that of onnx {onnx.__version__}")
    patterns = [*REASONS["listed"], *REASONS["skipped"]]
    assert [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in cases())] == []


def test_integers_are_equal_up_to_one():
    """The rate at which requantised integers differ by one, over all tests of quantised operators."""
    quantised = [kind for kind in SUPPORTED if kind.startswith(("QLinear", "Quantize")) or kind.endswith("Integer")]
    rates = [outcome.differing for kind in quantised for outcome in outcomes(kind).values() if outcome.status == "passed"]
    assert rates
    assert max(rates) == 0  # none does


def test_chance_is_refused():
    rule = "training_mode of node 'y' (Dropout) must be false, or its ratio 0, not what leaves elements to chance"
    assert run(cases()["test_training_dropout"]).reason == rule


# The bounds themselves.


@pytest.mark.parametrize("kind", SLOPES)
def test_slopes_are_bounds(kind):
    """Found by looking at differences on a fine grid, far beyond which the functions are straight."""
    node = onnx.helper.make_node(kind, ["x"], ["y"])
    given, taken = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [given], [taken]))
    x = np.linspace(-20, 20, 400_001)
    (y,) = evaluate(Case(kind, model, {"x": x}, {"y": x}, 0.0, 0.0), {})
    steepest = float(np.abs(np.diff(y) / np.diff(x)).max())
    assert steepest <= SLOPES[kind] <= 1.02 * steepest


@pytest.mark.parametrize(
    "name", ["test_gemm_default_no_bias", "test_conv_with_autopad_same", "test_add", "test_tanh", "test_reduce_mean_keepdims_random"]
)
def test_a_bound_is_missed_by_a_wrong_result(name, monkeypatch):
    """A bound proves something: results that are eight LSB off, 1 / 8192 of the range, break it."""
    assert run(cases()[name]).status == "passed"
    simulate = accel.simulate

    def wrong(*arguments, **options):
        result = simulate(*arguments, **options)
        return replace(result, outputs={name: integers + np.where(integers < 100, 8, -8) for name, integers in result.outputs.items()})

    monkeypatch.setattr(accel, "simulate", wrong)
    assert run(cases()[name]).status == "failed"
