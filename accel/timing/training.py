"""Cycles of the vector unit in a training step: what is taken in which passes, what they read and write. All of it is our choice.

There is no hardware of this yet. The unit is that of :mod:`accel.timing.special`: as many lanes as the array has columns, each takes an
element of every tensor that a sweep reads per cycle, and has one multiplier beside the post-processor's. What it does in inference costs
the same here. Work is one or more passes; a **pass** takes its elements from DRAM and back, and in between sweeps over them once or more.
They come in rows (the channels of a position, a row to be normalised), each of ``ceil(row / cols)`` beats.

Forward:

- ``BatchNorm``: 1 sweep, x * a + b. The array has summed x and x**2 by column while results left it, so means and roots take no sweep:
  when the last image of x is there, SCALARS cycles make a and b of them, in a pipeline that takes a channel per cycle.
- ``Add``, alone: 2 sweeps, a beat for each operand, as the vector unit in hardware does. What takes a sum along reads both at once.
- ``MaxPool``, ``AveragePool``: a sweep for each tap of the window over the elements of the result, as in hardware. A maximum leaves its
  place in the window beside it, which the way back needs.
- ``LayerNorm`` and ``Softmax`` 3, ``Gelu`` 1 (a table): as in inference. A row leaves its mean and its reciprocal root for the way back.
- ``Relu``, ``Clip``, alone: 1 sweep. Behind anything else they are bounds of the post-processor, as they are behind a product of the array.
- ``Bias``: 2 sweeps, as ``Add``; the constant is there from tile to tile.
- ``Loss``: softmax of the logits, of whose quotients the one-hot label is subtracted as they leave.
- ``Move``: no cycle of a lane.

Backward, from the gradient dy of the result to dx of the operand:

- ``BatchNorm``: 1 sweep for the sums of dy and dy * x by channel, one product. When the last image has been through, again SCALARS cycles
  make of them the gradients of gamma and beta and three numbers by channel; then 1 sweep, dx = (dy + x * b + c) * a, whose first product
  is the lane's, whose second is the one by which the post-processor scales channels.
- ``Add``, ``Relu``, ``Clip``: none; what reads dx reads dy, and the mask where it is loaded.
- ``MaxPool``, ``AveragePool``: a sweep for each tap over the elements of dy: a beat of dy goes to each place of its window.
- ``LayerNorm``: 6 sweeps, a product each, with u the normalised x: u; h = dy * gamma and its sum by row; the sum of h * u by row; dy * u,
  added up by column, as is dy, for gamma and beta; h + u * b + c; times the reciprocal root.
- ``Gelu``: 2 sweeps: the table of the derivative, times dy.
- ``Softmax``: 2 sweeps, with y its result: the sum of y * dy by row; y * (dy - sum).
- ``Bias``: 1 sweep that adds up dy over the batch; so does the bias of a product (``Columns``), unless the array does it.
- Gradients of a tensor with several readers (:func:`gather`): a sweep for each, as in ``Add``.
- ``Prune``: SDGP's pruning of dy: 1 sweep through a pruner for the norms by channel of an image before and after; a quotient for each of
  them; 1 sweep times the quotient, through the pruner again, that stores pairs.

A ReLU behind work leaves a mask, a bit per element, which whatever reads dy reads too: :func:`rectified`.
"""

from __future__ import annotations

from typing import NamedTuple

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.timing import postprocess, vector
from accel.timing.special import QUOTIENT, ROOT, STAGES

JOB = 1 + vector.STAGES + postprocess.STAGES
"""Of a job of the vector unit in hardware, beyond its beats: :func:`accel.timing.core.core_vector` [cycles]."""
SCALED = STAGES + postprocess.STAGES
"""Of a lane whose result the post-processor scales [cycles]."""

SCALARS = 62 + ROOT + 4 * STAGES
"""Of batch normalisation's scalars by channel, in line [cycles]: a quotient of 62 bits, a bit per cycle, root and reciprocal, products."""
BITS = {"mask": 1, "place": 8}
"""Of an element of what is no tensor of the network: the mask of a ReLU, the place of a maximum in its window."""
MOMENTS = 64
"""Of a row: mean and reciprocal root of 32 bits, which layer normalisation keeps for the way back."""


class Pass(NamedTuple):
    """A pass of the vector unit over some elements.

    Parameters
    ----------
    sweeps : int
        How often a lane takes each element; of pooling: for each tap of the window.
    reads, writes : tuple of str
        What crosses DRAM, of as many elements as the tensors have: ``"x"`` operand, ``"y"`` result, ``"dx"``, ``"dy"`` their gradients,
        ``"mask"`` and ``"place"`` of BITS for each element of the result, ``"moments"`` of MOMENTS for each row, ``"pairs"`` of a pruned
        dy.
    trees : int
        Sweeps that end in a tree over the lanes.
    beside : int
        Scalar work that the last row of a tile waits for [cycles].
    scalars : int
        Scalar work by channel before the pass, in line; one more for each channel after the first [cycles].
    whole : bool
        Whether its first tile, and what comes before it by channel, waits for all images; otherwise each tile has its own.
    lag : int
        From the last beat to the last result [cycles].
    """

    sweeps: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    trees: int = 0
    beside: int = 0
    scalars: int = 0
    whole: bool = False
    lag: int = STAGES


class Cost(NamedTuple):
    """What a tile costs.

    Parameters
    ----------
    cycles : int
        For which it keeps the vector unit.
    lag : int
        From its end to its last result [cycles].
    """

    cycles: int
    lag: int


def gather(readers: int) -> Pass:
    """Make the pass that adds up the gradients which the readers of a tensor give.

    Parameters
    ----------
    readers : int
        2 or more.
    """
    if readers < 2:
        raise RangeError(f"readers must be 2 or more, not {readers}")
    return Pass(readers, ("dy",) * readers, ("dx",), lag=JOB)


FORWARD: dict[str, tuple[Pass, ...]] = {
    "BatchNorm": (Pass(1, ("x",), ("y",), scalars=SCALARS, whole=True),),
    "Relu": (Pass(1, ("x",), ("y",)),),
    "Clip": (Pass(1, ("x",), ("y",)),),
    "Add": (Pass(2, ("x", "x"), ("y",), lag=JOB),),
    "MaxPool": (Pass(1, ("x",), ("y", "place"), lag=JOB),),
    "AveragePool": (Pass(1, ("x",), ("y",), lag=JOB),),
    "LayerNorm": (Pass(3, ("x",), ("y", "moments"), trees=1, beside=ROOT),),
    "Gelu": (Pass(1, ("x",), ("y",)),),
    "Softmax": (Pass(3, ("x",), ("y",), trees=2, beside=QUOTIENT),),
    "Bias": (Pass(2, ("x",), ("y",), lag=JOB),),
    "Loss": (Pass(3, ("x",), ("dx",), trees=2, beside=QUOTIENT),),
    "Move": (Pass(0, ("x",), ("y",)),),
}
"""Passes by kind of layer, and of the loss."""
BACKWARD: dict[str, tuple[Pass, ...]] = {
    "BatchNorm": (Pass(1, ("dy", "x"), ()), Pass(1, ("dy", "x"), ("dx",), scalars=SCALARS, whole=True, lag=SCALED)),
    "Relu": (),
    "Clip": (),
    "Add": (),
    "MaxPool": (Pass(1, ("dy", "place"), ("dx",), lag=JOB),),
    "AveragePool": (Pass(1, ("dy",), ("dx",), lag=JOB),),
    "LayerNorm": (Pass(6, ("dy", "x", "moments"), ("dx",), trees=2),),
    "Gelu": (Pass(2, ("dy", "x"), ("dx",)),),
    "Softmax": (Pass(2, ("dy", "y"), ("dx",), trees=1),),
    "Bias": (Pass(1, ("dy",), ()),),
    "Columns": (Pass(1, ("dy",), ()),),
    "Move": (Pass(0, ("dy",), ("dx",)),),
    "Prune": (Pass(1, ("dy",), ()), Pass(1, ("dy",), ("pairs",), scalars=QUOTIENT)),
}
"""Passes by kind of layer, of a product's bias and of SDGP's gradient; see also :func:`gather`."""


def rectified(work: Pass) -> Pass:
    """Add the mask of a ReLU behind the work: written with y, read with dy.

    Parameters
    ----------
    work : Pass
    """
    return work._replace(
        reads=(*work.reads, *("mask" for name in work.reads if name == "dy")),
        writes=(*work.writes, *("mask" for name in work.writes if name == "y")),
    )


def training(config: AcceleratorConfig, work: Pass, rows: int, row: int, taps: int = 1, first: bool = True) -> Cost:
    """Count the cycles of a tile of a pass.

    With beats = rows * ceil(row / cols): ``sweeps * taps * beats``. In work that takes rows as a whole (with a tree or something beside)
    a sweep waits for the one before: ``(sweeps - 1) * STAGES + trees * ceil(log2(cols)) + beside``; elsewhere sweeps follow without a gap.
    Before it, scalar work by channel: ``scalars + row - 1``, for the first tile alone where the pass waits for all images. The last result
    leaves `lag` cycles after the end.

    Parameters
    ----------
    config : AcceleratorConfig
        Its `cols` are the lanes.
    work : Pass
    rows : int
        1 or more: positions of the result of a pass forward and of dy of a pass backward.
    row : int
        Elements of each, 1 or more: channels.
    taps : int
        Of a pooling window, 1 or more.
    first : bool
        Whether it is the first tile of the pass.

    Returns
    -------
    Cost

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    for name, value in (("rows", rows), ("row", row), ("taps", taps)):
        if value < 1:
            raise RangeError(f"{name} must be 1 or more, not {value}")
    if work.sweeps == 0:
        return Cost(0, 0)
    cycles = work.sweeps * taps * rows * -(-row // config.cols)
    if work.trees or work.beside:
        cycles += (work.sweeps - 1) * STAGES + work.trees * (config.cols - 1).bit_length() + work.beside
    if work.scalars and (first or not work.whole):
        cycles += work.scalars + row - 1
    return Cost(cycles, work.lag)
