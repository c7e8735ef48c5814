"""Plans: asked for, saved, and made beside the loop where the fleet is large."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.core import errors, model, planner
from controller.engine import planning, rollouts
from controller.store import reading
from tests.controller.engine import fleet

S = model.RolloutState


class Large:
    """A controller whose fleet counts as large, on a real loop: its plans are made beside it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planning, "INLINE_NODES_MAX", 0)
        self._monkeypatch = monkeypatch
        self.controller = fleet.Controller(path / "store")
        self.threads: list[str] = []
        self.while_planning: Callable[[], None] = lambda: None

    def watch(self) -> None:
        original = planner.plan

        def plan(*arguments: Any) -> model.Plan:  # noqa: ANN401 as the planner's
            self.threads.append(threading.current_thread().name)
            made = original(*arguments)
            self.while_planning()
            return made

        self._monkeypatch.setattr(planner, "plan", plan)


async def test_a_large_fleet_is_planned_beside_the_loop_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Large(tmp_path, monkeypatch)
    await fleet.upgraded_fleet(large.controller)
    large.watch()
    machine = large.controller.engine
    assert (await machine.plan(fleet.request())).waves
    begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
    assert begun.state is S.RUNNING
    assert len(large.threads) == 2
    assert threading.main_thread().name not in large.threads
    assert (await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")).id == begun.id
    await large.controller.stop()


async def test_a_plan_that_the_world_has_overtaken_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Large(tmp_path, monkeypatch)
    agents = await fleet.upgraded_fleet(large.controller)
    large.watch()
    machine, loop = large.controller.engine, asyncio.get_running_loop()
    cordons = iter([agents[0].node_id])

    def meanwhile() -> None:
        for node_id in cordons:
            cordoned = machine.cordon_node(node_id, reason="new disk", actor="bob")
            asyncio.run_coroutine_threadsafe(cordoned, loop).result()
            break

    large.while_planning = meanwhile
    wanted = fleet.request(level=model.ValidationLevel.PERMISSIVE)
    begun = await machine.start_upgrade(wanted, request_id="one", actor="ann")
    assert len(large.threads) == 2
    assert [each.node_id for each in begun.plan.excluded] == [agents[0].node_id]
    await large.controller.stop()


async def test_a_world_that_never_stands_still_is_planned_on_the_loop_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Large(tmp_path, monkeypatch)
    agents = await fleet.upgraded_fleet(large.controller)
    large.watch()
    machine, loop = large.controller.engine, asyncio.get_running_loop()
    main = threading.current_thread()

    def meanwhile() -> None:
        if threading.current_thread() is not main:
            labels = {"turn": str(len(large.threads))}
            labelled = machine.label_node(agents[0].node_id, labels, (), actor="bob")
            asyncio.run_coroutine_threadsafe(labelled, loop).result()

    large.while_planning = meanwhile
    begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
    assert begun.state is S.RUNNING
    assert [each == main.name for each in large.threads] == [False] * rollouts.PLAN_TRIES + [True]
    await large.controller.stop()


async def test_what_waits_is_planned_beside_the_loop_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Large(tmp_path, monkeypatch)
    agents = await fleet.upgraded_fleet(large.controller)
    machine, loop = large.controller.engine, asyncio.get_running_loop()
    await machine.start_upgrade(fleet.request(name="first"), request_id="one", actor="ann")
    second = fleet.request(name="second", target_version="1.2.0", conflict=model.ConflictPolicy.QUEUE)
    waiting = await machine.start_upgrade(second, request_id="two", actor="ann")
    large.watch()
    turns = iter(range(2))

    def meanwhile() -> None:
        for turn in turns:
            labelled = machine.label_node(agents[0].node_id, {"turn": str(turn)}, (), actor="bob")
            asyncio.run_coroutine_threadsafe(labelled, loop).result()
            break

    large.while_planning = meanwhile
    for agent in agents:
        await agent.obey(machine)
    async for each in machine.watch(waiting.id):
        if each.state is S.RUNNING:
            break
    assert len(large.threads) == 3
    assert threading.main_thread().name not in large.threads
    await large.controller.stop()


async def test_what_the_planner_refuses_for_a_large_fleet_is_refused_counted_and_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Large(tmp_path, monkeypatch)
    await fleet.upgraded_fleet(large.controller)
    machine = large.controller.engine
    with pytest.raises(errors.NotFoundError):
        await machine.start_upgrade(fleet.request(target_version="9.9.9"), request_id="one", actor="ann")
    assert machine.statistics().refused == 1
    await large.controller.stop()


async def test_a_plan_that_takes_too_long_is_given_up_and_its_work_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Large(tmp_path, monkeypatch)
    await fleet.upgraded_fleet(large.controller)
    monkeypatch.setattr(planning, "PLAN_DEADLINE", timedelta(seconds=0.05))
    has_ended, is_late = threading.Event(), threading.Event()

    def slow(_request: model.UpgradeRequest, asked: planner.Fleet) -> model.Plan:
        is_late.wait()
        try:
            list(asked.nodes)
        finally:
            has_ended.set()
        raise AssertionError("it went on planning")

    monkeypatch.setattr(planner, "plan", slow)
    with pytest.raises(errors.UnavailableError) as late:
        await large.controller.engine.plan(fleet.request())
    assert late.value.code == "plan_late"
    is_late.set()
    await asyncio.to_thread(has_ended.wait)
    await large.controller.stop()


def test_a_refused_plan_is_kept_and_counted(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        with pytest.raises(errors.NotFoundError):
            await controller.engine.plan(fleet.request(target_version="9.9.9"), actor="ann")
        machine = await controller.restart()
        assert machine.statistics().refused == 1
        [kept] = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert (kept.actor, kept.action, kept.code) == ("ann", "plan_upgrade", "release_not_found")

    fleet.told(tmp_path, tale)


def test_a_saved_plan_is_applied_as_it_is_and_refused_with_what_has_changed_once_it_is_stale(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        saved = await machine.plan(fleet.request())
        await agents[0].disconnect(machine)
        await asyncio.sleep(60)
        stale = await machine.plan(fleet.request(selector="zone=a"))
        await machine.label_node(agents[1].node_id, {"zone": "b"}, [], actor="ann")
        with pytest.raises(errors.RefusedError) as refused:
            await machine.start_upgrade(fleet.request(selector="zone=a"), request_id="one", actor="ann", saved=stale)
        assert refused.value.code == "plan_stale"
        assert "n2" in str(refused.value)
        assert machine.rollouts(10) == ()
        begun = await machine.start_upgrade(fleet.request(), request_id="two", actor="ann", saved=saved)
        assert begun.plan.fingerprint == saved.fingerprint

    fleet.told(tmp_path, tale)


def test_a_condition_is_asked_with_the_latest_metrics_of_the_node(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        edge = model.Edge(fleet.WEB, "", "1.1.0", condition='metrics["system.cpu.utilization"] < 0.5')
        await machine.put_graph(fleet.WEB, (edge,), (), actor="ann")
        for agent, load in zip(agents, (0.1, 0.9), strict=False):
            metrics = (
                model.Metric("system.cpu.utilization", "", load),
                model.Metric("system.cpu.utilization", "web", 0.1),
            )
            await agent.tell(machine, model.NodeReport(metrics=metrics))
        plan = await machine.plan(fleet.request(level=model.ValidationLevel.PERMISSIVE))
        assert [change.node_id for wave in plan.waves for change in wave.changes] == ["n1"]

    fleet.told(tmp_path, tale)


def test_a_world_is_the_same_for_a_plan_where_only_what_is_live_has_changed(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        before = machine._desk.world
        await agents[0].disconnect(machine)
        assert planning.is_same(before, machine._desk.world)
        await fleet.Agent("n9").connect(machine)
        assert not planning.is_same(before, machine._desk.world)

    fleet.told(tmp_path, tale)
