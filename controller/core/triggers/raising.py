"""From an occasion to a firing: what is an edge, and what becomes of one that meets an earlier firing.

Rules kept: an occasion is the begin of something, so that what stays as it is fires once; each occasion of an enabled
trigger leaves a firing, also one on which nothing is done. Left out: what becomes of the firing next (`advancing`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from controller.core import errors, model, versions, wording
from controller.core.triggers import draft as drafts
from controller.core.triggers import events, guards, schedules, transitions

QUEUE_MAX = 16  # open firings of one trigger; more is a storm, and its firings would come hours late
NODES_SHOWN_MAX = 10
MISSED_AFTER = timedelta(seconds=60)  # a run that is looked at so late was missed
DEBOUNCES_MAX = 10  # a stream of events that never pauses fires all the same, after so many times the pause

_INSTANT = timedelta(microseconds=1)
_LEVELS = (model.Threshold, model.Degradation)


def is_level(trigger: model.Trigger, cause: model.Cause) -> bool:
    """Tell whether an occasion lasts, and can be over before anything was done."""
    return isinstance(trigger.when, _LEVELS) and not cause.actor


def occasion(draft: drafts.Draft, cause: model.Cause) -> model.Firing:
    """Make a firing of an occasion."""
    number = draft.status.number + 1
    draft.remember(number=number)
    trigger, at = draft.trigger, draft.at
    firing = model.Firing(
        id=model.FiringId(f"{trigger.id}.{number}"),
        trigger_id=trigger.id,
        trigger=trigger.name,
        number=number,
        state=model.FiringState.HELD,
        does=trigger.does,
        cause=cause,
        fired_at=at,
        reason=model.Reason("fired", cause.message, at),
        held_until=at + trigger.guards.held_max,
    )
    against = _against(draft, firing)
    if against is not None:
        return draft.move(firing, transitions.Sign.GIVES_UP, against.code, against.message)
    draft.put(firing)
    return firing


def _against(draft: drafts.Draft, firing: model.Firing) -> guards.Shut | None:
    """Find out whether a new firing is dropped at once; one that supersedes drops what has not begun."""
    trigger = draft.trigger
    concurrency = trigger.guards.concurrency
    against = guards.against_release(trigger, draft.status, draft.at)
    waits = is_level(trigger, firing.cause) or concurrency is model.ConflictPolicy.QUEUE
    if against is not None and not waits:
        return against
    rejected = guards.rejecting(trigger, draft.status)
    if rejected is not None:
        return rejected
    if concurrency is model.ConflictPolicy.SUPERSEDE:
        drop(draft, "superseded", f"firing {firing.number} takes its place")
    if len(draft.status.open) >= QUEUE_MAX:
        return guards.Shut("queue_full", f"{QUEUE_MAX} firings wait already", None)
    return None


def drop(draft: drafts.Draft, code: str, message: str) -> None:
    """Give up every firing of which nothing has begun."""
    for each in draft.status.open:
        if not guards.has_begun(each):
            draft.give_up(each, code, message)


def supersede(draft: drafts.Draft) -> None:
    """Let the newest firing take the place of those of which nothing has begun."""
    for each in draft.status.open[:-1]:
        if not guards.has_begun(each):
            draft.give_up(each, "superseded", f"firing {draft.status.open[-1].number} takes its place")


def levelled(draft: drafts.Draft) -> None:
    """Compare on how many nodes the condition holds with how many it takes."""
    when = draft.trigger.when
    wanted = when.nodes_min if isinstance(when, model.Threshold) else 1
    is_raised = draft.status.raised >= wanted
    if is_raised is draft.status.is_raised:
        return
    draft.remember(is_raised=is_raised)
    if is_raised:
        occasion(draft, _level_cause(draft))
        return
    for each in draft.status.open:
        if is_level(draft.trigger, each.cause) and not guards.has_begun(each):
            draft.give_up(each, "cleared", "the condition is over")


def _level_cause(draft: drafts.Draft) -> model.Cause:
    nodes = sorted(each for each, signal in draft.status.signals.items() if each is not None and signal.raised_at)
    shown = tuple(nodes[:NODES_SHOWN_MAX])
    if not nodes:
        return model.Cause("the condition holds on the fleet")
    rest = f" and {len(nodes) - len(shown)} more" if len(nodes) > len(shown) else ""
    return model.Cause(f"the condition holds on {', '.join(shown)}{rest}", node_ids=shown)


def arrived(draft: drafts.Draft, event: model.ReceivedEvent) -> None:
    """Take an event that matches: an occasion, or one more to wait for the silence after."""
    when = draft.trigger.when
    if not isinstance(when, model.EventMatch):
        return  # it matched what the trigger was before
    if not when.debounce:
        occasion(draft, _event_cause(event, 1))
        return
    debounced(draft)  # the silence was over before this one came
    known = draft.status.debounced
    first_at, count = (draft.at, 1) if known is None else (known.first_at, known.count + 1)
    draft.remember(debounced=model.Debounced(event, count, first_at, draft.at))


def debounced_at(trigger: model.Trigger, status: model.TriggerStatus) -> datetime | None:
    """Tell when the events that have come are an occasion, if no further one comes; None where none has."""
    when, known = trigger.when, status.debounced
    if known is None or not isinstance(when, model.EventMatch):
        return None
    return min(known.last_at + when.debounce, known.first_at + DEBOUNCES_MAX * when.debounce)


def debounced(draft: drafts.Draft) -> None:
    """Fire for events after which there was silence for long enough."""
    due_at, known = debounced_at(draft.trigger, draft.status), draft.status.debounced
    if known is not None and due_at is not None and due_at <= draft.at:
        draft.remember(debounced=None)
        occasion(draft, _event_cause(known.event, known.count))


def _event_cause(event: model.ReceivedEvent, count: int) -> model.Cause:
    many = f", the last of {count}" if count > 1 else ""
    about = f" about {event.subject}" if event.subject else ""
    message = f"event {event.type}{about} came from {event.source}{many}"
    return model.Cause(message, event_source=event.source, event_id=event.id)


def moved(draft: drafts.Draft, version: str) -> None:
    """Take what is available now; within a range only what is higher than ever counts."""
    when, seen = draft.trigger.when, draft.status.seen_version
    if not isinstance(when, model.VersionAvailable) or version == seen or not version:
        return
    if not when.channel and seen and not versions.is_lower(seen, version):
        return
    draft.remember(seen_version=version)
    if draft.trigger.is_enabled:
        where = f"channel {when.channel} points to" if when.channel else "there is"
        occasion(draft, model.Cause(f"{where} {when.component} {version}", version=version))


def due(draft: drafts.Draft) -> None:
    """Fire for a run of a schedule that is due, or by the policy for one that was missed."""
    when, due_at = draft.trigger.when, draft.status.next_run_at
    if not isinstance(when, model.Schedule) or due_at is None or due_at > draft.at:
        return
    on_time = schedules.next_run(when, max(due_at, draft.at - MISSED_AFTER) - _INSTANT)
    if on_time is not None and on_time <= draft.at:
        draft.remember(next_run_at=schedules.next_run(when, on_time))
        occasion(draft, model.Cause(f"it was due at {wording.instant(on_time)}", due_at=on_time))
        return
    draft.remember(next_run_at=schedules.next_run(when, draft.at))
    if when.missed is model.MissedPolicy.ONCE:
        occasion(draft, model.Cause(f"the run of {wording.instant(due_at)} was missed", due_at=due_at))


def by_hand(draft: drafts.Draft, event: events.FiredByHand) -> None:
    """Fire because somebody says so.

    Raises:
        RefusedError: Code ``trigger_disabled``.
    """
    if not draft.trigger.is_enabled:
        raise errors.RefusedError(
            f"cannot fire trigger {draft.trigger.name}: it is disabled",
            code="trigger_disabled",
            field="name",
            value=draft.trigger.name,
            rule="a disabled trigger does not fire, also not by hand",
        )
    why = f": {event.reason}" if event.reason else ""
    cause = model.Cause(f"{event.actor} fired it{why}", event_id=event.request_id, actor=event.actor)
    occasion(draft, cause)
