"""A random tile of every layer of ResNet-18 and ResNet-50 through the RTL: `python -m reports.networks.tiles [--seed S]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import accel
from accel import presets
from accel.cli.terminal import Progress, table
from accel.config import AcceleratorConfig
from accel.files import write
from accel.sim.tiles import cosim_tiles
from accel.sparsity import Pattern

NETWORKS = ("resnet18", "resnet50")
BUILDS = (("edge-int8", None), ("edge-int8", "2:4"), ("sat-vcu1525", None), ("sat-vcu1525", "2:8"))
OUT = Path(__file__).with_name("tiles.json")


def measure(name: str, preset: str, pattern: str | None, seed: int) -> dict[str, Any]:
    """Co-simulate a tile of every layer and return what was compared."""
    network, config = accel.load(name, seed=seed), presets.load(preset, AcceleratorConfig)
    tensor = network.tensors[network.inputs[0].tensor]
    inputs = np.random.default_rng(seed).standard_normal((1, *tensor.onnx_shape))
    tell = Progress(f"{name} on {preset}, {pattern or 'dense'}")
    found = cosim_tiles(network, config, inputs, pattern=Pattern.parse(pattern) if pattern else None, seed=seed, progress=tell)
    return {
        "network": name,
        "config": preset,
        "pattern": pattern or "dense",
        "seed": seed,
        "rows compared": found.hardware.words,
        "cycles": found.hardware.cycles,
        "differences": 0,  # the first one would have ended the run
        "tiles": [{"layer": layer, "tile": tile, "cycles": cycles} for layer, tile, cycles in found.tiles],
    }


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of weights, image and tiles (default: %(default)s)")
    args = parser.parse_args()
    records = [measure(name, *build, args.seed) for name in NETWORKS for build in BUILDS]
    write(OUT, json.dumps(records, indent=1) + "\n")
    headings = ["network", "config", "N:M", "tiles", "rows compared", "cycles", "differences"]
    rows = [[r["network"], r["config"], r["pattern"], len(r["tiles"]), r["rows compared"], r["cycles"], r["differences"]] for r in records]
    print(table(headings, rows))


if __name__ == "__main__":
    main()
