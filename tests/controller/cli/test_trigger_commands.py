"""`instar trigger` and `instar event`: what they ask, what they print, how they end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import timestamp_pb2

from controller.cli import connection, failures
from controller.core import errors
from instar.v1 import rollout_pb2, trigger_pb2, trigger_service_pb2
from tests.controller.cli import scripted, test_trigger_files

NOON = timestamp_pb2.Timestamp(seconds=int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()))
TRIGGER = trigger_pb2.Trigger(
    trigger_id="t-1",
    name="nightly",
    kind=trigger_pb2.TRIGGER_KIND_SCHEDULE,
    schedule=trigger_pb2.Schedule(cron="0 3 * * *", time_zone="Europe/Berlin", missed=trigger_pb2.MISSED_POLICY_ONCE),
    upgrade=rollout_pb2.UpgradeRequest(component="web", target_version="stable"),
    guards=trigger_pb2.Guards(firings_per_hour_max=6, windows=[rollout_pb2.Window()]),
    enabled=True,
    description="every night",
    revision=2,
    change_time=NOON,
    changed_by="ann",
)
TRIGGER.guards.cooldown.FromSeconds(600)
FIRING = trigger_pb2.Firing(
    firing_id="t-1.3",
    trigger="nightly",
    state=trigger_pb2.FIRING_STATE_APPROVAL_AWAITED,
    action=trigger_pb2.TRIGGER_ACTION_KIND_UPGRADE,
    cause=trigger_pb2.Cause(message="it was due"),
    fire_time=NOON,
    message="somebody has to approve it",
    approval=trigger_pb2.FiringApproval(expire_time=NOON, state=rollout_pb2.APPROVAL_STATE_WAITING),
)
ENDED = trigger_pb2.Firing(
    firing_id="t-1.2",
    trigger="nightly",
    state=trigger_pb2.FIRING_STATE_SUCCEEDED,
    action=trigger_pb2.TRIGGER_ACTION_KIND_UPGRADE,
    cause=trigger_pb2.Cause(message="it was due"),
    fire_time=NOON,
    approval=trigger_pb2.FiringApproval(state=rollout_pb2.APPROVAL_STATE_APPROVED, decider="bob"),
    rollout_id="r-7",
)
VIEW = trigger_pb2.TriggerView(
    trigger=TRIGGER,
    status=trigger_pb2.TriggerStatus(
        firings=3,
        open=[FIRING],
        next_run_time=NOON,
        signals=[trigger_pb2.Signal(node_id="n-1", since_time=NOON), trigger_pb2.Signal(since_time=NOON)],
        seen_version="1.2.0",
        fault=trigger_pb2.EvaluationFault(code="no_metrics", message="there is nothing", count=2),
    ),
)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stdout, each with single blanks."""
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_each_trigger_of_a_file_is_applied_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = test_trigger_files.write(tmp_path, test_trigger_files.GOOD)
    answer = trigger_service_pb2.ApplyTriggerResponse(trigger=TRIGGER)
    with scripted.controller(triggers_ApplyTrigger=answer) as controller:
        assert scripted.instar("trigger", "apply", "-f", file) == 0
        assert [request.trigger.name for _, request in controller.asked] == ["hot", "slow", "by hand"]
        assert lines(capsys)[2:] == ["nightly SCHEDULE UPGRADE web stable yes 2 ann"] * 3
        assert scripted.instar("trigger", "apply", "-f", file, "-o", "json") == 0
    shown = json.loads(capsys.readouterr().out)["triggers"]
    assert [one["when"]["schedule"]["missed"] for one in shown] == ["ONCE"] * 3


def test_nothing_is_sent_of_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = test_trigger_files.write(tmp_path, test_trigger_files.WRONG)
    with scripted.controller() as controller:
        for command in (("trigger", "apply", "-f", file), ("trigger", "test", file)):
            assert scripted.instar(*command) == 2
            assert f"{file}:7: when.threshold.pending_for: 'soon' must be a number" in capsys.readouterr().err
    assert controller.asked == []


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that refuses all but one trigger."""
    problems = [
        errors.InvalidRequestError("cannot accept it: when.x '1' must be 2", code="x", field="when.x"),
        errors.InvalidRequestError("cannot know it", code="x", field="action.rollback.component"),
    ]

    def answer(_address: str, _token_file: object, _method: str, request: Any) -> object:  # noqa: ANN401  # any request
        if request.trigger.name == "slow":
            return trigger_service_pb2.ApplyTriggerResponse(trigger=request.trigger)
        if request.trigger.name == "hot":
            raise failures.of_controller(errors.InvalidFieldsError("cannot accept trigger hot", problems[:1]))
        raise failures.of_controller(problems[1])

    monkeypatch.setattr(connection, "answer", answer)


@pytest.mark.usefixtures("refusing")
def test_what_the_controller_refuses_is_told_at_once_with_its_lines_and_the_rest_is_applied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = test_trigger_files.write(tmp_path, test_trigger_files.GOOD)
    assert scripted.instar("trigger", "apply", "-f", file, "-o", "json") == 8
    printed = capsys.readouterr()
    assert [one["name"] for one in json.loads(printed.out)["triggers"]] == ["slow"]
    assert printed.err.splitlines() == [
        f"cannot use {file}:",
        f"{file}:7: when.x: '1' must be 2",
        f"{file}:34: action.rollback.component: cannot know it",
    ]
    assert scripted.instar("trigger", "test", file) == 8
    assert f"{file}:7: when.x: '1' must be 2" in capsys.readouterr().err


def test_a_controller_that_is_not_there_ends_an_apply_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*_: object) -> object:
        raise failures.of_controller(errors.UnavailableError("cannot reach the controller", code="x"))

    monkeypatch.setattr(connection, "answer", answer)
    file = test_trigger_files.write(tmp_path, test_trigger_files.GOOD)
    for command in (("trigger", "apply", "-f", file), ("trigger", "test", file)):
        assert scripted.instar(*command) == 7
        assert capsys.readouterr().err.startswith("cannot reach the controller")


def test_triggers_are_listed_and_shown_with_how_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = trigger_pb2.TriggerView(trigger=trigger_pb2.Trigger(name="q", rollback=trigger_pb2.Rollback(component="w")))
    raised = trigger_pb2.TriggerView(status=trigger_pb2.TriggerStatus(firing=True))
    pending = trigger_pb2.TriggerView(status=trigger_pb2.TriggerStatus(signals=[trigger_pb2.Signal()]))
    waiting = trigger_pb2.TriggerView(status=trigger_pb2.TriggerStatus(debounced=4))
    listed = trigger_service_pb2.ListTriggersResponse(triggers=[VIEW, quiet, raised, pending, waiting])
    found = trigger_service_pb2.GetTriggerResponse(trigger=VIEW)
    with scripted.controller(triggers_ListTriggers=listed, triggers_GetTrigger=found) as controller:
        assert scripted.instar("trigger", "list") == 0
        assert lines(capsys)[2:] == [
            "nightly SCHEDULE UPGRADE web stable yes fails: no_metrics 3 1 2026-03-01 12:00:00 ann",
            "q - ROLLBACK w no quiet 0 0 - -",
            "- - no raised 0 0 - -",
            "- - no pending on 1 0 0 - -",
            "- - no 4 events wait 0 0 - -",
        ]
        assert scripted.instar("trigger", "list", "-o", "json") == 0
        document = json.loads(capsys.readouterr().out)["triggers"][0]
        assert (document["action"]["upgrade"]["component"], document["status"]["firings"]) == ("web", 3)
        assert scripted.instar("trigger", "show", "nightly") == 0
        assert controller.last.name == "nightly"
        shown = lines(capsys)
        assert scripted.instar("trigger", "show", "nightly", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == document
    for line in (
        "nightly (t-1): SCHEDULE, UPGRADE web stable, enabled",
        "every night",
        "when.schedule.missed: ONCE",
        "guards.windows: 1",
        "guards.cooldown: 10m",
        "available: 1.2.0",
        "its evaluation has failed 2 times: there is nothing",
        "n-1 2026-03-01 12:00:00 - -",
        "(fleet) 2026-03-01 12:00:00 - -",
        "revision 2, 2026-03-01 12:00:00 by ann",
    ):
        assert line in shown
    assert any(line.startswith("t-1.3 nightly APPROVAL_AWAITED") for line in shown)


@pytest.mark.parametrize("verb", ["enable", "disable"])
def test_a_trigger_is_switched_with_a_reason(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    method = f"{verb.capitalize()}Trigger"
    answer = getattr(trigger_service_pb2, f"{method}Response")(trigger=TRIGGER)
    with scripted.controller(**{f"triggers_{method}": answer}) as controller:
        assert scripted.instar("trigger", verb, "nightly", "--reason", "lunch") == 0
        assert (controller.last.name, controller.last.reason) == ("nightly", "lunch")
        assert "nightly SCHEDULE UPGRADE web stable yes 2 ann" in lines(capsys)
        assert scripted.instar("trigger", verb, "nightly", "--reason", "lunch", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out)["when"]["schedule"]["cron"] == "0 3 * * *"
        assert scripted.instar("trigger", verb, "nightly") == 2


def test_a_trigger_is_removed_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    answer = trigger_service_pb2.RemoveTriggerResponse()
    with scripted.controller(triggers_RemoveTrigger=answer) as controller:
        assert scripted.instar("trigger", "remove", "nightly", "--reason", "old") == 0
        assert (controller.last.name, controller.last.reason) == ("nightly", "old")
        assert lines(capsys) == ["removed: nightly"]
        assert scripted.instar("trigger", "remove", "nightly", "--reason", "old", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == {"name": "nightly"}


def test_a_trigger_is_fired_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    answer = trigger_service_pb2.FireTriggerResponse(firing=FIRING)
    with scripted.controller(triggers_FireTrigger=answer) as controller:
        assert scripted.instar("trigger", "fire", "nightly", "--reason", "now", "--request-id", "ci-1") == 0
        asked = controller.last
        assert (asked.name, asked.reason, asked.request_id) == ("nightly", "now", "ci-1")
        assert lines(capsys)[2] == (
            "t-1.3 nightly APPROVAL_AWAITED UPGRADE 2026-03-01 12:00:00 it was due somebody has to approve it"
            " waiting until 2026-03-01 12:00:00 -"
        )
        assert scripted.instar("trigger", "fire", "nightly", "--reason", "now", "-o", "json") == 0
        assert controller.last.request_id == ""
        assert json.loads(capsys.readouterr().out)["state"] == "APPROVAL_AWAITED"


def test_one_firing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    answer = trigger_service_pb2.GetFiringResponse(firing=FIRING)
    with scripted.controller(triggers_GetFiring=answer) as controller:
        assert scripted.instar("trigger", "firing", FIRING.firing_id, "-o", "json") == 0
        assert controller.last.firing_id == FIRING.firing_id
    assert json.loads(capsys.readouterr().out)["firing_id"] == FIRING.firing_id


def test_firings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    answer = trigger_service_pb2.ListFiringsResponse(firings=[FIRING, ENDED])
    with scripted.controller(triggers_ListFirings=answer) as controller:
        assert scripted.instar("trigger", "firings") == 0
        assert (controller.last.trigger, controller.last.page_size, controller.last.only_open) == ("", 100, False)
        assert lines(capsys)[3] == (
            "t-1.2 nightly SUCCEEDED UPGRADE 2026-03-01 12:00:00 it was due - approved by bob r-7"
        )
        assert scripted.instar("trigger", "firings", "nightly", "--open", "--limit", "7", "-o", "json") == 0
        assert (controller.last.trigger, controller.last.page_size, controller.last.only_open) == ("nightly", 7, True)
        assert len(json.loads(capsys.readouterr().out)["firings"]) == 2


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_a_firing_is_decided_with_or_without_a_reason(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    method = f"{verb.capitalize()}Firing"
    answer = getattr(trigger_service_pb2, f"{method}Response")(firing=FIRING)
    with scripted.controller(**{f"triggers_{method}": answer}) as controller:
        assert scripted.instar("trigger", verb, "t-1.3", "--reason", "looked") == 0
        assert (controller.last.firing_id, controller.last.reason) == ("t-1.3", "looked")
        assert scripted.instar("trigger", verb, "t-1.3", "-o", "json") == 0
        assert controller.last.reason == ""
    assert '"firing_id": "t-1.3"' in capsys.readouterr().out


def test_why_a_trigger_does_nothing_is_told_guard_by_guard(capsys: pytest.CaptureFixture[str]) -> None:
    told = trigger_pb2.Explanation(
        headline="it is quiet",
        signals=[trigger_pb2.SignalLine(node_id="n-1", message="holds"), trigger_pb2.SignalLine(message="is over")],
        signals_left_out=3,
        open=[FIRING],
        guards=[
            trigger_pb2.GuardLine(name="enabled", open=True, message="it is"),
            trigger_pb2.GuardLine(name="cooldown", message="it has just fired", open_time=NOON),
        ],
        next_chance="at noon",
    )
    answer = trigger_service_pb2.ExplainTriggerResponse(explanation=told)
    with scripted.controller(triggers_ExplainTrigger=answer):
        assert scripted.instar("trigger", "explain", "nightly") == 0
        shown = lines(capsys)
        assert shown[:4] == ["it is quiet", "on n-1: holds", "on the fleet: is over", "and on 3 more"]
        assert shown[6:8] == ["enabled open it is -", "cooldown shut it has just fired 2026-03-01 12:00:00"]
        assert shown[10].startswith("t-1.3 nightly APPROVAL_AWAITED")
        assert shown[-1] == "next chance: at noon"
        assert scripted.instar("trigger", "explain", "nightly", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out)["guards"][1]["name"] == "cooldown"


def test_a_file_is_rehearsed_over_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = test_trigger_files.write(tmp_path, test_trigger_files.GOOD)
    told = trigger_pb2.Rehearsal(
        start_time=NOON,
        end_time=NOON,
        acted=1,
        firings=[
            trigger_pb2.Firing(fire_time=NOON, state=trigger_pb2.FIRING_STATE_SUCCEEDED, message="done"),
            trigger_pb2.Firing(fire_time=NOON, cause=trigger_pb2.Cause(message="it was hot")),
        ],
        notes=["nothing is kept of before"],
    )
    answer = trigger_service_pb2.TestTriggerResponse(rehearsal=told)
    with scripted.controller(triggers_TestTrigger=answer) as controller:
        assert scripted.instar("trigger", "test", file, "--since", "2026-03-01T12:00Z") == 0
        assert len(controller.asked) == 3
        assert controller.last.start_time == NOON
        assert lines(capsys)[:6] == [
            "hot would have fired 2 times between 2026-03-01 12:00:00 and 2026-03-01 12:00:00, and acted 1 times",
            *("FIRED STATE BECAUSE STANDS", "─" * 53),
            "2026-03-01 12:00:00 SUCCEEDED done",
            "2026-03-01 12:00:00 - it was hot -",
            "note: nothing is kept of before",
        ]
        before = datetime.now(UTC) - timedelta(days=2)  # noqa: TID251  # the command reads the same clock
        assert scripted.instar("trigger", "test", file, "--since", "2d", "-o", "json") == 0
        assert abs(controller.last.start_time.ToDatetime(UTC) - before) < timedelta(minutes=5)
        assert [one["name"] for one in json.loads(capsys.readouterr().out)["triggers"]] == ["hot", "slow", "by hand"]
        assert scripted.instar("trigger", "test", file, "--since", "long ago") == 2


def test_an_event_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    answer = trigger_service_pb2.SendEventsResponse(accepted=1, firing_ids=["t-1.3"])
    basic = ("event", "send", "--source", "ci", "--type", "built")
    with scripted.controller(triggers_SendEvents=answer) as controller:
        more = ("--id", "7", "--subject", "web", "--time", "2026-03-01T12:00Z", "--data", '{"a": 1}')
        assert scripted.instar(*basic, *more) == 0
        assert lines(capsys) == ["taken: ci 7; firings: t-1.3"]
        [event] = controller.last.events
        told = trigger_pb2.Event(source="ci", id="7", spec_version="1.0", type="built", subject="web", data='{"a": 1}')
        told.time.CopyFrom(NOON)
        assert event == told
        assert scripted.instar(*basic, "-o", "json") == 0
        assert json.loads(capsys.readouterr().out)["id"] == controller.last.events[0].id != "7"
    known = trigger_service_pb2.SendEventsResponse(duplicates=1)
    with scripted.controller(triggers_SendEvents=known):
        assert scripted.instar(*basic, "--id", "7") == 0
        assert lines(capsys) == ["known already: ci 7; firings: none"]
