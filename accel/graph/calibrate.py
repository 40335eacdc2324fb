"""Quantisers for a float graph, from samples: where they belong (:class:`Placement`), and what they are (ranges, by four methods).

Everything the accelerator can compute is quantised: graph inputs, results of operators once what can be merged into them is, weights.
What a quantiser already follows is left as it is, so a partly quantised graph gets those it lacks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto

from accel.errors import ConfigError, NetworkError
from accel.graph import evaluate
from accel.graph.edit import KINDS, Editor, Grid
from accel.graph.graph import Array, Graph, Node
from accel.graph.simplify import simplify
from accel.quant import dequantise, quantise

METHODS = ("minmax", "percentile", "mse", "entropy")
SIGNED = {4: TensorProto.INT4, 8: TensorProto.INT8, 16: TensorProto.INT16}
UNSIGNED = {4: TensorProto.UINT4, 8: TensorProto.UINT8, 16: TensorProto.UINT16}
BINS = {"percentile": 1 << 14, "mse": 1 << 13, "entropy": 1 << 11}  # the last as in [3] of `calibrate`, whose search is quadratic
RATIOS = 100  # clipping ratios that are tried: 1, 0.99, .. 0.01
LEAST = float(np.finfo(np.float32).tiny)  # of a scale

# Operators by what they do with the tensors they read.
MOVES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Expand", "Tile", "Gather", "DepthToSpace"}
MOVES |= {"SpaceToDepth", "Identity", "Dropout"}  # and Resize by the nearest, and Pad
SELECTIONS = {"MaxPool", "GlobalMaxPool", "ReduceMax", "Concat"}  # elements of their inputs
PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
RESULTS = {"AveragePool", "GlobalAveragePool", "ReduceMean", "Softmax", "LogSoftmax", "LayerNormalization"}
AFFINE = {"Add", "Sub", "Mul", "Div"}
FUNCTIONS = AFFINE | {"Abs", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log"}
FUNCTIONS |= {"Max", "Min", "Mish", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign"}
FUNCTIONS |= {"Sqrt", "Swish", "Tanh", "ThresholdedRelu"}
UNIT = {"Sigmoid", "HardSigmoid"}  # results in [0, 1]


def calibrate(
    graph: Graph,
    samples: Mapping[str, ArrayLike] | ArrayLike,
    method: str = "minmax",
    bits: int = 8,
    *,
    weights: str = "channel",
    symmetric: bool = False,
    percentile: float = 99.99,
    progress: evaluate.Progress | None = None,
) -> Graph:
    r"""Insert QuantizeLinear and DequantizeLinear into a float graph.

    Activations have one scale for each tensor; the range contains 0. Ranges without negative numbers become unsigned integers with zero
    point 0, others signed integers with the zero point that uses them all. The second operand of a product of two activations is symmetric,
    so that it needs no further bit. The result of Softmax is fixed to [0, 1), that of Sigmoid to [0, 1]; results of MaxPool and the like
    keep their input's quantiser, and all inputs of a Concat and its result share one, of the union of their ranges. Weights are symmetric,
    in ``[-(2**(bits-1) - 1), 2**(bits-1) - 1]``; biases stay in float, the importer gives them the unit of one product.

    The range of an activation, x being its values over all samples:

    - ``minmax``: from min x to max x [1]_.
    - ``percentile``: within ``[-t, t]``, t the least bin edge that `percentile` per cent of \|x\| do not exceed, of 16384 bins up to
      max \|x\| [2]_.
    - ``mse``: that of ``k/100 * [min x, max x]``, k 1 to 100, which loses least: squared error of ONNX's quantiser over the centres of 8192
      bins, weighted by their counts; of equals the widest [2]_. Weights likewise, each channel by itself, over its values.
    - ``entropy``: within ``[-t, t]``, t the edge of 2048 bins of \|x\| at which the distribution, what lies beyond added to the last bin,
      diverges least (Kullback-Leibler) from itself in ``2**(bits-1)`` levels (``2**bits`` without negative x); of equals the largest. The
      count of the first bin is that of the second, or zeros after ReLU would outweigh all else. That is NVIDIA's search [3]_. onnxruntime's
      differs: signed bins and levels, zeros smoothed, counts cut to integers, and bins beyond a multiple of the levels in the last one.

    Of a tensor that only Softmax reads, values further than ``ln n + (bits + 2) ln 2`` below the largest of their row of n count as that
    far below: together they are less than a quarter of the result's LSB, and what masks a position out does not widen the range.

    Weights are min-max but for ``mse``. The same graph, samples and machine give the same bits.

    Parameters
    ----------
    graph : Graph
        Bound and folded, in canonical form.
    samples : mapping of str to array_like, or array_like
        By graph input, or those of the only one: see :func:`accel.graph.evaluate.run`. Not read where a constant is known by its shape
        alone; every range is then [-1, 1].
    method : str
        One of the four.
    bits : int
        4, 8 or 16, of activations and weights.
    weights : str
        "channel": a scale for each output channel; "tensor": one.
    symmetric : bool
        Zero point 0 and signed integers for all activations but Softmax and Sigmoid.
    percentile : float
        In (0, 100].
    progress : callable, optional
        Told how many evaluations are done, and of how many.

    Returns
    -------
    Graph
        Spelled-out operators put together and batch normalisation folded as well.

    Raises
    ------
    ConfigError
        If method, bits, weights or percentile break their rule.
    NetworkError
        If a tensor is not finite over the samples, or the graph cannot be run.
    RangeError
        If the samples are not those of the graph.

    References
    ----------
    .. [1] B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
    .. [2] H. Wu et al., "Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation", arXiv:2004.09602, 2020,
       section 4 (percentile); M. Nagel et al., "A White Paper on Neural Network Quantization", arXiv:2106.08295, 2021, section 3.1 (MSE).
    .. [3] S. Migacz, "8-bit Inference with TensorRT", GTC 2017; TensorRT, pytorch-quantization, calib/histogram.py.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if type(bits) is not int or bits not in SIGNED:
        raise ConfigError(f"bits must be one of {', '.join(map(str, SIGNED))}, not {bits!r}")
    if weights not in ("channel", "tensor"):
        raise ConfigError(f"weights must be 'channel' or 'tensor', not {weights!r}")
    if not 0 < percentile <= 100:
        raise ConfigError(f"percentile must be in (0, 100], not {percentile}")
    graph = simplify(graph)
    place = Placement.of(graph)
    observed = [name for name in place.order if place.observed(name)]
    if all(array.known for array in graph.constants.values()):
        given = samples if isinstance(samples, Mapping) else dict.fromkeys(graph.inputs, samples)
        ranges = _ranges(graph, given, observed, _Method(method, bits, symmetric, percentile, place), progress)
    else:
        ranges = dict.fromkeys(observed, (-1.0, 1.0))
    return _insert(graph, place, _grids(place, ranges, bits, symmetric), _Weights(bits, weights == "channel", method == "mse"))


# Where quantisers belong.


@dataclass(frozen=True, slots=True)
class _State:
    """What a tensor is before a quantiser of its own.

    Parameters
    ----------
    kind : str
        "rounded": a quantiser gives it; "draft": an exact result that may be changed before it is rounded; "function": of the integers of
        one tensor; "float": of a part that stays in float; "integers".
    base : str
        "rounded": the tensor whose quantiser it has; "function": the tensor it is a function of.
    axis : int or None
        "draft": a constant for each element of this axis may still be added or multiplied by; None: nothing may.
    scalar : bool
        "draft": one number may still be multiplied by.
    """

    kind: str
    base: str = ""
    axis: int | None = None
    scalar: bool = False


@dataclass(slots=True)
class Placement:
    """Which tensors of a graph get a quantiser, and which share one.

    `rounded` holds those that get one of this pass, `existing` the QuantizeLinear or DequantizeLinear that says it already, `symmetric`
    those whose quantiser is to be symmetric, `selected` those whose values are all some of another's, which they share it with.

    Parameters
    ----------
    graph : Graph
    """

    graph: Graph
    rounded: set[str] = field(init=False, default_factory=set)
    existing: dict[str, Node] = field(init=False, default_factory=dict)
    symmetric: set[str] = field(init=False, default_factory=set)
    selected: set[str] = field(init=False, default_factory=set)
    states: dict[str, _State] = field(init=False, default_factory=dict)
    parents: dict[str, str] = field(init=False, default_factory=dict)
    producers: dict[str, Node] = field(init=False, default_factory=dict)
    consumers: dict[str, list[Node]] = field(init=False, default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, graph: Graph) -> Placement:
        """Find the tensors to round: what is rounded changes what may follow, so until nothing is added."""
        place = cls(graph)
        for node in graph.nodes:
            place.producers |= dict.fromkeys(node.outputs, node)
            for name in set(node.inputs):
                place.consumers[name].append(node)
            if node.kind == "QuantizeLinear" and place._per_tensor(node):
                place.existing.setdefault(node.inputs[0], node)
            if node.kind == "DequantizeLinear" and node.inputs[0] not in graph.constants:
                place.existing[node.outputs[0]] = node
        place.rounded = {name for name in graph.inputs if place._is_float(name) and place._unrounded_readers(name)}
        while place._pass():
            pass
        place._share()
        return place

    @property
    def order(self) -> list[str]:
        """Rounded tensors: graph inputs, then in the order they are written."""
        names = [*self.graph.inputs, *(name for node in self.graph.nodes for name in node.outputs)]
        return [name for name in names if name in self.rounded]

    def observed(self, name: str) -> bool:
        """Whether the range of a rounded tensor comes from samples."""
        return name not in self.selected and self.find(name) not in self.existing and self.fixed(name) is None

    def fixed(self, name: str) -> str | None:
        """Kind of the operator behind a tensor if that fixes the range."""
        node = self.producers.get(name)
        return node.kind if node and (node.kind == "Softmax" or node.kind in UNIT) else None

    def row_axis(self, name: str) -> int | None:
        """Axis of the rows of a tensor that nothing but Softmax reads."""
        axes = {node.attributes.get("axis", -1) if node.kind == "Softmax" and not node.domain else None for node in self.consumers[name]}
        alone = len(axes) == 1 and name not in self.graph.outputs and self.graph.opset >= 13
        return axes.pop() if alone else None

    def find(self, name: str) -> str:
        """Return the representative of the tensors that share a quantiser with this one."""
        while self.parents.get(name, name) != name:
            name = self.parents[name]
        return name

    def operands(self, node: Node) -> list[str]:
        """List inputs of a node that are float tensors, not constants."""
        return [name for name in node.inputs if name and name not in self.graph.constants and self._is_float(name)]

    def weight(self, node: Node) -> tuple[int, str] | None:
        """Index and name of the constant float weights of a product, if it has any and an activation to multiply them by."""
        if node.kind not in PRODUCTS or node.domain or not self.operands(node):
            return None
        for index in (1, 0) if node.kind in ("MatMul", "Gemm") else (1,):
            array = self.graph.constants.get(node.inputs[index])
            if array is not None and array.kind == TensorProto.FLOAT:
                return index, node.inputs[index]
        return None

    def _is_float(self, name: str) -> bool:
        given = self.graph.inputs.get(name)
        return (given.kind if given else self.graph.kinds.get(name)) == TensorProto.FLOAT

    def _unrounded_readers(self, name: str) -> bool:
        return any(node.kind != "QuantizeLinear" for node in self.consumers[name])

    def _per_tensor(self, node: Node) -> bool:
        array = self.graph.constants.get(node.inputs[1])
        return array is not None and array.values.size == 1

    def _pass(self) -> bool:
        """Follow the tensors once; True if one more must be rounded."""
        before = len(self.rounded)
        self.states = {name: _State("rounded", name) if self._is_float(name) else _State("integers") for name in self.graph.inputs}
        for node in self.graph.nodes:
            state, absorbed = self._result(node)
            for name in self.operands(node):
                if self.states[name].kind not in ("rounded", "integers") and name not in absorbed and node.kind != "QuantizeLinear":
                    self.rounded.add(name)
            for output in node.outputs:
                if output in self.rounded:
                    self.states[output] = _State("rounded", output)
                else:
                    self.states[output] = state if self._is_float(output) else _State("integers")
        for name in self.graph.outputs:
            if name in self.states and self.states[name].kind not in ("rounded", "integers"):
                self.rounded.add(name)
        return len(self.rounded) > before

    def _result(self, node: Node) -> tuple[_State, set[str]]:
        """State of a node's results, and the inputs it takes unrounded."""
        names = self.operands(node)
        floats = {name for name in names if self.states[name].kind == "float"}
        if node.domain or not names:
            if node.kind == "DequantizeLinear" and not node.domain:
                return _State("rounded", node.outputs[0]), set()
            return _State("float"), floats
        first = self.states[names[0]]
        if self._moves(node, names):
            return _State("rounded", first.base if first.kind == "rounded" else names[0]), set()
        if self._merges(node, names, first):
            return (replace(first, axis=None, scalar=False) if node.kind in ("Relu", "Clip") else first), {names[0]}
        function = self._function(node, names)
        if function:
            return _State("function", function), {name for name in names if self.states[name].kind == "function"}
        if node.kind in SELECTIONS or node.kind in RESULTS:
            return _State("draft"), set()
        if node.kind in PRODUCTS:
            return _State("draft", axis=self._channel_axis(node), scalar=True), set()
        constants = [name for name in node.inputs if name in self.graph.constants]
        if node.kind in AFFINE and len(names) == 1 and len(constants) == 1:
            axis = self._along(node.outputs[0], self.graph.constants[constants[0]].values.shape)
            return _State("draft", axis=axis, scalar=axis is not None), set()
        if node.kind in AFFINE and len(names) == 2:
            return _State("draft"), set()
        return _State("float"), floats

    def _moves(self, node: Node, names: list[str]) -> bool:
        """Whether elements of one tensor are put elsewhere, and nothing is computed."""
        constant = (
            len(names) == 1 and names[0] == node.inputs[0] and all(not name or name in self.graph.constants for name in node.inputs[1:])
        )
        if node.kind == "Resize":
            return constant and node.attributes.get("mode", "nearest") == "nearest"
        if node.kind == "Pad":
            value = self.graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
            return constant and (value is None or not value.values.any())
        return constant and node.kind in MOVES

    def _merges(self, node: Node, names: list[str], first: _State) -> bool:
        """Whether a node changes a result before it is rounded: Relu, Clip, a positive factor or an addend for each channel."""
        if first.kind != "draft" or len(names) != 1 or len(self.consumers[names[0]]) > 1 or names[0] in self.graph.outputs:
            return False
        if self._selects(names[0]):  # its integers are those of its input
            return False
        constants = [self.graph.constants[name].values for name in node.inputs if name in self.graph.constants]
        if node.kind in ("Relu", "Clip"):
            return all(each.size == 1 for each in constants)
        if node.kind not in AFFINE or len(constants) != 1 or (node.kind in ("Sub", "Div") and names[0] != node.inputs[0]):
            return False
        values = constants[0]
        if node.kind in ("Mul", "Div") and not (values > 0).all():
            return False
        if values.size == 1:
            return first.axis is not None or (first.scalar and node.kind in ("Mul", "Div"))
        return first.axis is not None and self._along(names[0], values.shape) == first.axis

    def _selects(self, name: str) -> bool:
        node = self.producers.get(name)
        return node is not None and node.kind in SELECTIONS

    def _function(self, node: Node, names: list[str]) -> str | None:
        """Find the one tensor whose integers alone decide each element of the result, if there is one."""
        constants = [self.graph.constants[name].values for name in node.inputs if name in self.graph.constants]
        if node.kind not in FUNCTIONS or any(each.size != 1 for each in constants):
            return None
        bases = {self.states[name].base if self.states[name].kind == "function" else name for name in names}
        base = bases.pop()
        return base if not bases and self.graph.shapes.get(base) == self.graph.shapes.get(node.outputs[0]) else None

    def _channel_axis(self, node: Node) -> int | None:
        """Axis of the filters of a product with constant weights."""
        if self.weight(node) is None and not self._quantised_weights(node):
            return None
        return 1 if node.kind in ("Conv", "ConvTranspose") else len(self.graph.shapes[node.outputs[0]]) - 1

    def _quantised_weights(self, node: Node) -> bool:
        made = self.producers.get(node.inputs[1])
        return made is not None and made.kind == "DequantizeLinear" and made.inputs[0] in self.graph.constants

    def _along(self, name: str, shape: tuple[int, ...]) -> int | None:
        """Axis of a tensor along which a constant of this shape varies, if it is one axis: of channels, so the second or the last."""
        axes = len(self.graph.shapes[name])
        long = [at + axes - len(shape) for at, extent in enumerate(shape) if extent > 1]
        return long[0] if len(long) == 1 and long[0] in (1, axes - 1) else None

    def _share(self) -> None:
        """Let selections share the quantiser of what they select from, and see which must be symmetric."""
        for node in self.graph.nodes:
            output = node.outputs[0] if node.outputs else ""
            if node.kind in SELECTIONS and output in self.rounded and output not in self.existing:
                sources = [self.find(self.states[name].base) for name in self.operands(node)]
                given = {name for name in sources if name in self.existing}
                if not given:
                    for source in sources:
                        self.parents[source] = output
                elif len(sources) == 1:
                    self.parents[output] = sources[0]
                if not given or len(sources) == 1:
                    self.selected.add(output)
            if node.kind in ("MatMul", "Gemm") and len(self.operands(node)) > 1 and self._is_activation(node.inputs[1]):
                self.symmetric.add(self.states[node.inputs[1]].base)

    def _is_activation(self, name: str) -> bool:
        made = self.producers.get(name)
        return name not in self.graph.constants and not (
            made and made.kind == "DequantizeLinear" and made.inputs[0] in self.graph.constants
        )


# What the quantisers are.


@dataclass(frozen=True, slots=True)
class _Method:
    """How a range follows from the values of a tensor."""

    name: str
    bits: int
    symmetric: bool
    percentile: float
    place: Placement

    def histogram(self, values: NDArray[Any], low: float, high: float) -> NDArray[np.int64]:
        """Count one sample's values in bins that are the same for all."""
        if self.name == "mse":
            return np.histogram(values, BINS["mse"], (low, high))[0]
        return np.histogram(np.abs(values), BINS[self.name], (0.0, max(-low, high)))[0]

    def relevant(self, tensor: str, values: NDArray[Any]) -> NDArray[Any]:
        """Values of one sample, raised to the least that can change what Softmax makes of its row."""
        axis = self.place.row_axis(tensor)
        if axis is None:
            return values
        margin = math.log(values.shape[axis]) + (self.bits + 2) * math.log(2)
        raised: NDArray[Any] = np.maximum(values, values.max(axis=axis, keepdims=True) - np.asarray(margin, values.dtype))
        return raised

    def range(self, tensor: str, counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
        """Range of a tensor from its histogram."""
        if self.name == "mse":
            symmetric = self.symmetric or tensor in self.place.symmetric
            return clipped_range(counts, low, high, self.bits, symmetric)
        most = max(-low, high)
        if self.name == "percentile":
            limit = percentile_limit(counts, most, self.percentile)
        else:
            limit = entropy_limit(counts, most, 1 << (self.bits - (low < 0)))
        return max(low, -limit), min(high, limit)


def _ranges(
    graph: Graph, inputs: Mapping[str, ArrayLike], wanted: list[str], method: _Method, progress: evaluate.Progress | None
) -> dict[str, tuple[float, float]]:
    """Range of each wanted tensor over the samples: extremes first, then, if the method needs them, histograms between them."""
    arrays = evaluate.checked(graph, inputs)
    count, rounds = len(next(iter(arrays.values()))), 1 if method.name == "minmax" else 2
    done = 0

    def each(function: Callable[[str, NDArray[Any]], None]) -> None:
        nonlocal done
        for tensors in evaluate.samples(graph, arrays, wanted):
            for name, values in tensors.items():
                if values.size:
                    function(name, method.relevant(name, values))
            done += 1
            if progress:
                progress(done, rounds * count)

    extremes = dict.fromkeys(wanted, (0.0, 0.0))

    def widen(name: str, values: NDArray[Any]) -> None:
        low, high = float(values.min()), float(values.max())
        if not math.isfinite(low) or not math.isfinite(high):
            raise NetworkError(f"tensor {name!r} must be finite over the samples, not {high if math.isfinite(low) else low}")
        extremes[name] = min(extremes[name][0], low), max(extremes[name][1], high)

    each(widen)
    if method.name == "minmax":
        return extremes
    counts: dict[str, NDArray[np.int64]] = {}

    def collect(name: str, values: NDArray[Any]) -> None:
        low, high = extremes[name]
        if low < high:
            counts[name] = counts.get(name, 0) + method.histogram(values.ravel().astype(np.float64), low, high)

    each(collect)
    return {name: method.range(name, counts[name], *ends) if name in counts else ends for name, ends in extremes.items()}


def percentile_limit(counts: NDArray[np.int64], most: float, percentile: float) -> float:
    """Least upper edge of equal bins on [0, most] up to which lie `percentile` per cent of the counts, or more."""
    below = np.cumsum(counts)
    index = int(np.searchsorted(below, percentile / 100.0 * below[-1]))
    return most if index + 1 >= counts.size else most * (index + 1) / counts.size


def entropy_limit(counts: NDArray[np.int64], most: float, levels: int) -> float:
    """Edge of equal bins on [0, most] at which the distribution diverges least from itself in so many levels; see :func:`calibrate`."""
    bins = counts.size
    if levels >= bins:
        return most
    histogram = counts.astype(np.float64)
    histogram[0] = histogram[1]
    beyond = np.concatenate((np.cumsum(histogram[::-1])[::-1], [0.0]))
    best, limit = math.inf, bins
    for end in range(levels, bins + 1):
        divergence = _divergence(histogram[:end], beyond[end], levels)
        if divergence <= best:
            best, limit = divergence, end
    return most if limit == bins else most * limit / bins


def _divergence(inside: NDArray[np.float64], beyond: float, levels: int) -> float:
    """Kullback-Leibler divergence [nats] of a clipped histogram from itself in equal levels, spread over the bins that are not empty."""
    full = inside > 0
    if beyond and not full[-1]:
        return math.inf  # what lies beyond is added to a bin that no level fills
    level = np.arange(inside.size) * levels // inside.size
    sums = np.bincount(level, inside, levels)
    spread = np.bincount(level, full, levels)
    total = inside.sum()
    if not total:
        return math.inf
    reference = inside.copy()
    reference[-1] += beyond
    reference, levelled = reference[full], (sums / np.maximum(spread, 1))[level[full]]
    return float(np.sum(reference * np.log(reference / (total + beyond) / (levelled / total))) / (total + beyond))


def clipped_range(counts: NDArray[np.int64], low: float, high: float, bits: int, symmetric: bool) -> tuple[float, float]:
    """Range ``k/100 * [low, high]`` whose quantiser has the least squared error over the bins' centres; of equals the widest."""
    centres = low + (np.arange(counts.size) + 0.5) * ((high - low) / counts.size)
    used = counts > 0
    centres, counts = centres[used], counts[used]
    best, kept = math.inf, (low, high)
    for step in range(RATIOS, 0, -1):
        ends = low * step / RATIOS, high * step / RATIOS
        grid = activation_grid(*ends, bits, symmetric)
        integers = quantise(centres, grid.scale, grid.zero, KINDS[grid.kind])
        error = float(np.dot(counts, (dequantise(integers, grid.scale.astype(np.float64), grid.zero) - centres) ** 2))
        if error < best:
            best, kept = error, ends
    return kept


def activation_grid(low: float, high: float, bits: int, symmetric: bool) -> Grid:
    """Quantiser of an activation whose range, 0 included, is [low, high].

    Symmetric: ``scale = max(-low, high) / (2**(bits-1) - 1)``, signed, zero point 0. Else ``scale = (high - low) / (2**bits - 1)``,
    unsigned with zero point 0 if ``low >= 0``, and otherwise signed with zero point ``round(-2**(bits-1) - low / scale)``.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return Grid(_scale(max(-low, high) / ((1 << bits - 1) - 1)), np.zeros((), np.int64), SIGNED[bits])
    scale = _scale(high / ((1 << bits) - 1) - low / ((1 << bits) - 1))
    if low == 0:
        return Grid(scale, np.zeros((), np.int64), UNSIGNED[bits])
    least = -(1 << bits - 1)
    zero = np.clip(np.rint(least - low / float(scale)), least, -least - 1)
    return Grid(scale, zero.astype(np.int64), SIGNED[bits])


def _scale(steps: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """Scales as float32: 1 where the range is one number, and never 0."""
    values = np.asarray(steps, np.float64)
    return np.where(values > 0, np.clip(values, LEAST, np.finfo(np.float32).max), 1.0).astype(np.float32)


def _grids(place: Placement, ranges: Mapping[str, tuple[float, float]], bits: int, symmetric: bool) -> dict[str, Grid | Node]:
    """Quantiser of each rounded tensor: that of its representative, or the node that says it already."""
    unions: dict[str, tuple[float, float]] = {}
    fixed: dict[str, Grid] = {}
    even = {place.find(name) for name in place.symmetric}
    members: dict[str, list[str]] = defaultdict(list)
    for name in place.order:
        members[place.find(name)].append(name)
    for own, names in members.items():
        sure = [place.fixed(name) for name in names if name not in place.selected]
        ends = [ranges.get(name, (0.0, 1.0)) for name in names if name not in place.selected]
        ends += [_extremes(array) for name in names for array in _concatenated(place, name)]
        unions[own] = min(low for low, _ in ends) if ends else 0.0, max(high for _, high in ends) if ends else 0.0
        if own not in even and sure and all(kind == "Softmax" for kind in sure) and len(ends) == len(sure):
            fixed[own] = Grid(np.asarray(2.0**-bits, np.float32), np.zeros((), np.int64), UNSIGNED[bits])
        else:
            unit = bool(sure) and None not in sure and len(ends) == len(sure)
            fixed[own] = activation_grid(*unions[own], bits, own in even or (symmetric and not unit))
    return {name: place.existing.get(own, fixed[own]) for own, names in members.items() for name in names}


def _concatenated(place: Placement, name: str) -> list[Array]:
    """Constant parts of a Concat."""
    node = place.producers.get(name)
    if node is None or node.kind != "Concat":
        return []
    return [place.graph.constants[each] for each in node.inputs if each in place.graph.constants]


def _extremes(array: Array) -> tuple[float, float]:
    return (float(array.values.min()), float(array.values.max())) if array.values.size else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Weights:
    """How weights are quantised."""

    bits: int
    channel: bool
    search: bool

    def integers(self, array: Array, axis: int | None) -> tuple[Array, Grid]:
        """Integers and their quantiser, symmetric; `axis` runs along the output channels."""
        kind = SIGNED[self.bits]
        axis = axis if self.channel and axis is not None and array.values.shape[axis] > 1 else None
        shape = () if axis is None else (array.values.shape[axis],)
        if not array.known:
            return Array.unknown(array.values.shape, kind), Grid(np.ones(shape, np.float32), np.zeros(shape, np.int64), kind, axis)
        rows = np.moveaxis(array.values, axis or 0, 0).reshape(*shape, -1) if axis is not None else array.values.reshape(-1)
        most = (1 << self.bits - 1) - 1
        largest = np.abs(rows).max(axis=-1, initial=0.0).astype(np.float64)
        scale = self._searched(rows, largest) if self.search else _scale(largest / most)
        grid = Grid(scale, np.zeros(shape, np.int64), kind, axis)
        integers = np.clip(quantise(array.values.astype(np.float32), scale, grid.zero, KINDS[kind], axis), -most, most)
        return Array(integers.astype(np.int16 if self.bits == 16 else np.int8), kind), grid

    def _searched(self, rows: NDArray[Any], largest: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scales of the clipping ratios with the least squared error; of equals the widest."""
        most = (1 << self.bits - 1) - 1
        best, kept = np.full(largest.shape, math.inf), _scale(largest / most)
        for step in range(RATIOS, 0, -1):
            scale = _scale(largest * step / RATIOS / most)
            wide = scale[..., None]
            error = np.sum((np.clip(np.rint(rows / wide), -most, most) * wide - rows) ** 2, axis=-1, dtype=np.float64)
            better = error < best
            best, kept = np.where(better, error, best), np.where(better, scale, kept)
        return kept


def _insert(graph: Graph, place: Placement, grids: Mapping[str, Grid | Node], weights: _Weights) -> Graph:
    """Put the quantisers in."""
    editor = Editor(graph)
    read: dict[str, str] = {}  # what readers of a rounded tensor read

    def fake(name: str, source: str, output: str) -> None:
        """Quantise and dequantise one tensor."""
        grid = grids[name]
        integers = editor.fresh(f"{name}/quantised")
        if isinstance(grid, Grid):
            editor.shapes[source] = graph.shapes.get(name, ())
            editor.dequantise(editor.quantise(source, grid, integers), grid, output)
            return
        kept = {key: value for key, value in grid.attributes.items() if grid.kind == "QuantizeLinear" or key == "axis"}
        kind = _integers(graph, grid)
        editor.emit("QuantizeLinear", [source, *grid.inputs[1:]], integers, attributes=kept, shape=graph.shapes.get(name), element=kind)
        editor.emit("DequantizeLinear", [integers, *grid.inputs[1:]], output, shape=graph.shapes.get(name))

    for name in graph.inputs:
        if name in place.rounded:
            read[name] = editor.fresh(f"{name}/dequantised")
            fake(name, name, read[name])
    dequantised: dict[tuple[str, int | None], str] = {}
    for node in graph.nodes:
        inputs = [name if node.kind == "QuantizeLinear" else read.get(name, name) for name in node.inputs]
        weight = place.weight(node)
        if weight is not None:
            index, name = weight
            key = name, _filters(node, index, graph.constants[name].values.ndim)
            if key not in dequantised:
                array, grid = weights.integers(graph.constants[name], key[1])
                integers = editor.constant(f"{name}/quantised", array)
                dequantised[key] = editor.dequantise(integers, grid, editor.fresh(f"{name}/dequantised"))
            inputs[index] = dequantised[key]
        if node.kind == "Add" and node.outputs[0] in place.rounded:
            inputs = [_bounded(editor, place, grids, node, name) for name in inputs]
        if node.kind == "Concat" and node.outputs[0] in place.rounded:
            inputs = [_constant_part(editor, grids[node.outputs[0]], name) if name in graph.constants else name for name in inputs]
        outputs = {
            name: editor.fresh(f"{name}/float") if name in place.rounded and name in graph.outputs else name for name in node.outputs
        }
        editor.nodes.append(replace(node, inputs=tuple(inputs), outputs=tuple(outputs.values())))
        for name, source in outputs.items():
            if name not in place.rounded:
                continue
            editor.kinds[source] = TensorProto.FLOAT
            read[name] = name if source != name else editor.fresh(f"{name}/dequantised")
            fake(name, source, read[name])
    return editor.finish()


def _bounded(editor: Editor, place: Placement, grids: Mapping[str, Grid | Node], node: Node, name: str) -> str:
    """Bring an addend, -inf in a mask, into what changes the quantised sum: beyond, every sum saturates as it does at the bound."""
    array = editor.constants.get(name)
    others = [grids.get(place.states[each].base) if place.states[each].kind == "rounded" else None for each in place.operands(node)]
    own = grids[node.outputs[0]]
    if array is None or not array.known or len(others) != 1 or not isinstance(others[0], Grid) or not isinstance(own, Grid):
        return name
    (least, most), (low, high) = _ends(others[0]), _ends(own)
    values = np.clip(array.values, np.float32(low - most), np.float32(high - least))
    return name if np.array_equal(values, array.values) else editor.constant(f"{name}/bounded", Array.of(values.astype(np.float32)))


def _ends(grid: Grid) -> tuple[float, float]:
    """Least and largest real that the integers of a quantiser stand for."""
    form, scale, zero = KINDS[grid.kind], float(grid.scale), int(grid.zero)
    return (form.lo - zero) * scale, (form.hi - zero) * scale


def _constant_part(editor: Editor, grid: Grid | Node, name: str) -> str:
    """Quantise a constant that is concatenated to activations as they are."""
    array = editor.constants[name]
    if not isinstance(grid, Grid) or not array.known:
        return name
    integers = quantise(array.values.astype(np.float32), grid.scale, grid.zero, KINDS[grid.kind])
    kept = Array(integers.astype(Array.unknown((), grid.kind).values.dtype), grid.kind)
    return editor.dequantise(editor.constant(f"{name}/quantised", kept), grid, editor.fresh(f"{name}/dequantised"))


def _filters(node: Node, index: int, axes: int) -> int | None:
    """Axis of the weights along which the output's channels run; None where one scale must do."""
    if node.kind in ("Conv", "ConvTranspose"):
        return 0 if node.kind == "Conv" else 1
    if index != 1 or axes != 2:
        return None
    return 0 if node.kind == "Gemm" and node.attributes.get("transB", 0) else 1


def _integers(graph: Graph, node: Node) -> int:
    """Element type of the integers of a quantiser."""
    return evaluate.quantised_kind(graph, node) if node.kind == "QuantizeLinear" else graph.kinds[node.inputs[0]]
