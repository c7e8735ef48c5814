"""A wire to PostgreSQL that breaks where a test wants it to: just around a commit."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

BEFORE = "before"  # the server never gets it
SENT = "sent"  # the server gets it, nobody waits for its answer
BEHIND = "behind"  # the server has answered, and nobody hears it
_COMMIT = b"COMMIT\0"
_BYTES = 65_536


class Wire:
    """Listens on loopback, and passes on what it gets."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._breaks: str | None = None
        self.broken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def break_at_commit(self, at: str) -> None:
        """Break at the next one, once."""
        self._breaks = at

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            socket.create_connection(("127.0.0.1", self._server)) as server,
            selectors.DefaultSelector() as both,
        ):
            both.register(client, selectors.EVENT_READ, server)
            both.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while all(self._pass_on(each, client) for each, _ in both.select()):
                    pass

    def _pass_on(self, ready: selectors.SelectorKey, client: socket.socket) -> bool:
        source, other = ready.fileobj, ready.data
        assert isinstance(source, socket.socket)
        said = source.recv(_BYTES)
        at = self._breaks if source is client and _COMMIT in said else None
        if at is None:
            other.sendall(said)
            return bool(said)
        self._breaks, self.broken = None, self.broken + 1
        if at != BEFORE:
            other.sendall(said)
        if at == BEHIND:
            other.recv(_BYTES)
        return False
