"""Cycles of the vector unit.

A job is accepted in one cycle and its first beat in the next. A beat is multiplied in the cycle of its acceptance and accumulated in the
next one, so a row can be emitted STAGES cycles after its last beat. The next job is accepted with the last beat of the one before. While
a row waits at the output nothing moves.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.jit import kernel

STAGES = 2  # multiply, accumulate


def interval(job: isa.Vector) -> int:
    """Least cycles from a job's acceptance to the next one's: a beat each [cycles].

    Parameters
    ----------
    job : isa.Vector

    Returns
    -------
    int
    """
    return job.rows * job.window


def latency(job: isa.Vector) -> int:
    """Cycles from a job's acceptance to its last row, both inclusive: the acceptance, the beats, the stages [cycles].

    Parameters
    ----------
    job : isa.Vector

    Returns
    -------
    int
    """
    return 1 + interval(job) + STAGES


def vector(config: AcceleratorConfig, jobs: Iterable[isa.Vector]) -> int:
    """Count the cycles of jobs in a row, with neighbours that never wait: their intervals, and the last one's latency beyond its own.

    Parameters
    ----------
    config : AcceleratorConfig
        Has no influence.
    jobs : iterable of isa.Vector
        One or more.

    Returns
    -------
    int
        From the first job's acceptance to the last row, both inclusive [cycles].
    """
    return 1 + sum(map(interval, jobs)) + STAGES


@kernel
def vector_trace(
    rows: NDArray[np.int64],
    window: NDArray[np.int64],
    job_valid: NDArray[np.bool_],
    x_valid: NDArray[np.bool_],
    o_ready: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting idle.

    Parameters
    ----------
    rows, window : int64, shape (jobs,)
        Of each job offered, in order.
    job_valid, x_valid, o_ready : bool, shape (cycles,)
        What the neighbours drive.

    Returns
    -------
    job_ready, x_ready, o_valid : bool, shape (cycles,)
    """
    job_ready = np.zeros_like(job_valid)
    x_ready = np.zeros_like(job_valid)
    o_valid = np.zeros_like(job_valid)
    job = -1
    left = beat = 0  # beats of the job and of the window that are still to come
    stages = np.zeros(STAGES, np.bool_)  # which of them hold the end of a window
    for t in range(job_valid.size):
        o_valid[t] = stages[-1]
        advance = o_ready[t] or not stages[-1]
        x_ready[t] = left > 0 and advance
        take = x_ready[t] and x_valid[t]
        job_ready[t] = left == 0 or (left == 1 and take)
        if advance:
            stages[1:] = stages[:-1].copy()
            stages[0] = take and beat == 1
        if take:
            left -= 1
            beat = beat - 1 if beat > 1 else window[job]
        if job_ready[t] and job_valid[t]:
            job += 1
            left, beat = rows[job] * window[job], window[job]
    return job_ready, x_ready, o_valid
