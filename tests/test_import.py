"""What the importer accepts around its operators, and every sentence it refuses with."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from accel.errors import NetworkError
from accel.graph.network import MatrixProduct, Sum
from accel.graph.onnx import NEWEST_OPSET, OPERATORS, network
from tests.naive_network import run
from tests.qdq import Model

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
        network(proto, "test")


# Graphs.


@pytest.mark.parametrize("opset", range(11, min(NEWEST_OPSET, 24) + 1))
def test_opsets(opset):
    assert len(network(linear(Model(opset=opset)).proto, "test").operators) == 1


@pytest.mark.parametrize("opset", [10, NEWEST_OPSET + 1])
def test_other_opsets_are_refused(opset):
    proto = linear().proto
    proto.opset_import[0].version = opset
    refused(proto, f"opset must be in [11, {NEWEST_OPSET}], not {opset}")


def test_unsupported_operators_are_listed():
    model = linear()
    model.nodes.append(helper.make_node("Softmax", [model.outputs.pop().name], ["y"], name="classes"))
    model.output("y")
    refused(model, f"operator of node 'classes' must be one of {', '.join(sorted(OPERATORS))}, not Softmax")
    model.nodes[-1] = helper.make_node("Relu", list(model.nodes[-1].input), ["y"], domain="com.example")
    refused(model, f"operator of node 'y' must be one of {', '.join(sorted(OPERATORS))}, not com.example.Relu")


def test_what_no_output_needs_is_left_out():
    model = linear()
    model.node("Softmax", model.outputs[0].name)
    model.node("Relu", model.outputs[0].name)
    assert len(network(model.proto, "test").operators) == 1


def test_cycles_and_order_are_refused():
    model = linear()
    model.nodes.append(helper.make_node("Add", [model.outputs.pop().name, "b"], ["a"], name="first"))
    model.nodes.append(helper.make_node("Relu", ["a"], ["b"], name="second"))
    model.output("b")
    refused(model, "inputs of node 'first' (Add) must be written before it, without a cycle, not 'b'")


def test_names_are_text():
    proto = linear().proto
    name = proto.graph.node[-1].output[0].encode()
    data = proto.SerializeToString().replace(name, b"\xff" * len(name))
    with pytest.raises(NetworkError, match=r"^names in the graph must be UTF-8 text, not b'\\xff"):
        network(onnx.load_model_from_string(data), "model")


def test_names_are_written_once():
    model = linear()
    model.nodes.append(helper.make_node("Relu", [model.outputs[0].name], ["x"], name="again"))
    refused(model, "outputs of node 'again' (Relu) must be new names, not 'x'")


def test_outputs_must_exist():
    model = linear()
    model.output("nowhere")
    refused(model, "outputs of the graph must be written by its nodes, not ['nowhere']")
    model.outputs.clear()
    refused(model, "outputs of the graph must be written by its nodes, not left out")


def test_the_checker_has_a_say():
    proto = linear().proto
    proto.graph.node[0].attribute.add(name="flavour", i=1, type=onnx.AttributeProto.INT)
    with pytest.raises(
        NetworkError, match=r"^network must be a valid ONNX model: Unrecognized attribute: flavour for operator QuantizeLinear$"
    ):
        network(proto, "test")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4,), "graph input 'x' must have 2 to 4 axes, the batch first, not 1"),
        ((1, 2, 3, 4, 5), "graph input 'x' must have 2 to 4 axes, the batch first, not 5"),
        (("batch", 4, "height", 5), "axis 2 of graph input 'x' must be a fixed size, not 'height'"),
        ((1, 0, 5), "axis 1 of graph input 'x' must be a fixed size, not 0"),
    ],
)
def test_input_shapes(shape, message):
    model = Model()
    model.output(model.fake(model.input(*shape), 0.02, 100))
    refused(model, message)


def test_an_output_must_be_quantised():
    model = Model()
    x = model.fake(model.input("batch", 4), 0.02, 100)
    model.output(model.node("Relu", x, name="last"))
    rule = "must be an activation from QuantizeLinear or DequantizeLinear, not"
    refused(model, f"graph output 'last_out' {rule} the result of node 'last' (Relu), which no QuantizeLinear has rounded")
    model = Model()
    model.output(model.node("Identity", model.input("batch", 4)))
    refused(model, f"graph output 'identity0_out' {rule} graph input 'x' as it comes")


def test_an_integer_network():
    """Integer inputs and outputs need no host."""
    model = Model()
    x = model.dequantise(model.input("batch", 4, kind=TensorProto.UINT8), 0.02, 100)
    model.output(model.quantise(model.node("Relu", x), 0.02, 90), TensorProto.UINT8)
    imported = network(model.proto, "test")
    assert [port.real for port in (*imported.inputs, *imported.outputs)] == [False, False]
    tensor = imported.tensors["x"]
    given = np.array([[0, 99, 101, 255]], np.uint8)
    values = run(imported, {"x": tensor.from_onnx(given)})
    output = imported.outputs[0].tensor
    assert imported.tensors[output].to_onnx(values[output]).tolist() == [[90, 90, 91, 245]]


def test_initializers_may_be_listed_as_inputs():
    proto = linear().proto
    proto.graph.input.append(helper.make_tensor_value_info("constant0", TensorProto.FLOAT, []))
    assert [port.name for port in network(proto, "test").inputs] == ["x"]


def test_one_result_in_two_forms_is_two_operators_and_in_one_form_is_one():
    model = Model()
    x = model.fake(model.input("batch", 4), 0.02, 100)
    y = model.node("MatMul", x, model.weights(np.ones((4, 3), INT8), 0.01), name="product")
    for scale in (0.03, 0.03, 0.05):
        model.output(model.fake(y, scale, 5))
    imported = network(model.proto, "test")
    assert [operator.name for operator in imported.operators] == ["product", "product#2"]
    assert imported.outputs[0].tensor == imported.outputs[1].tensor != imported.outputs[2].tensor


@pytest.mark.parametrize(("dtype", "bits"), [("uint16", 16), ("int16", 16), ("uint8", 8), ("int8", 8)])
def test_widths(dtype, bits):
    model = Model(opset=21)
    model.output(model.fake(model.node("Relu", model.fake(model.input("batch", 4), 0.02, 100, dtype)), 0.03, 5, dtype))
    imported = network(model.proto, "test")
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
    imported = network(model.proto, "test")
    (product,) = imported.products
    assert product.matrix.tolist() == [[value - zeros for value in values]]
    assert (product.padding, product.lo, product.hi) == (0, -8, 7)


def test_the_type_without_a_zero_point_is_uint8():
    model = Model()
    scale = model.constant(0.02, np.float32)
    model.output(model.node("DequantizeLinear", model.node("QuantizeLinear", model.input("batch", 4), scale), scale))
    (tensor,) = network(model.proto, "test").tensors.values()
    assert (tensor.unsigned, tensor.zero_point) == (True, -128)


def test_weights_quantised_in_the_graph_are_folded():
    """Round half to even, saturate, for each filter."""
    model = Model()
    x = model.fake(model.input("batch", 2), 0.02, 100)
    reals = model.constant([[0.5, 1.5, 0.7], [-100.0, 2.5, 0.2]], np.float32)
    scales, zeros = model.constant([1.0, 1.0, 0.1], np.float32), model.constant([0, 0, 0], INT8)
    w = model.node("DequantizeLinear", model.node("QuantizeLinear", reals, scales, zeros, axis=1), scales, zeros, axis=1)
    model.output(model.fake(model.node("MatMul", x, w), 0.03, 5))
    (product,) = network(model.proto, "test").products
    assert product.matrix.tolist() == [[0, -100], [2, 2], [7, 2]]


@pytest.mark.parametrize("attributes", [{"value_ints": [0, 2, 2]}, {"value": onnx.numpy_helper.from_array(np.array([0, 2, 2]))}])
def test_constants_may_be_nodes(attributes):
    model = Model()
    shape = model.node("Constant", **attributes)
    model.output(model.fake(model.node("Reshape", model.fake(model.input("batch", 4), 0.02, 100), shape), 0.02, 100))
    imported = network(model.proto, "test")
    assert imported.tensors[imported.outputs[0].tensor].shape == (2, 2)


@pytest.mark.parametrize("attributes", [{"value_float": -0.25}, {"value_floats": [-0.25]}])
def test_constant_numbers(attributes):
    model = Model()
    x = model.fake(model.input("batch", 4), 0.02, 100)
    model.output(model.fake(model.node("Clip", x, model.node("Constant", **attributes)), 0.05, 100))
    (operator,) = network(model.proto, "test").operators
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


def integers(model, x):
    return model.quantise(x, 0.5, 3)


def draft(model, x):
    return model.node("Conv", x, weights(4, 1, 1)(model, x), name="conv")


def pooled(model, x):
    return model.node("GlobalAveragePool", x, name="mean")


def weights(*shape, scale=0.01, axis=0, filters=5):
    return lambda model, x: model.weights(np.ones((filters, *shape) if filters else shape, INT8), scale, axis=axis)


def f32(*values):
    return np.array(values[0] if len(values) == 1 else values, np.float32)


U0 = np.array(0, np.uint8)
DRAFT = "the result of node 'conv' (Conv), which no QuantizeLinear has rounded"
MEAN = "the result of node 'mean' (GlobalAveragePool), which no QuantizeLinear has rounded"
ACTIVATION = "must be an activation from DequantizeLinear, not"
CASES = [
    (it("Conv", raw, weights(4, 3, 3)), f"input 0 of node 'it' (Conv) {ACTIVATION} graph input 'raw' as it comes"),
    (it("Conv", draft, weights(5, 3, 3)), f"input 0 of node 'it' (Conv) {ACTIVATION} {DRAFT}"),
    (it("Conv", np.zeros((1, 4, 6, 6), np.float32), weights(4, 3, 3)), f"input 0 of node 'it' (Conv) {ACTIVATION} a constant"),
    (
        it("Conv", x, np.zeros((5, 4, 3, 3), np.float32)),
        "input 1 of node 'it' (Conv) must be a constant from DequantizeLinear, not a constant",
    ),
    (
        it("Conv", x, x),
        "input 1 of node 'it' (Conv) must be a constant from DequantizeLinear, not the dequantised tensor 'quantizelinear0_out'",
    ),
    (it("Conv", flat, weights(4, 3, 3)), "input 0 of node 'it' (Conv) must have 4 axes, batch, channels, height and width, not 2"),
    (it("Conv", x, weights(4, 3)), "weights of node 'it' (Conv) must have 4 axes and an element, not shape (5, 4, 3)"),
    (it("Conv", x, weights(3, 3, 3)), "weights of node 'it' (Conv) must have 4 / 1 input channels, not 3"),
    (it("Conv", x, weights(2, 3, 3), group=2), "group of node 'it' (Conv) must divide its 5 filters, not be 2"),
    (
        it("Conv", x, weights(4, 3, 3, scale=[0.1] * 4, axis=1)),
        "scales of the weights of node 'it' (Conv) must run along the filters, axis 0, not axis 1",
    ),
    (
        it("Conv", x, weights(4, 3, 3), f32(1, 2)),
        "input 2 of node 'it' (Conv) must be one number for each of 5 channels, not of shape (2,)",
    ),
    (it("Conv", x, weights(4, 3, 3), f32([np.inf] * 5)), "input 2 of node 'it' (Conv) must be finite, not inf"),
    (
        it("Conv", x, weights(4, 3, 3), x),
        "input 2 of node 'it' (Conv) must be a constant, not the dequantised tensor 'quantizelinear0_out'",
    ),
    (it("Conv", x, weights(4, 3, 3), f32([1e30] * 5)), "bias of node 'it' (Conv) must be below 2**62 products, not 5.00000029875476e+33"),
    (
        it("Conv", x, weights(4, 3, 3), kernel_shape=[3, 5]),
        "kernel_shape of node 'it' (Conv) must be that of its weights, [3, 3], not [3, 5]",
    ),
    (it("Conv", x, weights(4, 3, 3), strides=[0, 1]), "strides of node 'it' (Conv) must be 2 integers of at least 1, not [0, 1]"),
    (it("Conv", x, weights(4, 3, 3), dilations=[1]), "dilations of node 'it' (Conv) must be 2 integers of at least 1, not [1]"),
    (it("Conv", x, weights(4, 3, 3), pads=[0, 0, -1, 0]), "pads of node 'it' (Conv) must be 4 integers of at least 0, not [0, 0, -1, 0]"),
    (
        it("Conv", x, weights(4, 3, 3), auto_pad="SAME"),
        "auto_pad of node 'it' (Conv) must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, not SAME",
    ),
    (it("Conv", x, weights(4, 7, 3)), "window of node 'it' (Conv) must fit its padded input (6, 6), not exceed it with kernel (7, 3)"),
    (
        it("Conv", x, lambda model, x: model.weights(np.full((5, 4, 1, 1), -(2**31), np.int32), 0.01, 1)),
        "weights of node 'it' (Conv) must fit 32 bits once the zero point is subtracted, not -2147483649..-2147483649",
    ),
    (
        it("Gemm", flat, weights(144), transB=1, transA=1),
        "transA of node 'it' (Gemm) must be 0, not 1: it would turn the batch into channels",
    ),
    (it("Gemm", flat, weights(144), transB=1, alpha=-1.0), "alpha of node 'it' (Gemm) must be positive and finite, not -1.0"),
    (it("Gemm", flat, weights(144), transB=1, beta=float("inf")), "beta of node 'it' (Gemm) must be finite, not inf"),
    (it("Gemm", flat, weights(144)), "weights of node 'it' (Gemm) must have 144 input channels, not 5"),
    (it("MatMul", x, weights(144, filters=0)), "weights of node 'it' (MatMul) must have 2 axes and an element, not shape (144,)"),
    (it("MatMul", x, weights(6)), "input 0 of node 'it' (MatMul) must have 2 or 3 axes, not 4"),
    (it("Add", x, flat), "inputs of node 'it' (Add) must have one shape, not (4, 6, 6) and (144,)"),
    (it("Add", x, f32(np.ones((6, 6)))), "input 1 of node 'it' (Add) must be one number for each of 4 channels, not of shape (6, 6)"),
    (it("Add", np.ones(7, np.float32), flat), "input 0 of node 'it' (Add) must be one number for each of 144 channels, not of shape (7,)"),
    (
        it("Add", pooled, f32(1)),
        f"input 0 of node 'it' (Add) must be an activation from DequantizeLinear, or a product as it comes, not {MEAN}",
    ),
    (it("Add", draft, x), f"input 0 of node 'it' (Add) {ACTIVATION} {DRAFT}"),
    (it("Relu", f32(1, 2)), f"input 0 of node 'it' (Relu) {ACTIVATION} a constant"),
    (it("Relu", integers), f"input 0 of node 'it' (Relu) {ACTIVATION} the integer tensor 'quantizelinear2_out'"),
    (it("Clip", x, f32(1, 2)), "input 1 of node 'it' (Clip) must be one number, not [1.0, 2.0]"),
    (it("Clip", x, "", f32(np.nan)), "input 2 of node 'it' (Clip) must be one number, not nan"),
    (it("MaxPool", x, kernel_shape=[2, 2], storage_order=1), "storage_order of node 'it' (MaxPool) must be 0, not 1"),
    (it("MaxPool", x, kernel_shape=[2]), "kernel_shape of node 'it' (MaxPool) must be 2 integers of at least 1, not [2]"),
    (
        it("MaxPool", x, kernel_shape=[2, 2], pads=[2, 0, 0, 0]),
        "pads of node 'it' (MaxPool) must be smaller than its window, not [2, 0, 0, 0]",
    ),
    (
        it("MaxPool", x, kernel_shape=[2, 1], dilations=[7, 1], pads=[3, 0, 3, 0]),
        "dilations of node 'it' (MaxPool) must be at most its input's size (6, 6), not [7, 1]",
    ),
    (it("Flatten", x, axis=2), "axis of node 'it' (Flatten) must be 1, which keeps the batch, not 2"),
    (it("Flatten", f32([[1, 2]])), "input 0 of node 'it' (Flatten) must be an activation, not a constant"),
    (
        it("Reshape", x, np.array([1, -1])),
        "shape of node 'it' (Reshape) must keep the batch and hold 144 elements for each sample, not [1, -1]",
    ),
    (
        it("Reshape", x, np.array([0, 7, -1])),
        "shape of node 'it' (Reshape) must keep the batch and hold 144 elements for each sample, not [0, 7, -1]",
    ),
    (it("Reshape", x, np.array([-1])), "shape of node 'it' (Reshape) must be a constant of 2 to 4 int64, not [-1]"),
    (
        it("QuantizeLinear", draft, f32(0.1, 0.2), np.array([0, 0], np.uint8)),
        "scale of node 'it' (QuantizeLinear) must be one number for an activation, not of shape (2,)",
    ),
    (it("QuantizeLinear", x, f32(0.0), U0), "scale of node 'it' (QuantizeLinear) must be positive and finite, not 0.0"),
    (it("QuantizeLinear", x, f32(np.inf), U0), "scale of node 'it' (QuantizeLinear) must be positive and finite, not inf"),
    (it("QuantizeLinear", x, np.array(0.5, np.float16), U0), "scale of node 'it' (QuantizeLinear) must be float32, not float16"),
    (
        it("QuantizeLinear", x, x, U0),
        "input 1 of node 'it' (QuantizeLinear) must be a constant, not the dequantised tensor 'quantizelinear0_out'",
    ),
    (
        it("QuantizeLinear", x, f32(0.5), np.array([0, 0], np.uint8)),
        "zero point of node 'it' (QuantizeLinear) must be uint8 of shape (), not uint8 of shape (2,)",
    ),
    (
        it("QuantizeLinear", x, f32(0.5), np.array(0, np.int32)),
        "type of node 'it' (QuantizeLinear) must be one of uint4, int4, uint8, int8, uint16, int16, not int32",
    ),
    (
        it("QuantizeLinear", integers, f32(0.5), U0),
        "input 0 of node 'it' (QuantizeLinear) must be float32, not the integer tensor 'quantizelinear2_out'",
    ),
    (it("QuantizeLinear", f32(0.0, np.nan), f32(0.5), U0), "input 0 of node 'it' (QuantizeLinear) must be float32 without NaN, not float"),
    (
        it("DequantizeLinear", x, f32(0.5), U0),
        "input 0 of node 'it' (DequantizeLinear) must be quantised integers, not the dequantised tensor 'quantizelinear0_out'",
    ),
    (it("DequantizeLinear", f32(1.0), f32(0.5)), "input 0 of node 'it' (DequantizeLinear) must be quantised integers, not a constant"),
    (
        it("DequantizeLinear", integers, f32(0.4), np.array(3, np.uint8)),
        "scale and zero point of node 'it' (DequantizeLinear) must be those 'quantizelinear2_out' was quantised with, not others",
    ),
    (
        it("DequantizeLinear", integers, f32(0.5), np.array(3, np.int8)),
        "zero point of node 'it' (DequantizeLinear) must be uint8 of shape (), not int8 of shape ()",
    ),
    (
        it("DequantizeLinear", np.ones((2, 3), np.int8), f32(0.5, 0.25)),
        "scale of node 'it' (DequantizeLinear) must be one number or one for each element of axis 1 of (2, 3), not of shape (2,)",
    ),
    (it("Constant", value_string="text"), "value of node 'it' (Constant) must be numbers, not something else"),
]


@pytest.mark.parametrize(("build", "message"), CASES, ids=[message for _, message in CASES])
def test_nodes_are_refused(build, message):
    refused(build(), message)


def test_an_input_has_one_form():
    model = Model()
    model.output(model.fake(model.input("batch", 4), 0.02, 100))
    model.output(model.fake("x", 0.03, 100))
    refused(model, "graph input 'x' must have one scale and zero point, not those of 'quantizelinear0_out' and 'quantizelinear2_out'")


def test_shapes_have_a_limit():
    model = Model()
    model.output(model.fake(model.node("Relu", model.fake(model.input("batch", 1 << 31), 0.02, 100)), 0.03, 100))
    refused(model, "size of 'quantizelinear0_out' must be below 2147483648 elements for each sample, not 2147483648")


def test_one_output_only():
    model = Model()
    x = model.fake(model.input("batch", 4, 6, 6), 0.02, 100)
    model.nodes.append(helper.make_node("MaxPool", [x], ["y", "indices"], name="it", kernel_shape=[2, 2]))
    model.output(model.fake("y", 0.02, 100))
    refused(model, "node 'it' (MaxPool) must have one output, not 2")


def test_damaged_tensors_are_named():
    proto = linear().proto
    proto.graph.initializer[0].raw_data = b"12345678"
    with pytest.raises(NetworkError, match=r"^tensor 'constant0' must be well formed: cannot reshape array of size 2 into shape \(\)$"):
        network(proto, "test")


@pytest.mark.parametrize(("batch", "target"), [(2, [2, -1]), (2, [0, 144]), (1, [1, 4, 36]), ("batch", [-1, 144]), ("batch", [0, 0, 36])])
def test_reshape_keeps_a_symbolic_or_a_fixed_batch(batch, target):
    model = Model()
    x = model.fake(model.input(batch, 4, 6, 6), 0.02, 100)
    model.output(model.fake(model.node("Reshape", x, model.constant(target, np.int64)), 0.02, 100))
    network(model.proto, "test")


def test_a_constant_is_added_to_a_flattened_image_by_element():
    model = Model()
    x = model.node("Flatten", model.fake(model.input("batch", 2, 3, 3), 0.02, 100))
    model.output(model.fake(model.node("Add", x, model.constant(np.arange(18), np.float32)), 0.1, 0))
    view, addition = network(model.proto, "test").operators
    assert (view.kind, addition.kind) == ("Reshape", "Add")


def test_products_know_their_padding():
    """The zero point of the input, folded into the bias as well."""
    model = Model()
    x = model.fake(model.input("batch", 2, 3, 3), 0.02, 100)
    w = model.weights(np.arange(-6, 12, dtype=INT8).reshape(1, 2, 3, 3), 0.01)
    model.output(model.fake(model.node("Conv", x, w, pads=[1, 1, 1, 1]), 0.1, 0))
    (product,) = network(model.proto, "test").products
    assert isinstance(product, MatrixProduct)
    assert product.padding == -28
    assert product.bias is not None
    assert product.bias.tolist() == [28 * sum(range(-6, 12))]
