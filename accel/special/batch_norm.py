"""Batch normalisation as it is trained, in fixed point: exact sums, scalars of 31 bits by channel, one rounding of each element.

All of it is our choice. x, y, dy, dx, gamma, beta and their gradients are signed integers of at most 16 bits, each tensor with a fraction
of its own; f(t) is the fraction of t. What follows is one channel; n, at most 2**30, is the number of its elements in the batch.

**Scalars.** ``m * 2**-p`` with an integer m of at most 2**31 in magnitude and an exponent p. Longer integers, up to 62 bits, become
scalars by rounding the bits below the highest 31, half to even; so the product of two scalars is off by a factor 1 + 2**-31 at most.

**Moments** (:func:`moments`)

1. S = sum x, Q = sum x**2; m = round(S / n), half to even; R = S - n * m. The mean is m + R / n, exactly.
2. D = Q - 2 * m * S + n * m**2 = sum (x - m)**2. The variance is (n * D - R**2) / n**2, exactly; 0, or 2**-31 or more.
3. epsilon = e * 4**-p LSB of x squared, p the greatest exponent at which e has at most 60 bits.
   g is the greatest number up to p at which floor(variance * 4**g) has at most 60 bits, where the variance is 0 it is p.
   T = floor(variance * 4**g) + round_half_up(e / 4**(p - g)): at least 2**58, or 0.
4. q = the integer nearest sqrt(T); r = floor(2**60 / q + 1/2), 0 where T is. rstd = r * 2**(g - 60), a scalar.

**Forward** (:func:`normalise`): y = saturate(round((x * a + b') / 2**s)), half to even, with

5. A = scalar(gamma * r) * 2**(g - 60 + f(y) - f(gamma)), and a = round(A * 2**s), within 2**31 - 1 in magnitude.
   s is the greatest shift up to min(46, 46 + f(beta) - f(y)) at which abs(A) * 2**s < 2**30, and 0 or more.
6. b = round(beta * 2**(f(y) - f(beta) + s)) - round(R * a / n), the former within 2**61; b' = b - m * a. So x * a + b' is
   (x - m) * a + b: 62 bits.

**Backward** (:func:`backward`): dx = saturate(round((dy * a + x * -k + c') / 2**s)) with

7. Sums B = sum dy and P = sum dy * x; m' = round(B / n), R' = B - n * m'. The covariance of dy and x is
   (n * (P - m * B - m' * R) - R * R') / n**2, exactly. Its magnitude, cut to 31 bits, is a scalar.
8. w = scalar(covariance * rstd): the mean of dy times normalised x. dgamma = saturate(round(n * w * 2**(f(dgamma) - f(dy)))),
   dbeta = saturate(round(B * 2**(f(dbeta) - f(dy)))).
9. A = scalar(gamma * r) * 2**(g - 60 - f(gamma) + f(x) + f(dx) - f(dy)) and K = scalar(A * scalar(w * rstd)). a and k are
   round(A * 2**s) and round(K * 2**s), within 2**31 - 1 in magnitude, s the greatest shift up to 46 at which both abs(A) * 2**s and
   abs(K) * 2**s are below 2**30, and 0 or more.
10. c = round((R * k - R' * a) / n), c' = c - m' * a + m * k: dx is round(((dy - m') * a - (x - m) * k + c) / 2**s).

**Error.** Against real arithmetic on the same integers, in LSB of the result, before saturation. T is off by less than 2 in 2**58, q by a
half in 2**29, r by a half in 2**29.5: rstd is off by less than a factor 1 + 2**-29. With 2**-s <= max(2**-29 * abs(A), 2**-46) or what
beta asks for, and A, K the real values of what 5 and 9 call so (the bounds hold where they are below 2**31; beyond, one LSB of x or dy
moves a result by 2**31):

- y: 1/2 + 2**-28 * abs(y - beta) + 2**-29 * abs(A) + 2**-30 * max(1, 2**(f(y) - f(beta)));
- dbeta: 1/2; dgamma: 1/2 + 2**-28 * abs(dgamma);
- dx: 1/2 + 2**-28 * abs(A * (dy - mean dy)) + 2**-26 * abs(K * (x - mean)) + 2**-29
  + 2**-30 * max(abs(A), abs(K)) * (1 + abs(dy - mean dy) + abs(x - mean)).

Where all elements of a channel are equal, x - mean is 0: y is beta, dgamma 0, dx = A * (dy - mean dy) with rstd = 1 / sqrt(epsilon). Where
epsilon is 0 too, rstd is taken as 0, so dx is. With n = 1, dx is 0.

**Running statistics** (:func:`update`) are mean and variance as 62-bit integers of 32 fraction bits, whatever the format of x:
``running + round((batch - running) * (2**16 - momentum) / 2**16)``, half to even, momentum the nearest integer to 2**16 of it. As in
torch the variance that goes in is divided by n - 1 (0 where n is 1), that of step 2 by n. Either comes from the exact quotient, cut to 60
bits, rounded to 32 fraction bits and saturated. In inference (:func:`running`) the mean is taken to 30 fraction bits of an LSB of x within
2**16 LSB, as m + R / 2**30, and steps 3 to 6 follow.
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
from accel.special.integers import WIDEST, Integers, _length, _quotient, _root
from accel.special.tensors import FURTHEST, _rounding, alike, images, kind_of, tasks_of, tensor

LARGEST = 1 << 30  # elements of a channel, at most: n**2 then stays at 2**60
TOP = 60  # bits to which variance and epsilon are brought
ROOT_FRAC = 60  # fraction bits of the reciprocal root
MANTISSA = 31  # bits of a scalar
STEEPEST = (1 << 31) - 1  # of a coefficient, at most
COEFFICIENT = 30  # bits that a coefficient is given where the shift allows
MOST_SHIFT = 46  # of a result: beta of 15 bits then stays below 2**61
DIGITS = 92  # binary places after which a ratio of n**2 is cut: it is 2**-60 or more
FINE = 30  # fraction bits of a running mean in LSB of x
STATISTICS = FixedFormat(62, 32)  # running mean and variance
STATISTICS_FRAC, STATISTICS_HI = STATISTICS.frac, STATISTICS.hi
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

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    images("x", x)
    count = x.size // x.shape[-1]
    if count > LARGEST:
        raise RangeError(f"x must have at most {LARGEST} elements in a channel, not {count}")
    added, places = _epsilon(epsilon, x_format.frac)
    rows = tensor("x", x, x_format).reshape(count, x.shape[-1])
    sums = np.zeros((tasks_of(*rows.shape), 2, rows.shape[1]), np.int64)
    with threads(0.35 * rows.size):
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

    Raises
    ------
    RangeError
        If an argument breaks its rule.
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
    with threads(0.35 * rows.size):
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

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    images("x", x)
    alike("dy", dy, x.shape)
    rows = tensor("x", x, moments.format).reshape(-1, x.shape[-1])
    slopes = tensor("dy", dy, dy_format).reshape(rows.shape)
    channels = moments.whole.shape
    alike("a channel's row of x", rows[0], channels)
    sums = np.zeros((tasks_of(*rows.shape), 2, rows.shape[1]), np.int64)
    with threads(0.35 * rows.size):
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
    with threads(0.45 * rows.size):
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
    """Bring real running statistics to the format they are kept in, saturated to what float64 holds of it.

    Parameters
    ----------
    mean, variance : float, shape (channels,)
        The variance is 0 or more.

    Returns
    -------
    int64, shape (2, channels)

    Raises
    ------
    RangeError
        If a variance is negative, or anything is NaN.
    """
    if not (variance >= 0).all() or np.isnan(mean).any():
        raise RangeError(f"variance must be 0 or more and mean a number, not {np.min(variance)} and {np.min(mean)}")
    most = 2.0 ** (STATISTICS.bits - 1)
    both = np.stack([mean, variance]).astype(np.float64) * 2.0**STATISTICS.frac
    return np.rint(np.clip(both, -most, np.nextafter(most, 0))).astype(np.int64)


def real(statistics: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return running mean and variance as reals: the inverse of :func:`statistics`.

    Parameters
    ----------
    statistics : int64, shape (2, channels)
    """
    mean, variance = statistics * 2.0**-STATISTICS.frac
    return mean, variance


def update(statistics: NDArray[np.int64], moments: Moments, momentum: float) -> NDArray[np.int64]:
    """Move running statistics towards those of a batch, whose variance is divided by n - 1.

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

    Raises
    ------
    RangeError
        If an argument breaks its rule.
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

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    added, places = _epsilon(epsilon, x_format.frac)
    result = np.empty((4, statistics.shape[1]), np.int64)
    _running(statistics, x_format.frac, added, places, result)
    none = np.zeros(statistics.shape[1], np.int64)
    return Moments(format=x_format, count=1 << FINE, total=none, squares=none, **dict(zip(_FIELDS, result, strict=True)))


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


@kernel
def _running(statistics, frac, added, places, result):
    for j in range(statistics.shape[1]):
        mean = _fixed(statistics[0, j], STATISTICS_FRAC - frac - FINE, 1 << WIDEST + FINE)
        whole = (mean + (1 << FINE - 1)) >> FINE
        variance, h = _expand(statistics[1, j], 0, 1, TOP)
        result[0, j], result[1, j] = whole, mean - (whole << FINE)
        result[2, j], result[3, j] = _reciprocal(variance, h + STATISTICS_FRAC - 2 * frac, added, places)
