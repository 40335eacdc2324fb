"""Bench of :class:`accel.rtl.accumulator.Accumulator`."""

from __future__ import annotations

import numpy as np

from accel.config import AcceleratorConfig
from accel.golden.accumulator import accumulator
from accel.rtl import shapes
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.timing.accumulator import accumulator as cycles
from accel.timing.accumulator import accumulator_trace


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw rows with extreme sums made common; keep none, all, or runs of them."""
    n = int(rng.integers(1, 40))
    acc = rng.choice([config.acc.lo, -1, 0, config.acc.hi], (n, config.cols))
    acc = np.where(rng.random(acc.shape) < 0.5, rng.integers(config.acc.lo, config.acc.hi, acc.shape, endpoint=True), acc)
    overflow = rng.random(acc.shape) < 0.5
    keep = rng.random(n) < rng.choice([0, 0.3, 0.8, 1])
    o, psum = accumulator(config, acc, overflow, keep)

    def predict(driven: Waits) -> Waits:
        trace = accumulator_trace(config.acc_rows, keep, driven["i"], driven["o"], driven["psum"])
        return dict(zip(("i", "o", "psum"), trace, strict=True))

    return Case(
        label=f"{n} rows, {np.count_nonzero(keep)} kept",
        inputs={"i": pack(shapes.kept_row(config), acc=acc, overflow=overflow, keep=keep)},
        outputs={name: pack(shapes.row(config), **rows._asdict()) for name, rows in (("o", o), ("psum", psum))},
        predict=predict,
        cycles=cycles(config, keep),
    )
