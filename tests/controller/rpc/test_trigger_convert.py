"""Triggers, firings and events between the wire and the core: total, and without loss."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import hypothesis
import pytest
from google.protobuf import duration_pb2
from hypothesis import strategies as st

from controller.core import errors, model
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
