"""What a window sees of images, as the rows of a matrix that no one need write down: kernels gather a row when they need it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from accel.errors import RangeError
from accel.jit import kernel
from accel.kernels.requantise import Integers


class Place(NamedTuple):
    """How a window slides over images of (height, width, channels).

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        Of height and width.
    before : tuple of int
        Rows and columns added at top and left; negative ones are cut off.
    positions : tuple of int
        Places of the window down and across. What lies outside of the image is padding.
    first, channels : int
        The channels that it sees.
    padding : int
        The integer outside of the image.
    presented : int
        How often the elements of a row are repeated, one after the other.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    positions: tuple[int, int]
    first: int
    channels: int
    padding: int = 0
    presented: int = 1


class Patches:
    """The matrix whose rows are what a window sees: images outermost, then positions; taps, then channels innermost.

    Parameters
    ----------
    images : signed or unsigned integers, shape (images, height, width, channels)
    place : Place
    """

    def __init__(self, images: NDArray[Any], place: Place) -> None:
        self.images, self.place = images, place
        (kh, kw), (rows, columns) = place.kernel, place.positions
        self.shape = len(images) * rows * columns, kh * kw * place.channels * place.presented

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> Patches:
        """Take a matrix as it is.

        Parameters
        ----------
        matrix : integers, shape (m, k)
        """
        m, k = matrix.shape
        return cls(matrix[None, :, None], Place((1, 1), (1, 1), (1, 1), (0, 0), (m, 1), 0, k))

    @cached_property
    def ends(self) -> tuple[int, int]:
        """Least and greatest integer, those included that no row holds; (0, 0) if there are none."""
        if not self.images.size:
            return 0, 0
        lo, hi, place = int(self.images.min()), int(self.images.max()), self.place
        axes = zip(self.images.shape[1:3], place.kernel, place.stride, place.dilation, place.before, place.positions, strict=True)
        if all(
            before <= 0 and (positions - 1) * stride - before + dilation * (kernel - 1) < size
            for size, kernel, stride, dilation, before, positions in axes
        ):
            return lo, hi
        return min(lo, place.padding), max(hi, place.padding)

    @cached_property
    def matrix(self) -> NDArray[Any]:
        """The matrix, written down; rows are contiguous."""
        _, height, width, channels = self.images.shape
        if self.place._replace(padding=0) == Place((1, 1), (1, 1), self.place.dilation, (0, 0), (height, width), 0, channels):
            return np.ascontiguousarray(self.images).reshape(self.shape)
        out = np.empty(self.shape, self.images.dtype)
        _gather_all(*self.table(out.dtype), out)
        return out

    def astype(self, kind: DTypeLike) -> Patches:
        """Bring the integers to another type, which holds them."""
        if self.images.dtype == kind:
            return self
        return Patches(self.images.astype(kind), self.place)

    def table(self, kind: DTypeLike) -> tuple[Integers, NDArray[np.int64]]:
        """Return the images in one dimension and the place in numbers, for :func:`_gather`."""
        _, height, width, channels = self.images.shape
        kernel, stride, dilation, before, positions, *rest = self.place
        numbers = [height, width, channels, *kernel, *stride, *dilation, *before, *positions, *rest]
        return np.ascontiguousarray(self.images, kind).reshape(-1), np.array(numbers, np.int64)


def matrix(name: str, array: NDArray[Any]) -> None:
    """Refuse what is no matrix of integers."""
    if array.dtype.kind not in "iu" or array.ndim != 2:
        raise RangeError(f"{name} must be integers in two dimensions, not {array.dtype} in {array.ndim}")


@kernel
def _gather(flat, at, i, line):
    """Kernel: write row i to the front of `line`."""
    height, width, channels, kh, kw = at[0], at[1], at[2], at[3], at[4]
    rows, columns, first, seen, padding, presented = at[11], at[12], at[13], at[14], at[15], at[16]
    image, position = i // (rows * columns), i % (rows * columns)
    top, left = position // columns * at[5] - at[9], position % columns * at[6] - at[10]
    whole = at[8] == 1 and seen == channels
    s = 0
    for ky in range(kh):
        y = top + ky * at[7]
        if y < 0 or y >= height:
            for c in range(kw * seen):
                line[s + c] = padding
            s += kw * seen
            continue
        base = (image * height + y) * width
        if whole and left >= 0 and left + kw <= width:
            start = (base + left) * channels
            for c in range(kw * channels):
                line[s + c] = flat[start + c]
            s += kw * channels
            continue
        for kx in range(kw):
            x = left + kx * at[8]
            if x < 0 or x >= width:
                for c in range(seen):
                    line[s + c] = padding
            else:
                start = (base + x) * channels + first
                for c in range(seen):
                    line[s + c] = flat[start + c]
            s += seen
    for again in range(1, presented):
        for c in range(s):
            line[again * s + c] = line[c]


@kernel
def _gather_all(flat, at, out):
    for i in range(len(out)):
        _gather(flat, at, i, out[i])
