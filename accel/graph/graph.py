"""An ONNX graph as plain data: what the passes between a file and a network read and rewrite.

A pass takes a :class:`Graph` and gives a new one; it shares the arrays and changes none. In order: :mod:`accel.graph.read` (file to graph),
:mod:`accel.graph.fold` (constants bound, shapes folded, the batch set to one), :mod:`accel.graph.qoperator` and :mod:`accel.graph.qonnx`
(every way of writing quantised operators down, as QuantizeLinear, DequantizeLinear and Clip around the float operator),
:mod:`accel.graph.calibrate` (float graphs get their quantisers from samples), :mod:`accel.graph.onnx` (graph to network). On the way to
what is trained the last two are :mod:`accel.graph.unquantised` (quantisers gone) and :mod:`accel.graph.training` (float graph to layers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

INTEGERS: dict[int, tuple[int, bool]] = {  # element types that a quantiser may have: width [bits], and whether signed
    TensorProto.UINT4: (4, False),
    TensorProto.INT4: (4, True),
    TensorProto.UINT8: (8, False),
    TensorProto.INT8: (8, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT16: (16, True),
}
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
FOUR_BIT = (TensorProto.INT4, TensorProto.UINT4)


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """A constant tensor.

    Parameters
    ----------
    values : array
        4-bit integers as int8, bfloat16 and float16 as float32; read-only, perhaps mapped from a file.
    kind : int
        ONNX element type.
    known : bool
        False: only the shape is known, and `values` is one element broadcast to it.
    """

    values: NDArray[Any]
    kind: int
    known: bool = True

    @classmethod
    def of(cls, values: Any, kind: int | None = None) -> Array:
        """Wrap numbers; the element type follows from theirs unless it is given."""
        array = np.asarray(values)
        return cls(array, onnx.helper.np_dtype_to_tensor_dtype(array.dtype) if kind is None else kind)

    @classmethod
    def unknown(cls, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> Array:
        """Shape alone, which takes no memory."""
        dtype = np.int8 if kind in FOUR_BIT else onnx.helper.tensor_dtype_to_np_dtype(kind)
        return cls(np.broadcast_to(np.ones((), dtype), shape), kind, known=False)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator of an ONNX graph. Its str() is what messages call it.

    Parameters
    ----------
    name : str
        Its own, or that of its first output.
    kind : str
        ONNX operator.
    inputs, outputs : tuple of str
        Tensors; ``""`` where one is left out.
    attributes : dict
        Numbers, texts, lists of them, and :class:`Array`.
    domain : str
        ``""`` is ONNX itself.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.kind})"


OPEN = ("...",)
"""Shape of a graph input whose number of axes the file leaves open."""


@dataclass(frozen=True, slots=True)
class Given:
    """A graph input.

    Parameters
    ----------
    kind : int
        ONNX element type.
    shape : tuple of int or str
        A str is a size that the file leaves open, by its name; :data:`OPEN` until :func:`accel.graph.fold.bind`, where it has no shape.
    """

    kind: int
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """Nodes in an order in which each reads what is written before it.

    Parameters
    ----------
    name : str
    opset : int
        Of ONNX's own operators.
    nodes : tuple of Node
    constants : mapping of str to Array
    inputs : mapping of str to Given
    outputs : tuple of str
    shapes : mapping of str to tuple of int
        Of every tensor, the batch included; filled by :mod:`accel.graph.fold`.
    kinds : mapping of str to int
        ONNX element type of every tensor; filled by :mod:`accel.graph.fold`.
    batch : int
        Samples that the file fixed on axis 0; the graph itself is that of one sample.
    """

    name: str
    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: Mapping[str, Given]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    batch: int = 1

    def to_model(self) -> onnx.ModelProto:
        """Write the graph as an ONNX model, for tools that run one."""
        tensors = []
        for name, array in self.constants.items():
            if array.kind in FOUR_BIT:
                tensors.append(onnx.helper.make_tensor(name, array.kind, array.values.shape, array.values.ravel().tolist()))
            else:
                values = np.asarray(array.values, onnx.helper.tensor_dtype_to_np_dtype(array.kind), order="C")  # a scalar stays one
                tensors.append(onnx.numpy_helper.from_array(values, name))
        given = [onnx.helper.make_tensor_value_info(name, port.kind, port.shape) for name, port in self.inputs.items()]
        types = [
            onnx.helper.make_tensor_type_proto(self.kinds.get(name, TensorProto.FLOAT), self.shapes.get(name)) for name in self.outputs
        ]
        taken = [onnx.helper.make_value_info(name, form) for name, form in zip(self.outputs, types, strict=True)]
        nodes = [
            onnx.helper.make_node(
                node.kind,
                node.inputs,
                node.outputs,
                node.name,
                domain=node.domain,
                **{name: _attribute(name, value) for name, value in node.attributes.items()},
            )
            for node in self.nodes
        ]
        graph = onnx.helper.make_graph(nodes, self.name or "graph", given, taken, tensors)
        domains = {"": self.opset} | {node.domain: 1 for node in self.nodes if node.domain}
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(*each) for each in domains.items()], ir_version=10)


def _attribute(name: str, value: Any) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(value.values, order="C"), name) if isinstance(value, Array) else value
