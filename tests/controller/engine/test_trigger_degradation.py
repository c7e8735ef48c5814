"""A figure that departs from the line of its own past fires a trigger, once over a restart; so says its rehearsal."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from controller.config import rules
from controller.core import model
from controller.engine import triggers
from tests.controller.engine import firing, fleet

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
QUIET = model.Rule(
    name="quiet",
    component=fleet.WEB,
    measure=model.Measure(model.MeasureKind.LEVEL, "queue_size"),
    fire_at=1e9,
    clear_at=1e8,
)
MONITORING = rules.Monitoring((QUIET,), 10 * SECOND)
WORSE = model.Degradation(
    fleet.WEB,
    model.Measure(model.MeasureKind.LEVEL, "queue_size"),
    worse_percent=50,
    clear_percent=20,
    window=2 * MINUTE,
    past=20 * MINUTE,
    pending_for=30 * SECOND,
)


async def beats(
    controller: fleet.Controller, agents: list[fleet.Agent], minutes: int, begin: float, slope: float
) -> None:
    """Heartbeats with a queue that begins so long and grows by so much each minute."""
    for beat in range(minutes * 6):
        for number, agent in enumerate(agents):
            size = begin + slope * beat / 6 + (beat * 7 + number * 3) % 5 / 10
            agent.metrics = (model.Metric("queue_size", fleet.WEB, size),)
            await agent.tell(controller.engine, model.NodeReport(metrics=agent.metrics))
        await asyncio.sleep(10)


def test_a_step_fires_once_and_a_trend_that_goes_on_does_not(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await beats(controller, agents, 1, 20.0, 0.0)
        applied = await firing.applied(controller, firing.trigger(WORSE, model.Notify("longer")))
        assert "trigger:t" in {each.name for each in controller.engine.rules()}
        await beats(controller, agents, 40, 20.0, 0.5)
        assert firing.states(controller) == []
        await beats(controller, agents, 4, 80.0, 0.0)
        assert firing.states(controller) == ["SUCCEEDED reported"]
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        await beats(controller, agents, 4, 80.0, 0.0)
        assert firing.states(controller) == ["SUCCEEDED reported"]
        assert machine.trigger("t")[1].is_raised
        await beats(controller, agents, 30, 80.0, 0.0)
        assert not machine.trigger("t")[1].is_raised, "it is the past by now"
        await beats(controller, agents, 4, 200.0, 0.0)
        assert firing.states(controller) == ["SUCCEEDED reported"] * 2
        await machine.disable_trigger("t", reason="", actor="ann")
        assert "trigger:t" not in {each.name for each in machine.rules()}
        assert not machine.trigger("t")[1].signals
        assert applied.kind is model.TriggerKind.DEGRADATION

    fleet.told(tmp_path, tale, monitoring=MONITORING)


def test_no_more_compare_with_their_past_than_are_looked_at_without_harm(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await beats(controller, agents, 1, 20.0, 0.0)
        for number in range(triggers.COMPARING_MAX):
            await firing.applied(controller, firing.trigger(WORSE, model.Notify(), name=f"t{number}"))
        one_more = firing.applied(controller, firing.trigger(WORSE, model.Notify()))
        assert await firing.refusal_of(one_more) == "too_many_triggers"
        await firing.applied(controller, firing.trigger(model.ByHand(), model.Notify()))

    fleet.told(tmp_path, tale, monitoring=MONITORING)


def test_each_node_for_itself_is_named_as_the_cause(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        each = replace(WORSE, scope=model.RuleScope.NODE)
        await beats(controller, agents, 1, 20.0, 0.0)
        await firing.applied(controller, firing.trigger(each, model.Notify()))
        await beats(controller, agents, 30, 20.0, 0.0)
        for _ in range(30):
            for agent, size in zip(agents, (20.0, 80.0, 20.0), strict=True):
                told = (model.Metric("queue_size", fleet.WEB, size),)
                await agent.tell(controller.engine, model.NodeReport(metrics=told))
            await asyncio.sleep(10)
        assert [each.cause.node_ids for each in firing.firings(controller)] == [("n2",)]

    fleet.told(tmp_path, tale, monitoring=MONITORING)


def test_a_rehearsal_says_how_often_it_would_have_fired_and_how_far_the_record_reaches(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        began = fleet.LoopClock().now()
        for _ in range(3):
            await beats(controller, agents, 20, 1.0, 0.0)
            await beats(controller, agents, 20, 9.0, 0.0)
        await beats(controller, agents, 30, 1.0, 0.0)
        hot = model.Threshold("metrics['queue_size'] > 5.0", component=fleet.WEB, pending_for=5 * MINUTE)
        wanted = firing.trigger(hot, model.Notify())
        now = fleet.LoopClock().now()
        found = await machine.rehearse_trigger(wanted, began - timedelta(days=7), now)
        assert len(found.firings) == 3
        assert any("is recorded since" in note for note in found.notes)
        assert machine.triggers() == ()
        by_schedule = firing.trigger(model.Schedule("0 * * * *"), model.Notify())
        assert len((await machine.rehearse_trigger(by_schedule, now - timedelta(hours=5), now)).firings) == 5
        of_events = firing.trigger(model.EventMatch("x"), model.Notify())
        notes = (await machine.rehearse_trigger(of_events, began, now)).notes
        assert any(note.startswith("nothing that makes a trigger of kind EVENT") for note in notes)

    fleet.told(tmp_path, tale, monitoring=MONITORING)
