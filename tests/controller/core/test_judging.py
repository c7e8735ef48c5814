from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from controller.core import events, explain, invariants, judging, model, rollout
from tests import datadriven
from tests.controller.core import rolling, scenario

pytestmark = pytest.mark.core

SECOND = timedelta(seconds=1)
CREATED = {"nodes": "a,b,c", "canary": "2", "analysis": ""}


def judged() -> rolling.Rolling:
    """Two nodes of three are the canary, of which one has changed, ten seconds after the start."""
    found = rolling.Rolling()
    for command, arguments in (
        ("rollout", CREATED),
        ("begin", {"at": "0s"}),
        ("report", {"at": "10s", "node": "a", "state": "COMMITTED", "runs": "1.1.0"}),
    ):
        found.handle(datadriven.Case("here", command, arguments, ""))
    return found


def case_at(found: rolling.Rolling, seconds: int) -> judging.Case | None:
    assert found.state is not None
    return judging.case(found.state, scenario.START + seconds * SECOND)


def test_what_has_changed_is_judged_for_as_long_as_evidence_was_gathered() -> None:
    found = case_at(judged(), 40)
    assert found is not None
    assert (found.component, found.elapsed, found.previous) == ("web", 30 * SECOND, None)
    changed = judging.Changed(
        model.NodeId("a"), scenario.digest("web 1.0.0"), scenario.START, scenario.START + 10 * SECOND
    )
    assert found.changed == (changed,)


def test_nothing_is_judged_before_a_node_has_changed_or_once_it_goes_back() -> None:
    plain = rolling.Rolling()
    plain.handle(datadriven.Case("here", "rollout", CREATED, ""))
    assert case_at(plain, 1) is None
    found = judged()
    assert found.state is not None
    at = scenario.START + 20 * SECOND
    found.state = rollout.step(found.state, events.RevertRequested(at, "ann", "it")).rollout
    assert case_at(found, 30) is None


def test_a_pause_is_no_time_in_which_evidence_was_gathered() -> None:
    found = judged()
    assert found.state is not None
    found.state = rollout.step(found.state, events.Paused(scenario.START + 20 * SECOND, "ann", "it")).rollout
    case = case_at(found, 500)
    assert case is not None
    assert case.elapsed == 10 * SECOND


def test_a_node_that_was_removed_or_is_silent_is_told_apart() -> None:
    found = judged()
    assert found.state is not None
    found.state = rollout.step(found.state, events.NodeRemoved(scenario.START + 20 * SECOND, model.NodeId("a"))).rollout
    case = case_at(found, 30)
    assert case is not None
    assert case.changed == ()


def told(found: rolling.Rolling, seconds: int) -> list[str]:
    assert found.state is not None
    chain = explain.rollout(found.state, scenario.START + seconds * SECOND)
    return [f"{each.code}: {each.message}" for each in chain]


def happen(found: rolling.Rolling, command: str, **arguments: str) -> None:
    found.handle(datadriven.Case("here", command, arguments, ""))


def test_an_explanation_says_what_the_judge_has_found() -> None:
    found = judged()
    assert told(found, 11)[1].startswith("under_way")
    happen(found, "judged", at="12s", finding="EARLY")
    assert told(found, 13)[-1] == "judged: wave 1 is judged: error rate is EARLY"
    happen(found, "report", at="20s", node="a,b", state="PERMANENT", runs="1.1.0", healthy_for="10s")
    assert told(found, 21)[-1] == "judging: wave 1 is done, and is judged: error rate is EARLY"
    happen(found, "judged", at="30s", finding="NO_WORSE")
    assert told(found, 31)[-1] == "judged: wave 1 was judged: error rate is NO_WORSE"


def test_an_explanation_says_who_promoted_against_which_evidence() -> None:
    found = judged()
    happen(found, "report", at="20s", node="a,b", state="PERMANENT", runs="1.1.0", healthy_for="10s")
    happen(found, "judged", at="30s", finding="UNKNOWN")
    happen(found, "promote", at="40s", by="ann")
    assert told(found, 41)[-2:] == [
        "promoted_by_hand: ann promoted wave 1",
        "evidence: the evidence by then: error rate is UNKNOWN",
    ]


def test_what_is_worse_is_said_once() -> None:
    found = judged()
    happen(found, "judged", at="12s", finding="WORSE")
    assert [each for each in told(found, 13) if "WORSE" in each] == ["analysis_worse: error rate is WORSE"]


def test_the_rules_of_a_judgement_are_found_broken() -> None:
    found = judged()
    assert found.state is not None
    record = found.state.judging
    assert record is not None
    last = dataclasses.replace(found.state, wave=2)
    assert any("unjudged" in each for each in invariants.violations(dataclasses.replace(last, judging=None)))
    assert any("wave 1 was not" in each for each in invariants.violations(last))
    reverting = dataclasses.replace(found.state, state=model.RolloutState.REVERTING, reason=judging.UNKNOWN)
    assert {
        "missing evidence takes nothing back: it has",
        "nothing is judged any more once it ends or goes back: wave 1 is",
    } <= {*invariants.violations(reverting)}
    endless = dataclasses.replace(
        found.state, judging=dataclasses.replace(record, unknown_at=None), reason=judging.WORSE
    )
    broken = invariants.violations(endless)
    assert any(each.startswith("missing evidence has a deadline") for each in broken)
    assert any(each.startswith("only what is shown to be worse") for each in broken)
