"""Plans and rollouts as they are shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rpds import HashTrieMap

from controller.cli import document
from controller.core import errors, model
from controller.rpc import rollout_convert
from instar.v1 import operation_pb2, rollout_pb2

NOW = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)
DIGESTS = (model.Digest("sha256:" + "a" * 64), model.Digest("sha256:" + "b" * 64))
WEB = model.ComponentName("web")


def change(node_id: str) -> model.Change:
    return model.Change(
        node_id=model.NodeId(node_id),
        component=WEB,
        kind=model.ChangeKind.UPGRADE,
        method=model.Method.RESTART,
        from_version="1.0.0",
        from_digest=DIGESTS[0],
        to_version="1.1.0",
        to_digest=DIGESTS[1],
        no_way_back="nothing leads back",
        why_method="the driver cannot",
        domain="zone a",
    )


ADVICE = model.Advice(
    component=WEB,
    from_version="1.0.0",
    to_version="1.1.0",
    method=model.Method.RESTART,
    node_class="big",
    changes=2,
    chance=0.75,
    chance_low=0.5,
    successes=7,
    version_failures=2,
    other_failures=1,
    why="7 of 9 succeeded",
    wave_nodes=3,
    why_wave="less than one of 3 fails",
    estimate=model.Estimate(timedelta(seconds=30), timedelta(seconds=50), "the latest 7"),
    better_method=model.Method.HOT_SWAP,
    why_better="all of those succeeded",
)
PLAN = model.Plan(
    fingerprint="f",
    waves=(
        model.Wave(1, is_canary=True, changes=(change("n-2"),), bake_duration=timedelta(minutes=1), why="the canary"),
        model.Wave(2, is_canary=False, changes=(change("n-1"),)),
    ),
    unchanged=(model.NodeId("n-0"),),
    excluded=(model.Exclusion(model.NodeId("n-9"), "node_cordoned", "somebody works on it"),),
    warnings=(model.PlanWarning("small_canary", "one node proves little"),),
    blast_radius=model.BlastRadius(2, 3, 1, (("zone a", 2),)),
    capacity=(model.CapacityPoint(1, timedelta(), 2, 3), model.CapacityPoint(2, timedelta(minutes=3), 2, 3)),
    estimate=model.Estimate(timedelta(minutes=4), timedelta(minutes=9), "the policy's own times"),
    facts=(("node n-1", "abc"), ("policy", "def")),
    advice=(ADVICE, replace(ADVICE, estimate=None, better_method=None)),
    advice_left_out=4,
)


def rollout() -> model.Rollout:
    changes = [one for wave in PLAN.waves for one in wave.changes]
    progress = [
        model.Progress(changes[0], 1, state=model.OperationState.RUNNING, step=model.Step.SOAK, attempt=2),
        model.Progress(changes[1], 2),
    ]
    return model.Rollout(
        id=model.RolloutId("r-1"),
        request=model.UpgradeRequest(WEB, "1.1.0", model.Strategy.CANARY, name="web to 1.1.0"),
        plan=PLAN,
        state=model.RolloutState.RUNNING,
        actor="ci",
        created_at=NOW,
        changes=HashTrieMap({one.key: one for one in progress}),
        wave=1,
        revision=7,
        wave_started_at=NOW,
        progress_by=NOW + timedelta(minutes=10),
    )


def test_every_part_of_a_plan_is_shown() -> None:
    shown = document.of(rollout_convert.plan(PLAN))
    wave = shown["waves"][0]
    assert (wave["index"], wave["canary"], wave["bake_duration"], wave["purpose"]) == (1, True, "60s", "the canary")
    assert wave["changes"] == [
        {
            "node_id": "n-2",
            "component": "web",
            "kind": "UPGRADE",
            "method": "RESTART",
            "from_version": "1.0.0",
            "from_digest": DIGESTS[0],
            "to_version": "1.1.0",
            "to_digest": DIGESTS[1],
            "no_way_back": "nothing leads back",
            "method_reason": "the driver cannot",
            "domain": "zone a",
        }
    ]
    assert shown["fingerprint"] == "f"
    assert shown["unchanged_nodes"] == ["n-0"]
    assert shown["excluded"] == [{"node_id": "n-9", "code": "node_cordoned", "message": "somebody works on it"}]
    assert shown["warnings"] == [{"code": "small_canary", "message": "one node proves little"}]
    assert shown["blast_radius"] == {
        "nodes": 2,
        "of_nodes": 3,
        "first_wave": 1,
        "domains": [{"domain": "zone a", "nodes": 2}],
    }
    assert shown["capacity"][1] == {"wave": 2, "after": "180s", "available_min": 2, "total": 3}
    assert shown["estimate"] == {"median": "240s", "p95": "540s", "reason": "the policy's own times"}
    assert shown["facts"] == {"node n-1": "abc", "policy": "def"}


def test_the_advice_of_a_plan_is_shown_with_its_reasons_and_stays_with_the_rollout() -> None:
    told = {
        "component": "web",
        "from_version": "1.0.0",
        "to_version": "1.1.0",
        "method": "RESTART",
        "node_class": "big",
        "changes": 2,
        "chance": 0.75,
        "chance_low": 0.5,
        "successes": 7,
        "version_failures": 2,
        "other_failures": 1,
        "reason": "7 of 9 succeeded",
        "wave_nodes": 3,
        "wave_reason": "less than one of 3 fails",
        "estimate": {"median": "30s", "p95": "50s", "reason": "the latest 7"},
        "better_method": "HOT_SWAP",
        "better_method_reason": "all of those succeeded",
    }
    plan = document.of(rollout_convert.rollout(rollout(), "", NOW))["plan"]
    assert plan["advice"] == [told, {**told, "estimate": None, "better_method": None}]
    assert plan["advice_left_out"] == 4


def test_of_a_plan_that_comes_back_what_tells_it_apart_is_read() -> None:
    found = rollout_convert.from_plan(rollout_convert.plan(PLAN))
    assert (found.fingerprint, found.facts) == (PLAN.fingerprint, PLAN.facts)
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        rollout_convert.from_plan(rollout_pb2.Plan())
    assert caught.value.field == "plan.fingerprint"


def test_a_rollout_is_shown_with_its_changes_in_plan_order() -> None:
    shown = rollout_convert.rollout(rollout(), "e" * 32, NOW)
    assert [(one.wave, one.change.node_id) for one in shown.changes] == [(1, "n-2"), (2, "n-1")]
    assert shown.changes[0].step == operation_pb2.STEP_SOAK
    assert shown.changes[1].state == operation_pb2.OPERATION_STATE_UNSPECIFIED
    assert (shown.trace_id, shown.revision, shown.name) == ("e" * 32, 7, "web to 1.1.0")
    assert shown.create_time.ToDatetime(UTC) == NOW
    assert not shown.HasField("end_time")
    assert [wave.canary for wave in shown.plan.waves] == [True, False]
    assert (shown.plan.fingerprint, dict(shown.plan.facts)) == ("f", {})


@pytest.mark.parametrize(
    ("state", "progress", "is_skipped", "is_left"),
    [
        (model.RolloutState.RUNNING, {}, False, False),
        (model.RolloutState.RUNNING, {"is_skipped": True}, True, False),
        (model.RolloutState.RUNNING, {"is_skipped": True, "state": model.OperationState.UNKNOWN}, True, False),
        (
            model.RolloutState.SUCCEEDED,  # it was done before its node was given up
            {"is_skipped": True, "state": model.OperationState.PERMANENT, "is_proven": True},
            False,
            False,
        ),
        (
            model.RolloutState.STUCK,
            {"is_skipped": True, "state": model.OperationState.PERMANENT, "is_proven": True},
            True,
            False,
        ),
        (model.RolloutState.STUCK, {"is_left": True, "state": model.OperationState.PERMANENT}, False, True),
    ],
)
def test_a_change_says_whether_it_was_dropped_or_left_as_it_is(
    state: model.RolloutState,
    progress: dict[str, Any],
    is_skipped: bool,  # noqa: FBT001  # a case of the table
    is_left: bool,  # noqa: FBT001  # a case of the table
) -> None:
    known = rollout()
    changed = replace(known.changes[model.ChangeKey(2, model.NodeId("n-1"), WEB)], **progress)
    told = replace(known, state=state, changes=known.changes.insert(changed.key, changed))
    first, second = rollout_convert.rollout(told, "e" * 32, NOW).changes
    assert (first.skipped, first.left) == (False, False)
    assert (second.skipped, second.left) == (is_skipped, is_left)


def test_changes_of_nodes_that_came_later_follow_and_those_of_nodes_that_went_are_gone() -> None:
    state = rollout()
    later = [model.Progress(change(node_id), 2) for node_id in ("n-8", "n-7")]
    changes = state.changes.remove(model.ChangeKey(2, model.NodeId("n-1"), WEB))
    for one in later:
        changes = changes.insert(one.key, one)
    shown = rollout_convert.rollout(replace(state, changes=changes), "e" * 32, NOW)
    assert [(one.wave, one.change.node_id) for one in shown.changes] == [(1, "n-2"), (2, "n-7"), (2, "n-8")]


def test_a_paused_rollout_says_since_when_for_how_long_and_what_it_waits_for() -> None:
    state = replace(
        rollout(),
        state=model.RolloutState.PAUSED,
        paused_at=NOW,
        paused_because="ci paused it: lunch",
        stopped_for=timedelta(minutes=2),
    )
    shown = rollout_convert.rollout(state, "e" * 32, NOW + timedelta(minutes=3))
    assert shown.pause_time.ToDatetime(UTC) == NOW
    assert shown.stopped_for.ToTimedelta() == timedelta(minutes=5)
    assert "lunch" in shown.waiting_for
    assert not shown.HasField("next_time")


def test_a_rollout_that_waits_for_a_time_says_for_which_and_what_nobody_keeps_waits_for_nothing() -> None:
    until = NOW + timedelta(minutes=10)
    held = model.Tally(done=1, wave_done=1, assigned=1)
    shown = rollout_convert.rollout(replace(rollout(), bake_until=until, tally=held), "e" * 32, NOW)
    assert shown.next_time.ToDatetime(UTC) == until
    assert "bakes until" in shown.waiting_for
    assert not shown.HasField("pause_time")
    assert shown.stopped_for.ToTimedelta() == timedelta()
    busy = rollout_convert.rollout(replace(rollout(), tally=model.Tally(holding=1, assigned=1)), "e" * 32, NOW)
    assert (busy.waiting_for, busy.HasField("next_time")) == ("", False)


def test_a_rollout_that_can_do_nothing_says_for_how_long_so_far() -> None:
    idle = replace(rollout(), idle_since=NOW, stopped_for=timedelta(minutes=1))
    shown = rollout_convert.rollout(idle, "e" * 32, NOW + timedelta(minutes=2))
    assert shown.stopped_for.ToTimedelta() == timedelta(minutes=3)


ASKED = model.Approval(
    rollout_id=model.RolloutId("r-1"),
    name="web to 1.1.0",
    subject="web 1.1.0",
    fingerprint="f",
    requester="ci",
    requested_at=NOW,
    expires_at=NOW + timedelta(hours=1),
)
DENIED = replace(
    ASKED, state=model.ApprovalState.DENIED, decider="ann", decided_at=NOW + timedelta(minutes=1), reason="too risky"
)


def test_a_rollout_that_has_to_be_approved_says_by_when_and_what_it_waits_for() -> None:
    waiting = replace(rollout(), state=model.RolloutState.PENDING, wave=0, approval=ASKED)
    shown = rollout_convert.rollout(waiting, "e" * 32, NOW)
    assert shown.approval.expire_time.ToDatetime(UTC) == NOW + timedelta(hours=1)
    assert shown.waiting_for.startswith("somebody has to approve it until 2026-03-01T13:30:00")
    assert not rollout_convert.rollout(rollout(), "e" * 32, NOW).HasField("approval")


def test_every_part_of_an_approval_is_shown() -> None:
    assert document.of(rollout_convert.approval(DENIED)) == {
        "rollout_id": "r-1",
        "rollout_name": "web to 1.1.0",
        "subject": "web 1.1.0",
        "fingerprint": "f",
        "requester": "ci",
        "create_time": "2026-03-01T12:30:00.250Z",
        "expire_time": "2026-03-01T13:30:00.250Z",
        "state": "DENIED",
        "decider": "ann",
        "decide_time": "2026-03-01T12:31:00.250Z",
        "reason": "too risky",
    }
    waiting = document.of(rollout_convert.approval(ASKED))
    assert (waiting["state"], waiting["decider"], waiting["decide_time"]) == ("WAITING", "", None)


def test_a_reason_says_since_when_where_that_is_known() -> None:
    told = rollout_convert.reason(model.Reason("paused", "it is paused", NOW))
    assert (told.code, told.message, told.since_time.ToDatetime(UTC)) == ("paused", "it is paused", NOW)
    assert not rollout_convert.reason(model.Reason("paused", "it is paused")).HasField("since_time")
