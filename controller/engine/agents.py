"""What agents do with the engine: they open sessions, report, and are told what is asked of them.

Rules kept: only a node's latest session speaks for it; a node that was removed is known again once it says Hello, as a
new one: its cordon, its labels by hand and what it left for cause are forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from controller.core import errors, model
from controller.engine import admission, commands, office, ordering, presence, reporting, standing
from controller.engine import draft as drafts
from controller.store import rows

HEARTBEAT_PERIOD = timedelta(seconds=10)
# Heartbeats that a node may be cut off for before it counts as away: a reconnect is no outage.
GRACE_PERIODS = 2
# Of the usual period, while the controller is pressed: fewer, and yet no reading becomes stale before the next.
THINNED_PERIODS = 2


class Agents(office.Office):
    """The agents' side of the engine."""

    _heartbeat_period = HEARTBEAT_PERIOD

    async def open_session(self, hello: model.NodeHello) -> commands.SessionGrant:
        """Make a session known; its full report is durable on return, and an earlier session is stale."""
        session_id = self._ids.session_id()
        if not self.is_at_work(hello.node_id):
            self._desk.check_room()

        def work(draft: drafts.Draft) -> rows.Session:
            session = admission.open_session(draft, hello, session_id)
            self._take(draft, hello.node_id, hello.report)
            return session

        try:
            session = await self._desk.submit(work)
        except asyncio.CancelledError:
            # It may have been stored all the same: then nobody else would see that it does not live.
            self._miss(hello.node_id, session_id)
            raise
        if self._desk.world.sessions[hello.node_id].session_id == session_id:
            fresh = presence.Presence(session_id, session.opened_at)
            self._present[hello.node_id] = presence.heard(fresh, hello.report, session.opened_at)
            self.collector.take(hello.node_id, hello.report, session.opened_at)
        return commands.SessionGrant(session_id, session.generation, self._heartbeat_period, self._clock.now())

    async def close_session(self, node_id: model.NodeId, session_id: model.SessionId) -> None:
        """Forget a session, unless a later one has taken its place; when it was last heard of is kept."""
        present = self._present.get(node_id)
        if present is None or present.session_id != session_id:
            return
        del self._present[node_id]
        self._miss(node_id, session_id)

        def work(draft: drafts.Draft) -> None:
            node = draft.world.nodes.get(node_id)
            if node is not None and draft.world.sessions[node_id].session_id == session_id:
                draft.put_node(replace(node, is_connected=False, last_seen_at=present.last_seen_at))

        await self._desk.submit(work)

    async def report(self, node_id: model.NodeId, session_id: model.SessionId, report: model.NodeReport) -> None:
        """Take a report; what is durable of it is stored on return.

        While the controller is pressed a report that changes nothing durable does not wait for the store.

        Raises:
            RefusedError: A later session has taken this one's place, or the node was removed.
        """
        self._check_session(node_id, session_id)
        received_at = self._clock.now()

        def work(draft: drafts.Draft) -> None:
            self._node(draft, node_id)
            self._take(draft, node_id, report)

        if not (self._is_spared(node_id) and reporting.is_nothing_new(self._desk.world.nodes.get(node_id), report)):
            await self._desk.submit(work)
        present = self._check_session(node_id, session_id)
        self._present[node_id] = presence.heard(present, report, self._clock.now())
        self.collector.take(node_id, report, received_at)

    def heartbeat_period(self, node_id: model.NodeId) -> timedelta:
        """Time between two heartbeats of a node from here on."""
        return self._heartbeat_period * (THINNED_PERIODS if self._is_spared(node_id) else 1)

    def is_at_work(self, node_id: model.NodeId) -> bool:
        """Tell whether a node has an operation in flight, or belongs to a rollout that may give it one."""
        world = self._desk.world
        return node_id in world.claims or node_id in world.assigned

    def check_trusted(self, node_id: model.NodeId) -> None:
        """Let a node speak, also one that nobody knows yet.

        Raises:
            RefusedError: It is quarantined, code ``node_quarantined``.
        """
        node = self._desk.world.nodes.get(node_id)
        if node is not None and node.quarantined_because:
            raise errors.RefusedError(
                f"cannot listen to node {node_id}: it is quarantined: {node.quarantined_because}",
                code="node_quarantined",
                field="node_id",
                value=node_id,
                rule="a node that is trusted",
            )

    def check_session(self, node_id: model.NodeId, session_id: model.SessionId) -> None:
        """Let a session go on.

        Raises:
            RefusedError: The node is quarantined or was removed, or a later session has taken this one's place.
        """
        self.check_trusted(node_id)
        session = self._desk.world.sessions.get(node_id)
        if node_id not in self._desk.world.nodes or session is None or session.session_id != session_id:
            raise _stale(node_id, session_id)

    def wants(self, node_id: model.NodeId, digest: model.Digest) -> bool:
        """Tell whether a node has use for a bundle: it was asked to run it, or runs it."""
        node = self._desk.world.nodes.get(node_id)
        has = () if node is None else node.components.values()
        asked = self._desk.world.of_node(node_id)
        return any(digest in (each.digest, each.permanent_digest) for each in has) or any(
            digest in (each.assign.change.to_digest, each.assign.change.from_digest) for each in asked
        )

    def commands(self, node_id: model.NodeId) -> tuple[commands.Command, ...]:
        """Return what is asked of a node now."""
        return ordering.outstanding(self._desk.world, node_id)

    def subscribe(self, node_id: model.NodeId, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when ``commands`` may have changed; return what ends that."""
        return self._node_bell.subscribe(node_id, wake)

    def _is_spared(self, node_id: model.NodeId) -> bool:
        return self.pressure.is_thinning and not self.is_at_work(node_id)

    def _miss(self, node_id: model.NodeId, session_id: model.SessionId) -> None:
        now = self._clock.now()
        self._lookout.cut_off(node_id, now, now + GRACE_PERIODS * self._heartbeat_period, session_id)

    def _take(self, draft: drafts.Draft, node_id: model.NodeId, report: model.NodeReport) -> None:
        reporting.take(
            draft,
            node_id,
            report,
            lambda operation_id: self._find_assignment(draft, operation_id),
            lambda rollout_id: self._find_rollout(draft, rollout_id),
        )
        standing.refresh(draft, (node_id,))
        present = self._present.get(node_id)
        self._heeding.heed(draft, node_id, report, {} if present is None else present.metrics)

    def _check_session(self, node_id: model.NodeId, session_id: model.SessionId) -> presence.Presence:
        present = self._present.get(node_id)
        if present is None or present.session_id != session_id:
            raise _stale(node_id, session_id)
        return present


def _stale(node_id: model.NodeId, session_id: model.SessionId) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot go on with node {node_id}: its session {session_id} is no longer the latest",
        code="session_stale",
        field="session_id",
        value=session_id,
        rule="a node speaks through its latest session",
    )
