"""What operators decide of single nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.core import errors, model
from controller.store import reading
from tests.controller.engine import fleet

S = model.RolloutState
N1 = model.NodeId("n1")


def test_labels_by_hand_lie_over_those_of_the_agent_and_outlive_its_hello(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        agents[0].labels = {"zone": "a", "rack": "7"}
        await agents[0].connect(controller.engine)
        node = await controller.engine.label_node(N1, {"zone": "b", "tier": "edge"}, ["rack"], actor="ann")
        assert node.labels == {"tier": "edge", "zone": "b"}
        machine = await controller.restart()
        await agents[0].connect(machine)
        node = machine.node(N1)
        assert node.labels == {"tier": "edge", "zone": "b"}
        assert node.own_labels == {"zone": "a", "rack": "7"}
        assert [each.id for each in machine.nodes("tier=edge")] == ["n1"]
        node = await machine.label_node(N1, {}, ["zone", "tier"], actor="ann")
        assert node.labels == {}
        assert node.set_labels == {"rack": "", "zone": ""}
        node = await machine.label_node(N1, {"zone": "c"}, [], actor="ann")
        assert node.labels == {"zone": "c"}
        audit = controller.store.read(lambda connection: reading.audit(connection, N1))
        assert [(each.actor, each.action) for each in audit] == [("ann", "node.label")] * 3
        assert audit[0].reason == "tier=edge zone=b rack-"

    fleet.told(tmp_path, tale)


@pytest.mark.parametrize(
    ("labels", "removed", "field"),
    [
        ({"zone": ""}, [], "labels.zone"),
        ({"zone": "a b"}, [], "labels.zone"),
        ({"zo ne": "a"}, [], "labels.zo ne"),
        ({"a=b,c": "d"}, [], "labels.a=b,c"),
        ({}, ["in (a)"], "labels.in (a)"),
        ({f"k{number}": "v" for number in range(65)}, [], "labels"),
    ],
)
def test_a_label_that_cannot_be_one_is_refused_and_changes_nothing(
    tmp_path: Path, labels: dict[str, str], removed: list[str], field: str
) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        before = machine.node(N1)
        with pytest.raises(errors.InvalidRequestError) as refused:
            await machine.label_node(N1, {"good": "yes", **labels}, removed, actor="ann")
        assert (refused.value.code, refused.value.field) == ("label_invalid", field)
        assert machine.node(N1) == before

    fleet.told(tmp_path, tale)


def test_an_unknown_node_is_not_found_by_any_verb(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine, nobody = controller.engine, model.NodeId("nobody")
        for asked in (
            machine.label_node(nobody, {"a": "b"}, [], actor="ann"),
            machine.cordon_node(nobody, reason="odd", actor="ann"),
            machine.uncordon_node(nobody, actor="ann"),
            machine.quarantine_node(nobody, reason="odd", actor="ann"),
            machine.remove_node(nobody, reason="odd", actor="ann"),
        ):
            with pytest.raises(errors.NotFoundError) as missing:
                await asked
            assert missing.value.code == "node_not_found"

    fleet.told(tmp_path, tale)


def test_a_removed_node_owes_its_rollout_nothing_and_its_session_is_stale(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        dead = agents[0]
        command = dead.assigned(machine)[0]
        gone = await machine.remove_node(dead.node_id, reason="it burnt", actor="bob")
        assert gone.id == dead.node_id
        assert [each.id for each in machine.nodes()] == ["n2", "n3"]
        assert machine.commands(dead.node_id) == ()
        with pytest.raises(errors.RefusedError) as refused:
            await dead.tell_status(machine, command, model.OperationState.RUNNING)
        assert refused.value.code == "session_stale"
        await machine.close_session(dead.node_id, dead.session_id)
        for agent in agents[1:]:
            await agent.obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED
        [entry] = controller.store.read(lambda connection: reading.audit(connection, dead.node_id))
        assert (entry.actor, entry.action, entry.reason) == ("bob", "node.remove", "it burnt")
        machine = await controller.restart()
        assert [each.id for each in machine.nodes()] == ["n2", "n3"]
        assert controller.store.read(reading.snapshot).assignments == ()

    fleet.told(tmp_path, tale)


def test_a_removed_node_that_says_hello_is_new_and_what_it_then_says_of_old_work_harms_nobody(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        back = agents[0]
        command = back.assigned(machine)[0]
        await machine.cordon_node(back.node_id, reason="odd", actor="bob")
        await machine.remove_node(back.node_id, reason="it burnt", actor="bob")
        back.fence = command.fence
        back.statuses[command.operation_id] = fleet.status(command, model.OperationState.RUNNING)
        grant = await back.connect(machine)
        assert grant.generation == 2
        node = machine.node(back.node_id)
        assert (node.cordoned_because, node.fence, node.is_connected) == ("", command.fence, True)
        await back.tell_status(machine, command, model.OperationState.PERMANENT)
        for agent in agents[1:]:
            await agent.obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED
        again = await machine.start_upgrade(
            fleet.request(target_version="1.2.0", name="next"), request_id="two", actor="a"
        )
        assert back.assigned(machine)[0].fence > command.fence
        assert again.state is S.RUNNING

    fleet.told(tmp_path, tale)


def test_a_rollout_whose_node_was_removed_after_its_end_goes_back_without_it(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        await machine.remove_node(agents[0].node_id, reason="it burnt", actor="bob")
        await machine.revert(begun.id, reason="bad", actor="bob")
        for agent in agents[1:]:
            await agent.obey(machine)
        assert machine.rollout(begun.id).state is S.REVERTED
        assert [agent.version for agent in agents] == ["1.1.0", "1.0.0", "1.0.0"]

    fleet.told(tmp_path, tale)
