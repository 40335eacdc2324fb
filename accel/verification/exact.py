"""What the operators of a network give in the reals, and how far two arithmetics may part from it: the accelerator's, and float32.

Everything is taken from the definitions in :mod:`accel.graph.network`, in float64, which holds every sum of products exactly (they stay
below 2**53); nothing is shared with lowering, kernels or engine, so that their faults show.

The accelerator: a factor becomes the nearest multiplier of `mult_bits` bits, which is found here once more; a weighted sum brings its
factors to whole coefficients, each off by at most a half of their last place (:mod:`accel.schedule.lower`); operators in fixed point state
their own bound (:mod:`accel.special`).

float32, of unit roundoff u = 2**-24: a sum of k products whose operands were rounded once each is off by at most (k + 2) * u, to first
order, of the sum of their magnitudes, in whatever order it is summed; the steps around it, scale, bias, gain and quotient, round once each,
which OTHER covers. A bias that is no whole number of products is rounded to one on import: at most a half of a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.golden.arithmetic import MAX_SHIFT
from accel.graph.network import (
    ArgMax,
    Arithmetic,
    AveragePool,
    Divide,
    DynamicProduct,
    LayerNorm,
    MatrixProduct,
    MaxPool,
    Move,
    Multiply,
    Operator,
    Softmax,
    Sum,
    Tensor,
    TransposedConvolution,
)
from accel.graph.window import Window
from accel.isa import COEFFICIENT_BITS
from accel.special import divide, layer_norm, multiply, softmax
from accel.special.integers import nearest, worst_rounding

ROUNDOFF = 2.0**-24  # of float32
OTHER = 16  # our choice: roundings around a sum of products, twice as many as there are
BLOCK = 1 << 22  # our choice: elements of the largest matrix held at once
DOUBLE = 2.0**-50  # what the roundings of float64 add, relative to the magnitudes

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Exact:
    """Results of an operator on some integers, in the reals.

    Parameters
    ----------
    real : float64, as many elements as the output
        Before rounding, the zero point and bounds [output LSB].
    ours, theirs : float64, broadcasts with `real`
        How far the accelerator and float32 may be from it before they round [output LSB].
    """

    real: Reals
    ours: Reals
    theirs: Reals


@singledispatch
def exact(operator: Operator, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact | None:
    """Compute an operator in the reals: one function per type, registered below.

    Parameters
    ----------
    operator : Operator
    config : AcceleratorConfig
    tensors : sequence of Tensor
        Inputs, then the output.
    values : sequence of int64, each of shape (1, *tensor shape)
        Integers of the inputs.

    Returns
    -------
    Exact or None
        None where the definition does not say the function: of a table, and of the host's float operators.
    """
    return None


def results(operator: Operator, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact | None:
    """Compute :func:`exact` in the shape of the output, (1, *output shape), which may split or join axes of the operator's own."""
    found, shape = exact(operator, config, tensors, values), (1, *tensors[-1].shape)
    if found is None:
        return None
    ours, theirs = (np.broadcast_to(each, found.real.shape).reshape(shape) for each in (found.ours, found.theirs))
    return Exact(found.real.reshape(shape), ours, theirs)


@lru_cache(maxsize=1 << 16)
def _relative(factor: float, bits: int) -> float:
    """Find by how much the nearest multiplier of a factor is off, relatively, and what float64 adds unless it is a power of two."""
    mult, shift = nearest(abs(factor), bits, MAX_SHIFT)
    off = abs(Fraction(mult, 1 << shift) / Fraction(abs(factor)) - 1)
    return float(off) + (0.0 if math.frexp(factor)[0] == 0.5 else DOUBLE)


def _factor(config: AcceleratorConfig, real: Reals, factor: Reals | float) -> Reals:
    """Find what the multipliers of the factors, one or one for each channel, add to a product [output LSB]."""
    relative = np.array([_relative(each, config.mult_bits) for each in np.ravel(factor).tolist()])
    return np.asarray(np.abs(real) * relative.reshape(np.shape(factor)))


def _images(tensor: Tensor, values: Integers) -> Reals:
    return values.reshape(*tensor.image).astype(np.float64)


def _padded(image: Reals, window: Window, padding: float) -> Reals:
    top, left, bottom, right = window.pads
    return np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=padding)


def _seen(padded: Reals, window: Window, row: int, columns: int) -> Reals:
    """Collect what the window sees along one row of its positions: (columns, kh, kw, channels)."""
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    rows = padded[row * sh : row * sh + dh * (kh - 1) + 1 : dh]
    taps = [rows[:, at * dw : at * dw + (columns - 1) * sw + 1 : sw] for at in range(kw)]
    return np.stack(taps, axis=2).transpose(1, 0, 2, 3)


@exact.register
def _(operator: MatrixProduct, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact | None:
    if operator.weights is None or operator.bias is None or operator.multiplier is None:
        return None
    image = _images(tensors[0], values[0])
    rows, columns = operator.window.positions(*image.shape[:2])
    raw, size = _padded(image, operator.window, operator.padding), _padded(np.abs(image - operator.padding), operator.window, 0)
    matrices = operator.weights.reshape(operator.groups, -1, operator.reduction).astype(np.float64)
    width = image.shape[2] // operator.groups
    sums, sizes = (np.empty((rows, columns, operator.filters)) for _ in range(2))
    step = max(1, BLOCK // (columns * operator.window.taps * image.shape[2]))
    for start in range(0, rows, step):
        for source, absolute, target in ((raw, False, sums), (size, True, sizes)):
            seen = np.stack([_seen(source, operator.window, row, columns) for row in range(start, min(start + step, rows))])
            grouped = seen.reshape(-1, operator.window.taps, operator.groups, width).transpose(2, 0, 1, 3)
            products = grouped.reshape(operator.groups, -1, operator.reduction) @ (np.abs(matrices) if absolute else matrices).mT
            target[start : start + step] = products.transpose(1, 0, 2).reshape(-1, columns, operator.filters)
    factor, bias = operator.multiplier, operator.bias.astype(np.float64)
    true = bias + operator.padding * matrices.sum(axis=2).ravel()  # the bias without the zero point that is folded in
    found = _product(config, sums + bias, sizes + np.abs(true), factor, operator.reduction)
    return Exact(found.real, found.ours, found.theirs + 0.5 * factor)


def _product(config: AcceleratorConfig, sums: Reals, size: Reals, factor: Reals | float, k: int) -> Exact:
    """Scale sums of k products, whose magnitudes add up to `size`."""
    real = sums * factor
    return Exact(real, _factor(config, real, factor), (k + OTHER) * ROUNDOFF * size * factor)


@exact.register
def _(operator: TransposedConvolution, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact | None:
    if operator.weights is None or operator.bias is None or operator.multiplier is None:
        return None
    image = _images(tensors[0], values[0]) - operator.input_zero
    bias, factor = operator.bias.astype(np.float64), operator.multiplier
    sums = _spread(operator, image, operator.weights) + bias
    size = _spread(operator, np.abs(image), np.abs(operator.weights)) + np.abs(bias)
    found = _product(config, sums, size, factor, operator.window.taps * operator.channels // operator.groups)
    return Exact(found.real, found.ours, found.theirs + 0.5 * factor)


def _spread(operator: TransposedConvolution, image: Reals, weights: NDArray[np.signedinteger[Any]]) -> Reals:
    """Add each input element, times each tap, to where they meet: (height, width, filters)."""
    height, width, _ = image.shape
    (kh, kw), (sh, sw), (dh, dw) = operator.window.kernel, operator.window.stride, operator.window.dilation
    top, left, *_ = operator.window.pads
    tall, wide = (height - 1) * sh + (kh - 1) * dh + 1, (width - 1) * sw + (kw - 1) * dw + 1
    whole = np.zeros((max(tall, top + operator.size[0]), max(wide, left + operator.size[1]), operator.filters))
    matrices = weights.reshape(operator.groups, -1, kh, kw, weights.shape[-1]).astype(np.float64)
    grouped = image.reshape(height, width, operator.groups, -1)
    for row in range(kh):
        for column in range(kw):
            found = np.einsum("hwgc,gfc->hwgf", grouped, matrices[:, :, row, column]).reshape(height, width, -1)
            whole[row * dh : row * dh + (height - 1) * sh + 1 : sh, column * dw : column * dw + (width - 1) * sw + 1 : sw] += found
    return whole[top : top + operator.size[0], left : left + operator.size[1]]


@exact.register
def _(operator: DynamicProduct, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    a, b = (value.astype(np.float64) - zero for value, zero in zip(values, operator.zero_points, strict=True))
    b = b.mT if operator.transposed else b
    return _product(config, a @ b, np.abs(a) @ np.abs(b), operator.multiplier, a.shape[-1])


@exact.register
def _(operator: Sum, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    """Add; coefficients have the greatest fraction at which sums and offset fit the accumulator."""
    gain = np.ones(()) if operator.gain is None else operator.gain
    offset = np.zeros(()) if operator.offset is None else operator.offset
    inputs = [value.astype(np.float64) - zero for value, zero in zip(values, operator.zero_points, strict=True)]
    parts = [x * multiplier for x, multiplier in zip(inputs, operator.multipliers, strict=True)]
    real = gain * sum(parts) + offset
    top = max(map(abs, operator.multipliers))
    places = _places(operator, config, tensors, top, float(np.abs(offset / gain).max()))
    last = gain * top * 2.0 ** -(places or 0)  # what a coefficient's last place is worth
    size = gain * sum(map(np.abs, parts)) + np.abs(offset)
    theirs = OTHER * ROUNDOFF * size
    if places is None:
        real = last * sum(math.copysign(1, multiplier) * x for x, multiplier in zip(inputs, operator.multipliers, strict=True))
        return Exact(real, _factor(config, real, last), theirs)
    coarse = last / 2 * (sum(map(np.abs, inputs)) + 1)
    return Exact(real, coarse + _factor(config, np.abs(real) + coarse, last) + size * DOUBLE, theirs)


def _places(operator: Sum, config: AcceleratorConfig, tensors: Sequence[Tensor], top: float, offset: float) -> int | None:
    """Fraction bits of the coefficients; None where they are exact without."""
    if operator.offset is None and min(map(abs, operator.multipliers)) == top:
        return None
    for places in range(COEFFICIENT_BITS - 2, 0, -1):
        coefficients = [abs(round(multiplier * 2.0**places / top)) for multiplier in operator.multipliers]
        reach = sum(each << (tensor.bits - 1) for each, tensor in zip(coefficients, tensors, strict=False))
        zeros = sum(each * abs(zero) for each, zero in zip(coefficients, operator.zero_points, strict=True))
        if max(reach, offset * 2.0**places / top + zeros + 1) <= config.acc.hi:
            return places
    return 0


@exact.register
def _(operator: MaxPool, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    image = _images(tensors[0], values[0]) - operator.input_zero
    rows, columns = operator.window.positions(*image.shape[:2])
    padded = _padded(image, operator.window, -math.inf)
    best = np.stack([_seen(padded, operator.window, row, columns).max(axis=(1, 2)) for row in range(rows)])
    real = best * operator.multiplier
    return Exact(real, _factor(config, real, operator.multiplier), OTHER * ROUNDOFF * np.abs(real))


@exact.register
def _(operator: AveragePool, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    image = _images(tensors[0], values[0]) - operator.input_zero
    rows, columns = operator.window.positions(*image.shape[:2])
    factor = (operator.multiplier / operator.counts(*image.shape[:2]))[..., None]

    def total(of: Reals) -> Reals:
        padded = _padded(of, operator.window, 0)
        return np.stack([_seen(padded, operator.window, row, columns).sum(axis=(1, 2)) for row in range(rows)])

    return _product(config, total(image), total(np.abs(image)), factor, operator.window.taps)


def _ends(operator: Arithmetic) -> dict[str, Any]:
    return {name: getattr(operator, name) for name in ("zero_point", "lo", "hi", "rounding")}


@exact.register
def _(operator: Multiply, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    a, b = (value.astype(np.float64) - zero for value, zero in zip(values, operator.zero_points, strict=True))
    real = a * b * operator.multiplier
    fields: dict[str, Any] = {
        "zero_points": operator.zero_points,
        "multiplier": operator.multiplier,
        "mult_bits": min(config.mult_bits, multiply.MULT_BITS),
    }
    stated = multiply.bound(multiply.MultiplyParameters.of(**fields, **_ends(operator)), operator.multiplier)
    return _stated(operator, real, stated, OTHER * ROUNDOFF * np.abs(real))


@exact.register
def _(operator: Divide, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    a, b = (value.astype(np.float64) - zero for value, zero in zip(values, operator.zero_points, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        real = np.nan_to_num(a / b * operator.multiplier, nan=0.0, posinf=2.0**40, neginf=-(2.0**40))
    fields: dict[str, Any] = {"zero_points": operator.zero_points, "multiplier": operator.multiplier}
    stated = divide.bound(divide.DivideParameters.of(**fields, **_ends(operator)), operator.multiplier)
    return _stated(operator, real, stated, OTHER * ROUNDOFF * np.abs(real))


@exact.register
def _(operator: Softmax, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    """Exponentials in float32 are off by a few units of their last place, and by what their operand was rounded by."""
    x = values[0].astype(np.float64)
    distance = (x - x.max(axis=-1, keepdims=True)) * operator.step
    total = np.exp(distance).sum(axis=-1, keepdims=True)
    n = x.shape[-1]
    off = (n + 2 * OTHER + 4 * np.abs(x * operator.step).max()) * ROUNDOFF
    if operator.logarithm:
        real = (distance - np.log(total)) / operator.scale
        theirs = off / operator.scale + OTHER * ROUNDOFF * np.abs(real)
    else:
        real = np.exp(distance) / total / operator.scale
        theirs = 2 * off * real + 2.0**-100
    parameters = softmax.SoftmaxParameters.of(length=n, step=operator.step, scale=operator.scale, **_ends(operator))
    return _stated(operator, real, softmax.bound(parameters, operator.step, operator.scale), theirs)


@exact.register
def _(operator: LayerNorm, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    """Normalise; in float32 the mean is off by (n + 2) u of the largest operand, and so is each deviation from it."""
    x = values[0].astype(np.float64)
    n, zero = x.shape[-1], tensors[0].zero_point
    deviation = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((deviation**2).mean(axis=-1, keepdims=True) + operator.epsilon)
    with np.errstate(divide="ignore", invalid="ignore"):
        normal = np.nan_to_num(deviation / spread)
        off = (n + OTHER) * ROUNDOFF * np.nan_to_num(np.abs(x - zero).max(axis=-1, keepdims=True) / spread, posinf=1.0)
    real = normal * operator.gamma + operator.beta
    largest = np.abs(normal).max(axis=-1, keepdims=True)
    theirs = np.abs(operator.gamma) * (off * (2 + largest) + (n + OTHER) * ROUNDOFF * np.abs(normal)) + OTHER * ROUNDOFF * np.abs(real)
    parameters = layer_norm.LayerNormParameters.of(epsilon=operator.epsilon, gamma=operator.gamma, beta=operator.beta, **_ends(operator))
    stated = layer_norm.bound(parameters, operator.gamma, operator.beta)
    return _stated(operator, real, stated, theirs + OTHER * ROUNDOFF * np.abs(operator.beta))


def _stated(operator: Arithmetic, real: Reals, bound: float, theirs: Reals) -> Exact:
    """Results of an operator whose stated bound has its last rounding in it."""
    return Exact(real, bound - worst_rounding(operator.rounding) + np.abs(real) * DOUBLE, theirs)


@exact.register
def _(operator: Move, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    flat = np.concatenate([*(value.ravel() for value in values), [operator.padding]])  # place -1 is the last
    return _whole(flat[operator.index][None])


@exact.register
def _(operator: ArgMax, config: AcceleratorConfig, tensors: Sequence[Tensor], values: Sequence[Integers]) -> Exact:
    x = values[0][..., ::-1] if operator.last else values[0]
    first = x.argmax(axis=-1)
    return _whole(x.shape[-1] - 1 - first if operator.last else first)


def _whole(values: Integers) -> Exact:
    """Results that are integers, without an error."""
    return Exact(values.astype(np.float64), np.zeros(()), np.zeros(()))
