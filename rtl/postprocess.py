"""Post-processor: sums in, activations out; bias, multiplier and shift of each channel, zero point and range of each job."""

from amaranth import Cat, EnableInserter, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from accel import isa
from accel.config import AcceleratorConfig

from . import shapes
from .arithmetic import clip, delay, round_shift


class PostprocessLane(wiring.Component):
    """Requantise the sums of one column: ``clip(round_shift((acc + bias) * mult, shift) + zero_point, lo, hi)``; five stages.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths.

    Members
    -------
    acc, bias : In(signed(acc_bits))
        Sum and bias, in the same cycle.
    mult : In(unsigned(mult_bits))
        Multiplier, with the sum.
    shift : In(unsigned(SHIFT_BITS))
        Shift, with the sum.
    rounding : In(2)
        Counts floor, half_up, half_even; three cycles after the sum.
    zero_point, lo, hi : In(signed(act_bits))
        Four cycles after the sum.
    value : Out(signed(act_bits))
        Activation, five cycles after the sum.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "acc": In(signed(config.acc_bits)),
                "bias": In(signed(config.acc_bits)),
                "mult": In(unsigned(config.mult_bits)),
                "shift": In(unsigned(isa.SHIFT_BITS)),
                "rounding": In(unsigned(2)),
                "zero_point": In(signed(config.act_bits)),
                "lo": In(signed(config.act_bits)),
                "hi": In(signed(config.act_bits)),
                "value": Out(signed(config.act_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # Stage 1: bias.
        biased = Signal(signed(config.acc_bits + 1), reset_less=True)
        m.d.sync += biased.eq(self.acc + self.bias)
        mult = delay(m, self.mult, 1, "mult")

        # Stages 2 and 3: multiply; the second register lets a multiplier of several DSP slices be pipelined.
        product = delay(m, biased * mult, 2, "product")
        shift = delay(m, self.shift, 3, "shift")

        # Stage 4: shift. Beyond one bit more than an activation has, neither carry nor zero point brings a quotient back into lo..hi.
        quotient = Signal(signed(config.act_bits + 1), reset_less=True)
        carry = Signal(reset_less=True)
        floor, up = round_shift(m, product, shift, self.rounding, len(quotient))
        m.d.sync += [quotient.eq(floor), carry.eq(up)]

        # Stage 5: round, add the zero point, clip.
        value = Signal(signed(config.act_bits), reset_less=True)
        m.d.sync += value.eq(clip(quotient + self.zero_point + carry, self.lo, self.hi))
        m.d.comb += self.value.eq(value)
        return m


class Postprocess(wiring.Component):
    """Requantise the rows of a job; one row per cycle, also from one job to the next.

    The pipeline stands still while a result waits. A row uses the parameters written before the cycle in which it is taken. Golden twin:
    :func:`accel.golden.postprocess.postprocess`. Timing: :mod:`accel.timing.postprocess`.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    params : In(stream of parameter vectors)
        Writes the parameter memory; always ready.
    job : In(stream of jobs)
        The fields of `accel.isa.Post`; taken with the last row of the job before.
    array, vector : In(stream of rows)
        Rows of the array and of the vector unit; the job says which of them it takes, the other waits.
    o : Out(stream of results)
        One row of activations per row of sums; overflow bits pass.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "params": In(stream.Signature(shapes.params(config))),
                "job": In(stream.Signature(shapes.post(config))),
                "array": In(stream.Signature(shapes.row(config))),
                "vector": In(stream.Signature(shapes.row(config))),
                "o": Out(stream.Signature(shapes.result(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        job = Signal(shapes.post(config), reset_less=True)  # `rows` counts down
        active = Signal()
        address = Signal.like(job.base, reset_less=True)
        vectors_left = Signal.like(job.vectors, reset_less=True)
        valid = Signal(5)  # stages 1 to 5 hold a row
        advance = Signal()
        take = Signal()

        # Stage 1: hold the row, read its parameters.
        stored = data.StructLayout({name: shape for name, shape in shapes.params(config).members.items() if name != "address"})
        m.submodules.memory = memory = Memory(shape=stored, depth=config.param_rows, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [self.params.ready.eq(1), write.en.eq(self.params.valid), write.addr.eq(self.params.payload.address)]
        m.d.comb += [write.data[name].eq(self.params.payload[name]) for name in stored.members]
        m.d.comb += [read.en.eq(advance), read.addr.eq(address)]
        row = Signal(shapes.row(config), reset_less=True)

        # Stages 2 to 6: requantise. What the lanes share travels beside them.
        with m.If(advance):
            m.d.sync += row.eq(Mux(job.vector, self.vector.payload.as_value(), self.array.payload.as_value()))
            shared = {name: delay(m, job[name], 5, name) for name in ("zero_point", "lo", "hi")}
            shared["rounding"] = delay(m, job.rounding, 4, "rounding")
            overflow = delay(m, row.overflow, 5, "overflow")
            m.d.sync += Cat(valid, self.o.valid).eq(Cat(take, valid))
        m.d.comb += self.o.payload.overflow.eq(overflow)
        for column in range(config.cols):
            lane = PostprocessLane(config)
            m.submodules[f"lane_{column}"] = EnableInserter(advance)(lane)
            m.d.comb += [getattr(lane, name).eq(value) for name, value in shared.items()]
            m.d.comb += [getattr(lane, name).eq(read.data[name][column]) for name in stored.members]
            m.d.comb += [lane.acc.eq(row.acc[column]), self.o.payload.value[column].eq(lane.value)]

        # Control: count rows and parameter vectors; the next job may come with the last row.
        m.d.comb += [
            advance.eq(self.o.ready | ~self.o.valid),
            self.array.ready.eq(active & advance & ~job.vector),
            self.vector.ready.eq(active & advance & job.vector),
            take.eq(active & advance & Mux(job.vector, self.vector.valid, self.array.valid)),
            self.job.ready.eq(~active | take & (job.rows == 1)),
        ]
        with m.If(take):
            m.d.sync += [job.rows.eq(job.rows - 1), address.eq(address + 1), vectors_left.eq(vectors_left - 1)]
            with m.If(vectors_left == 1):
                m.d.sync += [address.eq(job.base), vectors_left.eq(job.vectors)]
        with m.If(self.job.ready):
            m.d.sync += [
                active.eq(self.job.valid),
                job.eq(self.job.payload),
                address.eq(self.job.payload.base),
                vectors_left.eq(self.job.payload.vectors),
            ]
        return m
