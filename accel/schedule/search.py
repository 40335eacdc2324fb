"""How a piece of work is cut into tiles: what a cut costs, which cuts there are, and the best of them.

A cut (:class:`Tiling`) obeys the rules of :class:`accel.schedule.gemm.Blocks`, and its largest tiles fit half of their scratchpads, which
hold two (:mod:`accel.schedule.memory`). What a stage loads:

- activations of its rows (:meth:`accel.schedule.memory.Region.blocks`), unless the stage before has the same ones; in chunks of the
  reduction as the array takes them, one element for each row and element of the chunk, and never more than the whole block;
- weights of its columns as they are stored, values and N:M indices, with bias, multiplier and shift of each channel, unless the stage
  before has the same ones;
- nothing of an operand that is kept on chip.

It stores its results once its sums are done, unless they are kept. Sums never leave the core. Equal products run one after the other, each
loading its own operands.

The search is a branch and bound: cuts in the order of a lower bound of their cycles, until that is no better than the best found. What
``"exhaustive"`` looks at does not depend on bandwidth or latency, and a smaller scratchpad only takes cuts away: so more of anything never
costs a cycle.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.isa import SHIFT_BITS, Dataflow
from accel.schedule import memory
from accel.schedule.gemm import Blocks, Gemm, check_blocks, chunks, fronts, reduction
from accel.schedule.memory import Region, Stages, Timeline
from accel.sparsity import Bundles
from accel.timing import stce as timing
from accel.timing.postprocess import STAGES

SEARCHES = ("best", "exhaustive", "fixed")
CLOSE = 1.01  # our choice: cuts within 1 % of the fewest cycles are as good as each other, and then traffic counts
LARGEST = 6  # our choice: smaller tiles off the array only add rounding
HALF = 512  # bytes of a KiB that one of the two tiles may fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """A cut of a piece of work.

    Parameters
    ----------
    m : int
        Rows of a tile.
    n : int
        Columns of a tile, off the array channels; 0 is all of them, off the array only.
    k : int
        Pairs of a chunk of the reduction; 0 off the array.
    outer : str
        ``"n"``: the tiles of the same columns follow each other; ``"m"``: those of the same rows.
    dataflow : Dataflow or None
        None off the array.
    """

    m: int
    n: int = 0
    k: int = 0
    outer: str = "n"
    dataflow: Dataflow | None = None

    @property
    def blocks(self) -> Blocks:
        """As the array takes it."""
        return Blocks(self.m, self.n, self.k, self.outer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductWork:
    """Equal matrix products.

    Parameters
    ----------
    gemm : Gemm
    repeats : int
        How many, one after the other.
    region : Region
        What the rows read of the first operand.
    dynamic : bool
        The second operand is a tensor, not weights.
    presented : int
        How often the first operand is presented.
    """

    gemm: Gemm
    repeats: int
    region: Region
    dynamic: bool = False
    presented: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorWork:
    """Work of the vector unit, or of address generators alone: rows that go through at a constant rate.

    A tile may hold some of the channels of its rows. Work that needs a whole row more than once then loads it as often.

    Parameters
    ----------
    rows, cycles : int
        Of all of it.
    regions : tuple of Region
        What the rows read, of each input.
    result : int
        Made by a row [bytes].
    channels : int
        Into which a row may be cut.
    passes : int
        How often a row is needed.
    """

    rows: int
    cycles: int
    regions: tuple[Region, ...]
    result: int
    channels: int = 1
    passes: int = 1


Work = ProductWork | VectorWork


@dataclass(frozen=True, slots=True)
class Kept:
    """Which tensors of a layer stay on chip: each input, and the output."""

    inputs: tuple[bool, ...]
    output: bool


class Traffic(NamedTuple):
    """What crosses DRAM [bytes]: `reads` of each input, `weights` with indices and channel parameters, `written` results."""

    reads: tuple[int, ...]
    weights: int
    written: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.reads) + self.weights + self.written


@dataclass(frozen=True, slots=True)
class Cost:
    """What a cut costs.

    Parameters
    ----------
    time : Timeline
    traffic : Traffic
    counts : Cycles or None
        Of the array, for one of the equal products; None off the array.
    """

    time: Timeline
    traffic: Traffic
    counts: timing.Cycles | None


class Tiles(NamedTuple):
    """The tiles of a cut of products that follow each other without a gap, in order.

    Parameters
    ----------
    cycles, lag : int64, shape (tiles,)
        For which each keeps the array, and from then to its last result.
    loads, stores : int64, shape (tiles,)
        What crosses DRAM [bytes].
    reads : tuple of int
        Of what is loaded, what each operand takes, weights with indices and channel parameters last [bytes].
    second : int64, shape (tiles,)
        Of what is loaded, the second operand: weights, or the other activation [bytes].
    counts : Cycles
        Of the array; `total` counts to the last result.
    """

    cycles: NDArray[np.int64]
    lag: NDArray[np.int64]
    loads: NDArray[np.int64]
    stores: NDArray[np.int64]
    reads: tuple[int, ...]
    second: NDArray[np.int64]
    counts: timing.Cycles


@dataclass(frozen=True, slots=True)
class Found:
    """A cut, its cost, and the best one of the other dataflow, if there is one that fits."""

    tiling: Tiling
    cost: Cost
    runner_up: tuple[Tiling, Cost] | None = None


class _Loads(NamedTuple):
    """Stages of one product or of vector work: bytes loaded of each operand, weights last, and stored; and the largest tiles."""

    reads: tuple[NDArray[np.int64], ...]
    weights: NDArray[np.int64]
    stores: NDArray[np.int64]
    tiles: tuple[int, int, int]


def word(bits: int) -> int:
    """Bytes of an element of this width in a tensor, alone in its bytes."""
    return -(-bits // 8)


def compulsory(config: AcceleratorConfig, work: Work, kept: Kept) -> Traffic:
    """Count what must cross DRAM however the work is cut: each operand and result once [bytes]."""
    if isinstance(work, VectorWork):
        reads = tuple(0 if on_chip else region.whole() for region, on_chip in zip(work.regions, kept.inputs, strict=True))
        return Traffic(reads, 0, 0 if kept.output else work.rows * work.result)
    gemm, times = work.gemm, work.repeats
    size = _columns(config, work, reduction(config, gemm), np.array([gemm.n]), None)[0, 0]
    first = 0 if kept.inputs[0] else times * work.region.whole()
    written = 0 if kept.output else times * gemm.m * gemm.n * word(config.act_bits)
    if work.dynamic:
        return Traffic((first, 0 if kept.inputs[1] else times * int(size)), 0, written)
    return Traffic((first,), times * int(size), written)


@functools.lru_cache(maxsize=1 << 16)
def evaluate(config: AcceleratorConfig, work: Work, kept: Kept, tiling: Tiling) -> Cost:
    """Find out what a cut costs.

    Raises
    ------
    RangeError
        If the cut breaks a rule, or a tile does not fit its scratchpad.
    """
    if isinstance(work, ProductWork):
        if tiling.dataflow is None:
            raise RangeError("dataflow of a matrix product must be os or ws, not none")
        check_blocks(config, work.gemm, _cut(config, work.gemm), tiling.dataflow, tiling.blocks)
    elif tiling.dataflow is not None:
        raise RangeError(f"dataflow off the array must be none, not {tiling.dataflow.value}")
    else:
        for name, value, least in (("m", tiling.m, 1), ("n", tiling.n, 0)):
            if type(value) is not int or value < least:
                raise RangeError(f"{name} off the array must be an int of at least {least}, not {value!r}")
    loads = _loads(config, work, kept, tiling)
    for name, tile in zip(("act_kb", "weight_kb", "out_kb"), loads.tiles, strict=True):
        if tile > HALF * getattr(config, name):
            raise RangeError(f"tiles must fit half of {name} ({HALF * getattr(config, name)} bytes), not take {tile} bytes")
    return _cost(config, work, tiling, loads)


@functools.lru_cache(maxsize=1 << 12)
def tiles(config: AcceleratorConfig, work: ProductWork, kept: Kept, tiling: Tiling) -> Tiles:
    """List the tiles of a cut that :func:`evaluate` takes; here equal products follow each other like blocks of one."""
    assert tiling.dataflow is not None
    loads = _loads(config, work, kept, tiling)
    front = _fronts(config, work.gemm, tiling.dataflow, tiling.blocks, work.repeats)
    streams = (*loads.reads, loads.weights)
    return Tiles(
        front.cycles,
        front.lag + STAGES,
        np.tile(sum(loads.reads, loads.weights), work.repeats),
        np.tile(loads.stores, work.repeats),
        tuple(work.repeats * int(each.sum()) for each in streams),
        np.tile(loads.reads[1] if work.dynamic else loads.weights, work.repeats),
        front.counts,
    )


@functools.lru_cache(maxsize=1 << 14)
def search(config: AcceleratorConfig, work: Work, kept: Kept, method: str = "best", flow: Dataflow | None = None) -> Found | None:
    """Find the cut with the fewest cycles; of equal ones output stationary, then the first one found.

    Parameters
    ----------
    config : AcceleratorConfig
    work : ProductWork or VectorWork
    kept : Kept
    method : str
        ``"best"``: blocks of about 1/q of the rows and columns for q = 1, 2, 3, 4, 6, 8, 12, ...; chunks of the reduction where only one
        block of rows or columns is left, or nothing else fits; off the array the LARGEST sizes that fit, of whole rows if one does. Of
        the cuts within 1 % of the fewest cycles (CLOSE) in a dataflow the one with the least traffic. ``"exhaustive"``: every whole
        number of tiles, every chunk, the fewest cycles. ``"fixed"``: of the cuts of ``"best"``, in the dataflow with fewer cycles of the
        array, the one with the least traffic, the largest tiles first.
    flow : Dataflow or None
        Look at this one alone; has no influence off the array.

    Returns
    -------
    Found or None
        None if no cut fits the scratchpads.

    Raises
    ------
    RangeError
        If there is no such method.
    """
    if method not in SEARCHES:
        raise RangeError(f"search must be one of {', '.join(SEARCHES)}, not {method!r}")
    if isinstance(work, VectorWork):
        return _vector(config, work, kept, method)
    found = [each for one in (Dataflow if flow is None else (flow,)) if (each := _search(config, work, kept, one, method))]
    if not found:
        return None
    if method == "fixed":
        return min(found, key=lambda each: each.cost.time.compute)
    best = min(found, key=lambda each: each.cost.time.total)
    other = [each for each in found if each is not best]
    return dataclasses.replace(best, runner_up=(other[0].tiling, other[0].cost) if other else None)


def smallest(config: AcceleratorConfig, work: Work, kept: Kept) -> tuple[int, int, int]:
    """Bytes of the smallest tiles that the work can be cut into: activations, weights, results."""
    if isinstance(work, VectorWork):
        return _loads(config, work, kept, Tiling(m=1, n=min(config.cols, work.channels))).tiles
    tilings = [Tiling(m=1, n=config.cols * config.add_stages, k=1, dataflow=Dataflow.OS)]
    tilings += [Tiling(m=1, n=config.cols, k=config.rows, dataflow=Dataflow.WS)]
    return min((_loads(config, work, kept, tiling).tiles for tiling in tilings), key=max)


def _vector(config: AcceleratorConfig, work: VectorWork, kept: Kept, method: str) -> Found | None:
    """Search off the array: whole rows, or where not one of them fits as many channels of one as do."""
    thorough = method == "exhaustive"
    rows = _pieces(work.rows, 1, thorough).tolist()
    channels = _pieces(work.channels, config.cols, thorough).tolist()[1:]
    options = (
        tiling
        for tiling in itertools.chain(
            (Tiling(m=m) for m in rows), (Tiling(m=m, n=n) for n in channels for m in (rows if thorough else rows[-1:]))
        )
        if _fits(config, _loads(config, work, kept, tiling).tiles)
    )
    if thorough:
        return _least(config, work, kept, list(options), 1.0)
    return _least(config, work, kept, list(itertools.islice(options, 1 if method == "fixed" else LARGEST)), CLOSE)


class _Options(NamedTuple):
    """Cuts that fit, a lower bound of the cycles of each, and its traffic [bytes]."""

    tilings: list[Tiling]
    bounds: NDArray[np.float64]
    moved: NDArray[np.float64]


def _search(config: AcceleratorConfig, work: ProductWork, kept: Kept, flow: Dataflow, method: str) -> Found | None:
    """Search one dataflow: whole reductions, then chunks of them where that may help."""
    thorough = method == "exhaustive"
    slack = 1.0 if thorough else CLOSE
    options = _options(config, work, kept, flow, thorough)
    if method == "fixed":
        return _least(config, work, kept, options.tilings or _chunked(config, work, kept, flow, thorough, np.inf).tilings, np.inf)
    best = _bounded(config, work, kept, options, slack, None)
    limit = np.inf if best is None else best.cost.time.total / slack
    if best is None or ((thorough or _narrow(config, work, flow)) and limit > _fewest(config, work, flow)):
        more = _chunked(config, work, kept, flow, thorough, limit)
        best = _bounded(config, work, kept, more, slack, best)
        options = _Options(options.tilings + more.tilings, np.append(options.bounds, more.bounds), np.append(options.moved, more.moved))
    if thorough or best is None:
        return best
    limit = best.cost.time.total * slack
    for i in np.argsort(options.moved, kind="stable"):
        if options.moved[i] >= best.cost.traffic.total:
            break
        if options.bounds[i] <= limit:
            cost = evaluate(config, work, kept, options.tilings[i])
            if cost.time.total <= limit:
                return Found(options.tilings[i], cost)
    return best


def _bounded(config: AcceleratorConfig, work: Work, kept: Kept, options: _Options, slack: float, best: Found | None) -> Found | None:
    """Take the cut with the fewest cycles, or one within `slack` of it, and not `best` only if it is better."""
    for i in np.argsort(options.bounds, kind="stable"):
        if best is not None and options.bounds[i] * slack >= best.cost.time.total:
            break
        cost = evaluate(config, work, kept, options.tilings[i])
        if best is None or cost.time.total < best.cost.time.total:
            best = Found(options.tilings[i], cost)
    return best


def _least(config: AcceleratorConfig, work: Work, kept: Kept, options: list[Tiling], slack: float) -> Found | None:
    """Evaluate all options and take, of those within `slack` of the fewest cycles, the one with the least traffic."""
    found = [Found(tiling, evaluate(config, work, kept, tiling)) for tiling in options]
    limit = slack * min((each.cost.time.total for each in found), default=0)
    return min((each for each in found if each.cost.time.total <= limit), key=lambda each: each.cost.traffic.total, default=None)


def _cost(config: AcceleratorConfig, work: Work, tiling: Tiling, loads: _Loads) -> Cost:
    if isinstance(work, VectorWork):
        ends = _shares(work, tiling).cumsum()
        cycles = np.diff(work.cycles * ends // ends[-1], prepend=0)
        lag, repeats, counts = np.zeros_like(cycles), 1, None
    else:
        assert tiling.dataflow is not None
        front = _fronts(config, work.gemm, tiling.dataflow, tiling.blocks)
        cycles, lag, repeats, counts = front.cycles, front.lag + STAGES, work.repeats, front.counts
    stages = Stages(cycles, lag, sum(loads.reads, loads.weights), loads.stores, repeats)
    traffic = Traffic(
        tuple(repeats * int(read.sum()) for read in loads.reads), repeats * int(loads.weights.sum()), repeats * int(loads.stores.sum())
    )
    return Cost(memory.timeline(stages, config.dram_rate, config.dram_latency), traffic, counts)


@functools.lru_cache(maxsize=1 << 14)
def _fronts(config: AcceleratorConfig, gemm: Gemm, flow: Dataflow, blocks: Blocks, repeats: int = 1) -> timing.Fronts:
    return fronts(config, gemm, _cut(config, gemm), flow, blocks, repeats)


@functools.lru_cache(maxsize=1 << 12)
def _cut(config: AcceleratorConfig, gemm: Gemm) -> Bundles:
    return reduction(config, gemm)


def _fits(config: AcceleratorConfig, tiles: tuple[int, int, int]) -> bool:
    return all(tile <= HALF * limit for tile, limit in zip(tiles, (config.act_kb, config.weight_kb, config.out_kb), strict=True))


def _loads(config: AcceleratorConfig, work: Work, kept: Kept, tiling: Tiling) -> _Loads:
    """Work out what every stage moves."""
    if isinstance(work, VectorWork):
        return _vector_loads(work, kept, tiling)
    assert tiling.dataflow is not None
    gemm, cut = work.gemm, _cut(config, work.gemm)
    rows, columns = (_lengths(total, size) for total, size in ((gemm.m, tiling.m), (gemm.n, tiling.n)))
    ends = chunks(cut, tiling.dataflow, tiling.blocks)
    first = work.region.blocks(tiling.m)[:, None]
    second = _columns(config, work, cut, columns, ends if ends.size > 1 else None)
    if ends.size > 1:
        held = rows[:, None] * held_elements(cut, ends) * word(config.act_bits)
        first = np.minimum(first, held)
    made = np.outer(rows, columns) * word(config.act_bits)
    tiles = 0 if kept.inputs[0] else int(first.max()), 0 if work.dynamic and kept.inputs[1] else int(second.max()), int(made.max())

    # Axes are (rows, columns, chunks), the outer one in front.
    grid = np.zeros((rows.size, columns.size, ends.size), np.int64)
    acts, weights, stores = grid + first[:, None], grid + second, grid.copy()
    stores[:, :, -1] = made
    if ends.size == 1:
        if tiling.outer == "m" or rows.size == 1:
            acts[:, 1:] = 0
        if tiling.outer == "n" or columns.size == 1:
            weights[1:] = 0
    if kept.inputs[0]:
        acts[:] = 0
    if work.dynamic and kept.inputs[1]:
        weights[:] = 0
    if kept.output:
        stores[:] = 0

    def ordered(each: NDArray[np.int64]) -> NDArray[np.int64]:
        return (each.transpose(1, 0, 2) if tiling.outer == "n" else each).ravel()

    read, other, stored = ordered(acts), ordered(weights), ordered(stores)
    return _Loads((read, other), np.zeros_like(other), stored, tiles) if work.dynamic else _Loads((read,), other, stored, tiles)


def _shares(work: VectorWork, tiling: Tiling) -> NDArray[np.int64]:
    """Rows times channels of every stage; channels innermost, then passes, then rows."""
    widths = _lengths(work.channels, tiling.n or work.channels)
    return np.outer(_lengths(work.rows, tiling.m), np.tile(widths, work.passes if widths.size > 1 else 1)).ravel()


def _vector_loads(work: VectorWork, kept: Kept, tiling: Tiling) -> _Loads:
    """Work out what every stage of vector work moves; results are stored in the last pass."""
    rows, widths = _lengths(work.rows, tiling.m), _lengths(work.channels, tiling.n or work.channels)
    ends = np.append(0, widths.cumsum())
    passes = work.passes if widths.size > 1 else 1

    def cut(each: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.diff(np.outer(each, ends) // work.channels, axis=1)

    none = np.zeros((rows.size, widths.size), np.int64)
    reads = [none if on_chip else cut(region.blocks(tiling.m)) for region, on_chip in zip(work.regions, kept.inputs, strict=True)]
    made = cut(rows * work.result)
    tile = int(sum(reads, none).max())
    stored = np.tile(none, passes)
    if not kept.output:
        stored[:, -widths.size :] = made
    return _Loads(
        tuple(np.tile(each, passes).ravel() for each in reads), np.zeros(stored.size, np.int64), stored.ravel(), (tile, 0, int(made.max()))
    )


def _lengths(total: int, size: int) -> NDArray[np.int64]:
    return np.minimum(size, total - np.arange(0, total, min(size, total)))


def _columns(
    config: AcceleratorConfig, work: ProductWork, cut: Bundles, columns: NDArray[np.int64], ends: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Bytes of the second operand, shape (blocks of columns, chunks); parameters of a channel come with its first chunk."""
    ends = np.array([cut.depth]) if ends is None else ends
    if work.dynamic:
        held = np.minimum(held_elements(cut, ends), work.gemm.k // work.presented)
        return np.outer(columns, held) * word(config.act_bits)
    bits = np.diff(ends, prepend=0) * (config.weight_bits + work.gemm.pattern.index_bits)
    bits[0] += config.acc_bits + config.mult_bits + SHIFT_BITS
    return -(-np.outer(columns, bits) // 8)


def held_elements(cut: Bundles, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Elements of the reduction that each chunk reads: all of the bundles that it has a pair of."""
    whole, sizes = cut.pairs.cumsum(), np.append(0, cut.size.cumsum())
    first = np.searchsorted(whole, np.append(0, ends[:-1]), "right")
    last = np.searchsorted(whole, ends - 1, "right")
    return np.asarray(sizes[last + 1] - sizes[first])


def _pieces(total: int, unit: int, thorough: bool) -> NDArray[np.int64]:
    """Sizes of blocks: whole numbers of units, largest first; all of them, or as many as make about q blocks, q = 1, 2, 3, 4, 6, 8, ..."""
    units = -(-total // unit)
    if thorough:
        sizes = np.arange(units, 0, -1)
    else:
        powers = 1 << np.arange(units.bit_length())
        counts = np.unique(np.concatenate([powers, 3 * powers // 2]))
        sizes = np.unique(-(-units // counts))[::-1]
    return np.minimum(sizes * unit, total)


def _wide(config: AcceleratorConfig, flow: Dataflow) -> int:
    """Columns of a tile."""
    return config.cols * (config.add_stages if flow is Dataflow.OS else 1)


def _options(config: AcceleratorConfig, work: ProductWork, kept: Kept, flow: Dataflow, thorough: bool) -> _Options:
    """Blocks that take the whole reduction and fit."""
    gemm, cut, wide = work.gemm, _cut(config, work.gemm), _wide(config, flow)
    rows, columns = _pieces(gemm.m, config.rows, thorough), _pieces(gemm.n, wide, thorough)
    acts = [work.region.blocks(int(size)) for size in rows]
    weights = [_columns(config, work, cut, _lengths(gemm.n, int(size)), None)[:, 0] for size in columns]
    free = kept.inputs[0], work.dynamic and kept.inputs[1]
    act, weight = (
        np.array([[0 if on_chip else measure(each) for each in sizes] for measure in (np.sum, np.max, lambda x: x[0], len)], np.float64)
        for sizes, on_chip in zip((acts, weights), free, strict=True)
    )
    blocks = np.array([[len(each) for each in acts]]).T, np.array([[len(each) for each in weights]])
    made = np.outer(rows, columns) * word(config.act_bits)
    fits = (act[1] <= HALF * config.act_kb)[:, None] & (weight[1] <= HALF * config.weight_kb) & (made <= HALF * config.out_kb)
    busy = _least_cycles(config, work, flow, rows, columns)
    written = 0 if kept.output else work.repeats * gemm.m * gemm.n * word(config.act_bits)
    last = np.outer((gemm.m - 1) % rows + 1, (gemm.n - 1) % columns + 1) * (0 if kept.output else word(config.act_bits))
    found: list[Tiling] = []
    bounds: list[NDArray[np.float64]] = []
    traffic: list[NDArray[np.float64]] = []
    for outer in ("n", "m"):
        again = np.where(blocks[0] > 1, blocks[1], 1) if outer == "n" else np.ones_like(made)
        over = np.where(blocks[1] > 1, blocks[0], 1) if outer == "m" else np.ones_like(made)
        moved = work.repeats * (act[0][:, None] * again + weight[0] * over) + written
        ends = (act[2][:, None] + weight[2] + last) / config.dram_rate
        bound = np.maximum(ends + busy, moved / config.dram_rate)
        use = fits if outer == "n" else fits & (blocks[0] > 1) & (blocks[1] > 1)
        at = np.argwhere(use)
        found += [
            Tiling(m=m, n=n, k=cut.depth, outer=outer, dataflow=flow)
            for m, n in zip(rows[at[:, 0]].tolist(), columns[at[:, 1]].tolist(), strict=True)
        ]
        bounds.append(bound[use])
        traffic.append(moved[use])
    return _Options(found, np.concatenate(bounds), np.concatenate(traffic))


def _least_cycles(
    config: AcceleratorConfig, work: ProductWork, flow: Dataflow, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Bound the cycles of the array from below, shape (sizes of rows, sizes of columns).

    Output stationary a tile takes its pairs, and its rows their slots; weight stationary a pass its steps, and its pairs their way in.
    """
    gemm, cut, wide, hop = work.gemm, _cut(config, work.gemm), _wide(config, flow), config.add_stages
    across = gemm.n // columns * -(-columns // wide) + -(-(gemm.n % columns) // wide)
    if flow is Dataflow.OS:
        beats = -(-cut.size // config.port)
        each = hop * int(cut.pairs[-1]) + int(np.maximum(hop * cut.pairs[:-1], beats[1:]).sum())
        down = gemm.m // rows * -(-rows // config.rows) + -(-(gemm.m % rows) // config.rows)
        least = np.maximum(down * each, hop * gemm.m)
    else:
        least = np.maximum(gemm.m * -(-cut.depth // config.rows), cut.depth * -(-gemm.m // rows))
    return work.repeats * (np.outer(least, across) + timing.depth(config) - 1 + STAGES)


def _narrow(config: AcceleratorConfig, work: ProductWork, flow: Dataflow) -> bool:
    """Whether blocks that may take the reduction in chunks fetch no operand more often than the others."""
    most = config.rows if flow is Dataflow.OS else config.acc_rows
    return work.gemm.m <= most or work.gemm.n <= _wide(config, flow)


def _fewest(config: AcceleratorConfig, work: ProductWork, flow: Dataflow, m: int = 0, n: int = 0) -> int:
    """Bound the cycles of every cut into blocks of m x n, or of any cut, from below."""
    return int(_least_cycles(config, work, flow, np.array([m or work.gemm.m]), np.array([n or work.gemm.n]))[0, 0])


def _chunked(config: AcceleratorConfig, work: ProductWork, kept: Kept, flow: Dataflow, thorough: bool, limit: float) -> _Options:
    """Blocks that take the reduction in chunks, fit and may take less than `limit` cycles: unless thorough, of as many rows as fit."""
    gemm, cut, wide = work.gemm, _cut(config, work.gemm), _wide(config, flow)
    depth = cut.depth
    unit = int(cut.pairs[0]) if flow is Dataflow.OS else config.rows
    sizes = [size for size in _pieces(depth, unit, thorough).tolist() if size < depth]
    found: list[Tiling] = []
    bounds, moved = [], []
    for m in _pieces(min(gemm.m, config.rows if flow is Dataflow.OS else config.acc_rows), 1, thorough).tolist():
        most = 1 if flow is Dataflow.OS else min(config.acc_rows // m, -(-gemm.n // wide))
        widths = [min(n * wide, gemm.n) for n in (range(1, most + 1) if thorough else sorted({1, most}))]
        for n in widths:
            fewest = _fewest(config, work, flow, m, n)
            if fewest >= limit:
                continue
            for k, outer in itertools.product(sizes, ("n", "m") if m < gemm.m and n < gemm.n else ("n",)):
                tiling = Tiling(m=m, n=n, k=k, outer=outer, dataflow=flow)
                loads = _loads(config, work, kept, tiling)
                if not _fits(config, loads.tiles):
                    continue
                streams = (*loads.reads, loads.weights)
                total = work.repeats * sum(int(each.sum()) for each in (*streams, loads.stores))
                ends = sum(int(each[0]) for each in streams) + int(loads.stores[-1])
                found.append(tiling)
                moved.append(float(total))
                bounds.append(max(total / config.dram_rate, ends / config.dram_rate + fewest))
        if found and not thorough:
            break
    return _Options(found, np.array(bounds), np.array(moved))


class Accesses(NamedTuple):
    """What array, accumulator and vector unit take from and give to memories on chip, each access at its full width [bytes].

    `read` from scratchpads by the array or the vector unit; `written` there as results; `sums` of the accumulator, read and written.
    """

    read: int
    written: int
    sums: int


def accesses(config: AcceleratorConfig, work: Work, tiling: Tiling) -> Accesses:
    """Count accesses on chip.

    Output stationary every tile takes the activations of its rows and the pairs of its columns once. Weight stationary a pass takes the
    pairs of its tile once, and for every row the bundles that it has a pair of; every partial sum but the last is stored and fetched.
    """
    if isinstance(work, VectorWork):
        return Accesses(sum(region.element * region.window.taps * work.rows for region in work.regions), work.rows * work.result, 0)
    assert tiling.dataflow is not None
    gemm, cut, hop = work.gemm, _cut(config, work.gemm), _wide(config, tiling.dataflow)
    rows, columns = (_lengths(total, size) for total, size in ((gemm.m, tiling.m), (gemm.n, tiling.n)))
    across = int((-(-columns // hop)).sum())
    firsts = np.arange(0, cut.depth, config.rows)
    if tiling.dataflow is Dataflow.OS:
        held, runs, again = int(cut.size.sum()), int((-(-rows // config.rows)).sum()), 0
    else:
        held = int(held_elements(cut, np.append(firsts[1:], cut.depth)).sum())
        runs = rows.size if firsts.size == 1 or tiling.k < cut.depth else int((-(-rows // config.acc_rows)).sum())
        again = firsts.size - 1
    bits = gemm.n * cut.depth * runs * (config.weight_bits + gemm.pattern.index_bits)
    results = gemm.m * gemm.n
    return Accesses(
        work.repeats * (gemm.m * held * across * word(config.act_bits) + -(-bits // 8)),
        work.repeats * results * word(config.act_bits),
        work.repeats * 2 * results * again * word(config.acc_bits),
    )
