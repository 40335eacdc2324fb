"""Golden model of the sparse online reduction engine. RTL twin: :class:`accel.rtl.sore.Sore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.golden import checks
from accel.jit import kernel


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Beats of pairs.

    Parameters
    ----------
    value, index : int64, shape (beats, cols)
        Kept elements and their places in their groups.
    lanes : int64, shape (beats,)
        Lanes with a pair; the others show what a group of zeros has.
    head : bool, shape (beats,)
        First pair of a group.
    """

    value: NDArray[np.int64]
    index: NDArray[np.int64]
    lanes: NDArray[np.int64]
    head: NDArray[np.bool_]


def sore(config: AcceleratorConfig, jobs: Sequence[isa.Prune], w: NDArray[np.int64]) -> tuple[Pairs, Pairs]:
    """Keep the N elements of largest magnitude of every group of M, ties to the lower index, along the beats and along the lanes.

    Of a group of g elements min(N, g) pairs are kept, in ascending index order; only the last group of a line may be short. Forward code:
    a group is M consecutive beats of a lane, its pair p in beat p of the group. Backward code: a group is M consecutive lanes of a beat,
    and the beats of a job are turned in blocks of up to `cols`: lane s belongs to beat s of the block, which gives the groups of its
    lanes one after the other.

    Parameters
    ----------
    config : AcceleratorConfig
        Its format `weight`, its `cols` and its `bundle`.
    jobs : sequence of isa.Prune
        In order.
    w : int64, shape (beats, cols)
        Beats of all jobs [weight LSBs]. Lanes that a job does not have count as 0.

    Returns
    -------
    Pairs
        Forward code of all jobs.
    Pairs
        Backward code of all jobs.

    Raises
    ------
    RangeError
        If a field of a job or `w` breaks its rule.
    """
    for job in jobs:
        checks.integer("beats", job.beats, 1, (1 << isa.ROW_BITS) - 1)
        checks.integer("lanes", job.lanes, 1, config.cols)
        checks.integer("m", job.m, 1, config.bundle)
        checks.integer("n", job.n, 1, job.m)
    fields = np.array([(job.beats, job.lanes, job.n, job.m) for job in jobs], np.int64).reshape(-1, 4)
    checks.integers("w", w, (int(fields[:, 0].sum()), config.cols), config.weight.lo, config.weight.hi)
    forward = _empty(sum(pairs(job, job.beats) for job in jobs), config.cols)
    backward = _empty(sum(-(-job.beats // config.cols) * pairs(job, job.lanes) for job in jobs), config.cols)
    tables = (table for code in (forward, backward) for table in (code.value, code.index, code.lanes, code.head))
    _sore(fields, w, *tables)
    return forward, backward


def pairs(job: isa.Prune, elements: int) -> int:
    """Count the pairs of a line of elements: N of each full group, min(N, g) of a short one of g."""
    return elements // job.m * job.n + min(elements % job.m, job.n)


def _empty(beats: int, cols: int) -> Pairs:
    zeros = np.zeros((beats, cols), np.int64)
    return Pairs(zeros, zeros.copy(), np.zeros(beats, np.int64), np.zeros(beats, np.bool_))


@kernel
def _sore(jobs, w, f_value, f_index, f_lanes, f_head, b_value, b_index, b_lanes, b_head):
    """Kernel: fills the codes, which are 0."""
    cols = w.shape[1]
    start = f_at = b_at = 0
    for job in range(jobs.shape[0]):
        beats, lanes, n, m = jobs[job]
        strip = np.zeros((beats, cols), np.int64)
        for beat in range(beats):
            for lane in range(lanes):
                strip[beat, lane] = w[start + beat, lane]
        start += beats
        f_at = _code(strip, lanes, n, m, f_at, f_value, f_index, f_lanes, f_head)
        for block in range(0, beats, cols):
            count = min(cols, beats - block)
            turned = np.zeros((lanes, cols), np.int64)
            for beat in range(count):
                for lane in range(lanes):
                    turned[lane, beat] = strip[block + beat, lane]
            b_at = _code(turned, count, n, m, b_at, b_value, b_index, b_lanes, b_head)


@kernel
def _code(x, lanes, n, m, at, out_value, out_index, out_lanes, out_head):
    """Kernel: pairs of the groups along the first axis, lane by lane, from beat `at` on; returns the beat behind them."""
    for start in range(0, x.shape[0], m):
        size = min(m, x.shape[0] - start)
        for lane in range(x.shape[1]):
            place = at
            for i in range(size):
                greater = 0  # elements that are kept rather than this one
                for j in range(size):
                    a, b = abs(x[start + j, lane]), abs(x[start + i, lane])
                    greater += a > b or (a == b and j < i)
                if greater < n:
                    out_value[place, lane] = x[start + i, lane]
                    out_index[place, lane] = i
                    place += 1
        out_head[at] = True
        for _ in range(min(n, size)):
            out_lanes[at] = lanes
            at += 1
    return at
