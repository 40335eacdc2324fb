"""Formats of a training step: which tensors share one, how they are calibrated, and how they follow what is seen (decision 17)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import frexp, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.config import AcceleratorConfig
from accel.errors import ConfigError, NetworkError, RangeError
from accel.formats import FixedFormat
from accel.graph.trainable import COMPUTED, Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu, Trainable
from accel.isa import COEFFICIENT_BITS, GRADIENT_SHIFT, MASTER_BITS, SHIFT_BITS
from accel.special.integers import WIDEST
from accel.training.elementwise import APART, MULT_BITS
from accel.training.recipe import Recipe
from accel.training.state import State, Tracked

PATIENCE = 32  # our choice: steps below an eighth of the range after which a fraction rises
RARE = 10_000  # our choice: a fraction falls if more than one element in so many saturates
HEADROOM = 2  # our choice: bits of a master weight above its first largest magnitude
FINER = 10  # our choice: fraction bits of a momentum beyond those of the first gradient


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is known of a network before any number.

    Parameters
    ----------
    shared : dict of str to str
        Of each tensor, the tensor whose format it has: ReLU and max pooling hand formats through.
    readers : dict of str to tuple of (Layer, int)
        Of each tensor, the layers that read it, in order, and which of their inputs it is.
    trained : frozenset of str
        Tensors that have a gradient: those behind a parameter.
    clipped : frozenset of str
        Results of convolutions that only a ReLU reads: they are 0 or more when they leave the array.
    fixed : frozenset of str
        Names of formats that calibration fixes for good, beside those of masters and momenta: the input, and the gradient of the logits.
    """

    shared: dict[str, str]
    readers: dict[str, tuple[tuple[Layer, int], ...]]
    trained: frozenset[str]
    clipped: frozenset[str]
    fixed: frozenset[str]


@lru_cache(maxsize=8)
def plan(network: Trainable) -> Plan:
    """Look at a network: once, as long as it is among the last few.

    Parameters
    ----------
    network : Trainable

    Raises
    ------
    NetworkError
        If a layer is counted only, or the logits are more than a row.
    """
    shared = {network.input: network.input}
    readers: dict[str, list[tuple[Layer, int]]] = {tensor: [] for tensor in network.shapes}
    trained = set[str]()
    for layer in network.layers:
        if not isinstance(layer, COMPUTED):
            raise NetworkError(f"{layer.name} must be of a kind that is computed, not {type(layer).__name__}, which is counted only")
        shared[layer.output] = shared[layer.inputs[0]] if isinstance(layer, Relu | MaxPool) else layer.output
        for number, tensor in enumerate(layer.inputs):
            readers[tensor].append((layer, number))
        if isinstance(layer, Convolution | BatchNorm) or trained.intersection(layer.inputs):
            trained.add(layer.output)
    height, width, _ = network.image(network.output)
    if height * width > 1:
        raise NetworkError(f"{network.output} must be one row of logits, not of shape {network.shapes[network.output]}")
    clipped = {
        layer.output
        for layer in network.convolutions
        if layer.output != network.output and [type(reader) for reader, _ in readers[layer.output]] == [Relu]
    }
    fixed = {network.input, f"{shared[network.output]}'"}
    return Plan(shared, {name: tuple(each) for name, each in readers.items()}, frozenset(trained), frozenset(clipped), frozenset(fixed))


def parameters(layer: Layer) -> tuple[str, ...]:
    """Name the parameters of a layer."""
    if isinstance(layer, Convolution):
        return (f"{layer.name}.weight", f"{layer.name}.bias")[: 1 + layer.biased]
    return (f"{layer.name}.gamma", f"{layer.name}.beta") if isinstance(layer, BatchNorm) else ()


def check(config: AcceleratorConfig) -> None:
    """Refuse a configuration that cannot train.

    Parameters
    ----------
    config : AcceleratorConfig

    Raises
    ------
    ConfigError
        If operands are of two widths, or wider than the vector unit takes.
    """
    if config.weight_bits != config.act_bits:
        raise ConfigError(f"weight_bits must be act_bits ({config.act_bits}) to train, not {config.weight_bits}")
    if not 4 <= config.act_bits <= WIDEST:
        raise ConfigError(f"act_bits must be in [4, {WIDEST}] to train, not {config.act_bits}")


def tracked(network: Trainable, state: State, tensor: str, gradient: bool = False) -> Tracked:
    """Return the format of an activation or of its gradient.

    Parameters
    ----------
    network : Trainable
    state : State
    tensor : str
    gradient : bool
    """
    return state.formats[plan(network).shared[tensor] + "'" * gradient]


def fixed(format: Tracked) -> FixedFormat:
    """Return a format as it stands."""
    return FixedFormat(format.bits, format.frac)


def exponent(magnitude: float) -> int:
    """Return ceil(log2(magnitude)), exactly; 1 stands for a magnitude of 0."""
    fraction, power = frexp(magnitude or 1.0)
    return power - (fraction == 0.5)


def largest(name: str, arrays: Iterable[NDArray[Any]]) -> float:
    """Return the largest magnitude of some arrays.

    Parameters
    ----------
    name : str
        What the message calls them.
    arrays : iterable of float arrays

    Raises
    ------
    RangeError
        If it is not finite.
    """
    magnitude = max((float(np.abs(array).max()) for array in arrays if array.size), default=0.0)
    if not isfinite(magnitude):
        raise RangeError(f"{name} must be finite in calibration, not {magnitude}")
    return magnitude


def calibrate(
    network: Trainable,
    config: AcceleratorConfig,
    recipe: Recipe,
    values: Mapping[str, NDArray[Any]],
    tensors: Mapping[str, NDArray[Any]],
    gradients: Mapping[str, NDArray[Any]],
) -> dict[str, Tracked]:
    """Choose the formats of a run.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    recipe : Recipe
        What learning rate and decay are bounds the momentum's fraction from both sides, so that their coefficients fit.
    values : mapping of str to float array
        Parameters.
    tensors, gradients : mapping of str to float array
        Activations of one batch; gradients of the sum of its losses, by tensor and by parameter.

    Returns
    -------
    dict of str to Tracked
    """
    known, bits = plan(network), config.act_bits
    formats: dict[str, Tracked] = {}

    def add(name: str, *arrays: NDArray[Any]) -> None:
        formats[name] = Tracked(bits=bits, frac=bits - 2 - exponent(largest(name, arrays)))

    members: dict[str, list[str]] = {}
    for tensor, root in known.shared.items():
        members.setdefault(root, []).append(tensor)
    for root, names in members.items():
        add(root, *(tensors[name] for name in names))
        if known.trained.intersection(names):
            add(f"{root}'", *(gradients[name] for name in names if name in known.trained))
    logits = f"{known.shared[network.output]}'"
    formats[logits] = Tracked(bits=bits, frac=bits - 1)
    for layer in network.layers:
        for name in parameters(layer):
            add(name, values[name])
            add(f"{name}'", gradients[name])
            master = MASTER_BITS - 1 - HEADROOM - exponent(largest(name, [values[name]]))
            formats[f"{name}^"] = Tracked(bits=MASTER_BITS, frac=master)
            least = master + exponent(recipe.rate / recipe.batch) - COEFFICIENT_BITS + 1
            most = master - exponent(recipe.batch * (recipe.decay + recipe.pruned_decay)) + COEFFICIENT_BITS - 1
            velocity = min(max(formats[f"{name}'"].frac + FINER, least), most)
            formats[f"{name}~"] = Tracked(bits=MASTER_BITS, frac=velocity)
            formats[f"{name}'"].frac = min(max(formats[f"{name}'"].frac, velocity - GRADIENT_SHIFT), velocity)
    return formats


def settle(network: Trainable, config: AcceleratorConfig, formats: dict[str, Tracked]) -> None:
    """Lower fractions that cannot be reached: by a multiplier from those of the products, or of an average; by a sum from its other input.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    formats : dict of str to Tracked
    """
    known = plan(network)
    bounds = [bound for bound in _bounds(network, config) if bound[0] not in known.fixed]
    moved = True
    while moved:  # fractions only fall, so it ends
        moved = False
        for name, operands, most in bounds:
            frac = sum(formats[operand].frac for operand in operands) + most
            if formats[name].frac > frac:
                formats[name].frac, moved = frac, True


@lru_cache(maxsize=8)
def _bounds(network: Trainable, config: AcceleratorConfig) -> tuple[tuple[str, tuple[str, ...], int], ...]:
    """List the formats whose fraction is at most the sum of some others and a number."""
    known, most = plan(network), config.mult_bits - 1
    bounds: list[tuple[str, tuple[str, ...], int]] = []
    for layer in network.layers:
        y, inputs = known.shared[layer.output], [known.shared[tensor] for tensor in layer.inputs]
        trained = layer.inputs[0] in known.trained
        match layer:
            case Convolution():
                weight = f"{layer.name}.weight"
                bounds += [(y, (inputs[0], weight), most), (f"{weight}'", (inputs[0], f"{y}'"), most)]
                bounds += [(f"{inputs[0]}'", (weight, f"{y}'"), most)] * trained
                bounds += [(f"{layer.name}.bias'", (f"{y}'",), most)] * layer.biased
            case Add():
                bounds += [(a, (b,), APART) for a, b in (inputs, inputs[::-1])]
            case AveragePool():
                least = min(config.mult_bits, MULT_BITS) - 1
                bounds += [(y, (inputs[0],), least), *[(f"{inputs[0]}'", (f"{y}'",), least)] * trained]
    return tuple(bounds)


class Counts:
    """What a step has seen of each tensor: saturated elements, elements, largest magnitude."""

    def __init__(self) -> None:
        self.saturated: dict[str, int] = {}
        self.elements: dict[str, int] = {}
        self.peaks: dict[str, int] = {}

    def see(self, name: str, values: NDArray[Any], saturated: int = 0) -> None:
        """Count a tensor.

        Parameters
        ----------
        name : str
        values : integers
        saturated : int
        """
        self.add(name, values.size, saturated)
        self.peaks[name] = max(-int(values.min()), int(values.max()))

    def clip(self, name: str, saturated: int) -> None:
        """Count saturated elements of a tensor that is seen later, or has been.

        Parameters
        ----------
        name : str
        saturated : int
        """
        self.saturated[name] = self.saturated.get(name, 0) + saturated

    def add(self, name: str, elements: int, saturated: int) -> None:
        """Count what is seen without its largest magnitude.

        Parameters
        ----------
        name : str
        elements, saturated : int
        """
        self.elements[name] = elements
        self.saturated[name] = self.saturated.get(name, 0) + saturated


def follow(network: Trainable, formats: dict[str, Tracked], counts: Counts) -> None:
    """Move fractions after a step: down where a tensor saturated, up where all tensors of a format have been small for long.

    Those of working copies move when the next one is written.

    Parameters
    ----------
    network : Trainable
    formats : dict of str to Tracked
    counts : Counts
        By tensor and parameter.
    """
    known = plan(network)
    for name, elements in counts.elements.items():
        tensor = name.removesuffix("'")
        root = known.shared.get(tensor)
        format = formats[name if root is None else root + name[len(tensor) :]]
        format.overflowed += counts.saturated[name]
        format.elements += elements
    for name, format in formats.items():
        members = _members(network).get(name, (name,))
        seen = [member for member in members if member in counts.elements]
        if name in known.fixed or name[-1] in "^~" or not seen:
            continue
        change = _follow(
            format, any(counts.saturated[each] * RARE > counts.elements[each] for each in seen), max(counts.peaks[each] for each in seen)
        )
        if name.endswith("'"):
            parameter = name[:-1]
            format.frac += change
            if f"{parameter}~" in formats:
                top = formats[f"{parameter}~"].frac
                format.frac = min(max(format.frac, top - GRADIENT_SHIFT), top)
        elif f"{name}^" in formats:
            top = formats[f"{name}^"].frac
            format.change = min(max(format.frac + change, top - (1 << SHIFT_BITS) + 1), top) - format.frac
        else:
            format.frac += change


def _follow(format: Tracked, often: bool, peak: int) -> int:
    """Update the window of a format; return what its fraction moves by."""
    if often:
        format.peak = format.quiet = 0
        return -1
    if peak >= 1 << (format.bits - 4):
        format.peak = format.quiet = 0
        return 0
    format.peak = max(format.peak, peak)
    format.quiet += 1
    if format.quiet < PATIENCE:
        return 0
    rises = format.peak > 0  # of a tensor of zeros nothing is known
    format.peak = format.quiet = 0
    return int(rises)


@lru_cache(maxsize=8)
def _members(network: Trainable) -> dict[str, tuple[str, ...]]:
    """Tensors of each format, activations and gradients."""
    members: dict[str, list[str]] = {}
    for tensor, root in plan(network).shared.items():
        members.setdefault(root, []).append(tensor)
        members.setdefault(f"{root}'", []).append(f"{tensor}'")
    return {name: tuple(each) for name, each in members.items()}
