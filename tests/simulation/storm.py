"""The faults of one run: they come by themselves, and right behind orders.

Rules kept: of the hosts, mostly those are hit that are in the middle of something. Whatever is broken is whole again
at the end. Left out: faults of single messages (`network`), and versions that are bad (`shelf`).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Mapping

from tests.simulation import host, life, network
from tests.simulation import loop as loops

FAULT_GAP_SECONDS = 20.0  # between two faults that come by themselves, on average
AIMED_SHARE = 0.7  # of the faults of hosts, at those that are in the middle of something
BEHIND_SECONDS = (0.0, 0.4)  # between an order and the trouble behind it
CUT_SECONDS = (5.0, 90.0)  # that nodes are cut off, or slow
ABSENCE_SECONDS = (1.0, 30.0)  # that no controller is up
STILL_SECONDS = (1.0, 60.0)  # that a controller stands still
LEASE_SECONDS = 15.0  # after which another takes over from one that stands still
BESIDE_SECONDS = (0.0, 20.0)  # that it still stands while another leads
FULL_SECONDS = (1.0, 20.0)  # that a disk is full, or fails
STEPS = (1, 60)  # of a controller, within which it is stopped
CLOCK_SECONDS = (1.0, 3600.0)  # by which the clock of a node is set
CONTROLLER_CLOCK_SECONDS = (0.1, 20.0)  # by which that of the controller is set


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
        controller.killed = self._bury

    async def run(self) -> None:
        """Let things fail until cancelled."""
        kinds = (
            *(self._cut_off, self._mute, self._deafen, self._slow_down),
            *(self._crash_agent, self._crash_agent, self._cut_power, self._set_clock, self._fill_disk, self._fail_disk),
            *(self._crash_controller, self._stop_somewhere, self._doom, self._stand_still, self._stand_still),
            *(self._fill_store, self._doubt_store, self._set_controller_clock),
        )
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
        kinds = (self._crash_controller, self._stop_somewhere, self._doom, self._doubt_store)
        fault = self._loop.random.choice((*kinds, self._crash_agent, self._cut_off))
        await asyncio.sleep(self._loop.random.uniform(*BEHIND_SECONDS))
        self._faults["behind an order"] += 1
        await fault()

    async def calm(self) -> None:
        """Faults have stopped: network and disks are whole, and a controller is up."""
        self._group = None
        self._network.heal()
        for each in self._fleet.values():
            each.disk.is_full = False
        await self._controller.calm()

    def some_host(self) -> host.Host:
        """Draw a host; where one works on an operation, mostly one of those."""
        busy = [node_id for node_id, each in self._fleet.items() if each.agent and each.agent._operations.unfinished]
        is_aimed = bool(busy) and self._loop.random.random() < AIMED_SHARE
        return self._fleet[self._loop.random.choice(busy if is_aimed else sorted(self._fleet))]

    async def _sleep(self, between_seconds: tuple[float, float]) -> None:
        await asyncio.sleep(self._loop.random.uniform(*between_seconds))

    # Between the nodes and the controller.

    async def _cut_off(self) -> None:
        await self._trouble("nodes cut off", self._network.cut)

    async def _mute(self) -> None:
        await self._trouble("nodes cut off one way, up", self._network.mute)

    async def _deafen(self) -> None:
        await self._trouble("nodes cut off one way, down", self._network.deaf)

    async def _slow_down(self) -> None:
        await self._trouble("nodes slow", self._network.slow)

    async def _trouble(self, kind: str, troubled: Counter[str]) -> None:
        """Put a tenth of the nodes among the troubled for a time."""
        self._faults[kind] += 1
        nodes = self._loop.random.sample(sorted(self._fleet), max(1, len(self._fleet) // 10))
        troubled.update(nodes)
        await self._sleep(CUT_SECONDS)
        troubled.subtract(nodes)

    # Of a node.

    async def _crash_agent(self) -> None:
        self._faults["agent killed"] += 1
        self.some_host().crash_agent()

    async def _cut_power(self) -> None:
        self._faults["power cut"] += 1
        self.some_host().cut_power()

    async def _set_clock(self) -> None:
        self._faults["node's clock set"] += 1
        self.some_host().clock_offset += host.seconds(self._drawn_step(CLOCK_SECONDS))

    def _drawn_step(self, between_seconds: tuple[float, float]) -> float:
        return self._loop.random.choice((-1, 1)) * self._loop.random.uniform(*between_seconds)

    async def _fill_disk(self) -> None:
        self._faults["node's disk full"] += 1
        hit = self.some_host()
        hit.disk.is_full = True
        await self._sleep(FULL_SECONDS)
        hit.disk.is_full = False

    async def _fail_disk(self) -> None:
        hit = self.some_host()
        if hit.records is not None:
            self._faults["node's disk fails"] += 1
            hit.records.is_failing = True  # until the agent's next life opens it anew

    # Of the controller.

    async def _crash_controller(self) -> None:
        current = self._controller.life
        if current is not None and current.is_up:
            self._faults["controller killed"] += 1
            await self._replace(current)

    async def _replace(self, dead: life.Life) -> None:
        was_leading = self._controller.life is dead
        await self._controller.bury(dead)
        if was_leading:
            await self._sleep(ABSENCE_SECONDS)
            await self._controller.start()

    def _bury(self, dead: life.Life) -> None:
        if self._group is not None:
            work = self._replace(dead)
            self._group.create_task(work, name="burial", context=contextvars.Context())  # not of the one that dies

    async def _stop_somewhere(self) -> None:
        """Kill it at whatever it waits for, also in the middle of its start."""
        current = self._controller.life
        if current is None:
            return

        def kill() -> None:
            self._faults["controller killed at a step"] += 1
            self._bury(current)

        self._loop.stop_within(current.name, self._loop.random.randint(*STEPS), kill)

    async def _doom(self) -> None:
        self._controller.disk.doom = self._loop.random.choice(list(life.Doom))

    async def _stand_still(self) -> None:
        current = self._controller.life
        if current is None or not current.is_up or self._loop.is_still(current.name):
            return
        self._faults["controller stands still"] += 1
        self._loop.stand_still(current.name)
        still_seconds = self._loop.random.uniform(*STILL_SECONDS)
        await asyncio.sleep(min(still_seconds, LEASE_SECONDS))
        if still_seconds > LEASE_SECONDS and self._controller.life is current:
            self._faults["controller wakes past its lease"] += 1
            await self._controller.start()
            await self._sleep(BESIDE_SECONDS)
        self._loop.go_on(current.name)
        if self._controller.life is not current:
            await asyncio.sleep(self._loop.random.uniform(0.0, LEASE_SECONDS / 4))  # until it looks at its lease
            await self._controller.bury(current)

    async def _fill_store(self) -> None:
        self._faults["controller's disk full"] += 1
        self._controller.disk.is_full = True
        await self._sleep(FULL_SECONDS)
        self._controller.disk.is_full = False

    async def _doubt_store(self) -> None:
        self._faults["commit of unknown end"] += 1
        self._controller.disk.is_in_doubt = True

    async def _set_controller_clock(self) -> None:
        self._faults["controller's clock set"] += 1
        self._controller.clock.step(self._drawn_step(CONTROLLER_CLOCK_SECONDS))
