"""Configurations: field rules, YAML files, and the published schema."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import ConfigError
from accel.formats import FixedFormat, Overflow

FIELDS = [field.name for field in dataclasses.fields(AcceleratorConfig)]
TINY = dataclasses.asdict(presets.load("tiny"))


def text(**changes: object) -> str:
    return yaml.safe_dump(TINY | changes, sort_keys=False)


def line_of(name: str) -> int:
    return FIELDS.index(name) + 1


@pytest.mark.parametrize("name", presets.names())
def test_preset_is_its_file(name):
    config = presets.load(name)
    assert config.name == name
    assert presets.load(Path(presets.__file__).parent / f"{name}.yaml") == config
    assert AcceleratorConfig.from_json(config.to_json()) == config


def test_presets_are_what_the_project_promises():
    assert presets.names() == ("edge-int8", "sat-vcu1525", "tiny")
    sat = presets.load("sat-vcu1525")
    assert (sat.rows, sat.cols, sat.act_bits, sat.weight_bits, sat.acc_bits, sat.clock_mhz) == (32, 32, 16, 16, 48, 200.0)


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
        ({"port": 3}, r"port must be a divisor of bundle \(8\), not 3"),
        ({"act_bits": 32, "weight_bits": 31}, r"weight_bits must be at most 62 - act_bits \(30\), not 31"),
        ({"acc_bits": 48}, r"mult_bits must be at most 63 - acc_bits \(15\), not 24"),
    ],
)
def test_wrong_value_names_field_rule_value_file_and_line(change, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        AcceleratorConfig(**TINY | change)
    with pytest.raises(ConfigError, match=rf"^arch.yaml:{line_of(message.split()[0])}: {message}$"):
        presets.parse(text(**change), "arch.yaml")


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
        presets.parse(content, "arch.yaml")


def test_aliases_do_not_expand():
    """Nine levels of nine aliases stand for 387 million values; composing them stays small."""
    levels = ["a0: &a0 [1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match=r"^arch.yaml:1: field must be one of .*, not 'a0'$"):
        presets.parse("\n".join(levels), "arch.yaml")
    assert presets.parse(text().replace("rows: 4", "rows: &n 4").replace("cols: 4", "cols: *n"), "arch.yaml").cols == 4


def test_file_faults(tmp_path):
    with pytest.raises(ConfigError, match=r"^config must be one of edge-int8, sat-vcu1525, tiny or the path of a YAML file, not 'huge'$"):
        presets.load("huge")
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


def test_shipped_schema_is_in_sync():
    shipped = (Path(presets.__file__).parent / "schema.json").read_text()
    assert shipped == presets.schema_text(), "write accel.presets.schema_text() to accel/presets/schema.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(shipped))
    assert all(rule["description"] for rule in json.loads(shipped)["properties"].values())


VALUES = st.one_of(
    st.integers(-2, 66), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(),
    st.sampled_from(["", "saturate", "wrap", "4", [4], {}]),
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
    raw = {k: v for k, v in (TINY | changes | extra).items() if k not in missing}
    valid = jsonschema.Draft202012Validator(presets.schema()).is_valid(raw)
    try:
        presets.parse(json.dumps(raw), "arch.yaml")
    except ConfigError:
        assert not valid
    else:
        assert valid


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(st.sampled_from([*FIELDS, ":", " ", "\n", "4", "{", "[", "&a", "*a", "!!int", "-", "'"])).map("".join),
    )
)
def test_no_text_escapes_as_another_error(content):
    with pytest.raises(ConfigError, match=r"^arch\.yaml"):
        presets.parse(content, "arch.yaml")
