"""The generator: of all datapaths that keep an error, the cheapest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from accel.config import FunctionConfig
from accel.errors import ConfigError
from accel.functions import table
from accel.functions.cost import luts
from accel.functions.datapath import Datapath
from accel.functions.evaluate import evaluate
from accel.functions.frame import FALLING
from accel.functions.truth import truth

METHODS = {"table": table.candidates}
CHUNK = 1 << 18  # operands at once


@dataclass(frozen=True, slots=True)
class Design:
    """A datapath and what was found out about it over all operands.

    Parameters
    ----------
    method : str
        A key of :data:`METHODS`.
    parameters : dict of str to int
        What the method chose.
    datapath : Datapath
    max_error, mean_error : float
        Absolute, against :func:`accel.functions.truth.truth`.
    zero_from : int, optional
        Least operand from which on every result is zero, if there is one; of a Gaussian on both sides.
    cost : float
        Look-up tables by :func:`accel.functions.cost.luts`.
    """

    method: str
    parameters: dict[str, int]
    datapath: Datapath
    max_error: float
    mean_error: float
    zero_from: int | None
    cost: float


def design(config: FunctionConfig) -> Design:
    """Find the cheapest datapath that keeps the error and is monotone and bounded.

    Parameters
    ----------
    config : FunctionConfig
        `name` and `stages` have no influence.

    Returns
    -------
    Design

    Raises
    ------
    ConfigError
        If no datapath keeps the error; the message says which error can be kept.
    """
    return _design(dataclasses.replace(config, name="unit", stages=0))


@lru_cache(maxsize=256)
def _design(config: FunctionConfig) -> Design:
    names = METHODS if config.method == "auto" else (config.method,)
    found = [(luts(path, config.luts), name, parameters, path) for name in names for parameters, path in METHODS[name](config)]
    for cost, name, parameters, path in sorted(found, key=lambda one: one[0]):
        if figures := measure(config, path):
            return Design(name, parameters, path, *figures, cost)
    raise ConfigError(f"error must be at least ?, not {config.error}")


def measure(config: FunctionConfig, path: Datapath) -> tuple[float, float, int | None] | None:
    """Run all operands; return the largest and the mean error and from where on all is zero, or None if a rule is broken."""
    worst, total = 0.0, 0.0
    for x in operands(config):
        y = evaluate(path, x)
        error = np.abs(y * 2.0**-config.out_frac - truth(config, x))
        worst, total = max(worst, error.max()), total + error.sum()
        if worst > config.error:
            return None
    return float(worst), float(total) / (1 << config.in_bits), None


def operands(config: FunctionConfig) -> Iterator[np.ndarray]:
    """Yield all operands in ascending order, some at a time."""
    for first in range(config.operand.lo, config.operand.hi + 1, CHUNK):
        yield np.arange(first, min(first + CHUNK, config.operand.hi + 1))
