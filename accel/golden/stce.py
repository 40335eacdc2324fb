"""Golden model of the array. RTL twin: :class:`accel.rtl.stce.Stce`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.formats import FixedFormat, Overflow
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
    m, k, n, pairs = *_shape("x", x), *_shape("values", values)
    _check("x", x, (m, k), config.act)
    _check("values", values, (n, pairs), config.weight)
    _check("positions", positions, (n, pairs), (0, k - 1))
    acc = np.zeros((m, n), np.int64) if acc is None else acc.copy()
    overflow = np.zeros((m, n), np.bool_) if overflow is None else overflow.copy()
    _check("acc", acc, (m, n), config.acc)
    if overflow.dtype != np.bool_ or overflow.shape != (m, n):
        raise RangeError(f"overflow must be bool of shape {(m, n)}, not {overflow.dtype} of shape {overflow.shape}")
    _stce(x, values, positions, config.acc.lo, config.acc.hi, config.on_overflow is Overflow.WRAP, acc, overflow)
    return acc, overflow


def _shape(name: str, array: NDArray[np.int64]) -> tuple[int, int]:
    if array.ndim != 2:
        raise RangeError(f"{name} must be an array of two dimensions, not of {array.ndim}")
    return array.shape[0], array.shape[1]


def _check(name: str, array: NDArray[np.int64], shape: tuple[int, int], bounds: FixedFormat | tuple[int, int]) -> None:
    lo, hi = (bounds.lo, bounds.hi) if isinstance(bounds, FixedFormat) else bounds
    if array.dtype != np.int64 or array.shape != shape:
        raise RangeError(f"{name} must be int64 of shape {shape}, not {array.dtype} of shape {array.shape}")
    if array.size and not lo <= array.min() <= array.max() <= hi:
        raise RangeError(f"{name} must be in [{lo}, {hi}], not {array.min()}..{array.max()}")


@kernel
def _stce(x, values, positions, lo, hi, wrap, acc, overflow):
    """Kernel: int64 throughout, no checks, so that JIT on and off agree; updates `acc` and `overflow`."""
    span = hi - lo
    for i in range(acc.shape[0]):
        for j in range(acc.shape[1]):
            for s in range(values.shape[1]):
                total = acc[i, j] + x[i, positions[j, s]] * values[j, s]
                if total < lo or total > hi:
                    overflow[i, j] = True
                    total = ((total - lo) & span) + lo if wrap else min(max(total, lo), hi)
                acc[i, j] = total
