"""Exact products of narrow operands, several to an instruction: octets with AVX-512 VNNI, halves anywhere.

A product is ``x @ w.T`` for activations x of shape (m, k) and weights w of shape (n, k). Sums in a tile have 32 bits. For octets that
bounds k by DEPTH, for halves it is the caller's to prove that every sum of some products of a row fits.

One instruction multiplies unsigned by signed octets. So operands are digits in two's complement, ``x = 256 h + l`` and ``w = 256 h' + l'``
with h and h' signed, l and l' unsigned; an 8-bit operand is a high digit alone. Then, with what depends on weights alone added per column,

    sum x w = 65536 (sum (h + 128) h' - 128 sum h') + 256 (sum l h' + sum h l') + sum (l - 128) l' + 128 sum l'
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray

from accel.jit import kernel
from accel.kernels import simd
from accel.kernels.patches import Patches, _gather
from accel.kernels.requantise import Integers, Prepared, _finish
from accel.kernels.simd import ROWS, WIDTH, WINDOW
from accel.kernels.threads import threads

DEPTH = 1 << 16  # products of octets are below 2**15 in magnitude, and their sums fit in 32 bits
_CACHED = 1 << 18  # our choice: operands of a task that stay in the second cache [octets]
_OCTETS, _HALVES = 150.0, 40.0  # products of octets and of halves in a nanosecond, measured as the costs of the routes
_FINISH = 2.0  # a sum requantised [ns]
_WIDE = 4  # our choice: panels whose sums are requantised together


class Panels(NamedTuple):
    """Weights in the order in which tiles read them.

    Parameters
    ----------
    words : int32, shape (panels, digits, steps * WIDTH), or (panels, digits, steps * 2 * WIDTH) if sparse
        Four octets or two halves of each column side by side; of sparse weights, places and then values.
    windows : int64, shape (steps,), or (0,) if dense
        Where in a row of x each step looks [octets].
    columns : int64, shape (n,)
        What is added to the sums of each column.
    digits : int
        8-bit digits of an operand, 1 or 2, high ones first; 0 for halves.
    """

    words: NDArray[np.int32]
    windows: NDArray[np.int64]
    columns: NDArray[np.int64]
    digits: int


def dense_octets(w: Integers) -> Panels:
    """Lay out dense weights for :func:`multiply` in octets.

    Parameters
    ----------
    w : int8 or int16, shape (n, k)
    """
    digits, columns = _digits(w)
    return Panels(_words([_padded(digit, 4) for digit in digits], 1), np.empty(0, np.int64), columns, len(digits))


def sparse_octets(w: Integers) -> Panels:
    """Lay out the non-zero weights for :func:`multiply` in octets: each step takes up to four of a window from every column.

    Parameters
    ----------
    w : int8 or int16, shape (n, k)
    """
    digits, columns = _digits(w)
    held = sparse_steps(w)
    windows = np.repeat(np.arange(len(held)) * WINDOW, held)
    tables = np.zeros((len(digits), 2, len(w), max(1, len(windows)), 4), np.uint8)
    _spread(np.stack([digit.view(np.uint8) for digit in digits]), w, np.cumsum(held) - held, tables)
    return Panels(_words([table.reshape(len(w), -1) for table in tables.reshape(-1, *tables.shape[2:])], 2), windows, columns, len(digits))


def sparse_steps(w: Integers) -> NDArray[np.int64]:
    """Count the steps of :func:`sparse_octets` in each window; dense octets take four in each.

    Parameters
    ----------
    w : integers, shape (n, k)
    """
    most = np.zeros(-(-w.shape[1] // WINDOW), np.int64)
    most[:1] = 1  # at least one step, if only of zeros
    _most(w, most)
    return -(-most // 4)


def dense_halves(w: NDArray[np.int16]) -> Panels:
    """Lay out dense weights for :func:`multiply` in halves.

    Parameters
    ----------
    w : int16, shape (n, k)
    """
    return Panels(_words([_padded(w, 2)], 1), np.empty(0, np.int64), np.zeros(len(w), np.int64), 0)


def multiply(x: Patches, panels: Panels, to: Prepared) -> None:
    """Multiply activations by the weights of `panels`.

    Parameters
    ----------
    x : Patches of shape (m, k)
        Of int8 if `panels` has one digit, else of int16.
    panels : Panels
    to : Prepared
        Takes the result.
    """
    out, channels, limits = to
    if panels.digits == 0:
        halves = _padded(x.matrix, 2)
        with threads(out.size * (_FINISH + x.shape[1] / _HALVES)):
            _halves(halves, panels.words, _tall(len(halves), halves.strides[0]), out, channels, limits)
        return
    m, k = x.shape
    stride = max(1, -(-k // WINDOW)) * WINDOW
    channels = channels.copy()
    channels[0] += panels.columns
    kind = np.int8 if panels.digits == 1 else np.int16
    with threads(out.size * (_FINISH + panels.digits**2 * k / _OCTETS) + m * k):
        tall = _tall(m, panels.digits**2 * stride)
        _octets(*x.table(kind), k, stride, panels.words, panels.windows, tall, out, channels, limits)


def _tall(m: int, size: int) -> int:
    """Choose the rows of a task: as many for each thread, and operands of `size` octets a row that stay in the second cache."""
    threads = numba.get_num_threads()
    tasks = -(-m * size // (threads * _CACHED)) * threads
    return -(-m // (tasks * ROWS)) * ROWS


def _digits(w: Integers) -> tuple[list[NDArray[np.generic]], NDArray[np.int64]]:
    """High and, if there are any, low digits of weights, and what they add to each column."""
    if w.dtype == np.int8:
        return [w], -128 * w.sum(axis=1, dtype=np.int64)
    high, low = (w >> 8).astype(np.int8), (w & 255).astype(np.uint8)
    return [high, low], -(128 << 16) * high.sum(axis=1, dtype=np.int64) + 128 * low.sum(axis=1, dtype=np.int64)


def _padded(array: NDArray[np.generic], multiple: int) -> NDArray[np.generic]:
    """Copy with columns of zeros up to a multiple that is at least one; contiguous, and itself if that is so already."""
    rows, columns = array.shape
    width = max(1, -(-columns // multiple)) * multiple
    if width == columns:
        return np.ascontiguousarray(array)
    padded = np.zeros((rows, width), array.dtype)
    padded[:, :columns] = array
    return padded


def _words(tables: list[NDArray[np.generic]], together: int) -> NDArray[np.int32]:
    """Put the words of WIDTH rows side by side, and of so many tables one after the other at each step; missing rows are zero.

    The result has shape (panels, tables / together, words) and starts at a multiple of LINE octets.
    """
    words = np.stack([table.view(np.int32) for table in tables])
    panels, steps = -(-words.shape[1] // WIDTH), words.shape[2]
    padded = np.zeros((len(tables), panels * WIDTH, steps), np.int32)
    padded[:, : words.shape[1]] = words
    space = np.empty(padded.nbytes + simd.LINE, np.uint8)
    aligned = space[-space.ctypes.data % simd.LINE :][: padded.nbytes].view(np.int32)
    ordered = aligned.reshape(panels, len(tables) // together, steps, together, WIDTH)
    ordered[...] = padded.reshape(len(tables) // together, together, panels, WIDTH, steps).transpose(2, 0, 4, 1, 3)
    return aligned.reshape(panels, len(tables) // together, -1)


@kernel
def _most(w, most):
    """Kernel: raise `most` to the most non-zero weights that any row has in each window."""
    for j in range(len(w)):
        for window in range(most.size):
            count = 0
            for s in range(window * WINDOW, min((window + 1) * WINDOW, w.shape[1])):
                count += w[j, s] != 0
            most[window] = max(most[window], count)


@kernel
def _spread(digits, w, first, tables):
    """Kernel: fill tables of places and weights, shape (digits, 2, n, steps, 4)."""
    for j in range(w.shape[0]):
        for start in range(0, w.shape[1], WINDOW):
            rank = 4 * first[start // WINDOW]
            for s in range(start, min(start + WINDOW, w.shape[1])):
                if w[j, s] != 0:
                    for d in range(len(digits)):
                        tables[d, 0, j, rank // 4, rank % 4] = s - start
                        tables[d, 1, j, rank // 4, rank % 4] = digits[d, j, s]
                    rank += 1


@kernel
def _split(line, planes):
    """Kernel: fill planes with ``h + 128`` or, of two digits, ``h + 128, l, h, l - 128``; what pads is multiplied by zeros."""
    if len(planes) == 1:
        high = planes[0]
        for s in range(line.size):
            high[s] = line[s] ^ 128
    else:
        raised, low, high, lowered = planes[0], planes[1], planes[2], planes[3]
        for s in range(line.size):
            upper, lower = line[s] >> 8, line[s]  # stored modulo 256
            raised[s], low[s], high[s], lowered[s] = upper ^ 128, lower, upper, lower ^ 128


@kernel
def _dot(x, signed, stride, rows, panel, windows, steps, tile):
    """Kernel: the sums of a tile, of one digit of x and one of the weights; x is an address, the others arrays."""
    codes, places = np.int64(panel.ctypes.data), np.int64(windows.ctypes.data)
    target, pitch = np.int64(tile.ctypes.data), tile.strides[0]
    if windows.size == 0:
        if signed:
            simd.dense_signed_unsigned(x, stride, rows, codes, steps, target, pitch)
        else:
            simd.dense_unsigned_signed(x, stride, rows, codes, steps, target, pitch)
    elif signed:
        simd.sparse_signed_unsigned(x, stride, rows, codes, places, steps, target, pitch)
    else:
        simd.sparse_unsigned_signed(x, stride, rows, codes, places, steps, target, pitch)


@kernel(parallel=True)
def _octets(flat, at, k, stride, words, windows, tall, out, channels, limits):
    m, n = out.shape
    count, steps = words.shape[1] ** 2, windows.size or words.shape[2] // WIDTH
    for task in prange(-(-m // tall)):
        top, bottom = task * tall, min((task + 1) * tall, m)
        planes, line = np.empty((tall, count, stride), np.uint8), np.empty(k, flat.dtype)
        for i in range(top, bottom):
            _gather(flat, at, i, line)
            _split(line, planes[i - top])
        parts, sums = np.empty((count, ROWS, _WIDE * WIDTH), np.int32), np.empty((ROWS, _WIDE * WIDTH), np.int64)
        for first in range(0, len(words), _WIDE):
            left, panels = first * WIDTH, min(_WIDE, len(words) - first)
            cols = min(panels * WIDTH, n - left)
            for i in range(top, bottom, ROWS):
                rows, lines = min(ROWS, bottom - i), np.int64(planes[i - top].ctypes.data)
                for p in range(panels):
                    for part in range(count):  # two planes by the high digits of the weights, two by the low
                        tile, codes = parts[part, :, p * WIDTH : (p + 1) * WIDTH], words[first + p, part // 2]
                        _dot(lines + part * stride, part >= 2, count * stride, rows, codes, windows, steps, tile)
                if count == 1:
                    _finish(parts[0], rows, cols, out, i, left, channels, limits)
                    continue
                for r in range(rows):
                    line, raised, low, high, lowered = sums[r], parts[0, r], parts[1, r], parts[2, r], parts[3, r]
                    for c in range(cols):
                        line[c] = (np.int64(raised[c]) << 16) + ((np.int64(low[c]) + high[c]) << 8) + lowered[c]
                _finish(sums, rows, cols, out, i, left, channels, limits)


@kernel(parallel=True)
def _halves(x, words, tall, out, channels, limits):
    m, n = out.shape
    steps = words.shape[2] // WIDTH
    for task in prange(-(-m // tall)):
        bottom = min((task + 1) * tall, m)
        sums = np.empty((ROWS, _WIDE * WIDTH), np.int32)
        for first in range(0, len(words), _WIDE):
            left, panels = first * WIDTH, min(_WIDE, len(words) - first)
            for i in range(task * tall, bottom, ROWS):
                rows, lines = min(ROWS, bottom - i), np.int64(x[i:].ctypes.data)
                for p in range(panels):
                    codes, tile = np.int64(words[first + p].ctypes.data), np.int64(sums[0, p * WIDTH :].ctypes.data)
                    simd.dense_halves(lines, 2 * x.shape[1], rows, codes, steps, tile, sums.strides[0])
                _finish(sums, rows, min(panels * WIDTH, n - left), out, i, left, channels, limits)
