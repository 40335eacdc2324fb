"""Index arrays of moves beside the same move of numbers by onnx.reference."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from accel.errors import NetworkError
from accel.graph import movement
from accel.graph.movement import (
    depth_to_space,
    equal_parts,
    expanded,
    extents,
    flattened,
    gathered,
    gathered_elements,
    gathered_nd,
    padded,
    places,
    reshaped,
    resized,
    sliced,
    space_to_depth,
    split,
    squeezed,
    tiled,
    transposed,
    unsqueezed,
)

OUTSIDE = 77.0  # what padding holds here


def reference(kind, x, *constants, outputs=1, **attributes):
    """Run one node on `x` in onnx.reference."""
    names = [name if value is not None else "" for name, value in zip("abcd", constants, strict=False)]
    node = onnx.helper.make_node(kind, ["x", *names], [f"y{i}" for i in range(outputs)], **attributes)
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, constants, strict=True) if name]
    given = [onnx.helper.make_tensor_value_info("x", onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    taken = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", given, taken, tensors))
    return ReferenceEvaluator(model).run(None, {"x": x})


def numbers(shape):
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


def moved(index, x):
    """Elements of x at an index, padding where it says so."""
    return np.append(x.ravel(), np.float32(OUTSIDE))[index]


def integers(*values):
    return np.array(values, np.int64)


SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(st.data(), SHAPES)
def test_transposed(data, shape):
    perm = data.draw(st.none() | st.permutations(range(len(shape))))
    x = numbers(shape)
    attributes = {} if perm is None else {"perm": perm}
    np.testing.assert_array_equal(moved(transposed(places(shape), perm), x), reference("Transpose", x, **attributes)[0])


@pytest.mark.parametrize(
    ("shape", "wanted", "allowzero"),
    [((2, 3, 4), (6, 4), 0), ((2, 3, 4), (-1, 8), 0), ((2, 3, 4), (0, -1), 0), ((2, 3, 4), (0, 0, 2, 2), 0), ((6,), (2, 3), 1)],
)
def test_reshaped(shape, wanted, allowzero):
    x = numbers(shape)
    expected = reference("Reshape", x, integers(*wanted), allowzero=allowzero)[0]
    np.testing.assert_array_equal(moved(reshaped(places(shape), wanted, bool(allowzero)), x), expected)


@given(st.data(), SHAPES)
def test_flattened(data, shape):
    axis = data.draw(st.integers(-len(shape), len(shape)))
    x = numbers(shape)
    np.testing.assert_array_equal(moved(flattened(places(shape), axis), x), reference("Flatten", x, axis=axis)[0])


@given(st.data(), SHAPES)
def test_unsqueezed_and_squeezed(data, shape):
    count = len(shape) + data.draw(st.integers(1, 2))
    axes = data.draw(st.lists(st.integers(0, count - 1), min_size=count - len(shape), max_size=count - len(shape), unique=True))
    axes = [axis - count if data.draw(st.booleans()) else axis for axis in axes]
    x = numbers(shape)
    index = unsqueezed(places(shape), axes)
    expected = reference("Unsqueeze", x, integers(*axes))[0]
    np.testing.assert_array_equal(moved(index, x), expected)
    np.testing.assert_array_equal(squeezed(index, axes), places(shape))
    np.testing.assert_array_equal(squeezed(index, None).ravel(), places(shape).ravel())
    np.testing.assert_array_equal(moved(squeezed(index, None), x), reference("Squeeze", expected)[0])


@pytest.mark.parametrize(("shape", "wanted"), [((3, 1), (2, 1, 6)), ((3, 1), (3, 4)), ((2, 3), (1, 1)), ((1,), (2, 2))])
def test_expanded(shape, wanted):
    x = numbers(shape)
    np.testing.assert_array_equal(moved(expanded(places(shape), wanted), x), reference("Expand", x, integers(*wanted))[0])


@given(st.data(), SHAPES)
def test_tiled(data, shape):
    repeats = data.draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))
    x = numbers(shape)
    np.testing.assert_array_equal(moved(tiled(places(shape), repeats), x), reference("Tile", x, integers(*repeats))[0])


BOUNDS = st.integers(-7, 7) | st.sampled_from([-(2**63), 2**63 - 1, 2**31 - 1])


@given(st.data(), st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple))
def test_sliced(data, shape):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    starts, ends = (data.draw(st.lists(BOUNDS, min_size=len(axes), max_size=len(axes))) for _ in range(2))
    steps = data.draw(st.lists(st.integers(-3, 3).filter(bool), min_size=len(axes), max_size=len(axes)))
    x = numbers(shape)
    index = sliced(places(shape), starts, ends, axes, steps)
    # The specification, element by element.
    expected = x
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        start, end = (bound + size if bound < 0 else bound for bound in (start, end))
        start, end = (
            (min(max(start, 0), size), min(max(end, 0), size)) if step > 0 else (min(max(start, 0), size - 1), min(max(end, -1), size - 1))
        )
        expected = np.take(expected, list(range(start, end, step)), axis=axis)
    np.testing.assert_array_equal(moved(index, x), expected)


def test_sliced_defaults():
    x = numbers((4, 5))
    index = sliced(places((4, 5)), [1, 0], [3, -1])
    np.testing.assert_array_equal(moved(index, x), reference("Slice", x, integers(1, 0), integers(3, -1))[0])


@pytest.mark.parametrize(("axis", "sizes"), [(0, (1, 3)), (1, (2, 2, 2)), (-1, (5,))])
def test_split(axis, sizes):
    x = numbers((4, 6, 5))
    expected = reference("Split", x, integers(*sizes), outputs=len(sizes), axis=axis)
    for index, part in zip(split(places(x.shape), sizes, axis), expected, strict=True):
        np.testing.assert_array_equal(moved(index, x), part)


@given(st.integers(1, 12), st.integers(1, 4))
def test_equal_parts(size, count):
    if count > size or -(-size // count) * (count - 1) > size:
        with pytest.raises(NetworkError, match=r"^num_outputs must"):
            equal_parts(size, count)
        return
    expected = reference("Split", numbers((size,)), outputs=count, num_outputs=count)
    assert equal_parts(size, count) == [len(part) for part in expected]


@given(st.data(), SHAPES)
def test_gathered(data, shape):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    indices = np.array(data.draw(st.lists(st.integers(-size, size - 1), min_size=4, max_size=4))).reshape(
        data.draw(st.sampled_from([(4,), (2, 2)]))
    )
    x = numbers(shape)
    np.testing.assert_array_equal(moved(gathered(places(shape), indices, axis), x), reference("Gather", x, indices, axis=axis)[0])
    np.testing.assert_array_equal(
        gathered(places(shape), indices.ravel()[0], axis),
        gathered(places(shape), indices, axis).take(0, axis % len(shape))
        if indices.ndim == 1
        else gathered(places(shape), np.array(indices.ravel()[0]), axis),
    )


@given(st.data(), SHAPES)
def test_gathered_elements(data, shape):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    wanted = [data.draw(st.integers(1, size)) for size in shape]
    wanted[axis] = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(math.prod(wanted))
    indices = rng.integers(-shape[axis], shape[axis], wanted)
    x = numbers(shape)
    index = gathered_elements(places(shape), indices, axis)
    expected = np.empty(wanted)
    for at in itertools.product(*map(range, wanted)):
        source = list(at)
        source[axis] = indices[at]
        expected[at] = x[tuple(source)]
    np.testing.assert_array_equal(moved(index, x), expected)


@pytest.mark.parametrize(
    ("shape", "indices", "batch"),
    [((2, 3, 4), [[0, 1], [1, -1]], 0), ((2, 3, 4), [[0, 1, 2]], 0), ((2, 3, 4), [[1], [-3]], 1), ((2, 2), [[[0, 0]], [[1, 1]]], 0)],
)
def test_gathered_nd(shape, indices, batch):
    x = numbers(shape)
    expected = reference("GatherND", x, np.array(indices, np.int64), batch_dims=batch)[0]
    np.testing.assert_array_equal(moved(gathered_nd(places(shape), np.array(indices), batch), x), expected)


@given(st.data(), st.lists(st.integers(2, 4), min_size=1, max_size=3).map(tuple), st.sampled_from(movement.MODES))
def test_padded(data, shape, mode):
    axes = data.draw(st.none() | st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    count = len(shape) if axes is None else len(axes)
    pads = data.draw(st.lists(st.integers(0, 3), min_size=2 * count, max_size=2 * count))
    x = numbers(shape)
    extra = [np.float32(OUTSIDE), *([] if axes is None else [integers(*axes)])]
    expected = reference("Pad", x, integers(*pads), *extra, mode=mode)[0]
    np.testing.assert_array_equal(moved(padded(places(shape), pads, axes, mode), x), expected)


def test_negative_pads_cut_off():
    x = numbers((4, 5))
    np.testing.assert_array_equal(
        moved(padded(places((4, 5)), [-1, 1, 0, -2]), x), np.pad(x[1:, :3], ((0, 0), (1, 0)), constant_values=OUTSIDE)
    )


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(mode):
    x = numbers((2, 12, 2, 3))
    index = depth_to_space(places(x.shape), 2, mode)
    np.testing.assert_array_equal(moved(index, x), reference("DepthToSpace", x, blocksize=2, mode=mode)[0])
    np.testing.assert_array_equal(space_to_depth(index, 2, mode), places(x.shape))
    y = numbers((2, 3, 4, 6))
    np.testing.assert_array_equal(moved(space_to_depth(places(y.shape), 2), y), reference("SpaceToDepth", y, blocksize=2)[0])


@pytest.mark.parametrize("nearest", movement.NEAREST)
@pytest.mark.parametrize("coordinates", movement.COORDINATES[:-1])
@given(st.lists(st.integers(1, 7), min_size=2, max_size=2), st.lists(st.integers(1, 11), min_size=2, max_size=2), st.booleans())
def test_resized(coordinates, nearest, shape, wanted, by_scale):
    x = numbers(shape)
    roi = np.array([0.25, -0.125, 0.75, 1.125], np.float32) if coordinates == "tf_crop_and_resize" else None
    factors = np.array([want / have for want, have in zip(wanted, shape, strict=True)], np.float32)
    scales = factors.tolist() if by_scale else None
    sizes = None if by_scale else wanted
    if by_scale:  # float32, as shape inference and onnxruntime multiply, not float64, as the reference does
        narrow, wide = ([int(np.multiply(s, n, dtype=d)) for s, n in zip(factors, shape, strict=True)] for d in (np.float32, np.float64))
        assume(narrow == wide and min(wide) > 0)
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest, "mode": "nearest", "extrapolation_value": OUTSIDE}
    expected = reference("Resize", x, roi, factors if by_scale else None, None if sizes is None else integers(*sizes), **attributes)[0]
    index = resized(
        places(shape), *extents(shape, sizes, scales), coordinates, nearest, None if roi is None else [(0.25, 0.75), (-0.125, 1.125)]
    )
    np.testing.assert_array_equal(moved(index, x), expected)


def test_the_coordinates_of_opset_11_alone():
    index = resized(places((5,)), [3], [0.6], "tf_half_pixel_for_nn", "floor")
    assert index.tolist() == [0, 2, 4]  # 0.5 / 0.6, 1.5 / 0.6 and 2.5 / 0.6


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize(("axes", "sizes"), [((0, 1), (7, 8)), ((1, 0), (7, 8)), ((1,), (9,)), ((-1, -2), (3, 5))])
def test_extents(axes, sizes, policy):
    x = numbers((2, 4))
    axes = tuple(axis % 2 for axis in axes)
    expected = reference("Resize", x, None, None, integers(*sizes), mode="nearest", keep_aspect_ratio_policy=policy, axes=axes)[0]
    whole, scales = extents(x.shape, sizes, None, axes, policy)
    assert tuple(whole) == expected.shape
    np.testing.assert_array_equal(moved(resized(places(x.shape), whole, scales), x), expected)


X = places((2, 3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transposed(X, [0, 0, 1]), r"perm must be different axes in \[-3, 3\), not \[0, 0, 1\]"),
        (lambda: transposed(X, [0, 1]), r"perm must be a permutation of 3 axes, not \[0, 1\]"),
        (lambda: reshaped(X, [5, -1]), r"shape must hold the 24 elements of \(2, 3, 4\), not \[5, -1\]"),
        (lambda: reshaped(X, [-1, -1]), r"shape must hold the 24 elements of \(2, 3, 4\), not \[-1, -1\]"),
        (lambda: flattened(X, 4), r"axis must be in \[-3, 3\], not 4"),
        (lambda: squeezed(X, [1]), r"axes must be of one element in \(2, 3, 4\), not \[1\]"),
        (lambda: unsqueezed(X, [0, 0]), r"axes must be different axes in \[-5, 5\), not \[0, 0\]"),
        (lambda: expanded(X, [3, 1]), None),
        (lambda: expanded(X, [2, 1, 5]), r"shape must broadcast with \(2, 3, 4\), not \[2, 1, 5\]"),
        (lambda: expanded(X, [1 << 40, 1, 1, 1]), rf"size of a moved tensor must be below {1 << 26} elements, not {24 << 40}"),
        (lambda: tiled(X, [1, 2]), r"repeats must be 3 integers of at least 1, not \[1, 2\]"),
        (lambda: tiled(X, [1 << 30, 1, 1]), rf"size of a moved tensor must be below {1 << 26} elements, not {24 << 30}"),
        (
            lambda: sliced(X, [0], [1], [0], [0]),
            r"starts, ends, axes and steps must be of one length and no step 0, not \[1, 1, 1, 1\] and \[0\]",
        ),
        (lambda: split(X, [1, 2]), r"split must add up to 2, not \[1, 2\]"),
        (lambda: equal_parts(4, 5), r"num_outputs must be in \[1, 4\], not 5"),
        (lambda: equal_parts(5, 4), r"num_outputs must leave something of 5 for the last output, not be 4"),
        (lambda: gathered(X, np.array([2])), r"indices must be in \[-2, 2\), not 2\.\.2"),
        (lambda: gathered(X, np.array([0.5])), r"indices must be integers, not float64"),
        (lambda: gathered_elements(X, np.array([0])), r"indices must lie in a tensor of shape \(2, 3, 4\), not be of shape \(1,\)"),
        (lambda: gathered_nd(X, np.zeros((1, 4), int)), r"last axis of the indices must be in \[1, 3\], not 4"),
        (lambda: gathered_nd(X, np.zeros((1, 1), int), 1), r"batch_dims must count axes alike in \(2, 3, 4\) and \(1, 1\), not 1"),
        (lambda: padded(X, [1]), r"pads must be 6 integers, not \[1\]"),
        (lambda: padded(X, [0] * 6, mode="new"), r"mode must be one of constant, reflect, edge, wrap, not 'new'"),
        (lambda: padded(places((1,)), [1, 0], mode="reflect"), r"mode of padding must have elements to repeat in \(1,\), not be 'reflect'"),
        (lambda: padded(X, [1 << 40, 0, 0, 0, 0, 0]), r"size of a moved tensor must be below .*"),
        (lambda: depth_to_space(X, 2), r"input must have 4 axes, not 3"),
        (lambda: depth_to_space(X[None], 2), r"blocksize must have a square that divides 2 channels, not be 2"),
        (lambda: depth_to_space(X[None], 1, "x"), r"mode must be one of DCR, CRD, not 'x'"),
        (lambda: space_to_depth(X[None], 2), r"blocksize must divide height and width 3, 4, not be 2"),
        (lambda: resized(X, [1] * 3, [1.0] * 3, "x"), r"coordinate_transformation_mode must be one of half_pixel, .*, not 'x'"),
        (lambda: resized(X, [1] * 3, [1.0] * 3, nearest="x"), r"nearest_mode must be one of round_prefer_floor, .*, not 'x'"),
        (lambda: resized(X, [1] * 3, [1.0] * 3, "tf_crop_and_resize"), r"roi must have a start and an end for each of 3 axes, not be None"),
        (lambda: extents((2, 3), None, None), r"sizes or scales must be 2 positive numbers, not None and None"),
        (
            lambda: extents((2, 3), [1, 2], None, policy="x"),
            r"keep_aspect_ratio_policy must be stretch, not_larger or not_smaller, not 'x'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    if message is None:
        message = r"shape must broadcast with \(2, 3, 4\), not \[3, 1\]"
        assert call().shape == (2, 3, 4)
        return
    with pytest.raises(NetworkError, match=f"^{message}$"):
        call()
