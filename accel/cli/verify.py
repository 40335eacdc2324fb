"""`accel verify`: the network beside onnxruntime, node by node."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli.source import add_network, prepared, read_arrays
from accel.cli.terminal import Progress, add_config, command, configuration, make_folder, say, table, write
from accel.config import AcceleratorConfig
from accel.errors import MismatchError, ToolError

if TYPE_CHECKING:  # the model is loaded when it is run: `accel --help` does without
    from accel.verification.compare import Report

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
    from accel.verification.compare import verify

    given = read_arrays(args.inputs)
    found, network = prepared(args, fallback=given)
    inputs = given if isinstance(given, dict) else {network.inputs[0].name: given}
    tell = Progress(f"verify {network.name}")
    report = verify(network, found.graph, config, inputs, pattern=args.pattern, original=found.real, file=found.file, progress=tell)
    told = summary(report)
    if args.out:
        write(args.out / "verify.txt", f"{told}\n")
        write(args.out / "verify.json", report.to_json())
        say(f"the report is in {args.out}")
    print(report.to_json() if args.json else told, end="" if args.json else "\n")
    if report.first is not None:
        raise MismatchError(report.first.fault)


def _check_onnxruntime() -> None:
    try:
        import onnxruntime  # noqa: F401  # here before any work, though it is used elsewhere
    except ImportError as error:
        raise ToolError("onnxruntime must be installed to compare with it (pip install onnxruntime), not missing") from error


def summary(report: Report) -> str:
    """Show a report to a person."""
    headings = ["node", "operator", "elements", "worst LSB", "mean LSB", "differing", "not as rounded once", "allowed LSB"]
    headings += ["saturated", "overflows", "explained"]
    rows = [
        [
            check.node, check.kind, check.elements, check.worst if check.compared else None,
            f"{check.mean:.1e}" if check.compared else "-", check.differing if check.compared else None, check.rounded,
            f"{check.allowed:.1e}", check.saturated, check.overflows, check.explained,
        ]
        for check in report.checks
    ]  # fmt: skip
    parts = [table(headings, rows)]
    ends = [(f"{each.tensor}, from end to end", each) for each in report.outputs]
    ends += [] if isinstance(report.file, str) else [(f"{each.tensor}, graph against file", each) for each in report.file]
    rows = [[what, each.elements, each.worst, each.differing] for what, each in ends]
    parts.append(table(["output", "elements", "worst LSB", "differing"], rows))
    parts += [report.file] if isinstance(report.file, str) and report.file else []
    if report.losses:
        lost = [[each.tensor, f"{each.worst:.3g}", f"{each.sqnr:.1f}"] for each in report.losses]
        parts.append(table(["tensor, quantised against float", "worst", "SQNR dB"], lost))
    if report.first is None:
        parts.append(f"{report.network} on {report.config.name}, {report.samples} samples: every difference is explained")
    else:
        parts.append(f"first node that is not explained: {report.first.node}")
    return "\n\n".join(parts)
