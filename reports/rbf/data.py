"""Radial-basis networks on real data, in floating point, fixed point and RTL: `python -m reports.rbf.data [SET ...]`.

Of each set that ships with scikit-learn a quarter is held out, drawn evenly over the classes or targets; samples of it run through the RTL
of the network, loaded with the trained parameters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accel import rbf
from accel.rbf.data import read
from accel.rbf.quantise import error_bound
from accel.sim.rbf import cosim_model

HELD_OUT = 0.25
IN_RTL = 30  # held-out samples


class Task(NamedTuple):
    """How the network of one set is trained."""

    neurons: int
    method: str
    output: str
    units: int


TASKS = {
    "iris": Task(8, "kmeans", "linear", 8),
    "wine": Task(12, "kmeans", "sigmoid", 4),
    "breast-cancer": Task(4, "ols", "sigmoid", 4),  # the published shape: four neurons and a sigmoid
    "digits": Task(100, "kmeans", "linear", 4),
    "diabetes": Task(12, "kmeans", "linear", 3),
}


def measure(name: str, simulator: str | None) -> dict[str, Any]:
    """Return the row of one set; without a simulator nothing of the RTL."""
    task, data = TASKS[name], read(name)
    assert data.y is not None
    model = rbf.fit(data.x, data.y, test=HELD_OUT, features=data.features, name=f"{name}-{task.neurons}", **task._asdict())
    _, held = rbf.split(data.y, HELD_OUT, model.training["seed"])
    x, scores = data.x[held], model.training["scores"]["held out"]
    fixed, exact = model.simulate(x), model.reference(x)
    row: dict[str, Any] = {
        "set": name,
        "features": model.config.dims,
        **task._asdict(),
        "training samples": model.training["samples"],
        "held-out samples": len(held),
        "measure": model.measure,
        **scores,
        "difference": scores["fixed"] - scores["float"],
        "unlike predictions": int(np.sum(fixed.predictions != exact.predictions)) if model.labels else None,
        "largest difference of an output": float(np.abs(fixed.values - exact.values).max()),
        "its bound": float(error_bound(model, model.inputs.forward(x)).max()),
    }
    if simulator:
        some = model.quantise(x[np.linspace(0, len(x) - 1, min(IN_RTL, len(x))).astype(np.int64)])
        found = cosim_model(model, some, simulator=simulator)
        row["rtl"] = {"simulator": simulator, "samples": found.words, "cycles": sum(found.spans), "differences": 0}
    return row


def main() -> None:
    """Print a line per set and write `data.json` beside this file."""
    parser = argparse.ArgumentParser(prog="python -m reports.rbf.data", description=__doc__)
    parser.add_argument("sets", metavar="SET", nargs="*", default=list(TASKS), help=f"of {', '.join(TASKS)} (default: all)")
    parser.add_argument("--simulator", default="verilator")
    args = parser.parse_args()
    rows = []
    for name in args.sets:
        rows.append(measure(name, args.simulator))
        print("{set:14} {neurons:4} neurons  {measure:8}  float {float:.4f}  fixed {fixed:.4f}".format(**rows[-1]), flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
