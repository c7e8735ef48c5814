"""A small fleet in virtual time: an engine on a real SQLite file, and agents that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from controller import engine
from controller.config import retention, rules
from controller.core import model
from controller.core import rollout as rollouts
from controller.engine import commands
from controller.store import database, executor, rows
from tests.simulation import loop as loops

Result = TypeVar("Result")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WEB = model.ComponentName("web")
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
DIGESTS = {
    version: model.Digest("sha256:" + character * 64) for version, character in zip(VERSIONS, "abc", strict=True)
}


class LoopClock:
    """The loop's own time."""

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class CountedIds:
    """Identities that count."""

    def __init__(self, life: int = 0) -> None:
        self._life = life
        self._count = 0

    def _next(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}-{self._life:02}{self._count:04}"

    def rollout_id(self, now: datetime) -> model.RolloutId:
        return model.RolloutId(self._next(f"r-{now:%H%M%S}"))

    def freeze_id(self, now: datetime) -> model.FreezeId:
        return model.FreezeId(self._next(f"f-{now:%H%M%S}"))

    def trigger_id(self, now: datetime) -> model.TriggerId:
        return model.TriggerId(self._next(f"t-{now:%H%M%S}"))

    def session_id(self) -> model.SessionId:
        return model.SessionId(self._next("s"))

    def controller_id(self) -> str:
        return self._next("c")


class Controller:
    """One life after another of a controller on one file."""

    def __init__(self, where: database.Where, monitoring: rules.Monitoring = rules.NOTHING) -> None:
        self._where = where
        self.monitoring = monitoring
        self.retained = retention.USUAL
        self._life = 0
        self.store: database.Store
        self.engine: engine.Engine

    async def start(self, *, requester_may_approve: bool = False) -> engine.Engine:
        self._life += 1
        self.store = database.Store(self._where, executor.InlineExecutor())
        ids = CountedIds(self._life)
        self.engine = engine.Engine(
            self.store,
            LoopClock(),
            ids,
            requester_may_approve=requester_may_approve,
            monitoring=self.monitoring,
            retained=self.retained,
        )
        await self.engine.start()
        if self.monitoring.rules:
            await self.engine.collector.start_collection(timedelta(seconds=10))
            await self.engine.monitoring.start()
        await self.engine.start_triggers()
        return self.engine

    async def crash(self) -> None:
        """End without a word to anybody: the engine's tasks die where they stand."""
        await self.engine._guard.stop()
        if self.engine._triggering._guard is not None:
            await self.engine._triggering._guard.stop()
        if self.engine.monitoring._guard is not None:
            await self.engine.monitoring._guard.stop()
            await self.engine.collector._guard.stop()
        self.store.close()

    async def restart(self) -> engine.Engine:
        await self.crash()
        return await self.start()

    async def stop(self) -> None:
        await self.engine.monitoring.stop()
        await self.engine.collector.stop_collection()
        await self.engine.stop()
        self.store.close()


def in_virtual_time(story: Callable[[], Coroutine[Any, Any, Result]], seed: int = 1) -> Result:
    loop = loops.VirtualLoop(seed)
    try:
        return loop.run_until_complete(story())
    finally:
        loop.close()


def release(version: str) -> model.Release:
    return model.Release(
        component=WEB,
        version=version,
        digest=DIGESTS[version],
        size_bytes=10_240,
        driver="handover",
        manifest_json="{}",
        published_at=EPOCH,
        publisher="ci",
    )


def installed(version: str, healthy_for_seconds: float = 60) -> model.InstalledComponent:
    return model.InstalledComponent(
        name=WEB,
        version=version,
        digest=DIGESTS[version],
        permanent_digest=DIGESTS[version],
        health=model.Health.HEALTHY,
        healthy_for=timedelta(seconds=healthy_for_seconds),
    )


def request(**changes: object) -> model.UpgradeRequest:
    wanted = model.UpgradeRequest(component=WEB, target_version="1.1.0", strategy=model.Strategy.IMMEDIATE, name="up")
    return replace(wanted, **changes)  # type: ignore[arg-type]  # names and types are the test's


class Agent:
    """An agent that keeps what it was told, and counts how often it carried each operation out."""

    def __init__(self, node_id: str, version: str = "1.0.0", **labels: str) -> None:
        self.node_id = model.NodeId(node_id)
        self.labels = {"zone": "a", **labels}
        self.version = version
        self.fence = 0
        self.session_id = model.SessionId("")
        self.statuses: dict[model.OperationId, model.OperationStatus] = {}
        self.executed: list[model.OperationId] = []
        self.metrics: tuple[model.Metric, ...] = ()

    async def connect(self, machine: engine.Engine) -> commands.SessionGrant:
        hello = model.NodeHello(
            node_id=self.node_id,
            boot_id="boot",
            instance_token=f"keeper of {self.node_id}",
            agent_version="0.1.0",
            capabilities=frozenset({"driver.handover"}),
            highest_fence=self.fence,
            labels=self.labels,
            report=self.full_report(),
        )
        grant = await machine.open_session(hello)
        self.session_id = grant.session_id
        return grant

    async def disconnect(self, machine: engine.Engine) -> None:
        await machine.close_session(self.node_id, self.session_id)

    def full_report(self) -> model.NodeReport:
        return model.NodeReport(
            metrics=self.metrics,
            components=(installed(self.version),),
            operations=tuple(self.statuses.values()),
            is_full=True,
        )

    async def tell(self, machine: engine.Engine, report: model.NodeReport) -> None:
        await machine.report(self.node_id, self.session_id, report)

    async def tell_status(
        self,
        machine: engine.Engine,
        command: commands.AssignCommand,
        state: model.OperationState,
        **changes: object,
    ) -> None:
        self.statuses[command.operation_id] = status(command, state, **changes)
        await self.tell(machine, model.NodeReport(operations=(self.statuses[command.operation_id],)))

    def assigned(self, machine: engine.Engine) -> list[commands.AssignCommand]:
        found = machine.commands(self.node_id)
        return [each for each in found if isinstance(each, commands.AssignCommand)]

    async def obey(self, machine: engine.Engine) -> None:
        """Carry out what is asked and was not carried out before, to its good end."""
        for command in self.assigned(machine):
            if command.operation_id in self.statuses:
                continue
            self.executed.append(command.operation_id)
            self.fence = max(self.fence, command.fence)
            await self.tell_status(machine, command, model.OperationState.RUNNING, step=model.Step.FETCH)
            await self.finish(machine, command)

    async def fail(
        self, machine: engine.Engine, reason: str = "probe_failed", fault: model.Fault = model.Fault.VERSION
    ) -> None:
        """Let what is asked fail, by the version's own fault or another's, after which the old one serves on."""
        for command in self.assigned(machine):
            if command.operation_id not in self.statuses:
                self.fence = max(self.fence, command.fence)
                state = model.OperationState.ABORTED
                await self.tell_status(machine, command, state, fault=fault, reason=reason)

    async def finish(self, machine: engine.Engine, command: commands.AssignCommand) -> None:
        self.version = command.to_version
        await self.tell_status(machine, command, model.OperationState.COMMITTED, step=model.Step.COMMIT)
        self.statuses[command.operation_id] = status(command, model.OperationState.PERMANENT, step=model.Step.BAKE)
        await self.tell(
            machine,
            model.NodeReport(
                components=(installed(self.version),),
                operations=(self.statuses[command.operation_id],),
                steps=steps(command),
            ),
        )


def status(command: commands.AssignCommand, state: model.OperationState, **changes: object) -> model.OperationStatus:
    told = model.OperationStatus(
        operation_id=command.operation_id,
        fence=command.fence,
        component=command.component,
        state=state,
        step=None,
        fault=None,
        reason="",
        message="",
        changed_at=LoopClock().now(),
    )
    return replace(told, **changes)  # type: ignore[arg-type]  # names and types are the test's


def steps(command: commands.AssignCommand, *wanted: model.Step) -> tuple[model.StepRecord, ...]:
    now = LoopClock().now()
    return tuple(
        model.StepRecord(command.operation_id, index, step, now, now, is_success=True, evidence={"bytes": "1"})
        for index, step in enumerate(wanted or tuple(model.Step)[:-1], start=1)
    )


async def upgraded_fleet(controller: Controller, nodes: int = 3) -> list[Agent]:
    """Start, publish both releases, and connect agents that run the first."""
    machine = await controller.start()
    for version in VERSIONS:
        await machine.publish(release(version))
    agents = [Agent(f"n{number}") for number in range(1, nodes + 1)]
    for agent in agents:
        await agent.connect(machine)
    return agents


def replayed(rollout: model.Rollout, journal: tuple[rows.Occurrence, ...]) -> model.Rollout:
    """Step a rollout anew from its first plan through all that happened to it."""
    again = rollouts.create(rollout.id, rollout.request, rollout.plan, actor=rollout.actor, at=rollout.created_at)
    for each in journal:
        again = replace(rollouts.step(again, each.event).rollout, revision=each.revision)
    return again


Tale = Callable[[Controller, list[Agent]], Coroutine[Any, Any, None]]


def told(where: database.Where, tale: Tale, nodes: int = 3, monitoring: rules.Monitoring = rules.NOTHING) -> None:
    """Tell a tale of a fleet that runs the first version, on a store, or on a file in a folder."""

    async def story() -> None:
        place = where / "store" if isinstance(where, Path) and where.is_dir() else where
        controller = Controller(place, monitoring)
        await tale(controller, await upgraded_fleet(controller, nodes))
        await controller.stop()

    in_virtual_time(story)
