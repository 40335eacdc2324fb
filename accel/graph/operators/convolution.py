"""Convolutions, forward and transposed, of images and of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from accel.errors import NetworkError
from accel.graph.builder import Draft, Value, image_order
from accel.graph.network import Operator, Tensor, TransposedConvolution
from accel.graph.operators.products import MERGES, Weights, bias, merged, product, weights, zero_point
from accel.graph.operators.registry import Attributed, Site, imports
from accel.graph.operators.windows import image, pads, pair, steps, window
from accel.graph.window import Window


@imports("Conv")
def _conv(site: Site) -> Value:
    x, axes = image(site, 0)
    own = weights(site, 1, axes=axes + 2, filters=0)
    return _convolution(site, x, own, bias(site, 2, len(own.integers)))


@imports("ConvInteger")
def _conv_integer(site: Site) -> Value:
    x, axes = image(site, 0, real=False)
    own = weights(site, 1, axes=axes + 2, filters=0, zero=zero_point(site, 3))
    return _convolution(site, x, own, np.zeros(()), zero_point(site, 2) - x.offset)


def _convolution(site: Site, x: Tensor, own: Weights, addend: Any, zero: int | None = None) -> Draft:
    height, width, channels = x.image
    filters, kernel = len(own.integers), own.integers.shape[2:]
    groups = groups_of(site, filters)
    if own.integers.shape[1] * groups != channels:
        raise NetworkError(f"weights of {site} must have {channels} / {groups} input channels, not {own.integers.shape[1]}")
    slides = window(site, kernel, (height, width))
    places = slides.positions(height, width)[: len(kernel)]
    own = own.arranged(np.moveaxis(own.integers, 1, -1).reshape(filters, *slides.kernel, channels // groups))
    order = image_order((filters, *places))
    return product(site, x, own, (1, filters, *places), window=slides, groups=groups, addend=addend, zero=zero, order=order)


def groups_of(site: Attributed, filters: int) -> int:
    """Count the groups of a convolution, of which each has as many filters."""
    groups = site.attribute("group", 1)
    if not isinstance(groups, int) or groups < 1 or filters % groups:
        raise NetworkError(f"group of {site} must divide its {filters} filters, not be {groups}")
    return groups


@imports("ConvTranspose")
def _conv_transpose(site: Site) -> Value:
    x, axes = image(site, 0)
    height, width, channels = x.image
    groups = groups_of(site, channels)
    own = _transposed_weights(site, axes, groups)
    filters, kernel = len(own.integers), own.integers.shape[1:-1]
    if own.integers.shape[-1] * groups != channels:
        raise NetworkError(f"weights of {site} must have {channels} input channels, not {own.integers.shape[-1] * groups}")
    slides, size = _spread(site, kernel, (height, width))
    own = own.arranged(own.integers.reshape(filters, *slides.kernel, channels // groups))

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        merges = merged(site, own, x.scale, draft, output, 0)
        return TransposedConvolution(
            window=slides,
            size=size,
            channels=channels,
            filters=filters,
            groups=groups,
            input_zero=x.zero_point,
            weights=merges.weights,
            bias=merges.bias,
            multiplier=merges.multiplier,
            **common,
        )

    places = size[:axes]
    order = image_order((filters, *places))
    return site.draft((x,), (1, filters, *places), build, order=order, takes=MERGES, addend=bias(site, 2, filters))


def _transposed_weights(site: Site, axes: int, groups: int) -> Weights:
    """Weights of shape (filters, *kernel, channels / groups), from ONNX's (channels, filters / groups, *kernel)."""
    own = weights(site, 1, axes=axes + 2, filters=1)
    share, channels, *kernel = own.integers.shape
    if channels % groups:
        raise NetworkError(f"group of {site} must divide its {channels} channels, not be {groups}")
    split = own.integers.reshape(share, groups, channels // groups, *kernel)
    laid = np.moveaxis(split, (1, 0), (0, 1)).reshape(groups * share, channels // groups, *kernel)
    return Weights(np.moveaxis(laid, 1, -1), np.tile(own.scale, groups), own.known)


def _spread(site: Site, kernel: tuple[int, ...], size: tuple[int, int]) -> tuple[Window, tuple[int, int]]:
    """Window and output size of a transposed convolution over an image of this size."""
    axes = len(kernel)
    if tuple(site.attribute("kernel_shape", kernel)) != kernel:
        raise NetworkError(
            f"kernel_shape of {site} must be that of its weights, {list(kernel)}, not {site.attribute('kernel_shape', kernel)}"
        )
    stride, dilation = steps(site, axes)
    more = pair(site.integers("output_padding", (0,) * axes, 0), 0)
    taps = pair(kernel)
    full = [(size[at] - 1) * stride[at] + more[at] + (taps[at] - 1) * dilation[at] + 1 for at in range(2)]
    mode = site.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    wanted = site.attribute("output_shape", None)
    if wanted is None and mode.startswith("SAME"):
        wanted = [size[at] * stride[at] for at in range(axes)]
    if wanted is None:
        top, left, bottom, right = pads(site, kernel, size)
    else:
        if len(wanted) == axes + 2:  # batch and channels may be listed too
            wanted = wanted[2:]
        if len(wanted) != axes or min(wanted) < 1:
            raise NetworkError(f"output_shape of {site} must be {axes} sizes of at least 1, not {list(wanted)}")
        size = pair(tuple(wanted), full[1])
        totals = [max(reached - extent, 0) for reached, extent in zip(full, size, strict=True)]  # what is not reached is bias alone
        less, rest = [total // 2 for total in totals], [total - total // 2 for total in totals]
        begin, end = (less, rest) if mode == "SAME_UPPER" else (rest, less)
        return Window(kernel=taps, stride=stride, dilation=dilation, pads=(*pair(tuple(begin)), *pair(tuple(end)))), size
    out = (full[0] - top - bottom, full[1] - left - right)
    if min(out) < 1:
        raise NetworkError(f"pads of {site} must leave an output, not {out}")
    return Window(kernel=taps, stride=stride, dilation=dilation, pads=(top, left, bottom, right)), out
