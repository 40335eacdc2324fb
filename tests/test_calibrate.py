"""Calibration beside twins that loop, beside onnxruntime's calibrators where the definitions coincide, and placement graph by graph."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from accel.errors import ConfigError, NetworkError, RangeError
from accel.graph import evaluate
from accel.graph.calibrate import (
    BINS,
    METHODS,
    RATIOS,
    activation_grid,
    calibrate,
    clipped_range,
    entropy_limit,
    percentile_limit,
)
from accel.graph.fold import bind, fold
from accel.graph.graph import Array, Graph
from tests.qdq import read_model

RNG = np.random.default_rng(5)


def graph(
    nodes: list[tuple[Any, ...]], constants: dict[str, Any], shape: tuple[int, ...] = (4, 6, 6), outputs: tuple[str, ...] = ("y",)
) -> Graph:
    """Build a folded graph of nodes (kind, inputs, output, attributes) whose input is x; "-" is left out, constants no node reads are."""
    made = [
        helper.make_node(kind, inputs.replace("-", "").split(" "), [output], name=output, **(more[0] if more else {}))
        for kind, inputs, output, *more in nodes
    ]
    used = {name: values for name, values in constants.items() if any(name in node.input for node in made)}
    tensors = [numpy_helper.from_array(np.asarray(v, None if hasattr(v, "dtype") else np.float32), k) for k, v in used.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, *shape))]
    taken = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    model = helper.make_model(
        helper.make_graph(made, "g", given, taken, tensors), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    return fold(bind(read_model(model)))


def weights(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def quantised(found: Graph) -> set[str]:
    """Float tensors that a quantiser reads."""
    return {node.inputs[0].removesuffix("/float") for node in found.nodes if node.kind == "QuantizeLinear"}


def parameters(found: Graph, tensor: str) -> tuple[float, int, int]:
    """Scale, zero point and type of the quantiser of a tensor."""
    node = next(node for node in found.nodes if node.kind == "QuantizeLinear" and node.inputs[0].removesuffix("/float") == tensor)
    scale, zero = (found.constants[name] for name in node.inputs[1:])
    return float(scale.values), int(zero.values), zero.kind


X = {"x": RNG.normal(size=(8, 4, 6, 6)).astype(np.float32)}
CONV = ("Conv", "x w b", "c", {"pads": [1, 1, 1, 1]})
WB = {"w": weights(5, 4, 3, 3), "b": weights(5)}


# Ranges, beside twins.


def test_minmax_contains_all_values_and_zero():
    found = calibrate(graph([CONV, ("Relu", "c", "y")], WB), X)
    scale, zero, kind = parameters(found, "x")
    low, high = float(X["x"].min()), float(X["x"].max())
    assert kind == TensorProto.INT8
    assert scale == np.float32((high - low) / 255)
    assert zero == round(-128 - low / scale)
    scale, zero, kind = parameters(found, "y")
    y = evaluate.run(graph([CONV, ("Relu", "c", "y")], WB), X)["y"]
    assert (zero, kind) == (0, TensorProto.UINT8)
    assert scale == pytest.approx(float(y.max()) / 255, rel=1e-6)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(any), st.floats(0.5, 100))
def test_percentile_beside_a_loop(counts, percentile):
    limit = percentile_limit(np.array(counts), 3.0, percentile)
    reached = [sum(counts[: edge + 1]) >= percentile / 100 * sum(counts) for edge in range(len(counts))]
    assert limit == pytest.approx(3.0 * (reached.index(True) + 1) / len(counts), rel=1e-12)


def test_percentile_beside_onnxruntime():
    """Its threshold is the lower edge of the bin that reaches the share, ours the upper one; one sample with a 0, so that bins coincide."""
    calibrators = pytest.importorskip("onnxruntime.quantization.calibrate", reason="onnxruntime is not installed: it is the oracle")
    values = np.append(RNG.standard_t(3, 5000), 0).astype(np.float32)
    bins = BINS["percentile"]
    collector = calibrators.HistogramCollector("percentile", True, bins, 128, 99.9, "same")
    collector.collect_absolute_value({"t": values})
    theirs = float(collector.compute_percentile()["t"][1])
    most = float(np.abs(values).max())
    ours = percentile_limit(np.histogram(np.abs(values.astype(np.float64)), bins, (0, most))[0], most, 99.9)
    assert ours == pytest.approx(theirs + most / bins, rel=1e-5)  # edges are float32 there


def naive_divergence(counts: list[float], end: int, levels: int) -> float:
    """Kullback-Leibler divergence by loops over bins and levels."""
    reference = [*counts[:end]]
    reference[-1] += sum(counts[end:])
    candidate = [0.0] * end
    for level in range(levels):
        bins = [at for at in range(end) if math.floor(at * levels / end) == level and counts[at] > 0]
        for at in bins:
            candidate[at] = sum(counts[each] for each in bins) / len(bins)
    if any(p and not q for p, q in zip(reference, candidate, strict=True)) or not sum(candidate):
        return math.inf
    p_all, q_all = sum(reference), sum(candidate)
    return sum(p / p_all * math.log(p / p_all / (q / q_all)) for p, q in zip(reference, candidate, strict=True) if p)


@given(st.lists(st.integers(0, 20), min_size=12, max_size=30).filter(lambda counts: any(counts[1:])), st.sampled_from([4, 8]))
def test_entropy_beside_loops(counts, levels):
    limit = entropy_limit(np.array(counts), 1.0, levels)
    bins: list[float] = [counts[1], *counts[1:]]
    divergences = {end: naive_divergence(bins, end, levels) for end in range(levels, len(bins) + 1)}
    chosen = round(limit * len(bins))
    least = min(divergences.values())
    assert divergences[chosen] == pytest.approx(least, rel=1e-9, abs=1e-12)
    assert all(each > least - 1e-12 for end, each in divergences.items() if end > chosen)


def test_entropy_beside_onnxruntime():
    """The divergence of the same two distributions; its search of them differs, as the docstring of `calibrate` says."""
    theirs = pytest.importorskip("onnxruntime.quantization.calibrate", reason="onnxruntime is not installed: it is the oracle").entropy
    from accel.graph.calibrate import _divergence

    counts = np.histogram(np.abs(RNG.normal(size=20000)), 512)[0].astype(np.float64) + 1
    for end in (130, 256, 400):
        reference, levelled = counts[:end].copy(), np.zeros(end)
        reference[-1] += counts[end:].sum()
        for level in np.unique(np.arange(end) * 128 // end):
            rows = np.arange(end) * 128 // end == level
            levelled[rows] = counts[:end][rows].mean()
        assert _divergence(counts[:end], counts[end:].sum(), 128) == pytest.approx(float(theirs(reference, levelled)), rel=1e-4, abs=1e-6)


def test_entropy_cuts_a_tail():
    values = np.minimum(np.abs(RNG.standard_t(2, size=50000)), 100.0)
    counts = np.histogram(values, BINS["entropy"], (0, 100))[0]
    assert 5 < entropy_limit(counts, 100.0, 128) < 50
    assert entropy_limit(counts, 100.0, 1 << 15) == 100.0  # more levels than bins


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_clipping_beside_a_loop(bits, symmetric):
    low, high = -3.0, 9.0
    counts = np.histogram(RNG.laplace(size=400), 40, (low, high))[0]
    best, kept = math.inf, (low, high)
    for step in range(RATIOS, 0, -1):
        ends = low * step / RATIOS, high * step / RATIOS
        grid = activation_grid(*ends, bits, symmetric)
        scale, zero = float(grid.scale), int(grid.zero)
        least, most = (0, 2**bits - 1) if grid.kind in (TensorProto.UINT4, TensorProto.UINT8) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        error = 0.0
        for at, count in enumerate(counts):
            centre = low + (at + 0.5) * (high - low) / len(counts)
            integer = min(max(round(centre / scale) + zero, least), most)
            error += count * (scale * (integer - zero) - centre) ** 2
        if error < best * (1 - 1e-12):
            best, kept = error, ends
    assert clipped_range(counts, low, high, bits, symmetric) == pytest.approx(kept)


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30), st.sampled_from([4, 8, 16]), st.booleans())
def test_every_range_has_a_grid_that_covers_it(first, second, bits, symmetric):
    """0 is exact; the ends are reached up to half a step, and float32's rounding of the scale."""
    low, high = min(first, second, 0.0), max(first, second, 0.0)
    grid = activation_grid(low, high, bits, symmetric)
    scale, zero = float(grid.scale), int(grid.zero)
    unsigned = grid.kind in (TensorProto.UINT4, TensorProto.UINT8, TensorProto.UINT16)
    assert unsigned == (low == 0 and not symmetric)
    least, most = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert least <= zero <= most
    assert zero == 0 or not (symmetric or unsigned)
    slack = scale * (0.5 + 2 * most * 2.0**-24) + 1e-37
    assert (least - zero) * scale <= low + slack
    assert (most - zero) * scale >= high - slack


@pytest.mark.parametrize("method", METHODS)
def test_methods_on_a_graph(method):
    """Every method's range lies in that of min-max; it is deterministic; the result is the float one up to a few steps."""
    float_graph = graph([CONV, ("Relu", "c", "y")], WB)
    found, again = (calibrate(float_graph, X, method) for _ in range(2))
    widest = calibrate(float_graph, X)
    for tensor in ("x", "y"):
        assert parameters(found, tensor) == parameters(again, tensor)
        assert parameters(found, tensor)[0] <= parameters(widest, tensor)[0]
    wanted, got = evaluate.run(float_graph, X)["y"], evaluate.run(found, X)["y"]
    # a method may give up the largest values for smaller steps, so the mean is bounded: by two steps of min-max
    assert np.abs(wanted - got).mean() < 2 * parameters(widest, "y")[0]


def test_mse_loses_least():
    float_graph = graph([("Relu", "x", "y")], {})
    heavy = {"x": RNG.standard_t(2, size=(4, 4, 6, 6)).astype(np.float32)}
    errors = {}
    for method in ("minmax", "mse"):
        scale, zero, _ = parameters(calibrate(float_graph, heavy, method, bits=4), "x")
        rounded = scale * (np.clip(np.rint(heavy["x"] / scale) + zero, -8, 7) - zero)
        errors[method] = float(((rounded - heavy["x"]) ** 2).sum())
    assert errors["mse"] < errors["minmax"]


# Weights.


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("search", ["minmax", "mse"])
def test_weights_beside_a_loop(bits, search):
    found = calibrate(graph([CONV, ("Relu", "c", "y")], WB), X, search, bits)
    node = next(node for node in found.nodes if node.kind == "DequantizeLinear" and node.inputs[0] == "w/quantised")
    integers, scale = (found.constants[name].values for name in node.inputs[:2])
    assert node.attributes["axis"] == 0
    assert found.constants[node.inputs[0]].kind == {4: TensorProto.INT4, 8: TensorProto.INT8, 16: TensorProto.INT16}[bits]
    most = 2 ** (bits - 1) - 1
    for channel, row in enumerate(WB["w"]):
        best, kept = math.inf, np.float32(0)
        for step in range(RATIOS, 0 if search == "mse" else RATIOS - 1, -1):
            candidate = np.float32(float(np.abs(row).max()) * step / RATIOS / most)
            error = sum((min(max(round(float(w / candidate)), -most), most) * float(candidate) - float(w)) ** 2 for w in row.ravel())
            if error < best * (1 - 1e-6):
                best, kept = error, candidate
        assert scale[channel] == pytest.approx(kept, rel=1e-6)
        np.testing.assert_array_equal(integers[channel], np.clip(np.rint(row / scale[channel]), -most, most))


def test_weights_of_one_scale():
    found = calibrate(graph([CONV, ("Relu", "c", "y")], WB), X, weights="tensor")
    assert found.constants["w/dequantised/scale"].values.shape == ()


@pytest.mark.parametrize(
    ("node", "shape", "axis"),
    [
        (("ConvTranspose", "x w", "y"), (4, 3, 2, 2), 1),
        (("MatMul", "x w", "y"), (6, 3), 1),
        (("MatMul", "w x", "y"), (3, 6), None),
    ],
)
def test_axis_of_the_weights(node, shape, axis):
    found = calibrate(graph([node], {"w": weights(*shape)}), X)
    made = next(each for each in found.nodes if each.kind == "DequantizeLinear" and each.inputs[0] == "w/quantised")
    assert made.attributes.get("axis") == axis


@pytest.mark.parametrize(("turned", "axis"), [(0, 1), (1, 0)])
def test_axis_of_gemm(turned, axis):
    nodes = [("Flatten", "x", "f"), ("Gemm", "f w", "y", {"transB": turned})]
    found = calibrate(graph(nodes, {"w": weights(7, 144) if turned else weights(144, 7)}), X)
    assert next(each for each in found.nodes if each.inputs[0] == "w/quantised").attributes["axis"] == axis


def test_a_channel_of_zeros():
    found = calibrate(graph([CONV, ("Relu", "c", "y")], {**WB, "w": WB["w"] * np.arange(5, dtype=np.float32)[:, None, None, None]}), X)
    assert found.constants["w/dequantised/scale"].values[0] == 1
    assert not found.constants["w/quantised"].values[0].any()


# Where quantisers are.

AFFINE = {"g": weights(5, 1, 1) ** 2 + 0.1, "a": weights(5, 1, 1), **WB}


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([CONV, ("Relu", "c", "y")], "x y"),  # merged
        ([CONV, ("Clip", "c lo hi", "y")], "x y"),
        ([CONV, ("Mul", "c g", "m"), ("Add", "m a", "s"), ("Relu", "s", "y")], "x y"),  # a batch normalisation, spelled out
        ([CONV, ("Relu", "c", "r"), ("Add", "r a", "y")], "x r y"),  # nothing is added to what is clipped
        ([CONV, ("Mul", "c less", "y")], "x c y"),  # a negative factor
        ([CONV, ("Relu", "c", "r"), ("Mul", "c r", "y")], "x c y"),  # read twice
        ([CONV, ("Sigmoid", "c", "s"), ("Mul", "c s", "y")], "x c y"),  # one function of one tensor
        ([CONV, ("Sigmoid", "c", "s"), ("Conv", "x w b", "d", {"pads": [1] * 4}), ("Mul", "d s", "m"), ("Relu", "m", "y")], "x c d s y"),
        ([CONV, ("Tanh", "c", "t"), ("Conv", "t v", "y")], "x c t y"),
        ([CONV, ("Transpose", "c", "t", {"perm": [0, 2, 3, 1]}), ("Relu", "t", "y")], "x c y"),  # a move has its input's
        ([("MaxPool", "x", "p", {"kernel_shape": [2, 2]}), ("Conv", "p w b", "y")], "x p y"),
        ([CONV, ("Sin", "c", "s"), ("Cos", "s", "t"), ("Relu", "t", "y")], "x c t y"),  # an island of float
        ([("LayerNormalization", "x l", "n"), ("MatMul", "n q", "y")], "x n y"),
        ([("MatMul", "x q", "m"), ("Add", "m bias", "y")], "x y"),
        ([("MatMul", "x q", "m"), ("Add", "m rows", "y")], "x m y"),  # not one number for each channel
        ([("GlobalAveragePool", "x", "p"), ("Conv", "p o", "y")], "x p y"),
        ([("Resize", "x - - sizes", "z", {"mode": "nearest"}), ("Conv", "z w b", "y")], "x y"),
        ([("Resize", "x - - sizes", "z", {"mode": "linear"}), ("Conv", "z w b", "y")], "x z y"),
    ],
)
def test_placement(nodes, wanted):
    constants = {"lo": 0.0, "hi": 6.0, "less": -1.0, "v": weights(2, 5, 3, 3), "l": weights(6), "q": weights(6, 6), "bias": weights(6)}
    constants |= {"o": weights(2, 4, 1, 1), "rows": weights(4, 1, 6), "sizes": np.array([1, 4, 12, 12]), **AFFINE}
    float_graph = graph(nodes, constants)
    found = calibrate(float_graph, X)
    assert quantised(found) == set(wanted.split())
    onnx.checker.check_model(found.to_model())
    values, got = evaluate.run(float_graph, X)["y"], evaluate.run(found, X)["y"]
    assert np.abs(values - got).mean() < 0.02 * np.abs(values).max()  # a few of 255 steps: everything else would be an error of placement


def test_max_pool_keeps_the_quantiser():
    found = calibrate(graph([("MaxPool", "x", "p", {"kernel_shape": [2, 2]}), ("Conv", "p w b", "y")], WB), X)
    assert parameters(found, "p") == parameters(found, "x")


def test_concat_shares_the_union():
    nodes = [CONV, ("Relu", "c", "r"), ("Concat", "r x k", "j", {"axis": 1}), ("Conv", "j v", "y")]
    k = np.full((1, 1, 6, 6), 50, np.float32)
    found = calibrate(graph(nodes, {**WB, "v": weights(2, 10, 1, 1), "k": k}), X)
    assert parameters(found, "j") == parameters(found, "x") == parameters(found, "r")
    scale, zero, _ = parameters(found, "j")
    assert scale * (127 - zero) == pytest.approx(50, abs=scale)
    assert scale * (-128 - zero) == pytest.approx(X["x"].min(), abs=scale)


def test_second_operand_of_a_product_is_symmetric():
    nodes = [("MatMul", "x q", "l"), ("MatMul", "x r", "k"), ("Relu", "k", "z"), ("MatMul", "l z", "y")]
    found = calibrate(graph(nodes, {"q": weights(6, 6), "r": weights(6, 6)}), X)
    assert parameters(found, "z")[1:] == (0, TensorProto.INT8)
    assert parameters(found, "l")[1] != 0


@pytest.mark.parametrize(("kind", "scale"), [("Softmax", 2.0**-8), ("Sigmoid", 1 / 255)])
def test_fixed_ranges(kind, scale):
    found = calibrate(graph([(kind, "x", "y")], {}), X)
    assert parameters(found, "y") == (float(np.float32(scale)), 0, int(TensorProto.UINT8))


def test_symmetric():
    found = calibrate(graph([CONV, ("Relu", "c", "y")], WB), X, symmetric=True)
    for tensor in ("x", "y"):
        assert parameters(found, tensor)[1:] == (0, TensorProto.INT8)


def test_a_graph_output_keeps_its_name():
    found = calibrate(graph([CONV, ("Relu", "c", "r"), ("Conv", "r v", "y")], {**WB, "v": weights(2, 5, 1, 1)}, outputs=("y", "r")), X)
    assert found.outputs == ("y", "r")
    assert quantised(found) == {"x", "r", "y"}


def test_only_gaps_are_filled():
    """A tensor that is quantised already keeps its quantiser, for its other readers too."""
    nodes = [
        ("QuantizeLinear", "x s z", "q"),
        ("DequantizeLinear", "q s z", "d"),
        ("Conv", "d w b", "c", {"pads": [1, 1, 1, 1]}),
        ("QuantizeLinear", "c s z", "cq"),
        ("DequantizeLinear", "cq s z", "cd"),
        ("Relu", "cd", "r"),
        ("Add", "r c", "y"),
    ]
    found = calibrate(graph(nodes, {**WB, "s": 0.1, "z": np.array(3, np.int8)}), X)
    assert quantised(found) == {"x", "c", "r", "y"}
    again = [node for node in found.nodes if node.kind == "QuantizeLinear" and node.inputs[0] == "c"]
    assert len(again) == 2
    assert {(float(found.constants[n.inputs[1]].values), int(found.constants[n.inputs[2]].values)) for n in again} == {
        (float(np.float32(0.1)), 3)
    }
    full = calibrate(found, X)
    assert quantised(full) == quantised(found)
    assert len(full.nodes) == len(found.nodes)


def test_shapes_only():
    """Without weights there is nothing to run: every range is [-1, 1], and samples are not read."""
    known = graph([CONV, ("Relu", "c", "y")], WB)
    hidden = {**known.constants, "w": Array.unknown((5, 4, 3, 3))}
    found = calibrate(replace(known, constants=hidden), {})
    assert parameters(found, "y")[0] == np.float32(2 / 255)
    assert not found.constants["w/quantised"].known


def test_batch_normalisation_is_folded():
    nodes = [CONV, ("BatchNormalization", "c s o m v", "n"), ("Relu", "n", "y")]
    norm = {"s": weights(5), "o": weights(5), "m": weights(5), "v": weights(5) ** 2 + 0.5}
    float_graph = graph(nodes, {**WB, **norm})
    found = calibrate(float_graph, X)
    assert quantised(found) == {"x", "y"}
    assert [node.kind for node in found.nodes if "Linear" not in node.kind] == ["Conv", "Relu"]
    wanted, got = evaluate.run(float_graph, X)["y"], evaluate.run(found, X)["y"]
    assert np.abs(wanted - got).mean() < 2 * parameters(found, "y")[0]


# Errors.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "max"}, "method must be one of minmax, percentile, mse, entropy, not 'max'"),
        ({"bits": 7}, "bits must be one of 4, 8, 16, not 7"),
        ({"bits": 8.0}, r"bits must be one of 4, 8, 16, not 8\.0"),
        ({"weights": "row"}, "weights must be 'channel' or 'tensor', not 'row'"),
        ({"percentile": 0}, r"percentile must be in \(0, 100\], not 0"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        calibrate(graph([("Relu", "x", "y")], {}), X, **arguments)


def test_refused_samples():
    with pytest.raises(RangeError, match=r"^input 'x' must be of shape \(samples, 4, 6, 6\), not \(2, 3, 3, 3\)$"):
        calibrate(graph([("Relu", "x", "y")], {}), np.zeros((2, 3, 3, 3)))
    with pytest.raises(NetworkError, match=r"^tensor 'x' must be finite over the samples, not nan$"):
        calibrate(graph([("Relu", "x", "y")], {}), np.full((1, 4, 6, 6), np.nan))
    with pytest.raises(NetworkError, match=r"^tensor 'y' must be finite over the samples, not inf$"):
        calibrate(graph([("Exp", "x", "y")], {}), np.full((1, 4, 6, 6), 1000.0))


def test_progress():
    told: list[tuple[int, int]] = []
    calibrate(graph([("Relu", "x", "y")], {}), X, "mse", progress=lambda done, total: told.append((done, total)))
    assert told == [(index, 16) for index in range(1, 17)]


@pytest.mark.parametrize("masked", [-np.inf, -3.4e38, -1e4])
def test_masked_attention(masked):
    """What masks a position out does not widen the range: the results are those of float up to 8-bit steps."""
    mask = np.where(np.tri(6, dtype=bool), 0, masked).astype(np.float32)
    nodes = [("MatMul", "x q", "m"), ("Add", "m mask", "s"), ("Softmax", "s", "y")]
    float_graph = graph(nodes, {"q": weights(6, 6), "mask": mask})
    found = calibrate(float_graph, X)
    assert quantised(found) == {"x", "m", "s", "y"}
    wide = np.ptp(evaluate.run(float_graph, X, ["m"])["m"]) + math.log(6) + 10 * math.log(2)
    assert parameters(found, "s")[0] <= 1.001 * wide / 255
    wanted, got = evaluate.run(float_graph, X)["y"], evaluate.run(found, X)["y"]
    assert (got[np.broadcast_to(masked == mask, got.shape)] == 0).all()
    addend = next(node.inputs[1] for node in found.nodes if node.kind == "Add")
    assert np.isfinite(found.constants[addend].values).all()
    kept = replace(found, constants={**found.constants, addend: Array.of(mask)})
    np.testing.assert_array_equal(evaluate.run(kept, X)["y"], got)  # the bounded mask changes nothing
    assert np.abs(wanted - got).mean() < 0.01
