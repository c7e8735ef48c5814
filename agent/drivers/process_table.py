"""The process table of the host, read from /proc: who is whose child, since when, and by what name.

Rules kept here: what has ended while it was read is left out; a process is told from a later one with its pid by its
start time. Left out: what the names mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PARENT_FIELD = 1  # of /proc/PID/stat, counted behind the name, which may hold anything
START_FIELD = 19
ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    Args:
        start_ticks: Clock ticks since boot.
        command: Its words with blanks between them, as the process itself shows them.
    """

    pid: int
    parent_pid: int
    start_ticks: int
    command: str


def children(parent_pid: int) -> tuple[Process, ...]:
    """Living children of a process, the oldest first."""
    mine = (each for each in _all() if each.parent_pid == parent_pid)
    return tuple(sorted(mine, key=lambda each: (each.start_ticks, each.pid)))


def read(pid: int) -> Process | None:
    """One process; None where it has ended."""
    folder = PROC / str(pid)
    try:
        state, *numbers = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if state == ZOMBIE:
        return None
    return Process(pid, int(numbers[PARENT_FIELD - 1]), int(numbers[START_FIELD - 1]), command)


def _all() -> Iterable[Process]:
    for folder in PROC.iterdir():
        found = read(int(folder.name)) if folder.name.isdecimal() else None
        if found is not None:
            yield found
