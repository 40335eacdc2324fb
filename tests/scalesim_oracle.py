"""What SCALE-Sim 3.0.0 writes into COMPUTE_REPORT.csv for the inputs below; `scalesim.json` holds the lines.

Run by hand, in an environment of its own (about half an hour; SCALE-Sim 3.0.0 does not run on numpy 2.4):

    pip install scalesim==3.0.0 numpy==2.2.6
    python tests/scalesim_oracle.py

`unpadded` in that file are the columns "Total Cycles (incl. prefetch)" and "Total Cycles" of the same release, run from its command line
on the ResNet-18 that it ships, which has no borders: 32 x 32 elements, 64 KiB each, mode CALC. A run takes 200 to 255 s of processor time.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

CONV = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides, Sparsity,"
GEMM = "Layer, M, N, K, Sparsity,"
FIXTURE = Path(__file__).with_name("scalesim.json")
RESNET18 = Path(__file__).parents[1] / "accel" / "networks" / "resnet18.csv"
COMMAND = "pip install scalesim==3.0.0 numpy==2.2.6 && python tests/scalesim_oracle.py"


def cfg(rows: int, cols: int, dataflow: str, sram: tuple[int, int, int] = (64, 64, 64), sparse: bool = False) -> str:
    """Text of an architecture file with every key that SCALE-Sim insists on."""
    layout = [
        f"{operand}{key}: {value}"
        for operand in ("Ifmap", "Filter")
        for key, value in (("CustomLayout", False), ("SRAMBankBandwidth", 10), ("SRAMBankNum", 10), ("SRAMBankPort", 2))
    ]
    lines = [
        "[general]", "run_name: oracle",
        "[architecture_presets]", f"ArrayHeight: {rows}", f"ArrayWidth: {cols}",
        *(f"{name}SramSzkB: {size}" for name, size in zip(("Ifmap", "Filter", "Ofmap"), sram, strict=True)),
        "IfmapOffset: 0", "FilterOffset: 10000000", "OfmapOffset: 20000000",
        f"Dataflow: {dataflow}", "Bandwidth: 10", "ReadRequestBuffer: 32", "WriteRequestBuffer: 32",
        "[layout]", *layout,
        "[sparsity]", f"SparsitySupport: {str(sparse).lower()}", "SparseRep: ellpack_block", "OptimizedMapping: false", "BlockSize: 8",
        "RandomNumberGeneratorSeed: 40",
        "[run_presets]", "InterfaceBandwidth: CALC", "UseRamulatorTrace: False",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def small(rng: random.Random) -> tuple[str, str]:
    """Layers that take SCALE-Sim seconds: odd sizes, strides that leave a rest, patterns that leave a short group."""

    def pattern() -> str:
        m = rng.choice((1, 2, 4, 4, 8))
        return f"{rng.randint(1, m)}:{m}"

    conv, gemm = [CONV], [GEMM]
    for i in range(12):
        fh, fw = rng.randint(1, 4), rng.randint(1, 4)
        sizes = fh + rng.randint(0, 9), fw + rng.randint(0, 9), fh, fw, rng.randint(1, 9), rng.randint(1, 20), rng.randint(1, 3)
        conv.append(f"{'DP' if i == 7 else ''}c{i}, {', '.join(map(str, sizes))}, {pattern()},")
        gemm.append(f"g{i}, {rng.randint(1, 40)}, {rng.randint(1, 40)}, {rng.randint(1, 60)}, {pattern()},")
    return "\n".join(conv) + "\n", "\n".join(gemm) + "\n"


def cases() -> Iterator[tuple[str, str, str]]:
    """Name, topology and architecture of every run."""
    conv, gemm = small(random.Random(4))
    arrays = ((4, 4), (8, 3), (3, 8), (16, 16), (1, 5), (5, 1), (7, 7))
    for i, (rows, cols) in enumerate(arrays):
        for j, dataflow in enumerate(("os", "ws", "is")):
            sram = (1 + i % 2, 1 + j % 2, 1 + (i + j) % 2)
            yield f"conv {rows}x{cols} {dataflow}", conv, cfg(rows, cols, dataflow, sram, sparse=(i + j) % 3 > 0)
            yield f"gemm {rows}x{cols} {dataflow}", gemm, cfg(rows, cols, dataflow, sram, sparse=(i + j) % 3 > 0)
    for dataflow in ("os", "ws", "is"):
        yield f"resnet18 32x32 {dataflow}", RESNET18.read_text(), cfg(32, 32, dataflow)


def report(topology: str, architecture: str) -> list[str]:
    """Lines of COMPUTE_REPORT.csv; layers of one shape are run once, and only one is held at a time."""
    from scalesim.layout_utils import layouts
    from scalesim.scale_config import scale_config
    from scalesim.single_layer_sim import single_layer_sim
    from scalesim.topology_utils import topologies

    with tempfile.TemporaryDirectory() as folder:
        csv, ini = Path(folder, "topology.csv"), Path(folder, "scale.cfg")
        csv.write_text(topology)
        ini.write_text(architecture)
        config, layers = scale_config(), topologies()
        config.read_conf_file(str(ini))
        layers.load_arrays(topofile=str(csv), mnk_inputs=topology.startswith(GEMM))
    known: dict[str, str] = {}
    lines = []
    for i in range(layers.get_num_layers()):
        shape = str(layers.get_layer_params(i)[1:])
        if shape not in known:
            layer = single_layer_sim()
            layer.set_params(layer_id=i, config_obj=config, topology_obj=layers, layout_obj=layouts(), verbose=False)
            layer.run()
            known[shape] = ", ".join(str(x) for x in layer.get_compute_report_items()) + ","
        lines.append(f"{i}, {known[shape]}")
    return lines


def main() -> None:
    """Run what the fixture does not hold yet, and write it after every run."""
    versions = {name: metadata.version(name) for name in ("scalesim", "numpy")} | {"python": sys.version.split()[0]}
    found: dict[str, Any] = (
        json.loads(FIXTURE.read_text()) if FIXTURE.exists() else {"command": COMMAND, "versions": versions, "reports": {}}
    )
    for name, topology, architecture in cases():
        if name in found["reports"]:
            continue
        print(name, flush=True)
        found["reports"][name] = report(topology, architecture)
        FIXTURE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
