from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.postprocess import ROUNDINGS, Params, postprocess
from accel.isa import Post, Source
from accel.timing import postprocess as timing

CONFIG = AcceleratorConfig(param_rows=8)
WIDE = AcceleratorConfig(act_bits=16, weight_bits=16, acc_bits=48, mult_bits=15)
POST = Post(source=Source.ARRAY, rows=2, lo=-128, hi=127)
ROUND: dict[str, Callable[[Fraction], int]] = {"floor": floor, "half_up": lambda x: floor(x + Fraction(1, 2)), "half_even": round}


def naive(post, params, acc):
    """Restate the rule in rational numbers."""
    bias, mult, shift = (array.tolist() for array in params)
    out = []
    for i, row in enumerate(acc.tolist()):
        v = i % post.vectors
        exact = [Fraction((a + b) * m, 1 << s) for a, b, m, s in zip(row, bias[v], mult[v], shift[v], strict=True)]
        out.append([min(max(ROUND[post.rounding](x) + post.zero_point, post.lo), post.hi) for x in exact])
    return out


def draw(rng, config, rows, lanes, vectors):
    """Draw sums, and parameters of which half are extreme."""

    def integers(lo, hi, shape):
        return np.where(rng.random(shape) < 0.5, rng.choice([lo, lo + 1, hi], shape), rng.integers(lo, hi, shape, endpoint=True))

    shape = (vectors, lanes)
    params = Params(integers(config.acc.lo, config.acc.hi, shape), integers(0, (1 << config.mult_bits) - 1, shape), integers(0, 63, shape))
    return params, integers(config.acc.lo, config.acc.hi, (rows, lanes)), rng.random((rows, lanes)) < 0.5


@pytest.mark.golden
@pytest.mark.parametrize("config", [CONFIG, WIDE], ids=["int8", "int16"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_golden_is_exact(config, rounding):
    """Extreme sums, multipliers and shifts; parameter vectors in turn; overflow bits pass."""
    rng = np.random.default_rng(1)
    for vectors in (1, 2, 3):
        lo, zero_point, hi = np.sort(rng.integers(config.act.lo, config.act.hi, 3)).tolist()
        post = Post(source=Source.VECTOR, rows=20, vectors=vectors, zero_point=zero_point, lo=lo, hi=hi, rounding=rounding)
        params, acc, overflow = draw(rng, config, post.rows, 5, vectors)
        value, flags = postprocess(config, post, params, acc, overflow)
        assert value.tolist() == naive(post, params, acc)
        np.testing.assert_array_equal(flags, overflow)


@pytest.mark.golden
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_golden_rounds_every_small_value(rounding):
    """All sums of 9 bits at every shift: each tie and each sign."""
    acc = np.arange(-256, 256)[:, None].repeat(12, axis=1)
    ones = np.ones((1, 12), np.int64)
    params = Params(0 * ones, ones, np.arange(12)[None])
    post = replace(POST, rows=512, rounding=rounding)
    assert postprocess(CONFIG, post, params, acc, acc > 0).value.tolist() == naive(post, params, acc)


@pytest.mark.golden
def test_golden_does_not_wrap():
    """The greatest product of the widest config with a shift of 0, and a zero point that would carry it out of int64."""
    config = AcceleratorConfig(acc_bits=62, mult_bits=1, act_bits=32, weight_bits=2)
    acc = np.array([[config.acc.hi, config.acc.lo]])
    params = Params(acc, np.ones_like(acc), np.zeros_like(acc))
    for zero_point in (config.act.lo, config.act.hi):
        post = replace(POST, rows=1, zero_point=zero_point, lo=config.act.lo, hi=config.act.hi)
        assert postprocess(config, post, params, acc, acc > 0).value.tolist() == naive(post, params, acc)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, r"^rows must be an int in \[1, 16777215\], not 0$"),
        ({"base": 8}, r"^base must be an int in \[0, 7\], not 8$"),
        ({"base": 6, "vectors": 3}, r"^vectors must be an int in \[1, 2\], not 3$"),
        ({"hi": 128}, r"^hi must be an int in \[-128, 127\], not 128$"),
        ({"lo": 5, "hi": 4}, r"^lo must be an int in \[-128, 4\], not 5$"),
        ({"zero_point": -129}, r"^zero_point must be an int in \[-128, 127\], not -129$"),
        ({"rounding": "stochastic"}, r"^rounding must be one of floor, half_up, half_even, not 'stochastic'$"),
        ({"rows": 3}, r"^acc must be int64 of shape \(3, lanes\), not int64 of shape \(2, 4\)$"),
        ({"vectors": 2}, r"^bias must be int64 of shape \(2, 4\), not int64 of shape \(1, 4\)$"),
    ],
)
def test_golden_rejects_job(change, message):
    zeros = np.zeros((1, 4), np.int64)
    with pytest.raises(RangeError, match=message):
        postprocess(CONFIG, replace(POST, **change), Params(zeros, zeros, zeros), np.zeros((2, 4), np.int64), np.zeros((2, 4), np.bool_))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("acc", 1 << 31, r"^acc must be in \[-2147483648, 2147483647\], not 2147483648..2147483648$"),
        ("bias", -(1 << 31) - 1, r"^bias must be in \[-2147483648, 2147483647\], not -2147483649..-2147483649$"),
        ("mult", 1 << 24, r"^mult must be in \[0, 16777215\], not 16777216..16777216$"),
        ("shift", 64, r"^shift must be in \[0, 63\], not 64..64$"),
        ("overflow", 0, r"^overflow must be bool of shape \(2, 4\), not int64 of shape \(2, 4\)$"),
    ],
)
def test_golden_rejects_array(name, value, message):
    arrays: dict[str, Any] = {key: np.zeros((1, 4), np.int64) for key in Params._fields}
    arrays |= {"acc": np.zeros((2, 4), np.int64), "overflow": np.zeros((2, 4), np.bool_)}
    arrays[name] = np.full(arrays[name].shape, value)
    params = Params(*(arrays.pop(key) for key in Params._fields))
    with pytest.raises(RangeError, match=message):
        postprocess(CONFIG, POST, params, **arrays)


def test_closed_form_is_the_recurrence_without_waits():
    """Interval and latency as derived, jobs alone and in a row."""
    jobs = [replace(POST, rows=rows, source=source) for rows, source in ((3, Source.ARRAY), (1, Source.VECTOR), (5, Source.VECTOR))]
    for some in (jobs[:1], jobs[1:2], jobs):
        cycles = timing.postprocess(CONFIG, some)
        offered = np.arange(cycles + 5)
        job_ready, array_ready, vector_ready, o_valid = timing.postprocess_trace(
            np.array([job.rows for job in some]),
            np.array([job.source is Source.VECTOR for job in some], np.int64),
            offered < 1 + sum(job.rows for job in some[:-1]),  # the last job is accepted with the last row before it
            np.ones_like(offered, bool),
            np.ones_like(offered, bool),
            np.ones_like(offered, bool),
        )
        assert int(np.flatnonzero(o_valid)[-1]) + 1 == cycles
        assert o_valid.sum() == (array_ready | vector_ready).sum() == sum(job.rows for job in some)
        starts = np.flatnonzero(job_ready)[: len(some)]
        assert np.diff(starts).tolist() == [timing.interval(job) for job in some[:-1]]
    assert timing.latency(jobs[0]) == timing.postprocess(CONFIG, jobs[:1])
