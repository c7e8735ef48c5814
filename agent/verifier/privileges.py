"""Takes from the child what it does not need to look at bytes that nobody has checked: every capability.

Rules kept here: what is gone does not come back, by no program that it might run; it keeps its user, whose files it
writes. Left out: limits of memory, time and files, which the keeper sets (`agent.keeper.verify`).

Source: https://man7.org/linux/man-pages/man2/capset.2.html,
https://man7.org/linux/man-pages/man2/PR_SET_NO_NEW_PRIVS.2const.html
"""

from __future__ import annotations

import ctypes
import os

PR_SET_NO_NEW_PRIVS = 38  # from linux/prctl.h
CAPABILITY_VERSION_3 = 0x20080522  # from linux/capability.h: two words for each set
WORDS = 6  # effective, permitted, inheritable; twice


def drop() -> None:
    """Let go of all capabilities.

    Raises:
        OSError: The host does not let it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    for name, *arguments in (
        ("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        ("capset", header, (ctypes.c_uint32 * WORDS)()),
    ):
        if libc[name](*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
