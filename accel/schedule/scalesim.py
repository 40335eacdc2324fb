"""SCALE-Sim 3.0.0's account of a layer, in closed form: what its users compare with. Never the truth about our own hardware.

Its array of R x C elements takes a layer of m output positions, n filters and k products per output in folds, one after the other:

========  =====================  ================
dataflow  folds                  cycles of a fold
========  =====================  ================
``os``    ceil(m/R) * ceil(n/C)  R + C + k - 2
``ws``    ceil(k/R) * ceil(n/C)  2R + C + m - 2
``is``    ceil(k/R) * ceil(m/C)  2R + C + n - 2
========  =====================  ================

Its "Total Cycles" is the index of the last cycle: one less than the folds take. N:M leaves min(N, g) products of each group of g <= M;
groups run along all of k, across taps. The ``os`` fold is short by the R cycles in which results leave, as its authors agree.

Memory never makes the array wait (SCALE-Sim's mode CALC): a scratchpad of what the array reads is filled before the first cycle, half of
it if that does not hold everything; one of what it writes sends half of itself to memory, `cols` words per cycle, whenever more than
half of it is full, and the rest at the end.

References
----------
.. [1] R. Raj et al., "SCALE-Sim v3: A modular cycle-accurate systolic accelerator simulator for end-to-end system analysis", ISPASS 2025.
.. [2] https://github.com/scalesim-project/SCALE-Sim, release 3.0.0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.graph.topology import DENSE, Architecture, Convolution, Gemm, Topology
from accel.sparsity import Pattern

COLUMNS = (
    "LayerID", "Total Cycles (incl. prefetch)", "Total Cycles", "Stall Cycles", "Overall Util %", "Mapping Efficiency %", "Compute Util %",
)  # fmt: skip
DRAINS = 1 << 18  # our choice: of a layer that empties its scratchpad more often (half a second) the cycles with prefetch are not told
_KB = 1024  # words of a byte
_SETS = 100  # parts of a scratchpad that is read; half of them are filled before the first cycle
_READ_WORDS = 10  # per cycle of that filling


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """What SCALE-Sim reports of a layer.

    Parameters
    ----------
    name : str
    m, n, k : int
        Output positions, filters, and products per output before pruning.
    pattern : Pattern
        N:M that counts.
    folds : int
        Times that the array is filled.
    total_cycles : int
        Index of the last cycle.
    prefetch_cycles : int or None
        From the first fetch before the first cycle to the last write after the last one; None where the writes are too many to follow.
    overall_utilisation, mapping_efficiency, compute_utilisation : float
        Percent. The first counts products before pruning, so that it may be beyond 100.
    """

    name: str
    m: int
    n: int
    k: int
    pattern: Pattern
    folds: int
    total_cycles: int
    prefetch_cycles: int | None
    overall_utilisation: float
    mapping_efficiency: float
    compute_utilisation: float


def simulate(topology: Topology, architecture: Architecture) -> tuple[LayerReport, ...]:
    """Account for every layer as SCALE-Sim does in its mode CALC.

    Parameters
    ----------
    topology : Topology
    architecture : Architecture

    Returns
    -------
    tuple of LayerReport

    Raises
    ------
    ConfigError
        If the architecture asks for what is not modelled.
    """
    if architecture.bandwidth:
        raise ConfigError("InterfaceBandwidth must be CALC, not USER: how long the array waits for a given bandwidth is not modelled")
    if architecture.sparsity and architecture.row_wise:
        raise ConfigError("OptimizedMapping must be false, not true: patterns drawn at random for each filter are not modelled")
    return tuple(
        dataclasses.replace(_account(layer.shape, layer.pattern if architecture.sparsity else DENSE, architecture), name=layer.name)
        for layer in topology.layers
    )


def compute_report(layers: Sequence[LayerReport]) -> str:
    """Text of COMPUTE_REPORT.csv as SCALE-Sim writes it, with its spaces and trailing commas."""
    rows: list[tuple[object, ...]] = [COLUMNS]
    for i, x in enumerate(layers):
        prefetch = "" if x.prefetch_cycles is None else x.prefetch_cycles
        rows.append((i, prefetch, x.total_cycles, 0, x.overall_utilisation, x.mapping_efficiency, x.compute_utilisation))
    return "".join(", ".join(map(str, row)) + ",\n" for row in rows)


@lru_cache(maxsize=4096)
def _account(shape: Gemm | Convolution, pattern: Pattern, architecture: Architecture) -> LayerReport:
    """Account for a layer without a name; networks repeat their shapes."""
    rows, cols, dataflow = architecture.rows, architecture.cols, architecture.dataflow
    m, n, k = shape.m, shape.n, kept(shape.k, pattern)
    # Along the rows and the columns of the array, and through it.
    held, across, steps = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    row_folds, col_folds = -(-held // rows), -(-across // cols)
    load = 0 if dataflow == "os" else rows  # cycles in which the held operand enters
    fold = load + rows + cols + steps - 2
    folds = row_folds * col_folds
    total = folds * fold - 1
    mapped = Fraction(held * across, folds * rows * cols)
    # The last columns' skew counts twice here in SCALE-Sim, unless outputs are held.
    computed = mapped * Fraction(steps, fold if dataflow == "os" else fold + cols - 1)

    if dataflow == "os":
        writes = _Writes(rows, held, cols, across, rows + steps - 1, fold)
    else:
        writes = _Writes(steps, steps * row_folds, cols, across, 2 * rows + steps - 1, fold)
    late = max(rows - held, 0)  # the held operand enters from its last row on
    ifmap_first, filter_first = {"os": (0, 0), "ws": (rows, late), "is": (late, rows)}[dataflow]
    start = min(
        _first_fetch(_distinct_inputs(shape, pattern), architecture.ifmap_kb, ifmap_first),
        _first_fetch(k * n, architecture.filter_kb, filter_first),
    )
    stop = _last_write(writes, architecture.ofmap_kb, total)
    return LayerReport(
        name="",
        m=m,
        n=n,
        k=shape.k,
        pattern=pattern,
        folds=folds,
        total_cycles=total,
        prefetch_cycles=None if stop is None else stop - start,
        overall_utilisation=m * n * shape.k * 100 / (max(total, 1) * rows * cols),  # SCALE-Sim itself fails where the total is 0
        mapping_efficiency=float(mapped) * 100,
        compute_utilisation=float(computed) * 100,
    )


def kept(k: int, pattern: Pattern) -> int:
    """Products that a pattern leaves of k."""
    return k // pattern.m * pattern.n + min(pattern.n, k % pattern.m)


def _first_fetch(words: int, size_kb: int, first: int) -> int:
    """Cycle in which the first of `words` distinct words is fetched, relative to the array's first; `first` needs one of them."""
    part = _KB * size_kb // _SETS
    half = _SETS // 2
    if words < half * part:
        return -words // part * part // _READ_WORDS  # minus what is rounded up twice: to parts, to cycles
    return first + -half * part // _READ_WORDS


def _distinct_inputs(shape: Gemm | Convolution, pattern: Pattern) -> int:
    """Distinct elements of the input that any window reads, elements against pruned weights left out."""
    if isinstance(shape, Gemm):
        return shape.m * kept(shape.k, pattern)
    sides = zip((shape.height, shape.width), (shape.filter_height, shape.filter_width), shape.outputs, strict=True)
    if pattern.dense:
        area = 1
        for side, window, windows in sides:
            last = (windows - 1) * shape.stride  # where the last window begins: perhaps beyond the input
            area *= (windows - 1) * min(shape.stride, window) + min(window, max(side - last, 0))
        return area * shape.channels
    # Whether tap (y, x) of channel c is kept depends on ((y * filter_width + x) * channels + c) modulo M alone.
    (down, down_counts), (along, along_counts) = (_taps(*side, shape.stride, pattern.m) for side in sides)
    residues = np.arange(pattern.m)
    y, x, c = np.ix_(residues, residues, residues)
    kept_taps = ((y * shape.filter_width + x) * shape.channels + c) % pattern.m < pattern.n
    read = np.einsum("uy,vx,yxc->uvc", down, along, kept_taps.astype(np.int64), optimize=True) > 0
    pixels = np.einsum("u,v,uvc->c", down_counts, along_counts, read.astype(np.int64), optimize=True)
    return sum(int(count) * len(range(residue, shape.channels, pattern.m)) for residue, count in enumerate(pixels))


def _taps(side: int, window: int, outputs: int, stride: int, modulus: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kinds of position along one side, and how many there are of each: which taps, modulo `modulus`, windows lay on it."""
    position = np.arange(side)
    tap = np.maximum(position - (outputs - 1) * stride, position % stride)
    met = np.zeros(side, np.uint64)
    for _ in range(modulus):  # further taps repeat these, modulo `modulus`
        met |= np.where(tap <= np.minimum(position, window - 1), np.uint64(1) << (tap % modulus).astype(np.uint64), np.uint64(0))
        tap += stride
    kinds, counts = np.unique(met, return_counts=True)
    return (kinds[:, None] >> np.arange(modulus, dtype=np.uint64) & np.uint64(1)).astype(np.int64), counts


class _Writes(NamedTuple):
    """When the array writes which outputs: in each fold a skewed block of `chunk` rows and `width` columns, or of what is left of them.

    Folds go down the `written` rows first, then along the `across` columns. A block of a rows starts `end` - a cycles into its fold.
    """

    chunk: int
    written: int
    width: int
    across: int
    end: int
    fold: int

    @property
    def row_folds(self) -> int:
        """Folds of one block of columns."""
        return -(-self.written // self.chunk)

    def cycle(self, index: int) -> int:
        """Cycle in which output `index`, from 0, is written."""
        block, rest = divmod(index, self.written * self.width)
        columns = min(self.width, self.across - block * self.width)
        part, rest = divmod(rest, self.chunk * columns)
        rows = min(self.chunk, self.written - part * self.chunk)
        return (block * self.row_folds + part) * self.fold + self.end - rows + _diagonal(rest, rows, columns)


def _diagonal(index: int, rows: int, cols: int) -> int:
    """Anti-diagonal, from 0, of element `index` of a matrix that is read along its anti-diagonals."""
    short = min(rows, cols)
    last = rows * cols - 1
    if index < short * (short + 1) // 2:
        return (math.isqrt(8 * index + 1) - 1) // 2
    if last - index < short * (short - 1) // 2:
        return rows + cols - 2 - (math.isqrt(8 * (last - index) + 1) - 1) // 2
    return short + (index - short * (short + 1) // 2) // short


def _last_write(writes: _Writes, size_kb: int, last: int) -> int | None:
    """Cycle in which the last output reaches memory.

    Outputs fill lines of `writes.width` words; a line that a drain finds unfinished goes as it is. SCALE-Sim takes all lines of a drain for
    full but for the last one, so that its count of occupied words may fall short of the truth, and so it does here. A drain of d lines ends
    before the array, with at most a line of outputs per cycle, has written what starts the next: neither ever waits for the other.
    """
    half = _KB * size_kb // 2
    width, outputs = writes.width, writes.written * writes.across
    drain = -(-half // width)  # lines
    if outputs > DRAINS * drain * width:
        return None
    occupied = seen = lines = drained = stop = 0
    unfinished: dict[int, int] = {}  # words that a line lacks
    while True:
        index = seen + half + 1 - occupied
        full, begun = divmod(min(index, outputs) - seen, width)
        lines += full
        if begun:
            unfinished[lines] = width - begun
            lines += 1
        if index > outputs:
            return max(stop, last + lines - drained - 1)
        until = min(drained + drain, lines)
        occupied += index - seen - (until - drained) * width + unfinished.get(until - 1, 0)
        stop = writes.cycle(index - 1) + until - drained - 1
        seen, drained = index, until
