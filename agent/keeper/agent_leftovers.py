"""Ends agents that outlived their keeper: two would fight for the journal, and the loser would look like a bad version.

Rules kept here: what is ended is the very process that was noted, by boot id, pid and start time. Left out: ending them
in an orderly way; an agent may end at any instant.
"""

import contextlib
import functools
import json
import os
import signal
from collections.abc import Callable, Iterable

from agent.keeper import agent_child, loop, places, processes

FILE_NAME = "keeper.agents"  # in the run directory; not *.json, which are instances
WAIT_SECONDS = 5.0  # for the end of a killed process; one that hangs in the kernel longer is not waited for


def note(where: places.Places, children: Iterable[agent_child.Child]) -> None:
    """Write down what runs."""
    noted = {
        "boot_id": processes.boot_id(),
        "agents": [{"pid": child.pid, "start_time": processes.start_time(child.pid)} for child in children],
    }
    with contextlib.suppress(OSError):  # a full disk must not keep the agent from its start
        places.replace(where.run / FILE_NAME, json.dumps(noted).encode())


def end(on: loop.Loop, where: places.Places, on_ended: Callable[[], None]) -> None:
    """Kill what an earlier keeper noted; called back when it is gone."""
    waited_for = set(_living(where))

    def is_over(pidfd: int, _events: int = 0) -> None:
        if pidfd in waited_for:
            waited_for.discard(pidfd)
            on.unwatch(pidfd)
            os.close(pidfd)
            if not waited_for:
                on_ended()

    def give_up() -> None:
        for pidfd in list(waited_for):
            is_over(pidfd)

    for pidfd in list(waited_for):
        on.watch(pidfd, loop.READ, functools.partial(is_over, pidfd))
    if waited_for:
        on.call_later(WAIT_SECONDS, give_up)
    else:
        on_ended()


def _living(where: places.Places) -> list[int]:
    """Kill those that live; returns their pidfds."""
    killed = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # what cannot be read is none of ours
        noted = json.loads((where.run / FILE_NAME).read_bytes())
        if noted["boot_id"] != processes.boot_id():
            return []
        for each in noted["agents"]:
            pid, started = int(each["pid"]), int(each["start_time"])
            pidfd = processes.open_pidfd(pid, started) if pid > processes.INIT else None
            if pidfd is not None:
                rows = processes.table()  # of a time when the number was still its own
                processes.signal_process(pidfd, signal.SIGKILL)
                for member in (number for number, row in rows.items() if row.group == pid):
                    processes.signal_exactly(member, rows[member].start_time, signal.SIGKILL)
                killed.append(pidfd)
    return killed
