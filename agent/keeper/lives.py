"""The lives of instances: how one becomes a process, how that is watched, and how it ends.

Rules kept here: what ends badly at its start is told why; an exit is told before anything else is done about it; an
end is over only when nothing is left of the instance's processes. Left out: who is started and started again
(`instances`).
"""

import contextlib
import functools
import os
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import (
    cgroups,
    checked,
    control,
    errors,
    groups,
    instance,
    listeners,
    loop,
    places,
    processes,
    spawn,
    specification,
)

CHECK_TIMEOUT_SECONDS = 60.0  # for reading a release of some gigabytes once more
ACTIVATE_TIMEOUT_SECONDS = 10.0  # a component obeys within a turn of its event loop
CONTROL_BACKLOG = 4  # this keeper and its successor
PROBE_BACKLOG = 64  # probes and readers of metrics

OnLaunched = Callable[[instance.Instance, errors.RequestError | None], None]


@dataclass(frozen=True, slots=True)
class Listening:
    """Who is told what happens to instances.

    Args:
        on_event: An instance changed its state from the given one.
        on_exit: An instance has ended; called first.
        on_forgotten: An instance is none any more.
    """

    on_event: Callable[[instance.Instance, str], None]
    on_exit: Callable[[instance.Instance], None]
    on_forgotten: Callable[[instance.Instance], None]


class Lives:
    """Starts, watches and ends the processes of instances.

    Args:
        living: Shows every instance that is not forgotten.
        on_over: An instance, with its state before, has ended and nothing of it is left.
    """

    def __init__(
        self,
        on: loop.Loop,
        where: places.Places,
        *,
        held: listeners.Listeners,
        listening: Listening,
        living: Callable[[], Iterable[instance.Instance]],
        on_over: Callable[[instance.Instance, str], None],
    ) -> None:
        self._loop = on
        self._where = where
        self._held = held
        self._listening = listening
        self._living = living
        self._on_over = on_over
        self.cgroups = cgroups.Cgroups(where)
        self.checked = checked.Checked()
        self.groups = groups.Groups(on)

    def launch(self, made: instance.Instance, on_launched: OnLaunched) -> None:
        """Start its process; how check and exec went is called back.

        Raises:
            errors.RequestError: It cannot be started.
        """
        wanted = made.specification
        held = [self._held.get(name) for name in wanted.sockets]
        made.owner, made.cgroup = groups.new_owner(), self.cgroups.make(wanted.id)
        try:
            spawned = self._spawn(made, [listener.socket.fileno() for listener in held])
        except (OSError, errors.RequestError) as error:
            cgroups.remove(made.cgroup)
            if isinstance(error, errors.RequestError):
                raise
            raise errors.RequestError("start_failed", f"cannot start {wanted.id}: {error}") from error
        made.bindings = tuple(listener.binding for listener in held)
        made.pid, made.pidfd = spawned.pid, spawned.pidfd
        made.start_time = processes.start_time(spawned.pid)
        made.started_at_monotonic = self._loop.now()
        made.state, made.status, made.exit = instance.STARTING, instance.SILENT, processes.UNKNOWN_EXIT
        self.record(made)
        self._await_report(made, spawned.report, on_launched)
        self.attend(made)

    def attend(self, made: instance.Instance) -> None:
        """Watch its process, and speak to it."""
        self._loop.watch(made.pidfd, loop.READ, lambda _: self.notice(made))
        if not made.specification.is_plain:
            path = self._where.control(made.id)
            made.conversation = control.Conversation(
                self._loop, path, made.pid, lambda status: self._on_status(made, status)
            )

    def notice(self, made: instance.Instance) -> None:
        """Take its end, if its process has ended and that was not noticed yet."""
        if not made.has_process or not processes.has_exited(made.pidfd):
            return
        left, pidfd = made.group(), made.pidfd
        self._loop.unwatch(pidfd)
        made.exit = processes.exit_of(pidfd)
        made.pidfd, made.is_ending = -1, True
        made.cancel_timers()
        was = made.state
        if made.is_parked and made.stopping is None:
            made.pid = 0
            self.move(made, instance.PAUSED)
        else:
            made.state = instance.EXITED
            if made in self._living():
                self._listening.on_exit(made)
                self._listening.on_event(made, was)
        if made.conversation is not None:
            made.conversation.close()
            made.conversation = None
        self.groups.clear(left, functools.partial(self._on_clear, made, was, pidfd))

    def end(self, made: instance.Instance, timeout_seconds: float) -> None:
        """Tell it to end, and kill all of it when the time is over."""
        name = made.specification.signals.get("stop")
        if name is None:
            self.groups.signal(made.group(), signal.SIGTERM)
        else:
            processes.signal_process(made.pidfd, signal.Signals[name])
        group = made.group()
        made.timers.append(self._loop.call_later(timeout_seconds, lambda: self.groups.kill(group)))

    def move(self, made: instance.Instance, state: str) -> None:
        """Change its state, and tell who watches."""
        was, made.state = made.state, state
        if was != state and made in self._living():
            self._listening.on_event(made, was)

    def record(self, made: instance.Instance) -> None:
        """Write what a new keeper needs."""
        with contextlib.suppress(OSError):  # a full disk must not end what serves; the next keeper knows a little less
            made.write_record(self._where)

    def _spawn(self, made: instance.Instance, shared: list[int]) -> spawn.Spawned:
        wanted = made.specification
        with contextlib.ExitStack() as ours:  # closed here after the fork: the child alone answers on them
            own: list[int] = []
            if not wanted.is_plain:
                for path, kind, backlog in (
                    (self._where.probe(wanted.id), socket.SOCK_STREAM, PROBE_BACKLOG),
                    (self._where.control(wanted.id), socket.SOCK_SEQPACKET, CONTROL_BACKLOG),
                ):
                    own.append(ours.enter_context(_bind(path, kind, backlog)).fileno())
                if self._where.agent_uid is not None:
                    os.chown(self._where.probe(wanted.id), self._where.agent_uid, -1)
            log = os.open(self._where.log(wanted.id), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            ours.callback(os.close, log)
            descriptors = (*shared, *own)
            program = specification.program(
                wanted, self._where, descriptors=descriptors, output=log, cgroup=made.cgroup, owner=made.owner
            )
            return spawn.spawn(program)

    def _await_report(self, made: instance.Instance, report: int, on_launched: OnLaunched) -> None:
        group, told = made.group(), bytearray()

        def on_report(_: int) -> None:
            chunk = os.read(report, spawn.REPORT_MAX_BYTES)
            if chunk:
                told.extend(chunk)
                return
            limit.cancel()
            self._loop.unwatch(report)
            os.close(report)
            outcome = spawn.read_report(bytes(told))
            if outcome.has_passed or outcome.refusal is not None:
                self.checked.note(made.specification.source, made.started_at_monotonic, outcome.refusal)
            if outcome.has_passed and outcome.refusal is None and made.specification.is_plain and _runs(made):
                made.is_reviving = False
                self.move(made, instance.ACTIVE)
            on_launched(made, outcome.refusal)

        limit = self._loop.call_later(CHECK_TIMEOUT_SECONDS, lambda: self.groups.kill(group))
        self._loop.watch(report, loop.READ, on_report)

    def _on_status(self, made: instance.Instance, status: control.Status) -> None:
        if not made.has_process:
            return
        made.status = status
        self.move(made, status.state)
        if made.is_reviving and made.state == instance.PREPARED and made.conversation is not None:
            made.is_reviving = False
            made.conversation.ask("activate", ACTIVATE_TIMEOUT_SECONDS, lambda _: None)

    def _on_clear(self, made: instance.Instance, was: str, pidfd: int) -> None:
        processes.reap(pidfd)
        os.close(pidfd)
        made.is_ending = False
        self._on_over(made, was)


def _runs(made: instance.Instance) -> bool:
    return made.has_process and not processes.has_exited(made.pidfd)


def _bind(path: Path, kind: int, backlog: int) -> socket.socket:
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, kind)
    try:
        bound.bind(str(path))
        bound.listen(backlog)
    except OSError:
        bound.close()
        raise
    return bound
