"""What a simulation gives back: exact outputs, cycles and their causes, traffic by memory level, as Python objects, JSON and CSV.

Version 2 of the schema: `cycles` include memory, and `excludes` is empty; `compute_cycles` are what `cycles` were in version 1, those of
array, vector unit and post-processor alone, but in the order of the schedule. Schedule, tensors and bytes per memory level are new.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel import sparsity
from accel.config import AcceleratorConfig
from accel.graph.network import DynamicProduct, Host, Tensor
from accel.schedule import search
from accel.schedule.lower import Layer, Product, Reduction
from accel.schedule.plan import LayerPlan, Schedule, TensorPlan
from accel.schedule.search import ProductWork, word
from accel.timing.postprocess import STAGES
from accel.timing.special import PASSES

SCHEMA_VERSION = 2
EXCLUDES: tuple[str, ...] = ()
TOOLS = ("accel", "numpy", "numba")
CAUSES = ("busy", "fill", "drain", "partial tile", "operand port", "wait load", "wait store", "vector", "special")
UNITS = {
    "m": "output positions of a batch",
    "k": "dense products, or beats, per output",
    "n": "output channels of a group",
    "groups": "groups",
    "tile_m": "rows",
    "tile_n": "columns",
    "tile_k": "pairs",
    "macs_dense": "MAC",
    "macs_executed": "MAC",
    "cycles": "cycle",
    "compute_cycles": "cycle",
    "bound_cycles": "cycle",
    "runner_up": "cycle",
    "utilisation": "busy PE slots / PE slots",
    "weight_bits": "bit",
    "index_bits": "bit",
    "dram_read_activations": "byte",
    "dram_read_weights": "byte",
    "dram_written": "byte",
    "dram_least": "byte",
    "scratchpad_read": "byte",
    "scratchpad_written": "byte",
    "accumulator_moved": "byte",
    "register_moved": "byte",
    "intensity": "MAC/byte of DRAM",
    "attained": "MAC/cycle",
    "attainable": "MAC/cycle",
    "energy_removed": "fraction of the sum of squared weights",
    "overflowed": "outputs of all samples",
    "seconds": "s",
    "dram": "byte",
    "size": "byte",
    "read": "byte",
    "written": "byte",
} | {f"{cause} slots": "PE cycle" for cause in CAUSES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """Where a layer of the array stands on the roofline.

    Parameters
    ----------
    intensity : float or None
        MACs executed per byte that crosses DRAM [MAC/byte]; None if none does.
    attained, attainable : float
        MACs per cycle that it runs at, and at most could: all processing elements, or the bandwidth of DRAM times the intensity.
    bound_by : str
        Which is lower: ``"compute"`` or ``"memory"``.
    """

    intensity: float | None
    attained: float
    attainable: float
    bound_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """What one operator did, for one batch.

    Parameters
    ----------
    name, operator : str
        The ONNX node and its type.
    stage : str
        ``"FF"``, the forward pass.
    m, k, n : int
        Of the matrix product of one group; of a vector layer its rows, beats per row and channels; 0 where nothing is computed.
    groups : int
        Channel groups.
    unit : str
        What computes it: ``"array"``, ``"vector"``, ``"special"`` (fixed point, without RTL yet), ``"memory"`` where elements only move,
        ``"host"``, or ``"none"`` where not even that.
    dataflow : str or None
        ``"os"`` or ``"ws"``; None off the array.
    tile_m, tile_n, tile_k : int or None
        Rows, columns and pairs of a tile that scratchpads hold, of the first product; the schedule has the others. None off the array.
    outer : str or None
        ``"n"``: tiles of the same columns follow each other; ``"m"``: those of the same rows. None off the array.
    kept : bool
        Whether the output stays on chip.
    pattern : str or None
        N:M of the weights; None off the array.
    macs_dense, macs_executed : int
        Multiplications of the dense product, and those done [MAC].
    cycles : int
        From the first request of the first operand to the last result where it belongs, both inclusive [cycles].
    compute_cycles : int
        The same if memory never kept anything waiting: from the first operand accepted to the last result emitted [cycles].
    bound_cycles : int
        No schedule that keeps the same tensors takes fewer: pairs executed by all processing elements at once, or cycles of the vector
        unit; and `dram_least` at the bandwidth of DRAM [cycles].
    causes : dict
        Slots of processing elements by cause; they add up to rows * cols * cycles [PE cycles].
    runner_up : int or None
        Cycles with the best cut found for the dataflow not taken [cycles]; None where none fits, off the array and in a replay.
    weight_bits, index_bits : int
        Storage of the weights' values and of their N:M indices [bits].
    dram_read_activations, dram_read_weights, dram_written : int
        What crosses DRAM: activations, weights with indices and channel parameters, results [bytes].
    dram_least : int
        What must cross DRAM however the layer is cut, other tensors kept as they are [bytes].
    scratchpad_read, scratchpad_written : int
        By the array or the vector unit and by DMA, at all scratchpads [bytes].
    accumulator_moved : int
        Partial sums stored and fetched [bytes].
    register_moved : int
        Of processing elements: two operands read, the sum read and written, for each MAC [bytes].
    roof : Roof or None
        None off the array.
    energy_removed : float or None
        Fraction of the sum of squared weights that pruning removed; None where it was not asked for.
    overflowed : int or None
        Outputs whose accumulator overflowed, over all samples; None without inputs.
    """

    name: str
    operator: str
    stage: str
    m: int
    k: int
    n: int
    groups: int = 1
    unit: str = "none"
    dataflow: str | None = None
    tile_m: int | None = None
    tile_n: int | None = None
    tile_k: int | None = None
    outer: str | None = None
    kept: bool = False
    pattern: str | None = None
    macs_dense: int = 0
    macs_executed: int = 0
    cycles: int = 0
    compute_cycles: int = 0
    bound_cycles: int = 0
    causes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    runner_up: int | None = None
    weight_bits: int = 0
    index_bits: int = 0
    dram_read_activations: int = 0
    dram_read_weights: int = 0
    dram_written: int = 0
    dram_least: int = 0
    scratchpad_read: int = 0
    scratchpad_written: int = 0
    accumulator_moved: int = 0
    register_moved: int = 0
    roof: Roof | None = None
    energy_removed: float | None = None
    overflowed: int | None = None

    @property
    def utilisation(self) -> float:
        """Busy slots in all slots, 0 to 1."""
        return self.causes["busy"] / max(sum(self.causes.values()), 1)

    @property
    def dram(self) -> int:
        """All that crosses DRAM [bytes]."""
        return self.dram_read_activations + self.dram_read_weights + self.dram_written

    def row(self) -> dict[str, Any]:
        """Fields in one flat level, the causes as ``<cause> slots``, the position on the roofline as fields of its own."""
        flat = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        causes, roof = flat.pop("causes"), flat.pop("roof")
        where = dict.fromkeys(Roof.__slots__) if roof is None else {name: getattr(roof, name) for name in Roof.__slots__}
        return flat | where | {"utilisation": self.utilisation} | {f"{cause} slots": causes[cause] for cause in CAUSES}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A network on an accelerator.

    Parameters
    ----------
    network : str
    config : AcceleratorConfig
    batch : int
        Samples taken at once; cycles and layers are those of one batch.
    layers : tuple of LayerResult
        In execution order.
    outputs : dict of int64 arrays
        Exact integers of each network output, shape and signedness of ONNX; empty without inputs.
    formats : dict of Tensor
        Bits, signedness, scale and zero point of each output.
    tensors : dict of int64 arrays
        Every tensor of the network, samples first, channels last, signed; empty unless asked for.
    schedule : Schedule
        How it ran: it can be written, edited and replayed.
    traffic : dict of TensorPlan
        Size of each tensor, whether it stays on chip, and what of it crosses DRAM.
    """

    network: str
    config: AcceleratorConfig
    batch: int
    layers: tuple[LayerResult, ...]
    outputs: Mapping[str, NDArray[np.int64]]
    formats: Mapping[str, Tensor]
    tensors: Mapping[str, NDArray[np.int64]]
    schedule: Schedule
    traffic: Mapping[str, TensorPlan]

    @property
    def cycles(self) -> int:
        """Cycles of one batch: the layers run one after the other; operators on the host have none."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def compute_cycles(self) -> int:
        """Cycles of one batch if memory never kept anything waiting."""
        return sum(layer.compute_cycles for layer in self.layers)

    @property
    def dram(self) -> int:
        """All that crosses DRAM for one batch [bytes]."""
        return sum(layer.dram for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Time of one batch at the clock of the config [s]."""
        return self.cycles / (self.config.clock_mhz * 1e6)

    @property
    def utilisation(self) -> float:
        """Busy slots in all slots, 0 to 1."""
        return sum(layer.causes["busy"] for layer in self.layers) / max(self.config.rows * self.config.cols * self.cycles, 1)

    def real(self, output: str) -> NDArray[np.float64]:
        """Real values of an output: ``scale * (integer - zero_point)``."""
        tensor = self.formats[output]
        return tensor.dequantise(tensor.from_onnx(self.outputs[output]))

    def to_json(self) -> str:
        """Everything but the integers themselves, of which it holds a digest; equal runs give equal text."""
        outputs = {
            name: {
                "bits": tensor.bits,
                "signed": not tensor.unsigned,
                "scale": tensor.scale,
                "zero_point": tensor.zero_point + tensor.offset,
                "shape": list(self.outputs[name].shape) if name in self.outputs else ["batch", *tensor.onnx_shape],
                "sha256": hashlib.sha256(self.outputs[name].astype("<i8").tobytes()).hexdigest() if name in self.outputs else None,
            }
            for name, tensor in self.formats.items()
        }
        report = {
            "schema_version": SCHEMA_VERSION,
            "excludes": EXCLUDES,
            "units": UNITS,
            "seed": None,  # nothing is drawn at random
            "versions": {tool: metadata.version(tool) for tool in TOOLS} | {"python": platform.python_version()},
            "config": dataclasses.asdict(self.config),
            "network": self.network,
            "batch": self.batch,
            "cycles": self.cycles,
            "compute_cycles": self.compute_cycles,
            "dram": self.dram,
            "seconds": self.seconds,
            "utilisation": self.utilisation,
            "layers": [layer.row() for layer in self.layers],
            "tensors": {name: dataclasses.asdict(each) for name, each in self.traffic.items()},
            "schedule": json.loads(self.schedule.to_json()),
            "outputs": outputs,
        }
        return json.dumps(report, indent=1) + "\n"

    def to_csv(self) -> str:
        """One line per layer; headings carry units."""
        names = list(LayerResult(name="", operator="", stage="", m=0, k=0, n=0).row())
        return sheet(names, [layer.row() for layer in self.layers], UNITS)


def sheet(names: Sequence[str], rows: Iterable[Mapping[str, Any]], units: Mapping[str, str]) -> str:
    """Write rows as CSV; headings carry units.

    Parameters
    ----------
    names : sequence of str
        Of the columns.
    rows : iterable of mapping
        By name.
    units : mapping of str to str
        Of the columns that have one.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f"{name} [{units[name]}]" if name in units else name for name in names])
    writer.writerows([row[name] for name in names] for row in rows)
    return text.getvalue()


def cost(config: AcceleratorConfig, layer: Layer, plan: LayerPlan, overflowed: int | None) -> LayerResult:
    """Tell what one layer costs, and what its cycles were spent on.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Layer
        Of :func:`accel.schedule.lower.lower`.
    plan : LayerPlan
        Of the same layer.
    overflowed : int or None
        Outputs whose accumulator overflowed.
    """
    products = [job for job in layer.jobs if isinstance(job, Product)]
    unit = _unit(layer, plan)
    time, elements, moved = plan.time, config.rows * config.cols, plan.traffic
    causes = dict.fromkeys(CAUSES, 0) | {"wait load": elements * time.wait_load, "wait store": elements * time.wait_store}
    chip = [search.accesses(config, *each) for each in zip(plan.works, plan.tilings, strict=True)]
    told = LayerResult(
        name=layer.operator.name,
        operator=layer.operator.kind,
        stage="FF",
        m=0,
        k=0,
        n=0,
        unit=unit,
        kept=plan.kept,
        cycles=time.total,
        compute_cycles=time.compute,
        bound_cycles=max(time.compute, _at_least(config, plan)),
        causes=causes | {"special" if unit == "special" else "vector": elements * time.compute},
        runner_up=plan.runner_up.total if plan.runner_up else None,
        dram_read_activations=sum(moved.reads),
        dram_read_weights=moved.weights,
        dram_written=moved.written,
        dram_least=plan.compulsory.total,
        scratchpad_read=sum(each.read for each in chip) + (moved.written if chip else 0),
        scratchpad_written=sum(each.written for each in chip) + (sum(moved.reads) + moved.weights if chip else 0),
        accumulator_moved=sum(each.sums for each in chip),
        overflowed=overflowed,
    )
    if products:
        return _product(config, layer, plan, products, dataclasses.replace(told, causes=causes))
    if layer.jobs:
        return dataclasses.replace(
            told,
            m=sum(job.m for job in layer.jobs if job.start == 0),
            k=max(job.beats for job in layer.jobs if isinstance(job, Reduction)),
            n=layer.output.shape[-1],
        )
    return told


def _unit(layer: Layer, plan: LayerPlan) -> str:
    """Name what computes a layer."""
    if layer.jobs:
        return "array" if isinstance(layer.jobs[0], Product) else "vector"
    if isinstance(layer.operator, Host):
        return "host"
    return "special" if type(layer.operator).__name__ in PASSES else "memory" if plan.works else "none"


def _at_least(config: AcceleratorConfig, plan: LayerPlan) -> int:
    """Cycles that DRAM takes for what must cross it; none on the host."""
    return int(np.ceil(plan.compulsory.total / config.dram_rate)) if plan.works else 0


def _product(config: AcceleratorConfig, layer: Layer, plan: LayerPlan, products: list[Product], told: LayerResult) -> LayerResult:
    """Tell the rest of a layer of matrix products."""
    operator, elements = layer.operator, config.rows * config.cols
    first, tiling = products[0], plan.tilings[0]
    causes = Counter(told.causes)
    executed = 0
    for work, each in zip(plan.works, plan.costs, strict=True):
        assert isinstance(work, ProductWork)
        assert each.counts is not None
        busy = work.gemm.m * work.gemm.n * work.gemm.taps * int(first.pattern.pairs(work.gemm.channels))
        executed += work.repeats * busy
        for cause, slots in each.counts.slots(config, busy).items():
            causes[cause] += work.repeats * slots
        causes["drain"] += work.repeats * elements * STAGES
    phase = [job for job in products if job.start == 0]  # one for each set of output positions
    stored = [
        sparsity.storage_bits(job.n * job.groups, job.taps, job.channels, job.pattern, config.weight_bits)
        for job in products
        if not isinstance(operator, DynamicProduct)
    ]
    intensity = executed / told.dram if told.dram else None
    limit = elements if intensity is None else min(elements, intensity * config.dram_rate)
    return dataclasses.replace(
        told,
        m=sum(job.m for job in phase),
        k=max(job.k // job.presented for job in phase),
        n=sum(job.n for job in products) // len(phase),
        groups=first.groups,
        dataflow=tiling.dataflow.value if tiling.dataflow else None,
        tile_m=tiling.m,
        tile_n=tiling.n,
        tile_k=tiling.k,
        outer=tiling.outer,
        pattern=str(first.pattern),
        macs_dense=sum(job.m * job.k // job.presented * job.n * job.groups for job in products),
        macs_executed=executed,
        bound_cycles=max(-(-executed // elements), _at_least(config, plan)),
        causes={cause: causes[cause] for cause in CAUSES},
        register_moved=executed * (word(config.act_bits) + word(config.weight_bits) + 2 * word(config.acc_bits)),
        roof=Roof(
            intensity=intensity,
            attained=executed / max(told.cycles, 1),
            attainable=float(limit),
            bound_by="compute" if limit == elements else "memory",
        ),
        weight_bits=sum(each.values for each in stored),
        index_bits=sum(each.indices for each in stored),
        energy_removed=layer.energy_removed,
    )
