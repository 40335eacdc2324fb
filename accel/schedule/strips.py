"""Weights in the order in which they are updated, stored and pruned: strips of output channels, beat by beat.

A strip is a run of output channels of one convolution group, as many as the lanes or fewer. Strips follow one another; in a strip the
taps (kh, kw), in a tap the input channels, one beat each: lane j of a beat holds output channel j of the strip. Those are also the rows
in which a weight gradient leaves the array. Lanes beyond the strip's channels hold 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.golden.sore import Pairs
from accel.isa import Prune
from accel.sparsity import Codes, Pattern


@dataclass(frozen=True, slots=True)
class Strips:
    """Strips of a weight tensor.

    Parameters
    ----------
    shape : tuple of int
        Of the weights: (filters, kh, kw, channels of a group).
    groups : int
        Convolution groups, a divisor of the filters.
    lanes : int
        Elements of a beat: L.
    width : int
        Output channels of every strip but the last one of a convolution group.
    """

    shape: tuple[int, int, int, int]
    groups: int
    lanes: int
    width: int

    @property
    def taps(self) -> int:
        """Taps of a filter."""
        return self.shape[1] * self.shape[2]

    @property
    def channels(self) -> int:
        """Input channels of a convolution group: beats of a tap."""
        return self.shape[3]

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First output channel and output channels of each strip, in order."""
        filters = self.shape[0] // self.groups
        return tuple(
            (group * filters + start, min(self.width, filters - start))
            for group in range(self.groups)
            for start in range(0, filters, self.width)
        )

    @property
    def beats(self) -> int:
        """Beats of all strips."""
        return len(self.spans) * self.taps * self.channels

    @property
    def index(self) -> NDArray[np.int64]:
        """Element of the flattened weights in each lane of each beat, -1 in lanes without: int64, shape (beats, lanes)."""
        size = self.shape[0] * self.taps * self.channels
        return self.split(np.arange(1, size + 1, dtype=np.int64).reshape(self.shape)) - 1

    def split(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Return the beats of a tensor, shape (beats, lanes), of its own type; 0 in lanes without an element."""
        if weights.shape != self.shape:
            raise RangeError(f"weights must be of shape {self.shape}, not {weights.shape}")
        beats = np.zeros((len(self.spans), self.taps * self.channels, self.lanes), weights.dtype)
        filters = weights.reshape(self.shape[0], -1)
        for strip, (start, width) in zip(beats, self.spans, strict=True):
            strip[:, :width] = filters[start : start + width].T
        return beats.reshape(-1, self.lanes)

    def join(self, beats: NDArray[Any]) -> NDArray[Any]:
        """Return the tensor of which these are the beats: the inverse of :meth:`split`."""
        if beats.shape != (self.beats, self.lanes):
            raise RangeError(f"beats must be of shape {(self.beats, self.lanes)}, not {beats.shape}")
        weights = np.empty((self.shape[0], self.taps * self.channels), beats.dtype)
        for strip, (start, width) in zip(beats.reshape(len(self.spans), -1, self.lanes), self.spans, strict=True):
            weights[start : start + width] = strip[:, :width].T
        return weights.reshape(self.shape)

    def jobs(self, pattern: Pattern) -> list[Prune]:
        """Return the jobs of the pruner, in order: one for each tap of each strip, of `channels` beats."""
        return [Prune(beats=self.channels, lanes=width, n=pattern.n, m=pattern.m) for _, width in self.spans for _ in range(self.taps)]

    def codes(self, pattern: Pattern, forward: Pairs, backward: Pairs) -> tuple[Codes, Codes]:
        """Gather the pairs that :func:`accel.golden.sore.sore` makes of :meth:`jobs` and :meth:`split`.

        Parameters
        ----------
        pattern : Pattern
        forward, backward : Pairs
            Both codes of all jobs.

        Returns
        -------
        Codes
            Of the matrix of FF: a row for each filter, column = tap * channels + input channel.
        Codes
            Of the matrix of BP: a row for each input channel, convolution group by group, column = tap * filters of a group + filter.
        """
        filters, taps, channels = self.shape[0] // self.groups, self.taps, self.channels
        depth, rows, blocks = int(pattern.pairs(channels)), int(pattern.pairs(filters)), -(-channels // self.lanes)
        group_start = np.arange(max(depth, rows)) // pattern.n * pattern.m  # of each pair of a line
        tap = np.arange(taps)[:, None]
        ff = Codes(*np.empty((2, self.shape[0], taps, depth), np.int64))
        bp = Codes(*np.empty((2, self.groups, channels, taps, rows), np.int64))
        ff_end = bp_end = 0
        for start, width in self.spans:
            group, local = divmod(start, filters)
            skip, count = int(pattern.pairs(local)), int(pattern.pairs(width))
            mine = slice(ff_end, ff_end + taps * depth)
            base = tap * channels + group_start[:depth]
            for table, part, offset in ((ff.values, forward.value, 0), (ff.positions, forward.index, base)):
                beats = part[mine].reshape(taps, depth, self.lanes)[:, :, :width]
                table[start : start + width] = beats.transpose(2, 0, 1) + offset
            ff_end = mine.stop
            mine = slice(bp_end, bp_end + taps * blocks * count)
            base = tap * filters + local + group_start[:count]
            for table, part, offset in ((bp.values, backward.value, 0), (bp.positions, backward.index, base)):
                beats = part[mine].reshape(taps, blocks, count, self.lanes).transpose(1, 3, 0, 2).reshape(-1, taps, count)
                table[group, :, :, skip : skip + count] = beats[:channels] + offset
            bp_end = mine.stop
        return (
            Codes(*(table.reshape(self.shape[0], taps * depth) for table in ff)),
            Codes(*(table.reshape(self.groups * channels, taps * rows) for table in bp)),
        )


def strips(shape: Iterable[int], lanes: int, groups: int = 1, m: int = 1) -> Strips:
    """Cut a weight tensor into strips of the widest multiple of M that the lanes hold, so that no group of M output channels is split.

    Parameters
    ----------
    shape : iterable of int
        Of the weights: (filters, kh, kw, channels / groups), 1 or more each.
    lanes : int
        Lanes of the engines: L, 1 or more.
    groups : int
        Convolution groups, a divisor of the filters.
    m : int
        Output channels of a group of the pattern, 1 to `lanes`; 1 for weights that are not pruned.

    Returns
    -------
    Strips

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    filters, height, width, channels = shape
    if min(filters, height, width, channels) < 1:
        raise RangeError(f"shape must be of 1 or more each, not {(filters, height, width, channels)}")
    if lanes < 1:
        raise RangeError(f"lanes must be 1 or more, not {lanes}")
    if groups < 1 or filters % groups:
        raise RangeError(f"groups must be a divisor of the filters ({filters}), not {groups}")
    if not 1 <= m <= lanes:
        raise RangeError(f"m must be in [1, {lanes}], the lanes, not {m}")
    return Strips((filters, height, width, channels), groups, lanes, lanes // m * m)
