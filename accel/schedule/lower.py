"""From operators to jobs of the array and the vector unit: shapes, codes and requantisation, as data that model and RTL both replay.

Every operator becomes a :class:`Layer` of jobs. A :class:`Product` is a matrix product on the array, or as many equal ones as there are
channel groups; a :class:`Reduction` is one job of the vector unit. The results of both pass the post-processor with the job's
:class:`Requantisation`. What only moves data, and what array and vector unit have no job for, is a layer without jobs. Lowering looks at
weights, never at activations; :func:`operands` turns activations into what a job consumes, row by row, and :func:`bound` gives a product
of two activations its weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, singledispatch
from itertools import product
from math import prod
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel import quant, sparsity
from accel.config import AcceleratorConfig
from accel.errors import NetworkError, RangeError
from accel.graph.network import (
    ArgMax,
    Arithmetic,
    AveragePool,
    Divide,
    DynamicProduct,
    Host,
    LayerNorm,
    Lookup,
    MatrixProduct,
    MaxPool,
    Move,
    Multiply,
    Network,
    Operator,
    Softmax,
    Sum,
    Tensor,
    TransposedConvolution,
)
from accel.graph.window import Window
from accel.isa import COEFFICIENT_BITS, Post, Reduce, Source, Vector
from accel.kernels import requantise
from accel.kernels.gemm import Weights
from accel.schedule.gemm import Gemm
from accel.sparsity import Codes, Pattern


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requantisation(requantise.Requantisation):
    """How sums of a job become outputs: one bias, multiplier and shift for each channel.

    Parameters
    ----------
    bias, mult, shift : int64, shape (channels,)
        Of each output channel of the job.
    zero_point, lo, hi : int
        Output integers.
    rounding : Rounding
    """

    bias: NDArray[np.int64]
    mult: NDArray[np.int64]
    shift: NDArray[np.int64]

    def instruction(self, source: Source, rows: int, base: int = 0, vectors: int = 1) -> Post:
        """Make the job of the post-processor for `rows` rows."""
        return Post(
            source=source,
            rows=rows,
            base=base,
            vectors=vectors,
            zero_point=self.zero_point,
            lo=self.lo,
            hi=self.hi,
            rounding=self.rounding.value,
        )


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: codes are made once
class Product(Gemm):
    """Equal matrix products on the array, one for each group: ``acc[i, j] = sum_k x[i, k] * weights[j, k]``.

    Parameters
    ----------
    m, n, taps, channels : int
        Of each; see :class:`Gemm`. `taps` are those of the window, as often as they are presented.
    pattern : Pattern
    window : Window
        Whose positions make the rows; its pads may be negative, which crops.
    padding : int
        The integer that padding inserts.
    group : int
        The first group: of channels, or where both operands are activations, of a batch's products.
    weights : Weights or None
        Shape (groups * n, k), group by group. None: only shapes are known, or they are activations.
    post : Requantisation or None
        Of groups * n channels, or of n where the weights are activations.
    start : int
        The first output channel of the first group.
    groups : int
        How many groups.
    step : int
        Output channels from one group to the next.
    presented : int
        How often the activations are presented: weights too wide by a bit are the sum of so many parts.
    positions : int64, shape (positions,), or None
        Output positions of one sample that the rows are; None is all.
    """

    window: Window = field(default_factory=Window)
    padding: int = 0
    group: int = 0
    weights: Weights | None = None
    post: Requantisation | None = None
    start: int = 0
    groups: int = 1
    step: int = 0
    presented: int = 1
    positions: NDArray[np.int64] | None = None

    @cached_property
    def codes(self) -> Codes | None:
        """The weights as the array takes them; None where only shapes are known."""
        if self.weights is None:
            return None
        if self.weights.coded:
            return Codes(*self.weights.codes)
        return sparsity.encode(self.weights.dense, self.taps, self.channels, self.pattern)

    @property
    def elements(self) -> int:
        """Elements of the activations' matrices."""
        return self.m * self.k * self.groups

    def single(self, index: int) -> Product:
        """Take one of the groups."""
        if self.groups == 1:
            return self
        rows = slice(index * self.n, (index + 1) * self.n)
        return dataclasses.replace(
            self,
            group=self.group + index,
            groups=1,
            start=self.start + index * self.step,
            weights=None if self.weights is None else self.weights.rows(rows),
            post=self.post if self.post is None or self.post.bias.size == self.n else self.post.channels(rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reduction:
    """One job of the vector unit: ``acc = head * x[0] + tail * (x[1] + ...)`` or ``max(x)`` over the beats of a row.

    Parameters
    ----------
    m, n : int
        Rows (output positions of the batch) and channels.
    reduce : Reduce
    beats : int
        Beats per row.
    head, tail : int
        Coefficients of the first beat and of the others.
    window : Window or None
        Whose taps are the beats. None: each input is a beat.
    padding : int
        The integer that padding inserts.
    positions : int64, shape (positions,), or None
        Output positions of one sample that the job covers, ascending; None is all.
    post : Requantisation
    start : int
        The first channel.
    """

    m: int
    n: int
    reduce: Reduce
    beats: int
    head: int = 1
    tail: int = 1
    window: Window | None = None
    padding: int = 0
    positions: NDArray[np.int64] | None = None
    post: Requantisation
    start: int = 0

    @property
    def elements(self) -> int:
        """Elements of the beats."""
        return self.m * self.beats * self.n

    def instruction(self, rows: int) -> Vector:
        """Make the job of the vector unit for `rows` rows."""
        return Vector(reduce=self.reduce, rows=rows, window=self.beats, head=self.head, tail=self.tail)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """An operator and its jobs, which run one after the other; what runs on neither array nor vector unit has none.

    Parameters
    ----------
    operator : Operator
    inputs : tuple of Tensor
    output : Tensor
    jobs : tuple of Product or Reduction
    energy_removed : float or None
        Fraction of the sum of squared weights that pruning removed; None where no pattern was asked for, or there are no weights.
    """

    operator: Operator
    inputs: tuple[Tensor, ...]
    output: Tensor
    jobs: tuple[Product | Reduction, ...]
    energy_removed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """Where an operator stands: what lowering it needs besides the operator.

    Parameters
    ----------
    config : AcceleratorConfig
    batch : int
    inputs : tuple of Tensor
    output : Tensor
    pattern : Pattern or None
        Asked for; None: the one that the weights obey.
    encode : bool
        Make codes of weights.
    """

    config: AcceleratorConfig
    batch: int
    inputs: tuple[Tensor, ...]
    output: Tensor
    pattern: Pattern | None
    encode: bool

    @property
    def positions(self) -> int:
        """Output positions of the batch."""
        height, width, _ = self.output.image
        return self.batch * height * width

    @property
    def channels(self) -> int:
        """Channels of the output."""
        return self.output.shape[-1]


def lower(
    network: Network, config: AcceleratorConfig, *, batch: int = 1, pattern: Pattern | None = None, encode: bool = True
) -> tuple[Layer, ...]:
    """Lower a network, layer by layer in execution order.

    Parameters
    ----------
    network : Network
    config : AcceleratorConfig
    batch : int
        Samples that each layer takes at once: they multiply the rows of its jobs.
    pattern : Pattern, optional
        Runs the :func:`eligible` products at this pattern, pruned to it, and all others dense. Without it each product runs at the sparsest
        pattern that its weights obey.
    encode : bool
        Make the codes of the weights, which values need and cycles do not.

    Raises
    ------
    NetworkError
        If a layer does not fit `config`. The message names the layer.
    """
    pruned = eligible(network) if pattern else frozenset()
    layers = []
    for operator in network.operators:
        place = Place(
            config=config,
            batch=batch,
            inputs=tuple(network.tensors[name] for name in operator.inputs),
            output=network.tensors[operator.output],
            pattern=None if pattern is None else pattern if operator.name in pruned else dense(config),
            encode=encode,
        )
        made = jobs(operator, place)
        for tensor in (*place.inputs, place.output) if made else ():
            if tensor.bits > config.act_bits:
                raise NetworkError(f"{tensor.name} of {operator.name} must be at most act_bits ({config.act_bits}) wide, not {tensor.bits}")
        removed = None
        if pattern and isinstance(operator, MatrixProduct | TransposedConvolution):
            removed = _weights(operator, place).removed
        layers.append(Layer(operator=operator, inputs=place.inputs, output=place.output, jobs=made, energy_removed=removed))
    return tuple(layers)


def dense(config: AcceleratorConfig) -> Pattern:
    """Return the pattern that keeps everything: B:B."""
    return Pattern(config.bundle, config.bundle)


def candidates(config: AcceleratorConfig) -> tuple[Pattern, ...]:
    """List the patterns looked for in weights: dense first, then N:M of every power of two M that a bundle holds."""
    return (dense(config), *(Pattern(n, m) for m in (2, 4, 8, 16, 32) if m <= config.bundle for n in range(1, m)))


def eligible(network: Network) -> frozenset[str]:
    """Name the products that a pattern prunes: all but the first convolution and the last linear layer."""
    products = network.products
    convolutions = [product.name for product in products if product.kind == "Conv"]
    linear = [product.name for product in products if product.kind != "Conv"]
    return frozenset(product.name for product in products) - {*convolutions[:1], *linear[-1:]}


def prune(product: MatrixProduct, pattern: Pattern) -> MatrixProduct:
    """Prune the weights of a product along its input channels; `bias` keeps what the zero point needs."""
    if product.weights is None or product.bias is None:
        return product
    weights = sparsity.prune(product.weights, pattern)
    lost = (product.weights.astype(np.int64) - weights).reshape(product.filters, -1).sum(axis=1)
    return dataclasses.replace(product, weights=weights, bias=product.bias + product.padding * lost)


@singledispatch
def jobs(operator: Operator, place: Place) -> tuple[Product | Reduction, ...]:
    """Lower one operator: one function per type, registered below."""
    raise NetworkError(f"operator {operator.name} must be of a type that is lowered, not {type(operator).__name__}")


@jobs.register(Move)
@jobs.register(Multiply)
@jobs.register(Divide)
@jobs.register(Lookup)
@jobs.register(Softmax)
@jobs.register(LayerNorm)
@jobs.register(ArgMax)
@jobs.register(Host)
def _(operator: Operator, place: Place) -> tuple[Product | Reduction, ...]:
    return ()


@jobs.register
def _(operator: MatrixProduct, place: Place) -> tuple[Product | Reduction, ...]:
    known = _weights(operator, place)
    return tuple(_products(operator, place, known, _Phase(0, operator.window, None, known.bias, known.values), operator.padding))


@jobs.register
def _(operator: TransposedConvolution, place: Place) -> tuple[Product | Reduction, ...]:
    """Make a dense convolution of each phase: of the output positions that are equal modulo the stride, which see the same taps."""
    known = _weights(operator, place)
    found: list[Product] = []
    for phase in phases(operator.window, place.inputs[0].image[:2], operator.size):
        values, bias = known.values, known.bias
        if values is not None and bias is not None:
            values = values[:, phase.down][:, :, phase.across] * (not phase.empty)
            bias = bias - operator.input_zero * values.reshape(len(values), -1).sum(axis=1, dtype=np.int64)
        found += _products(operator, place, known, _Phase(len(found), phase.window, phase.positions, bias, values), operator.input_zero)
    return tuple(found)


class Phase(NamedTuple):
    """A dense convolution of a transposed one: of the output positions that are equal modulo the stride, which see the same taps.

    Parameters
    ----------
    window : Window
        Slides over the input by ones.
    positions : int64, shape (positions,)
        Output positions that it makes.
    down, across : list of int
        Taps of the kernel in the order in which the window sees them; [-1] where there are none.
    """

    window: Window
    positions: NDArray[np.int64]
    down: list[int]
    across: list[int]

    @property
    def empty(self) -> bool:
        """Whether it sees no tap: its sums are 0."""
        return min(*self.down, *self.across) < 0


def phases(window: Window, image: tuple[int, int], size: tuple[int, int]) -> list[Phase]:
    """Cut a transposed convolution into dense ones.

    Parameters
    ----------
    window : Window
        As of the convolution that it transposes.
    image, size : tuple of int
        Height and width of its input and of its output.
    """
    axes = [
        [_phase(window, axis, phase, image[axis], size[axis]) for phase in range(min(window.stride[axis], size[axis]))] for axis in range(2)
    ]
    grid = np.arange(prod(size)).reshape(size)
    found = []
    for (vertical, down), (horizontal, across) in product(*(enumerate(each) for each in axes)):
        dense = Window(
            kernel=(len(down.taps), len(across.taps)),
            dilation=(down.dilation, across.dilation),
            pads=(down.before, across.before, down.after, across.after),
        )
        found.append(Phase(dense, grid[vertical :: window.stride[0], horizontal :: window.stride[1]].ravel(), down.taps, across.taps))
    return found


class _Axis(NamedTuple):
    """What one phase of a transposed convolution sees along an axis: taps in the order of the input, their distance, and padding."""

    taps: list[int]
    dilation: int
    before: int
    after: int


def _phase(window: Window, axis: int, phase: int, size: int, places: int) -> _Axis:
    """Turn the taps that meet outputs ``phase, phase + stride, ...`` into a window that slides over the input by ones.

    Tap t puts input i at ``i * stride - pad + t * dilation``, so output ``phase + q * stride`` sees input ``q + (phase + pad - t *
    dilation) / stride`` by the taps for which that is whole: every ``stride / gcd(stride, dilation)``-th. Where there are none, the phase
    is the bias alone: tap -1, whose weights are zeros.
    """
    stride, dilation, pad = window.stride[axis], window.dilation[axis], window.pads[axis]
    taps = [tap for tap in range(window.kernel[axis] - 1, -1, -1) if (phase + pad - tap * dilation) % stride == 0] or [-1]
    first = (phase + pad - taps[0] * dilation) // stride
    step = 1 if len(taps) == 1 else (taps[0] - taps[1]) * dilation // stride
    count = -(-(places - phase) // stride)
    return _Axis(taps, step, -first, first + count + step * (len(taps) - 1) - size)


@jobs.register
def _(operator: DynamicProduct, place: Place) -> tuple[Product | Reduction, ...]:
    """Make the second operand the weights; where it is too wide by a bit it is split, whatever its values turn out to be."""
    config = place.config
    products, m, k, n = operator.dimensions(place.inputs)
    held, zero = place.inputs[1].format, operator.zero_points[1]
    presented = parts(config, f"{place.inputs[1].name} of {operator.name}", held.lo - zero, held.hi - zero)
    reach = abs(operator.zero_points[0]) * k * max(zero - held.lo, held.hi - zero)
    if reach > config.acc.hi:
        raise NetworkError(f"bias of {operator.name} must fit acc_bits ({config.acc_bits}) whatever the activations, not reach {reach}")
    return tuple(
        Product(
            m=m,
            n=width,
            taps=presented,
            channels=k,
            pattern=dense(config),
            post=requantisation(config, operator, np.zeros(width), operator.multiplier),
            start=first,
            groups=place.batch * products,
            presented=presented,
        )
        for first, width in columns(config, n)
    )


def bound(layer: Layer, job: Product, values: Sequence[NDArray[np.signedinteger]]) -> Product:
    """Give a product of one group its weights, and a bias that holds the first operand's zero point, if activations are its weights.

    Parameters
    ----------
    layer : Layer
    job : Product
        Of one group; returned as it is unless its operator is a :class:`DynamicProduct`.
    values : sequence of signed integers, each of shape (samples, *tensor shape)
        The layer's inputs.
    """
    operator = layer.operator
    if not isinstance(operator, DynamicProduct) or job.post is None:
        return job
    second = values[1].reshape(-1, *values[1].shape[-2:])[job.group]
    second = (second if operator.transposed else second.T)[job.start : job.start + job.n].astype(np.int64) - operator.zero_points[1]
    bias = -operator.zero_points[0] * second.sum(axis=1)
    return dataclasses.replace(job, weights=Weights(split_parts(second, job.presented)), post=dataclasses.replace(job.post, bias=bias))


def parts(config: AcceleratorConfig, name: str, lo: int, hi: int) -> int:
    """Count the parts that weights in [lo, hi] are split into to fit `weight_bits`; they may be too wide by one bit.

    Two parts of b bits hold all of b + 1 bits but the largest integer, 2**b - 1, which takes three.

    Raises
    ------
    NetworkError
        If the weights are wider. The message starts with `name`.
    """
    held = config.weight
    if not 2 * held.lo <= lo <= hi <= 2 * held.hi + 1:
        rule = f"fit weight_bits ({config.weight_bits}) and one bit more once their zero point is subtracted"
        raise NetworkError(f"{name} must {rule}, not be {lo}..{hi}")
    return next(count for count in (1, 2, 3) if count * held.lo <= lo and hi <= count * held.hi)


def split_parts(matrix: NDArray[np.signedinteger], count: int) -> NDArray[np.signedinteger]:
    """Write each weight b, shape (n, k), as ``sum_i (b + i) // count``, i in range(count), side by side: shape (n, count * k)."""
    if count == 1:
        return matrix
    wide = matrix.astype(np.int64)
    return np.concatenate([(wide + i) // count for i in range(count)], axis=1)


class _Known(NamedTuple):
    """Weights of an operator, pruned if that is asked for: what is known of them, the pattern they run at, and forms made of them."""

    values: NDArray[np.signedinteger] | None
    bias: NDArray[np.int64] | None
    pattern: Pattern
    presented: int
    removed: float | None
    made: dict[tuple[int, ...], Weights]


_KEPT = 4  # our choice: what is known of an operator's weights is kept for so many patterns and widths at a time
_known: WeakKeyDictionary[Operator, dict[Any, _Known]] = WeakKeyDictionary()


class _Phase(NamedTuple):
    """A dense convolution of an operator: its number, its window, the output positions that it makes, and weights of these taps."""

    number: int
    window: Window
    positions: NDArray[np.int64] | None
    bias: NDArray[np.int64] | None
    values: NDArray[np.signedinteger] | None


def _weights(operator: MatrixProduct | TransposedConvolution, place: Place) -> _Known:
    """Look at the weights of an operator: once for each pattern, as long as the operator lives."""
    config = place.config
    if operator.weights is None:
        own = operator.pattern if isinstance(operator, MatrixProduct) else None
        return _Known(None, None, place.pattern or own or dense(config), 1, None, {})
    kept = _known.setdefault(operator, {})
    key = place.pattern, config.bundle, config.weight_bits
    if key not in kept:
        found = _look(operator, config, place.pattern)
        while len(kept) >= _KEPT:
            del kept[next(iter(kept))]
        kept[key] = found
    return kept[key]


def _look(operator: MatrixProduct | TransposedConvolution, config: AcceleratorConfig, pattern: Pattern | None) -> _Known:
    whole = operator.weights
    if pattern and not pattern.dense and isinstance(operator, MatrixProduct):
        operator = prune(operator, pattern)
    kept = operator.weights
    assert whole is not None
    assert kept is not None
    taps, channels = operator.window.taps, operator.channels // operator.groups
    matrix = kept.reshape(operator.filters, -1)
    count = parts(config, f"weights of {operator.name}", int(matrix.min()), int(matrix.max()))
    pattern = pattern or sparsity.detect(matrix, taps, channels, candidates(config)) or dense(config)
    removed = 0.0 if kept is whole else sparsity.energy_removed(whole, kept)
    return _Known(kept, operator.bias, pattern, count, removed, {})


def _products(
    operator: MatrixProduct | TransposedConvolution, place: Place, known: _Known, phase: _Phase, padding: int
) -> Iterator[Product]:
    """Make the jobs of a dense convolution: one for as many channels of each group as there is room for their parameters."""
    config, groups = place.config, operator.groups
    filters, channels = operator.filters // groups, operator.channels // groups
    taps = phase.window.taps
    for first, width in columns(config, filters):
        weights = post = None
        if phase.values is not None and phase.bias is not None and operator.multiplier is not None:

            def own(table: NDArray[Any], first: int = first, width: int = width) -> NDArray[Any]:
                return table.reshape(groups, filters, -1)[:, first : first + width].reshape(groups * width, -1)

            key = phase.number, first, width
            if place.encode and key not in known.made:
                known.made[key] = Weights(split_parts(own(phase.values), known.presented))
            weights = known.made[key] if place.encode else None
            post = requantisation(config, operator, own(phase.bias).ravel(), own(operator.multiplier).ravel())
        yield Product(
            m=place.positions if phase.positions is None else place.batch * len(phase.positions),
            n=width,
            taps=known.presented * taps,
            channels=channels,
            pattern=known.pattern,
            window=phase.window,
            padding=padding,
            weights=weights,
            post=post,
            start=first,
            groups=groups,
            step=filters,
            presented=known.presented,
            positions=phase.positions,
        )


@jobs.register
def _(operator: Sum, place: Place) -> tuple[Product | Reduction, ...]:
    """Bring both inputs to the fraction of the larger multiplier, as fine as coefficients and accumulator allow.

    ``real = gain * top / 2**f * (sum_i c_i * (x_i - z_i) + offset)`` with ``c_i = round(2**f * multipliers[i] / top)`` and top the greatest
    magnitude: a coefficient is off by at most 1/2, so an input of magnitude X adds at most ``X * top / 2**(f+1)`` to the error. Multipliers
    of equal magnitude need no fraction.
    """
    top = max(map(abs, operator.multipliers))
    gain = np.ones(()) if operator.gain is None else operator.gain
    offset = np.zeros(place.channels) if operator.offset is None else operator.offset / gain
    exact = operator.offset is None and min(map(abs, operator.multipliers)) == top
    for fraction in (0,) if exact else range(COEFFICIENT_BITS - 2, -1, -1):
        scale = 2.0**fraction / top
        coefficients = [round(multiplier * scale) for multiplier in operator.multipliers]
        bias = np.rint(offset * scale) - np.dot(coefficients, operator.zero_points)
        reach = sum(abs(c) << (tensor.bits - 1) for c, tensor in zip(coefficients, place.inputs, strict=True))
        if max(reach, np.abs(bias).max()) <= place.config.acc.hi:
            break
    whole = Reduction(
        m=place.positions,
        n=place.channels,
        reduce=Reduce.SUM,
        beats=len(coefficients),
        head=coefficients[0],
        tail=coefficients[-1],
        post=requantisation(place.config, operator, np.broadcast_to(bias, place.channels), gain / scale),
    )
    return split(place.config, whole)


@jobs.register
def _(operator: MaxPool, place: Place) -> tuple[Product | Reduction, ...]:
    whole = Reduction(
        m=place.positions,
        n=place.channels,
        reduce=Reduce.MAX,
        beats=operator.window.taps,
        window=operator.window,
        padding=place.inputs[0].format.lo,  # never wins
        post=requantisation(place.config, operator, np.full(place.channels, -operator.input_zero), operator.multiplier),
    )
    return split(place.config, whole)


@jobs.register
def _(operator: AveragePool, place: Place) -> tuple[Product | Reduction, ...]:
    """Make one job for each divisor: at the border a window may count fewer elements."""
    counts = operator.counts(*place.inputs[0].image[:2]).ravel()
    bias = np.full(place.channels, -operator.input_zero * operator.window.taps)

    def whole(count: int) -> Reduction:
        positions = np.flatnonzero(counts == count)
        return Reduction(
            m=place.batch * len(positions),
            n=place.channels,
            reduce=Reduce.SUM,
            beats=operator.window.taps,
            window=operator.window,
            padding=operator.input_zero,
            positions=None if len(positions) == len(counts) else positions,
            post=requantisation(place.config, operator, bias, operator.multiplier / count),
        )

    return tuple(job for count in np.unique(counts)[::-1] for job in split(place.config, whole(int(count))))


def columns(config: AcceleratorConfig, n: int) -> Iterator[tuple[int, int]]:
    """Cut channels into (first, how many), as many at once as the post-processor's memory has parameters for."""
    most = max(config.param_rows // config.add_stages, 1) * config.add_stages * config.cols
    return ((first, min(most, n - first)) for first in range(0, n, most))


def split(config: AcceleratorConfig, whole: Reduction) -> tuple[Reduction, ...]:
    """Cut a reduction into jobs of as many channels as the post-processor's memory has parameters for."""

    def part(first: int, width: int) -> Reduction:
        return dataclasses.replace(whole, n=width, start=first, post=whole.post.channels(slice(first, first + width)))

    return tuple(part(*each) for each in columns(config, whole.n))


def passes(config: AcceleratorConfig, layer: Layer) -> list[list[Product | Reduction]]:
    """Group the jobs of a layer: those of a pass share one filling of the parameter memory and follow each other without a pause.

    A matrix product of one group is a pass of its own.
    """
    groups: list[list[Product | Reduction]] = []
    room = 0
    singles = (one for job in layer.jobs for one in ([job] if isinstance(job, Reduction) else map(job.single, range(job.groups))))
    for job in singles:
        vectors = -(-job.n // config.cols)
        if isinstance(job, Product) or vectors > room:
            groups.append([])
            room = config.param_rows
        groups[-1].append(job)
        room -= vectors
    return groups


def requantisation(config: AcceleratorConfig, operator: Arithmetic, bias: ArrayLike, factor: ArrayLike) -> Requantisation:
    """Turn the real factor of each channel, or one for all, into a multiplier and a shift."""
    with np.errstate(invalid="ignore"):  # what exceeds int64 comes out as its end, which is refused
        whole = np.asarray(bias).astype(np.int64)
    if not config.acc.lo <= whole.min() <= whole.max() <= config.acc.hi:
        raise NetworkError(f"bias of {operator.name} must fit acc_bits ({config.acc_bits}), not be {whole.min()}..{whole.max()}")
    try:
        mult, shift = quant.nearest_multiplier(np.broadcast_to(factor, whole.shape), config.mult_bits)
    except RangeError as error:
        raise NetworkError(f"{operator.name}: {error}") from None
    return Requantisation(
        bias=whole,
        mult=mult,
        shift=shift,
        zero_point=operator.zero_point,
        lo=operator.lo,
        hi=operator.hi,
        rounding=operator.rounding,
    )


def operands(layer: Layer, job: Product | Reduction, values: Sequence[NDArray[np.signedinteger]]) -> NDArray[np.signedinteger]:
    """Arrange the inputs of a layer as a job consumes them.

    Parameters
    ----------
    layer : Layer
    job : Product or Reduction
        One of ``layer.jobs``, or one group of it.
    values : sequence of signed integers, each of shape (samples, *tensor shape)
        The layer's inputs, of any number of samples.

    Returns
    -------
    signed integers, shape (rows, k) or (rows, beats, n)
        Of a product of one group, of a reduction. Rows run over samples, then output positions.
    """
    if isinstance(layer.operator, DynamicProduct) and isinstance(job, Product):
        first = values[0].reshape(-1, *values[0].shape[-2:])[job.group]
        return np.tile(first, (1, job.presented))
    images = [value.reshape(len(value), *tensor.image) for value, tensor in zip(values, layer.inputs, strict=True)]
    if isinstance(job, Product):
        channels = slice(job.group * job.channels, (job.group + 1) * job.channels)
        seen = windows(images[0][..., channels], job.window, job.padding)
        return np.tile(seen.reshape(-1, job.k // job.presented), (1, job.presented))
    images = [image[..., job.start : job.start + job.n] for image in images]
    seen = np.stack(images, axis=3) if job.window is None else windows(images[0], job.window, job.padding)
    beats = seen.reshape(len(seen), -1, job.beats, job.n)
    return (beats if job.positions is None else beats[:, job.positions]).reshape(-1, job.beats, job.n)


def windows(image: NDArray[np.signedinteger], window: Window, padding: int) -> NDArray[np.signedinteger]:
    """View what a window sees at each of its positions: (batch, height, width, channels) to (batch, rows, columns, kh, kw, channels)."""
    _, height, width, _ = image.shape
    top, left, bottom, right = window.pads
    added = [(max(before, 0), max(after, 0)) for before, after in ((top, bottom), (left, right))]
    padded = np.pad(image, ((0, 0), *added, (0, 0)), constant_values=padding)
    padded = padded[:, max(-top, 0) :, max(-left, 0) :][:, : height + top + bottom, : width + left + right]
    spans = [dilation * (kernel - 1) + 1 for dilation, kernel in zip(window.dilation, window.kernel, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(1, 2))
    (down, across), (tall, wide) = window.stride, window.dilation
    return seen[:, ::down, ::across, :, ::tall, ::wide].transpose(0, 1, 2, 4, 5, 3)


def store(layer: Layer, job: Product | Reduction, results: NDArray[np.number], output: NDArray[np.number]) -> None:
    """Put the results of a job where they belong in a layer's output, shape (samples, *tensor shape).

    `results` has shape (rows, n), or (rows, groups * n), group by group; of a product of activations (groups * m, n).
    """
    if isinstance(job, Reduction) or isinstance(layer.operator, DynamicProduct):
        places = output.reshape(len(output), -1, 1, output.shape[-1])[..., job.start : job.start + job.n]
    else:
        step = job.step or output.shape[-1]
        places = output.reshape(len(output), -1, output.shape[-1] // step, step)
        places = places[:, :, job.group : job.group + job.groups, job.start % step : job.start % step + job.n]
    positions = slice(None) if job.positions is None else job.positions
    places[:, positions] = results.reshape(len(output), -1, *places.shape[2:])
