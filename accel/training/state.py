"""Everything that a training step changes: parameters, their formats, running statistics, counters. What a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, kw_only=True, eq=False)
class Parameter:
    """A trained tensor: weights of a convolution (filters, kh, kw, channels / groups), a bias, gamma or beta (channels,).

    Parameters
    ----------
    master, velocity : int64, any shape
        Master copy and momentum, MASTER_BITS wide.
    working : int64, shape of `master`
        Working copy, `weight_bits` wide, not pruned.
    mask, back : bool, shape of `master`, or None
        Which weights FF and BP keep; None: all.
    lanes : int64, shape (L,), or None
        States of the words that round the working copy; None unless rounding is stochastic.
    """

    master: NDArray[np.int64]
    velocity: NDArray[np.int64]
    working: NDArray[np.int64]
    mask: NDArray[np.bool_] | None = None
    back: NDArray[np.bool_] | None = None
    lanes: NDArray[np.int64] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Tracked:
    """The format of a tensor, tracked: fraction bits, and what the rule of :mod:`accel.training.formats` looks at.

    Parameters
    ----------
    bits, frac : int
        value = integer * 2**-frac.
    peak : int
        Largest magnitude since the last change or the start of the window.
    quiet : int
        Steps of the window so far.
    overflowed, elements : int
        Saturated elements, and all elements, since the start of the run.
    change : int
        What `frac` moves by when the next working copy is written: the present one keeps its format while it is read.
    """

    bits: int
    frac: int
    peak: int = 0
    quiet: int = 0
    overflowed: int = 0
    elements: int = 0
    change: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class State:
    """What is carried from step to step.

    Parameters
    ----------
    step : int
        Steps done.
    parameters : dict of str to Parameter
        By name: ``"<layer>.weight"``, ``"<layer>.bias"``, ``"<layer>.gamma"``, ``"<layer>.beta"``.
    formats : dict of str to Tracked
        By name: ``"<tensor>"`` of an activation, ``"<tensor>'"`` of its gradient, ``"<parameter>"`` of a working copy,
        ``"<parameter>'"`` of its gradient; ``"<parameter>^"`` of the master copy and ``"<parameter>~"`` of the momentum are fixed.
    statistics : dict of str to int64 arrays, shape (2, channels)
        Running mean and variance of each batch normalisation, in the format of :mod:`accel.special.batch_norm`.
    """

    step: int = 0
    parameters: dict[str, Parameter] = field(default_factory=dict)
    formats: dict[str, Tracked] = field(default_factory=dict)
    statistics: dict[str, NDArray[np.int64]] = field(default_factory=dict)
