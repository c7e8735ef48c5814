"""What a component inherits from the keeper: listening sockets by name, the probe listener, the control listener.

Rules kept here: descriptors are taken only by the process that they are meant for (LISTEN_PID) and are not passed on to
its own children. Left out: what is done with them.

Source: sd_listen_fds(3), whose variables these are; INSTAR_CONTROL_FD is our own.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_DESCRIPTOR = 3  # of sd_listen_fds(3)
PROBE_NAME = "instar-probe"


class InheritanceError(Exception):
    """The environment promises descriptors that this process cannot take."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and the name that the manifest gives it."""

    name: str
    socket: socket.socket


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The sockets of one instance."""

    listeners: tuple[Listener, ...]
    probe: socket.socket
    control: socket.socket


def take(environment: Mapping[str, str]) -> Inheritance | None:
    """Take what the keeper passed on; None for a program that was started by hand.

    Raises:
        InheritanceError: The descriptors are meant for another process, or they and their names do not match.
    """
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


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)  # noqa: FBT003  # the standard library's own order
    adopted = socket.socket(fileno=descriptor)
    adopted.settimeout(0)
    return adopted
