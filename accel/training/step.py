"""One step of training as the accelerator does it, bit by bit: forward, backward, weight gradients, update, pruning (decision 17)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.graph.trainable import Trainable
from accel.training.recipe import Recipe
from accel.training.state import Parameter, State

Integers = NDArray[np.signedinteger[Any]]


@dataclass(slots=True, kw_only=True, eq=False)
class Record:
    """Everything that a step read and wrote, in integers: enough to replay it block by block.

    Parameters
    ----------
    fractions : dict of str to int
        Fraction bits during the step, by the names of :class:`~accel.training.state.State`; every tensor and every gradient has its own
        entry, also where several share a format. A working copy has that of before the step.
    tensors : dict of str to integers, shape (samples, *stored shape)
        Activations by name.
    gradients : dict of str to integers, shape (samples, *stored shape)
        Gradients by the name of the tensor, as the layer that wrote it loads them: after the mask of a ReLU. None of the input, nor of
        what no parameter stands before.
    contributions : dict of (str, int) to integers
        By layer and number of its input: what backward work of the layer hands to that input. Gradients are their sums.
    pruned : dict of str to integers
        By layer: the output gradient as BP reads it, where it is pruned (SDGP).
    forward, backward : dict of str to integers, shape (filters, kh, kw, channels / groups)
        By layer: weights of FF and of BP, zeros where they are pruned.
    biases : dict of str to int64, shape (filters,)
        By layer: what FF adds to its sums [product LSBs].
    shifts : dict of (str, str) to int
        By layer and ``"FF"``, ``"BP"`` or ``"WU"``: dropped bits of the sums; negative ones are a multiplier of ``2**-shift``.
    floors : dict of str to int
        By layer: `lo` of FF's results, 0 where only a ReLU reads them.
    parameter_gradients : dict of str to integers
        By parameter, in its shape.
    before, after : dict of str to Parameter
        Copies of all parameters.
    updates : dict of str to tuple of isa.Update
        By parameter: the jobs of `wuve`, strip by strip.
    prunes : dict of str to tuple of isa.Prune
        By parameter: the jobs of `sore`, strip by strip and tap by tap; none in a step that does not prune.
    """

    fractions: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, Integers] = field(default_factory=dict)
    gradients: dict[str, Integers] = field(default_factory=dict)
    contributions: dict[tuple[str, int], Integers] = field(default_factory=dict)
    pruned: dict[str, Integers] = field(default_factory=dict)
    forward: dict[str, Integers] = field(default_factory=dict)
    backward: dict[str, Integers] = field(default_factory=dict)
    biases: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    shifts: dict[tuple[str, str], int] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    parameter_gradients: dict[str, Integers] = field(default_factory=dict)
    before: dict[str, Parameter] = field(default_factory=dict)
    after: dict[str, Parameter] = field(default_factory=dict)
    updates: dict[str, tuple[isa.Update, ...]] = field(default_factory=dict)
    prunes: dict[str, tuple[isa.Prune, ...]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome:
    """What a step tells.

    Parameters
    ----------
    loss : float
        Mean of the losses of the batch; host.
    correct : int
        Samples whose greatest logit, the first of equal ones, is that of their label.
    saturated : dict of str to int
        Elements that saturated in this step, by tensor (``"<tensor>"``, ``"<tensor>'"``) and parameter (``"<parameter>"`` of the working
        copy, ``'`` of its gradient, ``^`` of the master, ``~`` of the momentum); those that had none are left out.
    overflowed : dict of (str, str) to int
        Sums that left the accumulator, by layer and ``"FF"``, ``"BP"`` or ``"WU"``; those that had none are left out.
    record : Record or None
        Everything, if it was asked for.
    """

    loss: float
    correct: int
    saturated: dict[str, int]
    overflowed: dict[tuple[str, str], int]
    record: Record | None = None


def prepare(network: Trainable, config: AcceleratorConfig, recipe: Recipe, samples: NDArray[np.floating[Any]], labels: Integers) -> State:
    """Make the state before the first step: weights, and formats that one batch calibrates.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
    samples : float, shape (samples, *stored shape)
    labels : integers, shape (samples,)
    """
    raise NotImplementedError


def quantise(network: Trainable, state: State, samples: NDArray[np.floating[Any]]) -> Integers:
    """Bring samples into the input's format, which calibration fixes for good: half to even, saturated; host.

    Parameters
    ----------
    network : Trainable
    state : State
    samples : float, shape (samples, *stored shape)
    """
    raise NotImplementedError


def step(
    network: Trainable,
    config: AcceleratorConfig,
    recipe: Recipe,
    state: State,
    samples: Integers,
    labels: Integers,
    rate: float,
    keep: bool = False,
) -> Outcome:
    """Train on one batch: `state` changes.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
    state : State
    samples : integers, shape (samples, *stored shape)
        Of :func:`quantise`.
    labels : integers, shape (samples,)
    rate : float
        Learning rate.
    keep : bool
        Keep a :class:`Record`.
    """
    raise NotImplementedError


def infer(network: Trainable, config: AcceleratorConfig, recipe: Recipe, state: State, samples: Integers) -> Integers:
    """Compute logits with running statistics, and with the weights that FF would read in the next step.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
    state : State
    samples : integers, shape (samples, *stored shape)
        Of :func:`quantise`.

    Returns
    -------
    integers, shape (samples, classes)
        In the format of the network's output.
    """
    raise NotImplementedError
