"""Operators over rows: softmax and normalisation over the last stored axis, reductions as pools, the index of an extreme."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from accel.errors import NetworkError
from accel.graph import movement
from accel.graph.builder import WHOLE, Activation, Draft, Form, Quantiser, Reals, Takes, Value, sample
from accel.graph.network import ArgMax, AveragePool, LayerNorm, MaxPool, Operator, Softmax, Tensor
from accel.graph.operators.elementwise import identity, scaled
from accel.graph.operators.registry import OnHost, Site, imports
from accel.graph.window import Window

WIDEST = 16  # bits of what the fixed-point models take


def _axes(site: Site, axes: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """Axes of the node, counted from the front."""
    try:
        return movement.along(axes, count, "axes")
    except NetworkError as error:
        raise NetworkError(str(error).replace(" must ", f" of {site} must ", 1)) from None


@dataclass(frozen=True, slots=True)
class _Rows:
    """A tensor whose last stored axis runs over some axes of a value.

    Parameters
    ----------
    tensor : Tensor
    shape : tuple of int
        Of the result of an operator on the rows, the batch axis included.
    order : tuple of int
        Stored axes of the result.
    places : integers of the value's shape, or None
        Where each element of the value lies in the rows; None where the result has the value's own axes.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    order: tuple[int, ...]
    places: movement.Index | None = None

    def draft(self, site: Site, build: Any, takes: Takes) -> Draft:
        """Draft of a result that lies as the rows do, seen as the value is."""
        rows = site.draft((self.tensor,), self.shape, build, stored=self.tensor.shape, order=self.order, takes=takes)
        return rows if self.places is None else rows.moved(self.places)


def _last(site: Site, value: Activation, axes: tuple[int, ...]) -> _Rows:
    """Bring a value into rows over these axes, in their order."""
    shape = value.shape
    front = len(shape) - len(sample(shape))
    if len(axes) == 1 and axes[0] >= front:
        others = [axis for axis in (value.axes if value.natural else range(len(sample(shape)))) if axis != axes[0] - front]
        order = (*others, axes[0] - front)
        return _Rows(site.builder.settle(value, order), shape, order)
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    rows = (1, prod(shape[axis] for axis in kept), prod(shape[axis] for axis in axes))
    tensor = site.builder.settle(value.moved(value.places.transpose(*kept, *axes).reshape(rows)))
    places = movement.places(tensor.shape).reshape([shape[axis] for axis in (*kept, *axes)])
    return _Rows(tensor, rows, (0, 1), places.transpose(np.argsort((*kept, *axes))))


# Softmax.


@imports("Softmax", "LogSoftmax")
def _softmax(site: Site) -> Value:
    value = _operand(site)
    rows = _last(site, value, _axes(site, (site.attribute("axis", -1),), len(value.shape)))

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        scale = output.scale / float(draft.gain)
        return Softmax(step=rows.tensor.scale, scale=scale, logarithm=site.kind == "LogSoftmax", **common)

    return rows.draft(site, build, Takes.NOTHING)


# Normalisation.


def _normalised(site: Site, value: Activation, axes: tuple[int, ...], epsilon: float, gamma: Reals, beta: Reals) -> Draft:
    """Draft of a value normalised over axes, with a gain and an offset for each element of a row."""
    rows = _last(site, value, axes)

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        gain = draft.gain / output.scale
        return LayerNorm(
            epsilon=epsilon / rows.tensor.scale**2, gamma=gamma * gain, beta=beta * gain + draft.addend / output.scale, **common
        )

    return rows.draft(site, build, Takes.ADDEND | Takes.CHANNELS | Takes.SIGN)


def _epsilon(site: Site) -> float:
    epsilon = site.number("epsilon", 1e-5)
    if epsilon < 0:
        raise NetworkError(f"epsilon of {site} must be at least 0, not {epsilon}")
    return epsilon


def _per_element(site: Site, index: int, row: tuple[int, ...], default: float) -> Reals:
    """Constant input that is one number for each element of a row; ones or zeros where it is left out or not known."""
    constant = site.constant(index)
    if constant is None or not constant.known:
        return np.full(prod(row), default)
    reals = site.reals(index)
    try:
        return np.broadcast_to(reals, row).ravel()
    except ValueError:
        raise NetworkError(f"input {index} of {site} must broadcast to rows of shape {row}, not be of shape {reals.shape}") from None


@imports("LayerNormalization")
def _layer_normalization(site: Site) -> Value:
    if any(site.node.outputs[1:]):
        raise OnHost  # mean and deviation are wanted too
    value = _operand(site)
    (axis,) = _axes(site, (site.attribute("axis", -1),), len(value.shape))
    row = value.shape[axis:]
    gamma, beta = _per_element(site, 1, row, 1.0), _per_element(site, 2, row, 0.0)
    return _normalised(site, value, tuple(range(axis, len(value.shape))), _epsilon(site), gamma, beta)


@imports("InstanceNormalization", "GroupNormalization")
def _group_normalization(site: Site) -> Value:
    value = _operand(site)
    if len(value.shape) < 3:
        raise NetworkError(f"input 0 of {site} must have batch, channels and another axis, not shape {value.shape}")
    batch, channels, *places = value.shape
    groups = channels if site.kind == "InstanceNormalization" else site.attribute("num_groups", 0)
    if groups < 1 or channels % groups:
        raise NetworkError(f"num_groups of {site} must divide {channels} channels, not be {groups}")
    grouped = (batch, groups, channels // groups, *places)
    affine = []
    for index, default in ((1, 1.0), (2, 0.0)):
        constant = site.constant(index)
        reals = np.full(channels, default) if constant is None or not constant.known else site.reals(index).ravel()
        if reals.size not in (groups, channels):
            raise NetworkError(f"input {index} of {site} must be one number for each of {channels} channels, not {reals.size}")
        each = np.repeat(reals, channels // reals.size).reshape(groups, -1)
        if (each != each[0]).any():
            raise OnHost  # a gain belongs to an element of a row, and here rows differ
        affine.append(np.repeat(each[0], prod(places)))
    axes = tuple(range(2, len(grouped)))
    return _normalised(site, value.reshaped(grouped), axes, _epsilon(site), *affine).reshaped(value.shape)


# Reductions.


@imports("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduce(site: Site) -> Value:
    value = site.value(0)
    given = site.attribute("axes", None)
    axes = site.whole(1) if site.given(1) is not None else None if given is None else tuple(given)
    if not axes and site.attribute("noop_with_empty_axes", 0):
        return value if isinstance(value, Draft) else identity(site, site.activation(0))
    value = _operand(site)
    over = _axes(site, axes or None, len(value.shape))
    kept = tuple(1 if axis in over else size for axis, size in enumerate(value.shape) if site.attribute("keepdims", 1) or axis not in over)
    if all(value.shape[axis] == 1 for axis in over):
        return value.reshaped(kept)
    if site.kind != "ReduceMin":
        return _pooled(site, value, over, site.kind).reshaped(kept)
    return _opposite(site, _pooled(site, _opposed(site, value), over, "ReduceMax").reshaped(kept))


def _operand(site: Site) -> Activation:
    """Input of one axis or more whose integers the fixed-point models take."""
    value = site.activation(0)
    if value.tensor.bits > WIDEST or not value.shape:
        raise OnHost
    return value


def _pooled(site: Site, value: Activation, axes: tuple[int, ...], kind: str) -> Draft:
    """Draft of a reduction that keeps its axes: a pool whose window is all it runs over."""
    tensor, kernel, kept, order = _windowed(site, value, axes)
    count = prod(value.shape[axis] for axis in axes)

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        window, multiplier = Window(kernel=kernel), tensor.scale / output.scale * float(draft.gain)
        if kind == "ReduceMax":
            return MaxPool(window=window, input_zero=tensor.zero_point, multiplier=multiplier, **common)
        factor = multiplier * count if kind == "ReduceSum" else multiplier
        return AveragePool(window=window, counted=(0, 0, 0, 0), input_zero=tensor.zero_point, multiplier=factor, **common)

    ones = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    return site.draft((tensor,), ones, build, stored=kept, order=order)


def _windowed(
    site: Site, value: Activation, axes: tuple[int, ...]
) -> tuple[Tensor, tuple[int, int], tuple[int, ...], tuple[int, ...] | None]:
    """Bring a value into a tensor whose image a window reduces over these axes.

    Returns
    -------
    Tensor
    (int, int)
        Rows and columns of the window.
    tuple of int
        Stored shape of the result.
    tuple of int or None
        Its order; None: ONNX's.
    """
    front = len(value.shape) - len(sample(value.shape))
    if value.natural:
        over = [value.axes.index(axis - front) for axis in axes if axis >= front]
        rows, last = range(max(len(value.stored) - 2, 1)), len(value.stored) - 1
        whole = [size for at, size in enumerate(value.stored) if at in over and at in rows]
        if last not in over and (not whole or prod(whole) == prod(value.stored[at] for at in rows)):
            height, width, _ = value.tensor.image
            columns = len(value.stored) > 2 and last - 1 in over
            kept = tuple(1 if at in over else size for at, size in enumerate(value.stored))
            return value.tensor, (height if whole else 1, width if columns else 1), kept, value.axes
    others = tuple(axis for axis in range(len(value.shape)) if axis not in axes)
    count = prod(value.shape[axis] for axis in axes)
    index = value.places.transpose(*axes, *others).reshape(count, -1)
    tensor = site.builder.settle(value.moved(index[None]))
    return tensor, (count, 1), (index.shape[1],), None


def _opposed(site: Site, value: Activation) -> Activation:
    """Negate a value without a rounding: the integers -1 - x about the zero point -1 - zero_point."""
    tensor = value.tensor
    form = Form(tensor.bits, False, tensor.scale, -1 - tensor.zero_point)
    whole = Activation(tensor=tensor, shape=(1, *tensor.onnx_shape), real=True)
    negated = site.builder.round(_minus(identity(site, whole)), Quantiser.whole(form), f"{tensor.name}/negated")
    return replace(value, tensor=negated.tensor)


def _opposite(site: Site, draft: Draft) -> Draft:
    """Negate a result that is an element of its input, and so is exact in its form."""
    (tensor,) = draft.inputs
    exact = site.builder.round(draft, Quantiser.whole(Form.of(tensor)), f"{site.output}/negated")
    return _minus(identity(site, replace(exact, real=True)))


def _minus(draft: Draft) -> Draft:
    negated = scaled(draft, np.array(-1.0))
    assert negated is not None  # a sum takes any factor
    return negated


# Indices.


@imports("ArgMax", "ArgMin")
def _arg_max(site: Site) -> Value:
    value = site.value(0)
    found = site.integer(0) if not (isinstance(value, Activation) and value.real) else value
    if found is None:
        raise OnHost
    if not found.shape or found.tensor.bits > WIDEST:
        raise OnHost
    (axis,) = _axes(site, (site.attribute("axis", 0),), len(found.shape))
    if site.kind == "ArgMin":
        found = _opposed(site, replace(found, real=True))
    front = len(found.shape) - len(sample(found.shape))
    if axis < front:
        raise OnHost  # of one element
    others = [at for at in range(len(found.shape)) if at != axis]
    moved = found.moved(found.places.transpose(*others, axis))
    tensor = site.builder.settle(moved)
    shape = tuple(size for at, size in enumerate(found.shape) if at != axis)
    output = site.builder.tensor(site.output, sample(shape), tuple(range(len(sample(shape)))), WHOLE)
    last = bool(site.attribute("select_last_index", 0))
    site.builder.operate(ArgMax(name=site.name, kind=site.kind, inputs=(tensor.name,), output=output.name, last=last))
    keep = site.attribute("keepdims", 1)
    result = Activation(tensor=output, shape=shape, real=False)
    return result.reshaped(tuple(1 if at == axis else size for at, size in enumerate(found.shape)) if keep else shape)
