"""`accel list`: what there is to name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from accel import presets
from accel.cli.terminal import command, table
from accel.config import FunctionConfig, RbfConfig

EXAMPLES = """
accel list
accel list blocks
accel list networks --json
"""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "list", show, EXAMPLES)
    parser.add_argument("kind", metavar="KIND", nargs="?", choices=list(KINDS), help=f"one of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def show(args: argparse.Namespace) -> None:
    """List blocks, configurations of each kind, networks, topologies and ONNX operators that other commands take."""
    found = {kind: rows() for kind, rows in KINDS.items() if args.kind in (None, kind)}
    if args.json:
        print(json.dumps(found, indent=1))
        return
    print("\n\n".join(f"{kind}\n" + table(list(rows[0]), [list(row.values()) for row in rows]) for kind, rows in found.items() if rows))


def _blocks() -> list[dict[str, object]]:
    from accel.sim.blocks import BLOCKS

    return [
        {"block": block.name, "described by": block.kind.__name__, "default": block.default, "summary": block.summary}
        for block in BLOCKS.values()
    ]


def _presets() -> list[dict[str, object]]:
    configs = [presets.load(name) for name in presets.names()]
    return [
        {
            "preset": c.name,
            "array": f"{c.rows}x{c.cols}",
            "operands": f"{c.act_bits}x{c.weight_bits} bit",
            "accumulator": f"{c.acc_bits} bit",
            "bundle": c.bundle,
            "clock MHz": c.clock_mhz,
        }
        for c in configs
    ]


def _functions() -> list[dict[str, object]]:
    configs = [presets.load(name, FunctionConfig) for name in presets.names(FunctionConfig)]
    return [
        {
            "function": c.name,
            "computes": c.function,
            "operand": str(c.operand),
            "result": str(c.result),
            "error": f"{c.error:g}",
            "stages": c.stages,
        }
        for c in configs
    ]


def _rbf() -> list[dict[str, object]]:
    configs = [presets.load(name, RbfConfig) for name in presets.names(RbfConfig)]
    return [
        {
            "rbf network": c.name,
            "dims": c.dims,
            "neurons": c.neurons,
            "units": c.units,
            "outputs": f"{c.outputs} {c.output}",
            "sample": str(c.x),
            "error": f"{c.error:g}",
            "stages": c.stages,
        }
        for c in configs
    ]


def _networks() -> list[dict[str, object]]:
    from accel.graph.files import builtin
    from accel.graph.named import BUILDERS

    held = dict.fromkeys(builtin(), "trained weights") | dict.fromkeys(BUILDERS, "shapes; weights with --seed")
    return [{"network": name, "holds": what} for name, what in held.items()]


def _topologies() -> list[dict[str, object]]:
    from accel.graph.topology import topologies

    return [{"topology": name, "holds": "layers of SCALE-Sim, for --compat scalesim"} for name in topologies()]


def _operators() -> list[dict[str, object]]:
    from accel.graph.onnx import OPERATORS

    return [{"operator": name} for name in OPERATORS]


KINDS: dict[str, Callable[[], list[dict[str, object]]]] = {
    "blocks": _blocks,
    "presets": _presets,
    "functions": _functions,
    "rbf": _rbf,
    "networks": _networks,
    "topologies": _topologies,
    "operators": _operators,
}
