"""Bench of :class:`accel.rtl.stce.Stce`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.golden.stce import stce
from accel.isa import Dataflow, Tile
from accel.rtl import shapes
from accel.schedule.gemm import Placed, feed
from accel.schedule.transfers import array_transfers
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

    tiles = [job.tile for job in jobs]
    ends, heads = (np.concatenate([getattr(s, name) for s in streams]) for name in ("ends", "heads"))
    west, values, indices = (np.concatenate([getattr(s, name) for s in streams]) for name in ("west", "values", "indices"))
    acc, overflow = (np.concatenate(parts) for parts in zip(*expected, strict=True))
    inputs = {
        "tile": pack_tiles(config, tiles),
        "west": pack(shapes.west(config), data=west, end=ends),
        "north": pack(shapes.north(config), value=values, index=indices, head=heads),
    }
    if partial:
        acc_i, overflow_i = (np.concatenate(parts) for parts in zip(*partial, strict=True))
        inputs["psum"] = pack(shapes.row(config), acc=acc_i, overflow=overflow_i)

    def predict(driven: Waits) -> Waits:
        shown, valid = stce_trace(config, tiles, ends, heads, driven, driven["o"])
        return {**shown, "o": valid}

    return Case(
        label=", ".join(f"{t.dataflow.value} {t.steps}x{t.rows}" for t in tiles),
        inputs=inputs,
        outputs={"o": pack(shapes.kept_row(config), acc=acc, overflow=overflow, keep=keep)},
        predict=predict,
        cycles=cycles(config, jobs).total,
    )


def pack_tiles(config: AcceleratorConfig, tiles: Sequence[Tile]) -> list[int]:
    """Encode tiles of the array."""
    fields = {name: [getattr(tile, name) for tile in tiles] for name in ("steps", "rows", "first", "last")}
    return pack(shapes.tile(config), ws=[tile.dataflow is Dataflow.WS for tile in tiles], **fields)


def _padded(codes: Codes, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of `width` columns: those without a channel multiply by 0."""
    values, positions = (np.pad(table, ((0, width - len(table)), (0, 0))) for table in codes)
    return values, positions
