"""The engine on a real SQLite file, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core import errors, model
from controller.store import reading
from tests.controller.engine import fleet

S = model.RolloutState


def test_a_fence_jumps_past_what_the_node_has_seen_also_for_what_was_assigned(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        assert agents[0].assigned(machine)[0].fence == 1
        agents[0].fence = 41
        await agents[0].connect(machine)
        assert agents[0].assigned(machine)[0].fence == 42
        assert machine.node(agents[0].node_id).fence == 42
        await agents[0].obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_report_told_twice_is_stored_once(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        report = model.NodeReport(
            operations=(fleet.status(command, model.OperationState.RUNNING, step=model.Step.FETCH),),
            steps=fleet.steps(command, model.Step.FETCH),
        )
        await agents[0].tell(machine, report)
        once = machine.rollout("up").revision
        await agents[0].tell(machine, report)
        assert machine.rollout("up").revision == once
        stored = controller.store.read(lambda connection: reading.steps(connection, command.operation_id))
        assert stored == report.steps
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_heartbeat_that_tells_nothing_new_writes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        before = controller.store.read(reading.alive_at)
        await asyncio.sleep(60)
        healthier = fleet.installed("1.0.0", healthy_for_seconds=120)
        metric = model.Metric("system.cpu.utilization", "", 0.5)
        await agents[0].tell(machine, model.NodeReport(components=(healthier,), metrics=(metric,)))
        assert controller.store.read(reading.alive_at) == before
        assert machine.node(agents[0].node_id).components[fleet.WEB] == healthier
        assert machine.metrics(agents[0].node_id) == (metric,)
        await controller.stop()

    fleet.in_virtual_time(story)


def test_only_the_latest_session_speaks_for_a_node(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        stale = agents[0].session_id
        assert (await agents[0].connect(machine)).generation == 2
        with pytest.raises(errors.RefusedError) as refused:
            await machine.report(agents[0].node_id, stale, model.NodeReport())
        assert refused.value.code == "session_stale"
        await machine.close_session(agents[0].node_id, stale)
        assert machine.node(agents[0].node_id).is_connected
        await machine.close_session(agents[0].node_id, agents[0].session_id)
        assert not machine.node(agents[0].node_id).is_connected
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_node_may_not_speak_of_another_ones_operation(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=2)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        await agents[1].tell_status(machine, command, model.OperationState.PERMANENT)
        assert machine.rollout(begun.id).revision == begun.revision
        stored = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert [each.code for each in stored] == ["operation_unknown"]
        await controller.stop()

    fleet.in_virtual_time(story)


def test_what_was_changed_by_hand_on_a_node_is_written_down_and_refused_by_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine, node_id = controller.engine, agents[0].node_id
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        given = fleet.status(agents[0].assigned(machine)[0], model.OperationState.RUNNING)
        by_hand = replace(given, operation_id=model.OperationId("local/20260101/web"))
        at = by_hand.changed_at
        step = model.StepRecord(by_hand.operation_id, 1, model.Step.COMMIT, at, at, is_success=True, evidence={})
        for state in (model.OperationState.RUNNING, model.OperationState.PERMANENT):
            report = model.NodeReport(operations=(replace(by_hand, state=state),), steps=(step,))
            await agents[0].tell(machine, report)
        assert machine.rollout(begun.id).revision == begun.revision
        assert not controller.store.read(lambda connection: reading.refusals(connection, 10))
        [entry] = controller.store.read(lambda connection: reading.audit(connection, node_id))
        assert (entry.actor, entry.action) == (node_id, "node.changed_by_hand")
        assert entry.reason == f"{by_hand.component} PERMANENT by operation local/20260101/web"
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_version_at_fault_is_remembered_and_the_nodes_go_back(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=2)
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        await agents[0].obey(machine)
        command = agents[1].assigned(machine)[0]
        await agents[1].tell_status(
            machine, command, model.OperationState.ABORTED, fault=model.Fault.VERSION, reason="probe_failed"
        )
        for _ in range(3):
            for agent in agents:
                await agent.obey(machine)
        assert machine.rollout("up").state is S.REVERTED
        assert agents[0].version == "1.0.0"
        machine = await controller.restart()
        assert machine.node(agents[1].node_id).bad_digests == {fleet.DIGESTS["1.1.0"]: "probe_failed"}
        await controller.stop()

    fleet.in_virtual_time(story)


def test_an_operation_that_still_bakes_is_let_go_when_the_node_gets_another(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=2)
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        baking, failing = agents[0].assigned(machine)[0], agents[1].assigned(machine)[0]
        await agents[0].tell_status(machine, baking, model.OperationState.COMMITTED)
        assert machine.node(agents[0].node_id).operation_id is None
        await agents[1].tell_status(
            machine, failing, model.OperationState.ABORTED, fault=model.Fault.VERSION, reason="probe_failed"
        )
        unsettled = controller.store.read(reading.snapshot).assignments
        assert [each.assign.is_reverting for each in unsettled] == [True]
        assert unsettled[0].fence == baking.fence + 1
        await controller.stop()

    fleet.in_virtual_time(story)


def test_what_a_node_never_heard_of_is_forgotten_when_it_comes_back_after_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        async for _ in machine.watch(begun.id):
            pass
        await agents[0].connect(machine)
        assert machine.commands(agents[0].node_id) == ()
        assert controller.store.read(reading.snapshot).assignments == ()
        await controller.stop()

    fleet.in_virtual_time(story)


def failed_journal() -> model.Condition:
    return model.Condition("journal_failed", "", "the disk said EIO", fleet.EPOCH)


def test_a_node_that_cannot_make_anything_durable_is_asked_for_nothing_until_it_is_well(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=2)
        machine, node_id = controller.engine, agents[0].node_id
        await agents[0].tell(machine, model.NodeReport(conditions=(failed_journal(),)))
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        assert [len(agent.assigned(machine)) for agent in agents] == [0, 1]
        await agents[0].tell(machine, model.NodeReport())
        waits = next(each for each in machine.rollout("up").changes.values() if each.change.node_id == node_id)
        assert waits.state is None
        assert machine.rollout("up").standings[node_id].down == "journal_failed: the disk said EIO"
        machine = await controller.restart()
        assert machine.node(node_id).conditions == (failed_journal(),)
        assert agents[0].assigned(machine) == []
        rung: list[str] = []
        machine.subscribe(node_id, lambda: rung.append("rung"))
        for agent in agents:
            await agent.connect(machine)
        assert machine.node(node_id).conditions == (failed_journal(),)
        await agents[0].tell(machine, model.NodeReport(conditions=()))
        assert rung
        for agent in agents:
            await agent.obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED
        await controller.stop()

    fleet.in_virtual_time(story)


def test_what_has_begun_is_still_asked_for_while_the_journal_fails(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        await agents[0].tell_status(machine, command, model.OperationState.RUNNING)
        await agents[0].tell(machine, model.NodeReport(conditions=(failed_journal(),)))
        assert agents[0].assigned(machine) == [command]
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_component_is_stopped_by_a_rollout_that_keeps_its_kind_over_a_crash(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        wanted = fleet.request(
            target_version="", kind=model.ChangeKind.STOP, name="", policy=model.Policy(discard_writes=True)
        )
        await controller.engine.start_upgrade(wanted, request_id="one", actor="ann")
        machine = await controller.restart()
        await agents[0].connect(machine)
        begun = machine.rollout("web-stop")
        assert begun.request.kind is model.ChangeKind.STOP
        command = agents[0].assigned(machine)[0]
        assert (command.kind, command.from_digest, command.to_version) == (
            model.ChangeKind.STOP,
            command.to_digest,
            "1.0.0",
        )
        assert command.discard_writes
        stopped = replace(fleet.installed("1.0.0"), is_stopped=True, health=model.Health.UNKNOWN)
        done = fleet.status(command, model.OperationState.PERMANENT)
        await agents[0].tell(machine, model.NodeReport(components=(stopped,), operations=(done,)))
        assert machine.rollout(begun.id).state is S.SUCCEEDED
        assert machine.node(agents[0].node_id).components[fleet.WEB].is_stopped
        audit = controller.store.read(lambda connection: reading.audit(connection, begun.id))
        assert audit[0].reason == "web stop"
        await controller.stop()

    fleet.in_virtual_time(story)


def test_an_order_that_could_take_no_node_back_is_refused_and_kept(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        component = model.ComponentName("db")
        schemas = (model.StateSchema(1), model.StateSchema(2, migrations=(model.Migration(1, 2),)))
        digests = (model.Digest("sha256:" + "d" * 64), model.Digest("sha256:" + "e" * 64))
        for version, digest, schema in zip(fleet.VERSIONS, digests, schemas, strict=False):
            published = replace(fleet.release(version), component=component, digest=digest, state=schema)
            await machine.publish(published)
        installed, runs = (
            replace(fleet.installed(version), name=component, digest=digest, permanent_digest=digest)
            for version, digest in zip(fleet.VERSIONS, digests, strict=False)
        )
        await agents[0].tell(machine, model.NodeReport(components=(installed,)))
        wanted = fleet.request(component=component, policy=model.Policy(restart_allowed=True))
        await machine.start_upgrade(wanted, request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        assert command.method is model.Method.RESTART
        done = fleet.status(command, model.OperationState.PERMANENT)
        await agents[0].tell(machine, model.NodeReport(components=(runs,), operations=(done,)))
        with pytest.raises(errors.RefusedError) as refused:
            await machine.revert(machine.rollout("up").id, reason="slow", actor="ann")
        assert refused.value.code == "no_way_back"
        assert machine.rollout("up").state is S.SUCCEEDED
        stored = controller.store.read(lambda connection: reading.refusals(connection, 1))
        assert [each.code for each in stored] == ["no_way_back"]
        await controller.stop()

    fleet.in_virtual_time(story)
