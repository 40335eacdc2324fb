"""Draw what was measured: error curves, the front, the control loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from accel.cli.figure import COLOURS
from accel.functions.cost import FAMILIES
from accel.functions.evaluate import evaluate
from accel.functions.generate import design
from accel.functions.truth import truth
from reports.rbf.units import ANCHORS, ERRORS, OPERANDS

HERE = Path(__file__).parent
PAPER = {"error": 0.005, "luts": 106}
"""One Gaussian: V. Shymkovych et al., Neural Computing and Applications 2021, DOI 10.1007/s00521-021-05706-3, abstract."""


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(True, linewidth=0.3)
    return figure, axes


def _save(figure: Figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", metadata={"Software": None})


def curves() -> None:
    """Draw result minus truth over every operand of the named points, fed with t, u and d."""
    operands = [name for name in OPERANDS if len(name) == 1]
    figure, axes = _figure(len(operands), len(ERRORS), 12, 7.5)
    for row, operand in zip(axes, operands, strict=True):
        for each, error in zip(row, ERRORS, strict=True):
            _curve(each, operand, error)
    _save(figure, "errors")


def _curve(axes: Axes, operand: str, error: float) -> None:
    config = dataclasses.replace(OPERANDS[operand], error=error)
    x = np.arange(config.operand.lo, config.operand.hi + 1)
    y = evaluate(design(config).datapath, x) * 2.0**-config.out_frac
    difference = y - truth(config, x)
    axes.plot(x * 2.0**-config.in_frac, difference, ",", color=COLOURS[2])
    for sign in (-1, 1):
        axes.axhline(sign * error, color=COLOURS[4], linewidth=0.8)
    axes.set_title(f"fed with {operand}: asked {error}, kept {np.abs(difference).max():.6f}", fontsize=9, loc="left")
    axes.set_xlabel(operand, fontsize=8)
    axes.set_ylabel("result - truth", fontsize=8)
    axes.tick_params(labelsize=7)


def front(measured: dict[str, Any]) -> None:
    """Draw look-up tables against the largest error, with the starting designs and the paper's point."""
    figure, axes = _figure(1, len(FAMILIES), 12, 4.6)
    for each, (family, inputs) in zip(axes[0], FAMILIES.items(), strict=True):
        points = [(row["max_error"], row["area"]["counts"]["lut"]) for row in measured[family]]
        each.loglog(*zip(*points, strict=True), "o-", color=COLOURS[0], label="this generator, 2^-t of 16 bits")
        routed = [(row["max_error"], row["area"]["counts"]["lut"] + row["area"]["routes"]) for row in measured[family]]
        each.loglog(*zip(*routed, strict=True), "--", color=COLOURS[0], label="with the carry columns that no LUT feeds")
        starts = [(anchor.config.error, anchor.luts[family]) for anchor in ANCHORS if anchor.config.function == "exp2"]
        each.loglog(*zip(*starts, strict=True), "s", color=COLOURS[3], label="starting designs of 2^-t (Yosys 0.70)")
        if inputs == 4:
            each.loglog(PAPER["error"], PAPER["luts"], "*", markersize=13, color=COLOURS[4], label="paper, Spartan 3 (vendor tool)")
        each.set_yticks([10 << n for n in range(6)], [str(10 << n) for n in range(6)])
        each.minorticks_off()
        each.set_xlabel("largest absolute error over all operands")
        each.set_ylabel(f"LUT1 to LUT{inputs}, {family}")
        each.set_title(f"{family}, counted by Yosys", loc="left", fontsize=10)
        each.legend(fontsize=8, frameon=False)
    _save(figure, "front")


def control(measured: dict[str, Any]) -> None:
    """Draw the arm in the closed loop: angle, tracking error, and what fixed point changes."""
    series = {name: np.array(values) for name, values in measured["series"].items()}
    t, reference = series["t s"], series["reference rad"]
    figure, axes = _figure(3, 1, 11, 7)
    angle, error, difference = axes[:, 0]
    runs = {"without": ("without the network", COLOURS[7]), "float": ("floating point", COLOURS[3]), "fixed": ("fixed point", COLOURS[2])}
    angle.plot(t, reference, color="black", linewidth=0.8, label="reference")
    for run, (label, colour) in runs.items():
        style = "--" if run == "fixed" else "-"
        angle.plot(t, series[f"angle rad, {run}"], style, color=colour, linewidth=1.2, label=label)
        error.plot(t, series[f"angle rad, {run}"] - reference, style, color=colour, linewidth=1.2, label=label)
    difference.plot(t, series["angle rad, fixed"] - series["angle rad, float"], color=COLOURS[2], linewidth=0.8)
    for axis, label in ((angle, "angle, rad"), (error, "angle - reference, rad"), (difference, "fixed - floating point, rad")):
        axis.set_ylabel(label, fontsize=9)
    for axis in (angle, error, difference):
        for start, end in (measured["disturbances"]["push s"], [measured["disturbances"]["mass from s"], t[-1]]):
            axis.axvspan(start, end, color=COLOURS[5], alpha=0.25, linewidth=0)
    angle.margins(y=0.2)
    angle.legend(fontsize=8, frameon=False, ncols=4, loc="upper right")
    difference.set_xlabel("time, s; shaded: a push, and a heavier arm that the network does not know")
    angle.set_title(measured["plant"], loc="left", fontsize=10)
    _save(figure, "control")
