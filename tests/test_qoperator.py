"""Operators on integers against onnxruntime's own kernels of them: original and rewritten graph, tensor by tensor."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from accel.errors import NetworkError
from accel.graph import qonnx
from accel.graph.evaluate import run
from accel.graph.graph import Array, Given, Graph, Node
from accel.graph.qoperator import FEWEST, RULES, rewrite
from accel.graph.read import read
from accel.verification.compare import run_onnxruntime
from tests.qdq import Model

pytest.importorskip("onnxruntime")
QONNX = "qonnx.custom_op.general"


def canonical(model: Model | onnx.ModelProto, folder: Path) -> Graph:
    """Rewrite the graph of a model."""
    path = folder / "model.onnx"
    onnx.save(model.proto if isinstance(model, Model) else model, path)
    graph = read(path)
    proto = onnx.shape_inference.infer_shapes(onnx.load(path))
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*proto.graph.value_info, *proto.graph.output]}
    graph = rewrite(replace(graph, kinds={name: kind for name, kind in kinds.items() if kind}))
    assert not any(node.domain or node.kind.startswith(("QLinear", "QGemm")) for node in graph.nodes)
    return graph


def parts(model: Model | onnx.ModelProto, folder: Path, inputs: dict[str, NDArray[Any]], worst: int = 0) -> float:
    """Share of output integers in which onnxruntime's kernels and the rewritten graph differ, none by more than `worst`."""
    graph = canonical(model, folder)
    proto = model.proto if isinstance(model, Model) else model
    theirs, ours = run_onnxruntime(proto, inputs, optimise=False), run(graph, inputs)
    assert list(theirs) == list(ours)
    gaps = [np.abs(theirs[name].astype(np.float64) - ours[name]) for name in theirs]
    assert [each.shape for each in theirs.values()] == [each.shape for each in ours.values()]
    assert max(gap.max() for gap in gaps) <= worst
    return float(np.mean([np.count_nonzero(gap) / gap.size for gap in gaps]))


def integers(seed: int, *shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def arguments(model: Model, scale: Any, zero: Any, dtype: Any = np.uint8) -> tuple[str, str]:
    return model.constant(scale, np.float32), model.constant(zero, dtype)


def out(model: Model, kind: str, *inputs: str, dtype: Any = np.uint8, domain: str = "com.microsoft", **attributes: Any) -> None:
    model.output(model.node(kind, *inputs, domain=domain, **attributes), helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


KINDS = [np.uint8, np.int8]


# Each operator alone.


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_convolution_is_that_of_the_reals(dtype: Any, bias: bool, tmp_path: Path) -> None:
    model = Model()
    x = model.input("batch", 4, 9, 8, kind=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    weights = model.constant(integers(1, 6, 2, 3, 3, dtype=np.int8))
    scales = np.array([0.5, 1, 2, 3, 0.25, 1]) / 128
    inputs = [
        x,
        *arguments(model, 0.1, 3, dtype),
        weights,
        *arguments(model, scales, np.zeros(6), np.int8),
        *arguments(model, 0.5, 7, dtype),
    ]
    more = [model.constant(np.random.default_rng(2).integers(-4000, 4000, 6), np.int32)] if bias else []
    out(model, "QLinearConv", *inputs, *more, dtype=dtype, domain="", group=2, pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2])
    assert parts(model, tmp_path, {"x": integers(3, 8, 4, 9, 8, dtype=dtype)}, worst=1) < 1e-3


def test_bias_keeps_its_integers_and_its_units(tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 1, 4, 4, kind=TensorProto.UINT8)
    inputs = [x, *arguments(model, 0.1, 3), model.constant(integers(1, 2, 1, 1, 1)), *arguments(model, [0.5, 0.25], [0, 0])]
    bias = model.constant([5, -7], np.int32)
    out(model, "QLinearConv", *inputs, *arguments(model, 1.0, 0), bias, domain="")
    graph = canonical(model, tmp_path)
    reader = next(node for node in graph.nodes if bias in node.inputs)
    assert reader.kind == "DequantizeLinear"
    np.testing.assert_array_equal(graph.constants[bias].values, [5, -7])
    np.testing.assert_array_equal(graph.constants[reader.inputs[1]].values, (np.float32(0.1) * np.array([0.5, 0.25])).astype(np.float32))


def test_channels_last_is_transposed(tmp_path: Path) -> None:
    plain, last = Model(), Model()
    weights, results = integers(1, 5, 3, 3, 3, dtype=np.int8), []
    x = integers(2, 1, 3, 6, 7)
    for model, shape, extra in ((plain, (1, 3, 6, 7), {}), (last, (1, 6, 7, 3), {"channels_last": 1})):
        given = [
            model.input(*shape, kind=TensorProto.UINT8),
            *arguments(model, 0.1, 3),
            model.constant(weights),
            *arguments(model, 0.01, 0, np.int8),
        ]
        out(model, "QLinearConv", *given, *arguments(model, 0.5, 100), pads=[1, 1, 1, 1], domain="com.microsoft" if extra else "", **extra)
        graph = canonical(model, tmp_path)
        (result,) = run(graph, {"x": x.transpose(0, 2, 3, 1) if extra else x}).values()
        results.append(result)
    np.testing.assert_array_equal(results[1], results[0].transpose(0, 2, 3, 1))
    assert parts(plain, tmp_path, {"x": x}, worst=1) < 0.01


@pytest.mark.parametrize("dtype", KINDS)
def test_matrix_product_is_that_of_the_reals(dtype: Any, tmp_path: Path) -> None:
    model = Model()
    x = model.input("batch", 5, 16, kind=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    scales = np.linspace(1, 2, 7) / 100
    weights = model.constant(integers(1, 16, 7, dtype=np.int8))
    inputs = [
        x,
        *arguments(model, 0.1, 3, dtype),
        weights,
        *arguments(model, scales, np.zeros(7), np.int8),
        *arguments(model, 1.5, 9, dtype),
    ]
    out(model, "QLinearMatMul", *inputs, domain="", dtype=dtype)
    assert parts(model, tmp_path, {"x": integers(3, 40, 5, 16, dtype=dtype)}, worst=1) < 1e-2


@pytest.mark.parametrize("rounded", [False, True])
def test_gemm_with_bias_and_alpha(rounded: bool, tmp_path: Path) -> None:
    model = Model()
    x = model.input("batch", 16, kind=TensorProto.UINT8)
    scales = np.linspace(1, 2, 7) / 100
    inputs = [
        x,
        *arguments(model, 0.1, 3),
        model.constant(integers(1, 7, 16, dtype=np.int8)),
        *arguments(model, scales, np.zeros(7), np.int8),
    ]
    inputs.append(model.constant(np.random.default_rng(2).integers(-4000, 4000, 7), np.int32))
    more = arguments(model, 1.5, 9) if rounded else ()
    out(model, "QGemm", *inputs, *more, transB=1, alpha=0.5, dtype=np.uint8 if rounded else np.float32)
    if rounded:
        assert parts(model, tmp_path, {"x": integers(3, 100, 16)}, worst=1) < 1e-2
    else:
        graph, given = canonical(model, tmp_path), {"x": integers(3, 1, 16)}
        np.testing.assert_allclose(
            next(iter(run(graph, given).values())), next(iter(run_onnxruntime(model.proto, given).values())), rtol=1e-5
        )


PAIRS = [("QLinearAdd", 0.7), ("QLinearMul", 6.0)]


@pytest.mark.parametrize(("kind", "scale"), PAIRS)
@pytest.mark.parametrize("dtype", KINDS)
def test_two_operands(kind: str, scale: float, dtype: Any, tmp_path: Path) -> None:
    model = Model()
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    a, b = model.input("batch", 8, 9, name="a", kind=element), model.input("batch", 8, 9, name="b", kind=element)
    out(
        model,
        kind,
        a,
        *arguments(model, 0.3, 10, dtype),
        b,
        *arguments(model, 0.17, 60, dtype),
        *arguments(model, scale, 40, dtype),
        dtype=dtype,
    )
    given = {"a": integers(1, 50, 8, 9, dtype=dtype), "b": integers(2, 50, 8, 9, dtype=dtype)}
    assert parts(model, tmp_path, given, worst=1) < 0.05


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(("kind", "attributes"), [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.2}), ("QLinearLeakyRelu", {})])
def test_one_operand(kind: str, attributes: dict[str, Any], dtype: Any, tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 256, kind=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    out(model, kind, x, *arguments(model, 0.04, 20, dtype), *arguments(model, 0.004, 5, dtype), dtype=dtype, **attributes)
    every = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)[None]
    assert parts(model, tmp_path, {"x": every}, worst=1) < 0.01


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("QLinearGlobalAveragePool", {}),
        ("QLinearAveragePool", {"kernel_shape": [2, 3], "strides": [2, 1]}),
        ("QLinearAveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ("QLinearGlobalAveragePool", {"channels_last": 1}),
    ],
)
def test_averages(kind: str, attributes: dict[str, Any], dtype: Any, tmp_path: Path) -> None:
    model = Model()
    x = model.input("batch", 5, 8, 6, kind=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    out(model, kind, x, *arguments(model, 0.04, 20, dtype), *arguments(model, 0.03, 5, dtype), dtype=dtype, **attributes)
    assert parts(model, tmp_path, {"x": integers(1, 40, 5, 8, 6, dtype=dtype)}, worst=1) < 0.1


def test_concatenation_of_grids(tmp_path: Path) -> None:
    model = Model()
    a, b = (model.input(1, channels, 9, name=name, kind=TensorProto.UINT8) for name, channels in (("a", 3), ("b", 8)))
    out(model, "QLinearConcat", *arguments(model, 0.2, 40), a, *arguments(model, 0.3, 10), b, *arguments(model, 0.17, 60), axis=1)
    assert parts(model, tmp_path, {"a": integers(1, 1, 3, 9), "b": integers(2, 1, 8, 9)}, worst=1) < 0.05


@pytest.mark.parametrize(("axis", "opset"), [(-1, 13), (1, 13), (1, 12), (2, 12)])
@pytest.mark.parametrize("dtype", KINDS)
def test_softmax(axis: int, opset: int, dtype: Any, tmp_path: Path) -> None:
    model = Model()
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = model.input(1, 6, 9, kind=kind)
    zero = np.iinfo(dtype).min
    out(
        model,
        "QLinearSoftmax",
        x,
        *arguments(model, 0.05, 3, dtype),
        *arguments(model, 1 / 256, zero, dtype),
        dtype=dtype,
        axis=axis,
        opset=opset,
    )
    onnx.save(model.proto, tmp_path / "model.onnx")
    graph = rewrite(replace(read(tmp_path / "model.onnx"), shapes={"x": (1, 6, 9)}))
    given = {"x": integers(1, 1, 6, 9, dtype=dtype)}
    theirs, ours = run_onnxruntime(model.proto, given, optimise=False), run(graph, given)
    gap = np.abs(next(iter(theirs.values())).astype(int) - next(iter(ours.values())))
    assert gap.max() <= 1


def test_mean_of_axes(tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 5, 8, 6, kind=TensorProto.INT8)
    given = [x, *arguments(model, 0.04, 20, np.int8), *arguments(model, 0.03, 5, np.int8)]
    out(model, "QLinearReduceMean", *given, dtype=np.int8, axes=[2, 3], keepdims=0)
    graph = canonical(model, tmp_path)
    values = integers(1, 1, 5, 8, 6, dtype=np.int8)
    exact = ((values.astype(np.float64) - 20).mean(axis=(2, 3)) * np.float32(0.04)) / np.float32(0.03)
    np.testing.assert_array_equal(next(iter(run(graph, {"x": values}).values())), np.clip(np.rint(exact) + 5, -128, 127))


def test_choice_between_two(tmp_path: Path) -> None:
    model = Model()
    condition = model.constant([True, False, True, False])
    given = [condition, model.input(1, 4, kind=TensorProto.UINT8), *arguments(model, 0.5, 3), model.constant([[9, 8, 7, 6]], np.uint8)]
    out(model, "QLinearWhere", *given, *arguments(model, 0.25, 0), *arguments(model, 0.25, 4))
    assert parts(model, tmp_path, {"x": integers(1, 1, 4)}) == 0


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_quantisers_before_onnx_had_them(dtype: Any, tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 300)
    q = model.node("QuantizeLinear", x, *arguments(model, 0.001, 5, dtype), domain="com.microsoft")
    model.output(q, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    model.output(model.node("DequantizeLinear", q, *arguments(model, 0.001, 5, dtype), domain="com.microsoft"))
    assert parts(model, tmp_path, {"x": np.random.default_rng(1).normal(0, 9, (1, 300)).astype(np.float32)}) == 0


# Products in int32.


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("quantised", [False, True])
def test_integer_product_and_its_scale_are_a_product_of_reals(per_column: bool, quantised: bool, tmp_path: Path) -> None:
    model = Model()
    scale, weights = np.linspace(1, 2, 7) / 50 if per_column else np.array(0.02), integers(1, 16, 7, dtype=np.int8)
    x = model.input(1, 16, kind=TensorProto.FLOAT if quantised else TensorProto.UINT8)
    q = model.quantise(x, 0.1, 3) if quantised else x
    product = model.node("MatMulInteger", q, model.constant(weights), model.constant(3, np.uint8), model.constant(0, np.int8))
    real = model.node("Mul", model.constant(scale, np.float32), model.node("Cast", product, to=TensorProto.FLOAT))
    model.output(model.node("Add", real, model.constant(np.arange(7), np.float32)))
    given = {"x": integers(2, 1, 16)} if not quantised else {"x": np.random.default_rng(2).uniform(0, 25, (1, 16)).astype(np.float32)}
    graph = canonical(model, tmp_path)
    assert sorted(node.kind for node in graph.nodes) == sorted(
        ["Add", "DequantizeLinear", "DequantizeLinear", "MatMul"] + ["QuantizeLinear"] * quantised
    )
    (ours,), (theirs,) = run(graph, given).values(), run_onnxruntime(model.proto, given).values()
    np.testing.assert_allclose(ours, theirs, rtol=3e-6, atol=1e-5)


def test_integer_product_by_rows_keeps_its_factor_behind(tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 3, 4, kind=TensorProto.UINT8)
    product = model.node("MatMulInteger", x, model.constant(integers(1, 4, 5)), model.constant(3, np.uint8))
    scale = model.constant(np.array([[1.0], [2], [3]]), np.float32)
    model.output(model.node("Mul", model.node("Cast", product, to=TensorProto.FLOAT), scale))
    given = {"x": integers(2, 1, 3, 4)}
    graph = canonical(model, tmp_path)
    assert [node.kind for node in graph.nodes] == ["DequantizeLinear", "DequantizeLinear", "MatMul", "Mul"]
    (ours,), (theirs,) = run(graph, given).values(), run_onnxruntime(model.proto, given).values()
    np.testing.assert_array_equal(ours, theirs)


def test_integer_convolution_and_its_scale(tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 3, 6, 6, kind=TensorProto.UINT8)
    product = model.node(
        "ConvInteger", x, model.constant(integers(1, 4, 3, 3, 3)), model.constant(3, np.uint8), model.constant(128, np.uint8), pads=[1] * 4
    )
    scale = model.constant(np.array([1.0, 2, 3, 4]).reshape(1, 4, 1, 1), np.float32)
    model.output(model.node("Mul", model.node("Cast", product, to=TensorProto.FLOAT), scale))
    given = {"x": integers(2, 1, 3, 6, 6)}
    graph = canonical(model, tmp_path)
    assert [node.kind for node in graph.nodes] == ["DequantizeLinear", "DequantizeLinear", "Conv"]
    (ours,), (theirs,) = run(graph, given).values(), run_onnxruntime(model.proto, given).values()
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["MatMulInteger", "ConvInteger"])
def test_integer_product_that_stays_integer_is_kept(kind: str, tmp_path: Path) -> None:
    model = Model()
    shape, weights = ((1, 4), (4, 5)) if kind == "MatMulInteger" else ((1, 2, 4, 4), (3, 2, 2, 2))
    x = model.input(*shape, kind=TensorProto.UINT8)
    out(model, kind, x, model.constant(integers(1, *weights)), dtype=np.int32, domain="")
    assert [node.kind for node in canonical(model, tmp_path).nodes] == [kind]
    assert parts(model, tmp_path, {"x": integers(2, *shape)}) == 0


def dynamic(model: Model, x: str) -> tuple[str, str, str]:
    model.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], ["dq", "ds", "dz"], name="dynamic"))
    return "dq", "ds", "dz"


def test_dynamic_quantisation_is_left_to_calibration(tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 16)
    q, scale, zero = dynamic(model, x)
    weights, factor = integers(1, 16, 7, dtype=np.int8), model.constant(0.02, np.float32)
    product = model.node("MatMulInteger", q, model.constant(weights), zero, model.constant(0, np.int8))
    model.output(model.node("Mul", model.node("Cast", product, to=TensorProto.FLOAT), model.node("Mul", scale, factor)))
    model.output(model.node("DequantizeLinear", q, scale, zero))
    graph, given = canonical(model, tmp_path), {"x": np.random.default_rng(1).normal(0, 1, (1, 16)).astype(np.float32)}
    assert [node.kind for node in graph.nodes] == ["DequantizeLinear", "MatMul", "Identity"]
    found = list(run(graph, given).values())
    np.testing.assert_allclose(found[0], given["x"] @ (weights * np.float32(0.02)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[1], given["x"])


def test_dynamic_quantisation_that_onnxruntime_fused(tmp_path: Path) -> None:
    weights, x = integers(1, 16, 7, dtype=np.int8), np.random.default_rng(1).normal(0, 1, (1, 16)).astype(np.float32)
    for kind in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "static"):
        model = Model()
        given = model.input(1, 16)
        scale, bias = model.constant(0.02, np.float32), model.constant(np.arange(7), np.float32)
        if kind == "DynamicQuantizeMatMul":
            model.output(model.node(kind, given, model.constant(weights), scale, "", bias, domain="com.microsoft"))
        else:
            q, of_q, zero = dynamic(model, given) if kind != "static" else (model.quantise(given, 0.02, 128), *arguments(model, 0.02, 128))
            model.output(
                model.node("MatMulIntegerToFloat", q, model.constant(weights), of_q, scale, zero, "", bias, domain="com.microsoft")
            )
        (found,) = run(canonical(model, tmp_path), {"x": x}).values()
        (theirs,) = run_onnxruntime(model.proto, {"x": x}).values()
        exact = x @ (weights * np.float32(0.02)) + np.arange(7)
        np.testing.assert_allclose(found, theirs if kind == "static" else exact, rtol=1e-4, atol=1e-4)


# What onnxruntime's optimiser makes of several float operators.


def test_networks_that_onnxruntime_quantised_dynamically(tmp_path: Path) -> None:
    from onnxruntime import quantization

    model, rng = Model(opset=17), np.random.default_rng(3)
    x = model.input(1, 5, 16)
    hidden = model.node("MatMul", x, model.constant(rng.normal(size=(16, 8)), np.float32, name="w"))
    model.output(model.node("Relu", model.node("Add", hidden, model.constant(rng.normal(size=8), np.float32, name="b"))))
    onnx.save(model.proto, tmp_path / "float.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages the quantiser itself uses
        quantization.quantize_dynamic(tmp_path / "float.onnx", tmp_path / "quantised.onnx", per_channel=True)
    quantised = onnx.load(tmp_path / "quantised.onnx")
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= {node.op_type for node in quantised.graph.node}
    graph = canonical(quantised, tmp_path)
    assert [node.kind for node in graph.nodes] == ["DequantizeLinear", "MatMul", "Add", "Relu"]
    given = {"x": rng.normal(size=(1, 5, 16)).astype(np.float32)}
    (ours,), (theirs,) = run(graph, given).values(), run_onnxruntime(model.proto, given).values()
    assert np.abs(ours - theirs).max() < 16 * 5 * 3 / 127 / 2  # of the weights' own rounding: half a step of 3 / 127 on 16 inputs below 5


def close(model: Model, folder: Path, *shape: int) -> Graph:
    given = {"x": np.random.default_rng(5).normal(0, 1, shape).astype(np.float32)}
    graph = canonical(model, folder)
    for ours, theirs in zip(run(graph, given).values(), run_onnxruntime(model.proto, given, optimise=False).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-4)
    return graph


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", []), ("LeakyRelu", [0.3]), ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.3, 0.4]), ("Tanh", []), ("", [])],
)
@pytest.mark.parametrize("addend", [False, True])
def test_fused_convolution(activation: str, parameters: list[float], addend: bool, tmp_path: Path) -> None:
    model, rng = Model(), np.random.default_rng(1)
    x = model.input(1, 3, 5, 5)
    more = [model.constant(rng.normal(size=(1, 4, 5, 5)), np.float32)] if addend else []
    attributes: dict[str, Any] = (
        {"activation": activation, **({"activation_params": parameters} if parameters else {})} if activation else {}
    )
    given = [x, model.constant(rng.normal(size=(4, 3, 3, 3)), np.float32), model.constant(rng.normal(size=4), np.float32), *more]
    model.output(model.node("FusedConv", *given, domain="com.microsoft", pads=[1] * 4, **attributes))
    close(model, tmp_path, 1, 3, 5, 5)


def test_fused_matrix_products(tmp_path: Path) -> None:
    model, rng = Model(), np.random.default_rng(1)
    x = model.input(1, 6)
    weights, bias = (model.constant(rng.normal(size=shape), np.float32) for shape in ((4, 6), (4,)))
    model.output(model.node("FusedGemm", x, weights, bias, domain="com.microsoft", transB=1, activation="LeakyRelu", activation_alpha=0.2))
    close(model, tmp_path, 1, 6)
    model = Model()
    x = model.input(1, 2, 3, 6)
    model.output(model.node("FusedMatMul", x, model.constant(rng.normal(size=(6, 4)), np.float32), domain="com.microsoft", alpha=0.5))
    close(model, tmp_path, 1, 2, 3, 6)


@pytest.mark.parametrize(
    ("kind", "bias"), [("Gelu", False), ("FastGelu", False), ("FastGelu", True), ("BiasGelu", True), ("QuickGelu", False)]
)
def test_gelu(kind: str, bias: bool, tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 3, 8)
    more = [model.constant(np.linspace(-1, 1, 8), np.float32)] if bias else []
    model.output(model.node(kind, x, *more, domain="com.microsoft"))
    graph = close(model, tmp_path, 1, 3, 8)
    assert ("Gelu" in {node.kind for node in graph.nodes}) == (kind != "QuickGelu")


@pytest.mark.parametrize("bias", [False, True])
def test_layer_normalisation_of_a_sum(bias: bool, tmp_path: Path) -> None:
    model, rng = Model(), np.random.default_rng(1)
    x = model.input(1, 3, 8)
    skip, gamma, beta, more = (model.constant(rng.normal(size=shape), np.float32) for shape in ((1, 3, 8), (8,), (8,), (8,)))
    node = helper.make_node(
        "SkipLayerNormalization",
        [x, skip, gamma, beta, *([more] if bias else [])],
        ["y", "", "", "s"],
        domain="com.microsoft",
        epsilon=1e-5,
    )
    model.nodes.append(node)
    model.output("y")
    model.output("s")
    close(model, tmp_path, 1, 3, 8)


def test_max_pool_with_channels_last(tmp_path: Path) -> None:
    model = Model()
    x = model.input(1, 6, 7, 3, kind=TensorProto.INT8)
    out(model, "NhwcMaxPool", x, dtype=np.int8, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 0, 0])
    assert parts(model, tmp_path, {"x": integers(1, 1, 6, 7, 3, dtype=np.int8)}) == 0


# Integers behind a quantiser.


@pytest.mark.parametrize("bounds", [(-7, 7), (0, 15), (None, 3), (-200, 300)])
def test_clip_of_integers_becomes_bounds_of_the_quantiser(bounds: tuple[int | None, int | None], tmp_path: Path) -> None:
    model = Model()
    low, high = (None if bound is None else int(np.clip(bound, -128, 127)) for bound in bounds)
    q = model.quantise(model.input(1, 99), 0.3, 2, np.int8)
    limits = [model.constant(bound, np.int8) if bound is not None else "" for bound in (low, high)]
    clipped = model.node("Clip", q, *limits)
    model.output(model.dequantise(clipped, 0.3, 2, np.int8))
    model.output(clipped, TensorProto.INT8)
    graph = canonical(model, tmp_path)
    assert [node.kind for node in graph.nodes] == ["QuantizeLinear", "DequantizeLinear"]
    attributes = graph.nodes[0].attributes
    assert (attributes["lo"], attributes["hi"]) == (-128 if low is None else low, 127 if high is None else high)
    assert parts(model, tmp_path, {"x": np.linspace(-50, 50, 99, dtype=np.float32)[None]}) == 0


def test_clip_leaves_the_quantiser_to_its_other_readers(tmp_path: Path) -> None:
    model = Model()
    q = model.quantise(model.input(1, 99), 0.3, 2, np.int8)
    model.output(model.node("Clip", q, model.constant(-3, np.int8), model.constant(9, np.int8)), TensorProto.INT8)
    model.output(q, TensorProto.INT8)
    assert parts(model, tmp_path, {"x": np.linspace(-50, 50, 99, dtype=np.float32)[None]}) == 0


def test_constants_are_quantised_and_clipped(tmp_path: Path) -> None:
    model = Model()
    weights = np.random.default_rng(1).normal(0, 1, (5, 9)).astype(np.float32)
    q = model.quantise(model.constant(weights), np.linspace(0.1, 0.2, 5), np.zeros(5), np.int8, axis=0)
    q = model.node("Clip", q, model.constant(-7, np.int8), model.constant(7, np.int8))
    real = model.dequantise(q, np.linspace(0.1, 0.2, 5), np.zeros(5), np.int8, axis=0)
    model.output(model.node("Add", model.input(1, 5, 9), real))
    graph = canonical(model, tmp_path)
    assert [node.kind for node in graph.nodes] == ["DequantizeLinear", "Add"]
    expected = np.clip(np.rint(weights / np.linspace(0.1, 0.2, 5).astype(np.float32)[:, None]), -7, 7)
    np.testing.assert_array_equal(graph.constants[graph.nodes[0].inputs[0]].values, expected)
    assert parts(model, tmp_path, {"x": np.zeros((1, 5, 9), np.float32)}) == 0


@pytest.mark.parametrize(
    ("kind", "attributes", "more"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}, ()),
        ("Transpose", {"perm": [0, 2, 3, 1]}, ()),
        ("Flatten", {}, ()),
        ("Pad", {}, ([0, 0, 1, 1, 0, 0, 0, 2],)),
        ("Slice", {}, ([1, 0], [3, 2], [1, 2])),
        ("Relu", {}, ()),
        ("ArgMax", {"axis": 1}, ()),
    ],
)
def test_operators_on_integers_are_those_on_their_reals(kind: str, attributes: dict[str, Any], more: Any, tmp_path: Path) -> None:
    model = Model()
    q = model.quantise(model.input(1, 4, 5, 6), 0.3, 20, np.int8)
    result = model.node(kind, q, *(model.constant(values, np.int64) for values in more), **attributes)
    model.output(result, TensorProto.INT64 if kind == "ArgMax" else TensorProto.INT8)
    graph = canonical(model, tmp_path)
    if kind != "Relu":
        at = next(at for at, node in enumerate(graph.nodes) if node.kind == kind)
        assert graph.nodes[at - 1].kind == "DequantizeLinear"
    given = {"x": np.random.default_rng(1).normal(0, 30, (1, 4, 5, 6)).astype(np.float32)}
    assert parts(model, tmp_path, given) == 0


def test_pad_by_a_given_integer_and_two_quantised_operands(tmp_path: Path) -> None:
    model = Model()
    q = model.quantise(model.input(1, 4), 0.3, 20, np.int8)
    padded = model.node("Pad", q, model.constant([0, 1, 0, 1], np.int64), model.constant(-5, np.int8))
    both = model.node("Concat", padded, model.quantise("x", 0.3, 20, np.int8), axis=1)
    model.output(both, TensorProto.INT8)
    graph = canonical(model, tmp_path)
    assert [node.kind for node in graph.nodes].count("DequantizeLinear") == 4
    assert parts(model, tmp_path, {"x": np.array([[1, 2, -3, 40]], np.float32)}) == 0


def test_other_floating_point_types_are_float32() -> None:
    half = Array(np.ones((), np.float32), TensorProto.FLOAT16)
    zero = Array.of(np.zeros((), np.uint8))
    nodes = (
        Node("c", "Cast", ("x",), ("h",), {"to": TensorProto.FLOAT16}),
        Node("q", "QuantizeLinear", ("h", "s", "z"), ("q",)),
        Node("d", "DequantizeLinear", ("q", "s", "z"), ("d",)),
    )
    kinds: dict[str, int] = {"h": TensorProto.FLOAT16, "q": TensorProto.UINT8, "d": TensorProto.FLOAT16}
    inputs = {"x": Given(TensorProto.FLOAT, (1, 4))}
    constants = {"s": half, "z": zero}
    graph = rewrite(Graph(name="g", opset=21, nodes=nodes, constants=constants, outputs=("d",), inputs=inputs, kinds=kinds))
    assert graph.constants["s"].kind == graph.kinds["h"] == graph.kinds["d"] == TensorProto.FLOAT
    assert graph.nodes[0].attributes["to"] == TensorProto.FLOAT
    np.testing.assert_array_equal(run(graph, {"x": np.array([[0, 1.5, 2.5, 300]], np.float32)})["d"], [[0, 2, 2, 255]])


# Whole networks, as onnxruntime's quantiser writes them.


def network(rng: np.random.Generator) -> onnx.ModelProto:
    """Make a small convolutional network in float with every operator that the quantiser knows."""
    model = Model(opset=17)
    x = model.input(1, 3, 12, 12)

    def normal(*shape: int) -> str:
        return model.constant(rng.normal(0, 0.3, shape), np.float32)

    a = model.node("Relu", model.node("Conv", x, normal(8, 3, 3, 3), normal(8), pads=[1] * 4))
    b = model.node("LeakyRelu", model.node("Conv", a, normal(8, 1, 3, 3), normal(8), pads=[1] * 4, group=8), alpha=0.1)
    c = model.node("Concat", model.node("Add", a, b), model.node("Mul", b, model.node("Sigmoid", a)), axis=1)
    d = model.node("AveragePool", model.node("MaxPool", c, kernel_shape=[2, 2], strides=[2, 2]), kernel_shape=[2, 2])
    e = model.node("Flatten", model.node("GlobalAveragePool", model.node("Conv", d, normal(10, 16, 1, 1))))
    f = model.node("Relu", model.node("Gemm", e, normal(12, 10), normal(12), transB=1))
    model.output(model.node("Softmax", model.node("MatMul", f, normal(12, 6)), axis=-1))
    return model.proto


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_networks_in_qoperator_form(per_channel: bool, activations: str, tmp_path: Path) -> None:
    from onnxruntime import quantization

    rng = np.random.default_rng(7)
    onnx.save(network(rng), tmp_path / "float.onnx")
    images = rng.normal(0, 1, (16, 1, 3, 12, 12)).astype(np.float32)

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.given = iter([{"x": image} for image in images])

        def get_next(self) -> Any:
            return next(self.given, None)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages the quantiser itself uses
        quantization.quantize_static(
            tmp_path / "float.onnx",
            tmp_path / "quantised.onnx",
            Reader(),
            quant_format=quantization.QuantFormat.QOperator,
            per_channel=per_channel,
            activation_type=getattr(quantization.QuantType, activations),
            weight_type=quantization.QuantType.QInt8,
        )
    model = onnx.load(tmp_path / "quantised.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert kinds >= {"QLinearConv", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu"}
    graph = canonical(model, tmp_path)
    float_kinds = {node.kind for node in graph.nodes}
    assert not {kind for kind in float_kinds if kind.startswith(("QL", "QG"))}
    steps = {name for node in model.graph.node for name in node.output} & {name for node in graph.nodes for name in node.outputs}
    kept = [name for name in steps if name.endswith("_quantized")]
    assert len(kept) > 10
    ours = run(graph, {"x": images[:, 0]}, kept)
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in kept if name not in {each.name for each in model.graph.output})
    theirs = [run_onnxruntime(whole, {"x": image}, optimise=False) for image in images]
    rates = {}
    for name in kept:
        gap = np.abs(np.concatenate([each[name] for each in theirs]).astype(int) - ours[name])
        rates[name] = (int(gap.max()), np.count_nonzero(gap) / gap.size)
    assert max(worst for worst, _ in rates.values()) <= 2, rates  # end to end: one LSB made here meets one made before
    assert np.mean([rate for _, rate in rates.values()]) < 0.02, rates


# Refusals.


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("MatMulNBits", "quantised per tensor or per channel, not in blocks"),
        ("QAttention", "MatMul and Softmax spelled out"),
        ("QEmbedLayerNormalization", "Gather, Add and LayerNormalization spelled out"),
        ("DynamicQuantizeLSTM", "an operator without state"),
    ],
)
def test_operators_without_a_form_are_refused(kind: str, rule: str) -> None:
    node = Node("n", kind, ("x",), ("y",), {}, "com.microsoft")
    with pytest.raises(NetworkError, match=rf"^operator of node 'n' \({kind}\) must be {rule}, not com\.microsoft\.{kind}$"):
        rewrite(bare(node))


def bare(*nodes: Node, **constants: Any) -> Graph:
    arrays = {name: Array.of(values) for name, values in constants.items()}
    return Graph(
        name="g", opset=21, nodes=nodes, constants=arrays, inputs={"x": Given(TensorProto.UINT8, (1, 4))}, outputs=nodes[-1].outputs[:1]
    )


ONE, ZERO = np.float32(1), np.uint8(0)


@pytest.mark.parametrize(
    ("node", "constants", "message"),
    [
        (Node("n", "QuantizeLinear", ("x", "s"), ("y",), {"block_size": 4}), {"s": ONE},
         r"^block_size of node 'n' \(QuantizeLinear\) must be 0, one scale per tensor or channel, not 4$"),
        (Node("n", "QLinearSigmoid", ("x", "x", "z", "s", "z"), ("y",), {}, "com.microsoft"), {"s": ONE, "z": ZERO},
         r"^scale of node 'n' \(QLinearSigmoid\) must be a constant, not the tensor 'x'$"),
        (Node("n", "QLinearSigmoid", ("x", "", "z", "s", "z"), ("y",), {}, "com.microsoft"), {"s": ONE, "z": ZERO},
         r"^scale of node 'n' \(QLinearSigmoid\) must be given, not left out$"),
        (Node("n", "QLinearSigmoid", ("", "s", "z", "s", "z"), ("y",), {}, "com.microsoft"), {"s": ONE, "z": ZERO},
         r"^input 0 of node 'n' \(QLinearSigmoid\) must be given, not left out$"),
        (Node("n", "QLinearSigmoid", ("x", "s", "z", "s", "z"), ("y",), {}, "com.microsoft"), {"s": -ONE, "z": ZERO},
         r"^scale of node 'n' \(QLinearSigmoid\) must be positive and finite, not -1\.0$"),
        (Node("n", "QLinearMatMul", ("x", "s", "z", "x", "s", "z", "s", "z"), ("y",)),
         {"s": np.array([[1, 2], [3, 4]], np.float32), "z": ZERO},
         r"^scale of node 'n' \(QLinearMatMul\) must vary along one axis, not be of shape \(2, 2\)$"),
        (Node("n", "QLinearMatMul", ("x", "s", "z", "x", "s", "z", "s", "z"), ("y",)),
         {"s": np.array([1, 2], np.float32), "z": np.array([0, 1, 2], np.uint8)},
         r"^zero point of node 'n' \(QLinearMatMul\) must be of shape \(2,\), that of its scale, not \(3,\)$"),
        (Node("n", "QLinearSoftmax", ("y0", "s", "z", "s", "z"), ("y",), {"axis": 1, "opset": 12}, "com.microsoft"),
         {"s": ONE, "z": ZERO, "y0": ZERO},
         r"^axis of node 'n' \(QLinearSoftmax\) must be the last where the shape of its input is not known, not 1$"),
        (Node("n", "FusedConv", ("x", "s"), ("y",), {"activation": "Elu"}, "com.microsoft"), {"s": ONE},
         r"^activation of node 'n' \(FusedConv\) must be one of Clip, HardSigmoid, LeakyRelu, Relu, Sigmoid, Tanh, not Elu$"),
        (Node("n", "FusedMatMul", ("x", "s"), ("y",), {"transA": 1}, "com.microsoft"), {"s": ONE},
         r"^transA of node 'n' \(FusedMatMul\) must be 0 where the shape of 'x' is not known, not 1$"),
        (Node("n", "FusedMatMul", ("x", "s"), ("y",), {"transBatchA": 1}, "com.microsoft"), {"s": ONE},
         r"^transBatchA of node 'n' \(FusedMatMul\) must be 0, not 1$"),
        (Node("n", "SkipLayerNormalization", ("x", "x", "s"), ("y", "m"), {}, "com.microsoft"), {"s": ONE},
         r"^mean and inv_std_var of node 'n' \(SkipLayerNormalization\) must be left out, not m$"),
        (Node("n", "QuantizeLinear", ("w", "s"), ("y0",)), {"s": ONE, "w": np.array([np.nan], np.float32)},
         r"^input 0 of node 'n' \(QuantizeLinear\) must be float32 without NaN, not with it$"),
        (Node("n", "QuantizeLinear", ("w", "s"), ("y0",), {"axis": 0}), {"s": np.array([1, 2], np.float32), "w": np.ones(3, np.float32)},
         r"^scale of node 'n' \(QuantizeLinear\) must have one number for each of axis 0 of \(3,\), not 2$"),
        (Node("n", "QLinearAdd", ("x", "s", "z"), ("y",), {}, "com.microsoft"), {"s": ONE, "z": ZERO},
         r"^inputs of node 'n' \(QLinearAdd\) must be 7 or more, not 3$"),
        (Node("n", "DynamicQuantizeLinear", ("x",), ("y",)), {},
         r"^outputs of node 'n' \(DynamicQuantizeLinear\) must be 3 or more, not 1$"),
        (Node("n", "QLinearConcat", ("s", "z", "x"), ("y",), {"axis": 1}, "com.microsoft"), {"s": ONE, "z": ZERO},
         r"^inputs of node 'n' \(QLinearConcat\) must be a scale, a zero point and threes of tensor, scale and zero point, not 3$"),
        (Node("n", "QLinearLeakyRelu", ("x", "s", "z", "s", "z"), ("y",), {"alpha": [1]}, "com.microsoft"), {"s": ONE, "z": ZERO},
         r"^alpha of node 'n' \(QLinearLeakyRelu\) must be a number, not \[1\]$"),
        (Node("n", "QLinearAveragePool", ("x", "s", "z", "s", "z"), ("y",), {"kernel_shape": ["a"]}, "com.microsoft"),
         {"s": ONE, "z": ZERO},
         r"^kernel_shape of node 'n' \(QLinearAveragePool\) must be numbers, not \['a'\]$"),
        (Node("n", "Clip", ("w", "w"), ("y0",)), {"w": np.array([1, 2], np.int8), "s": ONE},
         r"^min of node 'n' \(Clip\) must be one integer, not 2 of int8$"),
    ],
)  # fmt: skip
def test_refusals(node: Node, constants: dict[str, Any], message: str) -> None:
    last = [Node("d", "DequantizeLinear", ("y0", "s"), ("d",))] if node.outputs[0] == "y0" else []
    with pytest.raises(NetworkError, match=message):
        rewrite(bare(node, *last, **constants))


# Malformed graphs.

VALUES: dict[str, list[Any]] = {
    "activation": ["Relu", "Clip", "Elu", 1],
    "activation_params": [[1.0, 2.0], [1.0], "ab"],
    "alpha": [0.5, "x", None],
    "axes": [[1], ["a"], 2],
    "axis": [0, 1, -1, 99, "a", 1.5],
    "block_size": [0, 4],
    "channels_last": [0, 1, "y"],
    "kernel_shape": [[2, 2], [], ["a"], 3],
    "mode": ["constant", "edge", 2],
    "opset": [12, 13, "a"],
    "output_dtype": [0, 2, 3, 99],
    "rounding_mode": ["ROUND", "FLOOR", "CEIL", "odd", 3],
    "signed": [0, 1, "a"],
    "to": [1, 10, 99, "q"],
    "transA": [0, 1, "a"],
    "transB": [0, 1, 2],
}
MORE = ("MatMulInteger", "ConvInteger", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "Clip", "Relu", "Cast", "Mul")
INTEGER = ("MaxPool", "Pad", "Concat", "Reshape", "ArgMax", "Split", "Max")


def scrambled(rng: np.random.Generator) -> Graph:
    """Draw a graph of one to three nodes whose inputs, attributes and constants are seldom what they should be."""

    def array() -> Array:
        shape = [(), (), (1,), (3,), (2, 3), (3, 1, 1, 1), (0,)][rng.integers(7)]
        value = [1, 8, 3, 3, np.nan, np.inf, 1e38, 1e-40, -1, 2**62][rng.integers(10)]
        dtype = [np.float32, np.float32, np.float64, np.uint8, np.int8, np.int64, np.bool_][rng.integers(7)]
        if rng.random() < 0.1:
            return Array.unknown(shape)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Array.of(np.full(shape, value, np.float64).astype(dtype))

    every = [
        *RULES,
        *(("", kind) for kind in MORE + INTEGER),
        *((QONNX, kind) for kind in ("Quant", "BipolarQuant", "Trunc", "FloatQuant")),
    ]
    constants: dict[str, Array] = {}
    nodes, tensors = [], ["x", "u"]
    for at in range(rng.integers(1, 4)):
        domain, kind = every[rng.integers(len(every))]
        least = RULES[domain, kind][1] if (domain, kind) in RULES else FEWEST.get(kind, (5, 1))[0]
        inputs = []
        for _ in range(max(0, least + int(rng.integers(-1, 4)))):
            if rng.random() < 0.7:
                constants[f"c{len(constants)}"] = array()
            inputs.append("" if rng.random() < 0.05 else str(rng.choice([*tensors, *list(constants)[-2:] * 4])))
        outputs = tuple(f"t{at}_{each}" for each in range(3 if kind == "DynamicQuantizeLinear" else rng.choice([1, 1, 1, 1, 0, 4])))
        attributes = {name: values[rng.integers(len(values))] for name, values in VALUES.items() if rng.random() < 0.06}
        nodes.append(Node(f"n{at}", kind, tuple(inputs), outputs, attributes, domain))
        tensors += outputs
    given = {"x": Given(TensorProto.FLOAT, (1, 3, 4, 4)), "u": Given(TensorProto.UINT8, (1, 3, 4, 4))}
    shapes: dict[str, tuple[int, ...]] = {"x": (1, 3, 4, 4)} if rng.random() < 0.5 else {}
    return Graph(name="g", opset=21, nodes=tuple(nodes), constants=constants, inputs=given, outputs=(tensors[-1],), shapes=shapes)


@pytest.mark.parametrize("seed", range(4))
def test_malformed_graphs_are_refused_by_name_or_rewritten(seed: int) -> None:
    rng, refused = np.random.default_rng(seed), []
    for _ in range(500):
        try:
            qonnx.rewrite(rewrite(scrambled(rng)))
        except NetworkError as error:
            refused.append(str(error))
    assert all(re.search(r"node 'n\d'", message) for message in refused)
    assert 20 < len(refused) < 480
