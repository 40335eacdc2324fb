"""A small network with every layer that is trained."""

from __future__ import annotations

import dataclasses

import numpy as np

from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable
from accel.graph.window import Window

SQUARE = Window(kernel=(3, 3), pads=(1, 1, 1, 1))
STRIDED = dataclasses.replace(SQUARE, stride=(2, 2))
WIDE = Window(kernel=(3, 3), pads=(2, 2, 2, 2), dilation=(2, 2))
SHIFTED = Window(kernel=(2, 2), pads=(1, 1, 1, 1))


def network(first: dict[str, np.ndarray] | None = None) -> Trainable:
    """Return the network of tests/training_oracle.py."""
    shapes = {
        "x": (8, 9, 3), "stem": (8, 9, 8), "norm": (8, 9, 8), "relu": (8, 9, 8), "pool": (4, 5, 8), "mean": (4, 5, 8),
        "strided": (2, 3, 12), "wide": (2, 3, 12), "sum": (2, 3, 12), "relu2": (2, 3, 12), "last": (3, 4, 12), "logits": (5,),
    }  # fmt: skip
    layers: tuple[Layer, ...] = (
        Convolution(name="stem", inputs=("x",), output="stem", window=SQUARE, channels=3, filters=8, biased=True),
        BatchNorm(name="norm", inputs=("stem",), output="norm"),
        Relu(name="relu", inputs=("norm",), output="relu"),
        MaxPool(name="pool", inputs=("relu",), output="pool", window=STRIDED),
        AveragePool(name="mean", inputs=("pool",), output="mean", window=SQUARE),
        Convolution(name="strided", inputs=("mean",), output="strided", window=STRIDED, channels=8, filters=12, groups=2),
        Convolution(name="wide", inputs=("strided",), output="wide", window=WIDE, channels=12, filters=12, biased=True),
        Add(name="sum", inputs=("strided", "wide"), output="sum"),
        Relu(name="relu2", inputs=("sum",), output="relu2"),
        AveragePool(name="last", inputs=("relu2",), output="last", window=SHIFTED, counted=True),
        Convolution(
            name="linear", inputs=("last",), output="logits", window=Window(kernel=(3, 4)), channels=12, filters=5, linear=True, biased=True
        ),
    )  # fmt: skip
    made = Trainable(name="oracle", shapes=shapes, layers=layers, input="x", output="logits")
    if first is None:
        return made
    known = tuple(
        dataclasses.replace(layer, weights=first[f"{layer.name}.weight"], bias=first.get(f"{layer.name}.bias"))
        if isinstance(layer, Convolution)
        else dataclasses.replace(layer, gamma=first["norm.weight"], beta=first["norm.bias"])
        if isinstance(layer, BatchNorm)
        else layer
        for layer in layers
    )
    return dataclasses.replace(made, layers=known)
