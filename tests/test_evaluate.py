"""Float evaluation: onnxruntime and the reference evaluator beside each other and beside NumPy, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from accel.errors import NetworkError, RangeError
from accel.graph import evaluate
from accel.graph.fold import bind, fold
from accel.graph.graph import Array, Given, Graph, Node
from tests.qdq import Model, read_model

RNG = np.random.default_rng(3)
X = {"x": RNG.normal(size=(5, 4)).astype(np.float32)}
W = RNG.normal(size=(4, 3)).astype(np.float32)
BOUND = 2 * 4 * 2.0**-24 * (np.abs(X["x"]) @ np.abs(W))  # of two float32 sums of four products: a rounding each, of all magnitudes


def small() -> Graph:
    """``y = relu(x @ w)``, and the integers that say where it is largest."""
    model = Model(opset=18)
    y = model.node("Relu", model.node("MatMul", model.input(1, 4), model.constant(W), name="m"), name="r")
    model.output(y)
    model.output(model.node("ArgMax", y, name="a", axis=1), TensorProto.INT64)
    return fold(bind(read_model(model.proto)))


@pytest.fixture(params=["onnxruntime", "reference"])
def backend(request, monkeypatch) -> str:
    """Run with onnxruntime, and as if it were missing."""
    if request.param == "reference":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the reference evaluator is tested alone")
    return str(request.param)


def test_beside_numpy(backend):
    found = evaluate.run(small(), X, ["m_out", "r_out", "a_out", "x", "constant0"])
    product = X["x"] @ W
    assert (np.abs(found["m_out"] - product) <= BOUND).all()
    np.testing.assert_array_equal(found["r_out"], np.maximum(found["m_out"], 0))
    np.testing.assert_array_equal(found["a_out"], found["r_out"].argmax(1)[:, None])
    np.testing.assert_array_equal(found["x"], X["x"])
    np.testing.assert_array_equal(found["constant0"], np.stack([W] * 5))


def test_outputs_by_default_in_order(backend):
    assert list(evaluate.run(small(), X)) == ["r_out", "a_out"]


def test_one_sample_at_a_time():
    """Peak memory is that of one sample: the iterator has run as many as were taken from it."""
    told: list[tuple[int, int]] = []
    evaluate.run(small(), X, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    first = next(evaluate.samples(small(), X))
    assert first["r_out"].shape == (1, 3)


def test_samples_do_not_see_each_other(backend):
    together = evaluate.run(small(), X)["r_out"]
    alone = [evaluate.run(small(), {"x": each[None]})["r_out"] for each in X["x"]]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_samples_in_front_of_a_whole_graph(backend):
    """Where axis 0 is no batch, or is one of more than one, samples stand in front, and results are stacked."""
    node = Node("s", "Softmax", ("x",), ("y",), {"axis": 0})
    graph = Graph(name="g", opset=18, nodes=(node,), constants={}, inputs={"x": Given(TensorProto.FLOAT, (3, 2))}, outputs=("y",))
    x = RNG.normal(size=(4, 3, 2)).astype(np.float32)
    found = evaluate.run(graph, {"x": x})["y"]
    wanted = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=2.0**-20)


def test_constants_too_large_for_a_model_are_fed(monkeypatch, backend):
    wanted = evaluate.run(small(), X)["r_out"]
    monkeypatch.setattr(evaluate, "MESSAGE", 1)
    monkeypatch.setattr(evaluate, "LARGE", 1)
    session = evaluate.Session(small())
    assert "constant0" in session.fed
    # onnxruntime sums in another order where it knows the weights before
    assert (np.abs(evaluate.run(small(), X)["r_out"] - wanted) <= BOUND).all()


KINDS = {TensorProto.INT8: (-128, 127), TensorProto.UINT8: (0, 255), TensorProto.INT16: (-32768, 32767), TensorProto.UINT16: (0, 65535)}


@given(
    st.sampled_from([*KINDS]),
    st.sampled_from(["half_even", "half_up", "floor"]),
    st.integers(-200, 200),
    st.integers(-200, 200),
    st.sampled_from([0.5, 0.25, 1.0]),
)
def test_quantisers_with_bounds_and_rounding(kind, rounding, first, second, scale):
    """Scales are powers of two, so that every quotient is exact and ties are ties."""
    least, most = KINDS[kind]
    low, high = sorted((min(max(first, least), most), min(max(second, least), most)))
    zero = min(max(first, least), most)
    x = np.concatenate([np.arange(-40, 40) / 16, [1e30, -1e30, 3e9]]).astype(np.float32)[None]
    dtype = np.dtype(f"{'u' if least == 0 else ''}int{8 if most < 256 else 16}")
    node = Node("q", "QuantizeLinear", ("x", "s", "z"), ("y",), {"lo": low, "hi": high, "rounding": rounding})
    graph = Graph(
        name="g",
        opset=21,
        nodes=(node,),
        constants={"s": Array.of(np.float32(scale)), "z": Array.of(np.array(zero, dtype))},
        inputs={"x": Given(TensorProto.FLOAT, x.shape)},
        outputs=("y",),
        kinds={"y": kind},
    )
    found = evaluate.run(graph, {"x": x})["y"]
    quotient = x.astype(np.float64) / scale
    rounded = {"half_even": np.rint(quotient), "half_up": np.floor(quotient + 0.5), "floor": np.floor(quotient)}[rounding]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.clip(rounded + zero, low, high))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs must be 'x', not none"),
        ({"y": 1}, "inputs must be 'x', not 'y'"),
        ({"x": np.zeros((2, 5), np.float32)}, r"input 'x' must be of shape \(samples, 4\), not \(2, 5\)"),
        ({"x": np.zeros((0, 4), np.float32)}, r"input 'x' must be of shape \(samples, 4\), not \(0, 4\)"),
        ({"x": np.zeros((2, 4), bool)}, "input 'x' must be of type float32, not bool"),
        ({"x": [[1, 2, 3, 4], [5]]}, "input 'x' must be an array, not lists of different lengths"),
        ({"x": np.array([["a"] * 4])}, "input 'x' must be of type float32, not <U1"),
    ],
)
def test_refused_inputs(inputs, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        evaluate.run(small(), inputs)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_reals_given_as_integers(dtype):
    x = np.arange(8).reshape(2, 4)
    whole, real = (evaluate.run(small(), {"x": x.astype(each)}) for each in (dtype, np.float32))
    assert all(np.array_equal(whole[name], real[name]) for name in real)


def test_inputs_of_different_lengths():
    model = Model(opset=18)
    model.output(model.node("Add", model.input(1, 2, name="a"), model.input(1, 2, name="b")))
    graph = fold(bind(read_model(model.proto)))
    with pytest.raises(RangeError, match=r"^inputs must have as many samples each, not \{'a': 1, 'b': 3\}$"):
        evaluate.run(graph, {"a": np.zeros((1, 2)), "b": np.zeros((3, 2))})


def test_a_graph_without_inputs():
    with pytest.raises(RangeError, match=r"^graph 'g' must have an input to be run on samples, not none$"):
        evaluate.run(Graph(name="g", opset=18, nodes=(), constants={}, inputs={}, outputs=()), {})


def test_refused_graphs(backend):
    with pytest.raises(NetworkError, match=r"^wanted tensor must be one of graph 'test', not 'nothing'$"):
        evaluate.run(small(), X, ["nothing"])
    hidden: dict[str, Any] = {**small().constants, "constant0": Array.unknown((4, 3))}
    with pytest.raises(NetworkError, match=r"^constant 'constant0' must be known to run graph 'test', not its shape alone$"):
        evaluate.run(replace(small(), constants=hidden), X)
    wrong = replace(small(), constants={**small().constants, "constant0": Array.of(np.zeros((7, 3), np.float32))})
    with pytest.raises(NetworkError, match=r"^graph 'test' must be one that "):
        evaluate.run(wrong, X)


def test_rounding_needs_one_scale():
    node = Node("q", "QuantizeLinear", ("x", "s"), ("y",), {"rounding": "floor", "axis": 1})
    graph = replace(small(), nodes=(node,), constants={"s": Array.of(np.ones(4, np.float32))}, outputs=("y",))
    with pytest.raises(
        NetworkError, match=r"^scale of node 'q' \(QuantizeLinear\) must be one number where rounding is 'floor', not of shape \(4,\)$"
    ):
        evaluate.run(graph, X)
