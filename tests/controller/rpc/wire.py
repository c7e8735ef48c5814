"""A stream between an agent and a controller in memory, which may lose, repeat, delay and reorder, and may break."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from agent.link import transport
from controller import clock
from controller.core import errors
from instar.v1 import agent_service_pb2
from tests.controller.rpc import small_engine

_M = TypeVar("_M", agent_service_pb2.ConnectRequest, agent_service_pb2.ConnectResponse)


@dataclass
class Faults:
    """Shares of messages, from 0 to 1."""

    lost: float = 0.0
    repeated: float = 0.0
    delay_seconds_max: float = 0.0


class Way(Generic[_M]):
    """One direction."""

    def __init__(self, draw: random.Random, faults: Faults) -> None:
        self._draw = draw
        self._faults = faults
        self._arrived: asyncio.Queue[_M | None] = asyncio.Queue()
        self.is_open = True

    def send(self, message: _M) -> None:
        if self._draw.random() < self._faults.lost:
            return
        for _ in range(2 if self._draw.random() < self._faults.repeated else 1):
            if not self._faults.delay_seconds_max:  # what is not held up keeps its order
                self._arrived.put_nowait(message)
                continue
            delay_seconds = self._draw.random() * self._faults.delay_seconds_max
            asyncio.get_running_loop().call_later(delay_seconds, self._arrived.put_nowait, message)

    async def receive(self) -> _M | None:
        message = await self._arrived.get() if self.is_open or not self._arrived.empty() else None
        self.is_open = self.is_open and message is not None
        return message

    def close(self) -> None:
        self.is_open = False
        self._arrived.put_nowait(None)


class Wire:
    """Both directions; the agent's end is a `transport.Stream`, ``far`` the controller's."""

    def __init__(self, draw: random.Random, faults: Faults) -> None:
        self._requests = Way[agent_service_pb2.ConnectRequest](draw, faults)
        self._responses = Way[agent_service_pb2.ConnectResponse](draw, faults)
        self.far = FarEnd(self._requests, self._responses)

    async def send(self, request: agent_service_pb2.ConnectRequest) -> None:
        if not self._requests.is_open:
            raise transport.LinkError("cannot send: the wire is broken")
        self._requests.send(request)

    async def receive(self) -> agent_service_pb2.ConnectResponse | None:
        return await self._responses.receive()

    async def close(self) -> None:
        self.cut()

    def cut(self) -> None:
        self._requests.close()
        self._responses.close()


class FarEnd:
    def __init__(
        self, requests: Way[agent_service_pb2.ConnectRequest], responses: Way[agent_service_pb2.ConnectResponse]
    ) -> None:
        self._requests = requests
        self._responses = responses

    async def receive(self) -> agent_service_pb2.ConnectRequest | None:
        return await self._requests.receive()

    async def send(self, response: agent_service_pb2.ConnectResponse) -> None:
        self._responses.send(response)


class World:
    """A transport whose every stream is served by ``serve``, in virtual time."""

    def __init__(self, draw: random.Random, serve: Callable[[FarEnd], Coroutine[Any, Any, None]]) -> None:
        self.draw = draw
        self.faults = Faults()
        self.wires: list[Wire] = []
        self.ends: list[errors.InstarError] = []
        self.connected_at_seconds: list[float] = []
        self.refusal: transport.LinkError | None = None
        self._serve = serve
        self.prepared = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def connect(self) -> Wire:
        self.connected_at_seconds.append(asyncio.get_running_loop().time())
        if self.refusal is not None:
            raise self.refusal
        wire = Wire(self.draw, self.faults)
        self.wires.append(wire)
        task = asyncio.get_running_loop().create_task(self._served(wire), name=f"far end {len(self.wires)}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return wire

    async def prepare(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.prepared += 1

    async def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        yield f"{digest}@{offset}".encode()

    async def read_trust(self, root_version: int, component: str) -> AsyncIterator[transport.Piece]:
        yield transport.Piece(f"{component}@{root_version}", b"", is_last_piece=True)

    def break_one(self) -> None:
        self.wires[-1].cut()

    async def close(self) -> None:
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _served(self, wire: Wire) -> None:
        try:
            await self._serve(wire.far)
        except errors.InstarError as error:
            self.ends.append(error)
        finally:
            wire.cut()


class LoopClock(clock.SystemClock):
    """The time of the running loop, as a wall clock."""

    def now(self) -> datetime:
        return small_engine.EPOCH + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()
