"""Graphs of PyTorch modules, through PyTorch's own ONNX exporter. PyTorch itself is optional.

Of its two exporters the one by tracing (``dynamo=False``) comes first: it needs nothing but PyTorch and takes a tenth of the time. Where it
warns that a value of a tensor has become a constant, where it fails, and in a PyTorch without it, the one by ``torch.export`` follows,
which tells shapes from values but needs onnxscript; if that fails too, tracing has the last word and its warnings are passed on. Both write
the graph of one sample: the batch is no part of a network here, and a shape computed from it folds to a constant.
"""

from __future__ import annotations

import inspect
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from accel.errors import NetworkError, ToolError
from accel.graph.graph import Graph
from accel.graph.read import read

OPSET = 17  # the oldest with LayerNormalization; every PyTorch since 2.0 writes it


def export(module: Any, example: Any, whole: bool = False, *, trained: bool = False) -> Graph:
    """Export a module in evaluation mode.

    Parameters
    ----------
    module : torch.nn.Module
        Its mode is the same afterwards.
    example : tensor or sequence of tensors
        What it is called with, the batch on axis 0; values do not matter.
    whole : bool
        Axis 0 is no batch: take the example as it is, not its first sample.
    trained : bool
        Keep batch normalisation apart from the convolution before it.

    Returns
    -------
    Graph
        As :func:`accel.graph.read.read` gives it. Inputs are called as the arguments of `forward`.

    Raises
    ------
    ToolError
        If PyTorch is not installed.
    NetworkError
        If the example is no tensor, or neither exporter can write the module.
    """
    try:
        import torch
    except ImportError as error:
        raise ToolError("torch must be installed to read a module (pip install torch), not missing") from error
    name = type(module).__name__
    if not isinstance(module, torch.nn.Module):
        raise NetworkError(f"module must be a torch.nn.Module, not {name}")
    tensors = tuple(example) if isinstance(example, tuple | list) else (example,)
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        kinds = ", ".join(type(tensor).__name__ for tensor in tensors)
        raise NetworkError(f"example must be a tensor, or a tuple of tensors, that module {name} is called with, not {kinds or 'empty'}")
    if not whole:
        if any(tensor.ndim == 0 or not len(tensor) for tensor in tensors):
            raise NetworkError(f"example must have a batch of one sample or more on axis 0, not shape {tuple(tensors[0].shape)}")
        tensors = tuple(tensor[:1] for tensor in tensors)
    with _evaluating(module), tempfile.TemporaryDirectory() as folder:
        traced, exported = Path(folder) / "traced" / f"{name}.onnx", Path(folder) / "exported" / f"{name}.onnx"
        reasons, doubts = [], []  # weights over 2 GB go to files beside these, which stay mapped
        try:
            doubts = _trace(module, tensors, traced, trained)
            if not doubts:
                return read(traced)
        except Exception as error:  # raised for whatever a module may do, of many types
            reasons.append(_brief(error))
        try:
            _dynamo(module, tensors, exported, trained)
            return read(exported)
        except Exception as error:
            reasons.append(_brief(error))
        if not doubts:
            raise NetworkError(f"module {name} must be one that torch exports to ONNX, not one that gives {' and '.join(reasons)}")
        graph = read(traced)
    for doubt in doubts:
        warnings.warn(doubt, torch.jit.TracerWarning, stacklevel=2)
    return graph


def _brief(error: Exception) -> str:
    """First line of what torch says, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200] if text else 'no message'}"


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Hold a module in evaluation mode, without gradients and without fused attention, which has no ONNX counterpart."""
    import torch

    modes = {each: each.training for each in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        module.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(StringIO()):
            for category in (DeprecationWarning, FutureWarning, UserWarning):  # of the exporter about itself
                warnings.simplefilter("ignore", category)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for each, training in modes.items():
            each.training = training


def _names(module: Any, count: int) -> list[str]:
    """Name the inputs as `forward` does."""
    parameters = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return parameters[:count] if len(parameters) >= count else [f"input{index}" for index in range(count)]


def _trace(module: Any, tensors: tuple[Any, ...], file: Path, trained: bool) -> list[str]:
    """Export by tracing; return its warnings that a value may have become a constant."""
    import torch

    file.parent.mkdir()
    arguments: dict[str, Any] = (
        {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    )  # absent before 2.5
    if trained:  # in evaluation mode the exporter folds normalisation into weights; each module's own mode is that, too
        arguments["training"] = torch.onnx.TrainingMode.PRESERVE
    export: Callable[..., Any] = torch.onnx.export
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", torch.jit.TracerWarning)
        export(module, tensors, str(file), input_names=_names(module, len(tensors)), opset_version=OPSET, **arguments)
    return [str(each.message) for each in caught if issubclass(each.category, torch.jit.TracerWarning)]


def _dynamo(module: Any, tensors: tuple[Any, ...], file: Path, trained: bool) -> None:
    """Export by torch.export."""
    import torch

    file.parent.mkdir()
    export: Callable[..., Any] = torch.onnx.export
    plain = {"optimize": False} if trained else {}
    program = export(module, tensors, input_names=_names(module, len(tensors)), dynamo=True, verbose=False, **plain)
    program.save(str(file))
