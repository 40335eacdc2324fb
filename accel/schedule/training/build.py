"""Nodes to queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accel.schedule.engines import ENGINES, Queue
from accel.schedule.training.assembly import ARRAY, UPDATE, Node, Value
from accel.schedule.training.queues import Builder, Ready, both, whole


@dataclass(frozen=True, slots=True)
class Span:
    """Tiles of a node in the queue of its engine: from `first` up to `last`, exclusive."""

    node: Node
    engine: int
    first: int
    last: int


def build(nodes: Sequence[Node], order: Sequence[int], images: int) -> tuple[tuple[Queue, Queue, Queue], list[Span]]:
    builder = Builder(images)
    ready: dict[int, Ready] = {}
    spans: list[Span] = []
    given = [np.zeros(0, np.int64)]

    def there(value: Value) -> Ready:
        return both(builder.nothing, *(ready[number] for number in value))

    for number in order:
        node = nodes[number]
        reads = [whole(there(read.value)) if read.whole else there(read.value) for read in node.reads]
        first = builder.sizes[node.engine]
        ready[number] = builder.add(node.engine, node.piece, reads)
        spans.append(Span(node, node.engine, first, builder.sizes[node.engine]))
        if node.engine != ARRAY:
            continue
        freed = np.zeros(node.piece.cycles.size, np.int64)
        if node.update is not None:
            at = builder.sizes[UPDATE]
            needs = np.zeros((node.update.owner.size, len(ENGINES)), np.int64)
            needs[:, ARRAY] = first + node.update.owner + 1
            builder.add(UPDATE, node.update.piece, needs=needs)
            spans.append(Span(node, UPDATE, at, builder.sizes[UPDATE]))
            count = np.bincount(node.update.owner, minlength=freed.size)
            freed = np.where(count > 0, at + count.cumsum(), 0)
        given.append(freed)
    array, vector, update = builder.queues()
    room = np.maximum.accumulate(np.concatenate(given))
    hands = array.hands.copy()
    hands[2:, UPDATE] = np.maximum(hands[2:, UPDATE], room[:-2])
    return (array._replace(hands=hands), vector, update), spans
