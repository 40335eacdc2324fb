"""Vector unit: one accumulator per column reduces the beats of a window to a sum or a maximum."""

from amaranth import EnableInserter, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel import isa
from accel.config import AcceleratorConfig

from . import shapes
from .arithmetic import overflow_rule


class VectorLane(wiring.Component):
    """Multiply an element by its coefficient and accumulate; two stages.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths and overflow rule.

    Members
    -------
    x : In(signed(act_bits))
        Element.
    coefficient : In(signed(COEFFICIENT_BITS))
        Its factor, 1 for a maximum.
    step, first, maximum : In(1)
        One cycle after `x`: the element counts, it is its window's first, the window is reduced to its maximum.
    acc : Out(signed(acc_bits))
        Sum or maximum so far.
    overflow : Out(1)
        Whether an addition of this window overflowed.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "x": In(signed(config.act_bits)),
                "coefficient": In(signed(isa.COEFFICIENT_BITS)),
                "step": In(1),
                "first": In(1),
                "maximum": In(1),
                "acc": Out(signed(config.acc_bits)),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # Stage 1: multiply.
        product = Signal(signed(config.act_bits + isa.COEFFICIENT_BITS), reset_less=True)
        m.d.sync += product.eq(self.x * self.coefficient)

        # Stage 2: add to the window's sum, or keep the larger. The register is also the result.
        acc = Signal(signed(config.acc_bits), reset_less=True)
        overflow = Signal(reset_less=True)
        total, total_flag = overflow_rule(m, Mux(self.first, 0, acc) + product, config)
        element, element_flag = overflow_rule(m, product[: config.act_bits].as_signed(), config)
        largest = acc[: len(element)].as_signed()
        with m.If(self.step):
            m.d.sync += overflow.eq(~self.first & overflow | Mux(self.maximum, element_flag, total_flag))
            with m.If(~self.maximum):
                m.d.sync += acc.eq(total)
            with m.Elif(self.first | (element > largest)):
                m.d.sync += acc.eq(element)
        m.d.comb += [self.acc.eq(acc), self.overflow.eq(overflow)]
        return m


class Vector(wiring.Component):
    """Reduce every window of a job to one row; one beat per cycle, also from one row or job to the next.

    The pipeline stands still while a result waits. Golden twin: :func:`accel.golden.vector.vector`. Timing: :mod:`accel.timing.vector`.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    job : In(stream of jobs)
        The fields of `accel.isa.Vector`; taken with the last beat of the job before.
    x : In(stream of operand rows)
        The job's windows, beat by beat; waits for the job.
    o : Out(stream of rows)
        One row per window.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "job": In(stream.Signature(shapes.vector(config))),
                "x": In(stream.Signature(shapes.lanes(config))),
                "o": Out(stream.Signature(shapes.row(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = Signal(shapes.vector(self.config), reset_less=True)  # `rows` counts down
        active = Signal()
        beats_left = Signal.like(job.window, reset_less=True)
        first = Signal(reset_less=True)
        advance = Signal()
        take = Signal()
        take_last = Signal()

        # Datapath: tags of stage 1 travel beside the products.
        step = Signal()
        head = Signal(reset_less=True)
        last = Signal(reset_less=True)
        maximum = Signal(reset_less=True)
        with m.If(advance):
            m.d.sync += [step.eq(take), head.eq(first), last.eq(beats_left == 1), maximum.eq(job.max), self.o.valid.eq(step & last)]
        coefficient = Signal.like(job.head)
        m.d.comb += coefficient.eq(Mux(first, job.head, job.tail))
        for column in range(self.config.cols):
            lane = VectorLane(self.config)
            m.submodules[f"lane_{column}"] = EnableInserter(advance)(lane)
            m.d.comb += [
                lane.x.eq(self.x.payload[column]),
                lane.coefficient.eq(coefficient),
                lane.step.eq(step),
                lane.first.eq(head),
                lane.maximum.eq(maximum),
                self.o.payload.acc[column].eq(lane.acc),
                self.o.payload.overflow[column].eq(lane.overflow),
            ]

        # Control: count beats and rows; the next job may come with the last beat.
        m.d.comb += [
            advance.eq(self.o.ready | ~self.o.valid),
            self.x.ready.eq(active & advance),
            take.eq(self.x.valid & self.x.ready),
            take_last.eq(take & (beats_left == 1) & (job.rows == 1)),
            self.job.ready.eq(~active | take_last),
        ]
        with m.If(take):
            m.d.sync += [first.eq(0), beats_left.eq(beats_left - 1)]
            with m.If(beats_left == 1):
                m.d.sync += [first.eq(1), beats_left.eq(job.window), job.rows.eq(job.rows - 1)]
        with m.If(self.job.ready):
            m.d.sync += [active.eq(self.job.valid), job.eq(self.job.payload), beats_left.eq(self.job.payload.window), first.eq(1)]
            with m.If(self.job.payload.max):
                m.d.sync += [job.head.eq(1), job.tail.eq(1)]
        return m
