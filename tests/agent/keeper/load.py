"""A load of HTTP clients that never retry and forgive nothing."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

NEW_CONNECTIONS_PER_SECOND = 120.0
KEEP_ALIVE_CLIENTS = 6
KEEP_ALIVE_PAUSE_SECONDS = 0.03
REQUEST_TIMEOUT_SECONDS = 10.0
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@dataclass(frozen=True)
class Failure:
    """A request that failed, and when it began."""

    began_at: float
    why: str


@dataclass
class Load:
    """What the clients saw."""

    address: tuple[str, int]
    by_version: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    is_over: bool = False

    @property
    def total(self) -> int:
        return self.by_version.total() + len(self.failures)

    async def until_served(self, version: str, more: int) -> None:
        """Wait until this version has answered so many more requests."""
        goal = self.by_version[version] + more
        async with asyncio.timeout(20):
            while self.by_version[version] < goal:  # noqa: ASYNC110  # a condition on counters
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def on(address: tuple[str, int]) -> AsyncIterator[Load]:
    """Put load on an address while the block runs."""
    load = Load(address)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(KEEP_ALIVE_CLIENTS):
            tasks.create_task(_keep_alive(load))
        tasks.create_task(_new_connections(load, tasks))
        try:
            yield load
        finally:
            load.is_over = True


async def _new_connections(load: Load, tasks: asyncio.TaskGroup) -> None:
    """Open loop: the next request does not wait for the last one."""
    began = time.monotonic()
    count = 0
    while not load.is_over:
        tasks.create_task(_one_shot(load))
        count += 1
        await asyncio.sleep(max(0.0, began + count / NEW_CONNECTIONS_PER_SECOND - time.monotonic()))


async def _one_shot(load: Load) -> None:
    async with _counted(load):
        reader, writer = await asyncio.open_connection(*load.address)
        try:
            await _ask(load, reader, writer)
        finally:
            await _close(writer)


async def _keep_alive(load: Load) -> None:
    pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while not load.is_over:
        async with _counted(load):
            if (
                pair is not None and pair[0].at_eof()
            ):  # a client that reads the end of the stream does not write into it
                await _close(pair[1])
                pair = None
            current, pair = pair or await asyncio.open_connection(*load.address), None
            if await _ask(load, *current):
                await _close(current[1])
            else:
                pair = current
        await asyncio.sleep(KEEP_ALIVE_PAUSE_SECONDS)
    if pair is not None:
        await _close(pair[1])


async def _ask(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Ask once; returns whether the server announced the end of the connection."""
    try:
        writer.write(REQUEST)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
    except BaseException:
        await _close(writer)
        raise
    assert head.startswith(b"http/1.1 200 "), head
    load.by_version[body.split()[0].decode()] += 1
    return b"connection: close" in head


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def _counted(load: Load) -> AsyncIterator[None]:
    began_at = time.monotonic()
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
            yield
    except (OSError, EOFError, TimeoutError) as error:
        load.failures.append(Failure(began_at, repr(error)))
