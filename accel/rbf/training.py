"""Training: centres, widths and output weights in floating point, then fixed point."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.config import RbfConfig
from accel.errors import RangeError, ToolError
from accel.golden.checks import integer
from accel.rbf.data import NEEDED
from accel.rbf.model import Parameters, RbfModel, Scaling, activations, encode, finite, outputs_of, sigmoid
from accel.rbf.quantise import quantise

METHODS = ("kmeans", "ols")
OUTPUTS = ("linear", "sigmoid")
TASKS = ("classification", "regression")
CLASSES = 64  # outputs that a network can have
FEATURES = 1024  # elements that a sample can have
ELEMENTS = 1 << 25  # our choice: samples times features, and samples times neurons; a few arrays of so many reals are held at once
FOLDS = 5
CANDIDATES = 500  # our choice: training samples among which orthogonal least squares looks for centres
FACTORS = 2.0 ** np.arange(-3, 2.5, 0.5)  # of a rule's width
NARROWEST, WIDEST = 1 / 4, 4.0  # of the median width: what every width is kept between, so that all fit one format
PENALTIES = 10.0 ** np.arange(-8, 1)  # per training sample
ACCURACY = 2.0**-11  # our choice: error of the nonlinear units where the words are long enough for it
TOLERANCE = 1.02  # our choice: how much worse than the best, in cross-validation, smaller weights may be
MARGIN = 0.1  # our choice: of a sigmoid's range, left free on both sides of a regression's targets

Spread = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def fit(
    x: ArrayLike,
    y: ArrayLike,
    *,
    neurons: int,
    method: str = "kmeans",
    output: str | None = None,
    bits: int = 16,
    units: int | None = None,
    error: float | None = None,
    seed: int = 0,
    test: float = 0.0,
    task: str | None = None,
    features: Sequence[str] | None = None,
    target: str = "y",
    name: str = "rbf",
) -> RbfModel:
    """Train a radial-basis network and bring it to fixed point.

    Features are standardised. Centres are the means of k-means, or the training samples that orthogonal least squares chooses. The output
    weights of a linear output are those of ridge regression on classes as 0 and 1 or on standardised targets; of a sigmoid they minimise
    the cross-entropy. The rule of the widths, its factor and the penalty are chosen by 5-fold cross-validation: of those within 2 % of the
    least error the ones with the smallest weights, which every error of fixed point is multiplied by. The penalty is at least what an
    error of the activations amounts to that is independent and uniform in +-`error`, or in +-2^-bits if that is more.

    Parameters
    ----------
    x : array_like, shape (n, D)
        Features.
    y : array_like, shape (n,) or, of several targets, (n, K)
        Labels or targets.
    neurons : int
        Hidden neurons.
    method : str
        ``"kmeans"`` or ``"ols"``.
    output : str, optional
        ``"linear"`` or ``"sigmoid"``; if not given, a classification gets a sigmoid and a regression a linear output.
    bits : int
        Width of every word [bits], 8 to 24.
    units : int, optional
        Neurons in hardware; up to 4 if not given.
    error : float, optional
        Largest absolute error of the Gaussian and of the sigmoid unit; if not given 2^-11, or 2^(1 - bits) for short words.
    seed : int
        Of what is drawn at random.
    test : float
        Fraction of the samples, 0 to 0.5, that is held out: drawn evenly over the classes or targets.
    task : str, optional
        ``"classification"`` or ``"regression"``; if not given, labels are text, booleans or at most 64 different integers.
    features : sequence of str, optional
        Names of the features.
    target, name : str
        What the target and the network are called.

    Returns
    -------
    RbfModel
        `training` tells what was chosen, and the scores in floating and in fixed point.

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    ConfigError
        If `bits`, `units` or `error` break the rule of a field of :class:`RbfConfig`, or the ranges do not fit `bits`.
    ToolError
        If scikit-learn is not installed.
    """
    try:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError:
        raise ToolError(NEEDED) from None
    _among("method", method, METHODS)
    _among("output", output, (*OUTPUTS, None))
    _among("task", task, (*TASKS, None))
    integer("neurons", neurons, 1, 1024)
    integer("bits", bits, 8, 24)
    integer("seed", seed, 0, 2**32 - 1)
    if isinstance(test, bool) or not isinstance(test, int | float) or not 0 <= test <= 0.5:
        raise RangeError(f"test must be a number in [0, 0.5], not {test!r}")
    error = max(ACCURACY, 2.0 ** (1 - bits)) if error is None else error
    units = min(neurons, 4) if units is None else units
    RbfConfig(neurons=neurons, units=units, error=error)  # its rules, before the work
    for word in (target, *(() if features is None else features)):
        if not isinstance(word, str):
            raise RangeError(f"names of the target and of the features must be texts, not {word!r}")
    x = finite("x", x)
    if x.ndim != 2 or not 1 <= x.shape[1] <= FEATURES:
        raise RangeError(f"x must be of shape (n, D), D at most {FEATURES}, not {x.shape}")
    if len(x) * max(x.shape[1], neurons) > ELEMENTS:
        raise RangeError(f"samples must be at most {ELEMENTS // max(x.shape[1], neurons)}, not {len(x)}")
    names = tuple(f"x{i}" for i in range(x.shape[1])) if features is None else tuple(features)
    y = np.asarray(y)
    labels = _labels(target, y, len(x), task)
    train, held = split(y, test, seed)
    smallest = len(train) - -(-len(train) // FOLDS)
    if neurons > smallest:
        raise RangeError(
            f"neurons must be at most {smallest}, {FOLDS - 1} of {FOLDS} parts of {len(train)} training samples, not {neurons}"
        )
    wanted, targets = _wanted(target, y, labels, train, output := output or ("linear" if labels is None else "sigmoid"))
    inputs = _standard(x[train])
    if not inputs.scale.any():
        raise RangeError("x must vary in at least one feature, not be constant")
    z = inputs.forward(x[train])
    with threadpool_limits(1):  # equal results on any number of cores
        reals, chosen = _train(z, wanted, method, output, neurons, max(error, 2.0**-bits), seed)
    config, integers = quantise(reals, z, name=name, output=output, bits=bits, units=units, error=error)
    model = RbfModel(
        config=config,
        integers=integers,
        reals=reals,
        inputs=inputs,
        features=names,
        target=target,
        labels=labels,
        targets=targets,
        training={"method": method, **chosen, "seed": seed, "samples": len(train), "held out": len(held)},
    )
    parts = {"training": train, "held out": held} if len(held) else {"training": train}
    scores = {
        part: {
            "float": model.score(model.reference(x[rows]).predictions, y[rows]),
            "fixed": model.score(model.simulate(x[rows]).predictions, y[rows]),
        }
        for part, rows in parts.items()
    }
    return model.with_training(scores=scores)


def split(y: ArrayLike, test: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the samples to train with and of those held out, both ascending.

    Parameters
    ----------
    y : array_like, shape (n,) or (n, K)
        Samples are drawn evenly over these; over the first column, if there are several.
    test : float
        Fraction that is held out.
    seed : int
        Of the draw.
    """
    order = _spread(np.asarray(y), seed)
    count = round(test * len(order))
    out = np.zeros(len(order), np.bool_)
    out[order[((np.arange(count) + 0.5) / max(count, 1) * len(order)).astype(np.int64)]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def _spread(y: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Return an order of the samples in which equal or near targets are neighbours; equal ones in random order."""
    return np.lexsort((np.random.default_rng(seed).random(len(y)), y.reshape(len(y), -1)[:, 0]))


def _among(name: str, value: object, choices: Sequence[str | None]) -> None:
    if value not in choices:
        raise RangeError(f"{name} must be one of {', '.join(choice for choice in choices if choice)}, not {value!r}")


def _labels(name: str, y: NDArray[Any], samples: int, task: str | None) -> tuple[Any, ...] | None:
    """Return the classes of a classification, sorted, or None for a regression."""
    if y.ndim not in (1, 2) or len(y) != samples:
        raise RangeError(f"{name} must be one value, or one row, for each of {samples} samples, not of shape {y.shape}")
    if not samples:
        raise RangeError("samples must be 1 or more, not 0")
    if y.dtype.kind != "U":
        finite(name, y)
    whole = y.dtype.kind in "Ubiu" or (task == "classification" and bool(np.all((np.abs(y) <= 2.0**53) & (y == np.rint(y)))))
    if task == "classification" and (not whole or y.ndim != 1):
        raise RangeError(f"{name} must be texts or integers, one a sample, to be classes, not {y.dtype} of shape {y.shape}")
    if y.ndim == 2 and not 1 <= y.shape[1] <= CLASSES:
        raise RangeError(f"{name} must be at most {CLASSES} values a sample, not {y.shape[1]}")
    text = y.dtype.kind == "U"
    if text and (task == "regression" or y.ndim != 1):
        raise RangeError(f"{name} must be numbers for a regression, not text")
    found = np.unique(y) if y.ndim == 1 and whole and task != "regression" else None
    if found is None or (task is None and not text and len(found) > CLASSES):
        return None
    if not 2 <= len(found) <= CLASSES:
        raise RangeError(f"{name} must be of 2 to {CLASSES} classes, not {len(found)}")
    return tuple(str(label) if text else int(label) for label in found)


def _wanted(
    name: str, y: NDArray[Any], labels: tuple[Any, ...] | None, train: NDArray[np.int64], output: str
) -> tuple[NDArray[np.float64], Scaling | None]:
    """Return what the outputs should be for the training samples, and how targets were scaled to it."""
    if labels is not None:
        place = encode(labels, y[train], name)
        return (place[:, None] == (np.arange(len(labels)) if outputs_of(labels) > 1 else 1)).astype(np.float64), None
    values = y[train].astype(np.float64).reshape(len(train), -1)
    if not np.ptp(values, axis=0).all():
        raise RangeError(f"{name} must vary among the training samples, not be constant")
    if output == "linear":
        scaling = _standard(values)
    else:
        scale = (1 - 2 * MARGIN) / np.ptp(values, axis=0)
        scaling = Scaling(values.min(0) - MARGIN / scale, scale)
    return scaling.forward(values), scaling


def _standard(x: NDArray[np.float64]) -> Scaling:
    """Return the scaling to mean 0 and variance 1; a constant feature has nothing to say and gets 0."""
    spread = np.where(np.ptp(x, axis=0) > 0, x.std(0), 0.0)
    return Scaling(x.mean(0), np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0))


class _Trial(NamedTuple):
    """One way to choose centres and widths: a rule and its factor."""

    rule: str
    factor: float


def _train(
    z: NDArray[np.float64], wanted: NDArray[np.float64], method: str, output: str, neurons: int, error: float, seed: int
) -> tuple[Parameters, dict[str, Any]]:
    """Choose rule, factor and penalty by cross-validation, then train with all samples."""
    folds = np.empty(len(z), np.int64)
    folds[_spread(wanted, seed)] = np.arange(len(z)) % min(FOLDS, len(z))
    floor = error**2 / 3  # variance of what is uniform in +-error
    penalties = np.unique(np.maximum(PENALTIES, floor))
    trials: dict[tuple[_Trial, float], NDArray[np.float64]] = {}  # loss, and the size of the weights
    for fold in range(folds.max() + 1):
        rest, out = folds != fold, folds == fold
        for trial, hidden in _hidden(z[rest], wanted[rest], method, neurons, seed):
            seen, unseen = activations(hidden, z[rest]), activations(hidden, z[out])
            for penalty, (weights, biases) in zip(penalties.tolist(), _ridges(seen, wanted[rest], penalties), strict=True):
                lost = ((unseen @ weights.T + biases - wanted[out]) ** 2).sum()
                found = np.array([lost, np.abs(weights).sum(1).max()])
                trials[trial, penalty] = trials.get((trial, penalty), np.zeros(2)) + found
    enough = TOLERANCE * min(loss for loss, _ in trials.values())
    best, penalty = min((key for key, (loss, _) in trials.items() if loss <= enough), key=lambda key: float(trials[key][1]))
    hidden = dict(_hidden(z, wanted, method, neurons, seed, best))[best]
    phi = activations(hidden, z)
    if output == "linear":
        weights, biases = next(_ridges(phi, wanted, np.array([penalty])))
    else:
        penalty = _penalty(phi, wanted, folds, penalties[::2])  # a tenth of a grid is as good, and these take longer
        weights, biases = _logistic(phi, wanted, penalty)
    chosen = {"width rule": best.rule, "width factor": best.factor, "penalty": penalty}
    return hidden._replace(weights=weights, biases=biases), chosen


def _hidden(
    z: NDArray[np.float64], wanted: NDArray[np.float64], method: str, neurons: int, seed: int, only: _Trial | None = None
) -> Iterator[tuple[_Trial, Parameters]]:
    """Yield centres and widths of every trial, or of one; weights are none yet."""
    none = np.zeros((wanted.shape[1], 0)), np.zeros(0)
    means = _kmeans(z, neurons, seed) if method == "kmeans" else None
    for rule in SPREADS if means is not None else ("global",):
        sigmas = SPREADS[rule](z, z[:neurons] if means is None else means)
        middle = np.median(sigmas) or _typical(z)
        sigmas = np.clip(sigmas, NARROWEST * middle, WIDEST * middle)
        for factor in FACTORS.tolist():
            trial = _Trial(rule, factor)
            if only in (None, trial):
                widths = math.log2(math.e) / (2 * (factor * sigmas) ** 2)
                centres = _orthogonal(z, wanted, widths, seed) if means is None else means
                yield trial, Parameters(centres, widths, *none)


def _kmeans(z: NDArray[np.float64], neurons: int, seed: int) -> NDArray[np.float64]:
    """Return the means of clusters, sorted."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different samples than neurons: some centres are equal
        means: NDArray[np.float64] = KMeans(neurons, n_init=4, random_state=seed).fit(z).cluster_centers_
    return means[np.lexsort(means.T[::-1])]


def _orthogonal(z: NDArray[np.float64], wanted: NDArray[np.float64], widths: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the samples that orthogonal least squares chooses as centres: each removes the most of the squared error that is left.

    References
    ----------
    .. [1] S. Chen, C. F. N. Cowan, P. M. Grant, "Orthogonal least squares learning algorithm for radial basis function networks", IEEE
       Transactions on Neural Networks 2(2), 1991, section IV.
    """
    neurons = len(widths)
    samples = np.random.default_rng(seed).permutation(len(z))[: max(CANDIDATES, neurons)]
    every = Parameters(z[samples], np.full(len(samples), widths[0]), np.zeros((1, 0)), np.zeros(0))
    columns, left = activations(every, z), wanted - wanted.mean(0)
    columns -= columns.mean(0)
    tiny = len(z) * np.finfo(float).eps * (columns**2).sum(0).max()
    chosen: list[int] = []
    for _ in range(neurons):
        energy = (columns**2).sum(0)
        gain = np.divide(((left.T @ columns) ** 2).sum(0), energy, out=np.full(len(samples), -1.0), where=energy > tiny)
        gain[chosen] = -2.0
        chosen.append(int(gain.argmax()))
        if energy[chosen[-1]] > tiny:
            direction = columns[:, chosen[-1]] / math.sqrt(energy[chosen[-1]])
            columns -= np.outer(direction, direction @ columns)  # so they no longer see what it removes from `left`
    return z[samples[chosen]]


def _typical(z: NDArray[np.float64]) -> float:
    """Return the root mean square of the distance between two samples; 1 if they are all equal."""
    return math.sqrt(2 * float(z.var(0).sum())) or 1.0


def _neighbour(z: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each centre the mean distance to the two nearest others."""
    distances = np.sqrt(((centres[:, None] - centres) ** 2).sum(2)) if len(centres) > 1 else np.full((1, 2), _typical(z))
    near: NDArray[np.float64] = np.sort(distances, axis=1)[:, 1:3].mean(1)
    return near


def _cluster(z: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each centre the root mean square of the distance to the samples that are nearest to it."""
    squares = np.stack([((z - centre) ** 2).sum(1) for centre in centres])
    own = squares.argmin(0)
    counts = np.bincount(own, minlength=len(centres))
    spread: NDArray[np.float64] = np.sqrt(np.bincount(own, squares.min(0), len(centres)) / np.maximum(counts, 1))
    return spread


def _global(z: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one width for all: the typical distance between two samples."""
    return np.full(len(centres), _typical(z))


SPREADS: dict[str, Spread] = {"neighbour": _neighbour, "cluster": _cluster, "global": _global}


def _ridges(
    phi: NDArray[np.float64], wanted: NDArray[np.float64], penalties: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield for each penalty the weights and biases that minimise mean((phi w + b - wanted)^2) + penalty |w|^2."""
    mean, middle = phi.mean(0), wanted.mean(0)
    values, vectors = np.linalg.eigh((phi - mean).T @ (phi - mean) / len(phi))
    projected = vectors.T @ ((phi - mean).T @ (wanted - middle) / len(phi))
    for penalty in penalties:
        weights = (vectors @ (projected / (np.maximum(values, 0) + penalty)[:, None])).T
        yield weights, middle - weights @ mean


def _logistic(phi: NDArray[np.float64], wanted: NDArray[np.float64], penalty: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights and biases that minimise the mean cross-entropy of sigmoid(phi w + b) with `wanted`, plus penalty |w|^2 / 2."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (penalty * len(phi)), solver="newton-cholesky")
    weights, biases = np.empty((wanted.shape[1], phi.shape[1])), np.empty(wanted.shape[1])
    twice, classes = np.concatenate([phi, phi]), np.repeat([1, 0], len(phi))  # what is wanted may lie between: each sample is both
    for k, share in enumerate(wanted.T):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an output that is always 0 in a fold has no best bias
            model.fit(twice, classes, np.concatenate([share, 1 - share]))
        weights[k], biases[k] = model.coef_[0], model.intercept_[0]
    return weights, biases


def _penalty(phi: NDArray[np.float64], wanted: NDArray[np.float64], folds: NDArray[np.int64], penalties: NDArray[np.float64]) -> float:
    """Return the largest penalty within the tolerance of the least squared error in cross-validation of a sigmoid's weights."""
    losses = np.zeros(len(penalties))
    for fold in range(folds.max() + 1):
        rest, out = folds != fold, folds == fold
        for i, penalty in enumerate(penalties):
            weights, biases = _logistic(phi[rest], wanted[rest], penalty)
            losses[i] += ((sigmoid(phi[out] @ weights.T + biases) - wanted[out]) ** 2).sum()
    return float(penalties[losses <= TOLERANCE * losses.min()].max())
