"""Feeds time to the rollouts: one task for all of them, which sleeps until the earliest stored deadline.

It also has the lookout look at nodes that stay away and at freezes when that is due.

Rules kept: a deadline is data of the rollout, so it stands through any restart; a tick that changes nothing is written
nowhere and is not repeated in haste. The controller also says at intervals that it is alive, so that its next life
knows since when nobody looked.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from datetime import datetime, timedelta

from controller import clock as clocks
from controller.core import errors, events, model, rollout
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.engine import lookout as lookouts
from controller.engine import stepping

# How precisely the next life knows when this one ended; also the longest sleep, so that a clock that was set is seen.
ALIVE_PERIOD = timedelta(seconds=5)
# Between two ticks for a deadline that the first did not move.
TICK_AGAIN = timedelta(seconds=1)

_log = logging.getLogger(__name__)


def feed_running(draft: drafts.Draft, rollout_id: model.RolloutId, event: events.Event) -> None:
    """Feed an event to a rollout that has not ended meanwhile; one that it cannot take is kept as a refusal."""
    before = draft.world.rollouts.get(rollout_id)
    if before is None:
        return
    try:
        stepping.feed(draft, before, draft.world.leases[rollout_id], event)
    except errors.IllegalEventError as error:
        stepping.record_refusal(draft, event, error, stepping.CONTROLLER_ACTOR)


def _feed_tick(draft: drafts.Draft, rollout_id: model.RolloutId) -> None:
    feed_running(draft, rollout_id, events.Ticked(draft.at))


def _live(draft: drafts.Draft) -> None:
    draft.is_alive = True


class Ticker:
    """Ticks each rollout when its next deadline is due."""

    def __init__(self, desk: desks.Desk, clock: clocks.Clock, lookout: lookouts.Lookout) -> None:
        self._desk = desk
        self._clock = clock
        self._lookout = lookout
        self._changed = asyncio.Event()
        self._alive_at: datetime | None = None
        self._ticked: dict[model.RolloutId, tuple[datetime, datetime]] = {}

    def wake(self) -> None:
        """Look again: a deadline may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self._changed.clear()
            now = self._clock.now()
            await self._look(now)
            await self._tick(now)
            await self._note_alive(now)
            await self._rest()

    async def _look(self, now: datetime) -> None:
        due_at = self._lookout.next_at()
        if due_at is None or due_at > now:
            return
        try:
            await self._lookout.look(now)
        except Exception:  # noqa: BLE001 whatever is wrong with the look, time goes on for the rollouts
            _log.exception("cannot look after the nodes")

    async def _tick(self, now: datetime) -> None:
        due = [each for each in sorted(self._desk.world.rollouts) if (at := self._due_at(each)) and at <= now]
        for rollout_id in due:
            deadline = rollout.next_deadline(self._desk.world.rollouts[rollout_id])
            try:
                await self._desk.submit(functools.partial(_feed_tick, rollout_id=rollout_id))
            except Exception:  # noqa: BLE001 the fault of one rollout, or of the store, must not stop time for the others
                _log.exception("cannot tick rollout %s", rollout_id)
            if deadline is not None:
                self._ticked[rollout_id] = (deadline, now)
        self._ticked = {each: self._ticked[each] for each in self._ticked if each in self._desk.world.rollouts}

    async def _note_alive(self, now: datetime) -> None:
        """Say at intervals that this controller lives, while that matters to a rollout."""
        is_due = self._alive_at is None or abs(now - self._alive_at) >= ALIVE_PERIOD
        if not is_due or not self._desk.world.rollouts:
            return
        self._alive_at = now
        try:
            await self._desk.submit(_live)
        except errors.InstarError as error:
            _log.error("cannot say that the controller lives: %s", error)

    async def _rest(self) -> None:
        now = self._clock.now()
        due = [at for each in self._desk.world.rollouts if (at := self._due_at(each)) is not None]
        look_at = self._lookout.next_at()
        until = min([*due, *(() if look_at is None else (look_at,)), now + ALIVE_PERIOD])
        try:
            async with asyncio.timeout(max(0.0, (until - now).total_seconds())):
                await self._changed.wait()
        except TimeoutError:
            return

    def _due_at(self, rollout_id: model.RolloutId) -> datetime | None:
        deadline = rollout.next_deadline(self._desk.world.rollouts[rollout_id])
        if deadline is None:
            return None
        ticked_for, ticked_at = self._ticked.get(rollout_id, (None, None))
        return ticked_at + TICK_AGAIN if ticked_for == deadline and ticked_at is not None else deadline
