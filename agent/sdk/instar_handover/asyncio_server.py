"""Serves any asyncio stream protocol under the hand-over protocol.

    async def on_connection(reader, writer, connection):
        while request := await read_request(reader):
            connection.begin()
            is_last = connection.should_close
            writer.write(answer(request, close=is_last))
            await writer.drain()
            connection.end()
            if is_last:
                return

    asyncio.run(asyncio_server.serve(on_connection, prepare=load_everything))

Rules kept here: the connection is closed when the handler returns, with everything written; TLS is set up after the
accept, and the private probe listener stays without it. Left out: HTTP.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from instar_handover import connection, control, instance, service

READ_LIMIT_BYTES = 64 * 1024  # asyncio's own default for a StreamReader
HANDSHAKE_SECONDS = 10.0  # a client that connects and never speaks TLS may hold a drain up for so long

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, connection.Connection], Awaitable[None]]
Prepare = Callable[[], Awaitable[None]]


async def serve(
    on_connection: Handler,
    *,
    prepare: Prepare | None = None,
    address: str = "127.0.0.1:8080",
    ssl: ssl.SSLContext | None = None,
    workers: int = 1,
    words: Mapping[str, control.Answerer] = MappingProxyType({}),
) -> None:
    """Serve until drained; under a keeper on the sockets that it passes, by hand on `address`.

    Args:
        on_connection: Called once for each connection, which is closed when it returns. It brackets each request with
            `connection.begin()` and `connection.end()` and makes an answer the last one when `connection.should_close`.
        prepare: Awaited before the instance says that it is prepared; what it raises ends the program.
        address: "127.0.0.1:8080", "[::1]:8080" or "unix:/path"; used only without a keeper.
        ssl: Of the server side; None for plain connections.
        workers: Processes that serve; with more than one the program is started again for each, and comes here again.
        words: Who answers what the agent asks beside the hand-over, as `{"module": host.answer}`; for one process only.

    Raises:
        inheritance.InheritanceError: The environment promises sockets that this process cannot take.
        parent.WorkersError: A worker ended before all were prepared, or all have ended.
    """
    await instance.run(lambda: Streams(on_connection, prepare, ssl, words), address, workers)


class Streams(service.Front):
    """Connections as pairs of streams."""

    def __init__(
        self,
        handler: Handler,
        prepare: Prepare | None,
        context: ssl.SSLContext | None,
        words: Mapping[str, control.Answerer],
    ) -> None:
        super().__init__()
        self.words = words
        self._handler = handler
        self._prepare = prepare
        self._context = context

    async def prepare(self) -> None:
        """Do what the component prepares."""
        if self._prepare is not None:
            await self._prepare()

    async def attend(self, made: connection.Connection) -> None:
        """Run the component's handler and close the connection after it, with everything written."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES, loop=loop)
        protocol = _Protocol(reader, made)
        writer: asyncio.StreamWriter | None = None
        try:
            # A client that leaves, or speaks no TLS, is nobody's fault.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                writer = asyncio.StreamWriter(await self._set_up(made, protocol), protocol, reader, loop)
                await self._handler(reader, writer, made)
        finally:
            made.forget_request()
            await _close(made, writer)

    async def _set_up(self, made: connection.Connection, protocol: asyncio.Protocol) -> asyncio.Transport:
        context, seconds = (
            (None, None) if made.is_probe or self._context is None else (self._context, HANDSHAKE_SECONDS)
        )
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: protocol, made.socket, ssl=context, ssl_handshake_timeout=seconds
        )
        made.attach(transport)
        return transport


class _Protocol(asyncio.StreamReaderProtocol):
    """A stream protocol that says when bytes arrive."""

    def __init__(self, reader: asyncio.StreamReader, made: connection.Connection) -> None:
        super().__init__(reader)
        self._made = made

    def data_received(self, data: bytes) -> None:
        """Note the bytes before the reader has them."""
        self._made.note_bytes()
        super().data_received(data)


async def _close(made: connection.Connection, writer: asyncio.StreamWriter | None) -> None:
    if writer is None:
        made.socket.close()
        return
    made.hang_up()
    with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
        await writer.wait_closed()
