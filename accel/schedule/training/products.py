"""Cuts of the products of a training step, as pieces of the array's queue."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.isa import Dataflow
from accel.schedule import search as cuts
from accel.schedule.gemm import chunks, reduction
from accel.schedule.search import SEARCHES, Found, Kept, Tiles, Tiling, evaluate, held_elements, search, word
from accel.schedule.training.queues import Piece
from accel.schedule.training.works import Part

SHARE = 4  # our choice: cuts are found for this part of the bandwidth of DRAM, which the engines share
SLOWEST: float = next(each for each in dataclasses.fields(AcceleratorConfig) if each.name == "dram_gbs").metadata["minimum"]


class Grid(NamedTuple):
    """The tiles of a cut, as the array takes them.

    Parameters
    ----------
    read : int64, shape (tiles,)
        The last image that each reads.
    made : int64, shape (images,)
        Tiles after which each image of the result is there; where images are the reduction, all of them.
    rows, columns : int64, shape (tiles,)
        Size of the result that each finishes; 0 rows where sums are not done yet.
    """

    read: NDArray[np.int64]
    made: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


@functools.lru_cache(maxsize=1 << 12)
def grid(config: AcceleratorConfig, part: Part, tiling: Tiling, images: int) -> Grid:
    """Say which images the tiles of a cut read and make."""
    assert tiling.dataflow is not None
    gemm, repeats = part.work.gemm, part.work.repeats
    ends = chunks(reduction(config, gemm), tiling.dataflow, tiling.blocks)
    rows, columns = (np.append(np.arange(size, total, size), total) for size, total in ((tiling.m, gemm.m), (tiling.n, gemm.n)))
    shape = (rows.size, columns.size, ends.size)
    index = np.arange(rows.size * columns.size * ends.size)
    order = index.reshape(shape) if tiling.outer == "m" else index.reshape(columns.size, rows.size, ends.size).transpose(1, 0, 2)
    count, image = index.size, np.arange(images)

    def ordered(each: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.empty(count, np.int64)
        found[order] = each
        return np.tile(found, repeats)

    if part.axis == "repeats":
        read = np.repeat(np.arange(repeats) // part.each, count)
        made = (image + 1) * part.each * count
    elif part.axis == "k":
        read = ordered(np.broadcast_to((ends - 1) // part.each, shape))
        made = np.full(images, repeats * count)
    else:
        axis, edges = (0, rows) if part.axis == "m" else (1, columns)
        last = (edges - 1) // part.each
        read = ordered(np.broadcast_to(last[:, None, None] if axis == 0 else last[None, :, None], shape))
        block = np.searchsorted(edges, (image + 1) * part.each - 1, "right")
        done = order[block, -1, -1] if axis == 0 else order[-1, block, -1]
        made = np.maximum.accumulate(done) + 1 + (repeats - 1) * count
    heights, widths = (np.diff(each, prepend=0) for each in (rows, columns))
    final = np.arange(ends.size) == ends.size - 1
    height = np.broadcast_to(heights[:, None, None] * final, shape)
    found = Grid(read, made, ordered(height), ordered(np.broadcast_to(widths[None, :, None], shape)))
    for each in found:
        each.setflags(write=False)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """The dataflow optimisations.

    Parameters
    ----------
    interleave : bool
        Independent sums fill the stages of an adder. Off: an output stationary tile takes a pair every `add_stages` cycles.
    pregeneration : bool
        Codes are made when weights are updated. Off: dense weights are loaded, and pass through `sore` before the array may use them.
    scheduling : bool
        Dataflow, cuts and the order of queues are searched for. Off: output stationary, the cut with the least traffic, layer by layer.
    """

    interleave: bool = True
    pregeneration: bool = True
    scheduling: bool = True


ALL = Switches()


class Way(NamedTuple):
    """How the cuts of a step are chosen.

    Parameters
    ----------
    share : int
        Each product has the cut with the fewest cycles by itself with this part of the bandwidth of DRAM.
    fixed : bool
        Instead each has the cut, and the step the order, that it has without scheduling.
    narrow : bool
        Instead each has the cut that it has without interleaving, where that obeys the rules of the filled adder too.
    """

    share: int = SHARE
    fixed: bool = False
    narrow: bool = False


FIXED = Way(1, True)
WAYS = (Way(), Way(1), FIXED, Way(narrow=True), Way(1, narrow=True))


def ways(config: AcceleratorConfig, switches: Switches) -> tuple[Way, ...]:
    """List the ways that may differ: an adder of one stage is never left unfilled."""
    return tuple(way for way in WAYS if not way.narrow or (switches.interleave and config.add_stages > 1))


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Equal products, cut.

    Parameters
    ----------
    part : Part
    found : Found
        The cut, and the best one of the other dataflow if one was looked for; what they cost by themselves, with the part of DRAM's
        bandwidth that they are chosen for.
    fewest : int
        Cycles of the array in that of the two dataflows that takes it for fewer.
    tiles : Tiles
        Of which a pair takes one cycle of an output-stationary tile.
    where : Grid
    hop : int
        Cycles that it does take: 1, or the stages of an adder that nothing fills.
    """

    part: Part
    found: Found
    fewest: int
    tiles: Tiles
    where: Grid
    hop: int = 1

    @property
    def tiling(self) -> Tiling:
        """The cut."""
        return self.found.tiling


def kept(part: Part) -> Kept:
    """Say what stays on chip: nothing but weight gradients, which the update engine takes."""
    return Kept((False,) * (1 + part.work.dynamic), part.axis == "k")


class _Known(NamedTuple):
    """Of a dataflow: the configuration whose cycles its tiles have, times `hop`, and part of its bandwidth; and the best cut with that."""

    config: AcceleratorConfig
    hop: int
    found: Found

    @property
    def cycles(self) -> int:
        """What the best cut takes by itself."""
        return self.found.cost.time.total + (self.hop - 1) * self.found.cost.time.compute


def _known(config: AcceleratorConfig, part: Part, method: str, switches: Switches, share: int) -> list[_Known]:
    """Find the best cut of each dataflow that has one."""
    found = []
    for flow in Dataflow if switches.scheduling else (Dataflow.OS,):
        # An adder that nothing fills takes the sums of one result one behind the other, as one of a single stage would in as many cycles.
        hop = config.add_stages if flow is Dataflow.OS and not switches.interleave else 1
        own = dataclasses.replace(config, add_stages=1) if hop > 1 else config
        shared = dataclasses.replace(own, dram_gbs=max(own.dram_gbs / share, SLOWEST)) if share > 1 else own
        best = search(shared, part.work, kept(part), method if switches.scheduling else "fixed", flow)
        if best is not None:
            found.append(_Known(shared, hop, best))
    return found


def options(config: AcceleratorConfig, part: Part, switches: Switches) -> tuple[Tiling, ...]:
    """List cuts worth trying in a step: the best of each dataflow, by each method, with all and a part of the bandwidth; the fixed one."""
    told = [_known(config, part, method, switches, share) for method in SEARCHES for share in (1, SHARE)]
    told.append(_known(config, part, "fixed", dataclasses.replace(switches, scheduling=False), 1))
    return tuple(dict.fromkeys(each.found.tiling for known in told for each in known))


def _legal(config: AcceleratorConfig, part: Part, tiling: Tiling) -> Tiling | None:
    """Return a cut if it obeys the rules of this array."""
    try:
        evaluate(config, part.work, kept(part), tiling)
    except RangeError:
        return None
    return tiling


def cut(
    config: AcceleratorConfig,
    part: Part,
    images: int,
    method: str,
    switches: Switches = ALL,
    way: Way = WAYS[0],
    tiling: Tiling | None = None,
) -> Cut | None:
    """Search for a cut of equal products; None if none fits the scratchpads.

    Parameters
    ----------
    config : AcceleratorConfig
    part : Part
    images : int
        Of the batch.
    method : str
        See :func:`accel.schedule.search.search`.
    switches : Switches
    way : Way
    tiling : Tiling, optional
        Take this one, of :func:`options`.
    """
    known = sorted(_known(config, part, method, switches, way.share), key=lambda each: each.cycles)
    if not known:
        return None
    if way.fixed and tiling is None:
        plain = _known(config, part, method, dataclasses.replace(switches, scheduling=False), way.share)
        tiling = plain[0].found.tiling if plain else None
    elif way.narrow and tiling is None:
        plain = _known(config, part, method, dataclasses.replace(switches, interleave=False), way.share)
        tiling = _legal(config, part, min(plain, key=lambda each: each.cycles).found.tiling) if plain else None
    best = next((each for each in known if tiling is not None and each.found.tiling.dataflow is tiling.dataflow), known[0])
    taken, others = tiling or best.found.tiling, [each for each in known if each is not best]
    return Cut(
        part,
        Found(
            taken,
            evaluate(best.config, part.work, kept(part), taken),
            (others[0].found.tiling, others[0].found.cost) if others else None,
        ),
        min(each.hop * each.found.cost.time.compute for each in known),
        cuts.tiles(best.config, part.work, kept(part), taken),
        grid(best.config, part, taken, images),
        best.hop,
    )


def piece(config: AcceleratorConfig, cut: Cut, beside: int, masks: int) -> Piece:
    """Make the run of tiles of a cut.

    Parameters
    ----------
    config : AcceleratorConfig
    cut : Cut
    beside : int
        Stored with the results, in all [bytes].
    masks : int
        Bits loaded with each element of the gradient.
    """
    part, tiles = cut.part, cut.tiles
    loads, stores, beside = tiles.loads, tiles.stores, beside + part.zeros
    if beside:
        ends = stores.cumsum()
        stores = stores + np.diff(beside * ends // ends[-1], prepend=0)
    if masks and part.gradient is not None:
        share = tiles.second if part.gradient else loads - tiles.second
        loads = loads + -(-share * masks // (8 * word(config.act_bits)))
    return Piece(tiles.cycles * cut.hop, tiles.lag * cut.hop, loads, stores, cut.where.read, cut.where.made)


class Fetched(NamedTuple):
    """Weights as the tiles of a cut load them.

    Parameters
    ----------
    weights : int64, shape (tiles,)
        Weights of the dense layer that those loaded are of; 0 where a tile has the weights of the tile before.
    codes : int64, shape (tiles,)
        Their values and indices as they are loaded [bytes].
    """

    weights: NDArray[np.int64]
    codes: NDArray[np.int64]


def fetched(config: AcceleratorConfig, cut: Cut) -> Fetched:
    """Say which weights the tiles of a cut load."""
    assert cut.tiling.dataflow is not None
    gemm = cut.part.work.gemm
    held = reduction(config, gemm)
    ends = chunks(held, cut.tiling.dataflow, cut.tiling.blocks)
    elements, pairs = held_elements(held, ends), np.diff(ends, prepend=0)
    # Chunks are innermost.
    turns = cut.where.columns.size // ends.size
    loaded = np.where(cut.tiles.second > 0, cut.where.columns, 0)
    bits = np.tile(pairs, turns) * (config.weight_bits + gemm.pattern.index_bits)
    return Fetched(loaded * np.tile(elements, turns), -(-loaded * bits // 8))
