"""A tile of every layer through the RTL core: networks whose every tile would take days are sampled, with their own operands."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.config import AcceleratorConfig
from accel.engine import simulate
from accel.graph.network import Network
from accel.isa import Dataflow
from accel.schedule.gemm import schedule
from accel.schedule.lower import Layer, Product, Reduction, bound, lower, operands
from accel.sim.harness import CosimResult, check_tools, cosim
from accel.sim.program import Step, write_steps
from accel.sparsity import Pattern

_Job = TypeVar("_Job", Product, Reduction)
ROWS = 256  # our choice: rows of a weight-stationary tile, and of a vector job, that are replayed at most


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCosim:
    """Tiles co-simulated without a difference in any output bit or cycle count.

    Parameters
    ----------
    network : str
    tiles : tuple of (str, str, int)
        Layer, what was replayed, cycles as counted and as measured.
    hardware : CosimResult
        What the simulator compared and how long it took.
    """

    network: str
    tiles: tuple[tuple[str, str, int], ...]
    hardware: CosimResult


def cosim_tiles(
    network: Network,
    config: AcceleratorConfig,
    inputs: Mapping[str, ArrayLike] | ArrayLike,
    *,
    pattern: Pattern | None = None,
    seed: int = 0,
    simulator: str = "verilator",
    out: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> TileCosim:
    """Run a randomly chosen tile of every layer through the Verilog of the core, and compare every output bit and every cycle.

    A tile of an output-stationary product is its rows, its columns and the whole reduction; of a weight-stationary one all passes over
    its columns, of at most `ROWS` rows. Of a vector layer it is a run of rows of some channels. Operands are what the simulator computed.

    Parameters
    ----------
    network : Network
        With weights.
    config : AcceleratorConfig
    inputs : mapping of str to array, or array, shape (1, *ONNX shape)
        As for :func:`accel.simulate`.
    pattern : Pattern, optional
        As for :func:`accel.simulate`.
    seed : int
        Of the choice.
    simulator, out
        See :func:`accel.sim.harness.cosim`.
    progress : callable, optional
        Called with (layers done, layers in all, layer).

    Returns
    -------
    TileCosim

    Raises
    ------
    MismatchError
        At the first difference.
    """
    check_tools(simulator)
    tell = progress or (lambda done, total, label: None)
    tensors = simulate(network, config, inputs, pattern=pattern, keep=True).tensors
    layers = [layer for layer in lower(network, config, pattern=pattern) if layer.jobs]
    rng = np.random.default_rng(seed)
    kinds: list[str] = []

    def steps() -> Iterator[Step]:
        for done, layer in enumerate(layers):
            tell(done, len(layers), layer.operator.name)
            step, kind = tile(config, layer, [tensors[name] for name in layer.operator.inputs], rng)
            kinds.append(kind)
            yield step

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "tiles.npz")
        names = write_steps(file, steps())
        tell(len(layers), len(layers), f"{config.name} on {simulator}")
        hardware = cosim("core", config, simulator, cases=len(names), out=out, program=file)
    return TileCosim(network=network.name, tiles=tuple(zip(names, kinds, hardware.spans, strict=True)), hardware=hardware)


def tile(config: AcceleratorConfig, layer: Layer, values: list[NDArray[np.int64]], rng: np.random.Generator) -> tuple[Step, str]:
    """Choose a tile of a layer.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Layer
        With jobs.
    values : list of int64, each of shape (1, *tensor shape)
        The layer's inputs.
    rng : Generator

    Returns
    -------
    Step
        The tile as a program of its own.
    str
        What it is, for a report.
    """
    job = layer.jobs[rng.integers(len(layer.jobs))]
    if isinstance(job, Product):
        job = bound(layer, job.single(int(rng.integers(job.groups))), values)
    x = operands(layer, job, values)
    if isinstance(job, Product):
        plan = schedule(config, job.m, job.n, job.taps, job.channels, job.pattern)
        placed = list(plan.placed())
        at = placed[rng.integers(len(placed))]
        rows = min(at.rows, ROWS) if plan.dataflow is Dataflow.WS else at.rows
        first = at.m + int(rng.integers(at.rows - rows + 1))
        product = dataclasses.replace(_columns(job, at.n, at.cols), m=rows)
        label = f"rows {first}..{first + rows - 1}, channels {job.start + at.n}..{job.start + at.n + at.cols - 1}, {plan.dataflow.value}"
        return Step.of(layer.operator.name, [product], [x[first : first + rows]], plan.dataflow), label
    rows, cols = min(job.m, ROWS), min(job.n, config.cols)
    first, channel = int(rng.integers(job.m - rows + 1)), int(rng.integers(-(-job.n // cols))) * cols
    part = dataclasses.replace(_columns(job, channel, min(cols, job.n - channel)), m=rows)
    label = f"rows {first}..{first + rows - 1}, channels {job.start + channel}..{job.start + channel + part.n - 1}"
    return Step.of(layer.operator.name, [part], [x[first : first + rows, :, channel : channel + cols]]), label


def _columns(job: _Job, first: int, count: int) -> _Job:
    """Cut some output channels out of a job."""
    assert job.post is not None
    which = slice(first, first + count)
    changes: dict[str, Any] = {"n": count, "start": job.start + first, "post": job.post.channels(which)}
    if isinstance(job, Product) and job.weights is not None:
        changes["weights"] = job.weights.rows(which)
    return dataclasses.replace(job, **changes)
