"""Who may begin."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from agent.core import admission, model
from tests.agent.core import stories

pytestmark = pytest.mark.core
FREE = admission.Ledger(
    highest_fence=7,
    fences={"op-6": 6, "op-7": 7},
    holder=None,
    current={"web": stories.OLD},
    methods=frozenset({model.Method.HOT_SWAP}),
    latest_now=stories.EPOCH,
)


def judge(ledger: admission.Ledger = FREE, **changed: object) -> tuple[admission.Verdict, str]:
    answer = admission.admit(stories.assignment(**{"operation_id": "op-8", "fence": 8, **changed}), ledger)
    return answer.verdict, answer.reason


def test_a_new_change_of_what_runs_may_begin() -> None:
    assert judge() == (admission.Verdict.BEGIN, "")
    assert judge(kind=model.ChangeKind.REMOVE) == (admission.Verdict.BEGIN, "")
    assert judge(kind=model.ChangeKind.INSTALL, component="api") == (admission.Verdict.BEGIN, "")


def test_a_known_operation_changes_nothing_whatever_else_is_wrong_with_it() -> None:
    busy = replace(FREE, holder="op-7")
    assert judge(busy, operation_id="op-6", fence=1) == (admission.Verdict.KNOWN, "")


def test_a_fence_that_is_not_higher_than_the_highest_is_refused() -> None:
    assert judge(fence=7) == (admission.Verdict.REFUSED, "fence_stale")
    assert judge(fence=6) == (admission.Verdict.REFUSED, "fence_stale")


def test_an_operation_older_than_what_is_remembered_has_expired() -> None:
    assert judge(fence=5) == (admission.Verdict.EXPIRED, "outcome_expired")
    assert judge(replace(FREE, fences={}), fence=7) == (admission.Verdict.EXPIRED, "outcome_expired")


def test_what_is_late_by_the_controllers_clock_is_refused() -> None:
    second = timedelta(seconds=1)
    assert judge(start_by=stories.EPOCH) == (admission.Verdict.BEGIN, "")
    assert judge(start_by=stories.EPOCH - second) == (admission.Verdict.REFUSED, "start_by_passed")


def test_a_node_that_is_unsure_of_the_controllers_clock_answers_nothing_yet() -> None:
    unsure = replace(FREE, latest_now=None)
    assert judge(unsure, start_by=stories.EPOCH) == (admission.Verdict.UNSURE, "")
    assert judge(unsure) == (admission.Verdict.BEGIN, "")


@pytest.mark.parametrize(
    ("ledger", "changed", "reason"),
    [
        (replace(FREE, holder="op-7"), {}, "node_busy"),
        (FREE, {"method": model.Method.RESTART}, "method_not_supported"),
        (FREE, {"kind": model.ChangeKind.INSTALL}, "already_installed"),
        (FREE, {"component": "api"}, "not_installed"),
        (FREE, {"from_digest": stories.NEW}, "from_digest_differs"),
    ],
)
def test_what_does_not_fit_the_node_is_refused_with_its_reason(
    ledger: admission.Ledger, changed: dict[str, object], reason: str
) -> None:
    assert judge(ledger, **changed) == (admission.Verdict.REFUSED, reason)
