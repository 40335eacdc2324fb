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
from onnx import TensorProto, helper, numpy_helper

import accel
from accel.errors import NetworkError
from accel.graph import read as module
from accel.graph import wire
from accel.graph.files import builtin, names
from accel.graph.graph import Given
from accel.graph.read import LIMIT, MAGIC, NEWEST_OPSET, read
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
        (
            b"PK\x03\x04 a zip archive",
            f"network must be an ONNX file, not {MAGIC[0][2]}",
        ),
        (b"\x80\x04\x95 a pickle", "network must be an ONNX file, not a pickle, which is never read"),
        (b"name,m,n,k\nfc,1,2,3\n", "network must be an ONNX file, not text"),
        (b"\x0b\x00", "network must be an ONNX file, not one that breaks off or holds something else"),
        (onnx.ModelProto(producer_name="nothing").SerializeToString(), "network must be an ONNX file, not one without a graph"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "network must be an ONNX file, not one without a graph"),
    ],
    ids=["empty", "truncated", "beginning", "zip", "pickle", "text", "group", "no version", "no graph"],
)
def test_load_refuses_what_is_not_a_whole_model(tmp_path, content, message):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(NetworkError, match=f"^{re.escape(f'{path}: {message}')}$"):
        accel.load(path)


def test_load_refuses_what_is_not_a_file(tmp_path):
    missing = tmp_path / "missing.onnx"
    with pytest.raises(NetworkError, match=f"^{missing}: network must be an ONNX file or one of {', '.join(names())}, not a missing file$"):
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

    def denied(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)  # the tests may run as root, whom no permission stops
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
    place = f"where the link {location!r} leads: {tmp_path / 'secret.bin'}" if location == "link.bin" else f"at {location!r}"
    message = f"external data of {name!r} must lie in the model's folder, not {place}"
    with pytest.raises(NetworkError, match=f"{re.escape(message)}$"):
        accel.load(folder / "model.onnx")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "other.bin"}, "must be a file, not 'other.bin'"),
        ({"location": "a\0b"}, r"must be a file, not 'a\x00b'"),
        ({"location": "weights.bin", "offset": "x"}, "must be a number of bytes, not 'x'"),
        ({"location": "weights.bin", "offset": "4", "length": "13"}, "must lie inside 'weights.bin' (16 bytes), not at bytes 4 to 17"),
        ({"location": "weights.bin", "offset": "-1", "length": "12"}, "must be a number of bytes, not '-1'"),
    ],
)
def test_external_data_refuses(tmp_path, entries, message):
    name = external(tmp_path, **entries)
    with pytest.raises(NetworkError, match=f"{re.escape(f'external data of {name!r} {message}')}$"):
        accel.load(tmp_path / "model.onnx")


def test_external_data_of_the_wrong_length(tmp_path):
    name = external(tmp_path, location="weights.bin")
    with pytest.raises(NetworkError, match=rf"model.onnx: tensor '{name}' must be 12 bytes for its shape \(4, 3\), not 16$"):
        accel.load(tmp_path / "model.onnx")


@pytest.mark.parametrize("path", [None, 3, b"digits-cnn"])
def test_load_refuses_what_is_not_a_path(path):
    with pytest.raises(NetworkError, match=f"^network must be a path, a torch module or one of {', '.join(names())}, not {path!r}$"):
        accel.load(path)


def test_an_output_may_have_no_shape(tmp_path):
    proto = linear().proto
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "model.onnx")
    assert len(accel.load(tmp_path / "model.onnx").outputs) == 1


# Tensors.


FEWER = "tensor 't' must be {} for its shape ({},), not {}"
SIZES = "shape of tensor 't' must be at most 32 sizes of data that are there"
ENDLESS = "a number that does not end"


def saved(folder, graph=None, **fields) -> str:
    """Save a model, of one Identity unless its graph is given."""
    graph = graph or helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, **{"opset_imports": [helper.make_opsetid("", 21)], "ir_version": 10, **fields})
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


def holding(folder, *tensors, nodes=(), inputs=(), outputs=None) -> str:
    """Save a model whose outputs are constants."""
    names = outputs or [tensor.name for tensor in tensors]
    taken = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    return saved(folder, helper.make_graph(list(nodes), "test", list(inputs), taken, list(tensors)))


KINDS = {
    "float": [0.5, -3.25, np.inf],
    "double": [0.1, -3.25, 1e300],
    "float16": [0.5, -3.25, 65504.0],
    "bfloat16": [0.5, -3.25, 3.3895314e38],
    "int4": [-8, 7, -1],
    "uint4": [0, 15, 8],
    "int8": [-128, 127, -1],
    "uint8": [0, 255, 128],
    "int16": [-32768, 32767, -1],
    "uint16": [0, 65535, 1],
    "int32": [-(2**31), 2**31 - 1, -1],
    "uint32": [0, 2**32 - 1, 1],
    "int64": [-(2**63), 2**63 - 1, -1],
    "uint64": [0, 2**64 - 1, 1],
    "bool": [0, 1, 1],
}


TYPE = f"type of tensor 't' must be one of {', '.join(KINDS)}"
GIVEN = f"type of graph input 'x' must be one of {', '.join(KINDS)}"


@pytest.mark.parametrize("count", [3, 300], ids=["inside", "by reference"])
@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("name", KINDS)
def test_tensors_of_every_type(tmp_path, name, raw, count):
    """Every element type, in either field, short or long, is what ONNX's own reader finds."""
    kind = TensorProto.DataType.Value(name.upper())
    values = (KINDS[name] * count)[:count]
    if raw:
        numbers = np.array(values, np.float64 if "float" in name else object).astype(helper.tensor_dtype_to_np_dtype(kind))
        tensor = numpy_helper.from_array(numbers.reshape(1, -1, 3), "t")
    else:
        tensor = helper.make_tensor("t", kind, [1, count // 3, 3], values)
    assert tensor.HasField("raw_data") == raw
    array = read(holding(tmp_path, tensor)).constants["t"]
    assert (array.kind, array.known, array.values.shape) == (kind, True, (1, count // 3, 3))
    expected = numpy_helper.to_array(tensor)
    held = np.int8 if name in ("int4", "uint4") else np.float32 if "16" in name and "float" in name else expected.dtype
    assert array.values.dtype == held
    np.testing.assert_array_equal(array.values, expected.astype(held))
    assert not array.values.flags.writeable
    assert array.values.flags.aligned


def test_large_tensors_stay_in_their_file(tmp_path, monkeypatch):
    """Beyond a limit nothing is copied, in the model's file or beside it."""
    monkeypatch.setattr(module, "COPIED", 0)
    numbers = np.arange(1000, dtype=np.int32)
    (tmp_path / "beside.bin").write_bytes(bytes(8) + numbers.tobytes())
    beside = TensorProto(name="beside", data_type=TensorProto.INT32, dims=[1000], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "beside.bin"), ("offset", "8"), ("length", "4000")):
        beside.external_data.add(key=key, value=value)
    constants = read(holding(tmp_path, numpy_helper.from_array(numbers, "inside"), beside)).constants
    for array in constants.values():
        np.testing.assert_array_equal(array.values, numbers)
        assert not array.values.flags.owndata
        assert not array.values.flags.writeable


def test_a_model_of_gigabytes_is_read_by_reference(tmp_path):
    """Three gigabytes beside the model, all holes: they are neither read nor copied."""
    with (tmp_path / "weights.bin").open("wb") as stream:
        stream.truncate(3 << 30)
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[3, 1 << 28], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    array = read(holding(tmp_path, tensor)).constants["t"]
    assert array.values.nbytes == 3 << 30
    assert array.values[2, -1] == 0


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (TensorProto(data_type=TensorProto.FLOAT, dims=[3], raw_data=bytes(8)), "tensor 't' must be 12 bytes for its shape (3,), not 8"),
        (
            TensorProto(data_type=TensorProto.FLOAT, dims=[300], raw_data=bytes(800)),
            FEWER.format("1200 bytes", 300, 800),
        ),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[3], float_data=[1, 2]), "tensor 't' must be 3 elements for its shape (3,), not 2"),
        (TensorProto(data_type=TensorProto.INT4, dims=[3], raw_data=b"123"), "tensor 't' must be 2 bytes for its shape (3,), not 3"),
        (TensorProto(data_type=TensorProto.INT4, dims=[3], int32_data=[1]), "tensor 't' must be 3 elements for its shape (3,), not 2"),
        (TensorProto(data_type=TensorProto.INT8, dims=[2], int32_data=[1, 300]), "tensor 't' must be well formed: 300 is no int8"),
        (
            TensorProto(data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 40]),
            f"{SIZES}, not (1099511627776, 1099511627776)",
        ),
        (
            TensorProto(data_type=TensorProto.FLOAT, dims=[-1]),
            f"{SIZES}, not (-1,)",
        ),
        (
            TensorProto(data_type=TensorProto.FLOAT, dims=[1] * 33),
            f"{SIZES}, not (1, 1, 1",
        ),
        (
            TensorProto(data_type=TensorProto.STRING, dims=[1], string_data=[b"x"]),
            f"{TYPE}, not string",
        ),
        (TensorProto(data_type=99, dims=[1]), f"{TYPE}, not 99"),
    ],
)
def test_tensors_are_refused(tmp_path, tensor, message):
    tensor.name = "t"
    with pytest.raises(NetworkError, match=f"model.onnx: {re.escape(message)}"):
        read(holding(tmp_path, tensor))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (b"\x80" * 100, ENDLESS),
        (b"\x80" * 10 + b"\x01" * 90, "a number longer than 10 bytes"),
        (b"\x01" * 99 + b"\x80", ENDLESS),
    ],
)
def test_runs_of_integers_are_refused(tmp_path, run, message):
    """Numbers that a reader by reference decodes on its own."""
    tensor = TensorProto(name="t", data_type=TensorProto.INT64, dims=[100]).SerializeToString() + b"\x3a" + _varint(len(run)) + run
    graph = b"\x2a" + _varint(len(tensor)) + tensor + b"\x62\x03\x0a\x01t"
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a\x42\x02\x10\x15\x3a" + _varint(len(graph)) + graph)
    with pytest.raises(NetworkError, match=f"tensor 't' must be well formed: {message}$"):
        read(path)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50))
def test_integers_are_decoded_as_protobuf_does(numbers):
    message = TensorProto(int64_data=numbers).SerializeToString()
    start = 2 if len(message) < 130 else 3
    assert wire.integers(np.frombuffer(message[start:], np.uint8)).tolist() == numbers


def test_integers_are_decoded_in_chunks(monkeypatch):
    monkeypatch.setattr(wire, "CHUNK", 64)
    numbers = list(range(-100, 100))
    message = TensorProto(int64_data=numbers).SerializeToString()
    assert wire.integers(np.frombuffer(message[3:], np.uint8)).tolist() == numbers


def test_what_is_widened_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WIDENED", 7)
    with pytest.raises(NetworkError, match=r"tensor 't' and those before it must be 7 bytes at most once they are widened, not more$"):
        read(holding(tmp_path, numpy_helper.from_array(np.ones(2, np.float16), "t")))


def test_packed_integers_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACKED", 99)
    with pytest.raises(
        NetworkError, match=r"tensor 't' and those before it must be at most 99 bytes of packed integers: raw_data has no limit$"
    ):
        read(holding(tmp_path, helper.make_tensor("t", TensorProto.INT32, [100], [1] * 100)))


def test_sparse_tensors_are_refused(tmp_path):
    sparse = helper.make_sparse_tensor(helper.make_tensor("s", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), [9])
    graph = helper.make_graph([], "test", [], [helper.make_tensor_value_info("s", 1, None)], sparse_initializer=[sparse])
    with pytest.raises(NetworkError, match=r"model.onnx: tensor 's' must be stored dense, not sparse$"):
        read(saved(tmp_path, graph))


# Graphs.


def test_a_graph_is_read(tmp_path):
    """Constant nodes are constants, what no output needs is gone, every kind of attribute is a Python value."""
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
        helper.make_node("Constant", [], ["unused"], value_string="text"),
        helper.make_node("Add", ["x", "c"], ["a"], domain="ai.onnx"),
        helper.make_node(
            "Odd",
            ["a", "", "w"],
            ["y", ""],
            "odd",
            domain="com.example",
            f=0.5,
            i=3,
            s="text",
            t=numpy_helper.from_array(np.arange(2)),
            fs=[0.5],
            is_=[1, 2],
            ss=["a", "b"],
        ),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, None]), helper.make_tensor_value_info("w", 1, [2])]
    weights = [numpy_helper.from_array(np.ones(2, np.float32), name) for name in ("w", "spare")]
    graph = read(holding(tmp_path, *weights, nodes=nodes, inputs=inputs, outputs=["y"]))
    assert (graph.name, graph.opset, graph.outputs, graph.batch) == ("model", 21, ("y",), 1)
    assert graph.inputs == {"x": Given(TensorProto.FLOAT, ("batch", 2, "?"))}
    assert {name: array.values.tolist() for name, array in graph.constants.items()} == {"w": [1, 1], "c": [1, 2]}
    assert [str(node) for node in graph.nodes] == ["node 'a' (Add)", "node 'odd' (Odd)"]
    assert graph.nodes[0].domain == ""
    odd = graph.nodes[1]
    assert (odd.inputs, odd.outputs, odd.domain) == (("a", "", "w"), ("y", ""), "com.example")
    array = odd.attributes["t"]
    assert array.values.tolist() == [0, 1]
    assert {**odd.attributes, "t": 0} == {"f": 0.5, "i": 3, "s": "text", "t": 0, "fs": [0.5], "is_": [1, 2], "ss": ["a", "b"]}


@pytest.mark.parametrize("opset", [11, NEWEST_OPSET])
def test_opsets(tmp_path, opset):
    assert read(saved(tmp_path, opset_imports=[helper.make_opsetid("ai.onnx", opset)])).opset == opset


@pytest.mark.parametrize("opset", [0, 10, NEWEST_OPSET + 1])
def test_other_opsets_are_refused(tmp_path, opset):
    with pytest.raises(NetworkError, match=rf"model.onnx: opset must be in \[11, {NEWEST_OPSET}\], not {opset}$"):
        read(saved(tmp_path, opset_imports=[helper.make_opsetid("", opset)] if opset else [helper.make_opsetid("com.example", 1)]))


def x(*shape, kind=TensorProto.FLOAT, name="x"):
    return helper.make_tensor_value_info(name, kind, shape)


RELU = helper.make_node("Relu", ["x"], ["y"], "first")


@pytest.mark.parametrize(
    ("nodes", "inputs", "outputs", "message"),
    [
        (
            [RELU, helper.make_node("Relu", ["x"], ["y"], "again")],
            [x(1)],
            ["y"],
            "outputs of node 'again' (Relu) must be new names, not 'y'",
        ),
        (
            [helper.make_node("Add", ["x", "b"], ["a"], "first"), helper.make_node("Relu", ["a"], ["b"])],
            [x(1)],
            ["b"],
            "inputs of node 'first' (Add) must be written before it, without a cycle, not 'b'",
        ),
        ([RELU], [x(1)], ["nowhere"], "outputs of the graph must be written by its nodes, not ['nowhere']"),
        ([RELU], [x(1), x(2)], ["y"], "name of each graph input must be its own, not 'x' again"),
        ([RELU], [x(1)], ["y", "y"], "name of each graph output must be its own, not 'y' again"),
        ([RELU], [x(1), x(1, name="")], ["y"], "name of each graph input must be its own, not ''"),
        ([RELU], [x(-2)], ["y"], f"axis 0 of graph input 'x' must be a size of 0 to {LIMIT - 1}, not -2"),
        ([RELU], [x(1, LIMIT)], ["y"], f"axis 1 of graph input 'x' must be a size of 0 to {LIMIT - 1}, not {LIMIT}"),
        ([RELU], [x(*[1] * 33)], ["y"], "shape of graph input 'x' must be at most 32 axes, not 33"),
        ([RELU], [x(1, kind=TensorProto.STRING)], ["y"], f"{GIVEN}, not string"),
        ([RELU], [onnx.ValueInfoProto(name="x")], ["y"], f"{GIVEN}, not left out"),
        (
            [RELU],
            [helper.make_tensor_sequence_value_info("x", 1, None)],
            ["y"],
            f"{GIVEN}, not sequence_type",
        ),
        (
            [helper.make_node("Constant", [], ["y"], "c", value_string="text")],
            [],
            ["y"],
            "value of node 'c' (Constant) must be numbers, not something else",
        ),
        (
            [onnx.NodeProto(op_type="Relu", input=["x"], output=["y"], attribute=[helper.make_attribute("a", 1)] * 2)],
            [x(1)],
            ["y"],
            "attribute 'a' of node 'y' (Relu) must be given once, not again",
        ),
        (
            [onnx.NodeProto(op_type="Relu", input=["x"], output=["y"], attribute=[onnx.AttributeProto(name="a")])],
            [x(1)],
            ["y"],
            "attribute 'a' of node 'y' (Relu) must be numbers, texts or tensors, not type 0",
        ),
        (
            [
                onnx.NodeProto(
                    op_type="Relu", input=["x"], output=["y"], attribute=[onnx.AttributeProto(name="a", type="INT", ref_attr_name="b")]
                )
            ],
            [x(1)],
            ["y"],
            "attribute 'a' of node 'y' (Relu) must be numbers, texts or tensors, not a reference",
        ),
        (
            [helper.make_node("Relu", ["x"], ["y" * 5000])],
            [x(1)],
            ["y"],
            f"names in the graph must be UTF-8 text of at most 4096 characters, not '{'y' * 59}...",
        ),
    ],
)
def test_graphs_are_refused(tmp_path, nodes, inputs, outputs, message):
    with pytest.raises(NetworkError, match=f"model.onnx: {re.escape(message)}$"):
        read(holding(tmp_path, nodes=nodes, inputs=inputs, outputs=outputs))


def test_constants_of_one_name_are_refused(tmp_path):
    tensor = numpy_helper.from_array(np.ones(1), "t")
    with pytest.raises(NetworkError, match=r"name of each constant must be its own, not 't' again$"):
        read(holding(tmp_path, tensor, tensor, outputs=["t"]))


def test_a_graph_without_outputs_is_refused(tmp_path):
    with pytest.raises(NetworkError, match=r"outputs of the graph must be written by its nodes, not left out$"):
        read(saved(tmp_path, helper.make_graph([RELU], "test", [x(1)], [])))


def test_names_are_text(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(whole().replace(b"product", b"\xff" * 7))
    with pytest.raises(NetworkError, match=r"names in the graph must be UTF-8 text of at most 4096 characters, not b'\\xf"):
        read(path)


# Functions.


def function(name, *nodes, inputs=("a",), outputs=("b",)):
    return helper.make_function(
        "own", name, list(inputs), list(outputs), list(nodes), [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    )


def calling(folder, *functions) -> str:
    graph = helper.make_graph(
        [helper.make_node("f0", ["x"], ["y"], domain="own")], "test", [x(1, 2)], [helper.make_tensor_value_info("y", 1, None)]
    )
    return saved(folder, graph, functions=list(functions), opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("own", 1)])


def chain(count, calls):
    """Functions that each call the next so many times."""
    made = []
    for at in range(count):
        names = ["a", *(f"t{i}" for i in range(calls - 1)), "b"]
        inner = ("Relu", "") if at == count - 1 else (f"f{at + 1}", "own")
        made.append(function(f"f{at}", *(helper.make_node(inner[0], [names[i]], [names[i + 1]], domain=inner[1]) for i in range(calls))))
    return made


def test_functions_are_written_out(tmp_path):
    graph = read(calling(tmp_path, *chain(3, 2)))
    assert [node.kind for node in graph.nodes] == ["Relu"] * 8


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (
            [function("f0", helper.make_node("f0", ["a"], ["b"], domain="own"))],
            "functions of the network must not call themselves, unlike 'f0'",
        ),
        (chain(60, 2), "network must have at most 65536 nodes once its functions are written out, not more"),
        (chain(1025, 1), "functions of the network must be at most 1024, not 1025"),
        (chain(99, 1), "functions of the network must call each other at most 64 deep, unlike 'f64'"),
    ],
)
def test_functions_are_refused(tmp_path, functions, message):
    """What would never end, or be far too long, is found before it is written out."""
    with pytest.raises(NetworkError, match=f"model.onnx: {re.escape(message)}$"):
        read(calling(tmp_path, *functions))


# Bombs.


def test_a_model_of_many_fields_is_refused(tmp_path):
    """Two bytes a node in the file are a hundred in memory: they are counted first."""
    graph = b"\x0a\x00" * (wire.FIELDS + 1)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a\x3a" + _varint(len(graph)) + graph)
    with pytest.raises(NetworkError, match=rf"network must have at most {wire.FIELDS} names, attributes and other fields, not more$"):
        read(path)


def test_a_model_of_many_nodes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NODES", 1)
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["spare"])]
    with pytest.raises(NetworkError, match=r"network must have at most 1 nodes, not 2$"):
        read(holding(tmp_path, nodes=nodes, inputs=[x(1)], outputs=["y"]))


def test_a_model_of_long_names_is_refused(tmp_path):
    graph = helper.make_graph([helper.make_node("Relu", ["x" * (wire.STRUCTURE + 1)], ["y"])], "test", [], [x(1, name="y")])
    with pytest.raises(
        NetworkError, match=rf"network must have at most {wire.STRUCTURE} bytes beside the numbers of its tensors, not more$"
    ):
        read(saved(tmp_path, graph))


def nested(depth):
    graph = helper.make_graph([], "g", [], [])
    for _ in range(depth):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=graph)], "g", [], [])
    return graph


def test_graphs_in_graphs_are_refused(tmp_path):
    with pytest.raises(NetworkError, match=r"network must be nested at most 32 messages deep, not more$"):
        read(saved(tmp_path, nested(11)))


def test_graphs_in_attributes_are_left_out(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("If", ["x"], ["y"], then_branch=nested(1))], "g", [x(1, kind=TensorProto.BOOL)], [x(1, name="y")]
    )
    (node,) = read(saved(tmp_path, graph)).nodes
    assert (node.kind, node.attributes) == ("If", {})


def test_what_nothing_reads_costs_nothing(tmp_path):
    """Texts, and shapes that another tool has inferred, may be as long as they like."""
    graph = helper.make_graph([RELU], "test", [x(1)], [x(1, name="y")], doc_string="x" * (wire.STRUCTURE + 1))
    assert len(read(saved(tmp_path, graph)).nodes) == 1


def test_loops_of_links_are_refused(tmp_path):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(NetworkError, match=r"network must be readable, not what gives 'Too many levels of symbolic links'$"):
        read(tmp_path / "a")
    external(tmp_path, location="a")
    with pytest.raises(NetworkError, match=r"Too many levels of symbolic links"):
        read(tmp_path / "model.onnx")


def test_external_data_is_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    name = external(tmp_path, location="pipe")
    with pytest.raises(NetworkError, match=f"external data of '{name}' must be a file, not 'pipe'$"):
        read(tmp_path / "model.onnx")
    with pytest.raises(NetworkError, match=r"pipe: network must be an ONNX file, not a special file$"):
        read(tmp_path / "pipe")
