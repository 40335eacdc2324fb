"""Fixed-point formats and the rules by which numbers are rounded and kept in range."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from accel.errors import RangeError


class _Coded(Enum):
    """Rule whose members are counted in the order of their definition."""

    @property
    def code(self) -> int:
        """Count that stands for the member in kernels and instructions."""
        return list(type(self)).index(self)


class Rounding(_Coded):
    """How the bits below the kept least significant bit are dropped."""

    FLOOR = "floor"
    """The largest integer not above the exact value."""
    HALF_UP = "half_up"
    """floor(x + 1/2), for negative values too: ties go towards plus infinity."""
    HALF_EVEN = "half_even"
    """The nearest integer; ties go to the even one."""
    STOCHASTIC = "stochastic"
    """floor(x + word / 2**32), word one word of the LFSR: x rounds up with a chance of its fraction, to 32 bits."""


class Overflow(_Coded):
    """How a value outside its format is brought back into it."""

    SATURATE = "saturate"
    """The nearest bound of the format."""
    WRAP = "wrap"
    """The value modulo 2**bits, read in the format (two's complement if signed)."""


@dataclass(frozen=True, slots=True)
class FixedFormat:
    """Fixed-point number format: value = integer * 2**-frac.

    Parameters
    ----------
    bits : int
        Width of the integer [bits], 2 to 32 for tensors, up to 62 for accumulators.
    frac : int
        Fraction bits; may be negative or exceed `bits`.
    signed : bool
        Two's complement if true.

    Raises
    ------
    RangeError
        If a field breaks its rule.
    """

    bits: int
    frac: int = 0
    signed: bool = True

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 62:
            raise RangeError(f"bits must be an int in [2, 62], not {self.bits!r}")
        if type(self.frac) is not int:
            raise RangeError(f"frac must be an int, not {self.frac!r}")
        if type(self.signed) is not bool:
            raise RangeError(f"signed must be a bool, not {self.signed!r}")

    @property
    def lo(self) -> int:
        """Least integer of the format."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        """Greatest integer of the format."""
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1

    def __str__(self) -> str:
        return f"{'s' if self.signed else 'u'}{self.bits}" + (f".{self.frac}" if self.frac else "")
