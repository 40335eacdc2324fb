"""What a datapath costs, in look-up tables and in levels of them, by a formula for every operation."""

from __future__ import annotations

from accel.functions.datapath import Datapath, Node


def luts(path: Datapath, inputs: int) -> float:
    """Estimate the look-up tables of a datapath."""
    return sum(_luts(node, [path.nodes[i] for i in node.arguments], inputs) for node in path.nodes)


def _luts(node: Node, of: list[Node], inputs: int) -> float:
    match node.operation:
        case "table":
            return node.bits * max(1, 2.0 ** (of[0].bits - inputs))
        case "multiply" if all(x.lo != x.hi for x in of):
            return of[0].bits * of[1].bits
        case "add" | "subtract" | "complement" | "select":
            return node.bits
        case "shift":
            return node.bits * of[1].bits
        case "below":
            return of[0].bits / 3
    return 0


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
