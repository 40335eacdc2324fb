"""Bench of :class:`accel.rtl.core.Core`: whole jobs, tile by tile, from operands to requantised results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.golden import core as golden
from accel.golden.postprocess import Params
from accel.isa import Dataflow, Reduce, Source
from accel.kernels.gemm import Weights
from accel.rtl import shapes
from accel.schedule.gemm import GemmSchedule, schedule
from accel.schedule.lower import Product, Reduction, Requantisation
from accel.schedule.transfers import CoreTransfers, product_transfers, reduction_transfers
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.sim.program import read_step
from accel.sim.tb_postprocess import pack_jobs as pack_posts
from accel.sim.tb_stce import pack_tiles, random_operands
from accel.sim.tb_vector import pack_jobs as pack_vectors
from accel.timing.core import core, core_trace, core_vector


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw a matrix product or a reduction of a few tiles, either dataflow, any pattern, per-channel parameters."""
    flow = Dataflow(rng.choice(["os", "ws"])) if config.add_stages <= config.param_rows else Dataflow.WS
    groups = config.add_stages if flow is Dataflow.OS else 1
    vectors = min(config.param_rows // groups * groups, 2 * config.add_stages + 1)  # the parameters of whole tiles fit
    m, n = int(rng.integers(1, 2 * config.rows + 2)), int(rng.integers(1, vectors * config.cols, endpoint=True))
    mult, shift = rng.integers(0, 1 << config.mult_bits, n), rng.integers(0, min(64, config.acc_bits + config.mult_bits), n)
    if rng.random() < 0.5:  # a shift by a few bits, so that ties are common
        bit = rng.integers(0, config.mult_bits, n)
        mult, shift = 1 << bit, bit + rng.integers(0, 4, n)
    lo, zero_point, hi = np.sort(rng.integers(config.act.lo, config.act.hi, 3, endpoint=True)).tolist()
    post = Requantisation(
        bias=rng.integers(config.acc.lo, config.acc.hi, n, endpoint=True) >> rng.integers(0, config.acc_bits, n),
        mult=mult,
        shift=shift,
        zero_point=zero_point,
        lo=lo,
        hi=hi,
    )
    if rng.random() < 0.2:
        beats = int(rng.integers(1, 6))
        low, high = -(1 << isa.COEFFICIENT_BITS - 1), (1 << isa.COEFFICIENT_BITS - 1) - 1
        reduction = Reduction(
            m=m, n=n, reduce=Reduce(rng.choice(["sum", "max"])), beats=beats,
            head=int(rng.integers(low, high)), tail=int(rng.integers(low, high)), post=post,
        )  # fmt: skip
        x = rng.integers(config.act.lo, config.act.hi, (m, beats, n), endpoint=True)
        jobs = int(rng.integers(1, min(2, config.param_rows // -(-n // config.cols)), endpoint=True))
        return reduction_case(config, [reduction] * jobs, [x] * jobs)
    taps, channels, pattern, x, codes = random_operands(config, rng, m, n)
    job = Product(
        m=m, n=n, taps=taps, channels=channels, pattern=pattern, weights=Weights(*codes, taps * channels), post=post
    )  # fmt: skip
    return product_case(config, job, x, schedule(config, m, n, taps, channels, pattern, flow))


def product_case(config: AcceleratorConfig, job: Product, x: NDArray[np.int64], plan: GemmSchedule, where: str = "") -> Case:
    """Make the case of a matrix product: its transfers, the golden result, the exact cycles.

    Parameters
    ----------
    config : AcceleratorConfig
    job : Product
    x : int64, shape (m, k)
        Operands.
    plan : GemmSchedule
    where : str
        What the report says before tile and channel, such as the layer.
    """
    assert job.codes is not None
    placed = list(plan.placed())
    moves = product_transfers(config, job, x, placed)
    operands = golden.Product(x, job.codes.values.astype(np.int64), job.codes.positions)
    flow = plan.dataflow.value
    label = f"{job.m}x{job.k}x{job.n} {job.pattern} {flow}"
    return _case(config, moves, [job], [operands], Source.ARRAY, core(config, plan.program()).total, label, f"{where}{flow} ")


def reduction_case(config: AcceleratorConfig, jobs: Sequence[Reduction], xs: Sequence[NDArray[np.int64]], where: str = "") -> Case:
    """Make the case of a layer's reductions; see :func:`product_case`.

    Parameters
    ----------
    config : AcceleratorConfig
    jobs : sequence of Reduction
    xs : sequence of int64, shape (m, beats, n)
        Operands of each.
    where : str
        What the report says before job and channel.
    """
    moves = reduction_transfers(config, jobs, xs)
    operands = [golden.Reduction(job.instruction(job.m), x.reshape(-1, job.n)) for job, x in zip(jobs, xs, strict=True)]
    label = ", ".join(f"{job.reduce.value} of {job.beats} beats, {job.m}x{job.n}" for job in jobs)
    return _case(config, moves, jobs, operands, Source.VECTOR, core_vector(config, moves.vectors), label, where)


def program_case(config: AcceleratorConfig, file: Path, index: int) -> Case:
    """Make the case of step `index` of a program of :mod:`accel.sim.program`.

    Parameters
    ----------
    config : AcceleratorConfig
    file : Path
    index : int
    """
    step = read_step(file, index)
    where = f"layer {step.layer}, "
    if step.products:
        job = step.products[0]
        plan = schedule(config, job.m, job.n, job.taps, job.channels, job.pattern, step.dataflow, step.blocks)
        return product_case(config, job, step.operands[0], plan, where)
    return reduction_case(config, step.reductions, step.operands, where)


def _case(
    config: AcceleratorConfig,
    moves: CoreTransfers,
    jobs: Sequence[Product | Reduction],
    operands: Sequence[golden.Product | golden.Reduction],
    source: Source,
    cycles: int,
    label: str,
    where: str,
) -> Case:
    posts = [job.post for job in jobs if job.post]
    results = [
        golden.core(config, given, post.instruction(source, job.m), Params(post.bias[None], post.mult[None], post.shift[None]))
        for job, post, given in zip(jobs, posts, operands, strict=True)
    ]
    inputs, predict = _ports(config, moves)
    memory = dict(zip(("bias", "mult", "shift"), moves.params, strict=True))
    idle = [min(max(post.zero_point, post.lo), post.hi) for post in posts]  # what a column without a channel says
    outputs = pack(
        shapes.result(config),
        value=moves.emitted([result.value for result in results], idle),
        overflow=moves.emitted([result.overflow for result in results], [False] * len(jobs)),
    )
    return Case(
        label=label,
        setup={"params": pack(shapes.params(config), address=np.arange(len(moves.params[0])), **memory)},
        inputs=inputs,
        outputs={"o": outputs},
        predict=predict,
        cycles=cycles,
        place=_place(config, where, moves),
    )


def _ports(config: AcceleratorConfig, moves: CoreTransfers) -> tuple[dict[str, list[int]], Callable[[Waits], Waits]]:
    inputs = {"post": pack_posts(config, moves.posts)}
    tiles, ends, heads = [], np.zeros(0, np.bool_), np.zeros(0, np.bool_)
    if array := moves.array:
        tiles, ends, heads = array.tiles, array.ends, array.heads
        inputs["tile"] = pack_tiles(config, tiles)
        inputs["west"] = pack(shapes.west(config), data=array.west, end=ends)
        inputs["north"] = pack(shapes.north(config), value=array.values, index=array.indices, head=heads)
    else:
        inputs["reduce"] = pack_vectors(config, moves.vectors)
        inputs["x"] = pack(shapes.lanes(config), moves.x)
    return inputs, lambda driven: core_trace(config, tiles, ends, heads, moves.vectors, moves.posts, driven)


def _place(config: AcceleratorConfig, where: str, moves: CoreTransfers) -> Callable[[str, int], str]:
    """Say to which tile a payload of a port belongs, and to which rows and channels an emitted one."""
    sizes = [(rows.stop - rows.start) * (at.stop - at.start) // config.cols for _, rows, at in moves.blocks]
    emits = list(range(len(moves.blocks)))  # tile of each block
    counts = {"o": sizes, "x": [job.rows * job.window for job in moves.vectors]}
    if array := moves.array:
        emits = [i for i, tile in enumerate(array.tiles) if tile.last]
        stationary = [tile.dataflow is Dataflow.WS for tile in array.tiles]
        pairs = [tile.rows if ws else tile.steps * config.add_stages for tile, ws in zip(array.tiles, stationary, strict=True)]
        bundles = np.add.reduceat(array.heads, np.cumsum([0, *pairs[:-1]]), dtype=int)
        held = [tile.steps if ws else n for tile, ws, n in zip(array.tiles, stationary, bundles, strict=True)]
        beats = np.diff(np.flatnonzero(array.ends)[np.cumsum(held) - 1], prepend=-1)
        counts |= {"tile": [1] * len(array.tiles), "north": pairs, "west": beats.tolist()}

    def place(port: str, position: int) -> str:
        if position >= sum(counts.get(port, ())):
            return where.rstrip(", ")
        tile = int(np.searchsorted(np.cumsum(counts[port]), position, "right"))
        if port != "o":
            return f"{where}tile {tile}"
        _, rows, at = moves.blocks[tile]
        return f"{where}tile {emits[tile]}, rows {rows.start}..{rows.stop - 1}, channels {at.start}..{at.stop - 1}"

    return place
