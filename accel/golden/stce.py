"""Golden model of the array. RTL twin: :class:`accel.rtl.stce.Stce`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.formats import Overflow
from accel.golden import checks
from accel.golden.arithmetic import _overflow
from accel.jit import kernel


def stce(
    config: AcceleratorConfig,
    x: NDArray[np.int64],
    values: NDArray[np.int64],
    positions: NDArray[np.int64],
    acc: NDArray[np.int64] | None = None,
    overflow: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Accumulate the products of selected activations and paired values, one after the other.

    ``acc[i, j] = ovf(acc[i, j] + x[i, positions[j, s]] * values[j, s])`` for s = 0, 1, ..., where ovf is the overflow rule of `config`,
    applied after every addition. ``overflow[i, j]`` becomes true once it changed a sum, and stays so.

    Parameters
    ----------
    config : AcceleratorConfig
        Formats `act`, `weight` and `acc`, and the overflow rule.
    x : int64, shape (m, k)
        Activations [act LSBs].
    values : int64, shape (n, k_eff)
        Values of the pairs of each output channel, in the order in which they are accumulated [weight LSBs].
    positions : int64, shape (n, k_eff)
        Element of a row of `x` that each pair multiplies, 0 to k - 1.
    acc : int64, shape (m, n), optional
        Running partial sums [product LSBs]; 0 if not given.
    overflow : bool, shape (m, n), optional
        Overflow bits of the partial sums; false if not given.

    Returns
    -------
    acc : int64, shape (m, n)
        Sums [product LSBs].
    overflow : bool, shape (m, n)
        Whether any addition overflowed.

    Raises
    ------
    RangeError
        If an array breaks its type, shape or range. Inside, no intermediate reaches 2**63.
    """
    checks.integers("x", x, ("m", "k"), config.act.lo, config.act.hi)
    checks.integers("values", values, ("n", "k_eff"), config.weight.lo, config.weight.hi)
    checks.integers("positions", positions, values.shape, 0, x.shape[1] - 1)
    shape = len(x), len(values)
    acc = np.zeros(shape, np.int64) if acc is None else acc.copy()
    overflow = np.zeros(shape, np.bool_) if overflow is None else overflow.copy()
    checks.integers("acc", acc, shape, config.acc.lo, config.acc.hi)
    checks.flags("overflow", overflow, shape)
    _stce(x, values, positions, config.acc.lo, config.acc.hi, config.on_overflow is Overflow.WRAP, acc, overflow)
    return acc, overflow


@kernel
def _stce(x, values, positions, lo, hi, wrap, acc, overflow):
    """Kernel: int64 throughout, no checks, so that JIT on and off agree; updates `acc` and `overflow`."""
    for i in range(acc.shape[0]):
        for j in range(acc.shape[1]):
            for s in range(values.shape[1]):
                acc[i, j], over = _overflow(acc[i, j] + x[i, positions[j, s]] * values[j, s], lo, hi, wrap)
                overflow[i, j] |= over
