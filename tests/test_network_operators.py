"""Every imported operator beside onnxruntime, one quantised node at a time, in plain loops.

Within one least significant bit of onnxruntime; and, with the accelerator's integer factors, bit for bit what the simulator computes.
"""

from __future__ import annotations

import numpy as np
import pytest

import accel
from accel.cli.verify import differences, reference, run_onnxruntime
from accel.config import AcceleratorConfig
from accel.graph.network import AveragePool, MatrixProduct, MaxPool, Move, Network, Sum
from accel.graph.onnx import network
from tests.naive_network import run, steps
from tests.qdq import Model

CONFIG = AcceleratorConfig(weight_bits=9, mult_bits=24)  # unsigned weights lose a bit to their zero point
FORMS = {  # ways an activation may be quantised: dtype, zero point
    "uint8": (np.uint8, 117),
    "int8": (np.int8, 0),
    "int8 asymmetric": (np.int8, -23),
}


def compared(model: Model, batch: int = 3, seed: int = 0, worst: int = 1) -> Network:
    """Import and compare: operator by operator on onnxruntime's own inputs, then end to end, then the simulator."""
    proto = model.proto
    imported = network(proto, "test")
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
    exact = run(imported, start, CONFIG)
    for name, integers in accel.simulate(imported, CONFIG, inputs, keep=True).tensors.items():
        np.testing.assert_array_equal(integers, exact[name], name)
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
