"""Emergency rollback: all back at once, and nothing else starts until somebody lifts the lock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controller import engine
from controller.core import errors, model
from controller.store import reading
from tests.controller.engine import fleet

S = model.RolloutState
LIMIT = timedelta(minutes=5)
ALL = model.ComponentName("")


async def roll_back(
    machine: engine.Engine, component: model.ComponentName = ALL, selector: str = ""
) -> tuple[list[str], model.FreezeId]:
    rollouts, freeze_id = await machine.roll_back_emergency(component, selector, LIMIT, reason="it burns", actor="bob")
    assert [each.state for each in rollouts] == [S.REVERTING] * len(rollouts)
    return [each.request.name for each in rollouts], freeze_id


async def obey_all(machine: engine.Engine, agents: list[fleet.Agent]) -> None:
    for agent in agents:
        await agent.obey(machine)


def test_a_rollout_under_way_goes_back_at_once_whatever_the_floor_and_stays_locked(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        policy = model.Policy(max_parallel=2, floor_percent=30, revert_max_parallel=1)
        begun = await machine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        for agent in [each for each in agents if each.assigned(machine)]:
            await agent.obey(machine)
        touched = [agent for agent in agents if agent.version == "1.1.0"]
        names, freeze_id = await roll_back(machine)
        assert names == ["up"]
        assert len([agent for agent in touched if agent.assigned(machine)]) == len(touched) == 2
        [freeze] = machine.freezes()
        assert (freeze.id, freeze.is_emergency, freeze.until, freeze.actor) == (freeze_id, True, None, "bob")
        await obey_all(machine, agents)
        await obey_all(machine, agents)
        await asyncio.sleep(1)
        assert [agent.version for agent in agents] == ["1.0.0"] * 3
        assert machine.rollout(begun.id).state is S.REVERTED
        await machine.start_upgrade(fleet.request(name="again"), request_id="two", actor="ann")
        assert [agent.assigned(machine) for agent in agents] == [[]] * 3
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        assert [agent.assigned(machine) for agent in agents] == [[]] * 3
        await machine.remove_freeze(freeze_id, reason="over", actor="ann")
        assert any(agent.assigned(machine) for agent in agents)

    fleet.told(tmp_path, tale)


def test_where_none_is_under_way_the_latest_goes_back_that_still_runs(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        for name, version in (("first", "1.1.0"), ("second", "1.2.0")):
            wanted = fleet.request(name=name, target_version=version)
            await machine.start_upgrade(wanted, request_id=name, actor="ann")
            await obey_all(machine, agents)
            await asyncio.sleep(1)
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        assert (await roll_back(machine))[0] == ["second"]
        await obey_all(machine, agents)
        assert [agent.version for agent in agents] == ["1.1.0"] * 3
        assert machine.rollout("second").state is S.REVERTED
        assert (await roll_back(machine))[0] == ["first"]
        first = machine.rollout("first")
        audit = controller.store.read(lambda each: reading.audit(each, first.id))
        assert audit[-1].actor == "bob"
        assert "it burns" in audit[-1].reason

    fleet.told(tmp_path, tale)


def test_only_what_has_the_component_and_a_node_of_the_selector_goes_back(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.label_node(agents[0].node_id, {"zone": "b"}, [], actor="ann")
        for zone in "ab":
            wanted = fleet.request(name=zone, selector=f"zone={zone}", policy=model.Policy(max_parallel=1))
            await machine.start_upgrade(wanted, request_id=zone, actor="ann")
        assert (await roll_back(machine, model.ComponentName("db")))[0] == []
        assert (await roll_back(machine, selector="zone=c"))[0] == []
        [(names, freeze_id)] = [await roll_back(machine, fleet.WEB, "zone=b")]
        assert names in (["b"], [])
        assert machine.rollout("a").state is S.RUNNING
        assert freeze_id in [each.id for each in machine.freezes()]

    fleet.told(tmp_path, tale)


def test_what_waits_ends_and_what_cannot_go_back_harms_no_other(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(name="first"), request_id="one", actor="ann")
        await agents[0].obey(machine)
        waiting = fleet.request(name="waiting", target_version="1.2.0", conflict=model.ConflictPolicy.QUEUE)
        await machine.start_upgrade(waiting, request_id="two", actor="ann")
        assert (await roll_back(machine))[0] == ["first"]
        assert machine.rollout("waiting").state is S.CANCELLED

    fleet.told(tmp_path, tale)


def test_what_goes_back_already_goes_back_faster(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        policy = model.Policy(revert_max_parallel=1)
        begun = await machine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        await obey_all(machine, agents)
        await machine.revert(begun.id, reason="slow", actor="ann")
        assert len([agent for agent in agents if agent.assigned(machine)]) == 1
        assert (await roll_back(machine))[0] == ["up"]
        assert len([agent for agent in agents if agent.assigned(machine)]) == 3

    fleet.told(tmp_path, tale)


def test_what_cannot_go_back_is_kept_as_a_refusal_and_everything_is_locked_all_the_same(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(name="first"), request_id="one", actor="ann")
        await obey_all(machine, agents)
        await asyncio.sleep(1)
        restart = fleet.request(
            name="restart", component=model.ComponentName("db"), target_version="1.0.0", install=True
        )
        other = replace(
            fleet.release("1.0.0"), component=model.ComponentName("db"), digest=model.Digest("sha256:" + "d" * 64)
        )
        await machine.publish(other)
        await machine.start_upgrade(restart, request_id="two", actor="ann")
        names, freeze_id = await roll_back(machine, fleet.WEB)
        assert names == []
        assert [each.id for each in machine.freezes()] == [freeze_id]
        assert machine.rollout("first").state is S.SUCCEEDED
        [kept] = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert (kept.actor, kept.code) == ("bob", "rollout_conflict")

    fleet.told(tmp_path, tale)


def test_a_rollout_that_none_of_the_nodes_runs_any_more_stays_as_it_is(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        await obey_all(machine, agents)
        assert (await roll_back(machine, selector="zone=b"))[0] == []
        await agents[0].tell(machine, model.NodeReport(is_full=True))
        for agent in agents[1:]:
            agent.version = "1.2.0"
            await agent.tell(machine, agent.full_report())
        assert (await roll_back(machine))[0] == []

    fleet.told(tmp_path, tale)


def test_a_rollback_that_is_not_done_in_time_is_stuck(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        await obey_all(machine, agents[:2])
        await roll_back(machine)
        await asyncio.sleep(LIMIT.total_seconds() + 10)
        assert machine.rollout(begun.id).state is S.STUCK

    fleet.told(tmp_path, tale)


@pytest.mark.parametrize(
    ("selector", "seconds", "code"), [("zone~a", 1, "invalid_selector"), ("", 0, "invalid_time_limit")]
)
def test_an_order_that_cannot_be_is_refused_and_freezes_nothing(
    tmp_path: Path, selector: str, seconds: int, code: str
) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        with pytest.raises(errors.InvalidRequestError) as refused:
            await machine.roll_back_emergency(ALL, selector, timedelta(seconds=seconds), reason="odd", actor="bob")
        assert refused.value.code == code
        assert machine.freezes() == ()

    fleet.told(tmp_path, tale)
