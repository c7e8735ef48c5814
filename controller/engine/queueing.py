"""Rollouts that wait for nodes which others have: who is next, and beginning it once its nodes are free.

Theory of operation. A rollout that waits is PENDING, with a plan and without its nodes. Whenever a rollout ends, those
that wait are looked at in their order: the highest priority first, then the oldest. One whose nodes are free is planned
anew, for the fleet has gone on meanwhile, and begun with that plan; it goes on waiting where the new plan takes a node
that somebody has by now. What waits also keeps its nodes from those behind it, so that nobody is overtaken for ever.

Rules kept: what waits is stored, so a restart looks at it again; one whose new plan is refused ends CANCELLED, and says
why; what somebody has yet to approve is not among those that wait, and keeps no node from anybody; what was approved
begins with the plan that was, or not at all. Left out: who may wait (`admission`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import timedelta

from controller import clock as clocks
from controller.core import approving, errors, events, model
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.engine import planning, rules, standing, stepping, timing
from controller.engine import world as worlds
from controller.store import rows

# Time until what could not be looked at for want of something else is looked at again.
LOOK_AGAIN = timedelta(seconds=30)

_log = logging.getLogger(__name__)


def waiting(world: worlds.World) -> list[model.Rollout]:
    """Return the rollouts that wait, the next one first."""
    found = (each for each in world.rollouts.values() if each.state is model.RolloutState.PENDING)
    return sorted((each for each in found if not approving.is_awaited(each)), key=_rank)


def _rank(rollout: model.Rollout) -> tuple[int, str, str]:
    return -rollout.request.priority, rollout.created_at.isoformat(), rollout.id


def holders(world: worlds.World, wanted: model.Rollout) -> dict[model.RolloutId, model.NodeId]:
    """Return the rollouts that stand before one, each with a node that both want; those that have nodes come first."""
    nodes = {change.node_id for change in worlds.planned(wanted)}
    found: dict[model.RolloutId, model.NodeId] = {}
    for node_id in sorted(nodes):
        holder = world.claims.get(node_id)
        if holder is not None and holder != wanted.id:
            found.setdefault(holder, node_id)
    for other in waiting(world):
        if other.id == wanted.id or _rank(other) > _rank(wanted):
            break
        shared = next((each.node_id for each in worlds.planned(other) if each.node_id in nodes), None)
        if shared is not None:
            found.setdefault(other.id, shared)
    return found


def message(found: dict[model.RolloutId, model.NodeId]) -> str:
    """Say for whom a rollout waits."""
    first, *others = found
    return f"waits for rollout {first}" + (f" and {len(others)} more" if others else "")


def begin(draft: drafts.Draft, new: model.Rollout, lease: rows.Lease, plan: model.Plan | None = None) -> model.Rollout:
    """Draft the begin of a rollout, in the place of its plan with another one where that is given."""
    wanted = new if plan is None else replace(new, plan=plan)
    changed = wanted.plan.order.of_node
    told = standing.tell(draft, replace(new, message=""), lease, worlds.population(wanted), changed=changed)
    told = rules.tell(draft, told, lease)
    return stepping.feed(draft, told, lease, events.Began(draft.at, plan))


class Queue:
    """Begins what waits, one after another."""

    def __init__(self, desk: desks.Desk, clock: clocks.Clock, plans: planning.Planning) -> None:
        self._desk = desk
        self._clock = clock
        self._plans = plans
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look again: nodes may be free."""
        self._changed.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            self._changed.clear()
            is_done = [await self._try(each.id) for each in waiting(self._desk.world)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if all(is_done) else LOOK_AGAIN.total_seconds()):
                    await self._changed.wait()

    async def _try(self, rollout_id: model.RolloutId) -> bool:
        """Look at one that waits; False where that has failed by no fault of it."""
        try:
            await self._look_at(rollout_id)
        except Exception:  # noqa: BLE001 the fault of one rollout, or of the store, must not stop the others
            _log.exception("cannot begin rollout %s, which waits", rollout_id)
            return False
        return True

    async def _look_at(self, rollout_id: model.RolloutId) -> None:
        world = self._desk.world
        rollout = world.rollouts.get(rollout_id)
        if rollout is None or rollout.state is not model.RolloutState.PENDING:
            return
        found = holders(world, rollout)
        if found:
            if rollout.message != message(found):
                await self._desk.submit(lambda draft: wait_on(draft, rollout_id, message(found)))
            return
        try:
            plan = await self._plans.plan(world, rollout.request, self._clock.now())
            if rollout.approval is not None:
                planning.check_fresh(rollout.plan, plan, "begin what was approved")
                plan = rollout.plan
        except errors.InstarError as error:
            if error.blame is not errors.Blame.CALLER:
                raise
            refusal = error
            await self._desk.submit(lambda draft: _give_up(draft, rollout_id, refusal))
            return
        if not await self._desk.submit(lambda draft: self._begin(draft, rollout_id, world, plan)):
            self._changed.set()

    def _begin(self, draft: drafts.Draft, rollout_id: model.RolloutId, before: worlds.World, plan: model.Plan) -> bool:
        """Begin a rollout with its new plan; False where the world has gone on and it has to be looked at again."""
        rollout = draft.world.rollouts.get(rollout_id)
        if rollout is None or rollout.state is not model.RolloutState.PENDING:
            return True
        if not planning.is_same(before, draft.world):
            return False
        found = holders(draft.world, replace(rollout, plan=plan))
        if found:
            wait_on(draft, rollout_id, message(found))
        else:
            begin(draft, rollout, draft.world.leases[rollout_id], None if plan is rollout.plan else plan)
        return True


def wait_on(draft: drafts.Draft, rollout_id: model.RolloutId, why: str) -> None:
    """Draft that a rollout waits, and for whom."""
    rollout = draft.world.rollouts.get(rollout_id)
    if rollout is not None and rollout.state is model.RolloutState.PENDING and rollout.message != why:
        after = replace(rollout, message=why, revision=rollout.revision + 1)
        draft.put_rollout(after, (), draft.world.leases[rollout_id])


def _give_up(draft: drafts.Draft, rollout_id: model.RolloutId, error: errors.InstarError) -> None:
    reason = f"its turn came, and it was planned anew: {error}"
    event = events.CancelRequested(draft.at, stepping.CONTROLLER_ACTOR, reason)
    timing.feed_running(draft, rollout_id, event)
