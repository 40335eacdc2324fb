"""The generator: of all datapaths that keep an error, the cheapest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from accel.config import FunctionConfig
from accel.errors import ConfigError
from accel.functions import base2, chains, folded, linear, table
from accel.functions.cost import luts
from accel.functions.datapath import Datapath
from accel.functions.evaluate import evaluate
from accel.functions.frame import FALLING, Plan
from accel.functions.truth import truth

METHODS: dict[str, Callable[[FunctionConfig], Iterable[Plan]]] = {
    "base2": base2.plans,
    "linear": linear.plans,
    "table": table.plans,
    "searched": lambda config: chain(chains.plans(config), folded.plans(config)),
}
SLACK = 1.3  # a plan is tried while its estimate is at most so many times the least cost found
TRIES = 48  # datapaths among which the cheapest is chosen
MOST = 2000  # plans that are tried in all
WIDEST = 62  # bits of a value that int64 evaluates and adds without overflow
LOOSE = 0.01  # targets above it are met by so few plans that a finer one's may be cheaper
LOWEST, HIGHEST = 1e-7, 0.25  # errors that a configuration can ask for
CHUNK = 1 << 16  # operands at once
WINDOWS, WINDOW = 64, 1 << 10  # runs of neighbouring operands that are tried first, and operands in each


@dataclass(frozen=True, slots=True)
class Design:
    """A datapath and what was found out about it over all operands.

    Parameters
    ----------
    method : str
        A key of :data:`METHODS`.
    parameters : dict of str to int or str
        What the method chose.
    datapath : Datapath
    max_error, mean_error : float
        Absolute, against :func:`accel.functions.truth.truth`.
    zero_from : int, optional
        Least magnitude of the operand from which on every result is zero, if there is one.
    cost : float
        Look-up tables by :func:`accel.functions.cost.luts`.
    """

    method: str
    parameters: dict[str, int | str]
    datapath: Datapath
    max_error: float
    mean_error: float
    zero_from: int | None
    cost: float


def design(config: FunctionConfig) -> Design:
    """Find the cheapest datapath that keeps the error, is monotone and stays in [0, 1], odd ones in [-1, 1].

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
    config = dataclasses.replace(config, name="unit", stages=0)
    if config.method == "base2" and config.function not in FALLING:
        others = ", ".join(name for name in METHODS if name != config.method)
        raise ConfigError(f"method must be one of auto, {others} for {config.function}, not {config.method!r}")
    if found := _cheapest(config):
        return found
    least = _least_error(config)
    if least and least > HIGHEST:
        raise ConfigError(f"out_bits must be at least {config.out_frac + config.result.signed} for results up to 1, not {config.out_bits}")
    if least:
        raise ConfigError(f"error must be at least {least}, not {config.error}")
    raise ConfigError(f"method must be one that finds a datapath for these formats, not {config.method!r}")


def front(config: FunctionConfig, errors: Sequence[float]) -> list[Design]:
    """Find the designs for several error targets that no other one undercuts in both error and cost.

    Parameters
    ----------
    config : FunctionConfig
        Its `error` has no influence.
    errors : sequence of float
        Targets; those that cannot be kept are left out.

    Returns
    -------
    list of Design
        By falling error and rising cost.
    """
    wanted = [dataclasses.replace(config, name="unit", stages=0, error=error) for error in errors]
    found = sorted((one for target in wanted if (one := _cheapest(target))), key=lambda one: (one.cost, one.max_error))
    kept: list[Design] = []
    for one in found:
        if not kept or one.max_error < kept[-1].max_error:
            kept.append(one)
    return kept


def _cheapest(config: FunctionConfig) -> Design | None:
    """Find a datapath for a target or, where it is loose or missed, for a finer one: not all plans are tried, and finer pieces may do."""
    targets = (max(LOWEST, config.error / part) for part in (1, 2, 4))
    designs = filter(None, (_design(dataclasses.replace(config, error=target)) for target in targets))
    if config.error > LOOSE:
        return min(designs, key=lambda one: one.cost, default=None)
    return next(designs, None)


@lru_cache(maxsize=256)
def _design(config: FunctionConfig) -> Design | None:
    """Find the cheapest datapath, None if there is none."""
    if config.error < _format_error(config):
        return None
    names = METHODS if config.method == "auto" else (config.method,)
    planned = [(plan.estimate, name, plan) for name in names for plan in METHODS[name](config)]
    built: list[tuple[float, str, dict[str, int | str], Datapath]] = []
    for estimate, name, plan in sorted(planned, key=lambda one: one[0])[:MOST]:
        if len(built) >= TRIES or (built and estimate > SLACK * min(cost for cost, *_ in built)):
            if figures := _first(config, built):
                return figures
            built = []
        if (path := plan.build()) and max(node.bits for node in path.nodes) <= WIDEST:
            cost = luts(path, config.luts) if plan.counted is None else plan.counted
            built.append((cost, name, plan.parameters, path))
    return _first(config, built)


def _first(config: FunctionConfig, built: list[tuple[float, str, dict[str, int | str], Datapath]]) -> Design | None:
    """Return the cheapest one that passes over all operands."""
    for cost, name, parameters, path in sorted(built, key=lambda one: one[0]):
        if figures := measure(config, path):
            return Design(name, parameters, path, *figures, cost)
    return None


def _least_error(config: FunctionConfig) -> float | None:
    """Find a target that can be kept, by doubling the one that cannot, or what the result's format alone costs if that is too much."""
    target = config.error
    while target < HIGHEST:
        target = min(2 * target, HIGHEST)
        if found := _design(dataclasses.replace(config, error=target)):
            near = min(HIGHEST, max(LOWEST, float(f"{1.006 * found.max_error:.3g}")))  # three digits, rounded up
            return near if _design(dataclasses.replace(config, error=near)) else target
    least = _format_error(config)
    return least if least > HIGHEST else None


def _format_error(config: FunctionConfig) -> float:
    """Return how far the best results of the extreme operands and of zero are from the truth: no datapath is closer."""
    values = truth(config, np.array([config.operand.lo, 0, config.operand.hi]))
    scale, result = 2.0**config.out_frac, config.result
    return float(np.abs(values - np.clip(np.rint(values * scale), result.lo, result.hi) / scale).max())


def measure(config: FunctionConfig, path: Datapath) -> tuple[float, float, int | None] | None:
    """Run all operands through a datapath, if there are many after some of them.

    Parameters
    ----------
    config : FunctionConfig
    path : Datapath

    Returns
    -------
    tuple or None
        Largest and mean absolute error, and the least magnitude from which on all results are zero, if there is one. None if the error
        is not kept, or the results are not monotone (of a Gaussian in the magnitude), or leave their format or [0, 1] (odd ones [-1, 1]).
    """
    lo = 0 if config.function == "gaussian" else config.operand.lo
    count = config.operand.hi + 1 - lo
    if count > WINDOWS * WINDOW:
        starts = range(lo, config.operand.hi + 1, count // WINDOWS)
        if _measure(config, path, (np.arange(start, start + WINDOW) for start in starts)) is None:
            return None
    return _measure(config, path, (lo + part for part in np.array_split(np.arange(count), -(-count // CHUNK))))


def _measure(config: FunctionConfig, path: Datapath, operands: Iterable[NDArray[np.int64]]) -> tuple[float, float, int | None] | None:
    """Run ascending operands."""
    even, falling = config.function == "gaussian", config.function in FALLING
    one = 1 << config.out_frac
    bounds = max(-one if config.odd else 0, config.result.lo), min(one, config.result.hi)
    worst = total = 0.0
    zero_from = 0
    before = [np.empty(0, np.int64)] * 2
    for x in operands:
        sides = []
        for operand in (x, ~x) if even else (x,):
            y = evaluate(path, operand)
            error = np.abs(y / one - truth(config, operand))
            worst, total = max(worst, float(error.max())), total + float(error.sum())
            if worst > config.error or y.min() < bounds[0] or y.max() > bounds[1]:
                return None
            if y.any():
                zero_from = int(x[np.flatnonzero(y)[-1]]) + 1 + (operand is not x)
            sides.append(y)
        sides = [np.append(old[-2:], new) for old, new in zip(before, sides, strict=False)]
        if not _ordered(sides if falling else [-sides[0]]):
            return None
        before = sides
    ends = falling and zero_from <= config.operand.hi + even
    return worst, total / (1 << config.in_bits), zero_from if ends else None


def _ordered(sides: list[NDArray[np.int64]]) -> bool:
    """Tell whether results never rise, with the magnitude if the second side are those of ~x: of the magnitude greater by one."""
    if any((np.diff(side) > 0).any() for side in sides):
        return False
    return len(sides) == 1 or bool((sides[1] <= sides[0]).all() and (sides[0][2:] <= sides[1][:-2]).all())
