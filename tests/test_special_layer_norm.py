from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import isqrt
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.formats import Rounding
from accel.special.layer_norm import LayerNormParameters, bound, layer_norm
from tests.test_postprocess import ROUND
from tests.test_special_integers import ROUNDINGS


def naive(p, rows):
    """Restate the steps in Python's integers and rational numbers."""
    n, results = len(p.gamma), []
    for row in rows:
        total, variance = sum(row), n * sum(x * x for x in row) - sum(row) ** 2
        g = p.places
        while variance and variance * Fraction(4) ** g >= 2**60:
            g -= 1
        scaled = int(variance * Fraction(4) ** g) + ROUND["half_up"](Fraction(p.epsilon) / 4 ** (p.places - g))
        floor = isqrt(scaled)
        root = floor + (scaled > floor * floor + floor)
        inverse = ROUND["half_up"](Fraction(2**60, root)) if root else 0
        result = []
        for x, gamma, beta in zip(row, p.gamma.tolist(), p.beta.tolist(), strict=True):
            u = round((n * x - total) * inverse * Fraction(2) ** (22 + g - 60))
            real = Fraction(u * gamma + beta, 2 ** (p.frac + 22))
            result.append(min(max(ROUND[p.rounding.value](real) + p.zero_point, p.lo), p.hi))
        results.append(result)
    return results


def exact(fields, rows):
    """Compute the real results, clipped, with 30 digits; a row of equal elements is 0 before beta."""
    with mpmath.workdps(30):
        for row in rows:
            mean = mpmath.fsum(row) / len(row)
            under = mpmath.sqrt(mpmath.fsum((x - mean) ** 2 for x in row) / len(row) + mpmath.mpf(fields["epsilon"]))
            for x, gamma, beta in zip(row, fields["gamma"].tolist(), fields["beta"].tolist(), strict=True):
                value = ((x - mean) / under if max(row) > min(row) else 0) * gamma + beta
                yield min(max(value + fields["zero_point"], fields["lo"]), fields["hi"])


def check(fields, rows):
    """Compare with the twin, bit by bit, and with the reals, by the bound."""
    parameters = LayerNormParameters.of(**fields)
    found = layer_norm(parameters, np.array(rows))
    assert found.tolist() == naive(parameters, rows)
    limit = bound(parameters, fields["gamma"], fields["beta"])
    assert max(abs(int(y) - real) for y, real in zip(found.reshape(-1), exact(fields, rows), strict=True)) <= limit


@st.composite
def cases(draw):
    """Draw rows with small and large variance, epsilons that vanish beside it or dwarf it, and any gain."""
    bits = draw(st.integers(4, 16))
    half = 1 << bits - 1
    low = draw(st.integers(-half, half - 2))
    element = st.one_of(st.integers(low, min(low + draw(st.sampled_from([1, 3, 2 * half])), half - 1)), st.just(low))
    lo, hi = sorted(draw(st.tuples(*[st.integers(-half, half - 1)] * 2)))
    length = draw(st.sampled_from([1, 2, 3, 8, 17]))

    def reals(exponents):
        return np.array(draw(st.lists(st.floats(-1, 1), min_size=length, max_size=length))) * 2.0 ** draw(st.sampled_from(exponents))

    fields: dict[str, Any] = {
        "epsilon": draw(st.sampled_from([0.0, 2.0**-1060, 2.0**-60, 2.0**64]))
        or draw(st.floats(0.5, 1)) * 2.0 ** draw(st.integers(-30, 50)),
        "gamma": reals([-80, 0, 7, 15, 30]),
        "beta": reals([-80, 0, 7, 15, 38]),
        "zero_point": draw(st.integers(-half, half - 1)),
        "lo": lo,
        "hi": hi,
        "rounding": draw(st.sampled_from(ROUNDINGS)),
    }
    return fields, draw(st.lists(st.lists(element, min_size=length, max_size=length), min_size=1, max_size=3))


UNIT: dict[str, Any] = {"gamma": np.full(3, 20.0), "beta": np.array([0.5, -3, 0]), "zero_point": 0, "lo": -128, "hi": 127}


@settings(deadline=None, max_examples=300)
@given(cases())
@example(({**UNIT, "epsilon": 0.0, "rounding": Rounding.HALF_EVEN}, [[5, 5, 5], [-32768, 32767, 0]]))
def test_any_case(case):
    check(*case)


@pytest.mark.golden
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.7])
def test_every_row_of_three(epsilon):
    """Exhaustive, 3 bits."""
    check({**UNIT, "epsilon": epsilon}, [list(row) for row in product(range(-4, 4), repeat=3)])


@pytest.mark.golden
@pytest.mark.parametrize("row", ["halves", "one", "alike"])
def test_the_longest_row(row):
    """65,536 elements of 16 bits: the greatest variance, the greatest result, and none; every width is used to its end."""
    n = 1 << 16
    x = np.full(n, -32768, np.int16)
    if row == "halves":
        x[::2] = 32767
    elif row == "one":
        x[0] = 32767
    fields: dict[str, Any] = {"gamma": np.full(n, 128.0), "beta": np.zeros(n), "epsilon": 0.0, "zero_point": 0, "lo": -32768, "hi": 32767}
    found = layer_norm(LayerNormParameters.of(**fields), x)
    limit = bound(LayerNormParameters.of(**fields), fields["gamma"], fields["beta"])
    wanted = {"halves": [128.0, -128.0], "one": [128 * 65535**0.5, -128 / 65535**0.5], "alike": [0.0, 0.0]}[row]
    assert np.abs(found[:2] - np.clip(wanted, -32768, 32767)).max() <= limit


def test_rows_are_independent():
    """Of any shape, and of the narrow type an engine stores; a shift of the operand changes nothing, and the operand is left alone."""
    rng = np.random.default_rng(0)
    parameters = LayerNormParameters.of(epsilon=0.1, gamma=rng.normal(30, 5, 7), beta=rng.normal(0, 9, 7), zero_point=3, lo=-128, hi=127)
    x = rng.integers(-100, 100, (2, 3, 5, 7)).astype(np.int8)
    before = x.astype(np.int64)
    whole = layer_norm(parameters, before)
    assert (before == x).all()
    assert whole.shape == x.shape
    assert (whole.transpose(2, 0, 1, 3) == layer_norm(parameters, x.transpose(2, 0, 1, 3))).all()
    assert (whole[::-1, ::2] == layer_norm(parameters, x[::-1, ::2])).all()
    assert (whole == layer_norm(parameters, np.asfortranarray(x))).all()
    assert (whole[1, 2, 3] == layer_norm(parameters, x[1, 2, 3])).all()
    assert (whole == layer_norm(parameters, x + np.int16(900))).all()
    assert layer_norm(parameters, x[:0]).shape == (0, 3, 5, 7)


def test_bounds_of_the_usual_formats():
    """The steps are fine enough: 768 channels, 8 and 16 bits of a result in [-8, 8)."""
    for bits, most in ((8, 0.501), (16, 0.51)):
        gamma, beta = np.linspace(0.1, 2, 768) * 2.0 ** (bits - 4), np.linspace(-1, 1, 768) * 2.0 ** (bits - 4)
        parameters = LayerNormParameters.of(epsilon=0.01, gamma=gamma, beta=beta, zero_point=0, lo=-128, hi=127)
        assert 0.5 <= bound(parameters, gamma, beta) < most


def test_arguments_are_checked():
    fields: dict[str, Any] = {**UNIT, "epsilon": 0.1}
    for change, message in (
        ({"epsilon": -1.0}, r"epsilon must be in \[0, 2\*\*64\] input LSB squared, not -1.0"),
        ({"epsilon": float("nan")}, r"epsilon must be in \[0, 2\*\*64\] input LSB squared, not nan"),
        ({"gamma": np.zeros(2)}, r"gamma and beta must be of one shape \(n,\), n from 1 to 65536, not \(2,\) and \(3,\)"),
        ({"gamma": np.full(3, 2.0**31)}, r"gamma must be at most 2\*\*30 output LSB in magnitude, not 2.14748e\+09"),
        ({"beta": np.full(3, np.nan)}, r"beta must be at most 2\*\*38 output LSB in magnitude, not nan"),
    ):
        with pytest.raises(RangeError, match=f"^{message}$"):
            LayerNormParameters.of(**fields | change)
    with pytest.raises(RangeError, match=r"^x must be of shape \(\.\.\., 3\), not \(2, 4\)$"):
        layer_norm(LayerNormParameters.of(**fields), np.zeros((2, 4), np.int8))
    with pytest.raises(RangeError, match=r"^x must be in \[-32768, 32767\], not 0..70000$"):
        layer_norm(LayerNormParameters.of(**fields), np.array([[0, 0, 70000]]))
