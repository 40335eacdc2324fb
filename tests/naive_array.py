"""The array restated the plain way: Python integers, one product and one issue at a time; and its recurrence, run without waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from accel.config import AcceleratorConfig
from accel.isa import Dataflow, Loop, Tile
from accel.schedule.gemm import WHOLE, Blocks, GemmSchedule, schedule
from accel.schedule.transfers import ArrayTransfers
from accel.sparsity import Pattern
from accel.timing.stce import Feed, Job, stce_trace

Waits = dict[str, np.ndarray]


def bounded(config: AcceleratorConfig, total: int) -> tuple[int, bool]:
    """Apply the overflow rule: the integer kept, and whether it is another one."""
    hi = 2 ** (config.acc_bits - 1) - 1
    if config.overflow == "saturate":
        kept = max(-hi - 1, min(total, hi))
    else:
        kept = total % 2**config.acc_bits
        kept -= 2**config.acc_bits if kept > hi else 0
    return kept, kept != total


def dot(config: AcceleratorConfig, terms: Iterable[tuple[Any, Any]], start: int = 0, sticky: bool = False) -> tuple[int, bool]:
    """Add products one after the other, the overflow rule after every addition."""
    for a, b in terms:
        start, flag = bounded(config, start + int(a) * int(b))
        sticky |= flag
    return start, sticky


def emitted(config: AcceleratorConfig, moves: ArrayTransfers) -> list[list[tuple[int, bool]]]:
    """Feed the array its transfers beat by beat and return the rows that leave; kept rows come back as partial sums, in order."""
    west, north = zip(moves.west.tolist(), moves.ends, strict=True), zip(moves.values, moves.indices, moves.heads, strict=True)
    kept, rows = deque[list[tuple[int, bool]]](), []
    sums: dict[tuple[int, int, int], tuple[int, bool]] = {}
    held: list[list[int]] = []
    shared: list[int] = []
    lanes, cols, groups = range(config.rows), range(config.cols), range(config.add_stages)

    def bundles() -> list[list[int]]:
        """Gather the next bundle of every lane."""
        lane: list[list[int]] = [[] for _ in lanes]
        for data, end in west:
            for r in lanes:
                lane[r] += data[r]
            if end:
                return lane
        raise AssertionError("the west edge runs dry")

    for tile in moves.tiles:
        if tile.dataflow is Dataflow.OS:
            if tile.first:
                sums = {(r, g, c): (0, False) for r in lanes for g in groups for c in cols}
            for _ in range(tile.steps):
                for group in groups:
                    value, index, head = next(north)
                    assert group == 0 or not head
                    held = bundles() if head else held
                    for r in range(tile.rows):
                        for c in cols:
                            sums[r, group, c] = dot(config, [(held[r][index[c]], value[c])], *sums[r, group, c])
            if tile.last:
                rows += [[sums[r, group, c] for c in cols] for r in range(tile.rows) for group in groups]
        else:
            pairs = [next(north) for _ in range(tile.rows)]
            assert pairs[0][2]
            for _ in range(tile.steps):
                own = bundles()
                row = [(0, False)] * config.cols if tile.first else kept.popleft()
                for r, (value, index, head) in enumerate(pairs):
                    shared = own[r] if head else shared
                    row = [dot(config, [(shared[index[c]], value[c])], *row[c]) for c in cols]
                (rows if tile.last else kept).append(row)
    assert not kept
    assert next(west, next(north, None)) is None
    return rows


@dataclass(frozen=True)
class Work:
    """A tile and the (pairs, beats) of each of its bundles; of a weight-stationary tile, one for the beats of a step."""

    tile: Tile
    bundles: tuple[tuple[int, int], ...]

    def job(self, config: AcceleratorConfig) -> Job:
        """Say it as the cycle model takes it: loads are as far apart as a bundle's pairs or the next one's beats last."""
        pairs, beats = zip(*self.bundles, strict=True)
        if self.tile.dataflow is Dataflow.WS:
            return Job(self.tile, Feed(*beats))
        span = sum(max(config.add_stages * used, gathered) for used, gathered in zip(pairs, beats[1:], strict=False))
        return Job(self.tile, Feed(beats[0], span, pairs[-1]))


def walk(config: AcceleratorConfig, works: Iterable[Work], feedback: int = 0) -> list[int]:
    """Issue cycles step by step, each as early as the rules allow, then the last cycle in which a result leaves.

    The first tile is accepted in cycle 0 and moves on in cycle 1. A bundle of b beats is taken b cycles after the one before. With
    `feedback`, a partial sum can be used that many cycles after its issue.
    """
    hop = config.add_stages
    depth = hop * config.rows + config.cols + config.mult_stages + 3
    issues = [1]
    bundle, free, slot, entered = -1, 0, 0, 1  # cycles: last bundle taken, slots given out from there on, last slot, pairs may enter
    kept = deque[int]()
    for work in works:
        tile = work.tile
        if tile.dataflow is Dataflow.OS:
            last = sum(pairs for pairs, _ in work.bundles) - 1
            pair = 0
            for pairs, beats in work.bundles:
                for head in [True] + [False] * (pairs - 1):
                    at = max(issues[-1] + 1, bundle + beats if head else 0, free - hop if tile.last and pair == last else 0)
                    bundle = at if head else bundle
                    issues += range(at, at + hop)
                    pair += 1
            entered = issues[-1] + 1
            if tile.last:
                slot = issues[-1] + hop * tile.rows
                free = slot + 1
        else:
            ((_, beats),) = work.bundles
            for step in range(tile.steps):
                at = max(issues[-1] + 1, bundle + beats, 0 if step else max(entered + tile.rows, free))
                if feedback and not tile.first:
                    at = max(at, kept.popleft())
                if feedback and not tile.last:
                    kept.append(at + feedback)
                entered = entered if step else at
                bundle = slot = at
                issues.append(at)
    return [*issues[1:], slot + depth - 1]


def settle(
    cycles: int, counts: Mapping[str, Any], trace: Callable[[Waits], tuple[Waits, np.ndarray, Mapping[str, Any]]]
) -> tuple[Waits, np.ndarray]:
    """Run a recurrence whose neighbours never wait: each input is offered until its last payload has been taken.

    `trace` maps `valid` of the inputs to `ready` of them, `valid` of the output, and payloads there are by then where `counts` cannot
    say. What it says of a cycle depends on earlier ones only: so the offers are right one cycle further in every round at least.
    """
    offers = {name: np.ones(cycles, bool) for name in counts}
    while True:
        ready, valid, more = trace(offers)
        taken = {name: ready[name] & offers[name] for name in counts}
        again = {name: np.cumsum(taken[name]) - taken[name] < {**counts, **more}[name] for name in counts}
        if all(np.array_equal(offers[name], again[name]) for name in counts):
            return taken, valid
        offers = again


def recorded(config: AcceleratorConfig, works: Sequence[Work], cycles: int, feedback: bool = False) -> tuple[int, int]:
    """Play tiles on the exact recurrence: the cycle of the last issue, and of the last result."""
    ends: list[bool] = []
    heads: list[bool] = []
    keep: list[bool] = []
    again = 0
    for work in works:
        tile = work.tile
        if tile.dataflow is Dataflow.OS:
            for pairs, beats in work.bundles:
                ends += [False] * (beats - 1) + [True]
                heads += [True] + [False] * (pairs * config.add_stages - 1)
            keep += [False] * (tile.rows * config.add_stages * tile.last)
        else:
            ((_, beats),) = work.bundles
            ends += ([False] * (beats - 1) + [True]) * tile.steps
            heads += [True] * tile.rows
            keep += [not tile.last] * tile.steps
            again += 0 if tile.first else tile.steps
    counts = {"tile": len(works), "west": len(ends), "north": len(heads), "psum": again}
    returns = np.array(keep + [False] * cycles)

    def trace(offers):
        always = np.ones(cycles, bool)
        ready, valid = stce_trace(config, [work.tile for work in works], np.array(ends), np.array(heads), offers, always)
        stored = valid & returns[np.cumsum(valid) - valid]
        return ready, valid, {"psum": np.cumsum(stored) - stored} if feedback else {}

    taken, valid = settle(cycles, counts, trace)
    assert {name: int(taken[name].sum()) for name in counts} == counts
    assert valid.sum() == len(keep)
    return int(np.flatnonzero(taken["west"] | taken["north"])[-1]), int(np.flatnonzero(valid)[-1])


def flat(program: Iterable[Any]) -> Iterator[Any]:
    """Unroll the loops of a program."""
    for item in program:
        if isinstance(item, Loop):
            yield from list(flat(item.body)) * item.count
        else:
            yield item


@st.composite
def configs(draw: st.DrawFn, /, **fixed: Any) -> AcceleratorConfig:
    """Draw the shape of a small array and the depth of its pipelines."""
    bundle = draw(st.sampled_from([4, 8]))
    fields = {
        "rows": draw(st.integers(1, 4)),
        "cols": draw(st.integers(1, 4)),
        "bundle": bundle,
        "port": draw(st.sampled_from([1, 2, bundle // 2, bundle])),
        "mult_stages": draw(st.integers(1, 4)),
        "add_stages": draw(st.integers(1, 4)),
    }
    return AcceleratorConfig(**(fields | fixed))


@st.composite
def products(draw: st.DrawFn, /) -> GemmSchedule:
    """Draw a matrix product of a few tiles on a small array, in blocks or not, with few rows for partial sums or many."""
    config = draw(configs(acc_rows=draw(st.sampled_from([1, 3, 7, 64]))))
    top = draw(st.integers(1, config.bundle))
    pattern = Pattern(draw(st.integers(1, top)), top)
    m, n = draw(st.integers(1, 3 * config.rows)), draw(st.integers(1, 3 * config.cols * config.add_stages))
    taps, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2 * config.bundle))
    flow = draw(st.sampled_from(Dataflow))
    return schedule(config, m, n, taps, channels, pattern, flow, draw(st.just(WHOLE) | blocks(config, flow)))


@st.composite
def blocks(draw: st.DrawFn, /, config: AcceleratorConfig, flow: Dataflow) -> Blocks:
    """Draw blocks of a few tiles, or of few enough that the reduction may come in chunks."""
    wide = config.cols * (config.add_stages if flow is Dataflow.OS else 1)
    outer = draw(st.sampled_from(["m", "n"]))
    if draw(st.booleans()):
        return Blocks(draw(st.integers(1, 2 * config.rows)), wide * draw(st.integers(1, 3)), WHOLE.k, outer)
    if flow is Dataflow.OS:
        return Blocks(draw(st.integers(1, config.rows)), wide, draw(st.integers(1, 2 * config.bundle)), outer)
    n = draw(st.integers(1, min(2, config.acc_rows)))
    return Blocks(draw(st.integers(1, config.acc_rows // n)), n * wide, config.rows * draw(st.integers(1, 3)), outer)
