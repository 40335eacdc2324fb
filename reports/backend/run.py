"""Run a backend test: import it, simulate it, and judge how far the result is from the test's."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import accel
from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import AccelError
from accel.graph.files import canonical
from accel.graph.fold import bind
from accel.graph.read import read
from reports.backend.bounds import operand_bounds, result_bounds
from reports.backend.cases import Case

PRESET = "sat-vcu1525"  # 16 bits
REQUANTISED = ("QLinearConv", "QLinearMatMul", "QuantizeLinear")  # whose integers are rounded: they may differ by one
SHARE = 0.02  # of the output's range: a bound beyond it proves little


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test.

    Parameters
    ----------
    name, kind : str
        The test and its operator.
    status : str
        "passed"; "listed", whose bound says little; "failed"; or "refused", by the message in `reason`.
    units : tuple of str
        What computed it: see :class:`accel.result.LayerResult`; "folded" where it is a constant.
    worst : float
        Largest difference: [LSB] of integers, else real.
    differing : float
        Share of integers that differ.
    bound : float or None
        Largest bound of a float result.
    share : float or None
        The bound over the output's range.
    reason : str
    """

    name: str
    kind: str
    status: str
    units: tuple[str, ...] = ()
    worst: float = 0.0
    differing: float = 0.0
    bound: float | None = None
    share: float | None = None
    reason: str = ""


def run(case: Case, config: AcceleratorConfig | None = None) -> Outcome:
    """Run a test.

    Parameters
    ----------
    case : Case
    config : AcceleratorConfig, optional
        Without it, the preset of 16 bits.
    """
    config = presets.load(PRESET) if config is None else config
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder) / f"{case.name}.onnx"
            onnx.save(case.model, path)
            folded = _folded(case, path)
            return folded or _simulated(case, path, config)
    except AccelError as error:
        return Outcome(case.name, case.kind, "refused", reason=str(error).partition(f"{case.name}.onnx: ")[2] or str(error))


def _folded(case: Case, path: Path) -> Outcome | None:
    """Judge a test whose results are constants, once it is folded."""
    graph = canonical(bind(read(path), case.constants, whole=True))
    if not set(case.outputs) <= set(graph.constants):
        return None
    equal = all(np.array_equal(graph.constants[name].values, expected) for name, expected in case.outputs.items())
    return Outcome(case.name, case.kind, "passed" if equal else "failed", ("folded",))


def _simulated(case: Case, path: Path, config: AcceleratorConfig) -> Outcome:
    options: dict[str, Any] = {"calibration": case.samples, "bits": 16} if case.is_float else {}
    network = accel.load(path, constants=case.constants, whole=case.whole, **options)
    samples = {name: x[:, None] if x.ndim == 1 else x for name, x in case.samples.items()}  # a single number has an axis here
    result = accel.simulate(network, config, samples, batch=len(next(iter(samples.values()))))
    units = tuple(sorted({layer.unit for layer in result.layers} - {"none"}))
    bounds = result_bounds(case, network, config) if case.is_float else {}
    spread = operand_bounds(case, network) if case.is_float else {}
    worst, differing, bound, share, right = 0.0, 0.0, None, None, True
    for port in network.outputs:
        expected, tensor = case.outputs[port.name], network.tensors[port.tensor]
        integers = result.outputs[port.name]
        if expected.dtype.kind in "iub":
            difference = np.abs(integers.reshape(expected.shape) - expected.astype(np.int64))
            worst, differing = max(worst, float(difference.max(initial=0))), max(differing, float((difference > 0).mean()))
            allowed = np.ceil(spread[port.name]) if difference.any() and case.is_float else np.array(float(case.kind in REQUANTISED))
            right &= bool((difference <= allowed).all())
            if difference.any() and case.is_float:  # reals near where the integers jump
                bound, share = float(allowed.max()), float(allowed.max()) / _range(expected)
            continue
        found = tensor.dequantise(tensor.from_onnx(integers)).reshape(expected.shape)
        most = bounds.get(port.name, tensor.scale / 2 * bool(network.operators) + np.abs(expected.astype(np.float64)) * 2.0**-23)
        off = np.abs(found - expected.astype(np.float64))
        right &= bool((off <= most).all())
        worst, bound = max(worst, float(off.max(initial=0.0))), max(bound or 0.0, float(np.max(most, initial=0.0)))
        share = max(share or 0.0, float(np.max(most, initial=0.0)) / _range(expected))
    status = "failed" if not right else "passed" if (share or 0.0) <= SHARE else "listed"
    return Outcome(case.name, case.kind, status, units, worst, differing, bound, share)


def _range(expected: NDArray[Any]) -> float:
    """Span of a result, 0 included, as its form covers it."""
    span = float(max(expected.max(initial=0), 0)) - float(min(expected.min(initial=0), 0))
    return span or float(np.finfo(np.float32).tiny)
