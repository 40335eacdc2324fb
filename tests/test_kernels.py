"""Every fast route against the golden model, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accel import isa
from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.formats import Rounding
from accel.golden.postprocess import Params, postprocess
from accel.golden.stce import stce
from accel.kernels import lanes, simd, tiles
from accel.kernels.gemm import ROUTES, SEQUENTIAL, Weights, gemm, routes
from accel.kernels.requantise import Requantisation, lane, narrowest, requantise
from accel.sparsity import Pattern, encode, prune

SETTINGS = settings(deadline=None, max_examples=300)


def integers(rng, bits, shape, corners=0.1):
    """Draw signed integers; extremes, zero and -1 are common."""
    lo, hi = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return np.where(rng.random(shape) < corners, rng.choice([lo, hi, 0, -1], shape), rng.integers(lo, hi, shape, endpoint=True))


def golden(config, x, codes, post, acc, overflow):
    """Run array and post-processor of the golden model."""
    acc, overflow = stce(config, x.astype(np.int64), codes.values.astype(np.int64), codes.positions, acc, overflow)
    if post is None or not acc.size:
        return acc, overflow
    job = isa.Post(source=isa.Source.ARRAY, rows=len(x), lo=post.lo, hi=post.hi, zero_point=post.zero_point, rounding=post.rounding.value)
    params = Params(*(np.broadcast_to(field, (1, acc.shape[1])).astype(np.int64) for field in (post.bias, post.mult, post.shift)))
    return tuple(postprocess(config, job, params, acc, overflow))


@st.composite
def requantisations(draw, config, n):
    act, rng = config.act, np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from([(), (1,), (n,)]))
    lo = draw(st.integers(act.lo, act.hi))
    most = draw(st.integers(1, config.mult_bits))
    return Requantisation(
        bias=integers(rng, config.acc_bits, shape),
        mult=rng.integers(0, 1 << most, shape),
        shift=rng.integers(0, draw(st.sampled_from([1, 8, 30, 64])), shape),
        zero_point=draw(st.integers(act.lo, act.hi)),
        lo=lo,
        hi=draw(st.integers(lo, act.hi)),
        rounding=draw(st.sampled_from([Rounding.FLOOR, Rounding.HALF_UP, Rounding.HALF_EVEN])),
    )


@st.composite
def cases(draw, size=40):
    act, weight = draw(st.sampled_from([(2, 2), (4, 3), (8, 8), (8, 4), (12, 9), (16, 16), (16, 8), (20, 16), (32, 30)]))
    acc = draw(st.sampled_from([2, 8, 14, act + weight, act + weight + 4, 31, 32, 33, 48, 62]))
    assume(acc <= 62)
    mult = draw(st.integers(1, 63 - acc))
    config = AcceleratorConfig(
        act_bits=act, weight_bits=weight, acc_bits=acc, mult_bits=mult, overflow=draw(st.sampled_from(["saturate", "wrap"]))
    )
    m, n, k = (draw(st.integers(1, size)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    corners = draw(st.sampled_from([0.0, 0.1, 1.0]))
    pattern = draw(st.sampled_from(["1:1", "2:8", "1:8", "2:4", "1:2", "3:5", "2:16", "1:32"]))
    x, w = integers(rng, act, (m, k), corners), integers(rng, weight, (n, k), corners)
    x = np.maximum(x, 0) if draw(st.booleans()) else x
    codes = encode(w, 1, k, Pattern.parse(pattern))
    state = (integers(rng, acc, (m, n)), rng.random((m, n)) < 0.1) if draw(st.booleans()) else (None, None)
    post = draw(requantisations(config, n)) if draw(st.booleans()) else None
    return config, x, codes, k, post, *state


def check(case, name=None):
    config, x, codes, k, post, acc, overflow = case
    expected = golden(config, x, codes, post, acc, overflow)
    for weights in (Weights(codes.values, codes.positions, k), Weights(np.ascontiguousarray(dense(codes, k)))):
        offered = routes(config, x, weights, acc)
        assert offered[-1] == SEQUENTIAL
        if name not in (None, *offered):
            continue
        got = gemm(config, x, weights, post, acc, overflow, name)
        np.testing.assert_array_equal(got.value, expected[0])
        np.testing.assert_array_equal(got.overflow, expected[1])
        assert got.value.dtype == (lane(config.acc.hi) if post is None else narrowest(config.act.lo, config.act.hi))


def dense(codes, k):
    w = np.zeros((len(codes.values), k), codes.values.dtype)
    np.put_along_axis(w, codes.positions, codes.values, axis=1)
    return w


@SETTINGS
@given(cases())
def test_the_chosen_route_equals_the_golden_model(case):
    check(case)


@pytest.mark.parametrize("name", [*ROUTES, SEQUENTIAL])
@settings(deadline=None, max_examples=80)
@given(st.data())
def test_every_route_equals_the_golden_model(name, data):
    check(data.draw(cases()), name)


@pytest.mark.golden
@settings(deadline=None, max_examples=25)
@given(cases(size=8))
def test_small_products_with_and_without_compiler(case):
    config, x, codes, k, post, acc, overflow = case
    for name in routes(config, x, Weights(codes.values, codes.positions, k), acc):
        check(case, name)
