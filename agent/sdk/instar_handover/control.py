"""The component's end of the control socket: answers the keeper's words on the event loop.

Rules kept here: one keeper at a time, a new connection replaces the old one (the newer keeper is the living one); the
loss of the connection changes nothing; a word that cannot be obeyed is answered with its reason and changes nothing.
Left out: what the words do (`asyncio_server`) and when they are legal (`machine`).
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

from instar_handover import inheritance, machine, wire

BACKLOG = 4  # keepers that wait to be heard; there is one, and its successor
WORDS_PER_WAKE_MAX = 16  # so that a talkative keeper cannot hold up the requests


class Served(Protocol):
    """What the control socket moves and reports."""

    def status(self) -> wire.Status:
        """Tell where the instance stands."""

    def move(self, event: machine.Event) -> None:
        """Obey, or raise `machine.IllegalEventError` and change nothing."""


class Control:
    """A control listener and its one connection."""

    def __init__(self, listener: socket.socket, served: Served, passed_on: Sequence[inheritance.Listener]) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._served = served
        self._passed_on = passed_on
        self._connection: socket.socket | None = None
        listener.listen(BACKLOG)  # again, so that SO_PEERCRED names this process and not the keeper that bound it
        self._loop.add_reader(listener, self._accept)

    def notify(self, word: str) -> None:
        """Say a word unasked, if somebody listens."""
        self._send(wire.encode_notice(word, self._served.status()))

    def close(self) -> None:
        """Stop answering."""
        self._hang_up()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the keeper gave up between the wake and the call
            return
        self._hang_up()
        connection.settimeout(0)
        self._connection = connection
        self._loop.add_reader(connection, self._read)

    def _read(self) -> None:
        for _ in range(WORDS_PER_WAKE_MAX):
            if self._connection is None:
                return
            try:
                datagram = self._connection.recv(wire.MESSAGE_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                datagram = b""
            if not datagram:
                self._hang_up()
                return
            self._answer(datagram)

    def _answer(self, datagram: bytes) -> None:
        request_id = 0
        try:
            request = wire.decode_request(datagram)
            request_id = request.id
            if request.word == "listeners":
                self._send_listeners(request_id)
                return
            self._obey(request.word)
        except (wire.WireError, machine.IllegalEventError) as error:
            self._send(wire.encode_answer(request_id, self._served.status(), error=str(error)))
        else:
            self._send(wire.encode_answer(request_id, self._served.status()))

    def _obey(self, word: str) -> None:
        if word in wire.QUESTIONS:
            return
        event = wire.EVENTS.get(word)
        if event is None:
            raise wire.WireError(f"cannot obey {word!r}: it is no word of protocol {wire.PROTOCOL}")
        self._served.move(event)

    def _send_listeners(self, request_id: int) -> None:
        names = tuple(listener.name for listener in self._passed_on)
        datagram = wire.encode_answer(request_id, self._served.status(), names=names)
        self._send(datagram, [listener.socket.fileno() for listener in self._passed_on])

    def _send(self, datagram: bytes, descriptors: Sequence[int] = ()) -> None:
        if self._connection is None:
            return
        try:
            if descriptors:
                socket.send_fds(self._connection, [datagram], list(descriptors))
            else:
                self._connection.send(datagram)
        except OSError:  # gone, or does not read: it comes again and asks
            self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is None:
            return
        self._loop.remove_reader(self._connection)
        self._connection.close()
        self._connection = None
