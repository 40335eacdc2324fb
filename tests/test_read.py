"""What may be wrong with a file, and every sentence that says so."""

from __future__ import annotations

import os
import re
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import accel
from accel.errors import NetworkError
from accel.graph.files import LIMIT, builtin
from tests.qdq import Model


def linear() -> Model:
    """Make a quantised product, the least network there is."""
    model = Model()
    x = model.fake(model.input("batch", 4), 0.02, 100)
    model.output(model.fake(model.node("MatMul", x, model.weights(np.ones((4, 3), np.int8), 0.01), name="product"), 0.03, 5))
    return model


# Files.


def test_load_names_the_network_after_its_file(tmp_path):
    onnx.save(linear().proto, tmp_path / "small.onnx")
    for path in (tmp_path / "small.onnx", str(tmp_path / "small.onnx")):
        loaded = accel.load(path)
        assert loaded.name == "small"
        assert [operator.name for operator in loaded.operators] == ["product"]


def test_load_knows_the_networks_it_ships():
    assert list(builtin()) == ["digits-cnn"]
    assert accel.load("digits-cnn").name == "digits-cnn"


def whole():
    return linear().proto.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"network must be an ONNX file of 1 to {LIMIT - 1} bytes, not 0"),
        (whole()[:-40], "network must be an ONNX file, not one that breaks off or holds something else"),
        (whole()[:100], "network must be an ONNX file, not one that breaks off or holds something else"),
        (b"PK\x03\x04 a zip archive", "network must be an ONNX file, not one that breaks off or holds something else"),
        (b"\x80\x04\x95 a pickle", "network must be an ONNX file, not one that breaks off or holds something else"),
        (onnx.ModelProto(producer_name="nothing").SerializeToString(), "network must be an ONNX file, not one without a graph"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "network must be an ONNX file, not one without a graph"),
    ],
    ids=["empty", "truncated", "beginning", "zip", "pickle", "no version", "no graph"],
)
def test_load_refuses_what_is_not_a_whole_model(tmp_path, content, message):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(NetworkError, match=f"^{re.escape(f'{path}: {message}')}$"):
        accel.load(path)


def test_load_refuses_what_is_not_a_file(tmp_path):
    missing = tmp_path / "missing.onnx"
    with pytest.raises(NetworkError, match=f"^{missing}: network must be an ONNX file or one of digits-cnn, not a missing file$"):
        accel.load(missing)
    with pytest.raises(NetworkError, match=f"^{tmp_path}: network must be an ONNX file, not a directory$"):
        accel.load(tmp_path)
    with pytest.raises(NetworkError, match=r"^/dev/zero: network must be an ONNX file, not a special file$"):
        accel.load("/dev/zero")
    with pytest.raises(NetworkError, match=r"^x{300}: network must be readable, not what gives 'File name too long'$"):
        accel.load("x" * 300)


def test_load_refuses_a_file_beyond_the_limit(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as stream:
        stream.truncate(LIMIT)
    with pytest.raises(NetworkError, match=f"huge.onnx: network must be an ONNX file of 1 to {LIMIT - 1} bytes, not {LIMIT}$"):
        accel.load(path)


def test_load_names_an_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "closed.onnx"
    path.write_bytes(b"x")

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)  # the tests may run as root, whom no permission stops
    with pytest.raises(NetworkError, match=r"closed.onnx: network must be readable, not what gives 'Permission denied'$"):
        accel.load(path)


@settings(max_examples=150)
@given(st.data())
def test_any_bytes_give_a_network_or_an_error(tmp_path_factory, data):
    """A damaged file never ends in another exception."""
    content = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "any.onnx"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    with suppress(NetworkError):
        accel.load(path)


# Data outside the file.


def external(folder, **entries: str) -> str:
    """Save a model whose weights are said to lie elsewhere; return their name."""
    proto = linear().proto
    (tensor,) = (tensor for tensor in proto.graph.initializer if list(tensor.dims) == [4, 3])
    (folder / "weights.bin").write_bytes(b"...." + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    onnx.save(proto, folder / "model.onnx")
    return str(tensor.name)


@pytest.mark.parametrize("entries", [{"offset": "4"}, {"offset": "4", "length": "12"}])
def test_external_data_is_read(tmp_path, entries):
    external(tmp_path, location="weights.bin", **entries)
    (product,) = accel.load(tmp_path / "model.onnx").products
    assert product.weights is not None
    assert (product.weights == 1).all()


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin", "folder/../../secret.bin", ""])
def test_external_data_stays_in_the_folder(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(99))
    os.symlink(tmp_path / "secret.bin", folder / "link.bin")
    name = external(folder, location=location)
    message = f"external data of {name!r} must lie in the model's folder, not at {location!r}"
    with pytest.raises(NetworkError, match=f"{re.escape(message)}$"):
        accel.load(folder / "model.onnx")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "other.bin"}, "must be a file, not 'other.bin'"),
        ({"location": "a\0b"}, r"must be a file, not 'a\x00b'"),
        ({"location": "weights.bin", "offset": "x"}, "must have an integer offset and length: invalid literal for int() with base 10: 'x'"),
        ({"location": "weights.bin", "offset": "4", "length": "13"}, "must lie inside 'weights.bin' (16 bytes), not at bytes 4 to 17"),
        ({"location": "weights.bin", "offset": "-1", "length": "12"}, "must lie inside 'weights.bin' (16 bytes), not at bytes -1 to 11"),
    ],
)
def test_external_data_refuses(tmp_path, entries, message):
    name = external(tmp_path, **entries)
    with pytest.raises(NetworkError, match=re.escape(f"model.onnx: external data of {name!r} {message}")):
        accel.load(tmp_path / "model.onnx")


def test_external_data_of_the_wrong_length(tmp_path):
    name = external(tmp_path, location="weights.bin")
    with pytest.raises(NetworkError, match=f"model.onnx: tensor '{name}' must be well formed: .*"):
        accel.load(tmp_path / "model.onnx")


def test_external_data_has_a_limit(tmp_path, monkeypatch):
    external(tmp_path, location="weights.bin", offset="4")
    monkeypatch.setattr("accel.graph.files._model", lambda file: onnx.load(file, load_external_data=False))
    monkeypatch.setattr("accel.graph.files.LIMIT", 12)
    with pytest.raises(NetworkError, match=r"external data must be less than 12 bytes in all, not 12 or more$"):
        accel.load(tmp_path / "model.onnx")


@pytest.mark.parametrize("path", [None, 3, b"digits-cnn"])
def test_load_refuses_what_is_not_a_path(path):
    with pytest.raises(NetworkError, match=f"^network must be a path or one of digits-cnn, not {path!r}$"):
        accel.load(path)


def test_an_output_may_have_no_shape(tmp_path):
    proto = linear().proto
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "model.onnx")
    assert len(accel.load(tmp_path / "model.onnx").outputs) == 1
