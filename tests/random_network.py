"""Random small networks that use every operator and every option of it."""

from __future__ import annotations

import numpy as np

from accel.formats import Rounding
from accel.graph.network import (
    AveragePool,
    DynamicProduct,
    LayerNorm,
    Lookup,
    MatrixProduct,
    MaxPool,
    Move,
    Multiply,
    Network,
    Operator,
    Port,
    Softmax,
    Sum,
    Tensor,
    TransposedConvolution,
)
from accel.graph.window import Window

ARRAY = ("conv", "conv", "depthwise", "deconv", "dynamic", "add", "scale", "max", "average")
SPECIAL = ("multiply", "lookup", "move", "softmax", "norm")


def random_network(
    rng: np.random.Generator,
    operators: int = 5,
    bits: int = 8,
    weight_bits: int = 8,
    channels: int = 12,
    acc_bits: int = 32,
    kinds: tuple[str, ...] = ARRAY,
    wide: bool = True,
) -> Network:
    """Draw a network of that many random operators, a flattening and a linear layer.

    `channels` bounds those of each tensor; `wide` lets some weights need a bit more than `weight_bits`.
    """
    build = _Builder(rng, bits, weight_bits, channels, acc_bits, wide)
    for _ in range(operators):
        build.add(str(rng.choice(kinds)))
    build.flatten()
    build.conv(linear=True)
    first, last = build.names[0], build.names[-1]
    return Network(
        name="random", tensors=build.tensors, operators=tuple(build.operators),
        inputs=(Port(first, first, False),), outputs=(Port(last, last, False),),
    )  # fmt: skip


class _Builder:
    def __init__(self, rng, bits, weight_bits, channels, acc_bits, wide):
        self.wide = wide
        self.rng, self.bits, self.weight_bits, self.most, self.acc_bits = rng, bits, weight_bits, channels, acc_bits
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}
        self.names: list[str] = []
        self.tensor((int(rng.integers(3, 7)), int(rng.integers(3, 7)), int(rng.integers(1, channels + 1))))

    def integer(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def tensor(self, shape, bits=None):
        bits = bits or self.integer(max(2, self.bits - 2), self.bits)
        name = f"t{len(self.names)}"
        zero = self.integer(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.rng.random() < 0.5 else 0
        self.tensors[name] = Tensor(name=name, shape=shape, bits=bits, scale=0.1, zero_point=zero, unsigned=bool(self.rng.integers(2)))
        self.names.append(name)
        return self.tensors[name]

    def common(self, kind, source, shape, bits=None):
        """Fields of an operator that reads `source`, and those of its rounding."""
        out = self.tensor(shape, bits)
        lo = self.integer(out.format.lo, out.zero_point) if self.rng.random() < 0.5 else out.format.lo
        return {
            "name": f"{kind}{len(self.operators)}", "kind": kind, "inputs": (source.name,), "output": out.name,
            "zero_point": out.zero_point, "lo": lo, "hi": out.format.hi,
            "rounding": Rounding(self.rng.choice(["floor", "half_up", "half_even", "half_even"])),
        }  # fmt: skip

    def window(self, height, width):
        while True:
            window = Window(
                kernel=(self.integer(1, 3), self.integer(1, 3)), stride=(self.integer(1, 2), self.integer(1, 2)),
                dilation=(self.integer(1, 2), self.integer(1, 2)), pads=tuple(self.integer(0, 2) for _ in range(4)),
            )  # fmt: skip
            pads_inside = all(pad < kernel for pad, kernel in zip(window.pads, window.kernel * 2, strict=True))
            if pads_inside and min(window.positions(height, width)) >= 1:
                return window

    def add(self, kind):
        source = self.tensors[self.rng.choice(self.names[-2:])]
        called = {"add": self.sum, "scale": self.sum, "depthwise": self.conv}
        (called[kind] if kind in called else getattr(self, kind))(source=source, kind=kind)

    def weights(self, shape):
        """Weights that may need a bit more than there is, and may be mostly zeros."""
        top = 2 ** (self.weight_bits - 1) << int(self.wide and self.rng.random() < 0.3)
        weights = self.rng.integers(-top, top, shape)
        return (weights * (self.rng.random(shape) < self.rng.choice([0.2, 1.0]))).astype(np.int32)

    def conv(self, source=None, kind="conv", linear=False):
        source = source or self.tensors[self.names[-1]]
        height, width, channels = source.image
        window = Window() if linear else self.window(height, width)
        groups = channels if kind == "depthwise" else 1 if linear else self.groups(channels)
        filters = groups * self.integer(1, max(1, self.most // groups))
        top = 2 ** (self.weight_bits - 1)
        weights = self.weights((filters, *window.kernel, channels // groups))
        shape = (filters,) if len(source.shape) == 1 else (*window.positions(height, width), filters)
        spread = (window.taps * channels / groups) ** 0.5 * top
        fields = self.common("Gemm" if linear else "Conv", source, shape)
        self.operators.append(
            MatrixProduct(
                **fields, window=window, channels=channels, filters=filters, groups=groups,
                padding=source.zero_point, weights=weights, bias=self.rng.integers(-1000, 1001, filters),
                multiplier=self.rng.uniform(0.5, 4, filters) / spread,
            )
        )  # fmt: skip

    def groups(self, channels):
        groups = 1 if self.rng.random() < 0.7 else self.integer(1, channels)
        return groups if channels % groups == 0 else 1

    def deconv(self, source, kind):
        height, width, channels = source.image
        while True:
            window = Window(
                kernel=(self.integer(1, 3), self.integer(1, 3)), stride=(self.integer(1, 3), self.integer(1, 3)),
                dilation=(self.integer(1, 2), self.integer(1, 2)), pads=tuple(self.integer(0, 2) for _ in range(4)),
            )  # fmt: skip
            size = tuple(
                (extent - 1) * window.stride[i] + window.dilation[i] * (window.kernel[i] - 1) + 1 - window.pads[i] - window.pads[i + 2]
                + self.integer(0, window.stride[i] - 1) for i, extent in enumerate((height, width))
            )  # fmt: skip
            if min(size) >= 1 and max(size) <= 12:
                break
        groups = self.groups(channels)
        filters = groups * self.integer(1, max(1, self.most // groups))
        spread = (window.taps * channels / groups) ** 0.5 * 2 ** (self.weight_bits - 1)
        weights, bias = self.weights((filters, *window.kernel, channels // groups)), self.rng.integers(-100, 101, filters)
        folded = abs(source.zero_point) * np.abs(weights).reshape(filters, -1).sum(axis=1).max() + 100
        self.operators.append(
            TransposedConvolution(
                **self.common("ConvTranspose", source, (*size, filters)), window=window, size=size, channels=channels, filters=filters,
                groups=groups, input_zero=source.zero_point if folded < 1 << (self.acc_bits - 1) else 0, weights=weights, bias=bias,
                multiplier=self.rng.uniform(0.5, 4, filters) / spread,
            )
        )  # fmt: skip

    def dynamic(self, source, kind):
        """Multiply an image by itself, transposed, with no more bits in the second operand than weights have."""
        height, width, channels = source.image
        narrow = min(self.bits, self.weight_bits)
        self.scale(source, bits=narrow if source.bits > narrow else source.bits)
        second, transposed = self.tensors[self.names[-1]], bool(self.rng.integers(2))
        if not transposed:
            self.permute(second, (0, 2, 1))
            second = self.tensors[self.names[-1]]
        zero = source.zero_point
        reach = channels * max(second.zero_point - second.format.lo, second.format.hi - second.zero_point)
        fields = self.common("MatMul", source, (height, width, width)) | {"inputs": (source.name, second.name)}
        self.operators.append(
            DynamicProduct(
                **fields, zero_points=(zero if abs(zero) * reach < 1 << (self.acc_bits - 1) else 0, second.zero_point),
                multiplier=float(self.rng.uniform(0.5, 4)) / (channels**0.5 * 2 ** (second.bits - 1)), transposed=transposed,
            )
        )  # fmt: skip

    def move(self, source, kind):
        """Any elements of one or two tensors, and padding."""
        second = self.tensors[self.rng.choice(self.names)]
        shape = tuple(self.integer(1, 6) for _ in range(3))
        index = self.rng.integers(-1, source.size + second.size, shape)
        name = f"move{len(self.operators)}"
        out = self.tensor(shape, max(source.bits, second.bits))
        padding = self.integer(out.format.lo, out.format.hi)
        self.operators.append(
            Move(name=name, kind="Concat", inputs=(source.name, second.name), output=out.name, index=index, padding=padding)
        )

    def permute(self, source, axes):
        index = np.arange(source.size).reshape(source.shape).transpose(axes)
        out = self.tensor(index.shape, source.bits)
        self.tensors[out.name] = Tensor(name=out.name, shape=index.shape, bits=source.bits, scale=1.0, zero_point=source.zero_point)
        name = f"permute{len(self.operators)}"
        self.operators.append(Move(name=name, kind="Transpose", inputs=(source.name,), output=out.name, index=index))

    def multiply(self, source, kind):
        others = [t for t in self.tensors.values() if t.shape == source.shape]
        second = others[self.integer(0, len(others) - 1)]
        fields = self.common("Mul", source, source.shape) | {"inputs": (source.name, second.name)}
        multiplier = float(self.rng.uniform(0.5, 2)) / 2 ** (second.bits - 1)
        self.operators.append(Multiply(**fields, zero_points=(source.zero_point, second.zero_point), multiplier=multiplier))

    def lookup(self, source, kind):
        name = f"lookup{len(self.operators)}"
        out = self.tensor(source.shape)
        table = self.rng.integers(out.format.lo, out.format.hi + 1, 1 << source.bits)
        self.operators.append(Lookup(name=name, kind="Sigmoid", inputs=(source.name,), output=out.name, table=table))

    def softmax(self, source, kind):
        fields = self.common("Softmax", source, source.shape)
        logarithm = bool(self.rng.integers(2))
        scale = (8.0 if logarithm else 1.0) / 2**source.bits
        self.operators.append(Softmax(**fields, step=8.0 / 2**source.bits, scale=scale, logarithm=logarithm))

    def norm(self, source, kind):
        fields, size = self.common("LayerNormalization", source, source.shape), source.shape[-1]
        gamma, beta = self.rng.uniform(5, 20, size), self.rng.normal(0, 5, size)
        self.operators.append(LayerNorm(**fields, epsilon=1e-3, gamma=gamma, beta=beta))

    def scale(self, source, bits=None):
        fields = self.common("Relu", source, source.shape, bits)
        self.operators.append(Sum(**fields, zero_points=(source.zero_point,), multipliers=(float(self.rng.uniform(0.1, 1.5)),)))

    def sum(self, source, kind):
        others = [t for t in self.tensors.values() if t.shape == source.shape]
        sources = (source, others[self.integer(0, len(others) - 1)]) if kind == "add" else (source,)
        multipliers = tuple(float(m) for m in self.rng.uniform(0.1, 1.5, len(sources)) * self.rng.choice([1, 1, -1], len(sources)))
        fields = self.common("Add", source, source.shape) | {"inputs": tuple(t.name for t in sources)}
        self.operators.append(
            Sum(
                **fields, zero_points=tuple(t.zero_point for t in sources),
                multipliers=multipliers[:1] * len(sources) if self.rng.random() < 0.3 else multipliers,
                offset=self.rng.normal(0, 20, source.shape[-1]) if self.rng.random() < 0.3 else None,
                gain=self.rng.uniform(0.5, 2, source.shape[-1]) if self.rng.random() < 0.3 else None,
            )
        )  # fmt: skip

    def max(self, source, kind):
        window = self.window(*source.image[:2])
        fields = self.common("MaxPool", source, (*window.positions(*source.image[:2]), source.shape[-1]))
        self.operators.append(MaxPool(**fields, window=window, input_zero=source.zero_point, multiplier=float(self.rng.uniform(0.5, 1.5))))

    def average(self, source, kind):
        window = self.window(*source.image[:2])
        fields = self.common("AveragePool", source, (*window.positions(*source.image[:2]), source.shape[-1]))
        counted = window.pads if self.rng.random() < 0.5 else (0, 0, 0, 0)
        pool = AveragePool(
            **fields, window=window, counted=counted, input_zero=source.zero_point, multiplier=float(self.rng.uniform(0.5, 1.5))
        )
        if pool.counts(*source.image[:2]).min() == 0:  # only padding under a window has no mean
            del self.tensors[self.names.pop()]
            return
        self.operators.append(pool)

    def flatten(self):
        source = self.tensors[self.names[-1]]
        out = self.tensor((source.size,))
        self.tensors[out.name] = Tensor(
            name=out.name, shape=out.shape, bits=source.bits, scale=source.scale, zero_point=source.zero_point, unsigned=source.unsigned
        )
        index = np.arange(source.size).reshape(source.shape).transpose(2, 0, 1).ravel()
        self.operators.append(Move(name="flatten", kind="Flatten", inputs=(source.name,), output=out.name, index=index))
