"""A whole training step against plain loops, bit by bit, on random networks; formats that move; what is refused."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import numba
import numpy as np
import pytest

from accel import presets
from accel.config import AcceleratorConfig
from accel.errors import ConfigError, NetworkError, RangeError
from accel.graph.trainable import Gelu, Trainable
from accel.graph.window import Window
from accel.kernels.gemm import Weights, gemm
from accel.kernels.patches import Patches, Place
from accel.kernels.requantise import Requantisation
from accel.sparsity import Pattern
from accel.training import course, formats, step
from accel.training.recipe import ALGORITHMS, Recipe
from accel.training.state import State, Tracked
from reports.bench import training as bench
from tests import naive_training
from tests.naive_training import Twin
from tests.random_training import Builder, random_trainable

WIDE = AcceleratorConfig(rows=4, cols=8, bundle=8, port=8, act_bits=16, weight_bits=16, acc_bits=48, mult_bits=15)
OCTETS = AcceleratorConfig(rows=4, cols=8, bundle=8, port=8, act_bits=8, weight_bits=8, acc_bits=32, mult_bits=23)
NARROW = dataclasses.replace(OCTETS, acc_bits=16)
WRAPPING = dataclasses.replace(OCTETS, acc_bits=16, overflow="wrap")
TIGHT = dataclasses.replace(WIDE, acc_bits=32, cols=3, bundle=4, port=4)
CRAMPED = dataclasses.replace(OCTETS, acc_bits=10)  # sums of gradients alone overflow
CONFIGS = {"wide": WIDE, "octets": OCTETS, "narrow": NARROW, "wrapping": WRAPPING, "tight": TIGHT}
PARTS = ("tensors", "gradients", "contributions", "parameter_gradients", "forward", "backward")
ARRAYS = ("master", "velocity", "working", "mask", "back", "lanes")


def samples_of(rng: np.random.Generator, network: Trainable, count: int) -> tuple[Any, Any]:
    """Draw samples and labels."""
    classes = network.shapes[network.output][-1]
    return rng.standard_normal((count, *network.shapes[network.input])).astype(np.float32), rng.integers(0, classes, count)


def same(a: Any, b: Any) -> bool:
    """Compare arrays, or None."""
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def compare(state: State, other: State) -> None:
    """Compare two states, every bit of them."""
    assert state.step == other.step
    assert state.formats.keys() == other.formats.keys()
    for name, each in state.formats.items():
        assert dataclasses.astuple(each) == dataclasses.astuple(other.formats[name]), name
    for name, parameter in state.parameters.items():
        for part in ARRAYS:
            assert same(getattr(parameter, part), getattr(other.parameters[name], part)), (name, part)
    for name, statistics in state.statistics.items():
        assert np.array_equal(statistics, other.statistics[name]), name


def follow_twin(
    network: Trainable, config: AcceleratorConfig, recipe: Recipe, state: State, batches: list[tuple[Any, Any]]
) -> dict[str, int]:
    """Run steps beside the twin's and compare everything; return what happened, counted."""
    twin = Twin(network, config, recipe, copy.deepcopy(state), course.pruned(network, recipe))
    seen = {"saturated": 0, "overflowed": 0, "moved": 0}
    for x, labels in batches:
        before = {name: each.frac for name, each in state.formats.items()}
        outcome = step.step(network, config, recipe, state, x, labels, recipe.rate, keep=True)
        found, record = twin.run(x, labels, recipe.rate), outcome.record
        assert record is not None
        for part in PARTS:
            own, others = getattr(record, part), getattr(found, part)
            assert own.keys() == others.keys(), part
            for key, values in own.items():
                assert np.array_equal(values, others[key]), (part, key)
        assert outcome.saturated == {name: count for name, count in found.saturated.items() if count}
        assert outcome.overflowed == {key: count for key, count in found.overflowed.items() if count}
        compare(state, twin.state)
        seen["saturated"] += sum(outcome.saturated.values())
        seen["overflowed"] += sum(outcome.overflowed.values())
        seen["moved"] += sum(before[name] != each.frac for name, each in state.formats.items())
    return seen


def raise_fractions(rng: np.random.Generator, network: Trainable, state: State) -> None:
    """Take headroom from some formats, so that elements saturate."""
    for name, format in state.formats.items():
        if name not in formats.plan(network).fixed and name[-1] not in "^~" and name not in state.parameters and rng.random() < 0.4:
            format.frac += int(rng.integers(1, 5))
            if name[:-1] in state.parameters:
                format.frac = min(format.frac, state.formats[f"{name[:-1]}~"].frac)


@pytest.mark.parametrize("seed", range(40))
def test_steps_equal_plain_loops(seed):
    """Three steps of a random network: every tensor, gradient, weight, mask, format and count."""
    rng = np.random.default_rng((17, seed))
    config = list(CONFIGS.values())[seed % 5]
    network = random_trainable(rng)
    m = int(rng.integers(1, config.bundle + 1)) if config is not TIGHT else int(rng.integers(1, 4))
    recipe = Recipe(
        algorithm=ALGORITHMS[seed // 5 % 4],
        pattern=Pattern(int(rng.integers(1, m + 1)), m),
        dense=None if rng.random() < 0.7 else (),
        batch=2,
        rate=float(rng.choice([0.05, 1.0])),
        momentum=float(rng.choice([0.0, 0.9])),
        decay=float(rng.choice([0.0, 5e-4, 0.1])),
        sparse_decay=[None, 0.05][int(rng.integers(2))],
        refresh=int(rng.integers(1, 4)),
        rounding=["half_even", "stochastic"][int(rng.integers(2))],
        seed=seed,
    )
    batches = [samples_of(rng, network, 2) for _ in range(3)]
    state = step.prepare(network, config, recipe, *batches[0])
    if seed % 2:
        raise_fractions(rng, network, state)
    follow_twin(network, config, recipe, state, [(step.quantise(network, state, x), y) for x, y in batches])


@pytest.mark.parametrize("config", [NARROW, WRAPPING, TIGHT, CRAMPED], ids=["narrow", "wrapping", "tight", "cramped"])
def test_forced_overflow_and_saturation(config):
    """Narrow accumulators, and formats without headroom, whatever happens: the same bits, and the same counts."""
    rng = np.random.default_rng(5)
    b = Builder((5, 4, 4))
    x = b.relu(b.convolution("x", "first", 8, Window(kernel=(3, 3), stride=(2, 1), pads=(1,) * 4), biased=True), "relu")
    x = b.norm(b.convolution(x, "second", 8, Window(kernel=(3, 3), pads=(1,) * 4)), "norm")
    b.linear(b.max_pool(x, "pool", Window(kernel=(2, 2), pads=(0, 0, 1, 0))), "last", 4)
    network = b.network()
    recipe = Recipe(pattern=Pattern(1, 3), batch=3)
    batches = [samples_of(rng, network, 3) for _ in range(2)]
    state = step.prepare(network, config, recipe, *batches[0])
    for mark in ("relu.y", "last.y", "norm.y", "pool.y'", "second.weight'", "relu.y'"):
        root = formats.plan(network).shared.get(mark.removesuffix("'"), mark.removesuffix("'")) + "'" * mark.endswith("'")
        state.formats[root].frac += 3
    integers = [(step.quantise(network, state, x), y) for x, y in batches]
    seen = follow_twin(network, config, recipe, state, integers)
    assert seen["saturated"] > 0
    assert seen["overflowed"] > 0


def test_formats_follow_for_many_steps():
    """Seventy steps, through windows of 32: fractions rise where tensors have become small, fall where they saturate, as the twin's."""
    rng = np.random.default_rng(6)
    b = Builder((2, 1, 3))
    b.linear(b.relu(b.norm(b.linear("x", "first", 4), "norm"), "relu"), "last", 3)
    network = b.network()
    recipe = Recipe(batch=2, pattern=Pattern(1, 2), dense=(), decay=0.05, rate=0.2)
    x, y = samples_of(rng, network, 2)
    state = step.prepare(network, OCTETS, recipe, 8 * x, y)
    assert follow_twin(network, OCTETS, recipe, state, [(step.quantise(network, state, x), y)] * 70)["moved"] > 5


@pytest.mark.golden
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_step_without_a_compiler(algorithm):
    """The smallest network with a product, a mask and a normalisation; kernels run as Python where there is no compiler."""
    rng = np.random.default_rng(7)
    b = Builder((3, 3, 2))
    x = b.relu(b.norm(b.convolution("x", "first", 4, Window(kernel=(2, 2))), "norm"), "relu")
    b.linear(b.relu(b.convolution(x, "second", 4, Window(), biased=True), "relu2"), "last", 3)
    network, recipe = b.network(), Recipe(algorithm=algorithm, pattern=Pattern(1, 2), batch=2, rounding="stochastic")
    x, y = samples_of(rng, network, 2)
    state = step.prepare(network, WIDE, recipe, x, y)
    follow_twin(network, WIDE, recipe, state, [(step.quantise(network, state, x), y)] * 2)


@pytest.mark.golden
def test_fractions_of_magnitudes():
    """The largest value lies between a quarter and half of the range; powers of two are exact; 1 stands for 0."""
    for magnitude, expected in ((1.0, 0), (0.5, -1), (0.75, 0), (1.0001, 1), (8.0, 3), (2.0**-40, -40), (3e38, 128), (0.0, 0)):
        assert formats.exponent(magnitude) == expected
        if magnitude:
            assert 0.25 < magnitude * 2.0 ** (14 - expected) / 2**15 <= 0.5


@pytest.mark.golden
def test_a_format_follows_one_tensor():
    """One in 10,000 is rare; more is not. Up after 32 steps below an eighth, all in a row; never for a tensor of zeros."""
    network = random_trainable(np.random.default_rng(0))
    output = network.output

    def told(steps: list[tuple[int, int, int]]) -> int:
        """Return what the fraction has moved by after steps of (saturated, elements, peak)."""
        table = {output: Tracked(bits=8, frac=0)}
        for saturated, elements, peak in steps:
            counts = formats.Counts()
            counts.add(output, elements, saturated)
            counts.peaks[output] = peak
            formats.follow(network, table, counts)
        return table[output].frac

    assert told([(1, 10_000, 100)]) == 0
    assert told([(2, 10_000, 100)]) == -1
    assert told([(2, 10_000, 100)] * 3) == -3
    assert told([(0, 10, 15)] * 31) == 0
    assert told([(0, 10, 15)] * 32) == 1
    assert told([(0, 10, 15)] * 63) == 1
    assert told([(0, 10, 15)] * 64) == 2
    assert told([(0, 10, 16)] * 64) == 0
    assert told([(0, 10, 15)] * 31 + [(0, 10, 16)] + [(0, 10, 15)] * 31) == 0
    assert told([(0, 10, 15)] * 31 + [(1, 10, 127)] + [(0, 10, 15)] * 32) == 0
    assert told([(0, 10, 0)] * 64) == 0
    assert told([(0, 10, 0)] * 63 + [(0, 10, 1)]) == 1


def test_a_working_copy_keeps_its_format_until_it_is_written():
    """A fraction that has to move moves when the next working copy is written, and the one that is read stays right until then."""
    rng = np.random.default_rng(8)
    b = Builder((1, 1, 4))
    b.linear("x", "last", 3)
    network, recipe = b.network(), Recipe(batch=2)
    x, y = samples_of(rng, network, 2)
    state = step.prepare(network, WIDE, recipe, x, y)
    weight = state.formats["last.weight"]
    weight.frac += 2  # a working copy that saturates when it is written
    state.parameters["last.weight"].working *= 4
    integers = step.quantise(network, state, x)
    fractions = []
    for _ in range(4):
        step.step(network, WIDE, recipe, state, integers, y, 0.01)
        fractions.append((weight.frac, weight.change))
        master, working = state.parameters["last.weight"].master, state.parameters["last.weight"].working
        real = master * 2.0 ** -state.formats["last.weight^"].frac
        kept = np.clip(real, WIDE.weight.lo * 2.0**-weight.frac, WIDE.weight.hi * 2.0**-weight.frac)
        assert np.abs(working * 2.0**-weight.frac - kept).max() <= 2.0 ** (-weight.frac - 1)
    first = fractions[0][0]
    assert fractions[0] == (first, -1)
    assert fractions[1][0] == first - 1


def small(seed: int = 0, config: AcceleratorConfig = WIDE, **fields: Any) -> tuple[Trainable, Recipe, State, Any, Any]:
    """Prepare a small network of every kind of layer."""
    rng = np.random.default_rng(seed)
    b = Builder((6, 6, 3))
    x = b.relu(b.norm(b.convolution("x", "first", 8, Window(kernel=(3, 3), pads=(1,) * 4)), "norm"), "relu")
    y = b.relu(b.convolution(x, "second", 16, Window(kernel=(3, 3), stride=(2, 2), pads=(1,) * 4), biased=True), "relu2")
    x = b.relu(b.sum(y, b.convolution(x, "short", 16, Window(stride=(2, 2))), "sum"), "relu3")
    b.linear(b.average_pool(x, "pool", Window(kernel=(3, 3))), "last", 4)
    network, recipe = b.network(), Recipe(batch=4, **fields)
    x, y = samples_of(rng, network, 4)
    state = step.prepare(network, config, recipe, x, y)
    return network, recipe, state, step.quantise(network, state, x), y


@pytest.mark.parametrize("rounding", ["half_even", "stochastic"])
def test_two_runs_are_equal_with_any_number_of_threads(rounding):
    """Ten steps, twice, once with a single thread: the same state, every bit of it."""
    states = []
    before = numba.get_num_threads()
    for threads in (before, 1):
        numba.set_num_threads(threads)
        try:
            network, recipe, state, x, y = small(rounding=rounding)
            for _ in range(10):
                step.step(network, WIDE, recipe, state, x, y, 0.05)
        finally:
            numba.set_num_threads(before)
        states.append(state)
    compare(*states)


def test_a_record_does_not_change_a_step():
    """With `keep` and without: the same state; the copies of the parameters are those before and after."""
    network, recipe, state, x, y = small()
    other = copy.deepcopy(state)
    first = copy.deepcopy(state)
    outcome = step.step(network, WIDE, recipe, state, x, y, 0.05, keep=True)
    assert step.step(network, WIDE, recipe, other, x, y, 0.05).record is None
    compare(state, other)
    assert outcome.record is not None
    for name in state.parameters:
        for part in ARRAYS:
            assert same(getattr(outcome.record.before[name], part), getattr(first.parameters[name], part))
            assert same(getattr(outcome.record.after[name], part), getattr(state.parameters[name], part))


@pytest.mark.parametrize("config", [WIDE, OCTETS], ids=["wide", "octets"])
def test_a_record_replays_on_the_post_processor(config):
    """FF as the array and the post-processor do it, from the record alone: its results are the tensors that the record holds."""
    network, recipe, state, x, y = small(config=config)
    record = step.step(network, config, recipe, state, x, y, 0.05, keep=True).record
    assert record is not None
    for layer in network.convolutions:
        image = record.tensors[layer.inputs[0]].reshape(len(x), *network.image(layer.inputs[0]))
        window, shift = layer.window, record.shifts[layer.name, "FF"]
        positions = window.positions(*image.shape[1:3])
        place = Place(window.kernel, window.stride, window.dilation, window.pads[:2], positions, 0, layer.channels)
        post = Requantisation(
            bias=record.biases[layer.name],
            mult=np.int64(1 << max(-shift, 0)),
            shift=np.int64(max(shift, 0)),
            lo=record.floors[layer.name],
            hi=config.act.hi,
        )
        found = gemm(config, Patches(image, place), Weights(record.forward[layer.name].reshape(layer.filters, -1)), post)
        assert np.array_equal(found.value.ravel(), record.tensors[layer.output].ravel()), layer.name
        assert sum(job.beats * job.lanes for job in record.updates[f"{layer.name}.weight"]) == layer.reduction * layer.filters
    assert set(record.prunes) == {f"{name}.weight" for name in course.pruned(network, recipe)}


def test_masks_are_refreshed_and_kept_in_between():
    """With `refresh` 3 masks change after every third step only; FF and BP read zeros where they say so."""
    network, recipe, state, x, y = small(refresh=3, pattern=Pattern(2, 4), rate=0.5)
    masks = []
    for _ in range(7):
        record = step.step(network, WIDE, recipe, state, x, y, recipe.rate, keep=True).record
        assert record is not None
        before = record.before["second.weight"]
        assert before.mask is not None
        assert before.back is not None
        assert not record.forward["second"][~before.mask].any()
        assert not record.backward["second"][~before.back].any()
        assert bool(record.prunes) is (state.step % 3 == 0)
        masks.append((before.mask.copy(), before.back.copy()))
    changed = [not (same(a[0], b[0]) and same(a[1], b[1])) for a, b in itertools.pairwise(masks)]
    assert changed == [False, False, True, False, False, True]


def test_inference_is_the_forward_pass():
    """Without normalisation logits are those that the next step computes; with one, running statistics take the place of the batch's."""
    b = Builder((4, 4, 2))
    b.linear(b.relu(b.convolution("x", "first", 6, Window(kernel=(3, 3))), "relu"), "last", 3)
    network, recipe = b.network(), Recipe(batch=5)
    x, y = samples_of(np.random.default_rng(1), network, 5)
    state = step.prepare(network, WIDE, recipe, x, y)
    integers = step.quantise(network, state, x)
    for _ in range(3):
        logits = step.infer(network, WIDE, recipe, state, integers)
        record = step.step(network, WIDE, recipe, state, integers, y, 0.05, keep=True).record
        assert record is not None
        assert np.array_equal(logits, record.tensors[network.output])

    network, recipe, state, x, y = small()
    for _ in range(200):
        state.statistics["norm"] = state.statistics["norm"].copy()
        step.step(network, WIDE, recipe, state, x, y, 0.0)
    record = step.step(network, WIDE, recipe, state, x, y, 0.0, keep=True).record
    assert record is not None
    own, batch = step.infer(network, WIDE, recipe, state, x), record.tensors[network.output]
    assert np.abs(own - batch).max() < 2000  # of 16 bits: the running variance is that of the sample, a bit above the batch's
    before = copy.deepcopy(state)
    step.infer(network, WIDE, recipe, state, x)
    compare(state, before)


def test_training_learns():
    """Twenty steps on one batch halve the loss, and get most of it right, in 16 bits and in 8."""
    for config in (WIDE, OCTETS):
        network, recipe, state, x, y = small(config=config, rate=0.1)
        outcomes = [step.step(network, config, recipe, state, x, y, recipe.rate) for _ in range(20)]
        assert outcomes[-1].loss < outcomes[0].loss / 2
        assert outcomes[-1].correct >= 3


@pytest.mark.golden
def test_samples_are_quantised():
    """Half to even, saturated, in either order of axes; the input's format does not move."""
    b = Builder((2, 3, 4))
    b.linear("x", "last", 3)
    network, recipe = b.network(), Recipe(batch=1)
    x = np.zeros((1, 2, 3, 4), np.float32)
    x[0, 0, 0] = [1.0, 0.5, -1.0, 0.25]
    state = step.prepare(network, OCTETS, recipe, x, np.array([0]))
    assert state.formats["x"].frac == 6
    values = np.array([2.0**-7, 3 * 2.0**-7, -100.0, 100.0], np.float32)
    x[0, 0, 0] = values
    found = step.quantise(network, state, x)
    assert found.dtype == np.int8
    assert found[0, 0, 0].tolist() == [0, 2, -128, 127]
    assert np.array_equal(step.quantise(network, state, x.transpose(0, 3, 1, 2)), found)


@pytest.mark.golden
def test_what_cannot_be_trained():
    b = Builder((2, 2, 4))
    b.linear("x", "last", 3)
    network, x, y = b.network(), np.ones((2, 2, 2, 4), np.float32), np.array([0, 1])

    def refused(error: type[Exception], message: str, net: Trainable = network, samples: Any = x, **fields: Any) -> None:
        with pytest.raises(error, match=message):
            step.prepare(net, dataclasses.replace(WIDE, **fields), Recipe(batch=2, dense=()), samples, y)

    refused(ConfigError, r"^weight_bits must be act_bits \(16\) to train, not 8$", weight_bits=8)
    refused(ConfigError, r"^act_bits must be in \[4, 16\] to train, not 18$", act_bits=18, weight_bits=18)
    refused(ConfigError, r"^act_bits must be in \[4, 16\] to train, not 3$", act_bits=3, weight_bits=3)
    refused(RangeError, r"^pattern must have M at most the bundle size 4, not 2:8$", bundle=4, port=4)
    refused(RangeError, r"^pattern must have M at most the 4 columns of the array, not 2:8$", cols=4)
    refused(
        RangeError,
        r"^samples must be of shape \(samples, 2, 2, 4\) or \(samples, 4, 2, 2\), not \(2, 2, 4, 2\)$",
        samples=x.reshape(2, 2, 4, 2),
    )
    refused(RangeError, r"^x must be finite in calibration, not inf$", samples=np.where(x > 0, np.float32(np.inf), x))
    b = Builder((2, 2, 4))
    b.add(Gelu(name="gelu", inputs=("x",), output="gelu.y"), (2, 2, 4))
    b.linear("gelu.y", "last", 3)
    refused(NetworkError, "^gelu must be of a kind that is computed, not Gelu, which is counted only$", b.network())
    b = Builder((2, 2, 4))
    b.convolution("x", "last", 3, Window())
    refused(NetworkError, r"^last.y must be one row of logits, not of shape \(2, 2, 3\)$", b.network())


@pytest.mark.golden
def test_samples_of_another_kind_are_refused():
    b = Builder((2, 2, 4))
    b.linear(b.norm("x", "norm"), "last", 3)  # whose running statistics an error must not move
    network, recipe, y = b.network(), Recipe(batch=2), np.array([0, 1])
    state = step.prepare(network, OCTETS, recipe, np.ones((2, 2, 2, 4), np.float32), y)
    before = copy.deepcopy(state)
    x = step.quantise(network, state, np.ones((2, 2, 2, 4), np.float32))
    samples: Any
    shape = r"^samples must be integers of shape \(samples, 2, 2, 4\), not {}$"
    for samples, message in (
        (x.astype(np.float32), shape.format(r"float32 of shape \(2, 2, 2, 4\)")),
        (x[:, :1], shape.format(r"int8 of shape \(2, 1, 2, 4\)")),
        (x.astype(np.int16) * 2, r"^samples must be in \[-128, 127\], not 128..128$"),
    ):
        with pytest.raises(RangeError, match=message):
            step.step(network, OCTETS, recipe, state, samples, y, 0.1)
    for labels, message in (
        (np.array([0, 3]), r"^labels must be in \[0, 2\], not 0..3$"),
        (np.array([0]), r"^labels must be integers of shape \(2,\), not int64 of shape \(1,\)$"),
    ):
        with pytest.raises(RangeError, match=message):
            step.step(network, OCTETS, recipe, state, x, labels, 0.1)
    compare(state, before)
    assert step.infer(network, OCTETS, recipe, state, x[:0]).shape == (0, 3)


def test_fractions_beyond_the_multiplier_are_lowered():
    """A result's fraction is at most mult_bits - 1 above that of its products, whatever the formats became."""
    network, recipe, state, x, y = small()
    for name, format in state.formats.items():
        if name not in formats.plan(network).fixed and name[-1] not in "^~" and name not in state.parameters:
            format.frac += 60 * (not name.startswith(tuple(state.parameters)))
    record = step.step(network, WIDE, recipe, state, x, y, 0.01, keep=True).record
    assert record is not None
    assert min(record.shifts.values()) == 1 - WIDE.mult_bits


def test_a_step_of_the_preset():
    """The preset's own 32 columns and 48-bit accumulators, a network of every kind of layer, beside the twin."""
    config = presets.load("sat-vcu1525")
    network, recipe, state, x, y = small(config=config, rounding="stochastic", refresh=2)
    follow_twin(network, config, recipe, state, [(x[:1], y[:1])] * 2)


def test_speed_is_measured():
    """The bench's smaller row runs, learns something, and has a place in its tables."""
    found = bench.digits_epoch("bdwp", "sat-vcu1525", 1)
    assert found["best"] > 0
    assert found["accuracy"] > 0.5
    row = {"network": "digits-cnn", "algorithm": "bdwp", "memory": 1.0, **found}
    assert sum(line.startswith("| bdwp |") for line in bench.lines({"rows": [row]})) == 1


@pytest.mark.golden
def test_the_twin_accumulates():
    """The twin's own accumulator: saturated or wrapped after every addition."""
    for overflow, expected in (("saturate", 127 - 100), ("wrap", 100)):
        total = naive_training.Accumulator(dataclasses.replace(OCTETS, acc_bits=8, overflow=overflow))
        for value in (100, 100, -100):
            total.add(value)
        assert (total.sum, total.overflowed) == (expected, True)
