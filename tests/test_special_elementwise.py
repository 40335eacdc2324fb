"""Products, quotients and the place of the largest: exact in rational numbers, and close to the reals by the bound."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.special import divide, multiply
from accel.special.argmax import argmax
from accel.special.divide import DivideParameters
from accel.special.multiply import MultiplyParameters
from tests.test_postprocess import ROUND
from tests.test_special_integers import ROUNDINGS


def clip(value, fields):
    return min(max(value + fields["zero_point"], fields["lo"]), fields["hi"])


@st.composite
def cases(draw):
    """Draw operands of 4 to 16 bits, extremes among them, and fields whose results are in range, out of it, or 0."""
    bits = draw(st.integers(4, 16))
    half = 1 << bits - 1
    element = st.one_of(st.integers(-half, half - 1), st.sampled_from([-half, half - 1, 0]))
    lo, hi = sorted(draw(st.tuples(element, element)))
    fields: dict[str, Any] = {
        "zero_points": (draw(element), draw(element)),
        "multiplier": draw(st.floats(0.5, 1)) * 2.0 ** draw(st.one_of(st.integers(-34, 20), st.sampled_from([-1000, 1000]))),
        "zero_point": draw(element),
        "lo": lo,
        "hi": hi,
        "rounding": draw(st.sampled_from(ROUNDINGS)),
    }
    length = draw(st.integers(1, 12))
    return fields, *(np.array(draw(st.lists(element, min_size=length, max_size=length))) for _ in range(2))


HALVES: dict[str, Any] = {"zero_points": (0, 0), "multiplier": 0.5, "zero_point": 1, "lo": -8, "hi": 7}


@pytest.mark.golden
@settings(deadline=None, max_examples=300)
@given(cases())
@example(({"rounding": ROUNDINGS[2], **HALVES}, np.arange(-8, 8), np.ones(16, np.int64)))
def test_multiply(case):
    """The twin is exact on the integers; the reals are near."""
    fields, x0, x1 = case
    parameters = MultiplyParameters.of(**fields)
    found = multiply.multiply(parameters, x0, x1)
    limit = multiply.bound(parameters, fields["multiplier"])
    for a, b, y in zip(x0.tolist(), x1.tolist(), found.tolist(), strict=True):
        product = (a - fields["zero_points"][0]) * (b - fields["zero_points"][1])
        assert y == clip(ROUND[fields["rounding"].value](Fraction(product * parameters.mult, 1 << parameters.shift)), fields)
        assert abs(y - clip(product * Fraction(fields["multiplier"]), fields)) <= limit


@pytest.mark.golden
@settings(deadline=None, max_examples=300)
@given(cases())
@example(({"rounding": ROUNDINGS[2], **HALVES}, np.arange(-8, 8), np.repeat([-2, 2], 8)))
def test_divide(case):
    """The twin is exact on the integers; the reals are near; nothing divides by 0."""
    fields, x0, x1 = case
    parameters = DivideParameters.of(**fields)
    found = divide.divide(parameters, x0, x1)
    limit = divide.bound(parameters, fields["multiplier"])
    for a, b, y in zip(x0.tolist(), x1.tolist(), found.tolist(), strict=True):
        over, under = a - fields["zero_points"][0], b - fields["zero_points"][1]
        if under:
            exact = Fraction(over, under)
            factor = Fraction(parameters.mult, 1 << parameters.shift)
            assert y == clip(ROUND[fields["rounding"].value](exact * factor), fields)
            assert abs(y - clip(exact * Fraction(fields["multiplier"]), fields)) <= limit
        elif over:
            assert y == fields["hi" if over > 0 else "lo"]
        else:
            assert y == clip(0, fields)


@pytest.mark.golden
def test_every_pair_of_four_bits():
    """Exhaustive, with a broadcast row against a column; a power of two as the factor makes ties."""
    x = np.arange(-8, 8)
    fields: dict[str, Any] = {"zero_points": (1, -2), "zero_point": -1, "lo": -128, "hi": 127}
    product = multiply.multiply(MultiplyParameters.of(multiplier=0.25, **fields), x[:, None], x)
    quotient = divide.divide(DivideParameters.of(multiplier=3.5, **fields), x[:, None], x)
    assert product.shape == quotient.shape == (16, 16)
    for i, a in enumerate(range(-9, 7)):
        for j, b in enumerate(range(-6, 10)):
            assert product[i, j] == round(Fraction(a * b, 4)) - 1
            if b:
                assert quotient[i, j] == round(Fraction(7 * a, 2 * b)) - 1


@pytest.mark.golden
def test_any_layout():
    """Operands as broadcasts, transpositions and parts leave them give what the same numbers in a row give."""
    x = np.arange(-12, 12).reshape(2, 3, 4)
    fields: dict[str, Any] = {"zero_points": (1, 30), "multiplier": 3.5, "zero_point": 0, "lo": -128, "hi": 127}
    product, quotient = MultiplyParameters.of(**fields), DivideParameters.of(**fields)
    for a, b in ((x.T, x.T), (x.T[:, :2], x.T[:, 1:]), (x.transpose(1, 2, 0), x[:, :1, :1].T), (x[0, 0, 0], x), (x[::-1, ::2], x[:, :2])):
        one, other = (np.ascontiguousarray(each) for each in np.broadcast_arrays(a, b))
        np.testing.assert_array_equal(multiply.multiply(product, a, b), multiply.multiply(product, one, other))
        np.testing.assert_array_equal(divide.divide(quotient, a, b), divide.divide(quotient, one, other))
    assert multiply.multiply(product, x[0, 0, 0], x[1, 0, 0]).shape == divide.divide(quotient, x[0, 0, 0], x[1, 0, 0]).shape == ()


def test_narrower_factors():
    """As many bits as a post-processor has; a factor too large for them is refused."""
    fields: dict[str, Any] = {"zero_points": (0, 0), "zero_point": 0, "lo": -128, "hi": 127}
    assert MultiplyParameters.of(multiplier=1 / 3, mult_bits=8, **fields).mult == 171
    with pytest.raises(RangeError, match=r"^mult_bits must be an int in \[1, 31\], not 32$"):
        MultiplyParameters.of(multiplier=1.0, mult_bits=32, **fields)
    with pytest.raises(RangeError, match=r"^scale must be below 2\*\*8 - 1/2, not 300.0$"):
        MultiplyParameters.of(multiplier=300.0, mult_bits=8, **fields)
    with pytest.raises(RangeError, match=r"^multiplier must be positive and finite, not -1.0$"):
        MultiplyParameters.of(multiplier=-1.0, **fields)
    with pytest.raises(RangeError, match=r"^multiplier must be positive and finite, not nan$"):
        DivideParameters.of(multiplier=float("nan"), **fields)


def test_wide_operands_are_refused():
    fields: dict[str, Any] = {"zero_points": (0, 0), "zero_point": 0, "lo": -128, "hi": 127, "multiplier": 1.0}
    operands = np.zeros(2, np.int8), np.array([0, 40000])
    message = r"^x1 must be in \[-32768, 32767\], not 0..40000$"
    with pytest.raises(RangeError, match=message):
        multiply.multiply(MultiplyParameters.of(**fields), *operands)
    with pytest.raises(RangeError, match=message):
        divide.divide(DivideParameters.of(**fields), *operands)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=4), st.booleans())
def test_argmax(rows, last):
    """Ties are common."""
    naive = [max(range(4), key=lambda i: (row[i], i if last else -i)) for row in rows]
    assert argmax(np.array(rows, np.int8), last).tolist() == naive


def test_argmax_refuses():
    assert argmax(np.array([[[1, 5]]], np.int16)).shape == (1, 1)
    for wrong, said in ((np.zeros((2, 0), np.int8), "int8 of shape \\(2, 0\\)"), (np.zeros(2), "float64 of shape \\(2,\\)")):
        with pytest.raises(RangeError, match=rf"^x must be signed integers of shape \(\.\.\., n\), n 1 or more, not {said}$"):
            argmax(wrong)  # type: ignore[arg-type]  # the wrong type is the test
