"""The network as the accelerator sees it: integer tensors and the operators between them, in execution order.

Activations are signed integers. A shape is that of one sample as it is stored: images ``(height, width, channels)``, anything else in
ONNX's order, ``(rows, channels)``, ``(channels,)`` or with more axes in front; the batch is an argument of whatever runs the network. A
tensor's value is ``scale * (integer - zero_point)``. An unsigned ONNX tensor of b bits is stored minus ``2**(b-1)``, integer and zero point
alike.

Every arithmetic operator ends alike: an exact sum, one real factor, one rounding (half to even, ONNX's rule, unless it says otherwise), the
output's zero point, then `lo` and `hi`, which merge ReLU, Clip and the type's range. Factors are float64 here; a configuration turns them
into a multiplier and a shift. What has no block of its own is computed in fixed point by :mod:`accel.special`, or, as a :class:`Host`, in
float outside the accelerator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.errors import NetworkError, RangeError
from accel.formats import FixedFormat, Rounding
from accel.graph.graph import Graph
from accel.graph.window import Image, Window, image
from accel.quant import dequantise, quantise
from accel.sparsity import Pattern

if TYPE_CHECKING:
    from accel.graph.trainable import Trainable


def channels_last(axes: int) -> tuple[int, ...]:
    """Axes of an ONNX tensor, batch apart, in our order: of three, channels move from first to last."""
    return (1, 2, 0) if axes == 3 else tuple(range(axes))


def channels_first(axes: int) -> tuple[int, ...]:
    """Our axes in ONNX's order: the inverse of :func:`channels_last`."""
    return (2, 0, 1) if axes == 3 else tuple(range(axes))


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Undo a transposition by these axes."""
    return tuple(axes.index(axis) for axis in range(len(axes)))


def batched(values: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Transpose each sample of a batch."""
    return values.transpose(0, *(axis + 1 for axis in axes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An integer tensor between operators.

    Parameters
    ----------
    name : str
        Name of the ONNX tensor that holds the same integers, perhaps in another shape.
    shape : tuple of int
        One sample as it is stored.
    bits : int
        Width of the signed integers [bits].
    scale : float
        Real value of one least significant bit.
    zero_point : int
        The integer that stands for 0.
    unsigned : bool
        The ONNX tensor is unsigned: its integers are `offset` above ours.
    order : tuple of int, optional
        Stored axis i is axis ``order[i]`` of the ONNX tensor without its batch. Without it an image of three axes is stored channels
        last, and any other tensor as ONNX has it.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    scale: float
    zero_point: int = 0
    unsigned: bool = False
    order: tuple[int, ...] | None = None

    @property
    def format(self) -> FixedFormat:
        """Format of the integers."""
        return FixedFormat(self.bits)

    @property
    def offset(self) -> int:
        """What ONNX's integers are above ours."""
        return 1 << (self.bits - 1) if self.unsigned else 0

    @property
    def size(self) -> int:
        """Elements of one sample."""
        return prod(self.shape)

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of the ONNX tensor, batch apart, in stored order: `order`, or what it is without one."""
        return channels_last(len(self.shape)) if self.order is None else self.order

    @property
    def image(self) -> Image:
        """The shape as (height, width, channels): missing axes are 1, axes in front of three are rows too."""
        return image(self.shape)

    @property
    def onnx_shape(self) -> tuple[int, ...]:
        """Shape of the ONNX tensor without its batch axis."""
        return tuple(self.shape[axis] for axis in inverse(self.axes))

    def from_onnx(self, integers: ArrayLike) -> NDArray[np.int64]:
        """Bring ONNX's integers into our order and signedness.

        Parameters
        ----------
        integers : array_like of int, shape (batch, *onnx_shape)

        Returns
        -------
        int64, shape (batch, *shape)

        Raises
        ------
        RangeError
            If shape, type or range is wrong.
        """
        raw = np.asarray(integers)
        if raw.dtype.kind not in "iu":
            raise RangeError(f"{self.name} must be integers, not {raw.dtype}")
        if raw.shape[1:] != self.onnx_shape or raw.ndim != len(self.shape) + 1:
            raise RangeError(f"{self.name} must be of shape (batch, {', '.join(map(str, self.onnx_shape))}), not {raw.shape}")
        values = raw.astype(np.int64) - self.offset
        if values.size and not self.format.lo <= values.min() <= values.max() <= self.format.hi:
            lo, hi = self.format.lo + self.offset, self.format.hi + self.offset
            raise RangeError(f"{self.name} must be in [{lo}, {hi}], not {raw.min()}..{raw.max()}")
        return batched(values, self.axes)

    def to_onnx(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bring our integers, shape (batch, *shape), into ONNX's order and signedness: the inverse of :meth:`from_onnx`."""
        return batched(values, inverse(self.axes)) + self.offset

    def quantise(self, reals: ArrayLike) -> NDArray[np.int64]:
        """Quantise real values on the host as ONNX does: ``saturate(round_half_even(x / scale) + zero_point)``, the division in float32.

        Parameters
        ----------
        reals : array_like of float, shape (batch, *onnx_shape)

        Returns
        -------
        int64, shape (batch, *shape)

        Raises
        ------
        RangeError
            If the shape is wrong or a value is not a number.
        """
        with np.errstate(over="ignore"):  # beyond float32 lies infinity, which saturates like what lies just within
            narrow = np.asarray(reals, np.float32)
        return self.from_onnx(quantise(narrow, self.scale, self.zero_point, self.format) + self.offset)

    def dequantise(self, values: NDArray[np.int64]) -> NDArray[np.float64]:
        """Real values of our integers, shape (batch, *shape), in ONNX's order."""
        return dequantise(self.to_onnx(values), np.array(self.scale), self.zero_point + self.offset)


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True, eq=False)
class Operator:
    """What all operators share.

    Parameters
    ----------
    name : str
        Name of the ONNX node, unique in the network.
    kind : str
        Its ONNX operator, for reports.
    inputs : tuple of str
        Names of the tensors read.
    output : str
        Name of the tensor written.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str

    def image(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Output image for this input image."""
        return height, width, channels

    def fits(self, inputs: Sequence[Tensor], output: Tensor) -> bool:
        """Whether the output has the rows and channels that follow from the inputs; its rows may be split into other axes."""
        images = [self.image(*tensor.image) for tensor in inputs]
        return all((prod(image), image[-1]) == (output.size, output.shape[-1]) for image in images)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arithmetic(Operator):
    """An operator that ends in ``clip(round(real) + zero_point, lo, hi)``.

    Parameters
    ----------
    zero_point : int
        Of the output.
    lo, hi : int
        Output integers: ReLU, Clip and the type's range merged; ``lo <= hi``.
    rounding : Rounding
        Half to even but where the network asks for another (QONNX's Trunc).
    """

    zero_point: int
    lo: int
    hi: int
    rounding: Rounding = Rounding.HALF_EVEN


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatrixProduct(Arithmetic):
    """Convolution or linear layer: ``real = (sum_k x[k] * weights[n, k] + bias[n]) * multiplier[n]``, k over (kh, kw, c), c innermost.

    A linear layer after a flattened image is a convolution whose kernel is the image. Padding inserts `padding`, the input's zero point;
    `bias` has ``-padding * sum_k weights[n, k]`` folded in, so neither the sum nor its border needs another correction.

    Parameters
    ----------
    window : Window
    channels : int
        Of the input.
    filters : int
        Channels of the output.
    groups : int
        Channel groups; filter n sees the ``channels / groups`` channels of its group.
    padding : int
        The input integer that padding inserts.
    weights : int8, int16 or int32, shape (filters, kh, kw, channels / groups), or None
        Zero point subtracted. None: only shapes are known.
    bias : int64, shape (filters,), or None
        In units of one product.
    multiplier : float64, shape (filters,), or None
        ``input scale * weight scale[n] / output scale``, positive.
    pattern : Pattern or None
        N:M that weights known by their shape alone obey; None: dense.
    """

    window: Window
    channels: int
    filters: int
    groups: int = 1
    padding: int = 0
    weights: NDArray[np.signedinteger] | None = None
    bias: NDArray[np.int64] | None = None
    multiplier: NDArray[np.float64] | None = None
    pattern: Pattern | None = None

    @property
    def reduction(self) -> int:
        """Products per output of the dense layer: k."""
        return self.window.taps * self.channels // self.groups

    @property
    def matrix(self) -> NDArray[np.signedinteger]:
        """Weights as (filters, k)."""
        if self.weights is None:
            raise NetworkError(f"weights of {self.name} must be known, not shapes only")
        return self.weights.reshape(self.filters, self.reduction)

    def image(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Output image for this input image."""
        return (*self.window.positions(height, width), self.filters)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sum(Arithmetic):
    """Weighted sum of one or two tensors of equal shape: ``real = gain[c] * sum_i (x_i - zero_points[i]) * multipliers[i] + offset[c]``.

    Two inputs are a residual addition, or a difference; one is a ReLU, Clip or change of scale that stands alone.

    Parameters
    ----------
    zero_points : tuple of int
        Of the inputs.
    multipliers : tuple of float
        ``input scale / output scale``, not 0; negative where an input is subtracted.
    offset : float64, shape (channels,), or None
        Constant addend in output integers; None is 0.
    gain : float64, shape (channels,), or None
        Positive factor of each channel; None is 1.
    """

    zero_points: tuple[int, ...]
    multipliers: tuple[float, ...]
    offset: NDArray[np.float64] | None = None
    gain: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaxPool(Arithmetic):
    """Largest element of each window, padding ignored: ``real = (max x - input_zero) * multiplier``.

    Parameters
    ----------
    window : Window
    input_zero : int
        Zero point of the input.
    multiplier : float
        ``input scale / output scale``.
    """

    window: Window
    input_zero: int
    multiplier: float

    def image(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Output image for this input image."""
        return (*self.window.positions(height, width), channels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AveragePool(Arithmetic):
    """Mean of each window: ``real = sum (x - input_zero) * multiplier / count``, padding holding `input_zero`.

    Parameters
    ----------
    window : Window
        Its pads include what ONNX's ceil_mode adds.
    counted : tuple of int
        Padding that counts in the divisor (top, left, bottom, right): all of ONNX's pads, or 0.
    input_zero : int
        Zero point of the input, which padding inserts.
    multiplier : float
        ``input scale / output scale``.
    """

    window: Window
    counted: tuple[int, int, int, int]
    input_zero: int
    multiplier: float

    def image(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Output image for this input image."""
        return (*self.window.positions(height, width), channels)

    def counts(self, height: int, width: int) -> NDArray[np.int64]:
        """Divisor at each window position, shape (rows, columns), for an input of this size."""

        def along(axis: int, size: int, places: int) -> NDArray[np.int64]:
            first = np.arange(places) * self.window.stride[axis] - self.window.pads[axis]
            at = first[:, None] + np.arange(self.window.kernel[axis]) * self.window.dilation[axis]
            inside = (at >= -self.counted[axis]) & (at < size + self.counted[axis + 2])
            divisor: NDArray[np.int64] = inside.sum(axis=1, dtype=np.int64)
            return divisor

        rows, columns = self.window.positions(height, width)
        return np.outer(along(0, height, rows), along(1, width, columns))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransposedConvolution(Arithmetic):
    """Each input element spread over a window of the output: the gradient of a convolution with respect to its input.

    ``real = (sum x[k] * weights[n, k] + bias[n]) * multiplier[n]`` over the input elements and taps that meet at the output position
    ``input * stride - pad + tap * dilation``, of x less its zero point. It runs as ``stride**2`` dense convolutions, one for each phase.

    Parameters
    ----------
    window : Window
        Kernel, stride, dilation and pads of ONNX's ConvTranspose; pads are cut off.
    size : tuple of int
        Output height and width.
    channels, filters, groups : int
        See :class:`MatrixProduct`.
    input_zero : int
        Zero point of the input.
    weights : int8, int16 or int32, shape (filters, kh, kw, channels / groups), or None
        Zero point subtracted. None: only shapes are known.
    bias : int64, shape (filters,), or None
        In units of one product; the input's zero point is not folded in.
    multiplier : float64, shape (filters,), or None
        See :class:`MatrixProduct`.
    """

    window: Window
    size: tuple[int, int]
    channels: int
    filters: int
    groups: int = 1
    input_zero: int = 0
    weights: NDArray[np.signedinteger] | None = None
    bias: NDArray[np.int64] | None = None
    multiplier: NDArray[np.float64] | None = None

    def image(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Output image for this input image."""
        return (*self.size, self.filters)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DynamicProduct(Arithmetic):
    """Matrix product of two activations: ``real = multiplier * sum_k (a[.., i, k] - zero_points[0]) * (b[.., k, j] - zero_points[1])``.

    Axes in front of the last two are alike in both and count the products.

    Parameters
    ----------
    zero_points : tuple of int
        Of the inputs.
    multiplier : float
        ``scale a * scale b / output scale``, positive.
    transposed : bool
        The second input is stored (.., j, k).
    """

    zero_points: tuple[int, int]
    multiplier: float
    transposed: bool = False

    def dimensions(self, inputs: Sequence[Tensor]) -> tuple[int, int, int, int]:
        """(products, m, k, n) for these inputs, each of two or more axes."""
        a, b = inputs
        return prod(a.shape[:-2]), a.shape[-2], a.shape[-1], b.shape[-2 if self.transposed else -1]

    def fits(self, inputs: Sequence[Tensor], output: Tensor) -> bool:
        """Whether the output's shape follows from those of the inputs."""
        a, b = (tensor.shape for tensor in inputs)
        last = (b[-1], b[-2]) if self.transposed else b[-2:]
        return a[:-2] == b[:-2] and a[-1] == last[0] and output.shape == (*a[:-1], last[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Multiply(Arithmetic):
    """Product of two tensors, element by element: ``real = (x0 - zero_points[0]) * (x1 - zero_points[1]) * multiplier``.

    Parameters
    ----------
    zero_points : tuple of int
        Of the inputs.
    multiplier : float
        ``scale 0 * scale 1 / output scale``, positive.
    """

    zero_points: tuple[int, int]
    multiplier: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Divide(Arithmetic):
    """Quotient of two tensors, element by element: ``real = (x0 - zero_points[0]) / (x1 - zero_points[1]) * multiplier``.

    Parameters
    ----------
    zero_points : tuple of int
        Of the inputs. A divisor of 0 gives the end of the range on the dividend's side, and 0 / 0 the zero point.
    multiplier : float
        ``scale 0 / (scale 1 * output scale)``, positive.
    """

    zero_points: tuple[int, int]
    multiplier: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lookup(Operator):
    """A function of one integer: ``table[x + 2**(bits - 1)]`` for an input of `bits` bits.

    Parameters
    ----------
    table : int64, shape (2**bits,)
        Output integers. Nonlinear functions in it are those of the fixed-point units, :func:`accel.golden.function.function`.
    units : tuple of str
        Names of the units that made it, for reports; none where the table is exact.
    """

    table: NDArray[np.int64]
    units: tuple[str, ...] = ()

    def fits(self, inputs: Sequence[Tensor], output: Tensor) -> bool:
        """Whether size and table fit the tensors."""
        return output.size == inputs[0].size and len(self.table) == 1 << inputs[0].bits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Softmax(Arithmetic):
    """``real = exp(step * (x - max x)) / sum exp(step * (x - max x)) / output scale`` over the last stored axis.

    Parameters
    ----------
    step : float
        Input scale.
    scale : float
        Output scale.
    logarithm : bool
        LogSoftmax: the logarithm of the quotient.
    """

    step: float
    scale: float
    logarithm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerNorm(Arithmetic):
    """``real = (x - mean) / sqrt(variance + epsilon) * gamma + beta`` over the last stored axis.

    Parameters
    ----------
    epsilon : float
        In input LSB squared: ONNX's epsilon / input scale**2.
    gamma, beta : float64, shape (channels,)
        In output LSB: ONNX's scale and bias / output scale.
    """

    epsilon: float
    gamma: NDArray[np.float64]
    beta: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArgMax(Operator):
    """Index of the largest element along the last stored axis.

    Parameters
    ----------
    last : bool
        Of equal elements the last one, else the first.
    """

    last: bool = False

    def fits(self, inputs: Sequence[Tensor], output: Tensor) -> bool:
        """Whether the output has one element for each row."""
        return output.size * inputs[0].shape[-1] == inputs[0].size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Move(Operator):
    """Elements of the inputs in another order: what address generators do. Nothing is computed.

    Parameters
    ----------
    index : int32 or int64, shape of the output
        Place of each output element in the inputs as they are stored, one sample of each flattened and one behind the other; -1 is
        `padding`.
    padding : int
        The integer that stands where nothing is read.
    """

    index: NDArray[np.signedinteger]
    padding: int = 0

    def fits(self, inputs: Sequence[Tensor], output: Tensor) -> bool:
        """Whether the index has the output's shape and stays in the inputs."""
        limit = sum(tensor.size for tensor in inputs)
        return self.index.shape == output.shape and bool(self.index.min() >= -1 and self.index.max() < limit)

    def apply(self, values: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Move a batch of each input, shape (batch, *input shape)."""
        flat = [each.reshape(len(each), -1) for each in values]
        flat.append(np.full((len(flat[0]), 1), self.padding, flat[0].dtype))
        return np.concatenate(flat, axis=1)[:, self.index.ravel()].reshape(len(flat[0]), *self.index.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Host(Operator):
    """A part of the network that is computed in float on the host, and labelled so: dequantise, run, quantise.

    Parameters
    ----------
    graph : Graph
        Float graph. Its inputs are the operator's, in order, each with ONNX's shape of one sample (the batch axis 1 in front); its only
        output is the operator's.
    """

    graph: Graph

    def fits(self, inputs: Sequence[Tensor], output: Tensor) -> bool:
        """Whether the graph takes these inputs."""
        return len(self.graph.inputs) == len(inputs)


@dataclass(frozen=True, slots=True)
class Port:
    """Where a network meets its caller.

    Parameters
    ----------
    name : str
        Name of the ONNX graph input or output.
    tensor : str
        The tensor behind it.
    real : bool
        The caller's side holds real values, quantised or dequantised on the host; else integers.
    """

    name: str
    tensor: str
    real: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """Operators in execution order on named tensors, each written once before it is read.

    Parameters
    ----------
    name : str
    tensors : mapping of str to Tensor
    operators : tuple of Operator
    inputs, outputs : tuple of Port
    real : callable, optional
        Gives the float network of the same source, as it is trained; None where there is none.

    Raises
    ------
    NetworkError
        If a tensor is unknown, written twice or read too early, a name is used twice, or a shape does not follow from its operator.
    """

    name: str
    tensors: Mapping[str, Tensor]
    operators: tuple[Operator, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    real: Callable[[], Trainable] | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<Network {self.name!r}: {len(self.operators)} operators, {len(self.tensors)} tensors>"

    def __post_init__(self) -> None:
        written = {port.tensor for port in self.inputs}
        names: set[str] = set()
        for operator in self.operators:
            if operator.name in names:
                raise NetworkError(f"operator name must be unique, not {operator.name!r} twice")
            names.add(operator.name)
            for tensor in operator.inputs:
                if tensor not in written:
                    raise NetworkError(f"inputs of {operator.name} must be written before, not {tensor!r}")
            if operator.output not in self.tensors or operator.output in written:
                raise NetworkError(f"output of {operator.name} must be a tensor written once, not {operator.output!r}")
            written.add(operator.output)
            output, sources = self.tensors[operator.output], [self.tensors[tensor] for tensor in operator.inputs]
            if not operator.fits(sources, output):
                shapes = " and ".join(str(source.shape) for source in sources)
                raise NetworkError(f"shape of {output.name!r} must follow from {operator.name} and {shapes}, not {output.shape}")
        for port in self.outputs:
            if port.tensor not in written:
                raise NetworkError(f"output {port.name!r} must be written by an operator, not {port.tensor!r}")

    @property
    def products(self) -> tuple[MatrixProduct, ...]:
        """The matrix products, in order."""
        return tuple(operator for operator in self.operators if isinstance(operator, MatrixProduct))

    def gemm(self, product: MatrixProduct, batch: int = 1) -> tuple[int, int, int]:
        """Dimensions (m, k, n) of a dense matrix product of one group: m output positions of the batch, k products each, n filters."""
        height, width, _ = self.tensors[product.output].image
        return batch * height * width, product.reduction, product.filters // product.groups
