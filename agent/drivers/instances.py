"""The keeper's instances of one node, as the drivers over the keeper handle them.

Rules kept here: what the keeper shows is asked each time and never remembered; each refusal of the keeper becomes a
`DriverError` with a fault and a reason; each wait has a deadline. Instances are told apart by their id, for a restart
has old and new of one digest. Left out: in which order the verbs come (the ways of each driver).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from agent import drivers, processes
from agent.core import model
from agent.drivers import module_list

POLL_SECONDS = 0.02  # between two looks at an instance that is about to change; a swap takes tens of milliseconds
WORD_TIMEOUT = timedelta(seconds=5)  # an event loop that does not answer for so long serves nobody either
DRAIN_TIMEOUT_DEFAULT = timedelta(seconds=30)  # where the manifest of what drains is not known any more
STOP_TIMEOUT_DEFAULT = timedelta(seconds=5)
RETURN_TIMEOUT_DEFAULT = timedelta(seconds=30)  # for an old instance to serve again; as a manifest's prepare_timeout

STATES = {
    processes.InstanceState.STARTING: model.InstanceState.STARTING,
    processes.InstanceState.PREPARED: model.InstanceState.PREPARED,
    processes.InstanceState.ACTIVE: model.InstanceState.ACTIVE,
    processes.InstanceState.PAUSED: model.InstanceState.PAUSED,
    processes.InstanceState.DRAINING: model.InstanceState.DRAINING,
    processes.InstanceState.DRAINED: model.InstanceState.DRAINING,
    processes.InstanceState.EXITED: model.InstanceState.EXITED,
}
ON_AGENT_STOP = {
    model.OnAgentStop.KEEP: processes.OnAgentStop.KEEP,
    model.OnAgentStop.STOP: processes.OnAgentStop.STOP,
}
GONE = frozenset({"unknown_instance", "instance_gone"})
LATER = frozenset({"instance_timeout", "instance_refused"})  # of an instance that is on its way
HOST_CODES = frozenset({"keeper_gone", "keeper_timeout", "too_many", "write_failed"})  # never the version's fault


@dataclass(frozen=True, slots=True)
class Style:
    """How the programs of a driver are run.

    Args:
        signals: Of a plain program, by word.
        environment: Beside the manifest's own.
        has_sockets: The keeper holds the sockets of the manifest; else they only say where the program is asked.
    """

    protocol: processes.Protocol = processes.Protocol.PLAIN
    signals: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    is_exclusive: bool = False
    has_sockets: bool = True


def instance_of(seen: processes.Instance) -> model.Instance:
    """What the keeper shows, in the agent's words."""
    return model.Instance(
        id=seen.id,
        digest=seen.digest,
        pid=0 if seen.state is processes.InstanceState.EXITED else seen.pid,
        state=STATES[seen.state],
        served=seen.served,
        is_kept=seen.is_kept,
        restarts=seen.restarts,
        started_at_seconds=seen.started_at_monotonic,
        is_broken=seen.is_broken,
    )


def fault_of(outcome: processes.Outcome) -> model.Fault:
    """Whose fault it was that the keeper went back: the new instance's that ended, or nobody's who was away."""
    return model.Fault.VERSION if outcome.cause is processes.Cause.INSTANCE_DIED else model.Fault.INFRASTRUCTURE


def death(instance_id: str, seen: processes.Instance | None) -> str:
    """How an instance ended, in words."""
    if seen is None:
        return f"cannot find instance {instance_id}"
    how = f"signal {seen.signal}" if seen.signal is not None else f"exit code {seen.exit_code}"
    return f"cannot use {instance_id}: it ended with {how}"


def new_of(change: drivers.Change) -> drivers.Launch:
    """Return what a change starts.

    Raises:
        drivers.DriverError: It starts nothing.
    """
    if change.new is None:
        message = f"cannot start anything for {change.component}: it is being removed"
        raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="nothing_to_start")
    return change.new


def listener(component: str, socket: str) -> str:
    """Name of the keeper's listener for a socket of the manifest."""
    return f"{component}.{socket}"


def specification(
    component: str, launch: drivers.Launch, style: Style, *, operation_id: str = ""
) -> processes.InstanceSpec:
    """Say to the keeper what to start."""
    manifest = launch.manifest
    trace = {"TRACEPARENT": launch.traceparent} if launch.traceparent else {}
    state = {"STATE_DIRECTORY": str(launch.state_dir)} if launch.state_dir is not None else {}
    is_host = style.protocol is processes.Protocol.HANDOVER
    modules = {module_list.VARIABLE: str(module_list.of_host(launch.release_dir, component))} if is_host else {}
    drain = {"INSTAR_DRAIN_SECONDS": f"{manifest.drain_timeout.total_seconds():g}"} if is_host else {}
    return processes.InstanceSpec(
        id=launch.instance_id,
        component=component,
        version=manifest.version,
        digest=launch.digest,
        release_dir=launch.release_dir,
        command=manifest.command,
        environment={**manifest.environment, **style.environment, **state, **modules, **drain, **trace},
        sockets=[listener(component, socket.name) for socket in manifest.sockets] if style.has_sockets else [],
        stop_timeout=manifest.stop_timeout,
        operation_id=operation_id,
        protocol=style.protocol,
        signals=style.signals,
        is_exclusive=style.is_exclusive,
        secrets=manifest.secrets,
        on_agent_stop=ON_AGENT_STOP[manifest.on_agent_stop],
        environment_dir=launch.environment_dir,
    )


@asynccontextmanager
async def blaming(fault: model.Fault, reason: str) -> AsyncIterator[None]:
    """Turn a refusal of the keeper into an error of the driver; a keeper that is away is never the version's fault."""
    try:
        yield
    except processes.KeeperError as error:
        blamed = model.Fault.INFRASTRUCTURE if error.code in HOST_CODES else fault
        raise drivers.DriverError(error.message, fault=blamed, reason=reason) from error


@asynccontextmanager
async def limited(launch: drivers.Launch) -> AsyncIterator[None]:
    """Give the new instance its time to prepare, and no more."""
    limit = launch.manifest.prepare_timeout
    try:
        async with blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
            async with asyncio.timeout(limit.total_seconds()):
                yield
    except TimeoutError as error:
        message = f"cannot use {launch.instance_id}: not prepared and ready within {limit.total_seconds():g} s"
        raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="never_prepared") from error


class Instances:
    """What the ways of all drivers do to the keeper's instances."""

    def __init__(self, keeper: processes.Keeper) -> None:
        self.keeper = keeper

    async def of(self, component: str) -> list[processes.Instance]:
        """Everything that the keeper has of a component, the oldest first."""
        async with blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
            seen = (await self.keeper.inspect()).instances
        mine = [each for each in seen if each.component == component]
        return sorted(mine, key=lambda each: each.started_at_monotonic)

    async def find(self, instance_id: str) -> processes.Instance | None:
        """Return one instance; None where the keeper does not know it."""
        seen = {each.id: each for each in (await self.keeper.inspect()).instances}
        return seen.get(instance_id)

    async def is_alive(self, instance_id: str) -> bool:
        """Whether the instance has a process now."""
        seen = await self.find(instance_id)
        return seen is not None and seen.state is not processes.InstanceState.EXITED and seen.pid != 0

    async def old(self, change: drivers.Change) -> processes.Instance | None:
        """Return the kept instance that is not the new one; parked and dead ones too, for they can come back."""
        old, _ = await self.both(change)
        return old

    async def both(self, change: drivers.Change) -> tuple[processes.Instance | None, processes.Instance | None]:
        """Return the old instance, as `old` does, and the new one, from one look."""
        new_id = change.new.instance_id if change.new else ""
        seen = await self.of(change.component)
        old = next((each for each in seen if each.is_kept and each.id != new_id), None)
        return old, next((each for each in seen if each.id == new_id), None)

    async def listen(self, component: str, launch: drivers.Launch) -> None:
        """Let the keeper hold the sockets of the manifest."""
        for socket in launch.manifest.sockets:
            name = listener(component, socket.name)
            await self.keeper.listen(name, launch.addresses[socket.name], backlog=socket.backlog)

    async def close(self, component: str) -> dict[str, str]:
        """Let the keeper hold no socket of a component, unless there is an instance of it: who connects is refused."""
        async with blaming(model.Fault.INFRASTRUCTURE, "not_closed"):
            seen = await self.keeper.inspect()
            if any(each.component == component for each in seen.instances):
                return {}
            return await self._close(seen, component, frozenset())

    async def close_dropped(self, component: str, launch: drivers.Launch) -> dict[str, str]:
        """Let the keeper hold no socket that the release which serves now does not have: nobody would ever accept."""
        wanted = frozenset(listener(component, socket.name) for socket in launch.manifest.sockets)
        async with blaming(model.Fault.INFRASTRUCTURE, "not_closed"):
            return await self._close(await self.keeper.inspect(), component, wanted)

    async def _close(self, seen: processes.Inspection, component: str, wanted: Collection[str]) -> dict[str, str]:
        others = {each.component for each in seen.instances}
        names = [name for name in seen.listeners if name not in wanted and _is_of(name, component, others)]
        for name in names:
            await self.keeper.unlisten(name)
        return {"closed": ", ".join(names)} if names else {}

    async def start(self, change: drivers.Change, style: Style) -> None:
        """Start the new instance; one that is started already is success."""
        launch = new_of(change)
        async with blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            await self.keeper.start(specification(change.component, launch, style, operation_id=change.operation_id))

    async def mark(self, change: drivers.Change, old: processes.Instance | None) -> None:
        """Put the keeper's mark: from now on the change is undecided, and the keeper watches it too.

        Raises:
            drivers.DriverError: The new instance has ended already, or there can be no mark.
        """
        launch = new_of(change)
        async with blaming(model.Fault.VERSION, "not_activated"):
            try:
                await self.keeper.mark(
                    change.operation_id, launch.instance_id, old.id if old else None, change.time_left
                )
            except processes.KeeperError as error:
                if error.code == "instance_gone":
                    await self.started(launch.instance_id)  # which says how it ended
                raise

    async def started(self, instance_id: str) -> processes.Instance:
        """Wait until an instance is more than starting; a dead one never is.

        Raises:
            drivers.DriverError: It ended.
        """
        while True:
            seen = await self.find(instance_id)
            if seen is None or seen.state is processes.InstanceState.EXITED:
                message = death(instance_id, seen)
                raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="crashed_at_start")
            if seen.state is not processes.InstanceState.STARTING:
                return seen
            await asyncio.sleep(POLL_SECONDS)

    async def say_if_alive(self, instance_id: str, word: processes.Word, within: timedelta = WORD_TIMEOUT) -> None:
        """Say a word; an instance that is gone has nothing to do any more."""
        try:
            await self.keeper.say(instance_id, word, within)
        except processes.KeeperError as error:
            if error.code not in GONE:
                raise

    async def park(self, change: drivers.Change, old: processes.Instance) -> None:
        """End the process of the old instance; it keeps its place, from which it is launched again."""
        stop_timeout = change.old.manifest.stop_timeout if change.old else STOP_TIMEOUT_DEFAULT
        async with blaming(model.Fault.INFRASTRUCTURE, "not_parked"):
            await self.say_if_alive(old.id, processes.Word.PARK, stop_timeout + WORD_TIMEOUT)

    async def resume(self, change: drivers.Change) -> dict[str, str]:
        """Let the old instance serve again and see it serve, in this life or in one that the keeper gives it.

        Raises:
            drivers.DriverError: It does not in time, while the new one lives; that one must go on then.
        """
        old = await self.old(change)
        if old is None:
            return {}
        limit = change.old.manifest.prepare_timeout if change.old else RETURN_TIMEOUT_DEFAULT
        async with blaming(model.Fault.INFRASTRUCTURE, "not_resumed"):
            await self._say_resume(old, limit)
            serving = None if old.is_broken else await self._serving(old.id, limit)
            if serving is None and change.new is not None and await self.is_alive(change.new.instance_id):
                message = f"cannot go back to {old.id}: it does not serve again within {limit.total_seconds():g} s"
                raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="old_not_serving")
        return {"resumed": old.id, "resumed_pid": str(serving.pid if serving else 0)}

    async def undo(self, change: drivers.Change) -> None:
        """End the new instance and forget the mark."""
        if change.new is None:
            return
        async with blaming(model.Fault.INFRASTRUCTURE, "not_undone"):
            seen = await self.find(change.new.instance_id)
            if seen is not None:
                await self.end(seen, change.new.manifest)
            await self.keeper.unmark(change.operation_id)

    async def _say_resume(self, old: processes.Instance, limit: timedelta) -> None:
        """Tell it to serve; whether it comes is seen afterwards, for it may have to start first."""
        try:
            await self.say_if_alive(old.id, processes.Word.RESUME, WORD_TIMEOUT if old.pid else limit)
        except processes.KeeperError as error:
            if error.code not in LATER:
                raise

    async def _serving(self, instance_id: str, within: timedelta) -> processes.Instance | None:
        try:
            async with asyncio.timeout(within.total_seconds()):
                while True:
                    seen = await self.find(instance_id)
                    if seen is not None and seen.state is processes.InstanceState.ACTIVE and seen.pid:
                        return seen
                    if seen is not None and seen.state is processes.InstanceState.PREPARED:
                        await self._activate(instance_id)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            return None

    async def end(self, seen: processes.Instance, manifest: model.Manifest | None) -> str:
        """Drain one instance, then stop it; say whether it took force, and who was in the way."""
        drain_timeout = manifest.drain_timeout if manifest else DRAIN_TIMEOUT_DEFAULT
        stop_timeout = manifest.stop_timeout if manifest else STOP_TIMEOUT_DEFAULT
        is_drained = seen.pid == 0 or await self._drained(seen.id, drain_timeout)
        blockers = () if is_drained else await self.blockers(seen.component)
        await self.keeper.stop(seen.id, stop_timeout)
        return "drained" if is_drained else f"forced: {'; '.join(blockers)}"

    async def end_all_but(
        self, component: str, keep: Collection[str], manifest: model.Manifest | None
    ) -> dict[str, str]:
        """Drain and end each instance of a component beside those named, the oldest first; say how each went."""
        others = [seen for seen in await self.of(component) if seen.id not in keep]
        async with blaming(model.Fault.INFRASTRUCTURE, "not_drained"):
            return {seen.id: await self.end(seen, manifest) for seen in others}

    async def make_room(self, change: drivers.Change) -> processes.Instance | None:
        """End what is neither old nor new, so that never more than two live; return the old one."""
        old = await self.old(change)
        keep = {new_of(change).instance_id, *([old.id] if old else [])}
        await self.end_all_but(change.component, keep, change.old.manifest if change.old else None)
        return old

    async def blockers(self, component: str) -> tuple[str, ...]:
        """Who keeps a drain from ending: connections and requests where they are counted, else the process."""
        draining = {processes.InstanceState.DRAINING, processes.InstanceState.DRAINED}
        return tuple(_blocker(seen) for seen in await self.of(component) if seen.state in draining)

    async def _activate(self, instance_id: str) -> None:
        """Let a relaunched instance accept; the keeper may have said so first."""
        try:
            await self.say_if_alive(instance_id, processes.Word.ACTIVATE)
        except processes.KeeperError as error:
            if error.code not in LATER:
                raise

    async def _drained(self, instance_id: str, within: timedelta) -> bool:
        try:
            await self.keeper.say(instance_id, processes.Word.DRAIN, WORD_TIMEOUT)
            async with asyncio.timeout(within.total_seconds()):
                while await self.is_alive(instance_id):  # noqa: ASYNC110  # the keeper's processes are no events of ours
                    await asyncio.sleep(POLL_SECONDS)
        except processes.KeeperError as error:
            if error.code in HOST_CODES:
                raise
            return error.code in GONE
        except TimeoutError:
            return False
        return True


def _is_of(name: str, component: str, others: Collection[str]) -> bool:
    """Whether a listener is a component's; names of both may have dots, so that of a longer name is not."""
    longer = (each for each in others if each.startswith(listener(component, "")))
    return name.startswith(listener(component, "")) and not any(name.startswith(listener(each, "")) for each in longer)


def _blocker(seen: processes.Instance) -> str:
    if seen.is_plain:
        return f"{seen.id} still runs as process {seen.pid}"
    return f"{seen.id} has {seen.accepted} connections and {seen.in_flight} requests"
