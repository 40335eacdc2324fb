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
from accel.schedule.gemm import WHOLE, schedule
from accel.schedule.lower import Layer, Product, Reduction, bound, operands
from accel.schedule.plan import Schedule, tilings
from accel.sim.harness import CosimResult, check_tools, cosim
from accel.sim.program import Step, Uncompared, core_layers, uncompared, write_steps
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
        Layer, what was replayed, its cycles of computing, without memory, as counted and as measured.
    uncompared : tuple of Uncompared
        Operators that have no RTL, in execution order.
    hardware : CosimResult
        What the simulator compared and how long it took.
    """

    network: str
    tiles: tuple[tuple[str, str, int], ...]
    uncompared: tuple[Uncompared, ...]
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
    """Run a randomly chosen tile of every layer that has RTL through the Verilog of the core; compare every output bit and every cycle.

    Of the schedule by which :func:`accel.simulate` counts cycles a product is chosen, a block of it, and a tile of the array in the block,
    with the dataflow of the schedule. A tile of an output-stationary product is its rows, its columns and the whole reduction; of a
    weight-stationary one all passes over its columns, of at most `ROWS` rows, alone: column tiles that take turns with it are left out. Of
    a vector layer it is a run of rows of some channels, since its cycles do not depend on blocks. Operands are what the simulator computed.

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
    NetworkError
        If no operator has RTL.
    MismatchError
        At the first difference.
    """
    check_tools(simulator)
    tell = progress or (lambda done, total, label: None)
    layers = core_layers(network, config, pattern)
    result = simulate(network, config, inputs, pattern=pattern, keep=True)
    rng = np.random.default_rng(seed)
    kinds: list[str] = []

    def steps() -> Iterator[Step]:
        for done, layer in enumerate(layers):
            tell(done, len(layers), layer.operator.name)
            step, kind = tile(config, layer, [result.tensors[name] for name in layer.operator.inputs], result.schedule, rng)
            kinds.append(kind)
            yield step

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "tiles.npz")
        names = write_steps(file, steps())
        tell(len(layers), len(layers), f"{config.name} on {simulator}")
        hardware = cosim("core", config, simulator, cases=len(names), out=out, program=file)
    tiles = tuple(zip(names, kinds, hardware.spans, strict=True))
    return TileCosim(network=network.name, tiles=tiles, uncompared=uncompared(result), hardware=hardware)


def tile(
    config: AcceleratorConfig, layer: Layer, values: list[NDArray[np.int64]], cuts: Schedule, rng: np.random.Generator
) -> tuple[Step, str]:
    """Choose a tile of a layer; see :func:`cosim_tiles`.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Layer
        With jobs.
    values : list of int64, each of shape (1, *tensor shape)
        The layer's inputs.
    cuts : Schedule
        Of the network, one sample at a time.
    rng : Generator

    Returns
    -------
    Step
        The tile as a program of its own.
    str
        What it is, for a report.
    """
    which = int(rng.integers(len(layer.jobs)))
    job = layer.jobs[which]
    if isinstance(job, Product):
        return _product_tile(config, layer, which, values, cuts, rng)
    x = operands(layer, job, values)
    rows, cols = min(job.m, ROWS), min(job.n, config.cols)
    first, channel = int(rng.integers(job.m - rows + 1)), int(rng.integers(-(-job.n // cols))) * cols
    part = dataclasses.replace(_columns(job, channel, min(cols, job.n - channel)), m=rows)
    return Step.of(layer.operator.name, [part], [x[first : first + rows, :, channel : channel + cols]]), _span(first, part)


def _product_tile(
    config: AcceleratorConfig, layer: Layer, which: int, values: list[NDArray[np.int64]], cuts: Schedule, rng: np.random.Generator
) -> tuple[Step, str]:
    """Choose a tile of job `which`, all jobs of the layer being products."""
    products = [job for job in layer.jobs if isinstance(job, Product)]
    group = int(rng.integers(products[which].groups))
    cut = tilings(config, layer, 1, cuts)[sum(job.groups for job in products[:which]) + group]
    job = bound(layer, products[which].single(group), values)
    blocks = cut.blocks
    down, across = (-(-total // size) for total, size in ((job.m, blocks.m), (job.n, blocks.n)))
    block = int(rng.integers(down * across))
    row, column = (block % down, block // down) if blocks.outer == "n" else (block // across, block % across)
    row, column = row * blocks.m, column * blocks.n
    m, n = min(blocks.m, job.m - row), min(blocks.n, job.n - column)
    chunks = dataclasses.replace(WHOLE, k=blocks.k)
    plan = schedule(config, m, n, job.taps, job.channels, job.pattern, cut.dataflow, chunks)
    placed = list(plan.placed())
    at = placed[rng.integers(len(placed))]
    rows = min(at.rows, ROWS) if plan.dataflow is Dataflow.WS else at.rows
    first, start = row + at.m + int(rng.integers(at.rows - rows + 1)), column + at.n
    part = dataclasses.replace(_columns(job, start, at.cols), m=rows)
    x = operands(layer, job, values)[first : first + rows]
    label = f"{_span(first, part)}, block {block + 1} of {down * across}, {plan.dataflow.value}"
    return Step.of(layer.operator.name, [part], [x], plan.dataflow, chunks), label


def _span(first: int, part: Product | Reduction) -> str:
    """Say which rows and output channels a part of a layer is."""
    return f"rows {first}..{first + part.m - 1}, channels {part.start}..{part.start + part.n - 1}"


def _columns(job: _Job, first: int, count: int) -> _Job:
    """Cut some output channels out of a job."""
    assert job.post is not None
    which = slice(first, first + count)
    changes: dict[str, Any] = {"n": count, "start": job.start + first, "post": job.post.channels(which)}
    if isinstance(job, Product) and job.weights is not None:
        changes["weights"] = job.weights.rows(which)
    return dataclasses.replace(job, **changes)
