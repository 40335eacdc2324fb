"""Matrix products on the array: tiles, their order, and output or weight stationary by exact cycles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.isa import STEP_BITS, Dataflow, Loop, Tile
from accel.sparsity import Bundles, Pattern, bundles
from accel.timing import stce as timing
from accel.timing.stce import Cycles, Feed, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """Shape of a matrix product: activations (m, k) by weights (n, k), k = taps x channels, channels innermost.

    Parameters
    ----------
    m, n : int
        Result rows (pixels of all images of a batch) and columns (output channels).
    taps, channels : int
        Reduction: kernel positions, and channels of each.
    pattern : Pattern
        Of the weights, along the channels.
    """

    m: int
    n: int
    taps: int
    channels: int
    pattern: Pattern

    @property
    def k(self) -> int:
        """Elements of the dense reduction."""
        return self.taps * self.channels


@dataclass(frozen=True, slots=True)
class Placed:
    """One tile and what it covers: rows from `m`, columns from `n`, pairs from `pair`, and how many of each."""

    tile: Tile
    m: int
    n: int
    pair: int
    rows: int
    cols: int
    pairs: int


@dataclass(frozen=True, slots=True)
class GemmSchedule:
    """A matrix product cut into tiles, and what it costs.

    Parameters
    ----------
    config : AcceleratorConfig
    gemm : Gemm
    dataflow : Dataflow
        The cheaper one, or the one asked for.
    cut : Bundles
        The reduction as the array holds it.
    counts : Cycles
        Cycles of the array, by cause.
    causes : dict
        Slots of processing elements by cause [PE cycles]; their sum is rows * cols * cycles.
    runner_up : int or None
        Cycles of the other dataflow; None if one was asked for.
    """

    config: AcceleratorConfig
    gemm: Gemm
    dataflow: Dataflow
    cut: Bundles
    counts: Cycles
    causes: dict[str, int]
    runner_up: int | None

    @property
    def cycles(self) -> int:
        """Cycles from the first operand accepted to the last sum emitted, both inclusive."""
        return self.counts.total

    @property
    def macs(self) -> int:
        """Multiplications executed."""
        return self.gemm.m * self.gemm.n * self.cut.depth

    def program(self) -> list[Job | Loop]:
        """Tiles as loops, for the cycle model."""
        return _PROGRAMS[self.dataflow](self.config, self.gemm, self.cut)

    def placed(self) -> Iterator[Placed]:
        """Tiles one by one, in the order of the program, with what each covers."""
        return _PLACED[self.dataflow](self.config, self.gemm, self.cut)


def schedule(
    config: AcceleratorConfig, m: int, n: int, taps: int, channels: int, pattern: Pattern, dataflow: Dataflow | None = None
) -> GemmSchedule:
    """Cut a matrix product into tiles and take the dataflow with fewer cycles; ties go to output stationary.

    Parameters
    ----------
    config : AcceleratorConfig
    m, n, taps, channels : int
        See `Gemm`; each 1 or more.
    pattern : Pattern
        M at most the bundle of the config.
    dataflow : Dataflow or None
        Use this one.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    for name, value in (("m", m), ("n", n), ("taps", taps), ("channels", channels)):
        if value < 1:
            raise RangeError(f"{name} must be at least 1, not {value}")
    if pattern.m > config.bundle and not pattern.dense:
        raise RangeError(f"pattern must be N:M with M at most the bundle ({config.bundle}) of {config.name}, not {pattern}")
    gemm = Gemm(m=m, n=n, taps=taps, channels=channels, pattern=pattern)
    cut = reduction(config, gemm)
    if cut.depth >= 1 << STEP_BITS:
        raise RangeError(f"taps * channels must be below 2**{STEP_BITS} pairs, not {cut.depth}")
    found = {}
    for flow in Dataflow if dataflow is None else (dataflow,):
        program = _PROGRAMS[flow](config, gemm, cut)
        found[flow] = timing.stce(config, program, feedback=timing.depth(config))
    best = min(found, key=lambda flow: found[flow].total)
    other = [counts.total for flow, counts in found.items() if flow is not best]
    busy = m * n * cut.depth
    return GemmSchedule(config, gemm, best, cut, found[best], found[best].slots(config, busy), other[0] if other else None)


def reduction(config: AcceleratorConfig, gemm: Gemm) -> Bundles:
    """Cut the reduction of a product as the array holds it: whatever keeps every element runs in full bundles."""
    pattern = Pattern(config.bundle, config.bundle) if gemm.pattern.dense else gemm.pattern
    return bundles(gemm.taps, gemm.channels, pattern, config.bundle)


def _parts(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, length) of pieces of `size`, the last one shorter."""
    return ((start, min(size, total - start)) for start in range(0, total, size))


def _rolled(total: int, size: int, make: Callable[[int], Iterable[Job | Loop]]) -> list[Job | Loop]:
    """Return pieces of `total` as a loop over the full ones and one for the rest; `make(length)` gives a piece's body."""
    full, rest = divmod(total, size)
    loops: list[Job | Loop] = [Loop(full, tuple(make(size)))] if full else []
    return [*loops, *(make(rest) if rest else ())]


def feed(config: AcceleratorConfig, cut: Bundles, tile: Tile, pair: int) -> Feed:
    """Say how the activations of a tile arrive whose first pair is pair number `pair` of the reduction.

    Parameters
    ----------
    config : AcceleratorConfig
    cut : Bundles
        The reduction.
    tile : Tile
    pair : int
        An output-stationary tile starts with a bundle.

    Returns
    -------
    Feed
    """
    pairs = tile.steps if tile.dataflow is Dataflow.OS else tile.rows
    ends = cut.pairs.cumsum()
    held = slice(int(np.searchsorted(ends, pair, "right")), int(np.searchsorted(ends, pair + pairs - 1, "right")) + 1)
    beats = -(-cut.size[held] // config.port)
    if tile.dataflow is Dataflow.WS:
        return Feed(int(beats.max()))
    span = np.maximum(config.add_stages * cut.pairs[held][:-1], beats[1:]).sum()
    return Feed(int(beats[0]), int(span), int(cut.pairs[held][-1]))


def _os_tile(cut: Bundles, rows: int) -> Tile:
    return Tile(dataflow=Dataflow.OS, steps=cut.depth, rows=rows)


def _os_program(config: AcceleratorConfig, gemm: Gemm, cut: Bundles) -> list[Job | Loop]:
    """Columns outermost, rows inside: every tile runs the whole reduction."""
    fed = feed(config, cut, _os_tile(cut, config.rows), 0)
    body = _rolled(gemm.m, config.rows, lambda rows: [Job(_os_tile(cut, rows), fed)])
    return [Loop(-(-gemm.n // (config.cols * config.add_stages)), tuple(body))]


def _os_placed(config: AcceleratorConfig, gemm: Gemm, cut: Bundles) -> Iterator[Placed]:
    for n, cols in _parts(gemm.n, config.cols * config.add_stages):
        for m, rows in _parts(gemm.m, config.rows):
            yield Placed(_os_tile(cut, rows), m, n, 0, rows, cols, cut.depth)


def _ws_order(config: AcceleratorConfig, gemm: Gemm, cut: Bundles) -> tuple[int, int]:
    """Pick rows of a pass and column tiles of a group.

    Partial sums of a group wait in the accumulator, pass after pass: what does not fit is done later. With few rows, several
    column tiles take turns, so that a partial sum is back before it is needed.
    """
    if cut.depth <= config.rows:
        return min(gemm.m, (1 << STEP_BITS) - 1), 1
    rows = min(gemm.m, config.acc_rows)
    return rows, max(1, min(-(-timing.depth(config) // rows), config.acc_rows // rows, -(-gemm.n // config.cols)))


def _ws_tile(config: AcceleratorConfig, cut: Bundles, steps: int, pair: int) -> Tile:
    rows = min(config.rows, cut.depth - pair)
    return Tile(dataflow=Dataflow.WS, steps=steps, rows=rows, first=pair == 0, last=pair + rows == cut.depth)


def _ws_program(config: AcceleratorConfig, gemm: Gemm, cut: Bundles) -> list[Job | Loop]:
    """Loop over groups of column tiles outermost, then rows, then pairs, then the column tiles of the group."""
    size, group = _ws_order(config, gemm, cut)

    def passes(steps: int, tiles: int) -> Iterator[Job]:
        for pair in range(0, cut.depth, config.rows):
            tile = _ws_tile(config, cut, steps, pair)
            yield from [Job(tile, feed(config, cut, tile, pair))] * tiles

    tiles = -(-gemm.n // config.cols)
    return _rolled(tiles, group, lambda tiles: _rolled(gemm.m, size, lambda steps: passes(steps, tiles)))


def _ws_placed(config: AcceleratorConfig, gemm: Gemm, cut: Bundles) -> Iterator[Placed]:
    size, group = _ws_order(config, gemm, cut)
    for first, width in _parts(gemm.n, group * config.cols):
        for m, rows in _parts(gemm.m, size):
            for pair in range(0, cut.depth, config.rows):
                for n, cols in _parts(width, config.cols):
                    tile = _ws_tile(config, cut, rows, pair)
                    yield Placed(tile, m, first + n, pair, rows, cols, tile.rows)


_PROGRAMS = {Dataflow.OS: _os_program, Dataflow.WS: _ws_program}
_PLACED = {Dataflow.OS: _os_placed, Dataflow.WS: _ws_placed}
