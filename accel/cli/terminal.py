"""What every command shares: tables and progress for people, files that are whole or absent."""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accel import presets
from accel.config import Config
from accel.errors import RangeError
from accel.files import is_device as is_device
from accel.files import write as write

NAME, WIDE = 40, 100  # our choice [characters]: of a cell of a table's first column, which holds names, and of any other
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


def add_config(parser: argparse.ArgumentParser, default: str | None = "edge-int8") -> None:
    """Add the options that choose a configuration; without a default it is the block's own."""
    told = default or "the block's own, see `accel list blocks`"
    parser.add_argument("--config", metavar="C", default=default, help=f"a preset or a YAML file (default: {told})")
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", dest="changes", action="append", default=[], help="change a field of it; may be given often"
    )


def configuration(args: argparse.Namespace, kind: type[presets.Kind], default: str = "") -> presets.Kind:
    """Return what the options of :func:`add_config` choose."""
    return presets.override(presets.load(args.config or default, kind), args.changes)


def described(args: argparse.Namespace, names: Sequence[str]) -> list[tuple[Any, Config]]:
    """Return the named blocks of :data:`accel.sim.blocks.BLOCKS`, all if none is, each with its configuration.

    Raises
    ------
    RangeError
        If there is no such block, or the options of :func:`add_config` are given for blocks of several kinds.
    ConfigError
        If the configuration is not one of the block.
    """
    from accel.sim.blocks import BLOCKS

    for name in names:
        if name not in BLOCKS:
            raise RangeError(f"block must be one of {', '.join(BLOCKS)}, not {name!r}")
    blocks = [BLOCKS[name] for name in names or BLOCKS]
    kinds: dict[type[Config], str] = {}
    for block in blocks:
        kinds.setdefault(block.kind, block.name)
    if len(kinds) > 1 and (args.config or args.changes):
        option = "config" if args.config else "set"
        found = " and ".join(f"{name} ({kind.__name__})" for kind, name in kinds.items())
        raise RangeError(f"{option} must be given with blocks of one kind, not with {found}")
    pairs = [(block, configuration(args, block.kind, block.default)) for block in blocks]
    for block, config in pairs:
        block.check(config)
    return pairs


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align rows under headings: text to the left, numbers to the right with thousands marked; long text loses its beginning."""
    cells = [[visible(_cell(value), WIDE if i else NAME) for i, value in enumerate(row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    right = [all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(headings))]

    def line(texts: Sequence[str]) -> str:
        return "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True)).rstrip()

    return "\n".join([line(headings), line(["-" * w for w in widths]), *map(line, cells)])


def visible(text: str, longest: int | None = None) -> str:
    """Write what does not print, such as a line feed or an escape, as Python would in a string; keep the end of what is too long.

    Names come out of files, and a file may hold anything.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if longest is None or len(shown) <= longest else f"...{shown[3 - longest :]}"


class Progress:
    """Say on standard error how far long work has come: in place on a terminal, else a line every QUIET seconds."""

    def __init__(self, what: str) -> None:
        self._what = visible(what)
        self._watched = sys.stderr.isatty()
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, label: str) -> None:
        """Report that `done` of `total` parts are done and `label` is next."""
        now, label = time.monotonic(), visible(label, NAME)
        if self._watched:
            print(f"\r\x1b[K{self._what}: {done}/{total} {label}", end="" if done < total else "\n", file=sys.stderr, flush=True)
        elif now - self._last >= QUIET:
            self._last = now
            print(f"{self._what}: {done}/{total} {label}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Tell a person what happens, on standard error."""
    print(f"accel: {visible(text)}", file=sys.stderr, flush=True)


def remove(path: Path) -> None:
    """Remove a file of an earlier run, if there is one.

    Raises
    ------
    RangeError
        If it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RangeError(f"output must be a file that can be replaced, not {str(path)!r} ({error.strerror})") from None


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
