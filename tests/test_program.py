"""A whole network through the RTL core: every output bit, every layer's cycles, and what is said where they differ."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import accel
from accel import networks, presets
from accel.errors import MismatchError, NetworkError, RangeError
from accel.graph.network import Move, Network
from accel.isa import Dataflow
from accel.kernels.gemm import Weights
from accel.schedule.gemm import schedule
from accel.schedule.lower import Product, Reduction, Requantisation, lower, operands, passes
from accel.sim import program, tb_core
from accel.sim.harness import cosim
from accel.sim.program import Step, cosim_network, read_step
from accel.sim.tiles import cosim_tiles
from accel.sparsity import Pattern, encode
from tests.random_network import ARRAY, SPECIAL, random_network

TINY = presets.load("tiny")


@cache
def digits() -> Network:
    return accel.load("digits-cnn")


@cache
def images() -> np.ndarray:
    with np.load(Path(networks.__file__).parent / "digits-cnn.npz") as data:
        return np.asarray(data["images"])


@cache
def small() -> tuple[Network, np.ndarray]:
    """Return a network of every kind of job and one sample of its input."""
    rng = np.random.default_rng(3)
    network = random_network(rng, operators=4)
    tensor = network.tensors[network.inputs[0].tensor]
    return network, tensor.to_onnx(rng.integers(tensor.format.lo, tensor.format.hi + 1, (1, *tensor.shape)))


@pytest.mark.parametrize("image", [0, 1, 2])
def test_digits_cnn_in_the_rtl(image, tmp_path):
    """The main job's network and preset: 0 differences in bits and cycles, tile by tile, from the simulator's own schedule."""
    config = presets.load("edge-int8")
    run = cosim_network(digits(), config, images()[image : image + 1], out=tmp_path)
    simulated = accel.simulate(digits(), config)
    assert run.network == "digits-cnn"
    assert run.layers == {layer.name: layer.compute_cycles for layer in simulated.layers if layer.cycles}
    assert sum(run.layers.values()) == simulated.compute_cycles
    assert {each.kind for each in run.uncompared} <= {"Flatten", "Reshape"}
    assert not any(each.computed for each in run.uncompared)
    assert set(run.layers) == {operator.name for operator in digits().operators if operator.kind not in ("Flatten", "Reshape")}
    rows = sum(job.m * -(-job.n // config.cols) for layer in lower(digits(), config) for job in layer.jobs)
    assert run.hardware.words == rows
    assert not list(tmp_path.iterdir())


def test_blocks_and_chunks_in_the_rtl():
    """Scratchpads so small that products are cut into blocks of columns, and a reduction into chunks."""
    config = replace(TINY, act_kb=1, weight_kb=1, out_kb=1, keep_kb=0, dram_gbs=0.2)
    rng = np.random.default_rng(3)
    network = random_network(rng, operators=4, channels=40)
    tensor = network.tensors[network.inputs[0].tensor]
    sample = tensor.to_onnx(rng.integers(tensor.format.lo, tensor.format.hi + 1, (1, *tensor.shape)))
    cut = [layer for layer in accel.simulate(network, config).layers if layer.unit == "array"]
    assert any((layer.tile_n or 0) < layer.n for layer in cut)
    assert any((layer.tile_k or 0) < layer.k for layer in cut)
    run = cosim_network(network, config, sample)
    assert {layer.name: layer.compute_cycles for layer in cut}.items() <= run.layers.items()


@pytest.mark.parametrize(
    ("mutant", "what"),
    [
        ("index-off-by-one", r"tile \d+, rows \d+\.\.\d+, channels \d+\.\.\d+, cycle \d+: o\.value\[\d+\] must be -?\d+, not -?\d+"),
        ("psum-not-taken", r"tile \d+, cycle \d+: west\.ready must be 1, not 0"),
    ],
    ids=["bits", "handshake"],
)
def test_difference_names_layer_and_tile(mutant, what, tmp_path, monkeypatch):
    """A fault planted in the RTL; the report is kept as JSON too."""
    network, sample = small()
    monkeypatch.setattr(program, "cosim", partial(cosim, mutant=mutant))
    message = rf"^core on icarus, config tiny, seed 0, case \d+ \(.*\), layer (\w+), (os|ws) {what}$"
    with pytest.raises(MismatchError, match=message) as found:
        cosim_network(network, TINY, sample, simulator="icarus", out=tmp_path)
    (report,) = tmp_path.glob("*.json")
    facts = json.loads(report.read_text())
    assert facts["place"] in str(found.value)
    assert facts["place"].split(",")[0].removeprefix("layer ") in {operator.name for operator in network.operators}


def replay(block, config, simulator, *, late=0, steps=None, cases, program, **_):
    """Stand in for the co-simulation: every step takes the cycles that the bench expects; keep what each step holds."""
    found = [tb_core.program_case(config, program, index) for index in range(cases)]
    (steps if steps is not None else []).extend(read_step(program, index) for index in range(cases))
    spans = [case.cycles or 0 for case in found]
    return SimpleNamespace(spans=(spans[0], spans[1] + late, *spans[2:]))


def test_difference_in_cycles_names_the_layer(monkeypatch):
    network, sample = small()
    name = network.operators[1].name
    monkeypatch.setattr(program, "cosim", partial(replay, late=1))
    with pytest.raises(MismatchError, match=rf"^layer {name}: (\d+) cycles simulated, \d+ measured in the RTL$"):
        cosim_network(network, TINY, sample)


def told(job: Product | Reduction) -> dict[str, Any]:
    """Return what a program keeps of a job."""
    names = ("taps", "channels", "pattern", "codes") if isinstance(job, Product) else ("reduce", "beats", "head", "tail")
    assert job.post is not None
    return {"post": asdict(job.post)} | {name: getattr(job, name) for name in ("m", "n", *names)}


@pytest.mark.parametrize(("param_rows", "pattern"), [(64, None), (2, None), (64, Pattern(1, 4)), (64, Pattern(3, 3))])
def test_program_holds_the_schedule(param_rows, pattern, monkeypatch):
    """Each step is one pass of a layer as lowered, its operands those of the simulated tensors; cycles add up to the simulator's."""
    config = replace(TINY, param_rows=param_rows)
    network, sample = small()
    steps: list[Step] = []
    monkeypatch.setattr(program, "cosim", partial(replay, steps=steps))
    run = cosim_network(network, config, sample, pattern=pattern)
    tensors = accel.simulate(network, config, sample, pattern=pattern, keep=True).tensors
    expected = [(layer, jobs) for layer in lower(network, config, pattern=pattern) for jobs in passes(config, layer)]
    assert [step.layer for step in steps] == [layer.operator.name for layer, _ in expected]
    for step, (layer, jobs) in zip(steps, expected, strict=True):
        found: list[Product | Reduction] = [*step.products, *step.reductions]
        for got, x, job in zip(found, step.operands, jobs, strict=True):
            np.testing.assert_array_equal(x, operands(layer, job, [tensors[name] for name in layer.operator.inputs]))
            np.testing.assert_equal(told(got), told(job))
    simulated = accel.simulate(network, config, pattern=pattern)
    assert run.layers == {layer.name: layer.compute_cycles for layer in simulated.layers if layer.unit in ("array", "vector")}


@pytest.mark.parametrize("flow", Dataflow)
def test_every_payload_has_its_tile(flow):
    """West, north and tile stream belong to a tile of the program; results to the tile that ends their sums."""
    config = replace(TINY, rows=3, cols=2, bundle=4, port=2)
    codes, ones = encode(np.ones((3, 6), np.int64), 2, 3, Pattern(2, 4)), np.ones(3, np.int64)
    post = Requantisation(bias=ones, mult=ones, shift=ones, zero_point=0, lo=0, hi=1)
    job = Product(m=2, n=3, taps=2, channels=3, pattern=Pattern(2, 4), weights=Weights(*codes, 6), post=post)
    plan = schedule(config, 2, 3, 2, 3, Pattern(2, 4), flow)
    case = tb_core.product_case(config, job, np.ones((2, 6), np.int64), plan, "layer a, ")
    assert case.place is not None
    # Four pairs in two bundles of two beats, for each of two tiles of columns; weight stationary three pairs, then one, at once for both.
    tiles: dict[Dataflow, dict[str, Any]] = {
        Dataflow.OS: {"tile": [0, 1], "west": [0] * 4 + [1] * 4, "north": [0] * 4 + [1] * 4, "o": [0, 0, 1, 1]},
        Dataflow.WS: {"tile": [0, 1, 2, 3], "west": np.repeat(range(4), 4), "north": [0] * 3 + [1] * 3 + [2, 3], "o": [2, 2, 3, 3]},
    }
    for port, belongs in tiles[flow].items():
        assert len((case.inputs | case.outputs)[port]) == len(belongs)
        channels = [f", rows 0..1, channels {i}" for i in ("0..1", "2..3")] if port == "o" else ["", ""]
        for position, tile in enumerate(belongs):
            assert case.place(port, position) == f"layer a, {flow.value} tile {tile}{channels[tile % 2]}"
    assert case.place("", 0) == case.place("o", 4) == f"layer a, {flow.value}"


def test_one_sample_at_a_time():
    network, sample = small()
    with pytest.raises(RangeError, match=r"^inputs must hold one sample, not 2$"):
        cosim_network(network, TINY, np.concatenate([sample, sample]))


def test_what_has_no_rtl_is_listed(monkeypatch):
    """Every operator is either compared or listed, with its unit."""
    monkeypatch.setattr(program, "cosim", replay)
    network = random_network(np.random.default_rng(4), operators=12, kinds=ARRAY + SPECIAL)
    tensor = network.tensors[network.inputs[0].tensor]
    run = cosim_network(network, TINY, tensor.to_onnx(np.zeros((1, *tensor.shape), np.int64) + tensor.format.lo))
    layers = {layer.operator.name: bool(layer.jobs) for layer in lower(network, TINY)}
    assert set(run.layers) == {name for name, jobs in layers.items() if jobs}
    assert [each.name for each in run.uncompared] == [name for name, jobs in layers.items() if not jobs]
    moves = {operator.name for operator in network.operators if isinstance(operator, Move)}
    assert {each.name for each in run.uncompared if not each.computed} == moves
    kinds = {operator.name: operator.kind for operator in network.operators}
    assert all(each.kind == kinds[each.name] for each in run.uncompared)
    assert any(each.unit == "special" for each in run.uncompared)


@pytest.mark.parametrize("run", [cosim_network, cosim_tiles])
def test_a_network_without_rtl(run):
    """There is nothing to compare: said before any work."""
    network, sample = small()
    first = network.inputs[0].tensor
    tensors = {first: network.tensors[first], "y": replace(network.tensors[first], name="y")}
    move = Move(
        name="turn", kind="Transpose", inputs=(first,), output="y", index=np.arange(tensors[first].size)[::-1].reshape(tensors[first].shape)
    )
    nothing = replace(network, tensors=tensors, operators=(move,), outputs=(replace(network.outputs[0], tensor="y"),))
    with pytest.raises(
        NetworkError, match=r"^operators of random must include one with RTL, of the array or the vector unit, not only Transpose 1$"
    ):
        run(nothing, TINY, sample)
