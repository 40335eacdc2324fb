"""`kernel`: numba's compiler with a disk cache that no edit of the model can make stale.

numba notices an edit of the file that holds a cached function, but not an edit of a helper or a constant in another file, and then
returns the results of old code. So the cache lives in a directory named after the text of every model source.
"""

from __future__ import annotations

import functools
import hashlib
import os
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

KEPT = 8  # our choice: directories of other versions kept beside the current one
REST = 3600  # our choice: a directory used in the last hour is never removed [s]
_NO_MODEL = {"rtl", "sim", "reports", "cli", "__pycache__"}  # packages that no kernel can reach


@overload
def kernel(function: Function) -> Function: ...
@overload
def kernel(**options: Any) -> Callable[[Function], Function]: ...
def kernel(function: Function | None = None, **options: Any) -> Function | Callable[[Function], Function]:
    """Compile a function with numba and cache it on disk; bare or with options of ``numba.njit``.

    The cache is ``<base>/accel/numba/<source_key()>`` where the base is ``NUMBA_CACHE_DIR``, else ``XDG_CACHE_HOME``, else ``~/.cache``;
    where that cannot be written nothing is cached. ``NUMBA_DISABLE_JIT=1`` returns the function itself.

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
    directory, others = cache_dir(), settings.CACHE_DIR
    settings.CACHE_DIR = str(directory)  # numba reads it only here; other users in this process keep theirs
    try:
        return cast(Function, numba.njit(**{"cache": directory is not None, "nogil": True} | options)(function))
    finally:
        settings.CACHE_DIR = others


@functools.cache
def source_key() -> str:
    """Name the text of all model sources and numba's version by the first 128 bits of a SHA-256, in hexadecimal."""
    root = Path(__file__).parent
    digest = hashlib.sha256(numba.__version__.encode())
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _NO_MODEL)
        for name in sorted(files):
            if name.endswith(".py"):
                path = Path(folder, name)
                text = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()} {len(text)} ".encode() + text)
    return digest.hexdigest()[:32]


@functools.cache
def cache_dir() -> Path | None:
    """Return this version's cache directory, made if need be, or None where it cannot be written.

    Directories of versions unused for REST seconds are removed beyond the KEPT newest.
    """
    base = settings.CACHE_DIR or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(base, "accel", "numba", source_key())
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory)  # its age is the time since the last use
        others = sorted(((path.stat().st_mtime, path) for path in directory.parent.iterdir() if path != directory), reverse=True)
    except OSError:
        return None
    for used, path in others[KEPT:]:
        if used < time.time() - REST:
            shutil.rmtree(path, ignore_errors=True)
    return directory if os.access(directory, os.W_OK) else None


class _Announcer(event.Listener):
    """Say once that a kernel of this package is being compiled."""

    told = False

    def on_start(self, event: event.Event) -> None:
        if not self.told and event.data["dispatcher"].py_func.__module__.startswith("accel."):
            self.told = True
            kept = f"kept in {cache_dir()}" if cache_dir() else "not kept: the cache directory cannot be written"
            print(f"accel: compiling kernels, once for this version ({kept})", file=sys.stderr, flush=True)

    def on_end(self, event: event.Event) -> None:
        pass


@functools.cache
def _announce() -> None:
    """Listen for compilations if a person watches (standard error is a terminal) or ``ACCEL_PROGRESS`` is set."""
    if sys.stderr.isatty() or os.environ.get("ACCEL_PROGRESS"):
        event.register("numba:compile", _Announcer())
