"""The engine against its plain twin on random networks, its cycles, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from fractions import Fraction
from typing import Any

import numba
import numpy as np
import pytest
from onnx import TensorProto

from accel import engine, jit, presets, simulate
from accel.errors import ConfigError, NetworkError, RangeError
from accel.golden.core import Product as GoldenProduct
from accel.golden.core import core
from accel.golden.postprocess import Params
from accel.graph.graph import Given, Graph, Node
from accel.graph.network import ArgMax, AveragePool, Divide, Host, MatrixProduct, Network, Port, Tensor, TransposedConvolution
from accel.graph.window import Window
from accel.isa import Source
from accel.kernels import threads
from accel.result import CAUSES
from accel.schedule import lower
from accel.sparsity import Pattern
from reports.bench import network as bench
from tests import naive_engine
from tests.random_network import ARRAY, SPECIAL, random_network

TINY = presets.load("tiny")
EDGE = presets.load("edge-int8")


def samples(network: Network, rng: np.random.Generator, count: int) -> np.ndarray:
    tensor = network.tensors[network.inputs[0].tensor]
    return rng.integers(tensor.format.lo, tensor.format.hi + 1, (count, *tensor.shape))


def changed(network: Network, **fields) -> Network:
    """Change fields of the products of a network."""
    operators = tuple(
        dataclasses.replace(o, **fields) if isinstance(o, (MatrixProduct, TransposedConvolution)) else o for o in network.operators
    )
    return dataclasses.replace(network, operators=operators)


def layer(filters: int = 2, channels: int = 2, **fields: Any) -> Any:
    """Return one linear layer `fc` from tensor `x` to tensor `y`."""
    tensors = {name: Tensor(name=name, shape=(size,), bits=8, scale=1.0) for name, size in (("x", channels), ("y", filters))}
    given: dict[str, Any] = {
        "weights": np.ones((filters, 1, 1, channels), np.int8), "bias": np.zeros(filters, np.int64), "multiplier": np.ones(filters),
    } | fields  # fmt: skip
    product = MatrixProduct(
        name="fc",
        kind="Gemm",
        inputs=("x",),
        output="y",
        zero_point=0,
        lo=-128,
        hi=127,
        window=Window(),
        channels=channels,
        filters=filters,
        **given,
    )
    return Network(name="one", tensors=tensors, operators=(product,), inputs=(Port("x", "x", False),), outputs=(Port("y", "y", False),))


@pytest.mark.parametrize("seed", [*(pytest.param(seed, marks=pytest.mark.golden) for seed in range(4)), *range(4, 40)])
def test_equals_the_plain_twin_in_every_tensor(seed):
    rng = np.random.default_rng(seed)
    act_bits, acc_bits, pattern = [(6, 12, None), (8, 16, None), (8, 32, Pattern(1, 4)), (16, 24, None), (16, 40, Pattern(3, 8))][seed % 5]
    config = dataclasses.replace(
        TINY, act_bits=act_bits, weight_bits=int(rng.integers(4, 9)), acc_bits=acc_bits, overflow=str(rng.choice(["saturate", "wrap"])),
        mult_bits=int(rng.choice([8, 23])), param_rows=int(rng.choice([1, 2, 64])),
    )  # fmt: skip
    network = random_network(
        rng, bits=config.act_bits, weight_bits=config.weight_bits, acc_bits=config.acc_bits, kinds=ARRAY + SPECIAL, operators=6
    )
    x = samples(network, rng, 2)
    source = network.tensors[network.inputs[0].tensor]
    result = simulate(network, config, source.to_onnx(x), pattern=pattern, keep=True)
    pruned = network
    if pattern:
        eligible = lower.eligible(network)
        cut = [lower.prune(o, pattern) if isinstance(o, MatrixProduct) and o.name in eligible else o for o in network.operators]
        pruned = dataclasses.replace(network, operators=tuple(cut))
    values, overflowed = naive_engine.run(pruned, config, {source.name: x})
    for name, want in values.items():
        np.testing.assert_array_equal(result.tensors[name], want, err_msg=name)
    assert [layer.overflowed for layer in result.layers] == list(overflowed.values())
    output = network.outputs[0]
    np.testing.assert_array_equal(result.outputs[output.name], network.tensors[output.tensor].to_onnx(values[output.tensor]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bits", [(20, 16, 40, 16), (30, 30, 62, 1), (31, 12, 45, 18)])
def test_operands_of_more_than_16_bits(seed, bits):
    """Whatever array and vector unit compute, in lanes of 64 bits."""
    rng = np.random.default_rng(seed)
    act, weight, acc, mult = bits
    config = dataclasses.replace(TINY, act_bits=act, weight_bits=weight, acc_bits=acc, mult_bits=mult)
    network = random_network(rng, bits=act, weight_bits=weight, acc_bits=acc, operators=5)
    x = samples(network, rng, 2)
    source = network.tensors[network.inputs[0].tensor]
    result = simulate(network, config, source.to_onnx(x), keep=True)
    values, overflowed = naive_engine.run(network, config, {source.name: x})
    for name, want in values.items():
        np.testing.assert_array_equal(result.tensors[name], want, err_msg=name)
    assert [layer.overflowed for layer in result.layers] == list(overflowed.values())


@pytest.mark.parametrize("acc_bits", [17, 32])
@pytest.mark.parametrize("pattern", [None, "2:8"])
def test_fast_routes_equal_the_golden_path(acc_bits, pattern):
    """A layer large enough for every route; with 17 bits some channels overflow and others provably do not."""
    rng = np.random.default_rng(acc_bits)
    config = dataclasses.replace(EDGE, acc_bits=acc_bits)
    weights = (rng.integers(-127, 128, (40, 3, 3, 64)) >> rng.integers(0, 7, (40, 1, 1, 1))).astype(np.int8)
    tensors = {name: Tensor(name=name, shape=(9, 9, n), bits=8, scale=1.0, zero_point=3) for name, n in (("x", 64), ("y", 40))}
    product = MatrixProduct(
        name="conv", kind="Conv", inputs=("x",), output="y", zero_point=3, lo=3, hi=127, channels=64, filters=40, padding=3,
        window=Window(kernel=(3, 3), pads=(1, 1, 1, 1)), weights=weights, bias=rng.integers(-9999, 9999, 40),
        multiplier=rng.uniform(1e-4, 1e-3, 40),
    )  # fmt: skip
    network = Network(name="conv", tensors=tensors, operators=(product,), inputs=(Port("x", "x", False),), outputs=(Port("y", "y", False),))
    (lowered,) = lower.lower(network, config, pattern=pattern and Pattern.parse(pattern))
    x = rng.integers(-128, 128, (5, 9, 9, 64))
    (job,) = lowered.jobs
    assert isinstance(job, lower.Product)
    assert job.codes is not None
    assert job.post is not None
    post, a = job.post, lower.operands(lowered, job, [x])
    want = core(
        config, GoldenProduct(a, job.codes.values.astype(np.int64), job.codes.positions), post.instruction(Source.ARRAY, len(a)),
        Params(post.bias[None], post.mult[None], post.shift[None]),
    )  # fmt: skip
    values, overflowed = engine.compute(config, lowered, [x])
    np.testing.assert_array_equal(values.reshape(want.value.shape), want.value)
    assert overflowed == want.overflow.sum()
    assert (overflowed > 0) == (acc_bits == 17)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("config", [TINY, EDGE, dataclasses.replace(TINY, add_stages=3, mult_stages=2)], ids=["tiny", "edge", "deep"])
def test_every_slot_has_one_cause(seed, config):
    network = random_network(np.random.default_rng(seed), operators=8, wide=False)
    result = simulate(network, config, batch=3)
    for x in result.layers:
        assert set(x.causes) == set(CAUSES)
        assert min(x.causes.values()) >= 0
        assert sum(x.causes.values()) == config.rows * config.cols * x.cycles
        assert x.causes["busy"] == x.macs_executed
        assert x.macs_executed <= x.macs_dense * (3 if x.operator == "MatMul" else 1)  # activations a bit too wide are split
        assert 0 <= x.utilisation <= 1
        assert x.runner_up is None or x.runner_up >= x.cycles
    assert result.cycles == sum(x.cycles for x in result.layers)
    assert result.seconds == pytest.approx(result.cycles / (config.clock_mhz * 1e6))


@pytest.mark.parametrize("seed", range(8))
def test_cycles_need_no_values(seed):
    """Shapes and pattern alone decide the cycles; a dense run is the same without weights."""
    network = random_network(np.random.default_rng(seed), wide=False)
    with_values = simulate(
        network, TINY, network.tensors["t0"].to_onnx(samples(network, np.random.default_rng(0), 2)), batch=2, pattern="dense"
    )
    shapes = simulate(changed(network, weights=None, bias=None, multiplier=None), TINY, batch=2, pattern="dense")
    assert [dataclasses.replace(x, overflowed=None, energy_removed=None) for x in with_values.layers] == list(shapes.layers)
    assert (shapes.outputs, shapes.tensors) == ({}, {})


def test_wide_layers_refill_the_parameter_memory():
    """Two vectors of four channels: a layer of 20 channels takes three passes, each with its own fill and drain."""
    narrow = dataclasses.replace(TINY, param_rows=2)
    wide, (eight, four) = layer(20, 8), (simulate(layer(n, 8), narrow, pattern="dense").layers[0] for n in (8, 4))
    whole = simulate(wide, narrow, pattern="dense").layers[0]
    assert (whole.compute_cycles, whole.n, whole.macs_executed) == (2 * eight.compute_cycles + four.compute_cycles, 20, 160)
    for cause in set(CAUSES) - {"wait load", "wait store"}:
        assert whole.causes[cause] == 2 * eight.causes[cause] + four.causes[cause]
    assert simulate(wide, TINY, pattern="dense").cycles < whole.cycles


def test_passes_share_one_filling():
    """An average pool with padding has a job for each divisor; they run without a pause while their parameters fit."""
    tensors = {n: Tensor(name=n, shape=(4, 4, 8), bits=8, scale=1.0) for n in "xy"}
    pool = AveragePool(
        name="pool", kind="AveragePool", inputs=("x",), output="y", zero_point=0, lo=-128, hi=127, multiplier=1.0, input_zero=0,
        window=Window(kernel=(3, 3), pads=(1, 1, 1, 1)), counted=(0, 0, 0, 0),
    )  # fmt: skip
    network = Network(name="pool", tensors=tensors, operators=(pool,), inputs=(Port("x", "x", False),), outputs=(Port("y", "y", False),))
    cycles = []
    for rows, want in ((64, [3]), (4, [2, 1]), (2, [1, 1, 1]), (1, [1] * 6)):
        config = dataclasses.replace(TINY, param_rows=rows)
        (lowered,) = lower.lower(network, config)
        assert [len(run) for run in lower.passes(config, lowered)] == want
        (told,) = simulate(network, config).layers
        assert (told.m, told.k, told.n) == (16, 9, 8)
        cycles.append(told.compute_cycles)
    beats = 16 * 9 * 2
    assert cycles == [beats + passes * 9 for passes in (1, 2, 3, 6)]


def test_batch_multiplies_rows():
    network = random_network(np.random.default_rng(3))
    one, five = simulate(network, TINY), simulate(network, TINY, batch=5)
    assert [5 * x.m for x in one.layers] == [x.m for x in five.layers]
    assert five.cycles < 5 * one.cycles


def test_samples_do_not_depend_on_each_other(monkeypatch):
    """Any number at once gives the same bits, and what overflowed adds up."""
    rng = np.random.default_rng(11)
    network, config = random_network(rng), dataclasses.replace(TINY, acc_bits=12)
    x = network.tensors["t0"].to_onnx(samples(network, rng, 7))
    told = []
    whole = simulate(network, config, x, progress=lambda *at: told.append(at))
    assert told[-1] == (len(network.operators), len(network.operators), "done")
    labels = [label for _, _, label in told]
    assert labels[labels.index("scheduled") + 1 : -1] == [o.name for o in network.operators]
    monkeypatch.setattr(engine, "CHUNK", 1)
    single = simulate(network, config, x)
    for name, values in whole.outputs.items():
        np.testing.assert_array_equal(single.outputs[name], values)
    assert [a.overflowed for a in whole.layers] == [b.overflowed for b in single.layers]


def test_results_do_not_depend_on_threads(monkeypatch):
    """One thread, all of them for every kernel, or all for long ones only."""
    rng = np.random.default_rng(12)
    most, config = jit.settings.NUMBA_NUM_THREADS, dataclasses.replace(EDGE, acc_bits=20)
    for _ in range(3):
        network = random_network(rng, operators=10, channels=40, acc_bits=20, kinds=ARRAY + SPECIAL)
        x = network.tensors["t0"].to_onnx(samples(network, rng, 9))
        found = []
        for alone, count in ((0.0, 1), (0.0, most), (threads.ALONE, most)):
            monkeypatch.setattr(threads, "ALONE", alone)
            before = numba.get_num_threads()
            numba.set_num_threads(count)
            try:
                found.append(simulate(network, config, x, keep=True))
            finally:
                numba.set_num_threads(before)
        for other in found[1:]:
            assert [a.overflowed for a in found[0].layers] == [b.overflowed for b in other.layers]
            for name, values in found[0].tensors.items():
                np.testing.assert_array_equal(other.tensors[name], values)


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["argmax", "divide", "host"])
def test_what_runs_elsewhere(kind):
    """Indices, quotients and floats: each beside NumPy, in a network whose other tensors are int8."""
    x, y = (Tensor(name=n, shape=(2, 3), bits=8, scale=0.5, zero_point=3) for n in "xy")
    ends: dict[str, Any] = {"name": "it", "kind": kind, "inputs": ("x",), "output": "y"}
    values = np.random.default_rng(4).integers(-128, 128, (5, 2, 3))
    reals = (values - 3) * 0.5
    operator: Any
    if kind == "argmax":
        y, operator = Tensor(name="y", shape=(2,), bits=16, scale=1.0), ArgMax(**ends, last=True)
        want = 2 - np.argmax(values[..., ::-1], axis=-1)
    elif kind == "divide":
        operator = Divide(**ends | {"inputs": ("x", "x")}, zero_point=3, lo=-128, hi=127, zero_points=(3, 20), multiplier=7.25)
        exact = [[[Fraction(29, 4) * Fraction(a - 3, a - 20) if a != 20 else 10**9 for a in row] for row in one] for one in values.tolist()]
        want = np.clip([[[round(a) for a in row] for row in one] for one in exact], -131, 124) + 3
    else:
        shape = (1, 2, 3)
        real = TensorProto.FLOAT
        graph = Graph(
            name="float", opset=17, nodes=(Node("abs", "Abs", ("a",), ("b",)),), constants={}, inputs={"a": Given(real, shape)},
            outputs=("b",), shapes={"a": shape, "b": shape}, kinds={"a": real, "b": real},
        )  # fmt: skip
        operator = Host(**ends, graph=graph)
        want = np.clip(np.abs(reals) / 0.5 + 3, -128, 127)
    network = Network(
        name="one", tensors={"x": x, "y": y}, operators=(operator,), inputs=(Port("x", "x", True),), outputs=(Port("y", "y", False),)
    )
    result = simulate(network, TINY, reals)
    np.testing.assert_array_equal(result.outputs["y"], want)
    assert result.layers[0].overflowed == 0


def test_the_benchmark_of_networks(tmp_path, monkeypatch, capsys):
    """It times what it names, in this process and in others."""
    monkeypatch.setattr(
        sys,
        "argv",
        ["network", "--rounds", "1", "--networks", "digits-cnn", "--peer", f"nothing={sys.executable} -c 0", "--out", str(tmp_path)],
    )
    monkeypatch.setattr(bench, "PROCESS", ("-c", "0"))
    monkeypatch.setattr(bench, "SWEEP", "0")
    bench.main()
    report = json.loads((tmp_path / "network.json").read_text())
    assert [(row["network"], row["what"]) for row in report["networks"]] == [("digits-cnn", "shapes"), ("digits-cnn", "values")]
    assert len(report["processes"]) == 3
    assert all(row["processor"] > 0 and 0 < row["best"] <= row["median"] for row in report["networks"])
    assert (tmp_path / "network.md").read_text().strip() == capsys.readouterr().out.strip()
    bench.sweep(["digits-cnn"])
    assert capsys.readouterr().out.startswith("6 ")


def test_pattern_is_detected_from_the_weights():
    weights = np.zeros((2, 1, 1, 16), np.int8)
    weights[:, 0, 0, [0, 5, 9, 15]] = 7
    dense = np.ones_like(weights)
    found = [simulate(layer(channels=16, weights=w), EDGE).layers[0].pattern for w in (weights, dense, 0 * dense)]
    assert found == ["1:4", "16:16", "1:16"]


def test_given_pattern_prunes_eligible_layers_only():
    """The first convolution and the last linear layer stay dense; the energy removed is told."""
    rng = np.random.default_rng(5)
    build = [("conv1", "Conv", 3), ("conv2", "Conv", 8), ("fc1", "Gemm", 8), ("fc2", "Gemm", 8)]
    shapes = [(4, 4, 3), (4, 4, 8), (4, 4, 8), (4, 4, 8), (4, 4, 4)]
    tensors = {f"t{i}": Tensor(name=f"t{i}", shape=shape, bits=8, scale=1.0) for i, shape in enumerate(shapes)}
    operators: tuple[Any, ...] = tuple(
        MatrixProduct(
            name=name, kind=kind, inputs=(f"t{i}",), output=f"t{i + 1}", zero_point=0, lo=-128, hi=127, window=Window(), channels=channels,
            filters=shapes[i + 1][2], padding=9, weights=rng.integers(-127, 128, (shapes[i + 1][2], 1, 1, channels)).astype(np.int8),
            bias=np.zeros(shapes[i + 1][2], np.int64), multiplier=np.full(shapes[i + 1][2], 0.01),
        )
        for i, (name, kind, channels) in enumerate(build)
    )  # fmt: skip
    network = Network(
        name="four", tensors=tensors, operators=operators, inputs=(Port("t0", "t0", False),), outputs=(Port("t4", "t4", False),)
    )
    assert lower.eligible(network) == {"conv2", "fc1"}
    result = simulate(network, EDGE, pattern="2:8")
    assert [x.pattern for x in result.layers] == ["16:16", "2:8", "2:8", "16:16"]
    weights = operators[1].weights.astype(float)
    kept: Any = lower.prune(operators[1], Pattern(2, 8)).weights
    removed = [x.energy_removed for x in result.layers]
    assert removed == [0.0, pytest.approx(1 - (kept.astype(float) ** 2).sum() / (weights**2).sum()), pytest.approx(removed[2]), 0.0]
    assert [x.weight_bits + x.index_bits for x in result.layers] == [8 * 3 * 8, 2 * 8 * (8 + 3), 2 * 8 * (8 + 3), 8 * 8 * 4]
    assert all(x.energy_removed is None for x in simulate(network, EDGE).layers)


def test_pruning_keeps_what_the_zero_point_needs():
    weights = np.array([[5, -3, 2, 9]], np.int8).reshape(1, 1, 1, 4)
    bias = np.array([40 - 11 * 13])  # 40 with -padding * sum(weights) folded in
    network = layer(filters=1, channels=4, weights=weights, bias=bias, padding=11)
    pruned: Any = lower.prune(network.operators[0], Pattern(1, 4))
    assert pruned.weights.ravel().tolist() == [0, 0, 0, 9]
    assert pruned.bias.tolist() == [40 - 11 * 9]


def test_inputs_by_name_alone_real_or_integer():
    network = layer()
    port = Port("image", "x", True)
    real = dataclasses.replace(network, inputs=(port,))
    x = [[1.0, 2.0], [-3.0, 4.4]]
    want = [[3, 3], [1, 1]]
    for given in (x, {"image": x}, np.array(x, np.float32)):
        np.testing.assert_array_equal(simulate(real, TINY, given).outputs["y"], want)
    np.testing.assert_array_equal(simulate(network, TINY, {"x": [[1, 2], [-3, 4]]}).outputs["y"], want)
    assert simulate(network, TINY, [[1, 2]], keep=True).tensors.keys() == {"x", "y"}


def test_config_by_name_or_path():
    assert simulate(layer(), "tiny").config == TINY
    with pytest.raises(
        ConfigError, match=r"^config must be one of edge-int8, sat-vcu1525, sat-vcu1525-int8, tiny or the path of a YAML file, not 'big'$"
    ):
        simulate(layer(), "big")


@pytest.mark.parametrize("batch", [0, -1, 2.0, True, 1 << 24])
def test_rejects_batch(batch):
    with pytest.raises(RangeError, match=rf"^batch must be an int in \[1, 16777215\], not {batch!r}$"):
        simulate(layer(), TINY, batch=batch)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": [[1, 2]]}, "inputs must be x, not z"),
        ({}, "inputs must be x, not none"),
        ({"x": [[1, 2]], "z": [1]}, "inputs must be x, not x, z"),
        ([[1, 2]] * 3, r"inputs must all hold the same multiple of batch \(2\) samples, not 3"),
        (np.zeros((0, 2), int), r"inputs must all hold the same multiple of batch \(2\) samples, not 0"),
        ([[1.5, 2.0]], "x must be integers, not float64"),
        ([[1, 2, 3]], r"x must be of shape \(samples, 2\), not \(1, 3\)"),
        ([[1, 2], [3]], "x must be an array, not lists of different lengths"),
        ([1, 2], r"x must be of shape \(samples, 2\), not \(2,\)"),
        ([[128, 0]], r"x must be in \[-128, 127\], not 0..128"),
    ],
)
def test_rejects_inputs(inputs, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        simulate(layer(), TINY, inputs, batch=2)


@pytest.mark.parametrize("schedule", [5, b"plan.json", {}])
def test_rejects_schedules(schedule):
    with pytest.raises(RangeError, match=f"^schedule must be a Schedule or the path of one, not {re.escape(repr(schedule))}$"):
        simulate(layer(), TINY, schedule=schedule)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([["a", "b"]], "image must be real numbers, not <U1"),
        ([[1j, 2]], "image must be real numbers, not complex128"),
        ([[1.0, float("nan")]], "image must be finite numbers of float32, not nan"),
        ([[1.0, float("-inf")]], "image must be finite numbers of float32, not -inf"),
        ([[1.0, 1e39]], r"image must be finite numbers of float32, not 1e\+39"),
        ([[1.0]], r"image must be of shape \(samples, 2\), not \(1, 1\)"),
    ],
)
def test_rejects_real_inputs(image, message):
    real = dataclasses.replace(layer(), inputs=(Port("image", "x", True),))
    with pytest.raises(RangeError, match=f"^{message}$"):
        simulate(real, TINY, image)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("2/8", "pattern must be N:M such as 2:8, not '2/8'"),
        ((2, 8), r"pattern must be a Pattern or N:M such as '2:8', not \(2, 8\)"),
        ("4:2", r"n must be an int in \[1, 2\], not 4"),
    ],
)
def test_rejects_pattern(pattern, message):
    with pytest.raises(RangeError, match=f"^{message}$"):
        simulate(layer(), TINY, pattern=pattern)


@pytest.mark.parametrize("network", [None, "model.onnx"])
def test_rejects_what_is_not_a_network(network):
    with pytest.raises(RangeError, match=f"^network must be a Network, as accel.load gives, not {network!r}$"):
        simulate(network, TINY)


@pytest.mark.parametrize("config", [None, 4, b"tiny"])
def test_rejects_what_is_not_a_configuration(config):
    with pytest.raises(ConfigError, match=f"^config must be one of .* or the path of a YAML file, not {config!r}$"):
        simulate(layer(), config)


def test_rejects_pattern_wider_than_the_bundle():
    network = random_network(np.random.default_rng(2), operators=12)
    with pytest.raises(RangeError, match=r"^pattern must be N:M with M at most the bundle \(8\) of tiny, not 2:16$"):
        simulate(network, TINY, pattern="2:16")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"weights": np.full((2, 1, 1, 2), -257, np.int16)},
            r"weights of fc must fit weight_bits \(8\) and one bit more once .*, not be -257..-257",
        ),
        ({"bias": np.array([0, 1 << 31])}, r"bias of fc must fit acc_bits \(32\), not be 0..2147483648"),
        ({"multiplier": np.array([1.0, 2.0**24])}, r"fc: scale must be below 2\*\*24 - 1/2, not 16777216.0"),
    ],
)
def test_rejects_layers_that_do_not_fit(fields, message):
    with pytest.raises(NetworkError, match=f"^{message}$"):
        simulate(layer(**fields), TINY)


def test_rejects_tensors_wider_than_the_array():
    with pytest.raises(NetworkError, match=r"^x of fc must be at most act_bits \(7\) wide, not 8$"):
        simulate(layer(), dataclasses.replace(TINY, act_bits=7))


def test_rejects_values_without_weights():
    with pytest.raises(NetworkError, match=r"^weights of fc must be known where inputs are given, not shapes only$"):
        simulate(changed(layer(), weights=None, bias=None, multiplier=None), TINY, [[1, 2]])


def test_rejects_operators_that_have_no_lowering():
    odd: Any = type("Odd", (), {"name": "odd"})()
    with pytest.raises(NetworkError, match=r"^operator odd must be of a type that is lowered, not Odd$"):
        lower.jobs(odd, odd)
