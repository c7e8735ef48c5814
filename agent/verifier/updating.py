"""The client of The Update Framework, python-tuf's own, over files that the agent has fetched.

Rules kept here: nothing is read but the folder of fetched files, by names without a path; each file that is believed is
on the disk before it has its name; whatever python-tuf refuses becomes one code of ours. Left out: downloads of
targets, which python-tuf neither resumes nor makes durable, roles below the targets (`listing`), floors (`floors`), and
what the metadata says (`metadata`).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tuf import ngclient
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Snapshot
from tuf.api.serialization import DeserializationError

from agent import durability
from agent.verifier.errors import VerificationError

BASE_URL = "fetched:/"
READ_BYTES = 64 * 1024
TARGETS_BYTES_MAX = ngclient.UpdaterConfig().targets_max_length
NOT_FOUND = 404  # python-tuf asks for roots until it hears this
ROLLED_BACK, MIXED, MISSING = "metadata_rolled_back", "metadata_mixed", "metadata_missing"
UNSIGNED, EXPIRED = "metadata_unsigned", "metadata_expired"

# The first that fits.
CODES: Mapping[type[Exception], str] = {
    exceptions.ExpiredMetadataError: EXPIRED,
    exceptions.UnsignedMetadataError: UNSIGNED,
    exceptions.LengthOrHashMismatchError: MIXED,
    DeserializationError: UNSIGNED,
    exceptions.RepositoryError: MIXED,
    exceptions.DownloadLengthMismatchError: MIXED,
    exceptions.DownloadError: MISSING,
}


class Fetched(ngclient.FetcherInterface):
    """The folder of fetched files.

    Args:
        descriptor: Of the folder.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.asked = ""

    def read(self) -> bytes:
        """Read once more what was asked for last."""
        return b"".join(self._fetch(BASE_URL + self.asked))

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked = url.removeprefix(BASE_URL)
        try:
            file = os.open(self.asked, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._descriptor)
        except FileNotFoundError as error:
            raise exceptions.DownloadHTTPError(f"{self.asked} was not sent", NOT_FOUND) from error
        with os.fdopen(file, "rb") as stream:
            yield from iter(functools.partial(stream.read, READ_BYTES), b"")


class DurableUpdater(ngclient.Updater):
    """The client, whose files survive a power cut whole."""

    def _persist_file(self, filename: str, data: bytes) -> None:
        durability.replace_file(Path(filename), data)


@contextlib.contextmanager
def opened(fetched: Path) -> Iterator[Fetched]:
    """Read from the folder of fetched files.

    Raises:
        VerificationError: There is none (``metadata_missing``).
    """
    try:
        descriptor = os.open(fetched, durability.OPEN_DIRECTORY)
    except FileNotFoundError as error:
        raise refused(MISSING, "metadata", "the controller has sent none") from error
    try:
        yield Fetched(descriptor)
    finally:
        os.close(descriptor)


def refresh(pinned: bytes, source: Fetched, believed: Path) -> None:
    """Follow the fetched metadata from the pinned root to the targets; what is believed stands in its own folder then.

    Args:
        pinned: The root that is believed without a question.
        source: The fetched files.
        believed: That folder.

    Raises:
        VerificationError: Something is missing, unsigned, expired, rolled back, or does not belong together.
        OSError: The disk is full or fails.
    """
    updater = _updater(pinned, believed, source)
    with refusing(source):
        updater.refresh()
    durability.sync_directory(believed)


def _updater(pinned: bytes, believed: Path, source: Fetched) -> DurableUpdater:
    try:
        return DurableUpdater(str(believed), BASE_URL, fetcher=source, bootstrap=pinned)
    except exceptions.RepositoryError as error:
        rule = f"it is a root that its own keys have signed: {error}"
        raise VerificationError(f"cannot use the pinned root: {rule}", code="trust_unusable", rule=rule) from error


@contextlib.contextmanager
def refusing(source: Fetched) -> Iterator[None]:
    """Turn what python-tuf refuses into a code of ours, said of the file that was asked for last."""
    try:
        yield
    except exceptions.BadVersionNumberError as error:
        raise refused(_code_of_version(source), source.asked, str(error)) from error
    except tuple(CODES) as error:
        code = next(code for kind, code in CODES.items() if isinstance(error, kind))
        raise refused(code, source.asked, str(error)) from error


def _code_of_version(source: Fetched) -> str:
    """Tell an older version from one that another file does not name: a file says its version in its name too."""
    if source.asked == "timestamp.json":
        return ROLLED_BACK
    number, _, name = source.asked.partition(".")
    is_named = name == "snapshot.json" and str(Metadata[Snapshot].from_bytes(source.read()).signed.version) == number
    return ROLLED_BACK if is_named else MIXED


def refused(code: str, name: str, rule: str) -> VerificationError:
    """Say why a file is not believed."""
    return VerificationError(f"cannot trust {name}: {rule}", code=code, field=name, rule=rule)
