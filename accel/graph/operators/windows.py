"""Images and the windows that slide over them: what convolutions and poolings have in common."""

from __future__ import annotations

from accel.errors import NetworkError
from accel.graph.builder import image_order, sample
from accel.graph.network import Tensor
from accel.graph.operators.registry import Attributed, OnHost, Site
from accel.graph.window import Window


def image(site: Site, index: int, *, real: bool = True) -> tuple[Tensor, int]:
    """Input as an image stored channels last, and how many axes it extends along: a sequence runs along the height.

    Raises
    ------
    OnHost
        If it has more than two such axes, or several samples within one.
    """
    value = site.activation(index) if real else site.integer(index)
    if value is None:
        raise OnHost
    if len(value.shape) < 3:
        raise NetworkError(f"input {index} of {site} must have 3 axes or more, batch, channels and extents, not {len(value.shape)}")
    if len(value.shape) > 4 or value.shape[0] != 1:
        raise OnHost
    return site.builder.settle(value, image_order(sample(value.shape))), len(value.shape) - 2


def pair(values: tuple[int, ...], fill: int = 1) -> tuple[int, int]:
    """Numbers of each extent as those of height and width."""
    return (values[0], values[1]) if len(values) == 2 else (values[0], fill)


def steps(site: Attributed, axes: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Strides and dilations."""
    return pair(site.integers("strides", (1,) * axes, 1)), pair(site.integers("dilations", (1,) * axes, 1))


def window(site: Attributed, kernel: tuple[int, ...], size: tuple[int, int]) -> Window:
    """Window with a kernel of one or two axes over an image of this size (height, width)."""
    if tuple(site.attribute("kernel_shape", kernel)) != kernel:
        raise NetworkError(
            f"kernel_shape of {site} must be that of its weights, {list(kernel)}, not {site.attribute('kernel_shape', kernel)}"
        )
    stride, dilation = steps(site, len(kernel))
    return Window(kernel=pair(kernel), stride=stride, dilation=dilation, pads=pads(site, kernel, size))


def pads(site: Attributed, kernel: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Find the padding (top, left, bottom, right), from pads or auto_pad."""
    mode, axes = site.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), len(kernel)
    if mode == "NOTSET":
        given = site.integers("pads", (0,) * (2 * axes), 0)
        return (*pair(given[:axes], 0), *pair(given[axes:], 0))
    if mode == "VALID":
        return 0, 0, 0, 0
    totals = [
        max((-(-extent // stride) - 1) * stride + dilation * (taps - 1) + 1 - extent, 0)
        for extent, taps, stride, dilation in zip(size, pair(kernel), *steps(site, axes), strict=True)
    ]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    begin, end = (less, more) if mode == "SAME_UPPER" else (more, less)
    return begin[0], begin[1], end[0], end[1]
