from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.cli.demo import figures, receiver, report
from instar.v1 import rollout_pb2

SUCCEEDED = rollout_pb2.ROLLOUT_STATE_SUCCEEDED
AGENTS = report.Agents(
    expected_version="0.1.1",
    versions={"0.1.1": 2},
    component_versions={"0.1.1": 2},
    late_keepers=[],
    moved_keepers=[],
    moved_services=[],
)


def span(number: int, parent_id: str, node_id: str) -> receiver.Span:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return receiver.Span("aa", f"{number:02}", parent_id, "step", at, at, {"host.id": node_id} if node_id else {})


def ended(state: rollout_pb2.RolloutState.ValueType, expected: rollout_pb2.RolloutState.ValueType) -> report.Ended:
    request = rollout_pb2.UpgradeRequest(strategy=rollout_pb2.STRATEGY_CANARY)
    return report.Ended(rollout_pb2.Rollout(name="web-1.1.0", state=state, request=request), expected)


def found(agents: report.Agents | None = None) -> report.Report:
    return report.Report(
        rollouts=[ended(SUCCEEDED, SUCCEEDED)],
        node_ids=frozenset({"a", "b"}),
        expected_version="1.1.0",
        versions={"1.1.0": 2},
        requests=figures.Figures(9, 3, {}, {"1.1.0": 9}, 1.0, 2.0, 3.0),
        trace=receiver.Trace("aa", (span(1, "", ""), span(2, "01", "a"), span(3, "01", "b"))),
        agents=agents,
        outage=None,
        seconds=1.0,
    )


def document(of: report.Report) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(of.as_json())
    return told


def test_a_run_in_which_all_held_has_no_fault() -> None:
    assert found().faults == ()
    assert found(AGENTS).faults == ()


def test_agents_are_told_of_where_they_were_upgraded_and_only_there() -> None:
    assert not {"agents", "components_kept_pids"} & document(found()).keys()

    told = document(found(AGENTS))
    assert (told["agents"], told["components_kept_pids"], told["keepers_kept_pids"]) == ({"0.1.1": 2}, True, True)
    assert "agents       2 on 0.1.1" in found(AGENTS).as_text()


def test_a_service_with_another_process_id_is_told_and_a_fault() -> None:
    moved = found(replace(AGENTS, moved_services=["b"]))

    assert document(moved)["components_kept_pids"] is False
    assert moved.faults == ("services have other process ids on ['b']",)
    assert "services moved on b, keepers kept theirs" in moved.as_text()


@pytest.mark.parametrize(
    ("agents", "fault"),
    [
        (replace(AGENTS, versions={"0.1.1": 1, "0.1.0": 1}), "agents are"),
        (replace(AGENTS, component_versions={"0.1.1": 1}), "the agent as a component is"),
        (replace(AGENTS, moved_keepers=["a"]), "keepers have other process ids on ['a']"),
        (replace(AGENTS, late_keepers=["a"]), "keepers have not followed their agents on ['a']"),
    ],
)
def test_whatever_else_did_not_hold_of_the_agents_is_a_fault(agents: report.Agents, fault: str) -> None:
    (told,) = found(agents).faults

    assert told.startswith(fault)


def test_a_rollout_that_ended_otherwise_than_expected_is_a_fault() -> None:
    wrong = replace(found(), rollouts=[ended(SUCCEEDED, rollout_pb2.ROLLOUT_STATE_REVERTED)])

    assert wrong.faults == ("rollout web-1.1.0 ended SUCCEEDED, not REVERTED",)


def test_a_kill_of_the_controller_is_told_and_one_that_did_not_come_about_is_a_fault() -> None:
    assert "controller_away_seconds" not in document(found())
    killed = replace(found(), outage=report.Outage(2.04))
    assert (document(killed)["controller_away_seconds"], killed.faults) == (2.0, ())
    assert "controller   killed, away for 2.0 s" in killed.as_text()
    spared = replace(found(), outage=report.Outage(None))
    assert spared.faults == ("the controller was not killed: no node was on its way",)
    assert document(spared)["controller_away_seconds"] is None
