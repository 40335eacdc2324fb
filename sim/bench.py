"""The bench of every block: one driving loop, run by cocotb inside the simulator.

How to write a bench. A block ``b`` is an Amaranth component ``accel/rtl/b.py::B``; its bench ``sim/tb_b.py`` is one function that
knows nothing of clocks and simulators::

    def random_case(config: AcceleratorConfig, rng: np.random.Generator) -> Case:
        n = int(rng.integers(1, 40))  # a few to a few hundred cycles: many small cases find more than a large one
        x = rng.integers(config.act.lo, config.act.hi, (n, config.cols), endpoint=True)
        x[rng.random(x.shape) < 0.3] = config.act.lo  # make the rare cases common: extremes, ties, zeros, equal values
        y = golden.b(config, x)

        def predict(driven: Waits) -> Waits:  # the exact recurrence of accel/timing/b.py, fed with what the bench did
            i_ready, o_valid = b_trace(config, n, driven["i"], driven["o"])
            return {"i": i_ready, "o": o_valid}

        return Case(
            label=f"{n} rows",  # what a mismatch report calls the case
            inputs={"i": pack(shapes.lanes(config), x)},  # port -> payloads in order
            outputs={"o": pack(shapes.row(config), **y._asdict())},
            predict=predict,
            cycles=timing.b(config, n),  # first accepted input to last emitted output, no waits, both ends inclusive
        )

Then add the block to ``sim/blocks.py`` and its mutants to ``sim/mutants.py``. `config` is of the block's kind; blocks of one family share
all of these files, and a field of the configuration tells them apart. The loop pauses each stream at random (one probability
per port and case, a third of the cases without any pause), drives garbage while a payload is not valid, aborts some cases by a reset
and runs them again, and leaves the block idle for some cycles before the next case. It checks

- every payload of every output stream, bit by bit, in every cycle in which it is valid, and that no stream says more than expected;
- `ready` of inputs (where something is offered) and `valid` of outputs, in every cycle, against `predict`;
- the closed form `cycles`, in cases without pauses.

Ports that are no streams are driven and compared per cycle: entry t of the list in cycle t, the last entry from then on; of outputs,
entries that are None and cycles after the end are not compared. Blocks with such ports only never wait. ``setup`` is streamed in before
the case and is not part of its cycles; ``fresh`` asks for a reset before the case.

A bench may also define ``program_case(config, program, index) -> Case``: case number `index` of a file that
:func:`accel.sim.harness.cosim` was given, such as the tiles of one layer of a network. Program cases run without pauses and resets.
"""

from __future__ import annotations

import json
import os
import random
import traceback
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from amaranth import Shape
from amaranth.hdl import UnusedElaboratable
from amaranth.lib.wiring import In
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer
from numpy.typing import NDArray

from accel.sim.blocks import BLOCKS
from accel.sim.pack import first_difference

Waits = dict[str, NDArray[np.bool_]]

ENVIRONMENT = "ACCEL_BENCH"
PAUSES = (0.0, 0.2, 0.5, 0.8)
PERIOD = 10  # of the clock [ns]: our choice
IDLE = 4  # cycles after the last transfer in which nothing may happen
HANG = 5000  # cycles without a transfer that mean it will never come


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What goes in, what must come out, and when.

    Parameters
    ----------
    label : str
        What a report calls the case.
    inputs, outputs : dict of str to list of int
        Payloads of each port in order, packed by :func:`accel.sim.pack.pack`. A port that is not named stays idle. Those of an output
        may be a :class:`Following`.
    predict : callable, optional
        From `valid` of the inputs and `ready` of the outputs, bool of shape (cycles,) by port, to `ready` of the inputs and `valid` of the
        outputs. Called with the cycles of an aborted run too.
    cycles : int, optional
        First accepted input to last emitted output without waits, both ends inclusive [cycles].
    setup : dict of str to list of int
        Payloads that are accepted before the case begins.
    fresh : bool
        Reset before the case.
    place : callable, optional
        From a port (or none, ``""``) and the position of a payload in it to words for the report, such as ``layer conv1, tile 3``.
    """

    label: str
    inputs: dict[str, list[int]]
    outputs: dict[str, Sequence[int | None]]
    predict: Callable[[Waits], Waits] | None = None
    cycles: int | None = None
    setup: dict[str, list[int]] = field(default_factory=dict)
    fresh: bool = False
    place: Callable[[str, int], str] | None = None


class Following(Sequence[int | None]):
    """Payloads of an output that depend on the order in which inputs of several ports are accepted.

    A bench derives from it; a payload is asked for when its output is first compared, and only those that inputs accepted so far, or
    offered and shown in the same cycle, decide.
    """

    @abstractmethod
    def restart(self) -> None:
        """Begin the case, behind its setup."""

    @abstractmethod
    def accepted(self, port: str, position: int) -> None:
        """Take note of an accepted payload, at its place in the inputs of the case; called before the cycle's outputs are compared."""


class Mismatch(Exception):
    """The first difference of a case: cycle, signal, what was expected and what was found."""

    def __init__(self, cycle: int, signal: str, expected: Any, got: Any, port: str = "", position: int = 0):
        super().__init__(f"cycle {cycle}: {signal} is {got}, expected {expected}")
        self.cycle, self.signal, self.expected, self.got, self.port, self.position = cycle, signal, expected, got, port, position


class Port:
    """Handles of one port and what has passed it in the running case."""

    def __init__(self, dut: Any, name: str, layout: Any, stream: bool):
        self.name, self.layout, self.width = name, layout, Shape.cast(layout).width
        self.payload = getattr(dut, f"{name}__payload" if stream else name)
        if stream:
            self.valid, self.ready = getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__ready")
        self.high = False  # level of the line that the bench drives: valid of an input, ready of an output
        self.start([], 0.0)

    def start(self, words: Sequence[int | None], pause: float) -> None:
        """Forget the last case and take the payloads of the next."""
        self.words = words
        self.pause = pause
        self.done = 0  # payloads that have passed
        self.free = True  # an input offers nothing
        self.driven: list[bool] = []  # the bench's half of the handshake in each cycle
        self.shown: list[bool] = []  # the block's half


def bit(handle: Any, cycle: int) -> bool:
    """Read a handshake signal; an undefined one is a mismatch."""
    value = str(handle.value)
    if value not in "01":
        raise Mismatch(cycle, handle._name, "0 or 1", value)
    return value == "1"


class Bench:
    """Ports of the block under test and the loop that drives them."""

    def __init__(self, dut: Any, component: Any):
        self.dut = dut
        self.clocked = hasattr(dut, "clk")  # a combinational block has neither clock nor reset
        members = {path: member for path, member, _ in component.signature.flatten(component)}
        self.streams_in: list[Port] = []
        self.streams_out: list[Port] = []
        self.plain_in: list[Port] = []
        self.plain_out: list[Port] = []
        for path, member in members.items():
            stream = path[-1] == "payload" and (*path[:-1], "valid") in members
            if not stream and (*path[:-1], "payload") in members:
                continue
            name = "__".join(map(str, path[:-1] if stream else path))
            if stream:
                ports = self.streams_in if member.flow == In else self.streams_out
            else:
                ports = self.plain_in if member.flow == In else self.plain_out
            ports.append(Port(dut, name, member.shape, stream))
        self.streams = [*self.streams_in, *self.streams_out]
        self.ports = [*self.streams, *self.plain_in, *self.plain_out]
        self.total = 0

    async def reset(self) -> None:
        """Reset the block while its neighbours go on as they were, then silence them."""
        if self.clocked:
            self.dut.rst.value = 1
            for _ in range(2):  # the first edge of a simulation comes before `rst` is driven
                await self.edge()
            self.dut.rst.value = 0
        for port in self.streams_in:
            port.payload.value = 0
        for port in self.streams:
            port.high = False
            (port.valid if port in self.streams_in else port.ready).value = 0

    def edge(self) -> RisingEdge | Timer:
        """Return the trigger of a cycle's end; what a block without a clock shows has settled by then."""
        return RisingEdge(self.dut.clk) if self.clocked else Timer(PERIOD, unit="ns")

    async def run(self, case: Case, rng: random.Random, pauses: dict[str, float], limit: int | None = None) -> int:
        """Run a case, or its first `limit` cycles; return its cycles or raise the first :class:`Mismatch`."""
        self._start(case.setup, {}, {})
        await self._loop(rng, None)
        self._start(case.inputs, case.outputs, pauses)
        try:
            first, last = await self._loop(rng, limit)
        except Mismatch as mismatch:
            self._compare_waits(case, mismatch)
            raise
        self._compare_waits(case)
        if limit is None and case.cycles is not None and not any(pauses.values()) and last - first + 1 != case.cycles:
            raise Mismatch(last, "cycles from first input to last output", case.cycles, last - first + 1)
        return last - first + 1

    def _start(self, inputs: dict[str, list[int]], outputs: dict[str, Sequence[int | None]], pauses: dict[str, float]) -> None:
        unknown = (set(inputs) | set(outputs)) - {port.name for port in self.ports}
        if unknown:
            raise ValueError(f"ports must be among {', '.join(port.name for port in self.ports)}, not {', '.join(sorted(unknown))}")
        for port in self.ports:
            port.start(inputs.get(port.name, outputs.get(port.name, ())), pauses.get(port.name, 0.0))
        self.following = [words for words in outputs.values() if isinstance(words, Following)]
        for words in self.following:
            words.restart()

    async def _loop(self, rng: random.Random, limit: int | None) -> tuple[int, int]:
        """Drive and sample, one turn per cycle; return the cycles of the first input and of the last output."""
        plain = max((len(port.words) for port in (*self.plain_in, *self.plain_out)), default=0)
        left = sum(len(port.words) for port in self.streams)
        first, last, idle, quiet = None, 0, 0, 0
        for cycle in count():
            self._drive(cycle, rng, done=not left)
            if cycle == limit or idle == IDLE:
                break
            await self.edge()
            taken, given = self._sample(cycle)
            if taken and first is None:
                first = cycle
            if given:
                last = cycle
            left -= taken + given
            quiet = 0 if taken or given else quiet + 1
            if quiet == HANG and left:
                late = next(port for port in (*self.streams_out, *self.streams_in) if port.done < len(port.words))
                signal = f"{late.name} transfers within {HANG} cycles"
                raise Mismatch(cycle, signal, len(late.words), late.done, late.name, late.done)
            idle = idle + 1 if not left and cycle + 1 >= plain else 0
        self.total += cycle
        return first or 0, last

    def _drive(self, cycle: int, rng: random.Random, done: bool) -> None:
        """Set the bench's half of every port for a cycle; once all is done no output is paused."""
        for port in self.plain_in:
            if cycle < len(port.words):
                port.payload.value = port.words[cycle]
        for port in self.streams_in:
            if port.free:
                offer = port.done < len(port.words) and not (port.pause and rng.random() < port.pause)
                if offer:
                    port.payload.value = port.words[port.done]
                    port.free = False
                elif port.high:
                    port.payload.value = rng.getrandbits(port.width)
                if offer != port.high:
                    port.high = offer
                    port.valid.value = int(offer)
        for port in self.streams_out:
            ready = done or not (port.pause and rng.random() < port.pause)
            if ready != port.high:
                port.high = ready
                port.ready.value = int(ready)

    def _sample(self, cycle: int) -> tuple[int, int]:
        """Take what the ports showed just before the clock edge; return how many payloads entered and left."""
        taken = given = 0
        for port in self.streams_in:
            ready = port.high and bit(port.ready, cycle)
            port.driven.append(port.high)
            port.shown.append(ready)
            if ready:
                for words in self.following:
                    words.accepted(port.name, port.done)
                taken += 1
                port.done += 1
                port.free = True
        for port in self.streams_out:
            valid = bit(port.valid, cycle)
            port.driven.append(port.high)
            port.shown.append(valid)
            if valid:
                self._compare(port, port.done, cycle)
                if port.high:
                    given += 1
                    port.done += 1
        for port in self.plain_out:
            if cycle < len(port.words) and port.words[cycle] is not None:
                self._compare(port, cycle, cycle)
        return taken, given

    def _compare(self, port: Port, position: int, cycle: int) -> None:
        if position >= len(port.words):
            raise Mismatch(cycle, f"{port.name} transfers", len(port.words), position + 1, port.name, position)
        got, expected = str(port.payload.value), format(port.words[position], f"0{port.width}b")
        if got == expected:
            return
        element, right, wrong = first_difference(port.layout, expected, got)
        raise Mismatch(cycle, port.name + element, right, wrong, port.name, position)

    def _compare_waits(self, case: Case, later: Mismatch | None = None) -> None:
        """Compare the recorded handshakes; a difference before the mismatch `later` is the one to report."""
        if case.predict is None:
            return
        cycles = min(len(port.shown) for port in self.streams)
        driven = {port.name: np.array(port.driven[:cycles], bool) for port in self.streams}
        predicted = case.predict(driven)
        wrong = []
        for port in self.streams:
            offered = driven[port.name] if port in self.streams_in else np.ones(cycles, bool)
            different = np.flatnonzero((predicted[port.name] != np.array(port.shown[:cycles], bool)) & offered)
            if different.size:
                wrong.append((int(different[0]), port))
        if not wrong:
            return
        cycle, port = min(wrong, key=lambda entry: entry[0])
        if later is None or cycle < later.cycle:
            signal = f"{port.name}.{'ready' if port in self.streams_in else 'valid'}"
            passed = sum(driven and shown for driven, shown in zip(port.driven[:cycle], port.shown[:cycle], strict=True))
            raise Mismatch(cycle, signal, int(predicted[port.name][cycle]), int(port.shown[cycle]), port.name, passed) from None


@cocotb.test()
async def cases(dut: Any) -> None:
    """Run the cases named in the environment and write what happened."""
    job = json.loads(os.environ[ENVIRONMENT])
    block = BLOCKS[job["block"]]
    config = block.kind(**job["config"])
    module = import_module(block.bench)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        bench = Bench(dut, block.component(config))
    if bench.clocked:
        Clock(dut.clk, PERIOD, unit="ns").start()
    report: dict[str, Any] = {"cases": 0, "words": 0, "cycles": 0, "spans": [], "mismatch": None}
    try:
        await bench.reset()
        for index in range(job["first"], job["first"] + job["cases"]):
            rng = random.Random(f"{job['seed']} {index}")
            pauses = dict.fromkeys((port.name for port in bench.streams), 0.0)
            if job["program"]:
                case = module.program_case(config, Path(job["program"]), index)
            else:
                case = module.random_case(config, np.random.default_rng([job["seed"], index]))
                if index % 3:
                    pauses = {name: rng.choice(PAUSES) for name in pauses}
            try:
                if case.fresh:
                    await bench.reset()
                if index % 4 == 1 and not job["program"]:  # abort the case by a reset
                    await bench.run(case, rng, pauses, limit=rng.randrange(1, 2 * max(map(len, case.inputs.values())) + 2))
                    await bench.reset()
                report["spans"].append(await bench.run(case, rng, pauses))
            except Mismatch as found:
                report["mismatch"] = {
                    "case": index,
                    "label": case.label,
                    "place": case.place(found.port, found.position) if case.place else "",
                    "cycle": found.cycle,
                    "signal": found.signal,
                    "expected": str(found.expected),
                    "got": str(found.got),
                    "pauses": pauses,
                }
                raise
            report["cases"] += 1
            report["words"] += sum(len(words) for words in case.outputs.values())
    except Exception:
        report["error"] = traceback.format_exc().strip()
        raise
    finally:
        report["cycles"] = bench.total
        Path(job["report"]).write_text(json.dumps(report))
