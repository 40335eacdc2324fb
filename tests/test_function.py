from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.config import FunctionConfig
from accel.errors import RangeError
from accel.functions.datapath import Builder
from accel.functions.evaluate import evaluate
from accel.functions.generate import design
from accel.golden.function import function
from accel.rtl import function as rtl
from accel.sim import tb_function
from accel.timing import function as timing

SMALL = FunctionConfig(in_bits=8, in_frac=4, out_bits=8, out_frac=8, error=0.02)


def naive(path, x):
    """Run one operand, each operation as the table of `accel.functions.datapath` words it."""
    values: list[int] = []
    for node in path.nodes:
        a = [values[i] for i in node.arguments]
        k = node.constants
        match node.operation:
            case "input":
                value = x
            case "constant":
                value = k[0]
            case "bits":
                value = sum((a[0] // 2 ** (k[0] + j) % 2) << j for j in range(k[1]))
            case "join":
                value = int("".join(format(part, f"0{width}b") for part, width in zip(a[::-1], k[::-1], strict=True)), 2)
            case "table":
                value = k[a[0]]
            case "add":
                value = a[0] + a[1]
            case "subtract":
                value = a[0] - a[1]
            case "multiply":
                value = a[0] * a[1]
            case "shift":
                value = a[0] // 2 ** a[1]
            case "complement":
                value = int("".join(str(1 - int(bit)) for bit in format(a[0], f"0{node.bits}b")), 2) if a[1] else a[0]
            case "below":
                value = int(a[0] < k[0])
            case "select":
                value = a[1] if a[0] else a[2]
        assert node.lo <= value <= node.hi
        values.append(value)
    return values[-1]


@st.composite
def datapaths(draw):
    """Draw a datapath of any operations that fit each other, no value wider than 40 bits."""
    build = Builder()
    x = build.input(draw(st.integers(2, 6)), draw(st.booleans()))

    def one(unsigned=False, bits=40):
        return draw(st.sampled_from([i for i, node in enumerate(build.nodes) if node.bits <= bits and not (unsigned and node.signed)]))

    build.bits(x, draw(st.integers(0, 2)), draw(st.integers(1, 5)))
    flag = build.below(x, draw(st.integers(-3, 40)))
    for _ in range(draw(st.integers(1, 8))):
        match draw(st.sampled_from(("constant", "bits", "join", "table", "add", "subtract", "multiply", "shift", "complement", "select"))):
            case "constant":
                build.constant(draw(st.integers(-20, 20)))
            case "bits":
                build.bits(one(), draw(st.integers(0, 8)), draw(st.integers(1, 8)))
            case "join":
                parts = [one(True, 10), one(True, 10)]
                build.join(*[(part, build.nodes[part].bits + draw(st.integers(0, 2))) for part in parts])
            case "table":
                address = one(True, 5)
                count = build.nodes[address].hi + 1
                build.table(address, tuple(draw(st.lists(st.integers(-9, 9), min_size=count, max_size=count))))
            case "add":
                build.add(one(), one())
            case "subtract":
                build.subtract(one(), one())
            case "multiply":
                build.multiply(one(bits=10), one(bits=10))
            case "shift":
                build.shift(one(), one(True, 4))
            case "complement":
                build.complement(one(True), flag)
            case "select":
                build.select(flag, one(), one())
    return build.done(len(build.nodes) - 1)


def simulate(config, operands):
    """Return what the RTL shows for operands in a row."""
    unit, shown = rtl.Function(config), []

    async def bench(ctx):
        ctx.set(unit.i.valid, 1)
        ctx.set(unit.o.ready, 1)
        for x in [*operands, *[0] * config.stages]:
            ctx.set(unit.i.payload, x)
            if ctx.get(unit.o.valid):
                shown.append(ctx.get(unit.o.payload))
            if config.stages:
                await ctx.tick()

    simulator = Simulator(unit)
    if config.stages:
        simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return shown


@pytest.mark.golden
@given(datapaths())
def test_evaluation_is_naive(path):
    x = np.arange(path.input.lo, path.input.hi + 1)
    assert evaluate(path, x).tolist() == [naive(path, int(one)) for one in x]


@settings(max_examples=40)
@given(datapaths(), st.integers(0, 4))
def test_rtl_is_naive(path, stages):
    """Any datapath, whatever the generator makes, in any number of stages: the component builds what it is given."""
    formats = SimpleNamespace(in_bits=path.input.bits, out_bits=path.output.bits, stages=stages)
    formats.operand, formats.result = path.input, path.output
    operands = range(path.input.lo, path.input.hi + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtl, "design", lambda config: SimpleNamespace(datapath=path))
        assert simulate(formats, operands) == [naive(path, x) for x in operands]


@pytest.mark.parametrize("stages", [0, 1, 2, 8])
@pytest.mark.parametrize("name", ["exp2", "exp", "gaussian", "sigmoid", "tanh", "erf"])
def test_every_operand(name, stages):
    """Golden model, naive twin and RTL."""
    config = FunctionConfig(function=name, in_bits=9, in_frac=5, out_bits=9, out_frac=8, error=0.02, stages=stages)
    x = np.arange(config.operand.lo, config.operand.hi + 1)
    y = function(config, x).tolist()
    assert y == [naive(design(config).datapath, int(one)) for one in x]
    assert y == simulate(config, x.tolist())


@pytest.mark.golden
def test_wide_operands_are_not_looked_up():
    """Beyond the whole table: the same results, in any shape of operands."""
    config = FunctionConfig(in_bits=18, in_frac=12, error=0.02)
    x = np.random.default_rng(0).integers(0, 1 << 18, (3, 5, 7))
    assert function(config, x).tolist() == np.vectorize(lambda one: naive(design(config).datapath, int(one)))(x).tolist()
    assert function(SMALL, np.zeros((2, 0, 3), np.int64)).shape == (2, 0, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([0, 256]), r"^x must be in \[0, 255\], not 0..256$"),
        (np.array([-1, 2]), r"^x must be in \[0, 255\], not -1..2$"),
        (np.array([1.0]), r"^x must be int64 of shape \(1,\), not float64 of shape \(1,\)$"),
    ],
)
def test_rejects(x, message):
    with pytest.raises(RangeError, match=message):
        function(SMALL, x)


@pytest.mark.parametrize("stages", [0, 1, 5])
def test_closed_form_is_the_recurrence_without_waits(stages):
    config = FunctionConfig(stages=stages)
    cycles = timing.function(config, 7)
    offered = np.arange(cycles + 3) < 7
    i_ready, o_valid = timing.function_trace(stages, offered, np.ones_like(offered))
    assert i_ready.all()
    assert np.flatnonzero(o_valid).tolist() == list(range(cycles - 7, cycles))


def test_program_runs_every_operand_once(tmp_path):
    config = FunctionConfig(function="tanh", in_bits=14, in_frac=10, out_frac=15)
    program = tmp_path / "program.json"
    cases = [tb_function.program_case(config, program, index) for index in range(tb_function.write_program(config, program))]
    assert [first for case in cases for first in case.inputs["i"]] == [x % (1 << 14) for x in range(-(1 << 13), 1 << 13)]
    assert json.loads(program.read_text())[-1][-1] == config.operand.hi
    assert cases[0].place is not None
    assert cases[0].place("o", 1) == f"operand {1 - (1 << 13)}"
