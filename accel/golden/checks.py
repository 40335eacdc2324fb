"""Checks of arguments that golden models share; each raises before any work is done."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError


def integer(name: str, value: int, lo: int, hi: int) -> None:
    """Refuse what is no int in ``lo..hi``.

    Parameters
    ----------
    name : str
        What the message calls it.
    value : int
    lo, hi : int

    Raises
    ------
    RangeError
        If the rule is broken.
    """
    if type(value) is not int or not lo <= value <= hi:
        raise RangeError(f"{name} must be an int in [{lo}, {hi}], not {value!r}")


def integers(name: str, array: NDArray[np.int64], shape: tuple[int | str, ...], lo: int, hi: int) -> None:
    """Refuse an array that is not int64 of a shape with elements in ``lo..hi``.

    Parameters
    ----------
    name : str
        What the message calls it.
    array : int64
    shape : tuple of int or str
        Lengths; a string names one that is free.
    lo, hi : int

    Raises
    ------
    RangeError
        If the rule is broken.
    """
    _shaped(name, array, np.int64, shape)
    if array.size and not lo <= array.min() <= array.max() <= hi:
        raise RangeError(f"{name} must be in [{lo}, {hi}], not {array.min()}..{array.max()}")


def flags(name: str, array: NDArray[np.bool_], shape: tuple[int | str, ...]) -> None:
    """Refuse an array that is not bool of a shape.

    Parameters
    ----------
    name : str
        What the message calls it.
    array : bool
    shape : tuple of int or str
        Lengths; a string names one that is free.

    Raises
    ------
    RangeError
        If the rule is broken.
    """
    _shaped(name, array, np.bool_, shape)


def _shaped(name: str, array: NDArray[np.generic], dtype: type, shape: tuple[int | str, ...]) -> None:
    lengths = zip(array.shape, shape, strict=False)
    if array.dtype != dtype or array.ndim != len(shape) or any(length != rule for length, rule in lengths if not isinstance(rule, str)):
        rule = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise RangeError(f"{name} must be {np.dtype(dtype)} of shape ({rule}), not {array.dtype} of shape {array.shape}")
