"""Small quantised ONNX models, written node by node."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from accel.graph.files import canonical
from accel.graph.fold import bind
from accel.graph.graph import Graph
from accel.graph.read import read


def graph_of(proto: onnx.ModelProto) -> Graph:
    """Take a model as far as :func:`accel.load` does before it looks for quantisers."""
    return canonical(bind(read_model(proto)))


def read_model(proto: onnx.ModelProto) -> Graph:
    """Read a model as if from its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.onnx"
        onnx.save(proto, path)
        return read(path)


@dataclass
class Model:
    """A graph under construction; every method returns the name of what it adds."""

    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def input(self, *shape: int | str, name: str = "x", kind: int = TensorProto.FLOAT) -> str:
        """Add a graph input; the first extent is the batch."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, values: Any, dtype: Any = None, name: str | None = None) -> str:
        """Add an initializer."""
        name = name or f"constant{len(self.constants)}"
        array = np.asarray(values, dtype=dtype)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node of one output."""
        name = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def quantise(self, x: str, scale: Any, zero: Any, dtype: Any = np.uint8, **attributes: Any) -> str:
        """Add QuantizeLinear."""
        return self.node("QuantizeLinear", x, self.constant(scale, np.float32), self.constant(zero, dtype), **attributes)

    def dequantise(self, x: str, scale: Any, zero: Any, dtype: Any = np.uint8, **attributes: Any) -> str:
        """Add DequantizeLinear."""
        return self.node("DequantizeLinear", x, self.constant(scale, np.float32), self.constant(zero, dtype), **attributes)

    def fake(self, x: str, scale: float, zero: int = 0, dtype: Any = np.uint8) -> str:
        """Add QuantizeLinear and DequantizeLinear."""
        return self.dequantise(self.quantise(x, scale, zero, dtype), scale, zero, dtype)

    def weights(self, integers: NDArray[Any], scale: Any, zero: Any = 0, axis: int = 0) -> str:
        """Add dequantised integers; a scale of shape (n,) runs along `axis`."""
        zeros = np.broadcast_to(np.asarray(zero, integers.dtype), np.shape(scale))
        return self.dequantise(self.constant(integers), scale, zeros, integers.dtype, **({"axis": axis} if np.ndim(scale) else {}))

    @property
    def graph(self) -> Graph:
        """The model as the importer takes it."""
        return graph_of(self.proto)

    def output(self, name: str, kind: int = TensorProto.FLOAT) -> str:
        """Make a graph output."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))
        return name

    @property
    def proto(self) -> onnx.ModelProto:
        """The model."""
        graph = helper.make_graph(self.nodes, "test", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        with suppress(shape_inference.InferenceError):
            model = shape_inference.infer_shapes(model)
        for output in model.graph.output:
            output.type.tensor_type.shape.SetInParent()  # of models that are wrong on purpose
        return model
