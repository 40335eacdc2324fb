"""Checkpoints: what comes back is what went in; what is damaged, foreign or hostile is refused; the one before it is used."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.errors import RangeError
from accel.files import write
from accel.training import checkpoint
from accel.training.checkpoint import Checkpoint
from accel.training.course import Epoch
from accel.training.state import Parameter, State, Tracked

SETTINGS = {"network": {"name": "net", "digest": "a"}, "config": {"rows": 4}, "rate": 0.05, "dense": None}
pytestmark = pytest.mark.golden


def state(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)

    def draw(bits: int) -> np.ndarray:
        return rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (3, 1, 2, 5))

    mask = rng.integers(0, 2, (3, 1, 2, 5)).astype(np.bool_)
    sparse = Parameter(master=draw(32), velocity=draw(32), working=draw(16), mask=mask, back=~mask)
    bias = Parameter(master=draw(9)[0, 0, 0], velocity=draw(33)[0, 0, 0], working=draw(8)[0, 0, 0], lanes=draw(20)[0, 0, 0])
    return State(
        step=7,
        parameters={"../a b/c.weight": sparse, "c.bias": bias},
        formats={"x": Tracked(bits=16, frac=-3, peak=5, quiet=2, overflowed=1, elements=90), "x'": Tracked(bits=16, frac=20, change=-1)},
        statistics={"norm\n": draw(62)[:2, 0, 0]},
    )


def after(epochs: int, seed: int = 0, **changes: object) -> Checkpoint:
    curves = tuple(
        Epoch(epoch=i + 1, loss=0.1 / 3, accuracy=2 / 3, held_out=0.5, saturated={"x": i}, overflowed={"c FF": 1}) for i in range(epochs)
    )
    return Checkpoint(settings={**SETTINGS, **changes}, curves=curves, state=state(seed))


def same(one: State, other: State) -> bool:
    parts = [
        (getattr(a, field.name), getattr(b, field.name))
        for a, b in zip(one.parameters.values(), other.parameters.values(), strict=True)
        for field in dataclasses.fields(Parameter)
    ]
    parts += list(zip(one.statistics.values(), other.statistics.values(), strict=True))
    return (
        list(one.parameters) == list(other.parameters)
        and list(one.statistics) == list(other.statistics)
        and [(name, dataclasses.asdict(each)) for name, each in one.formats.items()]
        == [(name, dataclasses.asdict(each)) for name, each in other.formats.items()]
        and one.step == other.step
        and all(a is b is None or (a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b)) for a, b in parts)
    )


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_comes_back(tmp_path):
    """Every field, in order, with its type; the same state gives the same bytes."""
    checkpoint.save(tmp_path, after(2))
    found, told = checkpoint.load(tmp_path, dict(SETTINGS))
    assert told == ()
    assert same(found.state, state())
    assert found.curves == after(2).curves
    assert found.settings == SETTINGS == checkpoint.settings(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoint.save(tmp_path, found)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_all_fields_are_kept():
    """A field that State, Parameter, Tracked or Epoch gains must be stored: this test fails until it is."""
    assert [field.name for field in dataclasses.fields(State)] == ["step", "parameters", "formats", "statistics"]
    assert {field.name for field in dataclasses.fields(Checkpoint)} == {"settings", "curves", "state"}


@settings(max_examples=30)
@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=5))
def test_integers_are_stored_narrow(values):
    array = np.array(values, np.int64)
    stored = checkpoint._narrow(array)
    assert stored.astype(np.int64).tolist() == values
    assert stored.itemsize == next(size for size in (1, 2, 4, 8) if all(-(1 << (8 * size - 1)) <= v < 1 << (8 * size - 1) for v in values))


def test_last_two_are_kept(tmp_path):
    for epoch in range(4):
        checkpoint.save(tmp_path, after(epoch, epoch))
    assert names(tmp_path) == ["epoch-0002.json", "epoch-0002.npz", "epoch-0003.json", "epoch-0003.npz"]
    assert same(checkpoint.load(tmp_path, dict(SETTINGS))[0].state, state(3))


def test_what_was_half_written_is_removed(tmp_path):
    checkpoint.save(tmp_path, after(1))
    whole = names(tmp_path)
    for name in (".epoch-0002.npz.x1y2", "epoch-0002.npz"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.txt").touch()
    assert len(checkpoint.load(tmp_path, dict(SETTINGS))[0].curves) == 1
    checkpoint.clean(tmp_path)
    assert names(tmp_path) == [*whole, "notes.txt"]


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = [
    ("epoch-0002.json", cut, "its .json file is cut off, or no JSON"),
    ("epoch-0002.json", lambda path: path.write_text("[]"), "its .json file is not one of a checkpoint"),
    ("epoch-0002.json", lambda path: path.write_text("[" * 99999), "its .json file is cut off, or no JSON"),
    ("epoch-0002.json", lambda path: path.write_text(path.read_text().replace("0.05", "0.06")), "its .json file has been changed"),
    ("epoch-0002.npz", cut, "its .npz file is cut off or has been changed"),
    ("epoch-0002.npz", flip, "its .npz file is cut off or has been changed"),
    ("epoch-0002.npz", lambda path: path.unlink(), "its .npz file gives 'No such file or directory'"),
]


@pytest.mark.parametrize(("name", "damage", "told"), DAMAGES)
def test_damage_falls_back(tmp_path, name, damage, told):
    """The one before it is used, and the reason is told; without it there is an error."""
    checkpoint.save(tmp_path, after(1, 1))
    checkpoint.save(tmp_path, after(2, 2))
    damage(tmp_path / name)
    found, reasons = checkpoint.load(tmp_path, dict(SETTINGS))
    assert len(found.curves) == 1
    assert same(found.state, state(1))
    assert reasons == (f"epoch-0002 is damaged: {told}",)
    (tmp_path / "epoch-0001.json").unlink()
    message = f"resume must be a folder with a whole checkpoint, not '{tmp_path}' (epoch-0002 is damaged: {told})"
    with pytest.raises(RangeError, match=f"^{re.escape(message)}$"):
        checkpoint.load(tmp_path, dict(SETTINGS))


@settings(max_examples=60)
@given(st.sampled_from(["json", "npz"]), st.integers(0, 1 << 30), st.integers(1, 255))
def test_any_changed_byte_is_seen(tmp_path_factory, suffix, place, change):
    """No file that differs in a byte is taken for what was written, and nothing but a RangeError is raised."""
    folder = tmp_path_factory.mktemp("one")
    checkpoint.save(folder, after(1))
    path = folder / f"epoch-0001.{suffix}"
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= change
    path.write_bytes(data)
    with pytest.raises(RangeError):
        checkpoint.load(folder, dict(SETTINGS))


def forge(folder, arrays: dict[str, np.ndarray], **changes: object) -> None:
    """Write a checkpoint whose digests agree, as somebody who means harm would."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=True, **arrays)
    parts = json.loads((folder / "epoch-0001.json").read_text())
    del parts["digest"]
    parts |= {"sha256": hashlib.sha256(content.getvalue()).hexdigest(), **changes}
    write(folder / "epoch-0001.npz", content.getvalue())
    write(folder / "epoch-0001.json", checkpoint._text(parts))


class Harm:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_hostile(tmp_path):
    """Pickled objects, other arrays and other types are refused, even with right digests; nothing is executed."""
    checkpoint.save(tmp_path, after(1))
    arrays = dict(np.load(tmp_path / "epoch-0001.npz"))
    for given_arrays, changes, told in (
        ({**arrays, "a0": np.array([Harm()], object)}, {}, "Object arrays cannot be loaded when allow_pickle=False"),
        ({"a0": arrays["a0"]}, {}, "its arrays are not those that are listed"),
        ({**arrays, "a0": arrays["a0"].astype(np.float64)}, {}, "a0 is not <i4 of shape [3, 1, 2, 5]"),
        ({**arrays, "a0": arrays["a0"][:2]}, {}, "a0 is not <i4 of shape [3, 1, 2, 5]"),
        (arrays, {"formats": {"x": {"bits": 16, "frac": "1"}}}, "a format is not of integers"),
        (arrays, {"epoch": 5}, "curves are not of the epochs done"),
    ):  # fmt: skip
        forge(tmp_path, given_arrays, **changes)
        with pytest.raises(RangeError, match=re.escape(f"(epoch-0001 is damaged: it does not hold a state ({told}))")):
            checkpoint.load(tmp_path, dict(SETTINGS))
        checkpoint.save(tmp_path, after(1))


def test_refused(tmp_path):
    """Another version, other settings, no checkpoint."""
    message = f"resume must be a folder with a checkpoint, not '{tmp_path}'"
    with pytest.raises(RangeError, match=f"^{re.escape(message)}$"):
        checkpoint.load(tmp_path, dict(SETTINGS))
    assert not checkpoint.holds(tmp_path)
    checkpoint.save(tmp_path, after(1))
    assert checkpoint.holds(tmp_path)
    where = f"of a run that goes on from '{tmp_path}' must be"
    other = {"name": "other", "digest": "b"}
    for changes, message in (
        ({"rate": 0.1}, f"rate {where} 0.05, not 0.1"),
        ({"dense": ["c"]}, f"dense {where} None, not ['c']"),
        ({"config": {"rows": 8}}, f"config rows {where} 4, not 8"),
        ({"network": other}, f"network {where} the same as 'net' that it was begun with, not another, 'other'"),
    ):
        with pytest.raises(RangeError, match=f"^{re.escape(message)}$"):
            checkpoint.load(tmp_path, {**SETTINGS, **changes})
    path = tmp_path / "epoch-0001.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(RangeError, match=f"^{re.escape(str(path))}: schema_version must be 1, not 2$"):
        checkpoint.load(tmp_path, dict(SETTINGS))
