"""Cycles of the post-processor.

A job is accepted in one cycle and its first row in the next; a row is accepted every cycle and emitted STAGES cycles later: its parameters
are read, the bias is added, the sum is multiplied (two stages), shifted, rounded and clipped. The next job is accepted with the last row of
the one before. While a row waits at the output nothing moves; parameters are always accepted.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.jit import kernel

STAGES = 6  # read, bias, multiply, multiply, shift, clip


def interval(job: isa.Post) -> int:
    """Least cycles from a job's acceptance to the next one's: a row each [cycles].

    Parameters
    ----------
    job : isa.Post

    Returns
    -------
    int
    """
    return job.rows


def latency(job: isa.Post) -> int:
    """Cycles from a job's acceptance to its last row, both inclusive: the acceptance, the rows, the stages [cycles].

    Parameters
    ----------
    job : isa.Post

    Returns
    -------
    int
    """
    return 1 + interval(job) + STAGES


def postprocess(config: AcceleratorConfig, jobs: Iterable[isa.Post]) -> int:
    """Count the cycles of jobs in a row, with neighbours that never wait: their intervals, and the last one's latency beyond its own.

    Parameters
    ----------
    config : AcceleratorConfig
        Has no influence.
    jobs : iterable of isa.Post
        One or more.

    Returns
    -------
    int
        From the first job's acceptance to the last row, both inclusive [cycles].
    """
    return 1 + sum(map(interval, jobs)) + STAGES


@kernel
def postprocess_trace(
    rows: NDArray[np.int64],
    source: NDArray[np.int64],
    job_valid: NDArray[np.bool_],
    array_valid: NDArray[np.bool_],
    vector_valid: NDArray[np.bool_],
    o_ready: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting idle.

    Parameters
    ----------
    rows, source : int64, shape (jobs,)
        Of each job offered, in order; source 0 is the array, 1 the vector unit.
    job_valid, array_valid, vector_valid, o_ready : bool, shape (cycles,)
        What the neighbours drive.

    Returns
    -------
    job_ready, array_ready, vector_ready, o_valid : bool, shape (cycles,)
    """
    job_ready = np.zeros_like(job_valid)
    row_ready = np.zeros((2, job_valid.size), np.bool_)
    o_valid = np.zeros_like(job_valid)
    job = -1
    left = 0  # rows of the job that are still to come
    stages = np.zeros(STAGES, np.bool_)  # which of them hold a row
    for t in range(job_valid.size):
        o_valid[t] = stages[-1]
        advance = o_ready[t] or not stages[-1]
        take = False
        if left > 0 and advance:
            row_ready[source[job], t] = True
            take = vector_valid[t] if source[job] else array_valid[t]
        job_ready[t] = left == 0 or (left == 1 and take)
        if advance:
            stages[1:] = stages[:-1].copy()
            stages[0] = take
        left -= take
        if job_ready[t] and job_valid[t]:
            job += 1
            left = rows[job]
    return job_ready, row_ready[0], row_ready[1], o_valid
