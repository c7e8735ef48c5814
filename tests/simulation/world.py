"""One run: a controller, a fleet, a story of upgrades, and faults drawn from the seed.

The story installs a first version everywhere and then asks for one upgrade after another; some versions are bad, and
now and then somebody reverts. Faults come until the story is told; then the network is whole, everybody is up, and
every rollout has to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from controller import engine as engines
from controller.core import errors, model
from controller.engine import agents
from controller.rpc import principals, sessions
from controller.store import database, executor, rows
from tests.agent import bundles
from tests.simulation import checkers, host, keeper, network
from tests.simulation import loop as loops

STORY_SECONDS = 600.0  # that faults go on at least
LIVENESS_SECONDS = 3600.0  # within which every rollout ends once faults have stopped
FAULT_GAP_SECONDS = 10.0  # between two faults, on average
AIMED_SHARE = 0.7  # of the faults of hosts, at those that are in the middle of something
CUT_SECONDS = (5.0, 90.0)  # that nodes are cut off
ABSENCE_SECONDS = (1.0, 45.0)  # that no controller is up
CHECK_SECONDS = 1.0  # between two looks at all nodes
RETRY_SECONDS = 5.0  # until an operator asks again
BAD_SHARE = 0.4  # of the versions
REVERT_SHARE = 0.15  # of the rollouts, by somebody's order
ACTOR = "operator"
MANIFEST = """name = "web"
version = "{version}"
driver = "handover"
command = ["python", "main.py"]
prepare_timeout = "10s"
drain_timeout = "10s"
[[sockets]]
name = "http"
"""


@dataclass(slots=True)
class Outcome:
    """What one run was.

    Args:
        rollouts: Final state of each rollout, in their order.
    """

    seed: int
    virtual_seconds: float = 0.0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rollouts: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    trace_hash: str = ""


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

    def session_id(self) -> model.SessionId:
        return model.SessionId(self._next("s"))

    def controller_id(self) -> str:
        return self._next("c")


class Store(database.Store):
    """The product's store in memory; each commit is shown to the checkers."""

    def __init__(self, checks: checkers.Checkers) -> None:
        super().__init__(None, executor.InlineExecutor())
        self._checks = checks

    async def commit(self, commit: rows.Commit) -> None:
        await super().commit(commit)
        self._checks.committed(commit)


class Controller:
    """One life after another of the controller on one store."""

    def __init__(self, loop: loops.VirtualLoop, net: network.Network, store: Store) -> None:
        self.engine: engines.Engine | None = None
        self._clock = Clock(loop)
        self._ids = Ids()
        self._network = net
        self._store = store
        self._visits: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        engine = engines.Engine(self._store, self._clock, self._ids)
        await engine.start()
        await engine.collector.start_collection(agents.HEARTBEAT_PERIOD)
        registry = sessions.Sessions()

        def serve(connection: network.Connection) -> None:
            visit = asyncio.get_running_loop().create_task(self._visit(engine, registry, connection))
            self._visits[visit] = None
            visit.add_done_callback(self._visits.pop)

        self.engine = engine
        self._network.serve = serve

    async def crash(self) -> None:
        """Die where every task stands; the store is what is left."""
        engine, self.engine, self._network.serve = self.engine, None, None
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


class World:
    """One run.

    Args:
        nodes: Size of the fleet.
        directory: Where the disks of the hosts are.
    """

    def __init__(self, loop: loops.VirtualLoop, nodes: int, directory: Path) -> None:
        self.loop = loop
        self.faults: Counter[str] = Counter()
        self.network = network.Network(loop, self.faults)
        self.behaviours: dict[str, keeper.Behaviour] = {}
        self.fleet = {f"n{number:03}": self._host(f"n{number:03}", directory) for number in range(nodes)}
        self.checks = checkers.Checkers(loop, self.fleet)
        self.network.arrived = self.checks.node
        self.controller = Controller(loop, self.network, Store(self.checks))
        self.rollouts: list[model.RolloutId] = []

    def _host(self, node_id: str, directory: Path) -> host.Host:
        state_dir = directory / node_id
        state_dir.mkdir()
        late_seconds = self.loop.random.uniform(6.0, 30.0)
        machine = keeper.Host(self.loop, self.behaviours, late_seconds)
        return host.Host(self.loop, node_id, state_dir, machine, self.network)

    async def run(self) -> None:
        """Tell the story under faults, then let everything come to rest."""
        await self.controller.start()
        try:
            await self._live()
        finally:
            await self.controller.crash()

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as group:
            lives = [group.create_task(each.run(), name=f"host {node_id}") for node_id, each in self.fleet.items()]
            watch = group.create_task(self._watch(), name="checkers")
            storm = group.create_task(self._storm(), name="storm")
            await self._tell()
            storm.cancel()
            await self._calm()
            await self._rest()
            for task in (*lives, watch):
                task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for node_id in self.fleet:
                self.checks.node(node_id)

    # The story.

    async def _tell(self) -> None:
        await self._publish("1.0.0", keeper.Behaviour.GOOD)
        await self._until_connected()
        await self._upgrade("1.0.0", install=True)
        for minor in range(1, 100):
            if self.loop.time() > STORY_SECONDS:
                return
            version = f"1.{minor}.0"
            await self._publish(version, self._behaviour())
            await self._upgrade(version, install=False)

    def _behaviour(self) -> keeper.Behaviour:
        draw = self.loop.random
        if draw.random() >= BAD_SHARE:
            return keeper.Behaviour.GOOD
        behaviour = draw.choice([each for each in keeper.Behaviour if each is not keeper.Behaviour.GOOD])
        self.faults[behaviour.value] += 1
        return behaviour

    async def _publish(self, version: str, behaviour: keeper.Behaviour) -> None:
        files = {"instar.toml": MANIFEST.format(version=version).encode(), "main.py": b"x" * 20_000}
        data = bundles.bundle(files)
        digest = bundles.digest_of(data)
        self.network.blobs[digest] = data
        self.behaviours[digest] = behaviour
        release = model.Release(
            component=model.ComponentName("web"),
            version=version,
            digest=model.Digest(digest),
            size_bytes=len(data),
            driver="handover",
            manifest_json="{}",
            published_at=host.EPOCH,
            publisher=ACTOR,
        )
        while True:
            with contextlib.suppress(errors.InstarError):
                await (await self._engine()).publish(release)
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _until_connected(self) -> None:
        while len((await self._engine()).nodes()) < len(self.fleet):  # noqa: ASYNC110 people poll
            await asyncio.sleep(RETRY_SECONDS)

    async def _engine(self) -> engines.Engine:
        """The engine, once one is up."""
        while (engine := self.controller.engine) is None:  # noqa: ASYNC110 people poll
            await asyncio.sleep(RETRY_SECONDS)
        return engine

    async def _upgrade(self, version: str, *, install: bool) -> None:
        """Ask until it is taken, then see it end; what is refused for the state of things is left out."""
        request = self._request(version, install=install)
        for tries in range(20):
            engine = await self._engine()
            try:
                begun = await engine.start_upgrade(request, request_id=f"{version}-{tries}", actor=ACTOR)
            except errors.InstarError as error:
                self.loop.record(f"refused {error.code}")
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.rollouts.append(begun.id)
                await self._see_end(begun.id, is_reverted=not install and self.loop.random.random() < REVERT_SHARE)
                return

    def _request(self, version: str, *, install: bool) -> model.UpgradeRequest:
        draw = self.loop.random
        policy = replace(
            model.Policy(),
            max_parallel=draw.choice([0, 3]),
            max_failures=draw.choice([0, 0, 1]),
            unknown_deadline=timedelta(seconds=120),
        )
        strategy = model.Strategy.IMMEDIATE if install else draw.choice(list(model.Strategy))
        canary = model.CanaryParameters(nodes=draw.randint(1, 2)) if strategy is model.Strategy.CANARY else None
        return model.UpgradeRequest(
            component=model.ComponentName("web"),
            target_version=version,
            strategy=strategy,
            parameters=canary,
            policy=policy,
            install=install,
            name=f"web-{version}",
        )

    async def _see_end(self, rollout_id: model.RolloutId, *, is_reverted: bool) -> None:
        until_seconds = self.loop.time() + LIVENESS_SECONDS
        while self.loop.time() < until_seconds:
            await asyncio.sleep(RETRY_SECONDS)
            engine = await self._engine()
            if is_reverted and self.loop.random.random() < REVERT_SHARE:
                with contextlib.suppress(errors.InstarError):
                    await engine.revert(rollout_id, reason="wanted back", actor=ACTOR)
                    is_reverted = False
            if engine.rollout(rollout_id).state.is_terminal:
                return

    # The faults.

    async def _storm(self) -> None:
        faults = (self._cut_off, self._crash_agent, self._crash_agent, self._cut_power, self._crash_controller)
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self.loop.random.expovariate(1 / FAULT_GAP_SECONDS))
                fault = self.loop.random.choice(faults)
                group.create_task(fault(), name=fault.__name__)

    def _some_host(self) -> host.Host:
        """Draw a host; where one works on an operation, mostly one of those."""
        busy = [node_id for node_id, each in self.fleet.items() if each.agent and each.agent._operations.unfinished]
        is_aimed = bool(busy) and self.loop.random.random() < AIMED_SHARE
        return self.fleet[self.loop.random.choice(busy if is_aimed else sorted(self.fleet))]

    async def _cut_off(self) -> None:
        self.faults["nodes cut off"] += 1
        nodes = set(self.loop.random.sample(sorted(self.fleet), max(1, len(self.fleet) // 10)))
        self.network.cut |= nodes
        await asyncio.sleep(self.loop.random.uniform(*CUT_SECONDS))
        self.network.cut -= nodes

    async def _crash_agent(self) -> None:
        self.faults["agent killed"] += 1
        self._some_host().crash_agent()

    async def _cut_power(self) -> None:
        self.faults["power cut"] += 1
        self._some_host().cut_power()

    async def _crash_controller(self) -> None:
        if self.controller.engine is None:
            return
        self.faults["controller killed"] += 1
        await self.controller.crash()
        await asyncio.sleep(self.loop.random.uniform(*ABSENCE_SECONDS))
        await self.controller.start()

    async def _calm(self) -> None:
        """Faults have stopped: the network is whole and a controller is up."""
        self.network.is_faulty = False
        self.network.cut.clear()
        if self.controller.engine is None:
            await self.controller.start()

    async def _rest(self) -> None:
        until_seconds = self.loop.time() + LIVENESS_SECONDS
        engine = await self._engine()
        for rollout_id in self.rollouts:
            while not engine.rollout(rollout_id).state.is_terminal and self.loop.time() < until_seconds:  # noqa: ASYNC110 people poll
                await asyncio.sleep(RETRY_SECONDS)
            state = engine.rollout(rollout_id).state
            self.loop.record(f"{rollout_id} {state.value}")
            if not state.is_terminal:
                self.checks.violations.append(f"every rollout ends once faults stop: {rollout_id} is {state.value}")


def run(seed: int, nodes: int) -> Outcome:
    """Run one seed to its end."""
    outcome = Outcome(seed)
    loop = loops.VirtualLoop(seed)
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="instar-simulation-", dir=_memory()) as directory:
            world = World(loop, nodes, Path(directory))
            try:
                loop.run_until_complete(world.run())
            except Exception as error:  # noqa: BLE001 whatever it is, this seed has found it
                outcome.violations.append(f"nothing raises: {error!r} at {loop.time():.3f} s")
            outcome.violations += world.checks.violations
            outcome.events, outcome.faults = world.checks.events, world.faults
            outcome.rollouts = [str(rollout_id) for rollout_id in world.rollouts]
    finally:
        logging.disable(logging.NOTSET)
        loop.close()
    outcome.virtual_seconds, outcome.trace_hash = loop.time(), loop.trace_hash
    return outcome


def _memory() -> Path | None:
    """A file system in memory where there is one: the disks of a run are gone with it anyway."""
    return path if (path := Path("/dev/shm")).is_dir() else None  # noqa: S108 a directory of its own is made in it
