"""What a process inherits: from the keeper, or, a worker, from its parent; or nothing, started by hand.

The keeper passes listening sockets by name, the probe listener and the control listener. A parent passes the same to
its workers, with one connected socket in the control listener's place.

Rules kept here: descriptors are taken only by the process that they are meant for (LISTEN_PID, or the parent's pid) and
are not passed on to its own children. Left out: what is done with them.

Source: sd_listen_fds(3), whose variables LISTEN_* are; those that begin with INSTAR are our own.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

FIRST_DESCRIPTOR = 3  # of sd_listen_fds(3)
PROBE_NAME = "instar-probe"
WORKER = "INSTAR_WORKER"
OF_THE_KEEPER = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "INSTAR_CONTROL_FD")


class InheritanceError(Exception):
    """The environment promises descriptors that this process cannot take."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and the name that the manifest gives it."""

    name: str
    socket: socket.socket


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The sockets of one process.

    Args:
        probe: The private probe listener; None without a keeper.
        control: Where the keeper connects; None without a keeper, and in a worker.
        parent: Connected to the parent; None but in a worker.
    """

    listeners: tuple[Listener, ...]
    probe: socket.socket | None = None
    control: socket.socket | None = None
    parent: socket.socket | None = None

    @property
    def is_alone(self) -> bool:
        """Whether nobody says when to accept."""
        return self.control is None and self.parent is None


def take(environment: Mapping[str, str]) -> Inheritance | None:
    """Take what was passed on; None for a program that was started by hand.

    Raises:
        InheritanceError: The descriptors are meant for another process, or they and their names do not match.
    """
    if WORKER in environment:
        return _take_as_worker(environment[WORKER])
    if "INSTAR_CONTROL_FD" not in environment:
        return None
    if environment.get("LISTEN_PID") != str(os.getpid()):
        raise InheritanceError(
            f"cannot take the listening sockets: LISTEN_PID is {environment.get('LISTEN_PID')}, this is {os.getpid()};"
            " start the server in the process that the manifest's command starts"
        )
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    if environment.get("LISTEN_FDS") != str(len(names)) or PROBE_NAME not in names:
        raise InheritanceError(f"cannot take the listening sockets: LISTEN_FDS and LISTEN_FDNAMES {names} do not match")
    sockets = {name: _adopt(FIRST_DESCRIPTOR + index) for index, name in enumerate(names)}
    probe = sockets.pop(PROBE_NAME)
    control = _adopt(int(environment["INSTAR_CONTROL_FD"]))
    return Inheritance(tuple(Listener(*item) for item in sockets.items()), probe, control)


def only(inherited: Inheritance, names: Sequence[str]) -> Inheritance:
    """Leave out the listeners that are not named; with no name, leave out none.

    Raises:
        InheritanceError: A name is not among those that were passed on.
    """
    known = {listener.name: listener for listener in inherited.listeners}
    for name in names:
        if name not in known:
            raise InheritanceError(f"cannot serve socket {name!r}: the sockets passed on are {sorted(known)}")
    return replace(inherited, listeners=tuple(known[name] for name in names)) if names else inherited


def pass_on(inherited: Inheritance, parent: socket.socket) -> tuple[dict[str, str], tuple[int, ...]]:
    """Say how a worker of this process takes the same listeners.

    Args:
        inherited: What this process has.
        parent: The worker's end of the connection to this process.

    Returns:
        The worker's environment beside this process's own, and the descriptors that it must inherit as they are.
    """
    named = [[listener.name, listener.socket.fileno()] for listener in inherited.listeners]
    probe = inherited.probe.fileno() if inherited.probe is not None else None
    passed = {"parent_pid": os.getpid(), "listeners": named, "probe": probe, "parent": parent.fileno()}
    descriptors = [parent.fileno(), *(listener.socket.fileno() for listener in inherited.listeners)]
    return {WORKER: json.dumps(passed)}, tuple(descriptors if probe is None else [*descriptors, probe])


def listen(address: str) -> socket.socket:
    """Open a listener of one's own, for a program that was started by hand.

    Args:
        address: "127.0.0.1:8080", "[::1]:8080" or "unix:/path".
    """
    if address.startswith("unix:"):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(address.removeprefix("unix:"))
        listener.listen()
        listener.settimeout(0)
        return listener
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.create_server((host.strip("[]"), int(port)), family=family)
    listener.settimeout(0)
    return listener


def _take_as_worker(passed: str) -> Inheritance:
    told = json.loads(passed)
    if told["parent_pid"] != os.getppid():
        raise InheritanceError(
            f"cannot take the listening sockets: they are for a child of {told['parent_pid']}, not of {os.getppid()}"
        )
    return Inheritance(
        listeners=tuple(Listener(name, _adopt(descriptor)) for name, descriptor in told["listeners"]),
        probe=None if told["probe"] is None else _adopt(told["probe"]),
        parent=_adopt(told["parent"]),
    )


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)  # noqa: FBT003  # the standard library's own order
    adopted = socket.socket(fileno=descriptor)
    adopted.settimeout(0)
    return adopted
