"""Count the searched units again, through the project's own RTL, and write the counts into their data: `python -m reports.rbf.searched`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import accel.functions
from accel.cli.terminal import Progress
from accel.config import FunctionConfig
from accel.files import write
from accel.functions import chains, folded
from accel.functions.cost import FAMILIES
from accel.functions.datapath import Datapath
from accel.functions.generate import Design
from accel.sim.blocks import BLOCKS
from accel.sim.synth import synthesise
from reports.rbf.units import block


def units() -> Iterator[tuple[str, str, FunctionConfig, Datapath]]:
    """Yield file, name, configuration and datapath of each searched unit."""
    for name, unit in chains.searched().items():
        config = FunctionConfig(name=name, error=unit.error)
        yield "chains", name, config, chains.chains(unit, config)
    for name, network in folded.searched().items():
        frac = 15 if network.function == "tanh" else 16
        config = FunctionConfig(
            name=name, function=network.function, in_bits=network.in_bits, in_frac=network.in_frac, out_frac=frac, error=network.error
        )
        yield "folded", name, config, folded.folded(network, config)


def count(config: FunctionConfig, path: Datapath) -> dict[str, dict[str, int]]:
    """Return the cells of one datapath, by family and type, whatever the generator would choose."""
    chosen = Design("searched", {}, path, 0.0, 0.0, None, 0.0)
    with mock.patch("accel.rtl.function.design", return_value=chosen):
        verilog = BLOCKS[block(config)].verilog(config)
    return {family: synthesise(verilog, block(config), family).cells for family in FAMILIES}


def main() -> None:
    """Count all of them."""
    found = list(units())
    tell = Progress("searched units")
    files = {file: Path(accel.functions.__file__).with_name(f"{file}.json") for file in ("chains", "folded")}
    data = {file: json.loads(path.read_text()) for file, path in files.items()}
    for done, (file, name, config, path) in enumerate(found):
        tell(done, len(found), name)
        data[file]["units"][name]["cells"] = count(dataclasses.replace(config, name="unit"), path)
    for file, path in files.items():
        head = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in data[file].items() if key != "units")
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in data[file]["units"].items())
        write(path, f'{{\n{head}, "units": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
