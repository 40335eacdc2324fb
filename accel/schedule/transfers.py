"""Operands as the ordered transfers that feed the array: what a feeder does, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.isa import Dataflow, Post, Source, Tile, Vector
from accel.schedule.gemm import Placed
from accel.schedule.lower import Product, Reduction
from accel.sparsity import Bundles, Codes, bundles


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTransfers:
    """Transfers of the compute core for one job, in order.

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
    blocks : list of (slice, slice)
        Rows and columns of the result, in the order in which they are emitted; columns are whole rows of the array.
    """

    array: ArrayTransfers | None = None
    vectors: list[Vector] = field(default_factory=list)
    x: Integers
    posts: list[Post]
    params: tuple[Integers, Integers, Integers]
    blocks: list[tuple[slice, slice]]

    def emitted(self, result: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Order a result of shape (m, n) as it leaves the core, shape (rows, cols), `fill` on columns without a channel."""
        cols = self.x.shape[1]
        wide = np.pad(result, ((0, 0), (0, max(at.stop for _, at in self.blocks) - result.shape[1])), constant_values=fill)
        return np.concatenate([wide[block].reshape(-1, cols) for block in self.blocks])


def core_transfers(config: AcceleratorConfig, job: Product | Reduction, x: Integers, placed: Sequence[Placed] = ()) -> CoreTransfers:
    """Order everything that the compute core takes for a job.

    Parameters
    ----------
    config : AcceleratorConfig
    job : Product or Reduction
        With codes and requantisation.
    x : int64, shape (m, k) or (m, beats, n)
        Its operands.
    placed : sequence of Placed
        Tiles of a product in order.

    Raises
    ------
    RangeError
        If the parameters do not fit the post-processor's memory.
    """
    cols, post = config.cols, job.post
    if isinstance(job, Product):
        assert job.codes is not None and post is not None
        cut = bundles(job.taps, job.channels, job.pattern, config.bundle)
        array = array_transfers(config, placed, cut, x, Codes(job.codes.values.astype(np.int64), job.codes.positions))
        groups = config.add_stages if placed[0].tile.dataflow is Dataflow.OS else 1
        blocks = [(slice(at.m, at.m + at.rows), slice(at.n, at.n + groups * cols)) for at in placed if at.tile.last]
        vectors, rows, source = [], np.zeros((0, cols), np.int64), Source.ARRAY
    else:
        array, groups, source = None, 1, Source.VECTOR
        blocks = [(slice(0, job.m), slice(n, n + cols)) for n in range(0, job.n, cols)]
        vectors = [job.instruction(job.m)] * len(blocks)
        wide = np.pad(x, ((0, 0), (0, 0), (0, -job.n % cols)))
        rows = np.concatenate([wide[:, :, at].reshape(-1, cols) for _, at in blocks])
    width = max(at.stop for _, at in blocks)
    if width > config.param_rows * cols:
        raise RangeError(f"param_rows must be at least {width // cols} for {job.n} channels, not {config.param_rows}")
    posts: list[Post] = []
    for at_rows, at in blocks:
        count, base = (at_rows.stop - at_rows.start) * groups, at.start // cols
        if posts and posts[-1].base == base:
            count += posts.pop().rows
        posts.append(post.instruction(source, count, base, groups))
    params = [np.pad(table, (0, width - job.n)).reshape(-1, cols) for table in (post.bias, post.mult, post.shift)]
    return CoreTransfers(array=array, vectors=vectors, x=rows, posts=posts, params=(params[0], params[1], params[2]), blocks=blocks)
