"""One instance: what it is, its present life as a process, and how it is shown and recorded.

Rules kept here: the record is all that a new keeper needs to adopt it. Left out: what moves it (`instances`).
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from agent.keeper import control, errors, fields, groups, listeners, loop, places, processes, specification

STARTING = "starting"
PREPARED = "prepared"
ACTIVE = "active"
PAUSED = "paused"
DRAINING = "draining"
DRAINED = "drained"
EXITED = "exited"
BREAK_DEATHS = 5  # early ones in a row; with the pauses between them, over three seconds
SILENT = control.Status(state=STARTING, served=0, in_flight=0, accepted=0, protocol=0)


@dataclass(slots=True, eq=False)
class Instance:
    """An instance and the process that it is now.

    Args:
        bindings: Its listeners, so that they can be opened again when no process holds them any more.
        owner: Mark of its present life, in the environment of everything that belongs to it.
        cgroup: Folder of its own cgroup; empty where it has none.
        state: The component's own state, or "exited".
        is_kept: The committed instance of its component.
        is_reviving: The keeper started it again by itself, and will activate it by itself.
        is_parked: It shall have no process until it is resumed; true until the resumed one runs.
        early_deaths: In a row; they lengthen the pause before the next start.
        launching: Who waits for check and exec; None when they are over.
        stopping: Who waits for the end; None when nobody asked for it.
        parking: Who waits until nothing of its processes is left.
        is_ending: Its main process has ended, and what that left behind not yet.
    """

    specification: specification.Specification
    bindings: tuple[listeners.Binding, ...] = ()
    pid: int = 0
    pidfd: int = -1
    start_time: int = 0
    owner: str = ""
    cgroup: str = ""
    started_at_monotonic: float = 0.0
    state: str = STARTING
    status: control.Status = SILENT
    exit: processes.Exit = processes.UNKNOWN_EXIT
    restarts: int = 0
    early_deaths: int = 0
    is_kept: bool = False
    is_reviving: bool = False
    is_parked: bool = False
    is_ending: bool = False
    conversation: control.Conversation | None = None
    launching: list[Callable[["Instance | errors.RequestError"], None]] | None = None
    stopping: list[Callable[[], None]] | None = None
    parking: list[Callable[[], None]] = field(default_factory=list)
    timers: list[loop.Timer] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its id, for ever."""
        return self.specification.id

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended: it has a process, or is parked and gets one again when it is resumed."""
        return self.state != EXITED

    @property
    def has_process(self) -> bool:
        """Whether there is a process, as far as the keeper has been told."""
        return self.pidfd >= 0

    @property
    def is_broken(self) -> bool:
        """Whether it died early too often in a row to be started again soon."""
        return self.early_deaths >= BREAK_DEATHS

    def cancel_timers(self) -> None:
        """Forget what was to happen to the present life."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def body(self) -> fields.Body:
        """Show it to a client."""
        shown = self.specification
        return {
            "id": shown.id,
            "component": shown.component,
            "version": shown.version,
            "digest": shown.digest,
            "release_dir": shown.release_dir,
            "operation_id": shown.operation_id,
            "pid": self.pid,
            "started_at_monotonic": self.started_at_monotonic,
            "start_time": self.start_time,
            "state": self.state,
            "served": self.status.served,
            "in_flight": self.status.in_flight,
            "accepted": self.status.accepted,
            "protocol": self.status.protocol,
            "worker_deaths": self.status.worker_deaths,
            "exit_code": self.exit.code,
            "signal": self.exit.signal,
            "restarts": self.restarts,
            "is_kept": self.is_kept,
            "is_plain": shown.is_plain,
            "is_broken": self.is_broken,
        }

    def group(self) -> groups.Group:
        """Return what its processes are known by, while it has one."""
        return groups.Group(self.pid, self.start_time, self.owner, self.cgroup)

    def record(self) -> fields.Body:
        """Describe it to a new keeper."""
        shown = self.specification
        return {
            "instance": shown.body(),
            "pid": self.pid,
            "start_time": self.start_time,
            "owner": self.owner,
            "cgroup": self.cgroup,
            "started_at_monotonic": self.started_at_monotonic,
            "boot_id": processes.boot_id(),
            "is_kept": self.is_kept,
            "restarts": self.restarts,
            "state": self.state if shown.is_plain else "",  # others are asked for it
            "is_parked": self.is_parked,
            "early_deaths": self.early_deaths,
            "bindings": [asdict(binding) for binding in self.bindings],
        }

    def write_record(self, where: places.Places) -> None:
        """Write what a new keeper needs."""
        places.replace(where.record(self.id), json.dumps(self.record()).encode())
