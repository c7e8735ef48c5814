"""The engine as its callers see it: sessions of agents on one side, the API on the other, time in between.

Rules kept: whatever returns has been stored; questions are answered from memory, or from the store where a rollout
has ended; all that runs in the background are the desk, one task that looks after the deadlines of all rollouts and
after absent nodes, one that begins what waits, one that looks at canary waves, one that lets go of what is old and,
while the monitor is active, one that looks by its rules. Given an inline store, a clock of the loop, no large fleet
and no analysis, nothing here uses threads, the machine's time or chance. The rooms: `agents`, `rollouts`,
`approvals`, `triggers`, `fleet`, `catalogue`, `audits`.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping
from datetime import datetime, timedelta

from controller import clock as clocks
from controller import tasks
from controller.config import retention, rules
from controller.core import copying, events, model, statistics
from controller.engine import (
    agents,
    approvals,
    audits,
    catalogue,
    fleet,
    forgetting,
    standing,
    stepping,
    timing,
    triggers,
)
from controller.engine import draft as drafts
from controller.engine import rules as ruling
from controller.metrics import limits, prometheus
from controller.store import database, forms, reading

HEARTBEAT_PERIOD = agents.HEARTBEAT_PERIOD
# After a start, agents may take this long to come back: their back-off is capped below it.
RECONNECT_WINDOW = timedelta(seconds=60)
_KEPT = limits.Limits()
_NO_SERVERS: Mapping[str, prometheus.Prometheus] = {}


class Engine(agents.Agents, approvals.Approvals, triggers.Triggers, fleet.Fleet, catalogue.Catalogue, audits.Audits):
    """Carries rollouts out.

    Args:
        heartbeat_period: Time between two heartbeats, as agents are told.
        reconnect_window: Time that agents have to come back after an absence of the controller.
        requester_may_approve: Who asked for a rollout may approve it too.
        kept: How much is kept of what nodes measure.
        servers: Prometheus servers that an analysis may name, by their names; closed with the engine.
        monitoring: What the fleet is watched for.
        retained: How long what is over is kept.
    """

    def __init__(  # noqa: PLR0913 each setting of its own, by name
        self,
        store: database.Store,
        clock: clocks.Clock,
        ids: clocks.IdSource,
        *,
        heartbeat_period: timedelta = HEARTBEAT_PERIOD,
        reconnect_window: timedelta = RECONNECT_WINDOW,
        requester_may_approve: bool = False,
        kept: limits.Limits = _KEPT,
        servers: Mapping[str, prometheus.Prometheus] = _NO_SERVERS,
        monitoring: rules.Monitoring = rules.NOTHING,
        retained: retention.Retention = retention.USUAL,
    ) -> None:
        super().__init__(store, clock, ids, kept, servers, monitoring)
        self._requester_may = requester_may_approve
        self._heartbeat_period = heartbeat_period
        self._reconnect_window = reconnect_window
        self._guard = tasks.Guard()
        self._forgetting = forgetting.Forgetting(store, clock, retained, self._recent.forget)

    async def start(self) -> None:
        """Take every rollout over, tell each of the absence and how its nodes stand, and look after time."""
        alive_at = self._store.read(reading.alive_at)
        await self._store.take_leases(self._owner)
        self._desk.read_again()
        self._guard.start(self._desk.run(), "engine desk")
        await self._desk.submit(self._note_start)
        for rollout_id in sorted(self._desk.world.rollouts):
            await self._desk.submit(functools.partial(self._take_over, rollout_id=rollout_id, since=alive_at))
        started_at = self._clock.now()
        await self._lookout.start(started_at, started_at + self._reconnect_window)
        await self._desk.submit(ruling.tell_all)
        self._guard.start(self._ticker.run(), "engine ticker")
        self._guard.start(self._queue.run(), "engine queue")
        self._guard.start(self._judges.run(self._heartbeat_period), "engine judges")
        self._guard.start(self._forgetting.run(), "engine forgetting")

    def _note_start(self, draft: drafts.Draft) -> None:
        """Write that this life begins; with it begins its epoch of the audit log."""
        draft.put_audit(stepping.CONTROLLER_ACTOR, "controller.start", self._owner, f"instar {forms.CORE_VERSION}")

    def _take_over(self, draft: drafts.Draft, rollout_id: model.RolloutId, since: datetime | None) -> None:
        """Tell a rollout all that it has missed at once: it may decide on what is due as soon as it hears of it."""
        rollout, at = draft.world.rollouts[rollout_id], draft.at
        judge_from = at + self._reconnect_window + rollout.request.policy.unknown_deadline
        is_begun = rollout.state is not model.RolloutState.PENDING
        news = tuple(standing.news(draft.world, rollout, at)) if is_begun else ()
        event = events.ControllerAbsent(since=since or at, at=at, judge_from=judge_from, standings=news)
        timing.feed_running(draft, rollout_id, event)

    async def stop(self) -> None:
        """End the background work; what was acknowledged is stored, what was not is refused."""
        await self._desk.close()
        await self.stop_triggers()
        await self._guard.stop()
        await self._sources.close()

    def statistics(self) -> model.Statistics:
        """Count the work of the fleet."""
        world = self._desk.world
        counted = statistics.count(world.rollouts.values(), world.nodes.values(), world.totals, refused=world.refused)
        states = collections.Counter(
            each.state for each in (() if world.board is None else world.board.watches.values())
        )
        firing, unknown = states[model.RuleState.FIRING], states[model.RuleState.UNKNOWN]
        told = self.collector.counts()
        return copying.replace(counted, rules_firing=firing, rules_unknown=unknown, metrics=told)
