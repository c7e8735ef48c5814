"""One accepted connection: whether it is idle, whether its next answer must be its last, and how it is closed.

Rules kept here: bytes that have arrived and are not answered yet make it busy, also those that still lie in the kernel,
so an idle close never meets a request that has arrived. Left out: who accepts, and when to drain.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

READ_LIMIT_BYTES = 64 * 1024  # asyncio's own default for a StreamReader


@dataclass(slots=True)
class Counters:
    """What an instance counts; probes are left out.

    Args:
        served: Requests answered since the process began.
        in_flight: Requests begun and not yet answered.
    """

    served: int = 0
    in_flight: int = 0


class Connection:
    """What the component's handler is given beside reader and writer.

    Args:
        listener: Name of the listening socket that it came through.
        is_probe: It came through the private probe listener: never asked to close, counted nowhere.
    """

    def __init__(
        self, sock: socket.socket, listener: str, counters: Counters, is_closing: Callable[[], bool], *, is_probe: bool
    ) -> None:
        self.listener = listener
        self.is_probe = is_probe
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._counters = counters
        self._is_closing = is_closing
        self._is_in_request = False
        self._has_unanswered_bytes = False
        self._quiet_since = self._loop.time()
        self._writer: asyncio.StreamWriter | None = None

    @property
    def should_close(self) -> bool:
        """Whether the next answer must carry `Connection: close` and be the last on this connection."""
        return not self.is_probe and self._is_closing()

    def begin(self) -> None:
        """A request has begun."""
        if not self._is_in_request:
            self._is_in_request = True
            self._counters.in_flight += 1

    def end(self) -> None:
        """Its answer has been written."""
        if self._is_in_request:
            self._is_in_request = False
            self._has_unanswered_bytes = False
            self._quiet_since = self._loop.time()
            self._counters.in_flight -= 1
            self._counters.served += 1

    async def attend(self, handler: Callable[..., Awaitable[None]]) -> None:
        """Run the component's handler and close the connection after it, with everything written."""
        reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES, loop=self._loop)
        protocol = _Protocol(reader, self._note_bytes)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, self._socket)
            self._writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # the client left: nobody's fault
                await handler(reader, self._writer, self)
        finally:
            self._forget_request()
            await self._close()

    def close_if_idle(self, now: float, quiet_from: float, grace_seconds: float) -> None:
        """Close it when it has been quiet for the grace time, counted from `quiet_from` at the earliest."""
        is_idle = not self._is_in_request and not self._has_unanswered_bytes
        if is_idle and now - max(self._quiet_since, quiet_from) >= grace_seconds and not self._has_bytes_in_kernel():
            self.hang_up()

    def hang_up(self) -> None:
        """Close it now; what was written is still sent, and the handler reads the end of the stream."""
        if self._writer is not None:
            self._writer.close()

    def _note_bytes(self) -> None:
        self._has_unanswered_bytes = True

    def _has_bytes_in_kernel(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _forget_request(self) -> None:
        if self._is_in_request:
            self._is_in_request = False
            self._counters.in_flight -= 1

    async def _close(self) -> None:
        if self._writer is None:
            self._socket.close()
            return
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class _Protocol(asyncio.StreamReaderProtocol):
    """A stream protocol that says when bytes arrive."""

    def __init__(self, reader: asyncio.StreamReader, on_bytes: Callable[[], None]) -> None:
        super().__init__(reader)
        self._on_bytes = on_bytes

    def data_received(self, data: bytes) -> None:
        """Note the bytes before the reader has them."""
        self._on_bytes()
        super().data_received(data)
