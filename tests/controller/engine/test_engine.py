"""The engine on a real SQLite file, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from controller import engine
from controller.core import errors, model, rollout
from controller.engine import commands
from controller.store import database, reading, rows, tables
from tests.controller.engine import fleet

S = model.RolloutState


def test_a_rollout_goes_from_start_to_success_and_its_state_is_what_the_store_holds(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        assert begun.state is S.RUNNING
        for agent in agents:
            await agent.obey(machine)
        done = machine.rollout("up")
        assert done.state is S.SUCCEEDED
        assert [machine.node(agent.node_id).components[fleet.WEB].version for agent in agents] == ["1.1.0"] * 3
        assert [machine.node(agent.node_id).operation_id for agent in agents] == [None] * 3
        assert [machine.commands(agent.node_id) for agent in agents] == [()] * 3
        journal = controller.store.read(lambda connection: reading.journal(connection, done.id))
        assert [each.revision for each in journal] == list(range(1, done.revision + 1))
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_journal_replayed_from_the_start_gives_the_state_that_is_stored(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        done = machine.rollout(begun.id)
        journal = controller.store.read(lambda connection: reading.journal(connection, done.id))
        assert fleet.replayed(begun, journal) == done
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_controller_that_crashed_goes_on_where_it_was_and_asks_for_no_operation_twice(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller)
        wanted = fleet.request(policy=model.Policy(max_parallel=1))
        await controller.engine.start_upgrade(wanted, request_id="one", actor="ann")
        for _ in range(20):
            machine = await controller.restart()
            for agent in agents:
                await agent.connect(machine)
            busy = [agent for agent in agents if agent.assigned(machine)]
            assert len(busy) <= 1
            for agent in busy:
                await agent.obey(machine)
        assert controller.engine.rollout("up").state is S.SUCCEEDED
        assert sorted(len(agent.executed) for agent in agents) == [1, 1, 1]
        await controller.stop()

    fleet.in_virtual_time(story)


def test_commands_after_a_crash_are_those_from_before_and_what_the_core_says_is_outstanding(
    where: database.Where,
) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        before = [controller.engine.commands(agent.node_id) for agent in agents]
        machine = await controller.restart()
        assert [machine.commands(agent.node_id) for agent in agents] == before
        owed = {each.operation_id for each in rollout.outstanding(machine.rollout(begun.id))}  # type: ignore[union-attr]  # these are assignments
        assert owed == {each.operation_id for found in before for each in found}
        await controller.stop()

    fleet.in_virtual_time(story)


def test_deadlines_stand_where_they_stood_after_a_crash(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        await fleet.upgraded_fleet(controller)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        await asyncio.sleep(100)
        machine = await controller.restart()
        found = machine.rollout(begun.id)
        assert found.progress_by == begun.progress_by
        assert [each.deadline_at for each in _progress(found)] == [each.deadline_at for each in _progress(begun)]
        await controller.stop()

    fleet.in_virtual_time(story)


def _progress(found: model.Rollout) -> list[model.Progress]:
    return sorted(found.changes.values(), key=lambda each: each.change.node_id)


def test_an_absence_is_told_to_each_running_rollout_from_the_last_sign_of_life(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        await fleet.upgraded_fleet(controller)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        await asyncio.sleep(42)
        died_at = fleet.LoopClock().now()
        await controller.crash()
        await asyncio.sleep(1000)
        await controller.start()
        told = controller.store.read(lambda connection: reading.journal(connection, begun.id))[-1].event
        assert type(told).__name__ == "ControllerAbsent"
        assert died_at - timedelta(seconds=5) <= told.since <= died_at  # type: ignore[union-attr]  # as the line above says
        assert told.at == died_at + timedelta(seconds=1000)
        await controller.stop()

    fleet.in_virtual_time(story)


def test_silent_nodes_are_ticked_to_the_end_of_their_rollout(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        await fleet.upgraded_fleet(controller)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        seen = [each.state async for each in controller.engine.watch(begun.id)]
        assert seen[-1] is S.FAILED
        assert fleet.LoopClock().now() - begun.created_at < timedelta(minutes=20)
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_deadline_that_a_commit_brings_forward_is_met_when_it_is_due(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        await fleet.upgraded_fleet(controller)
        await asyncio.sleep(1)
        policy = model.Policy(unknown_deadline=timedelta(seconds=2))
        await controller.engine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        await asyncio.sleep(2.1)
        states = {each.state for each in controller.engine.rollout("up").changes.values()}
        assert states == {model.OperationState.UNKNOWN}
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_watcher_sees_the_state_now_each_later_one_and_the_end(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")

        async def watch() -> list[int]:
            return [each.revision async for each in machine.watch(begun.id)]

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            for agent in agents:
                await agent.obey(machine)
        assert watching.result()[0] >= begun.revision
        assert watching.result() == sorted(set(watching.result()))
        assert watching.result()[-1] == machine.rollout(begun.id).revision
        await controller.stop()

    fleet.in_virtual_time(story)


def test_the_same_request_identity_again_returns_the_same_rollout_also_after_a_crash(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        await fleet.upgraded_fleet(controller)
        first = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        again = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        machine = await controller.restart()
        later = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        assert first.id == again.id == later.id
        with pytest.raises(errors.RefusedError) as refused:
            await machine.start_upgrade(fleet.request(name="other"), request_id="one", actor="ann")
        assert refused.value.code == "request_id_reused"
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_node_is_in_one_unfinished_rollout_at_a_time_and_the_refusal_is_stored(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        await fleet.upgraded_fleet(controller)
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        with pytest.raises(errors.RefusedError) as refused:
            await machine.start_upgrade(fleet.request(), request_id="two", actor="bob")
        assert refused.value.code == "rollout_conflict"
        assert len(machine.rollouts(10)) == 1
        stored = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert [(each.actor, each.action, each.code) for each in stored] == [
            ("bob", "start_upgrade", "rollout_conflict")
        ]
        await controller.stop()

    fleet.in_virtual_time(story)


def test_the_planners_refusals_change_nothing_and_are_stored(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        await fleet.upgraded_fleet(controller)
        machine = controller.engine
        with pytest.raises(errors.NotFoundError):
            await machine.start_upgrade(fleet.request(target_version="9.9.9"), request_id="one", actor="ann")
        assert machine.rollouts(10) == ()
        stored = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert [each.code for each in stored] == ["release_not_found"]
        await controller.stop()

    fleet.in_virtual_time(story)


def test_unknown_names_are_not_found(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        machine = await controller.start()
        for ask, code in (
            (lambda: machine.rollout("none"), "rollout_not_found"),
            (lambda: machine.node(model.NodeId("none")), "node_not_found"),
            (lambda: machine.release(fleet.WEB, "1.0.0"), "release_not_found"),
        ):
            with pytest.raises(errors.NotFoundError) as missing:
                ask()
            assert missing.value.code == code
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_version_names_the_same_bytes_for_ever(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        machine = await controller.start()
        assert await machine.publish(fleet.release("1.0.0"))
        assert not await machine.publish(fleet.release("1.0.0"))
        machine = await controller.restart()
        with pytest.raises(errors.RefusedError) as refused:
            await machine.publish(replace(fleet.release("1.0.0"), digest=fleet.DIGESTS["1.1.0"]))
        assert refused.value.code == "release_exists"
        assert machine.releases("web") == (fleet.release("1.0.0"),)
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_state_that_somebody_else_changed_is_not_overwritten(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        await controller.store.write(
            lambda connection: connection.execute(sa.update(tables.leases).values(epoch=2, owner="somebody else"))
        )
        with pytest.raises(errors.ConflictError):
            await agents[0].tell_status(machine, command, model.OperationState.RUNNING)
        stored = controller.store.read(lambda connection: reading.rollout(connection, begun.id))
        assert stored is not None
        assert stored.revision == begun.revision
        with pytest.raises(errors.UnavailableError) as refused:
            await machine.revert(begun.id, reason="late", actor="ann")
        assert refused.value.code == "rollout_elsewhere"
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_revert_takes_a_finished_rollout_back_and_only_once(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller, nodes=2)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        reverting = await machine.revert(begun.id, reason="slow", actor="bob")
        assert reverting.state is S.REVERTING
        for agent in agents:
            await agent.obey(machine)
        assert machine.rollout(begun.id).state is S.REVERTED
        assert [agent.version for agent in agents] == ["1.0.0"] * 2
        with pytest.raises(errors.RefusedError):
            await machine.revert(begun.id, reason="again", actor="bob")
        done = controller.store.read(lambda connection: reading.audit(connection, begun.id))
        assert ("bob", "rollout.reverting") in [(each.actor, each.action) for each in done]
        await controller.stop()

    fleet.in_virtual_time(story)


def test_subscribers_hear_when_commands_may_have_changed(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        heard: list[tuple[commands.Command, ...]] = []
        unsubscribe = machine.subscribe(agents[0].node_id, lambda: heard.append(machine.commands(agents[0].node_id)))
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        assert [len(each) for each in heard] == [1]
        unsubscribe()
        await agents[0].obey(machine)
        assert len(heard) == 1
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_full_disk_stops_acceptance_and_loses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        await controller.store.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1"))
        large = replace(fleet.release("1.0.0"), version="1.0.1", manifest_json="x" * 1_000_000)
        with pytest.raises(errors.UnavailableError) as refused:
            await machine.publish(large)
        assert refused.value.code == "store_full"
        assert machine.rollout("up") == begun
        await controller.store.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 100000"))
        assert await machine.publish(large)
        await agents[0].obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED
        await controller.stop()

    fleet.in_virtual_time(story)


def test_many_reports_share_a_transaction_and_a_bad_one_harms_no_other(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller, nodes=20)
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        commits: list[rows.Commit] = []
        controller.store.commit, original = _counted(controller.store.commit, commits), controller.store.commit  # type: ignore[method-assign]  # it is watched, not replaced
        async with asyncio.TaskGroup() as group:
            for agent in agents:
                command = agent.assigned(machine)[0]
                group.create_task(agent.tell_status(machine, command, model.OperationState.RUNNING))
            refused = group.create_task(_refused(machine))
        assert refused.result().code == "release_not_found"
        assert len(commits) < len(agents)
        states = {each.state for each in machine.rollout("up").changes.values()}
        assert states == {model.OperationState.RUNNING}
        controller.store.commit = original  # type: ignore[method-assign]  # as above
        await controller.stop()

    fleet.in_virtual_time(story)


def _counted(commit: Callable[[rows.Commit], Awaitable[None]], seen: list[rows.Commit]) -> Any:  # noqa: ANN401 a method
    async def counted(what: rows.Commit) -> None:
        seen.append(what)
        await commit(what)

    return counted


async def _refused(machine: engine.Engine) -> errors.InstarError:
    with pytest.raises(errors.NotFoundError) as refused:
        await machine.start_upgrade(fleet.request(target_version="9.9.9"), request_id="two", actor="ann")
    return refused.value


def test_the_same_story_happens_in_memory() -> None:
    async def story() -> None:
        controller = fleet.Controller(None)
        agents = await fleet.upgraded_fleet(controller)
        await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(controller.engine)
        assert controller.engine.rollout("up").state is S.SUCCEEDED
        await controller.stop()

    fleet.in_virtual_time(story)


def test_what_is_asked_after_the_stop_is_refused(where: database.Where) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        machine = await controller.start()
        await controller.stop()
        with pytest.raises(errors.UnavailableError):
            await machine.publish(fleet.release("1.0.0"))

    fleet.in_virtual_time(story)
