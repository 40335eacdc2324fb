"""The file of a trained network: JSON, one row of numbers per line, read strictly.

=============  ====================================================================================
schema         1
config         every field of :class:`accel.config.RbfConfig`
integers       centres (H rows of D), widths (H), weights (K rows of H), biases (K): what the hardware is loaded with
float          the same before quantisation
features       names of the features, D
input          offset and scale by feature: a sample is (feature - offset) * scale, in floating point on the host
target         name of what is predicted
labels         classes as texts or integers, or null
scaling        of a regression offset and scale by output: an output is (target - offset) * scale; else null
training       how it was trained: anything
=============  ====================================================================================
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from accel.config import RbfConfig
from accel.errors import AccelError, RangeError
from accel.rbf.model import Parameters, RbfModel, Scaling

SCHEMA = 1
LIMIT = 1 << 27  # our choice: 1024 neurons of 1024 elements take about 30 MB
PARTS = ("schema", "config", "integers", "float", "features", "input", "target", "labels", "scaling", "training")
RANKS = (2, 1, 2, 1)  # of the fields of Parameters


def to_json(model: RbfModel) -> str:
    """Write a model as text; equal models give equal text."""
    scaling = model.targets and _lists(model.targets._asdict())
    parts = {
        "schema": SCHEMA,
        "config": dataclasses.asdict(model.config),
        "integers": _lists(model.integers._asdict()),
        "float": _lists(model.reals._asdict()),
        "features": list(model.features),
        "input": _lists(model.inputs._asdict()),
        "target": model.target,
        "labels": model.labels and list(model.labels),
        "scaling": scaling,
        "training": dict(model.training),
    }
    return f"{_text(parts, 0)}\n"


def from_json(text: str) -> RbfModel:
    """Read a model from text.

    Raises
    ------
    AccelError
        If the text breaks a rule.
    """
    parts = _members("model", _parse(text), PARTS)
    if parts["schema"] != SCHEMA or type(parts["schema"]) is not int:
        _fail("schema", str(SCHEMA), parts["schema"])
    names = tuple(field.name for field in dataclasses.fields(RbfConfig))
    config = RbfConfig(**_members("config", parts["config"], names))
    features = tuple(_items("features", parts["features"], str))
    labels, scaling = parts["labels"], parts["scaling"]
    if labels is not None:
        labels = tuple(_items("labels", labels, str if isinstance(labels, list) and labels and isinstance(labels[0], str) else int))
    if not isinstance(parts["target"], str):
        _fail("target", "a text", parts["target"])
    if not isinstance(parts["training"], dict):
        _fail("training", "an object", parts["training"])
    return RbfModel(
        config=config,
        integers=_parameters("integers", parts["integers"], np.int64),
        reals=_parameters("float", parts["float"], np.float64),
        inputs=_scaling("input", parts["input"]),
        features=features,
        target=parts["target"],
        labels=labels,
        targets=None if scaling is None else _scaling("scaling", scaling),
        training=parts["training"],
    )


def load(path: str | Path) -> RbfModel:
    """Read a model from a file; nothing in it is executed.

    Raises
    ------
    RangeError
        If it cannot be read or breaks a rule: ``<file>: <name> must be <rule>, not <value>``.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise RangeError(f"model must be at most {LIMIT} bytes, not more")
        return from_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RangeError(f"{path}: model must be UTF-8 text, not bytes that break it at offset {error.start}") from None
    except AccelError as error:
        raise RangeError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise RangeError(f"{path}: model must be a readable file, not what gives {getattr(error, 'strerror', error)!r}") from None


def _parse(text: str) -> object:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise RangeError(f"members must be given once, not {', '.join(name for name, _ in pairs)}"[:200])
        return found

    def number(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise RangeError(f"number must be finite, not {digits}")
        return float(digits)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_float=number, parse_constant=number)
    except RangeError:
        raise
    except json.JSONDecodeError as error:
        raise RangeError(f"model must be JSON, not text with this fault in line {error.lineno}: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; an integer of thousands of digits
        raise RangeError(f"model must be JSON, not text with this fault: {error}") from None


def _members(name: str, found: object, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Refuse what is no object of exactly these members."""
    if not isinstance(found, dict):
        _fail(name, "an object", found)
    for key in wanted:
        if key not in found:
            _fail(f"{name}.{key}", "given", "missing", plain=True)
    for key in found:
        if key not in wanted:
            _fail(f"{name} member", f"one of {', '.join(wanted)}", key)
    return found


def _items(name: str, found: object, kind: type) -> list[Any]:
    """Refuse what is no list of elements of one type."""
    if not isinstance(found, list) or not found or any(type(item) is not kind for item in found):
        _fail(name, f"a list of {'texts' if kind is str else 'integers'}", found)
    return found


def _parameters(name: str, found: object, dtype: type) -> Parameters:
    members = _members(name, found, Parameters._fields)
    return Parameters(*(_array(f"{name}.{key}", members[key], rank, dtype) for key, rank in zip(Parameters._fields, RANKS, strict=True)))


def _scaling(name: str, found: object) -> Scaling:
    members = _members(name, found, Scaling._fields)
    return Scaling(*(_array(f"{name}.{key}", members[key], 1, np.float64) for key in Scaling._fields))


def _array(name: str, found: object, rank: int, dtype: type) -> NDArray[Any]:
    """Read rows of numbers of one length."""
    rows = found if rank == 2 else [found]
    kinds = {int} if dtype is np.int64 else {int, float}
    rule = f"{'a list of equally long lists' if rank == 2 else 'a list'} of {'64-bit integers' if dtype is np.int64 else 'numbers'}"
    if not isinstance(rows, list) or not rows or any(not isinstance(row, list) or len(row) != len(rows[0]) or not row for row in rows):
        _fail(name, rule, found)
    if any(type(value) not in kinds for row in rows for value in row):
        _fail(name, rule, found)
    try:
        array: NDArray[Any] = np.array(rows, dtype)
    except OverflowError:
        _fail(name, rule, found)
    return array if rank == 2 else array[0]


def _lists(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in arrays.items()}


def _text(value: Any, depth: int) -> str:
    """Write JSON with one member per line, and one row of a list of lists per line."""
    inner = "\n" + " " * (depth + 1)
    if isinstance(value, dict) and value:
        parts = [f"{json.dumps(str(key))}: {_text(part, depth + 1)}" for key, part in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}{inner[:-1]}}}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return f"[{inner}{f',{inner}'.join(json.dumps(row) for row in value)}{inner[:-1]}]"
    return json.dumps(value, allow_nan=False)


def _fail(name: str, rule: str, found: object, plain: bool = False) -> NoReturn:
    text = str(found) if plain else repr(found)
    raise RangeError(f"{name} must be {rule}, not {text if len(text) <= 60 else f'{text[:60]}...'}")
