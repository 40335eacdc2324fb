"""The command `accel`: the front door, and the only part of the package that reaches the RTL and the co-simulation."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from enum import IntEnum

import accel
from accel.cli import cosim, listing, prove, rbf, run, simulate, synth, train, verify, verilog
from accel.cli.terminal import visible
from accel.errors import AccelError, MismatchError, ToolError


class Exit(IntEnum):
    """What the process says to its caller."""

    OK = 0
    MISMATCH = 1
    USER = 2
    TOOL = 3
    INTERRUPTED = 130
    PIPE = 141
    TERMINATED = 143


EXIT_CODES = """\
exit codes:
  0  done, and everything agreed
  1  hardware and model disagree in a bit or in a cycle, or a difference from onnxruntime is not explained
  2  a mistake in the command, a file or a value; one line on standard error says which
  3  an outside tool is missing or failed
  130  interrupted
  141  the reader of the output has gone
  143  terminated"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller; Python would send messages for the one to the other
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file need not be text
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    args = parser().parse_args(arguments)
    os.environ.setdefault("ACCEL_PROGRESS", "1")  # a first use compiles kernels: say so
    try:
        args.command(args)
        sys.stdout.flush()
    except AccelError as error:
        told = str(error) if isinstance(error, MismatchError | ToolError) else visible(str(error))  # tools have more than one line
        print(f"accel: error: {told}", file=sys.stderr)
        return {MismatchError: Exit.MISMATCH, ToolError: Exit.TOOL}.get(type(error), Exit.USER)
    except KeyboardInterrupt:
        warnings.simplefilter("ignore")  # what Amaranth says of hardware that is left half made
        print("accel: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return Exit.PIPE
    except OSError as error:
        if error.filename is None:
            _drop_output()
        what = "standard output" if error.filename is None else repr(str(error.filename))
        print(f"accel: error: {what} must be usable, not what gives {error.strerror!r}", file=sys.stderr)
        return Exit.USER
    return Exit.OK


def _terminate(number: int, frame: object) -> None:
    """Unwind, so that running simulators are ended and scratch folders removed."""
    raise SystemExit(Exit.TERMINATED)


def _drop_output() -> None:
    """Send what is still buffered nowhere: nobody takes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    """Describe the command line: one subcommand per job."""
    top = argparse.ArgumentParser(
        prog="accel", description=accel.__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"accel {accel.__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for job in (simulate, train, verify, verilog, cosim, synth, prove, listing, rbf, run):
        job.add(commands)
    return top
