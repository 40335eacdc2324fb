"""A training step in plain loops over Python integers and fractions: what decision 17 means, one element at a time.

What has a plain twin of its own in other tests is taken from the package: batch normalisation and the softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel import lfsr
from accel.config import AcceleratorConfig
from accel.formats import FixedFormat
from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable
from accel.graph.window import Window
from accel.special import batch_norm
from accel.special.softmax import SoftmaxParameters, softmax
from accel.training.recipe import Recipe
from accel.training.state import State, Tracked

Array = NDArray[Any]  # of Python integers


@dataclass
class Step:
    """Everything that a step computes, by the names of :class:`accel.training.step.Record`."""

    tensors: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)
    contributions: dict[tuple[str, int], Array] = field(default_factory=dict)
    parameter_gradients: dict[str, Array] = field(default_factory=dict)
    forward: dict[str, Array] = field(default_factory=dict)
    backward: dict[str, Array] = field(default_factory=dict)
    saturated: dict[str, int] = field(default_factory=dict)
    elements: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    overflowed: dict[tuple[str, str], int] = field(default_factory=dict)
    moments: dict[str, Any] = field(default_factory=dict)


def rounded(value: Fraction) -> int:
    """Nearest integer, ties to even: what Python's own rounding of a fraction is."""
    return round(value)


def power(exponent: int) -> Fraction:
    """2**exponent, exactly."""
    return Fraction(2) ** exponent


def clip(value: int, lo: int, hi: int) -> int:
    """Nearest integer in [lo, hi]."""
    return min(max(value, lo), hi)


class Accumulator:
    """A sum to which the overflow rule is applied after every addition."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.sum, self.overflowed = config, 0, False

    def add(self, value: int) -> None:
        """Add a product."""
        exact, bits = self.sum + value, self.config.acc_bits
        lo, hi = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        if lo <= exact <= hi:
            self.sum = exact
            return
        self.overflowed = True
        self.sum = clip(exact, lo, hi) if self.config.overflow == "saturate" else (exact - lo) % 2**bits + lo


def image(network: Trainable, tensor: str, values: Array) -> Array:
    """See a tensor as (samples, height, width, channels)."""
    return values.reshape(len(values), *network.image(tensor))


def seen(window: Window, row: int, column: int, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Tap and place of what a window sees inside of the image: (ky, kx, y, x)."""
    for ky, kx in product(range(window.kernel[0]), range(window.kernel[1])):
        y = row * window.stride[0] - window.pads[0] + ky * window.dilation[0]
        x = column * window.stride[1] - window.pads[1] + kx * window.dilation[1]
        if 0 <= y < height and 0 <= x < width:
            yield ky, kx, y, x


Sums = tuple[Array, Array]  # sums, and whether each left the accumulator


def ff(config: AcceleratorConfig, layer: Convolution, x: Array, weights: Array) -> Sums:
    """Add up taps, then input channels, in ascending order."""
    samples, height, width, _ = x.shape
    shape = samples, *layer.window.positions(height, width), layer.filters
    sums, flags = np.empty(shape, object), np.zeros(shape, bool)
    own = layer.channels // layer.groups
    for n, row, column, f in np.ndindex(*shape):
        total, first = Accumulator(config), f // (layer.filters // layer.groups) * own
        for ky, kx, i, j in seen(layer.window, row, column, height, width):
            for c in range(own):
                total.add(int(x[n, i, j, first + c]) * int(weights[f, ky, kx, c]))
        sums[n, row, column, f], flags[n, row, column, f] = total.sum, total.overflowed
    return sums, flags


def bp(config: AcceleratorConfig, layer: Convolution, size: tuple[int, int], dy: Array, weights: Array) -> Sums:
    """Add up output positions, then filters, in ascending order."""
    window, shape = layer.window, (len(dy), *size, layer.channels)
    sums, flags = np.empty(shape, object), np.zeros(shape, bool)
    own, each = layer.channels // layer.groups, layer.filters // layer.groups
    for n, y, x, c in np.ndindex(*shape):
        total = Accumulator(config)
        for row, column in np.ndindex(*dy.shape[1:3]):
            down, across = y + window.pads[0] - row * window.stride[0], x + window.pads[1] - column * window.stride[1]
            ky, kx = Fraction(down, window.dilation[0]), Fraction(across, window.dilation[1])
            if ky.denominator > 1 or kx.denominator > 1 or not (0 <= ky < window.kernel[0] and 0 <= kx < window.kernel[1]):
                continue
            for f in range(c // own * each, c // own * each + each):
                total.add(int(dy[n, row, column, f]) * int(weights[f, int(ky), int(kx), c % own]))
        sums[n, y, x, c], flags[n, y, x, c] = total.sum, total.overflowed
    return sums, flags


def wu(config: AcceleratorConfig, layer: Convolution, x: Array, dy: Array) -> Sums:
    """Add up samples, then output positions, in ascending order."""
    window, (height, width) = layer.window, x.shape[1:3]
    sums, flags = np.empty(layer.shape, object), np.zeros(layer.shape, bool)
    own, each = layer.channels // layer.groups, layer.filters // layer.groups
    for f, ky, kx, c in np.ndindex(*layer.shape):
        total = Accumulator(config)
        for n, row, column in np.ndindex(*dy.shape[:3]):
            i = row * window.stride[0] - window.pads[0] + ky * window.dilation[0]
            j = column * window.stride[1] - window.pads[1] + kx * window.dilation[1]
            if 0 <= i < height and 0 <= j < width:
                total.add(int(x[n, i, j, f // each * own + c]) * int(dy[n, row, column, f]))
        sums[f, ky, kx, c], flags[f, ky, kx, c] = total.sum, total.overflowed
    return sums, flags


def bias_wu(config: AcceleratorConfig, dy: Array) -> Sums:
    """Add up samples, then output positions, in ascending order."""
    sums, flags = np.empty(dy.shape[3], object), np.zeros(dy.shape[3], bool)
    for f in range(dy.shape[3]):
        total = Accumulator(config)
        for value in dy[..., f].ravel():
            total.add(int(value))
        sums[f], flags[f] = total.sum, total.overflowed
    return sums, flags


def chosen(line: list[int], n: int, m: int) -> list[int]:
    """Choose the n largest magnitudes of each m, ties to the lower index."""
    found = []
    for start in range(0, len(line), m):
        group = range(start, min(start + m, len(line)))
        found += sorted(group, key=lambda i: (-abs(line[i]), i))[:n]
    return sorted(found)


class Twin:
    """Runs steps on a state of its own."""

    def __init__(self, network: Trainable, config: AcceleratorConfig, recipe: Recipe, state: State, pruned: frozenset[str]) -> None:
        self.network, self.config, self.recipe, self.state, self.pruned = network, config, recipe, state, pruned
        self.lo, self.hi = -(2 ** (config.act_bits - 1)), 2 ** (config.act_bits - 1) - 1
        self.shared = {network.input: network.input}
        for layer in network.layers:
            self.shared[layer.output] = self.shared[layer.inputs[0]] if isinstance(layer, Relu | MaxPool) else layer.output
        self.back: dict[str, Array] = {}
        self.step = Step()

    def frac(self, tensor: str, mark: str = "") -> int:
        """Fraction bits of a tensor."""
        return self.state.formats[self.shared[tensor] + mark].frac

    def format(self, tensor: str, mark: str = "") -> FixedFormat:
        """Format of a tensor."""
        return FixedFormat(self.config.act_bits, self.frac(tensor, mark))

    def count(self, name: str, saturated: int) -> None:
        """Count saturated elements."""
        self.step.saturated[name] = self.step.saturated.get(name, 0) + saturated

    def see(self, name: str, values: Array, saturated: int = 0) -> None:
        """Count a tensor."""
        self.count(name, saturated)
        self.step.elements[name] = values.size
        self.step.peaks[name] = max(abs(int(value)) for value in values.ravel())

    def bring(self, value: Fraction, name: str, lo: int | None = None) -> int:
        """Round to an operand's format; count if it saturates, but not what a ReLU makes 0."""
        exact, least = rounded(value), self.lo if lo is None else lo
        if exact > self.hi or (lo is None and exact < self.lo):
            self.count(name, 1)
        return clip(exact, least, self.hi)

    def weights(self, layer: Convolution, back: bool) -> Array:
        """Weights of FF or BP: zeros where they are pruned."""
        parameter = self.state.parameters[f"{layer.name}.weight"]
        kept = parameter.back if back else parameter.mask
        return np.where(True if kept is None else kept, parameter.working, 0).astype(object)

    def run(self, samples: Array, labels: Array, rate: float) -> Step:
        """Run one step."""
        self.step = Step()
        self.settle()
        network = self.network
        self.step.tensors[network.input] = samples.astype(object)
        for layer in network.layers:
            values = self.forward(layer).reshape(len(samples), *network.shapes[layer.output])
            self.step.tensors[layer.output] = values
            self.see(layer.output, values)
        self.differentiate(labels)
        self.update(rate, len(samples))
        self.follow()
        self.state.step += 1
        return self.step

    def settle(self) -> None:
        """Lower fractions that are more than mult_bits - 1 above those of products or averages, or 30 above a sum's other input."""
        formats, fixed = self.state.formats, {self.network.input, f"{self.shared[self.network.output]}'"}
        trained = self.trained()
        for _ in range(1000):
            for layer in self.network.layers:
                xs, y = [self.shared[tensor] for tensor in layer.inputs], self.shared[layer.output]
                has, pairs = layer.inputs[0] in trained, []
                match layer:
                    case Convolution():
                        most, w = self.config.mult_bits - 1, formats[f"{layer.name}.weight"].frac
                        pairs += [(y, formats[xs[0]].frac + w), (f"{layer.name}.weight'", formats[xs[0]].frac + formats[f"{y}'"].frac)]
                        pairs += [(f"{xs[0]}'", w + formats[f"{y}'"].frac)] * has
                        pairs += [(f"{layer.name}.bias'", formats[f"{y}'"].frac)] * layer.biased
                    case Add():
                        most = 30
                        pairs += [(xs[0], formats[xs[1]].frac), (xs[1], formats[xs[0]].frac)]
                    case AveragePool():
                        most = min(self.config.mult_bits, 31) - 1
                        pairs += [(y, formats[xs[0]].frac)] + ([(f"{xs[0]}'", formats[f"{y}'"].frac)] if has else [])
                for name, frac in pairs:
                    if name not in fixed:
                        formats[name].frac = min(formats[name].frac, frac + most)

    def trained(self) -> set[str]:
        """Tensors behind a parameter."""
        found: set[str] = set()
        for layer in self.network.layers:
            if isinstance(layer, Convolution | BatchNorm) or found & set(layer.inputs):
                found.add(layer.output)
        return found

    def forward(self, layer: Layer) -> Array:
        """Output of a layer as an image."""
        network, tensors = self.network, self.step.tensors
        x = image(network, layer.inputs[0], tensors[layer.inputs[0]])
        samples, height, width, _ = x.shape
        y = np.empty((samples, *network.image(layer.output)), object)
        frac = self.frac(layer.output)
        match layer:
            case Convolution():
                readers = [other for other in network.layers if layer.output in other.inputs]
                alone = len(readers) == 1 and isinstance(readers[0], Relu) and layer.output != network.output
                sums = self.frac(layer.inputs[0]) + self.state.formats[f"{layer.name}.weight"].frac
                weights = self.step.forward[layer.name] = self.weights(layer, False)
                bias = self.bias(layer, sums)
                totals, flags = ff(self.config, layer, x, weights)
                for at in np.ndindex(*y.shape):
                    y[at] = self.bring((totals[at] + bias[at[3]]) * power(frac - sums), layer.output, 0 if alone else None)
                self.step.overflowed[layer.name, "FF"] = int(flags.sum())
            case BatchNorm():
                moments = batch_norm.moments(x.astype(np.int64), self.format(layer.inputs[0]), layer.epsilon)
                statistics = self.state.statistics
                statistics[layer.name] = batch_norm.update(statistics[layer.name], moments, layer.momentum)
                self.step.moments[layer.name] = moments
                gamma, beta = (self.parameter(f"{layer.name}.{name}") for name in ("gamma", "beta"))
                found, saturated = batch_norm.normalise(x.astype(np.int64), moments, *gamma, *beta, self.format(layer.output))
                y = found.astype(object)
                self.count(layer.output, saturated)
            case Relu():
                y = np.maximum(x, 0)
            case Add():
                other = image(network, layer.inputs[1], tensors[layer.inputs[1]])
                for at in np.ndindex(*y.shape):
                    exact = x[at] * power(-self.frac(layer.inputs[0])) + other[at] * power(-self.frac(layer.inputs[1]))
                    y[at] = self.bring(exact * power(frac), layer.output)
            case MaxPool():
                for n, row, column, f in np.ndindex(*y.shape):
                    y[n, row, column, f] = max(x[n, i, j, f] for _, _, i, j in seen(layer.window, row, column, height, width))
            case AveragePool():
                for n, row, column, f in np.ndindex(*y.shape):
                    places = list(seen(layer.window, row, column, height, width))
                    total = sum(x[n, i, j, f] for _, _, i, j in places)
                    factor = self.reciprocal(self.divisor(layer, row, column), frac - self.frac(layer.inputs[0]))
                    y[n, row, column, f] = self.bring(total * factor, layer.output)
        return y

    def divisor(self, layer: AveragePool, row: int, column: int) -> int:
        """Count what a window divides by."""
        height, width, _ = self.network.image(layer.inputs[0])
        top, left, bottom, right = layer.window.pads if layer.counted else (0, 0, 0, 0)
        window = Window(
            kernel=layer.window.kernel,
            stride=layer.window.stride,
            dilation=layer.window.dilation,
            pads=(layer.window.pads[0] - top, layer.window.pads[1] - left, 0, 0),
        )
        return len(list(seen(window, row, column, height + top + bottom, width + left + right)))

    def reciprocal(self, count: int, frac: int) -> Fraction:
        """2**frac / count as the nearest multiplier and shift, up to a shift of 63."""
        bits = min(self.config.mult_bits, 31)
        exact = power(frac) / count
        for shift in range(63, -1, -1):
            if rounded(exact * power(shift)) < 2**bits:
                return rounded(exact * power(shift)) * power(-shift)
        raise AssertionError

    def parameter(self, name: str) -> tuple[NDArray[np.int64], FixedFormat]:
        """Working copy and its format."""
        return self.state.parameters[name].working, FixedFormat(self.config.weight_bits, self.state.formats[name].frac)

    def bias(self, layer: Convolution, frac: int) -> list[int]:
        """Biases at the fraction of the sums."""
        if not layer.biased:
            return [0] * layer.filters
        name = f"{layer.name}.bias"
        most = 2 ** (self.config.acc_bits - 1)
        factor = power(frac - self.state.formats[name].frac)
        return [clip(rounded(int(each) * factor), -most, most - 1) for each in self.state.parameters[name].working]

    def differentiate(self, labels: Array) -> None:
        """All gradients, from the last layer to the first."""
        network, trained = self.network, self.trained()
        logits = self.step.tensors[network.output]
        bits = self.config.act_bits
        step, scale = 2.0 ** -self.frac(network.output), 2.0 ** -(bits - 1)
        rows = logits.reshape(len(labels), -1).astype(np.int64)
        p = softmax(SoftmaxParameters.of(length=rows.shape[1], step=step, scale=scale, zero_point=0, lo=0, hi=self.hi), rows).astype(object)
        for row, label in zip(p, labels, strict=True):
            row[label] -= 2 ** (bits - 1)
        parts: dict[str, list[Array]] = {tensor: [] for tensor in trained}
        parts[network.output].append(p.reshape(logits.shape))
        for layer in reversed(network.layers):
            if layer.output not in trained:
                continue
            dy = np.zeros(self.step.tensors[layer.output].shape, object) + sum(parts[layer.output])
            kept = np.clip(dy, self.lo, self.hi)
            self.see(f"{layer.output}'", kept, int((dy != kept).sum()))
            self.step.gradients[layer.output] = kept
            for number, values in self.backward(layer, image(network, layer.output, kept)):
                if layer.inputs[number] in trained:
                    values = values.reshape(self.step.tensors[layer.inputs[number]].shape)
                    parts[layer.inputs[number]].append(values)
                    self.step.contributions[layer.name, number] = values

    def backward(self, layer: Layer, dy: Array) -> Iterator[tuple[int, Array]]:
        """Yield what a layer hands to each input."""
        network, tensors, trained = self.network, self.step.tensors, self.trained()
        x = image(network, layer.inputs[0], tensors[layer.inputs[0]])
        height, width = x.shape[1:3]
        rows, columns = dy.shape[1:3]
        into = f"{layer.inputs[0]}'"
        has = layer.inputs[0] in trained
        match layer:
            case Convolution():
                if has:
                    yield 0, self.propagate(layer, self.thinned(layer, dy), x.shape)
                self.correlate(layer, x, dy)
            case BatchNorm():
                names = (f"{layer.name}.gamma'", f"{layer.name}.beta'")
                to = [FixedFormat(self.config.act_bits, self.state.formats[name].frac) for name in names]
                target = self.format(layer.inputs[0], "'") if has else self.format(layer.output, "'")
                gamma = self.parameter(f"{layer.name}.gamma")
                found = batch_norm.backward(
                    dy.astype(np.int64),
                    self.format(layer.output, "'"),
                    x.astype(np.int64),
                    self.step.moments[layer.name],
                    *gamma,
                    target,
                    *to,
                )
                self.keep(f"{layer.name}.gamma", found.dgamma.astype(object), found.dgamma_saturated)
                self.keep(f"{layer.name}.beta", found.dbeta.astype(object), found.dbeta_saturated)
                if has:
                    self.count(into, found.dx_saturated)
                    yield 0, found.dx.astype(object)
            case Relu():
                yield 0, np.where(image(network, layer.output, tensors[layer.output]) > 0, dy, 0)
            case Add():
                for number, tensor in enumerate(layer.inputs):
                    if tensor in trained:
                        yield number, self.all(dy, self.frac(tensor, "'") - self.frac(layer.output, "'"), f"{tensor}'")
            case MaxPool():
                if not has:
                    return
                total = np.zeros(x.shape, object)
                for n, row, column, f in np.ndindex(*dy.shape):
                    best: tuple[int, int] | None = None
                    for _, _, i, j in seen(layer.window, row, column, height, width):
                        if best is None or x[n, i, j, f] > x[n, best[0], best[1], f]:
                            best = i, j
                    assert best is not None
                    total[n, best[0], best[1], f] += dy[n, row, column, f]
                kept = np.clip(total, self.lo, self.hi)
                self.count(into, int((kept != total).sum()))
                yield 0, kept
            case AveragePool():
                if not has:
                    return
                factor = self.frac(layer.inputs[0], "'") - self.frac(layer.output, "'")
                counts = {(row, column): self.divisor(layer, row, column) for row, column in product(range(rows), range(columns))}
                bits = min(self.config.mult_bits, 31)
                least = min(counts.values())
                shift = next(s for s in range(63, -1, -1) if rounded(power(factor + s) / least) < 2**bits)
                total = np.zeros(x.shape, object)
                for n, row, column, f in np.ndindex(*dy.shape):
                    weight = rounded(power(factor + shift) / counts[row, column])
                    for _, _, i, j in seen(layer.window, row, column, height, width):
                        total[n, i, j, f] += dy[n, row, column, f] * weight
                yield 0, self.all(total, -shift, into)

    def thinned(self, layer: Convolution, dy: Array) -> Array:
        """SDGP: N of M output channels at every position, L1 norms kept."""
        if self.recipe.algorithm != "sdgp" or layer.name not in self.pruned:
            return dy
        out, each = np.zeros(dy.shape, object), layer.filters // layer.groups
        for n, row, column in np.ndindex(*dy.shape[:3]):
            for group in range(layer.groups):
                line = [int(value) for value in dy[n, row, column, group * each : (group + 1) * each]]
                for f in self.chosen(line):
                    out[n, row, column, group * each + f] = line[f]
        for n, f in product(range(len(dy)), range(dy.shape[3])):
            whole, left = (sum(abs(int(value)) for value in array[n, :, :, f].ravel()) for array in (dy, out))
            if not left:
                continue
            shift = next((s for s in range(15, 0, -1) if rounded(Fraction(whole, left) * 2**s) < 2**16), 0)
            factor = min(rounded(Fraction(whole, left) * 2**shift), 2**16 - 1) * power(-shift)
            for row, column in np.ndindex(*dy.shape[1:3]):
                out[n, row, column, f] = self.bring(out[n, row, column, f] * factor, f"{layer.output}'")
        return out

    def chosen(self, line: list[int]) -> list[int]:
        """Choose by the recipe's pattern."""
        return chosen(line, self.recipe.pattern.n, self.recipe.pattern.m)

    def propagate(self, layer: Convolution, dy: Array, shape: tuple[int, ...]) -> Array:
        """BP of a convolution."""
        name = layer.name
        weights = self.step.backward[name] = self.weights(layer, True)
        sums = self.frac(layer.output, "'") + self.state.formats[f"{name}.weight"].frac
        totals, flags = bp(self.config, layer, (shape[1], shape[2]), dy, weights)
        self.step.overflowed[name, "BP"] = int(flags.sum())
        return self.all(totals, self.frac(layer.inputs[0], "'") - sums, f"{layer.inputs[0]}'")

    def all(self, values: Array, drop: int, name: str) -> Array:
        """Bring every element to a format."""
        out = np.empty(values.shape, object)
        for at in np.ndindex(*values.shape):
            out[at] = self.bring(values[at] * power(drop), name)
        return out

    def correlate(self, layer: Convolution, x: Array, dy: Array) -> None:
        """WU of a convolution."""
        name, dy_frac = f"{layer.name}.weight", self.frac(layer.output, "'")
        totals, flags = wu(self.config, layer, x, dy)
        lost = int(flags.sum())
        self.keep(name, self.all(totals, self.state.formats[f"{name}'"].frac - self.frac(layer.inputs[0]) - dy_frac, f"{name}'"), 0)
        if layer.biased:
            name = f"{layer.name}.bias"
            totals, flags = bias_wu(self.config, dy)
            lost += int(flags.sum())
            self.keep(name, self.all(totals, self.state.formats[f"{name}'"].frac - dy_frac, f"{name}'"), 0)
        self.step.overflowed[layer.name, "WU"] = lost

    def keep(self, name: str, gradient: Array, saturated: int) -> None:
        """Take the gradient of a parameter."""
        self.step.parameter_gradients[name] = gradient
        self.see(f"{name}'", gradient, saturated)

    def update(self, rate: float, batch: int) -> None:
        """Make new masters, momenta, working copies and masks."""
        for name, parameter in self.state.parameters.items():
            formats = self.state.formats
            formats[name].frac += formats[name].change
            formats[name].change = 0
            master, velocity = formats[f"{name}^"].frac, formats[f"{name}~"].frac
            layer = next(each for each in self.network.layers if each.name == name.rpartition(".")[0])
            weight = isinstance(layer, Convolution) and name.endswith(".weight")
            decay, extra = (self.recipe.decay, self.recipe.pruned_decay) if weight else (0.0, 0.0)
            kept_c, pruned_c, decay_shift = self.coefficients(
                [Fraction(batch * each) * power(velocity - master) for each in (decay, decay + extra)]
            )
            (rate_c,), rate_shift = self.coefficients([Fraction(rate / batch) * power(master - velocity)])[:1], self.shift
            momentum = min(rounded(Fraction(self.recipe.momentum) * 2**16), 2**16 - 1)
            gradient = self.step.parameter_gradients[name]
            words = [] if parameter.lanes is None else [int(word) for word in parameter.lanes]
            new = [np.empty(parameter.master.shape, object) for _ in range(3)]
            counts = [0, 0, 0]
            for at, lane in self.order(layer, name):
                w, v = int(parameter.master[at]), int(parameter.velocity[at])
                c = kept_c if parameter.mask is None or parameter.mask[at] else pruned_c
                total = rounded(Fraction(momentum * v, 2**16)) + gradient[at] * 2 ** min(velocity - formats[f"{name}'"].frac, 31)
                total += rounded(c * w * power(-decay_shift))
                new[0][at] = clip(total, -(2**31), 2**31 - 1)
                moved = w - rounded(rate_c * new[0][at] * power(-rate_shift))
                new[1][at] = clip(moved, -(2**31), 2**31 - 1)
                exact = new[1][at] * power(formats[name].frac - master)
                if words:
                    narrow = int((exact + Fraction(words[lane], 2**32)) // 1)
                    words[lane] = lfsr.leap(words[lane])
                else:
                    narrow = rounded(exact)
                new[2][at] = clip(narrow, self.lo, self.hi)
                counts = [n + (a != b) for n, a, b in zip(counts, (total, moved, narrow), (each[at] for each in new), strict=True)]
            parameter.velocity, parameter.master, parameter.working = (each.astype(np.int64) for each in new)
            parameter.lanes = np.array(words) if words else None
            for mark, number in (("~", counts[0]), ("^", counts[1])):
                self.count(name + mark, number)
                self.step.elements[name + mark] = parameter.master.size
            self.see(name, parameter.working, counts[2])
            if weight and layer.name in self.pruned and (self.state.step + 1) % self.recipe.refresh == 0:
                assert isinstance(layer, Convolution)
                self.prune(layer, parameter.working)

    def coefficients(self, factors: list[Fraction]) -> tuple[int, ...]:
        """Factors as integers of 16 bits with the greatest common shift up to 63, and the shift."""
        top = max(factors)
        self.shift = next(s for s in range(63, -1, -1) if s == 0 or rounded(top * 2**s) < 2**16)
        return (*(rounded(each * 2**self.shift) for each in factors), self.shift)

    def order(self, layer: Layer, name: str) -> Iterator[tuple[Any, int]]:
        """Places of the elements of a parameter in the order in which they are updated, and their lanes."""
        lanes = self.config.cols
        if not (isinstance(layer, Convolution) and name.endswith(".weight")):
            for i in range(self.state.parameters[name].master.size):
                yield (i,), i % lanes
            return
        coded = layer.name in self.pruned and self.recipe.algorithm in ("bdwp", "sr-ste")
        width = lanes // self.recipe.pattern.m * self.recipe.pattern.m if coded else lanes
        each = layer.filters // layer.groups
        for group in range(layer.groups):
            for first in range(0, each, width):
                for ky, kx, c in np.ndindex(*layer.shape[1:]):
                    for lane in range(min(width, each - first)):
                        yield (group * each + first + lane, ky, kx, c), lane

    def prune(self, layer: Convolution, working: Array) -> None:
        """Choose what FF and BP keep."""
        if self.recipe.algorithm not in ("bdwp", "sr-ste"):
            return
        forward, backward = np.zeros(layer.shape, bool), np.zeros(layer.shape, bool)
        each = layer.filters // layer.groups
        for f, ky, kx in np.ndindex(*layer.shape[:3]):
            for c in self.chosen([int(value) for value in working[f, ky, kx]]):
                forward[f, ky, kx, c] = True
        for group in range(layer.groups):
            for ky, kx, c in np.ndindex(*layer.shape[1:]):
                for f in self.chosen([int(value) for value in working[group * each : (group + 1) * each, ky, kx, c]]):
                    backward[group * each + f, ky, kx, c] = True
        parameter = self.state.parameters[f"{layer.name}.weight"]
        parameter.mask, parameter.back = forward, backward if self.recipe.algorithm == "bdwp" else forward

    def follow(self) -> None:
        """Move fractions."""
        step, fixed = self.step, {self.network.input, f"{self.shared[self.network.output]}'"}
        homes: dict[str, list[str]] = {}
        for name in step.elements:
            tensor = name.removesuffix("'")
            home = self.shared[tensor] + name[len(tensor) :] if tensor in self.shared else name
            homes.setdefault(home, []).append(name)
        for home, names in homes.items():
            format = self.state.formats[home]
            format.overflowed += sum(step.saturated[name] for name in names)
            format.elements += sum(step.elements[name] for name in names)
            if home in fixed or home[-1] in "^~":
                continue
            change = self.moved(format, any(10_000 * step.saturated[name] > step.elements[name] for name in names), names)
            parameter = home.removesuffix("'")
            if parameter in self.state.parameters and parameter == home:
                top = self.state.formats[f"{home}^"].frac
                format.change = clip(format.frac + change, top - 63, top) - format.frac
            else:
                format.frac += change
                if parameter in self.state.parameters:
                    top = self.state.formats[f"{parameter}~"].frac
                    format.frac = clip(format.frac, top - 31, top)

    def moved(self, format: Tracked, often: bool, names: list[str]) -> int:
        """Return what a fraction moves by."""
        peak = max(self.step.peaks[name] for name in names)
        if often or 8 * peak >= 2 ** (format.bits - 1):
            format.quiet = format.peak = 0
            return -1 if often else 0
        format.quiet, format.peak = format.quiet + 1, max(format.peak, peak)
        if format.quiet < 32:
            return 0
        rises = int(format.peak > 0)
        format.quiet = format.peak = 0
        return rises
