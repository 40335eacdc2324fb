"""Random small networks that use every operator and every option of it."""

from __future__ import annotations

import numpy as np

from accel.graph.network import AveragePool, MatrixProduct, MaxPool, Network, Operator, Port, Sum, Tensor, View, Window


def random_network(rng: np.random.Generator, operators: int = 5, bits: int = 8, weight_bits: int = 8, channels: int = 12) -> Network:
    """Draw a network of that many random operators, a flattening and a linear layer; `channels` bounds those of each tensor."""
    build = _Builder(rng, bits, weight_bits, channels)
    for _ in range(operators):
        build.add(rng.choice(["conv", "conv", "add", "scale", "max", "average"]))
    build.flatten()
    build.conv(linear=True)
    first, last = build.names[0], build.names[-1]
    return Network(
        name="random", tensors=build.tensors, operators=tuple(build.operators),
        inputs=(Port(first, first, False),), outputs=(Port(last, last, False),),
    )  # fmt: skip


class _Builder:
    def __init__(self, rng, bits, weight_bits, channels):
        self.rng, self.bits, self.weight_bits, self.most = rng, bits, weight_bits, channels
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}
        self.names: list[str] = []
        self.tensor((int(rng.integers(3, 7)), int(rng.integers(3, 7)), int(rng.integers(1, channels + 1))))

    def integer(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def tensor(self, shape):
        bits = self.integer(max(2, self.bits - 2), self.bits)
        name = f"t{len(self.names)}"
        zero = self.integer(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.rng.random() < 0.5 else 0
        self.tensors[name] = Tensor(name=name, shape=shape, bits=bits, scale=0.1, zero_point=zero, unsigned=bool(self.rng.integers(2)))
        self.names.append(name)
        return self.tensors[name]

    def common(self, kind, source, shape):
        """Fields of an operator that reads `source`, and those of its rounding."""
        out = self.tensor(shape)
        lo = self.integer(out.format.lo, out.zero_point) if self.rng.random() < 0.5 else out.format.lo
        return {
            "name": f"{kind}{len(self.operators)}", "kind": kind, "inputs": (source.name,), "output": out.name,
            "zero_point": out.zero_point, "lo": lo, "hi": out.format.hi,
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
        {"conv": self.conv, "add": self.sum, "scale": self.sum, "max": self.max, "average": self.average}[kind](source=source, kind=kind)

    def conv(self, source=None, kind="conv", linear=False):
        source = source or self.tensors[self.names[-1]]
        height, width, channels = source.image
        window = Window() if linear else self.window(height, width)
        groups = 1 if linear or self.rng.random() < 0.7 else self.integer(1, channels)
        groups = groups if channels % groups == 0 else 1
        filters = groups * self.integer(1, max(1, self.most // groups))
        top = 2 ** (self.weight_bits - 1)
        weights = self.rng.integers(-top, top, (filters, *window.kernel, channels // groups))
        weights *= self.rng.random(weights.shape) < self.rng.choice([0.2, 1.0])
        shape = (filters,) if len(source.shape) == 1 else (*window.positions(height, width), filters)
        spread = (window.taps * channels / groups) ** 0.5 * top
        fields = self.common("Gemm" if linear else "Conv", source, shape)
        self.operators.append(
            MatrixProduct(
                **fields, window=window, channels=channels, filters=filters, groups=groups,
                padding=source.zero_point, weights=weights.astype(np.int32), bias=self.rng.integers(-1000, 1001, filters),
                multiplier=self.rng.uniform(0.5, 4, filters) / spread,
            )
        )  # fmt: skip

    def sum(self, source, kind):
        two = kind == "add"
        others = [t for t in self.tensors.values() if t.shape == source.shape]
        sources = (source, others[self.integer(0, len(others) - 1)]) if two else (source,)
        multipliers = tuple(float(m) for m in self.rng.uniform(0.1, 1.5, len(sources)))
        fields = self.common("Add" if two else "Relu", source, source.shape) | {"inputs": tuple(t.name for t in sources)}
        self.operators.append(
            Sum(
                **fields, zero_points=tuple(t.zero_point for t in sources),
                multipliers=multipliers[:1] * len(sources) if self.rng.random() < 0.3 else multipliers,
                offset=self.rng.normal(0, 20, source.shape[-1]) if self.rng.random() < 0.3 else None,
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
        self.operators.append(
            View(name="flatten", kind="Flatten", inputs=(source.name,), output=out.name, before=(2, 0, 1), shape=(source.size,), after=(0,))
        )
