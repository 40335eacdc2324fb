"""Where the cycles of a network go, and how a network learns, as figures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from accel.cli.terminal import NAME, visible

if TYPE_CHECKING:
    from matplotlib.axis import Axis

    from accel.result import Result
    from accel.step_result import StepResult
    from accel.training.loop import TrainingResult

# Okabe and Ito's palette, told apart with any colour vision; one colour per cause of accel.result.CAUSES.
COLOURS = ("#009E73", "#56B4E9", "#0072B2", "#E69F00", "#D55E00", "#F0E442", "#CC79A7", "#999999", "#000000")
LEAST = 1e-6  # our choice: a loss below it is drawn there, as 0 has no logarithm
MORE = ("#882255", "#661100")  # two more of Tol's, for accel.step_result.CAUSES
STAGES = ("#332288", "#CC6677", "#DDCC77")  # of Tol's muted palette: FF, BP and WU, none of them a cause's colour
SCALES = ((1e6, "millions of cycles"), (1e3, "thousands of cycles"))  # our choice: from how many cycles an axis counts them so
APART = (0.9, 0.12)  # [decades] names of the roofline keep so much distance, across or up


def cycles_by_cause(dense: Result, sparse: Result) -> bytes:
    """Draw two runs of a network, layer by layer: cycles by cause, dense above sparse; return a PNG.

    A cause's share of a bar is its share of the slots of processing elements.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from accel.result import CAUSES

    pairs = [(a, b) for a, b in zip(dense.layers, sparse.layers, strict=True) if a.cycles]
    figure = Figure(figsize=(10, 1.6 + 0.62 * len(pairs)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = np.arange(len(pairs))
    elements = dense.config.rows * dense.config.cols
    widest = max(layer.cycles for pair in pairs for layer in pair)
    for column, offset in ((0, -0.19), (1, 0.19)):
        layers = [pair[column] for pair in pairs]
        left = np.zeros(len(pairs))
        for cause, colour in zip(CAUSES, COLOURS, strict=True):
            width = np.array([layer.causes[cause] / elements for layer in layers])
            shown = any(layer.causes[cause] for pair in pairs for layer in pair)
            label = cause if shown and not column else None
            axes.barh(places + offset, width, 0.34, left, color=colour, edgecolor="white", linewidth=0.4, label=label)
            left += width
        for place, layer in zip(places + offset, layers, strict=True):
            run = (
                f"{layer.unit} unit"
                if layer.pattern is None
                else "dense"
                if layer.macs_executed == layer.macs_dense
                else f"{layer.pattern} sparse"
            )
            axes.annotate(f"{layer.cycles:,} ({run})", (layer.cycles, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [f"{layer.name}\n{layer.m} x {layer.k} x {layer.n}" for layer, _ in pairs], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * widest)
    axes.set_xlabel(f"cycles of a batch of {dense.batch}")
    axes.spines[["top", "right"]].set_visible(False)
    ratio = dense.cycles / sparse.cycles
    axes.set_title(
        f"{dense.network} on {dense.config.name}: {dense.cycles:,} cycles dense, {sparse.cycles:,} as pruned ({ratio:.2f}x)",
        loc="left", fontsize=11,
    )  # fmt: skip
    figure.legend(
        title="slots of processing elements", fontsize=8, title_fontsize=8, loc="outside lower center", ncols=len(CAUSES), frameon=False
    )
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def schedule(result: Result) -> bytes:
    """Draw one run: cycles by cause, layer by layer, and where its layers stand on the roofline; return a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from accel.result import CAUSES

    layers = [layer for layer in result.layers if layer.cycles]
    height = max(6.0, 1.8 + 0.24 * len(layers))
    figure = Figure(figsize=(15, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.25, 1), height_ratios=(6.0, max(height - 6.0, 0.01)))
    bars, roof = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    elements = result.config.rows * result.config.cols
    places, left = np.arange(len(layers)), np.zeros(len(layers))
    for cause, colour in zip(CAUSES, COLOURS, strict=True):
        width = np.array([layer.causes[cause] / elements for layer in layers])
        if width.any():
            bars.barh(places, width, 0.78, left, color=colour, label=cause)
        left += width
    for place, layer in zip(places, layers, strict=True):
        told = f"{layer.cycles:,} ({layer.dataflow})" if layer.dataflow else f"{layer.cycles:,}"
        bars.annotate(told, (layer.cycles, place), (3, 0), textcoords="offset points", va="center", fontsize=6)
    bars.set_yticks(places, [_plain(layer.name, NAME) for layer in layers], fontsize=7)
    bars.set_ylim(len(layers) - 0.4, -0.6)
    bars.set_xlim(0, 1.14 * max((layer.cycles for layer in layers), default=1))
    bars.set_xlabel(f"cycles of a batch of {result.batch}")
    bars.set_title(f"{_plain(result.network, NAME)} on {result.config.name}: {result.cycles:,} cycles", loc="left", fontsize=10)
    figure.legend(title="slots of processing elements", fontsize=8, title_fontsize=8, loc="outside lower left", ncols=4, frameon=False)

    placed = [(layer, layer.roof) for layer in layers if layer.roof and layer.roof.intensity]
    rate = result.config.dram_rate
    corner = elements / rate
    known = [where.intensity or 1.0 for _, where in placed]
    span = np.geomspace(min([*known, corner]) / 3, max([*known, corner]) * 3, 200)
    roof.plot(span, np.minimum(elements, span * rate), color="black", linewidth=1)
    largest = max((layer.cycles for layer, _ in placed), default=1)
    for flow, colour in (("os", COLOURS[2]), ("ws", COLOURS[4])):
        own = [(layer, where) for layer, where in placed if layer.dataflow == flow]
        roof.scatter(
            [where.intensity or 1.0 for _, where in own], [where.attained for _, where in own],
            [12 + 160 * layer.cycles / largest for layer, _ in own], color=colour, alpha=0.55, label=flow, linewidths=0,
        )  # fmt: skip
    # Names of those that lose most time against their roof, far enough from each other to be read.
    named: list[tuple[float, float]] = []
    for layer, where in sorted(placed, key=lambda each: each[0].macs_executed / each[1].attainable - each[0].cycles):
        x, y = where.intensity or 1.0, max(where.attained, 1e-9)
        at = (np.log10(x), np.log10(y))
        if all(abs(at[0] - across) > APART[0] or abs(at[1] - up) > APART[1] for across, up in named):
            named.append(at)
            roof.annotate(_plain(layer.name, 24), (x, y), (4, -9), textcoords="offset points", fontsize=6)
    roof.set_xscale("log")
    roof.set_yscale("log")
    roof.set_xlabel("operational intensity [MAC/byte of DRAM]")
    roof.set_ylabel("MAC/cycle")
    roof.set_title(f"roofline: {elements:,} MAC/cycle, {rate:g} byte/cycle; areas are cycles", loc="left", fontsize=10)
    roof.legend(fontsize=8, frameon=False, loc="lower right")
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def curves(result: TrainingResult) -> bytes:
    """Draw a training run, epoch by epoch: loss, accuracies, and saturated elements of those tensors that have most; return a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    epochs = [x.epoch for x in result.curves]
    mark = {"marker": "o", "markersize": 2.5, "linewidth": 1.2}
    left.plot(epochs, [max(x.loss, LEAST) for x in result.curves], color=COLOURS[2], **mark)
    left.set_yscale("log")
    left.set_ylabel("mean loss of a sample")
    for name, colour, label in (("accuracy", COLOURS[1], "training"), ("held_out", COLOURS[4], "held out")):
        middle.plot(epochs, [100 * getattr(x, name) for x in result.curves], color=colour, label=label, **mark)
    middle.set_ylabel("classified right [%]")
    middle.legend(fontsize=8, frameon=False, loc="lower right")
    shown = list(result.saturated)[: len(COLOURS)]
    for name, colour in zip(shown, COLOURS, strict=False):
        right.plot(epochs, [x.saturated.get(name, 0) for x in result.curves], color=colour, label=_plain(name, 24), **mark)
    right.set_ylabel("saturated elements")
    right.set_ylim(bottom=0)
    if shown:
        right.legend(fontsize=8, frameon=False, loc="best")
    for axes in (left, middle, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    recipe = result.recipe
    how = recipe.algorithm if recipe.algorithm == "dense" else f"{recipe.algorithm} {recipe.pattern}"
    told = f"{_plain(result.network.name, NAME)} on {_plain(result.config.name, NAME)}, {how}: {result.accuracy:.2%} held out"
    left.set_title(told, loc="left", fontsize=10)
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def stages(result: StepResult) -> bytes:
    """Draw a step of training: cycles of the array by layer and stage, and by cause for each stage; return a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from accel.step_result import CAUSES

    names = list(dict.fromkeys(layer.name for layer in result.layers if layer.cycles))
    shown = ("FF", "BP", "WU")
    cycles = {(layer.name, layer.stage): layer for layer in result.layers}
    height = max(5.0, 1.8 + 0.2 * len(names))
    figure = Figure(figsize=(14, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.7, 1), height_ratios=(5.0, max(height - 5.0, 0.01)))
    bars, causes = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    places, left = np.arange(len(names)), np.zeros(len(names))
    for stage, colour in zip(shown, STAGES, strict=True):
        width = np.array([cycles[name, stage].cycles if (name, stage) in cycles else 0 for name in names])
        bars.barh(places, width, 0.78, left, color=colour, label=stage)
        left += width
    for place, total in zip(places, left, strict=True):
        bars.annotate(f"{total:,.0f}", (total, place), (3, 0), textcoords="offset points", va="center", fontsize=6)
    bars.set_yticks(places, [_plain(name, NAME) for name in names], fontsize=7)
    bars.set_ylim(len(names) - 0.4, -0.6)
    bars.set_xlim(0, 1.14 * max(left.max(initial=0), 1))
    unit = scale(bars.xaxis, left.max(initial=0))
    bars.set_xlabel(f"{unit} of the array, batch of {result.batch}")
    how = result.algorithm if result.algorithm == "dense" else f"{result.algorithm} {result.pattern}"
    bars.set_title(f"{_plain(result.network, NAME)} on {result.config.name}, {how}: {result.cycles:,} cycles", loc="left", fontsize=10)

    elements, bottom = result.config.rows * result.config.cols, np.zeros(len(shown))
    for cause, colour in zip(CAUSES, (*COLOURS, *MORE), strict=True):
        slots = np.array([sum(x.causes[cause] for x in result.layers if x.stage == stage) for stage in shown]) / elements
        if slots.any():
            causes.bar(shown, slots, 0.7, bottom, color=colour, label=cause)
        bottom += slots
    causes.set_ylim(0, 1.06 * max(bottom.max(initial=0), 1))
    causes.set_title("by stage and what slots of processing elements did", loc="left", fontsize=10)
    causes.set_ylabel(scale(causes.yaxis, bottom.max(initial=0)))
    # Beneath the figure, where no bar and no label is.
    figure.legend(
        handles=bars.get_legend_handles_labels()[0], title="stages", title_fontsize=8, fontsize=8, frameon=False,
        loc="outside lower left", ncols=len(shown),
    )  # fmt: skip
    figure.legend(
        handles=causes.get_legend_handles_labels()[0], title="slots of processing elements", title_fontsize=8, fontsize=8, frameon=False,
        loc="outside lower right", ncols=4,
    )  # fmt: skip
    for axes in (bars, causes):
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def scale(axis: Axis, largest: float) -> str:
    """Let an axis of cycles count millions or thousands where they are many; return its unit.

    Parameters
    ----------
    axis : matplotlib.axis.Axis
    largest : float
        Of what it shows [cycles].
    """
    from matplotlib.ticker import FuncFormatter

    factor, unit = next((each for each in SCALES if largest >= each[0]), (1, "cycles"))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / factor:,g}"))
    return unit


def _plain(name: str, longest: int) -> str:
    """Shorten a name, and keep matplotlib from reading a formula in it."""
    return visible(name, longest).replace("$", r"\$")
