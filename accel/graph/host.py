"""Islands of float: what only the host computes, as the smallest graph between tensors of the network and a quantiser."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from onnx import TensorProto

from accel.errors import NetworkError
from accel.formats import Rounding
from accel.graph.builder import REAL, WHOLE, Activation, Builder, Constant, Draft, Float, Form, Quantiser, Source, image_order, sample
from accel.graph.graph import FLOATS, Array, Given, Graph, Node
from accel.graph.network import Host, Tensor
from accel.graph.operators.registry import STORED

Step = tuple[str, tuple[str, ...], dict[str, int]]  # a node of a chain: its operator, inputs but the first, and attributes


def compute(builder: Builder, name: str, quantiser: Quantiser, output: str) -> Activation:
    """Let the host compute an ONNX tensor and quantise it: the float nodes behind it become one operator.

    Parameters
    ----------
    builder : Builder
    name : str
        ONNX tensor that no tensor of the network holds.
    quantiser : Quantiser
    output : str
        Name of the tensor that will hold the integers.

    Returns
    -------
    Activation
        Integers.
    """
    shape = builder.graph.shapes.get(name)
    if shape is None:
        raise NetworkError(f"shape of {name!r}, which the host computes, must be fixed, not open")
    key = (name, quantiser)
    if key not in builder.rounded:
        island = _Island(builder)
        island.need(name)
        if not island.inputs:
            raise NetworkError(f"{name!r}, which the host computes, must depend on an input, not on constants alone")
        result = island.finish(name, quantiser, (1, *sample(shape)), shape)
        order = image_order(sample(shape)) if len(shape) == 4 else tuple(range(len(sample(shape))))
        stored = tuple(sample(shape)[axis] for axis in order)
        tensor = builder.tensor(output, stored, order, quantiser.form)
        last = builder.writers.get(name)  # none of a graph input
        label, kind = (last.name, last.kind) if last else (output, "QuantizeLinear")
        inputs = tuple(each.name for each in island.inputs.values())
        builder.operate(Host(name=label, kind=kind, inputs=inputs, output=tensor.name, graph=island.graph(result)))
        builder.rounded[key] = Activation(tensor=tensor, shape=tuple(shape), real=False)
    return builder.rounded[key]


@dataclass(slots=True)
class _Island:
    """Nodes behind a float tensor, up to the tensors of the network."""

    builder: Builder
    inputs: dict[str, Tensor] = field(default_factory=dict)
    given: dict[str, Given] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def need(self, name: str) -> None:
        """Add what computes a tensor."""
        pending = [(name, False)]  # depth first, without recursion: islands may be deep
        while pending:
            each, done = pending.pop()
            if done:
                node = self.builder.writers[each]
                self.nodes.append(node)
                continue
            if each in self.seen:
                continue
            self.seen.add(each)
            value = self.builder.exact(each)
            match value:
                case Constant():
                    plain = value.scale is None
                    self.constants[each] = (
                        Array(value.values, value.kind, value.known) if plain else Array.of(value.real.astype(np.float32))
                    )
                case Activation():
                    self._enter(each, value)
                case Source():
                    real = value.kind in FLOATS
                    form, label = (REAL, f"{each}/fixed") if real else (WHOLE, each)
                    self._enter(each, replace(self.builder.receive(value, form, label, real), real=real))
                case Draft() | Float():
                    node = self.builder.writers[each]
                    self.seen.update(node.outputs)
                    pending.append((each, True))
                    pending.extend((source, False) for source in node.inputs if source)

    def _enter(self, name: str, value: Activation) -> None:
        """Take in a tensor of the network, dequantised, in the shape it is seen in; integers become integers again."""
        if value.index is None:  # the island reshapes it
            value = replace(value, shape=(1, *value.tensor.onnx_shape))
        tensor = self.builder.own(value)
        shape, seen = (1, *tensor.onnx_shape), self.builder.graph.shapes.get(name, value.shape)
        steps: list[Step] = []
        if shape != seen:
            self.constants[f"{name}/shape"] = Array.of(np.array(seen, np.int64))
            steps.append(("Reshape", (f"{name}/shape",), {}))
        kind = self.builder.graph.kinds.get(name, TensorProto.FLOAT)
        if not value.real and Form.of(tensor) != WHOLE:
            own = STORED[tensor.bits, tensor.unsigned]
            self.constants[f"{name}/scale"] = Array.of(np.float32(tensor.scale))
            self.constants[f"{name}/zero"] = Array(np.array(tensor.zero_point + tensor.offset), own)
            steps.append(("QuantizeLinear", (f"{name}/scale", f"{name}/zero"), {}))
        elif kind != TensorProto.FLOAT:
            steps.append(("Cast", (), {"to": kind}))
        port = f"{name}/real" if steps else name
        self.inputs[port], self.given[port] = tensor, Given(TensorProto.FLOAT, shape)
        self._chain(port, steps, name)

    def finish(self, name: str, quantiser: Quantiser, shape: tuple[int, ...], seen: tuple[int, ...]) -> str:
        """Bring the result into float32, rounding and bounds that differ from the output form's, and its shape; return its name."""
        steps: list[Step] = []

        def constant(label: str, value: float) -> str:
            self.constants[f"{name}/{label}"] = Array.of(np.float32(value))
            return f"{name}/{label}"

        form = quantiser.form
        if self.builder.graph.kinds.get(name, TensorProto.FLOAT) != TensorProto.FLOAT:
            steps.append(("Cast", (), {"to": TensorProto.FLOAT}))
        if quantiser.rounding is not Rounding.HALF_EVEN:
            scale = constant("scale", form.scale)
            steps.append(("Div", (scale,), {}))
            if quantiser.rounding is Rounding.HALF_UP:
                steps.append(("Add", (constant("half", 0.5),), {}))
            steps += [("Floor", (), {}), ("Mul", (scale,), {})]
        if (quantiser.lo, quantiser.hi) != (form.format.lo, form.format.hi):
            low, high = ((bound - form.zero_point) * form.scale for bound in (quantiser.lo, quantiser.hi))
            steps.append(("Clip", (constant("low", low), constant("high", high)), {}))
        if shape != seen:
            self.constants[f"{name}/output shape"] = Array.of(np.array(shape, np.int64))
            steps.append(("Reshape", (f"{name}/output shape",), {}))
        if not steps:
            return name
        self._chain(name, steps, f"{name}/output")
        return f"{name}/output"

    def _chain(self, start: str, steps: list[Step], end: str) -> None:
        """Add nodes one behind the other, from one tensor to another."""
        for at, (kind, more, attributes) in enumerate(steps, 1):
            name = end if at == len(steps) else f"{end}/{at}"
            self.nodes.append(Node(name, kind, (start, *more), (name,), attributes))
            start = name

    def graph(self, output: str) -> Graph:
        """Float graph of the nodes."""
        names = {name for node in self.nodes for name in (*node.inputs, *node.outputs)} | set(self.given)
        whole = self.builder.graph
        kinds = {name: whole.kinds[name] for name in names if name in whole.kinds}
        return Graph(
            name=output,
            opset=whole.opset,
            nodes=tuple(self.nodes),
            constants=self.constants,
            inputs=self.given,
            outputs=(output,),
            shapes={name: whole.shapes[name] for name in names if name in whole.shapes},
            kinds=kinds | dict.fromkeys(self.given, TensorProto.FLOAT) | {output: TensorProto.FLOAT},
        )
