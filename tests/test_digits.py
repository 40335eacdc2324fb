"""The shipped network: what it is, how well it classifies, and that three ways to run it agree."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from sklearn.datasets import load_digits

import accel
from accel import networks, sparsity
from accel.graph.network import MaxPool, Network, Sum
from accel.presets import load as preset
from accel.sparsity import Pattern
from accel.verification.compare import differences, reference, run_onnxruntime
from tests.naive_network import run, steps

HOME = Path(networks.__file__).parent
QUANTISED, FLOAT = HOME / "digits-cnn.onnx", HOME / "digits-cnn.float.onnx"


@cache
def held_out() -> dict[str, np.ndarray]:
    with np.load(HOME / "digits-cnn.npz") as data:
        return dict(data)


@cache
def digits() -> Network:
    return accel.load("digits-cnn")


def onnx_logits(path: Path, **how: Any) -> np.ndarray:
    return run_onnxruntime(path, {"image": held_out()["images"]}, **how)["logits"]


def accuracy(logits: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=1) == held_out()["labels"]))


def started(network: Network) -> dict[str, np.ndarray]:
    (port,) = network.inputs
    return {port.tensor: network.tensors[port.tensor].quantise(held_out()["images"])}


def test_images_are_a_fifth_of_the_data_set():
    """Every digit in its share, each image once, pixels as they are in the data set."""
    data, whole = held_out(), load_digits()
    assert len(set(data["rows"].tolist())) == len(data["rows"]) == 359
    np.testing.assert_array_equal(data["images"][:, 0] * 16, whole.images[data["rows"]])
    np.testing.assert_array_equal(data["labels"], whole.target[data["rows"]])
    shares = np.bincount(data["labels"]) / np.bincount(whole.target)
    assert np.abs(shares - 0.2).max() < 0.004


def test_structure():
    """Convolutions with padding and a stride, a residual addition, a pooling, a linear layer; signed and unsigned activations."""
    network = digits()
    convolutions = [product for product in network.products if product.kind == "Conv"]
    assert [product.window.stride for product in convolutions] == [(1, 1), (2, 2), (1, 1), (1, 1)]
    assert {product.window.pads for product in convolutions} == {(1, 1, 1, 1)}
    assert [type(operator) for operator in network.operators if operator not in network.products] == [Sum, MaxPool]
    linear = network.products[-1]
    assert (linear.kind, linear.window.kernel, linear.channels) == ("Gemm", (2, 2), 64)
    assert {tensor.unsigned for tensor in network.tensors.values()} == {True, False}
    assert {tensor.zero_point for tensor in network.tensors.values()} > {-128, 0}


def test_inner_convolutions_are_2_of_8():
    """The first convolution and the linear layer stay dense; the bias holds what the zero point needs."""
    for product in digits().products:
        dense = product.name in ("conv1", "scores")
        candidates = [Pattern(16, 16), Pattern(2, 8)]
        found = sparsity.detect(product.matrix, product.window.taps, product.channels, candidates)
        assert (found in (None, Pattern(16, 16))) == dense
        if not dense:
            assert np.count_nonzero(product.matrix) / product.matrix.size == pytest.approx(0.25, abs=0.002)


def test_accuracy():
    assert accuracy(onnx_logits(FLOAT)) >= 0.98
    assert accuracy(onnx_logits(QUANTISED)) >= 0.98


@pytest.mark.parametrize("optimise", [False, True])
def test_the_accelerator_classifies_as_onnxruntime(optimise):
    network, expected = digits(), onnx_logits(QUANTISED, optimise=optimise)
    (port,) = network.outputs
    outputs = run(network, started(network), preset("edge-int8"))[port.tensor]
    assert np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1)) >= 0.99
    assert np.abs(network.tensors[port.tensor].dequantise(outputs) - expected).max() < 2.01 * network.tensors[port.tensor].scale


def test_layers_are_within_one_lsb_of_onnxruntime():
    """Each layer adds at most one, where a float32 tie falls to the other side; together they stay within two."""
    network, model = digits(), onnx.load(QUANTISED)
    expected = reference(network, model, {"image": held_out()["images"]})
    own = differences(network, expected, steps(network, expected))
    assert [difference.operator for difference in own] == [operator.name for operator in network.operators]
    assert max(difference.worst for difference in own) <= 1
    assert max(difference.differing / difference.elements for difference in own) < 2e-3
    assert max(difference.worst for difference in differences(network, expected, run(network, started(network)))) <= 2


def test_the_simulator_equals_the_naive_integer_network():
    """Every bit of every tensor, over the whole test set."""
    network, config = digits(), preset("edge-int8")
    exact = run(network, started(network), config)
    result = accel.simulate(network, config, held_out()["images"], keep=True)
    assert set(result.tensors) == set(network.tensors)
    for name, integers in result.tensors.items():
        np.testing.assert_array_equal(integers, exact[name], name)


class _Images(CalibrationDataReader):
    """Test images, to calibrate onnxruntime's quantiser."""

    def __init__(self) -> None:
        self.left = iter([{"image": images} for images in np.split(held_out()["images"][:200], 4)])

    def get_next(self) -> Any:
        return next(self.left, None)


@pytest.mark.parametrize(
    ("activations", "weights", "per_channel", "symmetric"),
    [
        (QuantType.QUInt8, QuantType.QInt8, False, False),
        (QuantType.QUInt8, QuantType.QInt8, True, True),
        (QuantType.QInt8, QuantType.QInt8, True, False),
        (QuantType.QInt8, QuantType.QInt8, False, True),
        (QuantType.QUInt8, QuantType.QUInt8, True, False),
        (QuantType.QInt16, QuantType.QInt8, True, True),
    ],
)
def test_onnxruntime_quantises_the_float_network(tmp_path, activations, weights, per_channel, symmetric):
    """What its static quantiser writes is read, and classifies alike."""
    path = tmp_path / "model.onnx"
    extra = {"ActivationSymmetric": symmetric}
    types = {"activation_type": activations, "weight_type": weights}
    quantize_static(FLOAT, path, _Images(), quant_format=QuantFormat.QDQ, per_channel=per_channel, extra_options=extra, **types)
    network, model = accel.load(path), onnx.load(path)
    expected = reference(network, model, {"image": held_out()["images"]})
    assert max(difference.worst for difference in differences(network, expected, steps(network, expected))) <= 1
    (port,) = network.outputs
    outputs = run(network, started(network))[port.tensor]
    assert np.mean(outputs.argmax(axis=1) == onnx_logits(path).argmax(axis=1)) >= 0.99
