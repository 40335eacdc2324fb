"""`accel cosim`: the hardware against the model."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli import source
from accel.cli.terminal import Progress, add_config, command, configuration, described, make_folder, say, table
from accel.config import AcceleratorConfig
from accel.errors import RangeError

if TYPE_CHECKING:
    from accel.sim.program import NetworkCosim
    from accel.sim.tiles import TileCosim

CASES = 20  # our choice
BATCH, STEPS = 2, 2  # our choice: of training
EXAMPLES = """
accel cosim
accel cosim gaussian sigmoid --set stages=3
accel cosim stce postprocess --config tiny --simulator icarus
accel cosim stce --cases 2000 --seed 7 --waves
accel cosim --network digits-cnn --config edge-int8
accel cosim --network resnet18 --tiles --config edge-int8
accel cosim --network digits-cnn --train --algorithm bdwp --pattern 2:4 --batch 2
"""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "cosim", cosim, EXAMPLES)
    parser.add_argument("blocks", metavar="BLOCK", nargs="*", help="names of `accel list blocks` (default: all)")
    source.add_network(parser, option=True)
    parser.add_argument("--tiles", action="store_true", help="of the network, a random tile of the schedule of every layer instead of all")
    parser.add_argument(
        "--pattern",
        metavar="N:M",
        help="of the network, prune eligible layers as `accel simulate --pattern` does; of training, default 2:4",
    )
    parser.add_argument(
        "--train", action="store_true", help="of the network, training steps: products in the core, updates in wuve, prunings in sore"
    )
    parser.add_argument("--algorithm", metavar="A", help="of training: bdwp, sr-ste, sdgp or dense (default: bdwp)")
    parser.add_argument("--batch", metavar="B", type=int, help="of training: random samples of a step (default: 2)")
    parser.add_argument("--steps", metavar="T", type=int, help="of training: from the second on pruned weights are used (default: 2)")
    add_config(parser, default=None)
    parser.add_argument("--simulator", metavar="S", default="verilator", help="verilator or icarus (default: %(default)s)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of cases, samples, tiles and weights (default: %(default)s)")
    parser.add_argument("--cases", metavar="N", type=int, help=f"random cases per block (default: {CASES})")
    parser.add_argument("--waves", action="store_true", help="keep a waveform of the whole run; of a case that differs one is kept anyway")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("out/cosim"), help="folder of the mismatch report (default: %(default)s)"
    )


def cosim(args: argparse.Namespace) -> None:
    """Run the Verilog of blocks, or layers of a network in the Verilog of the core, and compare every bit and every cycle with the model.

    The core is the array, the vector unit and the post-processor: other operators of a network (softmax, layer normalisation, lookup, what
    the host computes) have no RTL; the model computes them, and their number is printed. Cycles of layers are those of computing, without
    memory.

    The first difference ends the run: where it is (block, case, layer, tile, cycle, signal), what was expected and what came are printed
    and written to a report.
    """
    if args.network and args.blocks:
        raise RangeError(f"network must be given without blocks, not with {' '.join(args.blocks)}")
    if args.network and args.cases is not None:
        raise RangeError(f"cases must be given with blocks, not with a network: {args.cases}")
    for option in ("tiles", "pattern", "train"):
        if getattr(args, option) and not args.network:
            raise RangeError(f"{option} must be given with a network, not alone")
    for option in ("algorithm", "batch", "steps"):
        if (value := getattr(args, option)) is not None and not args.train:
            raise RangeError(f"{option} must be given with --train, not alone ({value!r})")
    unused = [("tiles", False), ("waves", False), ("calibration", None), ("bits", 8), ("method", "minmax")]
    for option, usual in unused:
        if getattr(args, option) != usual and args.train:
            raise RangeError(f"{option} must be given without --train, not with it")
    for option in ("batch", "steps"):
        if (value := getattr(args, option)) is not None and value < 1:
            raise RangeError(f"{option} must be 1 or more, not {value}")
    if args.seed < 0:
        raise RangeError(f"seed must be 0 or more, not {args.seed}")
    if args.waves:
        make_folder(args.out)
    if args.train:
        _training(args)
    elif args.network:
        _network(args)
    else:
        _blocks(args)


def _blocks(args: argparse.Namespace) -> None:
    from accel.sim.harness import cosim as run

    pairs = described(args, args.blocks)  # all of them before any work
    cases = CASES if args.cases is None else args.cases
    tell = Progress(f"cosim on {args.simulator}")
    results = []
    for done, (block, config) in enumerate(pairs):
        tell(done, len(pairs), block.name)
        results.append(run(block.name, config, args.simulator, args.seed, cases, args.waves, out=args.out))
    tell(len(pairs), len(pairs), "done")
    for result in results:
        _waveform(result.block, result.waveform)
    headings = ["block", "config", "simulator", "cases", "words compared", "cycles", "differences", "build s", "run s"]
    rows = [[r.block, r.config, r.simulator, r.cases, r.words, r.cycles, 0, r.build_seconds, r.run_seconds] for r in results]
    print(table(headings, rows))


def _network(args: argparse.Namespace) -> None:
    import numpy as np

    from accel.sim.harness import check_tools
    from accel.sim.program import cosim_network as run
    from accel.sim.tiles import cosim_tiles
    from accel.sparsity import Pattern

    config = configuration(args, AcceleratorConfig, "tiny")
    check_tools(args.simulator)  # before any work
    pattern = Pattern.parse(args.pattern) if args.pattern else None
    network, rng = source.network(args), np.random.default_rng(args.seed)
    inputs = {}
    for port in network.inputs:
        tensor = network.tensors[port.tensor]
        sample = rng.integers(tensor.format.lo, tensor.format.hi, (1, *tensor.shape), endpoint=True)
        inputs[port.name] = tensor.dequantise(sample) if port.real else tensor.to_onnx(sample)
    what = "a tile of every layer of " if args.tiles else ""
    say(f"{what}{network.name} through the Verilog of the core of {config.name} on {args.simulator}, one random sample of seed {args.seed}")
    if args.tiles:
        tell = Progress(f"tiles of {network.name}")
        sampled = cosim_tiles(
            network, config, inputs, pattern=pattern, seed=args.seed, simulator=args.simulator, out=args.out, progress=tell
        )
        rows = [[layer, tile, cycles, 0] for layer, tile, cycles in sampled.tiles]
        print(table(["layer", "tile", "compute cycles, counted and measured", "differences"], rows))
        print(_compared(len(network.operators), sampled))
        return
    found = run(network, config, inputs, pattern=pattern, simulator=args.simulator, waves=args.waves, out=args.out)
    _waveform(network.name, found.hardware.waveform)
    rows = [[name, cycles, 0] for name, cycles in found.layers.items()]
    print(table(["layer", "compute cycles, simulated and measured", "differences"], rows))
    print(_compared(len(network.operators), found))


def _training(args: argparse.Namespace) -> None:
    import numpy as np

    from accel.sim.harness import check_tools
    from accel.sim.training import cosim_training
    from accel.sparsity import Pattern
    from accel.training.recipe import Recipe

    config = configuration(args, AcceleratorConfig, "tiny")
    check_tools(args.simulator)  # before any work
    pattern = Pattern.parse(args.pattern) if args.pattern else Pattern(2, 4)
    recipe = Recipe(algorithm=args.algorithm or "bdwp", pattern=pattern, batch=args.batch or BATCH, seed=args.seed)
    network, rng = source.trainable(args), np.random.default_rng(args.seed)
    samples = rng.standard_normal((recipe.batch, *network.shapes[network.input])).astype(np.float32)
    labels = rng.integers(0, network.shapes[network.output][-1], recipe.batch)
    steps = args.steps or STEPS
    say(f"{steps} training steps of {network.name} through the Verilog of {config.name} on {args.simulator}: {recipe.algorithm} {pattern}")
    found = cosim_training(
        network, config, recipe, samples, labels, steps=steps, simulator=args.simulator, out=args.out,
        progress=Progress(f"training of {network.name}"),
    )  # fmt: skip
    rows: list[list[Any]] = [[layer, stage, "core", cycles, 0] for (layer, stage), cycles in found.products.items()]
    for block, each in (("wuve", found.updates), ("sore", found.prunes)):
        rows += [[name, "update", block, cycles // steps, 0] for name, cycles in each.items()]
    print(table(["layer or parameter", "stage", "block", "cycles of a step, scheduled and measured", "differences"], rows))
    words = sum(result.words for result in found.hardware.values())
    print(
        f"\n{network.name} on {config.name}, {recipe.algorithm} {pattern}, {steps} steps of {recipe.batch}: {words:,} output rows compared"
    )
    print("batch normalisation, pooling, sums and the loss have no RTL and were computed by the model")


def _compared(operators: int, found: NetworkCosim | TileCosim) -> str:
    """Say what was compared of a network of so many operators, and what was not."""
    computed = Counter(each.kind for each in found.uncompared if each.computed)
    moves = len(found.uncompared) - computed.total()
    lines = ["", f"{found.hardware.words:,} output rows compared; cycles are those of computing, without memory"]
    if computed:
        kinds = ", ".join(f"{kind} {count}" for kind, count in computed.most_common())
        lines.append(f"{computed.total()} of {operators} operators have no RTL and were computed by the model: {kinds}")
    else:
        lines.append(f"all {operators - moves} operators that compute were compared")
    if moves:
        lines[-1] += f" (moves need none: {moves})"
    return "\n".join(lines)


def _waveform(of: str, file: Path | None) -> None:
    if file:
        say(f"waveform of {of}: {file}")
