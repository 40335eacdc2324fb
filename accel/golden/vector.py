"""Golden model of the vector unit. RTL twin: :class:`accel.rtl.vector.Vector`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.formats import FixedFormat, Overflow
from accel.golden import checks
from accel.golden.accumulator import Rows
from accel.golden.arithmetic import _overflow
from accel.jit import kernel


def vector(config: AcceleratorConfig, job: isa.Vector, x: NDArray[np.int64]) -> Rows:
    """Reduce every window of beats to one row, each lane for itself.

    SUM: ``acc = ovf(acc + x * coefficient)`` beat by beat from 0, where ovf is the overflow rule of `config`, applied after every addition,
    and the coefficient is `head` for the first beat of a window and `tail` for the others. MAX: the largest of ``ovf(x)``, which is x
    itself wherever an accumulator holds an activation.

    Parameters
    ----------
    config : AcceleratorConfig
        Formats `act` and `acc`, and the overflow rule.
    job : isa.Vector
    x : int64, shape (rows * window, lanes)
        Beats in order, those of a window one after the other [act LSBs].

    Returns
    -------
    Rows
        Sums or maxima and overflow bits of shape (rows, lanes); a bit tells whether ovf changed a number of its window.

    Raises
    ------
    RangeError
        If a field of the job or `x` breaks its rule. Inside, no intermediate reaches 2**63.
    """
    coefficient = FixedFormat(isa.COEFFICIENT_BITS)
    for name in ("rows", "window"):
        checks.integer(name, getattr(job, name), 1, (1 << isa.ROW_BITS) - 1)
    for name in ("head", "tail"):
        checks.integer(name, getattr(job, name), coefficient.lo, coefficient.hi)
    checks.integers("x", x, (job.rows * job.window, "lanes"), config.act.lo, config.act.hi)
    out = Rows(np.zeros((job.rows, x.shape[1]), np.int64), np.zeros((job.rows, x.shape[1]), np.bool_))
    maximum = job.reduce is isa.Reduce.MAX
    _vector(x, job.window, job.head, job.tail, maximum, config.acc.lo, config.acc.hi, config.on_overflow is Overflow.WRAP, *out)
    return out


@kernel
def _vector(x, window, head, tail, maximum, lo, hi, wrap, acc, overflow):
    """Kernel: int64 throughout, no checks, so that JIT on and off agree; fills `acc` and `overflow`, which are 0."""
    for i in range(acc.shape[0]):
        for beat in range(window):
            coefficient = tail if beat else head
            for lane in range(acc.shape[1]):
                element = x[i * window + beat, lane]
                kept, changed = _overflow(element if maximum else acc[i, lane] + element * coefficient, lo, hi, wrap)
                acc[i, lane] = max(acc[i, lane], kept) if maximum and beat else kept
                overflow[i, lane] |= changed
