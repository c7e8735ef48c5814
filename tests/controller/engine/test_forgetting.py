"""What is over and old goes by itself, in virtual time on real stores; what is under way stays whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from controller.config import retention
from controller.core import errors, model
from controller.engine import forgetting, repeating
from controller.store import checking, database, reading, retiring, tables
from controller.telemetry import ids
from tests.controller.engine import fleet

LOOK_SECONDS = 60.0
KEPT = retention.Retention(*(timedelta(minutes=2),) * 5)
RACKS = ("ended", "open", "young")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rollout is kept for being among the latest; each transaction takes a few rows; looks are frequent."""
    monkeypatch.setattr(retiring, "ROLLOUTS_KEPT", 0)
    monkeypatch.setattr(forgetting, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(forgetting, "LOOK_PERIOD", timedelta(seconds=LOOK_SECONDS))


async def begun(controller: fleet.Controller, rack: str) -> tuple[fleet.Agent, model.RolloutId]:
    """A rollout over one node of its own, which has not done anything yet."""
    machine = controller.engine
    agent = fleet.Agent(rack, rack=rack)
    await agent.connect(machine)
    request = fleet.request(name=rack, selector=f"rack={rack}")
    rollout = await machine.start_upgrade(request, request_id=f"request-{rack}", actor="ann")
    return agent, rollout.id


async def ended(controller: fleet.Controller, rack: str) -> model.RolloutId:
    agent, rollout_id = await begun(controller, rack)
    await agent.obey(controller.engine)
    assert controller.engine.rollout(rollout_id).state.is_terminal
    return rollout_id


def rows_of(controller: fleet.Controller, rollout_id: model.RolloutId) -> dict[str, int]:
    """How many rows of a rollout there are, by table; what is told of its operations and its spans counts."""

    def count(connection: sa.Connection) -> dict[str, int]:
        found: dict[str, int] = {}
        for table in tables.metadata.sorted_tables:
            if "rollout_id" in table.c:
                which = table.c.rollout_id == rollout_id
            elif table is tables.steps:
                which = table.c.operation_id.startswith(rollout_id)
            elif table is tables.outbox:
                which = table.c.trace_id == ids.trace_id(rollout_id)
            else:
                continue
            number = connection.scalar(sa.select(sa.func.count()).select_from(table).where(which)) or 0
            found |= {table.name: number} if number else {}
        return found

    return controller.store.read(count)


def faults(controller: fleet.Controller) -> list[checking.Finding]:
    """What is wrong with the store, but for bundles, of which there are none here."""
    check = checking.Check(lambda _: True, lambda *_: None)
    return controller.store.read(lambda connection: list(check.findings(connection)))


def test_what_is_over_and_old_goes_with_all_that_belongs_to_it_and_what_is_open_stays(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        controller.retained = KEPT
        machine = await controller.restart()
        old = await ended(controller, "ended")
        agent, still = await begun(controller, "open")
        await machine.pause(still, reason="for long", actor="ann")
        with pytest.raises(errors.InstarError):
            await machine.start_upgrade(fleet.request(target_version="9.9.9"), request_id="", actor="ann")
        before = rows_of(controller, old)
        assert {"rollouts", "changes", "events", "leases", "assignments", "steps", "requests", "outbox"} <= set(before)
        open_rows = rows_of(controller, still)
        assert machine.statistics().refused == 1
        await asyncio.sleep(2.5 * LOOK_SECONDS)
        assert rows_of(controller, old)
        young = await ended(controller, "young")
        young_rows = rows_of(controller, young)
        await asyncio.sleep(LOOK_SECONDS)

        assert rows_of(controller, old) == {}
        assert rows_of(controller, young) == young_rows
        assert rows_of(controller, still) == open_rows
        assert controller.store.read(lambda connection: reading.refusals(connection, 10)) == ()
        assert controller.store.read(retiring.going) == ()
        traces = controller.store.read(lambda connection: set(connection.scalars(sa.select(tables.outbox.c.trace_id))))
        assert traces == {ids.trace_id(still), ids.trace_id(young)}
        assert [each.action for each in controller.store.read(lambda one: reading.audit(one, old))]
        assert faults(controller) == []

        with pytest.raises(errors.NotFoundError) as compacted:
            machine.rollout(old)
        assert compacted.value.code == "rollout_compacted"
        assert still in str(compacted.value)
        for unknown in (young + "0", "web-1.0.0"):
            with pytest.raises(errors.NotFoundError) as missing:
                machine.rollout(unknown)
            assert missing.value.code == "rollout_not_found"

        machine = await controller.restart()
        await agent.connect(machine)
        await machine.resume(still, reason="on", actor="ann")
        await agent.obey(machine)
        assert machine.rollout(still).state is model.RolloutState.SUCCEEDED
        again = await machine.start_upgrade(
            fleet.request(name="young", selector="rack=young"), request_id="request-young", actor="ann"
        )
        assert again.id == young

    fleet.told(where, tale, nodes=1)


def test_answers_go_once_calls_may_no_longer_be_repeated(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        controller.retained = KEPT
        machine = await controller.restart()

        async def freeze() -> model.Freeze:
            call = repeating.Call("one", "AddFreeze", "ann", "", say=lambda made: made.id.encode())
            with repeating.carrying_out(call):
                return await machine.add_freeze("zone=a", fleet.LoopClock().now(), None, reason="holidays", actor="ann")

        first = await freeze()
        with pytest.raises(repeating.RepeatedError) as known:
            await freeze()
        assert known.value.answer == first.id.encode()
        await asyncio.sleep(4 * LOOK_SECONDS)
        assert await freeze() != first

    fleet.told(where, tale, nodes=1)


def test_what_may_still_be_taken_back_or_heard_of_stays_however_old(
    where: database.Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        found = [await ended(controller, rack) for rack in RACKS]
        await asyncio.sleep(LOOK_SECONDS)
        look = forgetting.Forgetting(
            controller.store, fleet.LoopClock(), replace(KEPT, rollouts=timedelta()), machine._recent.forget
        ).look
        is_settled = sa.update(tables.assignments).where(tables.assignments.c.rollout_id == found[0])
        await controller.store.write(lambda connection: connection.execute(is_settled.values(is_settled=False)))
        monkeypatch.setattr(retiring, "ROLLOUTS_KEPT", 2)
        await look()
        assert [machine.rollout(each).id for each in found] == found
        monkeypatch.setattr(retiring, "ROLLOUTS_KEPT", 1)
        await look()
        await controller.store.write(lambda connection: connection.execute(is_settled.values(is_settled=True)))
        await look()
        with pytest.raises(errors.NotFoundError):
            machine.rollout(found[0])
        assert machine.rollout(found[2]).id == found[2]

    fleet.told(where, tale, nodes=1)


def test_what_was_cut_short_is_seen_by_nobody_and_gone_on_with_in_the_next_life(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        old = await ended(controller, "ended")
        now = fleet.LoopClock().now() + timedelta(hours=1)
        assert await controller.store.write(lambda connection: retiring.delete_head(connection, old, now))
        machine = await controller.restart()
        assert "changes" in rows_of(controller, old)
        assert machine.explain_node(model.NodeId("ended"))
        assert machine.rollouts(10) == ()
        assert faults(controller) == []
        controller.retained = KEPT
        await controller.restart()
        await asyncio.sleep(LOOK_SECONDS + 1)
        assert rows_of(controller, old) == {}

    fleet.told(where, tale, nodes=1)


def test_a_rollout_that_goes_on_again_meanwhile_does_not_go(where: database.Where) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        old = await ended(controller, "ended")
        before = fleet.LoopClock().now() + timedelta(hours=1)
        assert controller.store.read(lambda connection: retiring.due_rollouts(connection, before)) == (old,)
        await machine.revert(old, reason="back", actor="ann")
        assert not await controller.store.write(lambda connection: retiring.delete_head(connection, old, before))
        assert not machine.rollout(old).state.is_terminal

    fleet.told(where, tale, nodes=1)
