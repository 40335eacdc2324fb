"""What is trained how: algorithm, pattern and the numbers of the optimiser."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from accel.errors import RangeError
from accel.sparsity import Pattern

ALGORITHMS = ("bdwp", "sr-ste", "sdgp", "dense")
"""
- ``bdwp``: FF with weights pruned along input channels, BP with weights pruned along output channels, WU dense (C. Fang et al., IEEE TCAD
  2024, abstract: bidirectional weight pruning). The decay of pruned weights is 0 unless asked for: whether the paper has one is not known.
- ``sr-ste``: FF and BP with weights pruned along input channels, WU dense, pruned weights decay by `sparse_decay` more (A. Zhou et al.,
  ICLR 2021).
- ``sdgp``: FF and WU dense, BP with the output gradient pruned along output channels, its L1 norm kept for each sample and channel.
- ``dense``.
"""
IDLE = {"dense": ("pattern", "dense", "sparse_decay", "refresh"), "sdgp": ("sparse_decay", "refresh")}
"""Settings that an algorithm has no use for: without pruning, and without pruned weights."""
ROUNDINGS = ("half_even", "stochastic")
SPARSE_DECAY = 2e-4  # of SR-STE, as coded by its authors (A. Zhou et al., ICLR 2021)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    algorithm : str
        One of :data:`ALGORITHMS`.
    pattern : Pattern
        N:M of what the algorithm prunes.
    dense : tuple of str or None
        Layers that are never pruned; None: the first convolution and the last linear layer, our choice.
    batch : int
        Samples of a step, 1 or more; the last ones of an epoch that do not fill a batch are left out of it.
    rate : float
        Learning rate at the start, above 0.
    schedule : str
        ``"cosine"``: down to 0 over all epochs, step by step; ``"constant"``.
    momentum : float
        In [0, 1).
    decay : float
        Of the weights of convolutions and linear layers, 0 or more; biases and normalisations have none.
    sparse_decay : float or None
        Further decay of weights that are pruned in FF; None is SPARSE_DECAY for ``sr-ste`` and 0 for the others.
    refresh : int
        Steps from one choice of the kept weights to the next, 1 or more.
    rounding : str
        Of the working copy of the weights: one of :data:`ROUNDINGS`.
    seed : int
        Of weights that are drawn, the order of samples and stochastic rounding, 0 or more.

    Raises
    ------
    RangeError
        If a field breaks its rule.
    """

    algorithm: str = "bdwp"
    pattern: Pattern = dataclasses.field(default_factory=lambda: Pattern(2, 8))
    dense: tuple[str, ...] | None = None
    batch: int = 32
    rate: float = 0.05
    schedule: str = "cosine"
    momentum: float = 0.9
    decay: float = 5e-4
    sparse_decay: float | None = None
    refresh: int = 1
    rounding: str = "half_even"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("algorithm", ALGORITHMS), ("schedule", ("cosine", "constant")), ("rounding", ROUNDINGS)):
            if getattr(self, name) not in allowed:
                raise RangeError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        for name, least in (("batch", 1), ("refresh", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < 1 << 31:
                raise RangeError(f"{name} must be an int in [{least}, {(1 << 31) - 1}], not {value!r}")
        if not isinstance(self.pattern, Pattern):
            raise RangeError(f"pattern must be a Pattern, not {self.pattern!r}")
        self._number("rate", 2.0**-20, 16.0)
        self._number("momentum", 0.0, 1 - 2.0**-16)
        self._number("decay", 0.0, 1.0)
        if self.sparse_decay is not None:
            self._number("sparse_decay", 0.0, 1.0)

    def _number(self, name: str, lo: float, hi: float) -> None:
        value: Any = getattr(self, name)
        if type(value) not in (int, float) or not lo <= value <= hi:
            raise RangeError(f"{name} must be a number in [{lo:g}, {hi:g}], not {value!r}")

    @property
    def pruned_decay(self) -> float:
        """Decay of weights that FF does without, beside `decay`."""
        if self.sparse_decay is not None:
            return self.sparse_decay
        return SPARSE_DECAY if self.algorithm == "sr-ste" else 0.0
