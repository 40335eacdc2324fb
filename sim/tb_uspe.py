"""Bench of :class:`accel.rtl.uspe.Uspe`: raw tags every cycle, no handshake."""

from __future__ import annotations

import numpy as np

from accel.config import AcceleratorConfig
from accel.golden.uspe import Inputs, initial, uspe
from accel.rtl import shapes
from accel.rtl.uspe import partial, tags
from accel.sim.bench import Case
from accel.sim.pack import leaves, pack
from accel.timing.uspe import uspe as hops


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw runs of steps of either dataflow with bubbles; loads, takes, swaps and injections anywhere."""
    n, slots, hop = int(rng.integers(30, 120)), config.add_stages, hops(config)

    def draw(fmt, shape):
        return np.where(rng.random(shape) < 0.5, rng.integers(fmt.lo, fmt.hi, shape, endpoint=True), rng.choice([fmt.lo, 0, fmt.hi], shape))

    value = draw(config.weight, n)
    value[: slots + 1] = 0  # a start that defines every register
    inputs = Inputs(
        bundle=draw(config.act, (n, config.bundle)),
        value=value,
        index=rng.integers(0, config.bundle, n),
        acc=draw(config.acc, n),
        overflow=rng.random(n) < 0.2,
        tags=_tags(rng, n, slots),
    )
    _, (acc, overflow, held) = uspe(config, initial(config), inputs)

    control = pack(tags(config), **inputs.tags)
    pair = pack(shapes.pair(config), value=inputs.value, index=inputs.index)
    north = pack(partial(config), acc=inputs.acc, overflow=inputs.overflow)
    leaving = pack(partial(config), acc=acc, overflow=overflow)

    def later(words: list[int], cycles: int) -> list[int | None]:
        return ([None] * cycles + words)[: n + cycles]

    idle = pack(tags(config), **{leaf.name: [0] for leaf in leaves(tags(config))})
    return Case(
        label=f"{n} cycles",
        inputs={
            "tags_i": control + idle,
            "bundle_i": pack(shapes.bundle(config), inputs.bundle),
            "pair_i": pair,
            "sum_i": [0] * hop.meet + north,
        },
        outputs={
            "tags_o": later(control, hop.east),
            "bundle_o": later(pack(shapes.bundle(config), held), hop.east),
            "pair_o": later(pair, hop.south),
            "sum_o": later(leaving, hop.sum),
        },
        fresh=True,
    )


def _tags(rng: np.random.Generator, n: int, slots: int) -> dict[str, np.ndarray]:
    """Random control in which a sum is used again `slots` cycles later at the earliest, as the array does."""
    names = ("step", "ws", "load", "first", "last", "take", "swap", "active", "inject")
    chance = {"step": float(rng.choice([0.5, 0.9, 1])), "load": 0.3, "take": 0.2, "swap": 0.1, "inject": 0.2, "active": 0.8, "ws": 0}
    out = {name: (rng.random(n) < chance.get(name, 0.3)).astype(np.int64) for name in names}
    slot = np.zeros(n, np.int64)
    weight_stationary, at = False, 0
    for t in range(n):
        if t <= slots:  # load, take and swap, and start every sum
            first = {"load": t == 0, "take": t == 0, "swap": t == 1, "active": 1, "step": 1, "first": 1, "last": 1, "inject": 0}
            for name, bit in first.items():
                out[name][t] = bit
            at = t
        elif at % slots == 0 and rng.random() < 0.1:
            weight_stationary = not weight_stationary
        out["ws"][t] = weight_stationary
        slot[t] = at % slots
        if out["step"][t] and not weight_stationary:
            at += 1
    return {**out, "slot": slot, "inject_slot": rng.integers(0, slots, n)}
