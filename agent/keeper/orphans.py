"""Takes the exits of processes that became the keeper's children because their parents ended.

Rules kept here: a process whose end somebody waits for is never taken from him: only one that has been a zombie over a
whole round of the loop has nobody. Left out: ending what runs (`groups`).

Source: PR_SET_CHILD_SUBREAPER in prctl(2): it is not inherited over fork, and preserved over execve.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from agent.keeper import loop

PR_SET_CHILD_SUBREAPER = 36
MARK = "INSTAR_KEEPER_SUBREAPER"  # in the environment: the pid that has become one
SWEEP_SECONDS = 1.0  # whoever waits for a child has taken its exit by then


class Orphans:
    """Reaps what nobody waits for.

    Args:
        is_waited_for: Whether somebody will take the exit of a process, however late.
    """

    def __init__(self, on: loop.Loop, is_waited_for: Callable[[int], bool]) -> None:
        self._loop = on
        self._is_waited_for = is_waited_for
        self._seen: set[int] = set()
        self._is_due = False

    def on_child(self) -> None:
        """A child has ended, perhaps one that nobody waits for."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._is_due = False
        zombies = {pid for pid in _children() if _is_zombie(pid) and not self._is_waited_for(pid)}
        for pid in zombies & self._seen:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = zombies - self._seen
        if self._seen:
            self.on_child()


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends; this image is executed again to shed the cost.

    The call needs ctypes, which would stay with the keeper for good at more than a MiB.
    """
    if os.environ.get(MARK) == str(os.getpid()):
        return
    import ctypes  # noqa: PLC0415  # see above

    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        os.environ[MARK] = str(os.getpid())
        os.execv(sys.executable, sys.orig_argv)


def _children() -> list[int]:
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:  # a kernel without it keeps its zombies
        return []
    return [int(pid) for pid in text.split()]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
