"""First-in first-out queue in a memory with synchronous read, so that it maps to block RAM."""

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out


class Fifo(wiring.Component):
    """Queue up to `depth` payloads; a payload accepted in cycle t can leave in cycle t + 1.

    One payload enters and one leaves every cycle at any depth of 2 or more; at depth 1 they alternate.

    Parameters
    ----------
    shape : ShapeLike
        Shape of a payload.
    depth : int
        Payloads held, 1 or more.

    Members
    -------
    i : In(stream.Signature(shape))
        Ready while the queue holds fewer than `depth` payloads.
    o : Out(stream.Signature(shape))
        Valid while the queue is not empty.
    level : Out(range(depth + 1))
        Payloads held.
    """

    def __init__(self, shape, depth: int):
        self.shape = shape
        self.depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()

        # Datapath: the read port looks one cycle ahead and sees the word being written, so a payload is never late.
        m.submodules.storage = storage = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        write = storage.write_port()
        read = storage.read_port(transparent_for=(write,))
        head = Signal(range(self.depth))
        tail = Signal(range(self.depth))
        next_head = Signal(range(self.depth))
        m.d.comb += [write.addr.eq(tail), write.data.eq(self.i.payload)]
        m.d.comb += [read.addr.eq(next_head), self.o.payload.eq(read.data)]

        # Control.
        enter = self.i.valid & self.i.ready
        leave = self.o.valid & self.o.ready
        m.d.comb += [self.i.ready.eq(self.level != self.depth), self.o.valid.eq(self.level != 0)]
        m.d.comb += [write.en.eq(enter), next_head.eq(Mux(leave, self._after(head), head))]
        m.d.sync += [head.eq(next_head), self.level.eq(self.level + enter - leave)]
        with m.If(enter):
            m.d.sync += tail.eq(self._after(tail))
        return m

    def _after(self, address):
        return Mux(address == self.depth - 1, 0, address + 1)
