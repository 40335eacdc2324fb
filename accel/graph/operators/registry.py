"""How an operator is imported: what its function is given, and the table that finds it by its ONNX name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from accel.errors import NetworkError
from accel.formats import FixedFormat
from accel.graph.builder import (
    Activation,
    Build,
    Builder,
    Constant,
    Draft,
    Float,
    Form,
    Quantiser,
    Reals,
    Source,
    Takes,
    Value,
    sample,
)
from accel.graph.graph import FLOATS, INTEGERS, Node
from accel.graph.network import Tensor

STORED = {(bits, not signed): kind for kind, (bits, signed) in INTEGERS.items()}  # element type of a tensor, by its width and unsignedness
KINDS: dict[type, str] = {int: "an integer", float: "a number", str: "a text", list: "a list"}  # of attributes


class OnHost(Exception):
    """The node is right, but has no form in integers."""


def type_name(kind: int) -> str:
    """Name of an ONNX element type."""
    return TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else str(kind)


@dataclass(frozen=True, eq=False)
class Attributed:
    """A node, and what its attributes say. Its str() is what messages call it."""

    node: Node

    def __str__(self) -> str:
        return str(self.node)

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.node.name

    @property
    def kind(self) -> str:
        """Its operator."""
        return self.node.kind

    # Attributes.

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute, or the default, whose type it must have."""
        value = self.node.attributes.get(name, default)
        for kind, what in KINDS.items():
            if isinstance(default, kind) and not isinstance(value, kind):
                raise NetworkError(f"{name} of {self} must be {what}, not {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        """Value of an attribute that is a finite number."""
        value = self.attribute(name, default)
        if not math.isfinite(value):
            raise NetworkError(f"{name} of {self} must be finite, not {value}")
        return float(value)

    def integers(self, name: str, default: tuple[int, ...], least: int) -> tuple[int, ...]:
        """Value of an attribute of as many integers as the default, none below `least`."""
        values = self.attribute(name, list(default))
        if len(values) != len(default) or any(type(value) is not int or value < least for value in values):
            raise NetworkError(f"{name} of {self} must be {len(default)} integers of at least {least}, not {values}")
        return tuple(values)

    def choice(self, name: str, default: str, *others: str) -> str:
        """Value of an attribute that is one of some texts."""
        value = self.attribute(name, default)
        if value not in (default, *others):
            raise NetworkError(f"{name} of {self} must be {', '.join((default, *others[:-1]))} or {others[-1]}, not {value}")
        return str(value)


@dataclass(frozen=True, eq=False)  # no slots: inputs are looked up once
class Site(Attributed):
    """A node where it stands: what its inputs stand for, and the network it adds to."""

    builder: Builder

    @property
    def output(self) -> str:
        """Name of its first output."""
        return self.node.outputs[0]

    @cached_property
    def inputs(self) -> tuple[Value | None, ...]:
        """What its inputs stand for; None where one is left out."""
        return tuple(self.builder.values[name] if name else None for name in self.node.inputs)

    # Shapes.

    def shape(self, output: int = 0) -> tuple[int, ...]:
        """Shape of an output, as the graph knows it."""
        shape = self.builder.graph.shapes.get(self.node.outputs[output])
        if shape is None:
            raise NetworkError(f"shape of output {output} of {self} must be fixed, not open")
        return tuple(shape)

    # Inputs.

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

    def movable(self, index: int) -> Source | Activation | Draft:
        """Input whose elements may be seen elsewhere."""
        value = self.value(index)
        if isinstance(value, Constant | Float):
            raise OnHost
        return value

    def activation(self, index: int) -> Activation:
        """Input that is a dequantised tensor of the network, or can become one without rounding."""
        value = self.builder.exact(self.node.inputs[index]) if index < len(self.node.inputs) else None
        if not isinstance(value, Activation) or not value.real:
            raise OnHost
        return value

    def integer(self, index: int) -> Activation | None:
        """Input that is integers of the network, a graph input as it comes among them; None otherwise."""
        match self.value(index):
            case Source(kind=kind) as source if kind in INTEGERS:
                bits, signed = INTEGERS[kind]
                zero = 0 if signed else -1 << (bits - 1)
                return self.builder.receive(source, Form(bits, not signed, 1.0, zero), source.name, real=False)
            case Activation(real=False) as value:
                return value
        return None

    def constant(self, index: int) -> Constant | None:
        """Constant input, or None where it is left out."""
        value = self.given(index)
        if value is not None and not isinstance(value, Constant):
            raise OnHost
        return value

    def reals(self, index: int) -> Reals:
        """Constant input of finite numbers, whatever their shape."""
        constant = self.constant(index)
        if constant is None:
            raise self.refuse(index, "given")
        real = constant.real
        if not np.isfinite(real).all():
            raise NetworkError(f"input {index} of {self} must be finite, not {real[~np.isfinite(real)][0]}")
        return real

    def scalar(self, index: int, default: float) -> float:
        """Constant input of one finite or infinite element, or the default."""
        constant = self.constant(index)
        if constant is None:
            return default
        if constant.values.size != 1 or np.isnan(constant.real).any():
            raise NetworkError(f"input {index} of {self} must be one number, not {constant.real.tolist()}")
        return float(constant.real.item())

    def whole(self, index: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Constant input of integers, or the default."""
        constant = self.constant(index)
        if constant is None and default is not None:
            return default
        if constant is None or constant.values.dtype.kind not in "iu" or constant.values.ndim > 1:
            raise self.refuse(index, "a constant list of integers")
        return tuple(int(value) for value in constant.values.ravel())

    def form(self, kind: int) -> Form:
        """Form of an activation of this element type, from the quantiser's scale and zero point, inputs 1 and 2."""
        limits = self.limits(kind)
        scale, zero, _ = self.parameters((), kind)
        return Form(limits.bits, not limits.signed, float(scale), int(zero) - (0 if limits.signed else 1 << (limits.bits - 1)))

    def limits(self, kind: int) -> FixedFormat:
        """Format of a type that an activation may have."""
        if kind not in INTEGERS:
            raise NetworkError(f"type of {self} must be one of {', '.join(map(type_name, INTEGERS))}, not {type_name(kind)}")
        bits, signed = INTEGERS[kind]
        return FixedFormat(bits, signed=signed)

    def parameters(self, shape: tuple[int, ...], kind: int) -> tuple[Reals, NDArray[np.int64], int | None]:
        """Scale, zero point and axis of a quantiser whose input is of this shape."""
        given, zero = self.constant(1), self.constant(2)
        if given is None or given.kind not in FLOATS:
            raise NetworkError(f"scale of {self} must be float32, not {type_name(given.kind) if given else 'left out'}")
        scale = given.real
        if not scale.size or not np.isfinite(scale).all() or scale.min() <= 0:
            raise NetworkError(f"scale of {self} must be positive and finite, not {scale.tolist()}")
        zeros = np.zeros(scale.shape, dtype=np.int64) if zero is None else zero.values.astype(np.int64)
        if zero is not None and (zero.kind != kind or (zeros.shape != scale.shape and not zeros.size == scale.size == 1)):
            rule = f"{type_name(kind)} of shape {scale.shape}"
            raise NetworkError(f"zero point of {self} must be {rule}, not {type_name(zero.kind)} of shape {zeros.shape}")
        if scale.size == 1:
            return scale.reshape(()), zeros.reshape(()), None
        axis = self.attribute("axis", 1)
        if not -len(shape) <= axis < len(shape) or scale.shape != (shape[axis],):
            rule = f"one number or one for each element of axis {axis} of {shape}" if shape else "one number for an activation"
            raise NetworkError(f"scale of {self} must be {rule}, not of shape {scale.shape}")
        return scale, zeros, axis % len(shape)

    # Results.

    def draft(
        self,
        inputs: tuple[Tensor, ...],
        shape: tuple[int, ...],
        build: Build,
        *,
        stored: tuple[int, ...] | None = None,
        order: tuple[int, ...] | None = None,
        takes: Takes = Takes.NOTHING,
        **more: Any,
    ) -> Draft:
        """Draft of this node's result: of this shape, stored in this order of its axes, or in a shape of its own in ONNX's order."""
        if stored is None:
            extents = sample(shape)
            order = tuple(range(len(extents))) if order is None else order
            stored = tuple(extents[axis] for axis in order)
        order = tuple(range(len(stored))) if order is None else order
        return Draft(
            name=self.name, kind=self.kind, inputs=inputs, extents=stored, order=order, shape=shape, build=build, takes=takes, **more
        )

    def rounded(self, draft: Draft, quantiser: Quantiser) -> Activation:
        """Integers of this node's output, made of a draft."""
        return self.builder.round(draft, quantiser, self.output)


# The registry.

Import = Callable[[Site], Value | tuple[Value, ...]]
OPERATORS: dict[str, Import] = {}


def imports(*kinds: str) -> Callable[[Import], Import]:
    """Register the function that imports operators of these ONNX names."""

    def register(function: Import) -> Import:
        OPERATORS.update(dict.fromkeys(kinds, function))
        return function

    return register
