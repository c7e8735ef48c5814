"""One instance: what it is, its present life as a process, and how it is shown and recorded.

Rules kept here: the record is all that a new keeper needs to adopt it. Left out: what moves it (`instances`).
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from agent.keeper import control, errors, fields, listeners, loop, places, processes, specification

EXITED = "exited"
SILENT = control.Status(state="starting", served=0, in_flight=0, accepted=0, protocol=0)


@dataclass(slots=True)
class Instance:
    """An instance and the process that it is now.

    Args:
        bindings: Its listeners, so that they can be opened again when no process holds them any more.
        state: The component's own state, or "exited".
        is_kept: The committed instance of its component.
        is_reviving: The keeper started it again by itself, and will activate it by itself.
        early_deaths: In a row; they lengthen the pause before the next start.
        launching: Who waits for check and exec; None when they are over.
        stopping: Who waits for the end; None when nobody asked for it.
    """

    specification: specification.Specification
    bindings: tuple[listeners.Binding, ...] = ()
    pid: int = 0
    pidfd: int = -1
    start_time: int = 0
    started_at_monotonic: float = 0.0
    state: str = "starting"
    status: control.Status = SILENT
    exit: processes.Exit = processes.UNKNOWN_EXIT
    restarts: int = 0
    early_deaths: int = 0
    is_kept: bool = False
    is_reviving: bool = False
    conversation: control.Conversation | None = None
    launching: list[Callable[["Instance | errors.RequestError"], None]] | None = None
    stopping: list[Callable[[], None]] | None = None
    timers: list[loop.Timer] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its id, for ever."""
        return self.specification.id

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, as far as the keeper has been told."""
        return self.state != EXITED

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
            "exit_code": self.exit.code,
            "signal": self.exit.signal,
            "restarts": self.restarts,
            "is_kept": self.is_kept,
        }

    def write_record(self, where: places.Places) -> None:
        """Write what a new keeper needs."""
        record = {
            "instance": self.specification.body(),
            "pid": self.pid,
            "start_time": self.start_time,
            "started_at_monotonic": self.started_at_monotonic,
            "boot_id": processes.boot_id(),
            "is_kept": self.is_kept,
            "restarts": self.restarts,
            "bindings": [asdict(binding) for binding in self.bindings],
        }
        places.replace(where.record(self.id), json.dumps(record).encode())
