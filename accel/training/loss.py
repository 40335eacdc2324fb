"""Softmax cross-entropy: gradients in integers, the loss itself a float of the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import RangeError
from accel.formats import FixedFormat
from accel.kernels.requantise import narrowest
from accel.special.integers import Integers
from accel.special.softmax import SoftmaxParameters, softmax
from accel.special.tensors import tensor


class Loss(NamedTuple):
    """What :func:`cross_entropy` returns.

    Parameters
    ----------
    gradient : int8 or int16, shape (samples, classes)
        Of the sum of the losses, in `format`; none is ever saturated.
    format : FixedFormat
        As many bits as the logits, all but the sign fraction.
    loss : float
        Sum over the samples, a float64 of the host.
    correct : int
        Samples whose greatest logit, the first of equal ones, is that of their label.
    """

    gradient: NDArray[Any]
    format: FixedFormat
    loss: float
    correct: int


def cross_entropy(logits: Integers, logits_format: FixedFormat, labels: NDArray[np.integer[Any]]) -> Loss:
    """Compare logits with labels: ``-log softmax(logits)[label]``, summed; its gradient is ``softmax(logits) - onehot(labels)``.

    The softmax (:func:`accel.special.softmax.softmax`) has bits - 1 fraction bits and is at most 1 less an LSB, so the difference is exact.

    Parameters
    ----------
    logits : signed integers, shape (samples, classes)
    logits_format : FixedFormat
    labels : integers, shape (samples,)
        0 to classes - 1.

    Returns
    -------
    Loss

    Raises
    ------
    RangeError
        If an argument breaks its rule.
    """
    if logits.ndim != 2 or not logits.size:
        raise RangeError(f"logits must be of shape (samples, classes), each 1 or more, not {logits.shape}")
    rows = tensor("logits", logits, logits_format)
    samples, classes = rows.shape
    if labels.dtype.kind not in "iu" or labels.shape != (samples,):
        raise RangeError(f"labels must be integers of shape ({samples},), not {labels.dtype} of shape {labels.shape}")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise RangeError(f"labels must be in [0, {classes - 1}], not {labels.min()}..{labels.max()}")
    format = FixedFormat(logits_format.bits, logits_format.bits - 1)
    step, scale = 2.0**-logits_format.frac, 2.0**-format.frac
    parameters = SoftmaxParameters.of(length=classes, step=step, scale=scale, zero_point=0, lo=0, hi=format.hi)
    gradient = softmax(parameters, rows)
    each = np.arange(samples)
    gradient[each, labels] -= 1 << format.frac
    real = (rows - rows.max(axis=1, keepdims=True).astype(np.int64)) * step
    loss = np.log(np.exp(real).sum(axis=1)) - real[each, labels]
    return Loss(gradient.astype(narrowest(format.lo, format.hi)), format, float(loss.sum()), int((rows.argmax(axis=1) == labels).sum()))
