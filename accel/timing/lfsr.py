"""Cycles of the word generator.

A seed is accepted in one cycle and its tensor's first beat in the next; the words of a beat are emitted in the cycle that accepts it.
The next seed is accepted with the last beat of the tensor before.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.jit import kernel


def interval(beats: int) -> int:
    """Least cycles from a seed's acceptance to the next one's: a beat each [cycles].

    Parameters
    ----------
    beats : int
        Of the tensor, 1 or more.

    Returns
    -------
    int
    """
    return beats


def latency(beats: int) -> int:
    """Cycles from a seed's acceptance to its tensor's last words, both inclusive: the acceptance and the beats [cycles].

    Parameters
    ----------
    beats : int
        Of the tensor, 1 or more.

    Returns
    -------
    int
    """
    return 1 + interval(beats)


def lfsr(config: AcceleratorConfig, tensors: Iterable[int]) -> int:
    """Count the cycles of tensors in a row, with neighbours that never wait: their intervals, and the first acceptance.

    Parameters
    ----------
    config : AcceleratorConfig
        Has no influence.
    tensors : iterable of int
        Beats of each tensor, 1 or more.

    Returns
    -------
    int
        From the first seed's acceptance to the last words, both inclusive [cycles].
    """
    return 1 + sum(map(interval, tensors))


@kernel
def lfsr_trace(
    last: NDArray[np.bool_], seed_valid: NDArray[np.bool_], i_valid: NDArray[np.bool_], o_ready: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting without a seed.

    Parameters
    ----------
    last : bool, shape (beats,)
        Of each beat offered, in order: it ends its tensor.
    seed_valid, i_valid, o_ready : bool, shape (cycles,)
        What the neighbours drive.

    Returns
    -------
    seed_ready, i_ready, o_valid : bool, shape (cycles,)
    """
    seed_ready = np.zeros_like(i_valid)
    i_ready = np.zeros_like(i_valid)
    o_valid = np.zeros_like(i_valid)
    seeded = False
    beat = 0
    for t in range(i_valid.size):
        i_ready[t] = seeded and o_ready[t]
        o_valid[t] = seeded and i_valid[t]
        take = i_ready[t] and i_valid[t]
        seed_ready[t] = not seeded or (take and last[beat])
        beat += take
        if seed_ready[t]:
            seeded = seed_valid[t]
    return seed_ready, i_ready, o_valid
