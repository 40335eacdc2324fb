from __future__ import annotations

import hashlib

import numpy as np
import pytest

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.lfsr import draws, lfsr
from accel.lfsr import leap, parities, seeds
from accel.timing import lfsr as timing

POLYNOMIAL = 1 << 32 | 1 << 22 | 1 << 2 | 1 << 1 | 1
PERIOD = 2**32 - 1
FACTORS = (3, 5, 17, 257, 65537)  # the prime factors of PERIOD, each once


def naive(word):
    """Run the register bit by bit."""
    bits = [word >> j & 1 for j in range(32)]
    for n in range(32, 64):
        bits.append(bits[n - 32] ^ bits[n - 31] ^ bits[n - 30] ^ bits[n - 10])
    return sum(bit << j for j, bit in enumerate(bits[32:]))


def power(exponent):
    """Return x**exponent modulo the polynomial over GF(2)."""

    def times(a, b):
        product = 0
        while b:
            product ^= a * (b & 1)
            a, b = a << 1, b >> 1
            a ^= POLYNOMIAL * (a >> 32)
        return product

    result, base = 1, 2
    while exponent:
        result = times(result, base) if exponent & 1 else result
        base, exponent = times(base, base), exponent >> 1
    return result


def test_polynomial_is_primitive():
    """The order of x is 2**32 - 1, so the register runs through every state but 0."""
    assert np.prod(FACTORS) == PERIOD
    assert power(PERIOD) == 1
    assert all(power(PERIOD // factor) != 1 for factor in FACTORS)


def test_leap_equals_naive():
    """Single bits, which by linearity say all, and random words; the recurrence is that of the polynomial."""
    rng = np.random.default_rng(0)
    for word in [1 << j for j in range(32)] + rng.integers(1, 1 << 32, 200).tolist():
        assert leap(word) == naive(word)
        assert sum(((word & sum(1 << b for b in bits)).bit_count() & 1) << j for j, bits in enumerate(parities())) == naive(word)


def test_words_are_not_shifted_copies():
    """No two neighbouring words of a lane agree in more bits, at any shift, than independent ones would."""
    _, words = draws(seeds(0, "w", 1), 2000)
    bits = (words[:, None] >> np.arange(32)) & 1
    for shift in range(-16, 17):
        old, new = bits[:-1, max(shift, 0) : 32 + min(shift, 0)], bits[1:, max(-shift, 0) : 32 - max(shift, 0)]
        assert abs((old == new).mean() - 0.5) < 0.02


def test_seeds_are_the_stated_hash():
    """SHAKE128 of the text, lane by lane, whatever the number of lanes."""
    digest = hashlib.shake_128(b"7/conv1.weight").digest(12)
    expected = [int.from_bytes(digest[4 * j : 4 * j + 4], "little") for j in range(3)]
    assert seeds(7, "conv1.weight", 3).tolist() == expected
    assert seeds(7, "conv1.weight", 64)[:3].tolist() == expected
    assert seeds(8, "conv1.weight", 3).tolist() != expected
    assert len(set(seeds(7, "conv1.weight", 1000).tolist())) == 1000


@pytest.mark.golden
def test_elements_draw_from_the_lanes_in_turn():
    """Element i takes draw i div L of lane i mod L, in one call or in pieces."""
    state = seeds(3, "w", 5)
    expected, lanes = [], state.tolist()
    for i in range(23):
        expected.append(lanes[i % 5])
        lanes[i % 5] = naive(lanes[i % 5])
    after, words = draws(state, 23)
    assert words.tolist() == expected
    assert after.tolist() == lanes
    middle, head = draws(state, 9)
    end, tail = draws(middle, 14, start=9)
    assert [*head, *tail] == expected
    assert end.tolist() == lanes
    assert draws(state, 0)[1].size == 0


@pytest.mark.golden
def test_lane_steps_only_when_taken():
    """A lane that does not take its word shows it again."""
    state = seeds(3, "w", 2)
    after, words = lfsr(state, np.array([[True, False], [True, False], [False, True]]))
    a, b = state.tolist()
    assert words.tolist() == [[a, b], [naive(a), b], [naive(naive(a)), b]]
    assert after.tolist() == [naive(naive(a)), naive(b)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seeds(-1, "w", 1), r"^seed must be an int of at least 0, not -1$"),
        (lambda: seeds(0, "w", 0), r"^lanes must be an int of at least 1, not 0$"),
        (lambda: lfsr(np.array([0, 1]), np.ones((1, 2), bool)), r"^state must be in \[1, 4294967295\], not 0..1$"),
        (lambda: lfsr(np.array([1.0]), np.ones((1, 1), bool)), r"^state must be int64 of shape \(lanes,\), not float64 of shape \(1,\)$"),
        (lambda: lfsr(np.array([1]), np.ones((1, 2), bool)), r"^take must be bool of shape \(beats, 1\), not bool of shape \(1, 2\)$"),
        (lambda: draws(np.array([], np.int64), 1), r"^state must be of at least one lane, not 0$"),
        (lambda: draws(np.array([1]), -1), r"^count must be an int in \[0, \d+\], not -1$"),
        (lambda: draws(np.array([1]), 1, -1), r"^start must be an int in \[0, \d+\], not -1$"),
    ],
)
def test_rejects(call, message):
    with pytest.raises(RangeError, match=message):
        call()


def test_closed_form_is_the_recurrence_without_waits():
    """Interval and latency as derived, tensors alone and in a row."""
    for tensors in ([3], [1], [2, 1, 4]):
        cycles = timing.lfsr(AcceleratorConfig(), tensors)
        offered = np.arange(cycles + 5)
        ends = np.cumsum(tensors)
        last = np.isin(np.arange(1, ends[-1] + 1), ends)
        seed_ready, i_ready, o_valid = timing.lfsr_trace(
            last, offered <= ends[-1] - tensors[-1], (offered > 0) & (offered < cycles), np.ones_like(offered, bool)
        )
        assert int(np.flatnonzero(o_valid)[-1]) + 1 == cycles
        assert o_valid.sum() == (i_ready & (offered < cycles)).sum() == sum(tensors)
        assert np.diff(np.flatnonzero(seed_ready)[: len(tensors)]).tolist() == [timing.interval(beats) for beats in tensors[:-1]]
    assert timing.latency(3) == timing.lfsr(AcceleratorConfig(), [3])
