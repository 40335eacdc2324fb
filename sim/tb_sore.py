"""Bench of :class:`accel.rtl.sore.Sore`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.golden.sore import Pairs, pairs, sore
from accel.isa import Prune
from accel.rtl import shapes
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.timing.sore import fields, sore_trace
from accel.timing.sore import sore as cycles


def pack_jobs(config: AcceleratorConfig, jobs: Sequence[Prune]) -> list[int]:
    """Encode jobs of the pruner."""
    return pack(shapes.prune(config), **{name: [getattr(job, name) for job in jobs] for name in ("beats", "lanes", "n", "m")})


def pack_pairs(config: AcceleratorConfig, code: Pairs) -> list[int]:
    """Encode beats of pairs."""
    return pack(shapes.code(config), value=code.value, index=code.index, lanes=code.lanes, head=code.head)


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw a few jobs, alike or not, of any pattern; short groups and blocks, ties and extremes made common."""
    jobs: list[Prune] = []
    for _ in range(rng.integers(1, 5, endpoint=True)):
        if jobs and rng.random() < 0.4:  # the next tap of a strip
            jobs.append(jobs[-1])
            continue
        m = int(rng.choice([config.bundle, int(rng.integers(1, config.bundle, endpoint=True))]))
        n = int(rng.choice([m, 1, int(rng.integers(1, m, endpoint=True))]))
        lanes = int(rng.choice([config.cols, int(rng.integers(1, config.cols, endpoint=True))]))
        beats = int(rng.choice([m, config.cols, int(rng.integers(1, 3 * max(m, config.cols), endpoint=True))]))
        jobs.append(Prune(beats=beats * int(rng.choice([1, 1, 3])), lanes=lanes, n=n, m=m))
    shape = (sum(job.beats for job in jobs), config.cols)
    some = rng.choice([config.weight.lo, -config.weight.hi, -1, 0, 1, config.weight.hi], shape)
    w = np.where(
        rng.random(shape) < rng.choice([0.1, 0.5, 1]), rng.integers(config.weight.lo, config.weight.hi, shape, endpoint=True), some
    )
    return sore_case(config, jobs, w)


def sore_case(config: AcceleratorConfig, jobs: Sequence[Prune], w: NDArray[np.int64], where: str = "") -> Case:
    """Make the case of jobs in a row: both codes, the exact cycles.

    Parameters
    ----------
    config : AcceleratorConfig
    jobs : sequence of Prune
    w : int64, shape (beats, cols)
        Beats of all jobs.
    where : str
        What the report says before the job, such as the layer.
    """
    forward, backward = sore(config, jobs, w)

    def predict(driven: Waits) -> Waits:
        trace = sore_trace(config.cols, fields(jobs), *(driven[name] for name in ("job", "w", "ff", "bp")))
        return dict(zip(("job", "w", "ff", "bp"), trace, strict=True))

    return Case(
        label=", ".join(f"{job.beats}x{job.lanes} {job.n}:{job.m}" for job in jobs[:8]) + ", ..." * (len(jobs) > 8),
        inputs={"job": pack_jobs(config, jobs), "w": pack(shapes.working(config), w)},
        outputs={"ff": pack_pairs(config, forward), "bp": pack_pairs(config, backward)},
        predict=predict,
        cycles=cycles(config, jobs),
        place=_place(config, jobs, where),
    )


def program_case(config: AcceleratorConfig, file: Path, index: int) -> Case:
    """Make case `index` of recorded jobs.

    Parameters
    ----------
    config : AcceleratorConfig
    file : Path
        Written by :func:`write_program`, or with the same arrays: an .npz file with, for case i, ``jobs_i``, int64 of shape (jobs, 4): the
        beats, lanes, n and m of each; ``w_i``, int64 of shape (beats, cols): the working weights of all of them; and ``where_i``, text of
        no dimension: what the report says before the job.
    index : int
    """
    with np.load(file, allow_pickle=False) as arrays:
        rows, w, where = (arrays[f"{name}_{index}"] for name in ("jobs", "w", "where"))
    jobs = [Prune(beats=beats, lanes=lanes, n=n, m=m) for beats, lanes, n, m in rows.tolist()]
    return sore_case(config, jobs, w, f"{where.item()}, ")


def write_program(file: Path, cases: Sequence[tuple[str, Sequence[Prune], NDArray[np.int64]]]) -> None:
    """Write the cases of :func:`program_case`: of each a name, its jobs and its beats.

    Parameters
    ----------
    file : Path
    cases : sequence of (str, sequence of Prune, int64 of shape (beats, cols))
    """
    arrays: dict[str, NDArray[np.int64] | NDArray[np.str_]] = {}
    for index, (where, jobs, w) in enumerate(cases):
        arrays |= {f"jobs_{index}": fields(jobs), f"w_{index}": w, f"where_{index}": np.array(where)}
    np.savez(file, allow_pickle=False, **arrays)


def _place(config: AcceleratorConfig, jobs: Sequence[Prune], where: str) -> Callable[[str, int], str]:
    """Say to which job a payload of a port belongs."""
    counts = {
        "job": [1] * len(jobs),
        "w": [job.beats for job in jobs],
        "ff": [pairs(job, job.beats) for job in jobs],
        "bp": [-(-job.beats // config.cols) * pairs(job, job.lanes) for job in jobs],
    }

    def place(port: str, position: int) -> str:
        if position >= sum(counts.get(port, ())):
            return where.rstrip(", ")
        job = int(np.searchsorted(np.cumsum(counts[port]), position, "right"))
        return f"{where}job {job}, beat {position - sum(counts[port][:job])}"

    return place
