"""The machine of a trigger: one event at a time, from what it remembers to what it then remembers.

Theory of operation. An event may be an occasion, which makes a firing (`raising`), or tell of a firing that is open.
Then every open firing goes as far as its guards let it (`advancing`). What the shell has to do is named by id, and is
named again by `outstanding` until the shell has said what became of it.

Rules kept: pure; time is in the event, and what is to happen later is a stored instant; an illegal event raises and
changes nothing. Left out: whether a condition holds, an event matches or a version is available; the action.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import assert_never

from controller.core import errors, model
from controller.core.triggers import advancing, clocks, events, guards, raising, schedules, signals
from controller.core.triggers import draft as drafts

FAULTS_MAX = 5  # evaluations in a row that fail in themselves; more, and it is the definition that is wrong
FAULT_PAUSE_MIN = timedelta(minutes=1)

NOTHING_AROUND = guards.Around()
# Occasions that are over at once: what was to happen before one has happened, though nobody has looked.
_INSTANTS = (events.Arrived, events.Moved, events.FiredByHand)
_OCCASIONS = (
    events.Seen,
    events.Looked,
    events.Arrived,
    events.EvaluationFailed,
)  # what a disabled trigger takes no notice of


def begin(trigger: model.Trigger, seen_version: str, at: datetime) -> model.TriggerStatus:
    """Give what a new trigger remembers.

    Args:
        trigger: The definition.
        seen_version: What is available already, and no occasion.
        at: Now.
    """
    return model.TriggerStatus(trigger.id, next_run_at=_next_run(trigger, at), seen_version=seen_version)


def edit(
    before: model.Trigger, after: model.Trigger, status: model.TriggerStatus, seen_version: str, at: datetime
) -> drafts.Decision:
    """Give what a trigger remembers of itself once its definition is another one, or it is enabled or disabled.

    Raises:
        UnavailableError: What it did before is just being begun, code ``firing_acting``.
    """
    _check_idle(before, after, status)
    draft = drafts.Draft(after, status, NOTHING_AROUND, at)
    is_other = before.when != after.when
    is_stopped = before.is_enabled and not after.is_enabled
    if is_other or before.action != after.action:
        raising.drop(draft, "trigger_changed", "the trigger was changed")
    if is_stopped:
        raising.drop(draft, "trigger_disabled", "the trigger was disabled")
    if after.guards.concurrency is model.ConflictPolicy.SUPERSEDE:
        raising.supersede(draft)
    if before.guards != after.guards:
        advancing.reconsider(draft)
    if is_other or is_stopped:
        draft.drop_signals()
        draft.remember(debounced=None, fault=None)
    if is_other:
        draft.remember(seen_version=seen_version)
    if is_other or before.is_enabled is not after.is_enabled:
        draft.remember(next_run_at=_next_run(after, at))
    return draft.decision()


def remove(trigger: model.Trigger, status: model.TriggerStatus, at: datetime) -> drafts.Decision:
    """End what is open of a trigger that is taken away.

    Raises:
        RefusedError: Something that it has begun is not at its end, code ``firing_open``.
    """
    begun = next((each for each in status.open if guards.has_begun(each)), None)
    if begun is not None:
        raise errors.RefusedError(
            f"cannot remove trigger {trigger.name}: firing {begun.number} is {begun.state.value}",
            code="firing_open",
            field="name",
            value=trigger.name,
            rule="what a trigger has begun is followed to its end",
        )
    draft = drafts.Draft(trigger, status, NOTHING_AROUND, at)
    raising.drop(draft, "trigger_removed", "the trigger was removed")
    draft.drop_signals()
    return draft.decision()


def step(
    trigger: model.Trigger, status: model.TriggerStatus, event: events.Event, around: guards.Around
) -> drafts.Decision:
    """Take one event.

    Raises:
        IllegalEventError: It cannot be.
        RefusedError: Somebody asks for what the trigger does not allow.
    """
    draft = drafts.Draft(trigger, status, around, event.at)
    clocks.settle(draft)
    if isinstance(event, _INSTANTS):
        _pass(draft)
    _take(draft, event)
    _pass(draft)
    return draft.decision()


def next_deadline(trigger: model.Trigger, status: model.TriggerStatus, around: guards.Around) -> datetime | None:
    """Tell when time alone changes something; None for never."""
    found = (*_raises_at(trigger, status), *(_moves_at(trigger, status, around)))
    return min((each for each in found if each is not None), default=None)


def outstanding(status: model.TriggerStatus) -> tuple[model.Firing, ...]:
    """Give the firings whose action was begun, and of which nobody has said what became of it."""
    acting = (each for each in status.open if each.state is model.FiringState.ACTING)
    return tuple(each for each in acting if each.next_try_at is None)


def can_evaluate(trigger: model.Trigger, status: model.TriggerStatus, at: datetime) -> bool:
    """Tell whether it has a sense to find out now whether there is an occasion."""
    fault = status.fault
    return trigger.is_enabled and (fault is None or (fault.retry_at is not None and at >= fault.retry_at))


def is_quiet(status: model.TriggerStatus, node_id: model.NodeId, *, is_met: bool | None) -> bool:
    """Tell whether what was seen on a node changes nothing, without a step: so it is on most nodes."""
    return not is_met and status.fault is None and node_id not in status.signals


def _take(draft: drafts.Draft, event: events.Event) -> None:  # noqa: C901, PLR0912 one case for each event
    if not draft.trigger.is_enabled and isinstance(event, _OCCASIONS):
        return
    match event:
        case events.Seen() | events.Looked():
            _take_sight(draft, event)
        case events.Gone(node_id=node_id):
            draft.put_signal(node_id, None)
            raising.levelled(draft)
        case events.Arrived(event=arrived):
            _found_out(draft)
            raising.arrived(draft, arrived)
        case events.Moved(version=version):
            _found_out(draft)
            raising.moved(draft, version)
        case events.FiredByHand():
            raising.by_hand(draft, event)
        case events.Decided():
            advancing.decided(draft, event)
        case events.Acted():
            advancing.acted(draft, event)
        case events.ActFailed():
            advancing.failed(draft, event)
        case events.RolloutEnded():
            advancing.rollout_ended(draft, event)
        case events.EvaluationFailed(code=code, message=message):
            _fail(draft, code, message)
        case events.Tick():
            pass
        case _:
            assert_never(event)


def _take_sight(draft: drafts.Draft, event: events.Seen | events.Looked) -> None:
    before = draft.status.signals.get(event.node_id)
    match event, draft.trigger.when:
        case events.Seen(), model.Threshold() as when:
            after = signals.seen(when, before, event)
        case events.Looked(), model.Degradation():
            after = signals.looked(before, event)
        case _:
            return  # it was looked at by what the trigger was before
    _found_out(draft)
    draft.put_signal(event.node_id, after)
    raising.levelled(draft)


def _found_out(draft: drafts.Draft) -> None:
    """Forget that an evaluation failed: this one did not."""
    if draft.status.fault is not None:
        draft.remember(fault=None)


def _pass(draft: drafts.Draft) -> None:
    """Let time pass, and every open firing go as far as its guards let it."""
    if draft.trigger.is_enabled:
        raising.due(draft)
        raising.debounced(draft)
    advancing.advance(draft)


def _fail(draft: drafts.Draft, code: str, message: str) -> None:
    count = 1 if draft.status.fault is None else draft.status.fault.count + 1
    pause = max(draft.trigger.guards.cooldown, FAULT_PAUSE_MIN)
    retry_at = draft.at + pause if count < FAULTS_MAX else None
    fault = model.EvaluationFault(code, message, draft.at, count, retry_at)
    draft.remember(fault=fault, cooling_since=draft.at)


def _check_idle(before: model.Trigger, after: model.Trigger, status: model.TriggerStatus) -> None:
    acting = outstanding(status)
    if acting and before.action != after.action:
        raise errors.UnavailableError(
            f"cannot change trigger {before.name} now: firing {acting[0].number} is being acted upon",
            code="firing_acting",
            field="action",
            value=before.name,
            rule="an action is changed between two firings",
        )


def _next_run(trigger: model.Trigger, at: datetime) -> datetime | None:
    if not isinstance(trigger.when, model.Schedule) or not trigger.is_enabled:
        return None
    return schedules.next_run(trigger.when, at)


def _raises_at(trigger: model.Trigger, status: model.TriggerStatus) -> Iterator[datetime | None]:
    if trigger.is_enabled:
        yield status.next_run_at
        yield raising.debounced_at(trigger, status)


def _moves_at(trigger: model.Trigger, status: model.TriggerStatus, around: guards.Around) -> Iterator[datetime | None]:
    for each in status.open:
        if each.state is model.FiringState.APPROVAL_AWAITED:
            yield None if each.approval is None else each.approval.expires_at
        elif each.next_try_at is not None:
            yield each.next_try_at
        elif each.state is model.FiringState.HELD:
            yield each.held_until
            yield _opens_at(trigger, status, each, around)


def _opens_at(
    trigger: model.Trigger, status: model.TriggerStatus, firing: model.Firing, around: guards.Around
) -> datetime | None:
    """Tell when the guard that is shut opens, as far as it was when the firing was last looked at.

    Where none is, by an edit or since a freeze was lifted, that was long ago.
    """
    looked_at = (firing.fired_at, firing.reason.since, status.cooling_since)  # a cooldown begins in a step, as well
    at = max(each for each in looked_at if each is not None)
    against = guards.shut(trigger, status, firing, around, at)
    return at if against is None else against.opens_at
