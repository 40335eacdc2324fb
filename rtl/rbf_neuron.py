"""Radial-basis neuron: squared distance of a sample and a centre, times a width, into a Gaussian."""

from amaranth import Cat, EnableInserter, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.config import RbfConfig
from accel.functions.evaluate import idle_bits, varying_bits
from accel.functions.generate import design

from . import shapes
from .arithmetic import delay, levels, multiply, saturate, square, stage, total
from .function import Border, Function


class RbfUnit(wiring.Component):
    """Compute a neuron's activation without a handshake; with stages a register behind every step.

    Parameters
    ----------
    config : RbfConfig
        Formats and stages.

    Attributes
    ----------
    lead : int
        Cycles from a sample to the width it meets.
    ranks : int
        Cycles from a sample to its activation.

    Members
    -------
    x, centre : In(sample)
        Sample and centre, in the same cycle.
    width : In(unsigned(width_bits))
        Width, `lead` cycles later.
    phi : Out(unsigned(phi_bits))
        Activation, `ranks` cycles after the sample.
    """

    def __init__(self, config: RbfConfig):
        self.config = config
        self.lead = 3 + levels(config.dims) if config.stages else 0
        self.ranks = self.lead + 1 + config.stages if config.stages else 0
        super().__init__(
            {
                "x": In(shapes.sample(config)),
                "centre": In(shapes.sample(config)),
                "width": In(unsigned(config.width_bits)),
                "phi": Out(unsigned(config.phi_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        registered = bool(config.stages)

        # Difference, square, sum: exact. Rows of additions want a magnitude; a multiplier takes the sign for nothing.
        squares = []
        for i in range(config.dims):
            difference = self.x[i] - self.centre[i]
            if config.products == "rows":
                difference = magnitude(difference)
            difference = stage(m, difference, registered, f"difference_{i}")
            squares.append(stage(m, square(m, difference, config.products)[: 2 * config.x_bits], registered, f"square_{i}"))
        exact = total(m, squares, registered, "sum")

        # Distance: rounded down and saturated, where it can be too large.
        distance = Signal(unsigned(config.distance_bits))
        largest = config.dims * ((1 << config.x_bits) - 1) ** 2
        m.d.comb += distance.eq(saturate(exact[: largest.bit_length()][2 * config.x_frac - config.distance_frac :], config.distance_bits))
        distance = stage(m, distance, registered, "distance_held")

        # Exponent: rounded down and saturated, in the bits above those that the Gaussian then does not look at.
        scaled = multiply(m, distance, self.width, config.products)[config.distance_frac + config.width_frac - config.t_frac :]
        path = design(config.gaussian).datapath
        idle = idle_bits(path)
        t = Signal(unsigned(config.t_bits))
        m.d.comb += t.eq(Cat(scaled[:idle], saturate(scaled[idle:], config.t_bits - idle)))

        m.submodules.gaussian = gaussian = Function(config.gaussian)
        m.d.comb += [gaussian.i.valid.eq(1), gaussian.i.payload.eq(stage(m, t, registered, "t_held")), gaussian.o.ready.eq(1)]
        m.d.comb += self.phi.eq(gaussian.o.payload)
        if config.products == "rows":  # each row would take in the logic of the bit that decides on it
            for bit in varying_bits(path):
                m.submodules += (border := Border())
                m.d.comb += [border.i.eq(gaussian.o.payload[bit]), self.phi[bit].eq(border.o)]
        return m


def magnitude(value):
    """Return the magnitude of a signed value that is not the least of its width."""
    sign = value[-1]
    return ((value[:-1] ^ sign.replicate(len(value) - 1)) + sign)[: len(value) - 1]


class RbfNeuron(wiring.Component):
    """Compute a neuron's activation, one sample per cycle; each brings its centre and width.

    With stages, all of them stand still while an activation waits behind the last. Golden twin:
    :func:`accel.golden.rbf_neuron.rbf_neuron`. Timing: :mod:`accel.timing.rbf_neuron`.

    Parameters
    ----------
    config : RbfConfig
        Formats and stages.

    Members
    -------
    i : In(stream of neurons)
        Sample, centre and width.
    o : Out(stream of activations)
        One per sample.
    """

    def __init__(self, config: RbfConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(shapes.neuron(config))),
                "o": Out(stream.Signature(unsigned(config.phi_bits))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        path = Module()
        advance = Signal()

        path.submodules.unit = unit = RbfUnit(self.config)
        path.d.comb += [unit.x.eq(self.i.payload.x), unit.centre.eq(self.i.payload.centre), self.o.payload.eq(unit.phi)]
        path.d.comb += unit.width.eq(delay(path, self.i.payload.width, unit.lead, "width"))

        # Control: which ranks hold a sample.
        if unit.ranks:
            held = Signal(unit.ranks)
            path.d.sync += held.eq(Cat(self.i.valid, held))
            m.d.comb += [advance.eq(self.o.ready | ~self.o.valid), self.i.ready.eq(advance), self.o.valid.eq(held[-1])]
        else:
            m.d.comb += [self.i.ready.eq(self.o.ready), self.o.valid.eq(self.i.valid)]
        m.submodules.path = EnableInserter(advance)(path)
        return m
