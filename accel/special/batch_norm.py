"""Batch normalisation as it is trained, in fixed point: exact sums, scalars of 31 bits by channel, one rounding of each element.

Draft of the specification; being written.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.formats import FixedFormat, Rounding
from accel.golden.arithmetic import _round_shift
from accel.isa import MOMENTUM_SHIFT
from accel.jit import kernel
from accel.kernels.threads import threads
from accel.special.integers import Integers, _length, _quotient, _root
from accel.special.tensors import FURTHEST, _rounding, alike, images, kind_of, tasks_of, tensor

LARGEST = 1 << 30  # elements of a channel, at most: n**2 then stays at 2**60
TOP = 60  # bits to which variance and epsilon are brought
ROOT_FRAC = 60  # fraction bits of the reciprocal root
MANTISSA = 31  # bits of a scalar
STEEPEST = (1 << 31) - 1  # of a coefficient, at most
COEFFICIENT = 30  # bits that a coefficient is given where the shift allows
MOST_SHIFT = 46  # of a result: beta of 15 bits then stays below 2**61
DIGITS = 92  # binary places after which a ratio of n**2 is cut: it is 2**-60 or more
STATISTICS = FixedFormat(62, 32)  # our choice: running mean and variance
_HALF_UP, _HALF_EVEN = Rounding.HALF_UP.code, Rounding.HALF_EVEN.code


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Mean and reciprocal standard deviation of the channels of a tensor.

    Parameters
    ----------
    format : FixedFormat
        Of the tensor; its LSB is the unit of what follows.
    count : int
        Elements of a channel.
    total, squares : int64, shape (channels,)
        Sums of x and of x**2; zeros where they are not of a batch.
    whole, rest : int64, shape (channels,)
        The mean is ``whole + rest / count``, abs(rest) at most count / 2.
    inverse, places : int64, shape (channels,)
        The reciprocal standard deviation is ``inverse * 2**-places``.
    """

    format: FixedFormat
    count: int
    total: NDArray[np.int64]
    squares: NDArray[np.int64]
    whole: NDArray[np.int64]
    rest: NDArray[np.int64]
    inverse: NDArray[np.int64]
    places: NDArray[np.int64]


def moments(x: Integers, x_format: FixedFormat, epsilon: float) -> Moments:
    """Take mean and reciprocal standard deviation of a batch.

    Parameters
    ----------
    x : signed integers, shape (samples, height, width, channels)
    x_format : FixedFormat
    epsilon : float
        0 or more.

    Returns
    -------
    Moments
    """
    images("x", x)
    count = x.size // x.shape[-1]
    if count > LARGEST:
        raise RangeError(f"x must have at most {LARGEST} elements in a channel, not {count}")
    added, places = _epsilon(epsilon, x_format.frac)
    rows = tensor("x", x, x_format).reshape(count, x.shape[-1])
    sums = np.zeros((tasks_of(*rows.shape), 2, rows.shape[1]), np.int64)
    with threads(0.4 * rows.size):
        _sums(rows, sums)
    total, squares = sums.sum(axis=0)
    result = np.empty((4, rows.shape[1]), np.int64)
    _moments(count, total, squares, added, places, result)
    return Moments(format=x_format, count=count, total=total, squares=squares, **dict(zip(_FIELDS, result, strict=True)))


def normalise(
    x: Integers,
    moments: Moments,
    gamma: Integers,
    gamma_format: FixedFormat,
    beta: Integers,
    beta_format: FixedFormat,
    y_format: FixedFormat,
) -> tuple[NDArray[Any], int]:
    """Normalise: ``(x - mean) * rstd * gamma + beta``.

    Parameters
    ----------
    x : signed integers, shape (samples, height, width, channels)
        Of ``moments.format``.
    moments : Moments
        Of x in training (:func:`moments`), of the running statistics in inference (:func:`running`).
    gamma : signed integers, shape (channels,)
    gamma_format : FixedFormat
    beta : signed integers, shape (channels,)
    beta_format : FixedFormat
    y_format : FixedFormat

    Returns
    -------
    y : int8 or int16, shape of x
    saturated : int
        Elements of y that were outside of the format.
    """
    images("x", x)
    rows = tensor("x", x, moments.format).reshape(-1, x.shape[-1])
    channels = moments.whole.shape
    alike("a channel's row of x", rows[0], channels)
    table = np.empty((5, *channels), np.int64)
    _line(
        moments.count,
        moments.whole,
        moments.rest,
        moments.inverse,
        moments.places,
        _scalars("gamma", gamma, gamma_format, channels),
        gamma_format.frac,
        _scalars("beta", beta, beta_format, channels),
        beta_format.frac,
        y_format.frac,
        table,
    )
    y = np.empty(rows.shape, kind_of("y", y_format))
    saturated = np.zeros(tasks_of(*rows.shape), np.int64)
    with threads(0.4 * rows.size):
        _apply(rows, table, y_format.lo, y_format.hi, y, saturated)
    return y.reshape(x.shape), int(saturated.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gradients:
    """What :func:`backward` returns, in the formats asked for.

    Parameters
    ----------
    dx : int8 or int16, shape of x
    dgamma, dbeta : int8 or int16, shape (channels,)
    dx_saturated, dgamma_saturated, dbeta_saturated : int
        Elements that were outside of their format.
    """

    dx: NDArray[Any]
    dgamma: NDArray[Any]
    dbeta: NDArray[Any]
    dx_saturated: int
    dgamma_saturated: int
    dbeta_saturated: int


def backward(
    dy: Integers,
    dy_format: FixedFormat,
    x: Integers,
    moments: Moments,
    gamma: Integers,
    gamma_format: FixedFormat,
    dx_format: FixedFormat,
    dgamma_format: FixedFormat,
    dbeta_format: FixedFormat,
) -> Gradients:
    """Take the gradients through :func:`normalise` and :func:`moments`.

    Parameters
    ----------
    dy : signed integers, shape of x
        The mask of a ReLU behind has been applied.
    dy_format : FixedFormat
    x : signed integers, shape (samples, height, width, channels)
    moments : Moments
        Of x.
    gamma : signed integers, shape (channels,)
    gamma_format : FixedFormat
    dx_format, dgamma_format, dbeta_format : FixedFormat
        Of the results.

    Returns
    -------
    Gradients
    """
    images("x", x)
    alike("dy", dy, x.shape)
    rows = tensor("x", x, moments.format).reshape(-1, x.shape[-1])
    slopes = tensor("dy", dy, dy_format).reshape(rows.shape)
    channels = moments.whole.shape
    alike("a channel's row of x", rows[0], channels)
    sums = np.zeros((tasks_of(*rows.shape), 2, rows.shape[1]), np.int64)
    with threads(0.4 * rows.size):
        _products(rows, slopes, sums)
    total, products = sums.sum(axis=0)
    table = np.empty((6, *channels), np.int64)
    parameters = np.empty((2, *channels), np.int64)
    limits = np.array([[f.frac - dy_format.frac, f.lo, f.hi] for f in (dgamma_format, dbeta_format)], np.int64)
    clipped = np.zeros(2, np.int64)
    _slopes(
        moments.count,
        moments.whole,
        moments.rest,
        moments.inverse,
        moments.places,
        _scalars("gamma", gamma, gamma_format, channels),
        dy_format.frac + gamma_format.frac - moments.format.frac - dx_format.frac,
        total,
        products,
        limits,
        table,
        parameters,
        clipped,
    )
    dx = np.empty(rows.shape, kind_of("dx", dx_format))
    saturated = np.zeros(tasks_of(*rows.shape), np.int64)
    with threads(0.7 * rows.size):
        _combine(rows, slopes, table, dx_format.lo, dx_format.hi, dx, saturated)
    return Gradients(
        dx=dx.reshape(x.shape),
        dgamma=parameters[0].astype(kind_of("dgamma", dgamma_format)),
        dbeta=parameters[1].astype(kind_of("dbeta", dbeta_format)),
        dx_saturated=int(saturated.sum()),
        dgamma_saturated=int(clipped[0]),
        dbeta_saturated=int(clipped[1]),
    )


def statistics(mean: NDArray[Any], variance: NDArray[Any]) -> NDArray[np.int64]:
    """Bring real running statistics to :data:`STATISTICS`, saturated.

    Parameters
    ----------
    mean, variance : float, shape (channels,)

    Returns
    -------
    int64, shape (2, channels)
    """
    both = np.rint(np.stack([mean, variance]).astype(np.float64) * 2.0**STATISTICS.frac)
    most = 2.0 ** (STATISTICS.bits - 1)
    whole = np.clip(both, -most, most / 2).astype(np.int64)
    return np.where(both >= most, STATISTICS.hi, np.where(both > most / 2, np.clip(both, 0, most - 1024), whole)).astype(np.int64)


def update(statistics: NDArray[np.int64], moments: Moments, momentum: float) -> NDArray[np.int64]:
    """Move running statistics towards those of a batch, whose variance is that of the sample (divided by n - 1).

    Parameters
    ----------
    statistics : int64, shape (2, channels)
        Mean and variance in :data:`STATISTICS`.
    moments : Moments
        Of a batch.
    momentum : float
        0 to 1: ``running = momentum * running + (1 - momentum) * batch``.

    Returns
    -------
    int64, shape (2, channels)
    """
    alike("statistics", statistics, (2, *moments.whole.shape))
    if not 0 <= momentum <= 1:
        raise RangeError(f"momentum must be in [0, 1], not {momentum}")
    result = np.ascontiguousarray(statistics).copy()
    weight = (1 << MOMENTUM_SHIFT) - round(momentum * (1 << MOMENTUM_SHIFT))
    _update(moments.count, moments.total, moments.squares, moments.format.frac, weight, result)
    return result


def running(statistics: NDArray[np.int64], x_format: FixedFormat, epsilon: float) -> Moments:
    """Take mean and reciprocal standard deviation from running statistics, for inference.

    Parameters
    ----------
    statistics : int64, shape (2, channels)
        Mean and variance in :data:`STATISTICS`.
    x_format : FixedFormat
        Of the tensor that will be normalised.
    epsilon : float
        0 or more.

    Returns
    -------
    Moments
    """
    added, places = _epsilon(epsilon, x_format.frac)
    result = np.empty((4, statistics.shape[1]), np.int64)
    _running(statistics, x_format.frac, added, places, result)
    none = np.zeros(statistics.shape[1], np.int64)
    return Moments(format=x_format, count=LARGEST, total=none, squares=none, **dict(zip(_FIELDS, result, strict=True)))


_FIELDS = ("whole", "rest", "inverse", "places")


def _epsilon(epsilon: float, frac: int) -> tuple[int, int]:
    """Return integers e and p: epsilon is ``e * 4**-p`` LSB squared, e of 60 bits or 0."""
    if not 0 <= epsilon < inf:
        raise RangeError(f"epsilon must be 0 or more and finite, not {epsilon}")
    if epsilon == 0:
        return 0, DIGITS // 2
    exact = Fraction(epsilon) * Fraction(4) ** frac
    length = exact.numerator.bit_length() - exact.denominator.bit_length()
    places = (TOP + 2 - length) // 2
    while round(exact * Fraction(4) ** places) > 1 << TOP:
        places -= 1
    return round(exact * Fraction(4) ** places), places


def _scalars(name: str, values: Integers, format: FixedFormat, shape: tuple[int, ...]) -> NDArray[np.int64]:
    alike(name, values, shape)
    return tensor(name, values, format).astype(np.int64)


@kernel(parallel=True)
def _sums(x, sums):
    rows, tasks = len(x), len(sums)
    for task in prange(tasks):
        total, squares = sums[task, 0], sums[task, 1]
        for i in range(task * rows // tasks, (task + 1) * rows // tasks):
            line = x[i]
            for j in range(line.size):
                value = np.int64(line[j])
                total[j] += value
                squares[j] += value * value


@kernel(parallel=True)
def _products(x, dy, sums):
    rows, tasks = len(x), len(sums)
    for task in prange(tasks):
        total, products = sums[task, 0], sums[task, 1]
        for i in range(task * rows // tasks, (task + 1) * rows // tasks):
            line, slope = x[i], dy[i]
            for j in range(line.size):
                value = np.int64(slope[j])
                total[j] += value
                products[j] += value * np.int64(line[j])


@kernel(parallel=True)
def _apply(x, table, lo, hi, y, saturated):
    rows, tasks = len(x), len(saturated)
    a, b, shift, below, odd = table[0], table[1], table[2], table[3], table[4]
    for task in prange(tasks):
        clipped = 0
        for i in range(task * rows // tasks, (task + 1) * rows // tasks):
            line, out = x[i], y[i]
            for j in range(line.size):
                value = np.int64(line[j]) * a[j] + b[j]
                value = (value + below[j] + ((value >> shift[j]) & odd[j])) >> shift[j]
                kept = min(max(value, lo), hi)
                clipped += kept != value
                out[j] = kept
        saturated[task] = clipped


@kernel(parallel=True)
def _combine(x, dy, table, lo, hi, dx, saturated):
    rows, tasks = len(x), len(saturated)
    first, second, b, shift, below, odd = table[0], table[1], table[2], table[3], table[4], table[5]
    for task in prange(tasks):
        clipped = 0
        for i in range(task * rows // tasks, (task + 1) * rows // tasks):
            line, slope, out = x[i], dy[i], dx[i]
            for j in range(line.size):
                value = np.int64(slope[j]) * first[j] + np.int64(line[j]) * second[j] + b[j]
                value = (value + below[j] + ((value >> shift[j]) & odd[j])) >> shift[j]
                kept = min(max(value, lo), hi)
                clipped += kept != value
                out[j] = kept
        saturated[task] = clipped


@kernel
def _scalar(value, places):
    """Kernel: ``value * 2**-places`` as a mantissa of at most 2**31 and its places, rounded half to even."""
    drop = max(_length(abs(value)) - MANTISSA, 0)
    return _round_shift(value, drop, _HALF_EVEN, 0), places - drop


@kernel
def _fixed(value, drop, most):
    """Kernel: ``value * 2**-drop`` rounded half to even, within ``-most..most``; most is below 2**62."""
    if drop >= 0:
        rounded = _round_shift(value, min(drop, 63), _HALF_EVEN, 0)
        return min(max(rounded, -most), most)
    if value == 0:
        return value
    if -drop >= FURTHEST or abs(value) > most >> -drop:
        return most if value > 0 else -most
    return value << -drop


@kernel
def _expand(whole, rest, over, bits):
    """Kernel: ``floor((whole + rest / over) * 2**h)`` of at most `bits` bits, and the greatest such h up to DIGITS."""
    drop = _length(whole) - bits
    if drop > 0:
        return whole >> drop, -drop
    places = 0
    while places < DIGITS and whole >> bits - 1 == 0:
        rest <<= 1
        whole <<= 1
        if rest >= over:
            rest -= over
            whole += 1
        places += 1
    return whole, places


@kernel
def _covariance(n, divisor, products, first, second):
    """Kernel: ``(n * products - first * second) / (n * divisor)`` as an integer and a rest in ``[0, n * divisor)``."""
    over = n * divisor
    whole = products // divisor
    rest = (products - whole * divisor) * n - first * second
    if rest < 0:
        return whole - 1, rest + over
    if rest >= over:
        return whole + 1, rest - over
    return whole, rest


@kernel
def _reciprocal(variance, h, added, places):
    """Kernel: mantissa and places of the reciprocal root of ``variance * 2**-h + added * 4**-places``; variance of 60 bits."""
    g = min(places, h // 2) if variance else places
    drop = h - 2 * g
    scaled = (variance >> min(drop, 63)) + _round_shift(added, min(2 * (places - g), 63), _HALF_UP, 0)
    root = _root(scaled)
    return ((2 << ROOT_FRAC) // root + 1) >> 1 if root else 0, ROOT_FRAC - g


@kernel
def _moments(n, total, squares, added, places, result):
    for j in range(total.size):
        whole = _quotient(total[j], n, _HALF_EVEN)
        rest = total[j] - n * whole
        spread = squares[j] - 2 * whole * total[j] + n * whole * whole
        common, part = _covariance(n, n, spread, rest, rest)
        variance, h = _expand(common, part, n * n, TOP)
        result[0, j], result[1, j] = whole, rest
        result[2, j], result[3, j] = _reciprocal(variance, h, added, places)


@kernel
def _line(n, whole, rest, inverse, places, gamma, gamma_frac, beta, beta_frac, y_frac, table):
    """Kernel: coefficients of ``y = (x * a + b) / 2**s``."""
    for j in range(gamma.size):
        a, to = _scalar(gamma[j] * inverse[j], places[j] + gamma_frac - y_frac)
        shift = MOST_SHIFT if a == 0 else min(to + COEFFICIENT - _length(abs(a)), MOST_SHIFT)
        shift = max(min(shift, MOST_SHIFT + beta_frac - y_frac), 0)
        a = _fixed(a, to - shift, STEEPEST)
        b = _fixed(beta[j], beta_frac - y_frac - shift, 1 << 61) - _quotient(rest[j] * a, n, _HALF_EVEN)
        table[0, j], table[1, j], table[2, j] = a, b - whole[j] * a, shift
        table[3, j], table[4, j] = _rounding(shift)


@kernel
def _slopes(n, whole, rest, inverse, places, gamma, drop, total, products, limits, table, parameters, clipped):
    """Kernel: coefficients of ``dx = (dy * a + x * b + c) / 2**s``, dgamma and dbeta."""
    for j in range(gamma.size):
        mean = _quotient(total[j], n, _HALF_EVEN)
        left = total[j] - n * mean
        common, part = _covariance(n, n, products[j] - whole[j] * total[j] - mean * rest[j], rest[j], left)
        sign = 1
        if common < 0:
            sign, common, part = -1, -common - (part > 0), (n * n - part if part else part)
        w, h = _expand(common, part, n * n, MANTISSA)
        w, h = _scalar(sign * w * inverse[j], h + places[j])
        for k, value, to in ((0, n * w, h), (1, total[j], 0)):
            wide = _fixed(value, to - limits[k, 0], 1 << 61)
            kept = min(max(wide, limits[k, 1]), limits[k, 2])
            parameters[k, j] = kept
            clipped[k] += kept != wide
        a, to = _scalar(gamma[j] * inverse[j], places[j] + drop)
        k, at = _scalar(w * inverse[j], h + places[j])
        k, at = _scalar(a * k, to + at)
        shift = MOST_SHIFT if a == 0 else min(to + COEFFICIENT - _length(abs(a)), MOST_SHIFT)
        shift = max(shift if k == 0 else min(at + COEFFICIENT - _length(abs(k)), shift), 0)
        a, k = _fixed(a, to - shift, STEEPEST), _fixed(k, at - shift, STEEPEST)
        table[0, j], table[1, j] = a, -k
        table[2, j] = _quotient(rest[j] * k - left * a, n, _HALF_EVEN) - mean * a + whole[j] * k
        table[3, j] = shift
        table[4, j], table[5, j] = _rounding(shift)


@kernel
def _update(n, total, squares, frac, weight, statistics):
    for j in range(total.size):
        size = abs(total[j])
        mean, h = _expand(size // n, size % n, n, TOP)
        mean = _fixed(mean if total[j] >= 0 else -mean, h + frac - STATISTICS_FRAC, STATISTICS_HI)
        variance = 0
        if n > 1:
            whole = _quotient(total[j], n, _HALF_EVEN)
            rest = total[j] - n * whole
            spread = squares[j] - 2 * whole * total[j] + n * whole * whole
            common, part = _covariance(n, n - 1, spread, rest, rest)
            variance, h = _expand(common, part, n * (n - 1), TOP)
            variance = _fixed(variance, h + 2 * frac - STATISTICS_FRAC, STATISTICS_HI)
        for k, batch in ((0, mean), (1, variance)):
            step = batch - statistics[k, j]
            high, low = step >> MOMENTUM_SHIFT, step & (1 << MOMENTUM_SHIFT) - 1
            low *= weight
            floor = high * weight + (low >> MOMENTUM_SHIFT)
            low &= (1 << MOMENTUM_SHIFT) - 1
            statistics[k, j] += floor + (low > (1 << MOMENTUM_SHIFT - 1) - (floor & 1))


STATISTICS_FRAC, STATISTICS_HI = STATISTICS.frac, STATISTICS.hi


@kernel
def _running(statistics, frac, added, places, result):
    for j in range(statistics.shape[1]):
        mean = _fixed(statistics[0, j], STATISTICS_FRAC - frac - 30, 1 << 46)
        whole = (mean + LARGEST // 2) >> 30
        variance, h = _expand(statistics[1, j], 0, 1, TOP)
        result[0, j], result[1, j] = whole, mean - (whole << 30)
        result[2, j], result[3, j] = _reciprocal(variance, h + STATISTICS_FRAC - 2 * frac, added, places)
