"""One description of an accelerator instance: the only source of widths and sizes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from accel.errors import ConfigError
from accel.formats import FixedFormat, Overflow


def _range(lo: float, hi: float) -> dict[str, Any]:
    return {"minimum": lo, "maximum": hi}


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorConfig:
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

    Raises
    ------
    ConfigError
        If a field breaks its rule. The message names the field, the rule and the value.
    """

    name: str = dataclasses.field(default="custom", metadata={"minLength": 1})
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

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), field.metadata
            if "minimum" in rule:
                kind, kinds = ("an int", (int,)) if field.type == "int" else ("a number", (int, float))
                if type(value) not in kinds or not rule["minimum"] <= value <= rule["maximum"]:
                    raise ConfigError(f"{field.name} must be {kind} in [{rule['minimum']}, {rule['maximum']}], not {value!r}")
            elif "enum" in rule and value not in rule["enum"]:
                raise ConfigError(f"{field.name} must be one of {', '.join(rule['enum'])}, not {value!r}")
        if type(self.name) is not str or not self.name:
            raise ConfigError(f"name must be a non-empty string, not {self.name!r}")
        object.__setattr__(self, "clock_mhz", float(self.clock_mhz))  # 200 and 200.0 are equal: equal text too
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
    def result_rows(self) -> int:
        """Rows the array buffers at its south edge, so that a result that leaves at once never stalls it.

        A result's slot returns at most rows * add_stages + cols + mult_stages + 3 cycles after its row was issued, one slot an
        issue cycle; a tile claims rows * add_stages slots more when its last step is issued, add_stages - 1 cycles early.
        """
        return 2 * self.rows * self.add_stages + self.cols + self.mult_stages + self.add_stages + 3

    def to_json(self) -> str:
        """Canonical text; equal configurations give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AcceleratorConfig:
        """Inverse of :meth:`to_json`."""
        return cls(**json.loads(text))
