"""Descriptions of what is simulated and built: an array, a nonlinear unit, a radial-basis network. The only source of widths and sizes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self

from accel.errors import ConfigError
from accel.formats import FixedFormat, Overflow


def _range(lo: float, hi: float) -> dict[str, Any]:
    return {"minimum": lo, "maximum": hi}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the descriptions share: rules beside the fields, and one text for equal values.

    Parameters
    ----------
    name : str
        What reports call this instance.

    Raises
    ------
    ConfigError
        If a field breaks its rule. The message names the field, the rule and the value.
    """

    name: str = dataclasses.field(default="custom", metadata={"minLength": 1})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), field.metadata
            if "minimum" in rule:
                kind, kinds = ("an int", (int,)) if field.type == "int" else ("a number", (int, float))
                if type(value) not in kinds or not rule["minimum"] <= value <= rule["maximum"]:
                    raise ConfigError(f"{field.name} must be {kind} in [{rule['minimum']}, {rule['maximum']}], not {value!r}")
                if field.type == "float":
                    object.__setattr__(self, field.name, float(value))  # 200 and 200.0 are equal: equal text too
            elif "enum" in rule and value not in rule["enum"]:
                raise ConfigError(f"{field.name} must be one of {', '.join(map(str, rule['enum']))}, not {value!r}")
        if type(self.name) is not str or not self.name:
            raise ConfigError(f"name must be a non-empty string, not {self.name!r}")

    def to_json(self) -> str:
        """Canonical text; equal configurations give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of :meth:`to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorConfig(Config):
    """Shape, number formats and pipeline depths of one accelerator instance.

    Parameters
    ----------
    name : str
        What reports call this instance.
    rows, cols : int
        Processing elements along each edge of the array [PEs], 1 to 128.
    bundle : int
        Activations a processing element holds and selects from [elements], 2 to 32. The array runs any N:M with M <= bundle.
    port : int
        Elements the west port takes per row and cycle; divides `bundle`.
    act_bits, weight_bits : int
        Signed operand widths [bits], 2 to 32: of the held bundle and of the paired values. Results leave at `act_bits`.
    acc_bits : int
        Accumulator width [bits], 2 to 62.
    overflow : str
        ``"saturate"`` or ``"wrap"``, applied after every addition.
    mult_bits : int
        Unsigned requantisation multiplier [bits], 1 to 62; `acc_bits` + `mult_bits` <= 63.
    mult_stages : int
        Pipeline stages from held operands to product [cycles], 1 to 4: pure latency.
    add_stages : int
        Pipeline stages of the accumulating adder [cycles], 1 to 4; as many accumulators are interleaved in each element.
    acc_rows : int
        Rows of partial sums the accumulator stores [rows of `cols`], 1 to 65536.
    param_rows : int
        Parameter vectors the post-processor stores [vectors of `cols` channels], 1 to 65536.
    clock_mhz : float
        Clock, to turn cycles into seconds [MHz], 0.001 to 100000; kept as a float.
    dram_gbs : float
        Bandwidth of external memory, reads and writes together [10**9 bytes/s], 0.001 to 100000.
    dram_latency : int
        Cycles from a request's last byte sent to its use, 0 to 100000.
    act_kb, weight_kb, out_kb : int
        Scratchpads of activations, of weights with their indices and channel parameters, and of results [KiB], 1 to 1048576. Each holds
        two tiles: one in use, one on its way.
    keep_kb : int
        Scratchpad of whole tensors that stay on chip from one layer to another [KiB], 0 to 1048576.

    Raises
    ------
    ConfigError
        If a field breaks its rule. The message names the field, the rule and the value.
    """

    rows: int = dataclasses.field(default=4, metadata=_range(1, 128))
    cols: int = dataclasses.field(default=4, metadata=_range(1, 128))
    bundle: int = dataclasses.field(default=8, metadata=_range(2, 32))
    port: int = dataclasses.field(default=8, metadata=_range(1, 32))
    act_bits: int = dataclasses.field(default=8, metadata=_range(2, 32))
    weight_bits: int = dataclasses.field(default=8, metadata=_range(2, 32))
    acc_bits: int = dataclasses.field(default=32, metadata=_range(2, 62))
    overflow: str = dataclasses.field(default="saturate", metadata={"enum": ["saturate", "wrap"]})
    mult_bits: int = dataclasses.field(default=24, metadata=_range(1, 61))
    mult_stages: int = dataclasses.field(default=1, metadata=_range(1, 4))
    add_stages: int = dataclasses.field(default=1, metadata=_range(1, 4))
    acc_rows: int = dataclasses.field(default=64, metadata=_range(1, 65536))
    param_rows: int = dataclasses.field(default=64, metadata=_range(1, 65536))
    clock_mhz: float = dataclasses.field(default=200.0, metadata=_range(0.001, 100000))
    dram_gbs: float = dataclasses.field(default=6.4, metadata=_range(0.001, 100000))
    dram_latency: int = dataclasses.field(default=20, metadata=_range(0, 100000))
    act_kb: int = dataclasses.field(default=64, metadata=_range(1, 1 << 20))
    weight_kb: int = dataclasses.field(default=64, metadata=_range(1, 1 << 20))
    out_kb: int = dataclasses.field(default=64, metadata=_range(1, 1 << 20))
    keep_kb: int = dataclasses.field(default=0, metadata=_range(0, 1 << 20))

    def __post_init__(self) -> None:
        super(AcceleratorConfig, self).__post_init__()  # slots: the class is not the one `super()` was compiled in
        if self.bundle % self.port:
            raise ConfigError(f"port must be a divisor of bundle ({self.bundle}), not {self.port}")
        if self.act_bits + self.weight_bits > 62:
            raise ConfigError(f"weight_bits must be at most 62 - act_bits ({62 - self.act_bits}), not {self.weight_bits}")
        if self.acc_bits + self.mult_bits > 63:
            raise ConfigError(f"mult_bits must be at most 63 - acc_bits ({63 - self.acc_bits}), not {self.mult_bits}")

    @property
    def act(self) -> FixedFormat:
        """Format of a held activation and of a result."""
        return FixedFormat(self.act_bits)

    @property
    def weight(self) -> FixedFormat:
        """Format of a paired value."""
        return FixedFormat(self.weight_bits)

    @property
    def acc(self) -> FixedFormat:
        """Format of an accumulator and of a bias."""
        return FixedFormat(self.acc_bits)

    @property
    def on_overflow(self) -> Overflow:
        """`overflow` as the enum member."""
        return Overflow(self.overflow)

    @property
    def index_bits(self) -> int:
        """Width of a pair's index into the bundle [bits]."""
        return (self.bundle - 1).bit_length()

    @property
    def beats(self) -> int:
        """Beats of the west port that carry a full bundle."""
        return self.bundle // self.port

    @property
    def dram_rate(self) -> float:
        """Bandwidth of external memory [bytes/cycle]."""
        return self.dram_gbs * 1000 / self.clock_mhz

    @property
    def result_rows(self) -> int:
        """Rows the array buffers at its south edge, so that a result that leaves at once never stalls it.

        A result's slot returns at most rows * add_stages + cols + mult_stages + 3 cycles after its row was issued, one slot an
        issue cycle; a tile claims rows * add_stages slots more when its last step is issued, add_stages - 1 cycles early.
        """
        return 2 * self.rows * self.add_stages + self.cols + self.mult_stages + self.add_stages + 3


FUNCTIONS = ("exp2", "exp", "gaussian", "sigmoid", "tanh", "erf")


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionConfig(Config):
    """One nonlinear unit: what it computes, in which formats, how exactly.

    Parameters
    ----------
    name : str
        What reports call this instance.
    function : str
        ``"exp2"``, 2^-x of x >= 0; ``"exp"``, e^-x of x >= 0; ``"gaussian"``, e^(-x^2/2); ``"sigmoid"``, 1/(1 + e^-x); ``"tanh"``;
        ``"erf"``, 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x.
    scale : float
        The unit computes function(scale * x), [2^-24, 2^24]. A Gaussian of constant width sigma is ``"exp"`` of the squared distance
        with scale 1/(2 sigma^2), and ``"gaussian"`` of the distance with scale 1/sigma.
    in_bits, in_frac : int
        Operand [bits], 8 to 24, and its fraction bits; unsigned for ``"exp2"`` and ``"exp"``, otherwise signed.
    out_bits, out_frac : int
        Result [bits], 8 to 24, and its fraction bits; signed for ``"tanh"`` and ``"erf"``, otherwise unsigned.
    error : float
        Largest absolute error over all operands; the datapath is the cheapest found that keeps it.
    luts : int
        Inputs of the look-up tables that are counted as cost: 4 or 6.
    method : str
        ``"auto"``, or the one method that is considered: ``"base2"``, ``"table"``, ``"linear"``, or ``"searched"``, units that were
        found by search.
    stages : int
        Pipeline registers [cycles], 0 to 8; 0 is combinational.

    Raises
    ------
    ConfigError
        If a field breaks its rule. The message names the field, the rule and the value.
    """

    function: str = dataclasses.field(default="exp2", metadata={"enum": list(FUNCTIONS)})
    scale: float = dataclasses.field(default=1.0, metadata=_range(2.0**-24, 2.0**24))
    in_bits: int = dataclasses.field(default=16, metadata=_range(8, 24))
    in_frac: int = dataclasses.field(default=12, metadata=_range(0, 24))
    out_bits: int = dataclasses.field(default=16, metadata=_range(8, 24))
    out_frac: int = dataclasses.field(default=16, metadata=_range(1, 24))
    error: float = dataclasses.field(default=0.005, metadata=_range(1e-7, 0.25))
    luts: int = dataclasses.field(default=4, metadata={"enum": [4, 6]})
    method: str = dataclasses.field(default="auto", metadata={"enum": ["auto", "base2", "table", "linear", "searched"]})
    stages: int = dataclasses.field(default=0, metadata=_range(0, 8))

    @property
    def operand(self) -> FixedFormat:
        """Format of the operand."""
        return FixedFormat(self.in_bits, self.in_frac, self.function not in ("exp2", "exp"))

    @property
    def odd(self) -> bool:
        """Whether the function is odd: it rises from -1 to 1."""
        return self.function in ("tanh", "erf")

    @property
    def result(self) -> FixedFormat:
        """Format of the result."""
        return FixedFormat(self.out_bits, self.out_frac, self.odd)


@dataclass(frozen=True, slots=True, kw_only=True)
class RbfConfig(Config):
    """One radial-basis network: neurons, formats of every step, and how many neurons are built.

    A sample x becomes, in each neuron j, the squared distance ``sum((x - centre[j])**2)``, brought to `distance_bits`; times the width,
    the exponent t; and 2^-t, the neuron's activation. Output k is ``sum(activation * weight[k]) + bias[k]``, or its sigmoid. The width is
    thus log2(e) / (2 sigma^2).

    Parameters
    ----------
    name : str
        What reports call this instance.
    dims, neurons, outputs : int
        Elements of a sample, 1 to 1024; hidden neurons, 1 to 1024; outputs, 1 to 64.
    units : int
        Neurons in hardware, 1 to `neurons`; all of them is fully parallel, fewer take turns.
    x_bits, x_frac : int
        Sample and centre, signed [bits], 8 to 24.
    distance_bits, distance_frac : int
        Squared distance, unsigned [bits], 8 to 24: rounded down and saturated.
    width_bits, width_frac : int
        Width, unsigned [bits], 4 to 24.
    t_bits, t_frac : int
        Exponent, unsigned [bits], 8 to 24: rounded down and saturated.
    phi_bits : int
        Activation, an unsigned fraction [bits], 8 to 24.
    error : float
        Largest absolute error of the Gaussian unit.
    weight_bits, weight_frac : int
        Weights and biases, signed [bits], 4 to 24.
    output : str
        ``"linear"`` or ``"sigmoid"``.
    sum_bits, sum_frac : int
        Sum of an output, signed [bits], 8 to 24: rounded half up and saturated. A linear output's result, and the sigmoid's operand.
    y_bits : int
        Result of the sigmoid, an unsigned fraction [bits], 8 to 24.
    sigmoid_error : float
        Largest absolute error of the sigmoid unit.
    luts : int
        Inputs of the look-up tables that are counted as cost: 4 or 6.
    products : str
        ``"device"``: the synthesis tool builds them, of the device's multipliers where it has some. ``"rows"``: written as rows of
        additions, for a device without. The numbers are the same.
    stages : int
        0: combinational. Otherwise a register behind every step, and as many in each nonlinear unit [cycles], up to 8.

    Raises
    ------
    ConfigError
        If a field breaks its rule. The message names the field, the rule and the value.
    """

    dims: int = dataclasses.field(default=1, metadata=_range(1, 1024))
    neurons: int = dataclasses.field(default=4, metadata=_range(1, 1024))
    outputs: int = dataclasses.field(default=1, metadata=_range(1, 64))
    units: int = dataclasses.field(default=4, metadata=_range(1, 1024))
    x_bits: int = dataclasses.field(default=16, metadata=_range(8, 24))
    x_frac: int = dataclasses.field(default=12, metadata=_range(0, 24))
    distance_bits: int = dataclasses.field(default=16, metadata=_range(8, 24))
    distance_frac: int = dataclasses.field(default=10, metadata=_range(0, 24))
    width_bits: int = dataclasses.field(default=16, metadata=_range(4, 24))
    width_frac: int = dataclasses.field(default=8, metadata=_range(0, 24))
    t_bits: int = dataclasses.field(default=16, metadata=_range(8, 24))
    t_frac: int = dataclasses.field(default=12, metadata=_range(4, 20))
    phi_bits: int = dataclasses.field(default=16, metadata=_range(8, 24))
    error: float = dataclasses.field(default=0.005, metadata=_range(1e-7, 0.25))
    weight_bits: int = dataclasses.field(default=16, metadata=_range(4, 24))
    weight_frac: int = dataclasses.field(default=10, metadata=_range(0, 24))
    output: str = dataclasses.field(default="sigmoid", metadata={"enum": ["linear", "sigmoid"]})
    sum_bits: int = dataclasses.field(default=16, metadata=_range(8, 24))
    sum_frac: int = dataclasses.field(default=12, metadata=_range(0, 24))
    y_bits: int = dataclasses.field(default=16, metadata=_range(8, 24))
    sigmoid_error: float = dataclasses.field(default=0.005, metadata=_range(1e-7, 0.25))
    luts: int = dataclasses.field(default=4, metadata={"enum": [4, 6]})
    products: str = dataclasses.field(default="device", metadata={"enum": ["device", "rows"]})
    stages: int = dataclasses.field(default=0, metadata=_range(0, 8))

    def __post_init__(self) -> None:
        super(RbfConfig, self).__post_init__()  # slots: the class is not the one `super()` was compiled in
        if self.units > self.neurons:
            raise ConfigError(f"units must be at most neurons ({self.neurons}), not {self.units}")
        if self.distance_frac > 2 * self.x_frac:
            raise ConfigError(f"distance_frac must be at most 2 * x_frac ({2 * self.x_frac}), not {self.distance_frac}")
        if self.t_frac > self.distance_frac + self.width_frac:
            limit = self.distance_frac + self.width_frac
            raise ConfigError(f"t_frac must be at most distance_frac + width_frac ({limit}), not {self.t_frac}")
        if self.sum_frac > self.phi_bits + self.weight_frac:
            limit = self.phi_bits + self.weight_frac
            raise ConfigError(f"sum_frac must be at most phi_bits + weight_frac ({limit}), not {self.sum_frac}")

    @property
    def x(self) -> FixedFormat:
        """Format of a sample's element and of a centre's."""
        return FixedFormat(self.x_bits, self.x_frac)

    @property
    def distance(self) -> FixedFormat:
        """Format of a squared distance."""
        return FixedFormat(self.distance_bits, self.distance_frac, signed=False)

    @property
    def width(self) -> FixedFormat:
        """Format of a width."""
        return FixedFormat(self.width_bits, self.width_frac, signed=False)

    @property
    def weight(self) -> FixedFormat:
        """Format of a weight and of a bias."""
        return FixedFormat(self.weight_bits, self.weight_frac)

    @property
    def sum(self) -> FixedFormat:
        """Format of an output's rounded sum."""
        return FixedFormat(self.sum_bits, self.sum_frac)

    @property
    def gaussian(self) -> FunctionConfig:
        """The unit of a neuron: 2^-t."""
        return FunctionConfig(
            name=f"{self.name}: gaussian",
            function="exp2",
            in_bits=self.t_bits,
            in_frac=self.t_frac,
            out_bits=self.phi_bits,
            out_frac=self.phi_bits,
            error=self.error,
            luts=self.luts,
            stages=self.stages,
        )

    @property
    def sigmoid(self) -> FunctionConfig:
        """The unit of an output."""
        return FunctionConfig(
            name=f"{self.name}: sigmoid",
            function="sigmoid",
            in_bits=self.sum_bits,
            in_frac=self.sum_frac,
            out_bits=self.y_bits,
            out_frac=self.y_bits,
            error=self.sigmoid_error,
            luts=self.luts,
            stages=self.stages,
        )

    @property
    def result(self) -> FixedFormat:
        """Format of an output."""
        if self.output == "sigmoid":
            return self.sigmoid.result
        return self.sum

    @property
    def passes(self) -> int:
        """Turns a sample takes on the neurons that are built."""
        return -(-self.neurons // self.units)
