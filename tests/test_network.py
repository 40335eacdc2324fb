"""The network's tensors, windows and rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from accel.errors import NetworkError, RangeError
from accel.graph.network import AveragePool, MatrixProduct, Network, Port, Sum, Tensor
from accel.graph.window import Window

IMAGE = Tensor(name="image", shape=(2, 3, 4), bits=8, scale=0.5, zero_point=-8, unsigned=True)


def test_onnx_order_and_sign():
    """Channels move last, unsigned integers move down by half their range, and back."""
    integers = np.arange(2 * 24, dtype=np.uint8).reshape(2, 4, 2, 3)
    ours = IMAGE.from_onnx(integers)
    assert ours.shape == (2, 2, 3, 4)
    assert ours[1, 0, 2, 3] == int(integers[1, 3, 0, 2]) - 128
    np.testing.assert_array_equal(IMAGE.to_onnx(ours), integers)


def test_quantise_rounds_half_to_even_and_saturates():
    reals = np.zeros((1, 4, 2, 3), np.float32)
    reals[0, 0, 0] = 0.25, 0.75, 1000.0
    reals[0, 1, 0] = -0.25, -0.75, -np.inf
    ours = IMAGE.quantise(reals)
    assert ours[0, 0, :, 0].tolist() == [-8, -6, 127]
    assert ours[0, 0, :, 1].tolist() == [-8, -10, -128]
    assert IMAGE.dequantise(ours)[0, :2, 0].tolist() == [[0, 1, 67.5], [0, -1, -60]]


@pytest.mark.parametrize(
    ("integers", "message"),
    [
        (np.zeros((1, 4, 2, 3)), "^image must be integers, not float64$"),
        (np.zeros((1, 2, 3, 4), int), r"^image must be of shape \(batch, 4, 2, 3\), not \(1, 2, 3, 4\)$"),
        (np.zeros((4, 2, 3), int), r"^image must be of shape \(batch, 4, 2, 3\), not \(4, 2, 3\)$"),
        (np.full((1, 4, 2, 3), 256), r"^image must be in \[0, 255\], not 256..256$"),
        (np.full((1, 4, 2, 3), -1), r"^image must be in \[0, 255\], not -1..-1$"),
    ],
)
def test_from_onnx_rejects(integers, message):
    with pytest.raises(RangeError, match=message):
        IMAGE.from_onnx(integers)


def test_quantise_rejects():
    with pytest.raises(RangeError, match=r"^x must be a number, not nan$"):
        IMAGE.quantise(np.full((1, 4, 2, 3), np.nan))
    with pytest.raises(RangeError, match=r"^image must be of shape \(batch, 4, 2, 3\), not \(1, 2, 3, 4\)$"):
        IMAGE.quantise(np.zeros((1, 2, 3, 4)))


@pytest.mark.parametrize(("shape", "image"), [((5,), (1, 1, 5)), ((7, 5), (7, 1, 5)), ((2, 3, 5), (2, 3, 5))])
def test_image_fills_missing_axes(shape, image):
    assert Tensor(name="t", shape=shape, bits=8, scale=1.0).image == image


def test_window_positions_equal_a_count():
    for size in range(1, 9):
        for kernel, stride, dilation, before, after in np.ndindex(3, 3, 2, 2, 3):
            window = Window(kernel=(kernel + 1, 1), stride=(stride + 1, 1), dilation=(dilation + 1, 1), pads=(before, 0, after, 0))
            reach = (dilation + 1) * kernel
            count = sum(start + reach < size + before + after for start in range(0, 20, stride + 1))
            assert max(window.positions(size, 1)[0], 0) == count


def test_average_counts():
    window = Window(kernel=(2, 2), stride=(2, 2), pads=(1, 0, 0, 1))
    common: dict[str, Any] = {"name": "p", "kind": "AveragePool", "inputs": ("x",), "output": "y", "zero_point": 0, "lo": -128, "hi": 127}
    pool = AveragePool(window=window, counted=(0, 0, 0, 0), input_zero=0, multiplier=1.0, **common)
    assert pool.counts(3, 3).tolist() == [[2, 1], [4, 2]]
    pool = AveragePool(window=window, counted=window.pads, input_zero=0, multiplier=1.0, **common)
    assert pool.counts(3, 3).tolist() == [[4, 4], [4, 4]]


def addition(**changes):
    fields: dict[str, Any] = {
        "name": "s",
        "kind": "Add",
        "inputs": ("x", "x"),
        "output": "y",
        "zero_point": 0,
        "lo": 0,
        "hi": 9,
        "zero_points": (0, 0),
        "multipliers": (1.0, 1.0),
    }
    return Sum(**fields | changes)


def built(*operators, outputs="y", **shapes):
    tensors = {
        name: Tensor(name=name, shape=shape, bits=8, scale=1.0) for name, shape in ({"x": (4,), "y": (4,), "z": (4,)} | shapes).items()
    }
    return Network(name="n", tensors=tensors, operators=operators, inputs=(Port("x", "x", True),), outputs=(Port("out", outputs, True),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: built(addition(), addition(output="z")), "^operator name must be unique, not 's' twice$"),
        (lambda: built(addition(inputs=("x", "z"))), "^inputs of s must be written before, not 'z'$"),
        (lambda: built(addition(output="w")), "^output of s must be a tensor written once, not 'w'$"),
        (lambda: built(addition(output="x")), "^output of s must be a tensor written once, not 'x'$"),
        (lambda: built(addition(), y=(5,)), r"^shape of 'y' must follow from s and \(4,\) and \(4,\), not \(5,\)$"),
        (lambda: built(addition(), outputs="z"), "^output 'out' must be written by an operator, not 'z'$"),
    ],
)
def test_network_rejects(make, message):
    with pytest.raises(NetworkError, match=message):
        make()


def test_shapes_alone_are_a_network():
    """Without weights the dimensions of a product are known, its matrix is not."""
    product = MatrixProduct(
        name="c", kind="Conv", inputs=("x",), output="y", zero_point=0, lo=0, hi=9, window=Window(kernel=(2, 2)), channels=4, filters=6
    )
    network = built(product, x=(5, 3, 4), y=(4, 2, 6))
    assert network.gemm(product, batch=3) == (24, 16, 6)
    with pytest.raises(NetworkError, match=r"^weights of c must be known, not shapes only$"):
        _ = product.matrix


def test_repr_is_a_line():
    network = Network(name="net", tensors={"image": IMAGE}, operators=(), inputs=(Port("x", "image", True),), outputs=())
    assert repr(network) == "<Network 'net': 0 operators, 1 tensors>"
