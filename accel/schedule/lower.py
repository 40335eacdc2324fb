"""From operators to jobs of the array and the vector unit: shapes, codes and requantisation, as data that model and RTL both replay.

Every operator becomes a :class:`Layer` of jobs. A :class:`Product` is a matrix product on the array, a :class:`Reduction` one job of the
vector unit; the results of both pass the post-processor with the job's :class:`Requantisation`. Lowering looks at weights, never at
activations; :func:`operands` turns activations into what a job consumes, row by row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, singledispatch

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel import quant, sparsity
from accel.config import AcceleratorConfig
from accel.errors import NetworkError, RangeError
from accel.graph.network import Arithmetic, AveragePool, MatrixProduct, MaxPool, Network, Operator, Sum, Tensor, View, Window
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


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: weights are made once
class Product(Gemm):
    """One matrix product on the array: ``acc[i, j] = sum_s x[i, positions[j, s]] * values[j, s]``.

    Parameters
    ----------
    m, n, taps, channels : int
        See :class:`Gemm`; output channels, and the input channels of one channel group.
    pattern : Pattern
    window : Window
        Whose positions make the rows.
    padding : int
        The integer that padding inserts.
    group : int
        Which channel group of the operator this is.
    codes : Codes or None
        Paired weights, shape (n, pairs). None: only shapes are known.
    post : Requantisation or None
    start : int
        The first output channel.
    """

    window: Window
    padding: int
    group: int
    codes: Codes | None
    post: Requantisation | None
    start: int = 0

    @cached_property
    def weights(self) -> Weights | None:
        """The codes in the forms that the fast kernels take; None where only shapes are known."""
        return None if self.codes is None else Weights(*self.codes, self.k)

    @property
    def elements(self) -> int:
        """Elements of the activations' matrix."""
        return self.m * self.k


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
    """An operator and its jobs, which run one after the other; a view has none.

    Parameters
    ----------
    operator : Operator
    inputs : tuple of Tensor
    output : Tensor
    jobs : tuple of Product or Reduction
    """

    operator: Operator
    inputs: tuple[Tensor, ...]
    output: Tensor
    jobs: tuple[Product | Reduction, ...]


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
        for tensor in (*place.inputs, place.output):
            if tensor.bits > config.act_bits:
                raise NetworkError(f"{tensor.name} of {operator.name} must be at most act_bits ({config.act_bits}) wide, not {tensor.bits}")
        layers.append(Layer(operator=operator, inputs=place.inputs, output=place.output, jobs=jobs(operator, place)))
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


@jobs.register
def _(operator: View, place: Place) -> tuple[Product | Reduction, ...]:
    return ()


@jobs.register
def _(operator: MatrixProduct, place: Place) -> tuple[Product | Reduction, ...]:
    config, pattern = place.config, place.pattern
    taps, channels, n = operator.window.taps, operator.channels // operator.groups, operator.filters // operator.groups
    if operator.weights is None:
        matrix = None
        pattern = pattern or dense(config)
    else:
        operator = prune(operator, pattern) if pattern else operator
        matrix = operator.matrix
        lo, hi = matrix.min(), matrix.max()
        if not config.weight.lo <= lo <= hi <= config.weight.hi:
            rule = f"fit weight_bits ({config.weight_bits}) once their zero point is subtracted"
            raise NetworkError(f"weights of {operator.name} must {rule}, not be {lo}..{hi}")
        pattern = pattern or sparsity.detect(matrix, taps, channels, candidates(config)) or dense(config)

    def job(group: int, first: int, width: int) -> Product:
        start = group * n + first
        own = slice(start, start + width)
        codes = post = None
        if matrix is not None and operator.bias is not None and operator.multiplier is not None:
            codes = sparsity.encode(matrix[own], taps, channels, pattern) if place.encode else None
            post = requantisation(config, operator, operator.bias[own], operator.multiplier[own])
        return Product(
            m=place.positions,
            n=width,
            taps=taps,
            channels=channels,
            pattern=pattern,
            window=operator.window,
            padding=operator.padding,
            group=group,
            codes=codes,
            post=post,
            start=start,
        )

    return tuple(job(group, *part) for group in range(operator.groups) for part in columns(config, n))


@jobs.register
def _(operator: Sum, place: Place) -> tuple[Product | Reduction, ...]:
    """Bring both inputs to the fraction of the larger multiplier, as fine as coefficients and accumulator allow.

    ``real = top / 2**f * (sum_i c_i * (x_i - z_i) + offset)`` with ``c_i = round(2**f * multipliers[i] / top)``: a coefficient is off by
    at most 1/2, so an input of magnitude X adds at most ``X * top / 2**(f+1)`` to the error. Equal multipliers need no fraction.
    """
    top = max(operator.multipliers)
    offset = np.zeros(place.channels) if operator.offset is None else operator.offset
    exact = operator.offset is None and min(operator.multipliers) == top
    for fraction in (0,) if exact else range(COEFFICIENT_BITS - 2, -1, -1):
        scale = 2.0**fraction / top
        coefficients = [round(multiplier * scale) for multiplier in operator.multipliers]
        bias = np.rint(offset * scale) - np.dot(coefficients, operator.zero_points)
        reach = sum(c << (tensor.bits - 1) for c, tensor in zip(coefficients, place.inputs, strict=True))
        if max(reach, np.abs(bias).max()) <= place.config.acc.hi:
            break
    whole = Reduction(
        m=place.positions,
        n=place.channels,
        reduce=Reduce.SUM,
        beats=len(coefficients),
        head=coefficients[0],
        tail=coefficients[-1],
        post=requantisation(place.config, operator, np.broadcast_to(bias, place.channels), 1 / scale),
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
        post = whole.post
        tables = {name: getattr(post, name)[first : first + width] for name in ("bias", "mult", "shift")}
        return dataclasses.replace(whole, n=width, start=first, post=dataclasses.replace(post, **tables))

    return tuple(part(*each) for each in columns(config, whole.n))


def passes(config: AcceleratorConfig, layer: Layer) -> list[list[Product | Reduction]]:
    """Group the jobs of a layer: those of a pass share one filling of the parameter memory and follow each other without a pause.

    A matrix product is a pass of its own.
    """
    groups: list[list[Product | Reduction]] = []
    room = 0
    for job in layer.jobs:
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
    return Requantisation(bias=whole, mult=mult, shift=shift, zero_point=operator.zero_point, lo=operator.lo, hi=operator.hi)


def operands(layer: Layer, job: Product | Reduction, values: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Arrange the inputs of a layer as a job consumes them.

    Parameters
    ----------
    layer : Layer
    job : Product or Reduction
        One of ``layer.jobs``.
    values : sequence of int64, each of shape (samples, *tensor shape)
        The layer's inputs, of any number of samples.

    Returns
    -------
    int64, shape (rows, k) or (rows, beats, n)
        Of a product, of a reduction. Rows run over samples, then output positions.
    """
    images = [value.reshape(len(value), *tensor.image) for value, tensor in zip(values, layer.inputs, strict=True)]
    if isinstance(job, Product):
        channels = slice(job.group * job.channels, (job.group + 1) * job.channels)
        return windows(images[0][..., channels], job.window, job.padding).reshape(-1, job.k)
    images = [image[..., job.start : job.start + job.n] for image in images]
    seen = np.stack(images, axis=3) if job.window is None else windows(images[0], job.window, job.padding)
    beats = seen.reshape(len(seen), -1, job.beats, job.n)
    return (beats if job.positions is None else beats[:, job.positions]).reshape(-1, job.beats, job.n)


def windows(image: NDArray[np.int64], window: Window, padding: int) -> NDArray[np.int64]:
    """View what a window sees at each of its positions: (batch, height, width, channels) to (batch, rows, columns, kh, kw, channels)."""
    top, left, bottom, right = window.pads
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=padding)
    spans = [dilation * (kernel - 1) + 1 for dilation, kernel in zip(window.dilation, window.kernel, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(1, 2))
    (down, across), (tall, wide) = window.stride, window.dilation
    return seen[:, ::down, ::across, :, ::tall, ::wide].transpose(0, 1, 2, 4, 5, 3)


def store(job: Product | Reduction, results: NDArray[np.number], output: NDArray[np.number]) -> None:
    """Put the results of a job, shape (m, n), where they belong in a layer's output, shape (batch, *tensor shape)."""
    places = output.reshape(len(output), -1, output.shape[-1])[..., job.start : job.start + job.n]
    positions = slice(None) if isinstance(job, Product) or job.positions is None else job.positions
    places[:, positions] = results.reshape(len(output), -1, job.n)
