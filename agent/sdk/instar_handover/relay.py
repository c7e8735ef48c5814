"""Relays one accepted HTTP/2 connection to a Unix socket of this process, and says GOAWAY in the server's name.

A server that is stopped says GOAWAY too, but grpcio cancels the calls that arrive at that moment. The relay's GOAWAY
refuses nothing: the client begins its next call elsewhere, and the server goes on with all that it gets.

Rules kept here: who writes faster than the other side reads is not read from meanwhile; what one side sent before it
closed still reaches the other. Left out: what the bytes mean, beyond where a frame ends (`frames`).
"""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import cast

from instar_handover import connection, frames

# GOAWAY right behind the server's first frame makes grpc's own client wait for an answer until the call's deadline.
GOAWAY_AGE_SECONDS = 1.0
HANDSHAKE_SECONDS = 10.0  # a client that connects and never speaks TLS may hold a drain up for so long


class Relay:
    """One relayed connection."""

    def __init__(self, made: connection.Connection) -> None:
        self._made = made
        self._loop = asyncio.get_running_loop()
        self._client = _Side()
        self._server = _Server()
        self._is_goaway_due = False
        self._joined_at_seconds: float | None = None

    async def run(self, path: Path, context: ssl.SSLContext | None) -> None:
        """Relay until both sides have closed.

        Args:
            path: Where the server listens.
            context: For TLS with the client; None without.
        """
        seconds = None if context is None else HANDSHAKE_SECONDS
        self._made.hold()  # the client ends it, after GOAWAY
        try:
            with contextlib.suppress(OSError):  # the client left, or the server has been stopped: nobody's fault
                transport, _ = await self._loop.connect_accepted_socket(
                    lambda: self._client, self._made.socket, ssl=context, ssl_handshake_timeout=seconds
                )
                self._made.attach(transport)
                await self._loop.create_unix_connection(lambda: self._server, str(path))
                self._join()
                await self._server.lost.wait()
                await self._client.lost.wait()
        finally:
            self._client.close()
            self._server.close()
            if self._client.transport is None:
                self._made.socket.close()

    def say_goaway(self) -> None:
        """Send the client elsewhere for its next call, as soon as it can bear it; calls under way go on."""
        if self._joined_at_seconds is None:
            self._is_goaway_due = True
        else:
            self._loop.call_at(self._joined_at_seconds + GOAWAY_AGE_SECONDS, self._server.say_goaway)

    def _join(self) -> None:
        self._joined_at_seconds = self._loop.time()
        self._server.join(self._client)
        self._client.join(self._server)
        if self._is_goaway_due:
            self.say_goaway()


class _Side(asyncio.Protocol):
    """One side of a relay."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None

    def join(self, other: "_Side") -> None:
        """Send to the other side from now on."""
        self.other = other
        if self.transport is not None:
            self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Write to this side, if it is still there."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        """Send what has been written, then close."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing until there is somewhere to send it to."""
        self.transport = cast("asyncio.Transport", transport)  # of a stream socket
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is not None:
            self.other.send(data)

    def pause_writing(self) -> None:
        """This side is slow: do not read from the other."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # either way it is over
        """End the other side too, with everything written."""
        self.lost.set()
        if self.other is not None:
            self.other.close()


class _Server(_Side):
    """The server's side: GOAWAY is put between its frames."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = frames.Frames()
        self._is_goaway_due = False

    def say_goaway(self) -> None:
        """Say it now, or as soon as a frame has ended."""
        if self._frames.is_between and self.other is not None:
            self.other.send(frames.GOAWAY)
        else:
            self._is_goaway_due = True

    def data_received(self, data: bytes) -> None:
        """Pass it on, with GOAWAY in it where that is due."""
        place = self._frames.follow(data)
        if self._is_goaway_due and place >= 0:
            self._is_goaway_due = False
            data = data[:place] + frames.GOAWAY + data[place:]
        super().data_received(data)
