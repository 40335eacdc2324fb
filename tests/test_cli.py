"""The command line: what it prints, writes and returns."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest

import accel
from accel import cli, presets, simulate
from accel.cli import terminal
from accel.config import AcceleratorConfig, FunctionConfig, RbfConfig
from accel.errors import MismatchError, RangeError, ToolError
from accel.sim import harness, program
from accel.sim.blocks import BLOCKS
from tests.qdq import Model

COMMAND = [sys.executable, "-m", "accel"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Write a convolution and a linear layer as QDQ ONNX."""
    rng = np.random.default_rng(0)
    build = Model()
    x = build.fake(build.input("batch", 8, 4, 4), 0.05, 128)
    conv = build.node("Conv", x, build.weights(rng.integers(-127, 128, (16, 8, 3, 3)).astype(np.int8), 0.01), pads=[1, 1, 1, 1])
    relu = build.fake(build.node("Relu", conv), 0.1)
    flat = build.node("Flatten", relu)
    weights = build.weights(rng.integers(-127, 128, (256, 10)).astype(np.int8), 0.01)
    build.output(build.fake(build.node("MatMul", flat, weights), 0.2, 100))
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(build.proto, path)
    return path


@pytest.fixture
def inputs(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.random.default_rng(1).normal(0, 2, (6, 8, 4, 4)).astype(np.float32))
    return path


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_simulate_prints_a_table(capsys, model):
    code, out, err = run(capsys, "simulate", model, "--config", "tiny")
    assert code == 0
    assert re.search(r"of these cycles [\d,]+ are computing, [\d,]+ wait for loads and [\d,]+ for stores", out)
    assert "small on tiny, batch 1:" in out
    assert re.findall(r"^\S+ +(\w+) .* [ow]s +dense ", out, re.MULTILINE) == ["Conv", "MatMul"]
    assert "Traceback" not in err


def test_simulate_prints_json_alone(capsys, model, inputs):
    code, out, _ = run(capsys, "simulate", model, "--json", "--inputs", inputs, "--batch", 2)
    report = json.loads(out)
    assert code == 0
    assert (report["batch"], report["config"]["name"]) == (2, "edge-int8")
    assert all(output["sha256"] for output in report["outputs"].values())


def test_simulate_writes_whole_files(capsys, model, inputs, tmp_path):
    runs = []
    for folder in (tmp_path / "a", tmp_path / "deep" / "b"):
        code, _, err = run(capsys, "simulate", model, "--inputs", inputs, "--out", folder, "--pattern", "2:8")
        assert code == 0
        assert f"results are in {folder}" in err
        runs.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert runs[0] == runs[1]
    assert set(runs[0]) == {"result.json", "layers.csv", "outputs.npz"}
    result = accel.simulate(accel.load(model), "edge-int8", np.load(inputs), pattern="2:8")
    assert runs[0]["result.json"].decode() == result.to_json()
    assert runs[0]["layers.csv"].decode() == result.to_csv()
    with np.load(tmp_path / "a" / "outputs.npz") as written:
        assert {name: written[name].tolist() for name in written} == {name: values.tolist() for name, values in result.outputs.items()}


def test_a_folder_that_is_used_again_holds_one_run(capsys, model, inputs, tmp_path):
    """Outputs of an earlier run do not stay beside the result of a later one; what is not ours does."""
    folder = tmp_path / "out"
    run(capsys, "simulate", model, "--inputs", inputs, "--out", folder)
    (folder / "notes.txt").write_text("mine")
    code, _, _ = run(capsys, "simulate", model, "--out", folder)
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {"result.json", "layers.csv", "notes.txt"}
    (folder / "outputs.npz").mkdir()
    code, _, err = run(capsys, "simulate", model, "--out", folder)
    assert code == 2
    assert re.search(r"error: output must be a file that can be replaced, not '.*outputs.npz' \(Is a directory\)$", err, re.MULTILINE)


def test_simulate_tells_the_energy_pruned(capsys, model):
    wide = model  # its only convolution is the first, its only linear layer the last: nothing is eligible
    _, out, _ = run(capsys, "simulate", wide, "--pattern", "2:8")
    assert "energy removed" not in out


def test_simulate_saves_and_replays_its_schedule(capsys, model, tmp_path):
    """The file is the schedule; edited, it gives another run; the search leaves a mark of its own."""
    path = tmp_path / "schedule.json"
    _, out, _ = run(capsys, "simulate", model, "--config", "tiny", "--save-schedule", path, "--json")
    report, schedule = json.loads(out), json.loads(path.read_text())
    assert schedule == report["schedule"]
    code, out, _ = run(capsys, "simulate", model, "--config", "tiny", "--schedule", path, "--json")
    assert (code, json.loads(out)["cycles"]) == (0, report["cycles"])
    schedule["kept"] = []
    path.write_text(json.dumps(schedule))
    _, out, _ = run(capsys, "simulate", model, "--config", "tiny", "--schedule", path, "--json")
    assert json.loads(out)["dram"] > report["dram"]
    _, out, _ = run(capsys, "simulate", model, "--config", "tiny", "--search", "exhaustive", "--json")
    assert json.loads(out)["cycles"] <= report["cycles"]


def test_simulate_draws_its_cycles(capsys, model, tmp_path):
    path = tmp_path / "cycles.png"
    code, _, _ = run(capsys, "simulate", model, "--plot", path)
    assert code == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_long_run_says_so_before_it_starts(capsys, model, inputs, monkeypatch):
    """And a short one does not."""
    told = r"^accel: 6 samples of [\d,]+ MACs: about 0 s and [\d,]+ MiB$"
    _, _, err = run(capsys, "simulate", model, "--inputs", inputs)
    assert not re.search(told, err, re.MULTILINE)
    monkeypatch.setattr("accel.cli.simulate.PATIENCE", 0.0)
    _, _, err = run(capsys, "simulate", model, "--inputs", inputs)
    assert re.search(told, err, re.MULTILINE)


def test_npy_input(capsys, model, inputs, tmp_path):
    np.save(tmp_path / "x.npy", np.load(inputs)["x"])
    one = run(capsys, "simulate", model, "--json", "--inputs", tmp_path / "x.npy")
    assert one == run(capsys, "simulate", model, "--json", "--inputs", inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "nothing.onnx"], "nothing.onnx: network must be an ONNX file or one of .*, not a missing file"),
        (
            ["simulate", "MODEL", "--config", "big"],
            "config must be one of edge-int8, sat-vcu1525, sat-vcu1525-int8, tiny or the path of a YAML file, not 'big'",
        ),
        (["simulate", "MODEL", "--schedule", "MODEL"], r".*small.onnx: schedule must be (UTF-8 text|JSON), not .*"),
        (
            ["simulate", "MODEL", "--schedule", "gone.json"],
            r"schedule must be a readable file, not 'gone.json' \(No such file or directory\)",
        ),
        (["simulate", "MODEL", "--batch", "0"], r"batch must be an int in \[1, 16777215\], not 0"),
        (["simulate", "MODEL", "--pattern", "8"], "pattern must be N:M such as 2:8, not '8'"),
        (
            ["simulate", "MODEL", "--inputs", "gone.npz"],
            r"inputs must be a readable .npz or .npy file, not 'gone.npz' \(No such file or directory\)",
        ),
        (
            ["simulate", "MODEL", "--calibration", "gone.npz"],
            r"calibration must be a readable .npz or .npy file, not 'gone.npz' \(No such file or directory\)",
        ),
        (["simulate", ""], "network must be an ONNX file or one of .*, not an empty name"),
        (["simulate", "MODEL", "--inputs", "MODEL"], "inputs must be a .npz or .npy file of numbers, not '.*' .*"),
        (["simulate", "MODEL", "--out", "MODEL"], r"output must be a folder that can be written, not '.*small.onnx' \(File exists\)"),
        (["simulate", "MODEL", "--plot", "d.txt"], "plot must be a file whose name ends in .png, not 'd.txt'"),
        (["simulate", "MODEL", "--shapes", "x=1,a"], "shapes must be NAME=D,D,... of sizes of 1 or more, not 'x=1,a'"),
        (
            ["simulate", "resnet18", "--compat", "scalesim", "--plot", "d.png"],
            "plot must be left out with --compat scalesim, not 'd.png'",
        ),
        (["simulate", "MODEL", "--shapes", "1,8"], "shapes must be NAME=D,D,... of sizes of 1 or more, not '1,8'"),
        (
            ["simulate", "resnet18", "--inputs", "x.npy"],
            "seed must be given with inputs, as resnet18 is known by its shapes alone without it",
        ),
        (
            ["simulate", "layers.csv", "--inputs", "x.npy"],
            "inputs must be left out with the topology 'layers.csv', which is known by its shapes alone",
        ),
        (["simulate", "resnet", "--calibration", "x.npy"], "resnet: network must be an ONNX file or one of .*, not a missing file"),
        (["run", "--out", "MODEL"], r"output must be a folder that can be written, not '.*small.onnx' \(File exists\)"),
        (["verilog", "lfsr", "-o", "MODEL/x.v"], r"output must be a folder that can be written, not '.*small.onnx' \(File exists\)"),
        (["cosim", "--waves", "--out", "MODEL"], r"output must be a folder that can be written, not '.*small.onnx' \(File exists\)"),
        (["verilog", "nothing"], "block must be one of uspe, .*, not 'nothing'"),
        (["cosim", "nothing"], "block must be one of uspe, .*, not 'nothing'"),
        (["cosim", "lfsr", "nothing"], "block must be one of uspe, .*, not 'nothing'"),
        (["cosim", "--network", "MODEL", "--seed", "-1"], "seed must be 0 or more, not -1"),
        (["cosim", "lfsr", "--simulator", "vcs"], "simulator must be one of icarus, verilator, not 'vcs'"),
        (["cosim", "lfsr", "--network", "MODEL"], "network must be given without blocks, not with lfsr"),
        (["cosim", "lfsr", "--cases", "0"], "cases must be 1 or more, not 0"),
        (["cosim", "--network", "MODEL", "--cases", "3"], "cases must be given with blocks, not with a network: 3"),
        (
            ["cosim", "gaussian", "lfsr", "rbf_neuron", "sigmoid", "--config", "tiny"],
            r"config must be given with blocks of one kind, not with gaussian \(FunctionConfig\) and lfsr .* and rbf_neuron \(Rbf.*\)",
        ),
        (["cosim", "lfsr", "--tiles"], "tiles must be given with a network, not alone"),
        (["cosim", "--pattern", "2:4"], "pattern must be given with a network, not alone"),
        (["cosim", "--train"], "train must be given with a network, not alone"),
        (["cosim", "--network", "digits-cnn", "--steps", "3"], r"steps must be given with --train, not alone \(3\)"),
        (["cosim", "--network", "digits-cnn", "--algorithm", "bdwp"], r"algorithm must be given with --train, not alone \('bdwp'\)"),
        (["cosim", "--network", "digits-cnn", "--train", "--tiles"], "tiles must be given without --train, not with it"),
        (["cosim", "--network", "digits-cnn", "--train", "--bits", "16"], "bits must be given without --train, not with it"),
        (["cosim", "--network", "digits-cnn", "--train", "--batch", "0"], "batch must be 1 or more, not 0"),
        (
            ["cosim", "--network", "digits-cnn", "--train", "--pattern", "2:8"],
            "pattern must have M at most the 4 columns of the array, not 2:8",
        ),
        (["cosim", "--network", "MODEL", "--pattern", "24"], "pattern must be N:M such as 2:8, not '24'"),
        (["cosim", "--set", "stages=2"], r"set must be given with blocks of one kind, not with uspe \(AcceleratorConfig\) and .*"),
        (["cosim", "gaussian", "sigmoid", "--config", "tanh"], "function must be one of exp2, exp, gaussian for .* gaussian, not 'tanh'"),
        (["cosim", "--network", "MODEL", "--config", "gaussian"], "config must be one of edge-int8, .*, not 'gaussian'"),
        (["verilog", "sigmoid", "--config", "edge-int8"], "config must be one of erf, .*, tiny or the path .*, not 'edge-int8'"),
        (
            ["verilog", "sigmoid", "--set", "method=base2"],
            "method must be one of auto, table, linear, searched for .* sigmoid, not 'base2'",
        ),
        (["verilog", "sigmoid", "--set", "error=0.0000001", "--set", "out_frac=8"], r"error must be at least .*, not 1e-07"),
        (["cosim", "lfsr", "--set", "cols"], "set must be FIELD=VALUE, not 'cols'"),
        (["cosim", "lfsr", "--set", "cols=["], r"set must be FIELD=VALUE, not 'cols=\['"),
        (["cosim", "lfsr", "--set", "columns=3"], "field must be one of name, rows, cols, .*, not 'columns'"),
        (["cosim", "lfsr", "--set", "cols="], r"cols must be an int in \[1, 128\], not ''"),
        (["verilog", "lfsr", "--set", "cols=0"], r"cols must be an int in \[1, 128\], not 0"),
        (["verilog", "lfsr", "--set", "cols=[1]"], "cols must be a plain number or string, not a list"),
        (["simulate", "MODEL", "--set", "port=3"], r"port must be a divisor of bundle \(16\), not 3"),
    ],
)
def test_a_mistake_is_one_line(capsys, monkeypatch, model, arguments, message):
    monkeypatch.setattr(harness, "check_tools", lambda simulator: None)
    code, out, err = run(capsys, *(a.replace("MODEL", str(model)) for a in arguments))
    assert (code, out) == (2, "")
    assert re.fullmatch(f"accel: error: {message}", err.splitlines()[-1])


def damaged(file, kind):
    """Write a file of inputs of which numpy says in its own way that it is broken."""
    if kind == "size":
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 60,)})
    elif kind == "pickle":
        np.save(file, np.array([None]), allow_pickle=True)
    elif kind == "no data":
        file.write(b"")
    else:
        whole = io.BytesIO()
        np.savez_compressed(whole, x=np.random.default_rng(0).normal(size=999))
        data = bytearray(whole.getvalue())
        data[60:70] = b"\xff" * 10
        file.write(data)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("size", "Unable to allocate .*"),
        ("pickle", "Object arrays cannot be loaded when allow_pickle=False"),
        ("no data", "No data left in file"),
        ("stream", "Error -3 while decompressing data: .*"),
    ],
)
def test_damaged_inputs_are_one_line(capsys, model, tmp_path, kind, reason):
    path = tmp_path / "x.npz"
    with path.open("wb") as file:
        damaged(file, kind)
    code, out, err = run(capsys, "simulate", model, "--inputs", path)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"accel: error: inputs must be a .npz or .npy file of numbers, not '{path}' \({reason}\)\n", err)


@pytest.mark.parametrize("option", ["config", "inputs", "calibration", "schedule"])
def test_a_pipe_is_no_file(capsys, model, tmp_path, option):
    """Nobody writes to it: to open it would be to wait for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    code, out, err = run(capsys, "simulate", model, f"--{option}", path)
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"accel: error: (config|inputs|calibration|schedule) must be .* file, not '.*pipe'( \(a device or a pipe\))?\n", err
    )


def test_what_a_file_says_reaches_no_terminal_raw(capsys, model, tmp_path):
    """Names of any length with line feeds and escapes: visible and short in the table, one line as an error, whole as JSON."""
    proto, name = onnx.load(model), "a\n\x1b[31m" + "b" * 500 + "$^$"
    next(node for node in proto.graph.node if node.op_type == "Conv").name = name
    path = tmp_path / "named.onnx"
    onnx.save(proto, path)
    code, out, _ = run(capsys, "simulate", path, "--plot", tmp_path / "named.png")
    assert code == 0
    assert "\x1b" not in out
    assert re.search(rf"^\.\.\.{'b' * 34}\$\^\$  Conv ", out, re.MULTILINE)
    assert name in [layer["name"] for layer in json.loads(run(capsys, "simulate", path, "--json")[1])["layers"]]
    code, out, err = run(capsys, "simulate", "a\n\x1b[31m.csv")
    assert (code, out) == (2, "")
    assert r"a\n\x1b[31m.csv" in err.replace(r"\\", "\\")
    assert len(err.splitlines()) == 1


def test_shapes_of_open_axes(capsys, tmp_path):
    build = Model()
    x = build.fake(build.input("batch", "channels", 4), 0.05, 128)
    build.output(build.fake(build.node("Relu", x), 0.1))
    path = tmp_path / "open.onnx"
    onnx.save(build.proto, path)
    assert run(capsys, "simulate", path)[0] == 2
    code, out, _ = run(capsys, "simulate", path, "--shapes", "x=1,6,4", "--json")
    assert code == 0
    assert [each["shape"] for each in json.loads(out)["outputs"].values()] == [["batch", 6, 4]]


def test_operators_on_the_host_are_named(capsys, tmp_path):
    """And what has no hardware is no cause of its own kind."""
    build = Model()
    x = build.fake(build.input("batch", 16), 0.05, 128)
    soft = build.fake(build.node("Softmax", x), 1 / 256)
    build.output(build.node("Erf", soft))
    path = tmp_path / "host.onnx"
    onnx.save(build.proto, path)
    _, out, _ = run(capsys, "simulate", path)
    assert re.search(r"^units: array and vector have RTL; special .*; memory .*; host is float, without cycles$", out, re.MULTILINE)
    assert re.search(r"^host \(float, no cycles\): \S+$", out, re.MULTILINE)
    assert " cycles without host, " in out
    layers = {x["unit"]: x for x in json.loads(run(capsys, "simulate", path, "--json")[1])["layers"]}
    assert layers["special"]["special slots"] > 0 == layers["special"]["vector slots"]


def test_a_search_tells_how_far_it_is(capsys, monkeypatch, model):
    monkeypatch.setattr(terminal, "QUIET", 0.0)
    _, _, err = run(capsys, "simulate", model, "--search", "exhaustive")
    assert re.search(r"simulate small: 0/\d+ schedule of ", err)
    assert re.search(r"simulate small: (\d+)/\1 scheduled", err)


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["simulate"], ["simulate", "x", "--batch", "two"], ["list", "things"]])
def test_usage_errors_return_2(capsys, arguments):
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(arguments)
    assert "usage: accel" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["", "simulate", "verilog", "cosim", "synth", "prove", "list", "run"])
def test_help_has_examples(capsys, what):
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([*what.split(), "--help"])
    out = capsys.readouterr().out
    assert (f"  accel {what}" if what else "exit codes:") in out
    assert not re.search("^    [A-Z]", out, re.MULTILINE)  # paragraphs keep no indentation of the source


def test_list(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert {"blocks", "presets", "operators"} <= set(out.splitlines())
    code, out, _ = run(capsys, "list", "operators", "--json")
    assert {"operator": "Conv"} in json.loads(out)["operators"]
    named = [row["network"] for row in json.loads(run(capsys, "list", "networks", "--json")[1])["networks"]]
    assert len(named) == len(set(named))
    assert json.loads(run(capsys, "list", "topologies", "--json")[1])["topologies"][0]["topology"] == "resnet18"
    code, out, _ = run(capsys, "list", "presets", "--json")
    assert [row["preset"] for row in json.loads(out)["presets"]] == ["edge-int8", "sat-vcu1525", "sat-vcu1525-int8", "tiny"]
    for kind, column, config in (("functions", "function", FunctionConfig), ("rbf", "rbf network", RbfConfig)):
        code, out, _ = run(capsys, "list", kind, "--json")
        assert [row[column] for row in json.loads(out)[kind]] == list(presets.names(config))


def test_verilog(capsys, tmp_path):
    code, out, _ = run(capsys, "verilog", "accumulator", "--config", "tiny")
    assert code == 0
    assert out.startswith("module accumulator ")
    file = tmp_path / "new" / "accumulator.v"
    assert run(capsys, "verilog", "accumulator", "--config", "tiny", "-o", file)[:2] == (0, "")
    assert file.read_text() == out
    changed = run(capsys, "verilog", "accumulator", "--config", "tiny", "--set", "cols=1")[1]
    assert changed.startswith("module accumulator ")
    assert changed != out
    assert "clk" not in run(capsys, "verilog", "gaussian", "--config", "tiny", "--set", "stages=0")[1]


def compared(block="core", waveform=None):
    """Return what a co-simulation without a difference tells."""
    return harness.CosimResult(
        block=block, config="tiny", simulator="verilator", seed=0, cases=7, words=241, cycles=999, spans=(), build_seconds=0.0,
        run_seconds=0.0, waveform=waveform,
    )  # fmt: skip


def test_cosim_of_tiles(capsys):
    code, out, err = run(capsys, "cosim", "--network", "digits-cnn", "--tiles", "--pattern", "2:4")
    assert code == 0
    assert "a tile of every layer of digits-cnn through the Verilog of the core of tiny on verilator" in err
    assert re.search(r"^conv1 +rows \d+\.\.\d+, channels \d+\.\.\d+, block \d+ of \d+, [ow]s +[\d,]+ +0$", out, re.MULTILINE)
    assert re.search(r"^[\d,]+ output rows compared; cycles are those of computing, without memory$", out, re.MULTILINE)
    assert out.endswith("\nall 7 operators that compute were compared\n")


def test_cosim_of_blocks(capsys, monkeypatch, tmp_path):
    asked = []

    def cosim(*arguments, out):
        asked.append((*arguments, out))
        return compared(arguments[0], tmp_path / "wave.vcd")

    monkeypatch.setattr(harness, "cosim", cosim)
    code, out, err = run(capsys, "cosim", "lfsr", "core", "--simulator", "icarus", "--seed", 3, "--cases", 5, "--waves", "--out", tmp_path)
    assert code == 0
    assert asked == [(block, presets.load("tiny"), "icarus", 3, 5, True, tmp_path) for block in ("lfsr", "core")]
    assert re.findall(r"^(\w+) +tiny +verilator +7 +241 +999 +0 ", out, re.MULTILINE) == ["lfsr", "core"]
    assert f"accel: waveform of lfsr: {tmp_path / 'wave.vcd'}" in err.splitlines()
    asked.clear()
    run(capsys, "cosim")
    assert [(block, config.name) for block, config, *_ in asked] == [(block.name, block.default) for block in BLOCKS.values()]
    asked.clear()
    run(capsys, "cosim", "gaussian", "tanh", "--set", "stages=1")
    assert [(block, config.name, config.stages) for block, config, *_ in asked] == [
        (name, f"{name} stages=1", 1) for name in ("gaussian", "tanh")
    ]
    asked.clear()
    run(capsys, "cosim", "lfsr", "--config", "edge-int8", "--set", "cols=2", "--set", "rows=4.0", "--set", "cols=3")
    assert [config for _, config, *_ in asked] == [
        dataclasses.replace(presets.load("edge-int8"), name="edge-int8 cols=3 rows=4", cols=3, rows=4)
    ]


def test_cosim_of_a_network(capsys, monkeypatch, model):
    monkeypatch.setattr(harness, "check_tools", lambda simulator: None)
    asked = []
    kinds = [("Gelu", "special"), ("Softmax", "special"), ("Softmax", "special"), ("Flatten", "none"), ("If", "host")]
    left = tuple(program.Uncompared(f"node{i}", kind, unit) for i, (kind, unit) in enumerate(kinds))

    def cosim(network, config, inputs, **options):
        asked.append(inputs["x"])
        result = simulate(network, config, inputs)
        return program.NetworkCosim(
            network=network.name, layers={x.name: x.cycles for x in result.layers}, uncompared=left, hardware=compared()
        )

    monkeypatch.setattr(program, "cosim_network", cosim)
    shown = [run(capsys, "cosim", "--network", model, "--seed", seed)[:2] for seed in (1, 1, 2)]
    assert shown[0][0] == 0
    assert "241 output rows compared" in shown[0][1]
    said = r"4 of \d+ operators have no RTL and were computed by the model: Softmax 2, Gelu 1, If 1 \(moves need none: 1\)\n"
    assert re.search(f"\n{said}$", shown[0][1])
    assert shown[0] == shown[1]
    assert asked[0].shape == (1, 8, 4, 4)
    assert (asked[0] == asked[1]).all()
    assert not (asked[0] == asked[2]).all()


def test_run_writes_its_report(capsys, monkeypatch, tmp_path):
    """Everything but the co-simulation, which tests/test_cosim.py does."""

    def replay(network, config, inputs, *, simulator, out):
        result = simulate(network, config, inputs)
        layers = {x.name: x.cycles for x in result.layers}
        return program.NetworkCosim(network=network.name, layers=layers, uncompared=(), hardware=compared())

    monkeypatch.setattr(program, "cosim_network", replay)
    monkeypatch.setattr(harness, "check_tools", lambda simulator: None)
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        code, out, _ = run(capsys, "run", "--config", "tiny", "--out", folder)
        assert code == 0
        assert f"report: {folder / 'report.md'}" in out
        files.append({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert files[0] == files[1]
    verilog = {f"verilog/{block.name}.v" for block in BLOCKS.values() if block.kind is AcceleratorConfig}
    assert {name for name in files[0] if name.startswith("verilog/")} == verilog
    assert {"cycles.png", "report.md", "report.json", "dense/layers.csv", "pruned/result.json", "pruned/outputs.npz"} < set(files[0])
    report = json.loads(files[0]["report.json"])
    assert report["accuracy"]["agreement of the last two"] >= 0.99
    assert report["cycles"]["pruned"] == sum(report["co-simulation"]["cycles"].values()) < report["cycles"]["dense"]
    for row in report["differences from onnxruntime"]:
        assert row["worst alone [LSB]"] <= 1
        assert row["farthest from a tie [LSB]"] < 1e-3


@pytest.mark.parametrize(
    ("error", "code"), [(MismatchError("differs"), 1), (RangeError("wrong"), 2), (ToolError("missing"), 3), (KeyboardInterrupt(), 130)]
)
def test_exit_codes(capsys, monkeypatch, error, code):
    def fail():
        raise error

    monkeypatch.setattr(presets, "names", fail)
    got, out, err = run(capsys, "list", "presets")
    assert (got, out, len(err.splitlines())) == (code, "", 1)


def test_write_is_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / "file"
    terminal.write(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RangeError, match=r"^output must be a file that can be written, not '.*file' \(No space left on device\)$"):
        terminal.write(file, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]
    monkeypatch.undo()
    with pytest.raises(RangeError, match=r"^output must be a file that can be written, not '.*' \(.*\)$"):
        terminal.write(file / "below", "new")


def test_a_pipe_is_written_not_replaced(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    terminal.write(fifo, "text")
    assert os.read(reader, 9) == b"text"
    assert fifo.is_fifo()
    os.close(reader)


def test_written_files_are_as_readable_as_others(tmp_path):
    terminal.write(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_table():
    shown = terminal.table(["name", "count", "part"], [["a", 1234567, 0.25], ["bb", None, 12.0]])
    assert shown.splitlines() == ["name      count  part", "----  ---------  ----", "a     1,234,567   0.2", "bb            -  12.0"]
    assert terminal.table(["name", "of"], [["a\nb" * 30, "\x1b[1m"]]).splitlines()[-1] == "..." + (r"a\nb" * 30)[-37:] + r"  \x1b[1m"
    assert terminal.table(["name"], []) == "name\n----"


def test_progress(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "QUIET", 0.0)
    terminal.Progress("work")(1, 4, "part")
    assert capsys.readouterr().err == "work: 1/4 part\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    watched = terminal.Progress("work")
    watched(1, 4, "part")
    watched(4, 4, "done")
    assert capsys.readouterr().err == "\r\x1b[Kwork: 1/4 part\r\x1b[Kwork: 4/4 done\n"


def test_module_and_version():
    assert subprocess.check_output([*COMMAND, "--version"], text=True) == f"accel {accel.__version__}\n"


def test_public_names():
    assert [getattr(accel, name) for name in accel.__all__]
    with pytest.raises(AttributeError, match=r"^module 'accel' has no attribute 'nothing'$"):
        accel.nothing  # noqa: B018 -- the attribute is the test


def test_public_names_are_listed():
    assert set(accel.__all__) < set(dir(accel))


@pytest.mark.parametrize("command", ["list", "verilog lfsr --config tiny"])
def test_a_full_disk_is_one_line(command):
    done = subprocess.run(f"{sys.executable} -m accel {command} > /dev/full", shell=True, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "accel: error: standard output must be usable, not what gives 'No space left on device'"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(tmp_path, model, closed):
    done = subprocess.run(f"{sys.executable} -m accel simulate {model} --json {closed}", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) is (closed == "2>&-")


def test_verilog_without_a_cache(capsys, monkeypatch):
    expected = run(capsys, "verilog", "lfsr", "--config", "tiny")
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    assert run(capsys, "verilog", "lfsr", "--config", "tiny") == expected
    assert os.environ["XDG_CACHE_HOME"] == os.devnull


def test_closed_pipe_is_quiet():
    done = subprocess.run(
        f"{sys.executable} -m accel list | true; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True
    )
    assert (done.returncode, done.stderr) in [(141, b""), (0, b"")]


@pytest.mark.parametrize(("number", "code", "message"), [(signal.SIGINT, 130, "accel: interrupted\n"), (signal.SIGTERM, 143, "")])
def test_interrupt_is_one_line(number, code, message):
    process = subprocess.Popen(
        [*COMMAND, "simulate", "resnet18", "--search", "exhaustive"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("simulate resnet18: ")  # it is at work, and says so
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "".join(line for line in err.splitlines(True) if not line.startswith("simulate resnet18: ")) == message
