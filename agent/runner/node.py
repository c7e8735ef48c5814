"""The node: takes commands, looks at what goes on, and tells of it.

Rules kept here: commands and loops only feed the `executor`; when the keeper is gone the agent ends, and the next one
reads what is true; when the journal cannot be written any more, what serves goes on and is told of for a while, before
the next agent tries again. Left out: what happens to an operation (`executor`), who may begin (`commands`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Never, Protocol

from agent import depot, drivers, journal, processes
from agent.config import settings
from agent.core import model, transitions
from agent.drivers import registry
from agent.runner import (
    changes,
    cleaning,
    clock,
    commands,
    conditions,
    deliveries,
    drift,
    executor,
    hands,
    health,
    inventory,
    logs,
    operations,
    own_releases,
    passages,
    readying,
    releases,
    steps,
    trees,
    trusting,
    upkeep,
)
from agent.state import states

PULSE_SECONDS = 0.1  # between two looks at a swap; a failed soak is noticed within this
UPKEEP_SECONDS = 2.0  # between two looks at everything, besides those that the keeper's events cause
HOST_METRICS_SECONDS = 5.0  # utilization over less says nothing
JOURNAL_RETRY_SECONDS = 60.0  # after a failure of the journal, before the next life of the agent tries again

_logger = logging.getLogger(__name__)


class KeeperGoneError(Exception):
    """The keeper hung up: the agent ends, for a new keeper starts a new agent."""


class JournalGivenUpError(Exception):
    """The journal failed: the agent ends, for only its next life may try again."""


class Link(deliveries.Source, Protocol):
    """What the node needs of the link."""

    async def run(self, node: Node) -> Never:
        """Keep a session open."""
        ...

    def wake(self) -> None:
        """Report soon."""
        ...

    @property
    def is_open(self) -> bool:
        """True while there is a session."""
        ...

    @property
    def is_acknowledged(self) -> bool:
        """True once a controller has acknowledged a report in this life of the agent; also where there is none."""
        ...

    def latest_at_controller(self) -> datetime | None:
        """The latest that it may be by the controller's clock; None until a controller has told its time."""
        ...


class HostMetrics(Protocol):
    """What the host says of itself."""

    def read(self) -> tuple[model.Metric, ...]:
        """Measure now."""
        ...


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a node works with.

    Args:
        facts: Who the keeper is.
        tree_digest: Reads the tree of a release outside of this process.
    """

    config: settings.Config
    disk: depot.Depot
    records: journal.Journal
    keeper: processes.Keeper
    facts: processes.KeeperFacts
    now: clock.Now
    host: HostMetrics
    tree_digest: drift.TreeDigest = trees.tree_digest


class Node:
    """One node at work; `agent.link` sees it as its `Node`."""

    def __init__(self, rooms: Rooms, link: Link, group: asyncio.TaskGroup) -> None:
        keeper, disk, config, now = rooms.keeper, rooms.disk, rooms.config, rooms.now
        self._rooms = rooms
        self._link = link
        self._group = group
        self._drivers = registry.Registry(
            drivers.Rooms(keeper=keeper, run_dir=config.run_dir, state_dir=config.state_dir), config.drivers
        )
        self._operations = operations.Operations(rooms.records, rooms.facts.boot_id)
        known = releases.Releases(config, disk, keeper, self._drivers)
        board = health.HealthBoard(known, now, group, lambda: link.is_acknowledged, link.wake)
        self._inventory = inventory.Inventory(disk, board, known, self._operations)
        self._states = states.States(config.layout, config.rollback_points, config.users, keeper, lambda: now().wall)
        passing = passages.Passages(self._states)
        told = changes.Changes(known, passing, self._operations, self._inventory, now)
        self._own = own_releases.OwnReleases(keeper)
        self._cleaning = cleaning.Cleaning(disk, self._operations, self._inventory, self._own, self._states.points)
        self._trusting = trusting.Trusting(config, disk, link, now)
        delivered = deliveries.Deliveries(disk, keeper, known, self._cleaning, self._trusting, link)
        readied = readying.Readying(config, keeper, known, self._inventory, delivered, told)
        work = steps.Steps(disk, keeper, self._operations, told, delivered, readied)
        self._drift = drift.Drift(self._inventory, self._operations, known, now, rooms.tree_digest)
        turns = hands.Hands()
        self._upkeep = upkeep.Upkeep(
            rooms.facts.boot_id, disk, self._inventory, self._operations, known, self._states, self._drift, turns, now
        )
        self._executor = executor.Executor(
            self._operations, work, told, self._inventory, board, turns, group, now, self._has_changed
        )
        self._commands = commands.Commands(
            self._operations, self._inventory, self._executor, self._own, link, now, self._has_changed
        )
        self._logs = logs.Logs(keeper, self._inventory)
        self._conditions = conditions.Conditions()
        self._is_due = asyncio.Event()
        self._host_metrics: tuple[model.Metric, ...] = ()
        self._host_metrics_due_seconds = 0.0
        self._failed_at_seconds: float | None = None
        self._has_forgotten = False

    async def start(self) -> None:
        """Recover what an earlier agent left, then go on; returns when the node can be asked.

        Raises:
            processes.KeeperError: The keeper does not answer.
        """
        self._rooms.disk.prepare()
        self._states.prepare()
        await self._rooms.keeper.attach()
        await self._rooms.keeper.watch()
        await self._inventory.refresh()
        seen = await self._rooms.keeper.inspect()
        self._own.take(seen)
        self._executor.recover(seen)
        self._is_due.set()
        self._group.create_task(self._until_keeper_is_gone(), name="keeper guard")
        self._group.create_task(self._read_keeper(), name="keeper events")
        self._group.create_task(self._keep_up(), name="upkeep")
        self._group.create_task(self._check_trees(), name="tree check")
        self._group.create_task(self._pulse(), name="pulse")
        self._group.create_task(self._link.run(self), name="link")

    # What the link asks.

    def hello_facts(self) -> model.HelloFacts:
        """What opens a session beside the report."""
        return model.HelloFacts(
            boot_id=self._rooms.facts.boot_id,
            instance_token=self._rooms.facts.instance_token,
            agent_version=settings.agent_version(),
            capabilities=tuple(self._drivers.capabilities()),
            highest_fence=self._operations.highest_fence,
            labels=self._rooms.config.labels,
        )

    def full_report(self) -> model.Report:
        """Everything that the node knows now."""
        now_seconds = self._rooms.now().monotonic_seconds
        if now_seconds >= self._host_metrics_due_seconds:
            self._host_metrics = self._rooms.host.read()
            self._host_metrics_due_seconds = now_seconds + HOST_METRICS_SECONDS
        return model.Report(
            metrics=(*self._host_metrics, *self._inventory.metrics),
            components=self._inventory.components,
            operations=self._operations.statuses,
            steps=self._operations.steps,
            conditions=self._conditions.items,
        )

    def take_command(self, command: model.Order) -> None:
        """Take a command of the controller, perhaps again; it is answered by what the node reports."""
        self._commands.take(command)

    def take_local(self, assignment: model.Assignment) -> None:
        """Take what people of this very node want changed; it is answered by what the node reports."""
        self._commands.take_local(assignment)

    def outcome(self, operation_id: str) -> model.OperationStatus | None:
        """How a forgotten operation ended, as far as that is still known."""
        return self._operations.outcome(operation_id)

    async def read_log(self, asked: model.ReadLog) -> model.LogText:
        """Read the end of a log; why there is none is an answer too."""
        return await self._logs.read(asked)

    def acknowledged(self, operations: tuple[model.OperationStatus, ...], steps: tuple[model.StepRecord, ...]) -> None:
        """These are durable at the controller: what is finished may be forgotten."""
        try:
            self._has_forgotten |= bool(self._operations.acknowledge(operations, steps))
        except journal.JournalFailedError as error:
            self._executor.halt(error)

    # What goes on all the time.

    def _has_changed(self) -> None:
        self._is_due.set()
        self._link.wake()

    async def _until_keeper_is_gone(self) -> Never:
        await self._rooms.keeper.closed.wait()
        raise KeeperGoneError("cannot go on: the keeper hung up")

    async def _read_keeper(self) -> Never:
        """Look after each event; but a switch is left alone: it makes events of its own, and a look at its end."""
        while True:
            event = await self._rooms.keeper.events.get()
            if event.instance.state is processes.InstanceState.EXITED:
                self._executor.lose(event.instance)
            is_switching = any(state.phase is transitions.Phase.SWITCH for state in self._operations.unfinished)
            if self._rooms.keeper.events.empty() and not is_switching:
                await self._executor.look()

    async def _keep_up(self) -> Never:
        while True:
            await self._executor.look()
            self._adopt()
            await self._upkeep.run_once()
            await self._own.look()
            if self._conditions.see(self._findings(), self._rooms.now().wall):
                self._link.wake()
            self._give_up_in_time()
            await self._clean()
            await asyncio.sleep(UPKEEP_SECONDS)

    async def _clean(self) -> None:
        """Remove what nothing refers to, after an operation was forgotten."""
        if not self._has_forgotten:
            return
        self._has_forgotten = False
        try:
            await self._cleaning.collect()
        except OSError as error:
            self._has_forgotten = True
            _logger.warning("cannot clean up: %s", error)

    def _adopt(self) -> None:
        try:
            self._drift.adopt()
        except journal.JournalFailedError as error:
            self._executor.halt(error)

    def _findings(self) -> Iterator[conditions.Finding]:
        if self._operations.failure:
            yield conditions.Finding(conditions.JOURNAL_FAILED, "", self._operations.failure)
        yield from self._trusting.findings()
        yield from self._drift.findings
        for component, seen in self._inventory.broken.items():
            message = f"instance {seen.id} ended too often in a row: {seen.restarts} starts"
            yield conditions.Finding(conditions.CRASH_LOOP, component, message)
        free_bytes = self._rooms.disk.free_bytes()
        if free_bytes < conditions.DISK_LOW_BYTES:
            message = f"less than {conditions.DISK_LOW_BYTES >> 20} MiB are free"
            yield conditions.Finding(conditions.DISK_LOW, "", message)
        if self._own.bad:
            message = f"died early, and is not run any more: {', '.join(self._own.bad)}"
            yield conditions.Finding(conditions.AGENT_BAD_VERSION, "", message)

    def _give_up_in_time(self) -> None:
        """End this life some time after the journal failed; at once where nobody is there to be told."""
        if not self._operations.failure:
            return
        now_seconds = self._rooms.now().monotonic_seconds
        if self._failed_at_seconds is None:
            self._failed_at_seconds = now_seconds
        is_unheard = self._link.is_acknowledged and not self._link.is_open
        if is_unheard or now_seconds - self._failed_at_seconds >= JOURNAL_RETRY_SECONDS:
            raise JournalGivenUpError(self._operations.failure)

    async def _check_trees(self) -> Never:
        while True:
            await self._drift.check_trees()
            await asyncio.sleep(UPKEEP_SECONDS)

    async def _pulse(self) -> Never:
        """Look at what is between its beginning and its end."""
        while True:
            if self._operations.failure or not self._operations.unfinished:
                self._is_due.clear()
                await self._is_due.wait()
            for state in self._operations.unfinished:
                await self._executor.watch(state)
            await asyncio.sleep(PULSE_SECONDS)
