from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.sparsity import Pattern
from accel.training.sdgp import sdgp


def naive(dy: Any, format: FixedFormat, pattern: Pattern, groups: int) -> tuple[Any, int]:
    """Prune pixel by pixel and rescale channel by channel, in Python's integers and rational numbers."""
    samples, height, width, channels = dy.shape
    kept = np.zeros(dy.shape, object)
    for n, i, k in np.ndindex(samples, height, width):
        for first in range(0, channels, channels // groups):
            for start in range(first, first + channels // groups, pattern.m):
                members = range(start, min(start + pattern.m, first + channels // groups))
                for _, c in sorted((-abs(int(dy[n, i, k, c])), c) for c in members)[: pattern.n]:
                    kept[n, i, k, c] = int(dy[n, i, k, c])
    saturated = 0
    for n, c in np.ndindex(samples, channels):
        full, pruned = (sum(abs(int(value)) for value in array[n, :, :, c].ravel()) for array in (dy, kept))
        if pruned:
            ratio = Fraction(full, pruned)
            shift = next((s for s in range(15, -1, -1) if round(ratio * 2**s) < 2**16), 0)
            mult = min(round(ratio * 2**shift), 2**16 - 1)
            for i, k in np.ndindex(height, width):
                value = round(Fraction(kept[n, i, k, c] * mult, 2**shift))
                kept[n, i, k, c] = min(max(value, format.lo), format.hi)
                saturated += value != kept[n, i, k, c]
                real = min(max(int(dy[n, i, k, c]) * ratio, Fraction(format.lo)), Fraction(format.hi))  # of what is kept
                assert value == 0 or abs(kept[n, i, k, c] - real) <= Fraction(1, 2) + abs(real) / 2**16
    return kept, saturated


@st.composite
def cases(draw: Any) -> tuple[Any, FixedFormat, Pattern, int]:
    format = FixedFormat(draw(st.sampled_from([4, 8, 16])))
    m = draw(st.sampled_from([1, 2, 4, 8, 16]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3)), groups * draw(st.sampled_from([1, 4, 5, 8, 12])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(format.lo, format.hi + 1, shape) >> rng.integers(0, format.bits + 1, shape)
    return values, format, Pattern(draw(st.integers(1, m)), m), groups


@settings(max_examples=300)
@given(cases())
@example((np.array([[[[32767, 1]], [[-32768, 0]], [[0, 1]]]]), FixedFormat(16), Pattern(1, 2), 1))  # a ratio of 2
@example((np.array([[[[1, 0]], *[[[32767, -32768]]] * 9]]), FixedFormat(16), Pattern(1, 2), 1))
@example((np.array([[[[0, 1]], *[[[-32768, 32767]]] * 9]]), FixedFormat(16), Pattern(1, 2), 1))  # a ratio beyond 16 bits
def test_any_gradient(case):
    dy, format, pattern, groups = case
    wanted, count = naive(dy, format, pattern, groups)
    for kind in {np.int64, np.int8 if format.bits <= 8 else np.int16}:
        found, saturated = sdgp(dy.astype(kind), format, pattern, groups)
        assert found.dtype == (np.int8 if format.bits <= 8 else np.int16)
        assert (found.tolist(), saturated) == (wanted.tolist(), count)


@pytest.mark.golden
def test_norms_are_kept():
    """Each (sample, channel) keeps its L1 norm, to what rounding allows; dense patterns change nothing."""
    dy = np.random.default_rng(0).integers(-2000, 2001, (2, 4, 4, 16)).astype(np.int16)
    found, saturated = sdgp(dy, FixedFormat(16), Pattern(2, 8))
    assert saturated == 0
    before, after = (np.abs(array.astype(int)).sum(axis=(1, 2)) for array in (dy, found))
    assert (np.abs(before - after) <= 0.5 * (found != 0).sum(axis=(1, 2)) + before * 2.0**-16)[after > 0].all()
    assert np.array_equal(sdgp(dy, FixedFormat(16), Pattern(8, 8))[0], dy)


def test_any_number_of_threads_gives_the_same(monkeypatch):
    dy = np.random.default_rng(1).integers(-32768, 32768, (5, 4, 4, 16)).astype(np.int16)
    found, saturated = sdgp(dy, FixedFormat(16), Pattern(2, 8))
    monkeypatch.setattr("accel.kernels.threads.ALONE", 0.0)
    again, count = sdgp(dy, FixedFormat(16), Pattern(2, 8))
    assert saturated == count > 0
    assert np.array_equal(found, again)


@pytest.mark.golden
def test_nothing_left_stays_nothing():
    dy = np.array([[[[5, 4]], [[3, -2]]]])
    assert sdgp(dy, FixedFormat(16), Pattern(1, 2))[0].tolist() == [[[[5, 0]], [[3, 0]]]]
    assert not sdgp(0 * dy, FixedFormat(16), Pattern(1, 2))[0].any()


X = np.zeros((1, 2, 2, 6), np.int16)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("dy", "format", "groups", "message"),
    [
        (X[0], FixedFormat(16), 1, r"dy must be of shape \(samples, height, width, channels\), each 1 or more, not \(2, 2, 6\)"),
        (X + 200, FixedFormat(8), 1, r"dy must be in \[-128, 127\], not 200..200"),
        (X, FixedFormat(17), 1, "format of dy must be signed, of at most 16 bits, not s17"),
        (X, FixedFormat(16), 4, "groups must divide the 6 channels of dy, not be 4"),
        (X, FixedFormat(16), 0, "groups must divide the 6 channels of dy, not be 0"),
    ],
)
def test_rejected(dy, format, groups, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        sdgp(dy, format, Pattern(2, 4), groups)
