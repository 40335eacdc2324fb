"""A tile of every layer in the RTL, chosen at random, with the operands that the layer has in the whole network."""

from __future__ import annotations

import numpy as np
import pytest

import accel
from accel import presets
from accel.errors import MismatchError
from accel.schedule.lower import Product, lower, operands
from accel.sim import harness, tiles
from accel.sparsity import Pattern

TINY = presets.load("tiny")


def sample(network, seed):
    tensor = network.tensors[network.inputs[0].tensor]
    return tensor.dequantise(np.random.default_rng(seed).integers(tensor.format.lo, tensor.format.hi, (1, *tensor.shape), endpoint=True))


@pytest.mark.parametrize("pattern", [None, Pattern(2, 4)])
def test_tiles_of_a_network(pattern):
    network = accel.load("digits-cnn")
    told = []
    found = tiles.cosim_tiles(network, TINY, sample(network, 1), pattern=pattern, seed=1, progress=lambda *said: told.append(said))
    assert [name for name, _, _ in found.tiles] == [layer.operator.name for layer in lower(network, TINY) if layer.jobs]
    assert tuple(cycles for _, _, cycles in found.tiles) == found.hardware.spans
    assert told[-1][0] == told[-1][1] == len(found.tiles)


@pytest.mark.parametrize("seed", range(8))
def test_tile_is_a_part_of_its_layer(seed):
    """Rows and channels of the layer's own product, computed from the tile alone."""
    rng = np.random.default_rng(seed)
    network = accel.load("digits-cnn")
    values = accel.simulate(network, TINY, sample(network, seed), keep=True).tensors
    for layer in lower(network, TINY):
        if not layer.jobs:
            continue
        inputs = [values[name] for name in layer.operator.inputs]
        step, label = tiles.tile(TINY, layer, inputs, rng)
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
