"""Cycles of the radial-basis network.

A sample is accepted every `passes` cycles. From a sample to its result there is a register

- behind the sample, if neurons take turns; its last turn begins `passes` - 1 cycles after its first;
- with stages: those of a neuron, one behind the products, one behind each level of their sum, with the bias where all neurons are built;
- behind the sum of the turns, if neurons take turns;
- with stages: one behind the rounded sum, and `stages` in a sigmoid.

Without any register the result is emitted in the cycle of the sample. While a result waits nothing moves. A row of parameters is accepted
when no sample is inside, and no sample while a row is offered; without any register a sample counts as inside once its result waits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.config import RbfConfig
from accel.jit import kernel
from accel.timing.rbf_neuron import levels
from accel.timing.rbf_neuron import ranks as neuron_ranks


def ranks(config: RbfConfig) -> tuple[int, int]:
    """Count the registers that a turn passes before that of the sum over all turns, and those from there on [cycles]."""
    units = -(-config.neurons // config.passes)  # none without a neuron
    turns = config.passes > 1
    behind = config.stages if config.output == "sigmoid" else 0
    if not config.stages:
        return int(turns), int(turns)
    return turns + neuron_ranks(config) + 1 + levels(units if turns else units + 1), turns + 1 + behind


def interval(config: RbfConfig) -> int:
    """Least cycles from one sample's acceptance to the next one's [cycles].

    Parameters
    ----------
    config : RbfConfig

    Returns
    -------
    int
    """
    return config.passes


def latency(config: RbfConfig) -> int:
    """Cycles from a sample's acceptance to its result, both inclusive: the acceptance, the later turns, the registers [cycles].

    Parameters
    ----------
    config : RbfConfig

    Returns
    -------
    int
    """
    return config.passes + sum(ranks(config))


def rbf_network(config: RbfConfig, samples: int) -> int:
    """Count the cycles of samples in a row, with neighbours that never wait: their intervals, and the last one's latency beyond its own.

    Parameters
    ----------
    config : RbfConfig
    samples : int
        1 or more.

    Returns
    -------
    int
        From the first sample's acceptance to the last result, both inclusive [cycles].
    """
    return (samples - 1) * interval(config) + latency(config)


def rbf_network_trace(
    config: RbfConfig, params_valid: NDArray[np.bool_], i_valid: NDArray[np.bool_], o_ready: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Predict the handshakes of every cycle from those of the neighbours, starting empty.

    Parameters
    ----------
    config : RbfConfig
    params_valid, i_valid, o_ready : bool, shape (cycles,)
        What the neighbours drive.

    Returns
    -------
    params_ready, i_ready, o_valid : bool, shape (cycles,)
    """
    before, behind = ranks(config)
    params_ready, i_ready, o_valid = _trace(config.passes, before, behind, params_valid, i_valid, o_ready)
    return params_ready, i_ready, o_valid


@kernel
def _trace(passes, before, behind, params_valid, i_valid, o_ready):
    """Kernel: a turn is its number, counted from 1; 0 is none. Only the last turn of a sample passes the sum."""
    params_ready = np.zeros_like(i_valid)
    i_ready = np.zeros_like(i_valid)
    o_valid = np.zeros_like(i_valid)
    if before + behind == 0:
        waits = False  # a result has been shown and was not taken
        for t in range(i_valid.size):
            params_ready[t] = not waits
            i_ready[t] = o_ready[t] and (waits or not params_valid[t])
            o_valid[t] = i_valid[t] and (waits or not params_valid[t])
            waits = o_valid[t] and not o_ready[t]
        return params_ready, i_ready, o_valid
    turns = np.zeros(before + behind, np.int64)
    for t in range(i_valid.size):
        o_valid[t] = turns[-1] > 0
        params_ready[t] = not turns.any()
        advance = o_ready[t] or not o_valid[t]
        between = passes > 1 and 0 < turns[0] < passes  # the sample has further turns
        i_ready[t] = advance and not between and not params_valid[t]
        if advance:
            entering = turns[0] + 1 if between else int(i_ready[t] and i_valid[t])
            leaving = turns[before - 1]
            turns[1:] = turns[:-1].copy()
            turns[0] = entering
            turns[before] = leaving if leaving == passes else 0
    return params_ready, i_ready, o_valid
