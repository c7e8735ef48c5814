"""One process of the agent: started, ended, and told about when it is over.

Rules kept here: an end that the keeper asked for is known as such; what the process leaves behind in its group ends
with it. The agent ends itself when the keeper's socket closes, so a killed keeper leaves none for long. Left out:
which version, when, and what its death means (`agents`).
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from agent.keeper import agent_release, errors, loop, processes, spawn

STEADY_SECONDS = 30.0  # a death before this age is an early one
STOP_SECONDS = 5.0  # between SIGTERM and SIGKILL; the agent has nothing to finish


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Args:
        refusal: Why it never ran; None when it did.
        is_early: It ended by itself, and soon.
    """

    why: str
    refusal: errors.RequestError | None
    is_early: bool


@dataclass(frozen=True, slots=True)
class Inherited:
    """The process in charge, as the image of this keeper before an execve left it."""

    release: agent_release.Release
    instance_id: str
    pid: int
    pidfd: int
    started_at: float


class Child:
    """A process of the agent that has been started.

    Args:
        instance_id: Names it to the agent.
        report: Descriptor that says how check and exec went; None where that has been read.
        on_death: Called once.
    """

    def __init__(  # noqa: PLR0913  # what a process is takes so much to say
        self,
        on: loop.Loop,
        release: agent_release.Release,
        instance_id: str,
        *,
        pid: int,
        pidfd: int,
        report: int | None,
        started_at: float,
        on_death: Callable[["Child", Death], None],
    ) -> None:
        self.release = release
        self.instance_id = instance_id
        self.pid = pid
        self.pidfd = pidfd
        self.started_at = started_at
        self._loop = on
        self._report = report
        self._on_death = on_death
        self._kill: loop.Timer | None = None
        self._is_dismissed = False
        on.watch(pidfd, loop.READ, lambda _: self._on_exit())

    @property
    def is_dismissed(self) -> bool:
        """Whether its end was asked for."""
        return self._is_dismissed

    def end(self, stop_seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, and make it after the time; asked again, nothing changes."""
        if self._is_dismissed:
            return
        self._is_dismissed = True
        processes.signal_group(self.pid, signal.SIGTERM)
        self._kill = self._loop.call_later(stop_seconds, lambda: processes.signal_group(self.pid, signal.SIGKILL))

    def _on_exit(self) -> None:
        self._loop.unwatch(self.pidfd)
        refusal = spawn.take_report(self._report).refusal if self._report is not None else None
        processes.signal_group(self.pid, signal.SIGKILL)  # what it left behind, while its number is its own
        ended = processes.reap(self.pidfd)
        os.close(self.pidfd)
        if self._kill is not None:
            self._kill.cancel()
        why = refusal.message if refusal is not None else f"exit code {ended.code}, signal {ended.signal}"
        is_early = not self._is_dismissed and self._loop.now() - self.started_at < STEADY_SECONDS
        self._on_death(self, Death(why, refusal, is_early))


def start(
    on: loop.Loop,
    program: spawn.Program,
    release: agent_release.Release,
    instance_id: str,
    on_death: Callable[[Child, Death], None],
) -> Child:
    """Start a process of the agent.

    Raises:
        OSError: The keeper is out of descriptors or processes.
    """
    spawned = spawn.spawn(program)
    return Child(
        on,
        release,
        instance_id,
        pid=spawned.pid,
        pidfd=spawned.pidfd,
        report=spawned.report,
        started_at=on.now(),
        on_death=on_death,
    )
