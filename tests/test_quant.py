"""Scales against all multipliers there are, in rational arithmetic; quantisation against ONNX Runtime."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.quant import dequantise, nearest_multiplier, quantise, to_signed

MULT_BITS = st.integers(1, 62)


def scales(low: int, high: int) -> st.SearchStrategy[float]:
    """Floats between two powers of two, evenly over the exponents, powers of two and their neighbours included."""
    exponent = st.integers(low, high - 1)
    fraction = st.floats(1, 2, exclude_max=True) | st.sampled_from([1.0, np.nextafter(1, 2), 1.5, np.nextafter(2, 1)])
    return st.builds(lambda f, e: float(np.ldexp(f, e)), fraction, exponent)


def value(mult: Any, shift: Any) -> Fraction:
    return Fraction(int(mult), 2 ** int(shift))


@pytest.mark.parametrize("mult_bits", range(1, 6))
def test_no_pair_is_nearer(mult_bits):
    """All pairs tried, over all magnitudes and down to where the shift ends."""
    every = [value(mult, shift) for shift in range(64) for mult in range(1, 2**mult_bits)]
    rng = np.random.default_rng(mult_bits)
    scale = np.concatenate(
        [np.ldexp(rng.uniform(0.5, 1, 60), rng.integers(-62, mult_bits, 60)), np.ldexp([1.0, 0.6, 3.0], [-63, -63, -63])]
    )
    mult, shift = nearest_multiplier(scale, mult_bits)
    for s, m, n in zip(scale.tolist(), mult, shift, strict=True):
        assert abs(value(m, n) - Fraction(s)) == min(abs(pair - Fraction(s)) for pair in every)


@settings(max_examples=300)
@given(MULT_BITS, st.data())
def test_error_is_as_stated(mult_bits, data):
    scale = np.array(data.draw(st.lists(scales(-63, mult_bits - 1), max_size=4)))
    mult, shift = nearest_multiplier(scale, mult_bits)
    assert mult.shape == shift.shape == scale.shape
    assert mult.dtype == shift.dtype == np.int64
    for s, m, n in zip(scale.tolist(), mult, shift, strict=True):
        assert 1 <= m < 2**mult_bits
        assert 0 <= n <= 63
        error = abs(value(m, n) - Fraction(s))
        assert error <= (Fraction(s) / 2**mult_bits if n < 63 else Fraction(1, 2**64))
        assert n == 63 or round(Fraction(s) * 2 ** (int(n) + 1)) >= 2**mult_bits  # a greater shift would not fit


def test_scalar_and_shapes():
    mult, shift = nearest_multiplier(0.75, 8)
    assert (mult.shape, shift.shape, int(mult), int(shift)) == ((), (), 192, 8)
    assert nearest_multiplier(np.ones((2, 3), np.float32), 24).mult.shape == (2, 3)
    assert [int(part) for part in nearest_multiplier(255.4, 8)] == [255, 0]
    assert [int(part) for part in nearest_multiplier(255.5 / 2, 8)] == [128, 0]  # 255.5 at shift 1 would round to 256


def run_onnx(operator: str, inputs: dict[str, np.ndarray], axis: int) -> Any:
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for name, a in inputs.items()
    ]
    output = onnx.helper.make_empty_tensor_value_info("y")
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, list(inputs), ["y"], axis=axis)], "g", tensors, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)[0]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_quantise_as_onnx(dtype, axis):
    """Ties, saturation and infinities included."""
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.normal(0, 40, (5, 4, 6)), rng.integers(-300, 300, (5, 4, 6)) / 2, np.full((5, 4, 6), np.inf)]).astype(
        np.float32
    )
    count = () if axis is None else x.shape[axis]
    scale = np.asarray(rng.choice([1.0, 0.5, 0.3], count), np.float32)
    zero = np.asarray(rng.integers(0, 100, count), dtype)
    bounds = np.iinfo(dtype)
    got = quantise(x, scale, zero, FixedFormat(8, 0, bounds.min < 0), axis)
    expected = run_onnx("QuantizeLinear", {"x": x, "scale": scale, "zero": zero}, axis or 0)
    np.testing.assert_array_equal(got, expected)
    reals = dequantise(expected, scale, zero, axis)
    assert reals.dtype == np.float32
    np.testing.assert_array_equal(reals, run_onnx("DequantizeLinear", {"q": expected, "scale": scale, "zero": zero}, axis or 0))


@given(st.integers(2, 32), st.booleans(), scales(-20, 20), st.floats(allow_nan=False), st.data())
@example(32, True, 1.0, np.inf, None)
def test_quantise_is_exact(bits, signed, scale, x, data):
    """One division in float64, then rational arithmetic."""
    format = FixedFormat(bits, 0, signed)
    zero = data.draw(st.integers(format.lo, format.hi)) if data else format.lo
    with np.errstate(over="ignore"):
        steps = float(np.float64(x) / scale)
    exact = round(Fraction(steps)) + zero if np.isfinite(steps) else (2**40 if steps > 0 else -(2**40))
    assert quantise(np.array(x), scale, zero, format) == min(max(exact, format.lo), format.hi)


@given(st.integers(2, 32), st.data())
def test_to_signed_keeps_the_value(bits, data):
    """Both the integers and the zero point move, so their difference does not."""
    q, zero = (data.draw(st.integers(0, 2**bits - 1)) for _ in range(2))
    moved, moved_zero = to_signed([q, zero], bits)
    assert moved - moved_zero == q - zero
    assert FixedFormat(bits).lo <= moved <= FixedFormat(bits).hi
    assert to_signed([0, 128, 255]).tolist() == [-128, 0, 127]


X = np.zeros((2, 3))
INT8 = FixedFormat(8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest_multiplier([1.0, 0.0], 8), "scale must be positive and finite, not 0.0"),
        (lambda: nearest_multiplier(-1.0, 8), r"scale must be positive and finite, not -1\.0"),
        (lambda: nearest_multiplier(np.nan, 8), "scale must be positive and finite, not nan"),
        (lambda: nearest_multiplier(np.inf, 8), "scale must be positive and finite, not inf"),
        (lambda: nearest_multiplier([1.0, 255.5], 8), r"scale must be below 2\*\*8 - 1/2, not 255\.5"),
        (lambda: nearest_multiplier([1.0, 2.0**-64], 8), r"scale must be above 2\*\*-64, not 5\.42\d*e-20"),
        (lambda: nearest_multiplier(1.0, 0), r"mult_bits must be an int in \[1, 62\], not 0"),
        (lambda: nearest_multiplier(1.0, 63), r"mult_bits must be an int in \[1, 62\], not 63"),
        (lambda: quantise(np.zeros(1, int), 1.0, 0, INT8), "x must be float32 or float64, not int64"),
        (lambda: quantise(X * np.nan, 1.0, 0, INT8), "x must be a number, not nan"),
        (lambda: quantise(X, 0.0, 0, INT8), r"scale must be positive and finite, not 0\.0"),
        (lambda: quantise(X, 1.0, 0, FixedFormat(53)), "format must have at most 52 bits, not 53"),
        (lambda: quantise(X, np.ones(2), 0, INT8), r"axis must be given for parameters of shape \(2,\), not None"),
        (lambda: quantise(X, np.ones(2), 0, INT8, axis=1), r"parameters must be of shape \(\) or \(3,\), not \(2,\)"),
        (lambda: dequantise(X.astype(int), np.zeros(()), 0), r"scale must be positive and finite, not 0\.0"),
        (lambda: to_signed([-1]), r"q must be in \[0, 255\], not -1\.\.-1"),
        (lambda: to_signed([16], 4), r"q must be in \[0, 15\], not 16\.\.16"),
    ],
)
def test_rejects(call, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        call()
