"""Weight-update engine: momentum, weight decay and rounding to the working copy, one weight per lane and cycle."""

from amaranth import Cat, Const, EnableInserter, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel import isa
from accel.config import AcceleratorConfig
from accel.formats import Rounding
from accel.lfsr import WORD_BITS

from . import shapes
from .arithmetic import clamp, delay, fits, round_shift
from .lfsr import leap


def carried(a: Value, b: Value, carry: Value) -> Value:
    """Return ``a + b + carry`` of signed values as one carry chain: the carry comes through a bit below."""
    return (Cat(1, a).as_signed() + Cat(carry, b).as_signed())[1:].as_signed()


class WuveLane(wiring.Component):
    """Update one weight; eleven stages.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths.

    Members
    -------
    gradient : In(signed(act_bits))
    velocity, master : In(signed(MASTER_BITS))
    momentum, decay : In(unsigned(COEFFICIENT_BITS))
        With the weight.
    gradient_shift, decay_shift : In
        Two cycles after the weight.
    rate : In(unsigned(COEFFICIENT_BITS))
        Five cycles after the weight.
    rate_shift : In(unsigned(SHIFT_BITS))
        Seven cycles after the weight.
    working_shift : In(unsigned(SHIFT_BITS))
        Nine cycles after the weight.
    stochastic, word : In
        How the working copy is rounded, and the word; ten cycles after the weight.
    new_velocity, new_master : Out(signed(MASTER_BITS))
    working : Out(signed(weight_bits))
    velocity_saturated, master_saturated, working_saturated : Out(1)
        Eleven cycles after the weight.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "gradient": In(signed(config.act_bits)),
                "velocity": In(signed(isa.MASTER_BITS)),
                "master": In(signed(isa.MASTER_BITS)),
                "momentum": In(unsigned(isa.COEFFICIENT_BITS)),
                "decay": In(unsigned(isa.COEFFICIENT_BITS)),
                "gradient_shift": In(unsigned(shapes.bits_for(isa.GRADIENT_SHIFT))),
                "decay_shift": In(unsigned(isa.SHIFT_BITS)),
                "rate": In(unsigned(isa.COEFFICIENT_BITS)),
                "rate_shift": In(unsigned(isa.SHIFT_BITS)),
                "working_shift": In(unsigned(isa.SHIFT_BITS)),
                "stochastic": In(1),
                "word": In(unsigned(WORD_BITS)),
                "new_velocity": Out(signed(isa.MASTER_BITS)),
                "new_master": Out(signed(isa.MASTER_BITS)),
                "working": Out(signed(config.weight_bits)),
                "velocity_saturated": Out(1),
                "master_saturated": Out(1),
                "working_saturated": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        floor, half_even = (Const(rule.code, 2) for rule in (Rounding.FLOOR, Rounding.HALF_EVEN))

        def register(value: Value, name: str) -> Value:
            return delay(m, value, 1, name)

        # Stages 1 and 2: multiply; the second register lets a multiplier of several DSP slices be pipelined.
        inertia = delay(m, self.momentum * self.velocity, 2, "inertia")
        pull = delay(m, self.decay * self.master, 2, "pull")
        gradient = delay(m, self.gradient, 2, "gradient")

        # Stage 3: align. Nothing is cut off above, for the gradient may bring the sum back.
        keeps, keeps_carry = round_shift(m, inertia, Const(isa.MOMENTUM_SHIFT, isa.SHIFT_BITS), half_even, isa.MASTER_BITS)
        pulls, pulls_carry = round_shift(m, pull, self.decay_shift, half_even, len(pull))
        keeps, keeps_carry = register(keeps, "keeps"), register(keeps_carry, "keeps_carry")
        pulls, pulls_carry = register(pulls, "pulls"), register(pulls_carry, "pulls_carry")
        pushes = register(gradient << self.gradient_shift, "pushes")

        # Stages 4 and 5: add, saturate.
        total = register(carried(carried(pulls, pushes, pulls_carry), keeps, keeps_carry), "total")
        velocity = register(clamp(total, isa.MASTER_BITS), "velocity")
        m.d.comb += [
            self.new_velocity.eq(delay(m, velocity, 6, "new_velocity")),
            self.velocity_saturated.eq(delay(m, ~fits(total, isa.MASTER_BITS), 7, "velocity_saturated")),
        ]

        # Stages 6 to 8: multiply, shift. A step of two bits more than a master copy has saturates any.
        step = delay(m, self.rate * velocity, 2, "step")
        steps, carry = round_shift(m, step, self.rate_shift, half_even, isa.MASTER_BITS + 2)
        steps, carry = register(steps, "steps"), register(carry, "carry")

        # Stage 9: subtract, saturate. -(x + carry) is ~x + ~carry.
        moved = Signal(signed(isa.MASTER_BITS + 3))
        m.d.comb += moved.eq(carried(delay(m, self.master, 8, "master"), ~steps, ~carry))
        master = register(clamp(moved, isa.MASTER_BITS), "new_master")
        m.d.comb += [
            self.new_master.eq(delay(m, master, 2, "new_master")),
            self.master_saturated.eq(delay(m, ~fits(moved, isa.MASTER_BITS), 3, "master_saturated")),
        ]

        # Stage 10: shift. A word's bits stay below the point: where more were dropped the number is less than 1/4, so none is missed.
        # Beyond one bit more than a working copy has, no carry brings a number back.
        fraction, _ = round_shift(
            m, Cat(Const(0, WORD_BITS), master).as_signed(), self.working_shift, floor, WORD_BITS + config.weight_bits + 1
        )
        fraction = register(fraction, "fraction")

        # Stage 11: round, saturate.
        below, whole = fraction[:WORD_BITS], fraction[WORD_BITS:].as_signed()
        up = Mux(self.stochastic, (below + self.word)[WORD_BITS], below[-1] & (below[:-1].any() | whole[0]))
        rounded = Signal(signed(config.weight_bits + 2))
        m.d.comb += rounded.eq(whole + up)
        m.d.comb += [
            self.working.eq(register(clamp(rounded, config.weight_bits), "working")),
            self.working_saturated.eq(register(~fits(rounded, config.weight_bits), "working_saturated")),
        ]
        return m


class Wuve(wiring.Component):
    """Update the weights of a job; one beat per cycle, also from one job or tensor to the next.

    The pipeline stands still while results wait. A lane with elements draws a word in every beat of a stochastic job. Golden twin:
    :func:`accel.golden.wuve.wuve`. Timing: :mod:`accel.timing.wuve`.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    seed : In(stream of words)
        What the lanes draw first in a tensor; taken when the words of the tensor before are all drawn.
    job : In(stream of jobs)
        The fields of `accel.isa.Update`; taken with the last beat of the job before.
    i : In(stream of gradients)
        The job's beats; waits for the job.
    o : Out(stream of updated weights)
        One for each beat.
    state : Out(stream of words)
        What the lanes would draw next, behind each tensor that draws words.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "seed": In(stream.Signature(shapes.words(config))),
                "job": In(stream.Signature(shapes.update(config))),
                "i": In(stream.Signature(shapes.gradients(config))),
                "o": Out(stream.Signature(shapes.updated(config))),
                "state": Out(stream.Signature(shapes.words(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        job = Signal(shapes.update(config), reset_less=True)  # `beats` counts down
        active = Signal()
        valid = Signal(10)  # stages 1 to 10 hold a beat
        words = Signal(shapes.words(config), reset_less=True)
        final = Signal(shapes.words(config), reset_less=True)
        seeded = Signal()
        advance = Signal()
        take = Signal()

        # Datapath: what the lanes share travels beside them.
        with m.If(advance):
            ages = {"gradient_shift": 2, "decay_shift": 2, "rate": 5, "rate_shift": 7, "working_shift": 9, "stochastic": 10}
            shared = {name: delay(m, job[name], age, name) for name, age in ages.items()}
            lanes = delay(m, job.lanes, 10, "lanes")
            ends = delay(m, job.last & (job.beats == 1), 10, "ends")
            m.d.sync += Cat(valid, self.o.valid).eq(Cat(take, valid))
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        for column in range(config.cols):
            lane = WuveLane(config)
            m.submodules[f"lane_{column}"] = EnableInserter(advance)(lane)
            m.d.comb += [getattr(lane, name).eq(value) for name, value in shared.items()]
            m.d.comb += [getattr(lane, name).eq(self.i.payload[name][column]) for name in ("gradient", "velocity", "master")]
            m.d.comb += [
                lane.momentum.eq(job.momentum),
                lane.decay.eq(Mux(self.i.payload.kept[column], job.decay, job.pruned_decay)),
                lane.word.eq(words[column]),
                self.o.payload.velocity[column].eq(lane.new_velocity),
                self.o.payload.master[column].eq(lane.new_master),
            ]
            m.d.comb += [
                self.o.payload[name][column].eq(getattr(lane, name))
                for name in ("working", "velocity_saturated", "master_saturated", "working_saturated")
            ]

        # Words: drawn in stage 11, so that the pipeline need not carry them.
        draw, end = Signal(), Signal()
        following = Signal.like(words)
        m.d.comb += [draw.eq(valid[-1] & shared["stochastic"]), end.eq(draw & ends)]
        m.d.comb += [following[j].eq(Mux(lanes > j, leap(words[j]), words[j])) for j in range(config.cols)]
        with m.If(advance & draw):
            m.d.sync += words.eq(following)
        with m.If(advance & end):
            m.d.sync += [final.eq(following), self.state.valid.eq(1)]
        with m.Elif(self.state.ready):
            m.d.sync += self.state.valid.eq(0)
        with m.If(self.seed.ready):
            m.d.sync += seeded.eq(self.seed.valid)
            with m.If(self.seed.valid):
                m.d.sync += words.eq(self.seed.payload)
        m.d.comb += [self.state.payload.eq(final), self.seed.ready.eq(~seeded | advance & end)]

        # Control: a draw waits for its seed, a tensor's last one for room for the final words; the next job may come with the last beat.
        m.d.comb += [
            advance.eq((self.o.ready | ~self.o.valid) & ~(draw & ~seeded) & ~(end & self.state.valid & ~self.state.ready)),
            self.i.ready.eq(active & advance),
            take.eq(self.i.valid & self.i.ready),
            self.job.ready.eq(~active | take & (job.beats == 1)),
        ]
        with m.If(take):
            m.d.sync += job.beats.eq(job.beats - 1)
        with m.If(self.job.ready):
            m.d.sync += [active.eq(self.job.valid), job.eq(self.job.payload)]
        return m
