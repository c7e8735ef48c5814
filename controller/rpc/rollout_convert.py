"""Plans and rollouts on the wire; of a plan that comes back only what tells it apart from another one is read.

Rules kept here: every part of a plan is shown, its facts only before it has become a rollout; the changes of a rollout
come in plan order, those of nodes that came later behind them. Left out: requests (`request_convert`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from controller.core import model
from controller.core import rollout as core
from controller.rpc import analysis_convert, convert, request_convert
from instar.v1 import operation_pb2, rollout_pb2, rollout_service_pb2

_UNDER_WAY = "under_way"  # code of the reason that is none: what was begun has to end first


def plan(value: model.Plan, *, with_facts: bool = True) -> rollout_pb2.Plan:
    """A plan; its facts are for whoever may come back with it."""
    return rollout_pb2.Plan(
        fingerprint=value.fingerprint,
        waves=map(_wave, value.waves),
        unchanged_nodes=value.unchanged,
        excluded=[
            rollout_pb2.Exclusion(node_id=one.node_id, code=one.code, message=one.message) for one in value.excluded
        ],
        warnings=[rollout_pb2.PlanWarning(code=one.code, message=one.message) for one in value.warnings],
        blast_radius=_blast_radius(value.blast_radius),
        capacity=map(_capacity, value.capacity),
        estimate=_estimate(value.estimate),
        facts=dict(value.facts) if with_facts else {},
        advice=map(_advice, value.advice),
        advice_left_out=value.advice_left_out,
        forecast=analysis_convert.forecast(value.forecast),
    )


def _wave(value: model.Wave) -> rollout_pb2.Wave:
    return rollout_pb2.Wave(
        index=value.index,
        canary=value.is_canary,
        changes=map(_change, value.changes),
        bake_duration=convert.duration(value.bake_duration),
        purpose=value.why,
    )


def _blast_radius(value: model.BlastRadius) -> rollout_pb2.BlastRadius:
    return rollout_pb2.BlastRadius(
        nodes=value.nodes,
        of_nodes=value.of_nodes,
        first_wave=value.first_wave,
        domains=[rollout_pb2.DomainCount(domain=domain, nodes=nodes) for domain, nodes in value.domains],
    )


def _capacity(value: model.CapacityPoint) -> rollout_pb2.CapacityPoint:
    return rollout_pb2.CapacityPoint(
        wave=value.wave,
        after=convert.duration(value.after),
        available_min=value.available_min,
        total=value.total,
    )


def _estimate(value: model.Estimate) -> rollout_pb2.Estimate:
    return rollout_pb2.Estimate(
        median=convert.duration(value.median),
        p95=convert.duration(value.p95),
        reason=value.why,
    )


def _advice(value: model.Advice) -> rollout_pb2.Advice:
    return rollout_pb2.Advice(
        component=value.component,
        from_version=value.from_version,
        to_version=value.to_version,
        method=convert.number(operation_pb2.Method.Value, "METHOD_", value.method),
        node_class=value.node_class,
        changes=value.changes,
        chance=value.chance,
        chance_low=value.chance_low,
        successes=value.successes,
        version_failures=value.version_failures,
        other_failures=value.other_failures,
        reason=value.why,
        wave_nodes=value.wave_nodes,
        wave_reason=value.why_wave,
        estimate=None if value.estimate is None else _estimate(value.estimate),
        better_method=convert.number(operation_pb2.Method.Value, "METHOD_", value.better_method),
        better_method_reason=value.why_better,
    )


def _change(value: model.Change) -> rollout_pb2.Change:
    return rollout_pb2.Change(
        node_id=value.node_id,
        component=value.component,
        kind=convert.number(operation_pb2.ChangeKind.Value, "CHANGE_KIND_", value.kind),
        method=convert.number(operation_pb2.Method.Value, "METHOD_", value.method),
        from_version=value.from_version,
        from_digest=value.from_digest,
        to_version=value.to_version,
        to_digest=value.to_digest,
        no_way_back=value.no_way_back,
        method_reason=value.why_method,
        domain=value.domain,
    )


def from_plan(message: rollout_pb2.Plan) -> model.Plan:
    """A saved plan that comes back: its fingerprint, and what that is over.

    Raises:
        InvalidRequestError: It has no fingerprint.
    """
    convert.refuse_unless(bool(message.fingerprint), "plan.fingerprint", message.fingerprint, "given")
    return model.Plan(message.fingerprint, waves=(), unchanged=(), facts=tuple(sorted(message.facts.items())))


def rollout(value: model.Rollout, trace_id: str, at: datetime) -> rollout_pb2.Rollout:
    """A rollout.

    Args:
        value: The rollout.
        trace_id: Identity of its trace.
        at: Now, for what it waits for.
    """
    waits, dropped = core.waiting_for(value, at), core.dropped(value)
    return rollout_pb2.Rollout(
        rollout_id=value.id,
        name=value.request.name,
        request=request_convert.request(value.request),
        plan=plan(value.plan, with_facts=False),
        state=convert.number(rollout_pb2.RolloutState.Value, "ROLLOUT_STATE_", value.state),
        wave=value.wave,
        changes=[_progress(value.changes[key], is_dropped=key in dropped) for key in _keys(value)],
        reason=value.reason,
        message=value.message,
        create_time=convert.timestamp(value.created_at),
        end_time=convert.timestamp(value.ended_at),
        actor=value.actor,
        trace_id=trace_id,
        revision=value.revision,
        pause_time=convert.timestamp(value.paused_at),
        stopped_for=convert.duration(_stopped_for(value, at)),
        next_time=convert.timestamp(core.next_time(value)),
        waiting_for=waits.message if waits is not None and waits.code != _UNDER_WAY else "",
        approval=None if value.approval is None else approval(value.approval),
        judging=analysis_convert.judging(value.judging),
    )


def approval(value: model.Approval) -> rollout_pb2.Approval:
    """An approval, and what became of it."""
    return rollout_pb2.Approval(
        rollout_id=value.rollout_id,
        rollout_name=value.name,
        subject=value.subject,
        fingerprint=value.fingerprint,
        requester=value.requester,
        create_time=convert.timestamp(value.requested_at),
        expire_time=convert.timestamp(value.expires_at),
        state=convert.number(rollout_pb2.ApprovalState.Value, "APPROVAL_STATE_", value.state),
        decider=value.decider,
        decide_time=convert.timestamp(value.decided_at),
        reason=value.reason,
    )


def _stopped_for(value: model.Rollout, at: datetime) -> timedelta:
    """For how long its clock has stood still, what goes on included."""
    since = value.paused_at or value.idle_since or at
    return value.stopped_for + max(at - since, timedelta())


def _keys(value: model.Rollout) -> Iterator[model.ChangeKey]:
    """The changes that the rollout has, in plan order."""
    planned = [
        model.ChangeKey(wave.index, one.node_id, one.component) for wave in value.plan.waves for one in wave.changes
    ]
    known = set(planned)
    yield from (key for key in planned if key in value.changes)
    later = (key for key in value.changes if key not in known)
    yield from sorted(later, key=lambda key: (key.wave, key.node_id, key.component))


def _progress(value: model.Progress, *, is_dropped: bool) -> rollout_pb2.ChangeProgress:
    return rollout_pb2.ChangeProgress(
        change=_change(value.change),
        wave=value.wave,
        state=convert.number(operation_pb2.OperationState.Value, "OPERATION_STATE_", value.state),
        step=convert.number(operation_pb2.Step.Value, "STEP_", value.step),
        attempt=value.attempt,
        reverting=value.is_reverting,
        operation_id=value.operation_id or "",
        reason=value.reason,
        message=value.message,
        skipped=is_dropped,
        left=value.is_left,
    )


def reason(value: model.Reason) -> rollout_service_pb2.Reason:
    """One link of a chain of reasons."""
    return rollout_service_pb2.Reason(code=value.code, message=value.message, since_time=convert.timestamp(value.since))
