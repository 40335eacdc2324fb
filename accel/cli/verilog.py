"""`accel verilog`: the hardware of a block."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from accel import presets
from accel.cli.terminal import add_config, command, say, write
from accel.errors import RangeError

EXAMPLES = """
accel verilog stce --config tiny
accel verilog stce --config sat-vcu1525 -o stce.v
"""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "verilog", verilog, EXAMPLES)
    parser.add_argument("block", metavar="BLOCK", help="a name of `accel list blocks`")
    add_config(parser)
    parser.add_argument("-o", dest="file", metavar="FILE", default="-", help="where to write; - is standard output (default)")


def verilog(args: argparse.Namespace) -> None:
    """Write the Verilog of a block for an accelerator."""
    from accel.sim.blocks import BLOCKS

    if args.block not in BLOCKS:
        raise RangeError(f"block must be one of {', '.join(BLOCKS)}, not {args.block!r}")
    config = presets.load(args.config)
    say(f"converting {args.block} of {config.name}")
    text = BLOCKS[args.block].verilog(config)
    if args.file == "-":
        sys.stdout.write(text)
    else:
        write(Path(args.file), text)
        say(f"{len(text.splitlines()):,} lines are in {args.file}")
