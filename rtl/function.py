"""Nonlinear unit: operand stream in, result stream out; combinational or in as many stages as wanted."""

from collections.abc import Callable

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.config import FunctionConfig
from accel.functions.cost import stages
from accel.functions.generate import design

from .verilog import once


class Function(wiring.Component):
    """Compute the function that a configuration describes, one result per cycle.

    The hardware of the same description that the golden model runs, node by node. With stages, all of them stand still while a result
    waits behind the last. Golden twin: :func:`accel.golden.function.function`. Timing: :mod:`accel.timing.function`.

    Parameters
    ----------
    config : FunctionConfig
        Formats, error target and stages.

    Members
    -------
    i : In(stream of operands)
        Format ``config.operand``.
    o : Out(stream of results)
        Format ``config.result``.
    """

    def __init__(self, config: FunctionConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(Shape(config.in_bits, config.operand.signed))),
                "o": Out(stream.Signature(Shape(config.out_bits, config.result.signed))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        path = design(self.config).datapath
        place = stages(path, self.config.stages)
        advance = Signal()

        # Datapath: a node's value is made in its stage, counted from 0; whoever needs it later takes it from a register.
        values: list[list[Signal]] = []

        def value(node, stage):
            if path.nodes[node].operation == "constant":
                return values[node][0]
            for later in range(place[node] + len(values[node]), stage + 1):
                register = Signal.like(values[node][-1], name=f"node_{node}_{later}", reset_less=True)
                with m.If(advance):
                    m.d.sync += register.eq(values[node][-1])
                values[node].append(register)
            return values[node][stage - place[node]]

        for position, node in enumerate(path.nodes):
            arguments = [value(argument, place[position]) for argument in node.arguments]
            result = Signal(Shape(node.bits, node.signed), name=f"node_{position}")
            if node.operation == "input":
                m.d.comb += result.eq(self.i.payload)
            elif node.operation == "border":
                for inside, outside in zip(arguments[0], result, strict=True):
                    m.submodules += (border := Border())
                    m.d.comb += [border.i.eq(inside), outside.eq(border.o)]
            else:
                m.d.comb += result.eq(EXPRESSIONS[node.operation](node, *arguments))
            values.append([result])
        m.d.comb += self.o.payload.eq(value(len(path.nodes) - 1, self.config.stages))

        # Control: which stages hold a value.
        if self.config.stages:
            held = Signal(self.config.stages)
            m.d.comb += [advance.eq(self.o.ready | ~self.o.valid), self.i.ready.eq(advance), self.o.valid.eq(held[-1])]
            with m.If(advance):
                m.d.sync += held.eq(Cat(self.i.valid, held))
        else:
            m.d.comb += [self.i.ready.eq(self.o.ready), self.o.valid.eq(self.i.valid)]
        return m


class Border(wiring.Component):
    """One bit, passed on as a module of its own that synthesis keeps: nothing is optimised across it.

    Members
    -------
    i : In(1)
    o : Out(1)
    """

    config = None

    def __init__(self):
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform):
        if shared := once(self, platform, clocked=False, a_keep_hierarchy=1):
            return shared
        m = Module()
        m.d.comb += self.o.eq(self.i)
        return m


def looked_up(node, address):
    """Look an address up: a tree of multiplexers per bit, the address's top bit last, equal parts once.

    Of the ways to write a table this one leaves Yosys the fewest look-up tables, and to no other tool more than a table.
    """
    made = {(0,): Const(0, 1), (1,): Const(1, 1)}

    def tree(column):
        if column not in made:
            half = len(column) // 2
            low, high = column[:half], column[half:]
            if low == high:
                made[column] = tree(low)
            elif column in ((0, 1), (1, 0)):
                made[column] = address[0] ^ column[0]
            else:
                made[column] = Mux(address[half.bit_length() - 1], tree(high), tree(low))
        return made[column]

    entries = node.constants + node.constants[-1:] * ((1 << len(address)) - len(node.constants))
    word = Cat(tree(tuple(entry >> bit & 1 for entry in entries)) for bit in range(node.bits))
    return word.as_signed() if node.signed else word


def joined(node, *parts):
    """Concatenate parts of given widths."""
    return Cat(Cat(part, Const(0, width - len(part))) for part, width in zip(parts, node.constants, strict=True))


def multiplied(node, a, b):
    """Multiply by one adder for each bit of the narrower operand: a sum that a tool may reorder ends as a tree of look-up tables."""
    if len(a) < len(b):
        a, b = b, a
    done, rest = [], Const(0, 1)
    for position, bit in enumerate(b):
        term = Mux(bit, a, 0)
        rest = rest - term if b.shape().signed and position == len(b) - 1 else rest + term
        done.append(rest[0])
        rest = rest >> 1
    return Cat(*done, rest).as_signed()


EXPRESSIONS: dict[str, Callable[..., Value]] = {
    "constant": lambda node: Const(node.constants[0], Shape(node.bits, node.signed)),
    "bits": lambda node, x: x >> node.constants[0],
    "join": joined,
    "table": looked_up,
    "add": lambda node, a, b: a + b,
    "subtract": lambda node, a, b: a - b,
    "multiply": multiplied,
    "shift": lambda node, x, by: x >> by,
    "complement": lambda node, x, where: x ^ where.replicate(node.bits),
    "below": lambda node, x: x < node.constants[0],
    "select": lambda node, where, a, b: Mux(where, a, b),
}
