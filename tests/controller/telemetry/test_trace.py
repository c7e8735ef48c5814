"""The trace of a rollout: one tree, whatever happened to the controller, and the same bytes each time it is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.config import traces
from controller.core import model
from controller.store import database, executor, reading
from controller.telemetry import emit, ids
from tests.controller.engine import fleet
from tests.controller.telemetry import collectors

S = model.OperationState


def _trace(controller: fleet.Controller, rollout_id: model.RolloutId) -> list[dict[str, Any]]:
    wanted = ids.trace_id(rollout_id)
    return [json.loads(body) for body in controller.store.read(lambda connection: reading.trace(connection, wanted))]


def _check_tree(spans: list[dict[str, Any]]) -> None:
    known = [span["span_id"] for span in spans]
    assert len(known) == len(set(known))
    roots = [span for span in spans if not span["parent_id"]]
    assert [root["name"] for root in roots] == ["RUN rollout"]
    assert [span["name"] for span in spans if span["parent_id"] and span["parent_id"] not in known] == []
    assert all(span["started_at"] <= span["ended_at"] for span in spans)


def test_a_rollout_over_several_lives_of_the_controller_is_one_tree_that_names_every_node(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller)
        wanted = fleet.request(strategy=model.Strategy.CANARY, policy=model.Policy(max_parallel=1))
        begun = await controller.engine.start_upgrade(wanted, request_id="one", actor="ann")
        assert [span["name"] for span in _trace(controller, begun.id)] == ["rollout started", "plan"]
        for _ in range(6):
            machine = await controller.restart()
            for agent in agents:
                await agent.connect(machine)
            for agent in agents:
                await agent.obey(machine)
        assert controller.engine.rollout(begun.id).state is model.RolloutState.SUCCEEDED
        spans = _trace(controller, begun.id)
        _check_tree(spans)
        assert {span["attributes"].get("host.id") for span in spans} == {None, "n1", "n2", "n3"}
        names = [span["name"] for span in spans]
        assert names.count("wave") == 2
        assert names.count("upgrade node") == names.count("apply upgrade") == names.count("fetch") == 3
        await controller.stop()

    fleet.in_virtual_time(story)


def test_steps_that_are_told_after_the_end_are_neither_lost_nor_orphans(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        command = agents[0].assigned(controller.engine)[0]
        await agents[0].obey(controller.engine)
        assert controller.engine.rollout(begun.id).state is model.RolloutState.SUCCEEDED
        before = _trace(controller, begun.id)
        machine = await controller.restart()
        await agents[0].connect(machine)
        drain, bake = (fleet.steps(command, *[model.Step.BAKE] * 14)[index] for index in (12, 13))
        for _ in range(2):
            await agents[0].tell(machine, model.NodeReport(steps=(drain, bake)))
        spans = _trace(controller, begun.id)
        _check_tree(spans)
        assert len(spans) == len(before) + 2
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_node_that_is_heard_of_only_after_the_end_still_has_a_place_in_the_tree(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        async for _ in machine.watch(begun.id):
            pass
        assert machine.rollout(begun.id).state is model.RolloutState.FAILED
        told = _trace(controller, begun.id)
        _check_tree(told)
        assert [span["error"] for span in told if span["name"] == "upgrade node"] == ["the node never answered"]
        await agents[0].finish(machine, command)
        spans = _trace(controller, begun.id)
        _check_tree(spans)
        assert "apply upgrade" in [span["name"] for span in spans]
        assert machine.node(agents[0].node_id).operation_id is None
        await controller.stop()

    fleet.in_virtual_time(story)


def test_a_revert_has_spans_of_its_own_under_the_same_root(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=2)
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        await agents[0].obey(machine)
        command = agents[1].assigned(machine)[0]
        await agents[1].tell_status(machine, command, S.ABORTED, fault=model.Fault.VERSION, reason="probe_failed")
        await agents[0].obey(machine)
        assert machine.rollout(begun.id).state is model.RolloutState.REVERTED
        spans = _trace(controller, begun.id)
        _check_tree(spans)
        root = next(span for span in spans if not span["parent_id"])
        assert root["is_failed"]
        assert root["attributes"]["cicd.pipeline.result"] == "failure"
        asked = [span["attributes"] for span in spans if span["name"] == "upgrade node"]
        assert sorted(each["upgrade.is_reverting"] for each in asked) == [False, False, True]
        failed = next(each for each in asked if each["host.id"] == agents[1].node_id)
        assert (failed["error.type"], failed["upgrade.fault"]) == ("probe_failed", "version")
        await controller.stop()

    fleet.in_virtual_time(story)


def test_the_traceparent_of_a_command_is_the_span_that_is_told_of_it_later(tmp_path: Path) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=1)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        _, trace_id, span_id, flags = agents[0].assigned(controller.engine)[0].traceparent.split("-")
        await agents[0].obey(controller.engine)
        asked = next(span for span in _trace(controller, begun.id) if span["name"] == "upgrade node")
        assert (trace_id, span_id, flags) == (asked["trace_id"], asked["span_id"], "01")
        await controller.stop()

    fleet.in_virtual_time(story)


@pytest.fixture(name="finished")
def _finished_rollout(tmp_path: Path) -> model.RolloutId:
    """A rollout on two nodes that has ended, in the file "store"."""

    async def story() -> model.RolloutId:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=2)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(controller.engine)
        await controller.stop()
        return begun.id

    return fleet.in_virtual_time(story)


async def test_a_collector_gets_every_span_once_under_its_stored_identity_and_its_agents_resource(
    tmp_path: Path, finished: model.RolloutId
) -> None:
    store = database.Store(tmp_path / "store", executor.WriterThread())
    collector = collectors.Collector()
    emitter = emit.Emitter(store, traces.Traces(collector.endpoint))
    assert await emitter.drain()
    assert await emitter.drain()
    await emitter.close()
    got = collector.spans()
    bodies = store.read(lambda connection: reading.trace(connection, ids.trace_id(finished)))
    stored = {json.loads(body)["span_id"]: json.loads(body) for body in bodies}
    assert sorted(span.span_id.hex() for _, span in got) == sorted(stored)
    for resource, span in got:
        told = stored[span.span_id.hex()]
        assert span.trace_id.hex() == ids.trace_id(finished)
        assert span.parent_span_id.hex() == told["parent_id"]
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (told["started_at"], told["ended_at"])
        assert {each.key: each.value.string_value for each in resource.attributes} == told["resource"]
    services = {told["resource"].get("service.instance.id") for told in stored.values()}
    assert services == {None, "n1", "n2"}
    store.close()
    collector.stop()


@pytest.mark.usefixtures("finished")
async def test_a_span_that_is_sent_again_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    store = database.Store(tmp_path / "store", executor.WriterThread())
    collector = collectors.Collector()
    for _ in range(2):
        emitter = emit.Emitter(store, traces.Traces(collector.endpoint))
        assert await emitter.drain()
        await emitter.close()
        await store.write(lambda connection: connection.exec_driver_sql("UPDATE outbox SET is_emitted = 0"))
    first, second = (request.SerializeToString(deterministic=True) for request in collector.requests)
    assert first == second
    store.close()
    collector.stop()


@pytest.mark.usefixtures("finished")
async def test_spans_wait_while_the_collector_is_down(tmp_path: Path) -> None:
    store = database.Store(tmp_path / "store", executor.WriterThread())
    collector = collectors.Collector()
    collector.stop()
    emitter = emit.Emitter(store, traces.Traces(collector.endpoint))
    before = await store.pending_spans(1000)
    assert not await emitter.drain()
    assert await store.pending_spans(1000) == before
    await emitter.close()
    store.close()
