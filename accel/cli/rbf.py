"""`accel rbf`: radial-basis networks, from data to hardware."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli.terminal import command, is_device, make_folder, say, table, write
from accel.config import AcceleratorConfig
from accel.errors import RangeError

if TYPE_CHECKING:  # numpy and the model are loaded when they are used: `accel --help` does without
    from accel.rbf import RbfModel
    from accel.rbf.data import Dataset

EXAMPLES = """
accel rbf fit iris --neurons 8 --out iris.json
accel rbf simulate iris.json iris
accel rbf cosim iris.json iris --samples 20
accel rbf verilog iris.json -o iris.v
"""
FIT = """
accel rbf fit iris --neurons 8 --out iris.json
accel rbf fit table.csv --target price --neurons 20 --method ols --out price.json
accel rbf fit breast-cancer --neurons 4 --units 4 --error 0.001 --out cancer.json
"""
SIMULATE = """
accel rbf simulate iris.json iris
accel rbf simulate price.json table.csv --out y.csv --clock 100
accel rbf simulate iris.json new.npz --json -
"""
VERILOG = """
accel rbf verilog iris.json -o iris.v
"""
COSIM = """
accel rbf cosim iris.json iris
accel rbf cosim iris.json iris --samples 150 --simulator icarus
"""
DATA = "a CSV file with a row of names, an .npz file with x and y, or iris, wine, breast-cancer, digits or diabetes"
SCHEMA_VERSION = 1


def add(commands: Any) -> None:
    """Add the subcommand and its own."""
    jobs = command(commands, "rbf", rbf, EXAMPLES).add_subparsers(title="commands", required=True, metavar="COMMAND")

    parser = command(jobs, "fit", fit, FIT)
    parser.add_argument("data", metavar="DATA", help=DATA)
    parser.add_argument("--neurons", metavar="H", type=int, required=True, help="hidden neurons, 1 to 1024")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="where the model is written, as JSON")
    parser.add_argument(
        "--target", metavar="T", help="column of a CSV file to predict: its name, or its position from 0 (default: the last)"
    )
    parser.add_argument("--task", metavar="T", help="classification or regression (default: what the target looks like)")
    parser.add_argument("--method", metavar="M", default="kmeans", help="how centres are found: kmeans or ols (default: %(default)s)")
    parser.add_argument("--output", metavar="O", help="linear or sigmoid (default: sigmoid for classes, otherwise linear)")
    parser.add_argument("--bits", metavar="B", type=int, default=16, help="width of every word, 8 to 24 (default: %(default)s)")
    parser.add_argument("--units", metavar="U", type=int, help="neurons in hardware, which take turns (default: 4, or all of fewer)")
    parser.add_argument(
        "--error", metavar="E", type=float, help="largest error of the Gaussian and the sigmoid unit (default: 2^-11, or 2^(1 - bits))"
    )
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of what is drawn at random (default: %(default)s)")
    parser.add_argument("--test", metavar="F", type=float, default=0.25, help="fraction that is held out, 0 to 0.5 (default: %(default)s)")

    parser = command(jobs, "simulate", simulate, SIMULATE)
    _add_model(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="write outputs and predictions of every sample, .npz or .csv")
    parser.add_argument("--clock", metavar="MHZ", type=float, help="clock, to turn cycles into seconds")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - is standard output, instead of a table")

    parser = command(jobs, "verilog", verilog, VERILOG)
    parser.add_argument("model", metavar="MODEL", type=Path, help="a file of `accel rbf fit`")
    parser.add_argument("-o", dest="file", metavar="FILE", required=True, help="where to write; the rows go beside it, as .mem")

    parser = command(jobs, "cosim", cosim, COSIM)
    _add_model(parser)
    parser.add_argument("--samples", metavar="N", type=int, default=50, help="as many, evenly chosen (default: %(default)s)")
    parser.add_argument("--simulator", metavar="S", default="verilator", help="verilator or icarus (default: %(default)s)")
    parser.add_argument("--waves", action="store_true", help="keep a waveform of the whole run")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("out/cosim"),
        help="folder of the mismatch report (default: %(default)s)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="a file of `accel rbf fit`")
    parser.add_argument("data", metavar="DATA", help=f"{DATA}; a CSV file's columns are found by the names in the model")


def rbf(args: argparse.Namespace) -> None:
    """Train a radial-basis network, run it in fixed point, and write its hardware."""


def fit(args: argparse.Namespace) -> None:
    """Train a radial-basis network and bring it to fixed point.

    Says how well it does in floating and in fixed point, on the samples it was trained with and on those held out.
    """
    from accel.rbf import fit as train
    from accel.rbf.data import read

    _prepare("out", args.out, args.data)
    data = read(args.data, args.target)
    if data.y is None:
        raise RangeError(f"{args.data}: y must be given, not missing")
    options = {name: getattr(args, name) for name in ("neurons", "method", "output", "bits", "units", "error", "seed", "test", "task")}
    say(f"training {args.neurons} neurons on {data.name}")
    model = train(data.x, data.y, features=data.features, target=data.target, name=f"{data.name}-{args.neurons}", **options)
    model.save(args.out)
    say(f"the model is in {args.out}")
    print(summary(model))


def summary(model: RbfModel) -> str:
    """Show a trained network to a person."""
    config, told = model.config, model.training
    kinds = f"{len(model.labels)} classes" if model.labels else "regression"
    head = f"{config.name}: {config.dims} features, {config.neurons} neurons ({config.units} in hardware), {kinds}, {config.output} output"
    scores = [[part, told[name], *told["scores"][part].values()] for part, name in (("training", "samples"), ("held out", "held out"))
              if part in told["scores"]]  # fmt: skip
    formats = {"sample, centre": config.x, "squared distance": config.distance, "width": config.width, "exponent": config.gaussian.operand,
               "activation": config.gaussian.result, "weight, bias": config.weight, "sum": config.sum, "result": config.result}  # fmt: skip
    rows = [[name, str(form), form.lo * 2.0**-form.frac, form.hi * 2.0**-form.frac] for name, form in formats.items()]
    return "\n".join(
        [
            head,
            f"widths: {told['width rule']} x {told['width factor']:.3g}; penalty of the weights: {told['penalty']:.1e}",
            "",
            table(["samples", "count", f"{model.measure} float", f"{model.measure} fixed"], [_short(row) for row in scores]),
            "",
            table(["word", "format", "least", "greatest"], [_short(row) for row in rows]),
        ]
    )


def simulate(args: argparse.Namespace) -> None:
    """Run data through a trained network, bit by bit as the hardware computes it, and beside it in floating point."""
    model, data = _read(args)
    if args.clock is not None:
        AcceleratorConfig(clock_mhz=args.clock)  # its rule
    if args.out and args.out.suffix not in (".npz", ".csv"):
        raise RangeError(f"out must be a file called .npz or .csv, not {str(args.out)!r}")
    if args.out:
        _prepare("out", args.out, args.model, args.data)
    if args.json not in (None, "-"):
        _prepare("json", Path(args.json), args.model, args.data, *filter(None, [args.out]))
    result = _result(model, data, args.clock)
    arrays = result.pop("arrays")
    if args.out:
        write(args.out, _npz(arrays) if args.out.suffix == ".npz" else _csv(arrays))
        say(f"results are in {args.out}")
    text = json.dumps(result, indent=1) + "\n"
    if args.json not in (None, "-"):
        write(Path(args.json), text)
        say(f"the result is in {args.json}")
    if args.json == "-":
        sys.stdout.write(text)
    else:
        rows = [[name.replace("_", " "), value] for name, value in result.items() if name not in ("schema_version", "sha256")]
        print(table(["what", "figure"], [[name, _figure(value)] for name, value in rows]))


def _result(model: RbfModel, data: Dataset, clock: float | None) -> dict[str, Any]:
    """Simulate and compare; `arrays` are those of every sample."""
    import numpy as np

    from accel.timing.rbf_network import rbf_network as cycles

    fixed, exact = model.simulate(data.x), model.reference(data.x)
    integers = np.rint(fixed.values * 2.0**model.config.result.frac).astype(np.int64)
    scores = [None if data.y is None else model.score(outputs.predictions, data.y) for outputs in (exact, fixed)]
    count = cycles(model.config, len(data.x)) if len(data.x) else 0
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model.config.name,
        "data": data.name,
        "samples": len(data.x),
        "measure": model.measure,
        **dict(zip(("float", "fixed"), scores, strict=True)),
        "agreement": float(np.mean(fixed.predictions == exact.predictions)) if model.labels else None,
        "largest_difference": float(np.abs(fixed.values - exact.values).max(initial=0)),
        "cycles": count,
        "clock_mhz": clock,
        "seconds": clock and count / (clock * 1e6),
        "sha256": hashlib.sha256(integers.astype("<i8").tobytes()).hexdigest(),
        "arrays": {
            "integers": integers,
            "values": fixed.values,
            "predictions": fixed.predictions,
            "float_values": exact.values,
            "float_predictions": exact.predictions,
        },
    }


def verilog(args: argparse.Namespace) -> None:
    """Write the Verilog of a trained network's hardware, and beside it the rows that its port `params` is to be given."""
    from accel.cli.verilog import convert
    from accel.rbf import RbfModel
    from accel.sim.blocks import BLOCKS
    from accel.sim.rbf import memory_file

    model, file = RbfModel.load(args.model), Path(args.file)
    if args.file == "-" or file.suffix == ".mem":
        raise RangeError(f"-o must be a file that is not called .mem, not {args.file!r}")
    for written in (file, file.with_suffix(".mem")):
        _prepare("-o", written, args.model)
    convert(BLOCKS["rbf_network"], model.config, args.file)
    if not is_device(file):
        write(file.with_suffix(".mem"), memory_file(model))
        say(f"{model.config.neurons + 1:,} rows of parameters are in {file.with_suffix('.mem')}")


def cosim(args: argparse.Namespace) -> None:
    """Run samples through the Verilog of a trained network that is loaded with the model; compare every bit and every cycle."""
    import numpy as np

    from accel.sim.rbf import cosim_model

    model, data = _read(args)
    if args.samples < 1:
        raise RangeError(f"samples must be 1 or more, not {args.samples}")
    chosen = data.x[np.linspace(0, len(data.x) - 1, min(args.samples, len(data.x))).astype(np.int64)]
    say(f"{len(chosen)} samples of {data.name} through the Verilog of {model.config.name} on {args.simulator}")
    found = cosim_model(model, model.quantise(chosen), simulator=args.simulator, waves=args.waves, out=args.out)
    if found.waveform:
        say(f"waveform: {found.waveform}")
    headings = ["network", "simulator", "samples", "cycles", "differences", "build s", "run s"]
    print(table(headings, [[model.config.name, found.simulator, found.words, sum(found.spans), 0, found.build_seconds, found.run_seconds]]))


def _prepare(name: str, file: Path, *others: str | Path) -> None:
    """Make the folder of a file that is to be written; refuse what is none, and one that the command reads or writes itself."""
    if is_device(file):
        return
    if file.is_dir() or str(file) == "-":
        raise RangeError(f"{name} must be a file, not {str(file)!r}")
    if file.resolve() in [Path(other).resolve() for other in others]:
        raise RangeError(f"{name} must be another file than the command's others, not {str(file)!r}")
    make_folder(file.parent)


def _read(args: argparse.Namespace) -> tuple[RbfModel, Dataset]:
    """Read a model and data for it."""
    from accel.rbf import RbfModel
    from accel.rbf.data import read

    model = RbfModel.load(args.model)
    data = read(args.data, model.target, model.features)
    if data.x.shape[1] != model.config.dims:
        raise RangeError(f"{args.data}: features must be {model.config.dims}, as in {args.model}, not {data.x.shape[1]}")
    if not len(data.x):
        raise RangeError(f"{args.data}: samples must be 1 or more, not 0")
    return model, data


def _npz(arrays: dict[str, Any]) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _csv(arrays: dict[str, Any]) -> str:
    """Write a line per sample; arrays of several columns are numbered."""
    columns: dict[str, list[Any]] = {}
    for name, array in arrays.items():
        several = array.ndim == 2 and array.shape[1] > 1
        parts = array.reshape(len(array), -1).T.tolist()
        columns |= {f"{name}_{k}" if several else name: part for k, part in enumerate(parts)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _figure(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(row: list[Any]) -> list[Any]:
    return [f"{value:.6g}" if isinstance(value, float) else value for value in row]
