"""Writes the files of a judged bundle into a release directory that appears whole or not at all.

Rules kept here: no path is followed, each step down is by descriptor and refuses links; what was written is hashed
again; all of it is durable before the rename, by one flush of the file system, and that before it is told. Left out:
judging names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent import durability
from agent.config import layout
from agent.keeper import digest, errors
from agent.verifier import archive
from agent.verifier.archive import Member
from agent.verifier.errors import VerificationError

DIRECTORY_MODE = 0o755
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
STAGING_PREFIX = ".staging-"  # swept by the depot, since it starts with a dot


def unpack(descriptor: int, members: Sequence[Member], release_dir: Path) -> None:
    """Write all members to a release directory, named by its digest; replaces one whose files were tampered with.

    Raises:
        OSError: The disk is full or fails; nothing is left behind.
        VerificationError: The bundle changed while it was read.
    """
    staging = release_dir.with_name(f"{STAGING_PREFIX}{release_dir.name}-{os.getpid()}")
    staging.mkdir(mode=DIRECTORY_MODE)
    disk = durability.FileSystem(staging)
    try:
        root = os.open(staging, OPEN_DIRECTORY)
        try:
            for member in members:
                _write(descriptor, member, root)
        finally:
            os.close(root)
        _compare(staging, layout.digest_of(release_dir.name))
        disk.sync()
        _publish(staging, release_dir)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        disk.close()


def _write(descriptor: int, member: Member, root: int) -> None:
    *parents, name = member.name.split("/")
    directory = _descend(root, parents)
    try:
        file = os.open(name, CREATE_FILE, member.mode, dir_fd=directory)
        with os.fdopen(file, "wb") as stream:
            for data in archive.pieces(descriptor, member.offset, member.size_bytes):
                stream.write(data)
            os.fchmod(file, member.mode)
    finally:
        os.close(directory)


def _descend(root: int, parents: Sequence[str]) -> int:
    """Open the directory of a member, made where it is not there; the caller closes it."""
    directory = os.dup(root)
    for name in parents:
        with suppress(FileExistsError):
            os.mkdir(name, DIRECTORY_MODE, dir_fd=directory)
        try:
            below = os.open(name, OPEN_DIRECTORY, dir_fd=directory)
        finally:
            os.close(directory)
        directory = below
    return directory


def holds(release_dir: Path, wanted: str) -> bool:
    """Say whether a release is there with exactly the bytes of its digest."""
    try:
        return digest.tree_digest(release_dir) == wanted
    except (FileNotFoundError, errors.RequestError):
        return False


def _compare(staging: Path, wanted: str) -> None:
    seen = digest.tree_digest(staging)
    if seen != wanted:
        rule = "its bytes stay as they were when they were checked"
        message = f"cannot unpack the bundle: what was written has digest {seen}, not {wanted}"
        raise VerificationError(message, code="digest_mismatch", field="digest", value=seen, rule=rule)


def _publish(staging: Path, release_dir: Path) -> None:
    gone = staging.with_name(f".gone-{staging.name}")
    with suppress(FileNotFoundError):
        release_dir.rename(gone)
    staging.rename(release_dir)
    durability.sync_directory(release_dir.parent)
    shutil.rmtree(gone, ignore_errors=True)
