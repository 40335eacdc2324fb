"""Bench of :class:`accel.rtl.postprocess.Postprocess`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.formats import Rounding
from accel.golden.accumulator import Rows
from accel.golden.postprocess import ROUNDINGS, Params, postprocess
from accel.isa import SHIFT_BITS, Post, Source
from accel.rtl import shapes
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.timing.postprocess import postprocess as cycles
from accel.timing.postprocess import postprocess_trace


def pack_jobs(config: AcceleratorConfig, jobs: Sequence[Post]) -> list[int]:
    """Encode jobs of the post-processor."""
    fields = {name: [getattr(job, name) for job in jobs] for name in ("rows", "base", "vectors", "zero_point", "lo", "hi")}
    rounding = [Rounding(job.rounding).code for job in jobs]
    return pack(shapes.post(config), vector=[job.source is Source.VECTOR for job in jobs], rounding=rounding, **fields)


def random_params(config: AcceleratorConfig, rng: np.random.Generator, vectors: int) -> Params:
    """Draw parameters: most channels scale by a power of two into the range of an activation, so that ties are common."""
    shape = (vectors, config.cols)
    power = rng.integers(0, config.mult_bits, shape) * (rng.random(shape) < 0.5)
    shift = np.minimum(power + rng.integers(0, max(1, config.acc_bits - config.act_bits), shape, endpoint=True), (1 << SHIFT_BITS) - 1)
    wild = rng.random(shape) < 0.3
    most = (1 << config.mult_bits) - 1
    return Params(
        rng.integers(config.acc.lo, config.acc.hi, shape, endpoint=True) >> rng.integers(0, config.acc_bits, shape),
        np.where(wild, np.choose(rng.integers(0, 3, shape), [0, most, rng.integers(0, most, shape, endpoint=True)]), 1 << power),
        np.where(wild, rng.integers(0, 1 << SHIFT_BITS, shape), shift),
    )


def random_sums(config: AcceleratorConfig, rng: np.random.Generator, params: Params) -> NDArray[np.int64]:
    """Draw a sum for each parameter: an extreme, any magnitude, or one at or beside a tie where the multiplier is a power of two."""
    lo, hi, shape = config.acc.lo, config.acc.hi, params.bias.shape
    half = np.clip((1 << np.clip(params.shift - 1, 0, 62)) // np.maximum(params.mult, 1), 1, hi)  # scales to half an output
    near = np.clip(rng.integers(2 * config.act.lo, 2 * config.act.hi, shape), lo // half, hi // half)
    some = rng.integers(lo, hi, shape, endpoint=True) >> rng.integers(0, config.acc_bits, shape)
    beside = (half >> rng.integers(1, 5, shape)) * rng.choice([-1, 0, 1], shape)
    tie = near * half + beside - params.bias
    drawn = np.choose(rng.integers(0, 4, shape), [rng.choice([lo, hi], shape), some, tie, tie])
    return np.asarray(np.clip(drawn, lo, hi), np.int64)


def random_job(config: AcceleratorConfig, rng: np.random.Generator) -> Post:
    """Draw a job: any range of outputs, or the whole one, anywhere in the parameter memory."""
    lo, zero_point, hi = rng.integers(config.act.lo, config.act.hi, 3, endpoint=True).tolist()
    base = int(rng.integers(config.param_rows))
    return Post(
        source=Source(rng.choice([source.value for source in Source])),
        rows=int(rng.integers(1, rng.choice([1, 16]), endpoint=True)),
        base=base,
        vectors=int(rng.integers(1, min(4, config.param_rows - base), endpoint=True)),
        zero_point=zero_point,
        lo=rng.choice([min(lo, hi), config.act.lo]).item(),
        hi=rng.choice([max(lo, hi), config.act.hi]).item(),
        rounding=str(rng.choice(ROUNDINGS)),
    )


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw a few jobs of either source; parameters that none of them uses are written meanwhile."""
    memory = random_params(config, rng, config.param_rows)
    used = np.zeros(config.param_rows, np.bool_)
    jobs = [random_job(config, rng) for _ in range(rng.integers(1, 4, endpoint=True))]
    sums, results = [], []
    for job in jobs:
        used[job.base : job.base + job.vectors] = True
        params = Params(*(array[job.base : job.base + job.vectors] for array in memory))
        acc = random_sums(config, rng, Params(*(array[np.arange(job.rows) % job.vectors] for array in params)))
        sums.append(Rows(acc, rng.random(acc.shape) < 0.5))
        results.append(postprocess(config, job, params, *sums[-1]))
    rows, sources = np.array([(job.rows, job.source is Source.VECTOR) for job in jobs], np.int64).T

    def joined(source: Source) -> list[int]:
        parts = [part for part, job in zip(sums, jobs, strict=True) if job.source is source]
        return [word for part in parts for word in pack(shapes.row(config), **part._asdict())]

    def written(addresses: NDArray[np.int64]) -> list[int]:
        return pack(shapes.params(config), address=addresses, **{name: array[addresses] for name, array in memory._asdict().items()})

    def predict(driven: Waits) -> Waits:
        ports = "job", "array", "vector", "o"
        trace = postprocess_trace(rows, sources, *(driven[port] for port in ports))
        return dict(zip(ports, trace, strict=True)) | {"params": np.ones_like(driven["params"])}

    return Case(
        label=", ".join(f"{job.rows} rows of {job.source.value} {job.rounding}" for job in jobs),
        setup={"params": written(np.flatnonzero(used))},
        inputs={
            "params": written(np.flatnonzero(~used)[: rows.sum()]),
            "job": pack_jobs(config, jobs),
            "array": joined(Source.ARRAY),
            "vector": joined(Source.VECTOR),
        },
        outputs={"o": [word for part in results for word in pack(shapes.result(config), **part._asdict())]},
        predict=predict,
        cycles=cycles(config, jobs),
    )
