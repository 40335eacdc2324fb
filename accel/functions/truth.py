"""What a nonlinear unit approximates, in float64."""

from __future__ import annotations

from collections.abc import Callable
from math import erf

import numpy as np
from numpy.typing import NDArray

from accel.config import FunctionConfig
from accel.jit import kernel


def truth(config: FunctionConfig, x: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return function(scale * x * 2^-in_frac) of integer operands, within 2^-50 of the real number.

    Parameters
    ----------
    config : FunctionConfig
    x : int64 or float64, any shape
        Operands [operand LSBs].

    Returns
    -------
    float64, shape of x
    """
    return FORMULAS[config.function](x.astype(np.float64) * (config.scale * 2.0**-config.in_frac))


@kernel
def _erf_each(z):
    """Kernel: results take the place of z. NumPy has no error function."""
    for i in range(z.size):
        z[i] = erf(z[i])


def _erf(z: NDArray[np.float64]) -> NDArray[np.float64]:
    values = z.flatten()
    _erf_each(values)
    return values.reshape(z.shape)


FORMULAS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "exp2": lambda z: np.asarray(np.exp2(-z)),
    "exp": lambda z: np.asarray(np.exp(-z)),
    "gaussian": lambda z: np.asarray(np.exp(-0.5 * z * z)),
    "sigmoid": lambda z: np.asarray(0.5 + 0.5 * np.tanh(0.5 * z)),
    "tanh": lambda z: np.asarray(np.tanh(z)),
    "erf": _erf,
}
