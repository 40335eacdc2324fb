"""`accel prove`: what holds of a unit's hardware for every operand."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, cast

from accel.cli.terminal import add_config, command, described, say, table

if TYPE_CHECKING:
    from accel.config import FunctionConfig

EXAMPLES = """
accel prove gaussian
accel prove gaussian --set error=0.0004
accel prove sigmoid --config my-sigmoid.yaml
"""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = command(commands, "prove", prove, EXAMPLES)
    parser.add_argument("block", metavar="BLOCK", help="gaussian, sigmoid, tanh or erf")
    add_config(parser, default=None)


def prove(args: argparse.Namespace) -> None:
    """Prove with a SAT solver that the Verilog of a nonlinear unit is bounded and monotone, and where it is zero.

    Nothing is simulated: the proof is about every operand at once. The unit is taken without its pipeline registers.
    """
    from accel.sim.prove import provable
    from accel.sim.prove import prove as run

    provable(args.block)
    ((block, config),) = described(args, [args.block])
    say(f"proving {block.name} of {config.name}")
    began = time.perf_counter()
    proof = run(block.name, cast("FunctionConfig", config))
    say(f"{proof.solver} was done in {time.perf_counter() - began:.0f} s")
    print(table(["property", "holds for every operand"], [[name, claim] for name, claim in proof.properties.items()]))
