"""Importer: a canonical graph, quantisers and float operators, becomes a network of integers.

QuantizeLinear and DequantizeLinear say where integers lie; :mod:`accel.graph.operators` says what each operator adds,
:mod:`accel.graph.builder` how what stands between two quantisers becomes operators, and :mod:`accel.graph.host` what becomes of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnx import TensorProto

from accel.errors import NetworkError
from accel.graph import host
from accel.graph.builder import REAL, WHOLE, Activation, Builder, Constant, Float, Quantiser, Source, Value, image_order, sample
from accel.graph.graph import FLOATS, INTEGERS, Given, Graph, Node
from accel.graph.network import Network, Port
from accel.graph.operators import OPERATORS as OPERATORS  # what there is to import
from accel.graph.operators import OnHost, Site

if TYPE_CHECKING:
    from accel.graph.trainable import Trainable

# Operators that slide a window over their first input, and those that leave its axes as they are.
WINDOWS = ("Conv", "ConvInteger", "ConvTranspose", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "BatchNormalization")
LEAVE = ("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "Add", "Mul", "Cast")


def network(graph: Graph, name: str, real: Callable[[], Trainable] | None = None) -> Network:
    """Import a graph.

    Parameters
    ----------
    graph : Graph
        Canonical: as :mod:`accel.graph.qoperator` and :mod:`accel.graph.qonnx` leave it, shapes and element types known.
    name : str
        What the network is called.
    real : callable, optional
        Gives the network that is trained.

    Returns
    -------
    Network

    Raises
    ------
    NetworkError
        If the graph holds something that is not supported; the message names the node.
    """
    builder = Builder(graph)
    builder.values.update((key, Constant(array.values, array.kind, array.known)) for key, array in graph.constants.items())
    for key, given in graph.inputs.items():
        if key not in builder.values:
            builder.values[key] = _source(key, given, builder)
    for node in graph.nodes:
        builder.values.update(zip(node.outputs, _import(Site(node, builder)), strict=True))
    outputs = tuple(_output(key, builder) for key in graph.outputs)
    needed = {port.tensor for port in outputs}
    operators = []
    for operator in reversed(builder.operators.values()):  # the host does after all what some of them were made for
        if operator.output in needed:
            needed.update(operator.inputs)
            operators.append(operator)
    return Network(
        name=name,
        tensors={key: tensor for key, tensor in builder.tensors.items() if key in needed},
        operators=tuple(reversed(operators)),
        inputs=tuple(port for port in builder.inputs.values() if port.tensor in needed),
        outputs=outputs,
        real=real,
    )


def _import(site: Site) -> tuple[Value, ...]:
    """Find what the outputs of a node stand for: the host's work wherever its operator has no form in integers."""
    results: Value | tuple[Value, ...] = ()
    if site.kind in OPERATORS:
        try:
            results = OPERATORS[site.kind](site)
        except OnHost:
            results = ()
    found = results if isinstance(results, tuple) else (results,)
    rest = (Float(name=name, node=site.node) for name in site.node.outputs[len(found) :])
    return (*found, *rest)


def _source(name: str, given: Given, builder: Builder) -> Source:
    """Take in a graph input: an image is stored channels last, and so is a sequence that windows slide over."""
    for axis, extent in enumerate(given.shape):
        if not isinstance(extent, int) or extent < 1:
            raise NetworkError(f"axis {axis} of graph input {name!r} must be a fixed size, not {extent!r}")
    shape = tuple(int(extent) for extent in given.shape)
    extents = sample(shape)
    last = len(shape) == 4 or (len(shape) == 3 and _slid_over(name, builder))
    order = image_order(extents) if last and len(extents) == len(shape) - 1 else tuple(range(len(extents)))
    return Source(name=name, kind=given.kind, given=shape, order=order, shape=shape)


def _slid_over(name: str, builder: Builder) -> bool:
    """Whether a window slides over a tensor, at once or behind what leaves its axes as they are."""
    waiting, seen = [name], {name}
    while waiting:
        each = waiting.pop()
        for node in builder.readers.get(each, ()):
            if node.kind in WINDOWS and node.inputs[0] == each:
                return True
            if node.kind in LEAVE and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return False


def _output(name: str, builder: Builder) -> Port:
    """Make a graph output of a value."""
    value = builder.exact(name)
    if isinstance(value, Constant):
        raise NetworkError(f"graph output {name!r} must depend on an input, not be a constant")
    if isinstance(value, Source) and value.kind in INTEGERS:
        value = Site(Node(name, "Identity", (name,), (name,)), builder).integer(0) or value
    if not isinstance(value, Activation):
        real = builder.graph.kinds.get(name, TensorProto.FLOAT) in FLOATS
        value = host.compute(builder, name, Quantiser.whole(REAL if real else WHOLE), f"{name}/fixed" if real else name)
        return Port(name, value.tensor.name, real)
    return Port(name, builder.own(value).name, value.real)
