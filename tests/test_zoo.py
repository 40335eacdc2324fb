"""Networks nobody here tuned for, in every format of :mod:`reports.networks.zoo`."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import onnx
import pytest

import accel
from reports.networks import zoo

TO_HOST = {"qoperator"}  # onnxruntime leaves operators in float there that it has no integer kernel of


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products are small here: threads would wait for each other."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: it is the oracle")
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def test_the_zoo_is_whole():
    assert len(zoo.FLOAT) >= 8
    assert len(zoo.NARROW) == 3
    assert len(zoo.pairs()) == 7 * len(zoo.FLOAT) + len(zoo.NARROW)
    for name in (*zoo.FLOAT, *zoo.NARROW):
        assert (zoo.FOLDER / f"{name}.onnx").stat().st_size <= 200_000


@pytest.mark.parametrize(("name", "form"), zoo.pairs())
def test_classes_agree(name, form):
    """Top-1 classes of the held-out samples, as the accelerator and as onnxruntime (for QONNX: Brevitas) compute them."""
    row = zoo.check(name, form)
    assert row.agreement >= 0.99
    assert row.places.get("host", 0) == 0 or form in TO_HOST


def test_gaps_of_a_quantised_network_are_filled():
    """The quantiser leaves ConvTranspose in float; with calibration samples nothing is left to the host."""
    given = zoo.sample("unet-transpose")
    with zoo.variant("unet-transpose", "qoperator") as path:
        assert any(node.op_type == "ConvTranspose" for node in onnx.load(path).graph.node)
        left, filled = (accel.load(path, calibration=samples) for samples in (None, given.calibration))
    assert [sum(zoo.place(operator) == "host" for operator in network.operators) for network in (left, filled)] == [2, 0]


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_methods(method):
    """Every method keeps the classes of a trained network, whose distributions are those it was made for."""
    given = zoo.sample("residual")
    network = accel.load(zoo.FOLDER / "residual.onnx", calibration=given.calibration, method=method)
    result = accel.simulate(network, "edge-int8", inputs={network.inputs[0].name: given.test})
    wanted = zoo.onnxruntime_classes(zoo.FOLDER / "residual.onnx", given.test)
    assert (next(iter(result.outputs.values())).argmax(1) == wanted).mean() >= 0.99


@pytest.mark.parametrize("bits", [4, 16])
def test_widths(bits):
    """Narrow integers with the clipping that suits them, and wide ones, on an accelerator that has both."""
    given = zoo.sample("residual")
    network = accel.load(zoo.FOLDER / "residual.onnx", calibration=given.calibration, method="mse", bits=bits)
    result = accel.simulate(network, "sat-vcu1525", inputs={network.inputs[0].name: given.test})
    wanted = zoo.onnxruntime_classes(zoo.FOLDER / "residual.onnx", given.test)
    assert (next(iter(result.outputs.values())).argmax(1) == wanted).mean() >= 0.98
