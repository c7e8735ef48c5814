"""The HTTP server: begun and ended with the controller, in its loop.

Rules kept here: the address is taken before anything else, and that it cannot be is an error that names it; on a
connection one request is answered, which has to begin in time, so that slow ones cannot fill the room; an end waits for
what is being answered, and not for long. Left out: signals, which are the controller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import h11
import uvicorn
from uvicorn.protocols.http import h11_impl

from controller import clock, engine, tasks
from controller.config import webs
from controller.core import errors
from controller.trust import listening
from controller.web import application, encryption

CONNECTIONS_MAX = 64  # at once, of a megabyte each; more are told to come later
HEADERS_SECONDS = 10.0  # from the connection to the end of the headers
STOP_GRACE_SECONDS = 2  # for requests that are being answered
_BACKLOG = 128


@contextlib.asynccontextmanager
async def serving(
    web: webs.Web, machine: engine.Engine, time: clock.Clock, own: listening.Listening | None = None
) -> AsyncIterator[str]:
    """Answer while the block runs; yields where.

    Args:
        web: How others reach it.
        machine: Which takes what comes.
        time: Which it is.
        own: The certificate that is shown; None without TLS.

    Raises:
        InvalidRequestError: A secret cannot be read.
        RefusedError: Another program has the address.
    """
    application.check(web)
    with contextlib.closing(_bind(web.listen)) as listener:
        config = _configured(web, machine, time)
        guard = tasks.Guard()
        if own is not None:
            config.load()
            shown = own.shown()
            config.ssl = encryption.context(shown)
            guard.start(encryption.keep_fresh(config.ssl, own, shown), "certificate of the web server")
        server = _Server(config)
        guard.start(server.serve(sockets=[listener]), "web server")
        try:
            await server.begun.wait()
            yield f"{web.listen.rpartition(':')[0]}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await server.ended.wait()
            await guard.stop()


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), int(port)))
    except OSError as fault:
        listener.close()
        raise errors.RefusedError(
            f"cannot listen on {address}: another program does, or the address is not this machine's",
            code="address_in_use",
            field="web.listen",
            value=address,
            rule="a free address of this machine",
        ) from fault
    return listener


def _configured(web: webs.Web, machine: engine.Engine, time: clock.Clock) -> uvicorn.Config:
    return uvicorn.Config(
        application.application(web, machine, time),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        headers=[("connection", "close")],
        limit_concurrency=CONNECTIONS_MAX,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=STOP_GRACE_SECONDS,
    )


class _Server(uvicorn.Server):
    """One that says when it has begun and when it has ended, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets=sockets)
        self.begun.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer until it shall end."""
        try:
            await super().serve(sockets=sockets)
        finally:
            self.begun.set()  # who waits for it need not wait any more
            self.ended.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Protocol(h11_impl.H11Protocol):
    """One that does not wait for headers for ever."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the parent has it
        """Begin to wait."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEADERS_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
