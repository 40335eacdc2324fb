"""Networks from files: everything that can be wrong with a file is found here, before its graph is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

import accel.networks
from accel.errors import NetworkError
from accel.graph.network import Network
from accel.graph.onnx import network

SUFFIX = ".onnx"
LIMIT = 1 << 31  # [bytes] the longest message protobuf allows; the same for all external data of a model together


def builtin() -> dict[str, Path]:
    """Files of the networks that ship with the package, by name."""
    return {path.stem: path for path in sorted(Path(accel.networks.__file__).parent.glob(f"*{SUFFIX}")) if "." not in path.stem}


def load(path: str | os.PathLike[str]) -> Network:
    """Read a quantised network from an ONNX file (QuantizeLinear and DequantizeLinear around its operators).

    Weights outside the file are read only from the file's own folder. Nothing is unpickled and nothing in the file is executed.

    Parameters
    ----------
    path : str or path
        The file, or the name of a network that ships with the package.

    Returns
    -------
    Network

    Raises
    ------
    NetworkError
        If the file cannot be read, is not a whole and valid ONNX model, or holds something that is not supported. The message names the
        file, and the node if there is one.
    """
    if not isinstance(path, str | os.PathLike):
        raise NetworkError(f"network must be a path or one of {', '.join(builtin())}, not {path!r}")
    file = builtin().get(str(path), Path(path))
    try:
        model = _model(file)
        _embed(model, file.parent)
        return network(model, file.stem)
    except NetworkError as error:
        raise NetworkError(f"{file}: {error}") from error.__cause__
    except OSError as error:
        raise NetworkError(f"{file}: network must be readable, not what gives {error.strerror!r}") from error


def _model(file: Path) -> onnx.ModelProto:
    """Parse the bytes of a file."""
    if not file.exists():
        raise NetworkError(f"network must be an ONNX file or one of {', '.join(builtin())}, not a missing file")
    if not file.is_file():
        raise NetworkError(f"network must be an ONNX file, not a {'directory' if file.is_dir() else 'special file'}")
    size = file.stat().st_size
    if not 0 < size < LIMIT:
        raise NetworkError(f"network must be an ONNX file of 1 to {LIMIT - 1} bytes, not {size}")
    try:
        model: onnx.ModelProto = onnx.load_model_from_string(file.read_bytes())
    except DecodeError as error:
        raise NetworkError("network must be an ONNX file, not one that breaks off or holds something else") from error
    if not model.ir_version or not model.HasField("graph"):
        raise NetworkError("network must be an ONNX file, not one without a graph")
    for output in model.graph.output:
        output.type.tensor_type.shape.SetInParent()  # some tools leave it out; it follows from the graph
    return model


def _embed(model: onnx.ModelProto, folder: Path) -> None:
    """Read tensors that lie in files of their own, all of them inside `folder`, into the model."""
    total = 0
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = str(entries.get("location", ""))
        inside = folder.resolve()
        file = inside if "\0" in location else (inside / location).resolve()  # no file can have that name
        if not location or not file.is_relative_to(inside):
            raise NetworkError(f"external data of {tensor.name!r} must lie in the model's folder, not at {location!r}")
        if not file.is_file():
            raise NetworkError(f"external data of {tensor.name!r} must be a file, not {location!r}")
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", str(file.stat().st_size - offset)))
        except ValueError as error:
            raise NetworkError(f"external data of {tensor.name!r} must have an integer offset and length: {error}") from error
        if offset < 0 or length < 0 or offset + length > file.stat().st_size:
            span = f"bytes {offset} to {offset + length}"
            raise NetworkError(
                f"external data of {tensor.name!r} must lie inside {location!r} ({file.stat().st_size} bytes), not at {span}"
            )
        total += length
        if total >= LIMIT:
            raise NetworkError(f"external data must be less than {LIMIT} bytes in all, not {total} or more")
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constant tensors of a graph."""
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
