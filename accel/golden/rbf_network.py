"""Golden model of a radial-basis network. RTL twin: :class:`accel.rtl.rbf_network.RbfNetwork`.

All is exact in int64, for every configuration: beyond the neurons, an activation times a weight has at most 48 bits, `neurons` <= 1024 of
them add up to 58, and bias and rounding add less than 2^49.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import RbfConfig
from accel.golden import checks
from accel.golden.function import function
from accel.golden.rbf_neuron import CHUNK, _exponent


def rbf_network(
    config: RbfConfig,
    centres: NDArray[np.int64],
    widths: NDArray[np.int64],
    weights: NDArray[np.int64],
    biases: NDArray[np.int64],
    x: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Run samples through the network.

    Parameters
    ----------
    config : RbfConfig
        Formats and sizes; `units`, `products` and `stages` have no influence.
    centres : int64, shape (neurons, dims)
        In the range of ``config.x`` [sample LSBs].
    widths : int64, shape (neurons,)
        In the range of ``config.width`` [width LSBs].
    weights : int64, shape (outputs, neurons)
        In the range of ``config.weight`` [weight LSBs].
    biases : int64, shape (outputs,)
        In the range of ``config.weight`` [weight LSBs].
    x : int64, shape (n, dims)
        Samples, in the range of ``config.x`` [sample LSBs].

    Returns
    -------
    int64, shape (n, outputs)
        Results, in the range of ``config.result``.

    Raises
    ------
    RangeError
        If an argument is outside its range, shape or type.
    ConfigError
        If no unit keeps the error of the Gaussian or of the sigmoid.
    """
    checks.integers("centres", centres, (config.neurons, config.dims), config.x.lo, config.x.hi)
    checks.integers("widths", widths, (config.neurons,), config.width.lo, config.width.hi)
    checks.integers("weights", weights, (config.outputs, config.neurons), config.weight.lo, config.weight.hi)
    checks.integers("biases", biases, (config.outputs,), config.weight.lo, config.weight.hi)
    checks.integers("x", x, ("n", config.dims), config.x.lo, config.x.hi)
    total = np.empty((len(x), config.outputs), np.int64)
    step = max(1, CHUNK // centres.size)
    for first in range(0, len(x), step):
        some = slice(first, first + step)
        phi = function(config.gaussian, _exponent(config, x[some, None], centres, widths))
        total[some] = _rounded(config, phi @ weights.T + (biases << config.phi_bits))
    return function(config.sigmoid, total) if config.output == "sigmoid" else total


def _rounded(config: RbfConfig, total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bring exact sums into the format of a sum: half up, saturated."""
    shift = config.phi_bits + config.weight_frac - config.sum_frac
    half = 1 << shift >> 1
    return np.asarray(np.clip((total + half) >> shift, config.sum.lo, config.sum.hi))
