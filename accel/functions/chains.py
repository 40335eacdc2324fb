"""2^-t for t >= 0 without a multiplier: a significand from sums of small tables, then a shift by the integer part.

With t = I + f the result is 2^-f >> I. On [0, 1) the complement of f / 2 is close to 2^-f: 2^-f = 1 - (f / 2 + c(f)) with
0 <= c(f) < 0.044, so only the small bump c is tabulated. It is a sum of tables, each of a few bits of f, and the significand is the
complement of f / 2 + c, which costs no logic. The shift truncates.

Every sum is a subtraction of complemented tables: tools for LUTs with carry chains then pass the bits of the sum so far to the chain as
they are and absorb the table in the one LUT a column has anyway. With an addition they pass the table's bits, a second LUT each.
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


@dataclass(frozen=True, slots=True)
class Table:
    """One bit of the bump's sum.

    Parameters
    ----------
    chain : int
        Sum it enters, from 0; sums follow one another.
    column : int
        Column of the sum it enters; -1: it is carried into column 0.
    address : tuple of int
        Bits of the fraction that address it, the first the lowest; bit 0 is the fraction's lowest.
    values : tuple of int
        One bit for each address.
    """

    chain: int
    column: int
    address: tuple[int, ...]
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """A searched unit.

    Parameters
    ----------
    error : float
        Largest absolute error over all operands in Q4.12.
    counted : dict of int to int
        Look-up tables of 4 and of 6 inputs, as Yosys counted them.
    significand : int
        Bits of the significand, its leading one included [bits]: the fraction bits of the result.
    fraction : int
        Bits of the fraction of t that are used [bits].
    order : tuple of int
        Bits of the integer part in the order of their stages; those not named follow, lowest first.
    tables : tuple of Table
        The bump.
    """

    error: float
    counted: dict[int, int]
    significand: int
    fraction: int
    order: tuple[int, ...]
    tables: tuple[Table, ...]


def plans(config: FunctionConfig) -> Iterator[Plan]:
    """Yield the searched units that serve a configuration: 2^-t of no fewer fraction bits than they use."""
    if (config.function, config.scale) != ("exp2", 1):
        return
    for name, unit in searched().items():
        fits = unit.fraction <= config.in_frac <= config.in_bits and unit.significand <= config.out_frac <= config.out_bits
        if fits and unit.error <= config.error:
            count = unit.counted[config.luts]
            yield Plan({"unit": name}, count, partial(chains, unit, config), count)


def chains(unit: Unit, config: FunctionConfig) -> Datapath:
    """Build a unit's datapath.

    Parameters
    ----------
    unit : Unit
    config : FunctionConfig
        Formats; further fraction bits of the operand are not used.
    """
    build = Builder()
    operand = build.input(config.in_bits)
    zero, one = build.constant(0), build.constant(1)
    width = unit.significand - 1
    fraction = build.bits(operand, config.in_frac - unit.fraction, unit.fraction)
    taken = min(unit.fraction, width)
    total = build.bits(fraction, unit.fraction - taken, taken)
    if taken < width:
        total = build.join((zero, width - taken), (total, taken))
    for chain in range(1 + max(table.chain for table in unit.tables)):
        columns = {table.column: _table(build, fraction, table) for table in unit.tables if table.chain == chain}
        total = _sum(build, total, columns, width)
    result = build.join((build.complement(total, one), width), (one, 1))
    integers = config.in_bits - config.in_frac
    order = [bit for bit in unit.order if bit < integers]
    for bit in order + [bit for bit in range(integers) if bit not in order]:
        bits, places = build.nodes[result].bits, 1 << bit
        less = build.bits(result, places, bits - places) if bits > places else zero
        result = build.select(build.bits(operand, config.in_frac + bit, 1), less, result)
    return build.done(build.scaled(result, config.out_frac - unit.significand))


def _table(build: Builder, fraction: int, table: Table) -> int:
    """Write the complement of a table."""
    address = build.join(*[(build.bits(fraction, bit, 1), 1) for bit in table.address])
    return build.table(address, tuple(1 - value for value in table.values))


def _sum(build: Builder, total: int, columns: dict[int, int], width: int) -> int:
    """Add the tables of one chain: total - ~tables is total + tables + 1, the one being a carry into column 0 or lost below it."""
    one = build.constant(1)
    carry = columns.get(-1, one)
    # Column -1 subtracts the carry from its complement: it comes out of it unchanged, and the one of the subtraction stays in it.
    subtracted = build.join((carry, 1), *[(columns.get(column, one), 1) for column in range(width)])
    held = build.join((build.complement(carry, one), 1), (total, width))
    return build.bits(build.subtract(held, subtracted), 1, width)


@cache
def searched() -> dict[str, Unit]:
    """Return the searched units by name."""
    text = resources.files("accel.functions").joinpath("chains.json").read_text(encoding="utf-8")
    return {name: _read(entry) for name, entry in json.loads(text)["units"].items()}


def _read(entry: dict[str, Any]) -> Unit:
    tables = tuple(Table(chain, column, tuple(address), tuple(map(int, values))) for chain, column, address, values in entry["tables"])
    return Unit(entry["error"], counted(entry["cells"]), entry["significand"], entry["fraction"], tuple(entry["order"]), tables)
