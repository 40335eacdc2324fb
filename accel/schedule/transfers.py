"""Operands as the ordered transfers that feed the array: what a feeder does, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.isa import ROW_BITS, Dataflow, Post, Source, Tile, Vector
from accel.schedule.gemm import Placed, reduction
from accel.schedule.lower import Product, Reduction
from accel.sparsity import Bundles, Codes

Integers = NDArray[np.int64]


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
    west: list[Integers] = []
    ends: list[NDArray[np.bool_]] = []
    values: list[Integers] = []
    indices: list[Integers] = []
    heads: list[NDArray[np.bool_]] = []
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
            count = elements.shape[1] // config.port
            beats = (
                x[rows][:, elements].reshape(at.rows, at.pairs, count, config.port).transpose(0, 2, 1, 3).reshape(-1, at.pairs, config.port)
            )
            end = np.tile(np.arange(count) == count - 1, at.rows)
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


class Emitted(NamedTuple):
    """A block of rows that leaves the compute core: `rows` x `cols` of the result of job number `job`, whole rows of the array."""

    job: int
    rows: slice
    cols: slice


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTransfers:
    """Transfers of the compute core for one matrix product, or for the reductions of a layer, in order.

    Parameters
    ----------
    array : ArrayTransfers or None
        Of a matrix product.
    vectors : list of isa.Vector
        Jobs of the vector unit, one for each tile of columns.
    x : int64, shape (beats, cols)
        Their operand rows.
    posts : list of isa.Post
        Jobs of the post-processor.
    params : int64, shape (vectors, cols), of each of bias, mult and shift
        Parameter vectors from address 0 on; 0 on columns without a channel.
    blocks : list of Emitted
        The results in the order in which they leave.
    """

    array: ArrayTransfers | None = None
    vectors: list[Vector]
    x: Integers
    posts: list[Post]
    params: tuple[Integers, ...]
    blocks: list[Emitted]

    def emitted(self, results: Sequence[NDArray[Any]], fills: Sequence[Any]) -> NDArray[Any]:
        """Order the results of the jobs, each of shape (m, n), as they leave, shape (rows, cols), a fill on columns without a channel."""
        cols = self.x.shape[1]
        width = max(block.cols.stop for block in self.blocks)
        wide = [np.pad(r, ((0, 0), (0, width - r.shape[1])), constant_values=f) for r, f in zip(results, fills, strict=True)]
        return np.concatenate([wide[block.job][block.rows, block.cols].reshape(-1, cols) for block in self.blocks])


def product_transfers(config: AcceleratorConfig, job: Product, x: Integers, placed: Sequence[Placed]) -> CoreTransfers:
    """Order everything that the compute core takes for a matrix product.

    Parameters
    ----------
    config : AcceleratorConfig
    job : Product
        With codes and requantisation.
    x : int64, shape (m, k)
        Its operands.
    placed : sequence of Placed
        Its tiles in order.

    Raises
    ------
    RangeError
        If the parameters do not fit the post-processor's memory.
    """
    assert job.codes is not None
    cut = reduction(config, job)
    groups = config.add_stages if placed[0].tile.dataflow is Dataflow.OS else 1
    blocks = [Emitted(0, slice(at.m, at.m + at.rows), slice(at.n, at.n + groups * config.cols)) for at in placed if at.tile.last]
    posts, params = _posts(config, Source.ARRAY, [job], blocks, groups)
    return CoreTransfers(
        array=array_transfers(config, placed, cut, x, Codes(job.codes.values.astype(np.int64), job.codes.positions)),
        vectors=[],
        x=np.zeros((0, config.cols), np.int64),
        posts=posts,
        params=params,
        blocks=blocks,
    )


def reduction_transfers(config: AcceleratorConfig, jobs: Sequence[Reduction], xs: Sequence[Integers]) -> CoreTransfers:
    """Order everything that the compute core takes for the reductions of a layer, which follow each other without a pause.

    Parameters
    ----------
    config : AcceleratorConfig
    jobs : sequence of Reduction
    xs : sequence of int64, shape (m, beats, n)
        Operands of each.

    Raises
    ------
    RangeError
        If the parameters do not fit the post-processor's memory.
    """
    cols = config.cols
    blocks = [Emitted(i, slice(0, job.m), slice(n, n + cols)) for i, job in enumerate(jobs) for n in range(0, job.n, cols)]
    wide = [np.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % cols))) for x in xs]
    posts, params = _posts(config, Source.VECTOR, jobs, blocks, 1)
    return CoreTransfers(
        vectors=[jobs[block.job].instruction(jobs[block.job].m) for block in blocks],
        x=np.concatenate([wide[block.job][..., block.cols].reshape(-1, cols) for block in blocks]),
        posts=posts,
        params=params,
        blocks=blocks,
    )


def _posts(
    config: AcceleratorConfig, source: Source, jobs: Sequence[Product | Reduction], blocks: Sequence[Emitted], groups: int
) -> tuple[list[Post], tuple[Integers, ...]]:
    """Jobs of the post-processor, one for each run of blocks of equal columns, and the parameters of all channels."""
    cols = config.cols
    width = [max(at.stop for job, _, at in blocks if job == i) for i in range(len(jobs))]
    starts = np.cumsum([0, *width])
    if starts[-1] > config.param_rows * cols:
        raise RangeError(
            f"param_rows must be at least {starts[-1] // cols} for {sum(job.n for job in jobs)} channels, not {config.param_rows}"
        )
    posts: list[Post] = []
    for job, rows, at in blocks:
        post = jobs[job].post
        assert post is not None
        count, base = (rows.stop - rows.start) * groups, int(starts[job] + at.start) // cols
        if posts and posts[-1].base == base and posts[-1].rows + count < 1 << ROW_BITS:
            count += posts.pop().rows
        posts.append(post.instruction(source, count, base, groups))
    tables = [
        [np.pad(getattr(job.post, name), (0, size - job.n)) for job, size in zip(jobs, width, strict=True)]
        for name in ("bias", "mult", "shift")
    ]
    return posts, tuple(np.concatenate(table).reshape(-1, cols) for table in tables)
