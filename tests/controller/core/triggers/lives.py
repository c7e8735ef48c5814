"""Lives of one trigger: whatever may happen to it in any order, beside what somebody who only reads the contract knows.

Rules kept: time passes truly, and the clock that the trigger is told may be set back; a restart brings back no more
than what was stored. Left out: what must be so of every step (`test_machine_properties`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.core import model
from controller.core.triggers import draft as drafts
from controller.core.triggers import events, guards, machine
from tests.controller.core import scenario
from tests.controller.core.triggers import definitions, playing

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DEBOUNCE = 30 * SECOND
NODES = tuple(map(model.NodeId, "abc"))
VERSIONS = ("", "1.0.0", "1.1.0", "2.0.0")
PEOPLE = ("ann", "bob", "cat")

WHEN: tuple[model.When, ...] = (
    model.Threshold("metrics.cpu > 0.9"),
    model.Threshold("metrics.cpu > 0.9", pending_for=40 * SECOND, keep_firing_for=20 * SECOND, nodes_min=2),
    definitions.DEGRADATION,
    model.Schedule("0 * * * *"),
    model.Schedule("*/10 * * * *", missed=model.MissedPolicy.ONCE),
    model.EventMatch("build.done"),
    model.EventMatch("build.done", debounce=DEBOUNCE),
    definitions.CHANNEL,
    definitions.RANGE,
    model.ByHand(),
)
DOES: tuple[model.TriggerAction, ...] = (
    definitions.NOTIFY,
    definitions.UPGRADE,
    definitions.UPGRADE,
    definitions.ROLLBACK,
)
WINDOWS = ((), (), (model.Window(6 * HOUR, 12 * HOUR),))
APPROVALS = (None, None, model.ApprovalGuard(10 * MINUTE), model.ApprovalGuard(HOUR, by_another=False))


@dataclass(slots=True)
class Burst:
    """Events that wait for the silence after them."""

    first_at: datetime
    last_at: datetime

    @property
    def due_at(self) -> datetime:
        return min(self.last_at + DEBOUNCE, self.first_at + 10 * DEBOUNCE)


@dataclass(frozen=True, slots=True)
class Taken:
    """One step: what was before, what came, what was decided.

    Args:
        wanted: How many occasions the contract sees in it; None where it does not say.
    """

    trigger: model.Trigger
    around: guards.Around
    before: model.TriggerStatus
    at: datetime
    event: events.Event | None
    decision: drafts.Decision
    wanted: int | None


@dataclass(slots=True)
class Life:
    """A trigger, its surroundings, and two clocks: the true one and what it is set back by."""

    trigger: model.Trigger
    status: model.TriggerStatus = field(init=False)
    store: playing.Store = field(init=False)
    around: guards.Around = field(default_factory=guards.Around)
    passed: timedelta = timedelta(0)
    set_back: timedelta = timedelta(0)
    burst: Burst | None = None
    version: str = "1.0.0"

    def __post_init__(self) -> None:
        self.status = machine.begin(self.trigger, self.version, self.at)
        self.store = playing.Store(self.status)

    @property
    def at(self) -> datetime:
        """What the clock shows."""
        return scenario.START + self.passed - self.set_back

    def step(self, event: events.Event) -> Taken:
        """Take an event, as the contract has it and as the machine does."""
        before = self.status
        decision = machine.step(self.trigger, before, event, self.around)
        wanted = self._occasions(event)
        return self._kept(event, decision, wanted)

    def edit(self, after: model.Trigger) -> Taken:
        """Change the definition."""
        decision = machine.edit(self.trigger, after, self.status, self.version, self.at)
        if self.trigger.when != after.when or (self.trigger.is_enabled and not after.is_enabled):
            self.burst = None
        self.trigger = after
        return self._kept(None, decision, 0)

    def _kept(self, event: events.Event | None, decision: drafts.Decision, wanted: int | None) -> Taken:
        taken = Taken(self.trigger, self.around, self.status, self.at, event, decision, wanted)
        self.status = decision.status
        self.store.keep(decision)
        return taken

    def restart(self) -> None:
        """Bring back what was stored."""
        self.status = self.store.read()

    def _occasions(self, event: events.Event) -> int | None:
        """Count the occasions in an event, by the contract alone."""
        when, is_enabled = self.trigger.when, self.trigger.is_enabled
        found = int(isinstance(event, events.FiredByHand))
        if isinstance(when, model.VersionAvailable) and isinstance(event, events.Moved):
            found += self._moved(when, event.version)
        if isinstance(when, model.EventMatch):
            found += self._came(when, event)
        if isinstance(when, model.Threshold | model.Degradation | model.Schedule):
            return None if is_enabled else 0
        return found if is_enabled else 0

    def _moved(self, when: model.VersionAvailable, version: str) -> int:
        is_news = bool(version) and version != self.version and (bool(when.channel) or version > self.version)
        self.version = version if is_news else self.version
        return int(is_news)

    def _came(self, when: model.EventMatch, event: events.Event) -> int:
        is_arrival = isinstance(event, events.Arrived)
        if not self.trigger.is_enabled or not when.debounce:
            return int(is_arrival)
        if self.burst is not None and self.burst.last_at > event.at:
            self.burst = Burst(min(self.burst.first_at, event.at), event.at)
        is_over = self.burst is not None and self.burst.due_at <= event.at
        self.burst = None if is_over else self.burst
        if is_arrival:
            self.burst = Burst(self.burst.first_at if self.burst else event.at, event.at)
        return int(is_over)


def guarded(trigger: model.Trigger, **changes: object) -> model.Trigger:
    """Change guards."""
    return replace(trigger, guards=replace(trigger.guards, **changes))  # type: ignore[arg-type] # each has its type
