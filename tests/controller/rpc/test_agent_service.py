"""Both ends of the link over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import grpc
import pytest
from grpc import aio

from agent.core import model as agent_model
from agent.core import secret
from agent.link import loop as agent_loop
from agent.link import transport
from controller import clock
from controller.core import errors, model
from controller.engine import commands
from controller.rpc import admission, agent_convert, agent_service, door, sessions
from controller.trust import unsigned
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc, node_pb2
from tests.controller.rpc import doors, small_engine

NODE = model.NodeId("n-1")
BLOB = bytes(range(256)) * 4 * 1024 * 3 + b"end"  # three chunks and a bit
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
DEADLINE_SECONDS = 20.0


def open_blob(digest: model.Digest) -> BinaryIO:
    if digest != DIGEST:
        raise errors.NotFoundError(f"cannot open bundle {digest}", code="bundle_not_found", field="digest")
    return io.BytesIO(BLOB)


@dataclass
class StillNode:
    """A node that only says what the test put there."""

    report: agent_model.Report = field(default_factory=agent_model.Report)
    taken: list[agent_model.Command] = field(default_factory=list)
    settled: list[agent_model.OperationStatus] = field(default_factory=list)

    def hello_facts(self) -> agent_model.HelloFacts:
        return agent_model.HelloFacts("boot", "token", "1.0.0", (), 0)

    def full_report(self) -> agent_model.Report:
        return self.report

    def take_command(self, command: agent_model.Command) -> None:
        self.taken.append(command)

    async def read_log(self, asked: agent_model.ReadLog) -> agent_model.LogText:
        return agent_model.LogText(asked.request_id, "i-1", f"{asked.component} wrote this\n")

    def acknowledged(
        self, operations: tuple[agent_model.OperationStatus, ...], steps: tuple[agent_model.StepRecord, ...]
    ) -> None:
        del steps
        self.settled.extend(operations)


@dataclass
class Controller:
    """A server on loopback with a small engine behind it."""

    engine: small_engine.SmallEngine
    service: agent_service.AgentService
    address: str
    token: str

    def transport(self) -> transport.GrpcTransport:
        return transport.GrpcTransport(self.address, lambda: secret.Secret(self.token))

    @contextlib.asynccontextmanager
    async def raw_call(self) -> AsyncIterator[aio.StreamStreamCall[Any, Any]]:
        async with aio.insecure_channel(self.address) as channel:
            metadata = aio.Metadata(("authorization", f"Bearer {self.token}"))
            call = agent_service_pb2_grpc.AgentServiceStub(channel).Connect(metadata=metadata)
            yield call
            call.cancel()


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    system = clock.SystemClock()
    engine = small_engine.SmallEngine(system.now)
    enrolled = doors.enrolled(tmp_path)
    token = enrolled.make_token(doors.agent(NODE)).reveal()
    guards = doors.guards(enrolled, engine, system)
    server = aio.server(interceptors=[door.Door(guards, engine.keep_refusal, lambda _: None)])
    service = agent_service.AgentService(
        engine,
        caller=guards.callers.caller,
        open_blob=open_blob,
        read_trust=unsigned.Unsigned().read,
        clock=system,
    )
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Controller(engine, service, f"127.0.0.1:{port}", token)
    await server.stop(None)


@contextlib.asynccontextmanager
async def linked(controller: Controller, node: StillNode) -> AsyncIterator[agent_loop.Link]:
    link = agent_loop.Link(controller.transport(), node_id=NODE, now=clock.SystemClock().now, draw=lambda: 0.5)
    running = asyncio.get_running_loop().create_task(link.run(node), name="link")
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], Any]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():  # noqa: ASYNC110 what is waited for lies in several places that have no event
            await asyncio.sleep(0.01)


async def heard(call: aio.StreamStreamCall[Any, Any]) -> agent_service_pb2.ConnectResponse:
    response = await call.read()
    assert isinstance(response, agent_service_pb2.ConnectResponse)
    return response


def calls_in_progress() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if "AgentService/Connect" in task.get_name()]


def hello(node_id: str = NODE, versions: tuple[int, ...] = (1,)) -> agent_service_pb2.ConnectRequest:
    return agent_service_pb2.ConnectRequest(
        sequence=1, hello=agent_service_pb2.Hello(node_id=node_id, protocol_versions=versions)
    )


def heartbeat(sequence: int) -> agent_service_pb2.ConnectRequest:
    return agent_service_pb2.ConnectRequest(sequence=sequence, heartbeat=agent_service_pb2.Heartbeat())


async def test_an_agent_is_welcomed_gets_its_command_and_has_its_result_settled(controller: Controller) -> None:
    node = StillNode()
    async with linked(controller, node) as link:
        await until(lambda: len(controller.service.sessions) == 1)
        controller.engine.ask(NODE, small_engine.assign())
        await until(lambda: node.taken)
        status = agent_model.OperationStatus(
            "r/1", 8, "web", agent_model.OperationState.PERMANENT, None, None, "", "", clock.SystemClock().now()
        )
        node.report = agent_model.Report(operations=(status,))
        link.wake()
        await until(lambda: node.settled == [status])
        (told,) = controller.engine.told[NODE].operations["r/1"]
        assert told.state is model.OperationState.PERMANENT
        await until(lambda: link.latest_at_controller() is not None)
    await until(lambda: len(controller.service.sessions) == 0 and controller.engine.told[NODE].session_id is None)


async def test_an_agent_leaves_when_the_controller_goes_away_and_finds_it_again(controller: Controller) -> None:
    async with linked(controller, StillNode()):
        await until(lambda: len(controller.service.sessions) == 1)
        await controller.service.go_away()
        assert len(controller.service.sessions) == 0
        controller.service.sessions = sessions.Sessions()
        await until(lambda: len(controller.service.sessions) == 1)
        assert controller.engine.told[NODE].generation == 2


async def test_a_bundle_is_read_whole_or_from_an_offset(controller: Controller) -> None:
    way = controller.transport()
    for offset in (0, 5, len(BLOB) - 1, len(BLOB)):
        chunks = [chunk async for chunk in way.read_blob(DIGEST, offset)]
        assert b"".join(chunks) == BLOB[offset:]
        assert all(len(chunk) <= agent_service.CHUNK_BYTES for chunk in chunks)


@pytest.mark.parametrize(
    ("digest", "offset", "status"),
    [("sha256:" + "0" * 64, 0, "NOT_FOUND"), (DIGEST, len(BLOB) + 1, "INVALID_ARGUMENT")],
    ids=["unknown digest", "past the end"],
)
async def test_a_bundle_that_cannot_be_read_is_refused(
    controller: Controller, digest: str, offset: int, status: str
) -> None:
    with pytest.raises(transport.LinkError, match=status):
        _ = [chunk async for chunk in controller.transport().read_blob(digest, offset)]


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (hello(node_id="n-2"), grpc.StatusCode.PERMISSION_DENIED),
        (hello(versions=(2, 3)), grpc.StatusCode.FAILED_PRECONDITION),
        (heartbeat(1), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["node of another token", "protocol of the future", "no hello"],
)
async def test_a_stream_that_begins_wrongly_is_ended_with_its_reason(
    controller: Controller, first: agent_service_pb2.ConnectRequest, status: grpc.StatusCode
) -> None:
    async with controller.raw_call() as call:
        await call.write(first)
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is status
    assert controller.engine.told == {}


async def test_a_wrong_token_opens_nothing(controller: Controller) -> None:
    stream = await transport.GrpcTransport(controller.address, lambda: secret.Secret("nonsense")).connect()
    with pytest.raises(transport.LinkError, match="UNAUTHENTICATED"):
        await stream.receive()
    await stream.close()


async def test_a_crowd_is_told_when_to_come_back(controller: Controller) -> None:
    controller.service._bucket._tokens = float(admission.SESSIONS_RESERVED) - 40
    stream = await controller.transport().connect()
    with pytest.raises(transport.LinkError, match="RESOURCE_EXHAUSTED") as caught:
        await stream.receive()
    assert timedelta() < caught.value.retry_after < timedelta(seconds=1)
    await stream.close()


async def test_a_controller_that_is_not_there_is_a_link_error() -> None:
    stream = await transport.GrpcTransport("127.0.0.1:1", lambda: secret.Secret("token")).connect()
    with pytest.raises(transport.LinkError, match="UNAVAILABLE"):
        await stream.receive()
    await stream.close()


async def test_a_second_hello_ends_the_stream(controller: Controller) -> None:
    async with controller.raw_call() as call:
        await call.write(hello())
        assert (await heard(call)).HasField("welcome")
        again = hello()
        again.sequence = 2
        await call.write(again)
        with pytest.raises(aio.AioRpcError, match="only heartbeats"):
            await call.read()


async def test_a_gap_is_answered_by_a_request_for_everything(controller: Controller) -> None:
    async with controller.raw_call() as call:
        await call.write(hello())
        assert (await heard(call)).HasField("welcome")
        await call.write(heartbeat(3))
        assert (await heard(call)).full_report_request.expected_sequence == 2
        full = heartbeat(4)
        full.heartbeat.full = True
        await call.write(full)
        assert (await heard(call)).acknowledgement.sequence == 4


async def test_a_repeated_message_is_acknowledged_again_and_taken_once(controller: Controller) -> None:
    async with controller.raw_call() as call:
        await call.write(hello())
        assert (await heard(call)).HasField("welcome")
        full = heartbeat(2)
        full.heartbeat.full = True
        for message in (full, heartbeat(3), full):
            await call.write(message)
        while (await heard(call)).acknowledgement.sequence != 3:
            pass
        await call.write(heartbeat(4))
        await until(lambda: controller.engine.told[NODE].messages == 4)


async def test_each_third_heartbeat_is_acknowledged(controller: Controller) -> None:
    async with controller.raw_call() as call:
        await call.write(hello())
        assert (await heard(call)).HasField("welcome")
        await call.write(heartbeat(2))
        assert (await heard(call)).acknowledgement.sequence == 2
        for sequence in (3, 4, 5):
            await call.write(heartbeat(sequence))
        assert (await heard(call)).acknowledgement.sequence == 5


async def test_a_peer_that_takes_nothing_is_evicted_and_disturbs_nobody(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "WRITE_DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(agent_service, "LINGER_SECONDS", 0.1)
    async with controller.raw_call() as call:
        await call.write(hello())
        await until(lambda: len(controller.service.sessions) == 1)
        # More than the windows of HTTP/2 and the socket hold; the peer never reads.
        reason = "x" * (3 << 20)
        controller.engine.ask(
            NODE,
            *(commands.CancelCommand(model.OperationId(f"r/{index}"), 8, reason) for index in range(12)),
        )
        await until(lambda: controller.engine.told[NODE].session_id is None)
        await until(lambda: not calls_in_progress())
        with pytest.raises(aio.AioRpcError, match="took nothing"):
            _ = [response async for response in call]
    controller.engine.ask(NODE)
    async with linked(controller, StillNode()):
        await until(lambda: len(controller.service.sessions) == 1)


async def test_a_log_and_what_is_wrong_with_a_node_travel_over_the_link(controller: Controller) -> None:
    condition = agent_model.Condition("disk_low", "", "1 GiB is free", clock.SystemClock().now())
    node = StillNode(agent_model.Report(conditions=(condition,)))
    async with linked(controller, node) as link:
        await until(lambda: len(controller.service.sessions) == 1)
        answer = await controller.service.sessions.logs(NODE).read(model.ComponentName("web"), 100)
        assert (answer.instance_id, answer.text, answer.error) == ("i-1", "web wrote this\n", "")
        told = controller.engine.told[NODE]
        assert [(each.code, each.message, each.since) for each in told.conditions] == [
            ("disk_low", "1 GiB is free", condition.since)
        ]
        node.report = agent_model.Report(conditions=())
        link.wake()
        await until(lambda: not told.conditions)


async def test_a_condition_without_a_code_ends_the_session(controller: Controller) -> None:
    async with controller.raw_call() as call:
        report = agent_service_pb2.Report(conditions=node_pb2.Conditions(items=[node_pb2.Condition(code="Bad!")]))
        said = agent_service_pb2.ConnectRequest(
            sequence=1, hello=agent_service_pb2.Hello(node_id=NODE, protocol_versions=[1], report=report)
        )
        await call.write(said)
        with pytest.raises(aio.AioRpcError, match=r"cannot read conditions\.code"):
            await heard(call)


async def test_more_conditions_than_a_node_can_have_are_refused(controller: Controller) -> None:
    async with controller.raw_call() as call:
        items = [node_pb2.Condition(code="drift")] * (agent_convert.CONDITIONS_MAX + 1)
        report = agent_service_pb2.Report(conditions=node_pb2.Conditions(items=items))
        said = agent_service_pb2.ConnectRequest(
            sequence=1, hello=agent_service_pb2.Hello(node_id=NODE, protocol_versions=[1], report=report)
        )
        await call.write(said)
        with pytest.raises(aio.AioRpcError, match=r"cannot read conditions '65'"):
            await heard(call)
