"""One life after another of the real controller on one store in memory, and sometimes one beside another.

Rules kept: a transaction takes time before it is durable and after, so that a controller may die on either side of it;
one life leads, and what an earlier one writes is refused, as `controller.store.leading` has it; whoever hears of that
ends. Each life is a process of its own (`loop`), which can be stopped at any of its steps, and dies where it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import TypeVar

import sqlalchemy as sa

from controller import engine as engines
from controller import tasks
from controller.core import errors, model
from controller.engine import agents
from controller.rpc import principals, sessions
from controller.store import chaining, database, executor, leading, rows, sqlite
from tests.simulation import checkers, host, network
from tests.simulation import loop as loops

WRITE_SECONDS = (0.0, 0.02)  # until a transaction is durable, and again until the engine knows of it
START_AGAIN_SECONDS = 2.0  # after a start that failed
Result = TypeVar("Result")


class Clock:
    """The controller's clocks: the loop's, of which the one on the wall may be set."""

    def __init__(self, loop: loops.VirtualLoop) -> None:
        self.offset = timedelta()
        self.set_at_seconds = 0.0
        self._loop = loop

    def step(self, seconds: float) -> None:
        """Set the clock on the wall by some seconds."""
        self.offset += timedelta(seconds=seconds)
        self.set_at_seconds = self._loop.time()

    def now(self) -> datetime:
        return host.EPOCH + timedelta(seconds=self._loop.time()) + self.offset

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


@unique
class Doom(Enum):
    """Where a controller dies at its next transaction."""

    BEFORE_COMMIT = "controller killed before a commit"
    AFTER_COMMIT = "controller killed between commit and send"


class Disk:
    """What survives a controller: the database, who leads, and what is wrong with it.

    Args:
        is_full: Nothing can be written.
        is_in_doubt: The next transaction is written, and its writer is told that it is not.
        doom: Where the next transaction kills its writer; None for nowhere.
        term: Number of the life that leads.
    """

    def __init__(self, faults: Counter[str]) -> None:
        self.database = sqlite.File(None)
        self.faults = faults
        self.is_full = False
        self.is_in_doubt = False
        self.doom: Doom | None = None
        self.term = 0

    def heal(self) -> None:
        """Let everything be written again."""
        self.is_full = self.is_in_doubt = False
        self.doom = None


class Led:
    """The database as one life has it: what it writes counts while it leads."""

    lease: timedelta | None = None  # its time is the loop's, and passes in `storm`

    def __init__(self, disk: Disk) -> None:
        disk.term += 1
        self._disk = disk
        self._term = disk.term

    def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        if self._disk.term != self._term:
            self._disk.faults["stale write refused"] += 1
            raise leading.lost("in memory")
        if self._disk.is_full:
            self._disk.faults["commit refused"] += 1
            raise _failed("database or disk is full")
        return self._disk.database.write(work)

    def read(self, query: Callable[[sa.Connection], Result]) -> Result:
        return self._disk.database.read(query)

    def close(self) -> None:
        """The database outlives whoever writes."""


def _failed(why: str) -> sa.exc.OperationalError:
    return sa.exc.OperationalError("COMMIT", None, sqlite3.OperationalError(why))


class Store(database.Store):
    """The product's store as one life has it; each commit is shown to the checkers as soon as it is durable.

    Args:
        die: Lets the life die where it stands.
    """

    def __init__(
        self, loop: loops.VirtualLoop, checks: checkers.Checkers, disk: Disk, die: Callable[[Doom], None]
    ) -> None:
        # Not the one before's: that would open a database of its own.
        self._transactions = executor.InlineExecutor()
        self._log = chaining.Chaining()
        self._database = Led(disk)
        self._loop = loop
        self._checks = checks
        self._disk = disk
        self._die = die

    async def commit(self, commit: rows.Commit) -> None:
        await asyncio.sleep(self._loop.random.uniform(*WRITE_SECONDS))
        await self._meet(Doom.BEFORE_COMMIT)
        await super().commit(commit)
        self._checks.committed(commit)
        await self._meet(Doom.AFTER_COMMIT)
        if self._disk.is_in_doubt:
            self._disk.is_in_doubt = False
            raise _failed("disk I/O error")
        await asyncio.sleep(self._loop.random.uniform(*WRITE_SECONDS))

    async def _meet(self, doom: Doom) -> None:
        if self._disk.doom is doom:
            self._disk.doom = None
            self._die(doom)
            await asyncio.Event().wait()


class Life:
    """One life of the controller."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_up = False
        self.engine: engines.Engine | None = None
        self.begin: asyncio.Task[None] | None = None
        self.visits: dict[asyncio.Task[None], network.Connection] = {}
        self.context = contextvars.copy_context()
        self.context.run(loops.process.set, name)


class Controller:
    """One life after another of the controller on one disk.

    Args:
        killed: Called when a life has died at a transaction.
    """

    def __init__(
        self, loop: loops.VirtualLoop, net: network.Network, checks: checkers.Checkers, faults: Counter[str]
    ) -> None:
        self.clock = Clock(loop)
        self.disk = Disk(faults)
        self.started_at_seconds = 0.0
        self.killed: Callable[[Life], None] = lambda _life: None
        self.life: Life | None = None
        self._lives: dict[str, Life] = {}
        self._loop = loop
        self._ids = Ids()
        self._network = net
        self._checks = checks
        self._faults = faults
        self._count = 0

    @property
    def engine(self) -> engines.Engine | None:
        """The engine of whoever leads; None while nobody is up."""
        return self.life.engine if self.life is not None and self.life.is_up else None

    @property
    def is_awake(self) -> bool:
        """Tell whether one leads and does not stand still."""
        return self.engine is not None and self.life is not None and not self._loop.is_still(self.life.name)

    async def calm(self) -> None:
        """See that one leads, awake and not about to die, and that no other life is left."""
        self.disk.heal()
        if self.life is not None and self.is_awake and len(self._lives) == 1:
            self._loop.go_on(self.life.name)
        else:
            await self.crash()
            await self.start()

    async def start(self) -> None:
        """Begin a life that leads, beside whatever stands still; return once it serves, or was killed before."""
        while True:
            self._count += 1
            life = self.life = Life(f"controller {self._count}")
            self._lives[life.name] = life
            self._network.serve = None
            begin = asyncio.get_running_loop().create_task(self._begin(life), name=life.name, context=life.context)
            life.begin = begin
            await asyncio.wait({begin})
            if begin.cancelled() or (error := begin.exception()) is None:
                return
            if not isinstance(error, (errors.InstarError, sa.exc.OperationalError)):
                raise error
            await self.bury(life)
            await asyncio.sleep(START_AGAIN_SECONDS)

    async def _begin(self, life: Life) -> None:
        store = Store(self._loop, self._checks, self.disk, lambda doom: self._die(life, doom))
        engine = life.engine = engines.Engine(store, self.clock, self._ids)
        await engine.start()
        await engine.collector.start_collection(agents.HEARTBEAT_PERIOD)
        await engine.start_triggers()
        registry = sessions.Sessions()

        def serve(connection: network.Connection) -> None:
            work = self._visit(engine, registry, connection)
            visit = asyncio.get_running_loop().create_task(work, name="visit", context=life.context)
            life.visits[visit] = connection
            visit.add_done_callback(lambda _: life.visits.pop(visit, None))

        life.is_up, self.started_at_seconds = True, self._loop.time()
        self._network.serve = serve

    def _die(self, life: Life, doom: Doom) -> None:
        self._faults[doom.value] += 1
        self._loop.stand_still(life.name)
        self.killed(life)

    def dead(self) -> list[str]:
        """Name the background tasks of living controllers that have died of an error."""
        engines_up = [each.engine for each in self._lives.values() if each.engine is not None]
        background = (task for engine in engines_up for guard in _guards(engine) for task in guard._tasks)
        ended = [task for task in background if task.done() and not task.cancelled()]
        return [f"{task.get_name()} of {task.exception()!r}" for task in ended if task.exception() is not None]

    async def crash(self) -> None:
        """Let every life die where it stands; the disk is what is left."""
        for life in list(self._lives.values()):
            await self.bury(life)

    async def bury(self, life: Life) -> None:
        """Let one life die where every task of it stands."""
        if self._lives.pop(life.name, None) is None:
            return
        if self.life is life:
            self.life, self._network.serve = None, None
        guards = () if life.engine is None else _guards(life.engine)
        for task in (*(task for guard in guards for task in guard._tasks), *life.visits):
            task.cancel()
        if life.begin is not None:
            life.begin.cancel()
        for connection in list(life.visits.values()):
            connection.break_off()
        self._loop.go_on(life.name)
        await _end(life, guards)

    async def _visit(self, engine: engines.Engine, registry: sessions.Sessions, connection: network.Connection) -> None:
        caller = principals.Principal(principals.Kind.AGENT, connection.node_id)
        end = network.ControllerEnd(self._network, connection)
        session = sessions.AgentSession(engine, end, caller=caller, registry=registry, clock=self.clock)
        try:
            with contextlib.suppress(errors.InstarError):
                await session.run()
        finally:
            connection.break_off()


async def _end(life: Life, guards: tuple[tasks.Guard, ...]) -> None:
    for guard in guards:
        await guard.stop()
    while life.visits:  # also what a visit does at its end dies where it stands
        for visit in list(life.visits):
            visit.cancel()
        await asyncio.sleep(0)


def _guards(engine: engines.Engine) -> tuple[tasks.Guard, ...]:
    triggering = engine._triggering._guard
    return engine._guard, engine.collector._guard, *(() if triggering is None else (triggering,))
