"""Rehearsed: the way for plain programs on shared sockets, which accept as soon as they run.

Rules kept here: a rehearsal of the new release runs on private sockets first and must pass the readiness probe there;
only then does the real one start, on the shared sockets beside the old one. Who answers on a shared socket cannot be
told apart, so the real one must live for as long as the rehearsal took to be ready; when the old one has ended, the
probe is asked again. How long that was is remembered, and rehearsed again where it is not known any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from agent import drivers
from agent.core import model
from agent.drivers import beside, instances, readiness

SUFFIX = "~trial"
UNIX_PREFIX = "unix:"
REMEMBERED_MAX = 16  # a node has one operation at a time


class Rehearsed(beside.Beside):
    """The way.

    Args:
        rehearsals: Time that each rehearsal took, by instance.
    """

    def __init__(
        self, on: instances.Instances, run_dir: Path, style: instances.Style, rehearsals: dict[str, timedelta]
    ) -> None:
        super().__init__(on, run_dir, style)
        self._rehearsals = rehearsals

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Make room, hold the sockets, rehearse."""
        evidence = await super().prepare(change)
        launch = instances.new_of(change)
        if await self._on.find(launch.instance_id) is not None:
            return evidence  # it runs already
        took = await self._rehearse(change.component, launch)
        return {**evidence, "rehearsal_seconds": f"{took.total_seconds():.3f}"}

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Start the new instance on the shared sockets and wait for as long as its rehearsal took."""
        launch = instances.new_of(change)
        if launch.instance_id not in self._rehearsals and await self._on.find(launch.instance_id) is None:
            await self._rehearse(change.component, launch)
        return await super().activate(change)

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """End the old process; then only the new one answers the readiness probe."""
        evidence = await super().pause_old(change)
        await self.ready_alone(change)
        return evidence

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """Go back, and end a rehearsal that an agent left which died in the middle of it."""
        evidence = await super().abort(change)
        if change.new is not None:
            await self._close(change.component, change.new)
        return evidence

    async def ready_alone(self, change: drivers.Change) -> None:
        """Ask for readiness when nothing but the new instance can answer."""
        launch = instances.new_of(change)
        async with instances.limited(launch):
            await readiness.ready(self._on, change.component, launch, self._run_dir)

    async def _works(self, _component: str, launch: drivers.Launch) -> dict[str, str]:
        settle = self._rehearsals.get(launch.instance_id, self._settle_duration)
        await readiness.settled(self._on, launch.instance_id, settle)
        return {"settled_seconds": f"{settle.total_seconds():.3f}"}

    async def _rehearse(self, component: str, launch: drivers.Launch) -> timedelta:
        """Run the release on private sockets until it is ready; say how long it took."""
        names = _listeners(component, launch)
        began = asyncio.get_running_loop().time()
        try:
            async with instances.limited(launch), instances.blaming(model.Fault.INFRASTRUCTURE, "rehearsal_failed"):
                addresses = await self._open(launch, names)
                trial = replace(launch, instance_id=_trial_id(launch), addresses=addresses)
                wanted = instances.specification(component, trial, self._style)
                await self._on.keeper.start(replace(wanted, sockets=names))
                await readiness.ready_or_settled(self._on, component, trial, self._run_dir, self._settle_duration)
            took = timedelta(seconds=asyncio.get_running_loop().time() - began)
        finally:
            await self._close(component, launch)
        self._remember(launch.instance_id, took)
        return took

    async def _open(self, launch: drivers.Launch, names: list[str]) -> Mapping[str, str]:
        """Open a private socket of the same family for each of the manifest; say where they are."""
        found: dict[str, str] = {}
        for number, (socket, name) in enumerate(zip(launch.manifest.sockets, names, strict=True)):
            private = self._run_dir / f"{launch.instance_id}.trial{number}"
            wanted = _private(launch.addresses[socket.name], private)
            found[socket.name] = await self._on.keeper.listen(name, wanted, backlog=socket.backlog)
        return found

    async def _close(self, component: str, launch: drivers.Launch) -> None:
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "rehearsal_failed"):
            await self._on.keeper.stop(_trial_id(launch), launch.manifest.stop_timeout)
            for name in _listeners(component, launch):
                await self._on.keeper.unlisten(name)

    def _remember(self, instance_id: str, took: timedelta) -> None:
        while len(self._rehearsals) >= REMEMBERED_MAX:
            del self._rehearsals[next(iter(self._rehearsals))]
        self._rehearsals[instance_id] = took


def _private(address: str, path: Path) -> str:
    """An address of the same family that nobody else knows."""
    if address.startswith(UNIX_PREFIX):
        return f"{UNIX_PREFIX}{path}"
    host, _, _ = address.rpartition(":")
    return f"{'[::1]' if host.startswith('[') else '127.0.0.1'}:0"


def _trial_id(launch: drivers.Launch) -> str:
    return f"{launch.instance_id}.trial"


def _listeners(component: str, launch: drivers.Launch) -> list[str]:
    return [f"{instances.listener(component, socket.name)}{SUFFIX}" for socket in launch.manifest.sockets]
