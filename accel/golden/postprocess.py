"""Golden model of the post-processor. RTL twin: :class:`accel.rtl.postprocess.Postprocess`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.formats import Rounding
from accel.golden import checks
from accel.golden.arithmetic import _requantise
from accel.jit import kernel

ROUNDINGS = (Rounding.FLOOR.value, Rounding.HALF_UP.value, Rounding.HALF_EVEN.value)


class Params(NamedTuple):
    """Parameters of consecutive vectors of channels.

    Parameters
    ----------
    bias : int64, shape (vectors, lanes)
        Added to the sums [product LSBs].
    mult : int64, shape (vectors, lanes)
        Unsigned multipliers.
    shift : int64, shape (vectors, lanes)
        Right shifts of the product, 0 to 63 [bits].
    """

    bias: NDArray[np.int64]
    mult: NDArray[np.int64]
    shift: NDArray[np.int64]


class Activations(NamedTuple):
    """Rows of requantised activations.

    Parameters
    ----------
    value : int64, shape (rows, lanes)
        In ``lo..hi`` of the job [output LSBs].
    overflow : bool, shape (rows, lanes)
        Overflow bit of the sum each comes from.
    """

    value: NDArray[np.int64]
    overflow: NDArray[np.bool_]


def postprocess(
    config: AcceleratorConfig, post: isa.Post, params: Params, acc: NDArray[np.int64], overflow: NDArray[np.bool_]
) -> Activations:
    """Requantise the rows of a job: ``clip(round_shift((acc + bias) * mult, shift) + zero_point, lo, hi)``, exact in integers.

    Row i uses vector i mod `vectors` of `params`.

    Parameters
    ----------
    config : AcceleratorConfig
        Formats `acc` and `act`, `mult_bits` and `param_rows`.
    post : isa.Post
    params : Params
        The job's parameter vectors, those from `base` on: shape (vectors, lanes).
    acc : int64, shape (rows, lanes)
        Sums [product LSBs].
    overflow : bool, shape (rows, lanes)
        Overflow bit of each sum; passes unchanged.

    Returns
    -------
    Activations

    Raises
    ------
    RangeError
        If a field of the job or an array breaks its rule. Inside, no intermediate reaches 2**63.
    """
    checks.integer("rows", post.rows, 1, (1 << isa.ROW_BITS) - 1)
    checks.integer("base", post.base, 0, config.param_rows - 1)
    checks.integer("vectors", post.vectors, 1, config.param_rows - post.base)
    checks.integer("hi", post.hi, config.act.lo, config.act.hi)
    checks.integer("lo", post.lo, config.act.lo, post.hi)
    checks.integer("zero_point", post.zero_point, config.act.lo, config.act.hi)
    if post.rounding not in ROUNDINGS:
        raise RangeError(f"rounding must be one of {', '.join(ROUNDINGS)}, not {post.rounding!r}")
    checks.integers("acc", acc, (post.rows, "lanes"), config.acc.lo, config.acc.hi)
    checks.flags("overflow", overflow, acc.shape)
    limits = (config.acc.lo, config.acc.hi), (0, (1 << config.mult_bits) - 1), (0, (1 << isa.SHIFT_BITS) - 1)
    for name, array, (lo, hi) in zip(Params._fields, params, limits, strict=True):
        checks.integers(name, array, (post.vectors, acc.shape[1]), lo, hi)
    value = np.empty_like(acc)
    _postprocess(acc, *params, Rounding(post.rounding).code, post.zero_point, post.lo, post.hi, value)
    return Activations(value, overflow)


@kernel
def _postprocess(acc, bias, mult, shift, rounding, zero_point, lo, hi, value):
    """Kernel: int64 throughout, no checks, so that JIT on and off agree; fills `value`."""
    for i in range(acc.shape[0]):
        vector = i % bias.shape[0]
        for lane in range(acc.shape[1]):
            parameters = bias[vector, lane], mult[vector, lane], shift[vector, lane]
            value[i, lane] = _requantise(acc[i, lane], *parameters, rounding, zero_point, lo, hi)
