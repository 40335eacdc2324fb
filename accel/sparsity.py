"""N:M sparsity: which elements stay, the codes that hold them, and how a reduction is cut into bundles.

A group is M consecutive elements of the reduction inside one tap, so the last group of a tap may be short. A group of g elements
keeps its min(N, g) elements of largest magnitude, ties to the lower index.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.jit import kernel
from accel.kernels.threads import threads

_LINES = 64  # our choice: lines whose groups are compared side by side
MAX_M = 32  # widest bundle a config allows, so the widest group a code is defined for


@dataclass(frozen=True, slots=True)
class Pattern:
    """N:M sparsity pattern: at most N non-zero elements in every group of M.

    Parameters
    ----------
    n, m : int
        1 <= n <= m <= 32 [elements].

    Raises
    ------
    RangeError
        If a field breaks its rule.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if type(self.m) is not int or not 1 <= self.m <= MAX_M:
            raise RangeError(f"m must be an int in [1, {MAX_M}], not {self.m!r}")
        if type(self.n) is not int or not 1 <= self.n <= self.m:
            raise RangeError(f"n must be an int in [1, {self.m}], not {self.n!r}")

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``"N:M"``, the inverse of ``str``."""
        found = re.fullmatch(r"(\d{1,2}):(\d{1,2})", text, re.ASCII)
        if not found:
            raise RangeError(f"pattern must be N:M such as 2:8, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    @property
    def dense(self) -> bool:
        """Whether every element is kept."""
        return self.n == self.m

    @property
    def index_bits(self) -> int:
        """Stored index of one pair [bits]: ceil(log2 M); none where every element is kept."""
        return 0 if self.dense else (self.m - 1).bit_length()

    def pairs(self, elements: Any) -> Any:
        """Count the pairs of a run of `elements`, an int or an integer array: N for each full group, min(N, g) for a short one of g."""
        return elements // self.m * self.n + np.minimum(elements % self.m, self.n)

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True, slots=True, eq=False)
class Bundles:
    """How a reduction is cut into what a processing element holds at a time.

    Parameters
    ----------
    start : int64, shape (bundles,)
        First element of each bundle on the reduction axis.
    size : int64, shape (bundles,)
        Elements of each bundle.
    pairs : int64, shape (bundles,)
        Pairs of each bundle: the steps it is held for.
    """

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    pairs: NDArray[np.int64]

    @property
    def depth(self) -> int:
        """Pairs of the whole reduction."""
        return int(self.pairs.sum())

    def offsets(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn absolute positions, shape (..., depth), into indices inside their bundles."""
        return positions - np.repeat(self.start, self.pairs)


class Codes(NamedTuple):
    """Kept elements of the rows of a matrix.

    Parameters
    ----------
    values : integer, shape (n, depth)
        Kept elements, of the matrix's own type.
    positions : int64, shape (n, depth)
        Their columns, ascending.
    """

    values: NDArray[Any]
    positions: NDArray[np.int64]


class Storage(NamedTuple):
    """What codes cost.

    Parameters
    ----------
    values, indices : int
        Stored bits of values and of indices [bits].
    decodes : int
        Indices decoded when every code is used once, each an M-to-1 selection; none where every element is kept.
    """

    values: int
    indices: int
    decodes: int

    @property
    def bits(self) -> int:
        """Stored bits in all [bits]."""
        return self.values + self.indices


def bundles(taps: int, channels: int, pattern: Pattern, bundle: int) -> Bundles:
    """Cut a reduction of `taps` x `channels`, channels innermost, into bundles.

    If M divides the bundle size, a bundle carries bundle / M groups; any smaller M takes one group per bundle. No bundle spans two taps.

    Parameters
    ----------
    taps, channels : int
        Shape of the reduction, 1 or more each; element k = tap * channels + channel.
    pattern : Pattern
        M at most `bundle`.
    bundle : int
        Elements a processing element holds, 1 to 32.

    Returns
    -------
    Bundles
        In ascending order.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    _check_reduction(taps, channels)
    if type(bundle) is not int or not 1 <= bundle <= MAX_M:
        raise RangeError(f"bundle must be an int in [1, {MAX_M}], not {bundle!r}")
    if pattern.m > bundle:
        raise RangeError(f"pattern must have M at most the bundle size {bundle}, not {pattern}")
    span = pattern.m if bundle % pattern.m else bundle
    first = np.arange(0, channels, span, dtype=np.int64)
    start = (np.arange(taps, dtype=np.int64)[:, None] * channels + first).ravel()
    size = np.tile(np.minimum(span, channels - first), taps)
    return Bundles(start, size, pattern.pairs(size))


def mask(w: NDArray[Any], pattern: Pattern, axis: int = -1) -> NDArray[np.bool_]:
    """Mark the elements a pattern keeps, groups running along `axis`.

    Parameters
    ----------
    w : integer or finite float, any shape of one dimension or more
        Weights; integers of at most 32 bits or int64.
    pattern : Pattern
    axis : int
        Axis of the groups; the last one of a line may be short.

    Returns
    -------
    bool, shape of `w`

    Raises
    ------
    RangeError
        If `w` or `axis` breaks its rule.
    """
    if w.ndim == 0:
        raise RangeError("w must be an array of one dimension or more, not a scalar")
    if not ((np.can_cast(w.dtype, np.int64) and w.dtype != np.bool_) or w.dtype in (np.float32, np.float64)):
        raise RangeError(f"w must be of an integer type that int64 holds, float32 or float64, not {w.dtype}")
    if w.dtype.kind == "f" and not np.isfinite(w).all():
        raise RangeError("w must be finite, not infinite or NaN")
    if not -w.ndim <= axis < w.ndim:
        raise RangeError(f"axis must be in [{-w.ndim}, {w.ndim - 1}], not {axis!r}")
    lines = np.moveaxis(w.astype(np.int64) if w.dtype.kind == "u" else w, axis, -1)
    kept = np.zeros(lines.shape, np.bool_)
    shape = (math.prod(lines.shape[:-1]), lines.shape[-1])
    with threads(lines.size * (2.0 + 0.1 * pattern.m)):
        _mask(np.ascontiguousarray(lines).reshape(shape), pattern.n, pattern.m, kept.reshape(shape))
    return np.moveaxis(kept, -1, axis)


def prune(w: NDArray[Any], pattern: Pattern, axis: int = -1) -> NDArray[Any]:
    """Set what :func:`mask` does not keep to zero; same arguments, same errors, type and shape of `w`."""
    return np.where(mask(w, pattern, axis), w, w.dtype.type(0))


def energy_removed(w: NDArray[Any], pruned: NDArray[Any]) -> float:
    """Fraction of the sum of squares of `w` that `pruned` lacks, in [0, 1]; 0 if there is nothing to remove."""
    whole = _energy(w)
    return (whole - _energy(pruned)) / whole if whole else 0.0


def encode(w: NDArray[Any], taps: int, channels: int, pattern: Pattern) -> Codes:
    """Encode the rows of a matrix, pruning what the pattern does not keep.

    Parameters
    ----------
    w : integer, shape (n, taps * channels)
        Weights; column = tap * channels + channel.
    taps, channels : int
        Shape of the reduction.
    pattern : Pattern

    Returns
    -------
    Codes
        ``decode(codes, k)`` is `w` pruned.

    Raises
    ------
    RangeError
        If `w` breaks its rule.
    """
    lines = _lines(w, taps, channels)
    kept = mask(lines, pattern).reshape(w.shape)
    shape = (len(w), int(taps * pattern.pairs(channels)))
    return Codes(w[kept].reshape(shape), np.nonzero(kept)[1].reshape(shape))


def decode(codes: Codes, k: int) -> NDArray[Any]:
    """Put coded values back into a matrix of `k` columns, zeros elsewhere."""
    if codes.values.shape != codes.positions.shape or codes.values.ndim != 2:
        raise RangeError(f"codes must be two matrices of one shape, not {codes.values.shape} and {codes.positions.shape}")
    if codes.positions.size and not 0 <= codes.positions.min() <= codes.positions.max() < k:
        raise RangeError(f"positions must be in [0, {k - 1}], not {codes.positions.min()}..{codes.positions.max()}")
    w = np.zeros((len(codes.values), k), codes.values.dtype)
    np.put_along_axis(w, codes.positions, codes.values, axis=1)
    return w


def storage_bits(outputs: int, taps: int, channels: int, pattern: Pattern, value_bits: int) -> Storage:
    """Count what the codes of `outputs` rows of a taps x channels reduction cost, with values of `value_bits` bits."""
    _check_reduction(taps, channels)
    pairs = outputs * taps * int(pattern.pairs(channels))
    return Storage(pairs * value_bits, pairs * pattern.index_bits, 0 if pattern.dense else pairs)


def detect(w: NDArray[Any], taps: int, channels: int, candidates: Iterable[Pattern]) -> Pattern | None:
    """Find the pattern that a matrix obeys already and that leaves the fewest pairs.

    Parameters
    ----------
    w : integer, shape (n, taps * channels)
        Weights; column = tap * channels + channel.
    taps, channels : int
        Shape of the reduction.
    candidates : iterable of Pattern
        Patterns to choose from; of equals in pairs the first is taken.

    Returns
    -------
    Pattern or None
        None if `w` obeys no candidate.

    Raises
    ------
    RangeError
        If `w` breaks its rule.
    """
    lines = np.ascontiguousarray(_lines(w, taps, channels))
    fullest: dict[int, int] = {}
    obeyed = []
    for pattern in candidates:
        if pattern.m not in fullest:
            fullest[pattern.m] = int(_fullest(lines, pattern.m))
        if fullest[pattern.m] <= pattern.n:
            obeyed.append(pattern)
    return min(obeyed, key=lambda pattern: int(pattern.pairs(channels)), default=None)


def _check_reduction(taps: int, channels: int) -> None:
    for name, value in (("taps", taps), ("channels", channels)):
        if type(value) is not int or value < 1:
            raise RangeError(f"{name} must be a positive int, not {value!r}")


def _lines(w: NDArray[Any], taps: int, channels: int) -> NDArray[Any]:
    """One line per tap of every row."""
    _check_reduction(taps, channels)
    if w.dtype.kind not in "iu" or w.ndim != 2 or w.shape[1] != taps * channels:
        raise RangeError(f"w must be integers of shape (n, {taps * channels}), not {w.dtype} of shape {w.shape}")
    return w.reshape(-1, channels)


def _energy(w: NDArray[Any]) -> float:
    return float(np.square(w, dtype=np.float64).sum())


@kernel(parallel=True)
def _mask(lines, n, m, kept):
    """Kernel: mark the elements of each group that fewer than n others stand before: larger ones, and equal ones of a lower index.

    A group of several lines is looked at side by side, so that comparisons are vectorised. Magnitudes are held negated: the least integer
    has a negative magnitude in its own type, but no positive one.
    """
    height, width = lines.shape
    for task in prange(-(-height // _LINES)):
        top = task * _LINES
        rows = min(_LINES, height - top)
        tile, before = np.empty((m, rows), lines.dtype), np.empty(rows, np.int8)
        for start in range(0, width, m):
            size = min(m, width - start)
            for r in range(rows):
                for i in range(size):
                    x = lines[top + r, start + i]
                    tile[i, r] = x if x < 0 else -x
            for i in range(size):
                own = tile[i]
                before[:] = 0
                for j in range(size):
                    other = tile[j]
                    if j < i:
                        for r in range(rows):
                            before[r] += other[r] <= own[r]
                    else:
                        for r in range(rows):
                            before[r] += other[r] < own[r]
                for r in range(rows):
                    kept[top + r, start + i] = before[r] < n


@kernel
def _fullest(lines, m):
    """Kernel: greatest count of non-zero elements in a group of m."""
    fullest = 0
    for line in range(lines.shape[0]):
        for start in range(0, lines.shape[1], m):
            count = 0
            for i in range(start, min(start + m, lines.shape[1])):
                count += lines[line, i] != 0
            fullest = max(fullest, count)
            if fullest == m:
                return fullest
    return fullest
