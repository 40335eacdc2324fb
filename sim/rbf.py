"""A trained radial-basis network in the RTL: the rows that it is loaded with, and samples through it beside the model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accel.rbf import RbfModel
from accel.rtl import shapes
from accel.sim.harness import CosimResult, check_tools, cosim
from accel.sim.pack import leaves, pack
from accel.sim.tb_rbf_neuron import write_cases


def cosim_model(
    model: RbfModel, samples: NDArray[np.int64], *, simulator: str = "verilator", waves: bool = False, out: Path | None = None
) -> CosimResult:
    """Run samples through the Verilog of a network that is loaded with a model, and compare every bit and every cycle.

    Parameters
    ----------
    model : RbfModel
    samples : int64, shape (n, D)
        As :meth:`RbfModel.quantise` returns them.
    simulator, waves, out
        See :func:`accel.sim.harness.cosim`.

    Returns
    -------
    CosimResult

    Raises
    ------
    MismatchError
        At the first difference.
    """
    check_tools(simulator)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "program.npz")
        write_cases(file, [parameter_rows(model) | {"x": samples}])
        return cosim("rbf_network", model.config, simulator, cases=1, waves=waves, out=out, program=file)


def parameter_rows(model: RbfModel) -> dict[str, NDArray[np.int64]]:
    """Return the fields of what the port `params` of the network is to be given, in order: a row per neuron, then the biases."""
    centres, widths, weights, biases = model.integers
    return {
        "address": np.arange(len(widths) + 1),
        "centre": np.concatenate([centres, np.zeros_like(centres[:1])]),
        "width": np.append(widths, 0),
        "weight": np.concatenate([weights.T, biases[None]]),
    }


def memory_file(model: RbfModel) -> str:
    """Return the rows as text for ``$readmemh``: a word per line, its fields in comments above."""
    layout = shapes.neuron_row(model.config)
    places = [
        f"// {leaf.name}{''.join(f'[0..{length - 1}]' for length in leaf.shape)}: {'signed' if leaf.signed else 'unsigned'}, "
        f"{leaf.bits.shape[-1]} bits each, from bit {leaf.bits.min()}"
        for leaf in leaves(layout)
    ]
    digits = -(-layout.size // 4)
    head = [f"// parameters of {model.config.name!r}: {len(model.integers.widths)} neurons, then the biases; words of {layout.size} bits"]
    return "\n".join([*head, *places, *(f"{word:0{digits}x}" for word in pack(layout, **parameter_rows(model)))]) + "\n"
