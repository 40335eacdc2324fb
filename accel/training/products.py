"""The three matrix products of a training step, for one convolution: FF, BP and WU, exact sums and one rounding (decision 17)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray

from accel import sparsity
from accel.config import AcceleratorConfig
from accel.formats import Rounding
from accel.graph.trainable import Convolution
from accel.graph.window import Window
from accel.isa import SHIFT_BITS
from accel.jit import kernel
from accel.kernels.gemm import Weights, gemm
from accel.kernels.grouped import multiply as multiply_groups
from accel.kernels.patches import Patches, Place
from accel.kernels.requantise import Integers, narrowest
from accel.kernels.threads import threads
from accel.schedule.lower import Phase, phases
from accel.sparsity import Codes, Pattern

CHUNK = 1 << 22  # our choice: elements of the largest operand matrix held at once
DEPTH = 1 << 16  # our choice: products added by one call of WU, at most: as many as the fastest route takes
_TILE = 32  # our choice: channels that are turned together; 64 octets of 16 bits, a line of the cache
_HALF_EVEN = Rounding.HALF_EVEN.code


class Rounded(NamedTuple):
    """Results of a product in their format.

    Parameters
    ----------
    value : integers, any shape
        Of the narrowest type that holds the operands.
    saturated : int
        Results that were outside of their format. What a floor of 0 (ReLU) clips is not counted.
    overflowed : int
        Sums that left the accumulator on their way.
    """

    value: Integers
    saturated: int
    overflowed: int


def rounded(
    config: AcceleratorConfig, sums: Integers, shift: int, bias: NDArray[np.int64] | None = None, floor: int | None = None
) -> Rounded:
    """Round sums as the post-processor does: ``clip(round_half_even((sum + bias) * 2**-shift), floor, hi)``.

    Parameters
    ----------
    config : AcceleratorConfig
    sums : int32 or int64, shape (m, n)
    shift : int
        Dropped bits; a negative one is a multiplier of ``2**-shift``, which `mult_bits` hold.
    bias : int64, shape (n,), optional
    floor : int, optional
        Least result; without it that of the format.
    """
    out = np.empty(sums.shape, narrowest(config.act.lo, config.act.hi))
    addend = np.zeros(sums.shape[1], np.int64) if bias is None else bias
    lo = config.act.lo if floor is None else floor
    parts = np.zeros(numba.get_num_threads(), np.int64)
    dropped = min(shift, (1 << SHIFT_BITS) - 1)  # of no more than 62 bits: 0 all the same
    with threads(2.0 * sums.size):
        _rounded(sums, addend, max(dropped, 0), max(-dropped, 0), lo, config.act.hi, lo == config.act.lo, out, parts)
    return Rounded(out, int(parts.sum()), 0)


def forward(
    config: AcceleratorConfig,
    layer: Convolution,
    x: Integers,
    weights: Integers,
    bias: NDArray[np.int64] | None,
    shift: int,
    floor: int | None,
) -> Rounded:
    """Multiply activations by weights: FF.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Convolution
    x : integers, shape (samples, height, width, channels)
    weights : integers, shape (filters, kh, kw, channels / groups)
        Zeros where they are pruned.
    bias : int64, shape (filters,), or None
        [product LSBs]
    shift : int
        See :func:`rounded`.
    floor : int or None

    Returns
    -------
    Rounded
        Shape (samples, rows, columns, filters).
    """
    window = layer.window
    positions = window.positions(*x.shape[1:3])
    place = Place(window.kernel, window.stride, window.dilation, window.pads[:2], positions, 0, layer.channels)
    matrix = Weights(weights.reshape(layer.filters, -1))
    sums, overflow = _multiplied(config, Patches(x, place), matrix, layer.groups)
    result = rounded(config, sums, shift, bias, floor)
    return Rounded(result.value.reshape(len(x), *positions, layer.filters), result.saturated, int(np.count_nonzero(overflow)))


def backward(config: AcceleratorConfig, layer: Convolution, size: tuple[int, int], dy: Integers, weights: Integers, shift: int) -> Rounded:
    """Multiply output gradients by weights, phase by phase: BP.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Convolution
    size : tuple of int
        Height and width of the layer's input.
    dy : integers, shape (samples, rows, columns, filters)
    weights : integers, shape (filters, kh, kw, channels / groups)
        Zeros where they are pruned.
    shift : int
        See :func:`rounded`.

    Returns
    -------
    Rounded
        Shape (samples, height, width, channels).
    """
    turned = transposed(layer, weights)
    samples, saturated, overflowed = len(dy), 0, 0
    cut = _phases(layer.window, dy.shape[1:3], size)
    dx: Integers = np.zeros((samples, size[0] * size[1], layer.channels), narrowest(config.act.lo, config.act.hi))
    for phase in cut:
        if phase.empty:
            continue
        window = phase.window
        positions = window.positions(*dy.shape[1:3])
        place = Place(window.kernel, window.stride, window.dilation, window.pads[:2], positions, 0, layer.filters)
        seen = turned[:, phase.down][:, :, phase.across] if layer.window.taps > 1 else turned
        sums, overflow = _multiplied(config, Patches(dy, place), Weights(seen.reshape(layer.channels, -1)), layer.groups)
        result = rounded(config, sums, shift)
        if len(cut) == 1:
            dx = result.value.reshape(dx.shape)
        else:
            dx[:, phase.positions] = result.value.reshape(samples, -1, layer.channels)
        saturated += result.saturated
        overflowed += int(np.count_nonzero(overflow))
    return Rounded(dx.reshape(samples, *size, layer.channels), saturated, overflowed)


def gradient(config: AcceleratorConfig, layer: Convolution, x: Integers, dy: Integers, shift: int) -> Rounded:
    """Multiply activations by output gradients, summed over samples and positions: WU.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Convolution
    x : integers, shape (samples, height, width, channels)
    dy : integers, shape (samples, rows, columns, filters)
    shift : int
        See :func:`rounded`.

    Returns
    -------
    Rounded
        Shape (filters, kh, kw, channels / groups).
    """
    sums, overflow = _gradient(config, layer, x, dy)  # (groups, taps * channels / groups, filters / groups)
    result = rounded(config, sums.reshape(-1, sums.shape[-1]), shift)
    own = np.ascontiguousarray(result.value.reshape(sums.shape).transpose(0, 2, 1)).reshape(layer.shape)
    return Rounded(own, result.saturated, int(np.count_nonzero(overflow)))


def bias_gradient(config: AcceleratorConfig, dy: Integers, shift: int) -> Rounded:
    """Add up output gradients over samples and positions, in this order and in the accumulator: the gradient of a bias.

    Parameters
    ----------
    config : AcceleratorConfig
    dy : integers, shape (samples, rows, columns, filters)
    shift : int
        See :func:`rounded`.

    Returns
    -------
    Rounded
        Shape (filters,).
    """
    lines = dy.reshape(-1, dy.shape[-1])
    if _reach(lines) * len(lines) <= config.acc.hi:
        sums, overflowed = lines.sum(axis=0, dtype=np.int64)[None], 0
    else:
        one = np.ones((1, len(lines)), np.int8)
        product = gemm(config, one, Weights(np.ascontiguousarray(lines.T)))
        sums, overflowed = product.value, int(np.count_nonzero(product.overflow))
    result = rounded(config, sums, shift)
    return Rounded(result.value[0], result.saturated, overflowed)


def transposed(layer: Convolution, weights: Integers) -> Integers:
    """Lay out weights as BP reads them: shape (channels, kh, kw, filters / groups), group by group.

    Parameters
    ----------
    layer : Convolution
    weights : integers, shape (filters, kh, kw, channels / groups)
    """
    grouped = weights.reshape(layer.groups, layer.filters // layer.groups, layer.window.taps, layer.channels // layer.groups)
    turned = np.ascontiguousarray(grouped.transpose(0, 3, 2, 1))
    return turned.reshape(layer.channels, *layer.window.kernel, layer.filters // layer.groups)


def codes(layer: Convolution, kept: Integers, pattern: Pattern, back: bool) -> Codes:
    """Encode pruned weights as the array reads them.

    Parameters
    ----------
    layer : Convolution
    kept : integers, shape (filters, kh, kw, channels / groups)
        Weights of FF or BP.
    pattern : Pattern
    back : bool
        Of BP: rows are input channels, groups run along output channels. Else rows are output channels, groups run along input channels.
    """
    if back:
        turned = transposed(layer, kept)
        return sparsity.encode(turned.reshape(layer.channels, -1), layer.window.taps, layer.filters // layer.groups, pattern)
    return sparsity.encode(kept.reshape(layer.filters, -1), layer.window.taps, layer.channels // layer.groups, pattern)


class _Sums(NamedTuple):
    value: Integers
    overflow: NDArray[np.bool_]


@lru_cache(maxsize=1024)
def _phases(window: Window, image: tuple[int, int], size: tuple[int, int]) -> list[Phase]:
    return phases(window, image, size)


def _multiplied(config: AcceleratorConfig, x: Patches, weights: Weights, groups: int) -> _Sums:
    """Add up all groups."""
    found = gemm(config, x, weights) if groups == 1 else multiply_groups(config, x, weights, groups)
    return _Sums(*found)


def _gradient(config: AcceleratorConfig, layer: Convolution, x: Integers, dy: Integers) -> _Sums:
    """Add up over samples, then positions, as many samples at once as CHUNK and DEPTH allow."""
    samples, rows, columns, filters = dy.shape
    taps, groups = layer.window.taps, layer.groups
    channels, each = layer.channels // groups, filters // groups
    if groups > 1 and _reach(x) * _reach(dy) * (samples * rows * columns) <= config.acc.hi:
        return _grouped(layer, x, dy)
    most = max(1, min(CHUNK // (taps * layer.channels), DEPTH) // (rows * columns))
    parts: list[_Sums | None] = [None] * groups
    for first in range(0, samples, most):
        some = slice(first, first + most)
        seen = _turned(layer, x[some], rows, columns)
        lines = np.ascontiguousarray(dy[some].reshape(-1, filters).T)
        for group, before in enumerate(parts):
            own = seen.reshape(taps, groups, channels, -1)[:, group].reshape(taps * channels, -1)
            weights = Weights(lines[group * each : (group + 1) * each])
            parts[group] = _Sums(*gemm(config, own, weights, None, *(before or (None, None))))
    found = [part for part in parts if part is not None]
    return _Sums(np.stack([part.value for part in found]), np.stack([part.overflow for part in found]))


def _grouped(layer: Convolution, x: Integers, dy: Integers) -> _Sums:
    """Add up all groups in one pass, where none can overflow."""
    groups, taps = layer.groups, layer.window.taps
    each = layer.filters // groups
    sums = np.zeros((taps, layer.channels, each), np.int64)
    with threads(2.0 * dy.size * layer.reduction):
        _grouped_sums(np.ascontiguousarray(x), np.ascontiguousarray(dy), *_numbers(layer), groups, sums)
    value = sums.reshape(taps, groups, -1, each).transpose(1, 0, 2, 3).reshape(groups, -1, each)
    return _Sums(value, np.zeros(value.shape, np.bool_))


def _turned(layer: Convolution, x: Integers, rows: int, columns: int) -> Integers:
    """Write down what taps and channels see, a line for each of them over samples and positions: (taps * channels, samples * positions)."""
    window = layer.window
    if window.taps == 1 and window.stride == (1, 1) and not any(window.pads):
        return np.ascontiguousarray(x.reshape(-1, layer.channels).T)
    out: Integers = np.empty((window.taps * layer.channels, len(x) * rows * columns), x.dtype)
    with threads(1.0 * out.size):
        _turn(np.ascontiguousarray(x), *_numbers(layer), rows, columns, out)
    return out


def _numbers(layer: Convolution) -> tuple[int, int, int, int, int, int, int, int]:
    """Window of a layer as kernels take it."""
    window = layer.window
    return (*window.kernel, *window.stride, *window.dilation, window.pads[0], window.pads[1])


def _reach(array: Integers) -> int:
    """Largest magnitude."""
    return max(-int(array.min()), int(array.max())) if array.size else 0


@kernel(parallel=True)
def _rounded(sums, bias, dropped, raised, lo, hi, both, out, parts):
    """Kernel: round each sum and count those outside, thread by thread; a floor of 0 is no end of the format."""
    m, n = sums.shape
    tasks = parts.size
    below, odd = ((np.int64(1) << max(dropped - 1, 0)) - 1, 1) if dropped else (np.int64(0), 0)  # before a shift, half to even
    most = hi >> raised
    for task in prange(tasks):
        count = 0
        for i in range(m * task // tasks, m * (task + 1) // tasks):
            line, kept = sums[i], out[i]
            if raised:
                for j in range(n):
                    exact = np.int64(line[j]) + bias[j]
                    value = exact << raised if -most - 1 <= exact <= most else (hi + 1 if exact > 0 else -hi - 2)
                    count += (value > hi) | (both & (value < lo))
                    kept[j] = min(max(value, lo), hi)
            else:
                for j in range(n):  # free of branches, so that it is vectorised
                    exact = np.int64(line[j]) + bias[j]
                    value = (exact + below + ((exact >> dropped) & odd)) >> dropped
                    count += (value > hi) | (both & (value < lo))
                    kept[j] = min(max(value, lo), hi)
        parts[task] = count


@kernel(parallel=True)
def _turn(x, kh, kw, down, across, tall, wide, top, left, rows, columns, out):
    """Kernel: channels of a tap go to lines of their own, a tile of channels at a time."""
    samples, height, width, channels = x.shape
    tiles = -(-channels // _TILE)
    for task in prange(kh * kw * tiles):
        tap, first = task // tiles, task % tiles * _TILE
        ky, kx = tap // kw * tall - top, tap % kw * wide - left
        last = min(first + _TILE, channels)
        for sample in range(samples):
            for row in range(rows):
                y = row * down + ky
                start = (sample * rows + row) * columns
                for column in range(columns):
                    at = column * across + kx
                    if 0 <= y < height and 0 <= at < width:
                        line = x[sample, y, at]
                        for c in range(first, last):
                            out[tap * channels + c, start + column] = line[c]
                    else:
                        for c in range(first, last):
                            out[tap * channels + c, start + column] = 0


@kernel(parallel=True)
def _grouped_sums(x, dy, kh, kw, down, across, tall, wide, top, left, groups, sums):
    """Kernel: ``sums[tap, c, j] = sum of x[.., c] * dy[.., group of c, j]``, tap by tap."""
    samples, height, width, channels = x.shape
    rows, columns, filters = dy.shape[1], dy.shape[2], dy.shape[3]
    own, each = channels // groups, filters // groups
    for tap in prange(kh * kw):
        ky, kx = tap // kw * tall - top, tap % kw * wide - left
        part = sums[tap]
        for sample in range(samples):
            for row in range(rows):
                y = row * down + ky
                for column in range(columns):
                    at = column * across + kx
                    if 0 <= y < height and 0 <= at < width:
                        seen, line = x[sample, y, at], dy[sample, row, column]
                        for c in range(channels):
                            first = c // own * each
                            for j in range(each):
                                part[c, j] += np.int64(seen[c]) * line[first + j]
