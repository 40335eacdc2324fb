"""From operators to jobs of the array and the vector unit: shapes, codes and requantisation, as data that model and RTL both replay.

Every operator becomes a :class:`Layer` of jobs. A :class:`Product` is a matrix product on the array, a :class:`Reduction` one job of the
vector unit; the results of both pass the post-processor with the job's :class:`Requantisation`. Lowering looks at weights, never at
activations; :func:`operands` turns activations into what a job consumes, row by row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel import quant, sparsity
from accel.config import AcceleratorConfig
from accel.errors import NetworkError
from accel.formats import FixedFormat
from accel.graph.network import Arithmetic, AveragePool, MatrixProduct, MaxPool, Network, Operator, Sum, Tensor, View, Window
from accel.isa import COEFFICIENT_BITS, Reduce
from accel.sparsity import Codes, Pattern


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requantisation:
    """How sums become outputs: ``clip(round((acc + bias) * mult / 2**shift) + zero_point, lo, hi)``, ties to even.

    Parameters
    ----------
    bias, mult, shift : int64, shape (channels,)
        Of each output channel of the job.
    zero_point, lo, hi : int
        Output integers.
    """

    bias: NDArray[np.int64]
    mult: NDArray[np.int64]
    shift: NDArray[np.int64]
    zero_point: int
    lo: int
    hi: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """One matrix product on the array: ``acc[i, j] = sum_s x[i, positions[j, s]] * values[j, s]``.

    Parameters
    ----------
    m, n : int
        Rows (output positions of the batch) and columns (output channels).
    taps, channels : int
        The reduction: ``k = taps * channels``.
    pattern : Pattern
    group : int
        Which channel group of the operator this is.
    codes : Codes or None
        Paired weights, shape (n, pairs). None: only shapes are known.
    post : Requantisation or None
    """

    m: int
    n: int
    taps: int
    channels: int
    pattern: Pattern
    group: int
    codes: Codes | None
    post: Requantisation | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reduction:
    """One job of the vector unit: ``acc = head * x[0] + tail * (x[1] + ...)`` or ``max(x)`` over the beats of a window.

    Parameters
    ----------
    m, n : int
        Rows (output positions of the batch) and channels.
    reduce : Reduce
    window : int
        Beats per row.
    head, tail : int
        Coefficients of the first beat and of the others.
    positions : int64, shape (positions,), or None
        Output positions of one sample that the job covers, ascending; None is all.
    post : Requantisation
    """

    m: int
    n: int
    reduce: Reduce
    window: int
    head: int = 1
    tail: int = 1
    positions: NDArray[np.int64] | None = None
    post: Requantisation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """An operator and its jobs, which run one after the other; a view has none.

    Parameters
    ----------
    operator : Operator
    inputs : tuple of Tensor
    output : Tensor
    jobs : tuple of Product or Reduction
    """

    operator: Operator
    inputs: tuple[Tensor, ...]
    output: Tensor
    jobs: tuple[Product | Reduction, ...]


def lower(network: Network, config: AcceleratorConfig, *, batch: int = 1, pattern: Pattern | None = None) -> tuple[Layer, ...]:
    """Lower a network, layer by layer in execution order.

    Parameters
    ----------
    network : Network
    config : AcceleratorConfig
    batch : int
        Samples that each layer takes at once: they multiply the rows of its jobs.
    pattern : Pattern, optional
        Runs the :func:`eligible` products at this pattern, pruned to it, and all others dense. Without it each product runs at the sparsest
        pattern its weights obey.

    Raises
    ------
    NetworkError
        If a layer does not fit the config. The message names the layer.
    """
    chosen = eligible(network)
    layers = []
    for operator in network.operators:
        if isinstance(operator, MatrixProduct) and pattern is not None:
            run = pattern if operator.name in chosen else dense(config)
            operator = prune(operator, run)
        else:
            run = None
        inputs = tuple(network.tensors[name] for name in operator.inputs)
        output = network.tensors[operator.output]
        for tensor in (*inputs, output):
            _fits(config.act, FixedFormat(tensor.bits), f"act_bits must hold {tensor.name} of {operator.name}")
        layers.append(Layer(operator=operator, inputs=inputs, output=output, jobs=_jobs(operator, inputs, output, config, batch)))
    return tuple(layers)
