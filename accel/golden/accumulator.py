"""Golden model of the store of partial sums. RTL twin: :class:`accel.rtl.accumulator.Accumulator`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError


class Rows(NamedTuple):
    """Rows of sums in order.

    Parameters
    ----------
    acc : int64, shape (n, C)
        Sums [accumulator LSBs].
    overflow : bool, shape (n, C)
        Sticky overflow bit of each sum.
    """

    acc: NDArray[np.int64]
    overflow: NDArray[np.bool_]


def accumulator(
    config: AcceleratorConfig, acc: NDArray[np.int64], overflow: NDArray[np.bool_], keep: NDArray[np.bool_]
) -> tuple[Rows, Rows]:
    """Part the rows that leave from those that return to the array; each kind stays in order.

    Parameters
    ----------
    config : AcceleratorConfig
    acc : int64, shape (n, C)
        Sums [accumulator LSBs], each in the range of `config.acc`.
    overflow : bool, shape (n, C)
        Sticky overflow bit of each sum.
    keep : bool, shape (n,)
        The row returns to the array.

    Returns
    -------
    o : Rows
        Rows without `keep`.
    psum : Rows
        Rows with `keep`.

    Raises
    ------
    RangeError
        If a shape, a type or a value breaks its rule.
    """
    if acc.dtype != np.int64 or acc.ndim != 2 or acc.shape[1] != config.cols:
        raise RangeError(f"acc must be int64 of shape (n, {config.cols}), not {acc.dtype} of shape {acc.shape}")
    if acc.size and not config.acc.lo <= acc.min() <= acc.max() <= config.acc.hi:
        raise RangeError(f"acc must be in [{config.acc.lo}, {config.acc.hi}], not {acc.min()}..{acc.max()}")
    for name, value, shape in (("overflow", overflow, acc.shape), ("keep", keep, acc.shape[:1])):
        if value.dtype != np.bool_ or value.shape != shape:
            raise RangeError(f"{name} must be bool of shape {shape}, not {value.dtype} of shape {value.shape}")
    return Rows(acc[~keep], overflow[~keep]), Rows(acc[keep], overflow[keep])
