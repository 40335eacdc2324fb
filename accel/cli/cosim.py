"""`accel cosim`: the hardware against the model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from accel import presets
from accel.cli.terminal import Progress, add_config, command, table

EXAMPLES = """
accel cosim
accel cosim stce postprocess --config tiny --simulator icarus
accel cosim stce --cases 2000 --seed 7 --waves
"""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "cosim", cosim, EXAMPLES)
    parser.add_argument("blocks", metavar="BLOCK", nargs="*", help="names of `accel list blocks` (default: all)")
    add_config(parser)
    parser.add_argument("--simulator", metavar="S", default="verilator", help="verilator or icarus (default: %(default)s)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the random cases (default: %(default)s)")
    parser.add_argument("--cases", metavar="N", type=int, default=20, help="random cases per block (default: %(default)s)")
    parser.add_argument("--waves", action="store_true", help="keep a waveform of the whole run; of a case that differs one is kept anyway")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("out/cosim"), help="folder of the mismatch report (default: %(default)s)"
    )
    parser.set_defaults(config="tiny")


def cosim(args: argparse.Namespace) -> None:
    """Run the Verilog of blocks in a simulator and compare every bit and every cycle with the model.

    The first difference ends the run: its block, case, cycle, signal, expected and got are printed and written to a report.
    """
    from accel.sim.blocks import BLOCKS
    from accel.sim.harness import cosim as run

    config, blocks = presets.load(args.config), args.blocks or list(BLOCKS)
    tell = Progress(f"cosim on {args.simulator}")
    results = []
    for done, block in enumerate(blocks):
        tell(done, len(blocks), block)
        results.append(run(block, config, args.simulator, args.seed, args.cases, args.waves, out=args.out))
    tell(len(blocks), len(blocks), "done")
    headings = ["block", "config", "simulator", "cases", "words compared", "cycles", "differences", "build s", "run s"]
    print(
        table(headings, [[r.block, r.config, r.simulator, r.cases, r.words, r.cycles, 0, r.build_seconds, r.run_seconds] for r in results])
    )
