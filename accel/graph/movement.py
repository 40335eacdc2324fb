"""Where each element of a moved tensor comes from: ONNX's operators that compute nothing, as functions of index arrays.

Each takes an integer array of the input's shape, any integers, and gives those at the places of the output; -1 stands where padding adds an
element. So a chain of moves is a chain of these functions, and one :class:`accel.graph.network.Move` in the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from accel.errors import NetworkError

Index = NDArray[np.signedinteger[Any]]

LIMIT = 1 << 26  # our choice [elements]: of an index, so that a few of them at once stay below 2 GB
MODES = ("constant", "reflect", "edge", "wrap")  # of Pad
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",  # of opset 11 alone
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def places(shape: Sequence[int], first: int = 0) -> Index:
    """Give the elements of a tensor their numbers, in their order.

    Parameters
    ----------
    shape : sequence of int
    first : int
        Number of the first element.

    Returns
    -------
    int32, or int64 where that is too narrow, of this shape
    """
    size = limited(shape)
    numbers: Index = np.arange(first, first + size, dtype=np.int32 if first + size < 1 << 31 else np.int64)
    return numbers.reshape(tuple(shape))


def limited(shape: Sequence[int]) -> int:
    """Count the elements of a shape, of which there must be fewer than :data:`LIMIT`."""
    size = math.prod(shape)
    if size >= LIMIT:
        raise NetworkError(f"size of a moved tensor must be below {LIMIT} elements, not {size}")
    return size


def along(axes: Sequence[int] | None, count: int, what: str) -> tuple[int, ...]:
    """Axes counted from the front.

    Parameters
    ----------
    axes : sequence of int, or None
        From the front or, negative, from the back; None is all of them in order.
    count : int
        Of the tensor's axes.
    what : str
        What messages call them.

    Raises
    ------
    NetworkError
        If one is outside or named twice.
    """
    if axes is None:
        return tuple(range(count))
    found = tuple(int(axis) % count if -count <= axis < count else -1 for axis in axes)
    if -1 in found or len(set(found)) != len(found):
        raise NetworkError(f"{what} must be different axes in [{-count}, {count}), not {list(map(int, axes))}")
    return found


def transposed(index: Index, perm: Sequence[int] | None) -> Index:
    """Transpose: axis i of the output is axis ``perm[i]`` of the input, all of them in reverse without it."""
    axes = along(perm, index.ndim, "perm") if perm is not None else tuple(reversed(range(index.ndim)))
    if len(axes) != index.ndim:
        raise NetworkError(f"perm must be a permutation of {index.ndim} axes, not {list(axes)}")
    return index.transpose(axes)


def reshaped(index: Index, shape: Sequence[int], allowzero: bool = False) -> Index:
    """Reshape: -1 is what is left over, and 0 the input's own size unless `allowzero`."""
    wanted = [int(size) for size in shape]
    if not allowzero:
        wanted = [index.shape[axis] if size == 0 and axis < index.ndim else size for axis, size in enumerate(wanted)]
    known = math.prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and known > 0 and index.size % known == 0:
        wanted[wanted.index(-1)] = index.size // known
    if min(wanted, default=0) < 0 or math.prod(wanted) != index.size:
        raise NetworkError(f"shape must hold the {index.size} elements of {index.shape}, not {[int(size) for size in shape]}")
    return index.reshape(wanted)


def flattened(index: Index, axis: int = 1) -> Index:
    """Flatten: axes before `axis` are rows, the others columns."""
    if not -index.ndim <= axis <= index.ndim:
        raise NetworkError(f"axis must be in [{-index.ndim}, {index.ndim}], not {axis}")
    return index.reshape(math.prod(index.shape[:axis]) if axis else 1, -1)


def squeezed(index: Index, axes: Sequence[int] | None) -> Index:
    """Squeeze: axes of one element are left out, all such axes without `axes`."""
    chosen = along(axes, index.ndim, "axes") if axes is not None else tuple(at for at, size in enumerate(index.shape) if size == 1)
    if any(index.shape[axis] != 1 for axis in chosen):
        raise NetworkError(f"axes must be of one element in {index.shape}, not {list(chosen)}")
    return index.reshape([size for axis, size in enumerate(index.shape) if axis not in chosen])


def unsqueezed(index: Index, axes: Sequence[int]) -> Index:
    """Unsqueeze: axes of one element, at these places of the output."""
    added = along(axes, index.ndim + len(axes), "axes")
    rest = iter(index.shape)
    return index.reshape([1 if axis in added else next(rest) for axis in range(index.ndim + len(axes))])


def expanded(index: Index, shape: Sequence[int]) -> Index:
    """Expand: broadcast with a shape, in both directions."""
    try:
        whole = np.broadcast_shapes(index.shape, tuple(int(size) for size in shape))
    except ValueError:
        raise NetworkError(f"shape must broadcast with {index.shape}, not {[int(size) for size in shape]}") from None
    limited(whole)
    return np.broadcast_to(index, whole)


def tiled(index: Index, repeats: Sequence[int]) -> Index:
    """Tile: the tensor again and again along each axis."""
    if len(repeats) != index.ndim or min(repeats, default=1) < 1:
        raise NetworkError(f"repeats must be {index.ndim} integers of at least 1, not {[int(count) for count in repeats]}")
    limited([size * int(count) for size, count in zip(index.shape, repeats, strict=True)])
    return np.tile(index, tuple(int(count) for count in repeats))


def sliced(
    index: Index, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None, steps: Sequence[int] | None = None
) -> Index:
    """Slice: bounds beyond either end are that end; a negative step goes backwards from `starts`."""
    steps = [1] * len(starts) if steps is None else steps
    chosen = along(range(len(starts)) if axes is None else axes, index.ndim, "axes")
    if not len(starts) == len(ends) == len(chosen) == len(steps) or 0 in steps:
        lengths = [len(starts), len(ends), len(chosen), len(steps)]
        raise NetworkError(f"starts, ends, axes and steps must be of one length and no step 0, not {lengths} and {list(map(int, steps))}")
    window = [slice(None)] * index.ndim
    for axis, start, end, step in zip(chosen, map(int, starts), map(int, ends), map(int, steps), strict=True):
        size = index.shape[axis]
        first, last = (bound + size if bound < 0 else bound for bound in (start, end))
        if step > 0:
            window[axis] = slice(min(max(first, 0), size), min(max(last, 0), size), step)
        else:  # to the front is None, as -1 would be the last
            last = min(max(last, -1), size - 1)
            window[axis] = slice(min(max(first, 0), size - 1), None if last < 0 else last, step)
    return index[tuple(window)]


def split(index: Index, sizes: Sequence[int], axis: int = 0) -> list[Index]:
    """Split: pieces of these sizes, one behind the other."""
    (at,) = along([axis], index.ndim, "axis")
    if min(sizes, default=0) < 0 or sum(sizes) != index.shape[at]:
        raise NetworkError(f"split must add up to {index.shape[at]}, not {[int(size) for size in sizes]}")
    return np.split(index, np.cumsum(sizes)[:-1].tolist(), axis=at)


def equal_parts(size: int, count: int) -> list[int]:
    """Sizes of `count` pieces as ONNX's Split makes them: alike, the last one smaller where they cannot all be."""
    if not 1 <= count <= max(size, 1):
        raise NetworkError(f"num_outputs must be in [1, {size}], not {count}")
    part = -(-size // count)
    sizes = [part] * (count - 1) + [size - part * (count - 1)]
    if sizes[-1] < 0:
        raise NetworkError(f"num_outputs must leave something of {size} for the last output, not be {count}")
    return sizes


def gathered(index: Index, indices: NDArray[Any], axis: int = 0) -> Index:
    """Gather: slices along an axis, by constant indices, negative ones from the back."""
    (at,) = along([axis], index.ndim, "axis")
    chosen = _inside(indices, index.shape[at])
    limited([*index.shape[:at], *chosen.shape, *index.shape[at + 1 :]])
    return np.take(index, chosen, axis=at)


def gathered_elements(index: Index, indices: NDArray[Any], axis: int = 0) -> Index:
    """GatherElements: one element each, by constant indices along an axis."""
    (at,) = along([axis], index.ndim, "axis")
    other = [(have, want) for axis, (have, want) in enumerate(zip(index.shape, indices.shape, strict=False)) if axis != at]
    if indices.ndim != index.ndim or any(want > have for have, want in other):
        raise NetworkError(f"indices must lie in a tensor of shape {index.shape}, not be of shape {indices.shape}")
    chosen = _inside(indices, index.shape[at])
    within = tuple(slice(None) if axis == at else slice(size) for axis, size in enumerate(chosen.shape))
    return np.take_along_axis(index[within], chosen, axis=at)


def gathered_nd(index: Index, indices: NDArray[Any], batch_dims: int = 0) -> Index:
    """GatherND: slices at constant places, each named by the last axis of the indices."""
    if not 0 <= batch_dims < min(index.ndim, indices.ndim) or indices.shape[:batch_dims] != index.shape[:batch_dims]:
        raise NetworkError(f"batch_dims must count axes alike in {index.shape} and {indices.shape}, not {batch_dims}")
    depth = indices.shape[-1]
    if not 1 <= depth <= index.ndim - batch_dims:
        raise NetworkError(f"last axis of the indices must be in [1, {index.ndim - batch_dims}], not {depth}")
    limited([*indices.shape[:-1], *index.shape[batch_dims + depth :]])
    named = [_inside(indices[..., at], index.shape[batch_dims + at]) for at in range(depth)]
    fronts = np.indices(indices.shape[:-1], sparse=True)[:batch_dims]
    return index[(*fronts, *named)]


def _inside(indices: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Count indices from the front."""
    if indices.dtype.kind not in "iu":
        raise NetworkError(f"indices must be integers, not {indices.dtype}")
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise NetworkError(f"indices must be in [{-size}, {size}), not {indices.min()}..{indices.max()}")
    chosen = indices.astype(np.int64)
    return np.where(chosen < 0, chosen + size, chosen)


def padded(index: Index, pads: Sequence[int], axes: Sequence[int] | None = None, mode: str = "constant") -> Index:
    """Pad, or where pads are negative cut off: first the fronts of all axes, then their ends.

    Parameters
    ----------
    index : int
    pads : sequence of int
        Twice as many as `axes`.
    axes : sequence of int, or None
        None is all of them.
    mode : str
        One of :data:`MODES`; "constant" puts -1.
    """
    chosen = along(axes, index.ndim, "axes")
    if mode not in MODES:
        raise NetworkError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    if len(pads) != 2 * len(chosen):
        raise NetworkError(f"pads must be {2 * len(chosen)} integers, not {[int(pad) for pad in pads]}")
    ends = {axis: (int(pads[at]), int(pads[at + len(chosen)])) for at, axis in enumerate(chosen)}
    cut = [slice(max(-ends[axis][0], 0), size - max(-ends[axis][1], 0)) if axis in ends else slice(None) for axis, size in _sizes(index)]
    kept = index[tuple(cut)]
    width = [(max(ends[axis][0], 0), max(ends[axis][1], 0)) if axis in ends else (0, 0) for axis in range(index.ndim)]
    limited([size + sum(each) for size, each in zip(kept.shape, width, strict=True)])
    if mode == "constant":
        return np.pad(kept, width, constant_values=-1)
    if any(size < (2 if mode == "reflect" else 1) and any(each) for size, each in zip(kept.shape, width, strict=True)):
        raise NetworkError(f"mode of padding must have elements to repeat in {kept.shape}, not be {mode!r}")
    how: Literal["edge", "reflect", "wrap"] = "edge" if mode == "edge" else "reflect" if mode == "reflect" else "wrap"
    return np.pad(kept, width, mode=how)


def _sizes(index: Index) -> list[tuple[int, int]]:
    return list(enumerate(index.shape))


def depth_to_space(index: Index, block: int, mode: str = "DCR") -> Index:
    """Channels of (batch, channels, height, width) become blocks of `block` rows and columns."""
    n, c, h, w = _image(index)
    if block < 1 or c % block**2:
        raise NetworkError(f"blocksize must have a square that divides {c} channels, not be {block}")
    if mode not in ("DCR", "CRD"):
        raise NetworkError(f"mode must be one of DCR, CRD, not {mode!r}")
    if mode == "DCR":
        parts = index.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = index.reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(index: Index, block: int, mode: str = "DCR") -> Index:
    """Blocks of `block` rows and columns become channels: the inverse of :func:`depth_to_space`."""
    n, c, h, w = _image(index)
    if block < 1 or h % block or w % block:
        raise NetworkError(f"blocksize must divide height and width {h}, {w}, not be {block}")
    if mode not in ("DCR", "CRD"):
        raise NetworkError(f"mode must be one of DCR, CRD, not {mode!r}")
    parts = index.reshape(n, c, h // block, block, w // block, block)
    parts = parts.transpose(0, 3, 5, 1, 2, 4) if mode == "DCR" else parts.transpose(0, 1, 3, 5, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


def _image(index: Index) -> tuple[int, int, int, int]:
    if index.ndim != 4:
        raise NetworkError(f"input must have 4 axes, not {index.ndim}")
    n, c, h, w = index.shape
    return n, c, h, w


def extents(
    shape: Sequence[int],
    sizes: Sequence[int] | None,
    scales: Sequence[float] | None,
    axes: Sequence[int] | None = None,
    policy: str = "stretch",
) -> tuple[list[int], list[float]]:
    """Sizes and scales of all axes of a Resize, of which the file gives one or the other.

    Parameters
    ----------
    shape : sequence of int
        Of the input.
    sizes, scales : sequence, or None
        Of the axes that are resized.
    axes : sequence of int, or None
        None is all of them.
    policy : str
        "stretch", "not_larger" or "not_smaller": what becomes of `sizes` that do not keep the input's proportions.
    """
    chosen = along(axes, len(shape), "axes")
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise NetworkError(f"keep_aspect_ratio_policy must be stretch, not_larger or not_smaller, not {policy!r}")
    given = sizes if sizes is not None else scales
    if (
        given is None
        or (sizes is not None and scales is not None)
        or len(given) != len(chosen)
        or not all(0 < each < math.inf for each in given)
    ):
        raise NetworkError(f"sizes or scales must be {len(chosen)} positive numbers, not {sizes} and {scales}")
    all_sizes, all_scales = list(shape), [1.0] * len(shape)
    for axis, each in zip(chosen, given, strict=True):
        if sizes is None:
            all_scales[axis] = float(each)
            all_sizes[axis] = int(np.float32(each) * np.float32(shape[axis]))
        else:
            all_scales[axis], all_sizes[axis] = each / shape[axis], int(each)
    if sizes is not None and policy != "stretch":
        common = (min if policy == "not_larger" else max)(all_scales[axis] for axis in chosen)
        for axis in chosen:
            all_scales[axis], all_sizes[axis] = common, int(common * shape[axis] + 0.5)
    return all_sizes, all_scales


def resized(
    index: Index,
    sizes: Sequence[int],
    scales: Sequence[float],
    coordinates: str = "half_pixel",
    nearest: str = "round_prefer_floor",
    roi: Sequence[tuple[float, float]] | None = None,
) -> Index:
    """Resize to the nearest element.

    Parameters
    ----------
    index : int
    sizes : sequence of int
        Of the output, all axes.
    scales : sequence of float
        Output over input size of each axis, as the file gives or implies it.
    coordinates : str
        One of :data:`COORDINATES`.
    nearest : str
        One of :data:`NEAREST`.
    roi : sequence of (float, float), or None
        Part of the input to see, for "tf_crop_and_resize": start and end of each axis; -1 is what lies outside the input.
    """
    if coordinates not in COORDINATES:
        raise NetworkError(f"coordinate_transformation_mode must be one of {', '.join(COORDINATES)}, not {coordinates!r}")
    if nearest not in NEAREST:
        raise NetworkError(f"nearest_mode must be one of {', '.join(NEAREST)}, not {nearest!r}")
    if not len(sizes) == len(scales) == index.ndim or min(sizes, default=1) < 1 or not all(0 < scale < math.inf for scale in scales):
        raise NetworkError(f"sizes and scales must be {index.ndim} positive numbers, not {list(sizes)} and {list(scales)}")
    if coordinates == "tf_crop_and_resize" and (roi is None or len(roi) != index.ndim):
        raise NetworkError(f"roi must have a start and an end for each of {index.ndim} axes, not be {roi}")
    limited(sizes)
    outside = np.zeros((), bool)
    for axis in range(index.ndim):
        size = index.shape[axis]
        if sizes[axis] == size and scales[axis] == 1 and coordinates != "tf_crop_and_resize":
            continue
        place = _coordinates(coordinates, size, sizes[axis], scales[axis], roi[axis] if roi else (0.0, 1.0))
        beyond = (place < 0) | (place > size - 1)
        index = np.take(index, np.clip(_rounded(place, nearest), 0, size - 1), axis=axis)
        outside = outside | beyond.reshape([-1 if at == axis else 1 for at in range(index.ndim)])
    return np.where(outside, -1, index).astype(index.dtype) if coordinates == "tf_crop_and_resize" else index


def _coordinates(mode: str, size: int, wanted: int, scale: float, roi: tuple[float, float]) -> NDArray[np.float64]:
    """Place on the input of each output element, by the formulas of ONNX's Resize."""
    at = np.arange(wanted, dtype=np.float64)
    length = scale * size  # of the output, before it was rounded down to an integer
    match mode:
        case "align_corners":
            return at * (size - 1) / (length - 1) if length != 1 else np.zeros(wanted)
        case "asymmetric":
            return at / scale
        case "tf_crop_and_resize":
            span = (roi[1] - roi[0]) * (size - 1)
            return roi[0] * (size - 1) + (at * span / (length - 1) if length != 1 else np.full(wanted, span / 2))
        case "tf_half_pixel_for_nn":
            return (at + 0.5) / scale
        case "pytorch_half_pixel":
            return (at + 0.5) / scale - 0.5 if length != 1 else np.full(wanted, -0.5)
        case "half_pixel_symmetric":
            return size / 2 * (1 - wanted / length) + (at + 0.5) / scale - 0.5
        case _:
            return (at + 0.5) / scale - 0.5


def _rounded(place: NDArray[np.float64], nearest: str) -> NDArray[np.int64]:
    match nearest:
        case "floor":
            whole = np.floor(place)
        case "ceil":
            whole = np.ceil(place)
        case "round_prefer_floor":
            whole = np.ceil(place - 0.5)
        case _:
            whole = np.floor(place + 0.5)
    return whole.astype(np.int64)
