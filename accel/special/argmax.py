"""Index of the largest element."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.special.integers import Integers


def argmax(x: Integers, last: bool = False) -> NDArray[np.int64]:
    """Find the largest element along the last axis.

    Exact: a comparison per element and its place; there is nothing to round, so its bound is 0.

    Parameters
    ----------
    x : signed integers, shape (..., n)
        n is 1 or more.
    last : bool
        Of equal elements the last one, else the first.

    Returns
    -------
    int64, shape (...)
        0 to n - 1.

    Raises
    ------
    RangeError
        If there is nothing to choose from.
    """
    if x.dtype.kind != "i" or x.ndim == 0 or x.shape[-1] == 0:
        raise RangeError(f"x must be signed integers of shape (..., n), n 1 or more, not {x.dtype} of shape {x.shape}")
    if last:
        return np.asarray(x.shape[-1] - 1 - np.argmax(x[..., ::-1], axis=-1), np.int64)
    return np.asarray(np.argmax(x, axis=-1), np.int64)
