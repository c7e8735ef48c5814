"""The rollout: from the first wave of a plan to its end, or back.

Theory of operation. A rollout takes facts (a node's word, time, an absence of the controller, nodes that come, go and
stand still) in every state and orders (begin, pause, promote, cancel, retry, revert) only where
`transitions.TRANSITIONS` has a row for them. What it takes (`facts`, `orders`) moves single changes (`progress`) and
with them the tally; then decisions (`deciding`, `gate`) follow from the tally until none is left, each of them again a
row of the table (`turning`); then free slots are filled (`dispatch`). The waves go out in order, each behind the gate
of the one before, its bake, the judgement of a canary wave where the request has an analysis (`judging`), and the
promotion by hand where the policy asks for one. A rollout that can no longer
succeed by no fault of the version, or that is cancelled, stays RUNNING with a reason, starts nothing, cancels what is
out, and ends once no node is held; one whose version is at fault is REVERTING: it waits for the outcome of what is out
and takes every touched node back. What ends is recorded for ever, also behind the end of the rollout, so that a later
revert knows every node that was touched.

Rules kept: pure; time comes with the event; every deadline is a stored instant; an event without a row raises and
changes nothing; a step looks at the node that spoke and at the tally, never at every change: only due deadlines, a
change of direction, an order and an absence do that. Left out: which nodes have something against them, and which
windows the fleet has: events tell the one, the policy the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from controller.core import (
    approving,
    asking,
    deciding,
    dispatch,
    effects,
    errors,
    events,
    facts,
    judging,
    model,
    orders,
    pausing,
    progress,
    together,
    turning,
    waiting,
)
from controller.core import draft as drafts
from controller.core.transitions import TRANSITIONS, Cause, cause_of

S = model.RolloutState


@dataclass(frozen=True, slots=True)
class Decision:
    """What a step decided.

    Args:
        rollout: The next state; the very object that went in where nothing changed, and then nothing is to be stored.
        effects: What is owed to the world, once the state is stored.
        changed: The changes that differ from the state before; all others are as they were.
    """

    rollout: model.Rollout
    effects: tuple[effects.Effect, ...] = ()
    changed: tuple[model.ChangeKey, ...] = ()


def create(
    rollout_id: model.RolloutId, request: model.UpgradeRequest, plan: model.Plan, *, actor: str, at: datetime
) -> model.Rollout:
    """Accept a plan; nothing is asked of a node before ``Began``."""
    return model.Rollout(
        id=rollout_id,
        request=request,
        plan=plan,
        state=S.PENDING,
        actor=actor,
        created_at=at,
        changes=orders.changes_of(plan),
        approval=approving.requested(rollout_id, request, plan, actor=actor, at=at),
    )


def step(rollout: model.Rollout, event: events.Event) -> Decision:
    """Take one event, and decide all that follows from it at this instant.

    Raises:
        IllegalEventError: The table has no row for the event in this state; nothing changed.
        RefusedError: An order that could do nothing; nothing changed.
    """
    cause = cause_of(event)
    if cause not in TRANSITIONS[rollout.state]:
        if isinstance(event, events.Approved | events.Denied):
            approving.check(rollout, event)  # says better why it comes too late
        raise _illegal(rollout, cause)
    draft = drafts.open_on(rollout)
    _take(draft, event)
    _settle(draft, event)
    changed = draft.changed if len(draft.changed) <= 1 else dict.fromkeys(draft.changed)
    return Decision(draft.finish(), tuple(draft.effects), tuple(changed))


def _illegal(rollout: model.Rollout, cause: Cause) -> errors.IllegalEventError:
    is_revert = cause is Cause.PAUSED and rollout.state is S.REVERTING
    return errors.IllegalEventError(
        f"cannot take the event '{cause.value}': rollout {rollout.id} is {rollout.state.value}",
        code="cannot_pause_revert" if is_revert else "illegal_event",
        field="state",
        value=rollout.state.value,
        rule=f"allowed in {', '.join(state.value for state, row in TRANSITIONS.items() if cause in row)}",
    )


def _settle(draft: drafts.Draft, event: events.Event) -> None:
    """Decide and fill until nothing more follows."""
    at = event.at
    is_word = isinstance(event, events.NodeReported)
    if is_word and not (draft.has_moved or draft.is_together or deciding.is_due(draft.rollout, at)):
        return  # most words of a node are of this kind
    while True:
        while (why := deciding.decide(draft, at)) is not None:
            turning.enter(draft, why, at)
        if not (draft.has_moved or draft.freed) or not dispatch.fill(draft, at):
            break
    if draft.changed or not is_word:
        pausing.doze(draft, at)


def _take(draft: drafts.Draft, event: events.Event) -> None:
    match event:
        case events.NodeReported():
            facts.hear(draft, event)
        case events.Ticked():
            facts.sweep(draft, event.at)
        case events.ControllerAbsent():
            facts.excuse(draft, event)
        case events.StandingChanged():
            facts.change_standing(draft, event)
        case events.NodeJoined():
            facts.join(draft, event)
        case events.NodeRemoved():
            facts.remove(draft, event)
        case events.Judged() | events.RulesChanged():
            _weigh(draft, event)
        case _:
            _obey(draft, event)


def _weigh(draft: drafts.Draft, event: events.Judged | events.RulesChanged) -> None:
    if isinstance(event, events.Judged):
        judging.hear(draft, event)
    else:
        facts.heed_rules(draft, event)


def _obey(draft: drafts.Draft, order: events.Order) -> None:
    match order:
        case events.Began() | events.Approved() | events.Denied():
            _open(draft, order)
        case events.Paused():
            orders.pause(draft, order)
        case events.Resumed():
            orders.resume(draft, order)
        case events.Promoted():
            orders.promote(draft, order)
        case events.CancelRequested():
            orders.cancel(draft, order)
        case events.RetryRequested():
            orders.retry(draft, order)
        case events.RevertRequested():
            orders.revert(draft, order)
        case _:
            assert_never(order)


def _open(draft: drafts.Draft, order: events.Began | events.Approved | events.Denied) -> None:
    """Take what is ordered of a rollout that has not begun."""
    match order:
        case events.Began():
            orders.begin(draft, order)
        case events.Approved():
            orders.approve(draft, order)
        case events.Denied():
            orders.deny(draft, order)
        case _:
            assert_never(order)


def next_deadline(rollout: model.Rollout) -> datetime | None:
    """Tell when a ``Ticked`` is due; it may find nothing to do, but none is missed. None while it is paused."""
    if rollout.state is S.PENDING:
        return approving.expires_at(rollout)
    if rollout.state not in (S.RUNNING, S.REVERTING):
        return None
    known = (
        rollout.due_at,
        deciding.progress_by(rollout),
        waiting.next_time(rollout),
        rollout.deadline_at,
        rollout.offline_until,
        judging.due_at(rollout),
    )
    return min((each for each in known if each is not None), default=None)


def outstanding(rollout: model.Rollout) -> tuple[effects.Effect, ...]:
    """Give the effects that may have to be performed again after a restart; looks at every change."""
    if rollout.state not in (S.RUNNING, S.PAUSED, S.REVERTING):
        return ()
    draft = drafts.open_on(rollout)
    is_cancelling = draft.is_going_back or draft.is_giving_up
    owed: list[effects.Effect] = []
    for each in draft.begun():
        if is_cancelling and asking.is_cancellable(each):
            owed.append(asking.cancel(each, rollout.reason))
        elif each.state is model.OperationState.ASSIGNED and not each.is_skipped:
            owed.append(asking.assign(each, rollout.request))
    if rollout.state is S.RUNNING and not is_cancelling:
        owed.extend(together.owed(draft.begun(), rollout.proceeded))
    return tuple(owed)


def dropped(rollout: model.Rollout) -> frozenset[model.ChangeKey]:
    """Name the changes that count as dropped; one that was done before is none, unless it should go back."""
    is_going_back = drafts.open_on(rollout).is_going_back
    skipped = ((key, each) for key, each in rollout.changes.items() if each.is_skipped)
    return frozenset(
        key for key, each in skipped if progress.place(each, is_going_back=is_going_back) is progress.Place.SKIPPED
    )


def waiting_for(rollout: model.Rollout, at: datetime) -> model.Reason | None:
    """Say why nothing more starts now; None where the rollout has ended."""
    return waiting.reason(drafts.open_on(rollout), at)


def next_time(rollout: model.Rollout) -> datetime | None:
    """Tell when the first of what is waited for is over by time alone: a bake, a verification, a closed window.

    Deadlines are none of these. None where none is waited for, where somebody has to promote it, and while it is not
    RUNNING.
    """
    return waiting.next_time(rollout)
