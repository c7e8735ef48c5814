"""Release metadata that is being fetched: files in a folder that appears whole, and of which nothing is believed.

Rules kept here: count, size and names are bounded, whatever the controller sends; no name leaves the folder; a name
comes once. Left out: what the files say, which only the verifier's child reads.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

from agent import durability
from agent.depot.incoming import DepotError

NAME = re.compile(r"[A-Za-z0-9._-]{1,200}\.json")
FILES_MAX = 260  # a root for each of 256 rotations, as many as python-tuf follows, and the four others
BYTES_MAX = 16 * 1024**2  # of all files; the largest allowed set of targets has five
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
CODE = "metadata_unusable"


class IncomingMetadata:
    """The files of one answer.

    Args:
        directory: Where they are found once all are there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fresh = directory.with_name(f"{durability.HALF_MADE}{directory.name}")
        self._file: BinaryIO | None = None
        self._name = ""
        self._seen: set[str] = set()
        self._bytes = 0
        shutil.rmtree(self._fresh, ignore_errors=True)
        self._fresh.mkdir(mode=0o700)

    def write(self, name: str, content: bytes, *, is_last_piece: bool) -> None:
        """Take a piece of a file; the pieces of a file follow one another.

        Raises:
            DepotError: A bound is reached, or a name cannot be used (``metadata_unusable``).
            OSError: The disk is full or fails.
        """
        if self._file is None:
            self._file = self._create(name)
        elif name != self._name:
            raise _unusable(f"{self._name} is not at its end where {name!r} begins")
        self._bytes += len(content)
        if self._bytes > BYTES_MAX:
            raise _unusable(f"it has more than {BYTES_MAX} bytes")
        self._file.write(content)
        if is_last_piece:
            self.close()

    def complete(self) -> None:
        """Let the files take the place of those before.

        Raises:
            DepotError: The last file is not at its end.
        """
        if self._file is not None:
            raise _unusable(f"{self._name} breaks off")
        shutil.rmtree(self._directory, ignore_errors=True)
        self._fresh.rename(self._directory)

    def close(self) -> None:
        """Let go of the file that is open; again is success."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _create(self, name: str) -> BinaryIO:
        if not NAME.fullmatch(name):
            raise _unusable(f"{name[:80]!r} is no name of a file of metadata")
        if name in self._seen or len(self._seen) >= FILES_MAX:
            raise _unusable(f"it has more than {FILES_MAX} files, or {name} twice")
        self._seen.add(name)
        self._name = name
        return os.fdopen(os.open(self._fresh / name, CREATE_FILE, 0o600), "wb")


def _unusable(rule: str) -> DepotError:
    return DepotError(f"cannot take the metadata: {rule}", code=CODE)
