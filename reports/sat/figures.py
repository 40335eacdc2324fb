"""Draw what was counted and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from accel.cli.figure import COLOURS
from accel.step_result import CAUSES
from reports.sat import cycles
from reports.sat.networks import TASKS
from reports.sat.paper import PAPER

HERE = Path(__file__).parent
TITLES = {"dense": "dense", "bdwp": "BDWP", "sr-ste": "SR-STE", "sdgp": "SDGP"}
WAITS = [cause for cause in CAUSES if cause != "busy"]


def draw(counted: dict[str, Any], compared: list[dict[str, Any]]) -> None:
    """Draw all figures."""
    _speedup(counted)
    _stages(counted)
    _causes(counted)
    _accuracy(compared)


def _figure(columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, columns, squeeze=False).flat)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(True, axis="y", linewidth=0.3)
        each.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", metadata={"Software": None})


def _speedup(counted: dict[str, Any]) -> None:
    """Draw the speed-up of every network and pattern, its bound, and the paper's mean."""
    figure, (axes,) = _figure(1, 9, 4)
    names, width = list(cycles.NETWORKS), 0.8 / len(cycles.PATTERNS)
    for i, pattern in enumerate(cycles.PATTERNS):
        at = np.arange(len(names)) + (i - (len(cycles.PATTERNS) - 1) / 2) * width
        axes.bar(at, [counted["speedup"][name][pattern] for name in names], 0.92 * width, color=COLOURS[i], label=pattern)
        limits = [counted["limit"][name][pattern] for name in names]
        axes.hlines(limits, at - 0.46 * width, at + 0.46 * width, color="black", linewidth=1, label="bound" if i == 0 else "_nolegend_")
    axes.axhline(PAPER["speedup"], color="black", linestyle=":", linewidth=1, label=f"the paper's mean at 2:8, {PAPER['speedup']}x")
    axes.set_xticks(range(len(names)), list(cycles.NETWORKS.values()))
    axes.set_ylabel("dense cycles / sparse cycles of a training step")
    axes.set_ylim(0, 2.9)
    axes.legend(ncols=6, loc="upper center", fontsize=8, frameon=False)
    _save(figure, "speedup")


def _stages(counted: dict[str, Any]) -> None:
    """Draw where a dense and a sparse step spend the array's time, by stage."""
    figure, axes = _figure(len(cycles.NETWORKS), 12, 3.6)
    for each, (name, title) in zip(axes, cycles.NETWORKS.items(), strict=True):
        for place, pattern in enumerate(("dense", cycles.MAIN)):
            run, bottom = counted["runs"][name][pattern], 0.0
            for colour, stage in zip(COLOURS, ("FF", "BP", "WU"), strict=False):
                height = run["stages"][stage] / 1e6
                each.bar(place, height, 0.7, bottom=bottom, color=colour, label=stage if place == 0 else None)
                each.text(place, bottom + height / 2, f"{height:.1f}", ha="center", va="center", fontsize=7, color="white")
                bottom += height
            if place:
                each.text(place, bottom, f"{counted['speedup'][name][cycles.MAIN]:.2f}x", ha="center", va="bottom", fontsize=9)
        each.set_xticks([0, 1], ["dense", f"{cycles.MAIN}"])
        each.set_title(title, fontsize=10)
    axes[0].set_ylabel(f"million cycles of a step of {cycles.BATCH}")
    axes[0].legend(fontsize=8, frameon=False)
    _save(figure, "stages")


def _causes(counted: dict[str, Any]) -> None:
    """Draw what processing elements do while they do not multiply."""
    figure, (axes,) = _figure(1, 9, 3.6)
    labels: list[str] = []
    at = 0.0
    ticks = []
    colours = dict(zip(WAITS, (*COLOURS, "#882255"), strict=True))
    shown: set[str] = set()
    for name, title in cycles.NETWORKS.items():
        for pattern in ("dense", cycles.MAIN):
            bottom = 0.0
            for cause in WAITS:
                height = 100 * counted["runs"][name][pattern]["causes"][cause]
                if height < 0.005:
                    continue
                axes.bar(at, height, 0.8, bottom=bottom, color=colours[cause], label=None if cause in shown else cause)
                shown.add(cause)
                bottom += height
            labels.append(f"{title}\n{pattern}")
            ticks.append(at)
            at += 1
        at += 0.4
    axes.set_xticks(ticks, labels, fontsize=7)
    axes.set_ylabel("PE slots that do not multiply [%]")
    axes.legend(fontsize=8, frameon=False)
    _save(figure, "causes")


def _accuracy(compared: list[dict[str, Any]]) -> None:
    """Draw accuracies on held-out samples: mean and standard deviation over the seeds."""
    tasks = list(dict.fromkeys(row["task"] for row in compared))
    figure, axes = _figure(len(tasks), 11, 3.8)
    for each, task in zip(axes, tasks, strict=True):
        rows = [row for row in compared if row["task"] == task]
        colours = ["black" if row["numbers"] == "float32" else COLOURS[0] if row["numbers"] == "16" else COLOURS[1] for row in rows]
        for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
            each.errorbar(place, row["mean"], row["deviation"], fmt="o", color=colour, capsize=3)
        floor = rows[0]["mean"] - PAPER["loss"]
        each.axhline(floor, color="black", linestyle=":", linewidth=1)
        each.text(len(rows) - 0.5, floor, f"dense float32 less {PAPER['loss']} points", ha="right", va="bottom", fontsize=7)
        each.set_xticks(range(len(rows)), [label(row) for row in rows], fontsize=7)
        each.set_title(f"{TASKS[task].title}, {rows[0]['seeds']} seeds", fontsize=9)
    axes[0].set_ylabel("right on held-out samples [%]")
    _save(figure, "accuracy")


def label(row: dict[str, Any]) -> str:
    """Name what was trained, on two lines."""
    return f"{TITLES[row['algorithm']]}\n{row['numbers'] if row['numbers'] == 'float32' else row['numbers'] + ' bit'}"
