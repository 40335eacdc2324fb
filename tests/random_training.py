"""Random small networks as they are trained, with every layer and every option of it."""

from __future__ import annotations

import numpy as np

from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable
from accel.graph.window import Window, image

Shape = tuple[int, ...]


class Builder:
    """Writes a network layer by layer; each method returns the name of the tensor that it adds."""

    def __init__(self, shape: Shape) -> None:
        self.shapes: dict[str, Shape] = {"x": shape}
        self.layers: list[Layer] = []

    def add(self, layer: Layer, shape: Shape) -> str:
        """Add any layer."""
        self.layers.append(layer)
        self.shapes[layer.output] = shape
        return layer.output

    def convolution(self, x: str, name: str, filters: int, window: Window, *, groups: int = 1, biased: bool = False) -> str:
        """Add a convolution."""
        height, width, channels = image(self.shapes[x])
        layer = Convolution(
            name=name, inputs=(x,), output=f"{name}.y", window=window, channels=channels, filters=filters, groups=groups, biased=biased
        )
        return self.add(layer, (*window.positions(height, width), filters))

    def linear(self, x: str, name: str, features: int, *, biased: bool = True) -> str:
        """Add a linear layer on an image."""
        height, width, channels = image(self.shapes[x])
        window = Window(kernel=(height, width))
        layer = Convolution(
            name=name, inputs=(x,), output=f"{name}.y", window=window, channels=channels, filters=features, linear=True, biased=biased
        )
        return self.add(layer, (features,))

    def norm(self, x: str, name: str, epsilon: float = 1e-5) -> str:
        """Add a batch normalisation."""
        return self.add(BatchNorm(name=name, inputs=(x,), output=f"{name}.y", epsilon=epsilon), self.shapes[x])

    def relu(self, x: str, name: str) -> str:
        """Add a ReLU."""
        return self.add(Relu(name=name, inputs=(x,), output=f"{name}.y"), self.shapes[x])

    def sum(self, a: str, b: str, name: str) -> str:
        """Add a sum."""
        return self.add(Add(name=name, inputs=(a, b), output=f"{name}.y"), self.shapes[a])

    def max_pool(self, x: str, name: str, window: Window) -> str:
        """Add a max pooling."""
        height, width, channels = image(self.shapes[x])
        return self.add(MaxPool(name=name, inputs=(x,), output=f"{name}.y", window=window), (*window.positions(height, width), channels))

    def average_pool(self, x: str, name: str, window: Window, *, counted: bool = False) -> str:
        """Add an average pooling."""
        height, width, channels = image(self.shapes[x])
        layer = AveragePool(name=name, inputs=(x,), output=f"{name}.y", window=window, counted=counted)
        return self.add(layer, (*window.positions(height, width), channels))

    def network(self, name: str = "random") -> Trainable:
        """Return the network; its last layer makes the logits."""
        return Trainable(name=name, shapes=self.shapes, layers=tuple(self.layers), input="x", output=self.layers[-1].output)


def random_trainable(rng: np.random.Generator, layers: int = 5, size: int = 5, channels: int = 6) -> Trainable:
    """Draw a network: `layers` layers or blocks on images of at most `size`, then a linear layer."""
    b = Builder((int(rng.integers(2, size + 1)), int(rng.integers(2, size + 1)), int(rng.integers(1, 4))))
    x = "x"
    for number in range(layers):
        kind = rng.choice(["convolution", "convolution", "grouped", "norm", "relu", "max", "average", "residual", "fork"])
        name = f"{kind}{number}"
        height, width, now = image(b.shapes[x])
        match kind:
            case "convolution":
                x = b.convolution(x, name, int(rng.integers(1, channels + 1)), _window(rng, height, width), biased=bool(rng.integers(2)))
            case "grouped":
                groups = next(each for each in (int(rng.integers(2, 5)), 2, 3, 1) if now % each == 0)
                filters = groups * int(rng.integers(1, 4))
                x = b.convolution(x, name, filters, _window(rng, height, width), groups=groups, biased=bool(rng.integers(2)))
            case "norm":
                x = b.norm(x, name, float(rng.choice([1e-5, 1e-3])))
            case "relu":
                x = b.relu(x, name)
            case "max":
                x = b.max_pool(x, name, _window(rng, height, width, False))
            case "average":
                x = b.average_pool(x, name, _window(rng, height, width, False), counted=bool(rng.integers(2)))
            case "residual":
                inner = b.relu(b.convolution(x, f"{name}.a", now, Window(kernel=(3, 3), pads=(1,) * 4)), f"{name}.b")
                x = b.sum(b.convolution(inner, f"{name}.c", now, Window()), x, f"{name}.d")
            case "fork":
                x = b.sum(b.relu(x, f"{name}.a"), x, f"{name}.b") if rng.integers(2) else b.sum(x, x, f"{name}.c")
    b.linear(x, "last", int(rng.integers(2, 6)), biased=bool(rng.integers(2)))
    return b.network()


def _window(rng: np.random.Generator, height: int, width: int, padded: bool = True) -> Window:
    """Draw a window that fits; of a pooling no window is all padding."""
    while True:
        kernel, stride, dilation = ((int(rng.integers(1, most)), int(rng.integers(1, most))) for most in (4, 3, 3))
        most = 3 if padded else min(kernel)
        pads = [int(pad) for pad in rng.integers(0, most, 4)]
        window = Window(kernel=kernel, stride=stride, dilation=dilation if padded else (1, 1), pads=(pads[0], pads[1], pads[2], pads[3]))
        if min(window.positions(height, width)) > 0:
            return window
