"""Modules of PyTorch beside the graphs their export gives. Skipped where PyTorch is not installed, but for the message that says so."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import accel
from accel.errors import NetworkError, ToolError
from accel.graph import evaluate
from accel.graph.fold import bind, fold
from accel.graph.module import export
from accel.graph.network import Host


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ToolError, match=r"^torch must be installed to read a module \(pip install torch\), not missing$"):
        export(object(), None)


@pytest.fixture
def torch() -> Any:
    """Return PyTorch."""
    return pytest.importorskip("torch", reason="PyTorch is not installed: it is optional")


def same(torch: Any, module: Any, *inputs: Any) -> None:
    """Check that the graph computes what the module does, sample by sample, up to float32's rounding."""
    graph = fold(bind(export(module, inputs if len(inputs) > 1 else inputs[0])))
    found = evaluate.run(graph, dict(zip(graph.inputs, (each.numpy() for each in inputs), strict=True)))
    module.eval()
    with torch.no_grad():
        np.testing.assert_allclose(found[graph.outputs[0]], module(*inputs).numpy(), rtol=1e-5, atol=1e-5)


def test_convolutions(torch):
    nn = torch.nn
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    body(torch.randn(16, 3, 8, 8))  # statistics of its own
    same(torch, body, torch.randn(4, 3, 8, 8))


def test_transformer_layer(torch):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: torch.export needs it")
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
    same(torch, layer, torch.randn(3, 5, 16))


def test_two_inputs_are_called_as_the_arguments(torch):
    weighted = type("Weighted", (torch.nn.Module,), {"forward": lambda self, left, right: left * 2 - right})
    x = torch.randn(4, 3), torch.randn(4, 3)
    assert list(export(weighted(), x).inputs) == ["left", "right"]
    same(torch, weighted(), *x)


def test_the_mode_stays(torch):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    module[1].eval()
    export(module, torch.zeros(1, 2))
    assert [each.training for each in module.modules()] == [True, True, False]


def test_values_do_not_become_constants(torch):
    """A trace would keep the branch that the example takes; torch.export refuses, so the trace's warning is passed on."""
    branch = type("Branch", (torch.nn.Module,), {"forward": lambda self, x: x + 1 if x.sum() > 0 else x - 1})
    with pytest.warns(torch.jit.TracerWarning, match="Converting a tensor to a Python boolean"):
        graph = export(branch(), torch.ones(1, 2))
    assert [node.kind for node in graph.nodes] == ["Add"]


def test_whole(torch):
    graph = export(torch.nn.Softmax(0), torch.zeros(3, 4), whole=True)
    assert next(iter(graph.inputs.values())).shape == (3, 4)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (None, "example must be a tensor, or a tuple of tensors, that module Linear is called with, not NoneType"),
        ((), "example must be a tensor, or a tuple of tensors, that module Linear is called with, not empty"),
        ("torch.zeros(())", r"example must have a batch of one sample or more on axis 0, not shape \(\)"),
        ("torch.zeros(0, 2)", r"example must have a batch of one sample or more on axis 0, not shape \(0, 2\)"),
        ("torch.zeros(1, 3)", "module Linear must be one that torch exports to ONNX, not one that gives RuntimeError: .*"),
    ],
)
def test_refused(torch, example, message):
    with pytest.raises(NetworkError, match=f"^{message}$"):
        export(torch.nn.Linear(2, 2), eval(example) if isinstance(example, str) else example)


def test_no_module(torch):
    with pytest.raises(NetworkError, match=r"^module must be a torch.nn.Module, not int$"):
        export(3, torch.zeros(1))


def test_causal_attention(torch):
    """A mask of -inf, which no integer holds, stays on the accelerator; classes of random weights differ where scores are nearly equal."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: torch.export needs it")
    nn = torch.nn

    class Causal:
        def forward(self, x: Any) -> Any:
            return self.layer(x, src_mask=self.mask)  # type: ignore[attr-defined]  # a buffer, which torch finds at run time

    torch.manual_seed(0)
    module = type("Causal", (Causal, nn.Module), {})()
    module.layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
    module.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(12))
    x = torch.randn(32, 12, 32)
    network = accel.load(module, x, calibration=x.numpy())
    assert not any(isinstance(operator, Host) for operator in network.operators)
    result = accel.simulate(network, "edge-int8", inputs={network.inputs[0].name: x.numpy()}).real(network.outputs[0].name)
    with torch.no_grad():
        wanted = module.eval()(x).numpy()
    assert np.square(result - wanted).mean() < 1e-2 * np.square(wanted).mean()


def test_load(torch):
    """The whole way: a float module, calibrated, beside itself; rounding of 8 bits is far below the differences of the scores."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32, 4))
    x = torch.randn(32, 1, 4, 4)
    network = accel.load(module, x, calibration=x.numpy())
    result = accel.simulate(network, "edge-int8", inputs={network.inputs[0].name: x.numpy()})
    with torch.no_grad():
        wanted = module(x).numpy()
    assert np.abs(result.real(network.outputs[0].name) - wanted).max() < 0.05 * np.abs(wanted).max()
