"""One host of the simulated fleet: the real agent, life after life, on a disk below a directory of the run.

Everything of the agent is the product's own: link, session, machine, executor, driver, journal, depot. Only the keeper
with its processes (`keeper`) and the network are simulated. Crashing the agent cancels its tasks wherever they stand;
what it had made durable is what the next life finds. The disk may be full, and may fail to flush (`Disk`, `Records`).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
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


class Disk(depot.Depot):
    """The releases of a host; while the disk is full no byte of another one can be written."""

    is_full = False

    def receive(self, digest: str, bytes_max: int) -> depot.Incoming:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().receive(digest, bytes_max)


class Records(journal.Journal):
    """The journal of one life of an agent, on a disk that may fail."""

    disk: Disk
    is_failing = False

    def _put(self, writes: Iterable[tuple[int, bytes]]) -> None:
        if self.is_failing:
            self._fail(OSError(errno.EIO, "Input/output error"))
        super()._put(writes)

    def _write_identity(self, identity: journal.Identity) -> None:
        if self.is_failing or self.disk.is_full:
            self._fail(OSError(errno.ENOSPC, "No space left on device"))
        super()._write_identity(identity)


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
        self.disk = Disk(layout.Layout(state_dir, state_dir / "run"))
        self.agent: node.Node | None = None
        self.is_up = True
        self.clock_offset = timedelta()
        self.records: Records | None = None
        self._down_seconds = 0.0
        self._loop = loop
        self._state_dir = state_dir
        self._network = net
        self._life: asyncio.Task[None] | None = None

    def now(self) -> events.Moment:
        """Both clocks of the host."""
        seconds_now = self._loop.time()
        return events.Moment(seconds_now, EPOCH + timedelta(seconds=seconds_now) + self.clock_offset)

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
        try:  # an agent that gives its journal up ends, and its keeper starts the next
            with closing(Records.open(self._state_dir)) as records:
                records.disk, self.records = self.disk, records
                async with asyncio.TaskGroup() as group:
                    rooms = node.Rooms(
                        config, self.disk, records, line, line.facts(), self.now, Metrics(), self._tree_digest
                    )
                    self.agent = node.Node(rooms, link, group)
                    await self.agent.start()
        except* node.JournalGivenUpError:
            pass
        finally:
            self.agent = self.records = None
            line.hang_up()
            self._network.break_all(self.node_id)
