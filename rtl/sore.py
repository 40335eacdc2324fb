"""Sparse online reduction engine: N:M codes of a strip of weights in both directions, from one pass, a beat per cycle.

A lane ranks the elements of a group as they come. Slot i keeps the magnitude of element i and how many greater ones it can still bear; it
is out when that falls below 0. The pairs of a group are then the slots still in, in ascending order, so nothing is ever moved or sorted,
and the values wait in a memory. A list of the N best so far has as many comparators for N up to M, and moves its elements, or looks for
the smallest, besides. The lanes of the backward code are the same: a transposer of small memories turns beats into their columns.
"""

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from accel.config import AcceleratorConfig

from . import shapes
from .verilog import once


def run(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one element for each of the first `lanes` lanes, of a run that is cut into groups of `m`; `end` closes the run."""
    return data.StructLayout(
        {
            "x": shapes.working(config),
            "lanes": shapes.prune(config)["lanes"].shape,
            "n": shapes.prune(config)["n"].shape,
            "m": shapes.prune(config)["m"].shape,
            "end": 1,
        }
    )


def ones(bits):
    """Count the bits that are set, by full adders: Yosys makes more look-up tables of a sum of bits."""
    columns, place = [list(bits), []], 0
    while columns[place]:
        column = columns[place]
        columns.append([])
        while len(column) > 1:
            (a, b, c), column = (*column[:3], Const(0))[:3], column[3:]
            column.append(a ^ b ^ c)
            columns[place + 1].append(a & b | c & (a ^ b))
        columns[place] = column
        place += 1
    return Cat(*columns)


class SoreLane(wiring.Component):
    """Rank the elements of a group, one per cycle, then give its pairs, one per cycle, while the next group is ranked.

    Parameters
    ----------
    config : AcceleratorConfig
        Its `bundle` is the longest group.

    Members
    -------
    step : In(1)
        An element is there.
    x : In(signed(weight_bits))
        The element.
    magnitude : In(unsigned(weight_bits))
        Its magnitude.
    slot : In(bundle)
        Its place in the group, one bit of all.
    index : In(index_bits)
        Its place in the group.
    spare : In(index_bits)
        Greater elements that an element kept may have beside it: N - 1.
    half : In(1)
        Half of the memory that takes the values of the group.
    move : In(1)
        The group is finished; its pairs are shown from the next cycle on, and the half with its values is the one now not written.
    leave : In(1)
        The pair shown leaves.
    pair : Out(pair)
        The pair shown.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "step": In(1),
                "x": In(signed(config.weight_bits)),
                "magnitude": In(unsigned(config.weight_bits)),
                "slot": In(config.bundle),
                "index": In(unsigned(config.index_bits)),
                "spare": In(unsigned(config.index_bits)),
                "half": In(1),
                "move": In(1),
                "leave": In(1),
                "pair": Out(shapes.pair(config)),
            }
        )

    def elaborate(self, platform):
        if shared := once(self, platform):
            return shared
        m = Module()
        config = self.config
        first = self.slot[0]

        # Datapath: the element takes its slot, and is one more that is greater for every slot with a smaller one. Elements that are out
        # need not be counted: if one of them is as great as the newcomer, so are N that are in. They may fall on, below -1: no group is
        # long enough for them to wrap.
        spares = [Signal(signed(config.index_bits + 1), name=f"spare_{i}", reset_less=True) for i in range(config.bundle)]
        kept = Cat(~spare[-1] for spare in spares)
        above = Signal(config.bundle - 1)
        rest = Signal(signed(config.index_bits + 1))
        m.d.comb += rest.eq(self.spare - ones(above))
        for i, spare in enumerate(spares):
            mine = self.slot[i]
            with m.If(self.step & mine):
                m.d.sync += spare.eq(rest)
            if i < config.bundle - 1:  # behind the last slot nothing comes
                magnitude = Signal(unsigned(config.weight_bits), name=f"magnitude_{i}", reset_less=True)
                smaller = magnitude < self.magnitude
                m.d.comb += above[i].eq(~first & kept[i] & ~smaller)
                with m.If(self.step & mine):
                    m.d.sync += magnitude.eq(self.magnitude)
                with m.Elif(self.step & smaller):
                    m.d.sync += spare.eq(spare - 1)
            if i:
                with m.If(self.step & first):
                    m.d.sync += spare.eq(-1)

        # The finished group: its lowest pair is shown.
        left = Signal(config.bundle, reset_less=True)
        half = Signal(reset_less=True)
        lowest = Signal(config.bundle)
        m.d.comb += lowest.eq(left & ~(left - 1))
        with m.If(self.move):
            m.d.sync += [left.eq(kept), half.eq(~self.half)]
        with m.Elif(self.leave):
            m.d.sync += left.eq(left ^ lowest)
        shown = Signal(config.index_bits)
        for bit in range(config.index_bits):
            m.d.comb += shown[bit].eq(Cat(lowest[i] for i in range(config.bundle) if i >> bit & 1).any())

        m.submodules.values = values = Memory(shape=signed(config.weight_bits), depth=2 << config.index_bits, init=[])
        write, read = values.write_port(), values.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.step),
            write.addr.eq(Cat(self.index, self.half)),
            write.data.eq(self.x),
            read.addr.eq(Cat(shown, half)),
            self.pair.index.eq(shown),
            self.pair.value.eq(read.data),
        ]
        return m


class SoreLanes(wiring.Component):
    """Cut runs of elements into groups and give the pairs of each; all lanes in step.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    i : In(stream of elements of runs)
        Lanes without an element count as 0.
    o : Out(stream of pairs)
        The pairs of each group; a group of g elements has min(N, g).
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i": In(stream.Signature(run(config))), "o": Out(stream.Signature(shapes.code(config)))})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        i = self.i.payload
        valid = Signal()  # an element stands before the lanes
        step = Signal()
        full = Signal()  # the lanes hold a finished group
        move = Signal()
        leave = Signal()

        # Datapath: magnitudes stand before the lanes.
        index = Signal(config.index_bits, reset_less=True)
        slot = Signal(config.bundle, reset_less=True)
        spare = Signal(config.index_bits, reset_less=True)
        last = Signal(init=1)  # the element accepted last ends its group
        half = Signal()
        lanes = Signal.like(i.lanes, reset_less=True)
        place = Mux(last, 0, index + 1)
        take = self.i.valid & self.i.ready
        with m.If(take):
            m.d.sync += [
                index.eq(place),
                slot.eq(Mux(last, 1, slot << 1)),
                last.eq(i.end | (place == i.m - 1)),
                spare.eq(i.n - 1),
                lanes.eq(i.lanes),
            ]
        for number in range(config.cols):
            x = Signal(signed(config.weight_bits), name=f"x_{number}", reset_less=True)
            magnitude = Signal(config.weight_bits, name=f"magnitude_{number}", reset_less=True)
            with m.If(take):
                m.d.sync += [x.eq(i.x[number]), magnitude.eq(Mux(i.x[number] < 0, -i.x[number], i.x[number]))]
                with m.If(i.lanes <= number):
                    m.d.sync += [x.eq(0), magnitude.eq(0)]
            lane = SoreLane(config)
            m.submodules[f"lane_{number}"] = lane
            m.d.comb += [
                lane.step.eq(step),
                lane.x.eq(x),
                lane.magnitude.eq(magnitude),
                lane.slot.eq(slot),
                lane.index.eq(index),
                lane.spare.eq(spare),
                lane.half.eq(half),
                lane.move.eq(move),
                lane.leave.eq(leave),
                self.o.payload.value[number].eq(lane.pair.value),
                self.o.payload.index[number].eq(lane.pair.index),
            ]

        # Control: a finished group moves on when the pairs of the one before have left, and makes room for the next group's first element.
        pairs = Signal(range(config.bundle + 1))  # still to leave
        pairs_full = Signal(range(1, config.bundle + 1), reset_less=True)
        lanes_full = Signal.like(lanes, reset_less=True)
        m.d.comb += [
            leave.eq(self.o.valid & self.o.ready),
            move.eq(full & ((pairs == 0) | leave & (pairs == 1))),
            step.eq(valid & (~full | move)),
            self.i.ready.eq(~valid | step),
            self.o.valid.eq(pairs != 0),
        ]
        with m.If(self.i.ready):
            m.d.sync += valid.eq(self.i.valid)
        with m.If(leave):
            m.d.sync += [pairs.eq(pairs - 1), self.o.payload.head.eq(0)]
        with m.If(move):
            m.d.sync += [full.eq(0), pairs.eq(pairs_full), self.o.payload.lanes.eq(lanes_full), self.o.payload.head.eq(1)]
        with m.If(step & last):
            m.d.sync += [full.eq(1), half.eq(~half), lanes_full.eq(lanes), pairs_full.eq(Mux(index < spare, index, spare) + 1)]
        return m


class SoreTransposer(wiring.Component):
    """Turn blocks of up to L beats into runs along the lanes: beat s of a block becomes lane s. Two blocks: one enters, one leaves.

    Element (c, j), lane j of beat c, lies in bank c xor j, at address j: a beat goes to different banks, and so does a column. A beat is
    brought to its banks, and a column back to its lanes, by exchanging halves, quarters, ... of the lanes, a bit of c or j each.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    i : In(stream of elements of runs)
        Beats; `end` closes a block that is not full.
    o : Out(stream of elements of runs)
        The first `lanes` columns of each block, its beats side by side.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i": In(stream.Signature(run(config))), "o": Out(stream.Signature(run(config)))})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        i, o = self.i.payload, self.o.payload
        bits = (config.cols - 1).bit_length()
        banks = range(1 << bits)
        row, column = Signal(bits), Signal(bits)  # of the block that enters, of the block that leaves
        enters, leaves = Signal(), Signal()  # the half of the banks that each of them has
        full = Signal(2)
        jobs = Signal(data.ArrayLayout(shapes.prune(config), 2), reset_less=True)  # of the blocks; `beats` counts a block's own
        job = jobs[leaves]
        take, give = self.i.valid & self.i.ready, self.o.valid & self.o.ready

        # Datapath.
        beat = self._exchange(m, [i.x[lane] if lane < config.cols else 0 for lane in banks], row, "beat")
        found = []
        for bank in banks:
            m.submodules[f"bank_{bank}"] = storage = Memory(shape=signed(config.weight_bits), depth=2 << bits, init=[])
            write, read = storage.write_port(), storage.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(take),
                write.addr.eq(Cat((row ^ bank)[:bits], enters)),
                write.data.eq(beat[bank]),
                read.addr.eq(Cat(column, leaves)),
            ]
            found.append(read.data)
        lanes = self._exchange(m, found, column, "column")
        m.d.comb += [o.x[lane].eq(lanes[lane]) for lane in range(config.cols)]

        # Control.
        m.d.comb += [
            self.i.ready.eq(~full.bit_select(enters, 1)),
            self.o.valid.eq(full.bit_select(leaves, 1)),
            o.lanes.eq(job.beats),
            o.n.eq(job.n),
            o.m.eq(job.m),
            o.end.eq(column == job.lanes - 1),
        ]
        with m.If(take):
            m.d.sync += row.eq(row + 1)
            with m.If(i.end | (row == config.cols - 1)):
                entered = jobs[enters]
                m.d.sync += [row.eq(0), enters.eq(~enters), full.bit_select(enters, 1).eq(1)]
                m.d.sync += [entered.beats.eq(row + 1), entered.lanes.eq(i.lanes), entered.n.eq(i.n), entered.m.eq(i.m)]
        with m.If(give):
            m.d.sync += column.eq(column + 1)
            with m.If(o.end):
                m.d.sync += [column.eq(0), leaves.eq(~leaves), full.bit_select(leaves, 1).eq(0)]
        return m

    def _exchange(self, m, lanes, by, name):
        """Return the lanes in an order in which lane i comes to place i xor `by`."""
        for bit, on in enumerate(by):
            stage = [Signal(signed(self.config.weight_bits), name=f"{name}_{bit}_{lane}") for lane in range(len(lanes))]
            m.d.comb += [to.eq(Mux(on, lanes[place ^ 1 << bit], lanes[place])) for place, to in enumerate(stage)]
            lanes = stage
        return lanes


class Sore(wiring.Component):
    """Prune strips of weights along input channels (`ff`) and along output channels (`bp`); a beat per cycle, also from job to job.

    A beat is taken when both directions have room. Golden twin: :func:`accel.golden.sore.sore`. Timing: :mod:`accel.timing.sore`.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    job : In(stream of jobs)
        The fields of `accel.isa.Prune`; taken with the last beat of the job before.
    w : In(stream of weights)
        The job's beats; waits for the job.
    ff : Out(stream of pairs)
        Forward code: lane j is output channel j, groups run along the beats.
    bp : Out(stream of pairs)
        Backward code: lane s is beat s of a block of up to L beats, groups run along the lanes.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "job": In(stream.Signature(shapes.prune(config))),
                "w": In(stream.Signature(shapes.working(config))),
                "ff": Out(stream.Signature(shapes.code(config))),
                "bp": Out(stream.Signature(shapes.code(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        job = Signal(shapes.prune(config), reset_less=True)  # `beats` counts down
        active = Signal()

        # Datapath: the same beats to the forward lanes and, through the transposer, to the backward lanes.
        m.submodules.forward = forward = SoreLanes(config)
        m.submodules.backward = backward = SoreLanes(config)
        m.submodules.transposer = transposer = SoreTransposer(config)
        wiring.connect(m, transposer.o, backward.i)
        wiring.connect(m, forward.o, wiring.flipped(self.ff))
        wiring.connect(m, backward.o, wiring.flipped(self.bp))
        for to in (forward.i.payload, transposer.i.payload):
            m.d.comb += [to.x.eq(self.w.payload), to.lanes.eq(job.lanes), to.n.eq(job.n), to.m.eq(job.m), to.end.eq(job.beats == 1)]

        # Control: the next job may come with the last beat.
        take = self.w.valid & self.w.ready
        m.d.comb += [
            self.w.ready.eq(active & forward.i.ready & transposer.i.ready),
            forward.i.valid.eq(active & self.w.valid & transposer.i.ready),
            transposer.i.valid.eq(active & self.w.valid & forward.i.ready),
            self.job.ready.eq(~active | take & (job.beats == 1)),
        ]
        with m.If(take):
            m.d.sync += job.beats.eq(job.beats - 1)
        with m.If(self.job.ready):
            m.d.sync += [active.eq(self.job.valid), job.eq(self.job.payload)]
        return m
