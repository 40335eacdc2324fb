"""A network under construction: what a name of the source file stands for, and how it becomes tensors and operators.

What stands between two quantised tensors is exact until it is rounded once. So an operator yields a :class:`Draft`, an exact result without
a format; Relu, Clip and constant addends change the draft; rounding it to a :class:`Form` makes the operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import NetworkError
from accel.formats import FixedFormat
from accel.graph.network import Operator, Port, Sum, Tensor, View, channels_first, channels_last
from accel.quant import dequantise, quantise

LIMIT = 1 << 31  # our choice [elements]: of one sample of a tensor, so that no shape alone can exhaust the memory


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

    def integer(self, real: float) -> int:
        """Quantise a real number."""
        return int(quantise(np.array(real), self.scale, self.zero_point, FixedFormat(self.bits)))


# Shapes are ONNX's (channels first), without the batch axis, unless called stored. What a value is called in messages is its str().


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant: as the file stores it, or dequantised.

    Parameters
    ----------
    values : array
        As stored.
    kind : int
        Their ONNX element type.
    scale : float64, shape () or (n,), or None
        None: not dequantised.
    zero_point : int64, shape of `scale`
    axis : int or None
        Where parameters of shape (n,) run.
    """

    values: NDArray[Any]
    kind: int
    scale: NDArray[np.float64] | None = None
    zero_point: NDArray[np.int64] | None = None
    axis: int | None = None

    @property
    def real(self) -> NDArray[np.float64]:
        """The values as reals."""
        if self.scale is None or self.zero_point is None:
            with np.errstate(invalid="ignore"):  # a signalling NaN is one NaN among others
                return self.values.astype(np.float64)
        return dequantise(self.values, self.scale, self.zero_point, self.axis)

    def __str__(self) -> str:
        return "a constant"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A graph input whose form is not known yet."""

    name: str
    kind: int
    given: tuple[int, ...]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"graph input {self.name!r} as it comes"


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """A tensor of the network; in a shape that is not its own after a Flatten or Reshape that has moved nothing yet.

    Parameters
    ----------
    tensor : Tensor
    shape : tuple of int
    real : bool
        Dequantised, else integers.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    real: bool

    def __str__(self) -> str:
        return f"the {'dequantised' if self.real else 'integer'} tensor {self.tensor.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """An exact result that waits for its form.

    Parameters
    ----------
    name, kind : str
        Of the operator to be.
    inputs : tuple of Tensor
    stored, shape : tuple of int
        One sample as the network stores it, and as ONNX sees it.
    build : callable
        Makes the operator of this draft, its output, and the fields all arithmetic operators share.
    addend : float64, shape (channels,) or (), or None
        Real constant added to each channel; None where the operator has no place for one.
    low, high : float
        Bounds that Relu and Clip set.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    stored: tuple[int, ...]
    shape: tuple[int, ...]
    build: Callable[[Draft, Tensor, dict[str, Any]], Operator]
    addend: NDArray[np.float64] | None = None
    low: float = -math.inf
    high: float = math.inf

    def clipped(self, low: float, high: float) -> Draft:
        """Bound the result: ``min(max(x, low), high)``."""
        return replace(self, low=min(max(self.low, low), high), high=min(max(self.high, low), high))

    def __str__(self) -> str:
        return f"the result of node {self.name!r} ({self.kind}), which no QuantizeLinear has rounded"


Value = Constant | Source | Activation | Draft


@dataclass(slots=True)
class Builder:
    """Tensors and operators so far.

    Parameters
    ----------
    batch : int or None
        Batch size that the file fixes.
    """

    batch: int | None = None
    tensors: dict[str, Tensor] = field(init=False, default_factory=dict)
    operators: dict[str, Operator] = field(init=False, default_factory=dict)
    inputs: dict[str, Port] = field(init=False, default_factory=dict)
    rounded: dict[tuple[Draft, Form], Tensor] = field(init=False, default_factory=dict)

    def settle(self, value: Activation) -> Tensor:
        """Tensor in the shape it is seen in: moved by a View unless it lies so already."""
        tensor = value.tensor
        if value.shape == tensor.onnx_shape:
            return tensor
        after = channels_last(len(value.shape))
        moved = self._tensor(f"{tensor.name}/view", tuple(value.shape[axis] for axis in after), Form.of(tensor))
        before = channels_first(len(tensor.shape))
        self._operator(
            View(name=moved.name, kind="Reshape", inputs=(tensor.name,), output=moved.name, before=before, shape=value.shape, after=after)
        )
        return moved

    def receive(self, source: Source, form: Form, name: str, real: bool) -> Tensor:
        """Tensor behind a graph input, now that its form is known."""
        if source.name not in self.inputs:
            tensor = self._tensor(name, tuple(source.given[axis] for axis in channels_last(len(source.given))), form)
            self.inputs[source.name] = Port(source.name, tensor.name, real)
        tensor = self.tensors[self.inputs[source.name].tensor]
        if Form.of(tensor) != form:
            raise NetworkError(f"graph input {source.name!r} must have one scale and zero point, not those of {tensor.name!r} and {name!r}")
        return tensor

    def round(self, draft: Draft, form: Form, name: str) -> Tensor:
        """Make an operator of a draft; the same form again gives the same tensor."""
        key = (draft, form)
        if key not in self.rounded:
            output = self.rounded[key] = self._tensor(name, draft.stored, form)
            bounds = {"zero_point": form.zero_point, "lo": form.integer(draft.low), "hi": form.integer(draft.high)}
            labels = {
                "name": draft.name,
                "kind": draft.kind,
                "inputs": tuple(tensor.name for tensor in draft.inputs),
                "output": output.name,
            }
            self._operator(draft.build(draft, output, {**labels, **bounds}))
        return self.rounded[key]

    def sum(self, name: str, kind: str, tensors: tuple[Tensor, ...], shape: tuple[int, ...]) -> Draft:
        """Draft of the sum of tensors of one shape."""

        def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
            assert draft.addend is not None
            return Sum(
                zero_points=tuple(tensor.zero_point for tensor in tensors),
                multipliers=tuple(tensor.scale / output.scale for tensor in tensors),
                offset=draft.addend / output.scale if draft.addend.any() else None,
                **common,
            )

        stored = tensors[0].shape
        return Draft(name=name, kind=kind, inputs=tensors, stored=stored, shape=shape, build=build, addend=np.zeros(()))

    def _tensor(self, name: str, shape: tuple[int, ...], form: Form) -> Tensor:
        if math.prod(shape) >= LIMIT:
            raise NetworkError(f"size of {name!r} must be below {LIMIT} elements for each sample, not {math.prod(shape)}")
        name = _fresh(name, self.tensors)
        self.tensors[name] = Tensor(name=name, shape=shape, **asdict(form))
        return self.tensors[name]

    def _operator(self, operator: Operator) -> None:
        name = _fresh(operator.name, self.operators)
        self.operators[name] = replace(operator, name=name)


def _fresh(name: str, taken: Container[str]) -> str:
    """Return the name, with a number if it is taken."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}#{number}"
    return candidate
