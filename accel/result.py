"""What a simulation gives back: exact outputs, cycles and their causes, as Python objects, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel import sparsity
from accel.config import AcceleratorConfig
from accel.graph.network import DynamicProduct, Tensor
from accel.schedule.gemm import schedule
from accel.schedule.lower import Layer, Product, Reduction, passes
from accel.sparsity import Pattern
from accel.timing.core import core_vector
from accel.timing.postprocess import STAGES

SCHEMA_VERSION = 1
EXCLUDES = ("memory",)
TOOLS = ("accel", "numpy", "numba")
CAUSES = ("busy", "fill", "drain", "partial tile", "operand port", "wait load", "wait store", "vector")
UNITS = {
    "m": "output positions of a batch",
    "k": "dense products, or beats, per output",
    "n": "output channels of a group",
    "groups": "groups",
    "macs_dense": "MAC",
    "macs_executed": "MAC",
    "cycles": "cycle",
    "runner_up": "cycle",
    "utilisation": "busy PE slots / PE slots",
    "weight_bits": "bit",
    "index_bits": "bit",
    "energy_removed": "fraction of the sum of squared weights",
    "overflowed": "outputs of all samples",
    "seconds": "s",
} | {f"{cause} slots": "PE cycle" for cause in CAUSES}

_plan = functools.lru_cache(maxsize=4096)(schedule)  # groups and layers of one shape are planned once


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
    dataflow : str or None
        ``"os"`` or ``"ws"``; None off the array.
    pattern : str or None
        N:M of the weights; None off the array.
    macs_dense, macs_executed : int
        Multiplications of the dense product, and those done [MAC].
    cycles : int
        From the first operand accepted to the last result emitted, both inclusive [cycles].
    causes : dict
        Slots of processing elements by cause; they add up to rows * cols * cycles [PE cycles].
    runner_up : int or None
        Cycles of the dataflow not taken [cycles].
    weight_bits, index_bits : int
        Storage of the weights' values and of their N:M indices [bits].
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
    dataflow: str | None = None
    pattern: str | None = None
    macs_dense: int = 0
    macs_executed: int = 0
    cycles: int = 0
    causes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    runner_up: int | None = None
    weight_bits: int = 0
    index_bits: int = 0
    energy_removed: float | None = None
    overflowed: int | None = None

    @property
    def utilisation(self) -> float:
        """Busy slots in all slots, 0 to 1."""
        return self.causes["busy"] / max(sum(self.causes.values()), 1)

    def row(self) -> dict[str, Any]:
        """Fields in one flat level, the causes as ``<cause> slots``."""
        flat = dataclasses.asdict(self)
        causes = flat.pop("causes")
        return flat | {"utilisation": self.utilisation} | {f"{cause} slots": causes[cause] for cause in CAUSES}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A network on an accelerator. Cycles are those of array, vector unit and post-processor; they exclude memory.

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
    """

    network: str
    config: AcceleratorConfig
    batch: int
    layers: tuple[LayerResult, ...]
    outputs: Mapping[str, NDArray[np.int64]]
    formats: Mapping[str, Tensor]
    tensors: Mapping[str, NDArray[np.int64]]

    @property
    def cycles(self) -> int:
        """Cycles of one batch: the layers run one after the other."""
        return sum(layer.cycles for layer in self.layers)

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
            "seconds": self.seconds,
            "utilisation": self.utilisation,
            "layers": [layer.row() for layer in self.layers],
            "outputs": outputs,
        }
        return json.dumps(report, indent=1) + "\n"

    def to_csv(self) -> str:
        """One line per layer; headings carry units, and say that the figures exclude memory."""
        text = io.StringIO()
        rows = [layer.row() for layer in self.layers]
        names = list(LayerResult(name="", operator="", stage="", m=0, k=0, n=0).row())
        writer = csv.writer(text, lineterminator="\n")
        noted = {"cycles": "cycle, excludes memory"}
        writer.writerow([f"{name} [{noted.get(name, UNITS[name])}]" if name in UNITS else name for name in names])
        writer.writerows([row[name] for name in names] for row in rows)
        return text.getvalue()


def cost(config: AcceleratorConfig, layer: Layer, asked: Pattern | None, overflowed: int | None) -> LayerResult:
    """Count the cycles of one layer and what they were spent on."""
    operator = layer.operator
    told = LayerResult(name=operator.name, operator=operator.kind, stage="FF", m=0, k=0, n=0, overflowed=overflowed)
    elements = config.rows * config.cols
    products = [job for job in layer.jobs if isinstance(job, Product)]
    if products:
        first = products[0]
        plans = [(_plan(config, job.m, job.n, job.taps, job.channels, job.pattern), job) for job in products]
        causes = Counter(drain=sum(job.groups for job in products) * elements * STAGES)
        for plan, job in plans:
            causes.update({cause: slots * job.groups for cause, slots in plan.causes.items()})
        other = [(plan.runner_up + STAGES) * job.groups for plan, job in plans if plan.runner_up is not None]
        weights = getattr(operator, "weights", None)
        phase = [job for job in products if job.start == 0]  # one for each set of output positions
        stored = [
            sparsity.storage_bits(job.n * job.groups, job.taps, job.channels, job.pattern, config.weight_bits)
            for job in products
            if not isinstance(operator, DynamicProduct)
        ]
        return dataclasses.replace(
            told,
            m=sum(job.m for job in phase),
            k=max(job.k // job.presented for job in phase),
            n=sum(job.n for job in products) // len(phase),
            groups=first.groups,
            dataflow=plans[0][0].dataflow.value,
            pattern=str(first.pattern),
            macs_dense=sum(job.m * job.k // job.presented * job.n * job.groups for job in products),
            macs_executed=sum(plan.macs * job.groups for plan, job in plans),
            cycles=sum((plan.cycles + STAGES) * job.groups for plan, job in plans),
            causes={cause: causes[cause] for cause in CAUSES},
            runner_up=sum(other),
            weight_bits=sum(each.values for each in stored),
            index_bits=sum(each.indices for each in stored),
            energy_removed=None
            if asked is None or weights is None
            else sparsity.energy_removed(weights, sparsity.prune(weights, first.pattern)),
        )
    if layer.jobs:
        runs = [
            [job.instruction(job.m * -(-job.n // config.cols)) for job in run if isinstance(job, Reduction)]
            for run in passes(config, layer)
        ]
        cycles = sum(core_vector(config, run) for run in runs)
        return dataclasses.replace(
            told,
            m=sum(job.m for job in layer.jobs if job.start == 0),
            k=runs[0][0].window,
            n=layer.output.shape[-1],
            cycles=cycles,
            causes=dict.fromkeys(CAUSES, 0) | {"vector": elements * cycles},
        )
    return told
