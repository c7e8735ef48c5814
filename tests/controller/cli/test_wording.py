"""What the commands of operators say to the controller, and what they print of its answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import timestamp_pb2

from controller.cli import failures, watching
from instar.v1 import (
    fleet_service_pb2,
    node_pb2,
    operation_pb2,
    release_pb2,
    release_service_pb2,
    rollout_pb2,
    rollout_service_pb2,
)
from tests.controller.cli import scripted

NOON = timestamp_pb2.Timestamp(seconds=int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()))
NODE = node_pb2.Node(node_id="n-1", labels={"zone": "b"}, cordon_reason="disk", quarantine_reason="odd answers")
ROLLOUT = rollout_pb2.Rollout(
    rollout_id="r-1",
    name="spring",
    state=rollout_pb2.ROLLOUT_STATE_PAUSED,
    waiting_for="ann paused it: lunch",
    pause_time=NOON,
    create_time=NOON,
    plan=rollout_pb2.Plan(waves=[rollout_pb2.Wave(index=1, purpose="hop over 1.1.0")]),
    wave=1,
    changes=[
        rollout_pb2.ChangeProgress(
            change=rollout_pb2.Change(node_id="n-1", component="web", to_version="1.1.0"),
            wave=1,
            state=operation_pb2.OPERATION_STATE_HELD,
            step=operation_pb2.STEP_COMMIT,
        )
    ],
)
ROLLOUT.stopped_for.FromTimedelta(timedelta(minutes=5))
REASONS = [
    rollout_service_pb2.Reason(code="waits", message="n-1 is not upgraded yet"),
    rollout_service_pb2.Reason(code="paused", message="ann paused it", since_time=NOON),
]
FREEZE = fleet_service_pb2.Freeze(freeze_id="f-1", start_time=NOON, reason="holidays", actor="ann", emergency=True)
GRAPH = release_pb2.VersionGraph(
    component="web",
    edges=[
        release_pb2.Edge(
            from_versions="<2.0.0",
            to_version="2.0.0",
            methods=[operation_pb2.METHOD_RESTART],
            cost=7,
            no_return=True,
            condition="node.connected",
            blocked_reason="it eats disks",
        )
    ],
    barriers=[release_pb2.Barrier(version="1.4.0")],
    channels=[release_pb2.Channel(name="stable", version="1.4.0", change_time=NOON, actor="ann")],
)
GRAPH.barriers[0].bake_duration.FromTimedelta(timedelta(hours=1))


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stdout, each with single blanks."""
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def document(capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401  # the test knows what it asked for
    return json.loads(capsys.readouterr().out)


VERBS = ("pause", "resume", "promote", "cancel", "revert", "retry")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_says_which_rollout_and_why(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{verb.capitalize()}Rollout"
    answer = getattr(rollout_service_pb2, f"{name}Response")(rollout=ROLLOUT)
    with scripted.controller(**{f"rollouts_{name}": answer}) as controller:
        assert scripted.instar("rollout", verb, "spring", "--reason", "lunch", "-o", "json") == 0
        assert document(capsys)["rollout_id"] == "r-1"
        assert (controller.last.rollout, controller.last.reason) == ("spring", "lunch")
        assert scripted.instar("rollout", verb, "spring") == failures.Exit.USAGE
    assert "--reason" in capsys.readouterr().err


def test_a_rollout_is_shown_with_what_it_waits_for_and_with_its_stopped_clock(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with scripted.controller(rollouts_GetRollout=rollout_service_pb2.GetRolloutResponse(rollout=ROLLOUT)):
        assert scripted.instar("rollout", "show", "spring") == 0
    lines = printed(capsys)
    for line in (
        "spring (r-1) PAUSED, 0 of 1 done",
        "1 hop over 1.1.0 n-1 - web 1.1.0 HELD COMMIT",
        "nothing more starts: ann paused it: lunch",
        "paused since 2026-03-01 12:00:00",
        "its clock has stood still for 5m",
    ):
        assert any(line in one for one in lines), lines


@pytest.mark.parametrize(
    ("arguments", "method", "asked"),
    [
        (("rollout", "explain", "spring"), "rollouts_ExplainRollout", {"rollout": "spring", "node_id": ""}),
        (
            ("rollout", "explain", "spring", "--node", "n-1"),
            "rollouts_ExplainRollout",
            {"rollout": "spring", "node_id": "n-1"},
        ),
        (("node", "explain", "n-1"), "fleet_ExplainNode", {"node_id": "n-1"}),
    ],
)
def test_why_is_told_link_by_link(
    arguments: tuple[str, ...], method: str, asked: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = rollout_service_pb2.ExplainRolloutResponse(reasons=REASONS)
    with scripted.controller(**{method: answer}) as controller:
        assert scripted.instar(*arguments) == 0
        told = capsys.readouterr().out.splitlines()
        assert told == ["n-1 is not upgraded yet", "  because: ann paused it (since 2026-03-01 12:00:00)"]
        assert {field.name: value for field, value in controller.last.ListFields()} == {
            name: value for name, value in asked.items() if value
        }
        assert scripted.instar(*arguments, "-o", "json") == 0
    assert [one["code"] for one in document(capsys)["reasons"]] == ["waits", "paused"]


@pytest.mark.parametrize(
    ("arguments", "method", "asked"),
    [
        (
            ("label", "n-1", "zone=b", "tier=", "old-"),
            "LabelNode",
            fleet_service_pb2.LabelNodeRequest(node_id="n-1", labels={"zone": "b", "tier": ""}, removed_keys=["old"]),
        ),
        (
            ("cordon", "n-1", "--reason", "disk"),
            "CordonNode",
            fleet_service_pb2.CordonNodeRequest(node_id="n-1", reason="disk"),
        ),
        (("uncordon", "n-1"), "UncordonNode", fleet_service_pb2.UncordonNodeRequest(node_id="n-1")),
        (
            ("quarantine", "n-1", "--reason", "odd"),
            "QuarantineNode",
            fleet_service_pb2.QuarantineNodeRequest(node_id="n-1", reason="odd"),
        ),
    ],
)
def test_a_decision_on_a_node_is_told_and_the_node_is_shown(
    arguments: tuple[str, ...], method: str, asked: object, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = fleet_service_pb2.GetNodeResponse(node=NODE)
    with scripted.controller(**{f"fleet_{method}": answer}) as controller:
        assert scripted.instar("node", *arguments) == 0
        assert controller.last == asked
        assert any("cordoned: disk; quarantined: odd answers" in line for line in printed(capsys))
        assert scripted.instar("node", *arguments, "-o", "json") == 0
    assert document(capsys)["cordon_reason"] == "disk"


@pytest.mark.parametrize("text", ["zone", ""])
def test_a_label_is_set_or_taken_away(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller() as controller:
        assert scripted.instar("node", "label", "n-1", text) == failures.Exit.USAGE
    assert controller.asked == []
    assert "KEY=VALUE" in capsys.readouterr().err


def test_a_node_is_forgotten_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller(fleet_RemoveNode=fleet_service_pb2.RemoveNodeResponse()) as controller:
        assert scripted.instar("node", "remove", "n-1", "--reason", "scrapped") == 0
        assert printed(capsys) == ["removed: n-1"]
        assert scripted.instar("node", "remove", "n-1", "--reason", "scrapped", "-o", "json") == 0
    assert document(capsys) == {"node_id": "n-1"}
    assert controller.last == fleet_service_pb2.RemoveNodeRequest(node_id="n-1", reason="scrapped")


def test_the_work_of_the_fleet_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    counted = fleet_service_pb2.Statistics(queued=1, active=2, completed=3, refused=10)
    with scripted.controller(fleet_GetStatistics=fleet_service_pb2.GetStatisticsResponse(statistics=counted)):
        assert scripted.instar("fleet", "stats") == 0
        lines = printed(capsys)
        assert {"changes that wait 1", "requests refused 10", "mean time to permanent -"} <= set(lines)
        counted.mean_duration.FromTimedelta(timedelta(seconds=90))
    with scripted.controller(fleet_GetStatistics=fleet_service_pb2.GetStatisticsResponse(statistics=counted)):
        assert scripted.instar("fleet", "stats") == 0
        assert "mean time to permanent 1m 30s" in printed(capsys)
        assert scripted.instar("fleet", "stats", "-o", "json") == 0
    shown = document(capsys)
    assert (shown["completed"], shown["mean_duration"]) == (3, "90s")


def test_the_rules_of_the_monitor_are_shown_with_where_they_fire(capsys: pytest.CaptureFixture[str]) -> None:
    answer = fleet_service_pb2.ListRuleStatesResponse(
        rules=[fleet_service_pb2.Rule(name="queue", component="web", condition="queue above 5", firing=1)],
        standings=[
            fleet_service_pb2.RuleStanding(
                rule="queue", node_id="n-1", state=fleet_service_pb2.RULE_STATE_FIRING, value=7.25
            ),
            fleet_service_pb2.RuleStanding(rule="all", state=fleet_service_pb2.RULE_STATE_UNKNOWN),
        ],
        left_out=3,
    )
    with scripted.controller(fleet_ListRuleStates=answer) as controller:
        assert scripted.instar("fleet", "rules", "--rule", "queue", "--node", "n-1") == 0
        lines = printed(capsys)
    assert controller.last == fleet_service_pb2.ListRuleStatesRequest(rule="queue", node_id="n-1")
    assert "queue web queue above 5 0s 1 0 0" in lines
    assert any(line.startswith("queue n-1 FIRING") and line.endswith("7.25") for line in lines)
    assert any(line.startswith("all (fleet) UNKNOWN") and line.endswith("-") for line in lines)
    assert "and 3 more" in lines
    assert any(line.startswith("nobody has looked yet") for line in lines)
    with scripted.controller(fleet_ListRuleStates=answer):
        assert scripted.instar("fleet", "rules", "-o", "json") == 0
    assert document(capsys)["standings"][0]["state"] == "FIRING"


def test_a_freeze_has_its_nodes_its_times_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    answer = fleet_service_pb2.AddFreezeResponse(freeze=FREEZE)
    with scripted.controller(fleet_AddFreeze=answer) as controller:
        arguments = ("freeze", "add", "-l", "zone=a", "--reason", "holidays", "--since", "2026-12-24T18:00+01:00")
        assert scripted.instar(*arguments, "--for", "48h") == 0
        assert any("f-1 all nodes 2026-03-01 12:00:00 until it is lifted" in line for line in printed(capsys))
        asked = controller.last.freeze
        assert (asked.selector, asked.reason) == ("zone=a", "holidays")
        assert asked.start_time.ToDatetime(UTC) == datetime(2026, 12, 24, 17, tzinfo=UTC)
        assert asked.end_time.ToDatetime(UTC) == datetime(2026, 12, 26, 17, tzinfo=UTC)
        assert scripted.instar(*arguments, "--until", "2026-12-25T00:00Z", "-o", "json") == 0
        assert document(capsys)["emergency"] is True
        assert controller.last.freeze.end_time.ToDatetime(UTC) == datetime(2026, 12, 25, tzinfo=UTC)
        assert scripted.instar("freeze", "add", "--reason", "holidays") == 0
        assert not controller.last.freeze.HasField("start_time")
        assert not controller.last.freeze.HasField("end_time")


def test_a_freeze_that_is_to_last_begins_now_where_it_does_not_say() -> None:
    with scripted.controller(fleet_AddFreeze=fleet_service_pb2.AddFreezeResponse()) as controller:
        assert scripted.instar("freeze", "add", "--reason", "holidays", "--for", "1h") == 0
    asked = controller.last.freeze
    assert not asked.HasField("start_time")
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    assert 3500 < asked.end_time.seconds - now.seconds <= 3600


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--until", "2026-12-25T00:00Z", "--for", "1h"), "--for"),
        (("--until", "soon"), "--until"),
        (("--since", "soon"), "--since"),
        (("--for", "soon"), "--for"),
    ],
)
def test_times_of_a_freeze_that_mean_nothing_are_refused(
    options: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted.controller() as controller:
        assert scripted.instar("freeze", "add", "--reason", "holidays", *options) == failures.Exit.USAGE
    assert controller.asked == []
    assert f"cannot use {word}" in capsys.readouterr().err


def test_freezes_are_listed_and_lifted(capsys: pytest.CaptureFixture[str]) -> None:
    answers = {
        "fleet_ListFreezes": fleet_service_pb2.ListFreezesResponse(freezes=[FREEZE]),
        "fleet_RemoveFreeze": fleet_service_pb2.RemoveFreezeResponse(),
    }
    with scripted.controller(**answers) as controller:
        assert scripted.instar("freeze", "list") == 0
        assert any("emergency ann holidays" in line for line in printed(capsys))
        assert scripted.instar("freeze", "list", "-o", "json") == 0
        assert [one["freeze_id"] for one in document(capsys)["freezes"]] == ["f-1"]
        assert scripted.instar("freeze", "remove", "f-1", "--reason", "over") == 0
        assert printed(capsys) == ["lifted: f-1"]
        assert controller.last == fleet_service_pb2.RemoveFreezeRequest(freeze_id="f-1", reason="over")
        assert scripted.instar("freeze", "remove", "f-1", "--reason", "over", "-o", "json") == 0
        assert document(capsys) == {"freeze_id": "f-1"}


def test_a_graph_is_shown_with_all_that_is_declared(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller(releases_GetGraph=release_service_pb2.GetGraphResponse(graph=GRAPH)) as controller:
        assert scripted.instar("release", "graph", "show", "web") == 0
        assert controller.last.component == "web"
    lines = printed(capsys)
    for line in (
        "<2.0.0 2.0.0 RESTART 7 no node.connected it eats disks",
        "1.4.0 1h",
        "stable 1.4.0 2026-03-01 12:00:00 ann",
    ):
        assert line in lines, lines


TOML = """
component = "web"
[[edges]]
to_version = "2.0.0"
from_versions = "<2.0.0"
methods = ["RESTART"]
no_return = true
cost = 7
condition = "node.connected"
blocked_reason = "it eats disks"
[[barriers]]
version = "1.4.0"
bake_duration = "1h"
"""


def test_a_graph_is_declared_by_what_showing_it_prints_or_by_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "releases_GetGraph": release_service_pb2.GetGraphResponse(graph=GRAPH),
        "releases_PutGraph": release_service_pb2.PutGraphResponse(graph=GRAPH),
    }
    with scripted.controller(**answers) as controller:
        assert scripted.instar("release", "graph", "show", "web", "-o", "json") == 0
        shown, written = tmp_path / "graph.json", tmp_path / "graph.toml"
        shown.write_text(capsys.readouterr().out)
        assert scripted.instar("release", "graph", "set", shown) == 0
        assert controller.last.graph == GRAPH
        written.write_text(TOML)
        assert scripted.instar("release", "graph", "set", written) == 0
        assert controller.last.graph == release_pb2.VersionGraph(
            component="web", edges=GRAPH.edges, barriers=GRAPH.barriers
        )


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("g.json", "{", "FILE"),
        ("g.toml", "{", "FILE"),
        ("g.json", "[]", "graph"),
        ("g.toml", 'colour = "red"', "graph"),
    ],
)
def test_a_file_that_holds_no_graph_is_refused(
    tmp_path: Path, name: str, text: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    with scripted.controller() as controller:
        assert scripted.instar("release", "graph", "set", tmp_path / name) == failures.Exit.USAGE
        assert scripted.instar("release", "graph", "set", tmp_path / "none") == failures.Exit.USAGE
    assert controller.asked == []
    assert f"cannot use {word}" in capsys.readouterr().err


def test_a_release_is_blocked_with_a_reason_or_opened_again(capsys: pytest.CaptureFixture[str]) -> None:
    answer = release_service_pb2.BlockReleaseResponse(graph=GRAPH)
    with scripted.controller(releases_BlockRelease=answer) as controller:
        assert scripted.instar("release", "block", "web", "2.0.0", "--reason", "it eats disks") == 0
        asked = release_service_pb2.BlockReleaseRequest(component="web", version="2.0.0", reason="it eats disks")
        assert controller.last == asked
        assert any("it eats disks" in line for line in printed(capsys))
        assert scripted.instar("release", "block", "web", "2.0.0", "--lift", "-o", "json") == 0
        assert controller.last.reason == ""
        assert document(capsys)["component"] == "web"
        for options in ((), ("--lift", "--reason", "x")):
            assert scripted.instar("release", "block", "web", "2.0.0", *options) == failures.Exit.USAGE
        assert len(controller.asked) == 2


def test_a_channel_is_moved(capsys: pytest.CaptureFixture[str]) -> None:
    answer = release_service_pb2.PromoteReleaseResponse(channel=GRAPH.channels[0])
    with scripted.controller(releases_PromoteRelease=answer) as controller:
        assert scripted.instar("release", "promote", "web", "1.4.0", "stable") == 0
        assert "stable 1.4.0 2026-03-01 12:00:00 ann" in printed(capsys)
        assert scripted.instar("release", "promote", "web", "1.4.0", "stable", "-o", "json") == 0
    assert document(capsys)["version"] == "1.4.0"
    asked = release_service_pb2.PromoteReleaseRequest(component="web", version="1.4.0", channel="stable")
    assert controller.last == asked


def test_an_emergency_says_what_where_why_and_within_which_time(capsys: pytest.CaptureFixture[str]) -> None:
    answer = rollout_service_pb2.RollBackEmergencyResponse(rollouts=[ROLLOUT], freeze_id="f-1")
    with scripted.controller(rollouts_RollBackEmergency=answer) as controller:
        assert scripted.instar("rollback", "emergency", "--reason", "fire") == 0
        assert controller.last == rollout_service_pb2.RollBackEmergencyRequest(reason="fire")
        lines = printed(capsys)
        assert any("r-1 spring PAUSED" in line for line in lines)
        assert any("instar freeze remove f-1" in line for line in lines)
        options = ("--component", "web", "-l", "zone=a", "--within", "90s", "--reason", "fire", "-o", "json")
        assert scripted.instar("rollback", "emergency", *options) == 0
        assert (controller.last.component, controller.last.selector) == ("web", "zone=a")
        assert controller.last.time_limit.seconds == 90
        assert document(capsys)["freeze_id"] == "f-1"
        for wrong in (("--within", "soon", "--reason", "fire"), (), ("--reason", "fire", "--timeout", "soon")):
            assert scripted.instar("rollback", "emergency", *wrong) == failures.Exit.USAGE
        assert len(controller.asked) == 2


@pytest.mark.parametrize(
    ("states", "has_ended", "code"),
    [
        (("REVERTED", "REVERTED"), True, failures.Exit.OK),
        ((), True, failures.Exit.OK),
        (("REVERTED", "STUCK"), True, failures.Exit.FAILED),
        (("REVERTING",), False, failures.Exit.WAIT_TIMED_OUT),
    ],
)
def test_an_emergency_is_over_well_when_all_of_it_is_back(
    states: tuple[str, ...],
    has_ended: bool,  # noqa: FBT001  # a case of the table
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = [rollout_pb2.Rollout(state=rollout_pb2.RolloutState.Value(f"ROLLOUT_STATE_{one}")) for one in states]
    watched = watching.Watched(seen, has_ended)
    monkeypatch.setattr(watching, "follow_all", lambda *_arguments: watched)
    answer = rollout_service_pb2.RollBackEmergencyResponse(rollouts=[ROLLOUT] * len(states), freeze_id="f-1")
    with scripted.controller(rollouts_RollBackEmergency=answer):
        assert scripted.instar("rollback", "emergency", "--reason", "fire", "--watch", "-o", "json") == code
    assert [one["state"] for one in document(capsys)["rollouts"]] == list(states)
