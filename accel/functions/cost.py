"""What a datapath costs, in look-up tables and in levels of them, by a formula for every operation."""

from __future__ import annotations

from collections.abc import Mapping

from accel.functions.datapath import Datapath, Node

FAMILIES = {"xc3s": 4, "xc7": 6}
"""Devices on which searched units were counted, and the inputs of their look-up tables."""

COUNTED = 9  # address bits of a table up to which its parts are counted


def counted(cells: Mapping[str, Mapping[str, int]]) -> dict[int, int]:
    """Add up the look-up tables among cells, by family and type, of a searched unit: by their inputs, 4 and 6."""
    return {inputs: sum(number for cell, number in cells[family].items() if cell.startswith("LUT")) for family, inputs in FAMILIES.items()}


def luts(path: Datapath, inputs: int) -> float:
    """Estimate the look-up tables of a datapath.

    Parameters
    ----------
    path : Datapath
    inputs : int
        Of a look-up table: 4 or 6.

    Returns
    -------
    float
    """
    weights = WEIGHTS[inputs]
    shared: dict[int, set[tuple[int, ...]]] = {}
    total = 0.0
    for node in path.nodes:
        if node.operation == "table":
            leaves, choices = parts(node, path.nodes[node.arguments[0]].bits, inputs, shared.setdefault(node.arguments[0], set()))
            total += weights["leaf"] * leaves + weights["choice"] * choices
        else:
            kind, amount = _amount(path, node)
            total += weights[kind] * amount
    return total


def parts(node: Node, address: int, inputs: int, known: set[tuple[int, ...]]) -> tuple[float, float]:
    """Count what a table falls into when it is halved by its top address bits: functions of few bits, and choices between halves.

    Parameters
    ----------
    node : Node
        The table.
    address : int
        Width of its address [bits].
    inputs : int
        A function of so many bits is not halved.
    known : set of tuple of int
        What other tables of the same address contain already; what this one adds is added.

    Returns
    -------
    leaves, choices : float
    """
    entries = node.constants + node.constants[-1:] * ((1 << address) - len(node.constants))
    columns = [tuple(entry >> bit & 1 for entry in entries) for bit in range(node.bits)]
    if address > COUNTED:  # as if nothing were equal
        return 2.0 ** (address - inputs) * len(columns), 2.0 ** (address - inputs) * len(columns)
    leaves = choices = 0
    while columns:
        column = columns.pop()
        low, high = column[: len(column) // 2], column[len(column) // 2 :]
        if low == high:
            columns += [low] if low else []
        elif column not in known and tuple(1 - bit for bit in column) not in known:
            known.add(column)
            if len(column) == 2:
                continue  # an address bit
            if len(column) <= 1 << inputs:
                leaves += 1
            else:
                choices += 1
                columns += [low, high]
    return leaves, choices


def _amount(path: Datapath, node: Node) -> tuple[str, float]:
    """Return what a node costs: a key of WEIGHTS, and how many of it."""
    of = [path.nodes[position] for position in node.arguments]
    fixed = [one.lo == one.hi for one in of]
    match node.operation:
        case "add" | "subtract":
            ends = [node.bits if one.signed else one.bits for one in of]
            starts = [_zeros(path, position) for position in node.arguments]
            return "constant sum" if any(fixed) else "sum", max(0, min(ends) - max(starts))
        case "multiply" if not any(fixed):
            less, more = sorted(one.bits for one in of)
            return "product", less * more
        case "complement" if not fixed[1]:
            return "inversion", node.bits
        case "select":
            return "gate" if any(fixed[1:]) else "choice", node.bits
        case "shift" if not fixed[1]:
            return "shift", of[0].bits * of[1].bits
        case "below":
            return "comparison", of[0].bits
    return "wire", 0


def _zeros(path: Datapath, position: int) -> int:
    """Count the low bits of a value that are 0 always."""
    node = path.nodes[position]
    if node.operation == "constant":
        return (node.lo & -node.lo).bit_length() - 1 if node.lo else node.bits
    if node.operation == "multiply":
        return sum(_zeros(path, argument) for argument in node.arguments)
    return 0


KINDS = ("leaf", "choice", "sum", "constant sum", "product", "inversion", "gate", "shift", "comparison", "wire")
WEIGHTS = {
    4: dict(zip(KINDS, (0.9, 0.85, 0.9, 0.2, 1.3, 0.85, 0.1, 0.8, 0.1, 0.0), strict=True)),
    6: dict(zip(KINDS, (1.5, 0.35, 1.45, 0.2, 0.9, 1.35, 0.0, 0.25, 0.0, 0.0), strict=True)),
}
"""Look-up tables for one of each, by the inputs of a look-up table.

Non-negative least squares, relative to the root of the count, over random plans of all methods, five functions and targets of 0.03 to
0.0003 (74 for xc3s, 31 for xc7) as Yosys 0.70 counts them when it is not pressed for speed (`scratchpad -set abc9.D 100000`): 11 % of
the count are left over in root mean square for 4 inputs, 20 % for 6; half of the designs are within 6 % and 15 %.
"""


def levels(node: Node, of: list[Node]) -> float:
    """Estimate the levels of look-up tables from the arguments of a node to its value."""
    match node.operation:
        case "table":
            return 1 + max(0, of[0].bits - 4) / 2
        case "multiply" if all(x.lo != x.hi for x in of):
            return 1 + min(x.bits for x in of)
        case "add" | "subtract":
            return 1 + node.bits / 16
        case "complement" | "select":
            return 1
        case "shift":
            return of[1].bits / 2
        case "below":
            return 1 + of[0].bits / 16
    return 0


def stages(path: Datapath, ranks: int) -> list[int]:
    """Place the nodes of a datapath between ranks of registers so that the longest way from rank to rank is short.

    Parameters
    ----------
    path : Datapath
    ranks : int
        Ranks of registers, the last behind the output.

    Returns
    -------
    list of int
        Ranks before each node, 0 to `ranks` - 1; without ranks 0.
    """
    own = [levels(node, [path.nodes[i] for i in node.arguments]) for node in path.nodes]
    least, most = max(own), sum(own)
    while most - least > 1 / 16:
        middle = (least + most) / 2
        least, most = (least, middle) if max(_placed(path, own, middle)) < max(1, ranks) else (middle, most)
    return _placed(path, own, most)


def _placed(path: Datapath, own: list[float], longest: float) -> list[int]:
    """Give each node the first stage in which it is ready `longest` levels after the rank before it at the latest."""
    ready: list[tuple[int, float]] = []
    for node, time in zip(path.nodes, own, strict=True):
        stage, begin = max((ready[i] for i in node.arguments), default=(0, 0.0))
        ready.append((stage, begin + time) if begin + time <= longest else (stage + 1, time))
    return [stage for stage, _ in ready]
