"""Named accelerator configurations and the loader of configuration files, which are YAML with a published JSON schema."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from accel.config import AcceleratorConfig
from accel.errors import ConfigError

_FILE_LIMIT = 65536  # our choice: a configuration is about 1 kB; more is not one
_SCALARS = {f"tag:yaml.org,2002:{tag}" for tag in ("int", "float", "bool", "null", "str")}
_COLLECTIONS: dict[type, str] = {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}
_FIELDS = {field.name: field for field in dataclasses.fields(AcceleratorConfig)}


def names() -> tuple[str, ...]:
    """Names of the configurations shipped with the package, sorted."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _shipped().iterdir() if entry.name.endswith(".yaml")))


def load(name_or_path: str | Path) -> AcceleratorConfig:
    """Read a preset by its name or a configuration file by its path.

    Parameters
    ----------
    name_or_path : str or Path
        A member of :func:`names`, or a YAML file: one mapping that gives every field of :class:`AcceleratorConfig` once.

    Returns
    -------
    AcceleratorConfig

    Raises
    ------
    ConfigError
        If there is no such preset or file, or the file breaks a rule: ``<file>:<line>: <name> must be <rule>, not <value>``.
    """
    if name_or_path in names():
        return parse((_shipped() / f"{name_or_path}.yaml").read_text(encoding="utf-8"), f"{name_or_path}.yaml")
    if not isinstance(name_or_path, str | Path):
        raise ConfigError(f"config must be one of {', '.join(names())} or the path of a YAML file, not {name_or_path!r}")
    path = Path(name_or_path)
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, ValueError):  # ValueError: a NUL in the path
        raise ConfigError(f"config must be one of {', '.join(names())} or the path of a YAML file, not {str(path)!r}") from None
    except OSError as error:
        raise ConfigError(f"{path}: config must be a readable file, not {error.strerror}") from None
    if len(data) > _FILE_LIMIT:
        raise ConfigError(f"{path}: config must be at most {_FILE_LIMIT} bytes, not more")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: config must be UTF-8 text, not bytes that break it at offset {error.start}") from None
    return parse(text, str(path))


def parse(text: str, source: str) -> AcceleratorConfig:
    """Read a configuration from YAML text; `source` is the file name that messages carry.

    Raises
    ------
    ConfigError
        If the text breaks a rule: ``<source>:<line>: <name> must be <rule>, not <value>``.
    """
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    loader = yaml.SafeLoader("")
    for key, node in _entries(text, source):
        name, line = key.value, key.start_mark.line + 1
        if name not in _FIELDS:
            raise ConfigError(f"{source}:{line}: field must be one of {', '.join(_FIELDS)}, not {_short(name)}")
        if name in values:
            raise ConfigError(f"{source}:{line}: {name} must be given once, not again after line {lines[name]}")
        try:
            if node.tag not in _SCALARS:
                raise ValueError
            value = loader.construct_object(node)
        except (yaml.YAMLError, ValueError, ArithmeticError):  # a tag that its text does not fit
            found = _COLLECTIONS.get(type(node)) or _short(node.value)
            raise ConfigError(f"{source}:{line}: {name} must be a plain number or string, not {found}") from None
        if type(value) is float and value.is_integer() and _FIELDS[name].type == "int":  # JSON Schema: 4.0 is an integer
            value = int(value)
        values[name], lines[name] = value, line
    for name in _FIELDS:
        if name not in values:
            raise ConfigError(f"{source}:1: {name} must be given, not missing")
    try:
        return AcceleratorConfig(**values)
    except ConfigError as error:
        raise ConfigError(f"{source}:{lines[str(error).split()[0]]}: {error}") from None


def schema() -> dict[str, Any]:
    """JSON schema of a configuration file, derived from the fields of :class:`AcceleratorConfig`; shipped as ``schema.json``."""
    kinds = {"str": "string", "int": "integer", "float": "number"}
    told = _descriptions()
    fields = {name: {"description": told[name], "type": kinds[str(field.type)], **field.metadata} for name, field in _FIELDS.items()}

    def when(name: str, rule: dict[str, Any], other: str, bound: dict[str, Any]) -> dict[str, Any]:
        return {"if": {"properties": {name: rule}}, "then": {"properties": {other: bound}}}

    bundle, act, acc = (_FIELDS[name].metadata for name in ("bundle", "act_bits", "acc_bits"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "accel configuration",
        "type": "object",
        "properties": fields,
        "required": list(_FIELDS),
        "additionalProperties": False,
        "allOf": [
            *(
                when("bundle", {"const": b}, "port", {"enum": [p for p in range(1, b + 1) if b % p == 0]})
                for b in range(bundle["minimum"], bundle["maximum"] + 1)
            ),
            *(when("act_bits", {"minimum": a}, "weight_bits", {"maximum": 62 - a}) for a in range(act["maximum"] - 1, act["maximum"] + 1)),
            *(when("acc_bits", {"minimum": a}, "mult_bits", {"maximum": 63 - a}) for a in range(acc["minimum"], acc["maximum"] + 1)),
        ],
    }


def schema_text() -> str:
    """Text of ``schema.json``: one field or rule per line."""

    def block(value: Any) -> str:
        match value:
            case dict():
                return "{\n    " + ",\n    ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n  }"
            case [dict(), *_]:
                return "[\n    " + ",\n    ".join(map(json.dumps, value)) + "\n  ]"
        return json.dumps(value)

    return "{\n  " + ",\n  ".join(f"{json.dumps(k)}: {block(v)}" for k, v in schema().items()) + "\n}\n"


def _shipped() -> Any:
    return resources.files(__name__)


def _entries(text: str, source: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Key and value nodes of the file's one mapping; composing builds no values, so that aliases cannot expand."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: config must be valid YAML, not text with this fault: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{source}: config must be valid YAML, not text with this fault: {str(error).splitlines()[0]}") from None
    if not isinstance(root, yaml.MappingNode):
        kind = {type(None): "an empty file", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}[type(root)]
        raise ConfigError(f"{source}:1: config must be a mapping of field names to values, not {kind}")
    for key, _ in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{source}:{key.start_mark.line + 1}: field must be a name, not a collection")
    return list(root.value)


def _descriptions() -> dict[str, str]:
    """Extract what the docstring of :class:`AcceleratorConfig` says of each field."""
    parameters = (AcceleratorConfig.__doc__ or "").split("Raises")[0]
    entries = re.findall(r"^    (\w[\w, ]*) : .*\n((?: {8}.*\n)+)", parameters, re.MULTILINE)
    return {name: " ".join(text.split()) for head, text in entries for name in head.split(", ")}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
