from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.vector import vector
from accel.isa import Reduce, Vector
from accel.timing import vector as timing

CONFIG = AcceleratorConfig()
SUM = Vector(reduce=Reduce.SUM, rows=2, window=3)


def naive(config, job, x):
    """Restate the rule on Python integers, one lane and one beat at a time."""
    lo, hi, span = config.acc.lo, config.acc.hi, 1 << config.acc_bits

    def ovf(value):
        kept = (value - lo) % span + lo if config.overflow == "wrap" else min(max(value, lo), hi)
        return kept, kept != value

    acc, flags = [], []
    for row in range(job.rows):
        sums, changed = [], []
        for lane in x[row * job.window : (row + 1) * job.window].T.tolist():
            total, any_changed = 0, False
            for beat, element in enumerate(lane):
                if job.reduce is Reduce.SUM:
                    total, flag = ovf(total + element * (job.tail if beat else job.head))
                else:
                    kept, flag = ovf(element)
                    total = max(total, kept) if beat else kept
                any_changed |= flag
            sums.append(total)
            changed.append(any_changed)
        acc.append(sums)
        flags.append(changed)
    return acc, flags


@pytest.mark.golden
@pytest.mark.parametrize("reduce", Reduce)
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("acc_bits", [6, 8, 20, 32])
def test_golden_equals_naive(acc_bits, overflow, reduce):
    """Accumulators that overflow at every step, sometimes or never; windows of one beat too."""
    config = AcceleratorConfig(acc_bits=acc_bits, overflow=overflow)
    rng = np.random.default_rng(acc_bits)
    for window in (1, 2, 9):
        head, tail = rng.choice([-(1 << 15), (1 << 15) - 1, -1, 0, 1, 77], 2).tolist()
        job = Vector(reduce=reduce, rows=7, window=window, head=head, tail=tail)
        x = rng.integers(-128, 128, (7 * window, 5))
        got = vector(config, job, x)
        assert (got.acc.tolist(), got.overflow.tolist()) == naive(config, job, x)


def test_golden_residual_add_and_pooling():
    """What the unit is for: a weighted sum of two tensors, a window's sum, a window's maximum."""
    x = np.array([[100, -100], [27, -28], [-128, 127], [127, 1], [1, 1], [0, -3]])
    add = vector(CONFIG, Vector(reduce=Reduce.SUM, rows=3, window=2, head=3, tail=-2), x)
    assert add.acc.tolist() == [[246, -244], [-638, 379], [3, 9]]
    assert vector(CONFIG, SUM, x).acc.tolist() == [[-1, -1], [128, -1]]
    assert vector(CONFIG, replace(SUM, reduce=Reduce.MAX), x).acc.tolist() == [[100, 127], [127, 1]]
    assert not add.overflow.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, r"^rows must be an int in \[1, 16777215\], not 0$"),
        ({"window": 1 << 24}, r"^window must be an int in \[1, 16777215\], not 16777216$"),
        ({"head": 1 << 15}, r"^head must be an int in \[-32768, 32767\], not 32768$"),
        ({"tail": -(1 << 15) - 1}, r"^tail must be an int in \[-32768, 32767\], not -32769$"),
        ({"window": 4}, r"^x must be int64 of shape \(8, lanes\), not int64 of shape \(6, 2\)$"),
    ],
)
def test_golden_rejects_job(change, message):
    with pytest.raises(RangeError, match=message):
        vector(CONFIG, replace(SUM, **change), np.zeros((6, 2), np.int64))


def test_golden_rejects_elements():
    with pytest.raises(RangeError, match=r"^x must be in \[-128, 127\], not 128..128$"):
        vector(CONFIG, SUM, np.full((6, 2), 128))
    with pytest.raises(RangeError, match=r"^x must be int64 of shape \(6, lanes\), not int8 of shape \(6, 2\)$"):
        vector(CONFIG, SUM, np.zeros((6, 2), np.int8))


def test_closed_form_is_the_recurrence_without_waits():
    """Interval and latency as derived, jobs alone and in a row."""
    jobs = [replace(SUM, rows=rows, window=window) for rows, window in ((2, 3), (3, 1), (1, 4))]
    for some in (jobs[:1], jobs[1:2], jobs):
        cycles = timing.vector(CONFIG, some)
        offered = np.arange(cycles + 5)
        job_ready, x_ready, o_valid = timing.vector_trace(
            np.array([job.rows for job in some]),
            np.array([job.window for job in some]),
            offered < 1 + sum(map(timing.interval, some[:-1])),  # the last job is accepted with the last beat before it
            np.ones_like(offered, bool),
            np.ones_like(offered, bool),
        )
        assert int(np.flatnonzero(o_valid)[-1]) + 1 == cycles
        assert o_valid.sum() == sum(job.rows for job in some)
        assert x_ready.sum() == sum(map(timing.interval, some))
        starts = np.flatnonzero(job_ready)[: len(some)]
        assert np.diff(starts).tolist() == [timing.interval(job) for job in some[:-1]]
    assert timing.latency(jobs[0]) == timing.vector(CONFIG, jobs[:1])
