"""The listening sockets of the node: opened once, never closed or made again while an instance uses them.

Rules kept here: one name, one address, one socket; taken back from a living component by a new keeper. No
SO_REUSEPORT: its queues lose connections when one of the listeners closes. Left out: who accepts.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import errors

UNIX_PREFIX = "unix:"
LISTENERS_MAX = 64  # of one node; a component has one or two
PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Binding:
    """What a listener is, apart from its descriptor; as records have it.

    Args:
        address: As it was asked for, perhaps with port 0.
        bound: As it was found free; empty where that is the same.
    """

    name: str
    address: str
    backlog: int
    bound: str = ""

    @property
    def reachable(self) -> str:
        """The address that clients use."""
        return self.bound or self.address


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what it is bound to."""

    binding: Binding
    socket: socket.socket


class Listeners:
    """All listeners of the node.

    Args:
        is_in_use: Tells whether a living instance has the listener of this name.
        on_close: Told before a listener is closed.
    """

    def __init__(self, is_in_use: Callable[[str], bool], on_close: Callable[[str], None]) -> None:
        self._is_in_use = is_in_use
        self._on_close = on_close
        self._by_name: dict[str, Listener] = {}

    def open(self, name: str, address: str, backlog: int) -> Binding:
        """Open a listener; the same name and address again is success."""
        known = self._by_name.get(name)
        if known is not None and _is_same(known.binding, address):
            known.socket.listen(backlog)
            return known.binding
        if known is not None and self._is_in_use(name):
            rule = f"a living instance uses it at {known.binding.address}"
            raise errors.RequestError("socket_in_use", f"cannot listen for {name} at {address}: {rule}")
        if known is None and len(self._by_name) >= LISTENERS_MAX:
            raise errors.RequestError(
                "too_many", f"cannot listen for {name}: there are {LISTENERS_MAX} listeners already"
            )
        opened = _open(name, address, backlog)
        if known is not None:
            self._on_close(name)
            known.socket.close()
        self._by_name[name] = Listener(Binding(name, address, backlog, _bound(opened, address)), opened)
        return self._by_name[name].binding

    def reopen(self, binding: Binding) -> None:
        """Open what a record names, at the address that it was found at, unless it is open."""
        if binding.name not in self._by_name:
            opened = _open(binding.name, binding.reachable, binding.backlog)
            self._by_name[binding.name] = Listener(binding, opened)

    def close(self, name: str) -> None:
        """Close a listener; one that is unknown is success.

        Raises:
            errors.RequestError: socket_in_use.
        """
        if self._is_in_use(name):
            raise errors.RequestError("socket_in_use", f"cannot close socket {name}: a living instance uses it")
        self._on_close(name)
        known = self._by_name.pop(name, None)
        if known is None:
            return
        known.socket.close()
        if known.binding.address.startswith(UNIX_PREFIX):
            Path(known.binding.address.removeprefix(UNIX_PREFIX)).unlink(missing_ok=True)

    def get(self, name: str) -> Listener:
        """Return the listener.

        Raises:
            errors.RequestError: unknown_socket.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise errors.RequestError("unknown_socket", f"cannot find socket {name}: listen for it first") from None

    def all(self) -> Iterable[Listener]:
        """Every listener that is open."""
        return self._by_name.values()

    def adopt(self, listener: Listener) -> None:
        """Take back a listener that a living component still has; a second copy of one that is here is closed."""
        if listener.binding.name in self._by_name:
            listener.socket.close()
        else:
            listener.socket.settimeout(0)
            self._by_name[listener.binding.name] = listener


def _is_same(binding: Binding, address: str) -> bool:
    if address in (binding.address, binding.bound):
        return True
    host, _, port = address.rpartition(":")
    return port == "0" and bool(binding.bound) and binding.bound.rpartition(":")[0] == host


def _bound(opened: socket.socket, address: str) -> str:
    """Return the address with the port that was found free; empty where it asked for a certain one."""
    host, _, port = address.rpartition(":")
    return f"{host}:{opened.getsockname()[1]}" if port == "0" and not address.startswith(UNIX_PREFIX) else ""


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
