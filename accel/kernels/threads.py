"""How many threads a kernel takes: results are the same with any number, and starting them costs time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba

from accel.jit import settings

ALONE = 1e6  # our choice: what takes one thread less than this runs on one; waiting for another can cost more on a busy machine [ns]


@contextmanager
def threads(cost: float) -> Iterator[None]:
    """Run kernels on one thread if they are short.

    Parameters
    ----------
    cost : float
        Time that one thread takes, roughly [ns].
    """
    if settings.DISABLE_JIT or cost >= ALONE:
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)
