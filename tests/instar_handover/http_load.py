"""A load of HTTP clients of every kind that never retry and forgive nothing."""

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import h11

CLIENTS_OF_A_KIND = 1
NEW_CONNECTIONS_PER_SECOND = 40.0
PAUSE_SECONDS = 0.02
REQUEST_TIMEOUT_SECONDS = 15.0
PATIENCE_SECONDS = 40.0
READ_BYTES = 65536


@dataclass(frozen=True)
class Kind:
    """A kind of request, and what its answer must end with.

    Args:
        pieces: Of the body; sent one by one.
        is_chunked: The body has no length announced.
    """

    target: str
    ending: bytes
    length: int = 0
    pieces: Sequence[bytes] = ()
    is_chunked: bool = False


def _echoed(pieces: Sequence[bytes], *, is_chunked: bool) -> Kind:
    seen = hashlib.sha256(b"".join(pieces)).hexdigest().encode()
    return Kind("/echo", seen, pieces=pieces, is_chunked=is_chunked)


PLAIN = Kind("/", b" hello")
KINDS = (
    PLAIN,
    Kind("/stream", b"piece piece "),
    Kind("/large", b"xxxx", length=1 << 20),
    _echoed([b"a" * 5000, b"b" * 5000, b"c" * 5000], is_chunked=True),
    _echoed([bytes([number]) * 65536 for number in range(12)], is_chunked=False),
    Kind("/unread", b" not read", pieces=[b"z" * 200_000], is_chunked=False),
)


@dataclass
class Load:
    """What the clients saw."""

    address: tuple[str, int] | str
    context: ssl.SSLContext | None
    by_version: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    is_over: bool = False

    async def until_served(self, version: str, more: int) -> None:
        """Wait until this version has answered so many more requests."""
        goal = self.by_version[version] + more
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.by_version[version] < goal:  # noqa: ASYNC110  # a condition on counters
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def on(
    address: tuple[str, int] | str, kinds: Sequence[Kind] = KINDS, context: ssl.SSLContext | None = None
) -> AsyncIterator[Load]:
    """Put load on an address while the block runs: of each kind on kept connections and on new ones.

    Args:
        address: Host and port, or the path of a Unix socket.
        kinds: Of requests.
        context: Of TLS clients.
    """
    load = Load(address, context)
    async with asyncio.TaskGroup() as tasks:
        for kind in kinds:
            for _ in range(CLIENTS_OF_A_KIND):
                tasks.create_task(_keep_alive(load, kind))
        tasks.create_task(_new_connections(load, tasks, kinds))
        try:
            yield load
        finally:
            load.is_over = True


async def _new_connections(load: Load, tasks: asyncio.TaskGroup, kinds: Sequence[Kind]) -> None:
    """Open loop: the next request does not wait for the last one."""
    began = time.monotonic()
    count = 0
    while not load.is_over:
        tasks.create_task(_one_shot(load, kinds[count % len(kinds)]))
        count += 1
        await asyncio.sleep(max(0.0, began + count / NEW_CONNECTIONS_PER_SECOND - time.monotonic()))


async def _one_shot(load: Load, kind: Kind) -> None:
    async with _counted(load, f"new connection {kind.target}"):
        client = await _Client.connect(load)
        try:
            await client.ask(load, kind)
        finally:
            await client.close()


async def _keep_alive(load: Load, kind: Kind) -> None:
    client: _Client | None = None
    while not load.is_over:
        async with _counted(load, f"kept connection {kind.target}"):
            if client is not None and client.is_over:  # who reads the end of the stream does not write into it
                await client.close()
                client = None
            current, client = client or await _Client.connect(load), None
            try:
                await current.ask(load, kind)
            except BaseException:
                await current.close()
                raise
            client = current
        await asyncio.sleep(PAUSE_SECONDS)
    if client is not None:
        await client.close()


class _Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(cls, load: Load) -> "_Client":
        name = "localhost" if load.context is not None else None
        if isinstance(load.address, str):
            pair = await asyncio.open_unix_connection(load.address, ssl=load.context, server_hostname=name)
        else:
            pair = await asyncio.open_connection(*load.address, ssl=load.context, server_hostname=name)
        return cls(*pair)

    @property
    def is_over(self) -> bool:
        return self._reader.at_eof() or self._connection.our_state is h11.MUST_CLOSE

    async def ask(self, load: Load, kind: Kind) -> None:
        await self._send(kind)
        body = b""
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                assert event.status_code == 200, event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        assert body.endswith(kind.ending), body[-40:]
        assert not kind.length or len(body) == kind.length, len(body)
        load.by_version[body.split()[0].decode()] += 1
        if self._connection.our_state is h11.DONE:
            self._connection.start_next_cycle()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _send(self, kind: Kind) -> None:
        headers = [("Host", "test")]
        if kind.is_chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif kind.pieces:
            headers.append(("Content-Length", str(sum(map(len, kind.pieces)))))
        request = h11.Request(method="POST" if kind.pieces else "GET", target=kind.target, headers=headers)
        self._write(request)
        for piece in kind.pieces:
            self._write(h11.Data(data=piece))
            await self._writer.drain()
        self._write(h11.EndOfMessage())

    def _write(self, event: h11.Event) -> None:
        self._writer.write(self._connection.send(event) or b"")

    async def _next(self) -> h11.Event:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise EOFError(f"the answer ended early: {self._connection.their_state}")
            self._connection.receive_data(data)
        assert not isinstance(event, type), event  # PAUSED
        return event


@contextlib.asynccontextmanager
async def _counted(load: Load, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
            yield
    except (OSError, EOFError, TimeoutError, AssertionError, h11.ProtocolError) as error:
        load.failures.append(f"{what}: {error!r}")
