"""FF, BP and WU of one convolution against plain loops: sums, the overflow rule, the one rounding, and what is counted."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from accel import presets, sparsity
from accel.config import AcceleratorConfig
from accel.graph.trainable import Convolution
from accel.graph.window import Window
from accel.sparsity import Pattern
from accel.training import products
from tests.naive_training import bias_wu, bp, chosen, clip, ff, power, wu

WIDE = AcceleratorConfig(act_bits=16, weight_bits=16, acc_bits=48, mult_bits=15)
OCTETS = AcceleratorConfig(act_bits=8, weight_bits=8, acc_bits=32, mult_bits=23)
NARROW = AcceleratorConfig(act_bits=8, weight_bits=8, acc_bits=15, mult_bits=23)
WRAPPING = AcceleratorConfig(act_bits=8, weight_bits=8, acc_bits=15, mult_bits=23, overflow="wrap")
TIGHT = AcceleratorConfig(act_bits=16, weight_bits=16, acc_bits=31, mult_bits=15)
CONFIGS = {"wide": WIDE, "octets": OCTETS, "narrow": NARROW, "wrapping": WRAPPING, "tight": TIGHT}


def random_layer(rng: np.random.Generator) -> tuple[Convolution, tuple[int, int]]:
    """Draw a convolution and the height and width of its input."""
    while True:
        kernel, stride, dilation = ((int(rng.integers(1, most)), int(rng.integers(1, most))) for most in (4, 4, 3))
        pads = [int(pad) for pad in rng.integers(0, 3, 4)]
        groups = int(rng.choice([1, 1, 2, 3]))
        window = Window(kernel=kernel, stride=stride, dilation=dilation, pads=(pads[0], pads[1], pads[2], pads[3]))
        size = int(rng.integers(1, 7)), int(rng.integers(1, 7))
        if min(window.positions(*size)) > 0:
            break
    channels, filters = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 5))
    return Convolution(name="c", inputs=("x",), output="y", window=window, channels=channels, filters=filters, groups=groups), size


def operands(rng: np.random.Generator, config: AcceleratorConfig, shape: tuple[int, ...]) -> NDArray[Any]:
    """Draw operands over the whole range, ends and zeros among them."""
    format = config.act
    values = rng.integers(format.lo, format.hi, shape, np.int8 if config.act_bits == 8 else np.int16, endpoint=True)
    return np.where(rng.random(shape) < 0.2, rng.choice([0, format.lo, format.hi], shape), values).astype(values.dtype)


def expect(config: AcceleratorConfig, sums: Any, shift: int, bias: Any = 0, floor: int | None = None) -> tuple[Any, int]:
    """Round sums by fractions; count those outside."""
    format = config.act
    exact = np.array([round(Fraction(int(each)) * power(-shift)) for each in (sums + bias).ravel()], object).reshape(sums.shape)
    lo = format.lo if floor is None else floor
    kept = np.array([clip(each, lo, format.hi) for each in exact.ravel()], object).reshape(sums.shape)
    return kept, int((exact > format.hi).sum() + (floor is None) * (exact < format.lo).sum())


@pytest.mark.golden
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(12))
def test_products_equal_plain_loops(name, seed):
    """Strides, pads, dilation, groups, samples; sums that overflow every few additions; biases, a floor of 0, shifts of both signs."""
    config, rng = CONFIGS[name], np.random.default_rng((seed, len(name)))
    layer, size = random_layer(rng)
    samples = int(rng.integers(1, 4))
    positions = layer.window.positions(*size)
    x = operands(rng, config, (samples, *size, layer.channels))
    w = operands(rng, config, layer.shape) * (rng.random(layer.shape) < 0.7)
    dy = operands(rng, config, (samples, *positions, layer.filters))
    shift = int(rng.integers(-2, 2 * config.act_bits))

    bias = rng.integers(-(2**12), 2**12, layer.filters)
    floor = 0 if seed % 2 else None
    sums, flags = ff(config, layer, x, w)
    kept, saturated = expect(config, sums, shift, bias, floor)
    got = products.forward(config, layer, x, w, bias, shift, floor)
    assert np.array_equal(got.value, kept)
    assert (got.saturated, got.overflowed) == (saturated, flags.sum())

    sums, flags = bp(config, layer, size, dy, w)
    kept, saturated = expect(config, sums, shift)
    got = products.backward(config, layer, size, dy, w, shift)
    assert np.array_equal(got.value, kept)
    assert (got.saturated, got.overflowed) == (saturated, flags.sum())

    sums, flags = wu(config, layer, x, dy)
    kept, saturated = expect(config, sums, shift)
    got = products.gradient(config, layer, x, dy, shift)
    assert np.array_equal(got.value, kept)
    assert (got.saturated, got.overflowed) == (saturated, flags.sum())

    sums, flags = bias_wu(config, dy)
    kept, saturated = expect(config, sums, 3)
    got = products.bias_gradient(config, dy, 3)
    assert np.array_equal(got.value, kept)
    assert (got.saturated, got.overflowed) == (saturated, flags.sum())


@pytest.mark.golden
def test_overflow_really_happens():
    """The narrow configurations above are no copies of the wide ones: sums overflow in all four products."""
    rng = np.random.default_rng(1)
    layer = Convolution(name="c", inputs=("x",), output="y", window=Window(kernel=(3, 3), pads=(1,) * 4), channels=4, filters=4)
    for config in (NARROW, WRAPPING, TIGHT):
        x, dy = operands(rng, config, (2, 5, 5, 4)), operands(rng, config, (2, 5, 5, 4))
        w = operands(rng, config, layer.shape)
        counts = [
            products.forward(config, layer, x, w, None, 8, None).overflowed,
            products.backward(config, layer, (5, 5), dy, w, 8).overflowed,
            products.gradient(config, layer, x, dy, 8).overflowed,
        ]
        assert min(counts) > 0
    lines = np.full((4, 40, 40, 2), 127, np.int8)
    assert products.bias_gradient(NARROW, lines, 0).overflowed == 2


@pytest.mark.golden
@given(st.integers(-(2**61), 2**61), st.integers(-14, 70), st.integers(-(2**40), 2**40), st.booleans())
@settings(deadline=None, max_examples=300)
@example(2**61 - 1, 63, 2**40, False)
@example(-(2**61), 62, -(2**40), False)
@example(-3, 1, 0, True)
def test_rounding_equals_fractions(value, shift, bias, positive):
    """One rounding of sum and bias, half to even, for any shift; a shift that drops all bits gives 0."""
    config = AcceleratorConfig(act_bits=16, weight_bits=16, acc_bits=48, mult_bits=15)
    floor = 0 if positive else None
    for each in (value, value >> 20, value >> 45, value >> 56):
        got = products.rounded(config, np.array([[each]]), shift, np.array([bias]), floor)
        kept, saturated = expect(config, np.array([[each]], object), shift, bias, floor)
        assert (int(got.value[0, 0]), got.saturated) == (kept[0, 0], saturated)


def test_weight_gradients_of_many_samples(monkeypatch):
    """Sums go on from one part of the samples to the next: the same bits and flags, however many there are at once."""
    rng = np.random.default_rng(3)
    for config in (WIDE, NARROW, WRAPPING):
        layer, size = random_layer(np.random.default_rng(8))
        x = operands(rng, config, (5, *size, layer.channels))
        dy = operands(rng, config, (5, *layer.window.positions(*size), layer.filters))
        whole = products.gradient(config, layer, x, dy, 4)
        monkeypatch.setattr(products, "CHUNK", 1)
        parts = products.gradient(config, layer, x, dy, 4)
        monkeypatch.undo()
        assert np.array_equal(whole.value, parts.value)
        assert whole[1:] == parts[1:]


def test_depthwise_gradients_in_one_pass():
    """Groups that share a pass and groups one by one give the same; the second is what a bound that fails takes."""
    rng = np.random.default_rng(4)
    window = Window(kernel=(3, 3), stride=(2, 1), pads=(1,) * 4)
    layer = Convolution(name="c", inputs=("x",), output="y", window=window, channels=24, filters=48, groups=24)
    x, dy = operands(rng, WIDE, (2, 6, 7, 24)), operands(rng, WIDE, (2, 3, 7, 48))
    sums, _ = wu(WIDE, layer, x, dy)
    assert np.array_equal(products.gradient(WIDE, layer, x, dy, 12).value, expect(WIDE, sums, 12)[0])


@pytest.mark.parametrize("pattern", [Pattern(2, 8), Pattern(1, 4), Pattern(2, 3)], ids=str)
def test_codes_hold_what_the_products_read(pattern):
    """Codes of FF run along input channels, codes of BP along output channels, in each tap and convolution group."""
    rng = np.random.default_rng(5)
    window = Window(kernel=(2, 3))
    layer = Convolution(name="c", inputs=("x",), output="y", window=window, channels=20, filters=18, groups=2)
    w = rng.integers(-9, 10, layer.shape)
    forward = sparsity.prune(w, pattern)
    found = products.codes(layer, forward, pattern, back=False)
    assert np.array_equal(sparsity.decode(found, layer.reduction), forward.reshape(18, -1))
    grouped = w.reshape(2, 9, 2, 3, 10)
    back = sparsity.prune(grouped, pattern, 1).reshape(w.shape)
    found = products.codes(layer, back, pattern, back=True)
    assert np.array_equal(sparsity.decode(found, 6 * 9), products.transposed(layer, back).reshape(20, -1))
    for c, (ky, kx) in zip((0, 7, 19), ((0, 0), (1, 2), (0, 1)), strict=True):
        line = grouped[c // 10, :, ky, kx, c % 10]
        assert np.flatnonzero(back.reshape(grouped.shape)[c // 10, :, ky, kx, c % 10]).tolist() == [
            f for f in chosen([int(each) for each in line], pattern.n, pattern.m) if line[f]
        ]


def test_bits_do_not_depend_on_threads():
    """One thread and all of them give the same bits and counts."""
    config, rng = presets.load("sat-vcu1525"), np.random.default_rng(6)
    window = Window(kernel=(3, 3), stride=(2, 2), pads=(1,) * 4)
    layer = Convolution(name="c", inputs=("x",), output="y", window=window, channels=64, filters=96)
    x, dy = operands(rng, config, (3, 28, 28, 64)), operands(rng, config, (3, 14, 14, 96))
    w = operands(rng, config, layer.shape)

    def all_of_it() -> list[products.Rounded]:
        return [
            products.forward(config, layer, x, w, None, 20, None),
            products.backward(config, layer, (28, 28), dy, w, 20),
            products.gradient(config, layer, x, dy, 20),
            products.bias_gradient(config, dy, 4),
        ]

    several, before = all_of_it(), numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        single = all_of_it()
    finally:
        numba.set_num_threads(before)
    for one, other in zip(single, several, strict=True):
        assert np.array_equal(one.value, other.value)
        assert one[1:] == other[1:]
