"""SCALE-Sim's files: topologies (a layer per line, as a convolution or as a matrix product) and architectures (`.cfg`). Shapes only.

A topology's first line names its columns; blank lines, lines that begin with ``#`` and trailing commas mean nothing. A layer is

- ``name, height, width, filter height, filter width, channels, filters, stride[, N:M],``, where zero padding is part of height and
  width, or
- ``name, m, n, k[, N:M],``

and all layers of a file have one of these forms. As in SCALE-Sim, a convolution with ``DP`` in its name is depthwise: it stands for one
layer of a single channel per channel. Unlike SCALE-Sim, which drops the last column of a line without a trailing comma, and the first
layer of a file without names of columns, nothing is dropped in silence.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accel.networks
from accel.config import Config
from accel.errors import AccelError, ConfigError, NetworkError, RangeError
from accel.sparsity import Pattern

DENSE = Pattern(1, 1)
SUFFIX = ".csv"
FILE_LIMIT = 1 << 20  # [bytes] our choice: some 25,000 layers
LINE_LIMIT = 1000  # [characters] our choice
LAYERS = 1 << 16  # our choice: a depthwise layer counts once per channel
_COUNT = {"minimum": 1, "maximum": (1 << 31) - 1}
_SIDE = {"minimum": 1, "maximum": 1 << 16}
_FORMS = {4: "m, n, k", 8: "height, width, filter height, filter width, channels, filters, stride"}  # by columns, name included


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the shapes share: every field is an int within the bounds beside it."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), field.metadata
            if type(value) is not int or not rule["minimum"] <= value <= rule["maximum"]:
                raise NetworkError(f"{field.name} must be an int in [{rule['minimum']}, {rule['maximum']}], not {_short(value)}")


@dataclass(frozen=True, slots=True)
class Gemm(_Shape):
    """Product of an m x k and a k x n matrix.

    Parameters
    ----------
    m, n, k : int
        1 to 2**31 - 1: output positions, filters, products per output.

    Raises
    ------
    NetworkError
        If a field breaks its rule.
    """

    m: int = dataclasses.field(metadata=_COUNT)
    n: int = dataclasses.field(metadata=_COUNT)
    k: int = dataclasses.field(metadata=_COUNT)


@dataclass(frozen=True, slots=True)
class Convolution(_Shape):
    """Convolution of one sample; its input includes the border of zeros, and its last window may hang over the input's end.

    Parameters
    ----------
    height, width : int
        Of the input, 1 to 65536 [pixels].
    filter_height, filter_width : int
        At most those of the input [pixels].
    channels, filters : int
        1 to 2**31 - 1.
    stride : int
        In both directions, 1 to 65536 [pixels].

    Raises
    ------
    NetworkError
        If a field breaks its rule.
    """

    height: int = dataclasses.field(metadata=_SIDE)
    width: int = dataclasses.field(metadata=_SIDE)
    filter_height: int = dataclasses.field(metadata=_SIDE)
    filter_width: int = dataclasses.field(metadata=_SIDE)
    channels: int = dataclasses.field(metadata=_COUNT)
    filters: int = dataclasses.field(metadata=_COUNT)
    stride: int = dataclasses.field(metadata=_SIDE)

    def __post_init__(self) -> None:
        super(Convolution, self).__post_init__()  # slots: the class is not the one `super()` was compiled in
        for name in ("height", "width"):
            side, window = getattr(self, name), getattr(self, f"filter_{name}")
            if window > side:
                raise NetworkError(f"filter_{name} must be at most {name} ({side}), not {window}")

    @property
    def outputs(self) -> tuple[int, int]:
        """Windows along height and width."""
        sides = (self.height, self.filter_height), (self.width, self.filter_width)
        rows, cols = (-((window - side - self.stride) // self.stride) for side, window in sides)
        return rows, cols

    @property
    def m(self) -> int:
        """Output positions."""
        rows, cols = self.outputs
        return rows * cols

    @property
    def n(self) -> int:
        """Filters."""
        return self.filters

    @property
    def k(self) -> int:
        """Products per output: a window's elements, channels innermost."""
        return self.filter_height * self.filter_width * self.channels


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Parameters
    ----------
    name : str
    shape : Gemm or Convolution
    pattern : Pattern
        N:M of its weights along k.
    """

    name: str
    shape: Gemm | Convolution
    pattern: Pattern = DENSE


@dataclass(frozen=True, slots=True)
class Topology:
    """Layers in order.

    Parameters
    ----------
    name : str
    layers : tuple of Layer
    """

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture(Config):
    """What SCALE-Sim knows of an accelerator.

    Parameters
    ----------
    name : str
        What reports call it.
    rows, cols : int
        Of the array, 1 to 65536.
    dataflow : str
        ``"os"``, ``"ws"`` or ``"is"``: whether outputs, weights or inputs stay in the array.
    ifmap_kb, filter_kb, ofmap_kb : int
        Scratchpads, 1 to 2**20 [KiB of one-byte words].
    sparsity : bool
        Whether the layers' N:M patterns count.
    row_wise : bool
        Whether each filter has a pattern of its own, drawn at random (SCALE-Sim's OptimizedMapping).
    bandwidth : tuple of int
        Of the memory [words / cycle]; empty where it is to be whatever is needed (SCALE-Sim's CALC).

    Raises
    ------
    ConfigError
        If a field breaks its rule. The message names the field, the rule and the value.
    """

    rows: int = dataclasses.field(default=32, metadata=_SIDE)
    cols: int = dataclasses.field(default=32, metadata=_SIDE)
    dataflow: str = dataclasses.field(default="os", metadata={"enum": ["os", "ws", "is"]})
    ifmap_kb: int = dataclasses.field(default=64, metadata={"minimum": 1, "maximum": 1 << 20})
    filter_kb: int = dataclasses.field(default=64, metadata={"minimum": 1, "maximum": 1 << 20})
    ofmap_kb: int = dataclasses.field(default=64, metadata={"minimum": 1, "maximum": 1 << 20})
    sparsity: bool = True
    row_wise: bool = False
    bandwidth: tuple[int, ...] = ()


def topologies() -> dict[str, Path]:
    """Files of the topologies that ship with the package, by name."""
    return {path.stem: path for path in sorted(Path(accel.networks.__file__).parent.glob(f"*{SUFFIX}"))}


def load_topology(path: str | os.PathLike[str]) -> Topology:
    """Read a topology file.

    Parameters
    ----------
    path : str or path
        The file, or the name of a topology that ships with the package.

    Returns
    -------
    Topology
        Named as the file is.

    Raises
    ------
    NetworkError
        If there is no such file, or it breaks a rule: ``<file>:<line>: <name> must be <rule>, not <value>``.
    """
    if not isinstance(path, str | os.PathLike):
        raise NetworkError(f"topology must be a path or one of {', '.join(topologies())}, not {_short(path)}")
    file = topologies().get(str(path), Path(path))
    text = _text(file, "topology", f"a file or one of {', '.join(topologies())}", NetworkError)
    return parse_topology(text, str(file), file.stem)


def parse_topology(text: str, source: str, name: str) -> Topology:
    """Read a topology from text.

    Parameters
    ----------
    text : str
    source : str
        What messages call the file.
    name : str
        What the topology is called.

    Returns
    -------
    Topology

    Raises
    ------
    NetworkError
        If the text breaks a rule: ``<source>:<line>: <name> must be <rule>, not <value>``.
    """
    rows = _rows(text)
    layers: list[Layer] = []
    form = 0
    try:
        line, names = next(rows, (1, [""]))
        _check_header(names)
        for number, fields in rows:
            line = number
            form = form or next((columns for columns in _FORMS if len(fields) - columns in (0, 1)), 0)
            if not form or len(fields) - form not in (0, 1):
                forms = " or ".join(f"name, {_FORMS[columns]} and perhaps N:M" for columns in ([form] if form else _FORMS))
                raise NetworkError(f"layer must be {forms}, not {len(fields)} columns")
            layers.extend(_layers(fields, form))
            if len(layers) > LAYERS:
                raise NetworkError(f"topology must be at most {LAYERS} layers, not more")
        if not layers:
            raise NetworkError("topology must be at least one layer below the names of its columns, not none")
    except (NetworkError, RangeError) as error:
        raise NetworkError(f"{source}:{line}: {error}") from None
    return Topology(name, tuple(layers))


def load_architecture(path: str | os.PathLike[str]) -> Architecture:
    """Read an architecture file.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Architecture
        Named by its ``run_name``, else as the file is.

    Raises
    ------
    ConfigError
        If there is no such file, or it breaks a rule: ``<file>:<line>: <name> must be <rule>, not <value>``.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"cfg must be a path, not {_short(path)}")
    file = Path(path)
    return parse_architecture(_text(file, "cfg", "a file", ConfigError), str(file), file.stem)


_KEYS = {
    "name": ("general", "run_name"),
    "rows": ("architecture_presets", "ArrayHeight"),
    "cols": ("architecture_presets", "ArrayWidth"),
    "dataflow": ("architecture_presets", "Dataflow"),
    "ifmap_kb": ("architecture_presets", "IfmapSramSzkB"),
    "filter_kb": ("architecture_presets", "FilterSramSzkB"),
    "ofmap_kb": ("architecture_presets", "OfmapSramSzkB"),
    "sparsity": ("sparsity", "SparsitySupport"),
    "row_wise": ("sparsity", "OptimizedMapping"),
    "mode": ("run_presets", "InterfaceBandwidth"),
    "bandwidth": ("architecture_presets", "Bandwidth"),
}
_SWITCH = {"true": True, "false": False}


def parse_architecture(text: str, source: str, name: str) -> Architecture:
    """Read an architecture from text. What is not a field of :class:`Architecture` is not looked at.

    Parameters
    ----------
    text : str
    source : str
        What messages call the file.
    name : str
        What it is called if the text has no ``run_name``.

    Returns
    -------
    Architecture

    Raises
    ------
    ConfigError
        If the text breaks a rule: ``<source>:<line>: <name> must be <rule>, not <value>``.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text, source)
    except configparser.DuplicateOptionError as error:
        raise ConfigError(f"{source}:{error.lineno}: {error.option} must be given once, not again") from None
    except configparser.DuplicateSectionError as error:
        raise ConfigError(f"{source}:{error.lineno}: section must be given once, not [{error.section}] again") from None
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{source}:{error.lineno}: section must be named before the first key, not {_short(error.line)}") from None
    except configparser.ParsingError as error:
        line, found = error.errors[0]
        raise ConfigError(f"{source}:{line}: line must be a [section] or 'key: value', not {found[:60]}") from None
    defaults: dict[str, Any] = {"name": name, "sparsity": "false", "row_wise": "false", "mode": "CALC"}
    given: dict[str, Any] = {field: parser.get(*key, fallback=defaults.get(field)) for field, key in _KEYS.items()}

    def wrong(field: str, rule: str) -> ConfigError:
        return ConfigError(f"{source}:{_line(text, *_KEYS[field])}: {_KEYS[field][1]} must be {rule}")

    for field in ("sparsity", "row_wise"):
        if given[field].lower() not in _SWITCH:
            raise wrong(field, f"true or false, not {_short(given[field])}")
        given[field] = _SWITCH[given[field].lower()]
    mode = given.pop("mode")
    if mode not in ("CALC", "USER"):
        raise wrong("mode", f"CALC or USER, not {_short(mode)}")
    if mode == "CALC":
        given["bandwidth"] = ""
    for field, value in given.items():
        if value is None:
            raise wrong(field, f"given in [{_KEYS[field][0]}], not missing")
    given["bandwidth"] = tuple(_number(part) for part in given["bandwidth"].split(",") if mode == "USER")
    if not all(type(words) is int and words for words in given["bandwidth"]):
        raise wrong("bandwidth", f"positive ints, not {_short(parser.get(*_KEYS['bandwidth']))}")
    try:
        return Architecture(**given | {field: _number(given[field]) for field in ("rows", "cols", "ifmap_kb", "filter_kb", "ofmap_kb")})
    except ConfigError as error:
        field, _, rule = str(error).partition(" must be ")
        raise wrong(field, rule) from None


def _text(file: Path, what: str, rule: str, error: type[AccelError]) -> str:
    """Read `what` from a text file of bounded size and lines; pipes and devices, which may have no end, break the `rule`."""
    data = None
    try:
        if file.is_file():
            with file.open("rb") as stream:
                data = stream.read(FILE_LIMIT + 1)
    except OSError as cause:
        raise error(f"{what} must be a file that can be read, not {_short(str(file))} ({cause.strerror})") from None
    if data is None:
        raise error(f"{what} must be {rule}, not {_short(str(file))}")
    if len(data) > FILE_LIMIT:
        raise error(f"{file}:1: {what} must be at most {FILE_LIMIT} bytes, not more")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start) + 1
        raise error(f"{file}:{line}: {what} must be UTF-8 text, not the byte 0x{data[cause.start]:02x}") from None
    for number, line_text in _lines(text):
        if len(line_text) > LINE_LIMIT:
            raise error(f"{file}:{number}: line must be at most {LINE_LIMIT} characters, not {len(line_text)}")
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines by number; unlike `str.splitlines`, only what editors take for a line's end is one."""
    return enumerate(re.split(r"\r\n|\r|\n", text), 1)


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Columns of each line that has any, by line number; empty ones at its end do not count."""
    for number, line in _lines(text):
        content = line.rstrip(", \t")
        if content and not content.lstrip().startswith("#"):
            yield number, [field.strip() for field in content.split(",")]


def _check_header(names: list[str]) -> None:
    """Refuse a first line that is a layer, and columns of a matrix product in another order."""
    if any(type(_number(name)) is int for name in names):
        raise NetworkError(f"first line must be the names of the columns, not the layer {_short(names[0])}")
    order = [name.lower() for name in names[1:4]]
    if sorted(order) == ["k", "m", "n"] and order != ["m", "n", "k"]:
        raise NetworkError(f"columns must be in the order m, n, k, not {', '.join(order)}")


def _layers(fields: list[str], form: int) -> Iterator[Layer]:
    """Layers that a line stands for: one, or one per channel."""
    name, numbers = fields[0], [_number(field) for field in fields[1:form]]
    if not name or not name.isprintable():
        raise NetworkError(f"name must be printable text, not {_short(name)}")
    pattern = Pattern.parse(fields[form]) if len(fields) > form else DENSE
    if form == 4:
        yield Layer(name, Gemm(*numbers), pattern)
        return
    shape = Convolution(*numbers)
    if "DP" not in name:
        yield Layer(name, shape, pattern)
        return
    if shape.channels > LAYERS:
        raise NetworkError(f"channels must be at most {LAYERS} in a depthwise layer, not {shape.channels}")
    single = dataclasses.replace(shape, channels=1)
    yield from (Layer(f"{name}Channel_{i}", single, pattern) for i in range(shape.channels))


def _number(text: str) -> Any:
    """Value of a plain decimal; anything else as it is, for the rule that meets it to refuse."""
    return int(text) if re.fullmatch(r"\s*\d{1,18}\s*", text, re.ASCII) else text


def _line(text: str, section: str, key: str) -> int:
    """Line of a key in a file that `configparser` has read, or of its section, or the first."""
    found, inside = 1, False
    for number, line in _lines(text):
        if head := re.match(r"\s*\[([^]]+)\]", line):
            inside = head[1] == section
            found = number if inside else found
        elif inside and re.match(rf"\s*{key}\s*[:=]", line, re.IGNORECASE):
            return number
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
