"""Cycles of the sparse online reduction engine.

A job is accepted in one cycle, its first beat in the next, the next job with the last beat of the one before. An element of a group enters
its lane in the cycle after its acceptance. A group is finished when its last element has entered; in the cycle after that it moves to
where its pairs leave, one per cycle from the next cycle on: STAGES cycles from the last beat of a group to its first pair. The backward
lanes take the columns of a block of up to `cols` beats likewise, a column per cycle, from the cycle after its last beat on.

A beat waits in three places, and for none of them in full blocks of full groups:

- A group moves only when the pairs of the one before have left or the last of them leaves, and the next group enters only when it moves. A
  short group of fewer elements than the pairs of the group before waits.
- Two blocks fit. A beat that begins a third waits until the last column of the first has gone to its lane, so blocks of fewer beats than
  the job has lanes wait.
- Pairs wait for their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.jit import kernel

STAGES = 3  # before the lanes, in the lanes, behind the lanes
BLOCKS = 2  # blocks of beats that the transposer holds


def interval(job: isa.Prune) -> int:
    """Least cycles from a job's acceptance to the next one's: a beat each [cycles].

    Parameters
    ----------
    job : isa.Prune

    Returns
    -------
    int
    """
    return job.beats


def latency(config: AcceleratorConfig, job: isa.Prune) -> int:
    """Cycles from a job's acceptance to its last pair of both codes, both inclusive [cycles].

    Parameters
    ----------
    config : AcceleratorConfig
    job : isa.Prune

    Returns
    -------
    int
    """
    return sore(config, [job])


def sore(config: AcceleratorConfig, jobs: Sequence[isa.Prune]) -> int:
    """Count the cycles of jobs in a row, with neighbours that never wait.

    The recurrence of the module's text, event by event. For one job of full groups and full blocks it comes to
    ``beats + lanes + STAGES + n``: the acceptance and all beats, the last block's columns, and from the last of them to the last pair.

    Parameters
    ----------
    config : AcceleratorConfig
        Its `cols` are the beats of a block.
    jobs : sequence of isa.Prune
        One or more.

    Returns
    -------
    int
        From the first job's acceptance to the last pair of both codes, both inclusive [cycles].
    """
    return int(_sore(fields(jobs), config.cols))


def fields(jobs: Sequence[isa.Prune]) -> NDArray[np.int64]:
    """Return jobs as :func:`sore_trace` takes them: beats, lanes, n and m of each, shape (jobs, 4)."""
    return np.array([(job.beats, job.lanes, job.n, job.m) for job in jobs], np.int64).reshape(-1, 4)


@kernel
def _sore(jobs, cols):
    """Kernel: the last cycle in which something happens; cycles count from 1, the first job's acceptance."""
    # Of either lanes: the cycle in which the last element entered, in which the last group moved, in which its last pair left.
    forward, backward = (0, 0, 0), (0, 0, 0)
    accepted = 1
    free = np.zeros(BLOCKS, np.int64)  # first cycle in which a block can be begun
    block = 0
    for beats, lanes, n, m in jobs:
        for beat in range(beats):
            row = beat % cols
            accepted = max(accepted + 1, forward[0])
            if row == 0:
                accepted = max(accepted, free[block])
            forward = _enter(accepted, beat, beats, n, m, forward)
            if row == cols - 1 or beat == beats - 1:
                column_accepted = accepted
                for column in range(lanes):
                    column_accepted = max(column_accepted + 1, backward[0])
                    backward = _enter(column_accepted, column, lanes, n, m, backward)
                free[block] = column_accepted + 1
                block = (block + 1) % BLOCKS
    return max(forward[2], backward[2])


@kernel
def _enter(accepted, place, length, n, m, lanes):
    """Kernel: an element of a line goes through the lanes."""
    entered, moved, left = lanes
    entered = accepted + 1
    if place % m == 0:
        entered = max(entered, moved)
    if place % m == m - 1 or place == length - 1:
        moved = max(entered + 1, left)
        left = moved + min(n, place % m + 1)
    return entered, moved, left


@kernel
def sore_trace(
    cols: int,
    jobs: NDArray[np.int64],
    job_valid: NDArray[np.bool_],
    w_valid: NDArray[np.bool_],
    ff_ready: NDArray[np.bool_],
    bp_ready: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting idle.

    Parameters
    ----------
    cols : int
        Beats of a block.
    jobs : int64, shape (jobs, 4)
        The :func:`fields` of each job offered, in order.
    job_valid, w_valid, ff_ready, bp_ready : bool, shape (cycles,)
        What the neighbours drive.

    Returns
    -------
    job_ready, w_ready, ff_valid, bp_valid : bool, shape (cycles,)
    """
    job_ready, w_ready = np.zeros_like(job_valid), np.zeros_like(job_valid)
    ff_valid, bp_valid = np.zeros_like(job_valid), np.zeros_like(job_valid)
    # Of the forward and of the backward lanes: pairs that the element before them completes (-1: no element, 0: none), pairs of the
    # finished group, pairs on their way out.
    standing, finished, leaving = np.full(2, -1, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    job, beat, beats = -1, 0, 0  # of the job: beats accepted, beats in all
    filled = np.zeros((BLOCKS, 3), np.int64)  # lanes, n and m of each full block
    enters = leaves = column = 0
    moves, ready = np.zeros(2, np.bool_), np.zeros(2, np.bool_)
    for t in range(job_valid.size):
        ff_valid[t], bp_valid[t] = leaving[0] > 0, leaving[1] > 0
        for side in range(2):
            given = (ff_ready[t] if side == 0 else bp_ready[t]) and leaving[side] > 0
            leaving[side] -= given
            moves[side] = finished[side] > 0 and leaving[side] == 0
            ready[side] = standing[side] < 0 or finished[side] == 0 or moves[side]
        w_ready[t] = beat < beats and ready[0] and filled[enters, 0] == 0
        take = w_ready[t] and w_valid[t]
        give = ready[1] and filled[leaves, 0] > 0
        for side in range(2):
            if moves[side]:
                leaving[side], finished[side] = finished[side], 0
            if ready[side]:
                finished[side] = max(finished[side], standing[side])
                standing[side] = -1
        if give:
            lanes, n, m = filled[leaves]
            standing[1] = _completes(column, lanes, n, m)
            column += 1
            if column == lanes:
                filled[leaves] = 0
                leaves = (leaves + 1) % BLOCKS
                column = 0
        if take:
            _, lanes, n, m = jobs[job]
            standing[0] = _completes(beat, beats, n, m)
            if beat % cols == cols - 1 or beat == beats - 1:
                filled[enters, 0], filled[enters, 1], filled[enters, 2] = lanes, n, m
                enters = (enters + 1) % BLOCKS
            beat += 1
        job_ready[t] = beat == beats
        if job_ready[t] and job_valid[t]:
            job += 1
            beat, beats = 0, jobs[job, 0]
    return job_ready, w_ready, ff_valid, bp_valid


@kernel
def _completes(place, length, n, m):
    """Kernel: pairs of the group that an element is the last of, else 0."""
    return min(n, place % m + 1) if place % m == m - 1 or place == length - 1 else 0
