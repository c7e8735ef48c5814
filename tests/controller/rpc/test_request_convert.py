"""Upgrade requests between the wire and the core: total, and without loss."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from google.protobuf import duration_pb2

from controller.core import errors, model
from controller.rpc import convert, request_convert
from instar.v1 import operation_pb2, rollout_pb2

ENDLESS = duration_pb2.Duration(seconds=1 << 62)
HOUR = timedelta(hours=1)
WINDOW = model.Window(timedelta(hours=22), 4 * HOUR, frozenset({1, 5}), "Europe/Berlin")
POLICY = model.Policy(  # nothing in it is a default
    max_parallel=3,
    min_healthy_duration=timedelta(seconds=1, milliseconds=500),
    healthy_deadline=timedelta(minutes=1),
    progress_deadline=timedelta(minutes=2),
    unknown_deadline=timedelta(minutes=3),
    max_failures=4,
    soak_duration=timedelta(milliseconds=20),
    soak_requests_min=5,
    restart_allowed=True,
    discard_writes=True,
    max_infrastructure_failures=0,
    floor_percent=80,
    domain_label="zone",
    domain_max_parallel=2,
    bake_duration=timedelta(minutes=7),
    is_promoted_by_hand=True,
    windows=(WINDOW, model.Window(timedelta(), 24 * HOUR)),
    offline=model.OfflinePolicy.EXPIRE,
    offline_deadline=2 * HOUR,
    join=model.JoinPolicy.INCLUDE,
    revert_max_parallel=9,
    deadline=6 * HOUR,
    hold_while_firing=("errors", "latency"),
)
REQUEST = model.UpgradeRequest(  # nothing in it is a default
    component=model.ComponentName("web"),
    target_version="1.1.0",
    strategy=model.Strategy.ROLLING,
    selector="zone=a",
    parameters=model.RollingParameters(4),
    policy=POLICY,
    install=True,
    name="spring",
    also=(model.Target(model.ComponentName("db"), "2.0.0"), model.Target(model.ComponentName("ui"), "stable")),
    level=model.ValidationLevel.PERMISSIVE,
    conflict=model.ConflictPolicy.SUPERSEDE,
    priority=-3,
    is_revertible=False,
    downgrade_allowed=True,
    approval_deadline=3 * HOUR,
)


def request(**facts: object) -> rollout_pb2.UpgradeRequest:
    message = rollout_pb2.UpgradeRequest(
        component="web", target_version="1.1.0", strategy=rollout_pb2.STRATEGY_CANARY, selector="zone=a", install=True
    )
    message.MergeFrom(rollout_pb2.UpgradeRequest(**facts))  # type: ignore[arg-type]  # the test's own facts
    return message


def test_what_a_request_leaves_out_has_its_default() -> None:
    assert request_convert.from_request(request()) == model.UpgradeRequest(
        model.ComponentName("web"), "1.1.0", model.Strategy.CANARY, selector="zone=a", install=True
    )
    assert request_convert.from_policy(rollout_pb2.Policy()) == model.Policy()


def test_the_defaults_that_are_said_are_read_as_the_defaults_that_are_not() -> None:
    default = model.UpgradeRequest(model.ComponentName("web"), "1.1.0", model.Strategy.IMMEDIATE)
    assert request_convert.from_request(request_convert.request(default)) == default


def test_every_field_of_a_request_and_of_its_policy_arrives_as_it_was_said() -> None:
    same = [one.name for one in fields(POLICY) if getattr(POLICY, one.name) == getattr(model.Policy(), one.name)]
    plain = model.UpgradeRequest(model.ComponentName(""), "", model.Strategy.CANARY)
    same += [one.name for one in fields(REQUEST) if getattr(REQUEST, one.name) == getattr(plain, one.name)]
    assert same == ["kind"], "a field with its default proves nothing"
    assert request_convert.from_request(request_convert.request(REQUEST)) == REQUEST


@pytest.mark.parametrize(
    "parameters",
    [
        model.CanaryParameters(2),
        model.RollingParameters(3),
        model.GradualParameters((10, 100)),
        model.BlueGreenParameters(timedelta()),
        None,
    ],
)
def test_the_parameters_of_each_strategy_pass_both_ways(parameters: model.Parameters | None) -> None:
    asked = replace(REQUEST, parameters=parameters)
    assert request_convert.from_request(request_convert.request(asked)).parameters == parameters


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (request(canary=rollout_pb2.CanaryParameters()), model.CanaryParameters()),
        (request(rolling=rollout_pb2.RollingParameters()), model.RollingParameters()),
        (request(gradual=rollout_pb2.GradualParameters()), model.GradualParameters()),
        (request(blue_green=rollout_pb2.BlueGreenParameters()), model.BlueGreenParameters()),
    ],
)
def test_parameters_that_say_nothing_are_the_defaults_of_their_strategy(
    message: rollout_pb2.UpgradeRequest, found: model.Parameters
) -> None:
    assert request_convert.from_request(message).parameters == found


def test_a_zero_that_was_said_is_no_default() -> None:
    policy = rollout_pb2.Policy(soak_duration=convert.duration(timedelta()), max_infrastructure_failures=0)
    found = request_convert.from_policy(policy)
    assert (found.soak_duration, found.max_infrastructure_failures) == (timedelta(), 0)
    assert request_convert.from_policy(rollout_pb2.Policy()).max_infrastructure_failures is None
    asked = request(approval_deadline=convert.duration(timedelta()))
    assert request_convert.from_request(asked).approval_deadline == timedelta()


def test_a_window_without_a_zone_is_in_utc() -> None:
    window = rollout_pb2.Window(opens=convert.duration(HOUR), duration=convert.duration(HOUR))
    assert request_convert.from_policy(rollout_pb2.Policy(windows=[window])).windows == (model.Window(HOUR, HOUR),)


def of_policy(**facts: object) -> rollout_pb2.UpgradeRequest:
    return request(policy=rollout_pb2.Policy(**facts))  # type: ignore[arg-type]  # the test's own facts


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (rollout_pb2.UpgradeRequest(target_version="1.0.0", strategy=rollout_pb2.STRATEGY_CANARY), "component"),
        (rollout_pb2.UpgradeRequest(component="web", strategy=rollout_pb2.STRATEGY_CANARY), "target_version"),
        (rollout_pb2.UpgradeRequest(component="web", target_version="1.0.0"), "strategy"),
        (request(strategy=77), "strategy"),
        (request(kind=77), "kind"),
        (request(level=77), "level"),
        (request(conflict=77), "conflict"),
        (request(name="a\x1b[2Jb"), "name"),
        (request(also=[rollout_pb2.Target(version="1.0.0")]), "also.component"),
        (request(also=[rollout_pb2.Target(component="db")]), "also.version"),
        (request(blue_green=rollout_pb2.BlueGreenParameters(verify_duration=ENDLESS)), "parameters.verify_duration"),
        (request(approval_deadline=ENDLESS), "approval_deadline"),
        (of_policy(soak_duration=ENDLESS), "policy.soak_duration"),
        (of_policy(deadline=ENDLESS), "policy.deadline"),
        (of_policy(offline=77), "policy.offline"),
        (of_policy(join=77), "policy.join"),
        (of_policy(windows=[rollout_pb2.Window(duration=convert.duration(HOUR))]), "policy.windows.opens"),
        (of_policy(windows=[rollout_pb2.Window(opens=convert.duration(HOUR))]), "policy.windows.duration"),
    ],
)
def test_a_request_that_means_nothing_is_refused_by_the_name_of_the_field(
    message: rollout_pb2.UpgradeRequest, field: str
) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        request_convert.from_request(message)
    assert (caught.value.code, caught.value.field) == ("request_invalid", field)
    assert caught.value.rule


@pytest.mark.parametrize("kind", model.ChangeKind)
def test_a_kind_stands_instead_of_a_version_and_is_shown_again(kind: model.ChangeKind) -> None:
    asked = rollout_pb2.UpgradeRequest(
        component="web",
        strategy=rollout_pb2.STRATEGY_IMMEDIATE,
        kind=operation_pb2.ChangeKind.Value(f"CHANGE_KIND_{kind.value}"),
    )
    found = request_convert.from_request(asked)
    assert (found.kind, found.target_version) == (kind, "")
    assert request_convert.request(found).kind == asked.kind
