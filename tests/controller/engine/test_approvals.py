"""Rollouts that somebody has to approve: on a real store, over restarts, with the conflicts that they meet."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from controller import engine
from controller.core import errors, model
from controller.engine import planning
from controller.store import reading, rows
from tests.controller.engine import fleet

S = model.RolloutState
A = model.ApprovalState
C = model.ConflictPolicy
HOUR = timedelta(hours=1)


async def ask(machine: engine.Engine, name: str = "asked", **changes: object) -> model.Rollout:
    wanted = fleet.request(name=name, approval_deadline=HOUR, **changes)
    return await machine.start_upgrade(wanted, request_id=name, actor="ann")


async def refusal(machine: engine.Engine, verb: str, name: str, actor: str = "bob") -> errors.InstarError:
    """Decide what must be refused: typed, kept, and nothing changed."""
    before = machine.approvals(10, with_decided=True), machine.statistics().refused
    with pytest.raises(errors.InstarError, match=f"^cannot ({verb}|find|start)") as refused:
        await getattr(machine, verb)(name, reason="", actor=actor)
    assert (machine.approvals(10, with_decided=True), machine.statistics().refused) == (before[0], before[1] + 1)
    assert refused.value.blame is errors.Blame.CALLER
    assert all((refused.value.code, refused.value.field, refused.value.rule))
    return refused.value


def audit(controller: fleet.Controller, rollout: model.Rollout) -> list[tuple[str, str, str]]:
    found = controller.store.read(lambda connection: reading.audit(connection, rollout.id))
    return [(each.actor, each.action, each.reason) for each in found]


def approval(machine: engine.Engine, name: str = "asked") -> model.Approval:
    found = machine.rollout(name).approval
    assert found is not None
    return found


def test_what_has_to_be_approved_is_accepted_and_asks_nothing_of_a_node(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await ask(machine)
        await asyncio.sleep(600)
        waiting = machine.rollout("asked")
        assert (waiting.state, waiting) == (S.PENDING, begun)
        assert not any(agent.assigned(machine) for agent in agents)
        assert machine.explain_rollout("asked")[-1].code == "approval_awaited"
        [listed] = machine.approvals(10, with_decided=False)
        assert listed == waiting.approval
        assert (listed.requester, listed.subject, listed.fingerprint) == ("ann", "web 1.1.0", begun.plan.fingerprint)
        assert listed.expires_at == listed.requested_at + HOUR
        assert [action for _, action, _ in audit(controller, begun)] == ["rollout.start", "approval.request"]

    fleet.told(tmp_path, tale)


def test_once_somebody_else_approves_it_goes_to_its_end_and_the_log_says_who_and_why(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        waiting = await ask(machine)
        begun = await machine.approve(waiting.id, reason="looks good", actor="bob")
        assert begun.state is S.RUNNING
        for agent in agents:
            await agent.obey(machine)
        done = machine.rollout("asked")
        assert done.state is S.SUCCEEDED
        given = approval(machine)
        assert (given.state, given.decider, given.reason) == (A.APPROVED, "bob", "looks good")
        assert ("bob", "approval.approve", "looks good") in audit(controller, waiting)
        assert machine.approvals(10, with_decided=False) == ()
        assert machine.approvals(10, with_decided=True) == (given,)
        # The fleet is another one by now, and yet this is what stands against it.
        assert (await refusal(machine, "approve", "asked")).code == "approval_used"
        journal = controller.store.read(lambda connection: reading.journal(connection, done.id))
        assert fleet.replayed(waiting, journal) == done

    fleet.told(tmp_path, tale)


def test_what_is_denied_is_cancelled_with_the_reason(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        waiting = await ask(machine)
        ended = await machine.deny(waiting.id, reason="too risky", actor="bob")
        assert (ended.state, ended.reason, ended.message) == (
            S.CANCELLED,
            "approval_denied",
            "bob denied it: too risky",
        )
        assert approval(machine).state is A.DENIED
        assert ("bob", "approval.deny", "too risky") in audit(controller, waiting)
        assert not any(agent.assigned(machine) for agent in agents)

    fleet.told(tmp_path, tale)


def test_what_nobody_approves_is_cancelled_at_the_stored_instant(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await ask(machine)
        await asyncio.sleep(3599)
        assert machine.rollout("asked").state is S.PENDING
        await asyncio.sleep(2)
        ended = machine.rollout("asked")
        assert (ended.state, ended.reason) == (S.CANCELLED, "approval_expired")
        assert ended.ended_at == approval(machine).expires_at
        assert approval(machine).state is A.EXPIRED

    fleet.told(tmp_path, tale)


def test_an_approval_is_waited_for_over_a_restart_and_given_in_the_next_life(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        waiting = await ask(controller.engine)
        asked = approval(controller.engine)
        machine = await controller.restart()
        await asyncio.sleep(60)
        assert machine.rollout("asked").state is S.PENDING
        assert approval(machine) == asked
        for agent in agents:
            await agent.connect(machine)
        assert (await machine.approve("asked", reason="", actor="bob")).state is S.RUNNING
        machine = await controller.restart()
        assert approval(machine).state is A.APPROVED
        assert (await refusal(machine, "approve", waiting.id)).code == "approval_used"

    fleet.told(tmp_path, tale)


def test_an_absence_of_the_controller_does_not_give_anybody_more_time(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        await ask(controller.engine)
        await controller.crash()
        await asyncio.sleep(3601)
        machine = await controller.start()
        assert machine.rollout("asked").reason == "approval_expired"
        assert (await refusal(machine, "approve", "asked")).code == "approval_expired"

    fleet.told(tmp_path, tale)


def test_each_decision_that_cannot_be_made_has_a_code_of_its_own(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        for name in ("used", "denied", "expired", "withdrawn", "own"):
            await ask(machine, name)
        await machine.deny("denied", reason="", actor="bob")
        await machine.cancel(machine.rollout("withdrawn").id, reason="no need", actor="ann")
        assert (await refusal(machine, "approve", "own", actor="ann")).code == "approval_by_requester"
        await machine.approve("used", reason="", actor="bob")
        await asyncio.sleep(3601)
        for name in ("used", "denied", "expired", "withdrawn"):
            for verb in ("approve", "deny"):
                found = await refusal(machine, verb, name)
                assert found.code == f"approval_{name}"
                assert (found.field, found.value) == ("rollout", machine.rollout(name).id)
        for agent in agents:
            await agent.connect(machine)
            await agent.obey(machine)
        plain = await machine.start_upgrade(
            fleet.request(name="plain", target_version="1.2.0"), request_id="plain", actor="ann"
        )
        for verb in ("approve", "deny"):
            assert (await refusal(machine, verb, plain.id)).code == "approval_not_needed"
            assert (await refusal(machine, verb, "nowhere")).code == "approval_not_found"

    fleet.told(tmp_path, tale)


def test_who_asked_may_approve_where_the_controller_is_told_so(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        await ask(controller.engine)
        await controller.crash()
        machine = await controller.start(requester_may_approve=True)
        assert (await machine.approve("asked", reason="alone here", actor="ann")).state is S.RUNNING

    fleet.told(tmp_path, tale)


def test_what_the_fleet_would_be_given_another_plan_for_by_now_is_not_approved(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await ask(machine, level=model.ValidationLevel.PERMISSIVE)
        await machine.cordon_node(agents[1].node_id, reason="new disk", actor="cy")
        found = await refusal(machine, "approve", "asked")
        assert (found.code, str(found)) == ("plan_stale", "cannot approve rollout asked: node n2 changed")
        await machine.block_release(fleet.WEB, "1.1.0", reason="it leaks", actor="cy")
        found = await refusal(machine, "approve", "asked")
        assert found.code == "plan_stale"
        assert "edge_blocked" in str(found)
        assert machine.rollout("asked").state is S.PENDING
        # The fleet is as it was again.
        await machine.block_release(fleet.WEB, "1.1.0", reason="", actor="cy")
        await machine.uncordon_node(agents[1].node_id, actor="cy")
        assert (await machine.approve("asked", reason="", actor="bob")).state is S.RUNNING

    fleet.told(tmp_path, tale)


def test_what_waits_for_an_approval_keeps_no_node_from_anybody(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await ask(machine, priority=9)
        other = await machine.start_upgrade(fleet.request(name="other"), request_id="other", actor="ann")
        assert other.state is S.RUNNING
        found = await refusal(machine, "approve", "asked")
        assert (found.code, found.field) == ("rollout_conflict", "selector")
        assert approval(machine).state is A.WAITING
        for agent in agents:
            await agent.fail(machine, "disk_full", model.Fault.COMMAND)
        await machine.cancel(other.id, reason="no", actor="ann")
        assert (await machine.approve("asked", reason="", actor="bob")).state is S.RUNNING

    fleet.told(tmp_path, tale)


def test_what_is_approved_waits_for_its_nodes_as_its_request_says(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        other = await machine.start_upgrade(fleet.request(name="other"), request_id="other", actor="ann")
        await ask(machine, target_version="1.2.0", conflict=C.QUEUE)
        queued = await machine.approve("asked", reason="", actor="bob")
        assert (queued.state, queued.message) == (S.PENDING, f"waits for rollout {other.id}")
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
            await agent.fail(machine, "disk_full", model.Fault.COMMAND)
        await machine.cancel(other.id, reason="no", actor="ann")
        await asyncio.sleep(1)
        begun = machine.rollout("asked")
        assert (begun.state, begun.plan) == (S.RUNNING, queued.plan)

    fleet.told(tmp_path, tale)


@pytest.mark.parametrize("conflict", [C.REJECT, C.QUEUE])
def test_what_begins_is_the_plan_that_was_shown_though_a_node_came_back_since(
    tmp_path: Path, conflict: model.ConflictPolicy
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await agents[2].disconnect(machine)
        shown = await ask(machine, conflict=conflict, policy=model.Policy(offline=model.OfflinePolicy.SKIP))
        assert [each.code for each in shown.plan.excluded] == ["node_offline"]
        await agents[2].connect(machine)
        if conflict is C.QUEUE:
            await machine.label_node(agents[0].node_id, {"first": "yes"}, (), actor="cy")
            part = fleet.request(name="part", selector="first=yes")
            other = await machine.start_upgrade(part, request_id="part", actor="ann")
            assert (await machine.approve("asked", reason="", actor="bob")).state is S.PENDING
            await agents[0].fail(machine, "disk_full", model.Fault.COMMAND)
            await machine.cancel(other.id, reason="no", actor="ann")
            await asyncio.sleep(1)
        else:
            await machine.approve("asked", reason="", actor="bob")
        begun = machine.rollout("asked")
        assert (begun.state, begun.plan) == (S.RUNNING, shown.plan)
        assert {key.node_id for key in begun.changes} == {"n1", "n2"}

    fleet.told(tmp_path, tale)


def test_what_has_to_be_approved_is_accepted_though_others_have_its_nodes(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(name="other"), request_id="other", actor="ann")
        waiting = await ask(machine)
        assert (waiting.state, waiting.message, waiting.request.conflict) == (S.PENDING, "", C.REJECT)

    fleet.told(tmp_path, tale)


def test_what_was_approved_ends_where_its_turn_comes_and_the_fleet_has_changed(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(name="other"), request_id="other", actor="ann")
        await ask(machine, target_version="1.2.0", conflict=C.QUEUE)
        await machine.approve("asked", reason="", actor="bob")
        for agent in agents:
            await agent.obey(machine)
        await asyncio.sleep(1)
        ended = machine.rollout("asked")
        assert ended.state is S.CANCELLED
        assert "cannot begin what was approved: nodes n1, n2, n3 changed" in ended.message
        with pytest.raises(errors.RefusedError) as refused:
            await machine.retry(ended.id, reason="all the same", actor="ann")
        assert refused.value.code == "approval_used"

    fleet.told(tmp_path, tale)


def test_what_takes_the_place_of_others_does_so_once_it_is_approved(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        queued = fleet.request(name="other", conflict=C.QUEUE)
        first = await machine.start_upgrade(fleet.request(name="first"), request_id="first", actor="ann")
        other = await machine.start_upgrade(queued, request_id="other", actor="ann")
        await ask(machine, conflict=C.SUPERSEDE)
        assert machine.rollout(other.id).state is S.PENDING
        newest = await machine.approve("asked", reason="", actor="bob")
        assert (newest.state, machine.rollout(other.id).state) == (S.PENDING, S.CANCELLED)
        assert ("bob", "rollout.cancel", f"rollout {newest.id} takes its place") in audit(controller, first)
        for agent in agents:
            await agent.fail(machine, "cancelled", model.Fault.COMMAND)
        await asyncio.sleep(1)
        assert machine.rollout("asked").state is S.RUNNING

    fleet.told(tmp_path, tale)


def test_an_emergency_withdraws_what_waits_for_an_approval(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        await ask(machine)
        await machine.roll_back_emergency(fleet.WEB, "", timedelta(minutes=5), reason="fire", actor="cy")
        assert (machine.rollout("asked").state, approval(machine).state) == (S.CANCELLED, A.WITHDRAWN)

    fleet.told(tmp_path, tale)


@pytest.mark.parametrize("verb", ["begin by trying again", "begin behind a revert"])
def test_there_is_no_way_around_an_approval(tmp_path: Path, verb: str) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        denied = await ask(machine)
        await machine.deny(denied.id, reason="", actor="bob")
        if verb == "begin behind a revert":
            assert (await machine.revert(denied.id, reason="odd", actor="ann")).state is S.REVERTED
        with pytest.raises(errors.RefusedError) as refused:
            await machine.retry(denied.id, reason="all the same", actor="ann")
        assert refused.value.code == "approval_missing"
        assert not any(agent.assigned(machine) for agent in agents)

    fleet.told(tmp_path, tale)


def test_a_request_that_is_asked_twice_asks_for_one_approval(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        first = await ask(machine)
        assert (await ask(machine)).id == first.id
        assert len(machine.approvals(10, with_decided=True)) == 1

    fleet.told(tmp_path, tale)


def test_the_newest_approvals_are_listed_first_and_no_more_than_are_wanted(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        for name in ("one", "two", "three"):
            await ask(machine, name)
            await asyncio.sleep(1)
        await machine.deny("three", reason="", actor="bob")
        assert [each.name for each in machine.approvals(10, with_decided=False)] == ["two", "one"]
        assert [each.name for each in machine.approvals(2, with_decided=True)] == ["three", "two"]

    fleet.told(tmp_path, tale)


def test_a_decision_that_the_store_cannot_write_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await ask(machine)
        original = controller.store.commit

        async def full(_commit: rows.Commit) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(controller.store, "commit", full)
        with pytest.raises(errors.UnavailableError):
            await machine.approve("asked", reason="", actor="bob")
        assert (machine.rollout("asked").state, approval(machine).state) == (S.PENDING, A.WAITING)
        assert not any(agent.assigned(machine) for agent in agents)
        monkeypatch.setattr(controller.store, "commit", original)
        assert (await machine.approve("asked", reason="", actor="bob")).state is S.RUNNING

    fleet.told(tmp_path, tale)


async def test_a_large_fleet_is_looked_at_again_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "INLINE_NODES_MAX", 0)
    controller = fleet.Controller(tmp_path / "store")
    agents = await fleet.upgraded_fleet(controller)
    machine = controller.engine
    await ask(machine, level=model.ValidationLevel.PERMISSIVE)
    await machine.cordon_node(agents[1].node_id, reason="new disk", actor="cy")
    assert (await refusal(machine, "approve", "asked")).code == "plan_stale"
    await machine.uncordon_node(agents[1].node_id, actor="cy")
    assert (await machine.approve("asked", reason="", actor="bob")).state is S.RUNNING
    await controller.stop()
