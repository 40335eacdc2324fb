"""Binding and folding: shapes, types and values against ONNX's own tests and onnxruntime, and every sentence that refuses."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

from accel.errors import NetworkError
from accel.graph import fold as module
from accel.graph.fold import LIMIT, OPSET, bind, fold
from accel.graph.graph import Array, Given, Graph, Node
from accel.graph.named import BUILDERS
from accel.graph.read import read
from tests.qdq import Model

F32, I64 = np.float32, np.int64


def graph_of(model: Model | onnx.ModelProto, folder) -> Graph:
    """Read a model through a file."""
    proto = model.proto if isinstance(model, Model) else model
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return read(folder / "model.onnx")


def node(kind: str, inputs: str, outputs: str, domain: str = "", name: str = "it", **attributes: Any) -> Node:
    """Make a node; names are separated by blanks."""
    return Node(name, kind, tuple(inputs.split()), tuple(outputs.split()), attributes, domain)


def graph(
    *nodes: Node, opset: int = 21, outputs: str = "y", batch: int = 1, x: tuple[int | str, ...] = (1, 4, 6), **constants: Any
) -> Graph:
    """Make a graph that reads `x`."""
    arrays = {name: value if isinstance(value, Array) else Array.of(value) for name, value in constants.items()}
    return Graph(
        name="test",
        opset=opset,
        nodes=nodes,
        constants=arrays,
        inputs={"x": Given(TensorProto.FLOAT, x)},
        outputs=tuple(outputs.split()),
        batch=batch,
    )


def ran(model: onnx.ModelProto, **inputs: Any) -> list[Any]:
    """Run a model in onnxruntime, its graph as it is."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


# ONNX's own tests.


@cache
def backend() -> list[Any]:
    """List tests of single nodes, but for types and operators that no accelerator has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    strange = re.compile(
        r"bernoulli|training|sequence|optional|_opt|float8|FLOAT8|FLOAT4|E8M0|INT2|string|random|image_decoder|preview|_expanded"
    )
    return [
        case
        for case in cases
        if case.model and not strange.search(case.name) and any(not each.domain and each.version >= 11 for each in case.model.opset_import)
    ]


def plain(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


@pytest.mark.parametrize("bound", ["none", "but the first", "all"])
def test_onnx_node_tests(tmp_path, bound):
    """Every shape and type is that of the expected result; and what is folded, or left, gives the expected values. A sixth of the tests."""
    refused, checked = [], 0
    for case in backend()[["none", "but the first", "all"].index(bound) :: 6]:
        given = {port.name: plain(value) for port, value in zip(case.model.graph.input, case.data_sets[0][0], strict=False)}
        expected = [plain(value) for value in case.data_sets[0][1]]
        if any(not isinstance(value, np.ndarray) for value in [*given.values(), *expected]):
            continue
        names = {"none": [], "but the first": [*given][1:], "all": [*given]}[bound]
        try:
            source = graph_of(case.model, tmp_path)
            shapes = {
                name: given[name].shape
                for name, port in source.inputs.items()
                if name not in names and any(isinstance(extent, str) for extent in port.shape)
            }
            folded = fold(bind(source, {name: given[name] for name in names}, whole=True, shapes=shapes))
        except NetworkError as error:
            refused.append(str(error))
            continue
        for name, value in zip(folded.outputs, expected, strict=True):
            assert folded.shapes[name] == value.shape, case.name
            assert helper.tensor_dtype_to_np_dtype(folded.kinds[name]) == value.dtype, case.name
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(folded.to_model()).run(None, {name: given[name] for name in folded.inputs})
        for result, value in zip(results, expected, strict=True):
            exact = value.dtype.kind in "biu"
            left, right = (np.asarray(each) if exact else np.asarray(each).astype(np.float64) for each in (result, value))
            np.testing.assert_allclose(left, right, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-5, err_msg=case.name)
        checked += 1
    rules = (
        r"must follow from what it reads|must be free of|must be a fixed size|must be one of|domain of|follow ONNX's rules: Unrecognized"
    )
    assert not [message for message in refused if not re.search(rules, message)]
    assert checked > 120


# Binding.


def ports(**shapes: tuple[int | str, ...]) -> Graph:
    return replace(graph(node("Relu", "x", "y")), inputs={name: Given(TensorProto.FLOAT, shape) for name, shape in shapes.items()})


def test_the_batch_becomes_one():
    for first in ("batch", "?", 1):
        bound = bind(ports(x=(first, 3), z=(first, 2)))
        assert (bound.inputs["x"].shape, bound.inputs["z"].shape, bound.batch) == ((1, 3), (1, 2), 1)
    bound = bind(ports(x=(5, 3), z=("batch", 2)))
    assert (bound.inputs["x"].shape, bound.inputs["z"].shape, bound.batch) == ((1, 3), (1, 2), 5)


def test_whole_shapes_stay():
    bound = bind(ports(x=(5, 3), z=()), whole=True)
    assert (bound.inputs["x"].shape, bound.inputs["z"].shape, bound.batch) == ((5, 3), (), 1)


def test_sizes_are_bound_by_name():
    """A size given for one input holds wherever the file calls it so; one without a name stands for itself."""
    bound = bind(ports(x=("n", "t", "?"), z=("n", "t")), shapes={"x": (1, 7, 5)})
    assert (bound.inputs["x"].shape, bound.inputs["z"].shape) == ((1, 7, 5), (1, 7))
    bound = bind(ports(x=("n", "t"), z=("t",)), {"z": np.zeros(9, F32)})
    assert (bound.inputs["x"].shape, [*bound.inputs]) == ((1, 9), ["x"])
    assert bound.constants["z"].values.shape == (9,)


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [
        (TensorProto.FLOAT, [0.1, 2], np.array([0.1, 2], F32)),
        (TensorProto.FLOAT16, [0.1, 2], np.array([0.1, 2], np.float16).astype(F32)),
        (TensorProto.INT4, np.array([-8, 7], np.int8), np.array([-8, 7], np.int8)),
        (TensorProto.INT4, np.array([-8, 7]).astype(helper.tensor_dtype_to_np_dtype(TensorProto.INT4)), np.array([-8, 7], np.int8)),
        (TensorProto.UINT8, [0, 255], np.array([0, 255], np.uint8)),
        (TensorProto.BOOL, [True, False], np.array([True, False])),
    ],
)
def test_constants_take_the_type_of_their_input(kind, value, held):
    source = replace(ports(x=(1, 2)), inputs={"w": Given(kind, (2,)), "x": Given(1, (1, 2))})
    array = bind(source, {"w": value}).constants["w"]
    assert (array.kind, array.values.dtype) == (kind, held.dtype)
    np.testing.assert_array_equal(array.values, held)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "axis 2 of graph input 'x' must be a fixed size, in the file or in `shapes`, not 'height'"),
        ({"whole": True}, "axis 0 of graph input 'x' must be a fixed size, in the file or in `shapes`, not 'n'"),
        ({"constants": {"y": 1}}, "constants must be of graph inputs (x, z, i), not of 'y'"),
        ({"shapes": {"y": (1,)}}, "shapes must be of graph inputs (x, z, i), not of 'y'"),
        ({"shapes": {"x": (1, 4, 5)}}, "shape of graph input 'x' must fit (n, 3, height), not be (1, 4, 5)"),
        ({"shapes": {"x": (1, 3)}}, "shape of graph input 'x' must fit (n, 3, height), not be (1, 3)"),
        ({"shapes": {"x": (1, 3, 0)}}, "shape of graph input 'x' must fit (n, 3, height), not be (1, 3, 0)"),
        ({"shapes": {"x": (1, 3, 5), "z": (1, 6)}}, "axis 1 of graph input 'z' must be height = 5, not 6"),
        ({"constants": {"x": np.zeros((1, 2, 3))}}, "constant 'x' must be of shape (n, 3, height), not (1, 2, 3)"),
        ({"constants": {"x": [[1], [2, 3]]}}, "constant 'x' must be an array of numbers, not list"),
        ({"constants": {"i": [0.5]}}, "constant 'i' must be int8, not float64"),
        ({"constants": {"i": [128]}}, "constant 'i' must be int8, not int64"),
        ({"constants": {"i": ["a"]}}, "constant 'i' must be int8, not <U1"),
        ({"shapes": {"x": (4, 3, 5), "z": (5, 5)}}, "axis 0 of graph input 'z' must be n = 4, not 5"),
        ({"shapes": {"x": (1, 3, 1 << 30)}}, f"size of 'x' must be below {LIMIT} elements, not {3 << 30}"),
    ],
)
def test_bind_refuses(arguments, message):
    source = ports(x=("n", 3, "height"), z=("n", "height"))
    source = replace(source, inputs={**source.inputs, "i": Given(TensorProto.INT8, (1,))})
    with pytest.raises(NetworkError, match=f"^{re.escape(message)}$"):
        bind(source, **arguments)


@pytest.mark.parametrize(("first", "second", "found"), [(4, 5, 5), (4, 1, 1), (1, 4, 1)])
def test_inputs_have_one_batch(first, second, found):
    name = "x" if first == 1 else "z"
    with pytest.raises(NetworkError, match=f"^axis 0 of graph input '{name}' must be 4, the batch of the other inputs, not {found}$"):
        bind(ports(x=(first, 3), z=(second, 3)))


# Folding.


def test_shape_arithmetic_is_gone():
    """As exporters write a Flatten: Shape, Gather, Concat, Reshape."""
    source = graph(
        node("Shape", "x", "s"),
        node("Gather", "s i", "n", axis=0),
        node("Unsqueeze", "n zero", "m"),
        node("Concat", "m rest", "t", axis=0),
        node("Reshape", "x t", "y"),
        i=np.array(0),
        zero=np.array([0]),
        rest=np.array([-1]),
    )
    folded = fold(bind(source))
    assert [each.kind for each in folded.nodes] == ["Reshape"]
    assert folded.constants["t"].values.tolist() == [1, -1]
    assert {*folded.constants} == {"t"}
    assert folded.shapes == {"x": (1, 4, 6), "t": (2,), "y": (1, 24)}
    assert folded.kinds == {"x": TensorProto.FLOAT, "t": TensorProto.INT64, "y": TensorProto.FLOAT}


def test_what_changes_nothing_is_gone():
    """Outputs keep their names, whoever writes them."""
    source = graph(
        node("Identity", "x", "a"),
        node("Relu", "a", "b"),
        node("Dropout", "b ratio", "c"),
        node("Cast", "c", "y", to=TensorProto.FLOAT),
        node("Identity", "x", "z"),
        node("Identity", "b", "w"),
        outputs="y z w",
        ratio=np.array(0.5, F32),
    )
    folded = fold(bind(source))
    assert [(each.kind, each.inputs, each.outputs) for each in folded.nodes] == [
        ("Relu", ("x",), ("y",)),
        ("Identity", ("x",), ("z",)),
        ("Identity", ("y",), ("w",)),
    ]
    assert {*folded.shapes} == {"x", "y", "z", "w"}


def test_dropout_in_training_is_refused():
    rule = "training_mode of node 'it' (Dropout) must be false, or its ratio 0, not what leaves elements to chance"
    for ratio in (0.5, 0.0):
        source = graph(node("Dropout", "x ratio yes", "d"), node("Relu", "d", "y"), ratio=np.array(ratio, F32), yes=np.array(True))
        if ratio:
            with pytest.raises(NetworkError, match=f"^{re.escape(rule)}$"):
                fold(bind(source))
        else:
            assert [each.kind for each in fold(bind(source)).nodes] == ["Relu"]


def test_a_constant_output_stays():
    folded = fold(bind(graph(node("Neg", "c", "y"), c=np.ones(2, F32))))
    assert (folded.nodes, folded.outputs) == ((), ("y",))
    assert folded.constants["y"].values.tolist() == [-1, -1]


def test_folding_twice_changes_nothing():
    for build in BUILDERS.values():
        once = fold(bind(build(None)))
        twice = fold(once)
        assert [(each.kind, each.inputs, each.outputs, each.attributes) for each in once.nodes] == [
            (each.kind, each.inputs, each.outputs, each.attributes) for each in twice.nodes
        ]
        assert (once.shapes, once.kinds) == (twice.shapes, twice.kinds)


def opset_11(build: Callable[[Model], str], *shape: int) -> Model:
    model = Model(opset=11)
    model.input(*(shape or (1, 4, 6)))
    model.output(build(model))
    return model


FORMS: dict[str, Callable[[Model], str]] = {
    "unsqueeze": lambda m: m.node("Unsqueeze", "x", axes=[0, 3]),
    "squeeze": lambda m: m.node("Squeeze", m.node("Unsqueeze", "x", axes=[2]), axes=[2]),
    "squeeze all": lambda m: m.node("Squeeze", "x"),
    "reduce": lambda m: m.node("ReduceMean", "x", axes=[-1], keepdims=0),
    "reduce sum": lambda m: m.node("ReduceSum", "x", axes=[1]),
    "reduce all": lambda m: m.node("ReduceMax", "x"),
    "softmax": lambda m: m.node("Softmax", "x"),
    "softmax of the last axis": lambda m: m.node("Softmax", "x", axis=2),
    "softmax of negative axis": lambda m: m.node("LogSoftmax", "x", axis=-2),
    "softmax of everything": lambda m: m.node("Softmax", "x", axis=0),
    "dropout": lambda m: m.node("Dropout", "x", ratio=0.3),
    "clip": lambda m: m.node("Clip", "x", m.constant(-0.5, F32), m.constant(0.5, F32)),
    "pad": lambda m: m.node("Pad", "x", m.constant([0, 1, 0, 0, 0, 2], I64), m.constant(3.0, F32)),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_opset_11(tmp_path, form):
    """The newest form of an operator computes what the old one does, bit for bit."""
    model = opset_11(FORMS[form])
    folded = fold(bind(graph_of(model, tmp_path)))
    assert folded.opset == OPSET
    x = np.random.default_rng(3).standard_normal((1, 4, 6), F32)
    (expected,) = ran(model.proto, x=x)
    (result,) = ran(folded.to_model(), x=x)
    np.testing.assert_array_equal(result, expected)
    assert folded.shapes[folded.outputs[0]] == expected.shape
    for each in folded.nodes:
        assert {"axes", "split", "ratio"}.isdisjoint(each.attributes)
        if each.kind.startswith("Reduce"):
            assert folded.constants[each.inputs[1]].values.size > 0


@pytest.mark.parametrize(
    ("opset", "attributes", "sizes", "parts"),
    [
        (11, {"axis": 2}, None, [3, 3]),
        (11, {"axis": -1, "split": [2, 4]}, None, [2, 4]),
        (13, {"axis": 2}, [1, 5], [1, 5]),
        (18, {"axis": 2, "num_outputs": 2}, None, [3, 3]),
        (18, {"axis": 1, "num_outputs": 3}, None, [2, 2, 0]),
    ],
)
def test_splits_have_sizes(opset, attributes, sizes, parts):
    constants: dict[str, Any] = {} if sizes is None else {"s": np.array(sizes)}
    inputs = " ".join(["x", *constants])
    outputs = " ".join(f"y{at}" for at in range(len(parts)))
    folded = fold(bind(graph(node("Split", inputs, outputs, **attributes), opset=opset, outputs=outputs, **constants)))
    (split,) = folded.nodes
    assert folded.constants[split.inputs[1]].values.tolist() == parts
    assert {*split.attributes} == {"axis"}
    axis = attributes["axis"] % 3
    assert [folded.shapes[name][axis] for name in folded.outputs] == parts


def test_a_reduction_without_axes_may_be_idle():
    assert (
        not fold(bind(graph(node("ReduceSum", "x", "r", noop_with_empty_axes=1), node("Relu", "r", "y"))))
        .nodes[0]
        .kind.startswith("Reduce")
    )


@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalisation_has_parameters_of_channels(tmp_path, opset):
    size = 2 if opset == 18 else 4
    model = Model(opset=opset)
    model.input(1, 4, 6)
    parameters = [model.constant(np.arange(1, size + 1), F32) for _ in range(2)]
    model.output(model.node("GroupNormalization", "x", *parameters, num_groups=2))
    folded = fold(bind(graph_of(model, tmp_path)))
    x = np.random.default_rng(3).standard_normal((1, 4, 6), F32)
    (expected,) = ReferenceEvaluator(model.proto).run(None, {"x": x})
    (result,) = ReferenceEvaluator(folded.to_model()).run(None, {"x": x})
    np.testing.assert_array_equal(result, expected)
    assert folded.shapes[folded.outputs[0]] == (1, 4, 6)


FOREIGN = "com.microsoft, qonnx.custom_op.general, finn.custom_op.general, onnx.brevitas"
WEIGHTS = np.arange(24, dtype=np.int8).reshape(4, 6)


@pytest.mark.parametrize(
    ("move", "after", "axis"),
    [
        (node("Transpose", "w", "m", perm=[1, 0]), (6, 4), 1),
        (node("Transpose", "w", "m"), (6, 4), 1),
        (node("Unsqueeze", "w a", "m"), (4, 1, 6), 0),
        (node("Reshape", "w s", "m"), (4, 3, 2), 0),
    ],
)
def test_weights_are_moved_in_front_of_their_dequantiser(move, after, axis):
    source = graph(
        node("DequantizeLinear", "q scale zero", "w", name="weights", axis=0),
        move,
        node("Add", "k m", "y", name="sum"),
        node("Reshape", "x t", "k", name="view"),
        q=WEIGHTS,
        scale=np.array([1, 2, 3, 4], F32),
        zero=np.array([0, 1, 2, 3], np.int8),
        a=np.array([1]),
        s=np.array([4, 3, 2]),
        t=np.array(after),
    )
    source = replace(source, nodes=(*source.nodes[:2], source.nodes[3], source.nodes[2]))
    folded = fold(bind(source))
    (dequantise,) = [each for each in folded.nodes if each.kind == "DequantizeLinear"]
    assert (dequantise.outputs, dequantise.attributes) == (("m",), {"axis": axis})
    moved = folded.constants[dequantise.inputs[0]].values
    np.testing.assert_array_equal(moved, WEIGHTS.T if move.kind == "Transpose" else WEIGHTS.reshape(after))
    assert move.kind not in [each.kind for each in folded.nodes if each.outputs == ("m",)]
    x = np.zeros((1, 4, 6), F32)
    for (result,), (expected,) in [(ran(folded.to_model(), x=x), ran(source.to_model(), x=x))]:
        np.testing.assert_array_equal(result, expected)


def test_an_axis_that_a_move_splits_stays_behind_the_dequantiser():
    source = graph(
        node("DequantizeLinear", "q scale", "w", axis=1),
        node("Reshape", "w s", "m"),
        node("Reshape", "x s", "k"),
        node("Add", "k m", "y"),
        q=WEIGHTS,
        scale=np.ones(6, F32),
        s=np.array([8, 3]),
    )
    assert [each.kind for each in fold(bind(source)).nodes] == ["DequantizeLinear", "Reshape", "Reshape", "Add"]


def test_unknown_constants_stay_unknown():
    source = graph(
        node("Transpose", "w", "t"),
        node("Reshape", "t s", "r"),
        node("Slice", "r a b", "c"),
        node("Add", "c one", "d"),
        node("Reshape", "x s2", "k"),
        node("Mul", "k d", "y"),
        w=Array.unknown((4, 6)),
        s=np.array([24]),
        a=np.array([0]),
        b=np.array([8]),
        one=np.ones((), F32),
        s2=np.array([3, 8]),
    )
    folded = fold(bind(source))
    assert [each.kind for each in folded.nodes] == ["Add", "Reshape", "Mul"]
    array = folded.constants["c"]
    assert (array.known, array.values.shape, folded.shapes["d"]) == (False, (8,), (8,))


def test_integers_are_divided_towards_zero():
    a, b = np.array([7, -7, 7, -7, 6]), np.array([2, 2, -2, -2, 3])
    assert fold(bind(graph(node("Div", "a b", "y"), a=a, b=b))).constants["y"].values.tolist() == [3, -3, -3, 3, 2]
    assert [each.kind for each in fold(bind(graph(node("Div", "a b", "y"), a=a, b=a * 0))).nodes] == ["Div"]


def test_weights_that_are_no_numbers_are_not_quantised():
    source = graph(node("QuantizeLinear", "w s", "y"), w=np.array([np.nan], F32), s=np.array(1, F32))
    assert [each.kind for each in fold(bind(source)).nodes] == ["QuantizeLinear"]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_narrow_floats_are_computed_in_their_type(kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    a, b = Array(np.array([1, 3], F32), kind), Array(np.array([3, 7], F32), kind)
    array = fold(bind(graph(node("Div", "a b", "y"), a=a, b=b))).constants["y"]
    assert array.kind == kind
    assert array.values.dtype == F32
    np.testing.assert_array_equal(array.values, (np.array([1, 3], dtype) / np.array([3, 7], dtype)).astype(F32))


def test_four_bit_constants_are_held_as_int8():
    source = graph(
        node("QuantizeLinear", "w s z", "y"),
        w=np.array([-9.0, 2.5, 99], F32),
        s=np.array(1, F32),
        z=Array(np.array(0, np.int8), TensorProto.INT4),
    )
    array = fold(bind(source)).constants["y"]
    assert (array.kind, array.values.tolist()) == (TensorProto.INT4, [-8, 2, 7])
    assert array.values.dtype == np.int8


# Other domains.


def quantised(**more: Any) -> dict[str, Any]:
    return {"s": np.array(0.5, F32), "z": np.array(3, np.uint8), **more}


@pytest.mark.parametrize(
    ("it", "constants", "shape", "kind"),
    [
        (node("QLinearAdd", "q s z q s z s z", "y"), {}, (1, 4, 6, 6), "uint8"),
        (
            node("QLinearMul", "q s z w s z s i", "y"),
            {"w": np.ones((2, 1, 4, 1, 1), np.uint8), "i": np.array(0, np.int8)},
            (2, 1, 4, 6, 6),
            "int8",
        ),
        (node("QLinearSigmoid", "q s z s z", "y"), {}, (1, 4, 6, 6), "uint8"),
        (node("QLinearConcat", "s z q s z q s z", "y", axis=1), {}, (1, 8, 6, 6), "uint8"),
        (node("QLinearGlobalAveragePool", "q s z s z", "y", channels_last=0), {}, (1, 4, 1, 1), "uint8"),
        (node("QLinearGlobalAveragePool", "q s z s z", "y", channels_last=1), {}, (1, 1, 1, 6), "uint8"),
        (node("QLinearAveragePool", "q s z s z", "y", kernel_shape=[2, 2], ceil_mode=0), {}, (1, 4, 5, 5), "uint8"),
        (node("QLinearReduceMean", "q s z s z", "y", axes=[2], keepdims=0), {}, (1, 4, 6), "uint8"),
        (node("QLinearWhere", "c q s z q s z s z", "y"), {"c": np.array(True)}, (1, 4, 6, 6), "uint8"),
        (node("QLinearConv", "q s z w s z s z", "y"), {"w": np.ones((5, 4, 3, 3), np.uint8)}, (1, 5, 4, 4), "uint8"),
        (node("QLinearConv", "q s z w s z s z", "y", channels_last=1), {"w": np.ones((5, 6, 3, 3), np.uint8)}, (1, 2, 4, 5), "uint8"),
        (node("QGemm", "f s z w s z", "y", transB=1), {"w": np.ones((5, 144), np.uint8)}, (1, 5), "float"),
        (node("NhwcMaxPool", "q", "y", kernel_shape=[2, 2]), {}, (1, 3, 5, 6), "uint8"),
        (node("MatMulIntegerToFloat", "q w s s", "y"), {"w": np.ones((6, 5), np.uint8)}, (1, 4, 6, 5), "float"),
        (node("FusedMatMul", "x w", "y", alpha=2.0), {"w": np.ones((6, 5), F32)}, (1, 4, 6, 5), "float"),
        (node("QuickGelu", "x", "y"), {}, (1, 4, 6, 6), "float"),
        (node("DequantizeLinear", "q s z", "y"), {}, (1, 4, 6, 6), "float"),
    ],
)
def test_shapes_of_quantised_operators(it, constants, shape, kind):
    """Operators of onnxruntime, whose shapes ONNX does not know."""
    source = graph(
        node("QuantizeLinear", "x s z", "q"),
        node("Flatten", "q", "f"),
        replace(it, domain="com.microsoft"),
        x=(1, 4, 6, 6),
        **quantised(**constants),
    )
    folded = fold(bind(source))
    assert (folded.shapes["y"], folded.kinds["y"]) == (shape, TensorProto.DataType.Value(kind.upper()))


def test_quantisers_of_onnxruntime_are_those_of_onnx():
    source = graph(
        node("QuantizeLinear", "x s z", "q", "com.microsoft"),
        node("DequantizeLinear", "q s z", "y", "com.microsoft"),
        **quantised(z=np.array(3, np.uint16)),
    )
    assert [each.domain for each in fold(bind(source)).nodes] == ["", ""]


def test_quantisers_of_a_canonical_graph():
    """Bounds and rounding, which ONNX does not know, stay."""
    source = graph(node("QuantizeLinear", "x s z", "y", lo=1, hi=5, rounding="floor"), **quantised())
    (quantise,) = fold(bind(source)).nodes
    assert quantise.attributes == {"lo": 1, "hi": 5, "rounding": "floor"}


@pytest.mark.parametrize("domain", ["qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"])
def test_shapes_of_qonnx(domain):
    source = graph(node("Quant", "x s z b", "y", domain, rounding_mode="ROUND"), **quantised(z=np.array(0, F32), b=np.array(3, F32)))
    folded = fold(bind(source))
    assert (folded.shapes["y"], folded.kinds["y"]) == ((1, 4, 6), TensorProto.FLOAT)


# What is refused.


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("If", "x", "y")], {}, "operator of node 'it' (If) must be free of control flow, sequences, text and chance, not If"),
        (
            [node("RandomNormalLike", "x", "y")],
            {},
            "operator of node 'it' (RandomNormalLike) must be free of control flow, sequences, text and chance, not RandomNormalLike",
        ),
        (
            [node("Relu", "x", "y", "com.example")],
            {},
            f"domain of operator com.example.Relu of node 'it' (Relu) must be ONNX's own, {FOREIGN}, not 'com.example'",
        ),
        (
            [node("Attention", "x", "y", "com.microsoft")],
            {},
            "operator of node 'it' (Attention) must be MatMul and Softmax spelled out, not com.microsoft.Attention",
        ),
        (
            [node("Odd", "x", "y", "com.microsoft")],
            {},
            f"operator of node 'it' (Odd) must be one of ONNX's own or of {', '.join(module.STAND_INS)}, not com.microsoft.Odd",
        ),
        ([node("Odd", "x", "y")], {}, "node 'it' (Odd) must follow ONNX's rules: No schema registered for 'Odd'"),
        ([node("Relu", "x x", "y")], {}, "node 'it' (Relu) must follow ONNX's rules: Node"),
        (
            [node("Relu", "x", "y", flavour=1)],
            {},
            "node 'it' (Relu) must follow ONNX's rules: Unrecognized attribute: flavour for operator Relu",
        ),
        ([node("MatMul", "x w", "y")], {"w": np.ones((5, 5), F32)}, "node 'it' (MatMul) must follow ONNX's rules: "),
        ([node("NonZero", "x", "y")], {}, "shape of 'y', which node 'it' (NonZero) writes, must follow from what it reads, not stay open"),
        (
            [node("ConstantOfShape", "n", "y")],
            {"n": np.array([1 << 20, 1 << 20])},
            f"size of 'y' must be below {LIMIT} elements, not {1 << 40}",
        ),
        ([node("Split", "x", "y z", axis=3)], {}, "axis of node 'it' (Split) must be in [-3, 2], not 3"),
        ([node("Split", "x", "y z", num_outputs=3)], {}, "num_outputs of node 'it' (Split) must be 2, the number of its outputs, not 3"),
        ([node("Transpose", "x", "y", perm=[0, 0, 1])], {}, "perm of node 'it' (Transpose) must order 3 axes, not [0, 0, 1]"),
        ([node("Transpose", "w", "y", perm=[0, 0])], {"w": np.ones((2, 2))}, "perm of node 'it' (Transpose) must order 2 axes, not [0, 0]"),
        ([node("Softmax", "x", "y", axis="last")], {}, "axis of node 'it' (Softmax) must be an integer, not last"),
        ([node("Softmax", "x", "y", axis=[1])], {}, "axis of node 'it' (Softmax) must be an integer, not [1]"),
        ([node("Transpose", "x", "y", perm=1)], {}, "perm of node 'it' (Transpose) must be a list of integers, not 1"),
        ([node("Transpose", "x", "y", perm=[0, "a"])], {}, "perm of node 'it' (Transpose) must be a list of integers, not [0, 'a']"),
        ([node("Elu", "x", "y", alpha="a")], {}, "alpha of node 'it' (Elu) must be a number, not a"),
        ([node("Elu", "x", "y", alpha=Array.of([1]))], {}, "alpha of node 'it' (Elu) must be a number, not a tensor"),
        (
            [node("QLinearReduceMean", "x s z s z", "y", "com.microsoft", axes="a")],
            {"s": np.ones((), F32), "z": np.uint8(1)},
            "input 1 of node 'it' (ReduceMean) must be integers, not a",
        ),
        (
            [node("ReduceL2", "x", "y", noop_with_empty_axes=2)],
            {},
            "noop_with_empty_axes of node 'it' (ReduceL2) must be 0 or 1, not 2",
        ),
        (
            [node("Cast", "x", "y", to=TensorProto.STRING)],
            {},
            "type of 'y', which node 'it' (Cast) writes, must follow from what it reads, not stay open",
        ),
        ([node("Reshape", "", "y")], {}, "node 'it' (Reshape) must follow ONNX's rules: Node"),
        ([node("Softmax", "x", "y", axis=3)], {}, "axis of node 'it' (Softmax) must be in [-3, 2], not 3"),
        ([node("Softmax", "c", "y")], {"c": np.ones((), F32)}, "axis of node 'it' (Softmax) must be in [0, -1], not -1"),
        ([node("ReduceSum", "", "y")], {}, "input 0 of node 'it' (ReduceSum) must be given, not left out"),
    ],
)
def test_fold_refuses(nodes, constants, message):
    with pytest.raises(NetworkError, match=f"^{re.escape(message)}"):
        fold(bind(graph(*nodes, **constants)))


@pytest.mark.parametrize(
    ("it", "constants", "message"),
    [
        (node("Softmax", "x", "y", axis=4), {}, "axis of node 'it' (Softmax) must be in [-3, 3], not 4"),
        (
            node("GroupNormalization", "x s b", "y", num_groups=3),
            {},
            "num_groups of node 'it' (GroupNormalization) must divide its 4 channels, not be 3",
        ),
        (
            node("GroupNormalization", "x s b", "y", num_groups=2),
            {"s": np.ones(2, F32), "b": np.ones(3, F32)},
            "bias of node 'it' (GroupNormalization) must be 2 constants, one for each group, not others",
        ),
    ],
)
def test_old_forms_are_refused(it, constants, message):
    with pytest.raises(NetworkError, match=f"^{re.escape(message)}"):
        fold(bind(graph(it, opset=12, **constants)))


def test_large_constants_are_not_computed():
    """What would fill the memory stays in the graph; each alone, and all of them together."""
    size = np.array([module.FOLDED // 8 + 1])
    assert [each.kind for each in fold(bind(graph(node("ConstantOfShape", "n", "y"), n=size))).nodes] == ["ConstantOfShape"]
    some = np.array([1 << 24])
    nodes = [node("ConstantOfShape", "n", f"y{at}") for at in range(5)]
    assert len(fold(bind(graph(*nodes, outputs="y0 y1 y2 y3 y4", n=some))).nodes) == 1


def test_slow_constants_are_not_computed():
    nodes = [node("NonZero", "w", "y"), node("MatMul", "a a", "z")]
    with pytest.raises(NetworkError, match="must follow from what it reads"):
        fold(bind(graph(nodes[0], w=np.ones(module.LOOPED + 1, F32))))
    assert len(fold(bind(graph(nodes[1], outputs="z", a=np.ones((700, 700), F32)))).nodes) == 1
    assert fold(bind(graph(nodes[0], w=np.array([0, 3, 4], F32)))).constants["y"].values.tolist() == [[1, 2]]


# The batch of the file.


def convolution(model: Model) -> None:
    """Add what exporters fix the batch in: a Reshape, an Expand, and a Shape that is computed."""
    x = model.input(4, 2, 6, name="x")
    token = model.node("Expand", model.constant(np.arange(6).reshape(1, 1, 6), F32), model.constant([4, 1, 6], I64))
    y = model.node("Concat", x, token, axis=1)
    y = model.node("Reshape", y, model.constant([4, -1, 2], I64))
    y = model.node("MatMul", y, model.constant(np.arange(6).reshape(2, 3), F32))
    y = model.node(
        "Reshape",
        y,
        model.node(
            "Concat",
            model.node("Slice", model.node("Shape", y), model.constant([0], I64), model.constant([1], I64)),
            model.constant([-1], I64),
            axis=0,
        ),
    )
    model.output(y)


def test_a_fixed_batch_comes_apart(tmp_path):
    """Sample by sample, the graph gives what the file does for the batch."""
    model = Model()
    convolution(model)
    folded = fold(bind(graph_of(model, tmp_path)))
    assert (folded.batch, folded.inputs["x"].shape, folded.shapes[folded.outputs[0]]) == (4, (1, 2, 6), (1, 27))
    x = np.random.default_rng(5).standard_normal((4, 2, 6), F32)
    (expected,) = ran(model.proto, x=x)
    single = replace(folded, batch=1).to_model()
    np.testing.assert_array_equal(np.concatenate([ran(single, x=each[None])[0] for each in x]), expected)


def mixes(shown: str = "it") -> str:
    return f"^batch of 4, which the file fixes, must come apart into samples, not be mixed by node '{shown}'"


@pytest.mark.parametrize(
    ("it", "constants", "message"),
    [
        (node("ReduceMean", "x axes", "y"), {"axes": np.array([0])}, r" \(ReduceMean\): \(1, 4, 6\) becomes \(1, 4, 6\)$"),
        (node("Concat", "x x", "y", axis=0), {}, r" \(Concat\) along axis 0$"),
        (node("Transpose", "x", "y", perm=[1, 0, 2]), {}, r" \(Transpose\): \(4, 4, 6\) becomes \(4, 1, 6\)$"),
        (
            node("Slice", "x a b axes", "y"),
            {"a": np.array([0]), "b": np.array([1]), "axes": np.array([0])},
            r" \(Slice\): \(1, 4, 6\) becomes \(1, 4, 6\)$",
        ),
        (
            node("Slice", "x a b axes steps", "y"),
            {"a": np.array([9]), "b": np.array([-9]), "axes": np.array([0]), "steps": np.array([-1])},
            r" \(Slice\) along axis 0$",
        ),
        (node("Softmax", "x", "y", axis=0), {}, r" \(Softmax\) along axis 0$"),
        (node("CumSum", "x axis", "y"), {"axis": np.array(0)}, r" \(CumSum\) along axis 0$"),
    ],
)
def test_samples_must_not_mix(it, constants, message):
    with pytest.raises(NetworkError, match=mixes() + message):
        fold(bind(graph(it, x=(4, 4, 6), **constants)))


def test_a_batch_inside_a_shape_is_named():
    source = graph(node("Reshape", "x s", "y"), x=(4, 4, 6), s=np.array([16, 6]))
    with pytest.raises(NetworkError, match=mixes() + r" \(Reshape\): \(16, 6\) becomes \(16, 6\)$"):
        fold(bind(source))
