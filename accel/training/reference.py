"""Host: a training step in floating point, and whole runs of it: what the fixed-point step is calibrated on and compared with.

Everything is computed in the type of the samples, float32 or float64. Gradients are those of the sum of the losses of a batch. What is
pruned is pruned as the accelerator prunes (decision 17), but by the magnitudes of floats.

References
----------
.. [1] C. Fang et al., "Efficient N:M Sparse DNN Training Using Algorithm, Architecture, and Dataflow Co-Design", IEEE TCAD 2024: ``bdwp``.
.. [2] A. Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021: ``sr-ste``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import NetworkError, RangeError
from accel.graph.trainable import COMPUTED, Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable
from accel.graph.window import Window, image
from accel.sparsity import Pattern, mask
from accel.training.course import Epoch, batches, check, pruned, rate
from accel.training.data import Data
from accel.training.recipe import ALGORITHMS, Recipe

Array = NDArray[Any]
BIDIRECTIONAL = ("bdwp",)  # prune the weights of BP along output channels
FORWARD = ("bdwp", "sr-ste")  # prune the weights of FF along input channels
CHUNK = 256  # our choice: samples that inference takes at once


class Choice(NamedTuple):
    """Which weights stay, by parameter; of what is not named all do.

    Parameters
    ----------
    forward, backward : dict of str to bool arrays
        For FF and for BP, in the shape of the weights.
    """

    forward: dict[str, NDArray[np.bool_]]
    backward: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Everything that a step computes.

    Parameters
    ----------
    tensors : dict of str to array, shape (batch, ...)
        Activations by name, as they are stored.
    gradients : dict of str to array
        Of the sum of the losses, by tensor and by parameter.
    loss : float
        Sum over the batch.
    logits : array, shape (batch, classes)
    statistics : dict of str to array, shape (2, channels)
        Mean and biased variance of the batch, by batch normalisation.
    """

    tensors: dict[str, Array]
    gradients: dict[str, Array]
    loss: float
    logits: Array
    statistics: dict[str, Array]


def parameters(network: Trainable, dtype: Any = np.float32) -> dict[str, Array]:
    """Return copies of a network's own parameters by name: ``"<layer>.weight"``, ``".bias"``, ``".gamma"``, ``".beta"``.

    Raises
    ------
    NetworkError
        If one of them is not known.
    """
    found = {}
    for layer in network.layers:
        for name, values in _own(layer).items():
            if values is None:
                raise NetworkError(f"{name} must be known, not left to its shape: draw weights for {network.name}")
            found[name] = values.astype(dtype)
    return found


def statistics(network: Trainable, dtype: Any = np.float64) -> dict[str, Array]:
    """Return a network's own running mean and variance, shape (2, channels), by batch normalisation; 0 and 1 where they are not known."""
    found = {}
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            channels = network.shapes[layer.output][-1]
            mean = np.zeros(channels) if layer.mean is None else layer.mean
            variance = np.ones(channels) if layer.variance is None else layer.variance
            found[layer.name] = np.stack([mean, variance]).astype(dtype)
    return found


def draw(network: Trainable, seed: int) -> Trainable:
    """Give a network new parameters: normal weights of He's deviation, sqrt(2 / reduction), biases of 0, gammas of 1.

    Parameters
    ----------
    network : Trainable
    seed : int
        0 or more. Each layer draws from a generator of its own.

    Returns
    -------
    Trainable

    References
    ----------
    .. [1] K. He et al., "Delving Deep into Rectifiers", ICCV 2015, equation 10.
    """
    layers: list[Layer] = []
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Convolution):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 0, index))))
            weights = (rng.standard_normal(layer.shape) * sqrt(2 / layer.reduction)).astype(np.float32)
            layers.append(replace(layer, weights=weights, bias=np.zeros(layer.filters, np.float32) if layer.biased else None))
        elif isinstance(layer, BatchNorm):
            ones, zeros = (make(network.shapes[layer.output][-1], np.float32) for make in (np.ones, np.zeros))
            layers.append(replace(layer, gamma=ones, beta=zeros, mean=zeros, variance=ones))
        else:
            layers.append(layer)
    return replace(network, layers=tuple(layers))


def choose(network: Trainable, values: Mapping[str, Array], algorithm: str, pattern: Pattern, pruned: frozenset[str]) -> Choice:
    """Choose the weights that stay: the N largest of M along input channels of a tap for FF, along output channels for BP.

    Parameters
    ----------
    network : Trainable
    values : mapping of str to array
        Parameters by name.
    algorithm : str
        One of ALGORITHMS; ``dense`` and ``sdgp`` prune no weights.
    pattern : Pattern
    pruned : frozenset of str
        Layers whose weights are pruned.

    Returns
    -------
    Choice
    """
    chosen = Choice({}, {})
    for layer in network.convolutions:
        if layer.name not in pruned or algorithm not in FORWARD:
            continue
        name = f"{layer.name}.weight"
        weights = values[name]
        chosen.forward[name] = mask(weights, pattern)
        if algorithm in BIDIRECTIONAL:
            grouped = weights.reshape(layer.groups, -1, *weights.shape[1:])
            chosen.backward[name] = mask(grouped, pattern, 1).reshape(weights.shape)
        else:
            chosen.backward[name] = chosen.forward[name]
    return chosen


def run(
    network: Trainable,
    parameters: Mapping[str, Array],
    samples: Array,
    labels: Array,
    *,
    algorithm: str = "dense",
    pattern: Pattern | None = None,
    pruned: frozenset[str] | None = None,
    choice: Choice | None = None,
) -> Trace:
    """Run one batch forward and backward; nothing is updated.

    Parameters
    ----------
    network : Trainable
        Of layers that are computed.
    parameters : mapping of str to array
        By name, see :func:`parameters`.
    samples : float32 or float64, shape (batch, ...)
        As the network stores them: channels last.
    labels : integer, shape (batch,)
    algorithm : str
        One of ALGORITHMS.
    pattern : Pattern, optional
        What is pruned to; 2:8 without it.
    pruned : frozenset of str, optional
        Layers that are pruned; without it those that the network finds eligible.
    choice : Choice, optional
        Weights that stay; without it chosen here.

    Returns
    -------
    Trace

    Raises
    ------
    NetworkError
        If a layer is only counted, or the output is no row of logits.
    RangeError
        If an argument breaks its rule.
    """
    if algorithm not in ALGORITHMS:
        raise RangeError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}")
    _check(network, samples)
    classes = prod(network.shapes[network.output])
    if labels.shape != samples.shape[:1] or labels.dtype.kind not in "iu":
        raise RangeError(f"labels must be integers of shape {samples.shape[:1]}, not {labels.dtype} of shape {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise RangeError(f"labels must be in [0, {classes - 1}], not {labels.min()}..{labels.max()}")
    pattern, pruned = pattern or Pattern(2, 8), network.eligible() if pruned is None else pruned
    chosen = choose(network, parameters, algorithm, pattern, pruned) if choice is None else choice

    values = {name: np.asarray(each, samples.dtype) for name, each in parameters.items()}
    zero = samples.dtype.type(0)
    forward, backward = _kept(values, chosen.forward), _kept(values, chosen.backward)
    saved: dict[str, Any] = {}
    tensors = _forward(network, forward, samples, None, saved)
    logits = tensors[network.output].reshape(len(samples), classes)
    loss, gradient = cross_entropy(logits, labels)

    gradients: dict[str, Array] = {network.output: gradient.reshape(tensors[network.output].shape)}
    of_parameters: dict[str, Array] = {}
    for layer in reversed(network.layers):
        x = tensors[layer.inputs[0]]
        dy = gradients.setdefault(layer.output, np.zeros_like(tensors[layer.output]))  # zeros: the logits do not depend on it
        own: dict[str, Array] = {}
        match layer:
            case Convolution():
                sparse = algorithm == "sdgp" and layer.name in pruned
                through = prune_gradient(dy, pattern, layer.groups) if sparse else dy
                dx, own = _convolution_back(layer, x, saved[layer.name], dy, through, backward)
            case BatchNorm():
                dx, own = _normalise_back(layer, saved[layer.name], dy, values)
            case Relu():
                dx = np.where(tensors[layer.output] > 0, dy, zero)
            case MaxPool():
                dx = _max_pool_back(layer.window, x, saved[layer.name], dy)
            case AveragePool():
                dx = _average_pool_back(layer, x, dy)
            case _:  # Add
                dx = dy
        for name in layer.inputs:
            gradients[name] = gradients[name] + dx if name in gradients else dx
        of_parameters |= own
    batch = {layer.name: np.stack(saved[layer.name][2:]) for layer in network.layers if isinstance(layer, BatchNorm)}
    return Trace(tensors, gradients | of_parameters, loss, logits, batch)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A network trained in floating point.

    Parameters
    ----------
    parameters : dict of str to array
        By name, not pruned.
    choice : Choice
        The weights that stay.
    statistics : dict of str to array, shape (2, channels)
        Running mean and variance by batch normalisation.
    curves : tuple of Epoch
    """

    parameters: dict[str, Array]
    choice: Choice
    statistics: dict[str, Array]
    curves: tuple[Epoch, ...]

    @property
    def forward(self) -> dict[str, Array]:
        """Parameters as FF uses them: pruned."""
        return _kept(self.parameters, self.choice.forward)


def fit(
    network: Trainable,
    recipe: Recipe,
    data: Data,
    *,
    epochs: int,
    dtype: Any = np.float32,
    progress: Callable[[Epoch], None] | None = None,
) -> Fit:
    """Train in floating point, otherwise as :func:`accel.training.loop.train` does: same batches, same rates, same rules of pruning.

    Momentum SGD as torch has it, on the mean of the gradients of a batch: ``v = momentum * v + g + decay * w``, ``w = w - rate * v``.
    ``sr-ste`` adds its decay of pruned weights to the gradient. Running variances are moved towards those of a batch divided by n - 1.

    Parameters
    ----------
    network : Trainable
        With its first parameters; see :func:`draw`.
    recipe : Recipe
        `rounding` has no meaning here.
    data : Data
    epochs : int
    dtype : numpy type
        float32 or float64.
    progress : callable, optional
        Told of each epoch.

    Returns
    -------
    Fit

    Raises
    ------
    RangeError, NetworkError
        If an argument breaks its rule, or a layer is only counted.
    """
    check(network, recipe, epochs, len(data.x))
    sparse = pruned(network, recipe)
    values, running = parameters(network, dtype), statistics(network, dtype)
    velocity = {name: np.zeros_like(each) for name, each in values.items()}
    norms = [layer for layer in network.layers if isinstance(layer, BatchNorm)]
    x, x_test = data.x.astype(dtype), data.x_test.astype(dtype)
    count = len(x) // recipe.batch
    choice = choose(network, values, recipe.algorithm, recipe.pattern, sparse)
    curves = []
    for epoch in range(epochs):
        loss, correct = 0.0, 0
        for number, rows in enumerate(batches(len(x), recipe, epoch), start=epoch * count):
            trace = run(
                network, values, x[rows], data.y[rows], algorithm=recipe.algorithm, pattern=recipe.pattern, pruned=sparse, choice=choice
            )
            loss += trace.loss
            correct += int((trace.logits.argmax(axis=1) == data.y[rows]).sum())
            now = dtype(rate(recipe, number, epochs * count))
            for name, value in values.items():
                gradient = trace.gradients[name] / dtype(recipe.batch)
                if name.endswith(".weight"):
                    gradient += dtype(recipe.decay) * value
                    if name in choice.forward and recipe.pruned_decay:
                        gradient += dtype(recipe.pruned_decay) * np.where(choice.forward[name], dtype(0), value)
                velocity[name] = dtype(recipe.momentum) * velocity[name] + gradient
                values[name] = value - now * velocity[name]
            for layer in norms:
                size = trace.tensors[layer.output].size // trace.statistics[layer.name].shape[1]
                unbiased = trace.statistics[layer.name] * np.array([[1], [size / max(size - 1, 1)]], dtype)
                running[layer.name] = dtype(layer.momentum) * running[layer.name] + dtype(1 - layer.momentum) * unbiased
            if (number + 1) % recipe.refresh == 0:
                choice = choose(network, values, recipe.algorithm, recipe.pattern, sparse)
        logits = infer(network, _kept(values, choice.forward), running, x_test)
        seen = count * recipe.batch
        right = float(np.mean(logits.argmax(axis=1) == data.y_test))
        curves.append(Epoch(epoch=epoch + 1, loss=loss / seen, accuracy=correct / seen, held_out=right))
        if progress is not None:
            progress(curves[-1])
    return Fit(values, choice, running, tuple(curves))


def _kept(values: Mapping[str, Array], masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, Array]:
    return {name: np.where(masks[name], each, each.dtype.type(0)) if name in masks else each for name, each in values.items()}


def infer(network: Trainable, parameters: Mapping[str, Array], statistics: Mapping[str, Array], samples: Array) -> Array:
    """Return the logits of samples with running statistics, shape (samples, classes); weights are taken as they are.

    Parameters
    ----------
    network : Trainable
    parameters : mapping of str to array
        By name, pruned by the caller.
    statistics : mapping of str to array, shape (2, channels)
        Running mean and variance, by batch normalisation.
    samples : float32 or float64, shape (samples, ...)

    Returns
    -------
    array, shape (samples, classes)
    """
    _check(network, samples)
    values = {name: np.asarray(each, samples.dtype) for name, each in parameters.items()}
    parts = [
        _forward(network, values, samples[start : start + CHUNK], statistics, {})[network.output].reshape(
            -1, prod(network.shapes[network.output])
        )
        for start in range(0, len(samples), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, prod(network.shapes[network.output])), samples.dtype)


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Return the sum of ``-log softmax(logits)[label]`` over a batch, and its gradient ``softmax(logits) - onehot``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float((np.log(total[:, 0]) - shifted[rows, labels]).sum())
    gradient = powers / total
    gradient[rows, labels] -= 1
    return loss, gradient


def prune_gradient(dy: Array, pattern: Pattern, groups: int = 1) -> Array:
    """Keep the N largest of M output channels at each position, and the L1 norm of each (sample, channel); one that loses all stays 0.

    Parameters
    ----------
    dy : float, shape (batch, ..., channels)
    pattern : Pattern
    groups : int
        Of the convolution: no group of M spans two of them.

    Returns
    -------
    float, shape of `dy`
    """
    grouped = dy.reshape(*dy.shape[:-1], groups, -1)
    kept = np.where(mask(grouped, pattern), grouped, dy.dtype.type(0)).reshape(dy.shape)
    places = tuple(range(1, dy.ndim - 1))
    whole, left = (np.abs(each).sum(axis=places, keepdims=True) for each in (dy, kept))
    ratio: Array = np.divide(whole, left, out=np.zeros_like(whole), where=left > 0)
    return kept * ratio


def patches(x: Array, window: Window, fill: float = 0.0) -> Array:
    """View an image through a window: shape (batch, rows, columns, kh, kw, channels), padded with `fill`."""
    top, left, bottom, right = window.pads
    if any(window.pads):
        x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    spans = tuple(dilation * (kernel - 1) + 1 for kernel, dilation in zip(window.kernel, window.dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, spans, axis=(1, 2))
    down, across = window.stride
    return view[:, ::down, ::across, :, :: window.dilation[0], :: window.dilation[1]].transpose(0, 1, 2, 4, 5, 3)


def unpatch(parts: Array, window: Window, shape: tuple[int, ...]) -> Array:
    """Add patches up where they come from: the adjoint of :func:`patches`, for images of `shape` (batch, height, width, channels)."""
    top, left, bottom, right = window.pads
    batch, height, width, channels = shape
    whole = np.zeros((batch, height + top + bottom, width + left + right, channels), parts.dtype)
    rows, columns = parts.shape[1:3]
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            down, across = i * window.dilation[0], j * window.dilation[1]
            place = whole[:, down : down + window.stride[0] * rows : window.stride[0]]
            place[:, :rows, across : across + window.stride[1] * columns : window.stride[1]][:, :, :columns] += parts[:, :, :, i, j]
    return whole[:, top : top + height, left : left + width]


def _own(layer: Layer) -> dict[str, Array | None]:
    """Parameters of a layer by name."""
    if isinstance(layer, Convolution):
        return {f"{layer.name}.weight": layer.weights} | ({f"{layer.name}.bias": layer.bias} if layer.biased else {})
    return {f"{layer.name}.gamma": layer.gamma, f"{layer.name}.beta": layer.beta} if isinstance(layer, BatchNorm) else {}


def _check(network: Trainable, samples: Array) -> None:
    for layer in network.layers:
        if not isinstance(layer, COMPUTED):
            raise NetworkError(f"{layer.name} must be of a kind that is computed, not {type(layer).__name__}, which is counted only")
    shape = network.shapes[network.input]
    if samples.dtype not in (np.float32, np.float64) or samples.shape[1:] != shape:
        raise RangeError(f"samples must be float32 or float64 of shape (batch, {str(shape)[1:]}, not {samples.dtype} of {samples.shape}")


def _image(network: Trainable, name: str, values: Array) -> Array:
    return values.reshape(len(values), *network.image(name))


def _forward(
    network: Trainable, values: Mapping[str, Array], samples: Array, running: Mapping[str, Array] | None, saved: dict[str, Any]
) -> dict[str, Array]:
    """Compute every tensor; `saved` is given what backward work needs. Without running statistics those of the batch are taken."""
    tensors = {network.input: samples}
    for layer in network.layers:
        x = _image(network, layer.inputs[0], tensors[layer.inputs[0]])
        match layer:
            case Convolution():
                y, saved[layer.name] = _convolve(layer, x, values)
            case BatchNorm():
                gamma, beta = values[f"{layer.name}.gamma"], values[f"{layer.name}.beta"]
                places = tuple(range(x.ndim - 1))
                mean, variance = (x.mean(places), x.var(places)) if running is None else running[layer.name].astype(x.dtype)
                factor = 1 / np.sqrt(variance + x.dtype.type(layer.epsilon))
                normal = (x - mean) * factor
                saved[layer.name] = normal, factor, mean, variance
                y = normal * gamma + beta
            case Relu():
                y = np.maximum(x, 0)
            case Add():
                y = x + _image(network, layer.inputs[1], tensors[layer.inputs[1]])
            case MaxPool():
                seen = patches(x, layer.window, -np.inf)
                seen = seen.reshape(*seen.shape[:3], -1, seen.shape[-1])
                saved[layer.name] = seen.argmax(axis=3)
                y = seen.max(axis=3)
            case _:
                assert isinstance(layer, AveragePool)
                y = patches(x, layer.window).sum(axis=(3, 4)) / _divisor(layer, x)
        tensors[layer.output] = y.reshape(len(samples), *network.shapes[layer.output])
    return tensors


def _convolve(layer: Convolution, x: Array, values: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return the output and the matrix of patches, shape (groups, rows, k)."""
    seen = patches(x, layer.window)
    places = seen.shape[:3]
    seen = (
        seen.reshape(*seen.shape[:5], layer.groups, -1).transpose(5, 0, 1, 2, 3, 4, 6).reshape(layer.groups, prod(places), layer.reduction)
    )
    weights = values[f"{layer.name}.weight"].reshape(layer.groups, -1, layer.reduction)
    y = np.matmul(seen, weights.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(*places, layer.filters)
    return y + values[f"{layer.name}.bias"] if layer.biased else y, seen


def _convolution_back(
    layer: Convolution, x: Array, seen: Array, dy: Array, through: Array, backward: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """Return the gradient of the input, made of `through`, and those of the parameters, made of `dy`."""

    def grouped(gradient: Array) -> Array:
        return gradient.reshape(-1, layer.groups, layer.filters // layer.groups).transpose(1, 0, 2)

    own = {f"{layer.name}.weight": np.matmul(grouped(dy).transpose(0, 2, 1), seen).reshape(layer.shape)}
    if layer.biased:
        own[f"{layer.name}.bias"] = dy.reshape(-1, layer.filters).sum(axis=0)
    shape = (len(x), *image(x.shape[1:]))
    rows, columns = layer.window.positions(*shape[1:3])
    parts = np.matmul(grouped(through), backward[f"{layer.name}.weight"].reshape(layer.groups, -1, layer.reduction))
    parts = parts.reshape(layer.groups, len(x), rows, columns, *layer.window.kernel, -1).transpose(1, 2, 3, 4, 5, 0, 6)
    parts = parts.reshape(*parts.shape[:5], layer.channels)
    return unpatch(parts, layer.window, shape).reshape(x.shape), own


def _normalise_back(layer: BatchNorm, saved: tuple[Array, ...], dy: Array, values: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    normal, factor, *_ = saved
    gradient = dy.reshape(normal.shape)
    places = tuple(range(normal.ndim - 1))
    beta, gamma = gradient.sum(places), (gradient * normal).sum(places)
    count = normal.size // normal.shape[-1]
    dx = values[f"{layer.name}.gamma"] * factor * (gradient - beta / count - normal * (gamma / count))
    return dx.astype(dy.dtype, copy=False).reshape(dy.shape), {f"{layer.name}.gamma": gamma, f"{layer.name}.beta": beta}


def _max_pool_back(window: Window, x: Array, first: Array, dy: Array) -> Array:
    """Give each gradient to the first of the largest elements of its window."""
    shape = (len(x), *image(x.shape[1:]))
    taps = np.arange(window.taps).reshape(1, 1, 1, -1, 1)
    parts = np.where(first[:, :, :, None] == taps, dy.reshape(first.shape)[:, :, :, None], dy.dtype.type(0))
    return unpatch(parts.reshape(*first.shape[:3], *window.kernel, -1), window, shape).reshape(x.shape)


def _average_pool_back(layer: AveragePool, x: Array, dy: Array) -> Array:
    shape = (len(x), *image(x.shape[1:]))
    divisor = _divisor(layer, x.reshape(shape))
    rows, columns = layer.window.positions(*shape[1:3])
    each = (dy.reshape(len(x), rows, columns, -1) / divisor)[:, :, :, None, None]
    parts = np.broadcast_to(each, (*each.shape[:3], *layer.window.kernel, each.shape[-1]))
    return unpatch(parts, layer.window, shape).reshape(x.shape)


def _divisor(layer: AveragePool, x: Array) -> Array:
    """Elements of each window: all of them, or those that are no padding."""
    ones = np.ones((1, *x.shape[1:3], 1), x.dtype)
    counted = np.full_like(ones, layer.window.taps, shape=(1, 1, 1, 1))
    return counted if layer.counted else patches(ones, layer.window).sum(axis=(3, 4))
