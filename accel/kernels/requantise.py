"""Requantisation at the end of every fast kernel, while a tile of sums is still in the nearest cache."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numba import prange
from numpy.typing import ArrayLike, NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.formats import Rounding
from accel.isa import SHIFT_BITS
from accel.jit import kernel
from accel.kernels.threads import threads

Integers = NDArray[np.signedinteger[Any]]

_ROWS = 64  # our choice: rows of a task [rows]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requantisation:
    """How sums become outputs: ``clip(round_shift((acc + bias) * mult, shift) + zero_point, lo, hi)``, exact in integers.

    Parameters
    ----------
    bias : int64 that broadcasts to shape (n,)
        Of each output channel, an integer of the accumulator's format [product LSBs].
    mult : int64 that broadcasts to shape (n,)
        Unsigned multipliers of `mult_bits`.
    shift : int64 that broadcasts to shape (n,)
        Dropped bits of the product, 0 to 63.
    zero_point : int
        Output integer that stands for zero.
    lo, hi : int
        Bounds of the output integers.
    rounding : Rounding
        FLOOR, HALF_UP or HALF_EVEN.
    """

    bias: ArrayLike
    mult: ArrayLike
    shift: ArrayLike
    zero_point: int = 0
    lo: int
    hi: int
    rounding: Rounding = Rounding.HALF_EVEN

    def channels(self, which: slice) -> Self:
        """Take some of the channels; tables have one entry for each."""
        bias, mult, shift = (np.asarray(table)[which] for table in (self.bias, self.mult, self.shift))
        return dataclasses.replace(self, bias=bias, mult=mult, shift=shift)


def narrowest(lo: int, hi: int) -> np.dtype[np.signedinteger[Any]]:
    """Return the narrowest signed integer type that holds `lo` and `hi`.

    Parameters
    ----------
    lo, hi : int
        In the range of int64.
    """
    return np.dtype(f"i{next(size for size in (1, 2, 4, 8) if -(1 << (8 * size - 1)) <= lo <= hi < 1 << (8 * size - 1))}")


def lane(reach: float) -> np.dtype[np.signedinteger[Any]]:
    """Return the type of sums up to `reach` in magnitude: int32 where that holds them, else int64.

    Parameters
    ----------
    reach : float
        In the range of int64.
    """
    return np.dtype(np.int32 if reach < 1 << 31 else np.int64)


def requantise(config: AcceleratorConfig, acc: Integers, post: Requantisation) -> Integers:
    """Turn sums into output integers, exactly as :func:`accel.golden.postprocess.postprocess`.

    Parameters
    ----------
    config : AcceleratorConfig
        Formats `acc` and `act`, and `mult_bits`.
    acc : signed integers, shape (m, n)
        Sums in the accumulator's format [product LSBs]; not checked.
    post : Requantisation

    Returns
    -------
    signed integers, shape (m, n)
        Of the narrowest type that holds `act`.

    Raises
    ------
    RangeError
        If a field of `post` breaks its rule.
    """
    out, channels, limits = prepare(config, post, *acc.shape)
    finish(acc.astype(lane(config.acc.hi), copy=False), Prepared(out, channels, limits))
    return out


def finish(acc: Integers, to: Prepared) -> None:
    """Add the bias to a matrix of sums and requantise it, if that is prepared.

    Parameters
    ----------
    acc : int32 or int64, shape (m, n)
    to : Prepared
        Takes the result.
    """
    with threads(2.0 * acc.size):
        _requantise_all(acc, *to)


class Lanes(NamedTuple):
    """Types of a kernel that adds in vector lanes: one set for octets, one for everything else, as each takes seconds to compile.

    Parameters
    ----------
    x, sums, out : dtype
        Of operands, of sums, of results.
    """

    x: np.dtype[Any]
    sums: np.dtype[Any]
    out: np.dtype[Any]


def lanes(to: Prepared, x: np.dtype[Any], reach: float) -> Lanes:
    """Choose the types of a kernel.

    Parameters
    ----------
    to : Prepared
    x : dtype
        Of the operands, at most 32 bits.
    reach : float
        Bound on the magnitude of all sums, and of a bias.
    """
    if x == to.out.dtype == np.int8 and lane(reach) == np.int32:
        return Lanes(np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.int8))
    return Lanes(np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.int64))


class Prepared(NamedTuple):
    """Where results go, and what kernels need to know of a requantisation.

    Parameters
    ----------
    out : signed integers, shape (m, n)
        Sums are int32 or int64, requantised integers of the narrowest type that holds them all; not filled yet.
    channels : int64, shape (6, n), or (1, n) if sums are only added to
        Bias, multiplier, shift, place of the highest dropped bit, mask of the lower ones, and whether they are looked at.
    limits : int64, shape (4,) or (0,)
        Bounds before the zero point is added, the zero point, and whether a half always rounds up.
    """

    out: Integers
    channels: NDArray[np.int64]
    limits: NDArray[np.int64]


def prepare(config: AcceleratorConfig, post: Requantisation | None, m: int, n: int) -> Prepared:
    """Check a requantisation and lay it out for the kernels.

    Parameters
    ----------
    config : AcceleratorConfig
        Formats `acc` and `act`, and `mult_bits`.
    post : Requantisation or None
        None: sums stay as they are.
    m, n : int
        Shape of the result.

    Returns
    -------
    Prepared

    Raises
    ------
    RangeError
        If a field of `post` breaks its rule.
    """
    if post is None:
        return Prepared(np.empty((m, n), lane(config.acc.hi)), np.zeros((1, n), np.int64), np.empty(0, np.int64))
    bias = _channels("bias", post.bias, n, config.acc.lo, config.acc.hi)
    mult = _channels("mult", post.mult, n, 0, (1 << config.mult_bits) - 1)
    shift = _channels("shift", post.shift, n, 0, (1 << SHIFT_BITS) - 1)
    act = config.act
    for name, value, lo, hi in (
        ("hi", post.hi, act.lo, act.hi),
        ("lo", post.lo, act.lo, post.hi),
        ("zero_point", post.zero_point, act.lo, act.hi),
    ):
        if type(value) is not int or not lo <= value <= hi:
            raise RangeError(f"{name} must be an int in [{lo}, {hi}], not {value!r}")
    if post.rounding is Rounding.STOCHASTIC:
        raise RangeError(f"rounding must be floor, half_up or half_even, not {post.rounding.value}")
    below = np.maximum(shift - 1, 0)
    looked_at = (shift > 0) & (post.rounding is not Rounding.FLOOR)
    limits = np.array([post.lo - post.zero_point, post.hi - post.zero_point, post.zero_point, post.rounding is Rounding.HALF_UP], np.int64)
    channels = np.stack([bias, mult, shift, below, (np.int64(1) << below) - 1, looked_at])
    return Prepared(np.empty((m, n), narrowest(act.lo, act.hi)), channels, limits)


def _channels(name: str, value: ArrayLike, n: int, lo: int, hi: int) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype != np.int64 or array.shape not in {(), (1,), (n,)}:
        raise RangeError(f"{name} must be int64 that broadcasts to shape ({n},), not {array.dtype} of shape {array.shape}")
    if array.size and not lo <= array.min() <= array.max() <= hi:
        raise RangeError(f"{name} must be in [{lo}, {hi}], not {array.min()}..{array.max()}")
    return np.broadcast_to(array, n)


@kernel
def _finish(tile, rows, columns, out, i, j, channels, limits):
    """Kernel: store a tile of sums plus bias to ``out[i : i + rows, j : j + columns]``, requantised if there are tables.

    Free of branches and of index arithmetic in the inner loop, so that it is vectorised. The quotient rounds up if the highest dropped bit
    is set and (ties to even) any lower one is set or the quotient is odd, or (ties up) in any case.
    """
    for r in range(rows):
        sums, bias, results = tile[r, :columns], channels[0, j : j + columns], out[i + r, j : j + columns]
        if limits.size == 0:
            for c in range(columns):
                results[c] = sums[c] + bias[c]
        else:
            lo, hi, zero_point, always = limits[0], limits[1], limits[2], limits[3]
            mult, shift = channels[1, j : j + columns], channels[2, j : j + columns]
            below, mask, looked_at = channels[3, j : j + columns], channels[4, j : j + columns], channels[5, j : j + columns]
            for c in range(columns):
                product = (sums[c] + bias[c]) * mult[c]
                floor = product >> shift[c]
                odd = (product & mask[c]) | (floor & 1) | always
                up = (product >> below[c]) & looked_at[c] & ((odd | -odd) >> 63)
                results[c] = min(max(floor + up, lo), hi) + zero_point


@kernel(parallel=True)
def _requantise_all(acc, out, channels, limits):
    """Kernel: :func:`_finish` on a whole matrix."""
    m, n = out.shape
    for task in prange(-(-m // _ROWS)):
        i = task * _ROWS
        _finish(acc[i:], min(_ROWS, m - i), n, out, i, 0, channels, limits)
