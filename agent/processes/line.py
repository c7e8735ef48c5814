"""The connection to the keeper's socket: newline-delimited JSON both ways; answers find their request by id.

Rules kept: every request has a deadline; when the connection is lost every waiting request fails with code
``keeper_gone``. Left out: what is asked, and what the answers mean.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agent.processes.results import InstanceEvent, InstanceState, KeeperError, instance

EVENTS_MAX = 256  # instances change a few times per operation; more than this is a reader that is gone
LINE_MAX_BYTES = 1 << 20  # an inspection of 64 instances is about 40 KiB


class Line(asyncio.Protocol):
    """Newline-delimited JSON both ways; answers find their request by id."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[InstanceEvent] = asyncio.Queue(EVENTS_MAX)
        self.closed = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  # a Unix stream always is
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take whole lines; a line that never ends is hung up on."""
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            self._take(json.loads(line))
        if len(self._buffer) > LINE_MAX_BYTES:
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail every request that waits."""
        self._transport = None
        self.closed.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(KeeperError("keeper_gone", f"cannot go on: the keeper hung up ({exc})"))

    def hang_up(self) -> None:
        """End the connection now; ending it twice is success."""
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, verb: str, body: Mapping[str, object], within: timedelta) -> dict[str, Any]:
        """Send a request and return the answer to it.

        Raises:
            KeeperError: The keeper's refusal, or ``keeper_gone`` or ``keeper_timeout``.
        """
        if self._transport is None:
            raise KeeperError("keeper_gone", f"cannot ask {verb}: the keeper hung up")
        self._last_id += 1
        request_id = self._last_id
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        self._transport.write(json.dumps({"id": request_id, "do": verb, **body}).encode() + b"\n")
        try:
            async with asyncio.timeout(within.total_seconds()):
                return await future
        except TimeoutError as error:
            raise KeeperError("keeper_timeout", f"cannot wait for {verb} longer than {within}") from error
        finally:
            del self._pending[request_id]

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._put(InstanceEvent(instance(message["instance"]), InstanceState(message["was"])))
            return
        future = self._pending.get(message["id"])
        if future is None or future.done():
            return
        error = message.get("error")
        if error is None:
            future.set_result(message["ok"])
        else:
            future.set_exception(KeeperError(error["code"], error["message"]))

    def _put(self, event: InstanceEvent) -> None:
        if self.events.full():
            self.events.get_nowait()
        self.events.put_nowait(event)
