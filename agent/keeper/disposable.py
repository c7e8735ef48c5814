"""Runs a program as a disposable child with bounds on time and output.

Rules kept here: the answer comes when the child has ended, or has been ended, and nothing that it started is left; it
has no input. Left out: what is run (`verify`, `tasks`).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent.keeper import groups, loop, processes, spawn

READ_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a child may take.

    Args:
        wall_seconds: Then it is killed.
        output_bytes: Of standard output, and of standard error where that is taken too.
        is_tail: Longer output loses its beginning; else it ends the child.
    """

    wall_seconds: float
    output_bytes: int
    is_tail: bool


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended.

    Args:
        report: Of check and exec.
    """

    exit: processes.Exit
    output: str
    is_timeout: bool
    is_too_long: bool
    report: spawn.Report


@dataclass(slots=True)
class _Run:
    spawned: spawn.Spawned
    output: int
    group: groups.Group
    bounds: Bounds
    on_done: Callable[[End], None]
    text: bytearray = field(default_factory=bytearray)
    limit: loop.Timer | None = None
    is_timeout: bool = False
    is_too_long: bool = False


class Disposables:
    """Starts them, and counts those that run."""

    def __init__(self, on: loop.Loop, known: groups.Groups) -> None:
        self.running = 0
        self._loop = on
        self._groups = known

    def run(
        self,
        program: spawn.Program,
        bounds: Bounds,
        on_done: Callable[[End], None],
        cgroup: str = "",
    ) -> None:
        """Run a program; its standard output, and its errors where the program says so, are taken.

        Args:
            program: Its output is replaced; its errors too, where they are not None.
            bounds: Over which it is killed, or its output is cut.
            on_done: Called once, when nothing of it is left.
            cgroup: Folder; empty where it has none.

        Raises:
            OSError: The keeper is out of descriptors or processes.
        """
        output, writer = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(output, False)
            errors_to, owner = None if program.errors is None else writer, groups.new_owner()
            environment = {**program.environment, groups.OWNER: owner}
            spawned = spawn.spawn(replace(program, environment=environment, output=writer, errors=errors_to))
        except OSError:
            os.close(output)
            raise
        finally:
            os.close(writer)
        self.running += 1
        group = groups.Group(spawned.pid, processes.start_time(spawned.pid), owner, cgroup)
        run = _Run(spawned, output, group, bounds, on_done)
        run.limit = self._loop.call_later(bounds.wall_seconds, lambda: self._on_late(run))
        self._loop.watch(output, loop.READ, lambda _: self._on_output(run))
        self._loop.watch(spawned.pidfd, loop.READ, lambda _: self._on_exit(run))

    def _on_late(self, run: _Run) -> None:
        run.is_timeout = True
        self._groups.kill(run.group)

    def _on_output(self, run: _Run) -> None:
        if not _read(run):
            self._loop.unwatch(run.output)
        elif run.is_too_long:
            self._loop.unwatch(run.output)
            self._groups.kill(run.group)

    def _on_exit(self, run: _Run) -> None:
        self._loop.unwatch(run.spawned.pidfd)
        self._loop.unwatch(run.output)
        if run.limit is not None:
            run.limit.cancel()
        while not run.is_too_long and _read(run):
            pass
        os.close(run.output)
        report, ended = spawn.take_report(run.spawned.report), processes.exit_of(run.spawned.pidfd)
        end = End(ended, run.text.decode(errors="replace"), run.is_timeout, run.is_too_long, report)
        self._groups.clear(run.group, lambda: self._over(run, end))

    def _over(self, run: _Run, end: End) -> None:
        processes.reap(run.spawned.pidfd)
        os.close(run.spawned.pidfd)
        self.running -= 1
        run.on_done(end)


def _read(run: _Run) -> bool:
    """Read what is there; False at the end, or when there is nothing."""
    try:
        chunk = os.read(run.output, READ_BYTES)
    except BlockingIOError:
        return False
    run.text += chunk
    if len(run.text) > run.bounds.output_bytes:
        run.is_too_long = not run.bounds.is_tail
        del run.text[: -run.bounds.output_bytes]
    return bool(chunk)
