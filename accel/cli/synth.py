"""`accel synth`: what the hardware of a block takes on an FPGA, by an open tool."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from accel.cli.terminal import add_config, command, described, is_device, make_folder, say, table, write
from accel.config import AcceleratorConfig

EXAMPLES = """
accel synth gaussian --family xc3s
accel synth sigmoid --set error=0.001 --set stages=2
accel synth rbf_network --family ecp5 --no-dsp
accel synth postprocess --config edge-int8 --family xcup --json -
"""
TITLES = {
    "lut": "LUT", "mux": "wide mux", "carry": "carry", "inv": "INV", "ff": "FF", "lutram": "LUT RAM", "srl": "SRL", "dsp": "DSP",
    "bram": "BRAM",
}  # fmt: skip


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "synth", synth, EXAMPLES)
    parser.add_argument("block", metavar="BLOCK", help="a name of `accel list blocks`")
    add_config(parser, default=None)
    parser.add_argument("--family", metavar="F", default="xc7", help="xc3s, xc7, xcup, ecp5 or ice40 (default: %(default)s)")
    parser.add_argument("--no-dsp", action="store_true", help="multiply in look-up tables, not in the device's multipliers")
    parser.add_argument("--no-bram", action="store_true", help="keep memories in look-up tables and registers, not in block memories")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - is standard output, instead of a table")


def synth(args: argparse.Namespace) -> None:
    """Count the cells that a block takes on an FPGA, and the levels of its logic, with Yosys.

    Compare these counts with others of the same tool and family only. A block of the accelerator is mapped module by module, a unit as a
    whole. LUT1 to LUT6 are look-up tables by the inputs they use; multiplexers, carry cells and inverters are not among them. Routes are
    columns of carry chains that no look-up table feeds: on a Xilinx device each takes one as a wire. A level is a look-up table, a whole
    carry chain or a multiplier on the longest path between inputs, registers and outputs.
    """
    from accel.sim.harness import write_verilog
    from accel.sim.synth import SCHEMA_VERSION, check_tools, prepared, synthesise

    ((block, config),) = described(args, [args.block])
    check_tools()  # before any work
    if args.json and args.json != "-" and not is_device(Path(args.json)):
        make_folder(Path(args.json).parent)
    say(f"synthesising {block.name} of {config.name} for {args.family}" + ("" if prepared() else "; Yosys prepares itself first, a minute"))
    began = time.perf_counter()
    flatten = not isinstance(config, AcceleratorConfig)  # an array is its elements many times over: each is mapped once
    area = synthesise(
        write_verilog(block.name, config), block.name, args.family, dsp=not args.no_dsp, bram=not args.no_bram, flatten=flatten
    )
    say(f"{area.tool} {area.version} was done in {time.perf_counter() - began:.0f} s")
    for warning in area.warnings:
        say(f"{area.tool} warns: {warning}")
    facts = {"schema_version": SCHEMA_VERSION, "block": block.name, "config": dataclasses.asdict(config), **dataclasses.asdict(area)}
    text = json.dumps(facts, indent=1) + "\n"
    if args.json == "-":
        print(text, end="")
        return
    if args.json:
        write(Path(args.json), text)
        say(f"the result is in {args.json}")
    print(f"{block.name} of {config.name} on {area.family}, {area.tool} {area.version}: {area.flags}\n\n{summary(area)}")


def summary(area: Any) -> str:
    """Show an :class:`accel.sim.synth.Area` to a person: its columns, and those of each module if there are several."""
    sizes = [name for name, count in area.counts.items() if name not in TITLES and count]
    columns = ["lut", *sizes, *(name for name in TITLES if name != "lut")]
    headings = [TITLES.get(name, name.upper()) for name in columns]
    rows = [[area.top, 1, *(area.counts[name] for name in columns), area.routes, area.levels]]
    parts = {name: of for name, of in area.modules.items() if any(of["counts"].values())}  # wires alone are no part to look at
    if len(parts) == 1:
        return table([*headings, "routes", "levels"], [rows[0][2:]])
    rows += [[f"  {name}", of["instances"], *(of["counts"][column] for column in columns), None, None] for name, of in parts.items()]
    return table(["module, its own cells", "instances", *headings, "routes", "levels"], rows)
