"""Host: samples to train and to test with: the digits that ship with scikit-learn, an .npz file, or arrays.

Samples that are integers are divided by the largest magnitude among the training samples; floats are taken as they are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.errors import RangeError, ToolError
from accel.files import is_device
from accel.graph.network import batched, channels_last, inverse
from accel.graph.trainable import Trainable

DIGITS = "digits"
DIGITS_SEED, DIGITS_SHARE = 20, 0.2  # held out of the digits: the test images of reports/networks/digits_cnn.py, the same for every run
WHITE = 16.0  # the largest pixel of the digits
HELD_OUT = 5  # our choice: one sample in so many, where no test samples are given
LIMIT = 1 << 32  # our choice: bytes of a file, unpacked
NEEDED = "scikit-learn is not installed: install accel with the extra `rbf`"
PARTS = ("x", "y", "x_test", "y_test")
ORDER, SPLIT = 1, 2  # what a generator is seeded for, beside the seed of the run; 0 is drawing weights


class Data(NamedTuple):
    """Samples as a network stores them, channels last, and their classes.

    Parameters
    ----------
    name : str
    x : float32, shape (n, ...)
    y : int64, shape (n,)
    x_test : float32, shape (t, ...)
    y_test : int64, shape (t,)
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]

    @property
    def digest(self) -> str:
        """SHA-256 of all samples and labels."""
        told = hashlib.sha256()
        for values in self[1:]:
            told.update(f"{values.dtype.str} {values.shape} ".encode())
            told.update(np.ascontiguousarray(values).data)
        return told.hexdigest()


def order(samples: int, *seed: int) -> NDArray[np.int64]:
    """Permute 0 to samples - 1: the order of the words that PCG64 makes, seeded with ``SeedSequence(seed)``.

    It depends on nothing else, so that a run that goes on repeats the order of its epoch; numpy keeps the words of a bit generator, but not
    what its own permutation makes of them, the same in all versions.
    """
    words = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(samples)
    return np.argsort(words, kind="stable").astype(np.int64)


def read(source: Any, network: Trainable, seed: int = 0) -> Data:
    """Read samples and bring them to the shape of a network's input.

    Parameters
    ----------
    source : str, path, mapping of str to array_like, or Data
        ``"digits"``; an .npz file, or arrays, called ``x`` (n, ...) and ``y`` (n,), maybe ``x_test`` and ``y_test``. Samples have the shape
        of the network's input as ONNX has it, or, where that differs, as it is stored (channels last); an image of one channel may lack
        that axis.
    network : Trainable
    seed : int
        Of the choice of a fifth that is held out where there are no test samples.

    Returns
    -------
    Data

    Raises
    ------
    RangeError
        If something cannot be read or breaks a rule: ``<file>: <array> must be <rule>, not <value>``. Pickled objects are refused.
    ToolError
        If scikit-learn is needed and not installed.
    """
    if isinstance(source, Data):
        name, arrays = source.name, source._asdict()
    elif isinstance(source, Mapping):
        name, arrays = "data", dict(source)
    elif not isinstance(source, str | os.PathLike):
        raise RangeError(f"data must be {DIGITS}, an .npz file or arrays by name, not {_short(source)}")
    elif source == DIGITS:
        name, arrays = DIGITS, digits()
    else:
        path = Path(source)
        name, arrays = str(path), _load(path)
    found = {part: _numbers(f"{name}: {part}", arrays[part], labels=part[0] == "y") for part in PARTS if part in arrays}
    for part, other in (("x", None), ("y", None), ("x_test", "y_test"), ("y_test", "x_test")):
        if part not in found and (other is None or other in found):
            raise RangeError(f"{name}: {part} must be given{f' with {other}' if other else ''}, not missing")
    for part in ("x", "x_test"):
        if part in found:
            found[part] = _stored(f"{name}: {part}", found[part], network, isinstance(source, Data))
            _check_labels(f"{name}: {part.replace('x', 'y')}", found[part.replace("x", "y")], len(found[part]), network)
    x, y = found["x"], found["y"]
    kinds = {part: "floats" if found[part].dtype.kind == "f" else "integers" for part in ("x", "x_test") if part in found}
    if len(set(kinds.values())) > 1:  # both are divided by one number
        raise RangeError(f"{name}: x_test must be of the kind of x ({kinds['x']}), not {kinds['x_test']}")
    if "x_test" not in found:
        if len(x) < HELD_OUT:
            raise RangeError(f"{name}: x must be of {HELD_OUT} samples or more, as a fifth is held out, not {len(x)}")
        rows = order(len(x), seed, SPLIT)
        held, kept = np.sort(rows[: len(x) // HELD_OUT]), np.sort(rows[len(x) // HELD_OUT :])
        found |= {"x": x[kept], "y": y[kept], "x_test": x[held], "y_test": y[held]}
    divisor = _divisor(found["x"])
    with np.errstate(over="ignore"):  # told below
        scaled = {part: (found[part] if divisor == 1 else found[part] / divisor).astype(np.float32) for part in ("x", "x_test")}
    for part, values in scaled.items():
        if not np.isfinite(values).all():
            raise RangeError(f"{name}: {part} must be of numbers that float32 holds, not beyond {np.finfo(np.float32).max:g}")
    return Data(
        name if name == DIGITS or isinstance(source, Data) else Path(name).stem,
        np.ascontiguousarray(scaled["x"]),
        found["y"].astype(np.int64),
        np.ascontiguousarray(scaled["x_test"]),
        found["y_test"].astype(np.int64),
    )


def digits() -> dict[str, NDArray[Any]]:
    """Return scikit-learn's digits in [0, 1], the same fifth of every digit held out for every run.

    Raises
    ------
    ToolError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ToolError(NEEDED) from None
    found = load_digits()
    images, labels = (found.images / WHITE).astype(np.float32), found.target.astype(np.int64)
    rng = np.random.default_rng(DIGITS_SEED)
    train: list[int] = []
    held: list[int] = []
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        count = round(DIGITS_SHARE * len(rows))
        held.extend(rows[:count].tolist())
        train.extend(rows[count:].tolist())
    train.sort()
    return {"x": images[train], "y": labels[train], "x_test": images[held], "y_test": labels[held]}


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        if is_device(path):  # it may have no end, or nobody who writes to it
            raise OSError("a device or a pipe")
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise ValueError("a single array, without names")
            size = sum(member.file_size for member in found.zip.infolist())
            if size > LIMIT:
                raise ValueError(f"{size} bytes, more than {LIMIT}")
            return {name: found[name] for name in PARTS if name in found.files}
    except OSError as error:
        raise RangeError(f"data must be {DIGITS} or a readable .npz file, not {str(path)!r} ({error.strerror or error})") from None
    except Exception as error:  # what numpy and zipfile raise for a damaged file has no common base
        reason = str(error).partition(". ")[0] or type(error).__name__  # numpy goes on to recommend unpickling
        raise RangeError(f"data must be an .npz file of numbers, not {str(path)!r} ({reason})") from None


def _numbers(name: str, given: ArrayLike, *, labels: bool) -> NDArray[Any]:
    try:
        values = np.asarray(given)
    except ValueError:
        raise RangeError(f"{name} must be an array of numbers, not nested lists of several lengths") from None
    if values.dtype.kind not in ("iu" if labels else "biuf"):
        raise RangeError(f"{name} must be {'integers' if labels else 'integers or floats'}, not {values.dtype}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RangeError(f"{name} must be finite, not infinite or NaN")
    if values.ndim < 1 or not len(values):
        raise RangeError(f"{name} must be of one sample or more, not of shape {values.shape}")
    return values


def _stored(name: str, values: NDArray[Any], network: Trainable, already: bool) -> NDArray[Any]:
    """Bring samples from ONNX's order of axes to the stored one, unless they are in it already."""
    stored = network.shapes[network.input]
    axes = network.axes or channels_last(len(stored))
    given = tuple(stored[axis] for axis in inverse(axes))
    if values.shape[1:] == given and not already:
        return batched(values, axes)
    if values.shape[1:] == stored or (len(stored) == 3 and stored[2] == 1 and values.shape[1:] == stored[:2]):
        return values.reshape(-1, *stored)
    raise RangeError(f"{name} must be of shape (samples, {', '.join(map(str, given))}) for {network.name}, not {values.shape}")


def _check_labels(name: str, labels: NDArray[Any], samples: int, network: Trainable) -> None:
    if labels.shape != (samples,):
        raise RangeError(f"{name} must be of shape ({samples},), one label per sample, not {labels.shape}")
    classes = prod(network.shapes[network.output])
    if not 0 <= labels.min() <= labels.max() < classes:
        raise RangeError(f"{name} must be of 0 to {classes - 1}, the classes of {network.name}, not {labels.min()}..{labels.max()}")


def _divisor(x: NDArray[Any]) -> float:
    """Largest magnitude of integers; 1 for floats and for zeros alone."""
    if x.dtype.kind == "f":
        return 1.0
    return float(max(abs(int(x.max())), abs(int(x.min())))) or 1.0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
