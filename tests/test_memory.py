"""The memory system: a clocked twin of the timeline, what blocks read place by place, and that more of anything never costs a cycle."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.graph.window import Window
from accel.schedule.memory import Region, Stages, Timeline, timeline


@st.composite
def stages(draw: st.DrawFn) -> Stages:
    """Draw a few stages, some without transfers."""
    count = draw(st.integers(1, 5))
    moved = st.lists(st.sampled_from([0, 0, 1, 7, 40, 41]) | st.integers(0, 100), min_size=count, max_size=count)
    times = st.lists(st.integers(0, 30), min_size=count, max_size=count)
    cycles, lag, loads, stores = (np.array(draw(each), np.int64) for each in (times, times, moved, moved))
    return Stages(cycles, lag, loads, stores, draw(st.integers(1, 4)))


def clocked(stages: Stages, rate: float, latency: int) -> Timeline:
    """Run array and DRAM cycle by cycle."""
    cycles, lag, loads, stores = (each.tolist() * stages.repeats for each in stages[:4])
    count, period, never = len(cycles), len(stages.cycles), 1 << 62
    order = [("load", 0), ("load", 1)]
    for i in range(1, count):
        order += [("load", i + 1), ("store", i - 1)]
    order += [("store", count - 1)]
    queue = [(kind, i) for kind, i in order if i < count and {"load": loads, "store": stores}[kind][i]]
    ready = [never if moved else 0 for moved in loads]  # when operands are there
    stored = [never if moved else 0 for moved in stores]
    ended: dict[int, int] = {-2: 0, -1: 0}
    t = done = wait_load = wait_store = left = 0
    current, rest = None, Fraction(0)
    running, until, finished = 0, None, 0
    while running < count or queue or current:
        if current is None and queue:
            kind, i = queue[0]
            if (kind == "load" and i - 2 in ended) or (kind == "store" and i in ended and t >= ended[i] + lag[i]):
                current, rest = queue.pop(0), Fraction({"load": loads, "store": stores}[kind][i])
        while running < count:  # stages may take no time at all
            if until is None:
                if t < (left if running % period == 0 else ended[running - 1]):
                    break
                there = t >= ready[running]
                room = running < 2 or t >= stored[running - 2]
                if not there or not room:
                    wait_load += not there
                    wait_store += there
                    break
                until = t + cycles[running]
            if t < until:
                break
            ended[running], left, until = t, t + lag[running], None
            running += 1
        if current is None and queue:  # what has just ended may let the next transfer go in this very cycle
            kind, i = queue[0]
            if (kind == "load" and i - 2 in ended) or (kind == "store" and i in ended and t >= ended[i] + lag[i]):
                current, rest = queue.pop(0), Fraction({"load": loads, "store": stores}[kind][i])
        t += 1
        if current is not None:
            rest -= Fraction(rate)
            if rest <= 0:
                kind, i = current
                current = None
                if kind == "load":
                    ready[i] = t + latency
                else:
                    stored[i], finished = t, t + latency
        done = max(left, finished)
    compute = sum(cycles) + sum(lag[period - 1 :: period])
    return Timeline(done, compute, wait_load, wait_store + done - left)


@settings(max_examples=300, deadline=None)
@given(stages(), st.sampled_from([1.0, 2.5, 8.0, 40.0]), st.integers(0, 12))
def test_timeline_is_that_of_a_clocked_machine(work, rate, latency):
    assert timeline(work, rate, latency) == clocked(work, rate, latency)


@settings(deadline=None)
@given(stages(), st.floats(0.1, 100), st.floats(0, 100), st.integers(0, 20), st.integers(0, 20))
def test_more_bandwidth_less_latency_or_shorter_work_never_cost(work, rate, more, latency, longer):
    """And what a stage waits is never negative, and its time is what it computes and waits."""
    best, worst = timeline(work, rate + more, latency), timeline(work, rate, latency + longer)
    assert best.total <= worst.total
    for found in (best, worst):
        assert min(found) >= 0
        assert found.total == found.compute + found.wait_load + found.wait_store
    for field in ("cycles", "lag", "loads", "stores"):
        less = work._replace(**{field: getattr(work, field) // 2})
        assert timeline(less, rate, latency).total <= timeline(work, rate, latency).total


@settings(deadline=None)
@given(stages(), st.floats(0.1, 100), st.integers(0, 20))
def test_time_is_at_least_what_the_parts_take_alone(work, rate, latency):
    moved = int(work.loads.sum() + work.stores.sum()) * work.repeats
    assert timeline(work, rate, latency).total >= max(moved / rate, int(work.cycles.sum()) * work.repeats)


axes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 2), st.integers(-2, 3), st.integers(-2, 3))


@st.composite
def regions(draw: st.DrawFn) -> Region:
    """Draw a window that has a place on a small image; its pads may crop."""
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    kernel, stride, dilation, before, after = zip(draw(axes), draw(axes), strict=True)
    window = Window(kernel=kernel, stride=stride, dilation=dilation, pads=(*before, *after))
    if min(window.positions(*size)) < 1:
        window = Window()
    return Region(draw(st.integers(1, 3)), *size, window, draw(st.integers(1, 4)))


def read(region: Region, first: int, last: int) -> int:
    """Count the places that rows first..last of work read, one by one."""
    window = region.window
    high, wide = window.positions(region.height, region.width)
    total = 0
    for image in range(region.images):
        rows = [row - image * high * wide for row in range(first, last + 1) if row // (high * wide) == image]
        if not rows:
            continue
        lines = {row // wide for row in rows}
        columns = {row % wide for row in rows} if len(lines) == 1 else set(range(wide))
        seen = []
        for axis, places, size in ((0, lines, region.height), (1, columns, region.width)):
            reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
            starts = [place * window.stride[axis] - window.pads[axis] for place in places]
            seen.append({at for start in starts for at in range(start, start + reach) if 0 <= at < size})
        total += len(list(product(*seen)))
    return total * region.element


@settings(max_examples=300, deadline=None)
@given(regions(), st.integers(1, 40))
def test_blocks_read_their_rectangles(region, size):
    size = min(size, region.rows)
    expected = [read(region, first, min(first + size, region.rows) - 1) for first in range(0, region.rows, size)]
    assert region.blocks(size).tolist() == expected
    assert region.whole() <= sum(expected)


def test_halo_is_read_twice():
    """A 3 x 3 window on 8 x 8: two halves of the rows share two of the input's."""
    region = Region(1, 8, 8, Window(kernel=(3, 3), pads=(1, 1, 1, 1)), 1)
    assert (region.whole(), region.blocks(32).tolist()) == (64, [40, 40])


@pytest.mark.parametrize(("stride", "read"), [(1, 64), (2, 16), (3, 9)])
def test_what_a_stride_skips_is_not_read(stride, read):
    assert Region(1, 8, 8, Window(stride=(stride, stride)), 1).whole() == read
