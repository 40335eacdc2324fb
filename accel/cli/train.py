"""`accel train`: sparse training over epochs, bit by bit as the accelerator does it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EISDIR
from os import strerror
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli import source
from accel.cli.terminal import NAME, Progress, command, configuration, say, table, visible, write
from accel.config import AcceleratorConfig
from accel.errors import NetworkError, RangeError

if TYPE_CHECKING:  # the model is loaded when it is run: `accel --help` does without
    from accel.training.course import Epoch
    from accel.training.loop import TrainingResult

EXAMPLES = """
accel train digits-cnn --data digits --epochs 10 --out run
accel train digits-cnn --data digits --resume run
accel train model.onnx --data samples.npz --algorithm sr-ste --pattern 2:4 --out run --plot curves.png
accel train digits-cnn --data digits --config sat-vcu1525-int8 --rounding stochastic --json
"""
DEFAULT = "sat-vcu1525"
SHOWN = 12  # our choice: epochs in the table at the end, and tensors in one line
FIELDS = (
    "algorithm", "pattern", "dense", "epochs", "batch", "rate", "schedule", "momentum", "decay", "sparse_decay", "refresh", "rounding",
    "seed", "weights",
)  # fmt: skip


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "train", train, EXAMPLES)
    parser.add_argument("network", metavar="NETWORK", help="an ONNX file, or a name of `accel list networks`")
    parser.add_argument(
        "--data", metavar="DATA", required=True, help="digits, or an .npz file of x (n, ...) and y (n,), maybe x_test and y_test, else a "
        "fifth is held out; integers are divided by their largest magnitude",
    )  # fmt: skip
    parser.add_argument(
        "--shapes", metavar="NAME=D,D,...", action="append", default=[],
        help="size of a graph input, the batch included, where the file leaves it open; may be given often",
    )  # fmt: skip
    parser.add_argument("--config", metavar="C", help="a preset or a YAML file (default: sat-vcu1525)")
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", dest="changes", action="append", default=[], help="change a field of it; may be given often"
    )
    group = parser.add_argument_group("how it is trained; in a run that goes on, as it was begun")
    group.add_argument("--algorithm", metavar="A", help="bdwp, sr-ste, sdgp or dense (default: bdwp)")
    group.add_argument("--pattern", metavar="N:M", help="what is pruned to (default: 2:8)")
    group.add_argument(
        "--dense", metavar="LAYER", nargs="*", help="layers never pruned (default: the first convolution, the last linear one)"
    )
    group.add_argument("--epochs", metavar="E", type=int, help="passes over the training samples (default: 30)")
    group.add_argument("--batch", metavar="B", type=int, help="samples of a step (default: 32)")
    group.add_argument("--rate", metavar="R", type=float, help="learning rate at the start (default: 0.05)")
    group.add_argument("--schedule", metavar="S", help="of the rate: cosine, down to 0, or constant (default: cosine)")
    group.add_argument("--momentum", metavar="M", type=float, help="of the updates, below 1 (default: 0.9)")
    group.add_argument("--decay", metavar="D", type=float, help="of weights (default: 0.0005)")
    group.add_argument("--sparse-decay", metavar="D", type=float, help="further one of pruned weights (default: 0.0002 of sr-ste, else 0)")
    group.add_argument("--refresh", metavar="T", type=int, help="steps from one choice of the kept weights to the next (default: 1)")
    group.add_argument("--rounding", metavar="R", help="of the working copy of weights: half_even or stochastic (default: half_even)")
    group.add_argument("--seed", metavar="S", type=int, help="of weights, order and stochastic rounding (default: 0)")
    group.add_argument("--weights", metavar="W", help="first ones: drawn from the seed, or those of the file (default: drawn)")
    group = parser.add_argument_group("what is kept")
    group.add_argument(
        "--out", metavar="DIR", type=Path, help="checkpoints and, at the end, model.onnx, quantised.onnx, history.csv and training.json"
    )
    group.add_argument("--resume", metavar="DIR", type=Path, help="go on with the run in this folder, from its last whole checkpoint")
    group.add_argument("--plot", metavar="FILE.png", type=Path, help="draw loss, accuracies and saturated elements by epoch")
    group.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")


def train(args: argparse.Namespace) -> None:
    """Train a network on an accelerator, bit by bit: sparse products, fixed-point gradients and updates.

    A checkpoint is written after every epoch; a run that was killed goes on with --resume, and ends with the same bytes.
    """
    if args.plot and args.plot.suffix != ".png":
        raise RangeError(f"plot must be a file whose name ends in .png, not {str(args.plot)!r}")
    if args.plot:
        _check_writable(args.plot)
    if args.out and args.resume and args.out != args.resume:
        raise RangeError(f"out must be left out with resume, or be the same folder, not {str(args.out)!r}")
    folder = args.resume or args.out
    config = configuration(args, AcceleratorConfig, DEFAULT) if args.config or args.changes else None
    from accel.training.loop import train as run
    from accel.training.recipe import IDLE

    idle = [f"--{name.replace('_', '-')}" for name in IDLE.get(args.algorithm, ()) if getattr(args, name) is not None]
    if idle:
        say(
            f"{' and '.join(idle)} {'is' if len(idle) == 1 else 'are'} of no use with --algorithm {args.algorithm}, which prunes no weights"
        )
    what = visible(Path(args.network).stem if args.network.endswith(".onnx") else args.network, NAME)
    tell = Progress(f"train {what}")
    try:
        with _telling():
            result = run(
                args.network,
                args.data,
                config,
                **{name: getattr(args, name) for name in FIELDS},
                shapes=dict(map(source.shape, args.shapes)) or None,
                out=args.out,
                resume=args.resume,
                progress=tell,
                report=report,
            )
    except (KeyboardInterrupt, SystemExit):
        _interrupted(folder)
        raise
    if args.plot:
        from accel.cli.figure import curves

        write(args.plot, curves(result))
    if folder:
        say(_kept(result, folder))
    print(result.to_json() if args.json else summary(result), end="" if args.json else "\n")


def _check_writable(plot: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold; nothing is left there."""
    try:
        if plot.is_dir():
            raise IsADirectoryError(EISDIR, strerror(EISDIR))
        tempfile.TemporaryFile(dir=next(folder for folder in plot.parents if folder.exists())).close()
    except (OSError, ValueError) as error:  # the latter for a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise RangeError(f"plot must be a file that can be written, not {str(plot)!r} ({reason})") from None


def _kept(result: TrainingResult, folder: Path) -> str:
    """Say where the trained network is."""
    from accel.training.loop import MODEL, QUANTISED

    told = f"the trained network is in {folder / MODEL} (floats)"
    if (folder / QUANTISED).exists():
        return f"{told} and {folder / QUANTISED} (the integers of training)"
    try:
        result.to_onnx(quantised=True)
    except NetworkError as error:
        return f"{told}; {QUANTISED} is left out: {error}"
    return told


@contextmanager
def _telling() -> Iterator[None]:
    """Tell each warning in a line, at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: say(str(message))
        yield


def _interrupted(folder: Path | None) -> None:
    """Say how to go on."""
    from accel.training.checkpoint import holds

    if sys.stderr.isatty():
        print(file=sys.stderr)
    if folder is None:
        say("nothing is kept, as there is no --out")
    elif holds(folder):
        say(f"go on with the same NETWORK and --data, and --resume {folder}")
    else:
        say("nothing is kept yet: the first checkpoint was still to come")


def report(epoch: Epoch) -> None:
    """Tell of an epoch in a line."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    overflowed = sum(epoch.overflowed.values())
    told = [
        f"epoch {epoch.epoch}: loss {epoch.loss:.4f}",
        f"training {epoch.accuracy:.2%}",
        f"held out {epoch.held_out:.2%}",
        f"{sum(epoch.saturated.values()):,} saturated",
        *([f"{overflowed:,} sums overflowed"] if overflowed else []),
    ]
    say(", ".join(told))


def summary(result: TrainingResult) -> str:
    """Show a run to a person."""
    from accel.training.course import pruned

    every = -(-len(result.curves) // SHOWN)
    rows = [
        [x.epoch, f"{x.loss:.4f}", 100 * x.accuracy, 100 * x.held_out, sum(x.saturated.values()), sum(x.overflowed.values())]
        for x in result.curves
        if (len(result.curves) - x.epoch) % every == 0
    ]
    recipe, names = result.recipe, [visible(name, NAME) for name in sorted(pruned(result.network, result.recipe))]
    how = recipe.algorithm if recipe.algorithm == "dense" else f"{recipe.algorithm} {recipe.pattern}"
    steps = len(result.data.x) // recipe.batch
    course = f"{_count(result.epochs, 'epoch')} of {_count(steps, 'step')} of {recipe.batch}"
    where = f"{visible(result.network.name)} on {result.config.name}: {how}, {course}"
    over, dropped = len(result.data.x) % recipe.batch, [visible(name, NAME) for name in result.network.dropped]
    counts = [f"{visible(name, NAME)} {count:,}" for name, count in result.saturated.items()]
    sums = [f"{visible(name, NAME)} {count:,}" for name, count in result.overflowed.items()]
    return "\n".join(
        [
            table(["epoch", "loss", "training %", "held out %", "saturated", "overflowed"], rows),
            "",
            where,
            *([f"pruned: {_several(names) or 'none'}"] if recipe.algorithm != "dense" else []),
            *([f"left out of the network: {_several(dropped)}"] if dropped else []),
            *([f"left out of each epoch: {over:,} of {_count(len(result.data.x), 'sample')}, too few for a batch"] if over else []),
            f"held out: {result.accuracy:.2%} of {len(result.data.x_test):,} samples of {visible(result.data.name)}",
            f"saturated elements: {_several(counts) or 'none'}",
            f"sums that left the accumulator: {_several(sums) or 'none'}",
        ]
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _several(told: list[str]) -> str:
    """Join texts, the first few of many."""
    return ", ".join(told) if len(told) <= SHOWN else f"{', '.join(told[:SHOWN])} and {len(told) - SHOWN} more"
