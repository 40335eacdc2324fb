from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.special import batch_norm as bn
from accel.training.elementwise import relu_backward

TORCH = Path(__file__).with_name("torch_operators.npz")


def two(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def clip(value: int, lo: int, hi: int) -> int:
    return min(max(value, lo), hi)


def room(value: Fraction, bits: int, most: int) -> int:
    """Return the greatest p up to `most` at which ``value * 2**p`` is below ``2**bits``."""
    if not value:
        return most
    p = min(most, bits + 1 - value.numerator.bit_length() + value.denominator.bit_length())
    while value * two(p) >= 2**bits:
        p -= 1
    return p


def scalar(value: Fraction) -> Fraction:
    """Round to 31 significant bits, half to even."""
    if value == 0:
        return value
    place = room(abs(value), 31, 5000)
    return round(value * two(place)) * two(-place)


def cut(value: Fraction, bits: int) -> Fraction:
    """Cut a number of 0 or more to some bits."""
    if value == 0:
        return value
    place = room(value, bits, 200)
    return (value * two(place)).__floor__() * two(-place)


@dataclass
class Case:
    """One channel: x and dy with how often each pair occurs, parameters, formats."""

    pairs: list[tuple[int, int, int]]
    gamma: int
    beta: int
    epsilon: float
    bits: int
    fracs: dict[str, int]

    def format(self, name: str) -> FixedFormat:
        return FixedFormat(self.bits, self.fracs[name])

    def sum(self, term: Any) -> int:
        return sum(count * term(x, dy) for x, dy, count in self.pairs)


class Naive:
    """The steps of the specification, in rational numbers."""

    def __init__(self, case: Case) -> None:
        self.case, self.f = case, case.fracs
        self.n = case.sum(lambda x, dy: 1)
        total, squares = case.sum(lambda x, dy: x), case.sum(lambda x, dy: x * x)
        self.m = round(Fraction(total, self.n))
        self.mean = Fraction(total, self.n)
        self.variance = Fraction(squares, self.n) - self.mean**2
        self.rstd = self.root(self.variance)
        self.coefficients: list[tuple[int, ...]] = []

    def root(self, variance: Fraction) -> Fraction:
        exact = Fraction(self.case.epsilon) * two(2 * self.f["x"])
        p = (room(exact, 60, 5000) + 1) // 2 if exact else 46  # that one, or the one below, has 60 bits once rounded
        p -= round(exact * two(2 * p)) > 2**60
        e = round(exact * two(2 * p))
        g = min(p, room(variance, 60, 2 * p) // 2)
        t = (variance * two(2 * g)).__floor__() + (e * two(2 * (g - p)) + Fraction(1, 2)).__floor__()
        q = round(mpmath.sqrt(t)) if t else 0  # 30 digits: a root of 30 bits is never that close to a half
        return (Fraction(2**60, q) + Fraction(1, 2)).__floor__() * two(g - 60) if q else Fraction(0)

    def steepness(self, *slopes: Fraction, most: int = 46) -> int:
        return max(min(room(abs(slope), 30, most) for slope in slopes), 0)

    def forward(self) -> list[int]:
        """Return y, saturated far beyond its format."""
        case, f = self.case, self.f
        slope = scalar(case.gamma * self.rstd) * two(f["y"] - f["gamma"])
        s = self.steepness(slope, most=min(46, 46 + f["beta"] - f["y"]))
        a = clip(round(slope * two(s)), 1 - 2**31, 2**31 - 1)
        b = clip(round(case.beta * two(f["y"] - f["beta"] + s)), -(2**61), 2**61) - round((self.mean - self.m) * a)
        self.coefficients.append((a, b - self.m * a, s))
        return [clip(round(((x - self.m) * a + b) * two(-s)), -(2**40), 2**40) for x, _, _ in case.pairs]

    def backward(self) -> tuple[list[int], int, int]:
        case, f = self.case, self.f
        total, products = case.sum(lambda x, dy: dy), case.sum(lambda x, dy: x * dy)
        mean = Fraction(total, self.n)
        middle = round(mean)
        covariance = Fraction(products, self.n) - self.mean * mean
        w = scalar((1 if covariance > 0 else -1) * cut(abs(covariance), 31) * self.rstd)
        dgamma = round(self.n * w * two(f["dgamma"] - f["dy"]))
        dbeta = round(total * two(f["dbeta"] - f["dy"]))
        slope = scalar(case.gamma * self.rstd) * two(f["x"] + f["dx"] - f["dy"] - f["gamma"])
        other = scalar(slope * scalar(w * self.rstd))
        s = self.steepness(slope, other)
        a, k = (clip(round(each * two(s)), 1 - 2**31, 2**31 - 1) for each in (slope, other))
        c = round((self.mean - self.m) * k - (mean - middle) * a)
        self.coefficients.append((a, -k, c - middle * a + self.m * k, s))
        return [round(((dy - middle) * a - (x - self.m) * k + c) * two(-s)) for x, dy, _ in case.pairs], dgamma, dbeta

    def check(self, results: list[int], backward: tuple[list[int], int, int]) -> None:
        """Compare results before saturation with real arithmetic, of 60 digits, by the bounds of the docstring."""
        case, f = self.case, self.f
        with mpmath.workdps(60):

            def real(value: Fraction) -> Any:
                return mpmath.mpf(value.numerator) / value.denominator

            under = self.variance + Fraction(case.epsilon) * two(2 * f["x"])
            rstd = 1 / mpmath.sqrt(real(under)) if under else mpmath.mpf(0)
            slope = rstd * real(case.gamma * two(f["y"] - f["gamma"]))
            beta = real(case.beta * two(f["y"] - f["beta"]))
            if abs(slope) < 2**31:
                for (x, _, _), y in zip(case.pairs, results, strict=True):
                    part = slope * real(x - self.mean)
                    limit = 0.5 + abs(part) * 2.0**-28 + abs(slope) * 2.0**-29 + 2.0**-30 * max(1.0, 2.0 ** (f["y"] - f["beta"]))
                    assert abs(y - clip(part + beta, -(2**40), 2**40)) <= limit
            dxs, dgamma, dbeta = backward
            mean = Fraction(case.sum(lambda x, dy: dy), self.n)
            covariance = Fraction(case.sum(lambda x, dy: x * dy), self.n) - self.mean * mean
            assert abs(dbeta - self.n * mean * two(f["dbeta"] - f["dy"])) <= Fraction(1, 2)
            wanted = rstd * real(covariance * self.n * two(f["dgamma"] - f["dy"]))
            assert abs(dgamma - wanted) <= 0.5 + abs(wanted) * 2.0**-28
            slope = rstd * real(case.gamma * two(f["x"] + f["dx"] - f["dy"] - f["gamma"]))
            other = slope * rstd * rstd * real(covariance)
            steepest = max(abs(slope), abs(other))
            if steepest < 2**31:
                for (x, dy, _), dx in zip(case.pairs, dxs, strict=True):
                    one, two_ = slope * real(dy - mean), other * real(x - self.mean)
                    limit = 0.5 + abs(one) * 2.0**-28 + abs(two_) * 2.0**-26 + 2.0**-29
                    limit += steepest * 2.0**-30 * (1 + abs(real(dy - mean)) + abs(real(x - self.mean)))
                    assert abs(dx - one + two_) <= limit


def saturated(values: list[int], format: FixedFormat) -> tuple[list[int], int]:
    kept = [clip(value, format.lo, format.hi) for value in values]
    return kept, sum(a != b for a, b in zip(values, kept, strict=True))


def check(case: Case) -> None:
    """Compare with the twin, bit by bit, and the twin with the reals."""
    naive = Naive(case)
    ys, (dxs, dgamma, dbeta) = naive.forward(), naive.backward()
    naive.check(ys, (dxs, dgamma, dbeta))
    if naive.n <= 64:  # written down, element by element; a second channel shows that channels are apart
        xs, dys = (np.repeat([pair[k] for pair in case.pairs], [pair[2] for pair in case.pairs]) for k in (0, 1))
        x, dy = (np.stack([v, np.zeros_like(v)], axis=-1).reshape(1, -1, 1, 2).astype(np.int16) for v in (xs, dys))
        gamma, beta = np.array([case.gamma, 1], np.int16), np.array([case.beta, 0], np.int32)
        taken = bn.moments(x, case.format("x"), case.epsilon)
        y, count = bn.normalise(x, taken, gamma, case.format("gamma"), beta, case.format("beta"), case.format("y"))
        formats = [case.format(name) for name in ("dx", "dgamma", "dbeta")]
        found = bn.backward(dy, case.format("dy"), x, taken, gamma, case.format("gamma"), *formats)
        counts = [pair[2] for pair in case.pairs]
        wanted = [np.repeat(values, counts).tolist() for values in (ys, dxs)]
        assert (y[0, :, 0, 0].tolist(), count) == saturated(wanted[0], case.format("y"))
        assert (found.dx[0, :, 0, 0].tolist(), found.dx_saturated) == saturated(wanted[1], case.format("dx"))
        assert ([int(found.dgamma[0])], found.dgamma_saturated) == saturated([dgamma], case.format("dgamma"))
        assert ([int(found.dbeta[0])], found.dbeta_saturated) == saturated([dbeta], case.format("dbeta"))
        assert not y[..., 1].any()
        assert not found.dx[..., 1].any()
        assert y.dtype == found.dx.dtype == (np.int8 if case.bits <= 8 else np.int16)
        return
    # as many elements as a channel may have: the sums are known, each different pair is looked at once
    sums = [np.array([case.sum(term)]) for term in (lambda x, dy: x, lambda x, dy: x * x, lambda x, dy: dy, lambda x, dy: x * dy)]
    result: Any = np.empty((4, 1), np.int64)
    bn._moments(naive.n, sums[0], sums[1], *bn._epsilon(case.epsilon, case.fracs["x"]), result)
    f, (gamma, beta) = case.fracs, (np.array([case.gamma]), np.array([case.beta]))
    table = np.empty((5, 1), np.int64)
    mean = (naive.n, result[0], result[1], result[2], result[3])
    bn._line(*mean, gamma, f["gamma"], beta, f["beta"], f["y"], table)
    x, dy = (np.array([[pair[k]] for pair in case.pairs], np.int16) for k in (0, 1))
    assert tuple(table[:3, 0].tolist()) == naive.coefficients[0]
    out, clipped = np.empty(x.shape, np.int16), np.zeros(1, np.int64)
    bn._apply(x, table, case.format("y").lo, case.format("y").hi, out, clipped)
    assert (out[:, 0].tolist(), int(clipped[0])) == saturated(ys, case.format("y"))
    table, parameters, both = np.empty((6, 1), np.int64), np.empty((2, 1), np.int64), np.zeros(2, np.int64)
    limits = np.array([[f[name] - f["dy"], case.format(name).lo, case.format(name).hi] for name in ("dgamma", "dbeta")])
    bn._slopes(*mean, gamma, f["dy"] + f["gamma"] - f["x"] - f["dx"], sums[2], sums[3], limits, table, parameters, both)
    assert tuple(table[:4, 0].tolist()) == naive.coefficients[1]
    bn._combine(x, dy, table, case.format("dx").lo, case.format("dx").hi, out, clipped)
    assert (out[:, 0].tolist(), int(clipped[0])) == saturated(dxs, case.format("dx"))
    for name, value, kept, count in zip(("dgamma", "dbeta"), (dgamma, dbeta), parameters[:, 0].tolist(), both.tolist(), strict=True):
        assert ([kept], count) == saturated([value], case.format(name))


NAMES = ("x", "y", "dy", "dx", "gamma", "beta", "dgamma", "dbeta")
USUAL = {"x": 10, "y": 12, "dy": 14, "dx": 14, "gamma": 14, "beta": 14, "dgamma": 8, "dbeta": 8}


@st.composite
def cases(draw: Any, large: bool = False) -> Case:
    """Draw channels with small, large and no variance, gains of either sign and none, likely and unlikely formats."""
    bits = draw(st.sampled_from([8, 16, 16, 11, 4]))
    half = 1 << bits - 1
    middle = draw(st.integers(-half, half - 1))
    spread = draw(st.sampled_from([0, 1, 30, 2 * half]))
    element = st.one_of(
        st.integers(max(middle - spread, -half), min(middle + spread, half - 1)), st.sampled_from([-half, half - 1, middle])
    )
    whole = st.one_of(st.integers(-half, half - 1), st.sampled_from([-half, half - 1, 0, 1]))
    count = st.one_of(st.integers(1, 1 << 28), st.sampled_from([1, 1 << 28])) if large else st.integers(1, 3)
    usual = draw(st.booleans())
    return Case(
        pairs=draw(st.lists(st.tuples(element, whole, count), min_size=4 if large else 1, max_size=4 if large else 12)),
        gamma=draw(whole),
        beta=draw(whole),
        epsilon=draw(st.sampled_from([0.0, 1e-5, 1e-3, 2.0**-60, 2.0**60])) or draw(st.sampled_from([0.0, 0.0, 2.0**-1060])),
        bits=bits,
        fracs={name: USUAL[name] + draw(st.integers(-3, 3)) - (16 - bits) if usual else draw(st.integers(-20, 40)) for name in NAMES},
    )


@settings(max_examples=400)
@given(cases())
@example(Case([(-32768, 32767, 1), (32767, -32768, 1)], -32768, 32767, 1e-5, 16, USUAL))
@example(Case([(5, 3, 1)], 16384, -77, 1e-5, 16, USUAL))
@example(Case([(5, 3, 4)], 16384, -77, 0.0, 16, USUAL))
def test_any_channel(case):
    check(case)


@settings(max_examples=200)
@given(cases(large=True))
@example(Case([(-32768, -32768, 1 << 29), (32767, -32768, 1 << 29)], -32768, -32768, 1e-5, 16, USUAL))
@example(Case([(32767, -32768, (1 << 30) - 1), (32766, 32767, 1)], -32768, -32768, 0.0, 16, USUAL | {"x": 38, "dx": 40}))
@example(Case([(-32768, -32768, 1 << 30)], -32768, -32768, 0.0, 16, USUAL))
def test_any_large_channel(case):
    check(case)


@pytest.mark.golden
@pytest.mark.parametrize("bits", [8, 16])
def test_usual_channels(bits):
    """Samples, rows and columns are one channel's elements alike; narrow and wide types give the same bits."""
    rng = np.random.default_rng(bits)
    half = 1 << bits - 1
    shape = (2, 3, 5, 4)
    x, dy = rng.integers(-half // 2, half // 2, shape), rng.integers(-half, half, shape)
    gamma, beta = rng.integers(-half, half, 4), rng.integers(-half, half, 4)
    fracs = {name: frac - (16 - bits) for name, frac in USUAL.items()}
    f = {name: FixedFormat(bits, frac) for name, frac in fracs.items()}
    taken = bn.moments(x, f["x"], 1e-5)
    y, y_count = bn.normalise(x, taken, gamma, f["gamma"], beta, f["beta"], f["y"])
    found = bn.backward(dy, f["dy"], x, taken, gamma, f["gamma"], f["dx"], f["dgamma"], f["dbeta"])
    counts = np.zeros(4, int)
    for c in range(4):
        pairs = list(zip(x[..., c].ravel().tolist(), dy[..., c].ravel().tolist(), [1] * 30, strict=True))
        naive = Naive(Case(pairs, int(gamma[c]), int(beta[c]), 1e-5, bits, fracs))
        dxs, dgamma, dbeta = naive.backward()
        for k, (values, array, name) in enumerate(
            ((naive.forward(), y, "y"), (dxs, found.dx, "dx"), ([dgamma], found.dgamma, "dgamma"), ([dbeta], found.dbeta, "dbeta"))
        ):
            kept, count = saturated(values, f[name])
            assert array[..., c].ravel().tolist() == kept
            counts[k] += count
    assert counts.tolist() == [y_count, found.dx_saturated, found.dgamma_saturated, found.dbeta_saturated]
    narrow: Any = x.astype(np.int8 if bits == 8 else np.int16)
    again = bn.moments(narrow, f["x"], 1e-5)
    assert np.array_equal(bn.normalise(narrow, again, gamma, f["gamma"], beta, f["beta"], f["y"])[0], y)
    strided = np.asfortranarray(narrow)
    assert np.array_equal(bn.normalise(strided, again, gamma, f["gamma"], beta, f["beta"], f["y"])[0], y)


@pytest.mark.parametrize("alone", [1e6, 0.0])
def test_parts_of_a_large_tensor_add_up(monkeypatch, alone):
    """Rows are cut into tasks: as many elements as take several, and a count of rows that they do not divide; with one thread and more."""
    monkeypatch.setattr("accel.kernels.threads.ALONE", alone)
    rng = np.random.default_rng(0)
    x, dy = (rng.integers(-32768, 32768, (3, 61, 67, 24), dtype=np.int16) for _ in range(2))
    f = {name: FixedFormat(16, frac) for name, frac in (USUAL | {"dgamma": 4, "dbeta": 4}).items()}
    gamma, beta = np.full(24, 16384), np.zeros(24, np.int64)
    taken = bn.moments(x, f["x"], 1e-5)
    flat = x.reshape(-1, 24).astype(np.int64)
    assert np.array_equal(taken.total, flat.sum(axis=0))
    assert np.array_equal(taken.squares, (flat**2).sum(axis=0))
    y, count = bn.normalise(x, taken, gamma, f["gamma"], beta, f["beta"], f["y"])
    found = bn.backward(dy, f["dy"], x, taken, gamma, f["gamma"], f["dx"], f["dgamma"], f["dbeta"])
    assert count == found.dx_saturated == found.dgamma_saturated == found.dbeta_saturated == 0
    real = flat * 2.0**-10
    normal = (real - real.mean(axis=0)) / np.sqrt(real.var(axis=0) + 1e-5)
    slope = dy.reshape(-1, 24) * 2.0**-14
    dx = (slope - slope.mean(axis=0) - normal * (slope * normal).mean(axis=0)) / np.sqrt(real.var(axis=0) + 1e-5)
    assert np.abs(y.reshape(-1, 24) - normal * 2.0**12).max() <= 0.5001
    assert np.abs(found.dx.reshape(-1, 24) - dx * 2.0**14).max() <= 0.5001
    assert np.abs(found.dgamma - (slope * normal).sum(axis=0) * 2.0**4).max() <= 0.5001
    assert np.abs(found.dbeta - slope.sum(axis=0) * 2.0**4).max() <= 0.5


@pytest.mark.golden
def test_one_element():
    """A channel of one element is its mean: y is beta, and nothing flows back to x and gamma."""
    f = {name: FixedFormat(16, frac) for name, frac in USUAL.items()}
    x, dy = np.full((1, 1, 1, 3), [-32768, 0, 32767]), np.full((1, 1, 1, 3), [32767, -1, -32768])
    gamma, beta = np.array([-32768, 0, 32767]), np.array([1000, -2000, 32767])
    taken = bn.moments(x, f["x"], 1e-5)
    y, _ = bn.normalise(x, taken, gamma, f["gamma"], beta, f["y"], f["y"])
    assert y.ravel().tolist() == beta.tolist()
    found = bn.backward(dy, f["dy"], x, taken, gamma, f["gamma"], f["dx"], f["dgamma"], f["dbeta"])
    assert not found.dx.any()
    assert not found.dgamma.any()
    assert found.dbeta.tolist() == [512, 0, -512]


@pytest.mark.golden
def test_gain_of_none():
    """With gamma 0, y is beta and dx is 0, while dgamma is not."""
    f = {name: FixedFormat(16, frac) for name, frac in USUAL.items()}
    rng = np.random.default_rng(1)
    x = rng.integers(-9000, 9000, (2, 4, 4, 2))
    taken = bn.moments(x, f["x"], 1e-5)
    none = np.zeros(2, np.int64)
    y, _ = bn.normalise(x, taken, none, f["gamma"], none + 77, f["y"], f["y"])
    assert (y == 77).all()
    found = bn.backward(x, f["dy"], x, taken, none, f["gamma"], f["dx"], f["dgamma"], f["dbeta"])
    assert not found.dx.any()
    assert (found.dgamma > 0).all()


def naive_update(running: list[int], values: list[int], frac: int, momentum: Fraction) -> list[int]:
    n, lo, hi = len(values), -(2**61), 2**61 - 1
    mean = Fraction(sum(values), n)
    variance = sum(((value - mean) ** 2 for value in values), Fraction(0)) / max(n - 1, 1)
    batch = (mean * two(-frac), variance * two(-2 * frac))
    short = [(1 if real >= 0 else -1) * cut(abs(real), 60) for real in batch]
    fixed = [clip(round(real * 2**32), lo + 1, hi) for real in short]
    weight = 2**16 - round(momentum * 2**16)
    return [old + round(Fraction((new - old) * weight, 2**16)) for old, new in zip(running, fixed, strict=True)]


@settings(max_examples=200)
@given(
    st.lists(st.integers(-32768, 32767), min_size=1, max_size=9),
    st.integers(-20, 40),
    st.sampled_from([0.9, 0.99, 0.0, 1.0, 0.123, 0.5]),
    st.tuples(st.integers(-(2**61), 2**61 - 1), st.integers(0, 2**61 - 1)),
)
@example([-32768, 32767], -20, 0.9, (-(2**61), 0))
def test_running_statistics(values, frac, momentum, before):
    x = np.array(values).reshape(1, 1, -1, 1)
    taken = bn.moments(x, FixedFormat(16, frac), 1e-5)
    found = bn.update(np.array(before).reshape(2, 1), taken, momentum)
    assert found.ravel().tolist() == naive_update(list(before), values, frac, Fraction(momentum))


@settings(max_examples=200)
@given(
    st.tuples(st.one_of(st.integers(-(2**44), 2**44), st.integers(-(2**61), 2**61 - 1)), st.integers(0, 2**61 - 1)),
    st.integers(-20, 40),
    st.sampled_from([0.0, 1e-5, 1e-3]),
)
@example((0, 0), 10, 0.0)
def test_inference(kept, frac, epsilon):
    """The running mean is taken to 30 fraction bits of an LSB; all else is as in training."""
    fracs = USUAL | {"x": frac}
    case = Case([(x, 0, 1) for x in (-32768, -1, 0, 1, 32767)], 12345, -999, epsilon, 16, fracs)
    naive = Naive(case)
    mean = clip(round(kept[0] * two(frac + 30 - 32)), -(2**46), 2**46)
    naive.m, naive.mean, naive.n = (mean + 2**29) >> 30, mean * two(-30), 2**30
    naive.rstd = naive.root(cut(kept[1] * two(2 * frac - 32), 60))
    taken = bn.running(np.array(kept).reshape(2, 1), case.format("x"), epsilon)
    assert (taken.whole[0], taken.rest[0], taken.count) == (naive.m, mean - (naive.m << 30), 2**30)
    x = np.array([pair[0] for pair in case.pairs]).reshape(1, 5, 1, 1)
    y, _ = bn.normalise(x, taken, np.array([12345]), case.format("gamma"), np.array([-999]), case.format("beta"), case.format("y"))
    assert y.ravel().tolist() == saturated(naive.forward(), case.format("y"))[0]


def test_statistics_of_a_batch_give_what_the_batch_gives():
    """Running statistics that have become those of a batch normalise it almost alike: n / (n - 1) apart in the variance."""
    f = {name: FixedFormat(16, frac) for name, frac in USUAL.items()}
    x = np.random.default_rng(2).integers(-9000, 9000, (4, 16, 16, 3))
    taken = bn.moments(x, f["x"], 1e-5)
    kept = bn.update(bn.statistics(np.zeros(3), np.ones(3)), taken, 0.0)
    mean, variance = bn.real(kept)
    flat = x.reshape(-1, 3) * 2.0**-10
    assert np.abs(mean - flat.mean(axis=0)).max() <= 2.0**-33
    assert np.abs(variance - flat.var(axis=0, ddof=1)).max() <= 2.0**-33 + 1e-12
    gamma, beta = np.full(3, 16384), np.full(3, 5)
    one, _ = bn.normalise(x, taken, gamma, f["gamma"], beta, f["beta"], f["y"])
    other, _ = bn.normalise(x, bn.running(kept, f["x"], 1e-5), gamma, f["gamma"], beta, f["beta"], f["y"])
    assert np.abs(one.astype(int) - other).max() <= 1 + 7000 / 2048


@pytest.mark.golden
def test_statistics_are_kept_as_they_are():
    mean, variance = np.array([0.25, -3.5, 1e30]), np.array([0.0, 2.0**-33 * 3, 1e30])
    kept = bn.statistics(mean, variance)
    assert kept[:, :2].tolist() == [[1 << 30, -7 << 31], [0, 2]]
    assert (kept[:, 2] == 2**61 - 256).all()
    assert [part[:2].tolist() for part in bn.real(kept)] == [[0.25, -3.5], [0.0, 2.0**-31]]


@pytest.fixture(scope="module")
def recorded():
    with np.load(TORCH) as arrays:
        return dict(arrays)


def test_torch(recorded):
    """Torch's autograd on the same integers, in float64: forward, backward behind a ReLU, and running statistics."""
    x, dy, gamma, beta = (recorded[f"norm_{name}"] for name in ("x", "dy", "gamma", "beta"))
    f = {name: FixedFormat(16, frac) for name, frac in USUAL.items()}
    taken = bn.moments(x, f["x"], 1e-5)
    y, count = bn.normalise(x, taken, gamma, f["gamma"], beta, f["beta"], f["y"])
    assert count == 0
    assert np.abs(y - recorded["norm_y"] * 2.0**12).max() <= 0.5001
    masked = relu_backward(dy, recorded["norm_y"] > 0)
    found = bn.backward(masked, f["dy"], x, taken, gamma, f["gamma"], f["dx"], f["dgamma"], f["dbeta"])
    assert found.dx_saturated == found.dgamma_saturated == found.dbeta_saturated == 0
    for name, most in (("dx", 0.5001), ("dgamma", 0.5001), ("dbeta", 0.5)):
        assert np.abs(getattr(found, name) - recorded[f"norm_{name}"] * 2.0 ** USUAL[name]).max() <= most + 1e-9
    kept = bn.update(bn.statistics(np.zeros(len(gamma)), np.ones(len(gamma))), taken, 0.9)
    for part, name in zip(bn.real(kept), ("norm_mean", "norm_variance"), strict=True):
        assert np.abs(part - recorded[name]).max() <= np.abs(recorded[name]).max() * 2.0**-13  # the momentum has 16 bits


F16 = FixedFormat(16, 10)
X, GAMMA = np.zeros((1, 2, 2, 3), np.int16), np.zeros(3, np.int16)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bn.moments(X[0], F16, 1e-5), r"x must be of shape \(samples, height, width, channels\), each 1 or more, not \(2, 2, 3\)"),
        (lambda: bn.moments(X.astype(float), F16, 1e-5), "x must be signed integers, not float64"),
        (lambda: bn.moments(X, FixedFormat(17), 1e-5), "format of x must be signed, of at most 16 bits, not s17"),
        (lambda: bn.moments(X, FixedFormat(8, signed=False), 1e-5), "format of x must be signed, of at most 16 bits, not u8"),
        (lambda: bn.moments(X + 128, FixedFormat(8), 1e-5), r"x must be in \[-128, 127\], not 128..128"),
        (lambda: bn.moments(X, F16, -1.0), r"epsilon must be 0 or more and finite, not -1.0"),
        (lambda: bn.moments(X, F16, float("nan")), r"epsilon must be 0 or more and finite, not nan"),
        (
            lambda: bn.moments(np.broadcast_to(np.int16(0), (1 << 11, 1 << 10, (1 << 9) + 1, 1)), F16, 1e-5),
            "x must have at most 1073741824 elements in a channel, not 1075838976",
        ),
        (lambda: normalise(gamma=GAMMA[:2]), r"gamma must be of shape \(3,\), not \(2,\)"),
        (lambda: normalise(beta=GAMMA[:2]), r"beta must be of shape \(3,\), not \(2,\)"),
        (lambda: normalise(x=X[..., :2]), r"a channel's row of x must be of shape \(3,\), not \(2,\)"),
        (lambda: normalise(to=FixedFormat(20)), "format of y must be signed, of at most 16 bits, not s20"),
        (lambda: backward(dy=X[:, :1]), r"dy must be of shape \(1, 2, 2, 3\), not \(1, 1, 2, 3\)"),
        (lambda: backward(dx=FixedFormat(20)), "format of dx must be signed, of at most 16 bits, not s20"),
        (
            lambda: bn.update(np.zeros((2, 2), np.int64), bn.moments(X, F16, 0.0), 0.9),
            r"statistics must be of shape \(2, 3\), not \(2, 2\)",
        ),
        (lambda: bn.update(np.zeros((2, 3), np.int64), bn.moments(X, F16, 0.0), 1.5), r"momentum must be in \[0, 1\], not 1.5"),
        (lambda: bn.statistics(np.zeros(1), np.full(1, -1.0)), "variance must be 0 or more and mean a number, not -1.0 and 0.0"),
    ],
)
def test_rejected(call, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        call()


def normalise(x: Any = X, gamma: Any = GAMMA, beta: Any = GAMMA, to: FixedFormat = F16) -> Any:
    return bn.normalise(x, bn.moments(X, F16, 1e-5), gamma, F16, beta, F16, to)


def backward(dy: Any = X, dx: FixedFormat = F16) -> Any:
    return bn.backward(dy, F16, X, bn.moments(X, F16, 1e-5), GAMMA, F16, dx, F16, F16)
