"""The listening sockets of the node: opened once, never closed or made again while an instance uses them.

Rules kept here: one name, one address, one socket; taken back from a living component by a new keeper. No
SO_REUSEPORT: its queues lose connections when one of the listeners closes. Left out: who accepts.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import errors

UNIX_PREFIX = "unix:"
LISTENERS_MAX = 64  # of one node; a component has one or two
PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Binding:
    """What a listener is, apart from its descriptor; as records have it."""

    name: str
    address: str
    backlog: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what it is bound to."""

    binding: Binding
    socket: socket.socket


class Listeners:
    """All listeners of the node.

    Args:
        is_in_use: Tells whether a living instance has the listener of this name.
    """

    def __init__(self, is_in_use: Callable[[str], bool]) -> None:
        self._is_in_use = is_in_use
        self._by_name: dict[str, Listener] = {}

    def open(self, name: str, address: str, backlog: int) -> None:
        """Open a listener; the same name and address again is success."""
        known = self._by_name.get(name)
        if known is not None and known.binding.address == address:
            known.socket.listen(backlog)
            return
        if known is not None and self._is_in_use(name):
            rule = f"a living instance uses it at {known.binding.address}"
            raise errors.RequestError("socket_in_use", f"cannot listen for {name} at {address}: {rule}")
        if known is None and len(self._by_name) >= LISTENERS_MAX:
            raise errors.RequestError(
                "too_many", f"cannot listen for {name}: there are {LISTENERS_MAX} listeners already"
            )
        opened = _open(name, address, backlog)
        if known is not None:
            known.socket.close()
        self._by_name[name] = Listener(Binding(name, address, backlog), opened)

    def get(self, name: str) -> Listener:
        """Return the listener.

        Raises:
            errors.RequestError: unknown_socket.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise errors.RequestError("unknown_socket", f"cannot find socket {name}: listen for it first") from None

    def adopt(self, listener: Listener) -> None:
        """Take back a listener that a living component still has; a second copy of one that is here is closed."""
        if listener.binding.name in self._by_name:
            listener.socket.close()
        else:
            listener.socket.settimeout(0)
            self._by_name[listener.binding.name] = listener


def _open(name: str, address: str, backlog: int) -> socket.socket:
    opened: socket.socket | None = None
    try:
        if address.startswith(UNIX_PREFIX):
            path = Path(address.removeprefix(UNIX_PREFIX))
            _remove_stale(path)
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            opened.bind(str(path))
        else:
            host, port = _split(name, address)
            opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((host, port))
        opened.listen(backlog)
        opened.settimeout(0)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise errors.RequestError(
            "listen_failed", f"cannot listen for {name} at {address}: {error.strerror}"
        ) from error
    return opened


def _split(name: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        rule = 'it must be like "127.0.0.1:8080", "[::1]:8080" or "unix:/path"'
        raise errors.RequestError("invalid_request", f"cannot take address {address!r} for {name}: {rule}")
    return host.strip("[]"), int(port)


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody listens on any more."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(0)
            try:
                caller.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
