r"""Cycles of the systolic array.

R rows, C columns, A add stages, L multiplier stages; *issue* is the cycle in which the front sends a step into the array.

- Processing element (r, c) works on a step A*r + c + 1 cycles after its issue; its sum moves south one row every A cycles.
- A result row takes a *slot*, one a cycle: the issue of a weight-stationary step is its slot; the A*m rows of an output-stationary
  tile of m rows take the A*m slots behind the issue of the tile's last pair. Slot u leaves the array in cycle u + `depth` - 1 at
  the earliest, `depth` = A*R + C + L + 3.
- Output stationary: a pair takes A issue cycles, one for each interleaved sum, so a sum is needed again A cycles later, just when the
  adder has it: no multiplier or adder depth stalls accumulation. The last pair waits until the slots of the tile before are
  given out but for the last A. Hence full tiles follow each other every A * max(k, m) cycles (`interval`), and with k >= m every
  processing element is busy in every cycle.
- A bundle of b elements comes in ceil(b/P) beats, gathered while the bundle before it is used: a bundle with p pairs lasts
  max(A*p, beats of the next one).
- Weight stationary: the pairs of the next tile enter the rows while the current one steps, one row of pairs a cycle; so passes
  follow each other every max(steps * beats, rows) cycles. Before a weight-stationary tile the slots of an output-stationary one
  are waited for; the other way round costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.isa import Dataflow, Loop, Tile
from accel.jit import kernel

START = 2  # cycles from a tile's acceptance into the empty array to its first issue: one place waits, one runs


@dataclass(frozen=True, slots=True)
class Feed:
    """How the activations of a tile arrive.

    Parameters
    ----------
    beats : int
        OS: beats of the first bundle. WS: beats of every step.
    span : int
        OS: cycles from the first bundle's load to the last one's. WS: 0.
    final : int
        OS: pairs of the last bundle. WS: 1.
    """

    beats: int
    span: int = 0
    final: int = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A tile and how it is fed."""

    tile: Tile
    feed: Feed


@dataclass(slots=True)
class Cycles:
    """Issue cycles of a program by what they did, and the program's length [cycles].

    `issued` steps, then idle issue cycles: `fill` (pairs or partial sums on their way), `drain` (slots of the tile before),
    `port` (beats of the west port). `total` counts from the first accepted input to the last emitted result, both inclusive.
    """

    issued: int = 0
    fill: int = 0
    drain: int = 0
    port: int = 0
    total: int = 0

    def slots(self, config: AcceleratorConfig, busy: int) -> dict[str, int]:
        """Account every slot of every processing element [PE cycles]; `busy` are pairs on real rows and columns.

        A processing element is idle for A*r + c + 1 cycles before the first step reaches it (fill), and for the rest of the
        program's tail after its last one (drain).
        """
        rows, cols = config.rows, config.cols
        elements = rows * cols
        late = sum(config.add_stages * r for r in range(rows)) * cols + sum(range(cols)) * rows + elements
        tail = self.total - self.issued - self.fill - self.drain - self.port
        return {
            "busy": busy,
            "fill": elements * self.fill + late,
            "drain": elements * (self.drain + tail) - late,
            "partial tile": elements * self.issued - busy,
            "operand port": elements * self.port,
        }


def depth(config: AcceleratorConfig) -> int:
    """Cycles from the slot of a result row to the cycle that emits it, both inclusive."""
    return config.add_stages * config.rows + config.cols + config.mult_stages + 3


def interval(config: AcceleratorConfig, tile: Tile) -> int:
    """Least cycles between the starts of equal tiles back to back that never wait for the west port [cycles]."""
    if tile.dataflow is Dataflow.WS:
        return max(tile.steps, tile.rows)
    return config.add_stages * max(tile.steps, tile.rows if tile.last else 1)


def latency(config: AcceleratorConfig, tile: Tile) -> int:
    """Cycles from the acceptance of a lone tile, fed without waits in single beats, to its last result, both inclusive."""
    if tile.dataflow is Dataflow.WS:
        return START - 1 + tile.rows + tile.steps - 1 + depth(config)
    return START - 1 + config.add_stages * (tile.steps + tile.rows) + depth(config)


@dataclass(slots=True)
class _Clock:
    """Where the front stands after a tile: all times are absolute cycles."""

    config: AcceleratorConfig
    feedback: int
    done: int = START - 1  # last issue
    loads: int = START - 1  # earliest cycle in which stationary pairs may enter
    loaded: int = -1  # issue that took the last bundle
    slot: int = 0  # last slot given out: a weight-stationary step comes behind it, an output-stationary last pair among the last A
    counts: Cycles = field(default_factory=lambda: Cycles(fill=START))
    psums: deque[NDArray[np.int64]] = field(default_factory=deque)

    def run(self, program: Iterable[Job | Loop]) -> None:
        for item in program:
            if isinstance(item, Loop):
                self._loop(item)
            elif item.tile.dataflow is Dataflow.OS:
                self._os(item.tile, item.feed)
            else:
                self._ws(item.tile, item.feed)

    def _loop(self, loop: Loop) -> None:
        """Run the body until its state repeats, then skip ahead: what follows is a copy, later by a constant."""
        state: tuple[int, ...] | None = None
        for i in range(loop.count):
            before, counts = self.done, (self.counts.issued, self.counts.fill, self.counts.drain, self.counts.port)
            self.run(loop.body)
            last, state = state, self._state()
            if state is not None and state == last:
                left = loop.count - 1 - i
                shift = left * (self.done - before)
                for name in ("done", "loads", "loaded", "slot"):
                    setattr(self, name, getattr(self, name) + shift)
                for name, was in zip(("issued", "fill", "drain", "port"), counts, strict=True):
                    now = getattr(self.counts, name)
                    setattr(self.counts, name, now + left * (now - was))
                return

    def _state(self) -> tuple[int, ...] | None:
        """Return what later tiles can see of the past, relative to the last issue; None while partial sums are under way."""
        if self.psums:
            return None
        config = self.config
        return (
            max(self.loads - self.done, -config.rows),
            max(self.loaded - self.done, -config.beats),
            self.slot - self.done,
        )

    def _os(self, tile: Tile, feed: Feed) -> None:
        hop, counts = self.config.add_stages, self.counts
        start = max(self.done + 1, self.loaded + feed.beats)
        last_load = start + feed.span
        pair = last_load + hop * (feed.final - 1)
        drained = max(pair, self.slot - hop + 1) if tile.last else pair
        counts.issued += hop * tile.steps
        counts.port += pair + hop - 1 - self.done - hop * tile.steps
        counts.drain += drained - pair
        self.loaded = drained if feed.final == 1 else last_load
        self.done = drained + hop - 1
        self.loads = self.done + 1
        if tile.last:
            self.slot = self.done + hop * tile.rows

    def _ws(self, tile: Tile, feed: Feed) -> None:
        counts = self.counts
        free = np.zeros(tile.steps, np.int64)
        if not tile.first and self.feedback:
            free += self.psums.popleft()
        filled = max(self.loads + tile.rows, self.done + 1, int(free[0]))
        drained = max(filled, self.slot + 1)
        start = max(drained, self.loaded + feed.beats)
        counts.fill += filled - (self.done + 1)
        counts.drain += drained - filled
        counts.port += start - drained
        # issue(i) = max(issue(i - 1) + beats, free(i)): a running maximum once the regular part is taken off.
        free[0] = start
        regular = feed.beats * np.arange(tile.steps)
        issues = np.maximum.accumulate(free - regular) + regular
        waits = np.maximum(free[1:] - issues[:-1] - 1, 0).sum()
        counts.issued += tile.steps
        counts.fill += int(waits)
        counts.port += int(issues[-1] - start) - (tile.steps - 1) - int(waits)
        if not tile.last and self.feedback:
            self.psums.append(issues + self.feedback)
        self.loads, self.done = start, int(issues[-1])
        self.loaded = self.slot = self.done


def stce(config: AcceleratorConfig, program: Iterable[Job | Loop], feedback: int = 0) -> Cycles:
    """Count the cycles of a program on the array with operands always there and results always taken.

    Parameters
    ----------
    config : AcceleratorConfig
    program : iterable of Job and isa.Loop
        Tiles in order.
    feedback : int
        Cycles from the issue of a weight-stationary step to the earliest issue that uses its partial sum; 0 if partial sums
        come from elsewhere and are always there [cycles].

    Returns
    -------
    Cycles
    """
    clock = _Clock(config, feedback)
    clock.run(program)
    clock.counts.total = clock.slot + depth(config)
    return clock.counts


def stce_trace(
    config: AcceleratorConfig,
    tiles: list[Tile],
    ends: NDArray[np.bool_],
    heads: NDArray[np.bool_],
    valid: dict[str, NDArray[np.bool_]],
    ready: NDArray[np.bool_],
) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.bool_]]:
    """Follow the front cycle by cycle under the given waits: the exact recurrence.

    Parameters
    ----------
    config : AcceleratorConfig
    tiles : list of Tile
        Tiles in order.
    ends, heads : bool, shape (beats,) and (pairs,)
        ``end`` of each west beat and ``head`` of each north beat, in order.
    valid : dict of bool, shape (cycles,)
        Whether ``tile``, ``west``, ``north`` and ``psum`` offer a payload in each cycle.
    ready : bool, shape (cycles,)
        Whether a result would be taken in each cycle.

    Returns
    -------
    dict of bool, shape (cycles,)
        Whether ``tile``, ``west``, ``north`` and ``psum`` are taken if offered.
    bool, shape (cycles,)
        Whether a result is offered.
    """
    cycles = ready.size
    # At most one transfer a cycle: padded so far, no pattern of waits reads behind the end.
    fields = [(t.dataflow is Dataflow.WS, t.steps, t.rows, t.first, t.last) for t in tiles]
    table = np.array(fields + [(0, 1, 1, 1, 1)] * cycles, np.int64)
    out = np.zeros((5, cycles), np.bool_)
    pad = np.zeros(cycles + 1, np.bool_)
    _front(
        config.rows, config.add_stages, config.result_rows, depth(config), table,
        np.concatenate([ends, pad]), np.concatenate([heads, pad]),
        valid["tile"], valid["west"], valid["north"], valid["psum"], ready, out,
    )  # fmt: skip
    return dict(zip(("tile", "west", "north", "psum"), out[:4], strict=True)), out[4]


@kernel
def _front(rows, stages, capacity, depth, table, ends, heads, tile_valid, west_valid, north_valid, psum_valid, o_ready, out):
    """Kernel of `stce_trace`: one loop turn is one clock cycle."""
    waits = runs = False
    loaded = left = slot = 0
    fresh = False
    waiting = running = 0  # rows of the table
    tiles = west = north = 0  # transfers so far
    draining = 0
    room = capacity
    stored = 0
    slots = np.zeros(o_ready.size + depth, np.bool_)  # slots[t]: a row enters the result buffer in cycle t
    for t in range(o_ready.size):
        ws, _, m, first, last = table[running]
        end, head = ends[west], heads[north]
        loads = ws == 1 or (slot == 0 and head)
        has_bundle = west_valid[t] and end
        claims = 0
        if ws == 1:
            claims = 1
            issue = runs and has_bundle and draining == 0 and room >= 1 and (first == 1 or psum_valid[t])
        else:
            final = last == 1 and left == 1 and slot == 0
            if final:
                claims = m * stages
            issue = runs and north_valid[t] and (has_bundle or not loads) and room >= claims and (draining <= stages or not final)
        done = issue and left == 1 and (ws == 1 or slot == stages - 1)
        pairs = waits and table[waiting, 0] == 1 and loaded < table[waiting, 2]
        take = pairs and north_valid[t] and not (runs and ws == 0) and not (runs and fresh and not issue)
        complete = table[waiting, 0] == 0 or loaded + (1 if take else 0) >= table[waiting, 2]
        start = waits and complete and (done or not runs)

        out[0, t] = start or not waits
        out[1, t] = not end or (issue and loads)
        out[2, t] = take or (issue and ws == 0)
        out[3, t] = issue and ws == 1 and first == 0
        out[4, t] = stored > 0
        pop = stored > 0 and o_ready[t]

        if (issue and ws == 1) or draining > 0:
            slots[t + depth - 2] = True
        stored += (1 if slots[t] else 0) - (1 if pop else 0)
        room += (1 if pop else 0) - (claims if issue else 0)
        draining = max(draining - 1, 0)
        if done and ws == 0 and last == 1:
            draining = m * stages
        if west_valid[t] and out[1, t]:
            west += 1
        if north_valid[t] and out[2, t]:
            north += 1
        if issue:
            slot += 1
            if ws == 1 or slot == stages:
                slot = 0
                left -= 1
                fresh = False
        if take:
            loaded += 1
        if done:
            runs = False
        if start:
            running, runs, left, fresh, waits = waiting, True, table[waiting, 1], True, False
        if tile_valid[t] and out[0, t]:
            waiting, waits, loaded = tiles, True, 0
            tiles += 1


class Fronts(NamedTuple):
    """Where the front stands between the stages of a program whose operands are always there.

    Parameters
    ----------
    cycles : int64, shape (stages,)
        Cycles of the front from the end of the stage before to the end of this one, its last issue; the first one from the start.
    lag : int64, shape (stages,)
        Cycles from the stage's last issue to the last result row that the array emits of it, which waits for no later stage.
    counts : Cycles
        Of the program.
    """

    cycles: NDArray[np.int64]
    lag: NDArray[np.int64]
    counts: Cycles


def os_fronts(config: AcceleratorConfig, tile: Job, rows: NDArray[np.int64], columns: NDArray[np.int64], cuts: NDArray[np.int64]) -> Fronts:
    """Follow the front through blocks of output-stationary tiles, columns of tiles outermost in each; the same as :func:`stce`.

    Parameters
    ----------
    config : AcceleratorConfig
    tile : Job
        A tile of as many rows as the array.
    rows, columns : int64, shape (blocks,)
        Result rows of each block, and its columns of tiles.
    cuts : int64, shape (chunks - 1,)
        Cycles from a tile's first load to the end of each chunk of its reduction but the last; only blocks of one tile have chunks, each
        of which is a stage.
    """
    fed, hop = tile.feed, config.add_stages
    shape = (tile.tile.steps, fed.beats, fed.span, fed.final)
    return _fronts(config, _os_fronts(START, config.rows, hop, *shape, rows, columns, cuts))


def ws_fronts(
    config: AcceleratorConfig,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    pairs: NDArray[np.int64],
    beats: NDArray[np.int64],
    ends: NDArray[np.int64],
    orders: NDArray[np.int64],
) -> Fronts:
    """Follow the front through blocks of weight-stationary tiles; the same as :func:`stce` with the accumulator's feedback.

    Parameters
    ----------
    config : AcceleratorConfig
    rows, columns : int64, shape (blocks,)
        Result rows of each block, and its columns of tiles.
    pairs, beats : int64, shape (passes,)
        Rows of pairs of each pass, and the beats of its steps.
    ends : int64, shape (chunks,)
        Passes to the end of each chunk; with more than one chunk each is a stage, and a block has one run of rows and one group.
    orders : int64, shape (blocks, 2)
        Rows of a pass at most, and columns of tiles that take turns, in each block.
    """
    most = int(orders[:, 0].max())
    found = _ws_fronts(START, depth(config), rows, columns, pairs, beats, ends, orders, most, int(orders[:, 1].max()))
    return _fronts(config, found)


def _fronts(config: AcceleratorConfig, found: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]) -> Fronts:
    done, slots, counts = found
    cycles = np.diff(done, prepend=-1)  # cycles are counted from 0: the first stage lasts one more than its last issue
    lag = slots - done + depth(config) - 1
    total = int(slots[-1]) + depth(config)
    issued, fill, drain, port = counts.tolist()
    return Fronts(cycles, lag, Cycles(issued, fill, drain, port, total))


@kernel
def _os_fronts(begin, height, hop, steps, beats, span, final, rows, columns, cuts):
    """Kernel of `os_fronts`, the recurrence of `_Clock._os`: last issue and last slot of every stage; counts."""
    chunks = cuts.size + 1
    ends = np.empty(rows.size * chunks, np.int64)
    slots = np.empty(rows.size * chunks, np.int64)
    counts = np.array([0, begin, 0, 0])
    done, loaded, slot = begin - 1, -1, 0
    for block in range(rows.size):
        for _ in range(columns[block]):
            left = rows[block]
            while left > 0:
                tall = min(left, height)
                left -= tall
                start = max(done + 1, loaded + beats)
                last_load = start + span
                pair = last_load + hop * (final - 1)
                drained = max(pair, slot - hop + 1)
                counts[0] += hop * steps
                counts[3] += pair + hop - 1 - done - hop * steps
                counts[2] += drained - pair
                loaded = drained if final == 1 else last_load
                done = drained + hop - 1
                for chunk in range(chunks - 1):
                    wait = loaded - last_load if cuts[chunk] == span else 0  # a last load that is the last pair waits as that does
                    ends[block * chunks + chunk] = slots[block * chunks + chunk] = start + cuts[chunk] + wait - 1
                slot = done + hop * tall
        ends[block * chunks + chunks - 1] = done
        slots[block * chunks + chunks - 1] = slot
    return ends, slots, counts


@kernel
def _ws_fronts(begin, feedback, rows, columns, pairs, beats, ends, orders, most, widest):
    """Kernel of `ws_fronts`, the recurrence of `_Clock._ws`.

    Issues of a pass are a line, start + beats * i, until partial sums of a pass with more beats are waited for on the way.
    """
    chunks, passes = ends.size, pairs.size
    marks = np.empty(rows.size * chunks, np.int64)
    counts = np.array([0, begin, 0, 0])
    lines = np.empty((widest, 2), np.int64)  # start and beats of the pass before, of each column of tiles in turn; beats 0: see `issues`
    issues = np.empty((widest, most), np.int64)
    done, loads, loaded = begin - 1, begin - 1, -1
    slot = 0
    for block in range(rows.size):
        size, group = orders[block]
        column = 0
        while column < columns[block]:
            turns = min(group, columns[block] - column)
            column += turns
            row = 0
            while row < rows[block]:
                steps = min(size, rows[block] - row)
                row += steps
                chunk = 0
                for p in range(passes):
                    rate = beats[p]
                    for turn in range(turns):
                        line = p > 0 and lines[turn, 1] > 0
                        free = 0
                        if p > 0:
                            free = (lines[turn, 0] if line else issues[turn, 0]) + feedback
                        filled = max(loads + pairs[p], done + 1, free)
                        drained = max(filled, slot + 1)
                        start = max(drained, loaded + rate)
                        counts[0] += steps
                        counts[1] += filled - (done + 1)
                        counts[2] += drained - filled
                        counts[3] += start - drained
                        final = start + (steps - 1) * rate
                        ahead = lines[turn, 0] + feedback + (steps - 1) * lines[turn, 1] if line else 0
                        if p == 0 or (line and ahead <= final and (rate == 1 or _late(lines[turn], feedback, start, rate, steps) <= 0)):
                            counts[3] += final - start - (steps - 1)
                            lines[turn, 0] = start
                            lines[turn, 1] = rate
                        else:
                            before = start
                            waits = 0
                            straight = True
                            for i in range(steps):
                                own = (lines[turn, 0] + i * lines[turn, 1] if line else issues[turn, i]) + feedback
                                at = start if i == 0 else max(before + rate, own)
                                if i > 0:
                                    waits += max(own - before - 1, 0)
                                    straight = straight and at == before + rate
                                issues[turn, i] = at
                                before = at
                            final = before
                            counts[1] += waits
                            counts[3] += final - start - (steps - 1) - waits
                            lines[turn, 0] = start
                            lines[turn, 1] = rate if straight else 0
                        loads = start
                        done = loaded = slot = final
                    if chunks > 1 and p + 1 == ends[chunk]:
                        marks[block * chunks + chunk] = done
                        chunk += 1
        marks[block * chunks + chunks - 1] = done
    return marks, marks.copy(), counts


@kernel
def _late(line, feedback, start, rate, steps):
    """Most cycles by which a partial sum comes behind the cycle after the issue before; the difference is linear in the step."""
    if steps < 2:
        return 0
    first = line[0] + feedback + line[1] - start - 1
    return max(first, first + (steps - 2) * (line[1] - rate))
