"""What stands before the demo's replicas: it passes connections on to the one that says it is healthy.

Rules kept: who is asked is asked by `grpc.health.v1`, as any balancer would; connections to who no longer answers are
cut, so that agents and callers come back. Left out: everything that a balancer of several machines needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no stubs

from controller import tasks

HOST = "127.0.0.1"
HEALTH_SECONDS = 2.0  # that an answer may take; who stands still gives none
LOOK_SECONDS = 0.2  # between two looks
_BYTES = 65_536


class Balancer:
    """One address for several replicas of which one serves.

    Args:
        port: Where it listens.
        backends: Ports of the replicas.
        dial: Makes a channel to one of them; None while nothing is there to be shown to it.
    """

    def __init__(self, port: int, backends: Sequence[int], dial: Callable[[int], aio.Channel | None]) -> None:
        self._port = port
        self._backends = backends
        self._dial = dial
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._looking = tasks.Guard()
        self.healthy: int | None = None

    async def start(self) -> None:
        """Begin to listen and to look."""
        self._server = await asyncio.start_server(self._serve, HOST, self._port)
        self._looking.start(self._look(), "look who serves")

    async def stop(self) -> None:
        """Cut all connections, and listen no more."""
        await self._looking.stop()
        self.healthy = None
        self._cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _look(self) -> None:
        while True:
            if self.healthy is None or not await self._is_healthy(self.healthy):
                self._cut()
                self.healthy = None
                for each in self._backends:
                    if await self._is_healthy(each):
                        self.healthy = each
                        break
            await asyncio.sleep(LOOK_SECONDS)

    def _cut(self) -> None:
        for each in self._open:
            each.transport.abort()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with self._kept(to_client), contextlib.suppress(OSError):
            if self.healthy is None:
                return
            backend, to_backend = await asyncio.open_connection(HOST, self.healthy)
            with self._kept(to_backend):
                await asyncio.gather(_pass_on(client, to_backend), _pass_on(backend, to_client))

    @contextlib.contextmanager
    def _kept(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _is_healthy(self, port: int) -> bool:
        channel = self._dial(port)
        if channel is None:
            return False
        async with channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _pass_on(source: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends, and end the other side too."""
    with contextlib.suppress(OSError):
        while said := await source.read(_BYTES):
            other.write(said)
            await other.drain()
    other.close()
