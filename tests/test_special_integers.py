from __future__ import annotations

from fractions import Fraction
from math import isqrt

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.formats import Rounding
from accel.special import integers
from accel.special.integers import LOG_BITS, LOG_ERROR, Elementwise, Output, log2, nearest, operand, positive
from tests.test_postprocess import ROUND

ROUNDINGS = [Rounding.FLOOR, Rounding.HALF_UP, Rounding.HALF_EVEN]


@settings(deadline=None, max_examples=200)
@given(st.floats(0, 2.0**20), st.integers(21, 40), st.integers(0, 63))
@example(2.0**20, 21, 63)
@example(0.0, 21, 5)
@example(1 - 2.0**-30, 21, 63)  # rounds up to a bit more
def test_nearest(factor, bits, most):
    """No pair of the allowed ones is nearer."""
    mult, shift = nearest(factor, bits, most)
    assert 0 <= mult < 1 << bits
    assert 0 <= shift <= most
    off = abs(Fraction(mult, 1 << shift) - Fraction(factor))
    for other in range(most + 1):
        best = round(Fraction(factor) * (1 << other))
        assert best >= 1 << bits or abs(Fraction(best, 1 << other) - Fraction(factor)) >= off


@pytest.mark.golden
@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=20))
@example([1, 2, 3, 2**31 - 1, 2**31, 2**31 + 1, 2**62, 2**63 - 1])
def test_log2(values):
    """Low by less than its bound, against arithmetic of 40 digits."""
    found = log2(np.array(values, np.int64)).tolist()
    with mpmath.workdps(40):
        low = [mpmath.log(value, 2) - mpmath.mpf(one) / 2**LOG_BITS for value, one in zip(values, found, strict=True)]
    assert min(low) >= 0
    assert max(low) <= LOG_ERROR


@pytest.mark.golden
def test_log2_of_powers_is_exact():
    values = np.int64(1) << np.arange(63)
    assert (log2(values.reshape(7, 9)).reshape(-1) == np.arange(63) << LOG_BITS).all()


def test_log2_refuses():
    with pytest.raises(RangeError, match=r"^value must be in \[1, 9223372036854775807\], not 0..3$"):
        log2(np.array([0, 3]))


@pytest.mark.golden
@settings(deadline=None, max_examples=200)
@given(st.integers(-(2**62), 2**62), st.integers(1, 2**62 - 1))
@example(2**62, 2**62 - 1)
@example(5, 2)
@example(-5, 2)
@example(7, 2)
def test_quotient(dividend, divisor):
    for rounding in ROUNDINGS:
        found = integers._quotient(np.int64(dividend), np.int64(divisor), rounding.code)
        assert found == ROUND[rounding.value](Fraction(dividend, divisor))


@pytest.mark.golden
@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**62 - 1))
@example(2**62 - 1)
@example((2**31 - 1) ** 2 - 1)
@example((2**31 - 1) ** 2)
def test_root(value):
    """The nearest integer: no square root of an integer lies halfway."""
    floor = isqrt(value)
    assert integers._root(np.int64(value)) == floor + (value > floor * floor + floor)


@pytest.mark.golden
def test_length():
    values = [1, 2, 3, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1]
    assert [integers._length(np.int64(value)) for value in values] == [value.bit_length() for value in values]


def test_arguments_are_checked():
    with pytest.raises(RangeError, match=r"^x must be signed integers, not float64$"):
        operand("x", np.zeros(1))  # type: ignore[arg-type]  # the wrong type is the test
    with pytest.raises(RangeError, match=r"^x must be in \[-32768, 32767\], not 0..32768$"):
        operand("x", np.array([0, 32768]))
    assert operand("x", np.array([-32768, 32767], np.int16)).dtype == np.int64
    with pytest.raises(RangeError, match=r"^lo must be an int in \[-32768, 5\], not 6$"):
        Output(zero_point=0, lo=6, hi=5)
    with pytest.raises(RangeError, match=r"^rounding must be floor, half_up or half_even, not stochastic$"):
        Output(zero_point=0, lo=0, hi=5, rounding=Rounding.STOCHASTIC)
    with pytest.raises(RangeError, match=r"^zero_points must be an int in \[-32768, 32767\], not 32768$"):
        Elementwise(zero_points=(0, 32768), mult=1, shift=0, zero_point=0, lo=0, hi=5)
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(RangeError, match=rf"^scale must be positive and finite, not {wrong}$"):
            positive("scale", wrong)
