"""What a result says of itself: units, versions, equal bytes for equal runs."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json

import numpy as np
import pytest

from accel import presets, simulate
from accel.graph.network import MatrixProduct, Network, Port, Tensor
from accel.graph.window import Window
from accel.result import CAUSES, UNITS, LayerResult
from accel.schedule.plan import Schedule
from tests.random_network import random_network

TINY = presets.load("tiny")


def _inputs(network):
    tensor = network.tensors["t0"]
    x = np.random.default_rng(0).integers(tensor.format.lo, tensor.format.hi + 1, (4, *tensor.shape))
    return tensor.to_onnx(x)


@pytest.fixture(scope="module")
def network():
    return random_network(np.random.default_rng(5))


@pytest.fixture(scope="module")
def result(network):
    return simulate(network, TINY, _inputs(network), batch=2)


def test_json_states_what_it_is(result):
    report = json.loads(result.to_json())
    assert (report["schema_version"], report["excludes"], report["seed"]) == (2, [], None)
    assert set(report["versions"]) == {"accel", "numpy", "numba", "python"}
    assert report["config"] == dataclasses.asdict(TINY)
    assert (report["network"], report["batch"], report["cycles"], report["seconds"]) == ("random", 2, result.cycles, result.seconds)
    assert (report["compute_cycles"], report["dram"]) == (result.compute_cycles, result.dram)
    assert [layer["cycles"] for layer in report["layers"]] == [layer.cycles for layer in result.layers]
    assert Schedule.from_json(json.dumps(report["schedule"])) == result.schedule
    assert report["tensors"] == {name: dataclasses.asdict(each) for name, each in result.traffic.items()}
    (name, output), *others = report["outputs"].items()
    values, form = result.outputs[name], result.formats[name]
    assert not others
    assert output == {
        "bits": form.bits, "signed": not form.unsigned, "scale": form.scale, "zero_point": form.zero_point + form.offset,
        "shape": list(values.shape), "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
    }  # fmt: skip


def test_every_number_of_a_layer_has_a_unit(result):
    numbers = {name for layer in result.layers for name, value in layer.row().items() if type(value) in (int, float)}
    assert numbers <= set(UNITS)


def test_csv_holds_the_layers(result):
    heading, *rows = csv.reader(io.StringIO(result.to_csv()))
    assert {"cycles [cycle]", "compute_cycles [cycle]", "bound_cycles [cycle]", "dram_written [byte]"} < set(heading)
    assert {f"{cause} slots [PE cycle]" for cause in CAUSES} < set(heading)
    column = [name.split(" [")[0] for name in heading]
    assert len(rows) == len(result.layers)
    for row, layer in zip(rows, result.layers, strict=True):
        told = dict(zip(column, row, strict=True))
        assert told == {name: "" if value is None else str(value) for name, value in layer.row().items()}


def test_csv_without_layers_has_its_heading(result):
    assert dataclasses.replace(result, layers=()).to_csv() == result.to_csv().splitlines()[0] + "\n"


def test_equal_runs_give_equal_bytes(network, result):
    again = simulate(network, TINY, _inputs(network), batch=2)
    assert (again.to_json(), again.to_csv()) == (result.to_json(), result.to_csv())
    other = simulate(network, TINY, _inputs(network)[::-1], batch=2)
    assert other.to_json() != result.to_json()


def test_real_values(network, result):
    ((name, values),) = result.outputs.items()
    form = result.formats[name]
    np.testing.assert_array_equal(result.real(name), form.scale * (values - form.offset - form.zero_point))


def test_shapes_only_have_no_digest(network):
    output = network.outputs[0]
    shapes = simulate(dataclasses.replace(network, outputs=(Port("y", output.tensor, True),)), TINY)
    told = json.loads(shapes.to_json())["outputs"]["y"]
    assert (told["sha256"], told["shape"]) == (None, ["batch", network.tensors[output.tensor].shape[0]])


def test_idle_layer_is_not_utilised():
    layer = LayerResult(name="view", operator="Reshape", stage="FF", m=0, k=0, n=0)
    assert (layer.utilisation, layer.cycles) == (0.0, 0)


def test_a_layer_tells_its_bytes_and_its_place_on_the_roofline():
    """A 1 x 1 convolution of 64 places, 8 channels and 4 filters on a machine that keeps nothing, by hand."""
    tensors = {name: Tensor(name=name, shape=(8, 8, size), bits=8, scale=1.0) for name, size in (("x", 8), ("y", 4))}
    product = MatrixProduct(
        name="conv", kind="Conv", inputs=("x",), output="y", zero_point=0, lo=-128, hi=127, window=Window(), channels=8, filters=4
    )
    network = Network(name="one", tensors=tensors, operators=(product,), inputs=(Port("x", "x", False),), outputs=(Port("y", "y", False),))
    (told,) = simulate(network, dataclasses.replace(TINY, keep_kb=0, dram_gbs=0.1)).layers
    weights = (4 * (8 * 8 + 32 + 24 + 6) + 7) // 8  # values, bias, multiplier and shift of each filter
    assert (told.dram_read_activations, told.dram_read_weights, told.dram_written) == (512, weights, 256)
    assert (told.dram, told.dram_least) == (768 + weights, 768 + weights)
    assert (told.macs_executed, told.register_moved) == (2048, 2048 * (1 + 1 + 2 * 4))
    assert (told.unit, told.kept, told.bound_cycles) == ("array", False, 768 + weights)  # a byte a cycle
    roof = told.roof
    assert roof is not None
    assert (roof.intensity, roof.attainable, roof.bound_by) == (2048 / (768 + weights), 2048 / (768 + weights), "memory")
    assert roof.attained == 2048 / told.cycles <= roof.attainable
