"""One run: a controller, a fleet, people who ask for upgrades and meddle with them, and faults, drawn from the seed.

The story installs a first version of everything and then lets teams ask for upgrades side by side, and others order
whatever the engine knows. Faults and orders come until the story is told; then the network is whole, everybody is up
and nobody is held, and every rollout has to end.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation import checkers, host, keeper, life, network, orders, people, shelf, storm, wardens
from tests.simulation import loop as loops

STORY_MINUTES = 30  # that faults go on, where nobody says otherwise
LIVENESS_SECONDS = 3600.0  # within which every rollout ends once faults have stopped
CHECK_SECONDS = 2.0  # between two looks at all nodes
HELP_SECONDS = 5.0  # until people look again at what waits for them
TEAMS_MAX = 3  # that ask side by side
LATE_SECONDS = (6.0, 30.0)  # that an instance lives which dies late


@dataclass(slots=True)
class Outcome:
    """What one run was.

    Args:
        rollouts: Final state of each rollout, in their order.
        orders: Orders by their kind.
        granted: Those that were carried out.
        refusals: Orders that were refused, by the code.
    """

    seed: int
    virtual_seconds: float = 0.0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    orders: Counter[str] = field(default_factory=Counter)
    granted: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    rollouts: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    trace_hash: str = ""


class _FoundError(Exception):
    """Something is violated, and whoever runs the seed wants to know no more."""


class World:
    """One run.

    Args:
        is_hasty: Whether it ends with the first violation.
        nodes: Size of the fleet.
        directory: Where the disks of the hosts are.
        story_seconds: That faults go on.
    """

    def __init__(
        self, loop: loops.VirtualLoop, nodes: int, directory: Path, *, is_hasty: bool, story_seconds: float
    ) -> None:
        self.loop = loop
        self._story_seconds = story_seconds
        self._is_hasty = is_hasty
        self.faults: Counter[str] = Counter()
        self.network = network.Network(loop, self.faults)
        self.shelf = shelf.Shelf(loop, self.network.blobs, {}, self.faults)
        self.fleet = {f"n{number:03}": self._host(number, directory) for number in range(nodes)}
        self.checks = checkers.Checkers(loop, self.fleet)
        self.network.arrived = self.checks.node
        self.controller = life.Controller(loop, self.network, self.checks, self.faults)
        self.checks.clock = self.controller.clock
        self.storm = storm.Storm(loop, self.fleet, self.network, self.controller, self.faults)
        self.orders = orders.Orders(loop, self.controller, self.checks, self.storm.strike)
        self.people = people.People(loop, self.orders, self.shelf)
        self.wardens = wardens.Wardens(loop, self.fleet, self.orders, self.controller.clock)
        self.states: list[str] = []

    def _host(self, number: int, directory: Path) -> host.Host:
        node_id, zone = f"n{number:03}", host.ZONES[number % len(host.ZONES)]
        state_dir = directory / node_id
        state_dir.mkdir()
        machine = keeper.Host(self.loop, self.shelf.behaviours, self.loop.random.uniform(*LATE_SECONDS))
        return host.Host(self.loop, node_id, zone, state_dir, machine, self.network)

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
            await self._tell(group)
            await self._rest()
            for task in (*lives, watch):
                task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for node_id in self.fleet:
                self.checks.node(node_id)
            self.checks.time_goes_on(self.controller.started_at_seconds if self.controller.is_awake else None)
            self.checks.nobody_dies(self.controller.dead())
            if self._is_hasty and self.checks.violations:
                raise _FoundError

    async def _tell(self, group: asyncio.TaskGroup) -> None:
        stormy = group.create_task(self.storm.run(), name="storm")
        await self.people.found(len(self.fleet))
        teams = self.loop.random.randint(1, TEAMS_MAX)
        acts: list[Coroutine[None, None, None]] = [self.people.work() for _ in range(teams)]
        acts += [self.people.meddle(), self.wardens.watch(), self.wardens.call_emergency()]
        tasks = [group.create_task(each, name="people") for each in acts]
        await asyncio.sleep(self._story_seconds - self.loop.time())
        for task in (stormy, *tasks):
            task.cancel()
        await asyncio.wait((stormy, *tasks))
        self.orders.is_troubled = False
        await self.storm.calm()

    async def _rest(self) -> None:
        """Let nothing stand in the way any more, and see every rollout end."""
        until_seconds = self.loop.time() + LIVENESS_SECONDS
        await self.wardens.let_in()
        while not await self.people.help_on() and self.loop.time() < until_seconds:  # noqa: ASYNC110 people poll
            await asyncio.sleep(HELP_SECONDS)
        engine = await self.orders.engine()
        for rollout_id in self.people.rollouts:
            state = engine.rollout(rollout_id).state  # as whoever asks is told
            self.states.append(state.value)
            self.loop.record(f"{rollout_id} {state.value}")
            if not state.is_terminal:
                self.checks.violations.append(f"every rollout ends once faults stop: {rollout_id} is {state.value}")


def run(seed: int, nodes: int, *, is_hasty: bool = False, story_minutes: float = STORY_MINUTES) -> Outcome:
    """Run one seed to its end, or to the first violation where there is haste."""
    outcome = Outcome(seed)
    loop = loops.VirtualLoop(seed)
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="instar-simulation-", dir=_memory()) as directory:
            world = World(loop, nodes, Path(directory), is_hasty=is_hasty, story_seconds=60 * story_minutes)
            try:
                loop.run_until_complete(world.run())
            except* _FoundError:
                pass
            except* Exception as error:  # noqa: BLE001 whatever it is, this seed has found it
                outcome.violations.append(f"nothing raises: {error!r} at {loop.time():.3f} s")
            _sum_up(outcome, world)
    finally:
        logging.disable(logging.NOTSET)
        loop.close()
    outcome.virtual_seconds, outcome.trace_hash = loop.time(), loop.trace_hash
    return outcome


def _sum_up(outcome: Outcome, world: World) -> None:
    outcome.violations += world.checks.violations
    outcome.events, outcome.faults, outcome.rollouts = world.checks.events, world.faults, world.states
    outcome.orders, outcome.granted, outcome.refusals = world.orders.given, world.orders.granted, world.orders.refused


def _memory() -> Path | None:
    """A file system in memory where there is one: the disks of a run are gone with it anyway."""
    return path if (path := Path("/dev/shm")).is_dir() else None  # noqa: S108 a directory of its own is made in it
