"""The network in plain loops: what every operator means, one output position at a time.

Without a configuration the real factors are used as they are; with one they become integers by the accelerator's rules, restated here. What
the accelerator computes in fixed point by approximation (:data:`APPROXIMATE`) is exact here but for its one rounding, with or without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from accel.config import AcceleratorConfig
from accel.graph.network import (
    ArgMax,
    Arithmetic,
    AveragePool,
    Divide,
    DynamicProduct,
    Host,
    LayerNorm,
    Lookup,
    MatrixProduct,
    MaxPool,
    Move,
    Multiply,
    Network,
    Operator,
    Softmax,
    Sum,
    TransposedConvolution,
)
from accel.graph.window import Window

Integers = NDArray[np.int64]
APPROXIMATE = (Divide, LayerNorm, Multiply, Softmax)


def run(network: Network, inputs: Mapping[str, Integers], config: AcceleratorConfig | None = None) -> dict[str, Integers]:
    """Integers of all tensors, each (batch, *shape), from those behind the network's inputs."""
    values = dict(inputs)
    for operator in network.operators:
        values[operator.output] = step(network, operator, values, config)
    return values


def steps(network: Network, inputs: Mapping[str, Integers]) -> dict[str, Integers]:
    """Compute what every operator adds on its own: its output, from given inputs where there are any."""
    own: dict[str, Integers] = {}
    for operator in network.operators:
        own[operator.output] = step(network, operator, own | dict(inputs))
    return own


def step(network: Network, operator: Operator, values: Mapping[str, Integers], config: AcceleratorConfig | None = None) -> Integers:
    """Integers of an operator's output."""
    batch = len(values[operator.inputs[0]])
    images = [values[name].reshape(batch, *network.tensors[name].image) for name in operator.inputs]
    _, height, width, _ = images[0].shape
    result: Integers
    match operator:
        case Move():
            result = _moved(operator, [values[name] for name in operator.inputs])
        case MatrixProduct():
            assert operator.multiplier is not None
            result = _finish(operator, _product(operator, images[0]), operator.multiplier, config)
        case Sum():
            result = _sum(operator, images, config)
        case MaxPool():
            largest = _windows(operator.window, images[0], lambda taps: np.max(taps, axis=0))
            result = _finish(operator, largest - operator.input_zero, operator.multiplier, config)
        case AveragePool():
            total = _windows(operator.window, images[0], lambda taps: np.sum(taps - operator.input_zero, axis=0))
            result = _finish(operator, total, operator.multiplier / operator.counts(height, width)[:, :, None], config)
        case TransposedConvolution():
            assert operator.multiplier is not None
            result = _finish(operator, _spread(operator, images[0]), operator.multiplier, config)
        case DynamicProduct():
            a, b = (values[name] - zero for name, zero in zip(operator.inputs, operator.zero_points, strict=True))
            result = _finish(operator, a @ (np.swapaxes(b, -1, -2) if operator.transposed else b), operator.multiplier, config)
        case Multiply():
            a, b = (values[name] - zero for name, zero in zip(operator.inputs, operator.zero_points, strict=True))
            result = _finish(operator, a * b, operator.multiplier, None)
        case Divide():
            a, b = (values[name] - zero for name, zero in zip(operator.inputs, operator.zero_points, strict=True))
            ends = np.where(a > 0, np.inf, np.where(a < 0, -np.inf, 0.0))
            result = _finish(operator, np.divide(a, b, where=b != 0, out=ends), operator.multiplier, None)
        case Lookup():
            result = operator.table[values[operator.inputs[0]] + len(operator.table) // 2]
        case Softmax():
            row = values[operator.inputs[0]] * operator.step
            powers = np.exp(row - row.max(axis=-1, keepdims=True))
            share = powers / powers.sum(axis=-1, keepdims=True)
            result = _finish(operator, np.log(share) if operator.logarithm else share, 1 / operator.scale, None)
        case LayerNorm():
            row = values[operator.inputs[0]].astype(np.float64)
            deviation = np.sqrt(row.var(axis=-1, keepdims=True) + operator.epsilon)
            normal = (row - row.mean(axis=-1, keepdims=True)) / np.where(deviation == 0, 1, deviation)
            result = _finish(operator, normal * operator.gamma + operator.beta, 1.0, None)
        case ArgMax():
            found = values[operator.inputs[0]]
            result = found.shape[-1] - 1 - found[..., ::-1].argmax(axis=-1) if operator.last else found.argmax(axis=-1)
        case Host():
            result = _on_host(network, operator, values)
        case _:
            raise AssertionError(operator)
    return result.reshape(batch, *network.tensors[operator.output].shape)


def _moved(operator: Move, inputs: list[Integers]) -> Integers:
    """Element by element, each from its place in the inputs one behind the other."""
    result = np.full((len(inputs[0]), operator.index.size), operator.padding, np.int64)
    for sample in range(len(inputs[0])):
        behind = [element for each in inputs for element in each[sample].ravel().tolist()]
        for place, source in enumerate(operator.index.ravel().tolist()):
            if source >= 0:
                result[sample, place] = behind[source]
    return result


def _on_host(network: Network, operator: Host, values: Mapping[str, Integers]) -> Integers:
    """ONNX's reference implementation, sample by sample."""
    evaluator = ReferenceEvaluator(operator.graph.to_model())
    output = network.tensors[operator.output]
    results = []
    for at in range(len(values[operator.inputs[0]])):
        reals: dict[str, NDArray[np.float32]] = {}
        for given, name in zip(operator.graph.inputs, operator.inputs, strict=True):
            reals[given] = network.tensors[name].dequantise(values[name][at : at + 1]).astype(np.float32)
        (result,) = evaluator.run(None, reals)
        results.append(output.quantise(np.asarray(result)))
    return np.concatenate(results)


def _spread(operator: TransposedConvolution, image: Integers) -> Integers:
    """Add every input element to the outputs that its window reaches."""
    assert operator.weights is not None
    assert operator.bias is not None
    batch, height, width, _ = image.shape
    rows, columns = operator.size
    total = np.zeros((batch, rows, columns, operator.filters), dtype=np.int64)
    weights = operator.weights.astype(np.int64)
    size, filters = operator.channels // operator.groups, operator.filters // operator.groups
    for y in range(height):
        for x in range(width):
            for i in range(operator.window.kernel[0]):
                for j in range(operator.window.kernel[1]):
                    row = y * operator.window.stride[0] - operator.window.pads[0] + i * operator.window.dilation[0]
                    column = x * operator.window.stride[1] - operator.window.pads[1] + j * operator.window.dilation[1]
                    for group in range(operator.groups if 0 <= row < rows and 0 <= column < columns else 0):
                        own = slice(group * filters, (group + 1) * filters)
                        part = image[:, y, x, group * size : (group + 1) * size] - operator.input_zero
                        total[:, row, column, own] += part @ weights[own, i, j].T
    return total + operator.bias


def _finish(operator: Arithmetic, total: NDArray[Any], factor: Any, config: AcceleratorConfig | None) -> Integers:
    """One factor, one rounding, the zero point, the bounds."""
    rounded = np.rint(total * factor) if config is None else _scaled(total, np.broadcast_to(factor, total.shape), config.mult_bits)
    return np.clip(rounded + operator.zero_point, operator.lo, operator.hi).astype(np.int64)


def _scaled(total: Integers, factor: NDArray[np.float64], bits: int) -> Integers:
    """Multiply by the nearest mult / 2**shift; round half to even."""
    pairs = {real: _nearest(real, bits) for real in np.unique(factor).tolist()}
    mult, shift = (np.array([pairs[real][i] for real in factor.ravel().tolist()]).reshape(factor.shape) for i in (0, 1))
    exact = total * mult  # below 2**63: acc_bits + mult_bits <= 63
    floor = exact >> shift
    twice_rest = 2 * (exact - (floor << shift))
    up = (twice_rest > 1 << shift) | ((twice_rest == 1 << shift) & (floor % 2 == 1))
    return np.asarray(floor + up, dtype=np.int64)


def _nearest(real: float, bits: int) -> tuple[int, int]:
    """Multiplier that fits, at the greatest shift."""
    for shift in range(62, -1, -1):  # at 63 twice the rest would overflow
        mult = round(Fraction(real) * 2**shift)
        if mult < 2**bits:
            return mult, shift
    raise AssertionError(real)


def _product(operator: MatrixProduct, image: Integers) -> Integers:
    """Sum of products and bias at every position, padding inserted as an integer."""
    assert operator.weights is not None
    assert operator.bias is not None
    (kh, kw), (sh, sw), (dh, dw) = operator.window.kernel, operator.window.stride, operator.window.dilation
    top, left, bottom, right = operator.window.pads
    batch, height, width, _ = image.shape
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=operator.padding)
    rows, columns = operator.window.positions(height, width)
    total = np.zeros((batch, rows, columns, operator.filters), dtype=np.int64)
    weights = operator.weights.astype(np.int64)
    size, filters = operator.channels // operator.groups, operator.filters // operator.groups
    for row in range(rows):
        for column in range(columns):
            for i in range(kh):
                for j in range(kw):
                    tap = padded[:, row * sh + i * dh, column * sw + j * dw]
                    for group in range(operator.groups):
                        own = slice(group * filters, (group + 1) * filters)
                        total[:, row, column, own] += tap[:, group * size : (group + 1) * size] @ weights[own, i, j].T
    return total + operator.bias


def _sum(operator: Sum, images: list[Integers], config: AcceleratorConfig | None) -> Integers:
    """Weighted sum; as integers, coefficients of 14 fraction bits relative to the larger multiplier, none where they are equal."""
    gain = np.ones(images[0].shape[-1]) if operator.gain is None else operator.gain
    offset = np.zeros(images[0].shape[-1]) if operator.offset is None else operator.offset
    terms = list(zip(images, operator.zero_points, operator.multipliers, strict=True))
    if config is None:
        real = sum(((image - zero) * factor * gain for image, zero, factor in terms), offset)
        return _finish(operator, np.asarray(real), 1.0, None)
    top, least = (function(map(abs, operator.multipliers)) for function in (max, min))
    scale = (1.0 if operator.offset is None and least == top else 2.0**14) / top
    start = np.rint(offset / gain * scale).astype(np.int64)
    total = sum((round(factor * scale) * (image - zero) for image, zero, factor in terms), start)
    return _finish(operator, np.asarray(total), gain / scale, config)


def _windows(window: Window, image: Integers, reduce: Callable[[Integers], Integers]) -> Integers:
    """Reduce the elements of each window that lie in the image."""
    batch, height, width, channels = image.shape
    rows, columns = window.positions(height, width)
    result = np.zeros((batch, rows, columns, channels), dtype=np.int64)
    for row in range(rows):
        for column in range(columns):
            taps = []
            for i in range(window.kernel[0]):
                for j in range(window.kernel[1]):
                    y = row * window.stride[0] - window.pads[0] + i * window.dilation[0]
                    x = column * window.stride[1] - window.pads[1] + j * window.dilation[1]
                    if 0 <= y < height and 0 <= x < width:
                        taps.append(image[:, y, x])
            result[:, row, column] = reduce(np.array(taps))
    return result
