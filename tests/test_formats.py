"""Formats: bounds, text and rejected fields."""

from __future__ import annotations

import pytest

from accel.errors import RangeError
from accel.formats import FixedFormat, Overflow, Rounding

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("bits", range(2, 63))
def test_bounds(bits):
    """Every format holds 2**bits integers, the signed one as many below zero as not."""
    signed, unsigned = FixedFormat(bits), FixedFormat(bits, 0, False)
    assert signed.hi - signed.lo + 1 == unsigned.hi - unsigned.lo + 1 == 2**bits
    assert signed.lo == -signed.hi - 1
    assert unsigned.lo == 0


def test_text():
    assert str(FixedFormat(8)) == "s8"
    assert str(FixedFormat(16, -3, False)) == "u16.-3"


def test_codes():
    """The post-processor's instruction field counts the first three so."""
    assert [rule.code for rule in Rounding] == [0, 1, 2, 3]
    assert [Rounding.FLOOR.code, Rounding.HALF_UP.code, Rounding.HALF_EVEN.code] == [0, 1, 2]
    assert [rule.code for rule in Overflow] == [0, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((1,), r"bits must be an int in \[2, 62\], not 1"),
        ((63,), r"bits must be an int in \[2, 62\], not 63"),
        ((8.0,), r"bits must be an int in \[2, 62\], not 8\.0"),
        ((8, 0.5), r"frac must be an int, not 0\.5"),
        ((8, 0, 1), "signed must be a bool, not 1"),
    ],
)
def test_rejects(fields, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        FixedFormat(*fields)
