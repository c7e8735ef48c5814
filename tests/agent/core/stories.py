"""What the tests of the operation machine tell their stories with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.core import events, machine, model, operation

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
OLD = "sha256:" + "a" * 64
NEW = "sha256:" + "b" * 64

BASE = model.Assignment(
    operation_id="op-1",
    fence=1,
    attempt=1,
    component="web",
    kind=model.ChangeKind.UPGRADE,
    method=model.Method.HOT_SWAP,
    from_digest=OLD,
    to_digest=NEW,
    to_version="1.1.0",
    hold_before=None,
    start_by=None,
    deadline=timedelta(seconds=60),
    soak_duration=timedelta(seconds=5),
    soak_requests_min=10,
    min_healthy_duration=timedelta(seconds=10),
    healthy_deadline=timedelta(seconds=100),
)
STEPS_UNTIL_SOAK = tuple(
    model.Step[name] for name in ("FETCH", "VERIFY", "STAGE", "PREFLIGHT", "ROLLBACK_POINT", "PREPARE", "SWITCH")
)


def at(seconds: float) -> events.Moment:
    return events.Moment(seconds, EPOCH + timedelta(seconds=seconds))


def assignment(**changed: Any) -> model.Assignment:  # noqa: ANN401  # fields differ
    return replace(BASE, **changed)


class Story:
    """One operation, told event by event; remembers what it decided."""

    def __init__(self, **changed: Any) -> None:  # noqa: ANN401  # fields differ
        self.seconds = 0.0
        self.last = operation.accept(assignment(**changed), at(0))
        self.records: list[model.StepRecord] = []

    @property
    def state(self) -> operation.Operation:
        return self.last.state

    @property
    def phase(self) -> str:
        return self.last.state.phase.value

    @property
    def status(self) -> model.OperationStatus:
        return operation.status(self.last.state)

    @property
    def effects(self) -> list[str]:
        return [getattr(effect, "step", model.Step.BAKE).value for effect in self.last.effects]

    def happens(self, event: events.Event) -> Story:
        self.last = machine.step(self.state, event)
        self.records += self.last.records
        return self

    def now(self) -> events.Moment:
        return at(self.seconds)

    def begins(self) -> Story:
        return self.happens(events.Began(self.now()))

    def succeeds(self, step: model.Step, evidence: Mapping[str, str] | None = None) -> Story:
        return self.happens(events.Succeeded(self.now(), step, evidence or {}))

    def fails(self, step: model.Step, fault: model.Fault = model.Fault.INFRASTRUCTURE, reason: str = "bad") -> Story:
        return self.happens(events.Failed(self.now(), step, fault, reason, f"cannot do {step.value}"))

    def reaches(self, step: model.Step) -> Story:
        """Run until a step of the way to SOAK runs."""
        self.begins()
        for each in STEPS_UNTIL_SOAK:
            if each is step:
                return self
            self.succeeds(each)
        return self

    def soaks(self) -> Story:
        return self.reaches(model.Step.SOAK)

    def passes(self, seconds: float) -> Story:
        self.seconds += seconds
        return self.happens(events.Ticked(self.now()))

    def is_seen(
        self, health: model.Health = model.Health.HEALTHY, served: int = 100, healthy_for: float = 0.0
    ) -> Story:
        return self.happens(events.Observed(self.now(), health, timedelta(seconds=healthy_for), served))

    def flaps(self) -> Story:
        unhealthy = model.Health.UNHEALTHY
        return self.happens(events.Observed(self.now(), unhealthy, timedelta(), 100, is_flapping=True))

    def commits(self) -> Story:
        """Run until COMMIT is decided."""
        self.soaks()
        self.seconds += 5
        return self.is_seen().succeeds(model.Step.COMMIT)

    def is_lost(self) -> Story:
        return self.happens(events.InstanceLost(self.now(), "cannot go on: it ended with signal 9"))

    def proceeds(self, step: model.Step, hold_before: model.Step | None = None) -> Story:
        return self.happens(events.Proceeded(self.now(), step, hold_before))

    def is_held_before(self, step: model.Step) -> Story:
        """Run until it waits before a step; it was told to, there and nowhere earlier."""
        if step is model.Step.SWITCH:
            return self.reaches(step)
        self.soaks()
        self.seconds += 5
        return self.is_seen()

    def is_cancelled(self) -> Story:
        return self.happens(events.Cancelled(self.now(), "an operator said so"))

    def is_superseded(self) -> Story:
        return self.happens(events.Superseded(self.now()))

    def is_recovered(self, decision: events.KeeperDecision = events.KeeperDecision.NONE) -> Story:
        return self.happens(events.Recovered(self.now(), decision))
