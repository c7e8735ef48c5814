"""Who looks after the nodes of one run: freezes, cordons, quarantines, removes, and calls the emergency.

Rules kept: few nodes are out at the same time, and none is at the end; a host that was removed boots again later, and
is known as a new one. What cannot be is asked for as well.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import timedelta

from controller.core import model
from tests.simulation import host, life, orders
from tests.simulation import loop as loops

ACTOR = host.ACTOR
TURN_SECONDS = 25.0  # between two orders, on average
OUT_MAX = 3  # nodes that are cordoned or quarantined at the same time
FREEZES_MAX = 2  # that stand at the same time
FREEZE_SECONDS = (5, 60)  # that one lasts which ends by itself
DEAD_SECONDS = (30.0, 90.0)  # that a host is down which is removed
EMERGENCY_SHARE = 0.5  # of the runs
EMERGENCY_SECONDS = (120.0, 1500.0)  # when it is called
LOCKED_SECONDS = (20.0, 60.0)  # until somebody lifts its lock
LIMIT_SECONDS = (30, 120)  # within which everything has to be back
SELECTORS = ("", "zone=a", "zone in (b,c)", "zone!=d")
KINDS = ("freeze", "freeze", "unfreeze", "unfreeze", "cordon", "cordon", "uncordon", "quarantine", "remove", "nonsense")


class Wardens:
    """Who decides on nodes."""

    def __init__(
        self, loop: loops.VirtualLoop, fleet: Mapping[str, host.Host], give: orders.Orders, clock: life.Clock
    ) -> None:
        self._loop = loop
        self._fleet = fleet
        self._orders = give
        self._clock = clock

    @property
    def _draw(self) -> random.Random:
        return self._loop.random

    async def watch(self) -> None:
        """Decide on nodes until cancelled."""
        turns = {
            "freeze": self._freeze,
            "unfreeze": self._unfreeze,
            "cordon": self._cordon,
            "uncordon": self._uncordon,
            "quarantine": self._quarantine,
            "remove": self._remove,
            "nonsense": self._nonsense,
        }
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / TURN_SECONDS))
            await turns[self._draw.choice(KINDS)]()

    async def _freeze(self) -> None:
        if len((await self._orders.engine()).freezes()) >= FREEZES_MAX:
            return
        since = self._clock.now() + timedelta(seconds=self._draw.choice([0, 0, 10]))
        until = since + timedelta(seconds=self._draw.randint(*FREEZE_SECONDS))
        ends = self._draw.choice([None, until])
        text = self._draw.choice(SELECTORS)
        await self._orders.give(
            "freeze", lambda engine, mark: engine.add_freeze(text, since, ends, reason=mark, actor=ACTOR)
        )

    async def _unfreeze(self) -> None:
        for freeze in (await self._orders.engine()).freezes():
            if not freeze.is_emergency:
                await self._lift(freeze.id)
                return

    async def _lift(self, freeze_id: model.FreezeId) -> None:
        await self._orders.give(
            "unfreeze", lambda engine, mark: engine.remove_freeze(freeze_id, reason=mark, actor=ACTOR)
        )

    async def _out(self) -> list[model.NodeId]:
        nodes = (await self._orders.engine()).nodes()
        return [each.id for each in nodes if each.cordoned_because or each.quarantined_because]

    def _some_node(self) -> model.NodeId:
        return model.NodeId(self._draw.choice(sorted(self._fleet)))

    async def _cordon(self) -> None:
        node_id = self._some_node()
        if len(await self._out()) < OUT_MAX:
            await self._orders.give(
                "cordon", lambda engine, mark: engine.cordon_node(node_id, reason=mark, actor=ACTOR)
            )

    async def _quarantine(self) -> None:
        node_id = self._some_node()
        if len(await self._out()) < OUT_MAX:
            await self._orders.give(
                "quarantine", lambda engine, mark: engine.quarantine_node(node_id, reason=mark, actor=ACTOR)
            )

    async def _uncordon(self) -> None:
        out = await self._out()
        if out:
            await self._let_in(self._draw.choice(out))

    async def _remove(self) -> None:
        """Remove a node, mostly one whose host is dead."""
        node_id = self._some_node()
        if self._draw.random() < 0.8:
            self._fleet[node_id].cut_power(self._draw.uniform(*DEAD_SECONDS))
            await asyncio.sleep(self._draw.uniform(0.0, DEAD_SECONDS[0]))
        await self._orders.give("remove", lambda engine, mark: engine.remove_node(node_id, reason=mark, actor=ACTOR))

    async def _nonsense(self) -> None:
        """Ask for what cannot be."""
        now, nobody = self._clock.now(), model.NodeId("n999")
        before = now - timedelta(days=1)
        give = self._orders.give
        match self._draw.randrange(4):
            case 0:
                await give("freeze", lambda at, mark: at.add_freeze("", now, before, reason=mark, actor=ACTOR))
            case 1:
                await self._lift(model.FreezeId("f-none"))
            case 2:
                await give("cordon", lambda at, mark: at.cordon_node(nobody, reason=mark, actor=ACTOR))
            case _:
                await give("remove", lambda at, mark: at.remove_node(nobody, reason=mark, actor=ACTOR))

    async def call_emergency(self) -> None:
        """In some runs, take everything back at once, and lift the lock later."""
        if self._draw.random() >= EMERGENCY_SHARE:
            return
        await asyncio.sleep(self._draw.uniform(*EMERGENCY_SECONDS))
        component = model.ComponentName(self._draw.choice(["", "web", "web", "cache"]))
        text = self._draw.choice(SELECTORS)
        within = timedelta(seconds=self._draw.randint(*LIMIT_SECONDS))
        answer = await self._orders.give(
            "emergency",
            lambda engine, mark: engine.roll_back_emergency(component, text, within, reason=mark, actor=ACTOR),
        )
        await asyncio.sleep(self._draw.uniform(*LOCKED_SECONDS))
        if answer is not None:
            await self._lift(answer[1])

    async def let_in(self) -> None:
        """Take away whatever keeps operations from nodes."""
        for freeze in (await self._orders.engine()).freezes():
            await self._lift(freeze.id)
        for node_id in await self._out():
            await self._let_in(node_id)

    async def _let_in(self, node_id: model.NodeId) -> None:
        await self._orders.give("uncordon", lambda engine, _: engine.uncordon_node(node_id, actor=ACTOR))
