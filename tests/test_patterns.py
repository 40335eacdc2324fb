"""Spelled-out operators, put together and left alone, beside onnx.reference."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import accel
from accel.graph.graph import Array, Given, Graph, Node
from accel.graph.patterns import fuse

FLOAT = onnx.TensorProto.FLOAT


@dataclass
class Spelling:
    """A graph in the writing, of one float input `x`."""

    shape: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = Array.of(np.asarray(values, dtype))
        return name

    def node(self, kind: str, *inputs: str | float, **attributes: Any) -> str:
        names = tuple(each if isinstance(each, str) else self.constant(each) for each in inputs)
        output = f"t{len(self.nodes)}"
        self.nodes.append(Node(f"n{len(self.nodes)}", kind, names, (output,), attributes))
        return output

    def reduce(self, kind: str, x: str, *axes: int) -> str:
        return self.node(kind, x, self.constant(axes, np.int64))

    def graph(self, *outputs: str) -> Graph:
        """Finish it, with the shapes that ONNX infers."""
        graph = Graph(
            name="g",
            opset=24,
            nodes=tuple(self.nodes),
            constants=dict(self.constants),
            inputs={"x": Given(FLOAT, self.shape)},
            outputs=outputs,
        )
        model = onnx.shape_inference.infer_shapes(replace(graph, kinds=dict.fromkeys(outputs, FLOAT)).to_model())
        infos = [*model.graph.input, *model.graph.value_info, *model.graph.output]
        shapes = {info.name: tuple(axis.dim_value for axis in info.type.tensor_type.shape.dim) for info in infos}
        shapes |= {name: array.values.shape for name, array in graph.constants.items()}
        kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
        return replace(graph, shapes=shapes, kinds=kinds | {name: array.kind for name, array in graph.constants.items()})


def values(graph: Graph, x: np.ndarray) -> list[np.ndarray]:
    return list(ReferenceEvaluator(graph.to_model()).run(None, {"x": x}))


def kinds(graph: Graph) -> Counter[str]:
    return Counter(node.kind for node in graph.nodes)


def equal(before: Graph, after: Graph, seed: int = 0, bound: float = 2e-6) -> None:
    """Both give the same, up to the rounding of float32 and of the constants (`bound`, of values of magnitude 4 at most)."""
    x = np.random.default_rng(seed).uniform(-4, 4, before.shapes["x"]).astype(np.float32)
    for one, other in zip(values(before, x), values(after, x), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=4 * bound)


def factors(spelling: Spelling, parts: list[str | float], order: list[int], divide: bool) -> str:
    """Product of factors in an order; constants after the first as divisions by their inverse if wanted."""
    first = parts[order[0]]
    result = first if isinstance(first, str) else spelling.constant(first)
    for at in order[1:]:
        part = parts[at]
        if divide and isinstance(part, float):
            result = spelling.node("Div", result, 1 / part)
        else:
            result = spelling.node("Mul", result, part)
    return result


ORDERS = st.permutations([0, 1, 2])


@settings(deadline=None, max_examples=25)
@given(ORDERS, st.booleans(), st.booleans(), st.sampled_from(["mul", "div"]), st.sampled_from(["", "Relu"]))
def test_gelu_by_erf(order, divide, one_first, scale, before):
    s = Spelling((2, 3, 5))
    x = s.node(before, "x") if before else "x"
    inner = s.node("Mul", x, math.sqrt(0.5)) if scale == "mul" else s.node("Div", x, math.sqrt(2))
    erf = s.node("Erf", inner)
    plus = s.node("Add", 1.0, erf) if one_first else s.node("Add", erf, 1.0)
    if order[0] == 0 and divide:
        order = [order[1], order[0], order[2]]
    graph = s.graph(factors(s, [0.5, x, plus], order, divide))
    fused = fuse(graph)
    assert kinds(fused) == Counter(["Gelu", *([before] if before else [])])
    assert "approximate" not in fused.nodes[-1].attributes
    equal(graph, fused)


@settings(deadline=None, max_examples=25)
@given(ORDERS, st.sampled_from(["pow", "mul", "horner"]), st.booleans())
def test_gelu_by_tanh(order, cube, outer_first):
    s = Spelling((2, 7))
    if cube == "horner":  # x * (1 + 0.044715 * x * x)
        inner = s.node("Mul", "x", s.node("Add", s.node("Mul", s.node("Mul", 0.044715, "x"), "x"), 1.0))
    else:
        third = s.node("Pow", "x", 3.0) if cube == "pow" else s.node("Mul", s.node("Mul", "x", "x"), "x")
        inner = s.node("Add", "x", s.node("Mul", third, 0.044715))
    c = math.sqrt(2 / math.pi)
    tanh = s.node("Tanh", s.node("Mul", c, inner) if outer_first else s.node("Mul", inner, c))
    graph = s.graph(factors(s, [0.5, "x", s.node("Add", tanh, 1.0)], order, divide=False))
    fused = fuse(graph)
    assert [(node.kind, dict(node.attributes)) for node in fused.nodes] == [("Gelu", {"approximate": "tanh"})]
    equal(graph, fused)


def test_constants_of_float16_are_near_enough():
    s = Spelling((2, 7))
    erf = s.node("Erf", s.node("Div", "x", float(np.float16(math.sqrt(2)))))
    graph = s.graph(s.node("Mul", s.node("Mul", "x", s.node("Add", erf, 1.0)), 0.5))
    assert kinds(fuse(graph)) == Counter(["Gelu"])
    equal(graph, fuse(graph), bound=2e-4)


@pytest.mark.parametrize("alpha", [None, 1.702])
@pytest.mark.parametrize("swapped", [False, True])
def test_swish(alpha, swapped):
    s = Spelling((2, 7))
    inner = "x" if alpha is None else s.node("Mul", "x", alpha)
    pair = ["x", s.node("Sigmoid", inner)]
    graph = s.graph(s.node("Mul", *pair[:: -1 if swapped else 1]))
    fused = fuse(graph)
    assert kinds(fused) == Counter(["Swish"])
    assert fused.nodes[0].attributes.get("alpha", 1.0) == pytest.approx(alpha or 1.0)
    equal(graph, fused)


def test_a_gated_product_keeps_its_gate():
    s = Spelling((2, 8))
    a = s.node("Slice", "x", s.constant([0], np.int64), s.constant([4], np.int64), s.constant([1], np.int64))
    b = s.node("Slice", "x", s.constant([4], np.int64), s.constant([8], np.int64), s.constant([1], np.int64))
    graph = s.graph(s.node("Mul", s.node("Mul", a, s.node("Sigmoid", a)), b))
    assert kinds(fuse(graph)) == Counter({"Slice": 2, "Swish": 1, "Mul": 1})
    equal(graph, fuse(graph))


@settings(deadline=None, max_examples=30)
@given(ORDERS, st.sampled_from(["op", "clip6", "clip1"]), st.booleans())
def test_hard_swish(order, spelled, divide):
    s = Spelling((2, 30))
    if spelled == "op":
        graph = s.graph(s.node("Mul", "x", s.node("HardSigmoid", "x", alpha=1 / 6, beta=0.5)))
    elif spelled == "clip6":
        clip = s.node("Clip", s.node("Add", "x", 3.0), s.constant(0.0), s.constant(6.0))
        order = [1, 0, 2] if order[0] == 0 else order
        graph = s.graph(factors(s, [1 / 6, "x", clip], order, divide))
    else:
        clip = s.node("Clip", s.node("Add", s.node("Div", "x", 6.0), 0.5), s.constant(0.0), s.constant(1.0))
        graph = s.graph(s.node("Mul", clip, "x"))
    assert kinds(fuse(graph)) == Counter(["HardSwish"])
    equal(graph, fuse(graph))


@pytest.mark.parametrize("spelled", [False, True])
def test_mish(spelled):
    s = Spelling((2, 7))
    soft = s.node("Log", s.node("Add", s.node("Exp", "x"), 1.0)) if spelled else s.node("Softplus", "x")
    graph = s.graph(s.node("Mul", "x", s.node("Tanh", soft)))
    assert kinds(fuse(graph)) == Counter(["Mish"])
    equal(graph, fuse(graph))


@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.parametrize("stable", [False, True])
def test_softmax(stable, axis):
    s = Spelling((2, 3, 5))
    x = s.node("Sub", "x", s.reduce("ReduceMax", "x", axis)) if stable else "x"
    e = s.node("Exp", x)
    graph = s.graph(s.node("Div", e, s.reduce("ReduceSum", e, axis)))
    fused = fuse(graph)
    assert [(node.kind, node.inputs, node.attributes["axis"]) for node in fused.nodes] == [("Softmax", ("x",), axis % 3)]
    equal(graph, fused)


def layer_norm(s: Spelling, x: str, axes: tuple[int, ...], square: str, root: str, epsilon: float = 1e-5) -> str:
    d = s.node("Sub", x, s.reduce("ReduceMean", x, *axes))
    squared = s.node("Mul", d, d) if square == "mul" else s.node("Pow", d, 2.0)
    total = s.node("Add", s.reduce("ReduceMean", squared, *axes), epsilon)
    if root == "power":
        return s.node("Mul", d, s.node("Pow", total, -0.5))
    deviation = s.node("Pow", total, 0.5) if root == "half" else s.node("Sqrt", total)
    if root in ("div", "half"):
        return s.node("Div", d, deviation)
    inverse = s.node("Reciprocal", deviation) if root == "reciprocal" else s.node("Div", 1.0, deviation)
    return s.node("Mul", inverse, d)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([(-1,), (2,), (1, 2), (-2, -1), (0, 1, 2)]),
    st.sampled_from(["mul", "pow"]),
    st.sampled_from(["div", "half", "power", "reciprocal", "one"]),
    st.sampled_from([None, (), (1,), "row", "wide"]),
    st.sampled_from([None, (), "row"]),
    st.booleans(),
)
def test_layer_normalization(axes, square, root, gamma, beta, swapped):
    s = Spelling((2, 3, 5))
    rng = np.random.default_rng(len(axes))
    y = layer_norm(s, "x", axes, square, root)
    row = s.shape[3 - len(axes) :]
    for kind, form in (("Mul", gamma), ("Add", beta)):
        if form is not None:
            shape = {"row": row, "wide": (1,) * (3 - len(row)) + row}[form] if isinstance(form, str) else form
            pair = [y, s.constant(rng.uniform(0.5, 2, shape))]
            y = s.node(kind, *pair[:: -1 if swapped else 1])
    graph = s.graph(y)
    fused = fuse(graph)
    assert kinds(fused) == Counter(["LayerNormalization"])
    assert fused.nodes[0].attributes["axis"] == -len(axes)
    equal(graph, fused)


def test_layer_normalization_of_a_gelu_of_a_layer_normalization():
    s = Spelling((2, 5))
    y = s.node("Mul", layer_norm(s, "x", (-1,), "pow", "div"), s.constant(np.arange(1, 6)))
    erf = s.node("Erf", s.node("Mul", y, math.sqrt(0.5)))
    y = s.node("Mul", s.node("Mul", s.node("Add", erf, 1.0), y), 0.5)
    graph = s.graph(layer_norm(s, y, (-1,), "mul", "reciprocal"))
    assert [node.kind for node in fuse(graph).nodes] == ["LayerNormalization", "Gelu", "LayerNormalization"]
    equal(graph, fuse(graph))


def test_a_gain_for_each_row_is_no_layer_normalization_s():
    s = Spelling((2, 3, 5))
    graph = s.graph(s.node("Mul", layer_norm(s, "x", (-1,), "pow", "div"), s.constant(np.ones((3, 1)))))
    assert kinds(fuse(graph)) == Counter({"LayerNormalization": 1, "Mul": 1})
    equal(graph, fuse(graph))


PADS = st.lists(st.integers(0, 2), min_size=4, max_size=4)


@settings(deadline=None, max_examples=30)
@given(PADS, PADS, st.booleans(), st.sampled_from([None, 0.0]))
def test_zeros_around_an_image_are_a_convolution_s(outer, own, by_axes, value):
    s = Spelling((1, 2, 5, 6))
    rest = [] if value is None and not by_axes else [s.constant(value) if value is not None else ""]
    pads = outer if by_axes else [0, 0, *outer[:2], 0, 0, *outer[2:]]
    y = s.node("Pad", "x", s.constant(pads, np.int64), *rest, *([s.constant([2, -1], np.int64)] if by_axes else []))
    w = s.constant(np.random.default_rng(0).uniform(-1, 1, (3, 2, 2, 3)))
    graph = s.graph(s.node("Conv", y, w, pads=own))
    fused = fuse(graph)
    assert [(node.kind, node.attributes["pads"]) for node in fused.nodes] == [("Conv", [a + b for a, b in zip(outer, own, strict=True)])]
    equal(graph, fused)


@settings(deadline=None, max_examples=10)
@given(PADS)
def test_zeros_around_an_image_count_in_a_mean(pads):
    s = Spelling((1, 2, 5, 6))
    y = s.node("Pad", "x", s.constant([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
    graph = s.graph(s.node("AveragePool", y, kernel_shape=[3, 4], strides=[2, 1]))
    fused = fuse(graph)
    assert kinds(fused) == Counter(AveragePool=1)
    equal(graph, fused)


@pytest.mark.parametrize(
    ("pads", "value", "mode", "kind"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], 1.0, "constant", "Conv"),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "edge", "Conv"),
        ([0, 0, -1, 1, 0, 0, 1, 1], 0.0, "constant", "Conv"),
        ([0, 1, 1, 1, 0, 0, 1, 1], 0.0, "constant", "Conv"),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "constant", "MaxPool"),
        ([0, 0, 3, 1, 0, 0, 1, 1], 0.0, "constant", "AveragePool"),
    ],
)
def test_other_pads_are_left_alone(pads, value, mode, kind):
    s = Spelling((1, 2, 5, 6))
    y = s.node("Pad", "x", s.constant(pads, np.int64), s.constant(value), mode=mode)
    w = [s.constant(np.ones((3, 3 if pads[1] else 2, 3, 3)))] if kind == "Conv" else []
    graph = s.graph(s.node(kind, y, *w, kernel_shape=[3, 3]))
    assert fuse(graph) is graph


def spellings() -> dict[str, tuple[Spelling, str, str]]:
    """Operator: its spelling, its output and a tensor inside it."""
    found = {}
    s = Spelling((2, 5))
    found["LayerNormalization"] = (s, layer_norm(s, "x", (-1,), "pow", "div"), "t1")
    s = Spelling((2, 5))
    e = s.node("Exp", "x")
    found["Softmax"] = (s, s.node("Div", e, s.reduce("ReduceSum", e, -1)), e)
    s = Spelling((2, 5))
    sigmoid = s.node("Sigmoid", "x")
    found["Swish"] = (s, s.node("Mul", "x", sigmoid), sigmoid)
    s = Spelling((2, 5))
    erf = s.node("Erf", s.node("Div", "x", math.sqrt(2)))
    found["Gelu"] = (s, s.node("Mul", s.node("Mul", "x", s.node("Add", erf, 1.0)), 0.5), erf)
    return found


@pytest.mark.parametrize("kind", spellings())
def test_a_spelling_that_is_read_inside_is_left_alone(kind):
    s, output, inner = spellings()[kind]
    assert kind in kinds(fuse(s.graph(output)))
    for graph in (s.graph(output, inner), s.graph(output, s.node("Relu", inner))):
        assert fuse(graph) is graph


@pytest.mark.parametrize("kind", spellings())
def test_a_spelling_that_is_quantised_inside_is_left_alone(kind):
    s, output, inner = spellings()[kind]
    scale, zero = s.constant(0.1), s.constant(3, np.uint8)
    quantised = [Node("q", "QuantizeLinear", (inner, scale, zero), ("q",)), Node("d", "DequantizeLinear", ("q", scale, zero), ("d",))]
    at = next(i for i, node in enumerate(s.nodes) if node.outputs[0] == inner) + 1
    later = [replace(node, inputs=tuple("d" if name == inner else name for name in node.inputs)) for node in s.nodes[at:]]
    s.nodes[at:] = [*quantised, *later]
    graph = s.graph(output)
    assert fuse(graph) is graph


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: s.node("Mul", s.node("Mul", "x", s.node("Add", s.node("Erf", "x"), 1.0)), 0.5),  # not divided by the root of 2
        lambda s: s.node("Mul", "x", s.node("HardSigmoid", "x")),  # its slope is 0.2
        lambda s: s.node("Mul", "x", s.node("Clip", s.node("Add", "x", 3.0), s.constant(0.0), s.constant(6.0))),  # not divided by 6
        lambda s: s.node("Mul", "x", s.node("Sigmoid", s.node("Add", "x", 1.0))),
        lambda s: s.node("Div", s.node("Exp", "x"), s.reduce("ReduceSum", s.node("Exp", s.node("Neg", "x")), -1)),
        lambda s: layer_norm(s, "x", (0,), "pow", "div"),  # not the last axis
        lambda s: layer_norm(s, "x", (-1,), "pow", "div", epsilon=0.0),
        lambda s: s.node("Div", "x", s.node("Sqrt", s.node("Add", s.reduce("ReduceMean", s.node("Pow", "x", 2.0), -1), 1e-5))),  # no mean
        lambda s: s.node("Mul", "x", s.node("Tanh", "x")),
    ],
)
def test_what_is_nearly_a_spelling_is_left_alone(wrong):
    s = Spelling((3, 5))
    graph = s.graph(wrong(s))
    assert fuse(graph) is graph


def test_the_opset_is_that_of_the_new_node():
    s = Spelling((2, 5))
    graph = replace(s.graph(s.node("Mul", "x", s.node("Sigmoid", "x"))), opset=13)
    assert fuse(graph).opset == 24
    s = Spelling((2, 5))
    assert fuse(replace(s.graph(s.node("Sigmoid", "x")), opset=13)).opset == 13


def test_long_sums_are_read_in_bounded_time():
    s = Spelling((2, 5))
    y = "x"
    for _ in range(300):
        y = s.node("Add", s.node("Mul", y, y), "x")
    graph = s.graph(y)
    assert fuse(graph) is graph


def test_spelled_out_operators_are_those_of_the_network():
    """From a float file to fixed point: nothing is left to the host."""
    s = Spelling((1, 4, 6))
    y = s.node("Mul", layer_norm(s, "x", (-1,), "pow", "div"), s.constant(np.linspace(0.5, 1.5, 6)))
    y = s.node("Add", y, s.constant(np.linspace(-1, 1, 6)))
    erf = s.node("Erf", s.node("Div", y, math.sqrt(2)))
    y = s.node("Mul", s.node("Mul", y, s.node("Add", erf, 1.0)), 0.5)
    e = s.node("Exp", s.node("Sub", y, s.reduce("ReduceMax", y, -1)))
    graph = s.graph(s.node("Div", e, s.reduce("ReduceSum", e, -1)))
    x = np.random.default_rng(0).standard_normal((32, 4, 6)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spelled.onnx"
        onnx.save(graph.to_model(), path)
        network = accel.load(path, calibration=x, bits=16)
    assert [type(operator).__name__ for operator in network.operators] == ["LayerNorm", "Lookup", "Softmax"]
    result = accel.simulate(network, "sat-vcu1525", x)
    (name,) = result.outputs
    expected = np.concatenate([values(graph, each[None])[0] for each in x])
    # What the forms imply: half an LSB of the input, through mean, deviation and gain; an LSB of each result before the last, by slopes
    # of 1.13 at most; twice that in the exponent of a softmax, whose results are at most 1; and an LSB of the output.
    half, normal, gelu, last = (tensor.scale for tensor in network.tensors.values())
    steepest = 1.5 * (2 + math.sqrt(5)) / math.sqrt(x.var(axis=-1).min())
    bound = math.expm1(2 * ((half / 2 * steepest + normal) * 1.13 + gelu)) + last
    assert bound < 0.005
    np.testing.assert_allclose(result.real(name), expected, rtol=0, atol=bound)
