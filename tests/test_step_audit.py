"""A training step, audited: what it moves and multiplies by hand, and that nothing is used before it is there.

Nothing of the lowering is believed but which layer and stage a run of tiles belongs to and how a product was cut. Which tensors it reads,
which images its tiles touch, and when these are complete is derived anew, from the layers and from the times alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from accel.config import AcceleratorConfig
from accel.graph.files import trainable
from accel.graph.trainable import Add, BatchNorm, Bias, Clip, Convolution, Layer, MaxPool, Product, Relu, Trainable
from accel.presets import load
from accel.schedule.engines import ENGINES, account, run
from accel.schedule.gemm import chunks, reduction, schedule
from accel.schedule.operations import operations
from accel.schedule.step import Step, step
from accel.schedule.training.build import Span
from accel.schedule.training.products import Switches
from accel.sparsity import Pattern
from accel.step_result import told
from accel.timing.core import core
from tests import trainables

ARRAY, VECTOR, UPDATE = range(3)
SMALL = AcceleratorConfig(
    rows=4, cols=8, act_bits=16, weight_bits=16, acc_bits=48, mult_bits=15, act_kb=8, weight_kb=8, out_kb=8
)  # fmt: skip


class Tile(NamedTuple):
    """Of a product, from the first up to the one past the last: rows and columns of the result, pairs of the reduction."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    places: tuple[int, int]
    last: bool
    product: int


def cut(config: AcceleratorConfig, span: Span) -> list[Tile]:
    """List the tiles of a product, in the order of the array."""
    assert span.node.cut is not None
    work, tiling = span.node.cut.part.work, span.node.cut.tiling
    assert tiling.dataflow is not None

    def blocks(total: int, size: int) -> list[tuple[int, int]]:
        return [(first, min(first + size, total)) for first in range(0, total, size)]

    ends = chunks(reduction(config, work.gemm), tiling.dataflow, tiling.blocks).tolist()
    parts = list(zip([0, *ends[:-1]], ends, strict=True))
    rows, columns = blocks(work.gemm.m, tiling.m), blocks(work.gemm.n, tiling.n)
    areas = [(r, c) for r in rows for c in columns] if tiling.outer == "m" else [(r, c) for c in columns for r in rows]
    return [Tile(r, c, part, part == parts[-1], i) for i in range(work.repeats) for r, c in areas for part in parts]


class Audit:
    """The times of a step, seen from the layers."""

    def __init__(self, result: Step):
        self.step, self.net, self.batch, self.config = result, result.low.network, result.low.batch, result.low.config
        self.spans: dict[tuple[str, str], list[Span]] = {}
        for span in result.spans:
            stage = "update" if span.engine == UPDATE else span.node.stage
            self.spans.setdefault((span.node.layer, stage), []).append(span)
        self.carrier: dict[str, Layer] = {}  # by layer: which one's work makes its result
        self.readers: dict[str, list[Layer]] = {}
        place = {span.node.layer: i for i, span in enumerate(result.spans) if span.node.stage == "FF"}
        writers = {layer.output: layer for layer in self.net.layers}
        for layer in self.net.layers:
            for name in dict.fromkeys(layer.inputs):
                self.readers.setdefault(name, []).append(layer)
            if (layer.name, "FF") in self.spans:
                self.carrier[layer.name] = layer
            else:  # taken along by the work that runs last of what makes its operands
                made = [self.carrier[writers[name].name] for name in layer.inputs if name in writers]
                self.carrier[layer.name] = max(made, key=lambda each: place[each.name])
        self.writers = writers

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.net.layers if layer.name == name)

    # Times of tiles.

    def times(self, span: Span) -> tuple[list[int], list[int]]:
        """When each tile of a span begins to load, and when it is done."""
        queue, times = self.step.queues[span.engine], self.step.times.times[span.engine]
        at = slice(span.first, span.last)
        moved = np.ceil(queue.loads[at] / self.config.dram_rate).astype(int)
        return (times.operands[at] - np.where(moved > 0, moved + self.config.dram_latency, 0)).tolist(), times.done[at].tolist()

    def images(self, span: Span) -> list[tuple[int, int]]:
        """First and last image that each tile of a span touches."""
        if span.engine == VECTOR:  # tiles go through the batch in order, so what they have loaded tells where they are
            loaded = np.cumsum(self.step.queues[VECTOR].loads[span.first : span.last])
            total = int(loaded[-1])
            ends = [int(each) for each in loaded]
            return [(a * self.batch // total, -(-b * self.batch // total) - 1) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        assert span.node.cut is not None
        tiles = cut(self.config, span)
        assert len(tiles) == span.last - span.first
        layer = self.layer(span.node.layer)
        work = span.node.cut.part.work
        if isinstance(layer, Product):
            return [(tile.product // layer.count,) * 2 for tile in tiles]
        if span.node.stage == "WU":
            each = work.gemm.k // self.batch
            return [(tile.places[0] // each, (tile.places[1] - 1) // each) for tile in tiles]
        turned = span.node.stage == "BP" and self.step.low.algorithm == "sdgp" and self.pruned(layer)
        each = (work.gemm.n if turned else work.gemm.m) // self.batch
        ranges = [tile.columns if turned else tile.rows for tile in tiles]
        return [(first // each, (last - 1) // each) for first, last in ranges]

    def pruned(self, layer: Layer) -> bool:
        return layer.name in self.step.low.eligible

    def complete(self, spans: Sequence[Span]) -> list[int]:
        """When each image of what spans make together is complete."""
        found = [0] * self.batch
        for span in spans:
            whole = span.node.stage == "WU"
            for (first, last), done in zip(self.images(span), self.times(span)[1], strict=True):
                for image in range(self.batch) if whole else range(first, last + 1):
                    found[image] = max(found[image], done)
        return found

    # What is read.

    def made(self, tensor: str) -> list[Span]:
        """Spans that make a tensor."""
        return self.spans[self.carrier[self.writers[tensor].name].name, "FF"] if tensor in self.writers else []

    def gradient(self, tensor: str) -> list[Span]:
        """Spans that make the gradients that the readers of a tensor hand back."""
        found: list[Span] = []
        if tensor == self.net.output:
            found += [span for span in self.backward(self.writers[tensor]) if span.node.kind == "Loss"]
        for layer in self.readers.get(tensor, []):
            if isinstance(layer, Relu | Clip | Add | Bias):
                found += self.gradient(layer.output)
                continue
            passes = [span for span in self.backward(layer) if span.node.kind == type(layer).__name__]
            if isinstance(layer, Product):
                found += [span for span, name in zip(passes, (layer.inputs[0], layer.inputs[-1]), strict=True) if name == tensor]
            elif isinstance(layer, Convolution):
                found += passes
            else:
                found += passes[-1:]
        return found

    def backward(self, layer: Layer) -> list[Span]:
        return self.spans.get((layer.name, "BP"), [])

    def reads(self, span: Span) -> Iterator[tuple[list[Span], bool]]:
        """List what a span reads: the spans that make it, and whether it needs all images of it from the start."""
        node = span.node
        layer = self.layer(node.layer)
        if node.stage == "FF":
            group = [each for each in self.net.layers if self.carrier[each.name] is layer]
            inside = {each.output for each in group}
            for each in group:
                for name in each.inputs:
                    if name not in inside:
                        yield self.made(name), isinstance(each, BatchNorm)
            return
        if node.kind == "Loss":
            yield self.made(layer.output), False
            return
        gradient = self.gradient(layer.output)
        assert gradient
        yield gradient, False
        passes = [each for each in self.backward(layer) if each.node.kind == node.kind]
        if node.stage == "WU" or isinstance(layer, Product):
            for name in layer.inputs:
                yield self.made(name), False
        elif node.kind == "BatchNorm":
            yield self.made(layer.inputs[0]), False
            yield ([], False) if span is passes[0] else (passes[:1], True)
        elif node.kind == "Prune":
            yield ([], False) if span is passes[0] else (passes[:1], False)
        elif isinstance(layer, Convolution) and node.kind == "Convolution" and self.step.low.algorithm == "sdgp" and self.pruned(layer):
            yield [each for each in self.backward(layer) if each.node.kind == "Prune"], False


def check_times(audit: Audit) -> None:
    """No engine overlaps itself, no transfer another one, buffers hold two tiles, and the account of each engine is the whole step."""
    result, config = audit.step, audit.config
    moved: list[tuple[int, int]] = []
    for engine, queue, times in zip(ENGINES, result.queues, result.times.times, strict=True):
        assert sum(account(queue, result.times, engine)) == result.times.total
        assert (times.end == times.start + queue.cycles).all()
        assert (times.start[1:] >= np.where(queue.behind[1:], times.left[:-1], times.end[:-1])).all()
        assert (times.start >= times.operands).all()
        assert (times.start[2:] >= np.where(queue.stores[:-2] > 0, times.done[:-2], 0)).all()
        loads, stores = (np.ceil(each / config.dram_rate).astype(int) for each in (queue.loads, queue.stores))
        begun = times.operands - config.dram_latency - loads
        assert (begun[2:] >= times.end[:-2])[loads[2:] > 0].all()
        assert (times.done - stores >= times.left).all()
        moved += [(int(a), int(a + n)) for a, n in zip(begun, loads, strict=True) if n]
        moved += [(int(b - n), int(b)) for b, n in zip(times.done, stores, strict=True) if n]
        assert result.times.total >= max(times.left.max(), (times.done + np.where(stores > 0, config.dram_latency, 0)).max())
    moved.sort()
    assert all(before[1] <= after[0] for before, after in pairwise(moved))
    assert sum(b - a for a, b in moved) == result.times.dram <= result.times.total
    for number, queue in enumerate(result.queues):
        mine = [span for span in result.spans if span.engine == number]
        assert [span.first for span in mine] == [0, *(span.last for span in mine[:-1])]
        assert mine[-1].last == len(queue.cycles)


def check_order(audit: Audit) -> None:
    """No tile loads before every image that it reads of is complete."""
    for span in audit.step.spans:
        if span.engine == UPDATE:
            continue
        begun, images = audit.times(span)[0], audit.images(span)
        for makers, whole in audit.reads(span):
            if makers:
                there = audit.complete(makers)
                for begin, (first, last) in zip(begun, images, strict=True):
                    assert begin >= max(there if whole else there[first : last + 1]), (span.node.layer, span.node.stage, span.node.kind)


def check_updates(audit: Audit) -> None:
    """Weights are updated once all images are in their gradient, which has left the array; replaced once BP has loaded them."""
    for layer in audit.net.convolutions:
        (gradient,) = audit.spans[layer.name, "WU"]
        (update,) = (span for span in audit.spans[layer.name, "update"] if span.node.update is not None)
        queue = audit.step.queues[UPDATE]
        at = slice(update.first, update.last)
        tiles = cut(audit.config, gradient)
        made = np.cumsum([(b - a) * (d - c) * last for (a, b), (c, d), _, last, _ in tiles])
        assert made[-1] == np.prod(layer.shape)
        taken = np.cumsum(queue.loads[at]) * made[-1] / queue.loads[at].sum()
        owner = np.searchsorted(made, np.round(taken).astype(int))  # the tile of WU that made the last weight of each
        times = audit.step.times.times[ARRAY]
        begun = np.array(audit.times(update)[0])
        assert (begun >= times.left[gradient.first + owner]).all()
        ended = audit.step.times.times[UPDATE].end[at]
        for tile in range(len(tiles) - 2):
            if tiles[tile].last:
                assert times.start[gradient.first + tile + 2] >= ended[owner == tile].max()
        stored = audit.step.times.times[UPDATE].done[at] - np.ceil(queue.stores[at] / audit.config.dram_rate)
        loaded = [
            audit.step.times.times[span.engine].operands[span.first : span.last].max()
            for span in audit.step.spans
            if span.node.layer == layer.name and span.node.stage in ("FF", "BP") and span.engine != VECTOR
        ]
        assert stored.min() >= max(loaded) - audit.config.dram_latency
    for span in audit.step.spans:
        if span.engine == UPDATE and span.node.stage == "update":
            one = audit.layer(span.node.layer)
            sums = [each for each in audit.backward(one) if each.engine == VECTOR and each.node.kind not in ("Prune", "Sum", "Loss")]
            makers = sums[:1] or audit.gradient(one.output)
            assert makers
            assert min(audit.times(span)[0]) >= max(audit.complete(makers))


def check_uses(audit: Audit) -> None:
    """Nothing is used before it is there."""
    check_order(audit)
    check_updates(audit)


def check_products(audit: Audit, even: bool) -> None:
    """Every product is there once, of the size that the layer has, and takes as many cycles as its multiplications need."""
    low = audit.step.low
    counted = {(each.layer, each.stage): each for each in operations(audit.net, low.pattern, low.algorithm, low.eligible)}
    queue, found = audit.step.queues[ARRAY], {}
    for (name, stage), spans in audit.spans.items():
        mine = [span for span in spans if span.engine == ARRAY]
        if not mine:
            continue
        total = 0
        for span in mine:
            assert span.node.cut is not None
            work = span.node.cut.part.work
            depth = work.gemm.taps * (work.gemm.channels if work.gemm.pattern.dense else int(work.gemm.pattern.pairs(work.gemm.channels)))
            each = work.repeats * work.gemm.m * work.gemm.n * depth
            cycles = int(queue.cycles[span.first : span.last].sum())
            assert cycles * audit.config.rows * audit.config.cols >= each
            if span.node.cut.hop == 1:  # without waiting it is the program that the hardware runs
                tiling = span.node.cut.tiling
                gemm = work.gemm
                made = schedule(audit.config, gemm.m, gemm.n, gemm.taps, gemm.channels, gemm.pattern, tiling.dataflow, tiling.blocks)
                assert cycles + queue.lag[span.last - 1] == core(audit.config, work.repeats * made.program()).total
            total += each
        found[name, stage] = total
    assert set(found) == set(counted)
    for key, total in found.items():
        expected = counted[key].executed * audit.batch
        assert total == expected if even or key[1] != "BP" else total > 0, key


def check_told(audit: Audit) -> None:
    """Add up what is told of layers and stages, slot by slot and byte by byte: it is the step."""
    step, config = audit.step, audit.config
    result = told(step)
    of_array = account(step.queues[ARRAY], step.times, "array")
    elements = config.rows * config.cols
    assert sum(layer.cycles for layer in result.layers) == result.cycles == sum(of_array)
    assert sum(result.causes.values()) == elements * result.cycles
    assert result.dram == sum(int(queue.loads.sum() + queue.stores.sum()) for queue in step.queues)
    assert result.causes["busy"] == sum(layer.macs_executed for layer in result.layers)
    waits = {"array": "array", "vector": "vector", "update": "update", "load": "wait load", "store": "wait store"}
    for field, cause in waits.items():
        assert result.causes[cause] == elements * getattr(of_array, field)


def hand(audit: Audit, value_bits: int = 16, index_bits: int = 3) -> Iterator[tuple[str, str, str, int, int]]:
    """Count what each pass and update of a convolutional network of BatchNorm, Relu, Add and MaxPool loads and stores, by hand [bytes].

    Yields layer, stage, kind, loads and stores of the batch, of passes one behind the other.
    """
    net, batch = audit.net, audit.batch
    size = {name: 2 * int(np.prod(shape)) for name, shape in net.shapes.items()}
    masked = {layer.inputs[0] for layer in net.layers if isinstance(layer, Relu)}
    for layer in net.layers:
        x, y = size[layer.inputs[0]], size[layer.output]
        bits = y // 2 // 8  # a bit for each element
        if isinstance(layer, BatchNorm):
            group = [each for each in net.layers if audit.carrier[each.name] is layer]
            added = y * sum(isinstance(each, Add) for each in group)
            pools = [each for each in group if isinstance(each, MaxPool)]
            out = sum(size[each.output] + size[each.output] // 2 for each in pools) or y
            mask = bits * (layer.output in masked)
            yield layer.name, "FF", "BatchNorm", batch * (x + added), batch * (out + mask)
            yield layer.name, "BP", "BatchNorm", batch * (y + x + mask), 0
            yield layer.name, "BP", "BatchNorm", batch * (y + x + mask), batch * x
            channels = net.shapes[layer.output][-1]
            yield layer.name, "update", "BatchNorm", 2 * channels * 8, 2 * channels * (8 + 2)
        elif isinstance(layer, MaxPool):
            yield layer.name, "BP", "MaxPool", batch * (y + y // 2), batch * x
            handed = len(audit.readers[layer.output])
            if handed > 1:
                yield layer.name, "BP", "Sum", batch * handed * y, batch * y
        elif isinstance(layer, Convolution):
            weights, taps = int(np.prod(layer.shape)), layer.window.taps
            if audit.pruned(layer):
                forward = layer.filters * taps * (layer.channels // 8 * 2) * (value_bits + index_bits)
                back = layer.channels * taps * (layer.filters // 8 * 2) * (value_bits + index_bits)
                codes = (forward + back) // 8
            else:
                codes = 2 * weights
            yield layer.name, "update", "WU", 8 * weights, 8 * weights + codes
            if layer.biased:
                yield layer.name, "BP", "Columns", batch * y, 0
                yield layer.name, "update", "Convolution", 8 * layer.filters, (8 + 2) * layer.filters
    yield audit.writers[net.output].name, "BP", "Loss", batch * size[net.output], batch * size[net.output]


def check_bytes(audit: Audit) -> None:
    """Compare with what passes and updates move by hand; products store results once and load each operand at least once."""
    moved: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for span in audit.step.spans:
        queue, at = audit.step.queues[span.engine], slice(span.first, span.last)
        if span.engine != ARRAY:
            key = span.node.layer, "update" if span.engine == UPDATE else span.node.stage, "WU" if span.node.update else span.node.kind
            moved.setdefault(key, []).append((int(queue.loads[at].sum()), int(queue.stores[at].sum())))
    expected: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for layer, stage, kind, loads, stores in hand(audit):
        expected.setdefault((layer, stage, kind), []).append((loads, stores))
    assert moved == expected
    for conv in audit.net.convolutions:
        x, y = (2 * audit.batch * int(np.prod(audit.net.shapes[name])) for name in (conv.inputs[0], conv.output))
        bits = int(np.prod(conv.shape)) * ((16 + 3) // 4 if audit.pruned(conv) else 16)
        for stage, result, operands in (("FF", y, x + bits // 8), ("BP", x, y + bits // 8), ("WU", 0, x + y)):
            mine = [span for span in audit.spans.get((conv.name, stage), []) if span.engine == ARRAY]
            loads, stores = (
                sum(int(getattr(audit.step.queues[ARRAY], name)[span.first : span.last].sum()) for span in mine)
                for name in ("loads", "stores")
            )
            if mine:
                assert stores == result
                assert loads >= operands


@cache
def audit(name: str, batch: int, algorithm: str, *off: str) -> Audit:
    """Schedule a step and take its side."""
    network: Trainable = trainables.network() if name == "every-layer" else trainable(name)
    config = SMALL if name == "every-layer" else load("sat-vcu1525")
    if "interleave" in off:
        config = dataclasses.replace(config, add_stages=2)
    switches = Switches(**dict.fromkeys(off, False))
    pattern = Pattern(1, 4) if name == "every-layer" else Pattern(2, 8)
    return Audit(step(network, config, batch=batch, algorithm=algorithm, pattern=pattern, switches=switches))


CASES = [
    ("resnet9", 3, "bdwp"),
    ("resnet9", 2, "sdgp"),
    ("resnet18-64", 2, "bdwp"),
    ("vit", 2, "bdwp"),
    ("every-layer", 5, "bdwp"),
    ("every-layer", 3, "sdgp"),
    ("every-layer", 3, "sr-ste"),
    ("every-layer", 3, "dense", "scheduling"),
    ("every-layer", 4, "bdwp", "pregeneration", "interleave"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_step(case):
    mine = audit(*case)
    check_times(mine)
    check_uses(mine)
    check_products(mine, even=case[0].startswith("resnet"))
    check_told(mine)


def test_bytes_of_resnet9_are_those_by_hand():
    check_bytes(audit("resnet9", 3, "bdwp"))


@pytest.mark.parametrize(("engine", "column", "on"), [
    (ARRAY, "needs", ARRAY), (ARRAY, "needs", VECTOR), (VECTOR, "needs", ARRAY), (VECTOR, "needs", VECTOR), (UPDATE, "needs", ARRAY),
    (UPDATE, "needs", VECTOR), (ARRAY, "hands", UPDATE),
])  # fmt: skip
def test_audit_misses_nothing(engine, column, on):
    """Each kind of dependency is looked for: without it some tile runs too early."""
    right = audit("every-layer", 5, "dense").step
    free = getattr(right.queues[engine], column).copy()
    free[:, on] = 0
    queues = list(right.queues)
    queues[engine] = queues[engine]._replace(**{column: free})
    wrong = (queues[0], queues[1], queues[2])
    early = dataclasses.replace(right, queues=wrong, times=run(wrong, right.low.config.dram_rate, right.low.config.dram_latency))
    check_times(Audit(early))
    with pytest.raises(AssertionError):
        check_uses(Audit(early))
