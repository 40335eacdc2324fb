"""Gradients of the fixed-point step against torch's autograd on the dequantised network, within a bound that is derived here.

**What is compared.** The step computes with integers; dequantised, its working weights and samples are reals that torch computes with in
float64: FF with the weights of FF, BP with those of BP. Both compute the same function but for roundings. E(t) below bounds the difference
between what the integers of a tensor stand for and the exact real tensor t, element by element; E of the samples and of the weights is 0.
u(t) is half an LSB of t's format. Nothing saturates (asserted). Forwards, half an LSB for each rounding, through absolute values:

- product: ``E(y) = |W| * E(x) + u(y) + b``; b is half a product's LSB where the bias is rounded to it, else 0;
- ReLU: ``E(y) = E(x)``; maximum: the greatest E in the window;
- sum: ``E(a) + E(b) + u(y)``;
- average: the average of E, ``u(y)``, and the multiplier's relative error of 2**-mult_bits of the result;
- normalisation, with s = sqrt(variance + epsilon) of a channel: s is a norm of (x - mean, sqrt(n epsilon)), over sqrt(n), and subtracting
  the mean shortens vectors, so s moves by at most r, the root mean square of E(x). Then normalised x, n = (x - mean) / s, moves by at
  most ``E(n) = (E(x) + mean E(x) + |n| r) / (s - r)``, and y by ``|gamma| E(n)`` and one LSB: a half for its rounding, and less than
  another for its coefficients (:mod:`accel.special.batch_norm` states 2**-28 of the result and less).

The tensors of the step are tested to keep that bound. Backwards it is a running one (N. Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., section 3.3): D(t), the difference that activations really have, takes the place of E(t), and what a ReLU or a maximum
decided is looked at. So what is bounded is what gradients add, each rounding again half an LSB, through absolute values:

- softmax: the exact difference that D of the logits makes, :func:`accel.special.softmax.bound`, and an LSB where it stands for 1;
- BP: ``|W_BP|^T * E(dy) + u(dx)``; a sum's inputs and averages alike;
- WU: ``|x|^T E(dy) + D(x)^T (|dy| + E(dy)) + u(dw)``; of a bias: the sum of E(dy), and u;
- ReLU: E(dy) where both let it pass, 0 where both do not, ``|dy| + E(dy)`` where they differ;
- maximum: E(dy) for the winner, ``|dy| + E(dy)`` for both winners where they differ;
- normalisation: with m = mean(dy n), ``E(m) = mean(E(dy) |n| + |dy| E(n) + E(dy) E(n))``; of a = dy - mean(dy) - n m,
  ``E(a) = E(dy) + mean E(dy) + |n| E(m) + E(n) (|m| + E(m))``; and of dx = gamma a / s, ``|gamma| (E(a) + |a| r / s) / (s - r)`` and an
  LSB; E(n) and r are those above, of D(x). The sums of dy n and of dy have count times E(m) and E(mean dy), half an LSB, and 2**-28 of
  themselves.

SDGP is left out: the gradient that it hands back is no derivative, and jumps where another element is chosen.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from accel.formats import FixedFormat
from accel.graph.trainable import Add, AveragePool, BatchNorm, Convolution, Layer, MaxPool, Relu
from accel.graph.window import Window
from accel.special.softmax import SoftmaxParameters, bound
from accel.training import formats, reference, step
from accel.training.reference import Choice, patches, unpatch
from tests.training_gradients import CASES, FIXTURE, Case, reals, restore, torch_gradients

Array = NDArray[Any]
SHARE = 0.05  # of the largest gradient of a parameter, that the bound takes at most, in the middle of its elements, with 16 bits
FLOAT32 = 2.0**-23  # what the fixture's numbers are rounded by, relative


@pytest.fixture(scope="module")
def recorded() -> dict[str, Array]:
    """Integers and torch's numbers."""
    with np.load(FIXTURE) as file:
        return dict(file)


class Bounds:
    """The bound of the docstring above, layer by layer, around the exact tensors of a float64 run."""

    def __init__(self, case: Case, record: step.Record) -> None:
        self.case, self.network, self.fractions = case, case.network, record.fractions
        self.forward, self.backward, samples = reals(case)
        weights = {name: parameter for name, parameter in case.state.parameters.items() if parameter.mask is not None}
        choice = Choice({name: each.mask for name, each in weights.items()}, {name: each.back for name, each in weights.items()})  # type: ignore[misc]  # masks that are not None
        whole = {name: each.working * 2.0 ** -case.state.formats[name].frac for name, each in case.state.parameters.items()}
        self.exact = reference.run(self.network, whole, samples, case.labels, choice=choice)
        self.errors: dict[str, Array] = {self.network.input: np.zeros(samples.shape)}
        self.slopes: dict[str, Array] = {}
        self.parameters: dict[str, Array] = {}
        for layer in self.network.layers:
            self.errors[layer.output] = self.ahead(layer).reshape(self.exact.tensors[layer.output].shape)
        self.ours = {name: each * 2.0 ** -self.fractions[name] for name, each in record.tensors.items()}
        for layer in self.network.convolutions:  # results that only a ReLU reads are stored after it
            if layer.output in formats.plan(self.network).clipped:
                negative = np.minimum(self.exact.tensors[layer.output], 0)
                self.ours[layer.output] = self.ours[layer.output] + np.where(self.ours[layer.output] > 0, 0, negative)
        self.moved = {name: np.abs(each - self.exact.tensors[name]) for name, each in self.ours.items()}
        self.slopes[self.network.output] = self.loss()
        for layer in reversed(self.network.layers):
            self.back(layer)

    def half(self, name: str) -> float:
        """Half an LSB."""
        return float(2.0 ** -(self.fractions[name] + 1))

    def image(self, tensor: str, values: Array) -> Array:
        """See a tensor as images."""
        return values.reshape(len(values), *self.network.image(tensor))

    def map(self, layer: Convolution, weights: Array, x: Array) -> Array:
        """Convolve."""
        seen = patches(x, layer.window)
        grouped = seen.reshape(*seen.shape[:5], layer.groups, -1)
        y: Array = np.einsum("nrsklgc,gfklc->nrsgf", grouped, weights.reshape(layer.groups, -1, *layer.shape[1:]))
        return y.reshape(*seen.shape[:3], -1)

    def adjoint(self, layer: Convolution, weights: Array, dy: Array, shape: tuple[int, ...]) -> Array:
        """Apply the adjoint of the convolution."""
        grouped = dy.reshape(*dy.shape[:3], layer.groups, -1)
        parts = np.einsum("nrsgf,gfklc->nrsklgc", grouped, weights.reshape(layer.groups, -1, *layer.shape[1:]))
        return unpatch(parts.reshape(*parts.shape[:5], -1), layer.window, shape)

    def correlate(self, layer: Convolution, x: Array, dy: Array) -> Array:
        """Add up products of both over samples and positions."""
        seen = patches(x, layer.window)
        grouped, slopes = seen.reshape(*seen.shape[:5], layer.groups, -1), dy.reshape(*dy.shape[:3], layer.groups, -1)
        dw: Array = np.einsum("nrsklgc,nrsgf->gfklc", grouped, slopes)
        return dw.reshape(layer.shape)

    def ahead(self, layer: Layer) -> Array:
        """E of a layer's output."""
        x, error = (self.image(layer.inputs[0], each[layer.inputs[0]]) for each in (self.exact.tensors, self.errors))
        half = self.half(layer.output)
        match layer:
            case Convolution():
                weight = f"{layer.name}.weight"
                product = self.fractions[layer.inputs[0]] + self.fractions[weight]
                rough = layer.biased and self.fractions[f"{layer.name}.bias"] > product
                return self.map(layer, np.abs(self.forward[weight]), error) + half + rough * 2.0 ** -(product + 1)
            case BatchNorm():
                return np.abs(self.forward[f"{layer.name}.gamma"]) * self.normal(layer, x, error)[1] + 2 * half
            case Relu():
                return error
            case Add():
                return error + self.image(layer.inputs[1], self.errors[layer.inputs[1]]) + half
            case MaxPool():
                return np.asarray(patches(error, layer.window).max(axis=(3, 4)))
            case _:
                assert isinstance(layer, AveragePool)
                mean, spread = (patches(each, layer.window).mean(axis=(3, 4)) for each in (x, error))
                return np.asarray(spread + half + 2.0**-self.case.config.mult_bits * (np.abs(mean) + spread))

    def normal(self, layer: BatchNorm, x: Array, error: Array) -> tuple[Array, Array, Array, Array]:
        """Return n, E(n), s and r."""
        axes = (0, 1, 2)
        s, r = np.sqrt(x.var(axes) + layer.epsilon), np.sqrt((error**2).mean(axes))
        n = (x - x.mean(axes)) / s
        assert (r < s).all()
        return n, (error + error.mean(axes) + np.abs(n) * r) / (s - r), s, r

    def loss(self) -> Array:
        """E of the gradient of the logits."""
        output, bits = self.network.output, self.case.config.act_bits
        exact, ours = (each[output].reshape(len(self.case.labels), -1) for each in (self.exact.tensors, self.ours))
        step_size, scale = 2.0 ** -self.fractions[output], 2.0 ** -(bits - 1)
        parameters = SoftmaxParameters.of(length=exact.shape[1], step=step_size, scale=scale, zero_point=0, lo=0, hi=FixedFormat(bits).hi)
        powers = [np.exp(each - each.max(axis=1, keepdims=True)) for each in (exact, ours)]
        p, q = (each / each.sum(axis=1, keepdims=True) for each in powers)
        error = np.abs(p - q) + (bound(parameters, step_size, scale) + 1) * scale
        return np.asarray(error.reshape(self.exact.tensors[output].shape))

    def add(self, tensor: str, error: Array) -> None:
        """Add what a reader's contribution is off by."""
        if tensor in formats.plan(self.network).trained:
            shape = self.exact.tensors[tensor].shape
            self.slopes[tensor] = self.slopes.get(tensor, np.zeros(shape)) + error.reshape(shape)

    def back(self, layer: Layer) -> None:
        """E of the gradients of a layer's inputs and parameters."""
        into, output = layer.inputs[0], layer.output
        x, error, ours = (self.image(into, each[into]) for each in (self.exact.tensors, self.moved, self.ours))
        dy, slope = (self.image(output, each[output]) for each in (self.exact.gradients, self.slopes))
        trained = into in formats.plan(self.network).trained
        half = self.half(f"{into}'") if trained else 0.0
        match layer:
            case Convolution():
                weight, bias = f"{layer.name}.weight", f"{layer.name}.bias"
                self.add(into, self.adjoint(layer, np.abs(self.backward[weight]), slope, x.shape) + half)
                spread = self.correlate(layer, np.abs(x), slope) + self.correlate(layer, error, np.abs(dy) + slope)
                self.parameters[weight] = spread + self.half(f"{weight}'")
                if layer.biased:
                    self.parameters[bias] = slope.sum(axis=(0, 1, 2)) + self.half(f"{bias}'")
            case BatchNorm():
                axes, gamma, beta = (0, 1, 2), f"{layer.name}.gamma", f"{layer.name}.beta"
                n, moved, s, r = self.normal(layer, x, error)
                m, count = (dy * n).mean(axes), n[..., 0].size
                off = (slope * np.abs(n) + np.abs(dy) * moved + slope * moved).mean(axes)
                a = dy - dy.mean(axes) - n * m
                wrong = slope + slope.mean(axes) + np.abs(n) * off + moved * (np.abs(m) + off)
                self.add(into, np.abs(self.forward[gamma]) * (wrong + np.abs(a) * r / s) / (s - r) + 2 * half)
                self.parameters[gamma] = count * (off + 2.0**-28 * (np.abs(m) + off)) + self.half(f"{gamma}'")
                self.parameters[beta] = slope.sum(axes) + self.half(f"{beta}'")
            case Relu():
                self.add(into, np.where((x > 0) == (ours > 0), (x > 0) * slope, np.abs(dy) + slope))
            case Add():
                for tensor in layer.inputs:
                    if tensor in formats.plan(self.network).trained:
                        self.add(tensor, slope + self.half(f"{tensor}'"))
            case MaxPool():
                self.add(into, self.choices(layer.window, x, ours, dy, slope))
            case AveragePool():
                given = slope + 2.0**-self.case.config.mult_bits * (np.abs(dy) + slope)
                parts = np.broadcast_to(
                    given[:, :, :, None, None] / layer.window.taps, (*given.shape[:3], *layer.window.kernel, given.shape[3])
                )
                self.add(into, unpatch(parts, layer.window, x.shape) + half)

    def choices(self, window: Window, x: Array, ours: Array, dy: Array, slope: Array) -> Array:
        """E of the gradient that a maximum hands back."""
        winners = [
            each.reshape(*each.shape[:3], -1, each.shape[-1]) for each in (patches(x, window, -np.inf), patches(ours, window, -np.inf))
        ]
        first, second = (each.argmax(axis=3)[:, :, :, None] for each in winners)
        taps = np.arange(window.taps)[:, None]
        wrong = np.where(first == second, slope[:, :, :, None], (np.abs(dy) + slope)[:, :, :, None])
        parts = np.where((taps == first) | (taps == second), wrong, 0.0)
        return np.asarray(unpatch(parts.reshape(*parts.shape[:3], *window.kernel, -1), window, x.shape))


@pytest.mark.parametrize("key", CASES)
def test_gradients_are_torchs_within_the_bound(key, recorded):
    """Every element of every activation and of every parameter's gradient; with 16 bits the bound is a small part of what it bounds."""
    case = restore(key, recorded)
    outcome = step.step(case.network, case.config, case.recipe, case.state, case.x, case.labels, 0.0, keep=True)
    record = outcome.record
    assert record is not None
    assert not outcome.saturated
    assert not outcome.overflowed
    bounds = Bounds(case, record)
    for name, moved in bounds.moved.items():
        assert (moved <= bounds.errors[name]).all(), name
    shares = []
    for name, error in bounds.parameters.items():
        torchs = recorded[f"{key} d {name}"].astype(np.float64)
        ours = record.parameter_gradients[name] * 2.0 ** -record.fractions[f"{name}'"]
        assert (np.abs(ours - torchs) <= error + FLOAT32 * np.abs(torchs)).all(), name
        shares.append(np.median(error) / np.abs(torchs).max())
    if case.config.act_bits == 16:
        assert max(shares) < SHARE


@pytest.mark.parametrize("key", CASES)
def test_the_float_reference_is_torchs(key, recorded):
    """What the bound is taken around has torch's logits and gradients, but for the file's roundings."""
    case = restore(key, recorded)
    record = step.step(case.network, case.config, case.recipe, copy.deepcopy(case.state), case.x, case.labels, 0.0, keep=True).record
    assert record is not None
    exact = Bounds(case, record).exact
    for name, values in {"logits": exact.logits, **{name: exact.gradients[name] for name in case.state.parameters}}.items():
        assert np.allclose(values, recorded[f"{key} d {name}"], rtol=1e-6, atol=1e-6 * np.abs(values).max())


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is no requirement: its numbers are recorded")
@pytest.mark.parametrize("key", CASES)
def test_the_recorded_numbers_are_torchs(key, recorded):
    """The file holds what torch computes here, where there is one."""
    for name, values in torch_gradients(restore(key, recorded)).items():
        assert np.allclose(values, recorded[f"{key} d {name}"], rtol=1e-6, atol=1e-7 * np.abs(values).max())
