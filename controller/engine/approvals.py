"""Approvals of rollouts: what waits for one, and what people decide.

Rules kept: an approval is for the plan that was shown, so it is given only while the fleet would still be changed in
that way; the decision, who made it and why are stored in one transaction with what follows from it. Left out: when an
approval is needed (the request says so), and whether it can still be given (`controller.core.approving`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from controller.core import approving, errors, events, model
from controller.engine import admission, office, planning, rollouts, stepping
from controller.engine import draft as drafts
from controller.store import reading

_WAITING = frozenset({model.ApprovalState.WAITING})


@dataclass(frozen=True, slots=True)
class _Given:
    """What somebody approves, and why."""

    rollout_id: model.RolloutId
    actor: str
    reason: str


class Approvals(rollouts.Rollouts):
    """The approvals, as people see them."""

    # Whether who asked for a rollout may approve it too, as the configuration of the controller says.
    _requester_may = False

    def approvals(self, limit: int, *, with_decided: bool) -> tuple[model.Approval, ...]:
        """Return the newest approvals, newest first.

        Args:
            limit: How many at most.
            with_decided: Also those on which nobody has to decide any more.
        """
        states = frozenset(model.ApprovalState) if with_decided else _WAITING
        return self._store.read(lambda connection: reading.approvals(connection, states, limit))

    async def approve(self, name_or_id: str, *, reason: str, actor: str) -> model.Rollout:
        """Let a rollout begin that waits for an approval.

        Args:
            name_or_id: The rollout; a name means the newest that has it.
            reason: Why; may be empty.
            actor: Who approves it.

        Raises:
            NotFoundError: Code ``approval_not_found``.
            RefusedError: Code ``approval_not_needed``, ``approval_used``, ``approval_denied``, ``approval_expired``,
                ``approval_withdrawn``, ``approval_by_requester``, ``plan_stale`` or ``rollout_conflict``.
        """
        found = await self._awaiting("approve", name_or_id, actor)
        work = functools.partial(self._approve, _Given(found.id, actor, reason))
        asked = office.Asked(actor, "approve_rollout", found.id, found.request.component, found.id)
        ask = functools.partial(self._asked, asked, shown=self._written)
        return self.rollout(await self._on_plan(found.request, work, ask))

    async def deny(self, name_or_id: str, *, reason: str, actor: str) -> model.Rollout:
        """End a rollout that waits for an approval.

        Args:
            name_or_id: The rollout; a name means the newest that has it.
            reason: Why; may be empty.
            actor: Who denies it; may also be who asked for it.

        Raises:
            NotFoundError: Code ``approval_not_found``.
            RefusedError: Code ``approval_not_needed``, ``approval_used``, ``approval_denied``, ``approval_expired`` or
                ``approval_withdrawn``.
        """
        found = await self._awaiting("deny", name_or_id, actor)

        def work(draft: drafts.Draft) -> None:
            rollout, lease = self._ours(draft, found.id)
            stepping.feed(draft, rollout, lease, events.Denied(draft.at, actor, reason), actor=actor)
            draft.put_audit(actor, "approval.deny", found.id, reason)

        asked = office.Asked(actor, "deny_rollout", found.id, found.request.component, found.id)
        await self._asked(asked, work, lambda draft, _: self._written(draft, found.id))
        return self.rollout(found.id)

    async def _awaiting(self, verb: str, name_or_id: str, actor: str) -> model.Rollout:
        """Find a rollout that somebody wants to decide on.

        Raises:
            NotFoundError: Code ``approval_not_found``.
        """
        try:
            return self.rollout(name_or_id)
        except errors.NotFoundError:
            unknown = office.not_found("approval", "rollout", name_or_id)
            await self.keep_refusal(office.Asked(actor, f"{verb}_rollout", name_or_id, subject=name_or_id), unknown)
            raise unknown from None

    def _approve(self, given: _Given, made: rollouts.Made | None, draft: drafts.Draft) -> model.RolloutId:
        rollout, lease = self._ours(draft, given.rollout_id)
        event = events.Approved(draft.at, given.actor, given.reason, rollout.plan.fingerprint, self._requester_may)
        approving.check(rollout, event)
        self._check_fresh(draft, rollout, made)
        approved = stepping.feed(draft, rollout, lease, event, actor=given.actor)
        draft.put_audit(given.actor, "approval.approve", rollout.id, given.reason)
        return admission.approve(draft, approved, given.actor).id

    def _check_fresh(self, draft: drafts.Draft, rollout: model.Rollout, made: rollouts.Made | None) -> None:
        """Refuse to approve what is no longer what the fleet would be given.

        Raises:
            RefusedError: It would be given another plan, or none, by now, code ``plan_stale``.
        """
        verb = f"approve rollout {rollout.request.name}"
        try:
            plan = self._planned(draft, rollout.request, made)
        except errors.InstarError as error:
            if error.blame is not errors.Blame.CALLER:
                raise
            raise planning.stale(rollout.plan, f"cannot {verb}: {error}") from error
        planning.check_fresh(rollout.plan, plan, verb)
