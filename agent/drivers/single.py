"""One at a time: the way of a restart, where old and new must never run together.

Rules kept here: the mark stands before the old instance is parked, so the keeper goes back by itself when the new one
dies; a parked instance has no process and keeps its place, from which it is launched again. What must happen between
the two, such as migrating the state, is the agent's to undo: then the mark names no old instance, and only an abort
goes back. Sockets stay open throughout: who comes meanwhile waits in the backlog.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from agent import drivers, processes
from agent.core import model
from agent.drivers import instances, observation, readiness


class Single:
    """The way.

    Args:
        settle_duration: Life after which an instance without a readiness probe counts as ready.
        hold_timeout: Time for which connections wait in the backlog while nothing serves; None for ever.
    """

    is_exclusive = True

    def __init__(
        self,
        on: instances.Instances,
        run_dir: Path,
        style: instances.Style,
        *,
        settle_duration: timedelta = readiness.SETTLE_DEFAULT,
        hold_timeout: timedelta | None = None,
    ) -> None:
        self._on = on
        self._run_dir = run_dir
        self._style = style
        self._settle_duration = settle_duration
        self._hold_timeout = hold_timeout

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Make room and hold the sockets; the new instance cannot be started yet."""
        launch = instances.new_of(change)
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            old = await self._on.make_room(change)
            await self._listen(change.component, launch)
        return {"instance": launch.instance_id, "old": old.id if old else ""}

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Park the old instance, do what lies between, start the new one and wait until it serves."""
        launch = instances.new_of(change)
        old = await self._revivable(change)
        await self._on.mark(change, None if change.before_new else old)
        parked = await self._park(change, old)
        between = await change.before_new() if change.before_new else {}
        await self._on.start(change, self._style)
        pid = await self._serve(change.component, launch)
        return {**parked, **between, "pid": pid, "instance": launch.instance_id}

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """Find the old instance parked, as `activate` left it."""
        return await self._park(change, await self._on.old(change))

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """End the new instance, then let the old one serve again."""
        return await self.abort(change)

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """End the new instance, undo what lay between, launch the old one again and see it serve."""
        await self._on.undo(change)
        between = await change.before_old() if change.before_old else {}
        return {**between, **await self._on.resume(change)}

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Look at the new instance."""
        return await observation.observe(self._on, change)

    async def start_alone(self, component: str, launch: drivers.Launch) -> None:
        """Start a release until it serves."""
        await self._listen(component, launch)
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            await self._on.keeper.start(instances.specification(component, launch, self._style))
        await self._serve(component, launch)

    async def _listen(self, component: str, launch: drivers.Launch) -> None:
        if self._style.has_sockets:
            await self._on.listen(component, launch)

    async def _serve(self, component: str, launch: drivers.Launch) -> str:
        """Let a started instance accept where it waits for that, and wait until it is ready."""
        async with instances.limited(launch):
            seen = await self._on.started(launch.instance_id)
            await self._hold(component, launch)
            if seen.state is processes.InstanceState.PREPARED:
                await self._on.keeper.say(seen.id, processes.Word.ACTIVATE, instances.WORD_TIMEOUT)
            await readiness.ready_or_settled(self._on, component, launch, self._run_dir, self._settle_duration)
        return str(seen.pid)

    async def _hold(self, component: str, launch: drivers.Launch) -> None:
        if self._hold_timeout is not None:
            names = [instances.listener(component, socket.name) for socket in launch.manifest.sockets]
            await self._on.keeper.hold(component, names, self._hold_timeout)

    async def _park(self, change: drivers.Change, old: processes.Instance | None) -> dict[str, str]:
        """Let the old instance finish what it has and end; a parked one stays as it is."""
        if old is None:
            return {}
        if not old.is_plain and old.pid:
            drain_timeout = change.old.manifest.drain_timeout if change.old else instances.DRAIN_TIMEOUT_DEFAULT
            async with instances.blaming(model.Fault.INFRASTRUCTURE, "not_parked"):
                await self._on.say_if_alive(old.id, processes.Word.PAUSE)
                await self._idle(old.id, drain_timeout)
        await self._on.park(change, old)
        return {"parked": old.id, "parked_pid": str(old.pid)}

    async def _revivable(self, change: drivers.Change) -> processes.Instance | None:
        """Return the old instance; one that has died is forgotten, or the keeper would start it beside the new one."""
        old = await self._on.old(change)
        if old is None or old.state is not processes.InstanceState.EXITED:
            return old
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "not_parked"):
            await self._on.keeper.stop(old.id, instances.STOP_TIMEOUT_DEFAULT)
        return None

    async def _idle(self, instance_id: str, within: timedelta) -> None:
        """Wait until a paused instance has answered everything, or the time for that is over."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                while await self._in_flight(instance_id):  # noqa: ASYNC110  # it lies in another process
                    await asyncio.sleep(instances.POLL_SECONDS)
        except TimeoutError:
            return

    async def _in_flight(self, instance_id: str) -> int:
        try:
            answer = await self._on.keeper.say(instance_id, processes.Word.STATUS, instances.WORD_TIMEOUT)
        except processes.KeeperError as error:
            if error.code not in instances.GONE:
                raise
            return 0
        return answer.in_flight
