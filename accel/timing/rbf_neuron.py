"""Cycles of the radial-basis neuron.

A sample is accepted every cycle. Without stages its activation is emitted in the same cycle; with stages there is a register behind the
difference, the square, each level of the sum, the distance and the exponent, and `stages` are in the Gaussian. While an activation waits
behind the last register nothing moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import RbfConfig
from accel.timing.function import function_trace


def levels(values: int) -> int:
    """Count the levels of a tree that adds so many values, two at a time."""
    return (values - 1).bit_length()


def ranks(config: RbfConfig) -> int:
    """Count the registers between a sample and its activation [cycles]."""
    return 4 + levels(config.dims) + config.stages if config.stages else 0


def interval(config: RbfConfig) -> int:
    """Least cycles from one sample's acceptance to the next one's [cycles].

    Parameters
    ----------
    config : RbfConfig
        Has no influence.

    Returns
    -------
    int
    """
    return 1


def latency(config: RbfConfig) -> int:
    """Cycles from a sample's acceptance to its activation, both inclusive [cycles].

    Parameters
    ----------
    config : RbfConfig

    Returns
    -------
    int
    """
    return 1 + ranks(config)


def rbf_neuron(config: RbfConfig, samples: int) -> int:
    """Count the cycles of samples in a row, with neighbours that never wait: their intervals, and the last one's latency beyond its own.

    Parameters
    ----------
    config : RbfConfig
    samples : int
        1 or more.

    Returns
    -------
    int
        From the first sample's acceptance to the last activation, both inclusive [cycles].
    """
    return (samples - 1) * interval(config) + latency(config)


def rbf_neuron_trace(
    config: RbfConfig, i_valid: NDArray[np.bool_], o_ready: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting empty.

    Parameters
    ----------
    config : RbfConfig
    i_valid, o_ready : bool, shape (cycles,)
        What the neighbours drive.

    Returns
    -------
    i_ready, o_valid : bool, shape (cycles,)
    """
    return function_trace(ranks(config), i_valid, o_ready)
