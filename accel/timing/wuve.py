"""Cycles of the weight-update engine.

A job is accepted in one cycle and its first beat in the next; a beat is accepted every cycle and emitted STAGES cycles later. The next job
is accepted with the last beat of the one before. While results wait at the output nothing moves.

Words are drawn in the last stage. A beat that draws waits there for its tensor's seed; the last one of a tensor waits until the final words
of the tensor before have been taken. A seed is accepted if there is none, or with the last draw of the tensor before, so it costs no cycle
where it is offered in time. The final words of a tensor are offered with its last results.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.jit import kernel

STAGES = 11  # multiply, multiply, shift, add, saturate; multiply, multiply, shift, subtract; shift, round


def interval(job: isa.Update) -> int:
    """Least cycles from a job's acceptance to the next one's: a beat each [cycles].

    Parameters
    ----------
    job : isa.Update

    Returns
    -------
    int
    """
    return job.beats


def latency(job: isa.Update) -> int:
    """Cycles from a job's acceptance to its last results, both inclusive: the acceptance, the beats, the stages [cycles].

    Parameters
    ----------
    job : isa.Update

    Returns
    -------
    int
    """
    return 1 + interval(job) + STAGES


def wuve(config: AcceleratorConfig, jobs: Iterable[isa.Update]) -> int:
    """Count the cycles of jobs in a row, with neighbours that never wait: their intervals, and the last one's latency beyond its own.

    Parameters
    ----------
    config : AcceleratorConfig
        Has no influence.
    jobs : iterable of isa.Update
        One or more.

    Returns
    -------
    int
        From the first job's acceptance to the last results, both inclusive [cycles].
    """
    return 1 + sum(map(interval, jobs)) + STAGES


@kernel
def wuve_trace(
    beats: NDArray[np.int64],
    draws: NDArray[np.bool_],
    last: NDArray[np.bool_],
    seed_valid: NDArray[np.bool_],
    job_valid: NDArray[np.bool_],
    i_valid: NDArray[np.bool_],
    o_ready: NDArray[np.bool_],
    state_ready: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting idle and without a seed.

    Parameters
    ----------
    beats : int64, shape (jobs,)
        Of each job offered, in order.
    draws, last : bool, shape (jobs,)
        Whether its rounding is stochastic, and whether it ends its tensor.
    seed_valid, job_valid, i_valid, o_ready, state_ready : bool, shape (cycles,)
        What the neighbours drive.

    Returns
    -------
    seed_ready, job_ready, i_ready, o_valid, state_valid : bool, shape (cycles,)
    """
    seed_ready = np.zeros_like(job_valid)
    job_ready = np.zeros_like(job_valid)
    i_ready = np.zeros_like(job_valid)
    o_valid = np.zeros_like(job_valid)
    state_valid = np.zeros_like(job_valid)
    job = -1
    left = 0  # beats of the job that are still to come
    stages = np.full(STAGES - 1, -1)  # the job whose beat each holds, -1 for none
    ends = np.zeros(STAGES - 1, np.bool_)  # whether it is the job's last
    results = seeded = finals = False
    for t in range(job_valid.size):
        o_valid[t], state_valid[t] = results, finals
        draw = stages[-1] >= 0 and draws[stages[-1]]
        end = draw and ends[-1] and last[stages[-1]]
        advance = (o_ready[t] or not results) and (seeded or not draw) and (state_ready[t] or not (end and finals))
        i_ready[t] = left > 0 and advance
        take = i_ready[t] and i_valid[t]
        job_ready[t] = left == 0 or (left == 1 and take)
        seed_ready[t] = not seeded or (end and advance)
        if seed_ready[t]:
            seeded = seed_valid[t]
        finals = (end and advance) or (finals and not state_ready[t])
        if advance:
            results = stages[-1] >= 0
            stages[1:], ends[1:] = stages[:-1].copy(), ends[:-1].copy()
            stages[0], ends[0] = job if take else -1, left == 1
        else:
            results = results and not o_ready[t]
        left -= take
        if job_ready[t] and job_valid[t]:
            job += 1
            left = beats[job]
    return seed_ready, job_ready, i_ready, o_valid, state_valid
