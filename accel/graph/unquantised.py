"""A quantised graph as the float graph that it approximates: quantisers gone, constants dequantised."""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from accel.errors import NetworkError
from accel.graph.edit import KINDS, Editor
from accel.graph.graph import Array, Given, Graph, Node
from accel.quant import dequantise

KEEP = (  # operators whose result has no negative element where their inputs have none
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMean", "Add", "Sum", "Concat"),
    *("Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Expand"),
)
LEVELS = 3  # our choice: fewer are a sign, which has no gradient
MAKE = ("Relu", "Softmax", "Sigmoid", "HardSigmoid", "Exp", "Abs", "Sqrt")  # whose result has none


def unquantised(graph: Graph) -> Graph:
    """Drop every QuantizeLinear and DequantizeLinear of an activation, and dequantise constants.

    A quantiser whose integers begin at its zero point is a Relu too, where what it rounds may be negative: quantisers leave out the Relu
    before. A network's inputs are taken for what they are. Other saturation is gone with the quantiser.

    Parameters
    ----------
    graph : Graph
        Folded, with quantisation written as QuantizeLinear and DequantizeLinear.

    Returns
    -------
    Graph
        To be folded again, as element types have changed.

    Raises
    ------
    NetworkError
        If a scale or zero point is no constant.
    """
    editor = Editor(graph)
    positive = set(graph.inputs)
    for node in graph.nodes:
        if node.domain or node.kind not in ("QuantizeLinear", "DequantizeLinear"):
            editor.keep(node)
            if _positive(editor, node, positive):
                positive.update(node.outputs)
        elif node.kind == "QuantizeLinear":
            x, output = editor.names(node)[0], node.outputs[0]
            lo, hi = (node.attributes.get(name, end) for name, end in (("lo", -LEVELS), ("hi", LEVELS)))
            if hi - lo + 1 < LEVELS:
                raise NetworkError(f"levels of {node} must be {LEVELS} or more to train the network, not {hi - lo + 1}")
            if _rectifies(editor, node) and x not in positive:
                editor.emit("Relu", [x], output, shape=editor.shapes.get(x))
                positive.add(output)
            else:
                editor.alias(output, x)
        elif editor.names(node)[0] in editor.constants:
            _dequantise(editor, node)
        else:
            editor.alias(node.outputs[0], editor.names(node)[0])
    real = editor.finish()
    integers = {name for node in graph.nodes if node.kind == "DequantizeLinear" for name in node.inputs[:1]}
    inputs = {name: Given(TensorProto.FLOAT, port.shape) if name in integers else port for name, port in real.inputs.items()}
    return replace(real, inputs=inputs, shapes={}, kinds={})


def _positive(editor: Editor, node: Node, positive: set[str]) -> bool:
    """Whether no element of a node's result is negative, as far as the nodes before it say."""
    names = [name for name in editor.names(node) if name and name not in editor.constants]
    constants = [name for name in node.inputs if name in editor.constants]
    if node.kind in MAKE:
        return True
    if node.kind == "Clip":
        low = editor.array(node, 1, "min")
        return low is not None and bool((low.values >= 0).all())
    if node.kind in ("Add", "Sum", "Concat") and not all((editor.constants[name].values >= 0).all() for name in constants):
        return False
    return node.kind in KEEP and positive.issuperset(names)


def _rectifies(editor: Editor, node: Node) -> bool:
    """Whether a quantiser makes 0 of what is negative."""
    grid = editor.grid(node, 1, 2, node.attributes.get("output_dtype"))
    low = node.attributes.get("lo", KINDS[grid.kind].lo) if grid.kind in KINDS else None
    return low is not None and bool((grid.zero <= low).all())


def _dequantise(editor: Editor, node: Node) -> None:
    """Make the reals of a constant's integers."""
    integers = editor.array(node, 0, "input 0")
    assert integers is not None
    grid = editor.grid(node, 1, 2, integers.kind, int(node.attributes.get("axis", 1)))
    if node.attributes.get("block_size", 0):
        raise NetworkError(f"block_size of {node} must be 0, not {node.attributes['block_size']}")
    if integers.known:
        axis = None if grid.axis is None else grid.axis % integers.values.ndim
        real = Array.of(dequantise(integers.values, grid.scale, grid.zero, axis))
    else:
        real = Array.unknown(integers.values.shape)
    output = node.outputs[0]
    editor.constants[output], editor.shapes[output], editor.kinds[output] = real, real.values.shape, real.kind
