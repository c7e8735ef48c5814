"""Between an upgrade request on the wire and the core's: policy, parameters of the strategy, windows, other targets.

Rules kept here: what a message leaves out gets the default of the model, here and nowhere else; a zero that can be told
from nothing is no default. Left out: what a request may ask for (`controller.core.requests` and the planner).
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, assert_never

from google.protobuf import duration_pb2

from controller.core import model
from controller.rpc import analysis_convert, convert
from instar.v1 import operation_pb2, rollout_pb2

NAME_RULE = "1 to 100 letters, digits, blanks and any of . _ + : / -, or nothing"
_NAME = re.compile(r"[A-Za-z0-9 ._+:/-]{0,100}")
_SpanField = Literal[
    "min_healthy_duration",
    "healthy_deadline",
    "progress_deadline",
    "unknown_deadline",
    "soak_duration",
    "bake_duration",
    "offline_deadline",
    "deadline",
]


def request(value: model.UpgradeRequest) -> rollout_pb2.UpgradeRequest:
    """An upgrade request, every default said."""
    message = rollout_pb2.UpgradeRequest(
        component=value.component,
        target_version=value.target_version,
        selector=value.selector,
        strategy=convert.number(rollout_pb2.Strategy.Value, "STRATEGY_", value.strategy),
        policy=policy(value.policy),
        install=value.install,
        name=value.name,
        kind=convert.number(operation_pb2.ChangeKind.Value, "CHANGE_KIND_", value.kind),
        also=[rollout_pb2.Target(component=one.component, version=one.version) for one in value.also],
        level=convert.number(rollout_pb2.ValidationLevel.Value, "VALIDATION_LEVEL_", value.level),
        conflict=convert.number(rollout_pb2.ConflictPolicy.Value, "CONFLICT_POLICY_", value.conflict),
        priority=value.priority,
        never_revert=not value.is_revertible,
        downgrade_allowed=value.downgrade_allowed,
        approval_deadline=convert.optional_duration(value.approval_deadline),
    )
    _put_parameters(message, value.parameters)
    return message


def _put_parameters(message: rollout_pb2.UpgradeRequest, value: model.Parameters | None) -> None:
    match value:
        case None:
            return
        case model.CanaryParameters(nodes, analysis):
            told_analysis = None if analysis is None else analysis_convert.analysis(analysis)
            message.canary.CopyFrom(rollout_pb2.CanaryParameters(nodes=nodes, analysis=told_analysis))
        case model.RollingParameters(batch_nodes):
            message.rolling.CopyFrom(rollout_pb2.RollingParameters(batch_nodes=batch_nodes))
        case model.GradualParameters(percents):
            message.gradual.CopyFrom(rollout_pb2.GradualParameters(percents=percents))
        case model.BlueGreenParameters(verify_duration):
            told = convert.duration(verify_duration)
            message.blue_green.CopyFrom(rollout_pb2.BlueGreenParameters(verify_duration=told))
        case _:
            assert_never(value)


def policy(value: model.Policy) -> rollout_pb2.Policy:
    """The numbers of a strategy, every default said."""
    return rollout_pb2.Policy(
        max_parallel=value.max_parallel,
        min_healthy_duration=convert.duration(value.min_healthy_duration),
        healthy_deadline=convert.duration(value.healthy_deadline),
        progress_deadline=convert.duration(value.progress_deadline),
        unknown_deadline=convert.duration(value.unknown_deadline),
        max_failures=value.max_failures,
        soak_duration=convert.duration(value.soak_duration),
        soak_requests_min=value.soak_requests_min,
        restart_allowed=value.restart_allowed,
        discard_writes=value.discard_writes,
        max_infrastructure_failures=value.max_infrastructure_failures,
        floor_percent=value.floor_percent,
        domain_label=value.domain_label,
        domain_max_parallel=value.domain_max_parallel,
        bake_duration=convert.duration(value.bake_duration),
        promoted_by_hand=value.is_promoted_by_hand,
        windows=map(window, value.windows),
        offline=convert.number(rollout_pb2.OfflinePolicy.Value, "OFFLINE_POLICY_", value.offline),
        offline_deadline=convert.duration(value.offline_deadline),
        join=convert.number(rollout_pb2.JoinPolicy.Value, "JOIN_POLICY_", value.join),
        revert_max_parallel=value.revert_max_parallel,
        deadline=convert.optional_duration(value.deadline),
        hold_while_firing=value.hold_while_firing,
    )


def window(value: model.Window) -> rollout_pb2.Window:
    """A time of the week."""
    return rollout_pb2.Window(
        days=sorted(value.days),
        opens=convert.duration(value.opens),
        duration=convert.duration(value.duration),
        time_zone=value.time_zone,
    )


def from_request(message: rollout_pb2.UpgradeRequest, *, has_version: bool = True) -> model.UpgradeRequest:
    """An upgrade request from outside, its defaults filled in.

    Args:
        message: The request.
        has_version: False where somebody may find the target version later.

    Raises:
        InvalidRequestError: A field is missing or breaks its rule.
    """
    kind = convert.member(model.ChangeKind, operation_pb2.ChangeKind.Value, "CHANGE_KIND_", int(message.kind), "kind")
    convert.refuse_unless(bool(message.component), "component", message.component, "given")
    is_named = bool(message.target_version or kind) or not has_version
    convert.refuse_unless(is_named, "target_version", message.target_version, "given")
    convert.refuse_unless(bool(_NAME.fullmatch(message.name)), "name", message.name, NAME_RULE)
    has_to_be_approved = message.HasField("approval_deadline")
    return model.UpgradeRequest(
        component=model.ComponentName(message.component),
        target_version=message.target_version,
        strategy=_from_strategy(message.strategy),
        selector=message.selector,
        parameters=_from_parameters(message),
        policy=from_policy(message.policy),
        install=message.install,
        name=message.name,
        kind=kind,
        also=tuple(map(_from_target, message.also)),
        level=_from_level(message.level),
        conflict=_from_conflict(message.conflict),
        priority=message.priority,
        is_revertible=not message.never_revert,
        downgrade_allowed=message.downgrade_allowed,
        approval_deadline=convert.span(message.approval_deadline, "approval_deadline") if has_to_be_approved else None,
    )


def _from_strategy(told: int) -> model.Strategy:
    found = convert.member(model.Strategy, rollout_pb2.Strategy.Value, "STRATEGY_", told, "strategy")
    if found is None:
        raise convert.refusal("strategy", "", convert.one_of(model.Strategy))
    return found


def _from_level(told: int) -> model.ValidationLevel:
    value_of = rollout_pb2.ValidationLevel.Value
    found = convert.member(model.ValidationLevel, value_of, "VALIDATION_LEVEL_", told, "level")
    return found or model.ValidationLevel.NORMAL


def _from_conflict(told: int) -> model.ConflictPolicy:
    value_of = rollout_pb2.ConflictPolicy.Value
    found = convert.member(model.ConflictPolicy, value_of, "CONFLICT_POLICY_", told, "conflict")
    return found or model.ConflictPolicy.REJECT


def _from_target(message: rollout_pb2.Target) -> model.Target:
    convert.refuse_unless(bool(message.component), "also.component", message.component, "given")
    convert.refuse_unless(bool(message.version), "also.version", message.version, "given")
    return model.Target(model.ComponentName(message.component), message.version)


def _from_parameters(message: rollout_pb2.UpgradeRequest) -> model.Parameters | None:
    told = message.WhichOneof("parameters")
    match told:
        case None:
            return None
        case "canary":
            return _from_canary(message.canary)
        case "rolling":
            return model.RollingParameters(message.rolling.batch_nodes or model.RollingParameters().batch_nodes)
        case "gradual":
            return model.GradualParameters(tuple(message.gradual.percents) or model.GradualParameters().percents)
        case "blue_green":
            return _from_blue_green(message.blue_green)
        case _:
            assert_never(told)


def _from_canary(message: rollout_pb2.CanaryParameters) -> model.CanaryParameters:
    analysis = analysis_convert.from_analysis(message.analysis) if message.HasField("analysis") else None
    return model.CanaryParameters(message.nodes or model.CanaryParameters().nodes, analysis)


def _from_blue_green(message: rollout_pb2.BlueGreenParameters) -> model.BlueGreenParameters:
    if not message.HasField("verify_duration"):
        return model.BlueGreenParameters()
    return model.BlueGreenParameters(convert.span(message.verify_duration, "parameters.verify_duration"))


def from_policy(message: rollout_pb2.Policy) -> model.Policy:
    """The numbers of a strategy; what is left out has its default.

    Raises:
        InvalidRequestError: A time is none that `google.protobuf.Duration` allows, or a word is unknown.
    """
    default = model.Policy()
    is_told = message.HasField("max_infrastructure_failures")
    return model.Policy(
        max_parallel=message.max_parallel,
        min_healthy_duration=_span(message, "min_healthy_duration", default.min_healthy_duration),
        healthy_deadline=_span(message, "healthy_deadline", default.healthy_deadline),
        progress_deadline=_span(message, "progress_deadline", default.progress_deadline),
        unknown_deadline=_span(message, "unknown_deadline", default.unknown_deadline),
        max_failures=message.max_failures,
        soak_duration=_span(message, "soak_duration", default.soak_duration),
        soak_requests_min=message.soak_requests_min,
        restart_allowed=message.restart_allowed,
        discard_writes=message.discard_writes,
        max_infrastructure_failures=message.max_infrastructure_failures if is_told else None,
        floor_percent=message.floor_percent,
        domain_label=message.domain_label,
        domain_max_parallel=message.domain_max_parallel or default.domain_max_parallel,
        bake_duration=_span(message, "bake_duration", default.bake_duration),
        is_promoted_by_hand=message.promoted_by_hand,
        windows=tuple(from_window(one, "policy.windows") for one in message.windows),
        offline=_from_offline(message.offline) or default.offline,
        offline_deadline=_span(message, "offline_deadline", default.offline_deadline),
        join=_from_join(message.join) or default.join,
        revert_max_parallel=message.revert_max_parallel,
        deadline=_optional_span(message, "deadline"),
        hold_while_firing=tuple(message.hold_while_firing),
    )


def from_window(message: rollout_pb2.Window, place: str) -> model.Window:
    """A time of the week from outside.

    Args:
        message: The window.
        place: Where it stands in the request.

    Raises:
        InvalidRequestError: It lacks one of its times, or one is none.
    """
    return model.Window(
        opens=_window_span(message, "opens", place),
        duration=_window_span(message, "duration", place),
        days=frozenset(message.days),
        time_zone=message.time_zone or model.Window(timedelta(), timedelta()).time_zone,
    )


def _window_span(message: rollout_pb2.Window, field: Literal["opens", "duration"], place: str) -> timedelta:
    name = f"{place}.{field}"
    convert.refuse_unless(message.HasField(field), name, "", "given")
    told: duration_pb2.Duration = getattr(message, field)
    return convert.span(told, name)


def _from_offline(told: int) -> model.OfflinePolicy | None:
    value_of = rollout_pb2.OfflinePolicy.Value
    return convert.member(model.OfflinePolicy, value_of, "OFFLINE_POLICY_", told, "policy.offline")


def _from_join(told: int) -> model.JoinPolicy | None:
    return convert.member(model.JoinPolicy, rollout_pb2.JoinPolicy.Value, "JOIN_POLICY_", told, "policy.join")


def _span(message: rollout_pb2.Policy, field: _SpanField, default: timedelta) -> timedelta:
    found = _optional_span(message, field)
    return default if found is None else found


def _optional_span(message: rollout_pb2.Policy, field: _SpanField) -> timedelta | None:
    if not message.HasField(field):
        return None
    told: duration_pb2.Duration = getattr(message, field)
    return convert.span(told, f"policy.{field}")
