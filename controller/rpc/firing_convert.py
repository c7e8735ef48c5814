"""Events, and what comes of them: firings, how a trigger stands, why, and what it would have done.

Rules kept here: of events the wire says what CloudEvents say; all else only leaves. Left out: definitions
(`trigger_convert`), and what an event has to be (`controller.engine`).
"""

from __future__ import annotations

from controller.core import model
from controller.core.triggers import explaining, rehearsing
from controller.rpc import convert, trigger_convert
from instar.v1 import rollout_pb2, trigger_pb2

SPEC_VERSION = "1.0"  # of CloudEvents
SIGNALS_MAX = 100  # of a status: whom they concern is seen, and the answer stays small


def from_event(told: trigger_pb2.Event, place: str) -> model.ReceivedEvent:
    """An event from outside.

    Args:
        told: The event.
        place: Where it stands in the request, for example ``events[3]``.

    Raises:
        InvalidRequestError: It is of another specification, or happened in no year.
    """
    version = told.spec_version or SPEC_VERSION
    convert.refuse_unless(version == SPEC_VERSION, f"{place}.spec_version", version, SPEC_VERSION)
    at = convert.instant(told.time, f"{place}.time") if told.HasField("time") else None
    return model.ReceivedEvent(told.source, told.id, told.type, told.subject, at, told.data or "{}")


def firing(value: model.Firing) -> trigger_pb2.Firing:
    """A firing."""
    return trigger_pb2.Firing(
        firing_id=value.id,
        trigger_id=value.trigger_id,
        trigger=value.trigger,
        number=value.number,
        state=convert.number(trigger_pb2.FiringState.Value, "FIRING_STATE_", value.state),
        action=convert.number(trigger_pb2.TriggerActionKind.Value, "TRIGGER_ACTION_KIND_", value.does),
        cause=cause(value.cause),
        fire_time=convert.timestamp(value.fired_at),
        reason=value.reason.code,
        message=value.reason.message,
        since_time=convert.timestamp(value.reason.since),
        hold_end_time=convert.timestamp(value.held_until),
        release_time=convert.timestamp(value.released_at),
        approval=None if value.approval is None else _approval(value.approval),
        attempts=value.attempts,
        retry_time=convert.timestamp(value.next_try_at),
        rollout_id=value.rollout_id or "",
        end_time=convert.timestamp(value.ended_at),
    )


def cause(value: model.Cause) -> trigger_pb2.Cause:
    """Why a trigger fired."""
    return trigger_pb2.Cause(
        message=value.message,
        node_ids=value.node_ids,
        event_source=value.event_source,
        event_id=value.event_id,
        version=value.version,
        due_time=convert.timestamp(value.due_at),
        actor=value.actor,
    )


def _approval(value: model.FiringApproval) -> trigger_pb2.FiringApproval:
    return trigger_pb2.FiringApproval(
        requester=value.requester,
        create_time=convert.timestamp(value.requested_at),
        expire_time=convert.timestamp(value.expires_at),
        state=convert.number(rollout_pb2.ApprovalState.Value, "APPROVAL_STATE_", value.state),
        decider=value.decider,
        decide_time=convert.timestamp(value.decided_at),
        reason=value.reason,
    )


def view(value: model.Trigger, status: model.TriggerStatus) -> trigger_pb2.TriggerView:
    """A trigger, and how it stands."""
    return trigger_pb2.TriggerView(trigger=trigger_convert.trigger(value), status=_status(status))


def _status(value: model.TriggerStatus) -> trigger_pb2.TriggerStatus:
    by_node = sorted(value.signals.items(), key=lambda one: one[0] or "")[:SIGNALS_MAX]
    return trigger_pb2.TriggerStatus(
        firings=value.number,
        raised=value.raised,
        firing=value.is_raised,
        signals=[_signal(node_id, each) for node_id, each in by_node],
        released_last_hour=len(value.released),
        cooling_since_time=convert.timestamp(value.cooling_since),
        next_run_time=convert.timestamp(value.next_run_at),
        debounced=0 if value.debounced is None else value.debounced.count,
        seen_version=value.seen_version,
        open=map(firing, value.open),
        fault=None if value.fault is None else _fault(value.fault),
    )


def _signal(node_id: model.NodeId | None, value: model.Signal) -> trigger_pb2.Signal:
    return trigger_pb2.Signal(
        node_id=node_id or "",
        since_time=convert.timestamp(value.since),
        see_time=convert.timestamp(value.seen_at),
        raise_time=convert.timestamp(value.raised_at),
        clear_time=convert.timestamp(value.clear_since),
    )


def _fault(value: model.EvaluationFault) -> trigger_pb2.EvaluationFault:
    return trigger_pb2.EvaluationFault(
        code=value.code,
        message=value.message,
        time=convert.timestamp(value.at),
        count=value.count,
        retry_time=convert.timestamp(value.retry_at),
    )


def explanation(value: explaining.Explanation) -> trigger_pb2.Explanation:
    """Why a trigger fires, or does not."""
    return trigger_pb2.Explanation(
        headline=value.headline,
        guards=map(_guard_line, value.guards),
        signals=map(_signal_line, value.signals),
        signals_left_out=value.signals_left_out,
        open=map(firing, value.open),
        fault=None if value.fault is None else _fault(value.fault),
        next_chance_time=convert.timestamp(value.next_chance_at),
        next_chance=value.next_chance,
        values=map(_value_line, value.values),
        values_left_out=value.values_left_out,
    )


def _value_line(value: explaining.ValueLine) -> trigger_pb2.ValueLine:
    return trigger_pb2.ValueLine(
        node_id=value.node_id or "",
        met=value.is_met,
        values={name: found for name, found in value.values if found is not None},
        message=explaining.value_line(value),
    )


def _guard_line(value: explaining.GuardLine) -> trigger_pb2.GuardLine:
    return trigger_pb2.GuardLine(
        name=value.name,
        open=value.is_open,
        message=value.why,
        open_time=convert.timestamp(value.opens_at),
    )


def _signal_line(value: explaining.SignalLine) -> trigger_pb2.SignalLine:
    return trigger_pb2.SignalLine(
        node_id=value.node_id or "",
        since_time=convert.timestamp(value.since),
        raised=value.is_raised,
        message=value.why,
    )


def rehearsal(value: rehearsing.Rehearsal) -> trigger_pb2.Rehearsal:
    """What a trigger would have done."""
    return trigger_pb2.Rehearsal(
        start_time=convert.timestamp(value.since),
        end_time=convert.timestamp(value.until),
        firings=map(firing, value.firings),
        acted=sum(each.state is model.FiringState.SUCCEEDED for each in value.firings),
        notes=value.notes,
    )
