"""The networks of the SAT paper, and others, by name: their shapes, and weights drawn from a seed.

Each has two forms. As it is run it is an 8-bit quantised ONNX graph, as a quantiser would have written it: QuantizeLinear and
DequantizeLinear around float operators, symmetric weights, batch normalisation folded. Trained weights are not needed to count cycles or
to compare bits; so weights are drawn at random, and every scale follows from the spread that random operands would have. As it is trained
it is a float graph with BatchNormalization behind every convolution that has one in the paper, and weights of the deviation that keeps the
spread of activations (He et al., Delving deep into rectifiers, 2015, section 2.2). Shapes are those of the papers, unless said otherwise.

References
----------
.. [1] He et al., Deep residual learning for image recognition, 2015: ``resnet18``, ``resnet50``.
.. [2] Simonyan, Zisserman, Very deep convolutional networks, 2014, configuration E: ``vgg19``, with one linear layer for 32 x 32 images.
.. [3] Sandler et al., MobileNetV2, 2018: ``mobilenetv2``.
.. [4] Dosovitskiy et al., An image is worth 16x16 words, 2020: ``vit``.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from accel.graph.graph import Array, Given, Graph, Node

OPSET = 20  # the first with Gelu
SPREAD = 4.0  # our choice: standard deviations that a signed tensor holds on either side


@dataclass(frozen=True, slots=True)
class Signal:
    """A dequantised tensor.

    Parameters
    ----------
    name : str
    shape : tuple of int
        ONNX's, the batch (1) included.
    power : float
        Expected mean square.
    """

    name: str
    shape: tuple[int, ...]
    power: float = 1.0


@dataclass(slots=True)
class Writer:
    """Writes a graph layer by layer.

    Parameters
    ----------
    seed : int or None
        Of the weights. None: only their shapes are known.
    trained : bool
        Write the float form that is trained, not the quantised one.
    """

    seed: int | None
    trained: bool
    nodes: list[Node] = field(init=False, default_factory=list)
    constants: dict[str, Array] = field(init=False, default_factory=dict)
    drawn: itertools.count[int] = field(init=False, default_factory=itertools.count)  # numbers each drawing

    def constant(self, name: str, values: Any) -> str:
        """Store numbers; what bears one name is one constant."""
        stored = self.constants.setdefault(name, Array.of(values))
        assert np.array_equal(stored.values, values)
        return name

    def integers(self, name: str, values: list[int]) -> str:
        """Store a shape, axes or sizes."""
        return self.constant(name, np.array(values, np.int64))

    def node(self, kind: str, inputs: tuple[str, ...], name: str, **attributes: Any) -> str:
        """Add a node of one output, which bears its name."""
        self.nodes.append(Node(name, kind, inputs, (name,), attributes))
        return name

    def quantised(self, name: str, shape: tuple[int, ...], reach: float, power: float, *, signed: bool = True) -> Signal:
        """Round a real tensor to 8 bits, signed within +-`reach` or unsigned from 0 to `reach`; what is trained stays real."""
        if self.trained:
            return Signal(name, shape, power)
        scale = self.constant(f"{name}_scale", np.float32(reach / (127 if signed else 255)))
        zero = self.constant("int8_zero", np.int8(0)) if signed else self.constant("uint8_zero", np.uint8(0))
        self.node("QuantizeLinear", (name, scale, zero), f"{name}_q")
        return Signal(self.node("DequantizeLinear", (f"{name}_q", scale, zero), f"{name}_dq"), shape, power)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Draw standard normal numbers; None without a seed."""
        if self.seed is None:
            return None
        return np.random.default_rng((self.seed, next(self.drawn))).standard_normal(shape, np.float32)

    def parameter(self, name: str, shape: tuple[int, ...], deviation: float) -> str:
        """Draw float numbers of this standard deviation."""
        drawn = self.normal(shape)
        self.constants[name] = Array.unknown(shape) if drawn is None else Array.of(drawn * np.float32(deviation))
        return name

    def weights(self, name: str, shape: tuple[int, ...], deviation: float) -> str:
        """Draw weights of this standard deviation: int8, dequantised, or float ones to train."""
        if self.trained:
            return self.parameter(name, shape, deviation)
        drawn = self.normal(shape)
        if drawn is None:
            self.constants[name] = Array.unknown(shape, TensorProto.INT8)
        else:
            drawn *= 127 / SPREAD
            self.constants[name] = Array.of(np.rint(drawn, out=drawn).clip(-127, 127).astype(np.int8))
        scale = self.constant(f"{name}_scale", np.float32(deviation * SPREAD / 127))
        return self.node("DequantizeLinear", (name, scale, self.constant("int8_zero", np.int8(0))), f"{name}_dq")

    def bias(self, name: str, size: int) -> str:
        """Draw float addends of a tenth of a product's spread."""
        return self.parameter(name, (size,), 0.1)

    def normalisation(self, name: str, shape: tuple[int, ...]) -> str:
        """Normalise each channel of a result over the batch; its running statistics are those that random operands would have."""
        channels = shape[1]
        parts = (("gamma", 1), ("beta", 0), ("mean", 0), ("variance", 1))
        for part, value in parts:
            self.constants[f"{name}_{part}"] = (
                Array.unknown((channels,)) if self.seed is None else Array.of(np.full(channels, value, np.float32))
            )
        return self.node("BatchNormalization", (name, *(f"{name}_{part}" for part, _ in parts)), f"{name}_bn", epsilon=1e-5, momentum=0.9)

    def activated(self, name: str, shape: tuple[int, ...], power: float, activation: str) -> Signal:
        """Round a result of this power, after Relu, Relu6 or nothing."""
        deviation = math.sqrt(power)
        match activation:
            case "Relu":
                return self.quantised(self.node("Relu", (name,), f"{name}_relu"), shape, SPREAD * deviation, power / 2, signed=False)
            case "Relu6":
                ends = (self.constant("zero", np.float32(0)), self.constant("six", np.float32(6)))
                return self.quantised(
                    self.node("Clip", (name, *ends), f"{name}_relu6"), shape, min(SPREAD * deviation, 6.0), power / 2, signed=False
                )
        return self.quantised(name, shape, SPREAD * deviation, power)

    def convolution(
        self,
        x: Signal,
        name: str,
        filters: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: str = "Relu",
        normalised: bool = True,
    ) -> Signal:
        """Convolve with a square window, padded so that stride alone makes the output smaller; normalise, or add a bias."""
        _, channels, height, width = x.shape
        each = channels // groups
        deviation = 1 / math.sqrt(each * kernel * kernel * x.power)
        pad = (kernel - 1) // 2 if stride == 1 or kernel % 2 else 0
        apart = self.trained and normalised
        weights = self.weights(f"{name}_w", (filters, each, kernel, kernel), deviation)
        inputs = (x.name, weights) if apart else (x.name, weights, self.bias(f"{name}_b", filters))
        self.node(
            "Conv", inputs, name, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad] * 4, group=groups, dilations=[1, 1]
        )
        shape = (1, filters, *((size + 2 * pad - kernel) // stride + 1 for size in (height, width)))
        return self.activated(self.normalisation(name, shape) if apart else name, shape, 1.0, activation)

    def linear(self, x: Signal, name: str, features: int, *, activation: str = "", gain: float = 1.0) -> Signal:
        """Multiply the last axis by weights and add a bias."""
        deviation = gain / math.sqrt(x.shape[-1] * x.power)
        product = self.node("MatMul", (x.name, self.weights(f"{name}_w", (x.shape[-1], features), deviation)), f"{name}_matmul")
        self.node("Add", (product, self.bias(f"{name}_b", features)), name)
        return self.activated(name, (*x.shape[:-1], features), gain * gain, activation)

    def add(self, a: Signal, b: Signal, name: str, *, activation: str = "") -> Signal:
        """Add two tensors of one shape."""
        return self.activated(self.node("Add", (a.name, b.name), name), a.shape, a.power + b.power, activation)

    def max_pool(self, x: Signal, name: str, kernel: int, stride: int, pad: int = 0) -> Signal:
        """Take the largest of each square window; the form of the tensor stays."""
        _, channels, height, width = x.shape
        self.node("MaxPool", (x.name,), name, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad] * 4)
        places = [(size + 2 * pad - kernel) // stride + 1 for size in (height, width)]
        return self.quantised(name, (1, channels, *places), SPREAD * math.sqrt(2 * x.power), 2 * x.power, signed=False)

    def mean(self, x: Signal, name: str) -> Signal:
        """Average each channel over the image, flattened."""
        power = 0.64 * x.power  # of a Relu's result, the square of the mean is 2 / pi of the mean square
        self.node("GlobalAveragePool", (x.name,), name)
        pooled = self.quantised(name, (*x.shape[:2], 1, 1), 2 * math.sqrt(power), power, signed=False)
        return Signal(self.node("Flatten", (pooled.name,), f"{name}_flat", axis=1), x.shape[:2], power)

    def graph(self, name: str, shape: tuple[int, ...], output: Signal) -> Graph:
        """Finish: the network reads ``x``."""
        return Graph(
            name=name,
            opset=OPSET,
            nodes=tuple(self.nodes),
            constants=self.constants,
            inputs={"x": Given(TensorProto.FLOAT, shape)},
            outputs=(output.name,),
        )

    def image(self, size: int) -> Signal:
        """Read a colour image of unit spread."""
        return self.quantised("x", (1, 3, size, size), SPREAD, 1.0)


def resnet9(seed: int | None = None, *, trained: bool = False, classes: int = 10) -> Graph:
    """Write ResNet-9 as the field trains it on 32 x 32 images: two residual blocks between four convolutions."""
    w = Writer(seed, trained)
    x = w.convolution(w.image(32), "prep", 64)
    for stage, channels in enumerate((128, 256, 512), start=1):
        x = w.max_pool(w.convolution(x, f"layer{stage}", channels), f"pool{stage}", 2, 2)
        if stage != 2:
            inner = w.convolution(w.convolution(x, f"block{stage}a", channels), f"block{stage}b", channels)
            x = w.add(x, inner, f"sum{stage}")
    pooled = w.max_pool(x, "pool4", 4, 4)
    flat = Signal(w.node("Flatten", (pooled.name,), "flat", axis=1), (1, 512), pooled.power)
    return w.graph("resnet9", (1, 3, 32, 32), w.linear(flat, "classifier", classes))


def vgg19(seed: int | None = None, *, trained: bool = False, classes: int = 10) -> Graph:
    """Write VGG-19 for 32 x 32 images: sixteen convolutions, five poolings, one linear layer."""
    w = Writer(seed, trained)
    x = w.image(32)
    for stage, (channels, count) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)), start=1):
        for layer in range(1, count + 1):
            x = w.convolution(x, f"conv{stage}_{layer}", channels)
        x = w.max_pool(x, f"pool{stage}", 2, 2)
    flat = Signal(w.node("Flatten", (x.name,), "flat", axis=1), (1, 512), x.power)
    return w.graph("vgg19", (1, 3, 32, 32), w.linear(flat, "classifier", classes))


def _stem(w: Writer) -> Signal:
    """Write the first two layers of an ImageNet ResNet."""
    return w.max_pool(w.convolution(w.image(224), "conv1", 64, 7, 2), "maxpool", 3, 2, 1)


def resnet18(seed: int | None = None, *, trained: bool = False, size: int = 224, classes: int = 1000) -> Graph:
    """Write ResNet-18 for 224 x 224 images, or for smaller ones: a 3 x 3 stem of stride 1 and no pooling before the blocks."""
    w = Writer(seed, trained)
    x = _stem(w) if size == 224 else w.convolution(w.image(size), "conv1", 64)
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = w.convolution(w.convolution(x, f"{name}.conv1", channels, 3, stride), f"{name}.conv2", channels, activation="")
            short = w.convolution(x, f"{name}.downsample", channels, 1, stride, activation="") if stride > 1 else x
            x = w.add(inner, short, f"{name}.add", activation="Relu")
    name = "resnet18" if size == 224 else f"resnet18-{size}"
    return w.graph(name, (1, 3, size, size), w.linear(w.mean(x, "avgpool"), "fc", classes))


def resnet50(seed: int | None = None, *, trained: bool = False) -> Graph:
    """Write ResNet-50 for 224 x 224 images, the stride on the 3 x 3 convolution as in torchvision (v1.5)."""
    w = Writer(seed, trained)
    x = _stem(w)
    for stage, (channels, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = w.convolution(w.convolution(x, f"{name}.conv1", channels, 1), f"{name}.conv2", channels, 3, stride)
            inner = w.convolution(inner, f"{name}.conv3", 4 * channels, 1, activation="")
            short = w.convolution(x, f"{name}.downsample", 4 * channels, 1, stride, activation="") if block == 0 else x
            x = w.add(inner, short, f"{name}.add", activation="Relu")
    return w.graph("resnet50", (1, 3, 224, 224), w.linear(w.mean(x, "avgpool"), "fc", 1000))


_INVERTED = (  # MobileNetV2, table 2: expansion, channels, repetitions, stride
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenetv2(seed: int | None = None, *, trained: bool = False) -> Graph:
    """Write MobileNetV2 for 224 x 224 images, width 1."""
    w = Writer(seed, trained)
    x = w.convolution(w.image(224), "conv1", 32, 3, 2, activation="Relu6")
    blocks = (
        (expansion, channels, stride if first == 0 else 1) for expansion, channels, count, stride in _INVERTED for first in range(count)
    )
    for number, (expansion, channels, stride) in enumerate(blocks, start=1):
        hidden = x.shape[1] * expansion
        inner = w.convolution(x, f"block{number}.expand", hidden, 1, activation="Relu6") if expansion > 1 else x
        inner = w.convolution(inner, f"block{number}.depthwise", hidden, 3, stride, groups=hidden, activation="Relu6")
        inner = w.convolution(inner, f"block{number}.project", channels, 1, activation="")
        x = w.add(inner, x, f"block{number}.add") if inner.shape == x.shape else inner
    x = w.convolution(x, "conv2", 1280, 1, activation="Relu6")
    return w.graph("mobilenetv2", (1, 3, 224, 224), w.linear(w.mean(x, "avgpool"), "fc", 1000))


PATCH, WIDTH, DEPTH, HEADS, EXPANSION = 4, 384, 7, 6, 4  # our choice: the vision transformer for 32 x 32 images


def vit(seed: int | None = None, *, trained: bool = False) -> Graph:
    """Write a vision transformer for 32 x 32 images; its sizes, and the mean over tokens before the classifier, are our choice."""
    w = Writer(seed, trained)
    tokens = (32 // PATCH) ** 2
    patches = w.convolution(w.image(32), "patches", WIDTH, PATCH, PATCH, activation="", normalised=False)
    flat = w.node("Reshape", (patches.name, w.integers("patches_shape", [1, WIDTH, tokens])), "patches_flat")
    x = Signal(w.node("Transpose", (flat,), "tokens", perm=[0, 2, 1]), (1, tokens, WIDTH))
    x = w.activated(w.node("Add", (x.name, w.parameter("positions", (1, tokens, WIDTH), 0.1)), "embedded"), x.shape, 1.01, "")
    for block in range(DEPTH):
        x = w.add(x, _attention(w, _norm(w, x, f"block{block}.norm1"), f"block{block}.attention"), f"block{block}.add1")
        hidden = w.linear(_norm(w, x, f"block{block}.norm2"), f"block{block}.fc1", EXPANSION * WIDTH)
        gelu = w.node("Gelu", (hidden.name,), f"block{block}.gelu", approximate="none")
        hidden = w.quantised(gelu, hidden.shape, SPREAD, 0.43)  # of a normal operand, the mean square of Gelu
        x = w.add(x, w.linear(hidden, f"block{block}.fc2", WIDTH), f"block{block}.add2")
    x = _norm(w, x, "norm")
    w.node("ReduceMean", (x.name, w.integers("token_axis", [1])), "mean", keepdims=0)
    return w.graph("vit", (1, 3, 32, 32), w.linear(w.quantised("mean", (1, WIDTH), 2.0, 0.25), "head", 10))


def _norm(w: Writer, x: Signal, name: str) -> Signal:
    """Normalise each token."""
    gamma, beta = w.constant("gamma", np.ones(WIDTH, np.float32)), w.constant("beta", np.zeros(WIDTH, np.float32))
    w.node("LayerNormalization", (x.name, gamma, beta), name, axis=-1, epsilon=1e-6)
    return w.quantised(name, x.shape, SPREAD, 1.0)


def _attention(w: Writer, x: Signal, name: str) -> Signal:
    """Let every token look at all others, in several heads."""
    _, tokens, width = x.shape
    each = width // HEADS
    shape = w.integers("heads_shape", [1, tokens, HEADS, each])

    def head(part: str, perm: list[int]) -> str:
        linear = w.linear(x, f"{name}.{part}", width)
        return w.node("Transpose", (w.node("Reshape", (linear.name, shape), f"{name}.{part}_heads"),), f"{name}.{part}_moved", perm=perm)

    scores = w.node("MatMul", (head("q", [0, 2, 1, 3]), head("k", [0, 2, 3, 1])), f"{name}.scores")
    scaled = w.node("Mul", (scores, w.constant("score_factor", np.float32(1 / math.sqrt(each)))), f"{name}.scaled")
    logits = w.quantised(scaled, (1, HEADS, tokens, tokens), SPREAD, 1.0)
    weights = w.quantised(
        w.node("Softmax", (logits.name,), f"{name}.softmax", axis=-1), logits.shape, 255 / 256, math.e / tokens**2, signed=False
    )
    mixed = w.node("MatMul", (weights.name, head("v", [0, 2, 1, 3])), f"{name}.mixed")
    power = tokens * weights.power  # of the sum of `tokens` products of independent factors
    moved = w.quantised(mixed, (1, HEADS, tokens, each), SPREAD * math.sqrt(power), power)
    back = w.node("Transpose", (moved.name,), f"{name}.mixed_moved", perm=[0, 2, 1, 3])
    joined = w.node("Reshape", (back, w.integers("tokens_shape", [1, tokens, width])), f"{name}.joined")
    return w.linear(Signal(joined, x.shape, power), f"{name}.out", width)


class Build(Protocol):
    """Writes a network: `seed` of the weights, or shapes alone; `trained`: the float form that is trained."""

    def __call__(self, seed: int | None = None, *, trained: bool = False) -> Graph:
        """Write it."""


BUILDERS: dict[str, Build] = {
    "resnet9": resnet9,
    "vgg19": vgg19,
    "vit": vit,
    "resnet18": resnet18,
    "resnet18-64": partial(resnet18, size=64, classes=200),  # as for Tiny ImageNet, our choice
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
}
