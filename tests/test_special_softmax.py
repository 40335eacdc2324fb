from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.formats import Rounding
from accel.golden.function import function
from accel.special.integers import log2
from accel.special.softmax import UNITS, SoftmaxParameters, bound, softmax
from tests.test_postprocess import ROUND
from tests.test_special_integers import ROUNDINGS


def naive(p, rows):
    """Restate the steps in Python's integers and rational numbers; the unit and the logarithm have tests of their own."""
    unit = UNITS[p.unit]
    one = 1 << unit.in_frac
    results = []
    for row in rows:
        differences = [max(row) - x for x in row]
        exponents = [round(Fraction(d * p.step, 1 << p.step_shift)) for d in differences]
        powers = function(unit, np.array([t % one for t in exponents])).tolist()
        powers = [
            ROUND["half_up"](Fraction(m * 2**32, 2 ** (unit.out_frac + t // one))) if t // one < 99 else 0
            for m, t in zip(powers, exponents, strict=True)
        ]
        total = sum(powers)
        if p.logarithm:
            c = round(Fraction((int(log2(np.array(total))) - (32 << 24)) * p.base, 1 << p.base_shift))
            reals = [Fraction(-(d * p.scale + c), 1 << p.scale_shift) for d in differences]
        else:
            reals = [Fraction(e * p.scale, total << p.scale_shift) for e in powers]
        results.append([min(max(ROUND[p.rounding.value](real) + p.zero_point, p.lo), p.hi) for real in reals])
    return results


def exact(fields, rows):
    """Compute the real results, clipped, with 25 digits."""
    with mpmath.workdps(25):
        for row in rows:
            powers = [mpmath.exp((x - max(row)) * mpmath.mpf(fields["step"])) for x in row]
            total = mpmath.fsum(powers)
            for x, power in zip(row, powers, strict=True):
                value = (x - max(row)) * mpmath.mpf(fields["step"]) - mpmath.log(total) if fields["logarithm"] else power / total
                yield min(max(value / mpmath.mpf(fields["scale"]) + fields["zero_point"], fields["lo"]), fields["hi"])


def check(fields, rows):
    """Compare with the twin, bit by bit, and with the reals, by the bound."""
    parameters = SoftmaxParameters.of(length=len(rows[0]), **fields)
    found = softmax(parameters, np.array(rows))
    assert found.tolist() == naive(parameters, rows)
    limit = bound(parameters, fields["step"], fields["scale"])
    worst = max(abs(int(y) - real) for y, real in zip(found.reshape(-1), exact(fields, rows), strict=True))
    assert worst <= limit


@st.composite
def cases(draw):
    """Draw scales common and extreme, and rows of any width with ties."""
    bits = draw(st.integers(4, 16))
    half = 1 << bits - 1
    element = st.one_of(st.integers(-half, half - 1), st.sampled_from([-half, half - 1]))
    lo, hi = sorted(draw(st.tuples(element, element)))
    logarithm = draw(st.booleans())
    fields: dict[str, Any] = {
        "step": draw(st.floats(0.5, 1)) * 2.0 ** draw(st.one_of(st.integers(-12, 2), st.sampled_from([-300, -40, 12, 300]))),
        "scale": draw(st.sampled_from([2.0**-bits, 0.003, 0.1, 2.0**-24, 2.0**24, 2.0**-9 * 0.99, 2.0**-8 / 3])),
        "zero_point": draw(st.sampled_from([-half, half - 1, 0])),
        "lo": lo,
        "hi": hi,
        "rounding": draw(st.sampled_from(ROUNDINGS)),
        "logarithm": logarithm,
    }
    length = draw(st.sampled_from([1, 2, 3, 5, 16, 17]))
    return fields, draw(st.lists(st.lists(element, min_size=length, max_size=length), min_size=1, max_size=3))


TENTH: dict[str, Any] = {"step": 0.1, "zero_point": -128, "lo": -128, "hi": 127, "rounding": Rounding.HALF_EVEN}


@settings(deadline=None, max_examples=100)
@given(cases())
@example(({"scale": 1 / 256, "logarithm": False, **TENTH}, [[-128, 127, 0], [127, 127, 127]]))
@example(({"scale": 1 / 10, "logarithm": True, **TENTH}, [[-128, 127, 0], [127, 127, 127]]))
def test_any_case(case):
    check(*case)


@pytest.mark.golden
@pytest.mark.parametrize("logarithm", [False, True])
@pytest.mark.parametrize("scale", [1 / 256, 1 / 1024])
def test_every_row_of_three(logarithm, scale):
    """Exhaustive, 3 bits; both units."""
    rows = [list(row) for row in product(range(-4, 4), repeat=3)]
    check({**TENTH, "step": 0.3, "scale": scale, "logarithm": logarithm, "zero_point": 127 if logarithm else -128}, rows)


@pytest.mark.parametrize("logarithm", [False, True])
def test_the_longest_row(logarithm):
    """65,536 elements: one far above all others, or all alike; no sum leaves its width."""
    fields: dict[str, Any] = {"step": 1e-3, "scale": 2.0**-16, "zero_point": -32768, "lo": -32768, "hi": 32767, "logarithm": logarithm}
    if logarithm:
        fields |= {"scale": 1e-3, "zero_point": 32767}
    parameters = SoftmaxParameters.of(length=1 << 16, **fields)
    alike, one = np.full((2, 1 << 16), -32768)
    one[5] = 32767
    found = softmax(parameters, np.stack([alike, one]).astype(np.int16))
    limit = bound(parameters, fields["step"], fields["scale"])
    total = 1 + 65535 * np.exp(-65.535)
    for row, places, real in ((0, [0, 65535], 1 / 65536), (1, [5], 1 / total), (1, [0], np.exp(-65.535) / total)):
        wanted = (np.log(real) if logarithm else real) / fields["scale"] + fields["zero_point"]
        assert np.abs(found[row, places] - np.clip(wanted, -32768, 32767)).max() <= limit
    assert (found[0] == found[0, 0]).all()


def test_rows_are_independent():
    """Of any shape, and of the narrow type an engine stores; a shift of the operand changes nothing."""
    rng = np.random.default_rng(0)
    parameters = SoftmaxParameters.of(length=7, step=0.05, scale=1 / 256, zero_point=-128, lo=-128, hi=127)
    x = rng.integers(-128, 128, (2, 3, 5, 7)).astype(np.int8)
    whole = softmax(parameters, x)
    assert whole.shape == x.shape
    assert (whole.transpose(2, 0, 1, 3) == softmax(parameters, x.transpose(2, 0, 1, 3))).all()
    assert (whole[::-1, ::2] == softmax(parameters, x[::-1, ::2])).all()
    assert (whole == softmax(parameters, np.asfortranarray(x))).all()
    assert (whole[1, 2, 3] == softmax(parameters, x[1, 2, 3])).all()
    assert (whole == softmax(parameters, x + np.int16(900))).all()
    assert softmax(parameters, x[:0]).shape == (0, 3, 5, 7)


@pytest.mark.parametrize(("scale", "most"), [(1 / 256, 0.54), (2.0**-16, 0.62)])
def test_bounds_of_the_usual_formats(scale, most):
    """The units are fine enough: 8-bit and 16-bit probabilities of 1000 classes."""
    parameters = SoftmaxParameters.of(length=1000, step=0.1, scale=scale, zero_point=-128, lo=-128, hi=127)
    assert 0.5 < bound(parameters, 0.1, scale) < most


def test_arguments_are_checked():
    fields: dict[str, Any] = {"length": 4, "step": 0.1, "scale": 1 / 256, "zero_point": -128, "lo": -128, "hi": 127}
    for change, message in (
        ({"length": 65537}, r"length must be an int in \[1, 65536\], not 65537"),
        ({"step": 0.0}, r"step must be positive and finite, not 0.0"),
        ({"scale": 2.0**-25}, r"scale must be in \[2\*\*-24, 2\*\*24\], not 2.98\S+"),
        ({"hi": 40000}, r"hi must be an int in \[-32768, 32767\], not 40000"),
    ):
        with pytest.raises(RangeError, match=f"^{message}$"):
            SoftmaxParameters.of(**fields | change)
    with pytest.raises(RangeError, match=r"^x must be of shape \(\.\.\., 4\), not \(2, 3\)$"):
        softmax(SoftmaxParameters.of(**fields), np.zeros((2, 3), np.int8))
    with pytest.raises(RangeError, match=r"^x must be in \[-32768, 32767\], not 0..70000$"):
        softmax(SoftmaxParameters.of(**fields), np.array([[0, 0, 0, 70000]]))
