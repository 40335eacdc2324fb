"""From the layers of a network to the pieces of a training step, and what each piece reads.

**Taken along.** A ReLU or Clip behind a product or behind vector work is a bound of that work's results, and leaves a mask. A sum behind
a normalisation (or behind its ReLU) is taken along, in the same sweep: a lane adds the other operand, aligned, to its rounded result. A
pool that alone reads what a normalisation makes takes it from a buffer of as many rows of results as its window is high; the two run side
by side, for as long as the longer one. The sum of several gradients in front of a normalisation's first pass backward is taken along too,
and stored for the second.

**Gradients.** A ReLU and a sum hand on the gradient of their result; the mask is loaded with it, by whatever reads it. Nothing is computed
for tensors in front of which nothing is trained. The statistics of a normalisation and the gradient of a bias are summed while results
leave the array; of what does not come from there they take a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from accel.errors import NetworkError, RangeError
from accel.graph.trainable import (
    Add,
    AveragePool,
    BatchNorm,
    Bias,
    Clip,
    Convolution,
    Layer,
    LayerNorm,
    MaxPool,
    Move,
    Product,
    Relu,
)
from accel.schedule import search as cuts
from accel.schedule.engines import ENGINES
from accel.schedule.search import Tiling, word
from accel.schedule.training import products, updates, vectors
from accel.schedule.training.products import WAYS, Cut, Switches, Way
from accel.schedule.training.queues import Piece
from accel.schedule.training.updates import Update
from accel.schedule.training.works import Lowering, Part
from accel.timing.training import BACKWARD, BITS, FORWARD, MOMENTS, Pass, gather, rectified

ARRAY, VECTOR, UPDATE = range(len(ENGINES))
Place = tuple[str, str, int]
"""Layer, stage and number of a product among those of both."""
Value = tuple[int, ...]
"""Numbers of the nodes that make something together."""


@dataclass(frozen=True, slots=True)
class Read:
    """What a node reads: of something that nodes make, each tile the images that it needs, or all tiles all of it (`whole`)."""

    value: Value
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A piece of the step and where it comes from.

    Parameters
    ----------
    layer, kind : str
        Name and type of the layer.
    stage : str
        ``"FF"``, ``"BP"``, ``"WU"`` or ``"update"``.
    engine : int
        Its place in ENGINES.
    piece : Piece
    reads : tuple of Read
    cut : Cut or None
        Of the array's work.
    update : Update or None
        Of WU: what takes its results.
    feed : Update or None
        Of FF and BP: what prunes its weights in front of it.
    after : tuple of int
        Nodes of the same engine that come before: WU replaces the weights that BP loads.
    number : int
        Of the product among those of the layer and stage.
    """

    layer: str
    kind: str
    stage: str
    engine: int
    piece: Piece
    reads: tuple[Read, ...]
    cut: Cut | None = None
    update: Update | None = None
    feed: Update | None = None
    after: Value = ()
    number: int = 0


@dataclass(slots=True, eq=False)
class Total:
    """The sum of what the readers of a tensor hand back: the first that needs it makes it."""

    given: list[Gradient]
    value: Value | None = None


@dataclass(frozen=True, slots=True)
class Gradient:
    """What a reader hands back to a tensor: the nodes that make it, and how many masks are applied where it is loaded."""

    value: Value | Total
    masks: int = 0


@dataclass(slots=True)
class Assembly:
    """Lists the nodes of a step, each after what it reads.

    Parameters
    ----------
    low : Lowering
    switches : Switches
    method : str
        See :func:`accel.schedule.search.search`.
    way : Way
    picked : mapping of Place to Tiling
        Cuts of products that are not searched for.
    progress : callable, optional
        Called with (layers done, layers in all, what is next); forward and backward count apart.
    """

    low: Lowering
    switches: Switches
    method: str
    way: Way = WAYS[0]
    picked: Mapping[Place, Tiling] = field(default_factory=dict)
    progress: Callable[[int, int, str], None] | None = None
    nodes: list[Node] = field(init=False, default_factory=list)
    made: dict[str, Value] = field(init=False, default_factory=dict)  # by tensor
    given: dict[str, list[Gradient]] = field(init=False, default_factory=dict)  # by tensor
    tails: dict[str, list[Layer]] = field(init=False, default_factory=dict)  # by layer what it takes along
    trained: set[str] = field(init=False, default_factory=set)  # tensors that need a gradient
    layers: tuple[Layer, ...] = field(init=False)  # in the order in which they are taken

    def __post_init__(self) -> None:
        self.layers = self._levels()
        for layer in self.layers:
            if isinstance(layer, Convolution | BatchNorm | LayerNorm | Bias) or self.trained.intersection(layer.inputs):
                self.trained.add(layer.output)
        self._along()

    @property
    def images(self) -> int:
        """Of the batch."""
        return self.low.batch

    def run(self) -> list[Node]:
        """List all nodes."""
        self.made[self.low.network.input] = ()
        along = {layer.name for tail in self.tails.values() for layer in tail}
        tell = self.progress or (lambda done, total, label: None)
        count = len(self.layers)
        for i, layer in enumerate(self.layers):
            tell(i, 2 * count, f"schedule of FF of {layer.name}")
            if layer.name not in along:
                self._forward(layer)
        self._loss()
        for i, layer in enumerate(reversed(self.layers)):
            tell(count + i, 2 * count, f"schedule of BP of {layer.name}")
            if layer.output in self.trained and layer.output in self.given:
                self._backward(layer)
        tell(2 * count, 2 * count, "scheduled")
        return self.nodes

    # What is taken along.

    def _levels(self) -> tuple[Layer, ...]:
        """Sort layers by the longest way from the input: what two branches join comes behind both, and short ones come first."""
        level = {self.low.network.input: 0}
        for layer in self.low.network.layers:
            level[layer.output] = 1 + max(level[name] for name in layer.inputs)
        return tuple(sorted(self.low.network.layers, key=lambda layer: level[layer.output]))

    def _along(self) -> None:
        net = self.low.network
        readers: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for name in set(layer.inputs):
                readers.setdefault(name, []).append(layer)
        written = {layer.output: i for i, layer in enumerate(self.layers)}
        taken: set[str] = set()
        for layer in self.layers:
            if layer.name in taken or isinstance(layer, Relu | Clip | MaxPool | AveragePool | Move):
                continue
            tail: list[Layer] = []
            while (at := (tail[-1] if tail else layer).output) != net.output and len(readers.get(at, [])) == 1:
                (following,) = readers[at]
                if isinstance(layer, BatchNorm) and isinstance(following, Add):
                    # The operand that is made last takes the sum along.
                    others = [written.get(name, -1) for name in following.inputs if name != at]
                    if not others or max(others) > written[layer.output] or any(isinstance(each, Add) for each in tail):
                        break
                elif not isinstance(following, Relu | Clip) and not (isinstance(layer, BatchNorm) and self._pooled(following)):
                    break
                tail.append(following)
                if isinstance(following, MaxPool | AveragePool):
                    break
            self.tails[layer.name] = tail
            taken.update(each.name for each in tail)

    def _pooled(self, layer: Layer) -> bool:
        """Whether a layer is a pool whose window's rows fit half of the results' scratchpad."""
        if not isinstance(layer, MaxPool | AveragePool):
            return False
        _, width, channels = self.low.network.image(layer.inputs[0])
        return layer.window.kernel[0] * width * channels * word(self.low.config.act_bits) <= cuts.HALF * self.low.config.out_kb

    # Sizes, of an image.

    def _elements(self, tensor: str) -> int:
        return prod(self.low.network.shapes[tensor])

    def _bytes(self, tensor: str) -> int:
        return self._elements(tensor) * word(self.low.config.act_bits)

    def _mask(self, tensor: str) -> int:
        return -(-self._elements(tensor) * BITS["mask"] // 8)

    # Nodes.

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _products(
        self, layer: Convolution | Product, stage: str, reads: Sequence[Read], beside: int = 0, masks: int = 0, after: Value = ()
    ) -> Value:
        """Add the products of a stage: `beside` bytes stored with the results of an image, `masks` loaded with the gradient."""
        config = self.low.config
        try:
            parts = self.low.parts(layer, stage)
            cut = [
                products.cut(config, part, self.images, self.method, self.switches, self.way, self.picked.get((layer.name, stage, i)))
                for i, part in enumerate(parts)
            ]
        except RangeError as error:
            raise NetworkError(f"{stage} of {layer.name}: {error}") from None
        made = []
        for number, each in enumerate(cut):
            if each is None:
                raise NetworkError(self._too_small(layer, stage, parts[number]))
            piece = products.piece(config, each, self.images * beside if each is cut[-1] else 0, masks)
            update = feed = None
            if isinstance(layer, Convolution) and stage == "WU":
                update = updates.update(self.low, layer, each.where, self.switches.pregeneration)
            elif isinstance(layer, Convolution) and self.low.operand(layer, stage) == "weights" and not self.switches.pregeneration:
                loaded = products.fetched(config, each)
                feed = updates.feed(self.low, loaded)
                piece = piece._replace(loads=piece.loads - loaded.codes)
            node = Node(
                layer=layer.name,
                kind=type(layer).__name__,
                stage=stage,
                engine=ARRAY,
                piece=piece,
                reads=tuple(reads),
                cut=each,
                update=update,
                feed=feed,
                after=after,
                number=number,
            )
            made.append(self._add(node))
        return tuple(made)

    def _too_small(self, layer: Layer, stage: str, part: Part) -> str:
        config = self.low.config
        limits = [f"{name} ({cuts.HALF * getattr(config, name)} bytes)" for name in ("act_kb", "weight_kb", "out_kb")]
        least = ", ".join(map(str, cuts.smallest(config, part.work, products.kept(part))))
        return f"tiles of {stage} of {layer.name} must fit half of {', '.join(limits)}; the smallest take {least} bytes"

    def _vector(
        self,
        layer: Layer,
        stage: str,
        work: Pass,
        tensor: str,
        reads: Sequence[Read],
        moved: dict[str, int],
        taps: int = 1,
        kind: str = "",
        beats: int = 0,
    ) -> int:
        """Add a pass over the rows of a tensor.

        `moved` has the bytes of an image by what the pass reads and writes; `beats` of an image run side by side with it.
        """
        height, width, row = self.low.network.image(tensor)
        loads, stores = (sum(moved[name] for name in names) for names in (work.reads, work.writes))
        largest = max([moved[name] for name in (*work.reads, *work.writes)], default=0)
        piece = vectors.piece(self.low.config, work, self.images, height * width, row, taps, loads, stores, largest, beats)
        return self._add(
            Node(layer=layer.name, kind=kind or type(layer).__name__, stage=stage, engine=VECTOR, piece=piece, reads=tuple(reads))
        )

    def _scalars(self, layer: Layer, count: int, value: Value) -> None:
        """Add the update of parameters by channel, whose gradients are there when something is."""
        piece = updates.scalars(self.low.config, self.images, count)
        self._add(Node(layer=layer.name, kind=type(layer).__name__, stage="update", engine=UPDATE, piece=piece, reads=(Read(value, True),)))

    # Forward.

    def _forward(self, layer: Layer) -> None:
        tail = self.tails.get(layer.name, [])
        reads = [Read(self.made[name]) for name in layer.inputs]
        masks = sum(self._mask(each.output) for each in (layer, *tail) if isinstance(each, Relu | Clip))
        if isinstance(layer, Convolution | Product):
            made = self._products(layer, "FF", reads, masks)
        elif isinstance(layer, BatchNorm):
            made = (self._normalised(layer, tail, masks),)
        else:
            (work,) = FORWARD[self._kind(layer)]
            sizes = self._sizes(layer) | {"mask": masks}
            work = rectified(work) if masks else work
            made = (self._vector(layer, "FF", work, layer.output, reads, sizes, self._taps(layer)),)
        for name in (layer.output, *(each.output for each in tail)):
            self.made[name] = made

    def _normalised(self, layer: BatchNorm, tail: Sequence[Layer], masks: int) -> int:
        """Add a normalisation, with what is taken along."""
        (work,) = FORWARD["BatchNorm"]
        sizes = self._sizes(layer) | {"mask": masks}
        work = rectified(work) if masks else work
        x = self.made[layer.inputs[0]]
        reads, beats = [Read(x, True)], 0
        if not x or any(self.nodes[number].engine != ARRAY for number in x):  # nothing has summed it up yet
            sums = Pass(1, ("x",), ())
            reads = [Read(x), Read((self._vector(layer, "FF", sums, layer.output, [Read(x)], sizes, kind="Statistics"),), True)]
        inside = {layer.output, *(each.output for each in tail)}
        for each in tail:
            if isinstance(each, Add):
                (other,) = (name for name in each.inputs if name not in inside)
                reads.append(Read(self.made[other]))
                work = work._replace(reads=(*work.reads, "x"))
            elif isinstance(each, MaxPool | AveragePool):
                pooled = self._sizes(each)
                sizes |= {"y": pooled["y"], "place": pooled["place"]}
                (pool,) = FORWARD[type(each).__name__]
                work = work._replace(writes=(*pool.writes, *(name for name in work.writes if name == "mask")), lag=work.lag + pool.lag)
                height, width, row = self.low.network.image(each.output)
                beats = each.window.taps * height * width * -(-row // self.low.config.cols)
        return self._vector(layer, "FF", work, layer.output, reads, sizes, beats=beats)

    def _kind(self, layer: Layer) -> str:
        """Which passes a layer takes: a mean over rows is a pool."""
        return "AveragePool" if isinstance(layer, Move) and layer.mean else type(layer).__name__

    def _taps(self, layer: Layer) -> int:
        """Taps of a pooling window; all rows, of a mean."""
        if isinstance(layer, MaxPool | AveragePool):
            return layer.window.taps
        return self._elements(layer.inputs[0]) // self._elements(layer.output) if isinstance(layer, Move) and layer.mean else 1

    def _sizes(self, layer: Layer) -> dict[str, int]:
        """Bytes of an image of what passes read and write."""
        x, y = layer.inputs[0], layer.output
        height, width, _ = self.low.network.image(y)
        return {
            "x": self._bytes(x),
            "dx": self._bytes(x),
            "y": self._bytes(y),
            "dy": self._bytes(y),
            "mask": self._mask(y),
            "place": -(-self._elements(y) * BITS["place"] // 8),
            "moments": -(-height * width * MOMENTS // 8),
        }

    # Backward.

    def _loss(self) -> None:
        net = self.low.network
        last = next(layer for layer in net.layers if layer.output == net.output)
        (work,) = FORWARD["Loss"]
        size = self._bytes(net.output)
        node = self._vector(last, "BP", work, net.output, [Read(self.made[net.output])], {"x": size, "dx": size}, kind="Loss")
        self._give(net.output, (node,))

    def _give(self, tensor: str, value: Value | Total, masks: int = 0) -> None:
        if tensor in self.trained:
            self.given.setdefault(tensor, []).append(Gradient(value, masks))

    def _gradient(self, tensor: str) -> Gradient:
        """Return the gradient of a tensor; where several readers give one it is not yet added up."""
        given = self.given[tensor]
        return given[0] if len(given) == 1 else Gradient(Total(given))

    def _known(self, layer: Layer, dy: Gradient) -> Value:
        """Return the nodes of the gradient of a layer's result, adding it up if nothing has."""
        if not isinstance(dy.value, Total):
            return dy.value
        if dy.value.value is None:
            given = dy.value.given
            work = gather(len(given))
            work = work._replace(reads=(*work.reads, *["mask"] * sum(each.masks for each in given)))
            reads = [Read(self._known(layer, each)) for each in given]
            sizes = self._sizes(layer) | {"dx": self._bytes(layer.output)}
            dy.value.value = (self._vector(layer, "BP", work, layer.output, reads, sizes, kind="Sum"),)
        return dy.value.value

    def _backward(self, layer: Layer) -> None:
        dy = self._gradient(layer.output)
        if isinstance(layer, Relu | Clip | Add):
            for name in layer.inputs:
                self._give(name, dy.value, dy.masks + isinstance(layer, Relu | Clip))
        elif isinstance(layer, BatchNorm):
            self._normalisation(layer, dy)
        elif isinstance(layer, Convolution):
            self._convolution(layer, dy)
        elif isinstance(layer, Product):
            reads = [Read(self._known(layer, dy)), *(Read(self.made[name]) for name in layer.inputs)]
            made = self._products(layer, "BP", reads, masks=dy.masks)
            for name, node in zip((layer.inputs[0], layer.inputs[-1]), made, strict=True):
                self._give(name, (node,))
        else:
            self._elementwise(layer, dy)

    def _elementwise(self, layer: Layer, dy: Gradient) -> None:
        """Add the passes of a layer of the vector unit."""
        value = self._known(layer, dy)
        made = value
        for work in BACKWARD[self._kind(layer)]:
            saved = [name for tensor, name in (("x", layer.inputs[0]), ("y", layer.output)) if tensor in work.reads]
            for _ in range(dy.masks):
                work = rectified(work)
            reads = [Read(value), *(Read(self.made[name]) for name in saved)]
            made = (self._vector(layer, "BP", work, layer.output, reads, self._sizes(layer), self._taps(layer)),)
        if isinstance(layer, LayerNorm):
            self._scalars(layer, 2 * self.low.network.shapes[layer.output][-1], made)
        if isinstance(layer, Bias):
            self._scalars(layer, self._elements(layer.output), made)
            self._give(layer.inputs[0], value, dy.masks)
        else:
            self._give(layer.inputs[0], made)

    def _normalisation(self, layer: BatchNorm, dy: Gradient) -> None:
        x, sizes, masks = Read(self.made[layer.inputs[0]]), self._sizes(layer), ["mask"] * dy.masks
        sums, apply = BACKWARD["BatchNorm"]
        if isinstance(dy.value, Total) and dy.value.value is None:
            given = dy.value.given
            more = ["mask"] * sum(each.masks for each in given)
            sums = sums._replace(reads=(*["dy"] * len(given), "x", *masks, *more), writes=("dy",))
            reads = [Read(self._known(layer, each)) for each in given]
            first = self._vector(layer, "BP", sums, layer.output, [*reads, x], sizes)
            dy.value.value = (first,)
        else:
            sums = sums._replace(reads=(*sums.reads, *masks))
            first = self._vector(layer, "BP", sums, layer.output, [Read(self._known(layer, dy)), x], sizes)
        self._scalars(layer, 2 * self.low.network.shapes[layer.output][-1], (first,))
        if layer.inputs[0] in self.trained:
            apply = apply._replace(reads=(*apply.reads, *masks))
            reads = [Read((first,), True), Read(self._known(layer, dy)), x]
            self._give(layer.inputs[0], (self._vector(layer, "BP", apply, layer.output, reads, sizes),))

    def _convolution(self, layer: Convolution, dy: Gradient) -> None:
        value, saved = self._known(layer, dy), Read(self.made[layer.inputs[0]])
        made: Value = ()
        if layer.biased:
            sums = value
            if any(self.nodes[number].engine != ARRAY for number in value):
                (work,) = BACKWARD["Columns"]
                for _ in range(dy.masks):
                    work = rectified(work)
                sums = (self._vector(layer, "BP", work, layer.output, [Read(value)], self._sizes(layer), kind="Columns"),)
            self._scalars(layer, layer.filters, sums)
        if layer.inputs[0] in self.trained:
            paired = Gradient(value, dy.masks)
            if self.low.operand(layer, "BP") == "gradient":
                paired = Gradient(self._pruned(layer, value, dy.masks))
            made = self._products(layer, "BP", [Read(self._known(layer, paired))], masks=paired.masks)
            self._give(layer.inputs[0], made)
        self._products(layer, "WU", [Read(value), saved], masks=dy.masks, after=made)

    def _pruned(self, layer: Convolution, value: Value, masks: int) -> Value:
        """Prune and rescale a gradient for BP: the norms of an image, then its pairs."""
        norms, pairs = BACKWARD["Prune"]
        pattern, config = self.low.pattern, self.low.config
        height, width, channels = self.low.network.image(layer.output)
        bits = height * width * int(pattern.pairs(channels)) * (config.act_bits + pattern.index_bits)
        sizes = self._sizes(layer) | {"pairs": -(-bits // 8)}
        for _ in range(masks):
            norms, pairs = rectified(norms), rectified(pairs)
        first = self._vector(layer, "BP", norms, layer.output, [Read(value)], sizes, kind="Prune")
        return (self._vector(layer, "BP", pairs, layer.output, [Read((first,)), Read(value)], sizes, kind="Prune"),)
