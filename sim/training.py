"""Training steps through the RTL: the products of FF, BP and WU in the core, then every update in `wuve` and every pruning in `sore`.

The bit-accurate step (:mod:`accel.training.step`) records what it read and wrote. Each product is cut as the schedule of the step cuts it.
The benches compare RTL and golden models bit by bit and cycle by cycle; here the golden models' results are compared with the record, so
that step, golden models and RTL agree. What lies between (batch normalisation, pooling, sums, loss) has no RTL and comes from the record.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel import sparsity
from accel.config import AcceleratorConfig
from accel.errors import MismatchError
from accel.formats import Rounding
from accel.golden import core as golden
from accel.golden.postprocess import Params
from accel.golden.sore import Pairs, sore
from accel.golden.wuve import wuve
from accel.graph.trainable import Convolution, Layer, Trainable
from accel.graph.window import image
from accel.isa import Prune, Source
from accel.kernels.gemm import Weights
from accel.schedule.lower import Product, Requantisation, phases, windows
from accel.schedule.search import Found
from accel.schedule.step import step as place
from accel.schedule.strips import Strips
from accel.schedule.training.products import Cut
from accel.schedule.training.works import Lowering
from accel.sim.harness import CosimResult, check_tools, cosim
from accel.sim.program import Step, write_steps
from accel.sim.tb_sore import write_program
from accel.sim.updates import Recorded, write_updates
from accel.timing.postprocess import STAGES
from accel.training.course import pruned
from accel.training.products import transposed
from accel.training.recipe import Recipe
from accel.training.step import Record, prepare, quantise
from accel.training.step import cut as order
from accel.training.step import step as train


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCosim:
    """Training steps co-simulated without a difference in any bit or cycle count.

    Parameters
    ----------
    network : str
    steps : int
    products : dict of (str, str) to int
        By layer and stage (``"FF"``, ``"BP"``, ``"WU"``): cycles of computing of a step, as scheduled and as measured in the RTL.
    updates, prunes : dict of str to int
        By parameter: cycles of `wuve` and of `sore` in all steps, as counted and as measured.
    hardware : dict of str to CosimResult
        By block: what the simulator compared and how long it took.
    """

    network: str
    steps: int
    products: dict[tuple[str, str], int]
    updates: dict[str, int]
    prunes: dict[str, int]
    hardware: dict[str, CosimResult]


Cuts = Mapping[tuple[str, str, int], Cut]
"""How the schedule of a step cuts its products, by layer, stage and number."""


class _Job(NamedTuple):
    """A product of a step: where it belongs, how it is cut, its operands."""

    layer: str
    stage: str
    found: Found
    product: Product
    x: NDArray[np.int64]


def cosim_training(
    network: Trainable,
    config: AcceleratorConfig,
    recipe: Recipe,
    samples: NDArray[np.floating[Any]],
    labels: NDArray[np.signedinteger[Any]],
    *,
    steps: int = 2,
    simulator: str = "verilator",
    out: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> TrainingCosim:
    """Train on the same samples for a few steps, and replay each of them in the Verilog of `core`, `wuve` and `sore`.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
    samples : float, shape (batch, *stored shape)
    labels : integers, shape (batch,)
    steps : int
        Two or more use weights that were pruned after an update.
    simulator, out
        See :func:`accel.sim.harness.cosim`.
    progress : callable, optional
        Called with (parts done, parts in all, what is next).

    Returns
    -------
    TrainingCosim

    Raises
    ------
    MismatchError
        At the first difference.
    """
    check_tools(simulator)
    tell = progress or (lambda done, total, label: None)
    records = list(_records(network, config, recipe, samples, labels, steps))
    dense = {layer.name for layer in network.convolutions} - pruned(network, recipe)
    placed = place(network, config, batch=len(samples), algorithm=recipe.algorithm, pattern=recipe.pattern, dense=dense)
    cuts = {(span.node.layer, span.node.stage, span.node.number): span.node.cut for span in placed.spans if span.node.cut is not None}
    hardware: dict[str, CosimResult] = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "program.npz")

        jobs = [job for number, record in enumerate(records) for job in _products(placed.low, cuts, record, number)]
        tell(0, 3, f"core: {len(jobs)} products")
        write_steps(file, (Step.of(job.layer, [job.product], [job.x], job.found.tiling.dataflow, job.found.tiling.blocks) for job in jobs))
        hardware["core"] = cosim("core", config, simulator, cases=len(jobs), out=out and out / "core", program=file)

        orders = _orders(network, config, recipe)
        updates = [update for number, record in enumerate(records) for update in _updates(config, orders, record, number)]
        tell(1, 3, f"wuve: {len(updates)} updates")
        write_updates(file, updates)
        hardware["wuve"] = cosim("wuve", config, simulator, cases=len(updates), out=out and out / "wuve", program=file)

        prunes = [prune for number, record in enumerate(records) for prune in _prunes(config, orders, recipe, record, number)]
        tell(2, 3, f"sore: {len(prunes)} prunings")
        if prunes:
            write_program(file, prunes)
            hardware["sore"] = cosim("sore", config, simulator, cases=len(prunes), out=out and out / "sore", program=file)
    measured: Counter[tuple[str, str]] = Counter()
    planned: Counter[tuple[str, str]] = Counter()
    for job, span in zip(jobs, hardware["core"].spans, strict=True):
        assert job.found.cost.counts is not None
        measured[job.layer.partition(", ")[2], job.stage] += span
        planned[job.layer.partition(", ")[2], job.stage] += job.found.cost.counts.total + STAGES
    for key, cycles in planned.items():
        if measured[key] != cycles:
            raise MismatchError(f"{key[1]} of {key[0]}: {cycles} cycles scheduled, {measured[key]} measured in the RTL")
    tell(3, 3, "done")
    return TrainingCosim(
        network=network.name,
        steps=steps,
        products={key: cycles // steps for key, cycles in measured.items()},
        updates=_spans([update.label for update in updates], hardware["wuve"]),
        prunes=_spans([where for where, _, _ in prunes], hardware["sore"]) if prunes else {},
        hardware=hardware,
    )


def _records(
    network: Trainable,
    config: AcceleratorConfig,
    recipe: Recipe,
    samples: NDArray[np.floating[Any]],
    labels: NDArray[np.signedinteger[Any]],
    steps: int,
) -> Iterator[Record]:
    """Train, and yield what every step read and wrote."""
    state = prepare(network, config, recipe, samples, labels)
    integers = quantise(network, state, samples)
    for _ in range(steps):
        outcome = train(network, config, recipe, state, integers, labels, recipe.rate, keep=True)
        assert outcome.record is not None
        yield outcome.record


def _spans(labels: list[str], result: CosimResult) -> dict[str, int]:
    """Sum up the cycles of each parameter over the steps."""
    found: Counter[str] = Counter()
    for label, span in zip(labels, result.spans, strict=True):
        found[label.partition(", ")[2]] += span
    return dict(found)


def _products(lowering: Lowering, cuts: Cuts, record: Record, number: int) -> Iterator[_Job]:
    """Yield the products of a step in the order of the schedule, each checked against what the step recorded."""
    network = lowering.network
    for layer in network.convolutions:
        yield from _stage(lowering, cuts, layer, "FF", record, number)
    for layer in reversed(network.convolutions):
        if (layer.name, 0) in record.contributions:
            yield from _stage(lowering, cuts, layer, "BP", record, number)
        yield from _stage(lowering, cuts, layer, "WU", record, number)


def _stage(lowering: Lowering, cuts: Cuts, layer: Convolution, stage: str, record: Record, number: int) -> Iterator[_Job]:
    """Yield the products of a stage of a layer, group by group and phase by phase, and check that their results are the recorded ones."""
    config = lowering.config
    shift = record.shifts[layer.name, stage]
    made = {"FF": _forward, "BP": _backward, "WU": _gradient}[stage](lowering, layer, record)
    for at, x, second, bias, result in made:
        cut = cuts[layer.name, stage, at]
        gemm = cut.part.work.gemm
        assert (len(x), x.shape[1], len(second)) == (gemm.m, gemm.k, gemm.n)
        codes = sparsity.encode(second, gemm.taps, gemm.channels, gemm.pattern)
        post = Requantisation(
            bias=bias,
            mult=np.full(gemm.n, 1 << max(-shift, 0)),
            shift=np.full(gemm.n, max(shift, 0)),
            zero_point=0,
            lo=record.floors.get(layer.name, config.act.lo) if stage == "FF" else config.act.lo,
            hi=config.act.hi,
            rounding=Rounding.HALF_EVEN,
        )
        weights = Weights(*codes, gemm.k)
        product = Product(m=gemm.m, n=gemm.n, taps=gemm.taps, channels=gemm.channels, pattern=gemm.pattern, weights=weights, post=post)
        operands = golden.Product(x, codes.values.astype(np.int64), codes.positions)
        params = Params(post.bias[None], post.mult[None], post.shift[None])
        told = golden.core(config, operands, post.instruction(Source.ARRAY, gemm.m), params)
        where = f"step {number + 1}, {layer.name}"
        _agree(f"{stage} of {layer.name} in step {number + 1}", told.value, result)
        yield _Job(where, stage, cut.found, product, x)


_Made = Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]
"""Number of the part, rows (m, k), columns (n, k), bias (n,), recorded result (m, n)."""


def _seen(layer: Convolution, record: Record, group: int) -> NDArray[np.int64]:
    """Activations of a group as FF reads them, (positions, taps * channels)."""
    each = layer.channels // layer.groups
    x = _image(record.tensors[layer.inputs[0]])[..., group * each : (group + 1) * each]
    return windows(x, layer.window, 0).reshape(-1, layer.reduction).astype(np.int64)


def _forward(lowering: Lowering, layer: Convolution, record: Record) -> _Made:
    weights = record.forward[layer.name].reshape(layer.groups, -1, layer.reduction).astype(np.int64)
    bias = record.biases.get(layer.name, np.zeros(layer.filters, np.int64)).reshape(layer.groups, -1)
    y = record.tensors[layer.output].reshape(-1, layer.groups, layer.filters // layer.groups).astype(np.int64)
    for group in range(layer.groups):
        yield 0, _seen(layer, record, group), weights[group], bias[group], y[:, group]


def _backward(lowering: Lowering, layer: Convolution, record: Record) -> _Made:
    x = _image(record.tensors[layer.inputs[0]])
    dy = _image(record.pruned.get(layer.name, record.gradients[layer.output]))
    dx = _image(record.contributions[layer.name, 0]).reshape(len(x), -1, layer.groups, layer.channels // layer.groups)
    turned = transposed(layer, record.backward[layer.name])
    each, filters = layer.channels // layer.groups, layer.filters // layer.groups
    at = 0
    for phase in phases(layer.window, dy.shape[1:3], x.shape[1:3]):
        if phase.empty:
            _agree(f"BP of {layer.name} between its taps", np.zeros(1, np.int64), dx[:, phase.positions])
            continue
        taps = turned[:, phase.down][:, :, phase.across].reshape(layer.groups, each, -1).astype(np.int64)
        for group in range(layer.groups):
            seen = windows(dy[..., group * filters : (group + 1) * filters], phase.window, 0)
            rows = seen.reshape(-1, taps.shape[-1]).astype(np.int64)
            result = dx[:, phase.positions, group].reshape(-1, each).astype(np.int64)
            if lowering.operand(layer, "BP") == "gradient":
                yield at, taps[group], rows, np.zeros(len(rows), np.int64), result.T
            else:
                yield at, rows, taps[group], np.zeros(each, np.int64), result
        at += 1


def _gradient(lowering: Lowering, layer: Convolution, record: Record) -> _Made:
    filters = layer.filters // layer.groups
    dy = record.gradients[layer.output].reshape(-1, layer.groups, filters).astype(np.int64)
    dw = record.parameter_gradients[f"{layer.name}.weight"].reshape(layer.groups, filters, layer.reduction).astype(np.int64)
    for group in range(layer.groups):
        columns = np.ascontiguousarray(dy[:, group].T)
        yield 0, np.ascontiguousarray(_seen(layer, record, group).T), columns, np.zeros(filters, np.int64), dw[group].T


def _image(values: NDArray[Any]) -> NDArray[Any]:
    """See a batch of anything as images."""
    return values.reshape(len(values), *image(values.shape[1:]))


def _orders(network: Trainable, config: AcceleratorConfig, recipe: Recipe) -> dict[str, Strips]:
    """Return by parameter the order in which it is updated and pruned."""

    def own(layer: Layer) -> list[str]:
        return [f"{layer.name}.{part}" for part in ("weight", "bias", "gamma", "beta")]

    return {name: order(network, config, recipe, layer, name) for layer in network.layers for name in own(layer)}


def _updates(config: AcceleratorConfig, orders: Mapping[str, Strips], record: Record, number: int) -> Iterator[Recorded]:
    """Yield the updates of a step, each checked against what the step recorded."""
    for name, jobs in record.updates.items():
        before, after, order = record.before[name], record.after[name], orders[name]
        kept = np.ones(before.master.shape, np.bool_) if before.mask is None else before.mask
        tensors = (record.parameter_gradients[name].astype(np.int64), before.velocity, before.master, kept)
        gradient, velocity, master, mask = (order.split(tensor.reshape(order.shape)) for tensor in tensors)
        state, start = before.lanes, 0
        results = []
        for job in jobs:
            rows = slice(start, start + job.beats)
            state, updated = wuve(config, state, job, gradient[rows], velocity[rows], master[rows], mask[rows])
            results.append(updated)
            start += job.beats
        for field in ("velocity", "master", "working"):
            told = order.join(np.concatenate([getattr(each, field) for each in results]))
            _agree(f"{field} of {name} after step {number + 1}", told.reshape(before.master.shape), getattr(after, field))
        yield Recorded(f"step {number + 1}, {name}", list(jobs), gradient, velocity, master, mask, before.lanes)


def _prunes(
    config: AcceleratorConfig, orders: Mapping[str, Strips], recipe: Recipe, record: Record, number: int
) -> Iterator[tuple[str, Sequence[Prune], NDArray[np.int64]]]:
    """Yield the prunings of a step, each checked against what the step recorded."""
    for name, jobs in record.prunes.items():
        after, order = record.after[name], orders[name]
        beats = order.split(after.working)
        forward, backward = _kept(config, jobs, beats, *sore(config, jobs, beats))
        told = [(forward, after.mask)] + ([(backward, after.back)] if recipe.algorithm == "bdwp" else [])
        for kept, recorded in told:
            assert recorded is not None
            _agree(f"weights of {name} kept after step {number + 1}", order.join(kept), recorded)
        yield f"step {number + 1}, {name}", jobs, beats


def _kept(
    config: AcceleratorConfig, jobs: Sequence[Prune], beats: NDArray[np.int64], forward: Pairs, backward: Pairs
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which elements of each beat both codes hold, and check that the codes hold their values in ascending order."""
    both = np.zeros(beats.shape, np.bool_), np.zeros(beats.shape, np.bool_)
    start, at, back = 0, 0, 0
    for job in jobs:
        for first in range(0, job.beats, job.m):  # groups along the beats
            for _ in range(min(job.n, job.beats - first)):
                for lane in range(job.lanes):
                    _mark(both[0], beats, (start + first + int(forward.index[at, lane]), lane), int(forward.value[at, lane]))
                at += 1
        for block in range(0, job.beats, config.cols):
            for first in range(0, job.lanes, job.m):  # groups along the lanes
                for _ in range(min(job.n, job.m, job.lanes - first)):
                    for row in range(min(config.cols, job.beats - block)):
                        place = start + block + row, first + int(backward.index[back, row])
                        _mark(both[1], beats, place, int(backward.value[back, row]))
                    back += 1
        start += job.beats
    return both


def _mark(kept: NDArray[np.bool_], beats: NDArray[np.int64], place: tuple[int, int], value: int) -> None:
    if kept[place] or value != beats[place]:
        raise MismatchError(f"pair of beat {place[0]}, lane {place[1]}: {value} by the block, {beats[place]} by the step")
    kept[place] = True


def _agree(what: str, told: NDArray[Any], recorded: NDArray[Any]) -> None:
    """Compare the integers of the golden models with those of the step."""
    differing = np.argwhere(told != recorded)
    if len(differing):
        at = tuple(differing[0].tolist())
        wanted = np.broadcast_to(told, recorded.shape)[at]
        raise MismatchError(f"{what}: {wanted} at {at} by the block, {recorded[at]} by the step; {len(differing)} differ")
