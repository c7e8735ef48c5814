"""Between the messages of the link and the controller's values: total in both directions.

Rules kept: every member of an enum has its counterpart by name; what the core cannot hold is an `InvalidRequestError`
that names the field, and nothing half-read goes further in. Left out: the messages of the API.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeVar, assert_never

from google.protobuf import descriptor, duration_pb2, timestamp_pb2

from controller.core import errors, model
from controller.engine import commands
from controller.rpc import agent_bounds, log_reading
from instar.v1 import agent_service_pb2, node_pb2, operation_pb2

_E = TypeVar("_E", bound=Enum)
_T = TypeVar("_T")

PROTOCOL_VERSIONS = (1,)  # what this controller speaks: the present one and the two before it, lowest first
# Of a component whose release is damaged on its node: lower than any other, so that every way leads on from it.
UNKNOWN_VERSION = "0.0.0-unknown"
CONDITIONS_MAX = 64  # of one node: a few kinds for each of its components
CONDITION_CHARS_MAX = 512  # of a message for people; each is stored with its node
MESSAGE_CHARS_MAX = 512  # of an operation, for people; as much as an agent keeps of one
REASON_CHARS_MAX = 64  # a code
EVIDENCE_MAX = 16  # entries of one step
EVIDENCE_CHARS_MAX = 1024  # of one of its values; the longest is the end of a log
LIFE_MAX = 2**63 - 1  # what windows and stores have room for; in milliseconds, 292 million years
COUNTER_SUFFIXES = ("_total", "_count", "_sum", "_bucket")  # by Prometheus' conventions
_KINDS = {
    node_pb2.METRIC_KIND_COUNTER: model.SeriesKind.COUNTER,
    node_pb2.METRIC_KIND_GAUGE: model.SeriesKind.GAUGE,
}
_CODE = re.compile(r"[a-z0-9_]{1,64}")
_HEALTHS = {
    node_pb2.HEALTH_UNSPECIFIED: model.Health.UNKNOWN,
    node_pb2.HEALTH_HEALTHY: model.Health.HEALTHY,
    node_pb2.HEALTH_UNHEALTHY: model.Health.UNHEALTHY,
}


def hello(message: agent_service_pb2.Hello) -> model.NodeHello:
    """How an agent introduces itself."""
    agent_bounds.check_hello(message)
    return model.NodeHello(
        node_id=model.NodeId(message.node_id),
        boot_id=message.boot_id,
        instance_token=message.instance_token,
        agent_version=message.agent_version,
        capabilities=frozenset(message.capabilities),
        highest_fence=message.highest_fence,
        labels=dict(message.labels),
        report=report(message.report, is_full=True),
    )


def protocol_version(hello: agent_service_pb2.Hello) -> int:
    """The highest protocol version that both sides speak.

    Raises:
        RefusedError: There is none.
    """
    shared = set(hello.protocol_versions) & set(PROTOCOL_VERSIONS)
    if not shared:
        raise errors.RefusedError(
            f"cannot open a session: the agent speaks {list(hello.protocol_versions)}, not {list(PROTOCOL_VERSIONS)}",
            code="protocol_version_unsupported",
            field="hello.protocol_versions",
            value=str(list(hello.protocol_versions)),
            rule=f"one of {list(PROTOCOL_VERSIONS)}",
        )
    return max(shared)


def heartbeat(message: agent_service_pb2.Heartbeat) -> model.NodeReport:
    """What a heartbeat tells of a node."""
    sent_at = _instant(message.send_time, "send_time") if message.HasField("send_time") else None
    return report(message.report, is_full=message.full, sent_at=sent_at)


def report(message: agent_service_pb2.Report, *, is_full: bool, sent_at: datetime | None = None) -> model.NodeReport:
    """What one message tells of a node; a full one that names no conditions says that there are none."""
    agent_bounds.check_report(message)
    is_told = is_full or message.HasField("conditions")
    if len(message.conditions.items) > CONDITIONS_MAX:
        count = str(len(message.conditions.items))
        raise _unreadable("conditions", count, f"at most {CONDITIONS_MAX} entries")
    return model.NodeReport(
        metrics=tuple(map(_metric, message.metrics)),
        components=tuple(_component(c) for c in message.components if not c.removed),
        removed=tuple(model.ComponentName(c.name) for c in message.components if c.removed),
        operations=tuple(map(_operation, message.operations)),
        steps=tuple(map(_step_record, message.steps)),
        is_full=is_full,
        conditions=tuple(map(_condition, message.conditions.items)) if is_told else None,
        gone_metrics=tuple((m.name, m.component) for m in message.gone_metrics),
        sent_at=sent_at,
    )


def _metric(message: node_pb2.Metric) -> model.Metric:
    """A kind that this controller does not know, or that an earlier agent does not say, is told by the name."""
    kind = _KINDS.get(message.kind)
    if kind is None:
        is_counter = message.name.partition("{")[0].endswith(COUNTER_SUFFIXES)
        kind = model.SeriesKind.COUNTER if is_counter else model.SeriesKind.GAUGE
    return model.Metric(message.name, message.component, message.value, kind, min(message.life, LIFE_MAX))


def _condition(message: node_pb2.Condition) -> model.Condition:
    if not _CODE.fullmatch(message.code):
        raise _unreadable("conditions.code", message.code, "1 to 64 lower-case letters, digits and underscores")
    return model.Condition(
        code=message.code,
        component=message.component,
        message=message.message[:CONDITION_CHARS_MAX],
        since=_instant(message.since_time, "conditions.since_time"),
    )


def _component(message: node_pb2.ComponentStatus) -> model.InstalledComponent:
    if message.health not in _HEALTHS:
        raise _unreadable("components.health", str(message.health), f"one of {node_pb2.Health.keys()}")
    return model.InstalledComponent(
        name=model.ComponentName(message.name),
        version=message.version or UNKNOWN_VERSION,
        digest=model.Digest(message.digest),
        permanent_digest=model.Digest(message.permanent_digest),
        health=_HEALTHS[message.health],
        healthy_for=_read("components.healthy_for", message.healthy_for.ToTimedelta),
        instances=tuple(map(_instance, message.instances)),
        is_stopped=message.stopped,
    )


def _instance(message: node_pb2.Instance) -> model.Instance:
    return model.Instance(
        id=message.instance_id,
        digest=model.Digest(message.digest),
        pid=message.pid,
        state=_member(
            model.InstanceState, node_pb2.InstanceState.DESCRIPTOR, message.state, "components.instances.state"
        ),
        served=message.served,
        restarts=message.restarts,
    )


def _operation(message: operation_pb2.OperationStatus) -> model.OperationStatus:
    return model.OperationStatus(
        operation_id=model.OperationId(message.operation_id),
        fence=message.fence,
        component=model.ComponentName(message.component),
        state=_member(model.OperationState, operation_pb2.OperationState.DESCRIPTOR, message.state, "operations.state"),
        step=_optional(model.Step, operation_pb2.Step.DESCRIPTOR, message.step, "operations.step"),
        fault=_optional(model.Fault, operation_pb2.Fault.DESCRIPTOR, message.fault, "operations.fault"),
        reason=message.reason[:REASON_CHARS_MAX],
        message=message.message[:MESSAGE_CHARS_MAX],
        changed_at=_instant(message.change_time, "operations.change_time"),
    )


def _step_record(message: operation_pb2.StepRecord) -> model.StepRecord:
    return model.StepRecord(
        operation_id=model.OperationId(message.operation_id),
        index=message.index,
        step=_member(model.Step, operation_pb2.Step.DESCRIPTOR, message.step, "steps.step"),
        started_at=_instant(message.start_time, "steps.start_time"),
        ended_at=_instant(message.end_time, "steps.end_time"),
        is_success=message.succeeded,
        evidence=_evidence(message.evidence),
    )


def _evidence(told: Mapping[str, str]) -> dict[str, str]:
    return {key[:REASON_CHARS_MAX]: told[key][:EVIDENCE_CHARS_MAX] for key in sorted(told)[:EVIDENCE_MAX]}


def welcome(grant: commands.SessionGrant, protocol_version: int) -> agent_service_pb2.ConnectResponse:
    """The answer to a Hello."""
    return agent_service_pb2.ConnectResponse(
        welcome=agent_service_pb2.Welcome(
            session_id=grant.session_id,
            session_generation=grant.generation,
            protocol_version=protocol_version,
            heartbeat_period=_duration(grant.heartbeat_period),
            server_time=_timestamp(grant.server_time),
        )
    )


def acknowledgement(
    sequence: int,
    *,
    echo_send_time: timestamp_pb2.Timestamp | None,
    server_time: datetime,
    heartbeat_period: timedelta,
) -> agent_service_pb2.ConnectResponse:
    """All up to a sequence is durable here.

    Args:
        sequence: The last of these.
        echo_send_time: Send time of the latest heartbeat, as received; None before the first.
        server_time: The controller's clock.
        heartbeat_period: From here on.
    """
    return agent_service_pb2.ConnectResponse(
        acknowledgement=agent_service_pb2.Acknowledgement(
            sequence=sequence,
            echo_send_time=echo_send_time,
            server_time=_timestamp(server_time),
            heartbeat_period=_duration(heartbeat_period),
        )
    )


def full_report_request(expected_sequence: int) -> agent_service_pb2.ConnectResponse:
    """The message with this sequence did not come."""
    return agent_service_pb2.ConnectResponse(
        full_report_request=agent_service_pb2.FullReportRequest(expected_sequence=expected_sequence)
    )


def go_away(reconnect_window: timedelta) -> agent_service_pb2.ConnectResponse:
    """The controller goes away for a while."""
    return agent_service_pb2.ConnectResponse(
        go_away=agent_service_pb2.GoAway(reconnect_window=_duration(reconnect_window))
    )


def command(asked: commands.Command) -> agent_service_pb2.ConnectResponse:
    """What is asked of an agent."""
    match asked:
        case commands.AssignCommand():
            return agent_service_pb2.ConnectResponse(assign=_assign(asked))
        case commands.ProceedCommand():
            return agent_service_pb2.ConnectResponse(proceed=_proceed(asked))
        case commands.CancelCommand(operation_id, fence, reason):
            cancel = agent_service_pb2.Cancel(operation_id=operation_id, fence=fence, reason=reason)
            return agent_service_pb2.ConnectResponse(cancel=cancel)
        case _:
            assert_never(asked)


def _assign(asked: commands.AssignCommand) -> agent_service_pb2.Assign:
    return agent_service_pb2.Assign(
        operation_id=asked.operation_id,
        fence=asked.fence,
        attempt=asked.attempt,
        component=asked.component,
        kind=operation_pb2.ChangeKind.Value(f"CHANGE_KIND_{asked.kind.name}"),
        method=operation_pb2.Method.Value(f"METHOD_{asked.method.name}"),
        from_digest=asked.from_digest,
        to_digest=asked.to_digest,
        to_version=asked.to_version,
        hold_before=_step(asked.hold_before),
        start_by=_timestamp(asked.start_by),
        deadline=_duration(asked.deadline),
        soak_duration=_duration(asked.soak_duration),
        soak_requests_min=asked.soak_requests_min,
        min_healthy_duration=_duration(asked.min_healthy_duration),
        healthy_deadline=_duration(asked.healthy_deadline),
        traceparent=asked.traceparent,
        discard_writes=asked.discard_writes,
    )


def _proceed(asked: commands.ProceedCommand) -> agent_service_pb2.Proceed:
    return agent_service_pb2.Proceed(
        operation_id=asked.operation_id,
        fence=asked.fence,
        step=_step(asked.step),
        hold_before=_step(asked.hold_before),
    )


def _step(step: model.Step | None) -> operation_pb2.Step.ValueType:
    return operation_pb2.Step.Value(f"STEP_{step.name if step else 'UNSPECIFIED'}")


def read_log(asked: log_reading.Question) -> agent_service_pb2.ConnectResponse:
    """A question for a log."""
    return agent_service_pb2.ConnectResponse(
        read_log=agent_service_pb2.ReadLog(
            request_id=asked.request_id, component=asked.component, max_bytes=asked.max_bytes
        )
    )


def log_text(message: agent_service_pb2.LogText) -> log_reading.Answer:
    """The answer to it."""
    return log_reading.Answer(message.request_id, message.instance_id, message.text, message.error)


def _member(kind: type[_E], enum: descriptor.EnumDescriptor, number: int, field: str) -> _E:
    found = _optional(kind, enum, number, field)
    if found is None:
        raise _unreadable(field, enum.values_by_number[number].name, f"one of {', '.join(kind.__members__)}")
    return found


def _optional(kind: type[_E], enum: descriptor.EnumDescriptor, number: int, field: str) -> _E | None:
    """The member that a wire enum names; None for its zero, which is "not set"."""
    if number == 0:
        return None
    # INSTANCE_STATE_ACTIVE is the ACTIVE of InstanceState: the prefix is as long as that of the zero.
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    value = enum.values_by_number.get(number)
    short = str(number) if value is None else value.name.removeprefix(prefix)
    if short not in kind.__members__:
        raise _unreadable(field, short, f"one of {', '.join(kind.__members__)}")
    return kind[short]


def _instant(message: timestamp_pb2.Timestamp, field: str) -> datetime:
    return _read(field, lambda: message.ToDatetime(tzinfo=UTC))


def _read(field: str, reader: Callable[[], _T]) -> _T:
    try:
        return reader()
    except (ValueError, OverflowError) as error:
        raise _unreadable(field, str(error), "a value that the protocol knows") from error


def _unreadable(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot read {field} {value!r}: it must be {rule}", code="message_invalid", field=field, value=value, rule=rule
    )


def _timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(instant)
    return timestamp


def _duration(span: timedelta) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromTimedelta(span)
    return duration
