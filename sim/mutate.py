"""Write the Verilog of a block in a fresh interpreter, with a planted fault if one is named."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import accel.config
from accel.sim.blocks import BLOCKS
from accel.sim.mutants import MUTANTS, Mutant

ROOT = Path(accel.config.__file__).parent


def plant(mutant: Mutant) -> None:
    """Import the module of a mutant with its text replaced; the file stays as it is."""
    path = ROOT / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != 1:
        raise ValueError(f"old of mutant {mutant.name} must occur once in {mutant.file}, not {source.count(mutant.old)} times")
    package, name = "accel." + path.parent.name, path.stem
    module = ModuleType(f"{package}.{name}")
    module.__file__, module.__package__ = str(path), package
    sys.modules[module.__name__] = module
    setattr(import_module(package), name, module)
    exec(compile(source.replace(mutant.old, mutant.new), str(path), "exec"), module.__dict__)


def main(block: str, config: str, mutant: str = "") -> None:
    """Print the Verilog of a block for a configuration in JSON."""
    built = BLOCKS[block]
    if mutant:
        plant(next(m for m in MUTANTS[built.family] if m.name == mutant))
    sys.stdout.write(built.verilog(built.kind.from_json(config)))


if __name__ == "__main__":
    main(*sys.argv[1:])
