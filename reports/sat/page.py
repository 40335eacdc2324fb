"""Write what was counted and measured as a page in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from accel.step_result import CAUSES
from reports.sat import accuracy, cycles
from reports.sat.figures import TITLES
from reports.sat.networks import TASKS
from reports.sat.paper import PAPER

INTRODUCTION = f"""# Sparse training on `{cycles.CONFIG}`: the paper and ours

Written by `python -m reports.sat`, which counts every cycle below anew; accuracies are those of `python -m reports.sat --measure`.

The paper is C. Fang et al., "Efficient N:M Sparse DNN Training Using Algorithm, Architecture, and Dataflow Co-Design", IEEE TCAD 2024, DOI
10.1109/TCAD.2023.3317789. Its abstract gives the means; "reported" figures are second-hand. Array size, formats, buffers, DRAM, the
scheduler and everything else about `{cycles.CONFIG}` are our choice, so this is no reproduction of its hardware: it is the same
comparison, sparse over dense on one machine, on a machine whose every number is in the open.

A step is FF, BP, WU, update and pruning of a batch of {cycles.BATCH}, from DRAM to DRAM. Everything counts: products tile by tile,
normalisations, GELU, softmax, pooling and sums in both directions (stated cycles, `accel/timing/training.py`), weight update and
pruning (`wuve` and `sore`, cycle-exact), 256 bytes a cycle of DRAM and its latency. First convolution and last linear layer stay dense. The
bound is that of the multiplications: dense over executed.
"""


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def page(counted: dict[str, Any], compared: list[dict[str, Any]]) -> str:
    """Return the page."""
    return (
        "\n\n".join(
            (
                INTRODUCTION.strip(),
                "## The paper against us",
                _headline(counted, compared),
                "![speed-up by network and pattern](speedup.png)",
                "## Speed-up over dense, and its bound",
                _speedups(counted),
                "## Where the time goes",
                _stages(counted),
                "![cycles by stage](stages.png)",
                "What processing elements do, in % of their slots; `array`, `vector`, `update`: waiting for what that engine makes.",
                _causes(counted),
                "![slots that do not multiply](causes.png)",
                _holds(counted),
                "## The three dataflow optimisations",
                _switches(counted),
                "## Algorithms, at 2:8",
                _algorithms(counted),
                "## Accuracy on real data, bit by bit",
                _accuracy(compared),
                "![accuracy on held-out samples](accuracy.png)",
            )
        )
        + "\n"
    )


def _headline(counted: dict[str, Any], compared: list[dict[str, Any]]) -> str:
    bdwp = [row for row in compared if (row["algorithm"], row["numbers"]) == ("bdwp", "16")]
    saved = {name: 100 * (1 - 1 / counted["limit"][name][cycles.MAIN]) for name in cycles.NETWORKS}
    mean, losses = statistics.mean(row["loss"] for row in bdwp), ", ".join(f"{row['task']} {row['loss']:.2f}" for row in bdwp)
    return table(
        ["", "paper", "ours"],
        [
            [
                "mean speed-up of BDWP 2:8 over dense",
                f"{PAPER['speedup']}x (abstract)",
                f"**{counted['mean'][cycles.MAIN]:.3f}x**, {len(saved)} networks",
            ],
            [
                "operations saved at 2:8",
                f"{PAPER['operations']:.0f} % (reported)",
                ", ".join(f"{cycles.NETWORKS[name]} {value:.1f} %" for name, value in saved.items()),
            ],
            [
                "mean loss of accuracy at 2:8",
                f"{PAPER['loss']} points (abstract; CIFAR, ImageNet)",
                f"**{mean:.2f} points** ({losses}), 16 bit",
            ],
        ],
    )  # fmt: skip


def _speedups(counted: dict[str, Any]) -> str:
    rows = [
        [
            title,
            f"{counted['runs'][name]['dense']['cycles']:,}",
            f"{counted['runs'][name][cycles.MAIN]['cycles']:,}",
            *(f"{counted['speedup'][name][pattern]:.3f} ({counted['limit'][name][pattern]:.3f})" for pattern in cycles.PATTERNS),
        ]
        for name, title in cycles.NETWORKS.items()
    ]
    rows.append(["mean", "", "", *(f"**{counted['mean'][pattern]:.3f}**" for pattern in cycles.PATTERNS)])
    return table(["network", "dense cycles", f"{cycles.MAIN} cycles", *(f"{pattern} (bound)" for pattern in cycles.PATTERNS)], rows)


def _stages(counted: dict[str, Any]) -> str:
    rows = []
    for name, title in cycles.NETWORKS.items():
        for pattern in ("dense", cycles.MAIN):
            run = counted["runs"][name][pattern]
            stages = [f"{run['stages'][stage]:,} ({run['compute'][stage]:,})" for stage in ("FF", "BP", "WU")]
            engines = [f"{run['engines'][engine]:,}" for engine in ("vector", "update", "dram")]
            rows.append([title, pattern, *stages, *engines])
    headings = ["network", "", "FF (bound)", "BP (bound)", "WU (bound)", "vector unit busy", "update engine busy", "DRAM busy"]
    return table(headings, rows)


def _causes(counted: dict[str, Any]) -> str:
    rows = []
    for name, title in cycles.NETWORKS.items():
        for pattern in ("dense", cycles.MAIN):
            causes = counted["runs"][name][pattern]["causes"]
            rows.append([title, pattern, *(f"{100 * causes[cause]:.2f}" for cause in CAUSES)])
    return table(["network", "", *CAUSES], rows)


def _holds(counted: dict[str, Any]) -> str:
    """Say what holds each network from its bound."""
    lines = []
    for name, title in cycles.NETWORKS.items():
        run = counted["runs"][name][cycles.MAIN]
        lost = sorted(((share, cause) for cause, share in run["causes"].items() if cause != "busy"), reverse=True)[:3]
        told = ", ".join(f"{cause} {100 * share:.2f} %" for share, cause in lost)
        reached, bound = counted["speedup"][name][cycles.MAIN], counted["limit"][name][cycles.MAIN]
        lines.append(f"- {title}: {reached:.3f} of {bound:.3f}; the sparse step loses most to {told}.")
    return "\n".join(lines)


def _switches(counted: dict[str, Any]) -> str:
    names = [chosen for chosen in cycles.SETS if chosen != "all"]
    rows = []
    for name, title in cycles.NETWORKS.items():
        every = counted["switches"][name]["all"]
        told = [title]
        for chosen in names:
            run = counted["switches"][name][chosen]
            told.append(f"{run['cycles'] / every['cycles']:.4f}x, {run['dram'] / every['dram']:.3f}x")
        staged = counted["staged"][name]
        rows.append(
            [
                *told,
                f"{staged['no interleave'] / staged['all']:.3f}x",
                *(f"{counted['switched'][name][each]:.3f}" for each in ("all", "none")),
            ]
        )
    headings = [f"{chosen}: cycles, bytes" for chosen in names]
    text = (
        f"Cycles and bytes of the {cycles.MAIN} step without an optimisation, over those with all three. The adder of `{cycles.CONFIG}` "
        "takes one cycle, so interleaving changes nothing there; a column beside is for an adder of more stages. The last two columns are "
        "speed-ups over a dense step with the same optimisations."
    )
    tail = [f"no interleave, {cycles.STAGED} stages: cycles", "speed-up, all", "speed-up, none"]
    return text + "\n\n" + table(["network", *headings, *tail], rows)


def _algorithms(counted: dict[str, Any]) -> str:
    each = ("bdwp", "sr-ste", "sdgp")
    rows = [
        [title, *(f"{speed:.3f} ({bound:.3f})" for speed, bound in (counted["algorithms"][name][algorithm] for algorithm in each))]
        for name, title in cycles.NETWORKS.items()
    ]
    return table(["network", *(f"{TITLES[algorithm]} (bound)" for algorithm in each)], rows)


def _accuracy(compared: list[dict[str, Any]]) -> str:
    rows = []
    for row in compared:
        spoilt = "" if row["saturated"] is None else f"{row['saturated']:.2f}"
        numbers = row["numbers"] if row["numbers"] == "float32" else f"{row['numbers']} bit"
        loss = "" if (row["algorithm"], row["numbers"]) == accuracy.BASE else f"{row['loss']:+.2f} ± {row['loss_deviation']:.2f}"
        rows.append([row["task"], TITLES[row["algorithm"]], numbers, f"{row['mean']:.2f} ± {row['deviation']:.2f}", loss, spoilt])
    tasks = "; ".join(f"{name}: {task.title}, {task.epochs} epochs, batch {task.batch}, rate {task.rate}" for name, task in TASKS.items())
    text = (
        f"Right on held-out samples after the last epoch, mean and standard deviation over {compared[0]['seeds']} seeds (of weights and of "
        "the order of samples), and what is lost against dense float32 of the same seed, in points. Every algorithm has the same epochs, "
        f"batch and rate ({tasks}). Fixed point is the bit-accurate step on `{accuracy.CONFIGS[16]}` and, at 8 bits with stochastic "
        f"rounding of the working copy, `{accuracy.CONFIGS[8]}`. Saturated: elements in a million, of all tensors."
    )
    return text + "\n\n" + table(["data", "algorithm", "numbers", "right [%]", "lost [points]", "saturated [ppm]"], rows)
