"""`accel simulate --compat scalesim`: SCALE-Sim's files in, SCALE-Sim's figures out."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from accel.cli.terminal import configuration, make_folder, say, table, write
from accel.config import AcceleratorConfig
from accel.errors import RangeError

if TYPE_CHECKING:
    from accel.graph.topology import Architecture

REPORT = "COMPUTE_REPORT.csv"
# Options that mean nothing here, and what they are when nobody gave them.
WITHOUT: dict[str, object] = {
    "inputs": None, "batch": 1, "json": False, "plot": None, "schedule": None, "save_schedule": None, "search": "best", "shapes": [],
}  # fmt: skip


def simulate(args: argparse.Namespace) -> None:
    """Print what SCALE-Sim 3.0.0 would report of a topology, and write its COMPUTE_REPORT.csv.

    Raises
    ------
    RangeError
        If an option is given that SCALE-Sim has no counterpart of.
    """
    from accel.graph.topology import DENSE, load_topology
    from accel.schedule import scalesim
    from accel.sparsity import Pattern

    for option, default in WITHOUT.items():
        if getattr(args, option) != default:
            raise RangeError(f"{option} must be left out with --compat scalesim, not {str(getattr(args, option))!r}")
    topology, architecture = load_topology(args.network), _architecture(args)
    if args.pattern:
        pattern = DENSE if args.pattern == "dense" else Pattern.parse(args.pattern)
        topology = dataclasses.replace(topology, layers=tuple(dataclasses.replace(x, pattern=pattern) for x in topology.layers))
        architecture = dataclasses.replace(architecture, sparsity=True)
    layers = scalesim.simulate(topology, architecture)
    if args.out:
        make_folder(args.out)
        write(args.out / REPORT, scalesim.compute_report(layers))
        say(f"{REPORT} is in {args.out}")
    headings = ["layer", "m", "n", "k", "N:M", "folds", "total", "with prefetch", "overall %", "mapping %", "compute %"]
    rows = [
        [
            x.name, x.m, x.n, x.k, "dense" if x.pattern.dense else x.pattern, x.folds, x.total_cycles, x.prefetch_cycles,
            x.overall_utilisation, x.mapping_efficiency, x.compute_utilisation,
        ]
        for x in layers
    ]  # fmt: skip
    print(table(headings, rows))
    prefetch = [x.prefetch_cycles for x in layers]
    fetched = "" if None in prefetch else f", {sum(filter(None, prefetch)):,} with prefetch"
    array = f"{architecture.rows}x{architecture.cols}, {architecture.dataflow}"
    print(f"\n{topology.name} on {architecture.name} ({array}): {sum(x.total_cycles for x in layers):,} cycles{fetched}")
    print("cycles are counted as SCALE-Sim 3.0.0 does: to compare with it, not what our hardware takes")


def _architecture(args: argparse.Namespace) -> Architecture:
    """Read the file of --cfg; without it, the array is that of --config and outputs stay in it."""
    from accel.graph.topology import Architecture, load_architecture

    if args.cfg:
        return load_architecture(args.cfg)
    config = configuration(args, AcceleratorConfig)
    return Architecture(name=config.name, rows=config.rows, cols=config.cols)
