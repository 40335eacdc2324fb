"""Matrix products cut into tiles: what they cover, in which order, and what they cost."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import example, given, settings

from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.isa import Dataflow
from accel.schedule.gemm import WHOLE, Blocks, GemmSchedule, chunks, feed, fronts, schedule
from accel.sparsity import Pattern
from accel.timing import stce as timing
from tests.naive_array import Work, flat, products, walk

TINY = presets.load("tiny")
DENSE = Pattern(8, 8)

RESNET50 = [
    # rows of an image, filters, taps, channels: the first layer, one block of each size with its shortcut, the classifier
    (112 * 112, 64, 49, 3),
    *[(56 * 56, *shape) for shape in ((64, 1, 64), (64, 9, 64), (256, 1, 64), (64, 1, 256), (128, 1, 256))],
    *[(28 * 28, *shape) for shape in ((128, 9, 128), (512, 1, 128), (512, 1, 256), (128, 1, 512), (256, 1, 512))],
    *[(14 * 14, *shape) for shape in ((256, 9, 256), (1024, 1, 256), (1024, 1, 512), (256, 1, 1024), (512, 1, 1024))],
    *[(7 * 7, *shape) for shape in ((512, 9, 512), (2048, 1, 512), (2048, 1, 1024), (512, 1, 2048))],
    (1, 1000, 1, 2048),
]


def bundles(plan: GemmSchedule) -> list[tuple[int, int]]:
    """Return the (pairs, elements) of each bundle, found by walking the groups of every tap."""
    pattern = plan.gemm.pattern
    group = plan.config.bundle if pattern.dense else pattern.m
    most = group if plan.config.bundle % group else plan.config.bundle
    kept = group if pattern.dense else pattern.n
    found: list[tuple[int, int]] = []
    for _ in range(plan.gemm.taps):
        held = (0, 0)
        for first in range(0, plan.gemm.channels, group):
            size = min(group, plan.gemm.channels - first)
            held = held[0] + min(kept, size), held[1] + size
            if held[1] == most or first + size == plan.gemm.channels:
                found.append(held)
                held = (0, 0)
    return found


def works(plan: GemmSchedule) -> list[Work]:
    """Return the tiles with the bundles that each is fed, counted pair by pair."""
    port, cut = plan.config.port, bundles(plan)
    owner = [i for i, (pairs, _) in enumerate(cut) for _ in range(pairs)]
    found = []
    for at in plan.placed():
        fed = [
            (owner[at.pair : at.pair + at.pairs].count(i), -(-cut[i][1] // port)) for i in sorted({*owner[at.pair : at.pair + at.pairs]})
        ]
        widest = max(beats for _, beats in fed)
        found.append(Work(at.tile, tuple(fed) if at.tile.dataflow is Dataflow.OS else ((1, widest),)))
    return found


@settings(max_examples=200)
@given(products())
def test_tiles_cover_every_pair_once_in_order(plan):
    """Each output takes its pairs in ascending order; sums start, go on and end where their first and last pairs are."""
    config, gemm = plan.config, plan.gemm
    done, kept, most = np.zeros((gemm.m, gemm.n), int), 0, 0
    for at in plan.placed():
        block = done[at.m : at.m + at.rows, at.n : at.n + at.cols]
        assert block.shape == (at.rows, at.cols)
        assert (block == at.pair).all()
        block += at.pairs
        assert (at.tile.first, at.tile.last) == (at.pair == 0, at.pair + at.pairs == plan.cut.depth)
        if plan.dataflow is Dataflow.OS:
            assert (at.tile.rows, at.tile.steps) == (at.rows, at.pairs)
            assert at.rows <= config.rows
            assert at.cols <= config.cols * config.add_stages
        else:
            assert (at.tile.rows, at.tile.steps) == (at.pairs, at.rows)
            assert at.pairs <= config.rows
            assert at.cols <= config.cols
            kept += at.rows * ((not at.tile.last) - (not at.tile.first))  # a row is taken before its successor comes
            most = max(most, kept)
    assert (done == plan.cut.depth).all()
    assert kept == 0
    assert most <= config.acc_rows
    assert plan.macs == done.sum()


@settings(max_examples=200)
@given(products())
def test_program_is_the_tiles_in_loops(plan):
    """The same tiles in the same order, each fed as its bundles say."""
    tiles = works(plan)
    jobs = [work.job(plan.config) for work in tiles]
    assert list(flat(plan.program())) == jobs
    assert [feed(plan.config, plan.cut, at.tile, at.pair) for at in plan.placed()] == [job.feed for job in jobs]


@settings(max_examples=200)
@given(products())
def test_cycles_are_those_of_a_walk(plan):
    """Step by step over every tile; and every slot of every element has its cause."""
    config = plan.config
    *issues, last = walk(config, works(plan), timing.depth(config))
    assert plan.cycles == last + 1
    assert plan.counts.issued == len(issues)
    assert sum(plan.causes.values()) == config.rows * config.cols * plan.cycles
    assert plan.causes["busy"] == sum(plan.gemm.m * plan.gemm.n * pairs for pairs, _ in bundles(plan))
    assert min(plan.causes.values()) >= 0
    assert plan.runner_up is None


LATE = schedule(  # the last load of a tile is its last pair, which waits for the results of the tile before
    AcceleratorConfig(rows=3, cols=1, bundle=4, port=1, acc_rows=1),
    3,
    2,
    2,
    1,
    Pattern(1, 1),
    Dataflow.OS,
    Blocks(m=3, n=1, k=1, outer="m"),
)


@settings(max_examples=300)
@given(products())
@example(LATE)
def test_fronts_are_where_a_walk_ends_its_stages(plan):
    """The counts of the program; and every stage ends with its last step, or just before the next one takes its first operands."""
    told = fronts(plan.config, plan.gemm, plan.cut, plan.dataflow, plan.blocks)
    assert told.counts == plan.counts
    *issues, last = walk(plan.config, works(plan), timing.depth(plan.config))
    ends = told.cycles.cumsum() - 1
    assert (ends[-1], ends[-1] + told.lag[-1]) == (issues[-1], last)
    starts = stage_starts(plan)
    assert len(ends) == len(starts)
    inside = plan.dataflow is Dataflow.OS and plan.blocks.k < plan.cut.depth
    chunks_of_a_tile = len(chunks(plan.cut, plan.dataflow, plan.blocks)) if inside else 1
    for i, step in enumerate(starts[1:], 1):
        assert ends[i - 1] == (issues[step] - 1 if i % chunks_of_a_tile else issues[step - 1])


def stage_starts(plan: GemmSchedule) -> list[int]:
    """Return the first step of every stage, tile by tile: of each block, and of each chunk of its reduction."""
    ends, hop, step = chunks(plan.cut, plan.dataflow, plan.blocks), plan.config.add_stages, 0
    starts: dict[tuple[tuple[int, int], int], int] = {}
    for at in plan.placed():
        block = at.m // plan.blocks.m, at.n // plan.blocks.n
        if plan.dataflow is Dataflow.OS:
            for chunk, pair in enumerate([0, *ends[:-1]]):
                starts.setdefault((block, chunk), step + hop * int(pair))
            step += hop * at.tile.steps
        else:
            starts.setdefault((block, int(np.searchsorted(ends, at.pair, "right"))), step)
            step += at.tile.steps
    return list(starts.values())


@pytest.mark.parametrize("pattern", [DENSE, Pattern(2, 8), Pattern(1, 4)])
def test_the_cheaper_dataflow_wins(pattern):
    """Either one does somewhere, and a tie is output stationary."""
    won = set()
    for m, n, channels in np.ndindex(12, 12, 9):
        shape = (m + 1, n + 1, 1, channels + 1)
        free = schedule(TINY, *shape, pattern)
        cycles = {flow: schedule(TINY, *shape, pattern, flow).cycles for flow in Dataflow}
        assert (free.cycles, free.runner_up) == tuple(sorted(cycles.values()))
        assert free.dataflow is (Dataflow.OS if cycles[Dataflow.OS] <= cycles[Dataflow.WS] else Dataflow.WS)
        won.add((free.dataflow, free.cycles == free.runner_up))
    assert won >= {(Dataflow.OS, False), (Dataflow.WS, False)}
    assert pattern is not DENSE or (Dataflow.OS, True) in won


@pytest.mark.parametrize(("m", "n", "channels"), [(1, 1, 1), (8, 8, 8), (9, 5, 13)])
def test_dense_is_one_thing(m, n, channels):
    """Whatever the M of a pattern that keeps everything, even one wider than a bundle."""
    plans = [schedule(TINY, m, n, 2, channels, Pattern(size, size)) for size in (1, 3, 8, 16)]
    assert len({(plan.cycles, plan.dataflow, tuple(plan.cut.pairs)) for plan in plans}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[({name: value}, rf"^{name} must be at least 1, not {value}$") for name in ("m", "n", "taps", "channels") for value in (0, -1)],
        (
            {"pattern": Pattern(2, 16)},
            r"^pattern must be N:M with M at most the bundle \(8\) of tiny, not 2:16$",
        ),
        ({"taps": 1 << 12, "channels": 1 << 12}, r"^taps \* channels must be below 2\*\*24 pairs, not 16777216$"),
    ],
)
def test_rejects(change, message):
    with pytest.raises(RangeError, match=message):
        schedule(TINY, **({"m": 1, "n": 1, "taps": 1, "channels": 1, "pattern": DENSE} | change))


@pytest.mark.parametrize("pattern", [Pattern(16, 16), Pattern(2, 8)], ids=str)
def test_resnet50_is_planned_in_milliseconds(pattern):
    """At batch 16, where a layer has tens of thousands of tiles."""
    config, batch = presets.load("sat-vcu1525"), 16
    began = time.process_time()
    plans = [schedule(config, batch * m, n, taps, channels, pattern) for m, n, taps, channels in RESNET50]
    assert time.process_time() - began < 0.05 * len(plans)
    for plan, (m, n, taps, channels) in zip(plans, RESNET50, strict=True):
        assert sum(plan.causes.values()) == config.rows * config.cols * plan.cycles
        assert min(plan.causes.values()) >= 0
        assert plan.causes["busy"] == plan.macs == batch * m * n * taps * pattern.pairs(channels)
        assert plan.runner_up is not None
        assert plan.cycles <= plan.runner_up
    assert {plan.dataflow for plan in plans} == set(Dataflow)


def test_partial_sums_wait_where_there_is_room():
    """A pass has as many rows as the accumulator holds, and few rows leave room for several tiles of columns in turn."""
    config = AcceleratorConfig(acc_rows=20)
    for m, rows, group in ((50, 20, 1), (7, 7, 2), (5, 5, 3), (1, 1, 3)):
        plan = schedule(config, m, 3 * config.cols, 1, 9, DENSE, Dataflow.WS)
        placed = list(plan.placed())
        assert placed[0].rows == rows
        assert [at.pair for at in placed[: 2 * group]] == [0] * group + [config.rows] * group


@pytest.mark.parametrize(
    ("flow", "blocks", "message"),
    [
        ("os", {"m": 0}, r"^m of blocks must be an int of at least 1, not 0$"),
        ("os", {"k": 1.5}, r"^k of blocks must be an int of at least 1, not 1.5$"),
        ("os", {"outer": "k"}, r"^outer must be m or n, not 'k'$"),
        ("os", {"n": 6}, r"^n of os blocks must be a multiple of 4 or all 9 columns, not 6$"),
        ("os", {"k": 8}, r"^blocks with chunks of k must be one os tile, 4 x 4, not 20 x 9$"),
        ("ws", {"k": 8}, r"^ws blocks with chunks of k must fit acc_rows \(16\), not take 60$"),
        ("ws", {"m": 5, "k": 7}, r"^k of ws blocks must be a multiple of rows \(4\) or all 24 pairs, not 7$"),
    ],
)
def test_rejects_blocks(flow, blocks, message):
    fields = {name: getattr(WHOLE, name) for name in ("m", "n", "k", "outer")} | blocks
    with pytest.raises(RangeError, match=message):
        schedule(TINY, 20, 9, 3, 8, DENSE, Dataflow(flow), Blocks(**fields))
