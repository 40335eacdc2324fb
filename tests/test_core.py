"""The compute core: what its blocks compute together, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.core import Product, Reduction, core
from accel.golden.postprocess import Params
from accel.isa import Dataflow, Post, Reduce, Source, Tile, Vector
from accel.schedule.gemm import GemmSchedule
from accel.schedule.transfers import array_transfers
from accel.sparsity import Pattern, encode
from accel.timing import core as timing
from accel.timing.postprocess import STAGES
from accel.timing.stce import Feed, Job
from tests.naive_array import dot, products, settle

CONFIG = AcceleratorConfig(acc_bits=15, act_bits=8, mult_bits=12)
POST = Post(source=Source.ARRAY, rows=6, zero_point=2, lo=-31, hi=90)
PARAMS = Params(np.array([[100, -7, 0, 5]]), np.array([[3, 4095, 1, 64]]), np.array([[8, 20, 7, 13]]))


def requantised(acc: int, channel: int) -> int:
    """Restate the rule in fractions; Python rounds halves to even."""
    bias, mult, shift = (int(table[0, channel]) for table in PARAMS)
    return max(POST.lo, min(round(Fraction((acc + bias) * mult, 2**shift)) + POST.zero_point, POST.hi))


@pytest.mark.golden
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_golden_product_is_a_requantised_dot_product(overflow):
    config, rng = replace(CONFIG, overflow=overflow), np.random.default_rng(0)
    x, codes = rng.integers(-128, 128, (6, 9)), encode(rng.integers(-128, 128, (4, 9)), 1, 9, Pattern(3, 4))
    sums = [[dot(config, zip(row[positions], values, strict=True)) for values, positions in zip(*codes, strict=True)] for row in x]
    got = core(config, Product(x, *codes), POST, PARAMS)
    assert got.value.tolist() == [[requantised(acc, j) for j, (acc, _) in enumerate(row)] for row in sums]
    assert got.overflow.tolist() == [[flag for _, flag in row] for row in sums]
    assert 0 < got.overflow.sum() < got.overflow.size
    assert len(np.unique(got.value)) > 8


@pytest.mark.golden
@pytest.mark.parametrize("reduce", Reduce)
def test_golden_reduction_is_requantised(reduce):
    job = Vector(reduce=reduce, rows=6, window=3, head=5, tail=-2)
    x = np.random.default_rng(1).integers(-128, 128, (18, 4))
    windows = x.reshape(6, 3, 4).transpose(0, 2, 1).tolist()
    sums = [[5 * a - 2 * b - 2 * c if reduce is Reduce.SUM else max(a, b, c) for a, b, c in row] for row in windows]
    got = core(CONFIG, Reduction(job, x), POST, PARAMS)
    assert got.value.tolist() == [[requantised(acc, j) for j, acc in enumerate(row)] for row in sums]
    assert not got.overflow.any()


@pytest.mark.golden
@pytest.mark.parametrize(
    ("x", "post", "message"),
    [
        (np.full((6, 2), 128), POST, r"^x must be in \[-128, 127\], not 128\.\.128$"),
        (np.zeros((6, 2), np.int64), replace(POST, rows=5), r"^acc must be int64 of shape \(5, lanes\), not int64 of shape \(6, 4\)$"),
        (np.zeros((6, 2), np.int64), replace(POST, rounding="stochastic"), r"^rounding must be one of .*, not 'stochastic'$"),
    ],
)
def test_golden_rejects_what_its_blocks_reject(x, post, message):
    ones = np.ones((4, 1), np.int64)
    with pytest.raises(RangeError, match=message):
        core(CONFIG, Product(x, ones, 0 * ones), post, PARAMS)


def spent(config: AcceleratorConfig, cycles: int, likely: float = 1.0, **streams: Any) -> int:
    """Play the core's recurrence, every neighbour ready in a cycle with the given probability; return first input to last result."""
    jobs: dict[str, Any] = {"tiles": [], "ends": [], "heads": [], "vectors": [], "posts": []} | streams
    counts = dict(zip(("tile", "west", "north", "reduce", "post"), map(len, jobs.values()), strict=True))
    counts["x"] = sum(job.rows * job.window for job in jobs["vectors"])
    rng = np.random.default_rng(0)
    may = {name: rng.random(cycles) < likely for name in (*counts, "o")}
    jobs |= {name: np.array(jobs[name], bool) for name in ("ends", "heads")}

    def trace(offers):
        driven = {name: offers[name] & may[name] for name in counts} | {"o": may["o"]}
        said = timing.core_trace(config, **jobs, driven=driven)
        return {name: said[name] & may[name] for name in counts}, said["o"] & may["o"], {}

    taken, left = settle(cycles, counts, trace)
    assert {name: int(column.sum()) for name, column in taken.items()} == counts
    assert left.sum() == sum(post.rows for post in jobs["posts"])
    return int(np.flatnonzero(left)[-1] - min(np.argmax(column) for column in taken.values() if column.any()) + 1)


def posts(source: Source, rows: Iterable[int]) -> list[Post]:
    return [Post(source=source, rows=count, lo=0, hi=0) for count in rows]


def array_jobs(plan: GemmSchedule) -> dict[str, Any]:
    """Return what a matrix product asks of the core, a job of the post-processor for each tile."""
    gemm, placed = plan.gemm, list(plan.placed())
    codes = encode(np.ones((gemm.n, gemm.k), np.int64), gemm.taps, gemm.channels, gemm.pattern)
    moves = array_transfers(plan.config, placed, plan.cut, np.zeros((gemm.m, gemm.k), np.int64), codes)
    groups = plan.config.add_stages if plan.dataflow is Dataflow.OS else 1
    rows = posts(Source.ARRAY, (at.rows * groups for at in placed if at.tile.last))
    return {"tiles": moves.tiles, "ends": moves.ends, "heads": moves.heads, "posts": rows}


@settings(max_examples=80)
@given(products())
def test_product_takes_its_cycles(plan):
    """Nothing waits for the accumulator or the post-processor, however few rows of partial sums are stored."""
    counts = timing.core(plan.config, plan.program())
    assert counts.total == plan.cycles + STAGES
    assert replace(counts, total=plan.cycles) == plan.counts
    assert spent(plan.config, counts.total + 20, **array_jobs(plan)) == counts.total


@settings(max_examples=15)
@given(products())
def test_waits_lose_nothing(plan):
    """All that goes in comes out, later."""
    least = timing.core(plan.config, plan.program()).total
    assert spent(plan.config, 8 * least + 200, likely=0.7, **array_jobs(plan)) >= least


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4))
def test_reductions_take_their_cycles(shapes):
    jobs = [Vector(reduce=Reduce.SUM, rows=rows, window=window) for rows, window in shapes]
    cycles = timing.core_vector(CONFIG, jobs)
    assert cycles == 1 + sum(rows * window for rows, window in shapes) + 2 + STAGES
    assert spent(CONFIG, cycles + 20, vectors=jobs, posts=posts(Source.VECTOR, (job.rows for job in jobs))) == cycles


def test_array_and_vector_unit_take_turns():
    """The post-processor takes rows in the order of its jobs: the other unit holds what it has until then."""
    tile, job = Tile(dataflow=Dataflow.WS, steps=5, rows=2), Vector(reduce=Reduce.MAX, rows=4, window=1)
    streams: dict[str, Any] = {"tiles": [tile], "ends": [True] * 5, "heads": [True] * 2, "vectors": [job]}
    turns = [*posts(Source.VECTOR, [2]), *posts(Source.ARRAY, [5]), *posts(Source.VECTOR, [2])]
    array, vector = timing.core(CONFIG, [Job(tile, Feed(1))]).total, timing.core_vector(CONFIG, [job])
    both = spent(CONFIG, 200, **streams, posts=turns)
    assert both == array + 2 > vector
