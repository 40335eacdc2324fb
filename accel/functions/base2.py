"""2^-t for t >= 0 without a multiplier: a significand from sums of small tables, then a shift by the integer part.

With t = I + f the result is 2^-f >> I. On [0, 1) the complement of f / 2 is close to 2^-f: 2^-f = 1 - (f / 2 + c(f)) with
0 <= c(f) < 0.044, so only the small bump c is tabulated. It is a sum of tables, each of a few bits of f, and the significand is the
complement of f / 2 + c, which costs no logic. The shift truncates; where `half` is set, a constant half unit below the result centres
its error instead of an adder that would round.

Every sum is a subtraction of complemented tables: tools for LUTs with carry chains then pass the bits of the sum so far to the chain as
they are and absorb the table in the one LUT a column has anyway. With an addition they pass the table's bits, a second LUT each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from math import ceil, exp2, floor
from typing import Any

from accel.config import FunctionConfig
from accel.errors import RangeError
from accel.functions.datapath import Builder, Datapath
from accel.functions.frame import Plan

FAMILIES = {"xc3s": 4, "xc7": 6}  # where the searched units were counted: inputs of the look-up tables


@dataclass(frozen=True, slots=True)
class Table:
    """Part of the bump: values added to the sum from one of its columns upwards.

    Parameters
    ----------
    chain : int
        Sum it enters, from 0; sums follow one another.
    column : int
        Column of the sum its lowest bit enters; -1: one bit, carried into column 0.
    address : tuple of int
        Bits of the fraction that address it, the first the lowest; bit 0 is the fraction's lowest.
    values : tuple of int
        One for each address.
    """

    chain: int
    column: int
    address: tuple[int, ...]
    values: tuple[int, ...]

    @property
    def width(self) -> int:
        """Columns it covers [bits]."""
        return max(1, max(self.values).bit_length())


@dataclass(frozen=True, slots=True)
class Base2:
    """What a unit consists of.

    Parameters
    ----------
    significand : int
        Bits of the significand, its leading one included [bits].
    fraction : int
        Bits of the fraction of t that are used [bits].
    guard : int
        Columns of the sum below the significand [bits].
    half : bool
        Whether a constant half unit follows the significand's lowest bit.
    zero : int
        Integer part of t from which the result is 0; at least `significand`.
    order : tuple of int
        Bits of the integer part in the order of their stages; those not named follow, lowest first.
    tables : tuple of Table
        The bump.
    """

    significand: int
    fraction: int
    guard: int
    half: bool
    zero: int
    order: tuple[int, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def columns(self) -> int:
        """Width of the sums [bits]."""
        return self.significand - 1 + self.guard

    @property
    def places(self) -> int:
        """Fraction bits of the result [bits]."""
        return self.significand + self.half


def intervals(parameters: Base2, error: float, in_frac: int) -> list[tuple[int, int]]:
    """Give, for every value of the fraction bits used, the sums that keep the error within a bound at every integer part.

    Parameters
    ----------
    parameters : Base2
        The unit; its tables do not matter.
    error : float
        Bound of the absolute error.
    in_frac : int
        Fraction bits of t [bits].

    Returns
    -------
    list of (int, int)
        Least and greatest sum of base and tables; the least exceeds the greatest where there is none.
    """
    scale, offset = float(1 << parameters.significand), 0.5 * parameters.half
    top = (1 << parameters.significand) - 1
    result = []
    for fraction in range(1 << parameters.fraction):
        lo, hi = 1 << (parameters.significand - 1), top
        for integer in range(parameters.zero):
            first = exp2(-integer - fraction / (1 << parameters.fraction))
            last = exp2(-integer - (fraction + 1) / (1 << parameters.fraction) + 2.0**-in_frac)
            least = max(0, ceil((first - error) * scale - offset - 1e-9))
            greatest = floor((last + error) * scale - offset + 1e-9)
            lo, hi = max(lo, least << integer), min(hi, ((greatest + 1) << integer) - 1)
        result.append(((top - hi) << parameters.guard, ((top - lo + 1) << parameters.guard) - 1))
    return result


def base(parameters: Base2, fraction: int) -> int:
    """Return the fraction as it enters the first sum."""
    shift = parameters.columns - parameters.fraction
    return fraction << shift if shift >= 0 else fraction >> -shift


def picked(fraction: int, address: tuple[int, ...]) -> int:
    """Return the address that these bits of the fraction form."""
    return sum((fraction >> bit & 1) << place for place, bit in enumerate(address))


def multipartite(parameters: Base2, coarse: int, fine: tuple[tuple[int, int, int], ...], error: float, in_frac: int) -> Base2:
    """Fill the tables by rule: slopes from the fine ones, the rest from the coarse one, in the middle of what the error allows.

    Where no value keeps the bound, the nearest is taken: whoever calls measures the result, and that it never rises.

    Parameters
    ----------
    parameters : Base2
        Everything but tables.
    coarse : int
        Highest bits of the fraction that address the coarse table [bits].
    fine : tuple of (int, int, int)
        Fine tables: highest bits of the fraction that choose the slope [bits], bits below those of all tables before that are
        multiplied by it [bits], lowest column.
    error : float
        Bound of the absolute error whose interval is halved.
    in_frac : int
        Fraction bits of t [bits].
    """
    bits = parameters.fraction
    size = 1 << bits
    unit = float(1 << parameters.columns)  # f is below 1, f / 2 below half the scale of the result: a sum of `columns` bits
    bump = [2 * unit * (1 - (i + 0.5) / size / 2 - exp2(-(i + 0.5) / size)) for i in range(size)]
    tables = []
    used = coarse
    slow = [0] * size
    for chain, (high, low, column) in enumerate(fine, 1):
        address = tuple(range(bits - used - low, bits - used)) + tuple(range(bits - high, bits))
        unused = 1 << (bits - used - low)
        values = [0] * (1 << (high + low))
        for slope in range(1 << high):
            first, last = slope << (bits - high), ((slope + 1) << (bits - high)) - 1
            step = (bump[last] - bump[first]) / (last - first) * unused
            steps = [round(step * place / (1 << column)) for place in range(1 << low)]
            for place in range(1 << low):
                values[slope << low | place] = steps[place] - min(steps)
        if max(values):
            tables.append(Table(chain, column, address, tuple(values)))
            slow = [s + (values[picked(i, address)] << column) for i, s in enumerate(slow)]
        used += low
    allowed = intervals(parameters, error, in_frac)
    rest = [(lo - base(parameters, i) - s, hi - base(parameters, i) - s) for i, ((lo, hi), s) in enumerate(zip(allowed, slow, strict=True))]
    step = 1 << (bits - coarse)
    values = []
    for i in range(0, size, step):
        lo, hi = max(lo for lo, _ in rest[i : i + step]), min(hi for _, hi in rest[i : i + step])
        limit = (1 << parameters.columns) - 1 - max(base(parameters, j) + slow[j] for j in range(i, i + step))
        values.append(max(0, min((lo + hi) // 2, limit)))
    tables.insert(0, Table(0, 0, tuple(range(bits - coarse, bits)), tuple(values)))
    return Base2(parameters.significand, bits, parameters.guard, parameters.half, parameters.zero, parameters.order, tuple(tables))


def base2(parameters: Base2, in_bits: int, in_frac: int, out_bits: int, out_frac: int) -> Datapath:
    """Build the datapath of 2^-t.

    Parameters
    ----------
    parameters : Base2
        The unit.
    in_bits, in_frac : int
        Width and fraction bits of the unsigned t [bits].
    out_bits, out_frac : int
        Width and fraction bits of the unsigned result [bits].
    """
    if out_frac < parameters.places or out_bits < out_frac:
        raise RangeError(
            f"the result has {parameters.places} fraction bits and none before the point, which do not fit in {out_bits} of {out_frac}"
        )
    if in_bits < in_frac:
        raise RangeError(f"in_bits must be at least in_frac ({in_frac}), not {in_bits}")
    if parameters.zero < parameters.significand and parameters.half:
        raise RangeError(f"zero must be at least the significand's width ({parameters.significand}), not {parameters.zero}")
    builder = Builder()
    operand = builder.input(in_bits)
    zero, one = builder.constant(0), builder.constant(1)
    total = _aligned(builder, operand, parameters, in_frac)
    for chain in range(max((table.chain for table in parameters.tables), default=-1) + 1):
        tables = [table for table in parameters.tables if table.chain == chain]
        if tables:
            total = _sum(builder, operand, total, tables, parameters, in_frac)
    kept = builder.bits(total, parameters.guard, parameters.significand - 1)
    result = builder.join((builder.complement(kept, one), parameters.significand - 1), (one, 1))
    integers = in_bits - in_frac
    order = [bit for bit in parameters.order if bit < integers]
    for bit in order + [bit for bit in range(integers) if bit not in order]:
        width, places = builder.nodes[result].bits, 1 << bit
        less = builder.bits(result, places, width - places) if width > places else zero
        result = builder.select(builder.bits(operand, in_frac + bit, 1), less, result)
    parts = [(result, parameters.significand)]
    if parameters.half:
        present = tuple(int(integer < parameters.zero) for integer in range(1 << integers))
        parts.insert(0, (builder.table(builder.bits(operand, in_frac, integers), present) if integers else one, 1))
    if out_frac > parameters.places:
        parts.insert(0, (zero, out_frac - parameters.places))
    return builder.done(builder.join(*parts) if len(parts) > 1 else result)


def _bit(builder: Builder, operand: int, parameters: Base2, in_frac: int, bit: int) -> int:
    place = in_frac - parameters.fraction + bit
    return builder.bits(operand, place, 1) if place >= 0 else builder.constant(0)


def _aligned(builder: Builder, operand: int, parameters: Base2, in_frac: int) -> int:
    """Bring the highest bits of the fraction to the width of the sums."""
    taken = min(parameters.fraction, parameters.columns, in_frac)
    if not taken:
        return builder.constant(0)
    fraction = builder.bits(operand, in_frac - taken, taken)
    missing = parameters.columns - taken
    return builder.join((builder.constant(0), missing), (fraction, taken)) if missing else fraction


def _sum(builder: Builder, operand: int, total: int, tables: list[Table], parameters: Base2, in_frac: int) -> int:
    """Add the tables of one chain: total - ~tables is total + tables + 1, the one being a carry into column 0 or lost below it."""
    one = builder.constant(1)
    columns: dict[int, int] = {}
    for table in tables:
        address = builder.join(*[(_bit(builder, operand, parameters, in_frac, bit), 1) for bit in table.address])
        for place in range(table.width):
            values = tuple(1 - (value >> place & 1) for value in table.values)
            if table.column + place in columns:
                raise RangeError(f"column must be free in its chain, not {table.column + place}")
            constant = len(set(values)) == 1
            known = builder.nodes[address].hi + 1
            columns[table.column + place] = builder.constant(values[0]) if constant else builder.table(address, values[:known])
    carry = columns.pop(-1, one)
    node = builder.nodes[carry]
    if node.operation == "table":
        held = builder.table(node.arguments[0], tuple(1 - value for value in node.constants))
    else:
        held = builder.constant(1 - node.constants[0])
    # column -1 holds the carry twice: it comes out of it unchanged, and the one of the subtraction stays in it
    added = builder.join((carry, 1), *[(columns.get(column, one), 1) for column in range(parameters.columns)])
    return builder.bits(builder.subtract(builder.join((held, 1), (total, parameters.columns)), added), 1, parameters.columns)


def plans(config: FunctionConfig) -> Iterator[Plan]:
    """Yield the searched units that serve a configuration: 2^-t of no fewer fraction bits than they use."""
    if (config.function, config.scale) != ("exp2", 1):
        return
    for name, unit in searched().items():
        fits = unit.parameters.fraction <= config.in_frac <= config.in_bits and unit.parameters.places <= config.out_frac <= config.out_bits
        if fits and unit.error <= config.error:
            build = partial(base2, unit.parameters, config.in_bits, config.in_frac, config.out_bits, config.out_frac)
            yield Plan({"unit": name}, unit.counted[config.luts], build, unit.counted[config.luts])


@dataclass(frozen=True, slots=True)
class Searched:
    """A searched unit.

    Parameters
    ----------
    parameters : Base2
    error : float
        Its largest absolute error over all operands in Q4.12.
    counted : dict of int to int
        Look-up tables of 4 and of 6 inputs, as Yosys counted them.
    """

    parameters: Base2
    error: float
    counted: dict[int, int]


@cache
def searched() -> dict[str, Searched]:
    """Return the searched units by name."""
    text = resources.files("accel.functions").joinpath("base2.json").read_text(encoding="utf-8")
    return {
        name: Searched(
            _read(entry["parameters"]), entry["max"], {inputs: _count(entry["cells"][family]) for family, inputs in FAMILIES.items()}
        )
        for name, entry in json.loads(text)["designs"].items()
    }


def _count(cells: dict[str, int]) -> int:
    return sum(number for cell, number in cells.items() if cell.startswith("LUT"))


def _read(data: dict[str, Any]) -> Base2:
    tables = tuple(Table(chain, column, tuple(address), tuple(map(int, values))) for chain, column, address, values in data["tables"])
    return Base2(data["significand"], data["fraction"], data["guard"], data["half"], data["zero"], tuple(data["order"]), tables)
