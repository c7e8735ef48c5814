"""One accepted connection: whether it is idle, whether its next answer must be its last, and how it is closed.

Rules kept here: bytes that have arrived and are not answered yet make it busy, also those that still lie in the kernel
or in TLS, so an idle close never meets a request that has arrived; a connection that is not set up yet is busy. Left
out: who accepts, what is spoken, and when to drain.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass

LINGER_SECONDS = 1.0  # for the client's goodbye in TLS, once it has every byte; pools of idle connections never say it
RECEIVED = struct.Struct("Q")
RECEIVED_AT_BYTES = 128  # tcpi_bytes_received in struct tcp_info, linux/tcp.h


@dataclass(slots=True)
class Counters:
    """What an instance counts; probes are left out.

    Args:
        served: Requests answered since the process began.
        in_flight: Requests begun and not yet answered.
    """

    served: int = 0
    in_flight: int = 0


class Connection:
    """What the component's handler is given beside reader and writer.

    Args:
        listener: Name of the listening socket that it came through.
        is_probe: It came through the private probe listener: never asked to close, counted nowhere.
    """

    def __init__(
        self, sock: socket.socket, listener: str, counters: Counters, is_closing: Callable[[], bool], *, is_probe: bool
    ) -> None:
        self.listener = listener
        self.is_probe = is_probe
        self.socket = sock
        self._loop = asyncio.get_running_loop()
        self._counters = counters
        self._is_closing = is_closing
        self._is_in_request = False
        self._is_held = False
        self._has_unanswered_bytes = False
        self._is_tls = False
        self._answered_bytes = 0
        self._quiet_since = self._loop.time()
        self._closing_since: float | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def should_close(self) -> bool:
        """Whether the next answer must carry `Connection: close` and be the last on this connection."""
        return not self.is_probe and self._is_closing()

    def begin(self) -> None:
        """A request has begun."""
        if not self._is_in_request:
            self._is_in_request = True
            self._counters.in_flight += 1

    def end(self) -> None:
        """Its answer has been written."""
        if self._is_in_request:
            self._is_in_request = False
            self._has_unanswered_bytes = False
            self._note_quiet()
            self._counters.in_flight -= 1
            self._counters.served += 1

    def forget_request(self) -> None:
        """The request under way, if there is one, will never be answered."""
        if self._is_in_request:
            self._is_in_request = False
            self._counters.in_flight -= 1

    def hold(self) -> None:
        """From now on it is never idle: what it carries ends by itself."""
        self._is_held = True

    def attach(self, transport: asyncio.Transport) -> None:
        """It is set up, TLS included."""
        self._transport = transport
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._note_quiet()

    def note_bytes(self) -> None:
        """Bytes have arrived."""
        self._has_unanswered_bytes = True

    def close_if_idle(self, now: float, quiet_from: float, grace_seconds: float) -> None:
        """Close it when it has been quiet for the grace time, counted from `quiet_from` at the earliest."""
        if self._transport is None:
            return
        if self._transport.is_closing():
            self._stop_lingering(now, self._transport)
            return
        is_idle = not self._is_in_request and not self._has_unanswered_bytes and not self._is_held
        is_quiet = is_idle and now - max(self._quiet_since, quiet_from) >= grace_seconds
        if is_quiet and not self._has_bytes_in_kernel() and not self._has_part_of_a_record():
            self.hang_up()

    def hang_up(self) -> None:
        """Close it now; what was written is still sent, and the handler reads the end of the stream."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def _note_quiet(self) -> None:
        self._quiet_since = self._loop.time()
        if self._is_tls:
            self._answered_bytes = _received_bytes(self.socket)

    def _stop_lingering(self, now: float, transport: asyncio.Transport) -> None:
        """End a connection that waits for nothing but the client's goodbye."""
        if self._closing_since is None:
            self._closing_since = now
        if now - self._closing_since >= LINGER_SECONDS and _unsent_bytes(self.socket) == 0:
            transport.abort()

    def _has_part_of_a_record(self) -> bool:
        """Whether a part of a TLS record waits for its rest: OpenSSL holds it, and tells nobody."""
        return self._is_tls and _received_bytes(self.socket) != self._answered_bytes

    def _has_bytes_in_kernel(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False


def _received_bytes(sock: socket.socket) -> int:
    """How many bytes have come through a TCP connection; 0 where that cannot be told, as for a Unix socket."""
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RECEIVED_AT_BYTES + RECEIVED.size)
        count: int
        (count,) = RECEIVED.unpack_from(told, RECEIVED_AT_BYTES)
    except (OSError, struct.error):
        return 0
    return count


def _unsent_bytes(sock: socket.socket) -> int:
    """How many bytes the client's kernel has not acknowledged."""
    try:
        count: int
        (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))
    except (OSError, ValueError):  # closed already
        return 0
    return count
