"""The people of one run: teams that ask for upgrades, and whoever meddles with what is under way, by the seed's draw.

Rules kept: every order of the engine is given, in every state, also where it cannot be; what somebody took out of the
fleet comes back before the end, and then whoever waits for people is helped on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from controller import engine as engines
from controller.core import model
from tests.simulation import asking, host, orders, shelf
from tests.simulation import loop as loops

ACTOR = host.ACTOR
PAUSE_SECONDS = 30.0  # of a team between two requests, on average
PATIENCE_SECONDS = (10.0, 150.0)  # that a team watches its rollout before it asks for something else
LOOK_SECONDS = 5.0  # between two looks
MEDDLE_SECONDS = 12.0  # between two orders on rollouts, on average
UNDER_WAY_MAX = 5  # rollouts that have not ended; a team waits then
NEW_SHARE = 0.6  # of the requests, for a new version
WEB_SHARE = 0.8  # of the requests
AIMED_SHARE = 0.75  # of the orders on rollouts, at what is under way
SENSIBLE_SHARE = 0.7  # of the orders on rollouts, that fit the state
KNOWN = 12  # newest rollouts that anybody thinks of
S = model.RolloutState
Verb = Callable[[engines.Engine, model.RolloutId, str], Awaitable[object]]

VERBS: dict[str, Verb] = {
    "pause": lambda engine, at, mark: engine.pause(at, reason=mark, actor=ACTOR),
    "resume": lambda engine, at, mark: engine.resume(at, reason=mark, actor=ACTOR),
    "promote": lambda engine, at, mark: engine.promote(at, reason=mark, actor=ACTOR),
    "cancel": lambda engine, at, mark: engine.cancel(at, reason=mark, actor=ACTOR),
    "retry": lambda engine, at, mark: engine.retry(at, reason=mark, actor=ACTOR),
    "revert": lambda engine, at, mark: engine.revert(at, reason=mark, actor=ACTOR),
}
SENSIBLE: dict[model.RolloutState, tuple[str, ...]] = {
    S.PENDING: ("cancel",),
    S.RUNNING: (*["pause"] * 5, *["promote"] * 3, "cancel", "revert"),
    S.PAUSED: (*["resume"] * 6, "cancel", "revert"),
    S.REVERTING: ("revert",),
    S.SUCCEEDED: ("revert",),
    S.FAILED: ("retry", "retry", "revert"),
    S.CANCELLED: ("retry", "retry", "revert"),
    S.REVERTED: ("retry",),  # which reverts the revert
    S.STUCK: ("retry",),
}


class People:
    """Who asks and orders.

    Args:
        give: How orders are given.
        made: The releases.
    """

    def __init__(self, loop: loops.VirtualLoop, give: orders.Orders, made: shelf.Shelf) -> None:
        self.rollouts: list[model.RolloutId] = []
        self._loop = loop
        self._orders = give
        self._made = made
        self._barriers = 0
        self._requests = 0

    @property
    def _draw(self) -> random.Random:
        return self._loop.random

    # Teams.

    async def found(self, nodes: int) -> None:
        """Install the first version of everything on every node."""
        while len((await self._orders.engine()).nodes()) < nodes:  # noqa: ASYNC110 people poll
            await asyncio.sleep(LOOK_SECONDS)
        for component in (shelf.CACHE, shelf.WEB):
            release = await self._publish(component)
            while await self._start(asking.first(release, self._name())) is None:  # noqa: ASYNC110 as above
                await asyncio.sleep(LOOK_SECONDS)
            await self._see_end(self.rollouts[-1])

    async def work(self) -> None:
        """Ask for one upgrade after another until cancelled."""
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / PAUSE_SECONDS))
            if len(await self._under_way()) >= UNDER_WAY_MAX:
                continue
            release = await self._wanted()
            started = await self._start(asking.upgrade(self._draw, release, self._name()))
            if started is not None:
                await self._follow(started)

    def _name(self) -> str:
        self._requests += 1
        return f"upgrade {self._requests}"

    async def _wanted(self) -> model.Release:
        component = shelf.WEB if self._draw.random() < WEB_SHARE else shelf.CACHE
        if self._draw.random() < NEW_SHARE:
            return await self._publish(component)
        return self._draw.choice(self._made.releases[component][-4:])

    async def _publish(self, component: model.ComponentName) -> model.Release:
        release = self._made.make(component)
        await self._put(release)
        for required in release.requirements:  # it may be another team's, and not published yet
            for each in self._made.releases[required.component]:
                await self._put(each)
        await self._declare()
        return release

    async def _put(self, release: model.Release) -> None:
        while await self._orders.give("publish", lambda engine, _: engine.publish(release)) is None:  # noqa: ASYNC110 as above
            await asyncio.sleep(LOOK_SECONDS)

    async def _declare(self) -> None:
        """Tell of barriers that are new."""
        barriers = tuple(self._made.barriers)
        if len(barriers) == self._barriers:
            return
        if await self._orders.give("declare", lambda engine, _: _declared(engine, barriers)):
            self._barriers = len(barriers)

    async def _start(self, wanted: model.UpgradeRequest) -> model.RolloutId | None:
        """Ask until it is answered, under one identity."""
        while True:
            begun = await self._orders.give(
                "start",
                lambda engine, mark: engine.start_upgrade(wanted, request_id=mark, actor=ACTOR),
                name=wanted.name,
            )
            if begun is not None:
                if begun.id not in self.rollouts:
                    self.rollouts.append(begun.id)
                return begun.id
            if wanted.name in self._orders.refused_names:
                return None
            await asyncio.sleep(LOOK_SECONDS)

    async def _follow(self, rollout_id: model.RolloutId) -> None:
        until_seconds = self._loop.time() + self._draw.uniform(*PATIENCE_SECONDS)
        while self._loop.time() < until_seconds and not (await self._state(rollout_id)).is_terminal:  # noqa: ASYNC110 as above
            await asyncio.sleep(LOOK_SECONDS)

    async def _see_end(self, rollout_id: model.RolloutId) -> None:
        while not (await self._state(rollout_id)).is_terminal:  # noqa: ASYNC110 people poll
            await asyncio.sleep(LOOK_SECONDS)

    async def _state(self, rollout_id: model.RolloutId) -> model.RolloutState:
        await self._orders.engine()
        return self._orders.state(rollout_id)

    async def _under_way(self) -> list[model.RolloutId]:
        await self._orders.engine()
        return [each for each in self.rollouts if not self._orders.state(each).is_terminal]

    # Whoever leads rollouts.

    async def meddle(self) -> None:
        """Give orders on rollouts, fitting ones and others, until cancelled."""
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / MEDDLE_SECONDS))
            await self._order_something()

    async def _order_something(self) -> None:
        under_way = await self._under_way()
        is_aimed = under_way and self._draw.random() < AIMED_SHARE
        rollout_id = self._draw.choice(under_way if is_aimed else self.rollouts[-KNOWN:])
        if self._draw.random() < 0.02:
            rollout_id = model.RolloutId("nobody-knows-it")
            verb = self._draw.choice(list(VERBS))
        else:
            fitting = SENSIBLE[await self._state(rollout_id)]
            others = [verb for verb in VERBS if verb not in fitting]
            verb = self._draw.choice(fitting if self._draw.random() < SENSIBLE_SHARE else others)
        await self._orders.give(verb, lambda engine, mark: VERBS[verb](engine, rollout_id, mark))

    async def help_on(self) -> bool:
        """Let go on what waits for people; tell whether everything has ended."""
        engine = await self._orders.engine()
        left = await self._under_way()
        for rollout_id in left:
            rollout = engine.rollout(rollout_id)
            if rollout.state is S.PAUSED:
                await self._help("resume", rollout_id)
            elif rollout.request.policy.is_promoted_by_hand and not rollout.is_promoted and rollout.idle_since:
                await self._help("promote", rollout_id)
        return not left

    async def _help(self, verb: str, rollout_id: model.RolloutId) -> None:
        await self._orders.give(verb, lambda engine, mark: VERBS[verb](engine, rollout_id, mark))


async def _declared(engine: engines.Engine, barriers: tuple[model.Barrier, ...]) -> bool:
    await engine.put_graph(shelf.WEB, (), barriers, actor=ACTOR)
    return True
