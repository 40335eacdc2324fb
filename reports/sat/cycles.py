"""Cycles of training steps on `sat-vcu1525`: dense and sparse, by network and stage, with and without each dataflow optimisation."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import Any

import accel
from accel import presets
from accel.config import AcceleratorConfig
from accel.graph.files import trainable
from accel.graph.trainable import Trainable
from accel.schedule.operations import bound, operations
from accel.sparsity import Pattern
from accel.step_result import OPTIMISATIONS, STAGES, StepResult

NETWORKS = {"resnet9": "ResNet-9", "vgg19": "VGG-19", "vit": "ViT", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}
PATTERNS = ("2:4", "2:8", "1:8", "2:16")
MAIN = "2:8"
BATCH = 64
CONFIG = "sat-vcu1525"
STAGED = 3  # our choice: stages of an adder that one cycle is too short for, where interleaving shows
SETS = (
    {"all": OPTIMISATIONS}
    | {f"no {name}": tuple(other for other in OPTIMISATIONS if other != name) for name in OPTIMISATIONS}
    | {"none": ()}
)
"""Which dataflow optimisations are on, by what a table calls it."""


@functools.cache
def network(name: str) -> Trainable:
    """Load the shapes of a network."""
    return trainable(name)


@functools.cache
def config(stages: int = 1) -> AcceleratorConfig:
    """Describe the accelerator, with an adder of so many stages."""
    return dataclasses.replace(presets.load(CONFIG), add_stages=stages)


@functools.cache
def step(name: str, pattern: str = "dense", chosen: str = "all", stages: int = 1, algorithm: str = "bdwp") -> StepResult:
    """Count a training step."""
    told: dict[str, Any] = {"algorithm": "dense"} if pattern == "dense" else {"algorithm": algorithm, "pattern": pattern}
    return accel.simulate(network(name), config(stages), batch=BATCH, training=True, optimisations=SETS[chosen], **told)


def speedup(name: str, pattern: str, **settings: Any) -> float:
    """Divide the cycles of the dense step by those of the sparse one, both on the same machine with the same optimisations."""
    base = {key: value for key, value in settings.items() if key != "algorithm"}
    return step(name, **base).cycles / step(name, pattern, **settings).cycles


def limit(name: str, pattern: str, algorithm: str = "bdwp") -> float:
    """Bound of the speed-up: dense over executed multiplications."""
    return float(bound(operations(network(name), Pattern.parse(pattern), algorithm)))


def measure() -> dict[str, Any]:
    """Count everything that the tables and figures show."""
    names = list(NETWORKS)
    told: dict[str, Any] = {
        "speedup": {name: {pattern: speedup(name, pattern) for pattern in PATTERNS} for name in names},
        "limit": {name: {pattern: limit(name, pattern) for pattern in PATTERNS} for name in names},
        "runs": {name: {pattern: _run(step(name, pattern)) for pattern in ("dense", MAIN)} for name in names},
        "switches": {name: {chosen: _run(step(name, MAIN, chosen)) for chosen in SETS} for name in names},
        "switched": {name: {chosen: speedup(name, MAIN, chosen=chosen) for chosen in SETS} for name in names},
        "staged": {name: {chosen: step(name, MAIN, chosen, STAGED).cycles for chosen in ("all", "no interleave")} for name in names},
        "algorithms": {
            name: {each: [speedup(name, MAIN, algorithm=each), limit(name, MAIN, each)] for each in ("bdwp", "sr-ste", "sdgp")}
            for name in names
        },
    }
    told["mean"] = {pattern: statistics.mean(told["speedup"][name][pattern] for name in names) for pattern in PATTERNS}
    return told


def _run(result: StepResult) -> dict[str, Any]:
    """Tell of a step what the tables show."""
    slots = sum(result.causes.values())
    return {
        "cycles": result.cycles,
        "bound": result.bound_cycles,
        "dram": result.dram,
        "engines": result.engines,
        "stages": {stage: result.stages[stage] for stage in STAGES},
        "causes": {cause: count / slots for cause, count in result.causes.items()},
        "compute": {stage: sum(layer.bound_cycles for layer in result.layers if layer.stage == stage) for stage in STAGES},
        "vector": {stage: sum(layer.vector_cycles for layer in result.layers if layer.stage == stage) for stage in STAGES},
    }
