"""The component's end of the control socket: answers the keeper's words on the event loop.

Rules kept here: one keeper at a time, a new connection replaces the old one (the newer keeper is the living one); the
loss of the connection changes nothing; a word that cannot be obeyed is answered with its reason and changes nothing; a
word that others must obey too is answered when they have. Left out: what the words do (`service`, `parent`) and when
they are legal (`machine`).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from instar_handover import inheritance, machine, wire

BACKLOG = 4  # keepers that wait to be heard; there is one, and its successor
WORDS_PER_WAKE_MAX = 16  # so that a talkative keeper cannot hold up the requests


Answerer = Callable[[str, Mapping[str, object]], Awaitable[Mapping[str, object]]]


class Served(Protocol):
    """What the control socket moves and reports."""

    def status(self) -> wire.Status:
        """Tell where the instance stands."""

    def look(self) -> asyncio.Future[None] | None:
        """Bring the status up to date; a future where others must be asked first."""

    def move(self, event: machine.Event) -> asyncio.Future[None] | None:
        """Obey, or raise `machine.IllegalEventError` and change nothing; a future where others must obey first."""

    def ask(self, word: str, body: Mapping[str, object]) -> asyncio.Future[Mapping[str, object]]:
        """Give a word with a dot to whom its first part names, or raise `wire.WireError`."""


class Line:
    """One connected control socket.

    Args:
        on_lost: Called when the other end has closed it.
    """

    def __init__(
        self,
        connected: socket.socket,
        served: Served,
        passed_on: Sequence[inheritance.Listener],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = connected
        self._served = served
        self._passed_on = passed_on
        self._on_lost = on_lost
        connected.settimeout(0)
        self._loop.add_reader(connected, self._read)

    def notify(self, word: str) -> None:
        """Say a word unasked."""
        self._send(wire.encode_notice(word, self._served.status()))

    def close(self) -> None:
        """Close it; closed already is fine."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        for _ in range(WORDS_PER_WAKE_MAX):
            if self._socket is None:
                return
            try:
                datagram = self._socket.recv(wire.MESSAGE_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                datagram = b""
            if not datagram:
                self._lose()
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
            if "." in request.word:
                asked = self._served.ask(request.word, request.body)
                asked.add_done_callback(lambda done: self._answer_asked(request_id, done))
                return
            others = self._obey(request.word)
        except (wire.WireError, machine.IllegalEventError) as error:
            self._send(wire.encode_answer(request_id, self._served.status(), error=str(error)))
            return
        if others is None:
            self._send(wire.encode_answer(request_id, self._served.status()))
        else:
            others.add_done_callback(lambda done: self._answer_late(request_id, done))

    def _answer_late(self, request_id: int, done: asyncio.Future[None]) -> None:
        error = "cannot tell: the instance ended meanwhile" if done.cancelled() else str(done.exception() or "")
        self._send(wire.encode_answer(request_id, self._served.status(), error=error))

    def _answer_asked(self, request_id: int, done: asyncio.Future[Mapping[str, object]]) -> None:
        error = "cannot tell: the instance ended meanwhile" if done.cancelled() else str(done.exception() or "")
        body = None if error else done.result()
        self._send(wire.encode_answer(request_id, self._served.status(), error=error, body=body))

    def _obey(self, word: str) -> asyncio.Future[None] | None:
        if word in wire.QUESTIONS:
            return self._served.look()
        event = wire.EVENTS.get(word)
        if event is None:
            raise wire.WireError(f"cannot obey {word!r}: it is no word of protocol {wire.PROTOCOL}")
        return self._served.move(event)

    def _send_listeners(self, request_id: int) -> None:
        names = tuple(listener.name for listener in self._passed_on)
        datagram = wire.encode_answer(request_id, self._served.status(), names=names)
        self._send(datagram, [listener.socket.fileno() for listener in self._passed_on])

    def _send(self, datagram: bytes, descriptors: Sequence[int] = ()) -> None:
        if self._socket is None:
            return
        try:
            if descriptors:
                socket.send_fds(self._socket, [datagram], list(descriptors))
            else:
                self._socket.send(datagram)
        except OSError:  # gone, or does not read: it comes again and asks
            self._lose()

    def _lose(self) -> None:
        self.close()
        self._on_lost()


class Control:
    """A control listener and its one line."""

    def __init__(self, listener: socket.socket, served: Served, passed_on: Sequence[inheritance.Listener]) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._served = served
        self._passed_on = passed_on
        self._line: Line | None = None
        listener.listen(BACKLOG)  # again, so that SO_PEERCRED names this process and not the keeper that bound it
        self._loop.add_reader(listener, self._accept)

    def notify(self, word: str) -> None:
        """Say a word unasked, if somebody listens."""
        if self._line is not None:
            self._line.notify(word)

    def close(self) -> None:
        """Stop answering."""
        if self._line is not None:
            self._line.close()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:  # the keeper gave up between the wake and the call
            return
        if self._line is not None:
            self._line.close()
        self._line = Line(connected, self._served, self._passed_on, on_lost=_nothing)


def _nothing() -> None:
    """Lose a keeper: the next one connects by itself."""
