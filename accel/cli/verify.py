"""The network beside onnxruntime: which tensors differ, and by how much."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from accel.errors import ToolError
from accel.graph.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a tensor is from another run of its network.

    Parameters
    ----------
    operator, kind : str
        What writes the tensor.
    tensor : str
    worst : int
        Largest difference [LSB].
    differing, elements : int
        Elements that differ, and all.
    """

    operator: str
    kind: str
    tensor: str
    worst: int
    differing: int
    elements: int


def run_onnxruntime(
    model: onnx.ModelProto | str | os.PathLike[str], inputs: Mapping[str, NDArray[Any]], *, optimise: bool = True
) -> dict[str, NDArray[Any]]:
    """Run an ONNX model in onnxruntime on the CPU.

    Parameters
    ----------
    model : ModelProto or path
    inputs : mapping of str to array
        By graph input.
    optimise : bool
        Let onnxruntime fuse quantised operators into its integer kernels; else every node runs as it is written.

    Returns
    -------
    dict of str to array
        By graph output.

    Raises
    ------
    ToolError
        If onnxruntime is missing or refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolError("onnxruntime must be installed to compare with it (pip install onnxruntime), not missing") from error
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors only
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(Path(model))
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, dict(inputs))
    except Exception as error:  # onnxruntime has no common base of its own
        raise ToolError(f"onnxruntime refuses the model: {error}") from error
    return dict(zip((output.name for output in session.get_outputs()), outputs, strict=True))


def reference(network: Network, model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.int64]]:
    """Integers that onnxruntime, every node as it is written, finds for the tensors of a network.

    Parameters
    ----------
    network : Network
        Imported from `model`.
    model : ModelProto
    inputs : mapping of str to array
        By graph input.

    Returns
    -------
    dict of str to int64, shape (batch, *tensor shape)
        By tensor; those that exist only in the network are left out.

    Raises
    ------
    ToolError
        If onnxruntime is missing or refuses the model.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    written = {name for node in model.graph.node for name in node.output} | set(inputs)
    given = {output.name for output in model.graph.output}
    wanted = [name for name in network.tensors if name in written]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in given and name not in inputs)
    values = {**run_onnxruntime(whole, inputs, optimise=False), **inputs}
    shapes = {name: (len(values[name]), *network.tensors[name].onnx_shape) for name in wanted}
    return {name: network.tensors[name].from_onnx(values[name].reshape(shapes[name])) for name in wanted}


def differences(
    network: Network, expected: Mapping[str, NDArray[np.int64]], values: Mapping[str, NDArray[np.int64]]
) -> tuple[Difference, ...]:
    """Compare the tensors that two runs have in common, in execution order.

    Parameters
    ----------
    network : Network
    expected, values : mapping of str to int64, shape (batch, *tensor shape)
        By tensor.

    Returns
    -------
    tuple of Difference
    """
    found = []
    for operator in network.operators:
        if operator.output in expected and operator.output in values:
            gap = np.abs(values[operator.output] - expected[operator.output])
            counts = {"worst": int(gap.max(initial=0)), "differing": int(np.count_nonzero(gap)), "elements": gap.size}
            found.append(Difference(operator=operator.name, kind=operator.kind, tensor=operator.output, **counts))
    return tuple(found)
