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
INIT = 1
PID_MAX = 1 << 22  # PID_MAX_LIMIT of Linux
ENVIRONMENT_MAX_BYTES = 1 << 20  # of a process that is asked whose it is


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


@dataclass(frozen=True, slots=True)
class Row:
    """A process as /proc/PID/stat shows it; a zombie has ended."""

    parent: int
    group: int
    session: int
    start_time: int
    is_zombie: bool


def table() -> dict[int, Row]:
    """Return every process of the host, by pid."""
    rows = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # paths of hundreds of processes would cost more than the look
        if name.isdecimal():
            with contextlib.suppress(OSError):
                rows[int(name)] = _row(int(name))
    return rows


def _row(pid: int) -> Row:
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  # as above
        state, parent, group, session, *more = file.read().rpartition(b")")[2].split(maxsplit=START_TIME_FIELD + 1)
    return Row(int(parent), int(group), int(session), int(more[START_TIME_FIELD - 4]), state == b"Z")


def has_variable(pid: int, variable: str) -> bool:
    """Whether a process was started with this variable, "NAME=value", in its environment; no variable fits none."""
    name, _, value = variable.partition("=")
    if not name or not value:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123  # as above
            return os.fsencode(variable) in file.read(ENVIRONMENT_MAX_BYTES).split(b"\0")
    except OSError:
        return False


def descendants(rows: dict[int, Row], pid: int) -> set[int]:
    """Return a process and everything that it has started and that is still below it."""
    found = {pid} & rows.keys()
    size = 0
    while len(found) > size:
        size = len(found)
        found |= {each for each, row in rows.items() if row.parent in found}
    return found


def user_of(pid: int) -> int | None:
    """Return the effective user of a process; None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[2]) for line in lines if line.startswith("Uid:")), None)


def cgroup_mount() -> str | None:
    """Return where the hierarchy of cgroup version 2 is mounted; None where it is not."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return where
    return None


def own_cgroups() -> list[str]:
    """Return the lines that say which cgroups this process is in."""
    return Path("/proc/self/cgroup").read_text().splitlines()


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


def exit_of(pidfd: int) -> Exit:
    """Tell how a process has ended; until `reap` nobody else gets its number."""
    return _wait(pidfd, os.WNOWAIT)


def reap(pidfd: int) -> Exit:
    """Take the exit of a process that has ended; from then on its number may be another's."""
    return _wait(pidfd, 0)


def _wait(pidfd: int, options: int) -> Exit:
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | options)
    except ChildProcessError:  # adopted: another parent takes its exit code
        return UNKNOWN_EXIT
    if status is None:
        return UNKNOWN_EXIT
    if status.si_code == os.CLD_EXITED:
        return Exit(status.si_status, None)
    return Exit(None, status.si_status)


def signal_process(pidfd: int, number: signal.Signals) -> None:
    """Signal one process; one that has ended is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, number)


def signal_exactly(pid: int, started: int, number: signal.Signals) -> None:
    """Signal the process with this start time; nothing where it has ended, whoever has its number now."""
    pidfd = open_pidfd(pid, started) if pid > INIT else None
    if pidfd is not None:
        signal_process(pidfd, number)
        os.close(pidfd)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal every process of the group that a child leads whose exit has not been taken; an empty group is fine.

    Numbers that stand for more than one group, or for the keeper's own, are nobody's.
    """
    if pid <= INIT or pid == os.getpgrp():
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
