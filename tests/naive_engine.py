"""The engine restated the plain way: Python integers, one output at a time, padding by asking where an index lies."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import floor
from typing import Any

import numpy as np

from accel.config import AcceleratorConfig
from accel.formats import Rounding
from accel.graph.network import DynamicProduct, LayerNorm, Lookup, Move, Multiply, Network, Softmax, Sum
from accel.graph.window import Window
from accel.special.layer_norm import LayerNormParameters, layer_norm
from accel.special.softmax import SoftmaxParameters, softmax


def run(network: Network, config: AcceleratorConfig, inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return every tensor, samples first, and how many sums overflowed in each operator; weights must be pruned before."""
    values, overflowed = dict(inputs), {}
    for operator in network.operators:
        sources, tensors = [values[name] for name in operator.inputs], [network.tensors[name] for name in operator.inputs]
        shape, lost = network.tensors[operator.output].shape, 0
        match operator:
            case Move() | Lookup() | Multiply() | Softmax() | LayerNorm():
                out = np.array([plain(operator, config, tensors, each) for each in zip(*sources, strict=True)])
            case DynamicProduct():
                out = np.empty((len(sources[0]), *shape), np.int64)
                for place in product(*map(range, out.shape)):
                    out[place], flag = dynamic(operator, config, sources, tensors[1], place)
                    lost += flag
            case _:
                images = [x.reshape(len(x), *tensor.image) for x, tensor in zip(sources, tensors, strict=True)]
                out = np.empty((len(sources[0]), *network.tensors[operator.output].image), np.int64)
                for place in product(*map(range, out.shape)):
                    out[place], flag = element(operator, config, images, [tensor.bits for tensor in tensors], place)
                    lost += flag
        values[operator.output], overflowed[operator.name] = out.reshape(len(out), *shape), lost
    return values, overflowed


def plain(operator: Any, config, tensors, sample):
    """One sample of what neither array nor vector unit computes; special functions have naive twins of their own."""
    flat = [int(x) for each in sample for x in each.ravel()]
    match operator:
        case Move():
            return [flat[at] if at >= 0 else operator.padding for at in operator.index.ravel()]
        case Lookup():
            return [operator.table[x + 2 ** (tensors[0].bits - 1)] for x in flat]
        case Multiply():
            (a, b), half = operator.zero_points, len(flat) // 2
            factors = [(x - a) * (y - b) for x, y in zip(flat[:half], flat[half:], strict=True)]
            return [post(operator, config, x, Fraction(operator.multiplier)) for x in factors]
    ends = {name: getattr(operator, name) for name in ("zero_point", "lo", "hi", "rounding")}
    if isinstance(operator, LayerNorm):
        made = LayerNormParameters.of(**ends, epsilon=operator.epsilon, gamma=operator.gamma, beta=operator.beta)
        return layer_norm(made, sample[0])
    fields = {"step": operator.step, "scale": operator.scale, "logarithm": operator.logarithm}
    return softmax(SoftmaxParameters.of(**ends, **fields, length=sample[0].shape[-1]), sample[0])


def dynamic(operator: DynamicProduct, config, sources, second, place):
    """One output of a product of activations: those of the second operand less their zero point are the weights."""
    *outer, row, column = place
    a, b = (source[tuple(outer)] for source in sources)
    weights = [int(w) - operator.zero_points[1] for w in (b[column] if operator.transposed else b[:, column])]
    ends = second.format.lo - operator.zero_points[1], second.format.hi - operator.zero_points[1]
    acc, flag = accumulate(config, split(config, ends, [(int(x), w) for x, w in zip(a[row], weights, strict=True)]))
    return post(operator, config, acc - operator.zero_points[0] * sum(weights), Fraction(operator.multiplier)), flag


def split(config, ends, terms):
    """Terms once for each part of their weights: as few parts as hold the ends, one behind the other, none above the next."""
    lo, hi = config.weight.lo, config.weight.hi
    count = 1
    while not count * lo <= ends[0] <= ends[1] <= count * hi:
        count += 1
    return [(x, floor(Fraction(int(w) + part, count))) for part in range(count) for x, w in terms]


def element(operator: Any, config, images, bits, place):
    """Return one output element and whether its sum overflowed."""
    sample, row, column, channel = place
    match type(operator).__name__:
        case "MatrixProduct":
            depth, filters = operator.channels // operator.groups, operator.filters // operator.groups
            first = channel // filters * depth
            terms = [
                (
                    see(images[0][sample], operator.window, row, column, ky, kx, first + c, operator.padding),
                    operator.weights[channel, ky, kx, c],
                )
                for ky, kx, c in product(range(operator.window.kernel[0]), range(operator.window.kernel[1]), range(depth))
            ]
            acc, flag = accumulate(config, split(config, (operator.weights.min(), operator.weights.max()), terms))
            return post(operator, config, acc + int(operator.bias[channel]), Fraction(float(operator.multiplier[channel]))), flag
        case "TransposedConvolution":
            terms = list(met(operator, images[0][sample], row, column, channel))
            acc, flag = accumulate(config, split(config, (operator.weights.min(), operator.weights.max()), terms))
            bias = int(operator.bias[channel]) - operator.input_zero * sum(int(w) for _, w in terms)
            return post(operator, config, acc + bias, Fraction(float(operator.multiplier[channel]))), flag
        case "Sum":
            coefficients, shift, offsets = coarse(operator, config, images, bits)
            acc, flag = accumulate(config, [(images[i][sample, row, column, channel], c) for i, c in enumerate(coefficients)])
            factor = (1.0 if operator.gain is None else float(operator.gain[channel])) / (2.0**shift / max(map(abs, operator.multipliers)))
            return post(operator, config, acc + offsets[channel], Fraction(factor)), flag
        case "MaxPool":
            lowest = -(2 ** (bits[0] - 1))
            seen = [see(images[0][sample], operator.window, row, column, ky, kx, channel, lowest) for ky, kx in taps(operator.window)]
            return post(operator, config, max(seen) - operator.input_zero, Fraction(operator.multiplier)), 0
        case "AveragePool":
            seen = [
                see(images[0][sample], operator.window, row, column, ky, kx, channel, operator.input_zero)
                for ky, kx in taps(operator.window)
            ]
            acc, flag = accumulate(config, [(x, 1) for x in seen])
            count = operator.counts(*images[0].shape[1:3])[row, column]
            return post(operator, config, acc - len(seen) * operator.input_zero, Fraction(operator.multiplier / count)), flag


def met(operator, image, row, column, channel):
    """Yield input element and weight of every tap that reaches an output, in the order of the input; outside lies the zero point."""
    window, depth, filters = operator.window, operator.channels // operator.groups, operator.filters // operator.groups
    for ky, kx in product(reversed(range(window.kernel[0])), reversed(range(window.kernel[1]))):
        y, below = divmod(row + window.pads[0] - ky * window.dilation[0], window.stride[0])
        x, beside = divmod(column + window.pads[1] - kx * window.dilation[1], window.stride[1])
        if below or beside:
            continue
        inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
        for c in range(depth):
            element = int(image[y, x, channel // filters * depth + c]) if inside else operator.input_zero
            yield element, operator.weights[channel, ky, kx, c]


def taps(window: Window):
    return product(range(window.kernel[0]), range(window.kernel[1]))


def see(image, window, row, column, ky, kx, channel, padding) -> int:
    """Element under a tap of the window, or what padding holds."""
    y = row * window.stride[0] - window.pads[0] + ky * window.dilation[0]
    x = column * window.stride[1] - window.pads[1] + kx * window.dilation[1]
    inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
    return int(image[y, x, channel]) if inside else padding


def accumulate(config, terms) -> tuple[int, bool]:
    """Add products one after the other, the overflow rule after every addition."""
    acc, flag = 0, False
    for x, w in terms:
        acc += int(x) * int(w)
        if not config.acc.lo <= acc <= config.acc.hi:
            flag = True
            wrapped = (acc - config.acc.lo) % 2**config.acc_bits + config.acc.lo
            acc = wrapped if config.overflow == "wrap" else max(config.acc.lo, min(acc, config.acc.hi))
    return acc, flag


def coarse(operator: Sum, config, images, bits) -> tuple[list[int], int, list[int]]:
    """Coefficients over 2**shift of the greatest multiplier, and the bias: the finest that 15 bits and the accumulator hold."""
    top = Fraction(max(map(abs, operator.multipliers)))
    channels = images[0].shape[-1]
    gains = np.ones(channels) if operator.gain is None else operator.gain
    offsets = np.zeros(channels) if operator.offset is None else operator.offset / gains
    plain = operator.offset is None and len(set(map(abs, operator.multipliers))) == 1
    for shift in [0] if plain else range(14, -1, -1):
        coefficients = [round(Fraction(m) / top * 2**shift) for m in operator.multipliers]
        bias = [
            round(Fraction(float(o)) / top * 2**shift) - sum(c * z for c, z in zip(coefficients, operator.zero_points, strict=True))
            for o in offsets
        ]
        reach = sum(abs(c) * 2 ** (b - 1) for c, b in zip(coefficients, bits, strict=True))
        if max(reach, *map(abs, bias)) <= config.acc.hi:
            break
    return coefficients, shift, bias


def post(operator, config, total: int, factor: Fraction):
    """Scale by the nearest mult / 2**shift, round, add the zero point, clip."""
    shift = max(s for s in range(64) if round(factor * 2**s) < 2**config.mult_bits)
    exact = Fraction(total * round(factor * 2**shift), 2**shift)
    low = floor(exact)
    rest = exact - low
    tie_up = operator.rounding is Rounding.HALF_UP or low % 2 == 1
    up = operator.rounding is not Rounding.FLOOR and (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and tie_up))
    rounded = low + up
    return max(operator.lo, min(rounded + operator.zero_point, operator.hi))
