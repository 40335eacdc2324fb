"""QuantizeLinear and DequantizeLinear, where reals become integers and back, and what passes values on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import TensorProto

from accel.errors import NetworkError
from accel.formats import Rounding
from accel.graph import host
from accel.graph.builder import Activation, Constant, Draft, Float, Form, Quantiser, Source, Value
from accel.graph.graph import FLOATS, INTEGERS
from accel.graph.operators.elementwise import identity, scaled
from accel.graph.operators.registry import STORED, OnHost, Site, imports, type_name
from accel.quant import quantise
from accel.special.integers import WIDEST


@imports("QuantizeLinear")
def _quantize_linear(site: Site) -> Value:
    value = site.value(0)
    zero = site.constant(2)
    kind = zero.kind if zero else site.attribute("output_dtype", 0) or TensorProto.UINT8
    if isinstance(value, Constant):
        return _constant(site, value, kind)
    quantiser = quantiser_of(site, kind)
    match value:
        case Source(kind=kind) if kind in FLOATS and quantiser.rounding is Rounding.HALF_EVEN:
            received = site.builder.receive(value, quantiser.form, site.output, real=True)
            return received if quantiser.plain else _round(site, replace(received, real=True), quantiser)
        case Float() | Source() if isinstance(value, Float) or value.kind in FLOATS:
            return host.compute(site.builder, site.node.inputs[0], quantiser, site.output)
        case Draft():
            return site.rounded(value, quantiser)
        case Activation(real=True):
            return _round(site, value, quantiser)
    raise site.refuse(0, "float32")


def _one_scale(site: Site) -> None:
    """Leave an activation of many scales to the host: a tensor has one."""
    scale, zero = site.constant(1), site.constant(2)
    if scale is None or scale.values.size == 1:
        return
    if site.given(0) is not None and not site.attribute("block_size", 0):
        site.parameters(site.shape(), zero.kind if zero else 0)
    raise OnHost


def _constant(site: Site, value: Constant, kind: int) -> Constant:
    """Quantise a constant."""
    scale, zeros, axis = site.parameters(value.values.shape, kind)
    if value.kind not in FLOATS or np.isnan(value.values).any():
        raise NetworkError(f"input 0 of {site} must be float32 without NaN, not {type_name(value.kind)}")
    if not value.known:
        return Constant(value.values.astype(np.int8), kind, known=False)
    real = value.real.astype(np.float32) if value.scale is not None else value.values
    integers = quantise(real.astype(np.float32), scale, zeros, site.limits(kind), axis)
    lo, hi = (site.attribute(name, default) for name, default in (("lo", site.limits(kind).lo), ("hi", site.limits(kind).hi)))
    return Constant(np.clip(integers, lo, hi), kind)


def quantiser_of(site: Site, kind: int) -> Quantiser:
    """Form, bounds and rounding of an activation's quantiser."""
    _one_scale(site)
    form = site.form(kind)
    whole, offset = Quantiser.whole(form), 1 << (form.bits - 1) if form.unsigned else 0
    lo, hi = site.attribute("lo", whole.lo + offset) - offset, site.attribute("hi", whole.hi + offset) - offset
    if not whole.lo <= lo <= hi <= whole.hi:
        raise NetworkError(f"lo and hi of {site} must be bounds within its type, not {lo + offset} and {hi + offset}")
    rounding = site.choice("rounding", "half_even", "floor", "half_up")
    return Quantiser(form, lo, hi, {"half_even": Rounding.HALF_EVEN, "floor": Rounding.FLOOR, "half_up": Rounding.HALF_UP}[rounding])


def _round(site: Site, value: Activation, quantiser: Quantiser) -> Activation:
    """Give a tensor another form; the same one is the same integers."""
    if Form.of(value.tensor) == quantiser.form and (quantiser.lo, quantiser.hi) == (quantiser.form.format.lo, quantiser.form.format.hi):
        return replace(value, real=False)
    if value.tensor.bits > WIDEST:
        raise OnHost
    return site.rounded(identity(site, value), quantiser)


@imports("DequantizeLinear")
def _dequantize_linear(site: Site) -> Value:
    value = site.value(0)
    if not isinstance(value, Constant):
        _one_scale(site)
    match value:
        case Constant(scale=None, kind=kind) if kind in INTEGERS or kind == TensorProto.INT32:
            if site.attribute("block_size", 0):
                raise OnHost
            scale, zeros, axis = site.parameters(value.values.shape, kind)
            return replace(value, scale=scale, zero_point=zeros, axis=axis)
        case Source(kind=kind) if kind in INTEGERS:
            return replace(site.builder.receive(value, site.form(kind), value.name, real=False), real=True)
        case Activation(real=False, tensor=tensor) if tensor.bits <= WIDEST:
            return _dequantised(site, value)
        case Draft():
            scale, zeros, _ = site.parameters((), TensorProto.INT32)
            product = scaled(value, scale)
            if product is not None and not zeros:
                return product
            raise OnHost
        case Constant() | Float() | Activation(real=False):
            raise OnHost
    raise site.refuse(0, "quantised integers")


def _dequantised(site: Site, value: Activation) -> Activation:
    """Reals of integers, by the scale and zero point they were quantised with or by others."""
    tensor = value.tensor
    form = site.form(STORED[tensor.bits, tensor.unsigned])
    return replace(value, tensor=replace(tensor, scale=form.scale, zero_point=form.zero_point), real=True)


@imports("Cast")
def _cast(site: Site) -> Value:
    value, to = site.value(0), site.attribute("to", 0)
    match value:
        case Constant():
            raise OnHost
        case Source(kind=kind) if kind == to:
            return value
        case Activation(real=True) | Draft() if to in FLOATS:
            return value
        case Source() | Activation(real=False) if to in FLOATS:
            integers = site.integer(0)
            if integers is not None and integers.tensor.bits <= WIDEST:
                return replace(integers, tensor=replace(integers.tensor, scale=1.0, zero_point=-integers.tensor.offset), real=True)
    raise OnHost


@imports("Identity")
def _identity(site: Site) -> Value:
    return site.value(0)


@imports("Constant")
def _constant_node(site: Site) -> Value:
    for name, kind in (("value_float", "float32"), ("value_floats", "float32"), ("value_int", "int64"), ("value_ints", "int64")):
        if name in site.node.attributes:
            array = np.asarray(site.attribute(name, None), kind)
            return Constant(array, TensorProto.FLOAT if kind == "float32" else TensorProto.INT64)
    value = site.attribute("value", None)
    if value is None or not hasattr(value, "kind"):
        raise NetworkError(f"value of {site} must be numbers, not something else")
    return Constant(value.values, value.kind, value.known)
