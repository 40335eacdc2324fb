"""Graphs from ONNX files: everything that can be wrong with bytes is found here. Nothing is unpickled, and nothing in a file is executed.

A file is read in bounded time and memory whatever it holds: its structure is counted before it is parsed (:mod:`accel.graph.wire`), and
tensors are mapped from the file once they are large together.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from accel.errors import NetworkError
from accel.graph.graph import FOUR_BIT, OPEN, Array, Given, Graph, Node
from accel.graph.wire import Damaged, Span, integers, structure

OLDEST_OPSET = 11
NEWEST_OPSET = onnx.defs.onnx_opset_version()
LIMIT = 1 << 31  # [bytes] the longest message protobuf allows
COPIED = 1 << 28  # our choice [bytes]: tensors of a model that are held in memory; the rest stays in its file
WIDENED = 1 << 30  # our choice [bytes]: tensors of a model that are held in a wider type than the file has
PACKED = 1 << 26  # our choice [bytes]: of integers in fields of their own, which are decoded at some 20 MB/s
WRITTEN = 1 << 16  # our choice [nodes]: once functions are written out
NODES = 1 << 15  # our choice: that an output depends on
FUNCTIONS, NESTED = 1 << 10, 64  # our choice: how many, and how deep they may call each other
NAME = 1 << 12  # our choice [characters]
AXES = 32  # our choice: of a tensor
TYPES: dict[int, Any] = {  # of tensors, and how the file stores their elements
    TensorProto.FLOAT: "<f4",
    TensorProto.DOUBLE: "<f8",
    TensorProto.FLOAT16: "<f2",
    TensorProto.BFLOAT16: "<u2",
    TensorProto.INT4: "u1",
    TensorProto.UINT4: "u1",
    TensorProto.INT8: "i1",
    TensorProto.UINT8: "u1",
    TensorProto.INT16: "<i2",
    TensorProto.UINT16: "<u2",
    TensorProto.INT32: "<i4",
    TensorProto.UINT32: "<u4",
    TensorProto.INT64: "<i8",
    TensorProto.UINT64: "<u8",
    TensorProto.BOOL: "u1",
}
FIELDS: dict[str, tuple[int, ...]] = {  # which types a field of numbers may hold
    "float_data": (TensorProto.FLOAT,),
    "double_data": (TensorProto.DOUBLE,),
    "int64_data": (TensorProto.INT64,),
    "uint64_data": (TensorProto.UINT32, TensorProto.UINT64),
    "int32_data": tuple(set(TYPES) - {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64}),
}
DTYPES = {"float_data": np.float32, "double_data": np.float64, "int32_data": np.int64, "int64_data": np.int64, "uint64_data": np.uint64}
MAGIC = (  # other files that people have, by place and bytes
    (0, b"PK\x03\x04", "a zip archive, as PyTorch's .pt is: export it with torch.onnx.export"),
    (0, b"\x80\x02", "a pickle, which is never read: export it with torch.onnx.export"),
    (0, b"\x80\x03", "a pickle, which is never read"),
    (0, b"\x80\x04", "a pickle, which is never read"),
    (0, b"\x80\x05", "a pickle, which is never read"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes it: convert it with tf2onnx"),
    (4, b"TFL3", "a TensorFlow Lite file: convert it with tf2onnx"),
    (4, b"ORTM", "an ORT file: take the .onnx file it was made of"),
    (0, b"\x1f\x8b", "a gzip file: unpack it first"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file behind it"),
)


def read(path: str | os.PathLike[str]) -> Graph:
    """Read an ONNX file.

    Constants are in `constants`, nodes that no output depends on are left out, functions of the model's own are written out, and
    attributes that are graphs are left out (control flow is refused by name later). Tensors outside the file are read only from the
    file's own folder; they are read-only and, where they are large, mapped: the files must not change as long as the graph is used.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Graph
        Named as the file is.

    Raises
    ------
    NetworkError
        If the file cannot be read, is not a whole ONNX model, or its graph is not well formed. The message names the file, and the tensor
        or node if there is one.
    """
    file = Path(path)
    with naming(file):
        return _Reader(file.parent, _contents(file, "network", "an ONNX file")).graph(file.stem)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the file's name in front of what is wrong with it."""
    try:
        yield
    except NetworkError as error:
        raise NetworkError(f"{file}: {error}") from error.__cause__
    except RecursionError as error:  # functions of one tensor are applied one inside the other
        raise NetworkError(f"{file}: chains of functions must be short enough for Python's stack, not thousands of nodes") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "\0" not in str(file):
            raise
        raise NetworkError(
            f"{file}: network must be readable, not what gives {getattr(error, 'strerror', None) or str(error)!r}"
        ) from error


def _contents(file: Path, what: str, rule: str) -> memoryview:
    """Bytes of a regular file: in memory if they are few, else mapped."""
    found = status(file)
    if found is None:
        raise NetworkError(f"{what} must be {rule}, not a missing file")
    if not stat.S_ISREG(found.st_mode):
        raise NetworkError(f"{what} must be {rule}, not a {'directory' if stat.S_ISDIR(found.st_mode) else 'special file'}")
    if not 0 < found.st_size < LIMIT:
        raise NetworkError(f"{what} must be {rule} of 1 to {LIMIT - 1} bytes, not {found.st_size}")
    return _bytes(file, found.st_size)


def status(file: Path) -> os.stat_result | None:
    """Ask the file system about a file; None if there is none."""
    try:
        return file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _bytes(file: Path, size: int) -> memoryview:
    with file.open("rb") as stream:
        if size <= COPIED:
            return memoryview(stream.read(size))
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def label(kind: int) -> str:
    """Name of an ONNX element type."""
    return TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else str(kind)


@dataclass(slots=True)
class _Reader:
    """Reads one model.

    Parameters
    ----------
    folder : Path
        The model's.
    data : memoryview
        The model's bytes.
    """

    folder: Path
    data: memoryview
    files: dict[Path, memoryview] = field(default_factory=dict)
    copied: int = 0
    widened: int = 0
    packed: int = 0

    def graph(self, name: str) -> Graph:
        """Graph of the model."""
        model = _expand(self._model())
        opset = _opset(model)
        graph = model.graph
        _check_names(graph)
        nodes = _needed(graph)
        if len(nodes) > NODES:
            raise NetworkError(f"network must have at most {NODES} nodes, not {len(nodes)}")
        read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
        constants = {tensor.name: self.tensor(tensor) for tensor in graph.initializer if tensor.name in read}
        kept = []
        for node in map(self.node, nodes):
            if node.kind == "Constant" and not node.domain and len(node.outputs) == 1:
                constants[node.outputs[0]] = _constant(node)
            else:
                kept.append(node)
        stored = {tensor.name for tensor in graph.initializer}
        return Graph(
            name=name,
            opset=opset,
            nodes=tuple(kept),
            constants=constants,
            inputs={given.name: _given(given) for given in graph.input if given.name not in stored},
            outputs=tuple(output.name for output in graph.output),
        )

    def _model(self) -> ModelProto:
        """Parse the structure."""
        try:
            model: ModelProto = ModelProto.FromString(structure(self.data))
        except (Damaged, DecodeError) as error:
            raise NetworkError(f"network must be an ONNX file, not {self._looks('one that breaks off or holds something else')}") from error
        if not model.ir_version or not model.HasField("graph"):
            raise NetworkError(f"network must be an ONNX file, not {self._looks('one without a graph')}")
        if model.graph.sparse_initializer:
            raise NetworkError(f"tensor {model.graph.sparse_initializer[0].values.name!r} must be stored dense, not sparse")
        return model

    def _looks(self, otherwise: str) -> str:
        """Say what the bytes are instead of a model."""
        head = bytes(self.data[:4096])
        for at, magic, name in MAGIC:
            if head[at : at + len(magic)] == magic:
                return name
        if not any(byte < 9 or 13 < byte < 32 or byte == 127 for byte in head):
            return "text"
        return otherwise

    def node(self, proto: NodeProto) -> Node:
        """Read a node; its attributes that are graphs are left out."""
        name = proto.name or next(filter(None, proto.output), "")
        node = Node(name, proto.op_type, tuple(proto.input), tuple(proto.output), {}, "" if proto.domain == "ai.onnx" else proto.domain)
        attributes: dict[str, Any] = {}
        for attribute in proto.attribute:
            if attribute.name in attributes:
                raise NetworkError(f"attribute {attribute.name!r} of {node} must be given once, not again")
            if attribute.ref_attr_name or attribute.type not in ATTRIBUTES:
                kind = "a reference" if attribute.ref_attr_name else f"type {attribute.type}"
                raise NetworkError(f"attribute {attribute.name!r} of {node} must be numbers, texts or tensors, not {kind}")
            convert = ATTRIBUTES[attribute.type]
            if convert is not None:
                attributes[attribute.name] = convert(self, attribute)
        return Node(node.name, node.kind, node.inputs, node.outputs, attributes, node.domain)

    def tensor(self, tensor: TensorProto) -> Array:
        """Read a constant tensor, wherever its numbers lie."""
        kind, shape = tensor.data_type, tuple(tensor.dims)
        if kind not in TYPES:
            raise NetworkError(f"type of tensor {tensor.name!r} must be one of {', '.join(map(label, TYPES))}, not {label(kind)}")
        if len(shape) > AXES or (shape and min(shape) < 0) or prod(filter(None, shape)) >= 1 << 48:
            raise NetworkError(f"shape of tensor {tensor.name!r} must be at most {AXES} sizes of data that are there, not {_short(shape)}")
        size = prod(shape)
        if tensor.data_location == TensorProto.EXTERNAL:
            raw: NDArray[Any] | None = self._external(tensor, _length(kind, size))
        elif tensor.doc_string.startswith("raw_data:"):
            span = Span.parse(tensor.doc_string)
            raw = np.frombuffer(self.data[span.start : span.end], np.uint8)
        elif tensor.HasField("raw_data"):
            raw = np.frombuffer(tensor.raw_data, np.uint8)
        else:
            raw = None
        if raw is None:
            stored = self._typed(tensor)
        elif len(raw) != _length(kind, size):
            raise NetworkError(f"tensor {tensor.name!r} must be {_length(kind, size)} bytes for its shape {shape}, not {len(raw)}")
        else:
            stored = self._held(raw.view(TYPES[kind]))
        values = self._widen(stored, kind, tensor.name)
        if kind in FOUR_BIT:
            values = values[:size]
        if values.size != size:
            raise NetworkError(f"tensor {tensor.name!r} must be {size} elements for its shape {shape}, not {values.size}")
        values = values.reshape(shape)
        values.flags.writeable = False
        return Array(values, kind)

    def _typed(self, tensor: TensorProto) -> NDArray[Any]:
        """Numbers of a field of their own type, as raw data would hold them."""
        kind = tensor.data_type
        name = next(name for name, kinds in FIELDS.items() if kind in kinds)
        if tensor.doc_string.startswith(f"{name}:"):
            span = Span.parse(tensor.doc_string)
            run = np.frombuffer(self.data[span.start : span.end], np.uint8)
            if name in ("float_data", "double_data"):
                width = np.dtype(TYPES[kind]).itemsize
                if len(run) % width:
                    raise NetworkError(f"tensor {tensor.name!r} must be well formed: {len(run)} bytes are no whole number of elements")
                return self._held(run.view(TYPES[kind]))
            self.packed += len(run)
            if self.packed > PACKED:
                rule = f"be at most {PACKED} bytes of packed integers: raw_data has no limit"
                raise NetworkError(f"tensor {tensor.name!r} and those before it must {rule}")
            try:
                numbers: NDArray[Any] = integers(run)
            except Damaged as error:
                raise NetworkError(f"tensor {tensor.name!r} must be well formed: {error}") from error
        else:
            numbers = np.array(getattr(tensor, name), DTYPES[name])
        if kind == TensorProto.UINT64:
            return numbers.view(np.uint64)
        dtype = np.dtype(np.uint16 if kind == TensorProto.FLOAT16 else TYPES[kind])
        values = numbers.astype(dtype, copy=False)
        if dtype.kind in "iu" and (values != numbers).any():
            raise NetworkError(f"tensor {tensor.name!r} must be well formed: {numbers[values != numbers][0]} is no {label(kind)}")
        return values.view("<f2") if kind == TensorProto.FLOAT16 else values

    def _held(self, values: NDArray[Any]) -> NDArray[Any]:
        """Copy that is aligned and lives without the file, as long as copies are small together."""
        if self.copied + values.nbytes > COPIED:
            return values
        self.copied += values.nbytes
        return values.copy()

    def _widen(self, stored: NDArray[Any], kind: int, name: str) -> NDArray[Any]:
        """Elements in the type that holds them in a graph."""
        if kind not in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL, *FOUR_BIT):
            return stored
        self.widened += stored.nbytes * 2
        if self.widened > WIDENED:
            raise NetworkError(f"tensor {name!r} and those before it must be {WIDENED} bytes at most once they are widened, not more")
        if kind == TensorProto.BOOL:
            truth: NDArray[np.bool_] = stored != 0
            return truth
        if kind == TensorProto.FLOAT16:
            return stored.astype(np.float32)
        if kind == TensorProto.BFLOAT16:
            return (stored.astype(np.uint32) << 16).view(np.float32)
        nibbles = np.stack([stored & 15, stored >> 4], axis=-1).ravel().view(np.int8)
        return nibbles if kind == TensorProto.UINT4 else (nibbles ^ 8) - 8

    def _external(self, tensor: TensorProto, needed: int) -> NDArray[np.uint8]:
        """Bytes that lie in a file of their own, inside the model's folder."""
        name = tensor.name
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        inside = self.folder.resolve()
        if not isinstance(location, str) or "\0" in location:
            raise NetworkError(f"external data of {name!r} must be a file, not {location!r}")
        file = Path(os.path.realpath(inside / location))  # unlike resolve, it takes loops of links
        if location and not file.is_relative_to(inside) and Path(os.path.normpath(inside / location)).is_relative_to(inside):
            raise NetworkError(f"external data of {name!r} must lie in the model's folder, not where the link {location!r} leads: {file}")
        if not location or not file.is_relative_to(inside):
            raise NetworkError(f"external data of {name!r} must lie in the model's folder, not at {location!r}")
        found = status(file)
        if found is None or not stat.S_ISREG(found.st_mode):
            raise NetworkError(f"external data of {name!r} must be a file, not {location!r}")
        offset = _integer(name, "offset", entries.get("offset", "0"))
        length = _integer(name, "length", entries.get("length", str(max(found.st_size - offset, 0))))
        if offset + length > found.st_size:
            span = f"bytes {offset} to {offset + length}"
            raise NetworkError(f"external data of {name!r} must lie inside {location!r} ({found.st_size} bytes), not at {span}")
        if length != needed:
            raise NetworkError(f"tensor {name!r} must be {needed} bytes for its shape {tuple(tensor.dims)}, not {length}")
        if not length:
            return np.zeros(0, np.uint8)
        if self.copied + length <= COPIED:
            with file.open("rb") as stream:
                stream.seek(offset)
                return np.frombuffer(stream.read(length), np.uint8)
        if file not in self.files:
            with file.open("rb") as stream:
                self.files[file] = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        return np.frombuffer(self.files[file][offset : offset + length], np.uint8)


Convert = Callable[[_Reader, AttributeProto], Any]
ATTRIBUTES: dict[int, Convert | None] = {  # None: what only operators have that are refused by name
    AttributeProto.FLOAT: lambda _, a: a.f,
    AttributeProto.INT: lambda _, a: a.i,
    AttributeProto.STRING: lambda _, a: a.s.decode(errors="replace"),
    AttributeProto.TENSOR: lambda reader, a: reader.tensor(a.t),
    AttributeProto.FLOATS: lambda _, a: list(a.floats),
    AttributeProto.INTS: lambda _, a: list(a.ints),
    AttributeProto.STRINGS: lambda _, a: [text.decode(errors="replace") for text in a.strings],
    AttributeProto.TENSORS: lambda reader, a: [reader.tensor(tensor) for tensor in a.tensors],
    AttributeProto.GRAPH: None,
    AttributeProto.GRAPHS: None,
    AttributeProto.SPARSE_TENSOR: None,
    AttributeProto.SPARSE_TENSORS: None,
    AttributeProto.TYPE_PROTO: None,
    AttributeProto.TYPE_PROTOS: None,
}


def _length(kind: int, size: int) -> int:
    """Bytes of so many elements."""
    return -(-size // 2) if kind in FOUR_BIT else size * np.dtype(TYPES[kind]).itemsize


def _integer(name: str, what: str, text: Any) -> int:
    """Value of an entry of external data."""
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 18:
        raise NetworkError(f"{what} of external data of {name!r} must be a number of bytes, not {_short(text)}")
    return int(text)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _constant(node: Node) -> Array:
    """Value of a Constant node."""
    values = [value for name, value in node.attributes.items() if name.startswith("value")]
    if len(values) == 1 and isinstance(values[0], Array):
        return values[0]
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64), ("value_ints", np.int64)):
        if len(values) == 1 and name in node.attributes:
            return Array.of(np.asarray(values[0], dtype))
    raise NetworkError(f"value of {node} must be numbers, not something else")


def _given(value: onnx.ValueInfoProto) -> Given:
    """Read a graph input."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type not in TYPES:
        kind = label(tensor.elem_type) if value.type.HasField("tensor_type") else value.type.WhichOneof("value") or "left out"
        raise NetworkError(f"type of graph input {value.name!r} must be one of {', '.join(map(label, TYPES))}, not {kind}")
    if not tensor.HasField("shape"):
        return Given(tensor.elem_type, OPEN)
    if len(tensor.shape.dim) > AXES:
        raise NetworkError(f"shape of graph input {value.name!r} must be at most {AXES} axes, not {len(tensor.shape.dim)}")
    extents: list[int | str] = []
    for axis, extent in enumerate(tensor.shape.dim):
        named = not extent.HasField("dim_value") or extent.dim_value == -1  # which some tools write for a size left open
        if not named and not 0 <= extent.dim_value < LIMIT:
            raise NetworkError(f"axis {axis} of graph input {value.name!r} must be a size of 0 to {LIMIT - 1}, not {extent.dim_value}")
        extents.append((_text(extent.dim_param) or "?") if named else extent.dim_value)
    return Given(tensor.elem_type, tuple(extents))


def _text(name: Any) -> str:
    """Return a name that protobuf gives, as bytes if it is no text."""
    if not isinstance(name, str) or len(name) > NAME:
        raise NetworkError(f"names in the graph must be UTF-8 text of at most {NAME} characters, not {_short(name)}")
    return name


def _opset(model: ModelProto) -> int:
    """Opset of ONNX's own operators."""
    opsets = {"" if each.domain == "ai.onnx" else each.domain: each.version for each in model.opset_import}
    opset = int(opsets.get("", 0))
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise NetworkError(f"opset must be in [{OLDEST_OPSET}, {NEWEST_OPSET}], not {opset}")
    return opset


def _check_names(graph: GraphProto) -> None:
    """Refuse names that are no text, or not one thing's own."""
    for node in graph.node:
        for name in (node.name, node.op_type, node.domain, *node.input, *node.output, *(each.name for each in node.attribute)):
            _text(name)
    for what, values in (("constant", graph.initializer), ("graph input", graph.input), ("graph output", graph.output)):
        seen = set()
        for value in values:
            if not _text(value.name) or value.name in seen:
                raise NetworkError(f"name of each {what} must be its own, not {value.name!r} {'again' if value.name else ''}".rstrip())
            seen.add(value.name)


def _needed(graph: GraphProto) -> list[NodeProto]:
    """Nodes that the outputs depend on, in their order, each reading what is written before."""
    written = {tensor.name for tensor in graph.initializer} | {given.name for given in graph.input}
    for node in graph.node:
        label = f"node {node.name or ', '.join(node.output)!r} ({node.op_type})"
        for name in node.input:
            if name and name not in written:
                raise NetworkError(f"inputs of {label} must be written before it, without a cycle, not {name!r}")
        for name in node.output:
            if name in written:
                raise NetworkError(f"outputs of {label} must be new names, not {name!r}")
            if name:
                written.add(name)
    needed = {output.name for output in graph.output}
    if not needed or not needed <= written:
        raise NetworkError(f"outputs of the graph must be written by its nodes, not {sorted(needed - written) or 'left out'}")
    nodes = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(filter(None, node.input))
            nodes.append(node)
    return nodes[::-1]


# Functions.


def _expand(model: ModelProto) -> ModelProto:
    """Write out the calls of the model's own functions, once it is known that they end."""
    if not model.functions:
        return model
    if len(model.functions) > FUNCTIONS:
        raise NetworkError(f"functions of the network must be at most {FUNCTIONS}, not {len(model.functions)}")
    bodies = {(each.domain, each.name, each.overload): each.node for each in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(nodes: Iterable[NodeProto], above: tuple[tuple[str, str, str], ...]) -> int:
        """Nodes once calls are written out."""
        total = 0
        for node in nodes:
            total += 1 + sum(size(graph.node, above) for graph in _graphs(node))
            key = (node.domain, node.op_type, node.overload)
            if key in bodies:
                if key in above or len(above) == NESTED:
                    rule = "not call themselves" if key in above else f"call each other at most {NESTED} deep"
                    raise NetworkError(f"functions of the network must {rule}, unlike {node.op_type!r}")
                if key not in sizes:
                    sizes[key] = size(bodies[key], (*above, key))
                total += sizes[key]
        return total

    if size(model.graph.node, ()) > WRITTEN:
        raise NetworkError(f"network must have at most {WRITTEN} nodes once its functions are written out, not more")
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # whatever the library finds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NetworkError(f"functions of the network must be valid: {reason}") from error


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs in the attributes of a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
