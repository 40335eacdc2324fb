"""Tables: one value per interval, or a value and a slope."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from accel.config import FunctionConfig
from accel.functions.datapath import Datapath
from accel.functions.frame import Frame, frames

Numbers = NDArray[np.int64]


def candidates(config: FunctionConfig) -> Iterator[tuple[dict[str, int], Datapath]]:
    """Yield parameters and datapaths that may keep the error."""
    for frame in frames(config):
        for address in range(1, min(frame.reach, 10) + 1):
            if frame.reach - address:
                found = interpolated(frame, address, min(frame.reach - address, 8), 6, 2)
                yield {"address": address}, found


def interpolated(frame: Frame, address: int, offset: int, slope_bits: int, guard: int) -> Datapath:
    """Make base +- slope * d: d are the `offset` bits below the `address`, of whose values each has a base and a slope.

    Parameters
    ----------
    frame : Frame
    address, offset : int
        Bits of the operand, from the top, that address the table; and those that are multiplied.
    slope_bits : int
        Width of a slope.
    guard : int
        Bits of the sum that the method's integer leaves out.

    Returns
    -------
    Datapath
    """
    sign = -1 if frame.falling else 1
    below = frame.reach - address
    step = 1 << below - offset
    d = np.unique(np.linspace(0, (1 << offset) - 1, 17).round())
    first = (np.arange(1 << address)[:, None] << below) + d * step
    ends = np.stack([frame.target(first), frame.target(first + step - 1)]) * 2**guard

    # Slopes: chords, rounded to as many bits; the unit of a slope times d is 2^unit of the sum's LSBs.
    rise = sign * (ends.mean(0)[:, -1] - ends.mean(0)[:, 0]) / max(d[-1], 1)
    unit = ceil(log2(max(rise.max(), 2.0**-40) / ((1 << slope_bits) - 0.5)))
    slope = np.rint(rise / 2.0**unit).astype(np.int64)
    product = slope[:, None] * d.astype(np.int64)
    product = product << unit if unit >= 0 else product >> -unit

    # Bases: the middle of what is left, such that no value leaves the range and none steps back.
    rest = ends - sign * product
    base = np.rint((rest.max((0, 2)) + rest.min((0, 2))) / 2 + (2**guard - 1) / 2).astype(np.int64)
    most = product[:, -1]
    top = (frame.limit + 1 << guard) - 1
    if frame.falling:
        base = np.minimum.accumulate(np.clip(base, most, top) - np.cumsum(np.append(0, most[:-1]))) + np.cumsum(np.append(0, most[:-1]))
        base = np.clip(base, most, top)
    else:
        base = np.clip(base, 0, top - most)

    build, m = frame.open()
    high = build.bits(m, below, address)
    low = build.bits(m, below - offset, offset)
    term = build.multiply(low, build.table(high, tuple(slope.tolist())))
    term = build.scaled(term, unit) if unit >= 0 else build.bits(term, -unit, max(1, build.nodes[term].bits + unit))
    bases = build.table(high, tuple(base.tolist()))
    total = build.subtract(bases, term) if frame.falling else build.add(bases, term)
    return frame.close(build, build.bits(total, guard, frame.limit.bit_length()))
