"""One HTTP/1.1 request and its answer over a raw connection, and what can go wrong with it.

Rules kept: nothing is ever asked twice; whatever is not a whole answer below 500 is a failure with a name. A server
that announces ``Connection: close`` is believed. Left out: everything of HTTP that the demo's service does not speak
(chunked bodies, redirects, compression).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique

ANSWER_TIMEOUT_SECONDS = 5.0  # a client that waits longer than this has given up
HEAD_BYTES_MAX = 16 * 1024  # an answer's head beyond this is not ours


@unique
class Failure(Enum):
    """Why a request counts as lost."""

    REFUSED = "refused"
    RESET = "reset"
    TRUNCATED = "truncated"
    TIMED_OUT = "timed_out"
    SERVER_ERROR = "server_error"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Args:
        version: The version of the service that gave it, by its own word.
        is_last: True when the server announced that it closes the connection.
    """

    status: int
    version: str
    is_last: bool


class LostError(Exception):
    """A request that got no whole answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"cannot count the request as answered: {failure.value}")
        self.failure = failure


class Connection:
    """One TCP connection to a service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def is_ended(self) -> bool:
        """Whether the server has closed it, so that a next request would be lost by our own fault."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def ask(self, *, keep_alive: bool) -> Answer:
        """Send one request and read its answer.

        Raises:
            LostError: No whole answer came.
        """
        wish = "keep-alive" if keep_alive else "close"
        try:
            self._writer.write(f"GET / HTTP/1.1\r\nHost: demo\r\nConnection: {wish}\r\n\r\n".encode())
            await self._writer.drain()
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, headers = _parsed(head)
            await self._reader.readexactly(int(headers["content-length"]))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError, IndexError) as error:
            raise LostError(Failure.TRUNCATED) from error
        except OSError as error:
            raise LostError(Failure.RESET) from error
        return Answer(status, headers.get("x-version", ""), headers.get("connection", "") == "close")

    async def close(self) -> None:
        """Let go of the connection."""
        self._writer.close()
        with contextlib.suppress(OSError):  # the server was first
            await self._writer.wait_closed()


async def connect(address: Address) -> Connection:
    """Open a connection.

    Raises:
        LostError: The service refused it.
    """
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=HEAD_BYTES_MAX)
    except OSError as error:
        raise LostError(Failure.REFUSED) from error
    return Connection(reader, writer)


def _parsed(head: bytes) -> tuple[int, Mapping[str, str]]:
    first, *lines = head.decode("ascii").rstrip("\r\n").split("\r\n")
    headers = (line.partition(":") for line in lines)
    return int(first.split(" ")[1]), {name.strip().lower(): value.strip() for name, _, value in headers}
