"""Proofs about the RTL of a nonlinear unit for every operand, by Yosys' SAT solver: no simulation, no sampling."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from accel.config import FunctionConfig
from accel.errors import MismatchError, RangeError, ToolError
from accel.functions.generate import design
from accel.sim.blocks import BLOCKS
from accel.sim.harness import write_verilog
from accel.sim.synth import yosys

# For every operand the solver must find no assignment that makes a property 0. `y` and `next` are what two instances of the unit, fed
# with x and x + 1, show: monotone between neighbours is monotone.
WRAPPER = """\
module proof(input {x}, output {outputs});
  wire {y}, next;
  {block} here(.i__payload(x), .i__valid(1'b1), .o__ready(1'b1), .o__payload(y));
  {block} there(.i__payload(x + 1'b1), .i__valid(1'b1), .o__ready(1'b1), .o__payload(next));
{assigns}
endmodule
"""

# Processes and memories are nothing to the solver: it would prove whatever is said of them, so none may be left,
# and no module that synthesis is asked to keep.
READ = (
    "read_verilog unit.v proof.v; setattr -mod -unset keep_hierarchy *; setattr -unset keep_hierarchy */t:*; "
    "prep -top proof -flatten; memory_map; opt -full; select -assert-none t:$mem* p:*"
)


@dataclass(frozen=True, slots=True)
class Proof:
    """Properties that hold for every operand.

    Parameters
    ----------
    block, config : str
        Names.
    properties : dict of str to str
        What was proven, by name, as an expression over x, y and the result of x + 1.
    solver : str
        What proved it, with its version.
    """

    block: str
    config: str
    properties: dict[str, str]
    solver: str


def properties(config: FunctionConfig) -> dict[str, str]:
    """Return the properties of a unit as Verilog expressions over x, y and next.

    Parameters
    ----------
    config : FunctionConfig

    Returns
    -------
    dict of str to str
        ``bounded``, within [0, 1], or [-1, 1]; ``monotone``, falling, rising, or falling on either side of 0; and of units that fall
        ``zero``, 0 from a stated operand on and nowhere before, if there is one.
    """
    last = (1 << config.in_bits - config.operand.signed) - 1
    one = 1 << config.out_frac
    falls, rises = f"x == {last} || next <= y", f"x == {last} || next >= y"
    if config.function == "sigmoid":
        return {"bounded": f"y <= {one}", "monotone": rises}
    if config.odd:
        return {"bounded": f"y <= {one} && y >= -{one}", "monotone": rises}
    if config.function == "gaussian":
        falls = f"x < 0 ? next >= y : {falls}"
    found = {"bounded": f"y <= {one}", "monotone": falls}
    start = design(config).zero_from
    if start is None:
        return found | {"zero": "y != 0"}
    if config.function == "gaussian":  # -x may be taken as x - 1: one bit's complement
        return found | {"zero": f"(x >= {start} || x <= -{start}) ? y == 0 : y != 0 || x >= {start - 1} || x <= -{start - 1}"}
    return found | {"zero": f"(y == 0) == (x >= {start})"}


def provable(block: str) -> None:
    """Refuse a block that is no nonlinear unit."""
    known = [name for name, each in BLOCKS.items() if each.kind is FunctionConfig]
    if block not in known:
        raise RangeError(f"block must be one of {', '.join(known)}, not {block!r}")


def prove(block: str, config: FunctionConfig, mutant: str | None = None) -> Proof:
    """Prove the properties of a unit's Verilog, taken without its registers.

    Parameters
    ----------
    block : str
        A block of the family `function`.
    config : FunctionConfig
        Its `stages` have no influence.
    mutant : str, optional
        Name of a planted fault of :mod:`accel.sim.mutants`.

    Returns
    -------
    Proof

    Raises
    ------
    RangeError
        If the block is no nonlinear unit.
    ToolError
        If Yosys is missing or fails.
    MismatchError
        If a property does not hold; the message names an operand for which it does not.
    """
    provable(block)
    config = dataclasses.replace(config, stages=0)
    claims = properties(config)
    widths = {"x": config.in_bits, "y": config.out_bits}
    signs = {"x": config.operand.signed, "y": config.result.signed}
    ports = {name: f"{'signed ' * signs[name]}[{widths[name] - 1}:0] {name}" for name in widths}
    assigns = "\n".join(f"  assign {name} = {claim};" for name, claim in claims.items())
    wrapper = WRAPPER.format(block=block, outputs=", ".join(claims), assigns=assigns, **ports)
    files = {"unit.v": write_verilog(block, config, mutant), "proof.v": wrapper}
    solver = ""
    for name in claims:
        script = f"{READ}; sat -prove {name} 1 -show x proof"
        log, solver = yosys(script, files)
        if "no model found: SUCCESS" in log:
            continue
        failing = re.search(r"^ *\\x +(\d+)", log, re.MULTILINE)
        if "model found: FAIL" not in log or failing is None:
            raise ToolError(f"yosys must prove or refute that {block} is {name}, not end without an answer:\n{log[-2000:]}")
        x = int(failing[1]) - (int(failing[1]) > config.operand.hi) * (1 << config.in_bits)  # bits, read as the operand's format
        raise MismatchError(f"{block} of {config.name} must be {name} for every operand, not fail at x = {x}: {claims[name]}")
    return Proof(block, config.name, claims, solver)
