"""Checkpoints of a run: data alone, whole or absent, one after every epoch and one before the first.

``epoch-0007.npz`` holds the arrays of the state, ``epoch-0007.json``, which is written after it, everything else:

==============  =========================================================================================
schema_version  1
sha256          of the .npz file
settings        what the run was begun with, by name; a run that goes on must have the same
epoch           epochs done
curves          one object for each of them, see :class:`accel.training.course.Epoch`
step            steps done
arrays          by array of the .npz file: type, shape, and where it belongs
formats         by name, the fields of :class:`accel.training.state.Tracked`
digest          SHA-256 of the text of all the above
==============  =========================================================================================

The last two are kept. Nothing in a file is unpickled or executed.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.files import write
from accel.training.course import Epoch
from accel.training.state import Parameter, State, Tracked

SCHEMA_VERSION = 1
KEPT = 2  # our choice: checkpoints in a folder; if the last is damaged, the one before it is used
NAME = re.compile(r"epoch-(\d{4,7})\.json")
LOCK = ".lock"  # in the folder of a run, while it runs
LIMIT = 1 << 28  # our choice: bytes of a .json file
STORED = (np.int8, np.int16, np.int32, np.int64)  # integers are stored in the first of these that holds them
TYPES = {np.dtype(kind).str: np.dtype(kind) for kind in (np.bool_, *STORED)}
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A run between two epochs.

    Parameters
    ----------
    settings : dict of str to JSON
        By name, in the order in which they are compared.
    curves : tuple of Epoch
        Of the epochs done.
    state : State
    """

    settings: dict[str, Any]
    curves: tuple[Epoch, ...]
    state: State


class _DamageError(Exception):
    """A file that is not what was written."""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to the disk, then remove all but the last KEPT.

    Raises
    ------
    RangeError
        If it cannot be written.
    """
    stem = f"epoch-{len(checkpoint.curves):04d}"
    arrays, places = _arrays(checkpoint.state)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    data = content.getvalue()
    text = _text(
        {
            "schema_version": SCHEMA_VERSION,
            "sha256": hashlib.sha256(data).hexdigest(),
            "settings": checkpoint.settings,
            "epoch": len(checkpoint.curves),
            "curves": [dataclasses.asdict(epoch) for epoch in checkpoint.curves],
            "step": checkpoint.state.step,
            "arrays": {name: [arrays[name].dtype.str, list(arrays[name].shape), *place] for name, place in places.items()},
            "formats": {name: dataclasses.asdict(tracked) for name, tracked in checkpoint.state.formats.items()},
        }
    )
    (folder / f"{stem}.json").unlink(missing_ok=True)  # a run that goes on after damage: the pair must be of one writing
    write(folder / f"{stem}.npz", data, durable=True)
    write(folder / f"{stem}.json", text, durable=True)
    for epoch in _epochs(folder)[KEPT:]:
        _file(folder, epoch, "json").unlink(missing_ok=True)
        _file(folder, epoch, "npz").unlink(missing_ok=True)


def clean(folder: Path) -> None:
    """Remove what a killed run has left half written."""
    told = {f"epoch-{epoch:04d}" for epoch in _epochs(folder)}
    for path in folder.glob(".epoch-*"):
        path.unlink(missing_ok=True)
    for path in folder.glob("epoch-*.npz"):
        if path.stem not in told:
            path.unlink(missing_ok=True)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder meanwhile; the system lets go of it with the process, however that ends.

    Raises
    ------
    RangeError
        If another run has it, or it cannot be written.
    """
    path = folder / LOCK
    while True:
        try:
            file = path.open("ab")
        except OSError as error:
            raise RangeError(f"output must be a folder that can be written, not {str(folder)!r} ({error.strerror})") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RangeError(f"output must be a folder that no other run writes to, not {str(folder)!r}") from None
            try:
                if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    continue
            except FileNotFoundError:  # removed by a run that ended just before
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def holds(folder: Path) -> bool:
    """Whether a folder has a checkpoint, whole or not."""
    return folder.is_dir() and bool(_epochs(folder))


def settings(folder: Path) -> dict[str, Any]:
    """Return what a run was begun with; same errors as :func:`load`."""
    return _newest(folder)[0].settings


def load(folder: Path, settings: dict[str, Any]) -> tuple[Checkpoint, tuple[str, ...]]:
    """Read the last whole checkpoint of a folder.

    Parameters
    ----------
    folder : Path
    settings : dict of str to JSON
        Of the run that goes on.

    Returns
    -------
    Checkpoint
    tuple of str
        What was wrong with later ones.

    Raises
    ------
    RangeError
        If none is whole, it is of another version, or the run was begun with other settings.
    """
    found, told = _newest(folder)
    names = list(dict.fromkeys([*settings, *found.settings]))
    followed = [name for name in names if isinstance(found.settings.get(name), dict) and "digest" in found.settings[name]]
    for name in [name for name in names if name not in followed] + followed:  # what is drawn and held out follows from the other settings
        asked, begun = settings.get(name), found.settings.get(name)
        if asked != begun:
            if isinstance(begun, dict) and isinstance(asked, dict) and "digest" in begun:
                what = f"the same as {begun.get('name')!r} that it was begun with, not another, {asked.get('name')!r}"
                raise RangeError(f"{name} of a run that goes on from {str(folder)!r} must be {what}")
            if isinstance(begun, dict) and isinstance(asked, dict):
                name, asked, begun = next(
                    (f"{name} {key}", asked.get(key), begun.get(key)) for key in {**asked, **begun} if asked.get(key) != begun.get(key)
                )
            raise RangeError(f"{name} of a run that goes on from {str(folder)!r} must be {begun!r}, not {asked!r}")
    return found, told


def _newest(folder: Path) -> tuple[Checkpoint, tuple[str, ...]]:
    told: list[str] = []
    epochs = _epochs(folder) if folder.is_dir() else []
    if not epochs:
        raise RangeError(f"resume must be a folder with a checkpoint, not {str(folder)!r}")
    for epoch in epochs:
        try:
            return _read(folder, epoch), tuple(told)
        except _DamageError as error:
            told.append(f"{_file(folder, epoch, 'json').stem} is damaged: {error}")
    raise RangeError(f"resume must be a folder with a whole checkpoint, not {str(folder)!r} ({'; '.join(told)})")


def _epochs(folder: Path) -> list[int]:
    """Epochs with a .json file, the last first."""
    found = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _file(folder: Path, epoch: int, suffix: str) -> Path:
    return folder / f"epoch-{epoch:04d}.{suffix}"


def _text(parts: dict[str, Any]) -> str:
    """Write JSON, one part per line, the digest of the lines last."""
    lines = [f" {json.dumps(name)}: {json.dumps(part, allow_nan=False)},\n" for name, part in parts.items()]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return "".join(["{\n", *lines, f' "digest": "{digest}"\n}}\n'])


def _arrays(state: State) -> tuple[Arrays, dict[str, list[str]]]:
    """Return the arrays of a state by number, as names of a network are no names of files, and where each belongs."""
    arrays: Arrays = {}
    places: dict[str, list[str]] = {}
    found = [
        ([name, field.name], getattr(parameter, field.name))
        for name, parameter in state.parameters.items()
        for field in dataclasses.fields(parameter)
    ]
    found += [([name], values) for name, values in state.statistics.items()]
    for place, values in found:
        if values is not None:
            key = f"a{len(arrays)}"
            arrays[key], places[key] = _narrow(values), place
    return arrays, places


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype == np.bool_:
        return values
    lo, hi = (int(values.min()), int(values.max())) if values.size else (0, 0)
    return values.astype(next(kind for kind in STORED if np.iinfo(kind).min <= lo and hi <= np.iinfo(kind).max))


def _read(folder: Path, epoch: int) -> Checkpoint:
    path = _file(folder, epoch, "json")
    try:
        with path.open("rb") as file:
            text = file.read(LIMIT + 1).decode()
        parts = json.loads(text)
    except OSError as error:
        raise _DamageError(error.strerror or str(error)) from None
    except (ValueError, RecursionError):
        raise _DamageError("its .json file is cut off, or no JSON") from None
    if not isinstance(parts, dict) or "schema_version" not in parts:
        raise _DamageError("its .json file is not one of a checkpoint")
    if parts["schema_version"] != SCHEMA_VERSION:
        raise RangeError(f"{path}: schema_version must be {SCHEMA_VERSION}, not {parts['schema_version']!r}")
    digest = parts.pop("digest", None)
    if text != _text(parts) or digest != json.loads(_text(parts))["digest"]:
        raise _DamageError("its .json file has been changed")
    try:
        data = _file(folder, epoch, "npz").read_bytes()
    except OSError as error:
        raise _DamageError(f"its .npz file gives {error.strerror!r}") from None
    if hashlib.sha256(data).hexdigest() != parts["sha256"]:
        raise _DamageError("its .npz file is cut off or has been changed")
    try:
        return _checkpoint(parts, data)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
    ) as error:  # digests agree, but nobody of us wrote it
        reason = str(error).partition(". ")[0] or type(error).__name__  # numpy goes on to recommend unpickling
        raise _DamageError(f"it does not hold a state ({reason})") from None


def _checkpoint(parts: dict[str, Any], data: bytes) -> Checkpoint:
    state = State(step=parts["step"])
    gathered: dict[str, dict[str, NDArray[Any]]] = {}
    fields = {field.name for field in dataclasses.fields(Parameter)}
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if set(arrays.files) != set(parts["arrays"]):
            raise ValueError("its arrays are not those that are listed")
        for key, (kind, shape, *place) in parts["arrays"].items():
            values = arrays[key]
            if values.dtype != TYPES[kind] or list(values.shape) != shape:
                raise ValueError(f"{key} is not {kind} of shape {shape}")
            values = values if values.dtype == np.bool_ else values.astype(np.int64)
            if len(place) == 1:
                state.statistics[place[0]] = values
            elif place[1] in fields:
                gathered.setdefault(place[0], {})[place[1]] = values
    state.parameters = {name: Parameter(**values) for name, values in gathered.items()}
    state.formats = {name: Tracked(**values) for name, values in parts["formats"].items()}
    for tracked in state.formats.values():
        if any(type(value) is not int for value in dataclasses.asdict(tracked).values()):
            raise ValueError("a format is not of integers")
    curves = tuple(Epoch(**epoch) for epoch in parts["curves"])
    if len(curves) != parts["epoch"]:
        raise ValueError("curves are not of the epochs done")
    return Checkpoint(settings=dict(parts["settings"]), curves=curves, state=state)
