"""Radial-basis networks: training, fixed point, their file, data sets and `accel rbf`."""

from __future__ import annotations

import builtins
import csv
import dataclasses
import json
import re
import stat
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel import cli, rbf
from accel.errors import ConfigError, RangeError, ToolError
from accel.rbf import data as datasets
from accel.rbf import files, training
from accel.rbf.model import activations
from accel.rbf.quantise import error_bound, quantise
from accel.rtl import shapes
from accel.sim.pack import unpack
from accel.sim.rbf import memory_file

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (60, 2))
RINGS = (np.hypot(*X.T) > 0.7).astype(np.int64)
WAVE = np.sin(3 * X[:, 0]) + X[:, 1]


@pytest.fixture(scope="module")
def classes():
    return rbf.fit(X, RINGS, neurons=4, test=0.25)


@pytest.fixture(scope="module")
def wave():
    return rbf.fit(X, WAVE, neurons=8, method="ols", features=["a", "b"], target="wave", error=0.002)


# Training


def test_fit_of_two_classes(classes):
    config, told = classes.config, classes.training
    assert (config.dims, config.neurons, config.outputs, config.units, config.output) == (2, 4, 1, 4, "sigmoid")
    assert (config.error, config.sigmoid_error) == (2**-11, 2**-11)
    assert (classes.labels, classes.targets, classes.measure) == ((0, 1), None, "accuracy")
    assert (told["samples"], told["held out"]) == (45, 15)
    assert min(score for part in told["scores"].values() for score in part.values()) > 0.8


def test_fit_of_a_regression(wave):
    assert (wave.config.outputs, wave.config.output, wave.labels, wave.measure) == (1, "linear", None, "R^2")
    assert (wave.features, wave.target) == (("a", "b"), "wave")
    scores = wave.training["scores"]["training"]
    assert scores["float"] > 0.97
    assert scores["fixed"] == pytest.approx(scores["float"], abs=0.002)
    assert {tuple(centre) for centre in wave.reals.centres} <= {tuple(z) for z in wave.inputs.forward(X)}  # chosen among the samples


def test_fit_of_text_labels_and_several_classes():
    labels = np.array(["low", "middle", "high"])[np.digitize(X[:, 0], [-0.4, 0.4])]
    model = rbf.fit(X, labels, neurons=6, output="linear", error=0.002)
    assert model.labels == ("high", "low", "middle")
    assert model.config.outputs == 3
    found = model.simulate(X).predictions
    assert found.dtype.kind == "U"
    assert np.mean(found == labels) > 0.9
    assert model.score(found, labels) == np.mean(found == labels)


def test_fit_of_several_targets_with_a_sigmoid():
    y = np.column_stack([WAVE, 100 - 10 * X[:, 1]])
    model = rbf.fit(X, y, neurons=10, output="sigmoid", error=0.002)
    found = model.simulate(X)
    assert found.predictions.shape == y.shape
    assert 0 <= found.values.min() <= found.values.max() <= 1
    assert (model.score(found.predictions, y) or 0) > 0.9


def test_small_weights_are_preferred(monkeypatch):
    noisy = WAVE + np.random.default_rng(1).normal(0, 0.2, 60)
    sizes = []
    for tolerance in (training.TOLERANCE, 1.0):
        monkeypatch.setattr(training, "TOLERANCE", tolerance)
        sizes.append(np.abs(rbf.fit(X, noisy, neurons=8, bits=12, error=2**-7).reals.weights).sum())
    assert sizes[0] < sizes[1]


def test_equal_fits_are_equal(classes):
    again = rbf.fit(X.tolist(), RINGS.tolist(), neurons=4, test=0.25)
    assert files.to_json(again) == files.to_json(classes)


def test_booleans_are_classes(classes):
    model = rbf.fit(X, RINGS.astype(np.bool_), neurons=4, test=0.25)
    assert model.labels == (0, 1)
    assert model.training == classes.training


def test_one_neuron_and_more_neurons_than_different_samples():
    assert rbf.fit(X, WAVE, neurons=1, error=0.002).config.neurons == 1
    few = np.repeat(X[:5], 12, axis=0)
    assert rbf.fit(few, np.repeat(WAVE[:5], 12), neurons=8, error=0.002).training["scores"]["training"]["fixed"] > 0.9


def test_a_constant_feature_is_ignored():
    model = rbf.fit(np.column_stack([X, np.full(60, 7.0)]), RINGS, neurons=4, error=0.002)
    assert model.inputs.scale[2] == 0
    np.testing.assert_array_equal(
        model.simulate(np.column_stack([X, X[:, 0]])).values, model.simulate(np.column_stack([X, X[:, 1]])).values
    )


@pytest.mark.parametrize(
    ("y", "task", "labels"),
    [
        (RINGS, None, (0, 1)),
        (RINGS.astype(bool), None, (0, 1)),
        (RINGS.astype(float), None, None),
        (RINGS.astype(float), "classification", (0, 1)),
        (RINGS, "regression", None),
        (np.arange(60) + 1000, None, tuple(range(1000, 1060))),
        (np.arange(65), None, None),
        (np.array(["b", "a"] * 30), None, ("a", "b")),
    ],
)
def test_what_a_target_is_taken_for(y, task, labels):
    assert training._labels("y", y, len(y), task) == labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neurons": 0}, r"neurons must be an int in \[1, 1024\], not 0"),
        ({"neurons": 49}, r"neurons must be at most 48, 4 of 5 parts of 60 training samples, not 49"),
        ({"neurons": 37, "test": 0.25}, r"neurons must be at most 36, 4 of 5 parts of 45 training samples, not 37"),
        ({"method": "svm"}, r"method must be one of kmeans, ols, not 'svm'"),
        ({"output": "tanh"}, r"output must be one of linear, sigmoid, not 'tanh'"),
        ({"task": "guess"}, r"task must be one of classification, regression, not 'guess'"),
        ({"bits": 7}, r"bits must be an int in \[8, 24\], not 7"),
        ({"seed": -1}, r"seed must be an int in \[0, 4294967295\], not -1"),
        ({"test": 0.6}, r"test must be a number in \[0, 0.5\], not 0.6"),
        ({"test": True}, r"test must be a number in \[0, 0.5\], not True"),
        ({"test": float("nan")}, r"test must be a number in \[0, 0.5\], not nan"),
        ({"x": [[1.0, float("nan")]] * 60}, r"x must be numbers of at most 1e\+100, not nan"),
        ({"x": X * 1e101}, r"x must be numbers of at most 1e\+100, not .*e\+100"),
        ({"x": [["a", "b"]] * 60}, r"x must be numbers, not <U1"),
        ({"x": [[1.0, 2.0], [3.0]]}, r"x must be numbers, not rows of different lengths"),
        ({"x": X[:, 0]}, r"x must be of shape \(n, D\), D at most 1024, not \(60,\)"),
        ({"x": np.zeros((60, 1025))}, r"x must be of shape \(n, D\), D at most 1024, not \(60, 1025\)"),
        ({"x": np.ones((60, 2))}, r"x must vary in at least one feature, not be constant"),
        ({"x": X[:0], "y": RINGS[:0]}, r"samples must be 1 or more, not 0"),
        ({"y": RINGS[:59]}, r"y must be one value, or one row, for each of 60 samples, not of shape \(59,\)"),
        ({"y": RINGS * 0}, r"y must be of 2 to 64 classes, not 1"),
        ({"y": [str(i % 65) for i in range(60)], "task": "regression"}, r"y must be numbers for a regression, not text"),
        ({"y": np.full(60, np.inf)}, r"y must be numbers of at most 1e\+100, not inf"),
        ({"y": np.zeros(60)}, r"y must vary among the training samples, not be constant"),
        ({"y": np.zeros((60, 65))}, r"y must be at most 64 values a sample, not 65"),
        ({"y": WAVE, "task": "classification"}, r"y must be texts or integers, one a sample, to be classes, not float64 of shape \(60,\)"),
        ({"y": np.array([None] * 60)}, r"y must be numbers, not object"),
        ({"y": np.array([1e19, 2e19] * 30), "task": "classification"}, r"y must be texts or integers, one a sample, .*"),
        ({"features": ["a"]}, r"features must be 2 different names, not 1"),
        ({"features": [0, 1]}, r"names of the target and of the features must be texts, not 0"),
        ({"target": 2}, r"names of the target and of the features must be texts, not 2"),
    ],
)
def test_fit_rejects(change, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        rbf.fit(**{"x": X, "y": RINGS, "neurons": 4} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": 5}, r"units must be at most neurons \(4\), not 5"),
        ({"error": 0.5}, r"error must be a number in \[1e-07, 0.25\], not 0.5"),
    ],
)
def test_fit_passes_the_rules_of_the_configuration_on(change, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        rbf.fit(X, RINGS, neurons=4, **change)


def test_fit_bounds_its_memory(monkeypatch):
    monkeypatch.setattr(training, "ELEMENTS", 100)
    with pytest.raises(RangeError, match=r"^samples must be at most 25, not 60$"):
        rbf.fit(X, RINGS, neurons=4)


def test_fit_bounds_classes():
    with pytest.raises(RangeError, match=r"^y must be of 2 to 64 classes, not 65$"):
        rbf.fit(np.arange(65.0)[:, None], [f"c{i}" for i in range(65)], neurons=4)


def test_without_scikit_learn(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.partition(".")[0] in ("sklearn", "threadpoolctl"):
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    for call in (lambda: rbf.fit(X, RINGS, neurons=4), lambda: datasets.read("iris")):
        with pytest.raises(ToolError, match=r"^scikit-learn is not installed: install accel with the extra `rbf`$"):
            call()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=50), st.floats(0, 0.5), st.integers(0, 3))
def test_split_is_even(y, fraction, seed):
    """Every sample is on one side, and of each class its share, to one sample and one for each border, is held out."""
    train, held = rbf.split(y, fraction, seed)
    assert sorted([*train, *held]) == list(range(len(y)))
    assert len(held) == round(fraction * len(y))
    for label in set(y):
        assert abs(sum(y[i] == label for i in held) - len(held) / len(y) * y.count(label)) <= 2


def test_orthogonal_least_squares_takes_the_greatest_gain_first():
    """The first centre is the candidate that alone leaves the least error, by the plainest computation."""
    z, wanted = X[:20], WAVE[:20, None]
    widths = np.array([1.0, 1.0])
    chosen = training._orthogonal(z, wanted, widths, seed=0)

    def left(centres):
        phi = activations(rbf.Parameters(np.array(centres), np.ones(len(centres)), np.zeros(0), np.zeros(0)), z)
        design = np.column_stack([phi, np.ones(len(z))])
        return ((design @ np.linalg.lstsq(design, wanted, rcond=None)[0] - wanted) ** 2).sum()

    assert min(range(20), key=lambda i: left([z[i]])) == np.flatnonzero((z == chosen[0]).all(1))[0]
    assert min(range(20), key=lambda i: left([chosen[0], z[i]])) == np.flatnonzero((z == chosen[1]).all(1))[0]


def test_ridge_and_logistic_weights_are_the_minima():
    """No small step from the weights found makes the penalised loss smaller."""
    phi, wanted = activations(rbf.Parameters(X[:5], np.ones(5), np.zeros(0), np.zeros(0)), X), np.clip(WAVE[:, None] / 4 + 0.5, 0.1, 0.9)
    penalty = 1e-3

    def squared(w, b):
        return ((phi @ w.T + b - wanted) ** 2).mean() + penalty * (w**2).sum()

    def entropy(w, b):
        total = phi @ w.T + b
        return (np.logaddexp(0, total) - wanted * total).mean() + penalty / 2 * (w**2).sum()

    ridge = next(training._ridges(phi, wanted, np.array([penalty])))
    for loss, (w, b) in ((squared, ridge), (entropy, training._logistic(phi, wanted, penalty))):
        for step in RNG.normal(0, 0.05, (20, 6)):
            assert loss(w + step[:5], b + step[5]) > loss(w, b)


# Fixed point


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_fixed_point_is_within_its_bound(bits, output):
    model = rbf.fit(X, WAVE, neurons=5, bits=bits, output=output, error=2**-7)
    far = np.abs(model.simulate(X).values - model.reference(X).values)
    assert (far <= error_bound(model, model.inputs.forward(X))).all()
    assert far.max() > 0


def test_formats_hold_the_training_samples(wave):
    config, z = wave.config, wave.inputs.forward(X)
    for fmt, values in (
        (config.x, z),
        (config.x, wave.reals.centres),
        (config.width, wave.reals.widths),
        (config.weight, wave.reals.weights),
    ):
        assert np.abs(values).max() <= fmt.hi * 2.0**-fmt.frac
    for kept, real, frac in zip(
        wave.integers, wave.reals, (config.x_frac, config.width_frac, config.weight_frac, config.weight_frac), strict=True
    ):
        assert np.abs(kept * 2.0**-frac - real).max() <= 2.0 ** -(frac + 1)
    assert (config.t_bits, config.t_frac) == (16, 12)  # down to one LSB of the activation


@pytest.mark.parametrize("widths", [(0.5, 4.0), (0.01, 0.02), (3.0, 20.0), (0.001, 30.0)])
def test_a_saturated_distance_changes_nothing(widths):
    """At the greatest distance either the exponent of the widest neuron saturates too, or no training sample is as far."""
    z, width = X * 20, np.array(widths)
    reals = rbf.Parameters(z[:2], width, np.ones((1, 2)), np.zeros(1))
    config, integers = quantise(reals, z, name="far", output="linear", bits=12, units=2, error=0.01)
    assert (integers.widths > 0).all()
    farthest = max(((z - centre) ** 2).sum(1).max() for centre in z[:2])
    exponent = config.distance.hi * 2.0**-config.distance_frac * width.min()
    assert exponent >= 12 or farthest <= config.distance.hi * 2.0**-config.distance_frac


def test_samples_are_rounded_to_the_nearest(wave):
    z = np.array([[0.49, 0.51], [-0.49, -0.51], [0.5, 1.5]]) * 2.0**-wave.config.x_frac
    model = dataclasses.replace(wave, inputs=rbf.Scaling(np.zeros(2), np.ones(2)))
    assert model.quantise(z).tolist() == [[0, 1], [0, -1], [0, 2]]


def test_quantised_samples_saturate(wave):
    far = wave.inputs.back(np.array([[1e6, -1e6]]))
    np.testing.assert_array_equal(wave.quantise(far), [[wave.config.x.hi, wave.config.x.lo]])


def test_ranges_must_fit():
    with pytest.raises(ConfigError, match=r"^bits must be enough for a samples of .*, not 8$"):
        rbf.fit(np.append(np.zeros(40000), 1.0)[:, None], np.arange(40001) % 2, neurons=1, bits=8)


def test_decisions_are_those_of_the_integers(classes):
    found = classes.simulate(X)
    integers = found.values * 2.0**classes.config.y_bits
    np.testing.assert_array_equal(integers, np.rint(integers))
    np.testing.assert_array_equal(found.predictions, integers[:, 0] > 2 ** (classes.config.y_bits - 1))
    assert classes._outputs(np.array([[0.5], [0.5 + 2**-16]])).predictions.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"x must be of shape \(n, 2\), one column per feature, not \(2,\)"),
        (X[:, :1], r"x must be of shape \(n, 2\), one column per feature, not \(60, 1\)"),
        ([[np.nan, 0]], r"x must be numbers of at most 1e\+100, not nan"),
    ],
)
def test_simulate_rejects(wave, x, message):
    for run in (wave.simulate, wave.reference):
        with pytest.raises(RangeError, match=f"^{message}$"):
            run(x)


def test_no_samples(wave, classes):
    for model in (wave, classes):
        assert model.simulate(X[:0]).predictions.shape == model.reference(X[:0]).predictions.shape == (0,)


def test_score_rejects(wave, classes):
    for model, y, message in (
        (classes, ["2"] * 60, r"y must be one of 0, 1, not '2'"),
        (classes, RINGS[:3], r"y must be of shape \(60,\), not \(3,\)"),
        (wave, WAVE[:3], r"wave must be of shape \(60, 1\), not \(3, 1\)"),
        (wave, ["a"] * 60, r"wave must be numbers, not <U1"),
    ):
        with pytest.raises(RangeError, match=f"^{message}$"):
            model.score(model.reference(X).predictions, y)


def test_nothing_to_score(wave, classes):
    assert wave.score(wave.reference(X).predictions, np.ones(60)) is None
    assert wave.score(wave.reference(X[:0]).predictions, WAVE[:0]) is None
    assert classes.score(classes.reference(X[:0]).predictions, RINGS[:0]) is None


# The file


def test_a_model_survives_its_file(tmp_path, wave, classes):
    for model in (wave, classes):
        file = tmp_path / "model.json"
        model.save(file)
        again = rbf.RbfModel.load(file)
        assert files.to_json(again) == file.read_text()
        assert again.config == model.config
        np.testing.assert_array_equal(again.simulate(X).values, model.simulate(X).values)
        np.testing.assert_array_equal(again.reference(X).values, model.reference(X).values)
        assert max(map(len, file.read_text().splitlines())) < 500


def test_the_file_is_whole_or_absent(tmp_path, wave):
    with pytest.raises(RangeError, match=r"^output must be a file that can be written, not '.*' \(.*\)$"):
        wave.save(tmp_path)
    assert not list(tmp_path.iterdir())
    wave.save(tmp_path / "m.json")
    assert stat.S_IMODE((tmp_path / "m.json").stat().st_mode) & 0o400


def broken(model, **changes):
    """Return the text of a model with members changed, each named by its path with double underscores; None removes one."""
    parts = json.loads(files.to_json(model))
    for path, value in changes.items():
        *folders, name = path.split("__")
        place = parts
        for folder in folders:
            place = place[folder]
        if value is None:
            del place[name]
        else:
            place[name] = value
    return json.dumps(parts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, r"schema must be 1, not 2"),
        ({"schema": True}, r"schema must be 1, not True"),
        ({"schema": None}, r"model\.schema must be given, not missing"),
        ({"extra": 1}, r"model member must be one of schema, .*, training, not 'extra'"),
        ({"config": 3}, r"config must be an object, not 3"),
        ({"config__t_bits": None}, r"config\.t_bits must be given, not missing"),
        ({"config__t_bits": 99}, r"t_bits must be an int in \[8, 24\], not 99"),
        ({"config__shape": 1}, r"config member must be one of name, .*, not 'shape'"),
        ({"integers__widths": [1, 2]}, r"widths must be int64 of shape \(8,\), not int64 of shape \(2,\)"),
        ({"integers__widths": [-1] * 8}, r"widths must be in \[0, 65535\], not -1\.\.-1"),
        ({"integers__widths": [1.5] * 8}, r"integers\.widths must be a list of 64-bit integers, not \[1\.5, .*"),
        ({"integers__widths": [True] * 8}, r"integers\.widths must be a list of 64-bit integers, not \[True, .*"),
        ({"integers__widths": [2**70] * 8}, r"integers\.widths must be a list of 64-bit integers, not \[1180591620717411303424, .*"),
        ({"integers__centres": [[1, 2], [3]]}, r"integers\.centres must be a list of equally long lists of 64-bit integers, not .*"),
        ({"integers__centres": [1, 2]}, r"integers\.centres must be a list of equally long lists of 64-bit integers, not \[1, 2\]"),
        ({"integers__weights": []}, r"integers\.weights must be a list of equally long lists of 64-bit integers, not \[\]"),
        ({"integers__biases": "text"}, r"integers\.biases must be a list of 64-bit integers, not 'text'"),
        ({"float__biases": ["x"]}, r"float\.biases must be a list of numbers, not \['x'\]"),
        ({"float__biases": [10**400]}, r"float\.biases must be a list of numbers, not \[1000.*"),
        ({"float__biases": [1.0, 2.0]}, r"float biases must be float64 of shape \(1,\), not float64 of shape \(2,\)"),
        ({"float__biases": [1e300]}, r"float biases must be numbers of at most 1e\+100, not 1e\+300"),
        ({"float__widths": [-1.0] * 8}, r"float widths must be 0 or more, not -1\.0"),
        ({"float": None}, r"model\.float must be given, not missing"),
        ({"features": ["a"]}, r"features must be 2 different names, not 1"),
        ({"features": ["a", "a"]}, r"features must be 2 different names, not 1"),
        ({"features": [1, 2]}, r"features must be a list of texts, not \[1, 2\]"),
        ({"input__scale": [1.0]}, r"input scale must be float64 of shape \(2,\), not float64 of shape \(1,\)"),
        ({"input__scale": [1.0, 1e999]}, r"number must be finite, not Infinity"),
        ({"scaling__scale": [0.0]}, r"target scale must not be 0"),
        ({"target": 5}, r"target must be a text, not 5"),
        ({"training": []}, r"training must be an object, not \[\]"),
        ({"labels": ["a", "b"]}, r"labels must be given for a classification only, not with a target scaling"),
        ({"labels": "ab"}, r"labels must be a list of integers, not 'ab'"),
        ({"labels": [True, False]}, r"labels must be a list of integers, not \[True, False\]"),
        ({"labels": [1, "b"]}, r"labels must be a list of integers, not \[1, 'b'\]"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, wave, changes, message):
    file = tmp_path / "model.json"
    file.write_text(broken(wave, **changes))
    with pytest.raises(RangeError, match=f"^{re.escape(str(file))}: {message}$"):
        rbf.RbfModel.load(file)


def test_labels_of_a_file(tmp_path, classes):
    file = tmp_path / "model.json"
    for labels, found in (([0, 1, 2], 3), ([1, 1], 1)):
        file.write_text(broken(classes, labels=labels))
        with pytest.raises(RangeError, match=rf": labels must be 2 different ones for 1 outputs, not {found}$"):
            rbf.RbfModel.load(file)
    file.write_text(files.to_json(classes).replace('"labels": [0, 1]', '"labels": null'))
    with pytest.raises(RangeError, match=r": labels must be given for a classification only, not without a target scaling$"):
        rbf.RbfModel.load(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"model must be JSON, not text with this fault in line 1: Expecting value"),
        (b"[]", r"model must be an object, not \[\]"),
        (b'{"schema": NaN}', r"number must be finite, not NaN"),
        (b'{"schema": 1, "schema": 1}', r"members must be given once, not schema, schema"),
        (b"[" * 100_000, r"model must be JSON, not text with this fault: .*"),
        (b"1" * 5000, r"model must be JSON, not text with this fault: .*"),
        (b"\xff{}", r"model must be UTF-8 text, not bytes that break it at offset 0"),
        (None, r"model must be a readable file, not what gives 'No such file or directory'"),
    ],
)
def test_what_is_no_model(tmp_path, content, message):
    file = tmp_path / "model.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RangeError, match=f"^{re.escape(str(file))}: {message}$"):
        rbf.RbfModel.load(file)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LIMIT", 10)
    file = tmp_path / "model.json"
    file.write_text("x" * 11)
    with pytest.raises(RangeError, match=r": model must be at most 10 bytes, not more$"):
        rbf.RbfModel.load(file)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_file_is_the_users_mistake(wave, drawn):
    """Whatever is cut out of a file or put into it, the reader gives a model or one sentence."""
    text = files.to_json(wave)
    start, length = drawn.draw(st.integers(0, len(text))), drawn.draw(st.integers(0, 40))
    damaged = text[:start] + drawn.draw(st.sampled_from(["", "0", "-1", "null", "[]", '"x"', "1e999", "{", "]"])) + text[start + length :]
    said = "model must be read or refused"
    try:
        files.from_json(damaged)
    except (RangeError, ConfigError) as error:
        said = str(error)
    assert " must " in said
    assert "\n" not in said


# Data sets


@pytest.mark.parametrize(("name", "shape"), [("iris", (150, 4)), ("diabetes", (442, 10))])
def test_shipped_sets(name, shape):
    found = datasets.read(name)
    assert found.x.shape == shape
    assert len(found.features) == shape[1]


def test_csv(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text('\ufeffa, b,"kind",n\n1,2.5,red,1\n\n-3e2,4,"green",2\n', encoding="utf-8")
    for target in ("kind", "2"):
        found = datasets.read(file, target)
        assert (found.name, found.features, found.target) == ("t", ("a", "b", "n"), "kind")
        assert found.x.tolist() == [[1, 2.5, 1], [-300, 4, 2]]
        assert found.y is not None
        assert found.y.tolist() == ["red", "green"]
    chosen = datasets.read(file, "missing", ["n", "a"])
    assert (chosen.x.tolist(), chosen.y, chosen.target) == ([[1, 1], [2, -300]], None, "missing")


@pytest.mark.parametrize(("texts", "kind"), [(["1", "2"], "i"), (["1", "2.0"], "f"), (["1", "x"], "U"), (["1", str(10**30)], "f")])
def test_types_of_a_csv_target(texts, kind):
    assert datasets._typed(texts).dtype.kind == kind


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", None, r":1: data must begin with the names of the columns, not be empty"),
        ("1,2\n3,4\n", None, r":1: data must begin with the names of the columns, not with numbers"),
        ("a,b\n", None, r": data must be 1 row or more under the names, not 0"),
        ("a\n1\n", None, r":1: columns must be 2 or more, separated by commas: features and a target, not 1"),
        ("a,a\n1,2\n", None, r":1: column name must be given once, not again: 'a'"),
        ("a,\n1,2\n", None, r":1: column name must be a text, not empty"),
        ("a,b\n1,2,3\n", None, r":2: row must be of 2 values, not 3"),
        ("a,b\n1,2\n1\n", None, r":3: row must be of 2 values, not 1"),
        ("a,b\nnan,2\n", None, r":2: a must be a finite number, not 'nan'"),
        ("a,b\n,2\n", None, r":2: a must be a finite number, not ''"),
        ("a,b\n1_0,2\n", None, r":2: a must be a finite number, not '1_0'"),
        ("a,b\n1,\n", None, r":2: b must be given, not empty"),
        ("a,b\n1,inf\n", None, r": b must be numbers of at most 1e\+100, not inf"),
        ("a,b\n1,2\n", "c", r":1: target must be a column or its position from 0, one of 'a', 'b', not 'c'"),
        ("a,b\n1,2\n", "2", r":1: target must be a column or its position from 0, one of 'a', 'b', not '2'"),
        ('a,b\n1,"2\n', None, r":2: data must be CSV, not text with this fault: .*"),
    ],
)
def test_csv_rejects(tmp_path, text, target, message):
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(RangeError, match=f"^{re.escape(str(file))}{message}$"):
        datasets.read(file, target)


def test_data_that_cannot_be_read(tmp_path, monkeypatch):
    sets = "iris, wine, breast-cancer, digits, diabetes"
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"a,b\n1,\xe4\n")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    for source, target, features, message in (
        (tmp_path / "no.csv", None, None, rf"data must be one of {sets}, an \.npz or a CSV file, not '.*no\.csv'"),
        (tmp_path, None, None, r".*: data must be a readable file, not what gives 'Is a directory'"),
        (latin, None, None, r".*: data must be UTF-8 text, not bytes that break it at offset 6"),
        ("iris", "species", None, r"target must be given with a CSV file only, not with 'iris'"),
        (tmp_path / "t.csv", "y", ["a", "z"], r".*:1: columns must include 'z', not only 'a', 'b'"),
    ):
        with pytest.raises(RangeError, match=f"^{message}$"):
            datasets.read(source, target, features)
    monkeypatch.setattr(datasets, "LIMIT", 3)
    with pytest.raises(RangeError, match=r": data must be at most 3 bytes, not more$"):
        datasets.read(tmp_path / "t.csv")


def test_npz(tmp_path):
    file = tmp_path / "t.npz"
    np.savez(file, x=X.astype(np.float32), y=RINGS)
    found = datasets.read(file)
    assert found.features == ("x0", "x1")
    np.testing.assert_array_equal(found.y, RINGS)
    np.savez(file, x=X)
    assert datasets.read(file).y is None
    for arrays, message in (
        ({"y": X}, "x must be given, not missing"),
        ({"x": WAVE}, r"x must be of shape \(samples, features\), not \(60,\)"),
        ({"x": X * np.nan}, r"x must be numbers of at most 1e\+100, not nan"),
        ({"x": np.array([["a"]])}, "x must be numbers, not <U1"),
        ({"x": X, "y": np.zeros(60, "i4, f4")}, r"y must be numbers or texts, not \[\('f0', '<i4'\), \('f1', '<f4'\)\]"),
        ({"x": np.array([[None]])}, "data must be an .npz file of numbers, not one with this fault: Object arrays .*"),
    ):
        np.savez(file, **arrays)
        with pytest.raises(RangeError, match=f"^{re.escape(str(file))}: {message}$"):
            datasets.read(file)
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(RangeError, match=r": data must be an .npz file of numbers, not one with this fault: "):
        datasets.read(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", "no array")
    with pytest.raises(RangeError, match=r": x must be numbers or texts, not another kind of file$"):
        datasets.read(file)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    file = tmp_path / "t.npz"
    np.savez_compressed(file, x=np.zeros((1000, 10)))
    monkeypatch.setattr(datasets, "LIMIT", 10_000)
    assert file.stat().st_size < 10_000
    with pytest.raises(RangeError, match=r": data must be at most 10000 bytes, not 80128$"):
        datasets.read(file)


# The command


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main(["rbf", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "wave.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "a", "b", "wave"])
        writer.writerows(zip(range(60), *X.T, WAVE, strict=True))
    return file


@pytest.fixture
def saved(tmp_path, wave):
    file = tmp_path / "wave.json"
    wave.save(file)
    return file


def test_fit_command(capsys, tmp_path, table):
    out = tmp_path / "deep" / "m.json"
    code, shown, err = run(capsys, "fit", table, "--neurons", 5, "--out", out, "--target", "wave", "--method", "ols", "--error", 0.002)
    assert code == 0, err
    assert "wave-5: 3 features, 5 neurons (4 in hardware), regression, linear output" in shown
    assert re.search(r"^held out +15 ", shown, re.MULTILINE)
    model = rbf.RbfModel.load(out)
    assert (model.features, model.target, model.training["method"]) == (("id", "a", "b"), "wave", "ols")


def test_simulate_command(capsys, tmp_path, table, saved, wave):
    """Columns are found by name, the target is scored where it is there, and files hold every sample."""
    code, shown, err = run(capsys, "simulate", saved, table, "--out", tmp_path / "y.npz", "--json", "-", "--clock", 100)
    assert code == 0, err
    told = json.loads(shown)
    assert (told["samples"], told["measure"], told["agreement"]) == (60, "R^2", None)
    assert told["fixed"] == pytest.approx(wave.training["scores"]["training"]["fixed"])
    assert told["seconds"] == told["cycles"] / 1e8
    with np.load(tmp_path / "y.npz") as arrays:
        np.testing.assert_array_equal(arrays["predictions"], wave.simulate(X).predictions)
        np.testing.assert_array_equal(arrays["integers"] * 2.0**-wave.config.sum_frac, arrays["values"])
    assert run(capsys, "simulate", saved, table, "--out", tmp_path / "y.csv", "--json", tmp_path / "r.json")[0] == 0
    assert json.loads((tmp_path / "r.json").read_text()) == told | {"clock_mhz": None, "seconds": None}
    rows = list(csv.DictReader((tmp_path / "y.csv").read_text().splitlines()))
    assert [float(row["predictions"]) for row in rows] == wave.simulate(X).predictions.tolist()


def test_names_need_not_be_text(capsys, tmp_path, table, saved, wave):
    """A name of half a character or of two lines breaks neither the table nor the rows for the memory."""
    saved.write_text(broken(wave, config__name="\ud800\n"))
    code, shown, err = run(capsys, "simulate", saved, table, "--out", tmp_path / "y.csv")
    assert code == 0, err
    assert r"\ud800" in shown
    lines = memory_file(rbf.RbfModel.load(saved)).splitlines()
    assert all(re.fullmatch(r"//.*|[0-9a-f]+", line) for line in lines)


def test_simulate_without_a_target(capsys, tmp_path, saved):
    np.savez(tmp_path / "x.npz", x=X[:3])
    code, shown, _ = run(capsys, "simulate", saved, tmp_path / "x.npz")
    assert code == 0
    assert re.search(r"^fixed +-$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "{model}", "iris"], r"iris: features must be 2, as in .*wave\.json, not 4"),
        (["simulate", "{model}", "{data}", "--clock", "-1"], r"clock_mhz must be a number in \[0\.001, 100000\], not -1\.0"),
        (["simulate", "{model}", "{data}", "--out", "{data}"], r"out must be another file than the command's others, not '.*wave\.csv'"),
        (
            ["simulate", "{model}", "{data}", "--json", "{model}"],
            r"json must be another file than the command's others, not '.*wave\.json'",
        ),
        (["simulate", "{model}", "{data}", "--out", "y.csv", "--json", "y.csv"], r"json must be another file than .*, not 'y\.csv'"),
        (["verilog", "{model}", "-o", "{model}"], r"-o must be another file than the command's others, not '.*wave\.json'"),
        (["fit", "{data}", "--neurons", "3", "--out", "{data}"], r"out must be another file than the command's others, not '.*wave\.csv'"),
        (["fit", "{data}", "--neurons", "3", "--out", "."], r"out must be a file, not '\.'"),
        (["fit", "{data}", "--neurons", "3", "--out", "-"], r"out must be a file, not '-'"),
        (["simulate", "{model}", "{data}", "--out", "y.txt"], r"out must be a file called \.npz or \.csv, not 'y\.txt'"),
        (["simulate", "no.json", "iris"], r"no\.json: model must be a readable file, not what gives 'No such file or directory'"),
        (["cosim", "{model}", "{data}", "--samples", "0"], r"samples must be 1 or more, not 0"),
        (["cosim", "{model}", "{data}", "--simulator", "vcs"], r"simulator must be one of icarus, verilator, not 'vcs'"),
        (["verilog", "{model}", "-o", "-"], r"-o must be a file that is not called \.mem, not '-'"),
        (["fit", "{npz}", "--neurons", "3", "--out", "m.json"], r".*x\.npz: y must be given, not missing"),
        (["fit", "{data}", "--neurons", "49", "--out", "m.json"], r"neurons must be at most 36, .*"),
    ],
)
def test_commands_reject(capsys, tmp_path, monkeypatch, table, saved, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "x.npz", x=X)
    code, out, err = run(capsys, *(word.format(model=saved, data=table, npz=tmp_path / "x.npz") for word in arguments))
    assert (code, out) == (2, "")
    assert re.search(rf"^accel: error: {message}$", err, re.MULTILINE)
    assert "Traceback" not in err


def test_verilog_command(capsys, tmp_path, saved, wave):
    """The rows beside the Verilog are the parameters, bit by bit."""
    code, _, err = run(capsys, "verilog", saved, "-o", tmp_path / "wave.v")
    assert code == 0, err
    assert "module rbf_network" in (tmp_path / "wave.v").read_text()
    lines = (tmp_path / "wave.mem").read_text().splitlines()
    fields = unpack(shapes.neuron_row(wave.config), [int(line, 16) for line in lines if not line.startswith("//")])
    centres, widths, weights, biases = wave.integers
    assert fields["address"].tolist() == list(range(9))
    np.testing.assert_array_equal(fields["centre"][:-1], centres)
    np.testing.assert_array_equal(fields["width"][:-1], widths)
    np.testing.assert_array_equal(fields["weight"], [*weights.T, biases])


def test_cosim_command(capsys, tmp_path, table, saved):
    code, shown, err = run(capsys, "cosim", saved, table, "--samples", 5, "--simulator", "icarus", "--out", tmp_path)
    assert code == 0, err
    assert re.search(r"^rbf +icarus +5 +\d+ +0 ", shown, re.MULTILINE)


def test_models_are_frozen(wave):
    with pytest.raises(dataclasses.FrozenInstanceError):
        wave.config = None
