"""Softmax, normalisations, reductions and ArgMax in imported networks, beside onnxruntime on the same integers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.errors import NetworkError
from accel.graph.network import ArgMax, AveragePool, LayerNorm, MaxPool, Softmax
from tests.qdq import Model
from tests.test_moves import FORMS, compared, ints, kinds, loaded

# One rounding of a result that both compute to well below half an LSB: they differ by one where it lies near a tie, and by no more.
NEAR_A_TIE = 1


def model_of(build, scale: float, shape=(4, 6, 5), form="uint8", zero: int | None = None) -> Model:
    """Quantiser, whatever `build` adds to a tensor, and a quantiser of that scale."""
    dtype, own, kind = FORMS[form]
    model = Model(opset=21)
    x = model.fake(model.input("batch", *shape), 0.02, own, dtype)
    model.output(model.quantise(build(model, x), scale, own if zero is None else zero, dtype), kind)
    return model


def near(model: Model, **options):
    return compared(model, worst=NEAR_A_TIE, **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_softmax(kind, axis, form):
    scale, zero = ((1 / 256, None) if form == "uint8" else (1 / 128, -100)) if kind == "Softmax" else (0.03, 127)
    network = near(
        model_of(lambda m, x: m.node(kind, x, axis=axis), scale, form=form, zero=0 if form == "uint8" and kind == "Softmax" else zero)
    )
    assert kinds(network)["Softmax"] == 1
    assert kinds(network)["Host"] == 0


@pytest.mark.parametrize("shape", [(10,), (7, 10)])
def test_softmax_of_rows_needs_no_move(shape):
    network = near(model_of(lambda m, x: m.node("Softmax", x, axis=-1), 1 / 256, shape=shape, zero=0))
    assert kinds(network) == Counter(Softmax=1)
    (softmax,) = network.operators
    assert isinstance(softmax, Softmax)
    assert not softmax.logarithm


def test_softmax_over_the_channels_of_an_image_needs_no_move():
    assert kinds(near(model_of(lambda m, x: m.node("Softmax", x, axis=1), 1 / 256, zero=0))) == Counter(Softmax=1)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_softmax_of_old_opsets_has_one_row_from_its_axis_on(axis):
    model = Model(opset=11)
    x = model.fake(model.input("batch", 4, 6, 5), 0.02, 117)
    model.output(model.quantise(model.node("Softmax", x, axis=axis), 1 / 1024, 0), onnx.TensorProto.UINT8)
    assert kinds(near(model))["Host"] == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("affine", [0, 1, 2])
def test_layer_normalization(affine, axis, form):
    row = (4, 6, 5)[(axis if axis > 0 else 4 + axis) - 1 :]
    rng = np.random.default_rng(affine)

    def build(m, x):
        parts = [m.constant(rng.uniform(0.5, 1.5, row) if affine else np.ones(row), np.float32)]
        parts += [m.constant(rng.uniform(-0.5, 0.5, row), np.float32)] if affine == 2 else []
        return m.node("LayerNormalization", x, *parts, axis=axis, epsilon=1e-3)

    network = near(model_of(build, 0.03, form=form))
    assert kinds(network)["LayerNorm"] == 1
    assert kinds(network)["Host"] == 0


def test_layer_normalization_of_rows_needs_no_move_and_takes_what_follows():
    def build(m, x):
        y = m.node("LayerNormalization", x, m.constant(np.arange(1, 6) / 3, np.float32), axis=-1)
        y = m.node("Add", m.node("Mul", y, m.constant([1, 2, -1, 1, 0.5], np.float32)), m.constant([0, 1, 0, -1, 0], np.float32))
        return m.node("Relu", y)

    network = near(model_of(build, 0.03, shape=(7, 5)))
    assert kinds(network) == Counter(LayerNorm=1)
    (norm,) = network.operators
    assert isinstance(norm, LayerNorm)
    assert norm.epsilon == pytest.approx(1e-5 / np.float32(0.02) ** 2)


@pytest.mark.parametrize(
    ("kind", "groups", "alike"), [("InstanceNormalization", None, True), ("GroupNormalization", 1, False), ("GroupNormalization", 2, True)]
)
def test_normalisation_of_groups(kind, groups, alike):
    gain, offset = (np.full(4, 1.5), np.full(4, 0.25)) if alike else (np.linspace(0.5, 2, 4), np.linspace(-1, 1, 4))
    attributes = {"num_groups": groups} if groups else {}

    def build(m, x):
        return m.node(kind, x, m.constant(gain, np.float32), m.constant(offset, np.float32), **attributes)

    network = near(model_of(build, 0.03))
    assert kinds(network)["LayerNorm"] == 1
    assert kinds(network)["Host"] == 0


def test_channels_of_different_gain_are_normalised_by_the_host():
    def build(m, x):
        return m.node("InstanceNormalization", x, m.constant(np.linspace(0.5, 2, 4), np.float32), m.constant(np.zeros(4), np.float32))

    assert kinds(near(model_of(build, 0.03)))["Host"] == 1


AXES = [(1,), (2,), (3,), (2, 3), (1, 2), (-1, 1), (1, 2, 3)]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
def test_reduction(kind, axes, keepdims):
    scale = 0.3 if kind == "ReduceSum" else 0.02
    network = near(model_of(lambda m, x: m.node(kind, x, ints(m, *axes), keepdims=keepdims), scale))
    found = kinds(network)
    assert found["Host"] == 0
    assert found["MaxPool" if kind in ("ReduceMax", "ReduceMin") else "AveragePool"] == 1
    if set(axes) <= {2, 3}:
        assert found["Move"] == 0  # rows and columns of an image are a window's


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("shape", [(7,), (7, 5), (3, 2, 4, 5)])
def test_reduction_of_forms_and_shapes(shape, kind, form):
    near(model_of(lambda m, x: m.node(kind, x, ints(m, -1)), 0.1, shape=shape, form=form))
    near(model_of(lambda m, x: m.node(kind, x, ints(m, 1)), 0.1, shape=shape, form=form))


ROWS = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "Softmax", "LogSoftmax", "LayerNormalization", "ArgMax", "ArgMin"]


@settings(max_examples=60)
@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), st.sampled_from(ROWS))
def test_rows_of_what_has_moved(data, shape, kind):
    """Over any axes, of a tensor seen in another order or in part."""
    count = len(shape) + 1
    perm = [0, *data.draw(st.permutations(range(1, count)))]
    part = data.draw(st.integers(1, count - 1))
    axes = data.draw(st.lists(st.integers(1, count - 1), min_size=1, max_size=count - 1, unique=True))
    scale = {"ReduceSum": 0.3, "Softmax": 1 / 256, "LayerNormalization": 0.03}.get(kind, 0.03)

    def build(m, x):
        y = m.node("Transpose", x, perm=perm)
        if data.draw(st.booleans()):
            y = m.node("Slice", y, ints(m, -1), ints(m, -9), ints(m, part), ints(m, -1))
        if kind.startswith("Reduce"):
            return m.node(kind, y, ints(m, *axes), keepdims=data.draw(st.integers(0, 1)))
        if kind == "LayerNormalization":
            sizes = [shape[at - 1] for at in perm[1:]]
            return m.node(kind, y, m.constant(np.ones(sizes[axes[0] - 1 :]), np.float32), axis=axes[0], epsilon=0.01)
        return m.node(kind, y, axis=axes[0])

    if kind.startswith("Arg"):
        model = Model(opset=21)
        y = build(model, model.fake(model.input("batch", *shape), 0.02, 117))
        model.output(y, onnx.TensorProto.INT64)
        assert kinds(compared(model))["Host"] == 0
    else:
        assert kinds(near(model_of(build, scale, shape=shape)))["Host"] == 0


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMin"])
def test_an_extreme_is_exact(kind):
    compared(model_of(lambda m, x: m.node(kind, x, ints(m, 2, 3)), 0.02), worst=0)


def test_the_mean_over_an_image_is_a_pool_that_products_take():
    def build(m, x):
        w = m.weights(np.random.default_rng(0).integers(-128, 128, (3, 4, 1, 1), np.int8), 0.004)
        return m.node("Conv", m.fake(m.node("ReduceMean", x, ints(m, 2, 3), keepdims=1), 0.01, 100), w)

    assert kinds(near(model_of(build, 0.02))) == Counter(AveragePool=1, MatrixProduct=1)


def test_reductions_over_nothing():
    same = model_of(lambda m, x: m.node("ReduceMean", x, ints(m), noop_with_empty_axes=1), 0.02)
    assert kinds(compared(same)) == Counter()
    one = model_of(lambda m, x: m.node("ReduceMax", x, ints(m, 1), keepdims=0), 0.02, shape=(1, 6, 5))
    assert kinds(compared(one))["MaxPool"] == 0


def test_what_a_reduction_is_made_of():
    network = near(model_of(lambda m, x: m.node("ReduceSum", x, ints(m, 2, 3)), 0.3))
    (pool,) = network.operators
    assert isinstance(pool, AveragePool)
    assert pool.window.kernel == (6, 5)
    assert pool.multiplier == pytest.approx(30 * 0.02 / 0.3)
    network = near(model_of(lambda m, x: m.node("ReduceMax", x, ints(m, 2), keepdims=0), 0.02))
    (largest,) = network.operators
    assert isinstance(largest, MaxPool)
    assert largest.window.kernel == (6, 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
def test_index_of_an_extreme(kind, axis, last, keepdims, form):
    """Few values, so that ties are common."""
    dtype, zero, _ = FORMS[form]
    model = Model(opset=21)
    x = model.fake(model.input("batch", 4, 12), 1.5, zero, dtype)
    y = model.node(kind, x, axis=axis, select_last_index=last, keepdims=keepdims)
    model.output(y, onnx.TensorProto.INT64)
    network = compared(model)
    assert kinds(network)["ArgMax"] == 1
    assert any(isinstance(operator, ArgMax) and operator.last == bool(last) for operator in network.operators)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda m, x: m.node("LayerNormalization", x, m.constant(np.ones(5), np.float32), epsilon=-1.0),
            r"epsilon of .* must be at least 0, not -1.0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(NetworkError, match=message):
        loaded(model_of(build, 0.02))
