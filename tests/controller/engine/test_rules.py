"""The rules of the monitor hold the rollouts that ask for it, from the first look on and through a restart."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controller import engine
from controller.config import rules
from controller.core import errors, model
from controller.store import reading
from tests.controller.engine import fleet

S = model.RuleState
SECOND = timedelta(seconds=1)
QUEUE = model.Rule(
    name="queue",
    component=fleet.WEB,
    measure=model.Measure(model.MeasureKind.LEVEL, "queue_size"),
    fire_at=5.0,
    clear_at=3.0,
    window=30 * SECOND,
    pending_for=20 * SECOND,
)
FLEET = replace(QUEUE, name="all", scope=model.RuleScope.FLEET, pending_for=timedelta())
MONITORING = rules.Monitoring((QUEUE, FLEET), 10 * SECOND)
told = functools.partial(fleet.told, monitoring=MONITORING)


def asked(*names: str) -> model.UpgradeRequest:
    return fleet.request(
        strategy=model.Strategy.CANARY,
        parameters=model.CanaryParameters(1),
        policy=model.Policy(hold_while_firing=names),
    )


async def beats(machine: engine.Engine, queues: dict[fleet.Agent, float | None], count: int) -> None:
    """Let agents tell how long their queues are, with so many heartbeats."""
    for _ in range(count):
        for agent, size in queues.items():
            metrics = () if size is None else (model.Metric("queue_size", fleet.WEB, size),)
            await agent.tell(machine, model.NodeReport(metrics=metrics))
        await asyncio.sleep(10)


def alike(agents: Iterable[fleet.Agent], size: float | None) -> dict[fleet.Agent, float | None]:
    return dict.fromkeys(agents, size)


def held(machine: engine.Engine) -> list[tuple[str, S, str | None]]:
    return [(each.rule, each.state, each.node_id) for each in machine.rollout("up").rule_holds]


def waits_for(machine: engine.Engine) -> str:
    found = machine.explain_rollout("up")
    return "; ".join(each.code for each in found)


async def canary(machine: engine.Engine, agents: list[fleet.Agent]) -> fleet.Agent:
    """Let the canary wave be done."""
    [first] = [agent for agent in agents if agent.assigned(machine)]
    await first.obey(machine)
    return first


def test_a_rule_that_fires_on_a_changed_node_holds_the_next_wave_until_it_clears(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await beats(machine, alike(agents, 1.0), 5)
        await machine.start_upgrade(asked("queue"), request_id="one", actor="ann")
        first = next(agent for agent in agents if agent.assigned(machine))
        await beats(machine, {**alike(agents, 1.0), first: 9.0}, 6)
        assert held(machine) == [("queue", S.FIRING, first.node_id)]
        await first.obey(machine)
        rollout = machine.rollout("up")
        assert (rollout.wave, rollout.state) == (1, model.RolloutState.RUNNING)
        assert "rule_firing" in waits_for(machine)
        await beats(machine, {**alike(agents, 1.0), first: 9.0}, 200)  # longer than the progress deadline
        assert machine.rollout("up").state is model.RolloutState.RUNNING
        await beats(machine, alike(agents, 1.0), 6)
        assert held(machine) == []
        assert machine.rollout("up").wave == 2

    told(tmp_path, tale)


def test_a_rule_that_fires_on_a_node_that_is_not_changed_holds_nothing(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await beats(machine, alike(agents, 1.0), 5)
        await machine.start_upgrade(asked("queue"), request_id="one", actor="ann")
        first = next(agent for agent in agents if agent.assigned(machine))
        await beats(machine, {**alike(agents, 9.0), first: 1.0}, 6)
        assert held(machine) == []
        await first.obey(machine)
        # The next wave changes the nodes on which it fires: from then on it holds.
        assert machine.rollout("up").wave == 2
        assert [state for _, state, _ in held(machine)] == [S.FIRING]

    told(tmp_path, tale)


def test_a_rule_of_which_nobody_can_tell_holds_as_well(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await asyncio.sleep(15)
        await machine.start_upgrade(asked("queue"), request_id="one", actor="ann")
        first = await canary(machine, agents)
        assert machine.rollout("up").wave == 1
        assert held(machine) == [("queue", S.UNKNOWN, first.node_id)]
        assert "rule_unknown" in waits_for(machine)
        await beats(machine, alike(agents, 1.0), 5)
        assert machine.rollout("up").wave == 2

    told(tmp_path, tale)


def test_a_rule_that_fires_on_the_fleet_lets_nothing_begin(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await beats(machine, alike(agents, 9.0), 5)
        await machine.start_upgrade(asked("all"), request_id="one", actor="ann")
        assert held(machine) == [("all", S.FIRING, None)]
        assert not [agent for agent in agents if agent.assigned(machine)]
        await beats(machine, alike(agents, 1.0), 5)
        assert [agent for agent in agents if agent.assigned(machine)]

    told(tmp_path, tale)


def test_before_the_first_look_nothing_begins(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await beats(machine, alike(agents, 1.0), 5)
        await machine.start_upgrade(asked("queue"), request_id="one", actor="ann")
        machine = await controller.restart()
        assert held(machine) == [("queue", S.UNKNOWN, None)]
        for agent in agents:
            await agent.connect(machine)
        await beats(machine, alike(agents, 1.0), 5)
        assert held(machine) == []

    told(tmp_path, tale)


def test_what_fires_and_what_is_about_to_go_on_from_where_they_were_after_a_restart(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        firing, pending, well = agents
        await beats(machine, {**alike(agents, 1.0), firing: 9.0}, 6)
        await beats(machine, {firing: 9.0, pending: 30.0, well: 1.0}, 2)
        before = {each.node_id: each.watch for each in machine.rules_watched("queue")}
        assert {key: each.state for key, each in before.items()} == {
            firing.node_id: S.FIRING,
            pending.node_id: S.PENDING,
        }
        machine = await controller.restart()
        assert machine.rules_watched("queue") == ()
        for agent in agents:
            await agent.connect(machine)
        await beats(machine, {firing: 9.0, pending: 30.0, well: 1.0}, 5)
        after = {each.node_id: each.watch for each in machine.rules_watched("queue")}
        assert after[firing.node_id].since == before[firing.node_id].since
        assert after[pending.node_id].state is S.FIRING
        await beats(machine, alike(agents, 1.0), 8)
        stored, _ = controller.store.read(reading.watched)
        assert stored == ()

    told(tmp_path, tale)


def test_what_was_seen_of_another_rule_of_the_name_is_not_taken_over(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await beats(controller.engine, alike(agents, 9.0), 6)
        controller.monitoring = rules.Monitoring((replace(QUEUE, fire_at=8.0),), 10 * SECOND)
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        await beats(machine, alike(agents, 9.0), 2)
        assert {each.watch.fired_at for each in machine.rules_watched("queue")} == {None}
        stored, _ = controller.store.read(reading.watched)
        assert "all" not in {each.rule for each in stored}

    told(tmp_path, tale)


def test_while_the_monitor_is_stopped_nobody_can_tell(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await beats(machine, {**alike(agents, 1.0), agents[0]: 9.0}, 6)
        [before] = machine.rules_watched("queue")
        await machine.start_upgrade(asked("queue"), request_id="one", actor="ann")
        assert await machine.monitoring.stop()
        assert not await machine.monitoring.stop()
        assert machine.rules_looked_at() is None
        assert held(machine) == [("queue", S.UNKNOWN, None)]
        assert await machine.monitoring.start()
        assert not await machine.monitoring.start()
        await beats(machine, {**alike(agents, 1.0), agents[0]: 9.0}, 3)
        [after] = machine.rules_watched("queue")
        assert after.watch.fired_at == before.watch.fired_at
        assert ("queue", S.UNKNOWN, None) not in held(machine)

    told(tmp_path, tale)


def test_rules_are_added_to_what_is_configured_and_taken_away_while_it_looks(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        controller.monitoring = rules.Monitoring((), 10 * SECOND)
        machine = await controller.restart()
        await machine.collector.start_collection(10 * SECOND)
        await machine.monitoring.start()
        for agent in agents:
            await agent.connect(machine)
        await beats(machine, alike(agents, 9.0), 6)
        assert machine.rules_looked_at() is None
        machine.monitoring.replace([replace(QUEUE, name="trigger:queue")])
        await beats(machine, alike(agents, 9.0), 6)
        assert {each.watch.state for each in machine.rules_watched("trigger:queue")} == {S.FIRING}
        assert {each.rule for each in controller.store.read(reading.watched)[0]} == {"trigger:queue"}
        machine.monitoring.replace([])
        await beats(machine, alike(agents, 9.0), 3)
        assert controller.store.read(reading.watched)[0] == ()

    told(tmp_path, tale)


def test_a_rule_that_is_not_configured_is_refused_by_the_plan(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        with pytest.raises(errors.InvalidRequestError, match="one of the rules all, queue") as caught:
            await controller.engine.start_upgrade(asked("errors"), request_id="one", actor="ann")
        assert (caught.value.code, caught.value.field) == ("rule_unknown", "policy.hold_while_firing")

    told(tmp_path, tale)


def test_a_rule_that_is_configured_no_more_holds_what_names_it(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await beats(machine, alike(agents, 1.0), 5)
        await machine.start_upgrade(asked("queue"), request_id="one", actor="ann")
        controller.monitoring = rules.Monitoring((FLEET,), 10 * SECOND)
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        await beats(machine, alike(agents, 1.0), 5)
        assert held(machine) == [("queue", S.UNKNOWN, None)]

    told(tmp_path, tale)
