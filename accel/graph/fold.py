"""What a graph leaves open is filled in, and what depends on constants alone is computed: :func:`bind`, then :func:`fold`.

After both, every tensor has its shape and element type, sizes are no longer computed in the graph, and each operator has one form, that of
opset 21, whatever opset the file has.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, TensorProto, TypeProto
from onnx.reference.ops import load_op

from accel.errors import NetworkError
from accel.graph import qoperator
from accel.graph.graph import FOUR_BIT, OPEN, Array, Given, Graph, Node
from accel.graph.read import AXES

OPSET = 21  # the first that has all integer types of the quantisers, and axes, splits and bounds as inputs throughout
LIMIT = 1 << 31  # our choice [elements]: of a tensor, so that no shape alone can exhaust the memory
FOLDED = 1 << 28  # our choice [bytes]: of a constant that is computed
FOLDED_IN_ALL = 1 << 29  # our choice [bytes]: of all of them
LOOPED = 1 << 16  # our choice [elements]: where the reference runs element by element
MULTIPLIED = 1 << 28  # our choice: products in a matrix product of constants
GIVEN = 1 << 12  # our choice [elements]: of constants that shapes may depend on
MICROSOFT = "com.microsoft"
QONNX = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")
DOMAINS = ("", MICROSOFT, *QONNX)
BOOL = TensorProto.BOOL
HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _words(text: str) -> set[str]:
    return set(text.split())


# Operators by what becomes of them.
MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}  # of constants: a view of the same numbers, at no cost
CHOICES = {"Slice", "Split", "Gather", "Concat", "Expand", "Tile", "Pad", "Cast", "CastLike", "QuantizeLinear"}
LOOPS = {"GatherElements", "GatherND", "ScatterElements", "ScatterND", "NonZero", "Compress", "OneHot"}
COMPUTED = (
    CHOICES
    | LOOPS
    | _words(
        "Abs Add And ArgMax ArgMin Ceil Clip ConstantOfShape Cos CumSum Div Equal Erf Exp EyeLike Floor Greater GreaterOrEqual IsInf IsNaN "
        "Less LessOrEqual Log LogSoftmax MatMul Max Mean Min Mod Mul Neg Not Or Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum "
        "ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Round Sigmoid Sign Sin Size Softmax Sqrt "
        "Sub Sum Tan Tanh TopK Trilu Where Xor"
    )
)
REFUSED = _words(
    "If Loop Scan SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence "
    "ConcatFromSequence Optional OptionalGetElement OptionalHasElement StringConcat StringNormalizer StringSplit RegexFullMatch "
    "TfIdfVectorizer Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike ImageDecoder"
)
REDUCTIONS = {f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")}
Found = tuple[tuple[int, ...] | None, int]  # shape and element type
SAME = ("Identity", (0,))
# Shapes of operators that ONNX does not define are those of ones it does: that operator, which inputs it would read, and the input (a zero
# point) that has the type of the result, if it is not that of the first.
STAND_INS: dict[str, tuple[str, slice | tuple[int, ...], int | None]] = {
    **dict.fromkeys(("Quant", "IntQuant", "BipolarQuant", "Trunc"), (*SAME, None)),
    **dict.fromkeys(("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "SkipLayerNormalization"), (*SAME, None)),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), (*SAME, 4)),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), ("Add", (0, 3), 7)),
    **dict.fromkeys(("FusedConv", "NhwcFusedConv"), ("Conv", (0, 1), None)),
    "QLinearConv": ("Conv", (0, 3), 7),
    "QLinearMatMul": ("MatMul", (0, 3), 7),
    "QLinearConcat": ("Concat", slice(2, None, 3), 1),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), 4),
    "QLinearAveragePool": ("AveragePool", (0,), 4),
    "QLinearReduceMean": ("ReduceMean", (0,), 4),
    "QLinearWhere": ("Where", (0, 1, 4), 8),
    "QGemm": ("Gemm", (0, 3), 8),
    "NhwcMaxPool": ("MaxPool", (0,), None),
    "FusedGemm": ("Gemm", (0, 1), None),
    "FusedMatMul": ("MatMul", (0, 1), None),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1), None),
    "MatMulIntegerToFloat": ("MatMul", (0, 1), None),
}
UNINFERRED = {"GroupNormalization", "MeanVarianceNormalization"}  # by ONNX; their results have the shape of what they read
FLOATS = {"QGemm", "MatMulIntegerToFloat"}  # write these, unless a zero point says otherwise


# Binding.


def bind(
    graph: Graph,
    constants: Mapping[str, ArrayLike] | None = None,
    whole: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Graph:
    """Fix what the graph's inputs leave open.

    Parameters
    ----------
    graph : Graph
    constants : mapping of str to array_like, optional
        Values of graph inputs that become constants.
    whole : bool
        Take the shapes of inputs as they are. Else axis 0 of every input counts samples, and the graph becomes that of one.
    shapes : mapping of str to sequence of int, optional
        Sizes of graph inputs, the batch included, where the file leaves them open.

    Returns
    -------
    Graph
        Its inputs have sizes throughout; `batch` is what the file fixed on axis 0, or 1.

    Raises
    ------
    NetworkError
        If a name is no graph input, a value or size does not fit it, or a size stays open. The message names input and axis.
    """
    given = {name: _bound(name, graph, value) for name, value in (constants or {}).items()}
    sizes = {name: _sizes(name, graph, shape) for name, shape in (shapes or {}).items()}
    known: dict[str, int] = {}  # sizes by the names that the file gives them
    for name, shape in [*((name, array.values.shape) for name, array in given.items()), *sizes.items()]:
        extents = graph.inputs[name].shape
        for axis, (size, extent) in enumerate(zip(shape, shape if extents == OPEN else extents, strict=True)):
            if extent != "?" and isinstance(extent, str) and known.setdefault(extent, size) != size:
                raise NetworkError(f"axis {axis} of graph input {name!r} must be {extent} = {known[extent]}, not {size}")
    inputs, batch = {}, 1
    for name, port in graph.inputs.items():
        if name in given:
            continue
        if port.shape == OPEN and name not in sizes:
            raise NetworkError(f"shape of graph input {name!r} must be given as one of `shapes`, since the file leaves it out")
        extents = tuple(known.get(extent, extent) if isinstance(extent, str) else extent for extent in sizes.get(name, port.shape))
        if extents and not whole:
            extents, batch = _one(name, extents, batch)
        for axis, extent in enumerate(extents):
            if isinstance(extent, str) or extent < 1:
                raise NetworkError(f"axis {axis} of graph input {name!r} must be a fixed size, in the file or in `shapes`, not {extent!r}")
        _check_size(name, extents)
        inputs[name] = Given(port.kind, extents)
    if batch > 1:
        for name, port in graph.inputs.items():
            if name in inputs and port.shape[:1] == (1,):
                raise NetworkError(f"axis 0 of graph input {name!r} must be {batch}, the batch of the other inputs, not 1")
    return replace(graph, constants={**graph.constants, **given}, inputs=inputs, batch=batch)


def _one(name: str, extents: tuple[int | str, ...], batch: int) -> tuple[tuple[int | str, ...], int]:
    """Shape of one sample, and the batch so far."""
    first = extents[0] if isinstance(extents[0], int) else 1
    if first > 1 and batch > 1 and first != batch:
        raise NetworkError(f"axis 0 of graph input {name!r} must be {batch}, the batch of the other inputs, not {first}")
    return (1, *extents[1:]), max(first, batch)


def _port(name: str, graph: Graph, what: str) -> Given:
    if name not in graph.inputs:
        raise NetworkError(f"{what} must be of graph inputs ({', '.join(graph.inputs)}), not of {name!r}")
    return graph.inputs[name]


def _sizes(name: str, graph: Graph, shape: Sequence[int]) -> tuple[int, ...]:
    """Sizes that fit a graph input."""
    port = _port(name, graph, "shapes")
    if not isinstance(shape, Sequence):
        raise NetworkError(f"shape of graph input {name!r} must be a sequence of sizes, not {shape!r}")
    if not all(type(size) is int and size > 0 for size in shape) or not _fits(shape, port.shape):
        raise NetworkError(f"shape of graph input {name!r} must fit {_shown(port.shape)}, not be {_shown(shape)}")
    return tuple(shape)


def _fits(shape: Sequence[int], extents: Sequence[int | str]) -> bool:
    """Whether sizes are those that the file fixes."""
    if extents == OPEN:
        return len(shape) <= AXES
    return len(shape) == len(extents) and all(
        isinstance(extent, str) or extent == size for size, extent in zip(shape, extents, strict=True)
    )


def _bound(name: str, graph: Graph, value: ArrayLike) -> Array:
    """Constant that takes the place of a graph input."""
    port = _port(name, graph, "constants")
    try:
        values = np.asarray(value)
    except ValueError as error:
        raise NetworkError(f"constant {name!r} must be an array of numbers, not {type(value).__name__}") from error
    fixed = port.shape != OPEN or values.ndim > AXES
    if fixed and (
        values.ndim != len(port.shape)
        or any(extent not in (size, str(extent)) for size, extent in zip(values.shape, port.shape, strict=True))
    ):
        raise NetworkError(f"constant {name!r} must be of shape {_shown(port.shape)}, not {_shown(values.shape)}")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(port.kind)
    if values.dtype != dtype:
        floats = port.kind in (TensorProto.FLOAT, TensorProto.DOUBLE, *HALF)
        allowed = "fiub" if floats else "b" if port.kind == BOOL else "iu"
        with np.errstate(all="ignore"):
            narrow = values.astype(dtype) if values.dtype.kind in allowed else None
        if narrow is None or (not floats and (narrow.astype(values.dtype) != values).any()):
            raise NetworkError(f"constant {name!r} must be {_label(port.kind)}, not {values.dtype}")
        values = narrow
    return _array(values, port.kind)


def _shown(shape: Iterable[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"


def _label(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


# Folding.


def fold(graph: Graph) -> Graph:
    """Infer every shape and element type, compute what depends on constants alone, and bring operators into one form.

    ``Identity``, ``Dropout`` and casts that change nothing are gone, as is what no output depends on. ``axes``, ``split`` and the like are
    inputs, reductions and splits have them always, and Softmax works on one axis. Constants of which only the shape is known stay so.
    What would be too large to compute, or is not computed the same each time, stays in the graph.

    Parameters
    ----------
    graph : Graph
        Of :func:`bind`.

    Returns
    -------
    Graph
        Of opset 21 or newer; `shapes` and `kinds` hold every tensor.

    Raises
    ------
    NetworkError
        If an operator is of an unknown domain, is control flow, a sequence, text or random; if a node breaks ONNX's rules, or the shape of
        what it writes does not follow; if the file's batch does not come apart into samples.
    """
    if graph.batch == 1:
        return _Folder(graph).run()
    rule = f"batch of {graph.batch}, which the file fixes, must come apart into samples"
    try:
        one = _Folder(graph)
        folded = one.run()
        ports = {name: replace(port, shape=(graph.batch, *port.shape[1:]) if port.shape else ()) for name, port in graph.inputs.items()}
        all_ = _Folder(replace(graph, inputs=ports, batch=1))
        all_.run()
    except NetworkError as error:
        raise NetworkError(f"{rule}: {error}") from error
    for node in graph.nodes:
        _check_apart(node, one, all_, graph.batch, rule)
    return folded


def _check_apart(node: Node, one: _Folder, all_: _Folder, batch: int, rule: str) -> None:
    """Refuse a node that mixes samples: what it writes must have them on axis 0, in both graphs."""
    for name in filter(None, node.outputs):
        if name in one.constants or name in all_.constants:
            continue
        few, many = one.shapes[name], all_.shapes[name]
        if few[1:] != many[1:] or (batch * few[0] if few else 0) != (many[0] if many else 0):
            raise NetworkError(f"{rule}, not be mixed by {node}: {_shown(many)} becomes {_shown(few)}")
    reads = [name for name in node.inputs if name and name not in all_.constants]
    if not reads or node.domain:
        return
    axes: Any = ()
    if node.kind in ("Softmax", "LogSoftmax", "Hardmax", "Concat", "LpNormalization", "LayerNormalization"):
        axes = [node.attributes.get("axis", -1)]
    elif node.kind == "CumSum":
        axes = all_.integers(node, 1) or ()
    elif node.kind == "Slice" and (all_.integers(node, 4) or [1])[0] < 0:
        axes = all_.integers(node, 3) or [0]
    if 0 in [axis % max(len(all_.shapes[reads[0]]), 1) for axis in axes]:
        raise NetworkError(f"{rule}, not be mixed by {node} along axis 0")


@dataclass(slots=True)
class _Folder:
    """One walk over a graph.

    Parameters
    ----------
    graph : Graph
    """

    graph: Graph
    constants: dict[str, Array] = field(init=False)
    shapes: dict[str, tuple[int, ...]] = field(init=False, default_factory=dict)
    kinds: dict[str, int] = field(init=False, default_factory=dict)
    types: dict[str, TypeProto] = field(init=False, default_factory=dict)
    alias: dict[str, str] = field(init=False, default_factory=dict)
    nodes: list[Node] = field(init=False, default_factory=list)
    writers: dict[str, Node] = field(init=False, default_factory=dict)
    names: set[str] = field(init=False)
    spent: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        graph = self.graph
        self.constants = dict(graph.constants)
        self.names = {*graph.constants, *graph.inputs, *(name for node in graph.nodes for name in node.outputs)}

    @property
    def opset(self) -> int:
        """Opset of the result."""
        return max(self.graph.opset, OPSET)

    def run(self) -> Graph:
        """Fold the graph."""
        for name, port in self.graph.inputs.items():
            self._declare(name, tuple(int(extent) for extent in port.shape), port.kind)
        for name, array in self.constants.items():
            self._declare(name, array.values.shape, array.kind)
        for node in self.graph.nodes:
            self._visit(replace(node, inputs=tuple(self.alias.get(name, name) for name in node.inputs)))
        return self._finish()

    def integers(self, node: Node, index: int) -> list[int] | None:
        """Constant integers at an input; None where they are left out, or not known."""
        name = self.alias.get(node.inputs[index], node.inputs[index]) if index < len(node.inputs) else ""
        array = self.constants.get(name)
        if array is None or not array.known or array.values.dtype.kind not in "iu":
            return None
        return [int(value) for value in array.values.ravel()[:GIVEN]]

    # A node.

    def _visit(self, node: Node) -> None:
        """Take in one node of the file."""
        kind = f"{node.domain}.{node.kind}" if node.domain else node.kind
        if node.domain not in DOMAINS:
            raise NetworkError(f"domain of operator {kind} of {node} must be ONNX's own, {', '.join(DOMAINS[1:])}, not {node.domain!r}")
        if node.kind in REFUSED and not node.domain:
            raise NetworkError(f"operator of {node} must be free of control flow, sequences, text and chance, not {node.kind}")
        if (
            node.kind == "Dropout"
            and len(node.inputs) > 2
            and node.inputs[2]
            and not (self._is_false(node.inputs[1]) or self._is_false(node.inputs[2]))
        ):
            raise NetworkError(f"training_mode of {node} must be false, or its ratio 0, not what leaves elements to chance")
        _check_attributes(node, self.graph.opset)
        if [] in node.attributes.values():  # which says nothing, not even its type
            node = replace(node, attributes={name: value for name, value in node.attributes.items() if value != []})
        if node.domain == MICROSOFT and node.kind in ("QuantizeLinear", "DequantizeLinear"):  # 16-bit types, before ONNX had them
            node = replace(node, domain="")
        for each in self._modern(node):
            self._take(each)

    def _take(self, node: Node) -> None:
        """Take in one node in its newest form."""
        if self._gone(node) or (not node.domain and (self._measured(node) or self._moved(node))):
            return
        found = self._infer(node)
        if not node.domain and all(name in self.constants for name in node.inputs if name) and self._computed(node, found):
            return
        for name, (shape, kind) in found.items():
            if shape is None or kind not in KINDS:
                what = "shape" if kind in KINDS else "type"
                raise NetworkError(f"{what} of {name!r}, which {node} writes, must follow from what it reads, not stay open")
            self._declare(name, shape, kind)
        self.nodes.append(node)
        self.writers.update((name, node) for name in node.outputs if name)

    def _gone(self, node: Node) -> bool:
        """Let another name stand for the result of a node that changes nothing."""
        if not node.inputs or not node.inputs[0] or len([name for name in node.outputs if name]) != 1 or not node.outputs[0] or node.domain:
            return False
        source = node.inputs[0]
        match node.kind:
            case "Identity":
                pass
            case "Dropout":  # not by chance
                pass
            case "Cast" if node.attributes.get("to") == self.kinds[source]:
                pass
            case _:
                return False
        self.alias[node.outputs[0]] = source
        self.shapes[node.outputs[0]], self.kinds[node.outputs[0]] = self.shapes[source], self.kinds[source]
        if source in self.constants:
            self.constants[node.outputs[0]] = self.constants[source]
        return True

    def _is_false(self, name: str) -> bool:
        array = self.constants.get(name)
        return array is not None and array.known and not array.values.any()

    def _measured(self, node: Node) -> bool:
        """Compute Shape and Size, of anything."""
        if node.kind not in ("Shape", "Size") or not node.inputs or not node.inputs[0]:
            return False
        shape = self.shapes[node.inputs[0]]
        if node.kind == "Size":
            self._constant(node.outputs[0], Array.of(np.array(prod(shape), np.int64)))
        else:
            span = slice(node.attributes.get("start", 0), node.attributes.get("end"))
            self._constant(node.outputs[0], Array.of(np.array(shape[span], np.int64)))
        return True

    def _moved(self, node: Node) -> bool:
        """Move the numbers of a constant; in front of its DequantizeLinear if it has one."""
        if node.kind not in MOVES or not any(node.inputs[:1]):
            return False
        source = node.inputs[0]
        perm, axes = node.attributes.get("perm"), len(self.shapes[source])
        if perm and sorted(perm) != list(range(axes)):  # ONNX's inference looks at its length alone, and not always
            raise NetworkError(f"perm of {node} must order {axes} axes, not {perm}")
        above = self.writers.get(source)
        if source in self.constants:
            ((shape, _),) = self._infer(node).values()
            array = None if shape is None else self._move(node, self.constants[source], shape)
            if array is None:
                return False
            self._constant(node.outputs[0], array)
            return True
        if above is None or above.kind != "DequantizeLinear" or above.inputs[0] not in self.constants or "block_size" in above.attributes:
            return False
        ((shape, _),) = self._infer(node).values()
        if shape is None:
            return False
        before, attributes = self.shapes[source], dict(above.attributes)
        if prod(self.shapes[above.inputs[1]]) != 1:
            axis = _followed(node, attributes.get("axis", 1) % max(len(before), 1), before, shape)
            if axis is None:
                return False
            attributes["axis"] = axis
        array = self._move(node, self.constants[above.inputs[0]], shape)
        if array is None:
            return False
        integers = self._fresh(f"{node.outputs[0]}/integers")
        self._constant(integers, array)
        self._take(Node(node.name, above.kind, (integers, *above.inputs[1:]), node.outputs, attributes))
        return True

    def _move(self, node: Node, array: Array, shape: tuple[int, ...]) -> Array | None:
        """Constant in another order or shape; None where that would be too large a copy."""
        if not array.known:
            return Array.unknown(shape, array.kind)
        if node.kind == "Transpose":
            values = array.values.transpose(node.attributes.get("perm") or None)
        elif array.values.size != prod(shape):
            return None
        else:
            if not array.values.flags.c_contiguous and not self._afford(array.values.nbytes):
                return None
            values = array.values.reshape(shape)
        return Array(values, array.kind)

    def _computed(self, node: Node, found: Mapping[str, Found]) -> bool:
        """Compute a node that reads constants alone, if that is cheap and gives the same each time."""
        if node.kind not in COMPUTED:
            return False
        given = [self.constants[name] if name else None for name in node.inputs]
        kinds = {array.kind for array in given if array} | {kind for _, kind in found.values()}
        if not kinds <= KINDS:
            return False
        shapes = [shape for shape, _ in found.values()]
        if not all(array.known for array in given if array):
            if node.kind not in CHOICES or None in shapes:
                return False
            for name, (shape, kind) in found.items():
                if shape is not None:
                    _check_size(name, shape)
                    self._constant(name, Array.unknown(shape, kind))
            return True
        read = sum(array.values.size for array in given if array)
        if node.kind in LOOPS:
            if read > LOOPED or sum(prod(shape) for shape in shapes if shape is not None) > LOOPED:
                return False
        elif None in shapes:
            return False
        for name, (shape, _) in found.items():
            _check_size(name, shape or ())
        largest = max((prod(shape) for shape in shapes if shape is not None), default=0)
        if node.kind == "MatMul" and given[0] and largest * max(given[0].values.shape, default=1) > MULTIPLIED:
            return False
        if node.kind == "QuantizeLinear" and given[0] and np.isnan(given[0].values).any():
            return False
        if node.kind in ("Div", "Mod") and given[1] and given[1].values.dtype.kind in "iu" and not given[1].values.all():
            return False
        if not self._afford(8 * sum(prod(shape) for shape in shapes if shape is not None)):
            return False
        try:
            results = _evaluate(node, given, self.opset)
        except Exception as error:  # whatever the reference finds
            raise _invalid(node, error) from error
        for name, values in zip(node.outputs, results, strict=False):
            if name:
                self._constant(name, _array(values, found[name][1]))
        return True

    def _afford(self, size: int) -> bool:
        """Whether so many bytes may still be computed."""
        if size > FOLDED or self.spent + size > FOLDED_IN_ALL:
            return False
        self.spent += size
        return True

    # Shapes.

    def _declare(self, name: str, shape: tuple[int, ...], kind: int) -> None:
        if name not in self.constants:
            _check_size(name, shape)
        self.shapes[name], self.kinds[name] = shape, kind

    def _constant(self, name: str, array: Array) -> None:
        self.constants[name] = array
        self._declare(name, array.values.shape, array.kind)

    def _fresh(self, name: str) -> str:
        """Return the name, with a number if it is taken."""
        candidate, number = name, 1
        while candidate in self.names:
            number += 1
            candidate = f"{name}#{number}"
        self.names.add(candidate)
        return candidate

    def _infer(self, node: Node) -> dict[str, Found]:
        """Shape and type of everything a node writes; None where a shape does not follow."""
        if not node.domain:
            return self._inferred(node)
        if node.kind not in STAND_INS:
            known = qoperator.REFUSED.get(node.kind, f"one of ONNX's own or of {', '.join(STAND_INS)}")
            raise NetworkError(f"operator of {node} must be {known}, not {node.domain}.{node.kind}")
        kind, places, typed = STAND_INS[node.kind]
        inputs = node.inputs[places] if isinstance(places, slice) else tuple(node.inputs[at] for at in places if at < len(node.inputs))
        attributes = {name: value for name, value in node.attributes.items() if name in _schema(kind, OPSET).attributes}
        if kind == "ReduceMean":
            axes = {"axes": node.attributes["axes"]} if "axes" in node.attributes else {}
            return self._swapped(self._reduction(replace(node, domain="", kind=kind, inputs=inputs), {**attributes, **axes}), node, typed)
        return self._swapped(Node(node.name, kind, inputs, node.outputs[:1], attributes), node, typed)

    def _swapped(self, asked: Node, node: Node, typed: int | None) -> dict[str, Found]:
        """Shapes and types that a stand-in gives, of floats; of an image whose channels come last, with those moved for the while."""
        own = [*(asked.inputs[1:] if asked.kind in REDUCTIONS else ()), *(name for name in asked.inputs if self.kinds.get(name) == BOOL)]
        given = {name: onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, self.shapes[name]) for name in asked.inputs if name}
        given |= {name: self._type(name) for name in own}
        first = asked.inputs[0] if asked.inputs else ""
        last = first and (node.attributes.get("channels_last", 0) or node.kind.startswith("Nhwc"))
        if last:
            shape = self.shapes[first]
            given[first] = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, (*shape[:1], *shape[-1:], *shape[1:-1]))
        found = self._inferred(asked, given)[node.outputs[0]][0]
        if last and found is not None:
            found = (*found[:1], *found[2:], *found[1:2])
        source = node.inputs[typed] if typed is not None and typed < len(node.inputs) else ""
        kind = TensorProto.FLOAT if node.kind in FLOATS or not first else self.kinds[first]
        return {name: (found, self.kinds[source] if source else kind) for name in node.outputs if name}

    def _type(self, name: str) -> TypeProto:
        """Shape and type of a tensor, as ONNX writes it."""
        if name not in self.types:
            self.types[name] = onnx.helper.make_tensor_type_proto(self.kinds[name], self.shapes[name])
        return self.types[name]

    def _inferred(self, node: Node, given: dict[str, TypeProto] | None = None) -> dict[str, Found]:
        """Shapes and types of ONNX's own operators, of inputs as they are unless others are given."""
        types = {name: self._type(name) for name in node.inputs if name} if given is None else given
        data = {}
        for name in node.inputs if node.kind in SHAPED else ():
            array = self.constants.get(name)
            if array is not None and array.known and array.values.size <= GIVEN and array.kind not in FOUR_BIT:
                data[name] = _tensor(name, array)
        try:
            outputs = onnx.shape_inference.infer_node_outputs(
                _schema(node.kind, self.opset), _proto(node), types, data, opset_imports=_imports(self.opset)
            )
        except Exception as error:  # its errors have no common base
            raise _invalid(node, error) from error
        found: dict[str, Found] = {}
        if node.kind in UNINFERRED:
            return dict.fromkeys(node.outputs, (self.shapes[node.inputs[0]], self.kinds[node.inputs[0]]))
        for name in filter(None, node.outputs):
            form = outputs[name].tensor_type if name in outputs else TypeProto.Tensor()
            extents = [extent.dim_value if extent.HasField("dim_value") else -1 for extent in form.shape.dim]
            whole = form.HasField("shape") and min(extents, default=0) >= 0
            found[name] = tuple(extents) if whole else None, form.elem_type
        return found

    # Forms.

    def _modern(self, node: Node) -> list[Node]:
        """Write a node as the newest opset does."""
        if node.domain:
            return [node]
        attributes = dict(node.attributes)
        if node.kind in REDUCTIONS:
            return [self._reduction(node, attributes)]
        match node.kind:
            case "Squeeze" | "Unsqueeze":
                axes = attributes.pop("axes", None)
                if node.kind == "Squeeze" and axes is None and len(node.inputs) == 1:
                    axes = [axis for axis, extent in enumerate(self._shape(node, 0)) if extent == 1]
                return [self._with_input(node, attributes, 1, axes)]
            case "Split":
                return [self._split(node, attributes)]
            case "Softmax" | "LogSoftmax" | "Hardmax" if self.graph.opset < 13:
                return self._flattened(node, attributes)
            case "Softmax" | "LogSoftmax" | "Hardmax":
                axis, count = attributes.get("axis", -1), len(self._shape(node, 0))
                if not -count <= axis < count:
                    raise NetworkError(f"axis of {node} must be in [{-count}, {count - 1}], not {axis}")
            case "GroupNormalization" if self.graph.opset < 21:
                return [self._groups(node, attributes)]
            case "GridSample" if self.graph.opset < 20:
                mode = attributes.get("mode", "bilinear")
                attributes["mode"] = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
            case "RoiAlign" if self.graph.opset < 16:
                attributes["coordinate_transformation_mode"] = "output_half_pixel"
            case "Dropout" if "ratio" in attributes:
                del attributes["ratio"]
            case "CastLike" if len(node.inputs) == 2 and node.inputs[1] in self.kinds:  # the type is known, whatever the values are
                kept = {name: value for name, value in attributes.items() if name == "saturate"}
                return [replace(node, kind="Cast", inputs=node.inputs[:1], attributes={"to": self.kinds[node.inputs[1]], **kept})]
            case "Reshape" | "Expand" if self.graph.batch > 1:
                return [self._rebatched(node)]
            case _:
                return [node]
        return [replace(node, attributes=attributes)]

    def _shape(self, node: Node, index: int) -> tuple[int, ...]:
        """Shape of an input that must be there."""
        if index >= len(node.inputs) or not node.inputs[index]:
            raise NetworkError(f"input {index} of {node} must be given, not left out")
        return self.shapes[node.inputs[index]]

    def _with_input(self, node: Node, attributes: dict[str, Any], index: int, values: Any) -> Node:
        """Node with integers at an input of its own, unless they are there already."""
        if values is None:
            return replace(node, attributes=attributes)
        if not all(isinstance(value, int) for value in values):
            raise NetworkError(f"input {index} of {node} must be integers, not {values}")
        name = self._fresh(f"{node.outputs[0]}/input{index}")
        self._constant(name, Array.of(np.array(values, np.int64).reshape(-1)))
        inputs = (*node.inputs, *[""] * index)[:index]
        return replace(node, inputs=(*inputs, name), attributes=attributes)

    def _reduction(self, node: Node, attributes: dict[str, Any]) -> Node:
        """Reduction with its axes as an input, always."""
        rank = len(self._shape(node, 0))
        axes = attributes.pop("axes", None)
        idle = attributes.pop("noop_with_empty_axes", 0)
        if idle not in (0, 1):
            raise NetworkError(f"noop_with_empty_axes of {node} must be 0 or 1, not {idle}")
        if axes is None and len(node.inputs) > 1 and node.inputs[1]:
            axes = self.integers(node, 1)
            if axes:
                return replace(node, attributes=attributes)
            if axes is None:
                return node
        if not axes and idle and node.kind in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
            return Node(node.name, "Identity", node.inputs[:1], node.outputs)
        if not axes and idle:
            return node
        return self._with_input(node, attributes, 1, axes or range(rank))

    def _split(self, node: Node, attributes: dict[str, Any]) -> Node:
        """Split with its sizes as an input, always."""
        parts = attributes.pop("split", None)
        count = attributes.pop("num_outputs", len(node.outputs))
        if parts is None and len(node.inputs) > 1 and node.inputs[1]:
            return replace(node, attributes=attributes)
        if parts is None:
            shape, axis = self._shape(node, 0), attributes.get("axis", 0)
            if not -len(shape) <= axis < len(shape):
                raise NetworkError(f"axis of {node} must be in [{-len(shape)}, {len(shape) - 1}], not {axis}")
            if count != len(node.outputs):
                raise NetworkError(f"num_outputs of {node} must be {len(node.outputs)}, the number of its outputs, not {count}")
            size = shape[axis]
            each = -(-size // count)
            parts = [max(min(each, size - at * each), 0) for at in range(count)]
        return self._with_input(node, attributes, 1, parts)

    def _flattened(self, node: Node, attributes: dict[str, Any]) -> list[Node]:
        """Softmax of opset 12 or older, which takes all axes from one on as one."""
        shape = self._shape(node, 0)
        axis = attributes.get("axis", 1)
        if not -len(shape) <= axis <= len(shape):
            raise NetworkError(f"axis of {node} must be in [{-len(shape)}, {len(shape)}], not {axis}")
        axis = axis % len(shape) if axis < len(shape) and shape else axis
        if prod(shape[axis:]) == prod(shape[-1:]) and axis < len(shape):
            return [replace(node, attributes={"axis": -1 if prod(shape[-1:]) == shape[-1] else axis})]
        flat, done = (self._fresh(f"{node.outputs[0]}/{text}") for text in ("flat", "done"))
        first = self._with_input(Node(f"{node.name}/flat", "Reshape", node.inputs[:1], (flat,)), {}, 1, [*shape[:axis], prod(shape[axis:])])
        last = self._with_input(Node(f"{node.name}/shape", "Reshape", (done,), node.outputs), {}, 1, shape)
        return [first, replace(node, inputs=(flat,), outputs=(done,), attributes={"axis": -1}), last]

    def _groups(self, node: Node, attributes: dict[str, Any]) -> Node:
        """GroupNormalization of opset 20 or older, which has a scale and bias for each group, not for each channel."""
        channels, groups = (*self._shape(node, 0), 0, 0)[1], attributes.get("num_groups", 0)
        if groups < 1 or channels % groups:
            raise NetworkError(f"num_groups of {node} must divide its {channels} channels, not be {groups}")
        names = []
        for index, name in ((1, "scale"), (2, "bias")):
            array = self.constants.get(node.inputs[index]) if self._shape(node, index) == (groups,) else None
            if array is None:
                raise NetworkError(f"{name} of {node} must be {groups} constants, one for each group, not others")
            names.append(self._fresh(f"{node.outputs[0]}/{name}"))
            self._constant(names[-1], replace(array, values=np.repeat(array.values, channels // groups)))
        return replace(node, inputs=(node.inputs[0], *names))

    def _rebatched(self, node: Node) -> Node:
        """Reshape or Expand to a shape in which the file's batch stands: to that of one sample."""
        shape, source = self.integers(node, 1), self._shape(node, 0)
        fixed = node.kind == "Reshape" and node.inputs[0] in self.constants
        if not shape or shape[0] != self.graph.batch or fixed or (node.kind == "Expand" and source[:1] == (self.graph.batch,)):
            return node
        return self._with_input(node, dict(node.attributes), 1, [1, *shape[1:]])

    # The result.

    def _finish(self) -> Graph:
        """Drop what no output needs; an output that another name stands for keeps its own."""
        taken = {*self.graph.outputs, *self.graph.inputs}
        renamed: dict[str, str] = {}
        nodes = self.nodes
        for name in self.graph.outputs:
            source = self.alias.get(name, name)
            if source == name or name in self.constants:
                continue
            if source in taken or source in renamed:
                nodes.append(Node(name, "Identity", (source,), (name,)))
            else:
                renamed[source] = name
        kept, needed = [], set(self.graph.outputs)
        for node in reversed(nodes):
            inputs, outputs = (tuple(renamed.get(name, name) for name in names) for names in (node.inputs, node.outputs))
            if not needed.isdisjoint(outputs):
                needed.update(filter(None, inputs))
                kept.append(replace(node, inputs=inputs, outputs=outputs))
        tensors = {*needed, *self.graph.inputs, *(name for node in kept for name in node.outputs if name)}
        return replace(
            self.graph,
            opset=self.opset,
            nodes=tuple(kept[::-1]),
            constants={name: array for name, array in self.constants.items() if name in needed},
            shapes={name: shape for name, shape in self.shapes.items() if name in tensors},
            kinds={name: kind for name, kind in self.kinds.items() if name in tensors},
        )


def _followed(node: Node, axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Find where an axis is after a move; None where it is merged or split."""
    if node.kind == "Transpose":
        perm = node.attributes.get("perm") or range(len(before))[::-1]
        return list(perm).index(axis)
    for at, extent in enumerate(after):
        if extent == before[axis] and prod(after[:at]) == prod(before[:axis]):
            return at
    return None


def _check_size(name: str, shape: Iterable[Any]) -> None:
    size = prod(shape)
    if size >= LIMIT:
        raise NetworkError(f"size of {name!r} must be below {LIMIT} elements, not {size}")


# ONNX's own tools, one node at a time.

KINDS = {kind for kind in TensorProto.DataType.values() if kind} - {TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128}
SHAPED = (
    _words(
        "Reshape Expand Slice Pad Resize Tile Split Squeeze Unsqueeze ConstantOfShape Range TopK OneHot CenterCropPad Upsample Gather "
        "Concat Col2Im DFT MelWeightMatrix HannWindow HammingWindow BlackmanWindow AffineGrid MaxUnpool Trilu"
    )
    | REDUCTIONS
)  # operators whose results' shapes depend on values


@cache
def _schema(kind: str, opset: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(kind, opset, "")


@cache
def _attributes(kind: str, opset: int) -> dict[str, tuple[str, Any]]:
    """Type of each attribute that an operator has: in words, and that of a value or of a list's elements."""
    if not onnx.defs.has(kind, opset, ""):
        return {}
    return {name: ATTRIBUTES[form.type] for name, form in _schema(kind, opset).attributes.items() if form.type in ATTRIBUTES}


Type = onnx.defs.OpSchema.AttrType
ATTRIBUTES: dict[Any, tuple[str, Any]] = {
    Type.INT: ("an integer", int),
    Type.FLOAT: ("a number", float),
    Type.STRING: ("a text", str),
    Type.TENSOR: ("a tensor", Array),
    Type.INTS: ("a list of integers", [int]),
    Type.FLOATS: ("a list of numbers", [float]),
    Type.STRINGS: ("a list of texts", [str]),
}


def _check_attributes(node: Node, opset: int) -> None:
    """Refuse attributes of ONNX's own operators that are of another type than theirs."""
    if node.domain:
        return
    known = _attributes(node.kind, opset)
    for name, value in node.attributes.items():
        words, wanted = known.get(name, ("", object))
        kind = wanted[0] if isinstance(wanted, list) else wanted
        values = value if isinstance(wanted, list) and isinstance(value, list) else [value]
        fits = isinstance(wanted, list) == isinstance(value, list) or wanted is object
        if not fits or not all(isinstance(each, (kind, int) if kind is float else kind) for each in values):
            raise NetworkError(
                f"{name} of {node} must be {words}, not {value if isinstance(value, (int, float, str, list)) else 'a tensor'}"
            )


@cache
def _imports(opset: int) -> list[onnx.OperatorSetIdProto]:
    return [onnx.helper.make_opsetid("", opset)]


def _proto(node: Node) -> NodeProto:
    """Node as ONNX writes it, without what a canonical graph adds; an empty list says nothing, not even its type."""
    proto = onnx.helper.make_node(node.kind, node.inputs, node.outputs, node.name)
    for name, value in node.attributes.items():
        if value != [] and (node.kind != "QuantizeLinear" or name not in ("lo", "hi", "rounding")):
            proto.attribute.append(onnx.helper.make_attribute(name, _tensor(name, value) if isinstance(value, Array) else value))
    return proto


def _tensor(name: str, array: Array) -> TensorProto:
    """Constant as ONNX writes it."""
    return onnx.numpy_helper.from_array(_native(array), name)


def _native(array: Array) -> NDArray[Any]:
    """Elements in the type they stand for."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(array.kind)
    with np.errstate(all="ignore"):
        return array.values if array.values.dtype == dtype else array.values.astype(dtype)


def _array(values: Any, kind: int) -> Array:
    """Elements as a graph holds them."""
    array = np.asarray(values)
    held: Any = np.int8 if kind in FOUR_BIT else np.float32 if kind in HALF else onnx.helper.tensor_dtype_to_np_dtype(kind)
    return Array(array if array.dtype == held else array.astype(held), kind)


def _evaluate(node: Node, given: Sequence[Array | None], opset: int) -> Sequence[Any]:
    """Run ONNX's reference implementation of one node."""
    values = [None if array is None else _native(array) for array in given]
    if node.kind == "Div" and values[0] is not None and values[1] is not None and values[0].dtype.kind == "i":
        return [_quotient(values[0], values[1])]
    reference = load_op("", node.kind, opset)
    settings = {"log": lambda *_: None, "opsets": {"": opset}, "verbose": 0, "new_ops": None, "existing_functions": {}}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results: Sequence[Any] = reference(_proto(node), settings).run(*values)
    return results


def _quotient(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Divide integers as ONNX does, towards zero; numpy rounds down."""
    quotient = a // b
    result: NDArray[Any] = quotient + ((quotient < 0) & (quotient * b != a))
    return result.astype(a.dtype)


def _invalid(node: Node, error: Exception) -> NetworkError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return NetworkError(f"{node} must follow ONNX's rules: {reason[:300]}")
