"""Spans, derived from the rows of a rollout: values in, values out.

Rules kept: a span is made once, when the row that it tells of has ended; its parent is made too, then or later, so
that no trace keeps an orphan; its text is canonical. Agents speak through journalled step records, so a span of theirs
carries the agent's own resource. What a backend may drop with resources (host, version) is repeated as attributes.
Left out: storing (`controller.store`) and sending (`emit`).

Source: OpenTelemetry semantic conventions for CI/CD, deployment and host; ``upgrade.*`` is our own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, unique

from controller.core import effects, model
from controller.telemetry import ids

Attribute = str | int | bool

CONTROLLER_SERVICE = "instar-controller"
AGENT_SERVICE = "instar-agent"
NAMESPACE = "instar"
# Evidence becomes attributes; the SDK's own limit for one span is 128.
EVIDENCE_MAX = 64
_MICROSECOND = timedelta(microseconds=1)
_NANOSECONDS_PER_MICROSECOND = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)


@unique
class Kind(Enum):
    """What role a span plays, as OpenTelemetry names it."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


@dataclass(frozen=True, slots=True)
class Span:
    """One ended span.

    Args:
        parent_id: Empty for the root.
        error: Why it failed, for people; empty where it did not.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: Kind
    started_at: datetime
    ended_at: datetime
    resource: Mapping[str, str]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    is_failed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of one operation when its spans are made.

    Args:
        ended_at: When it ended, by the controller's clock.
        status: What the agent last said of it; None when it never spoke.
        agent_version: Of the agent that it was given to.
    """

    rollout_id: model.RolloutId
    assign: effects.Assign
    assigned_at: datetime
    ended_at: datetime
    status: model.OperationStatus | None
    agent_version: str


def to_text(span: Span) -> str:
    """Write a span as canonical JSON; equal spans give equal bytes."""
    data = {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "kind": span.kind.value,
        "started_at": _nanoseconds(span.started_at),
        # A clock that was set back must not make a span end before it began: backends drop those.
        "ended_at": _nanoseconds(max(span.started_at, span.ended_at)),
        "resource": span.resource,
        "attributes": span.attributes,
        "is_failed": span.is_failed,
        "error": span.error,
    }
    return _CANONICAL.encode(data)


def created(rollout: model.Rollout, planning_began_at: datetime) -> tuple[Span, ...]:
    """Make what can be told at once: that it started, so that it is found at second 0, and how it was planned."""
    started = _child(rollout, "rollout started", "pending", rollout.created_at, rollout.created_at)
    attributes: dict[str, Attribute] = {
        "upgrade.plan.hash": rollout.plan.fingerprint,
        "upgrade.plan.waves": len(rollout.plan.waves),
        "upgrade.plan.nodes": len(_nodes(rollout)),
    }
    plan = _child(rollout, "plan", "plan", planning_began_at, rollout.created_at, attributes)
    return started, plan


def wave(rollout: model.Rollout, index: int, started_at: datetime, ended_at: datetime) -> Span:
    """Make the span of a wave that has ended."""
    planned = rollout.plan.waves[index - 1]
    return Span(
        trace_id=ids.trace_id(rollout.id),
        span_id=ids.wave(rollout.id, index),
        parent_id=ids.root(rollout.id),
        name="wave",
        kind=Kind.INTERNAL,
        started_at=started_at,
        ended_at=ended_at,
        resource=controller_resource(),
        attributes={
            "deployment.id": rollout.id,
            "upgrade.wave.index": index,
            "upgrade.wave.is_canary": planned.is_canary,
            "upgrade.wave.nodes": len(planned.changes),
        },
    )


def ended(rollout: model.Rollout, ended_at: datetime, epoch: int) -> tuple[Span, ...]:
    """Make the spans of a rollout that is at its end.

    The root is told at the first end only, for a backend keeps the first telling; a revert that somebody orders after
    a success is therefore told by a span of its own.
    """
    root = _root(rollout, ended_at, epoch)
    back = [each for each in rollout.changes.values() if each.is_reverting]
    if rollout.state not in _WENT_BACK:
        return (root,)
    began_at = min((each.assigned_at for each in back if each.assigned_at is not None), default=ended_at)
    return root, _child(
        rollout, "revert", "revert", began_at, ended_at, {**_counts(rollout), "controller.epoch": epoch}
    )


_WENT_BACK = frozenset({model.RolloutState.REVERTED, model.RolloutState.STUCK})


def _root(rollout: model.Rollout, ended_at: datetime, epoch: int) -> Span:
    is_good = rollout.state is model.RolloutState.SUCCEEDED
    failure: dict[str, Attribute] = {} if is_good else {"error.type": rollout.reason or rollout.state.value.lower()}
    return Span(
        trace_id=ids.trace_id(rollout.id),
        span_id=ids.root(rollout.id),
        parent_id="",
        name="RUN rollout",
        kind=Kind.SERVER,
        started_at=rollout.created_at,
        ended_at=ended_at,
        resource=controller_resource(),
        attributes={**_rollout_attributes(rollout), **_counts(rollout), **failure, "controller.epoch": epoch},
        is_failed=not is_good,
        error=rollout.message if not is_good else "",
    )


def operation(told: Operation, steps: Sequence[model.StepRecord]) -> tuple[Span, ...]:
    """Make the spans of an operation that has ended: what was asked, and what the agent did about it.

    Nothing is said of an agent from which nothing was heard.
    """
    attributes = _operation_attributes(told)
    asked = _asked(told, attributes)
    if told.status is None and not steps:
        return (asked,)
    return asked, _application(told, steps, attributes), *(_step(told, each) for each in steps)


def _asked(told: Operation, attributes: Mapping[str, Attribute]) -> Span:
    return Span(
        trace_id=ids.trace_id(told.rollout_id),
        span_id=ids.operation(told.rollout_id, told.assign.operation_id),
        parent_id=ids.wave(told.rollout_id, told.assign.wave),
        name="upgrade node",
        kind=Kind.PRODUCER,
        started_at=told.assigned_at,
        ended_at=told.ended_at,
        resource=controller_resource(),
        attributes=attributes,
        is_failed=_is_failed(told.status),
        error=_error(told.status),
    )


def _application(told: Operation, steps: Sequence[model.StepRecord], attributes: Mapping[str, Attribute]) -> Span:
    spoken_at = told.assigned_at if told.status is None else told.status.changed_at
    return Span(
        trace_id=ids.trace_id(told.rollout_id),
        span_id=ids.application(told.rollout_id, told.assign.operation_id),
        parent_id=ids.operation(told.rollout_id, told.assign.operation_id),
        name="apply upgrade",
        kind=Kind.CONSUMER,
        started_at=min((each.started_at for each in steps), default=min(told.assigned_at, spoken_at)),
        ended_at=max((each.ended_at for each in steps), default=spoken_at),
        resource=_agent_resource(told),
        attributes=attributes,
        is_failed=_is_failed(told.status),
        error=_error(told.status),
    )


def _step(told: Operation, step: model.StepRecord) -> Span:
    failure: dict[str, Attribute] = {} if step.is_success else {"error.type": step.evidence.get("reason", "failed")}
    evidence = {f"upgrade.evidence.{name}": step.evidence[name] for name in sorted(step.evidence)[:EVIDENCE_MAX]}
    return Span(
        trace_id=ids.trace_id(told.rollout_id),
        span_id=ids.step(told.rollout_id, step.operation_id, step.index),
        parent_id=ids.application(told.rollout_id, step.operation_id),
        name=step.step.value.lower().replace("_", " "),
        kind=Kind.CLIENT if step.step is model.Step.FETCH else Kind.INTERNAL,
        started_at=step.started_at,
        ended_at=step.ended_at,
        resource=_agent_resource(told),
        attributes={
            "deployment.id": told.rollout_id,
            "host.id": told.assign.change.node_id,
            "upgrade.operation.id": step.operation_id,
            "upgrade.step.name": step.step.value.lower(),
            "upgrade.step.index": step.index,
            **evidence,
            **failure,
        },
        is_failed=not step.is_success,
        error=step.evidence.get("message", "") if not step.is_success else "",
    )


def _child(
    rollout: model.Rollout,
    name: str,
    key: str,
    started_at: datetime,
    ended_at: datetime,
    attributes: Mapping[str, Attribute] | None = None,
) -> Span:
    return Span(
        trace_id=ids.trace_id(rollout.id),
        span_id=ids.span_id(rollout.id, key),
        parent_id=ids.root(rollout.id),
        name=name,
        kind=Kind.INTERNAL,
        started_at=started_at,
        ended_at=ended_at,
        resource=controller_resource(),
        attributes={"upgrade.span_type": key, **_rollout_attributes(rollout), **(attributes or {})},
    )


def _rollout_attributes(rollout: model.Rollout) -> dict[str, Attribute]:
    changes = [change for each in rollout.plan.waves for change in each.changes]
    from_versions = sorted({change.from_version for change in changes if change.from_version})
    return {
        "cicd.pipeline.name": "rollout",
        "cicd.pipeline.run.id": rollout.id,
        "cicd.pipeline.action.name": "RUN",
        "deployment.id": rollout.id,
        "deployment.name": rollout.request.name,
        "service.version": rollout.request.target_version,
        "upgrade.component": rollout.request.component,
        "upgrade.strategy": rollout.request.strategy.value.lower(),
        "upgrade.from_version": ",".join(from_versions),
        "upgrade.to_version": rollout.request.target_version,
        "upgrade.kind": (rollout.request.kind.value if rollout.request.kind else "UPGRADE").lower(),
        "upgrade.artifact.hash": changes[0].to_digest if changes else "",
        "upgrade.actor": rollout.actor,
    }


_PIPELINE_RESULTS = {
    model.RolloutState.SUCCEEDED: "success",
    model.RolloutState.FAILED: "failure",
    model.RolloutState.CANCELLED: "cancellation",
    model.RolloutState.REVERTED: "failure",
    model.RolloutState.STUCK: "error",
}


def _counts(rollout: model.Rollout) -> dict[str, Attribute]:
    nodes = _nodes(rollout)
    progress = rollout.changes.values()
    pending = {each.change.node_id for each in progress if not _is_done(each)}
    failed = {each.change.node_id for each in progress if each.fault is not None or each.is_reverting}
    return {
        "cicd.pipeline.result": _PIPELINE_RESULTS[rollout.state],
        "upgrade.rollout.state": rollout.state.value.lower(),
        "upgrade.nodes.total": len(nodes),
        "upgrade.nodes.succeeded": len(nodes - pending - failed),
        "upgrade.nodes.failed": len(failed),
        "upgrade.nodes.skipped": len(rollout.plan.unchanged),
    }


def _is_done(progress: model.Progress) -> bool:
    return progress.state is model.OperationState.PERMANENT and not progress.is_reverting


def _nodes(rollout: model.Rollout) -> set[model.NodeId]:
    return {change.node_id for each in rollout.plan.waves for change in each.changes}


def _operation_attributes(told: Operation) -> dict[str, Attribute]:
    change, status = told.assign.change, told.status
    failure: dict[str, Attribute] = {}
    if status is not None and _is_failed(status):
        failure = {"error.type": status.reason or status.state.value.lower()}
    if status is not None and status.fault is not None:
        failure["upgrade.fault"] = status.fault.value.lower()
    return {
        "deployment.id": told.rollout_id,
        "host.id": change.node_id,
        "upgrade.component": change.component,
        "service.version": change.to_version,
        "upgrade.operation.id": told.assign.operation_id,
        "upgrade.attempt": told.assign.attempt,
        "upgrade.wave.index": told.assign.wave,
        "upgrade.kind": change.kind.value.lower(),
        "upgrade.method": change.method.value.lower(),
        "upgrade.from_version": change.from_version,
        "upgrade.to_version": change.to_version,
        "upgrade.is_reverting": told.assign.is_reverting,
        "upgrade.agent.version": told.agent_version,
        "upgrade.node.outcome": (model.OperationState.UNKNOWN if status is None else status.state).value.lower(),
        **failure,
    }


_GOOD = frozenset({model.OperationState.COMMITTED, model.OperationState.PERMANENT})


def _is_failed(status: model.OperationStatus | None) -> bool:
    return status is None or status.state not in _GOOD


def _error(status: model.OperationStatus | None) -> str:
    if status is None:
        return "the node never answered"
    return status.message if _is_failed(status) else ""


def controller_resource() -> dict[str, str]:
    """Name what speaks in the spans that are the controller's own."""
    return {"service.name": CONTROLLER_SERVICE, "service.namespace": NAMESPACE}


def _agent_resource(told: Operation) -> dict[str, str]:
    node_id = told.assign.change.node_id
    return {
        "service.name": AGENT_SERVICE,
        "service.namespace": NAMESPACE,
        "service.instance.id": node_id,
        "service.version": told.agent_version,
        "host.id": node_id,
        "host.name": node_id,
    }


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND * _NANOSECONDS_PER_MICROSECOND
