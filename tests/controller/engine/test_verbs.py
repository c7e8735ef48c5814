"""Leading a rollout: each verb is carried out, audited and refused by the engine as the core says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core import errors, model
from controller.store import database, reading
from tests.controller.engine import fleet

S = model.RolloutState
CANARY = fleet.request(
    strategy=model.Strategy.CANARY,
    parameters=model.CanaryParameters(nodes=1),
    policy=model.Policy(is_promoted_by_hand=True),
)


def audited(controller: fleet.Controller, rollout: model.Rollout) -> list[tuple[str, str, str]]:
    entries = controller.store.read(lambda connection: reading.audit(connection, rollout.id))
    return [(each.actor, each.action, each.reason) for each in entries]


def test_a_paused_rollout_starts_nothing_also_after_a_crash_and_goes_on_once_it_is_resumed(
    where: database.Where,
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        wanted = fleet.request(policy=model.Policy(max_parallel=1))
        begun = await controller.engine.start_upgrade(wanted, request_id="one", actor="ann")
        paused = await controller.engine.pause(begun.id, reason="lunch", actor="bob")
        assert paused.state is S.PAUSED
        for agent in agents:
            await agent.obey(controller.engine)
        await asyncio.sleep(3600)
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        assert [agent.assigned(machine) for agent in agents] == [[]] * 3
        assert (await machine.resume(begun.id, reason="done", actor="bob")).state is S.RUNNING
        for agent in agents * 3:
            await agent.obey(machine)
        assert machine.rollout(begun.id).state is S.SUCCEEDED
        assert {("bob", "rollout.pause", "lunch"), ("bob", "rollout.resume", "done")} <= set(audited(controller, begun))

    fleet.told(where, tale)


def test_a_rollout_that_is_promoted_by_hand_waits_for_it(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await machine.start_upgrade(CANARY, request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        assert machine.rollout(begun.id).wave == 1
        promoted = await machine.promote(begun.id, reason="looks good", actor="bob")
        assert promoted.wave == 2
        assert ("bob", "rollout.promote", "looks good") in audited(controller, begun)
        for agent in agents:
            await agent.obey(machine)
        assert machine.rollout(begun.id).state is S.SUCCEEDED

    fleet.told(where, tale)


def test_a_cancelled_rollout_lets_its_nodes_go(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await machine.start_upgrade(CANARY, request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        cancelled = await machine.cancel(begun.id, reason="no need", actor="bob")
        assert cancelled.state is S.CANCELLED
        assert sorted(agent.version for agent in agents) == ["1.0.0", "1.0.0", "1.1.0"]
        again = await machine.start_upgrade(fleet.request(), request_id="two", actor="ann")
        assert again.state is S.RUNNING
        assert ("bob", "rollout.cancel", "no need") in audited(controller, begun)

    fleet.told(where, tale)


def test_a_retry_takes_up_what_failed_also_of_a_rollout_that_has_ended_and_after_a_crash(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        policy = model.Policy(max_infrastructure_failures=1)
        begun = await controller.engine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        for _ in range(3):
            await agents[0].fail(controller.engine, fault=model.Fault.INFRASTRUCTURE)
            await asyncio.sleep(11)
        for agent in agents[1:]:
            await agent.obey(controller.engine)
        assert controller.engine.rollout(begun.id).state is S.SUCCEEDED
        machine = await controller.restart()
        for agent in agents:
            await agent.connect(machine)
        retried = await machine.retry(begun.id, reason="it was the disk", actor="bob")
        assert retried.state is S.RUNNING
        assert [len(agent.assigned(machine)) for agent in agents] == [1, 0, 0]
        await agents[0].obey(machine)
        assert machine.rollout(begun.id).state is S.SUCCEEDED
        assert [agent.version for agent in agents] == ["1.1.0"] * 3

    fleet.told(where, tale)


def test_a_rollout_is_not_taken_up_again_while_another_one_has_its_nodes(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        policy = model.Policy(max_failures=1)
        first = await machine.start_upgrade(fleet.request(policy=policy), request_id="one", actor="ann")
        await agents[0].fail(machine)
        for agent in agents[1:]:
            await agent.obey(machine)
        await machine.start_upgrade(fleet.request(target_version="1.2.0"), request_id="two", actor="ann")
        for verb in (machine.retry, machine.revert):
            with pytest.raises(errors.RefusedError) as refused:
                await verb(first.id, reason="again", actor="bob")
            assert refused.value.code == "rollout_conflict"
        assert machine.rollout(first.id).state is S.SUCCEEDED

    fleet.told(where, tale)


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "cancel"])
def test_a_verb_that_comes_too_late_is_refused_counted_and_kept(where: database.Where, verb: str) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        before = machine.rollout(begun.id)
        with pytest.raises(errors.RefusedError):
            await getattr(machine, verb)(begun.id, reason="late", actor="bob")
        assert machine.rollout(begun.id) == before
        [kept] = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert (kept.actor, kept.action) == ("bob", f"{verb}_rollout")
        assert machine.statistics().refused == 1

    fleet.told(where, tale)


def test_an_unknown_rollout_is_not_found_by_any_verb(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        for verb in (machine.pause, machine.resume, machine.promote, machine.cancel, machine.retry, machine.revert):
            with pytest.raises(errors.NotFoundError):
                await verb(model.RolloutId("r-none"), reason="odd", actor="bob")

    fleet.told(where, tale)


def test_a_wave_bakes_in_the_engines_time(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        wanted = fleet.request(
            strategy=model.Strategy.ROLLING,
            parameters=model.RollingParameters(2),
            policy=model.Policy(bake_duration=timedelta(minutes=5)),
        )
        begun = await machine.start_upgrade(wanted, request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        await asyncio.sleep(299)
        assert machine.rollout(begun.id).wave == 1
        await asyncio.sleep(2)
        assert machine.rollout(begun.id).wave == 2

    fleet.told(where, tale)


def test_a_rollout_and_a_node_in_it_are_explained(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        begun = await machine.start_upgrade(CANARY, request_id="one", actor="ann")
        await machine.pause(begun.id, reason="lunch", actor="bob")
        assert "lunch" in " ".join(each.message for each in machine.explain_rollout("up"))
        assert machine.explain_rollout(begun.id, agents[0].node_id)
        with pytest.raises(errors.NotFoundError) as missing:
            machine.explain_rollout(begun.id, "nowhere")
        assert missing.value.code == "node_not_found"
        with pytest.raises(errors.NotFoundError):
            machine.explain_rollout("none")

    fleet.told(where, tale)


def test_a_node_is_explained_by_the_rollout_that_has_it_and_later_by_the_one_that_had_it(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        assert controller.engine.explain_node(agents[0].node_id)[0].code == "under_way"
        for agent in agents:
            await agent.obey(controller.engine)
        machine = await controller.restart()
        codes = [each.code for each in machine.explain_node(agents[0].node_id)]
        assert codes[0] == "free"
        assert "done" in codes
        with pytest.raises(errors.NotFoundError):
            machine.explain_node(model.NodeId("none"))

    fleet.told(where, tale)


def test_what_others_have_come_to_require_is_not_taken_from_them_by_a_revert(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        done = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        for agent in agents:
            await agent.obey(machine)
        assert machine.rollout("up").state is S.SUCCEEDED
        digest = model.Digest("sha256:" + "d" * 64)
        name = model.ComponentName("app")
        wanted = (model.Requirement(fleet.WEB, ">=1.1.0"),)
        release = replace(fleet.release("1.0.0"), component=name, digest=digest, requirements=wanted)
        await machine.publish(release)
        app = replace(fleet.installed("1.0.0"), name=name, digest=digest, permanent_digest=digest)
        await agents[0].tell(machine, model.NodeReport(components=(app,)))
        with pytest.raises(errors.RefusedError, match=r"app 1\.0\.0, which requires web >=1\.1\.0, on n1") as refused:
            await machine.revert(done.id, reason="slower", actor="ann")
        assert refused.value.code == "requirement_broken"
        assert machine.rollout("up").state is S.SUCCEEDED
        await agents[0].tell(machine, model.NodeReport(removed=(name,)))
        assert (await machine.revert(done.id, reason="slower", actor="ann")).state is S.REVERTING

    fleet.told(where, tale)
