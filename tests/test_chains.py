"""The searched units of 2^-t: a plain twin, errors over all operands, formats they serve, their count as their cost."""

from __future__ import annotations

import numpy as np
import pytest

from accel.config import FunctionConfig
from accel.functions.chains import Unit, chains, plans, searched
from accel.functions.evaluate import evaluate
from accel.functions.generate import design, measure


def naive(unit: Unit, in_frac: int, out_frac: int, t: int) -> int:
    """Sum the tables at the columns they are for, complement, shift."""
    fraction = (t >> (in_frac - unit.fraction)) % (1 << unit.fraction)
    width = unit.significand - 1
    total = fraction << width >> unit.fraction
    for table in unit.tables:
        address = sum((fraction >> bit & 1) << place for place, bit in enumerate(table.address))
        total += table.values[address] << max(table.column, 0)
    significand = (1 << width) + (~total) % (1 << width)
    return (significand >> (t >> in_frac)) << (out_frac - unit.significand)


@pytest.mark.golden
@pytest.mark.parametrize("name", searched())
@pytest.mark.parametrize(("in_bits", "in_frac", "out_frac"), [(16, 12, 16), (14, 12, 13), (20, 14, 24)])
def test_unit_is_its_tables_sum(name, in_bits, in_frac, out_frac):
    unit = searched()[name]
    config = FunctionConfig(in_bits=in_bits, in_frac=in_frac, out_bits=24, out_frac=out_frac)
    t = np.unique(np.linspace(0, (1 << in_bits) - 1, 3000).astype(np.int64))
    assert evaluate(chains(unit, config), t).tolist() == [naive(unit, in_frac, out_frac, int(value)) for value in t]


@pytest.mark.parametrize("name", searched())
def test_unit_keeps_its_error(name):
    """Over all operands, monotone and bounded; with further fraction bits by what these bring at most."""
    unit = searched()[name]
    config = FunctionConfig(error=unit.error)
    found = measure(config, chains(unit, config))
    assert found is not None
    assert found[0] == unit.error
    wide = FunctionConfig(in_bits=18, in_frac=14, out_bits=20, out_frac=18, error=unit.error + 2.0**-12)
    assert any(plan.parameters["unit"] == name for plan in plans(wide))
    assert measure(wide, chains(unit, wide))


@pytest.mark.parametrize("changes", [{"scale": 2.0}, {"in_frac": 6}, {"out_frac": 7}, {"error": 0.0003}, {"function": "exp"}])
def test_unit_is_not_offered_where_it_does_not_serve(changes):
    assert not list(plans(FunctionConfig(**{"error": 0.005} | changes)))


@pytest.mark.parametrize(
    ("error", "luts", "count"), [(0.005, 4, 28), (0.0016, 4, 54), (0.0004, 4, 92), (0.00391, 6, 23), (0.00073, 6, 41), (0.00038, 6, 47)]
)
def test_named_points_are_searched_units(error, luts, count):
    found = design(FunctionConfig(error=error, luts=luts))
    assert (found.method, found.cost) == ("searched", count)
