"""A bundle that is being fetched, and the error of whatever the disk does not allow.

Rules kept here: bytes count only under the digest that they must have; a fetch goes on where an earlier one ended.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from agent import durability
from agent.config import layout

READ_BYTES = 1024**2  # one read while a partial bundle is hashed again


class DepotError(Exception):
    """The disk of the node is not in the state that was asked for; nothing changed.

    Args:
        code: Stable, in snake_case, for example ``digest_mismatch``.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Incoming:
    """A bundle that is being fetched; its name becomes final only when the digest of its bytes is right.

    Args:
        bytes_max: More are refused: as long as it is signed, or as any may be.
    """

    def __init__(self, digest: str, places: layout.Layout, file: BinaryIO, bytes_max: int) -> None:
        self._digest = digest
        self._places = places
        self._file = file
        self._bytes_max = bytes_max
        self._sum = hashlib.sha256()
        self._offset = 0

    @classmethod
    def open(cls, digest: str, places: layout.Layout, bytes_max: int) -> Self:
        """Open the partial bundle and hash what is in it."""
        path = places.partial_bundle(digest)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        incoming = cls(digest, places, os.fdopen(descriptor, "r+b"), bytes_max)
        while data := incoming._file.read(READ_BYTES):
            incoming._count(data)
        return incoming

    @property
    def offset(self) -> int:
        """Number of bytes that are there; the next one to fetch."""
        return self._offset

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            DepotError: The bundle would be larger than it may be (``bundle_too_large``); it is removed.
            OSError: The disk is full or fails; what was written before stays.
        """
        if self._offset + len(data) > self._bytes_max:
            self._discard()
            rule = f"it has at most {self._bytes_max} bytes"
            raise DepotError(f"cannot receive {self._digest}: {rule}", code="bundle_too_large")
        self._file.write(data)
        self._count(data)

    def complete(self) -> Path:
        """Check the digest and give the bundle its name, durably.

        Raises:
            DepotError: The bytes have another digest (``digest_mismatch``); they are removed.
        """
        seen = layout.DIGEST_PREFIX + self._sum.hexdigest()
        if seen != self._digest:
            self._discard()
            raise DepotError(
                f"cannot accept the bundle: its digest is {seen}, not {self._digest}", code="digest_mismatch"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        path = self._places.bundle(self._digest)
        self._places.partial_bundle(self._digest).rename(path)
        durability.sync_directory(path.parent)
        return path

    def close(self) -> None:
        """Stop here; a later `Depot.receive` goes on from these bytes."""
        self._file.close()

    def _count(self, data: bytes) -> None:
        self._sum.update(data)
        self._offset += len(data)

    def _discard(self) -> None:
        self._places.partial_bundle(self._digest).unlink(missing_ok=True)
        with suppress(OSError):  # what could not be written is not wanted any more
            self.close()
