"""A training step on the accelerator: what each engine does when, from the shapes of a network.

The layers become products, passes of the vector unit and updates (:mod:`accel.schedule.training.assembly`), products are cut into tiles,
everything is put in an order (:mod:`accel.schedule.training.order`), and the queues run by one exact recurrence
(:mod:`accel.schedule.engines`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.graph.trainable import Trainable, check_trained
from accel.isa import ROW_BITS, STEP_BITS
from accel.schedule.engines import Queue, Run, run
from accel.schedule.operations import PRUNED
from accel.schedule.search import SEARCHES, Tiling
from accel.schedule.training.assembly import ARRAY, Assembly, Place
from accel.schedule.training.build import Span, build
from accel.schedule.training.order import order
from accel.schedule.training.products import FIXED, Switches, Way, options, ways
from accel.schedule.training.works import Lowering
from accel.sparsity import Pattern

NEAR = 1.02  # our choice: other ways to cut are tried where they may shorten the array's time in the step by more than 2 %
EQUAL = 1.001  # our choice: the step without scheduling is tried where it may be shorter by more than 0.1 %


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A training step, placed in time.

    Parameters
    ----------
    low : Lowering
        Network, configuration, batch, algorithm and pattern.
    switches : Switches
    way : Way
        How cuts were chosen, of those tried.
    picked : bool
        Whether they were then tried product by product, in the whole step.
    queues : tuple of Queue
        In the order of :data:`accel.schedule.engines.ENGINES`.
    spans : list of Span
        What the tiles of the queues are, those of each engine in order.
    times : Run
    """

    low: Lowering
    switches: Switches
    way: Way
    picked: bool
    queues: tuple[Queue, Queue, Queue]
    spans: list[Span]
    times: Run

    @property
    def config(self) -> AcceleratorConfig:
        """The accelerator."""
        return self.low.config


def step(
    network: Trainable,
    config: AcceleratorConfig,
    *,
    batch: int = 1,
    algorithm: str = "bdwp",
    pattern: Pattern | None = None,
    dense: Collection[str] | None = None,
    switches: Switches | None = None,
    search: str = "best",
    progress: Callable[[int, int, str], None] | None = None,
) -> Step:
    """Schedule a training step and place it in time.

    Parameters
    ----------
    network : Trainable
        Its shapes; weights may be unknown.
    config : AcceleratorConfig
    batch : int
        Samples of the step.
    algorithm : str
        Key of :data:`accel.schedule.operations.PRUNED`.
    pattern : Pattern, optional
        Of what the algorithm prunes; 2:8 unless given.
    dense : collection of str, optional
        Layers that are never pruned; else the first convolution and the last linear layer.
    switches : Switches, optional
        Dataflow optimisations; all unless given.
    search : str
        See :func:`accel.schedule.search.search`; ``"exhaustive"`` then tries other cuts, product by product, in the whole step.
    progress : callable, optional
        Called with (layers done, layers in all, what is next).

    Raises
    ------
    NetworkError
        If no layer has weights; or if one does not fit the array or the scratchpads: the message names it.
    RangeError
        If another argument breaks its rule.
    """
    check_trained(network)
    if type(batch) is not int or not 1 <= batch < 1 << ROW_BITS:
        raise RangeError(f"batch must be an int in [1, {(1 << ROW_BITS) - 1}], not {batch!r}")
    if algorithm not in PRUNED:
        raise RangeError(f"algorithm must be one of {', '.join(PRUNED)}, not {algorithm!r}")
    if search not in SEARCHES:
        raise RangeError(f"search must be one of {', '.join(SEARCHES)}, not {search!r}")
    asked = pattern or Pattern(2, 8)
    if algorithm != "dense" and asked.m > min(config.bundle, config.cols):
        limit = min(config.bundle, config.cols)
        raise RangeError(f"pattern must be N:M with M at most the bundle and the columns ({limit}) of {config.name}, not {asked}")
    chosen = network.eligible()
    if dense is not None:
        names = {layer.name for layer in network.convolutions}
        for name in dense:
            if name not in names:
                raise RangeError(f"dense must be layers with weights, not {name!r}")
        chosen = frozenset(names.difference(dense))
    for layer in network.convolutions:
        height, width, _ = network.image(layer.output)
        if batch * height * width >= 1 << STEP_BITS:
            most = ((1 << STEP_BITS) - 1) // (height * width)
            raise RangeError(
                f"batch must be at most {most}, so that WU of {layer.name} sums less than 2**{STEP_BITS} products, not {batch}"
            )
    using = switches or Switches()
    low = Lowering(network, config, batch, algorithm, asked, chosen)
    if not using.scheduling:
        return _placed(low, using, search, FIXED, progress=progress)
    return _thorough(low, using, progress) if search == "exhaustive" else _fastest(low, using, search, progress)


def _placed(
    low: Lowering,
    switches: Switches,
    search: str,
    way: Way,
    picked: Mapping[Place, Tiling] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Step:
    """Place a step in time whose products are cut as picked, the others as searched for."""
    nodes = Assembly(low, switches, search, way, picked or {}, progress).run()
    placed = list(range(len(nodes))) if way.fixed else order(low.config, nodes)
    queues, spans = build(nodes, placed, low.batch)
    times = run(queues, low.config.dram_rate, low.config.dram_latency)
    return Step(low, switches, way, picked is not None, queues, spans, times)


def _fastest(low: Lowering, switches: Switches, search: str, progress: Callable[[int, int, str], None] | None) -> Step:
    """Take the shortest step of those whose cuts are chosen in different ways; of equal ones the first."""
    first, *others = ways(low.config, switches)
    best = _placed(low, switches, search, first, progress=progress)
    for way in others:
        if best.times.total > (EQUAL if way.fixed else NEAR) * _fewest(best):
            best = min(best, _placed(low, switches, search, way), key=lambda each: each.times.total)
    return best


def _fewest(placed: Step) -> int:
    """Cycles that the array computes for if each product is cut in the dataflow that takes it for fewer."""
    nodes = [span.node for span in placed.spans if span.engine == ARRAY]
    return sum(min(int(node.piece.cycles.sum()), node.cut.fewest) for node in nodes if node.cut is not None)


def _thorough(low: Lowering, switches: Switches, progress: Callable[[int, int, str], None] | None) -> Step:
    """Take the best step of all methods, and product by product any other cut with which the whole step is shorter."""
    tried = (_placed(low, switches, search, way) for search in SEARCHES for way in ways(low.config, switches))
    best = min(tried, key=lambda each: each.times.total)
    cuts = {
        (span.node.layer, span.node.stage, span.node.number): span.node.cut
        for span in best.spans
        if span.engine == ARRAY and span.node.cut is not None
    }
    picked = {place: cut.tiling for place, cut in cuts.items()}
    tell = progress or (lambda done, total, label: None)
    for i, (place, cut) in enumerate(cuts.items()):
        tell(i, len(cuts), f"cuts of {place[1]} of {place[0]}")
        for tiling in options(low.config, cut.part, switches):
            if tiling != picked[place]:
                other = _placed(low, switches, "best", best.way, picked | {place: tiling})
                if other.times.total < best.times.total:
                    best, picked = other, picked | {place: tiling}
    tell(len(cuts), len(cuts), "scheduled")
    return best
