"""Bench of :class:`accel.rtl.vector.Vector`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from accel.config import AcceleratorConfig
from accel.formats import FixedFormat
from accel.golden.vector import vector
from accel.isa import COEFFICIENT_BITS, Reduce, Vector
from accel.rtl import shapes
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.timing.vector import vector as cycles
from accel.timing.vector import vector_trace

LONGEST = 1000  # our choice: beats that a case may spend on one overflow


def pack_jobs(config: AcceleratorConfig, jobs: Sequence[Vector]) -> list[int]:
    """Encode jobs of the vector unit."""
    fields = {name: [getattr(job, name) for job in jobs] for name in ("rows", "window", "head", "tail")}
    return pack(shapes.vector(config), max=[job.reduce is Reduce.MAX for job in jobs], **fields)


def overflowing(config: AcceleratorConfig) -> int:
    """Return the beats of greatest magnitude that overflow an accumulator."""
    return config.acc.hi // (config.act.lo * FixedFormat(COEFFICIENT_BITS).lo) + 1


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw a few jobs, windows of one beat among them; extreme elements and coefficients, sometimes enough of them to overflow."""
    wide = FixedFormat(COEFFICIENT_BITS)
    jobs, xs, rows = [], [], []
    for _ in range(rng.integers(1, 4, endpoint=True)):
        head, tail = rng.choice(np.r_[wide.lo, -1, 0, 1, wide.hi, rng.integers(wide.lo, wide.hi)], 2).tolist()
        count, window = int(rng.integers(1, 6, endpoint=True)), int(rng.integers(1, rng.choice([1, 2, 9]), endpoint=True))
        x = rng.integers(config.act.lo, config.act.hi, (count, window, config.cols), endpoint=True)
        x = np.where(rng.random(x.shape) < rng.choice([0, 0.5]), rng.choice([config.act.lo, -1, 0, config.act.hi], x.shape), x)
        if overflowing(config) < LONGEST and rng.random() < 0.05:
            head = tail = int(rng.choice([wide.lo, wide.hi]))
            x = np.concatenate([np.full((count, overflowing(config), config.cols), config.act.lo), x], axis=1)[:1]
        jobs.append(Vector(reduce=Reduce(rng.choice(["sum", "max"])), rows=len(x), window=x.shape[1], head=head, tail=tail))
        xs.append(x.reshape(-1, config.cols))
        rows.append(vector(config, jobs[-1], xs[-1]))
    shape = np.array([(job.rows, job.window) for job in jobs]).T

    def predict(driven: Waits) -> Waits:
        trace = vector_trace(shape[0], shape[1], driven["job"], driven["x"], driven["o"])
        return dict(zip(("job", "x", "o"), trace, strict=True))

    return Case(
        label=", ".join(f"{job.reduce.value} of {job.rows} x {job.window}" for job in jobs),
        inputs={"job": pack_jobs(config, jobs), "x": pack(shapes.lanes(config), np.concatenate(xs))},
        outputs={
            "o": pack(
                shapes.row(config),
                acc=np.concatenate([row.acc for row in rows]),
                overflow=np.concatenate([row.overflow for row in rows]),
            )
        },
        predict=predict,
        cycles=cycles(config, jobs),
    )
