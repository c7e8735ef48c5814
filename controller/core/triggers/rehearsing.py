"""What a trigger would have done: its machine, fed with what was recorded, on the time of the record.

Rules kept: pure; every action is taken to be done at once, and every approval to be given at once, which the result
says; freezes are not taken into account. Left out: what was recorded, and what of it is an occasion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from controller.core import copying, model, wording
from controller.core.triggers import draft as drafts
from controller.core.triggers import events, machine

FIRINGS_MAX = 10_000  # that are told of; more is a trigger that fires always
STEPS_MAX = 200_000  # events and deadlines; a month of minutes has a quarter of that

SOMEBODY = "somebody else"  # who approves
_F = model.FiringState
_EVALUATED = (events.Seen, events.Arrived, events.EvaluationFailed)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a trigger would have done.

    Args:
        until: Up to then; earlier than what was asked for where it would have been too much.
        firings: Each as it ended, or as it stood at the end, in order.
        notes: What was taken to be so, and what was left out, in sentences.
    """

    since: datetime
    until: datetime
    firings: tuple[model.Firing, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Run:
    trigger: model.Trigger
    status: model.TriggerStatus
    at: datetime
    firings: dict[model.FiringId, model.Firing]
    steps: int = 0
    faults: int = 0

    @property
    def is_too_much(self) -> bool:
        return len(self.firings) >= FIRINGS_MAX or self.steps >= STEPS_MAX

    def take(self, event: events.Event, at_begin: datetime) -> None:
        """Take what was recorded."""
        if event.at < at_begin:
            if isinstance(event, events.Moved):
                self.status = machine.begin(self.trigger, event.version, at_begin)
            return
        self.pass_to(event.at)
        if not _is_quiet(self.status, event) and not self._is_resting(event):
            self.faults += isinstance(event, events.EvaluationFailed)
            self.feed(event)

    def _is_resting(self, event: events.Event) -> bool:
        """Tell whether nobody would have looked: an evaluation had failed shortly before."""
        return isinstance(event, _EVALUATED) and not machine.can_evaluate(self.trigger, self.status, event.at)

    def feed(self, event: events.Event) -> None:
        """Take an event, and what follows from it at once."""
        waiting: list[events.Event] = [event]
        while waiting:
            decision = machine.step(self.trigger, self.status, waiting.pop(0), machine.NOTHING_AROUND)
            self.status, self.at, self.steps = decision.status, event.at, self.steps + 1
            self.firings |= {each.id: each for each in decision.firings}
            waiting += _answers(decision, event.at)

    def pass_to(self, until: datetime) -> None:
        """Let time pass, deadline by deadline."""
        while not self.is_too_much:
            due_at = machine.next_deadline(self.trigger, self.status, machine.NOTHING_AROUND)
            if due_at is None or due_at > until:
                return
            self.feed(events.Tick(max(due_at, self.at)))


def rehearse(trigger: model.Trigger, sights: Iterable[events.Event], at_begin: datetime, at_end: datetime) -> Rehearsal:
    """Give what a trigger would have done had it been there, enabled.

    Args:
        trigger: The definition.
        sights: What was seen, looked at, received or moved, in order. What was before the time counts for nothing,
            but that a version was available then.
        at_begin: It is created then.
        at_end: Its firings are left as they are then.
    """
    enabled = copying.replace(trigger, is_enabled=True, changed_at=None)
    run = _Run(enabled, machine.begin(enabled, "", at_begin), at_begin, {})
    for event in sights:
        if run.is_too_much or event.at > at_end:
            break
        run.take(event, at_begin)
    run.pass_to(at_end)
    until = run.at if run.is_too_much else at_end
    return Rehearsal(at_begin, until, tuple(run.firings.values()), tuple(_notes(run)))


def _is_quiet(status: model.TriggerStatus, event: events.Event) -> bool:
    return isinstance(event, events.Seen) and machine.is_quiet(status, event.node_id, is_met=event.is_met)


def _answers(decision: drafts.Decision, at: datetime) -> Iterator[events.Event]:
    """Say that what was begun is done, and that what asks is approved."""
    for each in decision.firings:
        if each.id in {act.id for act in decision.acts}:
            yield events.Acted(at, each.id, None, "it would have been done")
        elif each.state is _F.APPROVAL_AWAITED:
            yield events.Decided(at, each.id, SOMEBODY, "", is_approved=True)


def _notes(run: _Run) -> Iterator[str]:
    if not isinstance(run.trigger.action, model.Notify):
        yield "each action is taken to succeed at once, though a rollout takes its time and may fail"
    if run.trigger.guards.approval is not None:
        yield "each approval is taken to be given at once"
    if run.faults:
        yield f"{_times(run.faults)} an evaluation would have failed, after each of which it rests"
    yield "freezes are not taken into account"
    if run.is_too_much:
        yield f"it was given up at {wording.instant(run.at)}, after {len(run.firings)} firings"


def lines(rehearsal: Rehearsal) -> tuple[str, ...]:
    """Write a rehearsal for people."""
    return tuple(_lines(rehearsal))


def _lines(rehearsal: Rehearsal) -> Iterator[str]:
    acted = [each for each in rehearsal.firings if each.state is _F.SUCCEEDED]
    begin, end = wording.instant(rehearsal.since), wording.instant(rehearsal.until)
    yield f"would have fired {_times(len(acted))} between {begin} and {end}"
    for each in rehearsal.firings:
        yield f"  {wording.instant(each.fired_at)}  {_fate(each)}  {each.cause.message}"
    yield from (f"note: {each}" for each in rehearsal.notes)


def _fate(firing: model.Firing) -> str:
    if firing.state is not _F.SUCCEEDED:
        return f"{firing.state.value}, {firing.reason.message}:"
    released_at = firing.ended_at
    if released_at is None or released_at == firing.fired_at:
        return "fires:"
    return f"fires at {wording.instant(released_at)}:"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
