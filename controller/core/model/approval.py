"""Somebody's word that a plan may be carried out: asked for once, given once, used once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.core.model.words import ApprovalState, RolloutId


@dataclass(frozen=True, slots=True)
class Approval:
    """What a rollout waits for before it begins; one state row.

    Args:
        rollout_id: The rollout that asks, and the only one that may use it. A rollout asks once, so this is what
            tells approvals apart, too.
        name: Of the rollout, for people.
        subject: What is asked of which component, for people, for example ``web 1.1.0``.
        fingerprint: Of the plan that is approved; no other one may be carried out with it.
        requester: Who asked for the rollout.
        requested_at: When.
        expires_at: Instant from which nobody can give it any more; neither a pause nor an absence moves it.
        decider: Who approved or denied it; empty where nobody did.
        decided_at: When it was approved, denied, given up or found expired; None while it is waited for.
        reason: Why, as the decider said it; may be empty.
    """

    rollout_id: RolloutId
    name: str
    subject: str
    fingerprint: str
    requester: str
    requested_at: datetime
    expires_at: datetime
    state: ApprovalState = ApprovalState.WAITING
    decider: str = ""
    decided_at: datetime | None = None
    reason: str = ""
