"""A network on the memory system: which tensors stay on chip, how each layer is cut, and what all of it costs.

Layers run one after the other. A tensor that an operator writes may stay on chip until its last use, in a scratchpad of its own
(`keep_kb`), so that what is kept never takes room from tiles. Kept it costs nothing: neither its writer nor its readers move it through
DRAM. Network inputs and outputs, and what the host reads or writes, cross DRAM; any other tensor that does not stay is spilled: written
once, read by each of its readers. ``"best"`` keeps a tensor when it is written if it fits beside what is kept at that time and until its
last use; ``"exhaustive"`` takes the choice with the fewest cycles of all there are.

An operator that reads its input in the order in which it is stored (a reshape) moves nothing: input and output are one tensor. Any other
movement passes through DMA, at no cycle of array or vector unit. Operators on the host have bytes and no cycles.

A :class:`Schedule` says all of this as a value: what is kept, and the cut of each piece of work. It can be written, edited and replayed.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from accel.config import AcceleratorConfig
from accel.errors import NetworkError, RangeError
from accel.files import is_device
from accel.graph.network import DynamicProduct, Host, Move, Network, Operator
from accel.isa import Dataflow
from accel.schedule import search as cuts
from accel.schedule.gemm import Gemm
from accel.schedule.lower import Layer, Product, Reduction, passes
from accel.schedule.memory import Region, Timeline
from accel.schedule.search import Cost, Kept, ProductWork, Tiling, Traffic, VectorWork, Work, word
from accel.timing.core import core_vector
from accel.timing.special import PASSES, special

SCHEMA_VERSION = 1
FILE_LIMIT = 1 << 24  # [bytes] our choice: some 10^5 layers
NOTHING = Traffic((), 0, 0)
STATES = 1 << 12  # our choice: sets of kept tensors that an exhaustive search follows at a time


def _silent(done: int, total: int, label: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a network runs.

    Parameters
    ----------
    network : str
        Whose schedule it is.
    layers : mapping of str to tuple of Tiling
        By operator the cut of each of its pieces of work, in order: of a product one for each run of equal jobs.
    kept : tuple of str
        Tensors that stay on chip from their writer to their last reader.
    """

    network: str
    layers: Mapping[str, tuple[Tiling, ...]]
    kept: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write it, a cut per line; equal schedules give equal text."""
        layers = ",\n".join(
            f"  {json.dumps(name)}: [{', '.join(json.dumps(_told(tiling)) for tiling in tilings)}]" for name, tilings in self.layers.items()
        )
        head = f' "schema_version": {SCHEMA_VERSION},\n "network": {json.dumps(self.network)},\n "kept": {json.dumps(self.kept)},\n'
        return f'{{\n{head} "layers": {{\n{layers}\n }}\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """Inverse of :meth:`to_json`.

        Raises
        ------
        RangeError
            If the text is no schedule. The message names the field.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RangeError(f"schedule must be JSON, not text with this fault: {str(error).splitlines()[0]}") from None
        if not isinstance(raw, dict) or set(raw) != {"schema_version", "network", "kept", "layers"}:
            raise RangeError("schedule must be an object of schema_version, network, kept and layers, and nothing else")
        if raw["schema_version"] != SCHEMA_VERSION:
            raise RangeError(f"schema_version of a schedule must be {SCHEMA_VERSION}, not {_short(raw['schema_version'])}")
        if not isinstance(raw["network"], str):
            raise RangeError(f"network of a schedule must be a string, not {_short(raw['network'])}")
        if not isinstance(raw["kept"], list) or not all(isinstance(name, str) for name in raw["kept"]):
            raise RangeError(f"kept of a schedule must be a list of tensors, not {_short(raw['kept'])}")
        if not isinstance(raw["layers"], dict):
            raise RangeError(f"layers of a schedule must be an object, not {_short(raw['layers'])}")
        return cls(
            network=raw["network"],
            kept=tuple(raw["kept"]),
            layers={name: tuple(_tilings(name, each)) for name, each in raw["layers"].items()},
        )

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read a schedule from a file.

        Raises
        ------
        RangeError
            If it cannot be read or is no schedule.
        """
        try:
            if is_device(Path(path)):  # it may have no end, or nobody who writes to it
                raise OSError("a device or a pipe")
            with Path(path).open("rb") as file:
                data = file.read(FILE_LIMIT + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RangeError(f"schedule must be a readable file, not {str(path)!r} ({reason})") from None
        if len(data) > FILE_LIMIT:
            raise RangeError(f"{path}: schedule must be at most {FILE_LIMIT} bytes, not more")
        try:
            return cls.from_json(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RangeError(f"{path}: schedule must be UTF-8 text, not bytes that break it at offset {error.start}") from None
        except RangeError as error:
            raise RangeError(f"{path}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """What one operator costs.

    Parameters
    ----------
    operator : Operator
    works : tuple of ProductWork or VectorWork
        None where nothing moves, and on the host.
    tilings : tuple of Tiling
        The cut of each.
    costs : tuple of Cost
        Of each.
    runner_up : Timeline or None
        With every product cut for the dataflow not taken, as well as that goes; None if one of them has none, and off the array.
    compulsory : Traffic
        What must cross DRAM, kept tensors apart, however the work is cut.
    traffic : Traffic
        What does.
    kept : bool
        Whether the output stays on chip.
    """

    operator: Operator
    works: tuple[Work, ...] = ()
    tilings: tuple[Tiling, ...] = ()
    costs: tuple[Cost, ...] = ()
    runner_up: Timeline | None = None
    compulsory: Traffic = NOTHING
    traffic: Traffic = NOTHING
    kept: bool = False

    @property
    def time(self) -> Timeline:
        """Of all its works, one after the other."""
        return _summed([cost.time for cost in self.costs])


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlan:
    """What a tensor costs: its size, whether it is kept, and what of it crosses DRAM [bytes]."""

    size: int
    kept: bool = False
    read: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """A network's schedule and what it costs.

    Parameters
    ----------
    schedule : Schedule
    layers : tuple of LayerPlan
        In execution order.
    tensors : dict of TensorPlan
    """

    schedule: Schedule
    layers: tuple[LayerPlan, ...]
    tensors: dict[str, TensorPlan] = field(default_factory=dict)


def plan(
    network: Network,
    config: AcceleratorConfig,
    layers: Sequence[Layer],
    *,
    batch: int = 1,
    schedule: Schedule | None = None,
    search: str = "best",
    progress: Callable[[int, int, str], None] | None = None,
) -> NetworkPlan:
    """Schedule a network, or replay a schedule.

    Parameters
    ----------
    network : Network
    config : AcceleratorConfig
    layers : sequence of Layer
        Of :func:`accel.schedule.lower.lower`, for this network, configuration and batch.
    batch : int
        Samples at once.
    schedule : Schedule, optional
        Replay this one.
    search : str
        See :func:`accel.schedule.search.search`; ``"exhaustive"`` also looks at every choice of kept tensors.
    progress : callable, optional
        Called with (layers done, layers in all, what is next).

    Raises
    ------
    NetworkError
        If a layer does not fit the scratchpads however it is cut. The message names the layer.
    RangeError
        If the schedule is of another network or breaks a rule, or an argument does. The message names the layer.
    """
    if search not in cuts.SEARCHES:
        raise RangeError(f"search must be one of {', '.join(cuts.SEARCHES)}, not {search!r}")
    works = [_works(config, layer, batch) for layer in layers]
    lives = _Lives.of(network, layers, config, batch)
    planner = _Planner(config, layers, works, lives, batch, search, progress or _silent)
    if schedule is not None:
        kept = _replayed(network, layers, works, lives, schedule)
        plans = [planner.layer(i, kept, schedule.layers[layer.operator.name]) for i, layer in enumerate(layers)]
    else:
        kept = _all_choices(planner) if search == "exhaustive" else _first_come(planner)
        plans = [planner.layer(i, kept) for i, _ in planner.told()]
    value = Schedule(
        network=network.name,
        layers={each.operator.name: each.tilings for each in plans},
        kept=tuple(name for name in lives.sizes if name in kept),
    )
    return NetworkPlan(schedule=value, layers=tuple(plans), tensors=_tensors(config, batch, layers, lives, plans, kept))


@dataclass(frozen=True, slots=True)
class _Lives:
    """Tensors as memory sees them.

    Parameters
    ----------
    root : dict of str to str
        The tensor whose bytes a tensor is: itself, or what it is another shape of.
    sizes : dict of str to int
        Of those that may be kept, in the order of their writers [bytes].
    last : dict of str to int
        The layer that reads each root last.
    room : int
        [bytes]
    """

    root: dict[str, str]
    sizes: dict[str, int]
    last: dict[str, int]
    room: int

    @classmethod
    def of(cls, network: Network, layers: Sequence[Layer], config: AcceleratorConfig, batch: int) -> _Lives:
        root = {port.tensor: port.tensor for port in network.inputs}
        last: dict[str, int] = {}
        sizes: dict[str, int] = {}
        outside = set(root)
        for i, layer in enumerate(layers):
            operator = layer.operator
            for name in operator.inputs:
                last[root[name]] = i
            if isinstance(operator, Host):
                outside |= {root[name] for name in operator.inputs} | {operator.output}
            root[operator.output] = root[operator.inputs[0]] if _same(operator) else operator.output
            if root[operator.output] == operator.output:
                sizes[operator.output] = batch * layer.output.size * word(config.act_bits)
        outside |= {root[port.tensor] for port in network.outputs}
        held = {name: size for name, size in sizes.items() if name not in outside and name in last}
        return cls(root, held, last, config.keep_kb * 1024)

    def alive(self, kept: frozenset[str], layer: int) -> frozenset[str]:
        """Which kept tensors are still read behind a layer."""
        return frozenset(name for name in kept if self.last[name] > layer)

    def fits(self, names: frozenset[str]) -> bool:
        return sum(self.sizes[name] for name in names) <= self.room


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans single layers."""

    config: AcceleratorConfig
    layers: Sequence[Layer]
    works: list[tuple[Work, ...]]
    lives: _Lives
    batch: int
    search: str
    tell: Callable[[int, int, str], None] = _silent

    def told(self) -> Iterator[tuple[int, Layer]]:
        """Go through the layers, and tell of each."""
        for i, layer in enumerate(self.layers):
            self.tell(i, len(self.layers), f"schedule of {layer.operator.name}")
            yield i, layer
        self.tell(len(self.layers), len(self.layers), "scheduled")

    def layer(self, index: int, kept: frozenset[str], tilings: tuple[Tiling, ...] | None = None) -> LayerPlan:
        """Plan a layer where these tensors are kept, or with these cuts."""
        operator, works = self.layers[index].operator, self.works[index]
        names = [self.lives.root[name] for name in (*operator.inputs, operator.output)]
        on_chip = [name in kept for name in names]
        if not works:
            outside = self._outside(self.layers[index]) if isinstance(operator, Host) else NOTHING
            return LayerPlan(operator=operator, compulsory=outside, traffic=outside, kept=on_chip[-1])
        states = [Kept(tuple(on_chip[: _operands(work)]), on_chip[-1]) for work in works]
        other = None
        if tilings is None:
            found = [self._found(operator, work, state) for work, state in zip(works, states, strict=True)]
            tilings = tuple(each.tiling for each in found)
            times = [each.runner_up[1].time for each in found if each.runner_up]
            other = _summed(times) if len(times) == len(found) else None
        return LayerPlan(
            operator=operator,
            works=works,
            tilings=tilings,
            costs=(costs := tuple(self._cost(operator, *each) for each in zip(works, states, tilings, strict=True))),
            runner_up=other,
            compulsory=_joined([cuts.compulsory(self.config, *each) for each in zip(works, states, strict=True)], max),
            traffic=_joined([cost.traffic for cost in costs], sum),
            kept=on_chip[-1],
        )

    def _cost(self, operator: Operator, work: Work, kept: Kept, tiling: Tiling) -> Cost:
        try:
            return cuts.evaluate(self.config, work, kept, tiling)
        except RangeError as error:
            raise RangeError(f"schedule of {operator.name}: {error}") from None

    def _outside(self, layer: Layer) -> Traffic:
        """Count what an operator on the host reads and writes."""
        size = self.batch * word(self.config.act_bits)
        return Traffic(tuple(size * tensor.size for tensor in layer.inputs), 0, size * layer.output.size)

    def _found(self, operator: Operator, work: Work, kept: Kept) -> cuts.Found:
        found = cuts.search(self.config, work, kept, self.search)
        if found is None:
            tiles = cuts.smallest(self.config, work, kept)
            limits = [f"{name} ({cuts.HALF * getattr(self.config, name)} bytes)" for name in ("act_kb", "weight_kb", "out_kb")]
            raise NetworkError(
                f"tiles of {operator.name} must fit half of {', '.join(limits)}; the smallest take {', '.join(map(str, tiles))} bytes"
            )
        return found


def _summed(times: Sequence[Timeline]) -> Timeline:
    """Add times of what runs one after the other."""
    return Timeline(*(sum(getattr(time, name) for time in times) for name in Timeline._fields))


def _joined(each: Sequence[Traffic], reads: Any) -> Traffic:
    """Traffic of works that share their inputs: `reads` joins what each reads."""
    return Traffic(
        tuple(reads(part) for part in zip(*(one.reads for one in each), strict=True)),
        sum(one.weights for one in each),
        sum(one.written for one in each),
    )


def _operands(work: Work) -> int:
    """How many tensors it reads."""
    return len(work.regions) if isinstance(work, VectorWork) else 1 + work.dynamic


def _first_come(planner: _Planner) -> frozenset[str]:
    """Keep what fits beside what is already kept, in the order of the writers."""
    lives, kept = planner.lives, frozenset[str]()
    alive = kept
    for i, layer in enumerate(planner.layers):
        name = layer.operator.output
        if name in lives.sizes and lives.fits(alive | {name}):
            alive |= {name}
            kept |= {name}
        alive = lives.alive(alive, i)
    return kept


def _all_choices(planner: _Planner) -> frozenset[str]:
    """Follow every set of kept tensors that can be alive, and the fewest cycles that lead to it."""
    lives = planner.lives
    states: dict[frozenset[str], tuple[int, frozenset[str]]] = {frozenset(): (0, frozenset())}
    for i, layer in planner.told():
        name = layer.operator.output
        following: dict[frozenset[str], tuple[int, frozenset[str]]] = {}
        for alive, (cycles, kept) in states.items():
            for more in (frozenset[str](), frozenset({name})) if name in lives.sizes else (frozenset[str](),):
                if not lives.fits(alive | more):
                    continue
                total = cycles + planner.layer(i, alive | more).time.total
                after = lives.alive(alive | more, i)
                if after not in following or total < following[after][0]:
                    following[after] = (total, kept | more)
        if len(following) > STATES:
            raise RangeError(f"search must be best or fixed where more than {STATES} sets of tensors can be kept, not exhaustive")
        states = following
    return min(states.values(), key=lambda state: state[0])[1]


def _replayed(
    network: Network, layers: Sequence[Layer], works: Sequence[tuple[Work, ...]], lives: _Lives, schedule: Schedule
) -> frozenset[str]:
    """Check that a schedule is one of this network, and return what it keeps."""
    if schedule.network != network.name:
        raise RangeError(f"schedule must be of network {network.name!r}, not {schedule.network!r}")
    names = [layer.operator.name for layer in layers]
    for name in schedule.layers:
        if name not in names:
            raise RangeError(f"layers of the schedule must be operators of {network.name}, not {name!r}")
    for name, each in zip(names, works, strict=True):
        if name not in schedule.layers:
            raise RangeError(f"layers of the schedule must include {name}")
        if len(schedule.layers[name]) != len(each):
            raise RangeError(f"schedule of {name} must have {len(each)} cuts, not {len(schedule.layers[name])}")
    for name in schedule.kept:
        if name not in lives.sizes:
            raise RangeError(f"kept of the schedule must be tensors between layers on the accelerator, not {name!r}")
    kept, alive = frozenset(schedule.kept), frozenset[str]()
    for i, layer in enumerate(layers):
        alive |= {layer.operator.output} & kept
        if not lives.fits(alive):
            size = sum(lives.sizes[name] for name in alive)
            raise RangeError(f"tensors kept at {layer.operator.name} must fit keep_kb ({lives.room} bytes), not take {size} bytes")
        alive = lives.alive(alive, i)
    return kept


def _tensors(
    config: AcceleratorConfig, batch: int, layers: Sequence[Layer], lives: _Lives, plans: Sequence[LayerPlan], kept: frozenset[str]
) -> dict[str, TensorPlan]:
    """Sum up what crosses DRAM of each tensor."""
    read = dict.fromkeys(lives.root.values(), 0)
    written = dict.fromkeys(lives.root.values(), 0)
    held: dict[str, int] = {}
    for layer, each in zip(layers, plans, strict=True):
        operator = layer.operator
        for name, tensor in zip((*operator.inputs, operator.output), (*layer.inputs, layer.output), strict=True):
            held.setdefault(lives.root[name], batch * tensor.size * word(config.act_bits))
        for name, count in zip(operator.inputs, each.traffic.reads, strict=False):
            read[lives.root[name]] += count
        written[lives.root[operator.output]] += each.traffic.written
    return {name: TensorPlan(size=size, kept=name in kept, read=read[name], written=written[name]) for name, size in held.items()}


def tilings(config: AcceleratorConfig, layer: Layer, batch: int, schedule: Schedule) -> list[Tiling]:
    """List the cut of every product of a layer, or of its vector work, one by one.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Layer
        Of :func:`accel.schedule.lower.lower`.
    batch : int
        Samples at once.
    schedule : Schedule
        Of its network.
    """
    pairs = zip(_works(config, layer, batch), schedule.layers[layer.operator.name], strict=True)
    return [tiling for work, tiling in pairs for _ in range(work.repeats if isinstance(work, ProductWork) else 1)]


def _works(config: AcceleratorConfig, layer: Layer, batch: int) -> tuple[Work, ...]:
    """List what the accelerator does for a layer."""
    operator, size = layer.operator, word(config.act_bits)
    if isinstance(operator, Host) or _same(operator):
        return ()
    if any(isinstance(job, Product) for job in layer.jobs):
        return tuple(_products(config, layer, batch))
    kind = type(operator).__name__
    elements = batch * layer.output.size
    if layer.jobs:
        runs = [
            [job.instruction(job.m * -(-job.n // config.cols)) for job in run if isinstance(job, Reduction)]
            for run in passes(config, layer)
        ]
        cycles = sum(core_vector(config, run) for run in runs)
        job = layer.jobs[0]
        if isinstance(job, Reduction) and job.window is not None:
            height, width, channels = layer.inputs[0].image
            region = Region(batch, height, width, job.window, channels * size)
            return (VectorWork(rows=region.rows, cycles=cycles, regions=(region,), result=channels * size, channels=channels),)
    elif kind in PASSES:
        row = layer.inputs[0].shape[-1] if kind in _BY_ROW else 1
        cycles = special(config, kind, batch * layer.inputs[0].size, row)
        if row > 1:
            rows = batch * layer.inputs[0].size // row
            regions = tuple(Region.plain(rows, row * size) for _ in layer.inputs)
            made = elements // rows * size
            return (VectorWork(rows=rows, cycles=cycles, regions=regions, result=made, channels=row, passes=PASSES[kind]),)
    else:
        cycles = 0
    read = _read(operator, layer)
    regions = tuple(Region.plain(elements, -(-count * size // layer.output.size)) for count in read)
    return (VectorWork(rows=elements, cycles=cycles, regions=regions, result=size),)


_BY_ROW = ("ArgMax", "Softmax", "LayerNorm")


def _products(config: AcceleratorConfig, layer: Layer, batch: int) -> Iterator[ProductWork]:
    """Yield the products of a layer, equal ones that follow each other together."""
    dynamic, size = isinstance(layer.operator, DynamicProduct), word(config.act_bits)
    height, width, _ = layer.inputs[0].image
    last: ProductWork | None = None
    for job in layer.jobs:
        if not isinstance(job, Product):
            continue
        gemm = Gemm(m=job.m, n=job.n, taps=job.taps, channels=job.channels, pattern=job.pattern)
        region = Region(batch, height, width, job.window, job.channels * size)
        if dynamic:
            region = Region.plain(job.m, job.k // job.presented * size)
        work = ProductWork(gemm=gemm, repeats=job.groups, region=region, dynamic=dynamic, presented=job.presented)
        if last is not None and dataclasses.replace(work, repeats=last.repeats) == last:
            last = dataclasses.replace(last, repeats=last.repeats + work.repeats)
            continue
        if last is not None:
            yield last
        last = work
    if last is not None:
        yield last


def _same(operator: Operator) -> bool:
    """Whether the output is the input's bytes in another shape."""
    if not isinstance(operator, Move) or len(operator.inputs) != 1:
        return False
    index = operator.index.ravel()
    return bool(index[0] == 0 and index[-1] == index.size - 1 and (index == np.arange(index.size)).all())


def _read(operator: Operator, layer: Layer) -> list[int]:
    """Elements of each input that an operator without windows reads, of one sample."""
    if not isinstance(operator, Move):
        return [tensor.size for tensor in layer.inputs]
    ends = np.cumsum([0, *(tensor.size for tensor in layer.inputs)])
    index = operator.index
    return [int(np.count_nonzero((index >= first) & (index < last))) for first, last in itertools.pairwise(ends)]


def _told(tiling: Tiling) -> dict[str, Any]:
    """Write a cut as JSON holds it."""
    if tiling.dataflow is None:
        return {"m": tiling.m} | ({"n": tiling.n} if tiling.n else {})
    return {"dataflow": tiling.dataflow.value, "m": tiling.m, "n": tiling.n, "k": tiling.k, "outer": tiling.outer}


def _tilings(layer: str, raw: Any) -> Iterator[Tiling]:
    """Read the cuts of a layer; whether they fit it is checked where it is known."""
    if not isinstance(raw, list):
        raise RangeError(f"schedule of {layer} must be a list of cuts, not {_short(raw)}")
    for each in raw:
        if not isinstance(each, dict) or set(each) not in ({"m"}, {"m", "n"}, {"dataflow", "m", "n", "k", "outer"}):
            raise RangeError(f"schedule of {layer} must have m, m and n, or dataflow, m, n, k and outer, not {_short(each)}")
        for name in ("m", "n", "k"):
            if name in each and (type(each[name]) is not int or not 1 <= each[name] < 1 << 62):
                raise RangeError(f"schedule of {layer}: {name} must be an int of at least 1, not {_short(each[name])}")
        flows = [flow.value for flow in Dataflow]
        if "dataflow" in each and each["dataflow"] not in flows:
            raise RangeError(f"schedule of {layer}: dataflow must be one of {', '.join(flows)}, not {_short(each['dataflow'])}")
        yield Tiling(**each | ({"dataflow": Dataflow(each["dataflow"])} if "dataflow" in each else {}))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
