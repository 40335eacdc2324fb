"""From anything that holds a network to the network."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime import quantization

import accel
from accel.errors import ConfigError, NetworkError, RangeError
from accel.graph import calibrate
from accel.graph.files import METHODS, WIDTHS, builtin, canonical, is_float, names, products
from accel.graph.fold import bind, fold
from accel.graph.named import BUILDERS
from accel.graph.network import Host, Lookup
from accel.graph.read import read
from accel.graph.topology import load_topology, parse_topology
from tests.qdq import Model

F32 = np.float32


def convolution(batch: int | str = "batch", size: int | str = 6) -> Model:
    """Make a small float network."""
    model = Model()
    rng = np.random.default_rng(1)
    x = model.input(batch, 3, size, 6)
    y = model.node(
        "Conv", x, model.constant(rng.standard_normal((4, 3, 3, 3)), F32), model.constant(rng.standard_normal(4), F32), name="conv"
    )
    y = model.node("Relu", y)
    y = model.node("Flatten", y)
    model.output(model.node("Gemm", y, model.constant(rng.standard_normal((64, 5)), F32), name="gemm"))
    return model


def saved(model: Model, folder) -> str:
    path = folder / "net.onnx"
    onnx.save(model.proto, path)
    return str(path)


def run(path: str, x: Any) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


# Names.


def test_every_name_is_a_network():
    assert names() == ["digits-cnn", "mobilenetv2", "resnet18", "resnet18-64", "resnet50", "resnet9", "vgg19", "vit"]
    assert [*builtin()] == ["digits-cnn"]
    for name in names():
        assert accel.load(name).name == name


@pytest.mark.parametrize("name", ["resnet9", "vit"])
def test_structure_does_not_follow_from_weights(name):
    def found(seed: int | None) -> tuple[Any, int]:
        network = accel.load(name, seed=seed)
        operators = [(type(each), each.kind, each.inputs, network.tensors[each.output].shape) for each in network.operators]
        return operators, accel.simulate(network, "edge-int8").cycles

    assert found(None) == found(0)


def test_a_seed_makes_weights():
    assert all(product.weights is None for product in accel.load("resnet9").products)
    first, again, other = (accel.load("resnet9", seed=seed).products[0].weights for seed in (3, 3, 4))
    assert first is not None
    assert other is not None
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("seed", [-1, 1 << 32, 1.0, True, "1"])
def test_seeds_are_refused(seed):
    with pytest.raises(ConfigError, match=rf"^seed must be an int of 0 to 4294967295, not {re.escape(repr(seed))}$"):
        accel.load("resnet9", seed=seed)


def test_an_example_is_for_modules():
    with pytest.raises(NetworkError, match=r"^example must come with a torch module, not with a file or name$"):
        accel.load("resnet9", np.zeros(3))


# Float networks.


def test_a_float_network_is_calibrated(tmp_path):
    """With samples silently; its results are near those of the float network, and another method gives others."""
    path, rng = saved(convolution(), tmp_path), np.random.default_rng(2)
    samples, x = rng.standard_normal((40, 3, 6, 6), F32), rng.standard_normal((9, 3, 6, 6), F32)
    network = accel.load(path, calibration=samples)
    assert not any(isinstance(operator, Host) for operator in network.operators)
    assert [product.name for product in network.products] == ["conv", "gemm"]
    exact = run(path, x)
    tensor = network.tensors[network.outputs[0].tensor]

    def error(loaded: accel.Network) -> float:
        result = accel.simulate(loaded, "edge-int8", inputs={"x": x}, batch=len(x))
        (values,) = result.outputs.values()
        form = result.formats[loaded.outputs[0].name]
        reals = (values.astype(np.float64) - form.zero_point - form.offset) * form.scale
        return float(np.abs(reals - exact).max())

    assert error(network) < 10 * tensor.scale
    assert error(accel.load(path, calibration={"x": samples}, bits=4)) > error(network)
    other = accel.load(path, calibration=samples, method="mse")
    assert [*other.tensors.values()] != [*network.tensors.values()]


def test_without_samples_there_is_one_warning(tmp_path):
    path = saved(convolution(), tmp_path)
    with pytest.warns(UserWarning, match=r"^ranges of net are those of standard normal inputs: give calibration samples") as caught:
        first = accel.load(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="standard normal"):
        again, other = accel.load(path, seed=1), accel.load(path, seed=2)
    scales = [[tensor.scale for tensor in network.tensors.values()] for network in (first, again, other)]
    assert scales[0] == scales[1] != scales[2]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda m: m.node("Relu", m.input(1, 1 << 14, 1 << 14)), "268435456 elements, not 536870912 elements"),
        (
            lambda m: m.node("Conv", m.input(1, 64, 1024, 1024), m.constant(np.ones((64, 64, 9, 9)), F32)),
            "137438953472 multiplications, not 347892350976 multiplications",
        ),
    ],
)
def test_large_networks_need_samples(tmp_path, build, message):
    """What a few seconds do not calibrate is not calibrated on made-up samples."""
    model = Model()
    model.output(build(model))
    path = saved(model, tmp_path)
    rule = "network must be calibrated on samples that are given, or be of at most"
    with pytest.raises(NetworkError, match=f"^{re.escape(f'{path}: {rule} {message}')}$"):
        accel.load(path)


def test_chains_that_are_too_long_are_refused(tmp_path):
    model = Model()
    y = model.input(1, 4)
    for _ in range(2000):
        y = model.node("Sigmoid", model.node("Add", y, y))
    model.output(y)
    with pytest.raises(NetworkError, match=r"chains of functions must be short enough for Python's stack, not thousands of nodes$"):
        accel.load(saved(model, tmp_path), calibration=np.ones((1, 4), F32))


def test_progress_is_told(tmp_path):
    told: list[tuple[int, int]] = []
    accel.load(saved(convolution(), tmp_path), calibration=np.zeros((4, 3, 6, 6), F32), progress=lambda done, of: told.append((done, of)))
    assert told
    assert told[-1][0] == told[-1][1]


def test_quantised_networks_are_not_calibrated(tmp_path):
    """One quantised the usual way, by onnxruntime, is what it is, without a warning; samples change nothing that has a scale."""
    saved(convolution(), tmp_path)

    class Samples(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter([{"x": np.random.default_rng(4).standard_normal((8, 3, 6, 6), F32)}])

        def get_next(self) -> Any:
            return next(self.rows, None)

    path = str(tmp_path / "quantised.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_static(str(tmp_path / "net.onnx"), path, Samples(), quant_format=quantization.QuantFormat.QDQ)
    assert not is_float(canonical(bind(read(path))))
    networks = [accel.load(path), accel.load(path, calibration=np.ones((2, 3, 6, 6), F32) * 99)]
    assert [*networks[0].tensors.values()] == [*networks[1].tensors.values()]


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (lambda m: m.node("Relu", m.input(1, 4)), True),
        (lambda m: m.node("MatMul", m.input(1, 4), m.weights(np.ones((4, 4), np.int8), 0.1)), True),
        (lambda m: m.node("Relu", m.fake(m.input(1, 4), 0.1)), False),
        (lambda m: m.dequantise(m.input(1, 4, kind=TensorProto.UINT8), 0.1, 0), False),
        (lambda m: m.node("Add", m.input(1, 4, kind=TensorProto.UINT8), "x"), False),
    ],
)
def test_which_networks_are_float(tmp_path, build, wanted):
    model = Model()
    model.output(build(model))
    graph = canonical(bind(read(saved(model, tmp_path))))
    assert is_float(graph) == wanted


# Shapes and constants.


def test_open_sizes_are_given(tmp_path):
    path, samples = saved(convolution(size="height"), tmp_path), np.zeros((2, 3, 6, 6), F32)
    with pytest.raises(
        NetworkError, match=r"net.onnx: axis 2 of graph input 'x' must be a fixed size, in the file or in `shapes`, not 'height'$"
    ):
        accel.load(path)
    network = accel.load(path, shapes={"x": (1, 3, 6, 6)}, calibration=samples)
    assert network.tensors[network.inputs[0].tensor].onnx_shape == (3, 6, 6)


def test_inputs_may_be_constants(tmp_path):
    model = Model()
    model.output(model.node("MatMul", model.input(1, 4), model.input(4, 3, name="w"), name="product"))
    network = accel.load(saved(model, tmp_path), constants={"w": np.eye(4, 3)}, calibration={"x": np.ones((2, 4), F32)})
    assert [port.name for port in network.inputs] == ["x"]
    assert network.products[0].weights is not None
    with pytest.raises(NetworkError, match=r"net.onnx: constants must be of graph inputs \(x, w\), not of 'v'$"):
        accel.load(tmp_path / "net.onnx", constants={"v": 1})


def test_a_fixed_batch_is_that_of_samples(tmp_path):
    samples = np.random.default_rng(2).standard_normal((8, 3, 6, 6), F32)
    fixed = accel.load(saved(convolution(batch=8), tmp_path), calibration=samples)
    free = accel.load(saved(convolution(), tmp_path), calibration=samples)
    assert [*fixed.tensors.values()] == [*free.tensors.values()]


def test_a_graph_is_taken_whole(tmp_path):
    model = Model()
    model.output(model.node("MatMul", model.input(5, 4), model.constant(np.eye(4), F32), name="product"))
    network = accel.load(saved(model, tmp_path), whole=True, calibration=np.ones((2, 5, 4), F32))
    assert network.tensors[network.inputs[0].tensor].onnx_shape == (5, 4)


def test_messages_name_the_file_once(tmp_path):
    model = Model()
    model.output(model.node("NonZero", model.input(1, 4), name="it"), TensorProto.INT64)
    path = saved(model, tmp_path)
    rule = "shape of 'it_out', which node 'it' (NonZero) writes, must follow from what it reads, not stay open"
    with pytest.raises(NetworkError, match=f"^{re.escape(f'{path}: {rule}')}$"):
        accel.load(path)


def test_canonical_graphs_stay():
    """The passes leave a graph alone that has their form already."""
    for build in BUILDERS.values():
        once = canonical(bind(build(None)))
        twice = canonical(once)
        assert [(node.kind, node.inputs, node.outputs) for node in once.nodes] == [
            (node.kind, node.inputs, node.outputs) for node in twice.nodes
        ]
        assert once.shapes == fold(once).shapes


def test_tensors_have_elements(tmp_path):
    model = Model()
    parts = model.constant([4, 0], np.int64)
    model.nodes.append(helper.make_node("Split", [model.input(1, 4), parts], ["a", "b"], name="it", axis=1))
    model.output(model.node("Relu", "b"))
    with pytest.raises(NetworkError, match=r"net.onnx: result 'b' of node 'it' \(Split\) must have an element, not shape \(1, 0\)$"):
        accel.load(saved(model, tmp_path))


# Topologies.


def test_a_topology_is_a_network_of_shapes(tmp_path):
    """Its layers have SCALE-Sim's m, n and k, and nothing between them."""
    path = tmp_path / "layers.csv"
    path.write_text("name, height, width, fh, fw, c, n, stride\nfirst, 9, 8, 3, 2, 5, 7, 2,\nfirst, 4, 4, 4, 4, 1, 1, 1,\n")
    network = accel.load(path)
    assert network.name == "layers"
    assert [operator.name for operator in network.operators] == ["first", "first#2"]
    for layer, product in zip(load_topology(path).layers, network.products, strict=True):
        assert network.gemm(product) == (layer.shape.m, layer.shape.k, layer.shape.n)
        assert product.weights is None
    result = accel.simulate(network, "edge-int8")
    assert result.cycles > 0
    assert [(x.m, x.k, x.n) for x in result.layers] == [(16, 30, 7), (1, 16, 1)]


def test_products_of_a_topology():
    topology = parse_topology("name, m, n, k\na, 3, 4, 5\nb, 1, 1, 1\n", "text", "text")
    network = products(topology)
    assert [network.gemm(product) for product in network.products] == [(3, 5, 4), (1, 1, 1)]
    assert [port.name for port in (*network.inputs, *network.outputs)] == ["a/input", "b/input", "a/output", "b/output"]


def test_patterns_of_a_topology_count(tmp_path):
    """Each layer runs at its own, whichever layer it is; a pattern that is asked for replaces them."""
    path = tmp_path / "layers.csv"
    path.write_text("name, m, n, k, N:M\na, 30, 40, 64, 2:8,\nb, 30, 40, 64,\nc, 30, 40, 64, 1:4,\n")
    network = accel.load(path)
    assert [layer.macs_executed for layer in accel.simulate(network, "edge-int8").layers] == [30 * 40 * k for k in (16, 64, 16)]
    assert [layer.pattern for layer in accel.simulate(network, "edge-int8", pattern="2:4").layers] == ["2:4", "2:4", "16:16"]
    path.write_text("name, m, n, k, N:M\na, 30, 40, 64, 2:32,\n")
    with pytest.raises(RangeError, match=r"pattern must be N:M with M at most the bundle \(16\) of edge-int8, not 2:32$"):
        accel.simulate(accel.load(path), "edge-int8")


def test_the_last_window_may_hang_over():
    topology = parse_topology("name, h, w, fh, fw, c, n, s\na, 6, 5, 3, 3, 2, 4, 2\n", "text", "text")
    (product,) = products(topology).products
    assert product.window.pads == (0, 0, 1, 0)
    assert product.window.positions(6, 5) == (3, 2)


def test_a_topology_that_is_none_is_named(tmp_path):
    path = tmp_path / "layers.csv"
    path.write_text("name, m, n, k\na, 3, 4\n")
    with pytest.raises(NetworkError, match=rf"^{path}:2: layer must be "):
        accel.load(path)


def test_a_model_of_another_suffix_is_read(tmp_path):
    model = helper.make_model(convolution().proto.graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (tmp_path / "net.pb").write_bytes(model.SerializeToString())
    assert accel.load(tmp_path / "net.pb", calibration=np.ones((2, 3, 6, 6), F32)).name == "net"


# What a caller gets wrong.


def test_calibration_samples_are_checked_by_name(tmp_path):
    path = saved(convolution(batch=1), tmp_path)
    with pytest.raises(RangeError, match=r"^calibration 'x' must be of shape \(samples, 3, 6, 6\), not \(2, 3, 5, 5\)$"):
        accel.load(path, calibration=np.zeros((2, 3, 5, 5), F32))
    with pytest.raises(RangeError, match=r"^calibration 'x' must be of shape \(samples, 3, 6, 6\), not \(3, 5\)$"):
        accel.load(path, calibration=np.zeros((3, 5), F32))
    with pytest.raises(RangeError, match=r"^calibration must be 'x', not 'z'$"):
        accel.load(path, calibration={"z": np.zeros((2, 3, 6, 6), F32)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 8.0}, "bits must be one of 4, 8, 16, not 8.0"),
        ({"bits": [8]}, "bits must be one of 4, 8, 16, not [8]"),
        ({"method": "guess"}, "method must be one of minmax, percentile, mse, entropy, not 'guess'"),
    ],
)
def test_settings_are_checked_of_any_network(settings, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        accel.load("digits-cnn", **settings)


def test_settings_are_those_of_calibration():
    assert (calibrate.METHODS, tuple(calibrate.SIGNED)) == (METHODS, WIDTHS)


def test_settings_that_change_nothing_are_told(tmp_path):
    with pytest.warns(
        UserWarning, match=r"^method and bits and seed of digits-cnn change nothing: nothing of it is quantised or drawn here$"
    ):
        accel.load("digits-cnn", bits=4, method="mse", seed=1)
    with pytest.warns(UserWarning, match=r"^bits of resnet9 change nothing: nothing"):
        accel.load("resnet9", bits=4, seed=1)
    with pytest.warns(UserWarning, match=r"^seed of net change nothing: neither weights nor samples of it are drawn$"):
        accel.load(saved(convolution(), tmp_path), calibration=np.ones((1, 3, 6, 6), F32), seed=1)
    (tmp_path / "t.csv").write_text("Layer,M,N,K\nfc,4,5,6\n")
    with pytest.warns(UserWarning, match=r"^seed of t change nothing") as told:
        accel.load(tmp_path / "t.csv", seed=1)
    assert told[0].filename == __file__


def test_no_name():
    with pytest.raises(NetworkError, match=r"^network must be an ONNX file or one of .*, not an empty name$"):
        accel.load("")


def test_input_without_a_shape(tmp_path):
    model = convolution().proto
    model.graph.input[0].type.tensor_type.ClearField("shape")
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    samples = np.ones((2, 3, 6, 6), F32)
    with pytest.raises(
        NetworkError, match=r"net.onnx: shape of graph input 'x' must be given as one of `shapes`, since the file leaves it out$"
    ):
        accel.load(path)
    wrong: tuple[Any, ...] = (6, [1] * 33)
    for shape in wrong:
        with pytest.raises(NetworkError, match=r"net.onnx: shape of graph input 'x' must "):
            accel.load(path, shapes={"x": shape})
    network = accel.load(path, calibration=samples, shapes={"x": [1, 3, 6, 6]})
    assert network.tensors[network.inputs[0].tensor].onnx_shape == (3, 6, 6)
    assert fold(bind(read(path), {"x": samples})).inputs == {}


def test_long_chains_of_functions(tmp_path):
    model = Model()
    x = model.input(1, 4)
    for _ in range(3000):
        x = model.node("Sigmoid", x)
    model.output(x)
    network = accel.load(saved(model, tmp_path), calibration=np.linspace(-1, 1, 8, dtype=F32).reshape(2, 4))
    (operator,) = network.operators
    assert isinstance(operator, Lookup)
    assert np.unique(operator.table).size == 1  # the fixed point, near 0.659
