"""Time bit-accurate training: `python -m reports.bench.training [--rounds N] [--config NAME]`.

One table of steps: ResNet-18 at 224 x 224, one image, for each algorithm, warm. One of epochs: the digits that ship with scikit-learn,
1,437 samples in batches of 32, on digits-cnn, with the accuracy of the samples held out behind the last. One of steps that are only
counted, from shapes. Kernels are compiled, and the first step is done, before. Processor time counts all threads; memory is the most
that the process of a row held, imports included. On a machine that does other work too, trust the best wall clock time and the processor
time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from accel import presets
from accel.engine import simulate
from accel.graph.files import trainable
from accel.training import course, data, reference, step
from accel.training.recipe import ALGORITHMS, Recipe
from reports.bench.kernels import machine
from reports.bench.network import TIMER, measure

RATE = 0.05
BATCH = 64  # of steps that are only counted
NETWORKS = ("resnet9", "vgg19", "vit", "resnet18", "resnet50")
ROW = "from reports.bench.training import row; import sys; row(*sys.argv[1:])"


def image_step(algorithm: str, config: str, rounds: int) -> dict[str, Any]:
    """Time steps of ResNet-18 on one drawn image."""
    network, recipe, accelerator = trainable("resnet18"), Recipe(algorithm=algorithm, batch=1, rate=RATE), presets.load(config)
    x = np.random.default_rng(0).standard_normal((1, *network.shapes[network.input])).astype(np.float32)
    labels = np.zeros(1, np.int64)
    state = step.prepare(network, accelerator, recipe, x, labels)
    integers = step.quantise(network, state, x)
    run = partial(step.step, network, accelerator, recipe, state, integers, labels, RATE)
    run()
    return measure(run, rounds)._asdict()


def digits_epoch(algorithm: str, config: str, rounds: int) -> dict[str, Any]:
    """Time epochs of digits-cnn; return the accuracy behind the last too."""
    network, recipe, accelerator = trainable("digits-cnn"), Recipe(algorithm=algorithm, rate=RATE), presets.load(config)
    samples = data.read("digits", network)
    rows = next(course.batches(len(samples.x), recipe, 0))
    network = reference.draw(network, recipe.seed)
    state = step.prepare(network, accelerator, recipe, samples.x[rows], samples.y[rows])
    x, x_test = (step.quantise(network, state, each) for each in (samples.x, samples.x_test))

    def epoch(number: int) -> None:
        for some in course.batches(len(x), recipe, number):
            step.step(network, accelerator, recipe, state, x[some], samples.y[some], RATE)

    numbers = iter(range(rounds + 2))
    epoch(next(numbers))
    times = measure(lambda: epoch(next(numbers)), rounds)
    right = step.infer(network, accelerator, recipe, state, x_test).argmax(axis=1) == samples.y_test
    return times._asdict() | {"accuracy": float(right.mean())}


def counted_step(network: str, config: str, rounds: int) -> dict[str, Any]:
    """Time how long it takes to schedule a step of BDWP at 2:8 and to count its cycles, from shapes alone."""
    shapes, accelerator = trainable(network), presets.load(config)
    run = partial(simulate, shapes, accelerator, batch=BATCH, training=True)
    run()
    return measure(run, rounds)._asdict()


WHAT = {"resnet18": image_step, "digits-cnn": digits_epoch, "shapes": counted_step}


def row(name: str, which: str, config: str, rounds: str) -> None:
    """Time one row, in a process of its own; print it as JSON."""
    print(json.dumps(WHAT[name](which, config, int(rounds))))


def rows(config: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Time every row; a process before it compiles what it needs."""
    each = (("resnet18", rounds, ALGORITHMS), ("digits-cnn", max(1, rounds // 3), ALGORITHMS), ("shapes", rounds, NETWORKS))
    for name, rounds_of, rows_of in each:
        for which in rows_of:
            command = [sys.executable, "-c", ROW, name, which, config]
            subprocess.run([*command, "1"], check=True, stdout=subprocess.DEVNULL)
            found = subprocess.run([*command, str(rounds_of)], check=True, stdout=subprocess.PIPE, text=True)
            told = subprocess.run([sys.executable, "-c", TIMER, *command, "1"], check=True, stdout=subprocess.PIPE, text=True)
            yield {"network": name, "algorithm": which, "memory": float(told.stdout.split()[2]), **json.loads(found.stdout)}


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Lay out the report as tables in Markdown."""
    for name, unit in (
        ("resnet18", "a step of resnet18, 224 x 224, one image"),
        ("digits-cnn", "an epoch of digits-cnn, 44 batches of 32"),
        ("shapes", f"a step of {BATCH}, from shapes alone"),
    ):
        held_out = " held out [%] |" if name == "digits-cnn" else ""
        yield f"| {unit} | best [s] | median [s] | processor [s] | memory [MiB] |{held_out}"
        yield "|---|---|---|---|---|" + "---|" * bool(held_out)
        for each in report["rows"]:
            if each["network"] == name:
                cells = " | ".join(f"{each[key]:.2f}" for key in ("best", "median", "processor"))
                share = f" {100 * each['accuracy']:.1f} |" if held_out else ""
                yield f"| {each['algorithm']} | {cells} | {each['memory']:.0f} |{share}"
        yield ""


def main() -> None:
    """Print the tables and write `training.json` and `training.md`."""
    parser = argparse.ArgumentParser(prog="python -m reports.bench.training", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="steps that count; of epochs a third of them")
    parser.add_argument("--config", default="sat-vcu1525", help="a preset")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where training.json and training.md go")
    args = parser.parse_args()
    report = {"schema": 1, "machine": machine(), "config": args.config, "rounds": args.rounds, "rows": list(rows(args.config, args.rounds))}
    print("\n".join(lines(report)), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "training.md").write_text("\n".join(lines(report)))


if __name__ == "__main__":
    main()
