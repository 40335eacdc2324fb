"""Cycles of the processing element. Its interval is 1: it takes new tags, activations, pairs and sums every cycle."""

from __future__ import annotations

from typing import NamedTuple

from accel.config import AcceleratorConfig


class Hops(NamedTuple):
    """Cycles between the ports of a processing element.

    Parameters
    ----------
    east : int
        Tags and bundle, west side to east side: one register.
    south : int
        Pair, north to south: as long as a sum takes from one adder to the next, so that both stay together.
    meet : int
        Tags to the cycle in which the sum from the north meets the product: the held operands and the multiplier.
    sum : int
        Tags to the sum that leaves southwards: `meet` and the adder.
    """

    east: int
    south: int
    meet: int
    sum: int


def uspe(config: AcceleratorConfig) -> Hops:
    """Return the latencies of a processing element [cycles]: 1, A, 1 + L and 1 + L + A for A add and L multiplier stages.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of `add_stages` and `mult_stages`.

    Returns
    -------
    Hops
    """
    meet = 1 + config.mult_stages
    return Hops(east=1, south=config.add_stages, meet=meet, sum=meet + config.add_stages)
