"""Products: with constant weights on the array, dense or as convolutions, and of two activations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import NetworkError
from accel.graph import movement
from accel.graph.builder import Activation, Constant, Draft, Reals, Takes, Value, broadcast, whole
from accel.graph.network import DynamicProduct, MatrixProduct, Operator, Tensor
from accel.graph.operators.elementwise import shifted
from accel.graph.operators.registry import OnHost, Site, imports
from accel.graph.window import Window

MERGES = Takes.ADDEND | Takes.CHANNELS | Takes.SIGN


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Constant weights.

    Parameters
    ----------
    integers : integers of any shape, the filters first
        Zero point subtracted.
    scale : float64, shape (filters,)
    known : bool
        False: only the shape is known.
    """

    integers: NDArray[np.signedinteger]
    scale: Reals
    known: bool = True

    def arranged(self, integers: NDArray[Any]) -> Weights:
        """Weights in another shape or order, filters first."""
        return replace(self, integers=integers)


def weights(site: Site, index: int, axes: int, filters: int, *, zero: int | None = None, of: Constant | None = None) -> Weights:
    """Constant input as integers of `axes` axes, the axis `filters` first, and a scale for each filter.

    Parameters
    ----------
    site : Site
    index : int
        Of the input.
    axes : int
    filters : int
        Axis that becomes the first.
    zero : int or None
        Zero point of bare integers; None: the constant comes from DequantizeLinear.
    of : Constant, optional
        The input in another shape.
    """
    value = of or site.given(index)
    if not isinstance(value, Constant) or (zero is None and (value.scale is None or value.zero_point is None)):
        raise OnHost
    if value.values.ndim != axes or not value.values.size:
        raise NetworkError(f"weights of {site} must have {axes} axes and an element, not shape {value.values.shape}")
    scale, zeros = (np.ones(()), np.array(zero)) if value.scale is None or value.zero_point is None else (value.scale, value.zero_point)
    if scale.ndim and value.axis != filters:
        raise OnHost  # the sum over k would not be one of integers
    integers = np.moveaxis(value.values, filters, 0)
    if value.known and (zeros.any() or integers.dtype.kind != "i"):
        shift = zeros.reshape(-1, *[1] * (axes - 1))  # of the same type as the weights
        narrow = integers.dtype.itemsize == 1
        integers = _narrow(site, integers.astype(np.int16) - shift.astype(np.int16) if narrow else integers.astype(np.int64) - shift)
    return Weights(integers, np.broadcast_to(scale, len(integers)), value.known)


def _narrow(site: Site, integers: NDArray[np.signedinteger]) -> NDArray[np.signedinteger]:
    """Integers in the narrowest type that holds them."""
    for dtype in (np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= integers.min() and integers.max() <= np.iinfo(dtype).max:
            return integers.astype(dtype)
    raise NetworkError(f"weights of {site} must fit 32 bits once the zero point is subtracted, not {integers.min()}..{integers.max()}")


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """Weights, bias and multiplier of a product once everything behind it is merged; None where only shapes are known."""

    weights: NDArray[np.signedinteger] | None
    bias: NDArray[np.int64] | None
    multiplier: Reals | None


def merged(site: Site, own: Weights, unit: float, draft: Draft, output: Tensor, padding: int) -> Merged:
    """Merge the draft's gain and addend; `padding` is the input's zero point where it is folded into the bias, else 0."""
    if not own.known:
        return Merged(None, None, None)
    filters = len(own.integers)
    gain = np.broadcast_to(draft.gain, filters)
    integers, units = own.integers, own.scale * unit * np.abs(gain)
    if (gain <= 0).any():
        units = np.where(gain == 0, output.scale, units)
        integers = _narrow(site, integers.astype(np.int64) * np.sign(gain).astype(np.int64).reshape(-1, *[1] * (integers.ndim - 1)))
    with np.errstate(over="ignore"):
        bias = np.broadcast_to(np.rint(draft.addend / units), filters)
    if not (np.abs(bias) < 1 << 62).all():
        raise NetworkError(f"bias of {site} must be below 2**62 products, not {np.abs(bias).max()}")
    total = bias.astype(np.int64)
    if padding:
        total = total - padding * integers.reshape(filters, -1).sum(axis=1, dtype=np.int64)
    return Merged(np.ascontiguousarray(integers), total, units / output.scale)


def bias(site: Site, index: int, filters: int) -> Reals:
    """Constant input of one number for each filter, or 0."""
    if site.given(index) is None:
        return np.zeros(())
    reals = site.reals(index)
    if reals.size not in (1, filters):
        raise NetworkError(f"input {index} of {site} must be one number for each of {filters} channels, not of shape {reals.shape}")
    return np.broadcast_to(reals.ravel(), filters)


POINT = Window()  # of a linear layer: each row alone


def product(
    site: Site,
    x: Tensor,
    own: Weights,
    shape: tuple[int, ...],
    *,
    window: Window = POINT,
    groups: int = 1,
    addend: Reals | None = None,
    gain: float = 1.0,
    zero: int | None = None,
    stored: tuple[int, ...] | None = None,
    order: tuple[int, ...] | None = None,
) -> Draft:
    """Draft of a matrix product of a tensor with constant weights.

    Parameters
    ----------
    site : Site
    x : Tensor
    own : Weights
        Of shape (filters, kh, kw, channels / groups).
    shape : tuple of int
        Of the result.
    window : Window
    groups : int
    addend : float64, shape (filters,) or (), optional
    gain : float
        Factor of the product, of either sign.
    zero : int, optional
        Zero point of bare integers, whose scale is 1; that of the tensor without it.
    stored, order : tuple of int, optional
        See :meth:`Site.draft`.
    """
    padding, unit = (x.zero_point, x.scale) if zero is None else (zero, 1.0)

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        merges = merged(site, own, unit, draft, output, padding)
        return MatrixProduct(
            window=window,
            channels=x.image[2],
            filters=len(own.integers),
            groups=groups,
            padding=padding,
            weights=merges.weights,
            bias=merges.bias,
            multiplier=merges.multiplier,
            **common,
        )

    more = {"gain": np.array(gain), "addend": np.zeros(()) if addend is None else addend}
    return site.draft((x,), shape, build, stored=stored, order=order, takes=MERGES, **more)


# Linear layers.


@imports("Gemm")
def _gemm(site: Site) -> Value:
    alpha, beta = site.number("alpha", 1.0), site.number("beta", 1.0)
    value = site.activation(0)
    if site.attribute("transA", 0):
        value = value.moved(value.places.T)
    if isinstance(site.value(1), Constant):
        own = weights(site, 1, axes=2, filters=0 if site.attribute("transB", 0) else 1)
        draft = linear(site, value, own, gain=alpha)
    else:
        second = site.activation(1)
        draft = _dynamic(site, value, second.moved(second.places.T) if site.attribute("transB", 0) else second, alpha)
    if site.given(2) is None or not beta:
        return draft
    changed = shifted(draft, site.reals(2) * beta)
    if changed is None:
        raise OnHost
    return changed


@imports("MatMul")
def _matmul(site: Site) -> Value:
    first, second = site.value(0), site.value(1)
    if isinstance(second, Constant):
        value, own = site.activation(0), weights(site, 1, axes=2, filters=1, of=_matrix(second, column=True))
        return linear(site, value, own).reshaped(site.shape())
    if isinstance(first, Constant):
        return _from_left(site, weights(site, 0, axes=2, filters=0, of=_matrix(first, column=False))).reshaped(site.shape())
    return _dynamic(site, site.activation(0), site.activation(1))


def _matrix(value: Constant, column: bool) -> Constant:
    """Constant operand of MatMul as a matrix: a vector is a column or a row, and outer axes of 1 say nothing."""
    shape = value.shape[-2:] if len(value.shape) > 1 else (*value.shape, 1) if column else (1, *value.shape)
    if math.prod(shape) != value.values.size:
        raise OnHost  # a matrix for each sample, whose products would be groups
    matrix = value.reshaped(shape)
    if matrix is None:
        raise OnHost
    return matrix


def linear(site: Site, value: Activation, own: Weights, *, gain: float = 1.0, zero: int | None = None) -> Draft:
    """Product of rows with weights of shape (filters, channels)."""
    filters, channels = own.integers.shape
    if value.shape[-1] != channels:
        raise NetworkError(f"weights of {site} must have {value.shape[-1]} input channels, not {channels}")
    shape = (*value.shape[:-1], filters)
    if math.prod(value.shape[:-1]) == 1 and len(value.stored) <= 3 and value.tensor.size == channels:
        kernel = _laid(own.integers, value)
        if kernel is not None:
            return product(
                site, value.tensor, own.arranged(kernel), shape, window=Window(kernel=value.tensor.image[:2]), gain=gain, zero=zero
            )
    x = rows(site, value)
    own = own.arranged(own.integers.reshape(filters, 1, 1, channels))
    return product(site, x, own, shape, gain=gain, zero=zero, stored=(*x.shape[:-1], filters))


def _laid(matrix: NDArray[Any], value: Activation) -> NDArray[Any] | None:
    """Weights (filters, k) of a single row in the order in which its tensor is stored, as a kernel of the size of its image."""
    kernel = (len(matrix), *value.tensor.image)
    if value.index is None:
        return matrix.reshape(len(matrix), *value.tensor.onnx_shape).transpose(0, *(axis + 1 for axis in value.axes)).reshape(kernel)
    if not whole(value.index, value.tensor.size):
        return None
    laid = np.empty_like(matrix)
    laid[:, value.index.ravel()] = matrix
    return laid.reshape(kernel)


def rows(site: Site, value: Activation) -> Tensor:
    """Tensor whose last stored axis is the value's last, its rows in ONNX's order, in whatever axes."""
    tensor, channels = value.tensor, value.shape[-1]
    if value.index is None and tensor.shape[-1] == channels and value.axes == tuple(range(len(value.axes))):
        return tensor
    if tensor.shape[-1] == channels and np.array_equal(value.places.ravel(), movement.places((tensor.size,))):
        return tensor
    return site.builder.settle(value)


def _from_left(site: Site, own: Weights) -> Draft:
    """Product of constant weights (m, k) with an activation (.., k, n): rows of its transpose with the weights."""
    value = site.activation(1)
    if len(value.shape) < 2:
        raise OnHost
    channels = own.integers.shape[1]
    if value.shape[-2] != channels:
        raise NetworkError(f"weights of {site} must have {value.shape[-2]} input channels, not {channels}")
    swapped = value.moved(np.swapaxes(value.places, -1, -2))
    draft = linear(site, swapped, own)
    return draft.moved(np.swapaxes(draft.places, -1, -2))


def _dynamic(site: Site, a: Activation, b: Activation, gain: float = 1.0) -> Draft:
    """Product of two activations; outer axes broadcast."""
    if min(len(a.shape), len(b.shape)) < 2 or gain <= 0:
        raise OnHost
    lead = broadcast(a.shape[:-2], b.shape[:-2])
    if lead is None or a.shape[-1] != b.shape[-2]:
        raise NetworkError(f"inputs of {site} must be matrices that multiply, not of shapes {a.shape} and {b.shape}")
    left, right = (_matrices(value, lead) for value in (a, b))
    x, y = site.builder.settle(left), site.builder.settle(right)

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        multiplier = x.scale * y.scale * float(draft.gain) / output.scale
        return DynamicProduct(zero_points=(x.zero_point, y.zero_point), multiplier=multiplier, **common)

    shape = (*lead, a.shape[-2], b.shape[-1])
    return site.draft((x, y), shape, build, stored=(*x.shape[:-1], y.shape[-1]), gain=np.array(gain))


def _matrices(value: Activation, lead: tuple[int, ...]) -> Activation:
    """Value with these outer axes, and one in front that is dropped where it is stored."""
    if value.shape[:-2] != lead:
        value = value.moved(np.broadcast_to(value.places, (*lead, *value.shape[-2:])))
    return value if len(lead) and lead[0] == 1 else value.reshaped((1, *value.shape))


# Bare integers.


@imports("MatMulInteger")
def _matmul_integer(site: Site) -> Value:
    value = site.integer(0)
    if value is None:
        raise OnHost
    own = weights(site, 1, axes=2, filters=1, zero=zero_point(site, 3))
    return linear(site, value, own, zero=zero_point(site, 2) - value.tensor.offset)


def zero_point(site: Site, index: int) -> int:
    """Zero point of bare integers."""
    constant = site.constant(index)
    if constant is None:
        return 0
    if constant.values.size != 1:
        raise OnHost
    return int(constant.values.item())
