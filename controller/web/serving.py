"""The HTTP server: begun and ended with the controller, in its loop.

Rules kept here: the address is taken before anything else, and that it cannot be is an error that names it; on a
connection one request is answered; an end waits for what is being answered, and not for long. Left out: how many
connections there are, and for how long (`connections`), and signals, which are the controller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette import applications

from controller import clock, engine, tasks
from controller.config import webs
from controller.core import errors
from controller.trust import listening
from controller.web import application, bodies, connections, encryption, secrets

HELD_BACK_MAX = 16  # answers to wrong secrets that wait, each in the place of a request; the others are refused at once
STOP_GRACE_SECONDS = 2  # for requests that are being answered
_BACKLOG = 128


@contextlib.asynccontextmanager
async def serving(
    web: webs.Web,
    machine: engine.Engine,
    time: clock.Clock,
    attempts: secrets.Attempts,
    own: listening.Listening | None = None,
) -> AsyncIterator[str]:
    """Answer while the block runs; yields where.

    Args:
        web: How others reach it.
        machine: Which takes what comes.
        time: Which it is.
        attempts: Where wrong secrets are counted; HELD_BACK_MAX may wait at once.
        own: The certificate that is shown; None without TLS.

    Raises:
        InvalidRequestError: A secret cannot be read.
        RefusedError: Another program has the address.
    """
    application.check(web)
    with contextlib.closing(_bind(web.listen)) as listener:
        config = _configured(application.application(web, machine, time, attempts))
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
        listener.settimeout(0)  # the loop waits for it
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


def _configured(answering: applications.Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        answering,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        headers=[("connection", "close")],
        limit_concurrency=connections.ANSWERED_MAX + 1,  # it is the first one that is not answered
        h11_max_incomplete_event_size=bodies.HEADERS_BYTES_MAX,
        timeout_graceful_shutdown=STOP_GRACE_SECONDS,
    )


class _Server(uvicorn.Server):
    """One that says when it has begun and when it has ended, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self._taking = tasks.Guard()
        self._connections: connections.Connections | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer; connections are taken here, since uvicorn would bound neither handshakes nor who waits."""
        await self.lifespan.startup()
        self.servers = []
        self._connections = connections.Connections(self._protocol, self.config.ssl)
        for listener in sockets or ():
            listener.listen(_BACKLOG)
            self._taking.start(self._connections.take(listener), "connections of the web server")
        self.started = True
        self.begun.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more, and wait for what is being answered."""
        await self._taking.stop()
        await super().shutdown(sockets=sockets)
        if self._connections is not None:
            await self._connections.close()

    def _protocol(self) -> connections.Protocol:
        return connections.Protocol(self.config, self.server_state)

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
