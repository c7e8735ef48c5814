"""One life after another of the real controller on one store in memory.

Rules kept: a transaction takes time before it is durable and after, so that a controller may die on either side of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

from controller import engine as engines
from controller.core import errors, model
from controller.engine import agents
from controller.rpc import principals, sessions
from controller.store import database, executor, rows
from tests.simulation import checkers, host, network
from tests.simulation import loop as loops

WRITE_SECONDS = (0.0, 0.02)  # until a transaction is durable, and again until the engine knows of it


class Clock:
    """The controller's clock: the loop's."""

    def __init__(self, loop: loops.VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return host.EPOCH + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        return self._loop.time()


class Ids:
    """Identities that count."""

    def __init__(self) -> None:
        self._count = 0

    def _next(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}-{self._count:06}"

    def rollout_id(self, now: datetime) -> model.RolloutId:
        return model.RolloutId(self._next(f"r-{(now - host.EPOCH).total_seconds():09.3f}"))

    def freeze_id(self, now: datetime) -> model.FreezeId:
        return model.FreezeId(self._next(f"f-{(now - host.EPOCH).total_seconds():09.3f}"))

    def trigger_id(self, now: datetime) -> model.TriggerId:
        return model.TriggerId(self._next(f"t-{(now - host.EPOCH).total_seconds():09.3f}"))

    def session_id(self) -> model.SessionId:
        return model.SessionId(self._next("s"))

    def controller_id(self) -> str:
        return self._next("c")


class Store(database.Store):
    """The product's store in memory; each commit is shown to the checkers as soon as it is durable."""

    def __init__(self, loop: loops.VirtualLoop, checks: checkers.Checkers) -> None:
        super().__init__(None, executor.InlineExecutor())
        self._loop = loop
        self._checks = checks

    async def commit(self, commit: rows.Commit) -> None:
        await asyncio.sleep(self._loop.random.uniform(*WRITE_SECONDS))
        await super().commit(commit)
        self._checks.committed(commit)
        await asyncio.sleep(self._loop.random.uniform(*WRITE_SECONDS))


class Controller:
    """One life after another of the controller on one store."""

    def __init__(self, loop: loops.VirtualLoop, net: network.Network, store: Store) -> None:
        self.engine: engines.Engine | None = None
        self.started_at_seconds = 0.0
        self._loop = loop
        self._clock = Clock(loop)
        self._ids = Ids()
        self._network = net
        self._store = store
        self._starting: engines.Engine | None = None
        self._visits: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        engine = self._starting = engines.Engine(self._store, self._clock, self._ids)
        await engine.start()
        await engine.collector.start_collection(agents.HEARTBEAT_PERIOD)
        registry = sessions.Sessions()

        def serve(connection: network.Connection) -> None:
            visit = asyncio.get_running_loop().create_task(self._visit(engine, registry, connection))
            self._visits[visit] = None
            visit.add_done_callback(self._visits.pop)

        self.engine, self.started_at_seconds = engine, self._loop.time()
        self._network.serve = serve

    async def crash(self) -> None:
        """Die where every task stands; the store is what is left."""
        engine, self.engine, self._starting, self._network.serve = self._starting, None, None, None
        if engine is not None:
            await engine._guard.stop()
            await engine.collector._guard.stop()
        while self._visits:  # also what a visit does at its end dies where it stands
            for visit in list(self._visits):
                visit.cancel()
            await asyncio.sleep(0)
        self._network.break_all()

    async def _visit(self, engine: engines.Engine, registry: sessions.Sessions, connection: network.Connection) -> None:
        caller = principals.Principal(principals.Kind.AGENT, connection.node_id)
        end = network.ControllerEnd(self._network, connection)
        session = sessions.AgentSession(engine, end, caller=caller, registry=registry, clock=self._clock)
        try:
            with contextlib.suppress(errors.InstarError):
                await session.run()
        finally:
            connection.break_off()
