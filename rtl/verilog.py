"""Verilog of a component, each distinct module once and equal text for equal components."""

import re
from itertools import chain

from amaranth import ClockSignal, Instance, ResetSignal
from amaranth.back import verilog
from amaranth.lib import wiring
from amaranth.lib.wiring import In

MODULE = re.compile(r"^module (\S+) ?\((.*?)\);\n(.*?)^endmodule\n", re.M | re.S)
INSTANCE = re.compile(r"^  (\S+) +(?=\S+ +\($)", re.M)
GUARD = re.compile(r"\\\$auto\$verilog_backend\S*")
# Yosys starts every `always @*` once through a variable with an initial value, but in Verilog-2005 and later that is no event. A
# non-blocking assignment is one, and comes after every process waits.
START = re.compile(r"^  reg _start  = 0;$", re.M)
INITIAL = re.compile(r"^  \(\* init = .* \*\)\n", re.M)
WIRE = re.compile(r"  (?:wire (?:\[.*\] )?|assign )(\\\S+|[\w$]+) *(?:\[[\d:]+\] *)?(?:;|= (.*);)$")
NAME = re.compile(r"\\\S+|[A-Za-z_$][\w$]*")
WORD = re.compile(r"^    (\S+ ?)\[0\] = (\S+;)\n(?:    \1\[\d+\] = \2\n)+", re.M)


def emit(component: wiring.Component, name: str) -> str:
    """Return the Verilog of `component` as the module `name`.

    Amaranth writes one module per instance; modules of equal text are merged here, which makes an array of R x C processing
    elements cost a handful of modules. Wires that nothing reads are left out (Amaranth names every field of every payload), and
    equal memory words are initialised in a loop.

    Parameters
    ----------
    component : wiring.Component
        What to convert.
    name : str
        Name of the top module; the others begin with it.

    Returns
    -------
    str
        Verilog-2001 text, the top module first.
    """
    once = _Once(name, component)
    text = verilog.convert(component, name=name, platform=once, emit_src=False)
    for module, part in once.modules.items():
        text += verilog.convert(part, name=module, platform=_Once(module, part), emit_src=False)
    return _merge(text)


class _Once:
    """Platform that collects components which many parents share, so that each is converted once."""

    def __init__(self, name: str, top: wiring.Component):
        self.name, self.top = name, top
        self.modules: dict[str, wiring.Component] = {}


def once(component: wiring.Component, platform, *, clocked: bool = True, **attributes):
    """Return an instance of the module that equal components share while Verilog is written, else None.

    The first line of `elaborate` of a component that stands in a design a thousand times asks this; simulation elaborates each.

    Parameters
    ----------
    component : wiring.Component
        Its class and its attribute `config` say all about it.
    platform : object
        As given to `elaborate`.
    clocked : bool
        Whether it has registers.
    **attributes
        Of the instance, by names as :class:`~amaranth.hdl.Instance` has them.

    Returns
    -------
    Instance or None
    """
    if not isinstance(platform, _Once) or component is platform.top:
        return None
    module = f"{platform.name}_{type(component).__name__.lower()}"
    assert platform.modules.setdefault(module, component).config == component.config
    ports = {
        f"{'i' if member.flow == In else 'o'}_{'__'.join(map(str, path))}": value
        for path, member, value in component.signature.flatten(component)
    }
    if clocked:
        ports |= {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
    return Instance(module, **ports, **attributes)


def _merge(text: str) -> str:
    """Merge equal modules, to a fixpoint because parents become equal once their children are."""
    modules = {}
    for module, ports, body in MODULE.findall(text):
        names = sorted(ports.split(", "))
        body = START.sub("  reg _start;\n  initial _start <= 1'b0;", GUARD.sub("_start", INITIAL.sub("", body)))
        body, loops = WORD.subn(_fill, _prune(body, set(names)))
        counter = "  integer _word;\n" if loops else ""
        modules[module] = f"({', '.join(names)});\n{counter}{body}endmodule\n"
    merged = True
    while merged:
        first: dict[str, str] = {}
        same = {module: first.setdefault(body, module) for module, body in modules.items()}
        merged = len(first) < len(modules)
        modules = {module: _rename(body, same) for body, module in first.items()}
    short = {module: re.sub(r"\W+", "_", module).strip("_") for module in modules}
    return "\n".join(f"module {short[module]} {_rename(body, short)}" for module, body in modules.items())


def _rename(body: str, names: dict[str, str]) -> str:
    return INSTANCE.sub(lambda match: f"  {names.get(match[1], match[1])} ", body)


def _prune(body: str, ports: set[str]) -> str:
    """Drop wires that are declared and assigned but never read, to a fixpoint because their sources may then be unread too."""
    lines = [(line, WIRE.match(line)) for line in body.splitlines()]
    count = 0
    while count != len(lines):
        count = len(lines)
        read = set(chain.from_iterable(NAME.findall((match[2] or "") if match else line) for line, match in lines)) | ports
        lines = [(line, match) for line, match in lines if not match or match[1] in read]
    return "".join(f"{line}\n" for line, _ in lines)


def _fill(words: re.Match[str]) -> str:
    count = words[0].count("\n")
    return f"    for (_word = 0; _word < {count}; _word = _word + 1)\n      {words[1]}[_word] = {words[2]}\n"
