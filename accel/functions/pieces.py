"""Approximations of one smooth, monotone side of a function: tables, alone and with slopes.

Each maker takes a side and small parameters, fits the numbers, runs them over samples with every rounding, and returns a piece of a
datapath, or None where a sample misses the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import product
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from accel.functions.datapath import Builder

Reals = NDArray[np.float64]
Numbers = NDArray[np.int64]
SAMPLES = 17  # operands of an interval on which a fit looks: a chord's distance from a smooth curve is seen well enough
LARGEST = 11  # address bits of a table, at most: our choice
LONGER = 3  # address bits beyond the fewest with which slopes can keep the error, at most: our choice

Emit = Callable[[Builder, int], int]
"""Writes a piece behind the node of its operand and returns the node of its value."""


@dataclass(frozen=True, eq=False)
class Side:
    """What is approximated.

    Parameters
    ----------
    target : callable
        From real operands to what their integers should be, monotone.
    bits : int
        Width of the operand [bits].
    limit : int
        Largest integer; the least is 0.
    falling : bool
        Whether the target falls.
    error : float
        Largest distance of an integer from the target.
    """

    target: Callable[[Reals], Reals]
    bits: int
    limit: int
    falling: bool
    error: float

    @property
    def sign(self) -> int:
        """-1 if the target falls, otherwise 1."""
        return -1 if self.falling else 1

    @property
    def width(self) -> int:
        """Width of the integer [bits]."""
        return max(1, self.limit.bit_length())

    @cached_property
    def bends(self) -> list[float]:
        """By address bits: how far the target is, at most, from the best line through an interval."""
        return [self._bend(address, 1) for address in range(min(self.bits, LARGEST) + 1)]

    @cached_property
    def bows(self) -> list[float]:
        """By address bits: how far the target is, at most, from the best parabola through an interval."""
        return [self._bend(address, 2) for address in range(min(self.bits, LARGEST) + 1)]

    def _bend(self, address: int, degree: int) -> float:
        """Look at nine points of each interval, and at the polynomial through some of them."""
        size = 1 << self.bits - address
        x = np.linspace(0, 1, 9)
        values = self.target(np.arange(1 << address)[:, None] * float(size) + x * (size - 1))
        nodes = np.linspace(0, 8, degree + 1).astype(np.int64)
        basis = np.vander(x, degree + 1) @ np.linalg.inv(np.vander(x[nodes], degree + 1))
        return float(np.ptp(values - values[:, nodes] @ basis.T, axis=1).max()) / 2

    @cached_property
    def steepest(self) -> float:
        """Largest change of the target from one operand to the next."""
        places = np.linspace(0, (1 << self.bits) - 1, 1025)
        return float(np.abs(np.diff(self.target(places))).max() * 1024) / (1 << self.bits)


def direct(side: Side, address: int) -> Emit | None:
    """Look the value up by the operand's top bits."""
    size = 1 << side.bits - address
    first = np.arange(1 << address, dtype=np.float64) * size
    ends = np.stack([side.target(first), side.target(first + (size - 1))])
    values = np.clip(np.rint(ends.mean(0)), 0, side.limit).astype(np.int64)
    if np.abs(values - ends).max() > side.error:
        return None
    return lambda build, m: build.border(build.table(build.bits(m, side.bits - address, address), _tuple(values)))


def interpolated(side: Side, address: int, offset: int, slope_bits: int, guard: int) -> Emit | None:
    """Add a base and a slope times d: d are the `offset` bits below the address, whose values each have a base and a slope.

    Parameters
    ----------
    side : Side
    address, offset : int
        Bits of the operand from the top: of the address, and of d.
    slope_bits : int
        Width of a slope [bits].
    guard : int
        Low bits of the sum that are dropped.

    Returns
    -------
    callable or None
    """
    below = side.bits - address
    d, ends = _sampled(side, address, offset)
    ends = ends * 2**guard
    rise = side.sign * (ends.mean(0)[:, -1] - ends.mean(0)[:, 0]) / d[-1]
    unit = ceil(log2(max(rise.max(), 2.0**-40) / ((1 << slope_bits) - 0.5)))  # of a slope [LSBs of the sum, as a power of two]
    slope = np.maximum(np.rint(rise / 2.0**unit), 0).astype(np.int64)
    base = _bases(side, ends, _scaled(slope[:, None] * d, unit), guard)
    if base is None:
        return None

    def emit(build: Builder, m: int) -> int:
        high, low = build.bits(m, below, address), build.bits(m, below - offset, offset)
        term = build.multiply(low, build.border(build.table(high, _tuple(slope))))
        term = build.scaled(term, unit) if unit >= 0 else build.bits(term, -unit, max(1, build.nodes[term].bits + unit))
        return _sum(side, build, build.border(build.table(high, _tuple(base))), term, guard)

    return emit


def bipartite(side: Side, address: int, middle: int, offset: int, guard: int) -> Emit | None:
    """Add two tables: one of the top `address` + `middle` bits, one of the top `address` bits and the `offset` bits below all of these."""
    top = address + middle
    below = side.bits - top
    d, ends = _sampled(side, top, offset, samples=1 << offset)
    ends = ends * 2**guard
    slope = side.sign * (ends.mean(0)[:, -1] - ends.mean(0)[:, 0]) / d[-1]
    terms = np.rint(slope.reshape(1 << address, -1).mean(1)[:, None] * d).astype(np.int64)
    base = _bases(side, ends, np.repeat(terms, 1 << middle, axis=0), guard)
    if base is None:
        return None

    def emit(build: Builder, m: int) -> int:
        low, high = build.bits(m, below - offset, offset), build.bits(m, side.bits - address, address)
        term = build.border(build.table(build.join((low, offset), (high, address)), _tuple(terms)))
        return _sum(side, build, build.border(build.table(build.bits(m, below, top), _tuple(base))), term, guard)

    return emit


def quadratic(side: Side, address: int, offset: int, turn: int, guard: int) -> Emit | None:
    """Add a base and a parabola by its chords: the top `turn` bits e of d say which chord, the others how far along it.

    The chord begins at slope * e + bent * e^2 and rises by slope + bent * (2 e + 1). Chords meet and none falls, so that the piece is
    monotone whatever is rounded. Slopes are so fine that their rounding moves a chord's end by half an LSB of the sum at most.
    """
    below, rest, fine = side.bits - address, offset - turn, 2 * turn + 1
    d, ends = _sampled(side, address, offset)
    ends = ends * 2**guard
    z = d / 2.0**rest
    fitted = np.linalg.lstsq(np.stack([np.ones(z.size), z, z * z], 1), side.sign * ends.mean(0).T, rcond=None)[0]
    slope, bent = (np.rint(coefficient * 2.0**fine).astype(np.int64) for coefficient in fitted[1:])
    slope = np.maximum(slope, np.maximum(-bent, -bent * ((2 << turn) - 1)))
    e, along = d >> rest, d & (1 << rest) - 1
    first, second = slope[:, None], bent[:, None]
    terms = ((first + second * e) * e << rest) + (first + second * (2 * e + 1)) * along >> fine + rest
    base = _bases(side, ends, terms, guard)
    if base is None:
        return None

    def emit(build: Builder, m: int) -> int:
        high, low = build.bits(m, below, address), build.bits(m, below - offset, offset)
        e, bends = build.bits(low, rest, turn), build.table(high, _tuple(bent))
        change = build.multiply(e, bends)
        steep = build.add(build.table(high, _tuple(slope)), change)
        term = build.multiply(e, steep)
        if rest:
            chord = build.multiply(build.bits(low, 0, rest), build.add(steep, build.add(change, bends)))
            term = build.add(build.scaled(term, rest), chord)
        return _sum(side, build, build.table(high, _tuple(base)), build.shift(term, build.constant(fine + rest)), guard)

    return emit


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece that may keep the error.

    Parameters
    ----------
    parameters : dict of str to int or str
        What distinguishes it.
    estimate : float
        Look-up tables, before any number is known.
    make : callable
        Fits the numbers; gives how to write the piece, or None where a sample misses the error.
    """

    parameters: dict[str, int | str]
    estimate: float
    make: Callable[[], Emit | None]


def pieces(side: Side, inputs: int) -> Iterator[Piece]:
    """Yield the pieces that may keep the error, of each kind with the smallest parameters and slightly larger ones.

    Parameters
    ----------
    side : Side
    inputs : int
        Of a look-up table.
    """
    room = side.error - 0.45  # beside the rounding to an integer

    def piece(maker: Callable[..., Emit | None], estimate: float, **parameters: int) -> Piece:
        return Piece({"piece": maker.__name__, **parameters}, estimate, partial(maker, side, **parameters))

    flattest = next((address for address, bend in enumerate(side.bends) if bend < room), LARGEST)
    for address in range(1, min(side.bits, LARGEST) + 1):
        below = side.bits - address
        if not below or side.steepest * 2**below / 2 <= side.error + 0.5:
            yield piece(direct, side.width * rom(address, inputs), address=address)
        left = room - side.bends[address]
        if room <= 0 or left <= 0 or not below or address > flattest + LONGER:
            continue
        drop = log2(max(1.0, 2 * left / side.steepest)) if side.steepest else side.bits  # bits whose loss alone uses all that is left
        least = max(1, ceil(below - drop))
        rise = max(1, ceil(log2(max(1.0, side.steepest * 2**below))))
        slopes = max(1, ceil(log2(max(1.0, side.steepest * 2**below / left))) - 1)
        for offset, guard in product(range(least, min(below, least + 1) + 1), range(3)):
            tall = side.width + guard
            for bits in (slopes, slopes + 1):
                cost = rom(address, inputs) * (tall + bits) + 1.3 * offset * bits + min(tall, rise + guard)
                yield piece(interpolated, cost, address=address, offset=offset, slope_bits=bits, guard=guard)
            for middle in range(1, address):
                if address - middle + offset <= min(LARGEST, address + 1):
                    cost = rom(address, inputs) * tall + (rise + guard) * (1 + rom(address - middle + offset, inputs))
                    yield piece(bipartite, cost, address=address - middle, middle=middle, offset=offset, guard=guard)

    flattest = next((address for address, bow in enumerate(side.bows) if bow < room), LARGEST)
    for address in range(max(1, flattest), min(side.bits - 3, LARGEST, flattest + LONGER) + 1 if room > 0 else 0):
        left, below = room - side.bows[address], side.bits - address
        if left <= 0 or side.bends[address] < room:
            continue  # lines do
        drop = log2(max(1.0, 2 * left / side.steepest))
        offset = max(2, ceil(below - drop))
        rise = max(1, ceil(log2(max(1.0, side.steepest * 2**below))))
        turns = min(offset, max(1, ceil(log2(2 * side.bends[address] / left) / 2)))
        for turn, guard in product(range(turns, min(offset, turns + 1) + 1), range(3)):
            tall = rise + 2 * turn + guard
            cost = rom(address, inputs) * (side.width + 2 * tall) + 1.3 * (2 * turn * tall + (offset - turn) * tall)
            yield piece(quadratic, cost, address=address, offset=offset, turn=turn, guard=guard)


def rom(address: int, inputs: int) -> float:
    """Estimate the look-up tables of one output bit of a table."""
    return 1.2 * 2.0 ** (address - inputs) if address > inputs else 0.2 * address


def _tuple(values: Numbers) -> tuple[int, ...]:
    return tuple(values.ravel().tolist())


@lru_cache(maxsize=64)
def _sampled(side: Side, address: int, offset: int, samples: int = SAMPLES) -> tuple[Numbers, Reals]:
    """Return values of d, and the target at both ends of what each stands for, shape (2, addresses, values)."""
    below = side.bits - address
    step = 1 << below - offset
    d = np.unique(np.linspace(0, (1 << offset) - 1, samples).round().astype(np.int64))
    first = ((np.arange(1 << address)[:, None] << below) + d * step).astype(np.float64)
    return d, np.stack([side.target(first + end) for end in (0, step - 1)])


def _scaled(product: Numbers, unit: int) -> Numbers:
    return product << unit if unit >= 0 else product >> -unit


def _bases(side: Side, ends: Reals, terms: Numbers, guard: int) -> Numbers | None:
    """Fit the base of each row: the middle of what terms leave of targets, kept in range and monotone; None if the error is missed."""
    terms = side.sign * terms
    rest = ends - terms
    base = np.rint((rest.max((0, 2)) + rest.min((0, 2)) + 2**guard - 1) / 2).astype(np.int64)
    base = np.clip(base, -terms.min(1), (side.limit + 1 << guard) - 1 - terms.max(1))
    first, last = base + terms[:, 0] >> guard, base + terms[:, -1] >> guard
    if (side.sign * (first[1:] - last[:-1]) < 0).any():
        base = _mended(side, base, terms, guard)
    values = base[:, None] + terms >> guard
    return base if (np.abs(values - ends / 2**guard).max() <= side.error) else None


def _mended(side: Side, base: Numbers, terms: Numbers, guard: int) -> Numbers:
    """Move each base by as little as lets its interval begin where the one before ends, or beyond."""
    rows = zip(base.tolist(), terms[:, 0].tolist(), terms[:, -1].tolist(), strict=True)
    mended, end = [], (side.limit if side.falling else 0)
    for value, first, last in rows:
        if side.falling:
            value = min(value, (end + 1 << guard) - 1 - first)
        else:
            value = max(value, (end << guard) - first)
        mended.append(value)
        end = value + last >> guard
    return np.array(mended)


def _sum(side: Side, build: Builder, base: int, term: int, guard: int) -> int:
    total = build.subtract(base, term) if side.falling else build.add(base, term)
    return build.bits(total, guard, side.width)
