"""What stands between products in a training step, forward and backward: ReLU, sums, poolings; exact integers, one rounding each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from accel import quant
from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.graph.window import Window
from accel.jit import kernel
from accel.kernels.threads import threads
from accel.special.integers import WIDEST, Integers
from accel.special.tensors import FURTHEST, _rounding, alike, images, kind_of, tasks_of, tensor

APART = 30  # fraction bits by which the addends of a sum may differ: what is summed then stays below 2**47
MULT_BITS = 31  # of the reciprocal of a count, at most: with a sum of 31 bits they fit in 62


def relu(x: Integers) -> NDArray[Any]:
    """``max(x, 0)``, of the type and the format of x; nothing can saturate.

    Parameters
    ----------
    x : signed integers, any shape
    """
    return np.maximum(x, 0)


def relu_backward(dy: Integers, y: Integers) -> NDArray[Any]:
    """Mask a gradient: dy where ``y > 0``, else 0, of the type and the format of dy; nothing can saturate.

    Parameters
    ----------
    dy : signed integers, any shape
    y : signed integers, same shape
        What :func:`relu` returned, or its operand.
    """
    alike("y", y, dy.shape)
    if dy.dtype != y.dtype or dy.itemsize > 2:  # what is not usual is not worth a kernel of its own
        return np.where(y > 0, dy, dy.dtype.type(0))
    out = np.empty(dy.shape, dy.dtype)
    with threads(0.15 * dy.size):
        _mask(np.ascontiguousarray(dy).reshape(-1), np.ascontiguousarray(y).reshape(-1), out.reshape(-1), tasks_of(dy.size, dy.size))
    return out


def add(a: Integers, a_format: FixedFormat, b: Integers, b_format: FixedFormat, y_format: FixedFormat) -> tuple[NDArray[Any], int]:
    """Add two tensors: both brought to the finer fraction, summed exactly, rounded once.

    Its gradient is dy for either input: :func:`convert`.

    Parameters
    ----------
    a : signed integers, any shape
    a_format : FixedFormat
    b : signed integers, shape of a
    b_format : FixedFormat
        Its fraction differs from a's by at most :data:`APART` bits.
    y_format : FixedFormat

    Returns
    -------
    y : int8 or int16, shape of a
    saturated : int
        Elements that were outside of the format.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    alike("b", b, a.shape)
    if abs(a_format.frac - b_format.frac) > APART:
        lo, hi = a_format.frac - APART, a_format.frac + APART
        raise RangeError(f"b_format must have between {lo} and {hi} fraction bits, not {b_format.frac}")
    common = max(a_format.frac, b_format.frac)
    shifts = (common - a_format.frac, common - b_format.frac)
    return _sum((tensor("a", a, a_format), tensor("b", b, b_format)), shifts, common, y_format)


def convert(x: Integers, x_format: FixedFormat, y_format: FixedFormat) -> tuple[NDArray[Any], int]:
    """Bring a tensor to another format, rounded once: what a reader of a tensor contributes to its gradient.

    Parameters
    ----------
    x : signed integers, any shape
    x_format, y_format : FixedFormat

    Returns
    -------
    y : int8 or int16, shape of x
    saturated : int
        Elements that were outside of the format.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    narrow = tensor("x", x, x_format)
    if x_format == y_format:
        return narrow, 0
    return _sum((narrow, narrow), (0, -1), x_format.frac, y_format)


def accumulate(parts: Sequence[Integers], format: FixedFormat) -> tuple[NDArray[Any], int]:
    """Add up the contributions to a gradient, exactly, and saturate once.

    Parameters
    ----------
    parts : sequence of signed integers, one or more of one shape
    format : FixedFormat
        Of every part and of the sum.

    Returns
    -------
    y : int8 or int16, shape of a part
        The part itself if there is only one.
    saturated : int
        Elements that were outside of the format.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    narrow = [tensor("parts", part, format) for part in parts]
    for part in narrow:
        alike("parts", part, narrow[0].shape)
    if len(narrow) == 1:
        return narrow[0], 0
    if len(narrow) == 2:
        return _sum((narrow[0], narrow[1]), (0, 0), format.frac, format)
    whole = np.add(narrow[0], narrow[1], dtype=np.int64)
    for part in narrow[2:]:
        whole += part
    kept = np.clip(whole, format.lo, format.hi)
    return kept.astype(narrow[0].dtype), int(np.count_nonzero(kept != whole))


def max_pool(x: Integers, format: FixedFormat, window: Window) -> tuple[NDArray[Any], NDArray[np.int16]]:
    """Find the largest element of each window, and where it was; padding never wins, and nothing can saturate.

    Parameters
    ----------
    x : signed integers, shape (samples, height, width, channels)
    format : FixedFormat
        Of x and of the result.
    window : Window

    Returns
    -------
    y : int8 or int16, shape (samples, rows, columns, channels)
        ``format.lo`` where a window sees padding alone.
    winner : int16, same shape
        Its tap, ``kh * width of the kernel + kw``, the first of equal ones; -1 where there is none.
    """
    images("x", x)
    narrow, at = tensor("x", x, format), _geometry(window, x.shape)
    shape = (x.shape[0], *_positions(window, x.shape), x.shape[3])
    y, winner = np.full(shape, format.lo, narrow.dtype), np.full(shape, -1, np.int16)
    with threads(0.3 * y.size * window.taps):
        _max_pool(narrow, at, y, winner)
    return y, winner


def max_pool_backward(
    dy: Integers, format: FixedFormat, winner: NDArray[np.int16], window: Window, shape: tuple[int, ...]
) -> tuple[NDArray[Any], int]:
    """Hand the gradient of each window to its winner; where windows overlap their exact sum saturates once.

    Parameters
    ----------
    dy : signed integers, shape (samples, rows, columns, channels)
    format : FixedFormat
        Of dy and of the result.
    winner : int16, same shape
        From :func:`max_pool`.
    window : Window
    shape : tuple of int
        Of x: (samples, height, width, channels).

    Returns
    -------
    dx : int8 or int16, shape `shape`
    saturated : int
        Elements that were outside of the format.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    alike("dy", dy, (shape[0], *_positions(window, shape), shape[3]))
    alike("winner", winner, dy.shape)
    narrow = tensor("dy", dy, format)
    dx = np.empty(shape, narrow.dtype)
    saturated = np.zeros(shape[0] * shape[1], np.int64)
    with threads(0.6 * dy.size * window.taps):
        _max_pool_backward(narrow, np.ascontiguousarray(winner), _geometry(window, shape), format.lo, format.hi, dx, saturated)
    return dx, int(saturated.sum())


def average_pool(
    x: Integers, x_format: FixedFormat, window: Window, counted: bool, y_format: FixedFormat, mult_bits: int
) -> tuple[NDArray[Any], int]:
    """Average what each window sees: exact sum, one multiplication by the reciprocal of the count, one rounding, as in inference.

    Parameters
    ----------
    x : signed integers, shape (samples, height, width, channels)
    x_format : FixedFormat
    window : Window
    counted : bool
        Whether padding counts in the divisor.
    y_format : FixedFormat
    mult_bits : int
        Width of the multiplier, at most :data:`MULT_BITS`.

    Returns
    -------
    y : int8 or int16, shape (samples, rows, columns, channels)
        0 where a window sees padding alone.
    saturated : int
        Elements that were outside of the format.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    images("x", x)
    narrow = tensor("x", x, x_format)
    counts = divisors(window, counted, x.shape)
    mult, shift = _reciprocals(counts, y_format.frac - x_format.frac, mult_bits, common=False)
    narrow, y = _paired(narrow, (x.shape[0], *counts.shape, x.shape[3]), to := kind_of("y", y_format))
    saturated = np.zeros(x.shape[0] * counts.shape[0], np.int64)
    with threads(0.4 * y.size * window.taps):
        _average_pool(narrow, _geometry(window, x.shape), mult, shift, y_format.lo, y_format.hi, y, saturated)
    return y.astype(to, copy=False), int(saturated.sum())


def average_pool_backward(
    dy: Integers, dy_format: FixedFormat, window: Window, counted: bool, shape: tuple[int, ...], dx_format: FixedFormat, mult_bits: int
) -> tuple[NDArray[Any], int]:
    """Spread the gradient of each window over what it saw: ``dx = round(sum dy * mult / 2**shift)`` over the windows that see an element.

    One shift for all windows, that of the least count; each window's multiplier is the nearest for its own count. Where all counts are
    equal this is the exact sum, multiplied once. One rounding.

    Parameters
    ----------
    dy : signed integers, shape (samples, rows, columns, channels)
    dy_format : FixedFormat
    window : Window
    counted : bool
        Whether padding counts in the divisor.
    shape : tuple of int
        Of x: (samples, height, width, channels).
    dx_format : FixedFormat
    mult_bits : int
        Width of the multiplier, at most :data:`MULT_BITS`.

    Returns
    -------
    dx : int8 or int16, shape `shape`
    saturated : int
        Elements that were outside of the format.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    counts = divisors(window, counted, shape)
    alike("dy", dy, (shape[0], *counts.shape, shape[3]))
    mult, shift = _reciprocals(counts, dx_format.frac - dy_format.frac, mult_bits, common=True)
    narrow, dx = _paired(tensor("dy", dy, dy_format), shape, to := kind_of("dx", dx_format))
    saturated = np.zeros(shape[0] * shape[1], np.int64)
    with threads(0.9 * dy.size * window.taps):
        _average_pool_backward(narrow, _geometry(window, shape), mult, int(shift.max()), dx_format.lo, dx_format.hi, dx, saturated)
    return dx.astype(to, copy=False), int(saturated.sum())


def divisors(window: Window, counted: bool, shape: Sequence[int]) -> NDArray[np.int64]:
    """Count what each window of an average pooling divides by.

    Parameters
    ----------
    window : Window
    counted : bool
        Whether padding counts.
    shape : sequence of int
        Of x: (samples, height, width, channels).

    Returns
    -------
    int64, shape (rows, columns)
        0 where a window sees padding alone and that does not count.
    """
    axes = []
    for axis, places in enumerate(_positions(window, shape)):
        size, before, after = shape[1 + axis], window.pads[axis], window.pads[axis + 2]
        first = np.arange(places) * window.stride[axis] - before
        at = first[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        inside = (at >= -before) & (at < size + after) if counted else (at >= 0) & (at < size)
        axes.append(inside.sum(axis=1, dtype=np.int64))
    return np.outer(*axes)


def _positions(window: Window, shape: Sequence[int]) -> tuple[int, int]:
    rows, columns = window.positions(shape[1], shape[2])
    if rows < 1 or columns < 1:
        raise RangeError(f"window must fit into the padded image, not {window.kernel} into {tuple(shape[1:3])} with pads {window.pads}")
    return rows, columns


def _geometry(window: Window, shape: Sequence[int]) -> NDArray[np.int64]:
    """Return the window in numbers, for kernels: kernel, stride, dilation, pads before."""
    if window.taps > 1 << WIDEST - 1:
        raise RangeError(f"window must have at most {1 << WIDEST - 1} taps, not {window.taps}")
    return np.array([*window.kernel, *window.stride, *window.dilation, *window.pads[:2]], np.int64)


def _reciprocals(counts: NDArray[np.int64], frac: int, mult_bits: int, common: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return multipliers and shifts of ``2**frac / count``, 0 for a count of 0; one shift for all if `common`."""
    if type(mult_bits) is not int or not 1 <= mult_bits <= MULT_BITS:
        raise RangeError(f"mult_bits must be an int in [1, {MULT_BITS}], not {mult_bits!r}")
    mult, shift = quant.nearest_multiplier(2.0**frac / np.maximum(counts, 1), mult_bits)
    if common:
        least = int(shift[counts > 0].min()) if counts.any() else 0
        mult = np.rint(np.ldexp(2.0**frac / np.maximum(counts, 1), least)).astype(np.int64)
        shift = np.full_like(counts, least)
    return np.where(counts > 0, mult, 0), shift


def _sum(parts: tuple[NDArray[Any], NDArray[Any]], shifts: tuple[int, int], frac: int, y_format: FixedFormat) -> tuple[NDArray[Any], int]:
    """Shift left, add, round to a format; a shift of -1 leaves a part out."""
    a, y = _paired(parts[0].reshape(-1), (parts[0].size,), np.result_type(parts[1], to := kind_of("y", y_format)))
    b = parts[1].reshape(-1).astype(a.dtype, copy=False)
    drop = frac - y_format.frac
    right, left = min(max(drop, 0), FURTHEST), min(max(-drop, 0), WIDEST)  # what is not 0 saturates beyond
    saturated = np.zeros(tasks_of(y.size, y.size), np.int64)
    weights = [0 if shift < 0 else 1 << shift for shift in shifts]
    with threads(0.4 * y.size):
        _add(a, b, weights[0], weights[1], right, left, y_format.lo, y_format.hi, y, saturated)
    return y.astype(to, copy=False).reshape(parts[0].shape), int(saturated.sum())


def _paired(x: NDArray[Any], shape: tuple[int, ...], to: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bring an operand and an empty result to one type, which holds both: each pair of types takes seconds to compile."""
    kind = np.result_type(x, to)
    return x.astype(kind, copy=False), np.empty(shape, kind)


@kernel(parallel=True)
def _mask(dy, y, out, tasks):
    for task in prange(tasks):
        first, last = task * dy.size // tasks, (task + 1) * dy.size // tasks
        slope, seen, kept = dy[first:last], y[first:last], out[first:last]
        for i in range(slope.size):
            kept[i] = slope[i] if seen[i] > 0 else 0


@kernel(parallel=True)
def _add(a, b, head, tail, right, left, lo, hi, y, saturated):
    tasks = len(saturated)
    below, odd = _rounding(right)
    for task in prange(tasks):
        clipped = 0
        first, last = task * a.size // tasks, (task + 1) * a.size // tasks
        one, two, out = a[first:last], b[first:last], y[first:last]
        for i in range(out.size):
            value = np.int64(one[i]) * head + np.int64(two[i]) * tail
            value = ((value + below + ((value >> right) & odd)) >> right) << left
            kept = min(max(value, lo), hi)
            clipped += kept != value
            out[i] = kept
        saturated[task] = clipped


@kernel(parallel=True)
def _max_pool(x, at, y, winner):
    samples, height, width, channels = x.shape
    rows, columns = y.shape[1], y.shape[2]
    for task in prange(samples * rows):
        sample, row = task // rows, task % rows
        for column in range(columns):
            best, place = y[sample, row, column], winner[sample, row, column]
            for tap in range(at[0] * at[1]):
                i = row * at[2] - at[6] + tap // at[1] * at[4]
                k = column * at[3] - at[7] + tap % at[1] * at[5]
                if 0 <= i < height and 0 <= k < width:
                    line = x[sample, i, k]
                    for j in range(channels):
                        if line[j] > best[j] or place[j] < 0:
                            best[j] = line[j]
                            place[j] = tap


@kernel(parallel=True)
def _max_pool_backward(dy, winner, at, lo, hi, dx, saturated):
    samples, height, width, channels = dx.shape
    rows, columns = dy.shape[1], dy.shape[2]
    for task in prange(samples * height):
        sample, i = task // height, task % height
        sums = np.empty(channels, np.int64)
        clipped = 0
        for k in range(width):
            sums[:] = 0
            for tap in range(at[0] * at[1]):
                row, column = i + at[6] - tap // at[1] * at[4], k + at[7] - tap % at[1] * at[5]
                if row % at[2] == 0 and column % at[3] == 0 and 0 <= row < rows * at[2] and 0 <= column < columns * at[3]:
                    slope, place = dy[sample, row // at[2], column // at[3]], winner[sample, row // at[2], column // at[3]]
                    for j in range(channels):
                        sums[j] += slope[j] if place[j] == tap else 0
            out = dx[sample, i, k]
            for j in range(channels):
                kept = min(max(sums[j], lo), hi)
                clipped += kept != sums[j]
                out[j] = kept
        saturated[task] = clipped


@kernel(parallel=True)
def _average_pool(x, at, mult, shift, lo, hi, y, saturated):
    samples, height, width, channels = x.shape
    rows, columns = y.shape[1], y.shape[2]
    for task in prange(samples * rows):
        sample, row = task // rows, task % rows
        sums = np.empty(channels, np.int64)
        clipped = 0
        for column in range(columns):
            sums[:] = 0
            for tap in range(at[0] * at[1]):
                i = row * at[2] - at[6] + tap // at[1] * at[4]
                k = column * at[3] - at[7] + tap % at[1] * at[5]
                if 0 <= i < height and 0 <= k < width:
                    line = x[sample, i, k]
                    for j in range(channels):
                        sums[j] += line[j]
            clipped += _finish(sums, mult[row, column], shift[row, column], lo, hi, y[sample, row, column])
        saturated[task] = clipped


@kernel(parallel=True)
def _average_pool_backward(dy, at, mult, shift, lo, hi, dx, saturated):
    samples, height, width, channels = dx.shape
    rows, columns = dy.shape[1], dy.shape[2]
    for task in prange(samples * height):
        sample, i = task // height, task % height
        sums = np.empty(channels, np.int64)
        clipped = 0
        for k in range(width):
            sums[:] = 0
            for tap in range(at[0] * at[1]):
                row, column = i + at[6] - tap // at[1] * at[4], k + at[7] - tap % at[1] * at[5]
                if row % at[2] == 0 and column % at[3] == 0 and 0 <= row < rows * at[2] and 0 <= column < columns * at[3]:
                    slope, weight = dy[sample, row // at[2], column // at[3]], mult[row // at[2], column // at[3]]
                    for j in range(channels):
                        sums[j] += np.int64(slope[j]) * weight
            clipped += _finish(sums, 1, shift, lo, hi, dx[sample, i, k])
        saturated[task] = clipped


@kernel
def _finish(sums, mult, shift, lo, hi, out):
    """Kernel: scale, round half to even, clip; returns how many were clipped."""
    below, odd = _rounding(shift)
    clipped = 0
    for j in range(sums.size):
        value = sums[j] * mult
        value = (value + below + ((value >> shift) & odd)) >> shift
        kept = min(max(value, lo), hi)
        clipped += kept != value
        out[j] = kept
    return clipped
