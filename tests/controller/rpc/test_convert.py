"""Conversion between messages and values: total, and without loss."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import duration_pb2
from rpds import HashTrieMap

from controller.core import errors, model
from controller.rpc import convert
from instar.v1 import node_pb2, operation_pb2, rollout_pb2

NOW = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)
DIGESTS = (model.Digest("sha256:" + "a" * 64), model.Digest("sha256:" + "b" * 64))
ENDLESS = duration_pb2.Duration(seconds=1 << 62)
ENUMS = [
    (node_pb2.Health, "HEALTH_", set(model.Health) - {model.Health.UNKNOWN}),
    (node_pb2.InstanceState, "INSTANCE_STATE_", set(model.InstanceState)),
    (operation_pb2.ChangeKind, "CHANGE_KIND_", set(model.ChangeKind)),
    (operation_pb2.Method, "METHOD_", set(model.Method)),
    (operation_pb2.OperationState, "OPERATION_STATE_", set(model.OperationState)),
    (operation_pb2.Step, "STEP_", set(model.Step)),
    (rollout_pb2.RolloutState, "ROLLOUT_STATE_", set(model.RolloutState)),
    (rollout_pb2.Strategy, "STRATEGY_", set(model.Strategy)),
]


@pytest.mark.parametrize(("kind", "prefix", "members"), ENUMS)
def test_the_words_of_the_wire_are_those_of_the_core(kind: type, prefix: str, members: set[model.Step]) -> None:
    names = [value.name for value in kind.DESCRIPTOR.values]  # type: ignore[attr-defined]  # every wrapper has it
    assert sorted(names) == sorted([f"{prefix}UNSPECIFIED", *(prefix + member.value for member in members)])


def request(**facts: object) -> rollout_pb2.UpgradeRequest:
    message = rollout_pb2.UpgradeRequest(
        component="web", target_version="1.1.0", strategy=rollout_pb2.STRATEGY_CANARY, selector="zone=a", install=True
    )
    message.MergeFrom(rollout_pb2.UpgradeRequest(**facts))  # type: ignore[arg-type]  # the test's own facts
    return message


def test_what_a_request_leaves_out_has_its_default() -> None:
    found = convert.from_request(request())
    assert found == model.UpgradeRequest(
        model.ComponentName("web"), "1.1.0", model.Strategy.CANARY, selector="zone=a", install=True
    )
    assert found.policy == model.Policy()


def test_a_zero_that_was_said_is_no_default() -> None:
    policy = rollout_pb2.Policy(soak_duration=convert.duration(timedelta()))
    assert convert.from_policy(policy).soak_duration == timedelta()


def test_the_numbers_of_a_policy_arrive_as_they_were_said() -> None:
    policy = model.Policy(
        restart_allowed=True,
        discard_writes=True,
        max_parallel=3,
        min_healthy_duration=timedelta(seconds=1, milliseconds=500),
        healthy_deadline=timedelta(minutes=1),
        progress_deadline=timedelta(minutes=2),
        unknown_deadline=timedelta(minutes=3),
        max_failures=4,
        soak_duration=timedelta(milliseconds=20),
        soak_requests_min=5,
    )
    shown = convert.rollout(rollout(policy), "f" * 32).request
    assert convert.from_request(shown).policy == policy


def test_the_parameters_of_a_strategy_arrive_with_their_default() -> None:
    assert convert.from_request(request(canary=rollout_pb2.CanaryParameters(nodes=2))).parameters == (
        model.CanaryParameters(nodes=2)
    )
    assert convert.from_request(request(canary=rollout_pb2.CanaryParameters())).parameters == model.CanaryParameters()


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (rollout_pb2.UpgradeRequest(target_version="1.0.0", strategy=rollout_pb2.STRATEGY_CANARY), "component"),
        (rollout_pb2.UpgradeRequest(component="web", strategy=rollout_pb2.STRATEGY_CANARY), "target_version"),
        (rollout_pb2.UpgradeRequest(component="web", target_version="1.0.0"), "strategy"),
        (request(strategy=77), "strategy"),
        (request(kind=77), "kind"),
        (request(name="a\x1b[2Jb"), "name"),
        (
            request(policy=rollout_pb2.Policy(soak_duration=duration_pb2.Duration(seconds=1 << 62))),
            "policy.soak_duration",
        ),
    ],
)
def test_a_request_that_means_nothing_is_refused_by_the_name_of_the_field(
    message: rollout_pb2.UpgradeRequest, field: str
) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        convert.from_request(message)
    assert caught.value.field == field


def change(node_id: str) -> model.Change:
    return model.Change(
        node_id=model.NodeId(node_id),
        component=model.ComponentName("web"),
        kind=model.ChangeKind.UPGRADE,
        method=model.Method.HOT_SWAP,
        from_version="1.0.0",
        from_digest=DIGESTS[0],
        to_version="1.1.0",
        to_digest=DIGESTS[1],
    )


def rollout(policy: model.Policy) -> model.Rollout:
    changes = [change("n-2"), change("n-1")]
    waves = (
        model.Wave(1, is_canary=True, changes=(changes[0],)),
        model.Wave(2, is_canary=False, changes=(changes[1],)),
    )
    progress = [
        model.Progress(changes[0], 1, state=model.OperationState.RUNNING, step=model.Step.SOAK, attempt=2),
        model.Progress(changes[1], 2),
    ]
    return model.Rollout(
        id=model.RolloutId("r-1"),
        request=model.UpgradeRequest(
            model.ComponentName("web"), "1.1.0", model.Strategy.CANARY, policy=policy, name="web to 1.1.0"
        ),
        plan=model.Plan("f" * 64, waves, (model.NodeId("n-3"),)),
        state=model.RolloutState.RUNNING,
        actor="operator",
        created_at=NOW,
        changes=HashTrieMap({one.key: one for one in progress}),
        wave=1,
        revision=7,
    )


def test_a_rollout_is_shown_with_its_changes_in_plan_order() -> None:
    shown = convert.rollout(rollout(model.Policy()), "e" * 32)
    assert [(one.wave, one.change.node_id) for one in shown.changes] == [(1, "n-2"), (2, "n-1")]
    assert shown.changes[0].step == operation_pb2.STEP_SOAK
    assert shown.changes[1].state == operation_pb2.OPERATION_STATE_UNSPECIFIED
    assert (shown.trace_id, shown.revision, shown.name) == ("e" * 32, 7, "web to 1.1.0")
    assert shown.create_time.ToDatetime(UTC) == NOW
    assert not shown.HasField("end_time")
    assert [wave.canary for wave in shown.plan.waves] == [True, False]


def test_a_node_is_shown_with_what_it_said_of_itself() -> None:
    component = model.InstalledComponent(
        name=model.ComponentName("web"),
        version="1.0.0",
        digest=DIGESTS[0],
        permanent_digest=DIGESTS[0],
        health=model.Health.UNKNOWN,
        healthy_for=timedelta(seconds=1.5),
        instances=(model.Instance("web.1", DIGESTS[0], 42, model.InstanceState.ACTIVE, 99, restarts=3),),
        is_stopped=True,
    )
    node = model.Node(
        id=model.NodeId("n-1"),
        labels={"zone": "a"},
        capabilities=frozenset({"driver.handover", "a"}),
        agent_version="1.0.0",
        fence=3,
        is_connected=True,
        last_seen_at=NOW,
        components={component.name: component},
        conditions=(model.Condition("drift", "web", "its files were changed", NOW),),
    )
    shown = convert.node(node, [model.Metric("system.cpu.utilization", "", 0.5)])
    assert (shown.node_id, dict(shown.labels), list(shown.capabilities)) == (
        "n-1",
        {"zone": "a"},
        ["a", "driver.handover"],
    )
    assert shown.components[0].health == node_pb2.HEALTH_UNSPECIFIED
    assert shown.components[0].healthy_for.ToTimedelta() == timedelta(seconds=1.5)
    assert shown.components[0].instances[0].pid == 42
    assert shown.metrics[0].value == 0.5
    assert shown.operation_id == ""
    assert shown.components[0].stopped
    assert shown.components[0].instances[0].restarts == 3
    assert [(one.code, one.component, one.message) for one in shown.conditions] == [
        ("drift", "web", "its files were changed")
    ]
    assert shown.conditions[0].since_time.ToDatetime(UTC) == NOW


@pytest.mark.parametrize("kind", model.ChangeKind)
def test_a_kind_stands_instead_of_a_version_and_is_shown_again(kind: model.ChangeKind) -> None:
    asked = rollout_pb2.UpgradeRequest(
        component="web",
        strategy=rollout_pb2.STRATEGY_IMMEDIATE,
        kind=operation_pb2.ChangeKind.Value(f"CHANGE_KIND_{kind.value}"),
    )
    found = convert.from_request(asked)
    assert (found.kind, found.target_version) == (kind, "")
    shown = convert.rollout(replace(rollout(model.Policy()), request=found), "e" * 32)
    assert shown.request.kind == asked.kind


def test_a_change_that_cannot_be_undone_says_why() -> None:
    state = rollout(model.Policy())
    key = next(each for each in state.changes if each.node_id == "n-1")
    warned = replace(state.changes[key], change=replace(change("n-1"), no_way_back="nothing leads back"))
    shown = convert.rollout(replace(state, changes=state.changes.insert(key, warned)), "e" * 32)
    assert [one.change.no_way_back for one in shown.changes] == ["", "nothing leads back"]
