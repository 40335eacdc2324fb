"""Float evaluation of a graph, sample by sample: by onnxruntime where it is installed, else by the reference evaluator in onnx.

Every node runs as it is written (no fusion), on one thread: the same machine gives the same bits in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto

from accel.errors import NetworkError, RangeError
from accel.graph.graph import FOUR_BIT, INTEGERS, Array, Given, Graph, Node

MESSAGE = 1 << 30  # [bytes] of constants that are written into a model, which protobuf limits to 2**31; larger ones are fed at each run
LARGE = 1 << 16  # [bytes] of a constant that is fed in that case
QUANTISED = 21  # the first opset whose quantisers know 4 and 16 bits
NARROW = (TensorProto.UINT4, TensorProto.INT4, TensorProto.UINT16, TensorProto.INT16)

Progress = Callable[[int, int], None]


class Session:
    """A graph made ready to run, one sample at a time.

    Parameters
    ----------
    graph : Graph
        Bound and folded; quantisers may carry `lo`, `hi` and `rounding`.
    wanted : sequence of str, optional
        Tensors to return, any of the graph's; its outputs if left out.

    Raises
    ------
    NetworkError
        If a tensor is unknown, a constant is known by its shape alone, or the graph cannot be run.
    """

    def __init__(self, graph: Graph, wanted: Sequence[str] | None = None) -> None:
        self.wanted = tuple(dict.fromkeys(graph.outputs if wanted is None else wanted))
        made = {name for node in graph.nodes for name in node.outputs}
        at_hand = {name: given.kind for name, given in graph.inputs.items()} | {name: array.kind for name, array in graph.constants.items()}
        for name in self.wanted:
            if name not in made and name not in at_hand:
                raise NetworkError(f"wanted tensor must be one of graph {graph.name!r}, not {name!r}")
        for name, array in graph.constants.items():
            if not array.known:
                raise NetworkError(f"constant {name!r} must be known to run graph {graph.name!r}, not its shape alone")
        self.fed = _to_feed(graph)
        run = plain(_reduced(graph, [name for name in self.wanted if name in made]))
        inputs = {name: given for name, given in graph.inputs.items() if any(name in node.inputs for node in run.nodes)}
        fed = {name: Given(array.kind, array.values.shape) for name, array in self.fed.items()}
        self.inputs, self.made = tuple(inputs), run.outputs
        self.constants = {name: graph.constants[name].values for name in self.wanted if name in graph.constants}
        constants = {name: array for name, array in run.constants.items() if name not in fed}
        self._run = _backend(replace(run, inputs=inputs | fed, constants=constants)) if run.nodes else lambda feeds: []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one sample.

        Parameters
        ----------
        feeds : mapping of str to array
            By graph input, of the shape the graph states.

        Returns
        -------
        dict of str to array
            By wanted tensor.
        """
        given = {name: feeds[name] for name in self.inputs} | {name: array.values for name, array in self.fed.items()}
        found = dict(zip(self.made, self._run(given), strict=True))
        return {
            name: found[name] if name in found else self.constants[name] if name in self.constants else feeds[name] for name in self.wanted
        }


def samples(graph: Graph, inputs: Mapping[str, ArrayLike], wanted: Sequence[str] | None = None) -> Iterator[dict[str, NDArray[Any]]]:
    """Run a graph on samples, one after the other, in the memory of one.

    Parameters
    ----------
    graph : Graph
    inputs : mapping of str to array_like
        See :func:`run`.
    wanted : sequence of str, optional
        See :class:`Session`.

    Yields
    ------
    dict of str to array
        The wanted tensors of one sample, in the shapes the graph states.

    Raises
    ------
    NetworkError
        See :class:`Session`.
    RangeError
        If the inputs are not those of the graph.
    """
    arrays = checked(graph, inputs)
    session = Session(graph, wanted)
    for index in range(len(next(iter(arrays.values())))):
        yield session.run({name: np.asarray(array[index]).reshape(_shape(graph.inputs[name])) for name, array in arrays.items()})


def run(
    graph: Graph, inputs: Mapping[str, ArrayLike], wanted: Sequence[str] | None = None, progress: Progress | None = None
) -> dict[str, NDArray[Any]]:
    """Run a graph on samples.

    Parameters
    ----------
    graph : Graph
        Bound and folded.
    inputs : mapping of str to array_like
        Samples of each graph input: of its shape with any extent on axis 0 if the graph's is 1, or with an axis of samples in front.
    wanted : sequence of str, optional
        See :class:`Session`.
    progress : callable, optional
        Told the samples done and all samples after each.

    Returns
    -------
    dict of str to array
        Wanted tensors: one behind the other along axis 0 where the graph's extent there is 1, else stacked.

    Raises
    ------
    NetworkError
        See :class:`Session`.
    RangeError
        If the inputs are not those of the graph.
    """
    arrays = checked(graph, inputs)
    total = len(next(iter(arrays.values())))
    kept: dict[str, list[NDArray[Any]]] = {}
    for done, tensors in enumerate(samples(graph, arrays, wanted), start=1):
        for name, values in tensors.items():
            kept.setdefault(name, []).append(values)
        if progress:
            progress(done, total)
    return {name: (np.concatenate if values[0].shape[:1] == (1,) else np.stack)(values) for name, values in kept.items()}


def checked(graph: Graph, inputs: Mapping[str, ArrayLike], what: str = "inputs") -> dict[str, NDArray[Any]]:
    """Check samples of every graph input and return them, shape (samples, ...), in the types the graph states.

    Parameters
    ----------
    graph : Graph
    inputs : mapping of str to array_like
        Reals may be given as integers.
    what : str
        What messages call them.

    Raises
    ------
    RangeError
        If an input is missing or unknown, has another shape or type, or there is no sample.
    """
    if set(inputs) != set(graph.inputs):
        raise RangeError(f"{what} must be {', '.join(map(repr, graph.inputs)) or 'none'}, not {', '.join(map(repr, inputs)) or 'none'}")
    if not inputs:
        raise RangeError(f"graph {graph.name!r} must have an input to be run on samples, not none")
    arrays = {}
    for name, given in graph.inputs.items():
        shape, dtype = _shape(given), onnx.helper.tensor_dtype_to_np_dtype(given.kind)
        label = f"{what.removesuffix('s')} {name!r}"
        try:
            array = np.asarray(inputs[name])
        except ValueError:
            raise RangeError(f"{label} must be an array, not lists of different lengths") from None
        rest = shape[1:] if shape[:1] == (1,) and array.shape[1:] != shape else shape
        if array.shape[1:] != rest or array.ndim != len(rest) + 1 or not len(array):
            raise RangeError(f"{label} must be of shape (samples, {', '.join(map(str, rest))}), not {array.shape}")
        whole = dtype.kind in "iub" or given.kind in FOUR_BIT  # whose type is no integer of numpy's
        if array.dtype != dtype and array.dtype.kind not in ("iub" if whole else "fiu"):
            raise RangeError(f"{label} must be of type {dtype}, not {array.dtype}")
        arrays[name] = array.astype(dtype, copy=False)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise RangeError(f"{what} must have as many samples each, not {lengths}")
    return arrays


def plain(graph: Graph) -> Graph:
    """Write quantisers with `lo`, `hi` or `rounding` as operators that every tool runs.

    ``clip(q, lo, hi)`` is taken of the integers after the quantiser. Rounding other than half to even takes its steps one by one in
    float32: quotient, floor (of the quotient and a half for "half_up"), zero point, clip, cast.
    """
    nodes: list[Node] = []
    constants = dict(graph.constants)
    kinds = dict(graph.kinds)

    def constant(name: str, values: Any, kind: int) -> str:
        constants[name] = Array(np.asarray(values, onnx.helper.tensor_dtype_to_np_dtype(kind)), kind)
        return name

    for node in graph.nodes:
        extra = {name: node.attributes[name] for name in ("lo", "hi", "rounding") if name in node.attributes}
        if node.kind != "QuantizeLinear" or not extra:
            nodes.append(node)
            continue
        kind = quantised_kind(graph, node)
        kept = {name: value for name, value in node.attributes.items() if name not in extra}
        bits, signed = INTEGERS[kind]
        least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        low, high = max(int(extra.get("lo", least)), least), min(int(extra.get("hi", most)), most)
        output = node.outputs[0]
        steps = f"{output}/steps"
        bounds = (constant(f"{output}/lo", low, TensorProto.INT32), constant(f"{output}/hi", high, TensorProto.INT32))
        if extra.get("rounding", "half_even") == "half_even":
            nodes.append(replace(node, outputs=(f"{output}/rounded",), attributes=kept))
            nodes.append(Node(steps, "Cast", (f"{output}/rounded",), (steps,), {"to": TensorProto.INT32}))
        else:
            nodes.extend(_spelled(graph, node, str(extra["rounding"]), steps, constant))
        nodes.append(Node(f"{output}/clip", "Clip", (steps, *bounds), (f"{output}/clipped",)))
        nodes.append(Node(f"{output}/cast", "Cast", (f"{output}/clipped",), (output,), {"to": kind}))
    narrow = any(kind in NARROW for kind in [*kinds.values(), *(array.kind for array in constants.values())])
    return replace(graph, nodes=tuple(nodes), constants=constants, opset=max(graph.opset, QUANTISED) if narrow else graph.opset)


def quantised_kind(graph: Graph, node: Node) -> int:
    """Element type that a QuantizeLinear gives."""
    zero = node.inputs[2] if len(node.inputs) > 2 else ""
    if zero:
        return graph.constants[zero].kind
    return int(node.attributes.get("output_dtype", 0)) or int(TensorProto.UINT8)


def _spelled(graph: Graph, node: Node, rounding: str, steps: str, constant: Callable[[str, Any, int], str]) -> list[Node]:
    """Quotient, floor and zero point of a quantiser that does not round half to even; its parameters are those of a whole tensor."""
    output, scale, zero = node.outputs[0], node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else ""
    if graph.constants[scale].values.size != 1:
        raise NetworkError(
            f"scale of {node} must be one number where rounding is {rounding!r}, not of shape {graph.constants[scale].values.shape}"
        )
    offset = 0.0 if not zero else float(graph.constants[zero].values.astype(np.int64).item())
    half = constant(f"{output}/half", 0.5 if rounding == "half_up" else 0.0, TensorProto.FLOAT)
    point = constant(f"{output}/zero", offset, TensorProto.FLOAT)
    chain = [("Div", scale), ("Add", half), ("Floor", ""), ("Add", point)]
    nodes, value = [], node.inputs[0]
    for index, (kind, other) in enumerate(chain):
        made = f"{output}/{index}"
        nodes.append(Node(made, kind, (value, other) if other else (value,), (made,)))
        value = made
    # Beyond int32 a cast is undefined; every type here is narrower.
    ends = [constant(f"{output}/{name}", end, TensorProto.FLOAT) for name, end in (("least", -(2.0**30)), ("most", 2.0**30))]
    nodes.append(Node(f"{output}/ends", "Clip", (value, *ends), (f"{output}/ended",)))
    nodes.append(Node(steps, "Cast", (f"{output}/ended",), (steps,), {"to": TensorProto.INT32}))
    return nodes


def _reduced(graph: Graph, outputs: Sequence[str]) -> Graph:
    """Keep the part of a graph that these tensors need."""
    needed = set(outputs)
    nodes = []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            nodes.append(node)
            needed.update(node.inputs)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(nodes)), constants=constants, outputs=tuple(outputs))


def _to_feed(graph: Graph) -> dict[str, Array]:
    """Constants that do not fit into a model."""
    if sum(array.values.nbytes for array in graph.constants.values()) < MESSAGE:
        return {}
    return {name: array for name, array in graph.constants.items() if array.values.nbytes >= LARGE and array.kind == TensorProto.FLOAT}


def _shape(given: Given) -> tuple[int, ...]:
    """Shape of a graph input; sizes that are still open are 1."""
    return tuple(size if isinstance(size, int) else 1 for size in given.shape)


def _backend(graph: Graph) -> Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]:
    """Make a function that runs the graph: feeds to outputs in order."""
    model = graph.to_model()
    try:
        import onnxruntime
    except ImportError:
        return _reference(model, graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal: what is raised is told, once
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime has no common base of its own; what it does not know the reference may
        return _reference(model, graph)

    def run(feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            return list(session.run(list(graph.outputs), dict(feeds)))
        except Exception:  # what it has no kernel for shows only here, such as weights with a zero point for each channel
            return _reference(model, graph)(feeds)

    return run


def _reference(model: onnx.ModelProto, graph: Graph) -> Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]:
    """Make it of the reference evaluator: slow, and complete."""
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(model)
    except Exception as error:  # raised for whatever it does not know, of many types
        raise NetworkError(f"graph {graph.name!r} must be one that can be run, not one that gives: {error}") from error

    def run(feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            with np.errstate(all="ignore"):
                return [np.asarray(value) for value in evaluator.run(list(graph.outputs), dict(feeds))]
        except Exception as error:
            raise NetworkError(f"graph {graph.name!r} must be one that can be run, not one that gives: {error}") from error

    return run
