"""What the importer accepts around its operators, and every sentence it refuses with."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import accel
from accel.errors import NetworkError
from accel.graph.network import MatrixProduct, Sum
from accel.graph.onnx import OPERATORS, network
from tests.naive_network import run
from tests.qdq import Model, graph_of

INT8 = np.int8


def linear(model: Model | None = None, channels: int = 4) -> Model:
    """Make a quantised product, the least network there is."""
    model = model or Model()
    x = model.fake(model.input("batch", channels), 0.02, 100)
    model.output(model.fake(model.node("MatMul", x, model.weights(np.ones((channels, 3), INT8), 0.01), name="product"), 0.03, 5))
    return model


def refused(model: Model | onnx.ModelProto, message: str) -> None:
    """Check that the model is refused with exactly this message."""
    proto = model.proto if isinstance(model, Model) else model
    with pytest.raises(NetworkError, match=f"^{re.escape(message)}$"):
        network(graph_of(proto), "test")


# Graphs.


@pytest.mark.parametrize("opset", [11, 13, 17, 21, 23])
def test_opsets(opset):
    assert len(network(linear(Model(opset=opset)).graph, "test").operators) == 1


def test_what_no_output_needs_is_left_out():
    model = linear()
    model.node("Softmax", model.outputs[0].name)
    model.node("Relu", model.outputs[0].name)
    assert len(network(model.graph, "test").operators) == 1


def test_an_integer_network():
    """Integer inputs and outputs need no host."""
    model = Model()
    x = model.dequantise(model.input("batch", 4, kind=TensorProto.UINT8), 0.02, 100)
    model.output(model.quantise(model.node("Relu", x), 0.02, 90), TensorProto.UINT8)
    imported = network(model.graph, "test")
    assert [port.real for port in (*imported.inputs, *imported.outputs)] == [False, False]
    tensor = imported.tensors["x"]
    given = np.array([[0, 99, 101, 255]], np.uint8)
    values = run(imported, {"x": tensor.from_onnx(given)})
    output = imported.outputs[0].tensor
    assert imported.tensors[output].to_onnx(values[output]).tolist() == [[90, 90, 91, 245]]


def test_initializers_may_be_listed_as_inputs():
    proto = linear().proto
    proto.graph.input.append(helper.make_tensor_value_info("constant0", TensorProto.FLOAT, []))
    assert [port.name for port in network(graph_of(proto), "test").inputs] == ["x"]


def test_one_result_in_two_forms_is_two_operators_and_in_one_form_is_one():
    model = Model()
    x = model.fake(model.input("batch", 4), 0.02, 100)
    y = model.node("MatMul", x, model.weights(np.ones((4, 3), INT8), 0.01), name="product")
    for scale in (0.03, 0.03, 0.05):
        model.output(model.fake(y, scale, 5))
    imported = network(model.graph, "test")
    assert [operator.name for operator in imported.operators] == ["product", "product#2"]
    assert imported.outputs[0].tensor == imported.outputs[1].tensor != imported.outputs[2].tensor


@pytest.mark.parametrize(("dtype", "bits"), [("uint16", 16), ("int16", 16), ("uint8", 8), ("int8", 8)])
def test_widths(dtype, bits):
    model = Model(opset=21)
    model.output(model.fake(model.node("Relu", model.fake(model.input("batch", 4), 0.02, 100, dtype)), 0.03, 5, dtype))
    imported = network(model.graph, "test")
    (operator,) = imported.operators
    tensor = imported.tensors[operator.output]
    assert (tensor.bits, tensor.unsigned, tensor.zero_point) == (bits, dtype[0] == "u", 5 - (1 << bits - 1 if dtype[0] == "u" else 0))


@pytest.mark.parametrize(("kind", "values"), [(TensorProto.INT4, [-8, 7, 0, 3]), (TensorProto.UINT4, [0, 15, 8, 3])])
def test_four_bit_weights_and_activations(kind, values):
    model = Model(opset=21)
    zeros = 0 if kind == TensorProto.INT4 else 8
    for name, shape, integers in (("zero", [], [zeros]), ("weights", [4, 1], values)):
        model.constants.append(helper.make_tensor(name, kind, shape, integers))
    scale = model.constant(0.25, np.float32)
    x = model.node("DequantizeLinear", model.node("QuantizeLinear", model.input("batch", 4), scale, "zero"), scale, "zero")
    w = model.node("DequantizeLinear", "weights", scale, "zero")
    y = model.node("DequantizeLinear", model.node("QuantizeLinear", model.node("MatMul", x, w), scale, "zero"), scale, "zero")
    model.output(y)
    imported = network(model.graph, "test")
    (product,) = imported.products
    assert product.matrix.tolist() == [[value - zeros for value in values]]
    assert (product.padding, product.lo, product.hi) == (0, -8, 7)


def test_the_type_without_a_zero_point_is_uint8():
    model = Model()
    scale = model.constant(0.02, np.float32)
    model.output(model.node("DequantizeLinear", model.node("QuantizeLinear", model.input("batch", 4), scale), scale))
    (tensor,) = network(model.graph, "test").tensors.values()
    assert (tensor.unsigned, tensor.zero_point) == (True, -128)


def test_weights_quantised_in_the_graph_are_folded():
    """Round half to even, saturate, for each filter."""
    model = Model()
    x = model.fake(model.input("batch", 2), 0.02, 100)
    reals = model.constant([[0.5, 1.5, 0.7], [-100.0, 2.5, 0.2]], np.float32)
    scales, zeros = model.constant([1.0, 1.0, 0.1], np.float32), model.constant([0, 0, 0], INT8)
    w = model.node("DequantizeLinear", model.node("QuantizeLinear", reals, scales, zeros, axis=1), scales, zeros, axis=1)
    model.output(model.fake(model.node("MatMul", x, w), 0.03, 5))
    (product,) = network(model.graph, "test").products
    assert product.matrix.tolist() == [[0, -100], [2, 2], [7, 2]]


@pytest.mark.parametrize("attributes", [{"value_ints": [0, 2, 2]}, {"value": onnx.numpy_helper.from_array(np.array([0, 2, 2]))}])
def test_constants_may_be_nodes(attributes):
    model = Model()
    shape = model.node("Constant", **attributes)
    model.output(model.fake(model.node("Reshape", model.fake(model.input("batch", 4), 0.02, 100), shape), 0.02, 100))
    imported = network(model.graph, "test")
    assert imported.tensors[imported.outputs[0].tensor].shape == (2, 2)


@pytest.mark.parametrize("attributes", [{"value_float": -0.25}, {"value_floats": [-0.25]}])
def test_constant_numbers(attributes):
    model = Model()
    x = model.fake(model.input("batch", 4), 0.02, 100)
    model.output(model.fake(model.node("Clip", x, model.node("Constant", **attributes)), 0.05, 100))
    (operator,) = network(model.graph, "test").operators
    assert isinstance(operator, Sum)
    assert operator.lo == 100 - 128 - 5


# Nodes. Each case adds to a model with a dequantised input of shape (batch, 4, 6, 6) the node called `it`.


def it(kind, *inputs, **attributes):
    """Make the model of a case; inputs are names, arrays, or what a function of the model adds."""

    def build() -> Model:
        model = Model()
        x = model.fake(model.input("batch", 4, 6, 6), 0.02, 100)
        given = [value(model, x) if callable(value) else value if isinstance(value, str) else model.constant(value) for value in inputs]
        model.output(model.fake(model.node(kind, *given, name="it", **attributes), 0.03, 5))
        return model

    return build


def x(model, x):
    return x


def flat(model, x):
    return model.node("Flatten", x)


def raw(model, x):
    return model.input("batch", 4, 6, 6, name="raw")


def draft(model, x):
    return model.node("Conv", x, weights(4, 1, 1)(model, x), name="conv")


def transposed(*shape, axis=1):
    return lambda model, x: model.weights(np.ones(shape, INT8), 0.01, axis=axis)


def quantiser(*inputs):
    """Make the model of a case whose last node quantises the graph's output."""

    def build() -> Model:
        model = Model()
        x = model.fake(model.input("batch", 4, 6, 6), 0.02, 100)
        model.output(model.node("QuantizeLinear", x, *(model.constant(value) for value in inputs), name="it"), TensorProto.UINT8)
        return model

    return build


def weights(*shape, scale=0.01, axis=0, filters=5):
    return lambda model, x: model.weights(np.ones((filters, *shape) if filters else shape, INT8), scale, axis=axis)


def f32(*values):
    return np.array(values[0] if len(values) == 1 else values, np.float32)


U0 = np.array(0, np.uint8)
CASES = [
    (
        it("Conv", np.zeros((1, 4, 6, 6), np.float32), weights(4, 3, 3)),
        "'it_out', which the host computes, must depend on an input, not on constants alone",
    ),
    (it("Conv", x, weights(3, 3, 3)), "weights of node 'it' (Conv) must have 4 / 1 input channels, not 3"),
    (it("Conv", x, weights(2, 3, 3), group=2), "group of node 'it' (Conv) must divide its 5 filters, not be 2"),
    (
        it("Conv", x, weights(4, 3, 3), f32(1, 2)),
        "input 2 of node 'it' (Conv) must be one number for each of 5 channels, not of shape (2,)",
    ),
    (it("Conv", x, weights(4, 3, 3), f32([np.inf] * 5)), "input 2 of node 'it' (Conv) must be finite, not inf"),
    (it("Conv", x, weights(4, 3, 3), f32([1e30] * 5)), "bias of node 'it' (Conv) must be below 2**62 products, not 5.00000029875476e+33"),
    (
        it("Conv", x, weights(4, 3, 3), kernel_shape=[3, 5]),
        "kernel_shape of node 'it' (Conv) must be that of its weights, [3, 3], not [3, 5]",
    ),
    (
        it("Conv", x, weights(4, 3, 3), auto_pad="SAME"),
        "auto_pad of node 'it' (Conv) must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, not SAME",
    ),
    (
        it("Conv", x, lambda model, x: model.weights(np.full((5, 4, 1, 1), -(2**31), np.int32), 0.01, 1)),
        "weights of node 'it' (Conv) must fit 32 bits once the zero point is subtracted, not -2147483649..-2147483649",
    ),
    (
        it("ConvTranspose", x, transposed(4, 5, 3, 3), output_shape=[0, 6]),
        "output_shape of node 'it' (ConvTranspose) must be 2 sizes of at least 1, not [0, 6]",
    ),
    (
        it("ConvTranspose", x, transposed(4, 5, 3, 3), kernel_shape=[3, 2]),
        "kernel_shape of node 'it' (ConvTranspose) must be that of its weights, [3, 3], not [3, 2]",
    ),
    (it("Gemm", flat, weights(144), transB=1, beta=float("inf")), "beta of node 'it' (Gemm) must be finite, not inf"),
    (it("Gemm", flat, weights(144), transB=1, alpha=float("nan")), "alpha of node 'it' (Gemm) must be finite, not nan"),
    (it("Clip", x, f32(1, 2)), "input 1 of node 'it' (Clip) must be one number, not [1.0, 2.0]"),
    (it("Clip", x, "", f32(np.nan)), "input 2 of node 'it' (Clip) must be one number, not nan"),
    (it("Elu", x, alpha=float("inf")), "alpha of node 'it' (Elu) must be finite, not inf"),
    (it("MaxPool", x, kernel_shape=[2, 2], storage_order=2), "storage_order of node 'it' (MaxPool) must be 0 or 1, not 2"),
    (
        it("MaxPool", x, kernel_shape=[2, 2], pads=[2, 0, 0, 0]),
        "pads of node 'it' (MaxPool) must be smaller than its window, not [2, 0, 0, 0]",
    ),
    (
        it("MaxPool", x, kernel_shape=[2, 1], dilations=[7, 1], pads=[3, 0, 3, 0]),
        "dilations of node 'it' (MaxPool) must be at most its input's size (6, 6), not [7, 1]",
    ),
    (it("Transpose", weights(4, 3, 3), perm=[0, 2, 1]), "perm of node 'it' (Transpose) must order 4 axes, not [0, 2, 1]"),
    (
        it("DequantizeLinear", np.ones((2, 3), np.int8), f32(0.5, 0.25)),
        "scale of node 'it' (DequantizeLinear) must be one number or one for each element of axis 1 of (2, 3), not of shape (2,)",
    ),
    (
        quantiser(f32(0.1, 0.2), np.array([0, 0], np.uint8)),
        "scale of node 'it' (QuantizeLinear) must be one number or one for each element of axis 1 of (1, 4, 6, 6), not of shape (2,)",
    ),
    (quantiser(f32(0.0), U0), "scale of node 'it' (QuantizeLinear) must be positive and finite, not 0.0"),
    (quantiser(f32(np.inf), U0), "scale of node 'it' (QuantizeLinear) must be positive and finite, not inf"),
    (
        quantiser(f32(0.5), np.array([0, 0], np.uint8)),
        "zero point of node 'it' (QuantizeLinear) must be uint8 of shape (), not uint8 of shape (2,)",
    ),
]


@pytest.mark.parametrize(("build", "message"), CASES, ids=[message for _, message in CASES])
def test_nodes_are_refused(build, message):
    refused(build(), message)


def test_an_input_is_quantised_once_for_each_form():
    """By the host, as often as there are forms."""
    model = Model()
    for scale in (0.02, 0.03, 0.02):
        model.output(model.fake("x" if model.inputs else model.input("batch", 4), scale, 100))
    imported = network(model.graph, "test")
    assert [port.name for port in imported.inputs] == ["x", "x"]
    assert not imported.operators
    found = accel.simulate(imported, "tiny", np.array([[-1.0, 0.5, 1.004, 9]], np.float32))
    assert [found.real(port.name)[0].tolist() for port in imported.outputs[:2]] == [
        pytest.approx([-1, 0.5, 1, 3.1]),
        pytest.approx([-0.99, 0.51, 0.99, 4.65]),
    ]


@pytest.mark.parametrize(("batch", "target"), [(2, [2, -1]), (2, [0, 144]), (1, [1, 4, 36]), ("batch", [-1, 144]), ("batch", [0, 0, 36])])
def test_reshape_keeps_a_symbolic_or_a_fixed_batch(batch, target):
    model = Model()
    x = model.fake(model.input(batch, 4, 6, 6), 0.02, 100)
    model.output(model.fake(model.node("Reshape", x, model.constant(target, np.int64)), 0.02, 100))
    network(model.graph, "test")


def test_products_know_their_padding():
    """The zero point of the input, folded into the bias as well."""
    model = Model()
    x = model.fake(model.input("batch", 2, 3, 3), 0.02, 100)
    w = model.weights(np.arange(-6, 12, dtype=INT8).reshape(1, 2, 3, 3), 0.01)
    model.output(model.fake(model.node("Conv", x, w, pads=[1, 1, 1, 1]), 0.1, 0))
    (product,) = network(model.graph, "test").products
    assert isinstance(product, MatrixProduct)
    assert product.padding == -28
    assert product.bias is not None
    assert product.bias.tolist() == [28 * sum(range(-6, 12))]


# Any graph.

VALUES: list[Any] = [0, 1, -1, 3, 1 << 40, -(1 << 62), 1.5, np.inf, np.nan, "SAME_UPPER", "x"]
VALUES += [[1], [2, 2], [0, -1], [1, 1, 1, 1], [1 << 40, 3], [1.5]]
NAMES = ["strides", "pads", "dilations", "group", "auto_pad", "kernel_shape", "axis", "alpha", "perm", "to", "ceil_mode", "output_shape"]
KINDS = sorted({"Sin", *OPERATORS})


def chain() -> onnx.ModelProto:
    """Make a model of a convolution, a sum, a pool, a table, a movement, two products and what the host computes."""
    model = Model(opset=20)
    x = model.fake(model.input("batch", 4, 6, 6), 0.02, 100)
    y = model.node("Conv", x, weights(4, 3, 3, filters=4)(model, x), pads=[1, 1, 1, 1])
    y = model.fake(model.node("Add", model.fake(y, 0.03, 100), x), 0.03, 100)
    y = model.fake(model.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 0.03, 100)
    y = model.node("Mul", y, model.node("Sigmoid", y))
    y = model.node("Reshape", model.node("Transpose", model.fake(y, 0.03, 100), perm=[0, 2, 3, 1]), model.constant([0, 9, 4], np.int64))
    z = model.fake(model.node("MatMul", y, weights(4, 5, filters=0)(model, y)), 0.1, 100)
    z = model.fake(model.node("MatMul", model.node("Transpose", z, perm=[0, 2, 1]), y), 0.1, 100)
    model.output(model.node("Sin", z))
    return model.proto


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_graph_gives_a_network_or_an_error(data):
    """Operators, attributes, inputs, constants and sizes that do not fit together end in no other exception."""
    proto = chain()
    tensors = sorted({name for node in proto.graph.node for name in (*node.input, *node.output)} | {""})
    for change in data.draw(st.lists(st.sampled_from(["kind", "attribute", "input", "constant", "size"]), min_size=1, max_size=3)):
        node = data.draw(st.sampled_from(list(proto.graph.node)))
        if change == "kind":
            node.op_type = data.draw(st.sampled_from(KINDS))
        elif change == "attribute":
            name = data.draw(st.sampled_from(NAMES))
            kept = [each for each in node.attribute if each.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, data.draw(st.sampled_from(VALUES)))])
        elif change == "input":
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(tensors))
        elif change == "constant":
            tensor = data.draw(st.sampled_from(list(proto.graph.initializer)))
            values = onnx.numpy_helper.to_array(tensor)
            with np.errstate(all="ignore"):
                others = [values * 0, -values, values.ravel(), values.astype(np.float32), values[..., None], values * np.int8(99)]
            values = data.draw(st.sampled_from(others))
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), tensor.name))
        else:
            extent = data.draw(st.sampled_from(list(proto.graph.input[0].type.tensor_type.shape.dim)))
            extent.dim_value = data.draw(st.sampled_from([0, 1, 2, 5, 1 << 12, 1 << 40]))
    with suppress(NetworkError):
        network(graph_of(proto), "test")
