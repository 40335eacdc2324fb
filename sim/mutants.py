"""Faults planted in the RTL's source, each of which the bench of its block must find."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A replacement in one source file.

    Parameters
    ----------
    name : str
        What is wrong, in a word or two joined by hyphens.
    file : str
        Path below the package, such as ``rtl/fifo.py``.
    old, new : str
        Text that occurs once in the file, and what stands there instead.
    """

    name: str
    file: str
    old: str
    new: str


MUTANTS: dict[str, tuple[Mutant, ...]] = {
    "accumulator": (
        Mutant("room-miscounted", "rtl/fifo.py", "self.i.ready.eq(self.level != self.depth)", "self.i.ready.eq(self.level != self.depth - 1)"),
        Mutant("write-not-seen", "rtl/fifo.py", "transparent_for=(write,)", "transparent_for=()"),
        Mutant("wrap-late", "rtl/fifo.py", "address == self.depth - 1", "address == self.depth"),
        Mutant("kept-row-passes", "rtl/accumulator.py", "self.o.valid.eq(self.i.valid), ", "self.o.valid.eq(1), "),
        Mutant("stall-ignored", "rtl/accumulator.py", "self.i.ready.eq(self.o.ready)", "self.i.ready.eq(1)"),
        Mutant("overflow-dropped", "rtl/accumulator.py", "payload.overflow.eq(self.i.payload.overflow)", "payload.overflow.eq(0)"),
        Mutant("read-without-ready", "rtl/fifo.py", "leave = self.o.valid & self.o.ready", "leave = self.o.valid"),
    ),
}
