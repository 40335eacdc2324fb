"""Configurations: field rules, YAML files, and the published schema."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from accel import presets
from accel.config import AcceleratorConfig, FunctionConfig, RbfConfig
from accel.errors import ConfigError
from accel.formats import FixedFormat, Overflow

KINDS = tuple(presets.FOLDERS)
FIELDS = [field.name for field in dataclasses.fields(AcceleratorConfig)]
TINY = dataclasses.asdict(presets.load("tiny"))


def text(**changes: object) -> str:
    return yaml.safe_dump(TINY | changes, sort_keys=False)


def line_of(name: str) -> int:
    return FIELDS.index(name) + 1


def shipped(kind):
    return Path(presets.__file__).parent / presets.FOLDERS[kind]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in presets.names(kind)])
def test_preset_is_its_file(kind, name):
    config = presets.load(name, kind)
    assert config.name == name
    assert presets.load(shipped(kind) / f"{name}.yaml", kind) == config
    assert kind.from_json(config.to_json()) == config


def test_presets_are_what_the_project_promises():
    assert presets.names() == ("edge-int8", "sat-vcu1525", "sat-vcu1525-int8", "tiny")
    assert {"gaussian", "gaussian-0016", "gaussian-0004", "gaussian-u", "gaussian-d", "sigmoid", "tanh", "erf"} < set(
        presets.names(FunctionConfig)
    )
    assert presets.names(RbfConfig) == ("paper", "shared", "tiny")
    for name, error in (("gaussian", 0.005), ("gaussian-0016", 0.0016), ("gaussian-0004", 0.0004)):
        unit = presets.load(name, FunctionConfig)
        assert (unit.function, str(unit.operand), str(unit.result), unit.error, unit.stages) == ("exp2", "u16.12", "u16.16", error, 0)
    paper = presets.load("paper", RbfConfig)
    assert (paper.neurons, paper.units, paper.outputs, paper.output, paper.x_bits, paper.stages) == (4, 4, 1, "sigmoid", 16, 0)
    for inner, name in ((paper.gaussian, "gaussian"), (paper.sigmoid, "sigmoid")):
        assert dataclasses.replace(inner, name=name) == presets.load(name, FunctionConfig)
    sat = presets.load("sat-vcu1525")
    assert (sat.rows, sat.cols, sat.act_bits, sat.weight_bits, sat.acc_bits, sat.clock_mhz) == (32, 32, 16, 16, 48, 200.0)
    assert sat.dram_rate == 256  # bytes a cycle: four 512-bit ports


def test_derived_values():
    config = AcceleratorConfig(bundle=16, port=4)
    assert (config.act, config.weight, config.acc) == (FixedFormat(8), FixedFormat(8), FixedFormat(32))
    assert (config.index_bits, config.beats, config.on_overflow) == (4, 4, Overflow.SATURATE)


def test_equal_configurations_give_equal_text():
    assert AcceleratorConfig(clock_mhz=200).to_json() == AcceleratorConfig(clock_mhz=200.0).to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, r"rows must be an int in \[1, 128\], not 0"),
        ({"rows": 4.5}, r"rows must be an int in \[1, 128\], not 4.5"),
        ({"rows": True}, r"rows must be an int in \[1, 128\], not True"),
        ({"rows": None}, r"rows must be an int in \[1, 128\], not None"),
        ({"cols": "four"}, r"cols must be an int in \[1, 128\], not 'four'"),
        ({"acc_bits": 63}, r"acc_bits must be an int in \[2, 62\], not 63"),
        ({"overflow": "clip"}, "overflow must be one of saturate, wrap, not 'clip'"),
        ({"overflow": 3}, "overflow must be one of saturate, wrap, not 3"),
        ({"name": ""}, "name must be a non-empty string, not ''"),
        ({"name": 7}, "name must be a non-empty string, not 7"),
        ({"clock_mhz": 0}, r"clock_mhz must be a number in \[0.001, 100000\], not 0"),
        ({"clock_mhz": float("nan")}, r"clock_mhz must be a number in \[0.001, 100000\], not nan"),
        ({"clock_mhz": "fast"}, r"clock_mhz must be a number in \[0.001, 100000\], not 'fast'"),
        ({"dram_gbs": 0}, r"dram_gbs must be a number in \[0.001, 100000\], not 0"),
        ({"dram_latency": 1.5}, r"dram_latency must be an int in \[0, 100000\], not 1.5"),
        ({"act_kb": 0}, r"act_kb must be an int in \[1, 1048576\], not 0"),
        ({"keep_kb": -1}, r"keep_kb must be an int in \[0, 1048576\], not -1"),
        ({"port": 3}, r"port must be a divisor of bundle \(8\), not 3"),
        ({"act_bits": 32, "weight_bits": 31}, r"weight_bits must be at most 62 - act_bits \(30\), not 31"),
        ({"acc_bits": 48}, r"mult_bits must be at most 63 - acc_bits \(15\), not 24"),
    ],
)
def test_wrong_value_names_field_rule_value_file_and_line(change, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        AcceleratorConfig(**TINY | change)
    with pytest.raises(ConfigError, match=rf"^arch.yaml:{line_of(message.split()[0])}: {message}$"):
        presets.parse(text(**change), "arch.yaml", AcceleratorConfig)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (FunctionConfig, {"function": "sin"}, "function must be one of exp2, exp, gaussian, sigmoid, tanh, erf, not 'sin'"),
        (FunctionConfig, {"in_bits": 7}, r"in_bits must be an int in \[8, 24\], not 7"),
        (FunctionConfig, {"error": 0}, r"error must be a number in \[1e-07, 0.25\], not 0"),
        (FunctionConfig, {"luts": 5}, "luts must be one of 4, 6, not 5"),
        (FunctionConfig, {"method": "magic"}, "method must be one of auto, base2, table, linear, searched, not 'magic'"),
        (RbfConfig, {"neurons": 2}, r"units must be at most neurons \(2\), not 4"),
        (RbfConfig, {"x_frac": 4}, r"distance_frac must be at most 2 \* x_frac \(8\), not 10"),
        (RbfConfig, {"width_frac": 0}, r"t_frac must be at most distance_frac \+ width_frac \(10\), not 12"),
        (RbfConfig, {"sum_frac": 19, "phi_bits": 8}, r"sum_frac must be at most phi_bits \+ weight_frac \(18\), not 19"),
        (RbfConfig, {"output": "step"}, "output must be one of linear, sigmoid, not 'step'"),
    ],
)
def test_wrong_unit_names_field_rule_value_file_and_line(kind, change, message):
    whole = dataclasses.asdict(kind()) | change
    with pytest.raises(ConfigError, match=f"^{message}$"):
        kind(**whole)
    line = list(whole).index(message.split()[0]) + 1
    with pytest.raises(ConfigError, match=rf"^unit.yaml:{line}: {message}$"):
        presets.parse(yaml.safe_dump(whole, sort_keys=False), "unit.yaml", kind)


@pytest.mark.parametrize("number", ["1e3", "1E3", "1.e3", "1.0e3", ".1e4", "1e+3", "1000", "1000.0", "10000e-1"])
def test_numbers_are_written_as_in_json_too(number):
    content = text().replace("clock_mhz: 100.0", f"clock_mhz: {number}")
    assert presets.parse(content, "arch.yaml", AcceleratorConfig).clock_mhz == 1000.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "arch.yaml:1: config must be a mapping of field names to values, not an empty file"),
        ("# nothing\n", "arch.yaml:1: config must be a mapping of field names to values, not an empty file"),
        ("- 1\n- 2\n", "arch.yaml:1: config must be a mapping of field names to values, not a list"),
        ("rows\n", "arch.yaml:1: config must be a mapping of field names to values, not a single value"),
        ("name: x\nrows: [4\n", "arch.yaml:3: config must be valid YAML, not text with this fault: expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", "arch.yaml:2: config must be valid YAML, not text with this fault: but found another document"),
        ("rows: \x00", "arch.yaml: config must be valid YAML, not text with this fault: unacceptable character #x0000"),
        ("[" * 20000, "arch.yaml: config must be valid YAML, not text with this fault: maximum recursion depth exceeded"),
        ("rows: *gone\n", "arch.yaml:1: config must be valid YAML, not text with this fault: found undefined alias 'gone'"),
        ("? [rows]\n: 4\n", "arch.yaml:1: field must be a name, not a collection"),
        ("name: x\nrow: 4\n", "arch.yaml:2: field must be one of name, rows, .*, not 'row'"),
        ("<<: {rows: 4}\n", "arch.yaml:1: field must be one of name, rows, .*, not '<<'"),
        ("rows: 4\ncols: 4\nrows: 8\n", "arch.yaml:3: rows must be given once, not again after line 1"),
        ("rows: [4]\n", "arch.yaml:1: rows must be a plain number or string, not a list"),
        ("rows: {a: 4}\n", "arch.yaml:1: rows must be a plain number or string, not a mapping"),
        ("rows: !!python/object/apply:os.system [id]\n", "arch.yaml:1: rows must be a plain number or string, not "),
        ("rows: !!python/name:os.system ''\n", "arch.yaml:1: rows must be a plain number or string, not ''"),
        ("rows: !!int four\n", "arch.yaml:1: rows must be a plain number or string, not 'four'"),
        ("rows: 2001-99-99\n", "arch.yaml:1: rows must be a plain number or string, not '2001-99-99'"),
        (f"rows: {'9' * 5000}\n", f"arch.yaml:1: rows must be a plain number or string, not '{'9' * 59}[.]{{3}}"),
        (f"clock_mhz: {':'.join(['59'] * 400)}.5\n", "arch.yaml:1: clock_mhz must be a plain number or string, not '59:"),
        ("name: x\nrows: 4\n", "arch.yaml:1: cols must be given, not missing"),
    ],
)
def test_malformed_file_is_refused_with_its_line(content, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        presets.parse(content, "arch.yaml", AcceleratorConfig)


def test_aliases_do_not_expand():
    """Nine levels of nine aliases stand for 387 million values; composing them stays small."""
    levels = ["a0: &a0 [1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match=r"^arch.yaml:1: field must be one of .*, not 'a0'$"):
        presets.parse("\n".join(levels), "arch.yaml", AcceleratorConfig)
    assert presets.parse(text().replace("rows: 4", "rows: &n 4").replace("cols: 4", "cols: *n"), "arch.yaml", AcceleratorConfig).cols == 4


def test_file_faults(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^config must be one of edge-int8, sat-vcu1525, sat-vcu1525-int8, tiny or the path of a YAML file, not 'huge'$"
    ):
        presets.load("huge")
    with pytest.raises(ConfigError, match=r"^config must be one of paper, shared, tiny or the path of a YAML file, not 'gaussian'$"):
        presets.load("gaussian", RbfConfig)
    with pytest.raises(ConfigError, match=r"tiny.yaml:3: field must be one of name, function, .*, not 'rows'$"):
        presets.load(shipped(AcceleratorConfig) / "tiny.yaml", FunctionConfig)
    with pytest.raises(ConfigError, match=r"^config must be one of .*gaussian.* or the path of a YAML file, not 7$"):
        presets.load(cast(Any, 7), FunctionConfig)
    with pytest.raises(ConfigError, match=r"or the path of a YAML file, not 'a.x00b'$"):
        presets.load("a\x00b")
    with pytest.raises(ConfigError, match=r": config must be a readable file, not Is a directory$"):
        presets.load(tmp_path)
    path = tmp_path / "arch.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"arch.yaml: config must be UTF-8 text, not bytes that break it at offset 6$"):
        presets.load(path)
    path.write_bytes(b"#" * 65537)
    with pytest.raises(ConfigError, match=r"arch.yaml: config must be at most 65536 bytes, not more$"):
        presets.load(path)
    path.write_text(text(rows=8.0))
    assert presets.load(path) == dataclasses.replace(presets.load("tiny"), rows=8)


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_schema_is_in_sync(kind):
    text = (shipped(kind) / "schema.json").read_text()
    assert text == presets.schema_text(kind), f"write accel.presets.schema_text({kind.__name__}) to {shipped(kind) / 'schema.json'}"
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    assert all(rule["description"] for rule in json.loads(text)["properties"].values())


VALUES = st.one_of(
    st.integers(-2, 66), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(), st.floats(1e-8, 0.3),
    st.sampled_from(["", "saturate", "wrap", "exp2", "linear", "4", [4], {}]),
)  # fmt: skip
CHANGES = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=2),
    st.fixed_dictionaries({"bundle": st.integers(2, 32), "port": st.integers(1, 32)}),
    st.fixed_dictionaries({"acc_bits": st.integers(2, 62), "mult_bits": st.integers(1, 61)}),
    st.fixed_dictionaries({"act_bits": st.integers(29, 32), "weight_bits": st.integers(29, 32)}),
)


@settings(max_examples=400, deadline=None)
@given(CHANGES, st.sets(st.sampled_from(FIELDS), max_size=1), st.sampled_from([{}, {}, {}, {"extra": 1}]))
def test_schema_agrees_with_loader(changes, missing, extra):
    """A file is accepted by the one exactly when it is accepted by the other."""
    agree(AcceleratorConfig, {k: v for k, v in (TINY | changes | extra).items() if k not in missing})


@pytest.mark.parametrize("kind", [FunctionConfig, RbfConfig])
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_schema_of_units_agrees_with_loader(kind, data):
    """Where a rule joins fields of a network, only the loader knows; the schema says so in words."""
    whole = dataclasses.asdict(kind())
    changes = data.draw(st.dictionaries(st.sampled_from([*whole, *whole, "extra"]), VALUES, max_size=2))
    missing = data.draw(st.sets(st.sampled_from(list(whole)), max_size=1))
    agree(kind, {k: v for k, v in (whole | changes).items() if k not in missing})


def agree(kind, raw):
    valid = jsonschema.Draft202012Validator(presets.schema(kind)).is_valid(raw)
    fault = ""
    try:
        presets.parse(json.dumps(raw), "arch.yaml", kind)
    except ConfigError as error:
        fault = str(error)
    joined = kind is RbfConfig and " must be at most " in fault
    assert valid == (not fault) or joined


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(st.sampled_from([*FIELDS, ":", " ", "\n", "4", "{", "[", "&a", "*a", "!!int", "-", "'"])).map("".join),
    )
)
def test_no_text_escapes_as_another_error(content):
    with pytest.raises(ConfigError, match=r"^arch\.yaml"):
        presets.parse(content, "arch.yaml", AcceleratorConfig)
