"""Time whole networks: `python -m reports.bench.network [--rounds N] [--networks A,B] [--peer NAME=COMMAND]`.

Four tables: `simulate` on shapes alone, warm; `simulate` with values, one image, warm; all networks, patterns and configurations in one
fresh process; and the whole process of ``accel simulate``, from start to exit, in turns with a peer's command if one is given. The first
call of each, which looks at weights and searches for schedules, has a column of its own; kernels are compiled before. Processor time counts
all threads. On a machine that does other work too, trust the best wall clock time and the processor time.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import accel
from accel import presets, simulate
from accel.graph.named import BUILDERS
from accel.graph.network import Network
from reports.bench.kernels import machine

NETWORKS = ("resnet9", "vgg19", "vit", "resnet18", "resnet50", "mobilenetv2", "digits-cnn")
PATTERNS = (None, "2:8", "2:4")
CONFIGS = ("edge-int8", "sat-vcu1525")
PROCESS = ("-m", "accel", "simulate", "resnet18")
# From a small process: what starts another counts its own memory as that one's.
TIMER = """
import os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
SWEEP = "from reports.bench.network import sweep; import sys; sweep(sys.argv[1].split(','))"


class Times(NamedTuple):
    """Seconds of repeated runs.

    Parameters
    ----------
    first : float
        Wall clock of the first run.
    best, median : float
        Wall clock of the others.
    processor : float
        Least processor time of the others, of all threads.
    """

    first: float
    best: float
    median: float
    processor: float


def measure(run: Callable[[], Any], rounds: int) -> Times:
    """Run `rounds` times after a first time."""
    walls, processors = [], []
    for _ in range(rounds + 1):
        start, busy = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - start)
        processors.append(time.process_time() - busy)
    return Times(walls[0], min(walls[1:]), statistics.median(walls[1:]), min(processors[1:]))


def image(network: Network, seed: int = 0) -> np.ndarray:
    """Draw one sample for a network of one input."""
    (port,) = network.inputs
    tensor = network.tensors[port.tensor]
    stored = np.random.default_rng(seed).integers(tensor.format.lo, tensor.format.hi + 1, (1, *tensor.shape))
    return tensor.dequantise(stored) if port.real else tensor.to_onnx(stored)


def inside(names: list[str], config: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Time networks in this process: shapes alone, then one image."""
    for name in names:
        shapes = accel.load(name)
        yield {"network": name, "what": "shapes", **measure(partial(simulate, shapes, config), rounds)._asdict()}
        seed = 0 if name in BUILDERS else None  # others have weights
        known = accel.load(name, seed=seed)
        given = image(known)
        simulate(known, config, given)  # compiles
        fresh = accel.load(name, seed=seed)
        yield {"network": name, "what": "values", **measure(partial(simulate, fresh, config, given), rounds)._asdict()}


def sweep(names: list[str]) -> None:
    """Simulate all networks with all patterns on all configurations, shapes alone; print how many and the seconds without imports."""
    start = time.perf_counter()
    for name in names:
        network = accel.load(name)
        for config in CONFIGS:
            for pattern in PATTERNS:
                simulate(network, presets.load(config), pattern=pattern)
    print(len(names) * len(CONFIGS) * len(PATTERNS), time.perf_counter() - start)


def process(command: list[str]) -> dict[str, float]:
    """Run a command to its end: wall clock and processor time [s], and the most memory it held [MiB]."""
    done = subprocess.run([sys.executable, "-c", TIMER, *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}")
    wall, processor, memory = map(float, done.stdout.split())
    return {"wall": wall, "processor": processor, "memory": memory}


def processes(commands: dict[str, list[str]], rounds: int) -> Iterator[dict[str, Any]]:
    """Time commands in turns, after a first turn that is not counted."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            if turn == 0 or len(runs[name]) < 2 or runs[name][0]["wall"] < 60:
                runs[name].append(process(command))
    for name, found in runs.items():
        counted = found[1:] or found
        yield {"process": name, **{f"{key}": statistics.median(run[key] for run in counted) for key in counted[0]}}


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Lay out the report as tables in Markdown."""
    yield from ("| network | | first [ms] | best [ms] | median [ms] | processor [ms] |", "|---|---|---|---|---|---|")
    for row in report["networks"]:
        cells = " | ".join(f"{1e3 * row[key]:.1f}" for key in Times._fields)
        yield f"| {row['network']} | {row['what']} | {cells} |"
    yield ""
    yield from ("| process | wall, median [s] | processor, median [s] | memory, median [MiB] |", "|---|---|---|---|")
    for row in report["processes"]:
        yield f"| `{row['process']}` | {row['wall']:.2f} | {row['processor']:.2f} | {row['memory']:.0f} |"
    yield ""


def main() -> None:
    """Print the tables and write `network.json` and `network.md`."""
    parser = argparse.ArgumentParser(prog="python -m reports.bench.network", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each that count")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names, with commas")
    parser.add_argument("--config", default="edge-int8", help="a preset")
    parser.add_argument("--peer", metavar="NAME=COMMAND", help="to be timed in turns with ours, such as SCALE-Sim=python scalesim.py")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where network.json and network.md go")
    args = parser.parse_args()
    names = args.networks.split(",")
    commands = {
        "accel simulate resnet18": [sys.executable, *PROCESS],
        f"{len(names)} networks x {len(PATTERNS)} patterns x {len(CONFIGS)} configurations": [sys.executable, "-c", SWEEP, args.networks],
    }
    if args.peer:
        name, _, command = args.peer.partition("=")
        commands[name] = shlex.split(command)
    report = {
        "schema": 1,
        "machine": machine(),
        "config": args.config,
        "rounds": args.rounds,
        "networks": list(inside(names, args.config, args.rounds)),
        "processes": list(processes(commands, min(args.rounds, 5))),
    }
    print("\n".join(lines(report)), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "network.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "network.md").write_text("\n".join(lines(report)))


if __name__ == "__main__":
    main()
