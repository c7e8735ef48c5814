"""A driver whose instances the keeper keeps: the verbs that are alike for all of them.

Rules kept here: the keeper decides COMMIT and rolls back by itself when the agent is away; what serves is left alone;
sockets are open from the first start on until nothing of the component shall run: then who connects is refused.
Left out: how the new instance takes over from the old one, which is the way that each driver chooses for a manifest
and a method (`gated`, `beside`, `single`), and pointers, journal and health, which the runner keeps.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from agent import drivers, processes
from agent.core import model
from agent.drivers import instances

WORDS_TO_SERVE = {
    processes.InstanceState.PREPARED: processes.Word.ACTIVATE,
    processes.InstanceState.PAUSED: processes.Word.RESUME,
}
SERVING = frozenset({processes.InstanceState.ACTIVE, *WORDS_TO_SERVE})


class Way(Protocol):
    """How a new instance takes over; the verbs mean what they mean in `drivers.Driver`."""

    @property
    def is_exclusive(self) -> bool:
        """No two instances at once."""
        ...

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """See `drivers.Driver`."""
        ...

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """See `drivers.Driver`."""
        ...

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """See `drivers.Driver`."""
        ...

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """See `drivers.Driver`."""
        ...

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """See `drivers.Driver`."""
        ...

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """See `drivers.Driver`."""
        ...

    async def start_alone(self, component: str, launch: drivers.Launch) -> None:
        """Start a release where nothing else of the component runs, until it could serve."""
        ...


class Kept:
    """The driver, over the ways that a subclass has."""

    def __init__(self, rooms: drivers.Rooms, methods: frozenset[model.Method]) -> None:
        self._on = instances.Instances(rooms.keeper)
        self._run_dir = rooms.run_dir
        self._methods = methods

    def _way(self, manifest: model.Manifest | None, method: model.Method) -> Way:
        """The way for a manifest; None stands for one that is not known any more.

        Raises:
            drivers.DriverError: There is no way.
        """
        raise unsupported(manifest, method)

    def capabilities(self) -> drivers.Capabilities:
        """What it can do at all; a single manifest may allow less."""
        return drivers.Capabilities(self._methods)

    async def plan(self, change: drivers.Change) -> drivers.Evidence:
        """Check that there is a way and that each socket has an address, and say what runs now."""
        self._way_of(change)
        if change.new is not None:
            missing = [s.name for s in change.new.manifest.sockets if s.name not in change.new.addresses]
            if missing:
                raise drivers.DriverError(
                    f"cannot listen: sockets.{change.component}.{missing[0]} is missing in the node's configuration",
                    fault=model.Fault.COMMAND,
                    reason="socket_address_missing",
                )
        return {"instances": str(len(await self._on.of(change.component)))}

    async def stage(self, change: drivers.Change) -> drivers.Evidence:
        """Find the unpacked release; environments are built by the stager before this."""
        return {"release": change.new.release_dir.name if change.new else ""}

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Make room, then prepare in the way of the manifest."""
        instances.new_of(change)
        return await self._way_of(change).prepare(change)

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Activate in the way of the manifest."""
        instances.new_of(change)
        return await self._way_of(change).activate(change)

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """Pause in the way of the manifest; no old instance is as good as a paused one."""
        return await self._way_of(change).pause_old(change)

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """Resume in the way of the manifest."""
        return await self._way_of(change).resume_old(change)

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Look in the way of the manifest."""
        return await self._way_of(change).observe(change)

    async def commit(self, change: drivers.Change) -> drivers.Verdict:
        """Ask the keeper to decide, and make the new instance the one that it keeps."""
        launch = instances.new_of(change)
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
            verdict = await self._decide(change, launch)
            if verdict.outcome is drivers.Outcome.COMMITTED and await self._on.is_alive(launch.instance_id):
                await self._on.keeper.keep(change.component, launch.instance_id)
        return verdict

    async def drain(self, change: drivers.Change) -> drivers.Evidence:
        """Drain and end all but what the keeper keeps of the new release; without one, the component stops."""
        if change.new is None:
            return await self._stop(change.component, change.old.manifest if change.old else None)
        kept = {each.id for each in await self._on.of(change.component) if _is_current(change, each)}
        ended = await self._on.end_all_but(change.component, kept, change.old.manifest if change.old else None)
        return {**ended, **await self._on.close_dropped(change.component, change.new)}

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """Go back in the way of the manifest; where there is none `plan` has refused, and nothing was begun.

        Where there is nothing to go back to, the sockets are closed too.
        """
        try:
            way = self._way_of(change)
        except drivers.DriverError:
            return {}
        undone = await way.abort(change)
        return undone if change.old is not None else {**undone, **await self._on.close(change.component)}

    async def inspect(self, component: str) -> tuple[model.Instance, ...]:
        """What the keeper has of the component."""
        return tuple(instances.instance_of(seen) for seen in await self._on.of(component))

    async def blockers(self, component: str) -> tuple[str, ...]:
        """Instances that drain and still have something to do."""
        return await self._on.blockers(component)

    async def gc(self, component: str, keep: Collection[str]) -> drivers.Evidence:
        """Drain and end each instance beside those named, the oldest first; with none named, the component stops."""
        return await self._on.end_all_but(component, keep, None) if keep else await self._stop(component, None)

    async def bring_up(self, component: str, launch: drivers.Launch) -> drivers.Evidence:
        """Let what runs this release serve and keep it, else start it; one that the keeper revives is left to it."""
        is_hot = model.Method.HOT_SWAP in self._methods
        way = self._way(launch.manifest, model.Method.HOT_SWAP if is_hot else model.Method.RESTART)
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "not_brought_up"):
            found = await self._candidate(component, launch.digest)
            if found is None:
                await self._on.end_all_but(component, (), launch.manifest)
                await way.start_alone(component, launch)
                found = await self._on.started(launch.instance_id)
            elif way.is_exclusive:
                await self._on.end_all_but(component, {found.id}, launch.manifest)
            word = WORDS_TO_SERVE.get(found.state)
            if word is not None:
                await self._on.keeper.say(found.id, word, instances.WORD_TIMEOUT)
            await self._on.keeper.keep(component, found.id)
        return {"instance": found.id, "pid": str(found.pid)}

    async def _stop(self, component: str, manifest: model.Manifest | None) -> drivers.Evidence:
        """End everything of a component, then refuse who connects."""
        ended = await self._on.end_all_but(component, (), manifest)
        return {**ended, **await self._on.close(component)}

    async def _candidate(self, component: str, digest: str) -> processes.Instance | None:
        """What runs a release already; the kept one first, then the youngest."""
        mine = [each for each in await self._on.of(component) if each.digest == digest]
        usable = [each for each in mine if each.is_kept or each.state in SERVING]
        return max(usable, key=lambda each: (each.is_kept, each.started_at_monotonic), default=None)

    def _way_of(self, change: drivers.Change) -> Way:
        launch = change.new or change.old
        return self._way(launch.manifest if launch else None, change.method)

    async def _decide(self, change: drivers.Change, launch: drivers.Launch) -> drivers.Verdict:
        try:
            outcome = await self._on.keeper.commit(change.operation_id, launch.instance_id)
        except processes.KeeperError as error:
            if error.code != "mark_unknown":
                raise
            return await self._decide_without_mark(change, launch)
        if outcome.decision is processes.Decision.COMMITTED:
            return drivers.Verdict(drivers.Outcome.COMMITTED)
        message = f"cannot commit: the keeper went back: {outcome.why}"
        return drivers.Verdict(drivers.Outcome.ROLLED_BACK, instances.fault_of(outcome), message)

    async def _decide_without_mark(self, change: drivers.Change, launch: drivers.Launch) -> drivers.Verdict:
        """Decide after the keeper, too, was started again: the journal said COMMIT; redo, unless only the old lives."""
        old = await self._on.old(change)
        if old is None or await self._on.is_alive(launch.instance_id):
            return drivers.Verdict(drivers.Outcome.COMMITTED)
        message = "cannot commit: the keeper was started again, and the new instance is gone"
        return drivers.Verdict(drivers.Outcome.ROLLED_BACK, model.Fault.INFRASTRUCTURE, message)


def unsupported(manifest: model.Manifest | None, method: model.Method) -> drivers.DriverError:
    """The error for what a driver cannot do with a manifest."""
    named = f"{manifest.name} {manifest.version}" if manifest else "the component"
    message = f"cannot change {named} by {method.value}: its manifest does not allow it"
    return drivers.DriverError(message, fault=model.Fault.COMMAND, reason="method_not_supported")


def _is_current(change: drivers.Change, seen: processes.Instance) -> bool:
    """After a boot the new release may run in another instance than the first; an old one may have the same digest."""
    if change.new is None:
        return False
    return seen.id == change.new.instance_id or (seen.is_kept and seen.digest == change.new.digest)
