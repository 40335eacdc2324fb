"""Bench of :class:`accel.rtl.function.Function`, whatever function it computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from amaranth import Shape
from numpy.typing import NDArray

from accel.config import FunctionConfig
from accel.golden.function import function
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.timing.function import function as cycles
from accel.timing.function import function_trace

SPAN = 4096  # operands in a case of a program


def random_case(config: FunctionConfig, rng: np.random.Generator) -> Case:
    """Draw operands of any magnitude, ends of the range, neighbours of zero and of powers of two, and runs of neighbours."""
    lo, hi = config.operand.lo, config.operand.hi
    n = int(rng.integers(1, 60))
    power = rng.choice([-1, 1], n) << rng.integers(0, config.in_bits, n)
    kinds = [
        rng.integers(lo, hi, n, endpoint=True),
        rng.integers(lo, hi, n, endpoint=True) >> rng.integers(0, config.in_bits, n),
        power + rng.integers(-1, 1, n, endpoint=True),
        rng.choice([lo, hi, 0], n),
        rng.integers(lo, hi) + np.arange(n),
    ]
    return _case(config, f"{n} operands", np.clip(np.choose(rng.integers(0, len(kinds), n), kinds), lo, hi))


def write_program(config: FunctionConfig, program: Path) -> int:
    """Write a program that runs every operand of a unit through it; return its number of cases."""
    starts = list(range(config.operand.lo, config.operand.hi + 1, SPAN))
    program.write_text(json.dumps([[first, min(first + SPAN - 1, config.operand.hi)] for first in starts]))
    return len(starts)


def program_case(config: FunctionConfig, program: Path, index: int) -> Case:
    """Run all operands of an interval: `program` is a list, in JSON, of the first and last operand of each case."""
    first, last = json.loads(program.read_text())[index]
    return _case(config, f"operands {first} to {last}", np.arange(first, last + 1))


def _case(config: FunctionConfig, label: str, x: NDArray[np.int64]) -> Case:
    def predict(driven: Waits) -> Waits:
        return dict(zip(("i", "o"), function_trace(config.stages, driven["i"], driven["o"]), strict=True))

    return Case(
        label=label,
        inputs={"i": pack(Shape(config.in_bits, config.operand.signed), x)},
        outputs={"o": pack(Shape(config.out_bits, config.result.signed), function(config, x))},
        predict=predict,
        cycles=cycles(config, x.size),
        place=lambda port, position: f"operand {x[min(position, x.size - 1)]}",
    )
