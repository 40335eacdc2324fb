"""Multiplications of a training step, by layer and stage: those of the dense network, and those that remain where operands are N:M sparse.

Counted is what the reductions hold: products with padding count, as they do in FF, in every stage alike. The array may execute others at
the edges of an image, where BP of a stride has none (:mod:`accel.schedule.gemm` has its exact cycles).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from accel.errors import RangeError
from accel.graph.trainable import BatchNorm, Bias, Convolution, LayerNorm, Product, Trainable
from accel.sparsity import Pattern

STAGES = ("FF", "BP", "WU")
"""Forward, gradient of the input, gradient of the weights."""
PRUNED: dict[str, dict[str, str]] = {
    "bdwp": {"FF": "weights", "BP": "weights"},
    "sr-ste": {"FF": "weights"},
    "sdgp": {"BP": "gradient"},
    "dense": {},
}
"""By algorithm and stage which operand is pruned along the reduction, so that products are left out. WU is dense. The BP of SR-STE has
weights pruned along the other axis: all its products remain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Multiplications (MACs) of one stage of one layer, for one sample.

    Parameters
    ----------
    layer : str
    stage : str
        One of STAGES.
    dense : int
        Without sparsity.
    executed : int
        With it: a group of g < M elements at the end of the channels keeps min(N, g).
    ideal : Fraction
        With N/M of the dense ones wherever something is pruned, short groups or not.
    """

    layer: str
    stage: str
    dense: int
    executed: int
    ideal: Fraction


def operations(
    network: Trainable, pattern: Pattern, algorithm: str = "bdwp", eligible: Collection[str] | None = None
) -> tuple[Operations, ...]:
    """Count the multiplications of each layer and stage of a training step.

    A convolution with p output positions and reduction k has ``p * filters * k`` in each stage; a product of activations as many in FF and
    twice that in BP. BP is left out where no layer before has anything to train: at the first layer.

    Parameters
    ----------
    network : Trainable
        Weights may be unknown.
    pattern : Pattern
        Of what is pruned.
    algorithm : str
        Key of PRUNED.
    eligible : collection of str, optional
        Layers that are pruned; else those of :meth:`~accel.graph.trainable.Trainable.eligible`.

    Returns
    -------
    tuple of Operations
        In the order of the layers, stages in the order of STAGES.

    Raises
    ------
    RangeError
        If the algorithm is unknown, or a layer that is pruned is none of the network.
    """
    if algorithm not in PRUNED:
        raise RangeError(f"algorithm must be one of {', '.join(PRUNED)}, not {algorithm!r}")
    chosen = network.eligible() if eligible is None else frozenset(eligible)
    unknown = sorted(chosen - {layer.name for layer in network.convolutions})
    if unknown:
        raise RangeError(f"eligible must be layers with weights, not {unknown[0]!r}")
    wanted: set[str] = set()  # tensors whose gradient is wanted
    found = []
    for layer in network.layers:
        backward = not wanted.isdisjoint(layer.inputs)
        if backward or isinstance(layer, (Convolution, BatchNorm, LayerNorm, Bias)):
            wanted.add(layer.output)
        if isinstance(layer, Convolution):
            stages = PRUNED[algorithm] if layer.name in chosen else {}
            for stage in STAGES:
                if stage != "BP" or backward:
                    found.append(_convolution(network, layer, stage, pattern if stage in stages else None))
        elif isinstance(layer, Product):
            dense = layer.count * layer.m * layer.k * layer.n
            for stage, count in (("FF", dense), ("BP", 2 * dense)):
                found.append(Operations(layer=layer.name, stage=stage, dense=count, executed=count, ideal=Fraction(count)))
    return tuple(found)


def _convolution(network: Trainable, layer: Convolution, stage: str, pattern: Pattern | None) -> Operations:
    """Count a stage of a convolution: FF reduces over the input channels of a tap and group, BP over the filters."""
    reduced = (layer.filters if stage == "BP" else layer.channels) // layer.groups
    positions = prod(network.shapes[layer.output]) // layer.filters
    dense = positions * layer.filters * layer.reduction
    if pattern is None:
        return Operations(layer=layer.name, stage=stage, dense=dense, executed=dense, ideal=Fraction(dense))
    executed = dense // reduced * int(pattern.pairs(reduced))
    return Operations(layer=layer.name, stage=stage, dense=dense, executed=executed, ideal=Fraction(dense * pattern.n, pattern.m))


def bound(counted: Iterable[Operations], *, ideal: bool = False) -> Fraction:
    """Divide dense by executed multiplications: the speed-up of the products that sparsity allows, and no schedule exceeds.

    The reduction of operations is ``1 - 1 / bound``.

    Parameters
    ----------
    counted : iterable of Operations
        Of :func:`operations`, all or some.
    ideal : bool
        Take N/M of the dense ones, not what short groups keep.
    """
    rows = tuple(counted)
    return Fraction(sum(row.dense for row in rows)) / sum((row.ideal if ideal else Fraction(row.executed) for row in rows), Fraction())
