"""Beside each other: the way for plain programs of which two may run at once, such as queue consumers.

Rules kept here: the new instance is started and has shown that it works before the old one is touched; the old one
keeps its place, from which it is launched again, until COMMIT; an abort sees it serve before it ends the new one. A
plain program serves from its start on, so it is started by `activate`, not by `prepare`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from agent import drivers
from agent.core import model
from agent.drivers import instances, observation, readiness


class Beside:
    """The way.

    Args:
        settle_duration: Life after which an instance without a readiness probe counts as ready.
    """

    is_exclusive = False

    def __init__(
        self,
        on: instances.Instances,
        run_dir: Path,
        style: instances.Style,
        *,
        settle_duration: timedelta = readiness.SETTLE_DEFAULT,
    ) -> None:
        self._on = on
        self._run_dir = run_dir
        self._style = style
        self._settle_duration = settle_duration

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Make room and hold the sockets."""
        launch = instances.new_of(change)
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            old = await self._on.make_room(change)
            await self._listen(change.component, launch)
        return {"instance": launch.instance_id, "old": old.id if old else ""}

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Start the new instance, put the mark, and wait until it works."""
        launch = instances.new_of(change)
        old = await self._on.old(change)
        await self._on.start(change, self._style)
        await self._on.mark(change, old)
        async with instances.limited(launch):
            evidence = await self._works(change.component, launch)
            seen = await self._on.started(launch.instance_id)
        return {**evidence, "pid": str(seen.pid), "instance": seen.id}

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """End the process of the old instance; it can be launched again."""
        old = await self._on.old(change)
        if old is None:
            return {}
        await self._on.park(change, old)
        return {"parked": old.id, "parked_pid": str(old.pid)}

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """Launch the old instance again, and see it live for as long as it takes to work."""
        old = await self._on.old(change)
        evidence = await self._on.resume(change)
        if old is not None and old.pid == 0:
            await readiness.settled(self._on, old.id, self._settle_duration)
        return evidence

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """Launch the old instance again and see it work; only then end the new one."""
        evidence = await self.resume_old(change)
        await self._on.undo(change)
        return evidence

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Look at the new instance."""
        return await observation.observe(self._on, change)

    async def start_alone(self, component: str, launch: drivers.Launch) -> None:
        """Start a release until it works."""
        await self._listen(component, launch)
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            await self._on.keeper.start(instances.specification(component, launch, self._style))
        async with instances.limited(launch):
            await readiness.ready_or_settled(self._on, component, launch, self._run_dir, self._settle_duration)

    async def _listen(self, component: str, launch: drivers.Launch) -> None:
        if self._style.has_sockets:
            await self._on.listen(component, launch)

    async def _works(self, component: str, launch: drivers.Launch) -> dict[str, str]:
        """Wait until a started instance has shown that it works."""
        await readiness.ready_or_settled(self._on, component, launch, self._run_dir, self._settle_duration)
        return {}
