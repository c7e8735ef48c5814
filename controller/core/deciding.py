"""What a rollout decides by itself, from its tally and its stored instants.

Rules kept: a decision is asked for until there is none left; only evidence about the version reverts (G8), in a pause
too; what would be judged by time waits while the rollout is paused. Left out: how a decision is carried out
(`turning`).
"""

from __future__ import annotations

from datetime import datetime

from controller.core import approving, gate, judging, model, progress, together, transitions
from controller.core import draft as drafts
from controller.core.transitions import Cause, Why

S = model.RolloutState
_NEVER = (None, None, None, None, None)


def decide(draft: drafts.Draft, at: datetime) -> transitions.Why | None:
    """Find the next decision, if there is one."""
    if draft.rollout.state is S.RUNNING:
        return _decide_forward(draft, at)
    if draft.rollout.state is S.PAUSED:
        why = _decide_on_version(draft, draft.verdict())
        return why if why is not None and why.cause is not Cause.VERSION_STOPPED else None
    if draft.rollout.state is S.REVERTING:
        return _decide_back(draft, at)
    return approving.overdue(draft.rollout, at) if draft.rollout.state is S.PENDING else None


def progress_by(rollout: model.Rollout) -> datetime | None:
    """Give the instant at which the lack of progress is judged; None where it is not."""
    if rollout.progress_by is None or rollout.idle_since is not None:
        return None
    return rollout.progress_by if rollout.judge_from is None else max(rollout.progress_by, rollout.judge_from)


def is_due(rollout: model.Rollout, at: datetime) -> bool:
    """Tell whether time alone may lead to a decision."""
    until = rollout.progress_by
    if until is not None and until <= at:
        return True
    judged_at = None if rollout.judging is None else judging.due_at(rollout)
    approved_by = None if rollout.approval is None else approving.expires_at(rollout)
    known = (rollout.bake_until, rollout.verify_until, rollout.deadline_at, judged_at, approved_by)
    return known != _NEVER and any(each is not None and each <= at for each in known)


def _is_late(draft: drafts.Draft, at: datetime) -> bool:
    until = progress_by(draft.rollout)
    return draft.progressed_at is None and until is not None and until <= at


def _decide_forward(draft: drafts.Draft, at: datetime) -> Why | None:
    rollout, verdict = draft.rollout, draft.verdict()
    if (why := _decide_on_version(draft, verdict)) is not None:
        return why
    if draft.is_giving_up:
        cause = Cause.LET_GO if rollout.is_cancelled else Cause.RELEASED
        is_over = _is_late(draft, at) or not draft.tally.holding
        return Why(cause, rollout.reason, rollout.message) if is_over else None
    if verdict.gate is model.Gate.FAIL:
        return Why(Cause.INFRASTRUCTURE_FAILED, verdict.reason, verdict.message)
    if rollout.deadline_at is not None and rollout.deadline_at <= at:
        return Why(Cause.DEADLINE_PASSED, "deadline_passed", f"it did not end within {draft.policy.deadline}")
    if verdict.gate is model.Gate.PROMOTE:
        return _decide_on_promotion(draft, at)
    if draft.is_together and (why := together.decide(draft, at)) is not None:
        return why
    if _is_late(draft, at):
        message = f"no node became healthy within {draft.policy.progress_deadline}"
        return Why(Cause.PROGRESS_LATE, "progress_late", message)
    return None


def _decide_on_version(draft: drafts.Draft, verdict: gate.Verdict) -> Why | None:
    """Go back where the version is at fault; stop where going back is not asked for, or a touched node cannot."""
    rollout, why = draft.rollout, _fault(draft.rollout, verdict)
    if why is None or rollout.is_version_at_fault:
        return None
    if not rollout.request.is_revertible:
        return Why(Cause.VERSION_STOPPED, why.reason, f"{why.message}; it is not to be reverted")
    stays = next((each for each in draft.begun() if not progress.can_go_back(each)), None)
    if stays is not None:
        return Why(Cause.VERSION_STOPPED, why.reason, f"{why.message}; {stays.change.no_way_back}")
    return why


def _fault(rollout: model.Rollout, verdict: gate.Verdict) -> Why | None:
    """Name what is evidence against the version: nodes on which it failed, or what the canary measures."""
    if verdict.gate is model.Gate.REVERT:
        return Why(Cause.VERSION_FAILED, verdict.reason, verdict.message)
    return judging.worse(rollout)


def _decide_on_promotion(draft: drafts.Draft, at: datetime) -> Why | None:
    """Let the next wave go out, once this one has baked and was judged, and nobody has to say so."""
    rollout = draft.rollout
    is_last = rollout.wave == draft.last_wave
    if not is_last and rollout.wave and rollout.bake_until is None and _has_to_bake(draft):
        return Why(Cause.BAKE_BEGAN)
    if rollout.bake_until is not None and at < rollout.bake_until:
        return None
    if judging.is_awaited(rollout):
        return judging.decide(draft, at)
    if draft.is_held_by_rules:
        return None
    if is_last:
        return Why(Cause.LAST_WAVE_PROMOTED)
    is_by_hand = draft.policy.is_promoted_by_hand and rollout.wave == 1 and not draft.is_together
    return None if is_by_hand and not rollout.is_promoted else Why(Cause.WAVE_PROMOTED)


def _has_to_bake(draft: drafts.Draft) -> bool:
    """Tell whether the wave has a bake, and something in it to bake: after a retry it may only be passed through."""
    rollout = draft.rollout
    if not rollout.plan.waves[rollout.wave - 1].bake_duration or rollout.wave_started_at is None:
        return False
    assigned = (draft.of(number).assigned_at for number in draft.numbers_in(rollout.wave))
    return any(each is not None and each >= rollout.wave_started_at for each in assigned)


def _decide_back(draft: drafts.Draft, at: datetime) -> Why | None:
    tally, rollout = draft.tally, draft.rollout
    if not (tally.holding or tally.settling or tally.retrying or tally.waiting):
        if not tally.infrastructure_failed:
            return Why(Cause.ALL_BACK, rollout.reason, rollout.message)
        failed = f"{tally.infrastructure_failed} of the touched nodes cannot go back"
        return Why(Cause.CANNOT_GO_BACK, "revert_failed", f"{failed}; going back because: {rollout.message}")
    if _is_late(draft, at):
        late = "not every node came back in time" if rollout.is_emergency else "no node came back"
        within = "" if rollout.is_emergency else f" within {draft.policy.progress_deadline}"
        return Why(Cause.CANNOT_GO_BACK, "revert_late", f"{late}{within}; going back because: {rollout.message}")
    return None
