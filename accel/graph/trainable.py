"""A network as it is trained: layers of float parameters between tensors, in execution order; what a training step is made of.

Shapes are those of one sample as it is stored: images ``(height, width, channels)``, anything else ``(rows, channels)`` or ``(channels,)``.
Nothing is folded: batch normalisation keeps its own parameters. Weights may be unknown: then only shapes are used, which is all that
counting operations and cycles takes. Layers of the second half of this file are counted, not computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.errors import NetworkError
from accel.graph.window import Image, Window, image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """What all layers share.

    Parameters
    ----------
    name : str
        Name of the ONNX node, unique in the network.
    inputs : tuple of str
        Names of the tensors read.
    output : str
        Name of the tensor written.
    """

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Convolution(Layer):
    """Convolution or linear layer: ``y[n] = sum_k x[k] * weights[n, k] + bias[n]``, k over (kh, kw, c), c innermost; padding is 0.

    A linear layer on rows is a 1 x 1 convolution; one on a flattened image is a convolution whose kernel is the image, and reads the image.

    Parameters
    ----------
    window : Window
    channels : int
        Of the input.
    filters : int
        Channels of the output.
    groups : int
        Channel groups; filter n sees the ``channels / groups`` channels of its group.
    linear : bool
        Whether the ONNX node is a linear layer.
    biased : bool
        Whether it has a bias.
    weights : float32, shape (filters, kh, kw, channels / groups), or None
    bias : float32, shape (filters,), or None
    """

    window: Window
    channels: int
    filters: int
    groups: int = 1
    linear: bool = False
    biased: bool = False
    weights: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None

    @property
    def reduction(self) -> int:
        """Products per output: k."""
        return self.window.taps * self.channels // self.groups

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the weights: (filters, kh, kw, channels / groups)."""
        return self.filters, *self.window.kernel, self.channels // self.groups


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchNorm(Layer):
    """``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`` by channel; mean and variance of the batch, biased, as in training.

    Parameters
    ----------
    epsilon : float
    momentum : float
        Weight of the running statistics in their update: ``running = momentum * running + (1 - momentum) * batch``, ONNX's convention.
    gamma, beta, mean, variance : float32, shape (channels,), or None
        Parameters, and running statistics.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    gamma: NDArray[np.float32] | None = None
    beta: NDArray[np.float32] | None = None
    mean: NDArray[np.float32] | None = None
    variance: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relu(Layer):
    """``y = max(x, 0)``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Add(Layer):
    """Sum of two tensors of one shape."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaxPool(Layer):
    """Largest element of each window, padding ignored; the gradient goes to the first of equal ones, in the order (kh, kw).

    Parameters
    ----------
    window : Window
    """

    window: Window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AveragePool(Layer):
    """Mean of each window.

    Parameters
    ----------
    window : Window
    counted : bool
        Whether padding counts in the divisor.
    """

    window: Window
    counted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip(Layer):
    """``y = min(max(x, 0), limit)``, as Relu6; counted, not computed.

    Parameters
    ----------
    limit : float
    """

    limit: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerNorm(Layer):
    """Normalisation of each row, with gamma and beta; counted, not computed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gelu(Layer):
    """GELU; counted, not computed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Softmax(Layer):
    """Softmax over the last axis; counted, not computed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product(Layer):
    """`count` products of an m x k and a k x n activation; counted, not computed.

    Parameters
    ----------
    count, m, k, n : int
        Of one sample.
    """

    count: int
    m: int
    k: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bias(Layer):
    """Sum with a trained constant of the tensor's shape; counted, not computed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Move(Layer):
    """Elements in another order or shape, or a mean over rows (`mean`); counted, not computed.

    Parameters
    ----------
    mean : bool
    """

    mean: bool = False


COMPUTED = (Convolution, BatchNorm, Relu, Add, MaxPool, AveragePool)
"""Layers that can be trained bit by bit; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainable:
    """Layers in execution order on named tensors, each written once before it is read.

    Parameters
    ----------
    name : str
    shapes : mapping of str to tuple of int
        Of every tensor.
    layers : tuple of Layer
    input, output : str
        The samples; the logits, one per class.
    axes : tuple of int, optional
        ONNX's axis of each stored axis of a sample; without it an image is (channels, height, width) in ONNX, anything else as stored.
    dropped : tuple of str
        Nodes of the file that training does without: Dropout, and a Softmax at the end, which the loss has.

    Raises
    ------
    NetworkError
        If a tensor is unknown, written twice or read too early, or a name is used twice.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    layers: tuple[Layer, ...]
    input: str
    output: str
    axes: tuple[int, ...] | None = None
    dropped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Trainable {self.name!r}: {len(self.layers)} layers, {len(self.shapes)} tensors>"

    def __post_init__(self) -> None:
        written, names = {self.input}, set[str]()
        for layer in self.layers:
            if layer.name in names:
                raise NetworkError(f"layer name must be unique, not {layer.name!r} twice")
            names.add(layer.name)
            for tensor in layer.inputs:
                if tensor not in written:
                    raise NetworkError(f"inputs of {layer.name} must be written before, not {tensor!r}")
            if layer.output not in self.shapes or layer.output in written:
                raise NetworkError(f"output of {layer.name} must be a tensor written once, not {layer.output!r}")
            written.add(layer.output)
        if self.output not in written:
            raise NetworkError(f"output must be written by a layer, not {self.output!r}")

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Layers with weights, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Convolution))

    def image(self, tensor: str) -> Image:
        """Height, width and channels of a tensor."""
        return image(self.shapes[tensor])

    def eligible(self) -> frozenset[str]:
        """Name the layers whose weights are pruned: all but the first convolution and the last linear layer, which is our choice."""
        first = [layer.name for layer in self.convolutions if not layer.linear][:1]
        last = [layer.name for layer in self.convolutions if layer.linear][-1:]
        return frozenset(layer.name for layer in self.convolutions) - {*first, *last}


def check_trained(network: Trainable) -> None:
    """Refuse a network that has nothing to train.

    Parameters
    ----------
    network : Trainable

    Raises
    ------
    NetworkError
        If no layer has weights.
    """
    if not network.convolutions:
        raise NetworkError("network must have a layer with weights to train, not none")
