"""The gate before a listening socket: open, it accepts; shut, it leaves the connections to whoever shares the socket.

Rules kept here: shutting takes effect before the call returns and never touches the listener itself. Left out: what is
done with an accepted connection.
"""

import asyncio
import socket
from collections.abc import Callable

from instar_handover import inheritance

ACCEPTS_PER_WAKE_MAX = 16  # so that a burst starves neither the open connections nor the other instance
RETRY_SECONDS = 0.1  # after accept failed for want of descriptors or memory


class Gate:
    """Accepts from one listener while it is open."""

    def __init__(self, listener: inheritance.Listener, on_accept: Callable[[socket.socket, str], None]) -> None:
        self.listener = listener
        self._loop = asyncio.get_running_loop()
        self._on_accept = on_accept
        self._is_open = False

    def open(self) -> None:
        """Accept from now on; open already is fine."""
        if not self._is_open:
            self._is_open = True
            self._loop.add_reader(self.listener.socket, self._accept)

    def shut(self) -> None:
        """Accept no more; shut already is fine."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self.listener.socket)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE_MAX):
            try:
                accepted, _ = self.listener.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another instance was quicker
                return
            except OSError as error:
                self._rest(error)
                return
            accepted.settimeout(0)
            self._on_accept(accepted, self.listener.name)

    def _rest(self, error: OSError) -> None:
        """Leave the listener alone for a moment: it stays readable, and the loop would spin."""
        self._loop.call_exception_handler({"message": f"cannot accept on {self.listener.name}", "exception": error})
        self.shut()
        self._is_open = True
        self._loop.call_later(RETRY_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if self._is_open:
            self._loop.add_reader(self.listener.socket, self._accept)
