"""Limits of what is said, hit over real gRPC: what the peer sees, and that the others see nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from agent.core import secret
from agent.link import transport
from controller import clock
from controller.core import errors
from controller.rpc import (
    admission,
    agent_bounds,
    agent_convert,
    agent_service,
    door,
    listener,
)
from controller.trust import unsigned
from instar.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    fleet_service_pb2,
    node_pb2,
    operation_pb2,
    rollout_service_pb2,
)
from tests.controller.rpc import doors, small_engine
from tests.security import posts, test_authorisation, test_live_streams

# Messages and metadata.


async def test_50_a_message_past_the_limit_is_refused_also_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        request = fleet_service_pb2.GetNodeRequest(node_id="n" * listener.RECEIVED_BYTES_MAX)
        asked = post.ask("GetNode", request, post.operator)
        assert await posts.failing(asked) is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with posts.session(post.channel, "n-1", post.agent("n-1")) as call:
            said = agent_service_pb2.LogText(text="x" * listener.RECEIVED_BYTES_MAX)
            await call.write(agent_service_pb2.ConnectRequest(sequence=2, log_text=said))
            assert await posts.failing(_read_on(call)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await post.ask("ListNodes", posts.LIST, post.operator)


async def _read_on(call: Any) -> None:  # noqa: ANN401  # a raw call
    while await call.read() is not aio.EOF:
        pass


async def test_50_an_answer_past_the_limit_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SENT_BYTES_MAX", 256)
    async with posts.serving(tmp_path) as post, post.nodes({"n-1": {"note": "x" * 300}}):
        assert (
            await posts.failing(post.ask("ListNodes", posts.LIST, post.operator)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        )


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
        assert await posts.failing(post.ask("ListNodes", posts.LIST, more)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = await post.refused("ListNodes", posts.LIST, posts.bearer("x" * 6_000))
        assert error.code == "token_unknown"


async def test_47_of_a_bundle_that_nobody_takes_only_a_little_is_read(tmp_path: Path) -> None:
    system, engine = clock.SystemClock(), small_engine.SmallEngine(clock.SystemClock().now)
    blob = _Blob(bytes(64 << 20))
    enrolled = doors.enrolled(tmp_path)
    shown = posts.bearer(enrolled.make_token(doors.agent("n-1")).reveal())
    guards = doors.guards(enrolled, engine, system)
    server = aio.server(interceptors=[door.Door(guards, engine.keep_refusal, lambda _: None)])
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
        listed = await post.ask("ListNodes", posts.LIST, post.operator)
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
        listed = await post.ask("ListNodes", posts.LIST, post.operator)
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
        listed = await post.ask("ListNodes", posts.LIST, post.operator)
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
