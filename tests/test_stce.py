"""The array: golden model against a twin in Python's integers, cycles against a walk step by step and the exact recurrence."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.stce import stce
from accel.isa import Dataflow, Loop, Tile
from accel.schedule.gemm import schedule
from accel.sparsity import Pattern
from accel.timing import stce as timing
from accel.timing.stce import Feed, Job
from tests.naive_array import Work, configs, dot, flat, recorded, walk


def naive(config, x, values, positions, acc, overflow):
    """Sum each output on its own, in Python's integers."""
    cells = [
        [dot(config, zip(row[positions[j]], values[j], strict=True), int(acc[i, j]), bool(overflow[i, j])) for j in range(len(values))]
        for i, row in enumerate(x)
    ]
    return tuple([[cell[part] for cell in row] for row in cells] for part in (0, 1))


@st.composite
def cases(draw):
    act, weight = draw(st.integers(2, 32)), draw(st.integers(2, 30))
    config = AcceleratorConfig(
        act_bits=act,
        weight_bits=weight,
        acc_bits=(bits := draw(st.integers(2, 62))),
        mult_bits=1,
        overflow=draw(st.sampled_from(["saturate", "wrap"])),
    )
    m, n, k, pairs = (draw(st.integers(1, 4)) for _ in range(4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def integers(bits, shape):  # corners are common
        lo, hi = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return np.where(rng.random(shape) < 0.3, rng.choice([lo, hi, 0, -1], shape), rng.integers(lo, hi, shape, endpoint=True))

    x, values, positions = integers(act, (m, k)), integers(weight, (n, pairs)), rng.integers(0, k, (n, pairs))
    return config, x, values, positions, integers(bits, (m, n)), rng.random((m, n)) < 0.2


@pytest.mark.golden
@settings(max_examples=200)
@given(cases())
def test_equals_the_twin(case):
    config, x, values, positions, acc, overflow = case
    before = [array.copy() for array in case[1:]]
    got = stce(*case)
    sums, bits = naive(*case)
    np.testing.assert_array_equal(got[0], sums)
    np.testing.assert_array_equal(got[1], bits)
    assert [a.dtype for a in got] == [np.int64, np.bool_]
    for array, copy in zip(case[1:], before, strict=True):
        np.testing.assert_array_equal(array, copy)  # no argument was written
    first = stce(config, x, values[:, :1], positions[:, :1], acc, overflow)
    np.testing.assert_array_equal(stce(config, x, values[:, 1:], positions[:, 1:], *first), got)  # chunks of k continue the same sums


@pytest.mark.golden
def test_overflow_is_applied_after_every_addition():
    config = AcceleratorConfig(acc_bits=8)
    one = np.ones((1, 1), np.int64)
    values, positions = np.array([[100, 100, -100]]), np.zeros((1, 3), np.int64)
    assert [a.item() for a in stce(config, one, values, positions)] == [27, True]
    wrapping = AcceleratorConfig(acc_bits=8, overflow="wrap")
    assert [a.item() for a in stce(wrapping, one, values, positions)] == [100, True]
    assert [a.item() for a in stce(config, one, values[:, :1], positions[:, :1])] == [100, False]


def test_no_rows_no_columns_and_no_pairs():
    config = AcceleratorConfig()
    x, none = np.ones((2, 3), np.int64), np.zeros((4, 0), np.int64)
    np.testing.assert_array_equal(stce(config, x, none, none)[0], np.zeros((2, 4)))
    assert stce(config, x[:0], none, none)[0].shape == (0, 4)
    assert stce(config, x, none[:0], none[:0])[0].shape == (2, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x", np.zeros(3, np.int64), r"^x must be int64 of shape \(m, k\), not int64 of shape \(3,\)$"),
        ("x", np.zeros((2, 3), np.int32), r"^x must be int64 of shape \(m, k\), not int32 of shape \(2, 3\)$"),
        ("x", np.full((2, 3), 128), r"^x must be in \[-128, 127\], not 128\.\.128$"),
        ("values", np.zeros((2, 3, 4), np.int64), r"^values must be int64 of shape \(n, k_eff\), not int64 of shape \(2, 3, 4\)$"),
        ("values", np.full((4, 2), -129), r"^values must be in \[-128, 127\], not -129\.\.-129$"),
        ("positions", np.zeros((4, 3), np.int64), r"^positions must be int64 of shape \(4, 2\), not int64 of shape \(4, 3\)$"),
        ("positions", np.full((4, 2), 3), r"^positions must be in \[0, 2\], not 3\.\.3$"),
        ("acc", np.zeros((4, 2), np.int64), r"^acc must be int64 of shape \(2, 4\), not int64 of shape \(4, 2\)$"),
        ("acc", np.full((2, 4), 2**31), r"^acc must be in \[-2147483648, 2147483647\], not 2147483648\.\.2147483648$"),
        ("overflow", np.zeros((2, 4), np.int64), r"^overflow must be bool of shape \(2, 4\), not int64 of shape \(2, 4\)$"),
    ],
)
def test_rejects(name, value, message):
    arguments = {"x": np.zeros((2, 3), np.int64), "values": np.zeros((4, 2), np.int64), "positions": np.zeros((4, 2), np.int64)}
    with pytest.raises(RangeError, match=message):
        stce(AcceleratorConfig(), **(arguments | {name: value}))


@st.composite
def tiles(draw: st.DrawFn, /, config: AcceleratorConfig, flow: Dataflow, **fields: Any) -> list[Work]:
    """Draw a tile of either dataflow; an output-stationary one perhaps in chunks of k, often so short that the drain holds it up."""
    rows, beats = draw(st.integers(1, config.rows)), st.integers(1, config.beats)
    if flow is Dataflow.WS:
        steps, first, last = draw(st.integers(1, 8)), draw(st.booleans()), draw(st.booleans())
        tile: dict[str, Any] = {"steps": steps, "rows": rows, "first": first, "last": last} | fields
        return [Work(Tile(dataflow=flow, **tile), ((1, draw(beats)),))]
    bundle = st.tuples(st.sampled_from([1, 1, 2, config.bundle]), beats)
    chunks = draw(st.lists(st.lists(bundle, min_size=1, max_size=2), min_size=1, max_size=2))
    return [
        Work(Tile(dataflow=flow, steps=sum(pairs for pairs, _ in chunk), rows=rows, first=not i, last=chunk is chunks[-1]), tuple(chunk))
        for i, chunk in enumerate(chunks)
    ]


@st.composite
def programs(draw: st.DrawFn) -> tuple[AcceleratorConfig, list[Work]]:
    """Draw tiles of one or of both dataflows that have their partial sums from elsewhere."""
    config = draw(configs())
    flows = draw(st.sampled_from([[Dataflow.OS], [Dataflow.WS], list(Dataflow)]))
    return config, [work for _ in range(draw(st.integers(1, 6))) for work in draw(tiles(config, draw(st.sampled_from(flows))))]


@st.composite
def chains(draw: st.DrawFn) -> tuple[AcceleratorConfig, list[Work]]:
    """Draw groups of weight-stationary tiles whose partial sums go round, pass after pass, and output-stationary tiles anywhere."""
    config, works = draw(configs()), []
    for _ in range(draw(st.integers(1, 3))):
        passes, group, steps = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 8))
        for i in range(passes):
            works += draw(tiles(config, Dataflow.WS, steps=steps, first=i == 0, last=i == passes - 1)) * group
            if draw(st.booleans()):
                works += draw(tiles(config, Dataflow.OS))
    return config, works


def check_cycles(config: AcceleratorConfig, works: list[Work], feedback: int) -> None:
    """Compare closed form, walk and recurrence; every cycle up to the last issue has a cause."""
    counts = timing.stce(config, [work.job(config) for work in works], feedback)
    *issues, last = walk(config, works, feedback)
    assert counts.total == last + 1
    assert counts.issued == len(issues)
    assert counts.issued + counts.fill + counts.drain + counts.port == issues[-1] + 1
    assert recorded(config, works, last + 20, bool(feedback)) == (issues[-1], last)


@settings(max_examples=150)
@given(programs())
def test_closed_form_is_the_recurrence_without_waits(case):
    config, works = case
    check_cycles(config, works, 0)


@settings(max_examples=100)
@given(chains())
def test_partial_sums_are_back_in_time(case):
    """A step waits for its own partial sum alone, however few rows a pass has."""
    config, works = case
    check_cycles(config, works, timing.depth(config))


@settings(max_examples=100)
@given(programs())
def test_slots_add_up(case):
    """Every slot of every element has one cause, and none has fewer than no slot."""
    config, works = case
    counts = timing.stce(config, [work.job(config) for work in works])
    tiles = [work.tile for work in works]
    busy = sum(t.steps * t.rows * config.cols * (config.add_stages if t.dataflow is Dataflow.OS else 1) for t in tiles)
    slots = counts.slots(config, busy)
    assert sum(slots.values()) == config.rows * config.cols * counts.total
    assert min(slots.values()) >= 0
    assert slots["busy"] == busy


@settings(max_examples=100)
@given(programs(), st.data())
def test_loops_equal_their_tiles(case, data):
    """Skipping ahead changes nothing, in loops of loops neither."""
    config, works = case
    jobs = [work.job(config) for work in works]
    cut = data.draw(st.integers(0, len(jobs)))
    count = st.integers(1, 30)
    inner = Loop(data.draw(count), tuple(jobs[:cut])) if cut else jobs[0]
    program = [jobs[-1], Loop(data.draw(count), (inner, *jobs[cut:])), jobs[0]]
    assert timing.stce(config, program) == timing.stce(config, flat(program))


@settings(max_examples=100)
@given(chains(), st.integers(1, 12), st.data())
def test_loops_carry_partial_sums(case, count, data):
    """Over equal tiles in a row, whose partial sums are still under way, and over whole chains."""
    config, works = case
    rolled: list[Job | Loop] = []
    for job, equal in groupby(work.job(config) for work in works):
        jobs = list(equal)
        rolled += [Loop(len(jobs), (job,))] if data.draw(st.booleans()) else jobs
    program = [*rolled, Loop(count, tuple(rolled)), *rolled]
    assert timing.stce(config, program, timing.depth(config)) == timing.stce(config, flat(program), timing.depth(config))


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("flow", Dataflow)
def test_loop_over_any_small_tile(flow, stages):
    """A tile in the shadow of another kind of tile, and then of its equals."""
    config = AcceleratorConfig(add_stages=stages, bundle=4, port=1)
    before = Job(Tile(dataflow=Dataflow.OS, steps=2, rows=4), Feed(1, 0, 2))
    for steps, rows, beats in np.ndindex(4, 4, 4):
        tile = Tile(dataflow=flow, steps=steps + 1, rows=rows + 1)
        job = Job(tile, Feed(beats + 1, 0, steps + 1 if flow is Dataflow.OS else 1))
        program: list[Job | Loop] = [before, Loop(5, (job,)), before]
        assert timing.stce(config, program) == timing.stce(config, flat(program))


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("flow", Dataflow)
@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (1, 4), (4, 4), (9, 4), (9, 2)])
def test_interval_and_latency(steps, rows, flow, stages):
    """A million equal tiles cost a loop; each adds the interval, and the first one lasts the latency."""
    config = AcceleratorConfig(add_stages=stages, mult_stages=2)
    tile = Tile(dataflow=flow, steps=steps, rows=rows)
    job = Job(tile, Feed(1, 0, steps))
    one, two, many = (timing.stce(config, [Loop(count, (job,))]).total for count in (1, 2, 1_000_000))
    assert one == timing.latency(config, tile)
    assert two - one == timing.interval(config, tile)
    assert many - one == 999_999 * timing.interval(config, tile)


def test_a_chunk_drains_nothing():
    """Chunks of one sum follow each other without a bubble, shorter than the array is high."""
    tile = Tile(dataflow=Dataflow.OS, steps=1, rows=4, last=False)
    assert [timing.interval(AcceleratorConfig(add_stages=stages), tile) for stages in (1, 2)] == [1, 2]


@pytest.mark.parametrize("name", ["edge-int8", "sat-vcu1525"])
@pytest.mark.parametrize(("pattern", "least"), [("16:16", 0.97), ("2:8", 0.90)])
def test_full_tiles_keep_the_array_busy(name, pattern, least):
    """16 full tiles of k = 576 back to back, first fill and last drain included; every element in every cycle between them."""
    config = presets.load(name)
    plan = schedule(config, config.rows, 16 * config.cols, 9, 64, Pattern.parse(pattern), Dataflow.OS)
    elements = config.rows * config.cols
    assert plan.causes["busy"] == 16 * elements * plan.cut.depth
    assert plan.causes["busy"] >= least * elements * plan.cycles
    twice = schedule(config, config.rows, 32 * config.cols, 9, 64, Pattern.parse(pattern), Dataflow.OS)
    assert twice.causes["busy"] - plan.causes["busy"] == elements * (twice.cycles - plan.cycles)
