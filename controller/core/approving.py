"""Whether a rollout that somebody has to approve may begin: one approval, for one plan, once, in time.

Rules kept: nothing begins before it is approved; an approval stands for the plan that was shown, by its fingerprint,
and serves one beginning of the rollout that asked for it; who asked for a rollout does not approve it, unless the
controller was told that this is allowed; the time to decide ends at a stored instant. Left out: who somebody is, and
what plan the fleet gives by now, which the event says.
"""

from __future__ import annotations

from datetime import datetime

from controller.core import copying, errors, events, model, wording
from controller.core.transitions import Cause, Why

A = model.ApprovalState
_CODES = {
    A.APPROVED: "approval_used",
    A.DENIED: "approval_denied",
    A.EXPIRED: "approval_expired",
    A.WITHDRAWN: "approval_withdrawn",
}
_RULES = {
    A.APPROVED: "an approval is given and used once",
    A.DENIED: "what was denied has to be asked for anew",
    A.EXPIRED: "an approval is given before it expires",
    A.WITHDRAWN: "what was cancelled has to be asked for anew",
}


def requested(
    rollout_id: model.RolloutId, request: model.UpgradeRequest, plan: model.Plan, *, actor: str, at: datetime
) -> model.Approval | None:
    """Ask for the approval that a request needs; None where it needs none."""
    if request.approval_deadline is None:
        return None
    return model.Approval(
        rollout_id=rollout_id,
        name=request.name,
        subject=f"{request.component} {request.purpose}",
        fingerprint=plan.fingerprint,
        requester=actor,
        requested_at=at,
        expires_at=at + request.approval_deadline,
    )


def is_awaited(rollout: model.Rollout) -> bool:
    """Tell whether somebody has yet to approve a rollout."""
    return rollout.approval is not None and rollout.approval.state is A.WAITING


def expires_at(rollout: model.Rollout) -> datetime | None:
    """Give the instant at which nobody can approve a rollout any more; None where nobody has to."""
    approval = rollout.approval
    return approval.expires_at if approval is not None and approval.state is A.WAITING else None


def overdue(rollout: model.Rollout, at: datetime) -> Why | None:
    """Decide that the time to approve a rollout is over."""
    approval = rollout.approval
    if approval is None or approval.state is not A.WAITING or at < approval.expires_at:
        return None
    return Why(Cause.APPROVAL_EXPIRED, _CODES[A.EXPIRED], _late(approval))


def waits(rollout: model.Rollout) -> model.Reason | None:
    """Say that an approval is waited for; None where none is."""
    approval = rollout.approval
    if approval is None or approval.state is not A.WAITING:
        return None
    says = f"somebody has to approve it until {wording.instant(approval.expires_at)}; {approval.requester} asked for it"
    return model.Reason("approval_awaited", says, approval.requested_at)


def check(rollout: model.Rollout, event: events.Approved | events.Denied) -> model.Approval:
    """Give the approval of a rollout that can still be given or denied, by whoever does so.

    Raises:
        RefusedError: Code ``approval_not_needed``, ``approval_used``, ``approval_denied``, ``approval_expired``,
            ``approval_withdrawn`` or ``approval_by_requester``.
    """
    approval, verb = rollout.approval, "approve" if isinstance(event, events.Approved) else "deny"
    if approval is None:
        raise refused(verb, rollout, "nobody has to", "approval_not_needed", "only what asks for it is approved")
    if approval.state is not A.WAITING:
        raise refused(verb, rollout, _past(approval), _CODES[approval.state], _RULES[approval.state])
    if event.at >= approval.expires_at:
        raise refused(verb, rollout, _late(approval), _CODES[A.EXPIRED], _RULES[A.EXPIRED])
    if isinstance(event, events.Approved) and event.actor == approval.requester and not event.requester_may:
        why = f"{event.actor} asked for it"
        raise refused(verb, rollout, why, "approval_by_requester", "who asks for a rollout does not approve it")
    return approval


def check_plan(rollout: model.Rollout, fingerprint: str, verb: str) -> None:
    """Refuse to carry out another plan than the one that was shown.

    Raises:
        RefusedError: Code ``plan_stale``.
    """
    approval = rollout.approval
    if approval is not None and fingerprint != approval.fingerprint:
        rule = "an approval is for one plan"
        raise refused(verb, rollout, "the fleet gives another plan by now", "plan_stale", rule)


def check_begin(rollout: model.Rollout, event: events.Began) -> None:
    """Refuse to begin what nobody has approved, or with another plan than the approved one.

    Raises:
        RefusedError: Code ``approval_missing`` or ``plan_stale``.
    """
    if is_awaited(rollout):
        raise _missing("begin", rollout)
    if event.plan is not None:
        check_plan(rollout, event.plan.fingerprint, "begin")


def check_retry(rollout: model.Rollout) -> None:
    """Refuse to begin a rollout by trying it again that was never approved, or whose approval has served already.

    Raises:
        RefusedError: Code ``approval_missing`` or ``approval_used``.
    """
    approval = rollout.approval
    if approval is None:
        return
    if approval.state is not A.APPROVED:
        raise _missing("retry", rollout)
    if rollout.state is model.RolloutState.REVERTED or not rollout.reached:
        why = "it was approved for one beginning, and has ended"
        raise refused("retry", rollout, why, _CODES[A.APPROVED], _RULES[A.APPROVED])


def decided(approval: model.Approval, event: events.Approved | events.Denied) -> model.Approval:
    """Give an approval as somebody has decided on it."""
    state = A.APPROVED if isinstance(event, events.Approved) else A.DENIED
    return copying.replace(approval, state=state, decider=event.actor, decided_at=event.at, reason=event.reason)


def ended(approval: model.Approval, why: Why, at: datetime) -> model.Approval:
    """Give the approval of a rollout that ends: nobody has to decide on it any more."""
    if approval.state is not A.WAITING:
        return approval
    state = A.EXPIRED if why.cause is Cause.APPROVAL_EXPIRED else A.WITHDRAWN
    return copying.replace(approval, state=state, decided_at=at, reason=why.message)


def refused(verb: str, rollout: model.Rollout, why: str, code: str, rule: str) -> errors.RefusedError:
    """Make the refusal of something that an approval stands against."""
    message = f"cannot {verb} rollout {rollout.request.name or rollout.id}: {why}"
    return errors.RefusedError(message, code=code, field="rollout", value=rollout.id, rule=rule)


def _missing(verb: str, rollout: model.Rollout) -> errors.RefusedError:
    rule = "what has to be approved begins once it is, and never without"
    return refused(verb, rollout, "nobody has approved it", "approval_missing", rule)


def _past(approval: model.Approval) -> str:
    """Say what has become of an approval."""
    if approval.decider:
        word = "approved" if approval.state is A.APPROVED else "denied"
        return f"{approval.decider} has {word} it already"
    return approval.reason


def _late(approval: model.Approval) -> str:
    return f"nobody approved it until {wording.instant(approval.expires_at)}"
