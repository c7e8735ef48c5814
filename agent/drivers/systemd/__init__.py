"""The driver `systemd`: instances are units, and PID 1 holds their sockets.

Rules kept here: what systemd shows is the truth, and the unit of the committed instance says that it is kept; an old
instance is stopped and not forgotten, so that it can be started again until the drain; before a hot swap the new
version is rehearsed on private sockets, for a program that has a socket accepts from its first moment on. While a
change is undecided, systemd itself goes back to the old instance when the new one fails. Left out: texts of units
(`units`), the command (`systemctl`).
"""

from __future__ import annotations

import asyncio
import pwd
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from agent import drivers
from agent.core import model
from agent.drivers import instances, outside
from agent.drivers.systemd import systemctl, units

NAME = "systemd"
METHODS = frozenset({model.Method.HOT_SWAP, model.Method.RESTART})
SETTLE_SECONDS = 1.0  # life after which a rehearsed program without a readiness probe counts as ready
STOP_TIMEOUT = timedelta(seconds=90)  # systemd's own default, where the manifest of what stops is not known any more
REHEARSAL = ".trial"  # ends the name of a rehearsal, which is no instance
REHEARSED = "~trial"  # ends the name of its component, which no component has
# Ends of what systemd does before it runs a program, and of that the one that is the program's (systemd.exec(5)).
SET_UP = frozenset(str(status) for status in range(200, 246))
NOT_EXECUTABLE = "203"
USABLE = frozenset({model.InstanceState.ACTIVE, model.InstanceState.STARTING})
ENDED = frozenset({model.InstanceState.PAUSED, model.InstanceState.EXITED})


class Systemd:
    """The driver.

    Args:
        edge: The systemd of this host.
    """

    def __init__(self, rooms: drivers.Rooms, edge: systemctl.Systemctl) -> None:
        self._keeper = rooms.keeper
        self._run_dir = rooms.run_dir
        self._names = units.names(rooms.state_dir)
        self._edge = edge

    def capabilities(self) -> drivers.Capabilities:
        """Both."""
        return drivers.Capabilities(METHODS, is_look_costly=True)

    async def plan(self, change: drivers.Change) -> drivers.Evidence:
        """Check addresses, secrets and the user, ask systemd what there is."""
        if change.new is not None:
            outside.check_addresses(change.new)
            _check_user(change.component, change.new.user)
            if change.new.manifest.secrets:
                message = f"cannot pass secrets {', '.join(change.new.manifest.secrets)}: the driver systemd has none"
                raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="secrets_not_supported")
        return {"instances": str(len(await self.inspect(change.component)))}

    async def stage(self, change: drivers.Change) -> drivers.Evidence:
        """Check the release's digest."""
        if change.new is not None:
            await outside.check_digest(change.new)
        return {"release": change.new.release_dir.name if change.new else ""}

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Make room and hold the sockets; for a hot swap rehearse the new version on private ones."""
        launch = instances.new_of(change)
        old = await self._old(change)
        await self._end_all_but(change.component, {launch.instance_id, *([old.instance] if old else [])})
        await self._hold(change.component, launch, launch.addresses)
        is_started = any(each.id == launch.instance_id for each in await self.inspect(change.component))
        if change.method is model.Method.HOT_SWAP and not is_started:
            await self._rehearse(change.component, launch)
        return {"instance": launch.instance_id, "old": old.instance if old else ""}

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Start the new instance; a restart stops the old one first."""
        launch = instances.new_of(change)
        old = await self._old(change)
        between: drivers.Evidence = {}
        if await self._find(change.component, launch.instance_id) is None:
            if change.method is model.Method.RESTART:
                await self._stop([old] if old else [])
                between = await change.before_new() if change.before_new else {}
            await self._start(change.component, launch, back_to=old.name if old and not change.before_new else "")
            if change.method is model.Method.RESTART:
                await _settle(launch)
        await self._ready(change.component, launch)
        seen = await self._find(change.component, launch.instance_id)
        return {**between, "instance": launch.instance_id, "pid": str(seen.pid if seen else 0)}

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """Tell the old instance to stop, which lets it finish; then see that the new one answers without it."""
        old = await self._old(change)
        if old is None:
            return {}
        async with _blaming(model.Fault.INFRASTRUCTURE, "not_paused"):
            await self._edge.begin_stop(old.name)
        if change.new is not None:
            await self._ready(change.component, change.new)
        return {"paused": old.instance}

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """Start the old instance again; one that runs is left alone."""
        old = await self._old(change)
        if old is None:
            return {}
        limit = change.old.manifest.prepare_timeout if change.old else STOP_TIMEOUT
        async with _blaming(model.Fault.INFRASTRUCTURE, "not_resumed"):
            await self._edge.start([old.name], limit + STOP_TIMEOUT)
        return {"resumed": old.instance}

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Look at the new instance."""
        launch = instances.new_of(change)
        seen = await self._find(change.component, launch.instance_id)
        if seen is None or seen.state in ENDED:
            return drivers.Observation(None, f"cannot use {launch.instance_id}: {await self._death(launch)}")
        return drivers.Observation(seen)

    async def commit(self, change: drivers.Change) -> drivers.Verdict:
        """Let the unit of the new instance say that it is kept; what it says already is decided."""
        launch = instances.new_of(change)
        seen = await self._find(change.component, launch.instance_id)
        if seen is not None and seen.is_kept:
            return drivers.Verdict(drivers.Outcome.COMMITTED)
        old = await self._old(change)
        if old is not None and (seen is None or seen.state in ENDED):
            fault = model.Fault.INFRASTRUCTURE if seen is None else model.Fault.VERSION
            message = f"cannot commit {launch.instance_id}: {await self._death(launch)}"
            return drivers.Verdict(drivers.Outcome.ROLLED_BACK, fault, message)
        if seen is not None:
            await self._keep(change.component, launch)
        return drivers.Verdict(drivers.Outcome.COMMITTED)

    async def drain(self, change: drivers.Change) -> drivers.Evidence:
        """Wait for the end of all but what is kept of the new release; a component that is removed ends altogether."""
        new = change.new
        if new is None:
            return await self.gc(change.component, ())
        found = self._units(change.component)
        kept = {each.instance for each in found if each.instance == new.instance_id}
        kept = kept or {each.instance for each in found if each.is_kept and each.digest == new.digest}
        return await self._end_all_but(change.component, kept)

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """Go back: a hot swap starts the old instance first, a restart ends the new one first.

        Where there is nothing to go back to, the sockets are closed too.
        """
        if change.new is None:
            return {}
        if change.old is None and await self._old(change) is None:
            ended = await self.gc(change.component, ())
            return {**ended, **(await change.before_old() if change.before_old else {})}
        if change.method is model.Method.HOT_SWAP:
            resumed = await self.resume_old(change)
            await self._end(self._units(change.component, change.new.instance_id))
            return resumed
        await self._end(self._units(change.component, change.new.instance_id))
        between = await change.before_old() if change.before_old else {}
        return {**between, **await self.resume_old(change)}

    async def inspect(self, component: str) -> tuple[model.Instance, ...]:
        """What systemd shows of the component's units."""
        found = self._units(component)
        shown = await self._show([each.name for each in found])
        return tuple(units.instance_of(each, shown[each.name]) for each in found if each.name in shown)

    async def blockers(self, component: str) -> tuple[str, ...]:
        """Instances that have been told to stop and still have a process."""
        seen = await self.inspect(component)
        stopping = [each for each in seen if each.state is model.InstanceState.DRAINING]
        return tuple(f"{each.id} still runs as process {each.pid}" for each in stopping)

    async def gc(self, component: str, keep: Collection[str]) -> drivers.Evidence:
        """Stop each instance beside those named; with none named, the sockets are closed too."""
        evidence = await self._end_all_but(component, keep)
        if not keep:
            await self._release(component)
        return evidence

    async def bring_up(self, component: str, launch: drivers.Launch) -> drivers.Evidence:
        """Let the unit of this release run and be kept, else make one; whatever else there is ends."""
        found = [each for each in await self.inspect(component) if each.digest == launch.digest]
        best = max(found, key=lambda each: (each.is_kept, each.started_at_seconds), default=None)
        chosen = launch if best is None else replace(launch, instance_id=best.id)
        await self._end_all_but(component, {chosen.instance_id})
        if best is None or best.state not in USABLE:
            await self._hold(component, launch, launch.addresses)
            await self._start(component, chosen)
            await _settle(chosen)
        await self._ready(component, chosen)
        await self._keep(component, chosen)
        return {"instance": chosen.instance_id}

    def _units(self, component: str, instance: str | None = None) -> list[units.Unit]:
        """Units of a component, or the one of an instance."""
        texts = self._edge.units(self._names.prefix).items()
        found = [unit for unit in (units.read(*each) for each in texts) if unit is not None]
        return [each for each in found if each.component == component and instance in (None, each.instance)]

    async def _find(self, component: str, instance: str) -> model.Instance | None:
        return next((each for each in await self.inspect(component) if each.id == instance), None)

    async def _old(self, change: drivers.Change) -> units.Unit | None:
        new_id = change.new.instance_id if change.new else ""
        found = self._units(change.component)
        return next((each for each in found if each.is_kept and each.instance != new_id), None)

    async def _hold(self, owner: str, launch: drivers.Launch, addresses: Mapping[str, str]) -> None:
        """Let PID 1 listen."""
        texts = units.sockets(self._names, owner, launch, addresses)
        if texts:
            async with _blaming(model.Fault.INFRASTRUCTURE, "listen_failed"):
                await self._edge.write(texts)
                await self._edge.start(list(texts), timedelta(0))

    async def _release(self, owner: str) -> None:
        """Let PID 1 listen no more."""
        texts = self._edge.units(self._names.prefix).items()
        found = [name for name, text in texts if units.is_of_sockets(text, owner)]
        async with _blaming(model.Fault.INFRASTRUCTURE, "not_closed"):
            await self._edge.stop(found, timedelta(0))
            await self._edge.remove(found)

    async def _rehearse(self, component: str, launch: drivers.Launch) -> None:
        """Start the version on private sockets, see that it is ready, and end it again."""
        if not launch.manifest.sockets:
            return
        name = f"{launch.instance_id}{REHEARSAL}"
        of = f"{component}{REHEARSED}"
        addresses = {
            each.name: f"unix:{self._run_dir / f'{launch.instance_id}.{index}'}"
            for index, each in enumerate(launch.manifest.sockets)
        }
        trial = replace(launch, instance_id=name, addresses=addresses)
        try:
            await self._hold(name, trial, addresses)
            await self._start(of, trial, owner=name)
            await _settle(trial)
            await self._ready(of, trial)
        finally:
            await self._end(self._units(of))
            await self._release(name)

    async def _start(self, component: str, launch: drivers.Launch, *, owner: str = "", back_to: str = "") -> None:
        """Write the unit and start it."""
        await outside.check_digest(launch)
        name = self._names.service(launch.instance_id)
        text = units.service(self._names, owner or component, component, launch, back_to=back_to)
        async with _blaming(model.Fault.INFRASTRUCTURE, "start_failed"):
            await self._edge.write({name: text})
        try:
            await self._edge.start([name], launch.manifest.prepare_timeout)
        except systemctl.SystemctlError as error:
            message = f"cannot start {launch.instance_id}: {await self._death(launch)}: {error}"
            if await self._is_never_run(launch):
                raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="start_failed") from error
            raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="crashed_at_start") from error

    async def _keep(self, component: str, launch: drivers.Launch) -> None:
        name = self._names.service(launch.instance_id)
        text = units.service(self._names, component, component, launch, is_kept=True)
        async with _blaming(model.Fault.INFRASTRUCTURE, "not_kept"):
            await self._edge.write({name: text})

    async def _ready(self, component: str, launch: drivers.Launch) -> None:
        async def is_alive() -> bool:
            seen = await self._find(component, launch.instance_id)
            return seen is not None and seen.state not in ENDED

        await outside.ready(self._keeper, component, launch, self._run_dir, is_alive)
        if not await is_alive():  # on a shared socket another instance may have answered
            message = f"cannot use {launch.instance_id}: {await self._death(launch)}"
            raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="crashed_at_start")

    async def _death(self, launch: drivers.Launch) -> str:
        """How an instance ended, in systemd's words."""
        name = self._names.service(launch.instance_id)
        shown = (await self._show([name])).get(name, {})
        if shown.get("LoadState") != "loaded":
            return "it has no unit"
        return f"it ended with {shown['Result']}, status {shown['ExecMainStatus']}"

    async def _is_never_run(self, launch: drivers.Launch) -> bool:
        """Whether it was this host that failed: systemd could not make what the program was to run in."""
        name = self._names.service(launch.instance_id)
        status = (await self._show([name])).get(name, {}).get("ExecMainStatus", "")
        return status in SET_UP and status != NOT_EXECUTABLE

    async def _end_all_but(self, component: str, keep: Collection[str]) -> dict[str, str]:
        return await self._end([each for each in self._units(component) if each.instance not in keep])

    async def _end(self, found: list[units.Unit]) -> dict[str, str]:
        """Stop instances and forget them; say which took force."""
        await self._stop(found)
        shown = await self._show([each.name for each in found])
        async with _blaming(model.Fault.INFRASTRUCTURE, "not_removed"):
            await self._edge.remove([each.name for each in found])
        is_forced = {each.instance: shown.get(each.name, {}).get("Result") == "timeout" for each in found}
        return {instance: "forced" if forced else "drained" for instance, forced in is_forced.items()}

    async def _stop(self, found: list[units.Unit]) -> None:
        async with _blaming(model.Fault.INFRASTRUCTURE, "not_stopped"):
            longest = max((each.stop_timeout for each in found), default=timedelta(0))
            await self._edge.stop([each.name for each in found], longest)

    async def _show(self, names: list[str]) -> Mapping[str, Mapping[str, str]]:
        async with _blaming(model.Fault.INFRASTRUCTURE, "systemd_silent"):
            return await self._edge.show(names)


def make(rooms: drivers.Rooms) -> drivers.Driver:
    """Make the driver for the systemd of this host."""
    return Systemd(rooms, systemctl.Systemctl())


@asynccontextmanager
async def _blaming(fault: model.Fault, reason: str) -> AsyncIterator[None]:
    try:
        yield
    except systemctl.SystemctlError as error:
        raise drivers.DriverError(str(error), fault=fault, reason=reason) from error
    except OSError as error:
        message = f"cannot write units: {error}"
        raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason=reason) from error


def _check_user(component: str, user: str) -> None:
    """See that the host knows the user of a component.

    Raises:
        drivers.DriverError: It does not.
    """
    try:
        pwd.getpwnam(user or "root")
    except KeyError as error:
        message = f"cannot run {component}: users.{component} names {user}, whom this host does not know"
        raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="user_unknown") from error


async def _settle(launch: drivers.Launch) -> None:
    """Give a program that says nothing of itself the time to fail."""
    options = launch.manifest.options
    is_notifying = isinstance(options, model.SystemdOptions) and options.is_notifying
    if launch.manifest.readiness is None and not is_notifying:
        await asyncio.sleep(SETTLE_SECONDS)
