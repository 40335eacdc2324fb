"""Registry of the blocks that have Verilog and a bench."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from accel.config import AcceleratorConfig


@dataclass(frozen=True, slots=True)
class Block:
    """One block: component ``accel.rtl.<name>``, bench ``accel.sim.tb_<name>``, mutants ``accel.sim.mutants.MUTANTS[name]``.

    Parameters
    ----------
    name : str
        As of the golden function; the component's class is its CamelCase.
    summary : str
        One line for the README.
    varies : str
        Configuration fields the block depends on, separated by spaces: what the long run varies.
    """

    name: str
    summary: str
    varies: str

    @property
    def bench(self) -> str:
        """Module of the bench."""
        return f"accel.sim.tb_{self.name}"

    def component(self, config: AcceleratorConfig) -> Any:
        """Build the Amaranth component."""
        module = import_module(f"accel.rtl.{self.name}")
        return getattr(module, "".join(part.capitalize() for part in self.name.split("_")))(config)

    def verilog(self, config: AcceleratorConfig) -> str:
        """Write the Verilog, top module named as the block."""
        from accel.rtl.verilog import emit

        return emit(self.component(config), self.name)


ELEMENT = "bundle act_bits weight_bits acc_bits overflow mult_stages add_stages"
ARRAY = f"rows cols port {ELEMENT}"
CORE = f"{ARRAY} mult_bits acc_rows param_rows"

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
    )
}


def table() -> str:
    """Return the blocks as the README shows them, in Markdown."""
    rows = [f"| [`{block.name}`](rtl/{block.name}.py) | {block.summary} |" for block in BLOCKS.values()]
    return "\n".join(["| block | does |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
