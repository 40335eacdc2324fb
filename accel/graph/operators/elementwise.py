"""Operators element by element: merged into the product before them, weighted sums, products of tensors, or tables.

A result that depends on one tensor alone, element by element and alike for all channels, is a function of one integer: a table holds it,
whatever chain of operators it was. What is linear stays a :class:`Sum`, which takes a constant per channel too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from accel.errors import NetworkError, RangeError
from accel.formats import Rounding
from accel.graph import movement
from accel.graph.builder import Activation, Constant, Draft, Form, Reals, Takes, Value, broadcast, sample
from accel.graph.network import Divide, Lookup, MatrixProduct, Multiply, Operator, Sum, Tensor
from accel.graph.operators.registry import OnHost, Site, imports
from accel.graph.window import Window
from accel.special import lookup
from accel.special.integers import WIDEST
from accel.special.lookup import Pointwise

FINE = 64  # our choice: the weight that stands for 1 where channels are scaled by factors of either sign; constants are as fine as 1/64 LSB


# Drafts of one tensor.


def identity(site: Site, value: Activation) -> Draft:
    """Draft of a tensor as it is: a sum of one."""
    value = site.builder.tidy(value)
    return site.draft(
        (value.tensor,),
        value.shape,
        _linear,
        stored=value.stored,
        order=value.axes,
        takes=Takes.ADDEND | Takes.CHANNELS | Takes.SIGN,
        index=value.index,
        exact=Form.of(value.tensor),
        function=Pointwise(lambda units, x: x),
    )


def pointwise(site: Site, index: int) -> Draft:
    """Input as a draft: the unrounded result before it, or a tensor as it is."""
    value = site.value(index)
    if isinstance(value, Draft) and not value.padded:
        return value
    return identity(site, site.activation(index))


def _linear(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
    """Sum of one; a table where it falls with its input; a product of each channel where factors differ in sign."""
    (x,) = draft.inputs
    if draft.function is not None and (draft.gain <= 0).any():
        return _table(draft, output, common)
    if (draft.gain <= 0).any():
        return _channelwise(draft, x, output, common)
    return Sum(zero_points=(x.zero_point,), **_factors(draft, output, (x.scale,)), **common)


def _factors(draft: Draft, output: Tensor, scales: tuple[float, ...]) -> dict[str, Any]:
    """Multipliers, gain and offset of a sum."""
    gain = draft.gain if draft.gain.ndim else None
    whole = 1.0 if draft.gain.ndim else float(draft.gain)
    return {
        "multipliers": tuple(scale / output.scale * whole if whole != 1 else scale / output.scale for scale in scales),
        "gain": gain,
        "offset": np.broadcast_to(draft.addend / output.scale, output.shape[-1:]) if draft.addend.any() else None,
    }


def _channelwise(draft: Draft, x: Tensor, output: Tensor, common: dict[str, Any]) -> Operator:
    """Depthwise product with weights of -64, 0 or 64: the addend, in units of 1/64 LSB of the input, is the only thing rounded twice."""
    channels = x.image[2]
    gain = np.broadcast_to(draft.gain, channels)
    units = np.where(gain == 0, output.scale, np.abs(gain) * x.scale / FINE)
    weights = (np.sign(gain) * FINE).astype(np.int8).reshape(channels, 1, 1, 1)
    return MatrixProduct(
        window=Window(),
        channels=channels,
        filters=channels,
        groups=channels,
        padding=x.zero_point,
        weights=weights,
        bias=np.rint(draft.addend / units).astype(np.int64) - x.zero_point * weights.astype(np.int64).ravel(),
        multiplier=units / output.scale,
        **common,
    )


def _table(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
    """Every input integer through the function, rounded once."""
    (x,) = draft.inputs
    assert draft.function is not None
    function = replace(draft.function, bits=max(x.bits, output.bits))
    if common["rounding"] is not Rounding.HALF_EVEN:
        half = 0.0 if common["rounding"] is Rounding.FLOOR else 0.5
        function = function.then(Pointwise(lambda units, x: np.floor(x / output.scale + half) * output.scale))
    table = lookup.table(function, x, output, common["lo"], common["hi"])
    labels = {field: common[field] for field in ("name", "kind", "inputs", "output")}
    return Lookup(table=table, units=function.units, **labels)


def applied(site: Site, draft: Draft, function: Pointwise) -> Draft:
    """Apply a function element by element."""
    if draft.function is None or draft.inputs[0].bits > WIDEST:
        raise OnHost
    return Draft(
        name=site.name,
        kind=site.kind,
        inputs=draft.inputs,
        extents=draft.extents,
        order=draft.order,
        shape=draft.shape,
        index=draft.index,
        build=_table,
        function=draft.function.then(function),
    )


def _then(draft: Draft, function: Callable[[Reals], Reals]) -> Pointwise | None:
    """Compose the draft's function, if it is one, with an exact one."""
    return None if draft.function is None else draft.function.then(Pointwise(lambda units, x: function(x)))


# What drafts merge. None: it cannot be merged.


def clipped(draft: Draft, low: float, high: float) -> Draft | None:
    """Bound the result: ``min(max(x, low), high)``."""
    if draft.padded:
        return None
    function = _then(draft, lambda x: np.minimum(np.maximum(x, low), high))
    if draft.build is _table:
        return replace(draft, exact=None, function=function)
    exact = draft.exact if low in (-math.inf, 0) and high == math.inf else None  # 0 is an integer of every form
    bounds = min(max(draft.low, low), high), min(max(draft.high, low), high)
    return replace(draft, function=function, low=bounds[0], high=bounds[1], exact=exact)


def scaled(draft: Draft, gain: Reals) -> Draft | None:
    """Multiply by constants: one, or one per channel."""
    factor = draft.as_stored(gain)
    if factor is None or factor.size not in (1, draft.stored[-1]) or draft.padded:
        return None
    one = factor.ndim == 0
    function = _then(draft, lambda x: x * float(factor)) if one else None
    if draft.build is _table:
        return replace(draft, exact=None, function=function) if one else None
    if (not one and Takes.CHANNELS not in draft.takes) or ((factor <= 0).any() and Takes.SIGN not in draft.takes):
        return None
    if draft.bounded and (not one or factor == 0):
        return None
    low, high = sorted((draft.low * float(factor), draft.high * float(factor))) if draft.bounded else (draft.low, draft.high)
    return replace(draft, gain=draft.gain * factor, addend=draft.addend * factor, low=low, high=high, exact=None, function=function)


def shifted(draft: Draft, addend: Reals) -> Draft | None:
    """Add constants: one, or one per channel."""
    offset = draft.as_stored(addend)
    if offset is None or offset.size not in (1, draft.stored[-1]) or draft.padded:
        return None
    one = offset.ndim == 0
    function = _then(draft, lambda x: x + float(offset)) if one else None
    if draft.build is _table:
        return replace(draft, exact=None, function=function) if one else None
    if Takes.ADDEND not in draft.takes or (draft.bounded and not one):
        return None
    shift = float(offset) if one else 0.0
    return replace(draft, addend=draft.addend + offset, low=draft.low + shift, high=draft.high + shift, exact=None, function=function)


def merge(site: Site, index: int, change: Callable[[Draft], Draft | None], varies: tuple[int, ...] = ()) -> Draft:
    """Change the result of an input by constants, moving it to where it can be if it is a tensor.

    Parameters
    ----------
    site : Site
    index : int
        Of the input.
    change : callable
    varies : tuple of int
        Shape of the constants: those that vary along one axis are constants of channels where that axis is last, any others where each
        element is a channel of a flat tensor.
    """
    changed = change(pointwise(site, index))
    value = site.value(index)
    if changed is None and isinstance(value, Activation):
        changed = change(_spread(site, site.builder.tidy(value), varies))
    if changed is None:
        raise OnHost
    return changed


def _spread(site: Site, value: Activation, varies: tuple[int, ...]) -> Draft:
    """Draft of a value in a tensor whose channels the constants are of."""
    along = [axis - len(varies) for axis, extent in enumerate(varies) if extent > 1]
    axes = len(sample(value.shape))
    if len(along) == 1 and -axes <= along[0]:
        order = (*(axis for axis in range(axes) if axis != axes + along[0]), axes + along[0])
        return identity(site, Activation(tensor=site.builder.settle(value, order), shape=value.shape, real=True))
    flat = site.builder.move((value.tensor,), movement.places((value.tensor.size,)), order=(0,))
    return replace(identity(site, replace(value, tensor=flat, index=value.places)), flat=True)


# Two operands.


@imports("Add", "Sum")
def _add(site: Site) -> Value:
    return _binary(site, np.add, lambda draft, c, _: shifted(draft, c))


@imports("Sub")
def _sub(site: Site) -> Value:
    def change(draft: Draft, c: Reals, first: bool) -> Draft | None:
        if not first:
            return shifted(draft, -c)
        negated = scaled(draft, np.array(-1.0))
        return negated and shifted(negated, c)

    return _binary(site, np.subtract, change)


@imports("Mul")
def _mul(site: Site) -> Value:
    return _binary(site, np.multiply, lambda draft, c, _: scaled(draft, c))


@imports("Div")
def _div(site: Site) -> Value:
    def change(draft: Draft, c: Reals, first: bool) -> Draft | None:
        return None if first or not c.all() else scaled(draft, 1 / c)

    return _binary(site, np.divide, change)


@imports("Max")
def _max(site: Site) -> Value:
    return _binary(site, np.maximum, lambda draft, c, _: clipped(draft, c.item(), math.inf) if c.size == 1 else None)


@imports("Min")
def _min(site: Site) -> Value:
    return _binary(site, np.minimum, lambda draft, c, _: clipped(draft, -math.inf, c.item()) if c.size == 1 else None)


@imports("Pow")
def _pow(site: Site) -> Value:
    return _binary(site, np.power, lambda draft, c, first: draft if c.size == 1 and c == 1 and not first else None)


def _binary(site: Site, function: Callable[[Reals, Reals], Reals], change: Callable[[Draft, Reals, bool], Draft | None]) -> Value:
    """Import an operator of two operands: `change` merges a constant, which may be the first operand, into the draft of the other."""
    if len(site.inputs) != 2:
        raise OnHost
    constants = [index for index in (0, 1) if isinstance(site.given(index), Constant)]
    if len(constants) == 1:
        return _with_constant(site, constants[0], function, change)
    f, g = (_chain(site, index) for index in (0, 1))
    if f and g and f.function and g.function and _together(f, g):
        first, second = f.function.formula, g.function.formula
        whole = replace(f, function=Pointwise(lambda units, x: function(first(units, x), second(units, x))))
        return applied(site, whole, Pointwise(lambda units, x: x))
    if function not in (np.add, np.subtract, np.multiply, np.divide):
        raise OnHost
    return _of_two(site, function)


def _with_constant(
    site: Site, at: int, function: Callable[[Reals, Reals], Reals], change: Callable[[Draft, Reals, bool], Draft | None]
) -> Value:
    """Import an operator of a value and a constant, the operand `at`."""
    c, index, first = site.reals(at), 1 - at, at == 0
    value = site.value(index)
    if isinstance(value, Activation) and value.real:
        shape = broadcast(value.shape, c.shape)
        if shape is not None and shape != value.shape:
            return _expanded(site, value.moved(np.broadcast_to(value.places, shape)), c, lambda draft: change(draft, c, first))
    if c.size == 1 and (function is np.power or (function is np.divide and first)):
        power = Pointwise(lambda units, x: function(*((c.item(), x) if first else (x, c.item()))))
        return applied(site, pointwise(site, index), power)
    return merge(site, index, lambda draft: change(draft, c, first), c.shape)


def _expanded(site: Site, value: Activation, c: Reals, change: Callable[[Draft], Draft | None]) -> Value:
    """Merge a constant that makes the value larger."""
    changed = change(identity(site, value))
    if changed is None:
        raise OnHost
    return changed


def _chain(site: Site, index: int) -> Draft | None:
    """Input as a function of one tensor, if it is one."""
    value = site.value(index)
    if isinstance(value, Activation) and value.real:
        return identity(site, value)
    return value if isinstance(value, Draft) and value.function is not None and not value.padded else None


def _together(first: Draft, second: Draft) -> bool:
    """Whether two drafts are functions of one tensor, element by element."""
    if first.inputs != second.inputs or first.shape != second.shape:
        return False
    return (first.index is None and second.index is None) or bool(np.array_equal(first.places, second.places))


def _of_two(site: Site, function: Callable[[Reals, Reals], Reals]) -> Value:
    """Import an operator of two tensors."""
    values = site.activation(0), site.activation(1)
    shape = broadcast(values[0].shape, values[1].shape)
    if shape is None:
        raise site.refuse(1, f"of a shape that broadcasts with {values[0].shape}")
    like, (a, b) = site.builder.align(values, shape)
    zeros = (a.zero_point, b.zero_point)

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        if function is np.multiply:
            return Multiply(zero_points=zeros, multiplier=a.scale * b.scale * float(draft.gain) / output.scale, **common)
        if function is np.divide:
            return Divide(zero_points=zeros, multiplier=a.scale * float(draft.gain) / (b.scale * output.scale), **common)
        return Sum(zero_points=zeros, **_factors(draft, output, (a.scale, b.scale if function is np.add else -b.scale)), **common)

    linear = function in (np.add, np.subtract)
    takes = Takes.ADDEND | Takes.CHANNELS if linear else Takes.NOTHING
    return site.draft((a, b), shape, build, stored=like.stored, order=like.axes, takes=takes, index=like.index)


# One operand.

UNARY = tuple(kind for kind in lookup.FUNCTIONS if kind not in ("Clip", "Pow", "PRelu", "Relu"))


@imports(*UNARY)
def _unary(site: Site) -> Value:
    attributes = {name: value for name, value in site.node.attributes.items() if isinstance(value, int | float | str)}
    for name in attributes.keys() - {"approximate"}:
        attributes[name] = site.number(name, 0.0)
    try:
        function = lookup.FUNCTIONS[site.kind](**attributes)
    except RangeError as error:
        raise NetworkError(str(error).replace(f" of {site.kind} ", f" of {site} ", 1)) from None
    return applied(site, pointwise(site, 0), function)


@imports("PRelu")
def _prelu(site: Site) -> Value:
    slope = site.reals(1)
    if slope.size != 1 and len(np.unique(slope)) != 1:
        raise OnHost  # a table holds one function, not one for each channel
    return applied(site, pointwise(site, 0), lookup.FUNCTIONS["PRelu"](slope=float(slope.flat[0])))


# Bounds.


@imports("Relu")
def _relu(site: Site) -> Value:
    return merge(site, 0, lambda draft: clipped(draft, 0.0, math.inf))


@imports("Clip")
def _clip(site: Site) -> Value:
    low = site.scalar(1, site.attribute("min", -math.inf))
    high = site.scalar(2, site.attribute("max", math.inf))
    return merge(site, 0, lambda draft: clipped(draft, low, high))


# Scale and addend per channel.


@imports("BatchNormalization")
def _batch_normalization(site: Site) -> Value:
    if site.attribute("training_mode", 0):
        raise OnHost
    gain, bias, mean, variance = (site.reals(index) for index in range(1, 5))
    epsilon = site.number("epsilon", 1e-5)
    factor = gain / np.sqrt(variance + epsilon)
    value = site.value(0)
    trailing = (-1, *[1] * (len(getattr(value, "shape", ())) - 2))

    def change(draft: Draft) -> Draft | None:
        product = scaled(draft, factor.reshape(trailing))
        return product and shifted(product, (bias - mean * factor).reshape(trailing))

    return merge(site, 0, change, factor.reshape(trailing).shape)
