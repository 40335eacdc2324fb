"""Protocol buffers' wire format: a model taken apart into its structure, which is small, and its tensors' numbers, which stay in place.

The structure is counted before a library parses it, since a few bytes of it may become a hundred in memory; the numbers are neither parsed
nor copied, so that a model of gigabytes costs what it is used for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from accel.errors import NetworkError

FIELDS = 1 << 19  # our choice: of all messages together
STRUCTURE = 1 << 24  # our choice [bytes]: everything but the numbers of tensors
DEPTH = 32  # our choice: messages in messages; a graph inside a node's attribute adds three
BULK = 64  # our choice [bytes]: shorter runs of numbers stay in their message
NUMBERS = {"raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data"}
DROPPED = {"doc_string", "metadata_props", "training_info", "value_info", "quantization_annotation"}  # nothing here reads them
VARINT, LONG, BYTES, SHORT = 0, 1, 2, 5  # wire types
CHUNK = 1 << 20  # [bytes] of integers decoded at once, each of which takes some 50 in between


class Damaged(ValueError):
    """Bytes that are no message."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where the numbers of a tensor lie: a field of it, and the bytes of the file.

    Its text stands in the tensor's ``doc_string``, which no file can set: its own is dropped.
    """

    field: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.field}:{self.start}:{self.end}"

    @classmethod
    def parse(cls, text: str) -> Span:
        """Inverse of ``str``."""
        field, start, end = text.split(":")
        return cls(field, int(start), int(end))


def structure(data: memoryview) -> bytes:
    """Copy a serialised ``ModelProto`` without what nothing reads, and with the :class:`Span` of each long run of numbers in its place.

    Parameters
    ----------
    data : memoryview
        Of bytes.

    Returns
    -------
    bytes
        A serialised ``ModelProto``.

    Raises
    ------
    Damaged
        If the bytes are no message.
    NetworkError
        If it has too many fields, is too long or too deep.
    """
    return _Walk(data, FIELDS, STRUCTURE).message(onnx.ModelProto.DESCRIPTOR, 0, len(data), 0)


@cache
def _rules(kind: Any) -> dict[int, tuple[str, Any]]:
    """Name, and message if it is one, of the fields of a message that are looked into, dropped or left where they are."""
    wanted = [field for field in kind.fields if field.name in NUMBERS | DROPPED or field.message_type is not None]
    return {field.number: (field.name, field.message_type) for field in wanted}


@dataclass(slots=True)
class _Walk:
    """A walk over a message and what it may still take."""

    data: memoryview
    fields: int
    size: int

    def message(self, kind: Any, start: int, end: int, depth: int) -> bytes:
        """Copy the message between two places."""
        if depth > DEPTH:
            raise NetworkError(f"network must be nested at most {DEPTH} messages deep, not more")
        rules, data, out, at = _rules(kind), self.data, bytearray(), start
        while at < end:
            begin = at
            tag, body = _varint(data, at, end)
            at = self._skip(tag & 7, body, end)
            self.fields -= 1
            if self.fields < 0:
                raise NetworkError(f"network must have at most {FIELDS} names, attributes and other fields, not more")
            name, inner = rules.get(tag >> 3, ("", None)) if tag & 7 == BYTES else ("", None)
            if name in DROPPED:
                continue
            if name:
                content = _varint(data, body, end)[1]
                if inner is not None:
                    _append(out, data[begin:body], self.message(inner, content, at, depth + 1))
                    continue
                if at - content >= BULK:
                    mark = str(Span(name, content, at)).encode()
                    _append(out, _tag(kind, "doc_string"), mark)
                    continue
            self.size -= at - begin
            if self.size < 0:
                raise NetworkError(f"network must have at most {STRUCTURE} bytes beside the numbers of its tensors, not more")
            out += data[begin:at]
        return bytes(out)

    def _skip(self, wire: int, at: int, end: int) -> int:
        """End of a field whose tag has been read."""
        if wire == VARINT:
            return _varint(self.data, at, end)[1]
        if wire == BYTES:
            length, at = _varint(self.data, at, end)
        elif wire in (LONG, SHORT):
            length = 8 if wire == LONG else 4
        else:
            raise Damaged(f"wire type {wire}")
        if length > end - at:
            raise Damaged("a field longer than its message")
        return at + length


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """Decode the number that begins at a place; return the place behind it, too."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise Damaged("a number that does not end")


def _append(out: bytearray, tag: bytes | memoryview, content: bytes) -> None:
    """Add a field of bytes."""
    out += tag
    length = len(content)
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    out += content


@cache
def _tag(kind: Any, name: str) -> bytes:
    """Tag of a field of bytes whose number is below 16, so that it is one byte."""
    return bytes([kind.fields_by_name[name].number << 3 | BYTES])


def integers(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Decode packed integers, 7 bits a byte, lowest first; what is above 64 bits is dropped, as the format demands.

    Raises
    ------
    Damaged
        If the last one does not end, or one is longer than 10 bytes.
    """
    parts, start = [], 0
    while start < len(data):
        chunk = data[start : start + CHUNK]
        ends = np.flatnonzero(chunk < 128) + 1
        if not len(ends):
            raise Damaged("a number that does not end")
        chunk, begins = chunk[: ends[-1]], np.concatenate([[0], ends[:-1]])
        place = np.arange(len(chunk)) - np.repeat(begins, ends - begins)
        if place.max() > 9:
            raise Damaged("a number longer than 10 bytes")
        terms = (chunk & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
        parts.append(np.add.reduceat(terms, begins).view(np.int64))
        start += len(chunk)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
