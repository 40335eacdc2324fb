"""Which configurations the co-simulation builds: a few always, many in the long run."""

from __future__ import annotations

import dataclasses
import random
from itertools import combinations_with_replacement
from typing import Any

from accel import presets
from accel.config import AcceleratorConfig, Config, FunctionConfig, RbfConfig
from accel.errors import ConfigError
from accel.functions.generate import design
from accel.sim.blocks import BLOCKS, Block, units

VALUES: dict[type[Config], dict[str, tuple[Any, ...]]] = {
    AcceleratorConfig: {
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
    },
    FunctionConfig: {
        "function": ("exp2", "exp", "gaussian", "sigmoid", "tanh", "erf"),
        "scale": (1.0, 0.37, 3.0),
        "in_bits": (8, 9, 12),
        "in_frac": (0, 4, 9),
        "out_bits": (12, 13, 24),  # narrower ones do not hold the result in every other field
        "out_frac": (7, 9, 11),
        "error": (0.05, 0.02),
        "luts": (4, 6),
        "method": ("auto", "base2", "table", "linear"),  # searched units are of few formats: `auto` meets them
        "stages": (0, 1, 3, 8),
    },
    RbfConfig: {
        "dims": (1, 2, 3, 7),
        "neurons": (1, 2, 4, 5),
        "outputs": (1, 2, 3),
        "units": (1, 2, 4, 5),
        "x_bits": (8, 13, 16),
        "x_frac": (4, 8, 12),
        "distance_bits": (8, 15, 24),
        "distance_frac": (0, 5, 10),
        "width_bits": (4, 9, 16),
        "width_frac": (0, 5, 8),
        "t_bits": (8, 9, 12),
        "t_frac": (4, 5, 8),
        "phi_bits": (8, 12, 16),
        "error": (0.05, 0.02),
        "weight_bits": (4, 9, 16),
        "weight_frac": (0, 4, 10),
        "output": ("linear", "sigmoid"),
        "sum_bits": (8, 9, 12),
        "sum_frac": (0, 4, 6),
        "y_bits": (8, 12, 16),
        "sigmoid_error": (0.05, 0.02),
        "luts": (4, 6),
        "products": ("device", "rows"),
        "stages": (0, 1, 3),
    },
}
"""The values of each field that the long run pairs: the ends, a power of two and something odd.

Operands of nonlinear units are short, and errors wide, for designing a unit runs all of its operands through every candidate.
"""

ALWAYS: dict[type[Config], tuple[Config, ...]] = {
    AcceleratorConfig: (
        AcceleratorConfig(
            name="odd", rows=3, cols=5, bundle=4, port=2, act_bits=11, weight_bits=5, acc_bits=18, overflow="wrap", mult_bits=9,
            mult_stages=3, add_stages=2, acc_rows=1, param_rows=5,
        ),
        AcceleratorConfig(
            name="wide", rows=2, cols=3, bundle=16, port=8, act_bits=16, weight_bits=16, acc_bits=48, mult_bits=15,
            mult_stages=2, add_stages=3, acc_rows=3, param_rows=64,
        ),
    ),
    FunctionConfig: (
        FunctionConfig(name="odd", scale=0.37, in_bits=11, in_frac=5, out_bits=9, out_frac=8, error=0.02, luts=6, stages=3),
        FunctionConfig(name="wide", in_bits=16, in_frac=12, out_bits=16, out_frac=15, error=0.005),
    ),
    RbfConfig: (
        RbfConfig(
            name="odd", dims=3, neurons=5, outputs=2, units=2, x_bits=11, x_frac=7, distance_bits=16, distance_frac=6, width_bits=9,
            width_frac=9, t_bits=12, t_frac=8, phi_bits=9, error=0.02, weight_bits=7, weight_frac=4, output="linear", sum_bits=12,
            sum_frac=6, products="rows", stages=3,
        ),
        presets.load("paper", RbfConfig),
    ),
}  # fmt: skip
"""The two builds that every test run makes with Verilator; Icarus runs the preset `tiny`."""


def tiny(block: str) -> Config:
    """Return the preset that every test run simulates with Icarus, as the block takes it."""
    return _fit(BLOCKS[block], presets.load("tiny", BLOCKS[block].kind), 0)


def always(block: str) -> tuple[Config, ...]:
    """Return the builds that every test run makes with Verilator, as the block takes them."""
    return tuple(_fit(BLOCKS[block], config, turn) for turn, config in enumerate(ALWAYS[BLOCKS[block].kind], 1))


def values(block: str) -> dict[str, tuple[Any, ...]]:
    """Return the values of each field that the long run of a block pairs."""
    of = BLOCKS[block]
    known = {field: VALUES[of.kind][field] for field in of.varies.split()}
    return {field: tuple(value for value in some if value in of.only.get(field, some)) for field, some in known.items()}


def pairwise(block: str, builds: int = 20) -> list[Config]:
    """Choose configurations in which any two fields of a block meet in all their values, as far as a configuration allows them.

    Greedy and deterministic: each configuration is the one of some random ones that covers most of what is left. If fewer than `builds`
    suffice, others are drawn, of an accelerator from wider ranges.

    Parameters
    ----------
    block : str
        A name in :data:`accel.sim.blocks.BLOCKS`; its `varies` says which fields matter.
    builds : int
        Least number of configurations, all different in these fields.

    Returns
    -------
    list of Config
        Of the block's kind.
    """
    rng, kind, known = random.Random(block), BLOCKS[block].kind, values(block)
    left = {
        frozenset({(a, x), (b, y)})
        for a, b in combinations_with_replacement(known, 2)
        for x in known[a]
        for y in known[b]
        if a != b or x == y
    }
    chosen: list[dict[str, Any]] = []
    while left or len(chosen) < builds:
        goal = min(left, key=sorted) if left else frozenset()
        tries = [_draw(rng, kind, known, dict(goal), wide=not left and kind is AcceleratorConfig) for _ in range(100)]
        valid = [drawn for drawn in tries if drawn not in chosen and _config(kind, "", drawn)]
        best = sorted(valid, key=lambda drawn: -len(_pairs(drawn) & left))[:TRIES]
        found = next((drawn for drawn in best if _exists(_config(kind, "", drawn))), None)
        if found:
            chosen.append(found)
            left -= _pairs(found)
        elif goal:  # no configuration has this pair
            left.remove(goal)
    return [config for i, drawn in enumerate(chosen) if (config := _config(kind, f"pairwise-{i:02}", drawn))]


TRIES = 8  # our choice: combinations whose units are designed before a pair is given up


def _fit(block: Block, config: Config, turn: int) -> Config:
    """Give a configuration the values that the block takes alone, another one at each turn."""
    return dataclasses.replace(config, **{name: known[turn % len(known)] for name, known in block.only.items()})


def _draw(rng: random.Random, kind: type[Config], known: dict[str, tuple[Any, ...]], fixed: dict[str, Any], wide: bool) -> dict[str, Any]:
    limits = {field.name: field.metadata.get("maximum") for field in dataclasses.fields(kind)}

    def value(field: str) -> Any:
        some = known[field]
        return (
            rng.randint(min(some), min(4 * max(some), limits[field]))
            if wide and limits[field] and type(some[0]) is int
            else rng.choice(some)
        )

    return {field: fixed[field] if field in fixed else value(field) for field in known}


def _pairs(drawn: dict[str, Any]) -> set[frozenset[tuple[str, Any]]]:
    return {frozenset(pair) for pair in combinations_with_replacement(drawn.items(), 2)}


def _config(kind: type[Config], name: str, drawn: dict[str, Any]) -> Config | None:
    """Make a configuration, fields that do not matter such that they stand in no way; None if there is none."""
    free: dict[str, Any] = {}
    if kind is AcceleratorConfig:
        free = {"port": drawn.get("bundle", 8), "mult_bits": max(1, min(24, 63 - drawn.get("acc_bits", 32)))}
    try:
        return kind(name=name or "tried", **(free | drawn))
    except ConfigError:
        return None


def _exists(config: Config | None) -> bool:
    """Tell whether the nonlinear units of a configuration can be designed."""
    try:
        for unit in units(config) if config else ():
            design(unit)
    except ConfigError:
        return False
    return True
