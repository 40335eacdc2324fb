"""Radial-basis networks on real data, in floating point, fixed point and RTL: `python -m reports.rbf.data [SET ...]`.

Of each set that ships with scikit-learn a quarter is held out, drawn evenly over the classes or targets, ten times; samples of the first
split run through the RTL of the network, loaded with the trained parameters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel import rbf
from accel.rbf.data import read
from accel.rbf.quantise import error_bound
from accel.sim.rbf import cosim_model

HELD_OUT = 0.25
SPLITS = 10  # random ones; figures are means over them where nothing else is said
PUBLISHED = 0.005  # error of the Gaussian of Shymkovych et al., 2021
IN_RTL = 30  # held-out samples of the first split


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


class Split(NamedTuple):
    """A network trained with one split, and what it says of the samples held out."""

    model: rbf.RbfModel
    held: NDArray[np.float64]
    fixed: rbf.Outputs
    exact: rbf.Outputs

    @property
    def scores(self) -> tuple[float, float]:
        """Score of the samples held out, in floating and in fixed point."""
        told = self.model.training["scores"]["held out"]
        return told["float"], told["fixed"]


def split(name: str, seed: int, error: float | None) -> Split:
    """Train the network of a set with the samples that a seed does not hold out; `error` as in :func:`accel.rbf.fit`."""
    data = read(name)
    assert data.y is not None
    options = TASKS[name]._asdict() | {"error": error, "seed": seed, "test": HELD_OUT}
    model = rbf.fit(data.x, data.y, features=data.features, name=f"{name}-{TASKS[name].neurons}", **options)
    held = data.x[rbf.split(data.y, HELD_OUT, seed)[1]]
    return Split(model, held, model.simulate(held), model.reference(held))


def compare(splits: list[Split]) -> dict[str, Any]:
    """Return how floating and fixed point compare over splits."""
    scores = np.array([found.scores for found in splits])
    unlike = [np.sum(found.fixed.predictions != found.exact.predictions) for found in splits]
    return {
        "error of the units": splits[0].model.config.error,
        "float": float(scores[:, 0].mean()),
        "fixed": float(scores[:, 1].mean()),
        "largest difference of a split": float(np.abs(scores[:, 1] - scores[:, 0]).max()),
        "unlike predictions of all splits": int(sum(unlike)) if splits[0].model.labels else None,
        "largest difference of an output": max(float(np.abs(found.fixed.values - found.exact.values).max()) for found in splits),
        "largest bound of it": max(float(error_bound(found.model, found.model.inputs.forward(found.held)).max()) for found in splits),
    }


def measure(name: str, simulator: str | None) -> dict[str, Any]:
    """Return the row of one set; without a simulator nothing of the RTL."""
    splits, published = ([split(name, seed, error) for seed in range(SPLITS)] for error in (None, PUBLISHED))
    model, held = splits[0].model, splits[0].held
    row: dict[str, Any] = {
        "set": name,
        "features": model.config.dims,
        **TASKS[name]._asdict(),
        "training samples": model.training["samples"],
        "held-out samples": len(held),
        "splits": SPLITS,
        "measure": model.measure,
        **compare(splits),
        "with the published error": compare(published),
    }
    if simulator:
        some = model.quantise(held[np.linspace(0, len(held) - 1, min(IN_RTL, len(held))).astype(np.int64)])
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
