"""Where the cycles of a network go, as a figure."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from accel.result import Result

# Okabe and Ito's palette, told apart with any colour vision; one colour per cause of accel.result.CAUSES.
COLOURS = ("#009E73", "#56B4E9", "#0072B2", "#E69F00", "#D55E00", "#F0E442", "#CC79A7", "#999999")


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
                "vector unit"
                if layer.pattern is None
                else "dense"
                if layer.macs_executed == layer.macs_dense
                else f"{layer.pattern} sparse"
            )
            axes.annotate(f"{layer.cycles:,} ({run})", (layer.cycles, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [f"{layer.name}\n{layer.m} x {layer.k} x {layer.n}" for layer, _ in pairs], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * widest)
    axes.set_xlabel(f"cycles of a batch of {dense.batch} (excludes memory)")
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
