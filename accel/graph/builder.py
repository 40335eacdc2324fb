"""A network under construction: what a name of the graph stands for, and how it becomes tensors and operators.

What stands between two quantised tensors is exact until it is rounded once. So an operator yields a :class:`Draft`, an exact result without
a format; what follows it, Relu, Clip and constants, changes the draft, and rounding it to a :class:`Form` makes the operator. Nor does
anything move before it must: Transpose, Reshape, Slice and their like change where a value lies in its tensor, and only
:meth:`Builder.settle` makes a Move of it.
"""

from __future__ import annotations

import enum
import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from accel.formats import FixedFormat, Rounding
from accel.graph import movement
from accel.graph.graph import Graph, Node
from accel.graph.network import Move, Operator, Port, Tensor, channels_last, inverse
from accel.quant import dequantise
from accel.special.lookup import Pointwise

LARGEST = 1 << 24  # our choice [elements]: of a tensor with constants of its own for each element

Index = NDArray[np.signedinteger]
Reals = NDArray[np.float64]
Build = Callable[["Draft", Tensor, dict[str, Any]], Operator]


@dataclass(frozen=True, slots=True)
class Form:
    """How integers stand for reals: the fields of :class:`Tensor` of the same names."""

    bits: int
    unsigned: bool
    scale: float
    zero_point: int

    @classmethod
    def of(cls, tensor: Tensor) -> Form:
        """Form of a tensor."""
        return cls(tensor.bits, tensor.unsigned, tensor.scale, tensor.zero_point)

    @property
    def format(self) -> FixedFormat:
        """Format of the integers."""
        return FixedFormat(self.bits)


REAL = Form(48, False, 2.0**-24, 0)  # our choice, of floats that nothing quantises: up to 2**23, in steps of what float32 has just below 1
WHOLE = Form(32, False, 1.0, 0)  # of integers that nothing quantises


@dataclass(frozen=True, slots=True)
class Quantiser:
    """A form, and how a real is rounded and bounded to it.

    Parameters
    ----------
    form : Form
    lo, hi : int
        Least and greatest integer.
    rounding : Rounding
    """

    form: Form
    lo: int
    hi: int
    rounding: Rounding = Rounding.HALF_EVEN

    @classmethod
    def whole(cls, form: Form) -> Quantiser:
        """Quantiser to all integers of a form."""
        return cls(form, form.format.lo, form.format.hi)

    @property
    def plain(self) -> bool:
        """Whether it does what QuantizeLinear does, without other bounds or another rounding."""
        return self == Quantiser.whole(self.form)

    def integer(self, real: float) -> int:
        """Quantise a number, perhaps infinite."""
        steps = real / self.form.scale
        if not math.isfinite(steps):
            return self.lo if steps < 0 else self.hi
        match self.rounding:
            case Rounding.FLOOR:
                whole = math.floor(steps)
            case Rounding.HALF_UP:
                whole = math.floor(steps + 0.5)
            case _:
                whole = round(steps)
        return min(max(whole + self.form.zero_point, self.lo), self.hi)


def sample(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one sample: the batch axis in front dropped, and never without an axis."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape or (1,)


def whole(places: Index, size: int) -> bool:
    """Whether places are all those of a tensor of this size, each once."""
    if places.size != size or places.min(initial=0) < 0:
        return False
    seen = np.zeros(size, bool)
    seen[places.ravel()] = True
    return bool(seen.all())


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Shape that these broadcast to, or None."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def image_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Order in which an image of this shape, without its batch, is stored: channels last."""
    return (*range(1, len(shape)), 0)


# What a name stands for. Shapes are ONNX's, the batch axis included, unless called stored. What a value is called in messages is its str().


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant: as the file stores it, or dequantised.

    Parameters
    ----------
    values : array
        As stored.
    kind : int
        Their ONNX element type.
    known : bool
        False: only the shape is known.
    scale : float64, shape () or (n,), or None
        None: not dequantised.
    zero_point : int64, shape of `scale`
    axis : int or None
        Where parameters of shape (n,) run.
    """

    values: NDArray[Any]
    kind: int
    known: bool = True
    scale: Reals | None = None
    zero_point: NDArray[np.int64] | None = None
    axis: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.values.shape

    @property
    def real(self) -> Reals:
        """The values as reals."""
        if not self.known:  # positive and no two alike, so that the structure is that of any weights
            return (1.5 + np.arange(self.values.size) / max(self.values.size, 1)).reshape(self.shape)
        if self.scale is None or self.zero_point is None:
            with np.errstate(invalid="ignore"):  # a signalling NaN is one NaN among others
                return self.values.astype(np.float64)
        return dequantise(self.values, self.scale, self.zero_point, self.axis)

    def reshaped(self, shape: tuple[int, ...]) -> Constant | None:
        """Give the values another shape; None where the axis of the parameters does not survive it."""
        axis = self.axis
        if axis is not None:
            before = math.prod(self.shape[:axis])
            kept = [at for at, extent in enumerate(shape) if extent == self.shape[axis] and math.prod(shape[:at]) == before]
            if not kept:
                return None
            axis = kept[0]
        return replace(self, values=self.values.reshape(shape), axis=axis)

    def __str__(self) -> str:
        return "a constant"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """What lies, or will lie, in a tensor: a shape, and where in the tensor each element is.

    Parameters
    ----------
    shape : tuple of int
    index : integers of that shape, or None
        Place of each element in the tensor as it is stored, flattened; -1 is real 0. None: the tensor's elements in ONNX's order.
    """

    shape: tuple[int, ...]
    index: Index | None = None

    @property
    @abstractmethod
    def stored(self) -> tuple[int, ...]:
        """Shape of one sample of the tensor."""

    @property
    @abstractmethod
    def axes(self) -> tuple[int, ...]:
        """Axes of the ONNX tensor, batch apart, in stored order."""

    @property
    def places(self) -> Index:
        """The index, spelled out."""
        if self.index is not None:
            return self.index
        return movement.places(self.stored).transpose(inverse(self.axes)).reshape(self.shape)

    @property
    def natural(self) -> bool:
        """Whether it is seen as it lies, the order of the axes apart."""
        return self.index is None and sample(self.shape) == tuple(self.stored[axis] for axis in inverse(self.axes))

    @property
    def kept(self) -> tuple[int, ...]:
        """Order that keeps it as it is stored, if it has as many axes as its tensor; else ONNX's."""
        axes = len(sample(self.shape))
        return self.axes if len(self.axes) == axes else tuple(range(axes))

    def moved(self, places: Index) -> Self:
        """See elements at other places."""
        return replace(self, shape=places.shape, index=places)

    def reshaped(self, shape: tuple[int, ...]) -> Self:
        """See the same elements, in ONNX's order, in another shape."""
        return replace(self, shape=shape, index=None if self.index is None else self.index.reshape(shape))

    def as_stored(self, reals: Reals) -> Reals | None:
        """Numbers that broadcast to this shape, as an array that broadcasts to the stored shape: one number, one per channel, or all.

        None where the places are not those of the whole tensor, or the numbers broadcast beyond them.
        """
        if reals.ndim > len(self.shape):
            return None
        if reals.size == 1:
            return reals.reshape(())
        padded = reals.reshape((1,) * (len(self.shape) - reals.ndim) + reals.shape)
        if broadcast(padded.shape, self.shape) != self.shape:
            return None
        if self.natural:
            lies = padded.reshape(padded.shape[len(self.shape) - len(self.stored) :]).transpose(self.axes)
            if lies.size == lies.shape[-1]:
                return np.broadcast_to(lies.ravel(), self.stored[-1:])
        size = math.prod(self.stored)
        if size > LARGEST or not whole(self.places, size):
            return None
        full = np.empty(size)
        full[self.places.ravel()] = np.broadcast_to(padded, self.shape).ravel()
        rows = full.reshape(-1, self.stored[-1])
        return rows[0] if (rows == rows[0]).all() else full


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source(Placed):
    """A graph input whose form is not known yet.

    Parameters
    ----------
    name : str
    kind : int
        ONNX element type.
    given : tuple of int
        Its own shape.
    order : tuple of int
        Its `axes`.
    """

    name: str
    kind: int
    given: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of one sample of the tensor."""
        shape = sample(self.given)
        return tuple(shape[axis] for axis in self.axes)

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of the ONNX tensor, batch apart, in stored order."""
        return self.order

    def __str__(self) -> str:
        return f"graph input {self.name!r} as it comes"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activation(Placed):
    """A tensor of the network.

    Parameters
    ----------
    tensor : Tensor
    real : bool
        Dequantised, else integers.
    """

    tensor: Tensor
    real: bool

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of one sample of the tensor."""
        return self.tensor.shape

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of the ONNX tensor, batch apart, in stored order."""
        return self.tensor.axes

    def __str__(self) -> str:
        return f"the {'dequantised' if self.real else 'integer'} tensor {self.tensor.name!r}"


class Takes(enum.Flag):
    """What an operator can merge besides a positive factor and bounds."""

    NOTHING = 0
    ADDEND = enum.auto()
    """Real constants added, one per channel."""
    CHANNELS = enum.auto()
    """A factor per channel."""
    SIGN = enum.auto()
    """Factors of either sign, or 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft(Placed):
    """An exact result that waits for its form: ``min(max(base * gain + addend, low), high)``.

    Parameters
    ----------
    name, kind : str
        Of the operator to be.
    inputs : tuple of Tensor
    extents, order : tuple of int
        Shape of one sample of the tensor to be, as it is stored, and its `axes`.
    build : callable
        Makes the operator of this draft, its output, and the fields all arithmetic operators share.
    takes : Takes
    gain, addend : float64, shape (channels,) or ()
    low, high : float
        Bounds that Relu and Clip set.
    exact : Form, optional
        A form that holds every result without rounding, as that of its input holds the largest of some elements.
    flat : bool
        Its operand was made flat, each element a channel.
    function : Pointwise, optional
        The whole result as a function of the one input, element by element; None where it is no such function.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    extents: tuple[int, ...]
    order: tuple[int, ...]
    build: Build
    takes: Takes = Takes.NOTHING
    gain: Reals = field(default_factory=lambda: np.ones(()))
    addend: Reals = field(default_factory=lambda: np.zeros(()))
    low: float = -math.inf
    high: float = math.inf
    exact: Form | None = None
    flat: bool = False
    function: Pointwise | None = None

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of one sample of the tensor."""
        return self.extents

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of the ONNX tensor, batch apart, in stored order."""
        return self.order

    @property
    def lies(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Stored shape and axes of a tensor in the shape the result is seen in; None where the result must move to be one.

        The channels stay last. Rows may be split into other axes, as the operators ask only how many there are.
        """
        if self.natural:
            return self.extents, self.order
        found = lying(self) if self.extents[-1] in self.shape else None
        return found if found and found[0][-1] == self.extents[-1] else None

    @property
    def padded(self) -> bool:
        """Whether a movement behind it inserts zeros, which nothing but a movement may follow."""
        return self.index is not None and bool(self.index.min(initial=0) < 0)

    @property
    def bounded(self) -> bool:
        """Whether it has bounds."""
        return self.low > -math.inf or self.high < math.inf

    def __str__(self) -> str:
        return f"the result of node {self.name!r} ({self.kind}), which no QuantizeLinear has rounded"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Float:
    """A result that only the host computes, in float; :mod:`accel.graph.host` makes it of the nodes behind it.

    Parameters
    ----------
    name : str
        ONNX tensor.
    node : Node
        What writes it.
    """

    name: str
    node: Node

    def __str__(self) -> str:
        return f"the result of {self.node}, which the host computes"


def lying(value: Placed) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Find the stored shape and axes that put a value's elements, in the shape it is seen in, where they are; None if none do."""
    seen, size = sample(value.shape), math.prod(value.stored)
    places = value.places.reshape(seen)
    steps = [int(places.take(1, axis).flat[0] - places.flat[0]) if extent > 1 else size for axis, extent in enumerate(seen)]
    for order in (tuple(range(len(seen))), tuple(sorted(range(len(seen)), key=lambda axis: -steps[axis]))):
        if np.array_equal(places.transpose(order).ravel(), movement.places((size,))):
            return tuple(seen[axis] for axis in order), order
    return None


Value = Constant | Source | Activation | Draft | Float


@dataclass(slots=True)
class Builder:
    """Tensors and operators so far, and what the names of the graph stand for.

    Parameters
    ----------
    graph : Graph
    """

    graph: Graph
    writers: dict[str, Node] = field(init=False)
    readers: dict[str, list[Node]] = field(init=False)
    values: dict[str, Value] = field(init=False, default_factory=dict)
    tensors: dict[str, Tensor] = field(init=False, default_factory=dict)
    operators: dict[str, Operator] = field(init=False, default_factory=dict)
    inputs: dict[tuple[str, Form], Port] = field(init=False, default_factory=dict)
    rounded: dict[tuple[Any, Quantiser], Activation] = field(init=False, default_factory=dict)
    moves: dict[Any, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.writers = {name: node for node in self.graph.nodes for name in node.outputs if name}
        self.readers = {}
        for node in self.graph.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def settle(self, value: Activation, order: tuple[int, ...] | None = None) -> Tensor:
        """Bring a value into a tensor of its own shape: moved unless it lies so already.

        Parameters
        ----------
        value : Activation
        order : tuple of int, optional
            Axes in the order in which they are to be stored, the batch axis not among them (see :func:`sample`); ONNX's order without it.

        Returns
        -------
        Tensor
        """
        shape, tensor = sample(value.shape), value.tensor
        order = tuple(range(len(shape))) if order is None else order
        if value.natural and tensor.axes == order:
            return tensor
        index = value.places.reshape(shape).transpose(order)
        if index.shape == tensor.shape and np.array_equal(index, movement.places(tensor.shape)):
            return tensor
        return self.move((tensor,), index, order=order)

    def own(self, value: Activation) -> Tensor:
        """Settle a value for whoever reads a tensor's form with it: a DequantizeLinear may have given its integers another."""
        tensor = self.settle(value, value.kept)
        if Form.of(tensor) == Form.of(self.tensors[tensor.name]):
            return tensor
        return self.move((tensor,), movement.places(tensor.shape), order=tensor.axes)

    def tidy(self, value: Activation) -> Activation:
        """Move a value that is not all of its tensor, each element once, into one of its own; axes stay in the stored order."""
        if value.index is None or whole(value.index, value.tensor.size):
            return value
        return Activation(tensor=self.settle(value, value.kept), shape=value.shape, real=value.real)

    def align(self, values: tuple[Activation, Activation], shape: tuple[int, ...]) -> tuple[Activation, tuple[Tensor, Tensor]]:
        """Bring two values, broadcast to one shape, to the same places.

        Returns
        -------
        Activation
            A value that lies as the result does.
        tuple of Tensor
            Tensors of the values, stored alike.
        """
        lead = 0 if values[0].shape == shape else 1  # the other one moves to where this one lies
        fixed, other = values[lead], values[1 - lead]
        fixed = self.tidy(fixed if fixed.shape == shape else fixed.moved(np.broadcast_to(fixed.places, shape)))
        tensor = other.tensor
        if other.shape != shape or other.stored != fixed.stored or not _alike(fixed, other):
            index = np.empty(movement.limited([fixed.tensor.size]), np.int32)
            index[fixed.places.ravel()] = np.broadcast_to(other.places, shape).ravel()
            tensor = self.move((tensor,), index.reshape(fixed.stored), order=fixed.axes)
        return fixed, (tensor, fixed.tensor) if lead else (fixed.tensor, tensor)

    def move(
        self,
        tensors: tuple[Tensor, ...],
        index: Index,
        *,
        order: tuple[int, ...],
        padding: int | None = None,
        name: str | None = None,
        kind: str = "Move",
    ) -> Tensor:
        """Add a Move; the same again gives the same tensor.

        Parameters
        ----------
        tensors : tuple of Tensor
            Of one form.
        index : integers, stored shape of the result
            See :class:`Move`.
        order : tuple of int
            Stored axes of the result.
        padding : int, optional
            Integer where the index is -1; the zero point without it.
        name, kind : str, optional
            Of the operator.
        """
        padding = tensors[0].zero_point if padding is None else padding
        index = np.ascontiguousarray(index, np.int32)
        form = Form.of(tensors[0])
        key = (tuple(tensor.name for tensor in tensors), form, index.shape, order, padding, hashlib.blake2b(index.data).digest())
        if key not in self.moves:
            label = name or f"{tensors[0].name}/move"
            output = self.moves[key] = self.tensor(label, index.shape, order, form)
            self.operate(Move(name=label, kind=kind, inputs=key[0], output=output.name, index=index, padding=padding))
        return self.moves[key]

    def receive(self, source: Source, form: Form, name: str, real: bool) -> Activation:
        """Integers of a graph input, now that its form is known; the host quantises an input once for each form."""
        key = (source.name, form)
        if key not in self.inputs:
            tensor = self.tensor(name, source.stored, source.axes, form)
            self.inputs[key] = Port(source.name, tensor.name, real)
        tensor = self.tensors[self.inputs[key].tensor]
        return Activation(tensor=tensor, shape=source.shape, index=source.index, real=False)

    def round(self, draft: Draft, quantiser: Quantiser, name: str) -> Activation:
        """Make an operator of a draft; the same form again gives the same integers."""
        key = (draft, quantiser)
        if key not in self.rounded:
            lies = draft.lies
            stored, axes = lies or (draft.extents, draft.order)
            index = None if lies else draft.index
            label = name if index is None else f"{name}/stored"  # its elements are elsewhere than those of ONNX's tensor
            output = self.tensor(label, stored, axes, quantiser.form)
            result = Activation(tensor=output, shape=draft.shape, index=index, real=False)
            common = {
                "name": draft.name,
                "kind": draft.kind,
                "inputs": tuple(tensor.name for tensor in draft.inputs),
                "output": output.name,
                "zero_point": quantiser.form.zero_point,
                "lo": quantiser.integer(draft.low),
                "hi": quantiser.integer(draft.high),
                "rounding": quantiser.rounding,
            }
            self.operate(draft.build(draft, output, common))
            if draft.flat and lies is None and (found := lying(draft)):  # at once, so that nothing behind it is flat
                tensor = self.move((output,), movement.places(found[0]), order=found[1], name=name)
                result = Activation(tensor=tensor, shape=draft.shape, real=False)
            self.rounded[key] = result
        return self.rounded[key]

    def exact(self, name: str) -> Value | None:
        """Find what a name stands for: a draft that loses nothing by being rounded is a tensor."""
        value = self.values.get(name)
        if isinstance(value, Draft) and value.exact is not None:
            return replace(self.round(value, Quantiser.whole(value.exact), f"{name}/exact"), real=True)
        return value

    def tensor(self, name: str, shape: tuple[int, ...], order: tuple[int, ...], form: Form) -> Tensor:
        """Add a tensor of this stored shape, its axes in this order of ONNX's, under a name of its own."""
        name = _fresh(name, self.tensors)
        usual = order == channels_last(len(shape))
        self.tensors[name] = Tensor(name=name, shape=shape, order=None if usual else order, **asdict(form))
        return self.tensors[name]

    def operate(self, operator: Operator) -> None:
        """Add an operator, under a name of its own."""
        name = _fresh(operator.name, self.operators)
        self.operators[name] = replace(operator, name=name)


def _alike(first: Placed, second: Placed) -> bool:
    """Whether two values of one shape have the same places."""
    if first.index is None and second.index is None and first.axes == second.axes:
        return True
    return bool(np.array_equal(first.places, second.places))


def _fresh(name: str, taken: Container[str]) -> str:
    """Return the name, with a number if it is taken."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}#{number}"
    return candidate
