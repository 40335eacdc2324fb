"""`kernel`: numba's compiler with a disk cache that no edit of the model can make stale.

numba notices an edit of the file that holds a cached function, but not an edit of a helper or a constant in another file, and then
returns the results of old code. So the cache of a file lives in a directory named after the text of every source it can reach by imports.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numba
from numba.core import event

Function = TypeVar("Function", bound=Callable[..., Any])

settings: Any = numba.config  # its names are made from the environment, so type checkers do not see them

KEPT = 4  # our choice: directories of other versions of a file kept beside the current one
REST = 3600  # our choice: a directory used in the last hour is never removed [s]
_ROOT = Path(__file__).parent
_IMPORT = re.compile(r"^(?:from|import) +accel\b\.?([\w.]*)(?: +import +(\([^)]*\)|.*))?", re.MULTILINE)


@overload
def kernel(function: Function) -> Function: ...
@overload
def kernel(**options: Any) -> Callable[[Function], Function]: ...
def kernel(function: Function | None = None, **options: Any) -> Function | Callable[[Function], Function]:
    """Compile a function with numba and cache it on disk; bare or with options of ``numba.njit``.

    The cache is below ``accel/numba`` in ``NUMBA_CACHE_DIR``, else ``XDG_CACHE_HOME``, else ``~/.cache``; where that cannot be written
    nothing is cached. ``NUMBA_DISABLE_JIT=1`` returns the function itself.

    Parameters
    ----------
    function : callable
        Code in numba's subset of Python.
    **options
        Passed to ``numba.njit``.

    Returns
    -------
    callable
        The compiled function, or a decorator if only options were given.
    """
    if function is None:
        return cast("Callable[[Function], Function]", functools.partial(kernel, **options))
    if settings.DISABLE_JIT:
        return function
    _announce()
    directory, others = cache_dir(Path(function.__code__.co_filename)), settings.CACHE_DIR
    settings.CACHE_DIR = str(directory)  # numba reads it only here; other users in this process keep theirs
    try:
        return cast(Function, numba.njit(**{"cache": directory is not None, "nogil": True} | options)(function))
    finally:
        settings.CACHE_DIR = others


@functools.cache
def source_key(path: Path) -> str:
    """Name numba's version and the text of a source and of all it can reach by imports: 128 bits of a SHA-256, in hexadecimal."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(_reach(path)):
        text = source.read_bytes()
        digest.update(f"{source.parent.name}/{source.name} {len(text)} ".encode() + text)
    return digest.hexdigest()[:32]


def _reach(path: Path) -> set[Path]:
    """List the sources of this package that a source imports, directly or not, and itself."""
    found, new = {path}, {path}
    while new := set().union(*map(_imports, new)) - found:
        found |= new
    return found


@functools.cache
def _imports(path: Path) -> frozenset[Path]:
    """List the sources of this package that a source imports when it is itself imported."""
    found = set()
    for module, names in _IMPORT.findall(path.read_text()):
        home = _ROOT.joinpath(*module.split("."))
        modules = [home, *(home / name for name in re.findall(r"\w+", names))]  # a name may be a module or not: its file tells
        found |= {file for place in modules for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return frozenset(found)


def _base() -> Path:
    return Path(settings.CACHE_DIR or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "accel", "numba")


@functools.cache
def cache_dir(path: Path) -> Path | None:
    """Return the directory for kernels of a source, made if need be, or None where it cannot be written.

    Directories of its other versions, unused for REST seconds, are removed beyond the KEPT newest.
    """
    directory = _base() / f"{path.stem}-{source_key(path)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory)  # its age is the time since the last use
        others = sorted(((old.stat().st_mtime, old) for old in _base().glob(f"{path.stem}-*") if old != directory), reverse=True)
    except OSError:
        return None
    for used, old in others[KEPT:]:
        if used < time.time() - REST:
            shutil.rmtree(old, ignore_errors=True)
    return directory if os.access(directory, os.W_OK) else None


class _Announcer(event.Listener):
    """Say once that a kernel of this package is being compiled."""

    told = False

    def on_start(self, event: event.Event) -> None:
        if not self.told and event.data["dispatcher"].py_func.__module__.startswith("accel."):
            self.told = True
            print(f"accel: compiling kernels, once for this version (kept in {_base()} if it can be written)", file=sys.stderr, flush=True)

    def on_end(self, event: event.Event) -> None:
        pass


@functools.cache
def _announce() -> None:
    """Listen for compilations if a person watches (standard error is a terminal) or ``ACCEL_PROGRESS`` is set."""
    if sys.stderr.isatty() or os.environ.get("ACCEL_PROGRESS"):
        event.register("numba:compile", _Announcer())
