from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from amaranth.sim import Simulator

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.accumulator import accumulator
from accel.rtl.fifo import Fifo
from accel.timing.accumulator import accumulator as cycles
from accel.timing.accumulator import accumulator_trace

CONFIG = AcceleratorConfig(cols=3, acc_bits=8)


def naive_trace(depth, keep, i_valid, o_ready, psum_ready):
    """Play the rule with a queue of row numbers: what is stored in a cycle can leave in the next."""
    queue, row, i_ready, o_valid, psum_valid = deque[int](), 0, [], [], []
    for offered, o, psum in zip(i_valid, o_ready, psum_ready, strict=True):
        stored, passed = offered and keep[row], offered and not keep[row]
        o_valid.append(bool(passed))
        psum_valid.append(bool(queue))
        accepted = bool((stored and len(queue) < depth) or (passed and o))
        i_ready.append(accepted)
        if queue and psum:
            queue.popleft()
        if stored and accepted:
            queue.append(row)
        row += accepted
    return i_ready, o_valid, psum_valid


@pytest.mark.golden
def test_golden_parts_rows():
    rng = np.random.default_rng(0)
    acc, overflow, keep = rng.integers(-128, 128, (9, 3)), rng.random((9, 3)) < 0.5, rng.random(9) < 0.5
    o, psum = accumulator(CONFIG, acc, overflow, keep)
    for rows, wanted in ((o, False), (psum, True)):
        chosen = [i for i in range(9) if keep[i] == wanted]
        assert rows.acc.tolist() == [acc[i].tolist() for i in chosen]
        assert rows.overflow.tolist() == [overflow[i].tolist() for i in chosen]


@pytest.mark.golden
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acc": np.zeros((2, 4), np.int64)}, r"^acc must be int64 of shape \(n, 3\), not int64 of shape \(2, 4\)$"),
        ({"acc": np.zeros((2, 3))}, r"^acc must be int64 of shape \(n, 3\), not float64 of shape \(2, 3\)$"),
        ({"acc": np.full((2, 3), 128)}, r"^acc must be in \[-128, 127\], not 128\.\.128$"),
        ({"overflow": np.zeros((2, 3), np.int64)}, r"^overflow must be bool of shape \(2, 3\), not int64 of shape \(2, 3\)$"),
        ({"keep": np.zeros(3, bool)}, r"^keep must be bool of shape \(2,\), not bool of shape \(3,\)$"),
    ],
)
def test_golden_rejects(change, message):
    right = {"acc": np.zeros((2, 3), np.int64), "overflow": np.zeros((2, 3), bool), "keep": np.zeros(2, bool)}
    with pytest.raises(RangeError, match=message):
        accumulator(CONFIG, **(right | change))


@pytest.mark.golden
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_trace_equals_naive(depth):
    rng = np.random.default_rng(depth)
    for _ in range(20):
        keep = rng.random(200) < rng.random()
        i_valid, o_ready, psum_ready = (rng.random(200) < chance for chance in rng.choice([0.2, 0.8, 1], 3))
        trace = accumulator_trace(depth, keep, i_valid, o_ready, psum_ready)
        assert [column.tolist() for column in trace] == list(naive_trace(depth, keep, i_valid, o_ready, psum_ready))


@pytest.mark.golden
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_closed_form_equals_trace(depth):
    """A neighbour that never waits offers its n rows until they are taken."""
    config = AcceleratorConfig(acc_rows=depth)
    for pattern in range(1, 64):
        keep = np.array([pattern >> i & 1 for i in range(pattern.bit_length())], bool)
        always = np.ones(20, bool)
        i_ready, _, _ = accumulator_trace(depth, np.append(keep, always), always, always, always)
        offered = np.less(np.cumsum(i_ready) - i_ready, keep.size)  # until the last row has been taken
        _, o_valid, psum_valid = accumulator_trace(depth, keep, offered, always, always)
        assert cycles(config, keep) == np.flatnonzero(o_valid | psum_valid)[-1] + 1


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
@pytest.mark.parametrize(("fill", "drain"), [(1.0, 1.0), (0.3, 0.9), (0.9, 0.3), (0.5, 0.5)])
def test_fifo_equals_deque(depth, fill, drain):
    dut, rng, queue = Fifo(8, depth), np.random.default_rng(depth), deque[int]()

    async def bench(ctx):
        for _ in range(200):
            assert ctx.get(dut.level) == len(queue)
            offered, wanted, word = rng.random() < fill, rng.random() < drain, int(rng.integers(256))
            ctx.set(dut.i.valid, offered)
            ctx.set(dut.i.payload, word)
            ctx.set(dut.o.ready, wanted)
            assert ctx.get(dut.i.ready) == (len(queue) < depth)
            assert ctx.get(dut.o.valid) == bool(queue)
            room = len(queue) < depth
            if queue:
                assert ctx.get(dut.o.payload) == queue[0]
                if wanted:
                    queue.popleft()
            if offered and room:
                queue.append(word)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
