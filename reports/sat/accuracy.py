"""Accuracy of sparse training in fixed point against dense training in floating point, on real data: several seeds of every algorithm."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from accel.sparsity import Pattern
from accel.training.loop import train
from accel.training.recipe import ALGORITHMS, Recipe
from accel.training.reference import draw, fit
from reports.sat.networks import TASKS

SEEDS = 5
PATTERN = Pattern(2, 8)
CONFIGS = {16: "sat-vcu1525", 8: "sat-vcu1525-int8"}
BASE = ("dense", "float32")
BESIDE = "digits"  # our choice: where sparsity is also measured without fixed point, and at 8 bits


def runs() -> Iterator[tuple[str, str, str]]:
    """Yield what is compared: task, algorithm, and ``"float32"`` or operand bits."""
    for task in TASKS:
        yield (task, *BASE)
        yield from ((task, algorithm, "16") for algorithm in reversed(ALGORITHMS))
        if task == BESIDE:
            yield task, "bdwp", "float32"
            yield task, "bdwp", "8"


def measure(task: str, algorithm: str, numbers: str, seed: int) -> dict[str, Any]:
    """Train once; return accuracy on the samples held out, after the last epoch [%], and saturated elements per million.

    Parameters
    ----------
    task, algorithm, numbers : str
        See :func:`runs`.
    seed : int
    """
    told = TASKS[task]
    network = told.network()
    data = told.data(network)
    fields: dict[str, Any] = {"algorithm": algorithm, "pattern": PATTERN, "batch": told.batch, "rate": told.rate, "seed": seed}
    if numbers == "float32":
        curves = fit(draw(network, seed), Recipe(**fields), data, epochs=told.epochs, dtype=np.float32).curves
        return {"held_out": 100 * curves[-1].held_out, "loss": curves[-1].loss}
    rounding = "stochastic" if numbers == "8" else "half_even"
    result = train(network, data, CONFIGS[int(numbers)], epochs=told.epochs, rounding=rounding, **fields)
    formats = result.state.formats.values()
    saturated = sum(each.overflowed for each in formats) / max(sum(each.elements for each in formats), 1)
    return {"held_out": 100 * result.curves[-1].held_out, "loss": result.curves[-1].loss, "saturated": 1e6 * saturated}


def summary(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare every set of runs with dense float32 of the same task, seed by seed.

    Parameters
    ----------
    measured : list of dict
        ``task``, ``algorithm``, ``numbers``, ``seed`` and what :func:`measure` returns.
    """
    found = []
    for task, algorithm, numbers in runs():
        own, base = (
            {run["seed"]: run["held_out"] for run in measured if (run["task"], run["algorithm"], run["numbers"]) == key}
            for key in ((task, algorithm, numbers), (task, *BASE))
        )
        losses = [base[seed] - own[seed] for seed in sorted(own)]
        saturated = [
            run["saturated"]
            for run in measured
            if "saturated" in run and (run["task"], run["algorithm"], run["numbers"]) == (task, algorithm, numbers)
        ]
        found.append(
            {
                "task": task,
                "algorithm": algorithm,
                "numbers": numbers,
                "seeds": len(losses),
                "mean": statistics.mean(own.values()),
                "deviation": statistics.stdev(own.values()),
                "loss": statistics.mean(losses),
                "loss_deviation": statistics.stdev(losses),
                "saturated": statistics.mean(saturated) if saturated else None,
            }
        )
    return found
