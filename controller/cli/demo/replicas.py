"""Several controllers on one database, behind one address: one leads, the others stand by.

Rules kept: they share a database and a state directory, as replicas on several machines would; who is killed is started
again, as a service manager would. Left out: what a single controller is (`fleet`).
"""

from __future__ import annotations

import signal
from pathlib import Path

from grpc import aio

from controller.cli import connection
from controller.cli.demo import balancer, fleet, ports, process
from controller.core import secret

LEASE_SECONDS = 8  # before another leads; longer than a busy machine keeps a controller from writing


class Replicas(fleet.Controller):
    """Controllers that are one to whoever calls them.

    Args:
        folder: Where the state that they share and their logs lie.
        otlp_port: Port of the loopback where they send their spans; None for nowhere.
        heartbeat_period: Time between two heartbeats of an agent, such as "1s".
        number: How many there are.
        has_tls: They have throw-away authorities, and everybody shows a certificate; else bearer tokens.
        store_url: Their database.
    """

    def __init__(
        self,
        folder: Path,
        otlp_port: int | None,
        heartbeat_period: str,
        *,
        number: int,
        store_url: secret.Secret[str],
        has_tls: bool = False,
    ) -> None:
        super().__init__(folder, otlp_port, heartbeat_period, has_tls=has_tls, store_url=store_url)
        self._ports = ports.free(number)
        self._by_port: dict[int, process.Process] = {}
        self._balancer = balancer.Balancer(self._port, self._ports, self._dial)

    @property
    def running(self) -> process.Process:
        """Who leads."""
        leader = self._balancer.healthy
        if leader is None or leader not in self._by_port:
            raise process.ProcessError("cannot use the controllers: none of them leads")
        return self._by_port[leader]

    async def start(self) -> None:
        """Start all of them; return when one answers."""
        await self._make_trust()
        await self._balancer.start()
        for port in self._ports:
            await self.start_replica(port)
        await self.until_answered()

    async def stop(self) -> None:
        """Stop those that run, also who stands still."""
        for each in self._by_port.values():
            each.send(signal.SIGCONT)
            await each.stop()
        await self._balancer.stop()

    async def start_replica(self, port: int) -> None:
        """Start one, or start it again."""
        log = self.log_of(port)
        self._by_port[port] = await process.start(
            log.stem,
            self._argv(),
            log=log,
            environment={**self._environment(), "INSTAR_LISTEN": f"{ports.HOST}:{port}"},
        )

    async def start_missing(self) -> None:
        """Start again who has ended."""
        for port, each in list(self._by_port.items()):
            if not each.is_running:
                await self.start_replica(port)

    async def kill(self) -> None:
        """Kill who leads, and return when another does; who was killed is started again, and stands by."""
        killed = self.running
        await killed.kill()

        async def is_led_by_another() -> bool:
            return self._balancer.healthy is not None and self.running.pid != killed.pid

        await process.until("another controller leads", is_led_by_another, seconds=fleet.READY_SECONDS)
        await self.start_missing()
        await self.until_answered()

    async def until_answered(self) -> None:
        """Wait until one of them answers."""
        await process.until("a controller answers", self._answers, seconds=fleet.READY_SECONDS)

    def log_of(self, port: int) -> Path:
        """What one of them writes."""
        return self._folder / f"controller-{port}.log"

    def _settings(self) -> str:
        return f'{super()._settings()}\n[store]\nlease = "{LEASE_SECONDS}s"\n'

    async def _answers(self) -> bool:
        return self._balancer.healthy is not None and await super()._answers()

    def _dial(self, port: int) -> aio.Channel | None:
        if not self._has_credentials:  # the first that leads makes them
            return None
        return connection.dial(f"{ports.HOST}:{port}", self._credentials())
