"""The faults of one run: they come by themselves, and right behind orders.

Rules kept: of the hosts, mostly those are hit that are in the middle of something.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from tests.simulation import host, life, network
from tests.simulation import loop as loops

FAULT_GAP_SECONDS = 15.0  # between two faults that come by themselves, on average
AIMED_SHARE = 0.7  # of the faults of hosts, at those that are in the middle of something
BEHIND_SECONDS = (0.0, 0.4)  # between an order and the trouble behind it
CUT_SECONDS = (5.0, 90.0)  # that nodes are cut off
ABSENCE_SECONDS = (1.0, 30.0)  # that no controller is up


class Storm:
    """What fails."""

    def __init__(
        self,
        loop: loops.VirtualLoop,
        fleet: Mapping[str, host.Host],
        net: network.Network,
        controller: life.Controller,
        faults: Counter[str],
    ) -> None:
        self._loop = loop
        self._fleet = fleet
        self._network = net
        self._controller = controller
        self._faults = faults
        self._group: asyncio.TaskGroup | None = None
        self._is_starting = False

    async def run(self) -> None:
        """Let things fail until cancelled."""
        kinds = (self._cut_off, self._crash_agent, self._crash_agent, self._cut_power, self._crash_controller)
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                await asyncio.sleep(self._loop.random.expovariate(1 / FAULT_GAP_SECONDS))
                fault = self._loop.random.choice(kinds)
                group.create_task(fault(), name=fault.__name__)

    def strike(self) -> None:
        """Let something fail within moments, mostly the controller."""
        if self._group is not None:
            self._group.create_task(self._follow(), name="trouble")

    async def _follow(self) -> None:
        fault = self._loop.random.choice(
            (self._crash_controller, self._crash_controller, self._crash_agent, self._cut_off)
        )
        await asyncio.sleep(self._loop.random.uniform(*BEHIND_SECONDS))
        self._faults["behind an order"] += 1
        await fault()

    async def calm(self) -> None:
        """Faults have stopped: the network is whole and a controller is up."""
        self._group = None
        self._network.is_faulty = False
        self._network.cut.clear()
        if self._controller.engine is None:
            await self._controller.crash()
            await self._controller.start()

    def some_host(self) -> host.Host:
        """Draw a host; where one works on an operation, mostly one of those."""
        busy = [node_id for node_id, each in self._fleet.items() if each.agent and each.agent._operations.unfinished]
        is_aimed = bool(busy) and self._loop.random.random() < AIMED_SHARE
        return self._fleet[self._loop.random.choice(busy if is_aimed else sorted(self._fleet))]

    async def _cut_off(self) -> None:
        self._faults["nodes cut off"] += 1
        nodes = set(self._loop.random.sample(sorted(self._fleet), max(1, len(self._fleet) // 10)))
        self._network.cut |= nodes
        await asyncio.sleep(self._loop.random.uniform(*CUT_SECONDS))
        self._network.cut -= nodes

    async def _crash_agent(self) -> None:
        self._faults["agent killed"] += 1
        self.some_host().crash_agent()

    async def _cut_power(self) -> None:
        self._faults["power cut"] += 1
        self.some_host().cut_power()

    async def _crash_controller(self) -> None:
        if self._controller.engine is None:
            return
        self._faults["controller killed"] += 1
        await self._controller.crash()
        await asyncio.sleep(self._loop.random.uniform(*ABSENCE_SECONDS))
        await self._controller.start()
