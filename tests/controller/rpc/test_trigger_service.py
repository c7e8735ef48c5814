"""Triggers over real gRPC, before an engine that notes what it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller import clock
from controller.core import errors, model
from controller.core.triggers import explaining, rehearsing
from controller.engine import occasions
from controller.rpc import convert, firing_convert, trigger_convert
from instar.v1 import trigger_pb2, trigger_service_pb2
from tests.controller.rpc import scripted_engine, test_firing_convert
from tests.controller.rpc.scripted_engine import ACTOR

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
TRIGGER = model.Trigger(model.TriggerId("t-1"), "nightly", model.Schedule("0 3 * * *"), model.Notify("hello"))
WANTED = model.Trigger(model.TriggerId(""), "nightly", model.Schedule("0 3 * * *"), model.Notify("hello"))
STATUS = model.TriggerStatus(model.TriggerId("t-1"), number=3)
FIRING = test_firing_convert.FIRING
DAY = timedelta(days=1)


class StillClock(clock.SystemClock):
    """A clock that stands still."""

    def now(self) -> datetime:
        return NOW


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[scripted_engine.Stage]:
    async with scripted_engine.standing(tmp_path, StillClock()) as found:
        yield found


async def test_a_trigger_is_applied_by_who_shows_the_token(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["apply_trigger"] = TRIGGER
    request = trigger_service_pb2.ApplyTriggerRequest(trigger=trigger_convert.trigger(TRIGGER))
    answer = await stage.ask("ApplyTrigger", request)
    assert stage.engine.asked("apply_trigger") == ((WANTED,), {"actor": ACTOR})
    assert answer.trigger.trigger_id == "t-1"


async def test_all_that_is_wrong_in_a_definition_is_told_at_once(stage: scripted_engine.Stage) -> None:
    found = await stage.refused("ApplyTrigger", trigger_service_pb2.ApplyTriggerRequest())
    assert isinstance(found, errors.InvalidFieldsError)
    assert [one.field for one in found.problems] == ["when", "action"]


@pytest.mark.parametrize("verb", ["enable", "disable"])
async def test_a_trigger_is_enabled_and_disabled_with_a_reason(stage: scripted_engine.Stage, verb: str) -> None:
    stage.engine.answers[f"{verb}_trigger"] = TRIGGER
    name = f"{verb.capitalize()}Trigger"
    request = getattr(trigger_service_pb2, f"{name}Request")
    answer = await stage.ask(name, request(name="nightly", reason="lunch"))
    assert stage.engine.asked(f"{verb}_trigger") == (("nightly",), {"reason": "lunch", "actor": ACTOR})
    assert answer.trigger.name == "nightly"
    found = await stage.refused(name, request(name="nightly"))
    assert (found.code, found.field) == ("reason_invalid", "reason")
    assert str(found).startswith(f"cannot {verb} the trigger")


async def test_a_trigger_is_removed_with_a_reason(stage: scripted_engine.Stage) -> None:
    await stage.ask("RemoveTrigger", trigger_service_pb2.RemoveTriggerRequest(name="nightly", reason="old"))
    assert stage.engine.asked("remove_trigger") == (("nightly",), {"reason": "old", "actor": ACTOR})
    found = await stage.refused("RemoveTrigger", trigger_service_pb2.RemoveTriggerRequest(name="nightly"))
    assert found.code == "reason_invalid"


async def test_triggers_are_listed_by_name_each_with_how_it_stands(stage: scripted_engine.Stage) -> None:
    stage.engine.answers |= {"triggers": (TRIGGER,), "trigger": (TRIGGER, STATUS)}
    listed = await stage.ask("ListTriggers", trigger_service_pb2.ListTriggersRequest())
    assert [(one.trigger.name, one.status.firings) for one in listed.triggers] == [("nightly", 3)]
    found = await stage.ask("GetTrigger", trigger_service_pb2.GetTriggerRequest(name="nightly"))
    assert found.trigger == listed.triggers[0]
    stage.engine.answers["trigger"] = scripted_engine.not_found("trigger")
    unknown = await stage.refused("GetTrigger", trigger_service_pb2.GetTriggerRequest(name="x"))
    assert isinstance(unknown, errors.NotFoundError)


@pytest.mark.parametrize(("page_size", "limit"), [(0, 100), (7, 7), (5000, 1000)])
async def test_firings_are_listed_up_to_a_bound(stage: scripted_engine.Stage, page_size: int, limit: int) -> None:
    stage.engine.answers["firings"] = (FIRING,)
    request = trigger_service_pb2.ListFiringsRequest(trigger="nightly", page_size=page_size, only_open=True)
    answer = await stage.ask("ListFirings", request)
    assert stage.engine.asked("firings") == (("nightly", limit), {"only_open": True})
    assert [one.firing_id for one in answer.firings] == ["t-1.3"]


async def test_one_firing_is_found(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["firing"] = FIRING
    answer = await stage.ask("GetFiring", trigger_service_pb2.GetFiringRequest(firing_id="t-1.3"))
    assert stage.engine.asked("firing") == (("t-1.3",), {})
    assert answer.firing == firing_convert.firing(FIRING)


async def test_a_trigger_is_fired_by_hand_with_a_reason(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["fire_trigger"] = FIRING
    request = trigger_service_pb2.FireTriggerRequest(name="nightly", reason="now", request_id="ci-1")
    answer = await stage.ask("FireTrigger", request)
    asked = {"reason": "now", "actor": ACTOR, "request_id": "ci-1"}
    assert stage.engine.asked("fire_trigger") == (("nightly",), asked)
    assert answer.firing.number == 3


@pytest.mark.parametrize(
    ("field", "facts"),
    [
        ("reason", {"request_id": "a"}),
        ("request_id", {"reason": "now", "request_id": "x" * 129}),
        ("request_id", {"reason": "now", "request_id": "a\n"}),
    ],
)
async def test_a_trigger_is_not_fired_by_what_is_no_request(
    stage: scripted_engine.Stage, field: str, facts: dict[str, str]
) -> None:
    found = await stage.refused("FireTrigger", trigger_service_pb2.FireTriggerRequest(name="nightly", **facts))
    assert found.field == field


@pytest.mark.parametrize("verb", ["approve", "deny"])
async def test_a_firing_is_approved_and_denied_by_who_shows_the_token(stage: scripted_engine.Stage, verb: str) -> None:
    stage.engine.answers[f"{verb}_firing"] = FIRING
    name = f"{verb.capitalize()}Firing"
    request = getattr(trigger_service_pb2, f"{name}Request")
    for reason in ("looked at it", ""):
        answer = await stage.ask(name, request(firing_id="t-1.3", reason=reason))
        assert stage.engine.asked(f"{verb}_firing") == (("t-1.3",), {"reason": reason, "actor": ACTOR})
        assert answer.firing.firing_id == "t-1.3"
        stage.engine.calls.clear()
    found = await stage.refused(name, request(firing_id="t-1.3", reason="x" * 1025))
    assert found.field == "reason"


async def test_events_are_taken_together(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["receive"] = occasions.Receipt(1, 2, (FIRING.id,))
    event = trigger_pb2.Event(source="ci", id="7", type="built")
    request = trigger_service_pb2.SendEventsRequest(events=[event, trigger_pb2.Event(source="ci", id="8", type="t")])
    answer = await stage.ask("SendEvents", request)
    (events,), named = stage.engine.asked("receive")
    assert (events, named) == (
        [model.ReceivedEvent("ci", "7", "built"), model.ReceivedEvent("ci", "8", "t")],
        {"actor": ACTOR},
    )
    assert (answer.accepted, answer.duplicates, list(answer.firing_ids)) == (1, 2, ["t-1.3"])


async def test_of_events_of_which_one_is_none_none_is_taken(stage: scripted_engine.Stage) -> None:
    good = trigger_pb2.Event(source="ci", id="7", type="t")
    bad = trigger_pb2.Event(source="ci", id="8", type="t", spec_version="0.3")
    found = await stage.refused("SendEvents", trigger_service_pb2.SendEventsRequest(events=[good, bad]))
    assert found.field == "events[1].spec_version"


async def test_a_trigger_is_rehearsed_over_the_time_that_is_asked_for_and_else_over_a_week(
    stage: scripted_engine.Stage,
) -> None:
    stage.engine.answers["rehearse_trigger"] = rehearsing.Rehearsal(NOW - DAY, NOW, (FIRING,), ())
    request = trigger_service_pb2.TestTriggerRequest(trigger=trigger_convert.trigger(TRIGGER))
    answer = await stage.ask("TestTrigger", request)
    assert stage.engine.asked("rehearse_trigger") == ((WANTED, NOW - 7 * DAY, NOW), {})
    assert [one.firing_id for one in answer.rehearsal.firings] == ["t-1.3"]
    stage.engine.calls.clear()
    request.start_time.FromDatetime(NOW - 3 * DAY)
    request.end_time.FromDatetime(NOW - DAY)
    await stage.ask("TestTrigger", request)
    assert stage.engine.asked("rehearse_trigger") == ((WANTED, NOW - 3 * DAY, NOW - DAY), {})


async def test_why_a_trigger_does_nothing_is_explained(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["explain_trigger"] = explaining.Explanation("it is", (), (), 0, (), None, None, "never")
    answer = await stage.ask("ExplainTrigger", trigger_service_pb2.ExplainTriggerRequest(name="nightly"))
    assert stage.engine.asked("explain_trigger") == (("nightly",), {})
    assert (answer.explanation.headline, answer.explanation.next_chance) == ("it is", "never")


@pytest.mark.parametrize(
    ("field", "start", "end"),
    [("end_time", None, NOW + DAY), ("start_time", NOW, None), ("start_time", NOW - 32 * DAY, None)],
)
async def test_nothing_is_rehearsed_in_a_time_that_is_none(
    stage: scripted_engine.Stage, field: str, start: datetime | None, end: datetime | None
) -> None:
    request = trigger_service_pb2.TestTriggerRequest(
        trigger=trigger_convert.trigger(TRIGGER), start_time=convert.timestamp(start), end_time=convert.timestamp(end)
    )
    found = await stage.refused("TestTrigger", request)
    assert found.field == field
