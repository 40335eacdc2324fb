"""Operators of QONNX, the format of Brevitas, written as QuantizeLinear and DequantizeLinear.

QONNX keeps quantised values as reals on a grid of any width and says how they are rounded and bounded. Here the grid of an activation is
that of the narrowest ONNX type that holds its width, with QONNX's bounds as `lo` and `hi` of the QuantizeLinear; weights become integers.

- QONNX adds the zero point before it rounds, ONNX after. That differs at exact ties if the zero point is odd: ONNX's rule is kept.
- Rounding modes of an activation are ROUND, FLOOR and, where no integer is negative, DOWN (toward 0) and HALF_UP, which are FLOOR and
  half up there. Weights are rounded here, so any mode will do.
- BipolarQuant of an activation, ``scale`` where ``x >= 0`` and ``-scale`` elsewhere, is ``floor(x / (2 * scale))`` kept in -1..0, less its
  own place: two quantisers and an addition, all exact.
- Trunc divides integers by a power of two and rounds. Its input lies on the grid of its scale, as QONNX demands, so its inner rounding
  changes nothing, and one QuantizeLinear does the rest.

References
----------
.. [1] QONNX, operator definitions, docs/qonnx-custom-ops: IntQuant and BipolarQuant version 1, Trunc versions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from accel.errors import NetworkError
from accel.graph.edit import KINDS, Editor, Grid, check, grid, numpy_type
from accel.graph.graph import Array, Graph, Node

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
WIDEST = 16  # bits of an activation; a constant may have up to 32, the width of a bias

MODES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "FLOOR": np.floor,
    "CEIL": np.ceil,
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "UP": lambda x: np.copysign(np.ceil(np.abs(x)), x),
    "HALF_UP": lambda x: np.copysign(np.floor(np.abs(x) + np.float32(0.5)), x),
    "HALF_DOWN": lambda x: np.copysign(np.ceil(np.abs(x) - np.float32(0.5)), x),
}
"""Rounding modes by name; those of halves are symmetric about 0."""


def rewrite(graph: Graph) -> Graph:
    """Bring the operators of QONNX down to QuantizeLinear and DequantizeLinear.

    Parameters
    ----------
    graph : Graph
        Constants bound.

    Returns
    -------
    Graph

    Raises
    ------
    NetworkError
        If a parameter is not constant or breaks its rule, or an operator of these domains is another one; the message names the node.
    """
    editor = Editor(graph)
    rules = {"Quant": (_quant, 4), "IntQuant": (_quant, 4), "BipolarQuant": (_bipolar, 2), "Trunc": (_trunc, 5)}
    for node in graph.nodes:
        if node.domain not in DOMAINS:
            editor.keep(node)
        elif node.kind not in rules:
            raise NetworkError(f"operator of {node} must be one of {', '.join(rules)}, not {node.domain}.{node.kind}")
        else:
            rule, inputs = rules[node.kind]
            check(node, inputs)
            rule(editor, node)
    return editor.finish()


def _parameter(editor: Editor, node: Node, index: int, name: str) -> NDArray[np.float32]:
    """Constant float input."""
    array = editor.array(node, index, name)
    if array is None:
        raise NetworkError(f"{name} of {node} must be given, not left out")
    with np.errstate(over="ignore"):
        return np.asarray(array.values, np.float32)


def _width(editor: Editor, node: Node, index: int, name: str, most: int) -> int:
    """Constant input that is a width [bits]."""
    widths = np.unique(_parameter(editor, node, index, name))
    if widths.size != 1 or widths[0] != np.rint(widths[0]) or not 1 <= widths[0] <= most:
        raise NetworkError(f"{name} of {node} must be one integer in [1, {most}], not {' and '.join(f'{width:g}' for width in widths[:2])}")
    return int(widths[0])


def _bounds(node: Node, bits: int) -> tuple[int, int]:
    """Least and greatest integer of a width, by the attributes signed and narrow."""
    narrow = int(bool(node.attributes.get("narrow", 0)))
    if node.attributes.get("signed", 1):
        return narrow - (1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - narrow


def _mode(node: Node, default: str) -> str:
    """Return the rounding mode in capitals."""
    mode = str(node.attributes.get("rounding_mode", default)).upper()
    if mode not in MODES:
        raise NetworkError(f"rounding_mode of {node} must be one of {', '.join(MODES)}, not {mode}")
    return mode


def _rounding(node: Node, mode: str, lo: int) -> str:
    """Find the rounding of a QuantizeLinear whose integers are at least `lo`."""
    if mode in ("ROUND", "HALF_EVEN"):
        return "half_even"
    if mode == "FLOOR" or (mode in ("DOWN", "ROUND_TO_ZERO") and lo >= 0):
        return "floor"
    if mode == "HALF_UP" and lo >= 0:
        return "half_up"
    rule = "ROUND or FLOOR for an activation (DOWN and HALF_UP too if it is unsigned)"
    raise NetworkError(f"rounding_mode of {node} must be {rule}, not {mode}")


def _kind(lo: int, hi: int) -> int:
    """Find the narrowest ONNX type, of 8 bits or more, that holds integers of a range; the signed one where both do."""
    for kind in (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16):
        if KINDS[kind].lo <= lo and hi <= KINDS[kind].hi:
            return kind
    return TensorProto.INT32


def _checked(node: Node, of: Grid) -> Grid:
    """Grid whose zero points its type holds."""
    if of.kind in KINDS and not (KINDS[of.kind].lo <= of.zero.min() and of.zero.max() <= KINDS[of.kind].hi):
        limits = f"[{KINDS[of.kind].lo}, {KINDS[of.kind].hi}]"
        raise NetworkError(f"zeropt of {node} must be in {limits}, not {of.zero.min()}..{of.zero.max()}")
    return of


def _quantiser(editor: Editor, node: Node, x: str, of: Grid, output: str, *, rounding: str, lo: int, hi: int) -> str:
    """Add a QuantizeLinear with bounds and rounding, and return its integers."""
    _checked(node, of)
    attributes: dict[str, object] = {} if rounding == "half_even" else {"rounding": rounding}
    if (lo, hi) != (KINDS[of.kind].lo, KINDS[of.kind].hi):
        attributes |= {"lo": lo, "hi": hi}
    return editor.quantise(x, of, editor.fresh(f"{output}/integers"), name=node.name, attributes=attributes)


def _quant(editor: Editor, node: Node) -> None:
    """``clip(round(x / scale + zeropt)) - zeropt) * scale``."""
    x, output = editor.names(node)[0], node.outputs[0]
    constant, mode = editor.constants.get(x), _mode(node, "ROUND")
    bits = _width(editor, node, 3, "bitwidth", WIDEST if constant is None else 32)
    scale, zero = _parameter(editor, node, 1, "scale"), _parameter(editor, node, 2, "zeropt")
    if bits == 1 and node.attributes.get("signed", 1):
        if zero.any():
            raise NetworkError(f"zeropt of {node} must be 0 for a signed width of 1, not {zero.ravel()[zero.ravel() != 0][0]:g}")
        return _signs(editor, node, scale)
    lo, hi = _bounds(node, bits)
    of = grid(node, scale, zero, _kind(lo, hi))
    if constant is None:
        integers = _quantiser(editor, node, x, of, output, rounding=_rounding(node, mode, lo), lo=lo, hi=hi)
        editor.dequantise(integers, of, output)
    else:
        _weights(editor, node, constant, of, _steps(node, constant, scale, zero, (lo, hi), mode) if constant.known else None)


def _steps(
    node: Node, constant: Array, scale: NDArray[np.float32], zero: NDArray[np.float32], bounds: tuple[int, int], mode: str
) -> NDArray[np.float32]:
    """Integers of a constant, as reals: bounded before they are rounded, in float32."""
    shape, values = constant.values.shape, constant.values
    if values.dtype != np.float32 or np.isnan(values).any():
        raise NetworkError(f"input 0 of {node} must be float32 without NaN, not {'NaN' if values.dtype == np.float32 else values.dtype}")
    try:
        widened = np.broadcast_shapes(shape, scale.shape, zero.shape) != shape
    except ValueError:
        widened = True
    if widened:
        raise NetworkError(f"scale of {node} must be of a shape that broadcasts to {shape}, not {scale.shape}")
    with np.errstate(over="ignore"):
        return MODES[mode](np.clip(values / scale + zero, np.float32(bounds[0]), np.float32(bounds[1])).astype(np.float32))


def _weights(editor: Editor, node: Node, constant: Array, of: Grid, integers: NDArray[np.float32] | None) -> None:
    """Write constant integers; None where they are not known."""
    kind, shape = _checked(node, of).kind, constant.values.shape
    if of.axis is not None and (not -len(shape) <= of.axis or shape[of.axis] != of.scale.size):
        raise NetworkError(f"scale of {node} must be of a shape that broadcasts to {shape}, not of {of.scale.size} numbers")
    array = Array.unknown(shape, kind) if integers is None else Array(_integers(integers, kind), kind)
    name = editor.constant(f"{node.outputs[0]}/integers", array)
    if of.axis is not None:
        of = Grid(of.scale, of.zero, kind, of.axis % len(shape))
    editor.dequantise(name, of, node.outputs[0], name=node.name)


def _integers(values: NDArray[np.float32], kind: int) -> NDArray[np.signedinteger]:
    """Integers of reals; int32 is saturated, for float32 has no place for its greatest."""
    limits = np.iinfo(numpy_type(kind))
    return np.clip(values.astype(np.float64), limits.min, limits.max).astype(numpy_type(kind))


def _bipolar(editor: Editor, node: Node) -> None:
    _signs(editor, node, _parameter(editor, node, 1, "scale"))


def _signs(editor: Editor, node: Node, scale: NDArray[np.float32]) -> None:
    """``scale`` where ``x >= 0`` and ``-scale`` elsewhere."""
    x, output = editor.names(node)[0], node.outputs[0]
    of = grid(node, scale, None, TensorProto.INT8)
    constant = editor.constants.get(x)
    if constant is not None:
        signs = np.where(constant.values >= 0, np.float32(1), np.float32(-1)) if constant.known else None
        return _weights(editor, node, constant, of, signs)
    double = Grid(of.scale * np.float32(2), of.zero, of.kind, of.axis)
    shape = editor.shapes.get(x)
    step = _quantiser(editor, node, x, double, output, rounding="floor", lo=-1, hi=0)
    step = editor.dequantise(step, double, editor.fresh(f"{output}/step"))
    middle = editor.constant(f"{output}/scale", Array.of(scale if of.axis is not None else of.scale))
    signs_real = editor.emit("Add", [step, middle], editor.fresh(f"{output}/signs"), shape=shape)
    integers = editor.quantise(signs_real, of, editor.fresh(f"{output}/integers"), attributes={"lo": -1, "hi": 1})
    editor.dequantise(integers, of, output)


def _trunc(editor: Editor, node: Node) -> None:
    """Integers divided by a power of two and rounded: version 1 keeps the scale and so divides the value, version 2 has an output scale."""
    x, output = editor.names(node)[0], node.outputs[0]
    second = len(node.inputs) > 5
    scale, zero = _parameter(editor, node, 1, "scale"), _parameter(editor, node, 2, "zeropt")
    widest = _width(editor, node, 3, "in_bitwidth", 32)
    bits = _width(editor, node, 5 if second else 4, "out_bitwidth", WIDEST)
    _positive(node, "scale", scale)
    if zero.any():
        raise NetworkError(f"zeropt of {node} must be 0, not {zero.ravel()[zero.ravel() != 0][0]:g}")
    if second:
        out = _parameter(editor, node, 4, "out_scale")
        _positive(node, "out_scale", out)
        shift = int(np.rint(np.log2(out.ravel()[0] / scale.ravel()[0])))
        lo, hi = _bounds(node, bits)
    else:
        out, shift = scale, widest - bits
        if shift < 0:
            raise NetworkError(f"out_bitwidth of {node} must be at most in_bitwidth, {widest}, not {bits}")
        lo, hi = (0, (1 << bits) - 1) if _nonnegative(editor, x) else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    rounding = _rounding(node, _mode(node, "FLOOR"), lo)
    shape = editor.shapes.get(x)
    factor = float(out.ravel()[0]) / (float(scale.ravel()[0]) * 2.0**shift)
    if factor != 1:
        operand = editor.constant(f"{output}/factor", Array.of(np.float32(factor)))
        x = editor.emit("Mul", [x, operand], editor.fresh(f"{output}/scaled"), shape=shape)
    of = grid(node, out, None, _kind(lo, hi))
    editor.dequantise(_quantiser(editor, node, x, of, output, rounding=rounding, lo=lo, hi=hi), of, output)


def _positive(node: Node, name: str, values: NDArray[np.float32]) -> None:
    """Refuse what is no positive finite number."""
    if values.size != 1 or not 0 < values.ravel()[0] < np.inf:
        raise NetworkError(f"{name} of {node} must be one positive number, not {values.item() if values.size == 1 else values.size}")


def _nonnegative(editor: Editor, x: str) -> bool:
    """Whether no element of a tensor can be negative, as far as the nodes before say."""
    passing = ("AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool", "Reshape", "Flatten", "Transpose", "Mul", "Squeeze")
    writers = {name: node for node in editor.nodes for name in node.outputs}
    while (node := writers.get(x)) is not None:
        if node.kind == "Relu":
            return True
        if node.kind == "DequantizeLinear" and node.inputs[0] in writers:
            source = writers[node.inputs[0]]
            zero = editor.constants.get(node.inputs[2])
            if source.kind != "QuantizeLinear" or zero is None:
                return False
            limit = KINDS[zero.kind].lo if zero.kind in KINDS else -1
            return bool(source.attributes.get("lo", limit) >= zero.values.max())
        if node.kind not in passing:
            return False
        if node.kind == "Mul":
            constants = [name for name in node.inputs if name in editor.constants]
            if len(constants) != 1 or not (editor.constants[constants[0]].values >= 0).all():
                return False
            x = next(name for name in node.inputs if name not in constants)
        else:
            x = node.inputs[0]
    return False
