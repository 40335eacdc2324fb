"""Which configurations the co-simulation builds: a few always, many in the long run."""

from __future__ import annotations

import random
from itertools import combinations_with_replacement
from typing import Any

from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import ConfigError
from accel.sim.blocks import BLOCKS

VALUES: dict[str, tuple[Any, ...]] = {
    "rows": (1, 2, 3, 5),
    "cols": (1, 2, 4, 5, 8),
    "bundle": (2, 4, 8, 16),
    "port": (1, 2, 4, 16),
    "act_bits": (2, 5, 8, 16, 32),
    "weight_bits": (2, 4, 8, 16, 30),
    "acc_bits": (8, 17, 32, 48, 62),
    "overflow": ("saturate", "wrap"),
    "mult_bits": (1, 8, 15, 31),
    "mult_stages": (1, 2, 3, 4),
    "add_stages": (1, 2, 3, 4),
    "acc_rows": (1, 2, 5, 64),
    "param_rows": (1, 3, 64),
}
"""The values of each field that the long run pairs: the ends, a power of two and something odd."""

ALWAYS = (
    AcceleratorConfig(
        name="odd", rows=3, cols=5, bundle=4, port=2, act_bits=11, weight_bits=5, acc_bits=18, overflow="wrap", mult_bits=9,
        mult_stages=3, add_stages=2, acc_rows=1, param_rows=5,
    ),
    AcceleratorConfig(
        name="wide", rows=2, cols=3, bundle=16, port=8, act_bits=16, weight_bits=16, acc_bits=48, mult_bits=15,
        mult_stages=2, add_stages=3, acc_rows=3, param_rows=64,
    ),
)  # fmt: skip
"""The two builds that every test run makes with Verilator; Icarus runs the preset `tiny`."""


def tiny() -> AcceleratorConfig:
    """Return the preset that every test run simulates with Icarus."""
    return presets.load("tiny")


def pairwise(block: str, builds: int = 20) -> list[AcceleratorConfig]:
    """Choose configurations in which any two fields of a block meet in all their values, as far as a configuration allows them.

    Greedy and deterministic: each configuration is the one of some random ones that covers most of what is left. If fewer than `builds`
    suffice, others are drawn from wider ranges.

    Parameters
    ----------
    block : str
        A name in :data:`accel.sim.blocks.BLOCKS`; its `varies` says which fields matter.
    builds : int
        Least number of configurations, all different in these fields.

    Returns
    -------
    list of AcceleratorConfig
    """
    rng = random.Random(block)
    fields = BLOCKS[block].varies.split()
    left = {
        frozenset({(a, x), (b, y)})
        for a, b in combinations_with_replacement(fields, 2)
        for x in VALUES[a]
        for y in VALUES[b]
        if a != b or x == y
    }
    chosen: list[dict[str, Any]] = []
    while left or len(chosen) < builds:
        goal = min(left, key=sorted) if left else frozenset()
        tries = [_draw(rng, fields, dict(goal), wide=not left) for _ in range(100)]
        valid = [values for values in tries if values not in chosen and _config("", values)]
        if not valid:  # no configuration has this pair
            left.remove(goal)
            continue
        best = max(valid, key=lambda values: len(_pairs(values) & left))
        chosen.append(best)
        left -= _pairs(best)
    return [config for i, values in enumerate(chosen) if (config := _config(f"pairwise-{i:02}", values))]


def _draw(rng: random.Random, fields: list[str], fixed: dict[str, Any], wide: bool) -> dict[str, Any]:
    def value(field: str) -> Any:
        known = VALUES[field]
        return rng.randint(min(known), 4 * max(known)) if wide and type(known[0]) is int else rng.choice(known)

    return {field: fixed[field] if field in fixed else value(field) for field in fields}


def _pairs(values: dict[str, Any]) -> set[frozenset[tuple[str, Any]]]:
    return {frozenset(pair) for pair in combinations_with_replacement(values.items(), 2)}


def _config(name: str, values: dict[str, Any]) -> AcceleratorConfig | None:
    """Make a configuration, fields that do not matter such that they stand in no way; None if there is none."""
    free = {"port": values.get("bundle", 8), "mult_bits": max(1, min(24, 63 - values.get("acc_bits", 32)))}
    try:
        return AcceleratorConfig(name=name or "tried", **(free | values))
    except ConfigError:
        return None
