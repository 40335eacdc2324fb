"""Queues of tiles, built piece by piece: what of one piece waits for what of another, image by image.

A piece of work is a run of tiles on one engine. It makes something, of which image i is there once the first tiles of each engine are done:
a :class:`Ready`. What reads it waits, tile by tile, for the last image that the tile reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.schedule.engines import ENGINES, Queue

Ready = NDArray[np.int64]
"""int64, shape (images, 3): how many tiles of each engine, in the order of ENGINES, must be done before an image is there; ascending."""


class Piece(NamedTuple):
    """A run of tiles on one engine.

    Parameters
    ----------
    cycles, lag : int64, shape (tiles,)
        For which each keeps the engine, and from then to its last result.
    loads, stores : int64, shape (tiles,)
        What crosses DRAM [bytes].
    read : int64, shape (tiles,)
        The last image that each reads.
    made : int64, shape (images,)
        Tiles of this run after which each image is there; ascending.
    """

    cycles: NDArray[np.int64]
    lag: NDArray[np.int64]
    loads: NDArray[np.int64]
    stores: NDArray[np.int64]
    read: NDArray[np.int64]
    made: NDArray[np.int64]


def both(*ready: Ready) -> Ready:
    """Say when all of several are there."""
    return np.asarray(np.maximum.reduce(ready))


def whole(ready: Ready) -> Ready:
    """Say that each image is there only when all of them are."""
    return np.broadcast_to(ready[-1], ready.shape)


@dataclass(slots=True)
class Builder:
    """Grows the three queues.

    Parameters
    ----------
    images : int
        Of the batch.
    """

    images: int
    columns: tuple[list[Queue], ...] = field(init=False, default_factory=lambda: tuple([] for _ in ENGINES))
    sizes: list[int] = field(init=False, default_factory=lambda: [0] * len(ENGINES))

    @property
    def nothing(self) -> Ready:
        """What is there from the start."""
        return np.zeros((self.images, len(ENGINES)), np.int64)

    def add(
        self,
        engine: int,
        piece: Piece,
        reads: Sequence[Ready] = (),
        needs: NDArray[np.int64] | None = None,
        hands: NDArray[np.int64] | None = None,
    ) -> Ready:
        """Append a piece to a queue; its first tile starts behind the last result of the piece before.

        Parameters
        ----------
        engine : int
            Its place in ENGINES.
        piece : Piece
        reads : sequence of Ready
            What its tiles read.
        needs : int64, shape (tiles, 3), optional
            Tiles of each engine that must be done before each loads, besides.
        hands : int64, shape (tiles, 3), optional
            Tiles of each engine that must have ended before each starts.

        Returns
        -------
        Ready
            What it makes.
        """
        count = piece.cycles.size
        wanted = both(self.nothing, *reads)[piece.read]
        behind = np.zeros(count, np.bool_)
        behind[0] = True
        room = np.zeros((count, len(ENGINES)), np.int64) if hands is None else hands
        if needs is not None:
            wanted = np.maximum(wanted, needs)
        self.columns[engine].append(Queue(piece.cycles, piece.lag, piece.loads, piece.stores, behind, wanted, room))
        ready = self.nothing
        ready[:, engine] = self.sizes[engine] + piece.made
        self.sizes[engine] += count
        return ready

    def queues(self) -> tuple[Queue, Queue, Queue]:
        """Return the queues so far."""
        array, vector, update = (
            Queue(*(np.concatenate(column) for column in zip(*pieces, strict=True))) if pieces else Queue.empty() for pieces in self.columns
        )
        return array, vector, update
