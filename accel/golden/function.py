"""Golden model of the nonlinear unit. RTL twin: :class:`accel.rtl.function.Function`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from accel.config import FunctionConfig
from accel.functions.evaluate import evaluate
from accel.functions.generate import design
from accel.golden import checks

TABLE_BITS = 16  # operands of up to as many bits are looked up among all results


def function(config: FunctionConfig, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Run operands through the unit.

    Parameters
    ----------
    config : FunctionConfig
    x : int64, any shape
        Operands, in the range of `config.operand` [operand LSBs].

    Returns
    -------
    int64, shape of x
        Results, in the range of `config.result` [result LSBs].

    Raises
    ------
    RangeError
        If an operand is outside its range or type.
    ConfigError
        If no datapath keeps the error.
    """
    checks.integers("x", x, x.shape, config.operand.lo, config.operand.hi)
    if config.in_bits > TABLE_BITS:
        return evaluate(design(config).datapath, x)
    return np.asarray(_results(config)[x - config.operand.lo])


@lru_cache(maxsize=16)
def _results(config: FunctionConfig) -> NDArray[np.int64]:
    """Run every operand, in ascending order."""
    return evaluate(design(config).datapath, np.arange(config.operand.lo, config.operand.hi + 1))
