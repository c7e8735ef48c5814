"""One host of the simulated fleet: the real agent, life after life, on a real disk below a directory of the run.

Everything of the agent is the product's own: link, session, machine, executor, driver, journal, depot. Only the keeper
with its processes (`keeper`) and the network are simulated. Crashing the agent cancels its tasks wherever they stand;
what it had made durable is what the next life finds.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent import depot, journal
from agent.config import layout, settings
from agent.core import events, model
from agent.keeper import digest
from agent.link import loop as links
from agent.runner import node
from tests.simulation import keeper, network
from tests.simulation import loop as loops

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
AGENT_RESTART_SECONDS = (0.2, 5.0)  # until the keeper has started the agent again
BOOT_SECONDS = (5.0, 30.0)  # until a host that lost its power is up again
COMPONENTS = ("web", "cache")  # the first may require the second
ZONES = ("a", "b", "c", "d")  # over which the hosts are spread
ACTOR = "operator"


def seconds(count: float) -> timedelta:
    """Give a duration."""
    return timedelta(seconds=count)


class Metrics:
    """The metrics of a host that is always as busy."""

    def read(self) -> tuple[model.Metric, ...]:
        return (model.Metric("system.cpu.utilization", component="", value=0.25),)


class Host:
    """One host.

    Args:
        zone: Its label.
        state_dir: Its disk.
        machine: Its keeper and processes.
    """

    def __init__(
        self,
        loop: loops.VirtualLoop,
        node_id: str,
        zone: str,
        state_dir: Path,
        machine: keeper.Host,
        net: network.Network,
    ) -> None:
        self.node_id = node_id
        self.zone = zone
        self.machine = machine
        self.disk = depot.Depot(layout.Layout(state_dir, state_dir / "run"))
        self.agent: node.Node | None = None
        self.is_up = True
        self._down_seconds = 0.0
        self._loop = loop
        self._state_dir = state_dir
        self._network = net
        self._life: asyncio.Task[None] | None = None

    def now(self) -> events.Moment:
        """Both clocks of the host."""
        return events.Moment(self._loop.time(), EPOCH + timedelta(seconds=self._loop.time()))

    async def run(self) -> None:
        """Start the agent again and again, as the keeper does, until cancelled."""
        while True:
            async with asyncio.TaskGroup() as lives:
                self._life = lives.create_task(self._live(), name=f"agent of {self.node_id}")
            pause = AGENT_RESTART_SECONDS if self.is_up else BOOT_SECONDS
            await asyncio.sleep(self._down_seconds + self._loop.random.uniform(*pause))
            self.is_up, self._down_seconds = True, 0.0

    def crash_agent(self) -> None:
        """Kill the agent where it stands."""
        if self._life is not None:
            self._life.cancel()

    def cut_power(self, down_seconds: float = 0.0) -> None:
        """Take the power from the whole host, and leave it so for a time before it boots."""
        self.is_up, self._down_seconds = False, max(down_seconds, self._down_seconds)
        self.machine.lose_power()
        self.crash_agent()

    async def _tree_digest(self, directory: Path) -> str:
        """Read a tree here: a child of the simulator would not live in its time."""
        return digest.tree_digest(directory)

    async def _live(self) -> None:
        line = keeper.Keeper(self.machine, self._state_dir)
        link = links.Link(
            network.Way(self._network, self.node_id),
            node_id=self.node_id,
            now=lambda: self.now().wall,
            draw=self._loop.random.random,
        )
        config = settings.Config(
            self.node_id,
            self._state_dir,
            self._state_dir / "run",
            "",
            None,
            labels={"zone": self.zone},
            sockets={name: {"http": f"unix:/{name}"} for name in COMPONENTS},
        )
        try:
            with closing(journal.Journal.open(self._state_dir)) as records:
                async with asyncio.TaskGroup() as group:
                    rooms = node.Rooms(
                        config, self.disk, records, line, line.facts(), self.now, Metrics(), self._tree_digest
                    )
                    self.agent = node.Node(rooms, link, group)
                    await self.agent.start()
        finally:
            self.agent = None
            line.hang_up()
            self._network.break_all(self.node_id)
