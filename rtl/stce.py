"""N:M sparse tensor computing engine: a systolic array of processing elements, output or weight stationary per tile."""

from amaranth import Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.config import AcceleratorConfig

from . import shapes
from .arithmetic import delay
from .fifo import Fifo
from .uspe import Uspe, tags


def word(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out the control that travels down the west edge, one row every `add_stages` cycles; each row makes its tags from it.

    ``beat`` a beat of the west port that does not end its bundle, ``chunk`` which one of the bundle it (or the last) is;
    ``take`` and ``inject`` reach one row: ``take_row`` and ``inject_row`` count the rows still to go.
    """
    row, slot = unsigned(shapes.bits_for(config.rows - 1)), unsigned(shapes.bits_for(config.add_stages - 1))
    return data.StructLayout(
        {
            "step": 1,
            "ws": 1,
            "load": 1,
            "first": 1,
            "last": 1,
            "slot": slot,
            "swap": 1,
            "beat": 1,
            "chunk": unsigned(shapes.bits_for(config.beats - 1)),
            "take": 1,
            "take_row": row,
            "take_head": 1,
            "inject": 1,
            "inject_row": row,
            "inject_slot": slot,
        }
    )


class Front(wiring.Component):
    """Issue one control word a cycle: match tiles, activations, pairs and partial sums, and keep room for every result.

    Timing: :func:`accel.timing.stce.front`, cycle for cycle.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    tile : In(stream)
        Tiles in order.
    west, north, psum : In
        Handshakes of the three operand streams: ``valid``, ``ready`` and the west's ``end`` and the north's ``head``.
    pop : In(1)
        A row left the result buffer.
    word : Out(word)
        This cycle's control.
    emit, keep : Out(1)
        A result row takes its slot this cycle; it goes to the accumulator.
    fresh_sum : Out(1)
        The partial sums of this cycle start from 0.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "tile": In(stream.Signature(shapes.tile(config))),
                "west_valid": In(1),
                "west_end": In(1),
                "west_ready": Out(1),
                "north_valid": In(1),
                "north_head": In(1),
                "north_ready": Out(1),
                "psum_valid": In(1),
                "psum_ready": Out(1),
                "pop": In(1),
                "word": Out(word(config)),
                "emit": Out(1),
                "keep": Out(1),
                "fresh_sum": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, word = self.config, self.word
        stages, depth = config.add_stages, config.result_rows

        # Two places: the waiting tile loads its stationary pairs, the running tile steps.
        waiting = Signal(shapes.tile(config))
        waits = Signal()
        loaded = Signal(unsigned(shapes.bits_for(config.rows)))
        running = Signal(shapes.tile(config))
        runs = Signal()
        left = Signal(running.steps.shape())
        fresh = Signal()
        slot = Signal(word.slot.shape())
        chunk = Signal(unsigned(shapes.bits_for(config.beats - 1)))
        # Results: rows on their way south, one each cycle, and room for more in the buffer.
        draining = Signal(range(config.rows * stages + 1))
        drain_row = Signal(word.inject_row.shape())
        drain_slot = Signal(word.inject_slot.shape())
        room = Signal(range(depth + 1), init=depth)

        group_starts, group_ends, last_group = slot == 0, slot == stages - 1, left == 1
        claims = Signal(range(config.rows * stages + 1))
        issue = Signal()
        loads = Signal()
        bundle_ends = Signal()
        m.d.comb += bundle_ends.eq(self.west_valid & self.west_end)
        with m.If(running.ws):
            m.d.comb += loads.eq(1)
            m.d.comb += claims.eq(1)
            m.d.comb += issue.eq(runs & bundle_ends & (draining == 0) & (room >= claims) & (running.first | self.psum_valid))
        with m.Else():
            drains = running.last & last_group & group_starts
            m.d.comb += loads.eq(group_starts & self.north_head)
            m.d.comb += claims.eq(Mux(drains, running.rows * stages, 0))
            m.d.comb += issue.eq(runs & self.north_valid & (~loads | bundle_ends) & (room >= claims) & (~drains | (draining <= stages)))

        # Stationary pairs pass through the running tile's rows: not while it takes pairs itself or has still to swap.
        take = Signal()
        last_take = loaded == waiting.rows - 1
        m.d.comb += take.eq(
            waits & waiting.ws & (loaded != waiting.rows) & self.north_valid & ~(runs & ~running.ws) & ~(runs & fresh & ~issue)
        )
        done = Signal()
        start = Signal()
        m.d.comb += done.eq(issue & last_group & (running.ws | group_ends))
        m.d.comb += start.eq(waits & (~waiting.ws | (loaded == waiting.rows) | (take & last_take)) & (~runs | done))

        m.d.comb += self.tile.ready.eq(~waits | start)
        m.d.comb += self.west_ready.eq(~self.west_end | (issue & loads))
        m.d.comb += self.north_ready.eq(take | (issue & ~running.ws))
        m.d.comb += self.psum_ready.eq(issue & running.ws & ~running.first)
        m.d.comb += self.fresh_sum.eq(running.first)

        m.d.comb += [
            word.step.eq(issue),
            word.load.eq(issue & loads),
            word.ws.eq(running.ws),
            word.slot.eq(slot),
            word.first.eq(running.first & fresh),
            word.last.eq(running.last & last_group),
            word.swap.eq(issue & running.ws & fresh),
            word.beat.eq(self.west_valid & ~self.west_end),
            word.chunk.eq(chunk),
            word.take.eq(take),
            word.take_row.eq(loaded),
            word.take_head.eq(self.north_head),
            word.inject.eq(draining != 0),
            word.inject_row.eq(drain_row),
            word.inject_slot.eq(drain_slot),
            self.emit.eq((issue & running.ws) | (draining != 0)),
            self.keep.eq(running.ws & ~running.last & (draining == 0)),
        ]

        with m.If(self.west_valid & self.west_ready):
            m.d.sync += chunk.eq(Mux(self.west_end, 0, chunk + 1))
        with m.If(issue):
            with m.If(running.ws | group_ends):
                m.d.sync += [left.eq(left - 1), fresh.eq(0), slot.eq(0)]
            with m.Else():
                m.d.sync += slot.eq(slot + 1)
            m.d.sync += room.eq(room - claims + self.pop)
        with m.Else():
            m.d.sync += room.eq(room + self.pop)
        with m.If(take):
            m.d.sync += loaded.eq(loaded + 1)
        with m.If(done):
            m.d.sync += runs.eq(0)
        with m.If(start):
            m.d.sync += [running.eq(waiting), runs.eq(1), left.eq(waiting.steps), fresh.eq(1), waits.eq(0)]
        with m.If(self.tile.valid & self.tile.ready):
            m.d.sync += [waiting.eq(self.tile.payload), waits.eq(1), loaded.eq(0)]

        with m.If(draining != 0):
            m.d.sync += draining.eq(draining - 1)
            with m.If(drain_slot == stages - 1):
                m.d.sync += [drain_slot.eq(0), drain_row.eq(drain_row + 1)]
            with m.Else():
                m.d.sync += drain_slot.eq(drain_slot + 1)
        with m.If(done & ~running.ws & running.last):
            m.d.sync += [draining.eq(running.rows * stages), drain_row.eq(0), drain_slot.eq(0)]
        return m


class Edge(wiring.Component):
    """One row of the west edge: assemble the row's bundle, or take the bundle of the row above, and make the row's tags.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    word_i : In(word)
        Control for this row.
    word_o : Out(word)
        Control for the row below, `add_stages` cycles later.
    data : In
        This row's lane of the west port, as late as `word_i`.
    above : In(bundle)
        The bundle of the row above.
    bundle_o, tags_o : Out
        To the row's first processing element, one cycle later.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "word_i": In(word(config)),
                "word_o": Out(word(config)),
                "data": In(shapes.west(config)["data"].shape.elem_shape),
                "above": In(shapes.bundle(config)),
                "bundle_o": Out(shapes.bundle(config)),
                "tags_o": Out(tags(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, now = self.config, self.word_i

        # The control of the row below; a token addressed to one row counts down on its way.
        below = Signal(word(config))
        m.d.comb += below.eq(now)
        m.d.comb += [below.take.eq(now.take & (now.take_row != 0)), below.take_row.eq(now.take_row - 1)]
        m.d.comb += [below.inject.eq(now.inject & (now.inject_row != 0)), below.inject_row.eq(now.inject_row - 1)]
        for _ in range(config.add_stages):
            held = Signal(word(config))
            m.d.sync += held.eq(below)
            below = held
        m.d.comb += self.word_o.eq(below)
        take, inject = now.take & (now.take_row == 0), now.inject & (now.inject_row == 0)

        # Rows of one group share a bundle: the first of them has its own, the others take the row above's.
        own = Signal()
        next_own = Signal()
        next_active = Signal()
        with m.If(now.swap):
            m.d.sync += [own.eq(next_own), next_own.eq(0), next_active.eq(0)]
        with m.If(take):
            m.d.sync += [next_own.eq(now.take_head), next_active.eq(1)]
        mine = ~now.ws | Mux(now.swap, next_own, own)

        # Beats before the last wait here; the last one goes straight into the bundle.
        port, beats = config.port, config.beats
        whole = Signal(shapes.bundle(config))
        for chunk in range(beats):
            part = Signal(self.data.as_value().shape(), name=f"part_{chunk}", reset_less=True)
            last = now.chunk == chunk if chunk < beats - 1 else Const(1)
            if chunk < beats - 1:
                with m.If(now.beat & last):
                    m.d.sync += part.eq(self.data.as_value())
            for i in range(port):
                m.d.comb += whole[chunk * port + i].eq(Mux(last, self.data[i], part.word_select(i, config.act_bits).as_signed()))

        above = delay(m, self.above, config.add_stages - 1, "above")
        bundle = Signal(shapes.bundle(config), reset_less=True)
        with m.If(now.load):
            m.d.sync += bundle.as_value().eq(Mux(mine, whole.as_value(), above.as_value()))
        m.d.comb += self.bundle_o.eq(bundle)

        row = Signal(tags(config))
        m.d.sync += [
            row.step.eq(now.step),
            row.ws.eq(now.ws),
            row.load.eq(now.load),
            row.first.eq(now.first),
            row.last.eq(now.last),
            row.slot.eq(now.slot),
            row.take.eq(take),
            row.swap.eq(now.swap),
            row.active.eq(next_active),
            row.inject.eq(inject),
            row.inject_slot.eq(now.inject_slot),
        ]
        m.d.comb += self.tags_o.eq(row)
        return m


class Stce(wiring.Component):
    """Multiply a tile's bundles of activations by its (value, index) pairs on R x C processing elements.

    Golden twin: :func:`accel.golden.stce.stce`. Timing: :func:`accel.timing.stce.stce`.

    Nothing stalls the array: a missing operand travels through it as a bubble, and a tile's last step is issued only with
    room for its results. Row r works `add_stages` * r cycles after row 0, column c works c cycles after column 0.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    tile : In(stream.Signature(shapes.tile(config)))
        Tiles in order.
    west : In(stream.Signature(shapes.west(config)))
        Bundles in the order of their use, `port` elements a row and beat. OS: every row its own; WS: one lane per row that
        holds the first pair of a bundle, the other lanes are not read.
    north : In(stream.Signature(shapes.north(config)))
        OS: one pair per column and step, `add_stages` beats (column groups) for each pair. WS: one beat per row of pairs.
    psum : In(stream.Signature(shapes.row(config)))
        Partial sums of WS tiles that do not start from 0, one row per step.
    o : Out(stream.Signature(shapes.kept_row(config)))
        OS: `add_stages` rows (column groups) per row of the tile; WS: one row per step.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "tile": In(stream.Signature(shapes.tile(config))),
                "west": In(stream.Signature(shapes.west(config))),
                "north": In(stream.Signature(shapes.north(config))),
                "psum": In(stream.Signature(shapes.row(config))),
                "o": Out(stream.Signature(shapes.kept_row(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        rows, cols, hop = config.rows, config.cols, config.add_stages

        m.submodules.front = front = Front(config)
        wiring.connect(m, wiring.flipped(self.tile), front.tile)
        m.d.comb += [
            front.west_valid.eq(self.west.valid),
            front.west_end.eq(self.west.payload.end),
            self.west.ready.eq(front.west_ready),
            front.north_valid.eq(self.north.valid),
            front.north_head.eq(self.north.payload.head),
            self.north.ready.eq(front.north_ready),
            front.psum_valid.eq(self.psum.valid),
            self.psum.ready.eq(front.psum_ready),
            front.pop.eq(self.o.valid & self.o.ready),
        ]

        # West edge: row r is hop * r cycles late.
        control, above = front.word, shapes.bundle(config).const({})
        east_bundle, east_tags = [], []
        for r in range(rows):
            edge = Edge(config)
            m.submodules[f"edge_{r}"] = edge
            m.d.comb += [
                edge.word_i.eq(control),
                edge.above.eq(above),
                edge.data.eq(delay(m, self.west.payload.data[r], hop * r, f"west_{r}")),
            ]
            control, above = edge.word_o, edge.bundle_o
            east_bundle.append(edge.bundle_o)
            east_tags.append(edge.tags_o)

        # North edge: column c is c cycles late, behind the one cycle of the west edge; sums meet the first product.
        # South edge: every column waits for the last one.
        m.submodules.results = results = Fifo(shapes.kept_row(config), config.result_rows)
        start = Signal(shapes.row(config))
        with m.If(~front.fresh_sum):
            m.d.comb += start.eq(self.psum.payload)
        for c in range(cols):
            pair = Signal(shapes.pair(config), name=f"pair_{c}")
            m.d.comb += [pair.value.eq(self.north.payload.value[c]), pair.index.eq(self.north.payload.index[c])]
            south_pair = delay(m, pair, c + 1, f"north_{c}")
            acc = delay(m, start.acc[c], config.mult_stages + 2 + c, f"start_acc_{c}")
            overflow = delay(m, start.overflow[c], config.mult_stages + 2 + c, f"start_overflow_{c}")
            for r in range(rows):
                pe = Uspe(config)
                m.submodules[f"pe_{r}_{c}"] = pe
                m.d.comb += [
                    pe.bundle_i.eq(east_bundle[r]),
                    pe.tags_i.eq(east_tags[r]),
                    pe.pair_i.eq(south_pair),
                    pe.sum_i.acc.eq(acc),
                    pe.sum_i.overflow.eq(overflow),
                ]
                east_bundle[r], east_tags[r], south_pair = pe.bundle_o, pe.tags_o, pe.pair_o
                acc, overflow = pe.sum_o.acc, pe.sum_o.overflow
            acc = delay(m, acc, cols - 1 - c, f"south_acc_{c}")
            overflow = delay(m, overflow, cols - 1 - c, f"south_overflow_{c}")
            m.d.comb += [results.i.payload.acc[c].eq(acc), results.i.payload.overflow[c].eq(overflow)]

        # A row issued in cycle t is whole here `late` cycles later.
        late = hop * rows + cols + config.mult_stages + 1
        emit = front.emit
        for stage in range(late):
            held = Signal(name=f"emit_{stage}")
            m.d.sync += held.eq(emit)
            emit = held
        m.d.comb += [results.i.valid.eq(emit), results.i.payload.keep.eq(delay(m, front.keep, late, "keep"))]
        wiring.connect(m, wiring.flipped(self.o), results.o)
        return m
