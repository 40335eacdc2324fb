"""The number rules against rational arithmetic: exhaustive at small widths, random at large ones."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from apytypes import APyFixed, OverflowMode, QuantizationMode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.formats import FixedFormat, Overflow, Rounding
from accel.golden.arithmetic import convert, overflow, requantise, round_shift
from accel.lfsr import WORD_BITS

pytestmark = pytest.mark.golden

INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-8, 8) | st.sampled_from([-(2**63), 2**63 - 1, 2**62, 2**62 - 1, -(2**62)])
SHIFTS = st.integers(0, 63)
WORDS = st.integers(0, 2**WORD_BITS - 1) | st.sampled_from([0, 2**WORD_BITS - 1])
PLAIN = [Rounding.FLOOR, Rounding.HALF_UP, Rounding.HALF_EVEN]
FORMATS = st.builds(FixedFormat, st.integers(2, 62), st.just(0), st.booleans())


def naive_round(x: Fraction, rounding: Rounding, word: int = 0) -> int:
    match rounding:
        case Rounding.FLOOR:
            return floor(x)
        case Rounding.HALF_UP:
            return floor(x + Fraction(1, 2))
        case Rounding.HALF_EVEN:
            return min((floor(x), ceil(x)), key=lambda y: (abs(x - y), y % 2))
        case Rounding.STOCHASTIC:
            return floor(x + Fraction(word, 2**WORD_BITS))


def naive_overflow(x: int, format: FixedFormat, rule: Overflow) -> tuple[int, bool]:
    if rule is Overflow.SATURATE:
        kept = min(max(x, format.lo), format.hi)
    else:
        kept = next(y for y in (x % 2**format.bits, x % 2**format.bits - 2**format.bits) if format.lo <= y <= format.hi)
    return kept, kept != x


@pytest.mark.parametrize("rounding", PLAIN)
@pytest.mark.parametrize("shift", range(11))
def test_round_shift_exhaustively(rounding, shift):
    values = np.arange(-512, 512)
    expected = [naive_round(Fraction(v, 2**shift), rounding) for v in values.tolist()]
    np.testing.assert_array_equal(round_shift(values, shift, rounding), expected)


@pytest.mark.parametrize("shift", range(5))
def test_stochastic_exhaustively(shift):
    """Every dropped fraction against the least and the greatest word of every class that can be told apart."""
    spare = WORD_BITS - shift
    words = [word for top in range(2**shift) for word in (top << spare, (top << spare) + (1 << spare) - 1)]
    value, word = (np.array(a) for a in zip(*product(range(-32, 32), words), strict=True))
    expected = [floor(Fraction(v, 2**shift) + Fraction(w, 2**WORD_BITS)) for v, w in zip(value.tolist(), word.tolist(), strict=True)]
    np.testing.assert_array_equal(round_shift(value, shift, Rounding.STOCHASTIC, word), expected)


@settings(max_examples=300)
@given(INT64, SHIFTS, st.sampled_from(Rounding), WORDS)
@example(-1, 63, Rounding.HALF_EVEN, 0)
@example(-(2**63), 63, Rounding.HALF_UP, 0)
@example(2**63 - 1, 63, Rounding.STOCHASTIC, 2**WORD_BITS - 1)
@example(2**63 - 1, 1, Rounding.HALF_UP, 0)
def test_round_shift_is_exact(value, shift, rounding, word):
    words = np.array([word]) if rounding is Rounding.STOCHASTIC else None
    (got,) = round_shift(np.array([value]), shift, rounding, words)
    assert got == naive_round(Fraction(value, 2**shift), rounding, word)


@pytest.mark.parametrize(
    ("rounding", "mode"),
    [
        (Rounding.FLOOR, QuantizationMode.TRN),
        (Rounding.HALF_UP, QuantizationMode.RND),
        (Rounding.HALF_EVEN, QuantizationMode.RND_CONV),
    ],
)
def test_rounding_as_apytypes(rounding, mode):
    values = np.arange(-100, 100)
    expected = [
        int(float(APyFixed(v % 2**12, bits=12, int_bits=9).cast(int_bits=12, frac_bits=0, quantization=mode))) for v in values.tolist()
    ]
    assert round_shift(values, 3, rounding).tolist() == expected


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("rule", Overflow)
def test_overflow_exhaustively(bits, signed, rule):
    values, format = np.arange(-512, 512), FixedFormat(bits, 0, signed)
    for shift in range(3):
        expected = [naive_overflow(v << shift, format, rule) for v in values.tolist()]
        got = overflow(values, format, rule, shift)
        assert list(zip(*(a.tolist() for a in got), strict=True)) == expected


@settings(max_examples=300)
@given(INT64, FORMATS, st.sampled_from(Overflow), SHIFTS | st.just(0))
@example(1, FixedFormat(62), Overflow.WRAP, 63)
@example(-(2**63), FixedFormat(62, 0, False), Overflow.SATURATE, 63)
def test_overflow_is_exact(value, format, rule, shift):
    kept, flag = overflow(np.array([value]), format, rule, shift)
    assert (kept[0], flag[0]) == naive_overflow(value << shift, format, rule)


def test_overflow_as_apytypes():
    values = np.arange(-100, 100)
    for rule, mode in ((Overflow.SATURATE, OverflowMode.SAT), (Overflow.WRAP, OverflowMode.WRAP)):
        expected = [
            int(float(APyFixed(v % 2**12, bits=12, int_bits=12).cast(int_bits=5, frac_bits=0, overflow=mode))) for v in values.tolist()
        ]
        assert overflow(values, FixedFormat(5), rule)[0].tolist() == expected


@settings(max_examples=300)
@given(
    st.integers(2, 62),
    st.integers(-40, 40),
    st.integers(-23, 23),
    st.integers(2, 62),
    st.sampled_from(Rounding),
    st.sampled_from(Overflow),
    WORDS,
    st.data(),
)
def test_convert_is_exact(bits, frac, change, kept_bits, rounding, rule, word, data):
    """The value, not the integer, is what a conversion keeps."""
    source = FixedFormat(bits, frac, data.draw(st.booleans()))
    target = FixedFormat(kept_bits, frac + change, data.draw(st.booleans()))
    value = data.draw(st.integers(source.lo, source.hi))
    exact = value * Fraction(2) ** (target.frac - source.frac)
    words = np.array([word]) if rounding is Rounding.STOCHASTIC else None
    kept, flag = convert(np.array([value]), source, target, rounding, rule, words)
    assert (kept[0], flag[0]) == naive_overflow(naive_round(exact, rounding, word), target, rule)


def naive_requantise(acc, bias, mult, shift, rounding, zero_point, lo, hi):
    return min(max(naive_round(Fraction((acc + bias) * mult, 2**shift), rounding) + zero_point, lo), hi)


@pytest.mark.parametrize("rounding", PLAIN)
def test_requantise_exhaustively(rounding):
    cases = np.array(list(product(range(-16, 17, 2), (-3, 0, 4), range(8), range(5))))
    acc, bias, mult, shift = cases.T
    for zero_point, lo, hi in ((0, -8, 7), (3, 3, 7), (-5, -8, -8)):
        expected = [naive_requantise(a, b, m, s, rounding, zero_point, lo, hi) for a, b, m, s in cases.tolist()]
        np.testing.assert_array_equal(requantise(acc, bias, mult, shift, rounding, zero_point, lo, hi), expected)


@settings(max_examples=300)
@given(st.integers(2, 62), st.sampled_from(PLAIN), SHIFTS, st.data())
def test_requantise_is_exact(acc_bits, rounding, shift, data):
    """At every width a config allows, with bounds anywhere in the range of a tensor."""
    format = FixedFormat(acc_bits)
    acc, bias = (data.draw(st.integers(format.lo, format.hi) | st.sampled_from([format.lo, format.hi])) for _ in range(2))
    mult = data.draw(st.integers(0, 2 ** (63 - acc_bits) - 1) | st.just(2 ** (63 - acc_bits) - 1))
    lo, zero_point, hi = sorted(data.draw(st.integers(-(2**31), 2**31 - 1)) for _ in range(3))
    (got,) = requantise(np.array([acc]), bias, mult, shift, rounding, zero_point, lo, hi)
    assert got == naive_requantise(acc, bias, mult, shift, rounding, zero_point, lo, hi)


def test_requantise_per_channel():
    """Parameters of shape (n,) apply to the channels of sums of shape (m, n)."""
    acc = np.arange(12).reshape(4, 3)
    bias, mult, shift = np.array([0, 10, -10]), np.array([1, 3, 5]), np.array([0, 1, 2])
    expected = [
        [
            naive_requantise(*column, Rounding.HALF_EVEN, 1, -8, 7)
            for column in zip(row, bias.tolist(), mult.tolist(), shift.tolist(), strict=True)
        ]
        for row in acc.tolist()
    ]
    assert requantise(acc, bias, mult, shift, Rounding.HALF_EVEN, 1, -8, 7).tolist() == expected
    assert requantise(acc[:0], bias, mult, shift, Rounding.HALF_EVEN, 1, -8, 7).shape == (0, 3)


def test_operands_are_left_alone():
    acc = np.array([[100, -100]])
    round_shift(acc, 1, Rounding.FLOOR), overflow(acc, FixedFormat(4), Overflow.WRAP)
    requantise(acc, 1, 1, 1, Rounding.FLOOR, 0, -8, 7)
    assert acc.tolist() == [[100, -100]]


ONE = np.ones(1, np.int64)
HALF: Any = 0.5
MODES = (Rounding.FLOOR, Overflow.SATURATE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: round_shift(ONE * HALF, 1, Rounding.FLOOR), r"value must be int64 of shape \(1,\), not float64 of shape \(1,\)"),
        (lambda: round_shift(ONE, 64, Rounding.FLOOR), r"shift must be in \[0, 63\], not 64\.\.64"),
        (lambda: round_shift(ONE, -1, Rounding.FLOOR), r"shift must be in \[0, 63\], not -1\.\.-1"),
        (lambda: round_shift(ONE, ONE.repeat(2), Rounding.FLOOR), r"shift must be of a shape that broadcasts to \(1,\), not \(2,\)"),
        (lambda: round_shift(ONE, 1, Rounding.STOCHASTIC), "word must be given where rounding is stochastic, not None"),
        (lambda: round_shift(ONE, 1, Rounding.FLOOR, 5), "word must be None where rounding is floor, not 5"),
        (lambda: round_shift(ONE, 1, Rounding.STOCHASTIC, 2**32), r"word must be in \[0, 4294967295\], not 4294967296\.\.4294967296"),
        (
            lambda: overflow(ONE.astype(np.int32), FixedFormat(4), Overflow.WRAP),
            r"value must be int64 of shape \(1,\), not int32 of shape \(1,\)",
        ),
        (lambda: overflow(ONE, FixedFormat(4), Overflow.WRAP, 64), r"shift must be an int in \[0, 63\], not 64"),
        (lambda: convert(ONE * 8, FixedFormat(4), FixedFormat(4), *MODES), r"value must be in \[-8, 7\], not 8\.\.8"),
        (
            lambda: convert(ONE, FixedFormat(4, 2), FixedFormat(4, 66), *MODES),
            r"target must have between -61 and 65 fraction bits, not 66",
        ),
        (lambda: requantise(ONE, 0, 1, 0, Rounding.STOCHASTIC, 0, 0, 1), "rounding must be floor, half_up or half_even, not stochastic"),
        (lambda: requantise(ONE, 0, -1, 0, Rounding.FLOOR, 0, 0, 1), r"mult must be in \[0, 9223372036854775807\], not -1\.\.-1"),
        (lambda: requantise(ONE, 0, 1, 64, Rounding.FLOOR, 0, 0, 1), r"shift must be in \[0, 63\], not 64\.\.64"),
        (lambda: requantise(ONE, HALF, 1, 0, Rounding.FLOOR, 0, 0, 1), r"bias must be int64 of shape \(\), not float64 of shape \(\)"),
        (
            lambda: requantise(ONE, 0, 1, 0, Rounding.FLOOR, 2**32, 0, 1),
            r"zero_point must be an int in \[-2147483648, 4294967295\], not 4294967296",
        ),
        (lambda: requantise(ONE, 0, 1, 0, Rounding.FLOOR, 0, HALF, 1), r"lo must be an int in \[-2147483648, 1\], not 0\.5"),
        (lambda: requantise(ONE, 0, 1, 0, Rounding.FLOOR, 0, 2, 1), r"lo must be an int in \[-2147483648, 1\], not 2"),
        (
            lambda: requantise(ONE, 1, 2**62, 0, Rounding.FLOOR, 0, 0, 1),
            r"\(acc \+ bias\) \* mult must be at most 2\*\*63 - 1 in magnitude, not up to 9223372036854775808",
        ),
    ],
)
def test_rejects(call, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        call()
