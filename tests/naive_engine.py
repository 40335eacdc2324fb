"""The engine restated the plain way: Python integers, one output at a time, padding by asking where an index lies."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np

from accel.config import AcceleratorConfig
from accel.graph.network import Network, Sum, View, Window


def run(network: Network, config: AcceleratorConfig, inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return every tensor, samples first, and how many sums overflowed in each operator; weights must be pruned before."""
    values, overflowed = dict(inputs), {}
    for operator in network.operators:
        sources = [values[name] for name in operator.inputs]
        if isinstance(operator, View):
            values[operator.output], overflowed[operator.name] = operator.apply(sources[0]), 0
            continue
        height, width, channels = network.tensors[operator.output].image
        images = [x.reshape(len(x), *network.tensors[name].image) for x, name in zip(sources, operator.inputs, strict=True)]
        out = np.empty((len(sources[0]), height, width, channels), np.int64)
        lost = 0
        for place in product(*map(range, out.shape)):
            out[place], flag = element(operator, config, images, [network.tensors[name].bits for name in operator.inputs], place)
            lost += flag
        values[operator.output] = out.reshape(len(out), *network.tensors[operator.output].shape)
        overflowed[operator.name] = lost
    return values, overflowed


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
            acc, flag = accumulate(config, terms)
            return post(operator, config, acc + int(operator.bias[channel]), Fraction(float(operator.multiplier[channel]))), flag
        case "Sum":
            coefficients, shift, offsets = coarse(operator, config, bits)
            acc, flag = accumulate(config, [(images[i][sample, row, column, channel], c) for i, c in enumerate(coefficients)])
            bias = offsets[channel if operator.offset is not None else 0]
            return post(operator, config, acc + bias, Fraction(max(operator.multipliers)) / 2**shift), flag
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


def coarse(operator: Sum, config, bits) -> tuple[list[int], int, list[int]]:
    """Coefficients over 2**shift of the larger multiplier, and the bias: the finest that 15 bits and the accumulator hold."""
    top = Fraction(max(operator.multipliers))
    offsets = [0.0] if operator.offset is None else list(operator.offset)
    plain = operator.offset is None and len(set(operator.multipliers)) == 1
    for shift in [0] if plain else range(14, -1, -1):
        coefficients = [round(Fraction(m) / top * 2**shift) for m in operator.multipliers]
        bias = [
            round(Fraction(float(o)) / top * 2**shift) - sum(c * z for c, z in zip(coefficients, operator.zero_points, strict=True))
            for o in offsets
        ]
        reach = sum(c * 2 ** (b - 1) for c, b in zip(coefficients, bits, strict=True))
        if max(reach, *map(abs, bias)) <= config.acc.hi:
            break
    return coefficients, shift, bias


def post(operator, config, total: int, factor: Fraction):
    """Scale by the nearest mult / 2**shift, round half to even, add the zero point, clip."""
    shift = max(s for s in range(64) if round(factor * 2**s) < 2**config.mult_bits)
    exact = Fraction(total * round(factor * 2**shift), 2**shift)
    low = floor(exact)
    rounded = low if exact - low < Fraction(1, 2) or (exact - low == Fraction(1, 2) and low % 2 == 0) else ceil(exact)
    return max(operator.lo, min(rounded + operator.zero_point, operator.hi))
