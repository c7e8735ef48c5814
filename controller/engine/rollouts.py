"""What people do with rollouts: plan, start, follow and lead them.

Rules kept: a request that is asked twice under one identity is done once; a saved plan is applied exactly, or not at
all; whatever a rollout cannot take in its state is refused, and changes nothing; one that is taken up again after its
end is told first how its nodes stand by now. Left out: what a verb does (`controller.core.rollout`).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from controller.core import errors, events, explain, model
from controller.engine import admission, courses, dependents, emergency, office, planning, rules, standing, stepping
from controller.engine import draft as drafts
from controller.engine import world as worlds
from controller.store import reading, retiring, rows

# Times that a large plan is made beside the loop; if the world has gone on each time, it is made on the loop.
PLAN_TRIES = 3
# With which every identity of a rollout begins; what follows sorts by time.
ROLLOUT_PREFIX = "r-"

Ordered = Callable[[datetime], events.Event]


class _WorldMovedError(Exception):
    """What a plan depends on has changed since it was made."""


@dataclass(frozen=True, slots=True)
class Order:
    """A rollout that somebody wants.

    Args:
        saved: The plan that is to be applied; None for whatever plan the fleet gives.
    """

    wanted: model.UpgradeRequest
    request_id: str
    saved: model.Plan | None
    by: admission.By


@dataclass(frozen=True, slots=True)
class Made:
    """A plan, and the world that it was made from."""

    before: worlds.World
    plan: model.Plan


OnPlan = Callable[[Made | None, drafts.Draft], model.RolloutId]
Ask = Callable[[Callable[[drafts.Draft], model.RolloutId]], Awaitable[model.RolloutId]]


class Rollouts(office.Office):
    """The rollouts, as people see them."""

    async def plan(self, request: model.UpgradeRequest, *, actor: str = "") -> model.Plan:
        """Say what a request would do.

        Raises:
            InstarError: The planner's; or UnavailableError, code ``plan_late``.
        """
        wanted = admission.named(request)
        try:
            return await self._plans.plan(self._desk.world, wanted, self._clock.now())
        except errors.InstarError as error:
            await self.keep_refusal(office.Asked(actor, "plan_upgrade", request, request.component), error)
            raise

    async def start_upgrade(
        self, request: model.UpgradeRequest, *, request_id: str, actor: str, saved: model.Plan | None = None
    ) -> model.Rollout:
        """Plan a request and begin its rollout; the same request identity again returns the same rollout.

        Args:
            request: What is wanted.
            request_id: Chosen by the caller; empty for none.
            actor: Who wants it.
            saved: The plan that is to be applied; None for whatever plan the fleet gives.

        Raises:
            InstarError: The planner's; or RefusedError, code ``rollout_conflict``, ``request_id_reused`` or
                ``plan_stale``.
        """
        by = admission.By(actor, self._owner, self._ids, self._clock.now())
        order = Order(admission.named(request), request_id, saved, by)
        asked = office.Asked(actor, "start_upgrade", request, request.component)
        ask = functools.partial(self._asked, asked, shown=self._written)
        return self.rollout(await self._on_plan(order.wanted, functools.partial(self._start, order), ask))

    async def _on_plan(self, wanted: model.UpgradeRequest, work: OnPlan, ask: Ask) -> model.RolloutId:
        """Have work done that needs a plan; that is made beside the loop where the fleet is large."""
        for _ in range(PLAN_TRIES if self._plans.is_large(self._desk.world, wanted) else 0):
            made = await self._made(wanted)
            if made is None:
                break
            try:
                return await ask(functools.partial(work, made))
            except _WorldMovedError:
                continue
        return await ask(functools.partial(work, None))

    async def _made(self, wanted: model.UpgradeRequest) -> Made | None:
        """Plan beside the loop; None where the planner refuses, which is left to the work itself.

        It is refused there, unless it was granted before under the same identity.
        """
        before = self._desk.world
        try:
            return Made(before, await self._plans.plan(before, wanted, self._clock.now()))
        except errors.InstarError as error:
            if error.blame is errors.Blame.CALLER:
                return None
            raise

    def _start(self, order: Order, made: Made | None, draft: drafts.Draft) -> model.RolloutId:
        known = self._requested(draft, order.request_id)
        if known is not None:
            return self._repeated(draft, known, order)
        plan = self._planned(draft, order.wanted, made)
        if order.saved is not None:
            planning.check_fresh(order.saved, plan, "apply the saved plan")
        begun = admission.start(draft, order.wanted, plan, order.by)
        if order.request_id:
            draft.requests[order.request_id] = begun.id
        return begun.id

    def _planned(self, draft: drafts.Draft, wanted: model.UpgradeRequest, made: Made | None) -> model.Plan:
        """Give the plan of now: the one that was made beside the loop, where the world has not gone on since."""
        if made is not None and not planning.is_same(made.before, draft.world):
            raise _WorldMovedError
        return self._plans.now(draft.world, wanted, draft.at) if made is None else made.plan

    def rollout(self, name_or_id: str) -> model.Rollout:
        """Find a rollout by its identity, or the newest that has the name.

        Raises:
            NotFoundError: Code ``rollout_not_found``, or ``rollout_compacted`` where it was kept no longer.
        """
        running = self._desk.world.rollouts.get(model.RolloutId(name_or_id))
        known = None if running is not None else self._recent.find(name_or_id)
        if known is not None:
            return known.rollout
        found = running or self._store.read(lambda connection: reading.rollout(connection, name_or_id))
        if found is None:
            raise self._store.read(lambda connection: _missing(connection, name_or_id))
        return self._desk.world.rollouts.get(found.id, found)

    def rollouts(self, limit: int) -> tuple[model.Rollout, ...]:
        """Return the newest rollouts, newest first."""
        newest = self._store.read(lambda connection: reading.rollout_ids(connection, limit))
        return tuple(self.rollout(rollout_id) for rollout_id in newest)

    async def watch(self, rollout_id: model.RolloutId) -> AsyncIterator[model.Rollout]:
        """Yield a rollout now and after each commit, ending with its end; who is slow sees the latest state only."""
        changed = asyncio.Event()
        unsubscribe = self._rollout_bell.subscribe(rollout_id, changed.set)
        try:
            seen = -1
            while True:
                changed.clear()
                found = self.rollout(rollout_id)
                if found.revision != seen:
                    yield found
                    seen = found.revision
                if found.state.is_terminal:
                    return
                await changed.wait()
        finally:
            unsubscribe()

    def explain_rollout(self, name_or_id: str, node_id: str = "") -> tuple[model.Reason, ...]:
        """Say why a rollout stands as it does, or why a node does in it.

        Raises:
            NotFoundError: There is no such rollout, or no such node in it or in the fleet.
        """
        found, now = self.rollout(name_or_id), self._clock.now()
        if not node_id:
            return explain.rollout(found, now)
        named = model.NodeId(node_id)
        node = self._desk.world.nodes.get(named)
        if node is None and named not in worlds.population(found):
            raise office.not_found("node", "node_id", node_id)
        stands = standing.NOTHING if node is None else standing.of(self._desk.world, found, node, now)
        return explain.node_in(found, named, stands, now)

    def courses(self, name_or_id: str) -> courses.Courses:
        """Say how what is judged of a canary went over time.

        Raises:
            NotFoundError: There is no such rollout.
            RefusedError: None of its waves is judged, or was; code ``nothing_judged``.
        """
        found = self.rollout(name_or_id)
        if found.judging is None:
            raise errors.RefusedError(
                f"cannot show the analysis of rollout {name_or_id}: none of its waves is judged, or not yet",
                code="nothing_judged",
                field="rollout",
                value=name_or_id,
                rule="a canary wave with an analysis, of which a node has changed",
            )
        return courses.of(found, found.judging, self._desk.world, self.collector, self._clock.now())

    # The verbs.

    async def pause(self, rollout_id: model.RolloutId, *, reason: str, actor: str) -> model.Rollout:
        """Let nothing more start, and stop every clock.

        Raises:
            NotFoundError: There is no such rollout.
            RefusedError: It cannot be paused in its state.
        """
        return await self._order("pause", rollout_id, lambda at: events.Paused(at, actor, reason), actor, reason)

    async def resume(self, rollout_id: model.RolloutId, *, reason: str, actor: str) -> model.Rollout:
        """Go on where a pause began.

        Raises:
            NotFoundError: There is no such rollout.
            RefusedError: It is not paused.
        """
        return await self._order("resume", rollout_id, lambda at: events.Resumed(at, actor, reason), actor, reason)

    async def promote(self, rollout_id: model.RolloutId, *, reason: str, actor: str) -> model.Rollout:
        """Let the next wave begin now.

        Raises:
            NotFoundError: There is no such rollout.
            RefusedError: Nothing waits for it.
        """
        return await self._order("promote", rollout_id, lambda at: events.Promoted(at, actor, reason), actor, reason)

    async def cancel(self, rollout_id: model.RolloutId, *, reason: str, actor: str) -> model.Rollout:
        """End a rollout where it stands.

        Raises:
            NotFoundError: There is no such rollout.
            RefusedError: It is too late for that.
        """
        return await self._order(
            "cancel", rollout_id, lambda at: events.CancelRequested(at, actor, reason), actor, reason
        )

    async def retry(self, rollout_id: model.RolloutId, *, reason: str, actor: str) -> model.Rollout:
        """Try the changes that failed again, and no others.

        Raises:
            NotFoundError: There is no such rollout.
            RefusedError: Nothing is to be tried again; or another rollout has its nodes now.
        """
        return await self._order(
            "retry", rollout_id, lambda at: events.RetryRequested(at, actor, reason), actor, reason
        )

    async def revert(self, rollout_id: model.RolloutId, *, reason: str, actor: str) -> model.Rollout:
        """Take every node back that a rollout has touched.

        Raises:
            NotFoundError: There is no such rollout.
            RefusedError: It is going back, or has gone back, already; another rollout has its nodes now; or what they
                have got since requires what would go.
        """
        return await self._order(
            "revert", rollout_id, lambda at: events.RevertRequested(at, actor, reason), actor, reason
        )

    async def roll_back_emergency(
        self,
        component: model.ComponentName,
        selector_text: str,
        time_limit: timedelta,
        *,
        reason: str,
        actor: str,
    ) -> tuple[tuple[model.Rollout, ...], model.FreezeId]:
        """Take back what is under way or was done last, all at once, and let nothing else start until that is lifted.

        Args:
            component: The one that is meant; empty for every one.
            selector_text: Label selector of the nodes; empty for all. A rollout that has one of them goes back whole.
            time_limit: Time within which the nodes must be back.
            reason: Why.
            actor: Who wants it.

        Returns:
            The rollouts that go back, and the freeze that holds everything else.

        Raises:
            InvalidRequestError: The selector or the time cannot be.
        """
        wanted = emergency.Wanted(component, selector_text, time_limit, reason, actor)
        freeze_id = self._ids.freeze_id(self._clock.now())

        def work(draft: drafts.Draft) -> tuple[model.RolloutId, ...]:
            take_up = functools.partial(self._take_up, goes_back=True)
            return emergency.roll_back(draft, wanted, freeze_id, self._ended, take_up)

        asked = office.Asked(actor, "roll_back_emergency", wanted, component, freeze_id)
        begun = await self._asked(
            asked, work, lambda draft, made: (tuple(self._written(draft, each) for each in made), freeze_id)
        )
        await self._lookout.tell(sorted(self._desk.world.concerned), self._clock.now())
        return tuple(self.rollout(each) for each in begun), freeze_id

    async def _order(
        self, verb: str, rollout_id: model.RolloutId, ordered: Ordered, actor: str, reason: str
    ) -> model.Rollout:
        known = self.rollout(rollout_id)
        wanted = known.id

        def work(draft: drafts.Draft) -> None:
            rollout, lease = self._ours(draft, wanted)
            event = ordered(draft.at)
            try:
                goes_back = isinstance(event, events.RevertRequested)
                taken = self._take_up(draft, rollout, lease, goes_back=goes_back)
                stepping.feed(draft, taken, lease, event, actor=actor)
            except errors.IllegalEventError as error:
                raise errors.RefusedError(
                    str(error), code=error.code, field=error.field, value=error.value, rule=error.rule
                ) from error
            draft.put_audit(actor, f"rollout.{verb}", wanted, reason)

        asked = office.Asked(actor, f"{verb}_rollout", wanted, known.request.component, wanted)
        await self._asked(asked, work, lambda draft, _: self._written(draft, wanted))
        return self.rollout(wanted)

    def _take_up(
        self, draft: drafts.Draft, rollout: model.Rollout, lease: rows.Lease, *, goes_back: bool
    ) -> model.Rollout:
        """Make a rollout that has ended ready to go on: nobody else has its nodes, and it knows how they stand.

        Raises:
            RefusedError: Another rollout has its nodes now; or what they have got since relies on it.
        """
        if not rollout.state.is_terminal:
            return rollout
        admission.check_claims(draft.world, rollout)
        if goes_back:
            dependents.check(draft.world, rollout)
        nodes = worlds.population(rollout)
        for node_id in nodes:
            if node_id not in draft.world.nodes:
                rollout = stepping.feed(draft, rollout, lease, events.NodeRemoved(draft.at, node_id))
        return rules.tell(draft, standing.tell(draft, rollout, lease, nodes, goes_back=goes_back), lease)

    def _ended(self, draft: drafts.Draft, component: model.ComponentName) -> Iterator[emergency.Stepped]:
        """Find the rollouts of a component that have ended so that they can go back, newest first."""
        newest = self._store.read(
            lambda connection: reading.ended_rollout_ids(
                connection, component, emergency.CAN_GO_BACK, emergency.ENDED_MAX
            )
        )
        found = (self._find_rollout(draft, each) for each in newest)
        return (each for each in found if each is not None)

    def _requested(self, draft: drafts.Draft, request_id: str) -> model.RolloutId | None:
        if not request_id:
            return None
        return draft.requested(request_id) or self._store.read(
            lambda connection: reading.requested_rollout(connection, request_id)
        )

    def _repeated(self, draft: drafts.Draft, known: model.RolloutId, order: Order) -> model.RolloutId:
        found = self._find_rollout(draft, known)
        if found is not None and found[0].request != order.wanted:
            raise errors.RefusedError(
                f"cannot start an upgrade under request_id {order.request_id}: "
                f"it made rollout {known} from another request",
                code="request_id_reused",
                field="request_id",
                value=order.request_id,
                rule="a request identity stands for one request",
            )
        return known


def _missing(connection: sa.Connection, name_or_id: str) -> errors.NotFoundError:
    """Say that a rollout is not there: there was none, or it has gone for its age."""
    gone = retiring.gone_up_to(connection)
    if not name_or_id.startswith(ROLLOUT_PREFIX) or name_or_id > gone:
        return office.not_found("rollout", "rollout", name_or_id)
    oldest = retiring.oldest_kept(connection) or "none"
    return errors.NotFoundError(
        f"cannot find rollout {name_or_id}: it ended too long ago to be kept; the oldest that is kept is {oldest}: "
        "list the rollouts and start anew from one of them, after revision 0",
        code="rollout_compacted",
        field="rollout",
        value=name_or_id,
        rule=f"a rollout from {oldest} on",
    )
