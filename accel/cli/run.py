"""`accel run`: the main job, from a real network to co-simulated RTL."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli.simulate import save
from accel.cli.terminal import Progress, add_config, command, configuration, make_folder, say, table, write
from accel.config import AcceleratorConfig

if TYPE_CHECKING:  # the model is loaded when it is run: `accel --help` does without
    import numpy as np
    from numpy.typing import NDArray

    from accel.graph import Network
    from accel.result import Result

NETWORK = "digits-cnn"
EXAMPLES = """
accel run
accel run --out report --config sat-vcu1525
"""
NOTE = """\
Alone: from onnxruntime's own inputs of the layer, so that what differs is made there. onnxruntime scales and rounds in float32, the
accelerator by an integer multiplier and a shift: they part where the exact value is as near to a rounding tie as the last column says."""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "run", run, EXAMPLES)
    add_config(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out"), help="folder of the report (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Run the main job: digits-cnn over its held-out test images, dense and pruned, beside onnxruntime and through the RTL.

    Writes a report with a figure, JSON, CSV and the Verilog of every block of the accelerator.
    """
    import numpy as np

    from accel.cli.figure import cycles_by_cause
    from accel.engine import simulate
    from accel.graph import builtin, load
    from accel.result import EXCLUDES, SCHEMA_VERSION
    from accel.sim.blocks import BLOCKS
    from accel.sim.harness import check_tools
    from accel.sim.program import cosim_network

    check_tools("verilator")  # before any work
    config, out, path = configuration(args, AcceleratorConfig), args.out, builtin()[NETWORK]
    make_folder(out)
    network = load(NETWORK)
    with np.load(path.with_suffix(".npz")) as data:
        images, labels = data["images"], data["labels"]
    dense = simulate(network, config, pattern="dense")
    pruned = simulate(network, config, images, keep=True, progress=Progress(f"{len(images)} test images on {config.name}"))
    say("running the same images in onnxruntime")
    accuracy = _accuracy(path, images, labels, pruned)
    differences = _differences(path, images, network, pruned)
    say("running one image through the Verilog of the core (builds it first)")
    hardware = cosim_network(network, config, images[:1], simulator="verilator", out=out / "cosim")
    say("writing the Verilog of every block")
    for block in BLOCKS.values():
        if block.kind is type(config):
            write(out / "verilog" / f"{block.name}.v", block.verilog(config))
    facts = {
        "schema_version": SCHEMA_VERSION,
        "excludes": EXCLUDES,
        "network": NETWORK,
        "config": dataclasses.asdict(config),
        "test_images": len(images),
        "accuracy": accuracy,
        "cycles": {"dense": dense.cycles, "pruned": pruned.cycles},
        "compute_cycles": {"dense": dense.compute_cycles, "pruned": pruned.compute_cycles},
        "co-simulation": {"simulator": "verilator", "images": 1, "output rows": hardware.hardware.words, "cycles": hardware.layers},
        "differences from onnxruntime": differences,
    }
    text = _tables(facts, dense, pruned)
    save(dense, out / "dense")
    save(pruned, out / "pruned")
    write(out / "cycles.png", cycles_by_cause(dense, pruned))
    write(out / "report.json", json.dumps(facts, indent=1) + "\n")
    write(out / "report.md", f"# {NETWORK} on {config.name}\n\n```\n{text}\n```\n\n![cycles by cause](cycles.png)\n")
    print(f"{text}\n\nreport: {out / 'report.md'}, figure: {out / 'cycles.png'}, Verilog: {out / 'verilog'}")


def _accuracy(path: Path, images: NDArray[np.float32], labels: NDArray[np.int64], result: Result) -> dict[str, float]:
    """Tell the share of test images that each arithmetic classifies right, and on which ours and onnxruntime's agree."""
    from accel.verification.compare import run_onnxruntime

    (output, logits), *_ = result.outputs.items()
    classes = {
        "float (onnxruntime)": run_onnxruntime(path.with_suffix(".float.onnx"), {"image": images})[output].argmax(axis=1),
        "quantised (onnxruntime)": run_onnxruntime(path, {"image": images})[output].argmax(axis=1),
        "accelerator": logits.argmax(axis=1),
    }
    right = {name: float((found == labels).mean()) for name, found in classes.items()}
    same = classes["accelerator"] == classes["quantised (onnxruntime)"]
    return right | {"agreement of the last two": float(same.mean())}


def _differences(path: Path, images: NDArray[np.float32], network: Network, result: Result) -> list[dict[str, Any]]:
    """Compare each layer with onnxruntime: end to end, and alone, that is from onnxruntime's own inputs of the layer.

    Where a layer alone differs, `tie` is how far from a rounding tie the exact values there lie at most [LSB]: onnxruntime scales and
    rounds in float32, the accelerator by an integer multiplier and a shift, so they part where a value is that near to a half.
    """
    import numpy as np
    import onnx

    from accel.engine import compute, sums
    from accel.schedule.lower import lower, store
    from accel.verification.compare import differences, reference

    config = result.config
    expected = reference(network, onnx.load(path), {"image": images})
    drift = {found.operator: found for found in differences(network, expected, result.tensors)}
    rows = []
    for layer in lower(network, config):
        operator = layer.operator
        if operator.name not in drift or not expected.keys() >= set(operator.inputs):
            continue
        inputs = [expected[name] for name in operator.inputs]
        alone = np.abs(compute(config, layer, inputs)[0] - expected[operator.output])
        tie = np.zeros(alone.shape)
        for job in layer.jobs:
            acc, _, post = sums(config, layer, job, inputs)
            store(layer, job, np.abs(np.mod((acc + post.bias) * post.mult / 2.0**post.shift, 1) - 0.5), tie)
        found = drift[operator.name]
        rows.append(
            {
                "layer": operator.name,
                "operator": operator.kind,
                "outputs": found.elements,
                "worst end to end [LSB]": found.worst,
                "differing end to end": found.differing,
                "worst alone [LSB]": int(alone.max()),
                "differing alone": int(np.count_nonzero(alone)),
                "farthest from a tie [LSB]": float(tie[alone > 0].max(initial=0)),
            }
        )
    return rows


def _tables(facts: dict[str, Any], dense: Result, pruned: Result) -> str:
    """Show the facts to a person."""
    layers = [
        [
            a.name,
            a.operator,
            f"{a.m} x {a.k} x {a.n}",
            b.pattern if b.macs_executed < a.macs_executed else "",
            a.cycles,
            b.cycles,
            100 * b.utilisation,
        ]
        for a, b in zip(dense.layers, pruned.layers, strict=True)
    ]
    layers.append(["all", "", "", "", dense.cycles, pruned.cycles, 100 * pruned.utilisation])
    replayed = facts["co-simulation"]
    compared = f"{replayed['output rows']:,} output rows and the cycles of {len(replayed['cycles'])} layers"
    shares = [[name, f"{share:.2%}"] for name, share in facts["accuracy"].items()]
    apart = facts["differences from onnxruntime"]
    waits = f"{dense.compute_cycles:,} and {pruned.compute_cycles:,} of them computing, the others waiting for memory"
    parts = [
        table([f"on {facts['test_images']} held-out test images", "share"], shares),
        table(["layer", "operator", "m x k x n", "N:M", "cycles dense", "cycles pruned", "busy % pruned"], layers),
        f"cycles of one image: {dense.cycles / pruned.cycles:.2f}x fewer as pruned; {waits}",
        table(list(apart[0]), [[f"{value:.1e}" if isinstance(value, float) else value for value in row.values()] for row in apart]),
        NOTE,
        f"one image in the RTL on {replayed['simulator']}: {compared}, 0 differences",
    ]  # fmt: skip
    return "\n\n".join(parts)
