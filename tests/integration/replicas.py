"""Several controllers on one database, and what stands before them: a balancer that asks for their health."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no stubs

from controller.cli.demo import fleet, process
from controller.config import stores
from tests import postgresql
from tests.integration import stage

LEASE_SECONDS = 8  # longer than a busy machine keeps a controller from writing
HEALTH_SECONDS = 2.0  # that an answer may take; who stands still gives none
LOOK_SECONDS = 0.2
_BYTES = 65_536


class Balancer:
    """Passes connections on to the replica that is healthy, and ends those of who is no longer.

    Args:
        port: Where it listens.
        backends: Ports of the replicas.
    """

    def __init__(self, port: int, backends: list[int]) -> None:
        self._port = port
        self._backends = backends
        self._streams: set[asyncio.StreamWriter] = set()
        self.healthy: int | None = None
        self._tasks: list[asyncio.Future[None]] = []

    async def start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._tasks = [asyncio.ensure_future(server.serve_forever()), asyncio.ensure_future(self._look())]

    async def stop(self) -> None:
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._cut()

    async def _look(self) -> None:
        while True:
            if self.healthy is None or not await _is_healthy(self.healthy):
                self._cut()
                found = [each for each in self._backends if await _is_healthy(each)]
                self.healthy = found[0] if found else None
            await asyncio.sleep(LOOK_SECONDS)

    def _cut(self) -> None:
        for each in self._streams:
            each.transport.abort()
        self._streams.clear()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self.healthy is None:
            to_client.transport.abort()
            return
        self._streams.add(to_client)
        with contextlib.suppress(OSError):
            backend, to_backend = await asyncio.open_connection("127.0.0.1", self.healthy)
            self._streams.add(to_backend)
            await asyncio.gather(_pass_on(client, to_backend), _pass_on(backend, to_client))


async def _pass_on(source: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while said := await source.read(_BYTES):
            other.write(said)
            await other.drain()
    other.close()


async def _is_healthy(port: int) -> bool:
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Replicas(fleet.Controller):
    """Two controllers behind a balancer, as one.

    Args:
        folder: Where the state that they share and their logs lie.
        where: Their database.
    """

    def __init__(self, folder: Path, where: stores.PostgreSQL) -> None:
        super().__init__(folder, None, stage.HEARTBEAT_PERIOD, store_url=where.url)
        self._ports = fleet.free_ports(2)
        self._replicas: dict[int, process.Process] = {}
        self._balancer = Balancer(self._port, self._ports)
        self._where = where
        (folder / "controller.toml").write_text(f'[store]\nlease = "{LEASE_SECONDS}s"\n')

    @property
    def running(self) -> process.Process:
        return self.leader

    @property
    def leader(self) -> process.Process:
        """Who leads, by what the database says."""
        [(owner,)] = postgresql.execute(self._where, "SELECT owner FROM leadership")
        pid = int(owner.rpartition(":")[2] or 0)
        found = [each for each in self._replicas.values() if each.pid == pid]
        return found[0] if found else next(iter(self._replicas.values()))

    def term(self) -> int:
        [(term,)] = postgresql.execute(self._where, "SELECT term FROM leadership")
        return int(term)

    async def start(self) -> None:
        await self.instar("trust", "init", str(self._trust))
        await self._balancer.start()
        for port in self._ports:
            await self.start_replica(port)
        await self.until_answered()

    async def start_replica(self, port: int) -> None:
        argv = [process.script("instar"), "controller", "serve", "--config", str(self._folder / "controller.toml")]
        environment: Mapping[str, str] = {**self._environment(), "INSTAR_LISTEN": f"127.0.0.1:{port}"}
        name = f"controller-{port}"
        self._replicas[port] = await process.start(
            name, argv, log=self._folder / f"{name}.log", environment=environment
        )

    async def start_missing(self) -> None:
        """Start again who has ended."""
        for port, each in list(self._replicas.items()):
            if not each.is_running:
                await self.start_replica(port)

    async def until_answered(self) -> None:
        await process.until("a replica answers", self._answers, seconds=fleet.READY_SECONDS)

    async def until_led_after(self, term: int) -> None:
        """Wait until somebody else leads than in a term."""

        async def is_led() -> bool:
            return self.term() > term

        await process.until("another replica leads", is_led, seconds=fleet.READY_SECONDS)

    async def stop(self) -> None:
        for each in self._replicas.values():
            each.send(signal.SIGCONT)
            await each.stop()
        await self._balancer.stop()

    def said(self, replica: process.Process) -> str:
        """What a replica has logged."""
        port = next(port for port, each in self._replicas.items() if each is replica)
        return (self._folder / f"controller-{port}.log").read_text()
