"""Golden model of a radial-basis neuron. RTL twin: :class:`accel.rtl.rbf_neuron.RbfNeuron`.

All is exact in int64, for every configuration: a difference has at most 25 bits and its square 48, of which `dims` <= 1024 add up to 58;
a distance times a width has at most 48.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import RbfConfig
from accel.golden import checks
from accel.golden.function import function

CHUNK = 1 << 20  # elements of differences held at once


def rbf_neuron(config: RbfConfig, x: NDArray[np.int64], centre: NDArray[np.int64], width: NDArray[np.int64]) -> NDArray[np.int64]:
    """Run samples through one neuron, each with a centre and a width of its own.

    Parameters
    ----------
    config : RbfConfig
        Formats; `dims`.
    x : int64, shape (n, dims)
        Samples, in the range of ``config.x`` [sample LSBs].
    centre : int64, shape (n, dims)
        Centres, in the same range [sample LSBs].
    width : int64, shape (n,)
        Widths, in the range of ``config.width`` [width LSBs].

    Returns
    -------
    int64, shape (n,)
        Activations, in the range of ``config.gaussian.result``.

    Raises
    ------
    RangeError
        If an argument is outside its range, shape or type.
    ConfigError
        If no unit keeps the Gaussian's error.
    """
    checks.integers("x", x, ("n", config.dims), config.x.lo, config.x.hi)
    checks.integers("centre", centre, x.shape, config.x.lo, config.x.hi)
    checks.integers("width", width, (len(x),), config.width.lo, config.width.hi)
    t = np.empty(len(x), np.int64)
    step = max(1, CHUNK // config.dims)
    for first in range(0, len(x), step):
        some = slice(first, first + step)
        t[some] = _exponent(config, x[some], centre[some], width[some])
    return function(config.gaussian, t)


def _exponent(config: RbfConfig, x: NDArray[np.int64], centre: NDArray[np.int64], width: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the exponents of samples and centres, shape (..., dims), and widths, shape (...), that broadcast."""
    difference = x - centre
    squares = np.einsum("...d,...d->...", difference, difference)
    distance = np.minimum(squares >> 2 * config.x_frac - config.distance_frac, config.distance.hi)
    t = distance * width >> config.distance_frac + config.width_frac - config.t_frac
    return np.asarray(np.minimum(t, config.gaussian.operand.hi))
