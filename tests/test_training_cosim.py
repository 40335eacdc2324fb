"""Two whole training steps of a CNN in the RTL: FF, BP, WU, update and pruning, every bit and every cycle."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from accel import presets
from accel.errors import MismatchError
from accel.graph.trainable import Add, BatchNorm, Convolution, Relu, Trainable
from accel.graph.window import Window
from accel.sim import training
from accel.sparsity import Pattern
from accel.timing.sore import sore
from accel.timing.wuve import wuve
from accel.training.recipe import Recipe

TINY = presets.load("tiny")
STEPS = 2
BATCH = 3


def cnn() -> Trainable:
    """Three convolutions, padded, one of stride 2, one of two groups, a batch normalisation, a residual sum and a linear layer."""
    layers, shapes = [], {"x": (6, 6, 3)}

    def put(kind, name, inputs, shape, **fields):
        layers.append(kind(name=name, inputs=inputs, output=name, **fields))
        shapes[name] = shape
        return name

    def convolution(x, name, filters, stride=1, groups=1, biased=True):
        height, width, channels = shapes[x]
        window = Window(kernel=(3, 3), stride=(stride, stride), pads=(1, 1, 1, 1))
        shape = (*window.positions(height, width), filters)
        return put(Convolution, name, (x,), shape, window=window, channels=channels, filters=filters, groups=groups, biased=biased)

    x = put(Relu, "relu1", (convolution("x", "conv1", 8),), (6, 6, 8))
    x = put(BatchNorm, "norm", (convolution(x, "conv2", 12, 2, biased=False),), (3, 3, 12))
    x = put(Relu, "relu2", (x,), (3, 3, 12))
    x = put(Add, "sum", (x, convolution(x, "conv3", 12, groups=2)), (3, 3, 12))
    last = put(Convolution, "fc", (x,), (5,), window=Window(kernel=(3, 3)), channels=12, filters=5, linear=True, biased=True)
    return Trainable(name="cnn", shapes=shapes, layers=tuple(layers), input="x", output=last)


def task() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((BATCH, 6, 6, 3)).astype(np.float32), rng.integers(0, 5, BATCH)


RECIPES = {
    "bdwp": Recipe(pattern=Pattern(2, 4), batch=BATCH, rounding="stochastic"),
    "sr-ste": Recipe(algorithm="sr-ste", pattern=Pattern(1, 4), batch=BATCH),
    "sdgp": Recipe(algorithm="sdgp", pattern=Pattern(2, 4), batch=BATCH),
    "bdwp of 3": Recipe(pattern=Pattern(2, 3), batch=BATCH, refresh=2),  # strips of three lanes of four
}


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_in_the_rtl(name):
    network, recipe = cnn(), RECIPES[name]
    told = []
    found = training.cosim_training(network, TINY, recipe, *task(), steps=STEPS, progress=lambda *said: told.append(said))
    names = [layer.name for layer in network.convolutions]
    assert set(found.products) == {(each, stage) for each in names for stage in ("FF", "BP", "WU")} - {("conv1", "BP")}
    assert all(found.products.values())
    parameters = {f"{each}.weight" for each in names} | {"conv1.bias", "conv3.bias", "fc.bias", "norm.gamma", "norm.beta"}
    assert set(found.updates) == parameters
    assert set(found.prunes) == (set() if name == "sdgp" else {"conv2.weight", "conv3.weight"})
    assert told[-1][0] == told[-1][1]
    assert sum(result.words for result in found.hardware.values()) > 1000


def test_updates_take_the_cycles_that_are_stated():
    """The sums over jobs are those of the closed forms, which the benches measure case by case."""
    network, recipe = cnn(), RECIPES["sr-ste"]
    found = training.cosim_training(network, TINY, recipe, *task(), steps=1)
    record = next(training._records(network, TINY, recipe, *task(), 1))
    assert found.updates == {name: wuve(TINY, jobs) for name, jobs in record.updates.items()}
    assert found.prunes == {name: sore(TINY, jobs) for name, jobs in record.prunes.items()}


def flipped(array):
    """Change one integer, or one flag."""
    changed = array.copy()
    place = tuple(size // 2 for size in array.shape)
    changed[place] = not changed[place] if changed.dtype == bool else changed[place] - 1
    return changed


def spoilt(record, what):
    """Plant a fault in what a step recorded."""
    tables = {
        "FF": (record.tensors, "conv2"),
        "BP": (record.contributions, ("conv2", 0)),
        "WU": (record.parameter_gradients, "conv2.weight"),
    }
    if what in tables:
        table, key = tables[what]
        table[key] = flipped(table[key])
    else:
        after = record.after["conv2.weight"]
        record.after["conv2.weight"] = dataclasses.replace(after, **{what: flipped(getattr(after, what))})
    return record


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("FF", "FF of conv2 in step 1"),
        ("BP", "BP of conv2 in step 1"),
        ("WU", "WU of conv2 in step 1"),
        ("velocity", "velocity of conv2.weight after step 1"),
        ("master", "master of conv2.weight after step 1"),
        ("working", "working of conv2.weight after step 1"),
        ("mask", "weights of conv2.weight kept after step 1"),
        ("back", "weights of conv2.weight kept after step 1"),
    ],
)
def test_planted_fault_is_found(monkeypatch, what, message):
    """A single wrong integer of a step is found, and named."""
    records = training._records
    monkeypatch.setattr(training, "_records", lambda *told: (spoilt(record, what) for record in records(*told)))
    monkeypatch.setattr(training, "cosim", lambda *_, **__: pytest.fail("a simulator runs"))
    order = ["_products", "_updates", "_prunes"]
    used = {"FF": 0, "BP": 0, "WU": 0, "velocity": 1, "master": 1, "working": 1, "mask": 2, "back": 2}[what]
    for name in order[:used]:  # the parts before the one that must see it
        monkeypatch.setattr(training, name, lambda *_: iter(()))
    monkeypatch.setattr(training, "write_steps", lambda *_: None) if used else None
    monkeypatch.setattr(training, "write_updates", lambda *_: None) if used > 1 else None
    if used:
        monkeypatch.setattr(training, "cosim", lambda *_, **__: None)
    with pytest.raises(MismatchError, match=f"^{message}: "):
        training.cosim_training(cnn(), TINY, RECIPES["bdwp"], *task(), steps=1)


def test_schedule_that_counts_other_cycles_is_found(monkeypatch):
    """A cycle too many in the schedule of one product."""
    jobs = training._products

    def late(*told):
        for job in jobs(*told):
            counts = job.found.cost.counts
            assert counts is not None
            counts = dataclasses.replace(counts, total=counts.total + 1)
            yield job._replace(found=dataclasses.replace(job.found, cost=dataclasses.replace(job.found.cost, counts=counts)))

    monkeypatch.setattr(training, "_products", late)
    monkeypatch.setattr(training, "_updates", lambda *_: iter(()))
    monkeypatch.setattr(training, "_prunes", lambda *_: iter(()))
    real = vars(training)["cosim"]
    monkeypatch.setattr(training, "cosim", lambda block, *told, **more: real(block, *told, **more) if block == "core" else None)
    with pytest.raises(MismatchError, match=r"^FF of conv1: \d+ cycles scheduled, \d+ measured in the RTL$"):
        training.cosim_training(cnn(), TINY, RECIPES["bdwp"], *task(), steps=1)
