"""Three engines and one DRAM channel: when the tiles of a training step run, as one exact recurrence.

The array, the vector unit and the update engine have a queue of tiles each and take them in order. Time is in cycles, every event on a
whole one. A transfer of b bytes takes ``ceil(b / rate)`` cycles (:func:`accel.schedule.memory.transfer`). For tile i of an engine:

- **Needs.** Tile i needs the first ``needs[i, f]`` tiles of engine f to be done. A tile is done when its store is; one without a store
  when its last result has left. N(i) is when the last of them is.
- **Load.** It is asked for when tile i - 2 has ended (a buffer is free) and the needs are met, never before the load that its engine asked
  for before it: ``A(i) = max(E(i - 2), N(i), A(before))``. Operands are there `latency` cycles after its last byte; those of a tile without
  a load when its needs are met.
- **Start.** ``S(i) = max(F(i), operands, H(i), store of i - 2 done)``. F(i) is when the tile before ended, or, for a tile `behind` it, when
  the last result of that one had left; H(i) when the first ``hands[i, f]`` tiles of each engine f have ended: then there is room
  where results are handed over on chip.
- **End.** ``E(i) = S(i) + cycles(i)``; its last result leaves at ``E(i) + lag(i)``.
- **Store.** It is asked for when the last result has left, never before the store that its engine asked for before it.
- **DRAM** serves first come, first served, one transfer at a time to its end. Of transfers asked for in the same cycle the array's go
  first, then the vector unit's, then the update engine's; of one engine's the load, then the store. A transfer without bytes has no turn.
- The step has ended when the last result of every engine has left, and `latency` cycles after the last byte of the last store.

A transfer takes a cycle or more, so whatever follows from one is later than it was asked for. That makes the recurrence a simple one:
once all that follows from the transfers served so far is worked out, the earliest of the (at most six) next ones is the next one of all.

**Waiting.** The time from F(i) to S(i) is split by cause: until needs and hands were met, the engine of the last one of them (of equal ones
the first in the order of ENGINES); then, until operands are there, the load; then, until there is room for results, the store.

With one engine and nothing needed this is :func:`accel.schedule.memory.timeline` if every lag is shorter than the next tile: then load
i + 2 is asked for (at E(i)) before store i, and store i before load i + 3 (at E(i + 1)), which is the fixed order over there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.jit import kernel
from accel.schedule.memory import transfer

ENGINES = ("array", "vector", "update")
CAUSES = (*ENGINES, "load", "store")
_LOAD, _STORE = CAUSES.index("load"), CAUSES.index("store")


class Queue(NamedTuple):
    """The tiles of an engine, in order.

    Parameters
    ----------
    cycles : int64, shape (tiles,)
        For which each keeps the engine, 0 or more.
    lag : int64, shape (tiles,)
        From its end to its last result [cycles].
    loads, stores : int64, shape (tiles,)
        What crosses DRAM [bytes].
    behind : bool, shape (tiles,)
        Whether it starts only when the last result of the tile before has left, not when that one has ended: the first tile of a product.
    needs : int64, shape (tiles, 3)
        How many tiles of each engine's queue, in the order of ENGINES, must be done before its operands can be loaded.
    hands : int64, shape (tiles, 3)
        How many tiles of each engine's queue must have ended before it can start.
    """

    cycles: NDArray[np.int64]
    lag: NDArray[np.int64]
    loads: NDArray[np.int64]
    stores: NDArray[np.int64]
    behind: NDArray[np.bool_]
    needs: NDArray[np.int64]
    hands: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Queue:
        """Make a queue without tiles."""
        none, table = np.zeros(0, np.int64), np.zeros((0, len(ENGINES)), np.int64)
        return cls(none, none, none, none, np.zeros(0, np.bool_), table, table)


class Times(NamedTuple):
    """When each tile of an engine runs [cycles from the start of the step].

    Parameters
    ----------
    operands : int64, shape (tiles,)
        Its operands are there; of a tile without a load: its needs are met.
    start, end : int64, shape (tiles,)
        It keeps the engine from the one to the other.
    left : int64, shape (tiles,)
        Its last result has left the engine.
    done : int64, shape (tiles,)
        Its last byte is stored; of a tile without a store: `left`.
    waits : int64, shape (tiles, 5)
        Between the tile before and its start, by the order of CAUSES.
    """

    operands: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    left: NDArray[np.int64]
    done: NDArray[np.int64]
    waits: NDArray[np.int64]


class Run(NamedTuple):
    """When everything happens.

    Parameters
    ----------
    times : tuple of Times
        In the order of ENGINES.
    total : int
        Length of the step [cycles].
    dram : int
        For which DRAM transfers [cycles].
    """

    times: tuple[Times, Times, Times]
    total: int
    dram: int


class Account(NamedTuple):
    """Where the time of an engine goes [cycles]; the fields add up to the length of the step.

    Parameters
    ----------
    compute : int
        Tiles, and the lags that the next tile or the end of the queue waits for.
    array, vector, update : int
        Waiting for what that engine makes, or for room in front of it; after its own last result: for the engine that finishes last.
    load, store : int
        Waiting for operands, and for room; for the last stores at the end.
    """

    compute: int
    array: int
    vector: int
    update: int
    load: int
    store: int


def run(queues: tuple[Queue, Queue, Queue], rate: float, latency: int) -> Run:
    """Run the queues of the three engines by the recurrence above.

    Parameters
    ----------
    queues : tuple of Queue
        In the order of ENGINES; any may be empty.
    rate : float
        DRAM bandwidth, above 0 [bytes/cycle].
    latency : int
        0 or more [cycles].

    Returns
    -------
    Run

    Raises
    ------
    RangeError
        If a number is negative, or if tiles wait for each other.
    """
    if not 0 < rate < np.inf:
        raise RangeError(f"rate must be a number of bytes per cycle above 0, not {rate}")
    for engine, queue in zip(ENGINES, queues, strict=True):
        for name, column in queue._asdict().items():
            if len(column) != len(queue.cycles):
                raise RangeError(f"{name} of {engine} must be of {len(queue.cycles)} tiles, not {len(column)}")
            if column.size and column.min() < 0:
                raise RangeError(f"{name} of {engine} must be 0 or more, not {column.min()}")
    cycles, lag, loads, stores, behind, needs, hands = (np.concatenate(columns) for columns in zip(*queues, strict=True))
    sizes = np.array([len(queue.cycles) for queue in queues])
    loads, stores = transfer(loads, rate), transfer(stores, rate)
    *found, waits, last, stuck = _run(sizes, cycles, lag, loads, stores, behind, needs, hands, latency)
    if (stuck >= 0).any():
        tiles = ", ".join(f"tile {tile} of {engine}" for engine, tile in zip(ENGINES, stuck, strict=True) if tile >= 0)
        raise RangeError(f"needs and hands must be of tiles that can go first, not those of {tiles}")
    ends = np.cumsum(sizes)[:-1]
    times = [Times(*columns) for columns in zip(*(np.split(column, ends) for column in (*found, waits)), strict=True)]
    return Run((times[0], times[1], times[2]), int(last), int(loads.sum() + stores.sum()))


def account(queue: Queue, result: Run, engine: str) -> Account:
    """Add up where the time of an engine goes.

    Parameters
    ----------
    queue : Queue
        Of the engine.
    result : Run
    engine : str
        One of ENGINES.
    """
    times = result.times[ENGINES.index(engine)]
    causes = times.waits.sum(axis=0)
    left = int(times.left[-1]) if times.left.size else 0
    finished = [int(other.left.max()) if other.left.size else 0 for other in result.times]
    last = max(*finished, left)
    causes[finished.index(max(finished))] += last - left
    causes[_STORE] += result.total - last
    lags = queue.lag[:-1][queue.behind[1:]].sum() + queue.lag[-1:].sum()
    return Account(int(queue.cycles.sum() + lags), *map(int, causes))


@kernel
def _run(sizes, cycles, lag, loads, stores, behind, needs, hands, latency):
    """Kernel of `run`; tiles of all engines one behind the other, `at` is where an engine's begin, transfers in cycles."""
    engines = sizes.size
    at = np.zeros(engines, np.int64)
    for e in range(1, engines):
        at[e] = at[e - 1] + sizes[e - 1]
    tiles = cycles.size
    operands = np.full(tiles, -1, np.int64)  # -1: not known yet, here and below
    start = np.zeros(tiles, np.int64)
    end = np.zeros(tiles, np.int64)
    left = np.zeros(tiles, np.int64)
    done = np.full(tiles, -1, np.int64)
    waits = np.zeros((tiles, engines + 2), np.int64)
    met = np.full(tiles, -1, np.int64)  # when needs are
    by = np.zeros(tiles, np.int64)  # by which engine
    all_done = np.zeros(tiles, np.int64)  # of the tiles up to this one
    fetched = np.zeros(engines, np.int64)  # tiles whose load was served, or that have none
    placed = np.zeros(engines, np.int64)  # tiles that have their times
    written = np.zeros(engines, np.int64)  # tiles whose store was served, or that have none
    finished = np.zeros(engines, np.int64)  # tiles in front that are done
    channel = 0  # DRAM is free again
    total = 0
    while True:
        changed = True
        while changed:
            changed = False
            for e in range(engines):
                base = at[e]
                while finished[e] < placed[e] and done[base + finished[e]] >= 0:
                    tile = base + finished[e]
                    all_done[tile] = done[tile] if finished[e] == 0 else max(all_done[tile - 1], done[tile])
                    finished[e] += 1
                    changed = True
                while fetched[e] < sizes[e] and loads[base + fetched[e]] == 0:
                    fetched[e] += 1
                while written[e] < placed[e] and stores[base + written[e]] == 0:
                    written[e] += 1
                while placed[e] < sizes[e]:
                    i = placed[e]
                    tile = base + i
                    if met[tile] < 0:
                        met[tile], by[tile] = _met(needs, tile, finished, at, all_done)
                        if met[tile] < 0:
                            break
                    if loads[tile] == 0:
                        operands[tile] = met[tile]
                    elif operands[tile] < 0:
                        break
                    handed, who = _met(hands, tile, placed, at, end)
                    if handed < 0:
                        break
                    room = 0
                    if i > 1 and stores[tile - 2] > 0:
                        room = done[tile - 2]
                        if room < 0:
                            break
                    free = 0
                    if i > 0:
                        free = left[tile - 1] if behind[tile] else end[tile - 1]
                    cause = by[tile] if met[tile] > handed or (met[tile] == handed and by[tile] <= who) else who
                    waited = max(free, met[tile], handed)
                    waits[tile, cause] = waited - free
                    there = max(waited, operands[tile])
                    waits[tile, _LOAD] = there - waited
                    start[tile] = max(there, room)
                    waits[tile, _STORE] = start[tile] - there
                    end[tile] = start[tile] + cycles[tile]
                    left[tile] = end[tile] + lag[tile]
                    total = max(total, left[tile])
                    if stores[tile] == 0:
                        done[tile] = left[tile]
                    placed[e] += 1
                    changed = True
        # Of each engine the next load and the next store. One that could have been asked for before its predecessor goes behind it all the
        # same, and the channel is free no earlier, so that it need not be told apart from one asked for with it.
        first, chosen, store = -1, -1, False
        for e in range(engines):
            i = fetched[e]
            if i < sizes[e] and i < placed[e] + 2:
                tile = at[e] + i
                if met[tile] < 0:
                    met[tile], by[tile] = _met(needs, tile, finished, at, all_done)
                if met[tile] >= 0:
                    asked = max(met[tile], end[tile - 2] if i > 1 else 0)
                    if chosen < 0 or asked < first:
                        first, chosen, store = asked, e, False
            i = written[e]
            if i < placed[e]:
                asked = left[at[e] + i]
                if chosen < 0 or asked < first:
                    first, chosen, store = asked, e, True
        if chosen < 0:
            break
        if store:
            tile = at[chosen] + written[chosen]
            channel = max(channel, first) + stores[tile]
            done[tile] = channel
            total = max(total, channel + latency)
            written[chosen] += 1
        else:
            tile = at[chosen] + fetched[chosen]
            channel = max(channel, first) + loads[tile]
            operands[tile] = channel + latency
            fetched[chosen] += 1
    stuck = np.where(placed < sizes, placed, -1)
    return operands, start, end, left, done, waits, total, stuck


@kernel
def _met(counts, tile, known, at, times):
    """When the first tiles of each engine are, by `times`, which do not fall within an engine; and the last engine. -1: not known yet."""
    last, engine = 0, 0
    for f in range(known.size):
        count = counts[tile, f]
        if count > known[f]:
            return -1, 0
        if count > 0 and times[at[f] + count - 1] > last:
            last, engine = times[at[f] + count - 1], f
    return last, engine
