"""Values of a datapath, node by node, over arrays of operands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from accel.functions.datapath import Datapath, Node

Values = NDArray[np.int64]


def _bits(node: Node, x: Values) -> Values:
    low, width = node.constants
    return x >> low & (1 << width) - 1


def _join(node: Node, *parts: Values) -> Values:
    whole = np.zeros_like(parts[0])
    for part, width in zip(reversed(parts), reversed(node.constants), strict=True):
        whole = whole << width | part
    return whole


def _table(node: Node, x: Values) -> Values:
    return np.array(node.constants, np.int64)[x]


def _complement(node: Node, x: Values, where: Values) -> Values:
    return np.where(where, node.hi - x, x)


OPERATIONS: dict[str, Callable[..., Values]] = {
    "constant": lambda node: np.array(node.constants[0], np.int64),
    "bits": _bits,
    "join": _join,
    "table": _table,
    "add": lambda node, a, b: a + b,
    "subtract": lambda node, a, b: a - b,
    "multiply": lambda node, a, b: a * b,
    "shift": lambda node, x, by: x >> by,
    "complement": _complement,
    "below": lambda node, x: np.asarray(x < node.constants[0], np.int64),
    "select": lambda node, where, a, b: np.asarray(np.where(where, a, b)),
    "border": lambda node, x: x,
}


def evaluate(datapath: Datapath, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Run operands through a datapath.

    Parameters
    ----------
    datapath : Datapath
        No value of it is wider than 62 bits.
    x : int64, any shape
        Operands, in the interval of the datapath's input.

    Returns
    -------
    int64, shape of x
    """
    values: list[Values] = []
    for node in datapath.nodes:
        arguments = [values[position] for position in node.arguments]
        values.append(x if node.operation == "input" else OPERATIONS[node.operation](node, *arguments))
    return np.broadcast_to(values[-1], x.shape)


def idle_bits(datapath: Datapath) -> int:
    """Count the low bits of an unsigned operand that do not matter where all bits above them are 1, in a datapath that never rises."""
    last = datapath.input.hi
    results = evaluate(datapath, np.array([last >> low << low for low in range(datapath.input.bits)]))
    return int(np.flatnonzero(results == results[0])[-1])


def varying_bits(datapath: Datapath) -> list[int]:
    """List the bits of the result that are not the same for all of some operands, evenly spaced."""
    x = np.arange(datapath.input.lo, datapath.input.hi + 1, 1 << max(0, datapath.input.bits - 12))
    results = evaluate(datapath, x)
    changed = int(np.bitwise_or.reduce(results ^ results[0]))
    return [bit for bit in range(datapath.output.bits) if changed >> bit & 1]
