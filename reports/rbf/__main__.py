"""Redraw the report of the Gaussian unit and its network from what was measured; or measure it again first."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accel.cli.terminal import say
from accel.files import write
from reports.rbf import control, data, figures, front, network, tables, units

HERE = Path(__file__).parent
MEASURED: dict[str, Callable[[], Any]] = {
    "units": units.measure,
    "front": front.measure,
    "network": network.measure,
    "data": lambda: [data.measure(name, "verilator") for name in data.TASKS],
    "control": control.control,
}


def main() -> None:
    """Draw the figures and write the page."""
    parser = argparse.ArgumentParser(prog="python -m reports.rbf", description=__doc__)
    parser.add_argument("--measure", metavar="PART", nargs="*", help=f"measure these first, of {', '.join(MEASURED)}; all if none is named")
    args = parser.parse_args()
    asked = list(MEASURED) if args.measure == [] else args.measure or []
    for part in asked:
        if part not in MEASURED:
            parser.error(f"PART must be one of {', '.join(MEASURED)}, not {part}")
    for part in asked:
        say(f"measuring {part}")
        write(HERE / f"{part}.json", json.dumps(MEASURED[part](), indent=1) + "\n")
    say("drawing")
    measured = {part: json.loads((HERE / f"{part}.json").read_text()) for part in MEASURED}
    figures.curves()
    figures.front(measured["front"])
    figures.control(measured["control"])
    write(HERE / "README.md", tables.page(measured))


if __name__ == "__main__":
    main()
