"""Measure the published network: look-up tables with and without the device's multipliers, and its error against floating point."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from accel import presets
from accel.config import RbfConfig
from accel.golden.rbf_network import rbf_network
from accel.quant import quantise
from accel.rbf import Parameters
from accel.rbf.model import respond
from accel.sim.blocks import BLOCKS
from accel.sim.synth import synthesise

PAPER = {"luts": 1193}
"""The network, Spartan 3: V. Shymkovych et al., Neural Computing and Applications 2021, DOI 10.1007/s00521-021-05706-3, abstract."""

NETWORKS, SAMPLES = 1000, 1000
ERRORS = (0.005, 0.0016, 0.0004)
BUILDS = {"with multipliers": ("device", True), "without": ("rows", False)}


def areas(config: RbfConfig) -> dict[str, Any]:
    """Count the cells of the network on a Spartan-3, with the device's multipliers and without any."""
    found = {}
    for label, (products, dsp) in BUILDS.items():
        built = dataclasses.replace(config, products=products)
        found[label] = dataclasses.asdict(synthesise(BLOCKS["rbf_network"].verilog(built), "rbf_network", "xc3s", dsp=dsp))
    return found


def errors(config: RbfConfig) -> dict[str, float]:
    """Return the largest and mean difference to real arithmetic over random networks and samples, with the same parameters in both.

    Centres in [-4, 4), sigma from 0.25 to 2, weights and bias in [-4, 4), samples over the whole format.
    """
    rng = np.random.default_rng(0)
    worst = total = 0.0
    for _ in range(NETWORKS):
        sigma = np.exp2(rng.uniform(-2, 1, config.neurons))
        real = Parameters(
            rng.uniform(-4, 4, (config.neurons, config.dims)),
            np.log2(np.e) / (2 * sigma**2),
            rng.uniform(-4, 4, (config.outputs, config.neurons)),
            rng.uniform(-4, 4, config.outputs),
        )
        formats = Parameters(config.x, config.width, config.weight, config.weight)
        integers = Parameters(*(quantise(values, 2.0**-form.frac, 0, form) for values, form in zip(real, formats, strict=True)))
        kept = Parameters(*(values * 2.0**-form.frac for values, form in zip(integers, formats, strict=True)))
        x = rng.integers(config.x.lo, config.x.hi, (SAMPLES, config.dims), endpoint=True)
        fixed = rbf_network(config, *integers, x) * 2.0**-config.result.frac
        difference = np.abs(fixed - respond(kept, x * 2.0**-config.x.frac, config.output))
        worst, total = max(worst, float(difference.max())), total + float(difference.sum())
    return {"samples": NETWORKS * SAMPLES, "max_error": worst, "mean_error": total / (NETWORKS * SAMPLES * config.outputs)}


def measure() -> list[dict[str, Any]]:
    """Return area and error of the network for several error targets of its units."""
    base = presets.load("paper", RbfConfig)
    rows = []
    for error in ERRORS:
        config = dataclasses.replace(base, error=error, sigmoid_error=error)
        rows.append({"unit error": error, "area": areas(config), "end to end": errors(config)})
    return rows
