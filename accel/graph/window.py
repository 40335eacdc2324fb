"""Images, and windows that slide over them: those of convolutions and poolings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

Image = tuple[int, int, int]
"""Height, width and channels."""


def image(shape: Sequence[int]) -> Image:
    """See a stored shape as (height, width, channels): missing axes are 1, axes in front of three are rows too."""
    height, width = (prod(shape[:-2]), shape[-2]) if len(shape) > 3 else (*shape[:-1], 1, 1)[:2]
    return height, width, shape[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window that slides over (height, width).

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        Of height and width, each 1 or more.
    pads : tuple of int
        Rows and columns added at (top, left, bottom, right), each 0 or more.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def taps(self) -> int:
        """Positions inside the window."""
        return prod(self.kernel)

    def positions(self, height: int, width: int) -> tuple[int, int]:
        """Places of the window on an input of this size, per axis: ``floor((size + pads - dilation*(kernel-1) - 1) / stride) + 1``."""
        top, left, bottom, right = self.pads
        spans = (height + top + bottom, width + left + right)
        each = zip(spans, self.kernel, self.stride, self.dilation, strict=True)
        rows, columns = ((span - dilation * (kernel - 1) - 1) // stride + 1 for span, kernel, stride, dilation in each)
        return rows, columns
