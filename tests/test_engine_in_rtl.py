"""The engine against the hardware: random networks through the Verilog of the core, every output bit and the cycles of every layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from accel import presets
from accel.graph.network import Move
from accel.sim.program import cosim_network
from tests.random_network import random_network


@pytest.mark.parametrize(("seed", "param_rows"), [(1, 64), (4, 64), (5, 2), (10, 2)])
def test_random_network_in_rtl(seed, param_rows, tmp_path):
    """All operators of array and vector unit, groups, strides, dilation, padding; with few parameter rows, layers of several passes."""
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(presets.load("tiny"), param_rows=param_rows)
    network = random_network(rng, operators=6)
    tensor = network.tensors[network.inputs[0].tensor]
    x = rng.integers(tensor.format.lo, tensor.format.hi + 1, (1, *tensor.shape))
    run = cosim_network(network, config, tensor.to_onnx(x), out=tmp_path)
    assert list(run.layers) == [operator.name for operator in network.operators if not isinstance(operator, Move)]
