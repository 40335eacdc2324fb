"""The golden array against a twin in Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.stce import stce


def naive(config, x, values, positions, acc, overflow):
    lo, hi = -(1 << (config.acc_bits - 1)), (1 << (config.acc_bits - 1)) - 1
    sums, bits = [[int(a) for a in row] for row in acc], [[bool(o) for o in row] for row in overflow]
    for i, row in enumerate(x):
        for j in range(len(values)):
            for value, position in zip(values[j], positions[j], strict=True):
                total = sums[i][j] + int(row[position]) * int(value)
                if config.overflow == "saturate":
                    kept = max(lo, min(hi, total))
                else:
                    kept = total % (1 << config.acc_bits)
                    kept -= (1 << config.acc_bits) if kept > hi else 0
                bits[i][j] |= kept != total
                sums[i][j] = kept
    return sums, bits


@st.composite
def cases(draw):
    act, weight = draw(st.integers(2, 32)), draw(st.integers(2, 30))
    config = AcceleratorConfig(
        act_bits=act,
        weight_bits=weight,
        acc_bits=(bits := draw(st.integers(2, 62))),
        mult_bits=1,
        overflow=draw(st.sampled_from(["saturate", "wrap"])),
    )
    m, n, k, pairs = (draw(st.integers(1, 4)) for _ in range(4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def integers(bits, shape):  # corners are common
        lo, hi = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return np.where(rng.random(shape) < 0.3, rng.choice([lo, hi, 0, -1], shape), rng.integers(lo, hi, shape, endpoint=True))

    x, values, positions = integers(act, (m, k)), integers(weight, (n, pairs)), rng.integers(0, k, (n, pairs))
    return config, x, values, positions, integers(bits, (m, n)), rng.random((m, n)) < 0.2


@pytest.mark.golden
@settings(deadline=None, max_examples=200)
@given(cases())
def test_equals_the_twin(case):
    config, x, values, positions, acc, overflow = case
    before = [array.copy() for array in case[1:]]
    got = stce(*case)
    sums, bits = naive(*case)
    np.testing.assert_array_equal(got[0], sums)
    np.testing.assert_array_equal(got[1], bits)
    assert [a.dtype for a in got] == [np.int64, np.bool_]
    for array, copy in zip(case[1:], before, strict=True):
        np.testing.assert_array_equal(array, copy)  # no argument was written
    first = stce(config, x, values[:, :1], positions[:, :1], acc, overflow)
    np.testing.assert_array_equal(stce(config, x, values[:, 1:], positions[:, 1:], *first), got)  # chunks of k continue the same sums


@pytest.mark.golden
def test_overflow_is_applied_after_every_addition():
    config = AcceleratorConfig(acc_bits=8)
    one = np.ones((1, 1), np.int64)
    values, positions = np.array([[100, 100, -100]]), np.zeros((1, 3), np.int64)
    assert [a.item() for a in stce(config, one, values, positions)] == [27, True]
    wrapping = AcceleratorConfig(acc_bits=8, overflow="wrap")
    assert [a.item() for a in stce(wrapping, one, values, positions)] == [100, True]
    assert [a.item() for a in stce(config, one, values[:, :1], positions[:, :1])] == [100, False]


def test_no_rows_no_columns_and_no_pairs():
    config = AcceleratorConfig()
    x, none = np.ones((2, 3), np.int64), np.zeros((4, 0), np.int64)
    np.testing.assert_array_equal(stce(config, x, none, none)[0], np.zeros((2, 4)))
    assert stce(config, x[:0], none, none)[0].shape == (0, 4)
    assert stce(config, x, none[:0], none[:0])[0].shape == (2, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x", np.zeros(3, np.int64), r"^x must be an array of two dimensions, not of 1$"),
        ("x", np.zeros((2, 3), np.int32), r"^x must be int64 of shape \(2, 3\), not int32 of shape \(2, 3\)$"),
        ("x", np.full((2, 3), 128), r"^x must be in \[-128, 127\], not 128\.\.128$"),
        ("values", np.zeros((2, 3, 4), np.int64), r"^values must be an array of two dimensions, not of 3$"),
        ("values", np.full((4, 2), -129), r"^values must be in \[-128, 127\], not -129\.\.-129$"),
        ("positions", np.zeros((4, 3), np.int64), r"^positions must be int64 of shape \(4, 2\), not int64 of shape \(4, 3\)$"),
        ("positions", np.full((4, 2), 3), r"^positions must be in \[0, 2\], not 3\.\.3$"),
        ("acc", np.zeros((4, 2), np.int64), r"^acc must be int64 of shape \(2, 4\), not int64 of shape \(4, 2\)$"),
        ("acc", np.full((2, 4), 2**31), r"^acc must be in \[-2147483648, 2147483647\], not 2147483648\.\.2147483648$"),
        ("overflow", np.zeros((2, 4), np.int64), r"^overflow must be bool of shape \(2, 4\), not int64 of shape \(2, 4\)$"),
    ],
)
def test_rejects(name, value, message):
    arguments = {"x": np.zeros((2, 3), np.int64), "values": np.zeros((4, 2), np.int64), "positions": np.zeros((4, 2), np.int64)}
    with pytest.raises(RangeError, match=message):
        stce(AcceleratorConfig(), **(arguments | {name: value}))
