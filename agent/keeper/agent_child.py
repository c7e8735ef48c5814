"""Watches the agent: starts it, starts it again when it ends, stops it when the keeper is told to end.

Rules kept here: the pause before the next start doubles with each early death and is bounded. The agent ends itself
when the keeper's socket closes, so a killed keeper leaves no second agent behind. Left out: what the agent does.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.keeper import loop, processes, spawn

RESTART_FIRST_SECONDS = 0.2
RESTART_MAX_SECONDS = 30.0
STEADY_SECONDS = 30.0  # a life this long makes the next death a first one
STOP_SECONDS = 5.0  # between SIGTERM and SIGKILL; the agent has nothing to finish


class AgentChild:
    """The agent's process.

    Args:
        argv: Its command; an empty one means that there is no agent to watch.
    """

    def __init__(self, on: loop.Loop, argv: Sequence[str]) -> None:
        self._loop = on
        self._argv = argv
        self._spawned: spawn.Spawned | None = None
        self._started_at_monotonic = 0.0
        self._early_deaths = 0
        self._on_stopped: Callable[[], None] | None = None

    def start(self) -> None:
        """Start it, unless it is to be stopped."""
        if not self._argv or self._on_stopped is not None:
            return
        program = spawn.Program(self._argv, os.environ, Path.cwd())
        try:
            self._spawned = spawn.spawn(program)
        except OSError:
            self._start_later()
            return
        self._started_at_monotonic = self._loop.now()
        self._loop.watch(self._spawned.pidfd, loop.READ, lambda _: self._on_exit())

    def stop(self, on_stopped: Callable[[], None]) -> None:
        """End it for good."""
        self._on_stopped = on_stopped
        if self._spawned is None:
            on_stopped()
            return
        pid = self._spawned.pid
        processes.signal_group(pid, signal.SIGTERM)
        self._loop.call_later(STOP_SECONDS, lambda: processes.signal_group(pid, signal.SIGKILL))

    def _on_exit(self) -> None:
        spawned, self._spawned = self._spawned, None
        if spawned is None:
            return
        self._loop.unwatch(spawned.pidfd)
        refusal = spawn.read_report(spawned.report)
        ended = processes.reap(spawned.pidfd)
        os.close(spawned.report)
        os.close(spawned.pidfd)
        processes.signal_group(spawned.pid, signal.SIGKILL)  # what it left behind in its group
        if self._on_stopped is not None:
            self._on_stopped()
            return
        why = refusal.message if refusal is not None else f"exit code {ended.code}, signal {ended.signal}"
        print(f"the agent ended ({why}); it is started again", file=sys.stderr, flush=True)  # noqa: T201  # the host's log
        self._start_later()

    def _start_later(self) -> None:
        if self._loop.now() - self._started_at_monotonic >= STEADY_SECONDS:
            self._early_deaths = 0
        delay = min(RESTART_FIRST_SECONDS * 2**self._early_deaths, RESTART_MAX_SECONDS)
        self._early_deaths += 1
        self._loop.call_later(delay, self.start)
