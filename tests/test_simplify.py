"""Masks as sums and batch normalisation folded, beside the graph as it was; bounds are of float32's rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from accel.errors import NetworkError
from accel.graph import evaluate
from accel.graph.fold import bind, fold
from accel.graph.graph import Graph
from accel.graph.simplify import simplify
from tests.qdq import Model, read_model

RNG = np.random.default_rng(11)


def numbers(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def normalise(model: Model, x: str, channels: int, **attributes: Any) -> str:
    """Add a BatchNormalization of random parameters."""
    parameters = [numbers(channels), numbers(channels), numbers(channels), numbers(channels) ** 2 + 0.1]
    return model.node("BatchNormalization", x, *(model.constant(each) for each in parameters), **attributes)


def folded(model: Model) -> Graph:
    return fold(bind(read_model(model.proto)))


def check(model: Model, kinds: list[str], shape: tuple[int, ...]) -> None:
    """Check what is left, and that it computes the same."""
    before = folded(model)
    after = simplify(before)
    assert [node.kind for node in after.nodes] == kinds
    x = {"x": RNG.normal(size=(3, *shape)).astype(np.float32)}
    wanted, found = (evaluate.run(graph, x)[before.outputs[0]] for graph in (before, after))
    # each product and sum is rounded once more or less, relative to the largest sum of 2**-24 each: far below 2**-18
    np.testing.assert_allclose(found, wanted, rtol=2.0**-18, atol=2.0**-18 * np.abs(wanted).max())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kind", "weights", "attributes", "channels"),
    [
        ("Conv", (6, 4, 3, 3), {}, 6),
        ("Conv", (6, 2, 1, 1), {"group": 2}, 6),
        ("ConvTranspose", (4, 5, 2, 2), {}, 5),
        ("ConvTranspose", (4, 3, 2, 2), {"group": 2}, 6),
    ],
)
def test_into_convolutions(kind, weights, attributes, channels, bias):
    model = Model()
    more = [model.constant(numbers(channels))] if bias else []
    x = model.node(kind, model.input(1, 4, 5, 5), model.constant(numbers(*weights)), *more, **attributes)
    model.output(normalise(model, x, channels))
    check(model, [kind], (4, 5, 5))


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("bias", [(), (6,), (1, 6)])
def test_into_gemm(turned, bias):
    model = Model()
    weights = model.constant(numbers(6, 4) if turned else numbers(4, 6))
    x = model.node("Gemm", model.input(1, 4), weights, model.constant(numbers(*bias)), transB=turned, alpha=0.5, beta=2.0)
    model.output(normalise(model, x, 6, epsilon=0.01))
    check(model, ["Gemm"], (4,))


def test_alone():
    model = Model()
    model.output(model.node("Relu", normalise(model, model.input(1, 4, 5, 5), 4)))
    check(model, ["Mul", "Add", "Relu"], (4, 5, 5))


def test_a_result_that_is_read_twice():
    model = Model()
    x = model.node("Conv", model.input(1, 4, 5, 5), model.constant(numbers(4, 4, 1, 1)))
    model.output(model.node("Add", x, normalise(model, x, 4)))
    check(model, ["Conv", "Mul", "Add", "Add"], (4, 5, 5))


def test_quantised_weights_stay():
    """Gains could turn the sign of a scale, so they stay outside, where the importer takes them in."""
    model = Model()
    weights = model.weights(RNG.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8), 0.01)
    model.output(normalise(model, model.node("Conv", model.input(1, 4, 5, 5), weights), 4))
    check(model, ["DequantizeLinear", "Conv", "Mul", "Add"], (4, 5, 5))


@pytest.mark.parametrize("scale", [0.02, [0.01, 0.02, 0.03, 0.04]])
def test_quantised_parameters(scale):
    """Some quantisers take the gain of a normalisation for weights."""
    model = Model()
    x = model.input(1, 4, 5, 5)
    gain = model.weights(RNG.integers(-127, 128, 4).astype(np.int8), scale)
    rest = (model.constant(each) for each in (numbers(4), numbers(4), numbers(4) ** 2 + 0.1))
    model.output(model.node("BatchNormalization", x, gain, *rest))
    check(model, ["Mul", "Add"], (4, 5, 5))


def test_refused():
    model = Model()
    x = model.input(1, 4, 5, 5)
    model.output(
        model.node("BatchNormalization", x, *(model.constant(numbers(4)) for _ in range(3)), model.constant([-1.0] * 4, np.float32))
    )
    with pytest.raises(
        NetworkError, match=r"^variance of node 'batchnormalization0' \(BatchNormalization\) must be above -epsilon, not -1\.0$"
    ):
        simplify(folded(model))
    model = Model()
    x = model.input(1, 4, 5, 5)
    given = model.node("Reshape", model.node("GlobalAveragePool", x), model.constant([4], np.int64))
    model.output(model.node("BatchNormalization", x, given, *(model.constant(numbers(4)) for _ in range(3))))
    with pytest.raises(NetworkError, match=r"^scale of node 'batchnormalization2' .* must be a constant, not the tensor 'reshape1_out'$"):
        simplify(folded(model))


ROWS = np.tri(6, dtype=bool)


@pytest.mark.parametrize("fill", [-np.inf, -3.4e38, -1e9])
@pytest.mark.parametrize("turned", [False, True])
def test_masks_become_sums(fill, turned):
    model = Model()
    x, value = model.input(1, 2, 6, 6), model.constant(fill, np.float32)
    chosen = model.node("Where", model.constant(ROWS), x, value) if turned else model.node("Where", model.constant(~ROWS), value, x)
    model.output(model.node("Softmax", chosen, axis=-1))
    check(model, ["Add", "Softmax"], (2, 6, 6))


@pytest.mark.parametrize(
    ("mask", "fill", "reader"),
    [
        (np.tri(6, k=-1, dtype=bool), -np.inf, "Softmax"),  # the first row is masked everywhere
        (ROWS, -5.0, "Softmax"),
        (ROWS, -1e9, "LogSoftmax"),
    ],
)
def test_other_selections_stay(mask, fill, reader):
    model = Model()
    x = model.input(1, 2, 6, 6)
    model.output(model.node(reader, model.node("Where", model.constant(mask), x, model.constant(fill, np.float32)), axis=-1))
    assert [node.kind for node in simplify(folded(model)).nodes] == ["Where", reader]


def test_no_softmax_is_tested_for_nan():
    model = Model()
    y = model.node("Softmax", model.input(1, 2, 6, 6), axis=-1)
    model.output(model.node("Relu", model.node("Where", model.node("IsNaN", y), model.constant(0, np.float32), y)))
    check(model, ["Softmax", "Relu"], (2, 6, 6))
