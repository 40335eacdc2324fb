"""Passes of the vector unit as pieces of its queue, cut into tiles that other engines need not wait for long."""

from __future__ import annotations

import functools

import numpy as np

from accel.config import AcceleratorConfig
from accel.schedule.training.queues import Piece
from accel.timing.training import Pass, training

TILE = 1 << 16  # [bytes] our choice: the most that a tile reads or writes of a tensor, unless a row takes more


@functools.lru_cache(maxsize=1 << 12)
def piece(
    config: AcceleratorConfig,
    work: Pass,
    images: int,
    rows: int,
    row: int,
    taps: int,
    loads: int,
    stores: int,
    largest: int,
    beats: int = 0,
) -> Piece:
    """Cut a pass into tiles: of whole images where one takes no more than TILE, else parts of an image, as equal as may be.

    Parameters
    ----------
    config : AcceleratorConfig
    work : Pass
    images : int
        Of the batch.
    rows, row, taps : int
        Rows of an image, elements of a row, and taps of a pooling window: see :func:`accel.timing.training.training`.
    loads, stores : int
        What crosses DRAM for an image [bytes].
    largest : int
        The most of it that is of one tensor [bytes].
    beats : int
        Of an image, of work that runs side by side with the pass.
    """
    parts = min(-(-largest // TILE), rows)
    group = max(1, min(TILE // max(largest, 1), images)) if parts <= 1 else 1
    # Ends of tiles, counted in rows of the whole batch.
    if parts > 1:
        ends = (np.arange(images)[:, None] * rows + rows * np.arange(1, parts + 1) // parts).ravel()
    else:
        ends = np.append(np.arange(group, images, group), images) * rows
    held = np.diff(ends, prepend=0)
    sizes, which = np.unique(held, return_inverse=True)
    costs = [training(config, work, size, row, taps, False) for size in sizes.tolist()]
    cycles = np.array([cost.cycles for cost in costs], np.int64)[which.ravel()]
    cycles[0] = training(config, work, int(held[0]), row, taps, True).cycles
    cycles = np.maximum(cycles, np.diff(beats * ends // rows, prepend=0))
    made = np.searchsorted(ends, (np.arange(images) + 1) * rows, "left") + 1
    found = Piece(
        cycles,
        np.full(ends.size, costs[0].lag),
        np.diff(loads * ends // rows, prepend=0),
        np.diff(stores * ends // rows, prepend=0),
        (ends - 1) // rows,
        made,
    )
    for each in found:
        each.setflags(write=False)
    return found
