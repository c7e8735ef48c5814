"""The engine as its callers see it: sessions of agents on one side, the API on the other, time in between.

Rules kept: whatever returns has been stored; questions are answered from memory, or from the store where a rollout has
ended; one task looks after the deadlines of all rollouts, and it and the desk are all that runs in the background.
Given an inline store and a clock of the loop, nothing here uses threads, the machine's time or chance.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from controller import clock as clocks
from controller.core import errors, events, model, selector
from controller.engine import admission, commands, ordering, presence, reporting, stepping, tasks, timing, watching
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.store import database, reading, rows

Answer = TypeVar("Answer")

HEARTBEAT_PERIOD = timedelta(seconds=10)
# After a start, agents may take this long to come back: their back-off is capped below it.
RECONNECT_WINDOW = timedelta(seconds=60)


class Engine:
    """Carries rollouts out.

    Args:
        heartbeat_period: Time between two heartbeats, as agents are told.
        reconnect_window: Time that agents have to come back after an absence of the controller.
    """

    def __init__(
        self,
        store: database.Store,
        clock: clocks.Clock,
        ids: clocks.IdSource,
        *,
        heartbeat_period: timedelta = HEARTBEAT_PERIOD,
        reconnect_window: timedelta = RECONNECT_WINDOW,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._owner = ids.controller_id()
        self._heartbeat_period = heartbeat_period
        self._reconnect_window = reconnect_window
        self._present: dict[model.NodeId, presence.Presence] = {}
        self._rollout_bell: watching.Bell[model.RolloutId] = watching.Bell()
        self._node_bell: watching.Bell[model.NodeId] = watching.Bell()
        self._guard = tasks.Guard()
        self._desk = desks.Desk(store, clock, self._owner, self._published)
        self._ticker = timing.Ticker(self._desk, clock)

    async def start(self) -> None:
        """Take every rollout over, tell each of the absence, and look after deadlines from here on."""
        alive_at = self._store.read(reading.alive_at)
        await self._store.take_leases(self._owner)
        self._desk.read_again()
        self._guard.start(self._desk.run(), "engine desk")
        for rollout_id in sorted(self._desk.world.rollouts):
            policy = self._desk.world.rollouts[rollout_id].request.policy
            now = self._clock.now()
            judge_from = now + self._reconnect_window + policy.unknown_deadline
            event = events.ControllerAbsent(since=alive_at or now, at=now, judge_from=judge_from)
            await self._desk.submit(functools.partial(timing.feed_running, rollout_id=rollout_id, event=event))
        self._guard.start(self._ticker.run(), "engine ticker")

    async def stop(self) -> None:
        """End the background work; what was acknowledged is stored, what was not is refused."""
        await self._desk.close()
        await self._guard.stop()

    # Agents.

    async def open_session(self, hello: model.NodeHello) -> commands.SessionGrant:
        """Make a session known; its full report is durable on return, and an earlier session is stale."""
        session_id = self._ids.session_id()

        def work(draft: drafts.Draft) -> rows.Session:
            session = admission.open_session(draft, hello, session_id)
            self._take(draft, hello.node_id, hello.report)
            return session

        session = await self._desk.submit(work)
        if self._desk.world.sessions[hello.node_id].session_id == session_id:
            fresh = presence.Presence(session_id, session.opened_at)
            self._present[hello.node_id] = presence.heard(fresh, hello.report, session.opened_at)
        return commands.SessionGrant(session_id, session.generation, self._heartbeat_period, self._clock.now())

    async def close_session(self, node_id: model.NodeId, session_id: model.SessionId) -> None:
        """Forget a session, unless a later one has taken its place; when it was last heard of is kept."""
        present = self._present.get(node_id)
        if present is None or present.session_id != session_id:
            return
        del self._present[node_id]

        def work(draft: drafts.Draft) -> None:
            draft.put_node(replace(draft.world.nodes[node_id], last_seen_at=present.last_seen_at))

        await self._desk.submit(work)

    async def report(self, node_id: model.NodeId, session_id: model.SessionId, report: model.NodeReport) -> None:
        """Take a report; what is durable of it is stored on return.

        Raises:
            RefusedError: A later session has taken this one's place.
        """
        self._check_session(node_id, session_id)
        await self._desk.submit(lambda draft: self._take(draft, node_id, report))
        present = self._check_session(node_id, session_id)
        self._present[node_id] = presence.heard(present, report, self._clock.now())

    def commands(self, node_id: model.NodeId) -> tuple[commands.Command, ...]:
        """Return what is asked of a node now."""
        return ordering.outstanding(self._desk.world, node_id)

    def subscribe(self, node_id: model.NodeId, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when ``commands`` may have changed; return what ends that."""
        return self._node_bell.subscribe(node_id, wake)

    # The API.

    async def publish(self, release: model.Release) -> bool:
        """Make a release known; False where it is known already.

        Raises:
            RefusedError: Other bytes are published under the same version.
        """
        return await self._asked(release.publisher, "publish", release, lambda draft: admission.publish(draft, release))

    def release(self, component: model.ComponentName, version: str) -> model.Release:
        """Find a release.

        Raises:
            NotFoundError: Code ``release_not_found``.
        """
        found = self._desk.world.releases.get((component, version))
        if found is None:
            raise _not_found("release", "version", f"{component} {version}")
        return found

    def releases(self, component: str = "") -> tuple[model.Release, ...]:
        """Return the releases of a component, or all, by component and version text."""
        known = self._desk.world.releases
        return tuple(known[key] for key in sorted(known) if component in ("", key[0]))

    def nodes(self, selector_text: str = "") -> tuple[model.Node, ...]:
        """Return the nodes that a label selector takes, by identity, with what their live sessions add.

        Raises:
            InvalidRequestError: The selector cannot be read.
        """
        taken = selector.parse(selector_text)
        known = self._desk.world.nodes
        return tuple(self.node(node_id) for node_id in sorted(known) if taken.matches(known[node_id].labels))

    def node(self, node_id: model.NodeId) -> model.Node:
        """Find a node.

        Raises:
            NotFoundError: Code ``node_not_found``.
        """
        found = self._desk.world.nodes.get(node_id)
        if found is None:
            raise _not_found("node", "node_id", node_id)
        return presence.shown(found, self._present.get(node_id))

    def metrics(self, node_id: model.NodeId) -> tuple[model.Metric, ...]:
        """Return the latest metrics of a node's live session; none where it has none."""
        present = self._present.get(node_id)
        return () if present is None else tuple(present.metrics[key] for key in sorted(present.metrics))

    def plan(self, request: model.UpgradeRequest) -> model.Plan:
        """Say what a request would do.

        Raises:
            InstarError: The planner's.
        """
        return admission.plan(self._desk.world, admission.named(request))

    async def start_upgrade(self, request: model.UpgradeRequest, *, request_id: str, actor: str) -> model.Rollout:
        """Plan a request and begin its rollout; the same request identity again returns the same rollout.

        Raises:
            InstarError: The planner's; or RefusedError, code ``rollout_conflict`` or ``request_id_reused``.
        """
        wanted, began_at = admission.named(request), self._clock.now()

        def work(draft: drafts.Draft) -> model.RolloutId:
            known = draft.requested(request_id) or self._store.read(
                lambda connection: reading.requested_rollout(connection, request_id)
            )
            if request_id and known is not None:
                return self._repeated(draft, known, wanted, request_id)
            begun = admission.start(
                draft, wanted, self._ids, actor=actor, owner=self._owner, planning_began_at=began_at
            )
            if request_id:
                draft.requests[request_id] = begun.id
            return begun.id

        return self.rollout(await self._asked(actor, "start_upgrade", request, work))

    def rollout(self, name_or_id: str) -> model.Rollout:
        """Find a rollout by its identity, or the newest that has the name.

        Raises:
            NotFoundError: Code ``rollout_not_found``.
        """
        running = self._desk.world.rollouts.get(model.RolloutId(name_or_id))
        found = running or self._store.read(lambda connection: reading.rollout(connection, name_or_id))
        if found is None:
            raise _not_found("rollout", "rollout", name_or_id)
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

    async def revert(self, rollout_id: model.RolloutId, *, reason: str, actor: str) -> model.Rollout:
        """Take every node back that a rollout has touched.

        Raises:
            NotFoundError: There is no such rollout.
            RefusedError: It is going back, or has gone back, already; or another rollout has its nodes now.
        """
        wanted = self.rollout(rollout_id).id

        def work(draft: drafts.Draft) -> None:
            found = self._find_rollout(draft, wanted)
            if found is None:
                raise _not_ours(wanted)
            before, lease = found
            admission.check_claims(draft.world, before)
            event = events.RevertRequested(at=draft.at, actor=actor, reason=reason)
            try:
                stepping.feed(draft, before, lease, event, actor=actor)
            except errors.IllegalEventError as error:
                raise errors.RefusedError(
                    str(error), code=error.code, field=error.field, value=error.value, rule=error.rule
                ) from error

        await self._asked(actor, "revert", wanted, work)
        return self.rollout(wanted)

    # Behind them.

    def _take(self, draft: drafts.Draft, node_id: model.NodeId, report: model.NodeReport) -> None:
        reporting.take(
            draft,
            node_id,
            report,
            lambda operation_id: self._find_assignment(draft, operation_id),
            lambda rollout_id: self._find_rollout(draft, rollout_id),
        )

    def _find_assignment(self, draft: drafts.Draft, operation_id: model.OperationId) -> rows.Assignment | None:
        found = draft.assignment(operation_id)
        if found is not None:
            return found
        stored = self._store.read(lambda connection: reading.assignments(connection, (operation_id,)))
        return stored[0] if stored else None

    def _find_rollout(
        self, draft: drafts.Draft, rollout_id: model.RolloutId
    ) -> tuple[model.Rollout, rows.Lease] | None:
        running = draft.world.rollouts.get(rollout_id)
        if running is not None:
            return running, draft.world.leases[rollout_id]
        written = draft.rollout(rollout_id)
        if written is not None:
            return written.rollout, written.lease
        ended = self._store.read(lambda connection: reading.rollout(connection, rollout_id))
        lease = self._store.read(lambda connection: reading.lease(connection, rollout_id))
        return (ended, lease) if ended is not None and lease.owner == self._owner else None

    def _repeated(
        self, draft: drafts.Draft, known: model.RolloutId, wanted: model.UpgradeRequest, request_id: str
    ) -> model.RolloutId:
        found = self._find_rollout(draft, known)
        if found is not None and found[0].request != wanted:
            raise errors.RefusedError(
                f"cannot start an upgrade under request_id {request_id}: it made rollout {known} from another request",
                code="request_id_reused",
                field="request_id",
                value=request_id,
                rule="a request identity stands for one request",
            )
        return known

    def _check_session(self, node_id: model.NodeId, session_id: model.SessionId) -> presence.Presence:
        present = self._present.get(node_id)
        if present is None or present.session_id != session_id:
            raise errors.RefusedError(
                f"cannot take a report of node {node_id}: its session {session_id} is no longer the latest",
                code="session_stale",
                field="session_id",
                value=session_id,
                rule="a node speaks through its latest session",
            )
        return present

    async def _asked(self, actor: str, action: str, what: object, work: Callable[[drafts.Draft], Answer]) -> Answer:
        """Have work done for somebody; where it is refused, keep that it was."""
        try:
            return await self._desk.submit(work)
        except errors.InstarError as error:
            if error.blame is errors.Blame.CALLER:
                refusal, body = error, repr(what)[: stepping.REFUSED_BODY_MAX]
                await self._desk.submit(lambda draft: draft.put_refusal(actor, action, refusal, body))
            raise

    def _published(self, draft: drafts.Draft) -> None:
        for rollout_id in sorted(draft.rollouts):
            self._rollout_bell.ring(rollout_id)
        for node_id in sorted(draft.woken):
            self._node_bell.ring(node_id)
        if draft.rollouts:
            self._ticker.wake()


def _not_found(noun: str, field: str, value: str) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"cannot find {noun} {value}",
        code=f"{noun}_not_found",
        field=field,
        value=value,
        rule="it must exist",
    )


def _not_ours(rollout_id: model.RolloutId) -> errors.UnavailableError:
    return errors.UnavailableError(
        f"cannot step rollout {rollout_id}: another controller has its lease",
        code="rollout_elsewhere",
        field="rollout",
        value=rollout_id,
        rule="one controller steps a rollout",
    )
