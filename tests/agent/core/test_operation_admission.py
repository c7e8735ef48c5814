"""Who may begin."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent.core import admission, model
from tests.agent.core import stories

pytestmark = pytest.mark.core
FREE = admission.Ledger(
    highest_fence=7,
    fences={"op-6": 6, "op-7": 7},
    holder=None,
    current={"web": stories.OLD},
    stopped=frozenset(),
    bad=frozenset(),
    latest_now=stories.EPOCH,
)
STOPPED = replace(FREE, stopped=frozenset({"web"}))


def judge(
    ledger: admission.Ledger = FREE, *, is_from_here: bool = False, **changed: object
) -> tuple[admission.Verdict, str]:
    assignment = stories.assignment(**{"operation_id": "op-8", "fence": 8, **changed})
    answer = admission.admit(assignment, ledger, is_from_here=is_from_here)
    return answer.verdict, answer.reason


def test_a_new_change_of_what_runs_may_begin() -> None:
    assert judge() == (admission.Verdict.BEGIN, "")
    assert judge(kind=model.ChangeKind.REMOVE) == (admission.Verdict.BEGIN, "")
    assert judge(kind=model.ChangeKind.INSTALL, component="api") == (admission.Verdict.BEGIN, "")


@pytest.mark.parametrize("ledger", [FREE, STOPPED], ids=["running", "stopped"])
@pytest.mark.parametrize("kind", [model.ChangeKind.START, model.ChangeKind.STOP, model.ChangeKind.REMOVE])
@pytest.mark.parametrize("to_digest", ["", stories.OLD], ids=["left out", "the same"])
def test_what_runs_may_be_started_and_what_is_stopped_may_be_stopped_for_already_so_is_success(
    ledger: admission.Ledger, kind: model.ChangeKind, to_digest: str
) -> None:
    assert judge(ledger, kind=kind, to_digest=to_digest) == (admission.Verdict.BEGIN, "")


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
        (FREE, {"kind": model.ChangeKind.INSTALL}, "already_installed"),
        (FREE, {"component": "api"}, "not_installed"),
        (FREE, {"kind": model.ChangeKind.START, "component": "api"}, "not_installed"),
        (FREE, {"from_digest": stories.NEW}, "from_digest_differs"),
        (FREE, {"kind": model.ChangeKind.STOP, "from_digest": stories.NEW}, "from_digest_differs"),
        (FREE, {"kind": model.ChangeKind.RESTART, "to_digest": stories.NEW}, "to_digest_differs"),
        (replace(FREE, bad=frozenset({stories.NEW})), {}, "digest_bad"),
        (replace(FREE, bad=frozenset({stories.NEW})), {"from_digest": stories.NEW}, "digest_bad"),
        (FREE, {"kind": model.ChangeKind.STOP, "component": "instar-agent"}, "cannot_stop_agent"),
        (STOPPED, {}, "component_stopped"),
        (STOPPED, {"kind": model.ChangeKind.RESTART, "to_digest": stories.OLD}, "component_stopped"),
    ],
)
def test_what_does_not_fit_the_node_is_refused_with_its_reason(
    ledger: admission.Ledger, changed: dict[str, Any], reason: str
) -> None:
    assert judge(ledger, **changed) == (admission.Verdict.REFUSED, reason)


def test_an_id_of_this_nodes_own_people_is_refused_from_a_controller_and_needs_no_new_fence_from_them() -> None:
    own: dict[str, Any] = {"operation_id": "local/20260101/web", "fence": 7}
    assert judge(is_from_here=True, **own) == (admission.Verdict.BEGIN, "")
    assert judge(**own) == (admission.Verdict.REFUSED, "operation_id_reserved")
    assert judge(**{**own, "fence": 8}) == (admission.Verdict.REFUSED, "operation_id_reserved")
    assert judge(is_from_here=True, **{**own, "fence": 6}) == (admission.Verdict.REFUSED, "fence_stale")


def test_what_one_has_begun_here_is_known_to_the_other() -> None:
    known = replace(FREE, fences={"local/1/web": 7})
    assert judge(known, operation_id="local/1/web", fence=9) == (admission.Verdict.KNOWN, "")


def test_a_release_that_died_early_may_still_be_left() -> None:
    bad = replace(FREE, bad=frozenset({stories.OLD}))
    assert judge(bad) == (admission.Verdict.BEGIN, "")
    assert judge(bad, kind=model.ChangeKind.REMOVE) == (admission.Verdict.BEGIN, "")
