"""What becomes of open firings: held, asked about, acted upon, tried again, given up.

Rules kept: the oldest goes first; a firing is released once, and from then on counts for cooldown and cap; an action is
begun at most `ATTEMPTS_MAX` times; each failure starts the cooldown. Left out: the action (the shell performs it).
"""

from __future__ import annotations

from datetime import timedelta

from controller.core import copying, errors, model, wording
from controller.core.triggers import draft as drafts
from controller.core.triggers import events, guards, raising, transitions

ATTEMPTS_MAX = 3
RETRY_AFTER = timedelta(seconds=30)  # doubled with each attempt

_A = model.ApprovalState
_F = model.FiringState
_Sign = transitions.Sign


def advance(draft: drafts.Draft) -> None:
    """Take every open firing as far as it can go now."""
    for each in draft.status.open:
        if each.state is _F.APPROVAL_AWAITED:
            _await(draft, each)
        elif each.state is _F.HELD or (each.next_try_at is not None and each.next_try_at <= draft.at):
            _try(draft, each)


def reconsider(draft: drafts.Draft) -> None:
    """See to it that what is held is held against the guards that there are now."""
    for each in draft.status.open:
        if each.state is _F.HELD and each.reason.code != "guards_changed":
            draft.move(each, _Sign.WAITS, "guards_changed", "its guards were changed")


def _try(draft: drafts.Draft, firing: model.Firing) -> None:
    """Release a firing whose guards are all open; one that had been released before goes on."""
    against = guards.shut(draft.trigger, draft.status, firing, draft.around, draft.at)
    if against is None:
        _release(draft, firing)
    elif draft.at >= firing.held_until:
        draft.give_up(firing, "held_too_long", f"{against.message}, for too long")
    elif (firing.state, firing.reason.code, firing.reason.message) != (_F.HELD, against.code, against.message):
        draft.move(firing, _Sign.WAITS, against.code, against.message, next_try_at=None)


def _release(draft: drafts.Draft, firing: model.Firing) -> None:
    if firing.released_at is None:
        recent = tuple(each for each in draft.status.released if each > draft.at - guards.HOUR)
        draft.remember(released=(*recent, draft.at), cooling_since=draft.at)
        firing = copying.replace(firing, released_at=draft.at)
    if draft.trigger.guards.approval is not None and firing.approval is None:
        _ask(draft, firing, draft.trigger.guards.approval)
    elif isinstance(draft.trigger.action, model.Notify):
        draft.move(firing, _Sign.ENDS_WELL, "reported", draft.trigger.action.message or firing.cause.message)
    else:
        act(draft, firing)


def _ask(draft: drafts.Draft, firing: model.Firing, guard: model.ApprovalGuard) -> None:
    approval = model.FiringApproval(
        requester=firing.cause.actor or draft.trigger.changed_by,
        requested_at=draft.at,
        expires_at=draft.at + guard.deadline,
    )
    until = wording.instant(approval.expires_at)
    says = f"somebody has to approve it until {until}"
    draft.move(firing, _Sign.ASKS, "approval_awaited", says, approval=approval, next_try_at=None)


def act(draft: drafts.Draft, firing: model.Firing) -> None:
    """Begin what a firing does, once more or for the first time."""
    attempts = firing.attempts + 1
    message = f"attempt {attempts} of {ATTEMPTS_MAX}"
    acting = draft.move(firing, _Sign.ACTS, "acting", message, attempts=attempts, next_try_at=None)
    draft.acts[acting.id] = acting


def _await(draft: drafts.Draft, firing: model.Firing) -> None:
    approval = firing.approval
    if approval is None or draft.at < approval.expires_at:
        return
    expired = copying.replace(approval, state=_A.EXPIRED, decided_at=draft.at)
    draft.move(firing, _Sign.GIVES_UP, "approval_expired", "nobody approved it in time", approval=expired)


def decided(draft: drafts.Draft, event: events.Decided) -> None:
    """Take somebody's word on a firing.

    Raises:
        RefusedError: Code ``approval_not_needed``, ``approval_expired`` or ``approval_by_requester``.
    """
    firing = draft.find(event.firing_id)
    approval = firing.approval
    if firing.state is not _F.APPROVAL_AWAITED or approval is None:
        raise _refused(event, "nobody has to approve it now", "approval_not_needed", "only what asks is approved, once")
    if event.at >= approval.expires_at:
        raise _refused(event, "its time is over", "approval_expired", "an approval is given before it expires")
    guard = draft.trigger.guards.approval
    is_own = event.is_approved and event.actor == approval.requester
    if is_own and (guard is None or guard.by_another):
        rule = "who fires or applies a trigger does not approve its firing"
        raise _refused(event, f"{event.actor} asked for it", "approval_by_requester", rule)
    state = _A.APPROVED if event.is_approved else _A.DENIED
    known = copying.replace(approval, state=state, decider=event.actor, decided_at=event.at, reason=event.reason)
    why = f": {event.reason}" if event.reason else ""
    if event.is_approved:
        draft.move(firing, _Sign.APPROVED, "approved", f"{event.actor} approved it{why}", approval=known)
    else:
        draft.move(firing, _Sign.GIVES_UP, "approval_denied", f"{event.actor} denied it{why}", approval=known)


def acted(draft: drafts.Draft, event: events.Acted) -> None:
    """Take it that an action was begun.

    Raises:
        IllegalEventError: Nobody was asked for it.
    """
    firing = _find_in(draft, event.firing_id, _F.ACTING)
    if event.rollout_id is None:
        draft.move(firing, _Sign.ENDS_WELL, "nothing_to_do", event.message)
    else:
        draft.move(firing, _Sign.BEGINS, "rollout_begun", event.message, rollout_id=event.rollout_id)


def failed(draft: drafts.Draft, event: events.ActFailed) -> None:
    """Take it that an action could not be begun: it is tried again within its budget, while there is a reason to.

    Raises:
        IllegalEventError: Nobody was asked for it.
    """
    firing = _find_in(draft, event.firing_id, _F.ACTING)
    draft.remember(cooling_since=draft.at)
    if not event.is_retryable or firing.attempts >= ATTEMPTS_MAX or not _is_wanted(draft, firing):
        draft.move(firing, _Sign.ENDS_BADLY, event.code, event.message)
        return
    next_try_at = draft.at + RETRY_AFTER * 2 ** (firing.attempts - 1)
    draft.move(firing, _Sign.ACTS, event.code, event.message, next_try_at=next_try_at)


def rollout_ended(draft: drafts.Draft, event: events.RolloutEnded) -> None:
    """Take it that the rollout of a firing is at its end.

    Raises:
        IllegalEventError: It has none.
    """
    firing = _find_in(draft, event.firing_id, _F.RUNNING)
    is_rollback = firing.does is model.TriggerActionKind.ROLLBACK
    wanted = model.RolloutState.REVERTED if is_rollback else model.RolloutState.SUCCEEDED
    code = f"rollout_{event.state.value.lower()}"
    if event.state is wanted:
        draft.move(firing, _Sign.ENDS_WELL, code, event.message)
    else:
        draft.remember(cooling_since=draft.at)
        draft.move(firing, _Sign.ENDS_BADLY, code, event.message)


def _find_in(draft: drafts.Draft, firing_id: model.FiringId, state: model.FiringState) -> model.Firing:
    """Find an open firing of which something is under way."""
    firing = draft.find(firing_id)
    if firing.state is not state or not guards.has_begun(firing):
        raise errors.IllegalEventError(
            f"cannot go on with firing {firing_id}: it is {firing.state.value}, and nothing of it is under way",
            code="illegal_event",
            field="firing",
            value=firing_id,
            rule=f"it is under way in {state.value}",
        )
    return firing


def _is_wanted(draft: drafts.Draft, firing: model.Firing) -> bool:
    """Tell whether an action would still be begun: had nothing of it begun, the firing might have been dropped."""
    trigger, status = draft.trigger, draft.status
    is_over = raising.is_level(trigger, firing.cause) and not status.is_raised
    is_superseding = trigger.guards.concurrency is model.ConflictPolicy.SUPERSEDE
    is_superseded = is_superseding and status.open[-1].number > firing.number
    return trigger.is_enabled and not is_over and not is_superseded


def _refused(event: events.Decided, why: str, code: str, rule: str) -> errors.RefusedError:
    verb = "approve" if event.is_approved else "deny"
    message = f"cannot {verb} firing {event.firing_id}: {why}"
    return errors.RefusedError(message, code=code, field="firing", value=event.firing_id, rule=rule)
