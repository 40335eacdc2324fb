"""A trained network in fixed point: formats chosen from the ranges of data and parameters, and how far results can then be off.

Every word has the same number of bits; a fraction is the most bits with which a format still holds what matters:

- samples: HEADROOM times the largest scaled feature or centre of the training samples;
- exponent: up to `phi_bits`, where the activation is down to one LSB, which is what a saturated exponent gives;
- distance: HEADROOM times the largest of the training samples, or, if that is less, the distance at which the widest neuron's exponent
  saturates; more changes no activation by more than one LSB;
- width: the largest width; weight: the largest weight or bias;
- sum: HEADROOM times the largest of the training samples; of a sigmoid at most `y_bits` ln 2, where it is within one LSB of 0 or 1.

Parameters are rounded to the nearest integer of their format, ties to even, and a width is at least one LSB. :func:`error_bound` states
the error.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from accel.config import RbfConfig
from accel.errors import ConfigError
from accel.formats import FixedFormat
from accel.rbf.model import Parameters, RbfModel, activations, sums

HEADROOM = 1.25  # our choice: what unseen samples may exceed the training samples by before they saturate


def quantise(
    reals: Parameters, z: NDArray[np.float64], *, name: str, output: str, bits: int, units: int, error: float
) -> tuple[RbfConfig, Parameters]:
    """Choose the formats of a network and round its parameters to them.

    Parameters
    ----------
    reals : Parameters of float64
        What was trained.
    z : float64, shape (n, D)
        Scaled training samples.
    name, output : str
        As in :class:`RbfConfig`.
    bits : int
        Width of every word [bits], 8 to 24.
    units : int
        As in :class:`RbfConfig`.
    error : float
        Largest absolute error of the Gaussian and of the sigmoid unit.

    Returns
    -------
    config : RbfConfig
    integers : Parameters of int64

    Raises
    ------
    ConfigError
        If the ranges do not fit `bits`.
    """
    neurons, dims = reals.centres.shape
    far = HEADROOM * max(float(((z - centre) ** 2).sum(1).max()) for centre in reals.centres)
    total = HEADROOM * float(np.abs(sums(reals, z)).max())
    integer_bits = math.ceil(math.log2(bits))
    x_frac = _fraction("samples", HEADROOM * _largest(z, reals.centres), bits)
    distance_frac = _fraction("distance", min(far, 2.0**integer_bits / float(reals.widths.min())), bits, signed=False)
    distance_frac = min(distance_frac, 2 * x_frac)
    width_frac = _fraction("width", _largest(reals.widths), bits, signed=False)
    weight_frac = _fraction("weight", _largest(reals.weights, reals.biases), bits)
    sum_frac = _fraction("sum", total if output == "linear" else min(total, bits * math.log(2)), bits)
    config = RbfConfig(
        name=name,
        dims=dims,
        neurons=neurons,
        outputs=len(reals.biases),
        units=units,
        x_bits=bits,
        x_frac=x_frac,
        distance_bits=bits,
        distance_frac=distance_frac,
        width_bits=bits,
        width_frac=width_frac,
        t_bits=bits,
        t_frac=min(bits - integer_bits, distance_frac + width_frac),
        phi_bits=bits,
        error=error,
        weight_bits=bits,
        weight_frac=weight_frac,
        output=output,
        sum_bits=bits,
        sum_frac=min(sum_frac, bits + weight_frac),
        y_bits=bits,
        sigmoid_error=error,
    )
    widths = np.maximum(_integers(reals.widths, config.width), 1)
    weights, biases = (_integers(values, config.weight) for values in (reals.weights, reals.biases))
    return config, Parameters(_integers(reals.centres, config.x), widths, weights, biases)


def error_bound(model: RbfModel, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far results may be off, shape (n, K), for scaled samples z, shape (n, D), within the ranges of the training samples.

    With e = 2^-x_frac, d the distance and w the width of a neuron, its exponent t is off by at most

        delta = (w + dw) (2 d e sqrt(D) + D e^2 + 2^-distance_frac) + d^2 dw + 2^-t_frac,

    dw the rounding of the width; its activation phi by phi (2^delta - 1) + `error`, and one LSB for an exponent that saturates. A sum is
    off by these times the weights, by the rounding of weights and bias, 2^-(weight_frac + 1) (1 + sum of phi), and by 2^-(sum_frac + 1).
    A sigmoid quarters that at least, and adds its own error and one LSB for a sum that saturates.
    """
    config, reals = model.config, model.reals
    phi = activations(reals, z)
    squares = -np.log2(np.maximum(phi, np.finfo(float).tiny)) / reals.widths
    step = 2.0**-config.x_frac
    rounding = np.abs(model.integers.widths * 2.0**-config.width_frac - reals.widths)
    distance = 2 * step * np.sqrt(config.dims * squares) + config.dims * step**2 + 2.0**-config.distance_frac
    delta = (reals.widths + rounding) * distance + squares * rounding + 2.0**-config.t_frac
    off = phi * np.expm1(math.log(2) * delta) + config.error + 2.0**-config.phi_bits
    half = 2.0 ** -(config.weight_frac + 1)
    total: NDArray[np.float64] = (
        off @ np.abs(reals.weights).T + half * (1 + (phi + off).sum(1, keepdims=True)) + 2.0 ** -(config.sum_frac + 1)
    )
    if config.output == "sigmoid":
        total = total / 4 + config.sigmoid_error + 2.0**-config.y_bits
    return total


def _largest(*arrays: NDArray[np.float64]) -> float:
    return max(float(np.abs(array).max()) for array in arrays)


def _fraction(name: str, limit: float, bits: int, signed: bool = True) -> int:
    """Return the most fraction bits, 0 to 24, with which `limit` rounds to an integer of the format.

    Raises
    ------
    ConfigError
        If there are none.
    """
    hi = FixedFormat(bits, 0, signed).hi
    for frac in range(24, -1, -1):
        if limit * 2.0**frac <= hi:
            return frac
    raise ConfigError(f"bits must be enough for a {name} of {limit:.6g}, not {bits}")


def _integers(values: NDArray[np.float64], form: FixedFormat) -> NDArray[np.int64]:
    return np.clip(np.rint(values * 2.0**form.frac), form.lo, form.hi).astype(np.int64)
