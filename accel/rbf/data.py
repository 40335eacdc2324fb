"""Host: data sets from files, or shipped with scikit-learn."""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError, ToolError
from accel.rbf.model import finite

SETS = {
    "iris": "load_iris",
    "wine": "load_wine",
    "breast-cancer": "load_breast_cancer",
    "digits": "load_digits",
    "diabetes": "load_diabetes",
}
LIMIT = 1 << 28  # our choice: bytes of a file, unpacked
NEEDED = "scikit-learn is not installed: install accel with the extra `rbf`"


class Dataset(NamedTuple):
    """Samples.

    Parameters
    ----------
    name : str
    x : float64, shape (n, D)
        Features.
    y : array, shape (n,) or (n, K), optional
        Targets or labels: float64, int64 or text.
    features : tuple of str
        Names of the features.
    target : str
        Name of what is to be predicted.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[Any] | None
    features: tuple[str, ...]
    target: str


def read(source: str | Path, target: str | None = None, features: Sequence[str] | None = None) -> Dataset:
    """Read a data set.

    Parameters
    ----------
    source : str or Path
        A name in SETS, an .npz file with ``x`` and maybe ``y``, or else a CSV file with a row of names above rows of numbers, whose target
        may be text too.
    target : str, optional
        Column of a CSV file to predict, by its name or its position from 0; the last one if not given.
    features : sequence of str, optional
        Columns of a CSV file to take as features; then `target` may be missing in the file. All but the target if not given.

    Returns
    -------
    Dataset

    Raises
    ------
    RangeError
        If something cannot be read or is not numbers: ``<file>:<line>: <name> must be <rule>, not <value>``.
    ToolError
        If scikit-learn is needed and not installed.
    """
    path = Path(source)
    shipped = str(source) in SETS
    if (shipped or path.suffix == ".npz") and target is not None and features is None:
        raise RangeError(f"target must be given with a CSV file only, not with {str(source)!r}")
    if shipped:
        return _shipped(str(source))
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise RangeError(f"{path}: data must be at most {LIMIT} bytes, not more")
        return _npz(path, content) if path.suffix == ".npz" else _csv(path, content.decode("utf-8-sig"), target, features)
    except FileNotFoundError:
        raise RangeError(f"data must be one of {', '.join(SETS)}, an .npz or a CSV file, not {str(source)!r}") from None
    except UnicodeDecodeError as error:
        raise RangeError(f"{path}: data must be UTF-8 text, not bytes that break it at offset {error.start}") from None
    except OSError as error:
        raise RangeError(f"{path}: data must be a readable file, not what gives {error.strerror!r}") from None


def _shipped(name: str) -> Dataset:
    try:
        from sklearn import datasets
    except ImportError:
        raise ToolError(NEEDED) from None
    found = getattr(datasets, SETS[name])()
    return Dataset(name, found.data.astype(np.float64), found.target, tuple(map(str, found.get("feature_names"))), "target")


def _npz(path: Path, content: bytes) -> Dataset:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            sizes = sum(member.file_size for member in arrays.zip.infolist())
            found = {name: arrays[name] for name in ("x", "y") if name in arrays.files} if sizes <= LIMIT else None
    except Exception as error:  # what numpy and zipfile raise for a damaged file has no common base
        reason = str(error).partition(". ")[0] or type(error).__name__
        raise RangeError(f"{path}: data must be an .npz file of numbers, not one with this fault: {reason}") from None
    if found is None:
        raise RangeError(f"{path}: data must be at most {LIMIT} bytes, not {sizes}")
    for name, part in found.items():
        if not isinstance(part, np.ndarray) or part.dtype.kind not in "biufcU":
            raise RangeError(f"{path}: {name} must be numbers or texts, not {getattr(part, 'dtype', 'another kind of file')}")
    if "x" not in found:
        raise RangeError(f"{path}: x must be given, not missing")
    if found["x"].ndim != 2:
        raise RangeError(f"{path}: x must be of shape (samples, features), not {found['x'].shape}")
    x = finite(f"{path}: x", found["x"])
    return Dataset(path.stem, x, found.get("y"), tuple(f"x{i}" for i in range(x.shape[1])), "y")


def _csv(path: Path, text: str, target: str | None, features: Sequence[str] | None) -> Dataset:
    lines = _lines(path, csv.reader(io.StringIO(text, newline=""), strict=True))
    _, names = next(lines, (1, []))
    _check_names(path, names)
    wanted, place = _columns(path, names, target, features)
    values, told = array("d"), []
    for line, cells in lines:
        if len(cells) != len(names):
            raise RangeError(f"{path}:{line}: row must be of {len(names)} values, not {len(cells)}")
        values.extend(_number(path, line, names[i], cells[i]) for i in wanted)
        if place is not None:
            told.append(cells[place].strip())
            if not told[-1]:
                raise RangeError(f"{path}:{line}: {names[place]} must be given, not empty")
    if not values:
        raise RangeError(f"{path}: data must be 1 row or more under the names, not 0")
    y, name = (None, target or "") if place is None else (_typed(told), names[place])
    if y is not None and y.dtype.kind == "f":
        finite(f"{path}: {name}", y)
    return Dataset(path.stem, np.array(values).reshape(-1, len(wanted)), y, tuple(names[i] for i in wanted), name)


def _lines(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with their lines."""
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise RangeError(f"{path}:{reader.line_num}: data must be CSV, not text with this fault: {error}") from None


def _check_names(path: Path, names: list[str]) -> None:
    names[:] = [name.strip() for name in names]
    if not names:
        raise RangeError(f"{path}:1: data must begin with the names of the columns, not be empty")
    for name in names:
        if not name:
            raise RangeError(f"{path}:1: column name must be a text, not empty")
        if names.count(name) > 1:
            raise RangeError(f"{path}:1: column name must be given once, not again: {name!r}")
    if all(_parses(name) for name in names):
        raise RangeError(f"{path}:1: data must begin with the names of the columns, not with numbers")


def _columns(path: Path, names: list[str], target: str | None, features: Sequence[str] | None) -> tuple[list[int], int | None]:
    """Return the positions of the features and of the target, if there is one."""
    if features is not None:
        for name in features:
            if name not in names:
                raise RangeError(f"{path}:1: columns must include {name!r}, not only {_short(names)}")
        return [names.index(name) for name in features], names.index(target) if target in names else None
    if len(names) < 2:
        raise RangeError(f"{path}:1: columns must be 2 or more, separated by commas: features and a target, not {len(names)}")
    place = len(names) - 1
    if target is not None:
        if target in names:
            place = names.index(target)
        elif target.isdecimal() and int(target) < len(names):
            place = int(target)
        else:
            raise RangeError(f"{path}:1: target must be a column or its position from 0, one of {_short(names)}, not {target!r}")
    return [i for i in range(len(names)) if i != place], place


def _number(path: Path, line: int, name: str, text: str) -> float:
    if not _parses(text) or not math.isfinite(value := float(text)):
        raise RangeError(f"{path}:{line}: {name} must be a finite number, not {_short([text])}")
    return value


def _parses(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python's notation, not that of data


def _typed(texts: list[str]) -> NDArray[Any]:
    """Return integers if all texts are, otherwise reals if all are, otherwise the texts."""
    if all(_parses(text) for text in texts):
        try:
            return np.array([int(text) for text in texts], np.int64)
        except (ValueError, OverflowError):
            return np.array([float(text) for text in texts])
    return np.array(texts)


def _short(texts: Sequence[str]) -> str:
    text = ", ".join(map(repr, texts))
    return text if len(text) <= 80 else f"{text[:80]}..."
