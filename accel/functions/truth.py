"""What a nonlinear unit approximates, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import FunctionConfig


def truth(config: FunctionConfig, x: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return function(scale * x * 2^-in_frac) of integer operands, within 2^-50 of the real number.

    Parameters
    ----------
    config : FunctionConfig
    x : int64, any shape
        Operands [operand LSBs].

    Returns
    -------
    float64, shape of x
    """
    z = x * (config.scale * 2.0**-config.in_frac)
    match config.function:
        case "exp2":
            return np.exp2(-z)
        case "exp":
            return np.exp(-z)
        case "gaussian":
            return np.exp(-0.5 * z * z)
        case "sigmoid":
            return 0.5 + 0.5 * np.tanh(0.5 * z)
        case _:
            return np.tanh(z)
