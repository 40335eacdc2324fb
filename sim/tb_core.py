"""Bench of :class:`accel.rtl.core.Core`: whole jobs, tile by tile, from operands to requantised results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.golden import core as golden
from accel.golden.postprocess import Params
from accel.graph.network import Window
from accel.isa import Dataflow, Reduce, Source
from accel.rtl import shapes
from accel.schedule.gemm import GemmSchedule, Placed, schedule
from accel.schedule.lower import Product, Reduction, Requantisation
from accel.schedule.transfers import CoreTransfers, core_transfers
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.sim.tb_postprocess import pack_jobs as pack_posts
from accel.sim.tb_stce import pack_tiles, random_operands
from accel.sim.tb_vector import pack_jobs as pack_vectors
from accel.timing.core import core, core_trace, core_vector


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw a matrix product or a reduction of a few tiles, either dataflow, any pattern, per-channel parameters."""
    m, n = int(rng.integers(1, 2 * config.rows + 2)), int(rng.integers(1, min(config.param_rows, 2 * config.add_stages + 1) * config.cols))
    post = Requantisation(
        bias=rng.integers(config.acc.lo, config.acc.hi, n, endpoint=True) >> rng.integers(0, config.acc_bits, n),
        mult=rng.integers(0, 1 << config.mult_bits, n),
        shift=rng.integers(0, min(64, config.acc_bits + config.mult_bits), n),
        **dict(zip(("lo", "zero_point", "hi"), map(int, np.sort(rng.integers(config.act.lo, config.act.hi, 3, endpoint=True))), strict=True)),
    )
    if rng.random() < 0.2:
        beats = int(rng.integers(1, 6))
        low, high = -(1 << isa.COEFFICIENT_BITS - 1), (1 << isa.COEFFICIENT_BITS - 1) - 1
        job = Reduction(
            m=m, n=n, reduce=Reduce(rng.choice(["sum", "max"])), beats=beats,
            head=int(rng.integers(low, high)), tail=int(rng.integers(low, high)), post=post,
        )  # fmt: skip
        return job_case(config, job, rng.integers(config.act.lo, config.act.hi, (m, beats, n), endpoint=True))
    taps, channels, pattern, x, codes = random_operands(config, rng, m, n)
    job = Product(
        m=m, n=n, taps=taps, channels=channels, pattern=pattern, window=Window(), padding=0, group=0, codes=codes, post=post
    )  # fmt: skip
    flow = Dataflow(rng.choice(["os", "ws"]))
    return job_case(config, job, x, schedule(config, m, n, taps, channels, pattern, flow))


def job_case(
    config: AcceleratorConfig, job: Product | Reduction, x: NDArray[np.int64], plan: GemmSchedule | None = None, where: str = ""
) -> Case:
    """Make the case of one job: its transfers, the golden result, the exact cycles.

    Parameters
    ----------
    config : AcceleratorConfig
    job : Product or Reduction
    x : int64, shape (m, k) or (m, beats, n)
        Operands.
    plan : GemmSchedule or None
        Of a product.
    where : str
        What the report says before tile and channel, such as the layer.
    """
    post = job.post
    assert post is not None
    placed = list(plan.placed()) if plan else []
    moves = core_transfers(config, job, x, placed)
    if isinstance(job, Product):
        assert job.codes is not None and plan is not None
        source, cycles = Source.ARRAY, core(config, plan.program()).total
        operands = golden.Product(x, job.codes.values.astype(np.int64), job.codes.positions)
        label = f"{job.m}x{job.k}x{job.n} {job.pattern} {plan.dataflow.value}"
    else:
        source, cycles = Source.VECTOR, core_vector(config, moves.vectors)
        operands = golden.Reduction(job.instruction(job.m), x.reshape(-1, job.n))
        label = f"{job.reduce.value} of {job.beats} beats, {job.m}x{job.n}"
    params = Params(post.bias[None], post.mult[None], post.shift[None])
    result = golden.core(config, operands, post.instruction(source, job.m), params)
    inputs, predict = _ports(config, moves)
    memory = dict(zip(("bias", "mult", "shift"), moves.params, strict=True))
    return Case(
        label=label,
        setup={"params": pack(shapes.params(config), address=np.arange(len(moves.params[0])), **memory)},
        inputs=inputs,
        outputs={
            "o": pack(
                shapes.result(config),
                value=moves.emitted(result.value, min(max(post.zero_point, post.lo), post.hi)),
                overflow=moves.emitted(result.overflow, False),
            )
        },
        predict=predict,
        cycles=cycles,
        place=_place(where, moves, [at for at in placed if at.tile.last]),
    )


def _ports(config: AcceleratorConfig, moves: CoreTransfers) -> tuple[dict[str, list[int]], Callable[[Waits], Waits]]:
    inputs = {"post": pack_posts(config, moves.posts)}
    none = np.zeros(0, np.bool_)
    tiles, ends, heads = [], none, none
    if array := moves.array:
        tiles, ends, heads = array.tiles, array.ends, array.heads
        inputs["tile"] = pack_tiles(config, tiles)
        inputs["west"] = pack(shapes.west(config), data=array.west, end=ends)
        inputs["north"] = pack(shapes.north(config), value=array.values, index=array.indices, head=heads)
    else:
        inputs["reduce"] = pack_vectors(config, moves.vectors)
        inputs["x"] = pack(shapes.lanes(config), moves.x)
    return inputs, lambda driven: core_trace(config, tiles, ends, heads, moves.vectors, moves.posts, driven)


def _place(where: str, moves: CoreTransfers, placed: Sequence[Placed]) -> Callable[[str, int], str]:
    """Say to which tile and which rows and channels an emitted row belongs."""
    cols = moves.x.shape[1]
    ends = np.cumsum([(rows.stop - rows.start) * (at.stop - at.start) // cols for rows, at in moves.blocks])

    def place(port: str, position: int) -> str:
        if port != "o" or position >= ends[-1]:
            return where
        tile = int(np.searchsorted(ends, position, "right"))
        rows, at = moves.blocks[tile]
        kind = f" {placed[tile].tile.dataflow.value}" if placed else ""
        return f"{where}{', ' if where else ''}tile {tile}{kind}, rows {rows.start}..{rows.stop - 1}, channels from {at.start}"

    return place
