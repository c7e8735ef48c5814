from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from controller.cli.demo import exchange, load, ports

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nX-Version: 1.0.0\r\nContent-Length: 2\r\nConnection: %s\r\n\r\nok"


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[exchange.Address]:
    attending: list[asyncio.Task[None] | None] = []

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attending.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):  # the client is done
            await handler(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(attend, "127.0.0.1", 0)
    try:
        yield exchange.Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await asyncio.gather(*(task for task in attending if task))


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, for 0 s: close with a reset
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def truncate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write((OK % b"close")[:-1])


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del writer
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("handler", "failure"),
    [
        (reset, exchange.Failure.RESET),
        (truncate, exchange.Failure.TRUNCATED),
        (hang_up, exchange.Failure.TRUNCATED),
    ],
)
async def test_whatever_is_not_a_whole_answer_is_a_failure_with_a_name(
    handler: Handler, failure: exchange.Failure
) -> None:
    async with serving(handler) as address:
        with pytest.raises(exchange.LostError) as lost:
            await load.ask_once(address)

    assert lost.value.failure is failure


async def test_a_port_that_nobody_listens_on_refuses() -> None:
    (port,) = ports.free(1)

    with pytest.raises(exchange.LostError) as lost:
        await load.ask_once(exchange.Address("127.0.0.1", port))

    assert lost.value.failure is exchange.Failure.REFUSED


async def test_a_kept_client_comes_back_after_an_announced_close_and_not_before() -> None:
    connections = []

    async def close_at_third(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        for word in (b"keep-alive", b"keep-alive", b"close"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK % word)

    async with serving(close_at_third) as address:
        client = load.KeptClient(address)
        answers = [await client.ask() for _ in range(4)]
        await client.close()

    assert [answer.is_last for answer in answers] == [False, False, True, False]
    assert len(connections) == 2


async def test_an_open_loop_notes_every_request_and_waits_for_the_last() -> None:
    async def answer_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 500 No\r\nX-Version: 1.0.0\r\nContent-Length: 0\r\n\r\n")
            if b"close" in head:
                return

    out = io.StringIO()
    async with serving(answer_slowly) as address:
        sender = load.Load([load.Target("a", address)], rate=100, out=out)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(sender.run())
            while out.getvalue().count("\n") < 20:  # noqa: ASYNC110 the client tells nobody what it has noted
                await asyncio.sleep(0.01)
            sender.stop()

    lines = [line.split("\t") for line in out.getvalue().splitlines()]
    assert {line[5] for line in lines} == {"server_error"}
    assert {line[3] for line in lines} == {"new", "keep"}
    assert all(float(line[1]) >= 45 for line in lines)
