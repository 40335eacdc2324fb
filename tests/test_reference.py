"""The float step and the float trainer: against torch, finite differences and a naive twin."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.errors import NetworkError, RangeError
from accel.graph.trainable import Add, BatchNorm, Convolution, Gelu, Relu, Trainable
from accel.graph.window import Window
from accel.sparsity import Pattern
from accel.training import course, export, reference
from accel.training.data import Data
from accel.training.recipe import ALGORITHMS, Recipe
from accel.verification.compare import run_onnxruntime
from tests.trainables import network

RECORDED = dict(np.load(Path(__file__).with_name("training.npz")))
# As in tests/training_oracle.py.
STEPS = 3
PATTERN = Pattern(2, 4)
PRUNED = frozenset({"strided", "wide"})
RECIPE = Recipe(pattern=PATTERN, dense=("stem", "linear"), batch=4, rate=0.05, schedule="constant", momentum=0.9, decay=0.01)
SPARSE_DECAY = 0.02
TOLERANCE = 1e-6  # of the largest magnitude: recorded numbers are rounded to float32

SHAPE = "float32 or float64 of shape (batch, 8, 9, 3)"


@pytest.fixture(scope="module")
def known() -> Trainable:
    return network({name.removeprefix("first "): each for name, each in RECORDED.items() if name.startswith("first ")})


def recorded(name: str) -> str:
    """Return torch's name of a tensor or parameter of ours."""
    return {"norm.gamma": "norm.weight", "norm.beta": "norm.bias"}.get(name, name)


def agree(ours: np.ndarray, torch: np.ndarray) -> None:
    # A bias before a normalisation has a gradient of 0, which is nothing but rounding on both sides.
    np.testing.assert_allclose(ours, torch, rtol=0, atol=max(TOLERANCE * np.abs(torch).max(), 1e-12))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_are_those_of_torch(known, algorithm):
    """Of every recorded tensor and of every parameter, with what the algorithm prunes; ties in the pool go to the first."""
    x, y = RECORDED["x"].astype(np.float64), RECORDED["y"]
    trace = reference.run(known, reference.parameters(known), x, y, algorithm=algorithm, pattern=PATTERN, pruned=PRUNED)
    assert trace.loss == pytest.approx(float(RECORDED[f"{algorithm} loss"]), rel=TOLERANCE)
    names = {*known.shapes, *reference.parameters(known)}
    assert names == set(trace.gradients)
    checked = [name for name in names if f"{algorithm} d {recorded(name)}" in RECORDED]
    assert len(checked) == len([name for name in RECORDED if name.startswith(f"{algorithm} d ")])
    for name in checked:
        agree(trace.gradients[name], RECORDED[f"{algorithm} d {recorded(name)}"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_updates_are_those_of_torch(known, algorithm):
    """Three steps of momentum SGD with weight decay, and SR-STE's decay, on the whole batch."""
    y = RECORDED["y"].astype(np.int64)
    x = RECORDED["x"]
    recipe = dataclasses.replace(RECIPE, algorithm=algorithm, sparse_decay=SPARSE_DECAY if algorithm == "sr-ste" else None)
    trained = reference.fit(known, recipe, Data("oracle", x, y, x, y), epochs=STEPS, dtype=np.float64)
    for name, values in trained.parameters.items():
        agree(values, RECORDED[f"{algorithm} after {recorded(name)}"])
    agree(trained.statistics["norm"], np.stack([RECORDED[f"{algorithm} mean"], RECORDED[f"{algorithm} variance"]]))
    assert [epoch.epoch for epoch in trained.curves] == [1, 2, 3]
    assert trained.curves[0].loss * len(y) == pytest.approx(float(RECORDED[f"{algorithm} loss"]), rel=TOLERANCE)


@pytest.mark.golden
def test_gradients_are_finite_differences(known):
    """The derivative of the loss in float64, at random elements of every parameter and of the samples."""
    rng = np.random.default_rng(1)
    net = reference.draw(known, 7)
    values = reference.parameters(net, np.float64)
    values |= {"x": RECORDED["x"].astype(np.float64)}
    y = RECORDED["y"]

    def loss() -> float:
        return reference.run(net, values, values["x"], y).loss

    gradients = reference.run(net, values, values["x"], y).gradients
    for name, each in values.items():
        for _ in range(3):
            place = tuple(rng.integers(each.shape))
            before, step = each[place], 1e-6
            each[place] = before + step
            above = loss()
            each[place] = before - step
            below = loss()
            each[place] = before
            assert gradients[name][place] == pytest.approx((above - below) / (2 * step), abs=1e-6)


@pytest.mark.golden
def test_convolution_is_its_sum(known):
    """FF, BP and WU of a grouped, strided convolution are the plain sums, element by element."""
    net = reference.draw(known, 2)
    layer = net.convolutions[1]
    values = reference.parameters(net, np.float64)
    trace = reference.run(net, values, RECORDED["x"][:2].astype(np.float64), RECORDED["y"][:2])
    x, y, w = trace.tensors["mean"], trace.tensors["strided"], values["strided.weight"]
    dy = trace.gradients["strided"]
    forward, dx, dw = np.zeros_like(y), np.zeros_like(x), np.zeros_like(w)
    per = layer.channels // layer.groups
    for b, i, j, f, u, v, c in itertools.product(range(2), range(2), range(3), range(12), range(3), range(3), range(per)):
        row, column, channel = 2 * i + u - 1, 2 * j + v - 1, f // 6 * per + c
        if 0 <= row < 4 and 0 <= column < 5:
            forward[b, i, j, f] += x[b, row, column, channel] * w[f, u, v, c]
            dx[b, row, column, channel] += dy[b, i, j, f] * w[f, u, v, c]
            dw[f, u, v, c] += dy[b, i, j, f] * x[b, row, column, channel]
    np.testing.assert_allclose(y, forward, atol=1e-12)
    np.testing.assert_allclose(trace.gradients["mean"], dx, atol=1e-12)
    np.testing.assert_allclose(trace.gradients["strided.weight"], dw, atol=1e-12)


@st.composite
def windows(draw):
    """Draw a window and the height and width of an image that it fits on."""
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    sizes = tuple(
        draw(st.integers(max(1, d * (k - 1) + 1 - p), d * (k - 1) + 6)) for k, d, p in zip(kernel, dilation, pads[:2], strict=True)
    )
    return Window(kernel=kernel, stride=stride, dilation=dilation, pads=pads), *sizes


@pytest.mark.golden
@settings(max_examples=60)
@given(windows(), st.integers(0, 99))
def test_unpatch_is_the_adjoint(drawn, seed):
    """<patches(x), p> = <x, unpatch(p)> for any window, and as many positions as the window says."""
    window, height, width = drawn
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, (2, height, width, 3)).astype(np.float64)
    seen = reference.patches(x, window)
    assert seen.shape == (2, *window.positions(height, width), *window.kernel, 3)
    parts = rng.integers(-9, 10, seen.shape).astype(np.float64)
    assert (seen * parts).sum() == (x * reference.unpatch(parts, window, x.shape)).sum()


@pytest.mark.golden
def test_rows():
    """Linear layers and normalisation on rows of channels: derivatives, and the ONNX that is written of them."""
    layers = (
        Convolution(name="a", inputs=("x",), output="a", window=Window(), channels=4, filters=8, linear=True, biased=True),
        BatchNorm(name="n", inputs=("a",), output="n"),
        Relu(name="r", inputs=("n",), output="r"),
        Convolution(name="b", inputs=("r",), output="b", window=Window(), channels=8, filters=4, linear=True),
        Add(name="s", inputs=("x", "b"), output="s"),
        Convolution(name="c", inputs=("s",), output="c", window=Window(kernel=(6, 1)), channels=4, filters=8, linear=True),
        BatchNorm(name="m", inputs=("c",), output="m"),
        Relu(name="q", inputs=("m",), output="q"),
        Convolution(name="d", inputs=("q",), output="d", window=Window(), channels=8, filters=3, linear=True, biased=True),
    )
    shapes = {"x": (6, 4), "a": (6, 8), "n": (6, 8), "r": (6, 8), "b": (6, 4), "s": (6, 4), "c": (8,), "m": (8,), "q": (8,), "d": (3,)}
    net = reference.draw(Trainable(name="rows", shapes=shapes, layers=layers, input="x", output="d"), 3)
    values, running = reference.parameters(net, np.float64), reference.statistics(net)
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((5, 6, 4)), np.array([0, 1, 2, 0, 1])
    gradients = reference.run(net, values, x, y, algorithm="sdgp", pruned=frozenset()).gradients
    for name in values:
        place = tuple(rng.integers(values[name].shape))
        losses = []
        for sign in (1, -1):
            moved = {**values, name: values[name].copy()}
            moved[name][place] += sign * 1e-6
            losses.append(reference.run(net, moved, x, y).loss)
        assert gradients[name][place] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-6)
    running = {name: np.abs(each + rng.standard_normal(each.shape)) for name, each in running.items()}
    theirs = run_onnxruntime(onnx.load_from_string(export.write(net, values, running)), {"x": x.astype(np.float32)})["d"]
    np.testing.assert_allclose(reference.infer(net, values, running, x), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.golden
def test_pruned_gradients_keep_their_norms():
    """Each position keeps N of M, each (sample, channel) its L1 norm, and what loses everything stays 0."""
    dy = np.random.default_rng(0).standard_normal((3, 2, 5, 7))
    dy[1, :, :, 2] = 1e-3  # never among the largest
    kept = reference.prune_gradient(dy, PATTERN)
    groups = [kept[..., :4], kept[..., 4:]]
    assert [int((group != 0).sum(axis=-1).max()) for group in groups] == [2, 2]
    lost = (kept == 0).all(axis=(1, 2))
    assert lost[1, 2]
    np.testing.assert_allclose(np.abs(kept).sum(axis=(1, 2)), np.where(lost, 0, np.abs(dy).sum(axis=(1, 2))))


@pytest.mark.golden
def test_draws_are_those_of_the_seed():
    """Each layer draws on its own with He's deviation; normalisations change nothing."""
    net, again, other = (reference.parameters(reference.draw(network(), seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(net[name], again[name]) for name in net)
    assert not np.array_equal(net["wide.weight"], other["wide.weight"])
    assert net["linear.weight"].std() == pytest.approx((2 / 144) ** 0.5, rel=0.1)
    assert not net["stem.bias"].any()
    assert (net["norm.gamma"] == 1).all()
    np.testing.assert_array_equal(reference.statistics(network())["norm"], np.repeat([[0.0], [1.0]], 8, axis=1))


def test_refresh_holds_the_choice():
    """Between two choices the masks stay, however the weights move."""
    net = reference.draw(network(), 0)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 8, 9, 3), np.float32), rng.integers(0, 5, 12)
    data = Data("noise", x, y, x, y)
    recipe = Recipe(pattern=PATTERN, batch=4, rate=0.5, decay=0.0)
    first = reference.choose(net, reference.parameters(net), "bdwp", PATTERN, course.pruned(net, recipe))
    held = reference.fit(net, dataclasses.replace(recipe, refresh=4), data, epochs=1)
    chosen = reference.fit(net, recipe, data, epochs=1)
    assert all(np.array_equal(held.choice.forward[name], first.forward[name]) for name in first.forward)
    assert not all(np.array_equal(chosen.choice.forward[name], first.forward[name]) for name in first.forward)
    assert ((held.forward["wide.weight"] != 0) == held.choice.forward["wide.weight"]).all()


@pytest.mark.golden
def test_rate_and_batches():
    """The cosine falls from the rate to almost 0; an epoch's batches are whole, of different rows, and those of its seed and number."""
    recipe = Recipe(batch=4, rate=0.5, seed=3)
    rates = [course.rate(recipe, step, 10) for step in range(10)]
    assert rates[0] == 0.5
    assert rates[5] == pytest.approx(0.25)
    assert rates == sorted(rates, reverse=True)
    assert course.rate(dataclasses.replace(recipe, schedule="constant"), 9, 10) == 0.5
    rows = [np.concatenate(list(course.batches(10, recipe, epoch))) for epoch in (0, 0, 1)]
    assert len(rows[0]) == len(set(rows[0].tolist())) == 8
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    words = np.random.PCG64(np.random.SeedSequence((3, 1, 0))).random_raw(10).tolist()
    assert rows[0].tolist() == sorted(range(10), key=words.__getitem__)[:8]


@pytest.mark.golden
def test_refused(known):
    x, y = RECORDED["x"].astype(np.float64), RECORDED["y"]
    values = reference.parameters(known)
    for arguments, error, told in (
        ((network(), {}, x, y, "other"), RangeError, "algorithm must be one of bdwp, sr-ste, sdgp, dense, not 'other'"),
        ((known, values, x[:, 1:], y, "dense"), RangeError, f"samples must be {SHAPE}, not float64 of (4, 7, 9, 3)"),
        ((known, values, x, y[1:], "dense"), RangeError, "labels must be integers of shape (4,), not int64 of shape (3,)"),
        ((known, values, x, y + 2, "dense"), RangeError, "labels must be in [0, 4], not 2..5"),
    ):  # fmt: skip
        net, given, samples, labels, algorithm = arguments
        with pytest.raises(error, match=f"^{re.escape(told)}$"):
            reference.run(net, given, samples, labels, algorithm=algorithm)
    with pytest.raises(NetworkError, match=r"^stem.weight must be known, not left to its shape: draw weights for oracle$"):
        reference.parameters(network())
    counted = Trainable(name="t", shapes={"x": (4,), "y": (4,)}, layers=(Gelu(name="g", inputs=("x",), output="y"),), input="x", output="y")
    with pytest.raises(NetworkError, match=r"^g must be of a kind that is computed, not Gelu, which is counted only$"):
        reference.run(counted, {}, x[:, 0, 0], y)
    data = Data("oracle", RECORDED["x"], y, RECORDED["x"], y)
    with pytest.raises(RangeError, match=r"^batch must be at most the 4 training samples, not 5$"):
        reference.fit(known, Recipe(batch=5), data, epochs=1)
    with pytest.raises(RangeError, match=r"^epochs must be an int in \[1, 1048575\], not 0$"):
        reference.fit(known, Recipe(batch=2), data, epochs=0)
    with pytest.raises(NetworkError, match=r"^dense must be of layers with weights, stem, strided, wide, linear, not 'conv'$"):
        reference.fit(known, Recipe(batch=2, dense=("conv",)), data, epochs=1)
