"""The gated hand-off: a way for programs that speak the hand-over protocol; it loses no request.

Rules kept here: the new instance starts fully and passes its readiness probe without accepting; then activate new,
pause old, and only COMMIT ends the old one; an abort resumes the old one and sees it serve before it ends the new one.
What is paused is what the keeper's mark names. Between the two the keeper is asked as seldom as can be: both accept.

Source: DESIGN "Gated hand-off"; the order follows nginx's binary upgrade, where the old master stays revivable.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from agent import drivers, processes
from agent.core import model
from agent.drivers import instances, observation, readiness

LEAVING = frozenset({processes.InstanceState.DRAINING, processes.InstanceState.PAUSED})
STYLE = instances.Style(protocol=processes.Protocol.HANDOVER)


class Gated:
    """The way.

    Args:
        marked: Old instance of each operation that is between its mark and its pause; the driver's.
    """

    is_exclusive = False

    def __init__(
        self, on: instances.Instances, run_dir: Path, marked: MutableMapping[str, processes.Instance | None]
    ) -> None:
        self._on = on
        self._run_dir = run_dir
        self._marked = marked

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Make room, start the new instance, wait until it says prepared and passes its readiness probe."""
        launch = instances.new_of(change)
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            await self._on.make_room(change)
            await self._on.listen(change.component, launch)
            is_back = await self._is_back(launch)
        if not is_back:
            await self._on.start(change, STYLE)
        async with instances.limited(launch):
            await readiness.ready(self._on, change.component, launch, self._run_dir)
            seen = await self._on.started(launch.instance_id)
        return {"pid": str(seen.pid), "instance": seen.id}

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Put the keeper's mark, then let the new instance accept beside the old one."""
        launch = instances.new_of(change)
        old, new = await self._on.both(change)
        await self._on.mark(change, old)
        is_paused = new is not None and new.state is processes.InstanceState.PAUSED
        word = processes.Word.RESUME if is_paused else processes.Word.ACTIVATE
        async with instances.blaming(model.Fault.VERSION, "not_activated"):
            answer = await self._on.keeper.say(launch.instance_id, word, instances.WORD_TIMEOUT)
        self._marked.clear()  # one operation at a time holds a node; what an earlier one left is over
        self._marked[change.operation_id] = old
        return {"state": answer.state.value}

    async def _is_back(self, launch: drivers.Launch) -> bool:
        """Keep the new instance from leaving, where it is one that still drains; say whether it is."""
        seen = await self._on.find(launch.instance_id)
        if seen is None or seen.state not in LEAVING:
            return False
        for word in (processes.Word.RESUME, processes.Word.PAUSE):
            await self._on.keeper.say(seen.id, word, instances.WORD_TIMEOUT)
        return True

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """Stop the old instance from accepting; a dead one is as good as paused."""
        is_marked = change.operation_id in self._marked
        old = self._marked.pop(change.operation_id) if is_marked else await self._on.old(change)
        if old is None:
            return {}
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "not_paused"):
            await self._on.say_if_alive(old.id, processes.Word.PAUSE)
        return {"paused": old.id, "paused_pid": str(old.pid)}

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """Let the old instance accept again, and see that it does."""
        return await self._on.resume(change)

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """Resume the old instance and see it serve; only then pause, drain and stop the new one."""
        evidence = await self._on.resume(change)
        await self._on.undo(change)
        return evidence

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Ask the new instance where it stands and what it served."""
        return await observation.observe(self._on, change)

    async def start_alone(self, component: str, launch: drivers.Launch) -> None:
        """Start a release until it is prepared and ready."""
        await self._on.listen(component, launch)
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            await self._on.keeper.start(instances.specification(component, launch, STYLE))
        async with instances.limited(launch):
            await readiness.ready(self._on, component, launch, self._run_dir)
