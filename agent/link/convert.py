"""Between the messages of the link and the agent's own model: total in both directions, and nowhere else.

Rules kept: every member of an enum has its counterpart by name; an absent optional is None; what the model cannot hold
raises `MessageError`, so that nothing half-read goes further in.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeVar, assert_never

from google.protobuf import duration_pb2, timestamp_pb2

from agent.core import model, session
from instar.v1 import agent_service_pb2, node_pb2, operation_pb2

_E = TypeVar("_E", bound=Enum)

_HEALTHS = {
    model.Health.UNKNOWN: node_pb2.HEALTH_UNSPECIFIED,
    model.Health.HEALTHY: node_pb2.HEALTH_HEALTHY,
    model.Health.UNHEALTHY: node_pb2.HEALTH_UNHEALTHY,
}
HOLDS = {f"STEP_{step.name}": step for step in (model.Step.SWITCH, model.Step.COMMIT)}


Request = agent_service_pb2.ConnectRequest


class MessageError(Exception):
    """A message of the controller that this agent cannot read."""


def request(effect: session.SendHello | session.SendHeartbeat | session.SendLogText, node_id: str) -> Request:
    """The message that the session wants to be sent."""
    match effect:
        case session.SendHello():
            return hello(effect, node_id)
        case session.SendHeartbeat():
            return heartbeat(effect)
        case session.SendLogText():
            return log_text(effect)
        case _:
            assert_never(effect)


def hello(effect: session.SendHello, node_id: str) -> agent_service_pb2.ConnectRequest:
    """The message that opens a session."""
    facts = effect.facts
    return agent_service_pb2.ConnectRequest(
        sequence=effect.sequence,
        hello=agent_service_pb2.Hello(
            node_id=node_id,
            boot_id=facts.boot_id,
            instance_token=facts.instance_token,
            protocol_versions=session.PROTOCOL_VERSIONS,
            agent_version=facts.agent_version,
            capabilities=facts.capabilities,
            highest_fence=facts.highest_fence,
            labels=facts.labels,
            report=_report(effect.report),
        ),
    )


def heartbeat(effect: session.SendHeartbeat) -> agent_service_pb2.ConnectRequest:
    """The message that tells what changed."""
    return agent_service_pb2.ConnectRequest(
        sequence=effect.sequence,
        heartbeat=agent_service_pb2.Heartbeat(
            report=_report(effect.report), full=effect.is_full, send_time=_timestamp(effect.sent_at)
        ),
    )


def log_text(effect: session.SendLogText) -> agent_service_pb2.ConnectRequest:
    """The message that answers a question for a log."""
    text = effect.text
    return agent_service_pb2.ConnectRequest(
        sequence=effect.sequence,
        log_text=agent_service_pb2.LogText(
            request_id=text.request_id, instance_id=text.instance_id, text=text.text, error=text.error
        ),
    )


def _report(report: model.Report) -> agent_service_pb2.Report:
    gone = [node_pb2.ComponentStatus(name=name, removed=True) for name in report.removed]
    return agent_service_pb2.Report(
        metrics=map(_metric, report.metrics),
        components=[*map(_component, report.components), *gone],
        operations=map(_operation, report.operations),
        steps=map(_step_record, report.steps),
        conditions=_conditions(report.conditions),
        gone_metrics=[node_pb2.MetricName(name=name, component=component) for name, component in report.gone_metrics],
    )


def _metric(metric: model.Metric) -> node_pb2.Metric:
    return node_pb2.Metric(
        name=metric.name,
        component=metric.component,
        value=metric.value,
        kind=node_pb2.MetricKind.Value(f"METRIC_KIND_{metric.kind.name}"),
        life=metric.life,
    )


def _conditions(conditions: tuple[model.Condition, ...] | None) -> node_pb2.Conditions | None:
    if conditions is None:
        return None
    items = [
        node_pb2.Condition(
            code=condition.code,
            component=condition.component,
            message=condition.message,
            since_time=_timestamp(condition.since),
        )
        for condition in conditions
    ]
    return node_pb2.Conditions(items=items)


def _component(status: model.ComponentStatus) -> node_pb2.ComponentStatus:
    return node_pb2.ComponentStatus(
        name=status.name,
        version=status.version,
        digest=status.digest,
        permanent_digest=status.permanent_digest,
        health=_HEALTHS[status.health],
        healthy_for=_duration(status.healthy_for),
        instances=map(_instance, status.instances),
        stopped=status.is_stopped,
    )


def _instance(instance: model.Instance) -> node_pb2.Instance:
    return node_pb2.Instance(
        instance_id=instance.id,
        digest=instance.digest,
        pid=instance.pid,
        state=node_pb2.InstanceState.Value(f"INSTANCE_STATE_{instance.state.name}"),
        served=instance.served,
        restarts=instance.restarts,
    )


def _operation(status: model.OperationStatus) -> operation_pb2.OperationStatus:
    return operation_pb2.OperationStatus(
        operation_id=status.operation_id,
        fence=status.fence,
        component=status.component,
        state=operation_pb2.OperationState.Value(f"OPERATION_STATE_{status.state.name}"),
        step=operation_pb2.Step.Value(f"STEP_{status.step.name if status.step else 'UNSPECIFIED'}"),
        fault=operation_pb2.Fault.Value(f"FAULT_{status.fault.name if status.fault else 'UNSPECIFIED'}"),
        reason=status.reason,
        message=status.message,
        change_time=_timestamp(status.changed_at),
    )


def _step_record(record: model.StepRecord) -> operation_pb2.StepRecord:
    return operation_pb2.StepRecord(
        operation_id=record.operation_id,
        index=record.index,
        step=operation_pb2.Step.Value(f"STEP_{record.step.name}"),
        start_time=_timestamp(record.started_at),
        end_time=_timestamp(record.ended_at),
        succeeded=record.is_success,
        evidence=record.evidence,
    )


def response(message: agent_service_pb2.ConnectResponse, at: datetime) -> session.Message | None:
    """What the controller said; None where it is of a kind that this agent does not know yet.

    Args:
        message: As received.
        at: When it came, on the agent's clock.

    Raises:
        MessageError: It is of a known kind and cannot be read.
    """
    try:
        return _response(message, at)
    except (ValueError, OverflowError) as error:
        raise MessageError(f"cannot read {message.WhichOneof('message')}: {error}") from error


def _response(message: agent_service_pb2.ConnectResponse, at: datetime) -> session.Message | None:
    match message.WhichOneof("message"):
        case "welcome":
            return _welcome(message.welcome, at)
        case "acknowledgement":
            return _acknowledgement(message.acknowledgement, at)
        case "full_report_request":
            return session.FullReportRequested(message.full_report_request.expected_sequence)
        case "assign" | "proceed" | "cancel" | "read_log":
            return session.Commanded(_command(message))
        case "go_away":
            return session.WentAway(message.go_away.reconnect_window.ToTimedelta())
        case None:
            return None
        case kind:
            assert_never(kind)


def _welcome(welcome: agent_service_pb2.Welcome, at: datetime) -> session.Welcomed:
    return session.Welcomed(
        at=at,
        session_id=welcome.session_id,
        generation=welcome.session_generation,
        protocol_version=welcome.protocol_version,
        heartbeat_period=welcome.heartbeat_period.ToTimedelta(),
        server_time=_instant(welcome.server_time),
    )


def _acknowledgement(ack: agent_service_pb2.Acknowledgement, at: datetime) -> session.Acknowledged:
    return session.Acknowledged(
        at=at,
        sequence=ack.sequence,
        echo_sent_at=_instant(ack.echo_send_time) if ack.HasField("echo_send_time") else None,
        server_time=_instant(ack.server_time),
        heartbeat_period=ack.heartbeat_period.ToTimedelta(),
    )


def _command(message: agent_service_pb2.ConnectResponse) -> model.Command:
    match message.WhichOneof("message"):
        case "proceed":
            return _proceed(message.proceed)
        case "cancel":
            return model.Cancel(message.cancel.operation_id, message.cancel.fence, message.cancel.reason)
        case "read_log":
            asked = message.read_log
            return model.ReadLog(asked.request_id, asked.component, asked.max_bytes)
        case _:
            return model.Assign(_assignment(message.assign))


def _assignment(assign: agent_service_pb2.Assign) -> model.Assignment:
    return model.Assignment(
        operation_id=assign.operation_id,
        fence=assign.fence,
        attempt=assign.attempt,
        component=assign.component,
        kind=_member(model.ChangeKind, operation_pb2.ChangeKind.Name(assign.kind), "CHANGE_KIND_"),
        method=_member(model.Method, operation_pb2.Method.Name(assign.method), "METHOD_"),
        from_digest=assign.from_digest,
        to_digest=assign.to_digest,
        to_version=assign.to_version,
        hold_before=_optional_hold(assign.hold_before),
        start_by=_instant(assign.start_by) if assign.HasField("start_by") else None,
        deadline=assign.deadline.ToTimedelta(),
        soak_duration=assign.soak_duration.ToTimedelta(),
        soak_requests_min=assign.soak_requests_min,
        min_healthy_duration=assign.min_healthy_duration.ToTimedelta(),
        healthy_deadline=assign.healthy_deadline.ToTimedelta(),
        traceparent=assign.traceparent,
        discard_writes=assign.discard_writes,
    )


def _proceed(proceed: agent_service_pb2.Proceed) -> model.Proceed:
    return model.Proceed(
        operation_id=proceed.operation_id,
        fence=proceed.fence,
        step=_hold(proceed.step),
        hold_before=_optional_hold(proceed.hold_before),
    )


def _optional_hold(step: operation_pb2.Step.ValueType) -> model.Step | None:
    return None if step == operation_pb2.STEP_UNSPECIFIED else _hold(step)


def _hold(step: operation_pb2.Step.ValueType) -> model.Step:
    """A hold that this agent cannot keep is not read as none: what it is to protect would be passed over."""
    name = operation_pb2.Step.Name(step)
    if name not in HOLDS:
        raise ValueError(f"{name} is not one of {', '.join(HOLDS)}")
    return HOLDS[name]


def _member(kind: type[_E], name: str, prefix: str) -> _E:
    short = name.removeprefix(prefix)
    if short not in kind.__members__:
        raise ValueError(f"{name} is not one of {', '.join(kind.__members__)}")
    return kind[short]


def _timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(instant)
    return timestamp


def _instant(timestamp: timestamp_pb2.Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _duration(span: timedelta) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromTimedelta(span)
    return duration
