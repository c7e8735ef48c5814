"""The keeper's own socket: clients, lines, requests and answers.

Rules kept here: a client is root, the keeper's own user or the agent's, or is hung up on; lines, clients and unsent
answers are bounded; a request that cannot be done is answered with its code, and a client that does not read is hung up
on. Left out: what the verbs do (`verbs`).
"""

import json
import math
import os
import socket
from collections.abc import Callable

from agent.keeper import control, errors, fields, loop

CLIENTS_MAX = 32  # the agent, and commands that people run
BACKLOG = 16
LINE_MAX_BYTES = 256 << 10  # a command of 256 words of 4 KiB does not fit, and is none
UNSENT_MAX_BYTES = 1 << 20  # of one client
READ_BYTES = 64 << 10

Handler = Callable[["Client", fields.Body, "Reply"], None]


class Reply:
    """The one answer to one request."""

    def __init__(self, client: "Client", request_id: object) -> None:
        self._client = client
        self._request_id = request_id

    def ok(self, body: fields.Body) -> None:
        """Answer with what was asked for."""
        self._client.answer({"id": self._request_id, "ok": body})

    def error(self, refusal: errors.RequestError) -> None:
        """Answer why not."""
        self._client.answer({"id": self._request_id, "error": {"code": refusal.code, "message": refusal.message}})


class Client:
    """One connection.

    Args:
        on_request: Called with each request.
        on_gone: Called once, when the connection is over.
    """

    def __init__(
        self, on: loop.Loop, connected: socket.socket, on_request: Handler, on_gone: Callable[["Client"], None]
    ) -> None:
        self.is_agent = False
        self.is_watching = False
        self.heard_at_monotonic = on.now()
        self.unanswered = 0
        self._loop = on
        self._socket: socket.socket | None = connected
        self._on_request = on_request
        self._on_gone = on_gone
        self._received = bytearray()
        self._unsent = bytearray()
        on.watch(connected.fileno(), loop.READ, self._on_event)

    def answer(self, body: fields.Body) -> None:
        """Send the answer to a request."""
        self.unanswered -= 1
        self.send(body)

    def image(self) -> fields.Body | None:
        """Describe the connection to the next image of this keeper; None when it is over."""
        if self._socket is None:
            return None
        return {
            "descriptor": self._socket.fileno(),
            "is_agent": self.is_agent,
            "is_watching": self.is_watching,
            "received": self._received.decode("latin-1"),
            "unsent": self._unsent.decode("latin-1"),
        }

    def go_on(self, image: fields.Body) -> None:
        """Take up what the image before this one had read and not sent."""
        self.is_agent, self.is_watching = image["is_agent"] is True, image["is_watching"] is True
        self._received += str(image["received"]).encode("latin-1")
        self._unsent += str(image["unsent"]).encode("latin-1")
        self._flush()

    def send(self, body: fields.Body) -> None:
        """Send a line; to a client that has gone it goes nowhere."""
        if self._socket is None:
            return
        self._unsent += json.dumps(body).encode() + b"\n"
        self._flush()

    def hang_up(self) -> None:
        """End the connection."""
        if self._socket is None:
            return
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._on_gone(self)

    def _on_event(self, events: int) -> None:
        if events & loop.WRITE:
            self._flush()
        if events & ~loop.WRITE:
            self._read()

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            chunk = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._received += chunk
        *lines, rest = self._received.split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            self._take(bytes(line))
        if not chunk or len(self._received) > LINE_MAX_BYTES:
            self.hang_up()

    def _take(self, line: bytes) -> None:
        self.unanswered += 1
        self.heard_at_monotonic = self._loop.now()
        reply = Reply(self, None)
        try:
            body = fields.parse(line)
            reply = Reply(self, body.get("id"))
            self._on_request(self, body, reply)
        except errors.RequestError as refusal:
            reply.error(refusal)

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._unsent) if self._unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.hang_up()
            return
        del self._unsent[:sent]
        if len(self._unsent) > UNSENT_MAX_BYTES:
            self.hang_up()
            return
        mask = loop.READ | loop.WRITE if self._unsent else loop.READ
        self._loop.watch(self._socket.fileno(), mask, self._on_event)


class Clients:
    """Everybody who is connected.

    Args:
        on_agent_gone: Called when the last attached client has gone.
        agent_uid: The agent's user; None where it is the keeper's own.
    """

    def __init__(self, on: loop.Loop, on_agent_gone: Callable[[], None], agent_uid: int | None) -> None:
        self._loop = on
        self._on_agent_gone = on_agent_gone
        self._agent_uid = agent_uid
        self._clients: set[Client] = set()
        self._listener: socket.socket | None = None

    def listen(self, path: str, on_request: Handler) -> None:
        """Take clients from now on."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        if self._agent_uid is not None:
            os.chown(path, self._agent_uid, -1)
        listener.listen(BACKLOG)
        self.listen_on(listener, on_request)

    def listen_on(self, listener: socket.socket, on_request: Handler) -> None:
        """Take clients from a socket that listens already."""
        listener.settimeout(0)
        self._listener = listener
        self._loop.watch(listener.fileno(), loop.READ, lambda _: self._accept(listener, on_request))

    def images(self) -> tuple[int, list[fields.Body]]:
        """Describe the listener and all connections to the next image of this keeper."""
        assert self._listener is not None  # noqa: S101  # whoever asks came through it
        return self._listener.fileno(), [image for client in self._clients if (image := client.image()) is not None]

    def adopt(self, connected: socket.socket, on_request: Handler) -> Client:
        """Go on with a connection of the image before this one."""
        adopted = Client(self._loop, connected, on_request, self._on_gone)
        self._clients.add(adopted)
        return adopted

    def are_waiting(self, but: Client) -> bool:
        """Whether anybody waits for an answer beside one, who waits for one alone."""
        return any(client.unanswered > (1 if client is but else 0) for client in self._clients)

    def is_agent_attached(self) -> bool:
        """Whether a client that said attach is connected."""
        return any(client.is_agent for client in self._clients)

    def agent_silence_seconds(self) -> float:
        """For how long no attached client has asked for anything; without end when there is none."""
        heard = [client.heard_at_monotonic for client in self._clients if client.is_agent]
        return self._loop.now() - max(heard) if heard else math.inf

    def tell(self, event: fields.Body) -> None:
        """Send an event to everybody who watches."""
        for client in list(self._clients):
            if client.is_watching:
                client.send(event)

    def _accept(self, listener: socket.socket, on_request: Handler) -> None:
        try:
            connected, _ = listener.accept()
        except OSError:
            return
        connected.settimeout(0)
        peer = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, control.PEER.size)
        _, uid, _ = control.PEER.unpack(peer)
        if uid not in (0, os.geteuid(), self._agent_uid) or len(self._clients) >= CLIENTS_MAX:
            connected.close()
            return
        self._clients.add(Client(self._loop, connected, on_request, self._on_gone))

    def _on_gone(self, client: Client) -> None:
        self._clients.discard(client)
        if client.is_agent and not self.is_agent_attached():
            self._on_agent_gone()
