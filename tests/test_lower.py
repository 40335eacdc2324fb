"""Lowering against outside oracles: phases, products of activations, split weights, groups, and what is kept of weights."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx.reference.ops.op_conv_transpose import ConvTranspose

from accel import engine, presets
from accel.config import AcceleratorConfig
from accel.errors import NetworkError
from accel.graph.network import DynamicProduct, MatrixProduct, Network, Port, Tensor, TransposedConvolution
from accel.graph.window import Window
from accel.kernels.patches import Patches, Place
from accel.schedule import lower
from accel.schedule.lower import Product
from accel.sparsity import Pattern

TINY = presets.load("tiny")
SETTINGS = settings(deadline=None, max_examples=60)


def network(operator: Any, tensors: list[Tensor]) -> Network:
    """Make a network of one operator, which reads all tensors but the last."""
    ports = tuple(Port(tensor.name, tensor.name, False) for tensor in tensors)
    return Network(
        name="one", tensors={t.name: t for t in tensors}, operators=(operator,), inputs=ports[:-1], outputs=ports[-1:]
    )  # fmt: skip


def tensor(name: str, *shape: int, zero_point: int = 0, bits: int = 8) -> Tensor:
    return Tensor(name=name, shape=shape, bits=bits, scale=1.0, zero_point=zero_point)


def ends(kind: str, *inputs: str) -> dict[str, Any]:
    return {"name": "it", "kind": kind, "inputs": inputs, "output": "y", "zero_point": 0, "lo": -128, "hi": 127}


def product(channels=3, filters=4, groups=1, window=None, size=(4, 4), rng=None, **fields: Any) -> Network:
    window = window or Window()
    rng = rng or np.random.default_rng(0)
    given: dict[str, Any] = {
        "weights": rng.integers(-128, 128, (filters, *window.kernel, channels // groups)).astype(np.int8),
        "bias": rng.integers(-99, 99, filters), "multiplier": rng.uniform(0.001, 0.01, filters),
    } | fields  # fmt: skip
    operator = MatrixProduct(**ends("Conv", "x"), window=window, channels=channels, filters=filters, groups=groups, **given)
    return network(operator, [tensor("x", *size, channels), tensor("y", *window.positions(*size), filters)])


def exact(config: AcceleratorConfig, one: Network, *inputs: np.ndarray) -> np.ndarray:
    """Return the sums of the only layer, with their bias, before any is rounded; none may overflow."""
    (layer,) = lower.lower(one, config)
    output = np.zeros((len(inputs[0]), *layer.output.shape), np.int64)
    covered = np.zeros(output.shape, np.int64)
    for job in layer.jobs:
        acc, overflow, post = engine.sums(config, layer, job, inputs)
        assert not overflow.any()
        bias = 0 if isinstance(layer.operator, DynamicProduct) else post.bias
        lower.store(layer, job, acc.astype(np.int64) + bias, output)
        once = np.zeros_like(covered)
        lower.store(layer, job, np.ones_like(acc), once)
        covered += once
    assert (covered == 1).all()
    return output


@st.composite
def transposed(draw):
    """Draw a transposed convolution with its input size; some phases have no taps, some no outputs."""

    def two(lo, hi):
        return (draw(st.integers(lo, hi)), draw(st.integers(lo, hi)))

    kernel, stride, dilation, pads, size = two(1, 4), two(1, 4), two(1, 3), (*two(0, 3), *two(0, 3)), two(1, 5)
    groups = draw(st.integers(1, 2))
    extra = tuple(draw(st.integers(0, s - 1)) for s in stride)
    full = [
        (size[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - pads[i] - pads[i + 2] + extra[i] for i in range(2)
    ]  # fmt: skip
    assume(min(full) >= 1)
    return Window(kernel=kernel, stride=stride, dilation=dilation, pads=pads), size, groups, extra, tuple(full)


@SETTINGS
@given(transposed(), st.integers(0, 2**32))
def test_phases_are_the_transposed_convolution(case, seed):
    """Sums equal those of ONNX's reference, and no inserted zero is multiplied."""
    window, size, groups, extra, full = case
    rng, zero = np.random.default_rng(seed), int(np.random.default_rng(seed).integers(-20, 20))
    channels, filters = 2 * groups, 3 * groups
    weights = rng.integers(-128, 128, (filters, *window.kernel, 2)).astype(np.int8)
    bias = rng.integers(-99, 99, filters)
    operator = TransposedConvolution(
        **ends("ConvTranspose", "x"), window=window, size=full, channels=channels, filters=filters, groups=groups, input_zero=zero,
        weights=weights, bias=bias, multiplier=np.full(filters, 0.01),
    )  # fmt: skip
    one = network(operator, [tensor("x", *size, channels, zero_point=zero), tensor("y", *full, filters)])
    x = rng.integers(-128, 128, (2, *size, channels)).astype(np.int8)
    real = (x.astype(np.float64) - zero).transpose(0, 3, 1, 2)
    kernels = weights.reshape(groups, 3, *window.kernel, 2).transpose(0, 4, 1, 2, 3).astype(np.float64)
    reference: Any = ConvTranspose.eval
    want = np.concatenate(
        [  # exact: small integers in float64; the reference splits groups wrongly, so it sees one at a time
            reference(
                real[:, 2 * group : 2 * group + 2], kernels[group], bias[3 * group : 3 * group + 3].astype(np.float64),
                strides=window.stride, dilations=window.dilation, pads=window.pads, output_padding=extra,
            )
            for group in range(groups)
        ],
        axis=1,
    )  # fmt: skip
    np.testing.assert_array_equal(exact(TINY, one, x), want.transpose(0, 2, 3, 1))
    (layer,) = lower.lower(one, TINY)
    jobs = [job for job in layer.jobs if isinstance(job, Product)]
    taps = [
        sum(not (o + window.pads[axis] - t * window.dilation[axis]) % window.stride[axis] for o in range(full[axis]) for t in range(kernel))
        for axis, kernel in enumerate(window.kernel)
    ]
    meetings = taps[0] * taps[1]  # of output positions and taps, in the image or its padding
    without = [job for job in jobs if job.weights and not job.weights.dense.any()]  # bias alone
    assert sum(job.m * job.taps for job in jobs) == meetings + sum(job.m * job.taps for job in without)


@SETTINGS
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 7))
def test_products_of_activations(seed, transposed, width):
    """Sums equal those of integers less their zero points, though one operand is split and the other's zero point is in the bias."""
    rng = np.random.default_rng(seed)
    lead = tuple(rng.integers(1, 4, rng.integers(0, 3)).tolist())
    m, k = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    za, zb = rng.integers(-128, 128, 2).tolist()
    a, b = tensor("a", *lead, m, k, zero_point=za), tensor("b", *lead, *((width, k) if transposed else (k, width)), zero_point=zb)
    operator = DynamicProduct(**ends("MatMul", "a", "b"), zero_points=(za, zb), multiplier=0.01, transposed=transposed)
    one = network(operator, [a, b, tensor("y", *lead, m, width)])
    x, y = (rng.integers(-128, 128, (3, *each.shape)) for each in (a, b))
    second = np.swapaxes(y, -1, -2) if transposed else y
    config = dataclasses.replace(TINY, param_rows=1)
    np.testing.assert_array_equal(exact(config, one, x.astype(np.int8), y.astype(np.int8)), (x - za) @ (second - zb))
    (layer,) = lower.lower(one, config, batch=3)
    for run in lower.passes(config, layer):
        (job,) = run
        assert isinstance(job, Product)
        known = lower.bound(layer, job, [x, y])
        assert known.codes is not None
        assert known.post is not None
        assert config.weight.lo <= known.codes.values.min() <= known.codes.values.max() <= config.weight.hi
        rows = lower.operands(layer, job, [x, y])
        own = slice(job.start, job.start + job.n)
        want = ((x - za) @ (second - zb)).reshape(-1, m, width)[job.group][:, own]
        np.testing.assert_array_equal(rows @ known.codes.values.T.astype(np.int64) + known.post.bias, want)


@pytest.mark.golden
@given(st.integers(2, 8), st.data())
@SETTINGS
def test_split_weights_are_exact(bits, data):
    """As few parts as hold them, each in the format; their sum is the weight."""
    config = dataclasses.replace(TINY, weight_bits=bits)
    top = 1 << bits
    lo = data.draw(st.integers(-top, top - 1))
    hi = data.draw(st.integers(lo, top - 1))
    count = lower.parts(config, "w", lo, hi)
    matrix = np.arange(lo, hi + 1)[None]
    split = lower.split_parts(matrix, count).reshape(count, -1)
    np.testing.assert_array_equal(split.sum(axis=0), matrix[0])
    assert config.weight.lo <= split.min() <= split.max() <= config.weight.hi
    assert count == 1 or not (count - 1) * config.weight.lo <= lo <= hi <= (count - 1) * config.weight.hi
    for wide in (-top - 1, top):
        with pytest.raises(NetworkError, match=rf"^w must fit weight_bits \({bits}\) and one bit more once .*, not be {wide}..{wide}$"):
            lower.parts(config, "w", wide, wide)


def test_wide_weights_run_the_reduction_twice():
    rng = np.random.default_rng(3)
    weights = rng.integers(-255, 255, (4, 3, 3, 5)).astype(np.int16)
    one = product(5, window=Window(kernel=(3, 3), pads=(1, 0, 2, 1)), weights=weights, padding=7)
    x = rng.integers(-128, 128, (2, 4, 4, 5)).astype(np.int8)
    (layer,) = lower.lower(one, TINY)
    (job,) = layer.jobs
    assert isinstance(job, Product)
    assert (job.taps, job.presented, job.k) == (18, 2, 90)
    seen = np.pad(x.astype(np.int64), ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=7)
    want = [
        [(seen[:, i : i + 3, j : j + 3, None] * weights.transpose(1, 2, 0, 3)).sum(axis=(1, 2, 4)) for j in range(3)] for i in range(5)
    ]  # fmt: skip
    bias: Any = getattr(layer.operator, "bias", None)
    np.testing.assert_array_equal(exact(TINY, one, x), np.array(want).transpose(2, 0, 1, 3) + bias)


@st.composite
def placed(draw):
    """Draw images and a window with any pads, also such as cut, of which some positions exist."""
    height, width, channels = (draw(st.integers(1, 7)) for _ in range(3))

    def two(lo, hi):
        return (draw(st.integers(lo, hi)), draw(st.integers(lo, hi)))

    window = Window(kernel=two(1, 3), stride=two(1, 3), dilation=two(1, 2), pads=(*two(-2, 4), *two(-2, 4)))
    assume(min(window.positions(height, width)) >= 1)
    return height, width, channels, window


@SETTINGS
@given(placed(), st.sampled_from([np.int8, np.int16, np.int32]), st.integers(1, 3), st.integers(0, 2**32))
def test_patches_are_the_operands(case, kind, presented, seed):
    """The kernels' gathering equals the view that the hardware's operands are made of."""
    height, width, channels, window = case
    rng = np.random.default_rng(seed)
    x, padding = rng.integers(-128, 128, (2, height, width, channels)).astype(kind), int(rng.integers(-128, 128))
    first = int(rng.integers(channels))
    count = int(rng.integers(1, channels - first + 1))
    place = Place(
        window.kernel, window.stride, window.dilation, window.pads[:2], window.positions(height, width), first, count, padding, presented
    )
    found = Patches(x, place)
    want = lower.windows(x[..., first : first + count], window, padding)
    want = np.tile(want.reshape(len(x) * np.prod(place.positions), -1), (1, presented))
    assert found.shape == want.shape
    np.testing.assert_array_equal(found.matrix, want)
    assert found.ends[0] <= want.min() <= want.max() <= found.ends[1]
    np.testing.assert_array_equal(found.astype(np.int32).matrix, want)


@pytest.mark.parametrize("param_rows", [64, 1])
def test_equal_groups_are_one_job(param_rows):
    """Single groups are slices of it, and passes run them one by one."""
    config = dataclasses.replace(TINY, param_rows=param_rows)
    one = product(6, 30, 3, Window(kernel=(2, 2)))
    (layer,) = lower.lower(one, config)
    assert [(job.n, job.start) for job in layer.jobs] == ([(10, 0)] if param_rows == 64 else [(4, 0), (4, 4), (2, 8)])
    operator: Any = layer.operator
    singles = [job for run in lower.passes(config, layer) for job in run]
    assert len(singles) == 3 * len(layer.jobs)
    assert sorted(channel for job in singles for channel in range(job.start, job.start + job.n)) == list(range(30))
    for job in singles:
        assert isinstance(job, Product)
        assert job.weights is not None
        assert job.post is not None
        own = slice(job.start, job.start + job.n)
        assert (job.groups, job.group) == (1, job.start // 10)
        np.testing.assert_array_equal(job.weights.dense, operator.matrix[own])
        np.testing.assert_array_equal(job.post.bias, operator.bias[own])


def test_many_groups_are_cheap():
    """A depthwise convolution of 960 channels is one job, with weights or without."""
    for fields in ({}, {"weights": None, "bias": None, "multiplier": None}):
        (layer,) = lower.lower(product(960, 960, 960, Window(kernel=(3, 3), pads=(1, 1, 1, 1)), (14, 14), **fields), TINY)
        assert [(job.m, job.n, job.groups) for job in layer.jobs if isinstance(job, Product)] == [(196, 1, 960)]


def test_weights_are_looked_at_once():
    """Whatever is made of weights is kept for the next run, for a few patterns, and as long as the operator lives."""
    networks = [product(8)]

    def weights(pattern: Pattern | None = None, config: AcceleratorConfig = TINY) -> Any:
        ((job,),) = (layer.jobs for layer in lower.lower(networks[0], config, pattern=pattern))
        assert isinstance(job, Product)
        return job.weights

    first = weights()
    assert weights() is weights(config=dataclasses.replace(TINY, rows=8)) is first
    assert weights(Pattern(2, 4)) is not first
    for bits in range(9, 13):
        weights(config=dataclasses.replace(TINY, weight_bits=bits))
    assert weights() is not first
    known = weakref.ref(weights())
    networks.clear()
    gc.collect()
    assert known() is None


def test_rejects_biases_that_may_not_fit():
    """A product of activations has its bias at run time, so that it is bounded beforehand."""
    a, b = tensor("a", 2, 300, zero_point=-100), tensor("b", 300, 2, zero_point=3)
    operator = DynamicProduct(**ends("MatMul", "a", "b"), zero_points=(-100, 3), multiplier=0.01)
    one = network(operator, [a, b, tensor("y", 2, 2)])
    message = r"^bias of it must fit acc_bits \(16\) whatever the activations, not reach 3930000$"
    with pytest.raises(NetworkError, match=message):
        lower.lower(one, dataclasses.replace(TINY, acc_bits=16))
    wide = dataclasses.replace(operator, zero_points=(0, 300))
    with pytest.raises(NetworkError, match=r"^b of it must fit weight_bits \(8\) and one bit more .*, not be -428..-173$"):
        lower.lower(network(wide, [a, b, tensor("y", 2, 2)]), TINY)
