"""Measure the front of the unit 2^-t: look-up tables against the error, in both families."""

from __future__ import annotations

import dataclasses
from itertools import product
from typing import Any

from accel.cli.terminal import Progress
from accel.functions.cost import FAMILIES
from reports.rbf.units import OPERANDS, area

ERRORS = (0.02, 0.01, 0.007, 0.005, 0.0039, 0.0025, 0.0016, 0.001, 0.0007, 0.0004, 0.00025, 0.00015)


def measure() -> dict[str, Any]:
    """Return, for each family, errors asked for and kept, and what the units cost."""
    tell = Progress("front")
    found: dict[str, Any] = {family: [] for family in FAMILIES}
    for done, (family, error) in enumerate(product(FAMILIES, ERRORS)):
        tell(done, len(FAMILIES) * len(ERRORS), f"{family}, {error}")
        found[family].append({"error": error} | area(dataclasses.replace(OPERANDS["t"], error=error), family))
    return found
