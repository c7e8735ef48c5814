"""All instances of the node: started, spoken to, kept, stopped, and told about when they end.

Rules kept here: verbs are idempotent; an exit is told to the marks before anything else is done about it; only what
was kept is started again, with a pause that doubles; what ends badly at its start leaves nothing behind. Left out:
which instance should run, and the uncommitted marks (`marks`).
"""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import control, errors, instance, listeners, loop, places, processes, spawn, specification

LIVE_MAX = 64  # process groups of one node; a component has at most two
EXITED_MAX = 64  # ended instances that can still be asked about; the oldest is forgotten
CHECK_TIMEOUT_SECONDS = 60.0  # for reading a release of some gigabytes once more
ACTIVATE_TIMEOUT_SECONDS = 10.0  # a component obeys within a turn of its event loop
REVIVE_FIRST_SECONDS = 0.2
REVIVE_MAX_SECONDS = 30.0
STEADY_SECONDS = 30.0  # a life this long makes the next death a first one
LOG_MAX_BYTES = 8 << 20
LOG_CHECK_SECONDS = 5.0  # a program that writes 1 MiB/s stays within two thirds over the bound
CONTROL_BACKLOG = 4  # this keeper and its successor
PROBE_BACKLOG = 64  # probes and readers of metrics


@dataclass(frozen=True, slots=True)
class Listening:
    """Who is told what happens to instances.

    Args:
        on_event: An instance changed its state from the given one.
        on_exit: An instance has ended; called first.
    """

    on_event: Callable[[instance.Instance, str], None]
    on_exit: Callable[[instance.Instance], None]


class Instances:
    """The instances of the node, by id."""

    def __init__(self, on: loop.Loop, where: places.Places, held: listeners.Listeners, listening: Listening) -> None:
        self._loop = on
        self._where = where
        self._held = held
        self._listening = listening
        self._by_id: dict[str, instance.Instance] = {}
        self._bound_logs()

    def all(self) -> Iterable[instance.Instance]:
        """Every instance that is not forgotten, oldest first."""
        return self._by_id.values()

    def find(self, instance_id: str) -> instance.Instance | None:
        """Return the instance, its end noticed if it has ended; None when it is unknown."""
        found = self._by_id.get(instance_id)
        if found is not None and found.is_alive and processes.has_exited(found.pidfd):
            self._on_exit(found)
            return self._by_id.get(instance_id)
        return found

    def get(self, instance_id: str) -> instance.Instance:
        """Return the instance.

        Raises:
            errors.RequestError: unknown_instance.
        """
        found = self.find(instance_id)
        if found is None:
            raise errors.RequestError("unknown_instance", f"cannot find instance {instance_id}")
        return found

    def uses(self, socket_name: str) -> bool:
        """Whether a living instance has this listener."""
        return any(each.is_alive and socket_name in each.specification.sockets for each in self._by_id.values())

    def start(
        self, wanted: specification.Specification, on_done: Callable[[instance.Instance | errors.RequestError], None]
    ) -> None:
        """Start an instance; an id that is known already is success, if it means the same."""
        known = self._by_id.get(wanted.id)
        if known is not None:
            _join(known, wanted, on_done)
            return
        if sum(each.is_alive for each in self._by_id.values()) >= LIVE_MAX:
            raise errors.RequestError("too_many", f"cannot start {wanted.id}: {LIVE_MAX} instances live already")
        made = instance.Instance(wanted)
        self._launch(made)
        made.launching = [on_done]
        self._by_id[wanted.id] = made

    def say(
        self, instance_id: str, word: str, timeout_seconds: float, on_answer: Callable[[control.Answer], None]
    ) -> None:
        """Say a word to an instance.

        Raises:
            errors.RequestError: unknown_instance or instance_gone.
        """
        found = self.get(instance_id)
        if found.conversation is None or not found.is_alive:
            raise errors.RequestError("instance_gone", f"cannot say {word} to {instance_id}: it has ended")
        found.conversation.ask(word, timeout_seconds, on_answer)

    def keep(self, component: str, instance_id: str) -> None:
        """Make it the one instance of its component that is started again whenever it ends by itself."""
        found = self.get(instance_id)
        if found.specification.component != component:
            rule = f"it belongs to {found.specification.component}"
            raise errors.RequestError("invalid_request", f"cannot keep {instance_id} for component {component}: {rule}")
        for each in self._by_id.values():
            if each.is_kept and each is not found and each.specification.component == component:
                each.is_kept = False
                self._record(each)
        if not found.is_kept:
            found.is_kept = True
            self._record(found)
            if not found.is_alive:
                self._revive_later(found)

    def stop(self, instance_id: str, timeout_seconds: float, on_done: Callable[[], None]) -> None:
        """End an instance and forget it; one that is unknown is success."""
        found = self.find(instance_id)
        if found is None or not found.is_alive:
            if found is not None:
                self._forget(found)
            on_done()
            return
        if found.stopping is not None:
            found.stopping.append(on_done)
            return
        found.is_kept = False
        found.stopping = [on_done]
        self._record(found)
        processes.signal_group(found.pid, signal.SIGTERM)
        kill = self._loop.call_later(timeout_seconds, lambda: processes.signal_group(found.pid, signal.SIGKILL))
        found.timers.append(kill)

    def adopt(self, found: instance.Instance) -> None:
        """Take over an instance that another keeper started; it is not our child."""
        self._by_id[found.id] = found
        if found.is_alive:
            self._attend(found)

    def _launch(self, made: instance.Instance) -> None:
        wanted = made.specification
        held = [self._held.get(name) for name in wanted.sockets]
        shared = [listener.socket.fileno() for listener in held]
        try:
            with contextlib.ExitStack() as ours:  # closed here after the fork: the child alone answers on them
                probe = ours.enter_context(_bind(self._where.probe(wanted.id), socket.SOCK_STREAM, PROBE_BACKLOG))
                words = ours.enter_context(
                    _bind(self._where.control(wanted.id), socket.SOCK_SEQPACKET, CONTROL_BACKLOG)
                )
                log = os.open(self._where.log(wanted.id), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                ours.callback(os.close, log)
                descriptors = (*shared, probe.fileno(), words.fileno())
                program = specification.program(wanted, self._where, descriptors=descriptors, output=log)
                spawned = spawn.spawn(program)
        except OSError as error:
            raise errors.RequestError("start_failed", f"cannot start {wanted.id}: {error}") from error
        made.bindings = tuple(listener.binding for listener in held)
        made.pid, made.pidfd = spawned.pid, spawned.pidfd
        made.start_time = processes.start_time(spawned.pid)
        made.started_at_monotonic = self._loop.now()
        made.state, made.status, made.exit = "starting", instance.SILENT, processes.UNKNOWN_EXIT
        self._record(made)
        self._await_report(made, spawned.report)
        self._attend(made)

    def _await_report(self, made: instance.Instance, report: int) -> None:
        def on_report(_: int) -> None:
            limit.cancel()
            refusal = spawn.read_report(report)
            self._loop.unwatch(report)
            os.close(report)
            self._on_launched(made, refusal)

        limit = self._loop.call_later(CHECK_TIMEOUT_SECONDS, lambda: processes.signal_group(made.pid, signal.SIGKILL))
        self._loop.watch(report, loop.READ, on_report)

    def _on_launched(self, made: instance.Instance, refusal: errors.RequestError | None) -> None:
        waiting, made.launching = made.launching or [], None
        if refusal is not None and not made.is_kept and self._by_id.get(made.id) is made:
            self._forget(made)
        for on_done in waiting:
            on_done(made if refusal is None else refusal)

    def _attend(self, made: instance.Instance) -> None:
        self._loop.watch(made.pidfd, loop.READ, lambda _: self._on_exit(made))
        path = self._where.control(made.id)
        made.conversation = control.Conversation(
            self._loop, path, made.pid, lambda status: self._on_status(made, status)
        )

    def _on_status(self, made: instance.Instance, status: control.Status) -> None:
        if not made.is_alive:
            return
        was, made.state, made.status = made.state, status.state, status
        if was != made.state:
            self._listening.on_event(made, was)
        if made.is_reviving and made.state == "prepared" and made.conversation is not None:
            made.is_reviving = False
            made.conversation.ask("activate", ACTIVATE_TIMEOUT_SECONDS, lambda _: None)

    def _on_exit(self, made: instance.Instance) -> None:
        if not made.is_alive:
            return
        self._loop.unwatch(made.pidfd)
        made.exit = processes.reap(made.pidfd)
        os.close(made.pidfd)
        processes.signal_group(made.pid, signal.SIGKILL)  # what it left behind in its group
        was, made.state, made.pidfd = made.state, instance.EXITED, -1
        made.cancel_timers()
        if self._by_id.get(made.id) is made:
            self._listening.on_exit(made)
            self._listening.on_event(made, was)
        if made.conversation is not None:
            made.conversation.close()
        self._follow_exit(made, was)

    def _follow_exit(self, made: instance.Instance, was: str) -> None:
        if self._by_id.get(made.id) is not made:
            return
        waiting, made.stopping = made.stopping, None
        if waiting is not None:
            self._forget(made)
            for on_done in waiting:
                on_done()
        elif made.is_kept and was not in ("draining", "drained"):
            self._revive_later(made)
        self._bound_exited()

    def _revive_later(self, made: instance.Instance) -> None:
        is_steady = self._loop.now() - made.started_at_monotonic >= STEADY_SECONDS
        made.early_deaths = 0 if is_steady else made.early_deaths
        delay = min(REVIVE_FIRST_SECONDS * 2**made.early_deaths, REVIVE_MAX_SECONDS)
        made.early_deaths += 1
        made.timers.append(self._loop.call_later(delay, lambda: self._revive(made)))

    def _revive(self, made: instance.Instance) -> None:
        if not made.is_kept:
            return
        made.restarts += 1
        made.is_reviving = True
        try:
            for binding in made.bindings:  # no-op, unless it was adopted and has never handed its listeners over
                self._held.open(binding.name, binding.address, binding.backlog)
            self._launch(made)
        except errors.RequestError:
            self._revive_later(made)
        else:
            self._listening.on_event(made, instance.EXITED)

    def _record(self, made: instance.Instance) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end what serves; the next keeper knows a little less
            made.write_record(self._where)

    def _forget(self, made: instance.Instance) -> None:
        made.cancel_timers()
        made.is_kept = False
        del self._by_id[made.id]
        self._where.forget(made.id)

    def _bound_exited(self) -> None:
        exited = [each for each in self._by_id.values() if not each.is_alive and not each.is_kept]
        for each in exited[:-EXITED_MAX]:
            self._forget(each)

    def _bound_logs(self) -> None:
        for each in self._by_id.values():
            with contextlib.suppress(OSError):
                path = self._where.log(each.id)
                if path.stat().st_size > LOG_MAX_BYTES:
                    os.truncate(path, 0)  # the program appends, so it goes on at the new end
        self._loop.call_later(LOG_CHECK_SECONDS, self._bound_logs)


def _join(
    known: instance.Instance,
    wanted: specification.Specification,
    on_done: Callable[[instance.Instance | errors.RequestError], None],
) -> None:
    if known.specification != wanted:
        raise errors.RequestError("instance_conflict", f"cannot start {wanted.id}: another instance has this id")
    if known.launching is not None:
        known.launching.append(on_done)
    else:
        on_done(known)


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
