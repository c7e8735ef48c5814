"""The product's own messages, carried in memory by a network that loses, repeats, delays, reorders and cuts.

Rules kept: each stream is two directions, each in order, as gRPC promises; beyond what gRPC would do, single messages
are lost, repeated and overtaken, because the protocol promises to heal it; a cut breaks streams without a word to
either side until it says something or its patience ends. Left out: what the messages say.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from agent.link import transport
from instar.v1 import agent_service_pb2
from tests.simulation import loop as loops

Message = TypeVar("Message", agent_service_pb2.ConnectRequest, agent_service_pb2.ConnectResponse)

DELAY_SECONDS = (0.001, 0.25)  # one way, from a rack to another continent
LOSS = 0.02  # share of messages
REPETITION = 0.02  # share of messages
OVERTAKING = 0.01  # share of messages, which those behind them overtake
HOLDING = 0.005  # share of messages, which are held up with all behind them
HELD_SECONDS = (1.0, 15.0)  # that such a message is late
SLOW_SECONDS = (0.5, 4.0)  # that each message of a slow peer takes longer, one way
CHUNK_BYTES = 4096  # of a bundle; small, so that a cut falls between chunks


class Direction(Generic[Message]):
    """One way of one stream."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name
        self._arrived: asyncio.Queue[Message | None] = asyncio.Queue()
        self._clear_at_seconds = 0.0
        self.is_broken = False

    def send(self, message: Message, *, is_cut: bool) -> None:
        """Let a message travel; nobody is told when it is lost."""
        network = self._network
        draw = network.loop.random.random()
        if is_cut or (network.is_faulty and draw < LOSS):
            network.faults["message lost"] += 1
            return
        copies = 2 if network.is_faulty and draw > 1 - REPETITION else 1
        network.faults["message repeated"] += copies - 1
        for _ in range(copies):
            self._travel(message)

    def _travel(self, message: Message) -> None:
        network, node_id = self._network, self._name.split()[0]
        at_seconds = network.loop.time() + network.delay_seconds(node_id)
        draw = network.loop.random.random() if network.is_faulty else 1.0
        if draw < OVERTAKING + HOLDING:
            at_seconds += network.loop.random.uniform(*HELD_SECONDS)
        if draw >= OVERTAKING:  # in order, and what comes behind it too
            network.faults["message held up"] += draw < OVERTAKING + HOLDING
            at_seconds = self._clear_at_seconds = max(self._clear_at_seconds, at_seconds)
        else:
            network.faults["message overtaken"] += 1
        # Of no process: what is under way arrives, whoever stands still.
        network.loop.call_at(at_seconds, self._arrive, message, context=contextvars.Context())

    def _arrive(self, message: Message) -> None:
        if not self.is_broken:
            self._network.loop.record(f"{self._name} {message.WhichOneof('message')} {message.ByteSize()}")
            self._network.arrived(self._name.split()[0])
            self._arrived.put_nowait(message)

    async def receive(self) -> Message | None:
        """Return the next message, or None once the stream is broken."""
        return None if self.is_broken else await self._arrived.get()

    def break_off(self) -> None:
        """End the direction: what is under way is lost, and whoever reads learns of it."""
        self.is_broken = True
        self._arrived.put_nowait(None)


class Connection:
    """One stream between a node and the controller."""

    def __init__(self, network: Network, node_id: str) -> None:
        self.node_id = node_id
        self._network = network
        self.up: Direction[agent_service_pb2.ConnectRequest] = Direction(network, f"{node_id} >")
        self.down: Direction[agent_service_pb2.ConnectResponse] = Direction(network, f"{node_id} <")

    @property
    def is_broken(self) -> bool:
        return self.up.is_broken

    def break_off(self) -> None:
        """End both directions."""
        if not self.is_broken:
            self.up.break_off()
            self.down.break_off()


class AgentEnd:
    """The agent's end of a connection: what `agent.link` speaks through."""

    def __init__(self, network: Network, connection: Connection) -> None:
        self._network = network
        self._connection = connection

    async def send(self, request: agent_service_pb2.ConnectRequest) -> None:
        if self._connection.is_broken:
            raise transport.LinkError("cannot send: the stream has ended")
        is_cut = self._network.is_cut(self._connection.node_id, self._network.mute)
        self._connection.up.send(request, is_cut=is_cut)

    async def receive(self) -> agent_service_pb2.ConnectResponse | None:
        return await self._connection.down.receive()

    async def close(self) -> None:
        self._connection.break_off()


class ControllerEnd:
    """The controller's end of a connection: what `controller.rpc.sessions` speaks through."""

    def __init__(self, network: Network, connection: Connection) -> None:
        self._network = network
        self._connection = connection

    async def send(self, response: agent_service_pb2.ConnectResponse) -> None:
        if not self._connection.is_broken:
            is_cut = self._network.is_cut(self._connection.node_id, self._network.deaf)
            self._connection.down.send(response, is_cut=is_cut)

    async def receive(self) -> agent_service_pb2.ConnectRequest | None:
        return await self._connection.up.receive()


class Network:
    """All connections of one run.

    Args:
        loop: Where time and chance come from.
        faults: Where each fault is counted, by kind.
    """

    def __init__(self, loop: loops.VirtualLoop, faults: Counter[str]) -> None:
        self.loop = loop
        self.faults = faults
        self.is_faulty = True
        self.cut: Counter[str] = Counter()  # nodes cut off, both ways, by so many cuts
        self.mute: Counter[str] = Counter()  # nodes that nobody hears
        self.deaf: Counter[str] = Counter()  # nodes that hear nobody
        self.slow: Counter[str] = Counter()
        self.serve: Callable[[Connection], None] | None = None
        self.blobs: dict[str, bytes] = {}
        self.arrived: Callable[[str], None] = lambda _node_id: None
        self._connections: list[Connection] = []

    def is_cut(self, node_id: str, way: Counter[str]) -> bool:
        """Tell whether nothing gets through, one way."""
        return self.cut[node_id] > 0 or way[node_id] > 0

    def delay_seconds(self, node_id: str) -> float:
        """Draw how long a message takes, one way."""
        seconds = self.loop.random.uniform(*DELAY_SECONDS)
        return seconds + self.loop.random.uniform(*SLOW_SECONDS) if self.slow[node_id] else seconds

    def heal(self) -> None:
        """Let everything through again."""
        self.is_faulty = False
        for fault in (self.cut, self.mute, self.deaf, self.slow):
            fault.clear()

    def connect(self, node_id: str) -> Connection:
        """Open a stream to the controller.

        Raises:
            LinkError: No controller is up, or the node is cut off.
        """
        if self.serve is None or any(self.is_cut(node_id, way) for way in (self.mute, self.deaf)):
            raise transport.LinkError("cannot reach the controller")
        connection = Connection(self, node_id)
        self._connections = [each for each in self._connections if not each.is_broken] + [connection]
        self.serve(connection)
        return connection

    def break_all(self, node_id: str | None = None) -> None:
        """Break every stream, or those of one node."""
        for connection in self._connections:
            if node_id in (None, connection.node_id):
                connection.break_off()


class Way:
    """The way of one node to the controller."""

    def __init__(self, network: Network, node_id: str) -> None:
        self._network = network
        self._node_id = node_id

    async def connect(self) -> AgentEnd:
        return AgentEnd(self._network, self._network.connect(self._node_id))

    async def prepare(self) -> None:
        """There are no certificates here."""

    async def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Read a bundle; a cut or a loss ends it in the middle."""
        network = self._network
        blob = network.blobs[digest]
        while offset < len(blob):
            await asyncio.sleep(network.delay_seconds(self._node_id))
            is_lost = network.is_faulty and network.loop.random.random() < LOSS
            if network.serve is None or network.is_cut(self._node_id, network.deaf) or is_lost:
                network.faults["download cut"] += 1
                raise transport.LinkError("cannot read the bundle: the stream has ended")
            yield blob[offset : offset + CHUNK_BYTES]
            offset += CHUNK_BYTES

    def read_trust(self, root_version: int, component: str) -> AsyncIterator[transport.Piece]:
        """Fail: nobody here was told whom to trust."""
        raise transport.LinkError(f"cannot read the metadata of {component} after root {root_version}: there is none")
