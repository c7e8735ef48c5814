"""Between the messages of the API and the core's values: one function each way for each noun, total.

Rules kept here: a message that means nothing here is refused with the dotted field that is wrong; what a message leaves
out gets its default in one place; unset on the wire is None inside. Left out: the messages of agents (`agent_convert`)
and what a request may ask for (`controller.core.planner`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Literal, TypeVar

from google.protobuf import duration_pb2, json_format, timestamp_pb2

from controller.core import errors, model
from instar.v1 import manifest_pb2, node_pb2, operation_pb2, release_pb2, rollout_pb2

DURATION_SECONDS_MAX = 315_576_000_000  # ten thousand years, as google.protobuf.Duration says
NAME_RULE = "1 to 100 letters, digits, blanks and any of . _ + : / -, or nothing"
_NAME = re.compile(r"[A-Za-z0-9 ._+:/-]{0,100}")
_Number = TypeVar("_Number", bound=int)
_SpanField = Literal[
    "min_healthy_duration", "healthy_deadline", "progress_deadline", "unknown_deadline", "soak_duration"
]


def timestamp(instant: datetime | None) -> timestamp_pb2.Timestamp | None:
    """An instant, or nothing."""
    if instant is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(instant.astimezone(UTC))
    return message


def duration(span: timedelta) -> duration_pb2.Duration:
    """A span of time."""
    message = duration_pb2.Duration()
    message.FromTimedelta(span)
    return message


def number(value_of: Callable[[str], _Number], prefix: str, value: Enum | None) -> _Number:
    """The number of a value on the wire; that of UNSPECIFIED for None."""
    return value_of(prefix + ("UNSPECIFIED" if value is None else value.value))


def release(value: model.Release) -> release_pb2.Release:
    """A release, its manifest opened."""
    return release_pb2.Release(
        component=value.component,
        version=value.version,
        digest=value.digest,
        size_bytes=value.size_bytes,
        manifest=json_format.Parse(value.manifest_json, manifest_pb2.Manifest()),
        publish_time=timestamp(value.published_at),
        publisher=value.publisher,
    )


def node(value: model.Node, metrics: Iterable[model.Metric]) -> node_pb2.Node:
    """A node with its latest metrics."""
    return node_pb2.Node(
        node_id=value.id,
        labels=value.labels,
        connected=value.is_connected,
        last_seen_time=timestamp(value.last_seen_at),
        agent_version=value.agent_version,
        capabilities=sorted(value.capabilities),
        fence=value.fence,
        components=[_component(value.components[name]) for name in sorted(value.components)],
        metrics=[node_pb2.Metric(name=one.name, component=one.component, value=one.value) for one in metrics],
        operation_id=value.operation_id or "",
        conditions=map(_condition, value.conditions),
    )


def _condition(value: model.Condition) -> node_pb2.Condition:
    return node_pb2.Condition(
        code=value.code, component=value.component, message=value.message, since_time=timestamp(value.since)
    )


def _component(value: model.InstalledComponent) -> node_pb2.ComponentStatus:
    is_known = value.health is not model.Health.UNKNOWN
    return node_pb2.ComponentStatus(
        name=value.name,
        version=value.version,
        digest=value.digest,
        permanent_digest=value.permanent_digest,
        health=number(node_pb2.Health.Value, "HEALTH_", value.health if is_known else None),
        healthy_for=duration(value.healthy_for),
        instances=[
            node_pb2.Instance(
                instance_id=one.id,
                digest=one.digest,
                pid=one.pid,
                state=number(node_pb2.InstanceState.Value, "INSTANCE_STATE_", one.state),
                served=one.served,
                restarts=one.restarts,
            )
            for one in value.instances
        ],
        stopped=value.is_stopped,
    )


def plan(value: model.Plan) -> rollout_pb2.Plan:
    """A plan."""
    return rollout_pb2.Plan(
        fingerprint=value.fingerprint,
        waves=[
            rollout_pb2.Wave(index=one.index, canary=one.is_canary, changes=map(_change, one.changes))
            for one in value.waves
        ],
        unchanged_nodes=value.unchanged,
    )


def _change(value: model.Change) -> rollout_pb2.Change:
    return rollout_pb2.Change(
        node_id=value.node_id,
        component=value.component,
        kind=number(operation_pb2.ChangeKind.Value, "CHANGE_KIND_", value.kind),
        method=number(operation_pb2.Method.Value, "METHOD_", value.method),
        from_version=value.from_version,
        from_digest=value.from_digest,
        to_version=value.to_version,
        to_digest=value.to_digest,
        no_way_back=value.no_way_back,
    )


def rollout(value: model.Rollout, trace_id: str) -> rollout_pb2.Rollout:
    """A rollout, its changes in plan order."""
    planned = (
        model.ChangeKey(wave.index, one.node_id, one.component) for wave in value.plan.waves for one in wave.changes
    )
    return rollout_pb2.Rollout(
        rollout_id=value.id,
        name=value.request.name,
        request=_request(value.request),
        plan=plan(value.plan),
        state=number(rollout_pb2.RolloutState.Value, "ROLLOUT_STATE_", value.state),
        wave=value.wave,
        changes=[_progress(value.changes[key]) for key in planned],
        reason=value.reason,
        message=value.message,
        create_time=timestamp(value.created_at),
        end_time=timestamp(value.ended_at),
        actor=value.actor,
        trace_id=trace_id,
        revision=value.revision,
    )


def _progress(value: model.Progress) -> rollout_pb2.ChangeProgress:
    return rollout_pb2.ChangeProgress(
        change=_change(value.change),
        wave=value.wave,
        state=number(operation_pb2.OperationState.Value, "OPERATION_STATE_", value.state),
        step=number(operation_pb2.Step.Value, "STEP_", value.step),
        attempt=value.attempt,
        reverting=value.is_reverting,
        operation_id=value.operation_id or "",
        reason=value.reason,
        message=value.message,
    )


def _request(value: model.UpgradeRequest) -> rollout_pb2.UpgradeRequest:
    canary = rollout_pb2.CanaryParameters(nodes=value.parameters.nodes) if value.parameters else None
    return rollout_pb2.UpgradeRequest(
        component=value.component,
        target_version=value.target_version,
        selector=value.selector,
        strategy=number(rollout_pb2.Strategy.Value, "STRATEGY_", value.strategy),
        canary=canary,
        policy=_policy(value.policy),
        install=value.install,
        name=value.name,
        kind=number(operation_pb2.ChangeKind.Value, "CHANGE_KIND_", value.kind),
    )


def _policy(value: model.Policy) -> rollout_pb2.Policy:
    return rollout_pb2.Policy(
        max_parallel=value.max_parallel,
        min_healthy_duration=duration(value.min_healthy_duration),
        healthy_deadline=duration(value.healthy_deadline),
        progress_deadline=duration(value.progress_deadline),
        unknown_deadline=duration(value.unknown_deadline),
        max_failures=value.max_failures,
        soak_duration=duration(value.soak_duration),
        soak_requests_min=value.soak_requests_min,
        restart_allowed=value.restart_allowed,
        discard_writes=value.discard_writes,
    )


def from_request(message: rollout_pb2.UpgradeRequest) -> model.UpgradeRequest:
    """An upgrade request from outside, its defaults filled in.

    Raises:
        InvalidRequestError: A field is missing or breaks its rule.
    """
    kind = _from_kind(message.kind)
    _refuse_unless(bool(message.component), "component", message.component, "given")
    _refuse_unless(bool(message.target_version or kind), "target_version", message.target_version, "given")
    _refuse_unless(bool(_NAME.fullmatch(message.name)), "name", message.name, NAME_RULE)
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
    )


def _from_kind(told: int) -> model.ChangeKind | None:
    if told == operation_pb2.CHANGE_KIND_UNSPECIFIED:
        return None
    known = {number(operation_pb2.ChangeKind.Value, "CHANGE_KIND_", one): one for one in model.ChangeKind}
    rule = "one of " + ", ".join(one.value for one in model.ChangeKind)
    _refuse_unless(told in known, "kind", str(told), rule)
    return known[operation_pb2.ChangeKind.ValueType(told)]


def _from_strategy(told: int) -> model.Strategy:
    known = {number(rollout_pb2.Strategy.Value, "STRATEGY_", one): one for one in model.Strategy}
    rule = "one of " + ", ".join(one.value for one in model.Strategy)
    _refuse_unless(told in known, "strategy", str(told), rule)
    return known[rollout_pb2.Strategy.ValueType(told)]


def _from_parameters(message: rollout_pb2.UpgradeRequest) -> model.CanaryParameters | None:
    if not message.HasField("canary"):
        return None
    return model.CanaryParameters(nodes=message.canary.nodes or model.CanaryParameters().nodes)


def from_policy(message: rollout_pb2.Policy) -> model.Policy:
    """The numbers of a strategy; what is left out has its default.

    Raises:
        InvalidRequestError: A time is none that `google.protobuf.Duration` allows.
    """
    default = model.Policy()
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
    )


def _span(message: rollout_pb2.Policy, field: _SpanField, default: timedelta) -> timedelta:
    if not message.HasField(field):
        return default
    told: duration_pb2.Duration = getattr(message, field)
    rule = f"a duration of at most {DURATION_SECONDS_MAX} s"
    _refuse_unless(abs(told.seconds) <= DURATION_SECONDS_MAX, f"policy.{field}", f"{told.seconds}s", rule)
    return told.ToTimedelta()


def _refuse_unless(holds: bool, field: str, value: str, rule: str) -> None:  # noqa: FBT001  # reads as a sentence
    if not holds:
        raise errors.InvalidRequestError(
            f"cannot accept the request: {field} {value!r} must be {rule}",
            code="request_invalid",
            field=field,
            value=value,
            rule=rule,
        )
