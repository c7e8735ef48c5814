"""Serves a gRPC server under the hand-over protocol.

    def make_server(interceptors):
        server = grpc.aio.server(interceptors=interceptors)
        add_GreeterServicer_to_server(Greeter(), server)
        return server

    asyncio.run(grpc_server.serve(make_server))

grpcio cannot take a listening socket: our gate accepts, and the bytes of each connection are relayed to the server on a
private Unix socket of this process.

Rules kept here: a pause says GOAWAY, so that clients move for their next call, and the server goes on with what it has;
only what has not ended near the drain's deadline is stopped with the server; a server that has been stopped is replaced
by a new one when the drain is turned back; calls of the health service count for nothing. Left out: the clients'
addresses and certificates, for the server sees the relay as its peer.
"""

import asyncio
import contextlib
import importlib
import inspect
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar_handover import connection, instance, relay, service

if TYPE_CHECKING:
    import grpc.aio

HEALTH_SERVICE = "/grpc.health.v1.Health/"

MakeServer = Callable[[Sequence["grpc.aio.ServerInterceptor"]], "grpc.aio.Server"]
Prepare = Callable[[], Awaitable[None]]


async def serve(
    make_server: MakeServer,
    *,
    prepare: Prepare | None = None,
    address: str = "127.0.0.1:8080",
    ssl: ssl.SSLContext | None = None,
    workers: int = 1,
) -> None:
    """Serve until drained; under a keeper on the sockets that it passes, by hand on `address`.

    Args:
        make_server: Makes the server with its services, without a port and not started; it must pass on the
            interceptors that it is given, which count the calls. Called again when a drain is turned back.
        prepare: Awaited before the instance says that it is prepared; what it raises ends the program.
        address: "127.0.0.1:8080", "[::1]:8080" or "unix:/path"; used only without a keeper.
        ssl: Of the server side; None for plain connections. It is made to offer HTTP/2 by ALPN.
        workers: Processes that serve; with more than one the program is started again for each, and comes here again.

    Raises:
        inheritance.InheritanceError: The environment promises sockets that this process cannot take.
        parent.WorkersError: A worker ended before all were prepared, or all have ended.
    """
    if ssl is not None:
        ssl.set_alpn_protocols(["h2"])
    await instance.run(lambda: Calls(make_server, prepare, ssl), address, workers)


class Calls(service.Front):
    """Relayed connections to a gRPC server of this process."""

    def __init__(self, make_server: MakeServer, prepare: Prepare | None, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._make_server = make_server
        self._prepare = prepare
        self._context = context
        self._directory = tempfile.TemporaryDirectory(prefix="instar-grpc-")
        self._count = 0
        self._server: grpc.aio.Server | None = None
        self._is_up = asyncio.Event()
        self._relays: set[relay.Relay] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._stop: asyncio.TimerHandle | None = None
        self._stopping_count = 0

    @property
    def is_busy(self) -> bool:
        """Whether a server has not ended yet."""
        return self._stopping_count > 0

    async def prepare(self) -> None:
        """Do what the component prepares, and start the server."""
        if self._prepare is not None:
            await self._prepare()
        await self._start()

    async def attend(self, made: connection.Connection) -> None:
        """Relay one connection to its end."""
        await self._is_up.wait()
        relayed = relay.Relay(made)
        if made.is_probe:
            await relayed.run(self._path(), None)
            return
        if made.should_close:  # accepted a moment before
            relayed.say_goaway()
        self._relays.add(relayed)
        try:
            await relayed.run(self._path(), self._context)
        finally:
            self._relays.discard(relayed)

    def dismiss(self) -> None:
        """Say GOAWAY to everybody."""
        for each in self._relays:
            each.say_goaway()

    def drain(self, tasks: asyncio.TaskGroup, seconds: float, rest_seconds: float) -> None:
        """Stop the server after so many seconds; half of the rest is a grace for what it has, half for the clients."""
        self._tasks = tasks

        def stop() -> None:
            self._stop = None
            tasks.create_task(self._stop_server(rest_seconds / 2), name="stop the gRPC server")

        self._stop = asyncio.get_running_loop().call_later(seconds, stop)

    def resume(self) -> None:
        """Go on with the server, or with a new one where it has been stopped."""
        if self._stop is not None:
            self._stop.cancel()
            self._stop = None
        elif self._tasks is not None:
            self._is_up.clear()
            self._tasks.create_task(self._start(), name="start a gRPC server again")

    async def finish(self) -> None:
        """Stop what is left and remove the private sockets."""
        if self._server is not None:
            await self._server.stop(None)
        self._directory.cleanup()

    def _path(self) -> Path:
        return Path(self._directory.name, f"{self._count}.sock")

    async def _start(self) -> None:
        aio = importlib.import_module("grpc.aio")
        counting = type("Counting", (_Counting, aio.ServerInterceptor), {})(self.counters)
        server = self._make_server([counting])
        self._count += 1
        server.add_insecure_port(f"unix:{self._path()}")
        await server.start()
        self._server = server
        self._is_up.set()

    async def _stop_server(self, grace_seconds: float) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        self._stopping_count += 1
        try:
            await server.stop(grace_seconds)
        finally:
            self._stopping_count -= 1


class _Counting:
    """Put before grpc's own interceptor class: counts calls."""

    def __init__(self, counters: connection.Counters) -> None:
        self._counters = counters
        self._loop = asyncio.get_running_loop()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:  # noqa: ANN401  # handlers of any message
        """Wrap the method that is called, if it is one that counts."""
        handler = await continuation(details)
        if handler is None or details.method.startswith(HEALTH_SERVICE):
            return handler
        asked = "stream" if handler.request_streaming else "unary"
        answered = "stream" if handler.response_streaming else "unary"
        make = getattr(importlib.import_module("grpc"), f"{asked}_{answered}_rpc_method_handler")
        return make(
            self._counted(getattr(handler, f"{asked}_{answered}")),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method as what it is: grpc looks at it to know how to call it."""

        async def generate(asked: object, context: object) -> AsyncIterator[object]:
            with self._counting():
                async for answer in method(asked, context):
                    yield answer

        async def answer(asked: object, context: object) -> object:
            with self._counting():
                return await method(asked, context)

        def generate_in_thread(asked: object, context: object) -> Iterator[object]:
            with self._counting_from_thread():
                yield from method(asked, context)

        def answer_in_thread(asked: object, context: object) -> object:
            with self._counting_from_thread():
                return method(asked, context)

        if inspect.isasyncgenfunction(method):
            return generate
        if inspect.iscoroutinefunction(method):
            return answer
        return generate_in_thread if inspect.isgeneratorfunction(method) else answer_in_thread

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        self._begin()
        try:
            yield
        finally:
            self._end()

    @contextlib.contextmanager
    def _counting_from_thread(self) -> Iterator[None]:
        self._loop.call_soon_threadsafe(self._begin)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._end)

    def _begin(self) -> None:
        self._counters.in_flight += 1

    def _end(self) -> None:
        self._counters.in_flight -= 1
        self._counters.served += 1
