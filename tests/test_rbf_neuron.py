from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from accel import presets
from accel.config import RbfConfig
from accel.errors import RangeError
from accel.functions.datapath import Builder
from accel.functions.evaluate import idle_bits, varying_bits
from accel.golden import rbf_neuron as golden
from accel.golden.function import function
from accel.golden.rbf_neuron import rbf_neuron
from accel.sim import tb_rbf_neuron
from accel.timing import rbf_neuron as timing

TINY = presets.load("tiny", RbfConfig)
WIDE = RbfConfig(
    dims=1024, x_bits=24, x_frac=5, distance_bits=24, distance_frac=0, width_bits=24, width_frac=10, t_bits=24, t_frac=4, error=0.25
)  # fmt: skip


def naive_exponent(config, x, centre, width):
    """Restate the rule in rational numbers."""
    distance = sum(Fraction(a - c, 1 << config.x_frac) ** 2 for a, c in zip(x, centre, strict=True))
    kept = min(floor(distance * (1 << config.distance_frac)), config.distance.hi)
    t = Fraction(kept, 1 << config.distance_frac) * Fraction(width, 1 << config.width_frac)
    return min(floor(t * (1 << config.t_frac)), config.gaussian.operand.hi)


@pytest.mark.golden
@pytest.mark.parametrize("change", [{}, {"distance_frac": 0}, {"t_frac": 8}, {"dims": 5, "x_frac": 7, "distance_frac": 6}])
def test_golden_is_exact(change):
    """Samples at any distance, widths of any magnitude."""
    config = replace(TINY, **change)
    some = tb_rbf_neuron.samples(config, np.random.default_rng(1), 300)
    t = np.array([naive_exponent(config, *row) for row in zip(*(array.tolist() for array in some.values()), strict=True)])
    np.testing.assert_array_equal(rbf_neuron(config, **some), function(config.gaussian, t))
    assert len(set(t.tolist())) > 10


@pytest.mark.golden
def test_golden_does_not_wrap():
    """The greatest distance in the greatest number of dimensions, and the greatest product behind it."""
    ends = np.array([[WIDE.x.lo, WIDE.x.hi], [WIDE.x.hi, WIDE.x.lo], [0, 2]]).repeat(512, axis=1)
    x, centre, width = ends, ends[:, ::-1], np.array([WIDE.width.hi, 1, WIDE.width.hi])
    t = golden._exponent(WIDE, x, centre, width)
    assert t.tolist() == [naive_exponent(WIDE, *row) for row in zip(x.tolist(), centre.tolist(), width.tolist(), strict=True)]
    assert t[0] == WIDE.gaussian.operand.hi
    assert len(set(t.tolist())) == 3


@pytest.mark.golden
def test_activation_is_even_and_falls_with_the_distance():
    """It is that of the distance alone, and never rises with it."""
    apart = np.arange(256)[:, None]
    zeros = np.zeros_like(apart)
    config = replace(TINY, dims=1)
    for width in (1, 7, config.width.hi):
        widths = np.full(256, width)
        above = rbf_neuron(config, np.minimum(apart - 128, 127), zeros - 128, widths)
        below = rbf_neuron(config, zeros - 128, np.minimum(apart - 128, 127), widths)
        np.testing.assert_array_equal(above, below)
        assert (np.diff(above) <= 0).all()


@pytest.mark.golden
def test_chunks_do_not_show(monkeypatch):
    some = tb_rbf_neuron.samples(TINY, np.random.default_rng(2), 50)
    whole = rbf_neuron(TINY, **some)
    monkeypatch.setattr(golden, "CHUNK", 7)
    np.testing.assert_array_equal(rbf_neuron(TINY, **some), whole)
    assert rbf_neuron(TINY, **{name: array[:0] for name, array in some.items()}).shape == (0,)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x", np.full((3, 2), 128), r"^x must be in \[-128, 127\], not 128..128$"),
        ("x", np.zeros((3, 1), np.int64), r"^x must be int64 of shape \(n, 2\), not int64 of shape \(3, 1\)$"),
        ("x", np.zeros((3, 2)), r"^x must be int64 of shape \(n, 2\), not float64 of shape \(3, 2\)$"),
        ("centre", np.zeros((2, 2), np.int64), r"^centre must be int64 of shape \(3, 2\), not int64 of shape \(2, 2\)$"),
        ("centre", np.full((3, 2), -129), r"^centre must be in \[-128, 127\], not -129..-129$"),
        ("width", np.array([-1, 0, 1]), r"^width must be in \[0, 63\], not -1..1$"),
        ("width", np.zeros((3, 1), np.int64), r"^width must be int64 of shape \(3,\), not int64 of shape \(3, 1\)$"),
    ],
)
def test_golden_rejects(name, value, message):
    arrays = {"x": np.zeros((3, 2), np.int64), "centre": np.zeros((3, 2), np.int64), "width": np.zeros(3, np.int64)}
    with pytest.raises(RangeError, match=message):
        rbf_neuron(TINY, **(arrays | {name: value}))


@pytest.mark.parametrize("bits", [3, 14])
def test_what_hardware_leaves_out_of_a_gaussian(bits):
    """Operand bits that do not matter once all above them are ones, and result bits that never change."""
    build = Builder()
    t = build.input(bits)
    falling = build.subtract(build.constant(7), build.bits(t, bits - 2, 2))
    path = build.done(build.select(build.below(t, 1 << bits - 1), build.scaled(falling, 3), build.constant(40)))
    assert idle_bits(path) == bits - 1
    assert varying_bits(path) == [3, 4]


@pytest.mark.parametrize("stages", [0, 1, 3])
@pytest.mark.parametrize("dims", [1, 2, 5])
def test_closed_form_is_the_recurrence_without_waits(stages, dims):
    """Interval and latency as derived, samples alone and in a row."""
    config = replace(TINY, stages=stages, dims=dims)
    for samples in (1, 4):
        cycles = timing.rbf_neuron(config, samples)
        offered = np.arange(cycles + 5)
        i_ready, o_valid = timing.rbf_neuron_trace(config, offered < samples, np.ones_like(offered, bool))
        assert i_ready.all()
        assert np.flatnonzero(o_valid).tolist() == [cycles - samples + i for i in range(samples)]
    assert timing.latency(config) == timing.rbf_neuron(config, 1) == (1 if not stages else 5 + stages + {1: 0, 2: 1, 5: 3}[dims])
    assert timing.interval(config) == 1


def test_program_has_as_many_samples_as_wanted(tmp_path):
    """Cases are those of the archive, and differ."""
    program = tmp_path / "program.npz"
    cases = [tb_rbf_neuron.program_case(TINY, program, index) for index in range(tb_rbf_neuron.write_program(TINY, program, 5000))]
    assert [len(case.outputs["o"]) for case in cases] == [tb_rbf_neuron.SPAN] * 2
    assert cases[0].inputs != cases[1].inputs
