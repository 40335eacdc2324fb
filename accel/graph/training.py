"""Importer: a float graph becomes a network that can be trained.

The graph is folded but nothing in it is merged: batch normalisation keeps its parameters, and what a file spells out in small operators is
put together by :mod:`accel.graph.patterns` alone. Layers read and write tensors channels last; a tensor that ONNX sees in another order or
shape stays where it is until a layer needs it otherwise, and is moved then.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import NetworkError
from accel.graph import movement
from accel.graph.builder import image_order, whole
from accel.graph.graph import FLOATS, Array, Graph, Node
from accel.graph.movement import Index
from accel.graph.network import inverse
from accel.graph.operators.convolution import groups_of
from accel.graph.operators.pooling import pool_window
from accel.graph.operators.registry import Attributed
from accel.graph.operators.windows import pads, window
from accel.graph.trainable import (
    COMPUTED,
    Add,
    AveragePool,
    BatchNorm,
    Bias,
    Clip,
    Convolution,
    Gelu,
    Layer,
    LayerNorm,
    MaxPool,
    Move,
    Product,
    Relu,
    Softmax,
    Trainable,
)
from accel.graph.window import Window, image

WINDOWS = ("Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "BatchNormalization")
Floats = NDArray[np.float32]


def trainable(graph: Graph) -> Trainable:
    """Import a graph.

    Parameters
    ----------
    graph : Graph
        Folded, float, with the shape of every tensor. A Softmax or LogSoftmax at its end is left out: the loss has it.

    Returns
    -------
    Trainable

    Raises
    ------
    NetworkError
        If the graph has several inputs or outputs, its output is not one number for each class, or it holds something that is not
        supported; the message names the node.
    """
    for what, names in (("input", list(graph.inputs)), ("output", list(graph.outputs))):
        if len(names) != 1:
            raise NetworkError(f"network that is trained must have 1 {what}, not {len(names)} ({', '.join(names)})")
    writers = {name: node for node in graph.nodes for name in node.outputs}
    (given,), (wanted,) = graph.inputs, graph.outputs
    last = writers.get(wanted)
    dropped = []
    while last is not None and last.kind in ("Softmax", "LogSoftmax", "Identity") and not last.domain:
        dropped += [last] if last.kind != "Identity" else []
        wanted = last.inputs[0]
        last = writers.get(wanted)
    if wanted in graph.constants or len(graph.shapes[wanted]) != 2 or graph.shapes[wanted][0] != 1:
        raise NetworkError(f"output {wanted!r} must be of shape (batch, classes) to train it, not {graph.shapes[wanted]}")
    importer = _Importer(graph)
    importer.receive(given)
    for node in _needed(graph, wanted):
        if node.domain or node.kind not in KINDS:
            raise NetworkError(f"{node} must be one of {', '.join(KINDS)}, not {node.kind}")
        KINDS[node.kind](importer, node)
    return replace(importer.finish(given, wanted), dropped=_told(dropped))


def dropouts(graph: Graph) -> tuple[str, ...]:
    """Tell of the nodes that drop elements by chance, which training here does without.

    Parameters
    ----------
    graph : Graph
        As it is read.

    Returns
    -------
    tuple of str
    """
    return _told(node for node in graph.nodes if node.domain == "" and node.kind == "Dropout")


def _told(nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(f"{node.name} ({node.kind})" for node in nodes)


def evaluating(graph: Graph) -> Graph:
    """Write what a file has in training mode, BatchNormalization and Dropout, as in evaluation.

    Parameters
    ----------
    graph : Graph
        As it is read.

    Returns
    -------
    Graph

    Raises
    ------
    NetworkError
        If more than the first output of one of them is read.
    """
    read = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    nodes = []
    for node in graph.nodes:
        if node.domain == "" and node.kind in ("BatchNormalization", "Dropout"):
            more = [name for name in node.outputs[1:] if name in read]
            if more:
                raise NetworkError(f"outputs of {node} must be read up to the first to train the network, not {', '.join(more)} too")
            attributes = {name: value for name, value in node.attributes.items() if name != "training_mode"}
            inputs = node.inputs[:1] if node.kind == "Dropout" else node.inputs
            node = replace(node, inputs=inputs, outputs=node.outputs[:1], attributes=attributes)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _needed(graph: Graph, output: str) -> list[Node]:
    """Nodes that a tensor depends on, in order."""
    needed, nodes = {output}, []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    return nodes[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Where the elements of an ONNX tensor are.

    Parameters
    ----------
    tensor : str
        Of the network.
    shape : tuple of int
        ONNX's, the batch included.
    index : int, of this shape, or None
        Place of each element in the tensor as it is stored. None: all are there in order, channels last if they are an image.
    """

    tensor: str
    shape: tuple[int, ...]
    index: Index | None = None


@dataclass(slots=True)
class _Importer:
    """A network as it is built."""

    graph: Graph
    layers: list[Layer] = field(init=False, default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(init=False, default_factory=dict)
    values: dict[str, Seen] = field(init=False, default_factory=dict)
    names: set[str] = field(init=False, default_factory=set)
    scaled: list[Node] = field(init=False, default_factory=list)  # nodes that only scale
    weighted: dict[str, list[str]] = field(init=False, default_factory=dict)  # layers by the constant that their weights are
    axes: tuple[int, ...] | None = field(init=False, default=None)  # of the samples, where they are not as most are
    readers: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.readers = Counter(name for node in self.graph.nodes for name in node.inputs) + Counter(self.graph.outputs)

    # What a node reads.

    def constant(self, node: Node, at: int, what: str) -> Array | None:
        """Constant input, or None where it is left out."""
        name = node.inputs[at] if at < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.graph.constants:
            raise NetworkError(f"{what} of {node} must be a constant, not the tensor {name!r}")
        return self.graph.constants[name]

    def given(self, node: Node, at: int, what: str) -> Array:
        """Constant input that must be there."""
        array = self.constant(node, at, what)
        if array is None:
            raise NetworkError(f"{what} of {node} must be given, not left out")
        return array

    def weights(self, node: Node) -> Array:
        """Second input, which is trained."""
        array = self.given(node, 1, "weights")
        self.weighted.setdefault(node.inputs[1], []).append(node.name)
        return array

    def vector(self, node: Node, at: int, what: str, size: int) -> Array | None:
        """Constant input of one number for each channel, or None where it is left out."""
        array = self.constant(node, at, what)
        if array is not None and array.values.shape != (size,):
            raise NetworkError(f"{what} of {node} must be of shape ({size},), one number for each channel, not {array.values.shape}")
        return array

    def integers(self, node: Node, at: int, what: str) -> list[int]:
        """Constant input of integers."""
        array = self.given(node, at, what)
        if not array.known or array.values.dtype.kind not in "iu":
            raise NetworkError(f"{what} of {node} must be known integers, not {array.values.dtype}")
        return [int(value) for value in array.values.ravel()]

    def seen(self, node: Node, at: int = 0) -> Seen:
        """Activation that a node reads."""
        name = node.inputs[at] if at < len(node.inputs) else ""
        if name not in self.values:
            raise NetworkError(f"input {at} of {node} must be an activation, not {name!r}")
        return self.values[name]

    def places(self, seen: Seen) -> Index:
        """Place of each element in the tensor as it is stored."""
        if seen.index is not None:
            return seen.index
        stored = self.shapes[seen.tensor]
        return movement.places(stored).transpose(inverse(_order(stored)))[None]

    def image(self, node: Node, at: int = 0) -> str:
        """Input as an image, stored channels last; a sequence runs along the height."""
        seen = self.seen(node, at)
        count = len(seen.shape)
        if count not in (3, 4) or seen.shape[0] != 1:
            raise NetworkError(f"input {at} of {node} must be an image or a sequence of one sample, not of shape {seen.shape}")
        return self.settled(node.inputs[at], (*range(2, count), 1), tuple(seen.shape[axis] for axis in (*range(2, count), 1)), exact=True)

    def rows(self, node: Node, at: int = 0, *, exact: bool = False) -> str:
        """Input in ONNX's order: its last axis is stored last."""
        seen = self.seen(node, at)
        form = (*(size for size in seen.shape[:-1] if size > 1), seen.shape[-1])
        return self.settled(node.inputs[at], tuple(range(1, len(seen.shape))), form, exact=exact)

    def settled(self, name: str, order: tuple[int, ...], form: tuple[int, ...], *, exact: bool) -> str:
        """Tensor with the axes of an activation in this order; in this shape (`exact`), or one with its last axis; moved if need be."""
        seen = self.values[name]
        stored = self.shapes[seen.tensor]
        if seen.index is None and order == tuple(axis + 1 for axis in _order(stored)):
            return seen.tensor
        places = self.places(seen)
        wanted = places.transpose(0, *order)
        fits = stored == form if exact else stored[-1] == form[-1]
        if fits and wanted.size == prod(stored) and np.array_equal(wanted.ravel(), np.arange(wanted.size)):
            return seen.tensor
        moved = self.fresh(f"{name}/moved", self.shapes)
        self.emit(Move(name=moved, inputs=(seen.tensor,), output=moved), form)
        self.values[name] = Seen(moved, seen.shape, movement.places(wanted.shape).transpose(inverse((0, *order))))
        return moved

    def entire(self, node: Node, at: int = 0) -> Seen:
        """Activation that is a whole tensor, in any order."""
        seen = self.seen(node, at)
        if seen.index is None or whole(seen.index, prod(self.shapes[seen.tensor])):
            return seen
        self.rows(node, at)
        return self.seen(node, at)

    # What a node writes.

    @staticmethod
    def fresh(name: str, taken: Any) -> str:
        """Return the name, with a number if it is taken."""
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}#{number}"
        return candidate

    def emit(self, layer: Layer, shape: tuple[int, ...]) -> None:
        """Add a layer that writes a tensor of this shape."""
        name = self.fresh(layer.name, self.names)
        self.names.add(name)
        self.layers.append(replace(layer, name=name))
        self.shapes[layer.output] = shape

    def alike(self, kind: Callable[..., Layer], node: Node, **fields: Any) -> None:
        """Add a layer whose result is stored as what it reads; one that is only counted may see an image as rows."""
        seen = self.entire(node)
        layer = kind(name=node.name, inputs=(seen.tensor,), output=node.outputs[0], **fields)
        if not isinstance(layer, COMPUTED) and seen.index is not None and len(seen.shape) == 3 and self.rows(node) == seen.tensor:
            self.wrote(node, layer, tuple(seen.shape[1:]))
        else:
            self.emit(layer, self.shapes[seen.tensor])
            self.values[node.outputs[0]] = replace(seen, tensor=node.outputs[0])

    def wrote(self, node: Node, layer: Layer, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> None:
        """Add a layer that writes the first output; stored axis i is axis ``order[i]`` of a sample, or as ONNX has them."""
        output = node.outputs[0]
        self.emit(layer, shape)
        onnx = self.graph.shapes[output]
        if onnx[:1] == (1,) and order == _order(shape) and tuple(onnx[1:][axis] for axis in order) == shape:
            self.values[output] = Seen(output, onnx)
            return
        if order is None:
            places = movement.places(shape).reshape(onnx)
        else:
            places = movement.places([onnx[axis + 1] for axis in order]).transpose(inverse(order))[None]
        self.values[output] = Seen(output, onnx, places)

    def move(self, node: Node, index: Index) -> None:
        """See the first input at other places."""
        self.values[node.outputs[0]] = Seen(self.seen(node).tensor, index.shape, index)

    # The ends.

    def receive(self, name: str) -> None:
        """Take in the samples: images are stored channels last, if they are not so in ONNX, and sequences that windows slide over."""
        port = self.graph.inputs[name]
        if port.kind not in FLOATS:
            raise NetworkError(f"input {name!r} must be of floats to train the network, not of element type {port.kind}")
        shape = tuple(int(size) for size in port.shape)
        sample = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
        readers = [node for node in self.graph.nodes if name in node.inputs]
        if len(shape) == 4 and all(node.kind == "Transpose" and node.attributes.get("perm") == [0, 3, 1, 2] for node in readers):
            self.shapes[name], self.axes = sample, tuple(range(len(sample)))
            self.values[name] = Seen(name, shape, movement.places(shape))
            return
        if len(sample) == 2 and any(node.kind in WINDOWS and node.inputs[0] == name for node in readers):
            self.shapes[name], self.axes = sample[::-1], (1, 0)
            self.values[name] = Seen(name, shape, movement.places(sample[::-1]).T[None])
            return
        order = _order(sample)
        self.shapes[name] = tuple(sample[axis] for axis in order)
        places = None if shape == (1, *sample) else movement.places(self.shapes[name]).transpose(inverse(order)).reshape(shape)
        self.values[name] = Seen(name, shape, places)

    def finish(self, given: str, wanted: str) -> Trainable:
        """Make the network."""
        self.rows(Node(wanted, "Identity", (wanted,), ()))
        output = self.values[wanted].tensor
        self.shapes[output] = self.graph.shapes[wanted][1:]  # of an image of one place only its channels are left
        if self.scaled and all(isinstance(layer, COMPUTED) for layer in self.layers):
            raise NetworkError(f"{self.scaled[0]} must stand beside a product of activations, not scale what is trained")
        for weights, nodes in self.weighted.items():
            if len(nodes) > 1:
                told = f"weights {weights!r} are shared by {', '.join(nodes)}: each is trained by itself"
                warnings.warn(told, UserWarning, stacklevel=4)
        used = {given, *(layer.output for layer in self.layers)}
        shapes = {name: shape for name, shape in self.shapes.items() if name in used}
        return Trainable(name=self.graph.name, shapes=shapes, layers=tuple(self.layers), input=given, output=output, axes=self.axes)


def _order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of a sample in the order in which it is stored, seen from either side: an image is stored channels last."""
    return image_order(shape) if len(shape) == 3 else tuple(range(len(shape)))


def _floats(array: Array | None) -> Floats | None:
    """Values of a constant, if they are known."""
    return np.ascontiguousarray(array.values, np.float32) if array is not None and array.known else None


# Windows.


def _convolution(importer: _Importer, node: Node) -> None:
    site, x = Attributed(node), importer.image(node)
    weights = importer.weights(node)
    shape, axes = weights.values.shape, weights.values.ndim - 2
    if len(shape) != len(importer.seen(node).shape):
        raise NetworkError(f"weights of {node} must have {len(importer.seen(node).shape)} axes, not {len(shape)}")
    filters, (height, width, channels) = shape[0], image(importer.shapes[x])
    groups = groups_of(site, filters)
    if shape[1] * groups != channels:
        raise NetworkError(f"weights of {node} must have {channels} / {groups} input channels, not {shape[1]}")
    slides = window(site, shape[2:], (height, width))
    bias = importer.vector(node, 2, "bias", filters)
    laid = _floats(weights)
    layer = Convolution(
        name=node.name,
        inputs=(x,),
        output=node.outputs[0],
        window=slides,
        channels=channels,
        filters=filters,
        groups=groups,
        biased=bias is not None,
        weights=None if laid is None else np.ascontiguousarray(np.moveaxis(laid, 1, -1)).reshape(filters, *slides.kernel, shape[1]),
        bias=_floats(bias),
    )
    places = slides.positions(height, width)[:axes]
    importer.wrote(node, layer, (*places, filters), (*range(1, axes + 1), 0))


def _pool(importer: _Importer, node: Node) -> None:
    site, x = Attributed(node), importer.image(node)
    if any(importer.readers[name] for name in node.outputs[1:] if name):
        raise NetworkError(f"outputs of {node} must be its values alone, not {', '.join(node.outputs[1:])} too")
    axes = len(importer.shapes[x]) - 1
    size = image(importer.shapes[x])[:2]
    slides = Window(kernel=size) if node.kind.startswith("Global") else pool_window(site, size, axes)
    if node.kind.endswith("MaxPool"):
        layer: Layer = MaxPool(name=node.name, inputs=(x,), output=node.outputs[0], window=slides)
    else:
        counted = bool(site.attribute("count_include_pad", 0)) and any(slides.pads)
        if counted and pads(site, slides.kernel[:axes], size) != slides.pads:
            raise NetworkError(f"ceil_mode of {node} must be 0 where padding counts, not 1")
        layer = AveragePool(name=node.name, inputs=(x,), output=node.outputs[0], window=slides, counted=counted)
    places, channels = slides.positions(*size)[:axes], importer.shapes[x][-1]
    importer.wrote(node, layer, (*places, channels), (*range(1, axes + 1), 0))


def _reduce_mean(importer: _Importer, node: Node) -> None:
    seen = importer.seen(node)
    count = len(seen.shape)
    axes = sorted(axis % count for axis in importer.integers(node, 1, "axes")) if len(node.inputs) > 1 and node.inputs[1] else []
    if count in (3, 4) and seen.shape[0] == 1 and axes == list(range(2, count)):
        x = importer.image(node)
        slides = Window(kernel=image(importer.shapes[x])[:2])
        layer: Layer = AveragePool(name=node.name, inputs=(x,), output=node.outputs[0], window=slides)
        importer.wrote(node, layer, (*(1,) * (count - 2), importer.shapes[x][-1]))
    elif count == 3 and axes == [1]:
        x = importer.rows(node)
        importer.wrote(node, Move(name=node.name, inputs=(x,), output=node.outputs[0], mean=True), importer.shapes[x][-1:])
    else:
        raise NetworkError(f"axes of {node} must be those of an image or the rows of a sample, not {axes} of {count}")


# Element by element.


def _batch_norm(importer: _Importer, node: Node) -> None:
    site, seen = Attributed(node), importer.seen(node)
    x = importer.image(node) if len(seen.shape) > 2 else importer.rows(node)
    channels = importer.shapes[x][-1]
    gamma, beta, mean, variance = (
        importer.vector(node, at, what, channels) for at, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    importer.alike(
        BatchNorm,
        node,
        epsilon=site.number("epsilon", 1e-5),
        momentum=site.number("momentum", 0.9),
        gamma=_floats(gamma),
        beta=_floats(beta),
        mean=_floats(mean),
        variance=_floats(variance),
    )


def _relu(importer: _Importer, node: Node) -> None:
    importer.alike(Relu, node)


def _clip(importer: _Importer, node: Node) -> None:
    bounds = [importer.constant(node, at, what) for at, what in ((1, "min"), (2, "max"))]
    if not all(array is None or array.known for array in bounds):
        raise NetworkError(f"bounds of {node} must be known, not open")
    low, limit = (float(array.values.item()) if array is not None else end for array, end in zip(bounds, (-np.inf, np.inf), strict=True))
    if low != 0 or not limit > 0:
        raise NetworkError(f"bounds of {node} must be 0 and a number above, not {low:g} and {limit:g}")
    if limit >= np.finfo(np.float32).max:
        importer.alike(Relu, node)
    else:
        importer.alike(Clip, node, limit=limit)


def _gelu(importer: _Importer, node: Node) -> None:
    importer.alike(Gelu, node)


def _add(importer: _Importer, node: Node) -> None:
    if len(node.inputs) != 2:
        raise NetworkError(f"inputs of {node} must be 2, not {len(node.inputs)}")
    constants = [at for at, name in enumerate(node.inputs) if name in importer.graph.constants]
    if constants:
        _constant_sum(importer, replace(node, inputs=(node.inputs[1 - constants[0]], node.inputs[constants[0]])))
        return
    first, second = importer.entire(node, 0), importer.entire(node, 1)
    if first.shape != second.shape:
        raise NetworkError(f"inputs of {node} must be of one shape, not {first.shape} and {second.shape}")
    alike = importer.shapes[first.tensor] == importer.shapes[second.tensor]
    if not alike or not (first.index is second.index is None or np.array_equal(importer.places(first), importer.places(second))):
        for at in range(2):
            importer.image(node, at) if len(first.shape) == 4 and first.shape[0] == 1 else importer.rows(node, at, exact=True)
        first, second = importer.seen(node, 0), importer.seen(node, 1)
    layer = Add(name=node.name, inputs=(first.tensor, second.tensor), output=node.outputs[0])
    importer.emit(layer, importer.shapes[first.tensor])
    importer.values[node.outputs[0]] = replace(first, tensor=node.outputs[0])


def _constant_sum(importer: _Importer, node: Node) -> None:
    """Sum with a constant: the bias of the product before it, or a layer of its own."""
    seen, addend = importer.seen(node), importer.given(node, 1, "input 1")
    if addend.values.size > 1 and np.broadcast_shapes(addend.values.shape, seen.shape) != seen.shape:
        raise NetworkError(f"input 1 of {node} must broadcast to {seen.shape}, not be of shape {addend.values.shape}")
    last = next((at for at, layer in enumerate(importer.layers) if layer.output == seen.tensor), None)
    product = importer.layers[last] if last is not None else None
    if isinstance(product, Convolution) and not product.biased and importer.readers[node.inputs[0]] == 1:
        axis = len(seen.shape) - 1 if product.linear else 1
        row = tuple(size if at == axis else 1 for at, size in enumerate(seen.shape))
        shape = addend.values.shape
        if (1,) * (len(row) - len(shape)) + shape == row and seen.shape[axis] == product.filters:
            known = _floats(addend)
            bias = None if known is None else known.ravel()
            importer.layers[last or 0] = replace(product, biased=True, bias=bias)
            importer.values[node.outputs[0]] = seen
            return
    importer.alike(Bias, node)


def _scale(importer: _Importer, node: Node) -> None:
    """Product with one number, which the rounding behind a product of activations takes in."""
    constants = [at for at, name in enumerate(node.inputs) if name in importer.graph.constants]
    if constants not in ([1], [0]) or (node.kind == "Div" and constants == [0]):
        raise NetworkError(f"input 1 of {node} must be a constant, not an activation")
    factor = importer.given(node, constants[0], "factor")
    if factor.values.size != 1:
        raise NetworkError(f"factor of {node} must be one number, not of shape {factor.values.shape}")
    if not factor.known or factor.values.item() != 1:
        importer.scaled.append(node)
    importer.values[node.outputs[0]] = importer.seen(node, 1 - constants[0])


def _same(importer: _Importer, node: Node) -> None:
    importer.values[node.outputs[0]] = importer.seen(node)


# Products and rows.


def _gemm(importer: _Importer, node: Node) -> None:
    site, weights = Attributed(node), importer.weights(node)
    if site.attribute("transA", 0):
        raise NetworkError(f"transA of {node} must be 0, not {site.attribute('transA', 0)}")
    values = weights.values if site.attribute("transB", 0) else weights.values.T
    addend, alpha, beta = importer.constant(node, 2, "bias"), site.number("alpha", 1.0), site.number("beta", 1.0)
    bias = None
    if addend is not None:
        if addend.values.size not in (1, len(values)) or (addend.values.ndim > 1 and addend.values.shape[-1] != addend.values.size):
            raise NetworkError(f"bias of {node} must be one number for each of {len(values)} features, not of shape {addend.values.shape}")
        spread = np.broadcast_to(addend.values.ravel(), len(values))
        bias = replace(addend, values=spread * np.float32(beta) if addend.known else spread)
    _linear(importer, node, replace(weights, values=values * np.float32(alpha) if weights.known and alpha != 1 else values), bias)


def _matmul(importer: _Importer, node: Node) -> None:
    if node.inputs[1] in importer.graph.constants:
        weights = importer.weights(node)
        if weights.values.ndim != 2:
            raise NetworkError(f"weights of {node} must have 2 axes, not {weights.values.ndim}")
        _linear(importer, node, replace(weights, values=weights.values.T), None)
        return
    a, b = importer.seen(node, 0), importer.seen(node, 1)
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[:-2] != b.shape[:-2]:
        raise NetworkError(f"inputs of {node} must be matrices of one count, not of shapes {a.shape} and {b.shape}")
    inputs = (importer.rows(node, 0), importer.rows(node, 1))
    count, m, k, n = prod(a.shape[:-2]), *a.shape[-2:], b.shape[-1]
    layer = Product(name=node.name, inputs=inputs, output=node.outputs[0], count=count, m=m, k=k, n=n)
    onnx = importer.graph.shapes[node.outputs[0]]
    importer.wrote(node, layer, onnx[1:] if len(onnx) > 2 and onnx[0] == 1 else onnx)


def _linear(importer: _Importer, node: Node, weights: Array, bias: Array | None) -> None:
    """Linear layer of weights (features, k): on each row, or on the whole of a tensor, whose order the weights take on."""
    features, depth = weights.values.shape
    seen = importer.entire(node)
    if seen.shape[-1] != depth:
        raise NetworkError(f"weights of {node} must take {seen.shape[-1]} inputs, not {depth}")
    laid = _floats(weights)
    if prod(seen.shape) == depth:
        x = seen.tensor
        *kernel, channels = image(importer.shapes[x])
        slides = Window(kernel=(kernel[0], kernel[1]))
        if laid is not None:
            ordered = np.empty_like(laid)
            ordered[:, importer.places(seen).ravel()] = laid
            laid = ordered
        shape: tuple[int, ...] = (features,)
    else:
        x = importer.rows(node)
        slides, channels = Window(), depth
        shape = (*importer.shapes[x][:-1], features)
    layer = Convolution(
        name=node.name,
        inputs=(x,),
        output=node.outputs[0],
        window=slides,
        channels=channels,
        filters=features,
        linear=True,
        biased=bias is not None,
        weights=None if laid is None else laid.reshape(features, *slides.kernel, channels),
        bias=_floats(bias),
    )
    importer.wrote(node, layer, shape)


def _layer_norm(importer: _Importer, node: Node) -> None:
    last = len(importer.seen(node).shape) - 1
    if Attributed(node).attribute("axis", -1) not in (-1, last):
        raise NetworkError(f"axis of {node} must be the last, not {node.attributes['axis']}")
    importer.rows(node)
    importer.alike(LayerNorm, node)


def _softmax(importer: _Importer, node: Node) -> None:
    last = len(importer.seen(node).shape) - 1
    if Attributed(node).attribute("axis", -1) not in (-1, last):
        raise NetworkError(f"axis of {node} must be the last, not {node.attributes['axis']}")
    importer.rows(node)
    importer.alike(Softmax, node)


# Moves.


def _reshape(importer: _Importer, node: Node) -> None:
    seen, shape = importer.seen(node), importer.graph.shapes[node.outputs[0]]
    if shape == seen.shape:
        importer.values[node.outputs[0]] = seen
    else:
        importer.move(node, importer.places(seen).reshape(shape))


def _transpose(importer: _Importer, node: Node) -> None:
    importer.move(node, movement.transposed(importer.places(importer.seen(node)), node.attributes.get("perm")))


def _expand(importer: _Importer, node: Node) -> None:
    importer.move(node, movement.expanded(importer.places(importer.seen(node)), importer.graph.shapes[node.outputs[0]]))


def _slice(importer: _Importer, node: Node) -> None:
    bounds = [importer.integers(node, at, what) if at < len(node.inputs) and node.inputs[at] else None for at, what in enumerate(BOUNDS, 1)]
    starts, ends, axes, steps = bounds
    importer.move(node, movement.sliced(importer.places(importer.seen(node)), starts or [], ends or [], axes, steps))


def _gather(importer: _Importer, node: Node) -> None:
    indices = importer.given(node, 1, "indices")
    if not indices.known:
        raise NetworkError(f"indices of {node} must be known, not open")
    importer.move(node, movement.gathered(importer.places(importer.seen(node)), indices.values, node.attributes.get("axis", 0)))


def _split(importer: _Importer, node: Node) -> None:
    seen, axis = importer.seen(node), node.attributes.get("axis", 0)
    sizes = [importer.graph.shapes[name][axis] for name in node.outputs]
    for name, index in zip(node.outputs, movement.split(importer.places(seen), sizes, axis), strict=True):
        importer.values[name] = Seen(seen.tensor, index.shape, index)


def _concat(importer: _Importer, node: Node) -> None:
    """Join tensors; constants among them, as a class token, are there already."""
    parts = [at for at, name in enumerate(node.inputs) if name not in importer.graph.constants]
    shape = importer.graph.shapes[node.outputs[0]]
    sliding = len(shape) == 4 and shape[0] == 1
    inputs = tuple(importer.image(node, at) if sliding else importer.rows(node, at) for at in parts)
    layer = Move(name=node.name, inputs=inputs, output=node.outputs[0])
    if sliding:
        importer.wrote(node, layer, (*shape[2:], shape[1]), image_order(shape[1:]))
    else:
        importer.wrote(node, layer, (*(size for size in shape[:-1] if size > 1), shape[-1]))


BOUNDS = ("starts", "ends", "axes", "steps")
KINDS: dict[str, Callable[[_Importer, Node], None]] = {
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "Relu": _relu,
    "Clip": _clip,
    "Add": _add,
    "Sum": _add,
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"), _pool),
    "ReduceMean": _reduce_mean,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Identity", "Dropout", "Cast"), _same),
    "LayerNormalization": _layer_norm,
    "Gelu": _gelu,
    "Softmax": _softmax,
    **dict.fromkeys(("Mul", "Div"), _scale),
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
}
"""What can be trained or counted, by ONNX's operators."""
