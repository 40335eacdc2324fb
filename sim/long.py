"""The long co-simulation: thousands of random cases per block over pairwise-chosen builds, and a million vectors of some networks.

``python -m accel.sim.long [BLOCK ...] [--cases N] [--seed S] [--out FILE]``. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from pathlib import Path
from typing import Any

from accel import presets
from accel.errors import MismatchError, RangeError
from accel.sim.blocks import BLOCKS
from accel.sim.configs import pairwise
from accel.sim.harness import ROOT, WRITES, cosim

CASES = 2000
OUT = Path("reports/cosim.json")
VECTORS = 1_000_000
STREAMED = {"rbf_neuron": ("paper",), "rbf_network": ("paper", "shared")}
"""Blocks through which VECTORS random samples run without waits, each in these presets."""


def long_run(blocks: Sequence[str] = (), cases: int = CASES, seed: int = 1, out: Path = OUT, simulator: str = "verilator") -> int:
    """Run `cases` random cases of each block, spread over its pairwise builds, and write what was compared.

    Parameters
    ----------
    blocks : sequence of str
        Names of blocks; all if empty.
    cases : int
        Least number of cases per block.
    seed : int
        Of the cases.
    out : Path
        JSON file: one record per build. Records of the same sources, cases and seed are kept and not run again.
    simulator : str
        ``"verilator"`` or ``"icarus"``.

    Returns
    -------
    int
        Builds whose hardware and model differ.

    Raises
    ------
    RangeError
        If a block is unknown.
    """
    for block in blocks:
        if block not in BLOCKS:
            raise RangeError(f"block must be one of {', '.join(BLOCKS)}, not {block!r}")
    known = json.loads(out.read_text())["records"] if out.exists() else []
    jobs = list(_jobs(blocks or list(BLOCKS), cases, seed, simulator))
    records = [record for record in known if any(_same(record, job) for job in jobs) or record["job"]["block"] not in (blocks or BLOCKS)]
    todo = [job for job in jobs if not any(_same(record, job) for record in records)]
    began = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for done, future in enumerate(as_completed([pool.submit(_run, job) for job in todo]), len(jobs) - len(todo) + 1):
            record = future.result()
            records.append(record)
            _write(out, sorted(records, key=lambda entry: (entry["job"]["block"], entry["job"]["config"]["name"])))
            job = record["job"]
            size = f"{job['vectors']} vectors" if "vectors" in job else f"{job['cases']} cases"
            said = record["difference"] or f"{size}, {record['cycles']} cycles, no difference"
            print(f"[{done}/{len(jobs)}] {time.perf_counter() - began:.0f} s  {job['block']} {job['config']['name']}: {said}", flush=True)
    return sum(record["difference"] is not None for record in records)


def _jobs(blocks: Sequence[str], cases: int, seed: int, simulator: str) -> Iterator[dict[str, Any]]:
    key = _source_key()
    for block in blocks:
        configs = pairwise(block)
        for config in configs:
            each = -(-cases // len(configs))
            yield {
                "block": block,
                "config": dataclasses.asdict(config),
                "simulator": simulator,
                "seed": seed,
                "cases": each,
                "sources": key,
            }
        for name in STREAMED.get(block, ()):
            streamed = dataclasses.asdict(presets.load(name, BLOCKS[block].kind))
            yield {"block": block, "config": streamed, "simulator": simulator, "seed": seed, "vectors": VECTORS, "sources": key}


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Run one build; a difference is a result, any other error ends the long run."""
    block = BLOCKS[job["block"]]
    config = block.kind(**job["config"])
    try:
        if "vectors" in job:
            with tempfile.TemporaryDirectory() as scratch:
                program = Path(scratch, "vectors")
                cases = import_module(block.bench).write_program(config, program, job["vectors"], job["seed"])
                result = cosim(block.name, config, job["simulator"], cases=cases, program=program)
        else:
            result = cosim(block.name, config, job["simulator"], job["seed"], job["cases"])
    except MismatchError as error:
        return {"job": job, "difference": str(error), "words": 0, "cycles": 0}
    return {"job": job, "difference": None, "words": result.words, "cycles": result.cycles}


def _same(record: dict[str, Any], job: dict[str, Any]) -> bool:
    return record["job"] == job and record["difference"] is None


def _write(out: Path, records: list[dict[str, Any]]) -> None:
    """Write the records and their sums per block, whole or not at all."""
    blocks = {
        block: {
            "builds": len(of_block),
            "cases": sum(record["job"].get("cases", 0) for record in of_block),
            "vectors": sum(record["job"].get("vectors", 0) for record in of_block),
            "words": sum(record["words"] for record in of_block),
            "cycles": sum(record["cycles"] for record in of_block),
            "differences": sum(record["difference"] is not None for record in of_block),
        }
        for block in BLOCKS
        if (of_block := [record for record in records if record["job"]["block"] == block])
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps({"schema": 1, "blocks": blocks, "records": records}, indent=1) + "\n")
    part.replace(out)


def _source_key() -> str:
    """Name the text of all that a bench can reach: vocabulary, both sides, schedule and benches."""
    digest = hashlib.sha256()
    models = (f"{name}/*.py" for name in ("golden", "timing", "schedule", "sim"))
    for path in sorted({path for pattern in (*WRITES, *models) for path in (ROOT / "accel").glob(pattern)}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code is 1 if something differs."""
    parser = argparse.ArgumentParser(prog="python -m accel.sim.long", description=__doc__)
    parser.add_argument("blocks", metavar="BLOCK", nargs="*", help="names of blocks (default: all)")
    parser.add_argument("--cases", type=int, default=CASES, help="least number of cases per block (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random cases (default: %(default)s)")
    parser.add_argument("--simulator", default="verilator", help="verilator or icarus (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file of the results (default: %(default)s)")
    args = parser.parse_args(arguments)
    return int(long_run(args.blocks, args.cases, args.seed, args.out, args.simulator) > 0)


if __name__ == "__main__":
    sys.exit(main())
