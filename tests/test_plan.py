"""Cuts, searches and schedules of networks: plain twins of what a cut costs, every cut tried, and what must hold of any memory system."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import accel
from accel import presets, simulate
from accel.config import AcceleratorConfig
from accel.errors import NetworkError, RangeError
from accel.graph.graph import Given, Graph, Node
from accel.graph.network import Host, MatrixProduct, Network, Port, Sum, Tensor
from accel.graph.window import Window
from accel.isa import Dataflow
from accel.schedule import plan as plans
from accel.schedule.gemm import Gemm, fronts, reduction, schedule
from accel.schedule.lower import lower
from accel.schedule.memory import Region, Stages
from accel.schedule.plan import Schedule, plan
from accel.schedule.search import Accesses, Kept, ProductWork, Tiling, VectorWork, accesses, compulsory, evaluate, search, smallest
from accel.sparsity import Pattern
from accel.timing.postprocess import STAGES
from tests.naive_array import blocks, configs
from tests.random_network import ARRAY, SPECIAL, random_network
from tests.test_gemm import bundles
from tests.test_memory import clocked, read

TINY = presets.load("tiny")
MORE = (
    {"dram_gbs": 2},
    {"dram_latency": 0.5},
    {"act_kb": 2},
    {"weight_kb": 2},
    {"out_kb": 2},
    {"keep_kb": 2},
)  # what is scaled by how much


@st.composite
def machines(draw: st.DrawFn) -> AcceleratorConfig:
    """Draw a small array on a slow or a fast memory."""
    return draw(
        configs(
            acc_rows=draw(st.sampled_from([3, 7, 64])),
            act_bits=draw(st.sampled_from([8, 12])),
            clock_mhz=100.0,
            dram_gbs=draw(st.sampled_from([0.05, 0.15, 0.8, 10])),
            dram_latency=draw(st.integers(0, 30)),
            act_kb=draw(st.integers(1, 3)),
            weight_kb=draw(st.integers(1, 3)),
            out_kb=draw(st.integers(1, 3)),
        )
    )


@st.composite
def products(draw: st.DrawFn, config: AcceleratorConfig, rows: int = 40) -> ProductWork:
    """Draw a convolution, or a product of two activations."""
    size, count = draw(st.tuples(st.integers(1, 6), st.integers(1, 6))), draw(st.integers(1, 2))
    window = draw(
        st.sampled_from([Window(), Window(kernel=(3, 3), pads=(1, 1, 1, 1)), Window(kernel=(2, 3), stride=(2, 2), pads=(1, 1, 1, 1))])
    )
    top = draw(st.integers(1, config.bundle))
    channels, pattern = draw(st.integers(1, 2 * config.bundle)), Pattern(draw(st.integers(1, top)), top)
    element = channels * ceil(config.act_bits / 8)
    region = Region(count, *size, window, element)
    assume(1 <= region.rows <= rows)
    gemm = Gemm(
        m=region.rows, n=draw(st.integers(1, 3 * config.cols * config.add_stages)), taps=window.taps, channels=channels, pattern=pattern
    )
    dynamic = draw(st.booleans())
    if dynamic:
        region, gemm = Region.plain(gemm.m, element), dataclasses.replace(gemm, taps=1, pattern=Pattern(config.bundle, config.bundle))
    return ProductWork(gemm=gemm, repeats=draw(st.integers(1, 3)), region=region, dynamic=dynamic)


def keeps(work: ProductWork | VectorWork) -> st.SearchStrategy[Kept]:
    operands = len(work.regions) if isinstance(work, VectorWork) else 1 + work.dynamic
    return st.builds(Kept, st.tuples(*[st.booleans()] * operands), st.booleans())


def plain(config: AcceleratorConfig, work: ProductWork, kept: Kept, tiling: Tiling) -> tuple[object, tuple[int, ...], tuple[int, ...]]:
    """Walk a cut stage by stage: its timeline by the clock, its bytes (each input, weights, results), and its largest tiles."""
    gemm, flow, word = work.gemm, tiling.dataflow, ceil(config.act_bits / 8)
    assert flow is not None
    held = bundles(schedule(config, gemm.m, gemm.n, gemm.taps, gemm.channels, gemm.pattern, flow))
    owner = [i for i, (pairs, _) in enumerate(held) for _ in range(pairs)]
    ends: list[int] = []
    for pair in range(1, len(owner) + 1):  # a chunk may end behind every k pairs; output stationary where a bundle does
        due = pair == len(owner) or pair - (ends[-1] if ends and flow is Dataflow.WS else 0) >= tiling.k
        if flow is Dataflow.OS:
            due = pair == len(owner) or (owner[pair] != owner[pair - 1] and pair // tiling.k > (ends[-1] if ends else 0) // tiling.k)
            if not due and pair < len(owner) and owner[pair] != owner[pair - 1]:
                due = pair % tiling.k == 0
        if due:
            ends.append(pair)
    areas = [
        (m, min(tiling.m, gemm.m - m), n, min(tiling.n, gemm.n - n)) for m in range(0, gemm.m, tiling.m) for n in range(0, gemm.n, tiling.n)
    ]
    areas.sort(key=lambda area: (area[2], area[0]) if tiling.outer == "n" else (area[0], area[2]))
    moved: list[list[int]] = []
    tiles = [0, 0, 0]
    there: list[object] = [None, None]
    for m, rows, n, columns in areas:
        for chunk, (first, last) in enumerate(itertools.pairwise([0, *ends])):
            elements = sum(held[i][1] for i in {*owner[first:last]})
            act = read(work.region, m, m + rows - 1)
            if len(ends) > 1:
                act = min(act, rows * elements * word)
            weight = columns * min(elements, gemm.k) * word
            if not work.dynamic:
                bits = (last - first) * (config.weight_bits + gemm.pattern.index_bits)
                weight = ceil(columns * (bits + (0 if chunk else config.acc_bits + config.mult_bits + 6)) / 8)
            free = kept.inputs[0], work.dynamic and kept.inputs[1]
            loads = [
                0 if on_chip or was == key else size
                for on_chip, was, key, size in zip(free, there, [(m, chunk), (n, chunk)], (act, weight), strict=True)
            ]
            there = [(m, chunk), (n, chunk)]
            made = rows * columns * word
            moved.append([*loads, made if last == len(owner) and not kept.output else 0])
            tiles = [max(a, b) for a, b in zip(tiles, (0 if free[0] else act, 0 if free[1] else weight, made), strict=True)]
    front = fronts(config, gemm, reduction(config, gemm), flow, tiling.blocks)
    act, weight, store = np.array(moved).T
    time = clocked(Stages(front.cycles, front.lag + STAGES, act + weight, store, work.repeats), config.dram_rate, config.dram_latency)
    sums = [work.repeats * int(each.sum()) for each in (act, weight, store)]
    return time, (sums[0], sums[1], 0, sums[2]) if work.dynamic else (sums[0], sums[1], sums[2]), tuple(tiles)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_cut_costs_what_a_walk_finds(data):
    """Cycles by the clock, bytes by stage, tiles against the scratchpads."""
    config = data.draw(machines())
    work = data.draw(products(config))
    kept, flow = data.draw(keeps(work)), data.draw(st.sampled_from(Dataflow))
    cut = data.draw(blocks(config, flow))
    depth = reduction(config, work.gemm).depth
    tiling = Tiling(m=min(cut.m, work.gemm.m), n=min(cut.n, work.gemm.n), k=min(cut.k, depth), outer=cut.outer, dataflow=flow)
    time, moved, tiles = plain(config, work, kept, tiling)
    limits = [512 * size for size in (config.act_kb, config.weight_kb, config.out_kb)]
    if any(tile > limit for tile, limit in zip(tiles, limits, strict=True)):
        with pytest.raises(RangeError, match=r"^tiles must fit half of \w+_kb \(\d+ bytes\), not take \d+ bytes$"):
            evaluate(config, work, kept, tiling)
        return
    cost = evaluate(config, work, kept, tiling)
    assert (*cost.traffic.reads, cost.traffic.weights, cost.traffic.written) == moved
    assert cost.time == time


def every(config: AcceleratorConfig, work: ProductWork, kept: Kept):
    """Try every cut of whole tiles; what breaks a rule is none."""
    gemm, depth = work.gemm, reduction(config, work.gemm).depth
    for flow, outer in itertools.product(Dataflow, "nm"):
        wide = config.cols * (config.add_stages if flow is Dataflow.OS else 1)
        for m, n, k in itertools.product(range(1, gemm.m + 1), range(wide, gemm.n + wide, wide), range(1, depth + 1)):
            if k == depth and m % config.rows and m != gemm.m:
                continue  # whole reductions are searched in whole tiles of rows
            if flow is Dataflow.OS and k < depth and k % reduction(config, gemm).pairs[0]:
                continue
            tiling = Tiling(m=m, n=min(n, gemm.n), k=k, outer=outer, dataflow=flow)
            try:
                yield evaluate(config, work, kept, tiling).time.total, flow
            except RangeError:
                continue


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_exhaustive_search_finds_the_best_of_all_cuts(data):
    config = data.draw(machines())
    work = data.draw(products(config, rows=6))
    kept = data.draw(keeps(work))
    costs = list(every(config, work, kept))
    found = search(config, work, kept, "exhaustive")
    if not costs:
        assert found is None
        return
    assert found is not None
    assert found.cost.time.total == min(total for total, _ in costs)
    others = [total for total, flow in costs if flow is not found.tiling.dataflow]
    assert (found.runner_up[1].time.total if found.runner_up else None) == min(others, default=None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_searches_find_what_there_is(data):
    """The quick ones find a cut wherever there is one, never better than the best, and what they find is what it costs."""
    config = data.draw(machines())
    work = data.draw(products(config, rows=20))
    kept = data.draw(keeps(work))
    found = {method: search(config, work, kept, method) for method in ("best", "fixed", "exhaustive")}
    best = found["exhaustive"]
    if best is None:
        limits = [512 * size for size in (config.act_kb, config.weight_kb, config.out_kb)]
        assert any(tile > limit for tile, limit in zip(smallest(config, work, kept), limits, strict=True))
        assert set(found.values()) == {None}
        return
    for each in found.values():
        assert each is not None
        assert each.cost == evaluate(config, work, kept, each.tiling)
        assert best.cost.time.total <= each.cost.time.total
        assert each.cost.traffic.total >= compulsory(config, work, kept).total
    for each in (found["best"], best):
        assert each is not None
        assert each.runner_up is None or each.runner_up[1].time.total >= each.cost.time.total


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_more_never_costs_a_cycle(data):
    """More bandwidth or scratchpad, less latency: under an exhaustive search and under the same cut."""
    config = data.draw(machines())
    work = data.draw(products(config, rows=12))
    kept, change = data.draw(keeps(work)), data.draw(st.sampled_from(MORE))
    ((name, factor),) = change.items()
    better = dataclasses.replace(config, **{name: type(getattr(config, name))(getattr(config, name) * factor)})
    found, more = (search(each, work, kept, "exhaustive") for each in (config, better))
    if found is None:
        return
    assert more is not None
    assert more.cost.time.total <= found.cost.time.total
    assert evaluate(better, work, kept, found.tiling).time.total <= found.cost.time.total


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_larger_array_costs_its_fill_and_drain_at_most(data):
    """In either dataflow the cycles that are neither never get more with more rows or columns."""
    config = data.draw(configs(acc_rows=data.draw(st.sampled_from([3, 64]))))
    gemm, flow, edge = data.draw(products(config)).gemm, data.draw(st.sampled_from(Dataflow)), data.draw(st.sampled_from(["rows", "cols"]))
    larger = dataclasses.replace(config, **{edge: 2 * getattr(config, edge)})
    small, large = (schedule(each, gemm.m, gemm.n, gemm.taps, gemm.channels, gemm.pattern, flow) for each in (config, larger))
    assert large.counts.issued + large.counts.port <= small.counts.issued + small.counts.port
    if flow is Dataflow.OS:
        extra = large.config.add_stages * large.config.rows + large.config.cols - config.add_stages * config.rows - config.cols
        assert large.cycles <= small.cycles + extra


@st.composite
def vectors(draw: st.DrawFn) -> VectorWork:
    """Draw a pooling, or rows of one or two tensors that may be needed more than once."""
    cycles, channels = draw(st.integers(0, 300)), draw(st.integers(1, 9))
    if draw(st.booleans()):
        region = Region(2, draw(st.integers(2, 6)), draw(st.integers(2, 6)), Window(kernel=(2, 2), stride=(1, 2)), channels)
        return VectorWork(rows=region.rows, cycles=cycles, regions=(region,), result=channels, channels=channels)
    if draw(st.booleans()):
        region = Region.plain(draw(st.integers(1, 12)), channels)
        result, passes = draw(st.sampled_from([1, channels])), draw(st.integers(1, 3))
        return VectorWork(rows=region.rows, cycles=cycles, regions=(region,), result=result, channels=channels, passes=passes)
    rows = draw(st.integers(1, 60))
    regions = tuple(Region.plain(rows, draw(st.integers(1, 4))) for _ in range(draw(st.integers(1, 2))))
    return VectorWork(rows=rows, cycles=cycles, regions=regions, result=draw(st.integers(1, 8)))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_vector_work_goes_through_at_a_constant_rate(data):
    config, work = data.draw(machines()), data.draw(vectors())
    kept, size, width = data.draw(keeps(work)), data.draw(st.integers(1, 60)), data.draw(st.integers(1, work.channels))
    whole = width == work.channels
    cycles: list[int] = []
    reads: list[list[int]] = [[] for _ in work.regions]
    stores: list[int] = []
    done = 0
    passes = 1 if whole else work.passes
    for first in range(0, work.rows, size):
        last = min(first + size, work.rows)
        for turn in range(passes):
            for channel in range(0, work.channels, width):
                end = min(channel + width, work.channels)
                before, done = done, done + (last - first) * (end - channel)
                total = work.rows * work.channels * passes
                cycles.append(work.cycles * done // total - work.cycles * before // total)
                for into, region, on_chip in zip(reads, work.regions, kept.inputs, strict=True):
                    bytes_ = read(region, first, last - 1)
                    into.append(0 if on_chip else bytes_ * end // work.channels - bytes_ * channel // work.channels)
                made = (last - first) * work.result
                made = made * end // work.channels - made * channel // work.channels
                stores.append(0 if kept.output or turn < passes - 1 else made)
    stages = Stages(np.array(cycles), np.zeros(len(cycles), np.int64), np.sum(reads, axis=0), np.array(stores))
    tiling = Tiling(m=size) if whole else Tiling(m=size, n=width)
    cost = evaluate(config, work, kept, tiling)
    assert cost.time == clocked(stages, config.dram_rate, config.dram_latency)
    assert (cost.traffic.reads, cost.traffic.weights, cost.traffic.written) == (tuple(map(sum, reads)), 0, sum(stores))
    assert cost.time.compute == work.cycles
    best = search(config, work, kept, "exhaustive")
    assert best is not None
    for each in (search(config, work, kept, method) for method in ("best", "fixed")):
        assert each is not None
        assert best.cost.time.total <= each.cost.time.total
    if whole or width % config.cols == 0:
        assert best.cost.time.total <= cost.time.total
    assert cost.traffic.total >= compulsory(config, work, kept).total


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_accesses_are_those_of_the_tiles(data):
    """Tile by tile: activations and pairs that each takes, partial sums that each leaves for the next."""
    config = data.draw(machines())
    work = data.draw(products(config))
    flow = data.draw(st.sampled_from(Dataflow))
    cut = data.draw(blocks(config, flow))
    gemm, word = work.gemm, ceil(config.act_bits / 8)
    tiled = schedule(config, gemm.m, gemm.n, gemm.taps, gemm.channels, gemm.pattern, flow, cut)
    held = bundles(tiled)
    owner = [i for i, (pairs, _) in enumerate(held) for _ in range(pairs)]
    acts = pairs = sums = 0
    for at in tiled.placed():
        acts += at.rows * sum(held[i][1] for i in {*owner[at.pair : at.pair + at.pairs]})
        pairs += at.pairs * at.cols
        if flow is Dataflow.WS:
            sums += at.rows * at.cols * ((not at.tile.first) + (not at.tile.last))
    bits = pairs * (config.weight_bits + gemm.pattern.index_bits)
    tiling = Tiling(m=cut.m, n=cut.n, k=cut.k, outer=cut.outer, dataflow=flow)
    expected = Accesses(acts * word + ceil(bits / 8), gemm.m * gemm.n * word, sums * ceil(config.acc_bits / 8))
    assert accesses(config, work, tiling) == Accesses(*(work.repeats * each for each in expected))


def network(seed: int, operators: int = 6) -> Network:
    return random_network(np.random.default_rng(seed), operators, kinds=(*ARRAY, *SPECIAL))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("search", ["best", "fixed"])
def test_a_network_adds_up(seed, search):
    """Slots by cause, bounds, compulsory traffic, and the table of tensors beside the layers."""
    config = dataclasses.replace(TINY, keep_kb=seed % 3, dram_gbs=0.1 * 4 ** (seed % 4))
    result = simulate(network(seed), config, batch=1 + seed % 2, search=search)
    elements = config.rows * config.cols
    for layer in result.layers:
        assert sum(layer.causes.values()) == elements * layer.cycles
        assert min(layer.causes.values()) >= 0
        assert layer.bound_cycles <= layer.cycles
        assert layer.compute_cycles <= layer.cycles
        assert layer.dram_least <= layer.dram
        waits = layer.causes["wait load"] + layer.causes["wait store"]
        assert layer.cycles == layer.compute_cycles + waits // elements
        if layer.roof and layer.roof.intensity:
            assert layer.roof.attained <= layer.roof.attainable
    tensors = result.traffic.values()
    assert sum(each.read for each in tensors) == sum(layer.dram_read_activations for layer in result.layers)
    assert sum(each.written for each in tensors) == sum(layer.dram_written for layer in result.layers)
    assert all(not each.kept or each.read == each.written == 0 for each in tensors)
    assert result.cycles == sum(layer.cycles for layer in result.layers)


@pytest.mark.parametrize("seed", range(6))
def test_a_schedule_is_replayed(seed, tmp_path):
    """From the value, from a file, and on a better machine, where it costs no more."""
    config = dataclasses.replace(TINY, keep_kb=1, dram_gbs=0.2)
    first = simulate(network(seed), config)
    path = tmp_path / "schedule.json"
    path.write_text(first.schedule.to_json())
    assert Schedule.load(path) == first.schedule
    for source in (first.schedule, path, str(path)):
        again = simulate(network(seed), config, schedule=source)
        assert [dataclasses.replace(layer, runner_up=None) for layer in first.layers] == list(again.layers)
        assert (again.schedule, again.traffic) == (first.schedule, first.traffic)
    for change in MORE:
        ((name, factor),) = change.items()
        better = dataclasses.replace(config, **{name: type(getattr(config, name))(getattr(config, name) * factor)})
        assert simulate(network(seed), better, schedule=first.schedule).cycles <= first.cycles


@pytest.mark.parametrize("seed", range(4))
def test_more_never_costs_a_network_a_cycle(seed):
    """Every choice of kept tensors included."""
    net = random_network(np.random.default_rng(seed), 3, channels=6)
    config = dataclasses.replace(TINY, keep_kb=1, act_kb=1, weight_kb=1, out_kb=1, dram_gbs=0.2)
    first = simulate(net, config, search="exhaustive").cycles
    for change in MORE:
        ((name, factor),) = change.items()
        better = dataclasses.replace(config, **{name: type(getattr(config, name))(getattr(config, name) * factor)})
        assert simulate(net, better, search="exhaustive").cycles <= first
    assert first <= simulate(net, config).cycles


def chain(*shapes: tuple[int, ...], add: tuple[int, int] | None = None, host: int | None = None) -> Network:
    """Return 1 x 1 convolutions from shape to shape, then perhaps the sum of two of the tensors; one may run on the host."""
    tensors = {f"t{i}": Tensor(name=f"t{i}", shape=shape, bits=8, scale=1.0) for i, shape in enumerate(shapes)}
    common: dict[str, Any] = {"kind": "Conv", "zero_point": 0, "lo": -128, "hi": 127, "window": Window()}
    operators: list = [
        MatrixProduct(name=f"o{i}", inputs=(f"t{i - 1}",), output=f"t{i}", channels=shapes[i - 1][-1], filters=shapes[i][-1], **common)
        for i in range(1, len(shapes))
    ]
    if host is not None:
        operators[host] = Host(name=f"o{host + 1}", kind="Erf", inputs=operators[host].inputs, output=operators[host].output, graph=erf())
    last = f"t{len(shapes) - 1}"
    if add:
        tensors["y"] = dataclasses.replace(tensors[f"t{add[0]}"], name="y")
        operators.append(
            Sum(
                name="add", kind="Add", inputs=tuple(f"t{i}" for i in add), output="y", zero_point=0, lo=-128, hi=127,
                zero_points=(0, 0), multipliers=(1.0, 1.0),
            )
        )  # fmt: skip
        last = "y"
    return Network(
        name="chain", tensors=tensors, operators=tuple(operators), inputs=(Port("x", "t0", False),), outputs=(Port("y", last, False),)
    )


def erf() -> Graph:
    """Return a graph of one float operator."""
    node = Node("erf", "Erf", ("x",), ("y",))
    return Graph(name="erf", opset=20, nodes=(node,), constants={}, inputs={"x": Given(1, (1, *KIB))}, outputs=("y",))


KIB = (16, 16, 4)  # the shape of a tensor of 1 KiB


@pytest.mark.parametrize(("keep_kb", "kept"), [(0, []), (1, ["t1"]), (2, ["t1", "t2"]), (3, ["t1", "t2", "t3"]), (9, ["t1", "t2", "t3"])])
def test_first_come_first_kept(keep_kb, kept):
    """t1 is read again at the end: it keeps its place until then, and what does not fit beside it is spilled; t4 and y cross anyway."""
    net = chain(KIB, KIB, KIB, KIB, KIB, add=(1, 3))
    net = dataclasses.replace(net, outputs=(*net.outputs, Port("z", "t4", False)))
    result = simulate(net, dataclasses.replace(TINY, keep_kb=keep_kb))
    assert list(result.schedule.kept) == kept
    for name, readers in (("t0", 1), ("t1", 2), ("t2", 1), ("t3", 2), ("t4", 0), ("y", 0)):
        told = result.traffic[name]
        assert told.size == 1024
        assert (told.written, told.read) == (0 if name in [*kept, "t0"] else 1024, 0 if name in kept else 1024 * readers)


def test_a_place_is_free_behind_the_last_reader():
    """Input and output of a layer are on chip together, then the input's place is another's."""
    assert simulate(chain(*[KIB] * 6), dataclasses.replace(TINY, keep_kb=1)).schedule.kept == ("t1", "t3")
    assert simulate(chain(*[KIB] * 6), dataclasses.replace(TINY, keep_kb=2)).schedule.kept == ("t1", "t2", "t3", "t4")


def test_the_host_meets_the_accelerator_in_dram():
    """What it reads and writes is spilled; it has bytes and no cycles."""
    result = simulate(chain(KIB, KIB, KIB, KIB, host=1), dataclasses.replace(TINY, keep_kb=9))
    assert result.schedule.kept == ()
    told = result.layers[1]
    assert (told.unit, told.cycles, told.bound_cycles, told.dram_read_activations, told.dram_written) == ("host", 0, 0, 1024, 1024)


@pytest.mark.parametrize("keep_kb", [1, 2, 3])
def test_exhaustive_search_tries_every_choice_of_kept_tensors(keep_kb):
    net = chain((8, 8, 4), (8, 8, 16), (8, 8, 8), (8, 8, 24), (8, 8, 16), add=(1, 4))
    net = dataclasses.replace(net, outputs=(*net.outputs, Port("z", "t4", False)))
    config = dataclasses.replace(TINY, keep_kb=keep_kb, dram_gbs=0.1)
    lowered = lower(net, config)
    best = plan(net, config, lowered, search="exhaustive")
    lives = plans._Lives.of(net, lowered, config, 1)
    planner = plans._Planner(config, lowered, [plans._works(config, each, 1) for each in lowered], lives, 1, "exhaustive")
    found = []
    for kept in (frozenset(each) for count in range(5) for each in itertools.combinations(["t1", "t2", "t3"], count)):
        spans = {"t1": (0, 4), "t2": (1, 2), "t3": (2, 3)}  # written and read last by layer
        sizes = [sum(net.tensors[name].size for name in kept if spans[name][0] <= i <= spans[name][1]) for i in range(5)]
        if max(sizes) <= 1024 * keep_kb:
            found.append(sum(planner.layer(i, kept).time.total for i in range(5)))
    assert sum(each.time.total for each in best.layers) == min(found)
    assert min(found) < max(found)


def test_results_do_not_depend_on_threads():
    """Nor on what was planned before."""
    net = network(5)
    configs = [dataclasses.replace(TINY, keep_kb=kb, name="x") for kb in range(4)] * 2
    alone = [simulate(net, config).to_json() for config in configs]
    search.cache_clear()
    evaluate.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda config: simulate(net, config).to_json(), configs)) == alone


def test_an_edited_schedule_runs():
    """Smaller tiles, the other order, nothing kept: other cycles, told as they are."""
    net = chain((16, 16, 8), (16, 16, 16), (16, 16, 16))
    first = simulate(net, TINY)
    raw = json.loads(first.schedule.to_json())
    raw["kept"] = []
    raw["layers"]["o2"] = [{"dataflow": "ws", "m": 16, "n": 8, "k": 16, "outer": "m"}]
    edited = simulate(net, TINY, schedule=Schedule.from_json(json.dumps(raw)))
    told = edited.layers[1]
    assert (told.dataflow, told.tile_m, told.tile_n, told.tile_k, told.outer) == ("ws", 16, 8, 16, "m")
    assert edited.cycles > first.cycles
    assert edited.traffic["t1"].read == edited.traffic["t1"].written == 4096


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "other"}, r"^schedule must be of network 'chain', not 'other'$"),
        ({"kept": ["t9"]}, r"^kept of the schedule must be tensors between layers on the accelerator, not 't9'$"),
        ({"kept": ["t0"]}, r"^kept of the schedule must be tensors between layers on the accelerator, not 't0'$"),
        ({"kept": ["t1", "t2"]}, r"^tensors kept at o2 must fit keep_kb \(1024 bytes\), not take 2048 bytes$"),
        ({"o9": []}, r"^layers of the schedule must be operators of chain, not 'o9'$"),
        ({"o1": None}, r"^layers of the schedule must include o1$"),
        ({"o1": []}, r"^schedule of o1 must have 1 cuts, not 0$"),
        ({"o1": [{"m": 4}]}, r"^schedule of o1: dataflow of a matrix product must be os or ws, not none$"),
        (
            {"o1": [{"dataflow": "os", "m": 4, "n": 3, "k": 4, "outer": "n"}]},
            r"^schedule of o1: n of os blocks must be a multiple of 4 .*$",
        ),
        (
            {"o1": [{"dataflow": "os", "m": 256, "n": 64, "k": 4, "outer": "n"}]},
            r"^schedule of o1: tiles must fit half of out_kb \(2048 bytes\), not take 16384 bytes$",
        ),
        ({"o1": [{"m": 0}]}, r"^schedule of o1: m must be an int of at least 1, not 0$"),
        ({"o1": [{"m": 2.5}]}, r"^schedule of o1: m must be an int of at least 1, not 2.5$"),
        ({"o1": [{"n": 4}]}, r"^schedule of o1 must have m, m and n, or dataflow, m, n, k and outer, not \{'n': 4\}$"),
        ({"o1": 7}, r"^schedule of o1 must be a list of cuts, not 7$"),
        (
            {"o1": [{"dataflow": "is", "m": 4, "n": 4, "k": 4, "outer": "n"}]},
            r"^schedule of o1: dataflow must be one of os, ws, not 'is'$",
        ),
        ({"o1": [{"dataflow": "os", "m": 4, "n": 4, "k": 4, "outer": "k"}]}, r"^schedule of o1: outer must be m or n, not 'k'$"),
        ({"schema_version": 7}, r"^schema_version of a schedule must be 1, not 7$"),
        ({"network": 3}, r"^network of a schedule must be a string, not 3$"),
        ({"kept": "t1"}, r"^kept of a schedule must be a list of tensors, not 't1'$"),
        ({"layers": []}, r"^layers of a schedule must be an object, not \[\]$"),
        ({"more": 1}, r"^schedule must be an object of schema_version, network, kept and layers, and nothing else$"),
    ],
)
def test_rejects_a_schedule(change, message, tmp_path):
    net, config = chain((16, 16, 4), (16, 16, 64), KIB, KIB, KIB), dataclasses.replace(TINY, keep_kb=1)
    net = chain(KIB, (16, 16, 4), KIB, KIB) if "kept" in change else net
    raw = json.loads(simulate(net, config).schedule.to_json())
    for name, value in change.items():
        into = raw["layers"] if name.startswith("o") and name != "outer" else raw
        into[name] = value
        if value is None:
            del into[name]
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(RangeError) as found:
        simulate(net, config, schedule=path)
    assert re.search(message, str(found.value).removeprefix(f"{path}: "))


def test_rejects_a_file_that_is_no_schedule(tmp_path):
    path = tmp_path / "schedule.json"
    with pytest.raises(RangeError, match=r"^schedule must be a readable file, not '.*schedule.json' \(No such file or directory\)$"):
        Schedule.load(path)
    path.write_text("{")
    with pytest.raises(RangeError, match=r"^.*schedule.json: schedule must be JSON, not text with this fault: .*$"):
        Schedule.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(RangeError, match=r"^.*schedule.json: schedule must be UTF-8 text, not bytes that break it at offset 0$"):
        Schedule.load(path)
    path.write_text("[" * 10**5)
    with pytest.raises(RangeError, match=r"^.*schedule.json: schedule must be JSON, not text with this fault: .*$"):
        Schedule.load(path)


def test_rejects_a_layer_that_no_cut_fits():
    """One pixel of so many channels fills more than half of the scratchpad."""
    config = dataclasses.replace(TINY, out_kb=1, act_kb=1, weight_kb=1, rows=4, cols=64, bundle=16, port=16)
    limits = r"act_kb \(512 bytes\), weight_kb \(512 bytes\), out_kb \(512 bytes\)"
    message = rf"^tiles of o1 must fit half of {limits}; the smallest take \d+, \d+, \d+ bytes$"
    with pytest.raises(NetworkError, match=message):
        simulate(chain((4, 4, 16), (4, 4, 64)), config)


@pytest.mark.parametrize("method", ["better", 3])
def test_rejects_a_search(method):
    with pytest.raises(RangeError, match=rf"^search must be one of best, exhaustive, fixed, not {method!r}$"):
        simulate(network(0), TINY, search=method)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "vit"])
def test_the_smallest_machine_runs_large_networks(name):
    """Windows over more than half a scratchpad are taken channel by channel."""
    result = simulate(accel.load(name), "tiny")
    assert result.dram > sum(each.size for each in result.traffic.values())


def test_capacity_and_bandwidth_change_what_they_should():
    """Half the scratchpad, more bytes; a tenth of the bandwidth, a layer of few products per byte takes about ten times as long."""
    net, base = accel.load("resnet18"), presets.load("edge-int8")
    whole = simulate(net, base)
    small = simulate(net, dataclasses.replace(base, act_kb=16, weight_kb=96, out_kb=8, keep_kb=0))
    assert small.dram > 2 * whole.dram
    slow = simulate(net, dataclasses.replace(base, dram_gbs=0.64))
    assert slow.cycles > whole.cycles
    bound = [(layer.operator, layer.roof.bound_by) for layer in whole.layers if layer.roof]
    assert bound[-1] == ("MatMul", "memory")
    assert ("Conv", "compute") in bound
    then = slow.layers[-1]
    assert 0.95 * then.dram / slow.config.dram_rate < then.cycles < 1.05 * then.dram / slow.config.dram_rate
