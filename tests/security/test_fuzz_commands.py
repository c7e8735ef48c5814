"""Whatever a controller orders over the real wire, the real agent goes on and does not grow; see `test_fuzz`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import psutil
from google.protobuf import message
from hypothesis import strategies as st

from agent.link import convert
from controller import clock
from instar.v1 import agent_service_pb2, operation_pb2
from tests.security import controller, messages, test_fuzz

AGENT_BYTES_MAX = 45 << 20  # G12, after all of it
GROWTH_BYTES_MAX = 8 << 20  # after the first examples, in which it comes to its size
WARMING_EXAMPLES = 10
OPERATIONS_MAX = 50  # that are called off after an example
RESPONSE = agent_service_pb2.ConnectResponse


def _commands() -> st.SearchStrategy[message.Message]:
    return st.one_of(
        messages.messages(agent_service_pb2.Assign).map(lambda one: RESPONSE(assign=one)),
        messages.messages(agent_service_pb2.Assign).map(lambda one: RESPONSE(assign=_likely(one))),
        messages.messages(agent_service_pb2.Proceed).map(lambda one: RESPONSE(proceed=one)),
        messages.messages(agent_service_pb2.Cancel).map(lambda one: RESPONSE(cancel=one)),
    )


def _likely(drawn: Any) -> Any:  # noqa: ANN401  # generated classes
    """Put right what keeps most of what is drawn from being begun."""
    drawn.component, drawn.to_version = "web", "1.0.0"
    drawn.kind, drawn.method = operation_pb2.CHANGE_KIND_INSTALL, operation_pb2.METHOD_HOT_SWAP
    drawn.from_digest, drawn.to_digest = "", "sha256:" + "0" * 64
    drawn.hold_before = operation_pb2.STEP_UNSPECIFIED
    drawn.ClearField("start_by")
    drawn.deadline.seconds, drawn.deadline.nanos = 3600, 0
    for span in (drawn.soak_duration, drawn.min_healthy_duration, drawn.healthy_deadline):
        span.seconds, span.nanos = 1, 0
    return drawn


class Orders:
    """What is ordered of one agent: fences rise as they should, or lie anywhere below the next."""

    def __init__(self, leader: controller.Controller, agent: psutil.Process) -> None:
        self.leader = leader
        self.agent = agent
        self.accepted = 0
        self.examples = 0
        self.warm_bytes = 0
        self._at = clock.SystemClock().now()

    async def give(self, drawn: list[tuple[Any, bool]]) -> None:
        """Say all of it that an agent can read, and call off what has begun."""
        said = [self._fenced(each, is_next=is_next) for each, is_next in drawn]
        await self.leader.say(*(each for each in said if self._is_readable(each)))
        self.accepted += await _call_off(self.leader)
        self.examples += 1
        if self.examples == WARMING_EXAMPLES:
            self.warm_bytes = self.agent.memory_info().rss

    def _fenced(self, said: Any, *, is_next: bool) -> Any:  # noqa: ANN401  # generated classes
        one = getattr(said, said.WhichOneof("message"))
        self.leader.fence += is_next
        one.fence = self.leader.fence if is_next else one.fence % (self.leader.fence + 2)
        self.leader.fence = max(self.leader.fence, one.fence)
        return said

    def _is_readable(self, said: Any) -> bool:  # noqa: ANN401  # as above
        """Whether it comes as far as to commands: what cannot be read ends the session, which `test_fuzz` looks at."""
        with contextlib.suppress(convert.MessageError):
            convert.response(said, self._at)
            return True
        return False


async def _call_off(leader: controller.Controller) -> int:
    """Call off what the agent has said that it has begun, and return how much that is."""
    begun = [each for each in leader.told.values() if each.state not in controller.ENDED][:OPERATIONS_MAX]
    calls = [agent_service_pb2.Cancel(operation_id=each.operation_id, fence=each.fence) for each in begun]
    await leader.say(*(RESPONSE(cancel=each) for each in calls))
    return len(begun)


@contextlib.contextmanager
def turning() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """A loop that turns also while examples are made, so that the controller is never silent; what runs on it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="the controller")
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_whatever_is_ordered_the_agent_answers_goes_on_and_does_not_grow() -> None:
    with turning() as run:
        stack = contextlib.AsyncExitStack()
        leader, node = run(stack.enter_async_context(controller.leading(None)))
        try:
            run(leader.say())
            orders = Orders(leader, _agent(node))

            def check(said: list[tuple[Any, bool]]) -> None:
                run(orders.give(said))

            drawn = st.lists(st.tuples(_commands(), st.booleans()), min_size=1, max_size=6)
            test_fuzz.explore(drawn, check, examples=test_fuzz.EXAMPLES // 2)
            assert orders.accepted > 0
            resident_bytes = orders.agent.memory_info().rss
            assert _agent(node).pid == orders.agent.pid  # it never ended
            assert resident_bytes < AGENT_BYTES_MAX
            assert resident_bytes - orders.warm_bytes < GROWTH_BYTES_MAX
            run(_installs(leader, node))
            assert [line for line in node.log.read_text().splitlines() if json.loads(line)["level"] == "error"] == []
        except BaseException as error:
            error.add_note(node.log.read_text()[-4000:])
            raise
        finally:
            run(stack.aclose())


async def _installs(leader: controller.Controller, node: controller.Node) -> None:
    """What is right is done afterwards as ever."""
    digest = leader.publish(controller.web("1.0.0"))
    ended = await leader.ended(leader.order("1.0.0", digest))
    while ended.state == operation_pb2.OPERATION_STATE_REFUSED and ended.reason == "node_busy":
        await _call_off(leader)  # the last may have begun since; of an hour, and for a bundle that nobody has
        ended = await leader.ended(leader.order("1.0.0", digest))
    assert ended.state == operation_pb2.OPERATION_STATE_PERMANENT, ended
    assert await node.versions() == ["1.0.0"]


def _agent(node: controller.Node) -> psutil.Process:
    assert node.keeper.process is not None
    keeper = psutil.Process(node.keeper.process.pid)
    (found,) = [child for child in keeper.children() if "agent.toml" in child.cmdline()[-1]]
    return found
