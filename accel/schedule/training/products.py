"""Cuts of the products of a training step, as pieces of the array's queue."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.schedule import search as cuts
from accel.schedule.gemm import chunks, reduction
from accel.schedule.search import Found, Kept, Tiles, Tiling, search, word
from accel.schedule.training.queues import Piece
from accel.schedule.training.works import Part


class Grid(NamedTuple):
    """The tiles of a cut, as the array takes them.

    Parameters
    ----------
    read : int64, shape (tiles,)
        The last image that each reads.
    made : int64, shape (images,)
        Tiles after which each image of the result is there; where images are the reduction, all of them.
    rows, columns : int64, shape (tiles,)
        Size of the result that each finishes; 0 rows where sums are not done yet.
    """

    read: NDArray[np.int64]
    made: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


@functools.lru_cache(maxsize=1 << 12)
def grid(config: AcceleratorConfig, part: Part, tiling: Tiling, images: int) -> Grid:
    """Say which images the tiles of a cut read and make."""
    assert tiling.dataflow is not None
    gemm, repeats = part.work.gemm, part.work.repeats
    ends = chunks(reduction(config, gemm), tiling.dataflow, tiling.blocks)
    rows, columns = (np.append(np.arange(size, total, size), total) for size, total in ((tiling.m, gemm.m), (tiling.n, gemm.n)))
    shape = (rows.size, columns.size, ends.size)
    index = np.arange(rows.size * columns.size * ends.size)
    order = index.reshape(shape) if tiling.outer == "m" else index.reshape(columns.size, rows.size, ends.size).transpose(1, 0, 2)
    count, image = index.size, np.arange(images)

    def ordered(each: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.empty(count, np.int64)
        found[order] = each
        return np.tile(found, repeats)

    if part.axis == "repeats":
        read = np.repeat(np.arange(repeats) // part.each, count)
        made = (image + 1) * part.each * count
    elif part.axis == "k":
        read = ordered(np.broadcast_to((ends - 1) // part.each, shape))
        made = np.full(images, repeats * count)
    else:
        axis, edges = (0, rows) if part.axis == "m" else (1, columns)
        last = (edges - 1) // part.each
        read = ordered(np.broadcast_to(last[:, None, None] if axis == 0 else last[None, :, None], shape))
        block = np.searchsorted(edges, (image + 1) * part.each - 1, "right")
        done = order[block, -1, -1] if axis == 0 else order[-1, block, -1]
        made = np.maximum.accumulate(done) + 1 + (repeats - 1) * count
    heights, widths = (np.diff(each, prepend=0) for each in (rows, columns))
    final = np.arange(ends.size) == ends.size - 1
    found = Grid(
        read, made, ordered(heights[:, None, None] * final[None, None, :] + 0 * order), ordered(np.broadcast_to(widths[None, :, None], shape))
    )
    for each in found:
        each.setflags(write=False)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Equal products, cut.

    Parameters
    ----------
    part : Part
    found : Found
        The cut, and the other dataflow's.
    tiles : Tiles
    where : Grid
    hop : int
        Cycles that a pair takes: 1, or the stages of an adder that nothing fills.
    """

    part: Part
    found: Found
    tiles: Tiles
    where: Grid
    hop: int = 1


def cut(config: AcceleratorConfig, part: Part, images: int, method: str, filled: bool) -> Cut | None:
    """Search for a cut of equal products; None if none fits the scratchpads.

    Parameters
    ----------
    config : AcceleratorConfig
    part : Part
    images : int
        Of the batch.
    method : str
        See :func:`accel.schedule.search.search`.
    filled : bool
        Whether independent sums fill the stages of an adder.
    """
    kept = Kept((False,) * (1 + part.work.dynamic), part.axis == "k")  # weight gradients stay on chip: the update engine takes them
    found = search(config, part.work, kept, method)
    if found is None:
        return None
    tiles = cuts.tiles(config, part.work, kept, found.tiling)
    return Cut(part, found, tiles, grid(config, part, found.tiling, images))


def piece(config: AcceleratorConfig, cut: Cut, beside: int, masks: int) -> Piece:
    """Make the run of tiles of a cut.

    Parameters
    ----------
    config : AcceleratorConfig
    cut : Cut
    beside : int
        Stored with the results, in all [bytes].
    masks : int
        Bits loaded with each element of the gradient.
    """
    part, tiles = cut.part, cut.tiles
    loads, stores, beside = tiles.loads, tiles.stores, beside + part.zeros
    if beside:
        ends = stores.cumsum()
        stores = stores + np.diff(beside * ends // ends[-1], prepend=0)
    if masks and part.gradient is not None:
        share = tiles.second if part.gradient else loads - tiles.second
        loads = loads + -(-share * masks // (8 * word(config.act_bits)))
    return Piece(tiles.cycles * cut.hop, tiles.lag, loads, stores, cut.where.read, cut.where.made)
