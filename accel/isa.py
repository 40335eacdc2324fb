"""Instructions of the accelerator, as frozen dataclasses. Widths of their fields are stated here, once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

STEP_BITS = 24  # our choice: a tile lasts at most 2**24 - 1 steps
ROW_BITS = 24  # our choice: a post-processing or vector job covers at most 2**24 - 1 rows
SHIFT_BITS = 6  # shifts of 0 to 63
COEFFICIENT_BITS = 16  # our choice: signed coefficients of the vector unit


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
