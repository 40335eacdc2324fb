"""Measure the nonlinear units: error over every operand, RTL against model, proofs, and look-up tables beside what was there before."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel.cli.terminal import Progress
from accel.config import FunctionConfig
from accel.functions.cost import FAMILIES
from accel.functions.generate import design
from accel.sim.blocks import BLOCKS
from accel.sim.harness import cosim
from accel.sim.prove import prove
from accel.sim.synth import synthesise
from accel.sim.tb_function import write_program

OPERANDS = {
    "t": FunctionConfig(function="exp2", in_frac=12),
    "u": FunctionConfig(function="exp", in_frac=12),
    "d": FunctionConfig(function="gaussian", in_frac=12),
    "x, sigmoid": FunctionConfig(function="sigmoid", in_frac=12),
    "x, tanh": FunctionConfig(function="tanh", in_frac=12, out_frac=15),
}
"""What a unit is fed with: t of 2^-t, log2(e) and the width folded into it; u = d^2/(2 sigma^2); d in units of sigma."""

ERRORS = (0.005, 0.0016, 0.0004)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A unit to beat.

    Parameters
    ----------
    label : str
    config : FunctionConfig
        What it computes, in which format; its error is the one to keep.
    luts : dict of str to int
        Its look-up tables by family.
    """

    label: str
    config: FunctionConfig
    luts: dict[str, int]


def _anchor(label: str, xc3s: int, xc7: int, error: float, function: str = "exp2", **fields: Any) -> Anchor:
    return Anchor(label, FunctionConfig(name=label, function=function, error=error, **fields), {"xc3s": xc3s, "xc7": xc7})


ANCHORS = (
    _anchor("2^-t, residual-coded table of 5 bits, 10-bit result", 83, 38, 0.00391),
    _anchor("exp(-u), u of 10 fraction bits, log2(e) as 1 + 1/2 - 1/16", 103, 72, 0.00442, "exp", in_frac=10),
    _anchor("2^-t, table of 4 bits, 9-bit result", 64, 33, 0.00708),
    _anchor("2^-t, table of 6 bits, 12-bit result", 145, 55, 0.00157),
    _anchor("2^-t, table of 7 bits, 14-bit result", 304, 78, 0.00073),
    _anchor("2^-t, table of 8 bits, 16-bit result", 383, 135, 0.00038),
    _anchor("ROM of exp(-x^2), 9-bit address, 9-bit result", 325, 116, 0.00426, "gaussian", in_frac=13, scale=2**0.5),
    _anchor("PLAN sigmoid", 147, 60, 0.01894, "sigmoid", out_frac=15),
)
"""First designs, counted by Yosys 0.70 before these units existed."""


def block(config: FunctionConfig) -> str:
    """Name the block that a configuration describes."""
    return config.function if config.function in BLOCKS else "gaussian"


def area(config: FunctionConfig, family: str) -> dict[str, Any]:
    """Choose the cheapest datapath for a family and count its cells."""
    config = dataclasses.replace(config, luts=FAMILIES[family])
    found = design(config)
    counted = synthesise(BLOCKS[block(config)].verilog(config), block(config), family)
    return {
        "method": found.method,
        "parameters": found.parameters,
        "max_error": found.max_error,
        "mean_error": found.mean_error,
        "zero_from": found.zero_from,
        "area": dataclasses.asdict(counted),
    }


def exhaust(config: FunctionConfig) -> dict[str, Any]:
    """Run every operand through the RTL on Verilator; a difference raises."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "operands.json")
        cases = write_program(config, program)
        result = cosim(block(config), config, "verilator", cases=cases, program=program, out=Path(scratch))
    return {"simulator": "verilator", "operands": result.words, "differences": 0}


def measure() -> dict[str, Any]:
    """Return the named points and the comparison with the anchors."""
    tell = Progress("units")
    total = len(OPERANDS) * len(ERRORS) + len(ANCHORS)
    points: list[dict[str, Any]] = []
    for operand, base in OPERANDS.items():
        for error in ERRORS:
            tell(len(points), total, f"fed with {operand}, {error}")
            config = dataclasses.replace(base, name=f"{operand}, {error}", error=error)
            points.append(
                {
                    "operand": operand,
                    "error": error,
                    "exhaustive": exhaust(config),
                    "proven": list(prove(block(config), config).properties),
                    **{family: area(config, family) for family in FAMILIES},
                }
            )
    anchors: list[dict[str, Any]] = []
    for anchor in ANCHORS:
        tell(len(points) + len(anchors), total, anchor.label)
        anchors.append(
            {
                "label": anchor.label,
                "function": anchor.config.function,
                "error": anchor.config.error,
                "luts": anchor.luts,
                **{family: area(anchor.config, family) for family in FAMILIES},
            }
        )
    tell(total, total, "done")
    return {"points": points, "anchors": anchors}
