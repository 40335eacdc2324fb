"""Bench of :class:`accel.rtl.rbf_neuron.RbfNeuron`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from amaranth import unsigned
from numpy.typing import NDArray

from accel.config import RbfConfig
from accel.formats import FixedFormat
from accel.golden.rbf_neuron import rbf_neuron
from accel.rtl import shapes
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.timing.rbf_neuron import rbf_neuron as cycles
from accel.timing.rbf_neuron import rbf_neuron_trace

SPAN = 4096  # our choice: samples in a case of a program


def magnitudes(rng: np.random.Generator, form: FixedFormat, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Draw integers of a format: most of any magnitude, some extreme."""
    some = rng.integers(form.lo, form.hi, shape, endpoint=True) >> rng.integers(0, form.bits, shape)
    return np.where(rng.random(shape) < 0.1, rng.choice([form.lo, form.hi, 0, 1], shape), some)


def centres(config: RbfConfig, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Draw centres: coordinates of any magnitude, or anywhere."""
    shape = (n, config.dims)
    return np.where(rng.random(shape) < 0.5, magnitudes(rng, config.x, shape), rng.integers(config.x.lo, config.x.hi, shape, endpoint=True))


def near(config: RbfConfig, rng: np.random.Generator, centre: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw samples: at a distance of any magnitude from their centres in most coordinates, anywhere or at an end in others."""
    lo, hi, shape = config.x.lo, config.x.hi, centre.shape
    beside = np.clip(centre + magnitudes(rng, config.x, shape), lo, hi)
    kinds = [beside, beside, beside, rng.integers(lo, hi, shape, endpoint=True), rng.choice([lo, hi], shape)]
    return np.asarray(np.choose(rng.integers(0, len(kinds), shape), kinds))


def samples(config: RbfConfig, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.int64]]:
    """Draw samples, centres and widths of any magnitude."""
    centre = centres(config, rng, n)
    return {"x": near(config, rng, centre), "centre": centre, "width": magnitudes(rng, config.width, (n,))}


def random_case(config: RbfConfig, rng: np.random.Generator) -> Case:
    """Draw some samples, each with a neuron of its own."""
    return _case(config, **samples(config, rng, int(rng.integers(1, 60))))


def write_program(config: RbfConfig, program: Path, vectors: int, seed: int = 0) -> int:
    """Write a program of so many random samples or a few more; return its number of cases."""
    rng = np.random.default_rng(seed)
    return write_cases(program, [samples(config, rng, SPAN) for _ in range(0, vectors, SPAN)])


def write_cases(program: Path, cases: list[dict[str, NDArray[np.int64]]]) -> int:
    """Write the arrays of cases, each with the cases along its first axis, as a NumPy archive; return their number."""
    with program.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.stack([case[name] for case in cases]) for name in cases[0]})
    return len(cases)


def read_case(program: Path, index: int) -> dict[str, NDArray[np.int64]]:
    """Return the arrays of one case of an archive."""
    with np.load(program) as file:
        return {name: file[name][index] for name in file}


def program_case(config: RbfConfig, program: Path, index: int) -> Case:
    """Run samples with neurons: `program` is an archive of x, centre and width, one set along the first axis for each case."""
    return _case(config, **read_case(program, index))


def _case(config: RbfConfig, x: NDArray[np.int64], centre: NDArray[np.int64], width: NDArray[np.int64]) -> Case:
    def predict(driven: Waits) -> Waits:
        return dict(zip(("i", "o"), rbf_neuron_trace(config, driven["i"], driven["o"]), strict=True))

    return Case(
        label=f"{len(x)} samples",
        inputs={"i": pack(shapes.neuron(config), x=x, centre=centre, width=width)},
        outputs={"o": pack(unsigned(config.phi_bits), rbf_neuron(config, x, centre, width))},
        predict=predict,
        cycles=cycles(config, len(x)),
    )
