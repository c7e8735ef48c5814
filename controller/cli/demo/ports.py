"""Ports of the loopback for what is started later.

Rules kept: none is of those that the kernel gives to clients while there are others, so that no connection has it by
the time its server comes up; none is given twice by one process.
Source: ip(7), `ip_local_port_range`.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ALL = range(15_000, 65_536)  # well-known services lie below
_given: set[int] = set()


def free(number: int) -> list[int]:
    """Ports that nobody has, all different.

    Raises:
        OSError: There are not as many.
    """
    first, last = map(int, _OF_CLIENTS.read_text(encoding="ascii").split())
    candidates = [port for port in _ALL if port not in _given]
    random.shuffle(candidates)  # so that two processes that look at once find different ones
    candidates.sort(key=lambda port: first <= port <= last)
    found = list(itertools.islice(filter(_is_free, candidates), number))
    if len(found) < number:
        raise OSError(f"cannot find {number} free ports from {_ALL.start} to {_ALL.stop - 1}: {len(found)} are free")
    _given.update(found)
    return found


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
