"""What speaks against a node reaches the rollouts that count it, when it becomes so and not before."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controller import engine
from controller.core import errors, model
from controller.engine import lookout
from controller.store import reading, rows
from tests.controller.engine import fleet

S = model.RolloutState
ONE_BY_ONE = fleet.request(policy=model.Policy(max_parallel=1))


def standings(machine: engine.Engine, name: str = "up") -> dict[str, model.Standing]:
    found = machine.rollout(name).standings
    return {str(node_id): found[node_id] for node_id in sorted(found)}


def down(machine: engine.Engine, name: str = "up") -> dict[str, str]:
    return {node_id: each.down for node_id, each in standings(machine, name).items()}


async def start(machine: engine.Engine, wanted: model.UpgradeRequest = ONE_BY_ONE) -> model.Rollout:
    return await machine.start_upgrade(wanted, request_id="one", actor="ann")


def busy(machine: engine.Engine, agents: list[fleet.Agent]) -> list[fleet.Agent]:
    return [agent for agent in agents if agent.assigned(machine)]


def idle(machine: engine.Engine, agents: list[fleet.Agent]) -> list[fleet.Agent]:
    return [agent for agent in agents if not agent.assigned(machine)]


def test_a_reconnect_is_no_outage(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine)
        away = idle(machine, agents)[0]
        await away.disconnect(machine)
        await asyncio.sleep(19)
        await away.connect(machine)
        await asyncio.sleep(60)
        assert standings(machine) == {}
        assert machine.node(away.node_id).offline_since is None

    fleet.told(tmp_path, tale)


def test_a_node_that_stays_away_is_offline_until_it_comes_back(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine)
        away = idle(machine, agents)[0]
        left_at = fleet.LoopClock().now()
        await away.disconnect(machine)
        await asyncio.sleep(19)
        assert standings(machine) == {}
        await asyncio.sleep(2)
        assert down(machine) == {away.node_id: f"offline since {left_at.isoformat(timespec='seconds')}"}
        assert machine.node(away.node_id).offline_since == left_at
        machine = await controller.restart()
        assert machine.node(away.node_id).offline_since == left_at
        assert list(standings(machine)) == [away.node_id]
        await away.connect(machine)
        assert standings(machine) == {}

    fleet.told(tmp_path, tale)


def test_a_node_whose_return_is_being_stored_when_its_time_runs_out_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, commit = controller.engine, controller.store.commit

        async def commit_slowly(written: rows.Commit) -> None:
            await asyncio.sleep(2)
            await commit(written)

        await agents[0].disconnect(machine)
        await asyncio.sleep(19)
        monkeypatch.setattr(controller.store, "commit", commit_slowly)
        await agents[0].connect(machine)
        monkeypatch.undo()
        await asyncio.sleep(10)
        assert machine.node(agents[0].node_id).offline_since is None
        await start(machine, fleet.request())
        assert len(agents[0].assigned(machine)) == 1

    fleet.told(tmp_path, tale)


def test_after_a_start_no_node_is_offline_before_it_could_come_back(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await start(controller.engine)
        machine = await controller.restart()
        await agents[0].connect(machine)
        await asyncio.sleep(59)
        assert standings(machine) == {}
        await asyncio.sleep(2)
        assert list(standings(machine)) == sorted(agent.node_id for agent in agents[1:])

    fleet.told(tmp_path, tale)


def test_a_node_that_another_rollout_changes_is_missing_from_the_floor_of_all(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, first = controller.engine, agents[0]
        await machine.label_node(first.node_id, {"first": "yes"}, (), actor="ann")
        await start(machine, fleet.request(selector="first=yes"))
        await first.obey(machine)
        again = fleet.request(selector="first=yes", kind=model.ChangeKind.RESTART, target_version="", name="again")
        await machine.start_upgrade(again, request_id="again", actor="ann")
        kept = fleet.request(policy=model.Policy(floor_percent=60), name="rest")
        await machine.start_upgrade(kept, request_id="rest", actor="ann")
        assert down(machine, "rest") == {first.node_id: f"changed by rollout {machine.rollout('again').id}"}
        assert busy(machine, agents) == [first]
        await first.obey(machine)
        assert down(machine, "rest") == {}
        assert len(busy(machine, agents[1:])) == 1
        machine = await controller.restart()
        assert down(machine, "rest") == {}

    fleet.told(tmp_path, tale)


def test_a_node_that_is_offline_when_a_rollout_begins_is_not_given_anything(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await agents[1].disconnect(machine)
        await asyncio.sleep(30)
        await start(machine, fleet.request())
        assert [len(agent.assigned(machine)) for agent in agents] == [1, 0, 1]
        await agents[1].connect(machine)
        assert [len(agent.assigned(machine)) for agent in agents] == [1, 1, 1]

    fleet.told(tmp_path, tale)


def test_a_cordoned_node_is_passed_over_and_taken_once_it_is_uncordoned(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine)
        out = idle(machine, agents)[0]
        node = await machine.cordon_node(out.node_id, reason="new disk", actor="bob")
        assert node.cordoned_because == "new disk"
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        assert down(machine) == {out.node_id: "cordoned: new disk"}
        for agent in agents * 3:
            await agent.obey(machine)
        assert out.version == "1.0.0"
        assert machine.rollout("up").state is S.RUNNING
        await machine.uncordon_node(out.node_id, actor="bob")
        await out.obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED
        audit = controller.store.read(lambda connection: reading.audit(connection, out.node_id))
        assert [(each.actor, each.action, each.reason) for each in audit] == [
            ("bob", "node.cordon", "new disk"),
            ("bob", "node.uncordon", ""),
        ]

    fleet.told(tmp_path, tale)


def test_a_quarantined_node_is_down_for_what_is_under_way_and_left_out_of_what_is_planned(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine)
        odd = idle(machine, agents)[0]
        await machine.quarantine_node(odd.node_id, reason="odd", actor="bob")
        assert down(machine) == {odd.node_id: "quarantined: odd"}
        plan = await machine.plan(fleet.request(level=model.ValidationLevel.PERMISSIVE))
        assert [(each.node_id, each.code) for each in plan.excluded] == [(odd.node_id, "node_quarantined")]
        node = await machine.uncordon_node(odd.node_id, actor="bob")
        assert node.quarantined_because == ""
        assert standings(machine) == {}

    fleet.told(tmp_path, tale)


def test_a_node_that_cannot_make_anything_durable_is_down_until_it_can(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine)
        ill = idle(machine, agents)[0]
        failed = model.Condition(model.JOURNAL_FAILED, "", "the disk said EIO", fleet.EPOCH)
        await ill.tell(machine, model.NodeReport(conditions=(failed,)))
        assert down(machine) == {ill.node_id: "journal_failed: the disk said EIO"}
        await ill.tell(machine, model.NodeReport(conditions=()))
        assert standings(machine) == {}

    fleet.told(tmp_path, tale)


def test_an_unhealthy_component_counts_where_the_rollout_did_not_do_it(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine)
        changing, waiting = busy(machine, agents)[0], idle(machine, agents)[0]
        unhealthy = replace(fleet.installed("1.0.0", 0), health=model.Health.UNHEALTHY)
        for agent in (changing, waiting):
            await agent.tell(machine, model.NodeReport(components=(unhealthy,)))
        assert standings(machine) == {waiting.node_id: model.Standing(unwell="its component web is unhealthy")}
        other = replace(unhealthy, name=model.ComponentName("db"))
        third = idle(machine, agents)[1]
        stopped = replace(unhealthy, is_stopped=True)
        await third.tell(machine, model.NodeReport(components=(stopped, other)))
        assert list(standings(machine)) == [waiting.node_id]
        await waiting.tell(machine, model.NodeReport(components=(fleet.installed("1.0.0"),)))
        assert standings(machine) == {}

    fleet.told(tmp_path, tale)


def test_an_unhealthy_component_is_changed_first_and_takes_nothing_from_the_floor(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, ill = controller.engine, agents[2]
        unhealthy = replace(fleet.installed("1.0.0", 0), health=model.Health.UNHEALTHY)
        await ill.tell(machine, model.NodeReport(components=(unhealthy,)))
        await start(machine, fleet.request(policy=model.Policy(floor_percent=60)))
        assert busy(machine, agents) == [ill]
        await ill.obey(machine)
        assert standings(machine) == {}
        assert len(busy(machine, agents)) == 1

    fleet.told(tmp_path, tale)


def test_a_node_that_only_counts_keeps_the_floor_when_it_is_down(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        for agent in agents:
            if agent.node_id == "n3":
                agent.version = "1.1.0"
                await agent.tell(machine, agent.full_report())
        await machine.cordon_node(model.NodeId("n3"), reason="new disk", actor="bob")
        await start(machine, fleet.request(policy=model.Policy(floor_percent=60)))
        assert busy(machine, agents) == []
        await machine.uncordon_node(model.NodeId("n3"), actor="bob")
        assert len(busy(machine, agents)) == 1

    fleet.told(tmp_path, tale)


def test_a_freeze_holds_the_nodes_that_it_covers_until_it_is_lifted(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, now = controller.engine, fleet.LoopClock().now()
        await machine.label_node(agents[0].node_id, {"zone": "b"}, (), actor="ann")
        freeze = await machine.add_freeze("zone=a", now, None, reason="audit", actor="bob")
        await start(machine, fleet.request())
        assert [len(agent.assigned(machine)) for agent in agents] == [1, 0, 0]
        assert [each.frozen for each in standings(machine).values()] == ["frozen by bob: audit"] * 2
        machine = await controller.restart()
        assert machine.freezes() == (freeze,)
        await machine.label_node(agents[1].node_id, {"zone": "b"}, (), actor="ann")
        assert list(standings(machine)) == [agents[2].node_id]
        await machine.remove_freeze(freeze.id, reason="done", actor="ann")
        assert standings(machine) == {}
        assert [len(agent.assigned(machine)) for agent in agents] == [1, 1, 1]
        audit = controller.store.read(lambda connection: reading.audit(connection, freeze.id))
        assert [(each.actor, each.action, each.reason) for each in audit] == [
            ("bob", "freeze.add", "audit"),
            ("ann", "freeze.remove", "done"),
        ]

    fleet.told(tmp_path, tale)


def test_a_freeze_begins_and_ends_by_time_alone_and_is_then_forgotten(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, now = controller.engine, fleet.LoopClock().now()
        hour = timedelta(hours=1)
        freeze = await machine.add_freeze("", now + hour, now + 2 * hour, reason="night", actor="bob")
        policy = model.Policy(max_parallel=1, unknown_deadline=timedelta(hours=9), progress_deadline=timedelta(hours=9))
        await start(machine, fleet.request(policy=policy))
        first = busy(machine, agents)[0]
        assert first.assigned(machine)[0].start_by == now + hour
        await asyncio.sleep(3599)
        assert standings(machine) == {}
        await asyncio.sleep(2)
        assert len(standings(machine)) == 3
        await first.obey(machine)
        assert busy(machine, agents) == []
        await asyncio.sleep(3600)
        assert standings(machine) == {}
        assert len(busy(machine, agents)) == 1
        assert machine.freezes() == ()
        [*_, ended] = controller.store.read(lambda connection: reading.audit(connection, freeze.id))
        assert (ended.actor, ended.action) == ("controller", "freeze.ended")
        machine = await controller.restart()
        assert machine.freezes() == ()

    fleet.told(tmp_path, tale)


def test_a_freeze_that_began_while_no_controller_was_up_holds_from_the_start(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        now = fleet.LoopClock().now()
        await controller.engine.add_freeze("", now + timedelta(seconds=30), None, reason="night", actor="bob")
        await start(controller.engine)
        first = busy(controller.engine, agents)[0]
        await controller.crash()
        await asyncio.sleep(60)
        machine = await controller.start()
        assert len(standings(machine)) == 3
        for agent in agents:
            await agent.connect(machine)
        await first.obey(machine)
        assert busy(machine, agents) == []

    fleet.told(tmp_path, tale)


@pytest.mark.parametrize(
    ("selector", "hours", "code"),
    [("zone~a", 1, "invalid_selector"), ("", -1, "freeze_invalid"), ("", 0, "freeze_invalid")],
)
def test_a_freeze_that_cannot_be_is_refused(tmp_path: Path, selector: str, hours: int, code: str) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine, now = controller.engine, fleet.LoopClock().now()
        until = now + timedelta(hours=hours)
        with pytest.raises(errors.InvalidRequestError) as refused:
            await machine.add_freeze(selector, now, until, reason="odd", actor="bob")
        assert refused.value.code == code
        assert machine.freezes() == ()
        with pytest.raises(errors.NotFoundError) as missing:
            await machine.remove_freeze(model.FreezeId("f-none"), reason="odd", actor="bob")
        assert missing.value.code == "freeze_not_found"

    fleet.told(tmp_path, tale)


def test_a_standing_that_does_not_change_is_told_once(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await start(machine)
        out = idle(machine, agents)[0]
        await machine.cordon_node(out.node_id, reason="new disk", actor="bob")
        revision = machine.rollout("up").revision
        await machine.cordon_node(out.node_id, reason="new disk", actor="bob")
        await out.tell(machine, model.NodeReport())
        assert machine.rollout("up").revision == revision
        journal = controller.store.read(lambda connection: reading.journal(connection, begun.id))
        assert fleet.replayed(begun, journal) == machine.rollout("up")

    fleet.told(tmp_path, tale)


def test_a_freeze_over_more_nodes_than_one_transaction_takes_holds_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "NODES_AT_ONCE", 2)

    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, now = controller.engine, fleet.LoopClock().now()
        await start(machine)
        freeze = await machine.add_freeze("", now, None, reason="audit", actor="bob")
        assert len(standings(machine)) == len(agents)
        await machine.remove_freeze(freeze.id, reason="done", actor="bob")
        assert standings(machine) == {}

    fleet.told(tmp_path, tale, nodes=5)


def test_a_node_that_lacks_the_component_counts_for_nothing(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await agents[0].tell(machine, model.NodeReport(is_full=True))
        await start(machine)
        await machine.cordon_node(agents[0].node_id, reason="new disk", actor="bob")
        assert standings(machine) == {}

    fleet.told(tmp_path, tale)


def test_what_fell_due_while_no_controller_was_up_starts_on_no_node_that_was_frozen_or_cordoned_since(
    tmp_path: Path,
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        policy = model.Policy(bake_duration=timedelta(seconds=60))
        canary = fleet.request(strategy=model.Strategy.CANARY, policy=policy)
        await start(machine, canary)
        [first] = busy(machine, agents)
        await first.obey(machine)
        since = fleet.LoopClock().now() + timedelta(seconds=30)
        await machine.add_freeze("", since, None, reason="a holiday", actor="bob")
        await controller.crash()
        await asyncio.sleep(120)
        machine = await controller.start()
        for agent in agents:
            await agent.connect(machine)
        assert [each.frozen for each in standings(machine).values()] == ["frozen by bob: a holiday"] * 3
        assert machine.rollout("up").wave == 2
        assert busy(machine, agents) == []
        [freeze] = machine.freezes()
        await machine.remove_freeze(freeze.id, reason="back", actor="bob")
        assert [each.attempt for agent in agents for each in agent.assigned(machine)] == [1, 1]

    fleet.told(tmp_path, tale)
