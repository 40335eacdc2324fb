"""`accel verilog`: the hardware of a block."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accel.cli.terminal import add_config, command, described, is_device, make_folder, say, write
from accel.config import Config
from accel.errors import RangeError

EXAMPLES = """
accel verilog stce --config edge-int8
accel verilog gaussian --config gaussian-0004 --set stages=2
accel verilog stce --config sat-vcu1525 -o stce.v
"""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "verilog", verilog, EXAMPLES)
    parser.add_argument("block", metavar="BLOCK", help="a name of `accel list blocks`")
    add_config(parser, default=None)
    parser.add_argument("-o", dest="file", metavar="FILE", default="-", help="where to write; - is standard output (default)")


def verilog(args: argparse.Namespace) -> None:
    """Write the Verilog of a block."""
    ((block, config),) = described(args, [args.block])
    convert(block, config, args.file)


def convert(block: Any, config: Config, file: str) -> None:
    """Write the Verilog of a block of :data:`accel.sim.blocks.BLOCKS` to a file, or to standard output for ``-``."""
    if file != "-" and not is_device(Path(file)):
        make_folder(Path(file).parent)
    say(f"converting {block.name} of {config.name}")
    with _cache():
        text = block.verilog(config)
    if file == "-":
        sys.stdout.write(text)
    else:
        write(Path(file), text)
        say(f"{len(text.splitlines()):,} lines are in {file}")


@contextmanager
def _cache() -> Iterator[None]:
    """Give Yosys, which does not start without a cache, one for the while where the user's cannot be written."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            make_folder(Path(before.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "wasmtime")
        except (RangeError, RuntimeError):  # the latter where there is no home
            os.environ["XDG_CACHE_HOME"] = scratch
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
