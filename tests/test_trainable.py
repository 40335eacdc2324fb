"""Networks as they are trained, beside onnxruntime's results of the float file, and what cannot be trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import accel
from accel.errors import ConfigError, NetworkError, RangeError
from accel.graph.files import builtin, trainable
from accel.graph.graph import Graph
from accel.graph.named import BUILDERS, DEPTH, HEADS, PATCH, WIDTH, resnet18
from accel.graph.trainable import (
    COMPUTED,
    Add,
    AveragePool,
    BatchNorm,
    Clip,
    Convolution,
    Layer,
    MaxPool,
    Move,
    Product,
    Relu,
    Trainable,
)
from accel.graph.window import Window
from accel.training import reference, step
from accel.training.data import read
from accel.verification.compare import run_onnxruntime
from reports.networks import zoo
from tests.qdq import Model

FIVE = ("resnet9", "vgg19", "vit", "resnet18", "resnet50")
Values = NDArray[np.float64]

# A naive twin: a network, layer by layer, in float64.


def windows(x: Values, window: Window, fill: float) -> Values:
    """Cut (n, h, w, c) into what each place sees: (n, rows, columns, kh, kw, c)."""
    top, left, bottom, right = window.pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    reach = [step * (size - 1) + 1 for step, size in zip(window.dilation, window.kernel, strict=True)]
    rows, columns = ((size - span) // stride + 1 for size, span, stride in zip(x.shape[1:3], reach, window.stride, strict=True))
    seen = np.empty((len(x), rows, columns, *window.kernel, x.shape[-1]))
    for row, column, i, j in np.ndindex(rows, columns, *window.kernel):
        at = row * window.stride[0] + i * window.dilation[0], column * window.stride[1] + j * window.dilation[1]
        seen[:, row, column, i, j] = x[:, at[0], at[1]]
    return seen


def computed(layer: Layer, network: Trainable, x: Values, *more: Values) -> Values:
    """Compute a layer of images (n, h, w, c)."""
    match layer:
        case Convolution(weights=weights, bias=bias):
            assert weights is not None
            assert weights.shape == layer.shape
            seen = windows(x, layer.window, 0.0)
            parts = zip(np.split(seen, layer.groups, axis=-1), np.split(weights, layer.groups), strict=True)
            y: Values = np.concatenate([np.tensordot(part, own.astype(np.float64), ((3, 4, 5), (1, 2, 3))) for part, own in parts], axis=-1)
            return y if bias is None else y + bias
        case BatchNorm():
            gamma, beta, centre, variance = (np.asarray(each, np.float64) for each in (layer.gamma, layer.beta, layer.mean, layer.variance))
            normal: Values = (x - centre) / np.sqrt(variance + layer.epsilon)
            return normal * gamma + beta
        case Relu():
            return np.maximum(x, 0)
        case Add():
            return x + more[0]
        case MaxPool():
            largest: Values = windows(x, layer.window, -np.inf).max(axis=(3, 4))
            return largest
        case AveragePool():
            inside = windows(np.ones_like(x[:1]), layer.window, 1.0 if layer.counted else 0.0).sum(axis=(3, 4))
            total: Values = windows(x, layer.window, 0.0).sum(axis=(3, 4))
            mean: Values = total / inside
            return mean
    raise AssertionError(layer)


def evaluate(network: Trainable, samples: NDArray[Any]) -> Values:
    """Logits of samples in ONNX's order."""
    values = {network.input: stored(network, samples)}
    for layer in network.layers:
        inputs = [values[name].reshape(-1, *network.image(name)) for name in layer.inputs]
        y = computed(layer, network, *inputs)
        assert y.shape[1:] == network.image(layer.output), layer.name
        values[layer.output] = y
    return values[network.output].reshape(len(samples), *network.shapes[network.output])


def stored(network: Trainable, samples: NDArray[Any]) -> Values:
    """Put samples in the order in which the network reads them."""
    shape = network.shapes[network.input]
    axes = network.axes or ((1, 2, 0) if len(shape) == 3 else range(len(shape)))
    moved = samples.transpose(0, *(axis + 1 for axis in axes))
    assert moved.shape[1:] == shape
    return moved.astype(np.float64)


def agree(network: Trainable, model: Any, samples: NDArray[np.float32], name: str = "x") -> None:
    """Compare with onnxruntime, sample by sample."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: it is the oracle")
    expected = np.concatenate([next(iter(run_onnxruntime(model, {name: each[None]}).values())) for each in samples])
    np.testing.assert_allclose(evaluate(network, samples), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def saved(model: Model, path: Path) -> Path:
    onnx.save(model.proto, path / "net.onnx")
    return path / "net.onnx"


def kinds(network: Trainable) -> dict[str, int]:
    return dict(Counter(type(layer).__name__ for layer in network.layers))


# Samples.


@pytest.mark.parametrize(("channels", "length"), [(3, 7), (6, 6), (7, 3)])
def test_samples_of_sequences_are_read_as_onnx_has_them(channels, length, tmp_path):
    """A sequence is stored (length, channels); where the two are equal, a sample is still (channels, length)."""
    model = Model()
    y = conv(model, model.input("n", channels, length), 4, channels, 3, pads=[1, 1])
    model.output(dense(model, model.node("Flatten", model.node("Relu", y)), 4 * length))
    path, x = saved(model, tmp_path), normal(5, channels, length)
    network = trainable(path)
    assert (network.axes, network.shapes["x"]) == ((1, 0), (length, channels))
    data = read({"x": x, "y": [0] * 5, "x_test": x, "y_test": [0] * 5}, network)
    np.testing.assert_array_equal(data.x, x.swapaxes(1, 2))
    agree(network, path, x)
    if channels != length:
        moved = {"x": x.swapaxes(1, 2), "y": [0] * 5, "x_test": x, "y_test": [0] * 5}
        assert read(moved, network).digest == data.digest
        np.testing.assert_array_equal(step.stored(network, x), data.x)
    with pytest.raises(RangeError, match=rf"^data: x must be of shape \(samples, {channels}, {length}\) for net, not \(5, 2, 2\)$"):
        read({"x": x[:, :2, :2], "y": [0] * 5}, network)


def test_samples_of_images_that_are_channels_last_in_the_file(tmp_path):
    """A file that begins with a Transpose takes its images channels last, where all extents are equal, too."""
    model = Model()
    y = conv(model, model.node("Transpose", model.input("n", 3, 3, 3), perm=[0, 3, 1, 2]), 4, 3, 3, 3)
    model.output(dense(model, model.node("Flatten", y), 4))
    x = normal(5, 3, 3, 3)
    network = trainable(saved(model, tmp_path))
    np.testing.assert_array_equal(read({"x": x, "y": [0] * 5, "x_test": x, "y_test": [0] * 5}, network).x, x)


def test_shared_weights_are_told(tmp_path):
    """One constant that several layers read is as many parameters."""
    model = Model()
    w = model.constant(normal(3, 3, 1, 1), name="w")
    y = model.node("Conv", model.node("Conv", model.input("n", 3, 4, 4), w, name="a"), w, name="b")
    model.output(dense(model, model.node("Flatten", y), 48))
    path = saved(model, tmp_path)
    with pytest.warns(UserWarning, match=r"^weights 'w' are shared by a, b: each is trained by itself$") as told:
        network = trainable(path)
    assert told[0].filename == __file__
    assert len(network.convolutions) == 3


# Named networks.


@pytest.mark.parametrize("name", [*FIVE, "resnet18-64", "mobilenetv2", "digits-cnn"])
def test_products_are_those_of_inference(name):
    network, quantised = trainable(name), accel.load(name)
    assert network.name == quantised.name == name
    products = {product.name: (product.reduction, product.filters, product.groups) for product in quantised.products}
    assert {layer.name: (layer.reduction, layer.filters, layer.groups) for layer in network.convolutions} == products
    assert {layer.name: network.image(layer.output) for layer in network.convolutions} == {
        product.name: quantised.tensors[product.output].image for product in quantised.products
    }


# Convolutions of the papers' networks have no bias where normalisation follows; sizes as in tests/test_named.py.
LAYERS = {
    "resnet9": {"Convolution": 9, "BatchNorm": 8, "Relu": 8, "MaxPool": 4, "Add": 2},
    "vgg19": {"Convolution": 17, "BatchNorm": 16, "Relu": 16, "MaxPool": 5},
    "resnet18": {"Convolution": 21, "BatchNorm": 20, "Relu": 17, "MaxPool": 1, "Add": 8, "AveragePool": 1},
    "resnet18-64": {"Convolution": 21, "BatchNorm": 20, "Relu": 17, "Add": 8, "AveragePool": 1},
    "resnet50": {"Convolution": 54, "BatchNorm": 53, "Relu": 49, "MaxPool": 1, "Add": 16, "AveragePool": 1},
    "mobilenetv2": {"Convolution": 53, "BatchNorm": 52, "Clip": 35, "Add": 10, "AveragePool": 1},
    "vit": {
        "Convolution": 2 + 6 * DEPTH, "Bias": 1, "LayerNorm": 1 + 2 * DEPTH, "Move": 1 + 4 * DEPTH, "Product": 2 * DEPTH,
        "Softmax": DEPTH, "Add": 2 * DEPTH, "Gelu": DEPTH,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_shapes_suffice(name):
    network = trainable(name)
    assert kinds(network) == LAYERS[name]
    assert all(layer.weights is None and layer.bias is None for layer in network.convolutions)
    assert [layer.biased for layer in network.convolutions].count(True) == (1 if name != "vit" else len(network.convolutions))
    assert len(network.shapes[network.output]) == 1
    assert repr(network) == f"<Trainable {name!r}: {len(network.layers)} layers, {len(network.shapes)} tensors>"


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("mobilenetv2", 3_504_872)])
def test_parameters_are_as_many_as_torchvisions(name, count):
    network = trainable(name)
    weights = sum(np.prod(layer.shape) + layer.biased * layer.filters for layer in network.convolutions)
    assert weights + sum(2 * network.shapes[layer.output][-1] for layer in network.layers if isinstance(layer, BatchNorm)) == count


def test_attention_is_products_of_activations():
    network = trainable("vit")
    tokens = (32 // PATCH) ** 2
    products = [(layer.count, layer.m, layer.k, layer.n) for layer in network.layers if isinstance(layer, Product)]
    assert products == [(HEADS, tokens, WIDTH // HEADS, tokens), (HEADS, tokens, tokens, WIDTH // HEADS)] * DEPTH
    assert [layer.mean for layer in network.layers if isinstance(layer, Move)] == [False] * 4 * DEPTH + [True]


def small(name: str) -> Graph:
    return resnet18(1, trained=True, size=32) if name == "resnet18-32" else BUILDERS[name](1, trained=True)


@pytest.mark.parametrize("name", ["resnet9", "vgg19", "resnet18-32"])
def test_named_networks_compute_what_onnxruntime_does(name, monkeypatch):
    monkeypatch.setitem(BUILDERS, "resnet18-32", lambda seed=None, *, trained=False: resnet18(seed, trained=trained, size=32))
    agree(trainable(name, seed=1), small(name).to_model(), normal(1, 3, 32, 32))


def test_a_seed_makes_weights_of_a_deviation_that_keeps_the_spread():
    network = trainable("resnet9", seed=3)
    for layer, before in zip(network.convolutions, ["x", *[None] * 8], strict=True):
        assert layer.weights is not None
        deviation = np.sqrt((1 if before else 2) / layer.reduction)  # He: 2 / fan-in behind a Relu
        assert 0.4 * deviation < layer.weights.std() < 1.1 * deviation
    first, other = (each.convolutions[0].weights for each in (network, trainable("resnet9", seed=4)))
    assert first is not None
    assert other is not None
    assert not np.array_equal(first, other)
    norm = next(layer for layer in network.layers if isinstance(layer, BatchNorm))
    assert [each is not None and set(each.tolist()) for each in (norm.gamma, norm.beta, norm.mean, norm.variance)] == [{1}, {0}, {0}, {1}]
    assert norm.epsilon == pytest.approx(1e-5)
    assert norm.momentum == pytest.approx(0.9)


# Files.


def test_digits_cnn():
    network = trainable("digits-cnn")
    assert [layer.name for layer in network.convolutions] == ["conv1", "conv2", "conv3", "conv4", "scores"]
    float_file = builtin()["digits-cnn"].with_suffix(".float.onnx")
    agree(network, float_file, normal(5, 1, 8, 8), "image")
    assert network.eligible() == {"conv2", "conv3", "conv4"}


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_zoo(name):
    x = zoo.sample(name).test[:8]
    network = trainable(zoo.FOLDER / f"{name}.onnx")
    agree(network, zoo.FOLDER / f"{name}.onnx", x, next(iter(onnx.load(zoo.FOLDER / f"{name}.onnx").graph.input)).name)
    values, statistics = reference.parameters(network, np.float64), reference.statistics(network)
    np.testing.assert_allclose(reference.infer(network, values, statistics, stored(network, x)), evaluate(network, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_quantised_files_come_back_to_float(name, form):
    """Classes are those of the float file; where the quantiser left out a Relu it is there again."""
    x, floats = zoo.sample(name).test[:64], trainable(zoo.FOLDER / f"{name}.onnx")
    with zoo.variant(name, form) as path:
        network = trainable(path)
    assert kinds(network) == kinds(floats)
    assert (evaluate(network, x).argmax(1) == evaluate(floats, x).argmax(1)).mean() >= 0.95


def test_quantised_digits_cnn():
    floats, network = trainable("digits-cnn"), trainable(builtin()["digits-cnn"])
    x = normal(20, 1, 8, 8)
    assert kinds(network) == kinds(floats)
    np.testing.assert_allclose(evaluate(network, x), evaluate(floats, x), atol=0.05 * np.abs(evaluate(floats, x)).max())


def test_what_qonnx_normalises_stays_apart():
    network = trainable(zoo.FOLDER / "narrow-residual.onnx")
    assert kinds(network) == {"Convolution": 5, "BatchNorm": 4, "Relu": 3, "Add": 1, "AveragePool": 1}


def test_transformer_of_a_file():
    network = trainable(zoo.FOLDER / "transformer.onnx")
    assert kinds(network) == {
        "Convolution": 10, "Move": 10, "Bias": 1, "LayerNorm": 5, "Product": 4, "Softmax": 2, "Add": 4, "Gelu": 2,
    }  # fmt: skip


# Operators.


def conv(model: Model, x: str, *shape: int, bias: bool = True, **attributes: Any) -> str:
    inputs = [model.constant(normal(*shape, seed=len(model.nodes)) / 4)]
    inputs += [model.constant(normal(shape[0], seed=len(model.nodes) + 100))] if bias else []
    return model.node("Conv", x, *inputs, **attributes)


def norm(model: Model, x: str, channels: int, **attributes: Any) -> str:
    rng = np.random.default_rng(len(model.nodes))
    rows = [rng.uniform(0.5, 2, channels), rng.standard_normal(channels), rng.standard_normal(channels), rng.uniform(0.5, 2, channels)]
    return model.node("BatchNormalization", x, *(model.constant(row, np.float32) for row in rows), **attributes)


def dense(model: Model, x: str, inputs: int, features: int = 5) -> str:
    return model.node("Gemm", x, model.constant(normal(inputs, features)), model.constant(normal(features)))


def windowed(model: Model) -> str:
    """Strides, unequal pads, dilation and groups."""
    y = norm(model, conv(model, model.input("n", 4, 11, 9), 8, 2, 3, 2, strides=[2, 1], pads=[2, 0, 1, 1], group=2), 8, epsilon=0.01)
    y = conv(model, model.node("Relu", y), 6, 8, 3, 3, dilations=[1, 2], pads=[1, 2, 1, 2], bias=False)
    y = conv(model, y, 6, 6, 2, 2, strides=[1, 2], auto_pad="SAME_UPPER")
    return dense(model, model.node("Flatten", y), 6 * 6 * 5)


def pooled(model: Model) -> str:
    """Windows that reach beyond the image, by ceil_mode and by pads that count or not."""
    y = model.node("MaxPool", model.input("n", 3, 10, 8), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    y = model.node("AveragePool", y, kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1)
    y = model.node("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 1, 0, 0], ceil_mode=1)
    return dense(model, model.node("Reshape", y, model.constant([-1, 3 * 3 * 3], np.int64)), 27)


def summed(model: Model) -> str:
    """Both ways to write a sum, a bias that is added, and largest elements of an image."""
    x = model.input("n", 3, 6, 6)
    a, b = conv(model, x, 4, 3, 1, 1, bias=False), conv(model, x, 4, 3, 3, 3, pads=[1, 1, 1, 1])
    a = model.node("Add", model.constant(normal(1, 4, 1, 1)), a)
    y = model.node("Sum", model.node("Relu", a), model.node("Clip", b, model.constant(0, np.float32)))
    y = model.node("Squeeze", model.node("GlobalMaxPool", y), model.constant([2, 3], np.int64))
    product = model.node("MatMul", y, model.constant(normal(4, 5)))
    return model.node("Add", model.constant(normal(5)), product)


def factored(model: Model) -> str:
    """Every factor of Gemm, normalised rows, and a loss's Softmax at the end."""
    y = model.node("Gemm", model.input("n", 6), model.constant(normal(8, 6)), model.constant(normal(1, 8)), transB=1, alpha=0.5, beta=2.0)
    y = model.node("Dropout", model.node("Relu", norm(model, y, 8)))
    y = model.node("Gemm", y, model.constant(normal(8, 5)), model.constant(np.float32(3)), alpha=2.0)
    return model.node("Identity", y)


def averaged(model: Model) -> str:
    """Mean over an image, as reductions write it, and a cast that changes nothing."""
    y = model.node("Relu", conv(model, model.input("n", 3, 5, 6), 7, 3, 2, 2))
    y = model.node("ReduceMean", y, axes=[2, 3], keepdims=0)
    return dense(model, model.node("Cast", y, to=onnx.TensorProto.FLOAT), 7)


def sequence(model: Model) -> str:
    """Windows along one axis."""
    y = model.node("Relu", norm(model, conv(model, model.input("n", 3, 17), 4, 3, 3, strides=[2], pads=[1, 0]), 4))
    y = model.node("MaxPool", y, kernel_shape=[2], strides=[2])
    return dense(model, model.node("Flatten", y), 16)


def flat(model: Model) -> str:
    """Take an image as rows from the start; a Relu in between leaves it an image."""
    y = model.node("Flatten", model.input("n", 2, 3, 4))
    y = dense(model, model.node("Relu", y), 24, 8)
    return dense(model, model.node("Relu", y), 8)


def last(model: Model) -> str:
    """Channels last, as some frameworks write images, transposed before and after a window."""
    y = model.node("Relu", conv(model, model.node("Transpose", model.input("n", 5, 6, 3), perm=[0, 3, 1, 2]), 4, 3, 2, 2))
    y = model.node("Transpose", model.node("Relu", model.node("Transpose", y, perm=[0, 2, 3, 1])), perm=[0, 3, 1, 2])
    y = model.node("Transpose", model.node("MaxPool", y, kernel_shape=[2, 2]), perm=[0, 2, 3, 1])
    return dense(model, model.node("Flatten", y), 48)


def convolved(model: Model) -> str:
    """Logits that are channels."""
    y = conv(model, model.node("Relu", conv(model, model.input("n", 3, 6, 6), 4, 3, 3, 3)), 5, 4, 1, 1)
    return model.node("Flatten", model.node("GlobalAveragePool", y))


@pytest.mark.parametrize("build", [windowed, pooled, summed, factored, averaged, sequence, flat, last, convolved])
def test_operators(build, tmp_path):
    model = Model()
    model.output(build(model))
    path = saved(model, tmp_path)
    sizes = [extent.dim_value for extent in model.inputs[0].type.tensor_type.shape.dim][1:]
    network = trainable(path)
    assert all(isinstance(layer, COMPUTED) for layer in network.layers)
    agree(network, path, normal(3, *sizes))


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_is_the_losss(kind, tmp_path):
    model = Model()
    model.output(model.node("Identity", model.node(kind, flat(model), axis=1)))
    network = trainable(saved(model, tmp_path))
    assert kinds(network) == {"Relu": 2, "Convolution": 2}
    assert [told.partition(" ")[2] for told in network.dropped] == [f"({kind})"]


@pytest.mark.parametrize(("opset", "outputs"), [(11, 5), (13, 5), (15, 3)])
def test_training_mode_is_read(opset, outputs, tmp_path):
    """Frameworks export a network in training mode with statistics as outputs that nothing reads."""
    model = Model(opset=opset)
    y = norm(model, conv(model, model.input(4, 2, 5, 5), 3, 2, 3, 3), 3, **({"training_mode": 1} if opset > 13 else {}))
    model.nodes[-1].output.extend([f"more{at}" for at in range(1, outputs)])
    y = model.node("Dropout", y, *([model.constant(np.float32(0.5)), model.constant(True)] if opset > 11 else []))
    model.output(model.node("Flatten", model.node("GlobalAveragePool", y)))
    network = trainable(saved(model, tmp_path))
    assert kinds(network) == {"Convolution": 1, "BatchNorm": 1, "AveragePool": 1}
    assert [told.partition(" ")[2] for told in network.dropped] == ["(Dropout)"]


def test_spelled_operators_are_put_together(tmp_path):
    model = Model()
    y = model.node("MatMul", model.input("n", 6, 8), model.constant(normal(8, 8)))
    erf = model.node("Erf", model.node("Div", y, model.constant(np.sqrt(2), np.float32)))
    y = model.node("Mul", model.node("Mul", y, model.node("Add", erf, model.constant(1, np.float32))), model.constant(0.5, np.float32))
    model.output(dense(model, model.node("ReduceMean", y, axes=[1], keepdims=0), 8))
    network = trainable(saved(model, tmp_path))
    assert [type(layer).__name__ for layer in network.layers] == ["Convolution", "Gelu", "Move", "Convolution"]
    assert [network.shapes[layer.output] for layer in network.layers] == [(6, 8), (6, 8), (8,), (5,)]


def test_a_merged_relu_is_there_again(tmp_path):
    model = Model()
    y = conv(model, model.fake(model.input("n", 2, 4, 4), 0.1, 128), 3, 2, 1, 1)
    y = model.fake(model.node("MaxPool", model.fake(y, 0.05), kernel_shape=[2, 2], strides=[2, 2]), 0.05)
    model.output(model.fake(dense(model, model.node("Flatten", y), 12), 0.1, 128))
    network = trainable(saved(model, tmp_path))
    assert [type(layer).__name__ for layer in network.layers] == ["Convolution", "Relu", "MaxPool", "Convolution"]


def test_relu6_is_counted(tmp_path):
    model = Model()
    y = model.node("Clip", conv(model, model.input("n", 2, 4, 4), 3, 2, 1, 1), model.constant(0, np.float32), model.constant(6, np.float32))
    model.output(dense(model, model.node("Flatten", y), 48))
    network = trainable(saved(model, tmp_path))
    (clip,) = (layer for layer in network.layers if isinstance(layer, Clip))
    assert clip.limit == 6
    assert not isinstance(clip, COMPUTED)


def test_concatenation_is_a_move():
    network = trainable(zoo.FOLDER / "inception.onnx")
    assert kinds(network) == {"Convolution": 16, "Relu": 15, "MaxPool": 3, "Move": 2, "AveragePool": 1}


# Front door.


def test_a_network_gives_what_is_trained():
    for source in ("resnet9", "digits-cnn", zoo.FOLDER / "narrow-plain.onnx"):
        network = accel.load(source)
        assert network.real is not None
        assert repr(network.real()) == repr(trainable(source))
        assert "real" not in repr(network)
    seeded = accel.load("resnet9", seed=5)
    assert seeded.real is not None
    np.testing.assert_array_equal(seeded.real().convolutions[0].weights, trainable("resnet9", seed=5).convolutions[0].weights)


def test_a_topology_is_not_trained():
    path = builtin()["digits-cnn"].parent / "resnet18.csv"
    assert accel.load(path).real is None
    rule = f"network that is trained must have tensors between its layers, not be a topology, {str(path)!r}"
    with pytest.raises(NetworkError, match=f"^{re.escape(rule)}$"):
        trainable(path)


def test_modules():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: it is optional")
    nn = torch.nn
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Dropout(0.5),
        nn.Conv2d(8, 6, 3, padding=1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5),
    )  # fmt: skip
    body(torch.randn(16, 3, 17, 17))  # statistics of its own
    x = torch.randn(3, 3, 17, 17)
    network = trainable(body, x)
    assert kinds(network) == {"Convolution": 3, "BatchNorm": 2, "Relu": 2, "MaxPool": 1, "AveragePool": 1}
    assert body.training
    body.eval()
    np.testing.assert_allclose(evaluate(network, x.numpy()), body(x).detach().numpy(), rtol=1e-4, atol=1e-5)


# What is refused.


def two_inputs(model: Model) -> str:
    model.input("n", 3, name="y")
    return model.node("Add", model.input("n", 3), "y")


def two_outputs(model: Model) -> str:
    y = model.node("Relu", model.input("n", 3))
    model.output(y)
    return dense(model, y, 3)


def unread(model: Model) -> str:
    y = norm(model, model.input("n", 3, 4, 4), 3, training_mode=1)
    model.nodes[-1].output.append("mean")
    model.nodes[-1].output.append("")
    model.output("mean")
    return y


def scaled(model: Model) -> str:
    return dense(model, model.node("Mul", model.input("n", 4), model.constant(0.5, np.float32), name="it"), 4)


def signs(model: Model) -> str:
    return model.node("Sign", model.input("n", 4), name="it")


def weights(model: Model) -> str:
    model.input("n", 2, name="w")
    return model.node("MatMul", model.input("n", 4), model.node("Transpose", "w", perm=[1, 0]), name="it")


KNOWN = (
    "Conv, Gemm, MatMul, BatchNormalization, Relu, Clip, Add, Sum, MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool, ReduceMean, "
    "Reshape, Flatten, Squeeze, Unsqueeze, Identity, Dropout, Cast, LayerNormalization, Gelu, Softmax, Mul, Div, Transpose, Concat, Split, "
    "Slice, Gather, Expand"
)
REFUSED: dict[str, tuple[Callable[[Model], str], str]] = {
    "operator": (signs, f"node 'it' (Sign) must be one of {KNOWN}, not Sign"),
    "inputs": (two_inputs, "network that is trained must have 1 input, not 2 (y, x)"),
    "outputs": (two_outputs, "network that is trained must have 1 output, not 2 (relu0_out, gemm1_out)"),
    "image": (
        lambda m: m.node("Relu", m.input("n", 3, 2, 2)),
        "output 'relu0_out' must be of shape (batch, classes) to train it, not (1, 3, 2, 2)",
    ),
    "statistics": (
        unread,
        "outputs of node 'batchnormalization0' (BatchNormalization) must be read up to the first to train the network, not mean too",
    ),
    "scale": (scaled, "node 'it' (Mul) must stand beside a product of activations, not scale what is trained"),
    "scales": (
        lambda m: dense(m, m.node("Mul", m.input("n", 4), m.constant(normal(4)), name="it"), 4),
        "factor of node 'it' (Mul) must be one number, not of shape (4,)",
    ),
    "gates": (
        lambda m: m.node("Mul", m.node("Relu", m.input("n", 4)), "x", name="it"),
        "input 1 of node 'it' (Mul) must be a constant, not an activation",
    ),
    "bounds": (
        lambda m: m.node("Clip", m.input("n", 4), m.constant(-1, np.float32), m.constant(1, np.float32), name="it"),
        "bounds of node 'it' (Clip) must be 0 and a number above, not -1 and 1",
    ),
    "volume": (
        lambda m: m.node("Flatten", conv(m, m.input("n", 1, 2, 2, 2), 2, 1, 2, 2, 2, name="it")),
        "input 0 of node 'it' (Conv) must be an image or a sequence of one sample, not of shape (1, 1, 2, 2, 2)",
    ),
    "transA": (
        lambda m: m.node("Gemm", m.input("n", 1), m.constant(normal(1, 3)), name="it", transA=1),
        "transA of node 'it' (Gemm) must be 0, not 1",
    ),
    "mean": (
        lambda m: m.node("Flatten", m.node("ReduceMean", m.input("n", 2, 3, 4), name="it", axes=[1], keepdims=0)),
        "axes of node 'it' (ReduceMean) must be those of an image or the rows of a sample, not [1] of 4",
    ),
    "broadcast": (
        lambda m: m.node("Flatten", m.node("Add", m.node("Relu", m.input("n", 3, 2, 2)), m.node("GlobalMaxPool", "x"), name="it")),
        "inputs of node 'it' (Add) must be of one shape, not (1, 3, 2, 2) and (1, 3, 1, 1)",
    ),
    "terms": (
        lambda m: m.node("Sum", m.node("Relu", m.input("n", 3)), "x", "x", name="it"),
        "inputs of node 'it' (Sum) must be 2, not 3",
    ),
    "ceil": (
        lambda m: m.node(
            "Flatten",
            m.node(
                "AveragePool",
                m.input("n", 1, 4, 4),
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
                ceil_mode=1,
                count_include_pad=1,
                name="it",
            ),
        ),
        "ceil_mode of node 'it' (AveragePool) must be 0 where padding counts, not 1",
    ),
    "softmax": (
        lambda m: dense(m, m.node("Flatten", m.node("Softmax", m.input("n", 2, 3), axis=1, name="it")), 6),
        "axis of node 'it' (Softmax) must be the last, not 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    build, rule = REFUSED[case]
    model = Model()
    model.output(build(model))
    path = saved(model, tmp_path)
    with pytest.raises(NetworkError, match=f"^{re.escape(f'{path}: {rule}')}$"):
        trainable(path)


def test_signs_are_refused():
    rule = r"levels of node '.*' \(QuantizeLinear\) must be 3 or more to train the network, not 2$"
    with pytest.raises(NetworkError, match=rule):
        trainable(zoo.FOLDER / "narrow-binary.onnx")


def test_integer_inputs_are_refused(tmp_path):
    model = Model()
    y = model.node("Cast", model.input("n", 4, kind=onnx.TensorProto.UINT8), to=onnx.TensorProto.FLOAT)
    model.output(dense(model, y, 4))
    path = saved(model, tmp_path)
    with pytest.raises(NetworkError, match=f"^{path}: input 'x' must be of floats to train the network, not of element type 2$"):
        trainable(path)


def test_the_source_is_checked_as_by_load(tmp_path):
    with pytest.raises(NetworkError, match=f"^{tmp_path / 'none.onnx'}: network must be an ONNX file or one of .*, not a missing file$"):
        trainable(tmp_path / "none.onnx")
    with pytest.raises(NetworkError, match=r"^network must be a path, a torch module or one of .*, not 3$"):
        trainable(3)
    with pytest.raises(ConfigError, match=r"^seed must be an int of 0 to 4294967295, not -1$"):
        trainable("vit", seed=-1)
