"""Feeds time to triggers, and has done what firings do: two tasks for all of them, a stage of the activation.

Theory of operation. When a trigger is next to be looked at is known of each, and found anew where what it remembers has
changed. A firing that acts is in the store before anybody acts on it; the actor takes them one after the other, also
those that an earlier life of the controller has left, and what it does and that it was done are one transaction.

Rules kept: no fault of an action, of an evaluation or of the store ends either task; a tick that changes nothing is
not repeated in haste. Left out: what acting is (`actions`), and what follows (`controller.core.triggers`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from controller import clock as clocks
from controller import tasks
from controller.core import errors, model
from controller.core.triggers import events, machine
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.engine import firing, timing

REST_MAX = timedelta(seconds=5)  # so that a clock that was set is seen
FORGET_PERIOD = timedelta(hours=1)
STORE_AGAIN = timedelta(seconds=5)  # after what became of a firing could not be stored

Act = Callable[[model.Firing], Awaitable[None]]
Forget = Callable[[datetime], Awaitable[None]]

_log = logging.getLogger(__name__)


class Triggering:
    """Time and actions of all triggers.

    Args:
        forget: Forgets what is no more needed.
    """

    def __init__(self, desk: desks.Desk, clock: clocks.Clock, forget: Forget) -> None:
        self._desk = desk
        self._clock = clock
        self._forget = forget
        self._changed = asyncio.Event()
        self._has_act = asyncio.Event()
        self._due: dict[str, datetime] = {}
        self._acts: dict[model.FiringId, model.Firing] = {}
        self._forgot_at: datetime | None = None
        self._guard: tasks.Guard | None = None

    async def start(self, act: Act) -> bool:
        """Begin; say whether that is new.

        Args:
            act: Does what a firing does, and drafts that it was done; raises where it cannot.
        """
        if self._guard is not None:
            return False
        self._due = {}
        now = self._clock.now()
        for name in sorted(self._desk.world.triggers):
            self._plan(name, now)
            self._acts |= {each.id: each for each in machine.outstanding(self._desk.world.statuses[name])}
        self._has_act.set()
        self._guard = tasks.Guard()
        self._guard.start(self._tick_forever(), "engine triggers")
        self._guard.start(self._act_forever(act), "engine firings")
        return True

    async def stop(self) -> bool:
        """End; say whether it ran. What acts meanwhile is acted upon by the next start."""
        guard, self._guard = self._guard, None
        if guard is None:
            return False
        await guard.stop()
        self._acts = {}
        return True

    def take(self, draft: drafts.Draft) -> None:
        """Take notice of what a transaction wrote."""
        changed = self._desk.world.triggers if draft.freezes else draft.triggers
        if changed:
            now = self._clock.now()
            for name in changed:
                self._plan(name, now)
            self._changed.set()
        if draft.acts:
            self._acts |= draft.acts
            self._has_act.set()

    def _plan(self, name: str, now: datetime) -> None:
        """Find out when a trigger is to be looked at; one of which nothing holds a firing any more is due at once."""
        world = self._desk.world
        trigger = world.triggers.get(name)
        if trigger is None:
            self._due.pop(name, None)
            return
        status = world.statuses[name]
        due_at = machine.next_deadline(trigger, status, firing.surroundings(world, trigger, now))
        if due_at is None:
            self._due.pop(name, None)
        else:
            self._due[name] = due_at

    async def _tick_forever(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock.now()
            for name in sorted(each for each, due_at in self._due.items() if due_at <= now):
                await self._tick(name, now)
            await self._tidy(now)
            await self._rest()

    async def _tick(self, name: str, now: datetime) -> None:
        try:
            await self._desk.submit(functools.partial(_tick, name=name))
        except Exception:  # noqa: BLE001 the fault of one trigger, or of the store, must not stop time for the others
            _log.exception("cannot tick trigger %s", name)
        self._plan(name, now)
        if self._due.get(name, now + timing.TICK_AGAIN) < now + timing.TICK_AGAIN:
            self._due[name] = now + timing.TICK_AGAIN

    async def _tidy(self, now: datetime) -> None:
        if self._forgot_at is not None and abs(now - self._forgot_at) < FORGET_PERIOD:
            return
        self._forgot_at = now
        try:
            await self._forget(now)
        except Exception:  # noqa: BLE001 it is tried again in an hour; nothing depends on it
            _log.exception("cannot forget old events")

    async def _rest(self) -> None:
        now = self._clock.now()
        until = min((*self._due.values(), now + REST_MAX))
        try:
            async with asyncio.timeout(max(0.0, (until - now).total_seconds())):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _act_forever(self, act: Act) -> None:
        while True:
            self._has_act.clear()
            while self._acts:
                firing_id = next(iter(self._acts))
                await self._carry_out(act, self._acts.pop(firing_id))
            await self._has_act.wait()

    async def _carry_out(self, act: Act, wanted: model.Firing) -> None:
        """Do what a firing does; where that fails, it is told, however often the store has to be asked."""
        failed = await _failure(act, wanted)
        while failed is not None:
            try:
                await self._desk.submit(functools.partial(_fail, wanted=wanted, error=failed))
            except errors.IllegalEventError:  # it is at its end
                return
            except Exception:  # noqa: BLE001 whatever it is, it must be told
                _log.exception("cannot store what became of firing %s", wanted.id)
                await asyncio.sleep(STORE_AGAIN.total_seconds())
            else:
                return


def _tick(draft: drafts.Draft, name: str) -> None:
    firing.feed(draft, name, events.Tick(draft.at))


def _fail(draft: drafts.Draft, wanted: model.Firing, error: errors.InstarError) -> None:
    is_retryable = not isinstance(error, errors.InvalidRequestError | errors.NotFoundError)
    event = events.ActFailed(draft.at, wanted.id, error.code, str(error), is_retryable)
    firing.feed(draft, wanted.trigger, event)


async def _failure(act: Act, wanted: model.Firing) -> errors.InstarError | None:
    try:
        await act(wanted)
    except errors.InstarError as error:
        return error
    except Exception as error:  # noqa: BLE001 whatever it is, the firing has failed, and the others go on
        _log.exception("cannot do what firing %s does", wanted.id)
        return errors.UnavailableError(
            f"cannot do what firing {wanted.id} does: {type(error).__name__}: {error}", code="action_failed"
        )
    return None
