"""What stands between uvicorn and the application: counts requests, announces the end, and ends WebSockets.

Rules kept here: an answer says `Connection: close` as soon as the instance does not accept, unless more of the client's
bytes belong to this connection (the rest of a body, a request sent ahead), for closing would lose them; the application
never sees that it is wrapped; a WebSocket that is ended gets close code 1012, and the application a disconnect with it;
what comes through the probe listener is passed through untouched. Left out: bytes (`asgi_server`).

Source: ASGI 3.0, HTTP and WebSocket message format 2.4; RFC 6455 and IANA for close code 1012, service restart.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from instar_handover import connection

CONNECTION_KEY = "instar.connection"  # in the state that uvicorn copies into each scope
SERVICE_RESTART = 1012

# ASGI's own types: a message is a mapping whose values depend on its "type".
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Carrier(Protocol):
    """What carries a connection, as far as the application's side must know it."""

    made: connection.Connection

    @property
    def has_more_input(self) -> bool:
        """Whether the rest of a body, or another request, has been announced or has arrived."""


class EndedError(OSError):
    """The WebSocket was ended from our side; ASGI has servers raise an OSError for what is sent after the end."""


class Counted:
    """An application under the hand-over protocol.

    Args:
        application: The user's own, ASGI 3.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._sockets: set[_WebSocket] = set()
        self.running_count = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, one WebSocket, or the lifespan."""
        carrier: Carrier | None = scope.get("state", {}).pop(CONNECTION_KEY, None)
        if carrier is None or carrier.made.is_probe:
            await self._application(scope, receive, send)
            return
        self.running_count += 1
        try:
            if scope["type"] == "websocket":
                await self._attend_websocket(carrier.made, scope, receive, send)
            else:
                await self._attend_request(carrier, scope, receive, send)
        finally:
            self.running_count -= 1

    async def end_websockets(self) -> None:
        """Close every WebSocket with 1012; those that are being set up are closed as soon as they are."""
        for each in list(self._sockets):
            await each.end()

    async def _attend_request(self, carrier: Carrier, scope: Message, receive: Receive, send: Send) -> None:
        made = carrier.made
        made.begin()
        is_answered = False

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start" and made.should_close and not carrier.has_more_input:
                message = {**message, "headers": _closing(message.get("headers", []))}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                nonlocal is_answered
                is_answered = True
                made.end()

        try:
            await self._application(scope, receive, send_counted)
        except BaseException:
            if not is_answered:  # else the connection may be in its next request already
                made.forget_request()
            raise
        if not is_answered:  # the client had all that it wanted, and left before the end was said
            made.end()

    async def _attend_websocket(
        self, made: connection.Connection, scope: Message, receive: Receive, send: Send
    ) -> None:
        made.hold()
        opened = _WebSocket(made, send)
        self._sockets.add(opened)
        try:
            await self._application(scope, receive, opened.send)
        except EndedError:  # told so already: the application was still sending
            return
        finally:
            self._sockets.discard(opened)


class _WebSocket:
    """One WebSocket, from its handshake on."""

    def __init__(self, made: connection.Connection, send: Send) -> None:
        self._made = made
        self._send = send
        self._is_accepted = False
        self._is_to_end = False
        self._is_ended = False

    async def send(self, message: Message) -> None:
        """Send what the application says, unless it has been ended."""
        if self._is_ended:
            if message["type"] == "websocket.close":
                return
            raise EndedError("cannot send: the WebSocket was closed, the service restarts")
        await self._send(message)
        if message["type"] == "websocket.accept":
            self._is_accepted = True
            self._made.begin()
            self._made.end()  # served, as far as anybody waits for an answer
            if self._is_to_end:
                await self.end()
        elif message["type"] == "websocket.close":
            self._is_ended = True

    async def end(self) -> None:
        """Close it with 1012, now or once it is accepted."""
        self._is_to_end = True
        if self._is_accepted and not self._is_ended:
            self._is_ended = True
            await self._send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"})


def _closing(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, text) for name, text in headers if name.lower() != b"connection"]
    return [*kept, (b"connection", b"close")]
