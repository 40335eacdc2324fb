"""What surrounds every method: symmetry folded away before, range and result format after.

A method approximates one side of the function, on an unsigned operand, as an unsigned integer; a frame says which and puts it in place.
The tricks are free or nearly so: a negative operand is inverted instead of negated, so that the side is met half an operand LSB late; and
a result whose last bits are the constant 1 0 0 ... lies in the middle between two integers of the method, which halves its rounding error
and makes inverting it negate it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log2

import numpy as np

from accel.config import FunctionConfig
from accel.functions.datapath import Builder, Datapath
from accel.functions.evaluate import evaluate
from accel.functions.pieces import Piece, Reals, Side
from accel.functions.truth import truth

FALLING = ("exp2", "exp", "gaussian")
FINER = 3  # bits of a method's integer beyond the fewest that can keep the error, at most: our choice


@dataclass(frozen=True, slots=True)
class Plan:
    """A datapath that may keep the error.

    Parameters
    ----------
    parameters : dict of str to int or str
        What the method chose.
    estimate : float
        Look-up tables, before any number is known.
    build : callable
        Makes the datapath, or None where it is seen not to keep the error.
    counted : float, optional
        Look-up tables, where they have been counted.
    """

    parameters: dict[str, int | str]
    estimate: float
    build: Callable[[], Datapath | None]
    counted: float | None = None


@dataclass(frozen=True)
class Frame:
    """One side of a function and the steps around it.

    Parameters
    ----------
    config : FunctionConfig
    frac : int
        Fraction bits of the method's integer, 1 to `out_frac`.
    centre : bool
        A half is added to the method's integer: the next lower bit of the result is 1.
    negate : bool
        A negative operand is negated instead of inverted.
    reach : int
        The method sees operands below 2^reach; beyond, the result is constant.
    """

    config: FunctionConfig
    frac: int
    centre: bool
    negate: bool
    reach: int

    @cached_property
    def falling(self) -> bool:
        """Whether the side falls from 1 to 0; otherwise it rises from 0."""
        return self.config.function in FALLING

    @cached_property
    def whole(self) -> int:
        """Width of the side's operand [bits]."""
        return self.config.in_bits - self.config.operand.signed

    @cached_property
    def limit(self) -> int:
        """Largest integer of the method."""
        if self.config.function == "sigmoid":  # what lies above one half
            return (1 << self.frac - 1) - self.centre
        return min((1 << self.frac) - self.centre, self.config.result.hi >> self.config.out_frac - self.frac)

    @cached_property
    def side(self) -> Side:
        """What a method is to approximate."""
        return Side(self.target, self.reach, self.limit, self.falling, self.config.error * 2.0**self.frac)

    @property
    def parameters(self) -> dict[str, int | str]:
        """What distinguishes the frames of a configuration."""
        return {"frac": self.frac, "centre": self.centre, "negate": self.negate, "reach": self.reach}

    def target(self, m: Reals) -> Reals:
        """Return what the method approximates, in its LSBs, at real operands."""
        late = 0.5 if self.config.operand.signed and not self.negate else 0.0
        value = truth(self.config, m + late) - (0.5 if self.config.function == "sigmoid" else 0)
        return np.minimum(value * 2.0**self.frac - 0.5 * self.centre, self.limit)

    def plan(self, piece: Piece) -> Plan:
        """Put a piece in place."""

        def build() -> Datapath | None:
            if (emit := piece.make()) is None:
                return None
            build, m = self.open()
            return self.close(build, emit(build, m))

        return Plan(self.parameters | piece.parameters, piece.estimate + self._around, build)

    @cached_property
    def _around(self) -> float:
        """Estimate the look-up tables of the steps around a piece."""
        folded = 0.7 * (self.whole + (self.frac if self.config.function != "gaussian" else 0)) * (self.whole < self.config.in_bits)
        return folded + (0.25 * self.whole if self.reach < self.whole else 0)

    def open(self) -> tuple[Builder, int]:
        """Begin a datapath; return it with the operand of the method."""
        config, build = self.config, Builder()
        x = build.input(config.in_bits, config.operand.signed)
        m = build.bits(self._side(build, x), 0, self.reach)
        return build, build.border(m) if config.operand.signed else m

    def close(self, build: Builder, value: int) -> Datapath:
        """End a datapath whose method's integer is `value`."""
        config, x = self.config, 0
        side = self._side(build, x)
        if build.nodes[side].hi >> self.reach:
            last = evaluate(build.done(value), np.array([(1 << self.reach) - 1]))[0].item()
            beyond = self._rounded(self.target(np.array([2.0**self.reach, 2.0**self.whole])).mean())
            beyond = min(beyond, last) if self.falling else max(beyond, last)
            value = build.select(build.below(side, 1 << self.reach), value, build.constant(beyond))
        if config.odd or config.function == "sigmoid":
            value = self._mirrored(build, value, build.bits(x, config.in_bits - 1, 1))
        pad = config.out_frac - self.frac
        value = build.scaled(value, pad)
        if self.centre and pad:
            value = build.add(value, build.constant(1 << pad - 1))
        lo, hi = config.result.lo, config.result.hi
        if build.nodes[value].hi > hi:
            value = build.select(build.below(value, hi + 1), value, build.constant(hi))
        if build.nodes[value].lo < lo:
            value = build.select(build.below(value, lo), build.constant(lo), value)
        return build.done(value)

    def _rounded(self, value: float) -> int:
        return int(min(max(np.rint(value), 0), self.limit))

    def _side(self, build: Builder, x: int) -> int:
        """Fold the operand."""
        if not self.config.operand.signed:
            return x
        negative = build.bits(x, self.config.in_bits - 1, 1)
        if self.negate:
            return build.select(negative, build.subtract(build.constant(0), x), x)
        return build.complement(build.bits(x, 0, self.whole), negative)

    def _mirrored(self, build: Builder, value: int, negative: int) -> int:
        """Unfold the result: odd, and for the sigmoid one half more."""
        half = 1 << self.frac - 1
        if not self.centre:
            middle = build.constant(half if self.config.function == "sigmoid" else 0)
            return build.select(negative, build.subtract(middle, value), build.add(middle, value))
        width = build.nodes[value].bits
        inverted = build.complement(value, negative)
        if self.config.odd:
            return build.subtract(inverted, build.scaled(negative, width))
        above = build.complement(negative, build.constant(1))
        return build.join((inverted, width), *[(negative, 1)] * (self.frac - 1 - width), (above, 1))


def frames(config: FunctionConfig) -> Iterator[Frame]:
    """Yield the frames of a configuration whose own error leaves something to a method."""
    least = max(1, ceil(-log2(config.error)) - 1)
    for frac in range(min(least, config.out_frac), min(config.out_frac, least + FINER) + 1):
        for centre in (True, False):
            for negate in (False, True) if config.operand.signed else (False,):
                frame = Frame(config, frac, centre, negate, 1)
                reach = next(
                    (
                        bits
                        for bits in range(1, frame.whole)
                        if abs(np.diff(frame.target(np.array([2.0**bits, 2.0**frame.whole])))[0]) / 2**frac / 2 <= config.error
                    ),
                    frame.whole,
                )
                yield Frame(config, frac, centre, negate, reach)
