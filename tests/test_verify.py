"""Verification: exact results beside plain loops, bounds that hold for every operator, faults that are found where they are."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accel import cli, presets
from accel.cli.verify import summary
from accel.engine import compute
from accel.errors import RangeError
from accel.formats import Rounding
from accel.graph.files import builtin, canonical
from accel.graph.fold import bind
from accel.graph.graph import Graph
from accel.graph.network import Arithmetic, MatrixProduct, MaxPool, Network, Sum
from accel.graph.onnx import network
from accel.graph.read import read
from accel.schedule import lower as lowering
from accel.schedule.lower import lower
from accel.verification import compare
from accel.verification.compare import Check, Loss, Report, judge, verify
from accel.verification.exact import Exact, results
from tests.naive_network import step
from tests.qdq import Model
from tests.random_network import ARRAY, SPECIAL, random_network

pytest.importorskip("onnxruntime")
EDGE = presets.load("edge-int8")
ZOO = Path(__file__).parent / "zoo"


def drawn(seed: int, kinds: tuple[str, ...] = (*ARRAY, *SPECIAL)) -> tuple[Network, dict[str, Any]]:
    """Draw a random network, and integers for all its tensors."""
    rng = np.random.default_rng(seed)
    made = random_network(rng, kinds=kinds, bits=EDGE.act_bits, weight_bits=EDGE.weight_bits, acc_bits=EDGE.acc_bits)
    (port,) = made.inputs
    tensor = made.tensors[port.tensor]
    values = {port.tensor: rng.integers(tensor.format.lo, tensor.format.hi, (1, *tensor.shape), endpoint=True)}
    for operator in made.operators:
        values[operator.output] = step(made, operator, values)
    return made, values


# Exact results.


@pytest.mark.parametrize("seed", range(40))
def test_exact_results_are_those_of_plain_loops(seed: int) -> None:
    made, values = drawn(seed)
    for operator in made.operators:
        tensors = [*(made.tensors[name] for name in operator.inputs), made.tensors[operator.output]]
        found = results(operator, EDGE, tensors, [values[name] for name in operator.inputs])
        if found is None:
            assert operator.kind == "Lookup" or type(operator).__name__ == "Lookup"
            continue
        rounded = np.rint(found.real)
        if isinstance(operator, Arithmetic):
            rounded = np.clip(rounded + operator.zero_point, operator.lo, operator.hi)
        np.testing.assert_array_equal(rounded, values[operator.output])


@pytest.mark.parametrize("seed", range(60))
def test_the_accelerator_stays_within_its_stated_arithmetic(seed: int) -> None:
    made, values = drawn(seed)
    for layer in lower(made, EDGE):
        operator, inputs = layer.operator, [values[name] for name in layer.operator.inputs]
        ours, overflowed = compute(EDGE, layer, inputs)
        found = results(operator, EDGE, (*layer.inputs, layer.output), inputs)
        if found is None or overflowed:
            continue
        check, zero, bounds, rounding = Check(node="n", kind="k", tensor="t"), 0, (-np.inf, np.inf), Rounding.HALF_EVEN
        if isinstance(operator, Arithmetic):
            zero, rounding = operator.zero_point, operator.rounding
            bounds = (operator.lo - zero, operator.hi - zero)
        judge(check, found, ours.astype(np.int64).reshape(found.real.shape) - zero, None, bounds, rounding)
        assert not check.unexplained, (operator, check)


def test_rounding_ties_are_told_from_errors() -> None:
    real = np.array([1.5, 2.5, -0.5, 200.0, -200.0, 3.2])
    expected = {
        Rounding.HALF_EVEN: [2, 2, 0, 100, -100, 3],
        Rounding.HALF_UP: [2, 3, 0, 100, -100, 3],
        Rounding.FLOOR: [1, 2, -1, 100, -100, 3],
    }
    for rounding, integers in expected.items():
        for off, allowed in ((0.0, [0] * 6), (0.01, [0] * 6)):
            check = Check(node="n", kind="k", tensor="t")
            judge(check, Exact(real, np.full(6, off), np.zeros(6)), np.array(integers), np.array(integers), (-100, 100), rounding)
            assert (check.unexplained, check.foreign, check.rounded, check.saturated) == (sum(allowed), 0, 0, 2)
    check = Check(node="n", kind="k", tensor="t")
    judge(
        check,
        Exact(real, np.full(6, 0.01), np.zeros(6)),
        np.array([1, 3, -1, 100, -100, 4]),
        np.array([1, 2, 0, 100, 99, 3]),
        (-100, 100),
        Rounding.HALF_EVEN,
    )
    assert (check.rounded, check.unexplained, check.foreign, check.allowed) == (4, 1, 2, 0.01)
    assert (
        check.fault == "results of node 'n' (k) must be within the stated arithmetic of the exact value, not beyond it in 1 of 0 elements"
    )
    check = Check(node="n", kind="k", tensor="t", foreign=2, compared=6, overflows=1)
    rule = "must be those of onnxruntime up to a rounding tie, not others in 2 of 6 elements"
    assert check.fault == f"results of node 'n' (k) {rule} (1 sums overflowed the accumulator)"


def test_what_a_relu_cuts_off_is_not_saturated() -> None:
    check = Check(node="n", kind="k", tensor="t")
    judge(check, Exact(np.array([-5.0, 3, 300]), np.zeros(3), np.zeros(3)), np.array([0, 3, 255]), None, (0, 255), Rounding.HALF_EVEN)
    assert (check.saturated, check.unexplained) == (1, 0)


def test_signal_to_noise() -> None:
    loss = Loss(tensor="t")
    assert loss.sqnr == np.inf
    loss.add(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    loss.add(np.array([0.0]), np.array([0.0]))
    assert loss.worst == 0.5
    assert loss.sqnr == pytest.approx(10 * np.log10(25 / 0.25))
    silent = Loss(tensor="t")
    silent.add(np.zeros(2), np.ones(2))
    assert silent.sqnr == -np.inf


# Whole networks, and faults in them.


def small(power_of_two: bool = False) -> Model:
    """Make a network of convolution, residual sum, pools and linear layer, per channel and asymmetric."""
    rng, model = np.random.default_rng(5), Model()
    scale, summed, largest = (0.25, 8, 8) if power_of_two else (0.23, 7.3, 6.7)

    def weights(*shape: int) -> str:
        scales = np.full(shape[0], 1 / 64) if power_of_two else rng.uniform(0.005, 0.02, shape[0])
        return model.weights(rng.integers(-127, 128, shape).astype(np.int8), scales)

    x = model.fake(model.input("batch", 3, 8, 8), scale, 120)
    a = model.node("Conv", x, weights(6, 3, 3, 3), model.constant(rng.normal(0, 1, 6), np.float32), name="conv", pads=[1, 1, 1, 1])
    a = model.fake(model.node("Relu", a), scale * 4, 0)
    b = model.fake(model.node("Conv", a, weights(6, 1, 3, 3), name="depthwise", pads=[1, 1, 1, 1], group=6), scale * 8, 100)
    c = model.fake(model.node("Add", a, b, name="sum"), scale * summed, 90)
    d = model.fake(model.node("MaxPool", c, name="max", kernel_shape=[2, 2], strides=[2, 2]), scale * largest, 90)
    e = model.fake(model.node("AveragePool", d, name="average", kernel_shape=[2, 2], pads=[1, 1, 0, 0]), scale * 4, 80)
    f = model.fake(model.node("Sigmoid", e, name="sigmoid"), 1 / 256, 0)
    g = model.node(
        "Gemm", model.node("Flatten", f), weights(5, 96), model.constant(rng.normal(0, 1, 5), np.float32), name="linear", transB=1
    )
    model.output(model.fake(g, scale / 2, 128))
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Files, graphs and networks of both models."""
    folder, found = tmp_path_factory.mktemp("verify"), {}
    for name in ("real", "power"):
        path = folder / f"{name}.onnx"
        path.write_bytes(small(name == "power").proto.SerializeToString())
        graph = canonical(bind(read(path)))
        found[name] = (path, graph, network(graph, name))
    x = np.random.default_rng(6).normal(0, 6, (3, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    return {**found, "x": x, "inputs": folder / "x.npz"}


def checked(made: dict[str, Any], name: str = "real", changed: Network | None = None, **options: Any) -> Report:
    _, graph, imported = made[name]
    return verify(changed or imported, graph, EDGE, {"x": made["x"]}, **options)


@pytest.mark.parametrize("name", ["real", "power"])
def test_every_difference_is_explained(made: dict[str, Any], name: str) -> None:
    report = checked(made, name, file=made[name][0])
    assert report.first is None, summary(report)
    assert [check.node for check in report.checks][:2] == ["x", "conv"]
    assert {check.node for check in report.checks} >= {"conv", "depthwise", "sum", "max", "average", "sigmoid", "linear"}
    assert all(check.compared == check.elements for check in report.checks if check.kind != "Move")
    assert max(check.worst for check in report.checks) <= 1
    assert not isinstance(report.file, str)
    assert [(each.worst, each.elements) for each in report.file] == [(0, 15)]


def swap(imported: Network, name: str, **fields: Any) -> Network:
    """Change fields of an operator."""
    operators = tuple(dataclasses.replace(each, **fields) if each.name == name else each for each in imported.operators)
    return dataclasses.replace(imported, operators=operators)


@pytest.mark.parametrize("victim", ["conv", "depthwise", "sum", "max", "average", "linear"])
@pytest.mark.parametrize("fault", ["shift", "floor", "bias"])
def test_a_fault_of_lowering_is_found_where_it_is(made: dict[str, Any], victim: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = lowering.requantisation

    def wrong(config: Any, operator: Any, bias: Any, factor: Any) -> Any:
        post = right(config, operator, bias, factor)
        if operator.name != victim:
            return post
        if fault == "shift":
            return dataclasses.replace(post, shift=post.shift + 1)
        if fault == "floor":
            return dataclasses.replace(post, rounding=Rounding.FLOOR)
        return dataclasses.replace(post, bias=post.bias + (1 << post.shift) // post.mult + 1)

    monkeypatch.setattr(lowering, "requantisation", wrong)
    report = checked(made)
    assert report.first is not None
    assert (report.first.node, report.first.foreign) == (victim, 0)
    assert {check.node for check in report.checks if not check.explained} == {victim}


def test_ties_are_rounded_as_stated_where_factors_are_exact(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    right = lowering.requantisation

    def wrong(config: Any, operator: Any, bias: Any, factor: Any) -> Any:
        post = right(config, operator, bias, factor)
        return dataclasses.replace(post, rounding=Rounding.HALF_UP) if operator.name == "average" else post

    monkeypatch.setattr(lowering, "requantisation", wrong)
    found = checked(made, "power").first
    assert found is not None
    assert found.node == "average"


def test_a_fault_of_the_engine_is_found_where_it_is(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(config: Any, layer: Any, inputs: Any) -> Any:
        values, lost = compute(config, layer, inputs)
        if layer.operator.name == "sum":
            values = values.copy()
            values[0, 3, 4, 2] ^= 1
        return values, lost

    monkeypatch.setattr(compare, "compute", wrong)
    found = checked(made).first
    assert found is not None
    assert (found.node, found.unexplained) == ("sum", 3)


def test_a_fault_of_the_import_is_found_where_it_is(made: dict[str, Any]) -> None:
    imported = made["real"][2]
    by_name = {operator.name: operator for operator in imported.operators}
    conv, total, largest = by_name["conv"], by_name["sum"], by_name["max"]
    assert isinstance(conv, MatrixProduct)
    assert isinstance(total, Sum)
    assert isinstance(largest, MaxPool)
    assert conv.weights is not None
    assert conv.multiplier is not None
    faults: dict[str, dict[str, Any]] = {
        "conv": {"padding": conv.padding + 9},
        "depthwise": {"padding": 40},
        "sum": {"multipliers": (total.multipliers[0], -total.multipliers[1])},
        "max": {"input_zero": largest.input_zero + 1},
        "linear": {"zero_point": -9},
    }
    for name, fields in faults.items():
        found = checked(made, changed=swap(imported, name, **fields)).first
        assert found is not None
        assert (found.node, found.unexplained) == (name, 0)
        assert found.foreign > 0
    slightly = swap(imported, "conv", multiplier=conv.multiplier * 1.01, weights=conv.weights)
    found = checked(made, changed=slightly).first
    assert found is not None
    assert found.node == "conv"


def test_overflows_are_counted(tmp_path: Path) -> None:
    model = Model()
    x = model.fake(model.input("batch", 64, 2, 2), 1.0, 128)
    heavy = model.weights(np.full((3, 64, 1, 1), 127, np.int8), 1.0)
    model.output(model.fake(model.node("Conv", x, heavy, name="conv"), 5e3, 128))
    (tmp_path / "heavy.onnx").write_bytes(model.proto.SerializeToString())
    graph = canonical(bind(read(tmp_path / "heavy.onnx")))
    values = np.full((1, 64, 2, 2), 100, np.float32)
    report = verify(network(graph, "heavy"), graph, dataclasses.replace(EDGE, acc_bits=20), {"x": values})
    assert report.first is not None
    assert (report.first.node, report.first.overflows, report.first.unexplained) == ("conv", 12, 12)
    assert report.first.fault.endswith("not beyond it in 12 of 12 elements (12 sums overflowed the accumulator)")


def test_pruned_layers_are_compared_with_the_exact_result_alone(made: dict[str, Any]) -> None:
    report = checked(made, pattern="2:8")
    assert report.first is None, summary(report)
    found = {check.node: check.compared for check in report.checks}
    assert found["depthwise"] == 0 < found["conv"]
    assert checked(made, pattern="dense").first is None


# The command.


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in ("verify", *arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str], made: dict[str, Any]) -> None:
    code, out, _ = run(capsys, made["real"][0], "--inputs", made["inputs"])
    assert code == 0
    assert out.splitlines()[0].split()[:2] == ["node", "operator"]
    assert "real on edge-int8, 3 samples: every difference is explained" in out
    assert "graph against file" in out


def test_the_command_writes_json(capsys: pytest.CaptureFixture[str], made: dict[str, Any], tmp_path: Path) -> None:
    code, out, err = run(capsys, made["real"][0], "--inputs", made["inputs"], "--json", "--out", tmp_path / "out")
    facts = json.loads(out)
    assert (code, facts["first_unexplained"], facts["samples"], facts["network"]) == (0, None, 3, "real")
    assert {"node", "kind", "worst", "mean", "differing", "rounded", "saturated", "overflows", "explained"} <= facts["nodes"][1].keys()
    assert json.loads((tmp_path / "out" / "verify.json").read_text()) == facts
    assert "every difference is explained" in (tmp_path / "out" / "verify.txt").read_text()
    assert "the report is in" in err


def test_what_is_not_explained_is_an_error(
    capsys: pytest.CaptureFixture[str], made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(config: Any, layer: Any, inputs: Any) -> Any:
        values, lost = compute(config, layer, inputs)
        return (values + 3 if layer.operator.name == "max" else values), lost

    monkeypatch.setattr(compare, "compute", wrong)
    code, out, err = run(capsys, made["real"][0], "--inputs", made["inputs"])
    assert code == 1
    assert "first node that is not explained: max" in out
    rule = r"must be within the stated arithmetic of the exact value, not beyond it in \d+ of 288 elements$"
    assert re.search(rf"^accel: error: results of node 'max' \(MaxPool\) {rule}", err, re.M)


def test_a_float_network_is_quantised_and_its_losses_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with np.load(ZOO / "samples.npz") as stored:
        images = stored["calibration/image"].astype(np.float32) / 255
    np.savez(tmp_path / "x.npz", x=images[:2])
    np.savez(tmp_path / "c.npz", x=images[:8])
    code, out, _ = run(capsys, ZOO / "residual.onnx", "--inputs", tmp_path / "x.npz", "--calibration", tmp_path / "c.npz", "--json")
    facts = json.loads(out)
    assert (code, facts["file"]) == (0, "")
    assert len(facts["float"]) > 5
    assert all(each["sqnr_db"] > 15 for each in facts["float"])
    code, out, _ = run(capsys, ZOO / "residual.onnx", "--inputs", tmp_path / "x.npz")
    assert code == 0
    assert "SQNR dB" in out


@pytest.mark.parametrize("name", ["convnext", "transformer", "unet-transpose", "audio", "narrow-plain", "narrow-binary"])
def test_networks_nobody_tuned_for_are_explained(name: str) -> None:
    from accel.graph.calibrate import calibrate
    from accel.graph.files import is_float
    from accel.graph.fold import fold

    with np.load(ZOO / "samples.npz") as stored:
        kind = {"audio": "signal", "unet-transpose": "noisy"}.get(name, "image")
        x = stored[f"calibration/{kind}"].astype(np.float32) / 255
    original = graph = canonical(bind(read(ZOO / f"{name}.onnx")))
    entry = next(iter(graph.inputs))
    if is_float(graph):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fold(calibrate(graph, x[:8]))
    report = verify(network(graph, name), graph, EDGE, {entry: x[:1]}, original=original)
    assert report.first is None, summary(report)


def test_a_batch_that_lies_elsewhere_is_run_sample_by_sample(tmp_path: Path) -> None:
    model, rng = Model(), np.random.default_rng(1)
    x = model.fake(model.input(5, 4, 6), 0.1, 128)  # no batch: (rows, samples, features), as recurrent networks have it
    weights = model.weights(rng.integers(-127, 128, (6, 3)).astype(np.int8), 0.01)
    model.output(model.fake(model.node("MatMul", model.node("Transpose", x, perm=[1, 0, 2]), weights, name="product"), 0.1, 128))
    (tmp_path / "rows.onnx").write_bytes(model.proto.SerializeToString())
    graph = canonical(bind(read(tmp_path / "rows.onnx"), whole=True))
    values = rng.normal(0, 5, (3, 5, 4, 6)).astype(np.float32)
    report = verify(network(graph, "rows"), graph, EDGE, {"x": values})
    assert (report.samples, report.first) == (3, None)
    assert next(check for check in report.checks if check.node == "product").compared == 3 * 4 * 5 * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "--inputs", "missing.npz"],
         r"inputs must be a readable \.npz or \.npy file, not 'missing\.npz' \(No such file or directory\)"),
        (["MODEL", "--inputs", "WRONG"], r"inputs must be 'x', not 'y'"),
        (["MODEL", "--inputs", "SHAPE"], r"input 'x' must be of shape \(samples, .*3, 8, 8\), not \(2, 5\)"),
        (["missing.onnx", "--inputs", "INPUTS"], r".*missing\.onnx.*"),
        (["resnet50", "--inputs", "INPUTS"], r"network must have weights, not be 'resnet50', shapes only"),
        (["MODEL", "--inputs", "INPUTS", "--calibration", "INPUTS"],
         r"calibration must be given with a float network, not with '.*real\.onnx', which is quantised"),
        (["MODEL", "--inputs", "INPUTS", "--pattern", "3"], r".*"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], made: dict[str, Any], tmp_path: Path, arguments: list[str], message: str
) -> None:
    np.savez(tmp_path / "wrong.npz", y=made["x"])
    np.savez(tmp_path / "shape.npz", x=np.zeros((2, 5), np.float32))
    places = {"MODEL": made["real"][0], "INPUTS": made["inputs"], "WRONG": tmp_path / "wrong.npz", "SHAPE": tmp_path / "shape.npz"}
    code, out, err = run(capsys, *(places.get(each, each) for each in arguments))
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"accel: error: {message}\n", err)


def test_topologies_have_nothing_to_verify(capsys: pytest.CaptureFixture[str], made: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Layer,M,N,K\na,1,2,3\n")
    code, _, err = run(capsys, tmp_path / "t.csv", "--inputs", made["inputs"])
    assert code == 2
    assert re.fullmatch(r"accel: error: network must have weights, not be '.*t\.csv', shapes only\n", err)


def test_without_onnxruntime(capsys: pytest.CaptureFixture[str], made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = run(capsys, made["real"][0], "--inputs", made["inputs"])
    assert (code, err) == (3, "accel: error: onnxruntime must be installed to compare with it (pip install onnxruntime), not missing\n")


def test_the_shipped_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with np.load(builtin()["digits-cnn"].with_suffix(".npz")) as data:
        np.save(tmp_path / "x.npy", data["images"][:4])
    assert run(capsys, "digits-cnn", "--inputs", tmp_path / "x.npy")[0] == 0


def test_inputs_that_are_none_are_refused(made: dict[str, Any]) -> None:
    _, graph, imported = made["real"]
    assert isinstance(graph, Graph)
    with pytest.raises(RangeError, match=r"^inputs must be 'x', not none$"):
        verify(imported, graph, EDGE, {})
