"""Searched networks of small tables: sigmoid, tanh, e^-x, and the Gaussian of the distance itself, without a square.

A network is a list of steps on single bits: tables of a few bits each, and sums. The operand is folded by inverting it where it is
negative, and held at its reach by setting all its bits, both in the one table a bit has anyway. A side is a base from its leading bits
plus a second table, or plus a slope, from the same bits, times the bits that follow; these are inverted where the function falls, so
that there are only sums. An odd function is unfolded by inverting the result. Bases and slopes were searched together by annealing
inside what the error leaves to each interval, for the fewest tables of 4 or 6 inputs after decomposition, and the decomposed tables
are what the data holds. Where a constant half follows the lowest bit, the rounding error is centred and inverting negates it exactly.

A tool that maps for speed would join the tables and the sums again, at many times their number: each ends in a border. Only where a
row of a product enters a sum there is none, and the sum is a subtraction of the inverted row: tools pass the other term to the carry
chain as it is and absorb the row in the one look-up table a column has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any

from accel.config import FunctionConfig
from accel.functions.cost import counted
from accel.functions.datapath import Builder, Datapath
from accel.functions.frame import Plan

ZERO, ONE = -1, -2  # instead of a bit's number: constants


@dataclass(frozen=True, slots=True)
class Step:
    """A table of bits, or a sum.

    Parameters
    ----------
    operation : str
        ``"table"``; ``"flat"``, a table without a border; ``"add"`` or ``"subtract"``, modulo 2^width of the first word.
    words : tuple of tuple of int
        Bits, the lowest first: the address of a table, or the two terms of a sum.
    values : str
        Entries of a table, one character each.
    """

    operation: str
    words: tuple[tuple[int, ...], ...]
    values: str


@dataclass(frozen=True, slots=True)
class Network:
    """A searched unit.

    Bits are numbered: those of the operand, lowest first, then what the steps give, one after the other.

    Parameters
    ----------
    function : str
        As in a configuration; scale 1.
    in_bits, in_frac : int
        The operand it was searched for [bits].
    counted : dict of int to int
        By inputs of a look-up table, 4 and 6: how many Yosys counted on Spartan-3 and the 7 series.
    error : float
        Largest absolute error over all operands.
    frac : int
        Fraction bits of the result, without the half [bits].
    half : bool
        Whether a constant half follows the lowest bit.
    steps : tuple of Step
    result : tuple of int
        Bits of the result, the lowest first; the sign of tanh is the highest.
    """

    function: str
    in_bits: int
    in_frac: int
    counted: dict[int, int]
    error: float
    frac: int
    half: bool
    steps: tuple[Step, ...]
    result: tuple[int, ...]


def plans(config: FunctionConfig) -> Iterator[Plan]:
    """Yield the networks that serve a configuration: of its function and integer bits, for fraction bits no fewer than were searched."""
    for name, network in searched().items():
        more = config.in_frac - network.in_frac
        if (
            (config.function, config.scale) == (network.function, 1)
            and more >= 0
            and config.in_bits - network.in_bits == more
            and config.out_frac >= network.frac + network.half
            and network.error <= config.error
        ):
            count = network.counted[config.luts]
            yield Plan({"network": name}, count, partial(folded, network, config), count)


def folded(network: Network, config: FunctionConfig) -> Datapath:
    """Build a network's datapath.

    Parameters
    ----------
    network : Network
    config : FunctionConfig
        Formats; further fraction bits of the operand are not used.
    """
    build = Builder()
    operand = build.input(config.in_bits, config.operand.signed)
    more = config.in_frac - network.in_frac
    known = {ZERO: build.constant(0), ONE: build.constant(1)}
    for bit in range(network.in_bits):
        known[bit] = build.bits(operand, more + bit, 1)

    def word(bits: tuple[int, ...]) -> int:
        return build.join(*[(known[bit], 1) for bit in bits])

    for step in network.steps:
        first = len(known) - 2
        if step.values:
            table = build.table(word(step.words[0]), tuple(map(int, step.values)))
            known[first] = table if step.operation == "flat" else build.border(table)
        else:
            width = len(step.words[0])
            a, b = map(word, step.words)
            total = build.add(a, b) if step.operation == "add" else build.subtract(a, b)
            total = build.border(build.bits(total, 0, width))
            known |= {first + place: build.bits(total, place, 1) for place in range(width)}

    odd = config.odd
    parts = [(known[bit], 1) for bit in network.result[: len(network.result) - odd]]
    pad = config.out_frac - network.frac
    if pad:
        parts.insert(0, (build.constant(network.half << pad - 1), pad))
    value = build.join(*parts)
    if odd:
        value = build.subtract(value, build.scaled(known[network.result[-1]], config.out_frac))
    return build.done(value)


@cache
def searched() -> dict[str, Network]:
    """Return the searched networks by name."""
    text = resources.files("accel.functions").joinpath("folded.json").read_text(encoding="utf-8")
    return {name: _read(entry) for name, entry in json.loads(text)["units"].items()}


def _read(entry: dict[str, Any]) -> Network:
    steps = tuple(Step(operation, tuple(map(tuple, words)), values) for operation, words, values in entry["steps"])
    return Network(
        entry["function"],
        entry["in_bits"],
        entry["in_frac"],
        counted(entry["cells"]),
        entry["error"],
        entry["frac"],
        entry["half"],
        steps,
        tuple(entry["result"]),
    )
