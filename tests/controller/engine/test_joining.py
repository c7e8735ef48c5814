"""Nodes that appear while a rollout is under way."""

from __future__ import annotations

from pathlib import Path

from controller import engine
from controller.core import model
from controller.store import reading
from tests.controller.engine import fleet

S = model.RolloutState


async def start(machine: engine.Engine, join: model.JoinPolicy, selector: str = "") -> model.Rollout:
    wanted = fleet.request(policy=model.Policy(join=join), selector=selector)
    return await machine.start_upgrade(wanted, request_id="one", actor="ann")


def test_a_new_node_joins_the_rollout_that_wants_such_nodes_and_stays_in_it_over_a_crash(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        begun = await start(controller.engine, model.JoinPolicy.INCLUDE)
        late = fleet.Agent("n9")
        await late.connect(controller.engine)
        assert [each.node_id for each in controller.engine.rollout("up").joined] == ["n9"]
        machine = await controller.restart()
        for agent in (*agents, late):
            await agent.connect(machine)
            await agent.obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED
        assert late.version == "1.1.0"
        audit = controller.store.read(lambda connection: reading.audit(connection, begun.id))
        assert ("controller", "rollout.join", "node n9 appeared") in [(e.actor, e.action, e.reason) for e in audit]
        journal = controller.store.read(lambda connection: reading.journal(connection, begun.id))
        assert fleet.replayed(begun, journal) == machine.rollout("up")

    fleet.told(tmp_path, tale)


def test_a_new_node_does_not_join_where_the_policy_ignores_it_the_selector_leaves_it_out_or_it_is_there_already(
    tmp_path: Path,
) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, model.JoinPolicy.IGNORE)
        await fleet.Agent("n8").connect(machine)
        assert machine.rollout("up").joined == ()
        await machine.cancel(machine.rollout("up").id, reason="next", actor="ann")

    fleet.told(tmp_path, tale)

    async def another(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, model.JoinPolicy.INCLUDE, selector="zone=a")
        await fleet.Agent("n8", zone="b").connect(machine)
        await fleet.Agent("n9", version="1.1.0").connect(machine)
        assert machine.rollout("up").joined == ()

    (tmp_path / "another").mkdir()
    fleet.told(tmp_path / "another", another)


def test_a_node_joins_once_its_labels_say_so_and_only_one_rollout(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, model.JoinPolicy.INCLUDE, selector="zone=a")
        late = fleet.Agent("n9", zone="b")
        await late.connect(machine)
        await machine.label_node(late.node_id, {"zone": "a"}, [], actor="ann")
        await machine.label_node(late.node_id, {"tier": "edge"}, [], actor="ann")
        assert [each.node_id for each in machine.rollout("up").joined] == ["n9"]
        for agent in (*agents, late):
            await agent.obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED

    fleet.told(tmp_path, tale)


def test_a_node_that_another_rollout_has_does_not_join(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.label_node(model.NodeId("n3"), {"zone": "b"}, [], actor="ann")
        await start(machine, model.JoinPolicy.INCLUDE, selector="zone=a")
        other = fleet.request(name="other", target_version="1.2.0", selector="zone=b")
        await machine.start_upgrade(other, request_id="two", actor="ann")
        await machine.label_node(model.NodeId("n3"), {}, ["zone"], actor="ann")
        await machine.label_node(model.NodeId("n3"), {"zone": "a"}, [], actor="ann")
        assert machine.rollout("up").joined == ()

    fleet.told(tmp_path, tale)


def test_a_node_that_was_removed_from_a_rollout_does_not_come_back_into_it(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await start(machine, model.JoinPolicy.INCLUDE)
        await machine.remove_node(agents[0].node_id, reason="it burnt", actor="bob")
        await agents[0].connect(machine)
        assert machine.rollout("up").joined == ()
        audit = controller.store.read(lambda connection: reading.audit(connection, begun.id))
        assert "rollout.join" not in [each.action for each in audit]

    fleet.told(tmp_path, tale)


def test_a_frozen_node_that_joins_is_not_given_anything(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, model.JoinPolicy.INCLUDE)
        await machine.add_freeze("zone=b", fleet.LoopClock().now(), None, reason="audit", actor="bob")
        late = fleet.Agent("n9", zone="b")
        await late.connect(machine)
        assert [each.node_id for each in machine.rollout("up").joined] == ["n9"]
        assert late.assigned(machine) == []

    fleet.told(tmp_path, tale)
