"""Named configurations of each kind and the loader of configuration files, which are YAML with a published JSON schema."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml

from accel.config import AcceleratorConfig, Config, FunctionConfig, RbfConfig
from accel.errors import ConfigError
from accel.files import is_device

Kind = TypeVar("Kind", bound=Config)

FOLDERS: dict[type[Config], str] = {AcceleratorConfig: ".", FunctionConfig: "functions", RbfConfig: "rbf"}
"""Where the presets and the schema of each kind are, below this package."""

_FILE_LIMIT = 65536  # our choice: a configuration is about 1 kB; more is not one
_SCALARS = {f"tag:yaml.org,2002:{tag}" for tag in ("int", "float", "bool", "null", "str")}
_COLLECTIONS: dict[type, str] = {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 whose numbers need neither a point nor a sign in their exponent, as in JSON: 1e3."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def names(kind: type[Config] = AcceleratorConfig) -> tuple[str, ...]:
    """Names of the configurations of a kind that are shipped with the package, sorted."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _shipped(kind).iterdir() if entry.name.endswith(".yaml")))


@overload
def load(name_or_path: str | Path) -> AcceleratorConfig: ...
@overload
def load(name_or_path: str | Path, kind: type[Kind]) -> Kind: ...
def load(name_or_path: str | Path, kind: type[Config] = AcceleratorConfig) -> Config:
    """Read a preset by its name or a configuration file by its path.

    Parameters
    ----------
    name_or_path : str or Path
        A member of :func:`names`, or a YAML file: one mapping that gives every field of the kind once.
    kind : type of Config
        What is described.

    Returns
    -------
    Config
        Of that kind.

    Raises
    ------
    ConfigError
        If there is no such preset or file, or the file breaks a rule: ``<file>:<line>: <name> must be <rule>, not <value>``.
    """
    known = names(kind)
    if name_or_path in known:
        return parse((_shipped(kind) / f"{name_or_path}.yaml").read_text(encoding="utf-8"), f"{name_or_path}.yaml", kind)
    if not isinstance(name_or_path, str | Path):
        raise ConfigError(f"config must be one of {', '.join(known)} or the path of a YAML file, not {name_or_path!r}")
    path = Path(name_or_path)
    try:
        if is_device(path):
            raise ValueError
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, ValueError):  # ValueError: a NUL in the path, or a pipe, which may have no end
        raise ConfigError(f"config must be one of {', '.join(known)} or the path of a YAML file, not {str(path)!r}") from None
    except OSError as error:
        raise ConfigError(f"{path}: config must be a readable file, not {error.strerror}") from None
    if len(data) > _FILE_LIMIT:
        raise ConfigError(f"{path}: config must be at most {_FILE_LIMIT} bytes, not more")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: config must be UTF-8 text, not bytes that break it at offset {error.start}") from None
    return parse(text, str(path), kind)


def parse(text: str, source: str, kind: type[Kind]) -> Kind:
    """Read a configuration from YAML text; `source` is the file name that messages carry.

    Raises
    ------
    ConfigError
        If the text breaks a rule: ``<source>:<line>: <name> must be <rule>, not <value>``.
    """
    fields = _fields(kind)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, node in _entries(text, source):
        name, line = key.value, key.start_mark.line + 1
        if name not in fields:
            raise ConfigError(f"{source}:{line}: field must be one of {', '.join(fields)}, not {_short(name)}")
        if name in values:
            raise ConfigError(f"{source}:{line}: {name} must be given once, not again after line {lines[name]}")
        try:
            values[name], lines[name] = _value(node, fields[name]), line
        except ConfigError as error:
            raise ConfigError(f"{source}:{line}: {error}") from None
    for name in fields:
        if name not in values:
            raise ConfigError(f"{source}:1: {name} must be given, not missing")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{source}:{lines[str(error).split()[0]]}: {error}") from None


def override(config: Kind, changes: Sequence[str]) -> Kind:
    """Change fields of a configuration; its name says so, unless it is changed as well.

    Parameters
    ----------
    config : Config
    changes : sequence of str
        ``FIELD=VALUE`` each, the value as in a file; of one field the last counts.

    Returns
    -------
    Config
        Of the same kind.

    Raises
    ------
    ConfigError
        If a change is none, or breaks a rule of the configuration.
    """
    fields = _fields(type(config))
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"set must be FIELD=VALUE, not {_short(change)}")
        if name not in fields:
            raise ConfigError(f"field must be one of {', '.join(fields)}, not {_short(name)}")
        try:
            node = yaml.compose(text, _Loader)
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"set must be FIELD=VALUE, not {_short(change)}") from None
        values[name] = _value(node, fields[name]) if node else ""
    told = " ".join([config.name, *(f"{name}={value}" for name, value in values.items())])
    return dataclasses.replace(config, **({"name": told} | values))


def schema(kind: type[Config] = AcceleratorConfig) -> dict[str, Any]:
    """JSON schema of a configuration file, derived from the fields of its kind; shipped as ``schema.json``."""
    kinds = {"str": "string", "int": "integer", "float": "number"}
    told, fields = _descriptions(kind), _fields(kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "accel configuration",
        "type": "object",
        "properties": {
            name: {"description": told[name], "type": kinds[str(field.type)], **field.metadata} for name, field in fields.items()
        },
        "required": list(fields),
        "additionalProperties": False,
        **_JOINT.get(kind, {}),
    }


def schema_text(kind: type[Config] = AcceleratorConfig) -> str:
    """Text of ``schema.json``: one field or rule per line."""

    def block(value: Any) -> str:
        match value:
            case dict():
                return "{\n    " + ",\n    ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n  }"
            case [dict(), *_]:
                return "[\n    " + ",\n    ".join(map(json.dumps, value)) + "\n  ]"
        return json.dumps(value)

    return "{\n  " + ",\n  ".join(f"{json.dumps(k)}: {block(v)}" for k, v in schema(kind).items()) + "\n}\n"


def _when(name: str, rule: dict[str, Any], other: str, bound: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {name: rule}}, "then": {"properties": {other: bound}}}


# Rules that join fields, as far as JSON Schema can say them without a line for each value of both.
_JOINT: dict[type[Config], dict[str, Any]] = {
    AcceleratorConfig: {
        "allOf": [
            *(_when("bundle", {"const": b}, "port", {"enum": [p for p in range(1, b + 1) if b % p == 0]}) for b in range(2, 33)),
            *(_when("act_bits", {"minimum": a}, "weight_bits", {"maximum": 62 - a}) for a in (31, 32)),
            *(_when("acc_bits", {"minimum": a}, "mult_bits", {"maximum": 63 - a}) for a in range(2, 63)),
        ]
    },
    RbfConfig: {
        "$comment": "The loader also demands units <= neurons, distance_frac <= 2 * x_frac, t_frac <= distance_frac + width_frac and "
        "sum_frac <= phi_bits + weight_frac."
    },
}


def _fields(kind: type[Config]) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(kind)}


def _shipped(kind: type[Config]) -> Any:
    return resources.files(__name__) / FOLDERS[kind]


def _value(node: yaml.Node, field: dataclasses.Field[Any]) -> Any:
    """Value of a field; a whole number may be written as a fraction."""
    try:
        if node.tag not in _SCALARS:
            raise ValueError
        value = _Loader("").construct_object(node)
    except (yaml.YAMLError, ValueError, ArithmeticError):  # a tag that its text does not fit
        found = _COLLECTIONS.get(type(node)) or _short(node.value)
        raise ConfigError(f"{field.name} must be a plain number or string, not {found}") from None
    return int(value) if type(value) is float and value.is_integer() and field.type == "int" else value  # JSON Schema: 4.0 is an integer


def _entries(text: str, source: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Key and value nodes of the file's one mapping; composing builds no values, so that aliases cannot expand."""
    try:
        root = yaml.compose(text, _Loader)
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


def _descriptions(kind: type[Config]) -> dict[str, str]:
    """Extract what the docstring of a kind says of each field."""
    parameters = (kind.__doc__ or "").split("Raises")[0]
    entries = re.findall(r"^    (\w[\w, ]*) : .*\n((?: {8}.*\n)+)", parameters, re.MULTILINE)
    return {name: " ".join(text.split()) for head, text in entries for name in head.split(", ")}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
