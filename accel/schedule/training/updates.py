"""Work of the update engine as pieces of its queue: `wuve`, and `sore` behind it or in front of the array.

A tile of the update engine takes a part of what a tile of WU has finished: a beat of L weights a cycle, as :func:`accel.timing.wuve.wuve`
counts them. It loads master weights and momentum and stores them. With pre-generation `sore` follows it and the codes that the array will
load are stored, of both directions or of one; layers that some stage runs dense store the dense working copy too. `sore` takes a beat a
cycle, but the channels of a tap in blocks of L beats, of which a shorter one takes as long as the job has lanes.

Without pre-generation only the dense working copy is stored. Where pruned weights are loaded, they pass through `sore` first, which
takes L weights a cycle, and then into the array's scratchpad, tile by tile: two of them fit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.graph.trainable import Convolution
from accel.isa import MASTER_BITS
from accel.schedule.search import word
from accel.schedule.training.products import Fetched, Grid
from accel.schedule.training.queues import Piece
from accel.schedule.training.works import Lowering
from accel.sparsity import storage_bits
from accel.timing import sore, wuve

BEATS = 256  # our choice: of a tile at most; 64 KiB of master weights and momentum at 32 lanes
STATE = 2 * MASTER_BITS // 8  # of a weight: its master copy and its momentum [bytes]


class Update(NamedTuple):
    """The update of a layer's weights.

    Parameters
    ----------
    piece : Piece
    owner : int64, shape (tiles,)
        The tile of WU, counted from the layer's first, whose results each takes.
    codes : int
        What is stored for FF and BP [bytes].
    """

    piece: Piece
    owner: NDArray[np.int64]
    codes: int


def stored(low: Lowering, layer: Convolution, pregeneration: bool) -> tuple[int, int]:
    """Count what of a layer's weights is stored for FF and BP: codes with indices, or the dense working copy; and masks [bits].

    Masks are those of FF, kept where pruned weights decay by themselves (SR-STE).
    """
    config, (filters, *_, channels) = low.config, layer.shape
    taps, count = layer.window.taps, layer.filters * layer.reduction
    dense = count * 8 * word(config.weight_bits)
    pruned = [stage for stage in ("FF", "BP") if low.operand(layer, stage) == "weights"]
    masks = count if low.algorithm == "sr-ste" and pruned else 0
    if not pregeneration or not pruned:
        return dense, masks
    bits = 0
    if "FF" in pruned:
        bits += storage_bits(filters, taps, channels, low.pattern, config.weight_bits).bits
    if "BP" in pruned:
        each = storage_bits(channels, taps, filters // layer.groups, low.pattern, config.weight_bits).bits
        bits += layer.groups * each
    return bits + (dense if len(pruned) < 2 else 0), masks


def update(low: Lowering, layer: Convolution, where: Grid, pregeneration: bool) -> Update:
    """Make the update of a layer's weights, tile by tile of WU."""
    config, images = low.config, low.batch
    pruned = low.operand(layer, "FF") == "weights"
    lanes = min(config.cols // low.pattern.m * low.pattern.m if pruned else config.cols, layer.filters // layer.groups)
    beats, weights = where.rows * -(-where.columns // lanes), where.rows * where.columns
    count = -(-beats // BEATS)
    owner = np.repeat(np.arange(beats.size), count)
    place = np.arange(owner.size) - np.repeat(count.cumsum() - count, count)

    def shared(each: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(each[owner] * (place + 1) // count[owner] - each[owner] * place // count[owner])

    taken, held = shared(beats), shared(weights)
    bits, masks = stored(low, layer, pregeneration)
    lag = wuve.STAGES
    if pregeneration and pruned:
        channels = layer.channels // layer.groups
        full, rest = divmod(channels, config.cols)
        tap = full * config.cols + (max(rest, lanes) if rest else 0)
        taken = -(-taken * tap // channels)
        lag += lanes + sore.STAGES + low.pattern.n
    ends = held.cumsum()
    codes = np.diff(-(-ends * (bits + masks) // (8 * ends[-1])), prepend=0)
    loads = held * STATE + np.diff(-(-ends * masks // (8 * ends[-1])), prepend=0)
    tiles = owner.size
    piece = Piece(taken, np.full(tiles, lag), loads, held * STATE + codes, np.zeros(tiles, np.int64), np.full(images, tiles))
    return Update(piece, owner, int(codes.sum()))


def feed(low: Lowering, loaded: Fetched) -> Update:
    """Make what prunes weights in front of the array: a tile for each tile of a product that loads weights, which takes the codes."""
    config = low.config
    owner = np.flatnonzero(loaded.weights)
    weights, tiles = loaded.weights[owner], owner.size
    piece = Piece(
        -(-weights // config.cols),
        np.full(tiles, sore.STAGES + low.pattern.n),
        weights * word(config.weight_bits),
        np.zeros(tiles, np.int64),
        np.zeros(tiles, np.int64),
        np.full(low.batch, tiles),
    )
    return Update(piece, owner, 0)


def scalars(config: AcceleratorConfig, images: int, count: int) -> Piece:
    """Make the update of parameters by channel, `count` of them: biases, gamma and beta."""
    one, size = np.ones(1, np.int64), count * STATE
    beats, stores = -(-count // config.cols), size + count * word(config.act_bits)
    return Piece(beats * one, wuve.STAGES * one, size * one, stores * one, (images - 1) * one, np.ones(images, np.int64))
