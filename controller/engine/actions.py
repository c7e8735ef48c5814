"""Does what firings do: starts an upgrade, or takes back what was done last.

Rules kept: what is done and that the firing did it are one transaction, so it is done once whatever fails in between;
whatever is refused is refused as it would be to people, and is on the record under the name of the trigger. Left out:
when a firing acts (`controller.core.triggers`), and how often it is tried (`triggering`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import assert_never

from controller.core import errors, model, selector
from controller.core import events as rollout_events
from controller.core.triggers import events
from controller.engine import admission, emergency, firing, office, rollouts, stepping
from controller.engine import draft as drafts
from controller.store import rows

GOES_BACK = frozenset({model.RolloutState.REVERTING})
UNDER_WAY = frozenset({model.RolloutState.RUNNING, model.RolloutState.PAUSED, *GOES_BACK})


def request_id(wanted: model.Firing) -> str:
    """Name what a firing asks for, which is done once."""
    return f"trigger:{wanted.id}"


class Actions(rollouts.Rollouts):
    """What firings do."""

    async def _act(self, wanted: model.Firing) -> None:
        """Do what a firing does, and draft that it was done.

        Raises:
            InstarError: It cannot be done.
        """
        trigger = self._desk.world.triggers.get(wanted.trigger)
        if trigger is None or trigger.id != wanted.trigger_id:
            raise errors.IllegalEventError(
                f"cannot act on firing {wanted.id}: its trigger is gone", code="illegal_event", field="firing"
            )
        match trigger.action:
            case model.Upgrade(request=request):
                await self._upgrade(wanted, _wanted_request(trigger, request, wanted))
            case model.Rollback() as action:
                await self._roll_back(wanted, action)
            case model.Notify():
                raise errors.IllegalEventError(
                    f"cannot act on firing {wanted.id}: it only reports", code="illegal_event", field="firing"
                )
            case _:
                assert_never(trigger.action)

    async def _upgrade(self, wanted: model.Firing, request: model.UpgradeRequest) -> None:
        actor = firing.actor_of(wanted.trigger)
        by = admission.By(actor, self._owner, self._ids, self._clock.now())
        order = rollouts.Order(admission.named(request), request_id(wanted), None, by)
        ask = functools.partial(self._asked, office.Asked(actor, "start_upgrade", request, request.component))
        await self._on_plan(order.wanted, functools.partial(self._begin_upgrade, wanted, order), ask)

    def _begin_upgrade(
        self, wanted: model.Firing, order: rollouts.Order, made: rollouts.Made | None, draft: drafts.Draft
    ) -> model.RolloutId:
        rollout_id = self._start(order, made, draft)
        self._begun(draft, wanted, rollout_id, f"it began rollout {rollout_id}")
        return rollout_id

    async def _roll_back(self, wanted: model.Firing, action: model.Rollback) -> None:
        actor = firing.actor_of(wanted.trigger)
        asked = office.Asked(actor, "revert_rollout", action, action.component)
        await self._asked(asked, functools.partial(self._begin_rollback, wanted, action))

    def _begin_rollback(self, wanted: model.Firing, action: model.Rollback, draft: drafts.Draft) -> None:
        known = self._requested(draft, request_id(wanted))
        if known is not None:
            self._begun(draft, wanted, known, f"it took rollout {known} back")
            return
        rollout, lease = self._latest(draft, action)
        if rollout.state not in GOES_BACK:
            self._take_back(draft, wanted, rollout, lease)
        draft.requests[request_id(wanted)] = rollout.id
        self._begun(draft, wanted, rollout.id, f"it took rollout {rollout.id} back")

    def _latest(self, draft: drafts.Draft, action: model.Rollback) -> emergency.Stepped:
        """Find what is to be taken back.

        Raises:
            NotFoundError: Code ``nothing_to_roll_back``.
        """
        found = emergency.latest(draft, action.component, selector.parse(action.selector), UNDER_WAY, self._ended)
        if found is None:
            raise errors.NotFoundError(
                f"cannot roll {action.component} back: no rollout of it is under way, or has led to what a node runs",
                code="nothing_to_roll_back",
                field="component",
                value=action.component,
                rule="what is taken back was done by a rollout",
            )
        return found

    def _take_back(self, draft: drafts.Draft, wanted: model.Firing, rollout: model.Rollout, lease: rows.Lease) -> None:
        actor = firing.actor_of(wanted.trigger)
        event = rollout_events.RevertRequested(draft.at, actor, wanted.cause.message)
        try:
            stepping.feed(draft, self._take_up(draft, rollout, lease, goes_back=True), lease, event, actor=actor)
        except errors.IllegalEventError as error:
            raise errors.RefusedError(
                str(error), code=error.code, field=error.field, value=error.value, rule=error.rule
            ) from error
        draft.put_audit(actor, "rollout.revert", rollout.id, wanted.cause.message)

    def _begun(self, draft: drafts.Draft, wanted: model.Firing, rollout_id: model.RolloutId, message: str) -> None:
        """Draft that a firing has begun a rollout; one that has ended meanwhile is told to it at once."""
        firing.feed(draft, wanted.trigger, events.Acted(draft.at, wanted.id, rollout_id, message))
        found = self._find_rollout(draft, rollout_id)
        if found is not None and found[0].state.is_terminal:
            firing.tell_end(draft, found[0])


def _wanted_request(
    trigger: model.Trigger, request: model.UpgradeRequest, wanted: model.Firing
) -> model.UpgradeRequest:
    """Make the request of a firing: the version may be the one that has become available."""
    target = request.target_version
    if request.kind is None:
        target = target or wanted.cause.version
    return dataclasses.replace(request, target_version=target, conflict=trigger.guards.concurrency)
