"""The behaviours by which systems of this kind are specified, one named test each, over the real engine and store.

`test_trigger_emergency_rollback` also needs real nodes, and is in `tests.integration.test_named_behaviours`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controller import activation, server
from controller.config import settings
from controller.core import errors, model
from controller.core.triggers import checks
from controller.store import reading
from tests.controller.engine import firing, fleet

F = model.FiringState
S = model.RolloutState
STAGES = ("collector", "monitor", "triggers")


async def fire(controller: fleet.Controller) -> model.Firing:
    return await controller.engine.fire_trigger("t", reason="", actor="bob")


async def refused(controller: fleet.Controller, wanted: model.Trigger) -> list[tuple[str, str]]:
    """Codes and values of what is wrong with a trigger that is refused, and leaves nothing behind."""
    with pytest.raises(errors.InvalidFieldsError, match=r"^cannot accept trigger") as caught:
        await firing.applied(controller, wanted)
    assert controller.engine.triggers() == ()
    return [(each.code, each.value) for each in caught.value.problems]


def test_activation_success(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.stop_triggers()
        loaded = settings.Settings("127.0.0.1:0", tmp_path, timedelta(seconds=10), None)
        stages = server._stages(machine, loaded)
        assert (await stages.activate(), stages.is_active) == (STAGES, True)
        assert await stages.activate() == (), "what runs is not started a second time"
        assert await stages.deactivate() == STAGES[::-1]

        async def broken() -> None:
            raise OSError("no")

        last = activation.Stage("last", broken, machine.stop_triggers)
        failing = activation.Activation(
            activation.Stage("triggers", machine.start_triggers, machine.stop_triggers), last
        )
        for _ in range(2):  # the second time tells the same truth
            with pytest.raises(errors.UnavailableError, match=r"^cannot activate: last did not start: no"):
                await failing.activate()
            assert failing.running == ()

    fleet.told(tmp_path, tale)


def test_submit_runtime_upgrade_validation_failure(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        with pytest.raises(errors.NotFoundError, match=r"^cannot find release"):
            await machine.start_upgrade(fleet.request(target_version="9.9.9"), request_id="", actor="ann")
        counted = machine.statistics()
        assert (counted.refused, machine.rollouts(10)) == (1, ())
        [kept] = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert (kept.actor, kept.action, kept.code) == ("ann", "start_upgrade", "release_not_found")

    fleet.told(tmp_path, tale)


def test_process_runtime_upgrade_feedback(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="", actor="ann")
        await firing.settled(controller, agents)
        for agent in agents:  # who comes back tells all of it once more
            await agent.connect(machine)
        outcomes = controller.store.read(reading.snapshot).outcomes
        assert sorted(each.node_id for each in outcomes) == ["n1", "n2", "n3"]

    fleet.told(tmp_path, tale)


def test_add_runtime_upgrade_trigger_success(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        wanted = firing.trigger(model.EventMatch("deployment.requested"))
        applied = await firing.applied(controller, wanted)
        assert (applied.kind, applied.does) == (model.TriggerKind.EVENT, model.TriggerActionKind.UPGRADE)
        assert controller.engine.trigger("t")[0] == applied

    fleet.told(tmp_path, tale)


def test_execute_runtime_upgrade_trigger_success(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, firing.trigger())
        await fire(controller)
        await asyncio.sleep(1)
        [begun] = controller.engine.rollouts(10)
        assert begun.request == fleet.request(), "what was asked for is what was submitted, field by field"
        assert (begun.actor, firing.firings(controller)[0].rollout_id) == ("trigger:t", begun.id)

    fleet.told(tmp_path, tale)


def test_initialization(tmp_path: Path) -> None:
    for kind in model.TriggerKind:
        assert checks.kind(kind) is checks.kind(kind.value) is checks.kind(kind.value.lower()) is kind
    for wrong in ("", "SOMETIMES", "MANUAL "[::-1]):
        with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
            checks.kind(wrong)
        assert caught.value.field == "when.kind"

    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        made = model.Trigger(model.TriggerId(""), "t", model.ByHand(), model.Notify())
        applied = await firing.applied(controller, made)
        assert not applied.is_enabled
        assert firing.states(controller) == []

    fleet.told(tmp_path, tale)


def test_validate_specific_success(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        targets = model.Upgrade(fleet.request(selector="zone=a"))
        assert (await firing.applied(controller, firing.trigger(action=targets))).component == fleet.WEB

    fleet.told(tmp_path, tale)


def test_validate_specific_no_target_components(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        nobody = model.Upgrade(fleet.request(selector="zone=z"))
        assert await refused(controller, firing.trigger(action=nobody)) == [("no_targets", "zone=z")]
        nothing = model.Upgrade(fleet.request(component=model.ComponentName("")))
        assert await refused(controller, firing.trigger(action=nothing))

    fleet.told(tmp_path, tale)


def test_validate_specific_component_not_found(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        unknown = model.Upgrade(fleet.request(component=model.ComponentName("nobody")))
        assert await refused(controller, firing.trigger(action=unknown)) == [("unknown_component", "nobody")]

    fleet.told(tmp_path, tale)


def test_should_execute_specific_manual_trigger(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        never = model.Threshold("false")
        capped = replace(firing.AT_ONCE, firings_per_hour_max=1)
        await firing.applied(controller, firing.trigger(never, model.Notify(), capped))
        codes = [(await fire(controller)).reason.code for _ in range(2)]
        assert codes == ["reported", "hourly_cap"], "by hand it fires, and its guards hold all the same"

    fleet.told(tmp_path, tale)


def test_should_execute_specific_no_runtime_upgrade_manager(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await firing.beat(machine, agents[0], 1.0)
        await firing.applied(controller, firing.trigger(firing.HOT))
        await machine.stop_triggers()
        await firing.beat(machine, agents[0], 9.0)
        assert await firing.refusal_of(fire(controller)) == "triggers_inactive"
        assert (firing.states(controller), machine.rollouts(10)) == ([], ())
        await machine.start_triggers()
        await asyncio.sleep(1)
        assert firing.states(controller) == ["RUNNING rollout_begun"], "what holds by then is not missed"

    fleet.told(tmp_path, tale)


def test_should_execute_specific_require_approval(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        asking = replace(firing.AT_ONCE, approval=model.ApprovalGuard(timedelta(hours=1)))
        await firing.applied(controller, firing.trigger(guards=asking))
        await fire(controller)
        await asyncio.sleep(600)
        assert firing.states(controller) == ["APPROVAL_AWAITED approval_awaited"]
        assert controller.engine.rollouts(10) == ()

    fleet.told(tmp_path, tale)


def available(action: model.TriggerAction) -> model.Trigger:
    return firing.trigger(model.VersionAvailable(fleet.WEB, channel="stable"), action)


def test_execute_specific_version_availability_check(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, available(model.Notify()))
        await controller.engine.promote_release(fleet.WEB, "1.1.0", "stable", actor="ann")
        [fired] = firing.firings(controller)
        assert (fired.state, fired.cause.version) == (F.SUCCEEDED, "1.1.0")
        assert controller.engine.rollouts(10) == ()

    fleet.told(tmp_path, tale)


def test_execute_specific_auto_upgrade(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await firing.applied(controller, available(model.Upgrade(fleet.request(target_version=""))))
        await controller.engine.promote_release(fleet.WEB, "1.1.0", "stable", actor="ann")
        await firing.settled(controller, agents)
        assert firing.states(controller) == ["SUCCEEDED rollout_succeeded"]
        assert {agent.version for agent in agents} == {"1.1.0"}

    fleet.told(tmp_path, tale)


def test_execute_specific_rollback(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await controller.engine.start_upgrade(fleet.request(), request_id="", actor="ann")
        await firing.settled(controller, agents)
        await firing.applied(controller, firing.trigger(action=model.Rollback(fleet.WEB)))
        await fire(controller)
        await firing.settled(controller, agents)
        assert firing.states(controller) == ["SUCCEEDED rollout_reverted"]
        assert {agent.version for agent in agents} == {"1.0.0"}

    fleet.told(tmp_path, tale)


def test_execute_specific_error(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        for agent in agents:
            await machine.cordon_node(agent.node_id, reason="broken", actor="ann")
        await firing.applied(controller, firing.trigger())
        await fire(controller)
        await asyncio.sleep(300)
        [failed] = firing.firings(controller)
        assert (failed.state, failed.attempts) == (F.FAILED, 3)
        assert failed.reason.code
        assert failed.reason.message.startswith("cannot ")
        assert machine.rollouts(10) == ()
        assert (await fire(controller)).state is F.ACTING, "the next one is none the worse"

    fleet.told(tmp_path, tale)
