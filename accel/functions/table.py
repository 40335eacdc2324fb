"""The method `table`: one side of the function by a table, alone, with slopes, or with a second table."""

from __future__ import annotations

from collections.abc import Iterator

from accel.config import FunctionConfig
from accel.functions.frame import Plan, frames
from accel.functions.pieces import pieces


def plans(config: FunctionConfig) -> Iterator[Plan]:
    """Yield what may keep the error."""
    for frame in frames(config):
        side = frame.side
        for piece in pieces(side, config.luts):
            yield frame.plan(piece)
