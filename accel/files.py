"""Files that are whole or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from accel.errors import RangeError


def is_device(path: Path) -> bool:
    """Tell whether a path is a device or a pipe, such as /dev/null."""
    return path.exists() and not path.is_file() and not path.is_dir()


def write(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a file whole or not at all: an interrupted run leaves the old file or none. A device or a pipe stays what it is.

    `durable` waits until file and name are on the disk, so that not even a loss of power takes them back.

    Raises
    ------
    RangeError
        If it cannot be written.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        if is_device(path):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(draft, 0o666 & ~umask)  # mkstemp makes the draft private
            os.replace(draft, path)
            if durable:
                _sync(path.parent)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RangeError(f"output must be a file that can be written, not {str(path)!r} ({error.strerror})") from None


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
