"""The driver `module`: Python components inside a host process, swapped while the host serves.

Rules kept here: the host loads the new version beside the old one, and flips one reference at a moment when no call is
inside; what it loads when it is started anew stands in its list, and writing that list is COMMIT, so a host that dies
before comes back with the old version; the old generation is kept until the drain. Nothing of it is undone while the
agent is away: the next agent does it. Left out: the flip itself (`instar_handover.module_cell`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import timedelta

from agent import drivers
from agent.core import model
from agent.drivers import instances, module_list, module_words, outside

NAME = "module"
METHODS = frozenset({model.Method.HOT_SWAP})
FLIPS_MAX = 40  # tries until calls that take longer than suspend_timeout have left a gap
FLIP_PAUSE_SECONDS = 0.05  # between two of them, for the calls that waited
LEAVE_TIMEOUT = timedelta(milliseconds=50)  # for the last version of a component to leave; as suspend_timeout


class Module:
    """The driver; it asks the hosts through the keeper."""

    def __init__(self, rooms: drivers.Rooms) -> None:
        self._keeper = rooms.keeper
        self._lists = module_list.ModuleLists(rooms.state_dir)

    def capabilities(self) -> drivers.Capabilities:
        """It swaps while the host serves; a restart of a module is a restart of its host."""
        return drivers.Capabilities(METHODS)

    async def plan(self, change: drivers.Change) -> drivers.Evidence:
        """Check that the host lives, has cells, and stays the same one."""
        launch = change.new or change.old
        if launch is None:
            return {}
        if change.method is not model.Method.HOT_SWAP:
            message = f"cannot change {change.component} by {change.method.value}: restart its host"
            raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="method_not_supported")
        host = _options(launch).host
        if change.old is not None and _options(change.old).host != host:
            message = f"cannot move {change.component} to host {host}: remove it and install it there"
            raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="host_differs")
        status = await (await self._host(host, change.component)).status()
        return {"host": host, "generations": str(len(status.generations))}

    async def stage(self, change: drivers.Change) -> drivers.Evidence:
        """Check the release's digest and hash the module's file."""
        if change.new is None:
            return {}
        entry = await _entry(change.new)
        return {"file": entry.file, "sha256": entry.sha256}

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Let the host load the new version beside the old one; what an earlier change left behind goes first."""
        launch = instances.new_of(change)
        return {"host_pid": str((await self._load(change.component, launch)).seen.pid), "instance": launch.instance_id}

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Flip to the new version, its state carried over."""
        launch = instances.new_of(change)
        options = _options(launch)
        host = await self._host(options.host, change.component)
        status = await _flip(lambda: host.swap(launch.instance_id, options.suspend_timeout))
        return {"state": "active", "paused_seconds": f"{status.told['paused_seconds']:.6f}"}

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """Show the old version, which nobody calls since the flip."""
        options = _options(instances.new_of(change))
        status = await (await self._host(options.host, change.component)).status()
        return {"paused": status.beside} if status.beside else {}

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """Flip back, with the state of now where the old version takes it."""
        launch = instances.new_of(change)
        options = _options(launch)
        host = await module_words.find(self._keeper, options.host, change.component)
        if host is None:
            return {}  # it comes back with what its list says
        status = await host.status()
        if status.serving != launch.instance_id:
            return {"resumed": status.serving}
        status = await _flip(lambda: host.back(status.beside, options.suspend_timeout))
        told = status.told
        return {"resumed": status.serving, "state_of": str(told["state_of"]), "why": str(told.get("why", ""))}

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Look whether the new version is in the host still."""
        launch = instances.new_of(change)
        seen = {each.id: each for each in await self.inspect(change.component)}
        found = seen.get(launch.instance_id)
        if found is None:
            return drivers.Observation(None, f"cannot find {launch.instance_id}: its host has been started anew")
        return drivers.Observation(found)

    async def commit(self, change: drivers.Change) -> drivers.Verdict:
        """Write the new version into the host's list; what the list says already is decided."""
        launch = instances.new_of(change)
        options = _options(launch)
        entry = await _entry(launch)
        if self._lists.entry(options.host, change.component) == entry:
            return drivers.Verdict(drivers.Outcome.COMMITTED)
        host = await module_words.find(self._keeper, options.host, change.component)
        if host is None or (await host.status()).serving != launch.instance_id:
            message = f"cannot commit {launch.instance_id}: its host has been started anew, with the version before"
            return drivers.Verdict(drivers.Outcome.ROLLED_BACK, model.Fault.INFRASTRUCTURE, message)
        self._lists.keep(options.host, change.component, entry)
        return drivers.Verdict(drivers.Outcome.COMMITTED)

    async def drain(self, change: drivers.Change) -> drivers.Evidence:
        """Let the host forget the old version; a component that is being removed leaves altogether."""
        if change.new is None:
            return await self.gc(change.component, ())
        options = _options(change.new)
        kept = self._lists.entry(options.host, change.component)
        return await self.gc(change.component, {kept.instance} if kept else ())

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """Flip back, then let the host forget the new version."""
        if change.new is None:
            return {}
        resumed = await self.resume_old(change)
        options = _options(change.new)
        host = await module_words.find(self._keeper, options.host, change.component)
        if host is not None:
            status = await host.status()
            if status.beside == change.new.instance_id:
                await _flip(lambda: host.drop(status.serving, options.suspend_timeout))
        if self._lists.entry(options.host, change.component) is None:
            self._lists.forget(options.host, change.component)
        return resumed

    async def inspect(self, component: str) -> tuple[model.Instance, ...]:
        """What the hosts have of the component; each generation is an instance with the host's process."""
        found: list[model.Instance] = []
        for host, status in await self._asked(component):
            kept = self._lists.entry(host.seen.component, component)
            found += [_instance(host, each, kept) for each in status.generations]
        return tuple(found)

    async def blockers(self, component: str) -> tuple[str, ...]:
        """Calls that are inside the component now."""
        return tuple(each for _, status in await self._asked(component) for each in status.blockers)

    async def gc(self, component: str, keep: Collection[str]) -> drivers.Evidence:
        """Let the hosts forget each generation beside those named; with none named, the component leaves them."""
        evidence: dict[str, str] = {}
        for name in self._lists.hosts(component):
            if not keep:
                self._lists.forget(name, component)
            host = await module_words.find(self._keeper, name, component)
            if host is not None:
                evidence |= await _forget(host, keep)
        return evidence

    async def bring_up(self, component: str, launch: drivers.Launch) -> drivers.Evidence:
        """Let the list say this release, and the host serve it; a host that does not run loads it when it starts."""
        options = _options(launch)
        entry = await _entry(launch)
        host = await module_words.find(self._keeper, options.host, component)
        if host is None:
            self._lists.keep(options.host, component, entry)
            return {"host": "not running"}
        status = await host.status()
        found = next((each.instance for each in status.generations if each.digest == launch.digest), None)
        if found is None:
            await self._load(component, launch)
            await _flip(lambda: host.swap(launch.instance_id, options.suspend_timeout))
        elif found != status.serving:  # a change that nobody decided
            await _flip(lambda: host.back(found, options.suspend_timeout))
        serving = found or launch.instance_id
        self._lists.keep(options.host, component, replace(entry, instance=serving))
        await _flip(lambda: host.drop(serving, options.suspend_timeout))
        return {"instance": serving, "pid": str(host.seen.pid)}

    async def _asked(self, component: str) -> list[tuple[module_words.Host, module_words.Status]]:
        """What the living hosts of a component say; one that ends meanwhile says nothing."""
        found: list[tuple[module_words.Host, module_words.Status]] = []
        for name in self._lists.hosts(component):
            host = await module_words.find(self._keeper, name, component)
            with contextlib.suppress(module_words.HostGoneError):
                found += [(host, await host.status())] if host else []
        return found

    async def _host(self, name: str, component: str) -> module_words.Host:
        host = await module_words.find(self._keeper, name, component)
        if host is None:
            message = f"cannot change {component}: its host {name} does not run on this node"
            raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="host_missing")
        return host

    async def _load(self, component: str, launch: drivers.Launch) -> module_words.Host:
        """Let the host load a version beside what serves; one that it has is left alone."""
        host = await self._host(_options(launch).host, component)
        self._lists.note(host.seen.component, component)
        status = await host.status()
        if launch.instance_id in (status.serving, status.beside):
            return host
        if status.beside:
            await _flip(lambda: host.drop(status.serving, LEAVE_TIMEOUT))
        await host.stage(await _entry(launch), launch.manifest.prepare_timeout)
        return host


def make(rooms: drivers.Rooms) -> drivers.Driver:
    """Make the driver."""
    return Module(rooms)


async def _flip(attempt: Callable[[], Awaitable[module_words.Status]]) -> module_words.Status:
    """Try until no call is in the way."""
    for _ in range(FLIPS_MAX - 1):
        try:
            return await attempt()
        except drivers.DriverError as error:
            if error.reason not in module_words.CALLS:
                raise
        await asyncio.sleep(FLIP_PAUSE_SECONDS)
    return await attempt()


async def _forget(host: module_words.Host, keep: Collection[str]) -> dict[str, str]:
    status = await host.status()
    serving = status.serving
    if serving not in keep and status.beside in keep:  # a change that nobody decided
        serving = (await _flip(lambda: host.back(status.beside, LEAVE_TIMEOUT))).serving
    kept = serving if serving in keep else ""
    if kept or not keep:
        await _flip(lambda: host.drop(kept, LEAVE_TIMEOUT))
    return {each.instance: "dropped" for each in status.generations if each.instance not in keep}


def _options(launch: drivers.Launch) -> model.ModuleOptions:
    options = launch.manifest.options
    if not isinstance(options, model.ModuleOptions):
        message = f"cannot change {launch.manifest.name}: its manifest has no table module"
        raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="options_missing")
    return options


async def _entry(launch: drivers.Launch) -> module_list.Entry:
    """Check the release and describe its module.

    Raises:
        drivers.DriverError: The release is not what its digest says, or has no such file.
    """
    release, file = launch.release_dir.resolve(), _options(launch).file
    path = (release / file).resolve()
    if not path.is_relative_to(release) or not path.is_file():
        message = f"cannot load {launch.manifest.name}: module.file {file!r} names no file of the release"
        raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="module_file_missing")
    await outside.check_digest(launch)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return module_list.Entry(launch.instance_id, str(path), sha256, launch.manifest.version, launch.digest)


def _instance(host: module_words.Host, seen: module_words.Generation, kept: module_list.Entry | None) -> model.Instance:
    return model.Instance(
        id=seen.instance,
        digest=seen.digest,
        pid=host.seen.pid,
        state=seen.state,
        served=seen.served,
        is_kept=kept is not None and kept.instance == seen.instance,
        started_at_seconds=host.seen.started_at_monotonic,
    )
