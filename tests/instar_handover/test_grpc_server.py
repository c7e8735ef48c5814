"""A gRPC service swapped under a load of real gRPC clients whose calls are never repeated by the test.

The clients have no retry policy; all that gRPC does by itself is to send a call elsewhere that never left the client.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme

from agent import processes
from instar_handover import connection, gate, grpc_server, inheritance
from tests.agent.keeper import node
from tests.instar_handover import grpc_service, swaps

CLIENTS = 4
PAUSE_SECONDS = 0.002
NEW_CHANNELS_PER_SECOND = 20.0
CALL_TIMEOUT_SECONDS = 15.0
PATIENCE_SECONDS = 40.0
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)  # each channel connects by itself


Ticks = grpc.aio.UnaryStreamCall[bytes, bytes]


def say(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Service/Say")
    return method(b"hello", timeout=CALL_TIMEOUT_SECONDS)


def tick(channel: grpc.aio.Channel, count: bytes) -> Ticks:
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/test.Service/Tick")
    return method(count)


@dataclass
class Load:
    """What the clients saw."""

    target: str
    credentials: grpc.ChannelCredentials | None
    by_version: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    is_over: bool = False

    def channel(self) -> grpc.aio.Channel:
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, options=OPTIONS)
        return grpc.aio.secure_channel(self.target, self.credentials, options=OPTIONS)

    async def until_served(self, version: str, more: int) -> None:
        goal = self.by_version[version] + more
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.by_version[version] < goal:  # noqa: ASYNC110  # a condition on counters
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def load_on(target: str, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Load]:
    seen = Load(target, credentials)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(_keep_calling(seen))
            tasks.create_task(_keep_streaming(seen))
        tasks.create_task(_new_channels(seen, tasks))
        try:
            yield seen
        finally:
            seen.is_over = True


async def _keep_calling(seen: Load) -> None:
    async with seen.channel() as channel:
        while not seen.is_over:
            await _call(seen, channel)
            await asyncio.sleep(PAUSE_SECONDS)


async def _keep_streaming(seen: Load) -> None:
    async with seen.channel() as channel:
        while not seen.is_over:
            try:
                answers = [each async for each in tick(channel, b"5")]
                assert len(answers) == 5
                seen.by_version[answers[-1].split()[0].decode()] += 1
            except (grpc.RpcError, AssertionError) as error:
                seen.failures.append(f"stream: {error!r}")


async def _new_channels(seen: Load, tasks: asyncio.TaskGroup) -> None:
    async def one() -> None:
        async with seen.channel() as channel:
            await _call(seen, channel)

    began, count = time.monotonic(), 0
    while not seen.is_over:
        tasks.create_task(one())
        count += 1
        await asyncio.sleep(max(0.0, began + count / NEW_CHANNELS_PER_SECOND - time.monotonic()))


async def _call(seen: Load, channel: grpc.aio.Channel) -> None:
    try:
        answer = await say(channel)
    except grpc.RpcError as error:
        seen.failures.append(f"call: {error!r}")
    else:
        assert answer.endswith(b" hello")
        seen.by_version[answer.split()[0].decode()] += 1


def of(a_node: node.Node, **environment: str) -> swaps.Make:
    return swaps.maker(a_node, "grpc_service.py", ("python", "grpc_service.py"), environment=environment)


def target(a_node: node.Node) -> str:
    return f"{a_node.address[0]}:{a_node.address[1]}"


@pytest.mark.parametrize("transport", ["plain", "TLS"])
async def test_a_grpc_service_is_swapped_without_a_failed_call(
    a_node: node.Node, tmp_path: Path, transport: str
) -> None:
    environment, credentials = {}, None
    if transport == "TLS":
        authority = trustme.CA()
        pem = tmp_path / "both.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
        environment["CERTIFICATE"] = str(pem)
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    keeper = await a_node.attached()
    make = of(a_node, **environment)
    old = await swaps.serving(keeper, make(swaps.OLD))
    async with load_on(target(a_node), credentials) as seen:
        await seen.until_served(swaps.OLD, 50)
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        await seen.until_served(swaps.NEW, 100)  # kept channels too: a pause says GOAWAY
        ended = await swaps.committed(keeper, new, old)
        await seen.until_served(swaps.NEW, 100)
    assert seen.failures == []
    assert (ended.exit_code, ended.in_flight, ended.restarts) == (0, 0, 0)
    assert ended.served == seen.by_version[swaps.OLD]


async def test_a_paused_grpc_service_goes_on_when_it_is_resumed(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    make = of(a_node)
    old = await swaps.serving(keeper, make(swaps.OLD))
    async with load_on(target(a_node)) as seen:
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        await seen.until_served(swaps.NEW, 10)
        await swaps.aborted(keeper, new, old)
        await seen.until_served(swaps.OLD, 100)
    assert seen.failures == []


async def test_a_drain_that_is_turned_back_after_goaway_goes_on_with_the_same_server(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await swaps.serving(keeper, of(a_node)(swaps.OLD))
    async with grpc.aio.insecure_channel(target(a_node), options=OPTIONS) as channel:
        endless = tick(channel, b"0")
        await endless.read()
        await keeper.say(old.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
        await until_goaway(channel)
        await keeper.say(old.id, processes.Word.RESUME, node.WORD_TIMEOUT)
        async with load_on(target(a_node)) as seen:
            await seen.until_served(swaps.OLD, 50)
        assert await endless.read() == b"1.0.0 tick"
        endless.cancel()
    assert seen.failures == []


async def test_a_server_that_was_stopped_is_replaced_when_the_drain_is_turned_back(tmp_path: Path) -> None:
    front = grpc_server.Calls(grpc_service.make_server, None, None)
    address = short_address(tmp_path / "calls")
    async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as ends:
        await front.prepare()
        ends.push_async_callback(front.finish)
        listener = ends.enter_context(inheritance.listen(address))

        def accept(sock: socket.socket, name: str) -> None:
            counters = front.counters
            made = connection.Connection(sock, name, counters, lambda: False, is_probe=False)
            tasks.create_task(front.attend(made))

        accepting = gate.Gate(inheritance.Listener("calls", listener), accept)
        accepting.open()
        ends.callback(accepting.shut)
        old = await ends.enter_async_context(grpc.aio.insecure_channel(address, options=OPTIONS))
        endless = tick(old, b"0")
        await endless.read()
        front.drain(tasks, 0.0, 4 * PATIENCE_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not front.is_busy:  # noqa: ASYNC110  # the server is about to be stopped
                await asyncio.sleep(0.01)
        await until_goaway(old)  # the server's own
        front.resume()
        new = await ends.enter_async_context(grpc.aio.insecure_channel(address, options=OPTIONS))
        assert (await say(new)).endswith(b" hello")
        assert await endless.read() == b"0 tick"  # it lives on in the server that is stopping
        endless.cancel()


async def test_a_stream_that_never_ends_is_ended_near_the_deadline_of_the_drain(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await swaps.serving(keeper, of(a_node, INSTAR_DRAIN_SECONDS="2")(swaps.OLD))
    async with grpc.aio.insecure_channel(target(a_node), options=OPTIONS) as channel:
        endless = tick(channel, b"0")
        await endless.read()
        await keeper.say(old.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
        assert await ending(endless) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    gone = await node.reaches(keeper, old.id, processes.InstanceState.EXITED)
    assert gone.exit_code == 0


def short_address(path: Path) -> str:
    """Say where a Unix socket is, in a way that fits into 108 bytes."""
    return f"unix:{os.path.relpath(path)}"


async def ending(call: Ticks) -> grpc.StatusCode:
    """Read a stream to its end."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        with contextlib.suppress(grpc.RpcError):
            while await call.read():
                pass
        return await call.code()


async def until_goaway(channel: grpc.aio.Channel) -> None:
    """Wait until the server has said GOAWAY: the channel has left the connection, though a stream lives on in it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while channel.get_state() is grpc.ChannelConnectivity.READY:  # noqa: ASYNC110  # gRPC tells nothing else
            await asyncio.sleep(0.01)
