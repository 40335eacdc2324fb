"""Bench of :class:`accel.rtl.wuve.Wuve`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.formats import FixedFormat
from accel.golden.wuve import MASTER, ROUNDINGS, Updated, wuve
from accel.isa import COEFFICIENT_BITS, GRADIENT_SHIFT, MOMENTUM_SHIFT, SHIFT_BITS, Update
from accel.lfsr import WORD_MASK, seeds
from accel.rtl import shapes
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.sim.updates import Recorded, read_update
from accel.timing.wuve import wuve as cycles
from accel.timing.wuve import wuve_trace

MOST, DEEPEST = (1 << COEFFICIENT_BITS) - 1, (1 << SHIFT_BITS) - 1


def pack_jobs(config: AcceleratorConfig, jobs: Sequence[Update]) -> list[int]:
    """Encode jobs of the weight-update engine."""
    names = [field.name for field in dataclasses.fields(Update) if field.name != "rounding"]
    fields = {name: [getattr(job, name) for job in jobs] for name in names}
    return pack(shapes.update(config), stochastic=[job.rounding == "stochastic" for job in jobs], **fields)


def random_factor(rng: np.random.Generator) -> tuple[int, int]:
    """Draw a coefficient and its shift: a small power of two, so that ties are common, none or one, an extreme, or any."""
    power = int(rng.integers(COEFFICIENT_BITS))
    kinds = (
        (1 << power, power + int(rng.integers(5))),
        (int(rng.integers(2)), 0),
        (_one_of(rng, 0, 1, MOST), _one_of(rng, 0, 1, COEFFICIENT_BITS, 33, DEEPEST)),
        (int(rng.integers(MOST, endpoint=True)), int(rng.integers(DEEPEST, endpoint=True))),
    )
    return kinds[rng.choice(4, p=[0.5, 0.2, 0.1, 0.2])]


def random_job(config: AcceleratorConfig, rng: np.random.Generator, longest: int) -> Update:
    """Draw a job of 1 to `longest` beats: often one of its terms alone, often a working copy of the high bits of a master."""
    (decay, decay_shift), (rate, rate_shift) = random_factor(rng), random_factor(rng)
    high = max(0, MASTER.bits - config.weight_bits - int(rng.integers(8)))
    return Update(
        beats=int(rng.integers(1, longest, endpoint=True)),
        lanes=_one_of(rng, config.cols, int(rng.integers(1, config.cols, endpoint=True))),
        momentum=_one_of(rng, 0, 1 << MOMENTUM_SHIFT - int(rng.integers(1, 4)), MOST, int(rng.integers(MOST))),
        gradient_shift=_one_of(rng, 0, int(rng.integers(8)), int(rng.integers(GRADIENT_SHIFT, endpoint=True))),
        decay=decay,
        pruned_decay=_one_of(rng, 0, decay // 2, int(rng.integers(MOST, endpoint=True))),
        decay_shift=decay_shift,
        rate=rate if rng.random() < 0.7 else 0,
        rate_shift=rate_shift,
        working_shift=_one_of(rng, high, high, int(rng.integers(5)), int(rng.integers(MASTER.bits, DEEPEST, endpoint=True))),
        rounding=str(rng.choice(ROUNDINGS)),
        last=bool(rng.random() < 0.3),
    )


def _one_of(rng: np.random.Generator, *values: int) -> int:
    return values[rng.integers(len(values))]


def random_masters(rng: np.random.Generator, shape: tuple[int, int], point: int, working: FixedFormat) -> NDArray[np.int64]:
    """Draw numbers of MASTER_BITS: extremes, any magnitude, and some at or beside a tie where `point` bits are dropped, or its bounds."""
    point = min(point, MASTER.bits)
    half = 1 << point >> 1
    near = rng.integers(-9, 9, shape, endpoint=True) * half
    bounds = rng.choice([(working.hi << point) + half, (working.lo << point) - half], shape)
    some = rng.integers(MASTER.lo, MASTER.hi, shape, endpoint=True) >> rng.integers(0, MASTER.bits, shape)
    extreme = rng.choice([MASTER.lo, 0, MASTER.hi], shape)
    drawn = np.choose(rng.integers(0, 5, shape), [near, bounds, some, some, extreme]) + rng.choice([-1, 0, 0, 1], shape)
    return np.asarray(np.clip(drawn, MASTER.lo, MASTER.hi), np.int64)


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw a few jobs of a few tensors, of either rounding in any order; or many short tensors, whose seeds come late."""
    short = rng.random() < 0.5
    jobs = [random_job(config, rng, 2 if short else 16) for _ in range(rng.integers(1, 16 if short else 6, endpoint=True))]
    if short:
        jobs = [dataclasses.replace(job, rounding="stochastic", last=True) for job in jobs]
    draws = [i for i, job in enumerate(jobs) if job.rounding == "stochastic"]
    if draws:  # words of a tensor end with the case
        jobs[draws[-1]] = dataclasses.replace(jobs[draws[-1]], last=True)
    states, operands = [], []
    for job in jobs:
        shape = job.beats, config.cols
        gradient = rng.integers(config.act.lo, config.act.hi, shape, endpoint=True) >> rng.integers(0, config.act_bits, shape)
        gradient = np.where(rng.random(shape) < 0.1, rng.choice([config.act.lo, config.act.hi], shape), gradient)
        velocity, master = (random_masters(rng, shape, point, config.weight) for point in (0, job.working_shift))
        operands.append((gradient, velocity, master, rng.random(shape) < 0.5))
        hashed = seeds(int(rng.integers(1 << 31)), "tensor", config.cols)
        states.append(np.where(rng.random(config.cols) < 0.5, hashed, rng.choice([1, 1 << 31, WORD_MASK], config.cols)))
    return _case(config, jobs, [np.concatenate(arrays) for arrays in zip(*operands, strict=True)], states)


def program_case(config: AcceleratorConfig, file: Path, index: int) -> Case:
    """Make the case of tensor `index` of a program of :mod:`accel.sim.updates`.

    Parameters
    ----------
    config : AcceleratorConfig
    file : Path
    index : int
    """
    tensor: Recorded = read_update(file, index)
    operands = [tensor.gradient, tensor.velocity, tensor.master, tensor.kept]
    return _case(config, tensor.jobs, operands, [] if tensor.state is None else [tensor.state], tensor.label)


def _case(
    config: AcceleratorConfig,
    jobs: Sequence[Update],
    operands: Sequence[NDArray[Any]],
    states: Sequence[NDArray[np.int64]],
    label: str = "",
) -> Case:
    """Make the case of jobs: their operands, one after the other, and as many first states as there are tensors that draw words."""
    left = iter(states)
    state: NDArray[np.int64] | None = None
    start, seeded, finals = 0, list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    results: list[Updated] = []
    for job in jobs:
        draws = job.rounding == "stochastic"
        if draws and state is None:
            state = next(left)
            seeded.append(state)
        after, updated = wuve(config, state, job, *(array[start : start + job.beats] for array in operands))
        results.append(updated)
        start += job.beats
        if draws and after is not None:
            state = None if job.last else after
            finals += [after] * job.last
    beats, drawing, last = (
        np.array(column) for column in zip(*((job.beats, job.rounding == "stochastic", job.last) for job in jobs), strict=True)
    )

    def predict(driven: Waits) -> Waits:
        ports = "seed", "job", "i", "o", "state"
        trace = wuve_trace(beats, drawing, last, *(driven[port] for port in ports))
        return dict(zip(ports, trace, strict=True))

    def place(port: str, position: int) -> str:
        if not label or port not in ("i", "o") or position >= start:
            return label
        return f"{label}, strip {np.searchsorted(np.cumsum(beats), position, 'right')}"

    names = "gradient", "velocity", "master", "kept"
    return Case(
        label=label or ", ".join(f"{job.beats} beats of {job.lanes} {job.rounding}{' last' * job.last}" for job in jobs),
        inputs={
            "seed": pack(shapes.words(config), seeded) if seeded else [],
            "job": pack_jobs(config, jobs),
            "i": pack(shapes.gradients(config), **dict(zip(names, operands, strict=True))),
        },
        outputs={
            "o": pack(
                shapes.updated(config),
                **{name: np.concatenate([getattr(updated, name) for updated in results]) for name in Updated._fields},
            ),
            "state": pack(shapes.words(config), finals) if finals else [],
        },
        predict=predict,
        cycles=cycles(config, jobs),
        place=place,
    )
