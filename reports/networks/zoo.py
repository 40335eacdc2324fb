"""The zoo: networks as people build them, in the formats people quantise them to, on the accelerator and in onnxruntime.

Ten networks of :mod:`reports.networks.zoo_modules`, trained on scikit-learn's handwritten digits [1]_ and exported by PyTorch in float,
and three trained by Brevitas and exported as QONNX, lie in ``tests/zoo`` beside held-out samples. onnxruntime's static quantiser makes
six quantised models of each float one (:data:`FORMATS`), one of them in part; our own calibration fills that one up, and makes a seventh.
The classes of the held-out samples, of images or of their pixels, are then compared with those that onnxruntime gives for the same model,
or Brevitas for QONNX.

``python -m reports.networks.zoo`` trains and writes the files (extra `train`, and Brevitas; minutes), ``--check`` writes ``zoo.md``.

References
----------
.. [1] E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
   https://doi.org/10.24432/C50P49 (CC BY 4.0).
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import onnx
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[2] / "tests" / "zoo"
TABLE = Path(__file__).with_name("zoo.md")
DATA = {"unet-transpose": "noisy", "unet-resize": "noisy", "audio": "signal"}  # what a network reads, else images
FLOAT = sorted(path.stem for path in FOLDER.glob("*.onnx") if not path.stem.startswith("narrow"))
NARROW = sorted(path.stem for path in FOLDER.glob("narrow*.onnx"))
OURS, QONNX, PARTIAL = "calibrated", "qonnx", "qdq-partial"
FORMATS: dict[str, dict[str, Any]] = {  # arguments of onnxruntime.quantization.quantize_static, by name of their enum's members
    "qdq-tensor": {"quant_format": "QDQ", "activation_type": "QUInt8", "weight_type": "QInt8"},
    "qdq-channel": {"quant_format": "QDQ", "activation_type": "QInt8", "weight_type": "QInt8", "per_channel": True},
    "qdq-symmetric": {
        "quant_format": "QDQ",
        "activation_type": "QInt8",
        "weight_type": "QInt8",
        "extra_options": {"ActivationSymmetric": True},
    },
    "qdq-asymmetric": {
        "quant_format": "QDQ",
        "activation_type": "QUInt8",
        "weight_type": "QUInt8",
        "extra_options": {"WeightSymmetric": False},
    },
    PARTIAL: {"quant_format": "QDQ", "activation_type": "QUInt8", "weight_type": "QInt8", "op_types_to_quantize": ["Conv"]},
    "qoperator": {"quant_format": "QOperator", "activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": True},
}


@dataclass(frozen=True, slots=True)
class Sample:
    """Held-out samples of a network and what calibrates it.

    Parameters
    ----------
    calibration, test : float32, shape (n, ...)
    classes : uint8, shape (n, ...)
        Of `test`, one of each sample or of each of its pixels.
    """

    calibration: NDArray[np.float32]
    test: NDArray[np.float32]
    classes: NDArray[np.uint8]


def sample(name: str) -> Sample:
    """Read the samples of a network, reals of 0 to 1."""
    kind = DATA.get(name, "image")
    with np.load(FOLDER / "samples.npz", allow_pickle=False) as stored:
        calibration, test = (stored[f"{part}/{kind}"].astype(np.float32) / 255 for part in ("calibration", "test"))
        return Sample(calibration, test, stored[f"test/{kind}/class"])


def own_classes(name: str) -> NDArray[np.uint8]:
    """Classes that Brevitas gives to the held-out samples of a narrow network."""
    with np.load(FOLDER / "samples.npz", allow_pickle=False) as stored:
        classes: NDArray[np.uint8] = stored[f"{name}/class"]
        return classes


@contextmanager
def variant(name: str, form: str) -> Iterator[Path]:
    """Write a network in one of :data:`FORMATS` for as long as the context lasts; others lie there as they are."""
    source = FOLDER / f"{name}.onnx"
    if form not in FORMATS:
        yield source
        return
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, unused-ignore]  # onnxruntime ships no types
        """One sample after the other."""

        def __init__(self, values: NDArray[np.float32]) -> None:
            self.values = iter(values)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            """Return the next sample, a batch of one."""
            value = next(self.values, None)
            return None if value is None else {"x": value[None]}

    members = {"quant_format": quantization.QuantFormat, "activation_type": quantization.QuantType, "weight_type": quantization.QuantType}
    arguments = {key: getattr(members[key], value) if key in members else value for key, value in FORMATS[form].items()}
    with tempfile.TemporaryDirectory() as folder:
        ready, quantised = Path(folder) / "ready.onnx", Path(folder) / f"{name}.onnx"
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantization.quantize_static(ready, quantised, Reader(sample(name).calibration), **arguments)
        yield quantised


def onnxruntime_classes(path: Path, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Classes that onnxruntime gives."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    scores = np.concatenate([session.run(None, {entry: each[None]})[0] for each in x])
    classes: NDArray[np.int64] = scores.argmax(1)
    return classes


@dataclass(frozen=True, slots=True)
class Row:
    """One network in one format.

    Parameters
    ----------
    network, form : str
    right, reference : float
        Share of right classes, on the accelerator and in onnxruntime.
    agreement : float
        Share of classes that are alike.
    places : mapping of str to int
        Operators by where they run: "array", "vector", "host".
    seconds : float
        Import, scheduling and all samples.
    """

    network: str
    form: str
    right: float
    reference: float
    agreement: float
    places: dict[str, int]
    seconds: float


def check(name: str, form: str, limit: int | None = None) -> Row:
    """Run a network on the accelerator and in onnxruntime.

    Parameters
    ----------
    name, form : str
        Of :data:`FLOAT` and :data:`FORMATS` or ``"calibrated"``, or of :data:`NARROW` and ``"qonnx"``.
    limit : int, optional
        The first so many held-out samples; all if left out.
    """
    import accel

    given = sample(name)
    x, classes = given.test[:limit], given.classes[:limit]
    with variant(name, form) as path:
        start = time.perf_counter()
        network = accel.load(path, calibration=given.calibration if form in (OURS, QONNX, PARTIAL) else None)
        result = accel.simulate(network, "edge-int8", inputs={network.inputs[0].name: x})
        seconds = time.perf_counter() - start
        reference = own_classes(name)[:limit] if form == QONNX else onnxruntime_classes(path, x)
    found = next(iter(result.outputs.values())).argmax(1)
    return Row(
        network=name,
        form=form,
        right=float(np.mean(found == classes)),
        reference=float(np.mean(reference == classes)),
        agreement=float(np.mean(found == reference)),
        places=dict(Counter(place(operator) for operator in network.operators)),
        seconds=seconds,
    )


def place(operator: Any) -> str:
    """Where an operator runs: "array" for matrix products, "host" for float, else "vector"."""
    kind = type(operator).__name__
    if kind in ("MatrixProduct", "TransposedConvolution", "DynamicProduct"):
        return "array"
    return "host" if kind == "Host" else "vector"


def pairs() -> list[tuple[str, str]]:
    """List every network in every format."""
    return [(name, form) for name in FLOAT for form in (OURS, *FORMATS)] + [(name, QONNX) for name in NARROW]


def table(rows: list[Row], failed: dict[tuple[str, str], str]) -> str:
    """Write rows as Markdown."""
    lines = [
        "# The zoo",
        "",
        "Written by `python -m reports.networks.zoo --check`. Shares of 360 held-out samples (images, or all their pixels).",
        "",
        "| network | format | right, accelerator | right, onnxruntime | agreement | array | vector | host |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = " | ".join(f"{100 * share:.2f} %" for share in (row.right, row.reference, row.agreement))
        lines.append(
            f"| {row.network} | {row.form} | {shares} | {' | '.join(str(row.places.get(p, 0)) for p in ('array', 'vector', 'host'))} |"
        )
    lines += [f"| {name} | {form} | {message} | | | | | |" for (name, form), message in failed.items()]
    return "\n".join([*lines, ""])


def main(arguments: list[str] | None = None) -> None:
    """Train and write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="run every network in every format and write the table")
    parser.add_argument("--only", default="", help="networks or formats whose names hold this text; the table is printed, not written")
    given = parser.parse_args(arguments)
    if not given.check:
        _write()
        return
    numba.set_num_threads(1)  # products are small here: threads would wait for each other
    rows, failed = [], {}
    for name, form in pairs():
        if given.only not in f"{name} {form}":
            continue
        try:
            rows.append(check(name, form))
            print(rows[-1], flush=True)
        except Exception as error:  # the table is to tell of every one
            failed[name, form] = f"{type(error).__name__}: {error}".replace("|", "/").replace("\n", " ")
            print(name, form, failed[name, form], flush=True)
    if given.only:
        print(table(rows, failed))
    else:
        TABLE.write_text(table(rows, failed))


def _write() -> None:
    """Train every network and write models and samples."""
    modules: Any = importlib.import_module("reports.networks.zoo_modules")
    samples = modules.data()
    FOLDER.mkdir(exist_ok=True)
    kept = {key: values for key, values in samples.items() if not key.startswith("train/")}
    networks: dict[str, tuple[Any, Callable[..., Any]]] = {name: (entry, modules.write) for name, entry in modules.NETWORKS.items()}
    networks |= {name: (entry, modules.write_narrow) for name, entry in modules.NARROW.items()}
    for name, (entry, write) in networks.items():
        module, right = modules.train(entry, samples)
        path = FOLDER / f"{name}.onnx"
        classes = write(module, entry, samples, path)
        if classes is not None:
            kept[f"{name}/class"] = classes
        onnx.checker.check_model(path)
        print(f"{name}: {100 * right:.2f} % of the test samples right, {path.stat().st_size} bytes", flush=True)
    np.savez_compressed(FOLDER / "samples.npz", **kept)


if __name__ == "__main__":
    main()
