"""Matrix products on the array: blocks, tiles, their order, and output or weight stationary by exact cycles.

A product runs block after block (:class:`Blocks`): `m` rows by `n` columns of the result, the last ones smaller, columns or rows outermost.
In a block tiles run columns outermost. A block holds its sums until the whole reduction is done, so they never leave the core; where it is
small enough to, it may take the reduction in chunks, whose operands can come one after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.isa import STEP_BITS, Dataflow, Loop, Tile
from accel.sparsity import Bundles, Pattern, bundles
from accel.timing import stce as timing
from accel.timing.stce import Cycles, Feed, Job

Order = Callable[[AcceleratorConfig, "Gemm", Bundles], tuple[int, int]]


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
class Blocks:
    """How a product is cut into blocks.

    Parameters
    ----------
    m, n : int
        Rows and columns of a block, 1 or more; what exceeds the product is as good as its size. Unless it is all of them, `n` is a
        multiple of the columns of a tile.
    k : int
        Pairs of a chunk of the reduction, 1 or more. Less than all of them need a block whose sums stay in the core: output stationary
        one tile; weight stationary at most `acc_rows` rows of columns, and `k` a multiple of the array's rows.
    outer : str
        ``"n"``: all rows of a block of columns, then the next columns; ``"m"``: the other way round.
    """

    m: int
    n: int
    k: int
    outer: str = "n"


WHOLE = Blocks(1 << 62, 1 << 62, 1 << 62)
"""One block."""


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
    blocks : Blocks
    """

    config: AcceleratorConfig
    gemm: Gemm
    dataflow: Dataflow
    cut: Bundles
    counts: Cycles
    causes: dict[str, int]
    runner_up: int | None
    blocks: Blocks = WHOLE

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
        return _program(self.config, self.gemm, self.cut, self.dataflow, self.blocks)

    def placed(self) -> Iterator[Placed]:
        """Tiles one by one, in the order of the program, with what each covers."""
        flow, gemm, blocks = self.dataflow, self.gemm, self.blocks
        order = _split_order if blocks.k < self.cut.depth else None
        for m, n, rows, cols in _areas(gemm, blocks):
            for at in _PLACED[flow](self.config, dataclasses.replace(gemm, m=rows, n=cols), self.cut, order or _ws_order):
                yield dataclasses.replace(at, m=m + at.m, n=n + at.n)


def schedule(
    config: AcceleratorConfig,
    m: int,
    n: int,
    taps: int,
    channels: int,
    pattern: Pattern,
    dataflow: Dataflow | None = None,
    blocks: Blocks = WHOLE,
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
    blocks : Blocks
        One block unless given, with a dataflow.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    gemm = Gemm(m=m, n=n, taps=taps, channels=channels, pattern=pattern)
    cut = reduction(config, gemm)
    found = {}
    for flow in Dataflow if dataflow is None else (dataflow,):
        check_blocks(config, gemm, cut, flow, blocks)
        program = _program(config, gemm, cut, flow, blocks)
        found[flow] = timing.stce(config, program, feedback=timing.depth(config))
    best = min(found, key=lambda flow: found[flow].total)
    other = [counts.total for flow, counts in found.items() if flow is not best]
    busy = m * n * cut.depth
    return GemmSchedule(config, gemm, best, cut, found[best], found[best].slots(config, busy), other[0] if other else None, blocks)


def reduction(config: AcceleratorConfig, gemm: Gemm) -> Bundles:
    """Cut the reduction of a product as the array holds it: whatever keeps every element runs in full bundles.

    Raises
    ------
    RangeError
        If the product is none, or one that the array does not run.
    """
    for name in ("m", "n", "taps", "channels"):
        if getattr(gemm, name) < 1:
            raise RangeError(f"{name} must be at least 1, not {getattr(gemm, name)}")
    if gemm.pattern.m > config.bundle and not gemm.pattern.dense:
        raise RangeError(f"pattern must be N:M with M at most the bundle ({config.bundle}) of {config.name}, not {gemm.pattern}")
    pattern = Pattern(config.bundle, config.bundle) if gemm.pattern.dense else gemm.pattern
    cut = bundles(gemm.taps, gemm.channels, pattern, config.bundle)
    if cut.depth >= 1 << STEP_BITS:
        raise RangeError(f"taps * channels must be below 2**{STEP_BITS} pairs, not {cut.depth}")
    return cut


def check_blocks(config: AcceleratorConfig, gemm: Gemm, cut: Bundles, flow: Dataflow, blocks: Blocks) -> None:
    """Check that blocks obey the rules of :class:`Blocks`.

    Raises
    ------
    RangeError
        If they do not.
    """
    for name in ("m", "n", "k"):
        value = getattr(blocks, name)
        if type(value) is not int or value < 1:
            raise RangeError(f"{name} of blocks must be an int of at least 1, not {value!r}")
    if blocks.outer not in ("m", "n"):
        raise RangeError(f"outer must be m or n, not {blocks.outer!r}")
    wide = config.cols * (config.add_stages if flow is Dataflow.OS else 1)
    if blocks.n < gemm.n and blocks.n % wide:
        raise RangeError(f"n of {flow.value} blocks must be a multiple of {wide} or all {gemm.n} columns, not {blocks.n}")
    if blocks.k >= cut.depth:
        return
    m, n = min(blocks.m, gemm.m), min(blocks.n, gemm.n)
    if flow is Dataflow.OS:
        if m > config.rows or n > wide:
            raise RangeError(f"blocks with chunks of k must be one os tile, {config.rows} x {wide}, not {m} x {n}")
        return
    if m * -(-n // config.cols) > config.acc_rows:
        raise RangeError(f"ws blocks with chunks of k must fit acc_rows ({config.acc_rows}), not take {m * -(-n // config.cols)}")
    if blocks.k % config.rows:
        raise RangeError(f"k of ws blocks must be a multiple of rows ({config.rows}) or all {cut.depth} pairs, not {blocks.k}")


def chunks(cut: Bundles, flow: Dataflow, blocks: Blocks) -> NDArray[np.int64]:
    """Pairs to the end of each chunk of a reduction: every `k`, output stationary up to the end of the bundle that this is in."""
    ends = np.append(np.arange(blocks.k, cut.depth, blocks.k), cut.depth)
    if flow is Dataflow.OS and ends.size > 1:
        whole = cut.pairs.cumsum()
        ends = np.unique(whole[np.searchsorted(whole, ends)])
    return ends


def fronts(config: AcceleratorConfig, gemm: Gemm, cut: Bundles, flow: Dataflow, blocks: Blocks, repeats: int = 1) -> timing.Fronts:
    """Count the cycles of each stage, a block or a chunk of one, of the program of a :class:`GemmSchedule`; blocks obey their rules.

    Stages are in the order of the program: blocks as :func:`grid` orders them, the chunks of each one after the other. The program may run
    `repeats` times without a gap.
    """
    rows, columns = (np.tile(each, repeats) for each in grid(gemm, blocks))
    ends = chunks(cut, flow, blocks)
    if flow is Dataflow.OS:
        cuts = np.zeros(0, np.int64)
        if ends.size > 1:
            spans = np.maximum(config.add_stages * cut.pairs[:-1], -(-cut.size[1:] // config.port)).cumsum()
            cuts = spans[np.searchsorted(cut.pairs.cumsum(), ends[:-1])]
        tile = _os_tile(cut, config.rows)
        wide = config.cols * config.add_stages
        return timing.os_fronts(config, Job(tile, feed(config, cut, tile, 0)), rows, -(-columns // wide), cuts)
    pairs, beats = _passes(config, cut)
    order = _split_order if ends.size > 1 else _ws_order
    shapes, which = np.unique(np.column_stack([rows, columns]), axis=0, return_inverse=True)
    orders = [order(config, dataclasses.replace(gemm, m=m, n=n), cut) for m, n in shapes.tolist()]
    each = np.array(orders, np.int64)[which.ravel()]
    return timing.ws_fronts(config, rows, -(-columns // config.cols), pairs, beats, -(-ends // config.rows), each)


def _passes(config: AcceleratorConfig, cut: Bundles) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of pairs of each weight-stationary pass, and the beats of its steps: those of the longest bundle that it has a pair of."""
    firsts = np.arange(0, cut.depth, config.rows)
    pairs = np.minimum(config.rows, cut.depth - firsts)
    owner = np.repeat(-(-cut.size // config.port), cut.pairs)
    return pairs, np.maximum.reduceat(owner, firsts)


def grid(gemm: Gemm, blocks: Blocks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of every block, in order."""
    rows, columns = (_lengths(total, size) for total, size in ((gemm.m, blocks.m), (gemm.n, blocks.n)))
    if blocks.outer == "n":
        return np.tile(rows, columns.size), np.repeat(columns, rows.size)
    return np.repeat(rows, columns.size), np.tile(columns, rows.size)


def _lengths(total: int, size: int) -> NDArray[np.int64]:
    """Lengths of pieces of `size`, the last one shorter."""
    starts = np.arange(0, total, min(size, total))
    return np.minimum(total - starts, size)


def _areas(gemm: Gemm, blocks: Blocks) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first row, first column, rows, columns) of every block, in order."""
    if blocks.outer == "n":
        yield from ((m, n, rows, cols) for n, cols in _parts(gemm.n, blocks.n) for m, rows in _parts(gemm.m, blocks.m))
    else:
        yield from ((m, n, rows, cols) for m, rows in _parts(gemm.m, blocks.m) for n, cols in _parts(gemm.n, blocks.n))


def _program(config: AcceleratorConfig, gemm: Gemm, cut: Bundles, flow: Dataflow, blocks: Blocks) -> list[Job | Loop]:
    order = _split_order if blocks.k < cut.depth else _ws_order

    def block(rows: int, cols: int) -> list[Job | Loop]:
        return _PROGRAMS[flow](config, dataclasses.replace(gemm, m=rows, n=cols), cut, order)

    if blocks.outer == "n":
        return _rolled(gemm.n, blocks.n, lambda cols: _rolled(gemm.m, blocks.m, lambda rows: block(rows, cols)))
    return _rolled(gemm.m, blocks.m, lambda rows: _rolled(gemm.n, blocks.n, lambda cols: block(rows, cols)))


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


def _os_program(config: AcceleratorConfig, gemm: Gemm, cut: Bundles, order: Order) -> list[Job | Loop]:
    """Columns outermost, rows inside: every tile runs the whole reduction."""
    fed = feed(config, cut, _os_tile(cut, config.rows), 0)
    body = _rolled(gemm.m, config.rows, lambda rows: [Job(_os_tile(cut, rows), fed)])
    return [Loop(-(-gemm.n // (config.cols * config.add_stages)), tuple(body))]


def _os_placed(config: AcceleratorConfig, gemm: Gemm, cut: Bundles, order: Order) -> Iterator[Placed]:
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


def _split_order(config: AcceleratorConfig, gemm: Gemm, cut: Bundles) -> tuple[int, int]:
    """Pick rows of a pass and column tiles of a group for a block whose operands come in chunks: all at once."""
    return gemm.m, -(-gemm.n // config.cols)


def _ws_tile(config: AcceleratorConfig, cut: Bundles, steps: int, pair: int) -> Tile:
    rows = min(config.rows, cut.depth - pair)
    return Tile(dataflow=Dataflow.WS, steps=steps, rows=rows, first=pair == 0, last=pair + rows == cut.depth)


def _ws_program(config: AcceleratorConfig, gemm: Gemm, cut: Bundles, order: Order) -> list[Job | Loop]:
    """Loop over groups of column tiles outermost, then rows, then pairs, then the column tiles of the group."""
    size, group = order(config, gemm, cut)

    def passes(steps: int, tiles: int) -> Iterator[Job]:
        for pair in range(0, cut.depth, config.rows):
            tile = _ws_tile(config, cut, steps, pair)
            yield from [Job(tile, feed(config, cut, tile, pair))] * tiles

    tiles = -(-gemm.n // config.cols)
    return _rolled(tiles, group, lambda tiles: _rolled(gemm.m, size, lambda steps: passes(steps, tiles)))


def _ws_placed(config: AcceleratorConfig, gemm: Gemm, cut: Bundles, order: Order) -> Iterator[Placed]:
    size, group = order(config, gemm, cut)
    for first, width in _parts(gemm.n, group * config.cols):
        for m, rows in _parts(gemm.m, size):
            for pair in range(0, cut.depth, config.rows):
                for n, cols in _parts(width, config.cols):
                    tile = _ws_tile(config, cut, rows, pair)
                    yield Placed(tile, m, first + n, pair, rows, cols, tile.rows)


_PROGRAMS = {Dataflow.OS: _os_program, Dataflow.WS: _ws_program}
_PLACED = {Dataflow.OS: _os_placed, Dataflow.WS: _ws_placed}
