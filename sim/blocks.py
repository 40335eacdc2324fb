"""Registry of the blocks that have Verilog and a bench."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from accel.config import AcceleratorConfig, Config, FunctionConfig, RbfConfig
from accel.errors import ConfigError
from accel.functions.generate import design


@dataclass(frozen=True, slots=True)
class Block:
    """One block: component ``accel.rtl.<family>``, bench ``accel.sim.tb_<family>``, mutants ``accel.sim.mutants.MUTANTS[family]``.

    Parameters
    ----------
    name : str
        Of the block and of its Verilog module.
    summary : str
        One line for the README.
    varies : str
        Configuration fields the block depends on, separated by spaces: what the long run varies.
    family : str
        As of the golden function; the component's class is its CamelCase. The block's own name if not given.
    kind : type of Config
        What describes the block.
    default : str
        The preset of that kind that is taken where none is named.
    only : mapping of str to tuple
        Fields of which the block takes these values alone.
    """

    name: str
    summary: str
    varies: str
    family: str = ""
    kind: type[Config] = AcceleratorConfig
    default: str = "tiny"
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or self.name)

    @property
    def bench(self) -> str:
        """Module of the bench."""
        return f"accel.sim.tb_{self.family}"

    def check(self, config: Config) -> None:
        """Refuse a configuration that does not describe this block.

        Raises
        ------
        ConfigError
            If it is of another kind, a field has a value that the block does not take, or a nonlinear unit cannot keep its error.
        """
        if not isinstance(config, self.kind):
            raise ConfigError(f"config must be of the kind {self.kind.__name__} for the block {self.name}, not {type(config).__name__}")
        for name, values in self.only.items():
            if (value := getattr(config, name)) not in values:
                raise ConfigError(f"{name} must be one of {', '.join(map(str, values))} for the block {self.name}, not {value!r}")
        for unit in units(config):
            design(unit)

    def component(self, config: Config) -> Any:
        """Build the Amaranth component."""
        module = import_module(f"accel.rtl.{self.family}")
        return getattr(module, "".join(part.capitalize() for part in self.family.split("_")))(config)

    def verilog(self, config: Config) -> str:
        """Write the Verilog, top module named as the block."""
        from accel.rtl.verilog import emit

        return emit(self.component(config), self.name)


ELEMENT = "bundle act_bits weight_bits acc_bits overflow mult_stages add_stages"
ARRAY = f"rows cols port {ELEMENT}"
CORE = f"{ARRAY} mult_bits acc_rows param_rows"
NEURON = "dims x_bits x_frac distance_bits distance_frac width_bits width_frac t_bits t_frac phi_bits error luts products stages"
NETWORK = f"{NEURON} neurons outputs units weight_bits weight_frac output sum_bits sum_frac y_bits sigmoid_error"
FUNCTION = "function scale in_bits in_frac out_bits out_frac error luts method stages"


def _function(name: str, summary: str, *functions: str) -> Block:
    methods = ("auto", *(("base2",) if name == "gaussian" else ()), "table", "linear", "searched")
    return Block(name, summary, FUNCTION, "function", FunctionConfig, name, {"function": functions, "method": methods})


BLOCKS = {
    block.name: block
    for block in (
        Block("uspe", "holds a bundle of B activations, takes one (value, index) per cycle, multiplies, accumulates", ELEMENT),
        Block("stce", "R x C array of `uspe`: output or weight stationary per tile, any N:M", ARRAY),
        Block(
            "accumulator", "partial sums that go once more through the array: one row in and one out per cycle", "cols acc_bits acc_rows"
        ),
        Block("vector", "weighted sums and maxima over windows: residual add and pooling", "cols act_bits acc_bits overflow"),
        Block("postprocess", "bias, requantisation, zero point and clip, by channel", "cols act_bits acc_bits mult_bits param_rows"),
        Block("core", "`stce`, `accumulator`, `vector` and `postprocess`, wired: a layer from operands to results", CORE),
        Block("lfsr", "words of stochastic rounding, one lane per column", "cols"),
        Block("wuve", "momentum, weight decay and rounding of the working copy, a weight per lane", "cols act_bits weight_bits"),
        Block("sore", "prunes a strip of weights N:M along input and along output channels, in one pass", "cols bundle weight_bits"),
        _function("gaussian", "2^-t, e^-u or e^(-d^2/2) to a stated error, combinational or pipelined", "exp2", "exp", "gaussian"),
        _function("sigmoid", "1/(1 + e^-x), likewise", "sigmoid"),
        _function("tanh", "hyperbolic tangent, likewise", "tanh"),
        _function("erf", "error function, likewise", "erf"),
        Block("rbf_neuron", "Gaussian of the distance of a sample from a centre", NEURON, kind=RbfConfig, default="paper"),
        Block(
            "rbf_network", "neurons, all at once or in turns, their weighted sums and sigmoids", NETWORK, kind=RbfConfig, default="paper"
        ),
    )
}


def units(config: Config) -> tuple[FunctionConfig, ...]:
    """Return the nonlinear units that a configuration describes."""
    if isinstance(config, RbfConfig):
        return (config.gaussian, config.sigmoid) if config.output == "sigmoid" else (config.gaussian,)
    return (config,) if isinstance(config, FunctionConfig) else ()


def table() -> str:
    """Return the blocks as the README shows them, in Markdown."""
    rows = [f"| [`{block.name}`](rtl/{block.family}.py) | {block.summary} |" for block in BLOCKS.values()]
    return "\n".join(["| block | does |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
