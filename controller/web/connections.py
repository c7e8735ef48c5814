"""The connections of the web side: how many are taken, from whom, and for how long.

Rules kept here: each connection has a place from the moment it is taken, handshake included, until it is gone; one
address never has all places; a connection has to come to terms, say its headers and be answered, each in time, and is
cut when its time is over, whatever the peer does; what strangers do fills no log. Left out: what is answered
(`application`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Never

import h11
import uvicorn
from uvicorn import server
from uvicorn.protocols.http import h11_impl

ANSWERED_MAX = 64  # at once, of a megabyte each; more are told to come later
PLACES_MAX = 2 * ANSWERED_MAX  # of those that are answered or told so; more are closed without a word
PLACES_PER_ADDRESS_MAX = 48  # so that three quarters of all who are answered may come through one proxy, and not all
HANDSHAKE_SECONDS = 5.0  # of TLS
HEADERS_SECONDS = 10.0  # from the connection, or the handshake, to the end of the headers
AGE_SECONDS_MAX = 60.0  # of a connection, which is for one request
FAREWELL_SECONDS = 1.0  # for the peer's part of the end of TLS
PAUSE_SECONDS = 0.1  # where no connection can be taken, since the process has no descriptors left
_logger = logging.getLogger(__name__)


class Protocol(h11_impl.H11Protocol):
    """One that does not wait for headers for ever, and says when its connection is gone."""

    def __init__(self, config: uvicorn.Config, state: server.ServerState) -> None:
        super().__init__(config, state, app_state={})
        self.gone = asyncio.Event()
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the parent has it
        """Begin to wait."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEADERS_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)
        self.gone.set()

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


class Connections:
    """Those that are open.

    Args:
        make: Makes what speaks HTTP on one of them.
        secured: How TLS is spoken; None for not at all.
    """

    def __init__(self, make: Callable[[], Protocol], secured: ssl.SSLContext | None) -> None:
        self._make = make
        self._secured = secured
        self._by_address: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, listener: socket.socket) -> Never:
        """Take connections for ever, each in a task of its own; the listener must not block."""
        loop = asyncio.get_running_loop()
        while True:
            await _readable(listener)
            try:
                taken, peer = listener.accept()  # never awaited: who is cancelled in between would lose it, open
            except BlockingIOError:  # it is gone again
                continue
            except OSError as fault:
                _logger.warning("cannot take a connection: %s", fault)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            taken.settimeout(0)
            task = loop.create_task(self._serve(taken, str(peer[0])), name="web connection")
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._forget, taken))

    async def close(self) -> None:
        """Cut those that are still open."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __len__(self) -> int:
        """How many are open."""
        return self._by_address.total()

    def _forget(self, taken: socket.socket, done: asyncio.Task[None]) -> None:
        self._tasks.discard(done)
        taken.close()  # where nobody else did: a task that is cancelled before it begins does nothing

    async def _serve(self, taken: socket.socket, address: str) -> None:
        with self._place(address) as has_place:
            if not has_place:
                return
            try:
                async with asyncio.timeout(AGE_SECONDS_MAX):
                    await self._speak(taken)
            except TimeoutError:
                _logger.debug("a connection of %s is cut: it is open for %g s", address, AGE_SECONDS_MAX)
            except OSError as fault:
                _logger.debug("a connection of %s has ended before it began: %s", address, fault)

    async def _speak(self, taken: socket.socket) -> None:
        """Have a protocol speak until the connection is gone; who is cut while it does is cut at once."""
        is_secured = self._secured is not None
        transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
            self._make,
            taken,
            ssl=self._secured,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if is_secured else None,
            ssl_shutdown_timeout=FAREWELL_SECONDS if is_secured else None,
        )
        try:
            await protocol.gone.wait()
        finally:
            transport.abort()

    @contextlib.contextmanager
    def _place(self, address: str) -> Iterator[bool]:
        """Hold a place while the block runs; whether there was one."""
        has_place = len(self) < PLACES_MAX and self._by_address[address] < PLACES_PER_ADDRESS_MAX
        self._by_address[address] += has_place
        try:
            yield has_place
        finally:
            self._by_address[address] -= has_place
            if not self._by_address[address]:
                del self._by_address[address]


async def _readable(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(listener, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(listener)
