"""`accel verify`: the network beside onnxruntime, node by node."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli.simulate import add_network, read_arrays
from accel.cli.terminal import Progress, add_config, command, configuration, make_folder, say, write
from accel.config import AcceleratorConfig
from accel.errors import MismatchError, NetworkError, RangeError, ToolError

if TYPE_CHECKING:  # the model is loaded when it is run: `accel --help` does without
    from numpy.typing import NDArray

    from accel.graph.graph import Graph
    from accel.graph.network import Network

EXAMPLES = """
accel verify digits-cnn --inputs images.npz
accel verify model.onnx --inputs x.npz --config sat-vcu1525 --json
accel verify float.onnx --inputs x.npz --calibration samples.npz --out report
"""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "verify", run, EXAMPLES)
    add_network(parser)
    parser.add_argument("--inputs", metavar="X", type=Path, required=True, help="arrays (samples, ...) by input name, .npz, or one .npy")
    add_config(parser)
    parser.add_argument("--pattern", metavar="N:M", help="prune eligible layers as `accel simulate --pattern` does; `dense` runs all dense")
    parser.add_argument("--calibration", metavar="X", type=Path, help="samples that a float network is quantised by (default: the inputs)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write verify.json and verify.txt there")


def run(args: argparse.Namespace) -> None:
    """Run a network node by node beside onnxruntime, and tell whether every difference is explained.

    Each operator is fed with onnxruntime's own integers; its result is compared with onnxruntime's and with the exact real result, rounded
    once. The first node whose difference the stated arithmetic does not explain is named, and the exit code is 1.
    """
    config = configuration(args, AcceleratorConfig)
    _check_onnxruntime()
    if args.out:
        make_folder(args.out)
    from accel.cli.beside import verify

    network, graph, original, file, inputs = _prepare(args.network, args.inputs, args.calibration)
    tell = Progress(f"verify {network.name}")
    report = verify(network, graph, config, inputs, pattern=args.pattern, original=original, file=file, progress=tell)
    if args.out:
        write(args.out / "verify.txt", f"{report}\n")
        write(args.out / "verify.json", report.to_json())
        say(f"the report is in {args.out}")
    print(report.to_json() if args.json else report, end="" if args.json else "\n")
    if report.first is not None:
        raise MismatchError(report.first.fault)


def _check_onnxruntime() -> None:
    try:
        import onnxruntime  # noqa: F401  # here before any work, though it is used elsewhere
    except ImportError as error:
        raise ToolError("onnxruntime must be installed to compare with it (pip install onnxruntime), not missing") from error


def _prepare(
    source: str, given: Path, calibration: Path | None
) -> tuple[Network, Graph, Graph | None, Path | None, dict[str, NDArray[Any]]]:
    """Read a network as :func:`accel.load` does.

    Returns the network, its canonical graph, the float graph if it was quantised here, else the file, and the inputs.
    """
    from accel.graph.calibrate import calibrate
    from accel.graph.files import builtin, canonical, is_float
    from accel.graph.fold import bind, fold
    from accel.graph.named import BUILDERS
    from accel.graph.onnx import network
    from accel.graph.read import read

    if source in BUILDERS:
        raise NetworkError(f"network must have weights to verify, not be {source!r}, shapes only")
    file = builtin().get(source, Path(source))
    if file.suffix == ".csv":
        raise NetworkError(f"network must be an ONNX file, not the topology {str(file)!r}, shapes only")
    graph = canonical(bind(read(file)))
    name = next(iter(graph.inputs), "")
    inputs = read_arrays(given, name)
    if not is_float(graph):
        if calibration is not None:
            raise RangeError(f"calibration must be given with a float network, not with {source!r}, which is quantised")
        return network(graph, graph.name), graph, None, file, inputs
    samples = inputs if calibration is None else read_arrays(calibration, name)
    quantised = fold(calibrate(graph, samples))
    return network(quantised, graph.name), quantised, graph, None, inputs
