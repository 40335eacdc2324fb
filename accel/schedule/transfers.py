"""Operands as the ordered transfers that feed the array: what a feeder does, as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.isa import Dataflow, Tile
from accel.schedule.gemm import Placed
from accel.sparsity import Bundles, Codes


@dataclass(frozen=True, slots=True)
class ArrayTransfers:
    """Transfers of the array's operand streams, in order.

    Parameters
    ----------
    tiles : list of Tile
    west : int64, shape (beats, rows, port)
        Activations; 0 where no activation is meant.
    ends : bool, shape (beats,)
        Last beat of its bundles.
    values, indices : int64, shape (pairs, cols)
        Pairs; 0 on columns without a channel.
    heads : bool, shape (pairs,)
        First pair of a bundle.
    """

    tiles: list[Tile]
    west: NDArray[np.int64]
    ends: NDArray[np.bool_]
    values: NDArray[np.int64]
    indices: NDArray[np.int64]
    heads: NDArray[np.bool_]


def array_transfers(
    config: AcceleratorConfig, placed: Iterable[Placed], cut: Bundles, x: NDArray[np.int64], codes: Codes
) -> ArrayTransfers:
    """Order the operands of tiles of a matrix product.

    Parameters
    ----------
    config : AcceleratorConfig
    placed : iterable of Placed
        Tiles in order.
    cut : Bundles
        Bundles of the reduction.
    x : int64, shape (m, k)
        Activations.
    codes : Codes, shape (n, pairs)
        Pairs of every output channel.
    """
    owner = np.repeat(np.arange(cut.size.size), cut.pairs)  # bundle of every pair
    starts = np.concatenate([[True], owner[1:] != owner[:-1]])
    offsets = cut.offsets(codes.positions)
    tiles: list[Tile] = []
    west, ends, values, indices, heads = [], [], [], [], []
    for at in placed:
        tiles.append(at.tile)
        pairs = slice(at.pair, at.pair + at.pairs)
        cols, rows = slice(at.n, at.n + at.cols), slice(at.m, at.m + at.rows)
        if at.tile.dataflow is Dataflow.OS:
            groups = config.add_stages
            held = np.unique(owner[pairs])
            feed = [_beats(config, x[rows], cut, [bundle] * at.rows) for bundle in held]
            head = np.zeros((at.pairs, groups), bool)
            head[:, 0] = starts[pairs]
        else:
            groups = 1
            lanes = owner[pairs].copy()
            head = starts[pairs].copy()
            head[0] = True
            lanes[~head] = -1
            feed = [_beats(config, np.broadcast_to(row, (at.pairs, row.size)), cut, lanes) for row in x[rows]]
        for beats in feed:
            west.append(beats)
            ends.append(np.arange(len(beats)) == len(beats) - 1)
        for table, out in ((codes.values, values), (offsets, indices)):
            padded = np.zeros((groups * config.cols, at.pairs), np.int64)
            padded[: at.cols] = table[cols, pairs]
            out.append(padded.reshape(groups, config.cols, at.pairs).transpose(2, 0, 1).reshape(-1, config.cols))
        heads.append(head.ravel())
    return ArrayTransfers(
        tiles, np.concatenate(west), np.concatenate(ends), np.concatenate(values), np.concatenate(indices), np.concatenate(heads)
    )


def _beats(config: AcceleratorConfig, x: NDArray[np.int64], cut: Bundles, lanes: Iterable[int]) -> NDArray[np.int64]:
    """Beats of one bundle per lane: lane i carries bundle `lanes[i]` of row i of `x`; -1 carries nothing."""
    size = max(int(cut.size[b]) for b in lanes if b >= 0)
    beats = -(-size // config.port)
    out = np.zeros((config.rows, beats * config.port), np.int64)
    for lane, b in enumerate(lanes):
        if b >= 0:
            out[lane, : cut.size[b]] = x[lane, cut.start[b] : cut.start[b] + cut.size[b]]
    return out.reshape(config.rows, beats, config.port).transpose(1, 0, 2)
