from __future__ import annotations

import dataclasses
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.engine import simulate
from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.graph.network import AveragePool, Network, Port, Tensor
from accel.graph.window import Window
from accel.presets import load
from accel.training import elementwise as ew

TORCH = Path(__file__).with_name("torch_operators.npz")
F8, F16 = FixedFormat(8), FixedFormat(16)
BORDERED = Window(kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1))


def two(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def saturated(values: Any, format: FixedFormat) -> tuple[list[int], int]:
    """Round exact results, half to even, and bring them into a format."""
    rounded = [round(value) for value in values]
    kept = [min(max(value, format.lo), format.hi) for value in rounded]
    return kept, sum(a != b for a, b in zip(rounded, kept, strict=True))


def same(found: tuple[Any, int], wanted: tuple[list[int], int]) -> None:
    assert (found[0].ravel().tolist(), found[1]) == wanted


def drawn(draw: Any, format: FixedFormat, shape: tuple[int, ...]) -> Any:
    """Draw integers of a format, ends and ties among them, in a type that holds them."""
    kind = draw(st.sampled_from([f"i{size}" for size in (1, 2, 4, 8) if 8 * size >= format.bits]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    few = draw(st.booleans())
    values = rng.integers(-2, 3, shape) if few else rng.integers(format.lo, format.hi + 1, shape)
    ends = rng.integers(0, 4, shape)
    return np.where(ends == 0, format.lo, np.where(ends == 1, format.hi, values)).astype(kind)


@st.composite
def formats(draw: Any) -> FixedFormat:
    return FixedFormat(draw(st.sampled_from([4, 8, 12, 16])), draw(st.integers(-4, 18)))


@settings(max_examples=200)
@given(st.data())
def test_sums(data):
    a_format, b_format, y_format = (data.draw(formats()) for _ in range(3))
    shape = (1, data.draw(st.integers(1, 7)), 2, 3)
    a, b = drawn(data.draw, a_format, shape), drawn(data.draw, b_format, shape)
    pairs = list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    exact = [(x * two(-a_format.frac) + y * two(-b_format.frac)) * two(y_format.frac) for x, y in pairs]
    same(ew.add(a, a_format, b, b_format, y_format), saturated(exact, y_format))
    same(ew.convert(a, a_format, y_format), saturated((x * two(y_format.frac - a_format.frac) for x, _ in pairs), y_format))
    parts = [drawn(data.draw, a_format, shape) for _ in range(data.draw(st.integers(1, 4)))]
    same(ew.accumulate(parts, a_format), saturated(np.sum([part.astype(int) for part in parts], axis=0).ravel().tolist(), a_format))


@pytest.mark.golden
@pytest.mark.parametrize("shift", [-100, -40, -16, -1, 0, 1, 30, 62, 63, 100])
def test_far_conversions(shift):
    """Beyond any width a shift to the left saturates what is not 0, one to the right leaves nothing."""
    x = np.array([-32768, -2, -1, 0, 1, 3, 32767], np.int16)
    wanted = saturated((value * two(-shift) for value in x.tolist()), F16)
    same(ew.convert(x, FixedFormat(16, shift), F16), wanted)
    same(ew.add(x, FixedFormat(16, shift), 0 * x, FixedFormat(16, shift), F16), wanted)


@pytest.mark.golden
def test_the_most_that_addends_are_apart():
    x = np.array([-32768, -2, -1, 0, 1, 3, 32767], np.int16)
    wanted = [(a * 2**30 + b) * two(-30) for a, b in zip(x.tolist(), x[::-1].tolist(), strict=True)]
    same(ew.add(x, F16, x[::-1], FixedFormat(16, 30), F16), saturated(wanted, F16))
    same(ew.add(x[::-1], FixedFormat(16, 30), x, F16, F16), saturated(wanted, F16))


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8"])
def test_relu(kind):
    x, dy = np.arange(-8, 8).astype(kind).reshape(1, 4, 2, 2), np.arange(16).astype(kind).reshape(1, 4, 2, 2)
    y = ew.relu(x)
    assert y.dtype == x.dtype
    assert y.ravel().tolist() == [max(value, 0) for value in range(-8, 8)]
    for seen in (x, y):
        dx = ew.relu_backward(dy, seen)
        assert dx.dtype == dy.dtype
        assert dx.ravel().tolist() == [slope if value > 0 else 0 for value, slope in zip(range(-8, 8), range(16), strict=True)]


@pytest.mark.golden
def test_many_elements():
    """As many as are cut into several tasks, which do not divide them."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-32768, 32768, (1, 31, 67, 37), dtype=np.int16) for _ in range(2))
    whole = a.astype(int) + b
    y, count = ew.accumulate([a, b], F16)
    assert np.array_equal(y, np.clip(whole, -32768, 32767))
    assert count == (np.abs(whole + 0.5) > 32768).sum()
    assert np.array_equal(ew.relu_backward(a, b), np.where(b > 0, a, 0))


def seen(window: Window, shape: tuple[int, ...], place: tuple[int, int]) -> list[tuple[int, int, int]]:
    """List tap, row and column of what a window sees of the image, in the order of its taps."""
    found = []
    for tap, (kh, kw) in enumerate(product(*map(range, window.kernel))):
        i = place[0] * window.stride[0] - window.pads[0] + kh * window.dilation[0]
        k = place[1] * window.stride[1] - window.pads[1] + kw * window.dilation[1]
        if 0 <= i < shape[1] and 0 <= k < shape[2]:
            found.append((tap, i, k))
    return found


def counted_by(window: Window, shape: tuple[int, ...], place: tuple[int, int], counted: bool) -> int:
    """Count what a window divides by, padding within the pads or not."""
    if not counted:
        return len(seen(window, shape, place))
    padded = (shape[0], shape[1] + window.pads[0] + window.pads[2], shape[2] + window.pads[1] + window.pads[3])
    return len(seen(dataclasses.replace(window, pads=(0, 0, 0, 0)), padded, place))


def test_any_number_of_threads_gives_the_same(monkeypatch):
    rng = np.random.default_rng(3)
    x, b = (rng.integers(-32768, 32768, (2, 33, 31, 17), dtype=np.int16) for _ in range(2))
    half = FixedFormat(16, -1)

    def run() -> list[Any]:
        y, winner = ew.max_pool(x, F16, BORDERED)
        mean, count = ew.average_pool(x, F16, BORDERED, False, half, 31)
        return [
            *ew.add(x, F16, b, F16, half), ew.relu_backward(x, b), y, winner, *ew.max_pool_backward(y, F16, winner, BORDERED, x.shape),
            mean, count, *ew.average_pool_backward(mean, half, BORDERED, False, x.shape, F16, 31),
        ]  # fmt: skip

    alone = run()
    monkeypatch.setattr("accel.kernels.threads.ALONE", 0.0)
    for one, other in zip(alone, run(), strict=True):
        np.testing.assert_array_equal(one, other)


@st.composite
def windows(draw: Any) -> tuple[Window, tuple[int, int, int, int]]:
    """Draw a window and an image that it fits into: overlapping, apart, dilated, some seeing padding alone."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    window = Window(
        kernel=draw(pair),
        stride=draw(pair),
        dilation=draw(st.sampled_from([(1, 1), (2, 1)])),
        pads=draw(st.tuples(*[st.integers(0, 2)] * 4)),
    )
    reach = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(window.kernel, window.dilation, strict=True)]
    least = [max(1, reach[axis] - window.pads[axis] - window.pads[axis + 2]) for axis in (0, 1)]
    return window, (draw(st.integers(1, 2)), *(size + draw(st.integers(0, 4)) for size in least), draw(st.sampled_from([1, 3])))


def reciprocal(count: int, frac: int, bits: int) -> tuple[int, int]:
    """Find the nearest mult / 2**shift of ``2**frac / count``."""
    shift = next(s for s in range(63, -1, -1) if round(two(frac + s) / count) < 2**bits)
    return round(two(frac + shift) / count), shift


@settings(max_examples=200)
@given(windows(), st.data())
@example((Window(pads=(1, 0, 0, 0)), (1, 1, 1, 1)), None)
def test_max_pool(case, data):
    window, shape = case
    format = F8 if data is None else data.draw(formats())
    x = np.full(shape, -128) if data is None else drawn(data.draw, format, shape)
    rows, columns = window.positions(*shape[1:3])
    y, winner = ew.max_pool(x, format, window)
    dy = np.full(y.shape, 100) if data is None else drawn(data.draw, format, y.shape)
    assert y.shape == winner.shape == (shape[0], rows, columns, shape[3])
    total = np.zeros(shape, object)
    for n, row, column, c in np.ndindex(*y.shape):
        best = None
        for tap, i, k in seen(window, shape, (row, column)):
            if best is None or x[n, i, k, c] > x[n, best[1], best[2], c]:
                best = tap, i, k
        if best is None:
            assert [y[n, row, column, c], winner[n, row, column, c]] == [format.lo, -1]
        else:
            assert [y[n, row, column, c], winner[n, row, column, c]] == [x[n, best[1], best[2], c], best[0]]
            total[n, best[1], best[2], c] += int(dy[n, row, column, c])
    found = ew.max_pool_backward(dy, format, winner, window, shape)
    assert found[0].shape == shape
    same(found, saturated(total.ravel().tolist(), format))


@settings(max_examples=200)
@given(windows(), st.booleans(), st.sampled_from([2, 8, 15, 24, 31]), st.data())
def test_average_pool(case, counted, mult_bits, data):
    """Equal to the twin, and as near to the real mean as multipliers of `mult_bits` are to reciprocals."""
    window, shape = case
    x_format, y_format = data.draw(formats()), data.draw(formats())
    y_format = FixedFormat(y_format.bits, min(y_format.frac, x_format.frac + mult_bits - 1))  # a factor of 2**mult_bits is refused
    x = drawn(data.draw, x_format, shape)
    frac = y_format.frac - x_format.frac
    rows, columns = window.positions(*shape[1:3])
    counts = {place: counted_by(window, shape, place, counted) for place in product(range(rows), range(columns))}
    assert ew.divisors(window, counted, shape).ravel().tolist() == list(counts.values())
    exact, reals = [], []
    for n, row, column, c in np.ndindex(shape[0], rows, columns, shape[3]):
        total, count = sum(int(x[n, i, k, c]) for _, i, k in seen(window, shape, (row, column))), counts[row, column]
        mult, shift = reciprocal(count, frac, mult_bits) if count else (0, 0)
        exact.append(total * mult * two(-shift))
        reals.append(total * two(frac) / max(count, 1))
    found = ew.average_pool(x, x_format, window, counted, y_format, mult_bits)
    same(found, saturated(exact, y_format))
    for y, real in zip(found[0].ravel().tolist(), reals, strict=True):
        assert abs(y - min(max(real, y_format.lo), y_format.hi)) <= Fraction(1, 2) + abs(real) * two(-mult_bits) + two(-20)

    dy = drawn(data.draw, x_format, found[0].shape)
    least = min((count for count in counts.values() if count), default=1)
    shift = reciprocal(least, frac, mult_bits)[1]
    sums, slopes = (np.zeros(shape, object) for _ in range(2))
    for n, row, column, c in np.ndindex(*dy.shape):
        if count := counts[row, column]:
            for _, i, k in seen(window, shape, (row, column)):
                sums[n, i, k, c] += int(dy[n, row, column, c]) * round(two(frac + shift) / count)
                slopes[n, i, k, c] += int(dy[n, row, column, c]) * two(frac) / count
    found = ew.average_pool_backward(dy, x_format, window, counted, shape, y_format, mult_bits)
    assert found[0].shape == shape
    same(found, saturated((total * two(-shift) for total in sums.ravel().tolist()), y_format))
    reach = window.taps * (x_format.hi + 1)
    for dx, real in zip(found[0].ravel().tolist(), slopes.ravel().tolist(), strict=True):
        assert abs(dx - min(max(real, y_format.lo), y_format.hi)) <= Fraction(1, 2) + reach * two(-shift - 1)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("frac", [-2, 0, 3])
def test_average_pool_is_that_of_inference(counted, frac):
    """The engine's pool of the same window gives the same bits, borders included, and divides by the same counts."""
    shape = (2, 7, 6, 5)
    x = np.random.default_rng(frac + 9).integers(-128, 128, shape)
    config = load("tiny")
    tensors = {
        "x": Tensor(name="x", shape=(7, 6, 5), bits=8, scale=1.0),
        "y": Tensor(name="y", shape=(*BORDERED.positions(7, 6), 5), bits=8, scale=2.0**-frac),
    }
    pool = AveragePool(
        name="pool", kind="AveragePool", inputs=("x",), output="y", zero_point=0, lo=-128, hi=127, multiplier=2.0**frac, input_zero=0,
        window=BORDERED, counted=BORDERED.pads if counted else (0, 0, 0, 0),
    )  # fmt: skip
    network = Network(name="pool", tensors=tensors, operators=(pool,), inputs=(Port("x", "x", False),), outputs=(Port("y", "y", False),))
    told = simulate(network, config, tensors["x"].to_onnx(x)).outputs["y"]
    y, _ = ew.average_pool(x, F8, BORDERED, counted, FixedFormat(8, frac), config.mult_bits)
    np.testing.assert_array_equal(tensors["y"].to_onnx(y), told)
    assert np.array_equal(pool.counts(7, 6), ew.divisors(BORDERED, counted, shape))


@pytest.mark.golden
def test_widest_pool():
    """32,768 taps of 16 bits times a multiplier of 31: sums and products use their widths to the end."""
    window = Window(kernel=(1 << 7, 1 << 8))
    for value in (-32768, 32767):
        x = np.full((1, 1 << 7, 1 << 8, 1), value, np.int16)
        same(ew.average_pool(x, F16, window, True, F16, 31), ([value], 0))
        same((ew.max_pool(x, F16, window)[0], 0), ([value], 0))


def test_torch():
    """Torch's autograd on the same integers: maxima are equal, tied ones included, and means are rounded once."""
    with np.load(TORCH) as arrays:
        x, dy = arrays["pool_x"], arrays["pool_dy"]
        y, winner = ew.max_pool(x, F16, BORDERED)
        np.testing.assert_array_equal(y, arrays["pool_max_y"])
        dx, count = ew.max_pool_backward(dy, F16, winner, BORDERED, x.shape)
        assert count == 0
        np.testing.assert_array_equal(dx, arrays["pool_max_dx"])
        for name, counted in (("mean", False), ("counted", True)):
            y, _ = ew.average_pool(x, F16, BORDERED, counted, FixedFormat(16, 11), 31)
            assert np.abs(y - arrays[f"pool_{name}_y"] * 2.0**11).max() <= 0.5 + 1e-4
            dx, _ = ew.average_pool_backward(dy, F16, BORDERED, counted, x.shape, F16, 31)
            assert np.abs(dx - arrays[f"pool_{name}_dx"]).max() <= 0.5 + 1e-4


X = np.zeros((1, 4, 4, 2), np.int16)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ew.relu_backward(X, X[:, :2]), r"y must be of shape \(1, 4, 4, 2\), not \(1, 2, 4, 2\)"),
        (lambda: ew.add(X, F16, X[:, :2], F16, F16), r"b must be of shape \(1, 4, 4, 2\), not \(1, 2, 4, 2\)"),
        (lambda: ew.add(X, F16, X, FixedFormat(16, 31), F16), "b_format must have between -30 and 30 fraction bits, not 31"),
        (lambda: ew.add(X, F16, X, F16, FixedFormat(17)), "format of y must be signed, of at most 16 bits, not s17"),
        (lambda: ew.add(X.astype(float), F16, X, F16, F16), "a must be signed integers, not float64"),
        (lambda: ew.accumulate([X, X[:, :2]], F16), r"parts must be of shape \(1, 4, 4, 2\), not \(1, 2, 4, 2\)"),
        (lambda: ew.accumulate([X + 128], F8), r"parts must be in \[-128, 127\], not 128..128"),
        (lambda: ew.max_pool(X[0], F16, BORDERED), r"x must be of shape \(samples, .*\), each 1 or more, not \(4, 4, 2\)"),
        (
            lambda: ew.max_pool(X, F16, Window(kernel=(5, 1))),
            r"window must fit into the padded image, not \(5, 1\) into \(4, 4\) with pads \(0, 0, 0, 0\)",
        ),
        (lambda: ew.max_pool(X, F16, Window(kernel=(182, 181), pads=(99, 99, 99, 99))), "window must have at most 32768 taps, not 32942"),
        (
            lambda: ew.max_pool_backward(X, F16, X, BORDERED, X.shape),
            r"dy must be of shape \(1, 2, 2, 2\), not \(1, 4, 4, 2\)",
        ),
        (
            lambda: ew.max_pool_backward(X[:, :2, :2], F16, X, BORDERED, X.shape),
            r"winner must be of shape \(1, 2, 2, 2\), not \(1, 4, 4, 2\)",
        ),
        (lambda: ew.average_pool(X, F16, BORDERED, True, F16, 32), r"mult_bits must be an int in \[1, 31\], not 32"),
        (lambda: ew.average_pool(X, F16, BORDERED, True, FixedFormat(16, 40), 31), r"scale must be below 2\*\*31 - 1/2, not .*"),
        (
            lambda: ew.average_pool_backward(X, F16, BORDERED, True, X.shape, F16, 31),
            r"dy must be of shape \(1, 2, 2, 2\), not \(1, 4, 4, 2\)",
        ),
    ],
)
def test_rejected(call, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        call()
