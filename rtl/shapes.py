"""Payload shapes of the streams between blocks: every width comes from the config or from `accel.isa`."""

from amaranth import Shape, signed, unsigned
from amaranth.lib import data

from accel import isa
from accel.config import AcceleratorConfig, RbfConfig
from accel.lfsr import WORD_BITS


def bits_for(highest: int) -> int:
    """Return the width of an unsigned field that holds 0 to `highest`, at least one bit."""
    return max(1, highest.bit_length())


def row(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one sum per column, each with its sticky overflow bit."""
    return data.StructLayout(
        {
            "acc": data.ArrayLayout(signed(config.acc_bits), config.cols),
            "overflow": data.ArrayLayout(1, config.cols),
        }
    )


def kept_row(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out a row of sums that goes to the accumulator if `keep` is set, else to the post-processor."""
    return data.StructLayout({**dict(row(config).members), "keep": 1})


def pair(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one (value, index) pair; the index selects an element of the held bundle."""
    return data.StructLayout({"value": signed(config.weight_bits), "index": unsigned(config.index_bits)})


def bundle(config: AcceleratorConfig) -> data.ArrayLayout:
    """Lay out the activations a processing element holds."""
    return data.ArrayLayout(signed(config.act_bits), config.bundle)


def west(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one beat of the west port: `port` elements for every row; `end` marks the last beat of the rows' bundles."""
    return data.StructLayout(
        {
            "data": data.ArrayLayout(data.ArrayLayout(signed(config.act_bits), config.port), config.rows),
            "end": 1,
        }
    )


def north(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one pair per column; `head` marks the first pair of a bundle."""
    return data.StructLayout(
        {
            "value": data.ArrayLayout(signed(config.weight_bits), config.cols),
            "index": data.ArrayLayout(unsigned(config.index_bits), config.cols),
            "head": 1,
        }
    )


def tile(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out the fields of `accel.isa.Tile`; `ws` is the dataflow."""
    return data.StructLayout(
        {
            "ws": 1,
            "steps": unsigned(isa.STEP_BITS),
            "rows": unsigned(bits_for(config.rows)),
            "first": 1,
            "last": 1,
        }
    )


def lanes(config: AcceleratorConfig) -> data.ArrayLayout:
    """Lay out one activation per column: an operand row of the vector unit."""
    return data.ArrayLayout(signed(config.act_bits), config.cols)


def vector(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out the fields of `accel.isa.Vector`; `max` is the reduction."""
    return data.StructLayout(
        {
            "max": 1,
            "rows": unsigned(isa.ROW_BITS),
            "window": unsigned(isa.ROW_BITS),
            "head": signed(isa.COEFFICIENT_BITS),
            "tail": signed(isa.COEFFICIENT_BITS),
        }
    )


def post(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out the fields of `accel.isa.Post`; `vector` is the source, `rounding` counts floor, half_up, half_even."""
    return data.StructLayout(
        {
            "vector": 1,
            "rows": unsigned(isa.ROW_BITS),
            "base": unsigned(bits_for(config.param_rows - 1)),
            "vectors": unsigned(bits_for(config.param_rows)),
            "zero_point": signed(config.act_bits),
            "lo": signed(config.act_bits),
            "hi": signed(config.act_bits),
            "rounding": unsigned(2),
        }
    )


def params(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one parameter vector and its address."""
    return data.StructLayout(
        {
            "address": unsigned(bits_for(config.param_rows - 1)),
            "bias": data.ArrayLayout(signed(config.acc_bits), config.cols),
            "mult": data.ArrayLayout(unsigned(config.mult_bits), config.cols),
            "shift": data.ArrayLayout(unsigned(isa.SHIFT_BITS), config.cols),
        }
    )


def result(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one requantised activation per column, each with its overflow bit."""
    return data.StructLayout(
        {
            "value": data.ArrayLayout(signed(config.act_bits), config.cols),
            "overflow": data.ArrayLayout(1, config.cols),
        }
    )


def working(config: AcceleratorConfig) -> data.ArrayLayout:
    """Lay out one working weight per lane: input channel c of a tap, one output channel in each lane."""
    return data.ArrayLayout(signed(config.weight_bits), config.cols)


def prune(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out the fields of `accel.isa.Prune`."""
    return data.StructLayout(
        {
            "beats": unsigned(isa.ROW_BITS),
            "lanes": unsigned(bits_for(config.cols)),
            "n": unsigned(bits_for(config.bundle)),
            "m": unsigned(bits_for(config.bundle)),
        }
    )


def code(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one pair per lane, of which the first `lanes` count; `head` marks the first pair of a group."""
    return data.StructLayout({**dict(north(config).members), "lanes": unsigned(bits_for(config.cols))})


def words(config: AcceleratorConfig) -> data.ArrayLayout:
    """Lay out one word of stochastic rounding per lane; `cols` lanes."""
    return data.ArrayLayout(unsigned(WORD_BITS), config.cols)


def draw(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out the lanes that take their word in a beat; `last` ends the tensor."""
    return data.StructLayout({"take": data.ArrayLayout(1, config.cols), "last": 1})


def update(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out the fields of `accel.isa.Update`; `stochastic` is the rounding."""
    coefficient, shift = unsigned(isa.COEFFICIENT_BITS), unsigned(isa.SHIFT_BITS)
    return data.StructLayout(
        {
            "beats": unsigned(isa.ROW_BITS),
            "lanes": unsigned(bits_for(config.cols)),
            "momentum": coefficient,
            "gradient_shift": unsigned(bits_for(isa.GRADIENT_SHIFT)),
            "decay": coefficient,
            "pruned_decay": coefficient,
            "decay_shift": shift,
            "rate": coefficient,
            "rate_shift": shift,
            "working_shift": shift,
            "stochastic": 1,
            "last": 1,
        }
    )


def gradients(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one weight per lane as it is updated: its gradient, momentum and master copy, and whether FF keeps it."""
    return data.StructLayout(
        {
            "gradient": data.ArrayLayout(signed(config.act_bits), config.cols),
            "velocity": data.ArrayLayout(signed(isa.MASTER_BITS), config.cols),
            "master": data.ArrayLayout(signed(isa.MASTER_BITS), config.cols),
            "kept": data.ArrayLayout(1, config.cols),
        }
    )


def updated(config: AcceleratorConfig) -> data.StructLayout:
    """Lay out one updated weight per lane: momentum, master and working copy, and whether each saturated."""
    return data.StructLayout(
        {
            "velocity": data.ArrayLayout(signed(isa.MASTER_BITS), config.cols),
            "master": data.ArrayLayout(signed(isa.MASTER_BITS), config.cols),
            "working": data.ArrayLayout(signed(config.weight_bits), config.cols),
            "velocity_saturated": data.ArrayLayout(1, config.cols),
            "master_saturated": data.ArrayLayout(1, config.cols),
            "working_saturated": data.ArrayLayout(1, config.cols),
        }
    )


def sample(config: RbfConfig) -> data.ArrayLayout:
    """Lay out a sample of a radial-basis network, or a centre."""
    return data.ArrayLayout(signed(config.x_bits), config.dims)


def neuron(config: RbfConfig) -> data.StructLayout:
    """Lay out a sample and the neuron it meets."""
    return data.StructLayout({"x": sample(config), "centre": sample(config), "width": unsigned(config.width_bits)})


def neuron_row(config: RbfConfig) -> data.StructLayout:
    """Lay out the parameters of one neuron, and the address of that neuron; one behind the last are the biases, in `weight`."""
    return data.StructLayout(
        {
            "address": unsigned(bits_for(config.neurons)),
            "centre": sample(config),
            "width": unsigned(config.width_bits),
            "weight": data.ArrayLayout(signed(config.weight_bits), config.outputs),
        }
    )


def results(config: RbfConfig) -> data.ArrayLayout:
    """Lay out one result per output of a radial-basis network."""
    return data.ArrayLayout(Shape(config.result.bits, config.result.signed), config.outputs)
