"""Golden model of the compute core. RTL twin: :class:`accel.rtl.core.Core`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel import isa
from accel.config import AcceleratorConfig
from accel.golden.postprocess import Activations, Params, postprocess
from accel.golden.stce import stce
from accel.golden.vector import vector


class Product(NamedTuple):
    """Operands of a matrix product on the array.

    Parameters
    ----------
    x : int64, shape (m, k)
        Activations.
    values, positions : int64, shape (n, pairs)
        Pairs of each output channel.
    """

    x: NDArray[np.int64]
    values: NDArray[np.int64]
    positions: NDArray[np.int64]


class Reduction(NamedTuple):
    """Operands of a job of the vector unit.

    Parameters
    ----------
    job : isa.Vector
    x : int64, shape (rows * window, n)
        Beats.
    """

    job: isa.Vector
    x: NDArray[np.int64]


def core(config: AcceleratorConfig, operands: Product | Reduction, post: isa.Post, params: Params) -> Activations:
    """Compute a matrix product or a reduction and requantise it: ``postprocess(stce(...))`` or ``postprocess(vector(...))``.

    Parameters
    ----------
    config : AcceleratorConfig
    operands : Product or Reduction
    post : isa.Post
        Covers every row of the result.
    params : Params
        See :func:`accel.golden.postprocess.postprocess`; one vector of n channels.

    Returns
    -------
    Activations
        Shape (m, n) or (rows, n).

    Raises
    ------
    RangeError
        If an operand breaks a rule of the blocks.
    """
    acc, overflow = stce(config, *operands) if isinstance(operands, Product) else vector(config, *operands)
    return postprocess(config, post, params, acc, overflow)
