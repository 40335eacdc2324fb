"""Inputs that no importer should trip over: damaged models, topologies and configurations, each from a number.

Models are damaged byte by byte, field by field (protobuf's own structure, whatever it says) and by invention: graphs of any operator with
any attributes on any tensors. Every input depends on its number alone.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import accel
from accel import presets
from accel.config import AcceleratorConfig, FunctionConfig, RbfConfig
from accel.errors import AccelError
from accel.graph.topology import load_architecture, load_topology

F32 = np.float32
LARGEST = 4096  # elements of a constant that is made up
EXPECTED = "standard normal"  # the one warning a float model may give
INTEGERS = [
    -1,
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    33,
    127,
    128,
    255,
    256,
    65535,
    1 << 24,
    1 << 31,
    (1 << 31) - 1,
    1 << 32,
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 1e38, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    "",
    "x",
    "y",
    "w",
    "\0",
    "../x",
    "/dev/zero",
    "/etc/passwd",
    "é" * 9,
    "a" * 5000,
    "ai.onnx",
    "com.microsoft",
    "Relu",
    "If",
    "SAME_UPPER",
    "%s%n",
]


@dataclass(frozen=True, slots=True)
class Input:
    """One input.

    Parameters
    ----------
    kind : str
        How it was made.
    path : Path
        Its file.
    read : callable
        Takes the path.
    """

    kind: str
    path: Path
    read: Callable[[Path], Any]

    def run(self) -> str:
        """Read the file: "accepted", or "refused" with a plain error; any other exception, or a warning, is a failure and goes on."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=f".*{EXPECTED}")
            try:
                self.read(self.path)
                said = None
            except AccelError as error:
                said = str(error)
        if said is not None and not 0 < len(said.strip()) < 20000:
            raise AssertionError(f"an error must say something, and be short, not {len(said)} characters")
        return "accepted" if said is None else "refused"


# Models that are right.


def _model(
    nodes: list[NodeProto], inputs: list[Any], outputs: list[str], arrays: dict[str, Any], opset: int = 21, **more: Any
) -> ModelProto:
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()
    ]
    taken = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    given = [helper.make_tensor_value_info(*each) for each in inputs]
    domains = {"": opset, **{node.domain: 1 for node in nodes if node.domain}}
    opsets = [helper.make_opsetid(*each) for each in domains.items()]
    return helper.make_model(helper.make_graph(nodes, "graph", given, taken, tensors), opset_imports=opsets, ir_version=10, **more)


def _node(text: str, **attributes: Any) -> NodeProto:
    """Make the node of ``outputs = Kind inputs``, names separated by blanks, ``-`` for one left out."""
    left, right = text.split("=")
    kind, *inputs = right.split()
    domain, _, kind = kind.rpartition(":")
    return helper.make_node(kind, ["" if name == "-" else name for name in inputs], left.split(), domain=domain, **attributes)


def _qdq() -> ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        _node("q = QuantizeLinear x s z"),
        _node("d = DequantizeLinear q s z"),
        _node("wd = DequantizeLinear w ws wz", axis=0),
        _node("c = Conv d wd b", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _node("r = Relu c"),
        _node("rq = QuantizeLinear r s z"),
        _node("rd = DequantizeLinear rq s z"),
        _node("p = MaxPool rd", kernel_shape=[2, 2], strides=[2, 2]),
        _node("sh = Shape p"),
        _node("n = Gather sh i"),
        _node("u = Unsqueeze n zero"),
        _node("t = Concat u rest", axis=0),
        _node("f = Reshape p t"),
        _node("gd = DequantizeLinear g gs"),
        _node("m = Gemm f gd", transB=1),
        _node("mq = QuantizeLinear m s z"),
        _node("y = DequantizeLinear mq s z"),
    ]
    arrays = {
        "s": F32(0.1), "z": np.uint8(128), "w": rng.integers(-99, 99, (4, 2, 3, 3), np.int8), "ws": np.full(4, 0.02, F32),
        "wz": np.zeros(4, np.int8), "b": np.ones(4, F32), "i": np.array(0), "zero": np.array([0]), "rest": np.array([-1]),
        "g": rng.integers(-99, 99, (3, 36), np.int8), "gs": F32(0.01),
    }  # fmt: skip
    return _model(nodes, [("x", 1, ["n", 2, 6, 6])], ["y"], arrays)


def _qoperator() -> ModelProto:
    nodes = [
        _node("q = QuantizeLinear x s z"),
        _node("c = QLinearConv q s z w s wz s z b"),
        _node("a = com.microsoft:QLinearAdd c s z c s z s z"),
        _node("p = com.microsoft:QLinearGlobalAveragePool a s z s z", channels_last=0),
        _node("f = Flatten p"),
        _node("m = QLinearMatMul f s z g s wz s z"),
        _node("y = DequantizeLinear m s z"),
    ]
    arrays = {
        "s": F32(0.1), "z": np.uint8(3), "wz": np.int8(0), "w": np.ones((4, 2, 3, 3), np.int8), "b": np.ones(4, np.int32),
        "g": np.ones((4, 3), np.int8),
    }  # fmt: skip
    return _model(nodes, [("x", 1, [1, 2, 5, 5])], ["y"], arrays)


def _qonnx() -> ModelProto:
    kind = "qonnx.custom_op.general:Quant"
    nodes = [
        _node(f"a = {kind} x s z b", signed=1, narrow=0, rounding_mode="ROUND"),
        _node(f"wq = {kind} w s z b", signed=1, narrow=1, rounding_mode="ROUND"),
        _node("m = MatMul a wq"),
        _node(f"y = {kind} m s z b", signed=0, narrow=0, rounding_mode="FLOOR"),
    ]
    return _model(nodes, [("x", 1, [1, 4])], ["y"], {"s": F32(0.25), "z": F32(0), "b": F32(4), "w": np.ones((4, 3), F32)})


def _transformer() -> ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        _node("l = LayerNormalization x g b", axis=-1),
        _node("q = MatMul l w"),
        _node("h = Reshape q hs"),
        _node("t = Transpose h", perm=[0, 2, 1, 3]),
        _node("k = Transpose h", perm=[0, 2, 3, 1]),
        _node("a = MatMul t k"),
        _node("e = Mul a half"),
        _node("p = Softmax e", axis=-1),
        _node("o = MatMul p t"),
        _node("ot = Transpose o", perm=[0, 2, 1, 3]),
        _node("or = Reshape ot xs"),
        _node("z = Add or x"),
        _node("s0 s1 = Split z parts", axis=-1),
        _node("gelu = Gelu s0"),
        _node("c = Concat gelu s1", axis=-1),
        _node("y = ReduceMean c axes", keepdims=0),
    ]
    arrays = {
        "g": np.ones(8, F32), "b": np.zeros(8, F32), "w": rng.standard_normal((8, 8), F32), "hs": np.array([1, 5, 2, 4]), "half": F32(0.5),
        "xs": np.array([1, 5, 8]), "parts": np.array([4, 4]), "axes": np.array([1]),
    }  # fmt: skip
    return _model(nodes, [("x", 1, ["n", 5, 8])], ["y"], arrays)


def _old() -> ModelProto:
    nodes = [
        _node("c = Conv x w -", auto_pad="SAME_UPPER", group=2),
        _node("n = BatchNormalization c o o o o"),
        _node("l = Clip n lo hi"),
        _node("u = Unsqueeze l", axes=[4]),
        _node("v = Squeeze u", axes=[4]),
        _node("s0 s1 = Split v", axis=1, split=[1, 1]),
        _node("d = Dropout s0", ratio=0.5),
        _node("e = Resize d - scales", mode="nearest"),
        _node("r = ReduceMax e", axes=[2, 3], keepdims=0),
        _node("y = Softmax r"),
    ]
    arrays = {"w": np.ones((2, 1, 3, 3), F32), "o": np.ones(2, F32), "lo": F32(0), "hi": F32(6), "scales": np.array([1, 1, 2, 2], F32)}
    return _model(nodes, [("x", 1, [4, 2, 6, 6])], ["y"], arrays, opset=11)


def _functions() -> ModelProto:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    inner = helper.make_function("own", "inner", ["a"], ["b"], [_node("b = Relu a")], opsets)
    outer = helper.make_function("own", "outer", ["a"], ["b"], [_node("t = own:inner a"), _node("b = own:inner t")], opsets)
    branch = helper.make_graph([_node("z = Relu x")], "branch", [], [helper.make_tensor_value_info("z", 1, None)])
    nodes = [_node("o = own:outer x"), _node("c = Constant", value_ints=[1]), _node("y = Add o x")]
    nodes.append(helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch))
    return _model(nodes, [("x", 1, [1, 4])], ["y"], {"yes": np.array(True)}, functions=[inner, outer])


def _external() -> ModelProto:
    """Make a model with tensors in a file beside it, which :func:`_beside` writes."""
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "beside.bin"), ("offset", "16"), ("length", "64")):
        w.external_data.add(key=key, value=value)
    return _model([_node("m = MatMul x w"), _node("y = Relu m")], [("x", 1, [1, 4])], ["y"], {"w": w})


def _types() -> ModelProto:
    """Make a model with a tensor of each type, in its own field."""
    kinds = [kind for kind in (*range(1, 8), *range(9, 14), 16, 21, 22) if kind != TensorProto.STRING]
    tensors = {f"c{kind}": helper.make_tensor(f"c{kind}", kind, [70], [1] * 70) for kind in kinds}
    nodes = [_node(f"f{kind} = Cast c{kind}", to=1) for kind in kinds]
    nodes += [_node(f"s = Sum {' '.join(f'f{kind}' for kind in kinds)}"), _node("y = Add x s")]
    return _model(nodes, [("x", 1, [1, 70])], ["y"], tensors)


@cache
def models() -> dict[str, bytes]:
    """Models that are right, by name."""
    builders = (_qdq, _qoperator, _qonnx, _transformer, _old, _functions, _external, _types)
    return {builder.__name__[1:]: builder().SerializeToString() for builder in builders}


def _beside(folder: Path) -> None:
    """Write what a hostile model may ask for: numbers, a link out of the folder, a loop of links, a pipe, a folder."""
    if (folder / "beside.bin").exists():
        return
    (folder / "x").symlink_to("/etc/hostname")
    (folder / "loop").symlink_to("loop")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "beside.bin").write_bytes(bytes(range(80)))


# Damage.


def _bytes(rng: random.Random) -> bytes:
    """Change a few bytes, or cut, double or move a run of them."""
    content = bytearray(rng.choice([*models().values()]))
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, length = rng.randrange(len(content)), rng.choice([1, 2, 5, 30])
        match rng.randrange(6):
            case 0:
                content[at] = rng.randrange(256)
            case 1:
                content[at] ^= 1 << rng.randrange(8)
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length] * rng.choice([1, 2, 9])
            case 4:
                content[at:at] = rng.randbytes(length)
            case _:
                content = content[: max(at, 1)] if rng.random() < 0.2 else content
        content = content or bytearray(b"\0")
    return bytes(content)


def _fields(rng: random.Random) -> bytes:
    """Change a few fields of the messages, whatever they are."""
    model = ModelProto.FromString(rng.choice([*models().values()]))
    for _ in range(rng.choice([1, 1, 2, 4, 12])):
        message: Any = model
        while True:
            found = [(field, value) for field, value in message.ListFields() if field.message_type is not None]
            if not found or (message is not model and rng.random() < 0.3):
                break
            _, value = rng.choice(found)
            message = value if hasattr(value, "ListFields") else rng.choice(value)
        _change(rng, message)
    return bytes(model.SerializeToString())


def _repeated(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", False) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _change(rng: random.Random, message: Any) -> None:
    """Change one field of a message."""
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.8 else message.DESCRIPTOR.fields)
    if _repeated(field):
        values = getattr(message, field.name)
        action = rng.randrange(5)
        if len(values) and action == 0:
            del values[rng.randrange(len(values))]
        elif len(values) and action == 1:
            chosen = rng.choice(values)
            for _ in range(rng.choice([1, 1, 30])):
                values.extend([chosen])
        elif len(values) > 1 and action == 2 and field.message_type is not None:
            one, other = rng.sample(range(len(values)), 2)
            values[one].CopyFrom(values[other])
        elif field.message_type is None:
            if len(values):
                values[rng.randrange(len(values))] = _value(rng, field)
            else:
                values.append(_value(rng, field))
        else:
            values.add()
    elif field.message_type is not None:
        message.ClearField(field.name)
        getattr(message, field.name).SetInParent()
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(rng, field))


def _value(rng: random.Random, field: Any) -> Any:
    """Value of a field, of its type."""
    if field.enum_type is not None:
        return rng.choice([value.number for value in field.enum_type.values])
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == field.TYPE_BYTES:
        return rng.choice([rng.randbytes(rng.randrange(90)), *(text.encode() for text in TEXTS)])
    if field.type == field.TYPE_STRING:
        return rng.choice([*TEXTS, "beside.bin", "loop", "pipe", "sub", "sub/../x", *NAMES])
    low, high = (-(1 << 31), (1 << 31) - 1) if field.cpp_type == field.CPPTYPE_INT32 else (-(1 << 63), (1 << 63) - 1)
    low, high = (0, (1 << 64) - 1) if field.cpp_type == field.CPPTYPE_UINT64 else (low, high)
    return rng.choice([value for value in [*INTEGERS, rng.randrange(40)] if low <= value <= high])


NAMES = ["q", "d", "s", "z", "c", "a", "m", "p", "t", "b", "own", "inner", "outer"]


# Invention.


INDEXED = {
    "Reshape",
    "Expand",
    "Tile",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "ReduceMean",
    "ReduceMax",
    "Split",
    "Gather",
    "Pad",
    "Range",
    "ConstantOfShape",
    "Resize",
}


@cache
def _schemas() -> list[onnx.defs.OpSchema]:
    return [schema for schema in onnx.defs.get_all_schemas() if schema.domain == ""]


@cache
def _likely() -> list[onnx.defs.OpSchema]:
    """Operators that networks are made of."""
    kinds = (
        "Conv ConvTranspose Gemm MatMul Add Sub Mul Div Relu Clip Sigmoid Softmax LayerNormalization MaxPool AveragePool GlobalAveragePool "
        "Concat Split Slice Gather Pad Flatten Reshape Transpose Squeeze Unsqueeze Expand ReduceMean ReduceMax ArgMax Resize Identity Cast "
        "BatchNormalization "
        "QuantizeLinear DequantizeLinear Shape Tile ConstantOfShape Range Where Pow Sqrt Erf Gelu HardSwish LeakyRelu Tanh "
        "QLinearConv QLinearMatMul ConvInteger MatMulInteger DynamicQuantizeLinear"
    )
    return [onnx.defs.get_schema(kind, 21, "") for kind in kinds.split()]


def _graphs(rng: random.Random) -> bytes:
    """Make a graph of any operators on any tensors; most follow ONNX's rules, so that what comes after them is reached."""
    opset = rng.choice([11, 13, 17, 21, 23])
    strict = rng.random() < 0.8
    first: list[Any] = [rng.choice([1, 1, 1, "n", 2, 4])]
    extents = first + [rng.choice([1, 2, 3, 4, 8]) for _ in range(rng.choice([0, 1, 1, 2, 3, 3, 4]))]
    kind = rng.choice([1] * 9 + [2, 3, 6, 7, 9, 10, 16])
    types = {"x": helper.make_tensor_type_proto(kind, extents)}
    arrays: dict[str, TensorProto] = {}
    nodes: list[NodeProto] = []
    wanted = rng.randrange(1, 8)
    for _ in range(12 * wanted):
        node = _candidate(rng, len(nodes), types, arrays)
        found = _outputs(node, opset, types, arrays)
        if strict and found is None:
            continue
        nodes.append(node)
        types.update(found or dict.fromkeys(node.output, types["x"]))
        if len(nodes) == wanted:
            break
    written = [name for node in nodes for name in node.output] or ["x"]
    outputs = rng.sample(written[-3:], rng.randint(1, min(2, len(written))))
    return bytes(_model(nodes, [("x", kind, extents)], outputs, arrays, opset).SerializeToString())


def _candidate(rng: random.Random, at: int, types: dict[str, Any], arrays: dict[str, TensorProto]) -> NodeProto:
    """Make a node on tensors that are there, and new constants where they would do."""
    schema = rng.choice(_likely() if rng.random() < 0.85 else _schemas())
    low, high = schema.min_input, min(max(schema.max_input, schema.min_input), 6)
    inputs: list[str] = []
    for place in range(rng.randint(min(low, 6), max(low, high))):
        known = [name for name in types if name not in arrays]
        if rng.random() < (0.1 if place == 0 else 0.75):
            name = f"c{len(arrays)}"
            arrays[name] = numpy_helper.from_array(_constant(rng, schema.name, place, [types[each] for each in inputs if each]), name)
            types[name] = helper.make_tensor_type_proto(arrays[name].data_type, arrays[name].dims)
        else:
            name = rng.choice([known[-1], *known]) if rng.random() < 0.98 else rng.choice(["", *types])
        inputs.append(name)
    outputs = [f"t{at}_{place}" for place in range(max(schema.min_output, 1))]
    node = helper.make_node(schema.name, inputs, outputs, domain=rng.choice([""] * 40 + ["com.microsoft", "own"]))
    for name, kind in schema.attributes.items():
        value = _attribute(rng, kind) if kind.required or rng.random() < 0.3 else None
        if value is not None:
            node.attribute.append(helper.make_attribute(name, value))
    return node


def _constant(rng: random.Random, kind: str, place: int, types: list[Any]) -> Any:
    """Constant that an operator may take: sizes and axes, a scale, or an array that fits what it meets."""
    shape = [extent.dim_value or 1 for extent in types[0].tensor_type.shape.dim] if types else []
    if kind in INDEXED and place > 0 and rng.random() < 0.9:
        numbers = [rng.choice([-1, 0, 1, 1, 2, 3, *shape]) for _ in range(rng.choice([1, 1, len(shape) or 1, 2 * len(shape) or 1]))]
        return np.array(numbers, np.int64)
    if kind.endswith(("QuantizeLinear", "DequantizeLinear")):
        if place == 1:
            return np.array(rng.choice([0.1, 0.02, 1.0]), F32)
        return np.array(rng.choice([0, 1, 127]), rng.choice([np.int8, np.uint8]))
    if kind.endswith(("Conv", "ConvTranspose", "ConvInteger")) and place > 0 and len(shape) > 1:
        return _array(
            rng,
            [rng.choice([1, 2, shape[1]]), shape[1] if rng.random() < 0.8 else 1, *[rng.choice([1, 2, 3]) for _ in shape[2:]]][
                : 1 if place == 2 else 9
            ],
        )
    if kind in ("MatMul", "Gemm") and place == 1 and shape:
        return _array(rng, [shape[-1], rng.choice([1, 3, 4])])
    return _array(rng, rng.choice([shape, shape[-1:], [], [1] * len(shape), [rng.choice([1, 2, 3, 4]) for _ in range(rng.randrange(5))]]))


def _outputs(node: NodeProto, opset: int, types: dict[str, Any], arrays: dict[str, TensorProto]) -> dict[str, Any] | None:
    """Types of what a node writes, or None if it breaks ONNX's rules or they do not follow."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        given = {name: types[name] for name in node.input if name}
        found = onnx.shape_inference.infer_node_outputs(schema, node, given, arrays, opset_imports=[helper.make_opsetid("", opset)])
    except Exception:  # whatever the library finds
        return None
    shaped = all(name in found and found[name].tensor_type.HasField("shape") for name in node.output)
    return found if shaped else None


def _array(rng: random.Random, shape: list[int]) -> Any:
    shape = shape if min(shape, default=0) >= 0 and np.prod(shape, dtype=float) <= LARGEST else [1]
    dtype: Any = rng.choice([F32] * 12 + [np.int64, np.int8, np.uint8, np.int32, np.float16, np.bool_, np.float64])
    strange = FLOATS if rng.random() < 0.1 else []
    numbers = [rng.choice([0, 1, 2, 3, -1, 100, rng.random(), *strange]) for _ in range(int(np.prod(shape)))]
    with np.errstate(all="ignore"):
        array: Any = np.array(numbers, np.float64).reshape(shape).astype(dtype)
    if dtype == np.int64 and array.size and rng.random() < 0.1:
        array.flat[rng.randrange(array.size)] = rng.choice(INTEGERS)
    return array


MODES = ["constant", "edge", "reflect", "nearest", "linear", "SAME_UPPER", "VALID", "NOTSET", "floor", "asymmetric", ""]


def _attribute(rng: random.Random, attribute: Any) -> Any:
    """Value of an attribute; None for a kind that is not made up here."""
    small = [-1, 0, 1, 1, 2, 2, 3, 4]
    match attribute.type.name:
        case "INT":
            return rng.choice(small if rng.random() < 0.9 else INTEGERS)
        case "INTS":
            return [rng.choice(small if rng.random() < 0.95 else INTEGERS) for _ in range(rng.choice([1, 2, 2, 3, 4]))]
        case "FLOAT":
            return rng.choice(FLOATS)
        case "FLOATS":
            return [rng.choice(FLOATS) for _ in range(rng.randrange(1, 4))]
        case "STRING":
            return rng.choice(
                ["constant", "edge", "reflect", "nearest", "linear", "SAME_UPPER", "VALID", "NOTSET", "floor", "asymmetric", ""]
            )
        case "TENSOR":
            return numpy_helper.from_array(_array(rng, [1]), "value")
        case _:
            return None


# Texts.


@cache
def _texts() -> dict[str, list[str]]:
    topologies = [
        "Layer, H, W, FH, FW, C, N, S,\nconv1, 224, 224, 7, 7, 3, 64, 2,\nDP, 14, 14, 3, 3, 4, 1, 1,\nfc, 1, 1, 1, 1, 512, 1000, 1, 2:4,\n",
        "Layer, M, N, K,\nfirst, 100, 64, 32,\n# comment\nsecond, 1, 1, 1, 1:4\n",
    ]
    architectures = [
        "\n".join(
            [
                "[general]",
                "run_name=test",
                "[architecture_presets]",
                "ArrayHeight:32",
                "ArrayWidth:32",
                "IfmapSramSzkB:64",
                "FilterSramSzkB:64",
                "OfmapSramSzkB:64",
                "Dataflow:os",
                "Bandwidth:10",
                "[sparsity]",
                "SparsitySupport:false",
                "[run_presets]",
                "InterfaceBandwidth:CALC",
            ]
        )
    ]
    folder = Path(presets.__file__).parent
    return {"topology": topologies, "cfg": architectures, "yaml": [path.read_text() for path in sorted(folder.rglob("*.yaml"))]}


def _text(rng: random.Random, kind: str) -> bytes:
    """Change a few characters, words or lines."""
    text = rng.choice(_texts()[kind])
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at, length = rng.randrange(len(text) + 1), rng.choice([1, 3, 20])
        match rng.randrange(5):
            case 0:
                text = text[:at] + text[at + length :]
            case 1:
                text = (
                    text[:at]
                    + rng.choice(
                        ["\n", ",", ":", "-", "#", "[", "]", "{", "&a ", "*a", "!!python/object:os.system ", "\0", "\t", "é", "\ufeff", "'"]
                    )
                    + text[at:]
                )
            case 2:
                text = text[:at] + str(rng.choice([*INTEGERS, *FLOATS, "1e999", "0x10", "1_0", "9" * 5000])) + text[at + length :]
            case 3:
                text = text[:at] + text[at : at + length] * rng.choice([2, 50]) + text[at:]
            case _:
                lines = text.split("\n")
                rng.shuffle(lines)
                text = "\n".join(lines)
    content = text.encode()
    return content if rng.random() < 0.95 else content.replace(b"e", rng.choice([b"\xff", b"\x80", b"\r"]))


def _preset(path: Path) -> Any:
    text = path.read_bytes()
    kind = RbfConfig if b"neurons" in text else FunctionConfig if b"function" in text else AcceleratorConfig
    return presets.load(path, kind)


SOURCES: dict[str, tuple[str, Callable[[random.Random], bytes], Callable[[Path], Any]]] = {
    "bytes": (".onnx", _bytes, accel.load),
    "fields": (".onnx", _fields, accel.load),
    "graphs": (".onnx", _graphs, accel.load),
    "topology": (".csv", lambda rng: _text(rng, "topology"), accel.load),
    "columns": (".csv", lambda rng: _text(rng, "topology"), load_topology),
    "cfg": (".cfg", lambda rng: _text(rng, "cfg"), load_architecture),
    "yaml": (".yaml", lambda rng: _text(rng, "yaml"), _preset),
}
WEIGHTS = {"bytes": 25, "fields": 35, "graphs": 30, "topology": 3, "columns": 1, "cfg": 3, "yaml": 3}


def make(number: int, folder: Path, kind: str | None = None) -> Input:
    """Write the input of a number into a folder of its own.

    Parameters
    ----------
    number : int
    folder : Path
        Exists; what a model may ask for lies in it afterwards.
    kind : str, optional
        Of :data:`SOURCES`; otherwise it follows from the number.
    """
    rng = random.Random(number)
    kind = kind or rng.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
    suffix, content, read = SOURCES[kind]
    _beside(folder)
    path = folder / f"input{suffix}"
    path.write_bytes(content(rng))
    return Input(kind, path, read)
