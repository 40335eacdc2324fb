"""Read damaged files by the hundred thousand: ``python -m reports.fuzz [--inputs N] [--seed S] [--workers W]``.

Every input is read in a process that may take 10 s of computing and 2 GB for it: what asks for more memory is refused it, and what does not
end is ended from outside. Counts go to result.json beside this file, and inputs that failed to the folder that ``--keep`` names.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from reports.fuzz.inputs import make, models

SECONDS = 10.0  # of computing, for one input
PATIENCE = 100.0  # [s] by the clock, on a machine that may have other work
MEMORY = 2 << 30  # [bytes] beyond what the process takes before its first input
CHUNK = 1000  # inputs a process reads before another takes over, so that what one leaves behind stays small


def work(numbers: range, pipe: Connection) -> None:
    """Read inputs and say of each: its number as it begins, then how it ended, after how long, and the most memory so far."""
    with tempfile.TemporaryDirectory() as folder:
        base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY, base + MEMORY))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in numbers:
            made = make(number, Path(folder))
            pipe.send((number, made.kind, "", 0.0, 0, ""))
            start, said = time.process_time(), ""
            try:
                outcome = made.run()
            except BaseException as error:
                outcome, said = type(error).__name__, traceback.format_exc()
            taken = time.process_time() - start
            pipe.send((number, made.kind, outcome, taken, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10, said))


def warm() -> None:
    """Read models that are right, so that every process starts with all libraries in memory."""
    with tempfile.TemporaryDirectory() as folder:
        made = make(0, Path(folder), "bytes")
        for content in models().values():
            made.path.write_bytes(content)
            made.run()


class Worker:
    """A process that reads a range of inputs, and what is known of it."""

    def __init__(self, numbers: range) -> None:
        self.pipe, other = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(target=work, args=(numbers, other), daemon=True)
        self.process.start()
        other.close()
        self.numbers = numbers
        self.current = numbers.start
        self.kind = ""
        self.since = time.monotonic() + 60  # it has yet to begin


def main() -> int:
    """Run, print and save the counts; the exit status is 1 if any input failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="the first input's number")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    args = parser.parse_args()
    pending = [range(at, min(at + CHUNK, args.seed + args.inputs)) for at in range(args.seed, args.seed + args.inputs, CHUNK)][::-1]
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    failures: dict[int, tuple[str, str]] = {}
    slowest, largest, start = (0.0, 0), (0, 0), time.monotonic()
    workers: list[Worker] = []
    warm()
    while pending or workers:
        while pending and len(workers) < args.workers:
            workers.append(Worker(pending.pop()))
        wait([worker.pipe for worker in workers], timeout=1.0)
        for worker in list(workers):
            ended: str | None = None
            try:
                while worker.pipe.poll():
                    number, kind, outcome, taken, memory, said = worker.pipe.recv()
                    worker.current, worker.kind, worker.since = number, kind, time.monotonic()
                    if not outcome:
                        continue
                    worker.current += 1
                    worker.since += 60  # the next one is not under way yet
                    counts[kind, outcome] += 1
                    slowest, largest = max(slowest, (taken, number)), max(largest, (memory, number))
                    if outcome not in ("accepted", "refused") or taken > SECONDS:
                        failures[number] = (f"{kind}: {outcome} after {taken:.1f} s", said)
                        print(f"\n{number} {failures[number][0]}", file=sys.stderr)
                if time.monotonic() - worker.since > PATIENCE:
                    ended = f"no end in {PATIENCE:g} s"
            except EOFError:
                ended = "" if worker.current >= worker.numbers.stop else "crash"
            if ended is None:
                continue
            if ended:
                counts[worker.kind, ended] += 1
                failures[worker.current] = (f"{worker.kind}: {ended}", "")
                pending.append(range(worker.current + 1, worker.numbers.stop))
            worker.process.kill()
            worker.process.join()
            workers.remove(worker)
            done = sum(counts.values())
            print(
                f"\r{done:,} of {args.inputs:,}, {len(failures)} failed, {time.monotonic() - start:,.0f} s",
                end="",
                file=sys.stderr,
                flush=True,
            )
    print(file=sys.stderr)
    kinds = sorted({kind for kind, _ in counts})
    result: dict[str, Any] = {
        "inputs": sum(counts.values()),
        "first": args.seed,
        "failed": len(failures),
        "seconds": round(time.monotonic() - start),
        "slowest": {"seconds": round(slowest[0], 2), "input": slowest[1]},
        "largest": {"bytes": largest[0], "input": largest[1]},
        "kinds": {kind: {outcome: count for (each, outcome), count in sorted(counts.items()) if each == kind} for kind in kinds},
    }
    (Path(__file__).parent / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    keep(failures, args.keep)
    return 1 if failures else 0


def keep(failures: dict[int, tuple[str, str]], folder: Path) -> None:
    """Save inputs that failed and what they ended in."""
    for number, (title, said) in sorted(failures.items()):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            made = make(number, Path(scratch))
            shutil.copy(made.path, folder / f"{number}{made.path.suffix}")
        (folder / f"{number}.txt").write_text(f"{title}\n{said}")
        print(f"{number} {title}: {(said.strip().splitlines() or [''])[-1][:200]}")


if __name__ == "__main__":
    sys.exit(main())
