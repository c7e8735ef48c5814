"""Two rollouts that want the same nodes: the second is refused, waits, or takes the place of the first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller import engine
from controller.core import errors, model
from controller.store import reading, rows
from tests.controller.engine import fleet

S = model.RolloutState
C = model.ConflictPolicy


async def start(machine: engine.Engine, name: str, version: str = "1.2.0", **changes: object) -> model.Rollout:
    wanted = fleet.request(name=name, target_version=version, conflict=C.QUEUE, **changes)
    return await machine.start_upgrade(wanted, request_id=name, actor="ann")


def states(machine: engine.Engine, *names: str) -> list[model.RolloutState]:
    return [machine.rollout(name).state for name in names]


def test_a_queued_rollout_waits_says_for_whom_and_begins_with_a_new_plan(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        first = await start(machine, "first", "1.1.0")
        second = await start(machine, "second")
        assert (second.state, second.message) == (S.PENDING, f"waits for rollout {first.id}")
        for agent in agents:
            await agent.obey(machine)
        await asyncio.sleep(1)
        begun = machine.rollout("second")
        assert (begun.state, begun.message) == (S.RUNNING, "")
        assert {each.change.from_version for each in begun.changes.values()} == {"1.1.0"}
        for agent in agents:
            await agent.obey(machine)
        assert machine.rollout("second").state is S.SUCCEEDED
        assert [agent.version for agent in agents] == ["1.2.0"] * 3

    fleet.told(tmp_path, tale)


def test_what_waits_still_waits_after_a_crash_and_begins_when_its_nodes_were_freed_meanwhile(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        first = await start(controller.engine, "first", "1.1.0")
        await start(controller.engine, "second")
        machine = await controller.restart()
        await asyncio.sleep(1)
        assert states(machine, "second") == [S.PENDING]
        for agent in agents:
            await agent.connect(machine)
            await agent.obey(machine)
        assert machine.rollout(first.id).state is S.SUCCEEDED
        machine = await controller.restart()
        await asyncio.sleep(1)
        assert states(machine, "second") == [S.RUNNING]

    fleet.told(tmp_path, tale)


def test_the_highest_priority_is_next_and_then_the_oldest(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, "first", "1.1.0")
        await start(machine, "old")
        await start(machine, "young")
        await start(machine, "urgent", priority=5)
        for agent in agents:
            await agent.obey(machine)
        await asyncio.sleep(1)
        assert states(machine, "urgent", "old", "young") == [S.RUNNING, S.PENDING, S.PENDING]
        urgent, old = machine.rollout("urgent"), machine.rollout("old")
        assert old.message == f"waits for rollout {urgent.id}"
        assert machine.rollout("young").message == f"waits for rollout {urgent.id} and 1 more"
        for agent in agents:
            await agent.obey(machine)
        await asyncio.sleep(1)
        assert states(machine, "old", "young") == [S.SUCCEEDED, S.SUCCEEDED]

    fleet.told(tmp_path, tale)


def test_nobody_overtakes_what_waits_for_a_part_of_its_nodes(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        for agent, zone in zip(agents, "abb", strict=True):
            await machine.label_node(agent.node_id, {"zone": zone}, (), actor="ann")
        await start(machine, "first", "1.1.0", selector="zone=a")
        await start(machine, "all")
        await start(machine, "part", selector="zone=b")
        await asyncio.sleep(1)
        assert states(machine, "all", "part") == [S.PENDING, S.PENDING]
        with pytest.raises(errors.RefusedError) as refused:
            await machine.start_upgrade(fleet.request(name="now", selector="zone=b"), request_id="now", actor="bob")
        assert refused.value.code == "rollout_conflict"
        await agents[0].obey(machine)
        await asyncio.sleep(1)
        assert states(machine, "all", "part") == [S.RUNNING, S.PENDING]

    fleet.told(tmp_path, tale)


def test_a_queued_rollout_whose_nodes_are_free_begins_at_once(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        assert (await start(controller.engine, "first")).state is S.RUNNING

    fleet.told(tmp_path, tale)


def test_a_superseded_rollout_is_cancelled_and_its_nodes_go_straight_to_the_newest(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        first = await start(machine, "first", "1.1.0", policy=model.Policy(max_parallel=1))
        await start(machine, "waiting", "1.1.0")
        busy = next(agent for agent in agents if agent.assigned(machine))
        await busy.obey(machine)
        wanted = fleet.request(name="newest", target_version="1.2.0", conflict=C.SUPERSEDE)
        newest = await machine.start_upgrade(wanted, request_id="newest", actor="bob")
        assert newest.state is S.PENDING
        assert states(machine, "waiting") == [S.CANCELLED]
        command = next(agent for agent in agents if agent.assigned(machine)).assigned(machine)[0]
        holder = next(agent for agent in agents if command in agent.assigned(machine))
        cancelled = model.OperationState.ABORTED
        await holder.tell_status(machine, command, cancelled, fault=model.Fault.COMMAND, reason="cancelled")
        await asyncio.sleep(1)
        assert states(machine, "first", "newest") == [S.CANCELLED, S.RUNNING]
        starts = sorted(each.change.from_version for each in machine.rollout("newest").changes.values())
        assert starts == ["1.0.0", "1.0.0", "1.1.0"]
        audit = controller.store.read(lambda connection: reading.audit(connection, first.id))
        assert any(each.actor == "bob" and newest.id in each.reason for each in audit)

    fleet.told(tmp_path, tale)


def test_a_rollout_that_goes_back_is_waited_for_by_what_supersedes_it(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        first = await start(machine, "first", "1.1.0")
        await agents[0].obey(machine)
        await machine.revert(first.id, reason="bad", actor="ann")
        wanted = fleet.request(name="newest", target_version="1.2.0", conflict=C.SUPERSEDE)
        await machine.start_upgrade(wanted, request_id="newest", actor="bob")
        assert states(machine, "first", "newest") == [S.REVERTING, S.PENDING]

    fleet.told(tmp_path, tale)


def test_a_rollout_whose_new_plan_is_refused_ends_and_says_why(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, "first", "1.1.0")
        await start(machine, "second")
        await machine.block_release(fleet.WEB, "1.2.0", reason="it leaks", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        await asyncio.sleep(1)
        ended = machine.rollout("second")
        assert ended.state is S.CANCELLED
        assert "it leaks" in ended.message

    fleet.told(tmp_path, tale)


def test_what_waits_can_be_cancelled_and_lets_those_behind_it_go_on(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, "first", "1.1.0")
        second = await start(machine, "second")
        await start(machine, "third")
        assert (await machine.cancel(second.id, reason="no need", actor="ann")).state is S.CANCELLED
        for agent in agents:
            await agent.obey(machine)
        await asyncio.sleep(1)
        assert states(machine, "second", "third") == [S.CANCELLED, S.RUNNING]

    fleet.told(tmp_path, tale)


def test_a_journal_of_a_rollout_that_waited_replays_to_what_is_stored(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, "first", "1.1.0")
        waiting = await start(machine, "second")
        for _ in range(2):
            for agent in agents:
                await agent.obey(machine)
            await asyncio.sleep(1)
        done = machine.rollout("second")
        assert done.state is S.SUCCEEDED
        journal = controller.store.read(lambda connection: reading.journal(connection, done.id))
        assert fleet.replayed(waiting, journal) == done

    fleet.told(tmp_path, tale)


def test_a_new_plan_that_takes_a_node_which_somebody_has_by_now_waits_for_that_one(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.label_node(agents[2].node_id, {"zone": "b"}, (), actor="ann")
        await start(machine, "first", "1.1.0", selector="zone=a")
        await start(machine, "second", selector="zone=a")
        other = await start(machine, "other", selector="zone=b")
        await machine.label_node(agents[2].node_id, {"zone": "a"}, (), actor="ann")
        for agent in agents[:2]:
            await agent.obey(machine)
        await asyncio.sleep(1)
        assert machine.rollout("second").message == f"waits for rollout {other.id}"
        await agents[2].obey(machine)
        await asyncio.sleep(1)
        assert states(machine, "second") == [S.RUNNING]
        assert len(machine.rollout("second").changes) == 2

    fleet.told(tmp_path, tale)


def test_what_waits_is_looked_at_again_when_the_store_could_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await start(machine, "first", "1.1.0")
        second = await start(machine, "second")
        original = controller.store.commit

        async def full(commit: rows.Commit) -> None:
            if any(write.rollout.id == second.id for write in commit.rollouts):
                raise OSError("no space left on device")
            await original(commit)

        monkeypatch.setattr(controller.store, "commit", full)
        for agent in agents:
            await agent.obey(machine)
        await asyncio.sleep(1)
        assert states(machine, "first", "second") == [S.SUCCEEDED, S.PENDING]
        monkeypatch.setattr(controller.store, "commit", original)
        await asyncio.sleep(40)
        assert states(machine, "second") == [S.RUNNING]

    fleet.told(tmp_path, tale)
