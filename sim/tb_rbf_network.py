"""Bench of :class:`accel.rtl.rbf_network.RbfNetwork`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from accel.config import RbfConfig
from accel.golden.rbf_network import rbf_network
from accel.rtl import shapes
from accel.sim.bench import Case, Following, Waits
from accel.sim.pack import pack
from accel.sim.tb_rbf_neuron import SPAN, centres, magnitudes, near, read_case, write_cases
from accel.timing.rbf_network import rbf_network as cycles
from accel.timing.rbf_network import rbf_network_trace


class Rows(NamedTuple):
    """Rows of parameters.

    Parameters
    ----------
    address : int64, shape (rows,)
    centre : int64, shape (rows, dims)
    width : int64, shape (rows,)
    weight : int64, shape (rows, outputs)
    """

    address: NDArray[np.int64]
    centre: NDArray[np.int64]
    width: NDArray[np.int64]
    weight: NDArray[np.int64]

    def packed(self, config: RbfConfig) -> list[int]:
        """Encode the rows."""
        return pack(shapes.neuron_row(config), **self._asdict())


class Results(Following):
    """Results of samples, each with the parameters that were loaded when it was accepted.

    Parameters
    ----------
    config : RbfConfig
    loaded : Rows
        Of every address, in order: the setup.
    later : Rows
        Offered beside the samples.
    x : int64, shape (n, dims)
        Samples.
    """

    def __init__(self, config: RbfConfig, loaded: Rows, later: Rows, x: NDArray[np.int64]):
        self.config, self.loaded, self.later, self.x = config, loaded, later, x
        self.restart()

    def restart(self) -> None:
        """Load the setup; no sample has been accepted."""
        self.now = Rows(*(array.copy() for array in self.loaded))
        self.words: list[int] = []  # of all samples, with the parameters that are loaded now; of accepted ones they stay
        self.taken = 0
        self.stale = True

    def accepted(self, port: str, position: int) -> None:
        """Load a row, or fix a sample's result."""
        if port == "params":
            for array, new in zip(self.now, self.later, strict=True):
                array[self.later.address[position]] = new[position]
            self.stale = True
        else:
            self._run()
            self.taken += 1

    def _run(self) -> None:
        if self.stale:
            _, centre, width, weight = self.now
            results = rbf_network(self.config, centre[:-1], width[:-1], weight[:-1].T, weight[-1], self.x[self.taken :])
            self.words[self.taken :] = pack(shapes.results(self.config), results)
            self.stale = False

    def __len__(self) -> int:
        return len(self.x)

    @overload
    def __getitem__(self, position: int) -> int: ...
    @overload
    def __getitem__(self, position: slice) -> list[int]: ...
    def __getitem__(self, position: Any) -> Any:
        self._run()
        return self.words[position]


def random_rows(config: RbfConfig, rng: np.random.Generator, address: NDArray[np.int64]) -> Rows:
    """Draw parameters of any magnitude; of weights the last bits are often zero, so that sums often lie at a tie."""
    n = len(address)
    weight = magnitudes(rng, config.weight, (n, config.outputs))
    low = rng.integers(0, config.weight_bits, (n, 1)) * rng.integers(0, 2, (n, 1))
    return Rows(address, centres(config, rng, n), magnitudes(rng, config.width, (n,)), weight >> low << low)


def samples(config: RbfConfig, rng: np.random.Generator, n: int, among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw samples at any distance from some of these centres."""
    return near(config, rng, among[rng.integers(0, len(among), n)])


def random_case(config: RbfConfig, rng: np.random.Generator) -> Case:
    """Draw parameters and samples near its centres; in half of the cases rows are loaded while samples run."""
    loaded = random_rows(config, rng, np.arange(config.neurons + 1))
    count = int(rng.integers(1, 30)) * int(rng.integers(2))
    later = random_rows(config, rng, rng.integers(0, config.neurons, count, endpoint=True))
    x = samples(config, rng, int(rng.integers(1, 60)), np.concatenate([loaded.centre, later.centre]))
    return _case(config, loaded, later, x)


def write_program(config: RbfConfig, program: Path, vectors: int, seed: int = 0) -> int:
    """Write a program of so many random samples or a few more, SPAN for each set of random parameters; return its number of cases."""
    rng = np.random.default_rng(seed)
    rows = [random_rows(config, rng, np.arange(config.neurons + 1)) for _ in range(0, vectors, SPAN)]
    return write_cases(program, [one._asdict() | {"x": samples(config, rng, SPAN, one.centre)} for one in rows])


def program_case(config: RbfConfig, program: Path, index: int) -> Case:
    """Run samples x with the parameters of :class:`Rows`: `program` is an archive of them, one set along the first axis for each case."""
    arrays = read_case(program, index)
    x = arrays.pop("x")
    loaded = Rows(**arrays)
    return _case(config, loaded, Rows(*(array[:0] for array in loaded)), x)


def _case(config: RbfConfig, loaded: Rows, later: Rows, x: NDArray[np.int64]) -> Case:
    def predict(driven: Waits) -> Waits:
        ports = "params", "i", "o"
        return dict(zip(ports, rbf_network_trace(config, *(driven[port] for port in ports)), strict=True))

    rows = len(later.address)
    return Case(
        label=f"{len(x)} samples, {rows} rows",
        setup={"params": loaded.packed(config)},
        inputs={"params": later.packed(config), "i": pack(shapes.sample(config), x)},
        outputs={"o": Results(config, loaded, later, x)},
        predict=predict,
        cycles=None if rows else cycles(config, len(x)),
    )
