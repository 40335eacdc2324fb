"""ONNX's own backend tests of single nodes, and how each runs here: which inputs are constants, and what one sample is."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from accel.graph.operators import OPERATORS
from accel.graph.read import OLDEST_OPSET

FOLDED = (
    "Constant",
    "ConstantOfShape",
    "DynamicQuantizeLinear",
    "Dropout",
    "QLinearConv",
    "QLinearMatMul",
    "Range",
    "Shape",
    "Size",
    "Sum",
)
SUPPORTED = tuple(sorted(kind for kind in {*OPERATORS, *FOLDED} if onnx.defs.has(kind)))
# Inputs that are activations; the others are what networks hold as constants. Where nothing is said it is the first.
ACTIVATIONS: dict[str, tuple[int, ...]] = dict.fromkeys(("Add", "Sub", "Mul", "Div", "MatMul", "Pow"), (0, 1))
ACTIVATIONS |= dict.fromkeys(("Concat", "Max", "Min", "Sum"), (0, 1, 2, 3))
ACTIVATIONS |= dict.fromkeys(("Constant", "ConstantOfShape", "Range"), ())
# Axis 0 counts samples by the operator's definition.
BATCHED = {"Conv", "ConvInteger", "ConvTranspose", "QLinearConv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
BATCHED |= {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "DepthToSpace", "SpaceToDepth"}

# What training reads comes out too: these are run with all outputs, and once more with the first alone.
AIDED, ALONE = ("Dropout", "LayerNormalization", "MaxPool"), ", first output"

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """One test.

    Parameters
    ----------
    name : str
    model : ModelProto
        Of one node, at the oldest opset that is read if its operator is still the same there.
    inputs, outputs : mapping of str to array
        4-bit integers as int8, bfloat16 as float32.
    rtol, atol : float
        What the test itself calls equal.
    """

    name: str
    model: onnx.ModelProto
    inputs: Tensors
    outputs: Tensors
    rtol: float
    atol: float

    @property
    def node(self) -> onnx.NodeProto:
        """Its node."""
        node: onnx.NodeProto = self.model.graph.node[0]
        return node

    @property
    def kind(self) -> str:
        """Its operator."""
        return str(self.node.op_type)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the node."""
        return {each.name: onnx.helper.get_attribute_value(each) for each in self.node.attribute}

    def precision(self, name: str) -> float:
        """Half an LSB of the type of an output, relative, if it is a narrow float."""
        kind = next(port.type.tensor_type.elem_type for port in self.model.graph.output if port.name == name)
        return {onnx.TensorProto.FLOAT16: 2.0**-11, onnx.TensorProto.BFLOAT16: 2.0**-8}.get(kind, 0.0)

    @cached_property
    def activations(self) -> Tensors:
        """Inputs that stay inputs."""
        places = ACTIVATIONS.get(self.kind, (0,))
        if self.kind == "QLinearMatMul" and self.inputs[self.node.input[3]].ndim > 2:
            places = (0, 3)  # products of a batch are those of two activations
        names = [name for at, name in enumerate(self.node.input) if at in places]
        return {name: self.inputs[name] for name in names if name in self.inputs}

    @property
    def constants(self) -> Tensors:
        """Inputs that become constants."""
        return {name: array for name, array in self.inputs.items() if name not in self.activations}

    @property
    def whole(self) -> bool:
        """Whether one run is one sample, as axis 0 does not count samples."""
        return self.kind not in BATCHED

    @property
    def samples(self) -> Tensors:
        """Activations with an axis of samples in front: an axis of one element is taken for it."""
        return {name: x if not self.whole or (x.ndim > 1 and x.shape[0] == 1) else x[None] for name, x in self.activations.items()}

    @property
    def is_float(self) -> bool:
        """Whether reals come in or go out, so that formats are to be chosen here."""
        given = self.kind in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")
        return not given and any(x.dtype.kind == "f" for x in (*self.activations.values(), *self.outputs.values()))


@cache
def cases() -> dict[str, Case]:
    """Every backend test of a node that is an operator supported here, by name."""
    found: dict[str, Case] = {}
    for test in _collected():
        graph = test.model.graph
        if len(graph.node) != 1 or graph.node[0].domain not in ("", "ai.onnx") or graph.node[0].op_type not in SUPPORTED:
            continue
        if "_expanded" in test.name:
            continue
        inputs, outputs = test.data_sets[0]
        given = {port.name: _array(value) for port, value in zip(graph.input, inputs, strict=False)}
        taken = {port.name: _array(value) for port, value in zip(graph.output, outputs, strict=False)}
        found[test.name] = case = Case(test.name, _lifted(test.model), given, taken, test.rtol, test.atol)
        if case.kind in AIDED and len(taken) > 1:
            found[f"{test.name}{ALONE}"] = _alone(case)
    return found


def _alone(case: Case) -> Case:
    """Case with its first output only."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.output[1:], model.graph.node[0].output[1:]
    return replace(case, name=f"{case.name}{ALONE}", model=model, outputs=dict(list(case.outputs.items())[:1]))


@cache
def expanded() -> dict[str, str]:
    """Operator by name of the tests that spell a supported operator out in others."""
    names = cases()
    bases = {test.name: test.name.partition("_expanded")[0] for test in _collected()}
    return {name: names[base].kind for name, base in bases.items() if base != name and base in names}


def _lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Model at an opset that is read, where its operator means the same there."""
    kind, version = model.graph.node[0].op_type, next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    with contextlib.suppress(onnx.defs.SchemaError):
        if version < OLDEST_OPSET:
            old, new = (onnx.defs.get_schema(kind, each) for each in (version, OLDEST_OPSET))
            if old.since_version == new.since_version and not new.deprecated:
                lifted = onnx.ModelProto()
                lifted.CopyFrom(model)
                lifted.opset_import[0].version = OLDEST_OPSET
                return lifted
    return model


@cache
def _collected() -> tuple[Any, ...]:
    np.random.seed(0)  # noqa: NPY002 (it is what onnx's cases draw from)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return tuple(collect_testcases(None))


def _array(value: Any) -> NDArray[Any]:
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    if array.dtype.name in ("int4", "uint4", "int2", "uint2"):
        return array.astype(np.int8)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
