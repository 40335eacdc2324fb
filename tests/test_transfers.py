"""Operands as transfers: a naive array that takes them beat by beat must find the golden sums, in the order that is promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.stce import stce
from accel.isa import Dataflow, Reduce, Source, Tile, Vector
from accel.kernels.gemm import Weights
from accel.schedule.gemm import GemmSchedule, Placed, schedule
from accel.schedule.lower import Product, Reduction, Requantisation
from accel.schedule.transfers import CoreTransfers, array_transfers, product_transfers, reduction_transfers
from accel.sparsity import Bundles, Codes, Pattern, encode
from tests.naive_array import emitted, products

TINY = AcceleratorConfig(port=4)


def requantisation(first: int, n: int) -> Requantisation:
    """Make parameters that tell the channels apart."""
    channel = np.arange(first, first + n)
    return Requantisation(bias=channel, mult=channel + 1000, shift=channel % 7 + 1, zero_point=-3, lo=-100, hi=99)


def product(plan: GemmSchedule, codes: Codes, post: Requantisation | None = None) -> Product:
    gemm = plan.gemm
    return Product(
        m=gemm.m, n=gemm.n, taps=gemm.taps, channels=gemm.channels, pattern=gemm.pattern,
        weights=Weights(*codes, gemm.k), post=post or requantisation(1, gemm.n),
    )  # fmt: skip


def operands(plan: GemmSchedule, seed: int) -> tuple[np.ndarray, Codes]:
    rng, gemm = np.random.default_rng(seed), plan.gemm
    x, w = rng.integers(-128, 128, (gemm.m, gemm.k)), rng.integers(-128, 128, (gemm.n, gemm.k))
    return x, encode(w, gemm.taps, gemm.channels, gemm.pattern)


def chunked(placed: Sequence[Placed], cut: Bundles) -> list[Placed]:
    """Split each output-stationary tile into one for every bundle."""
    ends = np.cumsum(cut.pairs).tolist()
    return [
        replace(at, tile=replace(at.tile, steps=end - start, first=not start, last=end == ends[-1]), pair=start, pairs=end - start)
        for at in placed
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def parameters(moves: CoreTransfers) -> list[list[np.ndarray]]:
    """Return bias, multiplier and shift of every row that leaves, as the jobs of the post-processor read them."""
    vectors = [post.base + i % post.vectors for post in moves.posts for i in range(post.rows)]
    assert all(before.base != after.base for before, after in zip(moves.posts, moves.posts[1:], strict=False))
    return [table[vectors].tolist() for table in moves.params]


def expected_parameters(moves: CoreTransfers, jobs: Sequence[Product | Reduction]) -> list[list[np.ndarray]]:
    return [
        moves.emitted([np.broadcast_to(getattr(job.post, name), (job.m, job.n)) for job in jobs], [0] * len(jobs)).tolist()
        for name in ("bias", "mult", "shift")
    ]


@settings(max_examples=150)
@given(products(), st.integers(0, 2**32), st.booleans(), st.sampled_from([8, 16, 32]), st.sampled_from(["saturate", "wrap"]))
def test_naive_array_finds_the_golden_sums(plan, seed, chunks, acc_bits, overflow):
    """Either dataflow, any pattern, partial tiles, chunks of k, sums that overflow at every step or never."""
    config = replace(plan.config, acc_bits=acc_bits, overflow=overflow)
    x, codes = operands(plan, seed)
    placed = list(plan.placed())
    moves = product_transfers(config, product(plan, codes), x, placed)
    assert moves.array is not None
    pieces = chunked(placed, plan.cut) if chunks and plan.dataflow is Dataflow.OS else placed
    array = array_transfers(config, pieces, plan.cut, x, codes)
    for name in ("west", "ends", "values", "indices", "heads"):
        np.testing.assert_array_equal(getattr(array, name), getattr(moves.array, name))
    acc, flags = stce(config, x, *codes)
    rows = emitted(config, array)
    assert [[sum for sum, _ in row] for row in rows] == moves.emitted([acc], [0]).tolist()
    assert [[flag for _, flag in row] for row in rows] == moves.emitted([flags], [False]).tolist()


@settings(max_examples=100)
@given(products())
def test_rows_meet_the_parameters_of_their_channels(plan):
    """Rows leave tile by tile, pixel by pixel, group of columns by group; jobs of the post-processor are as long as can be."""
    config, gemm = plan.config, plan.gemm
    x, codes = operands(plan, 0)
    job = product(plan, codes)
    moves = product_transfers(config, job, x, list(plan.placed()))
    assert parameters(moves) == expected_parameters(moves, [job])
    groups = config.add_stages if plan.dataflow is Dataflow.OS else 1
    pixels, channels = np.meshgrid(np.arange(gemm.m), np.arange(gemm.n), indexing="ij")
    order = [
        [(i, at.n + j) if j < at.cols else (-1, -1) for j in range(group * config.cols, (group + 1) * config.cols)]
        for at in plan.placed()
        if at.tile.last
        for i in range(at.m, at.m + at.rows)
        for group in range(groups)
    ]
    told = zip(moves.emitted([pixels], [-1]).tolist(), moves.emitted([channels], [-1]).tolist(), strict=True)
    assert [list(zip(*row, strict=True)) for row in told] == order
    kinds = {(post.source, post.vectors, post.zero_point, post.lo, post.hi, post.rounding) for post in moves.posts}
    assert kinds == {(Source.ARRAY, groups, -3, -100, 99, "half_even")}
    assert (moves.vectors, moves.x.shape) == ([], (0, config.cols))


def test_a_tile_spelled_out():
    """2:4 of two short taps on bundles of 4 in two beats: bundles, indices and what carries nothing."""
    config = replace(TINY, rows=3, cols=2, bundle=4, port=2)
    x = np.array([[1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16]])
    codes = Codes(np.array([[7, 8, 9, 10]]), np.array([[0, 2, 4, 5]]))
    plan = schedule(config, 2, 1, 2, 3, Pattern(2, 4), Dataflow.OS)
    moves = array_transfers(config, plan.placed(), plan.cut, x, codes)
    assert moves.tiles == [Tile(dataflow=Dataflow.OS, steps=4, rows=2)]
    assert moves.west.tolist() == [
        [[1, 2], [11, 12], [0, 0]], [[3, 0], [13, 0], [0, 0]],
        [[4, 5], [14, 15], [0, 0]], [[6, 0], [16, 0], [0, 0]],
    ]  # fmt: skip
    assert moves.ends.tolist() == [False, True, False, True]
    assert moves.values.tolist() == [[7, 0], [8, 0], [9, 0], [10, 0]]
    assert moves.indices.tolist() == [[0, 0], [2, 0], [1, 0], [2, 0]]
    assert moves.heads.tolist() == [True, False, True, False]

    plan = schedule(config, 2, 1, 2, 3, Pattern(2, 4), Dataflow.WS)
    moves = array_transfers(config, plan.placed(), plan.cut, x, codes)
    assert moves.tiles == [
        Tile(dataflow=Dataflow.WS, steps=2, rows=3, last=False),
        Tile(dataflow=Dataflow.WS, steps=2, rows=1, first=False),
    ]
    assert moves.west.tolist() == [
        [[1, 2], [0, 0], [4, 5]], [[3, 0], [0, 0], [6, 0]], [[11, 12], [0, 0], [14, 15]], [[13, 0], [0, 0], [16, 0]],
        [[4, 5], [0, 0], [0, 0]], [[6, 0], [0, 0], [0, 0]], [[14, 15], [0, 0], [0, 0]], [[16, 0], [0, 0], [0, 0]],
    ]  # fmt: skip
    assert moves.ends.tolist() == [False, True] * 4
    assert moves.values.tolist() == [[7, 0], [8, 0], [9, 0], [10, 0]]
    assert moves.indices.tolist() == [[0, 0], [2, 0], [1, 0], [2, 0]]
    assert moves.heads.tolist() == [True, False, True, True]


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.integers(1, 4)] * 2, st.integers(1, 13)), min_size=1, max_size=3), st.integers(0, 2**32))
def test_reductions_follow_each_other(shapes, seed):
    """Jobs of any widths share the parameter memory; each takes its tiles of columns one after the other, beats innermost."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *(n for _, _, n in shapes)]).tolist()
    jobs = [
        Reduction(m=m, n=n, reduce=Reduce.SUM, beats=beats, head=i, tail=-i, post=requantisation(start, n))
        for i, ((m, beats, n), start) in enumerate(zip(shapes, starts, strict=False))
    ]
    xs = [rng.integers(-128, 128, (job.m, job.beats, job.n)) for job in jobs]
    needed = sum(-(-job.n // 4) for job in jobs)
    moves = reduction_transfers(replace(TINY, param_rows=needed), jobs, xs)
    tiles = [(job, x, first) for job, x in zip(jobs, xs, strict=True) for first in range(0, job.n, 4)]
    assert moves.vectors == [Vector(reduce=Reduce.SUM, rows=job.m, window=job.beats, head=job.head, tail=job.tail) for job, _, _ in tiles]
    rows = [beat[first : first + 4] for _, x, first in tiles for window in x.tolist() for beat in window]
    assert moves.x.tolist() == [row + [0] * (4 - len(row)) for row in rows]
    assert parameters(moves) == expected_parameters(moves, jobs)
    assert {post.source for post in moves.posts} == {Source.VECTOR}
    assert moves.array is None
    results = [x[:, 0] for x in xs]
    heads = [window[0][first : first + 4] for _, x, first in tiles for window in x.tolist()]
    assert moves.emitted(results, [9] * len(jobs)).tolist() == [row + [9] * (4 - len(row)) for row in heads]
    if needed > 1:
        message = rf"^param_rows must be at least {needed} for {starts[-1]} channels, not {needed - 1}$"
        with pytest.raises(RangeError, match=message):
            reduction_transfers(replace(TINY, param_rows=needed - 1), jobs, xs)


@pytest.mark.parametrize(("flow", "needed"), [(Dataflow.OS, 6), (Dataflow.WS, 5)])
def test_parameters_must_fit(flow, needed):
    """A tile of output-stationary sums reads those of all its column groups, with channels or without."""
    config = replace(TINY, add_stages=3, param_rows=needed)
    plan = schedule(config, 3, 18, 1, 8, Pattern(8, 8), flow)
    x, codes = operands(plan, 0)
    assert len(product_transfers(config, product(plan, codes), x, list(plan.placed())).params[0]) == needed
    with pytest.raises(RangeError, match=rf"^param_rows must be at least {needed} for 18 channels, not {needed - 1}$"):
        product_transfers(replace(config, param_rows=needed - 1), product(plan, codes), x, list(plan.placed()))
