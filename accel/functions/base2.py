"""The method `base2`: 2^-t = 2^-f shifted right by I, t = I + f; e^-x and the Gaussian by a constant, or a square and one, before it.

The mantissa 2^-f lies in (1/2, 1], so its top bit is 1; the rest is a piece, or the one's complement of f/2 plus a small correction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import ceil, e, frexp, log, log2

import numpy as np

from accel.config import FunctionConfig
from accel.functions.datapath import Builder
from accel.functions.frame import FALLING, Frame, Plan, frames
from accel.functions.pieces import Emit, Piece, Reals, Side, pieces, rom

SQUARE = 34  # bits of a square that are kept, at most: more than the exponent of the least error needs


def plans(config: FunctionConfig) -> Iterator[Plan]:
    """Yield what may keep the error; nothing for a function that is no power."""
    if config.function in FALLING:
        for frame in frames(config):
            room = config.error - 0.9 * 2.0 ** -(frame.frac + frame.centre)
            if room > 0:
                for exponent, guard in product(_exponents(frame, room), range(3)):
                    for piece in _pieces(frame, exponent, frame.frac + guard, room):
                        yield frame.plan(piece)


@dataclass(frozen=True, slots=True)
class Exponent:
    """How t comes from the operand m: floor(m * sum(digits) / 2^drop), or of m's square over 2^shed, with `frac` fraction bits.

    Parameters
    ----------
    square : bool
        m is squared first.
    shed : int
        Bits dropped behind the square.
    digits : tuple of int
        Signed powers of two.
    drop : int
        Bits dropped behind the product.
    frac : int
        Fraction bits of t.
    """

    square: bool
    shed: int
    digits: tuple[int, ...]
    drop: int
    frac: int

    def emit(self, build: Builder, m: int) -> int:
        """Write it behind the node of m."""
        base = build.multiply(m, m) if self.square else m
        base = build.bits(base, self.shed, max(1, build.nodes[base].bits - self.shed)) if self.shed else base
        total = build.scaled(base, self.digits[0].bit_length() - 1)
        for digit in self.digits[1:]:
            term = build.scaled(base, abs(digit).bit_length() - 1)
            total = build.add(total, term) if digit > 0 else build.subtract(total, term)
        if build.nodes[total].lo < 0:  # by its interval only
            total = build.bits(total, 0, build.nodes[total].hi.bit_length())
        return build.bits(total, self.drop, max(1, build.nodes[total].bits - self.drop))

    def luts(self, bits: int) -> float:
        """Estimate the look-up tables, of an operand of some bits."""
        return (bits**2 if self.square else 0) + (len(self.digits) - 1) * (1 + self.square) * (bits + 2)


def _exponents(frame: Frame, room: float) -> Iterator[Exponent]:
    """Yield exponents whose error leaves most of `room`."""
    config = frame.config
    square = config.function == "gaussian"
    factor = (config.scale * 2.0**-config.in_frac) ** (1 + square) * {"exp2": 1, "exp": log2(e), "gaussian": log2(e) / 2}[config.function]
    mantissa, power = frexp(factor)
    if mantissa == 0.5:  # t is the operand
        yield Exponent(square, 0, (1 << max(0, power - 1),), 0, max(0, 1 - power))
        return
    for share in (2, 5):
        digits: list[float] = []
        while abs(left := mantissa - sum(digits)) > mantissa * room * e / share:  # a ratio r of t makes an error of r / e at most
            digits.append(float(np.copysign(2.0 ** round(log2(abs(left))), left)))
        lowest = min(map(abs, digits))
        frac = max(1, ceil(log2(log(2) * share / room / 2)))
        shed = max(0, 2 * frame.reach - SQUARE) if square else 0
        scale = frac + power + shed + int(log2(lowest))  # of the lowest digit in t's LSBs, as a power of two
        numbers = tuple(int(digit / lowest) << max(0, scale) for digit in digits)
        yield Exponent(square, shed, numbers, max(0, -scale), frac)


def _pieces(frame: Frame, exponent: Exponent, mantissa: int, room: float) -> Iterator[Piece]:
    """Yield what may stand for the mantissa, of so many bits, and the shift behind it."""
    inputs = frame.config.luts
    bits = min(exponent.frac, frame.reach) if len(exponent.digits) == 1 else exponent.frac
    late = 0.5 if exponent.drop else 0.0

    def target(f: Reals) -> Reals:
        return np.asarray(np.exp2(mantissa - (f + late) / 2.0**exponent.frac) - 0.5)

    shared: dict[str, int | str] = {"mantissa": mantissa, "fraction": exponent.frac, "digits": len(exponent.digits)}
    around = exponent.luts(frame.reach) + frame.frac * 8 / inputs
    for address in range(2, min(bits, 9) + 1):
        make = partial(_corrected, frame, exponent, bits, mantissa, target, address)
        yield Piece({"piece": "corrected", "address": address, **shared}, around + (rom(address, inputs) + 1) * (mantissa - 4), make)
    top = 1 << mantissa - 1
    side = Side(lambda f: target(f) - top, bits, top - 1, True, room * 2**mantissa + 0.45)
    for piece in pieces(side, inputs):
        yield Piece(piece.parameters | shared, around + piece.estimate, partial(_shifted, frame, exponent, bits, mantissa, piece))


def _shifted(frame: Frame, exponent: Exponent, bits: int, mantissa: int, piece: Piece) -> Emit | None:
    """Put a piece between the exponent and the shift."""
    if (inner := piece.make()) is None:
        return None

    def emit(build: Builder, m: int) -> int:
        t = exponent.emit(build, m)
        low = build.join((inner(build, build.bits(t, 0, bits)), mantissa - 1), (build.constant(1), 1))
        return _shift(frame, exponent, build, t, low, mantissa)

    return emit


def _corrected(frame: Frame, exponent: Exponent, bits: int, mantissa: int, target: Callable[[Reals], Reals], address: int) -> Emit | None:
    """Add a table to f, without the carry out, and invert: 2^-f = 1 - f/2 - correction."""
    width, top = mantissa - 1, 1 << mantissa
    f = np.arange(1 << bits) if bits <= 14 else np.arange(1 << 14) << bits - 14
    taken = f >> exponent.frac - width if exponent.frac > width else f << width - exponent.frac
    wanted = (top - 1 - target(f.astype(np.float64)) - taken).reshape(1 << address, -1)
    values = np.maximum(np.rint((wanted.min(1) + wanted.max(1)) / 2), 0).astype(np.int64)
    sums = taken + np.repeat(values, wanted.shape[1])
    results = top - 1 - sums >> mantissa - frame.frac
    ideal = (target(f.astype(np.float64)) + 0.5) * 2.0 ** (frame.frac - mantissa) - 0.5 * frame.centre
    if not width or sums.max() >= top // 2 or np.abs(results - ideal).max() > frame.config.error * 2**frame.frac:
        return None

    def emit(build: Builder, m: int) -> int:
        t = exponent.emit(build, m)
        low = build.bits(t, 0, bits)
        base = build.bits(low, exponent.frac - width, width) if exponent.frac > width else build.scaled(low, width - exponent.frac)
        total = build.add(base, build.table(build.bits(low, bits - address, address), tuple(values.tolist())))
        total = build.bits(total, 0, width)
        used = build.nodes[total].bits
        inverted = build.complement(total, build.constant(1))
        ones = build.constant((1 << mantissa - used) - 1)
        return _shift(frame, exponent, build, t, build.join((inverted, used), (ones, mantissa - used)), mantissa)

    return emit


def _shift(frame: Frame, exponent: Exponent, build: Builder, t: int, value: int, mantissa: int) -> int:
    places = build.nodes[t].bits - exponent.frac
    if places > 0:
        value = build.shift(value, build.bits(t, exponent.frac, places))
    return build.bits(value, mantissa - frame.frac, frame.frac)
