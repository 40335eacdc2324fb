"""Cycles of the nonlinear unit.

An operand is accepted every cycle and its result emitted `stages` cycles later; without stages in the same cycle. While a result waits
behind the last stage nothing moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import FunctionConfig
from accel.jit import kernel


def function(config: FunctionConfig, operands: int) -> int:
    """Count the cycles of operands in a row, with neighbours that never wait.

    Parameters
    ----------
    config : FunctionConfig
        Its `stages`.
    operands : int
        1 or more.

    Returns
    -------
    int
        From the first operand's acceptance to the last result, both inclusive [cycles].
    """
    return operands + config.stages


@kernel
def function_trace(stages: int, i_valid: NDArray[np.bool_], o_ready: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting empty.

    Parameters
    ----------
    stages : int
        Of the configuration.
    i_valid, o_ready : bool, shape (cycles,)
        What the neighbours drive.

    Returns
    -------
    i_ready, o_valid : bool, shape (cycles,)
    """
    if stages == 0:
        return o_ready.copy(), i_valid.copy()
    i_ready = np.zeros_like(i_valid)
    o_valid = np.zeros_like(i_valid)
    held = np.zeros(stages, np.bool_)  # which of the stages hold a value
    for t in range(i_valid.size):
        o_valid[t] = held[-1]
        i_ready[t] = o_ready[t] or not held[-1]
        if i_ready[t]:
            held[1:] = held[:-1].copy()
            held[0] = i_valid[t]
    return i_ready, o_valid
