"""The engine as its callers see it: sessions of agents on one side, the API on the other, time in between.

Rules kept: whatever returns has been stored; questions are answered from memory, or from the store where a rollout has
ended; the desk, one task that looks after the deadlines of all rollouts and after absent nodes, and one that begins
what waits are all that runs in the background. Given an inline store, a clock of the loop and no large fleet, nothing
here uses threads, the machine's time or chance. The rooms: `agents`, `rollouts`, `approvals`, `fleet`,
`catalogue`.
"""

from __future__ import annotations

import functools
from datetime import datetime, timedelta

from controller import clock as clocks
from controller import tasks
from controller.core import copying, events, model, statistics
from controller.engine import agents, approvals, catalogue, fleet, standing, timing
from controller.engine import draft as drafts
from controller.metrics import limits
from controller.store import database, reading

HEARTBEAT_PERIOD = agents.HEARTBEAT_PERIOD
# After a start, agents may take this long to come back: their back-off is capped below it.
RECONNECT_WINDOW = timedelta(seconds=60)
_KEPT = limits.Limits()


class Engine(agents.Agents, approvals.Approvals, fleet.Fleet, catalogue.Catalogue):
    """Carries rollouts out.

    Args:
        heartbeat_period: Time between two heartbeats, as agents are told.
        reconnect_window: Time that agents have to come back after an absence of the controller.
        requester_may_approve: Who asked for a rollout may approve it too.
        kept: How much is kept of what nodes measure.
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
    ) -> None:
        super().__init__(store, clock, ids, kept)
        self._requester_may = requester_may_approve
        self._heartbeat_period = heartbeat_period
        self._reconnect_window = reconnect_window
        self._guard = tasks.Guard()

    async def start(self) -> None:
        """Take every rollout over, tell each of the absence and how its nodes stand, and look after time."""
        alive_at = self._store.read(reading.alive_at)
        await self._store.take_leases(self._owner)
        self._desk.read_again()
        self._guard.start(self._desk.run(), "engine desk")
        for rollout_id in sorted(self._desk.world.rollouts):
            await self._desk.submit(functools.partial(self._take_over, rollout_id=rollout_id, since=alive_at))
        started_at = self._clock.now()
        await self._lookout.start(started_at, started_at + self._reconnect_window)
        self._guard.start(self._ticker.run(), "engine ticker")
        self._guard.start(self._queue.run(), "engine queue")

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
        await self._guard.stop()

    def statistics(self) -> model.Statistics:
        """Count the work of the fleet."""
        world = self._desk.world
        counted = statistics.count(world.rollouts.values(), world.nodes.values(), world.totals, refused=world.refused)
        return copying.replace(counted, metrics=self.collector.counts())
