"""What only the host computes: the smallest float island, beside onnxruntime, and labelled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import accel
from accel.config import AcceleratorConfig
from accel.errors import NetworkError
from accel.formats import Rounding
from accel.graph.builder import REAL
from accel.graph.graph import Graph
from accel.graph.network import Host, Network, Sum
from accel.graph.onnx import network
from accel.verification.compare import run_onnxruntime
from tests.naive_network import run
from tests.qdq import Model

CONFIG = AcceleratorConfig(weight_bits=9, mult_bits=24)


def kinds(imported: Network) -> list[str]:
    return [type(operator).__name__ for operator in imported.operators]


def compared(model: Model, worst: float, batch: int = 3, **given: Any) -> Network:
    """Import, simulate, and compare the outputs with onnxruntime's [worst difference, real]; then with plain loops, bit for bit."""
    imported = network(model.graph, "test")
    rng = np.random.default_rng(0)
    inputs: dict[str, Any] = dict(given)
    for port in model.inputs:
        shape = (batch, *(extent.dim_value for extent in port.type.tensor_type.shape.dim[1:]))
        inputs.setdefault(port.name, rng.uniform(-2, 2, shape).astype(np.float32))
    expected = run_onnxruntime(model.proto, inputs, optimise=False)
    found = accel.simulate(imported, CONFIG, inputs, keep=True)
    for name, reals in expected.items():
        got = found.real(name)
        assert got.shape == reals.shape
        assert np.abs(got - reals).max() <= worst, name
    start = {port.tensor: found.tensors[port.tensor] for port in imported.inputs}
    for name, integers in run(imported, start, CONFIG).items():
        tolerance = 2**6 if imported.tensors[name].scale == REAL.scale else 0  # float32 sums differ with their order
        np.testing.assert_allclose(integers, found.tensors[name], rtol=0, atol=tolerance, err_msg=name)
    return imported


def quantised(model: Model, *shape: int, name: str = "x") -> str:
    return model.fake(model.input("batch", *shape, name=name), 0.02, 100)


def test_what_has_no_integer_form_is_an_island():
    """Float nodes up to the quantiser are one operator, named after the last; what loses nothing by being rounded is not among them."""
    model = Model()
    x = quantised(model, 4, 3, 5)
    y = model.node("Cos", model.node("Sin", model.node("Relu", x), name="wave"), name="again")
    model.output(model.fake(model.node("Transpose", y, perm=[0, 2, 3, 1]), 0.008))
    imported = compared(model, 0.009)
    relu, island = imported.operators
    assert isinstance(relu, Sum)
    assert isinstance(island, Host)
    assert [node.kind for node in island.graph.nodes] == ["Sin", "Cos", "Transpose"]
    assert (island.name, island.kind) == ("transpose5", "Transpose")


def test_an_island_reads_what_lies_elsewhere():
    """A tensor that was transposed and reshaped is moved first; the island sees the shape that the graph has."""
    model = Model()
    x = model.node("Transpose", quantised(model, 4, 3, 5), perm=[0, 3, 1, 2])
    x = model.node("Reshape", x, model.constant([0, 10, 6], np.int64))
    model.output(model.fake(model.node("CumSum", x, model.constant(1, np.int64)), 0.2, 128))
    assert kinds(compared(model, 0.21)) == ["Move", "Host"]


def test_a_shape_without_the_batch_in_front():
    model = Model()
    x = model.node("Reshape", quantised(model, 4, 6), model.constant([3, 8], np.int64))
    y = model.node("Reshape", model.node("Sin", x), model.constant([1, 24], np.int64))
    model.output(model.fake(y, 0.008, 128))
    assert kinds(compared(model, 0.009, batch=1)) == ["Host"]


def test_integers_enter_an_island_as_integers():
    model = Model(opset=21)
    x = model.quantise(model.input("batch", 6), 0.02, 100)
    y = model.node("Cast", model.node("BitShift", x, model.constant(1, np.uint8), direction="RIGHT"), to=TensorProto.FLOAT)
    model.output(model.fake(y, 0.5))
    assert kinds(compared(model, 0.0)) == ["Host"]


def test_a_result_that_nothing_rounds_is_the_hosts():
    """To 2**-24 of the float result."""
    rng = np.random.default_rng(1)
    model = Model()
    x = quantised(model, 20)
    w = model.weights(rng.integers(-128, 128, (20, 12), np.int8), 0.004)
    model.output(model.node("MatMul", x, w, name="logits"))
    imported = compared(model, 1e-5)
    assert kinds(imported) == ["Host"]
    assert imported.tensors[imported.outputs[0].tensor].scale == REAL.scale


def test_an_input_that_nothing_rounds_goes_to_the_host():
    model = Model()
    x = model.node("Sub", model.input("batch", 4, 3, 3), model.constant(np.full((4, 1, 1), 0.4), np.float32))
    model.output(model.fake(model.node("Relu", model.fake(x, 0.02, 100)), 0.02))
    assert kinds(compared(model, 0.021)) == ["Host", "Sum"]


def test_indices_are_an_input():
    """Token numbers look up their embedding on the host."""
    rng = np.random.default_rng(2)
    model = Model()
    tokens = model.input("batch", 5, name="tokens", kind=TensorProto.INT64)
    x = model.node("Gather", model.constant(rng.uniform(-1, 1, (11, 6)), np.float32), tokens)
    model.output(model.fake(x, 0.008, 128))
    imported = compared(model, 0.005, tokens=rng.integers(0, 11, (3, 5)))
    assert kinds(imported) == ["Host"]
    assert not imported.inputs[0].real


def test_dynamic_quantisation_is_the_hosts():
    rng = np.random.default_rng(3)
    model = Model()
    model.nodes.append(helper.make_node("DynamicQuantizeLinear", [quantised(model, 6)], ["q", "scale", "zero"]))
    y = model.node("MatMulInteger", "q", model.constant(rng.integers(-9, 9, (6, 4)), np.int8), "zero")
    y = model.node("Mul", model.node("Cast", y, to=TensorProto.FLOAT), "scale")
    model.output(model.fake(y, 0.3, 128))
    assert kinds(compared(model, 0.31, batch=1)) in (["Host"], ["MatrixProduct"])  # the rewriting may know better


def test_one_result_for_two_readers_is_computed_once():
    model = Model()
    y = model.node("Sin", quantised(model, 6))
    for _ in range(2):
        model.output(model.fake(y, 0.008, 128))
    model.output(model.fake(y, 0.016, 128))
    assert kinds(compared(model, 0.017)) == ["Host", "Host"]


def test_products_without_quantised_weights_are_the_hosts():
    rng = np.random.default_rng(4)
    model = Model()
    y = model.node("Conv", quantised(model, 4, 6, 6), model.constant(rng.uniform(-0.2, 0.2, (5, 4, 3, 3)), np.float32))
    model.output(model.fake(y, 0.03, 128))
    assert kinds(compared(model, 0.031)) == ["Host"]


def test_activations_of_many_scales_are_the_hosts():
    """A tensor has one."""
    model = Model()
    scales, zeros = model.constant([0.02, 0.03, 0.04, 0.05], np.float32), model.constant([100, 110, 120, 130], np.uint8)
    q = model.node("QuantizeLinear", model.node("Relu", quantised(model, 4, 3)), scales, zeros)
    model.output(model.fake(model.node("DequantizeLinear", q, scales, zeros), 0.02))
    assert kinds(compared(model, 0.021)) == ["Sum", "Host"]


def test_nothing_is_left_of_what_the_host_does_after_all():
    """The quotient was laid flat for its constants before it was found to be the host's."""
    model = Model()
    c = model.constant(np.linspace(1, 2, 12).reshape(4, 3), np.float32)
    model.output(model.fake(model.node("Div", c, model.node("Sub", quantised(model, 4, 3), model.constant(9, np.float32))), 0.02, 255))
    imported = network(model.graph, "test")
    assert kinds(imported) == ["Host"]
    assert set(imported.tensors) == {imported.inputs[0].tensor, imported.outputs[0].tensor}


def test_an_output_must_depend_on_an_input():
    model = Model()
    quantised(model, 4)
    model.output(model.constant([1.0, 2.0], np.float32))
    with pytest.raises(NetworkError, match=r"^graph output 'constant\d' must depend on an input, not be a constant$"):
        network(model.graph, "test")


# Bounds and roundings that only rewritten graphs have.


def with_attributes(model: Model, node: str, **attributes: Any) -> Graph:
    graph = model.graph
    return replace(
        graph,
        nodes=tuple(replace(each, attributes={**each.attributes, **attributes}) if each.name == node else each for each in graph.nodes),
    )


def bounded(kind: str = "Relu") -> tuple[Model, str]:
    """Make a tensor, an operator and a quantiser; return the name of the last."""
    model = Model()
    y = model.node(kind, quantised(model, 6))
    q = model.quantise(y, 0.05, 3)
    model.output(model.dequantise(q, 0.05, 3))
    return model, q.removesuffix("_out")


X = np.linspace(-3, 3, 60, dtype=np.float32).reshape(10, 6)


def reals_of(graph: Graph) -> tuple[Network, Any]:
    imported = network(graph, "test")
    return imported, accel.simulate(imported, CONFIG, X).real(imported.outputs[0].name)


@pytest.mark.parametrize("kind", ["Relu", "Sigmoid", "Sin"])
@pytest.mark.parametrize("rounding", ["half_even", "floor", "half_up"])
def test_bounds_and_rounding_of_a_quantiser(kind, rounding):
    """Of a sum, of a table and of the host's."""
    model, q = bounded(kind)
    _, got = reals_of(with_attributes(model, q, lo=4, hi=15, rounding=rounding))
    x = np.clip(np.rint(X.astype(np.float64) / 0.02) + 100, 0, 255)
    real = (x - 100) * np.float64(np.float32(0.02))
    exact = {"Relu": np.maximum(real, 0), "Sigmoid": 1 / (1 + np.exp(-real)), "Sin": np.sin(real)}[kind] / np.float64(np.float32(0.05))
    steps = {"half_even": np.rint(exact), "floor": np.floor(exact), "half_up": np.floor(exact + 0.5)}[rounding]
    wanted = np.clip(steps + 3, 4, 15)
    ours = np.rint(got / 0.05) + 3
    assert (ours >= 4).all()
    assert (ours <= 15).all()
    close = np.abs(exact - np.rint(exact)) < 0.02 if rounding == "floor" else np.abs(exact % 1 - 0.5) < 0.02
    np.testing.assert_array_equal(ours[~close], wanted[~close])  # where the factor's rounding cannot tip it
    assert np.abs(ours - wanted).max() <= 1


def test_bounds_of_an_input():
    """The host rounds an input; its bounds are an operator."""
    model = Model()
    q = model.quantise(model.input("batch", 6), 0.05, 3)
    model.output(model.dequantise(q, 0.05, 3))
    imported, got = reals_of(with_attributes(model, q.removesuffix("_out"), lo=1, hi=9))
    assert kinds(imported) == ["Sum"]
    np.testing.assert_allclose(got, np.clip(np.rint(X / np.float32(0.05)) + 3, 1, 9) * 0.05 - 0.15, atol=1e-6)
    imported, got = reals_of(with_attributes(model, q.removesuffix("_out"), rounding="floor"))
    assert kinds(imported) == ["Host"]
    np.testing.assert_allclose(got, np.clip(np.floor(X / np.float32(0.05)) + 3, 0, 255) * 0.05 - 0.15, atol=0.051)


def test_bounds_are_checked():
    model, q = bounded()
    with pytest.raises(NetworkError, match=rf"^lo and hi of node '{q}' \(QuantizeLinear\) must be bounds within its type, not -1 and 15$"):
        network(with_attributes(model, q, lo=-1, hi=15), "test")
    with pytest.raises(NetworkError, match=rf"^rounding of node '{q}' \(QuantizeLinear\) must be half_even, floor or half_up, not up$"):
        network(with_attributes(model, q, rounding="up"), "test")


def test_a_rounding_reaches_the_operator():
    model, q = bounded()
    (operator,) = network(with_attributes(model, q, rounding="floor"), "test").operators
    assert isinstance(operator, Sum)
    assert operator.rounding is Rounding.FLOOR


# Attributes of a wrong type, which ONNX's own inference lets pass.


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        ("LeakyRelu", {"alpha": "much"}, "alpha of node 'it' (LeakyRelu) must be a number, not 'much'"),
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 0.5}, "ceil_mode of node 'it' (MaxPool) must be an integer, not 0.5"),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": "ab"}, "strides of node 'it' (MaxPool) must be a list, not 'ab'"),
        (
            "MaxPool",
            {"kernel_shape": [2, 2], "strides": [1, 0]},
            "strides of node 'it' (MaxPool) must be 2 integers of at least 1, not [1, 0]",
        ),
        ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": 3}, "auto_pad of node 'it' (AveragePool) must be a text, not 3"),
    ],
)
def test_attributes_have_types(kind, attributes, message):
    model = Model()
    good: dict[str, Any] = {"kernel_shape": [2, 2]} if "Pool" in kind else {}
    model.output(model.fake(model.node(kind, quantised(model, 4, 6, 6), name="it", **good), 0.02))
    graph = with_attributes(model, "it", **attributes)
    with pytest.raises(NetworkError) as caught:
        network(graph, "test")
    assert str(caught.value) == message
