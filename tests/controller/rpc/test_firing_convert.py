"""Events, firings, and how triggers stand, between the wire and the core: total, and without loss."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import timestamp_pb2
from rpds import HashTrieMap

from controller.core import errors, model
from controller.core.triggers import explaining, rehearsing
from controller.rpc import convert, firing_convert
from instar.v1 import trigger_pb2

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
EVENT = trigger_pb2.Event(
    source="ci",
    id="7",
    spec_version="1.0",
    type="build.finished",
    subject="web",
    time=timestamp_pb2.Timestamp(seconds=5),
    data='{"version": "1.2.0"}',
)


def test_an_event_arrives_as_it_was_said() -> None:
    at = datetime.fromtimestamp(5, UTC)
    found = firing_convert.from_event(EVENT, "events[0]")
    assert found == model.ReceivedEvent("ci", "7", "build.finished", "web", at, '{"version": "1.2.0"}')
    least = firing_convert.from_event(trigger_pb2.Event(source="ci", id="7", type="t"), "events[0]")
    assert least == model.ReceivedEvent("ci", "7", "t", "", None, "{}")


def test_an_event_of_another_specification_is_refused() -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        firing_convert.from_event(trigger_pb2.Event(source="ci", id="7", type="t", spec_version="0.3"), "events[3]")
    assert (caught.value.field, caught.value.rule) == ("events[3].spec_version", "1.0")


def test_an_event_of_no_year_is_refused() -> None:
    told = trigger_pb2.Event(source="ci", id="7", type="t", time=timestamp_pb2.Timestamp(seconds=1 << 50))
    with pytest.raises(errors.InvalidRequestError) as caught:
        firing_convert.from_event(told, "events[0]")
    assert caught.value.field == "events[0].time"


FIRING = model.Firing(  # nothing in it is a default
    id=model.FiringId("t-1.3"),
    trigger_id=model.TriggerId("t-1"),
    trigger="nightly",
    number=3,
    state=model.FiringState.APPROVAL_AWAITED,
    does=model.TriggerActionKind.ROLLBACK,
    cause=model.Cause("it was due", (model.NodeId("n-1"),), "ci", "7", "1.2.0", AT, "ann"),
    fired_at=AT + SECOND,
    reason=model.Reason("approval", "somebody has to approve it", AT + 2 * SECOND),
    held_until=AT + 3 * SECOND,
    released_at=AT + 4 * SECOND,
    approval=model.FiringApproval(
        "ann", AT, AT + SECOND, model.ApprovalState.DENIED, "bob", AT + 2 * SECOND, "not today"
    ),
    attempts=2,
    next_try_at=AT + 5 * SECOND,
    rollout_id=model.RolloutId("r-1"),
    ended_at=AT + 6 * SECOND,
)


def test_every_field_of_a_firing_is_shown() -> None:
    told = firing_convert.firing(FIRING)
    assert {field.name for field, _ in told.ListFields()} == {field.name for field in told.DESCRIPTOR.fields}
    assert {field.name for field, _ in told.cause.ListFields()} == {
        field.name for field in told.cause.DESCRIPTOR.fields
    }
    assert len(told.approval.ListFields()) == len(told.approval.DESCRIPTOR.fields)
    assert trigger_pb2.FiringState.Name(told.state) == "FIRING_STATE_APPROVAL_AWAITED"
    assert trigger_pb2.TriggerActionKind.Name(told.action) == "TRIGGER_ACTION_KIND_ROLLBACK"
    assert (told.reason, told.message, told.approval.decider, told.cause.actor) == (
        *("approval", "somebody has to approve it"),
        *("bob", "ann"),
    )
    times = (told.fire_time, told.since_time, told.hold_end_time, told.release_time, told.retry_time, told.end_time)
    assert [one.ToDatetime(UTC) - AT for one in times] == [SECOND * number for number in range(1, 7)]


def test_every_state_and_every_action_of_a_firing_has_a_word() -> None:
    for state in model.FiringState:
        assert firing_convert.firing(replace(FIRING, state=state)).state
    for does in model.TriggerActionKind:
        assert firing_convert.firing(replace(FIRING, does=does)).action


def test_how_a_trigger_stands_is_shown_with_its_signals_up_to_a_bound() -> None:
    signals: dict[model.NodeId | None, model.Signal] = {
        model.NodeId(f"n-{number:03}"): model.Signal(AT, AT, AT, AT) for number in range(150)
    }
    node_ids = [str(each) for each in signals]
    event = model.ReceivedEvent("ci", "7", "t")
    status = model.TriggerStatus(
        model.TriggerId("t-1"),
        number=3,
        signals=HashTrieMap(signals | {None: model.Signal(AT, AT)}),
        raised=2,
        is_raised=True,
        released=(AT, AT),
        cooling_since=AT,
        next_run_at=AT,
        debounced=model.Debounced(event, 4, AT, AT),
        seen_version="1.2.0",
        open=(FIRING,),
        fault=model.EvaluationFault("code", "message", AT, 5, AT),
    )
    trigger = model.Trigger(model.TriggerId("t-1"), "x", model.ByHand(), model.Notify())
    told = firing_convert.view(trigger, status).status
    assert {field.name for field, _ in told.ListFields()} == {field.name for field in told.DESCRIPTOR.fields}
    assert [one.node_id for one in told.signals] == ["", *sorted(node_ids)[:99]]
    assert (told.firings, told.raised, told.released_last_hour, told.debounced) == (3, 2, 2, 4)
    assert len(told.fault.ListFields()) == len(fields(model.EvaluationFault))
    assert len(firing_convert.view(trigger, model.TriggerStatus(model.TriggerId("t-1"))).status.ListFields()) == 0


def test_every_field_of_an_explanation_is_shown() -> None:
    value = explaining.Explanation(
        headline="it is ready",
        guards=(explaining.GuardLine("window", is_open=True, why="it is open", opens_at=AT),),
        signals=(explaining.SignalLine(model.NodeId("n-1"), AT, is_raised=True, why="it holds"),),
        signals_left_out=3,
        open=(FIRING,),
        fault=model.EvaluationFault("code", "message", AT, 5, AT),
        next_chance_at=AT,
        next_chance="at noon",
        values=(explaining.ValueLine(model.NodeId("n-1"), is_met=True, values=(("load", 2.0), ("gone", None))),),
        values_left_out=2,
    )
    told = firing_convert.explanation(value)
    assert {field.name for field, _ in told.ListFields()} == {field.name for field in told.DESCRIPTOR.fields}
    assert len(told.guards[0].ListFields()) == len(told.guards[0].DESCRIPTOR.fields)
    assert len(told.signals[0].ListFields()) == len(told.signals[0].DESCRIPTOR.fields)
    assert len(told.values[0].ListFields()) == len(told.values[0].DESCRIPTOR.fields)
    assert dict(told.values[0].values) == {"load": 2.0}
    assert (told.headline, told.guards[0].message, told.signals[0].message) == ("it is ready", "it is open", "it holds")
    assert told.open[0] == firing_convert.firing(FIRING)


def test_a_rehearsal_counts_what_would_have_acted() -> None:
    done = replace(FIRING, state=model.FiringState.SUCCEEDED)
    told = firing_convert.rehearsal(rehearsing.Rehearsal(AT, AT + SECOND, (done, FIRING, done), ("so",)))
    assert (told.acted, len(told.firings), list(told.notes)) == (2, 3, ["so"])
    assert convert.instant(told.end_time, "x") - convert.instant(told.start_time, "x") == SECOND
