from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.sore import sore
from accel.isa import Prune
from accel.schedule.strips import strips
from accel.sim import harness
from accel.sim.tb_sore import program_case, write_program
from accel.sparsity import Pattern, encode, mask
from accel.timing import sore as timing

CONFIG = AcceleratorConfig(cols=4, bundle=8, weight_bits=8)
JOB = Prune(beats=8, lanes=4, n=2, m=4)
NO_WEIGHTS = np.zeros((8, 4), np.int64)


def naive_group(elements, n):
    """Sort, take the first N, put them back in order: (value, index) pairs."""
    order = sorted(range(len(elements)), key=lambda i: (-abs(elements[i]), i))
    return [(elements[i], i) for i in sorted(order[:n])]


def naive_line(elements, n, m):
    """Return the pairs of each group of a line."""
    return [naive_group(elements[start : start + m], n) for start in range(0, len(elements), m)]


def naive(config, job, w):
    """Restate both codes on lists: beats of (pairs, lanes, head)."""
    strip = [[x if lane < job.lanes else 0 for lane, x in enumerate(beat)] for beat in w.tolist()]

    def beats(lines, lanes):
        lines = [naive_line(line, job.n, job.m) for line in lines]
        groups = zip(*lines, strict=True)  # of all lanes
        return [(list(pairs), lanes, i == 0) for group in groups for i, pairs in enumerate(zip(*group, strict=True))]

    forward = beats(zip(*strip, strict=True), job.lanes)
    backward = []
    for start in range(0, job.beats, config.cols):
        block = [beat[: job.lanes] for beat in strip[start : start + config.cols]]
        backward += beats(block + [[0] * job.lanes] * (config.cols - len(block)), len(block))
    return forward, backward


def beats(code):
    """Return a code as `naive` has it."""
    pairs = [list(zip(*beat, strict=True)) for beat in zip(code.value.tolist(), code.index.tolist(), strict=True)]
    return list(zip(pairs, code.lanes.tolist(), code.head.tolist(), strict=True))


@st.composite
def cases(draw):
    """Draw a configuration, jobs and beats; few magnitudes, so that ties are common."""
    config = replace(CONFIG, cols=draw(st.integers(1, 9)), bundle=draw(st.sampled_from([2, 4, 8, 16])), port=1)
    jobs = []
    for _ in range(draw(st.integers(1, 3))):
        m = draw(st.integers(1, config.bundle))
        job = Prune(beats=draw(st.integers(1, 40)), lanes=draw(st.integers(1, config.cols)), n=draw(st.integers(1, m)), m=m)
        jobs += [job] * draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    reach = draw(st.sampled_from([1, 3, 128]))
    return config, jobs, rng.integers(-reach, reach, (sum(job.beats for job in jobs), config.cols))


@pytest.mark.golden
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_group_of_small_values(n):
    """All groups of four 3-bit values, as lanes and as beats."""
    config = replace(CONFIG, weight_bits=3)
    groups = np.array(list(product(range(-4, 4), repeat=4)), np.int64)
    expected = [naive_group(group, n) for group in groups.tolist()]
    job = Prune(beats=len(groups), lanes=4, n=n, m=4)
    _, backward = sore(config, [job], groups)
    assert as_groups(backward, n) == expected
    columns = groups.reshape(-1, 4, 4).transpose(0, 2, 1).reshape(-1, 4)  # a group in each lane of four beats
    forward, _ = sore(config, [job], columns)
    assert as_groups(forward, n) == expected


def as_groups(code, n):
    """Return the pairs of full groups of one block or row of lanes after the other."""
    pairs = np.stack([code.value, code.index], -1).reshape(-1, n, code.value.shape[1], 2).transpose(0, 2, 1, 3)
    return [[tuple(pair) for pair in group] for group in pairs.reshape(-1, n, 2).tolist()]


@pytest.mark.golden
@given(cases())
def test_codes_equal_naive(case):
    config, jobs, w = case
    forward, backward, start = [], [], 0
    for job in jobs:
        ff, bp = naive(config, job, w[start : start + job.beats])
        start += job.beats
        forward += ff
        backward += bp
    codes = sore(config, jobs, w)
    assert [beats(code) for code in codes] == [forward, backward]


@given(cases())
def test_closed_form_is_the_recurrence_without_waits(case):
    """Cycles, and how many beats leave, of jobs alike or not."""
    config, jobs, w = case
    cycles = timing.sore(config, jobs)
    job_valid, job_ready, w_ready, ff_valid, bp_valid = offer(config, jobs, cycles + 5)
    code = sore(config, jobs, w)
    assert int(np.flatnonzero(ff_valid | bp_valid)[-1]) + 1 == cycles
    assert [int(ff_valid.sum()), int(bp_valid.sum())] == [len(side.lanes) for side in code]
    assert int(w_ready.sum()) == len(w)
    starts = np.flatnonzero(job_ready & job_valid)
    assert all(np.diff(starts) >= [timing.interval(job) for job in jobs[:-1]])


def offer(config, jobs, cycles):
    """Run the recurrence with jobs offered until all are accepted, and nobody waiting."""
    always, job_valid = np.ones(cycles, bool), np.ones(cycles, bool)
    endless = replace(JOB, beats=10**6)
    shown = timing.sore_trace(config.cols, timing.fields([*jobs, endless]), job_valid, always, always, always)
    job_valid[np.flatnonzero(shown[0])[len(jobs) - 1] + 1 :] = False
    return job_valid, *timing.sore_trace(config.cols, timing.fields(jobs), job_valid, always, always, always)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("beats", [4, 16])
def test_full_groups_and_blocks_never_wait(n, beats):
    """Jobs follow at a beat per cycle, and the latency is as derived."""
    job = replace(JOB, beats=beats, n=n)
    assert timing.latency(CONFIG, job) == beats + job.lanes + timing.STAGES + n
    assert timing.sore(CONFIG, [job] * 9) == timing.latency(CONFIG, job) + 8 * timing.interval(job)


@pytest.mark.parametrize(
    ("job", "interval"),
    [
        (Prune(beats=5, lanes=4, n=4, m=4), 8),  # blocks of 4 beats and of 1, of 4 columns each
        (Prune(beats=1, lanes=4, n=1, m=1), 4),  # likewise, each of 1 beat
        (Prune(beats=12, lanes=3, n=2, m=2), 12),  # the columns leave 2 and 1 pairs in 3 cycles and 1 more, within the 4 of a block
        (Prune(beats=9, lanes=1, n=8, m=8), 16),  # groups of 8 beats and of 1: the short one waits for 8 pairs
    ],
)
def test_short_groups_and_blocks_wait(job, interval):
    """The steady interval of equal jobs is what their longest part takes."""
    assert timing.sore(CONFIG, [job] * 22) - timing.sore(CONFIG, [job] * 20) == 2 * interval


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beats": 0}, r"^beats must be an int in \[1, 16777215\], not 0$"),
        ({"lanes": 5}, r"^lanes must be an int in \[1, 4\], not 5$"),
        ({"m": 9}, r"^m must be an int in \[1, 8\], not 9$"),
        ({"n": 5}, r"^n must be an int in \[1, 4\], not 5$"),
        ({"beats": 7}, r"^w must be int64 of shape \(7, 4\), not int64 of shape \(8, 4\)$"),
    ],
)
def test_rejects_job(change, message):
    with pytest.raises(RangeError, match=message):
        sore(CONFIG, [replace(JOB, **change)], NO_WEIGHTS)


def test_rejects_weights():
    with pytest.raises(RangeError, match=r"^w must be in \[-128, 127\], not 128..128$"):
        sore(CONFIG, [JOB], NO_WEIGHTS + 128)


@st.composite
def tensors(draw):
    """Draw lanes, groups, a pattern and a weight tensor."""
    lanes = draw(st.integers(1, 9))
    m = draw(st.integers(1, min(lanes, 8)))
    groups = draw(st.integers(1, 3))
    sizes = (groups * draw(st.integers(1, 11)), draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 20)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return lanes, groups, Pattern(draw(st.integers(1, m)), m), rng.integers(-5, 6, sizes)


@given(tensors())
def test_strips_hold_every_weight_once(case):
    """In the order strip, tap, input channel, output channel; whole groups of M output channels."""
    lanes, groups, pattern, w = case
    cut = strips(w.shape, lanes, groups, pattern.m)
    filters, height, width, channels = w.shape
    expected = []
    for group in range(groups):
        for start in range(0, filters // groups, lanes // pattern.m * pattern.m):
            stop = min(start + lanes // pattern.m * pattern.m, filters // groups)
            for a, b, c in product(range(height), range(width), range(channels)):
                beat = [((group * (filters // groups) + f) * height + a) * width * channels + b * channels + c for f in range(start, stop)]
                expected.append(beat + [-1] * (lanes - len(beat)))
    assert cut.index.tolist() == expected
    assert cut.beats == len(expected) == sum(job.beats for job in cut.jobs(pattern))
    assert (cut.join(cut.split(w)) == w).all()
    assert cut.split(w)[cut.index >= 0].tolist() == w.ravel()[cut.index[cut.index >= 0]].tolist()


@given(tensors())
def test_codes_are_those_of_sparsity(case):
    """Both codes of a tensor through the strips equal its encoding along each axis, and keep what the masks keep."""
    lanes, groups, pattern, w = case
    config = replace(CONFIG, cols=lanes)
    cut = strips(w.shape, lanes, groups, pattern.m)
    ff, bp = cut.codes(pattern, *sore(config, cut.jobs(pattern), cut.split(w)))
    filters, taps, channels = len(w), cut.taps, cut.channels
    for got, expected in zip(ff, encode(w.reshape(filters, -1), taps, channels, pattern), strict=True):
        assert got.tolist() == expected.tolist()
    turned = w.reshape(groups, filters // groups, taps, channels).transpose(0, 3, 2, 1).reshape(groups * channels, -1)
    for got, expected in zip(bp, encode(turned, taps, filters // groups, pattern), strict=True):
        assert got.tolist() == expected.tolist()
    kept = np.zeros(turned.shape, bool)
    np.put_along_axis(kept, bp.positions, True, axis=1)
    back = mask(w.reshape(groups, filters // groups, taps, channels), pattern, axis=1).transpose(0, 3, 2, 1)
    assert (kept.reshape(back.shape) == back).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: strips((4, 1, 1, 0), 4), r"^shape must be of 1 or more each, not \(4, 1, 1, 0\)$"),
        (lambda: strips((4, 1, 1, 3), 0), r"^lanes must be 1 or more, not 0$"),
        (lambda: strips((4, 1, 1, 3), 4, 3), r"^groups must be a divisor of the filters \(4\), not 3$"),
        (lambda: strips((4, 1, 1, 3), 4, 1, 5), r"^m must be in \[1, 4\], the lanes, not 5$"),
        (
            lambda: strips((4, 1, 1, 3), 4).split(np.zeros((4, 3), np.int64)),
            r"^weights must be of shape \(4, 1, 1, 3\), not \(4, 3\)$",
        ),
        (lambda: strips((4, 1, 1, 3), 4).join(np.zeros((4, 4), np.int64)), r"^beats must be of shape \(3, 4\), not \(4, 4\)$"),
    ],
)
def test_strips_reject(call, message):
    with pytest.raises(RangeError, match=message):
        call()


def test_recorded_jobs_run_in_the_rtl(tmp_path):
    """Cases of a file, one after the other; the report names what differs by the file's words."""
    rng = np.random.default_rng(0)
    pattern, program = Pattern(2, 4), tmp_path / "jobs.npz"
    cases = []
    for name, shape in (("conv1", (6, 3, 3, 5)), ("fc", (4, 1, 1, 9))):
        cut = strips(shape, CONFIG.cols, 1, pattern.m)
        cases.append((name, cut.jobs(pattern), cut.split(rng.integers(-128, 128, shape))))
    write_program(program, cases)
    result = harness.cosim("sore", CONFIG, "icarus", cases=2, program=program)
    assert result.spans == tuple(timing.sore(CONFIG, jobs) for _, jobs, _ in cases)
    place = program_case(CONFIG, program, 0).place
    assert place is not None
    assert [place("w", 5), place("ff", 0), place("bp", 10**6)] == ["conv1, job 1, beat 0", "conv1, job 0, beat 0", "conv1"]
