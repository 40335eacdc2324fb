"""Compute core: the array with its accumulator, the vector unit, and the post-processor behind both."""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from accel.config import AcceleratorConfig

from . import shapes
from .accumulator import Accumulator
from .postprocess import Postprocess
from .stce import Stce
from .vector import Vector


class Core(wiring.Component):
    """Wire array, accumulator, vector unit and post-processor; it adds no register.

    Golden twin: :func:`accel.golden.core.core`. Timing: :mod:`accel.timing.core`.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    tile, west, north : In(stream)
        Operands of the array, see :class:`accel.rtl.stce.Stce`.
    reduce, x : In(stream)
        Jobs and operand rows of the vector unit, see :class:`accel.rtl.vector.Vector`.
    post, params : In(stream)
        Jobs and parameters of the post-processor, see :class:`accel.rtl.postprocess.Postprocess`.
    o : Out(stream of results)
        Requantised rows in the order of the post-processor's jobs.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "tile": In(stream.Signature(shapes.tile(config))),
                "west": In(stream.Signature(shapes.west(config))),
                "north": In(stream.Signature(shapes.north(config))),
                "reduce": In(stream.Signature(shapes.vector(config))),
                "x": In(stream.Signature(shapes.lanes(config))),
                "post": In(stream.Signature(shapes.post(config))),
                "params": In(stream.Signature(shapes.params(config))),
                "o": Out(stream.Signature(shapes.result(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.stce = stce = Stce(self.config)
        m.submodules.accumulator = accumulator = Accumulator(self.config)
        m.submodules.vector = vector = Vector(self.config)
        m.submodules.postprocess = postprocess = Postprocess(self.config)

        connect(m, flipped(self.tile), stce.tile)
        connect(m, flipped(self.west), stce.west)
        connect(m, flipped(self.north), stce.north)
        connect(m, stce.o, accumulator.i)
        connect(m, accumulator.psum, stce.psum)
        connect(m, accumulator.o, postprocess.array)
        connect(m, flipped(self.reduce), vector.job)
        connect(m, flipped(self.x), vector.x)
        connect(m, vector.o, postprocess.vector)
        connect(m, flipped(self.post), postprocess.job)
        connect(m, flipped(self.params), postprocess.params)
        connect(m, postprocess.o, flipped(self.o))
        return m
