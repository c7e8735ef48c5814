"""Releases and the ways between them, as operators declare them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller import engine
from controller.core import errors, model
from controller.engine import whereabouts
from controller.store import reading
from tests.controller.engine import fleet

S = model.RolloutState
EDGE = model.Edge(fleet.WEB, "<1.1.0", "1.1.0", condition='"zone" in node.labels')
BARRIER = model.Barrier(fleet.WEB, "1.1.0", timedelta(hours=1))


def test_a_declared_graph_is_shown_kept_over_a_crash_and_audited(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        await controller.engine.put_graph(fleet.WEB, (EDGE,), (BARRIER,), actor="ann")
        machine = await controller.restart()
        assert machine.graph(fleet.WEB) == model.VersionGraph((EDGE,), (BARRIER,))
        assert machine.graph(model.ComponentName("db")) == model.VersionGraph()
        [entry] = controller.store.read(lambda connection: reading.audit(connection, fleet.WEB))
        assert (entry.actor, entry.action, entry.reason) == ("ann", "release.graph", "1 edges, 1 barriers")

    fleet.told(tmp_path, tale)


BAD: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], str, str]] = {
    "condition": (
        (model.Edge(fleet.WEB, "", "1.1.0", condition="node.zone"),),
        (),
        "invalid_condition",
        "edges[0].condition",
    ),
    "comparators": ((model.Edge(fleet.WEB, "~1", "1.1.0"),), (), "invalid_comparators", "edges[0].from_versions"),
    "version": ((EDGE, model.Edge(fleet.WEB, "", "9.0.0")), (), "release_not_found", "edges[1].to_version"),
    "methods": ((model.Edge(fleet.WEB, "", "1.1.0", frozenset()),), (), "graph_invalid", "edges[0].methods"),
    "cost": ((model.Edge(fleet.WEB, "", "1.1.0", cost=0),), (), "graph_invalid", "edges[0].cost"),
    "component": ((model.Edge(model.ComponentName("db"), "", "1.1.0"),), (), "graph_invalid", "edges[0].component"),
    "count": ((EDGE,) * 1001, (), "graph_invalid", "edges"),
    "barrier": ((), (model.Barrier(fleet.WEB, "9.0.0", timedelta()),), "release_not_found", "barriers[0].version"),
    "bake": ((), (model.Barrier(fleet.WEB, "1.1.0", -timedelta(1)),), "graph_invalid", "barriers[0].bake_duration"),
    "twice": ((), (BARRIER, BARRIER), "graph_invalid", "barriers"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_wrong_graph_is_refused_with_its_field_and_nothing_of_it_counts(tmp_path: Path, name: str) -> None:
    edges, barriers, code, field = BAD[name]

    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.put_graph(fleet.WEB, (EDGE,), (), actor="ann")
        with pytest.raises(errors.InstarError) as refused:
            await machine.put_graph(fleet.WEB, edges, barriers, actor="bob")
        assert (refused.value.code, refused.value.field) == (code, field)
        assert machine.graph(fleet.WEB).edges == (EDGE,)
        stored = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert [(each.actor, each.action, each.code) for each in stored] == [("bob", "put_graph", code)]

    fleet.told(tmp_path, tale)


def test_a_blocked_version_is_refused_until_it_is_opened_again(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        await controller.engine.block_release(fleet.WEB, "1.1.0", reason="it leaks", actor="ann")
        machine = await controller.restart()
        with pytest.raises(errors.RefusedError) as refused:
            await machine.start_upgrade(fleet.request(), request_id="one", actor="bob")
        assert refused.value.code == "edge_blocked"
        assert "it leaks" in str(refused.value)
        await machine.block_release(fleet.WEB, "1.1.0", reason="", actor="ann")
        machine = await controller.restart()
        assert machine.graph(fleet.WEB) == model.VersionGraph()
        await machine.start_upgrade(fleet.request(), request_id="two", actor="bob")
        entries = controller.store.read(lambda connection: reading.audit(connection, "web 1.1.0"))
        assert [each.action for each in entries][-2:] == ["release.block", "release.unblock"]

    fleet.told(tmp_path, tale)


def test_declaring_what_was_shown_changes_nothing_and_lifts_no_block(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.put_graph(fleet.WEB, (EDGE,), (), actor="ann")
        await machine.block_release(fleet.WEB, "1.1.0", reason="it leaks", actor="ann")
        shown = machine.graph(fleet.WEB)
        await machine.put_graph(fleet.WEB, shown.edges, shown.barriers, actor="ann")
        assert machine.graph(fleet.WEB) == shown
        await machine.put_graph(fleet.WEB, (), (), actor="ann")
        assert [each.blocked_because for each in machine.graph(fleet.WEB).edges] == ["it leaks"]
        await machine.block_release(fleet.WEB, "1.1.0", reason="", actor="ann")
        assert machine.graph(fleet.WEB).edges == ()

    fleet.told(tmp_path, tale)


def test_opening_a_version_opens_the_ways_that_were_declared_closed(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        closed = (
            model.Edge(fleet.WEB, "<1.1.0", "1.1.0", blocked_because="not yet"),
            model.Edge(fleet.WEB, "", "1.1.0", blocked_because="not yet"),
            model.Edge(fleet.WEB, "", "1.2.0", blocked_because="not yet"),
        )
        await machine.put_graph(fleet.WEB, closed, (BARRIER,), actor="ann")
        await machine.block_release(fleet.WEB, "1.1.0", reason="", actor="ann")
        assert machine.graph(fleet.WEB) == model.VersionGraph(
            (model.Edge(fleet.WEB, "<1.1.0", "1.1.0"), closed[2]), (BARRIER,)
        )

    fleet.told(tmp_path, tale)


def test_a_channel_is_moved_and_a_request_follows_it(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        await controller.engine.promote_release(fleet.WEB, "1.0.0", "stable", actor="ann")
        moved = await controller.engine.promote_release(fleet.WEB, "1.1.0", "stable", actor="bob")
        assert (moved.version, moved.actor, moved.changed_at) == ("1.1.0", "bob", fleet.LoopClock().now())
        machine = await controller.restart()
        assert machine.graph(fleet.WEB).channels == (moved,)
        plan = await machine.plan(fleet.request(target_version="stable"))
        assert {change.to_version for wave in plan.waves for change in wave.changes} == {"1.1.0"}

    fleet.told(tmp_path, tale)


@pytest.mark.parametrize(
    ("version", "channel", "code"),
    [("9.0.0", "stable", "release_not_found"), ("1.1.0", "1.0.0", "graph_invalid"), ("1.1.0", "", "graph_invalid")],
)
def test_a_channel_points_to_what_is_published_and_has_a_name(
    tmp_path: Path, version: str, channel: str, code: str
) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        with pytest.raises(errors.InstarError) as refused:
            await controller.engine.promote_release(fleet.WEB, version, channel, actor="ann")
        assert refused.value.code == code
        assert controller.engine.graph(fleet.WEB).channels == ()

    fleet.told(tmp_path, tale)


def test_only_what_is_published_is_blocked(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        with pytest.raises(errors.NotFoundError):
            await controller.engine.block_release(fleet.WEB, "9.0.0", reason="odd", actor="ann")

    fleet.told(tmp_path, tale)


async def _left_by(machine: engine.Engine, agents: list[fleet.Agent]) -> None:
    policy = model.Policy(max_failures=len(agents) - 1)
    await machine.start_upgrade(fleet.request(policy=policy), request_id="bad", actor="ann")
    for agent in agents:
        await agent.fail(machine)


def test_a_version_that_three_nodes_left_for_cause_is_offered_to_nobody_any_more(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await _left_by(controller.engine, agents)
        machine = await controller.restart()
        [wall] = machine.graph(fleet.WEB).edges
        assert (wall.to_version, wall.from_versions) == ("1.1.0", "")
        assert wall.blocked_because == "3 nodes left it for cause, the last for probe_failed"
        entries = controller.store.read(lambda connection: reading.audit(connection, "web 1.1.0"))
        blocks = [each for each in entries if each.action == "release.block"]
        assert [(each.actor, each.reason) for each in blocks] == [("controller", wall.blocked_because)]

    fleet.told(tmp_path, tale)


def test_two_nodes_that_left_a_version_block_nothing(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await _left_by(controller.engine, agents)
        assert controller.engine.graph(fleet.WEB).edges == ()

    fleet.told(tmp_path, tale, nodes=2)


def test_a_version_from_which_no_way_leads_back_is_blocked_once_it_has_failed(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        edge = model.Edge(fleet.WEB, "", "1.1.0", is_no_return=True)
        await machine.put_graph(fleet.WEB, (edge,), (), actor="ann")
        policy = model.Policy(healthy_deadline=timedelta(seconds=60))
        await machine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        await agents[0].obey(machine)
        await agents[1].fail(machine)
        await agents[2].fail(machine)
        assert machine.rollout("up").state is S.FAILED
        assert agents[0].version == "1.1.0"
        [declared, wall] = machine.graph(fleet.WEB).edges
        assert declared == edge
        assert (wall.to_version, bool(wall.blocked_because)) == ("1.1.0", True)
        entries = controller.store.read(lambda connection: reading.audit(connection, "web 1.1.0"))
        assert [each.actor for each in entries if each.action == "release.block"] == ["controller"]

    fleet.told(tmp_path, tale)


def test_a_release_says_where_it_stands(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        up, down, past = EDGE, model.Edge(fleet.WEB, "1.1.0", "1.0.0"), model.Edge(fleet.WEB, "", "1.2.0")
        elsewhere, anyhow = model.Edge(fleet.WEB, "<1.1.0", "1.2.0"), model.Edge(fleet.WEB, "", "1.1.0", cost=9)
        await machine.put_graph(fleet.WEB, (up, down, past, elsewhere, anyhow), (BARRIER,), actor="ann")
        await machine.promote_release(fleet.WEB, "1.1.0", "stable", actor="ann")
        await machine.promote_release(fleet.WEB, "1.2.0", "candidate", actor="ann")
        found = machine.whereabouts(fleet.WEB, "1.1.0")
        assert (found.release, found.barrier, found.block) == (fleet.release("1.1.0"), BARRIER, None)
        assert [each.name for each in found.channels] == ["stable"]
        assert (found.edges_to, found.edges_from) == ((up, anyhow), (down, past))
        await machine.block_release(fleet.WEB, "1.1.0", reason="it leaks", actor="ann")
        blocked = (await controller.restart()).whereabouts(fleet.WEB, "1.1.0")
        assert blocked.block is not None
        assert (blocked.block.reason, blocked.block.actor) == ("it leaks", "ann")
        assert (blocked.edges_to, blocked.edges_from) == ((up, anyhow), (down, past))
        with pytest.raises(errors.NotFoundError):
            controller.engine.whereabouts(fleet.WEB, "9.9.9")

    fleet.told(tmp_path, tale)


def test_nodes_that_left_a_release_for_cause_are_named_up_to_a_bound_and_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whereabouts, "LEAVERS_MAX", 2)

    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        policy = model.Policy(max_failures=2)
        await machine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        for agent in reversed(agents):
            await agent.fail(machine)
        found = machine.whereabouts(fleet.WEB, "1.1.0")
        assert [(each.node_id, each.reason) for each in found.leavers] == [
            ("n1", "probe_failed"),
            ("n2", "probe_failed"),
        ]
        assert found.left_by == 3
        assert machine.whereabouts(fleet.WEB, "1.2.0").left_by == 0

    fleet.told(tmp_path, tale)
