"""Redraw the study of sparse training: count every cycle anew, take accuracies from what was measured; or measure them again first."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small products: threads of numpy's library cost more than they give

from accel.cli.terminal import say
from accel.errors import RangeError
from accel.files import write
from reports.sat import accuracy, cycles, figures, page

HERE = Path(__file__).parent
RUNS = HERE / "accuracy.json"


def main() -> None:
    """Draw the figures and write the page."""
    parser = argparse.ArgumentParser(prog="python -m reports.sat", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="train everything again; goes on where it was stopped")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    args = parser.parse_args()
    if args.again and RUNS.exists():
        RUNS.unlink()
    measured = json.loads(RUNS.read_text()) if RUNS.exists() else []
    if args.measure:
        done = {(run["task"], run["algorithm"], run["numbers"], run["seed"]) for run in measured}
        every = [(*which, seed) for seed in range(accuracy.SEEDS) for which in accuracy.runs()]
        for task, algorithm, numbers, seed in every:
            if (task, algorithm, numbers, seed) in done:
                continue
            found = accuracy.measure(task, algorithm, numbers, seed)
            measured.append({"task": task, "algorithm": algorithm, "numbers": numbers, "seed": seed} | found)
            write(RUNS, "[\n" + ",\n".join(json.dumps(run) for run in measured) + "\n]\n")
            say(f"{len(measured)} of {len(every)}: {task}, {algorithm}, {numbers}, seed {seed}: {found['held_out']:.2f} % held out")
    if len(measured) < accuracy.SEEDS * len(list(accuracy.runs())):
        raise RangeError(f"{RUNS.name} must hold all runs, not {len(measured)}: measure them first, with --measure")
    say("counting cycles")
    counted, compared = cycles.measure(), accuracy.summary(measured)
    say("drawing")
    figures.draw(counted, compared)
    write(HERE / "README.md", page.page(counted, compared))


if __name__ == "__main__":
    main()
