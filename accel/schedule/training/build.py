"""From nodes in an order to the queues of the engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.schedule.engines import ENGINES, Queue
from accel.schedule.training.assembly import ARRAY, UPDATE, Node, Value
from accel.schedule.training.queues import Builder, Ready, both, whole
from accel.schedule.training.updates import Update


@dataclass(frozen=True, slots=True)
class Span:
    """Tiles of a node in the queue of an engine: from `first` up to `last`, exclusive.

    Parameters
    ----------
    node : Node
    engine : int
        Its own; or that of the updates, for the update of the weights whose gradients it makes, or the pruner in front of it.
    first, last : int
    """

    node: Node
    engine: int
    first: int
    last: int


def build(nodes: Sequence[Node], order: Sequence[int], images: int) -> tuple[tuple[Queue, Queue, Queue], list[Span]]:
    """Queue nodes in an order in which each comes after what it reads, and say where each is.

    A tile of the array has room for its results when the update engine has taken those of the tile before the last.

    Parameters
    ----------
    nodes : sequence of Node
    order : sequence of int
        Their numbers.
    images : int
        Of the batch.
    """
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
        wanted = None
        if node.feed is not None:
            wanted = _fed(builder, node.feed, first, node.piece.cycles.size)
            spans.append(Span(node, UPDATE, builder.sizes[UPDATE] - node.feed.owner.size, builder.sizes[UPDATE]))
        ready[number] = builder.add(node.engine, node.piece, reads, needs=wanted)
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


def _fed(builder: Builder, feed: Update, first: int, tiles: int) -> NDArray[np.int64]:
    """Queue what prunes weights for a node of the array that follows, whose first tile this is; return what its tiles need for it.

    The weights of tile i have room when tile i - 2 has ended.
    """
    hands = np.zeros((feed.owner.size, len(ENGINES)), np.int64)
    hands[:, ARRAY] = np.maximum(first + feed.owner - 1, 0)
    at = builder.sizes[UPDATE]
    builder.add(UPDATE, feed.piece, hands=hands)
    needs = np.zeros((tiles, len(ENGINES)), np.int64)
    counts = np.bincount(feed.owner, minlength=tiles)
    needs[:, UPDATE] = np.where(counts > 0, at + counts.cumsum(), 0)
    return needs
