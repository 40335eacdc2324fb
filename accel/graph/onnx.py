"""Importer of quantised ONNX graphs: one function per operator, found by its ONNX name.

QuantizeLinear and DequantizeLinear say where integers lie; :mod:`accel.graph.builder` says how what stands between them becomes operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from accel.errors import NetworkError
from accel.formats import FixedFormat
from accel.graph.builder import Activation, Builder, Constant, Draft, Form, Source, Value
from accel.graph.network import AveragePool, MatrixProduct, MaxPool, Network, Operator, Port, Tensor, Window, channels_last
from accel.quant import quantise

OLDEST_OPSET = 11
NEWEST_OPSET = onnx.defs.onnx_opset_version()
DOMAINS = ("", "ai.onnx", "com.microsoft")  # the last for the 16-bit quantisers that onnxruntime had before ONNX
TYPES: dict[int, tuple[int, bool]] = {  # width and sign of the integers an activation may hold
    TensorProto.UINT4: (4, False),
    TensorProto.INT4: (4, True),
    TensorProto.UINT8: (8, False),
    TensorProto.INT8: (8, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT16: (16, True),
}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An ONNX node, what its inputs stand for, and the network it adds to. Its str() is what messages call it."""

    proto: onnx.NodeProto
    inputs: tuple[Value | None, ...]
    builder: Builder

    @property
    def kind(self) -> str:
        """Its operator."""
        return str(self.proto.op_type)

    @property
    def name(self) -> str:
        """Its name, or that of its output."""
        return str(self.proto.name) or self.output

    @property
    def output(self) -> str:
        """Name of its output."""
        return str(self.proto.output[0])

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.kind})"

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute, or the default."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode(errors="replace") if isinstance(value, bytes) else value
        return default

    def integers(self, name: str, default: tuple[int, ...], least: int) -> tuple[int, ...]:
        """Value of an attribute of as many integers as the default, none below `least`."""
        values = tuple(self.attribute(name, default))
        if len(values) != len(default) or min(values) < least:
            raise NetworkError(f"{name} of {self} must be {len(default)} integers of at least {least}, not {list(values)}")
        return values

    def given(self, index: int) -> Value | None:
        """Input, or None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def refuse(self, index: int, rule: str) -> NetworkError:
        """Error for an input that breaks a rule."""
        return NetworkError(f"input {index} of {self} must be {rule}, not {self.given(index) or 'left out'}")

    def value(self, index: int) -> Value:
        """Input that must be there."""
        value = self.given(index)
        if value is None:
            raise self.refuse(index, "given")
        return value

    def constant(self, index: int) -> Constant | None:
        """Constant input, or None where it is left out."""
        value = self.given(index)
        if value is not None and not isinstance(value, Constant):
            raise self.refuse(index, "a constant")
        return value

    def scalar(self, index: int, default: float) -> float:
        """Constant input of one finite or infinite element, or the default."""
        constant = self.constant(index)
        if constant is None:
            return default
        if constant.values.size != 1 or np.isnan(constant.real).any():
            raise NetworkError(f"input {index} of {self} must be one number, not {constant.real.tolist()}")
        return float(constant.real.item())

    def activation(self, index: int) -> Activation:
        """Input that is a dequantised tensor of the network."""
        value = self.given(index)
        if not isinstance(value, Activation) or not value.real:
            raise self.refuse(index, "an activation from DequantizeLinear")
        return value

    def image(self, index: int) -> Tensor:
        """Input that is a tensor of height, width and channels."""
        value = self.activation(index)
        if len(value.shape) != 3:
            raise NetworkError(f"input {index} of {self} must have 4 axes, batch, channels, height and width, not {len(value.shape) + 1}")
        return self.builder.settle(value)

    def weights(self, index: int, axes: int, filters: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Integers of `axes` axes, the axis `filters` first, and a scale for each filter."""
        value = self.given(index)
        if not isinstance(value, Constant) or value.scale is None or value.zero_point is None:
            raise self.refuse(index, "a constant from DequantizeLinear")
        if value.values.ndim != axes or not value.values.size:
            raise NetworkError(f"weights of {self} must have {axes} axes and an element, not shape {value.values.shape}")
        if value.scale.ndim and value.axis != filters:
            raise NetworkError(f"scales of the weights of {self} must run along the filters, axis {filters}, not axis {value.axis}")
        integers = np.moveaxis(value.values, filters, 0).astype(np.int64)
        integers -= value.zero_point.reshape(-1, *[1] * (axes - 1))
        return integers, np.broadcast_to(value.scale, len(integers))

    def per_channel(self, index: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Constant input that is one number per channel of an activation of this shape."""
        constant = self.constant(index)
        channel = 1 if len(shape) == 3 else len(shape)
        wanted = [1] * (len(shape) + 1)
        wanted[channel] = channels = shape[channel - 1]
        if constant is None:
            return np.zeros(channels)
        real = constant.real
        if not np.isfinite(real).all():
            raise NetworkError(f"input {index} of {self} must be finite, not {real[~np.isfinite(real)][0]}")
        padded = [1] * (len(wanted) - real.ndim) + list(real.shape)
        if len(padded) != len(wanted) or any(size not in (1, limit) for size, limit in zip(padded, wanted, strict=True)):
            raise NetworkError(f"input {index} of {self} must be one number for each of {channels} channels, not of shape {real.shape}")
        return np.broadcast_to(real.ravel(), channels)

    def draft(self, inputs: tuple[Tensor, ...], stored: tuple[int, ...], shape: tuple[int, ...], build: Any, addend: Any = None) -> Draft:
        """Draft of this node's result."""
        return Draft(name=self.name, kind=self.kind, inputs=inputs, stored=stored, shape=shape, build=build, addend=addend)

    def pointwise(self, index: int) -> Draft:
        """Input as a draft: the unrounded result before it, or a tensor as a sum of one."""
        value = self.given(index)
        if isinstance(value, Draft):
            return value
        activation = self.activation(index)
        return self.builder.sum(self.name, self.kind, (activation.tensor,), activation.shape)


# The registry.

Import = Callable[[Node], Value]
OPERATORS: dict[str, Import] = {}


def _imports(kind: str) -> Callable[[Import], Import]:
    """Register the function that imports an operator."""

    def register(function: Import) -> Import:
        OPERATORS[kind] = function
        return function

    return register


@_imports("Constant")
def _constant(node: Node) -> Value:
    tensor = node.attribute("value", None)
    if isinstance(tensor, TensorProto):
        return _read(tensor)
    for name, kind in (("value_float", "float32"), ("value_floats", "float32"), ("value_int", "int64"), ("value_ints", "int64")):
        value = node.attribute(name, None)
        if value is not None:
            array = np.asarray(value, dtype=kind)
            return Constant(array, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    raise NetworkError(f"value of {node} must be numbers, not something else")


@_imports("QuantizeLinear")
def _quantize_linear(node: Node) -> Value:
    value = node.value(0)
    zero = node.constant(2)
    kind = zero.kind if zero else node.attribute("output_dtype", 0) or TensorProto.UINT8
    if isinstance(value, Constant):
        scale, zeros, axis = _parameters(node, value.values.shape, kind)
        if value.kind != TensorProto.FLOAT or np.isnan(value.values).any():
            raise NetworkError(f"input 0 of {node} must be float32 without NaN, not {_name(value.kind)}")
        return Constant(quantise(value.values, scale, zeros, _limits(node, kind), axis), kind)
    form = _form(node, kind)
    match value:
        case Source(kind=TensorProto.FLOAT):
            tensor = node.builder.receive(value, form, node.output, real=True)
        case Draft():
            tensor = node.builder.round(value, form, node.output)
        case Activation(real=True) if Form.of(value.tensor) == form:
            tensor = value.tensor
        case Activation(real=True):
            tensor = node.builder.round(node.pointwise(0), form, node.output)
        case _:
            raise node.refuse(0, "float32")
    return Activation(tensor, value.shape, real=False)


@_imports("DequantizeLinear")
def _dequantize_linear(node: Node) -> Value:
    value = node.value(0)
    match value:
        case Constant(scale=None, kind=kind) if kind in TYPES or kind == TensorProto.INT32:
            return Constant(value.values, kind, *_parameters(node, value.values.shape, kind))
        case Source(kind=kind) if kind in TYPES:
            tensor = node.builder.receive(value, _form(node, kind), value.name, real=False)
        case Activation(real=False, tensor=tensor):
            form = _form(node, next(kind for kind, (bits, signed) in TYPES.items() if (bits, not signed) == (tensor.bits, tensor.unsigned)))
            if form != Form.of(tensor):
                raise NetworkError(f"scale and zero point of {node} must be those {tensor.name!r} was quantised with, not others")
        case _:
            raise node.refuse(0, "quantised integers")
    return Activation(tensor, value.shape, real=True)


def _parameters(node: Node, shape: tuple[int, ...], kind: int) -> tuple[NDArray[np.float64], NDArray[np.int64], int | None]:
    """Scale, zero point and axis of a quantiser whose input is of this shape."""
    given, zero = node.constant(1), node.constant(2)
    if given is None or given.kind != TensorProto.FLOAT:
        raise NetworkError(f"scale of {node} must be float32, not {_name(given.kind) if given else 'left out'}")
    scale = given.real
    if not scale.size or not np.isfinite(scale).all() or scale.min() <= 0:
        raise NetworkError(f"scale of {node} must be positive and finite, not {scale.tolist()}")
    zeros = np.zeros(scale.shape, dtype=np.int64) if zero is None else zero.values.astype(np.int64)
    if zero is not None and (zero.kind != kind or (zeros.shape != scale.shape and not zeros.size == scale.size == 1)):
        rule = f"{_name(kind)} of shape {scale.shape}"
        raise NetworkError(f"zero point of {node} must be {rule}, not {_name(zero.kind)} of shape {zeros.shape}")
    if scale.size == 1:
        return scale.reshape(()), zeros.reshape(()), None
    axis = node.attribute("axis", 1)
    if not -len(shape) <= axis < len(shape) or scale.shape != (shape[axis],):
        rule = f"one number or one for each element of axis {axis} of {shape}" if shape else "one number for an activation"
        raise NetworkError(f"scale of {node} must be {rule}, not of shape {scale.shape}")
    return scale, zeros, axis % len(shape)


def _form(node: Node, kind: int) -> Form:
    """Form of an activation, from the quantiser's scale and zero point."""
    limits = _limits(node, kind)
    scale, zero, _ = _parameters(node, (), kind)
    return Form(limits.bits, not limits.signed, float(scale), int(zero) - (0 if limits.signed else 1 << (limits.bits - 1)))


def _limits(node: Node, kind: int) -> FixedFormat:
    """Format of a type an activation may have."""
    if kind not in TYPES:
        raise NetworkError(f"type of {node} must be one of {', '.join(map(_name, TYPES))}, not {_name(kind)}")
    bits, signed = TYPES[kind]
    return FixedFormat(bits, signed=signed)


def _name(kind: int) -> str:
    """Name of an ONNX element type."""
    return TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else str(kind)


@_imports("Conv")
def _conv(node: Node) -> Value:
    x = node.image(0)
    weights, scale = node.weights(1, axes=4, filters=0)
    height, width, channels = x.image
    groups = node.attribute("group", 1)
    if groups < 1 or len(weights) % groups:
        raise NetworkError(f"group of {node} must divide its {len(weights)} filters, not be {groups}")
    if weights.shape[1] * groups != channels:
        expected = f"{channels} / {groups} input channels"
        raise NetworkError(f"weights of {node} must have {expected}, not {weights.shape[1]}")
    window = _window(node, weights.shape[2:], (height, width))
    addend = node.per_channel(2, (len(weights),))
    return _product(node, x, window, weights.transpose(0, 2, 3, 1), scale, addend, groups=groups)


@_imports("Gemm")
def _gemm(node: Node) -> Value:
    if node.attribute("transA", 0):
        raise NetworkError(f"transA of {node} must be 0, not {node.attribute('transA', 0)}: it would turn the batch into channels")
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    if not 0 < alpha < math.inf:
        raise NetworkError(f"alpha of {node} must be positive and finite, not {alpha}")
    if not math.isfinite(beta):
        raise NetworkError(f"beta of {node} must be finite, not {beta}")
    weights, scale = node.weights(1, axes=2, filters=0 if node.attribute("transB", 0) else 1)
    return _linear(node, weights, scale * alpha, node.per_channel(2, (len(weights),)) * beta)


@_imports("MatMul")
def _matmul(node: Node) -> Value:
    weights, scale = node.weights(1, axes=2, filters=1)
    return _linear(node, weights, scale, np.zeros(len(weights)))


def _linear(node: Node, weights: NDArray[np.int64], scale: NDArray[np.float64], addend: NDArray[np.float64]) -> Value:
    """Product of rows of channels with (filters, channels); after a flattened image, a convolution whose kernel is the image."""
    value = node.activation(0)
    if len(value.shape) > 2:
        raise NetworkError(f"input 0 of {node} must have 2 or 3 axes, not {len(value.shape) + 1}")
    if value.shape[-1] != weights.shape[1]:
        raise NetworkError(f"weights of {node} must have {value.shape[-1]} input channels, not {weights.shape[1]}")
    x = value.tensor if len(value.shape) == 1 else node.builder.settle(value)
    if len(value.shape) == 1:
        axes = channels_last(len(x.shape))
        kernels = weights.reshape(len(weights), *x.onnx_shape).transpose(0, *(axis + 1 for axis in axes))
        window = Window(kernel=x.image[:2])
    else:
        kernels, window = weights, Window()
    return _product(node, x, window, kernels.reshape(len(weights), *window.kernel, x.shape[-1]), scale, addend, value.shape[:-1])


def _product(
    node: Node,
    x: Tensor,
    window: Window,
    weights: NDArray[np.int64],
    scale: NDArray[np.float64],
    addend: NDArray[np.float64],
    rows: tuple[int, ...] | None = None,
    groups: int = 1,
) -> Value:
    """Draft of a matrix product; `rows` are the axes before the filters, None for an image."""
    filters = len(weights)
    units = scale * x.scale
    weights = _narrow(node, weights)

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        assert draft.addend is not None
        with np.errstate(over="ignore"):
            bias = np.rint(draft.addend / units)
        if not (np.abs(bias) < 1 << 62).all():
            raise NetworkError(f"bias of {node} must be below 2**62 products, not {np.abs(bias).max()}")
        return MatrixProduct(
            window=window,
            channels=x.image[2],
            filters=filters,
            groups=groups,
            padding=x.zero_point,
            weights=weights,
            bias=bias.astype(np.int64) - x.zero_point * weights.sum(axis=(1, 2, 3), dtype=np.int64),
            multiplier=units / output.scale,
            **common,
        )

    places = window.positions(*x.image[:2])
    stored = (*places, filters) if rows is None else (*rows, filters)
    return node.draft((x,), stored, (filters, *places) if rows is None else stored, build, addend)


def _narrow(node: Node, weights: NDArray[np.int64]) -> NDArray[Any]:
    """Weights in the narrowest integer type that holds them."""
    for dtype in (np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= weights.min() and weights.max() <= np.iinfo(dtype).max:
            return np.ascontiguousarray(weights, dtype=dtype)
    raise NetworkError(f"weights of {node} must fit 32 bits once the zero point is subtracted, not {weights.min()}..{weights.max()}")


@_imports("Add")
def _add(node: Node) -> Value:
    constants = [index for index in (0, 1) if isinstance(node.given(index), Constant)]
    if len(constants) == 1:
        return _add_constant(node, 1 - constants[0], constants[0])
    values = (node.activation(0), node.activation(1))
    if values[0].shape != values[1].shape:
        raise NetworkError(f"inputs of {node} must have one shape, not {values[0].shape} and {values[1].shape}")
    settled = tuple(node.builder.settle(value) for value in values)
    return node.builder.sum(node.name, node.kind, settled, values[0].shape)


def _add_constant(node: Node, index: int, constant: int) -> Value:
    """Sum of an activation, or a product not rounded yet, and one number per channel."""
    value = node.given(index)
    if isinstance(value, Activation):
        draft = node.builder.sum(node.name, node.kind, (node.builder.settle(value),), value.shape)
    else:
        draft = node.pointwise(index)
    lies = tuple(draft.shape[axis] for axis in channels_last(len(draft.shape))) == draft.stored
    if draft.addend is None or not lies or (draft.low, draft.high) != (-math.inf, math.inf):
        raise node.refuse(index, "an activation from DequantizeLinear, or a product as it comes")
    return replace(draft, addend=draft.addend + node.per_channel(constant, draft.shape))


@_imports("Relu")
def _relu(node: Node) -> Value:
    return node.pointwise(0).clipped(0.0, math.inf)


@_imports("Clip")
def _clip(node: Node) -> Value:
    return node.pointwise(0).clipped(node.scalar(1, -math.inf), node.scalar(2, math.inf))


@_imports("MaxPool")
def _max_pool(node: Node) -> Value:
    if node.attribute("storage_order", 0):
        raise NetworkError(f"storage_order of {node} must be 0, not {node.attribute('storage_order', 0)}")
    x = node.image(0)
    window = _pool_window(node, x)

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        return MaxPool(window=window, input_zero=x.zero_point, multiplier=x.scale / output.scale, **common)

    return _pool(node, x, window, build)


@_imports("AveragePool")
def _average_pool(node: Node) -> Value:
    x = node.image(0)
    window = _pool_window(node, x)
    return _mean(node, x, window, _pads(node, window.kernel, x.image[:2]) if node.attribute("count_include_pad", 0) else (0, 0, 0, 0))


@_imports("GlobalAveragePool")
def _global_average_pool(node: Node) -> Value:
    x = node.image(0)
    return _mean(node, x, Window(kernel=x.image[:2]), (0, 0, 0, 0))


def _mean(node: Node, x: Tensor, window: Window, counted: tuple[int, int, int, int]) -> Value:
    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        return AveragePool(window=window, counted=counted, input_zero=x.zero_point, multiplier=x.scale / output.scale, **common)

    return _pool(node, x, window, build)


def _pool(node: Node, x: Tensor, window: Window, build: Callable[[Draft, Tensor, dict[str, Any]], Operator]) -> Value:
    places, channels = window.positions(*x.image[:2]), x.shape[-1]
    return node.draft((x,), (*places, channels), (channels, *places), build)


def _window(node: Node, kernel: tuple[int, ...], size: tuple[int, int]) -> Window:
    """Window of a convolution or pooling over an image of this size."""
    height, width = kernel
    if tuple(node.attribute("kernel_shape", kernel)) != kernel:
        raise NetworkError(
            f"kernel_shape of {node} must be that of its weights, {list(kernel)}, not {node.attribute('kernel_shape', kernel)}"
        )
    strides, dilations = node.integers("strides", (1, 1), 1), node.integers("dilations", (1, 1), 1)
    window = Window(
        kernel=(height, width), stride=(strides[0], strides[1]), dilation=(dilations[0], dilations[1]), pads=_pads(node, kernel, size)
    )
    if min(window.positions(*size)) < 1:
        raise NetworkError(f"window of {node} must fit its padded input {size}, not exceed it with kernel {window.kernel}")
    return window


def _pool_window(node: Node, x: Tensor) -> Window:
    """Window of a pooling: extended by ceil_mode, and never without an element."""
    size = x.image[:2]
    kernel = node.integers("kernel_shape", (1, 1), 1)
    window = _window(node, kernel, size)
    reach = [dilation * (extent - 1) for dilation, extent in zip(window.dilation, window.kernel, strict=True)]
    if any(pad > reach[side % 2] for side, pad in enumerate(window.pads)):
        raise NetworkError(f"pads of {node} must be smaller than its window, not {list(window.pads)}")
    if any(dilation > extent for dilation, extent in zip(window.dilation, size, strict=True)):
        raise NetworkError(f"dilations of {node} must be at most its input's size {size}, not {list(window.dilation)}")
    if not node.attribute("ceil_mode", 0):
        return window
    pads = list(window.pads)
    for axis, (places, stride) in enumerate(zip(window.positions(*size), window.stride, strict=True)):
        start = places * stride - pads[axis]  # of one window more
        if start < size[axis] and start + reach[axis] >= size[axis] + pads[axis + 2]:
            pads[axis + 2] = start + reach[axis] + 1 - size[axis]
    return replace(window, pads=(pads[0], pads[1], pads[2], pads[3]))


def _pads(node: Node, kernel: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Find the padding (top, left, bottom, right), from pads or auto_pad."""
    mode = node.attribute("auto_pad", "NOTSET")
    if mode == "NOTSET":
        top, left, bottom, right = node.integers("pads", (0, 0, 0, 0), 0)
        return top, left, bottom, right
    if mode == "VALID":
        return 0, 0, 0, 0
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise NetworkError(f"auto_pad of {node} must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, not {mode}")
    strides, dilations = node.integers("strides", (1, 1), 1), node.integers("dilations", (1, 1), 1)
    totals = [
        max((-(-extent // stride) - 1) * stride + dilation * (taps - 1) + 1 - extent, 0)
        for extent, taps, stride, dilation in zip(size, kernel, strides, dilations, strict=True)
    ]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    begin, end = (less, more) if mode == "SAME_UPPER" else (more, less)
    return begin[0], begin[1], end[0], end[1]


@_imports("Identity")
def _identity(node: Node) -> Value:
    return node.value(0)


@_imports("Flatten")
def _flatten(node: Node) -> Value:
    value = _movable(node)
    axes = len(value.shape) + 1
    if node.attribute("axis", 1) not in (1, 1 - axes):
        raise NetworkError(f"axis of {node} must be 1, which keeps the batch, not {node.attribute('axis', 1)}")
    return replace(value, shape=(math.prod(value.shape),))


@_imports("Reshape")
def _reshape(node: Node) -> Value:
    value, constant = _movable(node), node.constant(1)
    if constant is None or constant.kind != TensorProto.INT64 or constant.values.ndim != 1 or not 2 <= constant.values.size <= 4:
        raise NetworkError(
            f"shape of {node} must be a constant of 2 to 4 int64, not {constant.values.tolist() if constant else 'left out'}"
        )
    batch, *shape = (int(extent) for extent in constant.values)
    if not node.attribute("allowzero", 0):
        batch = -1 if batch == 0 else batch
        shape = [value.shape[at] if extent == 0 and at < len(value.shape) else extent for at, extent in enumerate(shape)]
    size, known = math.prod(value.shape), math.prod(extent for extent in shape if extent != -1)
    if shape.count(-1) == 1 and known > 0:
        shape = [size // known if extent == -1 else extent for extent in shape]
    if batch not in (-1, node.builder.batch) or min(shape) < 1 or math.prod(shape) != size:
        kept = f"keep the batch and hold {size} elements for each sample"
        raise NetworkError(f"shape of {node} must {kept}, not {constant.values.tolist()}")
    return replace(value, shape=tuple(shape))


def _movable(node: Node) -> Source | Activation | Draft:
    """First input, which a change of shape leaves as it is."""
    value = node.value(0)
    if isinstance(value, Constant):
        raise node.refuse(0, "an activation")
    return value


# The walk.


def network(model: onnx.ModelProto, name: str) -> Network:
    """Import an ONNX model whose data all lie inside it.

    Parameters
    ----------
    model : ModelProto
        Of opset 11 or newer.
    name : str
        What the network is called.

    Returns
    -------
    Network

    Raises
    ------
    NetworkError
        If the model is invalid or holds something that is not supported; the message names the node.
    """
    graph = model.graph
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise NetworkError(f"opset must be in [{OLDEST_OPSET}, {NEWEST_OPSET}], not {opset}")
    nodes = _needed(graph)
    for node in nodes:
        if node.op_type not in OPERATORS or node.domain not in DOMAINS:
            kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise NetworkError(
                f"operator of node {node.name or node.output[0]!r} must be one of {', '.join(sorted(OPERATORS))}, not {kind}"
            )
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise NetworkError(f"network must be a valid ONNX model: {str(error).strip().splitlines()[0]}") from error
    values: dict[str, Value] = {tensor.name: _read(tensor) for tensor in graph.initializer}
    builder = Builder()
    for given in graph.input:
        if given.name not in values:
            values[given.name] = _source(given, builder)
    for proto in nodes:
        entry = Node(proto, tuple(values[name] if name else None for name in proto.input), builder)
        if any(proto.output[1:]):
            raise NetworkError(f"{entry} must have one output, not {len(proto.output)}")
        values[entry.output] = OPERATORS[entry.kind](entry)
    outputs = tuple(_output(output.name, values[output.name], builder) for output in graph.output)
    return Network(
        name=name,
        tensors=builder.tensors,
        operators=tuple(builder.operators.values()),
        inputs=tuple(builder.inputs.values()),
        outputs=outputs,
    )


def _needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes that the outputs depend on, in their order, each reading what is written before."""
    labels = [text for node in graph.node for text in (node.name, node.op_type, node.domain, *node.input, *node.output)]
    for name in [*labels, *(value.name for value in (*graph.initializer, *graph.input, *graph.output))]:
        if not isinstance(name, str):  # what protobuf gives for bytes that are no text
            raise NetworkError(f"names in the graph must be UTF-8 text, not {name!r}")
    written = {tensor.name for tensor in graph.initializer} | {given.name for given in graph.input}
    for node in graph.node:
        label = f"node {node.name or ', '.join(node.output)!r} ({node.op_type})"
        for name in node.input:
            if name and name not in written:
                raise NetworkError(f"inputs of {label} must be written before it, without a cycle, not {name!r}")
        for name in node.output:
            if name in written:
                raise NetworkError(f"outputs of {label} must be new names, not {name!r}")
        written.update(name for name in node.output if name)
    needed = {output.name for output in graph.output}
    if not needed or not needed <= written:
        raise NetworkError(f"outputs of the graph must be written by its nodes, not {sorted(needed - written) or 'left out'}")
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _read(tensor: TensorProto) -> Constant:
    """Read a constant tensor."""
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise NetworkError(f"tensor {tensor.name!r} must be well formed: {error}") from error
    if tensor.data_type in TYPES and TYPES[tensor.data_type][0] < 8:
        values = values.astype(np.int8)  # 4-bit types are not numpy's own
    return Constant(values, tensor.data_type)


def _source(given: onnx.ValueInfoProto, builder: Builder) -> Source:
    """Take in a graph input, and the batch if it is the first."""
    extents = given.type.tensor_type.shape.dim
    if not 2 <= len(extents) <= 4:
        raise NetworkError(f"graph input {given.name!r} must have 2 to 4 axes, the batch first, not {len(extents)}")
    for axis, extent in enumerate(extents[1:], start=1):
        if extent.dim_value < 1:
            raise NetworkError(
                f"axis {axis} of graph input {given.name!r} must be a fixed size, not {extent.dim_param or extent.dim_value!r}"
            )
    builder.batch = builder.batch or extents[0].dim_value or None
    shape = tuple(extent.dim_value for extent in extents[1:])
    return Source(given.name, given.type.tensor_type.elem_type, shape, shape)


def _output(name: str, value: Value, builder: Builder) -> Port:
    """Make a graph output of a value."""
    if not isinstance(value, Activation):
        raise NetworkError(f"graph output {name!r} must be an activation from QuantizeLinear or DequantizeLinear, not {value}")
    return Port(name, builder.settle(value).name, value.real)
