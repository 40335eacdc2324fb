"""A network beside onnxruntime: which tensors differ, by how much, and whether what differs is explained.

Every operator is fed with onnxruntime's own integers of its inputs, so that errors do not add up, and its result is compared with
onnxruntime's and with the exact real result, rounded once (:mod:`accel.verification.exact`). A difference is explained where the exact
value is so near to a rounding tie that the accelerator's stated arithmetic, or float32, may round it to the other side. Where ours is not,
lowering or engine is at fault; where onnxruntime's is not, the operator is not what the graph says.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.engine import compute, simulate
from accel.errors import ToolError
from accel.formats import Rounding
from accel.graph import evaluate
from accel.graph.graph import Graph, Node
from accel.graph.network import Arithmetic, Host, Lookup, Move, Network, Operator, Tensor
from accel.schedule.lower import Layer, dense, eligible, lower, prune
from accel.sparsity import Pattern
from accel.special.units import error
from accel.verification.exact import Exact, results

SCHEMA_VERSION = 1
STEEP = ("Elu", "Erf", "Exp", "Sigmoid", "Softplus", "Tanh")  # functions that do not enlarge the error of their unit
FLOAT = 2.0**-18  # our choice: relative error of a nonlinear function in float32, 64 units of its last place


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a tensor is from another run of its network.

    Parameters
    ----------
    operator, kind : str
        What writes the tensor.
    tensor : str
    worst : int
        Largest difference [LSB].
    differing, elements : int
        Elements that differ, and all.
    """

    operator: str
    kind: str
    tensor: str
    worst: int
    differing: int
    elements: int


def run_onnxruntime(
    model: onnx.ModelProto | str | os.PathLike[str], inputs: Mapping[str, NDArray[Any]], *, optimise: bool = True
) -> dict[str, NDArray[Any]]:
    """Run an ONNX model in onnxruntime on the CPU.

    Parameters
    ----------
    model : ModelProto or path
    inputs : mapping of str to array
        By graph input.
    optimise : bool
        Let onnxruntime fuse quantised operators into its integer kernels; else every node runs as it is written.

    Returns
    -------
    dict of str to array
        By graph output.

    Raises
    ------
    ToolError
        If onnxruntime is missing or refuses the model.
    """
    session = _session(model, optimise)
    return dict(zip((output.name for output in session.get_outputs()), _run(session, inputs), strict=True))


def _session(model: onnx.ModelProto | str | os.PathLike[str], optimise: bool) -> Any:
    """Make a model ready to run on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolError("onnxruntime must be installed to compare with it (pip install onnxruntime), not missing") from error
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4  # fatal: what is raised is told, once
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(Path(model))
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base of its own
        raise ToolError(f"onnxruntime refuses the model: {error}") from error


def _run(session: Any, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    try:
        return list(session.run(None, dict(inputs)))
    except Exception as error:  # onnxruntime has no common base of its own
        raise ToolError(f"onnxruntime refuses the model: {error}") from error


def reference(network: Network, model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.int64]]:
    """Integers that onnxruntime, every node as it is written, finds for the tensors of a network.

    Parameters
    ----------
    network : Network
        Imported from `model`.
    model : ModelProto
    inputs : mapping of str to array
        By graph input.

    Returns
    -------
    dict of str to int64, shape (batch, *tensor shape)
        By tensor; those that exist only in the network are left out.

    Raises
    ------
    ToolError
        If onnxruntime is missing or refuses the model.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    written = {name for node in model.graph.node for name in node.output} | set(inputs)
    given = {output.name for output in model.graph.output}
    wanted = [name for name in network.tensors if name in written]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in given and name not in inputs)
    values = {**run_onnxruntime(whole, inputs, optimise=False), **inputs}
    shapes = {name: (len(values[name]), *network.tensors[name].onnx_shape) for name in wanted}
    return {name: network.tensors[name].from_onnx(values[name].reshape(shapes[name])) for name in wanted}


def differences(
    network: Network, expected: Mapping[str, NDArray[np.int64]], values: Mapping[str, NDArray[np.int64]]
) -> tuple[Difference, ...]:
    """Compare the tensors that two runs have in common, in execution order.

    Parameters
    ----------
    network : Network
    expected, values : mapping of str to int64, shape (batch, *tensor shape)
        By tensor.

    Returns
    -------
    tuple of Difference
    """
    found = []
    for operator in network.operators:
        if operator.output in expected and operator.output in values:
            gap = np.abs(values[operator.output] - expected[operator.output])
            counts = {"worst": int(gap.max(initial=0)), "differing": int(np.count_nonzero(gap)), "elements": gap.size}
            found.append(Difference(operator=operator.name, kind=operator.kind, tensor=operator.output, **counts))
    return tuple(found)


# Node by node.


@dataclass(slots=True, kw_only=True, eq=False)
class Check:
    """How the results of one node compare, over all samples.

    Parameters
    ----------
    node, kind, tensor : str
        The operator, and what it writes.
    elements : int
    compared : int
        Elements that onnxruntime has too.
    differing, worst, total : int
        Of those, how many differ from onnxruntime's, the largest difference and the sum of all [LSB].
    rounded : int or None
        Elements that differ from the exact result rounded once; None where no formula says the exact one.
    allowed : float
        How far the stated arithmetic lets a result be from the exact one before it is rounded, at most [LSB].
    saturated : int
        Results at an end of their range whose exact value lies beyond it; what a ReLU cuts off does not count.
    overflows : int
        Sums that overflowed the accumulator.
    unexplained : int
        Results that the accelerator's stated arithmetic does not allow.
    foreign : int
        Results of onnxruntime that float32 does not allow for this operator.
    """

    node: str
    kind: str
    tensor: str
    elements: int = 0
    compared: int = 0
    differing: int = 0
    worst: int = 0
    total: int = 0
    rounded: int | None = 0
    allowed: float = 0.0
    saturated: int = 0
    overflows: int = 0
    unexplained: int = 0
    foreign: int = 0

    @property
    def mean(self) -> float:
        """Mean difference from onnxruntime [LSB]."""
        return self.total / self.compared if self.compared else 0.0

    @property
    def explained(self) -> bool:
        """Whether every difference is."""
        return not self.unexplained and not self.foreign

    @property
    def fault(self) -> str:
        """What is not explained, as a sentence."""
        if self.unexplained:
            rule = f"within the stated arithmetic of the exact value, not beyond it in {self.unexplained} of {self.elements} elements"
        else:
            rule = f"those of onnxruntime up to a rounding tie, not others in {self.foreign} of {self.compared} elements"
        lost = f" ({self.overflows} sums overflowed the accumulator)" if self.overflows else ""
        return f"results of node {self.node!r} ({self.kind}) must be {rule}{lost}"

    def compare(self, ours: NDArray[np.int64], theirs: NDArray[np.int64] | None) -> int:
        """Count what differs from onnxruntime, if it has the tensor, and return how many elements do."""
        self.elements += ours.size
        if theirs is None:
            return 0
        gap = np.abs(ours - theirs)
        differing = int(np.count_nonzero(gap))
        self.compared += gap.size
        self.worst = max(self.worst, int(gap.max(initial=0)))
        self.total += int(gap.sum())
        self.differing += differing
        return differing

    def facts(self) -> dict[str, Any]:
        """Give what JSON holds."""
        return {**dataclasses.asdict(self), "mean": self.mean, "explained": self.explained}


@dataclass(slots=True, kw_only=True, eq=False)
class Loss:
    """What quantising a float tensor costs, over all samples.

    Parameters
    ----------
    tensor : str
    worst : float
        Largest difference of the quantised graph's real value from that of the float graph.
    signal, noise : float
        Sums of squares of the float values, and of the differences.
    """

    tensor: str
    worst: float = 0.0
    signal: float = 0.0
    noise: float = 0.0

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise [dB]; infinite without noise."""
        return math.inf if not self.noise else -math.inf if not self.signal else 10 * math.log10(self.signal / self.noise)

    def add(self, expected: NDArray[Any], found: NDArray[Any]) -> None:
        """Take in a sample."""
        gap = expected.astype(np.float64).ravel() - found.astype(np.float64).ravel()
        self.worst = max(self.worst, float(np.abs(gap).max(initial=0)))
        self.signal += float((expected.astype(np.float64) ** 2).sum())
        self.noise += float((gap**2).sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """What a verification found.

    Parameters
    ----------
    network : str
    config : AcceleratorConfig
    samples : int
    checks : tuple of Check
        In execution order.
    outputs : tuple of Difference
        Of the network's outputs, from end to end.
    file : tuple of Difference or str
        Of the outputs that onnxruntime gives for the file as it is, from those for the graph made of it; or why there are none.
    losses : tuple of Loss
        Of a float network; else none.
    """

    network: str
    config: AcceleratorConfig
    samples: int
    checks: tuple[Check, ...]
    outputs: tuple[Difference, ...]
    file: tuple[Difference, ...] | str = ""
    losses: tuple[Loss, ...] = ()

    @property
    def first(self) -> Check | None:
        """The first node that is not explained."""
        return next((check for check in self.checks if not check.explained), None)

    def to_json(self) -> str:
        """Write it for programs."""
        facts = {
            "schema_version": SCHEMA_VERSION,
            "network": self.network,
            "config": dataclasses.asdict(self.config),
            "samples": self.samples,
            "first_unexplained": None if self.first is None else self.first.node,
            "nodes": [check.facts() for check in self.checks],
            "outputs": [dataclasses.asdict(each) for each in self.outputs],
            "file": self.file if isinstance(self.file, str) else [dataclasses.asdict(each) for each in self.file],
            "float": [{"tensor": each.tensor, "worst": each.worst, "sqnr_db": _finite(each.sqnr)} for each in self.losses],
        }
        return json.dumps(facts, indent=1) + "\n"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def verify(
    network: Network,
    graph: Graph,
    config: AcceleratorConfig,
    inputs: Mapping[str, NDArray[Any]],
    *,
    pattern: str | None = None,
    original: Graph | None = None,
    file: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Run a network node by node beside the graph it was imported from, sample by sample.

    Parameters
    ----------
    network : Network
    graph : Graph
        Canonical; what onnxruntime runs, every node as it is written.
    config : AcceleratorConfig
    inputs : mapping of str to array
        Samples by graph input; see :func:`accel.graph.evaluate.run`.
    pattern : str, optional
        See :func:`accel.engine.simulate`. What it prunes is compared with the exact result only.
    original : Graph, optional
        The float graph that was quantised.
    file : path, optional
        What the graph was made of: the outputs of a quantised file are compared too.
    progress : callable, optional
        Called with (samples done, samples in all, what is next).

    Returns
    -------
    Report

    Raises
    ------
    RangeError
        If the inputs are not those of the network.
    NetworkError
        If the graph cannot be run, or a layer does not fit the accelerator.
    """
    asked = None if pattern is None else dense(config) if pattern == "dense" else Pattern.parse(pattern)
    layers = lower(network, config, pattern=asked)
    stated = {layer.operator.name: layer.operator for layer in layers}  # the operators as they run
    pruned = eligible(network) if asked and asked != dense(config) else frozenset()
    stated |= {product.name: prune(product, asked) for product in network.products if asked and product.name in pruned}
    arrays = evaluate.checked(graph, inputs)
    trace, count = _Trace.of(network, graph), len(next(iter(arrays.values())))
    fed = [(port, Check(node=port.name, kind="input", tensor=port.tensor)) for port in network.inputs if port.real]
    checks = [Check(node=layer.operator.name, kind=layer.operator.kind, tensor=layer.output.name) for layer in layers]
    losses = trace.losses(original)
    floats = evaluate.samples(original, arrays, list(losses)) if original is not None and losses else iter([{}] * count)
    ends: dict[str, list[NDArray[np.int64]]] = {port.tensor: [] for port in network.outputs}
    for at, (found, real) in enumerate(zip(evaluate.samples(graph, arrays, trace.wanted), floats, strict=True)):
        if progress:
            progress(at, count, "next sample")
        step = _Step(config=config, trace=trace, found=found, known=trace.integers(found))
        for port in network.inputs:
            tensor = network.tensors[port.tensor]
            given = arrays[port.name][at].reshape(1, *tensor.onnx_shape)
            step.known.setdefault(port.tensor, tensor.quantise(given) if port.real else tensor.from_onnx(given))
        for port, check in fed:
            tensor = network.tensors[port.tensor]
            ours = tensor.quantise(arrays[port.name][at].reshape(1, *tensor.onnx_shape))
            check.unexplained += check.compare(ours, step.known[port.tensor])
        for check, layer in zip(checks, layers, strict=True):
            step.check(check, layer, stated[layer.operator.name], layer.operator.name in pruned)
        for name, parts in ends.items():
            parts.append(step.known[name])
        for name, loss in losses.items():
            loss.add(real[name], trace.real(name, found))
    shaped = {port.name: arrays[port.name].reshape(count, *network.tensors[port.tensor].onnx_shape) for port in network.inputs}
    result = simulate(network, config, shaped, pattern=pattern)
    expected = {port.name: np.concatenate(ends[port.tensor]) for port in network.outputs}
    outputs = {port.name: network.tensors[port.tensor].from_onnx(result.outputs[port.name]) for port in network.outputs}
    return Report(
        network=network.name,
        config=config,
        samples=count,
        checks=(*(check for _, check in fed), *checks),
        outputs=_apart(outputs, expected),
        file="" if file is None or original is not None else _against(network, graph, arrays, file, expected),
        losses=tuple(losses.values()),
    )


def _apart(found: Mapping[str, NDArray[np.int64]], expected: Mapping[str, NDArray[np.int64]]) -> tuple[Difference, ...]:
    """Compare outputs by name."""
    differences = []
    for name, values in expected.items():
        gap = np.abs(found[name] - values)
        counts = {"worst": int(gap.max(initial=0)), "differing": int(np.count_nonzero(gap)), "elements": gap.size}
        differences.append(Difference(operator="", kind="output", tensor=name, **counts))
    return tuple(differences)


def _against(
    network: Network,
    graph: Graph,
    arrays: Mapping[str, NDArray[Any]],
    file: str | os.PathLike[str],
    expected: Mapping[str, NDArray[np.int64]],
) -> tuple[Difference, ...] | str:
    """Run a file as it is, and compare its outputs with those of the graph; or tell why that cannot be."""
    shapes = {name: tuple(size if isinstance(size, int) else 1 for size in given.shape) for name, given in graph.inputs.items()}
    found: dict[str, list[NDArray[np.int64]]] = {name: [] for name in expected}
    try:
        session = _session(file, optimise=False)
        names = [output.name for output in session.get_outputs()]
        for at in range(len(next(iter(arrays.values())))):
            values = dict(zip(names, _run(session, {name: arrays[name][at].reshape(shapes[name]) for name in shapes}), strict=True))
            for port in network.outputs:
                tensor = network.tensors[port.tensor]
                shaped = np.asarray(values[port.name]).reshape(1, *tensor.onnx_shape)
                found[port.name].append(tensor.from_onnx(shaped) if shaped.dtype.kind in "iu" else tensor.quantise(shaped))
    except ToolError as error:
        return f"the file as it is was not compared: {str(error).splitlines()[0][:200]}"
    return _apart({name: np.concatenate(parts) for name, parts in found.items()}, expected)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trace:
    """Where the tensors of a network are in its graph.

    Parameters
    ----------
    network : Network
    held : frozenset of str
        Tensors that hold the same integers as the graph's of their name.
    fixed, moved : dict of str to str
        Graph tensor, by tensor: of the reals that the host made integers of; of the same integers in other places.
    quantisers : dict of str to Node
        QuantizeLinear that writes the tensor in the graph.
    """

    network: Network
    held: frozenset[str]
    fixed: dict[str, str]
    moved: dict[str, str]
    quantisers: dict[str, Node]

    @classmethod
    def of(cls, network: Network, graph: Graph) -> _Trace:
        """Find them by name."""
        writers = {name: node for node in graph.nodes for name in node.outputs}
        names = writers.keys() | graph.inputs.keys()
        held = frozenset(name for name in network.tensors if name in names)

        def ending(suffix: str) -> dict[str, str]:
            found = {name: name.removesuffix(suffix) for name in network.tensors if name.endswith(suffix) and name not in held}
            return {name: source for name, source in found.items() if source in names}

        quantisers = {name: writers[name] for name in held if name in writers and writers[name].kind == "QuantizeLinear"}
        return cls(network=network, held=held, fixed=ending("/fixed"), moved=ending("/stored"), quantisers=quantisers)

    @property
    def wanted(self) -> list[str]:
        """Tensors of the graph to look at."""
        without = [operator.output for operator in self.network.operators if isinstance(operator, Lookup | Host)]  # a formula
        before = [self.quantisers[name].inputs[0] for name in without if name in self.quantisers]
        return list(dict.fromkeys([*sorted(self.held), *self.fixed.values(), *self.moved.values(), *before]))

    def losses(self, original: Graph | None) -> dict[str, Loss]:
        """Make a loss for each quantised float tensor that the float graph has too, in the order of the operators."""
        if original is None:
            return {}
        names = {name for node in original.nodes for name in node.outputs}
        outputs = [self.quantisers[operator.output].inputs[0] for operator in self.network.operators if operator.output in self.quantisers]
        return {name: Loss(tensor=name) for name in outputs if name in names}

    def integers(self, found: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.int64]]:
        """Bring a sample's tensors into the order and signedness of the network, each of shape (1, *tensor shape)."""
        known = {}
        for name in [*self.held, *self.fixed]:
            tensor, values = self.network.tensors[name], np.asarray(found[self.fixed.get(name, name)])
            if values.size == tensor.size and (name in self.fixed or values.dtype.kind in "iu"):
                shaped = values.reshape(1, *tensor.onnx_shape)
                known[name] = tensor.quantise(shaped) if name in self.fixed else tensor.from_onnx(shaped)
        return known

    def real(self, name: str, found: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Real values of the integers that a quantiser made of a float tensor."""
        tensor = next(self.network.tensors[output] for output, node in self.quantisers.items() if node.inputs[0] == name)
        return (np.asarray(found[tensor.name], np.float64) - tensor.zero_point - tensor.offset) * tensor.scale


@dataclass(slots=True, kw_only=True, eq=False)
class _Step:
    """One sample on its way through the network.

    Parameters
    ----------
    config : AcceleratorConfig
    trace : _Trace
    found : mapping of str to array
        Tensors of the graph.
    known : dict of str to int64
        Integers by tensor: onnxruntime's, or ours where it has none.
    own : set of str
        Tensors that are ours and may differ from what onnxruntime would have.
    """

    config: AcceleratorConfig
    trace: _Trace
    found: Mapping[str, NDArray[Any]]
    known: dict[str, NDArray[np.int64]]
    own: set[str] = field(default_factory=set)

    def check(self, check: Check, layer: Layer, stated: Operator, pruned: bool) -> None:
        """Compute a layer from known integers and compare it; where onnxruntime has no such tensor, ours is known from here on."""
        name, own = layer.output.name, not self.own.isdisjoint(stated.inputs)
        inputs = [self.known[each] for each in stated.inputs]
        values, lost = compute(self.config, layer, inputs)
        ours = values.astype(np.int64).reshape(1, *layer.output.shape)
        check.overflows += lost
        theirs = None if own or pruned else self.known.get(name)
        check.compare(ours, theirs)
        if name not in self.known:
            self.known[name] = ours
            if own or not (isinstance(stated, Move) or self._elsewhere(check, layer.output, ours)):
                self.own.add(name)
        result = results(stated, self.config, (*layer.inputs, layer.output), inputs)
        if result is not None:
            lo, hi, zero, rounding = -math.inf, math.inf, 0, Rounding.HALF_EVEN
            if isinstance(stated, Arithmetic):
                lo, hi, zero, rounding = stated.lo, stated.hi, stated.zero_point, stated.rounding
            judge(check, result, ours - zero, None if theirs is None else theirs - zero, (lo - zero, hi - zero), rounding)
            return
        real = None if theirs is None else self._real(layer.output)
        if real is None:
            check.rounded = None
            return
        reals, (lo, hi), rounding = real
        float32 = np.asarray(FLOAT * np.abs(reals).max(initial=0))
        units = self._units(stated, layer) if isinstance(stated, Lookup) else 0.0
        zero = layer.output.zero_point
        judge(check, Exact(reals, units + float32, float32), ours - zero, None, (lo - zero, hi - zero), rounding)

    def _real(self, tensor: Tensor) -> tuple[NDArray[np.float64], tuple[int, int], Rounding] | None:
        """Find the reals that onnxruntime quantises to a tensor [LSB], bounds and rounding: of what no formula says."""
        lo, hi, rounding = tensor.format.lo, tensor.format.hi, Rounding.HALF_EVEN
        if tensor.name in self.trace.quantisers:
            node = self.trace.quantisers[tensor.name]
            source, rounding = node.inputs[0], Rounding(node.attributes.get("rounding", "half_even"))
            lo, hi = (node.attributes.get(name, end + tensor.offset) - tensor.offset for name, end in (("lo", lo), ("hi", hi)))
        elif tensor.name in self.trace.fixed:
            source = self.trace.fixed[tensor.name]
        else:
            return None
        values = np.asarray(self.found[source], np.float64).reshape(1, *tensor.onnx_shape)
        return values.transpose(0, *(axis + 1 for axis in tensor.axes)) / tensor.scale, (lo, hi), rounding

    def _units(self, operator: Lookup, layer: Layer) -> float:
        """Find what the units of a table add to its rounding [LSB]: their error, enlarged by an operand that multiplies them."""
        (source,), output = layer.inputs, layer.output
        reach = max(abs(end - source.zero_point) for end in (source.format.lo, source.format.hi)) * source.scale
        steep = 1.0 if operator.kind in STEEP else max(reach, 1.0)
        return sum(error(name, max(source.bits, output.bits)) for name in operator.units) * steep / output.scale

    def _elsewhere(self, check: Check, tensor: Tensor, ours: NDArray[np.int64]) -> bool:
        """Compare with integers that lie in other places in the graph, both in ascending order; whether they are the same."""
        if tensor.name not in self.trace.moved:
            return False
        theirs = np.asarray(self.found[self.trace.moved[tensor.name]])
        if theirs.dtype.kind not in "iu" or theirs.size != ours.size:
            return False
        check.elements -= ours.size
        return not check.compare(np.sort(ours, axis=None), np.sort(theirs.astype(np.int64) - tensor.offset, axis=None))


def judge(
    check: Check,
    result: Exact,
    ours: NDArray[np.int64],
    theirs: NDArray[np.int64] | None,
    bounds: tuple[float, float],
    rounding: Rounding,
) -> None:
    """Compare integers with the exact results, rounded once, and count what the stated arithmetic does not allow.

    Rounding never reverses an order: an arithmetic that is off by e before it rounds gives what lies between the roundings of the exact
    value less e and of that and e.

    Parameters
    ----------
    check : Check
        Where it is counted.
    result : Exact
    ours, theirs : int64, shape of the result
        Less the zero point; `theirs` None where onnxruntime has none.
    bounds : tuple of float
        Least and greatest integer, less the zero point.
    rounding : Rounding
    """

    def rounded(real: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = np.floor(real + 0.5) if rounding is Rounding.HALF_UP else np.floor(real) if rounding is Rounding.FLOOR else np.rint(real)
        return np.asarray(np.clip(whole, *bounds))

    def beyond(found: NDArray[np.int64], allowed: NDArray[np.float64]) -> int:
        return int(np.count_nonzero((found < rounded(result.real - allowed)) | (found > rounded(result.real + allowed))))

    once = rounded(result.real)
    check.rounded = (check.rounded or 0) + int(np.count_nonzero(ours != once))
    check.allowed = max(check.allowed, float(np.max(result.ours, initial=0)))
    check.unexplained += beyond(ours, result.ours)
    check.saturated += int(np.count_nonzero((result.real > bounds[1] + 0.5) & (ours == bounds[1])))
    if bounds[0]:  # else it is a ReLU, or the type begins at 0
        check.saturated += int(np.count_nonzero((result.real < bounds[0] - 0.5) & (ours == bounds[0])))
    if theirs is not None:
        check.foreign += beyond(theirs, result.theirs)
