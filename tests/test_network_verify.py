"""The comparison with onnxruntime itself."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from accel.errors import ToolError
from accel.graph.onnx import network
from accel.verification.compare import Difference, differences, reference, run_onnxruntime
from tests.naive_network import run
from tests.qdq import Model, graph_of


def model() -> Model:
    made = Model()
    made.output(made.fake(made.node("Relu", made.fake(made.input("batch", 2, 3, 3), 0.5, 3), name="relu"), 0.25, 3))
    return made


def test_differences_count_and_name():
    proto = model().proto
    imported = network(graph_of(proto), "test")
    inputs = {"x": np.linspace(-1, 4, 36, dtype=np.float32).reshape(2, 2, 3, 3)}
    expected = reference(imported, proto, inputs)
    assert set(expected) == set(imported.tensors)
    (port,) = imported.inputs
    values = run(imported, {port.tensor: expected[port.tensor]})
    (output,) = imported.outputs
    values[output.tensor][0, 0, 0, 0] += 3
    values[output.tensor][1, 2, 2, 1] -= 1
    assert differences(imported, expected, values) == (
        Difference(operator="relu", kind="Relu", tensor=output.tensor, worst=3, differing=2, elements=36),
    )


def test_a_model_that_onnxruntime_refuses(tmp_path):
    with pytest.raises(ToolError, match=r"^onnxruntime refuses the model: .*missing.onnx"):
        run_onnxruntime(tmp_path / "missing.onnx", {})
    with pytest.raises(ToolError, match=r"^onnxruntime refuses the model: .*"):
        run_onnxruntime(model().proto, {"x": np.zeros((1, 5), np.float32)})


def test_without_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = "onnxruntime must be installed to compare with it (pip install onnxruntime), not missing"
    with pytest.raises(ToolError, match=f"^{re.escape(message)}$"):
        run_onnxruntime(model().proto, {})
