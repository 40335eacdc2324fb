"""Datapaths as data: the one description from which a unit's golden model and its RTL are both built.

A datapath is a list of nodes, each an exact integer operation on nodes before it; the first is the input, the last the output. Widths are
not stated anywhere: a node knows the interval its value lies in, and :attr:`Node.bits` is the narrowest width that holds it.

| operation | value |
|---|---|
| `input` | the unit's operand |
| `constant` v | v |
| `bits` x, low, width | bits low .. low + width - 1 of x in two's complement, as an unsigned number |
| `join` a, b, ..., widths | concatenation of unsigned values of these widths, the first in the low bits |
| `table` x, v0, v1, ... | v[x] |
| `add`, `subtract`, `multiply` a, b | exact |
| `shift` x, n | floor(x / 2^n), n another node |
| `complement` x, s | every bit of an unsigned x inverted where the one bit s is 1 |
| `below` x, v | 1 if x < v, otherwise 0 |
| `select` s, a, b | a where the one bit s is 1, otherwise b |
| `border` x | x: what is before it and what is behind it, synthesis optimises each alone |
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from accel.errors import RangeError
from accel.formats import FixedFormat


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Parameters
    ----------
    operation : str
        A row of the module's table.
    arguments : tuple of int
        Positions of the nodes it takes, all before its own.
    constants : tuple of int
        Numbers of the description, after the arguments in the table's notation.
    lo, hi : int
        Interval the value lies in.
    """

    operation: str
    arguments: tuple[int, ...]
    constants: tuple[int, ...]
    lo: int
    hi: int

    @property
    def signed(self) -> bool:
        """Whether the value may be negative: then it is in two's complement."""
        return self.lo < 0

    @property
    def bits(self) -> int:
        """Narrowest width that holds `lo` to `hi`, at least one [bits]."""
        return max(1, self.hi.bit_length() + self.signed, (~self.lo).bit_length() + 1 if self.signed else 0)


@dataclass(frozen=True, slots=True)
class Datapath:
    """A unit from operand to result.

    Parameters
    ----------
    nodes : tuple of Node
        The first is the input, the last the output.
    """

    nodes: tuple[Node, ...]

    @property
    def input(self) -> Node:
        """The operand."""
        return self.nodes[0]

    @property
    def output(self) -> Node:
        """The result."""
        return self.nodes[-1]


@dataclass(slots=True)
class Builder:
    """Writes a datapath node by node; every method returns the position of its node.

    Equal nodes are written once.

    Parameters
    ----------
    nodes : list of Node
        What has been written.
    """

    nodes: list[Node] = field(default_factory=list)

    def input(self, bits: int, signed: bool = False) -> int:
        """Take the operand; first of all."""
        operand = FixedFormat(bits, 0, signed)
        return self._add("input", (), (), operand.lo, operand.hi)

    def constant(self, value: int) -> int:
        """Give a number."""
        return self._add("constant", (), (value,), value, value)

    def bits(self, x: int, low: int, width: int) -> int:
        """Take `width` >= 1 bits of x from bit `low` >= 0 upwards, as an unsigned number."""
        whole = self.nodes[x]
        if low == 0 and whole.lo >= 0 and whole.hi.bit_length() <= width:
            return x
        hi = (1 << width) - 1 if whole.lo < 0 else min((1 << width) - 1, whole.hi >> low)
        return self._add("bits", (x,), (low, width), 0, hi)

    def join(self, *parts: tuple[int, int]) -> int:
        """Concatenate unsigned values, each with the width it takes [bits], the first in the low bits."""
        hi = shift = 0
        for part, width in parts:
            node = self.nodes[part]
            self._unsigned("join", node)
            if node.bits > width:
                raise RangeError(f"width must be at least that of the value ({node.bits}), not {width}")
            hi |= node.hi << shift
            shift += width
        arguments, widths = zip(*parts, strict=True)
        return self._add("join", arguments, widths, 0, hi)

    def scaled(self, x: int, places: int) -> int:
        """Multiply by 2^places, `places` >= 0: wires."""
        return x if places == 0 else self.multiply(x, self.constant(1 << places))

    def table(self, address: int, values: tuple[int, ...]) -> int:
        """Look an unsigned address up; values that no address in its interval reaches are left out."""
        node = self.nodes[address]
        self._unsigned("table", node)
        if len(values) <= node.hi:
            raise RangeError(f"values must be as many as there are addresses ({node.hi + 1}), not {len(values)}")
        reached = values[: node.hi + 1]
        return self._add("table", (address,), reached, min(reached), max(reached))

    def add(self, a: int, b: int) -> int:
        """Add."""
        x, y = self.nodes[a], self.nodes[b]
        return self._add("add", (a, b), (), x.lo + y.lo, x.hi + y.hi)

    def subtract(self, a: int, b: int) -> int:
        """Subtract b from a."""
        x, y = self.nodes[a], self.nodes[b]
        return self._add("subtract", (a, b), (), x.lo - y.hi, x.hi - y.lo)

    def multiply(self, a: int, b: int) -> int:
        """Multiply; by a constant it is additions, by a power of two wires."""
        x, y = self.nodes[a], self.nodes[b]
        ends = [p * q for p in (x.lo, x.hi) for q in (y.lo, y.hi)]
        square = a == b and x.lo < 0
        return self._add("multiply", (a, b), (), 0 if square else min(ends), max(ends))

    def shift(self, x: int, by: int) -> int:
        """Divide by 2^by and round down; `by` is an unsigned node."""
        node, places = self.nodes[x], self.nodes[by]
        self._unsigned("shift", places)
        ends = [value >> n for value in (node.lo, node.hi) for n in (places.lo, places.hi)]
        return self._add("shift", (x, by), (), min(ends), max(ends))

    def complement(self, x: int, where: int) -> int:
        """Invert every bit of an unsigned x where the one bit `where` is 1."""
        node = self.nodes[x]
        self._unsigned("complement", node)
        return self._add("complement", (x, where), (), 0, (1 << node.bits) - 1)

    def below(self, x: int, limit: int) -> int:
        """Compare with a constant: 1 where x < limit."""
        return self._add("below", (x,), (limit,), 0, 1)

    def select(self, where: int, a: int, b: int) -> int:
        """Take a where the one bit `where` is 1, b elsewhere."""
        x, y = self.nodes[a], self.nodes[b]
        return self._add("select", (where, a, b), (), min(x.lo, y.lo), max(x.hi, y.hi))

    def border(self, x: int) -> int:
        """Keep synthesis from joining what is before x and what is behind it."""
        node = self.nodes[x]
        return self._add("border", (x,), (), node.lo, node.hi)

    def done(self, output: int) -> Datapath:
        """Return the datapath that ends in `output`, without the nodes it does not need."""
        needed = {0, output}  # the operand is a port, needed or not
        for position in range(output, -1, -1):
            if position in needed:
                needed.update(self.nodes[position].arguments)
        kept = sorted(needed)
        place = {old: new for new, old in enumerate(kept)}
        nodes = [self.nodes[old] for old in kept]
        return Datapath(tuple(replace(node, arguments=tuple(place[argument] for argument in node.arguments)) for node in nodes))

    def _unsigned(self, operation: str, node: Node) -> None:
        if node.lo < 0:
            raise RangeError(f"operand of {operation} must be unsigned, not in {node.lo}..{node.hi}")

    def _add(self, operation: str, arguments: tuple[int, ...], constants: tuple[int, ...], lo: int, hi: int) -> int:
        node = Node(operation, arguments, constants, lo, hi)
        if node in self.nodes:
            return self.nodes.index(node)
        self.nodes.append(node)
        return len(self.nodes) - 1
