"""Cycles of the compute core: the blocks' own, joined where they meet.

A row of the array reaches the post-processor in the cycle in which the array emits it, and so does a row of the vector unit; each leaves
`STAGES` of the post-processor later. A partial sum of a weight-stationary pass comes back through the accumulator one cycle after the
array emits it: `feedback`. The post-processor takes a row every cycle, so nothing ever waits for it, and its jobs come before their rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.isa import Source
from accel.timing.accumulator import accumulator_trace
from accel.timing.postprocess import STAGES, postprocess_trace
from accel.timing.stce import Cycles, Job, depth, stce, stce_trace
from accel.timing.vector import vector, vector_trace

Waits = dict[str, NDArray[np.bool_]]


def feedback(config: AcceleratorConfig) -> int:
    """Cycles from the issue of a weight-stationary step to the earliest issue that uses its partial sum [cycles]."""
    return depth(config)


def core(config: AcceleratorConfig, program: Iterable[Job | isa.Loop]) -> Cycles:
    """Count the cycles of a matrix product from its first operand to its last result, both inclusive.

    Parameters
    ----------
    config : AcceleratorConfig
    program : iterable of Job and isa.Loop
        Tiles in order.

    Returns
    -------
    Cycles
    """
    counts = stce(config, program, feedback(config))
    return replace(counts, total=counts.total + STAGES)


def core_vector(config: AcceleratorConfig, jobs: Iterable[isa.Vector]) -> int:
    """Count the cycles of jobs of the vector unit from the first one's acceptance to its last result, both inclusive.

    Parameters
    ----------
    config : AcceleratorConfig
    jobs : iterable of isa.Vector
        One or more.

    Returns
    -------
    int
    """
    return vector(config, jobs) + STAGES


def core_trace(
    config: AcceleratorConfig,
    tiles: list[isa.Tile],
    ends: NDArray[np.bool_],
    heads: NDArray[np.bool_],
    vectors: list[isa.Vector],
    posts: list[isa.Post],
    driven: Waits,
) -> Waits:
    """Predict the handshakes of every cycle from those of the neighbours, starting idle: the blocks' recurrences, joined.

    What a block says in a cycle depends on the others' past and, along the chain towards the output, on the same cycle. So each round
    makes at least one more cycle right, whatever it says of later ones, and where nothing changes any more the blocks agree.

    Parameters
    ----------
    config : AcceleratorConfig
    tiles, ends, heads
        See :func:`accel.timing.stce.stce_trace`.
    vectors, posts : list of isa.Vector, list of isa.Post
        Jobs in order.
    driven : dict of bool, shape (cycles,)
        `valid` of tile, west, north, reduce, x and post, and `ready` of o.

    Returns
    -------
    dict of bool, shape (cycles,)
        `ready` of the inputs and `valid` of o.
    """
    never = np.zeros(driven["o"].size, np.bool_)
    # At most one transfer a cycle: padded so far, no round reads behind the end.
    keep = np.array([kept for tile in tiles for kept in _kept(config, tile)] + [False] * never.size, np.bool_)
    jobs = [np.array([getattr(job, name) for job in vectors] + [1] * never.size, np.int64) for name in ("rows", "window")]
    rows = np.array([post.rows for post in posts] + [1] * never.size, np.int64)
    source = np.array([post.source is Source.VECTOR for post in posts] + [False] * never.size, np.int64)
    psum_valid = o_ready = array_ready = vector_ready = never
    last = None
    while True:
        shown, o_valid = stce_trace(config, tiles, ends, heads, {**driven, "psum": psum_valid}, o_ready)
        o_ready, array_valid, psum_valid = accumulator_trace(config.acc_rows, keep, o_valid, array_ready, shown["psum"])
        reduce_ready, x_ready, vector_valid = vector_trace(jobs[0], jobs[1], driven["reduce"], driven["x"], vector_ready)
        post_ready, array_ready, vector_ready, valid = postprocess_trace(
            rows, source, driven["post"], array_valid, vector_valid, driven["o"]
        )
        said = np.concatenate([*shown.values(), o_ready, psum_valid, array_valid, array_ready, vector_valid, vector_ready, valid])
        if last is not None and np.array_equal(last, said):
            break
        last = said
    return {
        **{name: shown[name] for name in ("tile", "west", "north")},
        "reduce": reduce_ready,
        "x": x_ready,
        "post": post_ready,
        "params": ~never,
        "o": valid,
    }


def _kept(config: AcceleratorConfig, tile: isa.Tile) -> list[bool]:
    """`keep` of the rows that a tile emits."""
    if tile.dataflow is isa.Dataflow.WS:
        return [not tile.last] * tile.steps
    return [False] * (tile.rows * config.add_stages if tile.last else 0)
