"""The order of the queues: list scheduling of a step's nodes.

Every node has an estimated length, the longer of its cycles and its transfers, and a rank: the longest way from its start to the end of the
step. Time goes on from decision to decision. An engine that is free takes, of the nodes that can start, the one of the highest rank. Weight
gradients, which nothing but their update waits for, fill the time in which the array would wait: of them the shortest that is long enough,
else the longest. A node that reads what another still makes starts when it would not run dry.
"""

from __future__ import annotations

from collections.abc import Sequence

from accel.config import AcceleratorConfig
from accel.schedule.engines import ENGINES
from accel.schedule.training.assembly import ARRAY, Node
from accel.schedule.training.queues import Piece

AHEAD = 512  # [cycles] our choice: from a first result to its use


def order(config: AcceleratorConfig, nodes: Sequence[Node]) -> list[int]:
    """Return the numbers of nodes in the order of their starts; each comes after all that it reads.

    Parameters
    ----------
    config : AcceleratorConfig
    nodes : sequence of Node
        Each after what it reads.
    """
    count, length = len(nodes), [_length(config, node.piece) for node in nodes]
    # What a node waits for: number, and whether for all of it.
    waits = [[(number, read.whole) for read in node.reads for number in read.value] for node in nodes]
    readers: list[list[tuple[int, bool]]] = [[] for _ in nodes]
    for i, read in enumerate(waits):
        for number, whole in read:
            readers[number].append((i, whole))
    rank = [0] * count
    for i in reversed(range(count)):
        rank[i] = length[i] + max((rank[j] if whole else max(rank[j] - length[i], 0) for j, whole in readers[i]), default=0)
    # What comes first, because it is read or for its own sake.
    first = [{number for number, _ in read} | set(node.after) for read, node in zip(waits, nodes, strict=True)]
    opens: list[list[int]] = [[] for _ in nodes]
    for i, each in enumerate(first):
        for number in each:
            opens[number].append(i)
    left = [len(each) for each in first]
    start, end = [0] * count, [0] * count
    free = [0] * len(ENGINES)
    able: list[list[int]] = [[] for _ in ENGINES]

    def earliest(i: int) -> int:
        """Return when a node can start, all that it reads being placed."""
        found = 0
        for number, whole in waits[i]:
            found = max(found, end[number] if whole else max(start[number] + AHEAD, end[number] + AHEAD - length[i]))
        return found

    at = [0] * count
    for i in range(count):
        if not left[i]:
            able[nodes[i].engine].append(i)
    found: list[int] = []
    while len(found) < count:
        best: tuple[int, int] | None = None
        for engine, ready in enumerate(able):
            if not ready:
                continue
            now = [i for i in ready if at[i] <= free[engine]]
            later = [i for i in ready if at[i] > free[engine]]
            if engine == ARRAY:
                urgent = [i for i in now if nodes[i].stage != "WU"]
                spare = [i for i in now if nodes[i].stage == "WU"]
                if urgent:
                    pick = max(urgent, key=lambda i: (rank[i], -i))
                elif spare:
                    gap = min((at[i] for i in later if nodes[i].stage != "WU"), default=1 << 62) - free[engine]
                    enough = [i for i in spare if length[i] >= gap]
                    pick = min(enough, key=lambda i: (length[i], i)) if enough else max(spare, key=lambda i: (length[i], -i))
                else:
                    pick = min(later, key=lambda i: (at[i], -rank[i]))
            else:
                pick = max(now, key=lambda i: (rank[i], -i)) if now else min(later, key=lambda i: (at[i], -rank[i]))
            if nodes[pick].stage != "WU" or engine != ARRAY:
                # One that comes soon and is worth more goes first where it would wait longer than the engine.
                better = [i for i in later if rank[i] > rank[pick] and free[engine] + length[pick] + free[engine] > 2 * at[i]]
                pick = max(better, key=lambda i: (rank[i], -i)) if better else pick
            begin = max(free[engine], at[pick])
            if best is None or begin < best[0]:
                best = begin, pick
        assert best is not None
        begin, i = best
        engine = nodes[i].engine
        able[engine].remove(i)
        start[i], end[i] = begin, begin + length[i]
        for number, whole in waits[i]:
            if not whole:
                end[i] = max(end[i], end[number] + AHEAD)
        free[engine] = end[i]
        found.append(i)
        for j in opens[i]:
            left[j] -= 1
            if not left[j]:
                at[j] = earliest(j)
                able[nodes[j].engine].append(j)
    return found


def _length(config: AcceleratorConfig, piece: Piece) -> int:
    """Estimate how long a piece takes: the longer of its cycles and its transfers."""
    moved = int(piece.loads.sum()) + int(piece.stores.sum())
    return max(int(piece.cycles.sum()), int(moved / config.dram_rate))
