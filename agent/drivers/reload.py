"""The driver `reload`: programs with their own way to hand their sockets to a new master.

Rules kept here: what differs between the programs is data; that a master serves, pauses or serves again is proved by
its workers in the process table, never by "signal sent"; a new master that fails leaves the old one alone. The new
master is started by the keeper with the sockets, as the old master's SIGUSR2 would, but from the resolved path of its
own release, in its own environment: nginx ignores SIGUSR2 while the process that started it lives, and a SIGUSR2 of
gunicorn keeps the old interpreter and the old variables.

Source: ngx_process.c and ngx_add_inherited_sockets in nginx.c; gunicorn's arbiter.py and systemd.py; uvicorn's
supervisors/multiprocess.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from agent import drivers, processes
from agent.core import model
from agent.drivers import instances, kept, observation, process_table, readiness, rehearsal

NAME = "reload"
METHODS = frozenset({model.Method.HOT_SWAP})
FIRST_DESCRIPTOR = 3  # of sd_listen_fds(3); where the keeper puts the sockets
PAUSE_TIMEOUT = instances.WORD_TIMEOUT  # for the workers of a paused master to leave the accept queue


@dataclass(frozen=True, slots=True)
class Program:
    """How one program does it.

    Args:
        signals: By word, for the master.
        inherits: Variable that lists the descriptors of inherited sockets; empty where it knows LISTEN_FDS.
        worker: What the command of a worker that accepts contains; empty for every child.
        leaving: What the command of a worker that accepts no more contains.
        workers_min: Workers that a serving master has at least.
        can_pause: A paused master keeps its place without workers; else both masters accept until COMMIT.
        is_rehearsed: It can run on any socket that it is given, so a new release is tried on private ones.
    """

    signals: Mapping[str, str] = field(default_factory=dict)
    inherits: str = ""
    worker: str = ""
    leaving: str = ""
    workers_min: int = 1
    can_pause: bool = False
    is_rehearsed: bool = True


PROGRAMS: Mapping[model.ReloadProgram, Program] = {
    model.ReloadProgram.NGINX: Program(
        signals={"pause": "SIGWINCH", "resume": "SIGHUP", "drain": "SIGQUIT", "stop": "SIGQUIT"},
        inherits="NGINX",
        worker="nginx: worker process",
        leaving="is shutting down",
        can_pause=True,
        is_rehearsed=False,
    ),
    model.ReloadProgram.GUNICORN: Program(signals={"drain": "SIGTERM", "stop": "SIGTERM"}),
    model.ReloadProgram.UVICORN: Program(
        signals={"drain": "SIGTERM", "stop": "SIGTERM"}, worker="multiprocessing.spawn", workers_min=2
    ),
}


def style(program: Program, manifest: model.Manifest) -> instances.Style:
    """How a program is run: nginx is told of its sockets by name, the others find LISTEN_FDS."""
    descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + len(manifest.sockets))
    listed = "".join(f"{number};" for number in descriptors)
    environment = {program.inherits: listed} if program.inherits else {}
    return instances.Style(signals=program.signals, environment=environment)


def accepting(program: Program, master_pid: int) -> tuple[process_table.Process, ...]:
    """Workers of a master that accept."""
    workers = (each for each in process_table.children(master_pid) if program.worker in each.command)
    return tuple(each for each in workers if not program.leaving or program.leaving not in each.command)


class Masters(rehearsal.Rehearsed):
    """The way: two masters beside each other on the same sockets."""

    def __init__(
        self,
        on: instances.Instances,
        run_dir: Path,
        program: Program,
        manifest: model.Manifest,
        rehearsals: dict[str, timedelta],
    ) -> None:
        super().__init__(on, run_dir, style(program, manifest), rehearsals)
        self._program = program

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """Let the workers of the old master leave, where it can come back; else it accepts until COMMIT."""
        old = await self._on.old(change)
        if old is None or not self._program.can_pause:
            return {"accepting_until_commit": old.id} if old else {}
        async with instances.blaming(model.Fault.INFRASTRUCTURE, "not_paused"):
            await self._on.say_if_alive(old.id, processes.Word.PAUSE)
        if not await self._reaches(old.id, 0, PAUSE_TIMEOUT):
            raise self._unproved(old.id, "its workers still accept", model.Fault.INFRASTRUCTURE)
        await self.ready_alone(change)
        return {"paused": old.id, "paused_pid": str(old.pid), "paused_workers": "0"}

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """Let the old master have workers again, and see them."""
        evidence = await super().resume_old(change)
        old = await self._on.old(change)
        if old is None or old.is_broken:
            return evidence
        limit = change.old.manifest.prepare_timeout if change.old else instances.RETURN_TIMEOUT_DEFAULT
        if not await self._reaches(old.id, self._program.workers_min, limit):
            raise self._unproved(old.id, "no worker of it accepts", model.Fault.INFRASTRUCTURE)
        return evidence

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Look at the new master and its workers."""
        seen = await observation.observe(self._on, change)
        if seen.instance is None or accepting(self._program, seen.instance.pid):
            return seen
        return drivers.Observation(seen.instance, f"{seen.instance.id} has no worker that accepts")

    async def _rehearse(self, component: str, launch: drivers.Launch) -> timedelta:
        if not self._program.is_rehearsed:
            return timedelta(0)
        return await super()._rehearse(component, launch)

    async def _works(self, component: str, launch: drivers.Launch) -> dict[str, str]:
        """Wait for its time, and then for workers that were there all the while."""
        await super()._works(component, launch)
        while True:
            seen = await self._on.started(launch.instance_id)
            before = accepting(self._program, seen.pid)
            await readiness.settled(self._on, launch.instance_id, readiness.SETTLE_DEFAULT)
            workers = accepting(self._program, seen.pid)
            if len(workers) >= self._program.workers_min and workers == before:
                return {"workers": ",".join(str(each.pid) for each in workers)}

    async def _reaches(self, instance_id: str, workers: int, within: timedelta) -> bool:
        """Wait until a master has so many workers that accept: at least, or none."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                while not await self._has(instance_id, workers):  # noqa: ASYNC110  # it lies in other processes
                    await asyncio.sleep(instances.POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _has(self, instance_id: str, workers: int) -> bool:
        seen = await self._on.find(instance_id)
        pid = seen.pid if seen else 0
        found = len(accepting(self._program, pid)) if pid else 0
        return found >= workers if workers else found == 0

    def _unproved(self, instance_id: str, why: str, fault: model.Fault) -> drivers.DriverError:
        message = f"cannot believe {instance_id}: {why}, as the process table shows"
        return drivers.DriverError(message, fault=fault, reason="not_proved")


class Reload(kept.Kept):
    """The driver."""

    def __init__(self, rooms: drivers.Rooms, methods: frozenset[model.Method]) -> None:
        super().__init__(rooms, methods)
        self._rehearsals: dict[str, timedelta] = {}

    def _way(self, manifest: model.Manifest | None, method: model.Method) -> kept.Way:
        if manifest is None or method is not model.Method.HOT_SWAP:
            raise kept.unsupported(manifest, method)
        if not isinstance(manifest.options, model.ReloadOptions):
            raise kept.unsupported(manifest, method)
        program = PROGRAMS[manifest.options.program]
        return Masters(self._on, self._run_dir, program, manifest, self._rehearsals)


def make(rooms: drivers.Rooms) -> drivers.Driver:
    """Make the driver."""
    return Reload(rooms, METHODS)
