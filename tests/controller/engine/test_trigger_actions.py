"""What firings do: upgrades and rollbacks, done once, tried again, and followed to their end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controller.core import errors, model
from controller.core.triggers import draft as decisions
from controller.engine import draft as drafts
from controller.store import rows, writing
from tests.controller.engine import firing, fleet

F = model.FiringState
S = model.RolloutState
MINUTE = timedelta(minutes=1)
BACK = model.Rollback(fleet.WEB)


async def fire(controller: fleet.Controller, name: str = "t") -> model.Firing:
    return await controller.engine.fire_trigger(name, reason="drill", actor="bob")


def test_a_firing_that_was_stored_acts_once_however_the_controller_dies(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, firing.trigger())
        assert (await fire(controller)).state is F.ACTING
        machine = await controller.restart()  # before anybody could act on it
        for agent in agents:
            await agent.connect(machine)
        await asyncio.sleep(5)
        await controller.restart()
        for agent in agents:
            await agent.connect(controller.engine)
        await firing.settled(controller, agents)
        assert firing.states(controller) == ["SUCCEEDED rollout_succeeded"]
        assert len(controller.engine.rollouts(10)) == 1
        assert all(len(agent.executed) == 1 for agent in agents)

    fleet.told(tmp_path, tale)


def test_what_is_refused_is_tried_three_times_and_then_has_failed_with_its_code(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(target_version="1.2.0"), request_id="", actor="ann")
        cooling = replace(firing.AT_ONCE, cooldown=5 * MINUTE)
        await firing.applied(controller, firing.trigger(guards=cooling))
        first = await fire(controller)
        await asyncio.sleep(1)
        assert firing.states(controller) == ["ACTING rollout_conflict"]
        await controller.restart()
        await asyncio.sleep(40)
        assert firing.firings(controller)[0].attempts == 2
        await asyncio.sleep(70)
        assert firing.states(controller) == ["FAILED rollout_conflict"]
        assert firing.firings(controller)[0].attempts == 3
        assert (await fire(controller)).reason.code == "cooldown", "a failure starts the cooldown"
        assert firing.audit(controller, first.id)[-1] == "firing.failed"
        assert controller.engine.statistics().refused == 3

    fleet.told(tmp_path, tale)


def test_a_version_that_was_never_published_is_not_tried_again(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, firing.trigger(action=model.Upgrade(fleet.request(target_version="9.9.9"))))
        await fire(controller)
        await asyncio.sleep(1)
        assert firing.states(controller) == ["FAILED release_not_found"]

    fleet.told(tmp_path, tale)


def test_a_rollback_takes_back_what_is_under_way(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        one_at_a_time = fleet.request(policy=model.Policy(max_parallel=1))
        begun = await machine.start_upgrade(one_at_a_time, request_id="", actor="ann")
        await agents[0].obey(machine)
        await firing.beat(machine, agents[1], 1.0)
        await firing.applied(controller, firing.trigger(firing.HOT, BACK))
        await machine.add_freeze("", fleet.LoopClock().now(), None, reason="fair", actor="ann")
        await firing.beat(machine, agents[1], 9.0)
        await asyncio.sleep(1)
        assert machine.rollout(begun.id).state is S.REVERTING, "no freeze holds what goes back"
        await firing.settled(controller, agents)
        [fired] = firing.firings(controller)
        assert (fired.state, fired.rollout_id) == (F.SUCCEEDED, begun.id)
        assert {agent.version for agent in agents} == {"1.0.0"}

    fleet.told(tmp_path, tale)


def test_a_rollback_takes_back_what_was_done_last_and_fails_where_that_is_nothing(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await firing.applied(controller, firing.trigger(action=BACK))
        await fire(controller)
        await asyncio.sleep(1)
        assert firing.states(controller) == ["FAILED nothing_to_roll_back"]
        begun = await machine.start_upgrade(fleet.request(), request_id="", actor="ann")
        await firing.settled(controller, agents)
        assert machine.rollout(begun.id).state is S.SUCCEEDED
        await fire(controller)
        await firing.settled(controller, agents)
        assert firing.states(controller)[1] == "SUCCEEDED rollout_reverted"
        assert {agent.version for agent in agents} == {"1.0.0"}

    fleet.told(tmp_path, tale)


def test_a_rollout_that_fails_is_a_firing_that_failed(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, firing.trigger())
        await fire(controller)
        await asyncio.sleep(1)
        for _ in range(30):
            for agent in agents:
                await agent.fail(controller.engine)
            await asyncio.sleep(1)
        [fired] = firing.firings(controller)
        ended = controller.engine.rollout(fired.rollout_id or "")
        assert ended.state.is_terminal
        assert firing.states(controller) == [f"FAILED rollout_{ended.state.value.lower()}"]

    fleet.told(tmp_path, tale)


def test_a_definition_that_is_wrong_is_refused_field_by_field_and_nothing_is_stored(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.beat(controller.engine, agents[0], 1.0)
        wrong: dict[str, model.When] = {
            "when.threshold.condition": replace(firing.HOT, condition="metrics['load'] > 'x'"),
            "when.threshold.clear": replace(firing.HOT, clear="metrics['lod'] < 1.0"),
            "when.schedule.cron": model.Schedule("61 * * * *"),
            "when.schedule.time_zone": model.Schedule("* * * * *", time_zone="Mars/Olympus"),
            "when.event.filter": model.EventMatch("x", filter="event.data.x +"),
            "when.threshold.component": replace(firing.HOT, component=model.ComponentName("nobody")),
            "when.threshold.selector": replace(firing.HOT, selector="zone=nowhere"),
        }
        for field, when in wrong.items():
            with pytest.raises(errors.InvalidFieldsError, match=r"^cannot accept trigger 't'") as caught:
                await firing.applied(controller, firing.trigger(when))
            assert field in {each.field for each in caught.value.problems}, field
        label = replace(firing.HOT, condition="node.labels.rack == 'a'")
        many = "||".join(["metrics['load'] > 5.0"] * 20_000)
        costly = replace(firing.HOT, condition=many)
        nested = replace(firing.HOT, condition="node.capabilities.all(a, " * 30 + "true" + ")" * 30)
        for when in (label, costly, nested):
            with pytest.raises(errors.InvalidFieldsError):
                await firing.applied(controller, firing.trigger(when))
        targets = model.Upgrade(fleet.request(selector="zone=nowhere"))
        with pytest.raises(errors.InvalidFieldsError) as caught:
            await firing.applied(controller, firing.trigger(action=targets))
        assert (caught.value.code, caught.value.field) == ("no_targets", "action.upgrade.selector")
        assert controller.engine.triggers() == ()

    fleet.told(tmp_path, tale)


def test_what_is_applied_twice_is_stored_once_and_an_edit_keeps_what_it_remembers(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        first = await firing.applied(controller, firing.trigger(action=model.Notify()))
        assert await firing.applied(controller, firing.trigger(action=model.Notify())) == first
        await fire(controller)
        edited = await firing.applied(controller, firing.trigger(action=model.Notify("changed")))
        assert (edited.id, edited.revision, edited.changed_by) == (first.id, 2, "ann")
        assert (await fire(controller)).number == 2
        machine = await controller.restart()
        assert machine.triggers() == (edited,)
        await machine.remove_trigger("t", reason="", actor="ann")
        assert machine.triggers() == ()
        assert len(firing.firings(controller)) == 2, "what fired is kept"
        again = await firing.applied(controller, firing.trigger(action=model.Notify()))
        assert again.id != first.id
        assert await firing.refusal_of(machine.remove_trigger("x", reason="", actor="ann")) == "trigger_not_found"

    fleet.told(tmp_path, tale)


def test_an_evaluation_that_fails_in_itself_is_kept_with_its_code_and_stops_nothing_else(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await firing.beat(machine, agents[0], 1.0)
        broken = firing.trigger(replace(firing.HOT, condition="no longer CEL"), model.Notify(), name="broken")
        broken = replace(broken, id=model.TriggerId("t-broken"))

        def work(draft: drafts.Draft) -> None:  # as one that was stored under another schema
            draft.put_trigger(broken, decisions.Decision(model.TriggerStatus(broken.id)))

        await machine._desk.submit(work)
        await firing.applied(controller, firing.trigger(firing.HOT, model.Notify()))
        await controller.restart()
        await agents[0].connect(controller.engine)
        await firing.beat(controller.engine, agents[0], 9.0)
        assert firing.states(controller) == ["SUCCEEDED reported"]
        fault = controller.engine.trigger("broken")[1].fault
        assert fault is not None
        assert (fault.code, fault.count) == ("invalid_condition", 1)
        await firing.beats(controller, agents[0], 600, 8.0)
        fault = controller.engine.trigger("broken")[1].fault
        assert fault is not None
        assert 1 < fault.count <= 10

    fleet.told(tmp_path, tale)


def test_only_the_newest_firings_are_kept_and_those_that_are_open(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        made = await firing.applied(controller, firing.trigger(action=model.Notify()))
        [kept] = [await fire(controller)]
        many = writing.FIRINGS_MAX + writing.FIRINGS_FORGOTTEN
        old = [replace(kept, id=model.FiringId(f"{made.id}.{n}"), number=n) for n in range(1, many + 1)]
        old[0] = replace(old[0], state=model.FiringState.HELD, ended_at=None)
        await controller.store.commit(rows.Commit(at=kept.fired_at, firings=tuple(old)))
        left = controller.engine.firings("t", 10_000, only_open=False)
        numbers = sorted(each.number for each in left)
        first = many - writing.FIRINGS_MAX + 1
        assert numbers == [1, *range(first, many + 1)], "one that is not at its end is kept, however old"

    fleet.told(tmp_path, tale)
