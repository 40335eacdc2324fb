from __future__ import annotations

import pytest

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.timing.special import PASSES, QUOTIENT, ROOT, STAGES, special

CONFIG = AcceleratorConfig(rows=4, cols=4)


def naive(kind, elements, row):
    """Walk through the passes, beat by beat."""
    cycles = 0
    for number in range(PASSES[kind]):
        lengths = [row] * (elements // row) if kind in ("ArgMax", "Softmax", "LayerNorm") else [elements]
        for length in lengths:
            while length > 0:
                cycles, length = cycles + 1, length - CONFIG.cols
        cycles += STAGES
        if kind == "ArgMax" or (kind == "Softmax" and number < 2) or (kind == "LayerNorm" and number == 0):
            cycles += 2  # a tree over four lanes
    return cycles + {"Divide": QUOTIENT, "Softmax": QUOTIENT, "LayerNorm": ROOT}.get(kind, 0)


@pytest.mark.parametrize("kind", PASSES)
def test_formula(kind):
    for row in (1, 3, 4, 5, 64):
        for rows in (1, 2, 7):
            assert special(CONFIG, kind, row * rows, row) == naive(kind, row * rows, row)


def test_arguments_are_checked():
    with pytest.raises(RangeError, match=r"^kind must be one of Lookup, Multiply, Divide, ArgMax, Softmax, LayerNorm, not 'Conv'$"):
        special(CONFIG, "Conv", 5)
    for elements, row in ((0, 1), (5, 2)):
        with pytest.raises(RangeError, match=rf"^elements must be 1 or more rows of {row}, not {elements}$"):
            special(CONFIG, "Softmax", elements, row)
