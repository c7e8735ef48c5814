"""All processes of an instance or a child, however far they have run from its main process.

Rules kept here: where there is a cgroup, it alone says what belongs; else it is the session, what the main process has
below it, and what carries its mark in its environment, so that a daemon is found too. Nothing is signalled that the
keeper did not start: marks are random and never empty, a number counts only with the start time that goes with it, and
a main process that is the keeper's child keeps its number until all of its group has ended. Left out: when to signal
(`lives`).
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from agent.keeper import cgroups, loop, processes

OWNER = "INSTAR_OWNER"  # in the environment of everything that the keeper starts
OWNER_BYTES = 16  # 128 random bits: no other keeper, container or life of this one has the same
LOOK_AGAIN_SECONDS = 0.02  # what was killed is gone within milliseconds
LOOKS_MAX = 500  # with the above ten seconds: what has not ended by then hangs in the kernel


@dataclass(frozen=True, slots=True)
class Group:
    """What belongs together.

    Args:
        pid: The main process, that leads a session of the same number.
        start_time: Of the main process; what has its number and began at another time is another's.
        owner: Value of `OWNER` in the environment of everything that it has started.
        cgroup: Folder; empty where there is none.

    Raises:
        ValueError: It would match what the keeper did not start.
    """

    pid: int
    start_time: int
    owner: str
    cgroup: str

    def __post_init__(self) -> None:
        if self.pid <= processes.INIT or self.pid == os.getpid() or not self.owner:
            rule = "it must be a process that the keeper has started, and its mark"
            raise ValueError(f"cannot take process {self.pid} and owner {self.owner!r} for a group: {rule}")


def new_owner() -> str:
    """Make a mark for one launch."""
    return os.urandom(OWNER_BYTES).hex()


class Groups:
    """Signals groups and waits for their end."""

    def __init__(self, on: loop.Loop) -> None:
        self._loop = on
        self._clearing: set[int] = set()

    def is_clearing(self, pid: int) -> bool:
        """Whether this is a main process that has ended and keeps its number until all of its group has."""
        return pid in self._clearing

    def signal(self, group: Group, number: signal.Signals) -> None:
        """Signal all that belongs."""
        rows = processes.table()
        main = rows.get(group.pid)
        is_child = main is not None and main.parent == os.getpid() and main.start_time == group.start_time
        if is_child:
            processes.signal_group(group.pid, number)  # at once; whoever it missed has left the process group
        for pid in _members(group, rows):
            if not is_child or rows[pid].group != group.pid:
                processes.signal_exactly(pid, rows[pid].start_time, number)

    def kill(self, group: Group) -> None:
        """Kill all that belongs."""
        if cgroups.is_there(group.cgroup):
            cgroups.kill(group.cgroup)
            processes.signal_exactly(group.pid, group.start_time, signal.SIGKILL)  # it may not have entered yet
        else:
            self.signal(group, signal.SIGKILL)

    def is_empty(self, group: Group) -> bool:
        """Whether nothing is left that belongs."""
        if cgroups.is_there(group.cgroup):
            return cgroups.is_empty(group.cgroup)
        return not _members(group, processes.table())

    def clear(self, group: Group, on_empty: Callable[[], None], looks: int = LOOKS_MAX) -> None:
        """Kill what is left after the end of the main process; called back when nothing is, or it cannot be killed.

        The exit of the main process must not be taken before that.
        """
        self._clearing.add(group.pid)
        self.kill(group)
        if self.is_empty(group) or not looks:
            self._clearing.discard(group.pid)
            cgroups.remove(group.cgroup)
            on_empty()
        else:
            self._loop.call_later(LOOK_AGAIN_SECONDS, lambda: self.clear(group, on_empty, looks - 1))


def _members(group: Group, rows: dict[int, processes.Row]) -> set[int]:
    alive = {pid for pid, row in rows.items() if not row.is_zombie}
    if cgroups.is_there(group.cgroup):
        return alive & set(cgroups.pids(group.cgroup))
    main = rows.get(group.pid)
    found: set[int] = set()
    if main is None or main.start_time == group.start_time:  # without a main process its session keeps the number
        found = processes.descendants(rows, group.pid)
        found |= {pid for pid, row in rows.items() if group.pid in (row.session, row.group)}
    found |= {pid for pid in alive - found if processes.has_variable(pid, f"{OWNER}={group.owner}")}
    return (found & alive) - {os.getpid(), processes.INIT}
