"""`accel train`: what a person and a program see, and what its folder holds."""

from __future__ import annotations

import io
import json
import os
import re
import signal

import numpy as np
import onnx
import pytest
from matplotlib import image

from accel import cli
from accel.training import export, reference, step
from tests.test_train import DATA, files
from tests.trainables import network

QUICK = ["--pattern", "2:4", "--epochs", "2", "--batch", "8", "--rate", "0.02"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a network and samples; return their folder."""
    where = tmp_path_factory.mktemp("train")
    net = reference.draw(network(), 0)
    (where / "net.onnx").write_bytes(export.write(net, reference.parameters(net), reference.statistics(net)))
    np.savez(where / "data.npz", x=DATA["x"], y=DATA["y"])
    (where / "folder.png").mkdir()
    return where


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["train", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


BASE = ["net.onnx", "--data", "data.npz"]


def test_table_figure_and_files(capsys, here):
    """A line per epoch, a table at the end, a figure, and a folder with everything."""
    code, out, err = run(capsys, *BASE, *QUICK, "--out", "run", "--plot", "curves.png")
    assert code == 0
    lines = re.findall(
        r"^accel: epoch (\d): loss \d+\.\d{4}, training \d+\.\d\d%, held out \d+\.\d\d%, [\d,]+ saturated$", err, re.MULTILINE
    )
    assert lines == ["1", "2"]
    told = "accel: the trained network is in run/model.onnx (floats) and run/quantised.onnx (the integers of training)\n"
    assert err.endswith(told)
    assert out.splitlines()[0].split() == ["epoch", "loss", "training", "%", "held", "out", "%", "saturated", "overflowed"]
    for told in (
        "net on sat-vcu1525: bdwp 2:4, 2 epochs of 8 steps of 8",
        "pruned: strided, wide",
        "of 16 samples of data",
        "sums that left the accumulator: none",
    ):
        assert told in out
    assert {"model.onnx", "history.csv", "training.json"} < set(files(here / "run"))
    assert image.imread(io.BytesIO((here / "curves.png").read_bytes())).shape == (504, 1800, 4)


def test_json_is_the_file(capsys, here):
    """--json prints what training.json holds."""
    code, out, _ = run(capsys, *BASE, *QUICK, "--out", "told", "--json")
    assert code == 0
    assert out == (here / "told" / "training.json").read_text()
    assert json.loads(out)["algorithm"] == "bdwp"


def test_options_reach_the_run(capsys, here):
    """Each option is a setting of the run."""
    given = {
        "algorithm": "sr-ste", "pattern": "1:4", "epochs": 1, "batch": 16, "rate": 0.125, "schedule": "constant", "momentum": 0.5,
        "decay": 0.25, "sparse_decay": 0.125, "refresh": 2, "rounding": "stochastic", "seed": 9, "weights": "file",
    }  # fmt: skip
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    code, out, err = run(capsys, *BASE, *options, "--dense", "stem", "wide", "--set", "act_bits=12", "--set", "weight_bits=12", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert {name: told[name] for name in given} == given
    assert told["dense"] == ["stem", "wide"]
    assert told["config"]["act_bits"] == 12
    code, out, _ = run(capsys, *BASE, *QUICK[2:], "--algorithm", "dense", "--config", "sat-vcu1525-int8")
    assert "net on sat-vcu1525-int8: dense, 2 epochs" in out
    assert "pruned" not in out


def test_what_is_left_out(capsys, here):
    """Options without an effect, samples that fill no batch, nodes that training does without, a file that has no form: a line each."""
    model = onnx.load(here / "net.onnx")
    model.graph.node[-1].output[0] = "y"
    model.graph.node.append(onnx.helper.make_node("Dropout", ["y"], ["dropped"], "drop"))
    model.graph.node.append(onnx.helper.make_node("Softmax", ["dropped"], ["logits"], "prob"))
    onnx.save(model, here / "long.onnx")
    options = ["--epochs", "1", "--batch", "48", "--algorithm", "dense"]
    idle = ["--pattern", "2:4", "--sparse-decay", "0.5"]
    odd = ["--set", "act_bits=12", "--set", "weight_bits=12"]
    code, out, err = run(capsys, "long.onnx", "--data", "data.npz", *options, *idle, *odd, "--out", "odd")
    assert code == 0, err
    assert "accel: --pattern and --sparse-decay are of no use with --algorithm dense, which prunes no weights\n" in err
    reason = "quantised.onnx is left out: act_bits must be one of 8, 16 to be exported as integers, not 12"
    assert f"accel: the trained network is in odd/model.onnx (floats); {reason}\n" in err
    assert "dense, 1 epoch of 1 step of 48\n" in out
    assert "\nleft out of the network: drop (Dropout), prob (Softmax)\n" in out
    assert "\nleft out of each epoch: 16 of 64 samples, too few for a batch\n" in out
    code, out, err = run(capsys, *BASE, *QUICK, "--algorithm", "sdgp", "--refresh", "2", "--dense", "stem", "strided", "wide", "linear")
    assert code == 0, err
    assert "accel: --refresh is of no use with --algorithm sdgp, which prunes no weights\n" in err
    assert "\npruned: none\n" in out
    assert "left out" not in out


def test_interrupted(capsys, here, monkeypatch):
    """Ctrl-C ends in a line that says how to go on, and the run that goes on ends with the same bytes."""
    real = step.step
    calls = 0

    def interrupting(*arguments):
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return real(*arguments)

    assert run(capsys, *BASE, *QUICK, "--out", "straight")[0] == 0
    monkeypatch.setattr(step, "step", interrupting)
    code, out, err = run(capsys, *BASE, *QUICK, "--out", "stopped")
    assert (code, out) == (130, "")
    assert "accel: go on with the same NETWORK and --data, and --resume stopped\naccel: interrupted\n" in err
    code, _, err = run(capsys, *BASE, "--resume", "stopped")
    assert code == 0
    assert "epoch 1:" not in err
    assert files(here / "stopped") == files(here / "straight")
    calls = 5
    code, _, err = run(capsys, *BASE, *QUICK)
    assert (code, err.splitlines()[-2:]) == (130, ["accel: nothing is kept, as there is no --out", "accel: interrupted"])


def test_terminated(capsys, here, monkeypatch):
    """SIGTERM, too, says how to go on."""
    monkeypatch.setattr(step, "step", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            run(capsys, *BASE, *QUICK, "--out", "ended")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert "--resume ended\n" in capsys.readouterr().err


def test_damaged_checkpoint_is_told(capsys, here):
    assert run(capsys, *BASE, *QUICK, "--out", "hurt")[0] == 0
    (here / "hurt" / "epoch-0002.npz").write_bytes(b"")
    code, _, err = run(capsys, *BASE, "--resume", "hurt")
    assert code == 0
    told = "accel: hurt: epoch-0002 is damaged: its .npz file is cut off or has been changed; the one before it is used"
    assert told in err
    assert err.index(told) < err.index("accel: epoch 2:")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*BASE, "--plot", "a.svg"], "plot must be a file whose name ends in .png, not 'a.svg'"),
        ([*BASE, "--plot", "data.npz/a.png"], "plot must be a file that can be written, not 'data.npz/a.png' (Not a directory)"),
        ([*BASE, "--plot", "/proc/a.png"], "plot must be a file that can be written, not '/proc/a.png' (No such file or directory)"),
        ([*BASE, "--plot", "folder.png"], "plot must be a file that can be written, not 'folder.png' (Is a directory)"),
        ([*BASE, "--out", "a", "--resume", "b"], "out must be left out with resume, or be the same folder, not 'a'"),
        ([*BASE, "--resume", "none"], "resume must be a folder with a checkpoint, not 'none'"),
        ([*BASE, "--algorithm", "adam"], "algorithm must be one of bdwp, sr-ste, sdgp, dense, not 'adam'"),
        ([*BASE, "--pattern", "8:2"], "pattern must be N:M, 1 <= N <= M <= 32, such as 2:8, not '8:2'"),
        ([*BASE, "--batch", "0"], "batch must be an int in [1, 2147483647], not 0"),
        ([*BASE, "--shapes", "x"], "shapes must be NAME=D,D,... of sizes of 1 or more, not 'x'"),
        ([*BASE, "--config", "none"], "tiny or the path of a YAML file, not 'none'"),
        (["net.onnx", "--data", "none.npz"], "data must be digits or a readable .npz file, not 'none.npz' (No such file or directory)"),
        (["net.onnx", "--data", "digits", "--seed", "1"], "digits: x must be of shape (samples, 3, 8, 9) for net, not (1438, 8, 8)"),
        (["net.onnx", "--data", "digits", "--out", "new"], "digits: x must be of shape (samples, 3, 8, 9) for net, not (1438, 8, 8)"),
        ([*BASE, "--out", "net.onnx"], "output must be a folder that can be written, not 'net.onnx' (File exists)"),
        (["vit", "--data", "digits"], "must be one of Convolution, BatchNorm, Relu, Add, MaxPool, AveragePool to be trained, not "),
    ],
)  # fmt: skip
def test_mistakes(capsys, here, arguments, told):
    """One line on standard error, exit code 2, and nothing is written."""
    before = sorted(here.iterdir())
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert re.search(rf"^accel: error: .*{re.escape(told)}[^,]*$", err, re.MULTILINE)
    assert sorted(here.iterdir()) == before
