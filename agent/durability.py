"""How what was written becomes lasting: the few calls whose order every promise about a power cut rests on.

Rules kept here: a call returns when what it names is on the disk; what takes a place takes it by one rename. Left out:
what is written, and in which order (`depot`, `journal`, `state`, `stager`, `verifier`).

Source: https://man7.org/linux/man-pages/man2/sync.2.html (syncfs reports write errors since Linux 5.8),
https://man7.org/linux/man-pages/man2/rename.2.html (RENAME_EXCHANGE)
"""

from __future__ import annotations

import os
from pathlib import Path

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
HALF_MADE = "."  # names that start so are never whole
RENAME_EXCHANGE = 2  # from linux/fs.h
AT_FDCWD = -100  # from fcntl.h


class FileSystem:
    """A file system that much is being written to; `sync` makes all of it lasting at once.

    Opened before the first write, so that an error of any later write-back is told.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, OPEN_DIRECTORY)

    def sync(self) -> None:
        """Flush everything, files and names: one call in place of thousands.

        Raises:
            OSError: The disk failed.
        """
        _call("syncfs", self._descriptor)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory lasting."""
    descriptor = os.open(directory, OPEN_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Give a file its whole content by one rename, lastingly."""
    fresh = path.with_name(f"{HALF_MADE}{path.name}.tmp")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
    sync_directory(path.parent)


def exchange(one: Path, other: Path) -> None:
    """Let two directories change places by one rename, and make that lasting; both are in one directory.

    Raises:
        OSError: One of them is not there, or the file system cannot.
    """
    _call("renameat2", AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    sync_directory(one.parent)


def _call(name: str, *arguments: int | bytes) -> None:
    import ctypes  # noqa: PLC0415  # half a MiB that only those pay who write so much

    libc = ctypes.CDLL(None, use_errno=True)
    if libc[name](*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
