"""The driver `exec`: the user's own commands for each verb.

Rules kept here: a command is one of the release's own, run by the keeper with a deadline; it must be safe to run again,
for a verb may be; one that is left out does nothing and succeeds. What `inspect` prints is the truth; without it the
notes of this driver are. A restart ends the old version before the new one is activated, a hot swap after. Nothing
undoes a change while the agent is away: the next agent does. Left out: supervision, which is whose program started it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from agent import drivers, processes
from agent.core import model
from agent.drivers import exec_notes, instances, outside

NAME = "exec"
METHODS = frozenset({model.Method.HOT_SWAP, model.Method.RESTART})
BLAMED = frozenset({"prepare", "activate", "inspect"})  # verbs whose failure speaks against the version
LIVING = frozenset(model.InstanceState) - {model.InstanceState.EXITED}
USABLE = frozenset({model.InstanceState.ACTIVE, model.InstanceState.PAUSED})
NO_LETTER = re.compile(r"[^0-9A-Za-z]")  # in names of sockets; a variable has an underscore there


class Exec:
    """The driver."""

    def __init__(self, rooms: drivers.Rooms) -> None:
        self._keeper = rooms.keeper
        self._run_dir = rooms.run_dir
        self._notes = exec_notes.ExecNotes(rooms.state_dir)

    def capabilities(self) -> drivers.Capabilities:
        """Both; the manifest says whether its commands can change without a break."""
        return drivers.Capabilities(METHODS, is_look_costly=True)

    async def plan(self, change: drivers.Change) -> drivers.Evidence:
        """Check the method and the addresses, and say what runs."""
        launch = change.new or change.old
        if launch is not None:
            if change.method is model.Method.HOT_SWAP and not _options(launch).is_hot_swap:
                message = f"cannot change {change.component} by HOT_SWAP: its manifest does not say exec.hot_swap"
                raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="method_not_supported")
            outside.check_addresses(launch)
        return {"instances": str(len(await self.inspect(change.component)))}

    async def stage(self, change: drivers.Change) -> drivers.Evidence:
        """Find the unpacked release; it is all that a command needs."""
        return {"release": change.new.release_dir.name if change.new else ""}

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Note the new instance, then run its command; what an earlier change left behind goes first."""
        launch = instances.new_of(change)
        old = self._old(change)
        await self.gc(change.component, {launch.instance_id, *([old.launch.instance_id] if old else [])})
        if not self._find(change.component, launch.instance_id):
            self._notes.put(change.component, launch, model.InstanceState.STARTING)
        output = await self._run("prepare", change, launch)
        return {"instance": launch.instance_id, "output": output}

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Run the new version's command and see it ready; a restart ends the old version first."""
        launch = instances.new_of(change)
        before: drivers.Evidence = {}
        if change.method is model.Method.RESTART and not self._is_activated(change):
            before = await self._pause(change)
            before = {**before, **(await change.before_new() if change.before_new else {})}
        output = await self._run("activate", change, launch)
        self._notes.put(change.component, launch, model.InstanceState.ACTIVE)
        await self._ready(change.component, launch)
        return {**before, "instance": launch.instance_id, "output": output}

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """Run the old version's command, then see that the new one answers without it; a restart has done both."""
        old = self._old(change)
        if change.method is model.Method.RESTART and self._is_activated(change):
            return {"paused": old.launch.instance_id} if old else {}
        paused = await self._pause(change)
        if self._is_activated(change):
            await self._ready(change.component, instances.new_of(change))
        return paused

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """Run the old version's command; one that serves already is left alone."""
        old = self._old(change)
        if old is None or old.state is model.InstanceState.ACTIVE:
            return {"resumed": old.launch.instance_id} if old else {}
        output = await self._run("resume_old", change, old.launch)
        self._notes.put(change.component, old.launch, model.InstanceState.ACTIVE)
        return {"resumed": old.launch.instance_id, "resume_output": output}

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Look for the new instance, as the new version shows it."""
        launch = instances.new_of(change)
        seen = {each.id: each for each in await self._shown(change.component, launch)}
        found = seen.get(launch.instance_id)
        if found is None or found.state is model.InstanceState.EXITED:
            return drivers.Observation(None, f"cannot find instance {launch.instance_id}: it is not shown any more")
        return drivers.Observation(found)

    async def commit(self, change: drivers.Change) -> drivers.Verdict:
        """Note the new instance as the kept one; what was noted once is decided."""
        launch = instances.new_of(change)
        noted = self._find(change.component, launch.instance_id)
        if noted is not None and noted.is_kept:
            return drivers.Verdict(drivers.Outcome.COMMITTED)
        if noted is None or (self._old(change) and (await self.observe(change)).instance is None):
            is_own_death = noted is not None and noted.state is not model.InstanceState.EXITED
            fault = model.Fault.VERSION if is_own_death else model.Fault.INFRASTRUCTURE
            message = f"cannot commit {launch.instance_id}: it is gone"
            return drivers.Verdict(drivers.Outcome.ROLLED_BACK, fault, message)
        self._notes.keep(change.component, launch.instance_id)
        return drivers.Verdict(drivers.Outcome.COMMITTED)

    async def drain(self, change: drivers.Change) -> drivers.Evidence:
        """End everything but the kept instance; a component that is being removed leaves altogether."""
        kept = {each.launch.instance_id for each in self._notes.of(change.component) if each.is_kept}
        return await self._end(change.component, kept if change.new else (), change)

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """Go back: a hot swap resumes the old version first, a restart ends the new one first."""
        if change.new is None:
            return {}
        if change.method is model.Method.HOT_SWAP:
            resumed = await self.resume_old(change)
            await self._discard(change, change.new)
            return resumed
        await self._discard(change, change.new)
        old = self._old(change)
        is_stopped = old is None or old.state is not model.InstanceState.ACTIVE
        between = await change.before_old() if change.before_old and is_stopped else {}
        return {**between, **await self.resume_old(change)}

    async def inspect(self, component: str) -> tuple[model.Instance, ...]:
        """What the committed version's command shows; the latest version's where none is committed."""
        noted = sorted(self._notes.of(component), key=lambda each: each.is_kept)
        return await self._shown(component, noted[-1].launch) if noted else ()

    async def blockers(self, component: str) -> tuple[str, ...]:
        """Instances that are shown as draining."""
        seen = await self.inspect(component)
        return tuple(f"{each.id} drains" for each in seen if each.state is model.InstanceState.DRAINING)

    async def gc(self, component: str, keep: Collection[str]) -> drivers.Evidence:
        """End each noted instance beside those named, the oldest first."""
        return await self._end(component, keep, None)

    async def bring_up(self, component: str, launch: drivers.Launch) -> drivers.Evidence:
        """Let what runs this release serve and be kept, else prepare and activate it; whatever else there is ends."""
        found = await self._usable(component, launch.digest)
        if found is None:
            await self._end(component, (), None)
            self._notes.put(component, launch, model.InstanceState.STARTING)
            await self._run("prepare", None, launch)
            await self._run("activate", None, launch)
            self._notes.put(component, launch, model.InstanceState.ACTIVE)
            await self._ready(component, launch)
            self._notes.keep(component, launch.instance_id)
            return {"instance": launch.instance_id}
        instance_id = found.launch.instance_id
        self._notes.keep(component, instance_id)
        await self._end(component, {instance_id}, None)
        if found.state is not model.InstanceState.ACTIVE:
            await self._run("resume_old", None, found.launch)
            self._notes.put(component, found.launch, model.InstanceState.ACTIVE)
        return {"instance": instance_id}

    def _old(self, change: drivers.Change) -> exec_notes.Noted | None:
        new_id = change.new.instance_id if change.new else ""
        noted = self._notes.of(change.component)
        return next((each for each in noted if each.is_kept and each.launch.instance_id != new_id), None)

    def _find(self, component: str, instance_id: str) -> exec_notes.Noted | None:
        noted = self._notes.of(component)
        return next((each for each in noted if each.launch.instance_id == instance_id), None)

    def _is_activated(self, change: drivers.Change) -> bool:
        noted = self._find(change.component, instances.new_of(change).instance_id)
        return noted is not None and noted.state is model.InstanceState.ACTIVE

    async def _usable(self, component: str, digest: str) -> exec_notes.Noted | None:
        """A noted instance of a release that runs; the kept one first."""
        shown = {each.id for each in await self.inspect(component) if each.state in LIVING}
        noted = sorted(self._notes.of(component), key=lambda each: not each.is_kept)
        usable = (each for each in noted if each.launch.digest == digest and each.launch.instance_id in shown)
        return next((each for each in usable if each.state in USABLE), None)

    async def _pause(self, change: drivers.Change) -> drivers.Evidence:
        old = self._old(change)
        if old is None:
            return {}
        self._notes.put(change.component, old.launch, model.InstanceState.PAUSED)  # before: an abort must resume it
        output = await self._run("pause_old", change, old.launch)
        return {"paused": old.launch.instance_id, "pause_output": output}

    async def _discard(self, change: drivers.Change, launch: drivers.Launch) -> None:
        """End the new instance; one that was never noted has never begun."""
        if self._find(change.component, launch.instance_id):
            await self._run("abort", change, launch)
            self._notes.forget(change.component, launch.instance_id)

    async def _end(self, component: str, keep: Collection[str], change: drivers.Change | None) -> dict[str, str]:
        evidence: dict[str, str] = {}
        for each in self._notes.of(component):
            if each.launch.instance_id not in keep:
                evidence[each.launch.instance_id] = await self._run("drain", change, each.launch)
                self._notes.forget(component, each.launch.instance_id)
        return evidence

    async def _ready(self, component: str, launch: drivers.Launch) -> None:
        async def is_alive() -> bool:
            shown = await self._shown(component, launch)
            return any(each.id == launch.instance_id and each.state in LIVING for each in shown)

        await outside.ready(self._keeper, component, launch, self._run_dir, is_alive)

    async def _shown(self, component: str, launch: drivers.Launch) -> tuple[model.Instance, ...]:
        """What the command of a release shows; without one, what is noted."""
        noted = self._notes.of(component)
        kept = {each.launch.instance_id for each in noted if each.is_kept}
        if "inspect" not in _options(launch).commands:
            return tuple(
                model.Instance(
                    each.launch.instance_id,
                    each.launch.digest,
                    0,
                    each.state,
                    0,
                    is_kept=each.launch.instance_id in kept,
                )
                for each in noted
            )
        output = await self._run("inspect", None, launch)
        return tuple(_instance(line, kept) for line in output.splitlines() if line.strip())

    async def _run(self, verb: str, change: drivers.Change | None, launch: drivers.Launch) -> str:
        """Run the command that a release has for a verb; returns what it printed.

        Raises:
            drivers.DriverError: It failed, or took too long.
        """
        options = _options(launch)
        command = options.commands.get(verb)
        if not command:
            return ""
        environment = self._environment(verb, change, launch)
        component = launch.manifest.name
        end = await outside.run(self._keeper, component, launch, command, options.timeout, environment)
        if end.exit_code == 0 and not end.is_timeout:
            return end.output
        how = f"it took longer than {options.timeout.total_seconds():g} s" if end.is_timeout else _how(end)
        message = f"cannot {verb} {launch.instance_id} by {command[0]!r}: {how}: {outside.tail(end.output)}"
        fault = model.Fault.VERSION if verb in BLAMED else model.Fault.INFRASTRUCTURE
        raise drivers.DriverError(message, fault=fault, reason=f"{verb}_{'timed_out' if end.is_timeout else 'failed'}")

    def _environment(self, verb: str, change: drivers.Change | None, launch: drivers.Launch) -> Mapping[str, str]:
        old = self._old(change) if change else None
        old_launch = old.launch if old else launch if verb == "drain" else None
        new = change.new if change else None
        addresses = {f"INSTAR_ADDRESS_{NO_LETTER.sub('_', name).upper()}": at for name, at in launch.addresses.items()}
        return {
            "INSTAR_VERB": verb,
            "INSTAR_OPERATION_ID": change.operation_id if change else "",
            "INSTAR_METHOD": change.method.value if change else "",
            "INSTAR_INSTANCE_ID": launch.instance_id,
            **_side("OLD", old_launch),
            **_side("NEW", new),
            **addresses,
            **({"STATE_DIRECTORY": str(launch.state_dir)} if launch.state_dir else {}),
            **({"TRACEPARENT": new.traceparent} if new and new.traceparent else {}),
        }


def make(rooms: drivers.Rooms) -> drivers.Driver:
    """Make the driver."""
    return Exec(rooms)


def _side(name: str, launch: drivers.Launch | None) -> Mapping[str, str]:
    return {
        f"INSTAR_{name}_INSTANCE_ID": launch.instance_id if launch else "",
        f"INSTAR_{name}_DIR": str(launch.release_dir) if launch else "",
        f"INSTAR_{name}_VERSION": launch.manifest.version if launch else "",
        f"INSTAR_{name}_DIGEST": launch.digest if launch else "",
    }


def _options(launch: drivers.Launch) -> model.ExecOptions:
    options = launch.manifest.options
    if not isinstance(options, model.ExecOptions):
        message = f"cannot change {launch.manifest.name}: its manifest has no table exec"
        raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="options_missing")
    return options


def _instance(line: str, kept: Collection[str]) -> model.Instance:
    try:
        instance_id, digest, pid, state = line.split()
        shown = model.InstanceState(state.upper())
        return model.Instance(instance_id, digest, int(pid), shown, 0, is_kept=instance_id in kept)
    except ValueError as error:
        message = f"cannot read {line!r} of exec.inspect: {error}; it is an id, a digest, a pid and a state"
        raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="inspect_unreadable") from error


def _how(end: processes.TaskEnd) -> str:
    return f"signal {end.signal}" if end.exit_code is None else f"exit code {end.exit_code}"
