"""The course of a run, in fixed point and in floating point alike: batches of an epoch, the learning rate of a step, curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from accel.errors import NetworkError, RangeError
from accel.graph.trainable import Trainable, check_trained
from accel.training.data import ORDER, order
from accel.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """How far a run has come after an epoch.

    Parameters
    ----------
    epoch : int
        From 1.
    loss : float
        Mean over the samples of the epoch, each before its own step.
    accuracy : float
        Share of the epoch's samples that were classified right before their own step.
    held_out : float
        Share of the samples held out that are classified right after the epoch.
    saturated : dict of str to int
        Elements that saturated in the epoch, by the names of :class:`accel.training.state.State`; none in floating point.
    overflowed : dict of str to int
        Sums that left the accumulator in the epoch, by layer and stage, as ``"conv1 FF"``.
    """

    epoch: int
    loss: float
    accuracy: float
    held_out: float
    saturated: dict[str, int] = field(default_factory=dict)
    overflowed: dict[str, int] = field(default_factory=dict)


def batches(samples: int, recipe: Recipe, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each batch of an epoch, counted from 0; rows that do not fill a batch are left out."""
    rows = order(samples, recipe.seed, ORDER, epoch)
    for start in range(0, samples - recipe.batch + 1, recipe.batch):
        yield rows[start : start + recipe.batch]


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of step `step`, counted from 0, of `steps`: ``rate * (1 + cos(pi * step / steps)) / 2`` with ``cosine``."""
    return recipe.rate * (1 + cos(pi * step / steps)) / 2 if recipe.schedule == "cosine" else recipe.rate


def pruned(network: Trainable, recipe: Recipe) -> frozenset[str]:
    """Name the layers that a recipe prunes.

    Raises
    ------
    NetworkError
        If a layer that is to stay dense is not there.
    """
    names = [layer.name for layer in network.convolutions]
    for name in recipe.dense or ():
        if name not in names:
            raise NetworkError(f"dense must be of layers with weights, {', '.join(names)}, not {name!r}")
    if recipe.algorithm == "dense":
        return frozenset()
    return network.eligible() if recipe.dense is None else frozenset(names) - frozenset(recipe.dense)


def check(network: Trainable, recipe: Recipe, epochs: int, samples: int) -> None:
    """Refuse a run that cannot be.

    Raises
    ------
    RangeError, NetworkError
        If an argument breaks its rule.
    """
    if type(epochs) is not int or not 1 <= epochs < 1 << 20:
        raise RangeError(f"epochs must be an int in [1, {(1 << 20) - 1}], not {epochs!r}")
    check_trained(network)
    if recipe.batch > samples:
        raise RangeError(f"batch must be at most the {samples} training samples, not {recipe.batch}")
    pruned(network, recipe)
