"""A service that keeps the number of each request, one line each, before it answers; SCHEMA says in which file.

As a bundle has it: it takes the listening socket by LISTEN_FDS, serves one connection after the other, and ends after
the one that it has when SIGTERM comes. GET /N is kept, any other path only answered.
"""

import contextlib
import json
import os
import select
import signal
import socket
from pathlib import Path

SCHEMA = int(os.environ["SCHEMA"])
NAMES = {1: "lines.txt", 2: "lines.jsonl"}
LISTENER = 3  # of sd_listen_fds(3)
LOOK_SECONDS = 0.05  # between two looks whether to end
CLIENT_SECONDS = 5.0


class Ledger:
    """The file."""

    def __init__(self, state: Path) -> None:
        strangers = [path.name for path in state.iterdir() if path.name != NAMES[SCHEMA]]
        if strangers:
            raise SystemExit(f"cannot read {strangers}")
        self._descriptor = os.open(state / NAMES[SCHEMA], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def keep(self, number: int) -> None:
        """Write a number down, lastingly."""
        text = f"{number}\n" if SCHEMA == 1 else json.dumps({"n": number}) + "\n"
        os.write(self._descriptor, text.encode())
        os.fdatasync(self._descriptor)

    def serve(self, client: socket.socket) -> None:
        """Answer one request."""
        client.settimeout(CLIENT_SECONDS)
        head = b""
        while b"\r\n\r\n" not in head:
            received = client.recv(4096)
            if not received:
                return
            head += received
        path = head.split()[1].decode()
        if path[1:].isdecimal():
            self.keep(int(path[1:]))
        body = f"{os.environ['INSTAR_VERSION']} {os.getpid()}"
        client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())


def main() -> None:
    """Serve until SIGTERM."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    ledger = Ledger(Path(os.environ["STATE_DIRECTORY"]))
    listener = socket.socket(fileno=LISTENER)
    listener.settimeout(0)
    while not ended:
        if select.select([listener], [], [], LOOK_SECONDS)[0] and not ended:
            with contextlib.suppress(OSError), listener.accept()[0] as client:  # a client that is gone is gone
                ledger.serve(client)


if __name__ == "__main__":
    main()
