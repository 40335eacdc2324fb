"""Poolings: the largest element or the mean of each window, or of the whole image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from accel.errors import NetworkError
from accel.graph.builder import Activation, Draft, Form, Quantiser, Value, image_order
from accel.graph.network import AveragePool, MaxPool, Operator, Tensor
from accel.graph.operators.registry import Attributed, Site, imports
from accel.graph.operators.windows import image, pads, window
from accel.graph.window import Window


@imports("MaxPool")
def _max_pool(site: Site) -> Value:
    if site.attribute("storage_order", 0) not in (0, 1):
        raise NetworkError(f"storage_order of {site} must be 0 or 1, not {site.attribute('storage_order', 0)}")
    given = site.value(0)
    if not (isinstance(given, Activation) and given.real):  # integers stay integers: the largest of them is one of them
        x, axes = image(site, 0, real=False)
        draft = _largest(site, x, pool_window(site, x.image[:2], axes), axes)
        return site.rounded(draft, Quantiser.whole(Form.of(x)))
    x, axes = image(site, 0)
    return _largest(site, x, pool_window(site, x.image[:2], axes), axes)


@imports("GlobalMaxPool")
def _global_max_pool(site: Site) -> Value:
    x, axes = image(site, 0)
    return _largest(site, x, Window(kernel=x.image[:2]), axes)


def _largest(site: Site, x: Tensor, slides: Window, axes: int) -> Draft:
    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        multiplier = x.scale * float(draft.gain) / output.scale
        return MaxPool(window=slides, input_zero=x.zero_point, multiplier=multiplier, **common)

    return replace(_pool(site, x, slides, axes, build), exact=Form.of(x))


@imports("AveragePool")
def _average_pool(site: Site) -> Value:
    x, axes = image(site, 0)
    slides = pool_window(site, x.image[:2], axes)
    kernel = slides.kernel[:axes]
    return mean(site, x, slides, axes, pads(site, kernel, x.image[:2]) if site.attribute("count_include_pad", 0) else (0, 0, 0, 0))


@imports("GlobalAveragePool")
def _global_average_pool(site: Site) -> Value:
    x, axes = image(site, 0)
    return mean(site, x, Window(kernel=x.image[:2]), axes, (0, 0, 0, 0))


def mean(site: Site, x: Tensor, slides: Window, axes: int, counted: tuple[int, int, int, int]) -> Draft:
    """Draft of the mean of each window over an image of `axes` axes."""

    def build(draft: Draft, output: Tensor, common: dict[str, Any]) -> Operator:
        multiplier = x.scale * float(draft.gain) / output.scale
        return AveragePool(window=slides, counted=counted, input_zero=x.zero_point, multiplier=multiplier, **common)

    return _pool(site, x, slides, axes, build)


def _pool(site: Site, x: Tensor, slides: Window, axes: int, build: Any) -> Draft:
    places, channels = slides.positions(*x.image[:2])[:axes], x.shape[-1]
    return site.draft((x,), (1, channels, *places), build, order=image_order((channels, *places)))


def pool_window(site: Attributed, size: tuple[int, int], axes: int) -> Window:
    """Window of a pooling over an image of this size: extended by ceil_mode, and never without an element."""
    found = window(site, site.integers("kernel_shape", (1,) * axes, 1), size)
    reach = [dilation * (extent - 1) for dilation, extent in zip(found.dilation, found.kernel, strict=True)]
    if any(pad > reach[side % 2] for side, pad in enumerate(found.pads)):
        raise NetworkError(f"pads of {site} must be smaller than its window, not {list(found.pads)}")
    if any(dilation > extent for dilation, extent in zip(found.dilation, size, strict=True)):
        raise NetworkError(f"dilations of {site} must be at most its input's size {size}, not {list(found.dilation)}")
    if not site.attribute("ceil_mode", 0):
        return found
    extended = list(found.pads)
    for axis, (places, stride) in enumerate(zip(found.positions(*size), found.stride, strict=True)):
        start = places * stride - found.pads[axis]  # of one window more, where the last one leaves something over
        over = (size[axis] + found.pads[axis] + found.pads[axis + 2] - reach[axis] - 1) % stride
        if over and start < size[axis]:
            extended[axis + 2] = start + reach[axis] + 1 - size[axis]
    return replace(found, pads=(extended[0], extended[1], extended[2], extended[3]))
