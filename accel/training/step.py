"""One step of training as the accelerator does it, bit by bit: forward, backward, weight gradients, update, pruning (decision 17)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.formats import FixedFormat, Overflow, Rounding
from accel.golden import wuve
from accel.golden.arithmetic import MAX_SHIFT, overflow, round_shift
from accel.graph.network import batched, channels_last, inverse
from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable, check_trained
from accel.kernels.requantise import Integers, narrowest
from accel.lfsr import seeds
from accel.quant import quantise as to_integers
from accel.schedule.strips import Strips, strips
from accel.sparsity import mask
from accel.special import batch_norm
from accel.training import course, elementwise, formats, products, reference
from accel.training.formats import Counts, Plan
from accel.training.loss import cross_entropy
from accel.training.recipe import Recipe
from accel.training.sdgp import sdgp
from accel.training.state import Parameter, State
from accel.training.update import operands

CHUNK = 256  # our choice: samples that inference takes at once


@dataclass(slots=True, kw_only=True, eq=False)
class Record:
    """Everything that a step read and wrote, in integers: enough to replay it block by block.

    Parameters
    ----------
    fractions : dict of str to int
        Fraction bits during the step, by the names of :class:`~accel.training.state.State`; every tensor and every gradient has its own
        entry, also where several share a format. A working copy has that of before the step.
    tensors : dict of str to integers, shape (samples, *stored shape)
        Activations by name.
    gradients : dict of str to integers, shape (samples, *stored shape)
        Gradients by the name of the tensor, as the layer that wrote it loads them: after the mask of a ReLU. None of the input, nor of
        what no parameter stands before.
    contributions : dict of (str, int) to integers
        By layer and number of its input: what backward work of the layer hands to that input. Gradients are their sums.
    pruned : dict of str to integers
        By layer: the output gradient as BP reads it, where it is pruned (SDGP).
    forward, backward : dict of str to integers, shape (filters, kh, kw, channels / groups)
        By layer: weights of FF and of BP, zeros where they are pruned.
    biases : dict of str to int64, shape (filters,)
        By layer: what FF adds to its sums [product LSBs].
    shifts : dict of (str, str) to int
        By layer and ``"FF"``, ``"BP"`` or ``"WU"``: dropped bits of the sums; negative ones are a multiplier of ``2**-shift``.
    floors : dict of str to int
        By layer: `lo` of FF's results, 0 where only a ReLU reads them.
    parameter_gradients : dict of str to integers
        By parameter, in its shape.
    before, after : dict of str to Parameter
        Copies of all parameters.
    updates : dict of str to tuple of isa.Update
        By parameter: the jobs of `wuve`, strip by strip.
    prunes : dict of str to tuple of isa.Prune
        By parameter: the jobs of `sore`, strip by strip and tap by tap; none in a step that does not prune.
    """

    fractions: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, Integers] = field(default_factory=dict)
    gradients: dict[str, Integers] = field(default_factory=dict)
    contributions: dict[tuple[str, int], Integers] = field(default_factory=dict)
    pruned: dict[str, Integers] = field(default_factory=dict)
    forward: dict[str, Integers] = field(default_factory=dict)
    backward: dict[str, Integers] = field(default_factory=dict)
    biases: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    shifts: dict[tuple[str, str], int] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    parameter_gradients: dict[str, Integers] = field(default_factory=dict)
    before: dict[str, Parameter] = field(default_factory=dict)
    after: dict[str, Parameter] = field(default_factory=dict)
    updates: dict[str, tuple[isa.Update, ...]] = field(default_factory=dict)
    prunes: dict[str, tuple[isa.Prune, ...]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome:
    """What a step tells.

    Parameters
    ----------
    loss : float
        Mean of the losses of the batch; host.
    correct : int
        Samples whose greatest logit, the first of equal ones, is that of their label.
    saturated : dict of str to int
        Elements that saturated in this step, by tensor (``"<tensor>"``, ``"<tensor>'"``) and parameter (``"<parameter>"`` of the working
        copy, ``'`` of its gradient, ``^`` of the master, ``~`` of the momentum); those that had none are left out.
    overflowed : dict of (str, str) to int
        Sums that left the accumulator, by layer and ``"FF"``, ``"BP"`` or ``"WU"``; those that had none are left out.
    record : Record or None
        Everything, if it was asked for.
    """

    loss: float
    correct: int
    saturated: dict[str, int]
    overflowed: dict[tuple[str, str], int]
    record: Record | None = None


def prepare(network: Trainable, config: AcceleratorConfig, recipe: Recipe, samples: NDArray[np.floating[Any]], labels: Integers) -> State:
    """Make the state before the first step: weights, and formats that one batch calibrates.

    Weights that the network lacks are drawn from the recipe's seed (:func:`accel.training.reference.draw`): all of them or none.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
    samples : float, shape (samples, *stored shape) or (samples, *ONNX shape)
    labels : integers, shape (samples,)

    Returns
    -------
    State

    Raises
    ------
    ConfigError, NetworkError, RangeError
        If an argument breaks its rule.
    """
    check_trained(network)
    formats.check(config)
    formats.plan(network)
    pruned = course.pruned(network, recipe)
    if pruned and recipe.pattern.m > config.bundle:
        raise RangeError(f"pattern must have M at most the bundle size {config.bundle}, not {recipe.pattern}")
    if pruned and recipe.pattern.m > config.cols:
        raise RangeError(f"pattern must have M at most the {config.cols} columns of the array, not {recipe.pattern}")
    if all(layer.weights is None for layer in network.convolutions):
        network = reference.draw(network, recipe.seed)
    values = reference.parameters(network)
    reals = stored(network, samples).astype(np.float32, copy=False)
    with np.errstate(all="ignore"):  # calibration says what is not finite
        trace = reference.run(network, values, reals, labels, algorithm=recipe.algorithm, pattern=recipe.pattern, pruned=pruned)
    state = State(formats=formats.calibrate(network, config, recipe, values, trace.tensors, trace.gradients))
    formats.settle(network, config, state.formats)
    for name, real in values.items():
        master, working = state.formats[f"{name}^"], state.formats[name]
        wide = to_integers(real.astype(np.float64), 2.0**-master.frac, 0, formats.fixed(master))
        narrow = round_shift(wide, master.frac - working.frac, Rounding.HALF_EVEN)
        drawn = recipe.rounding == Rounding.STOCHASTIC.value
        state.parameters[name] = Parameter(
            master=wide,
            velocity=np.zeros_like(wide),
            working=np.clip(narrow, config.weight.lo, config.weight.hi),
            lanes=seeds(recipe.seed, name, config.cols) if drawn else None,
        )
    for layer in network.layers:
        if isinstance(layer, Convolution) and layer.name in pruned:
            _prune(layer, recipe, state.parameters[f"{layer.name}.weight"])
    for name, (mean, variance) in reference.statistics(network).items():
        state.statistics[name] = batch_norm.statistics(mean, variance)
    return state


def stored(network: Trainable, samples: NDArray[Any]) -> NDArray[Any]:
    """Bring samples to the order in which the network stores them: channels last. What has that shape already is left alone.

    Parameters
    ----------
    network : Trainable
    samples : array, shape (samples, *stored shape) or (samples, *ONNX shape)

    Raises
    ------
    RangeError
        If the shape is neither.
    """
    shape = network.shapes[network.input]
    if samples.shape[1:] == shape:
        return samples
    axes = network.axes or channels_last(len(shape))
    given = tuple(shape[axis] for axis in inverse(axes))
    if samples.shape[1:] != given:
        either = " or ".join(f"(samples, {str(each)[1:]}" for each in dict.fromkeys((shape, given)))
        raise RangeError(f"samples must be of shape {either}, not {samples.shape}")
    return np.ascontiguousarray(batched(samples, axes))


def quantise(network: Trainable, state: State, samples: NDArray[np.floating[Any]]) -> Integers:
    """Bring samples into the input's format, which calibration fixes for good: half to even, saturated; host.

    Parameters
    ----------
    network : Trainable
    state : State
    samples : float, shape (samples, *stored shape) or (samples, *ONNX shape)

    Returns
    -------
    integers, shape (samples, *stored shape)
    """
    format = formats.fixed(state.formats[network.input])
    reals = stored(network, samples).astype(np.float64)
    return to_integers(reals, 2.0**-format.frac, 0, format).astype(narrowest(format.lo, format.hi))


def step(
    network: Trainable,
    config: AcceleratorConfig,
    recipe: Recipe,
    state: State,
    samples: Integers,
    labels: Integers,
    rate: float,
    keep: bool = False,
) -> Outcome:
    """Train on one batch: `state` changes.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
    state : State
    samples : integers, shape (samples, *stored shape)
        Of :func:`quantise`.
    labels : integers, shape (samples,)
    rate : float
        Learning rate, at most that of the recipe, for which the formats were made.
    keep : bool
        Keep a :class:`Record`.

    Returns
    -------
    Outcome
    """
    classes = network.image(network.output)[-1]
    if labels.dtype.kind not in "iu" or labels.shape != samples.shape[:1]:
        raise RangeError(f"labels must be integers of shape {samples.shape[:1]}, not {labels.dtype} of shape {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise RangeError(f"labels must be in [0, {classes - 1}], not {labels.min()}..{labels.max()}")
    run = _Step(network, config, recipe, state, Record() if keep else None)
    run.forward(samples)
    logits = run.tensors[network.output].reshape(len(samples), -1)
    loss = cross_entropy(logits, run.format(network.output), labels)
    run.backward(loss.gradient)
    run.update(rate, len(samples))
    formats.follow(network, state.formats, run.counts)
    state.step += 1
    saturated = {name: count for name, count in run.counts.saturated.items() if count}
    return Outcome(loss=loss.loss / len(samples), correct=loss.correct, saturated=saturated, overflowed=run.overflowed, record=run.record)


def infer(network: Trainable, config: AcceleratorConfig, recipe: Recipe, state: State, samples: Integers) -> Integers:
    """Compute logits with running statistics, and with the weights that FF would read in the next step.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
    state : State
    samples : integers, shape (samples, *stored shape)
        Of :func:`quantise`.

    Returns
    -------
    integers, shape (samples, classes)
        In the format of the network's output.
    """
    if not len(samples):
        return np.zeros((0, network.image(network.output)[-1]), narrowest(config.act.lo, config.act.hi))
    parts = []
    held = dataclasses.replace(state, formats={name: dataclasses.replace(each) for name, each in state.formats.items()})
    for start in range(0, len(samples), CHUNK):
        run = _Step(network, config, recipe, held, None)
        run.forward(samples[start : start + CHUNK], running=True)
        parts.append(run.tensors[network.output].reshape(len(samples[start : start + CHUNK]), -1))
    return np.concatenate(parts)


class _Step:
    """A step under way: what later parts read of earlier ones."""

    def __init__(self, network: Trainable, config: AcceleratorConfig, recipe: Recipe, state: State, record: Record | None) -> None:
        self.network, self.config, self.recipe, self.state, self.record = network, config, recipe, state, record
        self.plan: Plan = formats.plan(network)
        self.counts = Counts()
        self.tensors: dict[str, Integers] = {}
        self.gradients: dict[str, Integers] = {}
        self.pruned = course.pruned(network, recipe)
        self.mult_bits = min(config.mult_bits, elementwise.MULT_BITS)
        self.winners: dict[str, NDArray[np.int16]] = {}
        self.moments: dict[str, batch_norm.Moments] = {}
        self.parameter_gradients: dict[str, Integers] = {}
        self.overflowed: dict[tuple[str, str], int] = {}
        formats.settle(network, config, state.formats)
        if record is not None:
            record.before = {name: _copy(each) for name, each in state.parameters.items()}
            record.tensors, record.gradients, record.parameter_gradients = self.tensors, self.gradients, self.parameter_gradients
            record.fractions = {name: each.frac for name, each in state.formats.items()}
            for tensor, root in self.plan.shared.items():
                record.fractions[tensor] = state.formats[root].frac
                if tensor in self.plan.trained:
                    record.fractions[f"{tensor}'"] = state.formats[f"{root}'"].frac

    def fixed(self, name: str) -> FixedFormat:
        """Format of this name as it stands."""
        return formats.fixed(self.state.formats[name])

    def format(self, tensor: str, gradient: bool = False) -> FixedFormat:
        """Format of a tensor or of its gradient as it stands."""
        return self.fixed(self.plan.shared[tensor] + "'" * gradient)

    def parameter(self, name: str) -> tuple[Integers, FixedFormat]:
        """Working copy of a parameter and its format."""
        return self.state.parameters[name].working, self.fixed(name)

    def keep(self, name: str, gradient: Integers, saturated: int) -> None:
        """Take the gradient of a parameter."""
        self.parameter_gradients[name] = gradient
        self.counts.see(f"{name}'", gradient, saturated)

    def spilt(self, name: str, stage: str, count: int) -> None:
        """Count sums of a layer that left the accumulator."""
        if count:
            self.overflowed[name, stage] = count

    def image(self, tensor: str) -> Integers:
        """Activation as (samples, height, width, channels)."""
        values = self.tensors[tensor]
        return values.reshape(len(values), *self.network.image(tensor))

    def weights(self, layer: Convolution, back: bool = False) -> Integers:
        """Weights of FF or BP, of the narrowest type, zeros where they are pruned."""
        parameter = self.state.parameters[f"{layer.name}.weight"]
        kept = parameter.back if back else parameter.mask
        kind = narrowest(self.config.weight.lo, self.config.weight.hi)
        if kept is None:
            return parameter.working.astype(kind)
        return np.multiply(parameter.working, kept, dtype=kind, casting="unsafe")

    def forward(self, samples: Integers, running: bool = False) -> None:
        """Compute every activation; with running statistics in inference."""
        shape, given = self.network.shapes[self.network.input], self.format(self.network.input)
        if samples.dtype.kind != "i" or samples.shape[1:] != shape or not len(samples):
            raise RangeError(f"samples must be integers of shape (samples, {str(shape)[1:]}, not {samples.dtype} of shape {samples.shape}")
        if not given.lo <= samples.min() <= samples.max() <= given.hi:
            raise RangeError(f"samples must be in [{given.lo}, {given.hi}], not {samples.min()}..{samples.max()}")
        self.tensors[self.network.input] = samples
        for layer in self.network.layers:
            found, saturated = self.compute(layer, running)
            values = found.reshape(len(samples), *self.network.shapes[layer.output])
            self.tensors[layer.output] = values
            self.counts.see(layer.output, values, saturated)

    def compute(self, layer: Layer, running: bool) -> tuple[Integers, int]:
        """Compute a layer: its output and how many elements saturated."""
        x, x_format, y_format = self.image(layer.inputs[0]), self.format(layer.inputs[0]), self.format(layer.output)
        match layer:
            case Convolution():
                return self.convolve(layer, x, x_format, y_format)
            case BatchNorm():
                return self.normalise(layer, x, x_format, y_format, running)
            case Relu():
                return (x if layer.inputs[0] in self.plan.clipped else elementwise.relu(x)), 0
            case Add():
                b = self.image(layer.inputs[1])
                return elementwise.add(x, x_format, b, self.format(layer.inputs[1]), y_format)
            case MaxPool():
                values, self.winners[layer.name] = elementwise.max_pool(x, x_format, layer.window)
                return values, 0
            case _:
                assert isinstance(layer, AveragePool)
                return elementwise.average_pool(x, x_format, layer.window, layer.counted, y_format, self.mult_bits)

    def convolve(self, layer: Convolution, x: Integers, x_format: FixedFormat, y_format: FixedFormat) -> tuple[Integers, int]:
        """FF of a convolution."""
        name = layer.name
        weights, sums = self.weights(layer), x_format.frac + self.state.formats[f"{name}.weight"].frac
        bias = self.bias(layer, sums) if layer.biased else None
        floor = 0 if layer.output in self.plan.clipped else None
        result = products.forward(self.config, layer, x, weights, bias, sums - y_format.frac, floor)
        self.spilt(name, "FF", result.overflowed)
        if self.record is not None:
            self.record.forward[name], self.record.shifts[name, "FF"] = weights, sums - y_format.frac
            self.record.floors[name] = self.config.act.lo if floor is None else floor
            self.record.biases[name] = np.zeros(layer.filters, np.int64) if bias is None else bias
        return result.value, result.saturated

    def bias(self, layer: Convolution, frac: int) -> NDArray[np.int64]:
        """Bring a bias to the fraction of the sums: half to even, saturated to the accumulator."""
        name = f"{layer.name}.bias"
        drop = self.state.formats[name].frac - frac
        working, limits = self.state.parameters[name].working, self.config.acc
        if drop >= 0:
            return round_shift(working, min(drop, MAX_SHIFT), Rounding.HALF_EVEN)
        return overflow(working, limits, Overflow.SATURATE, min(-drop, MAX_SHIFT))[0]

    def normalise(self, layer: BatchNorm, x: Integers, x_format: FixedFormat, y_format: FixedFormat, running: bool) -> tuple[Integers, int]:
        """Batch normalisation forward, with statistics of the batch or running ones."""
        if running:
            moments = batch_norm.running(self.state.statistics[layer.name], x_format, layer.epsilon)
        else:
            moments = batch_norm.moments(x, x_format, layer.epsilon)
            self.moments[layer.name] = moments
            self.state.statistics[layer.name] = batch_norm.update(self.state.statistics[layer.name], moments, layer.momentum)
        gamma, beta = (self.parameter(f"{layer.name}.{name}") for name in ("gamma", "beta"))
        return batch_norm.normalise(x, moments, *gamma, *beta, y_format)

    def backward(self, gradient: Integers) -> None:
        """Compute every gradient, from that of the logits."""
        parts: dict[str, list[Integers]] = {tensor: [] for tensor in self.plan.trained}
        if self.network.output in parts:
            parts[self.network.output].append(gradient.reshape(len(gradient), *self.network.shapes[self.network.output]))
        for layer in reversed(self.network.layers):
            if layer.output not in parts:
                continue
            own = parts.pop(layer.output)
            name = f"{layer.output}'"
            if own:
                dy, saturated = elementwise.accumulate(own, self.format(layer.output, True))
            else:  # nothing that leads to the logits reads it
                dy, saturated = np.zeros_like(self.tensors[layer.output]), 0
            self.gradients[layer.output] = dy
            self.counts.see(name, dy, saturated)
            for number, found, clipped in self.differentiate(layer, dy):
                tensor = layer.inputs[number]
                values = found.reshape(self.tensors[tensor].shape)
                parts[tensor].append(values)
                self.counts.clip(f"{tensor}'", clipped)
                if self.record is not None:
                    self.record.contributions[layer.name, number] = values

    def differentiate(self, layer: Layer, dy: Integers) -> Iterator[tuple[int, Integers, int]]:
        """Yield what a layer hands to each of its inputs that has a gradient: its number, the gradient, how many elements saturated.

        Gradients of the layer's parameters are kept.
        """
        dy_format = self.format(layer.output, True)
        dy = dy.reshape(len(dy), *self.network.image(layer.output))
        x = self.image(layer.inputs[0])
        trained = [number for number, tensor in enumerate(layer.inputs) if tensor in self.plan.trained]
        if isinstance(layer, Convolution):
            if trained:
                yield 0, *self.propagate(layer, dy, dy_format, x.shape[1:3])
            self.correlate(layer, x, dy, dy_format)
        elif isinstance(layer, BatchNorm):
            # Nothing in front of the first parameter takes a gradient, which is computed all the same, in any format.
            dx_format = self.format(layer.inputs[0], True) if trained else dy_format
            gamma, gamma_format = self.parameter(f"{layer.name}.gamma")
            to = [self.fixed(f"{layer.name}.{name}'") for name in ("gamma", "beta")]
            slopes = batch_norm.backward(dy, dy_format, x, self.moments[layer.name], gamma, gamma_format, dx_format, *to)
            self.keep(f"{layer.name}.gamma", slopes.dgamma, slopes.dgamma_saturated)
            self.keep(f"{layer.name}.beta", slopes.dbeta, slopes.dbeta_saturated)
            if trained:
                yield 0, slopes.dx, slopes.dx_saturated
        elif isinstance(layer, Relu):
            for number in trained:
                yield number, elementwise.relu_backward(dy, self.image(layer.output)), 0
        elif isinstance(layer, Add):
            for number in trained:
                yield number, *elementwise.convert(dy, dy_format, self.format(layer.inputs[number], True))
        elif isinstance(layer, MaxPool):
            for number in trained:
                yield number, *elementwise.max_pool_backward(dy, dy_format, self.winners[layer.name], layer.window, x.shape)
        elif isinstance(layer, AveragePool):
            for number in trained:
                dx_format = self.format(layer.inputs[number], True)
                found = elementwise.average_pool_backward(dy, dy_format, layer.window, layer.counted, x.shape, dx_format, self.mult_bits)
                yield number, *found

    def propagate(self, layer: Convolution, dy: Integers, dy_format: FixedFormat, size: tuple[int, int]) -> tuple[Integers, int]:
        """BP of a convolution."""
        name, format = layer.name, self.format(layer.inputs[0], True)
        lost = 0
        if self.recipe.algorithm == "sdgp" and name in self.pruned:
            each = layer.filters // layer.groups
            parts = [sdgp(dy[..., first : first + each], dy_format, self.recipe.pattern) for first in range(0, layer.filters, each)]
            dy, lost = np.concatenate([part for part, _ in parts], axis=-1), sum(count for _, count in parts)
            if self.record is not None:
                self.record.pruned[name] = dy
        weights = self.weights(layer, back=True)
        shift = dy_format.frac + self.state.formats[f"{name}.weight"].frac - format.frac
        result = products.backward(self.config, layer, size, dy, weights, shift)
        self.spilt(name, "BP", result.overflowed)
        self.counts.clip(f"{layer.output}'", lost)
        if self.record is not None:
            self.record.backward[name], self.record.shifts[name, "BP"] = weights, shift
        return result.value, result.saturated

    def correlate(self, layer: Convolution, x: Integers, dy: Integers, dy_format: FixedFormat) -> None:
        """WU of a convolution."""
        name = f"{layer.name}.weight"
        shift = self.format(layer.inputs[0]).frac + dy_format.frac - self.state.formats[f"{name}'"].frac
        result = products.gradient(self.config, layer, x, dy, shift)
        overflowed = result.overflowed
        self.keep(name, result.value, result.saturated)
        if self.record is not None:
            self.record.shifts[layer.name, "WU"] = shift
        if layer.biased:
            name = f"{layer.name}.bias"
            result = products.bias_gradient(self.config, dy, dy_format.frac - self.state.formats[f"{name}'"].frac)
            overflowed += result.overflowed
            self.keep(name, result.value, result.saturated)
        self.spilt(layer.name, "WU", overflowed)

    def update(self, rate: float, batch: int) -> None:
        """Update every parameter, and choose the weights that stay in the next step."""
        again = (self.state.step + 1) % self.recipe.refresh == 0
        for layer in self.network.layers:
            for name in formats.parameters(layer):
                self.renew(layer, name, rate, batch)
            if isinstance(layer, Convolution) and layer.name in self.pruned and again:
                name = f"{layer.name}.weight"
                _prune(layer, self.recipe, self.state.parameters[name])
                if self.record is not None and self.recipe.algorithm in reference.FORWARD:
                    self.record.prunes[name] = tuple(cut(self.network, self.config, self.recipe, layer, name).jobs(self.recipe.pattern))
        if self.record is not None:
            self.record.after = {name: _copy(each) for name, each in self.state.parameters.items()}

    def renew(self, layer: Layer, name: str, rate: float, batch: int) -> None:
        """Update one parameter and its working copy."""
        parameter, working = self.state.parameters[name], self.state.formats[name]
        working.frac, working.change = working.frac + working.change, 0
        whole = cut(self.network, self.config, self.recipe, layer, name)
        jobs = _jobs(self.config, self.recipe, self.state, name, whole, rate, batch)
        gradient = self.parameter_gradients[name]
        kept = parameter.mask if jobs[0].decay != jobs[0].pruned_decay else None
        if parameter.lanes is None:
            done = wuve.update(self.config, jobs[0], gradient, parameter.velocity, parameter.master, kept)
            parameter.velocity, parameter.master, parameter.working = done.velocity, done.master, done.working
            counts = done.saturated
        else:
            counts = self.draw(parameter, whole, jobs[0], gradient, kept)
        self.counts.add(f"{name}~", parameter.velocity.size, counts[0])
        self.counts.add(f"{name}^", parameter.master.size, counts[1])
        self.counts.see(name, parameter.working, counts[2])
        if self.record is not None:
            self.record.updates[name] = jobs

    def draw(
        self, parameter: Parameter, cut: Strips, job: isa.Update, gradient: Integers, kept: NDArray[np.bool_] | None
    ) -> tuple[int, int, int]:
        """Update a parameter strip by strip, the words of stochastic rounding drawn in that order; count what saturated."""
        arrays = [cut.split(each.reshape(cut.shape)) for each in (gradient, parameter.velocity, parameter.master)]
        mask = None if kept is None else cut.split(kept.reshape(cut.shape))
        done = [np.zeros((cut.beats, cut.lanes), np.int64) for _ in range(3)]
        each, start, counts = cut.taps * cut.channels, 0, np.zeros(3, np.int64)
        for width, run in groupby(width for _, width in cut.spans):  # strips of one width follow each other as one
            some = np.s_[start : (start := start + each * len(list(run))), :width]
            g, v, w = (array[some] for array in arrays)
            found = wuve.update(self.config, job, g, v, w, None if mask is None else mask[some], parameter.lanes)
            parameter.lanes = found.state
            for array, values in zip(done, found[:3], strict=True):
                array[some] = values
            counts += found.saturated
        shape = parameter.master.shape
        parameter.velocity, parameter.master, parameter.working = (cut.join(array).reshape(shape) for array in done)
        return int(counts[0]), int(counts[1]), int(counts[2])


def cut(network: Trainable, config: AcceleratorConfig, recipe: Recipe, layer: Layer, name: str) -> Strips:
    """Cut a parameter into strips: weights by output channels, anything else as output channels of one weight each.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
    layer : Layer
    name : str
        Of the parameter.
    """
    if not isinstance(layer, Convolution) or name != f"{layer.name}.weight":
        return strips((network.shapes[layer.output][-1], 1, 1, 1), config.cols)
    coded = layer.name in course.pruned(network, recipe) and recipe.algorithm in reference.FORWARD
    return strips(layer.shape, config.cols, layer.groups, recipe.pattern.m if coded else 1)


def _jobs(
    config: AcceleratorConfig, recipe: Recipe, state: State, name: str, whole: Strips, rate: float, batch: int
) -> tuple[isa.Update, ...]:
    """Make the jobs of a parameter, one for each strip; only weights decay."""
    gradient, velocity, master, working = (state.formats[name + mark].frac for mark in ("'", "~", "^", ""))
    weight = name.endswith(".weight")
    each = operands(
        rate=rate,
        momentum=recipe.momentum,
        decay=recipe.decay if weight else 0.0,
        pruned_decay=recipe.pruned_decay if weight else 0.0,
        batch=batch,
        f_gradient=max(gradient, velocity - isa.GRADIENT_SHIFT),  # beyond, anything but 0 saturates anyway
        f_velocity=velocity,
        f_master=master,
        f_working=working,
        rounding=recipe.rounding,
    )
    last = len(whole.spans) - 1
    return tuple(
        dataclasses.replace(each, beats=whole.taps * whole.channels, lanes=width, last=number == last)
        for number, (_, width) in enumerate(whole.spans)
    )


def _prune(layer: Convolution, recipe: Recipe, parameter: Parameter) -> None:
    """Choose the weights that FF and BP keep, of all weights."""
    if recipe.algorithm not in reference.FORWARD:
        return
    reach = max(-int(parameter.working.min()), int(parameter.working.max()))
    working = parameter.working.astype(narrowest(-reach, reach))
    parameter.mask = parameter.back = mask(working, recipe.pattern)
    if recipe.algorithm in reference.BIDIRECTIONAL:
        grouped = working.reshape(layer.groups, layer.filters // layer.groups, -1)
        parameter.back = np.ascontiguousarray(mask(grouped, recipe.pattern, 1)).reshape(layer.shape)


def _copy(parameter: Parameter) -> Parameter:
    arrays = {each.name: getattr(parameter, each.name) for each in dataclasses.fields(parameter)}
    return dataclasses.replace(parameter, **{name: array.copy() for name, array in arrays.items() if array is not None})
