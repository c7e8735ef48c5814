"""Runs an existing ASGI or WSGI application under the hand-over protocol, on uvicorn's protocols, without a change.

Our gate accepts, uvicorn parses: its protocol classes attend each accepted connection. uvicorn (0.36 or later) comes
from the application's own environment, and so does a2wsgi where there is one; nothing else is needed.

Rules kept here: the lifespan's startup is the preparation, its shutdown follows the last connection and the last
background task; an application that fails to start fails the preparation; the probe listener serves the application's
own paths, without TLS. Left out: reload, HTTP/2.
"""

import asyncio
import functools
import importlib
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from email import utils
from pathlib import Path
from typing import Any, Protocol, cast

from instar_handover import asgi_application, connection, service

HANDSHAKE_SECONDS = 10.0  # a client that connects and never speaks TLS may hold a drain up for so long
DATE_SECONDS = 1.0  # the resolution of HTTP's Date header


class ApplicationError(Exception):
    """The application cannot be loaded, or did not start."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Args:
        application: "MODULE:ATTRIBUTE".
        is_wsgi: It is a WSGI application.
        http: Parser: "auto", "h11" or "httptools".
        certfile: Certificate chain in PEM; empty without TLS.
        keyfile: Its private key; empty where the chain's file holds it.
        has_access_log: Whether each request is logged.
    """

    application: str
    is_wsgi: bool
    http: str
    certfile: str
    keyfile: str
    has_access_log: bool


class Lifespan(Protocol):
    """uvicorn's end of the ASGI lifespan."""

    should_exit: bool
    state: dict[str, Any]

    async def startup(self) -> None:
        """Tell the application to start."""

    async def shutdown(self) -> None:
        """Tell it that it is over."""


class Http(service.Front):
    """HTTP/1.1 and WebSockets for one application.

    Args:
        config: A `uvicorn.Config`.
    """

    def __init__(self, config: Any, server_state: Any) -> None:  # noqa: ANN401  # uvicorn's, which is not ours to import
        super().__init__()
        self._config = config
        self._state = server_state
        self._counted: asgi_application.Counted | None = None
        self._lifespan: Lifespan | None = None
        self._protocol: Callable[..., Any] = _nothing_loaded
        self._goodbye: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the application still runs for somebody: a background task, or a client that left."""
        return self._counted is not None and self._counted.running_count > 0

    async def prepare(self) -> None:
        """Load the application and start its lifespan.

        Raises:
            ApplicationError: It said that it cannot start.
        """
        self._config.load()
        self._counted = asgi_application.Counted(self._config.loaded_app)
        self._config.loaded_app = self._counted
        self._protocol = type("Attending", (_Attending, self._config.http_protocol_class), {})
        if self._config.ws_protocol_class is not None:
            self._config.ws_protocol_class = type("AttendingWebSocket", (_Noting, self._config.ws_protocol_class), {})
        lifespan: Lifespan = self._config.lifespan_class(self._config)
        await lifespan.startup()
        if lifespan.should_exit:
            raise ApplicationError(f"cannot start {self._config.app}: its lifespan did not start, as its log says")
        self._lifespan = lifespan
        self._tell_date()

    async def attend(self, made: connection.Connection) -> None:
        """Let uvicorn's protocol attend a connection, to its end."""
        loop = asyncio.get_running_loop()
        assert self._lifespan is not None  # noqa: S101  # nothing is accepted before it is prepared
        state = dict(self._lifespan.state)
        protocol = self._protocol(config=self._config, server_state=self._state, app_state=state, _loop=loop)
        protocol.attend(made, state)
        context = None if made.is_probe else self._config.ssl
        seconds = None if context is None else HANDSHAKE_SECONDS
        try:
            await loop.connect_accepted_socket(
                lambda: protocol, made.socket, ssl=context, ssl_handshake_timeout=seconds
            )
        except OSError:  # the client left, or speaks no TLS: nobody's fault
            made.socket.close()
            return
        try:
            await protocol.lost.wait()
        finally:
            made.hang_up()

    def drain(self, tasks: asyncio.TaskGroup, seconds: float, rest_seconds: float) -> None:  # noqa: ARG002  # at once
        """End the WebSockets after so many seconds."""

        def end() -> None:
            if self._counted is not None:
                tasks.create_task(self._counted.end_websockets(), name="end the WebSockets")

        self._goodbye = asyncio.get_running_loop().call_later(seconds, end)

    def resume(self) -> None:
        """Let the WebSockets live on."""
        if self._goodbye is not None:
            self._goodbye.cancel()

    async def finish(self) -> None:
        """Shut the lifespan down."""
        if self._lifespan is not None:
            await self._lifespan.shutdown()

    def _tell_date(self) -> None:
        """Do what uvicorn's own server does once a second."""
        date = [(b"date", utils.formatdate(time.time(), usegmt=True).encode())]  # noqa: TID251  # for people, as HTTP wants it
        self._state.default_headers = date + self._config.encoded_headers
        asyncio.get_running_loop().call_later(DATE_SECONDS, self._tell_date)


class _Noting(asyncio.Protocol):
    """Put before one of uvicorn's protocol classes: notes what arrives, and the end."""

    made: connection.Connection
    lost: asyncio.Event

    def data_received(self, data: bytes) -> None:
        self.made.note_bytes()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


class _Attending(_Noting):
    """Put before uvicorn's HTTP protocol class: the carrier of one connection."""

    ws_protocol_class: Callable[..., Any] | None
    cycle: Any

    def attend(self, made: connection.Connection, state: dict[str, Any]) -> None:
        """Be the carrier of this connection; each of its scopes says so."""
        self.made, self.lost = made, asyncio.Event()
        state[asgi_application.CONNECTION_KEY] = self
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = functools.partial(self._websocket, self.ws_protocol_class, state)

    @property
    def has_more_input(self) -> bool:
        """Whether the rest of a body, or another request, has been announced or has arrived."""
        if self.cycle is not None and self.cycle.more_body:
            return True
        parser = getattr(self, "conn", None)  # h11
        return bool(parser.trailing_data[0]) if parser is not None else bool(getattr(self, "pipeline", ()))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.attach(cast("asyncio.Transport", transport))  # of a stream socket; uvloop's is of a class of its own
        super().connection_made(transport)

    def _websocket(self, make: Callable[..., Any], state: dict[str, Any], **arguments: object) -> Any:  # noqa: ANN401  # one of uvicorn's classes
        protocol = make(**{**arguments, "app_state": state})
        protocol.made, protocol.lost = self.made, self.lost
        return protocol


def run(
    options: Options, app_dir: str, serve: Callable[[Callable[[], service.Front]], Coroutine[Any, Any, None]]
) -> None:
    """Serve an application on the loop that its environment offers.

    Args:
        options: What to run.
        app_dir: Directory where its module is found.
        serve: Given what makes the front, serves until drained.

    Raises:
        ApplicationError: uvicorn is not there.
    """
    sys.path.insert(0, os.fspath(Path(app_dir).resolve()))
    try:
        uvicorn, server = importlib.import_module("uvicorn"), importlib.import_module("uvicorn.server")
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        why = "uvicorn is not installed in the application's environment"
        raise ApplicationError(f"cannot serve {options.application}: {why}") from error
    config = uvicorn.Config(
        functools.partial(_load, options.application) if options.is_wsgi else options.application,
        http=options.http,
        lifespan="off" if options.is_wsgi else "auto",
        factory=options.is_wsgi,
        ssl_certfile=options.certfile or None,
        ssl_keyfile=options.keyfile or None,
        access_log=options.has_access_log,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve(lambda: Http(config, server.ServerState())))


def _load(application: str) -> Any:  # noqa: ANN401  # an ASGI application, whoever wrote its class
    """Load a WSGI application as an ASGI one."""
    wsgi = importlib.import_module("uvicorn.importer").import_from_string(application)

    def terminated(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environment["wsgi.input_terminated"] = True  # else Flask takes a body without a length for none
        answer: Iterable[bytes] = wsgi(environment, start_response)
        return answer

    try:
        return importlib.import_module("a2wsgi").WSGIMiddleware(terminated)
    except ModuleNotFoundError:
        return importlib.import_module("uvicorn.middleware.wsgi").WSGIMiddleware(terminated)


def _nothing_loaded(**_: object) -> Any:  # noqa: ANN401  # never returns
    raise ApplicationError("cannot attend a connection: the application is not loaded")
