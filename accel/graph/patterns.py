"""Operators that a file spells out in smaller ones, recognised and put together again.

A spelling is recognised only where no tensor inside it is read from outside, quantised or a graph output: what a file quantises step by
step stays as it is. Constants of a spelling may be those of float16, so they are compared to half its precision.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from accel.graph.graph import Array, Graph, Node

PRECISION = 2.0**-11  # of a constant rounded to float16
NEWEST = {"LayerNormalization": 17, "Gelu": 20, "Swish": 24, "HardSwish": 14, "Mish": 18, "Softmax": 13}  # opsets that have them so
DEPTH, TERMS, DEGREE = 8, 6, 3  # of the polynomials that are multiplied out: those of the spellings, and no larger

Polynomial = dict[tuple[str, ...], float]  # factors of each term, sorted by name; () is the constant term


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A spelling that was found.

    Parameters
    ----------
    inside : frozenset of int
        Positions of its nodes, the last one included.
    node : Node
        What stands for them.
    constants : dict of str to Array
        What the new node reads beside what was there.
    """

    inside: frozenset[int]
    node: Node
    constants: dict[str, Array] = field(default_factory=dict)


class Reader:
    """Who writes and who reads each tensor of a graph, and what an expression is as a polynomial.

    Parameters
    ----------
    graph : Graph
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.writers = {name: at for at, node in enumerate(graph.nodes) for name in node.outputs if name}
        self.readers: defaultdict[str, set[int]] = defaultdict(set)
        for at, node in enumerate(graph.nodes):
            for name in node.inputs:
                self.readers[name].add(at)
        for name in graph.outputs:
            self.readers[name].add(-1)  # the caller

    def writer(self, name: str, *kinds: str) -> int | None:
        """Position of the node that writes a tensor, if it is one of these operators of ONNX's own."""
        at = self.writers.get(name)
        if at is None:
            return None
        node = self.graph.nodes[at]
        return at if node.kind in kinds and node.domain in ("", "ai.onnx") and len(node.outputs) == 1 else None

    def step(self, name: str, *kinds: str) -> Node | None:
        """Node that writes a tensor, if it is one of these operators."""
        at = self.writer(name, *kinds)
        return None if at is None else self.graph.nodes[at]

    def array(self, name: str) -> NDArray[Any] | None:
        """Values of a constant whose values are known."""
        constant = self.graph.constants.get(name)
        return constant.values if constant is not None and constant.known else None

    def number(self, name: str) -> float | None:
        """Value of a constant of one element."""
        values = self.array(name)
        return float(values.item()) if values is not None and values.size == 1 and values.dtype.kind in "fiu" else None

    def axes(self, node: Node) -> tuple[int, ...] | None:
        """Axes that a reduction runs over, sorted; None where they or its input's shape are not known, or it keeps no axis."""
        shape = self.graph.shapes.get(node.inputs[0])
        given = node.attributes.get("axes")
        if len(node.inputs) > 1 and node.inputs[1]:
            values = self.array(node.inputs[1])
            given = None if values is None else values.tolist()
        if shape is None or not given or not node.attributes.get("keepdims", 1):
            return None
        return tuple(sorted(axis % len(shape) for axis in given))

    def polynomial(self, name: str, depth: int = DEPTH) -> Polynomial:
        """Multiply a tensor out: a node is opened only if it adds or multiplies and nothing else reads its result."""
        own: Polynomial = {(name,): 1.0}
        number = self.number(name)
        if number is not None:
            return {(): number}
        node = self.step(name, "Add", "Sub", "Mul", "Div", "Pow", "Neg")
        if node is None or not depth or (depth < DEPTH and len(self.readers[name]) > 1):
            return own
        first = self.polynomial(node.inputs[0], depth - 1)
        if node.kind == "Neg":
            return _sum(first, {}, 0.0, -1.0)
        second = self.polynomial(node.inputs[1], depth - 1)
        match node.kind:
            case "Add":
                result = _sum(first, second, 1.0)
            case "Sub":
                result = _sum(first, second, -1.0)
            case "Mul":
                result = _product(first, second)
            case "Div" if set(second) == {()} and second[()]:
                result = _product(first, {(): 1 / second[()]})
            case "Pow" if set(second) == {()} and second[()] in (2.0, 3.0):
                result = first
                for _ in range(int(second[()]) - 1):
                    result = _product(result, first)
            case _:
                return own
        return result if len(result) <= TERMS and all(len(term) <= DEGREE for term in result) else own

    def between(self, output: str, *inputs: str) -> frozenset[int] | None:
        """Nodes that lead from the inputs to the output; None where something else reads what is between them."""
        inside: set[int] = set()
        waiting = [output]
        while waiting:
            name = waiting.pop()
            if name in inputs or name in self.graph.constants or not name:
                continue
            at = self.writers.get(name)
            if at is None:
                return None
            if at not in inside:
                inside.add(at)
                waiting.extend(self.graph.nodes[at].inputs)
            if len(inside) > 4 * DEPTH:
                return None
        for at in inside:
            if any(name != output and not self.readers[name] <= inside for name in self.graph.nodes[at].outputs):
                return None
        return frozenset(inside)

    def match(self, last: int, kind: str, inputs: tuple[str, ...], constants: dict[str, Array], **attributes: Any) -> Match | None:
        """Match that ends in a node, with an output of the first input's shape."""
        node = self.graph.nodes[last]
        shapes = self.graph.shapes
        inside = self.between(node.outputs[0], inputs[0])
        if inside is None or shapes.get(inputs[0]) != shapes.get(node.outputs[0]):
            return None
        return Match(inside, Node(node.name, kind, inputs, node.outputs[:1], attributes), constants)


def fuse(graph: Graph) -> Graph:
    """Replace spelled-out operators by the operator.

    LayerNormalization, Gelu (by erf and by tanh), Swish, HardSwish, Mish and Softmax, each in the orders of factors and terms that
    multiply out to the same; and zeros that a Pad adds for the window behind it.

    Parameters
    ----------
    graph : Graph
        Folded.

    Returns
    -------
    Graph
        With the opset raised to that of the new nodes where the graph's own is older.
    """
    while True:
        reader = Reader(graph)
        found: dict[int, Match] = {}
        taken: set[int] = set()
        for last in reversed(range(len(graph.nodes))):
            match = next((match for rule in RULES if (match := rule(reader, last)) is not None and not match.inside & taken), None)
            if match is not None and NEWEST.get(match.node.kind, 1) <= onnx.defs.onnx_opset_version():
                found[last] = match
                taken |= match.inside
        if not found:
            return graph
        nodes = (found[at].node if at in found else node for at, node in enumerate(graph.nodes) if at in found or at not in taken)
        constants = dict(graph.constants)
        for match in found.values():
            constants |= match.constants
        opset = max([graph.opset, *(NEWEST.get(match.node.kind, 1) for match in found.values())])
        graph = replace(graph, nodes=tuple(nodes), constants=constants, opset=opset)


def _sum(first: Polynomial, second: Polynomial, sign: float, own: float = 1.0) -> Polynomial:
    """``own * first + sign * second``."""
    result = {term: own * factor for term, factor in first.items()}
    for term, factor in second.items():
        result[term] = result.get(term, 0.0) + sign * factor
    return result


def _product(first: Polynomial, second: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for one, factor in first.items():
        for other, gain in second.items():
            term = tuple(sorted((*one, *other)))
            result[term] = result.get(term, 0.0) + factor * gain
    return result


def _close(polynomial: Polynomial, wanted: Polynomial) -> bool:
    """Whether two polynomials are equal but for the rounding of their constants."""
    return polynomial.keys() == wanted.keys() and all(
        math.isclose(polynomial[term], factor, rel_tol=3 * PRECISION) for term, factor in wanted.items()
    )  # a factor is the product of up to three constants, each rounded


# Pointwise functions: a polynomial in x and one function of x.


def _pointwise(reader: Reader, last: int) -> Match | None:
    """Gelu, Swish, HardSwish and Mish."""
    node = reader.graph.nodes[last]
    if reader.writer(node.outputs[0], "Mul", "Div", "Add") != last:
        return None
    whole = reader.polynomial(node.outputs[0])
    leaves = sorted({name for term in whole for name in term})
    if len(leaves) != 2:
        return None
    for x, leaf in (leaves, leaves[::-1]):
        step = reader.step(leaf, "Erf", "Tanh", "Sigmoid", "HardSigmoid", "Clip")
        found = _function(reader, whole, x, step) if step is not None else None
        if found is not None:
            kind, attributes = found
            return reader.match(last, kind, (x,), {}, **attributes)
    return None


def _function(reader: Reader, whole: Polynomial, x: str, step: Node) -> tuple[str, dict[str, Any]] | None:
    """Operator and attributes of a polynomial in x and the result of a node."""
    leaf = step.outputs[0]
    both = tuple(sorted((x, leaf)))
    inner = reader.polynomial(step.inputs[0])
    if step.inputs[0] == x:
        inner = {(x,): 1.0}
    half, one = {(x,): 0.5, both: 0.5}, {both: 1.0}
    match step.kind:
        case "Erf" if _close(whole, half) and _close(inner, {(x,): math.sqrt(0.5)}):
            return "Gelu", {}
        case "Tanh" if _close(whole, half) and _close(inner, _cubic(x)):
            return "Gelu", {"approximate": "tanh"}
        case "Tanh" if _close(whole, one) and _softplus(reader, step.inputs[0], x):
            return "Mish", {}
        case "Sigmoid" if _close(whole, one) and set(inner) == {(x,)}:
            return "Swish", {} if inner[x,] == 1.0 else {"alpha": inner[x,]}
        case "HardSigmoid" if _close(whole, one) and step.inputs[0] == x:
            slope, middle = step.attributes.get("alpha", 0.2), step.attributes.get("beta", 0.5)
            return ("HardSwish", {}) if _close({(x,): slope, (): middle}, {(x,): 1 / 6, (): 0.5}) else None
        case "Clip" if set(whole) == {both} and _hard(reader, step, whole[both], inner, x):
            return "HardSwish", {}
    return None


def _cubic(x: str) -> Polynomial:
    """Argument of the tanh in Gelu's approximation."""
    return {(x,): math.sqrt(2 / math.pi), (x, x, x): math.sqrt(2 / math.pi) * 0.044715}


def _softplus(reader: Reader, name: str, x: str) -> bool:
    """Whether a tensor is log(1 + exp(x))."""
    softplus = reader.step(name, "Softplus")
    if softplus is not None:
        return softplus.inputs[0] == x
    logarithm = reader.step(name, "Log")
    if logarithm is None:
        return False
    inner = reader.polynomial(logarithm.inputs[0])
    leaves = [name for term in inner for name in term]
    exponential = reader.step(leaves[0], "Exp") if len(leaves) == 1 else None
    return exponential is not None and _close(inner, {(): 1.0, (leaves[0],): 1.0}) and exponential.inputs[0] == x


def _hard(reader: Reader, clip: Node, gain: float, inner: Polynomial, x: str) -> bool:
    """Whether ``gain * clip(inner)`` is ``clip(x / 6 + 1 / 2, 0, 1)``."""
    bounds = [
        reader.number(clip.inputs[at]) if len(clip.inputs) > at and clip.inputs[at] else clip.attributes.get(name)
        for at, name in ((1, "min"), (2, "max"))
    ]
    low, high = bounds
    if low != 0.0 or high is None or not math.isclose(high * gain, 1.0, rel_tol=2 * PRECISION):
        return False
    return _close({term: factor * gain for term, factor in inner.items()}, {(x,): 1 / 6, (): 0.5})


# Rows.


def _softmax(reader: Reader, last: int) -> Match | None:
    """``exp(x) / sum(exp(x))``, of x or of x less its maximum."""
    node = reader.graph.nodes[last]
    if reader.writer(node.outputs[0], "Div") != last:
        return None
    exponential, total = node.inputs
    power, reduction = reader.step(exponential, "Exp"), reader.step(total, "ReduceSum")
    if power is None or reduction is None or reduction.inputs[0] != exponential:
        return None
    axes = reader.axes(reduction)
    if axes is None or len(axes) != 1:
        return None
    x = power.inputs[0]
    difference = reader.step(x, "Sub")
    if difference is not None:
        largest = reader.step(difference.inputs[1], "ReduceMax")
        if largest is not None and largest.inputs[0] == difference.inputs[0] and reader.axes(largest) == axes:
            whole = reader.match(last, "Softmax", (difference.inputs[0],), {}, axis=axes[0])
            if whole is not None:
                return whole
    return reader.match(last, "Softmax", (x,), {}, axis=axes[0])


@dataclass(frozen=True, slots=True)
class _Normalised:
    """A tensor less its mean over the last axes, divided by the root of its variance plus epsilon."""

    x: str
    axis: int
    epsilon: float


def _layer_normalization(reader: Reader, last: int) -> Match | None:
    """Normalisation, with or without a gain and an offset after it."""
    node = reader.graph.nodes[last]
    for gamma, beta, name in _affine(reader, node):
        found = _normalised(reader, name)
        shape = reader.graph.shapes.get(found.x) if found is not None else None
        if found is None or shape is None:
            continue
        row = shape[found.axis :]
        constants = {f"{node.outputs[0]}/gamma": Array.of(np.ones(row, np.float32), reader.graph.kinds.get(found.x, TensorProto.FLOAT))}
        for name, label in ((gamma, "gamma"), (beta, "beta")):
            spread = _spread(reader.graph.constants[name], row) if name else None
            if name and spread is None:
                break
            if spread is not None:
                constants[f"{node.outputs[0]}/{label}"] = spread
        else:
            inputs = (found.x, *constants)
            match = reader.match(last, "LayerNormalization", inputs, constants, axis=found.axis - len(shape), epsilon=found.epsilon)
            if match is not None:
                return match
    return None


def _spread(array: Array, row: tuple[int, ...]) -> Array | None:
    """Constant as one number for each element of a row; None where it differs between rows."""
    shape = array.values.shape
    inner = shape[max(len(shape) - len(row), 0) :]
    padded = (1,) * (len(row) - len(inner)) + inner
    if math.prod(shape) != math.prod(inner) or any(size not in (1, whole) for size, whole in zip(padded, row, strict=True)):
        return None
    return replace(array, values=np.broadcast_to(array.values.reshape(inner), row))


def _affine(reader: Reader, node: Node) -> Iterator[tuple[str, str, str]]:
    """Ways to read a node's result as ``name * gamma + beta``: (gamma, beta, name), ``""`` where there is none."""
    output = node.outputs[0]
    for beta, sum_less in _constant_side(reader, output, "Add"):
        for gamma, name in _constant_side(reader, sum_less, "Mul"):
            yield gamma, beta, name
        yield "", beta, sum_less
    for gamma, name in _constant_side(reader, output, "Mul"):
        yield gamma, "", name
    yield "", "", output


def _constant_side(reader: Reader, name: str, kind: str) -> Iterator[tuple[str, str]]:
    """(constant, other) inputs of a tensor's writer, if it is of this kind and reads one constant."""
    node = reader.step(name, kind)
    if node is not None:
        for one, other in (node.inputs, node.inputs[::-1]):
            if one in reader.graph.constants and other not in reader.graph.constants:
                yield one, other


def _normalised(reader: Reader, name: str) -> _Normalised | None:
    """``d / sqrt(mean(d * d) + epsilon)`` with ``d = x - mean(x)``."""
    for centred, root in _quotient(reader, name):
        total = reader.step(root, "Add")
        difference = reader.step(centred, "Sub")
        if total is None or difference is None:
            continue
        for epsilon, variance in (total.inputs, total.inputs[::-1]):
            number, mean = reader.number(epsilon), reader.step(variance, "ReduceMean")
            inner = reader.step(difference.inputs[1], "ReduceMean")
            if number is None or number <= 0 or mean is None or inner is None or inner.inputs[0] != difference.inputs[0]:
                continue
            axes, shape = reader.axes(mean), reader.graph.shapes.get(difference.inputs[0], ())
            trailing = axes is not None and axes == tuple(range(len(shape) - len(axes), len(shape)))
            if trailing and axes == reader.axes(inner) and _squared(reader, mean.inputs[0], centred):
                return _Normalised(difference.inputs[0], len(shape) - len(axes or ()), number)
    return None


def _quotient(reader: Reader, name: str) -> Iterator[tuple[str, str]]:
    """Ways to read a tensor as ``one / sqrt(other)``: (one, other)."""
    node = reader.step(name, "Div", "Mul")
    if node is None:
        return
    if node.kind == "Div":
        root = reader.step(node.inputs[1], "Sqrt")
        power = reader.step(node.inputs[1], "Pow")
        if root is not None:
            yield node.inputs[0], root.inputs[0]
        elif power is not None and reader.number(power.inputs[1]) == 0.5:
            yield node.inputs[0], power.inputs[0]
        return
    for one, other in (node.inputs, node.inputs[::-1]):
        step = reader.step(other, "Reciprocal", "Div", "Pow")
        if step is None:
            continue
        if step.kind == "Pow":
            if reader.number(step.inputs[1]) == -0.5:
                yield one, step.inputs[0]
            continue
        if step.kind == "Div" and reader.number(step.inputs[0]) != 1.0:
            continue
        root = reader.step(step.inputs[-1], "Sqrt")
        if root is not None:
            yield one, root.inputs[0]


def _squared(reader: Reader, name: str, root: str) -> bool:
    """Whether a tensor is the square of another, element by element."""
    node = reader.step(name, "Mul", "Pow")
    if node is None or node.inputs[0] != root:
        return False
    return node.inputs[1] == root if node.kind == "Mul" else reader.number(node.inputs[1]) == 2.0


# Windows.


def _padded(reader: Reader, last: int) -> Match | None:
    """Zeros added around an image, then a convolution, or a mean that counts what it has: the window's own pads."""
    node = reader.graph.nodes[last]
    if reader.writer(node.outputs[0], "Conv", "AveragePool") != last or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    at = reader.writer(node.inputs[0], "Pad")
    shape = reader.graph.shapes.get(node.inputs[0], ())
    if at is None or reader.readers[node.inputs[0]] != {last} or len(shape) < 3:
        return None
    added, axes = _zeros(reader, reader.graph.nodes[at], len(shape)), len(shape) - 2
    if added is None:
        return None
    attributes, own = dict(node.attributes), node.attributes.get("pads", [0] * (2 * axes))
    if node.kind == "AveragePool":  # one divisor for all windows, as before
        if (
            any(own)
            or attributes.get("ceil_mode", 0)
            or any(pad >= size for pad, size in zip(added, 2 * list(attributes["kernel_shape"]), strict=True))
        ):
            return None
        attributes["count_include_pad"] = 1
    attributes["pads"] = [more + less for more, less in zip(added, own, strict=True)]
    inputs = (reader.graph.nodes[at].inputs[0], *node.inputs[1:])
    return Match(frozenset((at, last)), Node(node.name, node.kind, inputs, node.outputs, attributes))


def _zeros(reader: Reader, pad: Node, count: int) -> list[int] | None:
    """Fronts and ends that a Pad adds to all axes but batch and channels; None where it adds others, or something else than zeros."""
    given = [reader.array(name) if name else None for name in (*pad.inputs[1:], "", "", "")[:3]]
    value = reader.number(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else 0.0
    if pad.attributes.get("mode", "constant") != "constant" or given[0] is None or value != 0:
        return None
    if len(pad.inputs) > 3 and pad.inputs[3] and given[2] is None:
        return None
    axes = [int(axis) % count for axis in given[2].ravel()] if given[2] is not None else list(range(count))
    ends = np.zeros((2, count), np.int64)
    if given[0].size != 2 * len(axes):
        return None
    ends[:, axes] = given[0].reshape(2, -1)
    return None if (ends < 0).any() or ends[:, :2].any() else ends[:, 2:].ravel().tolist()


RULES: tuple[Callable[[Reader, int], Match | None], ...] = (_layer_normalization, _softmax, _pointwise, _padded)
