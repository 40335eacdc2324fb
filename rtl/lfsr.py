"""Words of stochastic rounding: a linear-feedback shift register per lane, 32 fresh bits for every element."""

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.config import AcceleratorConfig
from accel.lfsr import parities

from . import shapes


def leap(word: Value) -> Value:
    """Return the word that follows: each of its bits is the parity of some of this one's."""
    return Cat(Cat(word[bit] for bit in bits).xor() for bits in parities())


class Lfsr(wiring.Component):
    """Show every lane's word; the lanes that take theirs leap to the next.

    Golden twin: :func:`accel.golden.lfsr.lfsr`. Timing: :mod:`accel.timing.lfsr`.

    Parameters
    ----------
    config : AcceleratorConfig
        Its `cols` are the lanes.

    Members
    -------
    seed : In(stream of words)
        States at the start of a tensor; taken when the tensor before is finished.
    i : In(stream of draws)
        Lanes that have an element in this beat, and whether it is the tensor's last beat; waits for the tensor's seed.
    o : Out(stream of words)
        The words of the beat, in the same cycle. Behind the last beat it shows the final states until the next seed.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "seed": In(stream.Signature(shapes.words(config))),
                "i": In(stream.Signature(shapes.draw(config))),
                "o": Out(stream.Signature(shapes.words(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        state = Signal(shapes.words(self.config), reset_less=True)
        seeded = Signal()
        drawn = self.i.valid & self.i.ready

        # Datapath: a word is a register.
        m.d.comb += self.o.payload.eq(state)
        for lane in range(self.config.cols):
            with m.If(drawn & self.i.payload.take[lane]):
                m.d.sync += state[lane].eq(leap(state[lane]))
        with m.If(self.seed.valid & self.seed.ready):
            m.d.sync += state.eq(self.seed.payload)

        # Control: one tensor at a time, the next seed may come with the last beat.
        m.d.comb += [
            self.i.ready.eq(seeded & self.o.ready),
            self.o.valid.eq(seeded & self.i.valid),
            self.seed.ready.eq(~seeded | drawn & self.i.payload.last),
        ]
        with m.If(self.seed.ready):
            m.d.sync += seeded.eq(self.seed.valid)
        return m
