"""Store of the partial sums that go once more through the array."""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.config import AcceleratorConfig

from . import shapes
from .fifo import Fifo


class Accumulator(wiring.Component):
    """Pass finished rows on, queue the others for the array: one row in and one out every cycle.

    Golden twin: :func:`accel.golden.accumulator.accumulator`. Cycles: :func:`accel.timing.accumulator.accumulator`.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width; the queue holds `acc_rows` rows.

    Members
    -------
    i : In(kept_row)
        Rows of the array.
    o : Out(row)
        Rows without `keep`, in the cycle they arrive.
    psum : Out(row)
        Rows with `keep`, in order, one cycle after they arrive at the earliest.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(shapes.kept_row(config))),
                "o": Out(stream.Signature(shapes.row(config))),
                "psum": Out(stream.Signature(shapes.row(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Fifo(shapes.row(self.config), self.config.acc_rows)

        # Datapath.
        for payload in (queue.i.payload, self.o.payload):
            m.d.comb += [payload.acc.eq(self.i.payload.acc), payload.overflow.eq(self.i.payload.overflow)]
        wiring.connect(m, queue.o, wiring.flipped(self.psum))

        # Control.
        with m.If(self.i.payload.keep):
            m.d.comb += [queue.i.valid.eq(self.i.valid), self.i.ready.eq(queue.i.ready)]
        with m.Else():
            m.d.comb += [self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready)]
        return m
