"""What every command shares: tables and progress for people, files that are whole or absent."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accel.errors import RangeError

QUIET = 2.0  # our choice: seconds between lines of progress where nobody watches a terminal


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], examples: str) -> argparse.ArgumentParser:
    """Add a subcommand whose help is the docstring of `run` and whose epilog shows examples, one per line."""
    told = inspect.getdoc(run) or ""
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=told.splitlines()[0],
        description=told,
        epilog="examples:\n" + "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(command=run)
    return added


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses an accelerator."""
    parser.add_argument("--config", metavar="C", default="edge-int8", help="a preset or a YAML file (default: %(default)s)")


def check_block(name: str) -> None:
    """Refuse a name that is no block's.

    Raises
    ------
    RangeError
        If there is none of that name.
    """
    from accel.sim.blocks import BLOCKS

    if name not in BLOCKS:
        raise RangeError(f"block must be one of {', '.join(BLOCKS)}, not {name!r}")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align rows under headings: text to the left, numbers to the right with thousands marked."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    right = [all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(headings))]

    def line(texts: Sequence[str]) -> str:
        return "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True)).rstrip()

    return "\n".join([line(headings), line(["-" * w for w in widths]), *map(line, cells)])


class Progress:
    """Say on standard error how far long work has come: in place on a terminal, else a line every QUIET seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._watched = sys.stderr.isatty()
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, label: str) -> None:
        """Report that `done` of `total` parts are done and `label` is next."""
        now = time.monotonic()
        if self._watched:
            print(f"\r\x1b[K{self._what}: {done}/{total} {label}", end="" if done < total else "\n", file=sys.stderr, flush=True)
        elif now - self._last >= QUIET:
            self._last = now
            print(f"{self._what}: {done}/{total} {label}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Tell a person what happens, on standard error."""
    print(f"accel: {text}", file=sys.stderr, flush=True)


def make_folder(path: Path) -> None:
    """Make a folder before the work whose results it is to hold.

    Raises
    ------
    RangeError
        If nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise RangeError(f"output must be a folder that can be written, not {str(path)!r} ({error.strerror})") from None


def is_device(path: Path) -> bool:
    """Tell whether a path is a device or a pipe, such as /dev/null."""
    return path.exists() and not path.is_file() and not path.is_dir()


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: an interrupted run leaves the old file or none. A device or a pipe stays what it is.

    Raises
    ------
    RangeError
        If it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if is_device(path):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(draft, 0o666 & ~umask)  # mkstemp makes the draft private
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise RangeError(f"output must be a file that can be written, not {str(path)!r} ({error.strerror})") from None


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.1f}"
    return str(value)
