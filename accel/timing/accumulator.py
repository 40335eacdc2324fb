"""Cycles of the store of partial sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.jit import kernel


def accumulator(config: AcceleratorConfig, keep: NDArray[np.bool_]) -> int:
    """Count the cycles from the first accepted row to the last emitted one, with neighbours that never wait.

    Interval 1: a row enters every cycle, because a kept row leaves the queue in the cycle after it entered. Latency 1 for a row that
    passes (it leaves in the cycle it enters), 2 for a kept one. So n rows take n cycles and one more if the last is kept. A queue of
    a single row is full in the cycle after a row entered: there each kept row that follows a kept one costs one cycle more.

    Parameters
    ----------
    config : AcceleratorConfig
    keep : bool, shape (n,), n >= 1

    Returns
    -------
    int
        [cycles], both ends inclusive.
    """
    blocked = int(np.count_nonzero(keep[1:] & keep[:-1])) if config.acc_rows == 1 else 0
    return len(keep) + int(keep[-1]) + blocked


@kernel
def accumulator_trace(
    depth: int, keep: NDArray[np.bool_], i_valid: NDArray[np.bool_], o_ready: NDArray[np.bool_], psum_ready: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting empty.

    Parameters
    ----------
    depth : int
        Rows the queue holds.
    keep : bool, shape (n,)
        Of each row offered at `i`, in order.
    i_valid, o_ready, psum_ready : bool, shape (cycles,)
        What the neighbours drive; `i_valid` offers at most n rows.

    Returns
    -------
    i_ready, o_valid, psum_valid : bool, shape (cycles,)
        `i_ready` is false where nothing is offered.
    """
    i_ready = np.zeros_like(i_valid)
    o_valid = np.zeros_like(i_valid)
    psum_valid = np.zeros_like(i_valid)
    row = level = 0
    for t in range(i_valid.size):
        stored = i_valid[t] and keep[row]
        passed = i_valid[t] and not keep[row]
        o_valid[t] = passed
        psum_valid[t] = level > 0
        i_ready[t] = (stored and level < depth) or (passed and o_ready[t])
        level += int(stored and i_ready[t]) - int(psum_valid[t] and psum_ready[t])
        row += int(i_ready[t])
    return i_ready, o_valid, psum_valid
