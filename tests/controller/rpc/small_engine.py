"""An engine in memory that keeps the contract of sessions: what it was told, and what it asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from controller import engine
from controller.core import errors, model
from controller.engine import commands

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
Command = commands.Command
HEARTBEAT_PERIOD = timedelta(seconds=10)


@dataclass
class Told:
    """What one node has told."""

    generation: int = 0
    session_id: model.SessionId | None = None
    components: dict[str, model.InstalledComponent] = field(default_factory=dict)
    metrics: dict[tuple[str, str], float] = field(default_factory=dict)
    operations: dict[str, list[model.OperationStatus]] = field(default_factory=dict)
    steps: dict[tuple[str, int], model.StepRecord] = field(default_factory=dict)
    messages: int = 0
    full_reports: int = 0
    conditions: tuple[model.Condition, ...] = ()


class SmallEngine:
    """The truth of one controller, without a store."""

    def __init__(self, now: Callable[[], datetime], heartbeat_period: timedelta = HEARTBEAT_PERIOD) -> None:
        self._now = now
        self._heartbeat_period = heartbeat_period
        self.told: dict[model.NodeId, Told] = {}
        self.asked: dict[model.NodeId, tuple[Command, ...]] = {}
        self.wakes: dict[model.NodeId, list[Callable[[], None]]] = {}
        self.failure: errors.InstarError | None = None
        self.quarantined: set[model.NodeId] = set()
        self.unwanted: set[model.Digest] = set()
        self.refused: list[tuple[engine.Asked, errors.InstarError]] = []

    async def open_session(self, hello: model.NodeHello) -> commands.SessionGrant:
        told = self.told.setdefault(hello.node_id, Told())
        told.generation += 1
        told.session_id = model.SessionId(f"s-{told.generation}")
        self._apply(told, hello.report)
        return commands.SessionGrant(told.session_id, told.generation, self._heartbeat_period, self._now())

    async def keep_refusal(self, asked: engine.Asked, error: errors.InstarError) -> None:
        self.refused.append((asked, error))

    async def close_session(self, node_id: model.NodeId, session_id: model.SessionId) -> None:
        if self.told[node_id].session_id == session_id:
            self.told[node_id].session_id = None

    async def report(self, node_id: model.NodeId, session_id: model.SessionId, report: model.NodeReport) -> None:
        told = self.told[node_id]
        if self.failure is not None:
            raise self.failure
        if told.session_id != session_id:
            raise errors.ConflictError("cannot take the report: the session is stale", code="session_stale")
        self._apply(told, report)

    def check_trusted(self, node_id: model.NodeId) -> None:
        if node_id in self.quarantined:
            raise errors.RefusedError(f"cannot listen to {node_id}", code="node_quarantined", field="node_id")

    def check_session(self, node_id: model.NodeId, session_id: model.SessionId) -> None:
        del session_id
        self.check_trusted(node_id)

    def wants(self, node_id: model.NodeId, digest: model.Digest) -> bool:
        del node_id
        return digest not in self.unwanted

    def commands(self, node_id: model.NodeId) -> tuple[Command, ...]:
        return self.asked.get(node_id, ())

    def subscribe(self, node_id: model.NodeId, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.setdefault(node_id, []).append(wake)
        return lambda: self.wakes[node_id].remove(wake)

    def is_at_work(self, node_id: model.NodeId) -> bool:
        return bool(self.asked.get(node_id))

    def heartbeat_period(self, node_id: model.NodeId) -> timedelta:
        del node_id
        return self._heartbeat_period

    def ask(self, node_id: model.NodeId, *asked: Command) -> None:
        """Ask these of a node, and nothing else."""
        self.asked[node_id] = asked
        for wake in self.wakes.get(node_id, []):
            wake()

    def _apply(self, told: Told, report: model.NodeReport) -> None:
        told.messages += 1
        told.conditions = told.conditions if report.conditions is None else report.conditions
        if report.is_full:
            told.full_reports += 1
            told.components.clear()
        told.components.update((component.name, component) for component in report.components)
        for name in report.removed:
            told.components.pop(name, None)
        told.metrics.update(((metric.name, metric.component), metric.value) for metric in report.metrics)
        for status in report.operations:
            history = told.operations.setdefault(status.operation_id, [])
            if not history or history[-1] != status:
                history.append(status)
        told.steps.update(((record.operation_id, record.index), record) for record in report.steps)


def assign(operation_id: str = "r/1", fence: int = 8) -> commands.AssignCommand:
    """An operation as the engine asks it."""
    return commands.AssignCommand(
        operation_id=model.OperationId(operation_id),
        fence=fence,
        attempt=1,
        component=model.ComponentName("web"),
        kind=model.ChangeKind.UPGRADE,
        method=model.Method.HOT_SWAP,
        from_digest=model.Digest("sha256:a"),
        to_digest=model.Digest("sha256:b"),
        to_version="1.1.0",
        hold_before=model.Step.COMMIT,
        start_by=EPOCH + timedelta(hours=1),
        deadline=timedelta(minutes=5),
        soak_duration=timedelta(seconds=5),
        soak_requests_min=10,
        min_healthy_duration=timedelta(seconds=10),
        healthy_deadline=timedelta(minutes=5),
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        discard_writes=True,
    )
