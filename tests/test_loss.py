from __future__ import annotations

from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.special.softmax import SoftmaxParameters, bound, softmax
from accel.training.loss import cross_entropy

TORCH = Path(__file__).with_name("torch_operators.npz")


def check(rows: list[list[int]], labels: list[int], format: FixedFormat) -> None:
    """Compare with softmax less one, and with real arithmetic of 30 digits."""
    logits = np.array(rows)
    found = cross_entropy(logits, format, np.array(labels))
    whole = 1 << format.bits - 1
    assert found.format == FixedFormat(format.bits, format.bits - 1)
    assert found.gradient.dtype == (np.int8 if format.bits <= 8 else np.int16)
    fields: dict[str, Any] = {"step": 2.0**-format.frac, "scale": 1 / whole}
    parameters = SoftmaxParameters.of(length=logits.shape[1], zero_point=0, lo=0, hi=whole - 1, **fields)
    limit = bound(parameters, **fields)
    shares = softmax(parameters, logits)
    loss, correct = mpmath.mpf(0), 0
    for row, label, share, gradient in zip(rows, labels, shares.tolist(), found.gradient.tolist(), strict=True):
        assert gradient == [p - whole * (c == label) for c, p in enumerate(share)]  # p - onehot, and it fits
        with mpmath.workdps(30):
            powers = [mpmath.exp((x - max(row)) * mpmath.mpf(2) ** -format.frac) for x in row]
            for c, (power, slope) in enumerate(zip(powers, gradient, strict=True)):
                real = min(power / mpmath.fsum(powers) * whole, whole - 1) - whole * (c == label)
                assert abs(slope - real) <= limit
            loss += mpmath.log(mpmath.fsum(powers)) - (row[label] - max(row)) * mpmath.mpf(2) ** -format.frac
        correct += row.index(max(row)) == label
    assert abs(found.loss - loss) <= 1e-12 * (1 + abs(loss))
    assert found.correct == correct


@st.composite
def cases(draw: Any) -> tuple[list[list[int]], list[int], FixedFormat]:
    format = FixedFormat(draw(st.sampled_from([4, 8, 12, 16])), draw(st.integers(-3, 16)))
    classes = draw(st.integers(1, 12))
    element = st.one_of(st.integers(format.lo, format.hi), st.sampled_from([format.lo, format.hi, 0]))
    rows = draw(st.lists(st.lists(element, min_size=classes, max_size=classes), min_size=1, max_size=4))
    return rows, draw(st.lists(st.integers(0, classes - 1), min_size=len(rows), max_size=len(rows))), format


@settings(max_examples=200)
@given(cases())
@example(([[-32768, 32767], [32767, -32768]], [0, 0], FixedFormat(16)))  # p is 0 and 1: the ends of the gradient
@example(([[7]], [0], FixedFormat(16, 3)))
def test_any_logits(case):
    check(*case)


@pytest.mark.golden
def test_first_of_equal_logits_is_the_answer():
    found = cross_entropy(np.array([[1, 3, 3], [3, 3, 3]], np.int16), FixedFormat(16, 8), np.array([1, 1], np.uint8))
    assert found.correct == 1


@pytest.mark.golden
def test_ends_of_the_gradient():
    """-1 is an integer of the format, and 1 is not needed: 1 less an LSB."""
    found = cross_entropy(np.array([[-32768, 32767]], np.int16), FixedFormat(16), np.array([0]))
    assert found.gradient.tolist() == [[-32768, 32767]]
    assert found.loss == 65535


def test_torch():
    with np.load(TORCH) as arrays:
        found = cross_entropy(arrays["loss_logits"], FixedFormat(16, 11), arrays["loss_labels"])
        assert abs(found.loss - arrays["loss_loss"]) <= 1e-12 * found.loss
        assert np.abs(found.gradient * 2.0**-15 - arrays["loss_gradient"]).max() <= 2.0**-15


LOGITS = np.zeros((2, 3), np.int16)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("logits", "format", "labels", "message"),
    [
        (LOGITS[0], FixedFormat(16), np.zeros(2, int), r"logits must be of shape \(samples, classes\), each 1 or more, not \(3,\)"),
        (LOGITS + 200, FixedFormat(8), np.zeros(2, int), r"logits must be in \[-128, 127\], not 200..200"),
        (LOGITS, FixedFormat(17), np.zeros(2, int), "format of logits must be signed, of at most 16 bits, not s17"),
        (LOGITS, FixedFormat(16), np.zeros(3, int), r"labels must be integers of shape \(2,\), not int64 of shape \(3,\)"),
        (LOGITS, FixedFormat(16), np.zeros(2), r"labels must be integers of shape \(2,\), not float64 of shape \(2,\)"),
        (LOGITS, FixedFormat(16), np.array([0, 3]), r"labels must be in \[0, 2\], not 0..3"),
        (LOGITS, FixedFormat(16), np.array([-1, 2]), r"labels must be in \[0, 2\], not -1..2"),
    ],
)
def test_rejected(logits, format, labels, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        cross_entropy(logits, format, labels)
