"""`accel run`: the main job."""

from __future__ import annotations

from typing import Any


def add(commands: Any) -> None:
    """Add the subcommand."""
