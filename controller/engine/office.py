"""What the rooms of the engine share: the desk, the clock, who is present, and how an order is carried out.

Rules kept: an order that is refused is stored with who gave it, and counted. Left out: what the orders are; each room
has its own (`agents`, `catalogue`, `fleet`, `rollouts`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

from controller import clock as clocks
from controller.config import rules as settings_of_rules
from controller.core import errors, model
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.engine import (
    following,
    judges,
    lookout,
    planning,
    presence,
    queueing,
    recent,
    rules,
    sources,
    stepping,
    timing,
    watching,
)
from controller.metrics import collector, limits, monitor, prometheus
from controller.store import database, reading, rows

Answer = TypeVar("Answer")


class Office:
    """The shared ground of the rooms.

    Args:
        store: Where the world is kept.
        clock: What time it is.
        ids: Where new identities come from.
        kept: How much is kept of what nodes measure.
        servers: Prometheus servers that an analysis may name.
        monitoring: What the fleet is watched for.
    """

    def __init__(
        self,
        store: database.Store,
        clock: clocks.Clock,
        ids: clocks.IdSource,
        kept: limits.Limits,
        servers: Mapping[str, prometheus.Prometheus],
        monitoring: settings_of_rules.Monitoring,
    ) -> None:
        self.collector = collector.Collector(store, clock, kept)
        self._sources = sources.Sources(self.collector, servers)
        self._store = store
        self._clock = clock
        self._ids = ids
        self._owner = ids.controller_id()
        self._present: dict[model.NodeId, presence.Presence] = {}
        self._rollout_bell: watching.Bell[model.RolloutId] = watching.Bell()
        self._node_bell: watching.Bell[model.NodeId] = watching.Bell()
        self._recent = recent.Recent()
        names = frozenset(each.name for each in monitoring.rules)
        self._plans = planning.Planning(self._metrics_of, self._sources, names)
        self._desk = desks.Desk(
            store,
            clock,
            self._owner,
            desks.Hooks(following.Following(self._plans).follow, self._published, self._recent.clear),
            self._present.keys(),
        )
        self._lookout = lookout.Lookout(self._desk, self._present.keys())
        self._ticker = timing.Ticker(self._desk, clock, self._lookout)
        watch = monitor.Monitor(monitoring.rules, self.collector)
        stored = functools.partial(store.read, reading.watched)
        self.monitoring = rules.Rules(self._desk, clock, watch, monitoring.interval, stored)
        self._queue = queueing.Queue(self._desk, clock, self._plans)
        self._judges = judges.Judges(self._desk, clock, self._sources)

    async def _asked(self, actor: str, action: str, what: object, work: Callable[[drafts.Draft], Answer]) -> Answer:
        """Have work done for somebody; where it is refused, keep that it was."""
        try:
            return await self._desk.submit(work)
        except errors.InstarError as error:
            await self._keep_refusal(actor, action, what, error)
            raise

    async def _keep_refusal(self, actor: str, action: str, what: object, error: errors.InstarError) -> None:
        if error.blame is not errors.Blame.CALLER:
            return
        body = repr(what)[: stepping.REFUSED_BODY_MAX]

        def work(draft: drafts.Draft) -> None:
            draft.put_refusal(actor, action, error, body)
            draft.count_refused()

        await self._desk.submit(work)

    def _find_assignment(self, draft: drafts.Draft, operation_id: model.OperationId) -> rows.Assignment | None:
        found = draft.assignment(operation_id)
        if found is not None:
            return found
        stored = self._store.read(lambda connection: reading.assignments(connection, (operation_id,)))
        return stored[0] if stored else None

    def _find_rollout(
        self, draft: drafts.Draft, rollout_id: model.RolloutId
    ) -> tuple[model.Rollout, rows.Lease] | None:
        """Find a rollout that this controller may step, at its end or not."""
        running = draft.world.rollouts.get(rollout_id)
        if running is not None:
            return running, draft.world.leases[rollout_id]
        written = draft.rollout(rollout_id)
        if written is not None:
            return written.rollout, written.lease
        known = self._recent.find(rollout_id)
        if known is not None:
            return known.rollout, known.lease
        ended = self._store.read(lambda connection: reading.rollout(connection, rollout_id))
        if ended is None or ended.id != rollout_id:
            return None
        lease = self._store.read(lambda connection: reading.lease(connection, rollout_id))
        return (ended, lease) if lease.owner == self._owner else None

    def _node(self, draft: drafts.Draft, node_id: model.NodeId) -> model.Node:
        found = draft.world.nodes.get(node_id)
        if found is None:
            raise not_found("node", "node_id", node_id)
        return found

    def _metrics_of(self, node_id: model.NodeId) -> Mapping[str, float]:
        """Give the latest metrics of a node's host; none where it has no live session."""
        present = self._present.get(node_id)
        if present is None:
            return {}
        return {each.name: each.value for each in tuple(present.metrics.values()) if not each.component}

    def _published(self, draft: drafts.Draft) -> None:
        self._recent.take(draft.rollouts.values())
        for rollout_id in sorted(draft.rollouts):
            self._rollout_bell.ring(rollout_id)
        for node_id in sorted(draft.woken):
            self._node_bell.ring(node_id)
        if draft.rollouts or draft.freezes:
            self._ticker.wake()
        if draft.turned or draft.removed:
            self._queue.wake()


def not_found(noun: str, field: str, value: str) -> errors.NotFoundError:
    """Say that something that was named does not exist."""
    return errors.NotFoundError(
        f"cannot find {noun} {value}",
        code=f"{noun}_not_found",
        field=field,
        value=value,
        rule="it must exist",
    )
