"""What makes a graph shorter and keeps its results but for float32's rounding: spelled-out operators, batch normalisation.

For float graphs before they are calibrated, and for quantised ones before they are imported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from accel.errors import NetworkError
from accel.graph.edit import Editor
from accel.graph.graph import Array, Graph, Node
from accel.graph.patterns import fuse
from accel.quant import dequantise

MASKED = -1e8  # our choice: scores from here on downwards stand for minus infinity
LEAST = -1e30  # our choice: what stands for it, a number, so that sums of it are numbers
FILTERS = {"Conv": 0, "ConvTranspose": 1}  # axis of the weights along which the output's channels run


def simplify(graph: Graph) -> Graph:
    """Put spelled-out operators together (:func:`accel.graph.patterns.fuse`), make masks sums, fold batch normalisation.

    Parameters
    ----------
    graph : Graph
        Folded, with the shape of every tensor.

    Returns
    -------
    Graph

    Raises
    ------
    NetworkError
        If a BatchNormalization cannot be an affine function of each channel.
    """
    return fold_normalisation(sum_masks(fuse(graph)))


def sum_masks(graph: Graph) -> Graph:
    """Write masks of attention as sums, which have integers, where the file selects.

    ``Where(mask, c, x)`` with constant mask and c, read by Softmax alone, is ``x + (c where masked, else 0)`` if c is -1e8 or below: scores
    of that size have no resolution in float32. Every row must have a place that is not masked. ``Where(IsNaN(y), c, y)`` of a Softmax is
    y: only a row masked everywhere is NaN, and integers never are.

    Parameters
    ----------
    graph : Graph
        Folded, with the shape of every tensor.

    Returns
    -------
    Graph
    """
    editor = Editor(graph)
    producers = {name: node for node in graph.nodes for name in node.outputs}
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        for name in node.inputs:
            readers[name].append(node)
    for node in graph.nodes:
        masked = _masked(graph, node, readers[node.outputs[0]] if node.outputs else [])
        if node.kind == "Where" and not node.domain and _never(node, producers):
            editor.alias(node.outputs[0], editor.names(node)[2])
        elif masked is not None:
            x, addend = masked
            mask = editor.constant(f"{node.outputs[0]}/mask", Array.of(addend))
            inputs = [editor.aliases.get(x, x), mask]
            editor.emit("Add", inputs, node.outputs[0], name=node.name, shape=graph.shapes[node.outputs[0]])
        else:
            editor.keep(node)
    return editor.finish()


def _masked(graph: Graph, node: Node, readers: list[Node]) -> tuple[str, NDArray[np.float32]] | None:
    """Tensor and addend that a Where comes to, if it masks scores."""
    if node.kind != "Where" or node.domain or node.outputs[0] in graph.outputs or graph.kinds.get(node.outputs[0]) != TensorProto.FLOAT:
        return None
    axes = {reader.attributes.get("axis", -1) if reader.kind == "Softmax" and not reader.domain else None for reader in readers}
    chosen = graph.constants.get(node.inputs[0])
    values = [graph.constants.get(name) for name in node.inputs[1:]]
    if chosen is None or not chosen.known or len(axes) != 1 or None in axes or (values[0] is None) == (values[1] is None):
        return None
    constant, x = (values[0], node.inputs[2]) if values[0] is not None else (values[1], node.inputs[1])
    shape = graph.shapes.get(node.outputs[0])
    if constant is None or not constant.known or constant.values.size != 1 or shape is None or graph.shapes.get(x) != shape:
        return None
    mask = chosen.values if values[0] is not None else ~chosen.values
    if not float(constant.values.item()) <= MASKED or np.broadcast_to(mask, shape).all(axis=axes.pop()).any():
        return None
    return x, np.where(mask, np.float32(max(float(constant.values.item()), LEAST)), np.float32(0))


def _never(node: Node, producers: Mapping[str, Node]) -> bool:
    """Whether a Where replaces only what is NaN in the result of a Softmax."""
    test, made = producers.get(node.inputs[0]), producers.get(node.inputs[2])
    return test is not None and test.kind == "IsNaN" and test.inputs[0] == node.inputs[2] and made is not None and made.kind == "Softmax"


def fold_normalisation(graph: Graph) -> Graph:
    """Replace BatchNormalization, ``x * gain[c] + addend[c]``, gain ``scale / sqrt(variance + epsilon)``, addend ``bias - mean * gain``.

    Into the weights and the bias of a Conv, ConvTranspose or Gemm with constant float weights whose result nothing else reads; else by a
    Mul and an Add. Gains are computed in float64 and rounded once.

    Raises
    ------
    NetworkError
        If its parameters are not constants of one number per channel, its variance is negative, or it is in training mode.

    References
    ----------
    .. [1] B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018,
       section 3.2.
    """
    editor = Editor(graph)
    read = Counter(name for node in graph.nodes for name in node.inputs) + Counter(graph.outputs)
    before: dict[str, int] = {}  # the node that writes a tensor, by its place among the editor's
    for node in graph.nodes:
        if node.kind != "BatchNormalization" or node.domain:
            editor.keep(node)
        elif not _fold_into(editor, before.get(node.inputs[0]) if read[node.inputs[0]] == 1 else None, node):
            _spell(editor, node)
        before |= {name: len(editor.nodes) - 1 for name in node.outputs if name}
    return editor.finish()


def _affine(editor: Editor, node: Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain and addend of each channel."""
    arrays = [_parameter(editor, node, index, what) for index, what in enumerate(("scale", "bias", "mean", "variance"), start=1)]
    if node.attributes.get("training_mode", 0) or any(node.outputs[1:]):
        raise NetworkError(f"training_mode of {node} must be 0, not 1: its statistics would be those of a batch")
    vectors = []
    for array, what in zip(arrays, ("scale", "bias", "mean", "variance"), strict=True):
        if array is None or array.values.ndim != 1:
            raise NetworkError(
                f"{what} of {node} must be one number for each channel, not {'left out' if array is None else array.values.shape}"
            )
        vectors.append(array.values.astype(np.float64))
    scale, bias, mean, variance = vectors
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if not (variance + epsilon > 0).all():
        raise NetworkError(f"variance of {node} must be above -epsilon, not {variance.min()}")
    gain = scale / np.sqrt(variance + epsilon)
    return gain, bias - mean * gain


def _parameter(editor: Editor, node: Node, index: int, what: str) -> Array | None:
    """Constant input, dequantised if need be: some quantisers take normalisation for a product with weights."""
    name = editor.given(node, index)
    made = next((each for each in editor.nodes if name in each.outputs), None)
    if made is None or made.kind != "DequantizeLinear" or made.inputs[0] not in editor.constants:
        return editor.array(node, index, what)
    integers = editor.array(made, 0, what)
    grid = editor.grid(made, 1, 2, axis=int(made.attributes.get("axis", 1)))
    if integers is None or not integers.known:
        return integers
    axis = None if grid.axis is None else 0
    return Array.of(dequantise(integers.values, grid.scale, grid.zero, axis)) if integers.values.ndim == 1 else integers


def _fold_into(editor: Editor, place: int | None, node: Node) -> bool:
    """Fold a normalisation into the node before it, if that has weights to fold into."""
    if place is None:
        return False
    product = editor.nodes[place]
    weights = editor.constants.get(product.inputs[1]) if len(product.inputs) > 1 else None
    bias = product.inputs[2] if len(product.inputs) > 2 else ""
    if product.domain or product.kind not in ("Conv", "ConvTranspose", "Gemm") or weights is None or not weights.known:
        return False
    if weights.kind != TensorProto.FLOAT or (bias and (bias not in editor.constants or editor.constants[bias].kind != TensorProto.FLOAT)):
        return False
    gain, addend = _affine(editor, node)
    old = editor.constants[bias].values.astype(np.float64) if bias else np.zeros(())
    if product.kind == "Gemm":
        axis, factor, old = (0 if product.attributes.get("transB", 0) else 1), gain, old * float(product.attributes.get("beta", 1.0))
    else:
        axis, factor = FILTERS[product.kind], gain
    values = weights.values.astype(np.float64)
    group = int(product.attributes.get("group", 1))
    if product.kind == "ConvTranspose" and group > 1:  # (channels, filters of one group, ...): each group has its own gains
        split = values.reshape(group, -1, *values.shape[1:])
        scaled = (split * gain.reshape(group, 1, -1, *[1] * (values.ndim - 2))).reshape(values.shape)
    else:
        scaled = values * factor.reshape([-1 if at == axis else 1 for at in range(values.ndim)])
    inputs = (
        product.inputs[0],
        editor.constant(f"{product.inputs[1]}/folded", Array.of(_narrow(scaled))),
        editor.constant(f"{product.outputs[0]}/bias", Array.of(_narrow(old * gain + addend))),
    )
    attributes = {name: value for name, value in product.attributes.items() if name != "beta"}
    editor.nodes[place] = Node(product.name, product.kind, inputs, node.outputs[:1], attributes)
    return True


def _spell(editor: Editor, node: Node) -> None:
    """Write a normalisation as a product and a sum."""
    gain, addend = _affine(editor, node)
    x, output = editor.names(node)[0], node.outputs[0]
    shape = editor.shapes[node.inputs[0]]
    channels = (-1, *[1] * (len(shape) - 2))
    gained = editor.fresh(f"{output}/gained")
    gains = editor.constant(f"{output}/gain", Array.of(gain.reshape(channels).astype(np.float32)))
    addends = editor.constant(f"{output}/addend", Array.of(addend.reshape(channels).astype(np.float32)))
    editor.emit("Mul", [x, gains], gained, shape=shape)
    editor.emit("Add", [gained, addends], output, name=node.name, shape=shape)


def _narrow(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to float32; what is beyond it becomes infinite, which a calibration refuses by name."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
