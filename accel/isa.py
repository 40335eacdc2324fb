"""Instructions of the accelerator, as frozen dataclasses. Widths of their fields are stated here, once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

STEP_BITS = 24  # our choice: a tile lasts at most 2**24 - 1 steps
ROW_BITS = 24  # our choice: a post-processing or vector job covers at most 2**24 - 1 rows
SHIFT_BITS = 6  # shifts of 0 to 63
COEFFICIENT_BITS = 16  # our choice: coefficients of the vector unit, signed, and of the weight update, unsigned
MASTER_BITS = 32  # our choice: master weights and their momentum
MOMENTUM_SHIFT = 16  # a momentum of 1 - 2**-16 at most
GRADIENT_SHIFT = 31  # our choice: the most that a gradient is moved up, so that the sum of a 32-bit one fits in 64 bits


class Dataflow(Enum):
    """Which operand a processing element keeps."""

    OS = "os"
    """Output stationary: the sum stays, activations move east, pairs move south."""
    WS = "ws"
    """Weight stationary: one pair stays, activations move east, partial sums move south."""


class Source(Enum):
    """Where the rows of a post-processing job come from."""

    ARRAY = "array"
    """Finished sums of the array."""
    VECTOR = "vector"
    """Sums or maxima of the vector unit."""


class Reduce(Enum):
    """How the vector unit combines the beats of a window."""

    SUM = "sum"
    """Exact weighted sum, the overflow rule of the accumulator after every addition."""
    MAX = "max"
    """Largest element; coefficients are ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One tile of a matrix product on the array.

    Parameters
    ----------
    dataflow : Dataflow
    steps : int
        OS: pairs per output, 1 or more. WS: rows of activations (pixels) streamed past the stationary pairs.
    rows : int
        OS: rows (pixels) of the result, 1 to R. WS: pairs loaded per column, 1 to R.
    first : bool
        OS: sums start from 0, else the sums of the previous tile go on. WS: sums start from 0, else they come from the accumulator.
    last : bool
        OS: results drain, else they stay. WS: results go to the post-processor, else to the accumulator.
    """

    dataflow: Dataflow
    steps: int
    rows: int
    first: bool = True
    last: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One job of the vector unit: `rows` results, each reduced over `window` beats.

    Parameters
    ----------
    reduce : Reduce
    rows : int
        Result rows of `cols` elements, 1 or more.
    window : int
        Beats per result row, 1 or more.
    head, tail : int
        Signed coefficients of COEFFICIENT_BITS bits, of the first beat of a window and of every other one.
    """

    reduce: Reduce
    rows: int
    window: int
    head: int = 1
    tail: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One job of the post-processor: requantise `rows` rows.

    Parameters
    ----------
    source : Source
    rows : int
        Rows of `cols` sums, 1 or more.
    base, vectors : int
        Row i takes its bias, multiplier and shift from parameter vector `base` + i mod `vectors`.
    zero_point : int
        Added after rounding, an output integer.
    lo, hi : int
        Output integers: ReLU, Clip and the type's range merged.
    rounding : Rounding value
        ``"floor"``, ``"half_up"`` or ``"half_even"``.
    """

    source: Source
    rows: int
    base: int = 0
    vectors: int = 1
    zero_point: int = 0
    lo: int
    hi: int
    rounding: str = "half_even"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One job of the weight-update engine: ``v = momentum * v + g + decay * w``, ``w = w - rate * v``, then the working copy of w.

    All operands are integers; a coefficient c with shift s stands for ``c * 2**-s``. Each of the four products and alignments is rounded
    on its own, half to even; v and w saturate. Which format an integer has is nobody's concern here.

    Parameters
    ----------
    beats : int
        Beats of L elements, 1 or more.
    lanes : int
        Lanes with an element in every beat, 1 to L.
    momentum : int
        Coefficient with MOMENTUM_SHIFT, of COEFFICIENT_BITS unsigned bits.
    gradient_shift : int
        The gradient is moved up by this, 0 to 31: ``g * 2**gradient_shift``.
    decay, pruned_decay, decay_shift : int
        Coefficients (COEFFICIENT_BITS, unsigned) of kept and of pruned weights, and their shift, 0 to 63.
    rate, rate_shift : int
        Coefficient (COEFFICIENT_BITS, unsigned) and its shift, 0 to 63.
    working_shift : int
        Dropped bits of the working copy, 0 to 63.
    rounding : Rounding value
        Of the working copy: ``"half_even"`` or ``"stochastic"``.
    last : bool
        Stochastic: the job ends its tensor, whose words end with it; the next job that draws words waits for a seed. Else it says nothing.
    """

    beats: int
    lanes: int
    momentum: int = 0
    gradient_shift: int = 0
    decay: int = 0
    pruned_decay: int = 0
    decay_shift: int = 0
    rate: int
    rate_shift: int
    working_shift: int
    rounding: str = "half_even"
    last: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """One job of the pruner: a strip of weights, `beats` input channels of one tap by `lanes` output channels.

    Beat c holds input channel c of every lane's output channel. Groups along the beats (input channels) are the forward code, groups along
    the lanes (output channels) the backward code; the last group of either may be short.

    Parameters
    ----------
    beats : int
        Input channels, 1 or more.
    lanes : int
        Output channels, 1 to L.
    n, m : int
        N:M, 1 <= n <= m <= the bundle of the config.
    """

    beats: int
    lanes: int
    n: int
    m: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Hardware loop: `body` is run `count` times.

    Parameters
    ----------
    count : int
        1 or more.
    body : tuple
        Instructions, jobs or loops.
    """

    count: int
    body: tuple[Any, ...]
