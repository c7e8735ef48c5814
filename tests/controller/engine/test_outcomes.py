"""What came of operations: counted once, learnt from once, and still known after a crash."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from controller import engine
from controller.core import model
from controller.store import database, reading
from tests.controller.engine import fleet

S = model.RolloutState


KINDS = 3  # an outcome counts for its own kind of change, and for two wider ones


def learnt(machine: engine.Engine) -> dict[str, int]:
    records = machine._desk.world.memory.records
    return {str(kind): records[kind].trials for kind in sorted(records, key=str)}


def outcomes(controller: fleet.Controller) -> list[model.Outcome]:
    found = controller.store.read(reading.snapshot).outcomes
    return sorted(found, key=lambda each: (each.node_id, each.to_version))


def test_each_upgrade_leaves_one_outcome_that_is_known_after_a_crash(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        agents[0].labels = {"zone": "a", "class": "large"}
        await agents[0].connect(machine)
        await machine.start_upgrade(fleet.request(policy=model.Policy(max_failures=1)), request_id="one", actor="ann")
        await asyncio.sleep(3)
        await agents[2].fail(machine)
        for agent in agents[:2]:
            await agent.obey(machine)
            await agent.tell(machine, agent.full_report())
        first, _, last = outcomes(controller)
        assert (first.from_version, first.to_version, first.method) == ("1.0.0", "1.1.0", model.Method.HOT_SWAP)
        assert (first.node_class, first.is_success, first.is_version_fault) == ("large", True, False)
        assert first.duration == timedelta(seconds=3)
        assert (last.node_class, last.is_success, last.is_version_fault) == ("", False, True)
        before = learnt(machine)
        assert sum(before.values(), start=0) == 3 * KINDS
        assert learnt(await controller.restart()) == before

    fleet.told(where, tale)


def test_a_version_that_was_found_at_fault_after_its_commit_is_a_failure_and_not_a_success(
    where: database.Where,
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        policy = model.Policy(healthy_deadline=timedelta(seconds=60))
        await machine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        await agents[0].tell_status(machine, command, model.OperationState.COMMITTED)
        await asyncio.sleep(61)
        ill = replace(fleet.installed("1.1.0", 0), health=model.Health.UNHEALTHY)
        await agents[0].tell(machine, model.NodeReport(components=(ill,)))
        assert machine.rollout("up").state is S.REVERTING
        [outcome] = [each for each in outcomes(controller) if each.node_id == agents[0].node_id]
        assert (outcome.is_success, outcome.is_version_fault) == (False, True)
        await agents[0].tell_status(machine, command, model.OperationState.PERMANENT)
        [again] = [each for each in outcomes(controller) if each.operation_id == command.operation_id]
        assert again == outcome

    fleet.told(where, tale)


def test_a_success_that_only_shows_in_what_the_node_runs_is_a_success(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        policy = model.Policy(unknown_deadline=timedelta(seconds=30), max_infrastructure_failures=3)
        await machine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        agent = agents[0]
        command = agent.assigned(machine)[0]
        await agent.tell_status(machine, command, model.OperationState.RUNNING)
        await asyncio.sleep(20)
        await agents[1].tell_status(machine, agents[1].assigned(machine)[0], model.OperationState.RUNNING)
        await asyncio.sleep(11)  # after which nobody knows what became of the first; the second keeps the rollout going
        agent.version = "1.1.0"
        agent.statuses.clear()
        await agent.tell(machine, agent.full_report())
        [outcome] = [each for each in outcomes(controller) if each.node_id == agent.node_id]
        assert (outcome.is_success, outcome.is_version_fault) == (True, False)
        assert machine.statistics().completed == 1

    fleet.told(where, tale)


def test_an_operation_that_leads_to_no_version_teaches_nothing_and_is_counted(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        wanted = fleet.request(target_version="", kind=model.ChangeKind.RESTART)
        await machine.start_upgrade(wanted, request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        await agents[0].tell_status(machine, command, model.OperationState.ABORTED, fault=model.Fault.COMMAND)
        assert outcomes(controller) == []
        assert machine.statistics().failed == 1

    fleet.told(where, tale)


def test_the_statistics_are_one_consistent_set_also_after_a_crash(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        wanted = fleet.request(policy=model.Policy(max_parallel=1))
        await machine.start_upgrade(wanted, request_id="one", actor="ann")
        counted = machine.statistics()
        assert (counted.queued, counted.active, counted.distributed, counted.completed) == (2, 1, 1, 0)
        assert (counted.total_nodes, counted.active_nodes, counted.mean_duration) == (3, 3, None)
        await asyncio.sleep(4)
        next(agent for agent in agents if agent.assigned(machine)).fence = 0
        await next(agent for agent in agents if agent.assigned(machine)).obey(machine)
        await agents[0].disconnect(machine)
        counted = machine.statistics()
        assert (counted.queued, counted.active, counted.distributed, counted.completed) == (1, 1, 2, 1)
        assert (counted.active_nodes, counted.mean_duration) == (2, timedelta(seconds=4))
        again = (await controller.restart()).statistics()
        assert replace(again, active_nodes=2) == counted

    fleet.told(where, tale)


def test_an_operation_of_which_nobody_heard_in_time_is_counted_as_timed_out_once(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        async for _ in machine.watch(begun.id):
            pass
        await agents[0].connect(machine)
        counted = machine.statistics()
        assert (counted.failed, counted.timed_out, counted.completed) == (1, 1, 0)
        await agents[0].tell_status(machine, command, model.OperationState.EXPIRED)
        assert machine.statistics() == counted

    fleet.told(where, tale, nodes=1)


def test_what_was_learnt_is_what_a_plan_expects_and_advises_also_after_a_restart(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        await asyncio.sleep(77)
        for agent in agents:
            await agent.obey(machine)
        late = fleet.Agent("n9")
        await late.connect(machine)
        plan = await machine.plan(fleet.request())
        assert plan.operation_p95 == timedelta(seconds=77)
        [advice] = plan.advice
        assert (advice.changes, advice.successes, advice.version_failures) == (1, 6, 0)
        assert advice.why == "6 of 6 succeeded of web from 1.0.0 to 1.1.0 by HOT_SWAP on nodes without a class"
        begun = await machine.start_upgrade(fleet.request(), request_id="two", actor="ann")
        assert (await controller.restart()).rollout(begun.id).plan.advice == plan.advice

    fleet.told(where, tale, nodes=6)
