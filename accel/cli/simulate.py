"""`accel simulate`: a network on a modelled accelerator."""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli import scalesim, source
from accel.cli.terminal import NAME, Progress, add_config, command, configuration, make_folder, remove, say, table, visible, write
from accel.config import AcceleratorConfig
from accel.errors import RangeError

if TYPE_CHECKING:  # the model is loaded when it is run: `accel --help` does without
    from numpy.typing import NDArray

    from accel.graph.network import Network
    from accel.result import Result
    from accel.step_result import StepResult

EXAMPLES = """
accel simulate digits-cnn
accel simulate digits-cnn --pattern 2:8 --batch 16 --config sat-vcu1525
accel simulate model.onnx --inputs x.npz --out results
accel simulate model.onnx --json | jq .cycles
accel simulate resnet18 --plot resnet18.png --save-schedule resnet18.json
accel simulate resnet18 --schedule resnet18.json --set dram_gbs=12.8
accel simulate resnet18 --compat scalesim --cfg scale.cfg --out results
accel simulate resnet50 --train --batch 64 --config sat-vcu1525
accel simulate resnet50 --train --algorithm dense --batch 64 --config sat-vcu1525 --json
"""


STEP_UNITS = "cycles: the array's, waiting included; alone and other flow: by themselves; vector and update: of their engines, meanwhile"
CUTS = {  # of accel.step_result.StepResult
    "alone": "each the fastest by itself with {}, as alone and other flow are",
    "fixed": "those without scheduling, as no others make the whole step shorter; alone and other flow are with {}",
    "narrow": "those without interleaving, as no others make the whole step shorter; alone and other flow are with {}",
    "picked": "tried in the whole step, product by product; alone and other flow are with {}",
}
UNITS = "units: array and vector have RTL; special is modelled in fixed point; memory only moves; host is float, without cycles"
SHOWN = 12  # our choice: names in one line
SEARCHES = ("best", "exhaustive", "fixed")  # of accel.schedule.search, which is loaded when it is run
ALGORITHMS = ("bdwp", "sr-ste", "sdgp", "dense")  # of accel.schedule.operations, likewise
SWITCHES = {
    "interleave": "independent sums do not fill the stages of an adder",
    "pregeneration": "weights are pruned when they are loaded, not when they are updated",
    "scheduling": "output stationary, the least traffic, layer by layer, for all layers and stages",
}
REFUSED = {  # with --train, and what each is without
    "inputs": None, "schedule": None, "save_schedule": None, "compat": None, "cfg": None, "calibration": None, "seed": None,
    "method": "minmax", "bits": 8,
}  # fmt: skip
PATIENCE = 5.0  # [s] a run that may take longer says so before it starts
SPEED = 4e9  # [MAC/s] measured on two cores, ResNet-18: the order of magnitude
OVERHEAD = 1e-3  # [s] of a layer, likewise


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "simulate", simulate, EXAMPLES)
    source.add_network(parser)
    add_config(parser)
    parser.add_argument(
        "--pattern",
        metavar="N:M",
        help="prune eligible layers (not the first convolution, not the last linear one) to this pattern; `dense` runs all dense "
        "(default: the pattern each layer's weights obey; with --train 2:8)",
    )
    parser.add_argument(
        "--batch",
        metavar="B",
        type=int,
        default=1,
        help="samples taken at once: B times the rows m of each product with weights, B times as many products of two activations "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--inputs", metavar="X", type=Path, help="arrays (samples, ...) by input name, .npz, or one .npy; without it only shapes are used"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="write result.json, layers.csv and, with inputs, outputs.npz there")
    parser.add_argument(
        "--search",
        choices=SEARCHES,
        default="best",
        help="how tiles and dataflows are found; exhaustive is for small networks (default: %(default)s)",
    )
    parser.add_argument("--schedule", metavar="FILE", type=Path, help="replay this schedule instead")
    parser.add_argument("--save-schedule", metavar="FILE", type=Path, help="write the schedule there, to be edited or replayed")
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="draw cycles by cause and the roofline, layer by layer")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    parser.add_argument("--compat", choices=["scalesim"], help="report as SCALE-Sim 3.0.0 does; NETWORK is its topology .csv, or resnet18")
    parser.add_argument(
        "--cfg", metavar="FILE", type=Path, help="SCALE-Sim's architecture (default: the array of --config, outputs stationary)"
    )
    group = parser.add_argument_group("a step of training, by layer and stage, from shapes alone")
    group.add_argument("--train", action="store_true", help="simulate it instead of inference")
    group.add_argument("--algorithm", choices=ALGORITHMS, help=f"which operands are pruned (default: {ALGORITHMS[0]})")
    for name, told in SWITCHES.items():
        group.add_argument(f"--no-{name}", action="store_true", help=told)


def simulate(args: argparse.Namespace) -> None:
    """Run a network on an accelerator: cycles and bytes per layer and, with inputs, every output bit.

    Cycles include memory. Tiles, their order and the dataflow of each layer are searched for, or replayed from a file.
    """
    if args.train:
        train(args)
        return
    for name in ("algorithm", *(f"no_{name}" for name in SWITCHES)):
        if getattr(args, name):
            raise RangeError(f"{name.replace('_', '-')} must come with --train, not alone")
    if args.compat:
        scalesim.simulate(args)
        return
    if args.cfg:
        raise RangeError(f"cfg must come with --compat scalesim, not alone ({str(args.cfg)!r})")
    if args.plot and args.plot.suffix != ".png":
        raise RangeError(f"plot must be a file whose name ends in .png, not {str(args.plot)!r}")
    config, network = configuration(args, AcceleratorConfig), source.network(args)
    inputs = source.read_arrays(args.inputs, network.inputs[0].name) if args.inputs else None
    if args.out:
        make_folder(args.out)
    from accel.engine import simulate as run

    tell = Progress(f"simulate {network.name}")
    how = {"batch": args.batch, "pattern": args.pattern, "schedule": args.schedule, "search": args.search}
    if inputs is not None and (told := estimate(network, run(network, config, **how, progress=tell), inputs)):
        say(told)
    result = run(network, config, inputs, **how, progress=tell)
    if args.save_schedule:
        write(args.save_schedule, result.schedule.to_json())
    if args.plot:
        from accel.cli.figure import schedule as draw

        write(args.plot, draw(result))
    if args.out:
        save(result, args.out)
        say(f"results are in {args.out}")
    print(result.to_json() if args.json else summary(result), end="" if args.json else "\n")


def train(args: argparse.Namespace) -> None:
    """Simulate a step of training.

    Raises
    ------
    RangeError
        If an option means nothing here.
    """
    for name, default in REFUSED.items():
        if getattr(args, name) != default:
            raise RangeError(f"{name.replace('_', '-')} must be left out with --train, which takes shapes alone")
    if args.plot and args.plot.suffix != ".png":
        raise RangeError(f"plot must be a file whose name ends in .png, not {str(args.plot)!r}")
    config, network = configuration(args, AcceleratorConfig), source.trainable(args)
    if args.out:
        make_folder(args.out)
    from accel.engine import simulate as run

    result = run(
        network,
        config,
        batch=args.batch,
        pattern=args.pattern,
        search=args.search,
        progress=Progress(f"simulate {network.name}"),
        training=True,
        algorithm=args.algorithm,
        optimisations=[name for name in SWITCHES if not getattr(args, f"no_{name}")],
    )
    if args.plot:
        from accel.cli.figure import stages as draw

        write(args.plot, draw(result))
    if args.out:
        for file in ("result.json", "layers.csv"):
            remove(args.out / file)
        write(args.out / "layers.csv", result.to_csv())
        write(args.out / "result.json", result.to_json())
        say(f"results are in {args.out}")
    print(result.to_json() if args.json else summary_of_step(result), end="" if args.json else "\n")


def summary_of_step(result: StepResult) -> str:
    """Show a step of training to a person."""
    from accel.schedule.lower import dense

    whole = str(dense(result.config))
    headings = [
        "layer", "operator", "stage", "m", "k", "n", "flow", "N:M", "tile m x n x k", "MACs done", "cycles", "computing", "at least",
        "alone", "other flow", "busy %", "vector", "update", "DRAM KiB",
    ]  # fmt: skip
    rows = [
        [
            x.name, x.operator, x.stage, x.m, x.k, x.n, x.dataflow or "", "dense" if x.pattern == whole else x.pattern or "",
            f"{x.tile_m} x {x.tile_n} x {x.tile_k}" if x.dataflow else "", x.macs_executed, x.cycles, x.compute_cycles, x.bound_cycles,
            x.alone_cycles, x.runner_up, 100 * x.utilisation, x.vector_cycles, x.update_cycles, x.dram / 1024,
        ]
        for x in result.layers
    ]  # fmt: skip
    elements = result.config.rows * result.config.cols
    spent = [f"{cause} {slots / max(elements * result.cycles, 1):.2%}" for cause, slots in result.causes.items() if slots]
    how = result.algorithm if result.algorithm == "dense" else f"{result.algorithm} {result.pattern}"
    engines = ", ".join(f"{name} {cycles / max(result.cycles, 1):.1%}" for name, cycles in result.engines.items())
    stages = ", ".join(f"{stage} {cycles:,}" for stage, cycles in result.stages.items() if cycles)
    off = [name for name in SWITCHES if name not in result.optimisations]
    where = f"{visible(result.network)} on {result.config.name}, {how}, batch {result.batch}"
    time = f"{result.seconds * 1e3:,.3f} ms at {result.config.clock_mhz:g} MHz"
    read, written = (sum(getattr(x, name) for x in result.layers) / 1024 for name in ("dram_read", "dram_written"))
    bandwidth = "all of DRAM's bandwidth" if result.share == 1 else f"1/{result.share} of DRAM's bandwidth, which engines share"
    cuts = CUTS[result.cuts] if "scheduling" in result.optimisations else "output stationary, the least traffic; alone is with {}"
    lines = [
        table(headings, rows),
        "",
        STEP_UNITS,
        f"cuts: {cuts.format(bandwidth)}",
        f"{where}: {result.cycles:,} cycles, {time}, {result.utilisation:.1%} busy",
        f"at least {result.bound_cycles:,} cycles for its multiplications",
        f"the array by stage: {stages}",
        f"slots of its elements: {', '.join(spent)}",
        f"engines at work: {engines}",
        f"DRAM: {read:,.1f} KiB read, {written:,.1f} KiB written",
        f"layers never pruned: {_several(list(result.dense)) or 'none'}",
        *([f"optimisations that are off: {', '.join(off)}"] if off else []),
    ]
    if "interleave" in off and result.config.add_stages == 1:
        lines.append("interleave has no effect: the adder has one stage, which every pair fills")
    return "\n".join(lines)


def estimate(network: Network, shapes: Result, inputs: Mapping[str, NDArray[Any]]) -> str | None:
    """Say about how long a run will take and how much memory, if that is more than PATIENCE; None otherwise.

    Parameters
    ----------
    network : Network
    shapes : Result
        Of the same run without inputs.
    inputs : mapping of str to array, shape (samples, ...)
        As they will be given; what is wrong with them is told by the run.
    """
    from accel.engine import CHUNK

    samples = max((len(array) for array in inputs.values() if array.ndim), default=0)
    passes, macs = samples / shapes.batch, sum(layer.macs_dense for layer in shapes.layers)
    seconds = passes * (macs / SPEED + len(shapes.layers) * OVERHEAD / max(samples, 1))
    if seconds < PATIENCE:
        return None
    largest = max((layer.m * layer.k * layer.groups for layer in shapes.layers), default=1)
    elements = sum(tensor.size for tensor in network.tensors.values())
    size = 8 * (min(samples, max(1, CHUNK // max(largest, 1))) * elements + 4 * max(CHUNK, largest))
    size += sum(array.nbytes for array in inputs.values())
    what = f"{samples:,} {'sample' if samples == 1 else 'samples'}"
    return f"{what} of {macs / shapes.batch:,.0f} MACs: about {seconds:,.0f} s and {size / 2**20:,.0f} MiB"


def save(result: Result, folder: Path) -> None:
    """Write a result's files; ``result.json`` comes last, so that where it is, the others are whole and of the same run."""
    import numpy as np

    for name in ("result.json", "layers.csv", "outputs.npz"):
        remove(folder / name)
    if result.outputs:
        arrays = io.BytesIO()
        np.savez(arrays, allow_pickle=False, **result.outputs)
        write(folder / "outputs.npz", arrays.getvalue())
    write(folder / "layers.csv", result.to_csv())
    write(folder / "result.json", result.to_json())


def summary(result: Result) -> str:
    """Show a result to a person."""
    from accel.schedule.lower import dense

    whole = str(dense(result.config))
    headings = [
        "layer", "operator", "unit", "m", "k", "n", "groups", "flow", "N:M", "tile m x n x k", "MACs done", "cycles", "computing",
        "at least", "other flow", "busy %", "DRAM KiB", "MAC/B", "roof", "overflows",
    ]  # fmt: skip
    rows = [
        [
            x.name, x.operator, x.unit, x.m, x.k, x.n, x.groups, x.dataflow or "", "dense" if x.pattern == whole else x.pattern or "",
            f"{x.tile_m} x {x.tile_n} x {x.tile_k}" if x.dataflow else "", x.macs_executed, x.cycles, x.compute_cycles, x.bound_cycles,
            x.runner_up, 100 * x.utilisation, x.dram / 1024, x.roof and x.roof.intensity, x.roof.bound_by if x.roof else "", x.overflowed,
        ]
        for x in result.layers
    ]  # fmt: skip
    elements = result.config.rows * result.config.cols
    loads, stores = (sum(x.causes[cause] for x in result.layers) // elements for cause in ("wait load", "wait store"))
    read, weights, written = (
        sum(getattr(x, name) for x in result.layers) / 1024 for name in ("dram_read_activations", "dram_read_weights", "dram_written")
    )
    units = Counter(x.unit for x in result.layers)
    hosts = [x.name for x in result.layers if x.unit == "host"]
    stored, indices = (sum(getattr(x, name) for x in result.layers) / 8192 for name in ("weight_bits", "index_bits"))
    time = f"{result.seconds * 1e6:,.1f} us at {result.config.clock_mhz:g} MHz"
    where = f"{visible(result.network)} on {result.config.name}, batch {result.batch}"
    cycles = f"{result.cycles:,} cycles{' without host' if hosts else ''}"
    lines = [
        table(headings, rows),
        "",
        UNITS,
        *([f"host (float, no cycles): {_several(hosts)}"] if hosts else []),
        f"{where}: {cycles}, {time}, {result.utilisation:.1%} busy",
        f"of these cycles {result.compute_cycles:,} are computing, {loads:,} wait for loads and {stores:,} for stores",
        f"DRAM: {read:,.1f} KiB of activations and {weights:,.1f} KiB of weights read, {written:,.1f} KiB written",
        f"tensors that stay on chip: {sum(each.kept for each in result.traffic.values())} of {len(result.traffic)}",
        f"layers by unit: {', '.join(f'{unit} {count}' for unit, count in units.items())}",
        f"weights: {stored:,.1f} KiB of values, {indices:,.1f} KiB of N:M indices",
    ]
    removed = [f"{visible(x.name, NAME)} {x.energy_removed:.2%}" for x in result.layers if x.energy_removed]
    if removed:
        lines.append(f"energy removed by pruning: {', '.join(removed)}")
    for name, values in result.outputs.items():
        tensor = result.formats[name]
        form = f"{'unsigned' if tensor.unsigned else 'signed'} {tensor.bits} bit, scale {tensor.scale:g}"
        lines.append(f"output {visible(name, NAME)}: {values.shape}, {form}, zero point {tensor.zero_point + tensor.offset}")
    return "\n".join(lines)


def _several(names: list[str]) -> str:
    """Join names, the first few of many."""
    told = ", ".join(visible(name, NAME) for name in names[:SHOWN])
    return told if len(names) <= SHOWN else f"{told} and {len(names) - SHOWN} more"
