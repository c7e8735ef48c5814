"""Triggers of every kind, what they remember, their firings, and the events that they have seen, over a restart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import rpds

from controller.core import model
from controller.store import database, executor, reading, rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = model.ComponentName("web")
MEASURE = model.Measure(model.MeasureKind.RATIO, "errors", per="requests")
KINDS = (
    model.Threshold("metrics['x'] > 1.0", "metrics['x'] < 0.5", WEB, "zone=a", timedelta(minutes=1), timedelta(0), 3),
    model.Degradation(WEB, MEASURE, 50, 20),
    model.Schedule("0 3 * * *", "Europe/Berlin", model.MissedPolicy.ONCE),
    model.EventMatch("build.*", "event.subject == 'x'", timedelta(minutes=1)),
    model.VersionAvailable(WEB, versions=">=1.0.0", prereleases=True),
    model.ByHand(),
)
ACTIONS = (
    model.Notify("told"),
    model.Upgrade(model.UpgradeRequest(WEB, "1.1.0", model.Strategy.CANARY, parameters=model.CanaryParameters(2))),
    model.Rollback(WEB, "zone=a"),
)
GUARDS = model.Guards(
    (model.Window(timedelta(hours=1), timedelta(hours=2)),),
    concurrency=model.ConflictPolicy.QUEUE,
    approval=model.ApprovalGuard(timedelta(hours=1), by_another=False),
)


async def kept(where: database.Where, **parts: object) -> reading.Snapshot:
    """Write, close, and read again."""
    store = database.Store(where, executor.InlineExecutor())
    await store.commit(rows.Commit(at=NOW, **parts))  # type: ignore[arg-type]  # names and types are the test's
    store.close()
    return read(where)


def read(where: database.Where) -> reading.Snapshot:
    store = database.Store(where, executor.InlineExecutor())
    try:
        return store.read(reading.snapshot)
    finally:
        store.close()


def firing(trigger: model.Trigger, number: int = 1) -> model.Firing:
    approval = model.FiringApproval("ann", NOW, NOW + timedelta(hours=1))
    return model.Firing(
        id=model.FiringId(f"{trigger.id}.{number}"),
        trigger_id=trigger.id,
        trigger=trigger.name,
        number=number,
        state=model.FiringState.APPROVAL_AWAITED,
        does=trigger.does,
        cause=model.Cause("it holds", (model.NodeId("n1"),)),
        fired_at=NOW,
        reason=model.Reason("approval_awaited", "somebody has to", NOW),
        held_until=NOW + timedelta(days=1),
        approval=approval,
    )


@pytest.mark.parametrize("when", KINDS, ids=lambda when: type(when).__name__)
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
async def test_each_kind_comes_back_as_it_was_with_all_that_it_remembers(
    where: database.Where, when: model.When, action: model.TriggerAction
) -> None:
    trigger = model.Trigger(model.TriggerId("t-1"), "t", when, action, GUARDS, True, "why", 3, NOW, "ann")  # noqa: FBT003
    event = model.ReceivedEvent("//ci", "e1", "build.done", at=NOW, data='{"a": 1}')
    signals = {None: model.Signal(NOW, NOW), model.NodeId("n1"): model.Signal(NOW, NOW, NOW, NOW)}
    status = model.TriggerStatus(
        trigger.id,
        number=4,
        signals=rpds.HashTrieMap(signals),
        raised=1,
        is_raised=True,
        released=(NOW,),
        cooling_since=NOW,
        next_run_at=NOW,
        debounced=model.Debounced(event, 2, NOW, NOW),
        seen_version="1.0.0",
        open=(firing(trigger),),
        fault=model.EvaluationFault("code", "message", NOW, 2, None),
    )
    keyed = tuple((rows.SignalKey(trigger.id, node_id), each) for node_id, each in signals.items())
    written = await kept(where, triggers=(rows.TriggerRow(trigger, status),), signals=keyed)
    assert written.triggers == (rows.TriggerRow(trigger, status),)
    gone = tuple((key, None) for key, _ in keyed)
    without = replace(status, signals=rpds.HashTrieMap())
    assert (await kept(where, signals=gone)).triggers == (rows.TriggerRow(trigger, without),)
    assert (await kept(where, removed_triggers=("t",))).triggers == ()


async def test_firings_are_found_newest_first_by_trigger_by_number_and_while_they_are_open(
    where: database.Where,
) -> None:
    one, other = (
        model.Trigger(model.TriggerId(f"t-{name}"), name, model.ByHand(), model.Notify()) for name in ("one", "other")
    )
    ended = replace(firing(one, 2), state=model.FiringState.DROPPED, ended_at=NOW, fired_at=NOW + timedelta(seconds=2))
    firings = (firing(one), ended, replace(firing(other), fired_at=NOW + timedelta(seconds=1)))
    await kept(where, firings=firings)
    store = database.Store(where, executor.InlineExecutor())

    def found(name: str, limit: int = 10, *, only_open: bool = False) -> list[str]:
        newest = store.read(lambda connection: reading.firings(connection, name, limit, only_open=only_open))
        return [each.id for each in newest]

    assert found("") == ["t-one.2", "t-other.1", "t-one.1"]
    assert found("", 2) == ["t-one.2", "t-other.1"]
    assert found("one") == ["t-one.2", "t-one.1"]
    assert found("", only_open=True) == ["t-other.1", "t-one.1"]
    assert store.read(lambda connection: reading.firing(connection, "t-one", 2)) == ended
    assert store.read(lambda connection: reading.firing(connection, "t-one", 3)) is None
    store.close()


async def test_an_event_is_known_by_its_source_and_id_until_it_is_forgotten(where: database.Where) -> None:
    key = rows.EventKey("//ci", "e1")
    await kept(where, received=(key,))
    store = database.Store(where, executor.InlineExecutor())
    asked = (key, rows.EventKey("//ci", "e2"), rows.EventKey("//cd", "e1"))

    def known() -> list[bool]:
        return store.read(lambda connection: [reading.has_received(connection, each) for each in asked])

    assert known() == [True, False, False]
    assert await store.forget_events(NOW) == 0
    assert known() == [True, False, False]
    assert await store.forget_events(NOW + timedelta(seconds=1)) == 1
    assert known() == [False, False, False]
    store.close()
