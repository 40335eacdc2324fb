"""Many small matrix products side by side: depthwise and grouped convolutions, all groups in one pass over the image."""

from __future__ import annotations

import numpy as np
from numba import prange

from accel.config import AcceleratorConfig
from accel.jit import kernel
from accel.kernels.gemm import SLACK, Product, Weights, gemm, ranges, reach
from accel.kernels.patches import Patches
from accel.kernels.requantise import Requantisation, _finish, lanes, prepare
from accel.kernels.threads import threads

_ROWS = 32  # our choice: rows of a task [rows]
_SMALL = 1 << 18  # our choice: multiplications below which a product of its own costs more than it saves [MAC]


def multiply(config: AcceleratorConfig, x: Patches, weights: Weights, groups: int, post: Requantisation | None = None) -> Product:
    """Multiply each group of channels by its own weights, bit for bit as :func:`accel.kernels.gemm.gemm` on each.

    Parameters
    ----------
    config : AcceleratorConfig
        Formats, and the overflow rule.
    x : Patches
        Of all channels of all groups.
    weights : Weights
        Shape (groups * n, k), group by group, k that of one group.
    groups : int
    post : Requantisation, optional
        Of groups * n channels; without it the result is the sums.

    Returns
    -------
    Product
        Shape (m, groups * n).

    Raises
    ------
    RangeError
        If operands are out of range.
    """
    ranges(config, x, weights)
    m, n, channels = x.shape[0], weights.n // groups, x.place.channels // groups
    to = prepare(config, post, m, weights.n)
    flags = np.zeros((m, weights.n), np.bool_)
    bounds = SLACK * reach(weights, x)
    risky = (bounds > config.acc.hi).reshape(groups, n).any(axis=1)
    alone = risky if channels == 1 or m * n * weights.k < _SMALL else np.ones(groups, np.bool_)
    if not alone.all():
        taps = weights.k // (channels * x.place.presented)
        parts = weights.dense.reshape(groups * n, x.place.presented, taps, channels)
        kinds = lanes(to, x.images.dtype, float(bounds[~np.repeat(alone, n)].max()))
        whole = np.ascontiguousarray(parts.sum(axis=1, dtype=kinds.sums).transpose(1, 2, 0))
        source = np.arange(groups * n) // n * channels
        out = to.out.astype(kinds.out, copy=False)
        with threads(out.size * (3.0 + whole.shape[0] * channels)):
            _grouped(*x.table(kinds.x), whole, source, n == channels == 1, out, to.channels, to.limits)
        to = to._replace(out=out.astype(to.out.dtype, copy=False))
    for group in np.flatnonzero(alone).tolist():
        own = slice(group * n, (group + 1) * n)
        place = x.place._replace(first=x.place.first + group * channels, channels=channels)
        single = Patches(x.images, place)
        to.out[:, own], flags[:, own] = gemm(config, single, weights.rows(own), None if post is None else post.channels(own))
    return Product(to.out, flags)


@kernel(parallel=True)
def _grouped(flat, at, weights, source, depthwise, out, channels, limits):
    """Kernel: ``sums[j] = sum over taps and c of x[tap, source[j] + c] * weights[tap, c, j]``, requantised row by row."""
    height, width, pitch, kh, kw = at[0], at[1], at[2], at[3], at[4]
    rows, columns, first, padding = at[11], at[12], at[13], at[15]
    m, n = out.shape
    for task in prange(-(-m // _ROWS)):
        sums = np.empty((1, n), weights.dtype)
        line = sums[0]
        lane = line.dtype.type
        for i in range(task * _ROWS, min((task + 1) * _ROWS, m)):
            image, position = i // (rows * columns), i % (rows * columns)
            top, left = position // columns * at[5] - at[9], position % columns * at[6] - at[10]
            line[:] = 0
            for tap in range(kh * kw):
                y, x = top + tap // kw * at[7], left + tap % kw * at[8]
                inside = 0 <= y < height and 0 <= x < width
                start = ((image * height + y) * width + x) * pitch + first
                for c in range(weights.shape[1]):
                    own = weights[tap, c]
                    if not inside:
                        for j in range(n):
                            line[j] += lane(padding * own[j])
                    elif depthwise:
                        for j in range(n):
                            line[j] += lane(flat[start + j] * own[j])
                    else:
                        for j in range(n):
                            line[j] += lane(flat[start + source[j] + c] * own[j])
            _finish(sums, 1, n, out, i, 0, channels, limits)
