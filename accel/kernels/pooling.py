"""The vector unit's sums and maxima where nothing can overflow: straight from the images, requantised at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import prange
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.jit import kernel
from accel.kernels.patches import Patches
from accel.kernels.requantise import Integers, Requantisation, _finish, lanes, prepare
from accel.kernels.threads import threads

_ROWS = 32  # our choice: rows of a task [rows]


def pool(config: AcceleratorConfig, x: Patches, positions: NDArray[np.int64], maximum: bool, post: Requantisation) -> Integers | None:
    """Add up what a window sees, or find the largest of it, channel by channel.

    Parameters
    ----------
    config : AcceleratorConfig
    x : Patches
    positions : int64, shape (positions,)
        Positions of the window in each image that are wanted.
    maximum : bool
    post : Requantisation
        Of the channels that the window sees.

    Returns
    -------
    signed integers, shape (images * positions, channels), or None
        None where a sum might overflow.
    """
    taps = x.place.kernel[0] * x.place.kernel[1]
    lo, hi = x.ends
    if not config.acc.lo <= min(lo, 0) * (1 if maximum else taps) <= max(hi, 0) * (1 if maximum else taps) <= config.acc.hi:
        return None
    to = prepare(config, post, len(x.images) * len(positions), x.place.channels)
    kinds = lanes(to, x.images.dtype, config.acc.hi)
    out = to.out.astype(kinds.out, copy=False)
    with threads(out.size * (3.0 + taps)):
        _pool(*x.table(kinds.x), positions, maximum, np.zeros(1, kinds.sums), out, to.channels, to.limits)
    return out.astype(to.out.dtype, copy=False)


def weighted(config: AcceleratorConfig, xs: Sequence[Integers], coefficients: Sequence[int], post: Requantisation) -> Integers | None:
    """Add up one or two matrices, each times a coefficient.

    Parameters
    ----------
    config : AcceleratorConfig
    xs : sequence of signed integers, each of shape (m, n)
    coefficients : sequence of int
    post : Requantisation

    Returns
    -------
    signed integers, shape (m, n), or None
        None where a sum might overflow.
    """
    reach = sum(abs(c) * max(-int(x.min(initial=0)), int(x.max(initial=0))) for c, x in zip(coefficients, xs, strict=True))
    if len(xs) > 2 or reach > config.acc.hi:
        return None
    to = prepare(config, post, *xs[0].shape)
    kinds = lanes(to, np.result_type(*xs), config.acc.hi)
    first, second = (np.ascontiguousarray(x, kinds.x) for x in (xs[0], xs[-1]))
    out = to.out.astype(kinds.out, copy=False)
    tail = coefficients[1] if len(xs) > 1 else 0
    with threads(3.0 * out.size):
        _weighted(first, second, coefficients[0], tail, np.zeros(1, kinds.sums), out, to.channels, to.limits)
    return out.astype(to.out.dtype, copy=False)


@kernel(parallel=True)
def _pool(flat, at, positions, maximum, zero, out, channels, limits):
    height, width, pitch, kh, kw = at[0], at[1], at[2], at[3], at[4]
    columns, first, padding = at[12], at[13], at[15]
    m, n = out.shape
    for task in prange(-(-m // _ROWS)):
        sums = np.empty((1, n), zero.dtype)
        line = sums[0]
        lane = line.dtype.type
        for i in range(task * _ROWS, min((task + 1) * _ROWS, m)):
            image, position = i // positions.size, positions[i % positions.size]
            top, left = position // columns * at[5] - at[9], position % columns * at[6] - at[10]
            line[:] = 0
            for tap in range(kh * kw):
                y, x = top + tap // kw * at[7], left + tap % kw * at[8]
                start = ((image * height + y) * width + x) * pitch + first
                if not (0 <= y < height and 0 <= x < width):
                    if not maximum:
                        for j in range(n):
                            line[j] += lane(padding)
                    else:
                        for j in range(n):
                            line[j] = lane(padding) if tap == 0 else max(line[j], lane(padding))
                elif not maximum:
                    for j in range(n):
                        line[j] += lane(flat[start + j])
                elif tap == 0:
                    for j in range(n):
                        line[j] = lane(flat[start + j])
                else:
                    for j in range(n):
                        line[j] = max(line[j], lane(flat[start + j]))
            _finish(sums, 1, n, out, i, 0, channels, limits)


@kernel(parallel=True)
def _weighted(first, second, head, tail, zero, out, channels, limits):
    m, n = out.shape
    for task in prange(-(-m // _ROWS)):
        sums = np.empty((1, n), zero.dtype)
        line = sums[0]
        lane = line.dtype.type
        by, over = lane(head), lane(tail)
        for i in range(task * _ROWS, min((task + 1) * _ROWS, m)):
            one, two = first[i], second[i]
            for j in range(n):
                line[j] = lane(lane(one[j]) * by) + lane(lane(two[j]) * over)
            _finish(sums, 1, n, out, i, 0, channels, limits)
