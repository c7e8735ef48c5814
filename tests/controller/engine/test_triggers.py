"""Triggers of every kind on a real store, in virtual time: what makes them fire, and what comes of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controller.core import errors, model
from controller.core.triggers import explaining
from tests.controller.engine import firing, fleet

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
S = model.RolloutState


def test_a_threshold_that_holds_for_long_enough_starts_a_rollout_once(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.beat(controller.engine, agents[0], 1.0)
        await firing.applied(controller, firing.trigger(replace(firing.HOT, pending_for=30 * SECOND)))
        await firing.beats(controller, agents[0], 30, 9.0)
        assert firing.states(controller) == []
        await firing.beat(controller.engine, agents[0])
        await firing.settled(controller, agents)
        [fired] = firing.firings(controller)
        assert fired.state is model.FiringState.SUCCEEDED
        assert fired.cause.node_ids == ("n1",)
        begun = controller.engine.rollout(fired.rollout_id or "")
        assert (begun.state, begun.actor) == (S.SUCCEEDED, "trigger:t")
        assert {agent.version for agent in agents} == {"1.1.0"}
        await firing.beats(controller, agents[0], 600)
        assert len(firing.firings(controller)) == 1, "what stays as it is fires once"

    fleet.told(tmp_path, tale)


def test_a_condition_that_is_over_in_between_begins_anew_and_missing_data_fires_nothing(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.beat(controller.engine, agents[0], 1.0)
        await firing.applied(controller, firing.trigger(replace(firing.HOT, pending_for=30 * SECOND)))
        for load in (9.0, 1.0, 9.0):
            await firing.beats(controller, agents[0], 20, load)
        gone = model.NodeReport(gone_metrics=(("load", fleet.WEB),))
        await agents[0].tell(controller.engine, gone)
        await firing.beats(controller, agents[0], 120)
        assert firing.states(controller) == []

    fleet.told(tmp_path, tale)


def test_a_restart_in_the_middle_of_a_for_neither_loses_nor_repeats(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.beat(controller.engine, agents[0], 1.0)
        await firing.applied(controller, firing.trigger(replace(firing.HOT, pending_for=40 * SECOND)))
        await firing.beats(controller, agents[0], 20, 9.0)
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        await firing.beats(controller, agents[0], 20, 9.0)
        assert firing.states(controller) == []
        await firing.beat(machine, agents[0])
        await firing.settled(controller, agents)
        assert firing.states(controller) == ["SUCCEEDED rollout_succeeded"]
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        await firing.beats(controller, agents[0], 120, 9.0)
        assert firing.states(controller) == ["SUCCEEDED rollout_succeeded"]

    fleet.told(tmp_path, tale)


def test_what_does_not_change_is_looked_at_when_a_trigger_is_new_or_enabled(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.beat(controller.engine, agents[1], 9.0)
        wanted = firing.trigger(firing.HOT, model.Notify("it is hot"))
        await firing.applied(controller, wanted)
        assert [each.reason.message for each in firing.firings(controller)] == ["it is hot"]
        await firing.applied(controller, replace(wanted, name="later", is_enabled=False))
        assert firing.states(controller, "later") == []
        await controller.engine.enable_trigger("later", reason="", actor="ann")
        assert firing.states(controller, "later") == ["SUCCEEDED reported"]

    fleet.told(tmp_path, tale)


def test_a_node_that_leaves_or_is_no_longer_meant_does_not_count(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        for agent in agents:
            await firing.beat(machine, agent, 1.0)
        hot = replace(firing.HOT, selector="zone=a", nodes_min=2)
        await firing.applied(controller, firing.trigger(hot, model.Notify()))
        await firing.beat(machine, agents[0], 9.0)
        await machine.label_node(agents[0].node_id, {"zone": "b"}, (), actor="ann")
        await firing.beat(machine, agents[0])
        await firing.beat(machine, agents[1], 9.0)
        await agents[1].disconnect(machine)
        await machine.remove_node(agents[1].node_id, reason="", actor="ann")
        await firing.beat(machine, agents[2], 9.0)
        assert firing.states(controller) == []
        assert dict(machine.trigger("t")[1].signals).keys() == {"n3"}

    fleet.told(tmp_path, tale)


def test_a_schedule_fires_when_it_is_due_and_a_missed_run_by_its_policy(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        hourly = model.Schedule("0 * * * *")
        await firing.applied(controller, firing.trigger(hourly, model.Notify()))
        once = replace(hourly, missed=model.MissedPolicy.ONCE)
        await firing.applied(controller, firing.trigger(once, model.Notify(), name="once"))
        await asyncio.sleep(3_600)
        await firing.until(lambda: len(firing.firings(controller)) == 1, 30)
        await controller.crash()
        await asyncio.sleep(2 * 3_600 + 600)
        await controller.start()
        await asyncio.sleep(30)
        assert len(firing.firings(controller)) == 1
        assert [each.cause.due_at is not None for each in firing.firings(controller, "once")] == [True, True]
        await asyncio.sleep(3_600)
        assert (len(firing.firings(controller)), len(firing.firings(controller, "once"))) == (2, 3)

    fleet.told(tmp_path, tale)


def event(number: int, **changes: object) -> model.ReceivedEvent:
    made = model.ReceivedEvent("//ci", f"e{number}", "com.example.built", data=json.dumps({"branch": "main"}))
    return replace(made, **changes)  # type: ignore[arg-type]  # names and types are the test's


def test_an_event_that_matches_fires_once_however_often_it_is_sent(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        when = model.EventMatch("com.example.*", "event.data.branch == 'main'")
        await firing.applied(controller, firing.trigger(when, model.Notify()))
        machine = controller.engine
        first = await machine.receive([event(1), event(1), event(2, data="{}")], actor="ci")
        assert (first.accepted, first.duplicates, len(first.firings)) == (2, 1, 1)
        machine = await controller.restart()
        again = await machine.receive([event(1), event(3, type="org.example.built")], actor="ci")
        assert (again.accepted, again.duplicates, again.firings) == (1, 1, ())
        [fired] = firing.firings(controller)
        assert (fired.id, fired.cause.event_source, fired.cause.event_id) == (first.firings[0], "//ci", "e1")

    fleet.told(tmp_path, tale)


def test_a_burst_of_events_fires_once_after_it_is_over(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        when = model.EventMatch("com.example.built", debounce=30 * SECOND)
        await firing.applied(controller, firing.trigger(when, model.Notify()))
        for number in range(5):
            await controller.engine.receive([event(number)], actor="ci")
            await asyncio.sleep(20)
        machine = await controller.restart()
        assert firing.states(controller) == []
        await asyncio.sleep(15)
        assert [each.cause.event_id for each in firing.firings(controller)] == ["e4"]
        assert machine.trigger("t")[1].debounced is None

    fleet.told(tmp_path, tale)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"source": ""}, "invalid_event", "events[0].source"),
        ({"id": ""}, "invalid_event", "events[0].id"),
        ({"type": "x" * 2_000}, "invalid_event", "events[0].type"),
        ({"subject": "a\nb"}, "invalid_event", "events[0].subject"),
        ({"data": "[1]"}, "invalid_event", "events[0].data"),
        ({"data": '{"load": NaN}'}, "invalid_event", "events[0].data"),
        ({"data": "[" * 100_000}, "invalid_event", "events[0].data"),
        ({"data": json.dumps({"x": "y" * 300_000})}, "invalid_event", "events[0].data"),
        ({"source": "by-hand:t"}, "invalid_event", "events[0].source"),
        ({"at": fleet.EPOCH - timedelta(days=2)}, "event_too_old", "events[0].time"),
        ({"at": fleet.EPOCH + timedelta(days=2)}, "event_too_old", "events[0].time"),
    ],
)
def test_what_is_no_event_is_refused_by_its_field_and_nothing_is_kept(
    tmp_path: Path, changes: dict[str, object], code: str, field: str
) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, firing.trigger(model.EventMatch("com.example.*"), model.Notify()))
        with pytest.raises(errors.InvalidRequestError, match=r"^cannot take the events") as caught:
            await controller.engine.receive([event(1, **changes), event(2)], actor="ci")
        assert (caught.value.code, caught.value.field) == (code, field)
        assert (await controller.engine.receive([event(1), event(2)], actor="ci")).accepted == 2

    fleet.told(tmp_path, tale)


def test_a_channel_that_moves_takes_the_fleet_along(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.promote_release(fleet.WEB, "1.0.0", "stable", actor="ann")
        when = model.VersionAvailable(fleet.WEB, channel="stable")
        action = model.Upgrade(fleet.request(target_version=""))
        await firing.applied(controller, firing.trigger(when, action))
        await asyncio.sleep(60)
        assert firing.states(controller) == [], "what is there already is no occasion"
        await machine.promote_release(fleet.WEB, "1.1.0", "stable", actor="ann")
        await firing.settled(controller, agents)
        [fired] = firing.firings(controller)
        assert (fired.state, fired.cause.version) == (model.FiringState.SUCCEEDED, "1.1.0")
        assert {agent.version for agent in agents} == {"1.1.0"}

    fleet.told(tmp_path, tale)


def test_a_higher_version_in_range_fires_and_a_prerelease_only_where_it_is_asked_for(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        when = model.VersionAvailable(fleet.WEB, versions=">=1.0.0,<2.0.0")
        await firing.applied(controller, firing.trigger(when, model.Notify()))
        every = replace(when, prereleases=True, versions="*")
        await firing.applied(controller, firing.trigger(every, model.Notify(), name="every"))
        for number, version in enumerate(("1.3.0-rc.1", "1.1.5", "1.3.0", "2.0.0")):
            digest = model.Digest("sha256:" + str(number) * 64)
            await machine.publish(replace(fleet.release("1.0.0"), version=version, digest=digest))
        assert [each.cause.version for each in firing.firings(controller)] == ["1.3.0"]
        seen = [each.cause.version for each in firing.firings(controller, "every")]
        assert seen == ["1.3.0-rc.1", "1.3.0", "2.0.0"]

    fleet.told(tmp_path, tale)


def test_a_version_that_is_blocked_is_not_there(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.block_release(fleet.WEB, "1.2.0", reason="bad", actor="ann")
        when = model.VersionAvailable(fleet.WEB, versions="*")
        await firing.applied(controller, firing.trigger(when, model.Notify()))
        assert machine.trigger("t")[1].seen_version == "1.1.0"
        digest = model.Digest("sha256:" + "e" * 64)
        await machine.publish(replace(fleet.release("1.0.0"), version="1.1.5", digest=digest))
        await machine.block_release(fleet.WEB, "1.2.0", reason="", actor="ann")
        assert [each.cause.version for each in firing.firings(controller)] == ["1.1.5", "1.2.0"]

    fleet.told(tmp_path, tale)


def test_by_hand_fires_once_for_each_request_and_says_who(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, firing.trigger(action=model.Notify()))
        machine = controller.engine
        first = await machine.fire_trigger("t", reason="drill", actor="bob", request_id="one")
        assert (first.state, first.cause.actor) == (model.FiringState.SUCCEEDED, "bob")
        assert await machine.fire_trigger("t", reason="drill", actor="bob", request_id="one") == first
        machine = await controller.restart()
        assert await machine.fire_trigger("t", reason="drill", actor="bob", request_id="one") == first
        await machine.fire_trigger("t", reason="drill", actor="bob")
        assert len(firing.firings(controller)) == 2
        assert firing.audit(controller, first.id) == ["firing.succeeded"]
        assert await firing.refusal_of(machine.fire_trigger("x", reason="", actor="bob")) == "trigger_not_found"
        await machine.disable_trigger("t", reason="", actor="ann")
        assert await firing.refusal_of(machine.fire_trigger("t", reason="", actor="bob")) == "trigger_disabled"
        await machine.stop_triggers()
        assert await firing.refusal_of(machine.fire_trigger("t", reason="", actor="bob")) == "triggers_inactive"

    fleet.told(tmp_path, tale)


def test_who_fired_by_hand_and_asks_again_is_answered_as_before_though_the_trigger_is_gone(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, firing.trigger(action=model.Notify()))
        first = await controller.engine.fire_trigger("t", reason="drill", actor="bob", request_id="one")
        machine = await controller.restart()
        await machine.remove_trigger("t", reason="", actor="ann")
        assert await machine.fire_trigger("t", reason="drill", actor="bob", request_id="one") == first
        other = machine.fire_trigger("t", reason="drill", actor="bob", request_id="two")
        assert await firing.refusal_of(other) == "trigger_not_found"

    fleet.told(tmp_path, tale)


def test_an_explanation_shows_the_last_values_each_guard_and_the_next_chance(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await firing.beat(machine, agents[0], 1.5)
        await firing.beat(machine, agents[1], 9.0)
        cooling = replace(firing.AT_ONCE, cooldown=10 * MINUTE)
        await firing.applied(controller, firing.trigger(firing.HOT, model.Notify(), cooling))
        told = machine.explain_trigger("t")
        assert [(each.node_id, each.is_met, each.values) for each in told.values] == [
            ("n2", True, (("load", 9.0),)),
            ("n3", None, (("load", None),)),
            ("n1", False, (("load", 1.5),)),
        ]
        assert [each.name for each in told.guards if not each.is_open] == ["cooldown"]
        assert told.next_chance
        lines = explaining.lines(told)
        assert "  last on n2: load 9; it holds" in lines
        assert "  last on n3: load missing; that is unknown" in lines
        assert "  last on n1: load 1.5; it does not hold" in lines

    fleet.told(tmp_path, tale)
