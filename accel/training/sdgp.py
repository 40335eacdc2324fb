"""SDGP's operand: an output gradient pruned N:M along its channels, rescaled so that every (sample, channel) keeps its L1 norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.formats import FixedFormat, Rounding
from accel.isa import COEFFICIENT_BITS
from accel.jit import kernel
from accel.kernels.threads import threads
from accel.sparsity import Pattern, mask
from accel.special.integers import Integers, _quotient
from accel.special.tensors import _rounding, images, tensor

_HALF_EVEN = Rounding.HALF_EVEN.code


def sdgp(dy: Integers, format: FixedFormat, pattern: Pattern, groups: int = 1) -> tuple[NDArray[Any], int]:
    """Prune a gradient along its channels and rescale what is left.

    Of each group of M channels of a pixel the N largest magnitudes stay (:func:`accel.sparsity.mask`). With F and P the sums of magnitudes
    of a (sample, channel) before and after: ``c = min(round(F * 2**s / P), 2**16 - 1)``, s the greatest shift up to 15 at which that needs
    no limit, or 0; results are ``saturate(round(dy * c / 2**s))``. Both roundings are half to even. Where P is 0 all results are. The limit
    moves no result: a ratio beyond it saturates whatever is not 0.

    Parameters
    ----------
    dy : signed integers, shape (samples, height, width, channels)
    format : FixedFormat
        Of `dy` and of the result.
    pattern : Pattern
    groups : int
        Channel groups of the convolution, which groups of M do not span.

    Returns
    -------
    dy : int8 or int16, same shape
    saturated : int
        Elements that were outside of the format.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    images("dy", dy)
    narrow = tensor("dy", dy, format)
    channels = narrow.shape[-1]
    if type(groups) is not int or groups < 1 or channels % groups:
        raise RangeError(f"groups must divide the {channels} channels of dy, not be {groups!r}")
    shape = (len(narrow), -1, channels)
    out = narrow * mask(narrow.reshape(*narrow.shape[:3], groups, -1), pattern).reshape(narrow.shape)
    saturated = np.zeros(len(narrow), np.int64)
    with threads(2.0 * narrow.size):
        _rescale(narrow.reshape(shape), out.reshape(shape), format.lo, format.hi, saturated)
    return out, int(saturated.sum())


@kernel(parallel=True)
def _rescale(dy, out, lo, hi, saturated):
    samples, pixels, channels = dy.shape
    for sample in prange(samples):
        norms = np.zeros((2, channels), np.int64)
        table = np.zeros((4, channels), np.int64)
        before, after = norms[0], norms[1]
        for i in range(pixels):
            line, kept = dy[sample, i], out[sample, i]
            for j in range(channels):
                before[j] += abs(np.int64(line[j]))
                after[j] += abs(np.int64(kept[j]))
        for j in range(channels):
            if after[j]:
                shift = COEFFICIENT_BITS - 1
                while shift and _quotient(before[j] << shift, after[j], _HALF_EVEN) >= 1 << COEFFICIENT_BITS:
                    shift -= 1
                table[0, j] = min(_quotient(before[j] << shift, after[j], _HALF_EVEN), (1 << COEFFICIENT_BITS) - 1)
                table[1, j] = shift
                table[2, j], table[3, j] = _rounding(shift)
        clipped = 0
        mult, shift, below, odd = table[0], table[1], table[2], table[3]
        for i in range(pixels):
            line = out[sample, i]
            for j in range(channels):
                value = line[j] * mult[j]
                value = (value + below[j] + ((value >> shift[j]) & odd[j])) >> shift[j]
                fitting = min(max(value, lo), hi)
                clipped += fitting != value
                line[j] = fitting
        saturated[sample] = clipped
