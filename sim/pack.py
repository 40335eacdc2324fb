"""Lane arrays to the single integers of wide ports, and back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from amaranth import Shape
from amaranth.lib import data
from numpy.typing import ArrayLike, NDArray

from accel.errors import RangeError


class Leaf(NamedTuple):
    """One field of a payload: equal elements at regular places.

    Parameters
    ----------
    name : str
        Dotted path of the field, empty if the payload has no named fields.
    shape : tuple of int
        Lanes along each axis, empty for a scalar.
    signed : bool
        Elements are two's complement.
    bits : NDArray[np.int64]
        Position in the payload of each bit of each element, shape (*shape, element bits), least significant first.
    """

    name: str
    shape: tuple[int, ...]
    signed: bool
    bits: NDArray[np.int64]


@cache
def leaves(layout: Any) -> tuple[Leaf, ...]:
    """Return the fields of a payload in ascending position."""
    return tuple(_leaves(layout, "", np.zeros((), np.int64)))


def _leaves(layout: Any, name: str, start: NDArray[np.int64]) -> Iterator[Leaf]:
    if isinstance(layout, data.ArrayLayout):
        stride = Shape.cast(layout.elem_shape).width
        yield from _leaves(layout.elem_shape, name, start[..., None] + stride * np.arange(layout.length))
    elif isinstance(layout, data.StructLayout):
        for key, field in layout:
            yield from _leaves(field.shape, f"{name}.{key}" if name else key, start + field.offset)
    else:
        shape = Shape.cast(layout)
        yield Leaf(name, start.shape, shape.signed, start[..., None] + np.arange(shape.width))


def pack(layout: Any, values: ArrayLike | None = None, /, **fields: ArrayLike) -> list[int]:
    """Join the fields of each payload into one integer, lane 0 and the first field lowest.

    Parameters
    ----------
    layout : ShapeLike
        Shape of the payload: nested struct and array layouts of integers.
    values : array_like, shape (n, *lanes)
        Elements of a payload without named fields.
    **fields : array_like, shape (n, *lanes)
        Elements by field name, all of them.

    Returns
    -------
    list of int, length n

    Raises
    ------
    RangeError
        If a field is missing or unknown, has another shape, or an element does not fit.
    """
    given = {"": values} if values is not None else fields
    wanted = leaves(layout)
    if set(given) != {leaf.name for leaf in wanted}:
        raise RangeError(f"fields must be {', '.join(leaf.name for leaf in wanted)}, not {', '.join(given)}")
    count = len(np.atleast_1d(np.asarray(given[wanted[0].name])))
    width = Shape.cast(layout).width
    flat = np.zeros((count, (width + 7) // 8 * 8), np.uint8)
    for leaf in wanted:
        value = np.asarray(given[leaf.name], np.int64)
        if value.shape != (count, *leaf.shape):
            raise RangeError(f"{leaf.name or 'values'} must be of shape {(count, *leaf.shape)}, not {value.shape}")
        length = leaf.bits.shape[-1]
        lo = -(1 << length - 1) if leaf.signed else 0
        if value.size and not lo <= value.min() <= value.max() < lo + (1 << length):
            raise RangeError(f"{leaf.name or 'values'} must be in [{lo}, {lo + (1 << length)}), not {value.min()}..{value.max()}")
        octets = np.ascontiguousarray(value, "<i8")[..., None].view(np.uint8)
        flat[:, leaf.bits.ravel()] = np.unpackbits(octets, axis=-1, bitorder="little")[..., :length].reshape(count, leaf.bits.size)
    return [int.from_bytes(row, "little") for row in np.packbits(flat, axis=-1, bitorder="little").tolist()]


def unpack(layout: Any, words: list[int]) -> dict[str, NDArray[np.int64]]:
    """Split payloads into their fields: the inverse of :func:`pack`.

    Parameters
    ----------
    layout : ShapeLike
        Shape of the payload.
    words : list of int, length n
        Payloads.

    Returns
    -------
    dict of str to int64, shape (n, *lanes)
        Elements by field name; the empty name if the payload has none.
    """
    octets = (Shape.cast(layout).width + 7) // 8
    raw = np.frombuffer(b"".join(word.to_bytes(octets, "little") for word in words), np.uint8).reshape(len(words), octets)
    flat = np.unpackbits(raw, axis=-1, bitorder="little")
    fields = {}
    for leaf in leaves(layout):
        length = leaf.bits.shape[-1]
        full = np.zeros((len(words), prod(leaf.shape), 64), np.uint8)
        full[..., :length] = flat[:, leaf.bits.ravel()].reshape(len(words), prod(leaf.shape), length)
        if leaf.signed:
            full[..., length:] = full[..., length - 1 : length]
        fields[leaf.name] = np.packbits(full, axis=-1, bitorder="little").view("<i8").reshape(len(words), *leaf.shape)
    return fields


def first_difference(layout: Any, expected: str, got: str) -> tuple[str, str, str]:
    """Name the first differing element of two payloads and give both values.

    Parameters
    ----------
    layout : ShapeLike
        Shape of the payload.
    expected, got : str
        Bits of the two, the most significant first; they may be undefined (``X``).

    Returns
    -------
    element : str
        ``.field[lane]``, empty for a payload of one element.
    expected, got : str
        The element in decimal, or its bits if one is undefined.
    """
    wanted, found = (np.array(list(bits[::-1])) for bits in (expected, got))
    for leaf in leaves(layout):
        for lane in map(tuple, np.argwhere((wanted != found)[leaf.bits].any(-1))):
            element = f".{leaf.name}" * bool(leaf.name) + "".join(f"[{i}]" for i in lane)
            return element, _decimal(wanted[leaf.bits[lane]], leaf.signed), _decimal(found[leaf.bits[lane]], leaf.signed)
    raise ValueError("payloads must differ")


def _decimal(bits: NDArray[np.str_], signed: bool) -> str:
    text = "".join(bits[::-1])
    if set(text) - {"0", "1"}:
        return text
    return str(int(text, 2) - (int(text[0]) << len(text) if signed else 0))
