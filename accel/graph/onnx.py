"""Importer: a canonical graph, quantisers and float operators, becomes a network of integers.

QuantizeLinear and DequantizeLinear say where integers lie; :mod:`accel.graph.operators` says what each operator adds,
:mod:`accel.graph.builder` how what stands between two quantisers becomes operators, and :mod:`accel.graph.host` what becomes of the rest.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, numpy_helper

from accel.errors import NetworkError
from accel.graph import host
from accel.graph.builder import REAL, WHOLE, Activation, Builder, Constant, Float, Quantiser, Source, Value, image_order, sample
from accel.graph.graph import Array, Given, Graph, Node
from accel.graph.network import Network, Port
from accel.graph.operators import OPERATORS as OPERATORS  # what there is to import
from accel.graph.operators import OnHost, Site
from accel.graph.operators.registry import FLOATS, TYPES

OLDEST_OPSET = 11
NEWEST_OPSET = onnx.defs.onnx_opset_version()
WINDOWS = ("Conv", "ConvInteger", "ConvTranspose", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "BatchNormalization")
LEAVE = ("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "Add", "Mul", "Cast")
DOMAINS = ("", "ai.onnx", "com.microsoft")  # of the last only what OPERATORS has
CONTROL = ("If", "Loop", "Scan")
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
OBJECTS = ("Sequence", "Optional", "String", "SplitToSequence", "ConcatFromSequence", "TfIdf", "ImageDecoder")  # not tensors of numbers


def network(graph: Graph, name: str) -> Network:
    """Import a graph.

    Parameters
    ----------
    graph : Graph
        Canonical: as :mod:`accel.graph.qoperator` and :mod:`accel.graph.qonnx` leave it, shapes and element types known.
    name : str
        What the network is called.

    Returns
    -------
    Network

    Raises
    ------
    NetworkError
        If the graph holds something that is not supported; the message names the node.
    """
    if isinstance(graph, onnx.ModelProto):
        graph = graph_of(graph)
    for node in graph.nodes:
        _known(node)
    builder = Builder(graph)
    builder.values.update((key, Constant(array.values, array.kind, array.known)) for key, array in graph.constants.items())
    for key, given in graph.inputs.items():
        if key not in builder.values:
            builder.values[key] = _source(key, given, builder)
    for node in graph.nodes:
        builder.values.update(zip(node.outputs, _import(Site(node, builder)), strict=True))
    outputs = tuple(_output(key, builder) for key in graph.outputs)
    return Network(
        name=name,
        tensors=builder.tensors,
        operators=tuple(builder.operators.values()),
        inputs=tuple(builder.inputs.values()),
        outputs=outputs,
    )


def _known(node: Node) -> None:
    """Refuse operators that neither the accelerator nor its host runs."""
    if node.domain in DOMAINS and node.kind in OPERATORS:
        return
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.kind):
        raise NetworkError(f"operator of {node} must be one of ONNX's own, not {f'{node.domain}.' if node.domain else ''}{node.kind}")
    if node.kind in CONTROL or node.kind in RANDOM or node.kind.startswith(OBJECTS):
        raise NetworkError(f"operator of {node} must compute tensors of numbers, without control flow or chance, not be {node.kind}")


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
    waiting = [name]
    while waiting:
        each = waiting.pop()
        for node in builder.readers.get(each, ()):
            if node.kind in WINDOWS and node.inputs[0] == each:
                return True
            if node.kind in LEAVE:
                waiting.extend(node.outputs)
    return False


def _output(name: str, builder: Builder) -> Port:
    """Make a graph output of a value."""
    value = builder.values[name]
    if isinstance(value, Constant):
        raise NetworkError(f"graph output {name!r} must depend on an input, not be a constant")
    if isinstance(value, Source) and value.kind in TYPES:
        value = Site(Node(name, "Identity", (name,), (name,)), builder).integer(0) or value
    if not isinstance(value, Activation):
        real = builder.graph.kinds.get(name, TensorProto.FLOAT) in FLOATS
        value = host.compute(builder, name, Quantiser.whole(REAL if real else WHOLE), f"{name}/fixed" if real else name)
        return Port(name, value.tensor.name, real)
    return Port(name, builder.own(value).name, value.real)


def graph_of(model: onnx.ModelProto) -> Graph:
    """Read a model whose data all lie inside it."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for each in model.graph.input:
        dims = each.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_value = 1
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph

    def value(attribute: onnx.AttributeProto) -> object:
        raw = onnx.helper.get_attribute_value(attribute)
        return raw.decode() if isinstance(raw, bytes) else _array(raw) if isinstance(raw, TensorProto) else raw

    constants = {each.name: _array(each) for each in graph.initializer}
    typed = [*graph.value_info, *graph.input, *graph.output]
    shapes = {
        each.name: tuple(dim.dim_value for dim in each.type.tensor_type.shape.dim)
        for each in typed
        if each.type.tensor_type.HasField("shape") and all(dim.dim_value for dim in each.type.tensor_type.shape.dim)
    }
    return Graph(
        name=graph.name,
        opset=next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")),
        nodes=tuple(
            Node(
                node.name or node.output[0],
                node.op_type,
                tuple(node.input),
                tuple(node.output),
                {each.name: value(each) for each in node.attribute},
                node.domain,
            )
            for node in graph.node
        ),
        constants=constants,
        inputs={
            each.name: Given(
                each.type.tensor_type.elem_type, tuple(dim.dim_value or dim.dim_param for dim in each.type.tensor_type.shape.dim)
            )
            for each in graph.input
            if each.name not in constants
        },
        outputs=tuple(each.name for each in graph.output),
        shapes={name: array.values.shape for name, array in constants.items()} | shapes,
        kinds={name: array.kind for name, array in constants.items()} | {each.name: each.type.tensor_type.elem_type for each in typed},
    )


def _array(tensor: TensorProto) -> Array:
    values = numpy_helper.to_array(tensor)
    return Array(values.astype("int8") if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4) else values, tensor.data_type)
