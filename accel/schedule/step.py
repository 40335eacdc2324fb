"""A training step on the accelerator: what each engine does when, from the shapes of a network.

The layers become products, passes of the vector unit and updates (:mod:`accel.schedule.training.assembly`), products are cut into tiles,
everything is put in an order (:mod:`accel.schedule.training.order`), and the queues run by one exact recurrence
(:mod:`accel.schedule.engines`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from accel.config import AcceleratorConfig
from accel.errors import RangeError
from accel.graph.trainable import Trainable
from accel.isa import ROW_BITS, STEP_BITS
from accel.schedule.engines import Queue, Run, run
from accel.schedule.operations import PRUNED
from accel.schedule.search import SEARCHES
from accel.schedule.training.assembly import Assembly
from accel.schedule.training.build import Span, build
from accel.schedule.training.order import order
from accel.schedule.training.products import Switches
from accel.schedule.training.works import Lowering
from accel.sparsity import Pattern


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A training step, placed in time.

    Parameters
    ----------
    low : Lowering
        Network, configuration, batch, algorithm and pattern.
    switches : Switches
    queues : tuple of Queue
        In the order of :data:`accel.schedule.engines.ENGINES`.
    spans : list of Span
        What the tiles of the queues are, those of each engine in order.
    times : Run
    """

    low: Lowering
    switches: Switches
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
        See :func:`accel.schedule.search.search`.
    progress : callable, optional
        Called with (layers done, layers in all, what is next).

    Raises
    ------
    NetworkError
        If a layer does not fit the array or the scratchpads. The message names it.
    RangeError
        If another argument breaks its rule.
    """
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
    nodes = Assembly(low, using, search, progress).run()
    placed = order(config, nodes) if using.scheduling else list(range(len(nodes)))
    queues, spans = build(nodes, placed, batch)
    return Step(low, using, queues, spans, run(queues, config.dram_rate, config.dram_latency))
