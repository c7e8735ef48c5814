from __future__ import annotations

import functools
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpds import HashTrieMap

from controller.core import model, statistics
from tests.controller.core import scenario

pytestmark = pytest.mark.core

S = model.OperationState
HELD = (S.ASSIGNED, S.ACCEPTED, S.RUNNING, S.HELD)
MINUTE = timedelta(minutes=1)


def change(name: str) -> model.Change:
    return model.Change(
        node_id=model.NodeId(name),
        component=model.ComponentName("web"),
        kind=model.ChangeKind.UPGRADE,
        method=model.Method.HOT_SWAP,
        from_version="1.0.0",
        from_digest=scenario.digest("1.0.0"),
        to_version="1.1.0",
        to_digest=scenario.digest("1.1.0"),
    )


def begun(name: str, state: model.OperationState, **fields: object) -> model.Progress:
    started = model.Progress(change=change(name), wave=1, attempt=1, state=state, assigned_at=scenario.START)
    return replace(started, **fields)  # type: ignore[arg-type] # names and types are the callers'


def rollout(state: model.RolloutState, *changes: model.Progress) -> model.Rollout:
    plan = model.Plan("f", (model.Wave(1, is_canary=False, changes=tuple(each.change for each in changes)),), ())
    return model.Rollout(
        id=model.RolloutId("r1"),
        request=model.UpgradeRequest(model.ComponentName("web"), "1.1.0", model.Strategy.IMMEDIATE, name="spring"),
        plan=plan,
        state=state,
        actor="ann",
        created_at=scenario.START,
        changes=HashTrieMap({each.key: each for each in changes}),
    )


RUNNING = rollout(
    model.RolloutState.RUNNING,
    model.Progress(change=change("n1"), wave=1),
    begun("n2", S.ABORTED, deadline_at=scenario.START, fault=model.Fault.INFRASTRUCTURE),
    begun("n3", S.ABORTED, fault=model.Fault.VERSION),
    begun("n4", S.PERMANENT, is_proven=True),
    begun("n5", S.COMMITTED),
    begun("n6", S.UNKNOWN, fault=model.Fault.INFRASTRUCTURE),
    *(begun(f"h{number}", state) for number, state in enumerate(HELD)),
)


def test_what_waits_for_its_operation_is_queued_and_what_holds_its_node_is_active() -> None:
    found = statistics.count([RUNNING], [], statistics.Totals(), refused=0)
    assert (found.queued, found.active) == (2, 4)


def test_nothing_waits_in_a_rollout_that_goes_back_but_what_has_yet_to_be_tried_again() -> None:
    waits, retries = model.Progress(change=change("n1"), wave=1), begun("n2", S.ABORTED, deadline_at=scenario.START)
    back = rollout(model.RolloutState.REVERTING, waits, replace(retries, is_reverting=True, is_touched=True))
    assert statistics.count([back], [], statistics.Totals(), refused=0).queued == 1


@pytest.mark.parametrize("state", [each for each in model.RolloutState if each.is_terminal])
def test_what_has_ended_counts_for_nothing(state: model.RolloutState) -> None:
    found = statistics.count([replace(RUNNING, state=state)], [], statistics.Totals(), refused=0)
    assert (found.queued, found.active) == (0, 0)


def test_nodes_are_counted_and_the_connected_ones_are_active() -> None:
    nodes = [scenario.node("n1"), replace(scenario.node("n2"), is_connected=False), scenario.node("n3")]
    found = statistics.count([], iter(nodes), statistics.Totals(), refused=7)
    assert (found.total_nodes, found.active_nodes, found.refused) == (3, 2, 7)


def test_the_totals_are_told_with_the_mean_of_the_completed() -> None:
    totals = statistics.Totals(completed=4, failed=3, distributed=9, timed_out=1, total_duration=2 * MINUTE)
    found = statistics.count([], [], totals, refused=0)
    assert (found.completed, found.failed, found.distributed, found.timed_out) == (4, 3, 9, 1)
    assert found.mean_duration == timedelta(seconds=30)
    assert statistics.count([], [], statistics.Totals(), refused=0).mean_duration is None


@pytest.mark.parametrize("state", [*HELD, S.UNKNOWN, S.EXPIRED])
def test_an_operation_whose_end_nobody_heard_of_timed_out(state: model.OperationState) -> None:
    assert statistics.settled(statistics.Totals(), state, MINUTE) == statistics.Totals(failed=1, timed_out=1)


@pytest.mark.parametrize("state", [S.REFUSED, S.ABORTED, S.COMMITTED])
def test_an_operation_that_did_not_become_permanent_failed(state: model.OperationState) -> None:
    assert statistics.settled(statistics.Totals(), state, MINUTE) == statistics.Totals(failed=1)


def test_a_permanent_operation_is_completed_and_its_time_is_counted() -> None:
    before = statistics.Totals(completed=1, total_duration=MINUTE)
    assert statistics.settled(before, S.PERMANENT, MINUTE) == statistics.Totals(completed=2, total_duration=2 * MINUTE)


@given(st.lists(st.sampled_from(S)), st.integers(0, 9))
def test_what_was_distributed_is_completed_or_failed_or_not_settled_yet(
    states: list[model.OperationState], unsettled: int
) -> None:
    given_out = statistics.distributed(statistics.Totals(), len(states) + unsettled)
    made = functools.reduce(lambda totals, state: statistics.settled(totals, state, MINUTE), states, given_out)
    assert made.distributed == made.completed + made.failed + unsettled
    assert made.timed_out <= made.failed
