"""Each guard of a trigger once shut, with its reason, and once open."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from controller.core import model
from tests.controller.engine import firing, fleet

C = model.ConflictPolicy
F = model.FiringState
MINUTE = timedelta(minutes=1)
NOTIFY = model.Notify()


async def fire(controller: fleet.Controller, name: str = "t") -> model.Firing:
    return await controller.engine.fire_trigger(name, reason="", actor="bob")


def now() -> datetime:
    return fleet.LoopClock().now()


def guarded(**changes: object) -> model.Guards:
    return replace(firing.AT_ONCE, **changes)  # type: ignore[arg-type]  # names and types are the test's


def test_a_disabled_trigger_raises_nothing_and_an_enabled_one_does(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.beat(controller.engine, agents[0], 1.0)
        await firing.applied(controller, firing.trigger(firing.HOT, NOTIFY, is_enabled=False))
        await firing.beats(controller, agents[0], 60, 9.0)
        assert firing.states(controller) == []
        await controller.engine.enable_trigger("t", reason="", actor="ann")
        assert firing.states(controller) == ["SUCCEEDED reported"]

    fleet.told(tmp_path, tale)


def test_a_cooldown_drops_what_is_an_instant_and_holds_what_lasts(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        cooling = guarded(cooldown=10 * MINUTE)
        await firing.beat(controller.engine, agents[0], 1.0)
        await firing.applied(controller, firing.trigger(action=NOTIFY, guards=cooling))
        await firing.applied(controller, firing.trigger(firing.HOT, NOTIFY, cooling, name="hot"))
        assert [(await fire(controller)).reason.code for _ in range(2)] == ["reported", "cooldown"]
        for load in (9.0, 1.0, 9.0):
            await firing.beats(controller, agents[0], 30, load)
        assert firing.states(controller, "hot") == ["SUCCEEDED reported", "HELD cooldown"]
        await controller.restart()
        await controller.engine.stop_triggers()
        await controller.engine.start_triggers()
        await asyncio.sleep(600)
        assert firing.states(controller, "hot") == ["SUCCEEDED reported", "SUCCEEDED reported"]
        assert (await fire(controller)).reason.code == "reported"

    fleet.told(tmp_path, tale)


def test_no_more_than_the_cap_fire_within_any_hour_also_over_a_restart(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, firing.trigger(action=NOTIFY, guards=guarded(firings_per_hour_max=2)))
        codes = [(await fire(controller)).reason.code for _ in range(2)]
        await controller.restart()
        codes += [(await fire(controller)).reason.code for _ in range(2)]
        await asyncio.sleep(3_601)
        codes.append((await fire(controller)).reason.code)
        assert codes == ["reported", "reported", "hourly_cap", "hourly_cap", "reported"]

    fleet.told(tmp_path, tale)


@pytest.mark.parametrize(
    ("policy", "second", "after"),
    [
        (C.REJECT, "DROPPED firing_open", ["SUCCEEDED rollout_succeeded", "DROPPED firing_open"]),
        (C.QUEUE, "HELD queued", ["SUCCEEDED rollout_succeeded", "SUCCEEDED rollout_succeeded"]),
        (C.SUPERSEDE, "ACTING acting", ["FAILED rollout_cancelled", "SUCCEEDED rollout_succeeded"]),
    ],
)
def test_while_an_earlier_firing_is_not_at_its_end_the_policy_decides(
    tmp_path: Path, policy: model.ConflictPolicy, second: str, after: list[str]
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        one_at_a_time = model.Upgrade(fleet.request(policy=model.Policy(max_parallel=1)))
        await firing.applied(controller, firing.trigger(action=one_at_a_time, guards=guarded(concurrency=policy)))
        await fire(controller)
        await asyncio.sleep(1)
        assert firing.states(controller) == ["RUNNING rollout_begun"]
        await fire(controller)
        assert firing.states(controller)[1] == second
        await firing.settled(controller, agents)
        await asyncio.sleep(60)
        await firing.settled(controller, agents)
        assert firing.states(controller) == after

    fleet.told(tmp_path, tale)


def test_a_freeze_holds_an_upgrade_until_it_is_lifted(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        freeze = await machine.add_freeze("zone=a", now(), None, reason="fair", actor="ann")
        await firing.applied(controller, firing.trigger())
        await firing.applied(controller, firing.trigger(action=NOTIFY, name="told"))
        held = await fire(controller)
        assert (held.state, held.reason.code) == (F.HELD, "frozen")
        assert "fair" in held.reason.message
        assert (await fire(controller, "told")).state is F.SUCCEEDED
        await machine.remove_freeze(freeze.id, reason="", actor="ann")
        await firing.settled(controller, agents)
        assert firing.states(controller) == ["SUCCEEDED rollout_succeeded"]

    fleet.told(tmp_path, tale)


def test_a_freeze_that_ends_by_itself_lets_it_go(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.add_freeze("", now(), now() + 5 * MINUTE, reason="fair", actor="ann")
        await firing.applied(controller, firing.trigger())
        await fire(controller)
        await asyncio.sleep(290)
        assert firing.states(controller) == ["HELD frozen"]
        await asyncio.sleep(20)
        assert firing.states(controller) == ["RUNNING rollout_begun"]

    fleet.told(tmp_path, tale)


def test_outside_its_windows_it_waits_for_the_next_and_is_given_up_in_the_end(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        window = model.Window(timedelta(hours=2), timedelta(hours=1))
        await firing.applied(controller, firing.trigger(action=NOTIFY, guards=guarded(windows=(window,))))
        brief = guarded(windows=(window,), held_max=timedelta(hours=1))
        await firing.applied(controller, firing.trigger(action=NOTIFY, guards=brief, name="brief"))
        assert (await fire(controller)).reason.code == "window_shut"
        await fire(controller, "brief")
        await asyncio.sleep(3_700)
        assert firing.states(controller, "brief") == ["DROPPED held_too_long"]
        await asyncio.sleep(3_600)
        assert firing.states(controller) == ["SUCCEEDED reported"]

    fleet.told(tmp_path, tale)


def test_who_fires_does_not_approve_and_an_approval_is_used_once_and_expires(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        asking = guarded(approval=model.ApprovalGuard(10 * MINUTE), concurrency=C.QUEUE)
        await firing.applied(controller, firing.trigger(guards=asking))
        asked = await fire(controller)
        assert (asked.state, asked.reason.code) == (F.APPROVAL_AWAITED, "approval_awaited")
        own = machine.approve_firing(asked.id, reason="", actor="bob")
        assert await firing.refusal_of(own) == "approval_by_requester"
        assert await firing.refusal_of(machine.approve_firing("t-0.9", reason="", actor="eve")) == "firing_not_found"
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        given = await machine.approve_firing(asked.id, reason="go", actor="eve")
        assert given.approval is not None
        assert (given.approval.state, given.approval.decider) == (model.ApprovalState.APPROVED, "eve")
        again = machine.approve_firing(asked.id, reason="", actor="eve")
        assert await firing.refusal_of(again) == "approval_not_needed"
        await firing.settled(controller, agents)
        assert firing.states(controller) == ["SUCCEEDED rollout_succeeded"]
        await fire(controller)
        await asyncio.sleep(601)
        denied = await fire(controller)
        assert (await machine.deny_firing(denied.id, reason="no", actor="bob")).reason.code == "approval_denied"
        assert firing.states(controller)[1:] == ["DROPPED approval_expired", "DROPPED approval_denied"]
        assert "firing.deny" in firing.audit(controller, denied.id)

    fleet.told(tmp_path, tale)
