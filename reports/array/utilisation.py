"""Measure in the RTL how busy full tiles back to back keep the array: `python -m reports.array.utilisation [CONFIG ...]`.

For each configuration, 16 and 8 full tiles of k = 576 run dense and at 2:8. Busy is the share of MAC slots of the 16 tiles, first fill and
last drain included; steady is the share between the 8th and the 16th tile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from accel import presets
from accel.sim.harness import cosim
from accel.sparsity import Pattern

TILES = (16, 8)
TAPS, CHANNELS = 9, 64  # k = 576: a 3 x 3 convolution of 64 channels


def measure(name: str, simulator: str) -> list[dict[str, Any]]:
    """Return one row per pattern for a configuration."""
    config = presets.load(name)
    width = config.cols * config.add_stages
    patterns = [Pattern(config.bundle, config.bundle), Pattern(2, 8)]
    shapes = [
        {"m": config.rows, "n": tiles * width, "taps": TAPS, "channels": CHANNELS, "pattern": str(pattern)}
        for pattern in patterns
        for tiles in TILES
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "shapes.json")
        file.write_text(json.dumps(shapes))
        spans = cosim("stce", config, simulator, cases=len(shapes), program=file).spans
    rows = []
    for i, pattern in enumerate(patterns):
        steps = int(config.add_stages * pattern.pairs(CHANNELS) * TAPS)
        whole, half = spans[2 * i : 2 * i + 2]
        rows.append(
            {
                "config": name,
                "pattern": "dense" if pattern.dense else str(pattern),
                "issue_cycles_per_tile": steps,
                "cycles": whole,
                "busy": TILES[0] * steps / whole,
                "steady": (TILES[0] - TILES[1]) * steps / (whole - half),
            }
        )
    return rows


def main() -> None:
    """Print a table and write `utilisation.json` beside this file."""
    parser = argparse.ArgumentParser(prog="python -m reports.array.utilisation", description=__doc__)
    parser.add_argument("config", nargs="*", default=["edge-int8", "sat-vcu1525"])
    parser.add_argument("--simulator", default="verilator")
    args = parser.parse_args()
    rows = [row for name in args.config for row in measure(name, args.simulator)]
    for row in rows:
        print("{config:12} {pattern:6} {cycles:6} cycles  busy {busy:7.2%}  steady {steady:7.2%}".format(**row))
    Path(__file__).with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
