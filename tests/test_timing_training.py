"""What the vector unit's work costs in a training step: pinned pass by pass, beat by beat, and equal to inference where that has it too."""

from __future__ import annotations

import pytest

from accel import isa
from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.graph import trainable
from accel.timing.core import core_vector
from accel.timing.special import special
from accel.timing.training import BACKWARD, BITS, FORWARD, JOB, MOMENTS, SCALARS, Cost, Pass, gather, rectified, training

CONFIG = AcceleratorConfig(rows=4, cols=4)
POOLS = ("MaxPool", "AveragePool")

# Kind; sweeps, what is read and written, cycles beside the beats in a tile of 3 rows of 5 on 4 lanes, lag; pass by pass.
# Trees over 4 lanes take 2, a gap 4, scalars of 5 channels 140 + 4.
TABLE = {
    "forward": {
        "BatchNorm": [(1, "x", "y", 144, 4)],
        "Relu": [(1, "x", "y", 0, 4)],
        "Clip": [(1, "x", "y", 0, 4)],
        "Add": [(2, "x x", "y", 0, 9)],
        "MaxPool": [(1, "x", "y place", 0, 9)],
        "AveragePool": [(1, "x", "y", 0, 9)],
        "LayerNorm": [(3, "x", "y moments", 2 * 4 + 2 + 62, 4)],
        "Gelu": [(1, "x", "y", 0, 4)],
        "Softmax": [(3, "x", "y", 2 * 4 + 2 * 2 + 20, 4)],
        "Bias": [(2, "x", "y", 0, 9)],
        "Loss": [(3, "x", "dx", 2 * 4 + 2 * 2 + 20, 4)],
    },
    "backward": {
        "BatchNorm": [(1, "dy x", "", 0, 4), (1, "dy x", "dx", 144, 10)],
        "Relu": [],
        "Clip": [],
        "Add": [],
        "MaxPool": [(1, "dy place", "dx", 0, 9)],
        "AveragePool": [(1, "dy", "dx", 0, 9)],
        "LayerNorm": [(6, "dy x moments", "dx", 5 * 4 + 2 * 2, 4)],
        "Gelu": [(2, "dy x", "dx", 0, 4)],
        "Softmax": [(2, "dy y", "dx", 4 + 2, 4)],
        "Bias": [(1, "dy", "", 0, 4)],
        "Columns": [(1, "dy", "", 0, 4)],
        "Prune": [(1, "dy", "", 0, 4), (1, "dy", "pairs", 20 + 4, 4)],
    },
}
WORK = {"forward": FORWARD, "backward": BACKWARD}
CASES = [(way, kind) for way in TABLE for kind in TABLE[way]]


@pytest.mark.parametrize(("way", "kind"), CASES)
def test_table(way, kind):
    """Each sweep takes 3 rows of 2 beats, for each tap of a window."""
    taps = 9 if kind in POOLS else 1
    found = [(each, training(CONFIG, each, 3, 5, taps)) for each in WORK[way][kind]]
    assert [(work.sweeps, " ".join(work.reads), " ".join(work.writes), *cost) for work, cost in found] == [
        (sweeps, reads, writes, sweeps * taps * 3 * 2 + beside, lag) for sweeps, reads, writes, beside, lag in TABLE[way][kind]
    ]


def test_tables_name_every_layer():
    """What can be a layer of a network and is no product of the array; what moves takes no cycle."""
    layers = {layer.__name__ for layer in trainable.Layer.__subclasses__()} - {"Convolution", "Product"}
    assert layers | {"Loss"} <= set(FORWARD) == {*TABLE["forward"], "Move"}
    assert layers | {"Columns", "Prune"} <= set(BACKWARD) == {*TABLE["backward"], "Move"}
    for tables in WORK.values():
        (move,) = tables["Move"]
        assert training(CONFIG, move, 3, 5) == Cost(0, 0)
        assert {*move.reads, *move.writes} in ({"x", "y"}, {"dy", "dx"})
    assert (BITS, MOMENTS) == ({"mask": 1, "place": 8}, 64)


@pytest.mark.parametrize(("kind", "same"), [("LayerNorm", "LayerNorm"), ("Softmax", "Softmax"), ("Loss", "Softmax"), ("Gelu", "Lookup")])
@pytest.mark.parametrize(("rows", "row"), [(1, 1), (3, 4), (7, 8), (2, 64)])
def test_forward_costs_what_inference_does(kind, same, rows, row):
    """Of a tile that is the whole tensor, rows of full beats where the operator has none of its own."""
    row = row if same != "Lookup" else 4 * row
    (work,) = FORWARD[kind]
    assert sum(training(CONFIG, work, rows, row)) == special(CONFIG, same, rows * row, row)


@pytest.mark.parametrize("kind", ["Add", "Bias", *POOLS])
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_sums_and_maxima_cost_what_hardware_takes(kind, rows):
    (work,) = FORWARD[kind]
    taps = 9 if kind in POOLS else 1
    job = isa.Vector(reduce=isa.Reduce.SUM, rows=rows * 3, window=work.sweeps * taps)
    assert sum(training(CONFIG, work, rows, 12, taps)) == core_vector(CONFIG, [job])
    assert sum(training(CONFIG, gather(3), rows, 12)) == core_vector(CONFIG, [isa.Vector(reduce=isa.Reduce.SUM, rows=rows * 3, window=3)])


def test_scalars_by_channel_come_once_for_a_batch_and_with_each_image_where_it_has_its_own():
    forward, backward, prune = FORWARD["BatchNorm"][0], BACKWARD["BatchNorm"][1], BACKWARD["Prune"][1]
    for work in (forward, backward):
        assert work.whole
        assert training(CONFIG, work, 3, 5, first=False).cycles == training(CONFIG, work, 3, 5).cycles - SCALARS - 4 == 6
    assert not prune.whole
    assert training(CONFIG, prune, 3, 5, first=False) == training(CONFIG, prune, 3, 5)
    assert not BACKWARD["BatchNorm"][0].whole  # starts with the first image


def test_gather():
    assert gather(3) == Pass(3, ("dy", "dy", "dy"), ("dx",), lag=JOB)
    assert training(CONFIG, gather(3), 3, 5) == Cost(3 * 3 * 2, 9)
    with pytest.raises(RangeError, match=r"^readers must be 2 or more, not 1$"):
        gather(1)


def test_a_mask_goes_with_the_result_and_with_its_gradient():
    assert rectified(FORWARD["BatchNorm"][0]).writes == ("y", "mask")
    assert [(work.reads, work.writes) for work in map(rectified, BACKWARD["BatchNorm"])] == [
        (("dy", "x", "mask"), ()),
        (("dy", "x", "mask"), ("dx",)),
    ]
    assert rectified(gather(2)).reads == ("dy", "dy", "mask", "mask")
    for way, kind in CASES:
        for work in WORK[way][kind]:
            assert training(CONFIG, rectified(work), 3, 5) == training(CONFIG, work, 3, 5)  # it costs no cycle


@pytest.mark.parametrize(("name", "arguments"), [("rows", (0, 1, 1)), ("row", (1, 0, 1)), ("taps", (1, 1, 0))])
def test_arguments_are_checked(name, arguments):
    with pytest.raises(RangeError, match=rf"^{name} must be 1 or more, not 0$"):
        training(CONFIG, FORWARD["Relu"][0], *arguments)
