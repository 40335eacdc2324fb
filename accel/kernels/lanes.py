"""Products with one row of activations per vector lane: any width of operands, and the overflow rule after every addition.

Pairs of weights and positions are taken one after the other, so these routes are sequential in k, as the golden model, and skip what is not
stored. Activations are laid out in blocks of rows, the reduction outermost.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange
from numpy.typing import DTypeLike, NDArray

from accel.formats import FixedFormat, Overflow
from accel.jit import kernel
from accel.kernels.requantise import Integers
from accel.kernels.threads import threads

_BLOCK = 256  # our choice: rows of a block, at most
_LANES = 64  # our choice: rows of a block are a multiple, so that whole vectors cover them
_PRODUCTS = 8.0  # of the slower type in a nanosecond, measured as the costs of the routes
_TOGETHER = 4  # pairs added while a sum is in a register


def multiply(x: Integers, values: Integers, positions: NDArray[np.int64], kind: DTypeLike) -> Integers:
    """Multiply where no sum of some products of a row overflows its lane.

    Parameters
    ----------
    x : int8, int16 or int32, shape (m, k)
    values : signed integers, shape (n, pairs)
    positions : int64, shape (n, pairs)
        Column of x that each value multiplies.
    kind : int32 or int64
        Type of a lane.

    Returns
    -------
    int32 or int64, shape (m, n)
        Sums.
    """
    sums = np.empty((len(x), len(values)), kind)
    with threads(len(x) * values.size / _PRODUCTS):
        _multiply(*_cut(x, len(values)), *_whole(values, positions, kind), sums)
    return sums


def accumulate(
    x: Integers,
    values: Integers,
    positions: NDArray[np.int64],
    acc: Integers,
    overflow: NDArray[np.bool_],
    format: FixedFormat,
    rule: Overflow,
) -> None:
    """Add products to sums one by one, apply the overflow rule to each sum, and mark the sums that it ever changed.

    Parameters
    ----------
    x : int8, int16 or int32, shape (m, k)
    values : signed integers, shape (n, pairs)
    positions : int64, shape (n, pairs)
        Column of x that each value multiplies.
    acc : int32 or int64, shape (m, n)
        Sums before and after; of the type of a lane, which holds the sum of any product and any integer of the format.
    overflow : bool, shape (m, n)
        Overflow bits before and after.
    format : FixedFormat
        Of the sums.
    rule : Overflow
    """
    with threads(2 * len(x) * values.size / _PRODUCTS):
        cut, whole = _cut(x, len(values)), _whole(values, positions, acc.dtype)
        _accumulate(*cut, *whole, acc, overflow, format.lo, format.hi, rule is Overflow.WRAP)


def _cut(x: Integers, n: int) -> tuple[Integers, int, int]:
    """Choose int16 or int32 for x, the rows of a block, and into how many parts the columns go: tasks for every thread."""
    threads = numba.get_num_threads()
    width = min(_BLOCK, -(-len(x) // (threads * _LANES)) * _LANES)
    blocks = -(-len(x) // width)
    return x.astype(np.int16 if x.itemsize <= 2 else np.int32, copy=False), width, min(n, -(-threads // blocks))


def _whole(values: Integers, positions: NDArray[np.int64], kind: DTypeLike) -> tuple[Integers, NDArray[np.int64]]:
    """Pad with pairs of value 0, which change no sum, to a multiple of _TOGETHER."""
    lack = ((0, 0), (0, -values.shape[1] % _TOGETHER))
    return np.pad(values.astype(kind), lack), np.pad(positions, lack)


@kernel
def _transposed(x, width):
    """Kernel: lay out rows as lanes: shape (k, width), lanes beyond the last row are zero."""
    lines = np.zeros((x.shape[1], width), x.dtype)
    for left in range(0, x.shape[1], _LANES):
        for lane in range(min(width, len(x))):
            for s in range(left, min(left + _LANES, x.shape[1])):
                lines[s, lane] = x[lane, s]
    return lines


@kernel
def _add(x, values, positions, sums):
    """Kernel: add _TOGETHER products to a line of sums."""
    lane = sums.dtype.type
    w0, w1, w2, w3 = values[0], values[1], values[2], values[3]
    x0, x1, x2, x3 = x[positions[0]], x[positions[1]], x[positions[2]], x[positions[3]]
    for i in range(sums.size):
        sums[i] += lane(x0[i] * w0) + lane(x1[i] * w1) + lane(x2[i] * w2) + lane(x3[i] * w3)


@kernel
def _add_saturating(x, values, positions, sums, changed, lo, hi):
    """Kernel: add _TOGETHER products to a line of sums, saturating after each, and collect the bits that this changed."""
    lane = sums.dtype.type
    lo, hi = lane(lo), lane(hi)
    w0, w1, w2, w3 = values[0], values[1], values[2], values[3]
    x0, x1, x2, x3 = x[positions[0]], x[positions[1]], x[positions[2]], x[positions[3]]
    for i in range(sums.size):
        exact0 = lane(sums[i] + lane(x0[i] * w0))
        kept0 = min(max(exact0, lo), hi)
        exact1 = lane(kept0 + lane(x1[i] * w1))
        kept1 = min(max(exact1, lo), hi)
        exact2 = lane(kept1 + lane(x2[i] * w2))
        kept2 = min(max(exact2, lo), hi)
        exact3 = lane(kept2 + lane(x3[i] * w3))
        kept3 = min(max(exact3, lo), hi)
        changed[i] |= (exact0 ^ kept0) | (exact1 ^ kept1) | (exact2 ^ kept2) | (exact3 ^ kept3)
        sums[i] = kept3


@kernel
def _add_wrapping(x, values, positions, sums, changed, lo, hi):
    """Kernel: as :func:`_add_saturating`, but wrapping."""
    lane = sums.dtype.type
    mask, sign = lane(hi - lo), lane(hi + 1)
    w0, w1, w2, w3 = values[0], values[1], values[2], values[3]
    x0, x1, x2, x3 = x[positions[0]], x[positions[1]], x[positions[2]], x[positions[3]]
    for i in range(sums.size):
        exact0 = lane(sums[i] + lane(x0[i] * w0))
        kept0 = lane(lane(lane(exact0 & mask) ^ sign) - sign)
        exact1 = lane(kept0 + lane(x1[i] * w1))
        kept1 = lane(lane(lane(exact1 & mask) ^ sign) - sign)
        exact2 = lane(kept1 + lane(x2[i] * w2))
        kept2 = lane(lane(lane(exact2 & mask) ^ sign) - sign)
        exact3 = lane(kept2 + lane(x3[i] * w3))
        kept3 = lane(lane(lane(exact3 & mask) ^ sign) - sign)
        changed[i] |= (exact0 ^ kept0) | (exact1 ^ kept1) | (exact2 ^ kept2) | (exact3 ^ kept3)
        sums[i] = kept3


@kernel(parallel=True)
def _multiply(x, width, parts, values, positions, sums):
    m, n = sums.shape
    for task in prange(-(-m // width) * parts):
        top, part = task // parts * width, task % parts
        lines, line = _transposed(x[top:], width), np.empty(width, sums.dtype)
        for j in range(n * part // parts, n * (part + 1) // parts):
            line[:] = 0
            for s in range(0, values.shape[1], _TOGETHER):
                _add(lines, values[j, s : s + _TOGETHER], positions[j, s : s + _TOGETHER], line)
            for r in range(min(width, m - top)):
                sums[top + r, j] = line[r]


@kernel(parallel=True)
def _accumulate(x, width, parts, values, positions, acc, overflow, lo, hi, wrap):
    m, n = acc.shape
    for task in prange(-(-m // width) * parts):
        top, part = task // parts * width, task % parts
        lines, line, changed = _transposed(x[top:], width), np.zeros(width, acc.dtype), np.empty(width, acc.dtype)
        rows = min(width, m - top)
        for j in range(n * part // parts, n * (part + 1) // parts):
            changed[:] = 0
            for r in range(rows):
                line[r] = acc[top + r, j]
            for s in range(0, values.shape[1], _TOGETHER):
                if wrap:
                    _add_wrapping(lines, values[j, s : s + _TOGETHER], positions[j, s : s + _TOGETHER], line, changed, lo, hi)
                else:
                    _add_saturating(lines, values[j, s : s + _TOGETHER], positions[j, s : s + _TOGETHER], line, changed, lo, hi)
            for r in range(rows):
                acc[top + r, j] = line[r]
                overflow[top + r, j] |= changed[r] != 0
