"""Both ends of the link, over a wire that loses, repeats, reorders and breaks, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from agent.core import backoff
from agent.core import model as agent_model
from agent.link import loop as agent_loop
from agent.link import transport
from controller.core import errors, model
from controller.engine import commands
from controller.rpc import log_reading, principals, sessions
from tests.controller.rpc import small_engine, wire
from tests.simulation import loop as simulation_loop

NODE = model.NodeId("n-1")
SEEDS = 30
OPERATIONS = 12
STORM_SECONDS = 900.0
CALM_SECONDS = 300.0


class RandomNode:
    """A node whose state changes at random, and which carries out what it is asked."""

    def __init__(self, engine: small_engine.SmallEngine, draw: random.Random) -> None:
        self._engine = engine
        self._draw = draw
        self._clock = wire.LoopClock()
        self.components: dict[str, agent_model.ComponentStatus] = {}
        self.metrics: dict[str, float] = {}
        self.pending: dict[str, agent_model.OperationStatus] = {}
        self.outcomes: dict[str, agent_model.OperationStatus] = {}
        self.pending_steps: dict[tuple[str, int], agent_model.StepRecord] = {}
        self.all_steps: dict[tuple[str, int], agent_model.StepRecord] = {}
        self.taken: list[agent_model.Command] = []
        self.reading_seconds = 0.0

    async def read_log(self, asked: agent_model.ReadLog) -> agent_model.LogText:
        await asyncio.sleep(self.reading_seconds)
        return agent_model.LogText(asked.request_id, "i-1", f"{asked.component} {asked.max_bytes}\n")

    def hello_facts(self) -> agent_model.HelloFacts:
        return agent_model.HelloFacts("boot", "token", "1.0.0", (), 0)

    def full_report(self) -> agent_model.Report:
        return agent_model.Report(
            metrics=tuple(agent_model.Metric(name, "", value) for name, value in self.metrics.items()),
            components=tuple(self.components.values()),
            operations=tuple(self.pending.values()),
            steps=tuple(self.pending_steps.values()),
        )

    def take_command(self, command: agent_model.Command) -> None:
        self.taken.append(command)
        if isinstance(command, agent_model.Assign) and command.assignment.operation_id not in self.outcomes:
            self._set_state(command.assignment.operation_id, agent_model.OperationState.ACCEPTED)

    def acknowledged(
        self, operations: tuple[agent_model.OperationStatus, ...], steps: tuple[agent_model.StepRecord, ...]
    ) -> None:
        told = self._engine.told[NODE]
        for status in operations:
            assert status.state.name in {known.state.name for known in told.operations[status.operation_id]}
            if self.pending.get(status.operation_id) == status:
                del self.pending[status.operation_id]
        for record in steps:
            assert (record.operation_id, record.index) in told.steps
            self.pending_steps.pop((record.operation_id, record.index), None)

    def change(self) -> None:
        """Something happens on the node."""
        self.metrics[f"m{self._draw.randrange(5)}"] = self._draw.random()
        name = f"c{self._draw.randrange(3)}"
        if self._draw.random() < 0.3:
            self.components.pop(name, None)
        else:
            healthy_for = timedelta(seconds=self._draw.randrange(100))
            self.components[name] = agent_model.ComponentStatus(
                name, "1.0.0", "sha256:a", "sha256:a", agent_model.Health.HEALTHY, healthy_for
            )
        self._go_on()

    def finish(self) -> None:
        """Everything that was asked comes to its end."""
        for status in tuple(self.outcomes.values()):
            if status.state is not agent_model.OperationState.PERMANENT:
                self._set_state(status.operation_id, agent_model.OperationState.PERMANENT)

    def _go_on(self) -> None:
        for status in tuple(self.outcomes.values()):
            if status.state is agent_model.OperationState.PERMANENT or self._draw.random() < 0.5:
                continue
            later = {
                agent_model.OperationState.ACCEPTED: agent_model.OperationState.RUNNING,
                agent_model.OperationState.RUNNING: agent_model.OperationState.COMMITTED,
                agent_model.OperationState.COMMITTED: agent_model.OperationState.PERMANENT,
            }
            self._set_state(status.operation_id, later[status.state])

    def _set_state(self, operation_id: str, state: agent_model.OperationState) -> None:
        now = self._clock.now()
        status = agent_model.OperationStatus(operation_id, 8, "web", state, None, None, "", "", now)
        self.outcomes[operation_id] = self.pending[operation_id] = status
        index = 1 + sum(1 for known, _ in self.all_steps if known == operation_id)
        record = agent_model.StepRecord(
            operation_id, index, agent_model.Step.FETCH, now, now, is_success=True, evidence={"state": state.name}
        )
        self.all_steps[operation_id, index] = self.pending_steps[operation_id, index] = record


class Pair:
    """One agent and one controller."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.clock = wire.LoopClock()
        self.engine = small_engine.SmallEngine(self.clock.now)
        self.registry = sessions.Sessions()
        self.world = wire.World(draw, self._serve)
        self.node = RandomNode(self.engine, draw)
        self.link = agent_loop.Link(self.world, node_id=NODE, now=self.clock.now, draw=draw.random)

    async def _serve(self, far: wire.FarEnd) -> None:
        caller = principals.Principal(principals.Kind.AGENT, NODE)
        await sessions.AgentSession(self.engine, far, caller=caller, registry=self.registry, clock=self.clock).run()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.get_running_loop().create_task(self.link.run(self.node), name="link")
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.world.close()

    async def storm(self) -> None:
        """Everything changes and everything fails, for a while."""
        self.world.faults = wire.Faults(lost=0.15, repeated=0.15, delay_seconds_max=3.0)
        for index in range(OPERATIONS):
            self.engine.ask(NODE, *(small_engine.assign(f"r/{number}") for number in range(index + 1)))
            for _ in range(10):
                await asyncio.sleep(self.draw.random() * STORM_SECONDS / OPERATIONS / 5)
                self.node.change()
                if self.draw.random() < 0.5:
                    self.link.wake()
            if self.world.wires and self.draw.random() < 0.3:
                self.world.break_one()

    def check_quiet(self) -> None:
        """One session has lasted, and no message was missed."""
        assert len(self.world.wires) == 1
        assert self.engine.told[NODE].full_reports == 1

    def check(self) -> None:
        told = self.engine.told[NODE]
        assert told.components.keys() == self.node.components.keys()
        for name, component in self.node.components.items():
            assert told.components[name].healthy_for == component.healthy_for
        assert {name: told.metrics[name, ""] for name in self.node.metrics} == self.node.metrics
        assert {key: history[-1].changed_at for key, history in told.operations.items()} == {
            key: status.changed_at for key, status in self.node.outcomes.items()
        }
        assert len(self.node.outcomes) == OPERATIONS
        assert told.steps.keys() == self.node.all_steps.keys()
        for key, record in self.node.all_steps.items():
            assert dict(told.steps[key].evidence) == dict(record.evidence)
            assert told.steps[key].started_at == record.started_at
        assert not self.node.pending
        assert not self.node.pending_steps


def run_in_virtual_time(
    seed: int, scenario: Callable[[simulation_loop.VirtualLoop], Coroutine[Any, Any, None]]
) -> None:
    loop = simulation_loop.VirtualLoop(seed)
    try:
        loop.run_until_complete(scenario(loop))
    finally:
        loop.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_is_lost_the_controller_ends_with_all_that_the_node_knows_and_every_result(seed: int) -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running() as task:
            await pair.storm()
            pair.world.faults = wire.Faults()
            pair.node.finish()
            await asyncio.sleep(CALM_SECONDS)
            assert not task.done()
            pair.check()

    run_in_virtual_time(seed, scenario)


def test_a_quiet_node_is_told_of_once_and_then_only_says_that_it_lives() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        pair.node.metrics["m"] = 1.0
        async with pair.running():
            await asyncio.sleep(100)
            assert len(pair.world.wires) == 1
            assert 10 <= pair.engine.told[NODE].messages <= 13
            assert pair.link.latest_at_controller() is not None

    run_in_virtual_time(1, scenario)


def test_a_command_reaches_the_node_at_once_and_again_until_it_is_answered() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            proceed = commands.ProceedCommand(model.OperationId("r/0"), 8, model.Step.SWITCH, model.Step.COMMIT)
            pair.engine.ask(NODE, proceed)
            await asyncio.sleep(0.1)
            heard = agent_model.Proceed("r/0", 8, agent_model.Step.SWITCH, agent_model.Step.COMMIT)
            assert pair.node.taken == [heard]
            await asyncio.sleep(2 * sessions.COMMAND_REPEAT_SECONDS)
            assert len(pair.node.taken) == 3
            pair.engine.ask(NODE)
            await asyncio.sleep(60)
            assert len(pair.node.taken) == 3

    run_in_virtual_time(2, scenario)


def test_an_assignment_that_was_answered_is_not_said_again() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            pair.engine.ask(NODE, small_engine.assign())
            await asyncio.sleep(0.1)
            pair.link.wake()
            await asyncio.sleep(60)
            assert len(pair.node.taken) == 1
            assert not pair.node.pending
            assert not pair.node.pending_steps

    run_in_virtual_time(3, scenario)


def test_a_result_is_settled_long_before_the_next_heartbeat() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            pair.node._set_state("r/9", agent_model.OperationState.PERMANENT)
            pair.link.wake()
            await asyncio.sleep(0.2)
            assert not pair.node.pending

    run_in_virtual_time(4, scenario)


def test_when_the_controller_goes_away_agents_come_back_within_its_window_and_no_session_is_left() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            left_at = loop.time()
            await pair.registry.go_away()
            assert len(pair.registry) == 0
            assert pair.world.ends == []
            await asyncio.sleep(5)
            window = sessions.GO_AWAY_WINDOW_MIN.total_seconds()
            assert left_at <= pair.world.connected_at_seconds[1] <= left_at + window + 1
            assert {end.code for end in pair.world.ends} == {"controller_leaving"}
            pair.registry = sessions.Sessions()
            await asyncio.sleep(30)
            assert len(pair.registry) == 1

    run_in_virtual_time(5, scenario)


def test_a_node_that_connects_again_takes_the_place_of_its_older_session() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            twin = agent_loop.Link(pair.world, node_id=NODE, now=pair.clock.now, draw=loop.random.random)
            running = loop.create_task(twin.run(pair.node), name="twin")
            await asyncio.sleep(0.1)
            assert [end.code for end in pair.world.ends] == ["session_replaced"]
            assert len(pair.registry) == 1
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_in_virtual_time(6, scenario)


def test_an_agent_without_a_controller_knocks_ever_more_seldom_and_never_stops() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        pair.world.refusal = transport.LinkError("cannot connect: nobody listens")
        async with pair.running() as task:
            await asyncio.sleep(3600)
            assert not task.done()
            knocks = pair.world.connected_at_seconds
            assert 240 < len(knocks) < 600
            pair.world.refusal = None
            await asyncio.sleep(backoff.CAP.total_seconds() + 1)
            assert len(pair.registry) == 1

    run_in_virtual_time(7, scenario)


def test_a_controller_that_accepts_and_then_fails_is_not_knocked_at_in_a_hot_loop() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        pair.engine.failure = errors.UnavailableError("cannot store: the disk is full", code="disk_full")
        async with pair.running():
            await asyncio.sleep(3600)
            assert len(pair.world.connected_at_seconds) < 600
            pair.engine.failure = None
            await asyncio.sleep(120)
            assert len(pair.registry) == 1

    run_in_virtual_time(8, scenario)


def test_an_agent_that_falls_silent_is_evicted_after_three_periods() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            pair.world.wires[0]._requests._faults = wire.Faults(lost=1.0)
            await asyncio.sleep(sessions.SILENT_PERIODS_MAX * small_engine.HEARTBEAT_PERIOD.total_seconds())
            assert [end.code for end in pair.world.ends] == ["agent_stalled"]

    run_in_virtual_time(9, scenario)


def test_a_controller_that_falls_silent_is_left() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            pair.world.wires[0]._responses._faults = wire.Faults(lost=1.0)
            await asyncio.sleep(agent_loop.SILENT_PERIODS_MAX * small_engine.HEARTBEAT_PERIOD.total_seconds() + 20)
            assert len(pair.world.wires) == 2
            assert len(pair.registry) == 1

    run_in_virtual_time(10, scenario)


def test_what_an_agent_cannot_know_is_not_acknowledged_away() -> None:
    """A result that changes while its acknowledgement is under way is told again."""

    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            pair.world.faults.delay_seconds_max = 1.0
            pair.node._set_state("r/9", agent_model.OperationState.RUNNING)
            pair.link.wake()
            await asyncio.sleep(0.5)
            pair.node._set_state("r/9", agent_model.OperationState.PERMANENT)
            await asyncio.sleep(60)
            states = [status.state.name for status in pair.engine.told[NODE].operations["r/9"]]
            assert states[-1] == "PERMANENT"
            assert not pair.node.pending

    run_in_virtual_time(11, scenario)


WEB = model.ComponentName("web")


def test_logs_are_read_beside_the_heartbeats_and_disturb_none() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running():
            await asyncio.sleep(1)
            logs = pair.registry.logs(NODE)
            found = [await logs.read(WEB, number) for number in range(3)]
            assert [answer.text for answer in found] == ["web 0\n", "web 1\n", "web 2\n"]
            await asyncio.sleep(60)
            pair.check_quiet()

    run_in_virtual_time(12, scenario)


def test_a_node_that_does_not_answer_is_given_up_in_time_and_answers_late_to_nobody() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        pair.node.reading_seconds = 2 * log_reading.READ_DEADLINE_SECONDS
        async with pair.running():
            await asyncio.sleep(1)
            with pytest.raises(errors.UnavailableError) as refused:
                await pair.registry.logs(NODE).read(WEB, 1)
            assert (refused.value.code, loop.time()) == ("node_silent", 1 + log_reading.READ_DEADLINE_SECONDS)
            await asyncio.sleep(60)
            pair.check_quiet()

    run_in_virtual_time(13, scenario)


def test_a_session_that_ends_ends_the_reading_of_its_logs() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        pair.node.reading_seconds = 5
        async with pair.running():
            await asyncio.sleep(1)
            loop.call_later(1, pair.world.break_one)
            with pytest.raises(errors.RefusedError) as refused:
                await pair.registry.logs(NODE).read(WEB, 1)
            assert (refused.value.code, loop.time()) == ("node_not_connected", 2)
            with pytest.raises(errors.RefusedError, match="cannot ask node n-1: it is not connected"):
                pair.registry.logs(NODE)

    run_in_virtual_time(14, scenario)


def test_so_many_logs_are_read_at_one_node_and_no_more() -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        pair.node.reading_seconds = 5
        async with pair.running(), asyncio.TaskGroup() as group:
            await asyncio.sleep(1)
            logs = pair.registry.logs(NODE)
            reads = [group.create_task(logs.read(WEB, number)) for number in range(log_reading.NODE_READS_MAX)]
            await asyncio.sleep(1)
            with pytest.raises(errors.UnavailableError) as refused:
                await logs.read(WEB, 9)
            assert refused.value.code == "too_many_log_reads"
            await asyncio.sleep(10)
            assert [read.result().text for read in reads] == [f"web {number}\n" for number in range(len(reads))]

    run_in_virtual_time(15, scenario)


def test_so_many_logs_are_read_at_once_and_no_more() -> None:
    room = log_reading.Room()
    with contextlib.ExitStack() as stack:
        for _ in range(log_reading.READS_MAX):
            stack.enter_context(room.place())
        with pytest.raises(errors.UnavailableError) as refused, room.place():
            pass
        assert refused.value.code == "too_many_log_reads"
    with room.place():
        pass


@pytest.mark.parametrize("seed", range(5))
def test_a_log_that_is_lost_on_the_way_leaves_the_conversation_whole(seed: int) -> None:
    async def scenario(loop: simulation_loop.VirtualLoop) -> None:
        pair = Pair(loop.random)
        async with pair.running() as task:
            await asyncio.sleep(1)
            pair.world.faults = wire.Faults(lost=0.3, delay_seconds_max=1.0)
            for _ in range(20):
                with contextlib.suppress(errors.InstarError):
                    await pair.registry.logs(NODE).read(WEB, 1)
            pair.world.faults = wire.Faults()
            pair.node.finish()
            await asyncio.sleep(CALM_SECONDS)
            assert not task.done()
            assert (await pair.registry.logs(NODE).read(WEB, 7)).text == "web 7\n"

    run_in_virtual_time(seed, scenario)
