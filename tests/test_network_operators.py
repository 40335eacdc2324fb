"""Every imported operator beside onnxruntime, one quantised node at a time, in plain loops.

Within one least significant bit of onnxruntime; and, with the accelerator's integer factors, bit for bit what the simulator computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import accel
from accel.config import AcceleratorConfig
from accel.graph.network import (
    AveragePool,
    Divide,
    DynamicProduct,
    Host,
    Lookup,
    MatrixProduct,
    MaxPool,
    Move,
    Multiply,
    Network,
    Sum,
    TransposedConvolution,
)
from accel.graph.onnx import network
from accel.verification.compare import differences, reference, run_onnxruntime
from tests.naive_network import APPROXIMATE, run, step, steps
from tests.qdq import Model, graph_of

CONFIG = AcceleratorConfig(weight_bits=9, mult_bits=24)  # unsigned weights lose a bit to their zero point
FORMS = {  # ways an activation may be quantised: dtype, zero point
    "uint8": (np.uint8, 117),
    "int8": (np.int8, 0),
    "int8 asymmetric": (np.int8, -23),
}


def compared(model: Model, batch: int = 3, seed: int = 0, worst: int = 1) -> Network:
    """Import and compare: operator by operator on onnxruntime's own inputs, then end to end, then the simulator."""
    proto = model.proto
    imported = network(graph_of(proto), "test")
    rng = np.random.default_rng(seed)
    inputs = {}
    for given in proto.graph.input:
        shape = (batch, *(extent.dim_value for extent in given.type.tensor_type.shape.dim[1:]))
        inputs[given.name] = rng.uniform(-2, 2, shape).astype(np.float32)
    expected = reference(imported, proto, inputs)
    start = {port.tensor: imported.tensors[port.tensor].quantise(inputs[port.name]) for port in imported.inputs}
    for name, integers in start.items():
        np.testing.assert_array_equal(integers, expected[name])
    for difference in differences(imported, expected, steps(imported, expected)):
        assert difference.worst <= worst, difference
        assert difference.differing <= max(2, 0.02 * difference.elements), difference  # ties in float32, nothing else
    values = run(imported, start)
    outputs = run_onnxruntime(proto, inputs, optimise=False)
    for port in imported.outputs:
        tensor = imported.tensors[port.tensor]
        reals = tensor.dequantise(values[port.tensor])
        assert reals.shape == outputs[port.name].shape
        assert np.abs(reals - outputs[port.name]).max() <= 2.01 * tensor.scale
    simulated = accel.simulate(imported, CONFIG, inputs, keep=True).tensors
    for operator in imported.operators:
        own = step(imported, operator, simulated, CONFIG)
        limit = 1 if isinstance(operator, APPROXIMATE) else 0
        assert np.abs(simulated[operator.output] - own).max() <= limit, operator
    return imported


def weights_of(rng: np.random.Generator, *shape: int, dtype=np.int8):
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape, dtype=dtype)


def convolution(
    shape=(None, 5, 9, 7), filters=6, kernel=(3, 3), form="uint8", channelwise=True, bias="int32", then=(), **attributes
) -> Model:
    """One convolution between quantisers."""
    rng = np.random.default_rng(filters)
    dtype, zero = FORMS[form]
    model = Model()
    x = model.fake(model.input(*("batch", *shape[1:])), 0.017, zero, dtype)
    scale = rng.uniform(0.003, 0.01, filters).astype(np.float32) if channelwise else np.float32(0.005)
    w = model.weights(weights_of(rng, filters, shape[1], *kernel), scale)
    inputs = [x, w]
    if bias == "int32":
        unit = (np.float32(0.017) * scale).astype(np.float32)
        inputs.append(model.weights(rng.integers(-9000, 9000, filters, dtype=np.int32), np.broadcast_to(unit, filters)))
    elif bias == "float":
        inputs.append(model.constant(rng.uniform(-1, 1, filters), np.float32))
    y = model.node("Conv", *inputs, **attributes)
    for kind in then:
        y = model.node(kind, y)
    model.output(model.fake(y, 0.06, zero, dtype))
    return model


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 0)])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("form", FORMS)
def test_conv_geometry(strides, dilations, pads, form):
    compared(convolution(form=form, strides=strides, dilations=dilations, pads=pads))


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_conv_auto_pad(mode, strides, kernel):
    compared(convolution(kernel=kernel, auto_pad=mode, strides=strides))


@pytest.mark.parametrize("bias", ["int32", "float", None])
@pytest.mark.parametrize("channelwise", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_conv_parameters(channelwise, bias, form):
    compared(convolution(channelwise=channelwise, bias=bias, form=form, pads=(1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("dtype", "zero", "kept"), [(np.uint8, 3, np.int16), (np.uint8, 128, np.int8), (np.int8, 5, np.int16), (np.int8, 0, np.int8)]
)
def test_weights_are_whole_once_the_zero_point_is_subtracted(dtype, zero, kept):
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    integers = weights_of(rng, 5, 4, 3, 3, dtype=dtype)
    integers[0, 0, 0, :2] = limits.min, limits.max
    model = Model()
    x = model.fake(model.input("batch", 4, 6, 6), 0.017, 117)
    model.output(model.fake(model.node("Conv", x, model.weights(integers, 0.005, zero)), 0.06, 100))
    (operator,) = compared(model).products
    assert operator.weights is not None
    assert operator.weights.dtype == kept
    assert (operator.weights.min(), operator.weights.max()) == (limits.min - zero, limits.max - zero)


@pytest.mark.parametrize(("groups", "filters"), [(2, 6), (3, 3), (6, 6), (6, 12)])
def test_conv_groups(groups, filters):
    rng = np.random.default_rng(7)
    model = Model()
    x = model.fake(model.input("batch", 6, 7, 7), 0.017, 117)
    w = model.weights(weights_of(rng, filters, 6 // groups, 3, 3), rng.uniform(0.003, 0.01, filters))
    model.output(model.fake(model.node("Conv", x, w, group=groups, pads=(1, 1, 1, 1)), 0.06, 110))
    (operator,) = compared(model).products
    assert operator.groups == groups


@pytest.mark.parametrize("then", [("Relu",), ("Identity",), ("Identity", "Relu")])
@pytest.mark.parametrize("form", FORMS)
def test_relu_merges_into_the_bounds(form, then):
    (operator,) = compared(convolution(form=form, then=then)).operators
    assert isinstance(operator, MatrixProduct)
    assert operator.lo == (operator.zero_point if "Relu" in then else -128)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.5), (None, 1.5), (-0.5, None), (-0.51, 6.0), (2.0, 1.0), (-np.inf, np.inf), (None, None)]
)
@pytest.mark.parametrize("form", FORMS)
def test_clip_merges_into_the_bounds(form, low, high):
    dtype, zero = FORMS[form]
    rng = np.random.default_rng(1)
    model = Model()
    x = model.fake(model.input("batch", 8), 0.017, zero, dtype)
    y = model.node("MatMul", x, model.weights(weights_of(rng, 8, 12), 0.003))
    bounds = ["" if bound is None else model.constant(bound, np.float32) for bound in (low, high)]
    model.output(model.fake(model.node("Clip", y, *bounds), 0.03, zero, dtype))
    (operator,) = compared(model, batch=40).operators
    assert isinstance(operator, MatrixProduct)


@pytest.mark.parametrize("kind", ["Relu", "Clip", "Identity"])
@pytest.mark.parametrize("scale", [0.017, 0.03, 0.0081])
@pytest.mark.parametrize("form", FORMS)
def test_pointwise_between_quantisers(form, scale, kind):
    dtype, zero = FORMS[form]
    model = Model()
    x = model.fake(model.input("batch", 4, 3, 5), 0.017, zero, dtype)
    y = model.node(kind, x, *([model.constant(-0.4, np.float32), model.constant(0.9, np.float32)] if kind == "Clip" else []))
    model.output(model.fake(y, scale, zero, dtype))
    imported = compared(model)
    if kind == "Identity" and scale == 0.017:
        assert not imported.operators  # the same integers
    else:
        assert [type(operator) for operator in imported.operators] == [Sum]


@pytest.mark.parametrize("channelwise", [True, False])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (1.7, -0.3), (1.0, 0.0)])
@pytest.mark.parametrize("addend", [(), (12,), (1, 12), (1, 1), None])
def test_gemm(alpha, beta, trans_b, channelwise, addend):
    rng = np.random.default_rng(2)
    model = Model()
    x = model.fake(model.input("batch", 20), 0.017, 117)
    scale = rng.uniform(0.002, 0.006, 12) if channelwise else 0.004
    w = model.weights(weights_of(rng, *((12, 20) if trans_b else (20, 12))), scale, axis=0 if trans_b else 1)
    c = [] if addend is None else [model.constant(rng.uniform(-1, 1, addend), np.float32)]
    y = model.node("Gemm", x, w, *c, transB=trans_b, alpha=alpha, beta=beta)
    model.output(model.fake(y, 0.03, 120))
    compared(model, batch=20)


@pytest.mark.parametrize("rows", [(), (7,)])
@pytest.mark.parametrize("addend", [None, "constant", "quantised"])
@pytest.mark.parametrize("form", FORMS)
def test_matmul(form, addend, rows):
    """A product and the addition of a constant after it are one operator."""
    dtype, zero = FORMS[form]
    rng = np.random.default_rng(3)
    model = Model()
    x = model.fake(model.input("batch", *rows, 20), 0.017, zero, dtype)
    y = model.node("MatMul", x, model.weights(weights_of(rng, 20, 12), rng.uniform(0.002, 0.006, 12), axis=1))
    if addend == "constant":
        y = model.node("Add", model.constant(rng.uniform(-1, 1, 12), np.float32), y)
    elif addend == "quantised":
        y = model.node("Add", y, model.weights(weights_of(rng, 12), 0.01))
    model.output(model.fake(model.node("Relu", y), 0.03, zero, dtype))
    imported = compared(model, batch=20)
    assert [type(operator) for operator in imported.operators] == [MatrixProduct]
    assert imported.gemm(imported.products[0], batch=2) == (2 * (rows or (1,))[0], 20, 12)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("other", FORMS)
@pytest.mark.parametrize("form", FORMS)
def test_residual_addition(form, other, relu):
    model = Model()
    source = model.input("batch", 4, 3, 5)
    x = model.fake(source, 0.017, *FORMS[form][::-1])
    y = model.fake(model.node("Relu", x), 0.0213, *FORMS[other][::-1])
    z = model.node("Add", x, y)
    model.output(model.fake(model.node("Relu", z) if relu else z, 0.03, *FORMS[other][::-1]))
    imported = compared(model)
    assert [len(operator.inputs) for operator in imported.operators] == [1, 2]


@pytest.mark.parametrize(
    ("shape", "addend"), [((4, 3, 5), (4, 1, 1)), ((4, 3, 5), (1, 4, 1, 1)), ((4, 3, 5), ()), ((6,), (6,)), ((3, 6), (6,))]
)
def test_addition_of_a_constant(shape, addend):
    rng = np.random.default_rng(4)
    model = Model()
    x = model.fake(model.input("batch", *shape), 0.017, 117)
    model.output(model.fake(model.node("Add", x, model.constant(rng.uniform(-1, 1, addend), np.float32)), 0.03, 110))
    (operator,) = compared(model, batch=30).operators
    assert isinstance(operator, Sum)
    assert operator.offset is not None


POOLS = [
    {"kernel_shape": (2, 2), "strides": (2, 2)},
    {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 2), "strides": (1, 3), "pads": (0, 1, 2, 0)},
    {"kernel_shape": (2, 2)},
    {"kernel_shape": (3, 3), "strides": (2, 2), "auto_pad": "SAME_UPPER"},
    {"kernel_shape": (2, 3), "strides": (2, 2), "auto_pad": "SAME_LOWER"},
    {"kernel_shape": (4, 3), "strides": (3, 3), "auto_pad": "VALID"},
    {"kernel_shape": (3, 3), "strides": (3, 3), "ceil_mode": 1},
    {"kernel_shape": (2, 2), "strides": (3, 2), "ceil_mode": 1, "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 3), "strides": (2, 4), "ceil_mode": 1, "pads": (1, 1, 1, 1)},
    {"kernel_shape": (1, 1), "strides": (2, 2), "ceil_mode": 1},
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_max_pool(form, pool):
    dtype, zero = FORMS[form]
    model = Model()
    x = model.fake(model.input("batch", 4, 10, 9), 0.017, zero, dtype)
    model.output(model.fake(model.node("MaxPool", x, **pool), 0.017, zero, dtype))
    (operator,) = compared(model, worst=0).operators
    assert isinstance(operator, MaxPool)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_max_pool_dilation(pads):
    model = Model()
    x = model.fake(model.input("batch", 4, 10, 9), 0.017, 117)
    model.output(model.fake(model.node("MaxPool", x, kernel_shape=(3, 2), dilations=(2, 3), pads=pads), 0.03, 117))
    compared(model)


@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_average_pool(form, pool, count_include_pad):
    dtype, zero = FORMS[form]
    model = Model(opset=19)
    x = model.fake(model.input("batch", 4, 10, 9), 0.017, zero, dtype)
    y = model.node("AveragePool", x, count_include_pad=count_include_pad, **pool)
    model.output(model.fake(y, 0.015, zero, dtype))
    (operator,) = compared(model).operators
    assert isinstance(operator, AveragePool)


@pytest.mark.parametrize("form", FORMS)
def test_global_average_pool_then_flatten(form):
    dtype, zero = FORMS[form]
    model = Model()
    x = model.fake(model.input("batch", 4, 5, 9), 0.017, zero, dtype)
    model.output(model.fake(model.node("Flatten", model.node("GlobalAveragePool", x)), 0.004, zero, dtype))
    imported = compared(model)
    assert [type(operator) for operator in imported.operators] == [AveragePool]
    assert imported.tensors[imported.outputs[0].tensor].shape == (4,)


@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("kind", ["Flatten", "Reshape"])
@pytest.mark.parametrize("shape", [(4, 3, 5), (6, 4)])
def test_linear_after_flatten_is_a_convolution(shape, kind, between):
    """Flattening an image moves nothing: the kernel takes the image's shape, channels innermost."""
    rng = np.random.default_rng(5)
    size = int(np.prod(shape))
    model = Model()
    x = model.fake(model.input("batch", *shape), 0.017, 117)
    x = model.node(kind, x, *([model.constant([0, -1], np.int64)] if kind == "Reshape" else []))
    x = model.fake(x, 0.017, 117) if between else x
    w = model.weights(weights_of(rng, 8, size), rng.uniform(0.002, 0.006, 8))
    model.output(model.fake(model.node("Gemm", x, w, transB=1), 0.05, 110))
    (operator,) = compared(model, batch=20).operators
    assert isinstance(operator, MatrixProduct)
    assert operator.window.kernel == ((3, 5) if len(shape) == 3 else (6, 1))
    assert operator.channels == 4


@pytest.mark.parametrize(
    ("shape", "target", "moved"),
    [((4, 3, 6), (-1, 6, 4, 3), (6, 4, 3)), ((4, 3, 6), (0, 0, 18), (4, 18)), ((72,), (-1, 4, 3, 6), (4, 3, 6)), ((4, 18), (0, -1), (72,))],
)
def test_reshape_moves_elements_in_onnx_order(shape, target, moved):
    model = Model()
    x = model.fake(model.input("batch", *shape), 0.017, 117)
    x = model.node("Reshape", x, model.constant(target, np.int64))
    model.output(model.fake(model.node("Relu", x), 0.02, 117))
    imported = compared(model)
    assert imported.tensors[imported.outputs[0].tensor].onnx_shape == moved


def test_reshape_of_the_input_comes_before_its_scale():
    rng = np.random.default_rng(6)
    model = Model()
    x = model.node("Reshape", model.input("batch", 60), model.constant([-1, 4, 3, 5], np.int64))
    w = model.weights(weights_of(rng, 6, 4, 3, 3), 0.004)
    model.output(model.fake(model.node("Conv", model.fake(x, 0.017, 117), w), 0.05, 110))
    imported = compared(model)
    assert [type(operator) for operator in imported.operators] == [Move, MatrixProduct]
    assert imported.tensors[imported.inputs[0].tensor].shape == (60,)


# Sequences, and convolutions that spread.


@pytest.mark.parametrize(
    "attributes", [{}, {"strides": [2], "pads": [1, 2]}, {"dilations": [2]}, {"auto_pad": "SAME_LOWER"}, {"group": 2}], ids=str
)
def test_conv_of_a_sequence(attributes):
    rng = np.random.default_rng(8)
    model = Model()
    x = model.fake(model.input("batch", 4, 15), 0.017, 117)
    w = model.weights(weights_of(rng, 6, 4 // attributes.get("group", 1), 3), rng.uniform(0.003, 0.01, 6))
    model.output(model.fake(model.node("Conv", x, w, model.constant(rng.uniform(-1, 1, 6), np.float32), **attributes), 0.06, 110))
    (operator,) = compared(model).operators
    assert isinstance(operator, MatrixProduct)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"])
def test_pool_of_a_sequence(kind):
    model = Model()
    x = model.fake(model.input("batch", 4, 15), 0.017, 117)
    attributes: dict[str, Any] = {} if kind.startswith("Global") else {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}
    model.output(model.fake(model.node(kind, x, **attributes), 0.015, 110))
    (operator,) = compared(model).operators
    assert isinstance(operator, MaxPool | AveragePool)


TRANSPOSED = [
    {},
    {"strides": [2, 3], "pads": [1, 0, 0, 1]},
    {"strides": [3, 2], "output_padding": [2, 1]},
    {"strides": [2, 2], "output_shape": [8, 5]},
    {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"strides": [3, 1], "auto_pad": "SAME_LOWER"},
    {"strides": [3, 2], "auto_pad": "VALID"},
    {"dilations": [2, 3]},
    {"strides": [2, 2], "dilations": [2, 1], "pads": [1, 1, 1, 1]},
]


@pytest.mark.parametrize("attributes", TRANSPOSED, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_transposed_convolution(form, attributes):
    dtype, zero = FORMS[form]
    rng = np.random.default_rng(9)
    model = Model()
    x = model.fake(model.input("batch", 5, 4, 3), 0.017, zero, dtype)
    w = model.weights(weights_of(rng, 5, 6, 3, 2), rng.uniform(0.003, 0.01, 6), axis=1)
    y = model.node("ConvTranspose", x, w, model.constant(rng.uniform(-1, 1, 6), np.float32), **attributes)
    model.output(model.fake(model.node("Relu", y), 0.06, zero, dtype))
    (operator,) = compared(model).operators
    assert isinstance(operator, TransposedConvolution)


@pytest.mark.parametrize("scale", ["one", "each"])
def test_transposed_convolution_in_groups_and_of_a_sequence(scale):
    rng = np.random.default_rng(10)
    model = Model()
    x = model.fake(model.input("batch", 6, 7), 0.017, 117)
    w = model.weights(weights_of(rng, 6, 4, 3), rng.uniform(0.003, 0.01, 4) if scale == "each" else 0.005, axis=1)
    model.output(model.fake(model.node("ConvTranspose", x, w, group=3, strides=[2], output_padding=[1]), 0.06, 110))
    (operator,) = compared(model).operators
    assert isinstance(operator, TransposedConvolution)
    assert (operator.groups, operator.filters) == (3, 12)


# Products.


@pytest.mark.parametrize("addend", [(20, 1), (20, 12), ()])
@pytest.mark.parametrize("alpha", [1.0, -0.7])
def test_gemm_of_constants_of_any_shape(alpha, addend):
    """An addend that differs within a column is not one of channels: the product is the host's."""
    rng = np.random.default_rng(11)
    model = Model()
    x = model.node("Reshape", model.fake(model.input("batch", 400), 0.017, 117), model.constant([20, 20], np.int64))
    w = model.weights(weights_of(rng, 20, 12), 0.004)
    y = model.node("Gemm", x, w, model.constant(rng.uniform(-1, 1, addend), np.float32), alpha=alpha)
    model.output(model.fake(model.node("Reshape", y, model.constant([1, 240], np.int64)), 0.03, 120))
    imported = compared(model, batch=1)
    assert {type(operator) for operator in imported.operators} <= {Move, Host if addend and addend[0] > 1 else MatrixProduct}


@pytest.mark.parametrize("shape", [(6, 20), (3, 5, 20), (2, 3, 5, 20)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_matmul_of_many_rows(side, shape):
    rng = np.random.default_rng(12)
    model = Model()
    x = model.fake(model.input("batch", *shape), 0.017, 117)
    if side == "right":
        y = model.node("MatMul", x, model.weights(weights_of(rng, 20, 12), rng.uniform(0.002, 0.006, 12), axis=1))
    else:
        y = model.node("MatMul", model.weights(weights_of(rng, 12, shape[-2]), rng.uniform(0.002, 0.006, 12), axis=0), x)
    model.output(model.fake(y, 0.03, 110))
    imported = compared(model)
    assert len(imported.products) == 1


@pytest.mark.parametrize("shape", [(20,), (1, 20, 7), (1, 1, 20, 7)])
def test_matmul_with_constants_of_other_axes(shape):
    rng = np.random.default_rng(20)
    model = Model()
    x = model.fake(model.input("batch", 5, 20), 0.017, 117)
    model.output(model.fake(model.node("MatMul", x, model.weights(weights_of(rng, *shape), 0.004)), 0.03, 110))
    product, *moves = compared(model, batch=1).operators
    assert isinstance(product, MatrixProduct)
    assert len(moves) == (len(shape) == 1)  # an output without the axis of its one channel


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_of_two_activations(trans_b, trans_a):
    model = Model()
    x, y = (model.fake(model.input("batch", 20, name=name), 0.017, 117) for name in "xy")
    x = model.node("Reshape", x, model.constant([5, 4] if trans_a else [4, 5], np.int64))
    y = model.node("Reshape", y, model.constant([4, 5] if trans_b else [5, 4], np.int64))
    z = model.node("Gemm", x, y, transA=trans_a, transB=trans_b, alpha=0.5)
    model.output(model.fake(model.node("Reshape", z, model.constant([1, 16], np.int64)), 0.03, 110))
    imported = compared(model, batch=1)
    assert [type(operator) for operator in imported.operators if not isinstance(operator, Move)] == [DynamicProduct]


ATTENTION = [((5, 8), (8, 6)), ((2, 5, 8), (2, 8, 6)), ((2, 1, 5, 8), (2, 3, 8, 6)), ((3, 5, 8), (1, 8, 6)), ((1, 8), (8, 6))]


@pytest.mark.parametrize(("a", "b"), ATTENTION, ids=str)
@pytest.mark.parametrize("scaled", [False, True])
def test_matmul_of_two_activations(scaled, a, b):
    model = Model()
    x = model.fake(model.input("batch", *a), 0.017, 117)
    y = model.fake(model.input("batch", *b, name="y"), 0.015, -7, np.int8)
    z = model.node("MatMul", x, y)
    if scaled:
        z = model.node("Mul", z, model.constant(0.25, np.float32))
    model.output(model.fake(z, 0.06, 110))
    imported = compared(model)
    assert [type(operator) for operator in imported.operators if not isinstance(operator, Move)] == [DynamicProduct]


def test_attention_moves_once_for_each_operand():
    """Heads are split, and keys transposed, by one Move each."""
    model = Model()
    shape = model.constant([0, 6, 2, 4], np.int64)
    q, k = (model.fake(model.input("batch", 6, 8, name=name), 0.017, 117) for name in "qk")
    q = model.node("Transpose", model.node("Reshape", q, shape), perm=[0, 2, 1, 3])
    k = model.node("Transpose", model.node("Reshape", k, shape), perm=[0, 2, 3, 1])
    model.output(model.fake(model.node("MatMul", q, k), 0.06, 110))
    assert [type(operator) for operator in compared(model).operators] == [Move, Move, DynamicProduct]


@pytest.mark.parametrize("zeros", [(), (117,), (117, 3)])
def test_matmul_integer(zeros):
    rng = np.random.default_rng(13)
    model = Model()
    x = model.quantise(model.input("batch", 7, 20), 0.017, 117)
    w = model.constant(weights_of(rng, 20, 12))
    y = model.node("MatMulInteger", x, w, *(model.constant(zero, dtype) for zero, dtype in zip(zeros, (np.uint8, np.int8), strict=False)))
    y = model.node("Mul", model.node("Cast", y, to=1), model.constant(rng.uniform(1e-4, 2e-4, 12), np.float32))
    model.output(model.fake(y, 0.03, 110))
    assert [type(operator) for operator in compared(model).operators] == [MatrixProduct]


def test_conv_integer():
    rng = np.random.default_rng(14)
    model = Model()
    x = model.quantise(model.input("batch", 4, 7, 6), 0.017, 117)
    w = model.constant(weights_of(rng, 5, 4, 3, 3, dtype=np.uint8))
    y = model.node("ConvInteger", x, w, model.constant(117, np.uint8), model.constant(120, np.uint8), pads=[1, 1, 1, 1])
    y = model.node("Mul", model.node("Cast", y, to=1), model.constant(1e-4, np.float32))
    model.output(model.fake(y, 0.03, 110))
    assert [type(operator) for operator in compared(model).operators] == [MatrixProduct]


# Element by element.


def normalisation(model: Model, rng: np.random.Generator, x: str, channels: int, signs: bool) -> str:
    gain = rng.uniform(0.5, 1.5, channels) * (rng.choice([-1, 1], channels) if signs else 1)
    rest = (rng.uniform(-0.5, 0.5, channels), rng.uniform(-0.5, 0.5, channels), rng.uniform(0.5, 2, channels))
    return model.node("BatchNormalization", x, *(model.constant(each, np.float32) for each in (gain, *rest)), epsilon=1e-3)


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_batch_normalisation_merges_into_the_product_before_it(form, signs):
    dtype, zero = FORMS[form]
    rng = np.random.default_rng(15)
    model = Model()
    x = model.fake(model.input("batch", 4, 7, 6), 0.017, zero, dtype)
    y = model.node("Conv", x, model.weights(weights_of(rng, 5, 4, 3, 3), 0.004), model.constant(rng.uniform(-1, 1, 5), np.float32))
    model.output(model.fake(model.node("Relu", normalisation(model, rng, y, 5, signs)), 0.03, zero, dtype))
    assert [type(operator) for operator in compared(model).operators] == [MatrixProduct]


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("shape", [(4, 7, 6), (4, 9), (4,)])
def test_batch_normalisation_alone(shape, signs):
    rng = np.random.default_rng(16)
    model = Model()
    x = model.fake(model.input("batch", *shape), 0.017, 117)
    model.output(model.fake(model.node("Relu", normalisation(model, rng, x, 4, signs)), 0.03, 100))
    *moves, operator = compared(model).operators
    assert len(moves) == (len(shape) == 2)  # the channels of a sequence come last
    assert isinstance(operator, MatrixProduct if signs else Sum)


UNARY = [
    ("Abs", {}),
    ("Ceil", {}),
    ("Celu", {"alpha": 0.7}),
    ("Elu", {"alpha": 0.7}),
    ("Erf", {}),
    ("Exp", {}),
    ("Floor", {}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", {}),
    ("LeakyRelu", {"alpha": 0.2}),
    ("Mish", {}),
    ("Neg", {}),
    ("Round", {}),
    ("Selu", {}),
    ("Sigmoid", {}),
    ("Sign", {}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Tanh", {}),
    ("ThresholdedRelu", {"alpha": 0.3}),
]


@pytest.mark.parametrize(("kind", "attributes"), UNARY, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_functions_of_one_element(form, kind, attributes):
    dtype, zero = FORMS[form]
    model = Model(opset=20)
    x = model.fake(model.input("batch", 5, 8), 0.017, zero, dtype)
    model.output(model.fake(model.node(kind, x, **attributes), 0.02, zero, dtype))
    (operator,) = compared(model, batch=20).operators
    assert isinstance(operator, Lookup)


@pytest.mark.parametrize("kind", ["Sqrt", "Log", "Reciprocal"])
def test_functions_of_positive_elements(kind):
    model = Model()
    x = model.node("Clip", model.fake(model.input("batch", 5, 8), 0.017, 117), model.constant(0.05, np.float32))
    model.output(model.fake(model.node(kind, x), 0.1, 90))
    (operator,) = compared(model, batch=20).operators
    assert isinstance(operator, Lookup)


CHAINS = {
    "swish": lambda m, x: m.node("Mul", x, m.node("Sigmoid", x)),
    "gelu": lambda m, x: m.node(
        "Mul", m.node("Mul", x, number(m, 0.5)), m.node("Add", m.node("Erf", m.node("Div", x, number(m, 2**0.5))), number(m, 1))
    ),
    "hard swish": lambda m, x: m.node(
        "Div", m.node("Mul", x, m.node("Clip", m.node("Add", x, number(m, 3)), number(m, 0), number(m, 6))), number(m, 6)
    ),
    "square": lambda m, x: m.node("Pow", x, number(m, 2)),
    "cube": lambda m, x: m.node("Mul", x, m.node("Mul", x, x)),
    "power of": lambda m, x: m.node("Pow", number(m, 2), x),
    "over": lambda m, x: m.node("Div", number(m, 1), m.node("Add", m.node("Abs", x), number(m, 1))),
    "less": lambda m, x: m.node("Sub", number(m, 0.3), x),
    "minus": lambda m, x: m.node("Sub", x, number(m, 0.3)),
    "bounds": lambda m, x: m.node("Max", m.node("Min", x, number(m, 0.4)), m.constant([-0.4], np.float32)),
    "scaled bounds": lambda m, x: m.node("Mul", m.node("Relu", m.node("Sub", x, number(m, 0.2))), number(m, -1.5)),
    "slope": lambda m, x: m.node("PRelu", x, m.constant([0.25], np.float32)),
    "exact": lambda m, x: m.node("Pow", x, number(m, 1)),
}


def number(model: Model, value: float) -> str:
    return model.constant(value, np.float32)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("form", FORMS)
def test_a_chain_on_one_tensor_is_one_operator(form, name):
    dtype, zero = FORMS[form]
    model = Model()
    x = model.fake(model.input("batch", 3, 4, 5), 0.017, zero, dtype)
    model.output(model.fake(CHAINS[name](model, x), 0.02, zero, dtype))
    (operator,) = compared(model, batch=10).operators
    assert isinstance(operator, Lookup | Sum)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 1, 5), (4, 3, 5), (1, 1, 1, 1)])
@pytest.mark.parametrize("first", [False, True])
def test_constants_of_any_shape(first, shape, kind):
    """A constant for each element is one for each channel of a flat tensor; one divided by a tensor is the host's, but for a number."""
    rng = np.random.default_rng(17)
    model = Model()
    x = model.fake(model.input("batch", 4, 3, 5), 0.017, 117)
    if kind == "Div":
        x = model.node("Clip", x, number(model, 0.1))
        x = model.fake(x, 0.017, 117)
    c = model.constant(rng.uniform(0.3, 1.5, shape), np.float32)
    model.output(model.fake(model.node(kind, *((c, x) if first else (x, c))), 0.05, 100))
    compared(model, batch=10)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize(
    ("a", "b"), [((4, 3, 5), (4, 3, 5)), ((4, 3, 5), (4, 1, 1)), ((1, 3, 1), (4, 3, 5)), ((3, 1), (1, 5)), ((6,), (6,))]
)
def test_two_tensors(a, b, kind):
    model = Model()
    x = model.fake(model.input("batch", *a), 0.017, 117)
    y = model.fake(model.input("batch", *b, name="y"), 0.015, 3, np.int8)
    if kind == "Div":
        y = model.fake(model.node("Clip", y, number(model, 0.2)), 0.015, 3, np.int8)
    model.output(model.fake(model.node("Relu", model.node(kind, x, y)), 0.06, 20))
    wanted = {"Add": Sum, "Sub": Sum, "Mul": Multiply, "Div": Divide}[kind]
    assert wanted in {type(operator) for operator in compared(model, batch=5).operators}


def test_tensors_that_lie_differently_are_added():
    """One of them moves to where the other lies."""
    model = Model()
    x = model.fake(model.input("batch", 4, 3, 5), 0.017, 117)
    y = model.fake(model.input("batch", 5, 12, name="y"), 0.015, 3, np.int8)
    y = model.node("Reshape", model.node("Transpose", y, perm=[0, 2, 1]), model.constant([0, 4, 3, 5], np.int64))
    model.output(model.fake(model.node("Add", x, y), 0.03, 20))
    assert [type(operator) for operator in compared(model).operators] == [Move, Sum]


@pytest.mark.parametrize("gain", [1.5, -1.5, "channels"])
def test_a_sum_is_scaled(gain):
    model = Model()
    x = model.fake(model.input("batch", 4, 3, 5), 0.017, 117)
    y = model.fake(model.input("batch", 4, 3, 5, name="y"), 0.015, 3, np.int8)
    c = np.linspace(0.5, 2, 4).reshape(4, 1, 1) if gain == "channels" else gain
    z = model.node("Add", model.node("Mul", model.node("Sub", x, y), model.constant(c, np.float32)), number(model, 0.1))
    model.output(model.fake(z, 0.05, 100))
    (operator,) = compared(model).operators
    assert isinstance(operator, Sum if gain != -1.5 else Host)


@pytest.mark.parametrize("kind", ["GlobalMaxPool", "MaxPool"])
def test_the_largest_integer(kind):
    """Of integers, as of the reals they stand for."""
    model = Model()
    x = model.quantise(model.input("batch", 4, 6, 6), 0.017, 117)
    if kind == "MaxPool":
        y = model.dequantise(model.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 0.017, 117)
    else:
        y = model.node(kind, model.dequantise(x, 0.017, 117))
    model.output(model.fake(y, 0.017, 117))
    assert [type(operator) for operator in compared(model).operators] == [MaxPool]


def test_what_loses_nothing_by_being_rounded_needs_no_quantiser():
    """The largest of some elements is one of them, and so is what Relu leaves of them, or 0: products take them as they are."""
    rng = np.random.default_rng(18)
    model = Model()
    x = model.fake(model.input("batch", 4, 6, 6), 0.017, 117)
    x = model.node("Relu", model.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    y = model.node("Conv", x, model.weights(weights_of(rng, 5, 4, 3, 3), 0.004))
    model.output(model.fake(model.node("Flatten", y), 0.03, 100))
    assert [type(operator) for operator in compared(model).operators] == [MaxPool, MatrixProduct]


def test_constants_for_each_element_are_flat_no_further_than_they_must():
    """Position embeddings: the addition is of a flat tensor, what follows is not."""
    rng = np.random.default_rng(19)
    model = Model()
    x = model.fake(model.input("batch", 4, 6), 0.017, 117)
    y = model.fake(model.node("Add", x, model.constant(rng.uniform(-1, 1, (4, 6)), np.float32)), 0.03, 110)
    model.output(model.fake(model.node("Add", y, x), 0.05, 110))
    assert [type(operator) for operator in compared(model).operators] == [Move, Sum, Move, Sum]


@pytest.mark.parametrize("kind", ["Sigmoid", "Exp", "Log", "Neg"])
def test_what_is_not_a_number_is_the_zero_point(kind):
    """0 / 0, in a table made by units or without."""
    model = Model()
    x = model.fake(model.input("batch", 4), 0.017, 117)
    model.output(model.fake(model.node(kind, model.node("Div", x, x)), 0.03, 7))
    (operator,) = network(model.graph, "test").operators
    assert isinstance(operator, Lookup)
    assert operator.table[117] == 7 - 128
    assert len(set(np.delete(operator.table, 117).tolist())) == 1
