"""Run a network on a modelled accelerator: exact values, and cycles by cause."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import singledispatch
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import NetworkError, RangeError
from accel.golden.vector import vector
from accel.graph.network import (
    ArgMax,
    Arithmetic,
    Divide,
    DynamicProduct,
    Host,
    LayerNorm,
    Lookup,
    Move,
    Multiply,
    Network,
    Operator,
    Softmax,
)
from accel.graph.trainable import Trainable
from accel.graph.window import Window
from accel.isa import ROW_BITS, Reduce
from accel.kernels.gemm import Product as Multiplied
from accel.kernels.gemm import gemm
from accel.kernels.grouped import multiply as multiply_groups
from accel.kernels.patches import Patches, Place
from accel.kernels.pooling import pool, weighted
from accel.kernels.requantise import Integers, narrowest, requantise
from accel.result import Result, cost
from accel.schedule.lower import Layer, Product, Reduction, Requantisation, bound, dense, lower, operands, store
from accel.schedule.plan import Schedule, plan
from accel.schedule.step import step
from accel.schedule.training.products import Switches
from accel.sparsity import Pattern
from accel.special.argmax import argmax
from accel.special.divide import DivideParameters, divide
from accel.special.layer_norm import LayerNormParameters, layer_norm
from accel.special.multiply import MULT_BITS, MultiplyParameters, multiply
from accel.special.softmax import SoftmaxParameters, softmax
from accel.step_result import OPTIMISATIONS, StepResult, told

FLOAT32 = float(np.finfo(np.float32).max)
CHUNK = 1 << 22  # our choice: elements of the largest operand matrix held at once


@overload
def simulate(
    network: Network,
    config: AcceleratorConfig | str | Path,
    inputs: Mapping[str, ArrayLike] | ArrayLike | None = None,
    *,
    batch: int = 1,
    pattern: Pattern | str | None = None,
    keep: bool = False,
    schedule: Schedule | str | Path | None = None,
    search: str = "best",
    progress: Callable[[int, int, str], None] | None = None,
    training: Literal[False] = False,
) -> Result: ...
@overload
def simulate(
    network: Network | Trainable,
    config: AcceleratorConfig | str | Path,
    *,
    batch: int = 1,
    pattern: Pattern | str | None = None,
    search: str = "best",
    progress: Callable[[int, int, str], None] | None = None,
    training: Literal[True],
    algorithm: str | None = None,
    dense: Collection[str] | None = None,
    optimisations: Collection[str] | None = None,
) -> StepResult: ...
def simulate(
    network: Network | Trainable,
    config: AcceleratorConfig | str | Path,
    inputs: Mapping[str, ArrayLike] | ArrayLike | None = None,
    *,
    batch: int = 1,
    pattern: Pattern | str | None = None,
    keep: bool = False,
    schedule: Schedule | str | Path | None = None,
    search: str = "best",
    progress: Callable[[int, int, str], None] | None = None,
    training: bool = False,
    algorithm: str | None = None,
    dense: Collection[str] | None = None,
    optimisations: Collection[str] | None = None,
) -> Result | StepResult:
    """Run a network on an accelerator: every output bit if there are inputs, and the cycles of each layer; or count a step of training.

    Cycles include memory (:mod:`accel.schedule.plan`, :mod:`accel.schedule.step`); they depend on shapes and patterns alone.

    Parameters
    ----------
    network : Network or Trainable
        As :func:`accel.load` gives it; to train, also as :func:`accel.graph.files.trainable` does.
    config : AcceleratorConfig, str or Path
        The accelerator, the name of a preset or a YAML file.
    inputs : mapping of str to array, or array, shape (samples, *ONNX shape), optional
        Network inputs by name; an array alone where there is one input. A real input is quantised on the host, any other holds ONNX's
        integers. `samples` is a multiple of `batch`. Without inputs only shapes are used, and no activation exists.
    batch : int
        Samples taken at once, 1 or more; they multiply the rows m of every layer, and the products of two activations.
    pattern : Pattern or str, optional
        N:M that the eligible layers run at, pruned to it, all others being dense; ``"dense"`` runs every layer dense. Without it each layer
        runs at the sparsest pattern its weights obey. In training: of what the algorithm prunes, 2:8 unless given; ``"dense"`` is the
        algorithm of that name.
    keep : bool
        Keep every tensor, not the outputs only.
    schedule : Schedule, str or Path, optional
        Replay this schedule, or the one in this file, instead of searching.
    search : str
        How a schedule is found: ``"best"``, ``"exhaustive"`` or ``"fixed"``; see :func:`accel.schedule.search.search`.
    progress : callable, optional
        Called with (parts done, parts in all, what is next).
    training : bool
        Count a step of training; without `inputs`, `keep` and `schedule`.
    algorithm : str, optional
        Of training: ``"bdwp"``, the default, ``"sr-ste"``, ``"sdgp"`` or ``"dense"``; see :mod:`accel.training.recipe`.
    dense : collection of str, optional
        Layers that training never prunes; else the first convolution and the last linear layer.
    optimisations : collection of str, optional
        Dataflow optimisations of training that are on, of ``"interleave"``, ``"pregeneration"`` and ``"scheduling"``; else all.

    Returns
    -------
    Result, or StepResult of training

    Raises
    ------
    ConfigError
        If there is no such configuration.
    NetworkError
        If a layer does not fit the accelerator or its scratchpads. The message names the layer.
    RangeError
        If another argument breaks its rule, or the schedule does.
    """
    if not isinstance(training, bool):
        raise RangeError(f"training must be True or False, not {training!r}")
    if training:
        given = {"inputs": inputs is not None, "keep": keep, "schedule": schedule is not None}
        return _step(network, config, batch, pattern, search, progress, algorithm, dense, optimisations, given)
    for name, value in (("algorithm", algorithm), ("dense", dense), ("optimisations", optimisations)):
        if value is not None:
            raise RangeError(f"{name} must be left out where training is not simulated, not {value!r}")
    if not isinstance(network, Network):
        raise RangeError(f"network must be a Network, as accel.load gives, not {reprlib.repr(network)}")
    config = config if isinstance(config, AcceleratorConfig) else presets.load(config)
    if type(batch) is not int or not 1 <= batch < 1 << ROW_BITS:
        raise RangeError(f"batch must be an int in [1, {(1 << ROW_BITS) - 1}], not {batch!r}")
    if not isinstance(schedule, Schedule | str | Path | None):
        raise RangeError(f"schedule must be a Schedule or the path of one, not {reprlib.repr(schedule)}")
    samples = {} if inputs is None else _samples(network, inputs, batch)
    asked = _pattern(pattern, config)
    layers = lower(network, config, batch=batch, pattern=asked, encode=bool(samples))
    replayed = Schedule.load(schedule) if isinstance(schedule, str | Path) else schedule
    planned = plan(network, config, layers, batch=batch, schedule=replayed, search=search, progress=progress)
    tell = progress or (lambda done, total, label: None)
    values: dict[str, NDArray[np.int64]] = {}
    overflowed: dict[str, int] = {}
    if samples:
        kept = set(network.tensors) if keep else {port.tensor for port in network.outputs}
        values, overflowed = _run(config, layers, samples, kept, tell)
    return Result(
        network=network.name,
        config=config,
        batch=batch,
        layers=tuple(
            cost(config, layer, each, overflowed.get(layer.operator.name)) for layer, each in zip(layers, planned.layers, strict=True)
        ),
        outputs={port.name: network.tensors[port.tensor].to_onnx(values[port.tensor]) for port in network.outputs if values},
        formats={port.name: network.tensors[port.tensor] for port in network.outputs},
        tensors=values if keep else {},
        schedule=planned.schedule,
        traffic=planned.tensors,
    )


def _step(
    network: Network | Trainable,
    config: AcceleratorConfig | str | Path,
    batch: int,
    pattern: Pattern | str | None,
    search: str,
    progress: Callable[[int, int, str], None] | None,
    algorithm: str | None,
    dense: Collection[str] | None,
    optimisations: Collection[str] | None,
    given: Mapping[str, bool],
) -> StepResult:
    """Count a step of training."""
    for name, there in given.items():
        if there:
            raise RangeError(f"{name} must be left out where training is simulated, which takes shapes alone")
    if isinstance(network, Network):
        if network.real is None:
            raise RangeError(f"network that is trained must have a float form, not be {network.name!r}, which has none")
        network = network.real()
    if not isinstance(network, Trainable):
        raise RangeError(f"network must be a Network, as accel.load gives, or a Trainable, not {reprlib.repr(network)}")
    config = config if isinstance(config, AcceleratorConfig) else presets.load(config)
    for name in optimisations or ():
        if name not in OPTIMISATIONS:
            raise RangeError(f"optimisations must be of {', '.join(OPTIMISATIONS)}, not {name!r}")
    on = OPTIMISATIONS if optimisations is None else optimisations
    asked = _pattern(pattern, config)
    if pattern == "dense":
        if algorithm not in (None, "dense"):
            raise RangeError(f"algorithm must be dense or left out where pattern is dense, not {algorithm!r}")
        algorithm, asked = "dense", None
    elif algorithm == "dense" and asked is not None:
        raise RangeError(f"pattern must be dense or left out where algorithm is dense, which prunes nothing, not {asked}")
    placed = step(
        network,
        config,
        batch=batch,
        algorithm=algorithm or "bdwp",
        pattern=asked,
        dense=dense,
        switches=Switches(**{name: name in on for name in OPTIMISATIONS}),
        search=search,
        progress=progress,
    )
    return told(placed)


class Sums(NamedTuple):
    """What a job hands to the post-processor.

    Parameters
    ----------
    acc : signed integers, shape (rows, channels)
        Sums or maxima [product LSBs].
    overflow : bool, shape (rows, channels)
        Whether any addition overflowed.
    post : Requantisation
    """

    acc: Integers
    overflow: NDArray[np.bool_]
    post: Requantisation


def compute(config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> tuple[Integers, int]:
    """Compute one layer.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Layer
        Of :func:`accel.schedule.lower.lower`.
    inputs : sequence of signed integers, each of shape (samples, *tensor shape)
        Integers of the layer's inputs.

    Returns
    -------
    signed integers, shape (samples, *tensor shape)
        Integers of its output.
    int
        How many of its sums overflowed.

    Raises
    ------
    NetworkError
        If the layer's weights are not known.
    """
    if not layer.jobs:
        found = elsewhere(layer.operator, config, layer, inputs).reshape(len(inputs[0]), *layer.output.shape)
        return found.astype(_type(layer), copy=False), 0
    output = np.empty((len(inputs[0]), *layer.output.shape), _type(layer))
    overflowed = 0
    for job in layer.jobs:
        results, lost = _product(config, layer, job, inputs) if isinstance(job, Product) else _reduction(config, layer, job, inputs)
        store(layer, job, results, output)
        overflowed += lost
    return output, overflowed


def _product(config: AcceleratorConfig, layer: Layer, job: Product, inputs: Sequence[Integers]) -> tuple[Integers, int]:
    """Multiply all groups of a job and requantise; count what overflowed."""
    value, overflow = _multiplied(config, layer, job, inputs, True)
    return value, int(np.count_nonzero(overflow))


def _reduction(config: AcceleratorConfig, layer: Layer, job: Reduction, inputs: Sequence[Integers]) -> tuple[Integers, int]:
    """Reduce and requantise, straight from the images where no sum can overflow; count what did."""
    images = [values.reshape(len(values), *tensor.image) for values, tensor in zip(inputs, layer.inputs, strict=True)]
    if job.window is None:
        matrices = [image.reshape(-1, image.shape[-1])[:, job.start : job.start + job.n] for image in images]
        results = weighted(config, matrices, [job.head, *[job.tail] * (job.beats - 1)], job.post)
    else:
        seen = Patches(images[0], _place(layer, job.window, job.start, job.n, job.padding))
        positions = np.arange(prod(seen.place.positions)) if job.positions is None else job.positions
        results = pool(config, seen, positions, job.reduce is Reduce.MAX, job.post)
    if results is not None:
        return results, 0
    acc, overflow, post = sums(config, layer, job, inputs)
    return requantise(config, acc, post), int(np.count_nonzero(overflow))


def _place(layer: Layer, window: Window, first: int, channels: int, padding: int, presented: int = 1) -> Place:
    """Say how a window slides over a layer's first input."""
    height, width, _ = layer.inputs[0].image
    positions = window.positions(height, width)
    return Place(window.kernel, window.stride, window.dilation, window.pads[:2], positions, first, channels, padding, presented)


def sums(config: AcceleratorConfig, layer: Layer, job: Product | Reduction, inputs: Sequence[Integers]) -> Sums:
    """Accumulate one job of a layer, up to the post-processor.

    Parameters
    ----------
    config : AcceleratorConfig
    layer : Layer
        Of :func:`accel.schedule.lower.lower`.
    job : Product or Reduction
        One of ``layer.jobs``.
    inputs : sequence of signed integers, each of shape (samples, *tensor shape)
        Integers of the layer's inputs.

    Returns
    -------
    Sums
        Those of a product of activations have its bias in them, as each of its groups has another.

    Raises
    ------
    NetworkError
        If the layer's weights are not known.
    """
    if isinstance(job, Product):
        acc, overflow = _multiplied(config, layer, job, inputs, False)
        return Sums(acc, overflow, _known(layer, job))
    x = operands(layer, job, inputs)
    return Sums(*vector(config, job.instruction(len(x)), x.reshape(-1, job.n).astype(np.int64)), job.post)


def _multiplied(config: AcceleratorConfig, layer: Layer, job: Product, inputs: Sequence[Integers], finish: bool) -> Multiplied:
    """Multiply all groups of a job: requantised, or the sums."""
    post = _known(layer, job)
    if isinstance(layer.operator, DynamicProduct):
        groups = range(prod(inputs[0].shape[:-2]))
        return _stacked([_dynamic(config, layer, dataclasses.replace(job, group=group, groups=1), inputs, finish) for group in groups])
    assert job.weights is not None
    image = inputs[0].reshape(len(inputs[0]), *layer.inputs[0].image)
    place = _place(layer, job.window, job.group * job.channels, job.groups * job.channels, job.padding, job.presented)
    seen, last = Patches(image, place), post if finish else None
    return gemm(config, seen, job.weights, last) if job.groups == 1 else multiply_groups(config, seen, job.weights, job.groups, last)


def _dynamic(config: AcceleratorConfig, layer: Layer, job: Product, inputs: Sequence[Integers], finish: bool) -> Multiplied:
    """Multiply two activations."""
    known = bound(layer, job, inputs)
    assert known.weights is not None
    assert known.post is not None
    x = operands(layer, job, inputs)
    if finish:
        return gemm(config, x, known.weights, known.post)
    acc, overflow = gemm(config, x, known.weights)
    return Multiplied(acc + known.post.bias, overflow)


def _stacked(parts: list[Multiplied]) -> Multiplied:
    return Multiplied(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@singledispatch
def elsewhere(operator: Operator, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    """Compute an operator that runs on neither array nor vector unit: one function per type, registered below.

    Parameters
    ----------
    operator : Operator
    config : AcceleratorConfig
    layer : Layer
    inputs : sequence of signed integers, each of shape (samples, *tensor shape)

    Returns
    -------
    signed integers, shape (samples, *tensor shape)
    """
    raise NetworkError(f"operator {operator.name} must be of a type that is computed, not {type(operator).__name__}")


@elsewhere.register
def _(operator: Move, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    kind = np.result_type(*inputs, _type(layer))  # one in which the padding fits
    return operator.apply([values.astype(kind, copy=False) for values in inputs])


@elsewhere.register
def _(operator: Lookup, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    table = operator.table.astype(_type(layer))
    return np.take(table, inputs[0] + np.int64(1 << (layer.inputs[0].bits - 1)))


@elsewhere.register
def _(operator: Multiply, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    fields = _ends(operator) | {"zero_points": operator.zero_points, "multiplier": operator.multiplier}
    return multiply(MultiplyParameters.of(**fields, mult_bits=min(config.mult_bits, MULT_BITS)), *inputs)


@elsewhere.register
def _(operator: Divide, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    fields = _ends(operator) | {"zero_points": operator.zero_points, "multiplier": operator.multiplier}
    return divide(DivideParameters.of(**fields), *inputs)


@elsewhere.register
def _(operator: Softmax, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    fields = _ends(operator) | {"step": operator.step, "scale": operator.scale, "logarithm": operator.logarithm}
    return softmax(SoftmaxParameters.of(length=layer.inputs[0].shape[-1], **fields), inputs[0])


@elsewhere.register
def _(operator: LayerNorm, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    fields = _ends(operator) | {"epsilon": operator.epsilon, "gamma": operator.gamma, "beta": operator.beta}
    return layer_norm(LayerNormParameters.of(**fields), inputs[0])


@elsewhere.register
def _(operator: ArgMax, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    return argmax(inputs[0], operator.last).reshape(len(inputs[0]), *layer.output.shape)


@elsewhere.register
def _(operator: Host, config: AcceleratorConfig, layer: Layer, inputs: Sequence[Integers]) -> Integers:
    from accel.graph.evaluate import run  # the runtime behind it is loaded where a network needs it

    reals = {
        name: tensor.dequantise(values.astype(np.int64)).astype(np.float32)
        for name, tensor, values in zip(operator.graph.inputs, layer.inputs, inputs, strict=True)
    }
    found = run(operator.graph, reals)[operator.graph.outputs[0]].reshape(len(inputs[0]), *layer.output.onnx_shape)
    if np.isnan(found).any():
        raise NetworkError(f"results of {operator.name} on the host must be numbers, not nan")
    return layer.output.quantise(found)


def _ends(operator: Arithmetic) -> dict[str, Any]:
    return {name: getattr(operator, name) for name in ("zero_point", "lo", "hi", "rounding")}


def _type(layer: Layer) -> np.dtype[np.signedinteger[Any]]:
    """Return the narrowest type of a layer's output integers."""
    held, operator = layer.output.format, layer.operator
    if isinstance(operator, Arithmetic):
        return narrowest(min(held.lo, operator.lo), max(held.hi, operator.hi))
    return narrowest(held.lo, held.hi)


class _Values(NamedTuple):
    """What a run over all samples leaves."""

    tensors: dict[str, NDArray[np.int64]]
    overflowed: dict[str, int]


def _pattern(pattern: Pattern | str | None, config: AcceleratorConfig) -> Pattern | None:
    if pattern is None or isinstance(pattern, Pattern):
        return pattern
    if not isinstance(pattern, str):
        raise RangeError(f"pattern must be a Pattern or N:M such as '2:8', not {pattern!r}")
    return dense(config) if pattern == "dense" else Pattern.parse(pattern)


def _samples(network: Network, inputs: Mapping[str, ArrayLike] | ArrayLike, batch: int) -> dict[str, Integers]:
    """Bring the caller's arrays into integers, samples first, channels last."""
    names = [port.name for port in network.inputs]
    given = inputs if isinstance(inputs, Mapping) else {names[0]: inputs}
    if set(given) != set(names):
        raise RangeError(f"inputs must be {', '.join(names)}, not {', '.join(map(str, given)) or 'none'}")
    samples = {}
    for port in network.inputs:
        tensor = network.tensors[port.tensor]
        try:
            array = np.asarray(given[port.name])
        except ValueError:
            raise RangeError(f"{port.name} must be an array, not lists of different lengths") from None
        if array.dtype.kind not in ("iuf" if port.real else "iu"):
            raise RangeError(f"{port.name} must be {'real numbers' if port.real else 'integers'}, not {array.dtype}")
        if array.shape[1:] != tensor.onnx_shape or array.ndim != len(tensor.onnx_shape) + 1:
            raise RangeError(f"{port.name} must be of shape (samples, {', '.join(map(str, tensor.onnx_shape))}), not {array.shape}")
        beyond = ~(np.abs(array) <= FLOAT32) if port.real else np.zeros((), bool)  # of NaN too
        if beyond.any():
            raise RangeError(f"{port.name} must be finite numbers of float32, not {array[beyond][0]}")
        values = tensor.quantise(array) if port.real else tensor.from_onnx(array)
        samples[port.tensor] = values.astype(narrowest(tensor.format.lo, tensor.format.hi))
    counts = sorted({len(array) for array in samples.values()})
    if len(counts) > 1 or not counts[0] or counts[0] % batch:
        raise RangeError(f"inputs must all hold the same multiple of batch ({batch}) samples, not {' and '.join(map(str, counts))}")
    return samples


def _run(
    config: AcceleratorConfig,
    layers: tuple[Layer, ...],
    samples: dict[str, Integers],
    kept: set[str],
    tell: Callable[[int, int, str], None],
) -> _Values:
    """Compute all samples, as many at once as CHUNK allows: samples do not depend on each other."""
    for layer in layers:
        for job in layer.jobs:
            if isinstance(job, Product):
                _known(layer, job)  # before any work
    count = len(next(iter(samples.values())))
    size = max(1, CHUNK // max((job.elements for layer in layers for job in layer.jobs), default=1))
    starts = range(0, count, size)
    parts: dict[str, list[Integers]] = {name: [] for name in kept}
    overflowed = dict.fromkeys((layer.operator.name for layer in layers), 0)
    for chunk, start in enumerate(starts):
        values = {name: array[start : start + size] for name, array in samples.items()}
        for i, layer in enumerate(layers):
            tell(chunk * len(layers) + i, len(starts) * len(layers), layer.operator.name)
            result, lost = compute(config, layer, [values[name] for name in layer.operator.inputs])
            values[layer.operator.output] = result
            overflowed[layer.operator.name] += lost
        for name in kept:
            parts[name].append(values[name])
    tell(len(starts) * len(layers), len(starts) * len(layers), "done")
    return _Values({name: np.concatenate(arrays, dtype=np.int64) for name, arrays in parts.items()}, overflowed)


def _known(layer: Layer, job: Product) -> Requantisation:
    """Return how sums become outputs, where everything is known that values need."""
    if job.post is None or (job.weights is None and not isinstance(layer.operator, DynamicProduct)):
        raise NetworkError(f"weights of {layer.operator.name} must be known where inputs are given, not shapes only")
    return job.post
