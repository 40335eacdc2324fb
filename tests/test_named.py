"""Networks by name: the sizes that their papers and the field's other tools give, and outputs that onnxruntime has too."""

from __future__ import annotations

import numpy as np
import pytest

import accel
from accel.graph.named import BUILDERS, DEPTH, EXPANSION, HEADS, PATCH, WIDTH
from accel.graph.network import DynamicProduct, Host, MatrixProduct
from accel.verification.compare import run_onnxruntime

# Weights of convolutions and linear layers, and their products for one image: counted once by hand from the papers' tables, and equal to
# what torchvision's models have (`fvcore`, `ptflops` say 1.81, 4.09 and 0.30 G).
SIZES = {
    "resnet9": (6_568_640, 379_261_952),
    "vgg19": (20_024_000, 398_136_320),
    "resnet18": (11_678_912, 1_814_073_344),
    "resnet18-64": (11_261_632, 2_221_772_800),
    "resnet50": (25_502_912, 4_089_184_256),
    "mobilenetv2": (3_469_760, 300_774_272),
}


def macs(network):
    products = [operator for operator in network.operators if isinstance(operator, MatrixProduct)]
    return sum(operator.reduction * network.tensors[operator.output].size for operator in products)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name):
    network = accel.load(name)
    weights = sum(operator.reduction * operator.filters for operator in network.operators if isinstance(operator, MatrixProduct))
    assert (weights, macs(network)) == SIZES[name]
    assert all(operator.weights is None for operator in network.operators if isinstance(operator, MatrixProduct))


def test_vit_is_as_labelled():
    network = accel.load("vit")
    tokens = (32 // PATCH) ** 2
    linear = DEPTH * tokens * WIDTH * WIDTH * (4 + 2 * EXPANSION) + tokens * 3 * PATCH**2 * WIDTH + 10 * WIDTH
    assert macs(network) == linear
    attention = [operator for operator in network.operators if isinstance(operator, DynamicProduct)]
    assert [operator.dimensions([network.tensors[name] for name in operator.inputs]) for operator in attention[:2]] == [
        (HEADS, tokens, WIDTH // HEADS, tokens),
        (HEADS, tokens, tokens, WIDTH // HEADS),
    ]
    assert len(attention) == 2 * DEPTH
    assert not any(isinstance(operator, Host) for operator in network.operators)


@pytest.mark.parametrize("name", BUILDERS)
def test_seed_decides(name):
    one, same, other = (BUILDERS[name](seed).constants for seed in (3, 3, 4))
    drawn = [key for key, array in one.items() if array.values.size > 1 and not key.endswith(("shape", "gamma", "beta"))]
    assert all(np.array_equal(one[key].values, same[key].values) for key in one)
    assert not any(np.array_equal(one[key].values, other[key].values) for key in drawn)


@pytest.mark.parametrize(("name", "config"), [("resnet9", "edge-int8"), ("vit", "sat-vcu1525")])
def test_output_is_close_to_onnxruntimes(name, config):
    """Layers differ by one LSB at ties; what that becomes at the output is small beside its spread."""
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    graph = BUILDERS[name](0)
    (expected,) = run_onnxruntime(graph.to_model(), {"x": x}, optimise=False).values()
    result = accel.simulate(accel.load(name, seed=0), config, x)
    ((output, tensor),) = result.formats.items()
    assert expected.std() > 8 * tensor.scale
    assert np.abs(result.real(output) - expected).max() <= 3.001 * tensor.scale
