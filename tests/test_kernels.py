"""Every fast route against the golden model, to the bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import textwrap

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
from accel.golden.vector import vector
from accel.graph.window import Window
from accel.kernels import grouped, pooling, simd, tiles
from accel.kernels.gemm import ROUTES, SEQUENTIAL, Weights, gemm, routes
from accel.kernels.patches import Patches, Place
from accel.kernels.requantise import Requantisation, lane, narrowest, requantise
from accel.sparsity import Pattern, decode, encode
from reports.bench import kernels

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
    for weights in (Weights(codes.values, codes.positions, k), Weights(decode(codes, k))):
        offered = routes(config, x, weights, acc)
        assert offered[-1] == SEQUENTIAL
        if name not in (None, *offered):
            continue
        got = gemm(config, x, weights, post, acc, overflow, name)
        np.testing.assert_array_equal(got.value, expected[0])
        np.testing.assert_array_equal(got.overflow, expected[1])
        assert got.value.dtype == (lane(config.acc.hi) if post is None else narrowest(config.act.lo, config.act.hi))


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
    config, x, codes, k, _, acc, _ = case
    for name in routes(config, x, Weights(codes.values, codes.positions, k), acc):
        check(case, name)


def drawn(seed, config, shape, pattern):
    """Draw a case of any size; the golden model takes a nanosecond per product."""
    rng, (m, n, k) = np.random.default_rng(seed), shape
    x, w = integers(rng, config.act_bits, (m, k)), integers(rng, config.weight_bits, (n, k))
    return config, x, encode(w, 1, k, Pattern.parse(pattern)), k, None, None, None


@pytest.mark.parametrize("pattern", ["1:1", "2:8"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(1, 300, 33), (300, 1, 33), (257, 131, 35), (129, 129, 16), (136, 33, 200), (8, 32, 4), (9, 32, 5)])
def test_edges_of_tasks_and_tiles(shape, bits, pattern):
    config = AcceleratorConfig(act_bits=bits, weight_bits=bits, acc_bits=48, mult_bits=15)
    case = drawn(sum(shape), config, shape, pattern)
    for name in [*ROUTES, SEQUENTIAL]:
        check(case, name)


@pytest.mark.skipif(not simd.VNNI, reason="octets need AVX-512 VNNI")
@pytest.mark.parametrize("sign", [(1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("bits", [8, 16])
def test_octets_are_exact_at_their_deepest(bits, sign):
    """Every digit sum has the largest magnitude it can have."""
    config = AcceleratorConfig(act_bits=bits, weight_bits=bits, acc_bits=48, mult_bits=15)
    ends = {1: config.act.hi, -1: config.act.lo}
    x, w = (np.full((1, tiles.DEPTH), ends[s]) for s in sign)
    for name in ("dense octets", "sparse octets"):
        assert gemm(config, x, Weights(w), route=name).value.item() == tiles.DEPTH * ends[sign[0]] * ends[sign[1]]
    longer = np.zeros((1, tiles.DEPTH + 1), np.int64)
    assert not {"dense octets", "sparse octets"} & set(routes(config, longer, Weights(longer)))


def test_only_the_channels_that_might_overflow_are_accumulated_one_by_one():
    config = AcceleratorConfig(acc_bits=16)
    rng = np.random.default_rng(1)
    x, w = integers(rng, 8, (50, 64)), integers(rng, 2, (20, 64))
    w[3] = 127
    weights = Weights(w)
    names = routes(config, x, weights)
    assert len(names) > 1
    value, overflow = gemm(config, x, weights)
    expected = stce(config, x, w, np.tile(np.arange(64), (20, 1)))
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(overflow, expected[1])
    assert overflow[:, 3].any()
    assert not np.delete(overflow, 3, axis=1).any()


@pytest.mark.golden
def test_bounds_are_no_wider_than_need_be():
    """A sum may reach the end of the accumulator, but one more might leave it; for long rows Euclid's norm is the better bound."""
    config = AcceleratorConfig(acc_bits=8)
    w = Weights(np.full((1, 3), 42))
    assert routes(config, np.ones((1, 3), np.int64), w) != [SEQUENTIAL]  # 126
    assert routes(config, np.full((1, 3), 2), w) == [SEQUENTIAL]
    one = np.ones((1, 1), np.int64)
    assert routes(config, np.ones((1, 3), np.int64), w, one) != [SEQUENTIAL]  # 127
    assert routes(config, np.ones((1, 3), np.int64), w, 2 * one) == [SEQUENTIAL]
    spread, flat = np.eye(1, 100, dtype=np.int64) * 20, Weights(np.ones((1, 100), np.int64))
    assert routes(AcceleratorConfig(acc_bits=9), spread, flat) != [SEQUENTIAL]  # |x| |w| = 200, max x sum w = 2000
    assert routes(AcceleratorConfig(acc_bits=8), spread, flat) == [SEQUENTIAL]


@pytest.mark.golden
@pytest.mark.parametrize(("m", "n", "k"), [(0, 3, 4), (3, 0, 4), (2, 3, 0)])
def test_nothing_to_do(m, n, k):
    value, overflow = gemm(AcceleratorConfig(), np.zeros((m, k), np.int8), Weights(np.zeros((n, k), np.int8)))
    np.testing.assert_array_equal(value, np.zeros((m, n)))
    np.testing.assert_array_equal(overflow, np.zeros((m, n)))


@pytest.mark.golden
def test_any_integer_type_and_order_of_memory():
    config = AcceleratorConfig()
    rng = np.random.default_rng(2)
    x, w = rng.integers(0, 128, (7, 12)), rng.integers(-128, 128, (5, 12))
    for kind in (np.int8, np.uint8, np.int16, np.uint32, np.int64):
        for array in (x.astype(kind), np.asfortranarray(x.astype(kind)), np.repeat(x.astype(kind), 2, axis=1)[:, ::2]):
            for weights in (Weights(w), Weights(np.asfortranarray(w))):
                for name in routes(config, array, weights):
                    np.testing.assert_array_equal(gemm(config, array, weights, route=name).value, x @ w.T)


@pytest.mark.golden
@settings(deadline=None, max_examples=50)
@given(st.data())
def test_requantise_equals_the_golden_model(data):
    acc_bits = data.draw(st.sampled_from([8, 24, 32, 48, 62]))
    config = AcceleratorConfig(
        acc_bits=acc_bits, act_bits=data.draw(st.sampled_from([4, 8, 16, 32])), weight_bits=8, mult_bits=63 - acc_bits
    )
    post = data.draw(requantisations(config, 5))
    acc = integers(np.random.default_rng(data.draw(st.integers(0, 2**32))), acc_bits, (6, 5))
    got = requantise(config, acc, post)
    job = isa.Post(source=isa.Source.VECTOR, rows=6, lo=post.lo, hi=post.hi, zero_point=post.zero_point, rounding=post.rounding.value)
    params = Params(*(np.broadcast_to(field, (1, 5)).astype(np.int64) for field in (post.bias, post.mult, post.shift)))
    np.testing.assert_array_equal(got, postprocess(config, job, params, acc, np.zeros((6, 5), np.bool_)).value)
    assert got.dtype == narrowest(config.act.lo, config.act.hi)


@st.composite
def imaged(draw):
    """Draw images with a window, a configuration that may overflow, and a requantisation of all channels."""
    bits = draw(st.sampled_from([4, 8, 16, 30]))
    acc = draw(st.sampled_from([8, 14, 20, 32, 48]))
    config = AcceleratorConfig(
        act_bits=bits, weight_bits=min(bits, 16), acc_bits=max(acc, bits), mult_bits=min(24, 63 - max(acc, bits)),
        overflow=draw(st.sampled_from(["saturate", "wrap"])),
    )  # fmt: skip
    groups, each = draw(st.sampled_from([(1, 3), (4, 1), (2, 2), (7, 1), (3, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    height, width = (draw(st.integers(1, 6)) for _ in range(2))

    def two(lo, hi):
        return (draw(st.integers(lo, hi)), draw(st.integers(lo, hi)))

    window = Window(kernel=two(1, 3), stride=two(1, 2), dilation=two(1, 2), pads=(*two(-1, 2), *two(-1, 2)))
    assume(min(window.positions(height, width)) >= 1)
    images = integers(rng, bits, (2, height, width, groups * each)).astype(narrowest(config.act.lo, config.act.hi))
    presented, padding = draw(st.integers(1, 2)), int(integers(rng, bits, ()))
    places = window.positions(height, width)
    place = Place(
        window.kernel, window.stride, window.dilation, window.pads[:2], places, 0, groups * each, padding, presented
    )  # fmt: skip
    return config, Patches(images, place), groups, each, rng


@settings(deadline=None, max_examples=120)
@given(imaged(), st.integers(1, 3), st.data())
def test_groups_equal_the_golden_model(case, n, data):
    """Each group as the array would compute it, also where some overflow, and where weights are presented in parts."""
    config, x, groups, each, rng = case
    k = x.shape[1] // groups
    w = integers(rng, config.weight_bits, (groups * n, k), 0.1) >> rng.integers(0, config.weight_bits, (groups * n, 1))
    post = data.draw(st.none() | requantisations(config, groups * n))
    if post is not None:
        post = dataclasses.replace(post, **{name: np.broadcast_to(getattr(post, name), groups * n) for name in ("bias", "mult", "shift")})
    got = grouped.multiply(config, x, Weights(w), groups, post)
    for group in range(groups):
        own = slice(group * n, (group + 1) * n)
        rows = Patches(x.images, x.place._replace(first=group * each, channels=each)).matrix
        codes = encode(w[own], 1, k, Pattern(1, 1))
        want = golden(config, rows, codes, None if post is None else post.channels(own), None, None)
        np.testing.assert_array_equal(got.value[:, own], want[0])
        np.testing.assert_array_equal(got.overflow[:, own], want[1])


@settings(deadline=None, max_examples=120)
@given(imaged(), st.booleans(), st.data())
def test_pools_equal_the_vector_unit(case, maximum, data):
    """At any positions; None only where a sum could leave the accumulator."""
    config, x, _, _, rng = case
    x = Patches(x.images, x.place._replace(presented=1))
    taps, channels = math.prod(x.place.kernel), x.images.shape[-1]
    post = data.draw(requantisations(config, channels))
    positions = np.flatnonzero(rng.random(np.prod(x.place.positions)) < 0.7)
    got = pooling.pool(config, x, positions, maximum, post)
    rows = x.matrix.reshape(len(x.images), -1, taps, channels)[:, positions].reshape(-1, channels).astype(np.int64)
    reach = max(-x.ends[0], x.ends[1]) * taps
    if got is None:
        assert not maximum
        assert reach > config.acc.hi
    elif len(rows):
        reduce = isa.Reduce.MAX if maximum else isa.Reduce.SUM
        acc, overflow = vector(config, isa.Vector(reduce=reduce, rows=len(rows) // taps, window=taps), rows)
        assert not overflow.any()
        np.testing.assert_array_equal(got, requantise(config, acc, post))
        assert got.dtype == narrowest(config.act.lo, config.act.hi)


@settings(deadline=None, max_examples=120)
@given(imaged(), st.integers(1, 2), st.data())
def test_weighted_sums_equal_the_vector_unit(case, count, data):
    """Coefficients of either sign, as far as nothing can overflow."""
    config, x, _, _, rng = case
    channels = x.images.shape[-1]
    xs = [x.images.reshape(-1, channels), integers(rng, config.act_bits, (x.images.size // channels, channels)).astype(np.int32)]
    coefficients = integers(rng, 16, 2).tolist()
    if data.draw(st.booleans()):
        coefficients = [c >> 12 for c in coefficients]
    post = data.draw(requantisations(config, channels))
    got = pooling.weighted(config, xs[:count], coefficients[:count], post)
    beats = np.stack(xs[:count], axis=1).reshape(-1, channels).astype(np.int64)
    job = isa.Vector(reduce=isa.Reduce.SUM, rows=len(xs[0]), window=count, head=coefficients[0], tail=coefficients[1])
    acc, overflow = vector(config, job, beats)
    if got is None:
        assert (
            sum(abs(c) * int(np.abs(each.astype(np.int64)).max()) for c, each in zip(coefficients, xs[:count], strict=False))
            > config.acc.hi
        )
    else:
        assert not overflow.any()
        np.testing.assert_array_equal(got, requantise(config, acc, post))


@pytest.mark.golden
def test_small_windows_with_and_without_compiler():
    """Gathering, groups, pools and sums by the kernels' own source."""
    config, rng = AcceleratorConfig(), np.random.default_rng(8)
    images = integers(rng, 8, (2, 4, 3, 4)).astype(np.int8)
    x = Patches(images, Place((2, 2), (1, 1), (1, 1), (1, 0), (4, 2), 0, 4, -5))
    post = Requantisation(bias=np.zeros(4, np.int64), mult=np.full(4, 3), shift=np.full(4, 5), lo=-128, hi=127)
    padded = np.pad(images.astype(np.int64), ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=-5)
    seen = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3).reshape(16, 4, 4)
    np.testing.assert_array_equal(x.matrix, seen.reshape(16, 16))
    w = integers(rng, 8, (4, 4))
    np.testing.assert_array_equal(grouped.multiply(config, x, Weights(w), 4).value, np.einsum("mtc,ct->mc", seen, w))
    for maximum, acc in ((True, seen.max(axis=1)), (False, seen.sum(axis=1))):
        np.testing.assert_array_equal(pooling.pool(config, x, np.arange(8), maximum, post), requantise(config, acc, post))
    two = images.reshape(-1, 4), images[::-1].reshape(-1, 4)
    acc = 7 * two[0].astype(np.int64) - 3 * two[1].astype(np.int64)
    np.testing.assert_array_equal(pooling.weighted(config, two, [7, -3], post), requantise(config, acc, post))


GOOD = {"bias": np.zeros(4, np.int64), "mult": np.int64(1), "shift": np.int64(0), "lo": -128, "hi": 127}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bias", np.zeros(3, np.int64), r"^bias must be int64 that broadcasts to shape \(4,\), not int64 of shape \(3,\)$"),
        ("bias", np.zeros(4), r"^bias must be int64 that broadcasts to shape \(4,\), not float64 of shape \(4,\)$"),
        ("bias", np.int64(2**31), r"^bias must be in \[-2147483648, 2147483647\], not 2147483648\.\.2147483648$"),
        ("mult", np.int64(-1), r"^mult must be in \[0, 16777215\], not -1\.\.-1$"),
        ("shift", np.int64(64), r"^shift must be in \[0, 63\], not 64\.\.64$"),
        ("hi", 128, r"^hi must be an int in \[-128, 127\], not 128$"),
        ("lo", -129, r"^lo must be an int in \[-128, 127\], not -129$"),
        ("zero_point", 0.5, r"^zero_point must be an int in \[-128, 127\], not 0\.5$"),
        ("rounding", Rounding.STOCHASTIC, r"^rounding must be floor, half_up or half_even, not stochastic$"),
    ],
)
def test_requantisation_rejects(field, value, message):
    post = Requantisation(**(GOOD | {field: value}))
    with pytest.raises(RangeError, match=message):
        requantise(AcceleratorConfig(), np.zeros((2, 4), np.int32), post)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 3)),), r"^values must be integers in two dimensions, not float64 in 2$"),
        ((np.zeros(3, np.int8),), r"^values must be integers in two dimensions, not int8 in 1$"),
        ((np.zeros((4, 2), np.int8), None, 3), r"^k must be given if and only if positions are, not 3$"),
        ((np.zeros((4, 2), np.int8), np.zeros((4, 2), np.int64)), r"^k must be given if and only if positions are, not None$"),
        (
            (np.zeros((4, 2), np.int8), np.zeros((4, 1), np.int64), 3),
            r"^positions must be int64 of shape \(4, 2\), not int64 of shape \(4, 1\)$",
        ),
        ((np.zeros((1, 2), np.int8), np.array([[0, 3]]), 3), r"^positions must be in \[0, 2\], not 0\.\.3$"),
        ((np.zeros((1, 2), np.int8), np.array([[1, 1]]), 3), r"^positions must be ascending in each row, not in another order$"),
    ],
)
def test_weights_reject(arguments, message):
    with pytest.raises(RangeError, match=message):
        Weights(*arguments)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x", np.zeros((2, 3)), r"^x must be integers in two dimensions, not float64 in 2$"),
        ("x", np.zeros((2, 4), np.int8), r"^x must be of shape \(m, 3\), not \(2, 4\)$"),
        ("x", np.full((2, 3), 128), r"^x must be in \[-128, 127\], not 128\.\.128$"),
        ("weights", Weights(np.full((4, 3), -129)), r"^weights must be in \[-128, 127\], not -129\.\.-129$"),
        ("acc", np.zeros((2, 4)), r"^acc must be integers in two dimensions, not float64 in 2$"),
        ("acc", np.zeros((4, 2), np.int64), r"^acc must be of shape \(2, 4\), not \(4, 2\)$"),
        ("acc", np.full((2, 4), 2**31), r"^acc must be in \[-2147483648, 2147483647\], not 2147483648\.\.2147483648$"),
        ("overflow", np.zeros((2, 4), np.int64), r"^overflow must be bool of shape \(2, 4\), not int64 of shape \(2, 4\)$"),
        ("route", "none", r"^route must be one of .*, sequential here, not 'none'$"),
    ],
)
def test_gemm_rejects(name, value, message):
    arguments = {"x": np.zeros((2, 3), np.int8), "weights": Weights(np.zeros((4, 3), np.int8))}
    with pytest.raises(RangeError, match=message):
        gemm(AcceleratorConfig(), **(arguments | {name: value}))


def test_portable_kernels_compile_for_a_plain_processor():
    """Nothing but the octets needs more than the oldest processor of its family."""
    code = """
        import numpy as np
        from accel.config import AcceleratorConfig
        from accel.kernels.gemm import Weights, gemm, routes
        x, w = np.arange(-60, 60).reshape(12, 10), np.arange(-50, 50).reshape(10, 10)
        names = routes(AcceleratorConfig(), x, Weights(w))
        assert all((gemm(AcceleratorConfig(), x, Weights(w), route=name).value == x @ w.T).all() for name in names)
        print(*names, sep="|")
    """
    env = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, check=True)
    assert set(done.stdout.strip().split("|")) == {"dense halves", "float64", "lanes of 32 bits", "lanes of 64 bits", SEQUENTIAL}


def test_the_benchmark_agrees_with_its_peers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kernels", "--rounds", "1", "--size", "32", "--out", str(tmp_path)])
    monkeypatch.setattr(kernels, "REST", 0)
    kernels.main()
    results = json.loads((tmp_path / "kernels.json").read_text())["results"]
    assert all(row["best_ms"] > 0 for result in results for row in result["contenders"])
    assert capsys.readouterr().out.strip() == (tmp_path / "kernels.md").read_text().strip()
