"""Recorded weight updates as a program for the bench of `wuve`: a file of tensors, each a case.

An uncompressed ``.npz`` without pickled objects:

| array | type, shape | holds |
|---|---|---|
| ``tensors`` | uint8, JSON text | for each tensor ``label``, what a report calls it, and ``jobs``, their fields |
| ``<i>.gradient`` | int64, (beats, cols) | of tensor i, from 0 on, all its jobs one after the other; lanes without elements are 0 |
| ``<i>.velocity``, ``<i>.master`` | int64, (beats, cols) | before the update |
| ``<i>.kept`` | bool, (beats, cols) | whether FF keeps the weight |
| ``<i>.state`` | int64, (cols,) | what the lanes draw first; of length 0 if no job is stochastic |
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.isa import Update


class Recorded(NamedTuple):
    """The update of a tensor.

    Parameters
    ----------
    label : str
        What a report calls it.
    jobs : list of isa.Update
        Of stochastic ones the last alone is `last`.
    gradient, velocity, master : int64, shape (beats, cols)
        Operands of all jobs, one after the other.
    kept : bool, shape (beats, cols)
    state : int64, shape (cols,), or None
        What the lanes draw first; None if no job is stochastic.
    """

    label: str
    jobs: list[Update]
    gradient: NDArray[np.int64]
    velocity: NDArray[np.int64]
    master: NDArray[np.int64]
    kept: NDArray[np.bool_]
    state: NDArray[np.int64] | None


def write_updates(file: Path, tensors: Iterable[Recorded]) -> int:
    """Write tensors as a program; return how many they are.

    Parameters
    ----------
    file : Path
    tensors : iterable of Recorded
    """
    arrays: dict[str, NDArray[Any]] = {}
    told = []
    for i, tensor in enumerate(tensors):
        told.append({"label": tensor.label, "jobs": [dataclasses.asdict(job) for job in tensor.jobs]})
        arrays |= {f"{i}.{name}": getattr(tensor, name) for name in ("gradient", "velocity", "master", "kept")}
        arrays[f"{i}.state"] = np.zeros(0, np.int64) if tensor.state is None else tensor.state
    arrays["tensors"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    np.savez(file, allow_pickle=False, **arrays)
    return len(told)


def read_update(file: Path, index: int) -> Recorded:
    """Read tensor `index` of a program.

    Parameters
    ----------
    file : Path
        Of :func:`write_updates`.
    index : int
    """
    with np.load(file, allow_pickle=False) as arrays:
        told = json.loads(arrays["tensors"].tobytes())[index]
        given = {name: arrays[f"{index}.{name}"] for name in ("gradient", "velocity", "master", "kept", "state")}
    state = given.pop("state")
    return Recorded(told["label"], [Update(**job) for job in told["jobs"]], **given, state=state if state.size else None)
