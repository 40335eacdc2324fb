from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import product
from math import floor
from typing import Any

import pytest
from amaranth import Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from accel.config import AcceleratorConfig
from accel.rtl.arithmetic import add, clamp, clip, delay, levels, multiply, overflow_rule, round_shift, saturate, square, total

ROUND: list[Callable[[Fraction], int]] = [floor, lambda x: floor(x + Fraction(1, 2)), round]


def run(m: Module, inputs: Iterable[Signal], outputs: list[Signal], cases: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return what combinational logic answers to each case."""
    answers = []

    async def bench(ctx: Any) -> None:
        for case in cases:
            for port, value in zip(inputs, case, strict=True):
                ctx.set(port, value)
            answers.append(tuple(ctx.get(port) for port in outputs))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return answers


def values(signal: Signal) -> range:
    """Return all that a signal can hold."""
    half = 1 << len(signal) - 1
    return range(-half, half) if signal.shape().signed else range(2 * half)


@pytest.mark.parametrize("width", [4, 7])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_round_shift_of_every_small_value(width, bits):
    """Quotient and carry, or a quotient so far outside that neither a carry nor anything within `bits` - 1 bits brings it back."""
    m = Module()
    value, shift, rounding = Signal(signed(width)), Signal(unsigned(4)), Signal(2)
    quotient, carry = Signal(signed(bits)), Signal()
    floor_of, up = round_shift(m, value, shift, rounding, bits)
    m.d.comb += [quotient.eq(floor_of), carry.eq(up)]
    cases = list(product(range(-(1 << width - 1), 1 << width - 1), range(16), range(3)))
    lo, hi = -(1 << bits - 1), (1 << bits - 1) - 1
    for (x, s, r), (q, c) in zip(cases, run(m, [value, shift, rounding], [quotient, carry], cases), strict=True):
        exact = Fraction(x, 1 << s)
        if lo <= floor(exact) <= hi:
            assert q + c == ROUND[r](exact), (x, s, r)
        else:
            assert q == (lo if exact < lo else hi), (x, s, r)


@pytest.mark.parametrize("rule", ["saturate", "wrap"])
@pytest.mark.parametrize("width", [5, 6, 9])
def test_overflow_rule_of_every_small_value(rule, width):
    """A format narrower than, as wide as or wider than the sum by a bit or several."""
    m = Module()
    value, kept, flag = Signal(signed(width)), Signal(signed(6)), Signal()
    config = AcceleratorConfig(acc_bits=6, overflow=rule)
    for port, result in zip((kept, flag), overflow_rule(m, value, config), strict=True):
        m.d.comb += port.eq(result)
    cases = [(x,) for x in range(-(1 << width - 1), 1 << width - 1)]
    for (x,), got in zip(cases, run(m, [value], [kept, flag], cases), strict=True):
        wanted = (x + 32) % 64 - 32 if rule == "wrap" else min(max(x, -32), 31)
        assert got == (wanted, wanted != x)


def test_clip_of_every_small_value():
    """Every value against every range."""
    m = Module()
    value, lo, hi, out = Signal(signed(4)), Signal(signed(3)), Signal(signed(3)), Signal(signed(3))
    m.d.comb += out.eq(clip(value, lo, hi))
    cases = [(x, a, b) for x, a, b in product(range(-8, 8), range(-4, 4), range(-4, 4)) if a <= b]
    assert run(m, [value, lo, hi], [out], cases) == [(min(max(x, a), b),) for x, a, b in cases]


@pytest.mark.parametrize("cycles", [0, 1, 3])
def test_delay(cycles):
    """A value comes out as many clock edges later."""
    m = Module()
    value, out = Signal(8), Signal(8)
    m.d.comb += out.eq(delay(m, value, cycles, "held"))
    m.d.sync += Signal().eq(0)  # the clock exists even where nothing is delayed
    seen = []

    async def bench(ctx: Any) -> None:
        for t in range(8):
            ctx.set(value, t + 1)
            seen.append(ctx.get(out))
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [0] * cycles + list(range(1, 9 - cycles))


@pytest.mark.parametrize("sign", [signed, unsigned])
@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 5), (5, 3)])
def test_sum_of_every_small_value(sign, a, b):
    """Both operands signed or both unsigned, of equal and of different widths."""
    m = Module()
    x, y = Signal(sign(a)), Signal(sign(b))
    result = add(x, y)
    s = Signal(result.shape())
    m.d.comb += s.eq(result)
    cases = list(product(values(x), values(y)))
    assert run(m, [x, y], [s], cases) == [(p + q,) for p, q in cases]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_total_of_every_small_value(count):
    m = Module()
    terms = [Signal(signed(2), name=f"term_{i}") for i in range(count)]
    s = Signal(signed(8))
    m.d.comb += s.eq(total(m, terms, False, "sum"))
    cases = list(product(range(-2, 2), repeat=count))
    assert run(m, terms, [s], cases) == [(sum(case),) for case in cases]
    assert levels(count) == {1: 0, 2: 1, 3: 2, 5: 3}[count]


@pytest.mark.parametrize("how", ["device", "rows"])
@pytest.mark.parametrize("sign", [signed, unsigned])
@pytest.mark.parametrize("bits", [1, 2, 5])
def test_product_of_every_small_value(how, sign, bits):
    m = Module()
    a, b = Signal(sign(4)), Signal(bits)
    result = multiply(m, a, b, how)
    p = Signal(result.shape())
    m.d.comb += p.eq(result)
    cases = list(product(values(a), values(b)))
    assert run(m, [a, b], [p], cases) == [(x * y,) for x, y in cases]


@pytest.mark.parametrize("how", ["device", "rows"])
@pytest.mark.parametrize("bits", [1, 2, 7])
def test_square_of_every_small_value(how, bits):
    m = Module()
    x, y = Signal(bits), Signal(2 * bits)
    m.d.comb += y.eq(square(m, x, how))
    assert run(m, [x], [y], [(v,) for v in values(x)]) == [(v * v,) for v in values(x)]


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_saturation_of_every_small_value(bits):
    """Of formats narrower than, as wide as and wider than the value; signed and unsigned."""
    m = Module()
    x, y, low, high = Signal(4), Signal(signed(4)), Signal(6), Signal(signed(6))
    m.d.comb += [low.eq(saturate(x, bits)), high.eq(clamp(y, bits))]
    most, least = (1 << bits - 1) - 1, -(1 << bits - 1)
    cases = list(product(values(x), values(y)))
    assert run(m, [x, y], [low, high], cases) == [(min(p, (1 << bits) - 1), max(least, min(q, most))) for p, q in cases]
