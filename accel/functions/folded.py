"""Searched networks of small tables: sigmoid, tanh and Gaussian of the distance, symmetry folded away and far operands saturated.

A network is a list of steps on single bits: tables of a few bits each, and at most one sum. The operand is folded by inverting it where
it is negative, and held at its reach by setting all its bits, both in the one table a bit has anyway. The side is then a table of its
leading bits plus a second one of some leading and the following bits; an odd function is unfolded by inverting the sum. Both tables
were searched by annealing inside the intervals that the error leaves to each value, for the fewest tables of 4 or 6 inputs after
decomposition, and the decomposed tables are what the data holds. Where a constant half follows the network's lowest bit, its rounding
error is centred and inverting it negates it exactly.

A tool that maps for speed would join the tables again, at many times their number: each ends in a border.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any

from accel.config import FunctionConfig
from accel.functions.datapath import Builder, Datapath
from accel.functions.frame import Plan

ZERO, ONE = -1, -2  # instead of a bit's number: constants


@dataclass(frozen=True, slots=True)
class Step:
    """A table of bits, or a sum.

    Parameters
    ----------
    words : tuple of tuple of int
        Bits, the lowest first: the address of a table, or the two terms of a sum modulo 2^width.
    values : str
        Entries of a table, one character each; empty for a sum.
    """

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
    luts : int
        Inputs of the look-up tables it was searched for.
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
    luts: int
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
            yield Plan({"network": name}, tables(network, config.luts), partial(folded, network, config))


def tables(network: Network, inputs: int) -> float:
    """Count the look-up tables of so many inputs."""
    return sum(
        max(1, 2.0 ** (len(step.words[0]) - inputs)) if step.values else sum(bit >= 0 for bit in step.words[1]) for step in network.steps
    )


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
            known[first] = build.border(build.table(word(step.words[0]), tuple(map(int, step.values))))
        else:
            total = build.add(*map(word, step.words))
            known |= {first + place: build.bits(total, place, 1) for place in range(len(step.words[0]))}

    odd = config.function == "tanh"
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
    return {name: _read(entry) for name, entry in json.loads(text)["designs"].items()}


def _read(entry: dict[str, Any]) -> Network:
    steps = tuple(Step(tuple(map(tuple, words)), values) for words, values in entry["steps"])
    return Network(
        entry["function"],
        entry["in_bits"],
        entry["in_frac"],
        entry["luts"],
        entry["error"],
        entry["frac"],
        entry["half"],
        steps,
        tuple(entry["result"]),
    )
