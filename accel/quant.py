"""Float to fixed point: scales as (multiplier, shift), and real tensors as integers, by ONNX's rule. All of it is host work."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.golden.arithmetic import MAX_SHIFT


class Multiplier(NamedTuple):
    """Scales as integers: scale = mult / 2**shift.

    Parameters
    ----------
    mult : int64, any shape
        Unsigned multipliers.
    shift : int64, same shape
        Right shifts, 0 to 63 [bits].
    """

    mult: NDArray[np.int64]
    shift: NDArray[np.int64]


def nearest_multiplier(scale: ArrayLike, mult_bits: int) -> Multiplier:
    """Find for each scale the nearest mult / 2**shift.

    The shift is the greatest, up to 63, at which ``mult = round_half_even(scale * 2**shift)`` still fits; no other pair is nearer. The
    error is at most ``scale / 2**mult_bits``, or ``2**-64`` at shift 63 if that is more: under 1/4 output LSB for any sum of 62 bits.

    Parameters
    ----------
    scale : float, any shape
        Scales, above ``2**-64`` and below ``2**mult_bits - 1/2``.
    mult_bits : int
        Width of the multiplier [bits], 1 to 62.

    Returns
    -------
    Multiplier
        Of the shape of `scale`, mult in ``[1, 2**mult_bits)``.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    if type(mult_bits) is not int or not 1 <= mult_bits < MAX_SHIFT:
        raise RangeError(f"mult_bits must be an int in [1, {MAX_SHIFT - 1}], not {mult_bits!r}")
    scales = _scales(scale)
    fraction, exponent = np.frexp(scales)
    carried = np.rint(np.ldexp(fraction, mult_bits)) == 2.0**mult_bits  # all ones and more than half: one bit longer once rounded
    shift = np.minimum(mult_bits - exponent.astype(np.int64) - carried, MAX_SHIFT)
    if (shift < 0).any():
        raise RangeError(f"scale must be below 2**{mult_bits} - 1/2, not {scales.max()}")
    mult = np.rint(np.ldexp(scales, shift)).astype(np.int64)
    if not mult.all():
        raise RangeError(f"scale must be above 2**-{MAX_SHIFT + 1}, not {scales.min()}")
    return Multiplier(np.asarray(mult), np.asarray(shift))


def quantise(x: NDArray[Any], scale: ArrayLike, zero_point: ArrayLike, format: FixedFormat, axis: int | None = None) -> NDArray[np.int64]:
    """Quantise reals: ``saturate(round_half_even(x / scale) + zero_point)``, the division in the type of `x`.

    Parameters
    ----------
    x : float32 or float64, any shape
        Reals but NaN; infinities saturate.
    scale : float, shape () or (n,)
        Real value of one LSB, positive.
    zero_point : int, shape () or (n,)
        Integers that stand for 0.
    format : FixedFormat
        Of the integers, at most 52 bits, which float64 holds; its `frac` is not used.
    axis : int, optional
        Axis of `x` along which `scale` and `zero_point` of shape (n,) run.

    Returns
    -------
    int64, shape of `x`
        Integers in ``format.lo..format.hi``.

    Raises
    ------
    RangeError
        If an argument breaks its rule.

    References
    ----------
    .. [1] ONNX operator specification, QuantizeLinear.
    """
    if x.dtype not in (np.float32, np.float64):
        raise RangeError(f"x must be float32 or float64, not {x.dtype}")
    if np.isnan(x).any():
        raise RangeError("x must be a number, not nan")
    if format.bits > 52:
        raise RangeError(f"format must have at most 52 bits, not {format.bits}")
    zero = _along(np.asarray(zero_point, np.int64), x, axis)
    with np.errstate(over="ignore"):  # an infinite quotient saturates
        steps = np.rint(x / _along(_scales(scale), x, axis).astype(x.dtype)).astype(np.float64)
    integers: NDArray[np.int64] = np.clip(steps, format.lo - zero, format.hi - zero).astype(np.int64) + zero
    return integers


def dequantise(q: NDArray[Any], scale: NDArray[Any], zero_point: ArrayLike, axis: int | None = None) -> NDArray[Any]:
    """Return the reals that integers stand for: ``(q - zero_point) * scale``, the product in the type of `scale`.

    Parameters
    ----------
    q : integer, any shape
        Integers.
    scale : float32 or float64, shape () or (n,)
        Real value of one LSB, positive.
    zero_point : int, shape () or (n,)
        Integers that stand for 0.
    axis : int, optional
        Axis of `q` along which `scale` and `zero_point` of shape (n,) run.

    Returns
    -------
    type of `scale`, shape of `q`
        Reals.

    Raises
    ------
    RangeError
        If a scale is not positive.

    References
    ----------
    .. [1] ONNX operator specification, DequantizeLinear.
    """
    _scales(scale)
    reals: NDArray[Any] = (q - _along(np.asarray(zero_point, np.int64), q, axis)).astype(scale.dtype) * _along(scale, q, axis)
    return reals


def to_signed(q: ArrayLike, bits: int = 8) -> NDArray[np.int64]:
    """Shift unsigned integers of `bits` bits, values and zero points alike, into the signed range: ``q - 2**(bits - 1)``."""
    integers = np.asarray(q, np.int64)
    if integers.size and not 0 <= integers.min() <= integers.max() < 1 << bits:
        raise RangeError(f"q must be in [0, {(1 << bits) - 1}], not {integers.min()}..{integers.max()}")
    return integers - (1 << (bits - 1))


def _scales(scale: ArrayLike) -> NDArray[np.float64]:
    scales = np.asarray(scale, np.float64)
    wrong = scales[~((scales > 0) & (scales < np.inf))]
    if wrong.size:
        raise RangeError(f"scale must be positive and finite, not {wrong[0]}")
    return scales


def _along(parameter: ArrayLike, x: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Shape parameters of one axis so that they broadcast against `x`."""
    array = np.asarray(parameter)
    if axis is None:
        if array.ndim:
            raise RangeError(f"axis must be given for parameters of shape {array.shape}, not None")
        return array
    if array.ndim and array.shape != x.shape[axis : axis + 1 or None]:
        raise RangeError(f"parameters must be of shape () or ({x.shape[axis]},), not {array.shape}")
    return array.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)]) if array.ndim else array
