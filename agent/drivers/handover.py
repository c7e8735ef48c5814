"""Gated hand-off: the driver for services that speak the hand-over protocol; it loses no request.

Rules kept here: the new instance starts fully and passes its readiness probe without accepting; then activate new,
pause old, and only COMMIT ends the old one; an abort resumes the old one first. The keeper owns processes and sockets
and decides COMMIT. Left out: pointers, journal and health, which the runner keeps.

Source: DESIGN "Gated hand-off"; the order follows nginx's binary upgrade, where the old master stays revivable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from agent import probes, processes
from agent.config import layout
from agent.core import model
from agent.drivers import Capabilities, Change, DriverError, Evidence, Launch, Observation, Outcome, Verdict

NAME = "handover"
POLL_SECONDS = 0.02  # between two looks at an instance that is about to change; a swap takes tens of milliseconds
WORD_TIMEOUT = timedelta(seconds=5)  # an event loop that does not answer for so long serves nobody either
DRAIN_TIMEOUT_DEFAULT = timedelta(seconds=30)  # where the manifest of what drains is not known any more
STOP_TIMEOUT_DEFAULT = timedelta(seconds=5)

STATES = {
    processes.InstanceState.STARTING: model.InstanceState.STARTING,
    processes.InstanceState.PREPARED: model.InstanceState.PREPARED,
    processes.InstanceState.ACTIVE: model.InstanceState.ACTIVE,
    processes.InstanceState.PAUSED: model.InstanceState.PAUSED,
    processes.InstanceState.DRAINING: model.InstanceState.DRAINING,
    processes.InstanceState.DRAINED: model.InstanceState.DRAINING,
    processes.InstanceState.EXITED: model.InstanceState.EXITED,
}
GONE = {"unknown_instance", "instance_gone"}


def instance_of(seen: processes.Instance) -> model.Instance:
    """What the keeper shows, in the agent's words."""
    return model.Instance(seen.id, seen.digest, seen.pid, STATES[seen.state], seen.served)


def fault_of(outcome: processes.Outcome) -> model.Fault:
    """Whose fault it was that the keeper went back: the new instance's that ended, or nobody's who was away."""
    return model.Fault.VERSION if outcome.cause is processes.Cause.INSTANCE_DIED else model.Fault.INFRASTRUCTURE


class Handover:
    """The driver; its outside world is the keeper and the run directory.

    Args:
        run_dir: Where the probe sockets of instances are.
    """

    def __init__(self, keeper: processes.Keeper, run_dir: Path) -> None:
        self._keeper = keeper
        self._run_dir = run_dir

    def capabilities(self) -> Capabilities:
        """It hot-swaps, and nothing else."""
        return Capabilities(frozenset({model.Method.HOT_SWAP}))

    async def plan(self, change: Change) -> Evidence:
        """Check that each socket has an address and say what serves now."""
        if change.new is not None:
            missing = [s.name for s in change.new.manifest.sockets if s.name not in change.new.addresses]
            if missing:
                raise DriverError(
                    f"cannot listen: sockets.{change.component}.{missing[0]} is missing in the node's configuration",
                    fault=model.Fault.COMMAND,
                    reason="socket_address_missing",
                )
        return {"instances": str(len(await self._instances(change.component)))}

    async def stage(self, change: Change) -> Evidence:
        """Find the unpacked release; it is all that such a component needs."""
        return {"release": change.new.release_dir.name if change.new else ""}

    async def prepare(self, change: Change) -> Evidence:
        """Make room, start the new instance, wait until it says prepared and passes its readiness probe."""
        launch = _new(change)
        async with self._blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            old = await self._old(change)
            await self.gc(change.component, {launch.instance_id, *([old.id] if old else [])})
            await self._listen(change.component, launch)
            await self._keeper.start(_spec(change, launch))
        async with self._limited(launch):
            seen = await self._prepared(launch)
            await self._ready(launch)
        return {"pid": str(seen.pid), "instance": seen.id}

    async def activate(self, change: Change) -> Evidence:
        """Put the keeper's mark, then let the new instance accept beside the old one."""
        launch = _new(change)
        old = await self._old(change)
        async with self._blaming(model.Fault.VERSION, "not_activated"):
            await self._keeper.mark(change.operation_id, launch.instance_id, old.id if old else None, change.time_left)
            answer = await self._keeper.say(launch.instance_id, processes.Word.ACTIVATE, WORD_TIMEOUT)
        return {"state": answer.state.value}

    async def pause_old(self, change: Change) -> Evidence:
        """Stop the old instance from accepting; a dead one is as good as paused."""
        old = await self._old(change)
        if old is None:
            return {}
        async with self._blaming(model.Fault.INFRASTRUCTURE, "not_paused"):
            await self._say_if_alive(old.id, processes.Word.PAUSE)
        return {"paused": old.id, "paused_pid": str(old.pid)}

    async def resume_old(self, change: Change) -> Evidence:
        """Let the old instance accept again."""
        old = await self._old(change)
        if old is None:
            return {}
        async with self._blaming(model.Fault.INFRASTRUCTURE, "not_resumed"):
            await self._say_if_alive(old.id, processes.Word.RESUME)
        return {"resumed": old.id, "resumed_pid": str(old.pid)}

    async def observe(self, change: Change) -> Observation:
        """Ask the new instance where it stands and what it served."""
        launch = _new(change)
        seen = await self._find(launch.instance_id)
        if seen is None or seen.state is processes.InstanceState.EXITED:
            return Observation(None, _death(launch.instance_id, seen))
        try:
            answer = await self._keeper.say(launch.instance_id, processes.Word.STATUS, WORD_TIMEOUT)
        except processes.KeeperError as error:
            if error.code in GONE:
                return Observation(None, error.message)
            return Observation(instance_of(seen))  # busy: its health probe will tell
        return Observation(model.Instance(seen.id, seen.digest, seen.pid, STATES[answer.state], answer.served))

    async def commit(self, change: Change) -> Verdict:
        """Ask the keeper to decide, and make the new instance the one that it keeps."""
        launch = _new(change)
        async with self._blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
            verdict = await self._decide(change, launch)
            if verdict.outcome is Outcome.COMMITTED and await self._is_alive(launch.instance_id):
                await self._keeper.keep(change.component, launch.instance_id)
        return verdict

    async def drain(self, change: Change) -> Evidence:
        """Drain and end all but the new release; after a boot it may run in another instance than the first."""
        seen = await self._instances(change.component)
        kept = {each.id for each in seen if change.new is not None and each.digest == change.new.digest}
        return await self.gc(change.component, kept, change.old)

    async def abort(self, change: Change) -> Evidence:
        """Resume the old instance and see it accept; only then pause, drain and stop the new one."""
        resumed = await self.resume_old(change)
        if change.new is None:
            return resumed
        async with self._blaming(model.Fault.INFRASTRUCTURE, "not_undone"):
            seen = await self._find(change.new.instance_id)
            if seen is not None:
                await self._end(seen, change.new.manifest)
            await self._keeper.unmark(change.operation_id)
        return resumed

    async def inspect(self, component: str) -> tuple[model.Instance, ...]:
        """What the keeper holds of the component."""
        return tuple(instance_of(seen) for seen in await self._instances(component))

    async def blockers(self, component: str) -> tuple[str, ...]:
        """Instances that still have connections or requests."""
        return tuple(
            f"{seen.id} has {seen.accepted} connections and {seen.in_flight} requests"
            for seen in await self._instances(component)
            if seen.state is processes.InstanceState.DRAINING
        )

    async def gc(self, component: str, keep: Collection[str], manifest: model.Manifest | None = None) -> Evidence:
        """Drain and end each instance beside those named, the oldest first."""
        evidence: dict[str, str] = {}
        others = [seen for seen in await self._instances(component) if seen.id not in keep]
        async with self._blaming(model.Fault.INFRASTRUCTURE, "not_drained"):
            for seen in sorted(others, key=lambda seen: seen.started_at_monotonic):
                evidence[seen.id] = await self._end(seen, manifest)
        return evidence

    async def _decide(self, change: Change, launch: Launch) -> Verdict:
        try:
            outcome = await self._keeper.commit(change.operation_id, launch.instance_id)
        except processes.KeeperError as error:
            if error.code != "mark_unknown":
                raise
            return await self._decide_without_mark(change, launch)
        if outcome.decision is processes.Decision.COMMITTED:
            return Verdict(Outcome.COMMITTED)
        fault = fault_of(outcome)
        return Verdict(Outcome.ROLLED_BACK, fault, f"cannot commit: the keeper went back: {outcome.why}")

    async def _decide_without_mark(self, change: Change, launch: Launch) -> Verdict:
        """Decide after the keeper, too, was started again: the journal said COMMIT; redo, unless only the old lives."""
        old = await self._old(change)
        if await self._is_alive(launch.instance_id) or old is None:
            return Verdict(Outcome.COMMITTED)
        message = "cannot commit: the keeper was started again, and the new instance is gone"
        return Verdict(Outcome.ROLLED_BACK, model.Fault.INFRASTRUCTURE, message)

    async def _listen(self, component: str, launch: Launch) -> None:
        for socket in launch.manifest.sockets:
            name = f"{component}.{socket.name}"
            await self._keeper.listen(name, launch.addresses[socket.name], backlog=socket.backlog)

    async def _prepared(self, launch: Launch) -> processes.Instance:
        while True:
            seen = await self._find(launch.instance_id)
            if seen is None or seen.state is processes.InstanceState.EXITED:
                message = _death(launch.instance_id, seen)
                raise DriverError(message, fault=model.Fault.VERSION, reason="crashed_at_start")
            if seen.state is not processes.InstanceState.STARTING:
                return seen
            await asyncio.sleep(POLL_SECONDS)

    async def _ready(self, launch: Launch) -> None:
        probe = launch.manifest.readiness
        if probe is None:
            return
        socket_path = layout.probe_socket(self._run_dir, launch.instance_id)
        while not (await probes.ask(probe, socket_path)).is_success:
            await self._prepared(launch)  # a dead one is never ready
            await asyncio.sleep(min(probe.period.total_seconds(), POLL_SECONDS))

    async def _end(self, seen: processes.Instance, manifest: model.Manifest | None) -> str:
        """Drain one instance, then stop it; say whether it took force, and who was in the way."""
        drain_timeout = manifest.drain_timeout if manifest else DRAIN_TIMEOUT_DEFAULT
        stop_timeout = manifest.stop_timeout if manifest else STOP_TIMEOUT_DEFAULT
        is_drained = await self._drained(seen.id, drain_timeout)
        blockers = () if is_drained else await self.blockers(seen.component)
        await self._keeper.stop(seen.id, stop_timeout)
        return "drained" if is_drained else f"forced: {'; '.join(blockers)}"

    async def _drained(self, instance_id: str, within: timedelta) -> bool:
        try:
            await self._keeper.say(instance_id, processes.Word.DRAIN, WORD_TIMEOUT)
            async with asyncio.timeout(within.total_seconds()):
                await self._ended(instance_id)
        except processes.KeeperError as error:
            if error.code == "keeper_gone":
                raise
            return error.code in GONE
        except TimeoutError:
            return False
        return True

    async def _ended(self, instance_id: str) -> None:
        while True:
            if not await self._is_alive(instance_id):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _say_if_alive(self, instance_id: str, word: processes.Word) -> None:
        try:
            await self._keeper.say(instance_id, word, WORD_TIMEOUT)
        except processes.KeeperError as error:
            if error.code not in GONE:
                raise

    async def _instances(self, component: str) -> list[processes.Instance]:
        async with self._blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
            return [seen for seen in (await self._keeper.inspect()).instances if seen.component == component]

    async def _find(self, instance_id: str) -> processes.Instance | None:
        seen = {seen.id: seen for seen in (await self._keeper.inspect()).instances}
        return seen.get(instance_id)

    async def _old(self, change: Change) -> processes.Instance | None:
        """The kept instance that is not the new one, if it lives."""
        new_id = change.new.instance_id if change.new else ""
        alive = (
            seen
            for seen in await self._instances(change.component)
            if seen.is_kept and seen.id != new_id and seen.state is not processes.InstanceState.EXITED
        )
        return next(alive, None)

    async def _is_alive(self, instance_id: str) -> bool:
        seen = await self._find(instance_id)
        return seen is not None and seen.state is not processes.InstanceState.EXITED

    @asynccontextmanager
    async def _blaming(self, fault: model.Fault, reason: str) -> AsyncIterator[None]:
        try:
            yield
        except processes.KeeperError as error:
            blamed = model.Fault.INFRASTRUCTURE if error.code == "keeper_gone" else fault
            raise DriverError(error.message, fault=blamed, reason=reason) from error

    @asynccontextmanager
    async def _limited(self, launch: Launch) -> AsyncIterator[None]:
        """Give the new instance its time to prepare, and no more."""
        limit = launch.manifest.prepare_timeout
        try:
            async with self._blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
                async with asyncio.timeout(limit.total_seconds()):
                    yield
        except TimeoutError as error:
            message = f"cannot use {launch.instance_id}: not prepared and ready within {limit.total_seconds():g} s"
            raise DriverError(message, fault=model.Fault.VERSION, reason="never_prepared") from error


def _new(change: Change) -> Launch:
    if change.new is None:
        message = f"cannot start anything for {change.component}: it is being removed"
        raise DriverError(message, fault=model.Fault.COMMAND, reason="nothing_to_start")
    return change.new


def _spec(change: Change, launch: Launch) -> processes.InstanceSpec:
    trace = {"TRACEPARENT": launch.traceparent} if launch.traceparent else {}
    return processes.InstanceSpec(
        id=launch.instance_id,
        component=change.component,
        version=launch.manifest.version,
        digest=launch.digest,
        release_dir=launch.release_dir,
        command=launch.manifest.command,
        environment={**launch.manifest.environment, **trace},
        sockets=[f"{change.component}.{socket.name}" for socket in launch.manifest.sockets],
        stop_timeout=launch.manifest.stop_timeout,
        operation_id=change.operation_id,
    )


def _death(instance_id: str, seen: processes.Instance | None) -> str:
    if seen is None:
        return f"cannot find instance {instance_id}"
    how = f"signal {seen.signal}" if seen.signal is not None else f"exit code {seen.exit_code}"
    return f"cannot use {instance_id}: it ended with {how}"
