"""The method `linear`: straight lines whose slopes are one power of two, or that and half of it; no multiplier.

Segments end where the operand's top bits say and are as long as the error lets them be, so few constants and shifts are looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil, floor, log2

import numpy as np

from accel.config import FunctionConfig
from accel.functions.datapath import Builder
from accel.functions.frame import Plan, frames
from accel.functions.pieces import Emit, Piece, Side, rom

FINEST = 8  # address bits of the segments' ends, at most: our choice


def plans(config: FunctionConfig) -> Iterator[Plan]:
    """Yield what may keep the error."""
    for frame in frames(config):
        side = frame.side
        for address in range(2, min(side.bits, FINEST) + 1):
            for halves in (False, True):
                for guard in range(2):
                    make = partial(lines, side, address, halves, guard)
                    cost = (2 + halves + rom(address, config.luts)) * (side.width + guard)
                    yield frame.plan(Piece({"piece": "lines", "address": address, "halves": halves, "guard": guard}, cost, make))


def lines(side: Side, address: int, halves: bool, guard: int) -> Emit | None:
    """Add a constant and the operand times a power of two, or times one and a half of it; both by segment.

    Parameters
    ----------
    side : Side
    address : int
        Top bits of the operand that say which segment it is in.
    halves : bool
        Whether slopes of one and a half powers of two are used.
    guard : int
        Low bits of the sum that are dropped.

    Returns
    -------
    callable or None
    """
    size = 1 << side.bits - address
    m = np.arange(1 << address)[:, None] * size + np.linspace(0, size - 1, 5).round().astype(np.int64)
    wanted = side.target(m.astype(np.float64)) * 2**guard
    largest = floor(log2(max(side.steepest * 2**guard, 2.0**-side.bits))) + 1
    powers = range(largest, max(largest - 8, -side.bits), -1)
    slopes = [(power, half) for power in powers for half in range(1 + halves)]
    terms = np.stack([_times(m, power, half) for power, half in slopes]) * side.sign
    room = side.error * 2**guard - (0.5 if guard == 0 else 2.0 ** (guard - 1) - 0.5)

    # Segments, greedily: of all slopes the one that keeps the error longest, with a constant that keeps the range and the order.
    offset = (2**guard - 1) / 2
    least = np.maximum((wanted - terms).max(2) + offset - room, -terms.min(2))
    most = np.minimum((wanted - terms).min(2) + offset + room, (side.limit + 1 << guard) - 1 - terms.max(2))
    begin, chosen, constants = 0, np.empty(1 << address, np.int64), np.empty(1 << address, np.int64)
    end = side.limit if side.falling else 0
    while begin < 1 << address:
        low, high = np.maximum.accumulate(least[:, begin:], 1), np.minimum.accumulate(most[:, begin:], 1)
        if side.falling:
            high = np.minimum(high, ((end + 1 << guard) - 1 - terms[:, begin, 0])[:, None])
        else:
            low = np.maximum(low, ((end << guard) - terms[:, begin, 0])[:, None])
        lengths = (np.ceil(low) <= np.floor(high)).sum(1)
        best = int(lengths.argmax())
        if (length := int(lengths[best])) == 0:
            return None
        constant = int(
            np.clip(round((low[best, length - 1] + high[best, length - 1]) / 2), ceil(low[best, length - 1]), high[best, length - 1])
        )
        chosen[begin : begin + length], constants[begin : begin + length] = best, constant
        begin += length
        end = constant + int(terms[best, begin - 1, -1]) >> guard
    term = terms[chosen, np.arange(1 << address)]
    if np.abs((constants[:, None] + term >> guard) - wanted / 2**guard).max() > side.error:
        return None
    first = max(slopes[best][0] for best in set(chosen.tolist()))
    places = tuple(first - slopes[best][0] for best in chosen.tolist())
    flags = tuple(slopes[best][1] for best in chosen.tolist())

    def emit(build: Builder, m: int) -> int:
        segment = build.bits(m, side.bits - address, address)
        term = build.scaled(m, first) if first >= 0 else build.bits(m, -first, side.bits + first)
        term = build.shift(term, build.table(segment, places))
        if any(flags):
            half = build.shift(term, build.constant(1))
            term = build.add(term, build.select(build.table(segment, flags), half, build.constant(0)))
        base = build.table(segment, tuple(constants.tolist()))
        total = build.subtract(base, term) if side.falling else build.add(base, term)
        return build.bits(total, guard, side.width)

    return emit


def _times(m: np.ndarray, power: int, half: int) -> np.ndarray:
    whole = m << power if power >= 0 else m >> -power
    return whole + (whole >> 1) * half
