"""Quantised operators that compute on integers, written as QuantizeLinear and DequantizeLinear around the float operator.

onnxruntime's quantiser has two ways of writing the same network down. Where each operator takes integers with their scales (QOperator),
the operands here become DequantizeLinear nodes, the operator that of ONNX, and its result a QuantizeLinear: exact in the reals and rounded
once. onnxruntime's own kernels of these operators round in float32, some by way of a table or of a second rounding, so they may part from
the reals by one least significant bit at a rounding tie; the definition here is the one that rounds once.

A bias in int32 is in units of ``input scale * weight scale``, which float32 holds to 2**-24: below 2**22 no bias changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from accel.errors import NetworkError
from accel.graph.edit import KINDS, Editor, Grid, check, grid, numpy_type
from accel.graph.graph import Array, Graph, Node
from accel.quant import quantise

MICROSOFT = "com.microsoft"
WIDE = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
"""Floating-point types that become float32: what lies between two quantisers is exact here, and rounded once."""

REFUSED = {
    "Attention": "MatMul and Softmax spelled out",
    "DynamicQuantizeLSTM": "an operator without state",
    "EmbedLayerNormalization": "Gather, Add and LayerNormalization spelled out",
    "GatherBlockQuantized": "quantised per tensor or per channel, not in blocks",
    "MatMulBnb4": "quantised per tensor or per channel, not in blocks",
    "MatMulFpQ4": "quantised per tensor or per channel, not in blocks",
    "MatMulNBits": "quantised per tensor or per channel, not in blocks",
    "MultiHeadAttention": "MatMul and Softmax spelled out",
    "QAttention": "MatMul and Softmax spelled out",
    "QEmbedLayerNormalization": "Gather, Add and LayerNormalization spelled out",
    "QMoE": "quantised per tensor or per channel, not in blocks",
}

FEWEST = {  # inputs and outputs of the operators that are looked into before any is rewritten
    "Cast": (1, 1),
    "Clip": (1, 1),
    "ConvInteger": (2, 1),
    "DequantizeLinear": (2, 1),
    "DynamicQuantizeLinear": (1, 3),
    "MatMulInteger": (2, 1),
    "Mul": (2, 1),
    "QuantizeLinear": (2, 1),
    "Relu": (1, 1),
}
DEPTH = 8  # of products of scales: theirs are of two

Rule = Callable[[Editor, Node], None]
RULES: dict[tuple[str, str], tuple[Rule, int]] = {}
"""What rewrites an operator, and the fewest inputs it has."""


def _rewrites(*kinds: str, inputs: int, domain: str = MICROSOFT) -> Callable[[Rule], Rule]:
    """Register the function that rewrites these operators, of so many inputs or more."""

    def register(function: Rule) -> Rule:
        RULES.update({(domain, kind): (function, inputs) for kind in kinds})
        return function

    return register


def rewrite(graph: Graph) -> Graph:
    """Bring every quantised operator down to QuantizeLinear, DequantizeLinear and plain float operators.

    Parameters
    ----------
    graph : Graph
        Constants bound.

    Returns
    -------
    Graph
        Canonical but for QONNX: a Clip of integers behind a QuantizeLinear is merged into its `lo` and `hi`, operators that choose among
        integers are float operators, and a product of dynamically quantised activations is that of the float ones, for a calibration to
        quantise. MatMulInteger and ConvInteger stay where their int32 result is used as integers.

    Raises
    ------
    NetworkError
        If a scale or zero point is not constant, or an operator has no form of its own; the message names the node.
    """
    for node in graph.nodes:
        if node.domain == MICROSOFT and node.kind in REFUSED:
            raise NetworkError(f"operator of {node} must be {REFUSED[node.kind]}, not {MICROSOFT}.{node.kind}")
        if node.domain in ("", MICROSOFT) and node.kind in FEWEST:
            check(node, *FEWEST[node.kind])
        if node.kind in ("QuantizeLinear", "DequantizeLinear") and node.attributes.get("block_size", 0):
            raise NetworkError(f"block_size of {node} must be 0, one scale per tensor or channel, not {node.attributes['block_size']}")
    graph = _single(graph)
    editor, tails = Editor(graph), _tails(graph)
    dynamic = {node.outputs[0]: node for node in graph.nodes if node.kind == "DynamicQuantizeLinear" and not node.domain}
    skipped = {id(node) for tail in tails.values() for node in tail.nodes}
    for node in graph.nodes:
        if id(node) in skipped:
            continue
        if id(node) in tails:
            _integer_product(editor, node, tails[id(node)], dynamic)
        elif (node.domain, node.kind) in RULES:
            rule, inputs = RULES[node.domain, node.kind]
            check(node, inputs)
            rule(editor, node)
        elif (
            node.kind == "DequantizeLinear"
            and not node.domain
            and node.inputs[0] in dynamic
            and node.inputs == dynamic[node.inputs[0]].outputs
        ):
            editor.alias(node.outputs[0], dynamic[node.inputs[0]].inputs[0])
        else:
            editor.keep(node)
    return _lifted(editor.finish())


def _single(graph: Graph) -> Graph:
    """Make float16, bfloat16 and float64 float32 everywhere."""

    def narrow(kind: int) -> int:
        return TensorProto.FLOAT if kind in WIDE else kind

    def attribute(node: Node, name: str, value: Any) -> Any:
        if isinstance(value, Array):
            return _single_array(value)
        return narrow(value) if (node.kind, name) in (("Cast", "to"), ("DequantizeLinear", "output_dtype")) else value

    if not any(kind in WIDE for kind in [*(array.kind for array in graph.constants.values()), *graph.kinds.values()]):
        return graph
    return replace(
        graph,
        nodes=tuple(
            replace(node, attributes={name: attribute(node, name, value) for name, value in node.attributes.items()})
            for node in graph.nodes
        ),
        constants={name: _single_array(array) for name, array in graph.constants.items()},
        inputs={name: replace(port, kind=narrow(port.kind)) for name, port in graph.inputs.items()},
        kinds={name: narrow(kind) for name, kind in graph.kinds.items()},
    )


def _single_array(array: Array) -> Array:
    if array.kind not in WIDE:
        return array
    if not array.known:
        return Array.unknown(array.values.shape)
    with np.errstate(over="ignore"):
        return Array(array.values.astype(np.float32), TensorProto.FLOAT)


# Operators of integers with their scales.


def _operand(editor: Editor, node: Node, at: int, *, scale: int, zero: int, axis: int | None = None) -> tuple[str, Grid]:
    """Dequantise an input of a node: the name of the reals, and their grid."""
    x = editor.given(node, at)
    if x is None:
        raise NetworkError(f"input {at} of {node} must be given, not left out")
    found = editor.grid(node, scale, zero, editor.kind(x), axis)
    return editor.dequantise(x, found, editor.fresh(f"{x}/real")), found


def _result(editor: Editor, node: Node, kind: str, inputs: Sequence[str], to: Grid, attributes: dict[str, Any] | None = None) -> None:
    """Add the float operator of a node, and the quantiser that rounds its result."""
    output, shape = node.outputs[0], editor.shapes.get(node.outputs[0])
    real = editor.emit(kind, inputs, editor.fresh(f"{output}/real"), attributes=attributes, name=node.name, shape=shape)
    editor.quantise(real, to, output)


def _kept(node: Node, *dropped: str) -> dict[str, Any]:
    return {name: value for name, value in node.attributes.items() if name not in dropped}


def _channels_first(editor: Editor, node: Node, x: str) -> str:
    """Move channels from last to second, of an image (batch, height, width, channels) or of what has as many axes as its shape says."""
    shape = editor.shapes.get(x)
    axes = len(shape) if shape else len(node.attributes.get("kernel_shape", (1, 1))) + 2
    order = [0, axes - 1, *range(1, axes - 1)]
    moved = tuple(shape[at] for at in order) if shape else None
    output = editor.fresh(f"{x}/channels_first")
    return editor.emit("Transpose", [x], output, attributes={"perm": order}, shape=moved, element=editor.kinds.get(x, TensorProto.FLOAT))


def _channels_last(editor: Editor, node: Node, x: str, output: str, name: str | None = None) -> str:
    """Move channels from second to last: the inverse of :func:`_channels_first`."""
    shape = editor.shapes.get(x) or editor.shapes.get(output)
    axes = len(shape) if shape else len(node.attributes.get("kernel_shape", (1, 1))) + 2
    order, element = [0, *range(2, axes), 1], editor.kinds.get(x, TensorProto.FLOAT)
    return editor.emit("Transpose", [x], output, attributes={"perm": order}, name=name, shape=editor.shapes.get(output), element=element)


def _spatial(editor: Editor, node: Node, kind: str, inputs: list[str], to: Grid, attributes: dict[str, Any]) -> None:
    """Add an operator on images whose channels may come last."""
    if not node.attributes.get("channels_last", 0):
        return _result(editor, node, kind, inputs, to, attributes)
    output = node.outputs[0]
    inputs = [_channels_first(editor, node, inputs[0]), *inputs[1:]]
    first = editor.emit(kind, inputs, editor.fresh(f"{output}/channels_first"), attributes=attributes, name=node.name)
    editor.quantise(_channels_last(editor, node, first, editor.fresh(f"{output}/real")), to, output)


@_rewrites("QLinearConv", inputs=8, domain="")
@_rewrites("QLinearConv", inputs=8)
def _conv(editor: Editor, node: Node) -> None:
    x, of_x = _operand(editor, node, 0, scale=1, zero=2)
    w, of_w = _operand(editor, node, 3, scale=4, zero=5, axis=0)
    inputs = [x, w, *_bias(editor, node, 8, of_x, of_w)]
    _spatial(editor, node, "Conv", inputs, editor.grid(node, 6, 7, of_x.kind), _kept(node, "channels_last"))


def _bias(editor: Editor, node: Node, at: int, *of: Grid, factor: float = 1.0) -> list[str]:
    """Dequantise a bias in units of the product of these scales; no input where it is left out."""
    name = editor.given(node, at)
    if name is None:
        return []
    scale = np.asarray(factor, np.float64)
    for each in of:
        scale = scale * each.scale.astype(np.float64)
    units = grid(node, scale, None, TensorProto.INT32, axis=0)
    return [editor.dequantise(name, units, editor.fresh(f"{name}/real"))]


@_rewrites("QLinearMatMul", inputs=8, domain="")
@_rewrites("QLinearMatMul", inputs=8)
def _matmul(editor: Editor, node: Node) -> None:
    a, of_a = _operand(editor, node, 0, scale=1, zero=2, axis=-2)
    b, _ = _operand(editor, node, 3, scale=4, zero=5, axis=-1)
    _result(editor, node, "MatMul", [a, b], editor.grid(node, 6, 7, of_a.kind))


@_rewrites("QGemm", inputs=6)
def _gemm(editor: Editor, node: Node) -> None:
    a, of_a = _operand(editor, node, 0, scale=1, zero=2)
    b, of_b = _operand(editor, node, 3, scale=4, zero=5, axis=0 if node.attributes.get("transB", 0) else 1)
    inputs = [a, b, *_bias(editor, node, 6, of_a, of_b, factor=node.attributes.get("alpha", 1.0))]
    if editor.given(node, 7) is None:
        editor.emit("Gemm", inputs, node.outputs[0], attributes=node.attributes, name=node.name, shape=editor.shapes.get(node.outputs[0]))
    else:
        _result(editor, node, "Gemm", inputs, editor.grid(node, 7, 8, of_a.kind), dict(node.attributes))


@_rewrites("QLinearAdd", "QLinearMul", inputs=7)
def _pair(editor: Editor, node: Node) -> None:
    a, of_a = _operand(editor, node, 0, scale=1, zero=2)
    b, _ = _operand(editor, node, 3, scale=4, zero=5)
    _result(editor, node, node.kind.removeprefix("QLinear"), [a, b], editor.grid(node, 6, 7, of_a.kind))


@_rewrites("QLinearWhere", inputs=8)
def _where(editor: Editor, node: Node) -> None:
    x, of_x = _operand(editor, node, 1, scale=2, zero=3)
    y, _ = _operand(editor, node, 4, scale=5, zero=6)
    _result(editor, node, "Where", [editor.names(node)[0], x, y], editor.grid(node, 7, 8, of_x.kind))


@_rewrites("QLinearSigmoid", "QLinearLeakyRelu", inputs=4)
def _pointwise(editor: Editor, node: Node) -> None:
    x, of_x = _operand(editor, node, 0, scale=1, zero=2)
    _result(editor, node, node.kind.removeprefix("QLinear"), [x], editor.grid(node, 3, 4, of_x.kind), dict(node.attributes))


@_rewrites("QLinearAveragePool", "QLinearGlobalAveragePool", inputs=4)
def _pool(editor: Editor, node: Node) -> None:
    x, of_x = _operand(editor, node, 0, scale=1, zero=2)
    to = editor.grid(node, 3, 4, of_x.kind)
    _spatial(editor, node, node.kind.removeprefix("QLinear"), [x], to, _kept(node, "channels_last"))


@_rewrites("QLinearReduceMean", inputs=4)
def _reduce_mean(editor: Editor, node: Node) -> None:
    x, of_x = _operand(editor, node, 0, scale=1, zero=2)
    axes = editor.constant(f"{node.outputs[0]}/axes", Array.of(np.array(node.attributes.get("axes", []), np.int64)))
    editor.opset = max(editor.opset, 18)  # axes as an input
    _result(editor, node, "ReduceMean", [x, axes], editor.grid(node, 3, 4, of_x.kind), _kept(node, "axes"))


@_rewrites("QLinearConcat", inputs=3)
def _concat(editor: Editor, node: Node) -> None:
    if len(node.inputs) % 3 != 2 or len(node.inputs) < 5:
        raise NetworkError(
            f"inputs of {node} must be a scale, a zero point and threes of tensor, scale and zero point, not {len(node.inputs)}"
        )
    inputs = [_operand(editor, node, at, scale=at + 1, zero=at + 2)[0] for at in range(2, len(node.inputs), 3)]
    _result(editor, node, "Concat", inputs, editor.grid(node, 0, 1, editor.kind(editor.names(node)[2])), dict(node.attributes))


@_rewrites("QLinearSoftmax", inputs=4)
def _softmax(editor: Editor, node: Node) -> None:
    x, of_x = _operand(editor, node, 0, scale=1, zero=2)
    to, axis, shape = editor.grid(node, 3, 4, of_x.kind), node.attributes.get("axis", -1), editor.shapes.get(node.inputs[0])
    if node.attributes.get("opset", 13) >= 13 or axis == -1 or (shape and axis == len(shape) - 1):
        return _result(editor, node, "Softmax", [x], to, {"axis": axis})
    if shape is None:
        raise NetworkError(f"axis of {node} must be the last where the shape of its input is not known, not {axis}")
    output = node.outputs[0]  # before opset 13: over all axes from this one
    flat = editor.emit("Flatten", [x], editor.fresh(f"{output}/flat"), attributes={"axis": axis})
    soft = editor.emit("Softmax", [flat], editor.fresh(f"{output}/softmax"), attributes={"axis": 1}, name=node.name)
    form = editor.constant(f"{output}/shape", Array.of(np.array(shape, np.int64)))
    editor.quantise(editor.emit("Reshape", [soft, form], editor.fresh(f"{output}/real"), shape=shape), to, output)


@_rewrites("QuantizeLinear", "DequantizeLinear", inputs=2)
def _quantiser(editor: Editor, node: Node) -> None:
    """Quantisers that onnxruntime had before ONNX did."""
    x = editor.names(node)[0]
    if node.kind == "QuantizeLinear":
        editor.quantise(x, editor.grid(node, 1, 2, axis=node.attributes.get("axis", 1)), node.outputs[0], name=node.name)
    else:
        editor.dequantise(x, editor.grid(node, 1, 2, editor.kind(x), node.attributes.get("axis", 1)), node.outputs[0], name=node.name)


@_rewrites("NhwcMaxPool", inputs=1)
def _max_pool(editor: Editor, node: Node) -> None:
    x, output = editor.names(node)[0], node.outputs[0]
    first, element = _channels_first(editor, node, x), editor.kind(x) or TensorProto.FLOAT
    pooled = editor.fresh(f"{output}/channels_first")
    editor.emit("MaxPool", [first], pooled, attributes=node.attributes, name=node.name, element=element)
    _channels_last(editor, node, pooled, output)


# Operators that onnxruntime's optimiser makes of several.


Step = tuple[str, Sequence[str], dict[str, Any]]


def _chain(editor: Editor, node: Node, steps: Sequence[Step], x: str) -> None:
    """Add operators one behind the other, the first under the node's name, the last writing its output.

    Parameters
    ----------
    editor : Editor
    node : Node
    steps : sequence of (kind, further inputs, attributes)
    x : str
        First input of the first.
    """
    output = node.outputs[0]
    for at, (kind, more, attributes) in enumerate(steps):
        name = output if at == len(steps) - 1 else editor.fresh(f"{output}/{kind.lower()}")
        x = editor.emit(kind, [x, *more], name, attributes=attributes, name=node.name if at == 0 else None, shape=editor.shapes.get(output))


def _number(editor: Editor, node: Node, name: str, value: float) -> str:
    return editor.constant(f"{node.outputs[0]}/{name}", Array.of(np.float32(value)))


def _activation(editor: Editor, node: Node, parameters: Sequence[float]) -> list[Step]:
    """Step of the activation that is fused into a node; none without one."""
    kind = node.attributes.get("activation", "")
    names = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Relu": (), "Sigmoid": (), "Tanh": ()}
    if not kind:
        return []
    if kind == "Clip" and len(parameters) == 2:
        return [("Clip", [_number(editor, node, name, value) for name, value in zip(("min", "max"), parameters, strict=True)], {})]
    if kind not in names:
        raise NetworkError(f"activation of {node} must be one of Clip, {', '.join(sorted(names))}, not {kind}")
    return [(kind, [], dict(zip(names[kind], parameters, strict=False)))]


@_rewrites("FusedConv", "NhwcFusedConv", inputs=2)
def _fused_conv(editor: Editor, node: Node) -> None:
    attributes = _kept(node, "activation", "activation_params")
    x, w, *rest = editor.names(node)
    bias, addend = (*rest, "", "")[:2]
    more = _activation(editor, node, node.attributes.get("activation_params", ()))
    steps: list[Step] = [("Conv", [w, bias] if bias else [w], attributes), *([("Add", [addend], {})] if addend else []), *more]
    if node.kind == "FusedConv":
        return _chain(editor, node, steps, x)
    if addend:
        addend = _channels_first(editor, node, addend)
        steps[1] = ("Add", [addend], {})
    output = node.outputs[0]
    inner = replace(node, outputs=(editor.fresh(f"{output}/channels_first"),))
    _chain(editor, inner, steps, _channels_first(editor, node, x))
    _channels_last(editor, node, inner.outputs[0], output)


@_rewrites("FusedGemm", inputs=2)
def _fused_gemm(editor: Editor, node: Node) -> None:
    x, *rest = editor.names(node)
    fused = ("activation_alpha", "activation_beta", "activation_gamma")
    parameters = [node.attributes[name] for name in fused if name in node.attributes]
    steps: list[Step] = [("Gemm", rest, _kept(node, "activation", *fused)), *_activation(editor, node, parameters)]
    _chain(editor, node, steps, x)


@_rewrites("FusedMatMul", inputs=2)
def _fused_matmul(editor: Editor, node: Node) -> None:
    factors = []
    for index, name in enumerate(editor.names(node)[:2]):
        wanted, shape = node.attributes.get(f"trans{'AB'[index]}", 0), editor.shapes.get(name)
        if node.attributes.get(f"transBatch{'AB'[index]}", 0):
            raise NetworkError(f"transBatch{'AB'[index]} of {node} must be 0, not 1")
        if wanted and shape is None:
            raise NetworkError(f"trans{'AB'[index]} of {node} must be 0 where the shape of {name!r} is not known, not {wanted}")
        if wanted and shape is not None and len(shape) > 1:
            order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            name = editor.emit(
                "Transpose",
                [name],
                editor.fresh(f"{name}/transposed"),
                attributes={"perm": order},
                shape=tuple(shape[at] for at in order),
            )
        factors.append(name)
    alpha = node.attributes.get("alpha", 1.0)
    steps: list[Step] = [("MatMul", factors[1:], {}), *([("Mul", [_number(editor, node, "alpha", alpha)], {})] if alpha != 1.0 else [])]
    _chain(editor, node, steps, factors[0])


@_rewrites("BiasGelu", inputs=2)
@_rewrites("Gelu", "FastGelu", inputs=1)
def _gelu(editor: Editor, node: Node) -> None:
    editor.opset = max(editor.opset, 20)
    x, *bias = (name for name in editor.names(node) if name)
    attributes = {"approximate": "tanh"} if node.kind == "FastGelu" else {}
    _chain(editor, node, [*([("Add", bias, {})] if bias else []), ("Gelu", [], attributes)], x)


@_rewrites("QuickGelu", inputs=1)
def _quick_gelu(editor: Editor, node: Node) -> None:
    x, alpha = editor.names(node)[0], _number(editor, node, "alpha", node.attributes.get("alpha", 1.702))
    output, shape = node.outputs[0], editor.shapes.get(node.outputs[0])
    scaled = editor.emit("Mul", [x, alpha], editor.fresh(f"{output}/scaled"), shape=shape)
    gate = editor.emit("Sigmoid", [scaled], editor.fresh(f"{output}/gate"), shape=shape)
    editor.emit("Mul", [x, gate], output, name=node.name, shape=shape)


@_rewrites("SkipLayerNormalization", inputs=3)
def _skip_layer_normalization(editor: Editor, node: Node) -> None:
    x, skip, gamma, *rest = editor.names(node)
    beta, bias = (*rest, "", "")[:2]
    if any(node.outputs[1:3]):
        raise NetworkError(f"mean and inv_std_var of {node} must be left out, not {' and '.join(filter(None, node.outputs[1:3]))}")
    editor.opset = max(editor.opset, 17)
    total = node.outputs[3] if len(node.outputs) > 3 and node.outputs[3] else editor.fresh(f"{node.outputs[0]}/sum")
    shape = editor.shapes.get(x)
    if bias:
        skip = editor.emit("Add", [skip, bias], editor.fresh(f"{node.outputs[0]}/skip"), shape=shape)
    editor.emit("Add", [x, skip], total, shape=shape)
    attributes = {"axis": -1, "epsilon": node.attributes.get("epsilon", 1e-12)}
    editor.emit(
        "LayerNormalization", filter(None, [total, gamma, beta]), node.outputs[0], attributes=attributes, name=node.name, shape=shape
    )


# Products in int32, and dynamic quantisation.


@dataclass(frozen=True, slots=True)
class _Tail:
    """What makes reals of an integer product: Cast, then Muls by constants and by scales of dynamic quantisers.

    Parameters
    ----------
    output : str
        The reals.
    factor : array
        Product of the constants.
    scales : tuple of str
        Scales that are computed.
    nodes : tuple of Node
        What is replaced.
    """

    output: str
    factor: NDArray[np.float64]
    scales: tuple[str, ...]
    nodes: tuple[Node, ...]


def _tails(graph: Graph) -> dict[int, _Tail]:
    """Find the integer products that become float ones, by identity of the node."""
    readers: dict[str, list[Node]] = {}
    writers: dict[str, Node] = {}
    for node in graph.nodes:
        writers.update(dict.fromkeys(node.outputs, node))
        for name in node.inputs:
            readers.setdefault(name, []).append(node)

    def only(name: str) -> Node | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and name not in graph.outputs else None

    def factors(name: str, depth: int = 0) -> tuple[NDArray[np.float64], tuple[str, ...]] | None:
        """Constants and computed scales whose product this tensor is."""
        if name in graph.constants:
            array = graph.constants[name]
            return (np.asarray(array.values, np.float64), ()) if array.known else None
        writer = writers.get(name)
        if writer is not None and writer.kind == "DynamicQuantizeLinear" and name == writer.outputs[1]:
            return np.ones(()), (name,)
        if writer is None or writer.kind != "Mul" or writer.domain or depth > DEPTH:
            return None
        left, right = (factors(each, depth + 1) for each in writer.inputs[:2])
        product = None if left is None or right is None else _product(left[0], right[0])
        return None if product is None or left is None or right is None else (product, left[1] + right[1])

    def tail(node: Node) -> _Tail | None:
        step = only(node.outputs[0])
        if step is None or step.kind != "Cast" or step.attributes.get("to") != TensorProto.FLOAT:
            return None
        nodes, output, factor = [step], step.outputs[0], np.ones(())
        scales: tuple[str, ...] = ()
        while (step := only(output)) is not None and step.kind == "Mul" and not step.domain:
            found = factors(next((name for name in step.inputs if name != output), output))
            product = None if found is None else _product(factor, found[0])
            if found is None or product is None:
                break
            nodes.append(step)
            output, factor, scales = step.outputs[0], product, scales + found[1]
        return _Tail(output, factor, scales, tuple(nodes))

    dynamic = {node.outputs[0]: node.outputs[1] for node in graph.nodes if node.kind == "DynamicQuantizeLinear"}
    found = {}
    for node in graph.nodes:
        if node.kind in ("MatMulInteger", "ConvInteger") and not node.domain:
            what = tail(node)
            wanted = sorted(dynamic[name] for name in node.inputs[:2] if name in dynamic)
            if what is not None and sorted(what.scales) == wanted:
                found[id(node)] = what
    return found


def _product(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Product of scales that run along the same axis, if any; else None."""
    if a.size != 1 and b.size != 1 and a.shape != b.shape:
        return None
    with np.errstate(over="ignore"):
        return np.asarray(a * b)


def _integer_product(editor: Editor, node: Node, tail: _Tail, dynamic: dict[str, Node]) -> None:
    """Write ``MatMulInteger -> Cast -> Mul`` as a product of reals.

    What a dynamic quantiser wrote is real already; what another quantiser wrote has its scale; the weights take what remains of the factor.
    """
    conv, remaining = node.kind == "ConvInteger", np.asarray(tail.factor, np.float64)
    names, reals = editor.names(node)[:2], ["", ""]
    for at, name in enumerate(names):
        if name in dynamic:
            reals[at] = dynamic[name].inputs[0]
    source = None if reals[0] else _written(editor, names[0])
    if source is not None and not _same_zero(editor, node, source):
        source = None
    if source is not None and editor.array(source, 1, "scale") is not None and editor.constants[source.inputs[1]].values.size == 1:
        remaining = remaining / editor.constants[source.inputs[1]].values.astype(np.float64).reshape(())
        reals[0] = editor.dequantise(names[0], editor.grid(source, 1, 2), editor.fresh(f"{names[0]}/real"))
    carried = _carried(remaining, conv) if not reals[1] else None
    for at, name in enumerate(names):
        if not reals[at]:
            zeros = editor.array(node, at + 2, "zero point")
            kind, axis = editor.kind(name) or (zeros.kind if zeros else TensorProto.UINT8), (-2, 0 if conv else -1)[at]
            scale = carried if at == 1 and carried is not None else np.ones(())
            of = grid(node, scale, None if zeros is None else zeros.values, kind, axis)
            reals[at] = editor.dequantise(name, of, editor.fresh(f"{name}/real"))
    steps: list[Step] = [("Conv" if conv else "MatMul", reals[1:], dict(node.attributes))]
    if carried is None and (remaining != 1).any():
        factor = editor.constant(f"{tail.output}/factor", Array.of(remaining.astype(np.float32)))
        steps.append(("Mul", [factor], {}))
    _chain(editor, replace(node, outputs=(tail.output,)), steps, reals[0])


def _same_zero(editor: Editor, node: Node, source: Node) -> bool:
    """Whether an integer product subtracts the zero point with which its first operand was quantised."""
    zeros = (editor.array(node, 2, "zero point"), editor.array(source, 2, "zero point"))
    own, given = (np.zeros(1, np.int64) if zero is None else zero.values.ravel() for zero in zeros)
    return bool((own.astype(np.int64) == given.astype(np.int64)).all())


def _carried(factor: NDArray[np.float64], conv: bool) -> NDArray[np.float64] | None:
    """Factor of a product as a scale of its second operand, or None where it runs along another axis than that operand's columns."""
    if factor.size == 1:
        return factor.reshape(())
    channel = -3 if conv else -1
    return factor.ravel() if factor.ndim >= -channel and factor.shape[channel] == factor.size else None


def _written(editor: Editor, name: str) -> Node | None:
    """QuantizeLinear that writes this tensor."""
    return next((node for node in reversed(editor.nodes) if node.kind == "QuantizeLinear" and name in node.outputs), None)


@_rewrites("DynamicQuantizeMatMul", inputs=3)
def _dynamic_matmul(editor: Editor, node: Node) -> None:
    b, _ = _operand(editor, node, 1, scale=2, zero=3, axis=-1)
    bias = editor.given(node, 4)
    _chain(editor, node, [("MatMul", [b], {}), *([("Add", [bias], {})] if bias else [])], editor.names(node)[0])


@_rewrites("MatMulIntegerToFloat", inputs=4)
def _matmul_to_float(editor: Editor, node: Node) -> None:
    source = next((each for each in editor.graph.nodes if each.kind == "DynamicQuantizeLinear" and node.inputs[0] in each.outputs), None)
    if source is not None and node.inputs[2] == source.outputs[1]:
        a = source.inputs[0]
    else:
        a, _ = _operand(editor, node, 0, scale=2, zero=4, axis=-2)
    b, _ = _operand(editor, node, 1, scale=3, zero=5, axis=-1)
    bias = editor.given(node, 6)
    _chain(editor, node, [("MatMul", [b], {}), *([("Add", [bias], {})] if bias else [])], a)


# Operators on the integers behind a quantiser.

CHOOSING = ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Max", "Min", "ArgMax", "ArgMin")
"""Operators that choose among elements: a grid's reals are ordered as its integers are."""
MOVING = ("Concat", "Expand", "Flatten", "Gather", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")
"""Operators that move elements."""


def _lifted(graph: Graph) -> Graph:
    """Write what works on a quantiser's integers as a float operator, and a Clip of them as bounds of the quantiser."""
    editor = Editor(graph)
    held: dict[str, Node] = {}  # the quantiser whose grid a tensor of integers has
    for node in graph.nodes:
        inputs = editor.names(node)
        if node.kind == "QuantizeLinear" and not node.domain:
            _quantised(editor, replace(node, inputs=inputs), held)
        elif node.kind in ("Clip", "Relu") and not node.domain and inputs[0] in held:
            _clip(editor, node, held)
        elif node.kind == "Clip" and not node.domain and inputs[0] in editor.constants and editor.constants[inputs[0]].kind in KINDS:
            _clip_constant(editor, node)
        elif node.kind in CHOOSING + MOVING and not node.domain and inputs and inputs[0] in held and _alike(editor, node, held):
            _lift(editor, node, held)
        else:
            editor.keep(node)
    return editor.finish()


def _quantised(editor: Editor, node: Node, held: dict[str, Node]) -> None:
    """Take a quantiser over; that of a constant becomes its integers."""
    array = editor.constants.get(node.inputs[0])
    zero = editor.given(node, 2)
    known = all(name in editor.constants for name in (node.inputs[1], zero or node.inputs[1]))
    kind = editor.constants[zero].kind if zero in editor.constants else node.attributes.get("output_dtype", 0) or TensorProto.UINT8
    if array is None or not known or kind not in KINDS or array.kind != TensorProto.FLOAT or node.outputs[0] in editor.graph.outputs:
        editor.keep(node)
        editor.kinds[node.outputs[0]] = kind
        held.update({node.outputs[0]: node} if known and kind in KINDS else {})
        return
    shape = array.values.shape
    if not array.known:
        folded = Array.unknown(shape, kind)
    else:
        found = editor.grid(node, 1, 2, kind, node.attributes.get("axis", 1))
        if np.isnan(array.values).any():
            raise NetworkError(f"input 0 of {node} must be float32 without NaN, not with it")
        if found.axis is not None and (not -len(shape) <= found.axis < len(shape) or shape[found.axis] != found.scale.size):
            raise NetworkError(f"scale of {node} must have one number for each of axis {found.axis} of {shape}, not {found.scale.size}")
        integers = quantise(array.values, found.scale, found.zero, KINDS[kind], found.axis)
        folded = Array(integers.astype(numpy_type(kind)), kind)
    editor.aliases[node.outputs[0]] = editor.constant(f"{node.outputs[0]}/integers", folded)


def _bounds(editor: Editor, node: Node) -> tuple[int | None, int | None]:
    """Bounds of a Clip of integers, or of a Relu, which is one."""
    if node.kind == "Relu":
        return 0, None
    arrays = (editor.array(node, 1, "min"), editor.array(node, 2, "max"))
    for array, what in zip(arrays, ("min", "max"), strict=True):
        if array is not None and (array.values.size != 1 or array.values.dtype.kind not in "iu"):
            raise NetworkError(f"{what} of {node} must be one integer, not {array.values.size} of {array.values.dtype}")
    low, high = (None if array is None else int(array.values.item()) for array in arrays)
    return low, high


def _clip(editor: Editor, node: Node, held: dict[str, Node]) -> None:
    """Merge a Clip of integers into the quantiser that writes them."""
    source = held[editor.names(node)[0]]
    if source.kind != "QuantizeLinear":
        return editor.keep(node)
    zero = editor.given(source, 2)
    limits = KINDS[editor.constants[zero].kind if zero else source.attributes.get("output_dtype", 0) or TensorProto.UINT8]
    low, high = _bounds(editor, node)
    lo, hi = source.attributes.get("lo", limits.lo), source.attributes.get("hi", limits.hi)
    lo, hi = (min(max(bound, limits.lo if low is None else low), limits.hi if high is None else high) for bound in (lo, hi))
    clipped = replace(source, name=node.name, outputs=node.outputs, attributes={**source.attributes, "lo": lo, "hi": hi})
    editor.nodes.append(clipped)
    editor.kinds[node.outputs[0]] = editor.kinds[source.outputs[0]]
    held[node.outputs[0]] = clipped


def _clip_constant(editor: Editor, node: Node) -> None:
    """Clip constant integers."""
    array = editor.constants[editor.names(node)[0]]
    if array.known:
        limits = np.iinfo(array.values.dtype)
        low, high = _bounds(editor, node)
        low, high = limits.min if low is None else low, limits.max if high is None else high
        array = Array(np.minimum(np.maximum(array.values, low), high).astype(array.values.dtype), array.kind)
    editor.alias(node.outputs[0], editor.constant(f"{node.outputs[0]}/integers", array))


def _parameters(editor: Editor, node: Node) -> tuple[Any, ...]:
    """Scale, zero point and type of a quantiser, to compare."""
    scale, zero = editor.constants[node.inputs[1]], editor.given(node, 2)
    array = editor.constants[zero] if zero else None
    return scale.values.tolist(), array.values.tolist() if array else 0, array.kind if array else node.attributes.get("output_dtype", 0)


def _alike(editor: Editor, node: Node, held: dict[str, Node]) -> bool:
    """Whether a node's integers have one grid, per tensor, that its results keep."""
    names = editor.names(node)
    operands = names if node.kind in ("Concat", "Max", "Min") else (names[0], names[2]) if node.kind == "Pad" and names[2:3] else names[:1]
    grids = [_parameters(editor, held[name]) for name in operands if name in held]
    constant = all(name in held or (name in editor.constants and editor.constants[name].kind in KINDS) for name in operands if name)
    scalar = all(editor.constants[held[name].inputs[1]].values.size == 1 for name in operands if name in held)
    return constant and scalar and all(each == grids[0] for each in grids)


def _lift(editor: Editor, node: Node, held: dict[str, Node]) -> None:
    """Add the float operator of one on integers, between the grid's dequantiser and quantiser."""
    names = editor.names(node)
    source = held[names[0]]
    every = node.kind in ("Concat", "Max", "Min")

    def real(name: str) -> str:
        reals = editor.fresh(f"{name}/real")
        return editor.emit("DequantizeLinear", [name, *source.inputs[1:]], reals, shape=editor.shapes.get(name))

    inputs = [real(name) if name and (every or at == 0 or (node.kind == "Pad" and at == 2)) else name for at, name in enumerate(names)]
    if node.kind in ("ArgMax", "ArgMin"):
        editor.kinds[node.outputs[0]] = TensorProto.INT64
        return editor.nodes.append(replace(node, inputs=tuple(inputs)))
    if any(node.outputs[1:]) and node.kind != "Split":
        raise NetworkError(f"{node} must have one output, not {len(node.outputs)}")
    inner = tuple(editor.fresh(f"{name}/real") if name else name for name in node.outputs)
    if node.kind == "Pad" and not names[2:3] and node.attributes.get("mode", "constant") == "constant":
        zero = (
            editor.constants[source.inputs[2]] if editor.given(source, 2) else None
        )  # integers are padded with 0, not with the zero point
        filler = Array.of(np.zeros((), numpy_type(zero.kind)), zero.kind) if zero else Array.of(np.zeros((), np.uint8))
        inputs = [*inputs[:2], real(editor.constant(f"{node.outputs[0]}/padding", filler)), *names[3:]]
    editor.nodes.append(replace(node, inputs=tuple(inputs), outputs=inner))
    for name, output in zip(inner, node.outputs, strict=True):
        if output:
            editor.kinds[name] = TensorProto.FLOAT
            if output in editor.shapes:
                editor.shapes[name] = editor.shapes[output]
            attributes = {key: value for key, value in source.attributes.items() if key == "output_dtype"}
            kind = editor.kinds[source.outputs[0]]
            editor.emit(
                "QuantizeLinear", [name, *source.inputs[1:]], output, attributes=attributes, shape=editor.shapes.get(output), element=kind
            )
            held[output] = editor.nodes[-1]
