"""Radial-basis network: samples in, weighted sums of Gaussians out, parallel or with neurons that take turns."""

from amaranth import Cat, Const, EnableInserter, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from accel.config import RbfConfig

from . import shapes
from .arithmetic import add, clamp, delay, levels, multiply, stage, total
from .function import Function
from .rbf_neuron import RbfUnit


class RbfNetwork(wiring.Component):
    """Compute the outputs of a sample, with parameters that are loaded row by row.

    With as many units as neurons, a sample per cycle; without stages all is then combinational. With fewer, unit u takes neurons
    u * `passes` to (u + 1) * `passes` - 1 in turn, a sample per `passes` cycles. While a result waits everything stands still. A row is
    taken when no sample is inside, and samples wait while one is offered. Golden twin: :func:`accel.golden.rbf_network.rbf_network`.
    Timing: :mod:`accel.timing.rbf_network`.

    Parameters
    ----------
    config : RbfConfig
        Sizes, formats and stages.

    Members
    -------
    params : In(stream of rows)
        Centre, width and weights of the neuron `address`; the biases at the address behind the last neuron.
    i : In(stream of samples)
        Samples.
    o : Out(stream of results)
        One result per output for each sample.
    """

    def __init__(self, config: RbfConfig):
        self.config = config
        super().__init__(
            {
                "params": In(stream.Signature(shapes.neuron_row(config))),
                "i": In(stream.Signature(shapes.sample(config))),
                "o": Out(stream.Signature(shapes.results(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        path = Module()  # what stands still while a result waits
        units = [RbfUnit(config) for _ in range(-(-config.neurons // config.passes))]  # each has a neuron at least
        path.submodules += units
        turns = config.passes > 1
        registered = bool(config.stages)
        sums = registered * (1 + levels(len(units)))  # ranks from activations to the sum of a pass
        advance = Signal()
        take = Signal()
        write = Signal()

        # Parameters: in registers beside each unit, or in memories that a counter of passes reads.
        biases = self.row(m, write, config.neurons).weight
        if turns:
            x = Signal(shapes.sample(config), reset_less=True)
            last = Signal()
            turn = Signal(range(config.passes), init=config.passes - 1)
            following = Mux(last, 0, turn + 1)
            m.d.comb += last.eq(turn == config.passes - 1)
            with path.If(take | ~last):
                path.d.sync += turn.eq(following)
            with path.If(take):
                path.d.sync += x.eq(self.i.payload)
            ahead = following if not units[0].ranks else delay(path, turn, units[0].ranks - 1, "ahead")
            adding = delay(path, turn, units[0].ranks + sums, "adding")
        weights = []
        for u, unit in enumerate(units):
            if turns:
                first = u * config.passes
                count = min(config.passes, config.neurons - first)
                local = self.params.payload.address - first
                mine = write & (local >= 0) & (local < count)  # weights behind the last neuron stay 0, as memories begin
                stored = shapes.neuron(config).members
                neuron = self.memory(m, {name: stored[name] for name in ("centre", "width")}, mine, local, following, advance)
                weight = self.memory(m, {"weight": shapes.neuron_row(config).members["weight"]}, mine, local, ahead, advance).weight
                width = delay(path, neuron.width, unit.lead, f"width_{u}")
            else:
                x, neuron = self.i.payload, self.row(m, write, u)
                weight, width = neuron.weight, neuron.width
            path.d.comb += [unit.x.eq(x), unit.centre.eq(neuron.centre), unit.width.eq(width)]
            weights.append(weight)

        # Outputs: products, their sum and the bias, rounded half up and saturated. The half is a bit below or in the bias.
        shift = config.phi_bits + config.weight_frac - config.sum_frac
        half = 1 << shift >> 1
        for k in range(config.outputs):
            products = [multiply(path, weight[k], unit.phi, config.products) for weight, unit in zip(weights, units, strict=True)]
            products = [stage(path, product, registered, f"product_{k}_{u}") for u, product in enumerate(products)]
            bias = Cat(Const(half % (1 << config.phi_bits), config.phi_bits), biases[k] + (half >> config.phi_bits)).as_signed()
            if turns:
                part = total(path, products, registered, f"part_{k}")
                largest = (config.neurons + 1 << config.phi_bits + config.weight_bits - 1) + half
                exact = Signal(signed(largest.bit_length() + 1), name=f"exact_{k}", reset_less=True)
                path.d.sync += exact.eq(add(Mux(adding == 0, bias, exact), part))
            else:
                exact = total(path, [*products, bias], registered, f"exact_{k}")
            result = stage(path, clamp(exact.shift_right(shift), config.sum_bits), registered, f"result_{k}")
            if config.output == "sigmoid":
                sigmoid = Function(config.sigmoid)
                path.submodules[f"sigmoid_{k}"] = sigmoid
                path.d.comb += [sigmoid.i.valid.eq(1), sigmoid.i.payload.eq(result), sigmoid.o.ready.eq(1)]
                result = sigmoid.o.payload
            path.d.comb += self.o.payload[k].eq(result)
        m.submodules.path = EnableInserter(advance)(path)

        # Control: which ranks hold a sample, or one of its turns. Rows enter when none does, samples when no row is offered.
        m.d.comb += [take.eq(self.i.valid & self.i.ready), write.eq(self.params.valid & self.params.ready)]
        outputs = registered + config.sigmoid.stages * (config.output == "sigmoid")
        if turns:
            turns_held = 1 + units[0].ranks + sums
            held = Signal(turns_held + 1 + outputs)
            finished = held[turns_held - 1] & (adding == config.passes - 1)
            path.d.sync += held.eq(Cat(take | ~last, held[: turns_held - 1], finished, held[turns_held:]))
            m.d.comb += self.i.ready.eq(advance & last & ~self.params.valid)
        elif registered:
            held = Signal(units[0].ranks + 1 + levels(len(units) + 1) + outputs)
            path.d.sync += held.eq(Cat(take, held))
            m.d.comb += self.i.ready.eq(advance & ~self.params.valid)
        else:  # a result that has been shown stays: it holds rows back
            held = Signal(1)
            m.d.sync += held.eq(self.o.valid & ~self.o.ready)
            m.d.comb += self.i.ready.eq(self.o.ready & (held | ~self.params.valid))
        if turns or registered:
            m.d.comb += [advance.eq(self.o.ready | ~self.o.valid), self.o.valid.eq(held[-1])]
        else:
            m.d.comb += self.o.valid.eq(self.i.valid & (held | ~self.params.valid))
        m.d.comb += self.params.ready.eq(~held.any())
        return m

    def row(self, m, write, address):
        """Return the parameters that the row of an address brought last, in registers."""
        row = Signal(shapes.neuron_row(self.config), name=f"row_{address}", reset_less=True)
        with m.If(write & (self.params.payload.address == address)):
            m.d.sync += row.eq(self.params.payload)
        return row

    def memory(self, m, fields, write, address, read_address, advance):
        """Return fields of the parameters that rows brought, from a memory; `read_address` leads them by a cycle."""
        layout = data.StructLayout(fields)
        memory = Memory(shape=layout, depth=self.config.passes, init=[])
        m.submodules += memory
        port, read = memory.write_port(), memory.read_port()
        m.d.comb += [port.en.eq(write), port.addr.eq(address), read.en.eq(advance), read.addr.eq(read_address)]
        m.d.comb += [port.data[name].eq(self.params.payload[name]) for name in fields]
        return read.data
