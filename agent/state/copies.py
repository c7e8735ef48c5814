"""Copies of a component's state, file by file, with owners, modes and times; links stay links.

Rules kept here: a copy is compared with what it was made from; one that was made while somebody wrote is known as such.
Left out: sockets and pipes, which are nobody's state.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import durability

TRIES_MAX = 3  # a state that is written to seldom is quiet in one of them
PIECE_BYTES = 64 * 1024**2  # of one call that copies within the kernel

KINDS = frozenset({stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK})

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy is.

    Args:
        digest: Of its tree: names, links, modes and contents.
        is_quiet: Nobody wrote while it was made.
    """

    digest: str
    size_bytes: int
    is_quiet: bool


def make(source: Path, target: Path) -> Copied:
    """Copy a state, and make the copy durable.

    Raises:
        OSError: The disk is full or fails, or something cannot be read; the target may be half-made.
    """
    is_same = False
    disk = durability.FileSystem(target.parent)
    try:
        for _try in range(TRIES_MAX):
            shutil.rmtree(target, ignore_errors=True)
            before = _signature(source)
            is_same = _copy_all(source, target) and _signature(source) == before
            if is_same:
                break
        disk.sync()
    finally:
        disk.close()
    seen = digest(target)
    return Copied(seen, size_bytes(target), is_quiet=is_same and _is_like(source, seen))


def _is_like(source: Path, seen: str) -> bool:
    try:
        return digest(source) == seen
    except FileNotFoundError:  # somebody writes
        return False


def digest(directory: Path) -> str:
    """Digest of a state: its names, links, modes and contents."""
    total = hashlib.sha256()
    for path, status in _entries(directory):
        name = os.fsencode(path.relative_to(directory))
        total.update(b"%s %o %s\0" % (_content(path, status).encode(), status.st_mode, name))
    return f"sha256:{total.hexdigest()}"


def _content(path: Path, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
    if not stat.S_ISREG(status.st_mode):
        return ""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_bytes(directory: Path) -> int:
    """Bytes of all files below a directory; 0 where there is none."""
    return sum(size for _name, _time, _inode, size in _signature(directory)) if directory.is_dir() else 0


def _signature(directory: Path) -> Signature:
    """What changes when somebody writes: no file is read for it."""
    found = ((path, status) for path, status in _entries(directory) if not stat.S_ISDIR(status.st_mode))
    return tuple((str(path), status.st_mtime_ns, status.st_ino, status.st_size) for path, status in found)


def _entries(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in sorted(directory.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:  # somebody writes; the next look shows it
            continue
        if stat.S_IFMT(status.st_mode) in KINDS:
            yield path, status


def _copy_all(source: Path, target: Path) -> bool:
    """Copy everything; False where something went away meanwhile."""
    _make_directory(source, target, source.lstat())
    is_whole = True
    for path, status in _entries(source):
        try:
            _copy(path, target / path.relative_to(source), status)
        except FileNotFoundError:
            is_whole = False
    return is_whole


def _copy(source: Path, target: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        _make_directory(source, target, status)
    elif stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(source, target)
        os.chown(target, status.st_uid, status.st_gid)
        shutil.copystat(source, target)


def _make_directory(source: Path, target: Path, status: os.stat_result) -> None:
    target.mkdir(mode=0o700)
    os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        while os.copy_file_range(reader.fileno(), writer.fileno(), PIECE_BYTES):
            pass
