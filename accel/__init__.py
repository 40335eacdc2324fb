"""Bit- and cycle-accurate simulator of N:M-sparse systolic accelerators, with the RTL that proves it."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accel.config import AcceleratorConfig
    from accel.engine import simulate
    from accel.errors import AccelError
    from accel.graph import Network, load
    from accel.result import Result
    from accel.schedule.plan import Schedule
    from accel.training.loop import train

__all__ = ["AccelError", "AcceleratorConfig", "Network", "Result", "Schedule", "load", "simulate", "train"]
__version__ = metadata.version("accel")

_HOMES = {
    "AccelError": "accel.errors",
    "AcceleratorConfig": "accel.config",
    "Network": "accel.graph",
    "Result": "accel.result",
    "Schedule": "accel.schedule.plan",
    "load": "accel.graph",
    "simulate": "accel.engine",
    "train": "accel.training.loop",
}


def __dir__() -> list[str]:
    """Name what can be used, imported yet or not."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `accel --version` need not load numba."""
    if name not in _HOMES:
        raise AttributeError(f"module 'accel' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
