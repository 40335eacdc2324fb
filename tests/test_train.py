"""Training over epochs: data, the loop against its steps and against floats, interrupted runs, the exported network."""

from __future__ import annotations

import builtins
import dataclasses
import fcntl
import io
import json
import random
import re
import subprocess
import sys
import time
import zipfile
from typing import Any

import numpy as np
import onnx
import pytest

import accel
from accel import presets
from accel.errors import AccelError, NetworkError, RangeError, ToolError
from accel.graph.trainable import Convolution, Gelu, MaxPool, Relu, Trainable
from accel.graph.window import Window
from accel.sparsity import Pattern, prune
from accel.training import checkpoint, course, export, reference, step
from accel.training.data import Data, digits, order, read
from accel.training.recipe import Recipe
from accel.verification.compare import run_onnxruntime
from tests.qdq import Model
from tests.trainables import network

CLASSES = 5
QUICK: dict[str, Any] = {"pattern": "2:4", "epochs": 3, "batch": 8, "rate": 0.02}


def samples(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return noisy copies of one image per class, channels first."""
    rng = np.random.default_rng(seed)
    images = np.random.default_rng(9).standard_normal((CLASSES, 3, 8, 9))
    y = rng.integers(0, CLASSES, count)
    return {"x": (images[y] + 0.5 * rng.standard_normal((count, 3, 8, 9))).astype(np.float32), "y": y}


DATA = samples(80)


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run without an interruption; return the result and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return accel.train(network(), DATA, **QUICK, out=folder), folder


class TestData:
    def test_digits_are_those_of_the_shipped_network(self):
        """The test images are the ones that digits-cnn has never seen."""
        found, shipped = digits(), np.load(presets.__path__[0] + "/../networks/digits-cnn.npz")
        np.testing.assert_array_equal(found["x_test"], shipped["images"][:, 0])
        np.testing.assert_array_equal(found["y_test"], shipped["labels"])
        assert [len(found[part]) for part in ("x", "x_test")] == [1438, 359]
        assert found["x"].max() == 1

    @pytest.mark.golden
    def test_samples_are_stored_channels_last(self):
        """ONNX's order, the stored order, and one channel without its axis; a fifth is held out, by the seed."""
        first = read(DATA, network(), 3)
        last = read({"x": DATA["x"].transpose(0, 2, 3, 1), "y": DATA["y"]}, network(), 3)
        for part, other in zip(first[1:], last[1:], strict=True):
            np.testing.assert_array_equal(part, other)
        assert first.digest == last.digest != read(DATA, network(), 4).digest
        rows = order(80, 3, 2)
        np.testing.assert_array_equal(first.x_test, DATA["x"].transpose(0, 2, 3, 1)[np.sort(rows[:16])])
        np.testing.assert_array_equal(first.y, DATA["y"][np.sort(rows[16:])])
        assert [values.dtype for values in first[1:]] == [np.float32, np.int64, np.float32, np.int64]
        gray = dataclasses.replace(network(), shapes={**network().shapes, "x": (4, 3, 1)})
        flat = np.arange(60.0).reshape(5, 4, 3)
        np.testing.assert_array_equal(read({"x": flat, "y": [0] * 5, "x_test": flat, "y_test": [1] * 5}, gray).x[..., 0], flat)

    @pytest.mark.golden
    def test_integers_are_scaled(self):
        """By the largest magnitude of the training samples, test samples alike; floats stay, zeros too."""
        x = np.zeros((5, 3, 8, 9), np.int16)
        given: dict[str, Any] = {"x": x, "y": np.zeros(5, np.uint8), "x_test": x[:1] + 8, "y_test": [4]}
        assert read(given, network()).x_test.max() == 8
        x[0, 0, 0, 0] = -16
        found = read(given, network())
        assert (found.x.min(), found.x_test.max()) == (-1, 0.5)
        floats = {part: given[part].astype(np.float64) for part in ("x", "x_test")}
        assert read({**given, **floats}, network()).x.min() == -16

    @pytest.mark.golden
    def test_hostile_files(self, tmp_path):
        path = tmp_path / "data.npz"

        def refused(told: str, **arrays: Any) -> None:
            np.savez(path, allow_pickle=True, **arrays)
            with pytest.raises(RangeError, match=f"^{re.escape(told.replace('DATA', str(path)))}$"):
                read(path, network())

        x, y = DATA["x"], DATA["y"]
        refused("DATA: y must be given, not missing", x=x)
        refused("DATA: x must be given, not missing", y=y)
        refused("DATA: y_test must be given with x_test, not missing", x=x, y=y, x_test=x)
        refused("DATA: x_test must be given with y_test, not missing", x=x, y=y, y_test=y)
        refused("DATA: x must be of shape (samples, 3, 8, 9) for oracle, not (80, 3, 9, 8)", x=x.swapaxes(2, 3), y=y)
        refused("DATA: x_test must be of shape (samples, 3, 8, 9) for oracle, not (80,)", x=x, y=y, x_test=y, y_test=y)
        refused("DATA: y must be of shape (80,), one label per sample, not (79,)", x=x, y=y[1:])
        refused("DATA: y must be of 0 to 4, the classes of oracle, not 1..5", x=x, y=y % 5 + 1)
        refused("DATA: y_test must be of 0 to 4, the classes of oracle, not -1..3", x=x, y=y, x_test=x, y_test=y - 1)
        refused("DATA: y must be integers, not float64", x=x, y=y + 0.5)
        refused("DATA: x must be integers or floats, not complex64", x=x * 1j, y=y)
        refused(
            "DATA: x_test must be of the kind of x (integers), not floats",
            x=y[:, None].repeat(216, 1).reshape(x.shape),
            y=y,
            x_test=x,
            y_test=y,
        )
        refused("DATA: x_test must be of the kind of x (floats), not integers", x=x, y=y, x_test=x > 0, y_test=y)
        refused("DATA: x must be finite, not infinite or NaN", x=np.where(x > 2, np.nan, x), y=y)
        refused("DATA: x must be of numbers that float32 holds, not beyond 3.40282e+38", x=x * np.float64(1e300), y=y)
        refused("DATA: x must be of one sample or more, not of shape (0, 3, 8, 9)", x=x[:0], y=y[:0])
        refused("DATA: x must be of 5 samples or more, as a fifth is held out, not 4", x=x[:4], y=y[:4])
        kind = "(Object arrays cannot be loaded when allow_pickle=False)"
        refused(f"data must be an .npz file of numbers, not 'DATA' {kind}", x=np.array([print], object), y=y)

    @pytest.mark.golden
    def test_files_that_are_none(self, tmp_path, monkeypatch):
        path = tmp_path / "data.npz"
        for content, told in ((b"PK\x03\x04 cut off", "File is not a zip file"), (b"text", "This file contains pickled (object) data")):
            path.write_bytes(content)
            message = f"data must be an .npz file of numbers, not '{path}' ({told})"
            with pytest.raises(RangeError, match=f"^{re.escape(message)}"):
                read(path, network())
        np.save(tmp_path / "one.npy", DATA["x"])
        with pytest.raises(RangeError, match=r"\(a single array, without names\)$"):
            read(tmp_path / "one.npy", network())
        with pytest.raises(RangeError, match=r"^data must be digits or a readable .npz file, not '.*' \(No such file or directory\)$"):
            read(tmp_path / "none.npz", network())
        with pytest.raises(RangeError, match=r"^data must be digits or a readable .npz file, not '/dev/zero' \(a device or a pipe\)$"):
            read("/dev/zero", network())
        with pytest.raises(RangeError, match=r"^data must be digits, an .npz file or arrays by name, not 5$"):
            read(5, network())
        with pytest.raises(RangeError, match=r"^data: x must be an array of numbers, not nested lists of several lengths$"):
            read({"x": [[1], [1, 2]], "y": [0, 1]}, network())
        np.savez(path, x=DATA["x"], y=DATA["y"])
        monkeypatch.setattr("accel.training.data.LIMIT", 1000)
        with pytest.raises(RangeError, match=r"\(\d+ bytes, more than 1000\)$"):
            read(path, network())

    def test_digits_need_scikit_learn(self, monkeypatch):
        real = builtins.__import__

        def missing(name, *rest):
            if name.startswith("sklearn"):
                raise ImportError
            return real(name, *rest)

        monkeypatch.setattr(builtins, "__import__", missing)
        with pytest.raises(ToolError, match=r"^scikit-learn is not installed: install accel with the extra `rbf`$"):
            digits()


class TestLoop:
    def test_run_is_its_steps(self, whole):
        """Order, rates and calibration are as stated: the same steps by hand give the same bits."""
        result, _ = whole
        net, config = reference.draw(network(), 0), presets.load("sat-vcu1525")
        recipe = Recipe(pattern=Pattern(2, 4), batch=8, rate=0.02)
        data = read(DATA, net, 0)
        rows = [order(64, 0, 1, epoch)[: 64 // 8 * 8].reshape(-1, 8) for epoch in range(3)]
        state = step.prepare(net, config, recipe, data.x[rows[0][0]], data.y[rows[0][0]])
        x, x_test = (step.quantise(net, state, each) for each in (data.x, data.x_test))
        for epoch in range(3):
            outcomes = [
                step.step(
                    net, config, recipe, state, x[rows[epoch][i]], data.y[rows[epoch][i]], 0.01 * (1 + np.cos(np.pi * (8 * epoch + i) / 24))
                )
                for i in range(8)
            ]
            told = result.curves[epoch]
            assert told.loss == sum(outcome.loss for outcome in outcomes) / 8
            assert told.accuracy == sum(outcome.correct for outcome in outcomes) / 64
            assert sum(told.saturated.values()) == sum(sum(outcome.saturated.values()) for outcome in outcomes)
            logits = step.infer(net, config, recipe, state, x_test)
            assert told.held_out == np.mean(logits.argmax(axis=1) == data.y_test)
        for name, parameter in state.parameters.items():
            np.testing.assert_array_equal(parameter.master, result.state.parameters[name].master)
            np.testing.assert_array_equal(parameter.velocity, result.state.parameters[name].velocity)
        np.testing.assert_array_equal(result.logits(data.x_test), logits * 2.0 ** -state.formats["logits"].frac)

    @pytest.mark.parametrize("algorithm", ["bdwp", "sr-ste", "sdgp", "dense"])
    def test_fixed_point_follows_floats(self, algorithm):
        """The same run in floating point has about the same curve: 16 bits are many for this network."""
        result = accel.train(network(), DATA, algorithm=algorithm, **{**QUICK, "epochs": 6})
        real = reference.fit(result.network, result.recipe, result.data, epochs=6)
        assert result.accuracy > 0.8
        for ours, theirs in zip(result.curves, real.curves, strict=True):
            assert ours.loss == pytest.approx(theirs.loss, rel=0.15, abs=0.01)  # runs part where weights of about equal size change places

    def test_result(self, whole):
        result, folder = whole
        assert result.accuracy == result.curves[-1].held_out
        assert repr(result) == f"<TrainingResult 'oracle': 3 epochs, {result.accuracy:.2%} of data held out>"
        told = json.loads((folder / "training.json").read_text())
        assert told["curves"] == [dataclasses.asdict(epoch) for epoch in result.curves]
        assert (told["samples"], told["held_out"], told["pattern"], told["dense"]) == (64, 16, "2:4", None)
        assert told["saturated"] == result.saturated
        lines = (folder / "history.csv").read_text().splitlines()
        assert lines[0] == "epoch,loss,accuracy,held_out,saturated,overflowed"
        assert [float(line.split(",")[1]) for line in lines[1:]] == [epoch.loss for epoch in result.curves]
        assert sorted(files(folder)) == [
            "epoch-0002.json", "epoch-0002.npz", "epoch-0003.json", "epoch-0003.npz", "history.csv", "model.onnx", "quantised.onnx",
            "training.json",
        ]  # fmt: skip

    def test_networks(self, tmp_path):
        """By name, as a file, as what accel.load gives, with the file's own weights."""
        net = reference.draw(network(), 5)
        path = tmp_path / "net.onnx"
        path.write_bytes(export.write(net, reference.parameters(net), reference.statistics(net)))
        once = {**QUICK, "epochs": 1}
        drawn = accel.train(path, DATA, **once, seed=5)
        kept = accel.train(path, DATA, **once, seed=5, weights="file")
        loaded = accel.train(accel.load(path, calibration=DATA["x"]), DATA, **once, seed=5)
        assert loaded.curves == drawn.curves
        for layer, own in zip(kept.network.convolutions, net.convolutions, strict=True):
            np.testing.assert_array_equal(layer.weights, own.weights)
        assert kept.curves != accel.train(path, DATA, **once, seed=6).curves
        named = accel.train("digits-cnn", "digits", epochs=1, rate=0.02, batch=256, algorithm="sdgp")
        assert named.data.name == "digits"
        assert named.curves[0].accuracy > 0.15

    def test_refused(self, tmp_path):
        def refused(kind: type[AccelError], told: str, **changes: Any) -> None:
            options: dict[str, Any] = {"network": network(), "data": DATA, **QUICK, **changes}
            with pytest.raises(kind, match=f"^{re.escape(told)}$"):
                accel.train(**options)

        refused(RangeError, "weights must be one of drawn, file, not 'zero'", weights="zero")
        refused(NetworkError, "stem.weight must be known, not left to its shape: draw weights for oracle", weights="file")
        refused(RangeError, "batch must be at most the 64 training samples, not 65", batch=65)
        refused(RangeError, "epochs must be an int in [1, 1048575], not 0", epochs=0)
        refused(RangeError, "rate must be a number in [9.53674e-07, 16], not nan", rate=float("nan"))
        for pattern in ("2/8", "8:2", "2:99"):
            refused(RangeError, f"pattern must be N:M, 1 <= N <= M <= 32, such as 2:8, not {pattern!r}", pattern=pattern)
        refused(NetworkError, "dense must be of layers with weights, stem, strided, wide, linear, not 'conv'", dense=["conv"])
        refused(RangeError, "out must be left out with resume, or be the same folder, not 'a'", out="a", resume="b")
        refused(RangeError, "resume must be a folder with a checkpoint, not 'none'", resume="none")
        refused(RangeError, "out must be the path of a folder, not 5", out=5)
        refused(RangeError, "resume must be the path of a folder, not 5", resume=5)
        refused(RangeError, "shapes must be sizes by the name of an input, not [1]", shapes=[1])
        refused(RangeError, "dense must be a list of layers, not 'stem'", dense="stem")
        refused(RangeError, "progress must be callable, not 5", progress=5)
        refused(RangeError, "report must be callable, not 5", report=5)
        refused(RangeError, "output must be a folder that can be written, not '\\x00' (embedded null byte)", out="\0")
        (tmp_path / "file").touch()
        told = f"output must be a folder that can be written, not '{tmp_path / 'file'}' (File exists)"
        refused(RangeError, told, out=tmp_path / "file")
        gelu = (Gelu(name="g", inputs=("x",), output="y"),)
        counted = Trainable(name="t", shapes={"x": (8, 9, 3), "y": (8, 9, 3)}, layers=gelu, input="x", output="y")
        kinds = "Convolution, BatchNorm, Relu, Add, MaxPool, AveragePool"
        refused(NetworkError, f"g must be one of {kinds} to be trained, not Gelu: its cycles can be counted", network=counted)
        topology = tmp_path / "t.csv"
        topology.write_text("Layer, M, N, K,\na, 4, 4, 4,\n")
        shapes_only = accel.load(topology)
        refused(NetworkError, "network must be known as floats to be trained, not by t, which is not", network=shapes_only)
        pool = MaxPool(name="p", inputs=("x",), output="y", window=Window(kernel=(8, 9)))
        bare = Trainable(name="t", shapes={"x": (8, 9, 3), "y": (3,)}, layers=(pool,), input="x", output="y")
        refused(NetworkError, "network must have a layer with weights to train, not none", network=bare, data={**DATA, "y": DATA["y"] % 3})
        with pytest.raises(NetworkError, match=r"^network must have a layer with weights to train, not none$"):
            step.prepare(bare, presets.load("sat-vcu1525"), Recipe(), DATA["x"], DATA["y"] % 3)
        headless = dataclasses.replace(network(), layers=network().layers[:-1], output="last")
        refused(NetworkError, "output of oracle must be a row of logits, one per class, not of shape (3, 4, 12)", network=headless)


def test_sequences(tmp_path):
    """A network of one-dimensional convolutions learns, but is refused before the first step where it would have to be written."""
    model = Model()
    y = model.node("Conv", model.input("n", 2, 5), model.constant(np.ones((4, 2, 3), np.float32)), pads=[1, 1])
    model.output(model.node("Gemm", model.node("Flatten", y), model.constant(np.ones((20, 2), np.float32))))
    onnx.save(model.proto, tmp_path / "net.onnx")
    labels = np.arange(40) % 2
    x = np.random.default_rng(0).standard_normal((40, 2, 5)) + (2 * labels - 1)[:, None, None] * np.array([[2], [-2]])
    options: dict[str, Any] = {"epochs": 3, "batch": 8, "algorithm": "dense"}
    assert accel.train(tmp_path / "net.onnx", {"x": x, "y": labels}, **options).accuracy > 0.8
    with pytest.raises(NetworkError, match=r"^x must be an image, rows or a vector to be exported, not channels of a sequence$"):
        accel.train(tmp_path / "net.onnx", {"x": x, "y": labels}, **options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Interrupted(Exception):
    """What stops a run here."""


def stop(epoch: int):
    """Return a report that stops the run after so many epochs."""

    def report(done: course.Epoch) -> None:
        if done.epoch == epoch:
            raise Interrupted

    return report


class TestResume:
    @pytest.mark.parametrize("epoch", [1, 2, 3])
    def test_same_bytes(self, whole, tmp_path, epoch):
        """A run that goes on ends like one that was never stopped, and needs no settings but the network and the data."""
        with pytest.raises(Interrupted):
            accel.train(network(), DATA, **QUICK, out=tmp_path, report=stop(epoch))
        assert not (tmp_path / "training.json").exists()
        accel.train(network(), DATA, resume=tmp_path)
        assert files(tmp_path) == files(whole[1])

    def test_within_an_epoch(self, whole, tmp_path):
        """What was done of the running epoch is done again; before the first one the run begins anew."""

        def progress(done: int, total: int, label: str) -> None:
            assert (total, label) == (24, f"epoch {done // 8 + 1}")
            if done == 5:
                raise Interrupted

        with pytest.raises(Interrupted):
            accel.train(network(), DATA, **QUICK, out=tmp_path, progress=progress)
        assert sorted(files(tmp_path)) == ["epoch-0000.json", "epoch-0000.npz"]
        accel.train(network(), DATA, **QUICK, resume=tmp_path, out=tmp_path)
        assert files(tmp_path) == files(whole[1])

    def test_stochastic(self, tmp_path):
        """The words that round are in the checkpoint, too."""
        options = {**QUICK, "rounding": "stochastic", "epochs": 2, "refresh": 3, "algorithm": "sr-ste"}
        accel.train(network(), DATA, **options, out=tmp_path / "a")
        with pytest.raises(Interrupted):
            accel.train(network(), DATA, **options, out=tmp_path / "b", report=stop(1))
        accel.train(network(), DATA, resume=tmp_path / "b")
        assert files(tmp_path / "a") == files(tmp_path / "b")

    def test_damaged(self, whole, tmp_path):
        """The checkpoint before a damaged one is used, with a warning."""
        with pytest.raises(Interrupted):
            accel.train(network(), DATA, **QUICK, out=tmp_path, report=stop(2))
        path = tmp_path / "epoch-0002.npz"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.warns(
            UserWarning, match="epoch-0002 is damaged: its .npz file is cut off or has been changed; the one before it is used"
        ):
            accel.train(network(), DATA, resume=tmp_path)
        assert files(tmp_path) == files(whole[1])

    def test_other_settings(self, whole, tmp_path):
        """Every setting is compared; the message names it."""
        folder = whole[1]
        where = f"of a run that goes on from '{folder}' must be"

        def refused(told: str, net: Any = None, data: Any = DATA, **changes: Any) -> None:
            with pytest.raises(RangeError, match=f"^{re.escape(told)}$"):
                accel.train(net or network(), data, **changes, resume=folder)

        for name, other, begun in (
            ("algorithm", "dense", "'bdwp', not 'dense'"), ("pattern", "2:8", "'2:4', not '2:8'"), ("epochs", 4, "3, not 4"),
            ("batch", 16, "8, not 16"), ("rate", 0.5, "0.02, not 0.5"), ("schedule", "constant", "'cosine', not 'constant'"),
            ("momentum", 0.5, "0.9, not 0.5"), ("decay", 0.5, "0.0005, not 0.5"), ("sparse_decay", 0.5, "None, not 0.5"),
            ("refresh", 2, "1, not 2"), ("rounding", "stochastic", "'half_even', not 'stochastic'"),
            ("dense", ["stem"], "None, not ['stem']"), ("seed", 7, "0, not 7"),
        ):  # fmt: skip
            refused(f"{name} {where} {begun}", **{name: other})
        refused(f"config name {where} 'sat-vcu1525', not 'tiny'", config="tiny")
        refused(f"weights {where} 'drawn', not 'file'", net=reference.draw(network(), 3), weights="file")
        moved = {**DATA, "x": DATA["x"] + 1}
        refused(f"data {where} the same as 'data' that it was begun with, not another, 'data'", data=moved)
        headed = dataclasses.replace(network(), name="headed")
        relu = dataclasses.replace(network().layers[2], name="other")
        changed = dataclasses.replace(headed, layers=(*network().layers[:2], relu, *network().layers[3:]))
        refused(f"network {where} the same as 'oracle' that it was begun with, not another, 'headed'", net=changed)
        told = f"out must be a folder without checkpoints, not '{folder}': go on with resume, or name another"
        with pytest.raises(RangeError, match=f"^{re.escape(told)}$"):
            accel.train(network(), DATA, **QUICK, out=folder)

    def test_one_run_in_a_folder(self, whole, tmp_path):
        """A second one is refused while the first runs, also before its first checkpoint; what a killed one leaves keeps nobody out."""
        told = f"^output must be a folder that no other run writes to, not '{re.escape(str(tmp_path))}'$"
        refused = []

        def report(done: course.Epoch) -> None:
            with pytest.raises(RangeError, match=told):
                accel.train(network(), DATA, resume=tmp_path)
            refused.append(done.epoch)

        (tmp_path / ".lock").write_bytes(b"")
        with checkpoint.hold(tmp_path), pytest.raises(RangeError, match=told):
            accel.train(network(), DATA, **QUICK, out=tmp_path)
        (tmp_path / ".lock").write_bytes(b"")
        accel.train(network(), DATA, **QUICK, out=tmp_path, report=report)
        assert refused == [1, 2, 3]
        assert files(tmp_path) == files(whole[1])

    def test_a_lock_that_is_removed_is_none(self, tmp_path, monkeypatch):
        """Who has opened the lock file of a run that then ends takes a new one."""
        real, calls = fcntl.flock, []

        def flock(*arguments: Any) -> None:
            real(*arguments)
            calls.append(arguments)
            if len(calls) == 1:
                (tmp_path / ".lock").unlink()
            elif len(calls) == 2:
                (tmp_path / "other").touch()
                (tmp_path / "other").replace(tmp_path / ".lock")

        monkeypatch.setattr(fcntl, "flock", flock)
        with checkpoint.hold(tmp_path):
            assert len(calls) == 3
            with pytest.raises(RangeError, match=r"^output must be a folder that no other run writes to"), checkpoint.hold(tmp_path):
                pytest.fail("two runs hold one folder")
        assert files(tmp_path) == {}

    def test_foreign_state(self, tmp_path):
        """A state whose arrays do not fit the network is refused: kernels would read beyond them."""
        with pytest.raises(Interrupted):
            accel.train(network(), DATA, **QUICK, out=tmp_path, report=stop(1))
        found, _ = checkpoint.load(tmp_path, checkpoint.settings(tmp_path))
        found.state.parameters["wide.weight"].working = found.state.parameters["wide.weight"].working[:, :1]
        checkpoint.save(tmp_path, found)
        with pytest.raises(RangeError, match=f"^resume must be a folder with a state of oracle, not '{re.escape(str(tmp_path))}'$"):
            accel.train(network(), DATA, resume=tmp_path)

    def test_kill(self, tmp_path):
        """SIGKILL at random moments: the last checkpoint is whole, and the run that goes on ends with the same bytes."""
        net = network()
        (tmp_path / "net.onnx").write_bytes(
            export.write(reference.draw(net, 0), reference.parameters(reference.draw(net, 0)), reference.statistics(net))
        )
        np.savez(tmp_path / "data.npz", x=DATA["x"], y=DATA["y"])
        options = ["--epochs", "8", "--batch", "8", "--pattern", "2:4"]
        command = [sys.executable, "-m", "accel", "train", "net.onnx", "--data", "data.npz"]
        killed = subprocess.Popen([*command, *options, "--out", "run"], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        rng = random.Random()
        for attempt in range(2):
            last = tmp_path / "run" / f"epoch-{attempt + 1:04d}.json"
            while not last.exists() and killed.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.3))
            killed.kill()  # nothing to do where the run has ended by itself
            killed.wait()
            done = tmp_path / "run" / "training.json"
            early = done.read_bytes() if done.exists() else None  # written last: a kill behind it comes too late
            killed = subprocess.Popen([*command, "--resume", "run"], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        assert killed.wait() == 0
        accel.train(tmp_path / "net.onnx", tmp_path / "data.npz", pattern="2:4", epochs=8, batch=8, out=tmp_path / "whole")
        assert files(tmp_path / "run") == files(tmp_path / "whole")
        assert early is None or early == done.read_bytes()


class TestExport:
    def test_runs_elsewhere(self, whole):
        """The classes that the fixed-point network finds, and about its logits."""
        result, folder = whole
        model = onnx.load(folder / "model.onnx")
        onnx.checker.check_model(model, full_check=True)
        x = result.data.x_test
        theirs = run_onnxruntime(model, {"x": x.transpose(0, 3, 1, 2)})["logits"]
        ours = result.logits(x)
        assert np.mean(theirs.argmax(axis=1) == ours.argmax(axis=1)) > 0.95
        np.testing.assert_allclose(theirs, ours, atol=0.01 * np.abs(ours).max())
        assert model.doc_string == "trained by accel: bdwp 2:4, 24 steps"

    def test_weights_obey_the_pattern(self, whole):
        """In the file, and as `accel simulate` detects it; the first convolution and the last linear layer stay dense."""
        result, folder = whole
        for name, values in export.values(result.state).items():
            if name in ("strided.weight", "wide.weight"):
                np.testing.assert_array_equal(values, prune(values, Pattern(2, 4)))
        with pytest.warns(UserWarning, match="standard normal"):
            found = accel.simulate(accel.load(folder / "model.onnx"), "sat-vcu1525")
        patterns = {layer.name: layer.pattern for layer in found.layers if layer.pattern}
        assert (patterns["wide"], patterns["strided"]) == ("2:4", "2:4")
        assert patterns["stem"] == patterns["linear"] == "16:16"

    def test_is_the_float_network(self):
        """With given parameters and statistics, onnxruntime computes what the float reference does."""
        net = reference.draw(network(), 4)
        values, running = reference.parameters(net), reference.statistics(net, np.float32)
        rng = np.random.default_rng(1)
        values |= {
            name: values[name] + rng.standard_normal(values[name].shape).astype(np.float32) for name in values if "weight" not in name
        }
        running["norm"] += rng.uniform(0, 2, (2, 8)).astype(np.float32)
        model = onnx.load_from_string(export.write(net, values, running))
        x = rng.standard_normal((7, 8, 9, 3), np.float32)
        theirs = run_onnxruntime(model, {"x": x.transpose(0, 3, 1, 2)})["logits"]
        np.testing.assert_allclose(reference.infer(net, values, running, x), theirs, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_integers_give_the_logits_of_training(self, tmp_path, bits):
        """Without batch normalisation `accel simulate` of the quantised model gives every bit of the trained network's logits."""
        net = network()
        layers = tuple(
            dataclasses.replace(layer, inputs=tuple("stem" if x == "norm" else x for x in layer.inputs))
            for layer in net.layers
            if layer.name != "norm"
        )
        plain = dataclasses.replace(net, layers=layers, shapes={name: each for name, each in net.shapes.items() if name != "norm"})
        config = presets.load({8: "sat-vcu1525-int8", 16: "sat-vcu1525"}[bits])
        result = accel.train(plain, DATA, config, **{**QUICK, "epochs": 2})
        path = tmp_path / "quantised.onnx"
        path.write_bytes(result.to_onnx(quantised=True))
        x = result.data.x_test.transpose(0, 3, 1, 2)
        found = accel.simulate(accel.load(path), config, x)
        integers = step.infer(
            result.network, config, result.recipe, result.state, step.quantise(result.network, result.state, result.data.x_test)
        )
        np.testing.assert_array_equal(found.outputs["logits"], integers)
        assert {layer.name: layer.pattern for layer in found.layers}["wide"] == "2:4"
        # Optimised, onnxruntime 1.31 fuses the average at 8 bits into an operator that it then refuses.
        theirs = run_onnxruntime(onnx.load(path), {"x": x}, optimise=False)["logits"]
        assert np.mean(theirs.argmax(axis=1) == integers.argmax(axis=1)) > 0.9

    def test_integers_with_normalisation(self, whole):
        """With batch normalisation, a few least significant bits are off, as ONNX has no form for its arithmetic."""
        result, folder = whole
        found = accel.simulate(accel.load(folder / "quantised.onnx"), "sat-vcu1525", result.data.x_test.transpose(0, 3, 1, 2))
        logits = result.logits(result.data.x_test)
        unit = 2.0 ** -result.state.formats["logits"].frac
        assert np.abs(found.outputs["logits"] * unit - logits).max() < 100 * unit
        assert (found.outputs["logits"].argmax(axis=1) == logits.argmax(axis=1)).all()

    def test_integers_without_a_form(self, whole, tmp_path):
        """Other widths have no type in ONNX: then that file is left out."""
        result, _ = whole
        config = dataclasses.replace(result.config, act_bits=12, weight_bits=12)
        odd = accel.train(network(), DATA, config, **{**QUICK, "epochs": 1}, out=tmp_path)
        with pytest.raises(NetworkError, match=r"^act_bits must be one of 8, 16 to be exported as integers, not 12$"):
            odd.to_onnx(quantised=True)
        assert "quantised.onnx" not in files(tmp_path)
        assert "training.json" in files(tmp_path)
        wide = dataclasses.replace(result.state.formats["wide.weight"], frac=40)
        state = dataclasses.replace(result.state, formats={**result.state.formats, "wide.weight": wide})
        state.parameters["wide.bias"].working[:] = 1 << 14
        with pytest.raises(NetworkError, match=r"^wide.bias must fit in int32 to be exported as integers, not reach \d+$"):
            export.quantised(result.network, result.config, result.recipe, state)

    def test_without_a_form(self, whole):
        """What ONNX cannot say, or what has no form here yet, is refused."""
        result, _ = whole
        pool = MaxPool(name="p", inputs=("x",), output="y", window=Window(kernel=(2, 1)))
        deep = Relu(name="r", inputs=("x",), output="y")
        gelu = Gelu(name="g", inputs=("x",), output="y")
        for layer, shape, told in (
            (pool, (4, 3), "p must read an image to be exported, not rows of shape (4, 3)"),
            (deep, (2, 2, 4, 3), "x must be of three axes or fewer to be exported, not of shape (2, 2, 4, 3)"),
            (gelu, (4, 3), "g must be of a kind that is computed, not Gelu, which is counted only"),
        ):
            last = Convolution(name="l", inputs=("y",), output="z", window=Window(), channels=3, filters=2, linear=True)
            net = Trainable(name="t", shapes={"x": shape, "y": shape, "z": (2,)}, layers=(layer, last), input="x", output="z")
            with pytest.raises(NetworkError, match=f"^{re.escape(told)}$"):
                export.write(net, {}, {})
        state = dataclasses.replace(result.state, formats={name: dataclasses.replace(each) for name, each in result.state.formats.items()})
        state.formats["x"].frac = 120
        with pytest.raises(NetworkError, match=r"^fraction of x must be in \[-99, 99\] to be exported, not 120$"):
            export.quantised(result.network, result.config, result.recipe, state)

    def test_equal_runs_give_equal_bytes(self, whole):
        result, _ = whole
        assert result.to_onnx() == result.to_onnx()
        assert zipfile.is_zipfile(io.BytesIO(files(whole[1])["epoch-0003.npz"]))


def test_data_can_be_given_whole():
    """What was read goes in as it is, also where channels cannot be told from rows."""
    data = read(DATA, network(), 0)
    assert isinstance(data, Data)
    assert read(data, network(), 7).digest == data.digest
    cube = dataclasses.replace(network(), shapes={**network().shapes, "x": (3, 3, 3)})
    once = read({"x": np.arange(135.0).reshape(5, 3, 3, 3), "y": [0] * 5}, cube)
    assert once.x[0, 0, 0].tolist() != once.x[0, :, 0, 0].tolist()
    assert read(once, cube).digest == once.digest
    wrong = once._replace(x=once.x[:, :2])
    with pytest.raises(RangeError, match=r"^data: x must be of shape \(samples, 3, 3, 3\) for oracle, not \(4, 2, 3, 3\)$"):
        read(wrong, cube)
