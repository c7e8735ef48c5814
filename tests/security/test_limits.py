"""Each limit of the gRPC side, hit over real gRPC: what the peer sees, and that the others see nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
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
from controller.cli.demo import fleet
from controller.config import quotas as configured
from controller.config import settings
from controller.core import errors
from controller.engine import enrolling
from controller.rpc import (
    admission,
    agent_bounds,
    agent_convert,
    agent_service,
    attempts,
    door,
    enrolment_service,
    listener,
    quotas,
)
from controller.rpc import errors as rpc_errors
from controller.trust import unsigned
from instar.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrolment_service_pb2,
    enrolment_service_pb2_grpc,
    fleet_service_pb2,
    node_pb2,
    operation_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)
from tests.controller.rpc import doors, small_engine
from tests.security import house, posts, test_authorisation, test_live_streams

LIST = fleet_service_pb2.ListNodesRequest()
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GOAWAY, PING, SETTINGS = 7, 6, 4
ENHANCE_YOUR_CALM = 11


async def failing(call: Any) -> grpc.StatusCode:  # noqa: ANN401  # whatever can be waited for
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value.code()


# Messages and metadata.


async def test_50_a_message_past_the_limit_is_refused_also_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        request = fleet_service_pb2.GetNodeRequest(node_id="n" * listener.RECEIVED_BYTES_MAX)
        asked = post.ask("GetNode", request, post.operator)
        assert await failing(asked) is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with posts.session(post.channel, "n-1", post.agent("n-1")) as call:
            said = agent_service_pb2.LogText(text="x" * listener.RECEIVED_BYTES_MAX)
            await call.write(agent_service_pb2.ConnectRequest(sequence=2, log_text=said))
            assert await failing(_read_on(call)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await post.ask("ListNodes", LIST, post.operator)


async def _read_on(call: Any) -> None:  # noqa: ANN401  # a raw call
    while await call.read() is not aio.EOF:
        pass


async def test_50_an_answer_past_the_limit_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SENT_BYTES_MAX", 256)
    async with posts.serving(tmp_path) as post, post.nodes({"n-1": {"note": "x" * 300}}):
        assert await failing(post.ask("ListNodes", LIST, post.operator)) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_50_an_agent_takes_no_message_past_its_limit() -> None:

    class Hostile(agent_service_pb2_grpc.AgentServiceServicer):
        async def Connect(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401, N802
            del request_iterator, context
            cancel = agent_service_pb2.Cancel(reason="x" * transport.RECEIVED_BYTES_MAX)
            yield agent_service_pb2.ConnectResponse(cancel=cancel)

        async def ReadBlob(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401, N802
            del request, context
            yield agent_service_pb2.ReadBlobResponse(chunk=bytes(transport.RECEIVED_BYTES_MAX))

        async def ReadTrust(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401, N802
            del request, context
            yield agent_service_pb2.ReadTrustResponse()

    server = aio.server()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(Hostile(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    way = transport.GrpcTransport(f"127.0.0.1:{port}", lambda: secret.Secret("token"))
    with pytest.raises(transport.LinkError, match="RESOURCE_EXHAUSTED"):
        _ = [chunk async for chunk in way.read_blob("sha256:x", 0)]
    stream = await way.connect()
    with pytest.raises(transport.LinkError, match="RESOURCE_EXHAUSTED"):
        await stream.receive()
    await stream.close()
    await server.stop(None)


async def test_50_metadata_past_the_limit_is_refused_and_a_long_token_is_not(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        more = (*post.operator, ("note", "x" * listener.METADATA_BYTES_MAX))
        assert await failing(post.ask("ListNodes", LIST, more)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = await post.refused("ListNodes", LIST, posts.bearer("x" * 6_000))
        assert error.code == "token_unknown"


# Streams and connections.


async def test_51_the_streams_of_one_connection_wait_for_each_other_past_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "STREAMS_MAX", 4)
    async with posts.serving(tmp_path) as post:
        await test_live_streams.start_still(post)
        calls = [await test_live_streams.watching(post, post.operator) for _ in range(4)]
        stub = rollout_service_pb2_grpc.RolloutServiceStub(post.channel)
        request = rollout_service_pb2.GetRolloutRequest(rollout="still")
        assert await failing(stub.GetRollout(request, metadata=post.operator, timeout=1)) is (
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
        assert await failing(watch(b"").read()) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await post.ask("ListNodes", LIST, post.operator)
        for call in calls:
            call.cancel()


async def test_connections_past_the_limit_are_not_taken_and_those_that_stand_stay(tmp_path: Path) -> None:
    async with posts.serving(tmp_path, quotas=configured.Quotas(connections=2)) as post:
        await post.ask("ListNodes", LIST, post.operator)
        async with contextlib.AsyncExitStack() as stack:
            others = [
                await stack.enter_async_context(aio.insecure_channel(post.address, options=posts.ONE_CONNECTION))
                for _ in range(3)
            ]
            list_nodes = posts.METHODS["ListNodes"]
            found = await asyncio.gather(
                *(list_nodes.call(each, LIST, post.operator) for each in others), return_exceptions=True
            )
            refused = [each.code() for each in found if isinstance(each, aio.AioRpcError)]
            assert refused == [grpc.StatusCode.UNAVAILABLE] * 2
            await post.ask("ListNodes", LIST, post.operator)


async def test_48_connections_that_say_nothing_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_DEADLINE", timedelta(seconds=1))
    async with posts.serving(tmp_path) as post, asyncio.timeout(posts.DEADLINE_SECONDS):
        silent = [await _connected(post) for _ in range(50)]
        await post.ask("ListNodes", LIST, post.operator)
        for reader, writer in silent:
            with contextlib.suppress(ConnectionError):
                await reader.read()  # until it is closed
            writer.close()
        await post.ask("ListNodes", LIST, post.operator)


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
        await post.ask("ListNodes", LIST, post.operator)


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


async def test_47_of_a_bundle_that_nobody_takes_only_a_little_is_read(tmp_path: Path) -> None:
    system, engine = clock.SystemClock(), small_engine.SmallEngine(clock.SystemClock().now)
    blob = _Blob(bytes(64 << 20))
    enrolled = doors.enrolled(tmp_path)
    shown = posts.bearer(enrolled.make_token(doors.agent("n-1")).reveal())
    guards = doors.guards(enrolled, engine, system)
    server = aio.server(interceptors=[door.Door(guards, engine.keep_refusal)])
    caller, read_trust = guards.callers.caller, unsigned.Unsigned().read
    service = agent_service.AgentService(
        engine, caller=caller, open_blob=lambda _: blob, read_trust=read_trust, clock=system
    )
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        call: Any = stub.ReadBlob(agent_service_pb2.ReadBlobRequest(digest="sha256:x"), metadata=shown)
        assert (await call.read()).chunk
        before = -1
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while blob.reads != before:  # until nothing more is read
                before = blob.reads
                await asyncio.sleep(0.5)
        assert blob.reads < 32
        call.cancel()
        await posts.until(lambda: blob.closed)
    await server.stop(None)


class _Blob(io.BytesIO):
    """A bundle that counts how often it is read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


# What one agent may say.

LONG_WORD = "x" * (agent_bounds.WORD_CHARS_MAX + 1)
_Report, _Status = agent_service_pb2.Report, node_pb2.ComponentStatus
OUT_OF_BOUNDS = {
    "components": _Report(components=[_Status(name="a", version="1.0.0")] * (agent_bounds.COMPONENTS_MAX + 1)),
    "components.name": _Report(components=[_Status(name=LONG_WORD, version="1.0.0")]),
    "components.version": _Report(components=[_Status(name="a", version="one")]),
    "components.instances": _Report(
        components=[_Status(name="a", instances=[node_pb2.Instance()] * (agent_bounds.INSTANCES_MAX + 1))]
    ),
    "components.instances.instance_id": _Report(
        components=[_Status(name="a", instances=[node_pb2.Instance(instance_id=LONG_WORD)])]
    ),
    "operations": _Report(operations=[operation_pb2.OperationStatus()] * (agent_bounds.OPERATIONS_MAX + 1)),
    "operations.component": _Report(operations=[operation_pb2.OperationStatus(component=LONG_WORD)]),
    "operations.fence": _Report(operations=[operation_pb2.OperationStatus(fence=agent_bounds.FENCE_MAX + 1)]),
    "steps": _Report(steps=[operation_pb2.StepRecord()] * (agent_bounds.STEPS_MAX + 1)),
    "steps.operation_id": _Report(
        steps=[operation_pb2.StepRecord(operation_id="x" * (agent_bounds.OPERATION_CHARS_MAX + 1))]
    ),
    "metrics": _Report(metrics=[node_pb2.Metric()] * (agent_bounds.METRICS_MAX + 1)),
    "metrics.name": _Report(metrics=[node_pb2.Metric(name="x" * (agent_bounds.METRIC_CHARS_MAX + 1))]),
    "gone_metrics.component": _Report(gone_metrics=[node_pb2.MetricName(component=LONG_WORD)]),
}


async def test_a_report_out_of_bounds_ends_the_session_and_changes_nothing(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        shown = post.agent("n-1")
        for name, report in OUT_OF_BOUNDS.items():
            async with posts.session(post.channel, "n-1", shown) as call:
                await call.write(test_live_streams.heartbeat(2, report))
                error = await posts.ended(call)
            assert (error.code, error.field) == ("message_invalid", name)
        listed = await post.ask("ListNodes", LIST, post.operator)
        assert [len(each.components) for each in listed.nodes] == [0]


@pytest.mark.parametrize(
    "hello",
    [
        agent_service_pb2.Hello(labels={f"k{number}": "v" for number in range(agent_bounds.LABELS_MAX + 1)}),
        agent_service_pb2.Hello(labels={"k": "v" * (agent_bounds.LABEL_CHARS_MAX + 1)}),
        agent_service_pb2.Hello(labels={"k" * (agent_bounds.LABEL_CHARS_MAX + 1): "v"}),
        agent_service_pb2.Hello(capabilities=["x"] * agent_bounds.CAPABILITIES_MAX),
        agent_service_pb2.Hello(capabilities=[LONG_WORD]),
        agent_service_pb2.Hello(highest_fence=2**64 - 1),
    ],
    ids=["many labels", "long label", "long key", "many capabilities", "long capability", "a fence without end"],
)
async def test_a_hello_out_of_bounds_makes_no_node(tmp_path: Path, hello: agent_service_pb2.Hello) -> None:
    async with posts.serving(tmp_path) as post:
        call: Any = agent_service_pb2_grpc.AgentServiceStub(post.channel).Connect(metadata=post.agent("n-1"))
        said = posts.hello("n-1")
        said.hello.MergeFrom(hello)
        await call.write(said)
        assert (await posts.ended(call)).code == "message_invalid"
        listed = await post.ask("ListNodes", LIST, post.operator)
        assert not listed.nodes


async def test_a_node_whose_release_is_damaged_stops_nobodys_plans(tmp_path: Path) -> None:
    """Its version is not known, and taken for the lowest: what heals it is an upgrade."""
    async with posts.serving(tmp_path) as post, posts.session(post.channel, "n-1", post.agent("n-1")) as call:
        await test_authorisation.publish(post)
        damaged = _Report(components=[_Status(name="web", digest="sha256:" + "0" * 64)])
        await call.write(test_live_streams.heartbeat(2, damaged))
        assert (await call.read()).acknowledgement.sequence == 2
        planned = rollout_service_pb2.PlanUpgradeRequest(upgrade=test_authorisation.upgrade("", "web"))
        plan = (await post.ask("PlanUpgrade", planned, post.operator)).plan
        found = [(each.node_id, each.from_version, each.to_version) for wave in plan.waves for each in wave.changes]
        assert found == [("n-1", agent_convert.UNKNOWN_VERSION, "1.0.0")]


async def test_components_do_not_pile_up_over_many_reports(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post, posts.session(post.channel, "n-1", post.agent("n-1")) as call:
        for sequence in range(2, 5):
            some = [_Status(name=f"c{sequence}-{number}", version="1.0.0") for number in range(100)]
            said = agent_service_pb2.Heartbeat(report=_Report(components=some))
            await call.write(agent_service_pb2.ConnectRequest(sequence=sequence, heartbeat=said))
        assert (await posts.ended(call)).code == "components_many"
        listed = await post.ask("ListNodes", LIST, post.operator)
        assert [len(each.components) for each in listed.nodes] == [200]


async def test_an_agent_that_says_too_much_loses_its_session_and_comes_back_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MESSAGES_BURST", 5.0)
    monkeypatch.setattr(admission, "MESSAGES_PER_SECOND", 0.01)
    async with posts.serving(tmp_path) as post, posts.session(post.channel, "n-1", post.agent("n-1")) as call:
        for sequence in range(2, 9):
            with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):  # once it has ended
                await call.write(test_live_streams.heartbeat(sequence))
        error = await posts.ended(call)
    assert isinstance(error, errors.ExhaustedError)
    assert (error.code, error.retry_after > timedelta()) == ("too_many_messages", True)


# How much one caller may ask.


async def test_a_caller_that_asks_too_much_is_told_when_to_come_back_and_the_others_are_answered(
    tmp_path: Path,
) -> None:
    async with posts.serving(tmp_path, quotas=configured.Quotas(calls_per_second=1, calls_burst=5)) as post:
        shown, other = (post.somebody(name, *test_live_streams.VIEWS) for name in ("ann", "bob"))
        found = await asyncio.gather(*(post.ask("ListNodes", LIST, shown) for _ in range(40)), return_exceptions=True)
        failures = [each for each in found if isinstance(each, aio.AioRpcError)]
        assert len(found) - len(failures) >= 5
        error = rpc_errors.from_rpc(failures[-1])
        assert isinstance(error, errors.ExhaustedError)
        assert (failures[-1].code(), error.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, quotas.RATE_LIMITED)
        assert error.retry_after > timedelta()
        await post.ask("ListNodes", LIST, other)
        await asyncio.sleep(error.retry_after.total_seconds())
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while True:
                with contextlib.suppress(aio.AioRpcError):
                    await post.ask("ListNodes", LIST, shown)
                    break


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(attempts, "FORGIVEN_PER_SECOND", 0.0)
    monkeypatch.setattr(attempts, "WAITING_MAX", 2)


@pytest.mark.usefixtures("long_pause")
@pytest.mark.parametrize("wrong", ["wrong", "a.b.c"], ids=["ours", "an issuer's"])
async def test_wrong_tokens_of_one_address_have_to_wait_and_good_ones_pass(tmp_path: Path, wrong: str) -> None:
    async with posts.serving(tmp_path) as post:
        for _ in range(attempts.FREE_ATTEMPTS):
            error = await post.refused("ListNodes", LIST, posts.bearer(wrong))
            assert isinstance(error, errors.UnauthenticatedError)
        stub: Any = post.channel.unary_unary("/instar.v1.FleetService/ListNodes")
        waiting = [stub(b"", metadata=posts.bearer(wrong)) for _ in range(2)]
        # The two places where an answer is held back are taken; whoever comes now is refused at once.
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while True:
                error = await post.refused("ListNodes", LIST, posts.bearer(wrong))
                if error.code == attempts.EXHAUSTED:
                    break
        assert isinstance(error, errors.ExhaustedError)
        assert not any(call.done() for call in waiting)
        await post.ask("ListNodes", LIST, post.operator)
        for call in waiting:
            call.cancel()


def test_addresses_are_told_apart_without_their_ports_and_forgotten_past_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert attempts.address_of("ipv4:10.0.0.1:5") == attempts.address_of("ipv4:10.0.0.1:6") == "ipv4:10.0.0.1"
    assert attempts.address_of("ipv6:%5B::1%5D:5") == "ipv6:%5B::1%5D"
    assert attempts.address_of("unix:/run/x") == "unix:/run/x"
    monkeypatch.setattr(attempts, "ADDRESSES_MAX", 3)
    found = attempts.Attempts(lambda: 0.0)
    for number in range(10):
        found.failed(f"ipv4:10.0.0.{number}:1")
    assert len(found._wrong) == 3


def test_quotas_come_back_with_time_and_are_forgotten_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "CALLERS_MAX", 2)
    now = [0.0]
    found = quotas.Quotas(configured.Quotas(calls_per_second=2, calls_burst=2), lambda: now[0])
    found.take("a")
    found.take("a")
    with pytest.raises(errors.ExhaustedError) as caught:
        found.take("a")
    assert caught.value.retry_after == timedelta(seconds=0.5)
    now[0] = 0.5
    found.take("a")
    with pytest.raises(errors.ExhaustedError):
        found.take("a")
    for name in ("b", "c"):
        found.take(name)
    found.take("a")  # forgotten, and so new
    assert len(found._left) == 2


# Certificates, and nodes that have none yet.


def at_home(folder: Path) -> house.House:
    (port,) = fleet.free_ports(1)
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
        assert await failing(stub.BeginRecovery(long)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        first = stub.Enrol(enrolment_service_pb2.EnrolRequest())
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            await reached.wait()
        assert await failing(stub.BeginRecovery(BEGIN)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        going_on.set()
        assert await failing(first) is grpc.StatusCode.UNAUTHENTICATED


async def test_49_whoever_comes_in_does_not_stay_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ENROLLING_AGE", timedelta(seconds=1))
    home = at_home(tmp_path)
    async with home.serving(), coming_in(home) as channel:
        await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).BeginRecovery(BEGIN)
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while channel.get_state() is grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)


@pytest.mark.parametrize(
    ("text", "field_name"),
    [
        ("calls_per_second = 0", "limits.calls_per_second"),
        ("calls_burst = 1.5", "limits.calls_burst"),
        ("streams_per_caller = 1", "limits.streams_per_caller"),
        ("connections = true", "limits.connections"),
        ('connection_age = "2d"', "limits.connection_age"),
        ('connection_age = "500ms"', "limits.connection_age"),
        ("colour = 1", "limits.colour"),
    ],
)
def test_what_a_limit_cannot_be_is_refused_by_its_key(tmp_path: Path, text: str, field_name: str) -> None:
    file = tmp_path / "controller.toml"
    file.write_text(f"[limits]\n{text}\n")
    with pytest.raises(errors.InvalidRequestError) as caught:
        settings.load({}, {}, file)
    assert caught.value.field == field_name


def test_limits_are_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text('[limits]\ncalls_per_second = 5\nconnection_age = "10m"\n')
    found = settings.load({}, {}, file).quotas
    assert found == configured.Quotas(calls_per_second=5, connection_age=timedelta(minutes=10))
