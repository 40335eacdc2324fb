"""Moves in imported networks: bit for bit what onnxruntime moves, and no Move where nothing need be moved."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accel
from accel.config import AcceleratorConfig
from accel.errors import NetworkError
from accel.graph.graph import Array, Given, Graph, Node
from accel.graph.network import Network
from accel.graph.onnx import network as import_graph
from tests.qdq import Model

NARROW = AcceleratorConfig(weight_bits=9, mult_bits=24)
WIDE = AcceleratorConfig(act_bits=16, weight_bits=16, acc_bits=48, mult_bits=15)
UINT8, INT8, INT16 = onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT16
FORMS = {"uint8": (np.uint8, 117, UINT8), "int8": (np.int8, -23, INT8), "int16": (np.int16, 1000, INT16)}


def loaded(model: Model, **options) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.onnx"
        onnx.save(model.proto, path)
        return accel.load(path, **options)


def kinds(network: Network) -> Counter[str]:
    return Counter(type(operator).__name__ for operator in network.operators)


def compared(model: Model, batch: int = 2, worst: int = 0, **options) -> Network:
    """Import, simulate and compare every output with onnxruntime's."""
    imported = loaded(model, **options)
    rng = np.random.default_rng(batch)
    inputs = {}
    for port in model.inputs:
        shape = tuple(axis.dim_value or batch for axis in port.type.tensor_type.shape.dim)
        if port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            inputs[port.name] = rng.uniform(-2, 2, shape).astype(np.float32)
        else:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
            inputs[port.name] = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    exact = onnxruntime.SessionOptions()
    exact.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it moves int8 quantisers wrongly
    session = onnxruntime.InferenceSession(model.proto.SerializeToString(), exact, providers=["CPUExecutionProvider"])
    expected = dict(zip((each.name for each in session.get_outputs()), session.run(None, inputs), strict=True))
    whole = options.get("whole", False)
    config = WIDE if any(8 < tensor.bits <= 16 for tensor in imported.tensors.values()) else NARROW
    found = accel.simulate(imported, config, {name: x[None] for name, x in inputs.items()} if whole else inputs).outputs
    assert found.keys() == expected.keys()
    for name, integers in expected.items():
        got = found[name].reshape(integers.shape) if whole or integers.ndim == 1 else found[name]  # a number for each sample has an axis
        assert got.shape == integers.shape
        np.testing.assert_allclose(got, integers, rtol=0, atol=worst)
    return imported


def model_of(build, shape=(4, 6, 5), form="uint8", opset=21) -> Model:
    """Quantiser, whatever `build` adds to a tensor, and the same quantiser."""
    dtype, zero, kind = FORMS[form]
    model = Model(opset=opset)
    x = model.fake(model.input("batch", *shape), 0.02, zero, dtype)
    model.output(model.quantise(build(model, x), 0.02, zero, dtype), kind)
    return model


def ints(model: Model, *values: int) -> str:
    return model.constant(values, np.int64)


MOVES = {
    "transpose": lambda m, x: m.node("Transpose", x, perm=[0, 3, 1, 2]),
    "channels last": lambda m, x: m.node("Transpose", x, perm=[0, 2, 3, 1]),
    "reshape": lambda m, x: m.node("Reshape", x, ints(m, 0, 8, -1)),
    "flatten": lambda m, x: m.node("Flatten", x),
    "flatten 2": lambda m, x: m.node("Reshape", m.node("Flatten", x, axis=2), ints(m, -1, 120)),
    "unsqueeze": lambda m, x: m.node("Unsqueeze", x, ints(m, 2, -1)),
    "squeeze": lambda m, x: m.node("Squeeze", m.node("Slice", x, ints(m, 2), ints(m, 3), ints(m, 1)), ints(m, 1)),
    "slice": lambda m, x: m.node("Slice", x, ints(m, -1, 0, 9), ints(m, -9, 5, 0), ints(m, 1, 2, 3), ints(m, -2, 2, -1)),
    "gather": lambda m, x: m.node("Gather", x, m.constant([[0, -1], [2, 2]], np.int64), axis=2),
    "gather one": lambda m, x: m.node("Gather", x, m.constant(1, np.int64), axis=1),
    "pad": lambda m, x: m.node("Pad", x, ints(m, 0, 0, 1, 2, 0, 0, 3, 0)),
    "pad edge": lambda m, x: m.node("Pad", x, ints(m, 0, 0, 1, 2, 0, 0, 3, 0), mode="edge"),
    "pad reflect": lambda m, x: m.node("Pad", x, ints(m, 0, 1, 1, 2, 0, 0, 3, 0), mode="reflect"),
    "pad wrap": lambda m, x: m.node("Pad", x, ints(m, 0, 1, 1, 2, 0, 0, 3, 0), mode="wrap"),
    "pad with a number": lambda m, x: m.node("Pad", x, ints(m, 0, 1, 0, 0, 0, 0, 0, 2), m.constant(0.731, np.float32)),
    "pads of two numbers": lambda m, x: m.node(
        "Pad", m.node("Pad", x, ints(m, 0, 1, 0, 0, 0, 0, 0, 2)), ints(m, 0, 0, 1, 1, 0, 0, 0, 0), m.constant(-0.5, np.float32)
    ),
    "pad of some axes": lambda m, x: m.node("Pad", x, ints(m, 1, 2), "", ints(m, -1)),
    "expand": lambda m, x: m.node("Expand", m.node("Unsqueeze", x, ints(m, 2)), ints(m, 1, 4, 3, 6, 5)),
    "tile": lambda m, x: m.node("Tile", x, ints(m, 1, 2, 1, 3)),
    "resize": lambda m, x: m.node("Resize", x, "", m.constant([1, 1, 2, 1.6], np.float32), mode="nearest"),
    "resize to sizes": lambda m, x: m.node(
        "Resize", x, "", "", ints(m, 3, 9), mode="nearest", axes=[2, 3], nearest_mode="ceil", coordinate_transformation_mode="asymmetric"
    ),
    "depth to space": lambda m, x: m.node("DepthToSpace", x, blocksize=2),
    "depth to space, columns": lambda m, x: m.node("DepthToSpace", x, blocksize=2, mode="CRD"),
    "space to depth": lambda m, x: m.node("SpaceToDepth", m.node("Slice", x, ints(m, 0), ints(m, 4), ints(m, 3)), blocksize=2),
    "concat with itself": lambda m, x: m.node("Concat", x, m.node("Slice", x, ints(m, 1), ints(m, 3), ints(m, 1)), axis=1),
    "shuffle": lambda m, x: m.node(
        "Reshape", m.node("Transpose", m.node("Reshape", x, ints(m, 0, 2, 2, 6, 5)), perm=[0, 2, 1, 3, 4]), ints(m, 0, 4, 6, 5)
    ),
    "roll": lambda m, x: m.node(
        "Concat", m.node("Slice", x, ints(m, 2), ints(m, 9), ints(m, 2)), m.node("Slice", x, ints(m, 0), ints(m, 2), ints(m, 2)), axis=2
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MOVES)
def test_a_move_is_that_of_onnxruntime(name, form):
    network = compared(model_of(MOVES[name], form=form))
    assert set(kinds(network)) <= {"Move"}


@pytest.mark.parametrize("name", ["transpose", "slice", "pad", "pad edge", "tile", "resize", "shuffle", "roll", "gather"])
def test_moves_before_the_first_quantiser_and_between_integers(name):
    model = Model(opset=21)
    moved = MOVES[name](model, model.input("batch", 4, 6, 5))
    model.output(model.quantise(moved, 0.02, 117), UINT8)
    if name != "roll":  # no form is known yet in which to join
        assert set(kinds(compared(model))) <= {"Move"}
    model = Model(opset=21)
    model.output(MOVES[name](model, model.input("batch", 4, 6, 5, kind=INT8)), INT8)
    assert set(kinds(compared(model))) <= {"Move"}


def test_a_chain_of_moves_is_one():
    def build(m, x):
        for name in ("transpose", "slice", "tile"):
            x = MOVES[name](m, x)
        return m.node("Flatten", x)

    assert kinds(compared(model_of(build))) == Counter(Move=1)


def random_move(draw, m: Model, x: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Any move of a tensor of this shape, and the shape it gives."""
    axis = draw(st.integers(1, len(shape) - 1))
    size, rest = shape[axis], (shape[:axis], shape[axis + 1 :])
    match draw(st.sampled_from(["Transpose", "Flatten", "Unsqueeze", "Slice", "Pad", "Tile", "Gather", "Concat"])):
        case "Transpose":
            perm = [0, *draw(st.permutations(range(1, len(shape))))]
            return m.node("Transpose", x, perm=perm), tuple(shape[at] for at in perm)
        case "Flatten":
            return m.node("Reshape", x, ints(m, 0, *shape[1:-2], -1)), (
                *shape[: max(len(shape) - 2, 1)],
                math.prod(shape[max(len(shape) - 2, 1) :]),
            )
        case "Unsqueeze" if len(shape) < 5:
            return m.node("Unsqueeze", x, ints(m, axis)), (*rest[0], 1, size, *rest[1])
        case "Slice":
            step, first = draw(st.sampled_from([-1, 1, 2])), draw(st.integers(0, size - 1))
            kept = range(size)[first::step]
            last = -(size + 1) if step < 0 else size
            return m.node("Slice", x, ints(m, first), ints(m, last), ints(m, axis), ints(m, step)), (*rest[0], len(kept), *rest[1])
        case "Pad":
            front, end = draw(st.integers(0, 2)), draw(st.integers(0, 2))
            return m.node("Pad", x, ints(m, front, end), "", ints(m, axis)), (*rest[0], size + front + end, *rest[1])
        case "Tile" if math.prod(shape) < 500:
            return m.node("Tile", x, ints(m, *(2 if at == axis else 1 for at in range(len(shape))))), (*rest[0], 2 * size, *rest[1])
        case "Gather":
            indices = draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=4))
            return m.node("Gather", x, ints(m, *indices), axis=axis), (*rest[0], len(indices), *rest[1])
    return m.node("Concat", x, x, axis=axis), (*rest[0], 2 * size, *rest[1])


@settings(max_examples=40)
@given(st.data(), st.integers(1, 5), st.booleans())
def test_any_chain_is_that_of_onnxruntime(data, length, unrounded):
    def build(m, x):
        y = convolution(m, x, 4, 4) if unrounded else x
        shape: tuple[int, ...] = (1, 4, 6, 5)
        for _ in range(length):
            y, shape = random_move(data.draw, m, y, shape)
        return y

    network = compared(model_of(build), worst=1 if unrounded else 0)
    assert kinds(network)["Host"] == 0
    if not unrounded:
        assert kinds(network)["Move"] <= 1


def test_moves_that_undo_each_other_are_none():
    def build(m, x):
        y = m.node("Transpose", m.node("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
        return m.node("Reshape", m.node("Flatten", y), ints(m, 0, 4, 6, 5))

    assert kinds(compared(model_of(build))) == Counter()


def convolution(m: Model, x: str, filters: int, channels: int) -> str:
    rng = np.random.default_rng(filters)
    w = m.weights(rng.integers(-128, 128, (filters, channels, 1, 1), np.int8), 0.004)
    return m.node("Conv", x, w)


@pytest.mark.parametrize("name", ["transpose", "reshape", "slice", "pad", "pad edge", "depth to space", "tile"])
def test_moves_of_what_is_not_rounded_yet(name):
    """The product is rounded, then moved: zeros that padding adds are the zero point."""
    network = compared(model_of(lambda m, x: MOVES[name](m, convolution(m, x, 4, 4))), worst=1)
    assert kinds(network) == Counter(MatrixProduct=1, Move=0 if name == "transpose" else 1)  # the product may be stored in any order


@pytest.mark.parametrize("kind", ["Sigmoid", "Softmax", "Relu", "Gelu"])
@pytest.mark.parametrize(("shape", "seen"), [((4, 6, 5), (1, 4, 6, 5)), ((6, 5), (2, 3, 5)), ((1, 1, 1), (1, 1)), ((4, 1, 1), (4,))])
def test_results_may_lie_in_the_shape_they_are_seen_in(shape, seen, kind):
    def build(m, x):
        return m.node("Reshape", m.node(kind, x, **({"axis": -1} if kind == "Softmax" else {})), ints(m, 0, *seen))

    assert kinds(compared(model_of(build, shape=shape), worst=1))["Host"] == 0


def test_split():
    def build(m, x):
        m.nodes.append(onnx.helper.make_node("Split", [x, ints(m, 1, 3)], ["a", "b"], name="split", axis=1))
        m.nodes.append(onnx.helper.make_node("Split", ["b"], ["c", "d", "e"], name="again", axis=1, num_outputs=3))
        m.nodes.append(onnx.helper.make_node("Split", [x], ["f", "g"], name="rest", axis=2, num_outputs=2))
        for name in "acdeg":
            m.output(m.quantise(name, 0.02, 117), UINT8)
        return m.node("Concat", "e", "a", "d", axis=1)

    compared(model_of(build))


# Concat.


def two(scales=(0.02, 0.05), zeros=(117, 90), shapes=((2, 6, 5), (3, 6, 5))) -> tuple[Model, list[str]]:
    model = Model(opset=21)
    names = [model.input("batch", *shape, name=f"x{at}") for at, shape in enumerate(shapes)]
    return model, [model.fake(name, scale, zero) for name, scale, zero in zip(names, scales, zeros, strict=True)]


def test_concat_of_one_form_is_a_move():
    model, parts = two(scales=(0.02, 0.02), zeros=(117, 117))
    model.output(model.quantise(model.node("Concat", *parts, axis=1), 0.02, 117), UINT8)
    assert kinds(compared(model)) == Counter(Move=1)


@pytest.mark.parametrize("then", [[], ["Relu"], ["Flatten"], ["Relu", "Flatten"]])
def test_concat_of_two_forms_is_rounded_to_the_form_behind_it(then):
    model, parts = two()
    y = model.node("Concat", *parts, axis=1)
    for kind in then:
        y = model.node(kind, y)
    model.output(model.quantise(y, 0.03, 100), UINT8)
    network = compared(model, worst=1)
    assert kinds(network)["Host"] == 0
    assert kinds(network)["Move"] >= 1


def test_concat_of_results_that_are_not_rounded_yet():
    model, parts = two()
    y = model.node("Concat", convolution(model, parts[0], 4, 2), parts[1], convolution(model, parts[1], 5, 3), axis=1)
    model.output(model.quantise(y, 0.03, 100), UINT8)
    assert kinds(compared(model, worst=1)) == Counter(MatrixProduct=2, Sum=1, Move=1)


def test_concat_of_graph_inputs():
    model = Model(opset=21)
    names = [model.input("batch", channels, 6, 5, name=f"x{channels}") for channels in (2, 3)]
    model.output(model.quantise(model.node("Concat", *names, axis=1), 0.02, 117), UINT8)
    assert kinds(compared(model)) == Counter(Move=1)


@pytest.mark.parametrize("quantised", [False, True])
def test_concat_with_a_constant(quantised):
    """As a vision transformer puts its class token in front."""
    model = Model(opset=21)
    x = model.fake(model.input("batch", 6, 5), 0.02, 117)
    values = np.random.default_rng(0).uniform(-2, 2, (1, 2, 5)).astype(np.float32)
    token = model.weights(np.rint(values / 0.02).astype(np.int8), 0.02) if quantised else model.constant(values)
    token = model.node("Expand", token, model.node("Concat", model.node("Shape", x, end=1), ints(model, 1, 1), axis=0))
    model.output(model.quantise(model.node("Concat", token, x, axis=1), 0.03, 100), UINT8)
    network = compared(model, batch=1, worst=1)
    assert kinds(network)["Host"] == 0


def test_concat_without_a_quantiser_behind_is_the_host_s():
    model, parts = two()
    model.output(model.node("Concat", *parts, axis=1))
    assert kinds(loaded(model))["Host"] == 1


# What is refused.


def importing(kind: str, *constants, outputs: int = 1, **attributes) -> None:
    """Import one node on a quantised tensor of shape (1, 4, 6, 5), as no inference of shapes has checked it."""
    names = [f"c{at}" if each is not None else "" for at, each in enumerate(constants)]
    known = {name: Array.of(np.asarray(each)) for name, each in zip(names, constants, strict=True) if name}
    known |= {"scale": Array.of(np.float32(0.1)), "zero": Array.of(np.uint8(7))}
    given = [Node("q", "QuantizeLinear", ("x", "scale", "zero"), ("q",)), Node("d", "DequantizeLinear", ("q", "scale", "zero"), ("d",))]
    node = Node("n", kind, ("d", *names), tuple(f"y{at}" for at in range(outputs)), attributes)
    last = Node("e", "QuantizeLinear", ("y0", "scale", "zero"), ("e",))
    shapes = {"x": (1, 4, 6, 5), "q": (1, 4, 6, 5), "d": (1, 4, 6, 5)}
    graph = Graph(
        name="g",
        opset=21,
        nodes=(*given, node, last),
        constants=known,
        inputs={"x": Given(onnx.TensorProto.FLOAT, (1, 4, 6, 5))},
        outputs=("e",),
        shapes=shapes,
        kinds=dict.fromkeys(shapes, onnx.TensorProto.FLOAT),
    )
    import_graph(graph, "g")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: importing("Transpose", perm=[0, 1]), r"perm of node 'n' \(Transpose\) must be a permutation of 4 axes, not \[0, 1\]"),
        (lambda: importing("Reshape", np.array([7, -1])), r"shape of node 'n' \(Reshape\) must hold the 120 elements of .*, not \[7, -1\]"),
        (lambda: importing("Flatten", axis=9), r"axis of node 'n' \(Flatten\) must be in \[-4, 4\], not 9"),
        (lambda: importing("Squeeze", np.array([1])), r"axes of node 'n' \(Squeeze\) must be of one element in .*, not \[1\]"),
        (lambda: importing("Tile", np.array([1, 1])), r"repeats of node 'n' \(Tile\) must be 4 integers of at least 1, not \[1, 1\]"),
        (lambda: importing("Expand", np.array([1, 7, 1, 1])), r"shape of node 'n' \(Expand\) must broadcast with .*, not \[1, 7, 1, 1\]"),
        (lambda: importing("Expand", np.array([1 << 30, 1, 1, 1])), r"size of a moved tensor of node 'n' \(Expand\) must be below .*"),
        (lambda: importing("Gather", np.array([4]), axis=1), r"indices of node 'n' \(Gather\) must be in \[-4, 4\), not 4\.\.4"),
        (lambda: importing("Split", np.array([1, 2]), outputs=2, axis=1), r"split of node 'n' \(Split\) must add up to 4, not \[1, 2\]"),
        (
            lambda: importing("Split", np.array([4]), outputs=2, axis=1),
            r"split of node 'n' \(Split\) must be one size for each of 2 outputs, .*",
        ),
        (lambda: importing("Pad", np.array([1])), r"pads of node 'n' \(Pad\) must be 8 integers, not \[1\]"),
        (
            lambda: importing("Slice", *np.array([[9], [10], [2]])),
            r"result of node 'n' \(Slice\) must have an element, not shape \(1, 4, 0, 5\)",
        ),
        (lambda: importing("DepthToSpace", blocksize=3), r"blocksize of node 'n' \(DepthToSpace\) must have a square that divides 4 .*"),
        (
            lambda: importing("Resize", None, None, np.array([1, 4, 2, 2]), coordinate_transformation_mode="tf_crop_and_resize"),
            r"roi of node 'n' \(Resize\) must be 8 numbers, not None",
        ),
        (
            lambda: importing("Concat", np.float32(np.ones((1, 1, 2, 5))), axis=1),
            r"inputs of node 'n' \(Concat\) must be alike but for axis 1, .*",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(NetworkError, match=f"^{message}$"):
        call()
