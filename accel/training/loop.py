"""Training over epochs, bit by bit as the accelerator does it: ``accel.train``."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import NetworkError, RangeError
from accel.files import write
from accel.graph.network import Network
from accel.graph.trainable import COMPUTED, Trainable
from accel.sparsity import MAX_M, Pattern
from accel.training import checkpoint, course, reference, step
from accel.training.checkpoint import Checkpoint
from accel.training.course import Epoch
from accel.training.data import Data, read
from accel.training.recipe import Recipe
from accel.training.state import State

SCHEMA_VERSION = 1
CONFIG = "sat-vcu1525"
EPOCHS = 30  # our choice
WEIGHTS = ("drawn", "file")
RESULT, HISTORY, MODEL, QUANTISED = "training.json", "history.csv", "model.onnx", "quantised.onnx"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingResult:
    """A trained network, and how it came to be.

    Parameters
    ----------
    network : Trainable
        With the parameters before the first step.
    config : AcceleratorConfig
    recipe : Recipe
    data : Data
    epochs : int
    weights : str
        Where the first parameters are from: "drawn" or "file".
    curves : tuple of Epoch
        Loss, accuracies, saturated elements and overflowed sums of each.
    state : State
        After the last step.
    seconds : float
        Of the epochs that were run here, not before a resume [s].
    """

    network: Trainable
    config: AcceleratorConfig
    recipe: Recipe
    data: Data
    epochs: int
    weights: str
    curves: tuple[Epoch, ...]
    state: State
    seconds: float

    def __repr__(self) -> str:
        return f"<TrainingResult {self.network.name!r}: {len(self.curves)} epochs, {self.accuracy:.2%} of {self.data.name} held out>"

    @property
    def accuracy(self) -> float:
        """Share of the samples held out that are classified right after the last epoch."""
        return self.curves[-1].held_out

    @property
    def saturated(self) -> dict[str, int]:
        """Elements that saturated in all epochs, by the names of :class:`accel.training.state.State`; the most first."""
        return dict(sum((Counter(epoch.saturated) for epoch in self.curves), Counter()).most_common())

    @property
    def overflowed(self) -> dict[str, int]:
        """Sums that left the accumulator in all epochs, by layer and stage; the most first."""
        return dict(sum((Counter(epoch.overflowed) for epoch in self.curves), Counter()).most_common())

    def logits(self, samples: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Classify samples with the running statistics, bit by bit; return the logits, shape (samples, classes).

        Parameters
        ----------
        samples : float, shape (samples, ...)
            As the network stores them and as `data` has scaled them.
        """
        integers = step.infer(self.network, self.config, self.recipe, self.state, step.quantise(self.network, self.state, samples))
        return integers.astype(np.float64) * 2.0 ** -self.state.formats[self.network.output].frac

    def to_json(self) -> str:
        """Write settings and curves as text; equal runs give equal text."""
        parts = {
            "schema_version": SCHEMA_VERSION,
            **_settings(self.network, self.config, self.recipe, self.data, self.epochs, self.weights),
            "samples": len(self.data.x),
            "held_out": len(self.data.x_test),
            "accuracy": self.accuracy,
            "saturated": self.saturated,
            "overflowed": self.overflowed,
            "curves": [dataclasses.asdict(epoch) for epoch in self.curves],
        }
        return f"{json.dumps(parts, indent=1)}\n"

    def to_csv(self) -> str:
        """Write the curves, one line per epoch."""
        told = io.StringIO()
        lines = csv.writer(told, lineterminator="\n")
        lines.writerow(["epoch", "loss", "accuracy", "held_out", "saturated", "overflowed"])
        for epoch in self.curves:
            sums = [sum(counts.values()) for counts in (epoch.saturated, epoch.overflowed)]
            lines.writerow([epoch.epoch, epoch.loss, epoch.accuracy, epoch.held_out, *sums])
        return told.getvalue()

    def to_onnx(self, *, quantised: bool = False) -> bytes:
        """Write the trained network as an ONNX model.

        Parameters
        ----------
        quantised : bool
            With the integers and formats of training: ``accel.simulate`` computes its logits from it, bit for bit where there is no batch
            normalisation. Otherwise of floats.

        Raises
        ------
        NetworkError
            If something has no form in ONNX; see :mod:`accel.training.export`.
        """
        from accel.training import export

        if quantised:
            return export.quantised(self.network, self.config, self.recipe, self.state)
        return export.export(self.network, self.recipe, self.state)

    def save(self, folder: str | Path) -> None:
        """Write the model and the curves.

        ``model.onnx`` is of floats; ``quantised.onnx`` is left out where the integers have no form in ONNX; ``history.csv``; and, last,
        ``training.json``: where that is, the others are whole and of the same run.

        Parameters
        ----------
        folder : str or Path

        Raises
        ------
        RangeError
            If they cannot be written.
        """
        where = Path(folder)
        _make(where)
        for name in (RESULT, QUANTISED):
            (where / name).unlink(missing_ok=True)
        write(where / MODEL, self.to_onnx(), durable=True)
        with suppress(NetworkError):
            write(where / QUANTISED, self.to_onnx(quantised=True), durable=True)
        write(where / HISTORY, self.to_csv(), durable=True)
        write(where / RESULT, self.to_json(), durable=True)


def train(
    network: Any,
    data: Any,
    config: AcceleratorConfig | str | Path | None = None,
    *,
    algorithm: str | None = None,
    pattern: Pattern | str | None = None,
    dense: Sequence[str] | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
    schedule: str | None = None,
    momentum: float | None = None,
    decay: float | None = None,
    sparse_decay: float | None = None,
    refresh: int | None = None,
    rounding: str | None = None,
    seed: int | None = None,
    weights: str | None = None,
    example: Any = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    report: Callable[[Epoch], None] | None = None,
) -> TrainingResult:
    """Train a network on a modelled accelerator, bit by bit, for some epochs.

    What is None is as :class:`accel.training.recipe.Recipe` has it, or, in a run that goes on, as that run was begun.

    Parameters
    ----------
    network : str, path, torch.nn.Module, Network or Trainable
        As for :func:`accel.load`, or what it gives.
    data : str, path, mapping of str to array_like, or Data
        ``"digits"``, an .npz file, or arrays; see :func:`accel.training.data.read`.
    config : AcceleratorConfig, str or Path, optional
        The accelerator, the name of a preset or a YAML file; CONFIG without it.
    algorithm : str, optional
        ``"bdwp"``, ``"sr-ste"``, ``"sdgp"`` or ``"dense"``.
    pattern : Pattern or str, optional
        N:M of what is pruned.
    dense : sequence of str, optional
        Layers that are never pruned; without it the first convolution and the last linear layer.
    epochs : int, optional
        1 or more; EPOCHS without it.
    batch, rate, schedule, momentum, decay, sparse_decay, refresh, rounding, seed : optional
        Fields of :class:`accel.training.recipe.Recipe`.
    weights : str, optional
        ``"drawn"``: the first parameters are drawn anew from the seed; ``"file"``: they are those of `network`.
    example, shapes : optional
        As for :func:`accel.load`.
    out : str or Path, optional
        Folder for checkpoints and, at the end, the files of :meth:`TrainingResult.save`; without it nothing is written.
    resume : str or Path, optional
        Folder of a run that was interrupted: go on from its last checkpoint, in the same folder.
    progress : callable, optional
        Called with (steps done, steps in all, what is next).
    report : callable, optional
        Called after each epoch that is run here, when its checkpoint is written.

    Returns
    -------
    TrainingResult

    Raises
    ------
    AccelError
        If an argument breaks its rule, a layer cannot be trained, the data do not fit the network, or a run that goes on was begun with
        other settings.
    """
    for name, value, rule, fits in (
        ("out", out, "the path of a folder", isinstance(out, str | os.PathLike)),
        ("resume", resume, "the path of a folder", isinstance(resume, str | os.PathLike)),
        ("dense", dense, "a list of layers", isinstance(dense, Sequence) and not isinstance(dense, str)),
        ("shapes", shapes, "sizes by the name of an input", isinstance(shapes, Mapping)),
        ("progress", progress, "callable", callable(progress)),
        ("report", report, "callable", callable(report)),
    ):
        if value is not None and not fits:
            raise RangeError(f"{name} must be {rule}, not {value!r}")
    if out is not None and resume is not None and Path(out) != Path(resume):
        raise RangeError(f"out must be left out with resume, or be the same folder, not {str(out)!r}")
    folder = Path(resume) if resume is not None else Path(out) if out is not None else None
    given: dict[str, Any] = {
        "algorithm": algorithm, "pattern": _pattern(pattern) if isinstance(pattern, str) else pattern,
        "dense": None if dense is None else tuple(dense), "batch": batch, "rate": rate, "schedule": schedule, "momentum": momentum,
        "decay": decay, "sparse_decay": sparse_decay, "refresh": refresh, "rounding": rounding, "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    begun = checkpoint.settings(folder) if resume is not None and folder is not None else {}
    recipe = Recipe(**_begun(begun) | given)
    epochs = begun.get("epochs", EPOCHS) if epochs is None else epochs
    weights = begun.get("weights", WEIGHTS[0]) if weights is None else weights
    if weights not in WEIGHTS:
        raise RangeError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    if not isinstance(config, AcceleratorConfig):
        config = AcceleratorConfig(**begun["config"]) if config is None and begun else presets.load(config or CONFIG)
    net = _network(network, example, shapes, recipe.seed, weights)
    if folder is not None:
        from accel.training import export

        export.check(net)
    samples = read(data, net, recipe.seed)
    course.check(net, recipe, epochs, len(samples.x))
    settings = _settings(net, config, recipe, samples, epochs, weights)
    with nullcontext() if folder is None else _held(folder, resume is not None):
        start = _start(net, config, recipe, samples, settings, folder, resume is not None)
        began = time.perf_counter()
        state, curves = start.state, list(start.curves)
        x, x_test = (step.quantise(net, state, each) for each in (samples.x, samples.x_test))
        for epoch in range(len(curves), epochs):
            curves.append(_epoch(net, config, recipe, state, (x, samples.y, x_test, samples.y_test), epoch, epochs, progress))
            if folder is not None:
                checkpoint.save(folder, Checkpoint(settings=settings, curves=tuple(curves), state=state))
            if report is not None:
                report(curves[-1])
        result = TrainingResult(
            network=net, config=config, recipe=recipe, data=samples, epochs=epochs, weights=weights, curves=tuple(curves), state=state,
            seconds=time.perf_counter() - began,
        )  # fmt: skip
        if folder is not None:
            result.save(folder)
    return result


def _held(folder: Path, resumed: bool) -> AbstractContextManager[None]:
    """Keep other runs out of a folder, which is made if need be."""
    if not resumed:
        _vacant(folder)
        _make(folder)
    return checkpoint.hold(folder)


def _vacant(folder: Path) -> None:
    """Refuse a folder of another run."""
    if checkpoint.holds(folder):
        raise RangeError(f"out must be a folder without checkpoints, not {str(folder)!r}: go on with resume, or name another")


def _start(
    network: Trainable,
    config: AcceleratorConfig,
    recipe: Recipe,
    data: Data,
    settings: dict[str, Any],
    folder: Path | None,
    resumed: bool,
) -> Checkpoint:
    """Begin a run, or go on with one."""
    if resumed and folder is not None:
        start, told = checkpoint.load(folder, settings)
        _check(network, start.state, folder)
        for line in told:
            warnings.warn(f"{folder}: {line}; the one before it is used", UserWarning, stacklevel=3)
        (folder / RESULT).unlink(missing_ok=True)
        checkpoint.clean(folder)
        return start
    if folder is not None:
        _vacant(folder)
        (folder / RESULT).unlink(missing_ok=True)
    rows = next(course.batches(len(data.x), recipe, 0))
    start = Checkpoint(settings=settings, curves=(), state=step.prepare(network, config, recipe, data.x[rows], data.y[rows]))
    if folder is not None:
        checkpoint.save(folder, start)
    return start


def _epoch(
    network: Trainable,
    config: AcceleratorConfig,
    recipe: Recipe,
    state: State,
    data: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]],
    epoch: int,
    epochs: int,
    progress: Callable[[int, int, str], None] | None,
) -> Epoch:
    """Train for one epoch; `state` changes."""
    x, y, x_test, y_test = data
    steps = len(x) // recipe.batch
    loss, correct = 0.0, 0
    saturated, overflowed = Counter[str](), Counter[str]()
    for number, rows in enumerate(course.batches(len(x), recipe, epoch), start=epoch * steps):
        if progress is not None:
            progress(number, epochs * steps, f"epoch {epoch + 1}")
        outcome = step.step(network, config, recipe, state, x[rows], y[rows], course.rate(recipe, number, epochs * steps))
        loss += outcome.loss
        correct += outcome.correct
        saturated.update(outcome.saturated)
        overflowed.update({" ".join(place): count for place, count in outcome.overflowed.items()})
    right = int((step.infer(network, config, recipe, state, x_test).argmax(axis=1) == y_test).sum())
    return Epoch(
        epoch=epoch + 1,
        loss=loss / steps,
        accuracy=correct / (steps * recipe.batch),
        held_out=right / len(y_test),
        saturated=dict(sorted(saturated.items())),
        overflowed=dict(sorted(overflowed.items())),
    )


def _network(source: Any, example: Any, shapes: Mapping[str, Sequence[int]] | None, seed: int, weights: str) -> Trainable:
    if isinstance(source, Trainable):
        net = source
    elif isinstance(source, Network):
        if source.real is None:
            raise NetworkError(f"network must be known as floats to be trained, not by {source.name}, which is not")
        net = source.real()
    else:
        from accel.graph.files import trainable

        net = trainable(source, example, shapes=shapes)
    for layer in net.layers:
        if not isinstance(layer, COMPUTED):
            kinds = ", ".join(kind.__name__ for kind in COMPUTED)
            raise NetworkError(f"{layer.name} must be one of {kinds} to be trained, not {type(layer).__name__}: its cycles can be counted")
    if len(net.shapes[net.output]) != 1:
        raise NetworkError(f"output of {net.name} must be a row of logits, one per class, not of shape {net.shapes[net.output]}")
    if weights == "drawn":
        return reference.draw(net, seed)
    reference.parameters(net)  # says which are not known
    return net


def _settings(network: Trainable, config: AcceleratorConfig, recipe: Recipe, data: Data, epochs: int, weights: str) -> dict[str, Any]:
    """Everything that the bytes of a run follow from, by name, as JSON has it."""
    fields = dataclasses.asdict(recipe) | {"pattern": str(recipe.pattern), "dense": None if recipe.dense is None else list(recipe.dense)}
    return {
        "network": {"name": network.name, "digest": _digest(network)},
        "data": {"name": data.name, "digest": data.digest},
        "config": dataclasses.asdict(config),
        "weights": weights,
        "epochs": epochs,
        **fields,
    }


def _pattern(text: str) -> Pattern:
    """Read ``"N:M"``."""
    try:
        return Pattern.parse(text)
    except RangeError:
        raise RangeError(f"pattern must be N:M, 1 <= N <= M <= {MAX_M}, such as 2:8, not {text!r}") from None


def _begun(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the recipe that a run was begun with."""
    names = {field.name for field in dataclasses.fields(Recipe)}
    found = {name: value for name, value in settings.items() if name in names}
    if found.get("dense") is not None:
        found["dense"] = tuple(found["dense"])
    return found | ({"pattern": Pattern.parse(found["pattern"])} if "pattern" in found else {})


def _digest(network: Trainable) -> str:
    """SHA-256 of the layers with their first parameters."""
    told = hashlib.sha256(repr((sorted(network.shapes.items()), network.input, network.output)).encode())
    for layer in network.layers:
        for field in dataclasses.fields(layer):
            value = getattr(layer, field.name)
            told.update(f"{type(layer).__name__} {field.name} ".encode())
            told.update(np.ascontiguousarray(value).data if isinstance(value, np.ndarray) else repr(value).encode())
    return told.hexdigest()


def _check(network: Trainable, state: State, folder: Path) -> None:
    """Refuse a state whose arrays are not those of the network: kernels read them without looking."""
    wanted = {name: values.shape for name, values in reference.parameters(network).items()}
    found = {name: parameter.master.shape for name, parameter in state.parameters.items()}
    ours = {name: (2, network.shapes[layer.output][-1]) for layer in network.layers for name in [layer.name] if name in state.statistics}
    whole = all(
        values.shape == wanted.get(name)
        for name, parameter in state.parameters.items()
        for values in (parameter.velocity, parameter.working, parameter.mask, parameter.back)
        if values is not None
    )
    if found != wanted or not whole or {name: values.shape for name, values in state.statistics.items()} != ours:
        raise RangeError(f"resume must be a folder with a state of {network.name}, not {str(folder)!r}")


def _make(folder: Path) -> None:
    """Make a folder before the work whose results it is to hold."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:  # the latter for a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise RangeError(f"output must be a folder that can be written, not {str(folder)!r} ({reason})") from None
