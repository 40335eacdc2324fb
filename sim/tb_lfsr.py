"""Bench of :class:`accel.rtl.lfsr.Lfsr`."""

from __future__ import annotations

import numpy as np

from accel.config import AcceleratorConfig
from accel.golden.lfsr import lfsr
from accel.lfsr import WORD_MASK, seeds
from accel.rtl import shapes
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.timing.lfsr import lfsr as cycles
from accel.timing.lfsr import lfsr_trace


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw a few tensors, with beats that use some, all or none of the lanes; sparse states as well as hashed ones."""
    tensors = rng.integers(1, 12, rng.integers(1, 4, endpoint=True), endpoint=True).tolist()
    states, takes, words = [], [], []
    for index, beats in enumerate(tensors):
        hashed = seeds(int(rng.integers(1 << 31)), f"tensor {index}", config.cols)
        states.append(np.where(rng.random(config.cols) < 0.5, hashed, rng.choice([1, 1 << 31, WORD_MASK], config.cols)))
        takes.append(rng.random((beats, config.cols)) < rng.choice([0.3, 0.9, 1]))
        words.append(lfsr(states[-1], takes[-1])[1])
    take = np.concatenate(takes)
    last = np.isin(np.arange(1, len(take) + 1), np.cumsum(tensors))

    def predict(driven: Waits) -> Waits:
        trace = lfsr_trace(last, driven["seed"], driven["i"], driven["o"])
        return dict(zip(("seed", "i", "o"), trace, strict=True))

    return Case(
        label=f"tensors of {', '.join(map(str, tensors))} beats",
        inputs={"seed": pack(shapes.words(config), states), "i": pack(shapes.draw(config), take=take, last=last)},
        outputs={"o": pack(shapes.words(config), np.concatenate(words))},
        predict=predict,
        cycles=cycles(config, tensors),
    )
