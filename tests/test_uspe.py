"""The processing element: golden model against the history of its inputs, latencies against the hardware."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.golden.uspe import Inputs, initial, uspe
from accel.rtl.uspe import Uspe
from accel.timing.uspe import uspe as hops
from tests.naive_array import dot

TAGS = ("step", "ws", "load", "first", "last", "slot", "take", "swap", "active", "inject", "inject_slot")
Sum = tuple[int, bool]


class History:
    """What a processing element must say in a cycle, found by looking back at what it was told: it remembers nothing."""

    def __init__(self, config: AcceleratorConfig, inputs: Inputs):
        self.config, self.inputs = config, inputs
        self.tags = [dict(zip(TAGS, row, strict=True)) for row in zip(*(inputs.tags[name].tolist() for name in TAGS), strict=True)]

    def latest(self, t: int, **wanted: int) -> int | None:
        """Return the last cycle up to `t` in which the tags were so."""
        return next((u for u in range(t, -1, -1) if all(self.tags[u][name] == bit for name, bit in wanted.items())), None)

    def pair(self, t: int | None) -> tuple[int, int]:
        return (0, 0) if t is None else (int(self.inputs.value[t]), int(self.inputs.index[t]))

    def stationary(self, t: int) -> tuple[int, int]:
        """Return the pair that was kept before the last swap; an inactive swap leaves none."""
        swap = self.latest(t, swap=1)
        return (0, 0) if swap is None or not self.tags[swap]["active"] else self.pair(self.latest(swap - 1, take=1))

    def bundle(self, t: int) -> list[int]:
        load = self.latest(t, load=1)
        return [0] * self.config.bundle if load is None else self.inputs.bundle[load].tolist()

    def product(self, t: int) -> tuple[int, int]:
        value, index = self.stationary(t) if self.tags[t]["ws"] else self.pair(t)
        return self.bundle(t)[index], value

    def running(self, t: int, slot: int) -> Sum:
        """Return the sum of a slot after cycle `t`: of all its products since the last first one."""
        steps = [u for u in range(t + 1) if all(self.tags[u][name] == bit for name, bit in (("step", 1), ("ws", 0), ("slot", slot)))]
        starts = [i for i, u in enumerate(steps) if self.tags[u]["first"]]
        return dot(self.config, map(self.product, steps[starts[-1] if starts else 0 :]))

    def south(self, t: int) -> Sum:
        tags = self.tags[t]
        north = int(self.inputs.acc[t]), bool(self.inputs.overflow[t])
        if tags["step"] and tags["ws"]:
            return dot(self.config, [self.product(t)], *north)
        if tags["inject"]:
            slot = tags["inject_slot"]
            finish = self.latest(t - 1, step=1, ws=0, last=1, slot=slot)
            return (0, False) if finish is None else self.running(finish, slot)
        return north


def draw_inputs(config: AcceleratorConfig, rng: np.random.Generator, n: int, **tags: int) -> Inputs:
    """Draw operands with many extremes, and tags of which the given ones are constant."""

    def integers(bits, shape):
        lo, hi = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        return np.where(rng.random(shape) < 0.5, rng.choice([lo, hi, 0, -1], shape), rng.integers(lo, hi, shape, endpoint=True))

    control = {name: (rng.random(n) < rng.choice([0.1, 0.5, 0.9])).astype(np.int64) for name in TAGS}
    control |= {name: rng.integers(0, config.add_stages, n) for name in ("slot", "inject_slot")}
    return Inputs(
        bundle=integers(config.act_bits, (n, config.bundle)),
        value=integers(config.weight_bits, n),
        index=rng.integers(0, config.bundle, n),
        acc=integers(config.acc_bits, n),
        overflow=rng.random(n) < 0.2,
        tags=control | {name: np.full(n, bit) for name, bit in tags.items()},
    )


def part(inputs: Inputs, cycles: slice) -> Inputs:
    fields = {name: getattr(inputs, name)[cycles] for name in ("bundle", "value", "index", "acc", "overflow")}
    return Inputs(**fields, tags={name: tag[cycles] for name, tag in inputs.tags.items()})


configs = st.builds(
    AcceleratorConfig,
    bundle=st.just(4),
    port=st.just(4),
    act_bits=st.sampled_from([2, 5, 32]),
    weight_bits=st.sampled_from([2, 5, 30]),
    acc_bits=st.sampled_from([2, 6, 40, 62]),
    mult_bits=st.just(1),
    overflow=st.sampled_from(["saturate", "wrap"]),
    add_stages=st.integers(1, 4),
)


@pytest.mark.golden
@settings(max_examples=80)
@given(configs, st.integers(0, 2**32), st.integers(0, 40))
def test_golden_equals_the_history(config, seed, cut):
    """Any tags in any order; a run continues another one from its state."""
    inputs = draw_inputs(config, np.random.default_rng(seed), 40)
    history = History(config, inputs)
    state, (acc, overflow, held) = uspe(config, initial(config), inputs)
    assert list(zip(acc.tolist(), overflow.tolist(), strict=True)) == [history.south(t) for t in range(40)]
    assert held.tolist() == [history.bundle(t) for t in range(40)]
    assert [column.dtype for column in (acc, overflow, held)] == [np.int64, np.bool_, np.int64]
    half, before = uspe(config, initial(config), part(inputs, slice(cut)))
    again, after = uspe(config, half, part(inputs, slice(cut, None)))
    assert again == state
    for whole, *pieces in zip((acc, overflow, held), before, after, strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.golden
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_column_of_stationary_pairs_is_a_dot_product(overflow):
    """Sums that go down a column of elements, each with a pair of its own, meet the products in the order of the rows."""
    config, rng = AcceleratorConfig(acc_bits=15, overflow=overflow), np.random.default_rng(0)
    n, rows = 20, 5
    south, terms = draw_inputs(config, rng, n), []
    north = list(zip(south.acc.tolist(), south.overflow.tolist(), strict=True))
    for _ in range(rows):
        setting = draw_inputs(config, rng, 2, step=0)
        setting.tags.update(take=np.array([1, 0]), swap=np.array([0, 1]), active=np.ones(2, np.int64))
        state, _ = uspe(config, initial(config), setting)
        steps = draw_inputs(config, rng, n, load=1, step=1, ws=1, swap=0)
        terms.append([(bundle[setting.index[0]], setting.value[0]) for bundle in steps.bundle])
        south = replace(steps, acc=south.acc, overflow=south.overflow)
        _, (acc, flags, _) = uspe(config, state, south)
        south = replace(south, acc=acc, overflow=flags)
    expected = [dot(config, [row[t] for row in terms], *north[t]) for t in range(n)]
    assert list(zip(south.acc.tolist(), south.overflow.tolist(), strict=True)) == expected
    assert len({flag for _, flag in expected}) == 2


def test_nothing_to_do_changes_nothing():
    config = AcceleratorConfig(add_stages=2)
    state, outputs = uspe(config, initial(config), draw_inputs(config, np.random.default_rng(0), 0))
    assert state == initial(config)
    assert [len(column) for column in outputs] == [0, 0, 0]


@pytest.mark.golden
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": np.zeros(2, np.int64)}, r"^inputs must be of equal lengths, not 2, 3$"),
        ({"tags": dict.fromkeys(TAGS, np.zeros(4, np.int64))}, r"^inputs must be of equal lengths, not 3, 4$"),
        ({"index": np.array([0, 8, 1])}, r"^index must be in \[0, 8\), not 0\.\.8$"),
        ({"index": np.array([0, -1, 1])}, r"^index must be in \[0, 8\), not -1\.\.1$"),
    ],
)
def test_golden_rejects(change, message):
    config = AcceleratorConfig()
    inputs = draw_inputs(config, np.random.default_rng(0), 3)
    with pytest.raises(RangeError, match=message):
        uspe(config, initial(config), replace(inputs, **change))


@pytest.mark.parametrize(("mult_stages", "add_stages"), [(1, 1), (2, 3), (4, 2)])
def test_latencies_are_those_of_the_hardware(mult_stages, add_stages):
    """A stationary pair is taken in cycle 0 and swapped in with a bundle in cycle 1; its one step comes in cycle 2."""
    config = AcceleratorConfig(mult_stages=mult_stages, add_stages=add_stages)
    late, dut = hops(config), Uspe(config)
    seen: dict[str, dict[int, int]] = {name: {} for name in ("tags", "pair", "sum")}

    async def bench(ctx):
        for cycle in range(late.sum + 5):
            ctx.set(dut.tags_i, {"take": cycle == 0, "swap": cycle == 1, "active": 1, "load": cycle == 1, "step": cycle == 2, "ws": 1})
            ctx.set(dut.pair_i, {"value": 3 * (cycle == 0), "index": 1})
            ctx.set(dut.bundle_i, [0, 7 * (cycle == 1), *[0] * (config.bundle - 2)])
            ctx.set(dut.sum_i, {"acc": 5 * (cycle == 2 + late.meet), "overflow": 0})
            for name, port in (("tags", dut.tags_o.step), ("pair", dut.pair_o.value), ("sum", dut.sum_o.acc)):
                if value := ctx.get(port):
                    seen[name][cycle] = value
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == {"tags": {2 + late.east: 1}, "pair": {late.south: 3}, "sum": {2 + late.sum: 3 * 7 + 5}}
    assert late == (1, add_stages, 1 + mult_stages, 1 + mult_stages + add_stages)
