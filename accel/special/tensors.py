"""Tensors of training as kernels take them: narrow, contiguous, at most 16 bits wide."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.jit import kernel
from accel.kernels.requantise import narrowest
from accel.special.integers import WIDEST, Integers

FURTHEST = 62  # a shift beyond it gives the same result: 0 to the right, saturation to the left


def tensor(name: str, x: Integers, format: FixedFormat) -> NDArray[Any]:
    """Bring integers to the narrowest type of their format.

    Parameters
    ----------
    name : str
        What the message calls them.
    x : signed integers, any shape
    format : FixedFormat
        Signed, at most :data:`accel.special.integers.WIDEST` bits.

    Returns
    -------
    int8 or int16, shape of x
        Contiguous; `x` itself if it is that already.

    Raises
    ------
    RangeError
        If the type, the format or an element breaks the rule.
    """
    kind = kind_of(name, format)
    if x.dtype.kind != "i":
        raise RangeError(f"{name} must be signed integers, not {x.dtype}")
    if x.dtype.itemsize * 8 > format.bits and x.size and not format.lo <= x.min() <= x.max() <= format.hi:
        raise RangeError(f"{name} must be in [{format.lo}, {format.hi}], not {x.min()}..{x.max()}")
    return np.ascontiguousarray(x, kind)


def kind_of(name: str, format: FixedFormat) -> np.dtype[np.signedinteger[Any]]:
    """Return the narrowest type of a tensor.

    Parameters
    ----------
    name : str
        What the message calls it.
    format : FixedFormat

    Raises
    ------
    RangeError
        If the format is unsigned or wider than :data:`accel.special.integers.WIDEST` bits.
    """
    if not format.signed or format.bits > WIDEST:
        raise RangeError(f"format of {name} must be signed, of at most {WIDEST} bits, not {format}")
    return narrowest(format.lo, format.hi)


def images(name: str, x: NDArray[Any]) -> None:
    """Refuse what is no tensor of images.

    Parameters
    ----------
    name : str
        What the message calls it.
    x : integers

    Raises
    ------
    RangeError
        If it is not of shape (samples, height, width, channels), each 1 or more.
    """
    if x.ndim != 4 or not x.size:
        raise RangeError(f"{name} must be of shape (samples, height, width, channels), each 1 or more, not {x.shape}")


def alike(name: str, x: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape.

    Parameters
    ----------
    name : str
        What the message calls it.
    x : integers
    shape : tuple of int

    Raises
    ------
    RangeError
        If the shape is another.
    """
    if x.shape != shape:
        raise RangeError(f"{name} must be of shape {shape}, not {x.shape}")


def tasks_of(rows: int, size: int) -> int:
    """Return into how many parts a kernel cuts its rows, for `size` elements in all: our choice, results are the same with any number."""
    return max(1, min(rows, size >> 14, 64))


@kernel
def _rounding(shift):
    """Kernel: what half to even adds before a shift: always, and where the quotient is odd."""
    return ((1 << shift - 1) - 1, 1) if shift > 0 else (0, 0)
