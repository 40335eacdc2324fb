"""A tile of every layer in the RTL, chosen at random, with the operands that the layer has in the whole network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import accel
from accel import presets
from accel.errors import MismatchError
from accel.isa import Dataflow
from accel.schedule.gemm import schedule
from accel.schedule.lower import Product, bound, lower, operands, passes
from accel.schedule.plan import Schedule, tilings
from accel.schedule.search import Tiling
from accel.sim import harness, tiles
from accel.sim.program import Uncompared
from accel.sparsity import Pattern
from tests.random_network import ARRAY, SPECIAL, random_network

TINY = presets.load("tiny")


def sample(network, seed):
    tensor = network.tensors[network.inputs[0].tensor]
    values = np.random.default_rng(seed).integers(tensor.format.lo, tensor.format.hi, (1, *tensor.shape), endpoint=True)
    return tensor.dequantise(values) if network.inputs[0].real else tensor.to_onnx(values)


@pytest.mark.parametrize("pattern", [None, Pattern(2, 4)])
def test_tiles_of_a_network(pattern):
    network = accel.load("digits-cnn")
    told = []
    found = tiles.cosim_tiles(network, TINY, sample(network, 1), pattern=pattern, seed=1, progress=lambda *said: told.append(said))
    assert [name for name, _, _ in found.tiles] == [layer.operator.name for layer in lower(network, TINY) if layer.jobs]
    assert tuple(cycles for _, _, cycles in found.tiles) == found.hardware.spans
    assert told[-1][0] == told[-1][1] == len(found.tiles)
    flows = {layer.name: layer.dataflow for layer in accel.simulate(network, TINY, pattern=pattern).layers if layer.dataflow}
    assert {name: label.rpartition(", ")[2] for name, label, _ in found.tiles if name in flows} == flows


def test_tiles_of_blocks_and_of_what_has_no_rtl():
    """Scratchpads so small that products are cut into blocks and chunks, among operators of special units and moves."""
    config = replace(TINY, act_kb=1, weight_kb=1, out_kb=1, keep_kb=0, dram_gbs=0.2)
    network = random_network(np.random.default_rng(3), operators=9, channels=40, kinds=ARRAY + SPECIAL)
    found = tiles.cosim_tiles(network, config, sample(network, 1), seed=1)
    layers = lower(network, config)
    assert [name for name, _, _ in found.tiles] == [layer.operator.name for layer in layers if layer.jobs]
    assert any(" block " in label and not label.endswith((" of 1, os", " of 1, ws")) for _, label, _ in found.tiles)
    assert [each.name for each in found.uncompared] == [layer.operator.name for layer in layers if not layer.jobs]
    assert {each.computed for each in found.uncompared} == {True, False}
    assert all(isinstance(each, Uncompared) for each in found.uncompared)


@pytest.mark.parametrize("outer", ["m", "n"])
@pytest.mark.parametrize(("flow", "k"), [(Dataflow.OS, 1 << 40), (Dataflow.WS, 1 << 40), (Dataflow.WS, TINY.rows)])
def test_tile_is_one_of_the_schedule(flow, k, outer):
    """Whatever the schedule says: its dataflow, and rows and columns that one of its own tiles covers, in the block that is named."""
    rng = np.random.default_rng(5)
    network = accel.load("digits-cnn")
    values = accel.simulate(network, TINY, sample(network, 5), keep=True).tensors
    wide = TINY.cols * (TINY.add_stages if flow is Dataflow.OS else 1)
    cut = Tiling(m=TINY.rows + 3, n=wide, k=k, outer=outer, dataflow=flow)
    blocks = set()
    for layer in lower(network, TINY):
        if not any(isinstance(job, Product) for job in layer.jobs):
            continue
        (job,) = layer.jobs
        assert isinstance(job, Product)
        cuts = Schedule(network=network.name, layers={layer.operator.name: (cut,)})
        whole = schedule(TINY, job.m, job.n, job.taps, job.channels, job.pattern, flow, cut.blocks)
        areas = dict.fromkeys((at.m // cut.m, at.n // cut.n) for at in whole.placed())  # blocks in the order of the schedule
        for _ in range(5):
            step, label = tiles.tile(TINY, layer, [values[name] for name in layer.operator.inputs], cuts, rng)
            (part,) = step.products
            span, _, block, told = label.split(", ")
            first = int(span.removeprefix("rows ").partition("..")[0])
            assert (step.dataflow, told, step.blocks.k) == (flow, flow.value, k)
            assert block == f"block {list(areas).index((first // cut.m, part.start // cut.n)) + 1} of {len(areas)}"
            blocks.add(block)
            assert any(
                (at.n, at.cols) == (part.start, part.n) and at.m <= first and first + part.m <= at.m + at.rows and (part.m == at.rows)
                for at in whole.placed()
            )
    assert len(blocks) > 3


def test_each_product_of_a_layer_has_its_own_cut():
    """Groups, phases and products of two activations: the block told is one of the cut of the very product that is replayed."""
    rng = np.random.default_rng(7)
    network = random_network(rng, operators=12, kinds=("depthwise", "deconv", "dynamic"))
    result = accel.simulate(network, TINY, sample(network, 7), keep=True)
    several = 0
    for layer in lower(network, TINY):
        name, inputs = layer.operator.name, [result.tensors[name] for name in layer.operator.inputs]
        if not layer.jobs or not isinstance(layer.jobs[0], Product):
            continue
        several += len(result.schedule.layers[name]) > 1
        made = tuple(Tiling(m=i + 1, n=1 << 40, k=1 << 40, dataflow=Dataflow.OS) for i in range(len(result.schedule.layers[name])))
        cuts = Schedule(network=network.name, layers={name: made})
        products = [bound(layer, job, inputs) for (job,) in passes(TINY, layer) if isinstance(job, Product)]
        for _ in range(5):
            step, label = tiles.tile(TINY, layer, inputs, cuts, rng)
            (part,), (x,) = step.products, step.operands
            span, _, block, _ = label.split(", ")
            first = int(span.removeprefix("rows ").partition("..")[0])
            possible = [
                f"of {-(-job.m // cut.m)}"
                for job, cut in zip(products, tilings(TINY, layer, 1, cuts), strict=True)
                if job.start <= part.start < job.start + job.n
                and part.m == min(cut.m, TINY.rows, job.m - first)
                and np.array_equal(operands(layer, job, inputs)[first : first + part.m], x)
            ]
            assert any(block.endswith(each) for each in possible)
    assert several


@pytest.mark.parametrize("seed", range(8))
def test_tile_is_a_part_of_its_layer(seed):
    """Rows and channels of the layer's own product, computed from the tile alone."""
    rng = np.random.default_rng(seed)
    network = accel.load("digits-cnn")
    result = accel.simulate(network, TINY, sample(network, seed), keep=True)
    values = result.tensors
    for layer in lower(network, TINY):
        if not layer.jobs:
            continue
        inputs = [values[name] for name in layer.operator.inputs]
        step, label = tiles.tile(TINY, layer, inputs, result.schedule, rng)
        (part,) = step.jobs
        (whole,) = (job for job in layer.jobs if job.start <= part.start < job.start + job.n)
        first, last = (int(number) for number in label.partition(", ")[0].removeprefix("rows ").split(".."))
        channels = slice(part.start - whole.start, part.start - whole.start + part.n)
        x = operands(layer, whole, inputs)[first : last + 1]
        np.testing.assert_array_equal(step.operands[0], x if isinstance(part, Product) else x[..., channels])
        assert part.post is not None
        assert whole.post is not None
        np.testing.assert_array_equal(part.post.bias, whole.post.bias[channels])
        assert part.m == last - first + 1
        if isinstance(part, Product) and isinstance(whole, Product):
            assert part.codes is not None
            assert whole.codes is not None
            np.testing.assert_array_equal(part.codes.values, whole.codes.values[channels])


def test_tile_that_differs_is_told(monkeypatch, tmp_path):
    right = harness.write_verilog
    monkeypatch.setattr(harness, "write_verilog", lambda block, config, _: right(block, config, "params-off-by-one"))
    network = accel.load("digits-cnn")
    with pytest.raises(MismatchError, match=r"^core on verilator, config tiny, seed 0, case \d+ .*layer \w+, "):
        tiles.cosim_tiles(network, TINY, sample(network, 0), out=tmp_path)
