"""Golden model of the processing element. RTL twin: :class:`accel.rtl.uspe.Uspe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.formats import Overflow

from .arithmetic import _overflow

Pair = tuple[int, int]  # value, index
Sum = tuple[int, bool]  # accumulator, sticky overflow bit


class State(NamedTuple):
    """What a processing element remembers.

    Parameters
    ----------
    bundle : tuple of int
        Held activations.
    kept, stationary : Pair
        The pair of the next weight-stationary tile and that of the current one.
    sums, finished : tuple of Sum, length `add_stages`
        Running and finished sums of the interleaved outputs.
    """

    bundle: tuple[int, ...]
    kept: Pair
    stationary: Pair
    sums: tuple[Sum, ...]
    finished: tuple[Sum, ...]


def initial(config: AcceleratorConfig) -> State:
    """Return a state of zeros."""
    sums = ((0, False),) * config.add_stages
    return State((0,) * config.bundle, (0, 0), (0, 0), sums, sums)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What meets in the processing element for each cycle's tags, whenever it gets there.

    Parameters
    ----------
    bundle : int64, shape (n, B)
        The west neighbour's bundle.
    value, index : int64, shape (n,)
        The pair from the north.
    acc : int64, shape (n,)
        The sum from the north.
    overflow : bool, shape (n,)
        Its sticky bit.
    tags : dict of int64, shape (n,)
        Control, fields of `accel.rtl.uspe.tags`.
    """

    bundle: NDArray[np.int64]
    value: NDArray[np.int64]
    index: NDArray[np.int64]
    acc: NDArray[np.int64]
    overflow: NDArray[np.bool_]
    tags: dict[str, NDArray[np.int64]]


def uspe(
    config: AcceleratorConfig, state: State, inputs: Inputs
) -> tuple[State, tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]]:
    """Follow the tags one cycle after the other: hold, keep, swap, multiply, accumulate, send southwards.

    A step adds ``bundle[index] * value`` of the passing pair (output stationary) or of the stationary one; the overflow rule is
    applied to the sum. Southwards goes a weight-stationary step's sum, an injected finished sum, or else what came from the north.

    Parameters
    ----------
    config : AcceleratorConfig
    state : State
        Before the first cycle.
    inputs : Inputs
        One row per cycle.

    Returns
    -------
    State
        After the last cycle.
    tuple of int64, bool, shape (n,), and int64, shape (n, B)
        Sum that leaves southwards for each cycle's tags, its overflow bit, and the bundle held afterwards.

    Raises
    ------
    RangeError
        If the inputs have different lengths or an index is outside the bundle.
    """
    arrays = inputs.bundle, inputs.value, inputs.index, inputs.acc, inputs.overflow, *inputs.tags.values()
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        raise RangeError(f"inputs must be of equal lengths, not {', '.join(map(str, sorted(lengths)))}")
    if inputs.index.size and not 0 <= inputs.index.min() <= inputs.index.max() < config.bundle:
        raise RangeError(f"index must be in [0, {config.bundle}), not {inputs.index.min()}..{inputs.index.max()}")
    bundle, kept, stationary, *stored = state
    sums, finished = map(list, stored)
    wrap = config.on_overflow is Overflow.WRAP
    out: list[Sum] = []
    held = np.zeros_like(inputs.bundle)
    for t in range(len(inputs.value)):
        tag = {name: int(field[t]) for name, field in inputs.tags.items()}
        passing = int(inputs.value[t]), int(inputs.index[t])
        leaving = int(inputs.acc[t]), bool(inputs.overflow[t])
        if tag["load"]:
            bundle = tuple(map(int, inputs.bundle[t]))
        if tag["swap"]:
            stationary = kept if tag["active"] else (0, 0)
        if tag["take"]:
            kept = passing
        if tag["inject"]:
            leaving, north = finished[tag["inject_slot"]], leaving
        else:
            north = leaving
        if tag["step"]:
            value, index = stationary if tag["ws"] else passing
            start, sticky = north if tag["ws"] else (0, False) if tag["first"] else sums[tag["slot"]]
            total, flag = _overflow(start + bundle[index] * value, config.acc.lo, config.acc.hi, wrap)
            result = int(total), bool(sticky or flag)
            if tag["ws"]:
                leaving = result
            else:
                sums[tag["slot"]] = result
                if tag["last"]:
                    finished[tag["slot"]] = result
        out.append(leaving)
        held[t] = bundle
    after = State(bundle, kept, stationary, tuple(sums), tuple(finished))
    return after, (np.array([acc for acc, _ in out], np.int64), np.array([bit for _, bit in out], np.bool_), held)
