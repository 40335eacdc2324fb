"""A network through the RTL core: the schedule that the simulator used, layer by layer, replayed in co-simulation.

The core is the array, the vector unit and the post-processor. Operators of special units and of the host have no RTL, and moves compute
nothing: the model's results of them are the operands of the layers behind, and they are listed as not compared.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.config import AcceleratorConfig
from accel.engine import simulate
from accel.errors import MismatchError, NetworkError, RangeError
from accel.formats import Rounding
from accel.graph.network import Network
from accel.isa import Dataflow, Reduce
from accel.kernels.gemm import Weights
from accel.result import Result
from accel.schedule.gemm import WHOLE, Blocks
from accel.schedule.lower import Layer, Product, Reduction, Requantisation, bound, lower, operands, passes
from accel.schedule.plan import tilings
from accel.sim.harness import CosimResult, check_tools, cosim
from accel.sparsity import Pattern


@dataclass(frozen=True, slots=True)
class Uncompared:
    """An operator that has no RTL to compare.

    Parameters
    ----------
    name, kind : str
        The ONNX node and its type.
    unit : str
        ``"special"`` or ``"host"``, computed by the model; ``"memory"`` or ``"none"``, a move, which computes nothing.
    """

    name: str
    kind: str
    unit: str

    @property
    def computed(self) -> bool:
        """Whether the model computed what no RTL did."""
        return self.unit in ("special", "host")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCosim:
    """The layers of a network that have RTL, co-simulated without a difference in any output bit or cycle count.

    Parameters
    ----------
    network : str
    layers : dict of str to int
        Cycles of computing of each layer with jobs, without memory, as simulated and as measured in the RTL.
    uncompared : tuple of Uncompared
        All other operators, in execution order.
    hardware : CosimResult
        What the simulator compared and how long it took.
    """

    network: str
    layers: dict[str, int]
    uncompared: tuple[Uncompared, ...]
    hardware: CosimResult


def cosim_network(
    network: Network,
    config: AcceleratorConfig,
    inputs: Mapping[str, ArrayLike] | ArrayLike,
    *,
    pattern: Pattern | None = None,
    simulator: str = "verilator",
    waves: bool = False,
    out: Path | None = None,
) -> NetworkCosim:
    """Run one sample through the Verilog of the core, tile by tile, and compare every output bit and every layer's cycles.

    Operands of each layer are what the simulator computed for it, so a difference shows in the layer that makes it. Cycles are those of
    computing: memory is no part of the core. What has no RTL is listed in the result.

    Parameters
    ----------
    network : Network
    config : AcceleratorConfig
    inputs : mapping of str to array, or array, shape (1, *ONNX shape)
        As for :func:`accel.simulate`.
    pattern : Pattern, optional
        As for :func:`accel.simulate`.
    simulator, waves, out
        See :func:`accel.sim.harness.cosim`.

    Returns
    -------
    NetworkCosim

    Raises
    ------
    NetworkError
        If no operator has RTL.
    RangeError
        If `inputs` hold more than one sample.
    MismatchError
        At the first difference.
    """
    check_tools(simulator)
    layers = core_layers(network, config, pattern)
    result = simulate(network, config, inputs, pattern=pattern, keep=True)
    samples = len(result.tensors[network.inputs[0].tensor])
    if samples != 1:
        raise RangeError(f"inputs must hold one sample, not {samples}")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "program.npz")
        steps = write_steps(file, _steps(config, layers, result))
        hardware = cosim("core", config, simulator, cases=len(steps), waves=waves, out=out, program=file)
    measured: Counter[str] = Counter()
    for name, span in zip(steps, hardware.spans, strict=True):
        measured[name] += span
    for layer in result.layers:
        if layer.unit in ("array", "vector") and layer.compute_cycles != measured[layer.name]:
            raise MismatchError(f"layer {layer.name}: {layer.compute_cycles} cycles simulated, {measured[layer.name]} measured in the RTL")
    return NetworkCosim(network=network.name, layers=dict(measured), uncompared=uncompared(result), hardware=hardware)


def core_layers(network: Network, config: AcceleratorConfig, pattern: Pattern | None = None) -> list[Layer]:
    """List the layers that the RTL of the core computes.

    Parameters
    ----------
    network : Network
    config : AcceleratorConfig
    pattern : Pattern, optional
        As for :func:`accel.simulate`.

    Raises
    ------
    NetworkError
        If there are none.
    """
    layers = [layer for layer in lower(network, config, pattern=pattern) if layer.jobs]
    if not layers:
        kinds = Counter(operator.kind for operator in network.operators)
        found = ", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "nothing"
        raise NetworkError(f"operators of {network.name} must include one with RTL, of the array or the vector unit, not only {found}")
    return layers


def uncompared(result: Result) -> tuple[Uncompared, ...]:
    """List the operators of a simulated network that have no RTL.

    Parameters
    ----------
    result : Result
    """
    others = (layer for layer in result.layers if layer.unit not in ("array", "vector"))
    return tuple(Uncompared(layer.name, layer.operator, layer.unit) for layer in others)


def _steps(config: AcceleratorConfig, layers: list[Layer], result: Result) -> Iterator[Step]:
    """Yield the steps of a network: a product each, cut as it was simulated, and the reductions of a layer together."""
    for layer in layers:
        name = layer.operator.name
        values = [result.tensors[name] for name in layer.operator.inputs]
        cuts = iter(tilings(config, layer, result.batch, result.schedule))
        for jobs in passes(config, layer):
            known = [bound(layer, job, values) if isinstance(job, Product) else job for job in jobs]
            cut = next(cuts) if isinstance(jobs[0], Product) else None
            found = [operands(layer, job, values) for job in jobs]
            yield Step.of(name, known, found, cut.dataflow if cut else None, cut.blocks if cut else WHOLE)


class Step(NamedTuple):
    """One step of a program: a matrix product, or the reductions of a layer; and the operands of each job.

    `dataflow` and `blocks` are those of the product; None is the dataflow with fewer cycles, in one block.
    """

    layer: str
    products: list[Product]
    reductions: list[Reduction]
    operands: list[NDArray[np.int64]]
    dataflow: Dataflow | None = None
    blocks: Blocks = WHOLE

    @classmethod
    def of(
        cls,
        layer: str,
        jobs: Sequence[Product | Reduction],
        operands: list[NDArray[np.int64]],
        dataflow: Dataflow | None = None,
        blocks: Blocks = WHOLE,
    ) -> Step:
        """Sort the jobs of a step by their kind."""
        products = [job for job in jobs if isinstance(job, Product)]
        return cls(layer, products, [job for job in jobs if isinstance(job, Reduction)], operands, dataflow, blocks)

    @property
    def jobs(self) -> list[Product | Reduction]:
        """Products and reductions, in the order of `operands`."""
        return [*self.products, *self.reductions]


def write_steps(file: Path, steps: Iterable[Step]) -> list[str]:
    """Write a program; return the layer of each step."""
    arrays: dict[str, NDArray[Any]] = {}
    told: list[dict[str, Any]] = []

    def part(job: Product | Reduction, x: NDArray[np.int64]) -> dict[str, Any]:
        key = f"{len(told)}.{len(arrays)}"
        arrays[f"{key}.x"] = x
        post = job.post
        assert post is not None
        for name in ("bias", "mult", "shift"):
            arrays[f"{key}.{name}"] = getattr(post, name)
        facts = {"key": key, "m": job.m, "n": job.n, "rounding": post.rounding.value}
        facts |= {name: getattr(post, name) for name in ("zero_point", "lo", "hi")}
        if isinstance(job, Reduction):
            return facts | {"reduce": job.reduce.value, "beats": job.beats, "head": job.head, "tail": job.tail}
        assert job.codes is not None
        arrays[f"{key}.values"], arrays[f"{key}.positions"] = job.codes
        return facts | {"taps": job.taps, "channels": job.channels, "pattern": str(job.pattern)}

    for step in steps:
        jobs = [part(job, x) for job, x in zip(step.jobs, step.operands, strict=True)]
        flow = step.dataflow and step.dataflow.value
        told.append({"layer": step.layer, "dataflow": flow, "blocks": dataclasses.asdict(step.blocks), "jobs": jobs})
    arrays["steps"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    np.savez(file, allow_pickle=False, **arrays)
    return [step["layer"] for step in told]


def read_step(file: Path, index: int) -> Step:
    """Read step `index` of a program.

    Parameters
    ----------
    file : Path
        Of :func:`write_steps`.
    index : int
    """
    with np.load(file, allow_pickle=False) as arrays:
        step = json.loads(arrays["steps"].tobytes())[index]
        jobs = [_read(arrays, part) for part in step["jobs"]]
        operands = [arrays[f"{part['key']}.x"] for part in step["jobs"]]
    flow = Dataflow(step["dataflow"]) if step["dataflow"] else None
    return Step.of(step["layer"], jobs, operands, flow, Blocks(**step["blocks"]))


def _read(arrays: Any, part: dict[str, Any]) -> Product | Reduction:
    key = part["key"]
    post = Requantisation(
        **{name: arrays[f"{key}.{name}"] for name in ("bias", "mult", "shift")},
        **{name: part[name] for name in ("zero_point", "lo", "hi")},
        rounding=Rounding(part["rounding"]),
    )
    shape = {"m": part["m"], "n": part["n"], "post": post}
    if "reduce" in part:
        return Reduction(**shape, reduce=Reduce(part["reduce"]), **{name: part[name] for name in ("beats", "head", "tail")})
    weights = Weights(arrays[f"{key}.values"], arrays[f"{key}.positions"], part["taps"] * part["channels"])
    return Product(**shape, taps=part["taps"], channels=part["channels"], pattern=Pattern.parse(part["pattern"]), weights=weights)
