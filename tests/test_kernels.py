"""Every fast route against the golden model, to the bit."""

from __future__ import annotations

import json
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
from accel.kernels import simd, tiles
from accel.kernels.gemm import ROUTES, SEQUENTIAL, Weights, gemm, routes
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
