"""Triggers, firings and events between the wire and the core: total, and without loss."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import hypothesis
import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from hypothesis import strategies as st
from rpds import HashTrieMap

from controller.core import errors, model
from controller.core.triggers import explaining, rehearsing
from controller.rpc import convert, trigger_convert
from instar.v1 import analysis_pb2, rollout_pb2, trigger_pb2
from tests.controller.rpc import test_request_convert

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ENDLESS = duration_pb2.Duration(seconds=1 << 62)
WEB = model.ComponentName("web")
REQUEST = model.UpgradeRequest(WEB, "1.1.0", model.Strategy.CANARY)

_text = st.text(max_size=20)
_span = st.timedeltas(timedelta(0), timedelta(days=400))
_count = st.integers(0, (1 << 32) - 1)
_name = st.builds(model.ComponentName, _text)
_measure = st.builds(model.Measure, st.sampled_from(model.MeasureKind), _text, _text, st.integers(1, 99), _text, _text)
_when = st.one_of(
    st.builds(model.Threshold, _text, _text, _name, _text, _span, _span, _count),
    st.builds(
        model.Degradation,
        *(_name, _measure, _count, _count, st.booleans(), _span, _span, _span, _span),
        st.sampled_from(model.RuleScope),
        st.floats(allow_nan=False),
    ),
    st.builds(model.Schedule, _text, st.text(min_size=1, max_size=20), st.sampled_from(model.MissedPolicy)),
    st.builds(model.EventMatch, _text, _text, _span),
    st.builds(model.VersionAvailable, _name, _text, _text, st.booleans()),
    st.just(model.ByHand()),
)
_action = st.one_of(
    st.builds(model.Notify, _text),
    st.sampled_from([REQUEST, test_request_convert.REQUEST, replace(REQUEST, target_version="")]).map(model.Upgrade),
    st.builds(model.Rollback, _name, _text),
)
_window = st.builds(model.Window, _span, _span, st.frozensets(st.integers(1, 7)), st.just("Europe/Berlin"))
_guards = st.builds(
    model.Guards,
    st.lists(_window, max_size=3).map(tuple),
    _span,
    _count,
    st.sampled_from(model.ConflictPolicy),
    st.none() | st.builds(model.ApprovalGuard, _span, st.booleans()),
    _span,
)
_trigger = st.builds(model.Trigger, st.just(model.TriggerId("")), _text, _when, _action, _guards, st.booleans(), _text)


@hypothesis.given(_trigger)
def test_every_trigger_arrives_as_it_was_said(wanted: model.Trigger) -> None:
    told = trigger_pb2.Trigger.FromString(trigger_convert.trigger(wanted).SerializeToString())
    assert trigger_convert.from_trigger(told) == wanted


@pytest.mark.parametrize("kind", model.TriggerKind)
def test_a_kind_is_said_and_need_not_be(kind: model.TriggerKind) -> None:
    told = _of_kind(kind)
    assert trigger_pb2.TriggerKind.Name(trigger_convert.trigger(trigger_convert.from_trigger(told)).kind) == (
        f"TRIGGER_KIND_{kind.value}"
    )
    told.kind = trigger_pb2.TriggerKind.Value(f"TRIGGER_KIND_{kind.value}")
    assert trigger_convert.from_trigger(told).kind is kind


def _of_kind(kind: model.TriggerKind) -> trigger_pb2.Trigger:
    told = trigger_pb2.Trigger(name="x", notify=trigger_pb2.Notify())
    field = {"MANUAL": "by_hand"}.get(kind.value, kind.value.lower())
    getattr(told, field).SetInParent()
    if kind is model.TriggerKind.DEGRADATION:
        told.degradation.measure.kind = analysis_pb2.MEASURE_KIND_RATIO
    return told


def test_what_is_left_out_has_the_default_of_the_model() -> None:
    told = trigger_pb2.Trigger(name="x", kind=trigger_pb2.TRIGGER_KIND_MANUAL, notify=trigger_pb2.Notify())
    assert trigger_convert.from_trigger(told) == model.Trigger(
        model.TriggerId(""), "x", model.ByHand(), model.Notify(), model.Guards()
    )
    told = _of_kind(model.TriggerKind.THRESHOLD)
    assert trigger_convert.from_trigger(told).when == model.Threshold("")
    told = _of_kind(model.TriggerKind.SCHEDULE)
    assert trigger_convert.from_trigger(told).when == model.Schedule("")
    told = _of_kind(model.TriggerKind.DEGRADATION)
    told.degradation.worse_percent = 30
    measure = model.Measure(model.MeasureKind.RATIO, "")
    assert trigger_convert.from_trigger(told).when == model.Degradation(model.ComponentName(""), measure, 30, 30)


def test_somebody_else_has_to_approve_unless_it_is_said_that_nobody_else_has_to() -> None:
    told = _of_kind(model.TriggerKind.MANUAL)
    told.guards.approval.deadline.FromSeconds(60)
    assert trigger_convert.from_trigger(told).guards.approval == model.ApprovalGuard(timedelta(minutes=1))
    told.guards.approval.by_another = False
    own = model.ApprovalGuard(timedelta(minutes=1), by_another=False)
    assert trigger_convert.from_trigger(told).guards.approval == own


def test_what_the_controller_gives_is_not_taken_from_anybody_else() -> None:
    told = _of_kind(model.TriggerKind.MANUAL)
    told.trigger_id, told.revision, told.changed_by = "t-1", 7, "mallory"
    told.change_time.FromDatetime(AT)
    found = trigger_convert.from_trigger(told)
    assert (found.id, found.revision, found.changed_by, found.changed_at) == ("", 1, "", None)


@pytest.mark.parametrize(
    ("told", "fields_wrong"),
    [
        (trigger_pb2.Trigger(), ["when", "action"]),
        (trigger_pb2.Trigger(kind=trigger_pb2.TRIGGER_KIND_EVENT, notify=trigger_pb2.Notify()), ["when"]),
        (trigger_pb2.Trigger(kind=99, notify=trigger_pb2.Notify()), ["kind"]),  # type: ignore[arg-type]  # from the future
        (trigger_pb2.Trigger(kind=trigger_pb2.TRIGGER_KIND_EVENT, by_hand=trigger_pb2.ByHand()), ["kind", "action"]),
        (
            trigger_pb2.Trigger(
                threshold=trigger_pb2.Threshold(pending_for=ENDLESS),
                upgrade=rollout_pb2.UpgradeRequest(component="web"),
                guards=trigger_pb2.Guards(held_max=ENDLESS),
            ),
            ["when.threshold.pending_for", "action.upgrade.strategy", "guards.held_max"],
        ),
        (
            trigger_pb2.Trigger(
                degradation=trigger_pb2.Degradation(),
                upgrade=rollout_pb2.UpgradeRequest(strategy=rollout_pb2.STRATEGY_CANARY),
                guards=trigger_pb2.Guards(concurrency=9),  # type: ignore[arg-type]  # from the future
            ),
            ["when.degradation.measure.kind", "action.upgrade.component", "guards.concurrency"],
        ),
        (
            trigger_pb2.Trigger(
                event=trigger_pb2.EventMatch(debounce=ENDLESS),
                notify=trigger_pb2.Notify(),
                guards=trigger_pb2.Guards(approval=trigger_pb2.ApprovalGuard()),
            ),
            ["when.event.debounce", "guards.approval.deadline"],
        ),
        (
            trigger_pb2.Trigger(
                schedule=trigger_pb2.Schedule(missed=7),  # type: ignore[arg-type]  # from the future
                notify=trigger_pb2.Notify(),
                guards=trigger_pb2.Guards(windows=[rollout_pb2.Window()]),
            ),
            ["when.schedule.missed", "guards.windows.opens"],
        ),
    ],
)
def test_all_that_means_nothing_is_named_at_once(told: trigger_pb2.Trigger, fields_wrong: list[str]) -> None:
    with pytest.raises(errors.InvalidFieldsError) as caught:
        trigger_convert.from_trigger(told)
    assert [one.field for one in caught.value.problems] == fields_wrong
    assert str(caught.value).startswith("cannot ")
    assert all(field.rpartition(".")[2] in str(caught.value) for field in fields_wrong)


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
    found = trigger_convert.from_event(EVENT, "events[0]")
    assert found == model.ReceivedEvent("ci", "7", "build.finished", "web", at, '{"version": "1.2.0"}')
    least = trigger_convert.from_event(trigger_pb2.Event(source="ci", id="7", type="t"), "events[0]")
    assert least == model.ReceivedEvent("ci", "7", "t", "", None, "{}")


def test_an_event_of_another_specification_is_refused() -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        trigger_convert.from_event(trigger_pb2.Event(source="ci", id="7", type="t", spec_version="0.3"), "events[3]")
    assert (caught.value.field, caught.value.rule) == ("events[3].spec_version", "1.0")


def test_an_event_of_no_year_is_refused() -> None:
    told = trigger_pb2.Event(source="ci", id="7", type="t", time=timestamp_pb2.Timestamp(seconds=1 << 50))
    with pytest.raises(errors.InvalidRequestError) as caught:
        trigger_convert.from_event(told, "events[0]")
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
    told = trigger_convert.firing(FIRING)
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
        assert trigger_convert.firing(replace(FIRING, state=state)).state
    for does in model.TriggerActionKind:
        assert trigger_convert.firing(replace(FIRING, does=does)).action


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
    told = trigger_convert.view(trigger, status).status
    assert {field.name for field, _ in told.ListFields()} == {field.name for field in told.DESCRIPTOR.fields}
    assert [one.node_id for one in told.signals] == ["", *sorted(node_ids)[:99]]
    assert (told.firings, told.raised, told.released_last_hour, told.debounced) == (3, 2, 2, 4)
    assert len(told.fault.ListFields()) == len(fields(model.EvaluationFault))
    assert len(trigger_convert.view(trigger, model.TriggerStatus(model.TriggerId("t-1"))).status.ListFields()) == 0


def test_the_definition_is_shown_with_what_the_controller_gave() -> None:
    trigger = model.Trigger(
        *(model.TriggerId("t-1"), "x", model.ByHand(), model.Notify()),
        revision=4,
        changed_at=AT,
        changed_by="ann",
    )
    told = trigger_convert.trigger(trigger)
    assert (told.trigger_id, told.revision, told.changed_by) == ("t-1", 4, "ann")
    assert convert.instant(told.change_time, "x") == AT


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
    )
    told = trigger_convert.explanation(value)
    assert {field.name for field, _ in told.ListFields()} == {field.name for field in told.DESCRIPTOR.fields}
    assert len(told.guards[0].ListFields()) == len(told.guards[0].DESCRIPTOR.fields)
    assert len(told.signals[0].ListFields()) == len(told.signals[0].DESCRIPTOR.fields)
    assert (told.headline, told.guards[0].message, told.signals[0].message) == ("it is ready", "it is open", "it holds")
    assert told.open[0] == trigger_convert.firing(FIRING)


def test_a_rehearsal_counts_what_would_have_acted() -> None:
    done = replace(FIRING, state=model.FiringState.SUCCEEDED)
    told = trigger_convert.rehearsal(rehearsing.Rehearsal(AT, AT + SECOND, (done, FIRING, done), ("so",)))
    assert (told.acted, len(told.firings), list(told.notes)) == (2, 3, ["so"])
    assert convert.instant(told.end_time, "x") - convert.instant(told.start_time, "x") == SECOND
