"""The memory system: what crosses DRAM for a block of work, and when the blocks run.

A layer is a sequence of stages, each a block of its work: it loads what it reads, computes, stores what it has made.

- Time is in cycles. DRAM carries `rate` bytes a cycle (:attr:`AcceleratorConfig.dram_rate`), loads and stores alike; the transfer of a
  stage takes ``ceil(bytes / rate)`` cycles. What a load brings can be used `dram_latency` cycles after its last byte was sent; requests
  follow each other without a gap, so only waiting for the first one shows the latency. A layer has ended `dram_latency` cycles after the
  last byte of its last store.
- Every scratchpad holds two tiles: one is used while the other one is filled or emptied. So the load of stage i starts when stage i - 2
  has ended, and stage i starts when the stores of stage i - 2 are done.
- DRAM serves in a fixed order: load 0, load 1, load 2, store 0, load 3, store 1, ... A transfer waits for the one before it, for the
  buffer that it fills (a load) or for the last result of its stage (a store). A stage without a transfer has no turn.
- Stage i starts at ``S = max(E(i - 1), load done, store i - 2 done)`` and keeps the array until ``E(i) = S + cycles(i)``: where operands or
  room are missing the array stands still. Its last result leaves `lag` cycles after E(i). The first stage of a product that is not the
  first of its layer starts when the last result of the product before has left; its load need not wait for that.

Every time is a maximum of sums of durations. So a shorter transfer, a lower latency or an earlier result never makes anything later.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.graph.window import Window
from accel.jit import kernel


class Stages(NamedTuple):
    """Work as a sequence of stages, all of it `repeats` times.

    Parameters
    ----------
    cycles : int64, shape (stages,)
        For which each keeps the array.
    lag : int64, shape (stages,)
        From its end to its last result.
    loads, stores : int64, shape (stages,)
        What crosses DRAM [bytes].
    repeats : int
    """

    cycles: NDArray[np.int64]
    lag: NDArray[np.int64]
    loads: NDArray[np.int64]
    stores: NDArray[np.int64]
    repeats: int = 1


class Timeline(NamedTuple):
    """How long stages take [cycles]: ``total = compute + wait_load + wait_store``.

    Parameters
    ----------
    total : int
        Until the last result is where it belongs.
    compute : int
        What they would take if memory never kept them waiting.
    wait_load : int
        Waiting for operands.
    wait_store : int
        Waiting, operands being there, for room; and at the end for the last store.
    """

    total: int
    compute: int
    wait_load: int
    wait_store: int


def timeline(stages: Stages, rate: float, latency: int) -> Timeline:
    """Run stages by the recurrence above.

    Parameters
    ----------
    stages : Stages
    rate : float
        DRAM bandwidth [bytes/cycle].
    latency : int
        [cycles]
    """
    loads, stores = (transfer(moved, rate) for moved in (stages.loads, stages.stores))
    return Timeline(*map(int, _timeline(stages.cycles, stages.lag, loads, stores, stages.repeats, latency)))


def transfer(moved: NDArray[np.int64], rate: float) -> NDArray[np.int64]:
    """Cycles of transfers of so many bytes; a division rounds alike whatever the rate, so a higher one never gives more."""
    return np.ceil(moved / rate).astype(np.int64)


@kernel
def _timeline(cycles, lag, loads, stores, repeats, latency):
    """Kernel of `timeline`: one loop turn is one stage."""
    stages = cycles.size
    count = stages * repeats
    channel = 0  # DRAM is free again
    ready = 0  # the next stage's operands are there
    if loads[0] > 0:
        channel = loads[0]
        ready = channel + latency
    ended = 0  # E(i - 1)
    left = 0  # its last result
    room = 0  # store i - 2 is done
    stored = 0  # store i - 1 is done
    written = -latency  # the last store so far is done
    compute = wait_load = wait_store = 0
    for i in range(count):
        s = i % stages
        operands = ready
        if i + 1 < count:
            ready = 0
            load = loads[(i + 1) % stages]
            if load > 0:
                channel = max(channel, ended) + load
                ready = channel + latency
        room, stored = stored, 0
        if i > 0 and stores[(i - 1) % stages] > 0:
            channel = max(channel, left) + stores[(i - 1) % stages]
            stored = written = channel
        free = left if s == 0 else ended
        start = max(free, operands, room)
        wait_load += max(operands - free, 0)
        wait_store += start - max(free, operands)
        ended = start + cycles[s]
        left = ended + lag[s]
        compute += cycles[s]
        if s == stages - 1:
            compute += lag[s]
    if stores[stages - 1] > 0:
        written = max(channel, left) + stores[stages - 1]
    total = max(left, written + latency)
    return total, compute, wait_load, wait_store + total - left


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a tensor that rows of work read: rows run over images, then positions of a window on each.

    Parameters
    ----------
    images, height, width : int
        Of the tensor.
    window : Window
    element : int
        Size of one place [bytes].
    """

    images: int
    height: int
    width: int
    window: Window
    element: int

    @classmethod
    def plain(cls, rows: int, element: int) -> Region:
        """Rows of `element` bytes, each read by itself."""
        return cls(1, rows, 1, Window(), element)

    @property
    def rows(self) -> int:
        """Rows of work."""
        height, width = self.window.positions(self.height, self.width)
        return self.images * height * width

    def whole(self) -> int:
        """Count what all rows read, each place once [bytes]."""
        return int(self.blocks(self.rows)[0])

    def blocks(self, size: int) -> NDArray[np.int64]:
        """Count what each block of `size` rows reads, each place once, padding not at all [bytes].

        A block is fetched as a rectangle of each image that it touches: of the rows and columns between the first and the last one that
        its windows cover, less those that lie between windows where the stride is beyond the window. Rows of work that end in the middle
        of a row of positions take the whole row, unless the block lies in that row alone.

        Parameters
        ----------
        size : int
            1 or more; the last block may be smaller.
        """
        return _blocks(self, min(size, self.rows))


@functools.lru_cache(maxsize=1 << 14)
def _blocks(region: Region, size: int) -> NDArray[np.int64]:
    window = region.window
    high, wide = window.positions(region.height, region.width)
    axes = [_axis(region, axis, places) for axis, places in enumerate((high, wide))]
    found: NDArray[np.int64] = _rectangles(region.rows, size, high, wide, *axes[0], *axes[1]) * region.element
    found.setflags(write=False)
    return found


def _axis(region: Region, axis: int, places: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], bool]:
    """First and one past the last place that each window position covers, their running number, and whether neighbours meet."""
    window, size = region.window, (region.height, region.width)[axis]
    reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
    at = np.arange(places) * window.stride[axis] - window.pads[axis]
    first = np.clip(at, 0, size)
    last = np.maximum(np.clip(at + reach, 0, size), first)
    return first, last, np.append(0, np.cumsum(last - first)), window.stride[axis] <= reach


@kernel
def _rectangles(rows, size, high, wide, top, bottom, down, joined, left, right, across, beside):
    """Kernel of `Region.blocks`, in places."""
    area = high * wide
    found = np.zeros(-(-rows // size), np.int64)
    for block in range(found.size):
        begin, end = block * size, min(rows, (block + 1) * size)
        while begin < end:
            stop = min(end, (begin // area + 1) * area)
            a, b = begin % area, (stop - 1) % area
            if a == 0 and b == area - 1 and end - begin > area:  # images that it holds whole are all alike
                images = (end - begin) // area
                stop = begin + images * area
            else:
                images = 1
            row, last = a // wide, b // wide
            first_column, last_column = (a % wide, b % wide) if row == last else (0, wide - 1)
            tall = max(bottom[last] - top[row], 0) if joined else down[last + 1] - down[row]
            broad = max(right[last_column] - left[first_column], 0) if beside else across[last_column + 1] - across[first_column]
            found[block] += images * tall * broad
            begin = stop
    return found
