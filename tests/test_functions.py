from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accel.config import FUNCTIONS, FunctionConfig
from accel.errors import ConfigError
from accel.functions.cost import luts, stages
from accel.functions.datapath import Builder
from accel.functions.generate import design, front, measure
from accel.functions.truth import truth
from accel.golden.function import function

REALS = {
    "exp2": lambda z: mpmath.power(2, -z),
    "exp": lambda z: mpmath.exp(-z),
    "gaussian": lambda z: mpmath.exp(-z * z / 2),
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
}


ODD = ("tanh", "erf")


def real(config, x):
    """Return the function of an operand, to 30 digits."""
    with mpmath.workdps(30):
        return REALS[config.function](mpmath.mpf(config.scale) * x / 2**config.in_frac)


def unit(of, **fields):
    """Make a configuration of 16 bits whose result holds the function."""
    return FunctionConfig(**{"function": of, "out_frac": 15 if of in ODD else 16} | fields)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_truth_is_true(name):
    """Every 16-bit operand, against arithmetic of 30 digits."""
    config = unit(name, scale=0.7)
    x = np.arange(config.operand.lo, config.operand.hi + 1)
    difference = [abs(real(config, int(one)) - value) for one, value in zip(x, truth(config, x).tolist(), strict=True)]
    assert max(difference) < 2.0**-50


def check(config):
    """Recompute what a design says of itself, naively; every operand."""
    found = design(config)
    x = list(range(config.operand.lo, config.operand.hi + 1))
    y = function(config, np.array(x)).tolist()
    errors = [abs(value / 2**config.out_frac - float(real(config, one))) for one, value in zip(x, y, strict=True)]
    assert max(errors) == pytest.approx(found.max_error, abs=1e-12)
    assert sum(errors) / len(errors) == pytest.approx(found.mean_error, abs=1e-12)
    assert found.max_error <= config.error
    assert config.result.lo <= min(y) <= max(y) <= min(config.result.hi, 1 << config.out_frac)
    match config.function:
        case "sigmoid" | "tanh" | "erf":
            assert y == sorted(y)
        case "exp" | "exp2":
            assert y == sorted(y, reverse=True)
        case "gaussian":
            least = 1 << config.out_frac
            for magnitude in range(1 << config.in_bits - 1):
                values = [y[one - config.operand.lo] for one in {-magnitude, magnitude}]
                assert max(values) <= least
                least = min(values)
    last = max([abs(one) for one, value in zip(x, y, strict=True) if value], default=-1)
    if config.function in ("exp", "exp2", "gaussian"):
        assert found.zero_from == (last + 1 if last < max(x[-1], -x[0]) else None)
    else:
        assert found.zero_from is None


@pytest.mark.parametrize("method", ["auto", "base2", "table", "linear"])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("error", [0.02, 0.005])
def test_every_method(name, method, error):
    """The figures of a design are true, and it is one of the method wanted."""
    config = unit(name, in_bits=12, in_frac=8, out_bits=12, out_frac=11, error=error, method=method)
    if method == "base2" and name in ("sigmoid", *ODD):
        with pytest.raises(ConfigError, match=f"^method must be one of auto, linear, table, searched for {name}, not 'base2'$"):
            design(config)
        return
    check(config)
    assert method in ("auto", design(config).method)


@st.composite
def configs(draw):
    """Draw formats and targets of small operands; the targets at, above and below what the result's LSB allows."""
    name = draw(st.sampled_from(FUNCTIONS))
    out_bits = draw(st.integers(8, 24))
    out_frac = min(24, max(1, out_bits - (name in ODD) + draw(st.sampled_from([0, 0, 0, 1, -1, -3]))))
    return FunctionConfig(
        function=name,
        scale=draw(st.sampled_from([1.0, 1.0, 0.3, 5.0, 2.0**-24, 2.0**24])),
        in_bits=draw(st.integers(8, 10)),
        in_frac=draw(st.integers(0, 24)),
        out_bits=out_bits,
        out_frac=out_frac,
        error=min(0.25, draw(st.sampled_from([0.05, 0.01, 0.002])) + draw(st.sampled_from([0.4, 0.51, 1.01, 2.0])) * 2.0**-out_frac),
        luts=draw(st.sampled_from([4, 6])),
        method=draw(st.sampled_from(["auto", "table"])),
    )


@settings(max_examples=60)
@given(configs())
@example(FunctionConfig(in_bits=8, in_frac=24, out_bits=24, out_frac=24, error=1e-6))  # operands below 2^-16
@example(FunctionConfig(function="tanh", in_bits=8, in_frac=24, out_bits=24, out_frac=23, error=1e-6))
@example(FunctionConfig(function="sigmoid", in_bits=8, in_frac=4, out_bits=24, out_frac=24, error=1e-7))  # far more bits out than in
@example(FunctionConfig(function="exp", in_bits=10, in_frac=5, out_bits=10, out_frac=9, error=0.5 * 2.0**-9))  # every result rounded right
@example(FunctionConfig(function="gaussian", in_bits=8, in_frac=0, out_bits=8, out_frac=8, error=0.004))  # one holds not 1
@example(
    FunctionConfig(function="sigmoid", in_bits=8, in_frac=6, scale=2.0**-8, out_bits=8, out_frac=9, error=0.01)
)  # saturates at 255 / 512
@example(
    FunctionConfig(function="tanh", in_bits=8, in_frac=6, scale=2.0**-3, out_bits=8, out_frac=9, error=0.01)
)  # at 127 / 512 and -128 / 512
@example(FunctionConfig(function="tanh", in_bits=8, in_frac=0, scale=2.0**24, out_bits=8, out_frac=4, error=0.027))  # -1, 0, 1: no error
@example(FunctionConfig(function="exp2", in_bits=8, in_frac=0, out_bits=8, out_frac=7, error=0.002))  # operands are integers
def test_every_format(config):
    """A design is what it says; a target that cannot be kept is refused with one that can."""
    try:
        design(config)
    except ConfigError as refused:
        if re.fullmatch(rf"out_bits must be at least \d+ for results up to 1, not {config.out_bits}", str(refused)):
            return
        told = re.fullmatch(rf"error must be at least (\S+), not {config.error}", str(refused))
        assert told is not None
        least = float(told[1])
        assert least > config.error
        config = dataclasses.replace(config, error=least)
    check(config)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sixteen_bits(name):
    """The figures over all 16-bit operands."""
    for error in (0.005, 0.0004):
        config = unit(name, error=error)
        found = design(config)
        x = np.arange(config.operand.lo, config.operand.hi + 1)
        errors = np.abs(function(config, x) / 2**config.out_frac - truth(config, x))
        assert errors.max() == found.max_error <= error
        assert errors.mean() == pytest.approx(found.mean_error)


@pytest.mark.parametrize(("name", "error"), [("exp2", 1e-4), ("exp2", 1.5e-7), ("gaussian", 1.5e-7), ("tanh", 1e-6)])
def test_twentyfour_bits(name, error):
    """Operands beyond those that can be tried at once."""
    config = FunctionConfig(function=name, in_bits=24, in_frac=20, out_bits=24, out_frac=23 if name in ODD else 24, error=error)
    x = np.sort(np.random.default_rng(0).integers(config.operand.lo, config.operand.hi, 1 << 20, endpoint=True))
    y = function(config, x)
    assert np.abs(y / 2**config.out_frac - truth(config, x)).max() <= design(config).max_error <= error
    right = y[x >= 0]
    assert (np.diff(right) >= 0).all() or (np.diff(right) <= 0).all()


def test_refuses_an_error_that_cannot_be_kept():
    with pytest.raises(ConfigError, match=r"^error must be at least 0\.00393\d*, not 0\.001$"):
        design(FunctionConfig(out_bits=8, out_frac=8, error=0.001))


@pytest.mark.parametrize(
    ("config", "least"),
    [
        (FunctionConfig(function="exp", out_bits=8, out_frac=9, error=0.1), 9),
        (FunctionConfig(function="sigmoid", out_bits=8, out_frac=10, error=0.2), 10),
        (FunctionConfig(function="tanh", out_bits=8, out_frac=10, error=0.2), 11),
    ],
)
def test_refuses_results_that_do_not_fit(config, least):
    with pytest.raises(ConfigError, match=rf"^out_bits must be at least {least} for results up to 1, not 8$"):
        design(config)


@pytest.mark.parametrize("function", ["exp2", "exp", "sigmoid"])
def test_looser_targets_cost_no_more(function):
    """What a finer target may cost, a loose one does."""
    costs = [design(FunctionConfig(function=function, error=error)).cost for error in (0.25, 0.05, 0.02, 0.005)]
    assert costs == sorted(costs)


@pytest.mark.parametrize(("function", "out_frac", "error"), [("exp2", 16, 0.25), ("tanh", 15, 0.12)])
def test_coarse_targets_are_kept(function, out_frac, error):
    """A target that no coarse piece keeps is kept by finer ones."""
    assert design(FunctionConfig(function=function, scale=0.5, out_frac=out_frac, error=error)).max_error <= error


def test_refuses_a_method_without_a_datapath():
    config = FunctionConfig(function="exp", method="searched", error=0.25, in_bits=21, in_frac=20, out_bits=24, out_frac=24)
    with pytest.raises(ConfigError, match=r"^method must be one that finds a datapath for these formats, not 'searched'$"):
        design(config)


def wires(config, write):
    """Make a datapath of one operation behind the operand."""
    build = Builder()
    return build.done(write(build, build.input(config.in_bits, config.operand.signed)))


@pytest.mark.parametrize(
    "write",
    [
        lambda build, x: build.constant(64),  # error
        lambda build, x: build.table(x, tuple(round(255.0 * 2 ** (-k / 64)) + 3 * (k == 77) for k in range(256))),  # rises
        lambda build, x: build.table(x, tuple(round(2**8 * 2 ** (-k / 64)) + (k == 0) for k in range(256))),  # more than 1
    ],
)
def test_rules_are_measured(write):
    config = FunctionConfig(in_bits=8, in_frac=6, out_bits=9, out_frac=8, error=0.02)
    right = wires(config, lambda build, x: build.table(x, tuple(round(255 * 2 ** (-k / 64)) for k in range(256))))
    assert measure(config, right)
    assert measure(config, wires(config, write)) is None


def test_gaussian_falls_with_the_magnitude():
    """A result of -k that is greater than that of k - 1, or less than that of k + 1, is found though each side falls."""
    config = FunctionConfig(function="gaussian", in_bits=8, in_frac=6, out_bits=9, out_frac=8, error=0.1)
    values = [round(250 * float(real(config, k))) for k in range(256)]

    def sides(shift):
        rows = [values[k] if k < 128 else values[max(0, 256 - k + shift)] for k in range(256)]
        return wires(config, lambda build, x: build.table(build.bits(x, 0, 8), tuple(rows)))

    assert measure(config, sides(0))
    assert measure(config, sides(-1))  # inverted instead of negated
    assert measure(config, sides(-3)) is None
    assert measure(config, sides(3)) is None


def test_front_is_not_undercut():
    errors = (0.05, 0.02, 0.01, 0.005, 0.002, 1e-6)
    found = front(unit("exp2"), errors)
    assert 3 <= len(found) < len(errors)
    assert all(a.cost < b.cost and a.max_error > b.max_error for a, b in pairwise(found))
    for error in errors[:-1]:
        assert any(one.max_error <= error and one.cost <= design(unit("exp2", error=error)).cost for one in found)


def test_design_is_shared_and_blind_to_names():
    a, b = unit("exp2", name="a", stages=3), unit("exp2", name="b")
    assert design(a) is design(b)


def test_cost_of_wires_is_none():
    build = Builder()
    x = build.input(8)
    path = build.done(build.join((build.bits(x, 2, 3), 4), (build.scaled(x, 2), 10)))
    assert luts(path, 4) == luts(path, 6) == 0


@pytest.mark.parametrize("ranks", [0, 1, 2, 3, 8])
def test_ranks_balance(ranks):
    """Nodes stand behind their arguments; more ranks never make the longest way longer, and enough of them leave one node each."""
    path = design(unit("exp2", error=0.0004)).datapath
    place = stages(path, ranks)
    assert all(place[argument] <= place[position] for position, node in enumerate(path.nodes) for argument in node.arguments)
    assert 0 <= min(place) <= max(place) <= max(0, ranks - 1)
