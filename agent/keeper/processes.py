"""Processes as the kernel names them: by pidfd, and for ever by boot id, pid and start time.

Rules kept here: a pid alone is never trusted; what is not our child has no exit code. Left out: starting them
(`spawn`).
"""

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

START_TIME_FIELD = 19  # of /proc/PID/stat, counted after the command's closing bracket


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended; both None for one that was adopted."""

    code: int | None
    signal: int | None


UNKNOWN_EXIT = Exit(None, None)


def boot_id() -> str:
    """Return the id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[START_TIME_FIELD])


def open_pidfd(pid: int, started: int) -> int | None:
    """Open a process that must be the one with this start time; None when it is gone or another has its pid."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if start_time(pid) != started or has_exited(descriptor):
        os.close(descriptor)
        return None
    return descriptor


def has_exited(pidfd: int) -> bool:
    """Whether the process has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def reap(pidfd: int) -> Exit:
    """Take the exit of a process that has ended."""
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # adopted: another parent takes its exit code
        return UNKNOWN_EXIT
    if status is None:
        return UNKNOWN_EXIT
    if status.si_code == os.CLD_EXITED:
        return Exit(status.si_status, None)
    return Exit(None, status.si_status)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal every process of the group that this process leads; an empty group is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
