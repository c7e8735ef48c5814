"""The node: takes commands, looks at what goes on, and tells of it.

Rules kept here: commands and loops only feed the `executor`; when the journal cannot be written or the keeper is gone,
the agent ends, and the next one reads what is true. Left out: what happens to an operation (`executor`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Never, Protocol, assert_never

from agent import depot, drivers, journal, processes
from agent.config import settings
from agent.core import admission, events, model, operation, session
from agent.drivers import handover
from agent.runner import clock, executor, health, inventory, operations, steps, upkeep

PULSE_SECONDS = 0.1  # between two looks at a swap; a failed soak is noticed within this
UPKEEP_SECONDS = 2.0  # between two looks at everything, besides those that the keeper's events cause
HOST_METRICS_SECONDS = 5.0  # utilization over less says nothing

_logger = logging.getLogger(__name__)


class KeeperGoneError(Exception):
    """The keeper hung up: the agent ends, for a new keeper starts a new agent."""


class Link(steps.Source, Protocol):
    """What the node needs of the link."""

    async def run(self, node: Node) -> Never:
        """Keep a session open."""
        ...

    def wake(self) -> None:
        """Report soon."""
        ...

    @property
    def clock(self) -> session.ClockReading | None:
        """How the controller's clock stands to this node's; None until a controller has told."""
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
    """

    config: settings.Config
    disk: depot.Depot
    records: journal.Journal
    keeper: processes.Keeper
    facts: processes.KeeperFacts
    now: clock.Now
    host: HostMetrics


class Node:
    """One node at work; `agent.link` sees it as its `Node`."""

    def __init__(self, rooms: Rooms, link: Link, group: asyncio.TaskGroup) -> None:
        keeper, disk, now = rooms.keeper, rooms.disk, rooms.now
        self._rooms = rooms
        self._link = link
        self._group = group
        self._drivers: Mapping[str, drivers.Driver] = {handover.NAME: handover.Handover(keeper, rooms.config.run_dir)}
        self._operations = operations.Operations(rooms.records, rooms.facts.boot_id)
        work = steps.Steps(rooms.config, disk, keeper, self._drivers, now)
        board = health.HealthBoard(rooms.config.run_dir, now, group, link.wake)
        self._inventory = inventory.Inventory(disk, keeper, board, work)
        self._upkeep = upkeep.Upkeep(rooms.facts.boot_id, disk, keeper, self._inventory, self._operations, work, now)
        self._executor = executor.Executor(self._operations, work, self._inventory, board, link, group, now, link.wake)
        self._is_due = asyncio.Event()
        self._host = rooms.host
        self._host_metrics: tuple[model.Metric, ...] = ()
        self._host_metrics_due_seconds = 0.0

    async def start(self) -> None:
        """Recover what an earlier agent left, then go on; returns when the node can be asked.

        Raises:
            processes.KeeperError: The keeper does not answer.
        """
        self._rooms.disk.prepare()
        await self._rooms.keeper.attach()
        await self._rooms.keeper.watch()
        await self._inventory.refresh()
        self._executor.recover()
        self._is_due.set()
        self._group.create_task(self._until_keeper_is_gone(), name="keeper guard")
        self._group.create_task(self._read_keeper(), name="keeper events")
        self._group.create_task(self._keep_up(), name="upkeep")
        self._group.create_task(self._pulse(), name="pulse")
        self._group.create_task(self._link.run(self), name="link")

    # What the link asks.

    def hello_facts(self) -> model.HelloFacts:
        """What opens a session beside the report."""
        return model.HelloFacts(
            boot_id=self._rooms.facts.boot_id,
            instance_token=self._rooms.facts.instance_token,
            agent_version=settings.agent_version(),
            capabilities=tuple(f"driver.{name}" for name in sorted(self._drivers)),
            highest_fence=self._operations.highest_fence,
            labels=self._rooms.config.labels,
        )

    def full_report(self) -> model.Report:
        """Everything that the node knows now."""
        now_seconds = self._rooms.now().monotonic_seconds
        if now_seconds >= self._host_metrics_due_seconds:
            self._host_metrics = self._host.read()
            self._host_metrics_due_seconds = now_seconds + HOST_METRICS_SECONDS
        return model.Report(
            metrics=(*self._host_metrics, *self._inventory.metrics),
            components=self._inventory.components,
            operations=self._operations.statuses,
            steps=self._operations.steps,
        )

    def take_command(self, command: model.Command) -> None:
        """Take a command, perhaps again; it is answered by what the node reports."""
        match command:
            case model.Assign(assignment):
                self._admit(assignment)
            case model.Proceed(operation_id, fence):
                self._order(operation_id, fence, events.Proceeded(self._rooms.now()))
            case model.Cancel(operation_id, fence, reason):
                self._order(operation_id, fence, events.Cancelled(self._rooms.now(), reason))
            case _:
                assert_never(command)

    def acknowledged(self, operations: tuple[model.OperationStatus, ...], steps: tuple[model.StepRecord, ...]) -> None:
        """These are durable at the controller: what is finished may be forgotten."""
        if self._operations.acknowledge(operations, steps):
            self._collect()

    # Commands.

    def _admit(self, assignment: model.Assignment) -> None:
        outcome = self._operations.outcome(assignment.operation_id)
        if outcome is not None:
            self._operations.answer(outcome)
            self._link.wake()
            return
        methods = frozenset(m for driver in self._drivers.values() for m in driver.capabilities().methods)
        answer = admission.admit(
            assignment, self._operations.ledger(self._inventory.current, methods, self._latest_now())
        )
        match answer.verdict:
            case admission.Verdict.KNOWN | admission.Verdict.UNSURE:
                pass
            case admission.Verdict.EXPIRED:
                self._operations.answer(self._expired(assignment, answer))
            case admission.Verdict.REFUSED:
                self._refuse(assignment, answer)
            case admission.Verdict.BEGIN:
                self._begin(assignment)
            case _:
                assert_never(answer.verdict)
        self._link.wake()

    def _latest_now(self) -> datetime | None:
        reading = self._link.clock
        return self._rooms.now().wall + reading.offset + reading.round_trip / 2 if reading else None

    def _refuse(self, assignment: model.Assignment, answer: admission.Answer) -> None:
        """Refuse, for ever: a fence that is new is used up by it, so that no duplicate begins later."""
        _logger.warning("%s", answer.message, extra={"operation_id": assignment.operation_id})
        refused = operation.refuse(assignment, self._rooms.now(), answer.reason, answer.message)
        try:
            if assignment.fence > self._operations.highest_fence:
                self._operations.write(refused, "")
                return
        except (journal.JournalFullError, journal.RecordTooLargeError) as error:
            _logger.warning("%s", error, extra={"operation_id": assignment.operation_id})
        self._operations.answer(operation.status(refused.state))

    def _begin(self, assignment: model.Assignment) -> None:
        try:
            self._operations.write(operation.accept(assignment, self._rooms.now()), "")
        except (journal.JournalFullError, journal.RecordTooLargeError) as error:
            self._refuse(assignment, admission.Answer(admission.Verdict.REFUSED, "journal_full", str(error)))
            return
        for state in self._operations.unfinished:
            is_same = state.assignment.operation_id == assignment.operation_id
            if state.assignment.component == assignment.component and not is_same:
                self._executor.take(state.assignment.operation_id, events.Superseded(self._rooms.now()))
        self._executor.take(assignment.operation_id, events.Began(self._rooms.now()))
        self._is_due.set()

    def _expired(self, assignment: model.Assignment, answer: admission.Answer) -> model.OperationStatus:
        return model.OperationStatus(
            operation_id=assignment.operation_id,
            fence=assignment.fence,
            component=assignment.component,
            state=model.OperationState.EXPIRED,
            step=None,
            fault=model.Fault.COMMAND,
            reason=answer.reason,
            message=answer.message,
            changed_at=self._rooms.now().wall,
        )

    def _order(self, operation_id: str, fence: int, event: events.Order) -> None:
        state = self._operations.get(operation_id)
        if state is None or state.assignment.fence != fence:
            _logger.warning("cannot take %s: no such operation", type(event).__name__, extra={"fence": fence})
            return
        self._executor.take(operation_id, event)

    # What goes on all the time.

    async def _until_keeper_is_gone(self) -> Never:
        await self._rooms.keeper.closed.wait()
        raise KeeperGoneError("cannot go on: the keeper hung up")

    async def _read_keeper(self) -> Never:
        while True:
            event = await self._rooms.keeper.events.get()
            if event.instance.state is processes.InstanceState.EXITED:
                self._executor.lose(event.instance)
            if self._rooms.keeper.events.empty():
                await self._executor.look()

    async def _keep_up(self) -> Never:
        while True:
            await self._executor.look()
            await self._upkeep.run_once()
            await asyncio.sleep(UPKEEP_SECONDS)

    async def _pulse(self) -> Never:
        """Look at what is between its beginning and its end."""
        while True:
            if not self._operations.unfinished:
                self._is_due.clear()
                await self._is_due.wait()
            for state in self._operations.unfinished:
                await self._executor.watch(state)
            await asyncio.sleep(PULSE_SECONDS)

    def _collect(self) -> None:
        """Remove releases that nothing refers to."""
        unfinished = {
            digest
            for state in self._operations.unfinished
            for digest in (state.assignment.from_digest, state.assignment.to_digest)
            if digest
        }
        self._rooms.disk.collect(unfinished | self._inventory.digests)
