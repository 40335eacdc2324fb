from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from accel import presets
from accel.config import RbfConfig
from accel.errors import RangeError
from accel.golden import rbf_network as golden
from accel.golden.function import function
from accel.golden.rbf_network import rbf_network
from accel.golden.rbf_neuron import rbf_neuron
from accel.sim import tb_rbf_network
from accel.timing import rbf_network as timing

TINY = presets.load("tiny", RbfConfig)
LINEAR = replace(TINY, output="linear")


def naive(config, centres, widths, weights, biases, x):
    """Restate the rule in rational numbers, neuron by neuron."""
    n = len(x)
    phi = [rbf_neuron(config, x, np.tile(c, (n, 1)), np.full(n, w)).tolist() for c, w in zip(centres, widths, strict=True)]
    sums: list[list[int]] = []
    for i in range(n):
        sums.append([])
        for row, bias in zip(weights.tolist(), biases.tolist(), strict=True):
            exact = Fraction(bias, 1 << config.weight_frac)
            exact += sum(Fraction(p[i], 1 << config.phi_bits) * Fraction(w, 1 << config.weight_frac) for p, w in zip(phi, row, strict=True))
            sums[-1].append(min(max(floor(exact * (1 << config.sum_frac) + Fraction(1, 2)), config.sum.lo), config.sum.hi))
    return function(config.sigmoid, np.array(sums)).tolist() if config.output == "sigmoid" else sums


def draw(config, seed, n):
    """Draw centres, widths, weights, biases and samples as the bench does."""
    rng = np.random.default_rng(seed)
    rows = tb_rbf_network.random_rows(config, rng, np.arange(config.neurons + 1))
    x = tb_rbf_network.samples(config, rng, n, rows.centre)
    return rows.centre[:-1], rows.width[:-1], rows.weight[:-1].T, rows.weight[-1], x


@pytest.mark.golden
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
@pytest.mark.parametrize("change", [{}, {"sum_frac": 12}, {"sum_frac": 0, "weight_frac": 10}, {"neurons": 1, "units": 1, "outputs": 1}])
def test_golden_is_exact(output, change):
    """Parameters of any magnitude; shifts of nothing, of less and of more than an activation; ties and saturation."""
    config = replace(TINY, output=output, **change)
    for seed in range(4):
        drawn = draw(config, seed, 40)
        assert rbf_network(config, *drawn).tolist() == naive(config, *drawn)


@pytest.mark.golden
def test_golden_rounds_half_up():
    """Sums a half apart, and on both sides of zero: a sample far from every centre, so that a bias is the sum."""
    config = replace(LINEAR, neurons=1, units=1, outputs=16, sum_frac=TINY.weight_frac - 2)
    biases = np.arange(-8, 8)
    zeros = np.zeros((1, 2), np.int64)
    y = rbf_network(config, zeros, np.array([0]), np.zeros((16, 1), np.int64), biases, zeros)
    assert y[0].tolist() == [-2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


@pytest.mark.golden
@pytest.mark.parametrize("frac", [0, 24])
def test_golden_does_not_wrap(frac):
    """The greatest sum of the widest words in the most neurons, with the greatest and the least rounding behind it."""
    config = RbfConfig(
        neurons=1024, units=1, phi_bits=24, weight_bits=24, weight_frac=24, sum_bits=24, sum_frac=frac, t_bits=8, t_frac=4, error=0.05,
        output="linear",
    )  # fmt: skip
    centres, widths, x = np.zeros((1024, 1), np.int64), np.zeros(1024, np.int64), np.zeros((1, 1), np.int64)
    phi = rbf_neuron(config, x, x, np.zeros(1, np.int64)).item()
    for end in (config.weight.lo, config.weight.hi):
        y = rbf_network(config, centres, widths, np.full((1, 1024), end), np.array([end]), x).item()
        exact = Fraction(end, 1 << 24) * (1024 * Fraction(phi, 1 << 24) + 1)
        assert y == min(max(floor(exact * (1 << frac) + Fraction(1, 2)), config.sum.lo), config.sum.hi)


@pytest.mark.golden
def test_chunks_and_units_do_not_show(monkeypatch):
    drawn = draw(TINY, 0, 50)
    whole = rbf_network(TINY, *drawn)
    monkeypatch.setattr(golden, "CHUNK", 40)
    for config in (TINY, replace(TINY, units=3, stages=0, products="rows")):
        np.testing.assert_array_equal(rbf_network(config, *drawn), whole)
    centres, widths, weights, biases, x = drawn
    assert rbf_network(TINY, centres, widths, weights, biases, x[:0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, np.zeros((2, 2), np.int64), r"^centres must be int64 of shape \(3, 2\), not int64 of shape \(2, 2\)$"),
        (0, np.full((3, 2), 128), r"^centres must be in \[-128, 127\], not 128..128$"),
        (1, np.full(3, 64), r"^widths must be in \[0, 63\], not 64..64$"),
        (1, np.zeros(2, np.int64), r"^widths must be int64 of shape \(3,\), not int64 of shape \(2,\)$"),
        (2, np.zeros((3, 2), np.int64), r"^weights must be int64 of shape \(2, 3\), not int64 of shape \(3, 2\)$"),
        (2, np.full((2, 3), -129), r"^weights must be in \[-128, 127\], not -129..-129$"),
        (3, np.array([0, 128]), r"^biases must be in \[-128, 127\], not 0..128$"),
        (3, np.zeros(3, np.int64), r"^biases must be int64 of shape \(2,\), not int64 of shape \(3,\)$"),
        (4, np.zeros((5, 3), np.int64), r"^x must be int64 of shape \(n, 2\), not int64 of shape \(5, 3\)$"),
        (4, np.zeros((5, 2)), r"^x must be int64 of shape \(n, 2\), not float64 of shape \(5, 2\)$"),
    ],
)
def test_golden_rejects(position, value, message):
    arguments = [np.zeros(shape, np.int64) for shape in ((3, 2), 3, (2, 3), 2, (5, 2))]
    arguments[position] = value
    with pytest.raises(RangeError, match=message):
        rbf_network(TINY, *arguments)


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
@pytest.mark.parametrize("stages", [0, 1, 3])
@pytest.mark.parametrize("units", [1, 2, 3])
def test_closed_form_is_the_recurrence_without_waits(units, stages, output):
    """Interval and latency as derived, samples alone and in a row; a row enters before the first and behind the last of them."""
    config = replace(TINY, neurons=3, units=units, stages=stages, output=output)
    for samples in (1, 4):
        cycles = timing.rbf_network(config, samples)
        offered = np.arange(cycles + 5)
        idle, always = np.zeros_like(offered, bool), np.ones_like(offered, bool)
        valid = offered <= (samples - 1) * config.passes
        params_ready, i_ready, o_valid = timing.rbf_network_trace(config, idle, valid, always)
        assert np.flatnonzero(i_ready & valid).tolist() == [i * config.passes for i in range(samples)]
        assert np.flatnonzero(o_valid).tolist() == [cycles - 1 - i * config.passes for i in reversed(range(samples))]
        if stages or units < 3:
            assert np.flatnonzero(~params_ready).tolist() == list(range(1, cycles))
    assert timing.interval(config) == config.passes
    assert timing.latency(config) == timing.rbf_network(config, 1)


@pytest.mark.parametrize(
    ("units", "stages", "expected"), [(3, 0, 1), (3, 1, 1 + 6 + 1 + 2 + 1 + 1), (1, 0, 3 + 2), (2, 2, 2 + 1 + 7 + 1 + 1 + 1 + 1 + 2)]
)
def test_latency_counts_the_registers(units, stages, expected):
    """The neuron's, products, levels of the sum, the sum of the turns, the rounded sum, the sigmoid; and the later turns."""
    assert timing.latency(replace(TINY, units=units, stages=stages)) == expected


def test_rows_wait_for_samples_and_samples_for_rows():
    """A row offered with the second sample is accepted behind the first one's result; without registers it is held by a shown result."""
    config = replace(TINY, units=3, stages=1)
    latency = timing.latency(config)
    at = np.arange(3 * latency)
    params = (at >= 1) & (at <= latency)
    params_ready, i_ready, o_valid = timing.rbf_network_trace(config, params, at < latency + 2, at >= 0)
    assert np.flatnonzero(params & params_ready).tolist() == [latency]
    assert np.flatnonzero((at < latency + 2) & i_ready).tolist() == [0, latency + 1]
    assert np.flatnonzero(o_valid).tolist() == [latency - 1, 2 * latency]
    bare = timing.rbf_network_trace(
        replace(config, stages=0), np.array([0, 1, 1, 1, 0]) > 0, np.ones(5, bool), np.array([0, 0, 1, 1, 1]) > 0
    )
    assert np.array(bare).astype(int).tolist() == [[1, 0, 0, 1, 1], [0, 0, 1, 0, 1], [1, 1, 1, 0, 1]]


def test_results_follow_the_rows():
    """The bench's expectation is that of the rows accepted before each sample, also from the start again."""
    rng = np.random.default_rng(5)
    loaded = tb_rbf_network.random_rows(LINEAR, rng, np.arange(4))
    later = tb_rbf_network.random_rows(LINEAR, rng, np.array([3, 0]))
    x = tb_rbf_network.samples(LINEAR, rng, 3, loaded.centre)
    results = tb_rbf_network.Results(LINEAR, loaded, later, x)
    plain = tb_rbf_network.Results(LINEAR, loaded, later, x)
    for _ in range(2):
        results.accepted("i", 0)
        results.accepted("params", 0)
        results.accepted("i", 1)
        assert results[0] == plain[0]
        plain.accepted("params", 0)
        assert results[1] == plain[1]
        results.accepted("params", 1)
        plain.accepted("params", 1)
        assert results[2] == plain[2]
        assert len(results) == 3
        results.restart()
        plain.restart()
    assert len({plain[0], results[2]}) == 2
