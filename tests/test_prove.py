"""Proofs about nonlinear units: what holds is proven, planted faults are refuted, and nothing is proven of nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from accel import cli, presets
from accel.config import FunctionConfig
from accel.errors import MismatchError, RangeError, ToolError
from accel.golden.function import function
from accel.sim import prove as module
from accel.sim.prove import prove

NAMED = ["gaussian", "gaussian-0016", "gaussian-0004", "gaussian-u", "gaussian-d", "sigmoid", "tanh", "erf"]


def block(config: FunctionConfig) -> str:
    return config.function if config.function in ("sigmoid", "tanh", "erf") else "gaussian"


@pytest.mark.parametrize("name", NAMED)
def test_named_units_are_bounded_and_monotone(name):
    """For every operand; of the Gaussians also where they are zero."""
    config = presets.load(name, FunctionConfig)
    proof = prove(block(config), config)
    wanted = ["bounded", "monotone"] + ["zero"] * (block(config) == "gaussian")
    assert list(proof.properties) == wanted
    assert proof.solver.startswith("Yosys ")


def test_planted_fault_is_refuted():
    """The counterexample is one: in the faulty unit the operand's neighbour is on the wrong side."""
    config = presets.load("gaussian", FunctionConfig)
    with pytest.raises(MismatchError, match=r"^gaussian of gaussian must be monotone for every operand, not fail at x = \d+: "):
        prove("gaussian", config, mutant="table-halves-swapped")


@pytest.mark.parametrize("claim", ["y < 0", "y <= 1000", "next < y", "x >= 5"])
def test_false_claims_are_refuted(monkeypatch, claim):
    monkeypatch.setattr(module, "properties", lambda config: {"claimed": claim})
    with pytest.raises(MismatchError, match=re.escape("gaussian of gaussian must be claimed for every operand, not fail at x = ")):
        prove("gaussian", presets.load("gaussian", FunctionConfig))


def test_counterexample_is_an_operand(monkeypatch):
    """The one operand with a result that occurs once is found."""
    config = presets.load("gaussian-d", FunctionConfig)
    x = np.arange(config.operand.lo, config.operand.hi + 1)
    y = function(config, x)
    values, counts = np.unique(y, return_counts=True)
    rare = int(values[counts.argmin()])
    monkeypatch.setattr(module, "properties", lambda config: {"claimed": f"y != {rare}"})
    with pytest.raises(MismatchError) as caught:
        prove("gaussian", config)
    found = re.search(r"x = (-?\d+)", str(caught.value))
    assert found is not None
    assert int(found[1]) in x[y == rare]


def test_no_answer_is_an_error(monkeypatch):
    """A log without a verdict is never taken for a proof."""
    monkeypatch.setattr(module, "yosys", lambda script, files: ("nothing said", "Yosys 0"))
    with pytest.raises(ToolError, match=r"^yosys must prove or refute that gaussian is bounded, not end without an answer:\nnothing said$"):
        prove("gaussian", presets.load("gaussian", FunctionConfig))


def test_memories_left_are_an_error(monkeypatch):
    """What the solver does not know cannot slip through."""
    monkeypatch.setattr(module, "READ", module.READ.replace("memory_map; ", ""))
    monkeypatch.setattr(module, "write_verilog", lambda *of: MEMORY)
    with pytest.raises(ToolError, match="select"):
        prove("gaussian", presets.load("gaussian", FunctionConfig))


MEMORY = """\
module gaussian(input [15:0] i__payload, input i__valid, o__ready, output [15:0] o__payload);
  reg [15:0] words [0:65535];
  assign o__payload = words[i__payload];
endmodule
"""


def test_other_blocks_are_refused():
    with pytest.raises(RangeError, match=r"^block must be one of gaussian, sigmoid, tanh, erf, not 'stce'$"):
        prove("stce", FunctionConfig())


def test_command(capsys):
    assert cli.main(["prove", "gaussian", "--set", "stages=3"]) == cli.Exit.OK
    assert "monotone" in capsys.readouterr().out
    assert cli.main(["prove", "stce"]) == cli.Exit.USER
    assert "block must be one of gaussian, sigmoid, tanh, erf, not 'stce'" in capsys.readouterr().err
