"""Signed metadata on their way to a controller and back."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli import connection, failures
from controller.core import errors
from controller.rpc import trust_pieces
from instar.v1 import release_service_pb2

if TYPE_CHECKING:
    from controller.trust import publisher

SECONDS = 120.0  # for all files of the largest repository


@contextlib.contextmanager
def folder(path: Path, *, is_new: bool = False) -> Iterator[publisher.Publisher]:
    """The publisher's folder as of now, for one command at a time: another one waits.

    Raises:
        CommandError: It is not there.
    """
    from controller import clock
    from controller.trust import publisher

    if is_new:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.is_dir():
        raise failures.usage("--trust", str(path), "a folder that `instar trust init` made")
    with (path / publisher.LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield publisher.Publisher(path, clock.SystemClock().now())


async def push(link: connection.Connection, path: Path) -> release_service_pb2.PutTrustResponse:
    """Put what is signed in a folder onto the controller.

    Raises:
        CommandError: A change waits for signatures, or the controller refused.
    """
    with folder(path) as place:
        waiting = [file.name for file in place.drafts()]
        files = [(file.name, file.content) for file in place.signed().signed_offline()]
    if waiting:
        raise failures.usage("--trust", ", ".join(waiting), "signed by everybody first (`instar trust sign`)")
    return await link.call(link.releases.PutTrust, _sent(files), seconds=SECONDS)


async def pull(link: connection.Connection) -> list[tuple[str, bytes]]:
    """All files that the controller serves.

    Raises:
        CommandError: It serves none, or nobody answers.
    """
    try:
        return await trust_pieces.joined(link.stream(link.releases.GetTrust, release_service_pb2.GetTrustRequest()))
    except errors.UnavailableError as error:
        raise failures.of_controller(error) from error


def signed_by_people(files: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Those of the files that a publisher keeps."""
    return [(name, content) for name, content in files if not name.endswith(("timestamp.json", ".snapshot.json"))]


async def _sent(files: Sequence[tuple[str, bytes]]) -> AsyncIterator[release_service_pb2.PutTrustRequest]:
    for name, content, is_last in trust_pieces.cut(files):
        yield release_service_pb2.PutTrustRequest(name=name, content=content, is_last_piece=is_last)
