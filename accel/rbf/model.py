"""Trained networks: what the accelerator holds, what the host does before and after it, and how both compare with real arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.config import RbfConfig
from accel.errors import RangeError
from accel.files import write
from accel.golden.rbf_network import rbf_network

GREATEST = 1e100  # our choice: of features and targets, so that no sum of squares overflows
BLOCK = 1 << 22  # our choice: activations computed at once [elements]


class Parameters(NamedTuple):
    """What a network has learned, as integers or as reals.

    Parameters
    ----------
    centres : array, shape (H, D)
    widths : array, shape (H,)
        log2(e) / (2 sigma^2).
    weights : array, shape (K, H)
    biases : array, shape (K,)
    """

    centres: NDArray[Any]
    widths: NDArray[Any]
    weights: NDArray[Any]
    biases: NDArray[Any]


class Scaling(NamedTuple):
    """Host: reals of the world to reals of the network, ``(x - offset) * scale``, in floating point.

    Parameters
    ----------
    offset, scale : float64, shape (n,)
        By feature or by output. A feature of scale 0 is ignored.
    """

    offset: NDArray[np.float64]
    scale: NDArray[np.float64]

    def forward(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale reals of the world; what is beyond GREATEST becomes that."""
        scaled: NDArray[np.float64] = np.clip((x - self.offset) * self.scale, -GREATEST, GREATEST)
        return scaled

    def back(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Undo :meth:`forward`."""
        x: NDArray[np.float64] = scaled / self.scale + self.offset
        return x


class Outputs(NamedTuple):
    """What a network says of samples.

    Parameters
    ----------
    values : float64, shape (n, K)
        Results of the network, before the host decides or scales.
    predictions : array, shape (n,) or, of several targets, (n, K)
        Labels, or targets in their own unit.
    """

    values: NDArray[np.float64]
    predictions: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RbfModel:
    """A trained radial-basis network.

    Parameters
    ----------
    config : RbfConfig
        The hardware.
    integers : Parameters of int64
        What it is loaded with.
    reals : Parameters of float64
        What was trained, before quantisation.
    inputs : Scaling
        Host: features to samples.
    features : tuple of str
        Names of the features.
    target : str
        Name of what is predicted.
    labels : tuple of str or of int, optional
        Classes; of two classes the one output tells the second. None for a regression.
    targets : Scaling, optional
        Host: targets of a regression to outputs of the network.
    training : dict
        How it was trained: numbers and texts by name.

    Raises
    ------
    RangeError
        If a part breaks its rule. The message names the part, the rule and the value.
    """

    config: RbfConfig
    integers: Parameters
    reals: Parameters
    inputs: Scaling
    features: tuple[str, ...]
    target: str
    labels: tuple[str, ...] | tuple[int, ...] | None
    targets: Scaling | None
    training: Mapping[str, Any]

    def __post_init__(self) -> None:
        config = self.config
        dims, neurons, outputs = config.dims, config.neurons, config.outputs
        shapes = (neurons, dims), (neurons,), (outputs, neurons), (outputs,)
        formats = config.x, config.width, config.weight, config.weight
        for name, shape, form, kept, real in zip(Parameters._fields, shapes, formats, self.integers, self.reals, strict=True):
            _check(name, kept, np.int64, shape)
            if not form.lo <= kept.min() <= kept.max() <= form.hi:
                raise RangeError(f"{name} must be in [{form.lo}, {form.hi}], not {kept.min()}..{kept.max()}")
            _check(f"float {name}", real, np.float64, shape)
        if self.reals.widths.min() < 0:
            raise RangeError(f"float widths must be 0 or more, not {self.reals.widths.min()}")
        scalings = {"input": (self.inputs, dims)} | ({"target": (self.targets, outputs)} if self.targets else {})
        for name, (scaling, length) in scalings.items():
            _check(f"{name} offset", scaling.offset, np.float64, (length,))
            _check(f"{name} scale", scaling.scale, np.float64, (length,))
        if len(self.features) != dims or len(set(self.features)) != dims:
            raise RangeError(f"features must be {dims} different names, not {len(set(self.features))}")
        if (self.labels is None) == (self.targets is None):
            raise RangeError(f"labels must be given for a classification only, not {'with' if self.labels else 'without'} a target scaling")
        if self.targets and not self.targets.scale.all():
            raise RangeError("target scale must not be 0")
        if self.labels and (len(set(map(str, self.labels))) != len(self.labels) or outputs_of(self.labels) != outputs):
            wanted = "2" if outputs == 1 else str(outputs)
            raise RangeError(f"labels must be {wanted} different ones for {outputs} outputs, not {len(set(map(str, self.labels)))}")

    def quantise(self, x: ArrayLike) -> NDArray[np.int64]:
        """Host: turn features, shape (n, D), into the integers of samples: scaled, rounded to the nearest (ties to even), saturated."""
        form = self.config.x
        scaled = np.rint(self.inputs.forward(self._features(x)) * 2.0**form.frac)
        return np.clip(scaled, form.lo, form.hi).astype(np.int64)

    def simulate(self, x: ArrayLike) -> Outputs:
        """Run samples through the bit-exact model of the hardware.

        Parameters
        ----------
        x : array_like, shape (n, D)
            Features, unscaled.

        Returns
        -------
        Outputs

        Raises
        ------
        RangeError
            If `x` is not finite numbers of that shape.
        """
        integers = rbf_network(self.config, *self.integers, self.quantise(x))
        return self._outputs(integers.astype(np.float64) * 2.0**-self.config.result.frac)

    def reference(self, x: ArrayLike) -> Outputs:
        """Run samples through the same network in real arithmetic, with the parameters before quantisation; see :meth:`simulate`."""
        return self._outputs(respond(self.reals, self.inputs.forward(self._features(x)), self.config.output))

    def score(self, predictions: NDArray[Any], y: ArrayLike) -> float | None:
        """Return the accuracy, or of a regression R^2 (the mean over several targets); None where there is nothing to tell apart.

        Parameters
        ----------
        predictions : array
            Of :class:`Outputs`.
        y : array_like, shape (n,) or (n, K)
            What is right.

        Raises
        ------
        RangeError
            If `y` has another shape or holds what is no label or no finite number.
        """
        y = np.asarray(y)
        if not len(predictions):
            return None
        if self.labels is not None:
            if y.shape != predictions.shape:
                raise RangeError(f"{self.target} must be of shape {predictions.shape}, not {y.shape}")
            return float(np.mean(predictions == np.array(self.labels)[encode(self.labels, y, self.target)]))
        predictions = predictions.reshape(len(predictions), -1)
        y = finite(self.target, y.reshape(len(y), -1) if y.ndim else y)
        if y.shape != predictions.shape:
            raise RangeError(f"{self.target} must be of shape {predictions.shape}, not {y.shape}")
        spread = ((y - y.mean(0)) ** 2).sum(0)
        return float(np.mean(1 - ((y - predictions) ** 2).sum(0) / spread)) if spread.all() else None

    def save(self, path: str | Path) -> None:
        """Write the model as JSON, whole or not at all; :mod:`accel.rbf.files` describes it.

        Raises
        ------
        RangeError
            If the file cannot be written.
        """
        from accel.rbf.files import to_json

        write(Path(path), to_json(self))

    @staticmethod
    def load(path: str | Path) -> RbfModel:
        """Read what :meth:`save` wrote; see :func:`accel.rbf.files.load`."""
        from accel.rbf.files import load

        return load(path)

    @property
    def measure(self) -> str:
        """What :meth:`score` returns."""
        return "R^2" if self.labels is None else "accuracy"

    def _features(self, x: ArrayLike) -> NDArray[np.float64]:
        values = finite("x", x)
        if values.ndim != 2 or values.shape[1] != self.config.dims:
            raise RangeError(f"x must be of shape (n, {self.config.dims}), one column per feature, not {values.shape}")
        return values

    def _outputs(self, values: NDArray[np.float64]) -> Outputs:
        if self.targets:
            real = self.targets.back(values)
            return Outputs(values, real[:, 0] if real.shape[1] == 1 else real)
        chosen = values[:, 0] > 0.5 if values.shape[1] == 1 else values.argmax(1)
        return Outputs(values, np.array(self.labels)[chosen.astype(np.int64)])

    def with_training(self, **facts: Any) -> RbfModel:
        """Return the model with more said about its training."""
        return dataclasses.replace(self, training={**self.training, **facts})


def outputs_of(labels: tuple[Any, ...]) -> int:
    """Return the outputs that tell classes apart: one for two classes, otherwise one each."""
    return 1 if len(labels) == 2 else len(labels)


def encode(labels: tuple[Any, ...], y: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return the positions of labels, which are compared as text.

    Raises
    ------
    RangeError
        If one is unknown.
    """
    if y.dtype.kind == "b" or (y.dtype.kind == "f" and np.all((np.abs(y) <= 2.0**53) & (y == np.rint(y)))):
        y = y.astype(np.int64)
    place = {str(label): position for position, label in enumerate(labels)}
    texts, inverse = np.unique(y.astype(np.str_), return_inverse=True)
    for text in texts:
        if text not in place:
            raise RangeError(f"{name} must be one of {', '.join(place)}, not {str(text)!r}")
    return np.array([place[text] for text in texts], np.int64)[inverse]


def activations(parameters: Parameters, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exact activations, shape (n, H), of scaled samples z, shape (n, D)."""
    centres = parameters.centres
    squares = (z**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * z @ centres.T
    phi: NDArray[np.float64] = np.exp2(-np.maximum(squares, 0) * parameters.widths)
    return phi


def sums(parameters: Parameters, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exact sums of the outputs, shape (n, K), of scaled samples z, shape (n, D)."""
    step = max(1, BLOCK // len(parameters.widths))
    parts = [activations(parameters, z[i : i + step]) @ parameters.weights.T for i in range(0, len(z), step)]
    total: NDArray[np.float64] = np.concatenate([*parts, np.zeros((0, len(parameters.biases)))]) + parameters.biases
    return total


def respond(parameters: Parameters, z: NDArray[np.float64], output: str) -> NDArray[np.float64]:
    """Return the exact results, shape (n, K), of scaled samples z, shape (n, D); `output` as in :class:`RbfConfig`."""
    total = sums(parameters, z)
    return total if output == "linear" else sigmoid(total)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + e^-x), without an overflow."""
    tail = np.exp(-np.abs(x))
    y: NDArray[np.float64] = np.where(x < 0, tail, 1.0) / (1 + tail)
    return y


def finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return an array of numbers whose squares are finite too.

    Raises
    ------
    RangeError
        If it holds anything else.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise RangeError(f"{name} must be numbers, not rows of different lengths") from None
    if array.dtype.kind not in "biuf":
        raise RangeError(f"{name} must be numbers, not {array.dtype}")
    array = array.astype(np.float64)
    far = ~(np.abs(array) <= GREATEST)
    if far.any():
        raise RangeError(f"{name} must be numbers of at most {GREATEST:g}, not {array[far][0]}")
    return array


def _check(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise RangeError(f"{name} must be {np.dtype(dtype)} of shape {shape}, not {array.dtype} of shape {array.shape}")
    finite(name, array)
