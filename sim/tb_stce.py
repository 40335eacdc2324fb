"""Bench of :class:`accel.rtl.stce.Stce`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.golden.stce import stce
from accel.isa import Dataflow, Tile
from accel.rtl import shapes
from accel.schedule.gemm import Placed, feed, schedule
from accel.schedule.transfers import ArrayTransfers, array_transfers
from accel.sim.bench import Case, Waits
from accel.sim.pack import pack
from accel.sparsity import Codes, Pattern, bundles, encode
from accel.timing.stce import Job, stce_trace
from accel.timing.stce import stce as cycles


def random_operands(
    config: AcceleratorConfig, rng: np.random.Generator, m: int, n: int
) -> tuple[int, int, Pattern, NDArray[np.int64], Codes]:
    """Draw taps, channels, pattern, activations and codes: every pattern, extremes and ties made common."""
    top = int(rng.choice([config.bundle, int(rng.integers(1, config.bundle, endpoint=True))]))
    pattern = Pattern(int(rng.integers(1, top, endpoint=True)), top)
    pattern = Pattern(config.bundle, config.bundle) if pattern.dense else pattern
    # Short reductions are common: there the results of one tile hold up the next.
    taps, channels = int(rng.integers(1, 3, endpoint=True)), int(rng.integers(1, rng.choice([2, 2 * config.bundle]), endpoint=True))

    def draw(shape, fmt):
        some = rng.choice([fmt.lo, -1, 0, 1, fmt.hi], shape)
        return np.where(rng.random(shape) < rng.choice([0.2, 0.9]), rng.integers(fmt.lo, fmt.hi, shape, endpoint=True), some)

    codes = encode(draw((n, taps * channels), config.weight), taps, channels, pattern)
    return taps, channels, pattern, draw((m, taps * channels), config.act), codes


def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
    """Draw a few tiles of either dataflow, alone, in chunks or in passes, with whatever partial sums."""
    rows, cols, hop = config.rows, config.cols, config.add_stages
    streams, jobs, expected, partial, keep = [], [], [], [], []
    likely = rng.choice([0.2, 0.5, 1.0])
    for _ in range(rng.integers(1, 5, endpoint=True)):
        flow = Dataflow.OS if rng.random() < likely else Dataflow.WS
        width = cols * hop if flow is Dataflow.OS else cols
        m = int(rng.choice([rows, int(rng.integers(1, rows if flow is Dataflow.OS else 2 * rows, endpoint=True))]))
        n = int(rng.choice([width, int(rng.integers(1, width, endpoint=True))]))
        taps, channels, pattern, x, codes = random_operands(config, rng, m, n)
        cut = bundles(taps, channels, pattern, config.bundle)
        placed = []
        if flow is Dataflow.OS:
            whole = Tile(dataflow=flow, steps=cut.depth, rows=m)
            chunk = int(cut.pairs[: rng.integers(0, cut.pairs.size)].sum())
            if chunk:  # k chunks go on with the same sums
                placed.append(Placed(replace(whole, steps=chunk, last=False), 0, 0, 0, m, n, chunk))
            tile = replace(whole, steps=cut.depth - chunk, first=not chunk)
            placed.append(Placed(tile, 0, 0, chunk, m, n, cut.depth - chunk))
            acc, overflow = stce(config, x, *_padded(codes, width))
            # Row by row, the column groups one after the other.
            expected.append((acc.reshape(-1, cols), overflow.reshape(-1, cols)))
            keep += [False] * (m * hop)
        else:
            for pair in range(0, cut.depth, rows)[:: rng.choice([1, 2])]:
                pairs = min(rows, cut.depth - pair)
                first, last = bool(rng.integers(2)), bool(rng.integers(2))
                placed.append(Placed(Tile(dataflow=flow, steps=m, rows=pairs, first=first, last=last), 0, 0, pair, m, n, pairs))
                part = Codes(*(table[:, pair : pair + pairs] for table in codes))
                start = None
                if not first:
                    acc = rng.choice([config.acc.lo, config.acc.hi, 0, -1], (m, cols))
                    start = acc, rng.random((m, cols)) < 0.2
                    partial.append(start)
                expected.append(stce(config, x, *_padded(part, cols), *(start or ())))
                keep += [not last] * m
        streams.append(array_transfers(config, placed, cut, x, codes))
        jobs += [Job(at.tile, feed(config, cut, at.tile, at.pair)) for at in placed]

    joined = ArrayTransfers(
        [job.tile for job in jobs],
        *(np.concatenate([getattr(moves, name) for moves in streams]) for name in ("west", "ends", "values", "indices", "heads")),
    )
    acc, overflow = (np.concatenate(parts) for parts in zip(*expected, strict=True))
    return _case(config, jobs, joined, {"acc": acc, "overflow": overflow, "keep": np.array(keep)}, partial)


def _case(
    config: AcceleratorConfig,
    jobs: list[Job],
    moves: ArrayTransfers,
    rows: dict[str, np.ndarray],
    partial: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> Case:
    inputs = {
        "tile": pack_tiles(config, moves.tiles),
        "west": pack(shapes.west(config), data=moves.west, end=moves.ends),
        "north": pack(shapes.north(config), value=moves.values, index=moves.indices, head=moves.heads),
    }
    if partial:
        acc, overflow = (np.concatenate(parts) for parts in zip(*partial, strict=True))
        inputs["psum"] = pack(shapes.row(config), acc=acc, overflow=overflow)

    def predict(driven: Waits) -> Waits:
        shown, valid = stce_trace(config, moves.tiles, moves.ends, moves.heads, driven, driven["o"])
        return {**shown, "o": valid}

    return Case(
        label=", ".join(f"{t.dataflow.value} {t.steps}x{t.rows}" for t in moves.tiles),
        inputs=inputs,
        outputs={"o": pack(shapes.kept_row(config), **rows)},
        predict=predict,
        cycles=cycles(config, jobs).total,
    )


def program_case(config: AcceleratorConfig, file: Path, index: int) -> Case:
    """Make the case of one matrix product of a list, output stationary, tile after tile, with random operands.

    Parameters
    ----------
    config : AcceleratorConfig
    file : Path
        JSON list of the arguments of :func:`accel.schedule.gemm.schedule`, the pattern as text.
    index : int
    """
    shape = json.loads(file.read_text())[index]
    pattern = Pattern.parse(shape.pop("pattern"))
    plan = schedule(config, **shape, pattern=pattern, dataflow=Dataflow.OS)
    rng = np.random.default_rng(index)
    x = rng.integers(config.act.lo, config.act.hi, (plan.gemm.m, plan.gemm.k), endpoint=True)
    w = rng.integers(config.weight.lo, config.weight.hi, (plan.gemm.n, plan.gemm.k), endpoint=True)
    codes = encode(w, plan.gemm.taps, plan.gemm.channels, pattern)
    placed = list(plan.placed())
    acc, overflow = stce(config, x, *codes)
    width = config.cols * config.add_stages
    sums = [np.pad(table, ((0, 0), (0, -table.shape[1] % width))) for table in (acc, overflow)]
    rows = [[t[at.m : at.m + at.rows, at.n : at.n + width].reshape(-1, config.cols) for at in placed] for t in sums]
    jobs = [Job(at.tile, feed(config, plan.cut, at.tile, at.pair)) for at in placed]
    moves = array_transfers(config, placed, plan.cut, x, codes)
    outputs = {"acc": np.concatenate(rows[0]), "overflow": np.concatenate(rows[1])}
    return _case(config, jobs, moves, {**outputs, "keep": np.zeros(len(outputs["acc"]), np.bool_)})


def pack_tiles(config: AcceleratorConfig, tiles: Sequence[Tile]) -> list[int]:
    """Encode tiles of the array."""
    fields = {name: [getattr(tile, name) for tile in tiles] for name in ("steps", "rows", "first", "last")}
    return pack(shapes.tile(config), ws=[tile.dataflow is Dataflow.WS for tile in tiles], **fields)


def _padded(codes: Codes, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of `width` columns: those without a channel multiply by 0."""
    values, positions = (np.pad(table, ((0, width - len(table)), (0, 0))) for table in codes)
    return values, positions
