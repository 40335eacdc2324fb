"""Golden model of the word generator. RTL twin: :class:`accel.rtl.lfsr.Lfsr`."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.golden import checks
from accel.jit import kernel
from accel.lfsr import WORD_MASK
from accel.lfsr import leap as _leap_rule

_leap = kernel(_leap_rule)


def lfsr(state: NDArray[np.int64], take: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the words of a sequence of beats.

    In every beat each lane shows its state; the lanes that take it leap.

    Parameters
    ----------
    state : int64, shape (lanes,)
        Word each lane draws next, in [1, 2**32).
    take : bool, shape (beats, lanes)
        Whether the lane has an element in the beat.

    Returns
    -------
    state : int64, shape (lanes,)
        State behind the last beat.
    words : int64, shape (beats, lanes)
        Words shown, also in the lanes that do not take theirs.

    Raises
    ------
    RangeError
        If an argument is outside its range, shape or type.
    """
    checks.integers("state", state, ("lanes",), 1, WORD_MASK)
    checks.flags("take", take, ("beats", state.size))
    state = state.copy()
    return state, _lfsr(state, take)


def draws(state: NDArray[np.int64], count: int, start: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the words of `count` consecutive elements of a tensor: element i from lane i mod L.

    Parameters
    ----------
    state : int64, shape (lanes,)
        Word each lane draws next, in [1, 2**32).
    count : int
        Elements, 0 or more.
    start : int
        Index of the first of them in the tensor, 0 or more.

    Returns
    -------
    state : int64, shape (lanes,)
        State behind the last element.
    words : int64, shape (count,)
        Words in [1, 2**32), one per element.

    Raises
    ------
    RangeError
        If an argument is outside its range, shape or type.
    """
    if not state.size:
        raise RangeError("state must be of at least one lane, not 0")
    checks.integer("count", count, 0, sys.maxsize)
    checks.integer("start", start, 0, sys.maxsize)
    first = start % state.size
    beats = -(-(first + count) // state.size)
    take = np.zeros((beats, *state.shape), np.bool_)
    take.reshape(-1)[first : first + count] = True
    state, words = lfsr(state, take)
    return state, words[take]


@kernel
def _lfsr(state, take):
    """Kernel: steps `state` in place."""
    words = np.empty(take.shape, np.int64)
    for beat in range(take.shape[0]):
        for lane in range(state.size):
            words[beat, lane] = state[lane]
            if take[beat, lane]:
                state[lane] = _leap(state[lane])
    return words
