"""What the passes that rewrite a graph share: new nodes and constants under names that are free, and the parameters of quantisers.

In a canonical graph QuantizeLinear may have three attributes that ONNX does not know: `lo` and `hi`, bounds of its integers, and
`rounding`: ``"half_even"`` as in ONNX, ``"floor"`` or ``"half_up"``.
:func:`accel.graph.evaluate.plain` spells them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from accel.errors import NetworkError
from accel.formats import FixedFormat
from accel.graph.graph import INTEGERS, Array, Graph, Node

KINDS = {kind: FixedFormat(bits, signed=signed) for kind, (bits, signed) in INTEGERS.items()}
"""Integers an activation may hold, by ONNX element type."""


def kind_name(kind: int) -> str:
    """Name of an ONNX element type."""
    return TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else str(kind)


def numpy_type(kind: int) -> np.dtype[Any]:
    """Type of numpy that holds an ONNX element type as :class:`~accel.graph.graph.Array` does."""
    return Array.unknown((), kind).values.dtype


ATTRIBUTES: dict[str, tuple[type, ...]] = {
    "activation": (str,),
    "activation_alpha": (float, int),
    "activation_beta": (float, int),
    "activation_gamma": (float, int),
    "activation_params": (list, tuple),
    "alpha": (float, int),
    "axes": (list, tuple),
    "axis": (int,),
    "block_size": (int,),
    "channels_last": (int,),
    "epsilon": (float, int),
    "kernel_shape": (list, tuple),
    "mode": (str,),
    "narrow": (int,),
    "opset": (int,),
    "output_dtype": (int,),
    "rounding_mode": (str,),
    "signed": (int,),
    "to": (int,),
    "transA": (int,),
    "transB": (int,),
    "transBatchA": (int,),
    "transBatchB": (int,),
}
"""Types of the attributes that the passes read."""


def check(node: Node, inputs: int, outputs: int = 1) -> None:
    """Refuse a node of fewer inputs or outputs, or with an attribute of a type that is not its own: nobody has checked other domains yet.

    Parameters
    ----------
    node : Node
    inputs, outputs : int
        The fewest that it has.

    Raises
    ------
    NetworkError
        If the node breaks the rule.
    """
    for what, names, least in (("inputs", node.inputs, inputs), ("outputs", node.outputs, outputs)):
        if len(names) < least:
            raise NetworkError(f"{what} of {node} must be {least} or more, not {len(names)}")
        if not names[0]:
            raise NetworkError(f"{what.removesuffix('s')} 0 of {node} must be given, not left out")
    for name, value in node.attributes.items():
        types = ATTRIBUTES.get(name, (object,))
        numbers = not isinstance(value, (list, tuple)) or all(isinstance(each, (int, float)) for each in value)
        if not isinstance(value, types) or (types == (list, tuple) and not numbers):
            rule = {str: "a text", int: "an integer", float: "a number", list: "numbers"}[types[0]]
            raise NetworkError(f"{name} of {node} must be {rule}, not {value!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """How integers stand for reals: ``scale * (integer - zero)``.

    Parameters
    ----------
    scale : float32, shape () or (n,)
        Positive and finite.
    zero : int64, shape of `scale`
    kind : int
        ONNX element type of the integers.
    axis : int or None
        Where parameters of shape (n,) run; below 0 it counts from the last axis.
    """

    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    kind: int
    axis: int | None = None

    @property
    def attributes(self) -> dict[str, int]:
        """Attributes of the QuantizeLinear or DequantizeLinear."""
        return {} if self.axis is None else {"axis": self.axis}


def grid(node: Node, scale: NDArray[Any], zero: NDArray[Any] | None, kind: int, axis: int | None = None) -> Grid:
    """Make a grid of a node's parameters.

    Parameters
    ----------
    node : Node
        For messages.
    scale : float, one element or any that vary along one axis only
    zero : int, broadcasts with `scale`; or None
        None is 0.
    kind : int
        ONNX element type of the integers.
    axis : int, optional
        Of parameters with one axis; those with more say it by their shape.

    Raises
    ------
    NetworkError
        If a scale is not positive or a shape fits no axis.
    """
    zero = np.zeros((), np.int64) if zero is None else zero
    wrong = zero[(zero != np.rint(zero)) | (np.abs(zero.astype(np.float64)) >= 2.0**31)]
    if not zero.size or wrong.size:
        raise NetworkError(f"zero point of {node} must be an integer of 32 bits, not {wrong.flat[0] if wrong.size else 'left out'}")
    with np.errstate(over="ignore", under="ignore"):
        scale = scale.astype(np.float32)
    unfit = scale[~((scale > 0) & np.isfinite(scale))]
    if not scale.size or unfit.size:
        raise NetworkError(f"scale of {node} must be positive and finite, not {unfit.flat[0] if unfit.size else 'left out'}")
    if scale.size == 1 or (scale == scale.flat[0]).all():
        scale = scale.reshape(-1)[:1].reshape(())
    if zero.size == 1 or (zero == zero.flat[0]).all():
        zero = zero.reshape(-1)[:1].reshape(())
    try:
        scales, zeros = np.broadcast_arrays(scale, zero)
    except ValueError:
        raise NetworkError(f"zero point of {node} must be of shape {scale.shape}, that of its scale, not {zero.shape}") from None
    long = [at for at, extent in enumerate(scales.shape) if extent != 1]
    if len(long) > 1:
        raise NetworkError(f"scale of {node} must vary along one axis, not be of shape {scales.shape}")
    if not long:
        axis = None
    elif scales.ndim > 1 or axis is None:
        axis = long[0] - scales.ndim
    size = scales.shape[long[0]] if long else 1
    form = (size,) if long else ()
    return Grid(scales.reshape(form), zeros.reshape(form).astype(np.int64), kind, axis)


@dataclass(slots=True)
class Editor:
    """A graph while a pass rewrites it, node by node.

    Parameters
    ----------
    graph : Graph
        As it comes.
    opset : int
        The least that the new nodes need.
    """

    graph: Graph
    opset: int = 0
    nodes: list[Node] = field(init=False, default_factory=list)
    constants: dict[str, Array] = field(init=False)
    shapes: dict[str, tuple[int, ...]] = field(init=False)
    kinds: dict[str, int] = field(init=False)
    aliases: dict[str, str] = field(init=False, default_factory=dict)
    taken: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.constants, self.shapes, self.kinds = dict(self.graph.constants), dict(self.graph.shapes), dict(self.graph.kinds)
        self.taken = set(self.graph.inputs) | set(self.constants) | {name for node in self.graph.nodes for name in node.outputs}

    def fresh(self, name: str) -> str:
        """Reserve a name that no tensor has: this one, or with a number behind it."""
        candidate, number = name, 1
        while candidate in self.taken:
            number += 1
            candidate = f"{name}#{number}"
        self.taken.add(candidate)
        return candidate

    def constant(self, name: str, array: Array) -> str:
        """Add a constant and return what it is called."""
        name = self.fresh(name)
        self.constants[name], self.shapes[name], self.kinds[name] = array, array.values.shape, array.kind
        return name

    def keep(self, node: Node) -> None:
        """Take a node over as it is."""
        self.nodes.append(replace(node, inputs=self.names(node)))

    def names(self, node: Node) -> tuple[str, ...]:
        """Return the inputs of a node as they are called now."""
        return tuple(self.aliases.get(name, name) for name in node.inputs)

    def emit(
        self,
        kind: str,
        inputs: Iterable[str],
        output: str,
        *,
        attributes: Mapping[str, Any] | None = None,
        name: str | None = None,
        shape: tuple[int, ...] | None = None,
        element: int = TensorProto.FLOAT,
    ) -> str:
        """Add an ONNX node of one output and return what that is called.

        Parameters
        ----------
        kind : str
            ONNX operator.
        inputs : iterable of str
        output : str
            Its name, taken as it is: a name of the graph, or one from :meth:`fresh`.
        attributes : mapping, optional
        name : str, optional
            Of the node; else that of its output.
        shape : tuple of int, optional
            Of the output, if known.
        element : int
            ONNX element type of the output.
        """
        self.nodes.append(Node(name or output, kind, tuple(inputs), (output,), dict(attributes or {})))
        self.kinds[output] = element
        if shape is not None:
            self.shapes[output] = shape
        return output

    def alias(self, output: str, name: str) -> None:
        """Let a tensor be another one."""
        if output in self.graph.outputs:
            self.emit("Identity", [name], output, shape=self.shapes.get(name))
        else:
            self.aliases[output] = name

    def given(self, node: Node, index: int) -> str | None:
        """Name of an input, or None where it is left out."""
        names = self.names(node)
        return names[index] or None if index < len(names) else None

    def array(self, node: Node, index: int, what: str) -> Array | None:
        """Constant input, or None where it is left out.

        Raises
        ------
        NetworkError
            If it is not a constant.
        """
        name = self.given(node, index)
        if name is None:
            return None
        if name not in self.constants:
            raise NetworkError(f"{what} of {node} must be a constant, not the tensor {name!r}")
        return self.constants[name]

    def kind(self, name: str) -> int | None:
        """ONNX element type of a tensor, if known."""
        constant, port = self.constants.get(name), self.graph.inputs.get(name)
        return constant.kind if constant else port.kind if port else self.kinds.get(name)

    def grid(self, node: Node, scale: int, zero: int, kind: int | None = None, axis: int | None = None) -> Grid:
        """Make a grid of two inputs of a node; without a zero point `kind` says what the integers are (uint8 if nothing does)."""
        scales, zeros = self.array(node, scale, "scale"), self.array(node, zero, "zero point")
        if scales is None:
            raise NetworkError(f"scale of {node} must be given, not left out")
        of = zeros.kind if zeros else kind or TensorProto.UINT8
        return grid(node, scales.values, None if zeros is None else zeros.values, of, axis)

    def quantise(self, x: str, grid: Grid, output: str, *, name: str | None = None, attributes: Mapping[str, Any] | None = None) -> str:
        """Add a QuantizeLinear that writes `output`."""
        self._needs(grid.kind)
        inputs = [x, *self._parameters(output, grid)]
        attributes = {**grid.attributes, **(attributes or {})}
        return self.emit("QuantizeLinear", inputs, output, attributes=attributes, name=name, shape=self.shapes.get(x), element=grid.kind)

    def dequantise(self, x: str, grid: Grid, output: str, *, name: str | None = None) -> str:
        """Add a DequantizeLinear that writes `output`."""
        self._needs(grid.kind)
        inputs = [x, *self._parameters(output, grid)]
        return self.emit("DequantizeLinear", inputs, output, attributes=grid.attributes, name=name, shape=self.shapes.get(x))

    def _parameters(self, output: str, grid: Grid) -> tuple[str, str]:
        zero = Array(grid.zero.astype(numpy_type(grid.kind)), grid.kind)
        return self.constant(f"{output}/scale", Array.of(grid.scale)), self.constant(f"{output}/zero_point", zero)

    def _needs(self, kind: int) -> None:
        if kind not in (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32):
            self.opset = max(self.opset, 21)  # 4 and 16 bits

    def finish(self) -> Graph:
        """Make the graph of what was kept and emitted, without nodes and constants that nothing reads."""
        needed, nodes = set(self.graph.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                nodes.append(node)
        constants = {name: array for name, array in self.constants.items() if name in needed}
        live = needed | set(self.graph.inputs) | {name for node in nodes for name in node.outputs}
        return replace(
            self.graph,
            opset=max(self.graph.opset, self.opset),
            nodes=tuple(reversed(nodes)),
            constants=constants,
            shapes={name: shape for name, shape in self.shapes.items() if name in live},
            kinds={name: kind for name, kind in self.kinds.items() if name in live},
        )
