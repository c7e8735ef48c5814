"""Limits of streams and connections, hit over real gRPC: what the peer sees, and that the others see nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Never

import grpc
import pytest
from grpc import aio

from agent.core import model as agent_model
from agent.core import secret
from agent.link import loop as agent_loop
from agent.link import transport
from controller import clock
from controller.cli.demo import ports
from controller.config import quotas as configured
from controller.core import errors
from controller.engine import enrolling
from controller.rpc import (
    attempts,
    enrolment_service,
    listener,
    quotas,
)
from instar.v1 import (
    enrolment_service_pb2,
    enrolment_service_pb2_grpc,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)
from tests.security import house, posts, test_live_streams

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GOAWAY, PING, SETTINGS = 7, 6, 4
ENHANCE_YOUR_CALM = 11


async def test_51_the_streams_of_one_connection_wait_for_each_other_past_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "STREAMS_MAX", 4)
    async with posts.serving(tmp_path) as post:
        await test_live_streams.start_still(post)
        calls = [await test_live_streams.watching(post, post.operator) for _ in range(4)]
        stub = rollout_service_pb2_grpc.RolloutServiceStub(post.channel)
        request = rollout_service_pb2.GetRolloutRequest(rollout="still")
        assert await posts.failing(stub.GetRollout(request, metadata=post.operator, timeout=1)) is (
            grpc.StatusCode.DEADLINE_EXCEEDED
        )
        async with aio.insecure_channel(post.address, options=posts.ONE_CONNECTION) as other:
            await posts.METHODS["GetRollout"].call(other, request, post.operator)
        calls.pop().cancel()
        await post.ask("GetRollout", request, post.operator)
        for call in calls:
            call.cancel()


async def test_51_the_streams_of_one_caller_are_refused_past_the_limit(tmp_path: Path) -> None:
    async with posts.serving(tmp_path, quotas=configured.Quotas(streams_per_caller=3)) as post:
        await test_live_streams.start_still(post)
        calls = [await test_live_streams.watching(post, post.operator) for _ in range(3)]
        request = rollout_service_pb2.WatchRolloutRequest(rollout="still")
        error = await post.refused("WatchRollout", request, post.operator)
        assert isinstance(error, errors.ExhaustedError)
        assert (error.code, error.field) == (quotas.TOO_MANY_STREAMS, "limits.streams_per_caller")
        assert error.retry_after >= quotas.STREAM_RETRY_AFTER
        calls.append(await test_live_streams.watching(post, post.somebody("ann", *test_live_streams.VIEWS)))
        calls.pop(0).cancel()
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while True:
                with contextlib.suppress(aio.AioRpcError):
                    await post.ask("WatchRollout", request, post.operator)
                    break
        for call in calls:
            call.cancel()


async def test_51_a_stranger_who_watches_health_has_so_many_streams_as_anybody(tmp_path: Path) -> None:
    async with posts.serving(tmp_path, quotas=configured.Quotas(streams_per_caller=2)) as post:
        watch: Any = post.channel.unary_stream("/grpc.health.v1.Health/Watch")
        calls = [watch(b"") for _ in range(2)]
        for call in calls:
            assert await call.read() is not aio.EOF
        assert await posts.failing(watch(b"").read()) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await post.ask("ListNodes", posts.LIST, post.operator)
        for call in calls:
            call.cancel()


async def test_connections_past_the_limit_are_not_taken_and_those_that_stand_stay(tmp_path: Path) -> None:
    async with posts.serving(tmp_path, quotas=configured.Quotas(connections=2)) as post:
        await post.ask("ListNodes", posts.LIST, post.operator)
        async with contextlib.AsyncExitStack() as stack:
            others = [
                await stack.enter_async_context(aio.insecure_channel(post.address, options=posts.ONE_CONNECTION))
                for _ in range(3)
            ]
            list_nodes = posts.METHODS["ListNodes"]
            found = await asyncio.gather(
                *(list_nodes.call(each, posts.LIST, post.operator) for each in others), return_exceptions=True
            )
            refused = [each.code() for each in found if isinstance(each, aio.AioRpcError)]
            assert refused == [grpc.StatusCode.UNAVAILABLE] * 2
            await post.ask("ListNodes", posts.LIST, post.operator)


async def test_48_connections_that_say_nothing_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_DEADLINE", timedelta(seconds=1))
    async with posts.serving(tmp_path) as post, asyncio.timeout(posts.DEADLINE_SECONDS):
        silent = [await _connected(post) for _ in range(50)]
        await post.ask("ListNodes", posts.LIST, post.operator)
        for reader, writer in silent:
            with contextlib.suppress(ConnectionError):
                await reader.read()  # until it is closed
            writer.close()
        await post.ask("ListNodes", posts.LIST, post.operator)


async def _connected(post: posts.Post) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = post.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


def frame(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """One frame of HTTP/2, of the whole connection."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + bytes(4) + body


async def test_49_who_pings_without_end_loses_the_connection_and_is_told_to_calm_down(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post, asyncio.timeout(posts.DEADLINE_SECONDS):
        reader, writer = await _connected(post)
        writer.write(HTTP2 + frame(SETTINGS) + frame(PING, bytes(8)) * 20)
        await writer.drain()
        codes = [code async for kind, code in _frames(reader) if kind == GOAWAY]
        assert codes == [ENHANCE_YOUR_CALM]
        writer.close()
        await post.ask("ListNodes", posts.LIST, post.operator)


async def test_49_who_pings_as_seldom_as_it_may_is_answered_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what gRPC does without the option, or with its name misspelled, three of these would be two too many."""
    monkeypatch.setattr(listener, "PING_INTERVAL_MIN", timedelta(milliseconds=50))
    async with posts.serving(tmp_path) as post, asyncio.timeout(posts.DEADLINE_SECONDS):
        reader, writer = await _connected(post)
        writer.write(HTTP2 + frame(SETTINGS))
        frames = _frames(reader)
        for _ in range(6):
            writer.write(frame(PING, bytes(8)))
            await writer.drain()
            kind = SETTINGS
            while kind != PING:
                kind, _ = await anext(frames)
                assert kind != GOAWAY
            await asyncio.sleep(0.2)  # seldom enough
        writer.close()


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, int]]:
    """The kind of each frame up to the end of a connection; of a GOAWAY also its code."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readexactly(9)
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            yield head[3], int.from_bytes(body[4:8], "big") if head[3] == GOAWAY else 0


@dataclass
class Node:
    """A node that reports what the test puts there, until it is acknowledged."""

    operations: list[agent_model.OperationStatus] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)

    def hello_facts(self) -> agent_model.HelloFacts:
        return agent_model.HelloFacts("boot", "token", "1.0.0", (), 0)

    def full_report(self) -> agent_model.Report:
        return agent_model.Report(operations=tuple(self.operations))

    def take_command(self, command: agent_model.Command) -> None:
        del command

    async def read_log(self, asked: agent_model.ReadLog) -> agent_model.LogText:
        return agent_model.LogText(asked.request_id, "", "")

    def acknowledged(
        self, operations: tuple[agent_model.OperationStatus, ...], steps: tuple[agent_model.StepRecord, ...]
    ) -> None:
        del steps
        self.settled += [each.operation_id for each in operations]
        self.operations = [each for each in self.operations if each not in operations]


def finished(number: int) -> agent_model.OperationStatus:
    state = agent_model.OperationState.PERMANENT
    now = clock.SystemClock().now()
    return agent_model.OperationStatus(f"r/{number}", number, "web", state, None, None, "", "", now)


async def test_a_connection_ends_with_its_age_and_the_agent_comes_back_without_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "CONNECTION_GRACE", timedelta(seconds=1))
    aged = configured.Quotas(connection_age=timedelta(seconds=1))
    async with posts.serving(tmp_path, quotas=aged, heartbeat_period=timedelta(milliseconds=100)) as post:
        node = Node()
        token = post.agent("n-1")[0][1].removeprefix("Bearer ")
        way = _Counted(transport.GrpcTransport(post.address, lambda: secret.Secret(token)))
        link = agent_loop.Link(way, node_id="n-1", now=clock.SystemClock().now, draw=lambda: 0.0)
        running = asyncio.get_running_loop().create_task(link.run(node), name="link")
        number = 0
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while way.connected < 4:
                number += 1
                node.operations.append(finished(number))
                link.wake()
                await asyncio.sleep(0.05)
        await posts.until(lambda: not node.operations)
        assert list(dict.fromkeys(node.settled)) == [f"r/{each}" for each in range(1, number + 1)]
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class _Counted:
    """A way that counts how often it was taken."""

    def __init__(self, way: transport.GrpcTransport) -> None:
        self._way = way
        self.connected = 0

    async def connect(self) -> transport.Stream:
        self.connected += 1
        return await self._way.connect()

    async def prepare(self) -> None:
        await self._way.prepare()

    def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        return self._way.read_blob(digest, offset)

    def read_trust(self, root_version: int, component: str) -> AsyncIterator[transport.Piece]:
        return self._way.read_trust(root_version, component)


# Certificates, and nodes that have none yet.


def at_home(folder: Path) -> house.House:
    (port,) = ports.free(1)
    return house.House(folder, enrol_listen=f"127.0.0.1:{port}")


def coming_in(home: house.House) -> aio.Channel:
    secured = grpc.ssl_channel_credentials(home.roots)
    return aio.secure_channel(home.enrol_address, secured, options=posts.ONE_CONNECTION)


BEGIN = enrolment_service_pb2.BeginRecoveryRequest(node_id="n-1")


async def test_51_who_shows_wrong_certificates_waits_and_a_good_one_passes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FREE_ATTEMPTS", 1)
    monkeypatch.setattr(attempts, "FORGIVEN_PER_SECOND", 0.0)
    monkeypatch.setattr(attempts, "WAITING_MAX", 0)
    home = at_home(tmp_path)
    wrong = house.forged(home.known.signing(house.K.CLIENTS), [], [house.CLIENT])
    async with home.serving():
        found = [await home.call(wrong) for _ in range(2)]
        assert await home.call(home.client()) is None
    assert [error and error.code() for error in found] == [
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ]


async def test_50_whoever_comes_in_says_little_at_once_and_few_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment_service, "ENROLLING_MAX", 1)
    home, going_on, reached = at_home(tmp_path), asyncio.Event(), asyncio.Event()

    async def slow(_: object, text: str, request: str) -> Never:
        del text, request
        reached.set()
        await going_on.wait()
        raise errors.UnauthenticatedError("cannot let it in", code="slow", field="token", rule="none")

    monkeypatch.setattr(enrolling.Enrolling, "enrol", slow)
    async with home.serving(), coming_in(home) as channel:
        stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
        long = enrolment_service_pb2.BeginRecoveryRequest(node_id="n" * listener.ENROLLING_BYTES_MAX)
        assert await posts.failing(stub.BeginRecovery(long)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        first = stub.Enrol(enrolment_service_pb2.EnrolRequest())
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            await reached.wait()
        assert await posts.failing(stub.BeginRecovery(BEGIN)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        going_on.set()
        assert await posts.failing(first) is grpc.StatusCode.UNAUTHENTICATED


async def test_49_whoever_comes_in_does_not_stay_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ENROLLING_AGE", timedelta(seconds=1))
    home = at_home(tmp_path)
    async with home.serving(), coming_in(home) as channel:
        await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).BeginRecovery(BEGIN)
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while channel.get_state() is grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
