"""The link against a controller of a few lines, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta

import pytest

from agent.core import backoff, model
from agent.link import loop, transport
from instar.v1 import agent_service_pb2, operation_pb2
from tests.controller.rpc import wire
from tests.simulation import loop as simulation_loop

NOW = datetime(2030, 1, 1, tzinfo=UTC)
Response = agent_service_pb2.ConnectResponse


class Node:
    """A node that notes what it is told, or fails at it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.taken: list[model.Command] = []
        self.read = 0
        self._failure = failure

    def hello_facts(self) -> model.HelloFacts:
        return model.HelloFacts("boot", "token", "1.0.0", (), 0)

    def full_report(self) -> model.Report:
        return model.Report()

    def take_command(self, command: model.Order) -> None:
        if self._failure is not None:
            raise self._failure
        self.taken.append(command)

    async def read_log(self, asked: model.ReadLog) -> model.LogText:
        self.read += 1
        if asked.component == "slow":
            await asyncio.Event().wait()
        return model.LogText(asked.request_id, "web-1", "the last line\n")

    def acknowledged(self, operations: tuple[model.OperationStatus, ...], steps: tuple[model.StepRecord, ...]) -> None:
        del operations, steps


def welcome() -> Response:
    message = Response(welcome=agent_service_pb2.Welcome(session_id="s", session_generation=1, protocol_version=1))
    message.welcome.heartbeat_period.FromTimedelta(timedelta(seconds=10))
    return message


PROCEED = Response(proceed=agent_service_pb2.Proceed(operation_id="r/1", fence=8, step=operation_pb2.STEP_SWITCH))


def saying(*said: Response) -> wire.World:
    """A world in which the controller answers each hello with these messages."""

    async def serve(far: wire.FarEnd) -> None:
        await far.receive()
        for message in said:
            await far.send(message)
        while await far.receive() is not None:
            pass

    return wire.World(random.Random(1), serve)  # noqa: S311 a test wants repeatable draws


def play(world: wire.World, scene: Coroutine[None, None, None]) -> None:
    """Play a scene in a world, in virtual time."""
    virtual = simulation_loop.VirtualLoop(1)
    try:
        virtual.run_until_complete(scene)
        virtual.run_until_complete(world.close())
    finally:
        virtual.close()


def run(world: wire.World, node: Node, seconds: float, draw: float = 0.5) -> None:
    """Run a link in a world for some virtual time; what ends it earlier is raised."""

    async def main() -> None:
        link = loop.Link(world, node_id="n-1", now=lambda: NOW, draw=lambda: draw)
        task = asyncio.get_running_loop().create_task(link.run(node), name="link")
        await asyncio.wait([task], timeout=seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    play(world, main())


def test_what_cannot_be_read_is_passed_over_and_what_follows_is_heard() -> None:
    node = Node()
    broken = Response(assign=agent_service_pb2.Assign())
    world = saying(welcome(), broken, Response(), PROCEED)
    run(world, node, 1)
    assert node.taken == [model.Proceed("r/1", 8, model.Step.SWITCH, None)]
    assert len(world.wires) == 1


def test_an_illegal_message_ends_the_session_and_not_the_link() -> None:
    world = saying(welcome(), welcome())
    run(world, Node(), 30)
    assert len(world.wires) > 2


def test_how_late_it_is_at_the_controller_is_known_though_the_wall_clock_was_set_and_though_the_host_slept() -> None:
    server_time = NOW + timedelta(hours=3)  # the controller's clock is fast, by this node's

    async def serve(far: wire.FarEnd) -> None:
        await far.receive()
        await far.send(welcome())
        while (heard := await far.receive()) is not None:
            told = agent_service_pb2.Acknowledgement(sequence=heard.sequence)
            told.heartbeat_period.FromTimedelta(timedelta(seconds=3600))
            told.echo_send_time.CopyFrom(heard.heartbeat.send_time)
            told.server_time.FromDatetime(server_time)
            await far.send(Response(acknowledgement=told))

    world = wire.World(random.Random(1), serve)  # noqa: S311 a test wants repeatable draws
    wall = [NOW]

    async def main() -> None:
        link = loop.Link(world, node_id="n-1", now=lambda: wall[0], draw=lambda: 0.5)
        assert link.latest_at_controller() is None
        task = asyncio.get_running_loop().create_task(link.run(Node()), name="link")
        await asyncio.sleep(1)
        told = link.latest_at_controller()
        assert told is not None
        assert server_time <= told < server_time + timedelta(seconds=2)
        for moved in (timedelta(hours=-5), timedelta(), timedelta(hours=5)):
            await asyncio.sleep(60)
            wall[0] = NOW + moved
            told = link.latest_at_controller()
            assert told is not None
            assert told >= server_time + max(timedelta(minutes=1), moved)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    play(world, main())


def asking(request_id: int, component: str = "web") -> Response:
    asked = agent_service_pb2.ReadLog(request_id=request_id, component=component, max_bytes=100)
    return Response(read_log=asked)


def hearing(heard: list[agent_service_pb2.ConnectRequest], *said: Response) -> wire.World:
    """A world as `saying` makes it, whose controller notes what it hears."""

    async def serve(far: wire.FarEnd) -> None:
        await far.receive()
        for message in said:
            await far.send(message)
        while (told := await far.receive()) is not None:
            heard.append(told)

    return wire.World(random.Random(1), serve)  # noqa: S311 a test wants repeatable draws


def test_a_question_for_a_log_is_answered_within_the_row_of_messages() -> None:
    heard: list[agent_service_pb2.ConnectRequest] = []
    run(hearing(heard, welcome(), asking(7)), Node(), 30)
    [answer] = [message for message in heard if message.HasField("log_text")]
    assert (answer.log_text.request_id, answer.log_text.text) == (7, "the last line\n")
    assert [message.sequence for message in heard] == list(range(2, len(heard) + 2))


def test_a_slow_log_holds_nothing_up_and_more_than_a_few_are_not_read() -> None:
    heard: list[agent_service_pb2.ConnectRequest] = []
    node = Node()
    questions = [asking(number, "slow") for number in range(loop.LOGS_MAX + 3)]
    run(hearing(heard, welcome(), *questions, PROCEED), node, 30)
    assert node.read == loop.LOGS_MAX
    assert node.taken == [model.Proceed("r/1", 8, model.Step.SWITCH, None)]
    assert heard
    assert not [message for message in heard if message.HasField("log_text")]


@pytest.mark.parametrize("is_acknowledging", [False, True])
def test_only_an_acknowledged_report_makes_the_link_heard(*, is_acknowledging: bool) -> None:
    async def serve(far: wire.FarEnd) -> None:
        await far.receive()
        await far.send(welcome())
        while await far.receive() is not None:
            if is_acknowledging:
                message = Response(acknowledgement=agent_service_pb2.Acknowledgement(sequence=2))
                message.acknowledgement.heartbeat_period.FromTimedelta(timedelta(seconds=10))
                await far.send(message)

    async def main() -> tuple[bool, bool]:
        link = loop.Link(world, node_id="n-1", now=lambda: NOW, draw=lambda: 0.5)
        task = asyncio.get_running_loop().create_task(link.run(Node()), name="link")
        await asyncio.wait([task], timeout=5)
        told = link.is_open, link.is_acknowledged
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return told

    world = wire.World(random.Random(1), serve)  # noqa: S311 a test wants repeatable draws
    virtual = simulation_loop.VirtualLoop(1)
    try:
        assert virtual.run_until_complete(main()) == (True, is_acknowledging)
        virtual.run_until_complete(world.close())
    finally:
        virtual.close()


def test_a_controller_that_never_welcomes_is_left_after_the_deadline() -> None:
    world = saying()
    run(world, Node(), loop.WELCOME_DEADLINE_SECONDS + 1)
    assert len(world.wires) == 2


def test_an_error_of_the_node_itself_ends_the_link() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        run(saying(welcome(), PROCEED), Node(ValueError("a fault of ours")), 1)
    assert caught.group_contains(ValueError)


@pytest.mark.parametrize("draw", [0.0, 0.9])
def test_a_controller_that_wants_to_be_left_alone_is_not_met_by_all_at_once_afterwards(draw: float) -> None:
    world = saying()
    world.refusal = transport.LinkError("cannot connect: later", retry_after=timedelta(seconds=40))
    run(world, Node(), 60, draw)
    assert world.connected_at_seconds[1] == pytest.approx(40 + draw * backoff.BASE.total_seconds())


def test_a_bundle_is_fetched_by_the_way_of_the_link() -> None:
    async def main() -> None:
        link = loop.Link(saying(), node_id="n-1", now=lambda: NOW, draw=lambda: 0.5)
        assert [chunk async for chunk in link.fetch("sha256:a", 7)] == [b"sha256:a@7"]

    asyncio.run(main())


def test_a_new_certificate_is_shown_on_a_connection_that_is_there_before_the_present_one_ends() -> None:
    world = saying(welcome())

    async def main() -> None:
        link = loop.Link(world, node_id="n-1", now=lambda: NOW, draw=lambda: 0.9)
        task = asyncio.get_running_loop().create_task(link.run(Node()), name="link")
        await asyncio.sleep(1)
        world.refusal = transport.LinkError("cannot connect anew")
        await link.move()
        await asyncio.sleep(1)
        assert (link.is_open, len(world.wires)) == (True, 1)  # nobody answers there: what is goes on
        world.refusal = None
        moved_at_seconds = asyncio.get_running_loop().time()
        await link.move()
        await asyncio.sleep(1)
        assert (link.is_open, len(world.wires), world.prepared) == (True, 2, 1)
        assert world.connected_at_seconds[1] - moved_at_seconds <= 2 * loop.WAKE_GAP_SECONDS
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    play(world, main())
