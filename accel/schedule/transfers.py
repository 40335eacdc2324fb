"""Operands as the ordered transfers that feed the array: what a feeder does, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    x = np.concatenate([x, np.zeros((len(x), 1), np.int64)], axis=1)  # element -1 is the 0 of a lane that carries nothing
    tiles: list[Tile] = []
    west, ends, values, indices, heads = [], [], [], [], []
    for at in placed:
        tiles.append(at.tile)
        pairs, rows = slice(at.pair, at.pair + at.pairs), slice(at.m, at.m + at.rows)
        if at.tile.dataflow is Dataflow.OS:
            groups = config.add_stages
            head = np.zeros((at.pairs, groups), bool)
            head[:, 0] = starts[pairs]
            held = [_elements(config, cut, [bundle]) for bundle in np.unique(owner[pairs])]
            lengths = [elements.size // config.port for elements in held]
            beats = x[rows][:, np.concatenate(held, axis=1)[0]].reshape(at.rows, -1, config.port).transpose(1, 0, 2)
            end = np.isin(np.arange(len(beats)), np.cumsum(lengths) - 1)
        else:
            groups = 1
            head = starts[pairs].copy()
            head[0] = True
            elements = _elements(config, cut, np.where(head, owner[pairs], -1))
            beats = x[rows][:, elements].reshape(at.rows, at.pairs, -1, config.port).transpose(0, 2, 1, 3)
            end = np.tile(np.arange(beats.shape[1]) == beats.shape[1] - 1, at.rows)
            beats = beats.reshape(-1, at.pairs, config.port)
        west.append(np.pad(beats, ((0, 0), (0, config.rows - beats.shape[1]), (0, 0))))
        ends.append(end)
        heads.append(head.ravel())
        for table, out in ((codes.values, values), (offsets, indices)):
            padded = np.zeros((groups * config.cols, at.pairs), np.int64)
            padded[: at.cols] = table[at.n : at.n + at.cols, pairs]
            out.append(padded.reshape(groups, config.cols, at.pairs).transpose(2, 0, 1).reshape(-1, config.cols))
    return ArrayTransfers(
        tiles, np.concatenate(west), np.concatenate(ends), np.concatenate(values), np.concatenate(indices), np.concatenate(heads)
    )


def _elements(config: AcceleratorConfig, cut: Bundles, lanes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Elements that each lane carries, whole beats of them: bundle `lanes[i]`, -1 (nothing) behind its end or if `lanes[i]` is -1."""
    held = np.asarray(lanes)
    size = np.where(held >= 0, cut.size[held], 0)
    at = np.arange(-(-int(size.max()) // config.port) * config.port)
    return np.where(at < size[:, None], cut.start[held, None] + at, -1)
