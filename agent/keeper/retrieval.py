"""Takes the listeners of a living process that cannot hand them over by itself.

Rules kept here: only a listening socket at the very address of a binding is taken; it is done in a child, for the call
needs ctypes; whatever the host forbids, the answer comes within a bound. Left out: components that speak the hand-over
protocol, which are asked.

Source: pidfd_getfd(2); it needs the right to trace the process.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.keeper import listeners, loop, processes, spawn

PIDFD_GETFD = 438  # on every architecture
DESCRIPTORS_MAX = 1024  # of one process that are looked at; listeners are among the first
MESSAGE_MAX_BYTES = 16 << 10
ANSWER_SECONDS = 3.0

OnDone = Callable[[Sequence[listeners.Listener]], None]


def retrieve(on: loop.Loop, pid: int, bindings: Sequence[listeners.Binding], on_done: OnDone) -> None:
    """Take the listeners of these bindings from a process; those that cannot be had are left out."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.settimeout(0)

    def send() -> dict[str, str]:
        found = _find(pid, bindings)
        if found:
            answers = socket.socket(fileno=spawn.FIRST_DESCRIPTOR)
            socket.send_fds(answers, ["\n".join(found).encode()], [each.fileno() for each in found.values()])
        return {}

    try:
        spawned = spawn.spawn(spawn.Program((), {}, Path("/"), descriptors=(there.fileno(),), check=send))
    except OSError:
        here.close()
        on_done(())
        return
    finally:
        there.close()
    limit = on.call_later(ANSWER_SECONDS, lambda: processes.signal_group(spawned.pid, signal.SIGKILL))

    def on_exit(_: int) -> None:
        limit.cancel()
        on.unwatch(spawned.pidfd)
        processes.reap(spawned.pidfd)
        os.close(spawned.pidfd)
        os.close(spawned.report)
        with here:
            on_done(_receive(here, bindings))

    on.watch(spawned.pidfd, loop.READ, on_exit)


def _receive(here: socket.socket, bindings: Sequence[listeners.Binding]) -> list[listeners.Listener]:
    try:
        names, descriptors, _, _ = socket.recv_fds(
            here, MESSAGE_MAX_BYTES, listeners.LISTENERS_MAX, socket.MSG_CMSG_CLOEXEC
        )
    except OSError:
        return []
    by_name = {binding.name: binding for binding in bindings}
    taken = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    return [
        listeners.Listener(by_name[name], each)
        for name, each in zip(names.decode().split("\n"), taken, strict=False)
        if name in by_name
    ]


def _find(pid: int, bindings: Sequence[listeners.Binding]) -> dict[str, socket.socket]:
    """Run in the child: look through the descriptors of the process."""
    import ctypes  # noqa: PLC0415  # only the forked child pays for it

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    pidfd = os.pidfd_open(pid)
    wanted = {binding.reachable: binding.name for binding in bindings}
    found: dict[str, socket.socket] = {}
    for number in sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))[:DESCRIPTORS_MAX]:  # noqa: PTH208  # numbers
        if len(found) == len(wanted) or not _is_socket(pid, number):
            continue
        descriptor = syscall(PIDFD_GETFD, pidfd, number, 0)
        if descriptor < 0:
            continue
        taken = socket.socket(fileno=descriptor)
        name = wanted.get(_address(taken))
        if name is not None and name not in found:
            found[name] = taken
    return found


def _is_socket(pid: int, number: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")  # noqa: PTH115  # it names no file
    except OSError:
        return False


def _address(taken: socket.socket) -> str:
    """Write the address of a listening socket as bindings have it; empty for any other."""
    if not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return ""
    name = taken.getsockname()
    if taken.family == socket.AF_UNIX:
        return f"{listeners.UNIX_PREFIX}{os.fsdecode(name)}"
    return f"[{name[0]}]:{name[1]}" if taken.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
