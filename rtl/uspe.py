"""Unified sparse processing element: one multiplier and one adder, fed by a bundle and a (value, index) pair."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.config import AcceleratorConfig

from . import shapes
from .arithmetic import delay, overflow_rule
from .verilog import once


def tags(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out the control that travels east with a row's activations, one column a cycle.

    ``step`` a product is accumulated; ``ws`` it is a weight-stationary one; ``load`` the west neighbour's bundle is taken;
    ``first``/``last`` the sum starts from 0 / is finished; ``slot`` which of the interleaved sums; ``take`` the passing pair is
    kept for the next weight-stationary tile; ``swap`` the kept pair (if ``active``, else 0) becomes the stationary one;
    ``inject`` the finished sum ``inject_slot`` leaves southwards.
    """
    slot = unsigned(shapes.bits_for(config.add_stages - 1))
    return data.StructLayout(
        {
            "step": 1,
            "ws": 1,
            "load": 1,
            "first": 1,
            "last": 1,
            "slot": slot,
            "take": 1,
            "swap": 1,
            "active": 1,
            "inject": 1,
            "inject_slot": slot,
        }
    )


def partial(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out a sum on its way south, with its sticky overflow bit."""
    return data.StructLayout({"acc": signed(config.acc_bits), "overflow": 1})


class Uspe(wiring.Component):
    """Multiply the selected activation by the pair's value and accumulate, output or weight stationary.

    Golden twin: :func:`accel.golden.uspe.uspe`. Latency: :func:`accel.timing.uspe.uspe`.

    Parameters
    ----------
    config : AcceleratorConfig
        Source of every width in the block.

    Members
    -------
    bundle_i, tags_i : In
        From the west neighbour: the bundle it holds, and the control of this cycle.
    bundle_o, tags_o : Out
        To the east neighbour, one cycle later.
    pair_i : In(pair)
        From the north neighbour.
    pair_o : Out(pair)
        To the south neighbour, `add_stages` cycles later.
    sum_i : In(partial)
        From the north neighbour: a partial sum or a result that passes.
    sum_o : Out(partial)
        To the south neighbour.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "bundle_i": In(shapes.bundle(config)),
                "tags_i": In(tags(config)),
                "bundle_o": Out(shapes.bundle(config)),
                "tags_o": Out(tags(config)),
                "pair_i": In(shapes.pair(config)),
                "pair_o": Out(shapes.pair(config)),
                "sum_i": In(partial(config)),
                "sum_o": Out(partial(config)),
            }
        )

    def elaborate(self, platform):
        if shared := once(self, platform):
            return shared
        m = Module()
        config = self.config
        now, stages = self.tags_i, config.add_stages

        # Stage 0: hold the bundle and the pair, pass them on.
        bundle = Signal(shapes.bundle(config), reset_less=True)
        pair = Signal(shapes.pair(config), reset_less=True)
        kept = Signal(shapes.pair(config), reset_less=True)
        stationary = Signal(shapes.pair(config), reset_less=True)
        held = Signal(tags(config))
        m.d.sync += [pair.eq(self.pair_i), held.eq(now)]
        with m.If(now.load):
            m.d.sync += bundle.eq(self.bundle_i)
        with m.If(now.take):
            m.d.sync += kept.eq(self.pair_i)
        with m.If(now.swap):
            m.d.sync += stationary.as_value().eq(Mux(now.active, kept.as_value(), 0))
        m.d.comb += [self.bundle_o.eq(bundle), self.tags_o.eq(held)]
        m.d.comb += self.pair_o.eq(delay(m, pair, stages - 1, "pair_south"))

        # Stage 1 to mult_stages: select and multiply. Registers stand before and behind the multiplier as the depth allows.
        used = Signal(shapes.pair(config))
        m.d.comb += used.eq(Mux(held.ws, stationary.as_value(), pair.as_value()))
        before = 1 if config.mult_stages > 1 else 0
        activation = Signal(signed(config.act_bits))
        m.d.comb += activation.eq(bundle[used.index])
        activation = delay(m, activation, before, "activation")
        value = delay(m, used.value, before, "value")
        product = Signal(signed(config.act_bits + config.weight_bits))
        m.d.comb += product.eq(activation * value)
        product = delay(m, product, config.mult_stages - before, "product")
        ready = self._pipe(m, held, config.mult_stages, "multiplied")

        # The adder: `add_stages` cycles from augend to result, so the sum of the same slot is back just in time.
        sums = Signal(data.ArrayLayout(partial(config), stages), reset_less=True)
        augend = Signal(partial(config))
        with m.If(ready.ws):
            m.d.comb += augend.eq(self.sum_i)
        with m.Elif(~ready.first):
            m.d.comb += augend.eq(sums[ready.slot])
        total = self._add(m, augend.acc, product)
        bounded, flag = overflow_rule(m, total, config)
        result = Signal(partial(config))
        m.d.comb += result.acc.eq(bounded)
        m.d.comb += result.overflow.eq(delay(m, augend.overflow, stages - 1, "augend_overflow") | flag)
        done = self._pipe(m, ready, stages - 1, "added")
        passing = delay(m, self.sum_i, stages - 1, "passing")
        finished = Signal(data.ArrayLayout(partial(config), stages), reset_less=True)
        leaving = Signal(partial(config), reset_less=True)
        m.d.sync += leaving.eq(passing)
        with m.If(done.inject):
            m.d.sync += leaving.eq(finished[done.inject_slot])
        with m.If(done.step & done.ws):
            m.d.sync += leaving.eq(result)
        with m.If(done.step & ~done.ws):
            m.d.sync += sums[done.slot].eq(result)
            with m.If(done.last):
                m.d.sync += finished[done.slot].eq(result)
        m.d.comb += self.sum_o.eq(leaving)
        return m

    def _pipe(self, m: Module, value, cycles: int, name: str):
        """Return the tags as they were `cycles` edges ago; reset, so that nothing is in flight after a reset."""
        for stage in range(cycles):
            held = Signal(tags(self.config), name=f"{name}_{stage}")
            m.d.sync += held.eq(value)
            value = held
        return value

    def _add(self, m: Module, augend, product):
        """Add two operands, exactly: one cycle, or slices with a registered carry and one cycle left for the overflow rule."""
        config = self.config
        width = max(config.acc_bits, config.act_bits + config.weight_bits) + 1
        total = Signal(signed(width))
        slices = config.add_stages - 1
        if not slices:
            m.d.comb += total.eq(augend + product)
            return total
        a, b = Signal(signed(width)), Signal(signed(width))
        m.d.comb += [a.eq(augend), b.eq(product)]
        step = -(-width // slices)
        low: list[Value] = []
        carry = Const(0)
        for stage in range(slices):
            here = min(step, len(a))
            part = Signal(here + 1, name=f"part_{stage}", reset_less=True)
            m.d.sync += part.eq(a[:here] + b[:here] + carry)
            low = [delay(m, done, 1, f"low_{stage}_{i}") for i, done in enumerate(low)] + [part[:here]]
            carry = part[here]
            a, b = (delay(m, x[here:], 1, f"{name}_{stage}") for name, x in (("high_a", a), ("high_b", b)))
        m.d.comb += total.eq(Cat(*low))
        return total
