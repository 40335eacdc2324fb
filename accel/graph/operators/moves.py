"""Operators that only move elements: they change where a value is seen, and a Move is made where it must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from accel.errors import NetworkError
from accel.graph import movement
from accel.graph.builder import Activation, Constant, Draft, Float, Form, Placed, Quantiser, Reals, Source, Value, sample
from accel.graph.graph import FLOATS, Node
from accel.graph.movement import Index, limited
from accel.graph.network import Tensor
from accel.graph.operators.elementwise import identity, pointwise
from accel.graph.operators.quantisers import quantiser_of
from accel.graph.operators.registry import OnHost, Site, imports

Rule = Callable[[Index], Index]
MOVES = "Concat DepthToSpace Expand Flatten Gather Pad Reshape Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze"
THROUGH = {"Relu", "Clip", "MaxPool", *MOVES.split()}  # elements of their input: they may stand between a Concat and its quantiser


def ruled(site: Site, rule: Callable[[], Any]) -> Any:
    """Apply a rule of :mod:`accel.graph.movement`; what it refuses is the node's."""
    try:
        return rule()
    except NetworkError as error:
        raise NetworkError(str(error).replace(" must ", f" of {site} must ", 1)) from None


def _moved(site: Site, rule: Rule) -> Value:
    """First input, seen as a rule says."""
    value = site.value(0)
    if isinstance(value, Float):
        raise OnHost
    ruled(site, lambda: movement.limited(value.shape))
    if isinstance(value, Constant):
        if value.axis is not None:
            raise OnHost
        return replace(value, values=ruled(site, lambda: rule(value.values)))
    return _seen(site, value, ruled(site, lambda: rule(value.places)))


def _seen(site: Site, value: Source | Activation | Draft, index: Index) -> Source | Activation | Draft:
    """See elements at other places; as if nothing had moved where moves undo each other."""
    if not index.size:
        raise NetworkError(f"result of {site} must have an element, not shape {index.shape}")
    whole = replace(value, shape=index.shape, index=None)
    return whole if index.size == prod(value.stored) and np.array_equal(whole.places, index) else value.moved(index)


def _reshaped(site: Site, shape: Rule) -> Value:
    """First input in another shape, its elements in ONNX's order; the rule is asked for the shape alone."""
    value = site.value(0)
    if isinstance(value, Float):
        raise OnHost
    wanted = ruled(site, lambda: shape(np.broadcast_to(np.zeros((), np.int8), value.shape))).shape
    if not isinstance(value, Constant):
        return value.reshaped(wanted)
    if value.axis is not None:
        raise OnHost
    return replace(value, values=value.values.reshape(wanted))


@imports("Transpose")
def _transpose(site: Site) -> Value:
    perm = site.attribute("perm", None)
    value = site.value(0)
    if isinstance(value, Constant) and value.axis is not None:
        axes = ruled(site, lambda: movement.along(perm, value.values.ndim, "perm")) if perm else tuple(range(value.values.ndim))[::-1]
        return replace(value, values=ruled(site, lambda: movement.transposed(value.values, perm)), axis=axes.index(value.axis))
    return _moved(site, lambda index: movement.transposed(index, perm))


@imports("Reshape")
def _reshape(site: Site) -> Value:
    shape, allowzero = site.whole(1), bool(site.attribute("allowzero", 0))
    return _reshaped(site, lambda index: movement.reshaped(index, shape, allowzero))


@imports("Flatten")
def _flatten(site: Site) -> Value:
    return _reshaped(site, lambda index: movement.flattened(index, site.attribute("axis", 1)))


@imports("Squeeze")
def _squeeze(site: Site) -> Value:
    axes = site.whole(1) if site.given(1) is not None else site.attribute("axes", None)
    return _reshaped(site, lambda index: movement.squeezed(index, axes))


@imports("Unsqueeze")
def _unsqueeze(site: Site) -> Value:
    axes = site.whole(1, tuple(site.attribute("axes", ())) or None)
    return _reshaped(site, lambda index: movement.unsqueezed(index, axes))


@imports("Expand")
def _expand(site: Site) -> Value:
    shape = site.whole(1)
    return _moved(site, lambda index: movement.expanded(index, shape))


@imports("Tile")
def _tile(site: Site) -> Value:
    repeats = site.whole(1)
    return _moved(site, lambda index: movement.tiled(index, repeats))


@imports("Slice")
def _slice(site: Site) -> Value:
    starts, ends = site.whole(1), site.whole(2)
    axes, steps = (site.whole(at) if site.given(at) is not None else None for at in (3, 4))
    return _moved(site, lambda index: movement.sliced(index, starts, ends, axes, steps))


@imports("Split")
def _split(site: Site) -> tuple[Value, ...]:
    value, axis = site.movable(0), site.attribute("axis", 0)
    ruled(site, lambda: movement.limited(value.shape))
    sizes = site.whole(1, tuple(site.attribute("split", ()))) if site.given(1) is not None or site.attribute("split", ()) else None
    if sizes is None:
        count = site.attribute("num_outputs", len(site.node.outputs))
        (at,) = ruled(site, lambda: movement.along([axis], len(value.shape), "axis"))
        sizes = ruled(site, lambda: movement.equal_parts(value.shape[at], count))
    if len(sizes) != len(site.node.outputs):
        raise NetworkError(f"split of {site} must be one size for each of {len(site.node.outputs)} outputs, not {list(sizes)}")
    return tuple(_seen(site, value, part) for part in ruled(site, lambda: movement.split(value.places, sizes, axis)))


def _indices(site: Site) -> NDArray[Any]:
    """Input 1, which must be constant."""
    constant = site.constant(1)
    if constant is None:
        raise site.refuse(1, "given")
    return constant.values


@imports("Gather")
def _gather(site: Site) -> Value:
    indices, axis = _indices(site), site.attribute("axis", 0)
    return _moved(site, lambda index: movement.gathered(index, indices, axis))


@imports("GatherElements")
def _gather_elements(site: Site) -> Value:
    indices, axis = _indices(site), site.attribute("axis", 0)
    return _moved(site, lambda index: movement.gathered_elements(index, indices, axis))


@imports("GatherND")
def _gather_nd(site: Site) -> Value:
    indices, batch = _indices(site), site.attribute("batch_dims", 0)
    return _moved(site, lambda index: movement.gathered_nd(index, indices, batch))


@imports("DepthToSpace")
def _depth_to_space(site: Site) -> Value:
    block, mode = site.attribute("blocksize", 0), site.attribute("mode", "DCR")
    return _moved(site, lambda index: movement.depth_to_space(index, block, mode))


@imports("SpaceToDepth")
def _space_to_depth(site: Site) -> Value:
    block, mode = site.attribute("blocksize", 0), site.attribute("mode", "DCR")
    return _moved(site, lambda index: movement.space_to_depth(index, block, mode))


@imports("Pad")
def _pad(site: Site) -> Value:
    pads, mode = site.whole(1), str(site.attribute("mode", "constant"))
    axes = site.whole(3) if site.given(3) is not None else None
    real = site.scalar(2, 0.0) if mode == "constant" else 0.0
    return _surrounded(site, lambda index: movement.padded(index, pads, axes, mode), real)


def _surrounded(site: Site, rule: Rule, real: float) -> Value:
    """First input, seen as a rule says whose -1 is a number: of integers the integer itself, of reals the integer nearest to it."""
    value: Source | Activation | Draft | None = site.movable(0)
    if isinstance(value, Source) and value.kind not in FLOATS:
        value = site.integer(0)
    if value is None:
        raise OnHost
    if isinstance(value, Activation) and not value.real:
        padding = int(real) - value.tensor.offset
    elif real == 0:
        return _moved(site, rule)
    elif not isinstance(value, Activation):
        raise OnHost  # nothing says yet what integer the number would be
    else:
        steps = real / value.tensor.scale + value.tensor.zero_point
        if not value.tensor.format.lo - 0.5 <= steps <= value.tensor.format.hi + 0.5:
            raise OnHost
        padding = min(max(round(steps), value.tensor.format.lo), value.tensor.format.hi)
    if value.index is not None and value.index.min(initial=0) < 0 and padding != value.tensor.zero_point:  # there is another number already
        value = Activation(tensor=site.builder.settle(value, _order(value)), shape=value.shape, real=value.real)
    ruled(site, lambda: movement.limited(value.shape))
    index = ruled(site, lambda: rule(value.places))
    if padding == value.tensor.zero_point:
        return _seen(site, value, index)
    return _collected(site, (value.tensor,), index, _order(value, index.ndim - len(value.shape)), value.real, padding)


def _order(value: Placed, more: int = 0) -> tuple[int, ...]:
    """Order in which a value is best stored: as it is, if it has the axes of its tensor."""
    axes = len(sample(value.shape)) + more
    return value.axes if len(value.axes) == axes else tuple(range(axes))


def _collected(
    site: Site, tensors: tuple[Tensor, ...], index: Index, order: tuple[int, ...], real: bool, padding: int | None = None
) -> Activation:
    """Move the node's result into a tensor of its own."""
    name = _quantised_as(site) if real else site.output
    stored = index.reshape(sample(index.shape))
    if stored.ndim != len(order):
        order = tuple(range(stored.ndim))
    tensor = site.builder.move(tensors, stored.transpose(order), order=order, padding=padding, name=name, kind=site.kind)
    return Activation(tensor=tensor, shape=index.shape, real=real)


@imports("Resize", "Upsample")
def _resize(site: Site) -> Value:
    if site.attribute("mode", "nearest") != "nearest":
        raise OnHost
    value = site.movable(0)
    old = site.kind == "Upsample"
    roi, scales, sizes = (None, _numbers(site, 1), None) if old else (_numbers(site, at) for at in (1, 2, 3))
    given = site.attribute("axes", None)
    axes = ruled(site, lambda: movement.along(given, len(value.shape), "axes"))
    policy = str(site.attribute("keep_aspect_ratio_policy", "stretch"))
    whole = None if sizes is None else [int(size) for size in sizes]
    whole_sizes, whole_scales = ruled(site, lambda: movement.extents(value.shape, whole, scales, axes, policy))
    coordinates = str(site.attribute("coordinate_transformation_mode", "asymmetric" if old else "half_pixel"))
    nearest = str(site.attribute("nearest_mode", "floor" if old else "round_prefer_floor"))
    seen = None
    if coordinates == "tf_crop_and_resize":
        if roi is None or len(roi) != 2 * len(axes):
            raise NetworkError(f"roi of {site} must be {2 * len(axes)} numbers, not {roi}")
        seen = [(0.0, 1.0)] * len(value.shape)
        for at, axis in enumerate(axes):
            seen[axis] = (roi[at], roi[at + len(axes)])

    def rule(index: Index) -> Index:
        return movement.resized(index, whole_sizes, whole_scales, coordinates, nearest, seen)

    return _surrounded(site, rule, site.number("extrapolation_value", 0.0)) if seen else _moved(site, rule)


def _numbers(site: Site, index: int) -> list[float] | None:
    """Constant input of numbers; None where it is left out or empty."""
    if site.given(index) is None:
        return None
    numbers: list[float] = site.reals(index).ravel().tolist()
    return numbers or None


# Concat.


@imports("Concat")
def _concat(site: Site) -> Value:
    values = [site.value(at) for at in range(len(site.inputs))]
    if any(isinstance(value, Float) for value in values) or all(isinstance(value, Constant) for value in values):
        raise OnHost
    if any(_whole(value) for value in values):
        return _joined(site, [_integers(site, at) for at in range(len(values))], False)
    placed = _alike(site, values)
    result = _joined(site, [each for each in placed if each is not None], True, values)
    constants = [value.real if isinstance(value, Constant) else np.zeros(value.shape) for value in values if not isinstance(value, Float)]
    if not any(isinstance(value, Constant) for value in values):
        return result
    return _added(site, result, np.concatenate(constants, axis=site.attribute("axis", 0)))


def _whole(value: Value) -> bool:
    """Whether a value is integers as such."""
    return (isinstance(value, Activation) and not value.real) or (isinstance(value, Source) and value.kind not in FLOATS)


def _integers(site: Site, at: int) -> Activation:
    """Input that is integers of the network."""
    value = site.integer(at)
    if value is None:
        raise OnHost
    return value


def _added(site: Site, value: Activation, reals: Reals) -> Value:
    """Constants where the value has zeros: a sum, which the next quantiser rounds once."""
    index = value.places.reshape(-1)[None]  # flat, as each element has a constant of its own
    flat = Activation(tensor=site.builder.settle(value.moved(index)), shape=index.shape, real=True)
    draft = identity(site, flat)
    return replace(draft, addend=reals.ravel(), function=None).reshaped(value.shape)


def _alike(site: Site, values: list[Value]) -> list[Activation | None]:
    """Bring inputs to one form, that of the quantiser behind the node where theirs differ; None for constants."""
    forms = {Form.of(value.tensor) for value in values if isinstance(value, Activation)}
    quantiser = Quantiser.whole(*forms) if len(forms) == 1 else None
    if quantiser is None or any(isinstance(value, Source | Draft) for value in values):
        quantiser = _quantiser(site)
        if quantiser is None:
            raise OnHost
    return [_rounded(site, at, value, quantiser) for at, value in enumerate(values)]


def _rounded(site: Site, at: int, value: Value, quantiser: Quantiser) -> Activation | None:
    """Input in this form."""
    if isinstance(value, Constant):
        return None
    if isinstance(value, Source) and quantiser.plain:
        return replace(site.builder.receive(value, quantiser.form, f"{value.name}/quantised", real=True), real=True)
    if isinstance(value, Activation) and Form.of(value.tensor) == quantiser.form and quantiser.plain:
        return value
    draft = value if isinstance(value, Draft) else pointwise(site, at)
    return replace(site.builder.round(draft, quantiser, f"{site.output}/{at}"), real=True)


def _joined(site: Site, placed: list[Activation], real: bool, values: list[Value] | None = None) -> Activation:
    """Put inputs one behind the other, zeros where they are constants."""
    if len({Form.of(each.tensor) for each in placed}) != 1:
        raise OnHost
    tensors = list({each.tensor.name: each.tensor for each in placed}.values())
    first = dict(zip((tensor.name for tensor in tensors), np.cumsum([0, *(tensor.size for tensor in tensors)]).tolist(), strict=False))
    parts = iter([np.where(each.places < 0, -1, each.places + first[each.tensor.name]) for each in placed])
    every = [np.full(value.shape, -1) if isinstance(value, Constant) else next(parts) for value in values or placed]
    limited([sum(part.size for part in every)])
    axis = site.attribute("axis", 0)
    try:
        index = np.concatenate(every, axis=axis)
    except (ValueError, TypeError):
        shapes = ", ".join(str(part.shape) for part in every)
        raise NetworkError(f"inputs of {site} must be alike but for axis {axis}, not of shapes {shapes}") from None
    if len(tensors) == 1:
        return Activation(tensor=tensors[0], shape=index.shape, index=index, real=real)
    return _collected(site, tuple(tensors), index, _order(placed[0], index.ndim - len(placed[0].shape)), real)


# What stands behind a node.


def _quantised_as(site: Site) -> str:
    """Name of the integers behind the node, if a quantiser reads its result, else of the result."""
    behind = _behind(site, site.output)
    return behind[0].outputs[0] if len(behind) == 1 and behind[0].kind == "QuantizeLinear" else site.output


def _behind(site: Site, name: str) -> list[Node]:
    return site.builder.readers.get(name, [])


def _quantiser(site: Site) -> Quantiser | None:
    """Find the quantiser in which all readers of the result end, at once or behind what keeps it as it is; None where they differ."""
    found: list[Quantiser] = []
    waiting, seen = [site.output], {""}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in site.builder.graph.outputs:
            return None
        for node in _behind(site, name):
            if node.kind == "QuantizeLinear" and node.inputs[0] == name:
                behind = Site(replace(node, inputs=("", *node.inputs[1:])), site.builder)
                zero = behind.constant(2)
                found.append(quantiser_of(behind, zero.kind if zero else behind.attribute("output_dtype", 0) or TensorProto.UINT8))
            elif node.kind in THROUGH and (node.inputs[0] == name or node.kind == "Concat"):
                waiting.extend(node.outputs)
            else:
                return None
    return found[0] if found and all(each == found[0] for each in found) else None
