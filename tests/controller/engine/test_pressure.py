"""What a pressed engine puts off, and what it never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from controller import engine, tasks
from controller.core import errors, model
from controller.engine import agents as engine_agents
from controller.engine import desk, pressure
from tests.controller.engine import fleet

USUAL = engine.engine.HEARTBEAT_PERIOD
LATE_SECONDS = 5.0


@asynccontextmanager
async def pressed(machine: engine.Engine) -> AsyncIterator[None]:
    """Have work wait for the store, as far as the engine's looks can tell."""
    machine.pressure = pressure.Pressure(lambda: LATE_SECONDS, fleet.LoopClock().monotonic)
    guard = tasks.Guard()
    guard.start(machine.pressure.run(), "looks")
    await asyncio.sleep(2 * pressure.LOOKS * pressure.LOOK_SECONDS)
    try:
        yield
    finally:
        await guard.stop()


def test_a_node_of_a_rollout_beats_as_usual_while_the_others_beat_less_often(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        other = fleet.Agent("other", zone="b")
        await other.connect(machine)
        await machine.start_upgrade(fleet.request(selector="zone=a"), request_id="r", actor="ann")
        assert machine.heartbeat_period(other.node_id) == USUAL
        async with pressed(machine):
            assert machine.heartbeat_period(agents[0].node_id) == USUAL
            assert machine.heartbeat_period(other.node_id) == engine_agents.THINNED_PERIODS * USUAL

    fleet.told(tmp_path, tale, nodes=1)


def test_a_slow_store_alone_refuses_no_read(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        async with pressed(controller.engine):
            assert controller.engine.pressure.work_late_seconds == LATE_SECONDS
            controller.engine.pressure.check_read()

    fleet.told(tmp_path, tale, nodes=1)


def test_only_what_would_be_stored_waits_for_the_store_while_it_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, (agent,) = controller.engine, agents
        handed_in: list[object] = []
        submit = machine._desk.submit

        async def counted(work: object) -> object:
            handed_in.append(work)
            return await submit(work)  # type: ignore[arg-type]

        monkeypatch.setattr(machine._desk, "submit", counted)
        idle = model.NodeReport(
            metrics=(model.Metric("cpu", "", 0.5),), components=(fleet.installed("1.0.0", healthy_for_seconds=70),)
        )
        await agent.tell(machine, idle)
        assert len(handed_in) == 1
        async with pressed(machine):
            await agent.tell(machine, idle)
            assert len(handed_in) == 1
            assert machine.node(agent.node_id).components[fleet.WEB].healthy_for == timedelta(seconds=70)
            await agent.tell(machine, model.NodeReport(components=(fleet.installed("1.1.0"),)))
            await agent.tell(machine, model.NodeReport(removed=(fleet.WEB,)))
            assert len(handed_in) == 3
            await agent.tell(machine, model.NodeReport(is_full=True))
            await machine.start_upgrade(fleet.request(install=True), request_id="r", actor="ann")
            before = len(handed_in)
            await agent.obey(machine)
            assert len(handed_in) >= before + 3

    fleet.told(tmp_path, tale, nodes=1)


def test_a_full_desk_refuses_what_can_wait_and_takes_what_belongs_to_an_operation_or_stops_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="r", actor="ann")
        monkeypatch.setattr(desk, "WAITING_MAX", 0)
        with pytest.raises(errors.ExhaustedError) as refused:
            await machine.uncordon_node(agents[0].node_id, actor="ann")
        assert refused.value.code == "desk_full"
        with pytest.raises(errors.ExhaustedError):
            await fleet.Agent("new").connect(machine)
        await agents[0].connect(machine)
        await agents[0].obey(machine)
        assert machine.node(agents[0].node_id).components[fleet.WEB].version == "1.1.0"
        await machine.cordon_node(agents[0].node_id, reason="busy", actor="ann")

    fleet.told(tmp_path, tale, nodes=1)
