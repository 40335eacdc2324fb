"""`accel simulate --train`: what it prints, writes and refuses."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

import accel
from accel import cli
from accel.cli import figure
from accel.graph.files import trainable
from accel.step_result import CAUSES, OPTIMISATIONS


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def train(capsys, *arguments) -> tuple[int, str, str]:
    return run(capsys, "simulate", "resnet9", "--train", "--config", "sat-vcu1525", "--batch", 2, *arguments)


def test_it_prints_layers_stages_and_what_they_are_made_of(capsys):
    code, out, err = train(capsys)
    assert (code, err) == (0, "")
    assert [line.split()[2] for line in out.splitlines() if line.startswith("layer1 ")] == ["FF", "BP", "WU", "update"]
    for text in (
        "resnet9 on sat-vcu1525, bdwp 2:8, batch 2:",
        "the array by stage: FF ",
        "engines at work: array ",
        "layers never pruned: prep",
    ):
        assert text in out
    assert "optimisations that are off" not in out


def test_json_is_that_of_the_library(capsys):
    code, out, _ = train(capsys, "--json", "--algorithm", "sdgp", "--pattern", "2:4", "--search", "fixed")
    told = accel.simulate(trainable("resnet9"), "sat-vcu1525", batch=2, training=True, algorithm="sdgp", pattern="2:4", search="fixed")
    assert (code, out) == (0, told.to_json())


def test_the_pattern_dense_is_the_algorithm(capsys):
    _, out, _ = train(capsys, "--json", "--pattern", "dense")
    assert out == train(capsys, "--json", "--algorithm", "dense")[1]


@pytest.mark.parametrize(
    ("network", "arguments", "line"),
    [
        ("resnet9", (), "each the fastest by itself with 1/4 of DRAM's bandwidth, which engines share, as alone and other flow are"),
        ("resnet9", ("--no-scheduling",), "output stationary, the least traffic; alone is with all of DRAM's bandwidth"),
        (
            "digits-cnn",
            (),
            "those without scheduling, as no others make the whole step shorter; alone and other flow are with all of DRAM's bandwidth",
        ),
    ],
)
def test_it_says_how_cuts_are_chosen(capsys, network, arguments, line):
    _, out, _ = run(capsys, "simulate", network, "--train", "--config", "sat-vcu1525", "--batch", 8, *arguments)
    assert f"cuts: {line}" in out.splitlines()


def test_optimisations_are_switched_off(capsys):
    cycles = {}
    for off in ((), *((name,) for name in OPTIMISATIONS), OPTIMISATIONS):
        _, out, _ = train(capsys, "--set", "add_stages=4", "--json", *(f"--no-{name}" for name in off))
        report = json.loads(out)
        assert report["optimisations"] == [name for name in OPTIMISATIONS if name not in off]
        cycles[off] = report["cycles"]
    assert cycles[OPTIMISATIONS] > cycles["scheduling",] > cycles[()]
    _, out, _ = train(capsys, "--no-interleave", "--no-pregeneration")
    assert "optimisations that are off: interleave, pregeneration" in out
    assert "interleave has no effect: the adder has one stage, which every pair fills" in out


def test_files_are_written(capsys, tmp_path):
    code, out, err = train(capsys, "--out", tmp_path / "run", "--plot", tmp_path / "step.png", "--json")
    assert code == 0
    assert (tmp_path / "run" / "result.json").read_text() == out
    assert (tmp_path / "run" / "layers.csv").read_text().startswith("name,operator,stage,m [rows of the product],")
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")
    assert err == f"accel: results are in {tmp_path / 'run'}\n"


def test_the_figure_tells_stages_from_causes():
    """No colour means two things; axes of many cycles count millions."""
    assert not set(figure.STAGES) & {*figure.COLOURS, *figure.MORE}
    assert len({*figure.COLOURS, *figure.MORE}) >= len(CAUSES)
    axes = Figure().add_subplot()
    for largest, unit, label in ((2.5e8, "millions of cycles", "250"), (2500, "thousands of cycles", "2.5"), (250, "cycles", "250")):
        assert figure.scale(axes.xaxis, largest) == unit
        assert axes.xaxis.get_major_formatter()(largest, 0) == label


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "--inputs", "x.npz"], "inputs must be left out with --train, which takes shapes alone"),
        (["--train", "--schedule", "s.json"], "schedule must be left out with --train, which takes shapes alone"),
        (["--train", "--save-schedule", "s.json"], "save-schedule must be left out with --train, which takes shapes alone"),
        (["--train", "--compat", "scalesim"], "compat must be left out with --train, which takes shapes alone"),
        (["--train", "--cfg", "s.cfg"], "cfg must be left out with --train, which takes shapes alone"),
        (["--train", "--seed", "1"], "seed must be left out with --train, which takes shapes alone"),
        (["--train", "--bits", "4"], "bits must be left out with --train, which takes shapes alone"),
        (["--train", "--method", "mse"], "method must be left out with --train, which takes shapes alone"),
        (["--train", "--calibration", "x.npz"], "calibration must be left out with --train, which takes shapes alone"),
        (["--train", "--plot", "d.txt"], "plot must be a file whose name ends in .png, not 'd.txt'"),
        (["--train", "--batch", "0"], "batch must be an int in [1, 16777215], not 0"),
        (["--train", "--pattern", "none"], "pattern must be N:M such as 2:8, not 'none'"),
        (
            ["--train", "--pattern", "dense", "--algorithm", "sdgp"],
            "algorithm must be dense or left out where pattern is dense, not 'sdgp'",
        ),
        (
            ["--train", "--pattern", "2:4", "--algorithm", "dense"],
            "pattern must be dense or left out where algorithm is dense, which prunes nothing, not 2:4",
        ),
        (["--train", "--pattern", "2:16"], "pattern must be N:M with M at most the bundle and the columns (4) of tiny, not 2:16"),
        (["--algorithm", "bdwp"], "algorithm must come with --train, not alone"),
        (["--no-interleave"], "no-interleave must come with --train, not alone"),
        (["--no-pregeneration"], "no-pregeneration must come with --train, not alone"),
        (["--no-scheduling"], "no-scheduling must come with --train, not alone"),
    ],
)
def test_mistakes_are_told(capsys, arguments, message):
    code, out, err = run(capsys, "simulate", "resnet9", "--config", "tiny", *arguments)
    assert (code, out, err) == (2, "", f"accel: error: {message}\n")


def test_a_layer_that_does_not_fit_is_named(capsys):
    code, _, err = run(capsys, "simulate", "resnet9", "--train", "--config", "sat-vcu1525", "--set", "weight_kb=1")
    assert (code, err.startswith("accel: error: tiles of FF of layer1 must fit half of act_kb (1048576 bytes), weight_kb (512 bytes)")) == (
        2,
        True,
    )


def test_a_topology_has_no_gradients(capsys, tmp_path):
    path = tmp_path / "small.csv"
    path.write_text(
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\na, 8, 8, 3, 3, 4, 8, 1,\n"
    )
    code, _, err = run(capsys, "simulate", path, "--train")
    assert (code, err) == (2, f"accel: error: network that is trained must have tensors between its layers, not be a topology, '{path}'\n")
