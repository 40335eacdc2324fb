"""What a training step costs, layer by layer and stage by stage, as Python objects, JSON and CSV.

The array's time is cut without a gap: a stage of a layer has the array from the last result of what ran before to its own last result, so
`cycles` add up to those of the step; what the vector unit and the update engine do at the same time stands beside it. After the array's
last result its last stage has the time until the step has ended.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np

from accel import sparsity
from accel.config import AcceleratorConfig
from accel.graph.trainable import Convolution
from accel.isa import Dataflow
from accel.result import TOOLS, sheet
from accel.result import UNITS as INFERENCE
from accel.schedule import engines
from accel.schedule.lower import dense
from accel.schedule.search import Cost
from accel.schedule.step import Step
from accel.schedule.training.assembly import ARRAY, UPDATE, VECTOR
from accel.schedule.training.build import Span
from accel.schedule.training.products import Cut
from accel.sparsity import Pattern

SCHEMA_VERSION = 1
STAGES = ("FF", "BP", "WU", "update")
CAUSES = ("busy", "fill", "drain", "partial tile", "operand port", "adder", "array", "vector", "update", "wait load", "wait store")
"""Slots of processing elements: multiplying; pairs on their way in, and results on their way out; rows, columns and beats that a tile does
not fill; stages of an adder that nothing fills; waiting for what the array itself, the vector unit or the update engine has yet to make, or
for room in front of the update engine; for operands; for room for results, and at the end for the last store."""
OPTIMISATIONS = ("interleave", "pregeneration", "scheduling")
SHARED = (
    "tile_m", "tile_n", "tile_k", "macs_dense", "macs_executed", "cycles", "compute_cycles", "bound_cycles", "runner_up", "utilisation",
    "weight_bits", "index_bits", "dram_written", "seconds", "dram",
)  # fmt: skip
"""What has the same unit in a result of inference."""
UNITS = {
    "m": "rows of the product",
    "k": "dense products per result",
    "n": "columns of the product",
    "products": "equal products",
    "alone_cycles": "cycle",
    "share": "bandwidth of DRAM / bandwidth that cuts are chosen for",
    "vector_cycles": "cycle",
    "update_cycles": "cycle",
    "dram_read": "byte",
    "dram_cycles": "cycle",
    "stages": "cycle",
    "engines": "cycle",
} | {name: INFERENCE[name] for name in SHARED}
UNITS |= {f"{cause} slots": "PE cycle" for cause in CAUSES}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What one stage of one layer takes in a step.

    Parameters
    ----------
    name, operator : str
        The ONNX node and its type.
    stage : str
        ``"FF"``, forward; ``"BP"``, gradient of the input; ``"WU"``, gradient of the weights; ``"update"`` of weights and other parameters.
    m, k, n : int
        Of the matrix product of one group, all phases of BP together; 0 off the array.
    products : int
        Equal ones: groups, or heads and samples.
    dataflow : str or None
        ``"os"`` or ``"ws"``; None off the array, as all that describes the cut: that of the first phase.
    tile_m, tile_n, tile_k : int or None
        Rows, columns and pairs of a tile that scratchpads hold.
    outer : str or None
        ``"n"``: tiles of the same columns follow each other; ``"m"``: those of the same rows.
    pattern : str or None
        N:M of the paired operand.
    pruned : str or None
        What is pruned: ``"weights"``, ``"gradient"`` or nothing.
    macs_dense, macs_executed : int
        Multiplications of the dense product, and those done [MAC].
    cycles : int
        For which the stage has the array [cycles].
    compute_cycles : int
        Of them those in which nothing was waited for [cycles].
    bound_cycles : int
        MACs executed by all processing elements at once [cycles].
    alone_cycles : int or None
        What the cut would take by itself with the step's `share` of DRAM's bandwidth, which cuts are chosen for [cycles].
    runner_up : int or None
        What the best cut of the other dataflow would take by itself, with the same bandwidth [cycles]; more than `alone_cycles` where each
        cut was chosen by itself, which ``cuts`` of the step says; None if there is none, or none was looked for.
    runner_up_cut : str or None
        That cut: dataflow, rows x columns x pairs, and what is outermost.
    vector_cycles, update_cycles : int
        For which the stage keeps the vector unit and the update engine [cycles].
    causes : dict
        Slots of processing elements by cause; they add up to rows * cols * cycles [PE cycles].
    weight_bits, index_bits : int
        Storage of the weights that the stage loads, values and N:M indices [bits].
    dram_read, dram_written : int
        What crosses DRAM [bytes].
    """

    name: str
    operator: str
    stage: str
    m: int = 0
    k: int = 0
    n: int = 0
    products: int = 0
    dataflow: str | None = None
    tile_m: int | None = None
    tile_n: int | None = None
    tile_k: int | None = None
    outer: str | None = None
    pattern: str | None = None
    pruned: str | None = None
    macs_dense: int = 0
    macs_executed: int = 0
    cycles: int = 0
    compute_cycles: int = 0
    bound_cycles: int = 0
    alone_cycles: int | None = None
    runner_up: int | None = None
    runner_up_cut: str | None = None
    vector_cycles: int = 0
    update_cycles: int = 0
    causes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    weight_bits: int = 0
    index_bits: int = 0
    dram_read: int = 0
    dram_written: int = 0

    @property
    def utilisation(self) -> float:
        """Busy slots in all slots, 0 to 1."""
        return self.causes["busy"] / max(sum(self.causes.values()), 1)

    @property
    def dram(self) -> int:
        """All that crosses DRAM [bytes]."""
        return self.dram_read + self.dram_written

    def row(self) -> dict[str, Any]:
        """Fields in one flat level, the causes as ``<cause> slots``."""
        flat = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        causes = flat.pop("causes")
        return flat | {"utilisation": self.utilisation} | {f"{cause} slots": causes[cause] for cause in CAUSES}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepResult:
    """A training step of a network on an accelerator.

    Parameters
    ----------
    network : str
    config : AcceleratorConfig
    batch : int
        Samples of the step.
    algorithm : str
    pattern : Pattern
        Of what the algorithm prunes.
    dense : tuple of str
        Layers with weights that are never pruned.
    optimisations : tuple of str
        Those of OPTIMISATIONS that are on.
    share : int
        Cuts are chosen, and costs by themselves given, for one part in `share` of DRAM's bandwidth.
    cuts : str
        ``"alone"``: each product has the cut with the fewest cycles by itself; ``"fixed"``: the one without scheduling; ``"narrow"``: the
        one without interleaving; ``"picked"``: tried in the whole step, product by product.
    cycles : int
        Of the step [cycles].
    dram_cycles : int
        For which DRAM transfers [cycles].
    layers : tuple of StageResult
        FF of every layer, then backwards from the last layer BP, WU and update of each.
    """

    network: str
    config: AcceleratorConfig
    batch: int
    algorithm: str
    pattern: Pattern
    dense: tuple[str, ...]
    optimisations: tuple[str, ...]
    share: int
    cuts: str
    cycles: int
    dram_cycles: int
    layers: tuple[StageResult, ...]

    def __repr__(self) -> str:
        return f"<StepResult {self.network!r}, {self.algorithm}, batch {self.batch}: {self.cycles:,} cycles>"

    @property
    def bound_cycles(self) -> int:
        """MACs executed by all processing elements at once: no schedule takes fewer cycles."""
        return -(-sum(layer.macs_executed for layer in self.layers) // (self.config.rows * self.config.cols))

    @property
    def causes(self) -> dict[str, int]:
        """Slots of processing elements by cause; they add up to rows * cols * cycles [PE cycles]."""
        return {cause: sum(layer.causes[cause] for layer in self.layers) for cause in CAUSES}

    @property
    def stages(self) -> dict[str, int]:
        """Cycles by stage."""
        return {stage: sum(layer.cycles for layer in self.layers if layer.stage == stage) for stage in STAGES}

    @property
    def engines(self) -> dict[str, int]:
        """Cycles for which each engine has a tile, and DRAM a transfer."""
        busy = {f"{name}": sum(getattr(layer, f"{name}_cycles") for layer in self.layers) for name in ("compute", "vector", "update")}
        return {"array": busy.pop("compute"), **busy, "dram": self.dram_cycles}

    @property
    def dram(self) -> int:
        """All that crosses DRAM [bytes]."""
        return sum(layer.dram for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Time of the step at the clock of the config [s]."""
        return self.cycles / (self.config.clock_mhz * 1e6)

    @property
    def utilisation(self) -> float:
        """Busy slots in all slots, 0 to 1."""
        return self.causes["busy"] / max(self.config.rows * self.config.cols * self.cycles, 1)

    def to_json(self) -> str:
        """Everything; equal runs give equal text."""
        causes = self.causes
        report = {
            "schema_version": SCHEMA_VERSION,
            "kind": "training step",
            "units": UNITS,
            "versions": {tool: metadata.version(tool) for tool in TOOLS} | {"python": platform.python_version()},
            "config": dataclasses.asdict(self.config),
            "network": self.network,
            "batch": self.batch,
            "algorithm": self.algorithm,
            "pattern": str(self.pattern),
            "dense": self.dense,
            "optimisations": self.optimisations,
            "share": self.share,
            "cuts": self.cuts,
            "cycles": self.cycles,
            "bound_cycles": self.bound_cycles,
            "seconds": self.seconds,
            "utilisation": self.utilisation,
            "dram": self.dram,
            "stages": self.stages,
            "engines": self.engines,
        }
        report |= {f"{cause} slots": causes[cause] for cause in CAUSES} | {"layers": [layer.row() for layer in self.layers]}
        return json.dumps(report, indent=1) + "\n"

    def to_csv(self) -> str:
        """One line per layer and stage; headings carry units."""
        names = list(StageResult(name="", operator="", stage="").row())
        return sheet(names, [layer.row() for layer in self.layers], UNITS)


def told(step: Step) -> StepResult:
    """Tell what a step costs.

    Parameters
    ----------
    step : Step
    """
    low = step.low
    windows = _windows(step)
    rows: dict[tuple[str, str], list[Span]] = {}
    for span in step.spans:
        stage = "update" if span.engine == UPDATE and span.node.stage == "WU" else span.node.stage
        rows.setdefault((span.node.layer, stage), []).append(span)
    place = {layer.name: i for i, layer in enumerate(low.network.layers)}
    backward = {stage: i for i, stage in enumerate(STAGES)}
    order = sorted(rows, key=lambda row: (0, place[row[0]], 0) if row[1] == "FF" else (1, -place[row[0]], backward[row[1]]))
    kinds = {layer.name: type(layer).__name__ for layer in low.network.layers}
    return StepResult(
        network=low.network.name,
        config=low.config,
        batch=low.batch,
        algorithm=low.algorithm,
        pattern=low.pattern,
        dense=tuple(layer.name for layer in low.network.convolutions if layer.name not in low.eligible),
        optimisations=tuple(name for name in OPTIMISATIONS if getattr(step.switches, name)),
        share=step.way.share,
        cuts="picked" if step.picked else "fixed" if step.way.fixed else "narrow" if step.way.narrow else "alone",
        cycles=step.times.total,
        dram_cycles=step.times.dram,
        layers=tuple(_stage(step, name, kinds[name], stage, rows[name, stage], windows) for name, stage in order),
    )


def _windows(step: Step) -> dict[int, Counter[str]]:
    """Split the array's time, by the first tile of each node of its: cycles by cause, `computing` for the tiles themselves."""
    queue, times = step.queues[ARRAY], step.times.times[ARRAY]
    found: dict[int, Counter[str]] = {}
    last = 0
    spans = [span for span in step.spans if span.engine == ARRAY]
    for span in spans:
        tiles = slice(span.first, span.last)
        waits = dict(zip(engines.CAUSES, times.waits[tiles].sum(axis=0).tolist(), strict=True))
        waits = {{"load": "wait load", "store": "wait store"}.get(cause, cause): cycles for cause, cycles in waits.items()}
        found[span.first] = Counter(waits) + Counter(computing=int(queue.cycles[tiles].sum()), drain=int(queue.lag[span.last - 1]))
        last = int(times.left[span.last - 1])
    # After its last result: the engine that ends last, then the last store.
    ends = [int(each.left.max()) if each.left.size else 0 for each in step.times.times]
    tail = Counter({engines.ENGINES[int(np.argmax(ends))]: max(ends) - last, "wait store": step.times.total - max(ends)})
    if spans:
        found[spans[-1].first] += tail
    return found


def _stage(step: Step, name: str, kind: str, stage: str, spans: list[Span], windows: Mapping[int, Counter[str]]) -> StageResult:
    """Tell what a stage of a layer costs."""
    config, low = step.config, step.low
    elements = config.rows * config.cols
    busy, moved = Counter[int](), Counter[str]()
    causes = Counter[str]()
    cuts: list[Cut] = []
    for span in spans:
        queue, tiles = step.queues[span.engine], slice(span.first, span.last)
        busy[span.engine] += int(queue.cycles[tiles].sum())
        moved["read"] += int(queue.loads[tiles].sum())
        moved["written"] += int(queue.stores[tiles].sum())
        if span.engine == ARRAY and span.node.cut is not None:
            cuts.append(span.node.cut)
            causes += _slots(config, span.node.cut, windows[span.first])
    result = StageResult(
        name=name,
        operator=kind,
        stage=stage,
        cycles=sum(causes.values()) // elements,
        compute_cycles=busy[ARRAY],
        vector_cycles=busy[VECTOR],
        update_cycles=busy[UPDATE],
        causes={cause: causes[cause] for cause in CAUSES},
        dram_read=moved["read"],
        dram_written=moved["written"],
    )
    if not cuts:
        return result
    works = [cut.part.work for cut in cuts]
    gemms = [work.gemm for work in works]
    executed = sum(_executed(cut) for cut in cuts)
    tiling, others = cuts[0].tiling, [cut.found.runner_up for cut in cuts]
    layer = next(layer for layer in low.network.layers if layer.name == name)
    stored = _stored(step, layer, stage) if isinstance(layer, Convolution) else None
    assert tiling.dataflow is not None
    return dataclasses.replace(
        result,
        m=sum(gemm.m for gemm in gemms),
        k=max(gemm.k for gemm in gemms),
        n=gemms[0].n,
        products=works[0].repeats,
        dataflow=tiling.dataflow.value,
        tile_m=tiling.m,
        tile_n=tiling.n,
        tile_k=tiling.k,
        outer=tiling.outer,
        pattern=str(gemms[0].pattern),
        pruned=low.operand(layer, stage) if isinstance(layer, Convolution) else None,
        macs_dense=sum(work.repeats * work.gemm.m * work.gemm.n * work.gemm.k for work in works),
        macs_executed=executed,
        bound_cycles=-(-executed // elements),
        alone_cycles=sum(_alone(step, cut.found.tiling.dataflow, cut.found.cost) for cut in cuts),
        runner_up=sum(_alone(step, other[0].dataflow, other[1]) for other in others if other) if all(others) else None,
        runner_up_cut=_cut(others[0][0]) if others[0] else None,
        weight_bits=stored.values if stored else 0,
        index_bits=stored.indices if stored else 0,
    )


def _executed(cut: Cut) -> int:
    """Multiplications of a cut's products."""
    work = cut.part.work
    return work.repeats * work.gemm.m * work.gemm.n * work.gemm.taps * int(work.gemm.pattern.pairs(work.gemm.channels))


def _slots(config: AcceleratorConfig, cut: Cut, window: Counter[str]) -> Counter[str]:
    """Split the array's time of a node into slots of processing elements.

    The front counts: a processing element works on a step some cycles after its issue, as many for every step, so in every window as many
    slots fall out of it at the end as come in at the start.
    """
    elements, counts, busy = config.rows * config.cols, cut.tiles.counts, _executed(cut)
    found = Counter({cause: elements * cycles for cause, cycles in window.items() if cause != "computing"})
    found["busy"] += busy
    found["partial tile"] += elements * counts.issued - busy
    found["fill"] += elements * counts.fill
    found["drain"] += elements * counts.drain
    found["operand port"] += elements * counts.port
    found["adder"] += elements * (window["computing"] - counts.issued - counts.fill - counts.drain - counts.port)
    return found


def _stored(step: Step, layer: Convolution, stage: str) -> sparsity.Storage | None:
    """Count the storage of the weights that a stage loads; None if it loads none."""
    low = step.low
    filters, *_, channels = layer.shape
    if stage == "WU":
        return None
    codes = low.operand(layer, stage) == "weights" and step.switches.pregeneration
    pattern = low.pattern if codes else dense(low.config)
    outputs, reduced = (filters, channels) if stage == "FF" else (channels * layer.groups, filters // layer.groups)
    return sparsity.storage_bits(outputs, layer.window.taps, reduced, pattern, low.config.weight_bits)


def _alone(step: Step, flow: Dataflow | None, cost: Cost) -> int:
    """Cycles of a cut by itself, where nothing fills the adder too."""
    unfilled = not step.switches.interleave and flow is Dataflow.OS
    return cost.time.total + (step.config.add_stages - 1) * cost.time.compute * unfilled


def _cut(tiling: Any) -> str:
    return f"{tiling.dataflow.value} {tiling.m} x {tiling.n} x {tiling.k}, {tiling.outer} outermost"
