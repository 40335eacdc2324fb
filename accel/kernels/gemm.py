"""Matrix products as the array computes them, by the cheapest route that a bound proves equal to the golden model.

Where no partial sum can leave the accumulator, the order of additions does not matter and any exact route may be taken. The bound is per
output channel: channels that might overflow, and only they, are accumulated product by product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.jit import kernel
from accel.kernels import lanes, simd, tiles
from accel.kernels.patches import Patches, matrix
from accel.kernels.requantise import Integers, Prepared, Requantisation, finish, lane, narrowest, prepare

_INT32, _FLOAT64, _INT64 = 2.0**31, 2.0**53, 2.0**62  # bounds below which integers are exact, and in int64 a bias may be added
SLACK = 1 + 2.0**-20
"""Far more than rounding takes from a bound computed in float64."""


class Weights:
    """Weights of a layer, dense or as codes, and every form of them that a route needs, made once when first used.

    Parameters
    ----------
    values : integers, shape (n, k), or (n, pairs) with `positions`
        Weights in the order in which they are accumulated [weight LSBs]; not to be changed afterwards.
    positions : int64, shape (n, pairs), optional
        Element of the reduction that each value belongs to, ascending; without it every element has its value.
    k : int, optional
        Length of the reduction; given if and only if `positions` are.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """

    def __init__(self, values: NDArray[Any], positions: NDArray[np.int64] | None = None, k: int | None = None) -> None:
        matrix("values", values)
        if (positions is None) is not (k is None):
            raise RangeError(f"k must be given if and only if positions are, not {k!r}")
        self.n, self.k = len(values), values.shape[1] if k is None else k
        self.lo, self.hi = _ends(values)
        self._values = np.ascontiguousarray(values, narrowest(self.lo, self.hi))
        self._positions = positions
        self._panels: dict[Any, tiles.Panels] = {}
        self._rows: dict[tuple[int, int], Weights] = {}
        if positions is None:
            return
        if positions.dtype != np.int64 or positions.shape != values.shape:
            raise RangeError(f"positions must be int64 of shape {values.shape}, not {positions.dtype} of shape {positions.shape}")
        if positions.size and not 0 <= positions.min() <= positions.max() < self.k:
            raise RangeError(f"positions must be in [0, {self.k - 1}], not {positions.min()}..{positions.max()}")
        if not (np.diff(positions) > 0).all():
            raise RangeError("positions must be ascending in each row, not in another order")

    @cached_property
    def dense(self) -> Integers:
        """Every weight, shape (n, k), of the narrowest type."""
        if self._positions is None:
            return self._values
        w: Integers = np.zeros_like(self._values, shape=(self.n, self.k))
        np.put_along_axis(w, self._positions, self._values, axis=1)
        return w

    @property
    def coded(self) -> bool:
        """Whether they were given as codes."""
        return self._positions is not None

    def rows(self, which: slice) -> Weights:
        """Weights of some output channels, `which` from one to another."""
        key = which.start, which.stop
        if key not in self._rows:
            own = self._values[which]
            self._rows[key] = Weights(own) if self._positions is None else Weights(own, self._positions[which], self.k)
        return self._rows[key]

    @cached_property
    def pairs(self) -> int:
        """Values of each output channel that are multiplied: all that are not 0, in the channel that has most of them."""
        return int(_fullest(self._values)) if self._positions is None else self._values.shape[1]

    @cached_property
    def codes(self) -> tuple[Integers, NDArray[np.int64]]:
        """Values and positions, shape (n, pairs); 0 where a channel has fewer."""
        if self._positions is not None:
            return self._values, self._positions
        if self.pairs == self.k:
            return self._values, np.broadcast_to(np.arange(self.k), self._values.shape)
        positions = np.sort(np.argsort(self._values == 0, axis=1, kind="stable")[:, : self.pairs], axis=1)
        return np.take_along_axis(self._values, positions, axis=1), positions

    @cached_property
    def sums(self) -> NDArray[np.int64]:
        """Of each output channel, the sum of its positive and of its negative weights; shape (2, n)."""
        sums = np.zeros((2, self.n), np.int64)
        _sums(self._values, *sums)
        return sums

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """Euclidean norm of each output channel."""
        norms: NDArray[np.float64] = np.sqrt(np.square(self._values, dtype=np.float64).sum(axis=1))
        return norms

    @cached_property
    def columns(self) -> NDArray[np.float64]:
        """Every weight as float64, shape (k, n)."""
        return np.ascontiguousarray(self.dense.T, np.float64)

    @cached_property
    def steps(self) -> int:
        """Steps of four weights at most that sparse octets take."""
        return int(tiles.sparse_steps(self.dense).sum())

    def panels(self, layout: Callable[[Integers], tiles.Panels], kind: np.dtype[Any]) -> tiles.Panels:
        """Lay out the weights for tiles that take this type."""
        if (layout, kind) not in self._panels:
            self._panels[layout, kind] = layout(self.dense.astype(kind))
        return self._panels[layout, kind]


class Product(NamedTuple):
    """What the array, and the post-processor if it was asked for, give.

    Parameters
    ----------
    value : signed integers, shape (m, n)
        Sums, int32 or int64 as `acc_bits` need, or output integers of the narrowest type that holds `act`.
    overflow : bool, shape (m, n)
        Whether any addition of each sum overflowed.
    """

    value: Integers
    overflow: NDArray[np.bool_]


class _Case(NamedTuple):
    """A product with what routes are chosen by: the narrowest type of all operands, and a bound on every partial sum."""

    x: Patches
    weights: Weights
    kind: np.dtype[np.signedinteger[Any]]
    reach: float


class _Route(NamedTuple):
    """A way to an exact product: whether it may be taken, its cost in steps of dense octets, and itself."""

    fits: Callable[[_Case], bool]
    cost: Callable[[_Case], float]
    run: Callable[[_Case, Prepared], None]


def _tiled(layout: Callable[[Integers], tiles.Panels], kind: str | None = None) -> Callable[[_Case, Prepared], None]:
    def run(case: _Case, to: Prepared) -> None:
        dtype = np.dtype(kind or case.kind)
        tiles.multiply(case.x.astype(dtype), case.weights.panels(layout, dtype), to)

    return run


def _float64(case: _Case, to: Prepared) -> None:
    finish((case.x.matrix.astype(np.float64) @ case.weights.columns).astype(np.int64), to)


def _lanes(kind: DTypeLike) -> Callable[[_Case, Prepared], None]:
    return lambda case, to: finish(lanes.multiply(case.x.matrix, *case.weights.codes, kind), to)


def _octets_fit(case: _Case) -> bool:
    return simd.VNNI and case.kind.itemsize <= 2 and case.weights.k <= tiles.DEPTH


def _int32_fits(case: _Case) -> bool:
    return case.kind.itemsize <= 2 and case.reach < _INT32


# Costs are measured times of one core of an AMD EPYC 9004 at 1024 x 1024 x 1024, over that of a step of dense octets.
ROUTES = {
    "dense octets": _Route(_octets_fit, lambda case: case.kind.itemsize**2 * case.weights.k / 4, _tiled(tiles.dense_octets)),
    "sparse octets": _Route(_octets_fit, lambda case: case.kind.itemsize**2 * case.weights.steps * 1.9, _tiled(tiles.sparse_octets)),
    "dense halves": _Route(lambda case: simd.JIT and _int32_fits(case), lambda case: case.weights.k / 2, _tiled(tiles.dense_halves, "i2")),
    "float64": _Route(lambda case: case.reach < _FLOAT64, lambda case: case.weights.k * 2.9, _float64),
    "lanes of 32 bits": _Route(_int32_fits, lambda case: case.weights.pairs * 2.3, _lanes(np.int32)),
    "lanes of 64 bits": _Route(lambda case: case.reach < _INT64, lambda case: case.weights.pairs * 4.3, _lanes(np.int64)),
}
"""Exact routes by name."""
SEQUENTIAL = "sequential"
"""Name of the route that applies the overflow rule after every addition."""


def gemm(
    config: AcceleratorConfig,
    x: NDArray[Any] | Patches,
    weights: Weights,
    post: Requantisation | None = None,
    acc: NDArray[Any] | None = None,
    overflow: NDArray[np.bool_] | None = None,
    route: str | None = None,
) -> Product:
    """Multiply activations by weights, bit for bit as :func:`accel.golden.stce.stce`, then as :func:`accel.golden.postprocess.postprocess`.

    Parameters
    ----------
    config : AcceleratorConfig
        Formats, and the overflow rule.
    x : signed or unsigned integers, shape (m, k), or Patches of it
        Activations [act LSBs].
    weights : Weights
    post : Requantisation, optional
        Without it the result is the sums.
    acc : integers, shape (m, n), optional
        Running partial sums [product LSBs]; 0 if not given.
    overflow : bool, shape (m, n), optional
        Overflow bits of the partial sums; false if not given.
    route : str, optional
        Take this one of :func:`routes` instead of the first.

    Returns
    -------
    Product

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    x = _check(config, x, weights, acc, overflow)
    m, n = x.shape[0], weights.n
    to = prepare(config, post, m, n)
    flags = np.zeros((m, n), np.bool_) if overflow is None else overflow.copy()
    if not to.out.size:
        return Product(to.out, flags)
    case, risky = _case(config, x, weights, acc)
    names = _names(case, risky)
    if route is not None and route not in names:
        raise RangeError(f"route must be one of {', '.join(names)} here, not {route!r}")
    name = route or names[0]
    if name == SEQUENTIAL:
        finish(_sequential(config, case, np.arange(n), acc, flags), to)
    elif acc is None and not risky.any():
        ROUTES[name].run(case, to)
    else:
        plain = Prepared(np.empty((m, n), np.int64), np.zeros((1, n), np.int64), np.empty(0, np.int64))
        ROUTES[name].run(case, plain)
        sums = plain.out if acc is None else plain.out + acc
        if risky.any():
            columns = np.flatnonzero(risky)
            sums[:, columns] = _sequential(config, case, columns, acc, flags)
        finish(sums, to)
    return Product(to.out, flags)


def routes(config: AcceleratorConfig, x: NDArray[Any] | Patches, weights: Weights, acc: NDArray[Any] | None = None) -> list[str]:
    """Name the routes that :func:`gemm` may take, the cheapest first; all but the last are for the channels that cannot overflow.

    Parameters
    ----------
    config : AcceleratorConfig
    x : signed or unsigned integers, shape (m, k), or Patches of it
    weights : Weights
    acc : integers, shape (m, n), optional

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    return _names(*_case(config, _check(config, x, weights, acc, None), weights, acc))


def _names(case: _Case, risky: NDArray[np.bool_]) -> list[str]:
    fit = [] if risky.all() else [name for name, route in ROUTES.items() if route.fits(case)]
    return [*sorted(fit, key=lambda name: ROUTES[name].cost(case)), SEQUENTIAL]


def _case(config: AcceleratorConfig, x: Patches, weights: Weights, acc: NDArray[Any] | None) -> tuple[_Case, NDArray[np.bool_]]:
    """Bound the partial sums; return the case and the channels that might overflow.

    Every partial sum of channel j lies between those of its products' least and greatest values, and within |x_i| |w_j| (Cauchy-Schwarz).
    """
    lo, hi = min(x.ends[0], 0), max(x.ends[1], 0)
    most = reach(weights, x)
    start = 0 if acc is None else max(-int(acc.min()), int(acc.max()))
    limit = (config.acc.hi + 1) / SLACK
    narrow = x.astype(narrowest(*x.ends))
    if most.max() + start >= limit:
        rows = narrow.matrix.astype(np.float64)
        longest = np.sqrt(np.einsum("ij,ij->i", rows, rows).max())
        most = np.minimum(most, longest * weights.norms)
    kind = narrowest(min(lo, weights.lo), max(hi, weights.hi))
    return _Case(narrow, weights, kind, float(most.max() * SLACK)), most + start >= limit


def reach(weights: Weights, x: Patches) -> NDArray[np.float64]:
    """Bound the magnitude of every partial sum of each output channel, by the least and greatest activation.

    Parameters
    ----------
    weights : Weights
    x : Patches
    """
    lo, hi = float(min(x.ends[0], 0)), float(max(x.ends[1], 0))
    plus, minus = weights.sums
    most: NDArray[np.float64] = np.maximum(plus * hi + minus * lo, -plus * lo - minus * hi)
    return most


def _sequential(
    config: AcceleratorConfig, case: _Case, columns: NDArray[np.int64], acc: NDArray[Any] | None, flags: NDArray[np.bool_]
) -> Integers:
    """Accumulate some channels product by product; return their sums and update their flags."""
    product = max(-case.x.ends[0], case.x.ends[1]) * max(-case.weights.lo, case.weights.hi)
    narrow = case.kind.itemsize <= 2
    sums = np.zeros((case.x.shape[0], len(columns)), lane(config.acc.hi + 1 + product) if narrow else np.int64)
    if acc is not None:
        sums += acc[:, columns]
    part = flags[:, columns]
    values, positions = (array[columns] for array in case.weights.codes)
    lanes.accumulate(case.x.matrix, values, positions, sums, part, config.acc, config.on_overflow)
    flags[:, columns] = part
    return sums


@kernel
def _sums(values, plus, minus):
    for j in range(len(values)):
        line, up, down = values[j], np.int64(0), np.int64(0)
        for s in range(line.size):
            up += max(line[s], 0)
            down += min(line[s], 0)
        plus[j], minus[j] = up, down


@kernel
def _fullest(values):
    most = 0
    for j in range(len(values)):
        count = 0
        for s in range(values.shape[1]):
            count += values[j, s] != 0
        most = max(most, count)
    return most


def _check(
    config: AcceleratorConfig, x: NDArray[Any] | Patches, weights: Weights, acc: NDArray[Any] | None, overflow: NDArray[np.bool_] | None
) -> Patches:
    """Refuse arguments that break their rule; return the activations."""
    if not isinstance(x, Patches):
        matrix("x", x)
        x = Patches.of(x)
    if x.shape[1] != weights.k:
        raise RangeError(f"x must be of shape (m, {weights.k}), not {x.shape}")
    shape = x.shape[0], weights.n
    ranges(config, x, weights)
    if acc is not None:
        matrix("acc", acc)
        if acc.shape != shape:
            raise RangeError(f"acc must be of shape {shape}, not {acc.shape}")
        _inside("acc", config.acc, *_ends(acc))
    if overflow is not None and (overflow.dtype != np.bool_ or overflow.shape != shape):
        raise RangeError(f"overflow must be bool of shape {shape}, not {overflow.dtype} of shape {overflow.shape}")
    return x


def ranges(config: AcceleratorConfig, x: Patches, weights: Weights) -> None:
    """Refuse operands that their formats do not hold.

    Parameters
    ----------
    config : AcceleratorConfig
    x : Patches
    weights : Weights

    Raises
    ------
    RangeError
    """
    _inside("x", config.act, *x.ends)
    _inside("weights", config.weight, weights.lo, weights.hi)


def _ends(array: NDArray[Any]) -> tuple[int, int]:
    return (int(array.min()), int(array.max())) if array.size else (0, 0)


def _inside(name: str, format: FixedFormat, lo: int, hi: int) -> None:
    if not format.lo <= lo <= hi <= format.hi:
        raise RangeError(f"{name} must be in [{format.lo}, {format.hi}], not {lo}..{hi}")
