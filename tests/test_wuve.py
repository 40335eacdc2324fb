from __future__ import annotations

import math
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.lfsr import draws, lfsr
from accel.golden.wuve import MASTER, ROUNDINGS, Tensor, Updated, update, wuve
from accel.isa import Update
from accel.lfsr import WORD_MASK, leap, seeds
from accel.rtl import shapes
from accel.schedule.strips import strips
from accel.sim import harness
from accel.sim.pack import unpack
from accel.sim.tb_wuve import random_case, random_job, random_masters
from accel.sim.updates import Recorded, read_update, write_updates
from accel.timing import wuve as timing
from accel.training.update import operands

CONFIG = AcceleratorConfig()
WIDE = AcceleratorConfig(cols=3, act_bits=32, weight_bits=30, acc_bits=48, mult_bits=15)
NARROW = AcceleratorConfig(cols=5, act_bits=2, weight_bits=2)
JOB = Update(beats=2, lanes=4, rate=1, rate_shift=0, working_shift=24)


def saturate(value, lo, hi):
    return min(max(value, lo), hi), not lo <= value <= hi


def naive_element(config, job, g, v, w, kept, word):
    """Restate the rule in rational numbers; `round` of a fraction is half to even."""
    d = round(Fraction((job.decay if kept else job.pruned_decay) * w, 1 << job.decay_shift))
    v, v_flag = saturate(round(Fraction(job.momentum * v, 1 << 16)) + g * 2**job.gradient_shift + d, -(2**31), 2**31 - 1)
    w, w_flag = saturate(w - round(Fraction(job.rate * v, 1 << job.rate_shift)), -(2**31), 2**31 - 1)
    x = Fraction(w, 1 << job.working_shift)
    rounded = round(x) if job.rounding == "half_even" else math.floor(x + Fraction(word, 1 << 32))
    working, flag = saturate(rounded, config.weight.lo, config.weight.hi)
    return v, w, working, v_flag, w_flag, flag


def naive(config, words, job, gradient, velocity, master, kept):
    """Restate the engine beat by beat, lane by lane."""
    words, results = list(words), []
    for beat in range(job.beats):
        row = []
        for lane in range(gradient.shape[1]):
            g, v, w, mask = (int(array[beat, lane]) for array in (gradient, velocity, master, kept))
            row.append(naive_element(config, job, g, v, w, mask, words[lane]))
            if job.rounding == "stochastic" and lane < job.lanes:
                words[lane] = leap(words[lane])
        results.append(row)
    return words, results


def draw(config, rng, job, lanes):
    """Draw operands, half of them extreme or near a tie."""
    shape = job.beats, lanes
    gradient = rng.integers(config.act.lo, config.act.hi, shape, endpoint=True)
    gradient = np.where(rng.random(shape) < 0.3, rng.choice([config.act.lo, 0, config.act.hi], shape), gradient)
    velocity, master = (random_masters(rng, shape, point, config.weight) for point in (0, job.working_shift))
    return gradient, velocity, master, rng.random(shape) < 0.5


def stacked(updated):
    return np.stack([array.astype(np.int64) for array in updated], axis=-1).tolist()


@pytest.mark.golden
@pytest.mark.parametrize("config", [CONFIG, WIDE, NARROW], ids=["int8", "wide", "narrow"])
def test_golden_is_exact(config):
    """Results, flags and words of random jobs, with as many lanes as the job has, or all."""
    rng = np.random.default_rng(1)
    for _ in range(60):
        job = random_job(config, rng, 16)
        state = np.where(rng.random(config.cols) < 0.5, 1, seeds(0, "w", config.cols))
        arrays = draw(config, rng, job, int(rng.integers(job.lanes, config.cols, endpoint=True)))
        after, updated = wuve(config, state, job, *arrays)
        words, results = naive(config, state.tolist(), job, *arrays)
        assert stacked(updated) == [[list(element) for element in row] for row in results]
        assert after is not None
        assert after.tolist() == words


INT32 = st.integers(-(2**31), 2**31 - 1)
COEFFICIENT = st.integers(0, 2**16 - 1)
SHIFT = st.integers(0, 63)
JOBS = st.builds(
    Update, beats=st.just(1), lanes=st.just(1), momentum=COEFFICIENT, gradient_shift=st.integers(0, 31), decay=COEFFICIENT,
    pruned_decay=COEFFICIENT, decay_shift=SHIFT, rate=COEFFICIENT, rate_shift=SHIFT, working_shift=SHIFT,
    rounding=st.sampled_from(ROUNDINGS),
)  # fmt: skip


@given(JOBS, INT32, INT32, INT32, st.booleans(), st.integers(1, WORD_MASK))
@example(replace(JOB, gradient_shift=31, decay=2**16 - 1, momentum=2**16 - 1), -(2**31), -(2**31), -(2**31), True, 1)  # the greatest sums
@example(replace(JOB, gradient_shift=31, decay=2**16 - 1, momentum=2**16 - 1), 2**31 - 1, 2**31 - 1, 2**31 - 1, True, 1)
@example(replace(JOB, rate=2**16 - 1, decay=1), 0, 0, -(2**31), True, 1)  # the greatest step
@example(replace(JOB, rounding="stochastic", working_shift=63), 0, 0, -1, True, 1)  # a word's last bit decides
def test_golden_is_exact_everywhere(job, g, v, w, kept, word):
    job, config = replace(job, beats=1, lanes=1), replace(WIDE, cols=1)
    gradient, velocity, master, mask = (np.array([[x]]) for x in (g, v, w, kept))
    _, updated = wuve(config, np.array([word]), job, gradient, velocity, master, mask)
    assert stacked(updated) == [[list(naive_element(config, job, g, v, w, kept, word))]]


@pytest.mark.golden
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_golden_rounds_every_small_value(rounding):
    """Each tie and each sign, in the working copy and in every product."""
    small = np.arange(-256, 256)[:, None]
    zero, kept, config = np.zeros_like(small), np.ones_like(small, np.bool_), replace(CONFIG, cols=1)
    for shift in range(8):
        job = replace(JOB, beats=512, lanes=1, rate=0, working_shift=shift, rounding=rounding)
        pulled = replace(job, decay=1, decay_shift=shift, working_shift=0)
        stepped = replace(pulled, decay_shift=0, rate=3, rate_shift=shift)
        carried = replace(job, momentum=1 << 16 - shift if shift else 0)
        for some, v, w in ((job, zero, small), (pulled, zero, small), (stepped, zero, small), (carried, small, zero)):
            state = np.array([1 << 31])
            _, updated = wuve(config, state, some, zero, v, w, kept)
            assert stacked(updated) == [[list(row[0])] for row in naive(config, state.tolist(), some, zero, v, w, kept)[1]]


@pytest.mark.golden
def test_words_are_those_of_the_generator():
    """Element by element in the order of the strips, zeros included; a job that rounds half to even draws none, nor do idle lanes."""
    rng, config, state = np.random.default_rng(2), replace(CONFIG, cols=5), seeds(3, "w", 5)
    take = np.zeros((0, 5), np.bool_)
    shown = []
    now: Any = state
    for beats, lanes, rounding in ((3, 5, "stochastic"), (4, 2, "half_even"), (2, 3, "stochastic")):
        job = replace(JOB, beats=beats, lanes=lanes, rounding=rounding, rate=0, working_shift=32)
        zeros = np.zeros((beats, 5), np.int64)
        w = np.where(rng.random(zeros.shape) < 0.3, 0, rng.integers(MASTER.lo, MASTER.hi, zeros.shape))
        now, updated = wuve(config, now, job, zeros, zeros, w, zeros > 0)
        if rounding == "stochastic":
            take = np.concatenate([take, np.broadcast_to(np.arange(5) < lanes, zeros.shape)])
            shown.append((w, updated.working))
    after, words = lfsr(state, take)
    assert now.tolist() == after.tolist()
    w, working = (np.concatenate(arrays) for arrays in zip(*shown, strict=True))
    assert working.tolist() == (w + words >> 32).tolist()
    whole = draws(state, 15)  # the first job has all lanes
    assert (w[:3] + whole[1].reshape(3, 5) >> 32).tolist() == working[:3].tolist()


@pytest.mark.golden
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64])
@pytest.mark.parametrize("masked", [False, True])
def test_whole_tensor_equals_its_jobs(rounding, kind, masked):
    """Weights brought into strips, the last one narrower: words go on from strip to strip."""
    rng, config = np.random.default_rng(4), replace(CONFIG, cols=3)
    shape = (7, 2, 3, 4)  # filters, taps, input channels
    order = strips(shape, config.cols)
    job = replace(random_job(config, rng, 16), momentum=60000, rate=500, rate_shift=18, working_shift=22, rounding=rounding)
    gradient = rng.integers(-128, 127, shape, endpoint=True)
    velocity, master = (random_masters(rng, (7, 24), 22, config.weight).reshape(shape) for _ in range(2))
    kept = rng.random(shape) < 0.5 if masked else np.ones(shape, np.bool_)
    beats = [order.split(array) for array in (gradient, velocity, master, kept)]
    state = seeds(0, "w", 3)
    now: Any = state
    start, results, whole = 0, list[Updated](), list[Tensor]()
    for _, lanes in order.spans:
        some = np.s_[start : start + order.taps * order.channels]
        now, updated = wuve(config, now, replace(job, beats=24, lanes=lanes), *(array[some] for array in beats))
        results.append(updated)
        mask = beats[3][some][:, :lanes] if masked else None
        before = whole[-1].state if whole else state
        g, v, w = (array[some][:, :lanes] for array in beats[:3])
        whole.append(update(config, job, g.astype(kind), v, w, mask, before))
        for name in ("velocity", "master", "working"):
            assert getattr(whole[-1], name).tolist() == getattr(updated, name)[:, :lanes].tolist()
        flags = updated.velocity_saturated, updated.master_saturated, updated.working_saturated
        assert whole[-1].saturated == tuple(int(flag[:, :lanes].sum()) for flag in flags)
        start += 24
    assert whole[-1].state is not None
    assert whole[-1].state.tolist() == now.tolist()
    if rounding == "half_even":
        at_once = update(config, job, gradient.astype(kind), velocity, master, kept if masked else None)
        for name in ("velocity", "master", "working"):
            joined = order.join(np.concatenate([getattr(updated, name) for updated in results]))
            assert getattr(at_once, name).tolist() == joined.tolist()
        assert at_once.saturated == tuple(np.sum([part.saturated for part in whole], axis=0))
        assert at_once.state is None


def test_arguments_are_not_changed():
    rng = np.random.default_rng(5)
    job = replace(JOB, momentum=1000, rounding="stochastic")
    arrays = gradient, velocity, master, kept = draw(CONFIG, rng, job, 4)
    copies, state = [array.copy() for array in arrays], seeds(0, "w", 4)
    wuve(CONFIG, state, job, gradient, velocity, master, kept)
    update(CONFIG, job, gradient, velocity, master, kept, state)
    assert [array.tolist() for array in arrays] == [copy.tolist() for copy in copies]
    assert state.tolist() == seeds(0, "w", 4).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beats": 0}, r"^beats must be an int in \[1, 16777215\], not 0$"),
        ({"lanes": 5}, r"^lanes must be an int in \[1, 4\], not 5$"),
        ({"momentum": 1 << 16}, r"^momentum must be an int in \[0, 65535\], not 65536$"),
        ({"gradient_shift": 32}, r"^gradient_shift must be an int in \[0, 31\], not 32$"),
        ({"decay": -1}, r"^decay must be an int in \[0, 65535\], not -1$"),
        ({"pruned_decay": 1.0}, r"^pruned_decay must be an int in \[0, 65535\], not 1.0$"),
        ({"decay_shift": 64}, r"^decay_shift must be an int in \[0, 63\], not 64$"),
        ({"rate": 1 << 16}, r"^rate must be an int in \[0, 65535\], not 65536$"),
        ({"rate_shift": -1}, r"^rate_shift must be an int in \[0, 63\], not -1$"),
        ({"working_shift": 64}, r"^working_shift must be an int in \[0, 63\], not 64$"),
        ({"rounding": "floor"}, r"^rounding must be one of half_even, stochastic, not 'floor'$"),
        ({"rounding": "stochastic"}, r"^state must be given where rounding is stochastic, not None$"),
        ({"beats": 3}, r"^gradient must be int64 of shape \(3, lanes\), not int64 of shape \(2, 4\)$"),
    ],
)
def test_golden_rejects_job(change, message):
    zeros = np.zeros((2, 4), np.int64)
    with pytest.raises(RangeError, match=message):
        wuve(CONFIG, None, replace(JOB, **change), zeros, zeros, zeros, zeros > 0)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("gradient", np.full((2, 4), 128), r"^gradient must be in \[-128, 127\], not 128..128$"),
        ("gradient", np.zeros((2, 3), np.int64), r"^gradient must have 4 to 4 lanes, not 3$"),
        ("velocity", np.full((2, 4), 1 << 31), r"^velocity must be in \[-2147483648, 2147483647\], not 2147483648..2147483648$"),
        ("master", np.zeros((2, 3), np.int64), r"^master must be int64 of shape \(2, 4\), not int64 of shape \(2, 3\)$"),
        ("kept", np.zeros((2, 4), np.int64), r"^kept must be bool of shape \(2, 4\), not int64 of shape \(2, 4\)$"),
        ("state", np.zeros(4, np.int64), r"^state must be in \[1, 4294967295\], not 0..0$"),
        ("state", np.ones(3, np.int64), r"^state must be int64 of shape \(4,\), not int64 of shape \(3,\)$"),
    ],
)
def test_golden_rejects_array(name, array, message):
    zeros = np.zeros((2, 4), np.int64)
    given: dict[str, Any] = {"gradient": zeros, "velocity": zeros, "master": zeros, "kept": zeros > 0, "state": None} | {name: array}
    with pytest.raises(RangeError, match=message):
        wuve(CONFIG, given.pop("state"), JOB, **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient": np.zeros(4)}, r"^gradient must be of signed integers, not float64$"),
        ({"gradient": np.full(4, -129, np.int16)}, r"^gradient must be in \[-128, 127\], not -129..-129$"),
        ({"velocity": np.zeros(3, np.int64)}, r"^velocity must be int64 of shape \(4,\), not int64 of shape \(3,\)$"),
        ({"master": np.full(4, -(1 << 31) - 1)}, r"^master must be in \[-2147483648, 2147483647\], not -2147483649..-2147483649$"),
        ({"kept": np.ones(4, np.int64)}, r"^kept must be bool of shape \(4,\), not int64 of shape \(4,\)$"),
        ({"rate": 1 << 16}, r"^rate must be an int in \[0, 65535\], not 65536$"),
        (
            {"rounding": "stochastic"},
            r"^gradient must be of shape \(beats, at most 4 lanes\) where words are drawn, not \(4,\)$",
        ),
    ],
)
def test_whole_tensor_rejects(change, message):
    zeros = np.zeros(4, np.int64)
    job = replace(JOB, **{name: value for name, value in change.items() if name in {field.name for field in fields(Update)}})
    given: dict[str, Any] = {"gradient": zeros, "velocity": zeros, "master": zeros, "kept": None, "state": seeds(0, "w", 4)}
    given |= {name: value for name, value in change.items() if name in given}
    with pytest.raises(RangeError, match=message):
        update(CONFIG, job, **given)


NUMBERS: dict[str, Any] = {"rate": 0.05, "momentum": 0.9, "decay": 5e-4, "pruned_decay": 2e-4, "batch": 32}
FORMATS: dict[str, Any] = {"f_gradient": 12, "f_velocity": 22, "f_master": 30, "f_working": 15}


@given(
    st.floats(1e-7, 4), st.floats(0, 1 - 2**-16), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(1, 512), st.integers(0, 31),
    st.integers(-4, 10), st.integers(0, 24),
)  # fmt: skip
def test_operands_are_nearest(rate, momentum, decay, pruned_decay, batch, gradient_shift, above, working_shift):
    """Within the stated error of the real factors, which have their widest coefficient."""
    frac = {"f_gradient": 20 - gradient_shift, "f_velocity": 20, "f_master": 20 + above, "f_working": 20 + above - working_shift}
    job = operands(rate=rate, momentum=momentum, decay=decay, pruned_decay=pruned_decay, batch=batch, **frac)
    assert abs(Fraction(job.momentum, 1 << 16) - Fraction(momentum)) <= Fraction(1, 1 << 17)
    assert (job.gradient_shift, job.working_shift) == (gradient_shift, working_shift)
    tiny = Fraction(1, 1 << 64)
    pull = batch * Fraction(2) ** -above
    factor = Fraction(rate) / pull
    assert abs(Fraction(job.rate, 1 << job.rate_shift) - factor) <= max(factor / (1 << 16), tiny)
    both = Fraction(decay + pruned_decay) * pull
    for coefficient, exact in ((job.decay, Fraction(decay) * pull), (job.pruned_decay, both)):
        assert abs(Fraction(coefficient, 1 << job.decay_shift) - exact) <= max(both / (1 << 16), tiny)
    assert all(0 <= getattr(job, name) < 1 << 16 for name in ("momentum", "decay", "pruned_decay", "rate"))


def test_operands_of_nothing():
    job = operands(**NUMBERS | {"rate": 0, "momentum": 0, "decay": 0, "pruned_decay": 0}, **FORMATS)
    assert (job.rate, job.momentum, job.decay, job.pruned_decay) == (0, 0, 0, 0)
    job = operands(**NUMBERS | {"pruned_decay": 0}, **FORMATS, rounding="stochastic")
    assert (job.decay, job.rounding) == (job.pruned_decay, "stochastic")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": -1}, r"^rate must be a number of at least 0, not -1$"),
        ({"decay": math.inf}, r"^decay must be a number of at least 0, not inf$"),
        ({"pruned_decay": math.nan}, r"^pruned_decay must be a number of at least 0, not nan$"),
        ({"momentum": 1.0}, r"^momentum must be a number in \[0, 0.9999847412109375\], not 1.0$"),
        ({"batch": 0}, r"^batch must be an int of at least 1, not 0$"),
        ({"f_velocity": 11}, r"^f_velocity must be in \[12, 43\], not 11$"),
        ({"f_working": 31}, r"^f_master must be in \[31, 94\], not 30$"),
        ({"rate": 1e4}, r"^rate must be below 8191.94 in these formats, not 10000.0$"),
        ({"decay": 1e6, "pruned_decay": 0}, r"^decay \+ pruned_decay must be below 524284 in these formats, not 1000000.0$"),
    ],
)
def test_operands_reject(change, message):
    with pytest.raises(RangeError, match=message):
        operands(**{**NUMBERS, **FORMATS} | change)


def test_follows_float_sgd():
    """Twenty steps of torch's SGD (v = momentum v + g + decay w, w = w - rate v), within the errors of factors and roundings."""
    rng, config = np.random.default_rng(6), replace(CONFIG, act_bits=16, weight_bits=16, acc_bits=40, mult_bits=15)
    job = operands(**NUMBERS, **FORMATS)
    rate, momentum, batch = NUMBERS["rate"], NUMBERS["momentum"], NUMBERS["batch"]
    kept = rng.random(2000) < 0.25
    decay = np.where(kept, 5e-4, 7e-4)
    w, v = np.rint(rng.normal(0, 0.05, 2000) * 2.0**30).astype(np.int64), np.zeros(2000, np.int64)
    real_w, real_v = w / 2.0**30, np.zeros(2000)
    error_w, error_v = np.zeros(2000), np.zeros(2000)
    for _ in range(20):
        g = np.clip(np.rint(rng.normal(0, 0.5, 2000) * 2.0**12), -(2**15), 2**15 - 1).astype(np.int64)
        # Errors of the state that goes in, of the factors, and two halves of an LSB.
        error_v = (
            momentum * error_v + abs(v) / 2.0**22 * 2.0**-17 + batch * (decay * error_w + 7e-4 * 2.0**-16 * abs(w) / 2.0**30) + 2.0**-22
        )
        done = update(config, job, g, v, w, kept)
        v, w = done.velocity, done.master
        error_w = error_w + rate / batch * (error_v + abs(v) / 2.0**22 * 2.0**-16) + 2.0**-31
        real_v = momentum * real_v + g / 2.0**12 / batch + decay * real_w
        real_w = real_w - rate * real_v
        assert (abs(v / 2.0**22 - batch * real_v) <= error_v).all()
        assert (abs(w / 2.0**30 - real_w) <= error_w).all()
        assert done.saturated == (0, 0, 0)
        assert (abs(done.working / 2.0**15 - w / 2.0**30) <= 2.0**-16).all()
    assert error_w.max() < 1e-5
    assert abs(real_w).max() > 0.1


@pytest.mark.golden
def test_stochastic_copies_are_right_on_average():
    """The mean of the copies of one weight is the weight: their spread is that of a chance of its fraction."""
    config, n = replace(CONFIG, cols=16), 16 * 4096
    w = np.full((n // 16, 16), 5 * 2**20 + 300_000)
    zeros = np.zeros_like(w)
    job = replace(JOB, rate=0, working_shift=20, rounding="stochastic")
    found = update(config, job, zeros, zeros, w, None, seeds(0, "w", 16)).working
    chance = 300_000 / 2**20
    assert set(np.unique(found)) == {5, 6}
    assert abs(found.mean() - 5 - chance) < 4 * math.sqrt(chance * (1 - chance) / n)


def test_closed_form_is_the_recurrence_without_waits():
    """Interval and latency as derived, jobs and tensors alone and in a row, and the final words with the last results."""
    jobs = [replace(JOB, beats=beats, rounding=rounding) for beats, rounding in ((3, "stochastic"), (1, "half_even"), (5, "stochastic"))]
    jobs += [replace(JOB, beats=1, rounding="stochastic", last=last) for last in (False, True)]
    for some in (jobs[:1], jobs[1:2], jobs[:3], jobs):
        cycles = timing.wuve(CONFIG, some)
        offered, beats = np.arange(cycles + 5), np.array([job.beats for job in some])
        draws = np.array([job.rounding == "stochastic" for job in some])
        last = np.array([job.last for job in some])
        always = np.ones_like(offered, bool)
        _, job_ready, i_ready, o_valid, state_valid = timing.wuve_trace(
            beats, draws, last, always, offered < 1 + beats[:-1].sum(), always, always, always
        )
        assert int(np.flatnonzero(o_valid)[-1]) + 1 == cycles
        assert o_valid.sum() == i_ready.sum() == beats.sum()
        assert np.diff(np.flatnonzero(job_ready)[: len(some)]).tolist() == [timing.interval(job) for job in some[:-1]]
        ends = np.cumsum(beats)[draws & last] - 1
        assert np.flatnonzero(state_valid).tolist() == np.flatnonzero(o_valid)[ends].tolist()
    assert timing.latency(jobs[0]) == timing.wuve(CONFIG, jobs[:1])


def test_draw_waits_for_its_seed_and_for_the_words_before():
    """Two tensors of a beat each, the second seed late, the first final words not taken for some cycles."""
    cycles = np.arange(60)
    always, beats, flags = np.ones(60, bool), np.array([1, 1]), np.ones(2, bool)
    seed_valid, state_ready = (cycles == 0) | (cycles >= 20), cycles >= 30
    seed_ready, _, _, o_valid, state_valid = timing.wuve_trace(beats, flags, flags, seed_valid, cycles < 2, always, always, state_ready)
    first = timing.STAGES + 1
    assert np.flatnonzero(seed_ready & seed_valid).tolist() == [0, 20, 30]
    assert np.flatnonzero(o_valid).tolist() == [first, 31]
    assert np.flatnonzero(state_valid).tolist() == [*range(first, 32)]


def test_program_of_recorded_updates(tmp_path):
    """What is written is read, and goes through the RTL tensor by tensor."""
    rng, file = np.random.default_rng(7), tmp_path / "updates.npz"
    tiny, recorded = presets.load("tiny"), []
    for label, rounding in (("a.weight", "half_even"), ("b.weight", "stochastic")):
        order = strips((6, 1, 2, 3), tiny.cols)
        job = operands(**NUMBERS, **{**FORMATS, "f_working": 10}, rounding=rounding)
        jobs = [replace(job, beats=6, lanes=lanes, last=lanes == 2) for _, lanes in order.spans]
        g, v, w = (order.split(rng.integers(-100, 100, order.shape) << up) for up in (0, 16, 20))
        state = seeds(0, label, tiny.cols) if rounding == "stochastic" else None
        recorded.append(Recorded(label, jobs, g, v, w, order.split(rng.random(order.shape) < 0.5), state))
    assert write_updates(file, recorded) == 2
    for index, tensor in enumerate(recorded):
        read = read_update(file, index)
        assert (read.label, read.jobs) == (tensor.label, tensor.jobs)
        for name in ("gradient", "velocity", "master", "kept"):
            np.testing.assert_array_equal(getattr(read, name), getattr(tensor, name))
        assert (read.state is None) == (tensor.state is None)
    found = harness.cosim("wuve", tiny, "icarus", cases=2, program=file)
    assert found.spans == tuple(timing.wuve(tiny, tensor.jobs) for tensor in recorded)


def test_random_cases_meet_the_edges():
    """The bench's cases saturate each result, not always; draw words of several tensors."""
    rng = np.random.default_rng(8)
    cases = [random_case(CONFIG, rng) for _ in range(30)]
    assert sum(len(case.outputs["state"]) > 1 for case in cases) > 3
    assert sum("half_even" in case.label and "stochastic" in case.label for case in cases) > 5
    results = unpack(shapes.updated(CONFIG), [word for case in cases for word in case.outputs["o"] if word is not None])
    for name in ("velocity", "master", "working"):
        assert 0.05 < results[f"{name}_saturated"].mean() < 0.6
