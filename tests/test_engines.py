"""Three engines and one DRAM channel: a clocked twin, the sequence of stages as its special case, sums, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.schedule.engines import CAUSES, ENGINES, Account, Queue, Run, account, run
from accel.schedule.memory import Stages, timeline

RATES = st.sampled_from([1.0, 2.5, 8.0, 40.0])
Queues = tuple[Queue, Queue, Queue]


def queue(cycles: list[int], lag: list[int] | int = 0, loads: list[int] | int = 0, stores: list[int] | int = 0, **others: Any) -> Queue:
    """Make a queue; what is not given is nothing."""
    count = len(cycles)
    busy, late, read, written = (np.zeros(count, np.int64) + np.array(column, np.int64) for column in (cycles, lag, loads, stores))
    behind = np.array(others.get("behind", [False] * count), np.bool_)
    needs, hands = (np.array(others.get(name, [[0] * 3] * count), np.int64).reshape(count, 3) for name in ("needs", "hands"))
    return Queue(busy, late, read, written, behind, needs, hands)


@st.composite
def queues(draw: st.DrawFn, ordered: bool = True) -> Queues:
    """Draw up to six tiles for each engine; ordered: every tile waits for some that come before it in one order of all tiles."""
    order = draw(st.lists(st.integers(0, 2), min_size=1, max_size=14))
    before = [0, 0, 0]
    rows: list[list[Any]] = [[], [], []]
    moved = st.sampled_from([0, 0, 1, 7, 40, 41]) | st.integers(0, 60)
    time = st.integers(0, 30)
    for e in order:
        limits = before if ordered else [order.count(f) for f in range(3)]
        counts = st.tuples(*(st.sampled_from([0, limit]) | st.integers(0, limit) for limit in limits))
        rows[e].append([draw(each) for each in (time, time, moved, moved, st.booleans(), counts, counts)])
        before[e] += 1
    made = []
    for mine in rows:
        cycles, lag, loads, stores, behind, needs, hands = ([row[i] for row in mine] for i in range(7))
        made.append(queue(cycles, lag, loads, stores, behind=behind, needs=needs, hands=hands))
    return made[0], made[1], made[2]


class Tile:
    """A tile of the clocked twin, and when what it does has happened."""

    def __init__(self, row: tuple[Any, ...], latency: int):
        cycles, lag, loads, stores, self.behind, needs, hands = row
        self.cycles, self.lag, self.loads, self.stores, self.latency = int(cycles), int(lag), int(loads), int(stores), latency
        self.needs, self.hands = needs.tolist(), hands.tolist()
        self.operands: int | None = None
        self.start: int | None = None
        self.end: int | None = None
        self.done: int | None = None
        self.load_asked = self.store_asked = False

    def ended(self, now: int) -> bool:
        return self.end is not None and now >= self.end

    def left(self, now: int) -> bool:
        return self.end is not None and now >= self.end + self.lag

    def stored(self, now: int) -> bool:
        return self.done is not None and now >= self.done if self.stores else self.left(now)


def clocked(work: Queues, rate: float, latency: int) -> tuple[list[list[Tile]], int] | None:
    """Run engines and DRAM cycle by cycle; None if they come to rest before they are through."""
    engines = [[Tile(row, latency) for row in zip(*each, strict=True)] for each in work]
    everything = [tile for tiles in engines for tile in tiles]
    asked: list[tuple[int, int, str, Tile]] = []  # transfers that DRAM has not begun
    current: tuple[int, int, str, Tile] | None = None
    rest = Fraction(0)
    limit = sum(t.cycles + t.lag + 2 * latency + 2 * t.loads + 2 * t.stores + 4 for t in everything)
    now = written = 0
    while True:
        if current is not None:
            rest -= Fraction(rate)
            if rest <= 0:
                _, _, kind, tile = current
                current = None
                if kind == "load":
                    tile.operands = now + latency
                else:
                    tile.done, written = now, now + latency
        again = True
        while again:  # tiles may take no time at all, and then much happens in a cycle
            again = False
            for e, tiles in enumerate(engines):
                for i, tile in enumerate(tiles):
                    if not all(other.stored(now) for f in range(3) for other in engines[f][: tile.needs[f]]):
                        continue
                    if not tile.loads and tile.operands is None:
                        tile.operands, again = now, True
                    turn = all(other.load_asked for other in tiles[:i] if other.loads)
                    if tile.loads and not tile.load_asked and turn and (i < 2 or tiles[i - 2].ended(now)):
                        asked.append((now, e, "load", tile))
                        tile.load_asked = again = True
                    if tile.start is not None or tile.operands is None or now < tile.operands:
                        continue
                    free = i == 0 or (tiles[i - 1].left(now) if tile.behind else tiles[i - 1].ended(now))
                    room = i < 2 or not tiles[i - 2].stores or tiles[i - 2].stored(now)
                    handed = all(other.ended(now) for f in range(3) for other in engines[f][: tile.hands[f]])
                    if free and room and handed:
                        tile.start, tile.end, again = now, now + tile.cycles, True
                for i, tile in enumerate(tiles):
                    turn = all(other.store_asked for other in tiles[:i] if other.stores)
                    if tile.stores and not tile.store_asked and turn and tile.left(now):
                        asked.append((now, e, "store", tile))
                        tile.store_asked = again = True
        if current is None and asked:
            current = min(asked, key=lambda one: one[:3])
            asked.remove(current)
            rest = Fraction(current[3].loads if current[2] == "load" else current[3].stores)
        if all(tile.stored(now) for tile in everything) and now >= written:
            return engines, now
        if now > limit:
            return None
        now += 1


def unloaded(result: Run) -> list[list[tuple[int, ...]]]:
    """List when each tile's operands are there, when it starts and ends, and when it is done, by engine."""
    return [list(zip(*(each.tolist() for each in (t.operands, t.start, t.end, t.done)), strict=True)) for t in result.times]


def agree(work: Queues, rate: float, latency: int) -> None:
    """Check the run against the clocked twin, tile by tile, and each engine's account against the length of the step."""
    expected = clocked(work, rate, latency)
    if expected is None:
        with pytest.raises(RangeError, match=r"^needs and hands must be of tiles that can go first, not those of tile \d+ of \w+"):
            run(work, rate, latency)
        return
    result = run(work, rate, latency)
    engines, total = expected
    done = [[(t.operands, t.start, t.end, t.done if t.stores else (t.end or 0) + t.lag) for t in tiles] for tiles in engines]
    assert unloaded(result) == done
    assert result.total == total
    for engine, mine in zip(ENGINES, work, strict=True):
        assert sum(account(mine, result, engine)) == total


@settings(max_examples=250)
@given(queues(), RATES, st.integers(0, 12))
def test_run_is_that_of_a_clocked_machine(work, rate, latency):
    agree(work, rate, latency)
    run(work, rate, latency)  # tiles that wait only for earlier ones never block each other


@settings(max_examples=100)
@given(queues(ordered=False), RATES, st.integers(0, 3))
def test_tiles_that_wait_for_each_other_are_found(work, rate, latency):
    agree(work, rate, latency)


@given(queues(), st.integers(0, 12))
def test_waits_are_by_cause(work, latency):
    """The waits of a tile end when their cause does, and reach from the tile before to its start."""
    result = run(work, 2.5, latency)
    for e, times in enumerate(result.times):
        for i, waits in enumerate(times.waits.tolist()):
            now = 0 if i == 0 else int((times.left if work[e].behind[i] else times.end)[i - 1])
            met = []
            for f, other in enumerate(result.times):
                met += [(int(d), -f) for d in other.done[: work[e].needs[i, f]]] + [(int(d), -f) for d in other.end[: work[e].hands[i, f]]]
            expected = [0] * len(CAUSES)
            at, f = max(met, default=(0, 0))
            if at > now:
                expected[-f] = at - now
                now = at
            expected[3] = max(int(times.operands[i]) - now, 0)
            now += expected[3]
            room = int(times.done[i - 2]) if i > 1 and work[e].stores[i - 2] else 0
            expected[4] = max(room - now, 0)
            assert waits == expected
            assert times.start[i] == now + expected[4]


@given(queues(), RATES, st.integers(0, 12))
def test_time_is_at_least_what_the_parts_take_alone(work, rate, latency):
    result = run(work, rate, latency)
    assert result.total >= result.dram >= sum(int(each.loads.sum() + each.stores.sum()) for each in work) / rate
    for mine, times in zip(work, result.times, strict=True):
        assert result.total >= mine.cycles.sum()
        assert (times.start[1:] >= times.end[:-1]).all()
        assert (times.waits >= 0).all()


@given(queues(), RATES, st.floats(0, 100), st.integers(0, 12), st.integers(0, 12))
def test_memory_has_no_part_in_what_tiles_take(work, rate, more, latency, longer):
    fast, slow = run(work, rate + more, latency), run(work, rate, latency + longer)
    assert fast.dram <= slow.dram
    for engine, mine in zip(ENGINES, work, strict=True):
        assert account(mine, fast, engine).compute == account(mine, slow, engine).compute


@st.composite
def stages(draw: st.DrawFn) -> Stages:
    """Draw stages whose lags are shorter than the next stage."""
    count = draw(st.integers(1, 5))
    cycles = [draw(st.integers(1, 30)) for _ in range(count)]
    lag = [draw(st.integers(0, cycles[(i + 1) % count] - 1)) for i in range(count)]
    loads, stores = ([draw(st.integers(0, 60) | st.just(0)) for _ in range(count)] for _ in range(2))
    columns = [np.array(each, np.int64) for each in (cycles, lag, loads, stores)]
    return Stages(columns[0], columns[1], columns[2], columns[3], draw(st.integers(1, 4)))


@settings(max_examples=150)
@given(stages(), RATES, st.integers(0, 12), st.sampled_from(ENGINES))
def test_one_engine_runs_as_a_sequence_of_stages_does(work, rate, latency, engine):
    """Where every lag is shorter than the next tile, first come is the fixed order of `accel.schedule.memory`."""
    cycles, lag, loads, stores = (each.tolist() * work.repeats for each in work[:4])
    mine = queue(cycles, lag, loads, stores, behind=[i % len(work.cycles) == 0 for i in range(len(cycles))])
    other = Queue.empty()
    at = ENGINES.index(engine)
    result = run((mine if at == 0 else other, mine if at == 1 else other, mine if at == 2 else other), rate, latency)
    expected = timeline(work, rate, latency)
    assert result.total == expected.total
    assert account(mine, result, engine) == Account(expected.compute, 0, 0, 0, expected.wait_load, expected.wait_store)


def test_hand_worked():
    """Two tiles on the array, each normalised when it is stored, then an update whose room holds the array's second tile back."""
    array = queue([10, 10], 2, [8, 8], [4, 0], hands=[[0, 0, 0], [0, 0, 1]])
    vector = queue([3], 1, [4], [4], needs=[[1, 0, 0]])
    update = queue([5], 0, [0], [6], needs=[[0, 1, 0]])
    result = run((array, vector, update), 1.0, 5)
    a, v, u = result.times
    # Loads at 0..8 and 8..16, usable at 13 and 21. The first tile runs 13..23, leaves at 25, is stored 25..29.
    assert (a.operands.tolist(), int(a.start[0]), int(a.end[0]), a.done.tolist()) == ([13, 21], 13, 23, [29, 63])
    # Its load at 29..33, usable at 38: it runs 38..41, leaves at 42, is stored 42..46.
    assert (v.operands.tolist(), v.start.tolist(), v.done.tolist()) == ([38], [38], [46])
    assert (u.start.tolist(), u.end.tolist(), u.done.tolist()) == ([46], [51], [57])
    # Then the array's second tile: from 51 to 61, out at 63; the step ends with the update's store, latency included.
    assert (int(a.start[1]), int(a.end[1]), int(a.left[1])) == (51, 61, 63)
    assert result.total == 63


def test_needs_are_of_every_tile_in_front():
    """The first tile's store takes far longer than the second tile, which stores nothing."""
    work = (queue([1, 1], 0, 0, [50, 0]), queue([1], needs=[[2, 0, 0]]), Queue.empty())
    assert run(work, 1.0, 0).times[1].start.tolist() == [51]
    agree(work, 1.0, 0)


def test_first_come_first_served():
    """The update engine's store, asked for first, goes before what was asked for later; of one cycle the array's load goes first."""
    work = (queue([5, 1, 1], 0, [4, 0, 4]), queue([5], 0, 0, [4]), queue([4], 0, 0, [9]))
    a, v, u = run(work, 1.0, 0).times
    # The array loads 0..4 and runs 4..9; the update engine's store lasts 4..13; the vector unit's is asked for at 5, the array's load at 9.
    assert (u.done.tolist(), v.done.tolist(), a.operands.tolist()) == ([13], [17], [4, 0, 21])
    agree(work, 1.0, 0)
    tied = (queue([9, 1, 1], 0, [0, 0, 4]), queue([9], 0, 0, [4]), queue([4], 0, 0, [9]))
    a, v, u = run(tied, 1.0, 0).times
    assert (u.done.tolist(), a.operands.tolist(), v.done.tolist()) == ([13], [0, 0, 17], [21])
    agree(tied, 1.0, 0)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_rate_is_checked(rate):
    with pytest.raises(RangeError, match=rf"^rate must be a number of bytes per cycle above 0, not {rate}$"):
        run((queue([1]), Queue.empty(), Queue.empty()), rate, 0)


def test_columns_are_checked():
    with pytest.raises(RangeError, match=r"^lag of vector must be 0 or more, not -1$"):
        run((queue([1]), queue([1], -1), Queue.empty()), 1.0, 0)
    with pytest.raises(RangeError, match=r"^loads of array must be of 1 tiles, not 2$"):
        run((queue([1])._replace(loads=np.zeros(2, np.int64)), Queue.empty(), Queue.empty()), 1.0, 0)


def test_circles_are_named():
    """A tile beyond the other queue, and two that wait for each other."""
    one = queue([1, 1], needs=[[0, 0, 0], [0, 1, 0]])
    with pytest.raises(RangeError, match=r"^needs and hands must be of tiles that can go first, not those of tile 1 of array$"):
        run((one, Queue.empty(), Queue.empty()), 1.0, 0)
    with pytest.raises(RangeError, match=r"not those of tile 1 of array, tile 0 of vector$"):
        run((one, queue([1], hands=[[2, 0, 0]]), Queue.empty()), 1.0, 0)


def test_nothing_takes_no_time():
    result = run((Queue.empty(), Queue.empty(), Queue.empty()), 1.0, 9)
    assert (result.total, result.dram) == (0, 0)
    assert account(Queue.empty(), result, "array") == Account(0, 0, 0, 0, 0, 0)
